#include "candidate.h"

/* Where a bundle begins with an intermediate, clients that want a chain up to a self-signed root (OpenSSL's default) fail. */
static result check_alone(const struct certs *n, struct err *e)
{
	if (n->n != 1)
		return err_set(e, ERR_INPUT, "tls.crt holds %zu certificates: put the authority's own there and no other", n->n);
	if (!cert_issued_by(n->items[0], n->items[0]))
		return err_set(e, ERR_INPUT, "it is not self-signed, and clients that know it alone could not verify anything: bring a root");
	return OK;
}

static result check_powers(const struct cert *c, struct err *e)
{
	char *algorithm cleanup(str_freep) = cert_key_algorithm(c);
	if (!cert_is_ca(c))
		return err_set(e, ERR_INPUT, "it is no authority: basicConstraints must say CA, keyUsage keyCertSign");
	if (!cert_has_ski(c))
		return err_set(e, ERR_INPUT, "it has no subjectKeyIdentifier: make it with one");
	if (cert_path_length(c) == 0)
		return err_set(e, ERR_INPUT, "its path length is 0, so that there would be no way back: make it without pathlen, or with 1");
	if (cert_has_name_constraints(c) || cert_has_unknown_critical_extension(c))
		return err_set(e, ERR_INPUT, "it has name constraints or an unknown critical extension: make it without");
	if (!key_can_generate(algorithm))
		return err_set(e, ERR_INPUT, "its key is %s: make it RSA-2048, RSA-3072, RSA-4096, ECDSA-P256 or ECDSA-P384", algorithm);
	return OK;
}

static result check_dates(const struct cert *c, int64_t now_ms, struct err *e)
{
	char until[32];
	time_format(cert_not_after_ms(c), until);
	if (cert_not_before_ms(c) > now_ms)
		return err_set(e, ERR_INPUT, "it is not valid yet: wait, or set the clocks");
	if (cert_not_after_ms(c) < now_ms + CANDIDATE_VALID_MS)
		return err_set(e, ERR_INPUT, "it expires at %s: bring one that is good for at least 30 days", until);
	return OK;
}

/* OpenSSL finds an issuer by its subject: two authorities of one name are taken for each other. */
static result check_differs(const struct cert *c, const struct cert *o, struct err *e)
{
	char spki[CERT_FINGERPRINT_SIZE], old_spki[CERT_FINGERPRINT_SIZE];
	char *subject cleanup(str_freep) = cert_subject(c), *old_subject cleanup(str_freep) = cert_subject(o);
	cert_spki_sha256(c, spki);
	cert_spki_sha256(o, old_spki);
	if (str_eq(spki, old_spki))
		return err_set(e, ERR_INPUT, "it has the key of the authority in force: make a new key");
	if (str_eq(subject, old_subject))
		return err_set(e, ERR_INPUT, "its subject is that of the authority in force: give it another one (an OU will do)");
	return OK;
}

result candidate_check(const struct certs *n, const struct key *k, const struct cert *o, int64_t now_ms, struct err *e)
{
	TRY(check_alone(n, e));
	TRY(check_powers(n->items[0], e));
	TRY(check_dates(n->items[0], now_ms, e));
	if (!cert_matches_key(n->items[0], k))
		return err_set(e, ERR_INPUT, "tls.key is not its key");
	return o ? check_differs(n->items[0], o, e) : OK;
}
