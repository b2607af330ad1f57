/* A plan: the next actions, as data.
 *
 * Invariants
 * - Every action is safe on its own and idempotent: a crash may fall between any two, and after any of them.
 * - Strings in actions are borrowed from the world that the plan was made from.
 */
#ifndef PLAN_H
#define PLAN_H

#include "world.h"

enum action_kind {
	ACT_CREATE_AUTHORITY,      /* N's key and certificate of `authority` into a Secret of role `next`, before first use */
	ACT_STORE_BRIDGE,          /* X of `authority`, and the probe certificate, from `node`'s report into that Secret */
	ACT_LATCH,                 /* accepted stragglers onto that Secret, and what `level` names: LATCH_* bits */
	ACT_DELETE_KUBEADM_CERTS,
	ACT_NODE,                  /* run the node program on `node` towards `levels` */
	ACT_RELEASE_LEASE,         /* `name`: the Lease of a process that was seen to be dead */
	ACT_PUBLISH,               /* kube-root-ca.crt and token Secrets that lag behind `level` (TRUST_BOTH, TRUST_NEW) */
	ACT_CA_BUNDLES,            /* caBundles of webhooks, APIServices and CRD conversions that lag behind `level` and may be written now */
	ACT_CLUSTER_INFO,          /* cluster-info at `level`, with its signatures, in one write */
	ACT_ADMIN_KUBECONFIG,      /* the administrator's kubeconfig from N in its Secret, `level` its trust: TRUST_BOTH a new one,
				    * TRUST_NEW the same without O; when the run goes back: away with it */
	ACT_RESTART_WORKLOAD,      /* `kind`, `namespace`, `name`: annotate the pod template */
	ACT_REFRESH_PODS,          /* annotate our own pods: the kubelet then refreshes their volumes at once */
	ACT_PRUNE_EXTENSION_AUTH,  /* extension-apiserver-authentication without what is old of `authority` */
	ACT_FINISH,                /* N's key leaves the Secret, roles turn, node Pods go */
	ACT_DISMISS,               /* node Pods that nobody needs any more go: a plan is made, or was withdrawn */
	ACT_COUNT
};

struct action {
	enum action_kind kind;
	const char *kind_name;     /* of a workload */
	const char *namespace, *name;
	const struct node_state *node;
	int step;                  /* index in the walk */
	int level;
	int levels[FACET_COUNT];   /* ACT_NODE: FACET_UNTOUCHED_LEVEL or the level to reach */
	enum authority authority;  /* ACT_NODE: whose certificates are asked for */
	bool needs_key, certify;   /* certify: X is asked for */
	bool inspect;              /* ACT_NODE: look only; nothing can be written there */
};

#define FACET_UNTOUCHED_LEVEL (-2)

/* Facts that must outlive the object that asked for them. Each is written with the Secret's resourceVersion as the precondition, so
 * that of two that exclude each other (the drop and the way back) one comes first, whoever leads. */
enum latch {
	LATCH_APPROVED = 1,
	LATCH_DROPPING = 2,
	LATCH_ROLLBACK = 4,
};

struct plan {
	struct action *actions;
	size_t n, size;
	int64_t look_again_ms;     /* a wait without an event: observe again after so long; 0: on events only */
};

const char *action_name(enum action_kind k);
struct action *plan_add(struct plan *p, enum action_kind kind, int step);
/* Keeps the smallest wish. */
void plan_look_again(struct plan *p, int64_t after_ms);
void plan_release(struct plan *p);

#endif
