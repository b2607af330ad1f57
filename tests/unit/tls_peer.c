#include "tls_peer.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#define LINKS_MAX 512
#define REQUEST_MAX ((size_t)8 << 20)
#define DAY_MS ((int64_t)24 * 3600 * 1000)

struct link {
	struct peer *peer;
	pthread_t thread;
	unsigned number;
	int fd;
	SSL *ssl;
	bool closed;
};

struct peer {
	SSL_CTX *tls;
	int fd, port;
	peer_script *script;
	void *context;
	pthread_t thread;
	pthread_mutex_t lock; /* of the members below */
	struct link *links[LINKS_MAX];
	unsigned n_links, n_requests, n_resumed;
	bool stopping;
	pthread_mutex_t turn; /* one script at a time */
};

static void must(bool good, const char *what)
{
	if (good)
		return;
	(void)fprintf(stderr, "test peer: %s\n", what);
	ERR_print_errors_fp(stderr);
	abort();
}

/* --- Certificates -------------------------------------------------------------------------------------------------- */

struct peer_ca *peer_ca_new(const char *unique)
{
	struct err e = { 0 };
	struct peer_ca *ca = mem_alloc(sizeof(*ca));
	struct buf pem cleanup(buf_release) = BUF_INIT;
	struct ca_request r = { .common_name = "kubernetes", .unique = unique, .now_ms = clock_now_ms(), .validity_ms = DAY_MS };
	must(key_generate("ECDSA-P256", &ca->key, &e).ok && ca_make(&r, ca->key, &ca->cert, &e).ok, e.message);
	cert_to_pem(ca->cert, &pem);
	ca->pem = buf_take(&pem);
	return ca;
}

void peer_ca_freep(struct peer_ca **ca)
{
	if (!*ca)
		return;
	key_freep(&(*ca)->key);
	cert_freep(&(*ca)->cert);
	str_freep(&(*ca)->pem);
	free(*ca);
	*ca = NULL;
}

struct peer_leaf peer_leaf_new(const struct peer_ca *issuer, const char *common_name)
{
	static const char *const names[] = { "localhost" };
	struct err e = { 0 };
	struct key *key cleanup(key_freep) = NULL;
	struct cert *cert cleanup(cert_freep) = NULL;
	struct buf cert_pem cleanup(buf_release) = BUF_INIT, key_pem cleanup(buf_release) = BUF_SECRET;
	struct leaf_request r = { .common_name = common_name, .client = true, .server = true, .dns_names = names,
				  .n_dns_names = 1, .now_ms = clock_now_ms(), .validity_ms = DAY_MS / 2 };
	must(key_generate("ECDSA-P256", &key, &e).ok, e.message);
	must(leaf_make(&r, key, issuer->cert, issuer->key, &cert, &e).ok, e.message);
	cert_to_pem(cert, &cert_pem);
	key_to_pem(key, &key_pem);
	return (struct peer_leaf){ buf_take(&cert_pem), buf_take(&key_pem) };
}

void peer_leaf_release(struct peer_leaf *l)
{
	str_freep(&l->cert_pem);
	secret_freep(&l->key_pem);
}

static X509 *x509_of(const char *pem)
{
	BIO *in = BIO_new_mem_buf(pem, -1);
	X509 *x = PEM_read_bio_X509(in, NULL, NULL, NULL);
	BIO_free(in);
	must(x, "certificate");
	return x;
}

unsigned long peer_ca_hash(const struct peer_ca *ca)
{
	X509 *x = x509_of(ca->pem);
	unsigned long hash = X509_subject_name_hash(x);
	X509_free(x);
	return hash;
}

static void use_leaf(SSL_CTX *tls, const struct peer_options *o)
{
	BIO *in = BIO_new_mem_buf(o->leaf->key_pem, -1);
	EVP_PKEY *key = PEM_read_bio_PrivateKey(in, NULL, NULL, NULL);
	X509 *leaf = x509_of(o->leaf->cert_pem);
	must(SSL_CTX_use_certificate(tls, leaf) == 1 && SSL_CTX_use_PrivateKey(tls, key) == 1, "server certificate");
	if (o->chain_pem)
		must(SSL_CTX_add0_chain_cert(tls, x509_of(o->chain_pem)) == 1, "chain");
	X509_free(leaf);
	EVP_PKEY_free(key);
	BIO_free(in);
}

static SSL_CTX *tls_new(const struct peer_options *o)
{
	SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
	must(tls, "TLS context");
	SSL_CTX_set_mode(tls, SSL_MODE_NO_AUTO_CHAIN);
	if (o->tls12)
		SSL_CTX_set_max_proto_version(tls, TLS1_2_VERSION);
	use_leaf(tls, o);
	if (!o->client_ca_pem)
		return tls;
	X509 *ca = x509_of(o->client_ca_pem);
	must(X509_STORE_add_cert(SSL_CTX_get_cert_store(tls), ca) == 1 && SSL_CTX_add_client_CA(tls, ca) == 1, "client CA");
	X509_free(ca);
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return tls;
}

/* --- Connections --------------------------------------------------------------------------------------------------- */

static void link_shut(struct link *l)
{
	pthread_mutex_lock(&l->peer->lock);
	if (l->fd >= 0)
		close(l->fd);
	l->fd = -1;
	l->closed = true;
	pthread_mutex_unlock(&l->peer->lock);
}

static bool read_some(struct link *l, struct buf *in)
{
	char piece[16384];
	int n = SSL_read(l->ssl, piece, sizeof(piece));
	if (n <= 0)
		return false;
	buf_add(in, piece, (size_t)n);
	return in->len < REQUEST_MAX;
}

static size_t body_length(const char *head)
{
	static const char name[] = "\r\nContent-Length:";
	for (const char *p = strchr(head, '\r'); p; p = strchr(p + 1, '\r'))
		if (strncasecmp(p, name, sizeof(name) - 1) == 0)
			return (size_t)strtoul(p + sizeof(name) - 1, NULL, 10);
	return 0;
}

/* Splits the request line in place. */
static void run_script(struct link *l, char *head, const char *body)
{
	char *line cleanup(str_freep) = str_ndup(head, strcspn(head, "\r"));
	char *target = strchr(line, ' ');
	must(target, "request line");
	*target++ = '\0';
	target[strcspn(target, " ")] = '\0';
	pthread_mutex_lock(&l->peer->lock);
	unsigned number = ++l->peer->n_requests;
	pthread_mutex_unlock(&l->peer->lock);
	struct peer_request r = { number, l->number, line, target, head, body, l };
	pthread_mutex_lock(&l->peer->turn);
	l->peer->script(l->peer->context, &r);
	pthread_mutex_unlock(&l->peer->turn);
}

/* False at the connection's end. */
static bool serve_one(struct link *l, struct buf *in)
{
	const char *end;
	while (!(end = strstr(buf_str(in), "\r\n\r\n")))
		if (!read_some(l, in))
			return false;
	size_t head_len = (size_t)(end - in->data) + 4;
	char *head cleanup(str_freep) = str_ndup(in->data, head_len);
	size_t body_len = body_length(head);
	while (in->len < head_len + body_len)
		if (!read_some(l, in))
			return false;
	char *body cleanup(str_freep) = str_ndup(in->data + head_len, body_len);
	buf_consume(in, head_len + body_len);
	run_script(l, head, body);
	return !l->closed;
}

/* Closing with unread bytes would reset the connection, and the alert that was sent could be lost. */
static void drain(struct link *l)
{
	char piece[4096];
	shutdown(l->fd, SHUT_WR);
	while (recv(l->fd, piece, sizeof(piece), 0) > 0)
		;
}

static void count_resumed(struct peer *p)
{
	pthread_mutex_lock(&p->lock);
	p->n_resumed++;
	pthread_mutex_unlock(&p->lock);
}

static void *link_run(void *context)
{
	struct link *l = context;
	struct buf in cleanup(buf_release) = BUF_INIT;
	bool accepted = SSL_accept(l->ssl) == 1;
	if (!accepted)
		drain(l);
	else if (SSL_session_reused(l->ssl))
		count_resumed(l->peer);
	while (accepted && serve_one(l, &in))
		;
	link_shut(l);
	return NULL;
}

/* A peer that went away is seen as an error of the call, not as a signal. Signals stay as they are in other threads. */
static void thread_start(pthread_t *thread, void *(*run)(void *), void *context)
{
	sigset_t pipe, before;
	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	must(pthread_create(thread, NULL, run, context) == 0, "thread");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void link_start(struct peer *p, int fd)
{
	int on = 1;
	struct link *l = mem_alloc(sizeof(*l));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	*l = (struct link){ .peer = p, .fd = fd, .ssl = SSL_new(p->tls) };
	must(l->ssl && SSL_set_fd(l->ssl, fd) == 1, "connection");
	pthread_mutex_lock(&p->lock);
	must(p->n_links < LINKS_MAX, "too many connections");
	l->number = p->n_links + 1;
	p->links[p->n_links++] = l;
	thread_start(&l->thread, link_run, l);
	pthread_mutex_unlock(&p->lock);
}

static void *peer_run(void *context)
{
	struct peer *p = context;
	for (;;) {
		int fd = accept(p->fd, NULL, NULL);
		pthread_mutex_lock(&p->lock);
		bool stopping = p->stopping;
		pthread_mutex_unlock(&p->lock);
		if (stopping || fd < 0) {
			if (fd >= 0)
				close(fd);
			return NULL;
		}
		link_start(p, fd);
	}
}

/* --- Life cycle ---------------------------------------------------------------------------------------------------- */

struct peer *peer_start(const struct peer_options *o, peer_script *script, void *context)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t n = sizeof(at);
	struct peer *p = mem_alloc(sizeof(*p));
	*p = (struct peer){ .tls = tls_new(o), .script = script, .context = context };
	pthread_mutex_init(&p->lock, NULL);
	pthread_mutex_init(&p->turn, NULL);
	p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	must(p->fd >= 0 && bind(p->fd, (struct sockaddr *)&at, n) == 0 && listen(p->fd, 64) == 0, "listening");
	must(getsockname(p->fd, (struct sockaddr *)&at, &n) == 0, "port");
	p->port = ntohs(at.sin_port);
	thread_start(&p->thread, peer_run, p);
	return p;
}

void peer_stopp(struct peer **at)
{
	struct peer *p = *at;
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->stopping = true;
	pthread_mutex_unlock(&p->lock);
	shutdown(p->fd, SHUT_RDWR);
	pthread_join(p->thread, NULL);
	close(p->fd);
	for (unsigned i = 0; i < p->n_links; i++) {
		struct link *l = p->links[i];
		pthread_mutex_lock(&p->lock);
		if (l->fd >= 0)
			shutdown(l->fd, SHUT_RDWR);
		pthread_mutex_unlock(&p->lock);
		pthread_join(l->thread, NULL);
		SSL_free(l->ssl);
		free(l);
	}
	SSL_CTX_free(p->tls);
	pthread_mutex_destroy(&p->lock);
	pthread_mutex_destroy(&p->turn);
	free(p);
	*at = NULL;
}

int peer_port(const struct peer *p)
{
	return p->port;
}

char *peer_url(const struct peer *p, const char *path)
{
	return str_printf("https://localhost:%d%s", p->port, path);
}

/* Not before a script that runs has ended: what it wrote can be read then. */
static unsigned count_of(struct peer *p, const unsigned *count)
{
	pthread_mutex_lock(&p->turn);
	pthread_mutex_lock(&p->lock);
	unsigned n = *count;
	pthread_mutex_unlock(&p->lock);
	pthread_mutex_unlock(&p->turn);
	return n;
}

unsigned peer_requests(struct peer *p)
{
	return count_of(p, &p->n_requests);
}

unsigned peer_connections(struct peer *p)
{
	return count_of(p, &p->n_links);
}

unsigned peer_resumed(struct peer *p)
{
	return count_of(p, &p->n_resumed);
}

/* --- For scripts --------------------------------------------------------------------------------------------------- */

void peer_send(const struct peer_request *r, const char *bytes, size_t n)
{
	struct link *l = r->link;
	if (!l->closed && n && SSL_write(l->ssl, bytes, (int)n) <= 0)
		link_shut(l);
}

void peer_send_text(const struct peer_request *r, const char *text)
{
	peer_send(r, text, strlen(text));
}

void peer_answer(const struct peer_request *r, int status, const char *headers, const char *body)
{
	char *text cleanup(str_freep) = str_printf("HTTP/1.1 %d X\r\nContent-Type: application/json\r\n%sContent-Length: %zu\r\n\r\n%s",
						   status, headers, strlen(body), body);
	peer_send_text(r, text);
}

void peer_close(const struct peer_request *r)
{
	struct link *l = r->link;
	if (!l->closed)
		SSL_shutdown(l->ssl);
	link_shut(l);
}

void peer_cut(const struct peer_request *r)
{
	link_shut(r->link);
}

void peer_reset(const struct peer_request *r)
{
	struct link *l = r->link;
	struct linger at_once = { .l_onoff = 1, .l_linger = 0 };
	setsockopt(l->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	link_shut(l);
}

bool peer_has_header(const struct peer_request *r, const char *line)
{
	char *whole cleanup(str_freep) = str_printf("\r\n%s\r\n", line);
	return strstr(r->head, whole);
}
