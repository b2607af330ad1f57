/* PKCS#10 requests. */
#include "pki_internal.h"

#include <openssl/pem.h>

static result request_sign(X509_REQ *req, const X509_NAME *subject, const struct key *k, struct buf *ret_pem,
			   struct err *e)
{
	const EVP_MD *digest = NULL;
	TRY(pki_sign_digest(k->pkey, &digest, e));
	if (!X509_REQ_set_version(req, X509_REQ_VERSION_1) || !X509_REQ_set_subject_name(req, subject) ||
	    !X509_REQ_set_pubkey(req, k->pkey) || !X509_REQ_sign(req, k->pkey, digest))
		return pki_err(e, ERR_OTHER, "making a certificate request");
	cleanup(BIO_freep) BIO *bio = pki_need(BIO_new(BIO_s_mem()));
	pki_must(PEM_write_bio_X509_REQ(bio, req) == 1);
	pki_bio_take(bio, ret_pem);
	return OK;
}

/* The extension goes in as it stands, with its bytes and its critical flag. */
static void ask_for(X509_REQ *req, X509_EXTENSION *extension)
{
	STACK_OF(X509_EXTENSION) *wanted = pki_need(sk_X509_EXTENSION_new_null());
	pki_must(sk_X509_EXTENSION_push(wanted, extension) > 0);
	pki_must(X509_REQ_add_extensions(req, wanted) == 1);
	sk_X509_EXTENSION_free(wanted);
}

result csr_make(const struct cert *predecessor, const struct key *k, struct buf *ret_pem, struct err *e)
{
	cleanup(X509_REQ_freep) X509_REQ *req = pki_need(X509_REQ_new());
	X509_EXTENSION *sans = pki_extension(predecessor, NID_subject_alt_name);
	if (sans)
		ask_for(req, sans);
	return request_sign(req, X509_get_subject_name(predecessor->x509), k, ret_pem, e);
}

result csr_make_subject(const char *common_name, const char *organization, const struct key *k, struct buf *ret_pem,
			struct err *e)
{
	cleanup(X509_REQ_freep) X509_REQ *req = pki_need(X509_REQ_new());
	cleanup(X509_NAME_freep) X509_NAME *subject = NULL;
	TRY(pki_name_make(common_name, NID_organizationName, organization, &subject, e));
	return request_sign(req, subject, k, ret_pem, e);
}
