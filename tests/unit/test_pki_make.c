/* pki: making keys, CAs, cross certificates, leaves and requests. */
#include "pki_assert.h"

#include <openssl/core_names.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>

#include <stdio.h>
#include <stdlib.h>

#define BACKDATE (5 * MINUTE_MS)

static const char *const algorithms[] = { "RSA-2048", "ECDSA-P256", "ECDSA-P384" };

/* --- What OpenSSL says of a certificate, independently of pki_look.c ------------------------------------------------ */

static bool extension_der(const struct cert *c, int nid, struct buf *out)
{
	int at = X509_get_ext_by_NID(c->x509, nid, -1);
	if (at < 0)
		return false;
	unsigned char *der = NULL;
	int len = i2d_X509_EXTENSION(X509_get_ext(c->x509, at), &der);
	buf_add(out, der, (size_t)len);
	OPENSSL_free(der);
	return true;
}

/* With its critical flag; both may lack it. */
static void assert_same_extension(const struct cert *a, const struct cert *b, int nid)
{
	cleanup(buf_release) struct buf der_a = BUF_INIT;
	cleanup(buf_release) struct buf der_b = BUF_INIT;
	assert_int_equal(extension_der(a, nid, &der_a), extension_der(b, nid, &der_b));
	assert_int_equal(der_a.len, der_b.len);
	assert_memory_equal(buf_str(&der_a), buf_str(&der_b), der_a.len);
}

static void assert_same_subject(const struct cert *a, const struct cert *b)
{
	unsigned char *der_a = NULL, *der_b = NULL;
	int len_a = i2d_X509_NAME(X509_get_subject_name(a->x509), &der_a);
	int len_b = i2d_X509_NAME(X509_get_subject_name(b->x509), &der_b);
	assert_int_equal(len_a, len_b);
	assert_memory_equal(der_a, der_b, (size_t)len_a);
	OPENSSL_free(der_a);
	OPENSSL_free(der_b);
}

static void assert_ski_is_sha1_of_key(const struct cert *c)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;
	const ASN1_OCTET_STRING *ski = X509_get0_subject_key_id(c->x509);
	assert_non_null(ski);
	X509_pubkey_digest(c->x509, EVP_sha1(), digest, &len);
	assert_int_equal(ASN1_STRING_length(ski), len);
	assert_memory_equal(ASN1_STRING_get0_data(ski), digest, len);
}

static void assert_aki_names(const struct cert *c, const struct cert *issuer)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;
	const ASN1_OCTET_STRING *aki = X509_get0_authority_key_id(c->x509);
	const ASN1_OCTET_STRING *ski = X509_get0_subject_key_id(issuer->x509);
	assert_non_null(aki);
	ERR_clear_error();
	if (ski) {
		assert_int_equal(ASN1_OCTET_STRING_cmp(aki, ski), 0);
		return;
	}
	X509_pubkey_digest(issuer->x509, EVP_sha1(), digest, &len);
	assert_int_equal(ASN1_STRING_length(aki), len);
	assert_memory_equal(ASN1_STRING_get0_data(aki), digest, len);
}

static int critical(const struct cert *c, int nid)
{
	return X509_EXTENSION_get_critical(X509_get_ext(c->x509, X509_get_ext_by_NID(c->x509, nid, -1)));
}

static void assert_serial_is_random(const struct cert *c)
{
	cleanup(BIGNUM_freep) BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(c->x509), NULL);
	assert_false(BN_is_negative(n));
	assert_in_range(BN_num_bits(n), 90, 128); /* shorter once in 2^38 */
}

/* What every certificate must be, whoever made it. */
static void assert_well_made(const struct cert *c, const struct cert *issuer)
{
	assert_int_equal(X509_get_version(c->x509), X509_VERSION_3);
	assert_serial_is_random(c);
	assert_true(cert_issued_by(c, issuer));
	assert_non_null(X509_get0_subject_key_id(c->x509));
	assert_aki_names(c, issuer);
	assert_true(cert_not_after_ms(c) <= cert_not_after_ms(issuer));
	assert_true(cert_not_before_ms(c) >= cert_not_before_ms(issuer) || cert_equal(c, issuer));
	assert_true(cert_not_before_ms(c) < cert_not_after_ms(c));
	assert_int_equal(X509_get_extension_flags(c->x509) & (EXFLAG_INVALID | EXFLAG_CRITICAL), 0);
	ERR_clear_error();
}

/* A leaf must not bear the name of its CA: without key identifiers OpenSSL would take it for self-signed. */
static const struct rdn subject_plain[] = { { "CN", V_ASN1_PRINTABLESTRING, "kube-apiserver", 0 }, { 0 } };

/* --- Shorthands --------------------------------------------------------------------------------------------------- */

static struct cert *new_ca(const struct key *k, const char *unique)
{
	struct cert *c = NULL;
	struct ca_request r = { "kubernetes", unique, NOW_MS, 10 * YEAR_MS };
	assert_ok(ca_make(&r, k, &c, &err));
	return c;
}

static struct cert *cross(const struct cert *ca, const struct cert *issuer, const struct key *issuer_key)
{
	struct cert *c = NULL;
	assert_ok(ca_cross_sign(ca, issuer, issuer_key, NOW_MS, &c, &err));
	return c;
}

static struct cert *reissue(const struct cert *predecessor, const struct cert *issuer, const struct key *issuer_key)
{
	struct cert *c = NULL;
	assert_ok(leaf_reissue(predecessor, NULL, issuer, issuer_key, NOW_MS, 0, &c, &err));
	return c;
}

static struct cert *crafted(const struct key *k, const char *const *extensions)
{
	return fixture_cert(&(struct crafted){ .key = k, .extensions = extensions });
}

static result verify(const struct cert *leaf, const struct cert *via, const struct cert *root)
{
	cleanup(certs_release) struct certs chain = { 0 };
	cleanup(certs_release) struct certs roots = { 0 };
	if (via)
		certs_add(&chain, cert_copy(via));
	certs_add(&roots, cert_copy(root));
	return cert_verify(leaf, &chain, &roots, "server", NOW_MS, &err);
}

/* --- Keys --------------------------------------------------------------------------------------------------------- */

static void every_algorithm_is_generated(void **state)
{
	(void)state;
	static const char *const names[] = { "RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256", "ECDSA-P384" };
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		cleanup(key_freep) struct key *k = NULL;
		assert_ok(key_generate(names[i], &k, &err));
		cleanup(cert_freep) struct cert *c = new_ca(k, "g2");
		cleanup(str_freep) char *name = cert_key_algorithm(c);
		assert_string_equal(name, names[i]);
	}
}

static void other_algorithms_are_refused(void **state)
{
	(void)state;
	static const char *const names[] = { "", "RSA", "RSA-1024", "rsa-2048", "ECDSA-P521", "Ed25519", NULL };
	struct key *k = NULL;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		assert_err(key_generate(names[i], &k, &err), ERR_INPUT, "is none of RSA-2048");
	assert_null(k);
}

static void keys_are_fresh(void **state)
{
	(void)state;
	cleanup(key_freep) struct key *a = NULL;
	cleanup(key_freep) struct key *b = NULL;
	assert_ok(key_generate("ECDSA-P256", &a, &err));
	assert_ok(key_generate("ECDSA-P256", &b, &err));
	assert_int_equal(EVP_PKEY_eq(a->pkey, b->pkey), 0);
}

/* --- CAs ---------------------------------------------------------------------------------------------------------- */

static void a_new_ca_has_kubeadms_profile(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		const struct key *k = fixture_key(algorithms[i], 0);
		cleanup(cert_freep) struct cert *like = fixture_kubeadm_ca(k);
		cleanup(cert_freep) struct cert *c = new_ca(k, "g2");
		cleanup(str_freep) char *subject = cert_subject(c);
		assert_string_equal(subject, "CN=kubernetes,OU=g2");
		assert_well_made(c, c);
		assert_ski_is_sha1_of_key(c);
		assert_same_extension(c, like, NID_key_usage);
		assert_same_extension(c, like, NID_basic_constraints);
		assert_same_extension(c, like, NID_subject_alt_name);
		assert_true(critical(c, NID_key_usage) && critical(c, NID_basic_constraints));
		assert_true(cert_is_ca(c) && cert_path_length(c) == -1 && cert_matches_key(c, k));
		assert_int_equal(X509_get_ext_by_NID(c->x509, NID_ext_key_usage, -1), -1);
		assert_int_equal(cert_not_before_ms(c), NOW_MS - BACKDATE);
		assert_int_equal(cert_not_after_ms(c), NOW_MS + 10 * YEAR_MS);
	}
}

static void times_are_cut_to_seconds(void **state)
{
	(void)state;
	struct ca_request r = { "kubernetes", "g2", NOW_MS + 999, YEAR_MS };
	cleanup(cert_freep) struct cert *c = NULL;
	assert_ok(ca_make(&r, fixture_key("ECDSA-P256", 0), &c, &err));
	assert_int_equal(cert_not_before_ms(c), NOW_MS - BACKDATE);
	assert_int_equal(cert_not_after_ms(c), NOW_MS + YEAR_MS);
}

/* UTCTime until 2049, GeneralizedTime from 2050 on: RFC 5280 4.1.2.5. */
static void dates_beyond_2049(void **state)
{
	(void)state;
	struct ca_request r = { "kubernetes", "g2", NOW_MS, 100 * YEAR_MS };
	cleanup(cert_freep) struct cert *c = NULL;
	assert_ok(ca_make(&r, fixture_key("ECDSA-P256", 0), &c, &err));
	assert_int_equal(cert_not_after_ms(c), NOW_MS + 100 * YEAR_MS);
	assert_int_equal(ASN1_STRING_type(X509_get0_notBefore(c->x509)), V_ASN1_UTCTIME);
	assert_int_equal(ASN1_STRING_type(X509_get0_notAfter(c->x509)), V_ASN1_GENERALIZEDTIME);
}

static void expect_no_ca(struct ca_request r, const char *why)
{
	struct cert *c = NULL;
	assert_err(ca_make(&r, fixture_key("ECDSA-P256", 0), &c, &err), ERR_INPUT, why);
	assert_null(c);
}

static void a_ca_request_that_makes_no_sense(void **state)
{
	(void)state;
	char longer[600];
	memset(longer, 'a', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	expect_no_ca((struct ca_request){ "kubernetes", NULL, NOW_MS, YEAR_MS }, "unique");
	expect_no_ca((struct ca_request){ "kubernetes", "", NOW_MS, YEAR_MS }, "unique");
	expect_no_ca((struct ca_request){ "kubernetes", "\xff", NOW_MS, YEAR_MS }, "OU of the subject");
	expect_no_ca((struct ca_request){ "kubernetes", longer, NOW_MS, YEAR_MS }, "OU of the subject");
	expect_no_ca((struct ca_request){ "", "g2", NOW_MS, YEAR_MS }, "CN of the subject");
	expect_no_ca((struct ca_request){ NULL, "g2", NOW_MS, YEAR_MS }, "CN of the subject");
	expect_no_ca((struct ca_request){ "two words", "g2", NOW_MS, YEAR_MS }, "not a DNS name");
	expect_no_ca((struct ca_request){ "kubernetes", "g2", NOW_MS, 0 }, "validity");
	expect_no_ca((struct ca_request){ "kubernetes", "g2", NOW_MS, -1 }, "validity");
	expect_no_ca((struct ca_request){ "kubernetes", "g2", NOW_MS, INT64_MAX }, "validity");
	expect_no_ca((struct ca_request){ "kubernetes", "g2", -1, YEAR_MS }, "time");
	expect_no_ca((struct ca_request){ "kubernetes", "g2", INT64_MAX, YEAR_MS }, "time");
}

static void a_key_that_cannot_sign_is_refused(void **state)
{
	(void)state;
	struct cert *c = NULL;
	struct ca_request r = { "kubernetes", "g2", NOW_MS, YEAR_MS };
	assert_err(ca_make(&r, fixture_key("ED25519", 0), &c, &err), ERR_INPUT, "ED25519 is not supported");
}

static int bits_of(const struct cert *c)
{
	cleanup(BIGNUM_freep) BIGNUM *n = ASN1_INTEGER_to_BN(X509_get0_serialNumber(c->x509), NULL);
	return BN_num_bits(n);
}

static void serials_have_128_random_bits(void **state)
{
	(void)state;
	enum { N = 64 };
	struct strs seen = { 0 };
	int full = 0;
	for (int i = 0; i < N; i++) {
		cleanup(cert_freep) struct cert *c = new_ca(fixture_key("ECDSA-P256", 0), "g2");
		cleanup(str_freep) char *serial = cert_serial_hex(c);
		assert_serial_is_random(c);
		assert_false(strs_has(&seen, serial));
		strs_add(&seen, serial);
		full += bits_of(c) == 128;
	}
	assert_in_range(full, 10, N - 10); /* the first bit is random too */
	strs_release(&seen);
}

/* --- Cross certificates ------------------------------------------------------------------------------------------- */

struct pair {
	const struct key *old_key, *new_key, *leaf_key;
	struct cert *o, *n, *x, *y, *old_leaf, *new_leaf;
};

static void pair_release(struct pair *p)
{
	struct cert **all[] = { &p->o, &p->n, &p->x, &p->y, &p->old_leaf, &p->new_leaf };
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		cert_freep(all[i]);
}

static struct pair rotate(const char *old_algorithm, const char *new_algorithm)
{
	struct pair p = { .old_key = fixture_key(old_algorithm, 0),
			  .new_key = fixture_key(new_algorithm, 1),
			  .leaf_key = fixture_key("ECDSA-P256", 2) };
	p.o = fixture_kubeadm_ca(p.old_key);
	p.n = new_ca(p.new_key, "g2");
	p.x = cross(p.n, p.o, p.old_key);
	p.y = cross(p.o, p.n, p.new_key);
	p.old_leaf = fixture_apiserver(p.leaf_key, p.o, p.old_key);
	p.new_leaf = reissue(p.old_leaf, p.n, p.new_key);
	return p;
}

static void assert_bridges(const struct pair *p)
{
	assert_ok(verify(p->old_leaf, NULL, p->o));
	assert_ok(verify(p->new_leaf, NULL, p->n));
	assert_ok(verify(p->new_leaf, p->x, p->o));
	assert_ok(verify(p->new_leaf, p->x, p->n));
	assert_ok(verify(p->old_leaf, p->y, p->n));
	assert_ok(verify(p->old_leaf, p->y, p->o));
	assert_err(verify(p->new_leaf, NULL, p->o), ERR_INPUT, "not trusted");
	assert_err(verify(p->old_leaf, NULL, p->n), ERR_INPUT, "not trusted");
	assert_err(verify(p->old_leaf, p->x, p->n), ERR_INPUT, "not trusted");
	assert_err(verify(p->new_leaf, p->y, p->o), ERR_INPUT, "not trusted");
}

static void bridges_carry_whatever_the_algorithms(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(algorithms) * ARRAY_LEN(algorithms); i++) {
		cleanup(pair_release) struct pair p =
			rotate(algorithms[i / ARRAY_LEN(algorithms)], algorithms[i % ARRAY_LEN(algorithms)]);
		assert_bridges(&p);
		assert_well_made(p.x, p.o);
		assert_well_made(p.y, p.n);
		assert_well_made(p.new_leaf, p.n);
	}
}

static void rsa_4096_bridges_too(void **state)
{
	(void)state;
	cleanup(pair_release) struct pair p = rotate("ECDSA-P256", "RSA-4096");
	assert_bridges(&p);
	cleanup(pair_release) struct pair q = rotate("RSA-4096", "ECDSA-P384");
	assert_bridges(&q);
}

static void a_cross_certificate_is_the_ca_under_another_issuer(void **state)
{
	(void)state;
	static const int nids[] = { NID_key_usage, NID_basic_constraints, NID_subject_alt_name, NID_ext_key_usage,
				    NID_subject_key_identifier };
	cleanup(pair_release) struct pair p = rotate("RSA-2048", "ECDSA-P256");
	const struct cert *const both[][3] = { { p.x, p.n, p.o }, { p.y, p.o, p.n } };
	for (size_t i = 0; i < ARRAY_LEN(both); i++) {
		const struct cert *c = both[i][0], *ca = both[i][1], *issuer = both[i][2];
		assert_same_subject(c, ca);
		for (size_t j = 0; j < ARRAY_LEN(nids); j++)
			assert_same_extension(c, ca, nids[j]);
		assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(c->x509), X509_get0_pubkey(ca->x509)), 1);
		assert_int_not_equal(ASN1_INTEGER_cmp(X509_get0_serialNumber(c->x509),
						      X509_get0_serialNumber(ca->x509)), 0);
		assert_true(cert_issued_by(c, issuer));
		assert_false(cert_issued_by(c, ca));
	}
}

static void signatures_have_the_digest_of_the_key(void **state)
{
	(void)state;
	static const struct {
		const char *algorithm;
		int nid;
	} cases[] = { { "RSA-2048", NID_sha256WithRSAEncryption },
		      { "RSA-4096", NID_sha256WithRSAEncryption },
		      { "ECDSA-P256", NID_ecdsa_with_SHA256 },
		      { "ECDSA-P384", NID_ecdsa_with_SHA384 },
		      { "ECDSA-P521", NID_ecdsa_with_SHA512 } };
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		cleanup(cert_freep) struct cert *c = new_ca(fixture_key(cases[i].algorithm, 0), "g2");
		assert_int_equal(X509_get_signature_nid(c->x509), cases[i].nid);
	}
}

/* X lives neither longer than O nor than N; nor does it begin before O. */
static void a_cross_certificate_outlives_nobody(void **state)
{
	(void)state;
	static const char *const ca[] = { "basicConstraints", "critical,CA:TRUE", NULL };
	static const int64_t ends[][2] = { { DAY_MS, YEAR_MS }, { YEAR_MS, DAY_MS }, { YEAR_MS, YEAR_MS } };
	const struct key *k = fixture_key("ECDSA-P256", 0), *l = fixture_key("ECDSA-P256", 1);
	for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
		cleanup(cert_freep) struct cert *a = fixture_cert(
			&(struct crafted){ .key = k, .extensions = ca, .to_ms = NOW_MS + ends[i][0] });
		cleanup(cert_freep) struct cert *b = fixture_cert(&(struct crafted){
			.key = l, .extensions = ca, .to_ms = NOW_MS + ends[i][1], .from_ms = NOW_MS - MINUTE_MS });
		cleanup(cert_freep) struct cert *c = cross(a, b, l);
		cleanup(cert_freep) struct cert *d = cross(b, a, k);
		int64_t least = ends[i][0] < ends[i][1] ? ends[i][0] : ends[i][1];
		assert_int_equal(cert_not_after_ms(c), NOW_MS + least);
		assert_int_equal(cert_not_after_ms(d), NOW_MS + least);
		assert_int_equal(cert_not_before_ms(c), NOW_MS - MINUTE_MS);
		assert_int_equal(cert_not_before_ms(d), NOW_MS - MINUTE_MS);
	}
}

static void expect_no_cross(const struct cert *ca, const struct cert *issuer, const struct key *issuer_key,
			    int64_t now_ms, const char *why)
{
	struct cert *c = NULL;
	assert_err(ca_cross_sign(ca, issuer, issuer_key, now_ms, &c, &err), ERR_INPUT, why);
	assert_null(c);
}

static void issuers_that_forbid_a_cross_certificate(void **state)
{
	(void)state;
	static const struct {
		const char *const extensions[5];
		const char *why;
	} cases[] = {
		{ { "basicConstraints", "critical,CA:TRUE,pathlen:0", NULL }, "path length 0" },
		{ { "basicConstraints", "critical,CA:TRUE", "nameConstraints", "critical,permitted;DNS:a", NULL },
		  "name constraints" },
		{ { "basicConstraints", "critical,CA:TRUE", "nameConstraints", "permitted;DNS:a", NULL },
		  "name constraints" },
		{ { "basicConstraints", "critical,CA:FALSE", NULL }, "not a CA" },
		{ { "keyUsage", "critical,keyCertSign", NULL }, "not a CA" },
		{ { "basicConstraints", "critical,CA:TRUE", "keyUsage", "digitalSignature", NULL }, "not a CA" },
		{ { "basicConstraints", "critical,CA:TRUE", "1.2.3.4", "critical,DER:0500", NULL }, "unknown critical" },
		{ { "basicConstraints", "critical,CA:TRUE", "keyUsage", "DER:0500", NULL }, "malformed" },
		{ { NULL }, "not a CA" },
	};
	const struct key *k = fixture_key("ECDSA-P256", 0);
	cleanup(cert_freep) struct cert *n = new_ca(fixture_key("ECDSA-P256", 1), "g2");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		cleanup(cert_freep) struct cert *o = crafted(k, cases[i].extensions);
		expect_no_cross(n, o, k, NOW_MS, cases[i].why);
	}
}

static void a_path_length_of_one_is_enough(void **state)
{
	(void)state;
	static const char *const one[] = { "basicConstraints", "critical,CA:TRUE,pathlen:1", NULL };
	const struct key *k = fixture_key("ECDSA-P256", 0), *l = fixture_key("ECDSA-P256", 1);
	cleanup(cert_freep) struct cert *o = crafted(k, one);
	cleanup(cert_freep) struct cert *n = new_ca(l, "g2");
	cleanup(cert_freep) struct cert *x = cross(n, o, k);
	cleanup(cert_freep) struct cert *old_leaf = fixture_apiserver(fixture_key("ECDSA-P256", 2), o, k);
	cleanup(cert_freep) struct cert *leaf = reissue(old_leaf, n, l);
	assert_ok(verify(leaf, x, o));
}

static void cas_that_get_no_cross_certificate(void **state)
{
	(void)state;
	static const char *const not_ca[] = { "basicConstraints", "critical,CA:FALSE", NULL };
	static const char *const odd[] = { "basicConstraints", "critical,CA:TRUE", "1.2.3.4", "critical,DER:0500",
					   NULL };
	static const char *const broken[] = { "basicConstraints", "critical,CA:TRUE", "keyUsage", "DER:0500", NULL };
	const char *const *const shapes[] = { not_ca, odd, broken };
	const struct key *k = fixture_key("ECDSA-P256", 0), *l = fixture_key("ECDSA-P256", 1);
	cleanup(cert_freep) struct cert *issuer = fixture_kubeadm_ca(k);
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		cleanup(cert_freep) struct cert *ca = crafted(l, shapes[i]);
		expect_no_cross(ca, issuer, k, NOW_MS, "is not a CA, or");
	}
	expect_no_cross(issuer, issuer, k, NOW_MS, "the same key");
}

static void the_issuers_key_must_be_its_own(void **state)
{
	(void)state;
	const struct key *other = fixture_key("ECDSA-P384", 0);
	cleanup(pair_release) struct pair p = rotate("RSA-2048", "ECDSA-P256");
	struct cert *c = NULL;
	struct leaf_request r = { .common_name = "a", .client = true, .now_ms = NOW_MS, .validity_ms = DAY_MS };
	expect_no_cross(p.n, p.o, other, NOW_MS, "does not belong to the key");
	expect_no_cross(p.n, p.o, p.new_key, NOW_MS, "does not belong to the key");
	assert_err(leaf_reissue(p.old_leaf, NULL, p.n, other, NOW_MS, 0, &c, &err), ERR_INPUT, "does not belong");
	assert_err(leaf_make(&r, p.leaf_key, p.n, other, &c, &err), ERR_INPUT, "does not belong");
	assert_null(c);
}

static void nothing_is_issued_outside_the_issuers_time(void **state)
{
	(void)state;
	cleanup(pair_release) struct pair p = rotate("RSA-2048", "ECDSA-P256");
	struct cert *c = NULL;
	const int64_t early = NOW_MS - 2 * DAY_MS, late = cert_not_after_ms(p.o);
	struct leaf_request r = { .common_name = "a", .client = true, .now_ms = early, .validity_ms = DAY_MS };
	expect_no_cross(p.n, p.o, p.old_key, early, "is not valid before 20");
	expect_no_cross(p.n, p.o, p.old_key, late, "expired at 20");
	expect_no_cross(p.o, p.n, p.new_key, late, "expired at 20"); /* the CA itself is over */
	assert_err(leaf_reissue(p.old_leaf, NULL, p.o, p.old_key, late, 0, &c, &err), ERR_INPUT, "expired at");
	assert_err(leaf_reissue(p.old_leaf, NULL, p.o, p.old_key, early, 0, &c, &err), ERR_INPUT, "not valid before");
	assert_err(leaf_make(&r, p.leaf_key, p.o, p.old_key, &c, &err), ERR_INPUT, "not valid before");
	r.now_ms = late;
	assert_err(leaf_make(&r, p.leaf_key, p.o, p.old_key, &c, &err), ERR_INPUT, "expired at");
	assert_null(c);
}

/* An old CA as others make them: no SKI, nothing critical, no keyUsage; and pointers to its issuer's services. */
static void old_cas_of_odd_shapes(void **state)
{
	(void)state;
	static const char *const bare[] = { "basicConstraints", "CA:TRUE", NULL };
	static const char *const rich[] = {
		"basicConstraints", "CA:TRUE,pathlen:0",
		"keyUsage", "keyCertSign,cRLSign",
		"subjectKeyIdentifier", "hash",
		"authorityKeyIdentifier", "keyid:always,issuer:always",
		"crlDistributionPoints", "URI:http://example.org/crl",
		"authorityInfoAccess", "caIssuers;URI:http://example.org/ca",
		"issuerAltName", "DNS:issuer.example.org",
		"certificatePolicies", "DER:3007300506032A0304",
		"nameConstraints", "critical,permitted;DNS:example.org",
		NULL,
	};
	const struct key *k = fixture_key("RSA-2048", 0), *l = fixture_key("ECDSA-P256", 1);
	cleanup(cert_freep) struct cert *n = new_ca(l, "g2");
	cleanup(cert_freep) struct cert *o1 = crafted(k, bare);
	cleanup(cert_freep) struct cert *o2 = crafted(k, rich);
	cleanup(cert_freep) struct cert *y1 = cross(o1, n, l);
	cleanup(cert_freep) struct cert *y2 = cross(o2, n, l);
	assert_well_made(y1, n);
	assert_well_made(y2, n);
	assert_true(critical(y1, NID_basic_constraints) && critical(y1, NID_key_usage));
	assert_int_equal(X509_get_key_usage(y1->x509), KU_DIGITAL_SIGNATURE | KU_KEY_ENCIPHERMENT | KU_KEY_CERT_SIGN);
	assert_ski_is_sha1_of_key(y1);
	assert_true(critical(y2, NID_basic_constraints) && critical(y2, NID_key_usage));
	assert_int_equal(X509_get_key_usage(y2->x509), KU_KEY_CERT_SIGN | KU_CRL_SIGN);
	assert_int_equal(cert_path_length(y2), 0);
	assert_same_extension(y2, o2, NID_certificate_policies);
	assert_same_extension(y2, o2, NID_name_constraints);
	assert_same_extension(y2, o2, NID_subject_key_identifier);
	assert_int_equal(X509_get_ext_by_NID(y2->x509, NID_crl_distribution_points, -1), -1);
	assert_int_equal(X509_get_ext_by_NID(y2->x509, NID_info_access, -1), -1);
	assert_int_equal(X509_get_ext_by_NID(y2->x509, NID_issuer_alt_name, -1), -1);
}

/* Go has used SHA-256 since 1.25, others what they like: the AKI is the SKI that the issuer has. */
static void an_old_ca_with_an_identifier_of_its_own(void **state)
{
	(void)state;
	static const char *const ca[] = { "basicConstraints", "critical,CA:TRUE", "subjectKeyIdentifier", "00112233",
					  NULL };
	const struct key *k = fixture_key("RSA-2048", 0), *l = fixture_key("ECDSA-P256", 1);
	cleanup(cert_freep) struct cert *n = new_ca(l, "g2");
	cleanup(cert_freep) struct cert *o = crafted(k, ca);
	cleanup(cert_freep) struct cert *x = cross(n, o, k);
	cleanup(cert_freep) struct cert *y = cross(o, n, l);
	cleanup(cert_freep) struct cert *leaf = fixture_apiserver(fixture_key("ECDSA-P256", 2), o, k);
	cleanup(cert_freep) struct cert *again = reissue(leaf, o, k);
	assert_well_made(x, o);
	assert_well_made(again, o);
	assert_same_extension(y, o, NID_subject_key_identifier);
	assert_ok(verify(again, y, n));
}

/* CAs without SKI and leaves without AKI as OpenSSL's manuals once taught. X names the identifier that Y carries. */
static void an_old_ca_without_key_identifier(void **state)
{
	(void)state;
	static const char *const ca[] = { "basicConstraints", "critical,CA:TRUE", NULL };
	static const char *const leaf[] = { "subjectAltName", "DNS:a", NULL };
	const struct key *k = fixture_key("RSA-2048", 0);
	struct pair p = { .old_key = k, .new_key = fixture_key("ECDSA-P384", 0), .leaf_key = fixture_key("RSA-2048", 3) };
	p.o = crafted(k, ca);
	p.n = new_ca(p.new_key, "g2");
	p.x = cross(p.n, p.o, p.old_key);
	p.y = cross(p.o, p.n, p.new_key);
	p.old_leaf = fixture_cert(&(struct crafted){ .subject = subject_plain,
						     .key = p.leaf_key,
						     .issuer = p.o,
						     .issuer_key = k,
						     .extensions = leaf });
	p.new_leaf = reissue(p.old_leaf, p.n, p.new_key);
	assert_false(cert_has_ski(p.o) || cert_has_aki(p.old_leaf));
	assert_bridges(&p);
	assert_aki_names(p.x, p.o);
	assert_int_equal(ASN1_OCTET_STRING_cmp(X509_get0_authority_key_id(p.x->x509),
					       X509_get0_subject_key_id(p.y->x509)), 0);
	pair_release(&p);
}

/* A leaf whose AKI names its issuer by serial (openssl: issuer:always) knows the old CA's own certificate only: Y has a
 * serial of its own. Reissued from the old CA, it names the key, and Y serves it. */
static void leaves_that_name_their_issuers_serial(void **state)
{
	(void)state;
	static const char *const leaf[] = { "subjectAltName", "DNS:a", "authorityKeyIdentifier",
					    "keyid:always,issuer:always", NULL };
	cleanup(pair_release) struct pair p = rotate("RSA-2048", "ECDSA-P256");
	cleanup(cert_freep) struct cert *by_serial = fixture_cert(&(struct crafted){
		.key = p.leaf_key, .issuer = p.o, .issuer_key = p.old_key, .extensions = leaf });
	cleanup(cert_freep) struct cert *again = reissue(by_serial, p.o, p.old_key);
	cleanup(cert_freep) struct cert *successor = reissue(by_serial, p.n, p.new_key);
	assert_ok(verify(by_serial, NULL, p.o));
	assert_err(verify(by_serial, p.y, p.n), ERR_INPUT, "not trusted");
	assert_ok(verify(again, p.y, p.n));
	assert_ok(verify(successor, p.x, p.o));
}

/* EVP_PKEY_eq looks at public halves; a private half that does not fit shows when the signature is looked at. */
static void a_key_whose_halves_do_not_fit(void **state)
{
	(void)state;
	const struct key *k = fixture_key("ECDSA-P256", 0), *l = fixture_key("ECDSA-P256", 1);
	unsigned char point[256];
	size_t len = 0;
	cleanup(BIGNUM_freep) BIGNUM *number = NULL;
	struct key broken = { NULL };
	struct cert *c = NULL;
	EVP_PKEY_get_octet_string_param(k->pkey, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point), &len);
	EVP_PKEY_get_bn_param(l->pkey, OSSL_PKEY_PARAM_PRIV_KEY, &number);
	OSSL_PARAM_BLD *builder = OSSL_PARAM_BLD_new();
	OSSL_PARAM_BLD_push_utf8_string(builder, OSSL_PKEY_PARAM_GROUP_NAME, "P-256", 0);
	OSSL_PARAM_BLD_push_octet_string(builder, OSSL_PKEY_PARAM_PUB_KEY, point, len);
	OSSL_PARAM_BLD_push_BN(builder, OSSL_PKEY_PARAM_PRIV_KEY, number);
	OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(builder);
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
	EVP_PKEY_fromdata_init(context);
	assert_int_equal(EVP_PKEY_fromdata(context, &broken.pkey, EVP_PKEY_KEYPAIR, params), 1);
	struct ca_request r = { "kubernetes", "g2", NOW_MS, YEAR_MS };
	assert_err(ca_make(&r, &broken, &c, &err), ERR_OTHER, "does not verify");
	assert_null(c);
	EVP_PKEY_CTX_free(context);
	OSSL_PARAM_free(params);
	OSSL_PARAM_BLD_free(builder);
	EVP_PKEY_free(broken.pkey);
}

/* --- Reissued leaves ---------------------------------------------------------------------------------------------- */

struct shape {
	const struct rdn *subject;
	const char *const *extensions;
};

static const struct rdn subject_multi[] = { { "O", V_ASN1_UTF8STRING, "system:nodes", 0 },
					    { "O", V_ASN1_PRINTABLESTRING, "second", -1 },
					    { "CN", V_ASN1_UTF8STRING, "system:node:\xc3\xa9tcd", -1 },
					    { "O", V_ASN1_T61STRING, "third", 0 },
					    { 0 } };
static const struct rdn subject_odd[] = { { "DC", V_ASN1_IA5STRING, "example", 0 },
					  { "C", V_ASN1_PRINTABLESTRING, "DE", 0 },
					  { "emailAddress", V_ASN1_IA5STRING, "a@example.org", 0 },
					  { "CN", V_ASN1_UNIVERSALSTRING, "\0\0\0a", 0 },
					  { "serialNumber", V_ASN1_PRINTABLESTRING, "12", 0 },
					  { 0 } };
static const struct rdn subject_none[] = { { 0 } };

static const char *const bare[] = { NULL };
static const char *const server[] = {
	"keyUsage", "critical,digitalSignature,keyEncipherment", "extendedKeyUsage", "serverAuth",
	"basicConstraints", "critical,CA:FALSE", "subjectAltName", "DNS:cp-1,IP:10.96.0.1,IP:2001:db8::1", NULL };
static const char *const many_names[] = {
	"subjectAltName", "critical,email:a@example.org,URI:spiffe://x/y,DNS:*.example.org,IP:::ffff:10.0.0.1,RID:1.2.3,"
			  "otherName:1.2.3.4;UTF8:x",
	NULL };
static const char *const odd_flags[] = { "extendedKeyUsage", "critical,clientAuth,1.3.6.1.5.2.3.4,serverAuth",
					 "basicConstraints", "CA:FALSE", "keyUsage", "nonRepudiation,dataEncipherment",
					 NULL };
static const char *const backwards[] = { "subjectAltName", "DNS:b,DNS:a", "basicConstraints", "critical,CA:FALSE",
					 "extendedKeyUsage", "clientAuth", "keyUsage", "digitalSignature", NULL };
static const char *const baggage[] = { "subjectAltName", "DNS:a", "authorityInfoAccess",
				       "OCSP;URI:http://example.org", "certificatePolicies", "DER:3007300506032A0304",
				       "1.2.3.4.5", "DER:0500", "subjectKeyIdentifier", "00112233", NULL };

static const struct shape shapes[] = {
	{ subject_plain, bare },      { subject_plain, server },    { subject_plain, many_names },
	{ subject_plain, odd_flags }, { subject_plain, backwards }, { subject_plain, baggage },
	{ subject_multi, bare },      { subject_multi, server },    { subject_odd, server },
	{ subject_odd, odd_flags },   { subject_none, many_names },
};

static void a_reissued_leaf_is_its_predecessor_byte_for_byte(void **state)
{
	(void)state;
	static const int nids[] = { NID_key_usage, NID_ext_key_usage, NID_basic_constraints, NID_subject_alt_name };
	cleanup(pair_release) struct pair p = rotate("RSA-2048", "ECDSA-P384");
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		cleanup(cert_freep) struct cert *old = fixture_cert(&(struct crafted){ .subject = shapes[i].subject,
										       .key = p.leaf_key,
										       .issuer = p.o,
										       .issuer_key = p.old_key,
										       .extensions = shapes[i].extensions });
		cleanup(cert_freep) struct cert *new = reissue(old, p.n, p.new_key);
		assert_same_subject(old, new);
		for (size_t j = 0; j < ARRAY_LEN(nids); j++)
			assert_same_extension(old, new, nids[j]);
		assert_well_made(new, p.n);
		assert_ski_is_sha1_of_key(new);
		assert_int_equal(EVP_PKEY_eq(X509_get0_pubkey(new->x509), p.leaf_key->pkey), 1);
		assert_int_equal(X509_get_ext_by_NID(new->x509, NID_info_access, -1), -1);
	}
}

static void encodings_of_the_subject_are_kept(void **state)
{
	(void)state;
	cleanup(pair_release) struct pair p = rotate("ECDSA-P256", "ECDSA-P256");
	cleanup(cert_freep) struct cert *old = fixture_cert(&(struct crafted){
		.subject = subject_multi, .key = p.leaf_key, .issuer = p.o, .issuer_key = p.old_key });
	cleanup(cert_freep) struct cert *new = reissue(old, p.n, p.new_key);
	static const int types[] = { V_ASN1_UTF8STRING, V_ASN1_PRINTABLESTRING, V_ASN1_UTF8STRING, V_ASN1_T61STRING };
	const X509_NAME *name = X509_get_subject_name(new->x509);
	int seen[V_ASN1_BMPSTRING + 1] = { 0 };
	assert_int_equal(X509_NAME_entry_count(name), ARRAY_LEN(types));
	for (int i = 0; i < (int)ARRAY_LEN(types); i++)
		seen[ASN1_STRING_type(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, i)))]++;
	assert_int_equal(seen[V_ASN1_UTF8STRING], 2);
	assert_int_equal(seen[V_ASN1_PRINTABLESTRING], 1);
	assert_int_equal(seen[V_ASN1_T61STRING], 1);
	assert_int_equal(X509_NAME_ENTRY_set(X509_NAME_get_entry(name, 0)),
			 X509_NAME_ENTRY_set(X509_NAME_get_entry(name, 2))); /* one multi-valued RDN */
}

static void a_new_key_where_asked_for(void **state)
{
	(void)state;
	cleanup(pair_release) struct pair p = rotate("RSA-2048", "ECDSA-P384");
	cleanup(cert_freep) struct cert *c = NULL;
	const char *what = NULL;
	const struct key *k = fixture_key("RSA-2048", 5);
	assert_ok(leaf_reissue(p.old_leaf, k, p.n, p.new_key, NOW_MS, 0, &c, &err));
	assert_true(cert_matches_key(c, k));
	assert_false(cert_matches_key(c, p.leaf_key));
	assert_true(cert_same_profile(p.old_leaf, c, &what));
	assert_ski_is_sha1_of_key(c);
}

static int64_t span_of(const struct cert *c)
{
	return cert_not_after_ms(c) - cert_not_before_ms(c);
}

static void a_leaf_is_valid_as_long_as_its_predecessor(void **state)
{
	(void)state;
	cleanup(pair_release) struct pair p = rotate("ECDSA-P256", "ECDSA-P384");
	cleanup(cert_freep) struct cert *again = reissue(p.new_leaf, p.n, p.new_key);
	assert_int_equal(cert_not_before_ms(p.new_leaf), NOW_MS - BACKDATE);
	assert_int_equal(span_of(p.new_leaf), span_of(p.old_leaf));
	assert_int_equal(span_of(again), span_of(p.old_leaf)); /* nor does it grow */
}

static void the_validity_asked_for_counts_from_now(void **state)
{
	(void)state;
	cleanup(pair_release) struct pair p = rotate("ECDSA-P256", "ECDSA-P384");
	cleanup(cert_freep) struct cert *c = NULL;
	assert_ok(leaf_reissue(p.old_leaf, NULL, p.n, p.new_key, NOW_MS, DAY_MS, &c, &err));
	assert_int_equal(cert_not_after_ms(c), NOW_MS + DAY_MS);
	assert_int_equal(cert_not_before_ms(c), NOW_MS - BACKDATE);
}

static void a_leaf_ends_with_its_issuer(void **state)
{
	(void)state;
	cleanup(pair_release) struct pair p = rotate("ECDSA-P256", "ECDSA-P384");
	cleanup(cert_freep) struct cert *c = NULL;
	cleanup(cert_freep) struct cert *made = NULL;
	struct leaf_request r = { .common_name = "a", .client = true, .now_ms = NOW_MS, .validity_ms = 50 * YEAR_MS };
	assert_ok(leaf_reissue(p.old_leaf, NULL, p.n, p.new_key, NOW_MS, 20 * YEAR_MS, &c, &err));
	assert_int_equal(cert_not_after_ms(c), cert_not_after_ms(p.n));
	assert_ok(leaf_make(&r, p.leaf_key, p.n, p.new_key, &made, &err));
	assert_int_equal(cert_not_after_ms(made), cert_not_after_ms(p.n));
}

static void a_leaf_does_not_begin_before_its_issuer(void **state)
{
	(void)state;
	static const char *const ca[] = { "basicConstraints", "critical,CA:TRUE", NULL };
	const struct key *k = fixture_key("ECDSA-P256", 0);
	cleanup(cert_freep) struct cert *young =
		fixture_cert(&(struct crafted){ .key = k, .extensions = ca, .from_ms = NOW_MS - MINUTE_MS });
	cleanup(cert_freep) struct cert *old = fixture_apiserver(fixture_key("ECDSA-P256", 2), young, k);
	cleanup(cert_freep) struct cert *c = reissue(old, young, k);
	assert_int_equal(cert_not_before_ms(c), NOW_MS - MINUTE_MS);
}

static void validities_that_make_no_sense(void **state)
{
	(void)state;
	cleanup(pair_release) struct pair p = rotate("ECDSA-P256", "ECDSA-P384");
	cleanup(cert_freep) struct cert *backwards_in_time = fixture_cert(&(struct crafted){ .key = p.leaf_key,
		.issuer = p.o, .issuer_key = p.old_key, .from_ms = NOW_MS, .to_ms = NOW_MS - DAY_MS });
	cleanup(cert_freep) struct cert *brief = fixture_cert(&(struct crafted){ .key = p.leaf_key,
		.issuer = p.o, .issuer_key = p.old_key, .from_ms = NOW_MS, .to_ms = NOW_MS + MINUTE_MS });
	struct cert *c = NULL;
	assert_err(leaf_reissue(p.old_leaf, NULL, p.n, p.new_key, NOW_MS, -1, &c, &err), ERR_INPUT, "out of range");
	assert_err(leaf_reissue(p.old_leaf, NULL, p.n, p.new_key, NOW_MS, INT64_MAX, &c, &err), ERR_INPUT, "out of range");
	assert_err(leaf_reissue(backwards_in_time, NULL, p.n, p.new_key, NOW_MS, 0, &c, &err), ERR_INPUT, "out of range");
	assert_err(leaf_reissue(brief, NULL, p.n, p.new_key, NOW_MS, 0, &c, &err), ERR_INPUT, "over already");
	assert_null(c);
}

static void expect_no_reissue(const char *const *extensions, const char *why)
{
	const struct key *k = fixture_key("ECDSA-P256", 0);
	cleanup(cert_freep) struct cert *ca = fixture_kubeadm_ca(k);
	cleanup(cert_freep) struct cert *old = fixture_cert(&(struct crafted){
		.key = fixture_key("ECDSA-P256", 2), .issuer = ca, .issuer_key = k, .extensions = extensions });
	struct cert *c = NULL;
	assert_err(leaf_reissue(old, NULL, ca, k, NOW_MS, 0, &c, &err), ERR_INPUT, why);
	assert_null(c);
}

static void predecessors_that_cannot_be_followed(void **state)
{
	(void)state;
	static const char *const unknown[] = { "1.2.3.4", "critical,DER:0500", NULL };
	static const char *const policy[] = { "certificatePolicies", "critical,DER:3007300506032A0304", NULL };
	static const char *const ca[] = { "basicConstraints", "critical,CA:TRUE", NULL };
	static const char *const twice[] = { "subjectAltName", "DNS:a", "subjectAltName", "DNS:b", NULL };
	static const char *const broken[] = { "subjectAltName", "DER:0500", NULL };
	expect_no_reissue(unknown, "critical extension that a new certificate would not carry");
	expect_no_reissue(policy, "critical extension that a new certificate would not carry");
	expect_no_reissue(ca, "is a CA");
	expect_no_reissue(twice, "malformed extensions");
	expect_no_reissue(broken, "malformed extensions");
}

static void a_leaf_issues_nothing(void **state)
{
	(void)state;
	cleanup(pair_release) struct pair p = rotate("ECDSA-P256", "ECDSA-P384");
	struct cert *c = NULL;
	struct leaf_request r = { .common_name = "a", .client = true, .now_ms = NOW_MS, .validity_ms = DAY_MS };
	assert_err(leaf_reissue(p.old_leaf, NULL, p.new_leaf, p.leaf_key, NOW_MS, 0, &c, &err), ERR_INPUT, "is not a CA");
	assert_err(leaf_make(&r, p.leaf_key, p.new_leaf, p.leaf_key, &c, &err), ERR_INPUT, "is not a CA");
	assert_null(c);
}

/* --- Leaves with a profile of their own ---------------------------------------------------------------------------- */

static void a_leaf_as_asked_for(void **state)
{
	(void)state;
	static const char *const names[] = { "localhost", "kubernetes.default.svc" };
	cleanup(pair_release) struct pair p = rotate("RSA-2048", "ECDSA-P256");
	cleanup(cert_freep) struct cert *c = NULL;
	cleanup(strs_release) struct strs sans = { 0 };
	struct leaf_request r = { .common_name = "kubernetes-admin", .organization = "kubeadm:cluster-admins",
				  .client = true, .server = true, .dns_names = names, .n_dns_names = 2,
				  .now_ms = NOW_MS, .validity_ms = DAY_MS };
	assert_ok(leaf_make(&r, p.leaf_key, p.n, p.new_key, &c, &err));
	cleanup(str_freep) char *subject = cert_subject(c);
	assert_string_equal(subject, "CN=kubernetes-admin,O=kubeadm:cluster-admins");
	assert_well_made(c, p.n);
	assert_int_equal(X509_get_key_usage(c->x509), KU_DIGITAL_SIGNATURE | KU_KEY_ENCIPHERMENT);
	assert_int_equal(X509_get_extended_key_usage(c->x509), XKU_SSL_SERVER | XKU_SSL_CLIENT);
	assert_true(critical(c, NID_basic_constraints) && critical(c, NID_key_usage));
	assert_false(cert_is_ca(c));
	assert_int_equal(cert_not_before_ms(c), NOW_MS - BACKDATE);
	assert_int_equal(cert_not_after_ms(c), NOW_MS + DAY_MS);
	cert_sans(c, &sans);
	assert_int_equal(sans.n, 2);
	assert_string_equal(sans.items[0], "DNS:localhost");
	assert_string_equal(sans.items[1], "DNS:kubernetes.default.svc");
}

static void a_plain_client_leaf(void **state)
{
	(void)state;
	cleanup(pair_release) struct pair p = rotate("RSA-2048", "ECDSA-P256");
	cleanup(cert_freep) struct cert *c = NULL;
	struct leaf_request r = { .common_name = "probe", .client = true, .now_ms = NOW_MS, .validity_ms = DAY_MS };
	assert_ok(leaf_make(&r, p.leaf_key, p.o, p.old_key, &c, &err));
	cleanup(str_freep) char *subject = cert_subject(c);
	assert_string_equal(subject, "CN=probe");
	assert_int_equal(X509_get_extended_key_usage(c->x509), XKU_SSL_CLIENT);
	assert_int_equal(X509_get_ext_by_NID(c->x509, NID_subject_alt_name, -1), -1);
}

/* X.520 would end it at 64; nodes have names of up to 253. */
static void a_long_common_name(void **state)
{
	(void)state;
	char name[12 + 253 + 1];
	const struct key *k = fixture_key("ECDSA-P256", 0);
	cleanup(cert_freep) struct cert *ca = fixture_kubeadm_ca(k);
	cleanup(cert_freep) struct cert *c = NULL;
	cleanup(buf_release) struct buf csr = BUF_INIT;
	memset(name, 'n', sizeof(name) - 1);
	memcpy(name, "system:node:", 12);
	name[sizeof(name) - 1] = '\0';
	struct leaf_request r = { .common_name = name, .organization = "system:nodes", .client = true,
				  .now_ms = NOW_MS, .validity_ms = DAY_MS };
	assert_ok(leaf_make(&r, k, ca, k, &c, &err));
	cleanup(str_freep) char *read = cert_subject_attribute(c, "CN");
	assert_string_equal(read, name);
	assert_ok(csr_make_subject(name, "system:nodes", k, &csr, &err));
}

static void expect_no_leaf(struct leaf_request r, const char *why)
{
	const struct key *k = fixture_key("ECDSA-P256", 0);
	cleanup(cert_freep) struct cert *ca = fixture_kubeadm_ca(k);
	struct cert *c = NULL;
	r.now_ms = NOW_MS;
	assert_err(leaf_make(&r, k, ca, k, &c, &err), ERR_INPUT, why);
	assert_null(c);
}

static void leaf_requests_that_make_no_sense(void **state)
{
	(void)state;
	static const char *const empty[] = { "fine", "" };
	static const char *const foreign[] = { "b\xc3\xbc" "cher.example" };
	expect_no_leaf((struct leaf_request){ .common_name = "a", .validity_ms = 1000 }, "server, a client");
	expect_no_leaf((struct leaf_request){ .common_name = "", .client = true, .validity_ms = 1000 }, "CN");
	expect_no_leaf((struct leaf_request){ .client = true, .validity_ms = 1000 }, "CN");
	expect_no_leaf((struct leaf_request){ .common_name = "a", .organization = "", .client = true, .validity_ms = 1000 },
		       "O of the subject");
	expect_no_leaf((struct leaf_request){ .common_name = "a", .client = true, .validity_ms = 0 }, "validity");
	expect_no_leaf((struct leaf_request){ .common_name = "a", .server = true, .validity_ms = 1000,
					      .dns_names = empty, .n_dns_names = 2 }, "not a DNS name");
	expect_no_leaf((struct leaf_request){ .common_name = "a", .server = true, .validity_ms = 1000,
					      .dns_names = foreign, .n_dns_names = 1 }, "not a DNS name");
}

/* --- Requests ------------------------------------------------------------------------------------------------------ */

static X509_REQ *read_request(const struct buf *pem)
{
	cleanup(BIO_freep) BIO *bio = BIO_new_mem_buf(pem->data, (int)pem->len);
	X509_REQ *req = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
	assert_non_null(req);
	assert_int_equal(X509_REQ_verify(req, X509_REQ_get0_pubkey(req)), 1);
	return req;
}

static void a_request_asks_for_the_same_names(void **state)
{
	(void)state;
	const struct key *k = fixture_key("ECDSA-P384", 0);
	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		cleanup(buf_release) struct buf pem = BUF_INIT;
		cleanup(cert_freep) struct cert *old = fixture_cert(&(struct crafted){ .subject = shapes[i].subject,
										       .key = fixture_key("RSA-2048", 0),
										       .extensions = shapes[i].extensions });
		assert_ok(csr_make(old, k, &pem, &err));
		cleanup(X509_REQ_freep) X509_REQ *req = read_request(&pem);
		STACK_OF(X509_EXTENSION) *wanted = X509_REQ_get_extensions(req);
		int at = X509_get_ext_by_NID(old->x509, NID_subject_alt_name, -1);
		assert_true(pki_same_name(X509_REQ_get_subject_name(req), X509_get_subject_name(old->x509)));
		assert_int_equal(EVP_PKEY_eq(X509_REQ_get0_pubkey(req), k->pkey), 1);
		assert_int_equal(wanted ? sk_X509_EXTENSION_num(wanted) : 0, at < 0 ? 0 : 1);
		if (at >= 0) {
			X509_EXTENSION *a = sk_X509_EXTENSION_value(wanted, 0), *b = X509_get_ext(old->x509, at);
			assert_int_equal(X509_EXTENSION_get_critical(a), X509_EXTENSION_get_critical(b));
			assert_int_equal(ASN1_OCTET_STRING_cmp(X509_EXTENSION_get_data(a), X509_EXTENSION_get_data(b)), 0);
		}
		sk_X509_EXTENSION_pop_free(wanted, X509_EXTENSION_free);
		ERR_clear_error();
	}
}

static void a_request_with_a_plain_subject(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf pem = BUF_INIT;
	cleanup(buf_release) struct buf untouched = BUF_INIT;
	assert_ok(csr_make_subject("system:node:a", "system:nodes", fixture_key("RSA-2048", 0), &pem, &err));
	cleanup(X509_REQ_freep) X509_REQ *req = read_request(&pem);
	char *text = X509_NAME_oneline(X509_REQ_get_subject_name(req), NULL, 0);
	assert_string_equal(text, "/O=system:nodes/CN=system:node:a");
	OPENSSL_free(text);
	assert_err(csr_make_subject("", NULL, fixture_key("RSA-2048", 0), &untouched, &err), ERR_INPUT, "CN");
	assert_err(csr_make_subject("a", NULL, fixture_key("ED25519", 0), &untouched, &err), ERR_INPUT, "not supported");
	assert_int_equal(untouched.len, 0);
}

static void a_leaf_for_a_request(void **state)
{
	(void)state;
	const struct key *k = fixture_key("RSA-2048", 0);
	cleanup(pair_release) struct pair p = rotate("ECDSA-P384", "ECDSA-P256");
	cleanup(buf_release) struct buf pem = BUF_INIT;
	cleanup(cert_freep) struct cert *c = NULL;
	struct leaf_request r = { .common_name = "probe", .client = true, .now_ms = NOW_MS, .validity_ms = DAY_MS };
	assert_ok(csr_make(p.old_leaf, k, &pem, &err)); /* asks for other names, which are ignored */
	assert_ok(leaf_make_for_csr(&r, buf_str(&pem), p.n, p.new_key, &c, &err));
	cleanup(str_freep) char *subject = cert_subject(c);
	assert_string_equal(subject, "CN=probe");
	assert_true(cert_matches_key(c, k));
	assert_int_equal(X509_get_ext_by_NID(c->x509, NID_subject_alt_name, -1), -1);
	assert_well_made(c, p.n);
}

static void expect_bad_request(const char *pem, const char *why)
{
	const struct key *k = fixture_key("ECDSA-P256", 0);
	cleanup(cert_freep) struct cert *ca = fixture_kubeadm_ca(k);
	struct cert *c = NULL;
	struct leaf_request r = { .common_name = "probe", .client = true, .now_ms = NOW_MS, .validity_ms = DAY_MS };
	assert_err(leaf_make_for_csr(&r, pem, ca, k, &c, &err), ERR_INPUT, why);
	assert_null(c);
}

static void requests_that_are_refused(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf pem = BUF_INIT;
	cleanup(buf_release) struct buf key_pem = BUF_SECRET;
	cleanup(buf_release) struct buf forged = BUF_INIT;
	assert_ok(csr_make_subject("a", NULL, fixture_key("ECDSA-P256", 0), &pem, &err));
	cleanup(X509_REQ_freep) X509_REQ *req = read_request(&pem);
	X509_REQ_set_pubkey(req, fixture_key("ECDSA-P256", 1)->pkey); /* signed by another key */
	cleanup(BIO_freep) BIO *bio = BIO_new(BIO_s_mem());
	PEM_write_bio_X509_REQ(bio, req);
	pki_bio_take(bio, &forged);
	expect_bad_request(buf_str(&forged), "signature is wrong");
	expect_bad_request("", "no certificate request");
	expect_bad_request("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "broken");
	key_to_pem(fixture_key("ECDSA-P256", 0), &key_pem);
	expect_bad_request(buf_str(&key_pem), "expected one CERTIFICATE REQUEST");
	for (size_t len = 1; len < pem.len - 1; len += 7) {
		cleanup(str_freep) char *cut = str_ndup(pem.data, len);
		expect_bad_request(cut, "");
	}
	char *twice = str_printf("%s%s", buf_str(&pem), buf_str(&pem));
	expect_bad_request(twice, "found more");
	str_freep(&twice);
}

static int teardown(void **state)
{
	(void)state;
	fixture_keys_release();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_algorithm_is_generated),
		cmocka_unit_test(other_algorithms_are_refused),
		cmocka_unit_test(keys_are_fresh),
		cmocka_unit_test(a_new_ca_has_kubeadms_profile),
		cmocka_unit_test(times_are_cut_to_seconds),
		cmocka_unit_test(dates_beyond_2049),
		cmocka_unit_test(a_ca_request_that_makes_no_sense),
		cmocka_unit_test(a_key_that_cannot_sign_is_refused),
		cmocka_unit_test(serials_have_128_random_bits),
		cmocka_unit_test(bridges_carry_whatever_the_algorithms),
		cmocka_unit_test(rsa_4096_bridges_too),
		cmocka_unit_test(a_cross_certificate_is_the_ca_under_another_issuer),
		cmocka_unit_test(signatures_have_the_digest_of_the_key),
		cmocka_unit_test(a_cross_certificate_outlives_nobody),
		cmocka_unit_test(issuers_that_forbid_a_cross_certificate),
		cmocka_unit_test(a_path_length_of_one_is_enough),
		cmocka_unit_test(cas_that_get_no_cross_certificate),
		cmocka_unit_test(the_issuers_key_must_be_its_own),
		cmocka_unit_test(nothing_is_issued_outside_the_issuers_time),
		cmocka_unit_test(old_cas_of_odd_shapes),
		cmocka_unit_test(an_old_ca_with_an_identifier_of_its_own),
		cmocka_unit_test(an_old_ca_without_key_identifier),
		cmocka_unit_test(leaves_that_name_their_issuers_serial),
		cmocka_unit_test(a_key_whose_halves_do_not_fit),
		cmocka_unit_test(a_reissued_leaf_is_its_predecessor_byte_for_byte),
		cmocka_unit_test(encodings_of_the_subject_are_kept),
		cmocka_unit_test(a_new_key_where_asked_for),
		cmocka_unit_test(a_leaf_is_valid_as_long_as_its_predecessor),
		cmocka_unit_test(the_validity_asked_for_counts_from_now),
		cmocka_unit_test(a_leaf_ends_with_its_issuer),
		cmocka_unit_test(a_leaf_does_not_begin_before_its_issuer),
		cmocka_unit_test(validities_that_make_no_sense),
		cmocka_unit_test(predecessors_that_cannot_be_followed),
		cmocka_unit_test(a_leaf_issues_nothing),
		cmocka_unit_test(a_leaf_as_asked_for),
		cmocka_unit_test(a_plain_client_leaf),
		cmocka_unit_test(a_long_common_name),
		cmocka_unit_test(leaf_requests_that_make_no_sense),
		cmocka_unit_test(a_request_asks_for_the_same_names),
		cmocka_unit_test(a_request_with_a_plain_subject),
		cmocka_unit_test(a_leaf_for_a_request),
		cmocka_unit_test(requests_that_are_refused),
	};
	return cmocka_run_group_tests_name("pki_make", tests, NULL, teardown);
}
