/* LINK: rotation */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "forecast.h"
#include "request.h"
#include "status.h"

#define AUTHORITY "aa11"

/* --- A cluster: two control planes, three workers ------------------------------------------------------------------- */

struct scene {
	struct request request;
	struct world world;
};

static void add_node(struct world *w, const char *name, bool control_plane)
{
	struct node_state *n = world_add_node(w);
	n->name = str_dup(name);
	n->ready = true;
	n->control_plane = control_plane;
}

static struct straggler *add_owner(struct world *w, const char *kind, const char *name, size_t pods, bool restartable)
{
	struct straggler *s = world_add_straggler(w);
	s->kind = str_dup(kind);
	s->namespace = str_dup("team");
	s->name = str_dup(name);
	s->pods = pods;
	s->restartable = restartable;
	s->reason = str_dup(restartable ? "not restarted yet" : "a bare pod");
	w->pods_total += pods;
	return s;
}

static void scene_init(struct scene *s)
{
	memset(s, 0, sizeof *s);
	s->request = (struct request){ .name = str_dup("c"), .uid = str_dup("0123456789"), .trigger = str_dup("q4"), .generation = 7,
				       .max_workers = 2, .restart_workloads = true, .pods_per_second = 5, .plan_only = true };
	s->world = (struct world){ .now_ms = 1000000000, .request = &s->request, .nodes_known = true,
				   .pending = AUTHORITY_BIT(AUTHORITY_KUBERNETES) };
	add_node(&s->world, "alpha", true);
	add_node(&s->world, "beta", true);
	add_node(&s->world, "w1", false);
	add_node(&s->world, "w2", false);
	add_node(&s->world, "w3", false);
}

/* What a pass knows once everything was read. */
static void read_all(struct world *w)
{
	for (size_t i = 0; i < w->n_nodes; i++)
		if (w->nodes[i].ready) {
			w->nodes[i].reported = true;
			if (w->nodes[i].control_plane && !w->nodes[i].ca_pem)
				w->nodes[i].ca_pem = str_dup("O");
			w->nodes[i].job_asked_ms = w->nodes[i].report_at_ms = w->now_ms;
		}
	w->ca_bundles.tally.known = true;
	w->pods_known = w->csrs_known = w->copies_known = w->root_configmaps.known = w->token_secrets.known = true;
	w->kubeadm_certs = SEEN_NO;
	w->kubeadm_config = SEEN_YES;
	w->root_configmaps.total = 900;
	w->token_secrets.total = 100;
	if (!w->authority)
		w->authority = str_dup(AUTHORITY);
}

static void scene_release(struct scene *s)
{
	world_release(&s->world);
	request_release(&s->request);
}

static const struct json *phase_of(const struct json *plan, const char *name)
{
	json_each(p, json_get(plan, "phases"))
		if (str_eq(json_get_str(p, "phase"), name))
			return p;
	fail_msg("no phase %s", name);
	return NULL;
}

/* --- The decision ----------------------------------------------------------------------------------------------------- */

/* One pass as the engine makes it; every action but looks and their end is a failure. Returns whether the plan can be made. */
static bool pass(const struct world *w, struct plan *plan)
{
	struct position p = { 0 };
	bool ready = forecast_locate(w, &p);
	if (!ready)
		forecast_actions(w, &p, plan);
	for (size_t i = 0; i < plan->n; i++) {
		const struct action *a = &plan->actions[i];
		assert_int_equal(a->kind, ACT_NODE);
		assert_true(a->inspect);
		assert_false(a->needs_key || a->certify);
		for (size_t f = 0; f < FACET_COUNT; f++)
			assert_int_equal(a->levels[f], FACET_UNTOUCHED_LEVEL);
	}
	position_release(&p);
	return ready;
}

/* Every world that there can be of these answers: nodes visited, running, failed, down; parts read or not; every latch of a run that
 * somebody might ask for. */
static void test_a_plan_does_nothing_but_look(void **state)
{
	(void)state;
	for (unsigned bits = 0; bits < 1U << 13; bits++) {
		struct scene s cleanup(scene_release);
		scene_init(&s);
		struct world *w = &s.world;
		struct plan plan cleanup(plan_release) = { 0 };
		for (size_t i = 0; i < 3; i++)
			w->nodes[i].reported = bits >> i & 1;
		w->nodes[3].reported = w->nodes[4].reported = true;
		w->nodes[0].job_running = bits >> 3 & 1;
		w->nodes[1].ready = !(bits >> 4 & 1);
		w->nodes[2].job_failures = (int)(bits >> 5 & 1);
		w->pods_known = w->root_configmaps.known = w->token_secrets.known = bits >> 6 & 1;
		w->copies_known = bits >> 7 & 1;
		w->csrs_known = bits >> 8 & 1;
		w->kubeadm_certs = bits >> 9 & 1 ? SEEN_YES : SEEN_UNKNOWN;
		s.request.paused = bits >> 10 & 1;
		s.request.approved_drop = bits >> 11 & 1;
		w->ca_bundles.tally.known = bits >> 12 & 1;
		w->ca_bundles.wait_both = w->ca_bundles.to_both = w->ca_bundles.to_new = 1;
		s.world.authority = str_dup(AUTHORITY);
		w->cluster_info = CLUSTER_INFO_OLD;
		bool ready = pass(w, &plan);
		bool visited = true;
		for (size_t i = 0; i < w->n_nodes; i++)
			visited = visited && (w->nodes[i].reported || !w->nodes[i].ready);
		bool known = w->pods_known && w->copies_known && w->csrs_known && w->kubeadm_certs != SEEN_UNKNOWN && w->ca_bundles.tally.known;
		assert_int_equal(ready, visited && known && !s.request.paused);
		if (s.request.paused)
			assert_int_equal(plan.n, 0);
	}
}

static void test_only_ready_nodes_are_looked_at_once(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	struct plan plan cleanup(plan_release) = { 0 };
	scene_init(&s);
	s.world.nodes[0].reported = true;
	s.world.nodes[1].job_running = true;
	s.world.nodes[2].ready = false;
	assert_false(pass(&s.world, &plan));
	assert_int_equal(plan.n, 2);
	assert_ptr_equal(plan.actions[0].node, &s.world.nodes[3]);
	assert_ptr_equal(plan.actions[1].node, &s.world.nodes[4]);
}

/* From the first pass to the plan, with a cluster that answers; the walk of the same world would go on and write. */
static void test_from_nothing_to_the_plan(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	size_t passes = 0, looks = 0;
	for (;; passes++) {
		struct plan plan cleanup(plan_release) = { 0 };
		assert_true(passes < 10);
		if (pass(&s.world, &plan))
			break;
		looks += plan.n;
		for (size_t i = 0; i < s.world.n_nodes; i++) {
			struct node_state *n = &s.world.nodes[i];
			n->reported = n->reported || n->job_running;
			n->job_running = false;
		}
		for (size_t i = 0; i < plan.n; i++)
			s.world.nodes[plan.actions[i].node - s.world.nodes].job_running = true;
		struct waits w cleanup(waits_release) = { 0 };
		if (forecast_visited(&s.world, &w))
			read_all(&s.world);
	}
	assert_int_equal(looks, 5);
	struct position there = { 0 };
	struct plan next cleanup(plan_release) = { 0 };
	walk_locate(&s.world, &there);
	walk_plan(&s.world, &there, &next);
	assert_int_equal(next.actions[0].kind, ACT_CREATE_AUTHORITY); /* so the two are told apart */
	position_release(&there);
}

static void test_pods_go_when_nobody_waits_for_them(void **state)
{
	(void)state;
	struct world w = { .inspections = 3 };
	struct plan plan cleanup(plan_release) = { 0 }, run cleanup(plan_release) = { 0 }, none cleanup(plan_release) = { 0 };
	forecast_rest(&w, &plan);
	assert_int_equal(plan.n, 1);
	assert_int_equal(plan.actions[0].kind, ACT_DISMISS);
	w.run.exists = true; /* whose owner is gone: its node Pods are its own */
	forecast_rest(&w, &run);
	assert_int_equal(run.n, 0);
	w = (struct world){ 0 };
	forecast_rest(&w, &none);
	assert_int_equal(none.n, 0);
}

static void test_a_run_obeys_no_plan(void **state)
{
	(void)state;
	struct json *j cleanup(json_freep) = NULL, *copy cleanup(json_freep) = NULL;
	struct request r cleanup(request_release) = { 0 };
	struct err e;
	static const char TEXT[] = "{\"metadata\":{\"name\":\"c\"},\"spec\":{\"trigger\":\"q4\",\"mode\":\"Plan\"}}";
	assert_true(json_parse(TEXT, strlen(TEXT), &j, &e).ok);
	assert_true(request_parse(j, &r, &e).ok);
	assert_true(r.plan_only);
	copy = request_spec_copy(&r);
	assert_true(request_obey_copy(&r, copy, &e).ok);
	assert_false(r.plan_only);
}

/* --- What it says -------------------------------------------------------------------------------------------------------- */

static void test_restarts_follow_the_walk(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	read_all(&s.world);
	struct json *plan cleanup(json_freep) = forecast_make(&s.world);
	static const struct { const char *phase, *component; int64_t nodes; } wanted[] = {
		{ "TrustingBoth", "kube-controller-manager", 2 },
		{ "ReissuingLeaves", "kube-controller-manager", 2 },
		{ "ReissuingLeaves", "kube-scheduler", 2 },
		{ "ReissuingLeaves", "kubelet", 5 },
		{ "DroppingOld", "kube-controller-manager", 2 },
	};
	size_t found = 0;
	json_each(p, json_get(plan, "phases")) {
		json_each(r, json_get(p, "restarts")) {
			assert_in_range(found, 0, ARRAY_LEN(wanted) - 1);
			assert_string_equal(json_get_str(p, "phase"), wanted[found].phase);
			assert_string_equal(json_get_str(r, "component"), wanted[found].component);
			assert_int_equal(json_get_int(r, "nodesTotal", 0), wanted[found].nodes);
			assert_int_equal(json_len(json_get(r, "nodes")), wanted[found].nodes);
			found++;
		}
		assert_int_equal(json_get_int(p, "apiAwaySeconds", -1), 0);
		assert_int_equal(json_get_int(p, "sessionCuts", -1), str_eq(json_get_str(p, "phase"), "ReissuingLeaves") ? 2 : 0);
	}
	assert_int_equal(found, ARRAY_LEN(wanted));
	assert_int_equal(json_len(json_get(plan, "phases")), PHASE_COMPLETED);
}

static int64_t step_ms(const struct world *w, const char *name)
{
	size_t i = walk_find(name);
	assert_true(i < walk_length());
	return forecast_step_ms(w, i);
}

static void test_times_follow_counts_and_paces(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	read_all(&s.world);
	struct world *w = &s.world;
	add_owner(w, "Deployment", "a", 50, true);
	add_owner(w, "Pod", "b", 1000, false);
	const int64_t visit = FORECAST_VISIT_MS, all = visit + 5 * FORECAST_POD_MS;
	assert_int_equal(step_ms(w, "visit"), all);
	assert_int_equal(step_ms(w, "bridge"), visit);
	assert_int_equal(step_ms(w, "own-signer"), 2 * (visit + FORECAST_MANAGER_MS));
	assert_int_equal(step_ms(w, "trust-both"), all);
	assert_int_equal(step_ms(w, "publish-both"), 5000);
	assert_int_equal(step_ms(w, "components"), 2 * (visit + FORECAST_MANAGER_MS));
	assert_int_equal(step_ms(w, "kubelets"), (2 + 2) * (visit + FORECAST_KUBELET_MS)); /* three workers, two at a time */
	assert_int_equal(step_ms(w, "kubelet-client"), 2 * visit);
	assert_int_equal(step_ms(w, "workloads"), 10000 + FORECAST_ROLLOUT_MS + all);
	assert_int_equal(step_ms(w, "approval"), 0);
	w->ca_bundles.tally.total = 250;
	assert_int_equal(step_ms(w, "ca-bundles-both"), 2500);
	assert_int_equal(step_ms(w, "ca-bundles-new"), 2500);
	s.request.max_workers = 1;
	assert_int_equal(step_ms(w, "kubelets"), (2 + 3) * (visit + FORECAST_KUBELET_MS));
	s.request.pods_per_second = 50;
	assert_int_equal(step_ms(w, "workloads"), 1000 + FORECAST_ROLLOUT_MS + all);
	add_owner(w, "DaemonSet", "cni", 50, true)->system = true; /* goes first, and alone */
	assert_int_equal(step_ms(w, "workloads"), 2000 + 2 * FORECAST_ROLLOUT_MS + all);
	s.request.restart_workloads = false;
	assert_int_equal(step_ms(w, "workloads"), 0);
	struct json *plan cleanup(json_freep) = forecast_make(w);
	int64_t sum = 0;
	json_each(p, json_get(plan, "phases"))
		sum += json_get_int(p, "estimatedSeconds", -1000);
	assert_int_equal(json_get_int(plan, "estimatedSeconds", 0), sum);
	assert_int_equal(json_get_int(phase_of(plan, "AwaitingApproval"), "estimatedSeconds", -1), 0);
}

static void test_workloads_are_told_apart(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	read_all(&s.world);
	add_owner(&s.world, "Deployment", "web", 3, true);
	add_owner(&s.world, "Pod", "legacy", 1, false);
	add_owner(&s.world, "DaemonSet", "agent", 5, true)->accepted = true;
	struct json *plan cleanup(json_freep) = forecast_make(&s.world);
	const struct json *w = json_get(phase_of(plan, "RestartingWorkloads"), "workloads");
	assert_int_equal(json_get_int(w, "podsTotal", 0), 9);
	assert_int_equal(json_get_int(w, "rolledTotal", 0), 1);
	assert_int_equal(json_get_int(w, "rolledPods", 0), 3);
	assert_string_equal(json_get_str(json_first(json_get(w, "rolled")), "name"), "Deployment/team/web");
	assert_null(json_get(json_first(json_get(w, "rolled")), "reason"));
	assert_int_equal(json_get_int(w, "byPersonTotal", 0), 2);
	assert_int_equal(json_get_int(w, "byPersonPods", 0), 6);
	const struct json *first = json_first(json_get(w, "byPerson"));
	assert_string_equal(json_get_str(first, "name"), "Pod/team/legacy");
	assert_string_equal(json_get_str(first, "reason"), "a bare pod");
	assert_non_null(strstr(json_get_str(json_next(first), "reason"), "accepted"));
	assert_non_null(strstr(json_get_str(plan, "summary"), "3 of 9 pods that mount the authority are rolled, 1 workloads"));
	s.request.restart_workloads = false;
	struct json *none cleanup(json_freep) = forecast_make(&s.world);
	w = json_get(phase_of(none, "RestartingWorkloads"), "workloads");
	assert_int_equal(json_get_int(w, "rolledTotal", -1), 0);
	assert_int_equal(json_get_int(w, "byPersonTotal", 0), 3);
	assert_non_null(strstr(json_get_str(json_first(json_get(w, "byPerson")), "reason"), "spec.workloads.restart"));
}

static void test_what_stops_is_listed_and_counted(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	read_all(&s.world);
	for (int i = 0; i < 150; i++) {
		struct issued *c = world_add_issued(&s.world);
		struct copy *k = world_add_copy(&s.world);
		assert_int_equal(c != NULL, i < WORLD_LISTED_MAX);
		assert_int_equal(k != NULL, i < WORLD_LISTED_MAX);
		if (!c || !k)
			continue;
		*c = (struct issued){ str_printf("csr-%d", i), str_dup("CN=bob"), 86400000 };
		*k = (struct copy){ str_dup("Secret"), str_dup("team"), str_printf("s%d", i), str_dup("value"),
				    i ? COPY_AUTHORITY : COPY_KUBECONFIG | COPY_CERTIFICATE, i ? NULL : str_dup("CN=bob"), i ? 0 : 86400000 };
	}
	struct json *plan cleanup(json_freep) = forecast_make(&s.world);
	const struct json *stops = json_get(phase_of(plan, "DroppingOld"), "stopsWorking");
	assert_int_equal(json_len(json_get(stops, "certificates")), 100);
	assert_int_equal(json_get_int(stops, "certificatesTotal", 0), 150);
	assert_int_equal(json_len(json_get(stops, "copies")), 100);
	assert_int_equal(json_get_int(stops, "copiesTotal", 0), 150);
	const struct json *c = json_first(json_get(stops, "certificates")), *k = json_first(json_get(stops, "copies"));
	assert_string_equal(json_get_str(c, "subject"), "CN=bob");
	assert_string_equal(json_get_str(c, "notAfter"), "1970-01-02T00:00:00Z");
	assert_string_equal(json_get_str(k, "object"), "Secret/team/s0");
	assert_string_equal(json_get_str(k, "key"), "value");
	assert_string_equal(json_str(json_index(json_get(k, "holds"), 0)), "KubeconfigTrustingOldAuthority");
	assert_string_equal(json_str(json_index(json_get(k, "holds"), 1)), "CertificateFromOldAuthority");
	assert_null(json_get(json_next(k), "subject"));
	assert_non_null(strstr(json_get_str(stops, "unknown"), "more than an hour ago can't be known"));
	world_drop_copies(&s.world);
	world_drop_issued(&s.world);
	assert_int_equal(s.world.copies_total + s.world.issued_total + s.world.n_copies, 0);
}

static void add_keeper(struct world *w, const char *object, const char *reason)
{
	struct bundle_keeper *k = world_add_keeper(w);
	if (k)
		*k = (struct bundle_keeper){ str_dup(object), str_dup(reason) };
}

static void test_ca_bundles_are_told_apart(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	read_all(&s.world);
	struct json *none cleanup(json_freep) = forecast_make(&s.world);
	assert_int_equal(json_get_int(json_get(phase_of(none, "TrustingBoth"), "caBundles"), "movedTotal", -1), 0);
	assert_null(json_get(phase_of(none, "AwaitingApproval"), "notes"));
	struct ca_bundles *b = &s.world.ca_bundles;
	b->listed_total = 130;
	for (int i = 0; i < 100; i++)
		strs_addf(&b->listed, "APIService/v%d.example.org", i);
	for (int i = 0; i < 120; i++)
		add_keeper(&s.world, i ? "APIService/more" : "ValidatingWebhookConfiguration/mixed", "holds others");
	struct json *plan cleanup(json_freep) = forecast_make(&s.world);
	const struct json *moved = json_get(phase_of(plan, "TrustingBoth"), "caBundles");
	const struct json *awaiting = phase_of(plan, "AwaitingApproval"), *person = json_get(awaiting, "caBundles");
	assert_int_equal(json_len(json_get(moved, "moved")), 100);
	assert_int_equal(json_get_int(moved, "movedTotal", 0), 130);
	assert_string_equal(json_str(json_first(json_get(moved, "moved"))), "APIService/v0.example.org");
	assert_int_equal(json_len(json_get(person, "byPerson")), 100);
	assert_int_equal(json_get_int(person, "byPersonTotal", 0), 120);
	assert_string_equal(json_get_str(json_first(json_get(person, "byPerson")), "name"), "ValidatingWebhookConfiguration/mixed");
	assert_string_equal(json_get_str(json_first(json_get(person, "byPerson")), "reason"), "holds others");
	assert_int_equal(json_len(json_get(awaiting, "notes")), 2);
	assert_non_null(strstr(json_get_str(plan, "summary"), "130 objects with caBundles are moved along, 120 need a person"));
	assert_int_equal(json_get_int(plan, "blockersTotal", -1), 0); /* it does not keep the run from beginning */
}

/* --- The status ------------------------------------------------------------------------------------------------------------ */

static const struct json *condition(const struct json *status, const char *type)
{
	json_each(c, json_get(status, "conditions"))
		if (str_eq(json_get_str(c, "type"), type))
			return c;
	return NULL;
}

static struct json *status_with(struct scene *s, const struct json *plan, const struct json *previous)
{
	struct position p = { 0 };
	forecast_locate(&s->world, &p);
	const struct status_input in = { .world = &s->world, .position = &p, .request = &s->request, .plan = plan, .previous = previous,
					 .standing = plan ? STANDING_PLANNED : STANDING_PLANNING };
	struct json *status = status_make(&in);
	position_release(&p);
	return status;
}

static void test_a_complete_plan_is_ready(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	struct status_event events[4];
	scene_init(&s);
	struct json *before cleanup(json_freep) = status_with(&s, NULL, NULL);
	assert_null(json_get(before, "phase"));
	assert_string_equal(json_get_str(condition(before, "Ready"), "status"), "False");
	assert_string_equal(json_get_str(condition(before, "Reconciling"), "reason"), "VisitingNodes");
	assert_non_null(strstr(json_get_str(condition(before, "Ready"), "message"), "alpha"));
	read_all(&s.world);
	struct json *plan cleanup(json_freep) = forecast_make(&s.world);
	struct json *status cleanup(json_freep) = status_with(&s, plan, before);
	assert_string_equal(json_get_str(status, "phase"), "Planned");
	assert_string_equal(json_get_str(condition(status, "Ready"), "status"), "True");
	assert_string_equal(json_get_str(condition(status, "Ready"), "reason"), "Planned");
	assert_null(condition(status, "Stalled"));
	assert_null(condition(status, "Reconciling"));
	assert_true(json_equal(json_get(status, "plan"), plan));
	assert_int_equal(json_get_int(status, "observedGeneration", 0), 7);
	json_each(c, json_get(status, "conditions"))
		assert_int_equal(json_get_int(c, "observedGeneration", 0), 7);
	assert_int_equal(status_events(before, status, events, 4), 1);
	assert_string_equal(events[0].reason, "Planned");
	assert_false(events[0].warning);
	struct world nothing = { .now_ms = s.world.now_ms + 9000 };
	const struct status_input later = { .world = &nothing, .request = &s.request, .plan = json_get(status, "plan"),
					    .previous = status, .standing = STANDING_PLANNED };
	struct json *again cleanup(json_freep) = status_make(&later);
	assert_false(status_differs(status, again)); /* when the Pods are gone, and whoever leads */
}

static void test_a_blocked_plan_is_stalled(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	struct status_event events[4];
	scene_init(&s);
	s.world.nodes[4].ready = false;
	read_all(&s.world);
	node_add_blocker(&s.world.nodes[0], "CAKeyMissing", "/etc/kubernetes/pki/ca.key", "external CA");
	struct json *plan cleanup(json_freep) = forecast_make(&s.world);
	struct json *status cleanup(json_freep) = status_with(&s, plan, NULL);
	assert_null(json_get(status, "phase"));
	assert_string_equal(json_get_str(condition(status, "Ready"), "status"), "False");
	assert_string_equal(json_get_str(condition(status, "Stalled"), "reason"), "Blocked");
	assert_non_null(strstr(json_get_str(condition(status, "Stalled"), "message"), "external CA"));
	assert_int_equal(json_get_int(status, "blockersTotal", 0), 2);
	assert_string_equal(json_get_str(json_first(json_get(status, "blockers")), "code"), "CAKeyMissing");
	assert_string_equal(json_get_str(json_index(json_get(status, "blockers"), 1), "object"), "Node/w3");
	assert_non_null(json_get(status, "plan"));
	assert_int_equal(status_events(NULL, status, events, 4), 2); /* one for each blocker */
	assert_true(events[0].warning);
}

static void test_waiting_for_a_run_is_said(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	const struct status_input in = { .world = &s.world, .request = &s.request, .standing = STANDING_QUEUED, .detail = "other" };
	struct json *status cleanup(json_freep) = status_make(&in);
	const char *message = json_get_str(condition(status, "Ready"), "message");
	assert_string_equal(json_get_str(condition(status, "Ready"), "reason"), "Queued");
	assert_non_null(strstr(message, "run of other"));
	assert_non_null(strstr(message, "plan"));
}

static void test_when_a_plan_answers(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	read_all(&s.world);
	const int64_t now = s.world.now_ms, much_later = now + 1000 * FORECAST_AGAIN_MS;
	struct json *plan cleanup(json_freep) = forecast_make(&s.world);
	assert_true(forecast_current(plan, &s.request, AUTHORITY, much_later));
	assert_false(forecast_current(NULL, &s.request, AUTHORITY, now));
	assert_false(forecast_current(plan, &s.request, "bb22", now)); /* a run has been since */
	assert_false(forecast_current(plan, &s.request, NULL, now));
	s.request.generation++;
	assert_false(forecast_current(plan, &s.request, AUTHORITY, now));
	s.request.generation--;
	s.world.nodes[0].ready = false;
	struct json *blocked cleanup(json_freep) = forecast_make(&s.world);
	assert_true(forecast_current(blocked, &s.request, AUTHORITY, now + FORECAST_AGAIN_MS - 2000));
	assert_false(forecast_current(blocked, &s.request, AUTHORITY, now + FORECAST_AGAIN_MS));
	assert_true(forecast_answers(blocked, &s.request, AUTHORITY)); /* so it is shown until the next one is there */
	assert_false(forecast_answers(blocked, &s.request, "bb22"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_plan_does_nothing_but_look),
		cmocka_unit_test(test_only_ready_nodes_are_looked_at_once),
		cmocka_unit_test(test_from_nothing_to_the_plan),
		cmocka_unit_test(test_pods_go_when_nobody_waits_for_them),
		cmocka_unit_test(test_a_run_obeys_no_plan),
		cmocka_unit_test(test_restarts_follow_the_walk),
		cmocka_unit_test(test_times_follow_counts_and_paces),
		cmocka_unit_test(test_workloads_are_told_apart),
		cmocka_unit_test(test_what_stops_is_listed_and_counted),
		cmocka_unit_test(test_ca_bundles_are_told_apart),
		cmocka_unit_test(test_a_complete_plan_is_ready),
		cmocka_unit_test(test_a_blocked_plan_is_stalled),
		cmocka_unit_test(test_waiting_for_a_run_is_said),
		cmocka_unit_test(test_when_a_plan_answers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
