/* LINK: consumers kube node rotation */
/* What is read off Nodes, static Pods and the node program's Pods: versions, clocks, and which report counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../controller/consumers/nodes.c"

static struct json *parse(const char *text)
{
	struct json *j = NULL;
	struct err e = { 0 };
	if (!json_parse(text, strlen(text), &j, &e).ok)
		fail_msg("%s", e.message);
	return j;
}

static void test_tags_of_images(void **state)
{
	(void)state;
	static const struct { const char *image, *tag; } cases[] = {
		{ "registry.example/kube-apiserver:v1.34.4", "v1.34.4" },
		{ "registry.example:5000/a/kube-apiserver:v1.34.4", "v1.34.4" },
		{ "registry.example:5000/kube-apiserver", NULL },
		{ "kube-apiserver:v1.34.4@sha256:0123", "v1.34.4" },
		{ "registry.example/kube-apiserver@sha256:0123", NULL },
		{ "kube-apiserver", NULL }, { "", NULL }, { NULL, NULL },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *tag cleanup(str_freep) = image_tag(cases[i].image);
		if (!str_eq(tag, cases[i].tag) && (tag || cases[i].tag))
			fail_msg("%s: %s", cases[i].image, tag ? tag : "none");
	}
}

/* --- Clocks: the report is made after the Pod, and before the kubelet's last word on it ------------------------------------ */

#define AT(seconds) (INT64_C(1767323040000) + (seconds) * 1000) /* 2026-01-02T03:04:00Z */

static struct json *finished_pod(const char *created, const char *written, const char *manager)
{
	char *text cleanup(str_freep) = str_printf(
		"{\"metadata\":{\"creationTimestamp\":\"%s\",\"managedFields\":["
		"{\"manager\":\"certrotation\",\"time\":\"2026-01-02T03:00:00Z\"},"
		"{\"manager\":\"%s\",\"subresource\":\"status\",\"time\":\"%s\"}]}}", created, manager, written);
	return parse(text);
}

static void test_clocks_are_between_two_stamps(void **state)
{
	(void)state;
	struct json *pod cleanup(json_freep) = finished_pod("2026-01-02T03:04:00Z", "2026-01-02T03:04:10Z", "kubelet");
	static const int64_t skews[] = { 0, 3600000, -3600000, 61000, -61000 };
	for (size_t i = 0; i < ARRAY_LEN(skews); i++)
		for (int64_t made = 0; made <= 10; made += 5) { /* whenever in between it was made, the truth is within */
			struct node_state n = { .job_asked_ms = AT(0) };
			const struct report r = { .at_ms = AT(made) + skews[i] };
			compare_clocks(&n, pod, &r);
			assert_true(n.clock_known);
			assert_true(n.clock_least_ms <= skews[i] && skews[i] <= n.clock_most_ms);
			assert_true(n.clock_most_ms - n.clock_least_ms < 11000);
		}
}

static void test_clocks_without_both_stamps_are_unknown(void **state)
{
	(void)state;
	struct json *pod cleanup(json_freep) = finished_pod("2026-01-02T03:04:00Z", "2026-01-02T03:04:10Z", "somebody");
	struct node_state n = { .job_asked_ms = AT(0) };
	const struct report r = { .at_ms = AT(5) };
	compare_clocks(&n, pod, &r);
	assert_false(n.clock_known);
	struct json *good cleanup(json_freep) = finished_pod("2026-01-02T03:04:00Z", "2026-01-02T03:04:10Z", "kubelet");
	n.job_asked_ms = 0;
	compare_clocks(&n, good, &r);
	assert_false(n.clock_known);
}

/* --- Which report counts ------------------------------------------------------------------------------------------------------ */

struct scene {
	struct world world;
	struct observation o;
	struct node_report slot;
};

static void scene_release(struct scene *s)
{
	if (s->slot.has)
		report_release(&s->slot.report);
	world_release(&s->world);
}

/* The last report of node "a", with that error and that blocker. */
static void finish(struct scene *s, const char *phase, const char *run, const char *error, bool blocker)
{
	struct report r cleanup(report_release) = { .node = str_dup("a"), .run = str_dup("inventory"), .control_plane = true, .at_ms = AT(5),
						    .error = error ? str_dup(error) : NULL };
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct json *pod cleanup(json_freep) = parse("{\"metadata\":{\"creationTimestamp\":\"2026-01-02T03:04:00Z\"}}");
	struct json *status = json_ensure_object(pod, "status"), *container = json_object();
	if (blocker)
		report_add_blocker(&r, "NotKubeadm", "/etc/kubernetes/manifests/kube-scheduler.yaml", "put it back");
	report_to_json(&r, &text);
	json_set_str(json_ensure_object(json_ensure_object(pod, "metadata"), "labels"), LABEL_RUN, run);
	json_set_str(status, "phase", phase);
	json_set_str(json_ensure_object(json_ensure_object(container, "state"), "terminated"), "message", buf_str(&text));
	json_add(json_ensure_array(status, "containerStatuses"), container);
	s->o.world = &s->world;
	world_add_node(&s->world)->name = str_dup("a");
	job_finished(&s->o, &s->world.nodes[0], &s->slot, pod);
}

static void test_a_whole_inventory_counts(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release) = { 0 };
	finish(&s, "Succeeded", "inventory", NULL, false);
	assert_true(s.world.nodes[0].reported);
	assert_int_equal(s.world.nodes[0].manifests, SEEN_YES);
	assert_int_equal(s.world.nodes[0].job_asked_ms, AT(0));
	assert_null(s.world.nodes[0].job_problem);
}

/* The node program has not got to its end: nothing is known of that node, and no authority may be made. */
static void test_an_inventory_that_failed_is_none(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release) = { 0 };
	finish(&s, "Failed", "inventory", "reading ca.crt: Input/output error", false);
	assert_false(s.world.nodes[0].reported);
	assert_int_equal(s.world.nodes[0].manifests, SEEN_UNKNOWN);
	assert_int_equal(s.world.nodes[0].job_failures, 1);
	assert_non_null(strstr(s.world.nodes[0].job_problem, "Input/output error"));
}

static void test_a_blocker_needs_no_error(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release) = { 0 };
	finish(&s, "Succeeded", "inventory", NULL, true);
	assert_true(s.world.nodes[0].reported);
	assert_int_equal(s.world.nodes[0].n_blockers, 1);
	assert_null(s.world.nodes[0].job_problem);
}

static void test_a_report_of_another_run_is_none(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release) = { 0 };
	finish(&s, "Succeeded", "0123456789ab", NULL, true);
	assert_false(s.world.nodes[0].reported);
	assert_int_equal(s.world.nodes[0].n_blockers, 0);
}

/* Pods 2 (over) and 3 (under way) at the first reading; at the second one 3 is over too. What 2 said would have it made once more. */
static void test_a_job_that_ends_between_two_readings_still_runs(void **state)
{
	(void)state;
	struct scene s cleanup(scene_release) = { 0 };
	int newest_finished[] = { 2 }, newest_running[] = { 3 };
	struct json *pod cleanup(json_freep) = parse("{\"metadata\":{\"annotations\":{\"" ANNOTATION_NUMBER "\":\"3\"}},"
						     "\"status\":{\"phase\":\"Succeeded\"}}");
	s.o.world = &s.world;
	s.o.reports = &s.slot;
	world_add_node(&s.world)->name = str_dup("a");
	struct jobs j = { .o = &s.o, .newest_finished = newest_finished, .newest_running = newest_running };
	one_job(&j, 0, pod);
	assert_true(s.world.nodes[0].job_running);
	newest_finished[0] = 3;
	s.world.nodes[0].job_running = false;
	one_job(&j, 0, pod);
	assert_false(s.world.nodes[0].job_running);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tags_of_images),
		cmocka_unit_test(test_clocks_are_between_two_stamps),
		cmocka_unit_test(test_clocks_without_both_stamps_are_unknown),
		cmocka_unit_test(test_a_whole_inventory_counts),
		cmocka_unit_test(test_an_inventory_that_failed_is_none),
		cmocka_unit_test(test_a_blocker_needs_no_error),
		cmocka_unit_test(test_a_report_of_another_run_is_none),
		cmocka_unit_test(test_a_job_that_ends_between_two_readings_still_runs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
