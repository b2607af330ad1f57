/* Whom the API server takes for whom, by a client certificate: the front proxy's, or a client's own. */
#include "http.h"
#include "remote.h"

#define AGENT "certrotation-node/" CERTROTATION_VERSION
#define TIMEOUT_MS 3000

/* *ret_status: of the answer, 401 too when the handshake already ends it. */
static result ask_as(const char *host, int port, const char *cert_pem, const char *key_pem, const char *const *headers, size_t n_headers,
		     long *ret_status, struct err *e)
{
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, AGENT);
	struct http_response r cleanup(http_response_release) = { 0 };
	const struct http_identity id = { .client_cert_pem = cert_pem, .client_key_pem = key_pem, .insecure = true };
	char *url cleanup(str_freep) = str_printf("https://%s:%d/certrotation-probe", host, port);
	const struct http_request q = { .method = "GET", .url = url, .headers = headers, .n_headers = n_headers,
					.timeout_ms = TIMEOUT_MS, .fresh_connection = true, .max_body = 65536 };
	http_pool_identity(pool, &id);
	result asked = http_do(pool, &q, &r, e);
	if (!asked.ok && !r.tls_client_rejected)
		return asked;
	*ret_status = asked.ok ? r.status : 401;
	return OK;
}

result remote_proxy_trusted(const char *host, int port, const char *cert_pem, const char *key_pem, bool *ret_trusted, struct err *e)
{
	static const char *const HEADERS[] = { "X-Remote-User: certrotation:probe" };
	long status = 0;
	TRY(ask_as(host, port, cert_pem, key_pem, HEADERS, ARRAY_LEN(HEADERS), &status, e));
	if (status != 401 && status != 403)
		return err_set(e, ERR_IO, "%s:%d answers %ld", host, port, status);
	*ret_trusted = status == 403;
	return OK;
}

/* Who is known gets an answer of another kind, whatever it may do. */
result remote_client_trusted(const char *host, int port, const char *cert_pem, const char *key_pem, bool *ret_trusted, struct err *e)
{
	long status = 0;
	TRY(ask_as(host, port, cert_pem, key_pem, NULL, 0, &status, e));
	if (status >= 500)
		return err_set(e, ERR_IO, "%s:%d answers %ld", host, port, status);
	*ret_trusted = status != 401;
	return OK;
}

result remote_client_authorities(const char *host, int port, struct strs *ret, struct err *e)
{
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, AGENT);
	struct http_response r cleanup(http_response_release) = { 0 };
	const struct http_identity anybody = { .insecure = true };
	char *url cleanup(str_freep) = str_printf("https://%s:%d/healthz", host, port);
	const struct http_request q = { .method = "GET", .url = url, .timeout_ms = TIMEOUT_MS, .want_peer_chain = true, .max_body = 65536 };
	http_pool_identity(pool, &anybody);
	TRY(http_do(pool, &q, &r, e));
	if (!r.client_authorities.n)
		return err_set(e, ERR_IO, "%s:%d names nobody whose certificates it takes", host, port);
	*ret = r.client_authorities;
	r.client_authorities = (struct strs){ 0 };
	return OK;
}
