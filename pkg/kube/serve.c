#define _DEFAULT_SOURCE /* libwebsockets.h wants more than POSIX */

#include "serve.h"

#include "status_page.h"
#include "thread.h"

#include <arpa/inet.h>
#include <libwebsockets.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#define HEADERS_MAX 8192  /* of a request, with its line */
#define ANSWER_HEADERS_MAX 1536
#define CHUNK 4096
#define READ_TIMEOUT_S 10
#define WRITE_TIMEOUT_S 20

/* A text that several connections are in the midst of sending. */
struct text {
	atomic_uint references;
	size_t len;
	char bytes[];
};

/* libwebsockets gives each connection one, zeroed. */
struct session {
	struct text *owner;  /* what `next` points into; NULL: something that stays */
	const char *next;
	size_t left;
	bool answering;      /* HTTP: the headers are on their way */
	bool sending;        /* WebSocket: in the midst of a message */
	uint64_t seen;       /* WebSocket: version of the status sent last */
};

struct server {
	struct lws_context *context;
	int port;
	pthread_t thread;
	atomic_bool stopping, ready;
	_Atomic int64_t alive_until_ms;
	atomic_size_t n_live;
	struct lws *live[SERVER_MAX_LIVE]; /* its own thread's */
	pthread_mutex_t lock;              /* of what follows */
	struct text *metrics, *status;
	uint64_t version;                  /* of the status */
};

/* --- Texts ------------------------------------------------------------------------------------------------------ */

static struct text *text_new(const char *bytes)
{
	size_t len = strlen(bytes);
	struct text *t = mem_alloc(sizeof(*t) + len + 1);
	atomic_init(&t->references, 1);
	t->len = len;
	memcpy(t->bytes, bytes, len);
	return t;
}

static struct text *text_share(struct text *t)
{
	if (t)
		atomic_fetch_add(&t->references, 1);
	return t;
}

static void text_dropp(struct text **t)
{
	if (*t && atomic_fetch_sub(&(*t)->references, 1) == 1)
		free(*t);
	*t = NULL;
}

static void text_replace(struct text **place, struct text *taken)
{
	text_dropp(place);
	*place = taken;
}

/* --- Sending ---------------------------------------------------------------------------------------------------- */

static struct server *server_of(struct lws *wsi)
{
	return lws_context_user(lws_get_context(wsi));
}

static void session_rest(struct session *s)
{
	text_dropp(&s->owner);
	s->next = NULL;
	s->left = 0;
}

/* owner may be NULL; a reference is taken over. */
static void session_load(struct session *s, struct text *owner, const char *bytes, size_t len)
{
	session_rest(s);
	s->owner = owner;
	s->next = bytes;
	s->left = len;
}

/* One piece; the next when the kernel has taken this one. */
static int send_piece(struct lws *wsi, struct session *s, size_t n, int how)
{
	unsigned char room[LWS_PRE + CHUNK];
	if (n)
		memcpy(room + LWS_PRE, s->next, n);
	if (lws_write(wsi, room + LWS_PRE, n, (enum lws_write_protocol)how) < 0)
		return -1;
	s->next += n;
	s->left -= n;
	lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, WRITE_TIMEOUT_S);
	lws_callback_on_writable(wsi);
	return 0;
}

static size_t piece_len(const struct session *s)
{
	return s->left < CHUNK ? s->left : CHUNK;
}

static int on_http_writable(struct lws *wsi, struct session *s, const char *in UNUSED)
{
	if (!s->answering)
		return 0;
	if (!s->left)
		return -1; /* done: closes */
	size_t n = piece_len(s);
	return send_piece(wsi, s, n, n == s->left ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP);
}

/* --- HTTP ------------------------------------------------------------------------------------------------------- */

/* Every answer carries these. The page's style and script are in it; it talks to us alone. */
static const struct lws_protocol_vhost_options answer_headers[] = {
	{ &answer_headers[1], NULL, "cache-control:", "no-store" },
	{ &answer_headers[2], NULL, "x-content-type-options:", "nosniff" },
	{ &answer_headers[3], NULL, "referrer-policy:", "no-referrer" },
	{ NULL, NULL, "content-security-policy:",
	  "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self' ws: wss:; "
	  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'" },
};

static bool add_header(struct lws *wsi, enum lws_token_indexes name, const char *value, unsigned char **p,
		       unsigned char *end)
{
	return !lws_add_http_header_by_token(wsi, name, (const unsigned char *)value, (int)strlen(value), p, end);
}

/* Sends the headers for what the session is loaded with. */
static int answer(struct lws *wsi, struct session *s, unsigned status, const char *type)
{
	unsigned char room[LWS_PRE + ANSWER_HEADERS_MAX], *p = room + LWS_PRE, *end = room + sizeof(room);
	if (lws_add_http_header_status(wsi, status | LWSAHH_FLAG_NO_SERVER_NAME, &p, end) ||
	    !add_header(wsi, WSI_TOKEN_HTTP_CONTENT_TYPE, type, &p, end) ||
	    lws_add_http_header_content_length(wsi, s->left, &p, end) ||
	    !add_header(wsi, WSI_TOKEN_CONNECTION, "close", &p, end) ||
	    (status == HTTP_STATUS_METHOD_NOT_ALLOWED && !add_header(wsi, WSI_TOKEN_HTTP_ALLOW, "GET, HEAD", &p, end)) ||
	    lws_finalize_write_http_header(wsi, room + LWS_PRE, &p, end))
		return -1;
	if (lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI))
		s->left = 0;
	s->answering = true;
	lws_set_timeout(wsi, PENDING_TIMEOUT_HTTP_CONTENT, WRITE_TIMEOUT_S);
	lws_callback_on_writable(wsi);
	return 0;
}

/* constant: stays where it is. */
static int answer_plain(struct lws *wsi, struct session *s, unsigned status, const char *constant)
{
	session_load(s, NULL, constant, strlen(constant));
	return answer(wsi, s, status, "text/plain; charset=utf-8");
}

static int get_health(struct lws *wsi, struct session *s)
{
	bool alive = clock_monotonic_ms() < atomic_load(&server_of(wsi)->alive_until_ms);
	return alive ? answer_plain(wsi, s, HTTP_STATUS_OK, "ok\n")
		     : answer_plain(wsi, s, HTTP_STATUS_SERVICE_UNAVAILABLE, "stale: the controller made no pass in time\n");
}

static int get_readiness(struct lws *wsi, struct session *s)
{
	bool ready = atomic_load(&server_of(wsi)->ready);
	return ready ? answer_plain(wsi, s, HTTP_STATUS_OK, "ok\n")
		     : answer_plain(wsi, s, HTTP_STATUS_SERVICE_UNAVAILABLE, "not ready\n");
}

static int answer_text(struct lws *wsi, struct session *s, struct text *const *place, const char *type)
{
	struct server *server = server_of(wsi);
	pthread_mutex_lock(&server->lock);
	struct text *t = text_share(*place);
	pthread_mutex_unlock(&server->lock);
	if (!t)
		return answer_plain(wsi, s, HTTP_STATUS_SERVICE_UNAVAILABLE, "nothing to tell yet\n");
	session_load(s, t, t->bytes, t->len);
	return answer(wsi, s, HTTP_STATUS_OK, type);
}

static int get_metrics(struct lws *wsi, struct session *s)
{
	return answer_text(wsi, s, &server_of(wsi)->metrics, "text/plain; version=0.0.4; charset=utf-8");
}

static int get_status(struct lws *wsi, struct session *s)
{
	return answer_text(wsi, s, &server_of(wsi)->status, "application/json");
}

static int get_page(struct lws *wsi, struct session *s)
{
	session_load(s, NULL, status_page, status_page_len);
	return answer(wsi, s, HTTP_STATUS_OK, "text/html; charset=utf-8");
}

static const struct route {
	const char *path;
	int (*get)(struct lws *wsi, struct session *s);
} routes[] = {
	{ "/healthz", get_health }, { "/readyz", get_readiness },  { "/metrics", get_metrics },
	{ "/", get_page },          { "/status.json", get_status },
};

static bool has_body(struct lws *wsi)
{
	char length[4];
	if (lws_hdr_total_length(wsi, WSI_TOKEN_HTTP_TRANSFER_ENCODING))
		return true;
	int n = lws_hdr_copy(wsi, length, sizeof(length), WSI_TOKEN_HTTP_CONTENT_LENGTH);
	return n < 0 || (n > 0 && !str_eq(length, "0"));
}

static int on_http(struct lws *wsi, struct session *s, const char *path)
{
	if (!lws_hdr_total_length(wsi, WSI_TOKEN_GET_URI) && !lws_hdr_total_length(wsi, WSI_TOKEN_HEAD_URI))
		return answer_plain(wsi, s, HTTP_STATUS_METHOD_NOT_ALLOWED, "GET and HEAD only\n");
	if (has_body(wsi))
		return answer_plain(wsi, s, HTTP_STATUS_BAD_REQUEST, "a body is not expected\n");
	for (size_t i = 0; i < ARRAY_LEN(routes); i++)
		if (str_eq(routes[i].path, path))
			return routes[i].get(wsi, s);
	return answer_plain(wsi, s, HTTP_STATUS_NOT_FOUND, "/healthz /readyz /metrics /status.json / or WebSocket /ws\n");
}

/* --- WebSocket -------------------------------------------------------------------------------------------------- */

/* Browsers send Origin, "http://host:port"; a page of another site must not read along. */
static bool origin_is_ours(struct lws *wsi)
{
	char origin[300], host[256];
	if (!lws_hdr_total_length(wsi, WSI_TOKEN_ORIGIN))
		return true;
	if (lws_hdr_copy(wsi, origin, sizeof(origin), WSI_TOKEN_ORIGIN) <= 0 ||
	    lws_hdr_copy(wsi, host, sizeof(host), WSI_TOKEN_HOST) <= 0)
		return false;
	const char *from = strstr(origin, "://");
	return from && strcasecmp(from + 3, host) == 0;
}

/* Nothing is read through the callback's argument: after an unknown Upgrade, 4.1.6 lets it dangle (CVE-2025-11677). The
 * headers are then gone and count as not there. Not 0 means: no upgrade, close. */
static int on_upgrade(struct lws *wsi, struct session *s UNUSED, const char *in UNUSED)
{
	char upgrade[16], path[8];
	if (lws_hdr_copy(wsi, upgrade, sizeof(upgrade), WSI_TOKEN_UPGRADE) <= 0 ||
	    strcasecmp(upgrade, "websocket") != 0)
		return -1;
	if (lws_hdr_copy(wsi, path, sizeof(path), WSI_TOKEN_GET_URI) <= 0 || !str_eq(path, "/ws"))
		return -1;
	if (has_body(wsi) || !origin_is_ours(wsi))
		return -1;
	return atomic_load(&server_of(wsi)->n_live) < SERVER_MAX_LIVE ? 0 : -1;
}

/* Replaces `old` by `new` in the places for live connections; false when there is no `old`. */
static bool live_replace(struct server *server, const struct lws *old, struct lws *new)
{
	for (size_t i = 0; i < SERVER_MAX_LIVE; i++) {
		if (server->live[i] == old) {
			server->live[i] = new;
			return true;
		}
	}
	return false;
}

static int on_established(struct lws *wsi, struct session *s UNUSED, const char *in UNUSED)
{
	struct server *server = server_of(wsi);
	if (!live_replace(server, NULL, wsi))
		return -1;
	atomic_fetch_add(&server->n_live, 1);
	lws_callback_on_writable(wsi);
	return 0;
}

/* Loads the latest status unless it was sent already. */
static bool load_status(struct lws *wsi, struct session *s)
{
	struct server *server = server_of(wsi);
	pthread_mutex_lock(&server->lock);
	bool news = server->status && server->version != s->seen;
	if (news) {
		struct text *t = text_share(server->status);
		session_load(s, t, t->bytes, t->len);
		s->seen = server->version;
	}
	pthread_mutex_unlock(&server->lock);
	return news;
}

static int on_live_writable(struct lws *wsi, struct session *s, const char *in UNUSED)
{
	bool first = !s->sending;
	if (first && !load_status(wsi, s)) {
		lws_set_timeout(wsi, NO_PENDING_TIMEOUT, 0);
		return 0;
	}
	size_t n = piece_len(s);
	bool last = n == s->left;
	if (send_piece(wsi, s, n, lws_write_ws_flags(LWS_WRITE_TEXT, first, last)) < 0)
		return -1;
	s->sending = !last;
	if (last)
		session_rest(s);
	return 0;
}

/* There is nothing to say to us. */
static int on_receive(struct lws *wsi, struct session *s UNUSED, const char *in UNUSED)
{
	lws_close_reason(wsi, LWS_CLOSE_STATUS_POLICY_VIOLATION, NULL, 0);
	return -1;
}

static int on_closed(struct lws *wsi, struct session *s, const char *in UNUSED)
{
	session_rest(s);
	if (live_replace(server_of(wsi), wsi, NULL))
		atomic_fetch_sub(&server_of(wsi)->n_live, 1);
	return 0;
}

/* --- libwebsockets ---------------------------------------------------------------------------------------------- */

static int on_http_closed(struct lws *wsi UNUSED, struct session *s, const char *in UNUSED)
{
	if (s)
		session_rest(s);
	return 0;
}

/* Another thread said that there is something new. */
static int on_woken(struct lws *wsi, struct session *s UNUSED, const char *in UNUSED)
{
	struct server *server = server_of(wsi);
	for (size_t i = 0; i < SERVER_MAX_LIVE; i++)
		if (server->live[i])
			lws_callback_on_writable(server->live[i]);
	return 0;
}

/* CONNECT makes a raw connection. */
static int on_raw(struct lws *wsi UNUSED, struct session *s UNUSED, const char *in UNUSED)
{
	return -1;
}

static const struct handler {
	enum lws_callback_reasons reason;
	int (*handle)(struct lws *wsi, struct session *s, const char *in);
} handlers[] = {
	{ LWS_CALLBACK_HTTP, on_http },
	{ LWS_CALLBACK_HTTP_WRITEABLE, on_http_writable },
	{ LWS_CALLBACK_CLOSED_HTTP, on_http_closed },
	{ LWS_CALLBACK_HTTP_CONFIRM_UPGRADE, on_upgrade },
	{ LWS_CALLBACK_ESTABLISHED, on_established },
	{ LWS_CALLBACK_SERVER_WRITEABLE, on_live_writable },
	{ LWS_CALLBACK_RECEIVE, on_receive },
	{ LWS_CALLBACK_CLOSED, on_closed },
	{ LWS_CALLBACK_EVENT_WAIT_CANCELLED, on_woken },
	{ LWS_CALLBACK_RAW_ADOPT, on_raw },
	{ LWS_CALLBACK_RAW_RX, on_raw },
	{ LWS_CALLBACK_RAW_WRITEABLE, on_raw },
};

/* Not lws_callback_http_dummy for the rest: it allows every Upgrade. */
static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t len UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(handlers); i++)
		if (handlers[i].reason == reason)
			return handlers[i].handle(wsi, user, in);
	return 0;
}

static void *run(void *context)
{
	struct server *s = context;
	while (!atomic_load(&s->stopping) && lws_service(s->context, 0) >= 0)
		;
	return NULL;
}

/* --- Starting, stopping ----------------------------------------------------------------------------------------- */

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static socklen_t parse_address(const char *text, int port, union address *ret)
{
	union address a = { 0 };
	bool v4 = text && inet_pton(AF_INET, text, &a.v4.sin_addr) == 1;
	if (!v4 && inet_pton(AF_INET6, text ? text : "::", &a.v6.sin6_addr) != 1)
		return 0;
	a.any.sa_family = v4 ? AF_INET : AF_INET6;
	if (v4)
		a.v4.sin_port = htons((uint16_t)port);
	else
		a.v6.sin6_port = htons((uint16_t)port);
	*ret = a;
	return v4 ? sizeof(a.v4) : sizeof(a.v6);
}

static result bind_once(const union address *a, socklen_t len, const char *name, int port, struct err *e)
{
	int fd = socket(a->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_errno(e, "listening on %s port %d", name, port);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	result bound = OK;
	if (bind(fd, &a->any, len) != 0) {
		bool taken = errno == EADDRINUSE;
		bound = err_errno(e, "listening on %s port %d", name, port);
		e->kind = taken ? ERR_CONFLICT : e->kind;
	}
	close(fd);
	return bound;
}

/* libwebsockets does not say why it can't listen, and tries later instead of failing: so try first. */
static result check_address(const char *address, int port, bool *ret_v4, struct err *e)
{
	union address a;
	struct err why = { 0 };
	if (port < 0 || port > UINT16_MAX)
		return err_set(e, ERR_INPUT, "listening on port %d: there is no such port", port);
	socklen_t len = parse_address(address, port, &a);
	if (!len)
		return err_set(e, ERR_INPUT, "listening on \"%s\": neither an IPv4 nor an IPv6 address", address);
	result bound = bind_once(&a, len, address ? address : "::", port, &why);
	if (!bound.ok && !address) { /* a kernel without IPv6 */
		len = parse_address("0.0.0.0", port, &a);
		bound = bind_once(&a, len, "0.0.0.0", port, &why);
	}
	if (!bound.ok)
		*e = why;
	else
		*ret_v4 = a.any.sa_family == AF_INET;
	return bound;
}

static const struct lws_protocols protocols[] = {
	{ .name = "http", .callback = on_event, .per_session_data_size = sizeof(struct session), .rx_buffer_size = 128 },
	{ 0 },
};

/* Clients that are gone without a word are found by pings. */
static const lws_retry_bo_t ping_policy = { .secs_since_valid_ping = 60, .secs_since_valid_hangup = 90 };

static bool listen_by_lws(struct server *s, const char *address, int port, bool v4)
{
	struct lws_context_creation_info info = {
		.port = port,
		.iface = address,
		.protocols = protocols,
		.headers = answer_headers,
		.vhost_name = "default",
		.alpn = "http/1.1",
		.user = s,
		.options = LWS_SERVER_OPTION_EXPLICIT_VHOSTS | LWS_SERVER_OPTION_DISABLE_OS_CA_CERTS |
			   LWS_SERVER_OPTION_FAIL_UPON_UNABLE_TO_BIND |
			   (v4 ? LWS_SERVER_OPTION_DISABLE_IPV6 : LWS_SERVER_OPTION_IPV6_V6ONLY_MODIFY),
		.max_http_header_data = HEADERS_MAX,
		/* Made when needed; fewer than connections would let a few slow ones keep all others waiting. */
		.max_http_header_pool = SERVER_MAX_CONNECTIONS,
		.fd_limit_per_thread = SERVER_MAX_CONNECTIONS + 4, /* and the listening socket, the wake-up, … */
		.pt_serv_buf_size = CHUNK,
		.timeout_secs = READ_TIMEOUT_S,
		.timeout_secs_ah_idle = READ_TIMEOUT_S,
		.keepalive_timeout = READ_TIMEOUT_S,
		.retry_and_idle_policy = &ping_policy,
		.ka_time = 60, .ka_probes = 3, .ka_interval = 10,
	};
	lws_set_log_level(0, NULL);
	s->context = lws_create_context(&info);
	struct lws_vhost *vhost = s->context ? lws_create_vhost(s->context, &info) : NULL;
	s->port = vhost ? lws_get_vhost_listen_port(vhost) : 0;
	return vhost;
}

static void server_free(struct server *s)
{
	if (s->context)
		lws_context_destroy(s->context);
	text_dropp(&s->metrics);
	text_dropp(&s->status);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

static result start(struct server *s, const char *address, int port, struct err *e)
{
	bool v4 = false;
	TRY(check_address(address, port, &v4, e));
	if (!listen_by_lws(s, address, port, v4))
		return err_set(e, ERR_IO, "listening on port %d: libwebsockets can't", port);
	return thread_start("serve", run, s, &s->thread, e);
}

result server_start(const char *address, int port, struct server **ret, struct err *e)
{
	struct server *s = mem_alloc(sizeof(*s));
	pthread_mutex_init(&s->lock, NULL);
	atomic_init(&s->alive_until_ms, INT64_MIN);
	if (!start(s, address, port, e).ok) {
		server_free(s);
		return FAILED;
	}
	*ret = s;
	return OK;
}

int server_port(const struct server *s)
{
	return s->port;
}

void server_stopp(struct server **s)
{
	if (!*s)
		return;
	atomic_store(&(*s)->stopping, true);
	lws_cancel_service((*s)->context);
	pthread_join((*s)->thread, NULL);
	server_free(*s);
	*s = NULL;
}

/* --- News ------------------------------------------------------------------------------------------------------- */

void server_alive(struct server *s, int64_t max_age_ms)
{
	atomic_store(&s->alive_until_ms, clock_monotonic_ms() + max_age_ms);
}

void server_ready(struct server *s, bool ready)
{
	atomic_store(&s->ready, ready);
}

void server_metrics(struct server *s, const char *text)
{
	struct text *t = text_new(text);
	pthread_mutex_lock(&s->lock);
	text_replace(&s->metrics, t);
	pthread_mutex_unlock(&s->lock);
}

void server_status(struct server *s, const char *json_text)
{
	pthread_mutex_lock(&s->lock);
	bool news = !s->status || !str_eq(s->status->bytes, json_text);
	if (news) {
		text_replace(&s->status, text_new(json_text));
		s->version++;
	}
	pthread_mutex_unlock(&s->lock);
	if (news && atomic_load(&s->n_live))
		lws_cancel_service(s->context);
}
