/* LINK: node rotation */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "contract.h"

static void desired_survives_the_trip(void **state)
{
	(void)state;
	struct desired d = { .run = (char[]){ "r-1" }, .node = (char[]){ "n" }, .asked = AUTHORITY_KUBERNETES, .certify = true,
			     .of = { { true, (char[]){ "O\n" }, (char[]){ "N\n" }, (char[]){ "X\n" } },
				     { true, (char[]){ "P\n" }, (char[]){ "Q\n" }, NULL }, { true, (char[]){ "E\n" }, (char[]){ "F\n" }, NULL } },
			     .probe_csr_pem = (char[]){ "C" }, .leaf_validity_ms = 5, .deadline_ms = 7000, .pods = true };
	for (int f = 0; f < FACET_COUNT; f++)
		d.levels[f] = f == FACET_CLEAN ? FACET_UNTOUCHED : facet_top((enum facet)f);
	cleanup(json_freep) struct json *j = desired_to_json(&d);
	cleanup(str_freep) char *text = json_text(j);
	cleanup(desired_release) struct desired back = { 0 };
	struct err e;
	assert_true(desired_from_json(text, strlen(text), &back, &e).ok);
	assert_string_equal(back.run, "r-1");
	assert_string_equal(back.node, "n");
	for (int a = 0; a < AUTHORITY_COUNT; a++) {
		assert_true(back.of[a].wanted);
		assert_string_equal(back.of[a].old_pem, d.of[a].old_pem);
		assert_string_equal(back.of[a].new_pem, d.of[a].new_pem);
	}
	assert_string_equal(back.of[AUTHORITY_KUBERNETES].bridge_pem, "X\n");
	assert_null(back.of[AUTHORITY_ETCD].bridge_pem);
	assert_true(back.certify);
	assert_string_equal(back.probe_csr_pem, "C");
	assert_int_equal(back.leaf_validity_ms, 5);
	assert_int_equal(back.deadline_ms, 7000);
	assert_true(back.pods);
	for (int f = 0; f < FACET_COUNT; f++)
		assert_int_equal(back.levels[f], d.levels[f]);
}

static void an_empty_desired_touches_nothing(void **state)
{
	(void)state;
	cleanup(desired_release) struct desired d = { 0 };
	struct err e;
	const char *text = "{\"version\":2,\"node\":\"n\"}";
	assert_true(desired_from_json(text, strlen(text), &d, &e).ok);
	for (int f = 0; f < FACET_COUNT; f++)
		assert_int_equal(d.levels[f], FACET_UNTOUCHED);
	assert_null(d.run);
	assert_false(d.pods);
}

static void bad_desired_is_named(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "", "desired state" },
		{ "[]", "not a JSON object" },
		{ "{}", "version" },
		{ "{\"version\":1}", "version" },
		{ "{\"version\":2,\"levels\":{\"trust\":1}}", "needs `run`" },
		{ "{\"version\":2,\"run\":\"../x\"}", "DNS label" },
		{ "{\"version\":2,\"run\":\"-x\"}", "DNS label" },
		{ "{\"version\":2,\"run\":\"\"}", "DNS label" },
		{ "{\"version\":2,\"run\":\"r\",\"authorities\":{\"Kubernetes\":{\"old\":\"O\",\"new\":\"N\"}},\"levels\":{\"thrust\":1}}", "thrust" },
		{ "{\"version\":2,\"run\":\"r\",\"authorities\":{\"Kubernetes\":{\"old\":\"O\",\"new\":\"N\"}},\"levels\":{\"trust\":3}}", "0 to 2" },
		{ "{\"version\":2,\"run\":\"r\",\"authorities\":{\"Kubernetes\":{\"old\":\"O\",\"new\":\"N\"}},\"levels\":{\"trust\":-1}}", "0 to 2" },
		{ "{\"version\":2,\"run\":\"r\",\"authorities\":{\"Kubernetes\":{\"old\":\"O\",\"new\":\"N\"}},\"levels\":{\"trust\":\"1\"}}", "0 to 2" },
		{ "{\"version\":2,\"authority\":\"Etcd\"}", "Etcd" },
		{ "{\"version\":2,\"authority\":\"etcd\"}", "\"etcd\" is not known" },
		{ "{\"version\":2,\"authorities\":{\"Vault\":{}}}", "\"Vault\" is not known" },
		{ "{\"version\":2,\"authorities\":{\"Kubernetes\":1}}", "must be an object" },
		{ "{\"version\":2,\"run\":\"r\",\"authorities\":{\"Kubernetes\":{\"old\":\"O\",\"new\":\"N\"}},\"levels\":{\"etcdTrust\":2}}", "etcdTrust" },
		{ "{\"version\":2,\"run\":\"r\",\"authorities\":{\"Kubernetes\":{\"old\":\"O\",\"new\":\"N\"},\"Etcd\":{}},\"levels\":{\"clean\":1}}", "clean" },
		{ "{\"version\":2,\"run\":\"r\",\"authority\":\"Etcd\",\"authorities\":{\"Etcd\":{\"old\":\"O\",\"new\":\"N\"}},\"certify\":true,\"probeCSR\":\"x\"}", "Kubernetes only" },
		{ "{\"version\":2,\"deadlineMs\":-1}", "deadlineMs" },
		{ "{\"version\":2,\"leafValidityMs\":-1}", "leafValidityMs" },
		{ "{\"version\":2,\"probeCSR\":\"x\"}", "probeCSR" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct desired d = { 0 };
		struct err e = { 0 };
		assert_false(desired_from_json(cases[i].text, strlen(cases[i].text), &d, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
		assert_non_null(strstr(e.message, cases[i].says));
		assert_null(d.run);
	}
}

static void fill(struct report *r)
{
	r->node = str_dup("node-1");
	r->run = str_dup("run-1");
	r->control_plane = true;
	r->at_ms = 1764000000123;
	for (int f = 0; f < FACET_COUNT; f++)
		r->levels[f] = f % 2 ? FACET_UNKNOWN : f % (facet_top((enum facet)f) + 1);
	r->levels[FACET_KUBELET_SERVER] = FACET_ABSENT;
	r->started_ms[PROCESS_KUBELET] = 1763999999000;
	r->written_ms = 1763999998123;
	r->started_ms[PROCESS_ETCD] = 7;
	strs_add(&r->restarted, "kubelet");
	strs_add(&r->changed, "/etc/kubernetes/pki/ca.crt");
	r->admin_subject = str_dup("O=kubeadm:cluster-admins,CN=kubernetes-admin");
	r->bridge_pem = str_dup("-----BEGIN CERTIFICATE-----\nX\n-----END CERTIFICATE-----\n");
	r->probe_pem = str_dup("P");
	r->pods_total = 3;
	strs_add(&r->pods_old, "0123456789abc:0123456789ab");
	strs_add(&r->pods_old, "0123456789abc:0123456789ac");
	strs_add(&r->pods_stale, "0123456789abd");
	strs_add(&r->pods_mixed, "0123456789abe");
	report_add_blocker(r, "ExpiredCertificate", "/a", "expired %d days ago", 3);
	report_add_blocker(r, "ExpiredCertificate", "/a", "expired %d days ago", 3); /* said once */
	r->error = str_dup("no luck");
}

static void report_survives_the_trip(void **state)
{
	(void)state;
	cleanup(report_release) struct report r = { 0 }, back = { 0 };
	fill(&r);
	cleanup(buf_release) struct buf text = BUF_INIT;
	report_to_json(&r, &text);
	struct err e;
	assert_true(report_from_json(buf_str(&text), text.len, &back, &e).ok);
	assert_string_equal(back.node, "node-1");
	assert_string_equal(back.run, "run-1");
	assert_true(back.control_plane);
	assert_int_equal(back.at_ms, r.at_ms);
	for (int f = 0; f < FACET_COUNT; f++)
		assert_int_equal(back.levels[f], r.levels[f]);
	for (int p = 0; p < PROCESS_COUNT; p++)
		assert_int_equal(back.started_ms[p], r.started_ms[p]);
	assert_true(strs_has(&back.restarted, "kubelet"));
	assert_true(strs_has(&back.changed, "/etc/kubernetes/pki/ca.crt"));
	assert_string_equal(back.admin_subject, r.admin_subject);
	assert_string_equal(back.bridge_pem, r.bridge_pem);
	assert_string_equal(back.probe_pem, "P");
	assert_null(back.ca_pem);
	assert_int_equal(back.pods_total, 3);
	assert_int_equal(back.pods_old.n, 2);
	assert_string_equal(back.pods_old.items[1], "0123456789abc:0123456789ac");
	assert_int_equal(back.pods_stale.n, 1);
	assert_int_equal(back.pods_mixed.n, 1);
	assert_false(back.pods_cut);
	assert_int_equal(back.n_blockers, 1);
	assert_string_equal(back.blockers[0].message, "expired 3 days ago");
	assert_string_equal(back.error, "no luck");
}

static void grow(struct report *r, int pods)
{
	char pem[1301];
	memset(pem, 'A', sizeof pem - 1);
	pem[sizeof pem - 1] = 0;
	str_freep(&r->bridge_pem);
	str_freep(&r->probe_pem);
	r->bridge_pem = str_dup(pem);
	r->probe_pem = str_dup(pem);
	for (int i = 0; i < pods; i++) {
		strs_addf(&r->pods_old, "%013d:%012d", i, i);
		strs_addf(&r->pods_mixed, "%013d", i);
		strs_addf(&r->changed, "/etc/kubernetes/pki/file-%d", i);
		report_add_blocker(r, "UnknownFlag", "/etc/kubernetes/manifests/x.yaml", "flag %d \xc3\xa4\"\n\\", i);
	}
}

static void a_report_always_fits(void **state)
{
	(void)state;
	for (int pods = 0; pods < 300; pods += 7) {
		cleanup(report_release) struct report r = { 0 }, back = { 0 };
		fill(&r);
		grow(&r, pods);
		cleanup(buf_release) struct buf text = BUF_INIT;
		report_to_json(&r, &text);
		assert_true(text.len <= CONTRACT_REPORT_MAX);
		struct err e;
		assert_true(report_from_json(buf_str(&text), text.len, &back, &e).ok);
		assert_string_equal(back.bridge_pem, r.bridge_pem);
		assert_true(back.pods_cut || back.pods_old.n == r.pods_old.n);
		assert_true(back.pods_cut || back.pods_mixed.n == r.pods_mixed.n);
		assert_true(back.n_blockers == r.n_blockers ||
			    str_eq(back.blockers[back.n_blockers - 1].code, "More"));
	}
}

static void certificates_that_do_not_fit_are_said(void **state)
{
	(void)state;
	cleanup(report_release) struct report r = { 0 }, back = { 0 };
	r.bridge_pem = mem_alloc(5000);
	memset(r.bridge_pem, 'B', 4999);
	cleanup(buf_release) struct buf text = BUF_INIT;
	report_to_json(&r, &text);
	assert_true(text.len <= CONTRACT_REPORT_MAX);
	struct err e;
	assert_true(report_from_json(buf_str(&text), text.len, &back, &e).ok);
	assert_null(back.bridge_pem);
	assert_non_null(strstr(back.error, "do not fit"));
}

static void a_cut_message_is_still_utf8(void **state)
{
	(void)state;
	for (size_t pad = 0; pad < 4; pad++) {
		cleanup(report_release) struct report r = { 0 }, back = { 0 };
		cleanup(buf_release) struct buf error = BUF_INIT, text = BUF_INIT;
		for (size_t i = 0; i < pad; i++)
			buf_add_char(&error, 'x');
		for (int i = 0; i < 400; i++)
			buf_add_str(&error, "\xe2\x82\xac");
		r.error = str_dup(buf_str(&error));
		report_to_json(&r, &text);
		struct err e;
		assert_true(report_from_json(buf_str(&text), text.len, &back, &e).ok);
		assert_int_equal((strlen(back.error) - pad) % 3, 0);
	}
}

static void what_is_no_report_is_refused(void **state)
{
	(void)state;
	static const char *const texts[] = { "", "null", "{}", "{\"version\":2}", "{\"version\":1,\"levels\":{}}",
					     "{\"version\":2,\"levels\":[]}", "Error: no such image" };
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct report r = { 0 };
		struct err e = { 0 };
		assert_false(report_from_json(texts[i], strlen(texts[i]), &r, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
	}
}

static void a_missing_level_is_unknown(void **state)
{
	(void)state;
	cleanup(report_release) struct report r = { 0 };
	struct err e;
	const char *text = "{\"version\":2,\"authority\":\"Kubernetes\",\"levels\":{\"trust\":1}}";
	assert_true(report_from_json(text, strlen(text), &r, &e).ok);
	assert_int_equal(r.levels[FACET_TRUST], TRUST_BOTH);
	assert_int_equal(r.levels[FACET_SIGNER], FACET_UNKNOWN);
}

/* What needs escapes takes up to six bytes for one: it is counted as it is written. */
static void a_report_full_of_escapes_fits(void **state)
{
	(void)state;
	char text[512];
	memset(text, 1, sizeof text - 1);
	text[sizeof text - 1] = '\0';
	cleanup(report_release) struct report r = { .node = str_dup(text), .run = str_dup(text), .admin_subject = str_dup(text),
						    .error = str_dup(text) }, back = { 0 };
	for (int i = 0; i < 9; i++)
		strs_add(&r.restarted, text);
	for (int i = 0; i < 30; i++)
		report_add_blocker(&r, text, text, "%d%s", i, text);
	cleanup(buf_release) struct buf out = BUF_INIT;
	struct err e;
	report_to_json(&r, &out);
	assert_in_range(out.len, 1, CONTRACT_REPORT_MAX);
	assert_true(report_from_json(out.data, out.len, &back, &e).ok);
	assert_true(back.n_blockers > 0);
	assert_non_null(back.error);
	report_release(&back);
}

static void levels_that_are_none_are_unknown(void **state)
{
	(void)state;
	static const char *const LEVELS[] = { "3", "-2", "4294967297", "1e300", "\"1\"" };
	for (size_t i = 0; i < ARRAY_LEN(LEVELS); i++) {
		cleanup(str_freep) char *text = str_printf("{\"version\":2,\"authority\":\"Kubernetes\",\"levels\":{\"trust\":%s,\"signer\":9}}", LEVELS[i]);
		cleanup(report_release) struct report r = { 0 };
		struct err e;
		assert_true(report_from_json(text, strlen(text), &r, &e).ok);
		assert_int_equal(r.levels[FACET_TRUST], FACET_UNKNOWN);
		assert_int_equal(r.levels[FACET_SIGNER], FACET_ABSENT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(desired_survives_the_trip),
		cmocka_unit_test(an_empty_desired_touches_nothing),
		cmocka_unit_test(bad_desired_is_named),
		cmocka_unit_test(report_survives_the_trip),
		cmocka_unit_test(a_report_always_fits),
		cmocka_unit_test(certificates_that_do_not_fit_are_said),
		cmocka_unit_test(a_cut_message_is_still_utf8),
		cmocka_unit_test(what_is_no_report_is_refused),
		cmocka_unit_test(a_missing_level_is_unknown),
		cmocka_unit_test(a_report_full_of_escapes_fits),
		cmocka_unit_test(levels_that_are_none_are_unknown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
