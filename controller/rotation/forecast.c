#include "forecast.h"
#include "status.h"

#include <string.h>

#define LOOK_MS 2000
#define SUBJECT_MAX 300

/* --- What it waits for ------------------------------------------------------------------------------------------------ */

static bool wait_for(struct waits *w, const char *reason, const char *message)
{
	w->reason = reason;
	buf_clear(&w->message);
	buf_add_str(&w->message, message);
	return false;
}

/* A node that is not Ready can't be visited, and blocks the run that is planned: the plan says so. */
bool forecast_visited(const struct world *w, struct waits *ret)
{
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		if (!n->ready)
			continue;
		ret->total++;
		if (n->reported)
			ret->done++;
		else
			tally_lag(&ret->names, n->name);
	}
	if (w->nodes_known && w->n_nodes && ret->done == ret->total)
		return true;
	return wait_for(ret, "VisitingNodes", "a look at every node, by a Pod there that can't write");
}

static bool all_read(const struct world *w, struct waits *ret)
{
	const struct { bool known; const char *what; } parts[] = {
		{ w->pods_known, "pods" },
		{ w->copies_known, "Secrets and ConfigMaps" },
		{ w->ca_bundles.tally.known, "caBundles" },
		{ w->csrs_known, "CertificateSigningRequests" },
		{ w->root_configmaps.known && w->token_secrets.known, "published authorities" },
		{ w->kubeadm_certs != SEEN_UNKNOWN, "Secret kube-system/kubeadm-certs" },
		{ w->authority != NULL, "the authority in force" },
	};
	for (size_t i = 0; i < ARRAY_LEN(parts); i++)
		if (!parts[i].known)
			tally_lag(&ret->names, parts[i].what);
	return !ret->names.n || wait_for(ret, "ReadingCluster", "these to be read");
}

bool forecast_locate(const struct world *w, struct position *ret)
{
	memset(ret, 0, sizeof *ret);
	if (w->request && w->request->paused) {
		ret->held = true;
		return wait_for(&ret->waits, "Paused", "spec.paused to be false");
	}
	if (!forecast_visited(w, &ret->waits))
		return false;
	waits_release(&ret->waits);
	return all_read(w, &ret->waits);
}

/* --- What to do ------------------------------------------------------------------------------------------------------- */

void forecast_actions(const struct world *w, const struct position *p, struct plan *ret)
{
	plan_look_again(ret, LOOK_MS);
	for (size_t i = 0; i < w->n_nodes && !p->held; i++) {
		const struct node_state *n = &w->nodes[i];
		if (n->reported || !n->ready || !walk_job_may_start(w, n, ret))
			continue;
		struct action *a = plan_add(ret, ACT_NODE, 0);
		a->node = n;
		a->authority = authority_lead(world_authorities(w));
		a->inspect = true;
	}
}

void forecast_rest(const struct world *w, struct plan *ret)
{
	if (w->run.exists || !w->inspections)
		return;
	plan_add(ret, ACT_DISMISS, 0);
	plan_look_again(ret, LOOK_MS);
}

/* --- How long --------------------------------------------------------------------------------------------------------- */

static size_t count_nodes(const struct world *w, bool control_planes)
{
	size_t n = 0;
	for (size_t i = 0; i < w->n_nodes; i++)
		n += w->nodes[i].control_plane == control_planes;
	return n;
}

static bool is_rolled(const struct world *w, const struct straggler *s)
{
	return s->restartable && w->request->restart_workloads && !s->accepted;
}

static size_t pods_rolled(const struct world *w)
{
	size_t pods = 0;
	for (size_t i = 0; i < w->n_stragglers; i++)
		if (is_rolled(w, &w->stragglers[i]))
			pods += w->stragglers[i].pods;
	return pods;
}

/* CNI and kube-proxy go first and alone, then the others: as many waves as there are of the two. */
static int64_t waves(const struct world *w)
{
	bool system = false, others = false;
	for (size_t i = 0; i < w->n_stragglers; i++) {
		const struct straggler *s = &w->stragglers[i];
		system = system || (s->system && is_rolled(w, s));
		others = others || (!s->system && is_rolled(w, s));
	}
	return system + others;
}

static int64_t visit_all(size_t nodes)
{
	return nodes ? FORECAST_VISIT_MS + FORECAST_POD_MS * (int64_t)nodes : 0;
}

static int64_t cost_visit(const struct world *w)
{
	return visit_all(w->n_nodes);
}

static int64_t cost_one_visit(const struct world *w UNUSED)
{
	return FORECAST_VISIT_MS;
}

static int64_t cost_publish(const struct world *w)
{
	return (int64_t)(w->root_configmaps.total + w->token_secrets.total) * 1000 / FORECAST_PATCHES_PER_SECOND;
}

static int64_t cost_ca_bundles(const struct world *w)
{
	return (int64_t)w->ca_bundles.tally.total * 1000 / FORECAST_BUNDLES_PER_SECOND;
}

/* Set to restart at the pace that was asked for, then seen on the nodes. How long a large rollout takes, and a slow pod until it is
 * ready, is their own. */
static int64_t cost_workloads(const struct world *w)
{
	int pace = w->request->pods_per_second > 0 ? w->request->pods_per_second : 1;
	size_t pods = pods_rolled(w);
	return pods ? (int64_t)pods * 1000 / pace + waves(w) * FORECAST_ROLLOUT_MS + visit_all(w->n_nodes) : 0;
}

/* Steps of the cluster that take time; the others are a request or two. */
static const struct {
	const char *step;
	int64_t (*cost)(const struct world *w);
} COSTS[] = {
	{ "visit", cost_visit },
	{ "bridge", cost_one_visit },
	{ "publish-both", cost_publish },
	{ "ca-bundles-both", cost_ca_bundles },
	{ "publish-new", cost_publish },
	{ "workloads", cost_workloads },
	{ "publish-last", cost_publish },
	{ "workloads-new", cost_workloads },
	{ "ca-bundles-new", cost_ca_bundles },
};

static bool moves_facet(const struct step *s, enum facet f)
{
	for (size_t i = 0; i < s->n_facets; i++)
		if (s->facets[i].facet == f)
			return true;
	return false;
}

static bool restarts_manager(const struct step *s)
{
	return moves_facet(s, FACET_ROOT) || moves_facet(s, FACET_COMPONENTS_BOTH);
}

static bool restarts_scheduler(const struct step *s)
{
	return moves_facet(s, FACET_COMPONENTS) || moves_facet(s, FACET_COMPONENTS_BOTH);
}

static bool restarts_kubelet(const struct step *s)
{
	return moves_facet(s, FACET_KUBELET) || moves_facet(s, FACET_KUBELET_BOTH);
}

static bool restarts_etcd(const struct step *s)
{
	return moves_facet(s, FACET_ETCD_TRUST);
}

static bool switches_kubelet_client(const struct step *s)
{
	return moves_facet(s, FACET_KUBELET_CLIENT);
}

/* What one node takes for a step, its visit included. The scheduler restarts beside the controller-manager. */
static int64_t node_ms(const struct step *s, bool control_plane)
{
	int64_t ms = FORECAST_VISIT_MS;
	if (control_plane && restarts_manager(s))
		ms += FORECAST_MANAGER_MS;
	if (restarts_kubelet(s))
		ms += FORECAST_KUBELET_MS;
	if (control_plane && moves_facet(s, FACET_ETCD_TRUST))
		ms += FORECAST_WINDOW_MS;
	return ms;
}

static int64_t node_step_ms(const struct world *w, const struct step *s)
{
	size_t planes = count_nodes(w, true), workers = s->scope == SCOPE_NODES ? count_nodes(w, false) : 0;
	size_t at_once = w->request->max_workers > 0 ? (size_t)w->request->max_workers : 1;
	if (s->pace == PACE_ALL)
		return visit_all(planes + workers) + node_ms(s, true) - FORECAST_VISIT_MS;
	size_t rounds = s->pace == PACE_WORKERS ? (workers + at_once - 1) / at_once : workers;
	return (int64_t)planes * node_ms(s, true) + (int64_t)rounds * node_ms(s, false);
}

int64_t forecast_step_ms(const struct world *w, size_t step)
{
	const struct step *s = walk_step(step);
	if (!walk_applies(w, s))
		return 0;
	if (s->scope != SCOPE_CLUSTER)
		return node_step_ms(w, s);
	for (size_t i = 0; i < ARRAY_LEN(COSTS); i++)
		if (str_eq(COSTS[i].step, s->name))
			return COSTS[i].cost(w);
	return 0;
}

static int64_t phase_seconds(const struct world *w, enum phase p)
{
	int64_t ms = 0;
	for (size_t i = 0; i < walk_length(); i++)
		if (walk_step(i)->phase == p)
			ms += forecast_step_ms(w, i);
	return (ms + 999) / 1000;
}

/* --- What restarts ------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	bool (*restarts)(const struct step *s);
	bool everywhere;       /* on workers too */
} COMPONENTS[] = {
	{ "kube-controller-manager", restarts_manager, false },
	{ "kube-scheduler", restarts_scheduler, false },
	{ "kubelet", restarts_kubelet, true },
	{ "etcd", restarts_etcd, false },
	{ "kube-apiserver", restarts_etcd, false },
};

static size_t steps_that(const struct world *w, enum phase p, bool (*holds)(const struct step *s))
{
	size_t n = 0;
	for (size_t i = 0; i < walk_length(); i++)
		n += walk_step(i)->phase == p && walk_applies(w, walk_step(i)) && holds(walk_step(i));
	return n;
}

static void add_restart(const struct world *w, struct json *phase, size_t component)
{
	struct json *r = json_object();
	size_t nodes = 0;
	json_set_str(r, "component", COMPONENTS[component].name);
	for (size_t i = 0; i < w->n_nodes; i++) {
		if (!w->nodes[i].control_plane && !COMPONENTS[component].everywhere)
			continue;
		if (nodes++ < WORLD_LISTED_MAX)
			json_add_str(json_ensure_array(r, "nodes"), w->nodes[i].name);
	}
	json_set_int(r, "nodesTotal", (int64_t)nodes);
	json_add(json_ensure_array(phase, "restarts"), r);
}

static void add_note(struct json *phase, const char *note)
{
	json_add_str(json_ensure_array(phase, "notes"), note);
}

/* With one control plane there is nobody else to ask meanwhile. */
static int64_t api_away_seconds(const struct world *w, enum phase p)
{
	return steps_that(w, p, restarts_etcd) && count_nodes(w, true) == 1 ? FORECAST_WINDOW_MS / 1000 : 0;
}

/* Only etcd's authority needs restarts of API servers. Long-lived connections through them are cut in any case. */
static void availability(const struct world *w, enum phase p, struct json *phase)
{
	size_t kubelet = steps_that(w, p, restarts_kubelet), client = steps_that(w, p, switches_kubelet_client);
	size_t etcd = steps_that(w, p, restarts_etcd);
	json_set_int(phase, "apiAwaySeconds", api_away_seconds(w, p));
	json_set_int(phase, "sessionCuts", (int64_t)(kubelet + client + etcd));
	if (etcd)
		add_note(phase, "each control plane's API server and etcd restart once, one control plane at a time; new connections to that API "
				"server wait meanwhile, and watches and sessions through it are cut once");
	if (kubelet)
		add_note(phase, "exec, attach, port-forward and logs -f sessions are cut once when the kubelet of their node restarts; pods "
				"with readiness probes there are unready until their first probe, the node stays Ready");
	if (client)
		add_note(phase, "exec, attach, port-forward and logs -f sessions are cut once more when apiserver-kubelet-client changes "
				"on the API server that they run through");
}

static void restarts(const struct world *w, enum phase p, struct json *phase)
{
	for (size_t c = 0; c < ARRAY_LEN(COMPONENTS); c++)
		if (steps_that(w, p, COMPONENTS[c].restarts))
			add_restart(w, phase, c);
	availability(w, p, phase);
}

/* --- Workloads ------------------------------------------------------------------------------------------------------------- */

/* Why a run leaves it to a person; NULL: a run rolls it. */
static const char *person_reason(const struct world *w, const struct straggler *s)
{
	if (s->accepted)
		return "accepted by name: it is not waited for, and loses the API at the drop until it is restarted";
	if (!s->restartable)
		return s->reason ? s->reason : "nobody knows how to restart it";
	return w->request->restart_workloads ? NULL : "spec.workloads.restart is None: restart it, or wait until it has restarted";
}

/* Whom the run waits for. */
static size_t count_by_person(const struct world *w)
{
	size_t n = 0;
	for (size_t i = 0; i < w->n_stragglers; i++)
		n += !w->stragglers[i].accepted && person_reason(w, &w->stragglers[i]);
	return n;
}

struct owners {
	struct json *workloads;
	const char *list, *total, *pods_total;
	size_t n, pods;
};

static void add_owner(struct owners *o, const struct straggler *s, const char *reason)
{
	o->pods += s->pods;
	if (o->n++ >= WORLD_LISTED_MAX)
		return;
	struct json *j = json_object();
	char *name cleanup(str_freep) = str_printf("%s/%s/%s", s->kind, s->namespace, s->name);
	json_set_str(j, "name", name);
	json_set_int(j, "pods", (int64_t)s->pods);
	json_set_str(j, "reason", reason);
	json_add(json_ensure_array(o->workloads, o->list), j);
}

static void set_totals(const struct owners *o)
{
	json_set_int(o->workloads, o->total, (int64_t)o->n);
	json_set_int(o->workloads, o->pods_total, (int64_t)o->pods);
}

static void workloads(const struct world *w, struct json *phase)
{
	struct json *j = json_ensure_object(phase, "workloads");
	struct owners rolled = { j, "rolled", "rolledTotal", "rolledPods", 0, 0 };
	struct owners person = { j, "byPerson", "byPersonTotal", "byPersonPods", 0, 0 };
	for (size_t i = 0; i < w->n_stragglers; i++) {
		const char *reason = person_reason(w, &w->stragglers[i]);
		add_owner(reason ? &person : &rolled, &w->stragglers[i], reason);
	}
	set_totals(&rolled);
	set_totals(&person);
	json_set_int(j, "podsTotal", (int64_t)w->pods_total);
	json_set_int(j, "podsUnlisted", (int64_t)w->pods_unlisted);
	if (count_by_person(w))
		add_note(phase, "the run stops here until a person has seen to what byPerson names, or has accepted it by name "
				"(spec.acceptStragglers)");
}

/* --- caBundles -------------------------------------------------------------------------------------------------------------- */

static void bundles_moved(const struct world *w, struct json *phase)
{
	const struct ca_bundles *b = &w->ca_bundles;
	struct json *j = json_ensure_object(phase, "caBundles");
	for (size_t i = 0; i < b->listed.n; i++)
		json_add_str(json_ensure_array(j, "moved"), b->listed.items[i]);
	json_set_int(j, "movedTotal", (int64_t)b->listed_total);
}

static void bundles_by_person(const struct world *w, struct json *phase)
{
	const struct ca_bundles *b = &w->ca_bundles;
	struct json *j = json_ensure_object(phase, "caBundles");
	for (size_t i = 0; i < b->n_keepers; i++) {
		struct json *one = json_object();
		json_set_str(one, "name", b->keepers[i].object);
		json_set_str(one, "reason", b->keepers[i].reason);
		json_add(json_ensure_array(j, "byPerson"), one);
	}
	json_set_int(j, "byPersonTotal", (int64_t)b->keepers_total);
	if (b->listed_total)
		add_note(phase, "the run waits here until every server behind a caBundle that was moved (TrustingBoth) presents a certificate "
				"from the new authority, or its object is accepted by name (spec.acceptStragglers): have those renewed "
				"from PublishingNew on");
	if (b->keepers_total)
		add_note(phase, "the run waits here for a person to see to what caBundles.byPerson names");
}

/* --- What stops working ---------------------------------------------------------------------------------------------------- */

static void set_time(struct json *j, const char *name, int64_t ms)
{
	char text[32];
	time_format(ms, text);
	json_set_str(j, name, text);
}

static void set_subject(struct json *j, const char *subject, int64_t not_after_ms)
{
	if (!subject)
		return;
	char *cut cleanup(str_freep) = str_ndup(subject, SUBJECT_MAX);
	json_set_str(j, "subject", cut);
	set_time(j, "notAfter", not_after_ms);
}

static void add_holds(struct json *j, int holds)
{
	static const struct { int bit; const char *name; } NAMES[] = {
		{ COPY_AUTHORITY, "OldAuthority" },
		{ COPY_KUBECONFIG, "KubeconfigTrustingOldAuthority" },
		{ COPY_CERTIFICATE, "CertificateFromOldAuthority" },
		{ COPY_UNREADABLE, "UnreadableKubeconfig" },
	};
	for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
		if (holds & NAMES[i].bit)
			json_add_str(json_ensure_array(j, "holds"), NAMES[i].name);
}

static void add_certificate(struct json *stops, const struct issued *i)
{
	struct json *j = json_object();
	json_set_str(j, "request", i->request);
	set_subject(j, i->subject, i->not_after_ms);
	json_add(json_ensure_array(stops, "certificates"), j);
}

static void add_copy(struct json *stops, const struct copy *c)
{
	struct json *j = json_object();
	char *name cleanup(str_freep) = str_printf("%s/%s/%s", c->kind, c->namespace, c->name);
	json_set_str(j, "object", name);
	json_set_str(j, "key", c->key);
	add_holds(j, c->holds);
	set_subject(j, c->subject, c->not_after_ms);
	json_add(json_ensure_array(stops, "copies"), j);
}

static void stops(const struct world *w, struct json *phase)
{
	struct json *j = json_ensure_object(phase, "stopsWorking");
	for (size_t i = 0; i < w->n_issued; i++)
		add_certificate(j, &w->issued[i]);
	for (size_t i = 0; i < w->n_copies; i++)
		add_copy(j, &w->copies[i]);
	json_set_int(j, "certificatesTotal", (int64_t)w->issued_total);
	json_set_int(j, "copiesTotal", (int64_t)w->copies_total);
	json_set_str(j, "unknown", "Client certificates from CertificateSigningRequests that were signed more than an hour ago can't be "
				   "known: the cluster deletes those requests. Nor can copies of kubeconfigs outside of the cluster, keystores, "
				   "and what is encrypted. All of them are refused from this phase on.");
}

/* --- The plan --------------------------------------------------------------------------------------------------------------- */

static void details(const struct world *w, enum phase p, struct json *phase)
{
	if (p == PHASE_PREPARING && w->kubeadm_certs == SEEN_YES)
		add_note(phase, "Secret kube-system/kubeadm-certs (old keys for joins of control planes) is deleted");
	bool own = authority_in(world_authorities(w), AUTHORITY_KUBERNETES);
	if (p == PHASE_TRUSTING_BOTH && own)
		bundles_moved(w, phase);
	bool twice = world_strategy(w) == STRATEGY_BUNDLE;
	if (p == PHASE_RESTARTING_WORKLOADS && (own || authority_in(world_authorities(w), AUTHORITY_ETCD)))
		workloads(w, phase);
	if (p == PHASE_DROPPING_OLD && twice) {
		workloads(w, phase);
		add_note(phase, "the same pods restart once more, to forget the old authority (spec.strategy Bundle)");
	}
	if (p == PHASE_AWAITING_APPROVAL && own)
		bundles_by_person(w, phase);
	if (p == PHASE_AWAITING_APPROVAL && w->request->approval_manual)
		add_note(phase, own ? "it waits for spec.approve, with the administrator's new kubeconfig, for as long as that takes"
				    : "it waits for spec.approve, for as long as that takes");
	if (p == PHASE_DROPPING_OLD && own)
		stops(w, phase);
}

static int64_t add_phases(const struct world *w, struct json *plan)
{
	int64_t total = 0;
	for (size_t p = 0; p < PHASE_COMPLETED; p++) {
		const struct phase_text *t = phase_text((enum phase)p);
		struct json *j = json_object();
		int64_t seconds = phase_seconds(w, (enum phase)p);
		total += seconds;
		json_set_str(j, "phase", t->name);
		struct buf moves cleanup(buf_release) = BUF_INIT;
		bool any = walk_moves(world_authorities(w), world_strategy(w), (enum phase)p, &moves);
		json_set_str(j, "moves", any ? buf_str(&moves) : "nothing");
		json_set_int(j, "estimatedSeconds", seconds);
		restarts(w, (enum phase)p, j);
		details(w, (enum phase)p, j);
		json_add(json_ensure_array(plan, "phases"), j);
	}
	return total;
}

static void summary(const struct world *w, int64_t seconds, struct json *plan)
{
	if (!authority_in(world_authorities(w), AUTHORITY_KUBERNETES)) {
		char *short_text cleanup(str_freep) =
			str_printf("%zu nodes; no kubelet and no pod restarts; the API is away for %lld s; about %lld s, waits for people aside",
				   w->n_nodes, (long long)api_away_seconds(w, PHASE_DROPPING_OLD), (long long)seconds);
		json_set_str(plan, "summary", short_text);
		return;
	}
	bool twice = world_strategy(w) == STRATEGY_BUNDLE;
	char *text cleanup(str_freep) =
		str_printf("%zu nodes, each kubelet restarts %s; %zu of %zu pods that mount the authority are rolled%s, %zu workloads "
			   "need a person; %zu objects with caBundles are moved along, %zu need a person; %zu certificates and %zu objects "
			   "elsewhere are seen that stop working at the drop; the API is away for %lld s; about %lld s, waits for people and for "
			   "pods to be ready aside",
			   w->n_nodes, twice ? "twice" : "once", pods_rolled(w), w->pods_total, twice ? ", twice" : "", count_by_person(w),
			   w->ca_bundles.listed_total,
			   w->ca_bundles.keepers_total, w->issued_total, w->copies_total, (long long)api_away_seconds(w, PHASE_DROPPING_OLD),
			   (long long)seconds);
	json_set_str(plan, "summary", text);
}

struct json *forecast_make(const struct world *w)
{
	struct json *plan = json_object();
	json_set_str(plan, "trigger", w->request->trigger);
	json_set_int(plan, "observedGeneration", w->request->generation);
	set_time(plan, "madeAt", w->now_ms);
	json_set_str(plan, "authority", w->authority);
	int64_t seconds = add_phases(w, plan);
	json_set_int(plan, "estimatedSeconds", seconds);
	json_set_int(plan, "apiAwaySeconds", api_away_seconds(w, PHASE_DROPPING_OLD));
	status_blockers(w, PHASE_PREPARING, plan);
	summary(w, seconds, plan);
	return plan;
}

bool forecast_answers(const struct json *plan, const struct request *r, const char *authority)
{
	return plan && json_get_int(plan, "observedGeneration", -1) == r->generation && str_eq(json_get_str(plan, "trigger"), r->trigger) &&
	       str_eq(json_get_str(plan, "authority"), authority);
}

bool forecast_current(const struct json *plan, const struct request *r, const char *authority, int64_t now_ms)
{
	int64_t made = 0;
	struct err e;
	const char *text = json_get_str(plan, "madeAt");
	if (!forecast_answers(plan, r, authority) || !text || !time_parse(text, &made, &e).ok)
		return false;
	return !json_get_int(plan, "blockersTotal", 0) || now_ms < made + FORECAST_AGAIN_MS;
}
