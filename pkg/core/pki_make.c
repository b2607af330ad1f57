/* Making keys and certificates. Every certificate goes the same way: window_*, begin, extensions, finish. */
#include "pki_internal.h"

#include <openssl/rand.h>

#include <string.h>

#define BACKDATE_MS     ((int64_t)5 * 60 * 1000)
#define LAST_TIME_MS    INT64_C(253402300799000) /* 9999-12-31T23:59:59Z, RFC 5280 4.1.2.5 */
#define SERIAL_BITS     128                      /* of randomness; RFC 5280 4.1.2.2 allows 20 octets */
#define NAME_MAX_LENGTH 512
/* KeyUsage bits, RFC 5280 4.2.1.3 */
#define DIGITAL_SIGNATURE 0
#define KEY_ENCIPHERMENT  2
#define KEY_CERT_SIGN     5

/* --- Keys ------------------------------------------------------------------------------------------------------ */

static const struct algorithm {
	const char *name, *curve; /* no curve: RSA */
	size_t bits;
} ALGORITHMS[] = {
	{ "RSA-2048", NULL, 2048 }, { "RSA-3072", NULL, 3072 }, { "RSA-4096", NULL, 4096 },
	{ "ECDSA-P256", "P-256", 0 }, { "ECDSA-P384", "P-384", 0 },
};

static const struct algorithm *algorithm_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(ALGORITHMS); i++)
		if (str_eq(ALGORITHMS[i].name, name))
			return &ALGORITHMS[i];
	return NULL;
}

bool key_can_generate(const char *algorithm)
{
	return algorithm_find(algorithm) != NULL;
}

result key_generate(const char *algorithm, struct key **ret, struct err *e)
{
	const struct algorithm *a = algorithm_find(algorithm);
	if (!a)
		return err_set(e, ERR_INPUT,
			       "key algorithm \"%s\" is none of RSA-2048, RSA-3072, RSA-4096, ECDSA-P256, ECDSA-P384",
			       algorithm ? algorithm : "");
	EVP_PKEY *pkey = a->curve ? EVP_PKEY_Q_keygen(NULL, NULL, "EC", a->curve)
				  : EVP_PKEY_Q_keygen(NULL, NULL, "RSA", a->bits);
	if (!pkey)
		return pki_err(e, ERR_OTHER, "generating a key %s", algorithm);
	struct key *k = mem_alloc(sizeof(*k));
	k->pkey = pkey;
	*ret = k;
	return OK;
}

/* RFC 5758 3.2 pairs curves with digests of their size. */
result pki_sign_digest(EVP_PKEY *signer, const EVP_MD **ret, struct err *e)
{
	cleanup(str_freep) char *algorithm = pki_key_algorithm(signer);
	if (str_starts(algorithm, "RSA-") || str_eq(algorithm, "ECDSA-P256"))
		*ret = EVP_sha256();
	else if (str_eq(algorithm, "ECDSA-P384"))
		*ret = EVP_sha384();
	else if (str_eq(algorithm, "ECDSA-P521"))
		*ret = EVP_sha512();
	else
		return err_set(e, ERR_INPUT, "signing with a key %s is not supported", algorithm);
	return OK;
}

/* --- Names ----------------------------------------------------------------------------------------------------- */

static bool is_text(const char *s)
{
	return s && *s && strnlen(s, NAME_MAX_LENGTH + 1) <= NAME_MAX_LENGTH &&
	       ASN1_mbstring_ncopy(NULL, (const unsigned char *)s, -1, MBSTRING_UTF8, B_ASN1_UTF8STRING, 0, 0) > 0;
}

/* As a UTF8String without X.520's 64 characters: "system:node:" and the name of a node may be longer, and Go, which all of
 * Kubernetes uses, knows no such bound. */
static result name_add(X509_NAME *name, int nid, const char *text, struct err *e)
{
	if (!is_text(text))
		return pki_err(e, ERR_INPUT, "%s of the subject must be 1 to %d bytes of UTF-8", OBJ_nid2sn(nid),
			       NAME_MAX_LENGTH);
	pki_must(X509_NAME_add_entry_by_NID(name, nid, V_ASN1_UTF8STRING, (const unsigned char *)text, -1, -1, 0) == 1);
	return OK;
}

result pki_name_make(const char *common_name, int more_nid, const char *more, X509_NAME **ret, struct err *e)
{
	cleanup(X509_NAME_freep) X509_NAME *name = pki_need(X509_NAME_new());
	if (more)
		TRY(name_add(name, more_nid, more, e));
	TRY(name_add(name, NID_commonName, common_name, e));
	*ret = steal(&name);
	return OK;
}

/* --- Validity -------------------------------------------------------------------------------------------------- */

struct window {
	int64_t from_ms, to_ms;
};

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static result window_open(int64_t now_ms, int64_t validity_ms, struct window *ret, struct err *e)
{
	if (now_ms < 0 || now_ms > LAST_TIME_MS)
		return err_set(e, ERR_INPUT, "the time %lld is out of range", (long long)now_ms);
	if (validity_ms <= 0 || validity_ms > LAST_TIME_MS - now_ms)
		return err_set(e, ERR_INPUT, "a validity of %lld ms is out of range", (long long)validity_ms);
	*ret = (struct window){ now_ms - BACKDATE_MS, now_ms + validity_ms };
	return OK;
}

/* Within the issuer's own validity: RFC 5280 does not ask for it, but a chain is good for their common time only, and a
 * certificate that names a later end would deceive whoever plans by it. */
static result window_within(const struct cert *issuer, int64_t now_ms, struct window *w, struct err *e)
{
	if (now_ms < issuer->not_before_ms || now_ms >= issuer->not_after_ms) {
		char at[32];
		bool early = now_ms < issuer->not_before_ms;
		cleanup(str_freep) char *name = cert_subject(issuer);
		time_format(early ? issuer->not_before_ms : issuer->not_after_ms, at);
		return err_set(e, ERR_INPUT, "the issuer \"%.200s\" %s %s", name,
			       early ? "is not valid before" : "expired at", at);
	}
	if (w->from_ms < issuer->not_before_ms)
		w->from_ms = issuer->not_before_ms;
	w->to_ms = least(w->to_ms, issuer->not_after_ms);
	return OK;
}

static result set_window(X509 *x, const struct window *w, struct err *e)
{
	cleanup(ASN1_TIME_freep) ASN1_TIME *from = ASN1_TIME_set(NULL, (time_t)(w->from_ms / 1000));
	cleanup(ASN1_TIME_freep) ASN1_TIME *to = ASN1_TIME_set(NULL, (time_t)(w->to_ms / 1000));
	if (!from || !to || !X509_set1_notBefore(x, from) || !X509_set1_notAfter(x, to))
		return pki_err(e, ERR_OTHER, "setting the validity");
	return OK;
}

/* --- Extensions ------------------------------------------------------------------------------------------------ */

static result add_extension(X509 *x, int nid, void *value, bool critical, struct err *e)
{
	if (X509_add1_ext_i2d(x, nid, value, critical, X509V3_ADD_DEFAULT) != 1)
		return pki_err(e, ERR_OTHER, "adding the extension %s", OBJ_nid2ln(nid));
	return OK;
}

static result add_key_usage(X509 *x, bool signs_certificates, struct err *e)
{
	cleanup(ASN1_BIT_STRING_freep) ASN1_BIT_STRING *bits = pki_need(ASN1_BIT_STRING_new());
	pki_must(ASN1_BIT_STRING_set_bit(bits, DIGITAL_SIGNATURE, 1) == 1);
	pki_must(ASN1_BIT_STRING_set_bit(bits, KEY_ENCIPHERMENT, 1) == 1);
	pki_must(ASN1_BIT_STRING_set_bit(bits, KEY_CERT_SIGN, signs_certificates) == 1);
	return add_extension(x, NID_key_usage, bits, true, e);
}

static result add_basic_constraints(X509 *x, bool ca, struct err *e)
{
	cleanup(BASIC_CONSTRAINTS_freep) BASIC_CONSTRAINTS *constraints = pki_need(BASIC_CONSTRAINTS_new());
	constraints->ca = ca ? 0xff : 0;
	return add_extension(x, NID_basic_constraints, constraints, true, e);
}

static result add_extended_key_usage(X509 *x, bool server, bool client, struct err *e)
{
	cleanup(EXTENDED_KEY_USAGE_freep) EXTENDED_KEY_USAGE *usage = pki_need(EXTENDED_KEY_USAGE_new());
	if (server)
		pki_must(sk_ASN1_OBJECT_push(usage, OBJ_nid2obj(NID_server_auth)) > 0);
	if (client)
		pki_must(sk_ASN1_OBJECT_push(usage, OBJ_nid2obj(NID_client_auth)) > 0);
	return add_extension(x, NID_ext_key_usage, usage, false, e);
}

static GENERAL_NAME *dns_name(const char *text)
{
	GENERAL_NAME *name = pki_need(GENERAL_NAME_new());
	ASN1_IA5STRING *value = pki_need(ASN1_IA5STRING_new());
	pki_must(ASN1_STRING_set(value, text, -1) == 1);
	GENERAL_NAME_set0_value(name, GEN_DNS, value);
	return name;
}

static bool is_ascii_name(const char *s)
{
	if (!*s || strnlen(s, NAME_MAX_LENGTH + 1) > NAME_MAX_LENGTH)
		return false;
	for (; *s; s++) {
		if (*s <= ' ' || *s > '~')
			return false;
	}
	return true;
}

static result add_dns_sans(X509 *x, const char *const *names, size_t n, struct err *e)
{
	cleanup(GENERAL_NAMES_freep) GENERAL_NAMES *list = pki_need(GENERAL_NAMES_new());
	for (size_t i = 0; i < n; i++) {
		if (!is_ascii_name(names[i]))
			return err_set(e, ERR_INPUT, "\"%.100s\" is not a DNS name", names[i]);
		pki_must(sk_GENERAL_NAME_push(list, dns_name(names[i])) > 0);
	}
	return n ? add_extension(x, NID_subject_alt_name, list, false, e) : OK;
}

/* RFC 5280 4.2.1.2 method (1), SHA-1 of the key's bits, as a name and not for security: OpenSSL and Go until 1.24 compute
 * the same, so an identifier made for a CA that carries none agrees with those that others may have made for it. */
static ASN1_OCTET_STRING *key_identifier(X509 *x)
{
	unsigned char digest[EVP_MAX_MD_SIZE];
	unsigned int len = 0;
	pki_must(X509_pubkey_digest(x, EVP_sha1(), digest, &len) == 1);
	ASN1_OCTET_STRING *id = pki_need(ASN1_OCTET_STRING_new());
	pki_must(ASN1_OCTET_STRING_set(id, digest, (int)len) == 1);
	return id;
}

static result add_ski(X509 *x, struct err *e)
{
	cleanup(ASN1_OCTET_STRING_freep) ASN1_OCTET_STRING *id = key_identifier(x);
	return add_extension(x, NID_subject_key_identifier, id, false, e);
}

/* The issuer's SKI; of an issuer without one, what its SKI would be: RFC 5280 4.2.1.1 wants an AKI always, verifiers compare
 * it only with an SKI that is there, and a later certificate for the same key (OldWithNew) gets this very SKI. */
static result add_aki(X509 *x, X509 *issuer, struct err *e)
{
	cleanup(AUTHORITY_KEYID_freep) AUTHORITY_KEYID *aki = pki_need(AUTHORITY_KEYID_new());
	aki->keyid = X509_get_ext_d2i(issuer, NID_subject_key_identifier, NULL, NULL);
	if (!aki->keyid)
		aki->keyid = key_identifier(issuer);
	return add_extension(x, NID_authority_key_identifier, aki, false, e);
}

/* --- The way of every certificate ------------------------------------------------------------------------------- */

static result set_serial(X509 *x, struct err *e)
{
	cleanup(BIGNUM_freep) BIGNUM *number = pki_need(BN_new());
	if (!BN_rand(number, SERIAL_BITS, BN_RAND_TOP_ANY, BN_RAND_BOTTOM_ANY) || BN_is_zero(number) ||
	    !BN_to_ASN1_INTEGER(number, X509_get_serialNumber(x)))
		return pki_err(e, ERR_OTHER, "drawing a serial number");
	return OK;
}

static result begin(const X509_NAME *subject, EVP_PKEY *public_key, const struct window *w, X509 **ret, struct err *e)
{
	cleanup(X509_freep) X509 *x = pki_need(X509_new());
	if (!public_key || !X509_set_version(x, X509_VERSION_3) || !X509_set_subject_name(x, subject) ||
	    !X509_set_pubkey(x, public_key))
		return pki_err(e, ERR_INPUT, "the subject or its public key cannot be used");
	TRY(set_serial(x, e));
	TRY(set_window(x, w, e));
	*ret = steal(&x);
	return OK;
}

/* As read from its own bytes: OpenSSL caches what it once saw of a certificate that was not finished. */
static result reread(X509 *x, X509 **ret, struct err *e)
{
	unsigned char *der = NULL;
	int len = i2d_X509(x, &der);
	const unsigned char *at = der;
	X509 *read = len > 0 ? d2i_X509(NULL, &at, len) : NULL;
	OPENSSL_free(der);
	if (!read)
		return pki_err(e, ERR_OTHER, "reading the new certificate");
	*ret = read;
	return OK;
}

/* Signs, and looks at the result as a stranger would: a broken key must not show only when all use the certificate. */
static result finish(X509 *x, X509 *issuer, EVP_PKEY *signer, struct cert **ret, struct err *e)
{
	const EVP_MD *digest = NULL;
	cleanup(X509_freep) X509 *read = NULL;
	TRY(pki_sign_digest(signer, &digest, e));
	if (X509_get_ext_by_NID(x, NID_subject_key_identifier, -1) < 0)
		TRY(add_ski(x, e));
	TRY(add_aki(x, issuer, e));
	if (!X509_set_issuer_name(x, X509_get_subject_name(issuer)) || !X509_sign(x, signer, digest))
		return pki_err(e, ERR_OTHER, "signing a certificate");
	TRY(reread(x, &read, e));
	if (X509_verify(read, X509_get0_pubkey(issuer)) != 1)
		return pki_err(e, ERR_OTHER, "the new certificate's signature does not verify");
	return pki_cert_wrap(steal(&read), ret, e);
}

/* The issuer's certificate and key belong together, and verifiers will take what they sign. */
static result issuer_check(const struct cert *issuer, const struct key *issuer_key, struct err *e)
{
	const char *why = NULL;
	if (pki_extensions_broken(issuer))
		why = "has malformed extensions";
	else if (cert_has_unknown_critical_extension(issuer))
		why = "has an unknown critical extension";
	else if (!cert_is_ca(issuer))
		why = "is not a CA (basicConstraints, keyCertSign)";
	else if (!cert_matches_key(issuer, issuer_key))
		why = "does not belong to the key given";
	if (!why)
		return OK;
	cleanup(str_freep) char *name = cert_subject(issuer);
	return err_set(e, ERR_INPUT, "the issuer \"%.200s\" %s", name, why);
}

/* --- CAs ------------------------------------------------------------------------------------------------------- */

static result add_ca_profile(X509 *x, const char *const *names, size_t n, struct err *e)
{
	TRY(add_key_usage(x, true, e));
	TRY(add_basic_constraints(x, true, e));
	TRY(add_ski(x, e));
	return add_dns_sans(x, names, n, e);
}

result ca_make(const struct ca_request *r, const struct key *k, struct cert **ret, struct err *e)
{
	struct window w = { 0 };
	cleanup(X509_NAME_freep) X509_NAME *subject = NULL;
	cleanup(X509_freep) X509 *x = NULL;
	if (!r->unique || !*r->unique)
		return err_set(e, ERR_INPUT, "a new CA needs a subject of its own: `unique` is empty");
	TRY(window_open(r->now_ms, r->validity_ms, &w, e));
	TRY(pki_name_make(r->common_name, NID_organizationalUnitName, r->unique, &subject, e));
	TRY(begin(subject, k->pkey, &w, &x, e));
	TRY(add_ca_profile(x, &r->common_name, 1, e));
	return finish(x, x, k->pkey, ret, e);
}

/* What must hold for a chain issuer - cross certificate - leaf. */
static result cross_check(const struct cert *ca, const struct cert *issuer, struct err *e)
{
	const char *why = NULL;
	if (cert_path_length(issuer) == 0)
		why = "allows no CA below it (path length 0)";
	else if (cert_has_name_constraints(issuer))
		why = "has name constraints";
	else if (EVP_PKEY_eq(X509_get0_pubkey(ca->x509), X509_get0_pubkey(issuer->x509)) == 1)
		why = "has the same key as the CA to be signed";
	ERR_clear_error();
	if (!why)
		return OK;
	cleanup(str_freep) char *name = cert_subject(issuer);
	return err_set(e, ERR_INPUT, "the issuer \"%.200s\" %s: no cross certificate", name, why);
}

static result subject_ca_check(const struct cert *ca, struct err *e)
{
	if (cert_is_ca(ca) && !pki_extensions_broken(ca) && !cert_has_unknown_critical_extension(ca))
		return OK;
	cleanup(str_freep) char *name = cert_subject(ca);
	return err_set(e, ERR_INPUT,
		       "\"%.200s\" is not a CA, or has malformed or unknown critical extensions: no cross certificate",
		       name);
}

/* Extensions that speak of who issued the certificate, and so are wrong under another issuer. */
static bool is_about_issuer(int nid)
{
	return nid == NID_authority_key_identifier || nid == NID_crl_distribution_points || nid == NID_freshest_crl ||
	       nid == NID_info_access || nid == NID_issuer_alt_name;
}

/* As it is; but basicConstraints and keyUsage become critical, as RFC 5280 asks of a CA and strict verifiers insist. */
static result copy_ca_extension(X509 *x, X509_EXTENSION *extension, struct err *e)
{
	cleanup(X509_EXTENSION_freep) X509_EXTENSION *copy = pki_need(X509_EXTENSION_dup(extension));
	int nid = OBJ_obj2nid(X509_EXTENSION_get_object(extension));
	if (is_about_issuer(nid))
		return OK;
	if (nid == NID_basic_constraints || nid == NID_key_usage)
		pki_must(X509_EXTENSION_set_critical(copy, 1) == 1);
	if (!X509_add_ext(x, copy, -1))
		return pki_err(e, ERR_OTHER, "copying an extension");
	return OK;
}

static result copy_ca_extensions(X509 *x, const struct cert *ca, struct err *e)
{
	for (int i = 0; i < X509_get_ext_count(ca->x509); i++)
		TRY(copy_ca_extension(x, X509_get_ext(ca->x509, i), e));
	if (!pki_extension(ca, NID_key_usage))
		TRY(add_key_usage(x, true, e));
	return OK;
}

result ca_cross_sign(const struct cert *ca, const struct cert *issuer, const struct key *issuer_key, int64_t now_ms,
		     struct cert **ret, struct err *e)
{
	struct window w = { 0 };
	cleanup(X509_freep) X509 *x = NULL;
	TRY(subject_ca_check(ca, e));
	TRY(issuer_check(issuer, issuer_key, e));
	TRY(cross_check(ca, issuer, e));
	TRY(window_open(now_ms, LAST_TIME_MS - now_ms, &w, e));
	TRY(window_within(ca, now_ms, &w, e));
	TRY(window_within(issuer, now_ms, &w, e));
	TRY(begin(X509_get_subject_name(ca->x509), X509_get0_pubkey(ca->x509), &w, &x, e));
	TRY(copy_ca_extensions(x, ca, e));
	return finish(x, issuer->x509, issuer_key->pkey, ret, e);
}

/* --- Leaves ---------------------------------------------------------------------------------------------------- */

/* Nothing that binds may be lost: every critical extension is one that is copied. */
static result predecessor_check(const struct cert *c, struct err *e)
{
	const char *why = NULL;
	if (pki_extensions_broken(c))
		why = "has malformed extensions";
	else if (cert_is_ca(c))
		why = "is a CA";
	for (int i = 0; !why && i < X509_get_ext_count(c->x509); i++) {
		X509_EXTENSION *extension = X509_get_ext(c->x509, i);
		if (X509_EXTENSION_get_critical(extension) &&
		    !pki_is_profile_extension(OBJ_obj2nid(X509_EXTENSION_get_object(extension))))
			why = "has a critical extension that a new certificate would not carry";
	}
	if (!why)
		return OK;
	cleanup(str_freep) char *name = cert_subject(c);
	return err_set(e, ERR_INPUT, "the certificate \"%.200s\" %s: not reissued", name, why);
}

static result copy_profile_extensions(X509 *x, const struct cert *predecessor, struct err *e)
{
	for (int i = 0; i < X509_get_ext_count(predecessor->x509); i++) {
		X509_EXTENSION *extension = X509_get_ext(predecessor->x509, i);
		if (pki_is_profile_extension(OBJ_obj2nid(X509_EXTENSION_get_object(extension))) &&
		    !X509_add_ext(x, extension, -1))
			return pki_err(e, ERR_OTHER, "copying an extension");
	}
	return OK;
}

/* validity_ms 0: the same span from notBefore on, so that certificates do not grow by the backdating each time. */
static result reissue_window(const struct cert *predecessor, const struct cert *issuer, int64_t now_ms,
			     int64_t validity_ms, struct window *ret, struct err *e)
{
	int64_t span_ms = predecessor->not_after_ms - predecessor->not_before_ms;
	struct window w = { 0 };
	TRY(window_open(now_ms, validity_ms ? validity_ms : span_ms, &w, e));
	if (!validity_ms)
		w.to_ms = w.from_ms + span_ms;
	TRY(window_within(issuer, now_ms, &w, e));
	if (w.to_ms <= now_ms)
		return err_set(e, ERR_INPUT, "a validity of %lld ms would be over already", (long long)span_ms);
	*ret = w;
	return OK;
}

static result same_profile_check(const struct cert *predecessor, const struct cert *c, struct err *e)
{
	const char *what = NULL;
	if (cert_same_profile(predecessor, c, &what))
		return OK;
	return err_set(e, ERR_OTHER, "the new certificate differs from its predecessor in %s", what);
}

result leaf_reissue(const struct cert *predecessor, const struct key *new_key, const struct cert *issuer,
		    const struct key *issuer_key, int64_t now_ms, int64_t validity_ms, struct cert **ret,
		    struct err *e)
{
	struct window w = { 0 };
	cleanup(X509_freep) X509 *x = NULL;
	cleanup(cert_freep) struct cert *c = NULL;
	EVP_PKEY *public_key = new_key ? new_key->pkey : X509_get0_pubkey(predecessor->x509);
	TRY(predecessor_check(predecessor, e));
	TRY(issuer_check(issuer, issuer_key, e));
	TRY(reissue_window(predecessor, issuer, now_ms, validity_ms, &w, e));
	TRY(begin(X509_get_subject_name(predecessor->x509), public_key, &w, &x, e));
	TRY(copy_profile_extensions(x, predecessor, e));
	TRY(finish(x, issuer->x509, issuer_key->pkey, &c, e));
	TRY(same_profile_check(predecessor, c, e));
	*ret = steal(&c);
	return OK;
}

static result add_leaf_profile(X509 *x, const struct leaf_request *r, struct err *e)
{
	if (!r->server && !r->client)
		return err_set(e, ERR_INPUT, "a leaf is for a server, a client, or both");
	TRY(add_key_usage(x, false, e));
	TRY(add_extended_key_usage(x, r->server, r->client, e));
	TRY(add_basic_constraints(x, false, e));
	return add_dns_sans(x, r->dns_names, r->n_dns_names, e);
}

static result leaf_make_for(const struct leaf_request *r, EVP_PKEY *public_key, const struct cert *issuer,
			    const struct key *issuer_key, struct cert **ret, struct err *e)
{
	struct window w = { 0 };
	cleanup(X509_NAME_freep) X509_NAME *subject = NULL;
	cleanup(X509_freep) X509 *x = NULL;
	TRY(issuer_check(issuer, issuer_key, e));
	TRY(window_open(r->now_ms, r->validity_ms, &w, e));
	TRY(window_within(issuer, r->now_ms, &w, e));
	TRY(pki_name_make(r->common_name, NID_organizationName, r->organization, &subject, e));
	TRY(begin(subject, public_key, &w, &x, e));
	TRY(add_leaf_profile(x, r, e));
	return finish(x, issuer->x509, issuer_key->pkey, ret, e);
}

result leaf_make(const struct leaf_request *r, const struct key *k, const struct cert *issuer, const struct key *issuer_key,
		 struct cert **ret, struct err *e)
{
	return leaf_make_for(r, k->pkey, issuer, issuer_key, ret, e);
}

result leaf_make_for_csr(const struct leaf_request *r, const char *csr_pem, const struct cert *issuer,
			 const struct key *issuer_key, struct cert **ret, struct err *e)
{
	cleanup(X509_REQ_freep) X509_REQ *req = NULL;
	TRY(pki_csr_from_pem(csr_pem, &req, e));
	EVP_PKEY *public_key = X509_REQ_get0_pubkey(req);
	if (!public_key || X509_REQ_verify(req, public_key) != 1)
		return pki_err(e, ERR_INPUT, "the certificate request's signature is wrong");
	return leaf_make_for(r, public_key, issuer, issuer_key, ret, e);
}
