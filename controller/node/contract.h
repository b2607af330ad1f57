/* The contract between controller and node program, in JSON.
 *
 * Invariants
 * - Desired comes in the environment variable CERTROTATION_DESIRED (or a file, by hand); it holds public certificates only.
 *   N's private key, when a step needs it, is a mounted file in CONTRACT_KEY_DIR, named after its authority: "Etcd.key".
 * - The report leaves through the termination message (the kubelet keeps the last 4,096 bytes, so a report is at most
 *   CONTRACT_REPORT_MAX bytes; lists are cut and say so). It never holds anything private.
 * - Levels are facet.h's. A facet that desired does not name is observed and reported, never touched.
 */
#ifndef CONTRACT_H
#define CONTRACT_H

#include "buf.h"
#include "facet.h"
#include "json.h"

#define CONTRACT_VERSION 2
#define CONTRACT_REPORT_MAX 4000
#define CONTRACT_ENV "CERTROTATION_DESIRED"
#define CONTRACT_KEY_DIR "/run/certrotation/authority"
#define CONTRACT_TERMINATION_PATH "/dev/termination-log"

#define FACET_UNTOUCHED (-2)

/* One authority's: O, N, X (or Y: certified by O, for N's key). Each may be NULL; without an O the one in force is meant. */
struct desired_authority {
	bool wanted;           /* it is rotated: nothing of the others is looked at, and their facets are FACET_ABSENT */
	char *old_pem, *new_pem, *bridge_pem;
};

struct desired {
	char *run;             /* id of the run: also the folder name of backups */
	char *node;            /* the Node's name */
	struct desired_authority of[AUTHORITY_COUNT];
	enum authority asked;  /* whose certificates go into the report (all of them would not fit): ca, bridge, probe. A wanted one */
	int levels[FACET_COUNT];              /* FACET_UNTOUCHED, or the level to reach */
	bool certify;          /* sign X of `asked` with O's key here */
	char *probe_csr_pem;   /* not NULL: and a probe certificate (no rights, CN=certrotation:probe): of the cluster's own authority only,
				* for of another one any certificate is a key to everything */
	int64_t leaf_validity_ms; /* 0: as the predecessor's */
	int64_t deadline_ms;   /* how long this program may take; 0: 120,000 */
	bool pods;             /* look at the pods' volumes too */
	bool forget;           /* a container has read N when it started after its volumes held N alone */
	bool bundle;           /* there is no bridge: everybody gets to know N beside O first. O's key may be elsewhere */
	bool back;             /* the run goes back: N is what the cluster had before */
	bool gate;             /* NET_ADMIN is there: try whether new connections can be held back (gate.h) */
};
void desired_release(struct desired *d);
result desired_from_json(const char *text, size_t len, struct desired *ret, struct err *e) MUST_CHECK; /* ERR_INPUT */
struct json *desired_to_json(const struct desired *d) __attribute__((returns_nonnull));

/* Something that must be dealt with before a rotation may go on. */
struct blocker {
	char *code;    /* a fixed list, CamelCase: "ExpiredCertificate", "UnknownFlag", "CAKeyMissing", … */
	char *object;  /* the file, flag or process */
	char *message; /* what is wrong and what to do about it */
};

enum process { PROCESS_KUBELET, PROCESS_APISERVER, PROCESS_CONTROLLER_MANAGER, PROCESS_SCHEDULER, PROCESS_ETCD, PROCESS_COUNT };
const char *process_name(enum process p); /* "kubelet", "kube-apiserver", … */

struct report {
	char *node, *run;
	bool control_plane;
	int64_t at_ms;                     /* when the observation ended, by the node's clock */
	int levels[FACET_COUNT];           /* in force */
	int64_t started_ms[PROCESS_COUNT]; /* 0: not running or not there */
	int64_t written_ms;                /* when what others may read of /etc/kubernetes was last written; 0: not known */
	struct strs restarted;             /* processes that this very run restarted */
	struct strs changed;               /* files that this very run wrote (cut at 30) */
	enum authority asked;              /* whose certificates follow */
	char *ca_pem;                      /* the first certificate of `asked`'s ca.crt: only while desired has no O of it */
	char *admin_subject;               /* "O=…,CN=…" of admin.conf, on control planes */
	char *bridge_pem, *probe_pem;      /* when asked for */
	/* Pods with a mounted cluster CA (ServiceAccount volumes, kube-root-ca.crt by any mount). "uid13:cid12": the first 13
	 * characters of the pod's uid, the first 12 of the container's id. */
	int pods_total;
	struct strs pods_old;              /* containers that started before their volume held N */
	struct strs pods_stale;            /* "uid13": volumes that do not hold N */
	struct strs pods_mixed;            /* "uid13": volumes that hold more than N */
	bool pods_forget;                  /* it is the answer to desired's `forget` */
	bool pods_cut;                     /* the lists were cut: nothing is proven by them */
	struct blocker *blockers;
	size_t n_blockers;
	char *error;                       /* why it did not get all the way; NULL when it did */
};
void report_release(struct report *r);
result report_from_json(const char *text, size_t len, struct report *ret, struct err *e) MUST_CHECK;
/* At most CONTRACT_REPORT_MAX bytes: lists are cut until it fits. */
void report_to_json(const struct report *r, struct buf *out);
void report_add_blocker(struct report *r, const char *code, const char *object, const char *format, ...) PRINTF_LIKE(4, 5);

#endif
