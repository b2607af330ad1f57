/* PEM, certificates, requests and keys as somebody else made them. Whatever is taken can be looked at, comes back from its own
 * text the same, and what is reissued from it has its profile; OpenSSL's error queue is empty after every call. */
#include "fuzz.h"

#include "pki.h"

#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>

#define NOW_MS FUZZ_NOW_MS
#define DAY_MS ((int64_t)86400000)

static const struct key *our_key;
static const struct cert *our_ca;

#define QUEUE_IS_EMPTY() MUST(ERR_peek_error() == 0)

/* No control character gets through: a zero byte in a name must not cut it short. */
static void check_name(char *taken)
{
	for (const char *p = taken; p && *p; p++)
		MUST((unsigned char)*p >= ' ');
	free(taken);
}

static void look(const struct cert *c)
{
	static const char *const attributes[] = { "CN", "O", "OU", "serialNumber", "nonsense" };
	char hex[CERT_FINGERPRINT_SIZE];
	struct strs sans cleanup(strs_release) = { 0 };
	cert_fingerprint(c, hex);
	MUST(strlen(hex) == 64);
	cert_spki_sha256(c, hex);
	check_name(cert_subject(c));
	check_name(cert_issuer_name(c));
	for (size_t i = 0; i < ARRAY_LEN(attributes); i++)
		check_name(cert_subject_attribute(c, attributes[i]));
	check_name(cert_serial_hex(c));
	check_name(cert_key_algorithm(c));
	cert_sans(c, &sans);
	for (size_t i = 0; i < sans.n; i++)
		MUST(strchr(sans.items[i], ':'));
	MUST(cert_path_length(c) >= -1);
	(void)cert_has_ski(c);
	(void)cert_has_aki(c);
	(void)cert_has_name_constraints(c);
	(void)cert_has_unknown_critical_extension(c);
	(void)cert_not_before_ms(c);
	MUST(!cert_matches_key(c, our_key));
	MUST(!cert_issued_by(c, our_ca));
	QUEUE_IS_EMPTY();
}

static void check_text(const struct certs *list)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct certs again cleanup(certs_release) = { 0 };
	struct err e = { 0 };
	certs_to_pem(list, &text);
	MUST(certs_from_pem(buf_str(&text), text.len, &again, &e).ok);
	MUST(again.n == list->n);
	for (size_t i = 0; i < list->n; i++)
		MUST(cert_equal(list->items[i], again.items[i]));
	QUEUE_IS_EMPTY();
}

static void reissue(const struct cert *c)
{
	struct cert *made cleanup(cert_freep) = NULL;
	struct err e = { 0 };
	const char *differs = NULL;
	result r = leaf_reissue(c, NULL, our_ca, our_key, NOW_MS, DAY_MS, &made, &e);
	QUEUE_IS_EMPTY();
	MUST(r.ok == (made != NULL));
	if (!r.ok) {
		fuzz_check_err(&e);
		return;
	}
	MUST(!cert_is_ca(c) && !cert_is_ca(made));
	MUST(cert_same_profile(c, made, &differs) && !differs);
	MUST(cert_issued_by(made, our_ca));
	MUST(cert_not_after_ms(made) <= cert_not_after_ms(our_ca));
}

static void cross_sign(const struct cert *c)
{
	struct cert *made cleanup(cert_freep) = NULL;
	struct err e = { 0 };
	result r = ca_cross_sign(c, our_ca, our_key, NOW_MS, &made, &e);
	QUEUE_IS_EMPTY();
	MUST(r.ok == (made != NULL));
	if (!r.ok) {
		fuzz_check_err(&e);
		return;
	}
	MUST(cert_is_ca(c) && cert_is_ca(made) && cert_issued_by(made, our_ca));
	MUST(cert_not_after_ms(made) <= cert_not_after_ms(c));
}

static void request_like(const struct cert *c)
{
	struct buf pem cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	MUST(csr_make(c, our_key, &pem, &e).ok || !pem.len);
	QUEUE_IS_EMPTY();
}

static void verify(const struct certs *list)
{
	struct err e = { 0 };
	(void)!cert_verify(list->items[0], list, list, "server", NOW_MS, &e).ok;
	QUEUE_IS_EMPTY();
	struct certs ours cleanup(certs_release) = { 0 };
	certs_add(&ours, cert_copy(our_ca));
	MUST(!cert_verify(list->items[0], list, &ours, "client", NOW_MS, &e).ok);
	QUEUE_IS_EMPTY();
}

static void try_certs(const char *text, size_t len)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct cert *first cleanup(cert_freep) = NULL;
	struct err e = { 0 };
	bool taken = certs_from_pem(text, len, &list, &e).ok;
	QUEUE_IS_EMPTY();
	MUST(taken == cert_from_pem(text, len, &first, &e).ok);
	if (!taken) {
		MUST(!list.items && !first && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return;
	}
	MUST(list.n > 0 && list.n <= 64 && cert_equal(first, list.items[0]));
	check_text(&list);
	verify(&list);
	for (size_t i = 0; i < list.n && i < 2; i++) {
		look(list.items[i]);
		reissue(list.items[i]);
		cross_sign(list.items[i]);
		request_like(list.items[i]);
	}
}

static void try_key(const char *text, size_t len)
{
	struct key *k cleanup(key_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_SECRET;
	struct err e = { 0 };
	if (!key_from_pem(text, len, &k, &e).ok) {
		MUST(!k && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
	} else {
		key_to_pem(k, &pem);
		MUST(pem.len);
	}
	QUEUE_IS_EMPTY();
}

static void try_request(const char *text)
{
	const struct leaf_request r = { .common_name = "probe", .client = true, .now_ms = NOW_MS, .validity_ms = DAY_MS };
	struct cert *made cleanup(cert_freep) = NULL;
	struct err e = { 0 };
	if (leaf_make_for_csr(&r, text, our_ca, our_key, &made, &e).ok) {
		char *subject cleanup(str_freep) = cert_subject(made);
		MUST(str_eq(subject, "CN=probe")); /* ours, whatever the request asks for */
		MUST(cert_issued_by(made, our_ca) && !cert_is_ca(made));
	} else {
		MUST(!made);
		fuzz_check_err(&e);
	}
	QUEUE_IS_EMPTY();
}

/* A key of ours with the input's bytes over it. */
static void try_spoiled_key(const uint8_t *data, size_t size)
{
	struct buf pem cleanup(buf_release) = BUF_SECRET;
	key_to_pem(our_key, &pem);
	for (size_t i = 0; i + 1 < size && i < 8; i += 2)
		pem.data[data[i] * pem.len / 256] = (char)data[i + 1];
	try_key(buf_str(&pem), pem.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	size_t len = 0;
	fuzz_authority(&our_ca, &our_key);
	char *text cleanup(str_freep) = fuzz_part(&in, &len);
	try_certs(text, len);
	try_key(text, len);
	if (strlen(text) == len)
		try_request(text);
	try_spoiled_key(data, size);
	return 0;
}

/* --- Mutation: of what is inside the base64 as often as of the text ---------------------------------------------------- */

static const char *body_of(const char *text, const char **ret_end)
{
	const char *begin = strstr(text, "-----BEGIN "), *line = begin ? strchr(begin, '\n') : NULL;
	*ret_end = line ? strstr(line, "-----END ") : NULL;
	return *ret_end ? line + 1 : NULL;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned int seed)
{
	char *text cleanup(str_freep) = str_ndup((const char *)data, size);
	const char *end = NULL, *body = body_of(text, &end);
	struct buf der cleanup(buf_release) = BUF_INIT, out cleanup(buf_release) = BUF_INIT, base64 cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	if (seed % 4 == 0 || !body || !base64_decode(body, (size_t)(end - body), &der, &e).ok)
		return LLVMFuzzerMutate(data, size, max_size);
	uint8_t *bytes = mem_alloc(der.len + 64);
	if (der.len)
		memcpy(bytes, der.data, der.len);
	size_t n = LLVMFuzzerMutate(bytes, der.len, der.len + 64);
	base64_encode(bytes, n, &base64);
	free(bytes);
	buf_add(&out, text, (size_t)(body - text));
	for (size_t at = 0; at < base64.len; at += 64)
		buf_addf(&out, "%.64s\n", base64.data + at);
	buf_add_str(&out, end);
	if (out.len > max_size)
		return LLVMFuzzerMutate(data, size, max_size);
	memcpy(data, out.data, out.len);
	return out.len;
}
