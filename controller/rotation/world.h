/* The world: everything that one pass has observed, as plain data. What decides sees a `const struct world *` and nothing else.
 *
 * Invariants
 * - It holds no private key and no token.
 * - Unknown is a value of its own everywhere: a read error is never an empty answer. `known` false means that this
 *   part could not be read in this pass, and no proof may rest on it.
 * - Bulk kinds are counted, with a few names; memory does not grow with the cluster.
 */
#ifndef WORLD_H
#define WORLD_H

#include "buf.h"
#include "facet.h"

#define WORLD_NAMES_MAX 10
/* The ValidatingAdmissionPolicy of deploy/admission.yaml, and its binding: who may set spec.approve. */
#define APPROVAL_RULE "certrotation-approvals"
#define WORLD_LISTED_MAX 100
#define WORLD_OWNERS_MAX 1000 /* owners of pods that a plan looks at */

enum seen { SEEN_UNKNOWN, SEEN_NO, SEEN_YES };

/* How clients come to accept what N has issued (README, "Strategy"). */
enum strategy {
	STRATEGY_BRIDGE,      /* servers show X, O's word for N, along with it: nobody has to learn of N first. Needs O's key */
	STRATEGY_BUNDLE,      /* everybody is given N beside O first, and O is taken away again at the end. Needs nothing of O */
	STRATEGY_COUNT
};
#define STRATEGY_BIT(s) (1u << (s))
const char *strategy_name(enum strategy s); /* "Bridge", "Bundle" */
/* STRATEGY_COUNT when there is none of that name; NULL is none. */
enum strategy strategy_by_name(const char *name);

/* What the user asks for: the CertificateRotation. */
struct request {
	char *name, *uid;
	int64_t generation;
	char *trigger;
	authority_set authorities;             /* spec.authorities */
	enum strategy strategy;
	char *authority_secret;                /* spec.newAuthority.secretRef.name: N is brought; NULL: it is made */
	char *key_algorithm;
	int64_t validity_ms, leaf_validity_ms; /* leaf 0: as before */
	bool approval_manual;
	bool approved_drop;                    /* spec.approve for this trigger and DroppingOld */
	bool approved_other;                   /* spec.approve for anything else */
	char *approved_by;                     /* spec.approve.clientCertificateFingerprint; NULL: not given */
	bool paused;
	bool plan_only;                        /* spec.mode == Plan: say what a run would do, and change nothing */
	bool rollback;                         /* spec.rollback for this trigger, or the object is being deleted */
	int64_t deadline_ms;                   /* spec.deadline, from the run's start; 0: none. Said when it has passed, nothing else */
	struct strs accepted;                  /* spec.acceptStragglers for this trigger: "Pod/ns/name" */
	struct strs ignored;                   /* fields that differ from the copy that the run obeys */
	int max_workers;                       /* spec.nodes.maxConcurrentWorkers */
	bool restart_workloads;                /* spec.workloads.restart == All */
	int pods_per_second;
	bool deleting;
};

/* One authority that a run rotates, as its Secret has it. A rollback is the same walk with O and N exchanged: while a run goes back, old_pem
 * is the authority that the run made, new_pem the one that the cluster had before, bridge_pem is Y. Nobody else needs to know. */
struct run_authority {
	char *secret;                /* its name; NULL: not stored yet */
	char *run;                   /* the run's id */
	char *old_pem, *new_pem, *bridge_pem; /* public certificates; bridge NULL until made */
	char *back_pem;              /* the bridge for the way back */
	bool has_key;                /* N's key is in the Secret */
};

/* The run under way: the Secrets with role=next; what is latched stands on its lead's. */
struct run {
	bool exists;
	bool back;
	authority_set authorities;   /* that it rotates */
	enum strategy strategy;
	struct run_authority of[AUTHORITY_COUNT];
	char *id, *trigger, *owner;  /* owner: the CertificateRotation's name */
	char *leg;                   /* id, or another text when it goes back: what marks reports and restarts of this direction */
	char *mark;                  /* what marks restarts of workloads: leg, or another text when they restart once more to forget O */
	char *secret;                /* the lead's */
	char *version;               /* that Secret's resourceVersion: the precondition of what is latched */
	char *spec;                  /* the copy that the run obeys, JSON; NULL: lost */
	bool has_old_probe, has_new_probe; /* of the cluster's authority; with strategy Bundle none from what the cluster had before */
	bool approved;               /* latched: a person's yes */
	bool rollback;               /* latched: it goes back as soon as the bridges are there */
	bool dropping;               /* latched before the drop begins: no way back */
	bool finishing;              /* some of its authorities' Secrets are closed already: what is left is to close the others */
	struct strs accepted;        /* latched */
	int64_t started_ms;
};

enum component { COMPONENT_APISERVER, COMPONENT_CONTROLLER_MANAGER, COMPONENT_SCHEDULER, COMPONENT_KUBELET, COMPONENT_COUNT };
const char *component_name(enum component c); /* "kube-apiserver", … */

struct node_blocker {
	char *code, *object, *message;
};

/* One Node and what is known of it. */
struct node_state {
	char *name, *address;        /* address: InternalIP */
	char *hostname;              /* label kubernetes.io/hostname */
	bool control_plane, ready;
	/* The job: our Pod on the node. */
	bool job_running;
	int64_t job_asked_ms;        /* when the running job's, or the last finished one's, Pod was made: the API server's clock */
	char *job_problem;           /* why it does not start or failed; NULL */
	int job_failures;            /* in a row */
	int64_t job_ended_ms;
	/* The last report for this run. */
	bool reported;
	int64_t report_at_ms;
	int report_step;             /* index in the walk of the step that asked for it; -1: inventory */
	int levels[FACET_COUNT];
	int64_t controller_manager_started_ms, scheduler_started_ms;
	bool outdated;               /* a container of the control plane started after the report */
	bool pods_unseen;            /* a pod with a cluster CA started after the report, or the list was cut */
	bool own_pod_stale;          /* a pod of ours there has not got N in its volume yet */
	struct strs mixed;           /* pods whose volume still holds more than N, accepted ones aside: "ns/name" */
	enum authority asked;        /* whose certificates the report brought */
	char *bridge_pem, *probe_pem; /* X and the probe certificate by O, when it did */
	char *ca_pem;                /* the CA in force, when it did: from an inventory before its O is stored */
	bool ca_of_trigger;          /* by its subject that CA was made for the very trigger that asks for another */
	struct node_blocker *blockers;
	size_t n_blockers;
	/* Seen by our own handshakes with probe certificates that have no rights. */
	enum seen api_accepts_new, api_accepts_old, kubelet_accepts_new, kubelet_accepts_old;
	enum seen manifests;         /* kube-apiserver's manifest is there, by the last report */
	char *versions[COMPONENT_COUNT]; /* "v1.34.4": of images of static Pods, and of the kubelet; NULL: unknown or not there */
	/* How far the node's clock is ahead of the API server's (negative: behind), as proven by the job's stamps. */
	bool clock_known;
	int64_t clock_least_ms, clock_most_ms;
};

/* A kind of object that carries the CA: counted, the first few laggards named. */
struct tally {
	bool known;
	size_t total, with_new, only_new;
	struct strs lag_new, lag_only;  /* names that do not have N; that have more than N */
};

/* Who still has pods that have not read N. One per owner. */
struct straggler {
	char *kind, *namespace, *name;
	size_t pods;
	bool restartable;     /* Deployment, DaemonSet, StatefulSet whose rollout will replace the pods */
	bool restarted;       /* its template carries this run's annotation */
	bool accepted;
	bool system;          /* kube-system DaemonSets: CNI, kube-proxy go first */
	char *reason;         /* why it is waited for */
};

/* What will stop working at the drop. Of each kind the first WORLD_LISTED_MAX are kept, all are counted. */
struct issued {
	char *request, *subject;  /* the CertificateSigningRequest's name; the certificate's subject */
	int64_t not_after_ms;
};

/* What a value in a Secret or ConfigMap holds. */
enum copy_holds {
	COPY_AUTHORITY = 1,       /* the authority's certificate */
	COPY_KUBECONFIG = 2,      /* a kubeconfig that trusts the authority */
	COPY_CERTIFICATE = 4,     /* a certificate that the authority has issued */
	COPY_UNREADABLE = 8,      /* what looks like a kubeconfig, but can't be read */
};

struct copy {
	char *kind, *namespace, *name, *key;
	int holds;                /* COPY_* bits */
	char *subject;            /* of the first certificate that the authority has issued; NULL */
	int64_t not_after_ms;     /* ditto */
};

/* An object with a caBundle that can't let go of O, or is not ours to change, and was not accepted by name. Of these the first
 * WORLD_LISTED_MAX are kept, all are counted. */
struct bundle_keeper {
	char *object;         /* "ValidatingWebhookConfiguration/name": as spec.acceptStragglers takes it */
	char *reason;         /* what is in the way, and the next step */
};

/* caBundles: what the API server trusts when it calls a webhook, an aggregated API or a conversion. Those that hold O, N or both and
 * nothing else are moved along. The server behind one has a certificate that its owner renews: O leaves a bundle only where
 * all that is served was seen to be N's. Who is accepted and can't be moved keeps both. */
struct ca_bundles {
	struct tally tally;          /* of those that are moved, a caBundle each; names are objects' */
	size_t wait_both, wait_new;  /* waited for until they hold N; until they hold N alone */
	size_t to_both, to_new;      /* may be written now: hold O alone; hold both, and what is served is N's */
	size_t unlooked;             /* hold both, and what is served there was not looked at yet */
	struct strs reverted;        /* objects that were written back, and by whom: the next write has to wait */
	int64_t again_ms;            /* how long; 0: none waits */
	bool fought;                 /* one of them was written back again and again */
	struct bundle_keeper *keepers;
	size_t n_keepers, keepers_total;
	struct strs listed;          /* for a plan: objects that a run moves along, the first WORLD_LISTED_MAX */
	size_t listed_total;
};

struct lease_state {
	bool known, exists;
	char *holder;         /* "" when released */
	int64_t acquired_ms, renewed_ms;
};

struct world {
	int64_t now_ms;
	const char *unread;              /* what could not be read in this pass, static; NULL: all was. Until it is, nothing is begun */
	const struct request *request;   /* borrowed; NULL: the run's CR is gone */
	struct run run;
	authority_set pending;           /* what a run for the request would rotate: what its trigger has not rotated yet */

	/* What spec.newAuthority.secretRef names, before there is a run. */
	bool candidate_known;
	char *candidate_problem;         /* why it can't be used; NULL: it can */

	bool nodes_known;
	struct node_state *nodes;
	size_t n_nodes;

	struct tally root_configmaps, token_secrets;
	struct ca_bundles ca_bundles;
	enum { CLUSTER_INFO_UNKNOWN, CLUSTER_INFO_ABSENT, CLUSTER_INFO_OLD, CLUSTER_INFO_BOTH, CLUSTER_INFO_NEW,
	       CLUSTER_INFO_UNSIGNED_BOTH, CLUSTER_INFO_UNSIGNED_NEW } cluster_info;
	enum seen extension_auth_has_old; /* extension-apiserver-authentication's client-ca-file */
	enum seen proxy_auth_has_old, proxy_auth_has_new; /* its requestheader-client-ca-file */
	bool api_services_known;
	size_t api_services;              /* that a server in the cluster stands behind */
	struct strs api_services_away;    /* those of them that are not Available: "v1beta1.metrics.k8s.io" */
	struct strs api_services_old;     /* of the others, whose servers accept the old front proxy though they were told, or can't be asked */
	enum seen kubeadm_config;         /* kube-system/kubeadm-config is there; looked for before there is a run */
	enum seen kubeadm_certs;          /* the Secret with encrypted old keys is there */
	enum seen admin_kubeconfig;       /* the Secret with N's administrator kubeconfig is there */
	enum seen admin_has_old;          /* ditto, and it trusts O beside N */
	char *admin_fingerprint;          /* of its client certificate, as status tells it; NULL: unknown */
	enum seen approval_rule;          /* APPROVAL_RULE is in force; looked for when an approval rests on it */
	struct lease_state controller_manager, scheduler;

	bool pods_known;
	size_t pods_total;               /* that mount a cluster CA */
	struct straggler *stragglers;
	size_t n_stragglers;
	size_t rolling;                  /* annotated workloads whose rollout is under way */

	bool csrs_known;
	struct strs csrs_unsigned;       /* approved, still without a certificate */
	size_t csrs_from_old;            /* client certificates issued by O since the run began, as far as seen */

	/* For a plan (forecast.h); nothing of it is read for a run. */
	char *authority;                 /* fingerprint of the authority that is published; NULL: unknown */
	size_t inspections;              /* node Pods that are left of plans, or of requests that were withdrawn */
	size_t pods_unlisted;            /* that mount a cluster CA, of owners beyond WORLD_OWNERS_MAX */
	struct issued *issued;
	size_t n_issued, issued_total;
	bool copies_known;
	struct copy *copies;
	size_t n_copies, copies_total;
};

/* What is rotated: by the run, or by the one that is asked for. */
authority_set world_authorities(const struct world *w);
/* How: the run's, or the one that is asked for. */
enum strategy world_strategy(const struct world *w);
/* True once pods count as restarted only when they have started with N alone: strategy Bundle, from the drop on. A run that goes back
 * does not ask for it: nothing is left that N could sign with. */
bool world_pods_forget(const struct world *w);
struct node_state *world_add_node(struct world *w);
struct straggler *world_add_straggler(struct world *w);
/* Counts one; NULL when so many are listed already. */
struct issued *world_add_issued(struct world *w);
struct copy *world_add_copy(struct world *w);
struct bundle_keeper *world_add_keeper(struct world *w);
void world_drop_issued(struct world *w);
void world_drop_copies(struct world *w);
void node_add_blocker(struct node_state *n, const char *code, const char *object, const char *message);
void tally_lag(struct strs *names, const char *name); /* keeps the first WORLD_NAMES_MAX */
void request_release(struct request *r);
void run_authority_release(struct run_authority *a);
void run_release(struct run *r);
void world_release(struct world *w);
struct node_state *world_node(struct world *w, const char *name); /* NULL when unknown */

#endif
