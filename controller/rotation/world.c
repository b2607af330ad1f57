#include "world.h"

#include <stdlib.h>
#include <string.h>

const char *component_name(enum component c)
{
	static const char *const NAMES[COMPONENT_COUNT] = {
		[COMPONENT_APISERVER] = "kube-apiserver",
		[COMPONENT_CONTROLLER_MANAGER] = "kube-controller-manager",
		[COMPONENT_SCHEDULER] = "kube-scheduler",
		[COMPONENT_KUBELET] = "kubelet",
	};
	return NAMES[c];
}

static const char *const STRATEGIES[STRATEGY_COUNT] = { [STRATEGY_BRIDGE] = "Bridge", [STRATEGY_BUNDLE] = "Bundle" };

const char *strategy_name(enum strategy s)
{
	return STRATEGIES[s];
}

enum strategy strategy_by_name(const char *name)
{
	size_t s = 0;
	while (s < STRATEGY_COUNT && !str_eq(STRATEGIES[s], name))
		s++;
	return (enum strategy)s;
}

authority_set world_authorities(const struct world *w)
{
	return w->run.exists ? w->run.authorities : w->pending;
}

enum strategy world_strategy(const struct world *w)
{
	if (w->run.exists)
		return w->run.strategy;
	return w->request ? w->request->strategy : STRATEGY_BRIDGE;
}

bool world_pods_forget(const struct world *w)
{
	return world_strategy(w) == STRATEGY_BUNDLE && w->run.dropping;
}

struct node_state *world_add_node(struct world *w)
{
	w->nodes = mem_realloc(w->nodes, w->n_nodes + 1, sizeof *w->nodes);
	struct node_state *n = &w->nodes[w->n_nodes++];
	memset(n, 0, sizeof *n);
	n->report_step = -1;
	for (size_t f = 0; f < FACET_COUNT; f++)
		n->levels[f] = FACET_UNKNOWN;
	return n;
}

struct straggler *world_add_straggler(struct world *w)
{
	w->stragglers = mem_realloc(w->stragglers, w->n_stragglers + 1, sizeof *w->stragglers);
	struct straggler *s = &w->stragglers[w->n_stragglers++];
	memset(s, 0, sizeof *s);
	return s;
}

struct issued *world_add_issued(struct world *w)
{
	if (w->issued_total++ >= WORLD_LISTED_MAX)
		return NULL;
	w->issued = mem_realloc(w->issued, w->n_issued + 1, sizeof *w->issued);
	struct issued *i = &w->issued[w->n_issued++];
	memset(i, 0, sizeof *i);
	return i;
}

struct copy *world_add_copy(struct world *w)
{
	if (w->copies_total++ >= WORLD_LISTED_MAX)
		return NULL;
	w->copies = mem_realloc(w->copies, w->n_copies + 1, sizeof *w->copies);
	struct copy *c = &w->copies[w->n_copies++];
	memset(c, 0, sizeof *c);
	return c;
}

struct bundle_keeper *world_add_keeper(struct world *w)
{
	struct ca_bundles *b = &w->ca_bundles;
	if (b->keepers_total++ >= WORLD_LISTED_MAX)
		return NULL;
	b->keepers = mem_realloc(b->keepers, b->n_keepers + 1, sizeof *b->keepers);
	struct bundle_keeper *k = &b->keepers[b->n_keepers++];
	memset(k, 0, sizeof *k);
	return k;
}

void world_drop_issued(struct world *w)
{
	for (size_t i = 0; i < w->n_issued; i++) {
		str_freep(&w->issued[i].request);
		str_freep(&w->issued[i].subject);
	}
	free(w->issued);
	w->issued = NULL;
	w->n_issued = w->issued_total = 0;
}

void world_drop_copies(struct world *w)
{
	for (size_t i = 0; i < w->n_copies; i++) {
		struct copy *c = &w->copies[i];
		str_freep(&c->kind);
		str_freep(&c->namespace);
		str_freep(&c->name);
		str_freep(&c->key);
		str_freep(&c->subject);
	}
	free(w->copies);
	w->copies = NULL;
	w->n_copies = w->copies_total = 0;
}

void node_add_blocker(struct node_state *n, const char *code, const char *object, const char *message)
{
	n->blockers = mem_realloc(n->blockers, n->n_blockers + 1, sizeof *n->blockers);
	n->blockers[n->n_blockers++] = (struct node_blocker){
		.code = str_dup(code), .object = str_dup(object), .message = str_dup(message) };
}

void tally_lag(struct strs *names, const char *name)
{
	if (names->n < WORLD_NAMES_MAX)
		strs_add(names, name);
}

void request_release(struct request *r)
{
	str_freep(&r->name);
	str_freep(&r->uid);
	str_freep(&r->trigger);
	str_freep(&r->authority_secret);
	str_freep(&r->key_algorithm);
	str_freep(&r->approved_by);
	strs_release(&r->accepted);
	strs_release(&r->ignored);
	*r = (struct request){ 0 };
}

void run_authority_release(struct run_authority *a)
{
	str_freep(&a->secret);
	str_freep(&a->run);
	str_freep(&a->old_pem);
	str_freep(&a->new_pem);
	str_freep(&a->bridge_pem);
	str_freep(&a->back_pem);
	*a = (struct run_authority){ 0 };
}

void run_release(struct run *r)
{
	str_freep(&r->id);
	str_freep(&r->leg);
	str_freep(&r->mark);
	str_freep(&r->trigger);
	str_freep(&r->owner);
	str_freep(&r->secret);
	str_freep(&r->version);
	str_freep(&r->spec);
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		run_authority_release(&r->of[a]);
	strs_release(&r->accepted);
	*r = (struct run){ 0 };
}

static void node_release(struct node_state *n)
{
	str_freep(&n->name);
	str_freep(&n->address);
	str_freep(&n->hostname);
	str_freep(&n->job_problem);
	strs_release(&n->mixed);
	str_freep(&n->bridge_pem);
	str_freep(&n->probe_pem);
	str_freep(&n->ca_pem);
	for (size_t c = 0; c < COMPONENT_COUNT; c++)
		str_freep(&n->versions[c]);
	for (size_t i = 0; i < n->n_blockers; i++) {
		str_freep(&n->blockers[i].code);
		str_freep(&n->blockers[i].object);
		str_freep(&n->blockers[i].message);
	}
	free(n->blockers);
}

static void straggler_release(struct straggler *s)
{
	str_freep(&s->kind);
	str_freep(&s->namespace);
	str_freep(&s->name);
	str_freep(&s->reason);
}

static void tally_release(struct tally *t)
{
	strs_release(&t->lag_new);
	strs_release(&t->lag_only);
}

static void ca_bundles_release(struct ca_bundles *b)
{
	tally_release(&b->tally);
	strs_release(&b->reverted);
	strs_release(&b->listed);
	for (size_t i = 0; i < b->n_keepers; i++) {
		str_freep(&b->keepers[i].object);
		str_freep(&b->keepers[i].reason);
	}
	free(b->keepers);
}

void world_release(struct world *w)
{
	run_release(&w->run);
	for (size_t i = 0; i < w->n_nodes; i++)
		node_release(&w->nodes[i]);
	free(w->nodes);
	for (size_t i = 0; i < w->n_stragglers; i++)
		straggler_release(&w->stragglers[i]);
	free(w->stragglers);
	tally_release(&w->root_configmaps);
	tally_release(&w->token_secrets);
	ca_bundles_release(&w->ca_bundles);
	str_freep(&w->controller_manager.holder);
	str_freep(&w->scheduler.holder);
	strs_release(&w->csrs_unsigned);
	strs_release(&w->api_services_away);
	strs_release(&w->api_services_old);
	str_freep(&w->authority);
	str_freep(&w->candidate_problem);
	str_freep(&w->admin_fingerprint);
	world_drop_issued(w);
	world_drop_copies(w);
	memset(w, 0, sizeof *w);
}

struct node_state *world_node(struct world *w, const char *name)
{
	for (size_t i = 0; i < w->n_nodes; i++)
		if (str_eq(w->nodes[i].name, name))
			return &w->nodes[i];
	return NULL;
}
