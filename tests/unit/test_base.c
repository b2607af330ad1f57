/* base: errors keep kind and context, memory ends the process with one line, time is RFC 3339 and nothing else. */
#include "base.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Stands in for libc's, so that the tests see what is overwritten and when. */
void explicit_bzero(void *p, size_t n);
static size_t wiped;
void explicit_bzero(void *p, size_t n)
{
	memset(p, 0, n);
	__asm__ volatile("" : : "r"(p) : "memory");
	wiped += n;
}

/* --- Errors ---------------------------------------------------------------------------------- */

static result inner(struct err *e)
{
	return err_set(e, ERR_CONFLICT, "the object has moved on to version %d", 7);
}

static result middle(struct err *e)
{
	TRY_CTX(inner(e), e, "patching %s", "ca.crt");
	return OK;
}

static result outer(bool broken, int *ret, struct err *e)
{
	if (broken)
		TRY(middle(e));
	*ret = 1;
	return OK;
}

static void test_error_gathers_context(void **state)
{
	(void)state;
	struct err e = { 0 };
	int out = 0;
	assert_false(outer(true, &out, &e).ok);
	assert_int_equal(out, 0);
	assert_int_equal(e.kind, ERR_CONFLICT);
	assert_string_equal(e.message, "patching ca.crt: the object has moved on to version 7");
}

static void test_success_leaves_error_alone(void **state)
{
	(void)state;
	struct err e = { .kind = ERR_BUSY, .retry_after_ms = 5, .message = "old" };
	int out = 0;
	assert_true(outer(false, &out, &e).ok);
	assert_int_equal(out, 1);
	assert_int_equal(e.kind, ERR_BUSY);
	assert_string_equal(e.message, "old");
}

static void test_error_set_forgets_retry_after(void **state)
{
	(void)state;
	struct err e = { .kind = ERR_BUSY, .retry_after_ms = 5000 };
	assert_false(err_set(&e, ERR_IO, "gone").ok);
	assert_int_equal(e.retry_after_ms, 0);
}

static void test_error_wrap_keeps_retry_after(void **state)
{
	(void)state;
	struct err e = { .kind = ERR_BUSY, .retry_after_ms = 5000, .message = "slow down" };
	assert_false(err_wrap(&e, "listing %s", "pods").ok);
	assert_int_equal(e.retry_after_ms, 5000);
	assert_int_equal(e.kind, ERR_BUSY);
	assert_string_equal(e.message, "listing pods: slow down");
}

static void test_error_may_quote_itself(void **state)
{
	(void)state;
	struct err e = { .message = "first" };
	assert_false(err_set(&e, ERR_OTHER, "then: %s", e.message).ok);
	assert_string_equal(e.message, "then: first");
	assert_false(err_wrap(&e, "%s", e.message).ok);
	assert_string_equal(e.message, "then: first: then: first");
}

static void test_error_is_cut(void **state)
{
	(void)state;
	char *longer = mem_alloc(5000);
	memset(longer, 'x', 4999);
	struct err e = { 0 };
	assert_false(err_set(&e, ERR_OTHER, "%s", longer).ok);
	assert_int_equal(strlen(e.message), ERR_MESSAGE_SIZE - 1);
	assert_false(err_wrap(&e, "context").ok);
	assert_int_equal(strlen(e.message), ERR_MESSAGE_SIZE - 1);
	assert_true(str_starts(e.message, "context: xxx"));
	assert_false(err_wrap(&e, "%s", longer).ok);
	assert_int_equal(strlen(e.message), ERR_MESSAGE_SIZE - 1);
	free(longer);
}

/* Characters of two, three and four bytes, at every offset to the cut. */
static void test_error_is_cut_between_characters(void **state)
{
	(void)state;
	static const char *const characters[] = { "\xC3\xA4", "\xE2\x82\xAC", "\xF0\x9F\x94\x91" };
	for (size_t c = 0; c < ARRAY_LEN(characters); c++) {
		size_t width = strlen(characters[c]);
		for (size_t offset = 0; offset < width; offset++) {
			char text[2 * ERR_MESSAGE_SIZE] = "";
			memset(text, 'x', offset);
			while (strlen(text) < ERR_MESSAGE_SIZE + 8)
				strncat(text, characters[c], width);
			struct err e = { 0 };
			assert_false(err_set(&e, ERR_OTHER, "%s", text).ok);
			size_t len = strlen(e.message);
			assert_int_equal((len - offset) % width, 0);
			assert_true(len + width > ERR_MESSAGE_SIZE - 1);
			assert_memory_equal(e.message, text, len);
		}
	}
}

static void test_error_that_fits_is_not_cut(void **state)
{
	(void)state;
	char text[ERR_MESSAGE_SIZE] = "";
	memset(text, 'x', sizeof(text) - 1);
	memcpy(text + sizeof(text) - 3, "\xC3\xA4", 2);
	struct err e = { 0 };
	assert_false(err_set(&e, ERR_OTHER, "%s", text).ok);
	assert_string_equal(e.message, text);
}

static void test_errno_has_kind(void **state)
{
	(void)state;
	static const struct {
		int number;
		enum err_kind kind;
	} cases[] = {
		{ ENOENT, ERR_NOT_FOUND }, { EEXIST, ERR_CONFLICT }, { ENOTEMPTY, ERR_CONFLICT },
		{ EACCES, ERR_DENIED },    { EPERM, ERR_DENIED },    { EAGAIN, ERR_BUSY },
		{ EBUSY, ERR_BUSY },	   { ETIMEDOUT, ERR_TIMEOUT }, { ENOTDIR, ERR_INPUT },
		{ ELOOP, ERR_INPUT },	   { EXDEV, ERR_INPUT },     { EIO, ERR_IO },
		{ ENOSPC, ERR_IO },	   { EROFS, ERR_IO },	     { ECONNRESET, ERR_IO },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err e = { 0 };
		errno = cases[i].number;
		assert_false(err_errno(&e, "opening %s", "f").ok);
		assert_int_equal(e.kind, cases[i].kind);
		assert_true(str_starts(e.message, "opening f: "));
		assert_true(str_ends(e.message, strerror(cases[i].number)));
	}
}

/* --- Memory ---------------------------------------------------------------------------------- */

static void ask_too_much_at_once(void)
{
	volatile size_t huge = SIZE_MAX / 4;
	free(mem_alloc(huge));
}

static void ask_with_overflow(void)
{
	volatile size_t n = SIZE_MAX / 2;
	free(mem_realloc(NULL, n, 3));
}

/* Runs f in a child; gives its standard error and how it ended. */
static int in_child(void (*f)(void), char *ret_text, size_t size)
{
	int ends[2];
	assert_int_equal(pipe(ends), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		(void)dup2(ends[1], STDERR_FILENO);
		(void)signal(SIGABRT, SIG_DFL);
		f();
		_exit(0);
	}
	(void)close(ends[1]);
	size_t len = 0;
	for (ssize_t n; (n = read(ends[0], ret_text + len, size - 1 - len)) > 0;)
		len += (size_t)n;
	ret_text[len] = '\0';
	(void)close(ends[0]);
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_no_memory_ends_the_process(void **state)
{
	(void)state;
	void (*const cases[])(void) = { ask_too_much_at_once, ask_with_overflow };
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[4096];
		int status = in_child(cases[i], text, sizeof(text));
		assert_true(WIFSIGNALED(status));
		assert_int_equal(WTERMSIG(status), SIGABRT);
		assert_non_null(strstr(text, "out of memory\n"));
	}
}

static void test_memory_is_zeroed(void **state)
{
	(void)state;
	unsigned char *p = mem_alloc(1000);
	for (size_t i = 0; i < 1000; i++)
		assert_int_equal(p[i], 0);
	free(p);
	free(mem_alloc(0));
	free(mem_realloc(NULL, 0, 0));
}

static void test_strings_are_copied(void **state)
{
	(void)state;
	char *a cleanup(str_freep) = str_dup("abc");
	char *b cleanup(str_freep) = str_ndup("abcdef", 3);
	char *c cleanup(str_freep) = str_ndup("ab", 30);
	char *d cleanup(str_freep) = str_printf("%s-%d", "x", 42);
	char *empty cleanup(str_freep) = str_printf("%s", "");
	assert_string_equal(a, "abc");
	assert_string_equal(b, "abc");
	assert_string_equal(c, "ab");
	assert_string_equal(d, "x-42");
	assert_string_equal(empty, "");
}

static char *make_and_hand_over(void)
{
	char *mine cleanup(str_freep) = str_dup("kept");
	return steal(&mine);
}

static void test_steal_hands_over(void **state)
{
	(void)state;
	char *s = make_and_hand_over();
	assert_string_equal(s, "kept");
	str_freep(&s);
	assert_null(s);
	str_freep(&s); /* NULL is fine */
	secret_freep(&s);
}

static void test_secret_is_overwritten(void **state)
{
	(void)state;
	char *s = str_dup("a private key");
	wiped = 0;
	secret_freep(&s);
	assert_null(s);
	assert_int_equal(wiped, strlen("a private key"));
}

/* --- Strings --------------------------------------------------------------------------------- */

static void test_string_comparisons(void **state)
{
	(void)state;
	assert_true(str_eq("a", "a"));
	assert_true(str_eq("", ""));
	assert_true(str_eq(NULL, NULL));
	assert_false(str_eq("a", NULL));
	assert_false(str_eq(NULL, ""));
	assert_false(str_eq("a", "ab"));
	assert_false(str_eq("ab", "a"));
	assert_true(str_starts("ca.crt", "ca"));
	assert_true(str_starts("ca", ""));
	assert_false(str_starts("c", "ca"));
	assert_false(str_starts(NULL, "ca"));
	assert_true(str_ends("ca.crt", ".crt"));
	assert_true(str_ends("ca", ""));
	assert_false(str_ends("t", "crt"));
	assert_false(str_ends("ca.crt", NULL));
}

static void test_copy_truncates(void **state)
{
	(void)state;
	char four[4] = "zzz";
	str_copy(four, sizeof(four), "abcdef");
	assert_string_equal(four, "abc");
	str_copy(four, sizeof(four), "x");
	assert_string_equal(four, "x");
	str_copy(four, 0, "untouched");
	assert_int_equal(str_cut("abc", 3), 3);
	assert_int_equal(str_cut("abc", 2), 2);
	assert_int_equal(str_cut("a\xE2\x82\xAC", 3), 1);
	assert_int_equal(str_cut("a\xE2\x82\xAC", 4), 4);
	assert_int_equal(str_cut("\x82\x82", 1), 0);
	assert_int_equal(str_cut("", 5), 0);
	assert_string_equal(four, "x");
	str_copy(four, 1, "x");
	assert_string_equal(four, "");
}

/* --- Time ------------------------------------------------------------------------------------ */

static void test_time_is_formatted(void **state)
{
	(void)state;
	static const struct {
		int64_t ms;
		const char *text, *micro;
	} cases[] = {
		{ 0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z" },
		{ 1767323045678, "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.678000Z" },
		{ -1, "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.999000Z" },
		{ 951782400000, "2000-02-29T00:00:00Z", "2000-02-29T00:00:00.000000Z" },
		{ 253402300799999, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999000Z" },
		{ INT64_MAX, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999000Z" },
		{ INT64_MIN, "0000-01-01T00:00:00Z", "0000-01-01T00:00:00.000000Z" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[32], micro[40];
		time_format(cases[i].ms, text);
		time_format_micro(cases[i].ms, micro);
		assert_string_equal(text, cases[i].text);
		assert_string_equal(micro, cases[i].micro);
	}
}

static void test_time_is_parsed(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		int64_t ms;
	} cases[] = {
		{ "1970-01-01T00:00:00Z", 0 },
		{ "2026-01-02T03:04:05Z", 1767323045000 },
		{ "2026-01-02t03:04:05z", 1767323045000 },
		{ "2026-01-02T03:04:05.678Z", 1767323045678 },
		{ "2026-01-02T03:04:05.678901234Z", 1767323045678 },
		{ "2026-01-02T03:04:05.6Z", 1767323045600 },
		{ "2026-01-02T04:04:05+01:00", 1767323045000 },
		{ "2026-01-01T21:34:05-05:30", 1767323045000 },
		{ "2024-02-29T00:00:00Z", 1709164800000 },
		{ "0000-01-01T00:00:00Z", -62167219200000 },
		{ "9999-12-31T23:59:59.999Z", 253402300799999 },
		{ "1969-12-31T23:59:59.999Z", -1 },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct err e = { 0 };
		int64_t ms = 4711;
		assert_true(time_parse(cases[i].text, &ms, &e).ok);
		assert_int_equal(ms, cases[i].ms);
	}
}

static void assert_no_time(const char *text)
{
	struct err e = { 0 };
	int64_t ms = 4711;
	if (time_parse(text, &ms, &e).ok)
		fail_msg("\"%s\" was taken for a time", text);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_int_equal(ms, 4711);
}

static void test_what_is_no_time(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"",
		"now",
		"2026-01-02",
		"2026-01-02 03:04:05Z",
		"2026-01-02T03:04:05",
		"2026-01-02T03:04:05Zx",
		"2026-01-02T03:04:05ZZ",
		" 2026-01-02T03:04:05Z",
		"2026-1-2T03:04:05Z",
		"26-01-02T03:04:05Z",
		"+2026-01-02T03:04:05Z",
		"-026-01-02T03:04:05Z",
		"2026-00-02T03:04:05Z",
		"2026-13-02T03:04:05Z",
		"2026-01-00T03:04:05Z",
		"2026-01-32T03:04:05Z",
		"2026-02-30T03:04:05Z",
		"2025-02-29T03:04:05Z",
		"2026-04-31T03:04:05Z",
		"2026-01-02T24:00:00Z",
		"2026-01-02T03:60:05Z",
		"2026-01-02T03:04:60Z",
		"2026-01-02T03:04:05.Z",
		"2026-01-02T03:04:05,5Z",
		"2026-01-02T03:04:05+0100",
		"2026-01-02T03:04:05+24:00",
		"2026-01-02T03:04:05+01:60",
		"20260-01-02T03:04:05Z",
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_no_time(cases[i]);
}

static void test_no_truncation_is_a_time(void **state)
{
	(void)state;
	static const char *const whole[] = { "2026-01-02T03:04:05.678Z", "2026-01-02T04:04:05+01:00" };
	for (size_t i = 0; i < ARRAY_LEN(whole); i++) {
		for (size_t n = 0; n < strlen(whole[i]); n++) {
			char *cut cleanup(str_freep) = str_ndup(whole[i], n);
			assert_no_time(cut);
		}
	}
}

static void test_time_goes_round(void **state)
{
	(void)state;
	/* A step that is no multiple of a day, over all years that RFC 3339 can write. */
	for (int64_t ms = -62167219200000; ms <= 253402300799999; ms += INT64_C(86399999) * 211) {
		char text[40];
		int64_t back = 0;
		struct err e = { 0 };
		time_format_micro(ms, text);
		assert_true(time_parse(text, &back, &e).ok);
		assert_int_equal(back, ms);
	}
}

static void test_clocks_run(void **state)
{
	(void)state;
	assert_true(clock_now_ms() > 1700000000000);
	int64_t before = clock_monotonic_ms();
	assert_true(clock_monotonic_ms() >= before);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error_gathers_context),
		cmocka_unit_test(test_success_leaves_error_alone),
		cmocka_unit_test(test_error_set_forgets_retry_after),
		cmocka_unit_test(test_error_wrap_keeps_retry_after),
		cmocka_unit_test(test_error_may_quote_itself),
		cmocka_unit_test(test_error_is_cut),
		cmocka_unit_test(test_error_is_cut_between_characters),
		cmocka_unit_test(test_error_that_fits_is_not_cut),
		cmocka_unit_test(test_errno_has_kind),
		cmocka_unit_test(test_no_memory_ends_the_process),
		cmocka_unit_test(test_memory_is_zeroed),
		cmocka_unit_test(test_strings_are_copied),
		cmocka_unit_test(test_steal_hands_over),
		cmocka_unit_test(test_secret_is_overwritten),
		cmocka_unit_test(test_string_comparisons),
		cmocka_unit_test(test_copy_truncates),
		cmocka_unit_test(test_time_is_formatted),
		cmocka_unit_test(test_time_is_parsed),
		cmocka_unit_test(test_what_is_no_time),
		cmocka_unit_test(test_no_truncation_is_a_time),
		cmocka_unit_test(test_time_goes_round),
		cmocka_unit_test(test_clocks_run),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
