/* LINK: kube */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "client.h"
#include "tls_peer.h"
#include "watch.h"
#include "watch_frame.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct peer_ca *ca;
static struct peer_leaf leaf;

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

#define AWAIT_MS 20000
/* The condition comes about; how long that takes is the machine's affair. */
#define await(condition)                                                         \
	do {                                                                     \
		int64_t until_ = clock_monotonic_ms() + AWAIT_MS;                \
		while (!(condition) && clock_monotonic_ms() < until_)            \
			pause_ms(2);                                             \
		if (!(condition))                                                \
			fail_msg("never came about: %s", #condition);            \
	} while (0)

static int make_certificates(void **state)
{
	(void)state;
	ca = peer_ca_new("one");
	leaf = peer_leaf_new(ca, "server");
	return 0;
}

static int drop_certificates(void **state)
{
	(void)state;
	peer_ca_freep(&ca);
	peer_leaf_release(&leaf);
	return 0;
}

#define EVENT(type, version) \
	"{\"type\":\"" type "\",\"object\":{\"kind\":\"X\",\"metadata\":{\"name\":\"\xc3\xa4\",\"resourceVersion\":\"" version "\"}}}\n"
#define FAULT(code) "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"code\":" code ",\"message\":\"as told\"}}\n"

/* --- Frames ---------------------------------------------------------------------------------------------------------- */

static result note_frame(void *context, const char *frame, size_t len, struct err *e)
{
	enum frame_kind kind;
	char *version cleanup(str_freep) = NULL;
	TRY(frame_read(frame, len, &kind, &version, e));
	buf_addf(context, "%d:%s ", (int)kind, version ? version : "-");
	return OK;
}

static result feed_pieces(const char *text, size_t n, size_t first, size_t second, struct buf *ret, struct err *e)
{
	struct frames f cleanup(frames_release) = { 0 };
	TRY(frames_feed(&f, text, first, note_frame, ret, e));
	TRY(frames_feed(&f, text + first, second - first, note_frame, ret, e));
	return frames_feed(&f, text + second, n - second, note_frame, ret, e);
}

static void test_bytes_split_anywhere(void **state)
{
	(void)state;
	static const char text[] = EVENT("ADDED", "1") "\n" EVENT("MODIFIED", "2") EVENT("BOOKMARK", "3") "\n\n"
				   EVENT("DELETED", "4") "{\"type\":\"LATER\"}\n" "{\"type\":\"ADDED\",\"obj";
	size_t n = sizeof(text) - 1;
	for (size_t first = 0; first <= n; first++)
		for (size_t second = first; second <= n; second += first % 16 ? 13 : 1) {
			struct buf got cleanup(buf_release) = BUF_INIT;
			struct err e = { 0 };
			assert_ok(feed_pieces(text, n, first, second, &got, &e), e);
			assert_string_equal(buf_str(&got), "0:1 0:2 1:3 0:4 2:- ");
		}
}

static void test_frames_that_are_none(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		enum err_kind kind;
	} cases[] = {
		{ FAULT("410"), ERR_EXPIRED },  { FAULT("429"), ERR_BUSY },	{ FAULT("503"), ERR_BUSY },
		{ FAULT("500"), ERR_IO },	{ "{\"type\":\"ERROR\"}\n", ERR_IO }, { "{\"type\":\n", ERR_INPUT },
		{ "{}\n", ERR_INPUT },		{ "{\"type\":1}\n", ERR_INPUT }, { "no\n", ERR_INPUT },
		{ "{\"type\":\"ADDED\"}{\"type\":\"ADDED\"}\n", ERR_INPUT },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct buf got cleanup(buf_release) = BUF_INIT;
		struct err e = { 0 };
		size_t n = strlen(cases[i].text);
		for (size_t at = 0; at <= n; at++) {
			assert_false(feed_pieces(cases[i].text, n, at, at, &got, &e).ok);
			assert_int_equal(e.kind, cases[i].kind);
		}
		assert_int_equal(got.len, 0);
	}
}

static void test_a_frame_has_a_limit(void **state)
{
	(void)state;
	struct buf text cleanup(buf_release) = BUF_INIT;
	static const char head[] = "{\"type\":\"ADDED\",\"x\":\"";
	buf_add_str(&text, head);
	while (text.len < FRAME_MAX - 2)
		buf_add_char(&text, 'x');
	buf_add_str(&text, "\"}\n"); /* exactly the limit, without the newline */
	struct buf got cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	assert_ok(feed_pieces(text.data, text.len, 5, 1 << 20, &got, &e), e);
	assert_string_equal(buf_str(&got), "0:- ");
	struct buf longer cleanup(buf_release) = BUF_INIT;
	buf_addf(&longer, "%s%s", " ", text.data);
	for (int whole = 0; whole < 2; whole++) { /* also before its end is there */
		size_t n = whole ? longer.len : longer.len - 1;
		assert_false(feed_pieces(longer.data, n, 5, 1 << 20, &got, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
	}
}

/* --- A server of lists and streams ------------------------------------------------------------------------------------ */

enum ending { ENDED, OPEN, CUT, RESET, HALF_CHUNK };

/* The answer to one watch. */
struct act {
	int status;          /* 0: 200 and a stream */
	const char *bytes;
	enum ending ending;
	bool bytewise;       /* each byte in a record of its own */
	const char *headers; /* with a status */
	int told;            /* before the ending: when the callback was called so often. A reset may overtake bytes */
};

#define TOLD_MAX 8
struct script {
	struct act watches[10];     /* in this order; then the last one for ever, of n_watches */
	size_t n_watches;
	struct act list;            /* status 0: a list */
	bool silent_lists, silent_watches; /* no answer at all */
	const char *list_version;   /* NULL: counted, "L1", "L2", … */
	pthread_mutex_t lock;       /* of the rest */
	int n_lists, n_watch, n_requests;
	char log[4096];             /* "list L1, watch L1, …" */
	char target[512], accept[256];
	int64_t last_ms, gap_ms;    /* between the last two requests */
	struct peer *peer;
	struct watcher *watcher;
	atomic_int told[TOLD_MAX];
};

static void log_request(struct script *s, const char *what, const char *version)
{
	size_t n = strlen(s->log);
	(void)snprintf(s->log + n, sizeof(s->log) - n, "%s%s %s", n ? ", " : "", what, version);
}

static void send_stream(struct script *s, const struct peer_request *r, const struct act *a)
{
	size_t n = a->bytes ? strlen(a->bytes) : 0, step = a->bytewise ? 1 : n;
	peer_send_text(r, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n");
	for (size_t at = 0; at < n; at += step) {
		struct buf chunk cleanup(buf_release) = BUF_INIT;
		buf_addf(&chunk, "%zx\r\n", step);
		buf_add(&chunk, a->bytes + at, step);
		buf_add_str(&chunk, "\r\n");
		peer_send(r, chunk.data, chunk.len);
	}
	for (int64_t until = clock_monotonic_ms() + AWAIT_MS; atomic_load(&s->told[0]) < a->told && clock_monotonic_ms() < until;)
		pause_ms(2);
	if (a->ending == ENDED)
		peer_send_text(r, "0\r\n\r\n");
	else if (a->ending == CUT)
		peer_cut(r);
	else if (a->ending == RESET)
		peer_reset(r);
	else if (a->ending == HALF_CHUNK) {
		peer_send_text(r, "ff\r\n{\"type\":\"ADDED\",");
		peer_close(r);
	}
}

static void answer_act(struct script *s, const struct peer_request *r, const struct act *a)
{
	if (a->status)
		peer_answer(r, a->status, a->headers ? a->headers : "", a->bytes ? a->bytes : "{\"kind\":\"Status\",\"message\":\"as told\"}");
	else
		send_stream(s, r, a);
}

static void answer_list(struct script *s, const struct peer_request *r)
{
	char version[32], body[256];
	(void)snprintf(version, sizeof(version), "L%d", ++s->n_lists);
	(void)snprintf(body, sizeof(body), "{\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"%s\",\"continue\":\"more\"},\"items\":[{}]}",
		       s->list_version ? s->list_version : version);
	log_request(s, "list", s->list.status ? "-" : s->list_version ? s->list_version : version);
	if (s->silent_lists)
		return;
	if (s->list.status || s->list.bytes)
		answer_act(s, r, &s->list);
	else
		peer_answer(r, 200, "", body);
}

static void answer_watch(struct script *s, const struct peer_request *r, const char *version)
{
	size_t i = (size_t)s->n_watch++;
	log_request(s, "watch", version);
	str_copy(s->target, sizeof(s->target), r->target);
	if (!s->silent_watches)
		answer_act(s, r, &s->watches[i < s->n_watches ? i : s->n_watches - 1]);
}

static void serve(void *context, const struct peer_request *r)
{
	struct script *s = context;
	char *version cleanup(str_freep) = NULL;
	const char *at = strstr(r->target, "&resourceVersion=");
	pthread_mutex_lock(&s->lock);
	int64_t now = clock_monotonic_ms();
	s->gap_ms = now - s->last_ms;
	s->last_ms = now;
	s->n_requests++;
	const char *accept = strstr(r->head, "\r\nAccept: ");
	str_copy(s->accept, sizeof(s->accept), accept ? accept + 2 : "");
	s->accept[strcspn(s->accept, "\r")] = '\0';
	if (at) {
		at += strlen("&resourceVersion=");
		version = str_ndup(at, strcspn(at, "&"));
		answer_watch(s, r, version);
	} else {
		str_copy(s->target, sizeof(s->target), r->target);
		answer_list(s, r);
	}
	pthread_mutex_unlock(&s->lock);
}

static void count_told(void *context, size_t target)
{
	struct script *s = context;
	atomic_fetch_add(&s->told[target < TOLD_MAX ? target : 0], 1);
}

static const struct watch_times usual = { .server_timeout_ms = 300000, .grace_ms = 90000, .silence_ms = 150000 };

static void start_targets(struct script *s, const struct watch_target *targets, size_t n, const struct watch_times *times)
{
	struct kube *k cleanup(kube_freep) = NULL;
	struct err e = { 0 };
	pthread_mutex_init(&s->lock, NULL);
	for (; s->n_watches < ARRAY_LEN(s->watches) && (s->watches[s->n_watches].status || s->watches[s->n_watches].bytes ||
							s->watches[s->n_watches].ending); s->n_watches++)
		;
	if (!s->n_watches)
		s->watches[s->n_watches++].ending = OPEN;
	s->peer = peer_start(&(struct peer_options){ .leaf = &leaf }, serve, s);
	char *url cleanup(str_freep) = peer_url(s->peer, "");
	assert_ok(kube_from_identity(url, &(struct http_identity){ .ca_pem = ca->pem }, &k, &e), e);
	assert_ok(watcher_start_timed(k, targets, n, times, count_told, s, &s->watcher, &e), e);
}

static void start(struct script *s)
{
	start_targets(s, &(struct watch_target){ .path = "/api/v1/pods" }, 1, &usual);
}

static void script_release(struct script *s)
{
	watcher_stopp(&s->watcher);
	peer_stopp(&s->peer);
	pthread_mutex_destroy(&s->lock);
}

static int requests(struct script *s)
{
	pthread_mutex_lock(&s->lock);
	int n = s->n_requests;
	pthread_mutex_unlock(&s->lock);
	return n;
}

/* What was asked so far. */
static void assert_log(struct script *s, const char *expected)
{
	pthread_mutex_lock(&s->lock);
	char *log cleanup(str_freep) = str_dup(s->log);
	pthread_mutex_unlock(&s->lock);
	assert_string_equal(log, expected);
}

static struct watch_counters counters(const struct script *s)
{
	return watcher_counters(s->watcher);
}

/* --- In good order ---------------------------------------------------------------------------------------------------- */

static void test_a_list_then_a_watch(void **state)
{
	(void)state;
	struct script s cleanup(script_release) = { 0 };
	start_targets(&s, &(struct watch_target){ "/api/v1/pods", "spec.nodeName=a b", "k in (x,y)" }, 1, &usual);
	await(requests(&s) == 2);
	assert_log(&s, "list L1, watch L1");
	int seconds = 0;
	assert_int_equal(sscanf(s.target, "/api/v1/pods?watch=true&allowWatchBookmarks=true&timeoutSeconds=%d&", &seconds), 1);
	assert_in_range(seconds, 300, 600);
	assert_non_null(strstr(s.target, "&resourceVersion=L1&fieldSelector=spec.nodeName%3Da%20b&labelSelector=k%20in%20%28x%2Cy%29"));
	assert_non_null(strstr(s.accept, "as=PartialObjectMetadata;"));
	assert_int_equal(s.told[0], 1);
	struct watch_counters c = counters(&s);
	assert_int_equal(c.events + c.relists + c.errors + c.reconnects, 0);
	struct err why = { 0 };
	assert_false(watcher_failing(s.watcher, &why));
}

/* Whatever the list's version looks like, it is given back as it was. */
static void test_versions_are_opaque(void **state)
{
	(void)state;
	struct script s cleanup(script_release) = { .list_version = "a/b +&=%\xc3\xa4" };
	start(&s);
	await(requests(&s) == 2);
	assert_log(&s, "list a/b +&=%\xc3\xa4, watch a%2Fb%20%2B%26%3D%25%C3%A4");
}

static void test_frames_in_one_read(void **state)
{
	(void)state;
	struct script s cleanup(script_release) = {
		.watches = { { .bytes = EVENT("ADDED", "5") EVENT("MODIFIED", "6") EVENT("DELETED", "7"), .ending = OPEN } },
	};
	start(&s);
	await(counters(&s).events == 3);
	await(s.told[0] == 2); /* the list; the three */
	watcher_stopp(&s.watcher);
	assert_int_equal(s.told[0], 2);
}

static void test_bytes_one_by_one(void **state)
{
	(void)state;
	struct script s cleanup(script_release) = {
		.watches = { { .bytes = EVENT("ADDED", "5") EVENT("BOOKMARK", "6") "\n" EVENT("DELETED", "7"), .bytewise = true },
			     { .ending = OPEN } },
	};
	start(&s);
	await(requests(&s) == 3);
	assert_log(&s, "list L1, watch L1, watch 7");
	assert_int_equal(counters(&s).events, 2);
	assert_int_equal(counters(&s).errors, 0);
	assert_int_equal(s.told[0], 3);
}

/* A bookmark is no change, and what comes after is asked for from there. */
static void test_bookmarks_are_resumed_from(void **state)
{
	(void)state;
	struct script s cleanup(script_release) = {
		.watches = { { .bytes = EVENT("BOOKMARK", "20") }, { .bytes = EVENT("BOOKMARK", "30"), .ending = CUT }, { .ending = OPEN } },
	};
	start(&s);
	await(requests(&s) == 4);
	assert_log(&s, "list L1, watch L1, watch 20, watch 30");
	assert_int_equal(s.told[0], 1);
	struct watch_counters c = counters(&s);
	assert_int_equal(c.events, 0);
	assert_int_equal(c.reconnects, 2);
	assert_int_equal(c.relists, 0);
	assert_int_equal(c.errors, 1);
}

static void test_duplicated_events(void **state)
{
	(void)state;
	struct script s cleanup(script_release) = {
		.watches = { { .bytes = EVENT("ADDED", "5") EVENT("ADDED", "5") EVENT("ADDED", "5") },
			     { .bytes = EVENT("ADDED", "5"), .ending = OPEN } },
	};
	start(&s);
	await(counters(&s).events == 4);
	assert_log(&s, "list L1, watch L1, watch 5");
	assert_int_equal(counters(&s).errors, 0);
}

static void test_targets_are_apart(void **state)
{
	(void)state;
	enum { N = 6 };
	struct watch_target targets[N];
	char *paths[N];
	struct script s cleanup(script_release) = { .watches = { { .bytes = EVENT("ADDED", "5"), .ending = OPEN } } };
	for (int i = 0; i < N; i++) {
		paths[i] = str_printf("/api/v1/things%d", i);
		targets[i] = (struct watch_target){ .path = paths[i] };
	}
	start_targets(&s, targets, N, &usual);
	for (int i = 0; i < N; i++)
		str_freep(&paths[i]); /* they are copied */
	for (int i = 0; i < N; i++)
		await(s.told[i] == 2);
	assert_int_equal(counters(&s).events, N);
	assert_int_equal(counters(&s).relists + counters(&s).reconnects, 0);
	assert_int_equal(peer_connections(s.peer), N);
}

/* --- Gone ------------------------------------------------------------------------------------------------------------- */

static void test_expired_is_listed_again(void **state)
{
	(void)state;
	static const struct act acts[] = { { .bytes = EVENT("ADDED", "5") FAULT("410") EVENT("ADDED", "6"), .ending = OPEN },
					   { .bytes = FAULT("410"), .bytewise = true },
					   { .status = 410 } };
	for (size_t i = 0; i < ARRAY_LEN(acts); i++) {
		struct script s cleanup(script_release) = { .watches = { acts[i], { .ending = OPEN } } };
		start(&s);
		await(requests(&s) == 4);
		assert_log(&s, "list L1, watch L1, list L2, watch L2");
		struct watch_counters c = counters(&s);
		assert_int_equal(c.relists, 1);
		assert_int_equal(c.errors, 1);
		assert_int_equal(c.events, i == 0); /* nothing counts after the end */
		assert_int_equal(s.told[0], i == 0 ? 3 : 2); /* the gap is told */
		struct err why = { 0 };
		assert_false(watcher_failing(s.watcher, &why));
	}
}

static void test_what_is_no_event_is_listed_again(void **state)
{
	(void)state;
	static const char *const texts[] = { "no json\n", "{\"type\":\n", "{}\n", FAULT("500"), FAULT("503"), "[1,2]\n" };
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		char *bytes cleanup(str_freep) = str_printf("%s%s", EVENT("ADDED", "5"), texts[i]);
		struct script s cleanup(script_release) = { .watches = { { .bytes = bytes, .ending = OPEN }, { .ending = OPEN } } };
		start(&s);
		await(requests(&s) == 4);
		assert_log(&s, "list L1, watch L1, list L2, watch L2");
		assert_int_equal(s.told[0], 3);
	}
}

static void test_an_endless_frame(void **state)
{
	(void)state;
	struct buf bytes cleanup(buf_release) = BUF_INIT;
	buf_add_str(&bytes, EVENT("ADDED", "5"));
	for (size_t i = 0; i < FRAME_MAX + 100; i += 16)
		buf_add_str(&bytes, "0123456789abcdef");
	struct script s cleanup(script_release) = { .watches = { { .bytes = bytes.data, .ending = OPEN }, { .ending = OPEN } } };
	start(&s);
	await(requests(&s) == 4);
	assert_log(&s, "list L1, watch L1, list L2, watch L2");
	assert_int_equal(counters(&s).events, 1);
}

/* --- Broken ----------------------------------------------------------------------------------------------------------- */

#define HALF "{\"type\":\"MODIFIED\",\"object\":{\"metadata\":{\"resourceVersion\":\"9\""

/* In the middle of a frame, in any manner: what was whole counts, the half does not, and nothing was missed. */
static void test_broken_in_a_frame(void **state)
{
	(void)state;
	static const enum ending endings[] = { ENDED, CUT, RESET, HALF_CHUNK };
	for (size_t i = 0; i < ARRAY_LEN(endings); i++) {
		struct script s cleanup(script_release) = {
			.watches = { { .bytes = EVENT("ADDED", "5") HALF, .ending = endings[i], .bytewise = true, .told = 2 },
				     { .bytes = EVENT("ADDED", "6"), .ending = OPEN } },
		};
		start(&s);
		await(counters(&s).events == 2);
		assert_log(&s, "list L1, watch L1, watch 5");
		await(s.told[0] == 3);
		assert_int_equal(counters(&s).errors, endings[i] == ENDED ? 0 : 1);
		struct err why = { 0 };
		await(!watcher_failing(s.watcher, &why));
	}
}

/* A watch that is refused is tried again from the same version; in the end the list is asked, for the version may be one
 * that the server no longer knows of without saying so. */
static void test_refused_watches(void **state)
{
	(void)state;
	struct script s cleanup(script_release) = {
		.watches = { { .status = 500 }, { .status = 403 }, { .ending = RESET }, { .status = 503 }, { .status = 500 }, { .status = 500 },
			     { .ending = OPEN } },
	};
	start(&s);
	await(requests(&s) == 9);
	assert_log(&s, "list L1, watch L1, watch L1, watch L1, watch L1, watch L1, watch L1, list L2, watch L2");
	assert_int_equal(counters(&s).errors, 6);
	struct err why = { 0 };
	await(!watcher_failing(s.watcher, &why));
}

static void test_failures_are_told(void **state)
{
	(void)state;
	static const struct {
		struct act list;
		enum err_kind kind;
	} cases[] = {
		{ { .status = 403 }, ERR_DENIED },
		{ { .status = 500 }, ERR_IO },
		{ { .status = 404 }, ERR_NOT_FOUND },
		{ { .status = 200, .bytes = "{\"metadata\":{}}" }, ERR_INPUT },
		{ { .status = 200, .bytes = "{\"metadata\":{\"resourceVersion\":\"\"}}" }, ERR_INPUT },
		{ { .status = 200, .bytes = "{\"metadata\":{\"resourceVersion\":\"5\"}" }, ERR_INPUT },
		{ { .bytes = "{\"metadata\":", .ending = RESET }, ERR_IO },
		{ { .bytes = "{\"metadata\":", .ending = CUT }, ERR_IO },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct script s cleanup(script_release) = { .list = cases[i].list };
		struct err why = { 0 };
		start(&s);
		await(watcher_failing(s.watcher, &why));
		assert_int_equal(why.kind, cases[i].kind);
		assert_non_null(strstr(why.message, "/api/v1/pods"));
		assert_int_equal(s.told[0], 0);
		pthread_mutex_lock(&s.lock);
		s.list = (struct act){ 0 };
		pthread_mutex_unlock(&s.lock);
		await(s.told[0] == 1);
		await(!watcher_failing(s.watcher, &why));
	}
}

/* --- Stalled ---------------------------------------------------------------------------------------------------------- */

/* A server that sends bookmarks and then falls silent is asked anew. */
static void test_a_stalled_stream(void **state)
{
	(void)state;
	static const struct watch_times times = { .server_timeout_ms = 300000, .grace_ms = 90000, .silence_ms = 700 };
	struct script s cleanup(script_release) = { .watches = { { .bytes = EVENT("BOOKMARK", "20"), .ending = OPEN }, { .ending = OPEN } } };
	start_targets(&s, &(struct watch_target){ .path = "/api/v1/pods" }, 1, &times);
	await(requests(&s) == 3);
	assert_log(&s, "list L1, watch L1, watch 20");
	assert_true(s.gap_ms >= 700);
	/* The second sends none, and so its silence says nothing. */
	int64_t since = clock_monotonic_ms();
	await(clock_monotonic_ms() - since > 2500);
	assert_int_equal(requests(&s), 3);
}

static void test_a_watch_has_an_end(void **state)
{
	(void)state;
	static const struct watch_times times = { .server_timeout_ms = 1000, .grace_ms = 500, .silence_ms = 60000 };
	struct script s cleanup(script_release) = { .watches = { { .bytes = EVENT("ADDED", "5"), .ending = OPEN } } };
	start_targets(&s, &(struct watch_target){ .path = "/api/v1/pods" }, 1, &times);
	await(requests(&s) == 3);
	assert_log(&s, "list L1, watch L1, watch 5");
	assert_true(s.gap_ms >= 1500);
	int seconds = 0;
	assert_int_equal(sscanf(strstr(s.target, "timeoutSeconds="), "timeoutSeconds=%d&", &seconds), 1);
	assert_in_range(seconds, 1, 2);
}

/* --- Stopping --------------------------------------------------------------------------------------------------------- */

static void test_stops_promptly(void **state)
{
	(void)state;
	enum { IN_STREAM, IN_LIST, IN_WATCH, WAITING, CASES };
	for (int i = 0; i < CASES; i++) {
		struct script s cleanup(script_release) = { .silent_lists = i == IN_LIST, .silent_watches = i == IN_WATCH };
		if (i == IN_STREAM)
			s.watches[0] = (struct act){ .bytes = EVENT("ADDED", "5") HALF, .ending = OPEN };
		if (i == WAITING)
			s.list = (struct act){ .status = 429, .headers = "Retry-After: 50\r\n" };
		struct err why = { 0 };
		start(&s);
		await(requests(&s) >= (i == IN_LIST || i == WAITING ? 1 : 2));
		if (i == IN_STREAM)
			await(s.told[0] == 2);
		if (i == WAITING)
			await(watcher_failing(s.watcher, &why));
		int64_t since = clock_monotonic_ms();
		watcher_stopp(&s.watcher);
		assert_null(s.watcher);
		assert_true(clock_monotonic_ms() - since < 2000);
	}
}

/* --- Pace ------------------------------------------------------------------------------------------------------------- */

static void test_retry_after(void **state)
{
	(void)state;
	struct script s cleanup(script_release) = {
		.watches = { { .status = 429, .headers = "Retry-After: 2\r\n" }, { .ending = OPEN } },
	};
	start(&s);
	await(requests(&s) == 3);
	assert_log(&s, "list L1, watch L1, watch L1");
	assert_true(s.gap_ms >= 2000);
}

/* Whatever a server does again and again, it is not asked again and again without a pause. */
static void test_no_hot_loop(void **state)
{
	(void)state;
	static const struct act always[] = {
		{ .status = 500 }, { .status = 410 }, { .status = 429 }, { .ending = RESET }, { .ending = CUT },
		{ .bytes = "no json\n" }, { .bytes = FAULT("410") }, { .bytes = "" },
		{ .bytes = EVENT("ADDED", "5") }, { .bytes = EVENT("ADDED", "5"), .ending = CUT },
		{ .bytes = EVENT("ADDED", "5") FAULT("410") }, { .bytes = EVENT("BOOKMARK", "5") },
		{ .bytes = EVENT("ADDED", "5") HALF, .ending = CUT },
	};
	for (size_t i = 0; i < 2 * ARRAY_LEN(always); i++) {
		bool lists = i >= ARRAY_LEN(always);
		const struct act *a = &always[i % ARRAY_LEN(always)];
		if (lists && a->bytes && !*a->bytes)
			continue;
		struct script s cleanup(script_release) = { .watches = { *a }, .n_watches = 1 };
		if (lists)
			s.list = *a;
		start(&s);
		await(requests(&s) >= 2);
		int64_t since = clock_monotonic_ms();
		await(clock_monotonic_ms() - since > 1500);
		/* Waits of 0, then at least 100, 200, 400, 800 ms; each attempt is at most two requests. */
		if (requests(&s) > 14)
			fail_msg("case %zu: %d requests: %s", i, requests(&s), s.log);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_split_anywhere),
		cmocka_unit_test(test_frames_that_are_none),
		cmocka_unit_test(test_a_frame_has_a_limit),
		cmocka_unit_test(test_a_list_then_a_watch),
		cmocka_unit_test(test_versions_are_opaque),
		cmocka_unit_test(test_frames_in_one_read),
		cmocka_unit_test(test_bytes_one_by_one),
		cmocka_unit_test(test_bookmarks_are_resumed_from),
		cmocka_unit_test(test_duplicated_events),
		cmocka_unit_test(test_targets_are_apart),
		cmocka_unit_test(test_expired_is_listed_again),
		cmocka_unit_test(test_what_is_no_event_is_listed_again),
		cmocka_unit_test(test_an_endless_frame),
		cmocka_unit_test(test_broken_in_a_frame),
		cmocka_unit_test(test_refused_watches),
		cmocka_unit_test(test_failures_are_told),
		cmocka_unit_test(test_a_stalled_stream),
		cmocka_unit_test(test_a_watch_has_an_end),
		cmocka_unit_test(test_stops_promptly),
		cmocka_unit_test(test_retry_after),
		cmocka_unit_test(test_no_hot_loop),
	};
	return cmocka_run_group_tests(tests, make_certificates, drop_certificates);
}
