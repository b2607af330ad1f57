#include "http.h"
#include "remote.h"

#define AGENT "certrotation-node/" CERTROTATION_VERSION
#define TIMEOUT_MS 3000

result remote_proxy_trusted(const char *host, int port, const char *cert_pem, const char *key_pem, bool *ret_trusted, struct err *e)
{
	static const char *const HEADERS[] = { "X-Remote-User: certrotation:probe" };
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, AGENT);
	struct http_response r cleanup(http_response_release) = { 0 };
	const struct http_identity id = { .client_cert_pem = cert_pem, .client_key_pem = key_pem, .insecure = true };
	char *url cleanup(str_freep) = str_printf("https://%s:%d/certrotation-probe", host, port);
	const struct http_request q = { .method = "GET", .url = url, .headers = HEADERS, .n_headers = ARRAY_LEN(HEADERS),
					.timeout_ms = TIMEOUT_MS, .fresh_connection = true, .max_body = 65536 };
	http_pool_identity(pool, &id);
	result asked = http_do(pool, &q, &r, e);
	if (!asked.ok && !r.tls_client_rejected)
		return asked;
	if (asked.ok && r.status != 401 && r.status != 403)
		return err_set(e, ERR_IO, "%s answers %ld", url, r.status);
	*ret_trusted = r.status == 403;
	return OK;
}
