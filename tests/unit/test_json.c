/* json: what is not a JSON document in UTF-8 with one meaning is refused; what is read, is read exactly. */
#define _GNU_SOURCE /* memmem */

#include "json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

void explicit_bzero(void *p, size_t n);
static const char *looked_for; /* in what is overwritten */
static int found;
void explicit_bzero(void *p, size_t n)
{
	const void *seen = p;
	__asm__ volatile("" : "+r"(seen));
	if (looked_for && n >= strlen(looked_for) && memmem(seen, n, looked_for, strlen(looked_for)))
		found++;
	memset(p, 0, n);
	__asm__ volatile("" : : "r"(p) : "memory");
}

static const char document[] =
	"{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"ca\",\"generation\":3,"
	"\"labels\":{\"a/b\":\"\\u00e4 \\ud83d\\udd11 \\\\ \\\" \\/ \\n\",\"empty\":\"\"},"
	"\"ownerReferences\":[{\"uid\":\"x\",\"controller\":true},{\"uid\":\"y\",\"controller\":false}]},"
	"\"data\":{\"tls.crt\":\"QUJD\"},\"immutable\":null,\"numbers\":[0,-1,2.5,1e3,9007199254740991]}";

/* The text in a block of exactly its length, without a closing zero: reading over its end is caught. */
static result parse_exact(const char *text, size_t len, struct json **ret, struct err *e)
{
	char *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, text, len);
	result r = json_parse(copy, len, ret, e);
	free(copy);
	return r;
}

static struct json *parse(const char *text)
{
	struct json *j = NULL;
	struct err e = { 0 };
	if (!parse_exact(text, strlen(text), &j, &e).ok)
		fail_msg("%.200s: %s", text, e.message);
	return j;
}

static void assert_refused_bytes(const char *text, size_t len)
{
	struct json *j = NULL;
	struct err e = { 0 };
	if (parse_exact(text, len, &j, &e).ok)
		fail_msg("taken for JSON: %.200s", text);
	assert_null(j);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_true(str_starts(e.message, "JSON: "));
}

static void assert_refused(const char *text)
{
	assert_refused_bytes(text, strlen(text));
}

static void assert_prints(const struct json *j, const char *want)
{
	char *text cleanup(str_freep) = json_text(j);
	assert_string_equal(text, want);
}

/* --- Reading --------------------------------------------------------------------------------- */

static void test_reading(void **state)
{
	(void)state;
	struct json *j cleanup(json_freep) = parse(document);
	assert_true(json_is_object(j));
	assert_int_equal(json_len(j), 6);
	assert_string_equal(json_get_str(j, "kind"), "Secret");
	assert_string_equal(json_str(json_at(j, "metadata", "labels", "a/b", NULL)),
			    "\xC3\xA4 \xF0\x9F\x94\x91 \\ \" / \n");
	assert_string_equal(json_str(json_at(j, "metadata", "labels", "empty", NULL)), "");
	const struct json *owners = json_at(j, "metadata", "ownerReferences", NULL);
	assert_int_equal(json_len(owners), 2);
	assert_true(json_get_bool(json_index(owners, 0), "controller", false));
	assert_false(json_get_bool(json_index(owners, 1), "controller", true));
	assert_null(json_index(owners, 2));
	assert_true(json_is_null(json_get(j, "immutable")));
	assert_int_equal(json_get_int(json_get(j, "metadata"), "generation", 0), 3);
}

static void test_not_there(void **state)
{
	(void)state;
	struct json *j cleanup(json_freep) = parse(document);
	assert_null(json_get(j, "Kind")); /* with case */
	assert_null(json_get(NULL, "kind"));
	assert_null(json_at(NULL, "a", NULL));
	assert_null(json_at(j, "metadata", "absent", "deeper", NULL));
	assert_null(json_at(j, "kind", "of", NULL));
	assert_ptr_equal(json_at(j, NULL), j);
	assert_null(json_str(NULL));
	assert_string_equal(json_str_or(NULL, "x"), "x");
	assert_int_equal(json_int(NULL, -5), -5);
	assert_true(json_bool(NULL, true));
	assert_int_equal(json_len(NULL), 0);
	assert_null(json_first(NULL));
	assert_null(json_next(NULL));
	assert_null(json_name(NULL));
	assert_null(json_index(NULL, 0));
	assert_false(json_is_object(NULL) || json_is_array(NULL) || json_is_null(NULL));
}

/* A wrong type counts as not there: every getter against every type. */
static void test_wrong_types(void **state)
{
	(void)state;
	static const char *const values[] = { "null", "true", "1", "\"s\"", "[1]", "{\"a\":1}" };
	for (int i = 0; i < (int)ARRAY_LEN(values); i++) {
		struct json *j cleanup(json_freep) = parse(values[i]);
		assert_int_equal(json_is_null(j), i == 0);
		assert_int_equal(json_bool(j, false), i == 1);
		assert_int_equal(json_int(j, 77), i == 2 ? 1 : 77);
		assert_int_equal(json_str(j) != NULL, i == 3);
		assert_int_equal(json_is_array(j), i == 4);
		assert_int_equal(json_index(j, 0) != NULL, i == 4);
		assert_int_equal(json_is_object(j), i == 5);
		assert_int_equal(json_get(j, "a") != NULL, i == 5);
		assert_int_equal(json_len(j), i >= 4);
		assert_int_equal(json_first(j) != NULL, i >= 4);
	}
}

static void test_integers(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t value; /* -7: not an exact integer */
	} cases[] = {
		{ "0", 0 },
		{ "-0", 0 },
		{ "9007199254740992", 9007199254740992 },
		{ "-9007199254740992", -9007199254740992 },
		{ "9007199254740994", -7 },
		{ "-9007199254740994", -7 },
		{ "9223372036854775807", -7 },
		{ "18446744073709551616", -7 },
		{ "1e300", -7 },
		{ "-1e300", -7 },
		{ "1.5", -7 },
		{ "1e3", 1000 },
		{ "1e-400", 0 },
		{ "4294967296", 4294967296 },
		{ "-2147483649", -2147483649 },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json *j cleanup(json_freep) = parse(cases[i].text);
		assert_int_equal(json_int(j, -7), cases[i].value);
	}
}

static void test_iteration(void **state)
{
	(void)state;
	struct json *j cleanup(json_freep) = parse("{\"a\":1,\"b\":[2,3],\"c\":{}}");
	struct buf seen cleanup(buf_release) = BUF_INIT;
	json_each(member, j) {
		buf_add_str(&seen, json_name(member));
		json_each(item, member) {
			assert_null(json_name(item));
			buf_addf(&seen, "%d", (int)json_int(item, 0));
		}
	}
	assert_string_equal(buf_str(&seen), "ab23c");
}

/* --- Hostile input --------------------------------------------------------------------------- */

static void test_every_truncation(void **state)
{
	(void)state;
	size_t len = strlen(document);
	for (size_t n = 0; n < len; n++)
		assert_refused_bytes(document, n);
	struct json *j cleanup(json_freep) = parse(document);
	assert_non_null(j);
}

/* Whatever a byte turns into: an answer, and the same document again from what was understood. */
static void test_every_byte_changed(void **state)
{
	(void)state;
	static const unsigned char others[] = { 0, 1, '"', '\\', '{', '}', '[', ']', ',', ':',
						'0', 'u', ' ', '\n', 0x7F, 0x80, 0xC0, 0xED, 0xFF };
	char *text cleanup(str_freep) = str_dup(document);
	size_t len = strlen(document), taken = 0;
	for (size_t at = 0; at < len; at++) {
		for (size_t i = 0; i < sizeof(others); i++) {
			text[at] = (char)others[i];
			struct json *j cleanup(json_freep) = NULL;
			struct err e = { 0 };
			if (!parse_exact(text, len, &j, &e).ok) {
				assert_int_equal(e.kind, ERR_INPUT);
				continue;
			}
			taken++;
			char *printed cleanup(str_freep) = json_text(j);
			struct json *again cleanup(json_freep) = parse(printed);
			assert_true(json_equal(j, again));
		}
		text[at] = document[at];
	}
	assert_true(taken > 100);
}

static struct json *nested(char open, char close, size_t depth, struct err *e)
{
	struct buf b cleanup(buf_release) = BUF_INIT;
	for (size_t i = 0; i < depth; i++)
		buf_add_str(&b, open == '{' ? "{\"a\":" : "[");
	buf_add_char(&b, '1');
	for (size_t i = 0; i < depth; i++)
		buf_add_char(&b, close);
	struct json *j = NULL;
	return parse_exact(b.data, b.len, &j, e).ok ? j : NULL;
}

static void test_depth(void **state)
{
	(void)state;
	static const size_t too_deep[] = { 65, 66, 999, 1000, 1001, 100000 };
	struct err e = { 0 };
	struct json *arrays cleanup(json_freep) = nested('[', ']', 64, &e);
	struct json *objects cleanup(json_freep) = nested('{', '}', 64, &e);
	assert_non_null(arrays);
	assert_non_null(objects);
	for (size_t i = 0; i < ARRAY_LEN(too_deep); i++) {
		assert_null(nested('[', ']', too_deep[i], &e));
		assert_int_equal(e.kind, ERR_INPUT);
		assert_null(nested('{', '}', too_deep[i], &e));
	}
	struct buf open cleanup(buf_release) = BUF_INIT;
	for (int i = 0; i < 1000000; i++)
		buf_add_char(&open, '[');
	assert_refused_bytes(open.data, open.len);
}

/* cJSON_Compare would look at the innermost value 2^64 times. */
static void test_comparing_deep_documents_ends(void **state)
{
	(void)state;
	struct err e = { 0 };
	struct json *a cleanup(json_freep) = nested('{', '}', 64, &e);
	struct json *b cleanup(json_freep) = nested('{', '}', 64, &e);
	struct json *shorter cleanup(json_freep) = nested('{', '}', 63, &e);
	assert_true(json_equal(a, b));
	assert_false(json_equal(a, shorter));
}

static void test_numbers_too_large(void **state)
{
	(void)state;
	assert_refused("1e999");
	assert_refused("{\"a\":[-1e999]}");
	assert_refused("NaN");
	assert_refused("Infinity");
	assert_refused("-");
	assert_refused("+1");
	assert_refused("0x10");
	assert_refused("1-2");
	struct buf digits cleanup(buf_release) = BUF_INIT;
	for (int i = 0; i < 100000; i++)
		buf_add_char(&digits, '9');
	assert_refused_bytes(digits.data, digits.len);
}

static void test_zero_bytes(void **state)
{
	(void)state;
	assert_refused_bytes("{\"a\":\"b\0c\"}", 11);
	assert_refused_bytes("{\"a\":1}\0", 8);
	assert_refused_bytes("\0{\"a\":1}", 8);
	assert_refused_bytes("{\0\"a\":1}", 8);
	assert_refused_bytes("\0", 1);
	assert_refused("{\"a\":\"admin\\u0000x\"}");
	assert_refused("{\"a\\u0000\":1}");
	assert_refused("{\"a\":\"\\\\\\u0000\"}");
	assert_refused("{\"a\":\"admin\\u00zzx\"}"); /* a zero byte to cJSON */
	assert_refused("{\"a\":\"admin\\u\"}");
	assert_refused("\"\\u00");
	struct json *j cleanup(json_freep) = parse("[\"\\\\u0000\",\"\\u0001\",\"\\u00e4\"]");
	assert_string_equal(json_str(json_index(j, 0)), "\\u0000"); /* a backslash, then letters */
	assert_string_equal(json_str(json_index(j, 1)), "\x01");
}

static void test_duplicates(void **state)
{
	(void)state;
	assert_refused("{\"a\":1,\"a\":2}");
	assert_refused("{\"a\":1,\"b\":2,\"a\":1}");
	assert_refused("{\"x\":[{\"y\":{\"a\":1,\"a\":1}}]}");
	assert_refused("{\"a\":1,\"\\u0061\":2}"); /* the same name, spelled otherwise */
	assert_refused("{\"\":1,\"\":2}");
	struct json *j cleanup(json_freep) = parse("{\"a\":1,\"A\":2,\"b\":{\"a\":3}}");
	assert_int_equal(json_get_int(j, "A", 0), 2);
	struct buf many cleanup(buf_release) = BUF_INIT;
	for (int i = 0; i < 20000; i++)
		buf_addf(&many, "%s\"k%d\":%d", i ? "," : "{", i, i);
	buf_add_str(&many, ",\"k0\":0}");
	assert_refused_bytes(many.data, many.len);
}

static void test_not_utf8(void **state)
{
	(void)state;
	static const char *const broken[] = {
		"\"\x80\"", "\"\xC3\"", "\"\xC3(\"", "\"\xC0\x80\"", "\"\xC1\xBF\"", "\"\xE0\x80\x80\"",
		"\"\xE2\x82\"", "\"\xED\xA0\x80\"", "\"\xF0\x80\x80\x80\"", "\"\xF4\x90\x80\x80\"",
		"\"\xF5\x80\x80\x80\"", "\"\xF0\x9F\x94\"", "\"\xFF\xFE\"", "\"\\\x80\"",
		"\"\\ud800\"", "\"\\udc00\"", "\"\\ud800\\u0041\"", "\"\\ud83d",
	};
	for (size_t i = 0; i < ARRAY_LEN(broken); i++)
		assert_refused(broken[i]);
	struct json *j cleanup(json_freep) =
		parse("[\"\xC2\x80\",\"\xEF\xBF\xBF\",\"\xF0\x90\x80\x80\",\"\xF4\x8F\xBF\xBF\"]");
	assert_int_equal(json_len(j), 4);
}

static void test_what_is_no_document(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"", " ", "\n\t ", "{} x", "{}{}", "{},", "1 2", "[1,]", "[,1]", "{\"a\"}", "{\"a\":}", "{a:1}",
		"{'a':1}", "nul", "truex", "\"open", "[1 2]", "{\"a\":1,}", "// c\n1", "/**/1", "\"\x01\"", "\x0b{}",
		"{\"a\":1]", "[1}", "\"\\x41\"", "\"\\u12\"", "\"\\u12g4\"",
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_refused(cases[i]);
	struct json *spaced cleanup(json_freep) = parse(" \r\n\t{ \"a\" : [ ] } \n");
	assert_true(json_is_object(spaced));
}

static void test_errors_quote_nothing(void **state)
{
	(void)state;
	struct json *j = NULL;
	struct err e = { 0 };
	const char *text = "{\"key\":\"hunter2\",}";
	assert_false(json_parse(text, strlen(text), &j, &e).ok);
	assert_null(strstr(e.message, "hunter2"));
	assert_non_null(strstr(e.message, "byte "));
}

/* --- Building and printing ------------------------------------------------------------------- */

static void test_building(void **state)
{
	(void)state;
	struct json *j cleanup(json_freep) = json_object();
	json_set_str(j, "s", "a\"\\\n\x01");
	json_set_str(j, "not", NULL);
	json_set_int(j, "i", -42);
	json_set_bool(j, "t", true);
	json_set(j, "n", json_null());
	struct json *list = json_ensure_array(j, "l");
	json_add_str(list, "x");
	json_add(list, json_object());
	json_set_str(json_ensure_object(j, "o"), "k", "v");
	assert_ptr_equal(json_ensure_array(j, "l"), list);
	assert_prints(j, "{\"s\":\"a\\\"\\\\\\n\\u0001\",\"i\":-42,\"t\":true,\"n\":null,"
			 "\"l\":[\"x\",{}],\"o\":{\"k\":\"v\"}}");
	json_set_int(j, "s", 1); /* replaces, in its place */
	json_remove(j, "n");
	json_remove(j, "absent");
	json_remove(j, "L");
	assert_prints(j, "{\"s\":1,\"i\":-42,\"t\":true,\"l\":[\"x\",{}],\"o\":{\"k\":\"v\"}}");
	assert_true(json_is_array(json_ensure_array(j, "o"))); /* a wrong type counts as not there */
	assert_null(json_get_mut(j, "absent"));
	json_set_str(json_get_mut(j, "o"), "k", "on an array: dropped, not leaked");
	json_add_str(j, "on an object: dropped, not leaked");
	assert_prints(json_get(j, "o"), "[]");
	assert_int_equal(json_len(j), 5);
}

static void test_numbers_are_printed_exactly(void **state)
{
	(void)state;
	static const struct {
		int64_t value;
		const char *text;
	} cases[] = {
		{ 0, "0" },
		{ -1, "-1" },
		{ INT32_MAX, "2147483647" },
		{ 2147483648, "2147483648" },
		{ 1767323045678, "1767323045678" },
		{ 100000000000000, "100000000000000" },
		{ 999999999999999, "999999999999999" },
		{ 9007199254740991, "9007199254740991" },
		{ 9007199254740992, "9007199254740992" },
		{ -9007199254740992, "-9007199254740992" },
		{ 1000000000000000, "1000000000000000" }, /* not 1e+15: no int64 for Go */
		{ 9000000000000000, "9000000000000000" },
		{ -5000000000000000, "-5000000000000000" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json *j cleanup(json_freep) = json_number(cases[i].value);
		assert_prints(j, cases[i].text);
		assert_int_equal(json_int(j, -7), cases[i].value);
		struct json *read cleanup(json_freep) = parse(cases[i].text);
		assert_int_equal(json_int(read, -7), cases[i].value);
		assert_prints(read, cases[i].text);
		assert_true(json_equal(j, read));
	}
	static const char *const same[] = { "0.1", "2.5", "1e+20", "1.7976931348623157e+308", "0.30000000000000004",
					    "3.141592653589793", "5e-324" };
	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		struct json *read cleanup(json_freep) = parse(same[i]);
		char *text cleanup(str_freep) = json_text(read);
		struct json *again cleanup(json_freep) = parse(text);
		assert_true(json_equal(read, again));
		assert_true(strtod(text, NULL) - strtod(same[i], NULL) == 0.0);
		assert_int_equal(json_int(read, -7), -7);
		assert_null(json_str(read));
	}
}

static void test_strings_become_utf8(void **state)
{
	(void)state;
	struct json *latin cleanup(json_freep) = json_string("M\xFCnchen \xC3\xBC \xE2\x82");
	assert_string_equal(json_str(latin), "M\xEF\xBF\xBDnchen \xC3\xBC \xEF\xBF\xBD\xEF\xBF\xBD");
	struct json *empty cleanup(json_freep) = json_string("");
	assert_string_equal(json_str(empty), "");
}

static void test_round_trip(void **state)
{
	(void)state;
	struct json *j cleanup(json_freep) = parse(document);
	struct json *copy cleanup(json_freep) = json_copy(j);
	char *text cleanup(str_freep) = json_text(j);
	struct json *again cleanup(json_freep) = parse(text);
	struct buf pretty cleanup(buf_release) = BUF_INIT;
	buf_add_str(&pretty, " ");
	json_print_pretty(j, &pretty);
	struct json *from_pretty cleanup(json_freep) = parse(pretty.data);
	assert_true(json_equal(j, copy));
	assert_true(json_equal(j, again));
	assert_true(json_equal(j, from_pretty));
	assert_non_null(strchr(pretty.data, '\n'));
	assert_null(strchr(text, '\n'));
	json_set_str(json_get_mut(copy, "metadata"), "name", "other");
	assert_false(json_equal(j, copy));
	assert_string_equal(json_str(json_at(j, "metadata", "name", NULL)), "ca");
}

static void test_equality(void **state)
{
	(void)state;
	static const struct {
		const char *a, *b;
		bool equal;
	} cases[] = {
		{ "{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", true },
		{ "{\"a\":1,\"b\":2,\"c\":3}", "{\"c\":3,\"a\":1,\"b\":2}", true },
		{ "{\"a\":1}", "{\"a\":1,\"b\":2}", false },
		{ "{\"a\":1,\"b\":2}", "{\"a\":1}", false },
		{ "{\"a\":1,\"b\":2}", "{\"a\":1,\"c\":2}", false },
		{ "{\"a\":null}", "{}", false },
		{ "[1,2]", "[2,1]", false },
		{ "[1,2]", "[1]", false },
		{ "[1]", "[1,2]", false },
		{ "[]", "{}", false },
		{ "[]", "[]", true },
		{ "1", "\"1\"", false },
		{ "1", "1.0", true },
		{ "true", "false", false },
		{ "null", "null", true },
		{ "\"a\"", "\"A\"", false },
		{ "{\"a\":1}", "{\"A\":1}", false },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json *a cleanup(json_freep) = parse(cases[i].a), *b cleanup(json_freep) = parse(cases[i].b);
		if (json_equal(a, b) != cases[i].equal || json_equal(b, a) != cases[i].equal)
			fail_msg("%s and %s", cases[i].a, cases[i].b);
	}
	struct json *j cleanup(json_freep) = json_null();
	assert_true(json_equal(NULL, NULL));
	assert_false(json_equal(j, NULL));
	assert_false(json_equal(NULL, j));
}

static void test_printing_obeys_the_cap(void **state)
{
	(void)state;
	struct json *j cleanup(json_freep) = parse(document);
	struct buf b cleanup(buf_release) = BUF_INIT;
	b.cap = 20;
	json_print(j, &b);
	assert_true(b.overflow);
	assert_int_equal(b.len, 0);
	struct buf none cleanup(buf_release) = BUF_INIT;
	json_print(NULL, &none);
	assert_string_equal(buf_str(&none), "null");
}

/* --- Secrets ---------------------------------------------------------------------------------- */

static void test_secrets_are_overwritten(void **state)
{
	(void)state;
	static const char text[] = "{\"data\":{\"tls.key\":\"hunter2hunter2\"}}";
	struct json *j = parse(text);
	looked_for = "hunter2hunter2";
	found = 0;
	struct buf printed cleanup(buf_release) = BUF_SECRET;
	json_print(j, &printed);
	assert_int_equal(found, 1); /* cJSON's own text */
	json_wipep(&j);
	assert_null(j);
	assert_int_equal(found, 2); /* the value */
	buf_release(&printed);
	assert_int_equal(found, 3);
	json_wipep(&j);
	/* Half a document that turned out to be broken. */
	struct err e = { 0 };
	assert_false(json_parse(text, strlen(text) - 1, &j, &e).ok);
	assert_int_equal(found, 4);
	looked_for = NULL;
}

/* Printing makes cJSON move to larger and larger blocks: each had a part of the text. */
static void test_growing_text_is_overwritten(void **state)
{
	(void)state;
	struct json *j cleanup(json_wipep) = json_array();
	json_add_str(j, "hunter2hunter2");
	for (int i = 0; i < 5000; i++)
		json_add_str(j, "padding");
	looked_for = "\"hunter2hunter2\""; /* with quotes: as printed */
	found = 0;
	struct buf printed cleanup(buf_release) = BUF_SECRET;
	json_print(j, &printed);
	assert_true(found >= 4); /* 1 KiB doubles at least five times */
	looked_for = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reading),
		cmocka_unit_test(test_not_there),
		cmocka_unit_test(test_wrong_types),
		cmocka_unit_test(test_integers),
		cmocka_unit_test(test_iteration),
		cmocka_unit_test(test_every_truncation),
		cmocka_unit_test(test_every_byte_changed),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_comparing_deep_documents_ends),
		cmocka_unit_test(test_numbers_too_large),
		cmocka_unit_test(test_zero_bytes),
		cmocka_unit_test(test_duplicates),
		cmocka_unit_test(test_not_utf8),
		cmocka_unit_test(test_what_is_no_document),
		cmocka_unit_test(test_errors_quote_nothing),
		cmocka_unit_test(test_building),
		cmocka_unit_test(test_numbers_are_printed_exactly),
		cmocka_unit_test(test_strings_become_utf8),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_equality),
		cmocka_unit_test(test_printing_obeys_the_cap),
		cmocka_unit_test(test_secrets_are_overwritten),
		cmocka_unit_test(test_growing_text_is_overwritten),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
