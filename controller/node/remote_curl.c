#include "client.h"
#include "pki.h"
#include "remote.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define AGENT "certrotation-node/" CERTROTATION_VERSION
#define LOCAL_TIMEOUT_MS 3000
#define POLL_MS 100
#define COUNT_MAX 9007199254740992.0 /* 2^53: what a double counts exactly */

bool remote_available(void)
{
	return true;
}

static void rest(int64_t ms)
{
	const struct timespec apart = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000 };
	nanosleep(&apart, NULL);
}

static result ask_local(const char *host, int port, const char *path, bool chain, struct http_response *ret, struct err *e)
{
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, AGENT);
	const struct http_identity anybody = { .insecure = true };
	char *url cleanup(str_freep) = str_printf("https://%s:%d%s", host, port, path);
	const struct http_request q = { .method = "GET", .url = url, .timeout_ms = LOCAL_TIMEOUT_MS, .fresh_connection = true,
					.want_peer_chain = chain, .max_body = 65536 };
	http_pool_identity(pool, &anybody);
	return http_do(pool, &q, ret, e);
}

result remote_answers(const char *host, int port, const char *path, long *ret_status, struct err *e)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	TRY(ask_local(host, port, path, false, &r, e));
	*ret_status = r.status;
	return OK;
}

result remote_presented(const char *host, int port, char **ret_pem, struct err *e)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	TRY(ask_local(host, port, "/healthz", true, &r, e));
	if (!r.peer_chain_pem)
		return err_set(e, ERR_IO, "%s:%d has shown no certificate", host, port);
	*ret_pem = steal(&r.peer_chain_pem);
	return OK;
}

/* --- The kubelet's certificate ---------------------------------------------------------------------------------------------- */

/* usages: as the kubelet itself asks for (pkg/kubelet/certificate/kubelet.go); approved with these only. */
static struct json *csr_object(const char *csr_pem, bool rsa, const char *name)
{
	struct json *j = json_object(), *spec = json_ensure_object(j, "spec");
	struct buf encoded cleanup(buf_release) = BUF_INIT;
	base64_encode(csr_pem, strlen(csr_pem), &encoded);
	json_set_str(j, "apiVersion", "certificates.k8s.io/v1");
	json_set_str(j, "kind", "CertificateSigningRequest");
	json_set_str(json_ensure_object(j, "metadata"), "name", name);
	json_set_str(spec, "request", buf_str(&encoded));
	json_set_str(spec, "signerName", "kubernetes.io/kube-apiserver-client-kubelet");
	json_add_str(json_ensure_array(spec, "usages"), "digital signature");
	json_add_str(json_ensure_array(spec, "usages"), "client auth");
	if (rsa)
		json_add_str(json_ensure_array(spec, "usages"), "key encipherment");
	return j;
}

static result refused(const struct json *csr, const char *name, struct err *e)
{
	json_each(c, json_at(csr, "status", "conditions", NULL))
		if (str_eq(json_get_str(c, "type"), "Denied") || str_eq(json_get_str(c, "type"), "Failed"))
			return err_set(e, ERR_DENIED, "CertificateSigningRequest %s: %s: %s", name, json_get_str(c, "type"),
				       json_str_or(json_get(c, "message"), ""));
	return OK;
}

static result wait_for_certificate(struct kube *k, const char *name, int64_t until_ms, char **ret_pem, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("/apis/certificates.k8s.io/v1/certificatesigningrequests/%s", name);
	while (clock_monotonic_ms() < until_ms) {
		struct json *csr cleanup(json_freep) = NULL;
		struct buf pem cleanup(buf_release) = BUF_INIT;
		TRY(kube_get(k, path, &csr, e));
		TRY(refused(csr, name, e));
		const char *text = json_str(json_at(csr, "status", "certificate", NULL));
		if (text) {
			TRY(base64_decode(text, strlen(text), &pem, e));
			*ret_pem = buf_take(&pem);
			return OK;
		}
		rest(POLL_MS);
	}
	return err_set(e, ERR_TIMEOUT, "CertificateSigningRequest %s is not signed: is kube-controller-manager up, are node CSRs approved?",
		       name);
}

static result identity_client(const struct remote_identity *id, struct kube **ret, struct err *e)
{
	const struct http_identity h = { .ca_pem = id->ca_pem, .client_cert_pem = id->cert_pem, .client_key_pem = id->key_pem };
	return kube_from_identity(id->server, &h, ret, e);
}

result remote_sign_kubelet(const struct remote_identity *id, const char *node, const char *csr_pem, bool rsa, int64_t until_ms,
			   char **ret_cert_pem, struct err *e)
{
	struct kube *k cleanup(kube_freep) = NULL;
	char suffix[17];
	random_hex(8, suffix);
	char *name cleanup(str_freep) = str_printf("certrotation-%s-%s", node, suffix);
	struct json *csr cleanup(json_freep) = csr_object(csr_pem, rsa, name);
	TRY(identity_client(id, &k, e));
	TRY(kube_create(k, "/apis/certificates.k8s.io/v1/certificatesigningrequests", csr, NULL, e));
	return wait_for_certificate(k, name, until_ms, ret_cert_pem, e);
}

/* --- The kubelet's own view ---------------------------------------------------------------------------------------------------- */

/* The value of a counter without labels: "name value" on a line of its own. */
static bool metric(const char *text, const char *name, int64_t *ret)
{
	size_t n = strlen(name);
	for (const char *p = text; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
		if (strncmp(p, name, n) != 0 || p[n] != ' ')
			continue;
		double value = strtod(p + n, NULL);
		if (!(value >= 0 && value <= COUNT_MAX))
			return false;
		*ret = (int64_t)value;
		return true;
	}
	return false;
}

static void identify(struct http_pool *pool, const struct remote_identity *id, bool any_server)
{
	const struct http_identity h = { .ca_pem = any_server ? NULL : id->ca_pem, .client_cert_pem = id->cert_pem,
					 .client_key_pem = id->key_pem, .insecure = any_server };
	http_pool_identity(pool, &h);
}

result remote_kubelet_looks(const struct remote_identity *id, int port, int64_t *ret_begun, int64_t *ret_ended, struct err *e)
{
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, AGENT);
	struct http_response r cleanup(http_response_release) = { 0 };
	char *url cleanup(str_freep) = str_printf("https://127.0.0.1:%d/metrics", port);
	const struct http_request q = { .method = "GET", .url = url, .accept = "text/plain", .timeout_ms = LOCAL_TIMEOUT_MS };
	int64_t begun = 0, ended = 0;
	identify(pool, id, true); /* the kubelet's certificate is its own; only numbers come back */
	TRY(http_do(pool, &q, &r, e));
	if (r.status != 200)
		return err_set(e, ERR_DENIED, "the kubelet answers %ld for its metrics", r.status);
	if (!metric(buf_str(&r.body), "kubelet_pleg_relist_interval_seconds_count", &begun) ||
	    !metric(buf_str(&r.body), "kubelet_pleg_relist_duration_seconds_count", &ended))
		return err_set(e, ERR_INPUT, "the kubelet does not say when it looks at its containers");
	*ret_begun = begun;
	*ret_ended = ended;
	return OK;
}

/* --- From the API server to the kubelet ------------------------------------------------------------------------------------------- */

struct remote_dialer {
	struct http_pool *pool;
	char *server;
};

struct remote_dialer *remote_dialer_new(const struct remote_identity *id)
{
	struct remote_dialer *d = mem_alloc(sizeof *d);
	d->pool = http_pool_new(1, AGENT);
	d->server = str_dup(id->server);
	identify(d->pool, id, false);
	return d;
}

void remote_dialer_freep(struct remote_dialer **d)
{
	if (!*d)
		return;
	http_pool_freep(&(*d)->pool);
	str_freep(&(*d)->server);
	free(*d);
	*d = NULL;
}

/* An upgrade request is never put on a pooled connection: the API server dials the kubelet for it. The kubelet answers plainly, and
 * the API server then says 500, "invalid upgrade response: status code 200" (apimachinery util/proxy/upgradeaware.go): through. */
result remote_dial(struct remote_dialer *d, const char *node, bool *ret_good, struct err *e)
{
	static const char *const HEADERS[] = { "Connection: Upgrade", "Upgrade: certrotation" };
	struct http_response r cleanup(http_response_release) = { 0 };
	char *url cleanup(str_freep) = str_printf("%s/api/v1/nodes/%s/proxy/healthz", d->server, node);
	const struct http_request q = { .method = "GET", .url = url, .headers = HEADERS, .n_headers = ARRAY_LEN(HEADERS),
					.timeout_ms = LOCAL_TIMEOUT_MS, .max_body = 65536 };
	TRY(http_do(d->pool, &q, &r, e));
	if (r.status == 401 || r.status == 403 || r.status == 404)
		return err_set(e, ERR_DENIED, "%s answers %ld", url, r.status);
	*ret_good = strstr(buf_str(&r.body), "status code 200") != NULL;
	return OK;
}
