/* LINK: kube */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "past.h"

#include <stdio.h>

static void test_older_is_past(void **state)
{
	(void)state;
	struct past *p cleanup(past_freep) = past_new();
	assert_false(past_is(p, "/a", "99", 1000));
	assert_false(past_is(p, "/a", "100", 1000)); /* numbers, not texts */
	assert_true(past_is(p, "/a", "99", 2000));
	assert_false(past_is(p, "/a", "100", 3000));
	assert_false(past_is(p, "/b", "5", 3000)); /* another key, maybe another store */
}

static void test_what_is_no_number_is_not_compared(void **state)
{
	(void)state;
	struct past *p cleanup(past_freep) = past_new();
	static const char *const ODD[] = { NULL, "", "x", "-1", "+1", " 1", "1x", "99999999999999999999" };
	assert_false(past_is(p, "/a", "100", 1000));
	for (size_t i = 0; i < ARRAY_LEN(ODD); i++)
		assert_false(past_is(p, "/a", ODD[i], 1000));
	assert_true(past_is(p, "/a", "99", 1000));
}

/* etcd was restored: what there is now is older for good. */
static void test_a_past_that_stays_is_believed(void **state)
{
	(void)state;
	struct past *p cleanup(past_freep) = past_new();
	assert_false(past_is(p, "/a", "100", 1000));
	assert_true(past_is(p, "/a", "50", 2000));
	assert_true(past_is(p, "/a", "51", 2000 + PAST_BELIEVED_MS - 1));
	assert_false(past_is(p, "/a", "52", 2000 + PAST_BELIEVED_MS));
	assert_true(past_is(p, "/a", "51", 2000 + PAST_BELIEVED_MS));
}

/* One that lags among others that do not is never believed. */
static void test_a_past_that_comes_and_goes_is_not(void **state)
{
	(void)state;
	struct past *p cleanup(past_freep) = past_new();
	assert_false(past_is(p, "/a", "100", 1000));
	for (int64_t now = 2000; now < 2000 + 3 * PAST_BELIEVED_MS; now += 1000) {
		assert_true(past_is(p, "/a", "50", now));
		assert_false(past_is(p, "/a", "100", now));
	}
}

/* An answer to a write may be about an object that has long been as it is. */
static void test_what_was_written_only_raises(void **state)
{
	(void)state;
	struct past *p cleanup(past_freep) = past_new();
	past_note(p, "/a", "100");
	assert_true(past_is(p, "/a", "99", 1000));
	past_note(p, "/a", "7");
	past_note(p, "/a", NULL);
	assert_true(past_is(p, "/a", "99", 2000));
	past_note(p, "/a", "200");
	assert_true(past_is(p, "/a", "199", 1000 + PAST_BELIEVED_MS)); /* the minute begins anew */
	assert_false(past_is(p, "/a", "200", 3000));
}

static void test_very_many_keys(void **state)
{
	(void)state;
	struct past *p cleanup(past_freep) = past_new();
	for (int i = 0; i < 5000; i++) {
		char key[16];
		snprintf(key, sizeof key, "/%d", i);
		assert_false(past_is(p, key, "7", 1000));
		assert_true(past_is(p, key, "6", 1000));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_older_is_past),
		cmocka_unit_test(test_what_is_no_number_is_not_compared),
		cmocka_unit_test(test_a_past_that_stays_is_believed),
		cmocka_unit_test(test_a_past_that_comes_and_goes_is_not),
		cmocka_unit_test(test_what_was_written_only_raises),
		cmocka_unit_test(test_very_many_keys),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
