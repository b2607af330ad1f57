/* The Kubernetes API: verbs on paths, in JSON.
 *
 * Invariants
 * - Statuses become error kinds: 404 NOT_FOUND, 409 CONFLICT, 401/403 DENIED, 410 EXPIRED, 429/503 BUSY (with Retry-After),
 *   400/413/415/422 INPUT, other 5xx and broken connections IO. The message is the server's `Status.message`, with verb and path.
 * - Reads are tried again on IO and BUSY (bounded: five times, with Retry-After or jittered back-off); writes only on BUSY,
 *   for a lost answer may have been committed: the next pass observes.
 * - An answer that is older than one that came before is no answer (past.h): tried again like a read that failed.
 * - Token, CA and client certificate are re-read from their files when those change (we rotate the CA that we ourselves
 *   trust), looked at before every request. What can't be read is ERR_IO, never a request with the old ones.
 * - The message names verb and path. For Secrets it holds the server's reason, and its text only where that can't quote a value.
 * - Paths are of names that Kubernetes allows (nothing to encode) and may carry a query.
 * - One client belongs to one thread.
 */
#ifndef CLIENT_H
#define CLIENT_H

#include "buf.h"
#include "http.h"
#include "json.h"

struct kube;

/* In a pod: KUBERNETES_SERVICE_HOST/_PORT and /var/run/secrets/kubernetes.io/serviceaccount. */
result kube_in_cluster(struct kube **ret, struct err *e) MUST_CHECK;
/* The same with its parts: "https://10.96.0.1:443", and a folder with token, ca.crt and namespace (which may be absent). */
result kube_from_service_account(const char *server, const char *folder, struct kube **ret, struct err *e) MUST_CHECK;
/* From a kubeconfig file (current-context; token, client certificate as data or file; certificate-authority as data or file). */
result kube_from_kubeconfig(const char *path, struct kube **ret, struct err *e) MUST_CHECK;
/* From parts: used by the node program with the kubelet's credentials. All copied. */
result kube_from_identity(const char *server, const struct http_identity *id, struct kube **ret, struct err *e) MUST_CHECK;
/* A second client with the same configuration, for another thread; made while no thread uses k. */
struct kube *kube_clone(const struct kube *k) __attribute__((returns_nonnull));
void kube_freep(struct kube **k);
/* For a caller with a deadline of its own: a request takes at most timeout_ms (0: 30 s) and is tried at most `tries` times
 * (0: five). Not of streams and bulk. A clone begins with the defaults. */
void kube_limits(struct kube *k, int64_t timeout_ms, int tries);
/* Asked before each request that is not a GET, the last moment there is: false, and it is not sent (ERR_DENIED). Of a clone there is
 * none. NULL: everything is sent. */
void kube_gate(struct kube *k, bool (*may_write)(void *context), void *context);
const char *kube_server(const struct kube *k);     /* "https://10.96.0.1:443" */
const char *kube_namespace(const struct kube *k);  /* of our ServiceAccount; "" outside */
/* What we trust just now (re-read first; what was read last when that fails). Borrowed until the next call. */
const char *kube_ca_pem(struct kube *k);
/* Ditto, all of it: for connections by other means (WebSocket) or to other servers. */
const struct http_identity *kube_identity(struct kube *k);

/* --- One object ------------------------------------------------------------------------------------------------ */
/* path: "/api/v1/nodes/a". */
result kube_get(struct kube *k, const char *path, struct json **ret, struct err *e) MUST_CHECK;
result kube_create(struct kube *k, const char *path, const struct json *object, struct json **ret_or_null, struct err *e) MUST_CHECK;
/* PUT: put metadata.resourceVersion into the object as the precondition. */
result kube_update(struct kube *k, const char *path, const struct json *object, struct json **ret_or_null, struct err *e) MUST_CHECK;
enum kube_patch { KUBE_JSON_PATCH, KUBE_MERGE_PATCH, KUBE_STRATEGIC_PATCH, KUBE_APPLY };
/* KUBE_APPLY: server-side apply with force, field manager `certrotation`; the others carry that manager too. */
result kube_patch(struct kube *k, const char *path, enum kube_patch kind, const struct json *patch, struct json **ret_or_null,
		  struct err *e) MUST_CHECK;
/* uid and resource_version are preconditions, NULL for none. Not there: OK. */
result kube_delete(struct kube *k, const char *path, const char *uid, const char *resource_version, struct err *e) MUST_CHECK;
/* GET of something that is not an object ("/readyz"); status and body. */
result kube_raw(struct kube *k, const char *path, long *ret_status, struct buf *ret_body, struct err *e) MUST_CHECK;
/* GET of an answer that comes in pieces (a watch, a followed log): see http_request. OK when the server ended it or on_bytes
 * did. Not tried again. */
struct kube_stream {
	bool (*on_bytes)(void *context, const char *bytes, size_t n);
	bool (*stop)(void *context); /* may be NULL */
	void *context;
	const char *accept;          /* NULL: application/json */
	int64_t timeout_ms, idle_timeout_ms;
};
result kube_stream(struct kube *k, const char *path, const struct kube_stream *s, struct err *e) MUST_CHECK;

/* --- Many patches, paced ---------------------------------------------------------------------------------------- */
struct kube_bulk {
	char *path;              /* owned */
	struct json *patch;      /* owned */
	enum kube_patch kind;
	result outcome;
	struct err error;
};
/* At most 8 in flight and `per_second` starts a second (0: 100). BUSY slows all of them down, waits for Retry-After and tries
 * again, ten times an item. Each item has its outcome. */
void kube_patch_all(struct kube *k, struct kube_bulk *items, size_t n, int per_second);
void kube_bulk_release(struct kube_bulk *items, size_t n); /* the items' contents and the array itself */

/* --- Lists ------------------------------------------------------------------------------------------------------ */
struct kube_list {
	const char *path;           /* "/api/v1/pods" */
	const char *field_selector, *label_selector; /* NULL: none; percent-encoded by the callee */
	bool metadata_only;         /* PartialObjectMetadata */
	bool secret;                /* items hold secrets: wiped after use */
	size_t page;                /* 0: 500; a page over 16 MiB is asked for again in smaller ones */
};
/* Calls each item of every page, in order, and frees the page before it asks for the next; false from `each` ends it.
 * 410 in the middle starts anew: `restart` is called first (drop what was collected; NULL: nothing is). Five times, then ERR_EXPIRED. */
result kube_list_each(struct kube *k, const struct kube_list *q, bool (*each)(void *context, const struct json *item),
		      void (*restart)(void *context), void *context, char **ret_resource_version_or_null,
		      struct err *e) MUST_CHECK;
#endif
