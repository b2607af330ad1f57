/* pki: reading and writing PEM, looking at certificates, verifying, digests and encodings. */
#include "pki_assert.h"

#include <openssl/pem.h>

#include <stdlib.h>

/* --- A fixed certificate, made by `openssl req -x509`; the expected values are from `openssl x509` and `sha256sum` --- */
#include "pki_fixed.h"

static struct cert *fixed(void)
{
	struct cert *c = NULL;
	assert_ok(cert_from_pem(fixed_pem, strlen(fixed_pem), &c, &err));
	return c;
}

static struct cert *simple(void)
{
	return fixture_cert(&(struct crafted){ .key = fixture_key("ECDSA-P256", 0) });
}

/* --- Certificates in PEM ----------------------------------------------------------------------------------------- */

static void certificates_keep_their_order(void **state)
{
	(void)state;
	cleanup(cert_freep) struct cert *a = simple();
	cleanup(cert_freep) struct cert *b = fixed();
	cleanup(buf_release) struct buf text = BUF_INIT;
	cleanup(buf_release) struct buf again = BUF_INIT;
	cleanup(certs_release) struct certs list = { 0 };
	cert_to_pem(a, &text);
	cert_to_pem(b, &text);
	assert_ok(certs_from_pem(text.data, text.len, &list, &err));
	assert_int_equal(list.n, 2);
	assert_true(cert_equal(list.items[0], a));
	assert_true(cert_equal(list.items[1], b));
	assert_false(cert_equal(a, b));
	certs_to_pem(&list, &again);
	assert_string_equal(buf_str(&again), buf_str(&text));
}

static void a_copy_outlives_its_origin(void **state)
{
	(void)state;
	struct cert *c = fixed();
	cleanup(cert_freep) struct cert *copy = cert_copy(c);
	char hex[CERT_FINGERPRINT_SIZE];
	assert_true(cert_equal(c, copy));
	cert_freep(&c);
	assert_null(c);
	cert_fingerprint(copy, hex);
	assert_string_equal(hex, fixed_fingerprint);
}

static void other_blocks_and_comments_are_skipped(void **state)
{
	(void)state;
	cleanup(cert_freep) struct cert *first = NULL;
	cleanup(cert_freep) struct cert *a = simple();
	cleanup(certs_release) struct certs list = { 0 };
	cleanup(buf_release) struct buf text = BUF_SECRET;
	buf_add_str(&text, "# trust of this cluster\nsubject=CN = kubernetes\n\n");
	buf_add_str(&text, "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n");
	key_to_pem(fixture_key("ECDSA-P256", 0), &text);
	cert_to_pem(a, &text);
	buf_add_str(&text, "junk between blocks: ---- not a block ----\n\r\n\x01\x02 BEGIN CERTIFICATE\n");
	buf_add(&text, "zero\0byte\n", 10);
	buf_add_str(&text, fixed_pem);
	buf_add_str(&text, "the end, without a line break");
	assert_ok(certs_from_pem(text.data, text.len, &list, &err));
	assert_int_equal(list.n, 2);
	assert_true(cert_equal(list.items[0], a));
	assert_ok(cert_from_pem(text.data, text.len, &first, &err));
	assert_true(cert_equal(first, a));
}

static void line_ends_of_windows_are_fine(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf text = BUF_INIT;
	cleanup(cert_freep) struct cert *c = NULL;
	for (const char *at = fixed_pem; *at; at++) {
		if (*at == '\n')
			buf_add_char(&text, '\r');
		buf_add_char(&text, *at);
	}
	assert_ok(cert_from_pem(text.data, text.len, &c, &err));
}

static void nothing_to_read_is_an_error(void **state)
{
	(void)state;
	struct certs list = { 0 };
	struct cert *c = NULL;
	assert_err(certs_from_pem("", 0, &list, &err), ERR_INPUT, "no certificate");
	assert_err(certs_from_pem(NULL, 0, &list, &err), ERR_INPUT, "no certificate");
	assert_err(certs_from_pem("words\n", 6, &list, &err), ERR_INPUT, "no certificate");
	assert_err(cert_from_pem("words\n", 6, &c, &err), ERR_INPUT, "no certificate");
	assert_int_equal(list.n, 0);
	assert_null(c);
}

static void a_key_is_no_certificate(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf text = BUF_SECRET;
	struct certs list = { 0 };
	key_to_pem(fixture_key("ECDSA-P256", 0), &text);
	assert_err(certs_from_pem(text.data, text.len, &list, &err), ERR_INPUT, "no certificate");
}

static void sixty_four_certificates_and_no_more(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf text = BUF_INIT;
	cleanup(certs_release) struct certs list = { 0 };
	struct certs more = { 0 };
	for (int i = 0; i < 64; i++)
		buf_add_str(&text, fixed_pem);
	assert_ok(certs_from_pem(text.data, text.len, &list, &err));
	assert_int_equal(list.n, 64);
	buf_add_str(&text, fixed_pem);
	assert_err(certs_from_pem(text.data, text.len, &more, &err), ERR_INPUT, "more than 64");
	assert_int_equal(more.n, 0);
}

static void count_equal(void *context, const struct cert *c)
{
	size_t *n = context;
	cleanup(cert_freep) struct cert *fixed = NULL;
	assert_ok(cert_from_pem(fixed_pem, strlen(fixed_pem), &fixed, &err));
	*n += cert_equal(c, fixed);
}

static void a_scan_finds_each_whatever_stands_between(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf text = BUF_INIT;
	size_t n = 0;
	for (int i = 0; i < 70; i++)
		buf_addf(&text, "# a comment\n%s-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", fixed_pem);
	buf_add(&text, fixed_pem, strlen(fixed_pem) - 5); /* cut off */
	certs_scan(buf_str(&text), count_equal, &n);
	assert_int_equal(n, 70);
	certs_scan("", count_equal, &n);
	certs_scan("-----BEGIN CERTIFICATE-----", count_equal, &n);
	assert_int_equal(n, 70);
}

static void text_over_four_mebibytes_is_refused(void **state)
{
	(void)state;
	size_t len = ((size_t)4 << 20) + 1;
	cleanup(str_freep) char *text = mem_alloc(len);
	struct certs list = { 0 };
	struct key *k = NULL;
	memset(text, '\n', len);
	assert_err(certs_from_pem(text, len, &list, &err), ERR_INPUT, "the limit is 4194304");
	assert_err(key_from_pem(text, len, &k, &err), ERR_INPUT, "the limit");
	memcpy(text, fixed_pem, strlen(fixed_pem));
	assert_ok(certs_from_pem(text, len - 1, &list, &err));
	certs_release(&list);
}

/* A bundle cut anywhere: the whole blocks before the cut where nothing of another is left, else an error. */
static void every_truncation_of_a_bundle(void **state)
{
	(void)state;
	const size_t begin = strlen("-----BEGIN "), one = strlen(fixed_pem);
	cleanup(buf_release) struct buf text = BUF_INIT;
	buf_add_str(&text, fixed_pem);
	buf_add_str(&text, fixed_pem);
	for (size_t len = 0; len <= text.len; len++) {
		cleanup(certs_release) struct certs list = { 0 };
		cleanup(str_freep) char *cut = str_ndup(text.data, len); /* so that ASan sees a read too far */
		size_t whole = (len + 1) / one; /* the last line break may be missing */
		size_t rest = len + 1 - whole * one;
		bool good = whole && (rest <= begin || whole == 2);
		if (good) {
			assert_ok(certs_from_pem(cut, len, &list, &err));
			assert_int_equal(list.n, whole);
		} else {
			assert_err(certs_from_pem(cut, len, &list, &err), ERR_INPUT, "");
			assert_int_equal(list.n, 0);
		}
	}
}

static void expect_broken(const char *before, const char *text, const char *after)
{
	cleanup(buf_release) struct buf all = BUF_INIT;
	struct certs list = { 0 };
	struct cert *c = NULL;
	buf_add_str(&all, before);
	buf_add_str(&all, text);
	buf_add_str(&all, after);
	assert_err(certs_from_pem(all.data, all.len, &list, &err), ERR_INPUT, "broken");
	assert_err(cert_from_pem(all.data, all.len, &c, &err), ERR_INPUT, "broken");
}

static void a_broken_block_is_never_skipped(void **state)
{
	(void)state;
	static const char *const broken[] = {
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",      /* no DER */
		"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",            /* empty */
		"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",      /* no base64 */
		"-----BEGIN CERTIFICATE-----\nMAMC\n-----END CERT-----\n",             /* another end */
		"-----BEGIN CERTIFICATE-----\nMAMC\n",                                 /* no end */
		"-----BEGIN CERTIFICATE----\nMAMC\n-----END CERTIFICATE-----\n",       /* a dash too few */
		"-----BEGIN CERTIFICATE----- x\nMAMC\n-----END CERTIFICATE-----\n",    /* words behind */
		"-----BEGIN CERTIFICATE\n",
		"-----BEGIN CERTIFICATE-----\nMAMC\n-----BEGIN CERTIFICATE-----\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
		expect_broken("", broken[i], "");
		expect_broken(fixed_pem, broken[i], "");
		expect_broken(fixed_pem, broken[i], fixed_pem);
	}
}

static void the_broken_certificate_is_named(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf all = BUF_INIT;
	struct certs list = { 0 };
	buf_add_str(&all, fixed_pem);
	buf_add_str(&all, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
	assert_err(certs_from_pem(all.data, all.len, &list, &err), ERR_INPUT, "certificate 2: broken certificate");
}

static void headers_in_a_certificate_block_are_refused(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf text = BUF_INIT;
	struct certs list = { 0 };
	buf_add_str(&text, "-----BEGIN CERTIFICATE-----\nX-Note: client-go would skip this\n\n");
	buf_add_str(&text, strchr(fixed_pem, '\n') + 1);
	assert_err(certs_from_pem(text.data, text.len, &list, &err), ERR_INPUT, "headers");
}

static void bytes_after_the_certificate_are_refused(void **state)
{
	(void)state;
	cleanup(cert_freep) struct cert *c = fixed();
	cleanup(buf_release) struct buf text = BUF_INIT;
	cleanup(BIO_freep) BIO *bio = BIO_new(BIO_s_mem());
	struct certs list = { 0 };
	unsigned char *der = NULL;
	int len = i2d_X509(c->x509, &der);
	unsigned char *longer = mem_alloc((size_t)len + 1);
	memcpy(longer, der, (size_t)len);
	PEM_write_bio(bio, PEM_STRING_X509, "", longer, len + 1);
	pki_bio_take(bio, &text);
	assert_err(certs_from_pem(text.data, text.len, &list, &err), ERR_INPUT, "bytes after its end");
	free(longer);
	OPENSSL_free(der);
}

static void expect_no_dates(struct crafted how)
{
	struct certs list = { 0 };
	cleanup(buf_release) struct buf text = BUF_INIT;
	how.key = fixture_key("ECDSA-P256", 0);
	cleanup(cert_freep) struct cert *c = fixture_cert(&how);
	cert_to_pem(c, &text);
	ERR_clear_error();
	/* OpenSSL 3.5 refuses some of them itself */
	assert_err(certs_from_pem(text.data, text.len, &list, &err), ERR_INPUT, "certificate 1: ");
}

static void dates_that_are_none_are_refused(void **state)
{
	(void)state;
	static const char *const dates[] = { "991399000000Z", "9999", "20300101000000", "" };
	for (size_t i = 0; i < ARRAY_LEN(dates); i++) {
		expect_no_dates((struct crafted){ .raw_not_after = dates[i] });
		expect_no_dates((struct crafted){ .raw_not_before = dates[i] });
	}
}

static void look_at_everything(const struct cert *c)
{
	char hex[CERT_FINGERPRINT_SIZE];
	cleanup(str_freep) char *subject = cert_subject(c);
	cleanup(str_freep) char *issuer = cert_issuer_name(c);
	cleanup(str_freep) char *common_name = cert_subject_attribute(c, "CN");
	cleanup(str_freep) char *serial = cert_serial_hex(c);
	cleanup(str_freep) char *algorithm = cert_key_algorithm(c);
	cleanup(strs_release) struct strs sans = { 0 };
	cleanup(certs_release) struct certs roots = { 0 };
	const char *what = NULL;
	cert_fingerprint(c, hex);
	cert_spki_sha256(c, hex);
	cert_sans(c, &sans);
	(void)(cert_is_ca(c) + cert_has_ski(c) + cert_has_aki(c) + cert_path_length(c));
	(void)(cert_has_name_constraints(c) + cert_has_unknown_critical_extension(c) + cert_issued_by(c, c));
	(void)cert_matches_key(c, fixture_key("RSA-2048", 0));
	assert_true(cert_same_profile(c, c, &what));
	certs_add(&roots, cert_copy(c));
	(void)cert_verify(c, NULL, &roots, "server", NOW_MS, &err).ok;
	assert_queue_empty();
}

/* Whatever byte is wrong: an error, or a certificate that can be looked at. */
static void every_changed_byte_of_the_der(void **state)
{
	(void)state;
	cleanup(cert_freep) struct cert *ca = fixture_kubeadm_ca(fixture_key("ECDSA-P256", 1));
	cleanup(cert_freep) struct cert *c =
		fixture_apiserver(fixture_key("ECDSA-P256", 0), ca, fixture_key("ECDSA-P256", 1));
	static const unsigned char masks[] = { 0x01, 0x20, 0x80, 0xff };
	unsigned char *der = NULL;
	int len = i2d_X509(c->x509, &der), read = 0;
	for (int i = 0; i < len * (int)ARRAY_LEN(masks); i++) {
		cleanup(BIO_freep) BIO *bio = BIO_new(BIO_s_mem());
		cleanup(buf_release) struct buf text = BUF_INIT;
		cleanup(cert_freep) struct cert *changed = NULL;
		unsigned char mask = masks[(size_t)i % ARRAY_LEN(masks)];
		der[i / (int)ARRAY_LEN(masks)] ^= mask;
		PEM_write_bio(bio, PEM_STRING_X509, "", der, len);
		pki_bio_take(bio, &text);
		der[i / (int)ARRAY_LEN(masks)] ^= mask;
		if (cert_from_pem(text.data, text.len, &changed, &err).ok) {
			assert_false(cert_equal(c, changed));
			look_at_everything(changed);
			read++;
		}
		assert_queue_empty();
	}
	assert_in_range(read, 100, len * (int)ARRAY_LEN(masks));
	OPENSSL_free(der);
}

/* --- Keys in PEM ------------------------------------------------------------------------------------------------- */

static void expect_label(const char *algorithm, const char *label)
{
	cleanup(buf_release) struct buf text = BUF_SECRET;
	cleanup(buf_release) struct buf again = BUF_SECRET;
	cleanup(key_freep) struct key *k = NULL;
	key_to_pem(fixture_key(algorithm, 0), &text);
	assert_true(str_starts(buf_str(&text), label));
	assert_ok(key_from_pem(text.data, text.len, &k, &err));
	assert_int_equal(EVP_PKEY_eq(k->pkey, fixture_key(algorithm, 0)->pkey), 1);
	key_to_pem(k, &again);
	assert_string_equal(buf_str(&again), buf_str(&text));
}

static void keys_are_written_as_kubeadm_does(void **state)
{
	(void)state;
	expect_label("RSA-2048", "-----BEGIN RSA PRIVATE KEY-----\nMII");
	expect_label("ECDSA-P256", "-----BEGIN EC PRIVATE KEY-----\nM");
	expect_label("ECDSA-P384", "-----BEGIN EC PRIVATE KEY-----\nM");
	expect_label("ECDSA-P521", "-----BEGIN EC PRIVATE KEY-----\nM");
	expect_label("ED25519", "-----BEGIN PRIVATE KEY-----\nM");
}

static void write_pkcs8(const struct key *k, const EVP_CIPHER *cipher, struct buf *out)
{
	cleanup(BIO_freep) BIO *bio = BIO_new(BIO_s_mem());
	char password[] = "secret";
	assert_int_equal(PEM_write_bio_PKCS8PrivateKey(bio, k->pkey, cipher, cipher ? password : NULL,
						       cipher ? 6 : 0, NULL, NULL),
			 1);
	pki_bio_take(bio, out);
}

static void pkcs8_is_read(void **state)
{
	(void)state;
	static const char *const algorithms[] = { "RSA-2048", "ECDSA-P256", "ECDSA-P384", "ED25519" };
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		cleanup(buf_release) struct buf text = BUF_SECRET;
		cleanup(key_freep) struct key *k = NULL;
		write_pkcs8(fixture_key(algorithms[i], 0), NULL, &text);
		assert_true(str_starts(buf_str(&text), "-----BEGIN PRIVATE KEY-----"));
		assert_ok(key_from_pem(text.data, text.len, &k, &err));
		assert_int_equal(EVP_PKEY_eq(k->pkey, fixture_key(algorithms[i], 0)->pkey), 1);
	}
}

static void encrypted_keys_are_refused_and_nobody_is_asked(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf text = BUF_SECRET;
	cleanup(BIO_freep) BIO *bio = BIO_new(BIO_s_mem());
	struct key *k = NULL;
	unsigned char password[] = "secret";
	write_pkcs8(fixture_key("RSA-2048", 0), EVP_aes_128_cbc(), &text);
	assert_err(key_from_pem(text.data, text.len, &k, &err), ERR_INPUT, "encrypted");
	PEM_write_bio_PrivateKey_traditional(bio, fixture_key("RSA-2048", 0)->pkey, EVP_aes_128_cbc(), password, 6,
					     NULL, NULL);
	buf_clear(&text);
	pki_bio_take(bio, &text);
	assert_non_null(strstr(buf_str(&text), "Proc-Type: 4,ENCRYPTED"));
	assert_err(key_from_pem(text.data, text.len, &k, &err), ERR_INPUT, "encrypted");
	assert_null(k);
}

/* kubelet-client-current.pem: certificate and key in one file. */
static void the_first_key_counts(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf text = BUF_SECRET;
	cleanup(key_freep) struct key *k = NULL;
	buf_add_str(&text, fixed_pem);
	key_to_pem(fixture_key("ECDSA-P256", 0), &text);
	key_to_pem(fixture_key("RSA-2048", 0), &text);
	assert_ok(key_from_pem(text.data, text.len, &k, &err));
	assert_int_equal(EVP_PKEY_eq(k->pkey, fixture_key("ECDSA-P256", 0)->pkey), 1);
}

static void broken_keys_are_refused(void **state)
{
	(void)state;
	static const char *const broken[] = {
		"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n",
		"-----BEGIN EC PRIVATE KEY-----\nMAMCAQE=\n-----END EC PRIVATE KEY-----\n",
		"-----BEGIN PRIVATE KEY-----\n\n-----END PRIVATE KEY-----\n",
		"-----BEGIN PRIVATE KEY-----\n",
	};
	struct key *k = NULL;
	for (size_t i = 0; i < ARRAY_LEN(broken); i++)
		assert_err(key_from_pem(broken[i], strlen(broken[i]), &k, &err), ERR_INPUT, "broken");
	assert_err(key_from_pem(fixed_pem, strlen(fixed_pem), &k, &err), ERR_INPUT, "no private key");
	assert_err(key_from_pem("", 0, &k, &err), ERR_INPUT, "no private key");
	assert_null(k);
}

static void bytes_after_the_key_are_refused(void **state)
{
	(void)state;
	static const char *const algorithms[] = { "RSA-2048", "ECDSA-P256" };
	static const char *const labels[] = { PEM_STRING_RSA, PEM_STRING_ECPRIVATEKEY };
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		cleanup(buf_release) struct buf text = BUF_SECRET;
		cleanup(BIO_freep) BIO *bio = BIO_new(BIO_s_mem());
		struct key *k = NULL;
		unsigned char *der = NULL;
		int len = i2d_PrivateKey(fixture_key(algorithms[i], 0)->pkey, &der);
		unsigned char *longer = mem_alloc((size_t)len + 1);
		memcpy(longer, der, (size_t)len);
		PEM_write_bio(bio, labels[i], "", longer, len + 1);
		pki_bio_take(bio, &text);
		assert_err(key_from_pem(text.data, text.len, &k, &err), ERR_INPUT, "broken private key");
		assert_null(k);
		free(longer);
		OPENSSL_free(der);
	}
}

static void every_truncation_of_a_key(void **state)
{
	(void)state;
	static const char *const algorithms[] = { "RSA-2048", "ECDSA-P384" };
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		cleanup(buf_release) struct buf text = BUF_SECRET;
		key_to_pem(fixture_key(algorithms[i], 0), &text);
		for (size_t len = 0; len + 1 < text.len; len++) {
			cleanup(secret_freep) char *cut = str_ndup(text.data, len);
			struct key *k = NULL;
			assert_err(key_from_pem(cut, len, &k, &err), ERR_INPUT, "");
			assert_null(k);
		}
	}
}

static void a_key_error_shows_nothing_of_the_key(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf text = BUF_SECRET;
	struct key *k = NULL;
	key_to_pem(fixture_key("RSA-2048", 0), &text);
	text.data[400] = '!';
	assert_err(key_from_pem(text.data, text.len, &k, &err), ERR_INPUT, "broken");
	for (size_t i = 32; i + 12 < text.len; i++) {
		char piece[9] = { 0 };
		memcpy(piece, text.data + i, 8);
		assert_null(strstr(err.message, piece));
	}
}

/* --- Looking ----------------------------------------------------------------------------------------------------- */

static void the_fixed_certificate_looks_as_openssl_says(void **state)
{
	(void)state;
	cleanup(cert_freep) struct cert *c = fixed();
	cleanup(str_freep) char *subject = cert_subject(c);
	cleanup(str_freep) char *issuer = cert_issuer_name(c);
	cleanup(str_freep) char *serial = cert_serial_hex(c);
	cleanup(str_freep) char *algorithm = cert_key_algorithm(c);
	cleanup(strs_release) struct strs sans = { 0 };
	char hex[CERT_FINGERPRINT_SIZE];
	cert_fingerprint(c, hex);
	assert_string_equal(hex, fixed_fingerprint);
	cert_spki_sha256(c, hex);
	assert_string_equal(hex, fixed_spki);
	assert_string_equal(subject, fixed_subject);
	assert_string_equal(issuer, fixed_subject);
	assert_string_equal(serial, fixed_serial);
	assert_string_equal(algorithm, "ECDSA-P256");
	assert_int_equal(cert_not_before_ms(c), fixed_not_before_ms);
	assert_int_equal(cert_not_after_ms(c), fixed_not_after_ms);
	cert_sans(c, &sans);
	assert_int_equal(sans.n, ARRAY_LEN(fixed_sans));
	for (size_t i = 0; i < sans.n; i++)
		assert_string_equal(sans.items[i], fixed_sans[i]);
}

static void expect_attribute(const struct cert *c, const char *name, const char *expected)
{
	cleanup(str_freep) char *value = cert_subject_attribute(c, name);
	if (expected)
		assert_string_equal(value, expected);
	else
		assert_null(value);
	assert_queue_empty();
}

static void attributes_of_the_subject(void **state)
{
	(void)state;
	static const struct rdn subject[] = {
		{ "O", V_ASN1_PRINTABLESTRING, "system:nodes", 0 },
		{ "O", V_ASN1_UTF8STRING, "second", 0 },
		{ "CN", V_ASN1_UTF8STRING, "system:node:n\xc3\xb6rdlich", 0 },
		{ "OU", V_ASN1_T61STRING, "u", -1 },
		{ "serialNumber", V_ASN1_PRINTABLESTRING, "7", 0 },
		{ NULL, 0, NULL, 0 },
	};
	cleanup(cert_freep) struct cert *c =
		fixture_cert(&(struct crafted){ .key = fixture_key("ECDSA-P256", 0), .subject = subject });
	cleanup(str_freep) char *text = cert_subject(c);
	expect_attribute(c, "CN", "system:node:n\xc3\xb6rdlich");
	expect_attribute(c, "O", "system:nodes");
	expect_attribute(c, "OU", "u");
	expect_attribute(c, "serialNumber", "7");
	expect_attribute(c, "C", NULL);
	expect_attribute(c, "no such thing", NULL);
	assert_string_equal(text, "serialNumber=7,CN=system:node:n\\C3\\B6rdlich+OU=u,O=second,O=system:nodes");
}

/* A zero byte must not turn "admin\0.example" into "admin". */
static void zero_bytes_do_not_cut_names(void **state)
{
	(void)state;
	static const char *const extensions[] = {
		/* SEQUENCE { [2] "a\0b", [7] 3 bytes, [1] "@y\0" } */
		"subjectAltName", "DER:300F820361006287030102038103407900",
		NULL,
	};
	cleanup(X509_freep) X509 *x = X509_new();
	cleanup(strs_release) struct strs sans = { 0 };
	cleanup(cert_freep) struct cert *c = fixture_cert(
		&(struct crafted){ .key = fixture_key("ECDSA-P256", 0), .extensions = extensions });
	cert_sans(c, &sans);
	assert_int_equal(sans.n, 3);
	assert_string_equal(sans.items[0], "DNS:a\\00b");
	assert_string_equal(sans.items[1], "IP:malformed");
	assert_string_equal(sans.items[2], "email:@y\\00");

	X509_NAME *name = X509_get_subject_name(x);
	X509_NAME_add_entry_by_txt(name, "CN", V_ASN1_UTF8STRING, (const unsigned char *)"admin\0x", 7, -1, 0);
	struct cert odd = { .x509 = x };
	expect_attribute(&odd, "CN", "admin\\00x");
}

static void sans_of_every_kind(void **state)
{
	(void)state;
	static const char *const extensions[] = {
		"subjectAltName",
		"DNS:*.example.org,IP:10.96.0.1,IP:2001:db8::1,email:a@example.org,URI:spiffe://x/y,RID:1.2.3",
		NULL,
	};
	static const char *const expected[] = { "DNS:*.example.org", "IP:10.96.0.1", "IP:2001:db8::1",
						"email:a@example.org", "URI:spiffe://x/y", "Registered ID:1.2.3" };
	cleanup(strs_release) struct strs sans = { 0 };
	cleanup(strs_release) struct strs none = { 0 };
	cleanup(cert_freep) struct cert *bare = simple();
	cleanup(cert_freep) struct cert *c = fixture_cert(
		&(struct crafted){ .key = fixture_key("ECDSA-P256", 0), .extensions = extensions });
	cert_sans(c, &sans);
	assert_int_equal(sans.n, ARRAY_LEN(expected));
	for (size_t i = 0; i < sans.n; i++)
		assert_string_equal(sans.items[i], expected[i]);
	cert_sans(bare, &none);
	assert_int_equal(none.n, 0);
	assert_queue_empty();
}

static struct cert *with(const char *name, const char *value)
{
	const char *const extensions[] = { "subjectKeyIdentifier", "hash", name, value, NULL };
	return fixture_cert(&(struct crafted){ .key = fixture_key("ECDSA-P256", 0), .extensions = extensions });
}

static void what_is_a_ca(void **state)
{
	(void)state;
	static const char *const no_sign[] = { "basicConstraints", "critical,CA:TRUE", "keyUsage", "digitalSignature",
					       NULL };
	cleanup(cert_freep) struct cert *ca = with("basicConstraints", "critical,CA:TRUE");
	cleanup(cert_freep) struct cert *leaf = with("basicConstraints", "critical,CA:FALSE");
	cleanup(cert_freep) struct cert *silent = with("keyUsage", "critical,keyCertSign");
	cleanup(cert_freep) struct cert *unfit =
		fixture_cert(&(struct crafted){ .key = fixture_key("ECDSA-P256", 0), .extensions = no_sign });
	assert_true(cert_is_ca(ca));
	assert_false(cert_is_ca(leaf));
	assert_false(cert_is_ca(silent));
	assert_false(cert_is_ca(unfit));
}

static void path_lengths_and_name_constraints(void **state)
{
	(void)state;
	cleanup(cert_freep) struct cert *none = with("basicConstraints", "critical,CA:TRUE");
	cleanup(cert_freep) struct cert *zero = with("basicConstraints", "critical,CA:TRUE,pathlen:0");
	cleanup(cert_freep) struct cert *two = with("basicConstraints", "critical,CA:TRUE,pathlen:2");
	cleanup(cert_freep) struct cert *named = with("nameConstraints", "critical,permitted;DNS:example.org");
	assert_int_equal(cert_path_length(none), -1);
	assert_int_equal(cert_path_length(zero), 0);
	assert_int_equal(cert_path_length(two), 2);
	assert_false(cert_has_name_constraints(none));
	assert_true(cert_has_name_constraints(named));
}

static void key_identifiers_and_critical_extensions(void **state)
{
	(void)state;
	static const char *const serial_only[] = { "authorityKeyIdentifier", "issuer:always", NULL };
	cleanup(cert_freep) struct cert *bare = simple();
	cleanup(cert_freep) struct cert *ski = with("authorityKeyIdentifier", "keyid:always");
	cleanup(cert_freep) struct cert *serial =
		fixture_cert(&(struct crafted){ .key = fixture_key("ECDSA-P256", 0), .extensions = serial_only });
	cleanup(cert_freep) struct cert *odd = with("1.2.3.4", "critical,DER:0500");
	cleanup(cert_freep) struct cert *harmless = with("1.2.3.4", "DER:0500");
	assert_false(cert_has_ski(bare));
	assert_false(cert_has_aki(bare));
	assert_true(cert_has_ski(ski));
	assert_true(cert_has_aki(ski));
	assert_false(cert_has_aki(serial)); /* names the issuer's serial, no key */
	assert_true(cert_has_unknown_critical_extension(odd));
	assert_false(cert_has_unknown_critical_extension(harmless));
}

static void key_algorithms_are_named(void **state)
{
	(void)state;
	static const char *const algorithms[] = { "RSA-2048", "ECDSA-P256", "ECDSA-P384", "ECDSA-P521", "ED25519" };
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++) {
		cleanup(cert_freep) struct cert *c =
			fixture_cert(&(struct crafted){ .key = fixture_key(algorithms[i], 0) });
		cleanup(str_freep) char *name = cert_key_algorithm(c);
		assert_string_equal(name, algorithms[i]);
		assert_true(cert_matches_key(c, fixture_key(algorithms[i], 0)));
		assert_false(cert_matches_key(c, fixture_key("ECDSA-P256", 7)));
		assert_queue_empty();
	}
}

static void who_issued_it(void **state)
{
	(void)state;
	const struct key *key_a = fixture_key("ECDSA-P256", 0), *key_b = fixture_key("RSA-2048", 0);
	cleanup(cert_freep) struct cert *a = fixture_kubeadm_ca(key_a);
	cleanup(cert_freep) struct cert *b = fixture_kubeadm_ca(key_b); /* the same subject */
	cleanup(cert_freep) struct cert *stranger = fixture_cert(&(struct crafted){ .key = key_a });
	cleanup(cert_freep) struct cert *leaf = fixture_apiserver(fixture_key("ECDSA-P256", 1), a, key_a);
	assert_true(cert_issued_by(leaf, a));
	assert_false(cert_issued_by(leaf, b));        /* name right, key wrong */
	assert_false(cert_issued_by(leaf, stranger)); /* key right, name wrong */
	assert_true(cert_issued_by(a, a));
	assert_false(cert_issued_by(a, leaf));
	assert_queue_empty();
}

/* OpenSSL's own comparison folds case and blanks; Go's does not, and would refuse the chain. */
static void issuer_names_are_compared_byte_for_byte(void **state)
{
	(void)state;
	static const struct rdn lower[] = { { "CN", V_ASN1_UTF8STRING, "the ca", 0 }, { NULL, 0, NULL, 0 } };
	static const struct rdn upper[] = { { "CN", V_ASN1_UTF8STRING, "The  CA", 0 }, { NULL, 0, NULL, 0 } };
	static const struct rdn printable[] = { { "CN", V_ASN1_PRINTABLESTRING, "the ca", 0 }, { NULL, 0, NULL, 0 } };
	const struct key *k = fixture_key("ECDSA-P256", 0);
	cleanup(cert_freep) struct cert *a = fixture_cert(&(struct crafted){ .key = k, .subject = lower });
	cleanup(cert_freep) struct cert *b = fixture_cert(&(struct crafted){ .key = k, .subject = upper });
	cleanup(cert_freep) struct cert *c = fixture_cert(&(struct crafted){ .key = k, .subject = printable });
	const char *what = NULL;
	assert_int_equal(X509_NAME_cmp(X509_get_subject_name(a->x509), X509_get_subject_name(b->x509)), 0);
	assert_false(cert_issued_by(a, b));
	assert_false(cert_issued_by(a, c));
	assert_false(cert_same_profile(a, c, &what));
	assert_string_equal(what, "subject");
}

/* --- Profiles ---------------------------------------------------------------------------------------------------- */

static void expect_difference(const char *const *a, const char *const *b, const char *expected)
{
	const char *what = "untouched";
	const struct key *k = fixture_key("ECDSA-P256", 0);
	cleanup(cert_freep) struct cert *one = fixture_cert(&(struct crafted){ .key = k, .extensions = a });
	cleanup(cert_freep) struct cert *two = fixture_cert(&(struct crafted){ .key = k, .extensions = b });
	assert_false(cert_same_profile(one, two, &what));
	assert_string_equal(what, expected);
	assert_false(cert_same_profile(two, one, &what));
	assert_string_equal(what, expected);
	assert_true(cert_same_profile(one, one, &what));
}

#define WITHOUT NULL
static void expect_profile_difference(const char *name, const char *a, const char *b)
{
	const char *const with_a[] = { name, a, NULL };
	const char *const with_b[] = { b ? name : NULL, b, NULL };
	expect_difference(with_a, with_b, name);
}

static void each_difference_of_profiles_is_found(void **state)
{
	(void)state;
	expect_profile_difference("subjectAltName", "DNS:a,DNS:b", "DNS:a");
	expect_profile_difference("subjectAltName", "DNS:a,DNS:b", "DNS:b,DNS:a");
	expect_profile_difference("subjectAltName", "DNS:a", "DNS:A");
	expect_profile_difference("subjectAltName", "DNS:10.0.0.1", "IP:10.0.0.1");
	expect_profile_difference("subjectAltName", "DNS:a", "critical,DNS:a");
	expect_profile_difference("subjectAltName", "DNS:a", WITHOUT);
	expect_profile_difference("keyUsage", "digitalSignature", "digitalSignature,keyEncipherment");
	expect_profile_difference("keyUsage", "digitalSignature", "critical,digitalSignature");
	expect_profile_difference("keyUsage", "digitalSignature", WITHOUT);
	expect_profile_difference("extendedKeyUsage", "serverAuth", "clientAuth");
	expect_profile_difference("extendedKeyUsage", "serverAuth", "serverAuth,clientAuth");
	expect_profile_difference("extendedKeyUsage", "serverAuth", "critical,serverAuth");
	expect_profile_difference("extendedKeyUsage", "serverAuth", WITHOUT);
	expect_profile_difference("basicConstraints", "CA:FALSE", "CA:TRUE");
	expect_profile_difference("basicConstraints", "CA:TRUE", "CA:TRUE,pathlen:0");
	expect_profile_difference("basicConstraints", "CA:FALSE", "critical,CA:FALSE");
	expect_profile_difference("basicConstraints", "CA:FALSE", WITHOUT);
}

static void subjects_differ_by_order_and_shape(void **state)
{
	(void)state;
	static const struct rdn one[] = { { "O", V_ASN1_UTF8STRING, "o", 0 }, { "CN", V_ASN1_UTF8STRING, "c", 0 }, { 0 } };
	static const struct rdn turned[] = { { "CN", V_ASN1_UTF8STRING, "c", 0 }, { "O", V_ASN1_UTF8STRING, "o", 0 }, { 0 } };
	static const struct rdn joined[] = { { "O", V_ASN1_UTF8STRING, "o", 0 }, { "CN", V_ASN1_UTF8STRING, "c", -1 }, { 0 } };
	const struct rdn *const subjects[] = { one, turned, joined };
	for (size_t i = 0; i < ARRAY_LEN(subjects); i++) {
		for (size_t j = 0; j < ARRAY_LEN(subjects); j++) {
			const char *what = NULL;
			const struct key *k = fixture_key("ECDSA-P256", 0);
			cleanup(cert_freep) struct cert *a =
				fixture_cert(&(struct crafted){ .key = k, .subject = subjects[i] });
			cleanup(cert_freep) struct cert *b =
				fixture_cert(&(struct crafted){ .key = k, .subject = subjects[j] });
			assert_int_equal(cert_same_profile(a, b, &what), i == j);
		}
	}
}

static void what_a_profile_leaves_out(void **state)
{
	(void)state;
	static const char *const more[] = { "subjectKeyIdentifier", "hash", "1.2.3.4", "DER:0500", NULL };
	const char *what = NULL;
	cleanup(cert_freep) struct cert *a = simple();
	cleanup(cert_freep) struct cert *b = fixture_cert(&(struct crafted){ .key = fixture_key("RSA-2048", 0),
									     .extensions = more,
									     .to_ms = NOW_MS + DAY_MS });
	assert_true(cert_same_profile(a, b, &what));
}

/* --- Verifying --------------------------------------------------------------------------------------------------- */

struct tree {
	struct certs roots, chain;
	struct cert *leaf;
};

static void tree_release(struct tree *t)
{
	certs_release(&t->roots);
	certs_release(&t->chain);
	cert_freep(&t->leaf);
}

/* root - intermediate - API server's leaf */
static struct tree plant(void)
{
	static const char *const ca[] = { "basicConstraints", "critical,CA:TRUE", "subjectKeyIdentifier", "hash",
					  NULL };
	const struct key *root_key = fixture_key("ECDSA-P256", 0), *middle_key = fixture_key("ECDSA-P256", 1);
	struct tree t = { 0 };
	certs_add(&t.roots, fixture_kubeadm_ca(root_key));
	certs_add(&t.chain, fixture_cert(&(struct crafted){ .key = middle_key,
							    .issuer = t.roots.items[0],
							    .issuer_key = root_key,
							    .extensions = ca }));
	t.leaf = fixture_apiserver(fixture_key("ECDSA-P256", 2), t.chain.items[0], middle_key);
	return t;
}

static void a_chain_is_verified(void **state)
{
	(void)state;
	cleanup(tree_release) struct tree t = plant();
	assert_ok(cert_verify(t.leaf, &t.chain, &t.roots, "server", NOW_MS, &err));
	assert_ok(cert_verify(t.leaf, &t.chain, &t.roots, NULL, NOW_MS, &err));
	assert_err(cert_verify(t.leaf, &t.chain, &t.roots, "client", NOW_MS, &err), ERR_INPUT, "purpose");
	assert_err(cert_verify(t.leaf, &t.chain, &t.roots, "any", NOW_MS, &err), ERR_INPUT, "neither");
}

static void a_chain_that_lacks_something(void **state)
{
	(void)state;
	const struct certs none = { 0 };
	cleanup(tree_release) struct tree t = plant();
	assert_err(cert_verify(t.leaf, NULL, &t.roots, "server", NOW_MS, &err), ERR_INPUT,
		   "\"CN=kube-apiserver\" is not trusted: unable to get local issuer");
	assert_err(cert_verify(t.leaf, &t.chain, &none, "server", NOW_MS, &err), ERR_INPUT, "unable to get");
	/* an intermediate is no root */
	assert_err(cert_verify(t.leaf, NULL, &t.chain, "server", NOW_MS, &err), ERR_INPUT, "unable to get issuer");
}

static void a_chain_out_of_its_time(void **state)
{
	(void)state;
	cleanup(tree_release) struct tree t = plant();
	assert_err(cert_verify(t.leaf, &t.chain, &t.roots, "server", NOW_MS + 2 * YEAR_MS, &err), ERR_INPUT, "expired");
	assert_err(cert_verify(t.leaf, &t.chain, &t.roots, "server", NOW_MS - 2 * DAY_MS, &err), ERR_INPUT,
		   "not yet valid");
}

static void certificates_of_another_authority(void **state)
{
	(void)state;
	cleanup(tree_release) struct tree t = plant();
	cleanup(certs_release) struct certs others = { 0 };
	certs_add(&others, fixture_kubeadm_ca(fixture_key("RSA-2048", 0))); /* same subject, other key */
	assert_err(cert_verify(t.leaf, &t.chain, &others, "server", NOW_MS, &err), ERR_INPUT, "not trusted");
	certs_add(&others, cert_copy(t.roots.items[0]));
	certs_add(&others, cert_copy(t.roots.items[0])); /* twice does no harm */
	assert_ok(cert_verify(t.leaf, &t.chain, &others, "server", NOW_MS, &err));
}

/* --- Digests and encodings ---------------------------------------------------------------------------------------- */

static void sha256_of_known_texts(void **state)
{
	(void)state;
	char hex[65]; /* FIPS 180-2, appendix B.1; and of nothing */
	sha256_hex("abc", 3, hex);
	assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	sha256_hex("", 0, hex);
	assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	sha256_hex(NULL, 0, hex);
	assert_string_equal(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

static void hmac_of_known_texts(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf out = BUF_INIT;
	/* RFC 4231, test case 2 */
	hmac_sha256_base64url("Jefe", 4, "what do ya want for nothing?", 28, &out);
	assert_string_equal(buf_str(&out), "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM");
	buf_clear(&out);
	/* RFC 7515 A.1: header and payload of the example, keyed with its octets */
	cleanup(buf_release) struct buf key = BUF_SECRET;
	const char *jwk = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ+EstJQLr/T+1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow==";
	const char *input = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0"
			    "dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
	assert_ok(base64_decode(jwk, strlen(jwk), &key, &err));
	hmac_sha256_base64url(key.data, key.len, input, strlen(input), &out);
	assert_string_equal(buf_str(&out), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
	buf_clear(&out);
	hmac_sha256_base64url("", 0, "", 0, &out); /* Python: hmac.new(b"", b"", "sha256") */
	assert_string_equal(buf_str(&out), "thNnmggU2ex3L5XXeMNfxf8Wl8STcVZTxscSFEKSxa0");
}

static void base64_of_rfc_4648(void **state)
{
	(void)state;
	static const char *const pairs[][2] = {
		{ "", "" },           { "f", "Zg==" },         { "fo", "Zm8=" },      { "foo", "Zm9v" },
		{ "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" },
	};
	for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
		cleanup(buf_release) struct buf text = BUF_INIT;
		cleanup(buf_release) struct buf bytes = BUF_INIT;
		base64_encode(pairs[i][0], strlen(pairs[i][0]), &text);
		assert_string_equal(buf_str(&text), pairs[i][1]);
		assert_ok(base64_decode(pairs[i][1], strlen(pairs[i][1]), &bytes, &err));
		assert_string_equal(buf_str(&bytes), pairs[i][0]);
	}
}

static void base64_of_every_length(void **state)
{
	(void)state;
	unsigned char bytes[300];
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(255 - i * 7);
	for (size_t n = 0; n <= sizeof(bytes); n++) {
		cleanup(buf_release) struct buf text = BUF_INIT;
		cleanup(buf_release) struct buf url = BUF_INIT;
		cleanup(buf_release) struct buf back = BUF_INIT;
		base64_encode(bytes, n, &text);
		base64url_encode(bytes, n, &url);
		assert_int_equal(text.len, (n + 2) / 3 * 4);
		assert_int_equal(url.len, (n * 4 + 2) / 3);
		assert_null(strpbrk(buf_str(&url), "+/="));
		assert_ok(base64_decode(text.data, text.len, &back, &err));
		assert_int_equal(back.len, n);
		assert_memory_equal(buf_str(&back), bytes, n);
	}
}

static void base64url_has_its_own_alphabet(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf out = BUF_INIT;
	base64url_encode("\xfb\xff\xfe\xff", 4, &out);
	assert_string_equal(buf_str(&out), "-__-_w");
}

static void blanks_in_base64_are_skipped(void **state)
{
	(void)state;
	cleanup(buf_release) struct buf out = BUF_INIT;
	const char *text = " Zm9v\r\n\tYm Fy\n";
	buf_add_str(&out, "kept ");
	assert_ok(base64_decode(text, strlen(text), &out, &err));
	assert_string_equal(buf_str(&out), "kept foobar");
}

static void broken_base64_is_refused_whole(void **state)
{
	(void)state;
	static const char *const broken[] = { "Z", "Zg", "Zg=", "Zm9", "====", "=", "Z===", "Zg==Zg==", "Zm9v=",
					      "Zm9v====", "Zg=a", "Zm9v-", "Zm9-", "Zm9_", "Zm!v", "Zm9v\x80", "Zm9vZm9vA" };
	cleanup(buf_release) struct buf out = BUF_INIT;
	buf_add_str(&out, "kept");
	for (size_t i = 0; i < ARRAY_LEN(broken); i++) {
		assert_err(base64_decode(broken[i], strlen(broken[i]), &out, &err), ERR_INPUT, "broken base64");
		assert_string_equal(buf_str(&out), "kept");
	}
	assert_err(base64_decode("Zm9v\0Zm9v", 9, &out, &err), ERR_INPUT, "unexpected");
}

static void base64_over_the_cap_is_refused(void **state)
{
	(void)state;
	size_t len = BUF_CAP_DEFAULT / 3 * 4 + 8;
	cleanup(str_freep) char *text = mem_alloc(len);
	cleanup(buf_release) struct buf out = BUF_INIT;
	memset(text, 'A', len);
	assert_err(base64_decode(text, len, &out, &err), ERR_INPUT, "more than");
	assert_int_equal(out.len, 0);
}

static void random_texts_differ(void **state)
{
	(void)state;
	char a[2 * 70 + 1], b[2 * 70 + 1];
	memset(a, 'x', sizeof(a));
	random_hex(70, a);
	random_hex(70, b);
	assert_int_equal(strlen(a), 140);
	assert_int_equal(strspn(a, "0123456789abcdef"), 140);
	assert_string_not_equal(a, b);
	random_hex(0, a);
	assert_string_equal(a, "");
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
		cmocka_unit_test(certificates_keep_their_order),
		cmocka_unit_test(a_copy_outlives_its_origin),
		cmocka_unit_test(other_blocks_and_comments_are_skipped),
		cmocka_unit_test(line_ends_of_windows_are_fine),
		cmocka_unit_test(nothing_to_read_is_an_error),
		cmocka_unit_test(a_key_is_no_certificate),
		cmocka_unit_test(sixty_four_certificates_and_no_more),
		cmocka_unit_test(a_scan_finds_each_whatever_stands_between),
		cmocka_unit_test(text_over_four_mebibytes_is_refused),
		cmocka_unit_test(every_truncation_of_a_bundle),
		cmocka_unit_test(a_broken_block_is_never_skipped),
		cmocka_unit_test(the_broken_certificate_is_named),
		cmocka_unit_test(headers_in_a_certificate_block_are_refused),
		cmocka_unit_test(bytes_after_the_certificate_are_refused),
		cmocka_unit_test(dates_that_are_none_are_refused),
		cmocka_unit_test(every_changed_byte_of_the_der),
		cmocka_unit_test(keys_are_written_as_kubeadm_does),
		cmocka_unit_test(pkcs8_is_read),
		cmocka_unit_test(encrypted_keys_are_refused_and_nobody_is_asked),
		cmocka_unit_test(the_first_key_counts),
		cmocka_unit_test(broken_keys_are_refused),
		cmocka_unit_test(bytes_after_the_key_are_refused),
		cmocka_unit_test(every_truncation_of_a_key),
		cmocka_unit_test(a_key_error_shows_nothing_of_the_key),
		cmocka_unit_test(the_fixed_certificate_looks_as_openssl_says),
		cmocka_unit_test(attributes_of_the_subject),
		cmocka_unit_test(zero_bytes_do_not_cut_names),
		cmocka_unit_test(sans_of_every_kind),
		cmocka_unit_test(what_is_a_ca),
		cmocka_unit_test(path_lengths_and_name_constraints),
		cmocka_unit_test(key_identifiers_and_critical_extensions),
		cmocka_unit_test(key_algorithms_are_named),
		cmocka_unit_test(who_issued_it),
		cmocka_unit_test(issuer_names_are_compared_byte_for_byte),
		cmocka_unit_test(each_difference_of_profiles_is_found),
		cmocka_unit_test(subjects_differ_by_order_and_shape),
		cmocka_unit_test(what_a_profile_leaves_out),
		cmocka_unit_test(a_chain_is_verified),
		cmocka_unit_test(a_chain_that_lacks_something),
		cmocka_unit_test(a_chain_out_of_its_time),
		cmocka_unit_test(certificates_of_another_authority),
		cmocka_unit_test(sha256_of_known_texts),
		cmocka_unit_test(hmac_of_known_texts),
		cmocka_unit_test(base64_of_rfc_4648),
		cmocka_unit_test(base64_of_every_length),
		cmocka_unit_test(base64url_has_its_own_alphabet),
		cmocka_unit_test(blanks_in_base64_are_skipped),
		cmocka_unit_test(broken_base64_is_refused_whole),
		cmocka_unit_test(base64_over_the_cap_is_refused),
		cmocka_unit_test(random_texts_differ),
	};
	return cmocka_run_group_tests_name("pki", tests, NULL, teardown);
}
