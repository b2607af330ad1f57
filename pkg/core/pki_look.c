/* Looking at certificates: names, dates, extensions, profiles; and OpenSSL's verifier. */
#include "pki_internal.h"

#include <arpa/inet.h>
#include <string.h>

/* --- Identity -------------------------------------------------------------------------------------------------- */

void cert_fingerprint(const struct cert *c, char ret_hex[static CERT_FINGERPRINT_SIZE])
{
	unsigned char *der = NULL;
	int len = i2d_X509(c->x509, &der);
	pki_must(len > 0);
	sha256_hex(der, (size_t)len, ret_hex);
	OPENSSL_free(der);
}

bool cert_equal(const struct cert *a, const struct cert *b)
{
	char fingerprint_a[CERT_FINGERPRINT_SIZE], fingerprint_b[CERT_FINGERPRINT_SIZE];
	if (a->x509 == b->x509)
		return true;
	cert_fingerprint(a, fingerprint_a);
	cert_fingerprint(b, fingerprint_b);
	return str_eq(fingerprint_a, fingerprint_b);
}

void cert_spki_sha256(const struct cert *c, char ret_hex[static CERT_FINGERPRINT_SIZE])
{
	unsigned char *der = NULL;
	int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(c->x509), &der);
	pki_must(len > 0);
	sha256_hex(der, (size_t)len, ret_hex);
	OPENSSL_free(der);
}

/* --- Names ----------------------------------------------------------------------------------------------------- */

bool pki_same_name(const X509_NAME *a, const X509_NAME *b)
{
	static const unsigned char none[1];
	const unsigned char *der_a = none, *der_b = none;
	size_t len_a = 0, len_b = 0;
	pki_must(X509_NAME_get0_der(a, &der_a, &len_a) == 1 && X509_NAME_get0_der(b, &der_b, &len_b) == 1);
	return len_a == len_b && memcmp(der_a, der_b, len_a) == 0;
}

static char *take_text(BIO *bio)
{
	char *text = NULL;
	long len = BIO_get_mem_data(bio, &text);
	return str_ndup(len > 0 ? text : "", len > 0 ? (size_t)len : 0);
}

/* A name that OpenSSL cannot convert (an odd BMPString) is shown as far as it got; nothing is decided by this text. */
static char *name_text(const X509_NAME *name)
{
	cleanup(BIO_freep) BIO *bio = pki_need(BIO_new(BIO_s_mem()));
	(void)X509_NAME_print_ex(bio, name, 0, XN_FLAG_RFC2253);
	ERR_clear_error();
	return take_text(bio);
}

char *cert_subject(const struct cert *c)
{
	return name_text(X509_get_subject_name(c->x509));
}

char *cert_issuer_name(const struct cert *c)
{
	return name_text(X509_get_issuer_name(c->x509));
}

/* As UTF-8; control characters (a zero byte that would cut the text) and backslashes are escaped. */
static char *string_text(const ASN1_STRING *s, unsigned long more_flags)
{
	cleanup(BIO_freep) BIO *bio = pki_need(BIO_new(BIO_s_mem()));
	(void)ASN1_STRING_print_ex(bio, s, ASN1_STRFLGS_ESC_CTRL | more_flags);
	ERR_clear_error();
	return take_text(bio);
}

char *cert_subject_attribute(const struct cert *c, const char *short_name)
{
	const X509_NAME *name = X509_get_subject_name(c->x509);
	int nid = OBJ_sn2nid(short_name);
	int at = nid == NID_undef ? -1 : X509_NAME_get_index_by_NID(name, nid, -1);
	ERR_clear_error();
	if (at < 0)
		return NULL;
	return string_text(X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)), ASN1_STRFLGS_UTF8_CONVERT);
}

static void add_address(const ASN1_OCTET_STRING *ip, struct strs *ret)
{
	char text[INET6_ADDRSTRLEN] = "malformed";
	int len = ASN1_STRING_length(ip);
	if (len == 4 || len == 16)
		(void)inet_ntop(len == 4 ? AF_INET : AF_INET6, ASN1_STRING_get0_data(ip), text, sizeof(text));
	strs_addf(ret, "IP:%s", text);
}

static void add_string(const char *kind, const ASN1_STRING *s, struct strs *ret)
{
	cleanup(str_freep) char *text = string_text(s, ASN1_STRFLGS_ESC_MSB);
	strs_addf(ret, "%s:%s", kind, text);
}

static void add_other(GENERAL_NAME *name, struct strs *ret)
{
	cleanup(BIO_freep) BIO *bio = pki_need(BIO_new(BIO_s_mem()));
	(void)GENERAL_NAME_print(bio, name);
	ERR_clear_error();
	cleanup(str_freep) char *text = take_text(bio);
	strs_add(ret, text);
}

static void add_san(GENERAL_NAME *name, struct strs *ret)
{
	int kind = 0;
	const void *value = GENERAL_NAME_get0_value(name, &kind);
	if (kind == GEN_DNS)
		add_string("DNS", value, ret);
	else if (kind == GEN_EMAIL)
		add_string("email", value, ret);
	else if (kind == GEN_URI)
		add_string("URI", value, ret);
	else if (kind == GEN_IPADD)
		add_address(value, ret);
	else
		add_other(name, ret);
}

void cert_sans(const struct cert *c, struct strs *ret)
{
	cleanup(GENERAL_NAMES_freep) GENERAL_NAMES *names =
		X509_get_ext_d2i(c->x509, NID_subject_alt_name, NULL, NULL);
	ERR_clear_error();
	for (int i = 0; i < sk_GENERAL_NAME_num(names); i++)
		add_san(sk_GENERAL_NAME_value(names, i), ret);
}

/* --- Numbers, keys, flags -------------------------------------------------------------------------------------- */

int64_t cert_not_before_ms(const struct cert *c)
{
	return c->not_before_ms;
}

int64_t cert_not_after_ms(const struct cert *c)
{
	return c->not_after_ms;
}

char *cert_serial_hex(const struct cert *c)
{
	cleanup(BIGNUM_freep) BIGNUM *number = pki_need(ASN1_INTEGER_to_BN(X509_get0_serialNumber(c->x509), NULL));
	char *hex = pki_need(BN_bn2hex(number));
	char *text = str_dup(hex);
	OPENSSL_free(hex);
	return text;
}

char *pki_key_algorithm(EVP_PKEY *k)
{
	static const struct {
		const char *group, *name;
	} curves[] = { { "prime256v1", "P256" }, { "secp384r1", "P384" }, { "secp521r1", "P521" } };
	char group[64] = "?";
	if (EVP_PKEY_is_a(k, "RSA"))
		return str_printf("RSA-%d", EVP_PKEY_get_bits(k));
	if (!EVP_PKEY_is_a(k, "EC"))
		return str_dup(EVP_PKEY_get0_type_name(k));
	(void)EVP_PKEY_get_group_name(k, group, sizeof(group), NULL);
	ERR_clear_error();
	for (size_t i = 0; i < ARRAY_LEN(curves); i++) {
		if (str_eq(group, curves[i].group))
			return str_printf("ECDSA-%s", curves[i].name);
	}
	return str_printf("ECDSA-%s", group);
}

char *cert_key_algorithm(const struct cert *c)
{
	EVP_PKEY *k = X509_get0_pubkey(c->x509);
	ERR_clear_error();
	return k ? pki_key_algorithm(k) : str_dup("unknown");
}

bool cert_is_ca(const struct cert *c)
{
	/* 1: basicConstraints says so, and keyUsage, where there is one, has keyCertSign. */
	bool yes = X509_check_ca(c->x509) == 1;
	ERR_clear_error();
	return yes;
}

bool cert_has_ski(const struct cert *c)
{
	bool has = X509_get0_subject_key_id(c->x509) != NULL;
	ERR_clear_error();
	return has;
}

bool cert_has_aki(const struct cert *c)
{
	bool has = X509_get0_authority_key_id(c->x509) != NULL;
	ERR_clear_error();
	return has;
}

long cert_path_length(const struct cert *c)
{
	long length = X509_get_pathlen(c->x509);
	ERR_clear_error();
	return length;
}

bool cert_has_name_constraints(const struct cert *c)
{
	return pki_extension(c, NID_name_constraints) != NULL;
}

bool cert_has_unknown_critical_extension(const struct cert *c)
{
	bool has = X509_get_extension_flags(c->x509) & EXFLAG_CRITICAL;
	ERR_clear_error();
	return has;
}

bool pki_extensions_broken(const struct cert *c)
{
	bool broken = X509_get_extension_flags(c->x509) & EXFLAG_INVALID;
	ERR_clear_error();
	return broken;
}

/* --- Relations ------------------------------------------------------------------------------------------------- */

bool cert_issued_by(const struct cert *c, const struct cert *ca)
{
	EVP_PKEY *k = X509_get0_pubkey(ca->x509);
	bool yes = k && pki_same_name(X509_get_issuer_name(c->x509), X509_get_subject_name(ca->x509)) &&
		   X509_verify(c->x509, k) == 1;
	ERR_clear_error();
	return yes;
}

bool cert_matches_key(const struct cert *c, const struct key *k)
{
	EVP_PKEY *public_key = X509_get0_pubkey(c->x509);
	bool yes = public_key && EVP_PKEY_eq(public_key, k->pkey) == 1;
	ERR_clear_error();
	return yes;
}

X509_EXTENSION *pki_extension(const struct cert *c, int nid)
{
	int at = X509_get_ext_by_NID(c->x509, nid, -1);
	return at < 0 ? NULL : X509_get_ext(c->x509, at);
}

static bool same_extension(const X509_EXTENSION *a, const X509_EXTENSION *b)
{
	if (!a || !b)
		return a == b;
	return X509_EXTENSION_get_critical(a) == X509_EXTENSION_get_critical(b) &&
	       ASN1_OCTET_STRING_cmp(X509_EXTENSION_get_data((X509_EXTENSION *)a),
				     X509_EXTENSION_get_data((X509_EXTENSION *)b)) == 0;
}

static const struct {
	int nid;
	const char *name;
} profile_extensions[] = {
	{ NID_subject_alt_name, "subjectAltName" },
	{ NID_key_usage, "keyUsage" },
	{ NID_ext_key_usage, "extendedKeyUsage" },
	{ NID_basic_constraints, "basicConstraints" },
};

bool pki_is_profile_extension(int nid)
{
	for (size_t i = 0; i < ARRAY_LEN(profile_extensions); i++) {
		if (profile_extensions[i].nid == nid)
			return true;
	}
	return false;
}

bool cert_same_profile(const struct cert *a, const struct cert *b, const char **ret_what)
{
	*ret_what = "subject";
	if (!pki_same_name(X509_get_subject_name(a->x509), X509_get_subject_name(b->x509)))
		return false;
	for (size_t i = 0; i < ARRAY_LEN(profile_extensions); i++) {
		int nid = profile_extensions[i].nid;
		*ret_what = profile_extensions[i].name;
		if (!same_extension(pki_extension(a, nid), pki_extension(b, nid)))
			return false;
	}
	*ret_what = NULL;
	return true;
}

/* --- Verifying ------------------------------------------------------------------------------------------------- */

static result purpose_of(const char *name, int *ret_purpose, struct err *e)
{
	if (!name)
		*ret_purpose = 0; /* not looked at */
	else if (str_eq(name, "server"))
		*ret_purpose = X509_PURPOSE_SSL_SERVER;
	else if (str_eq(name, "client"))
		*ret_purpose = X509_PURPOSE_SSL_CLIENT;
	else
		return err_set(e, ERR_INPUT, "purpose \"%s\" is neither \"server\" nor \"client\"", name);
	return OK;
}

/* The list borrows the certificates. */
static STACK_OF(X509) *stack_of(const struct certs *list)
{
	STACK_OF(X509) *stack = pki_need(sk_X509_new_null());
	for (size_t i = 0; list && i < list->n; i++)
		pki_must(sk_X509_push(stack, list->items[i]->x509) > 0);
	return stack;
}

static void stack_freep(STACK_OF(X509) **stack)
{
	sk_X509_free(*stack);
}

static result verify_err(X509_STORE_CTX *ctx, struct err *e)
{
	X509 *at = X509_STORE_CTX_get_current_cert(ctx);
	const char *why = X509_verify_cert_error_string(X509_STORE_CTX_get_error(ctx));
	cleanup(str_freep) char *name = at ? name_text(X509_get_subject_name(at)) : str_dup("?");
	ERR_clear_error();
	return err_set(e, ERR_INPUT, "certificate \"%.200s\" is not trusted: %s", name, why);
}

result cert_verify(const struct cert *leaf, const struct certs *chain, const struct certs *roots, const char *purpose,
		   int64_t at_ms, struct err *e)
{
	int wanted = 0;
	TRY(purpose_of(purpose, &wanted, e));
	cleanup(stack_freep) STACK_OF(X509) *intermediates = stack_of(chain);
	cleanup(X509_STORE_freep) X509_STORE *store = pki_need(X509_STORE_new());
	for (size_t i = 0; i < roots->n; i++)
		pki_must(X509_STORE_add_cert(store, roots->items[i]->x509) == 1);
	cleanup(X509_STORE_CTX_freep) X509_STORE_CTX *ctx = pki_need(X509_STORE_CTX_new());
	pki_must(X509_STORE_CTX_init(ctx, store, leaf->x509, intermediates) == 1);
	X509_VERIFY_PARAM_set_time(X509_STORE_CTX_get0_param(ctx), (time_t)(at_ms / 1000));
	if (wanted && !X509_STORE_CTX_set_purpose(ctx, wanted))
		return pki_err(e, ERR_OTHER, "setting the purpose of a verification");
	if (X509_verify_cert(ctx) != 1)
		return verify_err(ctx, e);
	ERR_clear_error();
	return OK;
}
