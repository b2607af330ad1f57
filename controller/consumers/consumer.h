/* Consumers: one file per kind of thing that trusts or presents certificates. Each reads its kind into the world.
 *
 * Invariants
 * - A consumer only reads. What it could not read stays unknown in the world, and the pass goes on: no proof rests on it.
 * - Bulk kinds are read page by page and dropped; only counts and a few names stay.
 * - Private keys that a pass needs for its own handshakes live in `struct credentials`, wiped at its end.
 */
#ifndef CONSUMER_H
#define CONSUMER_H

#include "client.h"
#include "contract.h"
#include "pki.h"
#include "world.h"

#define LABEL_AUTHORITY "certrotation.dev/authority"
#define LABEL_ROLE "certrotation.dev/role"           /* next | current | retired | rolled-back */
#define LABEL_JOB "certrotation.dev/job"             /* "true" on node Pods */
#define LABEL_RUN "certrotation.dev/run"             /* the run's id */
#define ANNOTATION_TRIGGER "certrotation.dev/trigger"
#define ANNOTATION_OWNER "certrotation.dev/owner"
#define ANNOTATION_SPEC "certrotation.dev/spec"
#define ANNOTATION_STARTED "certrotation.dev/started-at"
#define ANNOTATION_COMPLETED "certrotation.dev/completed-at"
#define ANNOTATION_APPROVED "certrotation.dev/approved"
#define ANNOTATION_DROPPING "certrotation.dev/dropping-since"
#define ANNOTATION_ROLLBACK "certrotation.dev/rollback-since"
#define ANNOTATION_ACCEPTED "certrotation.dev/accepted-stragglers"
#define ANNOTATION_STEP "certrotation.dev/step"
#define ANNOTATION_NUMBER "certrotation.dev/number"
#define ANNOTATION_FAILURES "certrotation.dev/failures"
#define ANNOTATION_RESTARTED "certrotation.dev/restarted-for-run" /* on pod templates */
#define AUTHORITY_UNIT "certrotation-"               /* N's subject: CN=kubernetes, OU=certrotation-<run id> */
#define ANNOTATION_AUTHORITIES "certrotation.dev/authorities" /* on the lead's Secret: what the run rotates, "Kubernetes,Etcd" */
#define ANNOTATION_LEAD "certrotation.dev/lead"      /* on the others': the name of the lead's Secret */
#define ADMIN_KUBECONFIG_SECRET "certrotation-admin-kubeconfig"

struct settings {
	const char *namespace;       /* ours */
	const char *node_namespace;  /* the node Pods' and the authorities' Secrets' */
	const char *pod_name, *node_name;
	char *image;                 /* for node Pods: our own Pod's image */
};

/* What the last finished job on a node reported, beside what went into the world. Same index as world.nodes. */
struct node_report {
	bool has;
	struct report report;
	int number;           /* of the newest job, running or finished */
	int failures;
};

struct credentials {
	char *probe_key, *probe_new, *probe_old; /* PEM; the key is secret */
};
void credentials_release(struct credentials *c);

/* Handshakes seen since a report: good until the node reports again. */
struct probe_memory;
struct probe_memory *probe_memory_new(void) __attribute__((returns_nonnull));
void probe_memory_freep(struct probe_memory **m);

/* What caBundles were written, and what is served behind them (ca_bundles.h): paces, and looks that are good for a while. */
struct bundle_memory;
struct bundle_memory *bundle_memory_new(void) __attribute__((returns_nonnull));
void bundle_memory_freep(struct bundle_memory **m);

struct observation {
	struct kube *kube;
	struct http_pool *probes;    /* one-off handshakes */
	struct probe_memory *memory;
	struct bundle_memory *bundles;
	const struct settings *settings;
	struct world *world;
	struct node_report *reports;
	struct credentials credentials;
	char *published_pem;         /* the first certificate of kube-public's kube-root-ca.crt */
	char published_run[13];      /* the run that made it, by its subject; "" when it is not one of ours */
	struct strs recorded[AUTHORITY_COUNT]; /* triggers that are recorded on authorities of every role but next */
	struct strs rolled_back;     /* those of them whose runs were taken back */
	struct json *authorities;    /* status.authorities */
	struct json *admin_kubeconfig; /* status.adminKubeconfig; NULL: there is none, or it was not looked for */
	char admin_run[13];          /* the run that it is of */
};
void observation_release(struct observation *o);

/* When a kind is read. */
enum reads {
	READS_ALWAYS,        /* a request is served, whichever */
	READS_IN_RUN,        /* only while there is a run */
	READS_FOR_PLAN,      /* only for a plan, once its nodes were visited */
	READS_IN_BOTH,
};

struct consumer {
	const char *name;
	enum reads reads;
	result (*observe)(struct observation *o, struct err *e);
};
/* True when the request in the world asks for a plan, and no run has begun. */
bool world_is_planned(const struct world *w);
/* In the order in which they must run: later ones use what earlier ones have put into the world. */
extern const struct consumer *const CONSUMERS[];
extern const size_t N_CONSUMERS;

extern const struct consumer consumer_authority, consumer_nodes, consumer_root_configmaps, consumer_token_secrets,
	consumer_cluster_info, consumer_pods, consumer_leases, consumer_extension_auth, consumer_kubeadm_certs,
	consumer_kubeadm_config, consumer_admin_kubeconfig, consumer_csrs, consumer_servers, consumer_copies, consumer_api_services, consumer_candidate,
	consumer_ca_bundles, consumer_approval_rule;
/* Which node Pods are left while no request is served: world.inspections. */
result inspections_observe(struct observation *o, struct err *e) MUST_CHECK;

/* --- Shared by consumers and engine ------------------------------------------------------------------------------- */

/* The authority that a person brings: of that Secret in the authorities' namespace, checked against O (NULL: not known yet).
 * ERR_INPUT: it can't be used, and why; ERR_NOT_FOUND. */
result candidate_read(struct kube *kube, const struct settings *settings, const char *name, const struct cert *o, int64_t now_ms,
		      struct cert **ret, struct key **ret_key, struct err *e) MUST_CHECK;
/* One Secret or ConfigMap: what in its data has to do with the authority goes into the world's copies, by name. */
void copies_look_at(struct world *w, const struct cert *old, const struct json *object, bool secret);
/* LABEL_RUN of the node Pods whose reports count now: the run's leg, an inventory's before there is a run, or a plan's. Caller frees. */
char *jobs_label(const struct world *w);
/* True when the trigger is recorded on every authority of the set: a run of that name has ended here, whatever any status says. */
bool trigger_recorded(const struct observation *o, authority_set set, const char *trigger);
/* True when it is on any: that run has ended. */
bool trigger_ended(const struct observation *o, const char *trigger);
/* Those of the set on which it is not. */
authority_set trigger_pending(const struct observation *o, authority_set set, const char *trigger);
/* The run's id: first 12 hex digits of SHA-256 over the trigger; N carries it in its subject. */
void run_id(const char *trigger, char ret_id[static 13]);
/* The bytes to publish at TRUST_OLD, TRUST_BOTH (O, then N: what the controller-manager writes from its root file), TRUST_NEW. */
void published_text(const struct run_authority *of, int level, struct buf *out);
/* What a bundle holds. */
struct bundle_content { bool has_old, has_new, has_other; };
result bundle_look(const struct run_authority *of, const char *pem, size_t len, struct bundle_content *ret, struct err *e) MUST_CHECK;
/* True when that Secret holds the administrator's kubeconfig of the run under way: from N, trusting N. */
bool admin_kubeconfig_serves(const struct run *run, const struct json *secret);
/* Not there is an answer, *ret is NULL then; anything else is not. */
result get_or_absent(struct observation *o, const char *path, struct json **ret, struct err *e) MUST_CHECK;
const char *annotation(const struct json *object, const char *name);
const char *label(const struct json *object, const char *name);
/* metadata.namespace/metadata.name, appended. */
void object_name(const struct json *object, struct buf *out);
/* Calls `each` for every object of published CA data that lags behind level; used to count and to patch. */
struct laggard {
	const char *namespace, *name, *resource_version;
	bool secret;
};
/* Percent-free path of the object: "/api/v1/namespaces/a/configmaps/kube-root-ca.crt". Caller frees. */
char *laggard_path(const struct laggard *l);
result published_each_lag(struct kube *kube, const struct run *run, int level, bool secrets,
			  bool (*each)(void *context, const struct laggard *l), void *context, struct err *e) MUST_CHECK;
/* cluster-info's JWS signatures (bootstrap tokens, RFC 7515 detached content): "jws-kubeconfig-<id>" → value for a kubeconfig text. */
result cluster_info_signatures(struct kube *kube, const char *kubeconfig, struct json *ret_object, struct err *e) MUST_CHECK;

#endif
