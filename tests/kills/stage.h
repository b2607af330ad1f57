/* A node as kubeadm leaves it, in a temporary root, and the two authorities of a run.
 *
 * Invariants
 * - Certificates are made by pkg/core/pki, keys are of curves (fast); manifests and the kubelet's configuration are tests/unit/fixtures.
 */
#ifndef STAGE_H
#define STAGE_H

#include "machine.h"
#include "tree.h"

#define RUN "run-1"
#define NODE "node-1"
#define PKI "/etc/kubernetes/pki"
#define MANIFESTS "/etc/kubernetes/manifests"
#define MANAGER MANIFESTS "/kube-controller-manager.yaml"
#define ASIDE "/etc/kubernetes/.certrotation-kube-controller-manager.yaml"
#define CURRENT "/var/lib/kubelet/pki/kubelet-client-current.pem"

struct stage_ca {
	struct cert *ca, *cross; /* itself; certified by the other */
	struct key *key;
	char *key_path;          /* outside of the root */
};

struct stage {
	struct tree tree;        /* the node's root is below it: "/root" */
	char *root;
	bool control_plane;
	struct stage_ca old, new;
};
struct stage stage_new(bool control_plane);
void stage_release(struct stage *s); /* cleanup(stage_release) */

/* What a job is asked for. levels as in struct desired; back: with old and new exchanged. Written beside the root; the path. */
const char *stage_desired(const struct stage *s, const int *levels, bool back, char ret_path[static CALL_PATH_SIZE]);
/* Everything below the root goes. */
void stage_clear(const struct stage *s);

#endif
