/* LINK: rotation */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "request.h"
#include "status.h"

static struct json *parse(const char *text)
{
	struct json *j = NULL;
	struct err e;
	assert_true(json_parse(text, strlen(text), &j, &e).ok);
	return j;
}

static const char *condition(const struct json *status, const char *type, const char *field)
{
	json_each(c, json_get(status, "conditions"))
		if (str_eq(json_get_str(c, "type"), type))
			return json_get_str(c, field);
	return NULL;
}

/* --- Requests ------------------------------------------------------------------------------------------------------------- */

static void refuses(const char *spec, const char *field)
{
	char *text cleanup(str_freep) = str_printf("{\"metadata\":{\"name\":\"a\"},\"spec\":%s}", spec);
	struct json *j cleanup(json_freep) = parse(text);
	struct request r = { 0 };
	struct err e = { 0 };
	assert_false(request_parse(j, &r, &e).ok);
	assert_int_equal(e.kind, ERR_INPUT);
	if (!strstr(e.message, field))
		fail_msg("\"%s\" does not name %s", e.message, field);
	assert_null(r.trigger);
}

static void test_bad_requests_name_the_field(void **state)
{
	(void)state;
	refuses("{}", "spec.trigger");
	refuses("{\"trigger\":\"\"}", "spec.trigger");
	refuses("{\"trigger\":7}", "spec.trigger");
	refuses("{\"trigger\":\"0123456789012345678901234567890123456789012345678901234567890123\"}", "spec.trigger");
	refuses("{\"trigger\":\"a\",\"strategy\":\"Hope\"}", "spec.strategy");
	refuses("{\"trigger\":\"a\",\"authorities\":[\"Etcd\",\"Vault\"]}", "spec.authorities");
	refuses("{\"trigger\":\"a\",\"newAuthority\":{\"secretRef\":{}}}", "spec.newAuthority.secretRef.name");
	refuses("{\"trigger\":\"a\",\"newAuthority\":{\"secretRef\":{\"name\":\"a/../b\"}}}", "spec.newAuthority.secretRef.name");
	refuses("{\"trigger\":\"a\",\"authorities\":[\"Kubernetes\",\"Etcd\"],\"newAuthority\":{\"secretRef\":{\"name\":\"b\"}}}", "spec.authorities");
	refuses("{\"trigger\":\"a\",\"newAuthority\":{\"keyAlgorithm\":\"RSA-512\"}}", "spec.newAuthority.keyAlgorithm");
	refuses("{\"trigger\":\"a\",\"newAuthority\":{\"validityPeriod\":\"10y\"}}", "spec.newAuthority.validityPeriod");
	refuses("{\"trigger\":\"a\",\"newAuthority\":{\"validityPeriod\":\"1h\"}}", "spec.newAuthority.validityPeriod");
	refuses("{\"trigger\":\"a\",\"leaves\":{\"validityPeriod\":\"999999h\"}}", "spec.leaves.validityPeriod");
	refuses("{\"trigger\":\"a\",\"deadline\":\"tomorrow\"}", "spec.deadline");
	refuses("{\"trigger\":\"a\",\"deadline\":\"59s\"}", "spec.deadline");
	refuses("{\"trigger\":\"a\",\"deadline\":\"8761h\"}", "spec.deadline");
}

static void test_defaults_and_matching_triggers(void **state)
{
	(void)state;
	struct json *j cleanup(json_freep) = parse(
		"{\"metadata\":{\"name\":\"c\",\"generation\":3},\"spec\":{\"trigger\":\"q4\",\"approval\":\"Manual\","
		"\"approve\":{\"trigger\":\"q3\",\"phase\":\"DroppingOld\"},"
		"\"acceptStragglers\":{\"trigger\":\"q4\",\"names\":[\"Pod/a/b\"]}}}");
	struct request r cleanup(request_release) = { 0 };
	struct err e;
	assert_true(request_parse(j, &r, &e).ok);
	assert_string_equal(r.key_algorithm, "RSA-2048");
	assert_int_equal(r.authorities, AUTHORITY_BIT(AUTHORITY_KUBERNETES));
	assert_int_equal(r.validity_ms, (int64_t)87600 * 3600000);
	assert_int_equal(r.leaf_validity_ms, 0);
	assert_true(r.approval_manual);
	assert_false(r.approved_drop); /* last year's approval */
	assert_int_equal(r.accepted.n, 1);
	assert_int_equal(r.max_workers, 1);
	assert_true(r.restart_workloads);
	assert_int_equal(r.generation, 3);
}

/* An approval is for one phase of one run, and says by which certificate. */
static void test_an_approval_is_for_one_phase_of_one_run(void **state)
{
	(void)state;
	static const struct { const char *approve; bool drop, other; const char *by; } cases[] = {
		{ "", false, false, NULL },
		{ ",\"approve\":{\"trigger\":\"q4\",\"phase\":\"DroppingOld\"}", true, false, NULL },
		{ ",\"approve\":{\"trigger\":\"q4\",\"phase\":\"DroppingOld\",\"clientCertificateFingerprint\":\"f1\"}", true, false, "f1" },
		{ ",\"approve\":{\"trigger\":\"q3\",\"phase\":\"DroppingOld\",\"clientCertificateFingerprint\":\"f1\"}", false, true, "f1" },
		{ ",\"approve\":{\"trigger\":\"q4\",\"phase\":\"RestartingWorkloads\"}", false, true, NULL },
		{ ",\"approve\":{\"trigger\":\"q4\",\"phase\":\"droppingold\"}", false, true, NULL },
		{ ",\"approve\":{\"trigger\":\"Q4\",\"phase\":\"DroppingOld\"}", false, true, NULL },
		{ ",\"approve\":{\"trigger\":\"q4\"}", false, true, NULL },
		{ ",\"approve\":{\"phase\":\"DroppingOld\"}", false, true, NULL },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *text cleanup(str_freep) = str_printf("{\"metadata\":{\"name\":\"c\"},\"spec\":{\"trigger\":\"q4\"%s}}", cases[i].approve);
		struct json *j cleanup(json_freep) = parse(text);
		struct request r cleanup(request_release) = { 0 };
		struct err e;
		assert_true(request_parse(j, &r, &e).ok);
		assert_int_equal(r.approved_drop, cases[i].drop);
		assert_int_equal(r.approved_other, cases[i].other);
		assert_true(cases[i].by ? str_eq(r.approved_by, cases[i].by) : !r.approved_by);
	}
}

static void test_durations(void **state)
{
	(void)state;
	struct err e;
	int64_t ms = 0;
	assert_true(duration_parse("1h30m", &ms, &e).ok);
	assert_int_equal(ms, 5400000);
	static const char *const BAD[] = { "", "h", "1", "1h30", "-1h", "1d", "1.5h", " 1h", "99999999999h", "2562048h",
					 "999999999h999999999h" };
	for (size_t i = 0; i < ARRAY_LEN(BAD); i++) {
		ms = 42;
		assert_false(duration_parse(BAD[i], &ms, &e).ok);
		assert_int_equal(ms, 42);
	}
}

static void test_a_run_obeys_its_copy(void **state)
{
	(void)state;
	struct json *j cleanup(json_freep) = parse("{\"metadata\":{\"name\":\"c\"},\"spec\":{\"trigger\":\"q4\",\"approval\":\"Manual\","
						   "\"newAuthority\":{\"keyAlgorithm\":\"ECDSA-P256\"}}}");
	struct json *edited cleanup(json_freep) = parse("{\"metadata\":{\"name\":\"c\"},\"spec\":{\"trigger\":\"q4\",\"authorities\":[\"Etcd\"],"
							"\"newAuthority\":{\"secretRef\":{\"name\":\"s\"}}}}");
	struct request r cleanup(request_release) = { 0 }, later cleanup(request_release) = { 0 };
	struct err e;
	assert_true(request_parse(j, &r, &e).ok);
	assert_true(request_parse(edited, &later, &e).ok);
	struct json *copy cleanup(json_freep) = request_spec_copy(&r);
	assert_true(request_obey_copy(&later, copy, &e).ok);
	assert_string_equal(later.key_algorithm, "ECDSA-P256");
	assert_true(later.approval_manual);
	static const char *const IGNORED[] = { "spec.authorities", "spec.newAuthority.secretRef", "spec.newAuthority.keyAlgorithm",
					       "spec.approval" };
	assert_int_equal(later.authorities, AUTHORITY_BIT(AUTHORITY_KUBERNETES));
	assert_null(later.authority_secret);
	assert_int_equal(later.ignored.n, ARRAY_LEN(IGNORED));
	for (size_t i = 0; i < ARRAY_LEN(IGNORED); i++)
		assert_string_equal(later.ignored.items[i], IGNORED[i]);
	assert_true(request_obey_copy(&r, copy, &e).ok);
	assert_int_equal(r.ignored.n, 0);
	struct json *nothing cleanup(json_freep) = json_object();
	assert_false(request_obey_copy(&later, nothing, &e).ok);
	static const char *const SPOILED[] = {
		"{\"keyAlgorithm\":\"RSA-512\",\"validityMs\":315360000000,\"leafValidityMs\":0}",
		"{\"keyAlgorithm\":\"RSA-2048\",\"validityMs\":0,\"leafValidityMs\":0}",
		"{\"keyAlgorithm\":\"RSA-2048\",\"validityMs\":315360000000,\"leafValidityMs\":-5}",
		"{\"keyAlgorithm\":\"RSA-2048\",\"validityMs\":315360000000}",
		"{\"authorities\":0,\"keyAlgorithm\":\"RSA-2048\",\"validityMs\":315360000000,\"leafValidityMs\":0}",
		"{\"authorities\":8,\"keyAlgorithm\":\"RSA-2048\",\"validityMs\":315360000000,\"leafValidityMs\":0}",
	};
	for (size_t i = 0; i < ARRAY_LEN(SPOILED); i++) {
		struct json *spoiled cleanup(json_freep) = parse(SPOILED[i]);
		assert_false(request_obey_copy(&later, spoiled, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
		assert_string_equal(later.key_algorithm, "ECDSA-P256");
	}
}

/* --- Status -------------------------------------------------------------------------------------------------------------------- */

struct scene {
	struct request request;
	struct world world;
	struct position position;
	struct status_input in;
};

static void scene_init(struct scene *s)
{
	memset(s, 0, sizeof *s);
	s->request = (struct request){ .name = str_dup("c"), .trigger = str_dup("q4"), .generation = 7, .max_workers = 1,
				       .restart_workloads = true, .pods_per_second = 10 };
	s->world = (struct world){ .now_ms = 1000000, .request = &s->request, .nodes_known = true,
				   .kubeadm_config = SEEN_YES };
	struct node_state *n = world_add_node(&s->world);
	n->name = str_dup("alpha");
	n->ready = n->control_plane = true;
	walk_locate(&s->world, &s->position);
	s->in = (struct status_input){ .world = &s->world, .position = &s->position, .request = &s->request,
				       .standing = STANDING_RUNS };
}

static void scene_release(struct scene *s)
{
	position_release(&s->position);
	world_release(&s->world);
	request_release(&s->request);
}

static void test_status_says_what_is_waited_for(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	struct json *status cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(status, "phase"), "Preparing");
	assert_string_equal(condition(status, "Ready", "status"), "False");
	assert_string_equal(condition(status, "Reconciling", "status"), "True");
	assert_null(condition(status, "Stalled", "status"));
	assert_string_equal(condition(status, "TrustDistributed", "status"), "False");
	assert_non_null(strstr(condition(status, "Ready", "message"), "alpha"));
	assert_string_equal(json_get_str(status, "waitingFor"), "alpha");
	json_each(c, json_get(status, "conditions"))
		assert_int_equal(json_get_int(c, "observedGeneration", 0), 7);
}

static void test_the_same_world_gives_the_same_status(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	struct json *first cleanup(json_freep) = status_make(&s.in);
	s.world.now_ms += 60000;
	s.in.previous = first;
	struct json *second cleanup(json_freep) = status_make(&s.in);
	struct status_event events[4];
	assert_false(status_differs(first, second));
	assert_int_equal(status_events(first, second, events, 4), 0);
	assert_int_equal(status_events(NULL, first, events, 4), 1);
	assert_string_equal(events[0].reason, "Preparing");
}

/* With a part unknown the walk stands at its beginning; that is no news for anybody. */
static void test_what_was_not_read_takes_nothing_back(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	s.world.run.exists = true;
	s.world.run.trigger = str_dup("q4");
	struct position there = { .step = walk_find("publish-new"), .phase = PHASE_PUBLISHING_NEW, .phase_done = { true, true, true } };
	s.in.position = &there;
	struct json *before cleanup(json_freep) = status_make(&s.in);
	struct status_event events[4];
	s.world.unread = "pods";
	s.request.generation = 8;
	position_release(&s.position);
	walk_locate(&s.world, &s.position);
	s.in.position = &s.position;
	s.in.previous = before;
	s.in.apply_error = "pods: GET /api/v1/pods: 500: InternalError";
	struct json *status cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(status, "phase"), "PublishingNew");
	assert_true(json_equal(json_get(before, "progress"), json_get(status, "progress")));
	assert_string_equal(condition(status, "LeavesReissued", "status"), "True");
	assert_string_equal(condition(status, "Reconciling", "status"), "True");
	assert_non_null(strstr(condition(status, "Ready", "message"), "pods to be read; last error: pods: GET"));
	assert_string_equal(json_get_str(status, "waitingFor"), "pods to be read");
	json_each(c, json_get(status, "conditions"))
		assert_int_equal(json_get_int(c, "observedGeneration", 0), 8);
	assert_int_equal(status_events(before, status, events, 4), 0);
	str_freep(&s.world.run.trigger); /* another run: of it nothing was said */
	s.world.run.trigger = str_dup("q5");
	struct json *other cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(other, "phase"), "Preparing");
}

/* The node program and the controller were killed: what the node had said is gone. */
static void test_a_node_that_is_asked_again_takes_nothing_back(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	s.world.run.exists = true;
	s.world.run.trigger = str_dup("q4");
	struct position there = { .step = walk_find("publish-new"), .phase = PHASE_PUBLISHING_NEW, .phase_done = { true, true, true } };
	s.in.position = &there;
	struct json *before cleanup(json_freep) = status_make(&s.in);
	s.in.position = &s.position;
	s.in.previous = before;
	assert_int_equal(s.position.step, walk_find("visit"));
	struct json *status cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(status, "phase"), "PublishingNew");
	assert_string_equal(condition(status, "LeavesReissued", "status"), "True");
	assert_string_equal(json_get_str(status, "waitingFor"), "alpha");
	assert_string_equal(condition(status, "Reconciling", "reason"), "VisitingNodes");
	s.request.paused = true; /* then it is not even asked */
	position_release(&s.position);
	walk_locate(&s.world, &s.position);
	struct json *paused cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(paused, "phase"), "PublishingNew");
	assert_string_equal(condition(paused, "Ready", "reason"), "Paused");
	s.world.run.back = true; /* that must be told */
	struct json *back cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(back, "phase"), "RollingBack");
	s.world.run.back = false;
	s.in.previous = NULL;
	struct json *fresh cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(fresh, "phase"), "Preparing");
}

/* What was said of another run, or before there was one, is not of this one, though neither has a trigger in status. */
static void test_what_is_over_says_nothing_of_what_begins(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	s.in.standing = STANDING_DONE;
	struct json *over cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(over, "phase"), "Completed");
	assert_null(json_get(over, "run"));
	s.in.standing = STANDING_RUNS;
	s.in.previous = over;
	s.in.position = &s.position;
	s.world.nodes[0].ready = false;
	position_release(&s.position);
	walk_locate(&s.world, &s.position);
	assert_string_equal(s.position.waits.reason, "NodeNotReady");
	struct json *down cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(down, "phase"), "Preparing");
	assert_string_equal(condition(down, "OldAuthorityDropped", "status"), "False");
	s.world.unread = "pods";
	struct json *unread cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(condition(unread, "Ready", "status"), "False");
}

static void hold_at(struct scene *s, const char *step, enum phase phase, const char *reason, bool unknown)
{
	position_release(&s->position);
	s->position = (struct position){ .step = walk_find(step), .phase = phase };
	for (size_t p = 0; p < phase; p++)
		s->position.phase_done[p] = true;
	s->position.waits.reason = reason;
	s->position.waits.unknown = unknown;
	buf_add_str(&s->position.waits.message, "something");
	s->in.position = &s->position;
}

/* A server that another leader has not asked yet, and one that was asked and refuses. */
static void test_what_is_not_seen_takes_nothing_back(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	s.world.run.exists = true;
	s.world.run.trigger = str_dup("q4");
	hold_at(&s, "publish-new", PHASE_PUBLISHING_NEW, "Publishing", false);
	struct json *before cleanup(json_freep) = status_make(&s.in);
	s.in.previous = before;
	hold_at(&s, "trust-both", PHASE_TRUSTING_BOTH, "WaitingForTrust", true);
	struct json *unseen cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(unseen, "phase"), "PublishingNew");
	assert_string_equal(condition(unseen, "LeavesReissued", "status"), "True");
	s.position.waits.unknown = false;
	struct json *seen cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(seen, "phase"), "TrustingBoth");
	assert_string_equal(condition(seen, "LeavesReissued", "status"), "False");
}

/* A new pod at the gate is looked at; what is asked of a person is said all the while, once. */
static void test_a_look_at_the_gate_is_no_news(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	struct status_event events[4];
	scene_init(&s);
	s.world.run.exists = true;
	s.world.run.trigger = str_dup("q4");
	s.world.run.authorities = AUTHORITY_BIT(AUTHORITY_ETCD);
	hold_at(&s, "approval", PHASE_AWAITING_APPROVAL, "AwaitingApproval", false);
	s.position.waits.stalled = true;
	struct json *before cleanup(json_freep) = status_make(&s.in);
	assert_non_null(json_get_str(before, "nextStep"));
	s.in.previous = before;
	hold_at(&s, "workloads", PHASE_RESTARTING_WORKLOADS, "LookingAtPods", true);
	struct json *look cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(look, "phase"), "AwaitingApproval");
	assert_string_equal(json_get_str(look, "nextStep"), json_get_str(before, "nextStep"));
	assert_string_equal(condition(look, "Stalled", "reason"), "AwaitingApproval");
	assert_string_equal(condition(look, "WorkloadsRestarted", "status"), "True");
	assert_int_equal(status_events(before, look, events, 4), 0);
	s.in.previous = look;
	hold_at(&s, "approval", PHASE_AWAITING_APPROVAL, "AwaitingApproval", false);
	s.position.waits.stalled = true;
	struct json *again cleanup(json_freep) = status_make(&s.in);
	assert_int_equal(status_events(look, again, events, 4), 0);
	s.in.previous = before;
	s.world.run.approved = true; /* then it is not asked any more */
	hold_at(&s, "workloads", PHASE_RESTARTING_WORKLOADS, "LookingAtPods", true);
	struct json *given cleanup(json_freep) = status_make(&s.in);
	assert_null(json_get_str(given, "nextStep"));
	assert_string_equal(condition(given, "Reconciling", "reason"), "LookingAtPods");
}

/* What a node that is down would show is not seen any more. */
static void test_a_node_that_is_down_takes_nothing_back(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	s.world.run.exists = true;
	s.world.run.trigger = str_dup("q4");
	struct position there = { .step = walk_find("publish-new"), .phase = PHASE_PUBLISHING_NEW, .phase_done = { true, true, true } };
	s.in.position = &there;
	struct json *before cleanup(json_freep) = status_make(&s.in);
	position_release(&s.position);
	s.position = (struct position){ .step = walk_find("trust-both"), .phase = PHASE_TRUSTING_BOTH, .phase_done = { true }, .held = true };
	s.position.waits.reason = "NodeNotReady";
	s.position.waits.stalled = true;
	strs_addf(&s.position.waits.names, "%s", "alpha");
	s.in.position = &s.position;
	s.in.previous = before;
	struct json *status cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(status, "phase"), "PublishingNew");
	assert_string_equal(json_get_str(status, "progressSummary"), json_get_str(before, "progressSummary"));
	assert_string_equal(condition(status, "LeavesReissued", "status"), "True");
	assert_string_equal(condition(status, "Stalled", "reason"), "NodeNotReady");
	assert_string_equal(condition(status, "TrustPublished", "message"), condition(status, "Stalled", "message"));
	assert_string_equal(json_get_str(status, "waitingFor"), "alpha");
	s.position.phase = PHASE_RESTARTING_WORKLOADS; /* what is further is told */
	s.position.phase_done[PHASE_PUBLISHING_NEW] = true;
	struct json *further cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(further, "phase"), "RestartingWorkloads");
	s.position.phase = PHASE_TRUSTING_BOTH;
	s.world.run.back = true;
	struct json *back cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(back, "phase"), "RollingBack");
}

static void test_a_node_down_is_stalled_with_its_name(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	struct json *before cleanup(json_freep) = status_make(&s.in);
	s.world.nodes[0].ready = false;
	position_release(&s.position);
	walk_locate(&s.world, &s.position);
	s.in.previous = before;
	struct json *status cleanup(json_freep) = status_make(&s.in);
	struct status_event events[4];
	assert_string_equal(condition(status, "Stalled", "reason"), "NodeNotReady");
	assert_null(condition(status, "Reconciling", "status"));
	const struct json *blocker = json_first(json_get(status, "blockers"));
	assert_string_equal(json_get_str(blocker, "object"), "Node/alpha");
	assert_int_equal(json_get_int(status, "blockersTotal", 0), 1);
	assert_int_equal(status_events(before, status, events, 4), 1);
	assert_true(events[0].warning);
}

static void test_done_is_ready_and_queued_is_not(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	s.in.standing = STANDING_DONE;
	struct json *done cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(done, "phase"), "Completed");
	assert_string_equal(condition(done, "Ready", "status"), "True");
	assert_null(condition(done, "Reconciling", "status"));
	assert_string_equal(condition(done, "OldAuthorityDropped", "status"), "True");
	s.in.standing = STANDING_QUEUED;
	s.in.detail = "other";
	struct json *queued cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(condition(queued, "Ready", "reason"), "Queued");
	assert_non_null(strstr(condition(queued, "Ready", "message"), "other"));
	s.in.standing = STANDING_INVALID;
	s.in.detail = "spec.strategy must be Bridge";
	struct json *invalid cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(condition(invalid, "Stalled", "reason"), "Invalid");
}

/* One text over the schema's limits, and the API server refuses the whole status. */
static void test_texts_keep_the_schema_s_limits(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	char text[3000];
	memset(text, 'x', sizeof text - 1);
	text[sizeof text - 1] = '\0';
	memcpy(text + 62, "\xC3\xA9", 2); /* across the limit of a code */
	scene_init(&s);
	node_add_blocker(&s.world.nodes[0], text, text, text);
	s.world.run.exists = true;
	s.world.run.trigger = str_dup("q4");
	s.world.run.id = str_dup("r");
	for (int i = 0; i < 150; i++)
		strs_add(&s.world.run.accepted, text);
	struct json *status cleanup(json_freep) = status_make(&s.in);
	const struct json *blocker = json_first(json_get(status, "blockers")), *accepted = json_get(status, "acceptedStragglers");
	assert_int_equal(strlen(json_get_str(blocker, "code")), 62);
	assert_in_range(strlen(json_get_str(blocker, "object")), 1, 1024);
	assert_in_range(strlen(json_get_str(blocker, "message")), 1, 4096);
	assert_int_equal(json_len(accepted), 100);
	assert_in_range(strlen(json_str(json_first(accepted))), 1, 384);
	s.in.standing = STANDING_INVALID;
	s.in.detail = text;
	struct json *invalid cleanup(json_freep) = status_make(&s.in);
	assert_in_range(strlen(json_get_str(invalid, "waitingFor")), 1, 1024);
}

static void test_bundles_that_keep_the_old_authority_are_stragglers(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	for (int i = 0; i < 120; i++) {
		struct bundle_keeper *k = world_add_keeper(&s.world);
		assert_int_equal(k != NULL, i < WORLD_LISTED_MAX);
		if (k)
			*k = (struct bundle_keeper){ str_dup("APIService/v1.a"), str_dup("renew its certificate") };
	}
	struct json *early cleanup(json_freep) = json_object(), *late cleanup(json_freep) = json_object();
	status_blockers(&s.world, PHASE_PUBLISHING_NEW, early);
	status_blockers(&s.world, PHASE_AWAITING_APPROVAL, late);
	assert_int_equal(json_get_int(early, "blockersTotal", -1), 0);
	assert_int_equal(json_get_int(late, "blockersTotal", 0), 120);
	assert_int_equal(json_len(json_get(late, "blockers")), 100);
	const struct json *first = json_first(json_get(late, "blockers"));
	assert_string_equal(json_get_str(first, "code"), "Straggler");
	assert_string_equal(json_get_str(first, "object"), "APIService/v1.a");
	assert_string_equal(json_get_str(first, "message"), "renew its certificate");
}

static void test_a_rollback_is_for_one_run_and_deleting_asks_for_it(void **state)
{
	(void)state;
	static const struct { const char *text; bool wanted; } cases[] = {
		{ "{\"metadata\":{\"name\":\"c\"},\"spec\":{\"trigger\":\"q4\",\"rollback\":{\"trigger\":\"q4\"}}}", true },
		{ "{\"metadata\":{\"name\":\"c\"},\"spec\":{\"trigger\":\"q4\",\"rollback\":{\"trigger\":\"q3\"}}}", false },
		{ "{\"metadata\":{\"name\":\"c\"},\"spec\":{\"trigger\":\"q4\",\"rollback\":{}}}", false },
		{ "{\"metadata\":{\"name\":\"c\"},\"spec\":{\"trigger\":\"q4\"}}", false },
		{ "{\"metadata\":{\"name\":\"c\",\"deletionTimestamp\":\"2026-01-01T00:00:00Z\"},\"spec\":{\"trigger\":\"q4\"}}", true },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json *j cleanup(json_freep) = parse(cases[i].text);
		struct request r cleanup(request_release) = { 0 };
		struct err e;
		assert_true(request_parse(j, &r, &e).ok);
		assert_int_equal(r.rollback, cases[i].wanted);
	}
}

static void test_the_way_back_is_told(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	struct json *before cleanup(json_freep) = status_make(&s.in);
	struct status_event events[4];
	s.world.run.exists = s.world.run.back = true;
	s.world.run.trigger = str_dup("q4");
	s.world.run.id = str_dup("r");
	s.in.previous = before;
	struct json *going cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(going, "phase"), "RollingBack");
	assert_string_equal(condition(going, "Ready", "status"), "False");
	assert_string_equal(condition(going, "TrustDistributed", "reason"), "RolledBack");
	assert_int_equal(status_events(before, going, events, 4), 1);
	assert_string_equal(events[0].reason, "RollingBack");
	s.in.standing = STANDING_ROLLED_BACK;
	struct json *gone cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(gone, "phase"), "RolledBack");
	assert_string_equal(condition(gone, "Ready", "status"), "False");
	assert_string_equal(condition(gone, "Stalled", "reason"), "RolledBack");
}

static void test_too_late_a_rollback_is_refused_aloud(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	s.request.rollback = true;
	s.position.phase = PHASE_DROPPING_OLD;
	struct json *before cleanup(json_freep) = status_make(&s.in);
	assert_null(condition(before, "RollbackRefused", "status"));
	s.world.run.exists = s.world.run.dropping = true;
	s.world.run.trigger = str_dup("q4");
	s.world.run.id = str_dup("r");
	struct json *status cleanup(json_freep) = status_make(&s.in);
	struct status_event events[4];
	assert_string_equal(condition(status, "RollbackRefused", "reason"), "DropHasBegun");
	assert_int_equal(status_events(before, status, events, 4), 1);
	assert_string_equal(events[0].reason, "RollbackRefused");
	assert_true(events[0].warning);
	assert_int_equal(status_events(status, status, events, 4), 0);
}

/* A node that joins while the old authority is dropped takes the earlier steps first. */
static void test_once_the_drop_has_begun_no_earlier_phase_is_told(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	s.world.run.exists = s.world.run.dropping = true;
	s.world.run.trigger = str_dup("q4");
	s.world.run.id = str_dup("r");
	assert_int_equal(s.position.phase, PHASE_PREPARING);
	struct json *status cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(status, "phase"), "DroppingOld");
	assert_string_equal(json_get_str(status, "waitingFor"), "alpha");
	assert_string_equal(condition(status, "TrustDistributed", "status"), "False");
	s.position.phase = PHASE_DROPPING_OLD; /* what was proven before stays, though another leader begins to look */
	s.position.phase_done[PHASE_TRUSTING_BOTH] = true;
	struct json *proven cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(condition(proven, "TrustDistributed", "status"), "True");
	s.position.phase = PHASE_PREPARING;
	s.position.phase_done[PHASE_TRUSTING_BOTH] = false;
	s.in.previous = proven;
	struct json *again cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(condition(again, "TrustDistributed", "status"), "True");
	assert_string_equal(condition(again, "LeavesReissued", "status"), "False");
}

static void start_run(struct scene *s)
{
	s->world.run.exists = true;
	s->world.run.trigger = str_dup("q4");
	s->world.run.id = str_dup("r");
	s->world.run.started_ms = s->world.now_ms;
}

/* Said with what is waited for, once; nothing else is different. */
static void test_a_deadline_is_told_and_that_is_all(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	start_run(&s);
	s.request.deadline_ms = 60000;
	struct json *before cleanup(json_freep) = status_make(&s.in);
	assert_null(condition(before, "DeadlineExceeded", "status"));
	assert_string_equal(json_str(json_at(before, "run", "deadline", NULL)), "1970-01-01T00:17:40Z");
	s.world.now_ms += 60000;
	s.in.previous = before;
	struct json *after cleanup(json_freep) = status_make(&s.in);
	struct status_event events[4];
	assert_string_equal(condition(after, "DeadlineExceeded", "status"), "True");
	assert_non_null(strstr(condition(after, "DeadlineExceeded", "message"), "1970-01-01T00:17:40Z"));
	assert_non_null(strstr(condition(after, "DeadlineExceeded", "message"), "alpha"));
	assert_int_equal(status_events(before, after, events, 4), 1);
	assert_string_equal(events[0].reason, "DeadlineExceeded");
	assert_true(events[0].warning);
	assert_int_equal(status_events(after, after, events, 4), 0);
	assert_true(status_deadline_passed(&s.world));
	s.request.deadline_ms = 0;
	struct json *without cleanup(json_freep) = status_make(&s.in);
	assert_int_equal(json_len(json_get(after, "conditions")), json_len(json_get(without, "conditions")) + 1);
	assert_string_equal(json_get_str(after, "phase"), json_get_str(without, "phase"));
	assert_string_equal(condition(after, "Ready", "message"), condition(without, "Ready", "message"));
	assert_null(condition(after, "Stalled", "status"));
	s.request.deadline_ms = 60000;
	s.world.run.exists = false; /* before the run has begun, and after its end */
	assert_false(status_deadline_passed(&s.world));
}

static void test_an_ignored_change_is_told_by_its_field(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	start_run(&s);
	struct json *before cleanup(json_freep) = status_make(&s.in);
	strs_add(&s.request.ignored, "spec.approval");
	strs_add(&s.request.ignored, "spec.leaves.validityPeriod");
	struct json *after cleanup(json_freep) = status_make(&s.in);
	struct status_event events[4];
	assert_null(condition(before, "ChangeIgnored", "status"));
	assert_string_equal(condition(after, "ChangeIgnored", "status"), "True");
	assert_non_null(strstr(condition(after, "ChangeIgnored", "message"), "spec.approval, spec.leaves.validityPeriod changed"));
	assert_int_equal(status_events(before, after, events, 4), 1);
	assert_string_equal(events[0].reason, "ChangeIgnored");
}

/* Where a yes is waited for, the command that gives it; where it would not be heard, none. */
static void test_the_next_step_names_the_kubeconfig(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	start_run(&s);
	struct json *part cleanup(json_freep) = parse("{\"secretRef\":{\"namespace\":\"ns\",\"name\":\"kubeconfig\"},\"authorities\":[\"a\",\"b\"]}");
	s.world.run.authorities = AUTHORITY_BIT(AUTHORITY_KUBERNETES);
	s.in.admin_kubeconfig = part;
	struct json *early cleanup(json_freep) = status_make(&s.in);
	assert_null(json_get(early, "nextStep"));
	assert_true(json_equal(json_get(early, "adminKubeconfig"), part));
	s.position.waits.reason = "AwaitingApproval";
	struct json *now cleanup(json_freep) = status_make(&s.in);
	const char *text = json_get_str(now, "nextStep");
	assert_non_null(text);
	assert_non_null(strstr(text, "kubectl get secret -n ns kubeconfig "));
	assert_non_null(strstr(text, "patch certrot c --type merge -p '{\"spec\":{\"approve\":{\"trigger\":\"q4\",\"phase\":\"DroppingOld\"}}}'"));
	s.in.admin_kubeconfig = NULL;
	struct json *unpublished cleanup(json_freep) = status_make(&s.in);
	assert_null(json_get(unpublished, "nextStep"));
	s.world.run.authorities = AUTHORITY_BIT(AUTHORITY_ETCD);
	struct json *anybody cleanup(json_freep) = status_make(&s.in);
	assert_string_equal(json_get_str(anybody, "nextStep"),
			    "kubectl patch certrot c --type merge -p '{\"spec\":{\"approve\":{\"trigger\":\"q4\",\"phase\":\"DroppingOld\"}}}'");
	s.in.admin_kubeconfig = part;
	s.position.held = true;
	struct json *held cleanup(json_freep) = status_make(&s.in);
	assert_null(json_get(held, "nextStep"));
	s.in.standing = STANDING_DONE;
	struct json *done cleanup(json_freep) = status_make(&s.in);
	assert_non_null(strstr(condition(done, "Ready", "message"), "ns/kubeconfig"));
}

/* The next run may begin in the same pass; that the one before has ended is told all the same, and once. */
static void test_an_end_is_told_though_the_next_run_begins(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	struct status_event events[8];
	scene_init(&s);
	s.world.run.exists = true;
	s.world.run.trigger = str_dup("q4");
	struct json *before cleanup(json_freep) = status_make(&s.in);
	struct json *closed cleanup(json_freep) = json_object();
	json_set_str(closed, "trigger", "q4");
	json_set_str(closed, "result", "Completed");
	s.world.run.exists = false;
	s.in.closed = closed;
	s.in.previous = before;
	struct json *next cleanup(json_freep) = status_make(&s.in);
	size_t n = status_events(before, next, events, 8);
	assert_int_equal(n, 1);
	assert_string_equal(events[0].reason, "Completed");
	assert_non_null(strstr(events[0].note, "\"q4\" has ended"));
	s.in.previous = next;
	struct json *later cleanup(json_freep) = status_make(&s.in);
	assert_int_equal(status_events(next, later, events, 8), 0);
}

static void test_history_keeps_five(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release);
	scene_init(&s);
	struct json *status = NULL;
	for (int i = 0; i < 8; i++) {
		char *trigger cleanup(str_freep) = str_printf("t%d", i);
		struct json *closed cleanup(json_freep) = json_object();
		json_set_str(closed, "trigger", trigger);
		s.in.closed = closed;
		s.in.previous = status;
		struct json *next = status_make(&s.in);
		json_freep(&status);
		status = next;
	}
	const struct json *history = json_get(status, "history");
	assert_int_equal(json_len(history), 5);
	assert_string_equal(json_get_str(json_index(history, 0), "trigger"), "t3");
	assert_string_equal(json_get_str(json_index(history, 4), "trigger"), "t7");
	json_freep(&status);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_requests_name_the_field),
		cmocka_unit_test(test_defaults_and_matching_triggers),
		cmocka_unit_test(test_an_approval_is_for_one_phase_of_one_run),
		cmocka_unit_test(test_durations),
		cmocka_unit_test(test_a_run_obeys_its_copy),
		cmocka_unit_test(test_status_says_what_is_waited_for),
		cmocka_unit_test(test_the_same_world_gives_the_same_status),
		cmocka_unit_test(test_what_was_not_read_takes_nothing_back),
		cmocka_unit_test(test_a_node_that_is_asked_again_takes_nothing_back),
		cmocka_unit_test(test_what_is_over_says_nothing_of_what_begins),
		cmocka_unit_test(test_what_is_not_seen_takes_nothing_back),
		cmocka_unit_test(test_a_look_at_the_gate_is_no_news),
		cmocka_unit_test(test_a_node_that_is_down_takes_nothing_back),
		cmocka_unit_test(test_a_node_down_is_stalled_with_its_name),
		cmocka_unit_test(test_done_is_ready_and_queued_is_not),
		cmocka_unit_test(test_texts_keep_the_schema_s_limits),
		cmocka_unit_test(test_bundles_that_keep_the_old_authority_are_stragglers),
		cmocka_unit_test(test_a_rollback_is_for_one_run_and_deleting_asks_for_it),
		cmocka_unit_test(test_the_way_back_is_told),
		cmocka_unit_test(test_too_late_a_rollback_is_refused_aloud),
		cmocka_unit_test(test_once_the_drop_has_begun_no_earlier_phase_is_told),
		cmocka_unit_test(test_a_deadline_is_told_and_that_is_all),
		cmocka_unit_test(test_an_ignored_change_is_told_by_its_field),
		cmocka_unit_test(test_the_next_step_names_the_kubeconfig),
		cmocka_unit_test(test_an_end_is_told_though_the_next_run_begins),
		cmocka_unit_test(test_history_keeps_five),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
