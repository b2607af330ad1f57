/* LINK: kube */
#include "metrics.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char *printed(const struct metrics *m)
{
	struct buf out = BUF_INIT;
	metrics_print(m, &out);
	return buf_take(&out);
}

/* --- A strict reader of the format -------------------------------------------------------------------------------- */

struct reader {
	const char *at;
	char family[100];       /* of the last HELP */
	struct strs families, series;
	size_t samples;
};

static void reader_release(struct reader *r)
{
	strs_release(&r->families);
	strs_release(&r->series);
}

static void expect(struct reader *r, const char *text)
{
	if (!str_starts(r->at, text))
		fail_msg("expected \"%s\" at \"%.60s\"", text, r->at);
	r->at += strlen(text);
}

static size_t name_len(const char *s)
{
	static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:";
	size_t n = strspn(s, first) ? strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:0123456789") : 0;
	assert_true(n > 0);
	return n;
}

static void read_help(struct reader *r)
{
	expect(r, "# HELP ");
	size_t n = name_len(r->at);
	assert_true(n < sizeof(r->family));
	str_copy(r->family, n + 1, r->at);
	assert_false(strs_has(&r->families, r->family)); /* once, and its samples together */
	strs_add(&r->families, r->family);
	r->at += n;
	expect(r, " ");
	for (; *r->at != '\n'; r->at++) {
		assert_true(*r->at);
		if (*r->at == '\\')
			assert_true(*++r->at == '\\' || *r->at == 'n');
	}
	expect(r, "\n# TYPE ");
	expect(r, r->family);
	assert_true(str_starts(r->at, " counter\n") || str_starts(r->at, " gauge\n"));
	r->at = strchr(r->at, '\n') + 1;
}

static void read_label(struct reader *r)
{
	size_t n = name_len(r->at);
	assert_null(memchr(r->at, ':', n));
	r->at += n;
	expect(r, "=\"");
	for (; *r->at != '"'; r->at++) {
		assert_true(*r->at && *r->at != '\n');
		if (*r->at == '\\')
			assert_true(*++r->at == '\\' || *r->at == 'n' || *r->at == '"');
	}
	expect(r, "\"");
}

static void read_sample(struct reader *r)
{
	const char *begin = r->at;
	char *end = NULL;
	expect(r, r->family);
	if (*r->at == '{') {
		do {
			r->at++;
			read_label(r);
		} while (*r->at == ',');
		expect(r, "}");
	}
	char *series cleanup(str_freep) = str_ndup(begin, (size_t)(r->at - begin));
	assert_false(strs_has(&r->series, series));
	strs_add(&r->series, series);
	expect(r, " ");
	(void)strtod(r->at, &end);
	assert_true(end > r->at);
	r->at = end;
	expect(r, "\n");
	r->samples++;
}

/* Number of samples; fails on anything that is not the format. */
static size_t samples_of(const char *text)
{
	struct reader r cleanup(reader_release) = { .at = text };
	while (*r.at) {
		if (*r.at == '#')
			read_help(&r);
		else
			read_sample(&r);
	}
	return r.samples;
}

/* --- Tests --------------------------------------------------------------------------------------------------------- */

static void nothing_is_nothing(void **state UNUSED)
{
	struct metrics m cleanup(metrics_release) = { 0 };
	metrics_sample(&m, 1, NULL);
	metrics_family(&m, "a", METRIC_GAUGE, "no sample");
	char *text cleanup(str_freep) = printed(&m);
	assert_string_equal(text, "");
}

static void families_come_once_and_together(void **state UNUSED)
{
	struct metrics m cleanup(metrics_release) = { 0 };
	metrics_family(&m, "certrotation_watch_events_total", METRIC_COUNTER, "Events seen.");
	metrics_sample(&m, 3, "target", "pods", NULL);
	metrics_single(&m, "certrotation_leader", METRIC_GAUGE, "1 when leading.", 1);
	metrics_family(&m, "certrotation_watch_events_total", METRIC_GAUGE, "Something else.");
	metrics_sample(&m, 4, "target", "nodes", NULL);
	metrics_sample(&m, 5, "target", "pods", NULL);
	char *text cleanup(str_freep) = printed(&m);
	assert_string_equal(text, "# HELP certrotation_watch_events_total Events seen.\n"
				  "# TYPE certrotation_watch_events_total counter\n"
				  "certrotation_watch_events_total{target=\"pods\"} 5\n"
				  "certrotation_watch_events_total{target=\"nodes\"} 4\n"
				  "# HELP certrotation_leader 1 when leading.\n"
				  "# TYPE certrotation_leader gauge\n"
				  "certrotation_leader 1\n");
	assert_int_equal(samples_of(text), 3);
}

static void texts_are_escaped(void **state UNUSED)
{
	struct metrics m cleanup(metrics_release) = { 0 };
	metrics_family(&m, "a", METRIC_GAUGE, "two\nlines, \\ and \"");
	metrics_sample(&m, 1, "x", "q\"b\\n\nend", "y", "", "z", (const char *)NULL, NULL);
	char *text cleanup(str_freep) = printed(&m);
	assert_string_equal(text, "# HELP a two\\nlines, \\\\ and \"\n# TYPE a gauge\n"
				  "a{x=\"q\\\"b\\\\n\\nend\",y=\"\",z=\"\"} 1\n");
	samples_of(text);
}

static void names_are_made_valid(void **state UNUSED)
{
	struct metrics m cleanup(metrics_release) = { 0 };
	metrics_family(&m, "0a-b:c", METRIC_GAUGE, "");
	metrics_sample(&m, 1, "", "a", "1x", "b", "k8s.io/x:y", "c", NULL);
	char *text cleanup(str_freep) = printed(&m);
	assert_non_null(strstr(text, "\n_0a_b:c{_=\"a\",_1x=\"b\",k8s_io_x_y=\"c\"} 1\n"));
	samples_of(text);
}

static void what_is_not_utf8_is_replaced(void **state UNUSED)
{
	static const struct { const char *in, *out; } cases[] = {
		{ "gr\xC3\xBC\xC3\x9F", "gr\xC3\xBC\xC3\x9F" },
		{ "\xF0\x9F\x94\x91", "\xF0\x9F\x94\x91" },
		{ "\xC3", "\xEF\xBF\xBD" },
		{ "\xC3(", "\xEF\xBF\xBD(" },
		{ "\xC0\xAF", "\xEF\xBF\xBD\xEF\xBF\xBD" },                    /* overlong */
		{ "\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },    /* a surrogate */
		{ "\xF4\x90\x80\x80x", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDx" },
		{ "\xE2\x82", "\xEF\xBF\xBD\xEF\xBF\xBD" },
		{ "\xF0\x9F\x94", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct metrics m cleanup(metrics_release) = { 0 };
		metrics_family(&m, "a", METRIC_GAUGE, "");
		metrics_sample(&m, 1, "x", cases[i].in, NULL);
		char *text cleanup(str_freep) = printed(&m);
		char *want cleanup(str_freep) = str_printf("# HELP a \n# TYPE a gauge\na{x=\"%s\"} 1\n", cases[i].out);
		assert_string_equal(text, want);
	}
}

static void numbers_are_short_and_exact(void **state UNUSED)
{
	static const struct { double value; const char *text; } cases[] = {
		{ 0, "0" }, { -1, "-1" }, { 0.1, "0.1" }, { 1.0 / 3, "0.3333333333333333" },
		{ 9007199254740991, "9007199254740991" }, { 1e300, "1e+300" }, { 1767225600.123, "1767225600.123" },
		{ (double)NAN, "NaN" }, { (double)INFINITY, "+Inf" }, { -(double)INFINITY, "-Inf" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct metrics m cleanup(metrics_release) = { 0 };
		metrics_single(&m, "a", METRIC_GAUGE, "", cases[i].value);
		char *text cleanup(str_freep) = printed(&m);
		char *want cleanup(str_freep) = str_printf("\na %s\n", cases[i].text);
		assert_true(str_ends(text, want));
	}
}

static void random_input_is_valid_output(void **state UNUSED)
{
	unsigned seed = 7;
	struct metrics m cleanup(metrics_release) = { 0 };
	for (int i = 0; i < 2000; i++) {
		char texts[4][9] = { "" };
		for (int t = 0; t < 4; t++)
			for (int j = 0, n = rand_r(&seed) % 8; j < n; j++)
				texts[t][j] = (char)(1 + rand_r(&seed) % 255);
		metrics_family(&m, texts[0], rand_r(&seed) % 2 ? METRIC_COUNTER : METRIC_GAUGE, texts[1]);
		metrics_sample(&m, (double)rand_r(&seed) / 3, texts[2], texts[3], NULL);
	}
	char *text cleanup(str_freep) = printed(&m);
	assert_in_range(samples_of(text), 1000, 2000);
}

/* The format's own reader agrees, where it is installed (PyPI: prometheus_client). */
static void python_reads_the_same(void **state UNUSED)
{
	if (system("python3 -c 'import prometheus_client' 2>/dev/null") != 0) /* NOLINT(cert-env33-c) */
		skip();
	struct metrics m cleanup(metrics_release) = { 0 };
	metrics_family(&m, "a_total", METRIC_COUNTER, "help\nwith \\ lines");
	metrics_sample(&m, 0.1, "x", "q\"b\\n\nend", "y", "\xC3\xBC\xFF", NULL);
	metrics_single(&m, "b_seconds", METRIC_GAUGE, "x", -(double)INFINITY);
	char *text cleanup(str_freep) = printed(&m);
	char *path cleanup(str_freep) = str_printf("%s/metrics.txt", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	FILE *f = fopen(path, "we");
	assert_non_null(f);
	assert_int_equal(fputs(text, f) < 0, 0);
	fclose(f);
	char *command cleanup(str_freep) = str_printf(
		"python3 -c '\n"
		"from prometheus_client.parser import text_string_to_metric_families as read\n"
		"m = list(read(open(\"%s\", encoding=\"utf-8\").read()))\n"
		"assert [x.type for x in m] == [\"counter\", \"gauge\"], m\n"
		"assert m[0].documentation == \"help\\nwith \\\\ lines\", m\n"
		"assert m[0].samples[0].labels == {\"x\": \"q\\\"b\\\\n\\nend\", \"y\": \"\\u00fc\\ufffd\"}, m\n"
		"assert m[0].samples[0].value == 0.1 and m[1].samples[0].value == float(\"-inf\"), m\n"
		"'", path);
	assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c) */
	remove(path);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_nothing),
		cmocka_unit_test(families_come_once_and_together),
		cmocka_unit_test(texts_are_escaped),
		cmocka_unit_test(names_are_made_valid),
		cmocka_unit_test(what_is_not_utf8_is_replaced),
		cmocka_unit_test(numbers_are_short_and_exact),
		cmocka_unit_test(random_input_is_valid_output),
		cmocka_unit_test(python_reads_the_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
