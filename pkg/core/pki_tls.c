/* What a server's handshake says about the certificates that it takes from clients. */
#include "pki_internal.h"

#include <openssl/ssl.h>

static char *digest(const X509_NAME *name)
{
	const unsigned char *der = NULL;
	char hex[65];
	size_t len = 0;
	pki_must(X509_NAME_get0_der(name, &der, &len) == 1);
	sha256_hex(der, len, hex);
	return str_dup(hex);
}

char *cert_subject_digest(const struct cert *c)
{
	return digest(X509_get_subject_name(c->x509));
}

/* Called when the server asks for a certificate; there is none. */
static int on_asked(SSL *ssl, X509 **ret_certificate, EVP_PKEY **ret_key)
{
	struct strs *names = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
	const STACK_OF(X509_NAME) *asked = SSL_get0_peer_CA_list(ssl);
	(void)ret_certificate, (void)ret_key;
	for (int i = 0; i < sk_X509_NAME_num(asked); i++) {
		char *name cleanup(str_freep) = digest(sk_X509_NAME_value(asked, i));
		strs_add(names, name);
	}
	return 0;
}

void pki_note_client_authorities(void *ssl_ctx, struct strs *names)
{
	pki_must(SSL_CTX_set_app_data((SSL_CTX *)ssl_ctx, names) == 1);
	SSL_CTX_set_client_cert_cb((SSL_CTX *)ssl_ctx, on_asked);
}
