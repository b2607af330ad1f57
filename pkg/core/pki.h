/* X.509, keys, digests and base64, by OpenSSL; the only module that knows OpenSSL's headers.
 *
 * Invariants
 * - Private keys live in `struct key` or in secret bufs, nowhere else; nothing here prints one except key_to_pem.
 * - Every CA made here has its own subject, SKI, critical basicConstraints and critical keyUsage (RFC 5280 4.2.1); every
 *   certificate has a fresh random serial of 128 bits, SKI and AKI. Nothing issued outlives its issuer; notBefore is five
 *   minutes back, for clocks that differ, but not before the issuer's.
 * - An AKI names the issuer's key by its SKI; an issuer without one by SHA-1 of its key (RFC 5280 4.2.1.2 method 1), which is
 *   also the SKI that a cross certificate for it gets.
 * - A reissued leaf has subject, SANs, key usages and extended key usages of its predecessor, byte for byte, or is refused.
 * - OpenSSL's error queue is empty when a function returns.
 */
#ifndef PKI_H
#define PKI_H

#include "buf.h"

struct cert; /* one certificate, immutable */
struct key;  /* one private key */

void cert_freep(struct cert **c);
void key_freep(struct key **k);

/* Certificates in the order of a PEM file. A zeroed struct is empty. */
struct certs {
	struct cert **items;
	size_t n;
};
void certs_release(struct certs *list);
void certs_add(struct certs *list, struct cert *taken);
struct cert *cert_copy(const struct cert *c) __attribute__((returns_nonnull)); /* a reference */

/* --- Reading --------------------------------------------------------------------------------------------------- */
/* All CERTIFICATE blocks; other blocks and text between them are skipped. ERR_INPUT: none, more than 64, over 4 MiB, or
 * anything broken, so that half a bundle never passes for a whole one (Go skips what is broken without a word). */
result certs_from_pem(const char *pem, size_t len, struct certs *ret, struct err *e) MUST_CHECK;
/* The first one only (what kubeadm's TryLoadCertFromDisk does). ERR_INPUT as above, for all of the text. */
result cert_from_pem(const char *pem, size_t len, struct cert **ret, struct err *e) MUST_CHECK;
/* Each certificate of a text that may hold anything, hundreds of them too, in order; what is broken is skipped. For looking for
 * something; never where a bundle must be whole. The certificate is borrowed for the call. */
void certs_scan(const char *text, void (*each)(void *context, const struct cert *c), void *context);
/* The first private key, unencrypted: PKCS#1, SEC1 or PKCS#8. ERR_INPUT: none, broken, encrypted. */
result key_from_pem(const char *pem, size_t len, struct key **ret, struct err *e) MUST_CHECK;
void cert_to_pem(const struct cert *c, struct buf *out);
void certs_to_pem(const struct certs *list, struct buf *out);
/* PKCS#1 for RSA, SEC1 for EC, as kubeadm writes; else PKCS#8. */
void key_to_pem(const struct key *k, struct buf *out_secret);

/* --- Looking --------------------------------------------------------------------------------------------------- */
#define CERT_FINGERPRINT_SIZE 65
void cert_fingerprint(const struct cert *c, char ret_hex[static CERT_FINGERPRINT_SIZE]); /* SHA-256 of the DER */
bool cert_equal(const struct cert *a, const struct cert *b);       /* same DER */
char *cert_subject(const struct cert *c);                          /* RFC 2253; caller frees */
char *cert_issuer_name(const struct cert *c);
/* One attribute of the subject by its short name ("CN", "O", "OU", "serialNumber"), first value as UTF-8; NULL when absent.
 * Control characters and backslashes come escaped ("\00"), so that nothing can cut a name short. Caller frees. */
char *cert_subject_attribute(const struct cert *c, const char *short_name);
int64_t cert_not_before_ms(const struct cert *c);
int64_t cert_not_after_ms(const struct cert *c);
char *cert_serial_hex(const struct cert *c);
bool cert_is_ca(const struct cert *c);      /* basicConstraints CA, and keyCertSign where there is a keyUsage */
bool cert_has_ski(const struct cert *c);
bool cert_has_aki(const struct cert *c);    /* with a key identifier: one that has the issuer's serial only does not count */
/* Path length constraint, -1 when there is none. */
long cert_path_length(const struct cert *c);
bool cert_has_name_constraints(const struct cert *c);
bool cert_has_unknown_critical_extension(const struct cert *c);
/* "RSA-2048", "ECDSA-P256", …: as in spec.newAuthority.keyAlgorithm. Caller frees. */
char *cert_key_algorithm(const struct cert *c);
/* SANs as OpenSSL-like text, "DNS:a", "IP:10.0.0.1", "IP:fd00::1", "email:…", "URI:…", in order; escaped as above.
 * Appended. */
void cert_sans(const struct cert *c, struct strs *ret);
/* Hex SHA-256 of the SubjectPublicKeyInfo: kubeadm's discovery-token-ca-cert-hash without its "sha256:". */
void cert_spki_sha256(const struct cert *c, char ret_hex[static CERT_FINGERPRINT_SIZE]);

/* True when ca's key made the signature and ca's subject is the issuer, byte for byte as Go compares; nothing else is looked
 * at (not dates). */
bool cert_issued_by(const struct cert *c, const struct cert *ca);
bool cert_matches_key(const struct cert *c, const struct key *k);
/* Same subject, SANs, keyUsage, extendedKeyUsage, basicConstraints: same bytes, same critical flags. `ret_what` names the
 * first difference ("subjectAltName"), NULL on true. */
bool cert_same_profile(const struct cert *a, const struct cert *b, const char **ret_what);
/* Verifies leaf with `chain` as intermediates against `roots` at a time (OpenSSL's verifier, X509_V_FLAG_PARTIAL_CHAIN off).
 * purpose: "server", "client" or NULL. ERR_INPUT with OpenSSL's reason. */
result cert_verify(const struct cert *leaf, const struct certs *chain, const struct certs *roots, const char *purpose,
		   int64_t at_ms, struct err *e) MUST_CHECK;

/* --- Making ---------------------------------------------------------------------------------------------------- */
/* algorithm: "RSA-2048", "RSA-3072", "RSA-4096", "ECDSA-P256", "ECDSA-P384": kubeadm's. RSA-4096 can take seconds. */
result key_generate(const char *algorithm, struct key **ret, struct err *e) MUST_CHECK;

bool key_can_generate(const char *algorithm);

struct ca_request {
	const char *common_name;    /* "kubernetes" */
	const char *unique;         /* goes into the subject as OU, so that subjects differ */
	int64_t now_ms;
	int64_t validity_ms;
};
/* A self-signed CA with kubeadm's profile: what client-go's cert.NewSelfSignedCACert makes for kubeadm's pki_helpers.go
 * (SAN DNS:<CN>, keyUsage digitalSignature, keyEncipherment, keyCertSign), plus OU and AKI. ERR_INPUT: no `unique`, a CN
 * that is no DNS name, a validity <= 0 or past the year 9999, a key of another kind than key_generate's. */
result ca_make(const struct ca_request *r, const struct key *k, struct cert **ret, struct err *e) MUST_CHECK;
/* NewWithOld / OldWithNew of RFC 4210 4.4: subject, key and extensions of `ca`, certified by issuer. Not longer-lived than
 * either. Extensions that speak of ca's own issuer (AKI, CRL and AIA pointers) are left out; basicConstraints and keyUsage
 * become critical, and SKI and keyUsage are added where ca lacks them. ERR_INPUT where issuer forbids it (path length 0, name
 * constraints, not a CA), where either is out of its time, has the other's key, or has unknown critical extensions.
 * A leaf whose AKI has its issuer's serial (OpenSSL's "issuer:always"; never kubeadm's) does not chain to a cross certificate
 * in OpenSSL: leaf_reissue it from the same CA first. */
result ca_cross_sign(const struct cert *ca, const struct cert *issuer, const struct key *issuer_key, int64_t now_ms,
		     struct cert **ret, struct err *e) MUST_CHECK;
/* The predecessor's profile for its own public key, or for `new_key`'s where that is not NULL. validity_ms counts from now;
 * 0: as long as the predecessor was valid from notBefore on (kubeadm's leaves have their CA's notBefore: name a period for
 * those). ERR_INPUT: the predecessor is a CA, or has a critical extension beyond the profile; the issuer is not a CA, not
 * issuer_key's, or out of its time. ERR_OTHER: the new one would differ. */
result leaf_reissue(const struct cert *predecessor, const struct key *new_key, const struct cert *issuer,
		    const struct key *issuer_key, int64_t now_ms, int64_t validity_ms, struct cert **ret,
		    struct err *e) MUST_CHECK;
struct leaf_request {
	const char *common_name;
	const char *organization;   /* NULL: none */
	bool client, server;
	const char *const *dns_names; size_t n_dns_names;
	int64_t now_ms, validity_ms;
};
/* A leaf with a profile of its own (probe certificates, the administrator's kubeconfig), for k's public key. The common name
 * may be longer than X.520's 64 characters, as names of nodes are. ERR_INPUT: neither client nor server, no common name, a
 * validity <= 0; the issuer as above. */
result leaf_make(const struct leaf_request *r, const struct key *k, const struct cert *issuer, const struct key *issuer_key,
		 struct cert **ret, struct err *e) MUST_CHECK;
/* The same for a public key that came as a CSR (its subject and extensions are ignored; its signature is checked). The text
 * is that one PEM block. */
result leaf_make_for_csr(const struct leaf_request *r, const char *csr_pem, const struct cert *issuer,
			 const struct key *issuer_key, struct cert **ret, struct err *e) MUST_CHECK;
/* A PKCS#10 request with the certificate's subject (and SANs, if it has any), signed by k. PEM, appended. */
result csr_make(const struct cert *predecessor, const struct key *k, struct buf *ret_pem, struct err *e) MUST_CHECK;
/* Ditto with a plain subject. organization may be NULL. */
result csr_make_subject(const char *common_name, const char *organization, const struct key *k, struct buf *ret_pem,
			struct err *e) MUST_CHECK;

/* --- Names in TLS --------------------------------------------------------------------------------------------------- */
/* SHA-256 of the subject as it stands in the certificate (DER), in hexadecimal. Caller frees. */
char *cert_subject_digest(const struct cert *c);
/* From now on `names` gets, in each handshake of that client's SSL_CTX of OpenSSL's, the digests (as above) of the names of the
 * authorities that the server takes clients' certificates from (RFC 8446 4.2.4, RFC 5246 7.4.4). `names` is borrowed. Servers whose
 * authorities change name the present ones (Go's GetConfigForClient), so who is not named is not accepted; who names none says nothing. */
void pki_note_client_authorities(void *ssl_ctx, struct strs *names);

/* --- Digests, encodings ---------------------------------------------------------------------------------------- */
void sha256_hex(const void *bytes, size_t n, char ret_hex[static 65]);
void random_hex(size_t n_bytes, char *ret_hex /* 2 n + 1 */);
/* HMAC-SHA256 in base64url without padding (RFC 7515). Appended. */
void hmac_sha256_base64url(const void *key, size_t key_len, const void *bytes, size_t n, struct buf *out);
void base64_encode(const void *bytes, size_t n, struct buf *out);
void base64url_encode(const void *bytes, size_t n, struct buf *out); /* no padding */
/* Line breaks and blanks are skipped. ERR_INPUT. */
result base64_decode(const char *text, size_t len, struct buf *out, struct err *e) MUST_CHECK;

#endif
