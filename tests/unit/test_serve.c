/* LINK: kube */
#define _GNU_SOURCE /* strcasestr */
#include "serve.h"

#include "status_page.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE_MS 20000 /* how long anything may take that is to happen at once: generous, for a machine under load */

/* --- A client that knows no more than bytes ---------------------------------------------------------------------- */

static void closep(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static struct server *started(void)
{
	struct server *s = NULL;
	struct err e = { 0 };
	if (!server_start("127.0.0.1", 0, &s, &e).ok)
		fail_msg("%s", e.message);
	return s;
}

static int connected_with(int port, int receive_buffer)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_true(fd >= 0);
	if (receive_buffer)
		assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof(receive_buffer)), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

static int connected(const struct server *s)
{
	return connected_with(server_port(s), 0);
}

/* False when the other side closed. */
static bool say(int fd, const void *bytes, size_t n)
{
	const char *p = bytes;
	while (n) {
		ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);
		if (sent < 0)
			return false;
		p += sent;
		n -= (size_t)sent;
	}
	return true;
}

/* Appends what comes within ms; -1: closed or reset, 0: nothing came. */
static ssize_t hear(int fd, struct buf *out, int ms)
{
	char bytes[16384];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	if (poll(&p, 1, ms) == 0)
		return 0;
	ssize_t n = recv(fd, bytes, sizeof(bytes), 0);
	if (n <= 0)
		return -1;
	buf_add(out, bytes, (size_t)n);
	return n;
}

/* All that comes until the other side closes, which it must. */
static void hear_all(int fd, struct buf *out)
{
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;
	ssize_t n;
	while ((n = hear(fd, out, 500)) >= 0)
		assert_true(clock_monotonic_ms() < until);
}

static char *exchange(const struct server *s, const char *request, size_t len)
{
	int fd cleanup(closep) = connected(s);
	struct buf answer = BUF_INIT;
	say(fd, request, len);
	hear_all(fd, &answer);
	buf_add_char(&answer, '\0');
	return buf_take(&answer);
}

static char *request(const struct server *s, const char *method, const char *path, const char *more)
{
	char *text cleanup(str_freep) = str_printf("%s %s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", method, path, more);
	return exchange(s, text, strlen(text));
}

static char *get(const struct server *s, const char *path)
{
	return request(s, "GET", path, "");
}

static int status_of(const char *answer)
{
	return str_starts(answer, "HTTP/1.1 ") ? (int)strtol(answer + 9, NULL, 10) : 0;
}

static const char *body_of(const char *answer)
{
	const char *end = strstr(answer, "\r\n\r\n");
	assert_non_null(end);
	return end + 4;
}

static bool has_header(const char *answer, const char *line)
{
	char *whole cleanup(str_freep) = str_printf("\r\n%s\r\n", line);
	const char *at = strcasestr(answer, whole);
	return at && at < body_of(answer);
}

static int get_status(const struct server *s, const char *path)
{
	char *answer cleanup(str_freep) = get(s, path);
	return status_of(answer);
}

static void assert_serves(struct server *s)
{
	server_alive(s, 600000);
	assert_int_equal(get_status(s, "/healthz"), 200);
}

/* --- WebSocket, RFC 6455, as much as a reader needs -------------------------------------------------------------- */

#define KEY "dGhlIHNhbXBsZSBub25jZQ==" /* section 1.3, with its answer */
#define ACCEPT "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define UPGRADE "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\n"

struct live {
	int fd;
	struct buf in;
};

static void live_end(struct live *l)
{
	closep(&l->fd);
	buf_release(&l->in);
}

/* Asks for the upgrade; true when it was granted. */
static bool live_begin(const struct server *s, const char *path, const char *more, int receive_buffer, struct live *l)
{
	*l = (struct live){ .fd = connected_with(server_port(s), receive_buffer) };
	char *text cleanup(str_freep) =
		str_printf("GET %s HTTP/1.1\r\nHost: localhost:8080\r\n" UPGRADE "%s\r\n", path, more);
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;
	say(l->fd, text, strlen(text));
	while (!strstr(buf_str(&l->in), "\r\n\r\n")) {
		if (hear(l->fd, &l->in, 500) < 0)
			return false;
		assert_true(clock_monotonic_ms() < until);
	}
	if (!str_starts(buf_str(&l->in), "HTTP/1.1 101 "))
		return false;
	assert_true(has_header(buf_str(&l->in), ACCEPT));
	buf_consume(&l->in, (size_t)(body_of(buf_str(&l->in)) - buf_str(&l->in)));
	return true;
}

static struct live live_opened(const struct server *s)
{
	struct live l;
	assert_true(live_begin(s, "/ws", "", 0, &l));
	return l;
}

struct frame {
	unsigned opcode;
	bool final;
	size_t header, len;
};

static bool frame_here(const struct buf *in, struct frame *ret)
{
	const unsigned char *p = (const unsigned char *)in->data;
	if (in->len < 2)
		return false;
	struct frame f = { .opcode = p[0] & 15, .final = p[0] & 128, .header = 2, .len = p[1] & 127 };
	assert_int_equal(p[0] & 0x70, 0); /* no extension was asked for */
	assert_int_equal(p[1] & 128, 0);  /* servers do not mask */
	size_t more = f.len == 126 ? 2 : f.len == 127 ? 8 : 0;
	if (in->len < 2 + more)
		return false;
	f.len = more ? 0 : f.len;
	for (size_t i = 0; i < more; i++)
		f.len = f.len << 8 | p[2 + i];
	f.header += more;
	*ret = f;
	return in->len >= f.header + f.len;
}

/* The next frame's content, NULL when none came within ms or the other side closed. */
static char *live_frame(struct live *l, int ms, struct frame *ret)
{
	int64_t until = clock_monotonic_ms() + ms;
	while (!frame_here(&l->in, ret)) {
		int64_t left = until - clock_monotonic_ms();
		if (left <= 0 || hear(l->fd, &l->in, (int)left) <= 0)
			return NULL;
	}
	char *content = str_ndup(l->in.data + ret->header, ret->len);
	buf_consume(&l->in, ret->header + ret->len);
	return content;
}

/* The next whole message: fragments put together, in order. */
static char *live_next(struct live *l, int ms)
{
	struct buf whole = BUF_INIT;
	struct frame f = { 0 };
	for (bool first = true; !f.final; first = false) {
		char *piece cleanup(str_freep) = live_frame(l, ms, &f);
		if (!piece) {
			buf_release(&whole);
			return NULL;
		}
		assert_int_equal(f.opcode, first ? 1 : 0); /* text, continuation */
		buf_add(&whole, piece, f.len);
	}
	return buf_take(&whole);
}

static void assert_next(struct live *l, const char *want)
{
	char *got cleanup(str_freep) = live_next(l, PATIENCE_MS);
	assert_non_null(got);
	assert_string_equal(got, want);
}

/* --- Plain endpoints --------------------------------------------------------------------------------------------- */

static void liveness_goes_stale_by_itself(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	assert_int_equal(get_status(s, "/healthz"), 503);
	server_alive(s, 600000);
	assert_int_equal(get_status(s, "/healthz"), 200);
	server_alive(s, 50);
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;
	while (get_status(s, "/healthz") != 503)
		assert_true(clock_monotonic_ms() < until);
	server_alive(s, 600000);
	assert_int_equal(get_status(s, "/healthz"), 200);
}

static void readiness_is_what_was_said_last(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	assert_int_equal(get_status(s, "/readyz"), 503);
	server_ready(s, true);
	assert_int_equal(get_status(s, "/readyz?verbose"), 200);
	server_ready(s, false);
	assert_int_equal(get_status(s, "/readyz"), 503);
}

static void texts_are_served_as_given(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	assert_int_equal(get_status(s, "/metrics"), 503);
	assert_int_equal(get_status(s, "/status.json"), 503);
	server_metrics(s, "up 1\n");
	server_status(s, "{\"items\":[]}");
	char *metrics cleanup(str_freep) = get(s, "/metrics");
	assert_int_equal(status_of(metrics), 200);
	assert_true(has_header(metrics, "content-type: text/plain; version=0.0.4; charset=utf-8"));
	assert_true(has_header(metrics, "content-length: 5"));
	assert_true(has_header(metrics, "cache-control: no-store"));
	assert_true(has_header(metrics, "x-content-type-options: nosniff"));
	assert_string_equal(body_of(metrics), "up 1\n");
	char *status cleanup(str_freep) = get(s, "/status.json");
	assert_true(has_header(status, "content-type: application/json"));
	assert_string_equal(body_of(status), "{\"items\":[]}");
	server_metrics(s, "");
	char *empty cleanup(str_freep) = get(s, "/metrics");
	assert_int_equal(status_of(empty), 200);
	assert_true(has_header(empty, "content-length: 0"));
}

static char *long_text(size_t n, char seed)
{
	char *text = mem_alloc(n + 1);
	for (size_t i = 0; i < n; i++)
		text[i] = (char)('a' + (size_t)(seed + (char)(i % 23)) % 26);
	return text;
}

static void long_texts_arrive_whole(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	static const size_t sizes[] = { 1, 4095, 4096, 4097, 8192, 65535, 65536, 3000000 };
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		char *text cleanup(str_freep) = long_text(sizes[i], (char)i);
		server_metrics(s, text);
		char *answer cleanup(str_freep) = get(s, "/metrics");
		assert_int_equal(status_of(answer), 200);
		assert_true(strcmp(body_of(answer), text) == 0);
	}
}

static void the_page_is_whole_and_needs_nothing_else(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	char *answer cleanup(str_freep) = get(s, "/");
	assert_int_equal(status_of(answer), 200);
	assert_true(has_header(answer, "content-type: text/html; charset=utf-8"));
	assert_non_null(strstr(answer, "content-security-policy: default-src 'none'"));
	const char *page = body_of(answer);
	assert_int_equal(strlen(page), status_page_len);
	assert_true(str_starts(page, "<!DOCTYPE html>"));
	assert_true(str_ends(page, "</html>\n"));
	static const char *const foreign[] = { "http:", "https://", "src=", "@import", "url(", "innerHTML", "<link" };
	for (size_t i = 0; i < ARRAY_LEN(foreign); i++)
		assert_null(strstr(page, foreign[i]));
}

static void head_is_get_without_body(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	server_metrics(s, "up 1\n");
	char *answer cleanup(str_freep) = request(s, "HEAD", "/metrics", "");
	assert_int_equal(status_of(answer), 200);
	assert_true(has_header(answer, "content-length: 5"));
	assert_string_equal(body_of(answer), "");
	char *missing cleanup(str_freep) = request(s, "HEAD", "/nothing", "");
	assert_int_equal(status_of(missing), 404);
}

/* --- Refusals ---------------------------------------------------------------------------------------------------- */

static void only_reading_is_possible(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	server_alive(s, 600000);
	static const char *const methods[] = { "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND" };
	for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
		char *answer cleanup(str_freep) = request(s, methods[i], "/healthz", "");
		if (status_of(answer) != 405 && status_of(answer) != 0)
			fail_msg("%s: %s", methods[i], answer);
	}
	char *post cleanup(str_freep) = request(s, "POST", "/healthz", "Content-Length: 3\r\n\r\nabc");
	assert_int_equal(status_of(post), 405);
	assert_true(has_header(post, "allow: GET, HEAD"));
	static const char *const bodies[] = {
		"Content-Length: 3\r\n\r\nabc", "Content-Length: -1\r\n", "Content-Length: 99999999999999999999\r\n",
		"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
		char *answer cleanup(str_freep) = request(s, "GET", "/healthz", bodies[i]);
		assert_true(status_of(answer) == 400 || status_of(answer) == 0);
	}
	assert_serves(s);
}

static void unknown_paths_are_404(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	static const char *const paths[] = { "/nothing", "/healthz/", "/metricsx", "/ws", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd" };
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		int status = get_status(s, paths[i]);
		assert_true(status == 404 || status == 403 || status == 0);
	}
}

static void upgrades_but_ours_are_refused(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
#define H2C "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"
	static const char *const requests[] = {
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n" H2C "\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n" H2C
		"\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
		"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n" H2C "\r\n",
		"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: H2C\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c, websocket\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: nonsense\r\n\r\n",
		"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: nonsense\r\n\r\nGET /ws HTTP/1.1\r\nHost: a\r\n"
		"Upgrade: h2c\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\n" UPGRADE "\r\n",
		"GET /wsx HTTP/1.1\r\nHost: a\r\n" UPGRADE "\r\n",
		"GET /ws/ HTTP/1.1\r\nHost: a\r\n" UPGRADE "\r\n",
		"POST /ws HTTP/1.1\r\nHost: a\r\n" UPGRADE "\r\n",
		"HEAD /ws HTTP/1.1\r\nHost: a\r\n" UPGRADE "\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",
	};
	for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
		size_t len = strlen(requests[i]) + (strstr(requests[i], "SM\r\n\r\n") ? 9 : 0);
		char *answer cleanup(str_freep) = exchange(s, requests[i], len);
		int status = status_of(answer);
		if (status != 0 && status != 403 && status != 404 && status != 400)
			fail_msg("request %zu: %s", i, answer);
		assert_null(strstr(answer, " 101 "));
	}
	assert_serves(s);
}

static void a_page_of_another_site_can_not_read_along(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	static const char *const foreign[] = {
		"Origin: http://evil.example\r\n", "Origin: null\r\n", "Origin: http://localhost\r\n",
		"Origin: http://localhost:8080.evil.example\r\n", "Origin: localhost:8080\r\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(foreign); i++) {
		struct live l cleanup(live_end) = { .fd = -1 };
		assert_false(live_begin(s, "/ws", foreign[i], 0, &l));
	}
	struct live own cleanup(live_end) = { .fd = -1 };
	assert_true(live_begin(s, "/ws", "Origin: http://LocalHost:8080\r\n", 0, &own));
}

static void long_requests_are_refused(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	server_alive(s, 600000);
	char *fits cleanup(str_freep) = long_text(6000, 0);
	char *more cleanup(str_freep) = str_printf("X-Long: %s\r\n", fits);
	char *ok cleanup(str_freep) = request(s, "GET", "/healthz", more);
	assert_int_equal(status_of(ok), 200);
	static const size_t sizes[] = { 8192, 9000, 70000, 1000000 };
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		char *filler cleanup(str_freep) = long_text(sizes[i], 1);
		char *path cleanup(str_freep) = str_printf("/healthz?%s", filler);
		assert_int_not_equal(get_status(s, path), 200);
		char *agent cleanup(str_freep) = str_printf("User-Agent: %s\r\n", filler);
		char *answer cleanup(str_freep) = request(s, "GET", "/healthz", agent);
		assert_int_not_equal(status_of(answer), 200);
	}
	assert_serves(s);
}

/* Bytes that are no request, each time ended from our side; then cut requests; the server goes on. */
static void garbage_is_survived(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	unsigned seed = 20260101;
	for (int i = 0; i < 300; i++) {
		char bytes[2048];
		size_t n = (size_t)rand_r(&seed) % sizeof(bytes);
		for (size_t j = 0; j < n; j++)
			bytes[j] = (char)(rand_r(&seed) >> 4);
		int fd cleanup(closep) = connected(s);
		if (i % 3 == 0)
			say(fd, "GET /", 5);
		say(fd, bytes, n);
		if (i % 2)
			shutdown(fd, SHUT_WR);
	}
	const char *whole = "GET /ws HTTP/1.1\r\nHost: localhost:8080\r\n" UPGRADE "\r\n\x88\x80\1\2\3\4";
	for (size_t n = 0; n <= strlen(whole); n++) {
		int fd cleanup(closep) = connected(s);
		say(fd, whole, n);
	}
	assert_serves(s);
}

/* --- Live status ------------------------------------------------------------------------------------------------- */

static void live_status_comes_when_it_changes(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	struct live early cleanup(live_end) = live_opened(s);
	server_status(s, "{\"a\":1}");
	assert_next(&early, "{\"a\":1}");
	struct live late cleanup(live_end) = live_opened(s);
	assert_next(&late, "{\"a\":1}");
	server_status(s, "{\"a\":1}"); /* no news */
	server_status(s, "{\"a\":2}");
	assert_next(&early, "{\"a\":2}");
	assert_next(&late, "{\"a\":2}");
	char *large cleanup(str_freep) = long_text(300000, 3);
	server_status(s, large);
	assert_next(&early, large);
	server_status(s, "");
	assert_next(&early, "");
	server_status(s, "x");
	assert_next(&early, "x");
}

static void whoever_talks_is_closed(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	struct live l cleanup(live_end) = live_opened(s);
	struct frame f = { 0 };
	assert_true(say(l.fd, "\x81\x82\0\0\0\0hi", 8));
	char *content cleanup(str_freep) = live_frame(&l, PATIENCE_MS, &f);
	assert_non_null(content);
	assert_int_equal(f.opcode, 8);
	assert_int_equal((unsigned char)content[0] << 8 | (unsigned char)content[1], 1008);
}

static void pings_are_answered(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	struct live l cleanup(live_end) = live_opened(s);
	struct frame f = { 0 };
	assert_true(say(l.fd, "\x89\x82\0\0\0\0hi", 8));
	char *content cleanup(str_freep) = live_frame(&l, PATIENCE_MS, &f);
	assert_non_null(content);
	assert_int_equal(f.opcode, 10);
	assert_string_equal(content, "hi");
}

/* 40 come, 32 are let in, 8 are not; when one goes, another may come. */
static void the_number_of_watchers_is_capped(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	struct live all[40];
	size_t granted = 0;
	server_status(s, "1");
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		granted += live_begin(s, "/ws", "", 0, &all[i]);
	assert_int_equal(granted, SERVER_MAX_LIVE);
	assert_serves(s);
	server_status(s, "2");
	for (size_t i = 0; i < SERVER_MAX_LIVE; i++) {
		assert_next(&all[i], "1");
		assert_next(&all[i], "2");
	}
	live_end(&all[7]);
	int64_t until = clock_monotonic_ms() + PATIENCE_MS;
	while (!live_begin(s, "/ws", "", 0, &all[7])) {
		live_end(&all[7]);
		assert_true(clock_monotonic_ms() < until);
	}
	assert_next(&all[7], "2");
	for (size_t i = 0; i < ARRAY_LEN(all); i++)
		live_end(&all[i]);
}

#define MANY 100

/* Clients that do not read do not delay the one that does, and do not get everything later, but the latest. */
static void slow_readers_delay_nobody(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	struct live slow[4], fast cleanup(live_end) = live_opened(s);
	for (size_t i = 0; i < ARRAY_LEN(slow); i++)
		assert_true(live_begin(s, "/ws", "", 4096, &slow[i]));
	char *filler cleanup(str_freep) = long_text(100000, 5);
	char *last = NULL;
	for (int i = 0; i < MANY; i++) {
		str_freep(&last);
		last = str_printf("%d %s", i, filler);
		server_status(s, last);
		assert_next(&fast, last);
	}
	for (size_t i = 0; i < ARRAY_LEN(slow); i++) {
		int messages = 0, hurry = 4 << 20;
		bool up_to_date = false;
		assert_int_equal(setsockopt(slow[i].fd, SOL_SOCKET, SO_RCVBUF, &hurry, sizeof(hurry)), 0);
		while (!up_to_date) {
			char *got cleanup(str_freep) = live_next(&slow[i], PATIENCE_MS);
			assert_non_null(got);
			assert_true(strchr(got, ' ') && str_eq(strchr(got, ' ') + 1, filler));
			up_to_date = str_eq(got, last);
			messages++;
		}
		assert_in_range(messages, 1, MANY / 2); /* what the kernel took, and the last */
		live_end(&slow[i]);
	}
	str_freep(&last);
}

/* Whoever sends no request, takes no answer or no news is closed; more connections than there is room for come to an end. */
static void nobody_holds_a_place_for_ever(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	int idle[SERVER_MAX_CONNECTIONS + 60], reader;
	struct live watcher;
	char *large cleanup(str_freep) = long_text(12000000, 1);
	server_metrics(s, large);
	reader = connected_with(server_port(s), 4096);
	say(reader, "GET /metrics HTTP/1.1\r\n\r\n", 25);
	assert_true(live_begin(s, "/ws", "", 4096, &watcher));
	server_status(s, large);
	for (size_t i = 0; i < ARRAY_LEN(idle); i++) {
		idle[i] = connected(s);
		if (i % 2)
			say(idle[i], "GET / HTTP/1.1\r\nX: ", 19);
	}
	int64_t begin = clock_monotonic_ms();
	server_alive(s, 600000);
	while (get_status(s, "/healthz") != 200) /* when the first of them have been thrown out */
		assert_true(clock_monotonic_ms() - begin < 30000);
	for (size_t i = 0; i < ARRAY_LEN(idle); i++)
		closep(&idle[i]);
	struct timespec while_stuck = { .tv_sec = 24 };
	nanosleep(&while_stuck, NULL); /* longer than the 20 s that a reader has */
	struct buf rest cleanup(buf_release) = { .cap = 64 << 20 };
	hear_all(reader, &rest);
	assert_true(rest.len < 12000000);
	buf_clear(&rest);
	hear_all(watcher.fd, &rest);
	assert_true(rest.len < 12000000);
	closep(&reader);
	live_end(&watcher);
}

/* --- Life cycle -------------------------------------------------------------------------------------------------- */

static void stopping_is_prompt_and_frees_the_port(void **state UNUSED)
{
	struct server *s = started(), *again = NULL;
	struct err e = { 0 };
	int port = server_port(s);
	struct live l cleanup(live_end) = live_opened(s);
	int fd cleanup(closep) = connected(s);
	int64_t begin = clock_monotonic_ms();
	server_stopp(&s);
	assert_null(s);
	assert_in_range(clock_monotonic_ms() - begin, 0, 3000);
	assert_true(server_start("127.0.0.1", port, &again, &e).ok);
	assert_int_equal(server_port(again), port);
	assert_serves(again);
	server_stopp(&again);
	server_stopp(&again);
}

static void what_can_not_listen_says_why(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started(), *other = NULL;
	struct err e = { 0 };
	assert_false(server_start("127.0.0.1", server_port(s), &other, &e).ok);
	assert_int_equal(e.kind, ERR_CONFLICT);
	assert_non_null(strstr(e.message, "in use"));
	assert_false(server_start("localhost", 0, &other, &e).ok);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_non_null(strstr(e.message, "localhost"));
	assert_false(server_start(NULL, 65536, &other, &e).ok);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_false(server_start("203.0.113.7", 0, &other, &e).ok); /* TEST-NET-3, not ours */
	assert_null(other);
	assert_serves(s);
}

static void all_addresses_means_all(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = NULL;
	struct err e = { 0 };
	assert_true(server_start(NULL, 0, &s, &e).ok);
	assert_serves(s); /* by 127.0.0.1 */
	struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)server_port(s)) };
	to.sin6_addr = in6addr_loopback;
	int fd cleanup(closep) = socket(AF_INET6, SOCK_STREAM, 0);
	if (fd < 0 || (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0 && errno == EADDRNOTAVAIL))
		return; /* a machine without IPv6 */
	struct buf answer cleanup(buf_release) = BUF_INIT;
	assert_true(say(fd, "GET /healthz HTTP/1.1\r\n\r\n", 25));
	hear_all(fd, &answer);
	assert_int_equal(status_of(buf_str(&answer)), 200);
}

/* Voluntary context switches of the thread of that name: how often it went to sleep, so how often it woke. */
static long sleeps_of(const char *thread)
{
	DIR *tasks = opendir("/proc/self/task");
	long sleeps = -1;
	assert_non_null(tasks);
	for (const struct dirent *d; (d = readdir(tasks));) {
		char line[200];
		char *path cleanup(str_freep) = str_printf("/proc/self/task/%s/status", d->d_name);
		FILE *f = d->d_name[0] == '.' ? NULL : fopen(path, "re");
		bool ours = false;
		while (f && fgets(line, sizeof(line), f)) {
			if (str_starts(line, "Name:\t"))
				ours = str_starts(line + 6, thread);
			if (ours && str_starts(line, "voluntary_ctxt_switches:\t"))
				sleeps = strtol(line + 25, NULL, 10);
		}
		if (f)
			fclose(f);
	}
	closedir(tasks);
	return sleeps;
}

static void an_idle_server_sleeps(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	struct live l cleanup(live_end) = live_opened(s);
	assert_serves(s);
	server_status(s, "1");
	assert_next(&l, "1");
	struct timespec settle = { .tv_sec = 1 }, watch = { .tv_sec = 4 };
	nanosleep(&settle, NULL);
	long before = sleeps_of("serve");
	assert_true(before > 0);
	for (int i = 0; i < 1000; i++) {
		server_alive(s, 600000);
		server_metrics(s, "up 1\n");
		server_status(s, "1");
	}
	nanosleep(&watch, NULL);
	assert_in_range(sleeps_of("serve") - before, 0, 1);
}

struct teller {
	pthread_t thread;
	struct server *server;
	int number;
};

static void *tell(void *context)
{
	struct teller *t = context;
	for (int i = 0; i < 300; i++) {
		char *text cleanup(str_freep) = str_printf("%d-%d", t->number, i);
		server_alive(t->server, 600000);
		server_ready(t->server, i % 2);
		server_metrics(t->server, text);
		server_status(t->server, text);
	}
	return NULL;
}

static void any_thread_may_tell_news(void **state UNUSED)
{
	struct server *s cleanup(server_stopp) = started();
	struct teller tellers[4];
	struct live l cleanup(live_end) = live_opened(s);
	for (int i = 0; i < 4; i++) {
		tellers[i] = (struct teller){ .server = s, .number = i };
		assert_int_equal(pthread_create(&tellers[i].thread, NULL, tell, &tellers[i]), 0);
	}
	for (int i = 0; i < 20; i++) {
		char *answer cleanup(str_freep) = get(s, "/metrics");
		assert_true(status_of(answer) == 200 || status_of(answer) == 503);
	}
	for (size_t i = 0; i < ARRAY_LEN(tellers); i++)
		pthread_join(tellers[i].thread, NULL);
	server_status(s, "end");
	for (bool end = false; !end;) {
		char *got cleanup(str_freep) = live_next(&l, PATIENCE_MS);
		assert_non_null(got);
		end = str_eq(got, "end");
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(liveness_goes_stale_by_itself),
		cmocka_unit_test(readiness_is_what_was_said_last),
		cmocka_unit_test(texts_are_served_as_given),
		cmocka_unit_test(long_texts_arrive_whole),
		cmocka_unit_test(the_page_is_whole_and_needs_nothing_else),
		cmocka_unit_test(head_is_get_without_body),
		cmocka_unit_test(only_reading_is_possible),
		cmocka_unit_test(unknown_paths_are_404),
		cmocka_unit_test(upgrades_but_ours_are_refused),
		cmocka_unit_test(a_page_of_another_site_can_not_read_along),
		cmocka_unit_test(long_requests_are_refused),
		cmocka_unit_test(garbage_is_survived),
		cmocka_unit_test(live_status_comes_when_it_changes),
		cmocka_unit_test(whoever_talks_is_closed),
		cmocka_unit_test(pings_are_answered),
		cmocka_unit_test(the_number_of_watchers_is_capped),
		cmocka_unit_test(slow_readers_delay_nobody),
		cmocka_unit_test(nobody_holds_a_place_for_ever),
		cmocka_unit_test(stopping_is_prompt_and_frees_the_port),
		cmocka_unit_test(what_can_not_listen_says_why),
		cmocka_unit_test(all_addresses_means_all),
		cmocka_unit_test(an_idle_server_sleeps),
		cmocka_unit_test(any_thread_may_tell_news),
	};
	cmocka_set_test_filter(getenv("TEST_FILTER"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
