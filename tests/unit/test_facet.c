/* LINK: rotation */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "facet.h"

static void names_go_both_ways(void **state)
{
	(void)state;
	for (int f = 0; f < FACET_COUNT; f++)
		assert_int_equal(facet_by_name(facet_name((enum facet)f)), f);
	assert_int_equal(facet_by_name("no such facet"), FACET_COUNT);
	assert_int_equal(facet_by_name(NULL), FACET_COUNT);
}

static void names_are_the_contract(void **state)
{
	(void)state;
	assert_string_equal(facet_name(FACET_TRUST), "trust");
	assert_string_equal(facet_name(FACET_CA_KEY), "caKey");
	assert_string_equal(facet_name(FACET_KUBELET_CLIENT), "kubeletClient");
}

static void tops(void **state)
{
	(void)state;
	assert_int_equal(facet_top(FACET_TRUST), TRUST_NEW);
	assert_int_equal(facet_top(FACET_SIGNER), SIGNER_KUBEADM_NEW);
	assert_int_equal(facet_top(FACET_CLEAN), CLEAN_YES);
	for (int f = 0; f < FACET_COUNT; f++)
		assert_true(facet_top((enum facet)f) >= 1 && facet_top((enum facet)f) < FACET_ABSENT);
}

static void reached_is_at_least(void **state)
{
	(void)state;
	assert_true(facet_reached(TRUST_BOTH, TRUST_BOTH));
	assert_true(facet_reached(TRUST_NEW, TRUST_BOTH));
	assert_false(facet_reached(TRUST_OLD, TRUST_BOTH));
	assert_true(facet_reached(FACET_ABSENT, SIGNER_KUBEADM_NEW));
	assert_false(facet_reached(FACET_UNKNOWN, TRUST_OLD));
	assert_false(facet_reached(FACET_UNKNOWN, FACET_UNKNOWN));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_go_both_ways),
		cmocka_unit_test(names_are_the_contract),
		cmocka_unit_test(tops),
		cmocka_unit_test(reached_is_at_least),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
