#include "pki_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
	char name[32];
	struct key *key;
} keys[16];

/* The tests' own errors end the program: nothing can be said without fixtures. */
static void need(bool ok, const char *what)
{
	if (ok)
		return;
	(void)fprintf(stderr, "fixture: %s: %s\n", what, ERR_reason_error_string(ERR_peek_last_error()));
	abort();
}

static EVP_PKEY *generate(const char *algorithm)
{
	if (str_eq(algorithm, "RSA-4096"))
		return EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)4096);
	if (str_eq(algorithm, "RSA-2048"))
		return EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
	if (str_eq(algorithm, "ECDSA-P256"))
		return EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	if (str_eq(algorithm, "ECDSA-P384"))
		return EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-384");
	if (str_eq(algorithm, "ECDSA-P521"))
		return EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-521");
	return EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
}

const struct key *fixture_key(const char *algorithm, unsigned which)
{
	char name[32];
	(void)snprintf(name, sizeof(name), "%s/%u", algorithm, which);
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		if (str_eq(keys[i].name, name))
			return keys[i].key;
		if (keys[i].key)
			continue;
		str_copy(keys[i].name, sizeof(keys[i].name), name);
		keys[i].key = mem_alloc(sizeof(struct key));
		keys[i].key->pkey = generate(algorithm);
		need(keys[i].key->pkey, "a key");
		return keys[i].key;
	}
	need(false, "too many keys");
	return NULL;
}

void fixture_keys_release(void)
{
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		key_freep(&keys[i].key);
		keys[i].name[0] = '\0';
	}
}

static void set_subject(X509 *x, const struct rdn *r)
{
	static const struct rdn plain[] = { { "CN", V_ASN1_UTF8STRING, "crafted", 0 }, { NULL, 0, NULL, 0 } };
	X509_NAME *name = X509_get_subject_name(x);
	for (r = r ? r : plain; r->name; r++)
		need(X509_NAME_add_entry_by_txt(name, r->name, r->type, (const unsigned char *)r->text, -1, -1,
						r->set),
		     r->name);
}

static void set_times(X509 *x, const struct crafted *how)
{
	int64_t from = how->from_ms ? how->from_ms : NOW_MS - DAY_MS;
	int64_t to = how->to_ms ? how->to_ms : NOW_MS + YEAR_MS;
	need(ASN1_TIME_set(X509_getm_notBefore(x), (time_t)(from / 1000)) != NULL, "notBefore");
	need(ASN1_TIME_set(X509_getm_notAfter(x), (time_t)(to / 1000)) != NULL, "notAfter");
	if (how->raw_not_before)
		need(ASN1_STRING_set(X509_getm_notBefore(x), how->raw_not_before, -1), "raw notBefore");
	if (how->raw_not_after)
		need(ASN1_STRING_set(X509_getm_notAfter(x), how->raw_not_after, -1), "raw notAfter");
}

static void add_extensions(X509 *x, X509 *issuer, const char *const *pairs)
{
	X509V3_CTX context;
	X509V3_set_ctx(&context, issuer, x, NULL, NULL, 0);
	X509V3_set_ctx_nodb(&context);
	for (; pairs && *pairs; pairs += 2) {
		cleanup(X509_EXTENSION_freep) X509_EXTENSION *extension =
			X509V3_EXT_nconf(NULL, &context, pairs[0], pairs[1]);
		need(extension && X509_add_ext(x, extension, -1), pairs[1]);
	}
}

/* As read from its bytes; as it was made where dates are none, for cert_to_pem alone. */
static struct cert *reread(X509 *x)
{
	unsigned char *der = NULL;
	struct err e;
	struct cert *c = NULL;
	int len = i2d_X509(x, &der);
	const unsigned char *at = der;
	X509 *read = d2i_X509(NULL, &at, len);
	OPENSSL_free(der);
	ERR_clear_error();
	if (read && pki_cert_wrap(read, &c, &e).ok)
		return c;
	c = mem_alloc(sizeof(*c));
	c->x509 = x;
	X509_up_ref(x);
	return c;
}

struct cert *fixture_cert(const struct crafted *how)
{
	static long serial = 1000;
	cleanup(X509_freep) X509 *x = X509_new();
	X509 *issuer = how->issuer ? how->issuer->x509 : x;
	EVP_PKEY *signer = how->issuer ? how->issuer_key->pkey : how->key->pkey;
	const EVP_MD *digest = EVP_PKEY_is_a(signer, "ED25519") ? NULL : EVP_sha256();
	X509_set_version(x, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
	set_subject(x, how->subject);
	set_times(x, how);
	need(X509_set_issuer_name(x, X509_get_subject_name(issuer)), "issuer");
	need(X509_set_pubkey(x, how->key->pkey), "public key");
	add_extensions(x, issuer, how->extensions);
	need(X509_sign(x, signer, digest), "signature");
	return reread(x);
}

struct cert *fixture_kubeadm_ca(const struct key *k)
{
	static const struct rdn subject[] = { { "CN", V_ASN1_PRINTABLESTRING, "kubernetes", 0 },
					      { NULL, 0, NULL, 0 } };
	static const char *const extensions[] = {
		"keyUsage", "critical,digitalSignature,keyEncipherment,keyCertSign",
		"basicConstraints", "critical,CA:TRUE",
		"subjectKeyIdentifier", "hash",
		"subjectAltName", "DNS:kubernetes",
		NULL,
	};
	return fixture_cert(&(struct crafted){
		.subject = subject, .key = k, .extensions = extensions, .to_ms = NOW_MS + 9 * YEAR_MS });
}

struct cert *fixture_apiserver(const struct key *k, const struct cert *issuer, const struct key *issuer_key)
{
	static const struct rdn subject[] = { { "CN", V_ASN1_PRINTABLESTRING, "kube-apiserver", 0 },
					      { NULL, 0, NULL, 0 } };
	bool names_key = X509_get0_subject_key_id(issuer->x509) != NULL;
	const char *const extensions[] = {
		"keyUsage", "critical,digitalSignature,keyEncipherment",
		"extendedKeyUsage", "serverAuth",
		"basicConstraints", "critical,CA:FALSE",
		"subjectAltName", "DNS:cp-1,DNS:kubernetes,DNS:kubernetes.default,IP:10.96.0.1,IP:fd00::1",
		names_key ? "authorityKeyIdentifier" : NULL, "keyid",
		NULL,
	};
	return fixture_cert(&(struct crafted){ .subject = subject,
					       .key = k,
					       .issuer = issuer,
					       .issuer_key = issuer_key,
					       .extensions = extensions });
}
