#define _DEFAULT_SOURCE /* explicit_bzero */

#include "http.h"
#include "pki.h"

#include <assert.h>
#include <curl/curl.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define TIMEOUT_MS 30000
#define CONNECT_TIMEOUT_MS 10000
#define CONNECTION_LIFE_S 300L /* an upper bound for what a proxy or load balancer behind our back may change */
#define CONNECTION_IDLE_S 60L  /* shorter than what servers and load balancers grant */
#define RETRY_AFTER_MAX_S 86400 /* longer than anybody waits */
#define POLL_MS 1000
#define POLL_STREAM_MS 500

/* The pool's copy of an http_identity. */
struct identity {
	char *ca_pem, *client_cert_pem, *client_key_pem, *authorization, *server_name;
	bool insecure;
};

/* One request in flight. Its easy handle is kept for the next request. */
struct exchange {
	struct exchange *next;
	struct http_pool *pool;
	struct http_item *item;
	CURL *easy;
	struct curl_slist *headers, *connect_to;
	unsigned starts;      /* how often libcurl has begun to send it */
	bool head_whole;      /* the empty line after the headers came */
	bool ended;           /* by on_bytes */
	bool stale;           /* nothing was sent: the pooled connection had come to its end */
	bool again;           /* on a new connection, after `stale` */
	int64_t last_byte_ms;
	char error[CURL_ERROR_SIZE];
};

struct http_pool {
	CURLM *multi;
	size_t max_connections, n_active;
	char *user_agent;
	struct identity identity;
	struct exchange *active, *idle;
	int sockets[64]; /* the latest; some may be closed */
	size_t n_sockets;
	bool busy;
};

/* --- libcurl's memory ------------------------------------------------------------------------------------------- */

/* Headers with tokens, keys and bodies pass through libcurl's buffers: each is overwritten when it is freed. */
struct block {
	alignas(max_align_t) size_t size;
};

static void *block_new(size_t n)
{
	struct block *b = mem_alloc(sizeof(*b) + n);
	b->size = n;
	return b + 1;
}

static void block_free(void *p)
{
	if (!p)
		return;
	struct block *b = (struct block *)p - 1;
	explicit_bzero(p, b->size);
	free(b);
}

static void *block_resize(void *p, size_t n)
{
	void *moved = block_new(n);
	if (!p)
		return moved;
	size_t old = ((struct block *)p - 1)->size;
	memcpy(moved, p, old < n ? old : n);
	block_free(p);
	return moved;
}

static void *block_new_array(size_t n, size_t size)
{
	return block_new(size && n > SIZE_MAX / 2 / size ? SIZE_MAX / 2 : n * size);
}

static char *block_strdup(const char *s)
{
	size_t n = strlen(s) + 1;
	return memcpy(block_new(n), s, n);
}

static void init_libcurl(void)
{
	if (curl_global_init_mem(CURL_GLOBAL_DEFAULT, block_new, block_free, block_resize, block_strdup, block_new_array))
		abort();
}

static void init_once(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, init_libcurl);
}

/* --- Identity --------------------------------------------------------------------------------------------------- */

static char *dup_or_null(const char *s)
{
	return s ? str_dup(s) : NULL;
}

static struct identity identity_copy(const struct http_identity *from)
{
	bool with_token = from->bearer_token && *from->bearer_token && !from->insecure;
	return (struct identity){
		.ca_pem = dup_or_null(from->ca_pem),
		.client_cert_pem = dup_or_null(from->client_cert_pem),
		.client_key_pem = dup_or_null(from->client_key_pem),
		.authorization = with_token ? str_printf("Authorization: Bearer %s", from->bearer_token) : NULL,
		.server_name = dup_or_null(from->server_name),
		.insecure = from->insecure,
	};
}

static bool identity_equal(const struct identity *a, const struct identity *b)
{
	return str_eq(a->ca_pem, b->ca_pem) && str_eq(a->client_cert_pem, b->client_cert_pem) &&
	       str_eq(a->client_key_pem, b->client_key_pem) && str_eq(a->authorization, b->authorization) &&
	       str_eq(a->server_name, b->server_name) && a->insecure == b->insecure;
}

static void identity_release(struct identity *id)
{
	str_freep(&id->ca_pem);
	str_freep(&id->client_cert_pem);
	secret_freep(&id->client_key_pem);
	secret_freep(&id->authorization);
	str_freep(&id->server_name);
	*id = (struct identity){ 0 };
}

/* --- Pools ------------------------------------------------------------------------------------------------------ */

static void exchange_free(struct exchange *x)
{
	curl_easy_cleanup(x->easy);
	curl_slist_free_all(x->headers);
	curl_slist_free_all(x->connect_to);
	free(x);
}

static CURLM *multi_new(size_t max_connections)
{
	CURLM *m = curl_multi_init();
	if (!m || curl_multi_setopt(m, CURLMOPT_MAXCONNECTS, (long)max_connections) != CURLM_OK ||
	    curl_multi_setopt(m, CURLMOPT_MAX_TOTAL_CONNECTIONS, (long)max_connections) != CURLM_OK)
		abort(); /* only without memory */
	return m;
}

/* Connections live in the multi handle, TLS state in the easy handles: both go. */
static void drop_connections(struct http_pool *p)
{
	while (p->idle) {
		struct exchange *x = p->idle;
		p->idle = x->next;
		exchange_free(x);
	}
	if (p->multi)
		curl_multi_cleanup(p->multi);
	p->multi = NULL;
}

struct http_pool *http_pool_new(size_t max_connections, const char *user_agent)
{
	init_once();
	struct http_pool *p = mem_alloc(sizeof(*p));
	p->max_connections = max_connections ? max_connections : 1;
	p->user_agent = str_dup(user_agent);
	return p;
}

void http_pool_freep(struct http_pool **p)
{
	if (!*p)
		return;
	assert(!(*p)->busy);
	drop_connections(*p);
	identity_release(&(*p)->identity);
	str_freep(&(*p)->user_agent);
	free(*p);
	*p = NULL;
}

void http_pool_identity(struct http_pool *p, const struct http_identity *id)
{
	assert(!p->n_active);
	struct identity now = identity_copy(id);
	if (identity_equal(&now, &p->identity)) {
		identity_release(&now);
		return;
	}
	drop_connections(p);
	identity_release(&p->identity);
	p->identity = now;
}

/* --- Answers ---------------------------------------------------------------------------------------------------- */

void http_response_release(struct http_response *r)
{
	buf_release(&r->body);
	str_freep(&r->peer_chain_pem);
	strs_release(&r->client_authorities);
	*r = (struct http_response){ 0 };
}

static bool is_read(const struct http_request *q)
{
	return str_eq(q->method, "GET") || str_eq(q->method, "HEAD");
}

static long status_of(const struct exchange *x)
{
	long status = 0;
	return curl_easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status) == CURLE_OK ? status : 0;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *context)
{
	struct exchange *x = context;
	const struct http_request *q = &x->item->request;
	n *= size;
	x->last_byte_ms = clock_monotonic_ms();
	if (q->on_bytes && status_of(x) / 100 == 2) {
		x->ended = !q->on_bytes(q->context, bytes, n);
		return x->ended ? CURL_WRITEFUNC_ERROR : n;
	}
	buf_add(&x->item->response.body, bytes, n);
	return x->item->response.body.overflow ? CURL_WRITEFUNC_ERROR : n;
}

static result failure(const struct http_request *q, enum err_kind kind, const char *text, struct err *e)
{
	return err_set(e, kind, "%s %.*s: %s", q->method, (int)strcspn(q->url, "?"), q->url, text);
}

static size_t on_header(char *line, size_t size, size_t n, void *context)
{
	struct exchange *x = context;
	n *= size;
	x->head_whole = x->head_whole || (status_of(x) >= 200 && n <= 2 && n && line[n - 1] == '\n');
	return n;
}

/* libcurl takes a connection's end without close_notify for an end like any other (SSL_OP_IGNORE_UNEXPECTED_EOF). An answer
 * that was cut must not pass for a short one, so its length has to be known (RFC 9112 6.3). */
static result check_whole(struct exchange *x, struct err *e)
{
	const struct http_request *q = &x->item->request;
	struct curl_header *encoding = NULL;
	curl_off_t length = -1;
	long status = status_of(x);
	if (!x->head_whole)
		return failure(q, ERR_IO, "the connection ended in the middle of the headers", e);
	(void)curl_easy_getinfo(x->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
	bool chunked = curl_easy_header(x->easy, "Transfer-Encoding", 0, CURLH_HEADER, -1, &encoding) == CURLHE_OK;
	if (length < 0 && !chunked && status / 100 == 2 && status != 204 && !str_eq(q->method, "HEAD"))
		return failure(q, ERR_IO, "the answer does not tell its length: it may have been cut", e);
	return OK;
}

/* Keeps the socket for connection_ended, and from programs that we start. */
static int on_socket(void *context, curl_socket_t fd, curlsocktype purpose)
{
	struct http_pool *p = ((struct exchange *)context)->pool;
	(void)purpose;
	p->sockets[p->n_sockets++ % ARRAY_LEN(p->sockets)] = fd;
	return fcntl(fd, F_SETFD, FD_CLOEXEC) == 0 ? CURL_SOCKOPT_OK : CURL_SOCKOPT_ERROR;
}

static int port_of(int fd)
{
	struct sockaddr_storage at = { 0 };
	socklen_t n = sizeof(at);
	if (getsockname(fd, (struct sockaddr *)&at, &n) != 0)
		return -1;
	if (at.ss_family == AF_INET6)
		return ntohs(((struct sockaddr_in6 *)&at)->sin6_port);
	return at.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&at)->sin_port) : -1;
}

/* Between answers a server has nothing to say but that it closes. libcurl sees that for itself from 8.0 on; before, it takes
 * the unread close_notify for a sign of life, and the request fails. */
static bool connection_ended(const struct http_pool *p, int local_port)
{
	char byte;
	for (size_t i = 0; i < ARRAY_LEN(p->sockets) && i < p->n_sockets; i++)
		if (port_of(p->sockets[i]) == local_port && recv(p->sockets[i], &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0)
			return true;
	return false;
}

/* Called before each sending. libcurl sends anew what went out on a pooled connection that broke without an answer
 * (Curl_retry_request): right for a read, but a write may have been carried out. */
static int on_start(void *context, char *to_address, char *from_address, int to_port, int from_port)
{
	struct exchange *x = context;
	long new_connections = 0;
	(void)to_address, (void)from_address, (void)to_port;
	if (x->starts++)
		return is_read(&x->item->request) ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
	if (curl_easy_getinfo(x->easy, CURLINFO_NUM_CONNECTS, &new_connections) == CURLE_OK && new_connections == 0)
		x->stale = connection_ended(x->pool, from_port);
	return x->stale ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static char *peer_chain(const struct exchange *x)
{
	struct curl_certinfo *chain = NULL;
	struct buf pem cleanup(buf_release) = BUF_INIT;
	if (curl_easy_getinfo(x->easy, CURLINFO_CERTINFO, &chain) != CURLE_OK || !chain)
		return NULL;
	for (int i = 0; i < chain->num_of_certs; i++)
		for (const struct curl_slist *field = chain->certinfo[i]; field; field = field->next)
			if (str_starts(field->data, "Cert:")) {
				buf_add_str(&pem, field->data + strlen("Cert:"));
				if (!str_ends(field->data, "\n"))
					buf_add_char(&pem, '\n');
			}
	return pem.len ? buf_take(&pem) : NULL;
}

/* OpenSSL's reason strings for the alerts of RFC 8446 6.2 that speak of the client's certificate. */
static bool alert_about_our_certificate(const char *text)
{
	static const char *const alerts[] = {
		"alert bad certificate",     "alert unsupported certificate", "alert certificate revoked",
		"alert certificate expired", "alert certificate unknown",     "alert unknown ca",
		"alert access denied",       "alert certificate required",
	};
	for (size_t i = 0; i < ARRAY_LEN(alerts); i++)
		if (strstr(text, alerts[i]))
			return true;
	return false;
}

static enum err_kind kind_of(CURLcode code)
{
	if (code == CURLE_OPERATION_TIMEDOUT)
		return ERR_TIMEOUT;
	bool ours = code == CURLE_URL_MALFORMAT || code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_CACERT_BADFILE;
	return ours ? ERR_INPUT : ERR_IO;
}

static const char *text_of(const struct exchange *x, CURLcode code)
{
	if (code == CURLE_ABORTED_BY_CALLBACK)
		return "connection lost after the request was sent; whether it was carried out is not known";
	return x->error[0] ? x->error : curl_easy_strerror(code);
}

static result outcome_of(struct exchange *x, CURLcode code, struct err *e)
{
	const struct http_request *q = &x->item->request;
	struct http_response *r = &x->item->response;
	if (x->ended)
		return OK;
	if (code == CURLE_OK)
		return check_whole(x, e);
	r->tls_client_rejected = alert_about_our_certificate(x->error);
	r->tls_server_rejected = code == CURLE_PEER_FAILED_VERIFICATION;
	if (r->body.overflow) {
		size_t max = q->max_body ? q->max_body : BUF_CAP_DEFAULT;
		return err_set(e, ERR_INPUT, "%s %.*s: the answer is longer than %zu bytes", q->method,
			       (int)strcspn(q->url, "?"), q->url, max);
	}
	return failure(q, kind_of(code), text_of(x, code), e);
}

static void read_response(struct exchange *x)
{
	struct http_response *r = &x->item->response;
	curl_off_t retry_after_s = 0;
	r->status = status_of(x);
	if (curl_easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &retry_after_s) == CURLE_OK)
		r->retry_after_ms = 1000 * (int64_t)(retry_after_s < RETRY_AFTER_MAX_S ? retry_after_s : RETRY_AFTER_MAX_S);
	if (x->item->request.want_peer_chain)
		r->peer_chain_pem = peer_chain(x);
}

/* --- Requests --------------------------------------------------------------------------------------------------- */

static bool one_line(const char *s)
{
	return !s || !strpbrk(s, "\r\n");
}

static result check_request(const struct http_pool *p, const struct http_request *q, struct err *e)
{
	if (!p->identity.ca_pem && !p->identity.insecure)
		return failure(q, ERR_INPUT, "no CA certificates to verify the server with", e);
	bool clean = one_line(q->method) && one_line(q->content_type) && one_line(q->accept) &&
		     one_line(p->identity.authorization);
	for (size_t i = 0; i < q->n_headers; i++)
		clean = clean && one_line(q->headers[i]);
	return clean ? OK : failure(q, ERR_INPUT, "line break in a header or in the token", e);
}

static void add_line(struct curl_slist **list, const char *line)
{
	struct curl_slist *longer = curl_slist_append(*list, line);
	if (!longer)
		abort(); /* only without memory */
	*list = longer;
}

static void add_header(struct exchange *x, const char *name, const char *value)
{
	char *line cleanup(secret_freep) = str_printf("%s: %s", name, value);
	add_line(&x->headers, line);
}

static int set_headers(struct exchange *x)
{
	const struct http_request *q = &x->item->request;
	add_header(x, "Accept", q->accept ? q->accept : "application/json");
	if (q->body)
		add_header(x, "Content-Type", q->content_type ? q->content_type : "application/json");
	add_line(&x->headers, "Expect:"); /* none: it costs a round trip */
	if (x->pool->identity.authorization)
		add_line(&x->headers, x->pool->identity.authorization);
	for (size_t i = 0; i < q->n_headers; i++)
		add_line(&x->headers, q->headers[i]);
	return (int)curl_easy_setopt(x->easy, CURLOPT_HTTPHEADER, x->headers);
}

static int set_blob(CURL *easy, CURLoption option, const char *pem)
{
	if (!pem)
		return 0;
	/* libcurl only reads it; the identity outlives the handle */
	struct curl_blob blob = { .data = (void *)(uintptr_t)pem, .len = strlen(pem), .flags = CURL_BLOB_NOCOPY };
	return (int)curl_easy_setopt(easy, option, &blob);
}

static CURLcode on_tls(CURL *easy UNUSED, void *ssl_ctx, void *context)
{
	struct exchange *x = context;
	pki_note_client_authorities(ssl_ctx, &x->item->response.client_authorities);
	return CURLE_OK;
}

static int set_tls(struct exchange *x)
{
	const struct identity *id = &x->pool->identity;
	int bad = 0;
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_CAPATH, NULL);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_CAINFO, NULL);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_CA_CACHE_TIMEOUT, 0L);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_SSL_SESSIONID_CACHE, 0L);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_SSL_VERIFYPEER, id->insecure ? 0L : 1L);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_SSL_VERIFYHOST, id->insecure ? 0L : 2L);
	bad |= set_blob(x->easy, CURLOPT_CAINFO_BLOB, id->ca_pem);
	bad |= set_blob(x->easy, CURLOPT_SSLCERT_BLOB, id->client_cert_pem);
	bad |= set_blob(x->easy, CURLOPT_SSLKEY_BLOB, id->client_key_pem);
	if (x->item->request.want_peer_chain) {
		bad |= (int)curl_easy_setopt(x->easy, CURLOPT_SSL_CTX_FUNCTION, on_tls);
		bad |= (int)curl_easy_setopt(x->easy, CURLOPT_SSL_CTX_DATA, x);
	}
	return bad | (int)curl_easy_setopt(x->easy, CURLOPT_CERTINFO, x->item->request.want_peer_chain ? 1L : 0L);
}

/* server_name takes the host's place in the URL (SNI, verification), and the connection still goes to the host. */
static result set_url(struct exchange *x, struct err *e)
{
	const struct http_request *q = &x->item->request;
	const char *name = x->pool->identity.server_name;
	CURLU *u = curl_url();
	char *host = NULL, *port = NULL, *renamed = NULL;
	bool good = u && curl_url_set(u, CURLUPART_URL, q->url, CURLU_DISALLOW_USER) == CURLUE_OK;
	if (good && name) {
		good = curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		       curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
		       curl_url_set(u, CURLUPART_HOST, name, 0) == CURLUE_OK &&
		       curl_url_get(u, CURLUPART_URL, &renamed, 0) == CURLUE_OK;
		char *line cleanup(str_freep) = good ? str_printf("::%s:%s", host, port) : NULL;
		if (line)
			add_line(&x->connect_to, line);
	}
	good = good && curl_easy_setopt(x->easy, CURLOPT_URL, renamed ? renamed : q->url) == CURLE_OK &&
	       curl_easy_setopt(x->easy, CURLOPT_CONNECT_TO, x->connect_to) == CURLE_OK;
	curl_url_cleanup(u);
	curl_free(host);
	curl_free(port);
	curl_free(renamed);
	return good && str_starts(q->url, "https://") ? OK : failure(q, ERR_INPUT, "not an https address", e);
}

static int set_connection(struct exchange *x)
{
	const struct http_request *q = &x->item->request;
	long timeout = (long)(q->timeout_ms > 0 ? q->timeout_ms : TIMEOUT_MS);
	long once = q->fresh_connection || q->want_peer_chain ? 1L : 0L;
	long fresh = once || x->again ? 1L : 0L;
	int bad = 0;
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_PROTOCOLS_STR, "https");
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_FOLLOWLOCATION, 0L);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_PATH_AS_IS, 1L);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_PROXY, "");
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_NOPROXY, "*");
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_NOSIGNAL, 1L);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_TCP_KEEPALIVE, 1L);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_TCP_KEEPIDLE, 30L);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_TCP_KEEPINTVL, 10L);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_MAXAGE_CONN, CONNECTION_IDLE_S);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_MAXLIFETIME_CONN, CONNECTION_LIFE_S);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_FRESH_CONNECT, fresh);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_FORBID_REUSE, once);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_TIMEOUT_MS, timeout);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_CONNECTTIMEOUT_MS,
				     timeout < CONNECT_TIMEOUT_MS ? timeout : CONNECT_TIMEOUT_MS);
	return bad;
}

static int set_method(struct exchange *x)
{
	const struct http_request *q = &x->item->request;
	int bad = 0;
	if (str_eq(q->method, "HEAD"))
		return (int)curl_easy_setopt(x->easy, CURLOPT_NOBODY, 1L);
	if (q->body || str_eq(q->method, "POST")) {
		bad |= (int)curl_easy_setopt(x->easy, CURLOPT_POST, 1L);
		bad |= (int)curl_easy_setopt(x->easy, CURLOPT_POSTFIELDS, q->body ? q->body : "");
		bad |= (int)curl_easy_setopt(x->easy, CURLOPT_POSTFIELDSIZE_LARGE,
					     (curl_off_t)(q->body ? q->body_len : 0));
	}
	return bad | (int)curl_easy_setopt(x->easy, CURLOPT_CUSTOMREQUEST, q->method);
}

static int set_callbacks(struct exchange *x)
{
	int bad = 0;
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_USERAGENT, x->pool->user_agent);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_WRITEFUNCTION, on_body);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_WRITEDATA, x);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_HEADERFUNCTION, on_header);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_HEADERDATA, x);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_SOCKOPTDATA, x);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_PREREQFUNCTION, on_start);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_PREREQDATA, x);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_ERRORBUFFER, x->error);
	bad |= (int)curl_easy_setopt(x->easy, CURLOPT_PRIVATE, x);
	return bad;
}

static result prepare(struct exchange *x, struct err *e)
{
	TRY(check_request(x->pool, &x->item->request, e));
	TRY(set_url(x, e));
	if (set_connection(x) | set_tls(x) | set_method(x) | set_headers(x) | set_callbacks(x))
		return failure(&x->item->request, ERR_OTHER, "libcurl does not know an option", e);
	if (!x->pool->multi)
		x->pool->multi = multi_new(x->pool->max_connections);
	if (curl_multi_add_handle(x->pool->multi, x->easy) != CURLM_OK)
		return failure(&x->item->request, ERR_OTHER, "libcurl does not take the request", e);
	return OK;
}

/* --- The loop --------------------------------------------------------------------------------------------------- */

static struct exchange *exchange_take(struct http_pool *p, struct http_item *item, bool again)
{
	struct exchange *x = p->idle;
	if (x)
		p->idle = x->next;
	else
		x = mem_alloc(sizeof(*x));
	if (!x->easy && !(x->easy = curl_easy_init()))
		abort(); /* only without memory */
	*x = (struct exchange){ .pool = p, .item = item, .easy = x->easy, .again = again,
				.last_byte_ms = clock_monotonic_ms() };
	return x;
}

/* The handle forgets everything: it holds pointers into the request. */
static void exchange_give_back(struct exchange *x)
{
	curl_easy_reset(x->easy);
	curl_slist_free_all(x->headers);
	curl_slist_free_all(x->connect_to);
	x->headers = x->connect_to = NULL;
	x->next = x->pool->idle;
	x->pool->idle = x;
}

static void start(struct http_pool *p, struct http_item *item, bool again, const struct http_source *s)
{
	const struct http_request *q = &item->request;
	item->response = (struct http_response){ .body = { .cap = q->max_body, .secret = q->secret } };
	struct exchange *x = exchange_take(p, item, again);
	item->outcome = prepare(x, &item->error);
	if (item->outcome.ok) {
		x->next = p->active;
		p->active = x;
		p->n_active++;
		return;
	}
	exchange_give_back(x);
	s->done(s->context, item);
}

/* Starts what may start now. Gives the time until the source wants to be asked again, -1: when one is done. */
static int64_t start_some(struct http_pool *p, const struct http_source *s)
{
	int64_t wait_ms = -1;
	while (p->n_active < p->max_connections) {
		wait_ms = -1;
		struct http_item *item = s->next(s->context, &wait_ms);
		if (!item)
			return wait_ms;
		start(p, item, false, s);
	}
	return -1;
}

static void leave_active(struct exchange *x)
{
	struct exchange **at = &x->pool->active;
	while (*at && *at != x)
		at = &(*at)->next;
	if (!*at)
		return;
	*at = x->next;
	x->pool->n_active--;
	curl_multi_remove_handle(x->pool->multi, x->easy);
}

static void finish(struct exchange *x, result outcome, const struct http_source *s)
{
	struct http_item *item = x->item;
	item->outcome = outcome;
	read_response(x);
	leave_active(x);
	exchange_give_back(x);
	s->done(s->context, item);
}

/* Nothing was sent, so a write may be tried too; once, on a connection of its own making. */
static void start_again(struct exchange *x, const struct http_source *s)
{
	struct http_pool *p = x->pool;
	struct http_item *item = x->item;
	leave_active(x);
	exchange_give_back(x);
	start(p, item, true, s);
}

static bool over(struct exchange *x, result *ret_outcome)
{
	const struct http_request *q = &x->item->request;
	const char *why = NULL;
	if (q->stop && q->stop(q->context))
		why = "ended on request";
	else if (q->idle_timeout_ms > 0 && clock_monotonic_ms() - x->last_byte_ms >= q->idle_timeout_ms)
		why = "no byte came for too long";
	if (why)
		*ret_outcome = failure(q, ERR_TIMEOUT, why, &x->item->error);
	return why;
}

static void finish_streams(struct http_pool *p, const struct http_source *s)
{
	for (struct exchange *x = p->active, *next; x; x = next) {
		result outcome = FAILED;
		next = x->next;
		if (over(x, &outcome))
			finish(x, outcome, s);
	}
}

static void finish_done(struct http_pool *p, const struct http_source *s)
{
	int left;
	const CURLMsg *m;
	while (p->multi && (m = curl_multi_info_read(p->multi, &left))) {
		struct exchange *x = NULL;
		CURLcode code = m->data.result;
		if (m->msg != CURLMSG_DONE || curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &x) != CURLE_OK)
			continue;
		if (x->stale)
			start_again(x, s);
		else
			finish(x, outcome_of(x, code, &x->item->error), s);
	}
}

static void finish_all(struct http_pool *p, const char *why, const struct http_source *s)
{
	while (p->active) {
		struct exchange *x = p->active;
		finish(x, failure(&x->item->request, ERR_IO, why, &x->item->error), s);
	}
}

static int poll_ms(const struct http_pool *p, int64_t wait_ms)
{
	int64_t ms = POLL_MS;
	for (const struct exchange *x = p->active; x; x = x->next)
		if (x->item->request.stop || x->item->request.idle_timeout_ms > 0)
			ms = POLL_STREAM_MS;
	return (int)(wait_ms >= 0 && wait_ms < ms ? wait_ms : ms);
}

static void turn(struct http_pool *p, int64_t wait_ms, const struct http_source *s)
{
	int running;
	size_t before = p->n_active;
	if (!p->multi)
		p->multi = multi_new(p->max_connections);
	CURLMcode code = curl_multi_perform(p->multi, &running);
	finish_done(p, s);
	finish_streams(p, s);
	if (code == CURLM_OK && p->n_active == before)
		code = curl_multi_poll(p->multi, NULL, 0, poll_ms(p, wait_ms), NULL);
	if (code != CURLM_OK)
		finish_all(p, curl_multi_strerror(code), s);
}

void http_pump(struct http_pool *p, const struct http_source *source)
{
	assert(!p->busy);
	p->busy = true;
	for (;;) {
		int64_t wait_ms = start_some(p, source);
		if (!p->n_active && wait_ms < 0)
			break;
		turn(p, wait_ms, source);
	}
	p->busy = false;
}

/* --- Fixed sets of requests ------------------------------------------------------------------------------------- */

struct set {
	struct http_item *items;
	size_t n, started;
	void (*done)(struct http_item *item);
};

static struct http_item *set_next(void *context, int64_t *ret_wait_ms)
{
	struct set *set = context;
	*ret_wait_ms = -1;
	return set->started < set->n ? &set->items[set->started++] : NULL;
}

static void set_done(void *context, struct http_item *item)
{
	struct set *set = context;
	if (set->done)
		set->done(item);
}

void http_do_all(struct http_pool *p, struct http_item *items, size_t n, void (*done)(struct http_item *item))
{
	struct set set = { .items = items, .n = n, .done = done };
	http_pump(p, &(struct http_source){ .next = set_next, .done = set_done, .context = &set });
}

result http_do(struct http_pool *p, const struct http_request *q, struct http_response *ret, struct err *e)
{
	struct http_item item = { .request = *q };
	http_do_all(p, &item, 1, NULL);
	*ret = item.response;
	if (!item.outcome.ok)
		*e = item.error;
	return item.outcome;
}

void http_escape(const char *text, struct buf *out)
{
	init_once();
	char *escaped = curl_easy_escape(NULL, text, (int)strlen(text));
	if (!escaped)
		abort(); /* only without memory */
	buf_add_str(out, escaped);
	curl_free(escaped);
}
