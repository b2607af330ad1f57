/* What the files of the pki module share. It includes OpenSSL's headers, so only pki*.c may include it.
 *
 * Invariants
 * - OpenSSL's error queue is empty when a public function returns: libcurl and libwebsockets use the same queue.
 * - A failed allocation inside OpenSSL ends the process, as everywhere else (pki_need, pki_must).
 */
#ifndef PKI_INTERNAL_H
#define PKI_INTERNAL_H

#include "pki.h"

/* What OpenSSL 3.0 (Debian 12) has and 3.5 (Debian 13) has not deprecated. */
#ifndef OPENSSL_NO_DEPRECATED
#define OPENSSL_API_COMPAT 30000
#define OPENSSL_NO_DEPRECATED
#endif

#include <openssl/asn1.h>
#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/objects.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

struct cert {
	X509 *x509;
	int64_t not_before_ms, not_after_ms;
};

struct key {
	EVP_PKEY *pkey;
};

/* cleanup(X509_freep) and the like. */
#define PKI_FREEP(type, function)                                \
	static inline void type##_freep(__typeof__(type) **p)    \
	{                                                        \
		function(*p);                                    \
	}
PKI_FREEP(ASN1_BIT_STRING, ASN1_BIT_STRING_free)
PKI_FREEP(ASN1_INTEGER, ASN1_INTEGER_free)
PKI_FREEP(ASN1_OCTET_STRING, ASN1_OCTET_STRING_free)
PKI_FREEP(ASN1_TIME, ASN1_TIME_free)
PKI_FREEP(AUTHORITY_KEYID, AUTHORITY_KEYID_free)
PKI_FREEP(BASIC_CONSTRAINTS, BASIC_CONSTRAINTS_free)
PKI_FREEP(BIGNUM, BN_free)
PKI_FREEP(BIO, BIO_free_all)
PKI_FREEP(EVP_PKEY, EVP_PKEY_free)
PKI_FREEP(EXTENDED_KEY_USAGE, EXTENDED_KEY_USAGE_free)
PKI_FREEP(GENERAL_NAMES, GENERAL_NAMES_free)
PKI_FREEP(X509, X509_free)
PKI_FREEP(X509_EXTENSION, X509_EXTENSION_free)
PKI_FREEP(X509_NAME, X509_NAME_free)
PKI_FREEP(X509_REQ, X509_REQ_free)
PKI_FREEP(X509_STORE, X509_STORE_free)
PKI_FREEP(X509_STORE_CTX, X509_STORE_CTX_free)

/* Fills e with the text and OpenSSL's last reason, if it gave one; empties OpenSSL's queue. */
result pki_err(struct err *e, enum err_kind kind, const char *format, ...) PRINTF_LIKE(3, 4);
/* For what fails only when memory is out: pki_need(X509_new()), pki_must(sk_X509_push(…) > 0). */
void pki_no_memory(void) __attribute__((noreturn));
static inline void pki_must(bool ok)
{
	if (!ok)
		pki_no_memory();
}
static inline __attribute__((returns_nonnull)) void *pki_need(void *p)
{
	pki_must(p != NULL);
	return p;
}

/* The certificate as OpenSSL made or read it; taken over also on failure. ERR_INPUT: dates that are none. */
result pki_cert_wrap(X509 *taken, struct cert **ret, struct err *e) MUST_CHECK;
/* Reads the only PEM block of the given name. ERR_INPUT. */
result pki_csr_from_pem(const char *pem, X509_REQ **ret, struct err *e) MUST_CHECK;
/* Appends what was written to a BIO_s_mem or BIO_s_secmem. */
void pki_bio_take(BIO *bio, struct buf *out);

/* Byte for byte, as Go compares names; X509_NAME_cmp would fold case and blanks. */
bool pki_same_name(const X509_NAME *a, const X509_NAME *b);
/* The extension of that kind, NULL when there is none. */
X509_EXTENSION *pki_extension(const struct cert *c, int nid);
/* Extensions could not be read, or one occurs twice. */
bool pki_extensions_broken(const struct cert *c);
/* The digest that fits the signer's key. ERR_INPUT: a kind of key that this project does not sign with. */
result pki_sign_digest(EVP_PKEY *signer, const EVP_MD **ret, struct err *e) MUST_CHECK;
/* A name of CN and, where it is not NULL, one more attribute in front of it. ERR_INPUT: empty, not UTF-8, too long. */
result pki_name_make(const char *common_name, int more_nid, const char *more, X509_NAME **ret, struct err *e) MUST_CHECK;
/* "RSA-2048", "ECDSA-P256", … ; caller frees. */
char *pki_key_algorithm(EVP_PKEY *k);
/* Those that cert_same_profile compares. */
bool pki_is_profile_extension(int nid);

#endif
