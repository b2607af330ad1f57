/* Ownership, PEM in and out, and the errors of the pki module. */
#include "pki_internal.h"

#include <openssl/encoder.h>
#include <openssl/pem.h>

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PEM_TEXT_MAX ((size_t)4 << 20)
#define CERTS_MAX    64

/* --- Errors ---------------------------------------------------------------------------------------------------- */

result pki_err(struct err *e, enum err_kind kind, const char *format, ...)
{
	char text[ERR_MESSAGE_SIZE];
	va_list args;
	va_start(args, format);
	(void)vsnprintf(text, sizeof(text), format, args);
	va_end(args);

	const char *reason = ERR_reason_error_string(ERR_peek_last_error());
	ERR_clear_error();
	if (!reason)
		return err_set(e, kind, "%s", text);
	return err_set(e, kind, "%s: %s", text, reason);
}

void pki_no_memory(void)
{
	static const char line[] = "out of memory\n";
	ssize_t ignored = write(STDERR_FILENO, line, sizeof(line) - 1);
	(void)ignored;
	abort();
}

/* --- Ownership ------------------------------------------------------------------------------------------------- */

void cert_freep(struct cert **c)
{
	if (!*c)
		return;
	X509_free((*c)->x509);
	free(*c);
	*c = NULL;
}

void key_freep(struct key **k)
{
	if (!*k)
		return;
	EVP_PKEY_free((*k)->pkey); /* overwrites the private numbers */
	free(*k);
	*k = NULL;
}

void certs_release(struct certs *list)
{
	for (size_t i = 0; i < list->n; i++)
		cert_freep(&list->items[i]);
	free(list->items);
	*list = (struct certs){ 0 };
}

void certs_add(struct certs *list, struct cert *taken)
{
	list->items = mem_realloc(list->items, list->n + 1, sizeof(struct cert *));
	list->items[list->n++] = taken;
}

struct cert *cert_copy(const struct cert *c)
{
	struct cert *copy = mem_alloc(sizeof(*copy));
	pki_must(X509_up_ref(c->x509) == 1);
	*copy = *c;
	return copy;
}

/* Milliseconds since the epoch; false when the text is no time (OpenSSL reads such certificates without a word). */
static bool time_ms(const ASN1_TIME *t, int64_t *ret_ms)
{
	cleanup(ASN1_TIME_freep) ASN1_TIME *epoch = pki_need(ASN1_TIME_set(NULL, 0));
	int days, seconds;
	if (!ASN1_TIME_diff(&days, &seconds, epoch, t))
		return false;
	*ret_ms = ((int64_t)days * 86400 + seconds) * 1000;
	return true;
}

result pki_cert_wrap(X509 *taken, struct cert **ret, struct err *e)
{
	struct cert *c = mem_alloc(sizeof(*c));
	c->x509 = taken;
	if (!time_ms(X509_get0_notBefore(taken), &c->not_before_ms) ||
	    !time_ms(X509_get0_notAfter(taken), &c->not_after_ms)) {
		cert_freep(&c);
		return pki_err(e, ERR_INPUT, "the certificate's validity is not made of dates");
	}
	*ret = c;
	return OK;
}

/* --- Reading PEM ----------------------------------------------------------------------------------------------- */

struct block {
	char *name, *header;
	unsigned char *der;
	long len;
};

/* A block may be a key, so all of them are overwritten (PEM_FLAG_SECURE has OpenSSL do the same with its copies). */
static void block_release(struct block *b)
{
	OPENSSL_secure_free(b->name);
	OPENSSL_secure_free(b->header);
	OPENSSL_secure_clear_free(b->der, (size_t)b->len);
	*b = (struct block){ 0 };
}

static result next_block(BIO *bio, struct block *b, bool *ret_found, struct err *e)
{
	bool found = PEM_read_bio_ex(bio, &b->name, &b->header, &b->der, &b->len, PEM_FLAG_SECURE);
	unsigned long why = ERR_peek_last_error();
	if (!found && !(ERR_GET_LIB(why) == ERR_LIB_PEM && ERR_GET_REASON(why) == PEM_R_NO_START_LINE))
		return pki_err(e, ERR_INPUT, "broken PEM");
	ERR_clear_error();
	*ret_found = found;
	return OK;
}

static size_t count_begin_lines(const char *pem, size_t len)
{
	static const char mark[] = "-----BEGIN ";
	const size_t mark_len = sizeof(mark) - 1;
	const char *at = pem, *end = pem + len;
	size_t n = 0;
	while (at && (size_t)(end - at) >= mark_len) {
		n += memcmp(at, mark, mark_len) == 0;
		at = memchr(at, '\n', (size_t)(end - at));
		at = at ? at + 1 : NULL;
	}
	return n;
}

static result open_text(const char *pem, size_t len, BIO **ret, struct err *e)
{
	if (len > PEM_TEXT_MAX)
		return err_set(e, ERR_INPUT, "PEM text of %zu bytes; the limit is %zu", len, PEM_TEXT_MAX);
	*ret = pki_need(BIO_new_mem_buf(len ? pem : "", (int)len));
	return OK;
}

typedef result (*block_fn)(const struct block *b, void *context, struct err *e);

/* Calls `each` for every block. A line that begins a block OpenSSL then skipped (a dash too few) is an error: half a bundle
 * must not pass for a whole one. */
static result each_block(const char *pem, size_t len, block_fn each, void *context, struct err *e)
{
	cleanup(BIO_freep) BIO *bio = NULL;
	bool found = true;
	size_t n = 0;
	TRY(open_text(pem, len, &bio, e));
	while (found) {
		cleanup(block_release) struct block b = { 0 };
		TRY(next_block(bio, &b, &found, e));
		if (!found)
			break;
		TRY(each(&b, context, e));
		n++;
	}
	if (n != count_begin_lines(pem, len))
		return err_set(e, ERR_INPUT, "broken PEM: a BEGIN line is malformed");
	return OK;
}

static result cert_from_der(const struct block *b, struct cert **ret, struct err *e)
{
	const unsigned char *at = b->der;
	X509 *x = d2i_X509(NULL, &at, b->len);
	if (!x)
		return pki_err(e, ERR_INPUT, "broken certificate");
	if (at != b->der + b->len) {
		X509_free(x);
		return err_set(e, ERR_INPUT, "broken certificate: bytes after its end");
	}
	return pki_cert_wrap(x, ret, e);
}

static result add_cert(const struct block *b, void *context, struct err *e)
{
	struct certs *list = context;
	struct cert *c = NULL;
	if (!str_eq(b->name, PEM_STRING_X509))
		return OK;
	if (list->n == CERTS_MAX)
		return err_set(e, ERR_INPUT, "more than %d certificates", CERTS_MAX);
	/* client-go skips a block with headers (cert/pem.go, ParseCertsPEM): what it ignores must not look trusted here. */
	if (b->header[0])
		return err_set(e, ERR_INPUT, "certificate %zu: PEM headers are not allowed", list->n + 1);
	TRY_CTX(cert_from_der(b, &c, e), e, "certificate %zu", list->n + 1);
	certs_add(list, c);
	return OK;
}

result certs_from_pem(const char *pem, size_t len, struct certs *ret, struct err *e)
{
	cleanup(certs_release) struct certs list = { 0 };
	TRY(each_block(pem, len, add_cert, &list, e));
	if (!list.items)
		return err_set(e, ERR_INPUT, "no certificate in the PEM text");
	*ret = list;
	list = (struct certs){ 0 };
	return OK;
}

result cert_from_pem(const char *pem, size_t len, struct cert **ret, struct err *e)
{
	cleanup(certs_release) struct certs list = { 0 };
	TRY(each_block(pem, len, add_cert, &list, e));
	if (!list.items)
		return err_set(e, ERR_INPUT, "no certificate in the PEM text");
	*ret = cert_copy(list.items[0]);
	return OK;
}

void certs_scan(const char *text, void (*each)(void *context, const struct cert *c), void *context)
{
	static const char BEGIN[] = "-----BEGIN CERTIFICATE-----";
	for (const char *p = strstr(text, BEGIN); p;) {
		const char *next = strstr(p + strlen(BEGIN), BEGIN);
		cleanup(cert_freep) struct cert *c = NULL;
		struct err broken;
		if (cert_from_pem(p, next ? (size_t)(next - p) : strlen(p), &c, &broken).ok)
			each(context, c);
		p = next;
	}
}

static bool is_key_name(const char *name)
{
	return str_eq(name, PEM_STRING_PKCS8INF) || str_eq(name, PEM_STRING_RSA) ||
	       str_eq(name, PEM_STRING_ECPRIVATEKEY);
}

static result take_key(const struct block *b, void *context, struct err *e)
{
	struct key **k = context;
	if (*k)
		return OK;
	if (str_eq(b->name, PEM_STRING_PKCS8) || (is_key_name(b->name) && b->header[0]))
		return err_set(e, ERR_INPUT, "the private key is encrypted; store it without a passphrase");
	if (!is_key_name(b->name))
		return OK;
	const unsigned char *at = b->der;
	cleanup(EVP_PKEY_freep) EVP_PKEY *pkey = d2i_AutoPrivateKey(NULL, &at, b->len);
	if (!pkey || at != b->der + b->len)
		return pki_err(e, ERR_INPUT, "broken private key");
	*k = mem_alloc(sizeof(**k));
	(*k)->pkey = steal(&pkey);
	return OK;
}

result key_from_pem(const char *pem, size_t len, struct key **ret, struct err *e)
{
	cleanup(key_freep) struct key *k = NULL;
	TRY(each_block(pem, len, take_key, &k, e));
	if (!k)
		return err_set(e, ERR_INPUT, "no private key in the PEM text");
	*ret = steal(&k);
	return OK;
}

static result take_csr(const struct block *b, void *context, struct err *e)
{
	X509_REQ **req = context;
	if (*req || !str_eq(b->name, PEM_STRING_X509_REQ))
		return err_set(e, ERR_INPUT, "expected one CERTIFICATE REQUEST, found more or something else");
	const unsigned char *at = b->der;
	*req = d2i_X509_REQ(NULL, &at, b->len);
	if (!*req || at != b->der + b->len)
		return pki_err(e, ERR_INPUT, "broken certificate request");
	return OK;
}

result pki_csr_from_pem(const char *pem, X509_REQ **ret, struct err *e)
{
	cleanup(X509_REQ_freep) X509_REQ *req = NULL;
	TRY(each_block(pem, strlen(pem), take_csr, &req, e));
	if (!req)
		return err_set(e, ERR_INPUT, "no certificate request in the PEM text");
	*ret = steal(&req);
	return OK;
}

/* --- Writing PEM ----------------------------------------------------------------------------------------------- */

void pki_bio_take(BIO *bio, struct buf *out)
{
	char *text = NULL;
	long len = BIO_get_mem_data(bio, &text);
	buf_add(out, text, len > 0 ? (size_t)len : 0);
}

void cert_to_pem(const struct cert *c, struct buf *out)
{
	cleanup(BIO_freep) BIO *bio = pki_need(BIO_new(BIO_s_mem()));
	pki_must(PEM_write_bio_X509(bio, c->x509) == 1);
	pki_bio_take(bio, out);
}

void certs_to_pem(const struct certs *list, struct buf *out)
{
	for (size_t i = 0; i < list->n; i++)
		cert_to_pem(list->items[i], out);
}

/* "type-specific" is PKCS#1 for RSA and SEC1 for EC, as client-go's keyutil.MarshalPrivateKeyToPEM writes for kubeadm. */
void key_to_pem(const struct key *k, struct buf *out_secret)
{
	cleanup(BIO_freep) BIO *bio = pki_need(BIO_new(BIO_s_secmem()));
	bool classic = EVP_PKEY_is_a(k->pkey, "RSA") || EVP_PKEY_is_a(k->pkey, "EC");
	OSSL_ENCODER_CTX *encoder = pki_need(OSSL_ENCODER_CTX_new_for_pkey(
		k->pkey, EVP_PKEY_KEYPAIR, "PEM", classic ? "type-specific" : "PrivateKeyInfo", NULL));
	pki_must(OSSL_ENCODER_to_bio(encoder, bio) == 1);
	OSSL_ENCODER_CTX_free(encoder);
	pki_bio_take(bio, out_secret);
}
