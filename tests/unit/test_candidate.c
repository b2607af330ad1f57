/* LINK: rotation */
/* Authorities that people bring: what is taken, and what each of the others is refused for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "candidate.h"
#include "pki_fixture.h"

#define CA "basicConstraints", "critical,CA:TRUE"
#define SIGNS "keyUsage", "critical,keyCertSign,cRLSign"
#define SKI "subjectKeyIdentifier", "hash"

static const struct rdn SUBJECT[] = { { "CN", 0x0c, "corporate", 0 }, { NULL, 0, NULL, 0 } };
static const char *const PLAIN[] = { CA, SIGNS, SKI, NULL };

static struct cert *root(const char *algorithm, const char *const *extensions, int64_t from_ms, int64_t to_ms)
{
	return fixture_cert(&(struct crafted){ .subject = SUBJECT, .key = fixture_key(algorithm, 1), .extensions = extensions, .from_ms = from_ms,
					       .to_ms = to_ms });
}

static void check(struct cert *taken, const struct key *k, const struct cert *old, const char *why)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct err e = { 0 };
	certs_add(&list, taken);
	bool good = candidate_check(&list, k, old, NOW_MS, &e).ok;
	if (good != !why)
		fail_msg("%s", good ? why : e.message);
	if (why && !strstr(e.message, why))
		fail_msg("\"%s\" does not say \"%s\"", e.message, why);
	assert_true(good || e.kind == ERR_INPUT);
}

static void test_every_mix_of_keys_is_taken(void **state UNUSED)
{
	static const char *const KINDS[] = { "RSA-2048", "RSA-4096", "ECDSA-P256", "ECDSA-P384" };
	for (size_t i = 0; i < ARRAY_LEN(KINDS); i++)
		for (size_t k = 0; k < ARRAY_LEN(KINDS); k++) {
			struct cert *old cleanup(cert_freep) = fixture_kubeadm_ca(fixture_key(KINDS[k], 0));
			check(root(KINDS[i], PLAIN, 0, 0), fixture_key(KINDS[i], 1), old, NULL);
		}
	check(root("ECDSA-P256", PLAIN, 0, 0), fixture_key("ECDSA-P256", 1), NULL, NULL);
}

static void test_authorities_that_are_none(void **state UNUSED)
{
	static const struct { const char *const extensions[9]; const char *why; } CASES[] = {
		{ { SKI, NULL }, "it is no authority" },
		{ { "basicConstraints", "critical,CA:FALSE", SKI, NULL }, "it is no authority" },
		{ { CA, "keyUsage", "digitalSignature", SKI, NULL }, "keyCertSign" },
		{ { CA, SIGNS, NULL }, "subjectKeyIdentifier" },
		{ { "basicConstraints", "critical,CA:TRUE,pathlen:0", SIGNS, SKI, NULL }, "path length is 0" },
		{ { CA, SIGNS, SKI, "nameConstraints", "permitted;DNS:example.com", NULL }, "name constraints" },
		{ { CA, SIGNS, SKI, "1.2.3.4", "critical,DER:0500", NULL }, "unknown critical extension" },
		{ { "basicConstraints", "critical,CA:TRUE,pathlen:1", SIGNS, SKI, NULL }, NULL },
	};
	for (size_t i = 0; i < ARRAY_LEN(CASES); i++)
		check(root("ECDSA-P256", CASES[i].extensions, 0, 0), fixture_key("ECDSA-P256", 1), NULL, CASES[i].why);
}

static void test_authorities_out_of_their_time(void **state UNUSED)
{
	const struct key *k = fixture_key("ECDSA-P256", 1);
	check(root("ECDSA-P256", PLAIN, NOW_MS + MINUTE_MS, NOW_MS + YEAR_MS), k, NULL, "not valid yet");
	check(root("ECDSA-P256", PLAIN, NOW_MS - YEAR_MS, NOW_MS - DAY_MS), k, NULL, "expires at");
	check(root("ECDSA-P256", PLAIN, NOW_MS - YEAR_MS, NOW_MS + 29 * DAY_MS), k, NULL, "expires at");
	check(root("ECDSA-P256", PLAIN, NOW_MS - YEAR_MS, NOW_MS + 31 * DAY_MS), k, NULL, NULL);
}

static void test_keys_and_names(void **state UNUSED)
{
	const struct key *k = fixture_key("ECDSA-P256", 1);
	check(root("ECDSA-P256", PLAIN, 0, 0), fixture_key("ECDSA-P256", 2), NULL, "tls.key is not its key");
	struct cert *same_name cleanup(cert_freep) =
		fixture_cert(&(struct crafted){ .subject = SUBJECT, .key = fixture_key("ECDSA-P256", 3), .extensions = PLAIN });
	check(root("ECDSA-P256", PLAIN, 0, 0), k, same_name, "its subject is that of the authority in force");
	struct cert *same_key cleanup(cert_freep) = fixture_cert(&(struct crafted){ .key = k, .extensions = PLAIN });
	check(root("ECDSA-P256", PLAIN, 0, 0), k, same_key, "the key of the authority in force");
	check(root("ECDSA-P521", PLAIN, 0, 0), fixture_key("ECDSA-P521", 1), NULL, "its key is");
}

static void test_an_intermediate_and_a_bundle(void **state UNUSED)
{
	const struct key *k = fixture_key("ECDSA-P256", 1);
	struct cert *above cleanup(cert_freep) = fixture_kubeadm_ca(fixture_key("ECDSA-P256", 4));
	check(fixture_cert(&(struct crafted){ .subject = SUBJECT, .key = k, .issuer = above, .issuer_key = fixture_key("ECDSA-P256", 4),
					      .extensions = PLAIN }), k, NULL, "not self-signed");
	struct certs two cleanup(certs_release) = { 0 };
	struct err e = { 0 };
	certs_add(&two, root("ECDSA-P256", PLAIN, 0, 0));
	certs_add(&two, cert_copy(above));
	assert_false(candidate_check(&two, k, NULL, NOW_MS, &e).ok);
	assert_non_null(strstr(e.message, "holds 2 certificates"));
}

static int release(void **state UNUSED)
{
	fixture_keys_release();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_mix_of_keys_is_taken),
		cmocka_unit_test(test_authorities_that_are_none),
		cmocka_unit_test(test_authorities_out_of_their_time),
		cmocka_unit_test(test_keys_and_names),
		cmocka_unit_test(test_an_intermediate_and_a_bundle),
	};
	return cmocka_run_group_tests(tests, NULL, release);
}
