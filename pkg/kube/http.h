/* HTTPS requests by libcurl; the only module that knows its header.
 *
 * Invariants
 * - TLS 1.2 or newer, peers verified against the given bundle and no other (CURLOPT_CAINFO_BLOB, no path: libcurl would
 *   keep a path's old content for 24 h), https only, no redirects, no proxy, own User-Agent. Each certificate of the
 *   bundle is an anchor, also one that is not self-signed, as in Go's crypto/x509. No session resumption: every new
 *   connection proves both sides anew.
 * - Bodies are capped. Bodies marked secret live in secret bufs; libcurl's own memory is wiped whenever it is freed.
 * - A request with another method than GET or HEAD is sent at most once: libcurl's own second attempt, after a pooled
 *   connection broke without an answer, is prevented.
 * - A pool belongs to one thread; callbacks do not use it. Connections older than the trust or the credentials in use
 *   are not used again.
 */
#ifndef HTTP_H
#define HTTP_H

#include "buf.h"

struct http_pool;

/* Who we are and whom we trust. Text is copied. Any may be NULL, ca_pem only with `insecure`. */
struct http_identity {
	const char *ca_pem;
	const char *client_cert_pem, *client_key_pem; /* mutual TLS; the chain after the leaf is sent */
	const char *bearer_token;
	bool insecure;                                /* accept any server: for looking at what it presents, never for work:
							 the token is not sent */
	const char *server_name;                      /* verify this name instead of the URL's host; NULL: the URL's */
};

struct http_pool *http_pool_new(size_t max_connections, const char *user_agent)
	__attribute__((returns_nonnull));
void http_pool_freep(struct http_pool **p);
/* Used by every later request; drops idle connections when anything differs. Not while requests are in flight. */
void http_pool_identity(struct http_pool *p, const struct http_identity *id);

struct http_request {
	const char *method;       /* "GET", … */
	const char *url;
	const char *content_type; /* with a body */
	const char *accept;       /* NULL: application/json */
	const char *const *headers; size_t n_headers; /* "Name: value" */
	const char *body; size_t body_len;
	int64_t timeout_ms;       /* whole request; 0: 30 s */
	size_t max_body;          /* of the answer; 0: BUF_CAP_DEFAULT */
	bool secret;              /* the answer's body holds secrets */
	bool fresh_connection;    /* neither take one from the pool nor leave one */
	bool want_peer_chain;     /* and whom it asks certificates of; implies fresh_connection */
	/* Streaming: called with each piece as it comes; return false to end the request (which then is OK). Only for a
	 * status of 2xx: another answer's body is collected as usual. */
	bool (*on_bytes)(void *context, const char *bytes, size_t n);
	void *context;
	/* Polled at least once a second while streaming: true ends the request (ERR_TIMEOUT). */
	bool (*stop)(void *context);
	int64_t idle_timeout_ms;  /* streaming: no byte for so long ends it with ERR_TIMEOUT. 0: none */
};

/* Also filled when the request failed: with what had come until then. */
struct http_response {
	long status;              /* 0 when there was no answer */
	struct buf body;          /* `overflow`: it was longer than max_body */
	int64_t retry_after_ms;   /* from Retry-After, else 0; a day at most */
	char *peer_chain_pem;     /* leaf first */
	struct strs client_authorities; /* whose certificates the server takes (pki_note_client_authorities), where we came without one */
	bool tls_client_rejected; /* the server refused our certificate in the handshake (TLS alert) */
	bool tls_server_rejected; /* we refused the server's: chain, date or name */
};
void http_response_release(struct http_response *r);
/* Percent-encodes for a query's value or one segment of a path (RFC 3986 2.3: all but unreserved characters). */
void http_escape(const char *text, struct buf *out);

/* OK whenever there was an HTTP answer, whatever its status. ERR_IO, ERR_TIMEOUT, ERR_INPUT (over max_body). */
result http_do(struct http_pool *p, const struct http_request *q, struct http_response *ret, struct err *e) MUST_CHECK;

/* Many at once, at most the pool's connections in flight. Each gets its own result; `done` runs in this thread as each
 * finishes, may be NULL. */
struct http_item {
	struct http_request request;
	struct http_response response;
	result outcome;
	struct err error;
	void *context;
};
void http_do_all(struct http_pool *p, struct http_item *items, size_t n, void (*done)(struct http_item *item));

/* The same with items that are asked for one by one, so that the caller can pace them and do some of them again. */
struct http_source {
	/* The next to start (its response is overwritten), or NULL: ask again after *ret_wait_ms, -1: when one is done. It
	 * ends when that is the answer and none is in flight. */
	struct http_item *(*next)(void *context, int64_t *ret_wait_ms);
	void (*done)(void *context, struct http_item *item);
	void *context;
};
void http_pump(struct http_pool *p, const struct http_source *source);

#endif
