/* caBundles: one JSON patch for an object, with its version as the precondition, for all of its webhooks that may be moved now. */
#include "apply.h"
#include "ca_bundles.h"

#include <string.h>

#define PATCHES_PER_SECOND 100
#define PATCHES_AT_ONCE 200 /* the next pass sees to the rest */

struct batch {
	const struct applier *a;
	int level;
	struct kube_bulk *items;
	struct strs objects;
	size_t n;
};

static void batch_release(struct batch *b)
{
	kube_bulk_release(b->items, b->n);
	strs_release(&b->objects);
}

static void add_replace(struct json *patch, const char *pointer, const char *value)
{
	struct json *j = json_object();
	json_set_str(j, "op", "replace");
	json_set_str(j, "path", pointer);
	json_set_str(j, "value", value);
	json_add(patch, j);
}

/* The patch of the bundle's object; NULL when there is no room for another one. */
static struct json *patch_of(struct batch *b, const struct ca_bundle *bundle)
{
	if (b->n && str_eq(b->objects.items[b->n - 1], bundle->object))
		return b->items[b->n - 1].patch;
	if (b->n == PATCHES_AT_ONCE)
		return NULL;
	b->items = mem_realloc(b->items, b->n + 1, sizeof *b->items);
	struct kube_bulk *item = &b->items[b->n++];
	*item = (struct kube_bulk){ .path = str_dup(bundle->path), .patch = json_array(), .kind = KUBE_JSON_PATCH };
	add_replace(item->patch, "/metadata/resourceVersion", json_str_or(json_get(bundle->metadata, "resourceVersion"), ""));
	strs_add(&b->objects, bundle->object);
	return item->patch;
}

static bool add_bundle(void *context, const struct ca_bundle *bundle)
{
	struct batch *b = context;
	const struct world *w = b->a->world;
	const struct run_authority *of = &w->run.of[AUTHORITY_KUBERNETES];
	struct buf text cleanup(buf_release) = BUF_INIT, encoded cleanup(buf_release) = BUF_INIT;
	enum bundle_state state = ca_bundle_state(of, bundle->pem, bundle->len);
	if (!ca_bundle_may_move(b->a->bundles, bundle, state, b->level, w->now_ms))
		return true;
	struct json *patch = patch_of(b, bundle);
	if (!patch)
		return false;
	ca_bundle_text(of, b->level, bundle->pem, bundle->len, &text);
	base64_encode(text.data, text.len, &encoded);
	add_replace(patch, bundle->pointer, buf_str(&encoded));
	return true;
}

/* A conflict is somebody else's write; the next pass looks. */
static result outcome(const struct batch *b, struct err *e)
{
	result r = OK;
	for (size_t i = 0; i < b->n; i++) {
		const struct kube_bulk *item = &b->items[i];
		if (item->outcome.ok) {
			ca_bundle_written(b->a->bundles, b->objects.items[i], b->level, b->a->world->now_ms);
		} else if (item->error.kind != ERR_CONFLICT && item->error.kind != ERR_NOT_FOUND) {
			*e = item->error;
			r = FAILED;
		}
	}
	return r;
}

result apply_ca_bundles(const struct applier *a, const struct action *action, struct err *e)
{
	struct batch b cleanup(batch_release) = { .a = a, .level = action->level };
	TRY(ca_bundles_each(a->kube, a->bundles, add_bundle, &b, e));
	if (b.n)
		kube_patch_all(a->kube, b.items, b.n, PATCHES_PER_SECOND);
	return outcome(&b, e);
}
