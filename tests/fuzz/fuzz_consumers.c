/* LINK: consumers rotation node kube */
/* Objects of the API by anybody's hand, read into the world; and what is decided on such a world. The API is one JSON object: path to
 * object or list; what it does not have is not there. In a list the text "410" stands for one that expired and begins anew. */
#include "fuzz.h"

#include "consumer.h"
#include "status.h"
#include "walk.h"

#include <string.h>

#define NOW_MS ((int64_t)1767225600000)

static const struct json *api;

result kube_get(struct kube *k UNUSED, const char *path, struct json **ret, struct err *e)
{
	const struct json *object = json_get(api, path);
	if (!object)
		return err_set(e, ERR_NOT_FOUND, "GET %s: 404", path);
	if (!json_is_object(object))
		return err_set(e, ERR_IO, "GET %s: 500", path);
	*ret = json_copy(object);
	return OK;
}

result kube_list_each(struct kube *k UNUSED, const struct kube_list *q, bool (*each)(void *context, const struct json *item),
		      void (*restart)(void *context), void *context, char **ret_resource_version_or_null UNUSED, struct err *e)
{
	const struct json *list = json_get(api, q->path);
	if (list && !json_is_array(list))
		return err_set(e, ERR_IO, "GET %s: 500", q->path);
	json_each(item, list) {
		bool expired = str_eq(json_str(item), "410");
		if (expired && restart)
			restart(context);
		if (!expired && !each(context, item))
			break;
	}
	return OK;
}

static void check_tally(const struct tally *t)
{
	MUST(t->with_new <= t->total && t->only_new <= t->with_new);
	MUST(t->lag_new.n <= WORLD_NAMES_MAX && t->lag_only.n <= WORLD_NAMES_MAX);
	MUST(!t->known || t->lag_new.n == 0 || t->with_new < t->total);
}

static void check_world(const struct world *w)
{
	MUST(!w->run.exists || (w->run.id && w->run.trigger && w->run.owner && w->run.secret));
	check_tally(&w->root_configmaps);
	check_tally(&w->token_secrets);
	check_tally(&w->ca_bundles.tally);
	MUST(w->ca_bundles.n_keepers <= w->ca_bundles.keepers_total && w->ca_bundles.n_keepers <= WORLD_LISTED_MAX);
	for (size_t i = 0; i < w->ca_bundles.n_keepers; i++)
		MUST(w->ca_bundles.keepers[i].object && w->ca_bundles.keepers[i].reason);
	MUST(!w->ca_bundles.to_new); /* nothing was ever looked at */
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		MUST(n->name && n->job_failures >= 0);
		MUST(n->mixed.n <= WORLD_NAMES_MAX);
		for (size_t b = 0; b < n->n_blockers; b++)
			MUST(n->blockers[b].code && n->blockers[b].object && n->blockers[b].message);
	}
	for (size_t i = 0; i < w->n_stragglers; i++)
		MUST(w->stragglers[i].kind && w->stragglers[i].namespace && w->stragglers[i].name && w->stragglers[i].pods);
}

/* What a run that is held may do: keep what it was told, and look again at what blocks. */
static bool only_keeps_or_looks(const struct action *a)
{
	for (size_t f = 0; f < FACET_COUNT; f++)
		if (a->kind == ACT_NODE && a->levels[f] != FACET_UNTOUCHED_LEVEL)
			return false;
	return a->kind == ACT_NODE || a->kind == ACT_LATCH;
}

static void check_decision(const struct world *w, const struct json *authorities)
{
	struct position p = { 0 };
	struct plan plan = { 0 };
	walk_locate(w, &p);
	walk_plan(w, &p, &plan);
	MUST(p.step <= walk_length() && p.phase < PHASE_COUNT);
	MUST(p.step < walk_length() || p.phase == PHASE_COMPLETED);
	for (size_t i = 0; i < plan.n; i++)
		MUST(!p.held || only_keeps_or_looks(&plan.actions[i]));
	for (size_t i = 0; i < plan.n; i++)
		MUST(plan.actions[i].kind < ACT_COUNT && (plan.actions[i].kind != ACT_NODE || plan.actions[i].node));
	const struct status_input in = { .world = w, .position = &p, .request = w->request, .standing = STANDING_RUNS,
					 .authorities = authorities };
	struct json *status cleanup(json_freep) = status_make(&in);
	fuzz_check_json(status);
	fuzz_check_status(status);
	json_each(authority, json_get(status, "authorities"))
		MUST(strlen(json_str_or(json_at(authority, "current", "subject", NULL), "")) <= 1024);
	plan_release(&plan);
	position_release(&p);
}

static void observe(struct observation *o)
{
	for (size_t i = 0; i < N_CONSUMERS; i++) {
		const struct consumer *c = CONSUMERS[i];
		struct err e = { 0 };
		if (c == &consumer_servers || (c->reads == READS_IN_RUN && !o->world->run.exists))
			continue;
		if (!c->observe(o, &e).ok)
			fuzz_check_err(&e);
		check_world(o->world);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char trigger[] = "t", algorithm[] = "ECDSA-P256", name[] = "a";
	struct json *j cleanup(json_freep) = NULL;
	struct err e = { 0 };
	if (!json_parse((const char *)data, size, &j, &e).ok)
		return 0;
	api = j;
	const struct request r = { .name = name, .uid = name, .trigger = trigger, .key_algorithm = algorithm, .max_workers = 1,
				   .restart_workloads = true, .pods_per_second = 10 };
	const struct settings settings = { .namespace = "certrotation", .node_namespace = "certrotation-nodes", .pod_name = "p", .node_name = "n" };
	struct world w cleanup(world_release) = { .now_ms = NOW_MS, .request = &r };
	struct bundle_memory *bundles cleanup(bundle_memory_freep) = bundle_memory_new();
	struct observation o cleanup(observation_release) = { .settings = &settings, .world = &w, .bundles = bundles };
	observe(&o);
	check_decision(&w, o.authorities);
	return 0;
}
