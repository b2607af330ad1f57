/* Published trust. What the controller-manager also writes is written byte for byte as it would. */
#include "apply.h"
#include "kubeconfig.h"

#include <stdlib.h>
#include <string.h>

#define PATCHES_PER_SECOND 200
#define PATCHES_AT_ONCE 2000 /* the next pass sees to the rest */

struct batch {
	const char *text, *encoded;
	struct kube_bulk *items;
	size_t n, size;
};

static bool add_laggard(void *context, const struct laggard *l)
{
	struct batch *b = context;
	if (b->n == b->size) {
		b->size = b->size ? 2 * b->size : 64;
		b->items = mem_realloc(b->items, b->size, sizeof *b->items);
	}
	struct json *patch = json_object();
	json_set_str(json_ensure_object(patch, "metadata"), "resourceVersion", l->resource_version);
	json_set_str(json_ensure_object(patch, "data"), "ca.crt", l->secret ? b->encoded : b->text);
	b->items[b->n++] = (struct kube_bulk){ .path = laggard_path(l), .patch = patch, .kind = KUBE_MERGE_PATCH };
	return b->n < PATCHES_AT_ONCE;
}

/* A conflict is somebody else's write, most likely the controller-manager's own; the next pass looks. */
static result outcome(const struct batch *b, struct err *e)
{
	for (size_t i = 0; i < b->n; i++) {
		const struct kube_bulk *item = &b->items[i];
		if (item->outcome.ok || item->error.kind == ERR_CONFLICT || item->error.kind == ERR_NOT_FOUND)
			continue;
		*e = item->error;
		return FAILED;
	}
	return OK;
}

result apply_publish(const struct applier *a, const struct action *action, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT, encoded cleanup(buf_release) = BUF_INIT;
	published_text(&a->world->run.of[AUTHORITY_KUBERNETES], action->level, &text);
	base64_encode(text.data, text.len, &encoded);
	struct batch b = { buf_str(&text), buf_str(&encoded), NULL, 0, 0 };
	result r = published_each_lag(a->kube, &a->world->run, action->level, false, add_laggard, &b, e);
	if (r.ok)
		r = published_each_lag(a->kube, &a->world->run, action->level, true, add_laggard, &b, e);
	if (r.ok && b.n) {
		kube_patch_all(a->kube, b.items, b.n, PATCHES_PER_SECOND);
		r = outcome(&b, e);
	}
	kube_bulk_release(b.items, b.n);
	return r;
}

result apply_cluster_info(const struct applier *a, const struct action *action, struct err *e)
{
	const char *path = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
	struct json *map cleanup(json_freep) = NULL, *patch cleanup(json_freep) = json_object();
	struct buf ca cleanup(buf_release) = BUF_INIT, text cleanup(buf_release) = BUF_INIT;
	TRY(kube_get(a->kube, path, &map, e));
	const char *before = json_str_or(json_at(map, "data", "kubeconfig", NULL), "");
	published_text(&a->world->run.of[AUTHORITY_KUBERNETES], action->level, &ca);
	TRY(kubeconfig_replace(before, strlen(before), buf_str(&ca), NULL, NULL, &text, e));
	struct json *data = json_ensure_object(patch, "data");
	json_set_str(data, "kubeconfig", buf_str(&text));
	TRY(cluster_info_signatures(a->kube, buf_str(&text), data, e));
	json_set_str(json_ensure_object(patch, "metadata"), "resourceVersion",
		     json_str(json_at(map, "metadata", "resourceVersion", NULL)));
	return kube_patch(a->kube, path, KUBE_MERGE_PATCH, patch, NULL, e);
}

/* The API server only ever adds to this ConfigMap (cluster_authentication_trust_controller.go), so it is written anew once every
 * API server was seen to refuse O. An update, never a delete: aggregated servers keep what they had when it is deleted. */
result apply_prune_extension_auth(const struct applier *a, const struct action *action, struct err *e)
{
	const char *path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
	const char *name = action->authority == AUTHORITY_FRONT_PROXY ? "requestheader-client-ca-file" : "client-ca-file";
	struct json *map cleanup(json_freep) = NULL;
	struct buf ca cleanup(buf_release) = BUF_INIT;
	TRY(kube_get(a->kube, path, &map, e));
	published_text(&a->world->run.of[action->authority], TRUST_NEW, &ca);
	json_set_str(json_ensure_object(map, "data"), name, buf_str(&ca));
	return kube_update(a->kube, path, map, NULL, e);
}
