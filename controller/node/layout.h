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

struct layout {
	bool control_plane;
	char *root;                      /* prefix of every path: "" on the node itself */
	char *manifests, *kubelet_pki, *run_dir, *absorbed;
	char *ca_crt, *ca_key;           /* what --client-ca-file (control plane) or clientCAFile (worker) names */
	char *own_dir, *own_signer, *own_root;
	char *apiserver_crt, *apiserver_key, *kubelet_client_crt, *kubelet_client_key;
	char *api_host;                  /* where this node's API server listens, as in a URL: "127.0.0.1" */
	int api_port, manager_port, scheduler_port, kubelet_port;
	char *manager_manifest, *manager_aside;
	char *manager_conf, *scheduler_conf, *admin_conf, *super_admin_conf, *kubelet_conf;
	char *flag_signing_cert, *flag_signing_key, *flag_root_ca; /* as the manifest has them now, without root */
	struct strs others;              /* files that flags of static Pods name and that we do not handle: "path --flag manifest" */
};
void layout_release(struct layout *l);

/* Puts a manifest back that was left aside. */
result layout_heal(const char *root, struct err *e) MUST_CHECK;
/* Blockers go into r, and what kind of node it is; also on failure. root: "" on the node. run: the run's id. */
result layout_learn(const char *root, const char *run, struct layout *ret, struct report *r, struct err *e) MUST_CHECK;
/* False when something that the rest relies on is not known: a blocker has said what. */
bool layout_is_whole(const struct layout *l);
/* The manifest's text with the controller-manager's three flags set. NULL leaves a flag alone. */
result layout_edit_manager(const char *text, size_t len, const char *signing_cert, const char *signing_key, const char *root_ca,
			   struct buf *ret, struct err *e) MUST_CHECK;

#endif
