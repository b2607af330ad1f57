/* One run of the node program: what is asked for, where things are, who O and N are.
 *
 * Invariants
 * - Observe, act, observe again; every action is the same however often it is done, and a crash after any file operation is healed by
 *   the next run.
 * - N's key comes from CONTRACT_KEY_DIR or, once it is there, ca.key; O's from ca.key or, later, the backup. Neither leaves the node.
 */
#ifndef NODE_H
#define NODE_H

#include "contract.h"
#include "kubeconfig.h"
#include "layout.h"
#include "pki.h"
#include "process.h"
#include "remote.h"

#define HOLDS_OLD 1
#define HOLDS_NEW 2
#define HOLDS_OTHER 4

/* What is kept and comes back must be good for so long. */
#define NODE_KEPT_MARGIN_MS ((int64_t)24 * 3600000)

/* One authority's O, N and bridge. N and the bridge may be NULL; all are where the authority is not rotated. */
struct succession {
	struct cert *old, *new, *bridge;
};

struct node {
	const struct desired *desired;
	struct layout layout;
	struct succession of[AUTHORITY_COUNT];
	const char *new_key_dir;               /* where N's keys may be, besides ca.key: CONTRACT_KEY_DIR */
	struct cert *trial_ca;                 /* throw-away (rehearse.c); NULL until needed */
	struct key *trial_key;
	struct report *report;
	struct process_seen processes[PROCESS_COUNT];
	bool running[PROCESS_COUNT];
	int64_t until_ms;                      /* monotonic */
	bool no_pods;
	bool elsewhere;                        /* the layout's root is another machine's: its processes do not run here */
};
void node_release(struct node *n);

/* --- Reading (node_read.c) ---------------------------------------------------------------------------------------------- */
/* Which of O and N a PEM bundle holds: HOLDS_* bits. */
result node_bundle(const struct succession *s, const char *pem, size_t len, int *ret_holds, struct err *e) MUST_CHECK;
result node_bundle_file(const struct succession *s, const char *path, int *ret_holds, struct err *e) MUST_CHECK;
/* HOLDS_OLD, HOLDS_NEW or HOLDS_OTHER: who issued the certificate. */
int node_issuer(const struct succession *s, const struct cert *c);
/* The certificates of a PEM file (keys in it are skipped). */
result node_certs(const char *path, struct certs *ret, struct err *e) MUST_CHECK;
result node_key_file(const char *path, struct key **ret, struct err *e) MUST_CHECK;
/* An authority's key, from the first of the files that may have it. ERR_NOT_FOUND only when all could be read, and none has it. */
result node_old_key(const struct node *n, enum authority a, struct key **ret, struct err *e) MUST_CHECK;
result node_new_key(const struct node *n, enum authority a, struct key **ret, struct err *e) MUST_CHECK;
/* True when what the cluster had before has no key on this control plane: it is kept elsewhere (strategy Bundle). On the way back the
 * controller-manager's manifest of before must say so, too: a copy that is gone is no key that was never here. Nor is one that can't be
 * read. */
bool node_is_external(const struct node *n);
/* A kubeconfig by its full path. */
result node_kubeconfig(const struct node *n, const char *path, struct kubeconfig *ret, struct err *e) MUST_CHECK;
/* Where kubelet.conf's client certificate is; NULL when it is embedded. Caller frees. */
char *node_kubelet_client_path(const struct node *n);

/* Finds the layout and who O is, for an empty node but for desired and report. In an inventory (desired has no `old`) O is what is in
 * force. Fails with a blocker that says why, or, when the error is no property of the node, without. */
result node_begin(struct node *n, const char *root, struct err *e) MUST_CHECK;

/* --- Rehearsing (rehearse.c) ---------------------------------------------------------------------------------------------- */
enum leaf_kind { LEAF_KEEPS_KEY, LEAF_WITH_NEW_KEY, LEAF_OF_KUBELET };
/* A blocker when the leaf could not be reissued as it is; nothing is written. */
void node_rehearse_leaf(struct node *n, const char *path, const struct cert *leaf, enum leaf_kind kind);
/* Ditto when O could not certify another authority, or another could not certify O. */
void node_rehearse_bridges(struct node *n, enum authority a, const struct key *old_key);

/* Ditto when etcd is ill, or new connections to the API server could not be held back (etcd.c). */
void node_rehearse_window(struct node *n);

/* --- Observing (observe.c) ------------------------------------------------------------------------------------------------ */
/* Fills the report's levels, times and blockers from the node as it is now. */
result node_observe(struct node *n, struct err *e) MUST_CHECK;
result node_find_processes(struct node *n, struct err *e) MUST_CHECK;
/* True when the process has started after the file was written: what it reads at its start, it has read. */
bool node_younger(const struct node *n, enum process p, const char *path);

/* Shared by the parts of it. The level of an authority's ca.crt as it stands (FACET_TRUST's levels), FACET_UNKNOWN with a blocker. */
int node_trust_in_file(struct node *n, enum authority a);
/* Of the cluster's own authority; with strategy Bundle, as far as the API server is seen to refuse O. */
int node_trust_in_force(struct node *n);
/* Ditto of its ca.key (ISSUED_*); rehearses the bridges before there is one. */
int node_key_level(struct node *n, enum authority a);
/* LEAF_* of a chain, where `trust` is the level of that authority's ca.crt. */
int node_leaf_level(const struct node *n, enum authority a, int trust, const struct certs *list);
/* Blockers for a leaf that is foreign, has expired or can't be reissued. */
void node_check_leaf(struct node *n, enum authority a, const char *path, const struct cert *leaf);
void node_unreadable(const struct node *n, const char *path, const struct err *e);
/* True when the API server is seen to refuse O: a certificate of O's for the key in place (the one that was there, or one that nobody
 * else sees), or, where none can be had, O's name among those whose certificates it asks for. What could not be read or asked is not
 * refused. ask: remote_client_trusted or remote_proxy_trusted. */
typedef result (*ask_trusted)(const char *host, int port, const char *cert_pem, const char *key_pem, bool *ret_trusted, struct err *e);
bool node_old_is_refused(const struct node *n, enum authority a, const char *crt_path, const char *key_path, ask_trusted ask);
void node_observe_front_proxy(struct node *n);
void node_observe_etcd(struct node *n);

/* --- Acting (converge.c and its parts) ------------------------------------------------------------------------------------ */
/* Asked for at least that level, and not there yet. Never while anything blocks: also what was seen since the work began. */
bool node_wants(const struct node *n, enum facet f, int level);
result node_converge(struct node *n, struct err *e) MUST_CHECK;
/* Copies the file into the run's folder, once, before its first change; then replaces it. The same content again: nothing. */
result node_replace(struct node *n, const char *path, const struct buf *content, mode_t mode_if_new, struct err *e) MUST_CHECK;
/* Ditto without a copy, for files of our own: the folder is made. */
result node_write_own(struct node *n, const char *path, const struct buf *content, mode_t mode, struct err *e) MUST_CHECK;
/* The copy alone. */
result node_back_up(const struct node *n, const char *path, struct err *e) MUST_CHECK;
/* Away with what a killed run has left of files that it was writing: they may hold keys. The lock is held. */
result node_sweep(const struct node *n, struct err *e) MUST_CHECK;
/* Where the API server's next client certificate towards kubelets waits for its moment. Caller frees. */
char *node_staged_client(const struct node *n);
/* The path of a file's backup. Caller frees. */
char *node_backup_path(const struct node *n, const char *path);
/* The certificate that the run has replaced here, when N issued it for the key of `now`, the one in place (kubeadm may have made
 * another key in the middle), and it is good for a while yet: a run that goes back brings back what there was instead of making it
 * anew. NULL when there is none. */
struct cert *node_kept_leaf(const struct node *n, enum authority a, const char *path, const struct cert *now);
/* Polls until `holds` or the deadline; ERR_TIMEOUT names `what`. */
result node_wait(struct node *n, bool (*holds)(struct node *n, const void *context), const void *context, const char *what,
		 struct err *e) MUST_CHECK;
void node_rest(int64_t ms);
/* Until nobody of ours would notice that the API server drops its connections to kubelets, or for a few seconds (absorb.c). */
void node_await_quiet(struct node *n, struct remote_dialer *d);
/* Makes the API server take up its changed client certificate now, by a request of our own. */
result node_absorb(struct node *n, struct remote_dialer *d, struct err *e) MUST_CHECK;
result node_sign_bridge(struct node *n, struct err *e) MUST_CHECK;
/* A certificate like its predecessor from N; new_key NULL: for the same key. */
result node_reissue(const struct node *n, enum authority a, const struct cert *predecessor, const struct key *new_key, struct cert **ret,
		    struct err *e) MUST_CHECK;
/* The file with a leaf from N (the one that is there, was kept, or a new one for the same key), with or without the bridge after it. */
result node_write_leaf(struct node *n, enum authority a, const char *path, bool with_bridge, struct err *e) MUST_CHECK;
result node_own_signer(struct node *n, struct err *e) MUST_CHECK;
/* The authority's ca.crt at that level; the first certificate always matches ca.key. */
result node_trust(struct node *n, enum authority a, int level, struct err *e) MUST_CHECK;
result node_server_leaf(struct node *n, struct err *e) MUST_CHECK;
/* Its key, and N first in ca.crt. ERR_CONFLICT unless N is trusted there. */
result node_ca_key(struct node *n, enum authority a, struct err *e) MUST_CHECK;
/* ca.crt at that level with N first, and N's key: for who reads both anew afterwards. */
result node_write_authority(struct node *n, enum authority a, int level, struct err *e) MUST_CHECK;
result node_signer_new(struct node *n, struct err *e) MUST_CHECK;
/* A client certificate from N, and N trusted; both: O beside it. */
result node_components(struct node *n, bool both, struct err *e) MUST_CHECK;
result node_admin(struct node *n, bool both, struct err *e) MUST_CHECK;
result node_kubelet(struct node *n, bool both, struct err *e) MUST_CHECK;
/* What a run that goes back brings back of the kubeconfig that it has replaced, when N issued what that holds: all of it, or, where
 * somebody has edited the file since, the text of `now` with certificate, key and authority of before. */
bool node_kept_kubeconfig(const struct node *n, const char *path, const struct buf *now, struct buf *ret_secret);
/* Of a kubeconfig's parts, NULL when there is none: the certificate is N's; N is trusted, and (unless both) no one else. */
bool node_is_from_new(const struct node *n, const char *cert_pem);
bool node_trusts_new(const struct node *n, const char *ca_pem, bool both);
/* The PEM of what is trusted. */
void node_trusted(const struct node *n, bool both, struct buf *out);
result node_kubelet_client(struct node *n, struct err *e) MUST_CHECK;
result node_proxy_trust(struct node *n, int level, struct err *e) MUST_CHECK;
result node_proxy_leaf(struct node *n, struct err *e) MUST_CHECK;
result node_etcd_leaves(struct node *n, struct err *e) MUST_CHECK;
/* N alone, key and certificate, and etcd and API server restarted for it. */
result node_etcd_trust(struct node *n, struct err *e) MUST_CHECK;
result node_kubeadm_flags(struct node *n, struct err *e) MUST_CHECK;
result node_clean(struct node *n, struct err *e) MUST_CHECK;
/* True when nothing of ours and nothing old is left (FACET_CLEAN). */
bool node_is_clean(const struct node *n);

#endif
