/* buf: grows to its cap and no further, keeps zero bytes, leaves no secret behind. */
#include "buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Stands in for libc's: what it was called with must be all that ever held the secret. */
void explicit_bzero(void *p, size_t n);
static size_t wiped;
void explicit_bzero(void *p, size_t n)
{
	memset(p, 0, n);
	__asm__ volatile("" : : "r"(p) : "memory");
	wiped += n;
}

static void test_empty(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT;
	assert_string_equal(buf_str(&b), "");
	buf_clear(&b);
	buf_consume(&b, 5);
	buf_add(&b, NULL, 0);
	assert_int_equal(b.len, 0);
	assert_string_equal(buf_str(&b), "");
	char *taken cleanup(str_freep) = buf_take(&b);
	assert_string_equal(taken, "");
	struct buf never cleanup(buf_release) = BUF_INIT;
	char *nothing cleanup(str_freep) = buf_take(&never);
	assert_string_equal(nothing, "");
}

static void test_adding(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT;
	buf_add_str(&b, "a");
	buf_add_char(&b, 'b');
	buf_addf(&b, "%d%s", 12, "c");
	buf_add(&b, "x\0y", 3);
	assert_int_equal(b.len, 8);
	assert_memory_equal(b.data, "ab12cx\0y", 9); /* the closing zero included */
}

static void test_growth_keeps_bytes(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT;
	for (size_t i = 0; i < 100000; i++) {
		buf_add_char(&b, (char)('a' + i % 26));
		assert_int_equal(b.data[b.len], '\0');
	}
	assert_int_equal(b.len, 100000);
	for (size_t i = 0; i < b.len; i++)
		assert_int_equal(b.data[i], 'a' + (int)(i % 26));
}

static void test_format_of_any_length(void **state)
{
	(void)state;
	for (int n = 0; n < 300; n++) {
		struct buf b cleanup(buf_release) = BUF_INIT;
		buf_addf(&b, "<%*s>", n, "");
		assert_int_equal(b.len, (size_t)n + 2);
		assert_int_equal(b.data[b.len - 1], '>');
	}
}

static void test_cap_is_exact(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT;
	b.cap = 100;
	for (int i = 0; i < 100; i++)
		buf_add_char(&b, 'x');
	assert_false(b.overflow);
	assert_int_equal(b.len, 100);
	buf_add_char(&b, 'y');
	assert_true(b.overflow);
	assert_int_equal(b.len, 100);
	assert_null(strchr(b.data, 'y'));
}

static void test_overflow_drops_the_rest(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT;
	b.cap = 10;
	buf_add_str(&b, "12345");
	buf_add_str(&b, "123456"); /* whole, or not at all */
	buf_add_str(&b, "z");	   /* would fit, but there is a hole before it */
	buf_addf(&b, "%d", 1);
	assert_true(b.overflow);
	assert_string_equal(b.data, "12345");
	buf_clear(&b);
	assert_false(b.overflow);
	buf_addf(&b, "%s", "0123456789");
	assert_false(b.overflow);
	buf_addf(&b, "%s", "!");
	assert_true(b.overflow);
	assert_string_equal(b.data, "0123456789");
}

static void test_huge_sizes_overflow(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT;
	buf_add_char(&b, 'x');
	buf_add(&b, "", SIZE_MAX);
	assert_true(b.overflow);
	buf_clear(&b);
	buf_add(&b, "", SIZE_MAX - 1);
	assert_true(b.overflow);
	assert_int_equal(b.len, 0);
}

static void test_default_cap(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT;
	char *block cleanup(str_freep) = mem_alloc(BUF_CAP_DEFAULT + 1);
	buf_add(&b, block, BUF_CAP_DEFAULT + 1);
	assert_true(b.overflow);
	buf_clear(&b);
	buf_add(&b, block, BUF_CAP_DEFAULT);
	assert_false(b.overflow);
	assert_int_equal(b.len, BUF_CAP_DEFAULT);
}

static void test_consume(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT;
	buf_add_str(&b, "line one\nline two\n");
	buf_consume(&b, 9);
	assert_string_equal(buf_str(&b), "line two\n");
	assert_int_equal(b.len, 9);
	buf_consume(&b, 0);
	assert_int_equal(b.len, 9);
	buf_consume(&b, 9);
	assert_int_equal(b.len, 0);
	assert_string_equal(buf_str(&b), "");
	buf_add_str(&b, "x");
	buf_consume(&b, SIZE_MAX);
	assert_int_equal(b.len, 0);
}

static void test_consume_keeps_overflow(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT;
	b.cap = 4;
	buf_add_str(&b, "1234");
	buf_add_str(&b, "5");
	buf_consume(&b, 4);
	assert_true(b.overflow); /* a hole in a stream stays a hole */
}

static void test_take(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_SECRET;
	b.cap = 50;
	buf_add_str(&b, "mine");
	char *taken cleanup(secret_freep) = buf_take(&b);
	assert_string_equal(taken, "mine");
	assert_int_equal(b.len, 0);
	assert_true(b.secret);
	assert_int_equal(b.cap, 50);
	buf_add_str(&b, "again");
	assert_string_equal(taken, "mine");
}

static void test_secret_leaves_nothing(void **state)
{
	(void)state;
	struct buf b = BUF_SECRET;
	size_t held = 0;
	wiped = 0;
	for (int i = 0; i < 1000; i++) {
		size_t before = b.size;
		buf_add_str(&b, "key");
		if (b.size != before)
			held += before; /* it has moved, away from a block of this size */
	}
	assert_true(held > 0);
	assert_int_equal(wiped, held);
	held += b.size;
	buf_release(&b);
	assert_int_equal(wiped, held);
	assert_null(b.data);
}

static void test_secret_is_cleared(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_SECRET;
	buf_add_str(&b, "secret, secret");
	buf_clear(&b);
	for (size_t i = 0; i < b.size; i++)
		assert_int_equal(b.data[i], 0);
	buf_add_str(&b, "0123456789");
	buf_consume(&b, 6);
	assert_string_equal(b.data, "6789");
	for (size_t i = b.len; i < b.size; i++)
		assert_int_equal(b.data[i], 0);
}

static void test_strs(void **state)
{
	(void)state;
	struct strs l cleanup(strs_release) = { 0 };
	assert_false(strs_has(&l, "a"));
	for (int i = 0; i < 1000; i++)
		strs_addf(&l, "item %d", i);
	char own[] = "own";
	strs_add(&l, own);
	own[0] = 'X'; /* it was copied */
	assert_int_equal(l.n, 1001);
	assert_string_equal(l.items[7], "item 7");
	assert_true(strs_has(&l, "item 999"));
	assert_true(strs_has(&l, "own"));
	assert_false(strs_has(&l, "item 1000"));
	strs_release(&l);
	assert_int_equal(l.n, 0);
	strs_add(&l, "new");
	assert_string_equal(l.items[0], "new");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_adding),
		cmocka_unit_test(test_growth_keeps_bytes),
		cmocka_unit_test(test_format_of_any_length),
		cmocka_unit_test(test_cap_is_exact),
		cmocka_unit_test(test_overflow_drops_the_rest),
		cmocka_unit_test(test_huge_sizes_overflow),
		cmocka_unit_test(test_default_cap),
		cmocka_unit_test(test_consume),
		cmocka_unit_test(test_consume_keeps_overflow),
		cmocka_unit_test(test_take),
		cmocka_unit_test(test_secret_leaves_nothing),
		cmocka_unit_test(test_secret_is_cleared),
		cmocka_unit_test(test_strs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
