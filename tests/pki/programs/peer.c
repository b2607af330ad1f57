/* One end of TLS connections, by OpenSSL as curl, nginx and Python use it. For each line on standard input
 *
 *   server|client SOCKET CERTIFICATES KEY TRUST
 *
 * it connects to the Unix socket, shakes hands in that role, exchanges "ping" and "pong", and answers with a line "ok" or
 * "refused REASON". "-" for CERTIFICATES and KEY: presents none. "-" for TRUST: does not verify the other end.
 */
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct order {
	char role[8], socket[108], certificates[256], key[256], trust[256];
};

static bool is_server(const struct order *o)
{
	return strcmp(o->role, "server") == 0;
}

static bool given(const char *file)
{
	return strcmp(file, "-") != 0;
}

/* The names of acceptable CAs, as a server sends them. */
static bool announce(SSL_CTX *ctx, const char *trust)
{
	STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(trust);
	if (names)
		SSL_CTX_set_client_CA_list(ctx, names);
	return names != NULL;
}

static bool set_trust(SSL_CTX *ctx, const struct order *o)
{
	if (!given(o->trust)) {
		SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
		return true;
	}
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	return SSL_CTX_load_verify_file(ctx, o->trust) == 1 && (!is_server(o) || announce(ctx, o->trust));
}

static SSL_CTX *new_context(const struct order *o)
{
	SSL_CTX *ctx = SSL_CTX_new(is_server(o) ? TLS_server_method() : TLS_client_method());
	/* Every connection is verified anew. */
	(void)SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
	(void)SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	/* Sends what is in the file and nothing else, as the programs under test do. */
	(void)SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
	bool good = set_trust(ctx, o);
	if (good && given(o->certificates))
		good = SSL_CTX_use_certificate_chain_file(ctx, o->certificates) == 1 &&
		       SSL_CTX_use_PrivateKey_file(ctx, o->key, SSL_FILETYPE_PEM) == 1;
	if (good)
		return ctx;
	ERR_print_errors_fp(stderr);
	exit(EXIT_FAILURE);
}

/* Reading files takes longer than a handshake, so contexts are kept. */
static SSL_CTX *context(const struct order *o)
{
	static struct {
		struct order order;
		SSL_CTX *ctx;
	} known[64];
	struct order key = *o;
	memset(key.socket, 0, sizeof(key.socket));
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		if (known[i].ctx && memcmp(&known[i].order, &key, sizeof(key)) == 0)
			return known[i].ctx;
		if (known[i].ctx)
			continue;
		known[i].order = key;
		known[i].ctx = new_context(o);
		return known[i].ctx;
	}
	(void)fprintf(stderr, "too many contexts\n");
	exit(EXIT_FAILURE);
}

static int dial(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	memcpy(address.sun_path, path, strlen(path) + 1);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	perror(path);
	exit(EXIT_FAILURE);
}

static bool talk(SSL *ssl, bool server)
{
	char text[5] = { 0 };
	if (server)
		return SSL_accept(ssl) == 1 && SSL_read(ssl, text, 4) == 4 && strcmp(text, "ping") == 0 &&
		       SSL_write(ssl, "pong", 4) == 4;
	return SSL_connect(ssl) == 1 && SSL_write(ssl, "ping", 4) == 4 && SSL_read(ssl, text, 4) == 4 &&
	       strcmp(text, "pong") == 0;
}

static void report(SSL *ssl, bool good)
{
	long verified = SSL_get_verify_result(ssl);
	const char *why = verified != X509_V_OK ? X509_verify_cert_error_string(verified)
						: ERR_reason_error_string(ERR_peek_error());
	if (good)
		(void)printf("ok\n");
	else
		(void)printf("refused %s\n", why ? why : "closed by the other end");
	(void)fflush(stdout);
	ERR_clear_error();
}

static void obey(const struct order *o)
{
	SSL *ssl = SSL_new(context(o));
	int fd = dial(o->socket);
	if (!is_server(o) && SSL_set1_host(ssl, "localhost") != 1)
		exit(EXIT_FAILURE);
	if (SSL_set_fd(ssl, fd) != 1)
		exit(EXIT_FAILURE);
	bool good = talk(ssl, is_server(o));
	(void)SSL_shutdown(ssl);
	(void)shutdown(fd, SHUT_WR);
	(void)close(fd);
	report(ssl, good);
	SSL_free(ssl);
}

int main(void)
{
	char line[1024];
	(void)signal(SIGPIPE, SIG_IGN);
	while (fgets(line, sizeof(line), stdin)) {
		struct order o = { 0 };
		if (sscanf(line, "%7s %107s %255s %255s %255s", o.role, o.socket, o.certificates, o.key, o.trust) != 5)
			return EXIT_FAILURE;
		obey(&o);
	}
	return EXIT_SUCCESS;
}
