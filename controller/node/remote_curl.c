#include "client.h"
#include "pki.h"
#include "remote.h"

#include <string.h>
#include <time.h>

#define AGENT "certrotation-node/" CERTROTATION_VERSION
#define LOCAL_TIMEOUT_MS 3000
#define ABSORB_APART_MS 10
#define ABSORB_AT_LEAST_MS 1200 /* client-go keeps what it has read for one second */
#define ABSORB_NODES_MAX 200
#define POLL_MS 100

bool remote_available(void)
{
	return true;
}

static void rest(int64_t ms)
{
	const struct timespec apart = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000 };
	nanosleep(&apart, NULL);
}

static result ask_local(int port, const char *path, bool chain, struct http_response *ret, struct err *e)
{
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, AGENT);
	const struct http_identity anybody = { .insecure = true };
	char *url cleanup(str_freep) = str_printf("https://127.0.0.1:%d%s", port, path);
	const struct http_request q = { .method = "GET", .url = url, .timeout_ms = LOCAL_TIMEOUT_MS, .fresh_connection = true,
					.want_peer_chain = chain, .max_body = 65536 };
	http_pool_identity(pool, &anybody);
	return http_do(pool, &q, ret, e);
}

result remote_answers(int port, const char *path, long *ret_status, struct err *e)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	TRY(ask_local(port, path, false, &r, e));
	*ret_status = r.status;
	return OK;
}

result remote_presented(int port, char **ret_pem, struct err *e)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	TRY(ask_local(port, "/healthz", true, &r, e));
	if (!r.peer_chain_pem)
		return err_set(e, ERR_IO, "127.0.0.1:%d has shown no certificate", port);
	*ret_pem = steal(&r.peer_chain_pem);
	return OK;
}

/* --- The kubelet's certificate ---------------------------------------------------------------------------------------------- */

static struct json *csr_object(const char *csr_pem, const char *name)
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

result remote_sign_kubelet(const struct remote_identity *id, const char *node, const char *csr_pem, int64_t until_ms,
			   char **ret_cert_pem, struct err *e)
{
	struct kube *k cleanup(kube_freep) = NULL;
	char suffix[17];
	random_hex(8, suffix);
	char *name cleanup(str_freep) = str_printf("certrotation-%s-%s", node, suffix);
	struct json *csr cleanup(json_freep) = csr_object(csr_pem, name);
	TRY(identity_client(id, &k, e));
	TRY(kube_create(k, "/apis/certificates.k8s.io/v1/certificatesigningrequests", csr, NULL, e));
	return wait_for_certificate(k, name, until_ms, ret_cert_pem, e);
}

/* --- Absorbing a changed client certificate ----------------------------------------------------------------------------------- */

static bool add_node(void *context, const struct json *node)
{
	struct strs *names = context;
	strs_add(names, json_str_or(json_at(node, "metadata", "name", NULL), ""));
	return names->n < ABSORB_NODES_MAX;
}

/* An upgrade request is never put on a pooled connection: the API server dials the kubelet for it. The kubelet answers plainly, and the
 * API server then says 500, "invalid upgrade response: status code 200" (apimachinery util/proxy/upgradeaware.go): it got through. */
static bool dial_kubelet(struct http_pool *pool, const char *server, const char *node)
{
	static const char *const HEADERS[] = { "Connection: Upgrade", "Upgrade: certrotation" };
	char *url cleanup(str_freep) = str_printf("%s/api/v1/nodes/%s/proxy/healthz", server, node);
	const struct http_request q = { .method = "GET", .url = url, .headers = HEADERS, .n_headers = ARRAY_LEN(HEADERS),
					.timeout_ms = LOCAL_TIMEOUT_MS, .max_body = 65536 };
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e;
	return http_do(pool, &q, &r, &e).ok && strstr(buf_str(&r.body), "status code 200") != NULL;
}

/* Until a dial has failed and one after it has not (absorbed by us), or none has failed for longer than the old pair is kept. */
static result absorb_node(struct http_pool *pool, const char *server, const char *node, int64_t until_ms, struct err *e)
{
	bool failed = false;
	int64_t began = clock_monotonic_ms();
	for (;;) {
		bool good = dial_kubelet(pool, server, node);
		int64_t now = clock_monotonic_ms();
		if (good && (failed || now - began > ABSORB_AT_LEAST_MS))
			return OK;
		if (now > until_ms)
			return err_set(e, ERR_TIMEOUT, "the API server can't reach the kubelet of %s with its new certificate", node);
		failed = failed || !good;
		rest(ABSORB_APART_MS);
	}
}

result remote_absorb(const struct remote_identity *id, int64_t until_ms, struct err *e)
{
	struct kube *k cleanup(kube_freep) = NULL;
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, AGENT);
	struct strs names cleanup(strs_release) = { 0 };
	const struct kube_list q = { .path = "/api/v1/nodes", .metadata_only = true };
	const struct http_identity h = { .ca_pem = id->ca_pem, .client_cert_pem = id->cert_pem, .client_key_pem = id->key_pem };
	TRY(identity_client(id, &k, e));
	TRY(kube_list_each(k, &q, add_node, NULL, &names, NULL, e));
	http_pool_identity(pool, &h);
	for (size_t i = 0; i < names.n; i++)
		TRY(absorb_node(pool, id->server, names.items[i], until_ms, e));
	return OK;
}
