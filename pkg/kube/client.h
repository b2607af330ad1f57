/* The Kubernetes API: verbs on paths, in JSON.
 *
 * Invariants
 * - Statuses become error kinds: 404 NOT_FOUND, 409 CONFLICT, 401/403 DENIED, 410 EXPIRED, 429/503 BUSY (with Retry-After),
 *   400/413/415/422 INPUT, other 5xx and broken connections IO. The message is the server's `Status.message`, with verb and path.
 * - Reads are tried again on IO and BUSY (bounded: five times, with Retry-After or jittered back-off); writes only on BUSY,
 *   for a lost answer may have been committed: the next pass observes.
 * - Token and CA are re-read from their files when those change (we rotate the CA that we ourselves trust), looked at
 *   before every request.
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
/* From a kubeconfig file (current-context; token, client certificate as data or file; certificate-authority as data or file). */
result kube_from_kubeconfig(const char *path, struct kube **ret, struct err *e) MUST_CHECK;
/* From parts: used by the node program with the kubelet's credentials. All copied. */
result kube_from_identity(const char *server, const struct http_identity *id, struct kube **ret, struct err *e) MUST_CHECK;
/* A second client with the same configuration, for another thread. */
struct kube *kube_clone(const struct kube *k) __attribute__((returns_nonnull));
void kube_freep(struct kube **k);
const char *kube_server(const struct kube *k);     /* "https://10.96.0.1:443" */
const char *kube_namespace(const struct kube *k);  /* of our ServiceAccount; "" outside */
/* What we trust just now (re-read first). Borrowed until the next call. */
const char *kube_ca_pem(struct kube *k);

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

/* --- Many patches, paced ---------------------------------------------------------------------------------------- */
struct kube_bulk {
	char *path;              /* owned */
	struct json *patch;      /* owned */
	enum kube_patch kind;
	result outcome;
	struct err error;
};
/* At most 8 in flight and `per_second` starts a second; BUSY slows down and tries again. Each item has its outcome. */
void kube_patch_all(struct kube *k, struct kube_bulk *items, size_t n, int per_second);
void kube_bulk_release(struct kube_bulk *items, size_t n); /* the items' contents and the array itself */

/* --- Lists ------------------------------------------------------------------------------------------------------ */
struct kube_list {
	const char *path;           /* "/api/v1/pods" */
	const char *field_selector, *label_selector; /* NULL: none; percent-encoded by the callee */
	bool metadata_only;         /* PartialObjectMetadata */
	bool secret;                /* items hold secrets: wiped after use */
	size_t page;                /* 0: 500 */
};
/* Calls each item of every page, in order, and frees the page before it asks for the next; false from `each` ends it.
 * 410 in the middle starts anew: `restart` is called first (drop what was collected). */
result kube_list_each(struct kube *k, const struct kube_list *q, bool (*each)(void *context, const struct json *item),
		      void (*restart)(void *context), void *context, char **ret_resource_version_or_null,
		      struct err *e) MUST_CHECK;
#endif
