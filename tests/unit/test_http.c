/* LINK: kube */
#define _GNU_SOURCE /* unshare */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "http.h"
#include "tls_peer.h"

#include <curl/curl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static struct peer_ca *ca_one, *ca_two;
static struct peer_leaf leaf_one, leaf_two;

static int make_certificates(void **state)
{
	(void)state;
	ca_one = peer_ca_new("one");
	ca_two = peer_ca_new("two");
	leaf_one = peer_leaf_new(ca_one, "server");
	leaf_two = peer_leaf_new(ca_two, "server");
	return 0;
}

static int drop_certificates(void **state)
{
	(void)state;
	peer_ca_freep(&ca_one);
	peer_ca_freep(&ca_two);
	peer_leaf_release(&leaf_one);
	peer_leaf_release(&leaf_two);
	return 0;
}

static struct http_pool *pool_trusting(const char *ca_pem)
{
	struct http_pool *p = http_pool_new(4, "certrotation/test");
	http_pool_identity(p, &(struct http_identity){ .ca_pem = ca_pem });
	return p;
}

static struct peer *peer_one(peer_script *script, void *context)
{
	return peer_start(&(struct peer_options){ .leaf = &leaf_one }, script, context);
}

/* GET path, with the rest of the request in q. */
static result get(struct http_pool *pool, const struct peer *peer, struct http_request q, struct http_response *r, struct err *e)
{
	char *url cleanup(str_freep) = peer_url(peer, "/x?secret=1");
	q.url = url;
	q.method = q.method ? q.method : "GET";
	return http_do(pool, &q, r, e);
}

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

static void fine(void *context, const struct peer_request *r)
{
	(void)context;
	peer_answer(r, 200, "", "{\"a\":1}");
}

/* --- Plain requests ------------------------------------------------------------------------------------------------- */

static void check_headers(void *context, const struct peer_request *r)
{
	_Atomic bool *good = context;
	*good = str_eq(r->method, "POST") && str_eq(r->target, "/x?secret=1") && str_eq(r->body, "hello") &&
		peer_has_header(r, "User-Agent: certrotation/test") && peer_has_header(r, "Accept: application/json") &&
		peer_has_header(r, "Content-Type: text/plain") && peer_has_header(r, "Authorization: Bearer t0ken") &&
		peer_has_header(r, "X-Extra: 1") && !strstr(r->head, "Expect") && !strstr(r->head, "Accept-Encoding");
	peer_answer(r, 201, "", "made");
}

static void test_request_and_answer(void **state)
{
	(void)state;
	_Atomic bool good = false;
	struct peer *peer cleanup(peer_stopp) = peer_one(check_headers, &good);
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(2, "certrotation/test");
	struct http_response r cleanup(http_response_release) = { 0 };
	const char *const extra[] = { "X-Extra: 1" };
	struct err e = { 0 };
	http_pool_identity(pool, &(struct http_identity){ .ca_pem = ca_one->pem, .bearer_token = "t0ken" });
	struct http_request q = { .method = "POST", .body = "hello", .body_len = 5, .content_type = "text/plain",
				  .headers = extra, .n_headers = 1, .secret = true };
	assert_ok(get(pool, peer, q, &r, &e), e);
	assert_true(good);
	assert_int_equal(r.status, 201);
	assert_string_equal(buf_str(&r.body), "made");
	assert_true(r.body.secret);
	assert_null(r.peer_chain_pem);
}

static void echo_method(void *context, const struct peer_request *r)
{
	(void)context;
	if (str_eq(r->method, "HEAD")) {
		peer_send_text(r, "HTTP/1.1 200 X\r\nContent-Length: 12345\r\n\r\n");
		return;
	}
	char *text cleanup(str_freep) = str_printf("%s %zu %d", r->method, strlen(r->body),
						   peer_has_header(r, "Content-Length: 0"));
	peer_answer(r, 200, "", text);
}

static void test_methods(void **state)
{
	(void)state;
	static const struct {
		const char *method, *body, *expected;
	} cases[] = {
		{ "GET", NULL, "GET 0 0" },       { "HEAD", NULL, "" },         { "POST", NULL, "POST 0 1" },
		{ "POST", "", "POST 0 1" },       { "PUT", "abc", "PUT 3 0" },  { "PATCH", "abcd", "PATCH 4 0" },
		{ "DELETE", NULL, "DELETE 0 0" }, { "DELETE", "x", "DELETE 1 0" },
	};
	struct peer *peer cleanup(peer_stopp) = peer_one(echo_method, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		struct http_request q = { .method = cases[i].method, .body = cases[i].body,
					  .body_len = cases[i].body ? strlen(cases[i].body) : 0 };
		assert_ok(get(pool, peer, q, &r, &e), e);
		assert_string_equal(buf_str(&r.body), cases[i].expected);
	}
	assert_int_equal(peer_connections(peer), 1);
}

static void echo_length(void *context, const struct peer_request *r)
{
	(void)context;
	char *text cleanup(str_freep) = str_printf("%zu%s", strlen(r->body), strstr(r->head, "Expect") ? " waited" : "");
	peer_answer(r, 200, "", text);
}

static void test_large_body_out(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(echo_length, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct http_response r cleanup(http_response_release) = { 0 };
	struct buf body cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	for (int i = 0; i < 300000; i++)
		buf_add_str(&body, "0123456789");
	struct http_request q = { .method = "PUT", .body = body.data, .body_len = body.len };
	assert_ok(get(pool, peer, q, &r, &e), e);
	assert_string_equal(buf_str(&r.body), "3000000");
}

static void test_connections_are_reused_unless_fresh(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(fine, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	static const struct {
		bool fresh;
		unsigned connections;
	} steps[] = { { true, 1 }, { false, 2 }, { false, 2 }, { true, 3 }, { true, 4 }, { false, 4 } };
	for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		assert_ok(get(pool, peer, (struct http_request){ .fresh_connection = steps[i].fresh }, &r, &e), e);
		assert_int_equal(peer_connections(peer), steps[i].connections);
	}
	assert_int_equal(peer_resumed(peer), 0);
}

static void echo_token(void *context, const struct peer_request *r)
{
	(void)context;
	bool a = peer_has_header(r, "Authorization: Bearer a"), b = peer_has_header(r, "Authorization: Bearer b");
	peer_answer(r, 200, "", a ? "a" : b ? "b" : "none");
}

static void expect_body(struct http_pool *pool, const struct peer *peer, const char *expected)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	assert_ok(get(pool, peer, (struct http_request){ 0 }, &r, &e), e);
	assert_string_equal(buf_str(&r.body), expected);
}

static void test_new_identity_new_connection(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(echo_token, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(2, "t");
	struct http_identity a = { .ca_pem = ca_one->pem, .bearer_token = "a" }, b = a;
	b.bearer_token = "b";
	http_pool_identity(pool, &a);
	expect_body(pool, peer, "a");
	http_pool_identity(pool, &a);
	expect_body(pool, peer, "a");
	assert_int_equal(peer_connections(peer), 1);
	http_pool_identity(pool, &b);
	expect_body(pool, peer, "b");
	assert_int_equal(peer_connections(peer), 2);
	http_pool_identity(pool, &(struct http_identity){ .ca_pem = ca_one->pem });
	expect_body(pool, peer, "none");
	assert_int_equal(peer_connections(peer), 3);
}

static void test_requests_that_are_refused_here(void **state)
{
	(void)state;
	static const char *const split[] = { "X: 1\r\nY: 2" };
	struct peer *peer cleanup(peer_stopp) = peer_one(fine, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	char *plain cleanup(str_freep) = str_printf("http://localhost:%d/", peer_port(peer));
	char *with_user cleanup(str_freep) = str_printf("https://a:b@localhost:%d/", peer_port(peer));
	char *good cleanup(str_freep) = peer_url(peer, "/");
	const struct http_request cases[] = {
		{ .method = "GET", .url = plain },
		{ .method = "GET", .url = with_user },
		{ .method = "GET", .url = "nonsense://" },
		{ .method = "GET", .url = "https://a b/" },
		{ .method = "GET", .url = good, .headers = split, .n_headers = 1 },
		{ .method = "GET", .url = good, .accept = "a\nb" },
		{ .method = "GET\r\nX:", .url = good },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		assert_false(http_do(pool, &cases[i], &r, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
	}
	http_pool_identity(pool, &(struct http_identity){ .ca_pem = ca_one->pem, .bearer_token = "a\r\nX: 1" });
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	assert_false(get(pool, peer, (struct http_request){ 0 }, &r, &e).ok);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_int_equal(peer_requests(peer), 0);
}

static void redirect(void *context, const struct peer_request *r)
{
	(void)context;
	peer_answer(r, 302, "Location: /elsewhere\r\n", "");
}

static void test_no_redirect_no_proxy(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(redirect, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	setenv("https_proxy", "http://127.0.0.1:1", 1);
	setenv("ALL_PROXY", "http://127.0.0.1:1", 1);
	result got = get(pool, peer, (struct http_request){ 0 }, &r, &e);
	unsetenv("https_proxy");
	unsetenv("ALL_PROXY");
	assert_ok(got, e);
	assert_int_equal(r.status, 302);
	assert_int_equal(peer_requests(peer), 1);
}

static void busy(void *context, const struct peer_request *r)
{
	peer_answer(r, 429, context, "");
}

static void test_retry_after(void **state)
{
	(void)state;
	static const struct {
		char headers[48];
		int64_t ms;
	} cases[] = { { "", 0 }, { "Retry-After: 7\r\n", 7000 }, { "Retry-After: later\r\n", 0 }, { "Retry-After: -5\r\n", 0 } };
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char headers[48];
		memcpy(headers, cases[i].headers, sizeof(headers));
		struct peer *peer cleanup(peer_stopp) = peer_one(busy, headers);
		struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		assert_ok(get(pool, peer, (struct http_request){ 0 }, &r, &e), e);
		assert_int_equal(r.status, 429);
		assert_int_equal(r.retry_after_ms, cases[i].ms);
	}
}

/* libcurl's own limit, where it has one, is lower. */
static void test_retry_after_for_ever(void **state)
{
	(void)state;
	char headers[] = "Retry-After: 9223372036854775807\r\n";
	struct peer *peer cleanup(peer_stopp) = peer_one(busy, headers);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	assert_ok(get(pool, peer, (struct http_request){ 0 }, &r, &e), e);
	assert_in_range(r.retry_after_ms, 3600000, 86400000);
}

static void test_escape(void **state)
{
	(void)state;
	struct buf out cleanup(buf_release) = BUF_INIT;
	http_escape("a=b,c!=d e/\xc3\xa9&-._~%", &out);
	assert_string_equal(buf_str(&out), "a%3Db%2Cc%21%3Dd%20e%2F%C3%A9%26-._~%25");
	buf_clear(&out);
	http_escape("", &out);
	assert_string_equal(buf_str(&out), "");
}

/* --- Trust ---------------------------------------------------------------------------------------------------------- */

static void expect_refused(struct http_pool *pool, const struct peer *peer)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	assert_false(get(pool, peer, (struct http_request){ 0 }, &r, &e).ok);
	assert_int_equal(e.kind, ERR_IO);
	assert_true(r.tls_server_rejected);
	assert_false(r.tls_client_rejected);
	assert_int_equal(r.status, 0);
}

/* A pooled connection to the old server does not outlive the trust in it. */
static void test_trust_follows_the_identity(void **state)
{
	(void)state;
	struct peer *old cleanup(peer_stopp) = peer_one(fine, NULL);
	struct peer *new cleanup(peer_stopp) = peer_start(&(struct peer_options){ .leaf = &leaf_two }, fine, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	char *both cleanup(str_freep) = str_printf("%s%s", ca_one->pem, ca_two->pem);
	expect_body(pool, old, "{\"a\":1}");
	expect_refused(pool, new);
	http_pool_identity(pool, &(struct http_identity){ .ca_pem = both });
	expect_body(pool, old, "{\"a\":1}");
	expect_body(pool, new, "{\"a\":1}");
	http_pool_identity(pool, &(struct http_identity){ .ca_pem = ca_two->pem });
	expect_refused(pool, old);
	expect_body(pool, new, "{\"a\":1}");
}

/* The server's own copy of its CA proves nothing. */
static void test_a_ca_sent_along_is_not_trusted(void **state)
{
	(void)state;
	struct peer_options o = { .leaf = &leaf_two, .chain_pem = ca_two->pem };
	struct peer *peer cleanup(peer_stopp) = peer_start(&o, fine, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	expect_refused(pool, peer);
	assert_int_equal(peer_requests(peer), 0);
}

static void test_without_a_bundle_nothing_is_sent(void **state)
{
	(void)state;
	static const char *const bundles[] = { NULL, "", "no PEM at all\n",
					       "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" };
	struct peer *peer cleanup(peer_stopp) = peer_one(fine, NULL);
	for (size_t i = 0; i < ARRAY_LEN(bundles); i++) {
		struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(bundles[i]);
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		assert_false(get(pool, peer, (struct http_request){ 0 }, &r, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
	}
	assert_int_equal(peer_requests(peer), 0);
}

static void test_server_name(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(fine, NULL);
	char *url cleanup(str_freep) = str_printf("https://127.0.0.1:%d/", peer_port(peer));
	static const struct {
		const char *name;
		bool good;
	} cases[] = { { NULL, false }, { "localhost", true }, { "elsewhere", false } };
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, "t");
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		http_pool_identity(pool, &(struct http_identity){ .ca_pem = ca_one->pem, .server_name = cases[i].name });
		assert_int_equal(http_do(pool, &(struct http_request){ .method = "GET", .url = url }, &r, &e).ok, cases[i].good);
		assert_int_equal(r.tls_server_rejected, !cases[i].good);
	}
}

static void test_peer_chain(void **state)
{
	(void)state;
	struct peer_options o = { .leaf = &leaf_one, .chain_pem = ca_one->pem };
	struct peer *peer cleanup(peer_stopp) = peer_start(&o, echo_token, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	char *expected cleanup(str_freep) = str_printf("%s%s", leaf_one.cert_pem, ca_one->pem);
	expect_body(pool, peer, "none");
	for (int insecure = 0; insecure < 2; insecure++) {
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		http_pool_identity(pool, &(struct http_identity){ .ca_pem = insecure ? NULL : ca_one->pem,
								   .bearer_token = "a", .insecure = insecure });
		assert_ok(get(pool, peer, (struct http_request){ .want_peer_chain = true }, &r, &e), e);
		assert_string_equal(r.peer_chain_pem, expected);
		assert_string_equal(buf_str(&r.body), insecure ? "none" : "a");
	}
}

/* In namespaces of our own, where `folder` is the system's store. Exit status 0: libcurl with its defaults trusts the peer,
 * ours does not; 3: namespaces can't be had. */
static int child_with_store(const char *folder, const char *url)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0 || mount(folder, "/etc/ssl/certs", NULL, MS_BIND, NULL) != 0)
		return 3;
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	bool refused = !http_do(pool, &(struct http_request){ .method = "GET", .url = url }, &r, &e).ok && r.tls_server_rejected;
	CURL *plain = curl_easy_init();
	curl_easy_setopt(plain, CURLOPT_URL, url);
	curl_easy_setopt(plain, CURLOPT_NOBODY, 1L);
	bool control = curl_easy_perform(plain) == CURLE_OK;
	curl_easy_cleanup(plain);
	return !control ? 4 : refused ? 0 : 5;
}

/* Forks while this process has one thread; the child waits for the peer's URL. */
static pid_t fork_child(const char *folder, int *ret_write_url)
{
	int ends[2];
	char url[64] = "";
	assert_int_equal(pipe(ends), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(ends[1]);
		_exit(read(ends[0], url, sizeof(url) - 1) > 0 ? child_with_store(folder, url) : 6);
	}
	close(ends[0]);
	*ret_write_url = ends[1];
	return child;
}

static void put_file(const char *folder, const char *name, const char *text)
{
	char *path cleanup(str_freep) = str_printf("%s/%s", folder, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

static void drop_file(const char *folder, const char *name)
{
	char *path cleanup(str_freep) = str_printf("%s/%s", folder, name);
	assert_int_equal(unlink(path), 0);
}

/* A CA of the system's, in the bundle and in the hashed folder, that is none of ours. */
static void test_the_systems_store_is_not_trusted(void **state)
{
	(void)state;
	char folder[] = "/tmp/certrotation-store-XXXXXX";
	char *hashed cleanup(str_freep) = str_printf("%08lx.0", peer_ca_hash(ca_two));
	int to_child = -1, status = 0;
	assert_non_null(mkdtemp(folder));
	chmod(folder, 0755);
	put_file(folder, "ca-certificates.crt", ca_two->pem);
	put_file(folder, hashed, ca_two->pem);
	pid_t child = fork_child(folder, &to_child);
	struct peer *peer cleanup(peer_stopp) = peer_start(&(struct peer_options){ .leaf = &leaf_two }, fine, NULL);
	char *url cleanup(str_freep) = peer_url(peer, "/");
	assert_int_equal(write(to_child, url, strlen(url)), (ssize_t)strlen(url));
	close(to_child);
	assert_int_equal(waitpid(child, &status, 0), child);
	drop_file(folder, "ca-certificates.crt");
	drop_file(folder, hashed);
	rmdir(folder);
	if (WIFEXITED(status) && WEXITSTATUS(status) == 3)
		skip();
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* --- Client certificates -------------------------------------------------------------------------------------------- */

static void expect_client(const char *cert_pem, const char *key_pem, bool tls12, bool accepted)
{
	struct peer_options o = { .leaf = &leaf_one, .client_ca_pem = ca_one->pem, .tls12 = tls12 };
	struct peer *peer cleanup(peer_stopp) = peer_start(&o, fine, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, "t");
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	http_pool_identity(pool, &(struct http_identity){ .ca_pem = ca_one->pem, .client_cert_pem = cert_pem,
							   .client_key_pem = key_pem });
	assert_int_equal(get(pool, peer, (struct http_request){ 0 }, &r, &e).ok, accepted);
	assert_int_equal(r.status, accepted ? 200 : 0);
	if (cert_pem || !tls12) /* OpenSSL's TLS 1.2 calls a missing certificate a handshake failure */
		assert_int_equal(r.tls_client_rejected, !accepted);
	assert_false(r.tls_server_rejected);
}

/* A leaf under an intermediate that the server does not know needs its chain. */
static void test_client_certificates(void **state)
{
	(void)state;
	struct err e = { 0 };
	struct peer_leaf mine cleanup(peer_leaf_release) = peer_leaf_new(ca_one, "client");
	struct peer_leaf foreign cleanup(peer_leaf_release) = peer_leaf_new(ca_two, "client");
	struct cert *cross cleanup(cert_freep) = NULL;
	assert_ok(ca_cross_sign(ca_two->cert, ca_one->cert, ca_one->key, clock_now_ms(), &cross, &e), e);
	struct buf chain cleanup(buf_release) = BUF_INIT, one_file cleanup(buf_release) = BUF_SECRET;
	buf_add_str(&chain, foreign.cert_pem);
	cert_to_pem(cross, &chain);
	buf_addf(&one_file, "%s%s", mine.cert_pem, mine.key_pem); /* as in kubelet-client-current.pem */
	for (int tls12 = 0; tls12 < 2; tls12++) {
		expect_client(mine.cert_pem, mine.key_pem, tls12, true);
		expect_client(buf_str(&one_file), buf_str(&one_file), tls12, true);
		expect_client(buf_str(&chain), foreign.key_pem, tls12, true);
		expect_client(foreign.cert_pem, foreign.key_pem, tls12, false);
		expect_client(NULL, NULL, tls12, false);
	}
}

static void test_certificate_and_key_that_do_not_match(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(fine, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, "t");
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	http_pool_identity(pool, &(struct http_identity){ .ca_pem = ca_one->pem, .client_cert_pem = leaf_one.cert_pem,
							   .client_key_pem = leaf_two.key_pem });
	assert_false(get(pool, peer, (struct http_request){ 0 }, &r, &e).ok);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_false(r.tls_client_rejected);
}

/* --- Broken answers ------------------------------------------------------------------------------------------------- */

static void send_and_cut(void *context, const struct peer_request *r)
{
	peer_send_text(r, context);
	peer_cut(r);
}

static void test_cut_answers(void **state)
{
	(void)state;
	static char answers[][96] = {
		"",
		"HTTP/1.1 200 OK\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
		"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-",
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n123456789",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n123",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"HTTP/1.1 200 OK\r\n\r\nuntil the end, which is not said",
		"this is not HTTP\r\n\r\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		struct peer *peer cleanup(peer_stopp) = peer_one(send_and_cut, answers[i]);
		struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		if (get(pool, peer, (struct http_request){ 0 }, &r, &e).ok)
			fail_msg("answer %zu passed for whole", i);
		assert_int_equal(e.kind, ERR_IO);
		assert_non_null(strstr(e.message, "GET https://localhost:"));
		assert_null(strstr(e.message, "secret")); /* the query */
	}
}

static const char unchunked[] = "Hello, wor\r\nld";

static void send_split(void *context, const struct peer_request *r)
{
	static const char good[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
				   "1\r\nH\r\n5;x=y\r\nello,\r\n8\r\n wor\r\nld\r\n0\r\nTrailer: t\r\n\r\n";
	const _Atomic size_t *shared = context;
	size_t at = *shared, n = sizeof(good) - 1, cut = at < n ? at : n;
	for (size_t i = 0; at == SIZE_MAX && i < n; i++)
		peer_send(r, good + i, 1);
	if (at == SIZE_MAX)
		return;
	peer_send(r, good, cut);
	peer_send(r, good + cut, n - cut);
}

/* Answers that say how long they are in other ways; an error without a length is good enough to read. */
static void test_whole_answers(void **state)
{
	(void)state;
	static char answers[][96] = {
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
		"HTTP/1.0 503 Service Unavailable\r\n\r\n<html>",
		"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	};
	static const long statuses[] = { 204, 200, 503, 200 };
	for (size_t i = 0; i < ARRAY_LEN(answers); i++) {
		struct peer *peer cleanup(peer_stopp) = peer_one(send_and_cut, answers[i]);
		struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		assert_ok(get(pool, peer, (struct http_request){ 0 }, &r, &e), e);
		assert_int_equal(r.status, statuses[i]);
	}
}

static void test_chunks_split_everywhere(void **state)
{
	(void)state;
	_Atomic size_t at = SIZE_MAX;
	struct peer *peer cleanup(peer_stopp) = peer_one(send_split, &at);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	expect_body(pool, peer, unchunked);
	for (at = 0; at < 100; at++)
		expect_body(pool, peer, unchunked);
	assert_int_equal(peer_connections(peer), 1);
}

static void send_ten(void *context, const struct peer_request *r)
{
	peer_send_text(r, *(_Atomic bool *)context ? "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n" :
					     "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789");
}

static void test_cap(void **state)
{
	(void)state;
	_Atomic bool in_chunks = false;
	struct peer *peer cleanup(peer_stopp) = peer_one(send_ten, &in_chunks);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	for (int round = 0; round < 2; round++, in_chunks = true) {
		struct http_response fits cleanup(http_response_release) = { 0 }, not cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		assert_ok(get(pool, peer, (struct http_request){ .max_body = 10 }, &fits, &e), e);
		assert_string_equal(buf_str(&fits.body), "0123456789");
		assert_false(get(pool, peer, (struct http_request){ .max_body = 9 }, &not, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
		assert_true(not.body.overflow);
	}
}

static void send_endless_header(void *context, const struct peer_request *r)
{
	(void)context;
	peer_send_text(r, "HTTP/1.1 200 OK\r\n");
	for (int i = 0; i < 20000; i++)
		peer_send_text(r, "X-Filler: 0123456789012345678901234567890123456789\r\n");
	peer_send_text(r, "Content-Length: 0\r\n\r\n");
}

static void test_endless_headers(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(send_endless_header, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	assert_false(get(pool, peer, (struct http_request){ 0 }, &r, &e).ok);
	assert_int_equal(e.kind, ERR_IO);
}

/* The first request is answered, so that the connection is pooled; the second is read and the connection reset; what comes
 * then is answered again. */
static void reset_the_second(void *context, const struct peer_request *r)
{
	(void)context;
	if (r->number == 2)
		peer_reset(r);
	else
		peer_answer(r, 200, "", "done");
}

static void expect_after_reset(const char *method, const char *body, bool done, unsigned requests)
{
	struct peer *peer cleanup(peer_stopp) = peer_one(reset_the_second, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	expect_body(pool, peer, "done");
	struct http_request q = { .method = method, .body = body, .body_len = body ? strlen(body) : 0 };
	assert_int_equal(get(pool, peer, q, &r, &e).ok, done);
	assert_int_equal(peer_requests(peer), requests);
	if (!done)
		assert_int_equal(e.kind, ERR_IO);
}

static void test_writes_are_sent_once(void **state)
{
	(void)state;
	expect_after_reset("GET", NULL, true, 3);
	expect_after_reset("POST", "x", false, 2);
	expect_after_reset("POST", NULL, false, 2);
	expect_after_reset("PUT", "x", false, 2);
	expect_after_reset("PATCH", "x", false, 2);
	expect_after_reset("DELETE", NULL, false, 2);
	expect_after_reset("DELETE", "x", false, 2);
}

static void answer_and_close(void *context, const struct peer_request *r)
{
	(void)context;
	peer_answer(r, 200, "", "done");
	peer_close(r);
}

/* The server closed a pooled connection in good order: that is seen before a write is sent on it. */
static void test_a_closed_connection_costs_no_write(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_and_close, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	expect_body(pool, peer, "done");
	for (unsigned i = 2; i < 20; i++) {
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		struct timespec a_moment = { .tv_nsec = 5000000 }; /* until the end has come through the loopback */
		nanosleep(&a_moment, NULL);
		assert_ok(get(pool, peer, (struct http_request){ .method = "PATCH", .body = "x", .body_len = 1 }, &r, &e), e);
		assert_int_equal(peer_connections(peer), i);
	}
}

static void test_nobody_listens(void **state)
{
	(void)state;
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	assert_false(http_do(pool, &(struct http_request){ .method = "GET", .url = "https://127.0.0.1:1/" }, &r, &e).ok);
	assert_int_equal(e.kind, ERR_IO);
	assert_false(r.tls_client_rejected || r.tls_server_rejected);
}

/* --- Time and streams ----------------------------------------------------------------------------------------------- */

/* Holds the answer back until the test is over. */
struct gate {
	pthread_mutex_t lock;
	pthread_cond_t opened;
	bool open;
};
#define GATE_INIT { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false }

static void gate_wait(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	while (!g->open)
		pthread_cond_wait(&g->opened, &g->lock);
	pthread_mutex_unlock(&g->lock);
}

static void gate_open(struct gate *g)
{
	pthread_mutex_lock(&g->lock);
	g->open = true;
	pthread_cond_broadcast(&g->opened);
	pthread_mutex_unlock(&g->lock);
}

static void say_something_then_wait(void *context, const struct peer_request *r)
{
	if (!str_eq(r->method, "PUT"))
		peer_send_text(r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n");
	gate_wait(context);
}

static bool count_bytes(void *context, const char *bytes, size_t n)
{
	(void)bytes;
	*(size_t *)context += n;
	return true;
}

static void test_timeouts(void **state)
{
	(void)state;
	size_t got = 0;
	const struct http_request cases[] = {
		{ .method = "PUT", .timeout_ms = 300 },
		{ .method = "GET", .timeout_ms = 300 },
		{ .method = "GET", .on_bytes = count_bytes, .context = &got, .timeout_ms = 300 },
		{ .method = "GET", .on_bytes = count_bytes, .context = &got, .idle_timeout_ms = 300 },
		{ .method = "PUT", .on_bytes = count_bytes, .context = &got, .idle_timeout_ms = 300 },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct gate gate = GATE_INIT;
		struct peer *peer = peer_one(say_something_then_wait, &gate);
		struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
		struct http_response r cleanup(http_response_release) = { 0 };
		struct err e = { 0 };
		int64_t before = clock_monotonic_ms();
		assert_false(get(pool, peer, cases[i], &r, &e).ok);
		int64_t took = clock_monotonic_ms() - before;
		gate_open(&gate);
		peer_stopp(&peer);
		assert_int_equal(e.kind, ERR_TIMEOUT);
		assert_true(took >= 300 && took < 5000);
	}
	assert_int_equal(got, 6);
}

struct reader {
	struct buf got;
	size_t enough;
};

static bool read_until_enough(void *context, const char *bytes, size_t n)
{
	struct reader *reader = context;
	buf_add(&reader->got, bytes, n);
	return reader->got.len < reader->enough;
}

static bool stop_when_all_came(void *context)
{
	return ((const struct reader *)context)->got.len == 100;
}

static void stream_numbers(void *context, const struct peer_request *r)
{
	const _Atomic bool *endless = context;
	peer_send_text(r, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (int i = 0; i < 10; i++)
		peer_send_text(r, "a\r\n012345678\n\r\n");
	if (!*endless)
		peer_send_text(r, "0\r\n\r\n");
}

static void test_streams(void **state)
{
	(void)state;
	_Atomic bool endless = false;
	struct peer *peer cleanup(peer_stopp) = peer_one(stream_numbers, &endless);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct reader all = { .enough = SIZE_MAX }, some = { .enough = 25 }, stopped = { .enough = SIZE_MAX };
	struct err e = { 0 };
	struct http_response r = { 0 };
	assert_ok(get(pool, peer, (struct http_request){ .on_bytes = read_until_enough, .context = &all }, &r, &e), e);
	assert_int_equal(all.got.len, 100);
	assert_int_equal(r.body.len, 0);
	assert_int_equal(r.status, 200);
	endless = true;
	assert_ok(get(pool, peer, (struct http_request){ .on_bytes = read_until_enough, .context = &some }, &r, &e), e);
	assert_true(some.got.len >= 25);
	struct http_request q = { .on_bytes = read_until_enough, .context = &stopped, .stop = stop_when_all_came };
	int64_t before = clock_monotonic_ms();
	assert_false(get(pool, peer, q, &r, &e).ok);
	assert_int_equal(e.kind, ERR_TIMEOUT);
	assert_int_equal(stopped.got.len, 100);
	assert_true(clock_monotonic_ms() - before < 3000);
	buf_release(&all.got);
	buf_release(&some.got);
	buf_release(&stopped.got);
}

static void gone(void *context, const struct peer_request *r)
{
	(void)context;
	peer_answer(r, 410, "", "{\"kind\":\"Status\"}");
}

static void test_an_error_is_not_streamed(void **state)
{
	(void)state;
	size_t got = 0;
	struct peer *peer cleanup(peer_stopp) = peer_one(gone, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e = { 0 };
	assert_ok(get(pool, peer, (struct http_request){ .on_bytes = count_bytes, .context = &got }, &r, &e), e);
	assert_int_equal(got, 0);
	assert_int_equal(r.status, 410);
	assert_string_equal(buf_str(&r.body), "{\"kind\":\"Status\"}");
}

/* --- Many at once --------------------------------------------------------------------------------------------------- */

static void by_number(void *context, const struct peer_request *r)
{
	(void)context;
	if (strstr(r->target, "/cut"))
		peer_cut(r);
	else
		peer_answer(r, 200, "", r->target);
}

static size_t n_done;

static void count_done(struct http_item *item)
{
	(void)item;
	n_done++;
}

static void test_many(void **state)
{
	(void)state;
	enum { N = 60 };
	struct peer *peer cleanup(peer_stopp) = peer_one(by_number, NULL);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct http_item items[N] = { 0 };
	char *urls[N];
	for (int i = 0; i < N; i++) {
		char *path cleanup(str_freep) = str_printf("/%s%d", i % 20 == 19 ? "cut" : "", i);
		urls[i] = peer_url(peer, path);
		items[i].request = (struct http_request){ .method = "GET", .url = i == 7 ? "ftp://localhost/" : urls[i] };
	}
	n_done = 0;
	http_do_all(pool, items, N, count_done);
	assert_int_equal(n_done, N);
	assert_in_range(peer_connections(peer), 4, 4 + 3 * 6); /* four at a time; a cut one is made anew */
	for (int i = 0; i < N; i++) {
		assert_int_equal(items[i].outcome.ok, i % 20 != 19 && i != 7);
		if (items[i].outcome.ok)
			assert_non_null(strstr(urls[i], buf_str(&items[i].response.body)));
		else
			assert_int_equal(items[i].error.kind, i == 7 ? ERR_INPUT : ERR_IO);
		http_response_release(&items[i].response);
		str_freep(&urls[i]);
	}
}

/* Four streams that never end, in one pool, each ended on its own. */
static void test_many_streams(void **state)
{
	(void)state;
	enum { N = 4 };
	_Atomic bool endless = true;
	struct peer *peer cleanup(peer_stopp) = peer_one(stream_numbers, &endless);
	struct http_pool *pool cleanup(http_pool_freep) = pool_trusting(ca_one->pem);
	struct reader readers[N] = { 0 };
	struct http_item items[N] = { 0 };
	char *url cleanup(str_freep) = peer_url(peer, "/watch");
	for (int i = 0; i < N; i++) {
		readers[i].enough = SIZE_MAX;
		items[i].request = (struct http_request){ .method = "GET", .url = url, .on_bytes = read_until_enough,
							  .stop = stop_when_all_came, .context = &readers[i] };
	}
	http_do_all(pool, items, N, NULL);
	for (int i = 0; i < N; i++) {
		assert_false(items[i].outcome.ok);
		assert_int_equal(items[i].error.kind, ERR_TIMEOUT);
		assert_int_equal(readers[i].got.len, 100);
		http_response_release(&items[i].response);
		buf_release(&readers[i].got);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_and_answer),
		cmocka_unit_test(test_methods),
		cmocka_unit_test(test_large_body_out),
		cmocka_unit_test(test_connections_are_reused_unless_fresh),
		cmocka_unit_test(test_new_identity_new_connection),
		cmocka_unit_test(test_requests_that_are_refused_here),
		cmocka_unit_test(test_no_redirect_no_proxy),
		cmocka_unit_test(test_retry_after),
		cmocka_unit_test(test_retry_after_for_ever),
		cmocka_unit_test(test_escape),
		cmocka_unit_test(test_trust_follows_the_identity),
		cmocka_unit_test(test_a_ca_sent_along_is_not_trusted),
		cmocka_unit_test(test_without_a_bundle_nothing_is_sent),
		cmocka_unit_test(test_server_name),
		cmocka_unit_test(test_peer_chain),
		cmocka_unit_test(test_the_systems_store_is_not_trusted),
		cmocka_unit_test(test_client_certificates),
		cmocka_unit_test(test_certificate_and_key_that_do_not_match),
		cmocka_unit_test(test_cut_answers),
		cmocka_unit_test(test_whole_answers),
		cmocka_unit_test(test_chunks_split_everywhere),
		cmocka_unit_test(test_cap),
		cmocka_unit_test(test_endless_headers),
		cmocka_unit_test(test_writes_are_sent_once),
		cmocka_unit_test(test_a_closed_connection_costs_no_write),
		cmocka_unit_test(test_nobody_listens),
		cmocka_unit_test(test_timeouts),
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_an_error_is_not_streamed),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_many_streams),
	};
	return cmocka_run_group_tests(tests, make_certificates, drop_certificates);
}
