/* LINK: rotation */
/* What is refused before anything is touched: that each obstacle is found, told with its code and object, shown as Stalled with one
 * Warning, and that nothing is planned; and what looks odd and is no obstacle. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "preflight.h"
#include "status.h"

#define NOW_MS 100000000

struct cluster {
	struct request request;
	struct world world;
};

static void add_node(struct world *w, const char *name, bool control_plane)
{
	struct node_state *n = world_add_node(w);
	n->name = str_dup(name);
	n->control_plane = control_plane;
	n->ready = n->reported = true;
	n->manifests = control_plane ? SEEN_YES : SEEN_NO;
	n->job_asked_ms = NOW_MS - 5000;
	n->ca_pem = str_dup("O");
	n->versions[COMPONENT_KUBELET] = str_dup("v1.34.4");
	for (size_t c = 0; control_plane && c < COMPONENT_KUBELET; c++)
		n->versions[c] = str_dup("v1.34.4");
	n->clock_known = true;
	n->clock_least_ms = -2000;
	n->clock_most_ms = 3000;
}

/* Two control planes, two workers, all inventories in: the next thing would be to make the authority. */
static void cluster_init(struct cluster *c)
{
	memset(c, 0, sizeof *c);
	c->request = (struct request){ .name = (char *)"cluster", .trigger = (char *)"t", .max_workers = 1, .pods_per_second = 10,
				       .restart_workloads = true };
	c->world = (struct world){ .now_ms = NOW_MS, .request = &c->request, .pending = AUTHORITY_BIT(AUTHORITY_KUBERNETES), .nodes_known = true, .kubeadm_config = SEEN_YES,
				   .kubeadm_certs = SEEN_YES };
	add_node(&c->world, "cp-1", true);
	add_node(&c->world, "cp-2", true);
	add_node(&c->world, "w-1", false);
	add_node(&c->world, "w-2", false);
}

static void cluster_release(struct cluster *c)
{
	world_release(&c->world);
}

static void set_version(struct cluster *c, size_t node, enum component component, const char *version)
{
	str_freep(&c->world.nodes[node].versions[component]);
	c->world.nodes[node].versions[component] = version ? str_dup(version) : NULL;
}

static const struct json *blocker_of(const struct json *status, const char *code, const char *object)
{
	json_each(b, json_get(status, "blockers"))
		if (str_eq(json_get_str(b, "code"), code) && str_eq(json_get_str(b, "object"), object))
			return b;
	return NULL;
}

static const struct json *condition(const struct json *status, const char *type)
{
	json_each(c, json_get(status, "conditions"))
		if (str_eq(json_get_str(c, "type"), type))
			return c;
	return NULL;
}

static struct json *status_of(const struct cluster *c, const struct position *p, const struct json *previous)
{
	const struct status_input in = { .world = &c->world, .position = p, .request = &c->request, .standing = STANDING_RUNS,
					 .previous = previous };
	return status_make(&in);
}

static void assert_no_plan(const struct cluster *c, const struct position *p)
{
	struct plan plan cleanup(plan_release) = { 0 };
	walk_plan(&c->world, p, &plan);
	if (plan.n)
		fail_msg("%s is planned", action_name(plan.actions[0].kind));
	assert_true(plan.look_again_ms > 0);
}

/* Held and Stalled, with the blocker and one Warning, and not a single action. */
static void assert_refused(const struct cluster *c, const char *code, const char *object, const char *advice)
{
	struct position p cleanup(position_release) = { 0 };
	struct status_event events[8];
	walk_locate(&c->world, &p);
	assert_true(p.held);
	assert_no_plan(c, &p);
	struct json *status cleanup(json_freep) = status_of(c, &p, NULL);
	const struct json *b = blocker_of(status, code, object);
	if (!b)
		fail_msg("no %s of %s: %s", code, object, json_str_or(json_get(condition(status, "Ready"), "message"), ""));
	if (!strstr(json_str_or(json_get(b, "message"), ""), advice))
		fail_msg("\"%s\" does not say \"%s\"", json_get_str(b, "message"), advice);
	assert_string_equal(json_get_str(condition(status, "Stalled"), "status"), "True");
	assert_string_equal(json_get_str(status, "phase"), "Preparing");
	size_t n = status_events(NULL, status, events, ARRAY_LEN(events)), warnings = 0;
	for (size_t i = 0; i < n; i++)
		warnings += events[i].warning && str_eq(events[i].reason, code) && str_starts(events[i].note, object);
	assert_int_equal(warnings, 1);
	assert_int_equal(status_events(status, status, events, ARRAY_LEN(events)), 0);
}

static void assert_accepted(const struct cluster *c)
{
	struct position p cleanup(position_release) = { 0 };
	struct plan plan cleanup(plan_release) = { 0 };
	struct obstacles o cleanup(obstacles_release) = { 0 };
	preflight_look(&c->world, &o);
	if (o.n)
		fail_msg("%s: %s: %s", o.items[0].code, o.items[0].object, o.items[0].message);
	walk_locate(&c->world, &p);
	assert_false(p.held);
	walk_plan(&c->world, &p, &plan);
	assert_int_equal(plan.n, 1);
	assert_int_equal(plan.actions[0].kind, ACT_CREATE_AUTHORITY);
}

/* --- kubeadm -------------------------------------------------------------------------------------------------------------- */

static void test_a_cluster_in_order(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	cluster_init(&c);
	assert_accepted(&c);
}

static void test_no_kubeadm_config(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	cluster_init(&c);
	c.world.kubeadm_config = SEEN_NO;
	for (size_t i = 0; i < c.world.n_nodes; i++)
		c.world.nodes[i].reported = false; /* no program of ours runs there either */
	assert_refused(&c, "NotKubeadm", "ConfigMap/kube-system/kubeadm-config", "kubeadm init phase upload-config");
	c.world.run.exists = true; /* taken away in the middle: the run goes on */
	struct obstacles o cleanup(obstacles_release) = { 0 };
	preflight_look(&c.world, &o);
	assert_int_equal(o.n, 0);
}

/* A read error is never "it is there", nor "it is not". */
static void test_an_unread_kubeadm_config(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	struct position p cleanup(position_release) = { 0 };
	cluster_init(&c);
	c.world.kubeadm_config = SEEN_UNKNOWN;
	walk_locate(&c.world, &p);
	assert_true(p.held);
	assert_false(p.waits.stalled);
	assert_no_plan(&c, &p);
}

/* Of what could not be read the walk knows nothing, and would begin again what it has done. What a person asks for is kept all the same. */
static void test_what_was_not_read_begins_nothing(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	struct position p cleanup(position_release) = { 0 }, later cleanup(position_release) = { 0 };
	struct plan plan cleanup(plan_release) = { 0 };
	cluster_init(&c);
	c.world.unread = "pods";
	walk_locate(&c.world, &p);
	assert_true(p.held);
	assert_false(p.waits.stalled);
	assert_string_equal(p.waits.reason, "Reading");
	assert_string_equal(buf_str(&p.waits.message), "pods to be read");
	assert_no_plan(&c, &p);
	c.world.run.exists = c.request.rollback = true;
	walk_locate(&c.world, &later);
	walk_plan(&c.world, &later, &plan);
	assert_int_equal(plan.n, 1);
	assert_int_equal(plan.actions[0].kind, ACT_LATCH);
	assert_int_equal(plan.actions[0].level, LATCH_ROLLBACK);
}

static void test_control_planes_without_label(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	cluster_init(&c);
	c.world.nodes[1].control_plane = false;
	assert_refused(&c, "ControlPlaneLabel", "Node/cp-2", "kubectl label node cp-2 node-role.kubernetes.io/control-plane=");
	c.world.nodes[0].control_plane = false;
	assert_refused(&c, "NotKubeadm", "Nodes", "kubectl label node NAME");
}

static void test_control_planes_without_manifests(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	cluster_init(&c);
	c.world.nodes[0].manifests = SEEN_NO;
	assert_refused(&c, "NotKubeadm", "Node/cp-1", "kubectl label node cp-1");
	c.world.nodes[0].manifests = SEEN_UNKNOWN;
	assert_accepted(&c);
}

/* --- Nodes ---------------------------------------------------------------------------------------------------------------- */

static void test_a_node_that_is_not_ready(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	struct position p cleanup(position_release) = { 0 };
	cluster_init(&c);
	c.world.nodes[3].ready = false;
	walk_locate(&c.world, &p);
	assert_no_plan(&c, &p);
	struct json *status cleanup(json_freep) = status_of(&c, &p, NULL);
	assert_non_null(blocker_of(status, "NodeNotReady", "Node/w-2"));
	assert_string_equal(json_get_str(condition(status, "Stalled"), "reason"), "NodeNotReady");
}

static void test_what_a_node_says_blocks(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	cluster_init(&c);
	node_add_blocker(&c.world.nodes[0], "CAKeyMissing", "/etc/kubernetes/pki/ca.key", "copy it here");
	struct position p cleanup(position_release) = { 0 };
	walk_locate(&c.world, &p);
	assert_no_plan(&c, &p);
	struct json *status cleanup(json_freep) = status_of(&c, &p, NULL);
	assert_non_null(blocker_of(status, "CAKeyMissing", "Node/cp-1:/etc/kubernetes/pki/ca.key"));
	assert_string_equal(json_get_str(condition(status, "Stalled"), "reason"), "Blocked");
	assert_non_null(strstr(json_get_str(condition(status, "Stalled"), "message"), "CAKeyMissing: Node/cp-1:/etc"));

	/* another one, while the first is there: a change, and said; one fewer is none */
	node_add_blocker(&c.world.nodes[1], "ExpiredCertificate", "/etc/kubernetes/admin.conf", "renew it");
	struct position q cleanup(position_release) = { 0 };
	struct status_event events[8];
	walk_locate(&c.world, &q);
	struct json *second cleanup(json_freep) = status_of(&c, &q, status);
	assert_int_equal(status_events(status, second, events, ARRAY_LEN(events)), 1);
	assert_true(events[0].warning);
	assert_string_equal(events[0].reason, "ExpiredCertificate");
	assert_non_null(strstr(events[0].note, "Node/cp-2:/etc/kubernetes/admin.conf: renew it"));
	assert_int_equal(status_events(second, status, events, ARRAY_LEN(events)), 0);
}

/* What a person may have repaired is looked at again, and nothing more than looked at. */
static void test_a_node_that_blocks_is_looked_at_again(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	struct position p cleanup(position_release) = { 0 };
	struct plan plan cleanup(plan_release) = { 0 };
	cluster_init(&c);
	node_add_blocker(&c.world.nodes[1], "CAKeyMissing", "/etc/kubernetes/pki/ca.key", "copy it here");
	for (size_t i = 0; i < c.world.n_nodes; i++)
		c.world.nodes[i].job_asked_ms = NOW_MS - 60000;
	walk_locate(&c.world, &p);
	walk_plan(&c.world, &p, &plan);
	assert_int_equal(plan.n, 1);
	assert_int_equal(plan.actions[0].kind, ACT_NODE);
	assert_ptr_equal(plan.actions[0].node, &c.world.nodes[1]);
	assert_false(plan.actions[0].certify || plan.actions[0].needs_key);
	for (size_t f = 0; f < FACET_COUNT; f++)
		assert_int_equal(plan.actions[0].levels[f], FACET_UNTOUCHED_LEVEL);
	c.request.paused = true;
	position_release(&p);
	walk_locate(&c.world, &p);
	assert_no_plan(&c, &p);
}

/* An inventory from long ago is made anew before anything rests on it; within a run, reports stand. */
static void test_an_old_inventory_is_none(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	struct position p cleanup(position_release) = { 0 };
	struct plan plan cleanup(plan_release) = { 0 };
	cluster_init(&c);
	c.world.nodes[2].job_asked_ms = NOW_MS - 11 * 60000;
	walk_locate(&c.world, &p);
	assert_string_equal(walk_step(p.step)->name, "visit");
	walk_plan(&c.world, &p, &plan);
	assert_int_equal(plan.n, 1);
	assert_ptr_equal(plan.actions[0].node, &c.world.nodes[2]);
	c.world.run.exists = true;
	c.world.run.authorities = c.world.pending;
	c.world.run.of[AUTHORITY_KUBERNETES].secret = str_dup("s");
	position_release(&p);
	walk_locate(&c.world, &p);
	assert_string_equal(walk_step(p.step)->name, "bridge");
}

static void test_nodes_with_different_authorities(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	cluster_init(&c);
	str_freep(&c.world.nodes[2].ca_pem);
	c.world.nodes[2].ca_pem = str_dup("P");
	assert_refused(&c, "DifferentAuthorities", "Node/w-1", "cp-1");
}

/* --- Clocks --------------------------------------------------------------------------------------------------------------- */

static void test_clocks(void **state)
{
	(void)state;
	static const struct { int64_t least_a, most_a, least_b, most_b; bool refused; } cases[] = {
		{ 61001, 65000, -2000, 1000, true },    /* proven: 60.001 s at least */
		{ 61000, 65000, -2000, 1000, false },   /* a minute, and not more */
		{ -1000, 1000, -90000, -61001, true },  /* behind */
		{ 31000, 33000, -33000, -31000, true }, /* one ahead, one behind, neither by a minute */
		{ -3600000, 3600000, -3600000, 3600000, false }, /* nothing proven: slow starts are no skew */
		{ 3600000, 3605000, 3600000, 3605000, false },   /* all alike: who is right is not for us to say */
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct cluster c cleanup(cluster_release);
		cluster_init(&c);
		for (size_t k = 0; k < c.world.n_nodes; k++) {
			struct node_state *n = &c.world.nodes[k];
			n->clock_known = k == 1 || k == 2;
			n->clock_least_ms = k == 1 ? cases[i].least_a : cases[i].least_b;
			n->clock_most_ms = k == 1 ? cases[i].most_a : cases[i].most_b;
		}
		if (cases[i].refused) {
			assert_refused(&c, "ClockSkew", "Node/cp-2", "ahead of node w-1");
			assert_refused(&c, "ClockSkew", "Node/w-1", "behind node cp-2");
		} else {
			assert_accepted(&c);
		}
	}
}

static void test_an_unknown_clock_is_no_skew(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	cluster_init(&c);
	c.world.nodes[1].clock_known = false;
	c.world.nodes[1].clock_least_ms = 99999999;
	assert_accepted(&c);
}

/* --- Versions ------------------------------------------------------------------------------------------------------------- */

static void test_minors(void **state)
{
	(void)state;
	static const struct { const char *text; int minor; } cases[] = {
		{ "v1.34.4", 1034 }, { "v1.9.0", 1009 }, { "v1.34.4-eks-1", 1034 }, { "v1.34.0-rc.1+abc", 1034 }, { "v2.0.0", 2000 },
		{ NULL, -1 }, { "", -1 }, { "latest", -1 }, { "1.34.4", -1 }, { "v1", -1 }, { "v1.", -1 }, { "v1.x", -1 }, { "v.1", -1 },
		{ "v1.-3", -1 }, { "v99999999999999999999.1", -1 },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_int_equal(preflight_minor(cases[i].text), cases[i].minor);
}

static void test_upgrades_under_way(void **state)
{
	(void)state;
	static const struct { size_t node; enum component component; const char *version, *object, *advice; } cases[] = {
		{ 1, COMPONENT_APISERVER, "v1.35.0", "Node/cp-2", "kube-apiserver is v1.35.0" },
		{ 1, COMPONENT_APISERVER, "v1.33.9", "Node/cp-2", "kube-apiserver is v1.33.9" },
		{ 0, COMPONENT_CONTROLLER_MANAGER, "v1.33.9", "Node/cp-1", "kube-controller-manager is v1.33.9" },
		{ 1, COMPONENT_SCHEDULER, "v1.33.9", "Node/cp-2", "finish the upgrade" },
		{ 1, COMPONENT_KUBELET, "v1.33.9", "Node/cp-2", "kubelet is v1.33.9" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct cluster c cleanup(cluster_release);
		cluster_init(&c);
		set_version(&c, cases[i].node, cases[i].component, cases[i].version);
		assert_refused(&c, "UpgradeInProgress", cases[i].object, cases[i].advice);
		c.world.run.exists = true; /* in the middle of a run too */
		assert_refused(&c, "UpgradeInProgress", cases[i].object, cases[i].advice);
	}
}

static void test_a_kubelet_newer_than_its_api_server(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	cluster_init(&c);
	set_version(&c, 3, COMPONENT_KUBELET, "v1.35.0");
	assert_refused(&c, "KubeletTooNew", "Node/w-2", "older kubelet");
}

/* Patch levels, workers that lag behind, and versions that nobody can read off an image are everyday. */
static void test_versions_that_are_fine(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	cluster_init(&c);
	set_version(&c, 1, COMPONENT_APISERVER, "v1.34.9");
	set_version(&c, 0, COMPONENT_KUBELET, "v1.34.0");
	set_version(&c, 2, COMPONENT_KUBELET, "v1.31.0");
	set_version(&c, 0, COMPONENT_SCHEDULER, "our-build-7");
	set_version(&c, 1, COMPONENT_CONTROLLER_MANAGER, NULL);
	assert_accepted(&c);
	for (size_t i = 0; i < 2; i++)
		for (size_t k = 0; k < COMPONENT_COUNT; k++)
			set_version(&c, i, (enum component)k, NULL);
	assert_accepted(&c);
}

/* --- Names ---------------------------------------------------------------------------------------------------------------- */

/* Lease holders carry host names; a node may be called something else, with or without a label that says so. */
static void test_node_names_that_are_not_host_names(void **state)
{
	(void)state;
	struct cluster c cleanup(cluster_release);
	cluster_init(&c);
	for (size_t i = 0; i < c.world.n_nodes; i++)
		c.world.nodes[i].hostname = str_printf("ip-10-0-0-%zu", i);
	c.world.controller_manager = (struct lease_state){ .known = true, .exists = true, .holder = str_dup("ip-10-0-0-1_b2c"), .acquired_ms = 5 };
	assert_accepted(&c);
	str_freep(&c.world.controller_manager.holder);
	c.world.controller_manager.holder = str_dup("elsewhere.example.org_b2c");
	assert_accepted(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_cluster_in_order),
		cmocka_unit_test(test_no_kubeadm_config),
		cmocka_unit_test(test_an_unread_kubeadm_config),
		cmocka_unit_test(test_what_was_not_read_begins_nothing),
		cmocka_unit_test(test_control_planes_without_label),
		cmocka_unit_test(test_control_planes_without_manifests),
		cmocka_unit_test(test_a_node_that_is_not_ready),
		cmocka_unit_test(test_what_a_node_says_blocks),
		cmocka_unit_test(test_a_node_that_blocks_is_looked_at_again),
		cmocka_unit_test(test_an_old_inventory_is_none),
		cmocka_unit_test(test_nodes_with_different_authorities),
		cmocka_unit_test(test_clocks),
		cmocka_unit_test(test_an_unknown_clock_is_no_skew),
		cmocka_unit_test(test_minors),
		cmocka_unit_test(test_upgrades_under_way),
		cmocka_unit_test(test_a_kubelet_newer_than_its_api_server),
		cmocka_unit_test(test_versions_that_are_fine),
		cmocka_unit_test(test_node_names_that_are_not_host_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
