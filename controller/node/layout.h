/* Where things are on this node: read from the static Pods' flags and the kubelet's configuration, kubeadm's defaults only where
 * nothing says otherwise.
 *
 * Invariants
 * - A flag that we must change and can't follow (absent, twice, outside of what is mounted here) is a blocker, never a guess.
 * - Every other flag's file is kept in `others`: whether it depends on the authority is seen from what it holds, not from a list
 *   of flags that somebody must keep up with.
 * - A manifest that an interrupted run has left aside is put back by layout_heal before anything else is looked at.
 */
#ifndef LAYOUT_H
#define LAYOUT_H

#include "contract.h"

#define KUBERNETES_DIR "/etc/kubernetes"
#define KUBELET_DIR "/var/lib/kubelet"
#define STATE_DIR "/var/lib/certrotation"
#define MANIFEST_MAX ((size_t)1 << 20)

/* One authority's certificate and key, as kubeadm names them: "ca.crt", "ca.key". */
struct layout_authority {
	char *ca_crt, *ca_key;
};

/* What an etcd authority signs on a control plane, in the order in which they are replaced. */
enum etcd_leaf { ETCD_SERVER, ETCD_PEER, ETCD_API_CLIENT, ETCD_HEALTH_CLIENT, ETCD_LEAF_COUNT };

struct layout {
	bool control_plane;
	char *root;                      /* prefix of every path: "" on the node itself */
	char *manifests, *kubelet_pki, *run_dir, *absorbed;
	struct layout_authority of[AUTHORITY_COUNT]; /* Kubernetes: what --client-ca-file (control plane) or clientCAFile (worker) names;
						      * the others on control planes, while they are rotated */
	char *own_dir, *own_signer, *own_root;
	char *apiserver_crt, *apiserver_key, *kubelet_client_crt, *kubelet_client_key;
	char *api_host;                  /* where this node's API server listens, as in a URL: "127.0.0.1" */
	int api_port, manager_port, scheduler_port, kubelet_port;
	bool kubelet_rotates;            /* the kubelet renews its client certificate, and goes by its link in kubelet_pki */
	char *manager_manifest, *manager_aside;
	char *manager_conf, *scheduler_conf, *admin_conf, *super_admin_conf, *kubelet_conf;
	char *flag_signing_cert, *flag_signing_key, *flag_root_ca; /* as the manifest has them now, without root */
	char *proxy_client_crt, *proxy_client_key;
	char *etcd_leaves[ETCD_LEAF_COUNT]; /* certificates; the health check's may be NULL: there is none */
	char *etcd_client_key;           /* of ETCD_API_CLIENT */
	char *etcd_server;               /* "https://127.0.0.1:2379" */
	struct strs others;              /* files that flags of static Pods name and that we do not handle: "path --flag manifest" */
};
void layout_release(struct layout *l);

/* Puts a manifest back that was left aside. */
result layout_heal(const char *root, struct err *e) MUST_CHECK;
/* Blockers go into r, and what kind of node it is; also on failure. root: "" on the node. d: the run's id, and which authorities are
 * looked for besides the cluster's own. */
result layout_learn(const char *root, const struct desired *d, struct layout *ret, struct report *r, struct err *e) MUST_CHECK;
/* False when something that the rest relies on is not known: a blocker has said what. */
bool layout_is_whole(const struct layout *l, const struct desired *d);
/* The manifest's text with the controller-manager's three flags set. NULL leaves a flag alone. */
result layout_edit_manager(const char *text, size_t len, const char *signing_cert, const char *signing_key, const char *root_ca,
			   struct buf *ret, struct err *e) MUST_CHECK;

#endif
