/* LINK: kube */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "client.h"
#include "file.h"
#include "kubeconfig.h"
#include "tls_peer.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct peer_ca *ca_one, *ca_two;
static struct peer_leaf leaf_one, leaf_two;
static char folder[] = "/tmp/certrotation-client-XXXXXX";

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

static int make_world(void **state)
{
	(void)state;
	ca_one = peer_ca_new("one");
	ca_two = peer_ca_new("two");
	leaf_one = peer_leaf_new(ca_one, "server");
	leaf_two = peer_leaf_new(ca_two, "server");
	return mkdtemp(folder) ? 0 : -1;
}

static char *in_folder(const char *name)
{
	return str_printf("%s/%s", folder, name);
}

static void put(const char *name, const char *text)
{
	struct err e = { 0 };
	char *path cleanup(str_freep) = in_folder(name);
	assert_ok(file_replace(path, text, strlen(text), 0600, NULL, &e), e);
}

static void drop(const char *name)
{
	char *path cleanup(str_freep) = in_folder(name);
	(void)unlink(path);
}

static int drop_world(void **state)
{
	static const char *const names[] = { "ca.crt", "token", "namespace", "kubeconfig", "both.pem", "..data" };
	(void)state;
	peer_ca_freep(&ca_one);
	peer_ca_freep(&ca_two);
	peer_leaf_release(&leaf_one);
	peer_leaf_release(&leaf_two);
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		drop(names[i]);
	return rmdir(folder);
}

static struct peer *peer_one(peer_script *script, void *context)
{
	return peer_start(&(struct peer_options){ .leaf = &leaf_one }, script, context);
}

static struct kube *kube_of(const struct peer *peer)
{
	struct kube *k = NULL;
	struct err e = { 0 };
	char *server cleanup(str_freep) = peer_url(peer, "");
	struct http_identity id = { .ca_pem = ca_one->pem, .bearer_token = "s3cret-token" };
	assert_ok(kube_from_identity(server, &id, &k, &e), e);
	return k;
}

/* Answers in this order; the last one for ever. */
struct answers {
	struct answer {
		int status;
		const char *headers, *body;
	} list[8];
	atomic_size_t at;
	char last_target[256], last_body[256];
	bool saw_header;
	const char *header; /* to look for */
};

static void answer_next(void *context, const struct peer_request *r)
{
	struct answers *a = context;
	size_t i = a->at++;
	while (i >= ARRAY_LEN(a->list) || !a->list[i].status)
		i--;
	str_copy(a->last_target, sizeof(a->last_target), r->target);
	str_copy(a->last_body, sizeof(a->last_body), r->body);
	a->saw_header = a->header && peer_has_header(r, a->header);
	peer_answer(r, a->list[i].status, a->list[i].headers ? a->list[i].headers : "", a->list[i].body ? a->list[i].body : "{}");
}

/* --- Errors --------------------------------------------------------------------------------------------------------- */

#define STATUS(text) "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"message\":\"" text "\",\"reason\":\"Because\"}"

static void test_statuses_become_kinds(void **state)
{
	(void)state;
	static const struct {
		int status;
		enum err_kind kind;
	} cases[] = {
		{ 400, ERR_INPUT },    { 401, ERR_DENIED },  { 403, ERR_DENIED },  { 404, ERR_NOT_FOUND }, { 405, ERR_OTHER },
		{ 409, ERR_CONFLICT }, { 410, ERR_EXPIRED }, { 413, ERR_INPUT },   { 415, ERR_INPUT },     { 422, ERR_INPUT },
		{ 429, ERR_BUSY },     { 500, ERR_IO },      { 503, ERR_BUSY },    { 504, ERR_IO },        { 302, ERR_OTHER },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		/* A Retry-After over the bound: tried once, and the caller is told. */
		struct answers a = { .list = { { cases[i].status, "Retry-After: 100\r\n", STATUS("it is so") } } };
		struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
		struct kube *k cleanup(kube_freep) = kube_of(peer);
		struct json *patch cleanup(json_freep) = json_object();
		struct err e = { 0 };
		assert_false(kube_patch(k, "/api/v1/nodes/a?x=y", KUBE_MERGE_PATCH, patch, NULL, &e).ok);
		assert_int_equal(e.kind, cases[i].kind);
		char *expected cleanup(str_freep) = str_printf("PATCH /api/v1/nodes/a: %d: it is so", cases[i].status);
		assert_string_equal(e.message, expected);
		assert_int_equal(e.retry_after_ms, e.kind == ERR_BUSY ? 100000 : 0);
		assert_int_equal(peer_requests(peer), 1);
	}
}

static void expect_message(int status, const char *body, const char *path, const char *expected)
{
	struct answers a = { .list = { { status, "", body } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct json *object cleanup(json_freep) = json_object();
	struct err e = { 0 };
	assert_false(kube_create(k, path, object, NULL, &e).ok);
	assert_string_equal(e.message, expected);
}

static void test_answers_without_a_status(void **state)
{
	(void)state;
	expect_message(500, "upstream said no\nand more", "/api", "POST /api: 500: upstream said no");
	expect_message(500, "<html><body>secret</body></html>", "/api", "POST /api: 500: no Status in the answer (32 bytes)");
	expect_message(500, "{\"kind\":\"Secret\"}", "/api", "POST /api: 500: no Status in the answer (17 bytes)");
	expect_message(500, "", "/api", "POST /api: 500: no Status in the answer (0 bytes)");
	expect_message(500, "{\"kind\":\"Status\",\"mess", "/api", "POST /api: 500: no Status in the answer (22 bytes)");
	expect_message(404, "404 page not found\n", "/api", "POST /api: 404: 404 page not found");
}

#define INVALID "{\"kind\":\"Status\",\"message\":\"data: Invalid value: \\\"hunter2\\\"\",\"reason\":\"Invalid\"," \
		"\"details\":{\"causes\":[{\"reason\":\"FieldValueInvalid\",\"field\":\"data[a]\",\"message\":\"hunter2\"}]}}"

static void test_messages_hold_nothing_secret(void **state)
{
	(void)state;
	expect_message(422, INVALID, "/api/v1/namespaces/a/configmaps",
		       "POST /api/v1/namespaces/a/configmaps: 422: data: Invalid value: \"hunter2\"");
	expect_message(422, INVALID, "/api/v1/namespaces/a/secrets",
		       "POST /api/v1/namespaces/a/secrets: 422: Invalid, data[a] (FieldValueInvalid)");
	expect_message(422, INVALID, "/api/v1/namespaces/a/secrets/b?x",
		       "POST /api/v1/namespaces/a/secrets/b: 422: Invalid, data[a] (FieldValueInvalid)");
	expect_message(500, "hunter2", "/api/v1/secrets", "POST /api/v1/secrets: 500: no Status in the answer (7 bytes)");
	expect_message(409, STATUS("the object has been modified"), "/api/v1/namespaces/a/secrets/b",
		       "POST /api/v1/namespaces/a/secrets/b: 409: the object has been modified");
	expect_message(400, "hunter2", "/api/v1/namespaces/a/serviceaccounts/b/token",
		       "POST /api/v1/namespaces/a/serviceaccounts/b/token: 400: no Status in the answer (7 bytes)");
	expect_message(400, "you sent s3cret-token", "/api", "POST /api: 400: the answer repeats our token");
	expect_message(401, STATUS("bad s3cret-token"), "/api", "POST /api: 401: the answer repeats our token");
}

static void test_paths(void **state)
{
	(void)state;
	static const char *const bad[] = { "", "api", "https://elsewhere/", "/a b", "/a\n", "/a#b", "/\xc3\xa9" };
	struct answers a = { .list = { { 200, "", "{}" } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct json *got = NULL;
		struct err e = { 0 };
		assert_false(kube_get(k, bad[i], &got, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
	}
	assert_int_equal(peer_requests(peer), 0);
}

/* --- Trying again --------------------------------------------------------------------------------------------------- */

static void test_busy_then_done(void **state)
{
	(void)state;
	struct answers a = { .list = { { 429, "Retry-After: 1\r\n", "" }, { 503, "", "" }, { 200, "", "{\"a\":1}" } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct json *patch cleanup(json_freep) = json_object(), *got cleanup(json_freep) = NULL;
	struct err e = { 0 };
	int64_t before = clock_monotonic_ms();
	assert_ok(kube_patch(k, "/x", KUBE_MERGE_PATCH, patch, &got, &e), e);
	assert_true(clock_monotonic_ms() - before >= 1000);
	assert_int_equal(json_get_int(got, "a", 0), 1);
	assert_int_equal(peer_requests(peer), 3);
	assert_int_equal(e.message[0], '\0');
}

static void test_busy_for_ever(void **state)
{
	(void)state;
	struct answers a = { .list = { { 503, "", STATUS("overloaded") } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct json *got = NULL;
	struct err e = { 0 };
	assert_false(kube_get(k, "/x", &got, &e).ok);
	assert_int_equal(e.kind, ERR_BUSY);
	assert_null(got);
	assert_int_equal(peer_requests(peer), 5);
}

/* Every request but the last is read, and its connection reset or cut. */
struct breaker {
	unsigned good_from;
	bool in_the_body;
};

static void break_some(void *context, const struct peer_request *r)
{
	const struct breaker *b = context;
	if (r->number >= b->good_from) {
		peer_answer(r, 200, "", "{\"a\":1}");
	} else if (b->in_the_body) {
		peer_send_text(r, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":2}");
		peer_cut(r);
	} else {
		peer_reset(r);
	}
}

static void test_reads_are_repeated(void **state)
{
	(void)state;
	for (int in_the_body = 0; in_the_body < 2; in_the_body++) {
		struct breaker b = { 4, in_the_body };
		struct peer *peer cleanup(peer_stopp) = peer_one(break_some, &b);
		struct kube *k cleanup(kube_freep) = kube_of(peer);
		struct json *got cleanup(json_freep) = NULL;
		struct err e = { 0 };
		assert_ok(kube_get(k, "/x", &got, &e), e);
		assert_int_equal(json_get_int(got, "a", 0), 1);
		assert_int_equal(peer_requests(peer), 4);
	}
}

static void test_reads_end_too(void **state)
{
	(void)state;
	struct breaker b = { 100, false };
	struct peer *peer cleanup(peer_stopp) = peer_one(break_some, &b);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct json *got = NULL;
	struct err e = { 0 };
	assert_false(kube_get(k, "/x", &got, &e).ok);
	assert_int_equal(e.kind, ERR_IO);
	assert_int_equal(peer_requests(peer), 5);
}

/* What a lost answer leaves behind is not known, so a write is reported and not repeated. */
static void test_writes_are_not_repeated(void **state)
{
	(void)state;
	for (int in_the_body = 0; in_the_body < 2; in_the_body++) {
		struct breaker b = { 100, in_the_body };
		struct peer *peer cleanup(peer_stopp) = peer_one(break_some, &b);
		struct kube *k cleanup(kube_freep) = kube_of(peer);
		struct json *object cleanup(json_freep) = json_object();
		struct err e = { 0 };
		assert_false(kube_create(k, "/x", object, NULL, &e).ok);
		assert_int_equal(e.kind, ERR_IO);
		assert_false(kube_update(k, "/x", object, NULL, &e).ok);
		assert_false(kube_patch(k, "/x", KUBE_APPLY, object, NULL, &e).ok);
		assert_false(kube_delete(k, "/x", NULL, NULL, &e).ok);
		assert_int_equal(e.kind, ERR_IO);
		assert_int_equal(peer_requests(peer), 4);
	}
}

static bool open_gate(void *context)
{
	int *left = context;
	return (*left)-- > 0;
}

/* Whoever has lost the Lease may read, and tell nobody anything. */
static void test_a_gate(void **state)
{
	(void)state;
	struct answers a = { .list = { { 200, "", "{}" } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct json *object cleanup(json_freep) = json_object(), *got cleanup(json_freep) = NULL;
	struct err e = { 0 };
	int writes = 1;
	kube_gate(k, open_gate, &writes);
	assert_true(kube_create(k, "/x", object, NULL, &e).ok);
	assert_false(kube_create(k, "/x", object, NULL, &e).ok);
	assert_int_equal(e.kind, ERR_DENIED);
	assert_false(kube_update(k, "/x", object, NULL, &e).ok);
	assert_false(kube_patch(k, "/x", KUBE_APPLY, object, NULL, &e).ok);
	assert_false(kube_delete(k, "/x", NULL, NULL, &e).ok);
	assert_int_equal(peer_requests(peer), 1);
	assert_ok(kube_get(k, "/x", &got, &e), e);
	struct kube *clone cleanup(kube_freep) = kube_clone(k);
	assert_ok(kube_delete(clone, "/x", NULL, NULL, &e), e);
	assert_int_equal(peer_requests(peer), 3);
}

#define VERSION(n) "{\"kind\":\"ConfigMapList\",\"metadata\":{\"resourceVersion\":\"" #n "\"},\"items\":[]}"

static bool no_item(void *context, const struct json *item)
{
	(void)item;
	++*(int *)context;
	return true;
}

/* One answer from the past is passed over; when there is nothing else, it is an error, and never what is. */
static void test_answers_from_the_past(void **state)
{
	(void)state;
	for (int lists = 0; lists < 2; lists++) {
		struct answers a = { .list = { { 200, "", VERSION(90) }, { 200, "", VERSION(100) }, { 200, "", VERSION(90) },
					       { 200, "", VERSION(101) }, { 200, "", VERSION(100) } } };
		struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
		struct kube *k cleanup(kube_freep) = kube_of(peer);
		struct err e = { 0 };
		int items = 0;
		for (int i = 0; i < 4; i++) {
			struct json *got cleanup(json_freep) = NULL;
			struct kube_list q = { .path = "/x" };
			result done = lists ? kube_list_each(k, &q, no_item, NULL, &items, NULL, &e) : kube_get(k, "/x", &got, &e);
			assert_int_equal(done.ok, i < 3);
			assert_int_equal(got != NULL, i < 3 && !lists);
		}
		assert_int_equal(e.kind, ERR_IO);
		assert_non_null(strstr(e.message, "older than one that came before"));
		assert_int_equal(peer_requests(peer), 4 + 5);
	}
}

static void answer_100_or_99(void *context, const struct peer_request *r)
{
	(void)context;
	peer_answer(r, 200, "", str_eq(r->method, "GET") ? VERSION(99) : "{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"100\"}}");
}

/* What was written must show: neither the object nor its list may be from before. */
static void test_what_was_written_is_no_longer_to_be(void **state)
{
	(void)state;
	for (int how = 0; how < 3; how++) {
		struct peer *peer cleanup(peer_stopp) = peer_one(answer_100_or_99, NULL);
		struct kube *k cleanup(kube_freep) = kube_of(peer);
		struct json *object cleanup(json_freep) = json_object(), *got cleanup(json_freep) = NULL;
		struct err e = { 0 };
		int items = 0;
		assert_ok(kube_list_each(k, &(struct kube_list){ .path = "/x" }, no_item, NULL, &items, NULL, &e), e);
		if (how == 0)
			assert_ok(kube_create(k, "/x", object, NULL, &e), e);
		else if (how == 1)
			assert_ok(kube_update(k, "/x/a/status", object, NULL, &e), e);
		else
			assert_ok(kube_patch(k, "/x/a", KUBE_MERGE_PATCH, object, NULL, &e), e);
		kube_limits(k, 0, 1);
		assert_false(kube_list_each(k, &(struct kube_list){ .path = "/x" }, no_item, NULL, &items, NULL, &e).ok);
		assert_false(kube_get(k, "/x/a", &got, &e).ok);
		assert_non_null(strstr(e.message, "older than one that came before"));
		assert_ok(kube_get(k, "/x/b", &got, &e), e);
	}
}

static void test_an_answer_that_is_not_json(void **state)
{
	(void)state;
	static const char *const bodies[] = { "", "<html>", "{\"a\":1} x", "{\"a\":" };
	for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
		struct answers a = { .list = { { 200, "", bodies[i] } } };
		struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
		struct kube *k cleanup(kube_freep) = kube_of(peer);
		struct json *got = NULL, *object cleanup(json_freep) = json_object();
		struct err e = { 0 };
		assert_false(kube_get(k, "/x", &got, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
		assert_true(str_starts(e.message, "GET /x: "));
		assert_null(got);
		assert_ok(kube_create(k, "/x", object, NULL, &e), e); /* nobody asked for it */
	}
}

/* --- What is sent --------------------------------------------------------------------------------------------------- */

static void test_patches(void **state)
{
	(void)state;
	static const struct {
		enum kube_patch kind;
		const char *header, *target;
	} cases[] = {
		{ KUBE_JSON_PATCH, "Content-Type: application/json-patch+json", "/x?fieldManager=certrotation" },
		{ KUBE_MERGE_PATCH, "Content-Type: application/merge-patch+json", "/x?fieldManager=certrotation" },
		{ KUBE_STRATEGIC_PATCH, "Content-Type: application/strategic-merge-patch+json", "/x?fieldManager=certrotation" },
		{ KUBE_APPLY, "Content-Type: application/apply-patch+yaml", "/x?fieldManager=certrotation&force=true" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct answers a = { .list = { { 200, "", "{}" } }, .header = cases[i].header };
		struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
		struct kube *k cleanup(kube_freep) = kube_of(peer);
		struct json *patch cleanup(json_freep) = json_object();
		struct err e = { 0 };
		json_set_int(patch, "n", 7);
		assert_ok(kube_patch(k, "/x", cases[i].kind, patch, NULL, &e), e);
		assert_int_equal(peer_requests(peer), 1);
		assert_true(a.saw_header);
		assert_string_equal(a.last_target, cases[i].target);
		assert_string_equal(a.last_body, "{\"n\":7}");
	}
}

static void test_deletes(void **state)
{
	(void)state;
	struct answers a = { .list = { { 200, "", "{}" }, { 404, "", STATUS("not found") }, { 409, "", STATUS("uid") } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct json *options cleanup(json_freep) = NULL;
	struct err e = { 0 };
	assert_ok(kube_delete(k, "/x", "u-1", "17", &e), e);
	assert_int_equal(peer_requests(peer), 1);
	assert_ok(json_parse(a.last_body, strlen(a.last_body), &options, &e), e);
	assert_string_equal(json_get_str(options, "kind"), "DeleteOptions");
	assert_string_equal(json_str(json_at(options, "preconditions", "uid", NULL)), "u-1");
	assert_string_equal(json_str(json_at(options, "preconditions", "resourceVersion", NULL)), "17");
	assert_ok(kube_delete(k, "/x", NULL, NULL, &e), e);
	assert_int_equal(peer_requests(peer), 2);
	assert_null(strstr(a.last_body, "preconditions"));
	assert_false(kube_delete(k, "/x", "u-1", NULL, &e).ok);
	assert_int_equal(e.kind, ERR_CONFLICT);
}

static void test_raw(void **state)
{
	(void)state;
	struct answers a = { .list = { { 500, "", "[-]etcd failed" } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct buf body cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	long status = 0;
	assert_ok(kube_raw(k, "/readyz", &status, &body, &e), e);
	assert_int_equal(status, 500);
	assert_string_equal(buf_str(&body), "[-]etcd failed");
	assert_int_equal(peer_requests(peer), 1);
}

static bool count(void *context, const char *bytes, size_t n)
{
	(void)bytes;
	*(size_t *)context += n;
	return true;
}

static void test_streams(void **state)
{
	(void)state;
	struct answers a = { .list = { { 200, "", "{\"type\":\"ADDED\"}\n" }, { 410, "", STATUS("too old") } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	size_t got = 0;
	struct kube_stream s = { .on_bytes = count, .context = &got };
	struct err e = { 0 };
	assert_ok(kube_stream(k, "/api/v1/pods?watch=1", &s, &e), e);
	assert_int_equal(got, 17);
	assert_false(kube_stream(k, "/api/v1/pods?watch=1", &s, &e).ok);
	assert_int_equal(e.kind, ERR_EXPIRED);
	assert_string_equal(e.message, "GET /api/v1/pods: 410: too old");
	assert_int_equal(got, 17);
}

/* --- Lists ---------------------------------------------------------------------------------------------------------- */

/* A server of n items, named by their number, that pages as asked. */
struct shop {
	int n;
	int item_size;
	unsigned gone_at[4]; /* request numbers that are answered 410 */
	atomic_int largest_limit;
	char first_target[512];
	bool metadata;
};

static int parameter(const char *target, const char *name, int otherwise)
{
	const char *at = strstr(target, name);
	return at ? (int)strtol(at + strlen(name), NULL, 10) : otherwise;
}

static void sell(void *context, const struct peer_request *r)
{
	struct shop *shop = context;
	struct buf body cleanup(buf_release) = { .cap = (size_t)64 << 20 };
	int from = parameter(r->target, "continue=", 0), limit = parameter(r->target, "limit=", 0), to = from + limit;
	if (r->number == 1) {
		str_copy(shop->first_target, sizeof(shop->first_target), r->target);
		shop->metadata = peer_has_header(r, "Accept: application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,"
						    "application/json");
	}
	for (size_t i = 0; i < ARRAY_LEN(shop->gone_at); i++)
		if (r->number == shop->gone_at[i]) {
			peer_answer(r, 410, "", STATUS("continue token too old"));
			return;
		}
	buf_addf(&body, "{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"rv%u\"", r->number);
	if (to < shop->n)
		buf_addf(&body, ",\"continue\":\"%d\"", to);
	buf_add_str(&body, "},\"items\":[");
	for (int i = from; i < to && i < shop->n; i++)
		buf_addf(&body, "%s{\"name\":\"%d\",\"filler\":\"%0*d\"}", i > from ? "," : "", i, shop->item_size, 0);
	buf_add_str(&body, "]}");
	shop->largest_limit = limit;
	peer_answer(r, 200, "", buf_str(&body));
}

struct basket {
	int n, restarts, enough;
	bool in_order;
};

static bool collect(void *context, const struct json *item)
{
	struct basket *b = context;
	b->in_order = b->in_order && strtol(json_str_or(json_get(item, "name"), "-1"), NULL, 10) == b->n;
	b->n++;
	return b->n != b->enough;
}

static void start_over(void *context)
{
	struct basket *b = context;
	b->n = 0;
	b->restarts++;
}

static result list(struct shop *shop, struct kube_list q, struct basket *b, char **ret_version, unsigned *ret_requests,
		   struct err *e)
{
	struct peer *peer cleanup(peer_stopp) = peer_one(sell, shop);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	q.path = "/api/v1/pods";
	b->in_order = true;
	result done = kube_list_each(k, &q, collect, start_over, b, ret_version, e);
	*ret_requests = peer_requests(peer);
	return done;
}

static void test_pages(void **state)
{
	(void)state;
	static const struct {
		int n;
		size_t page;
		unsigned requests;
	} cases[] = { { 0, 2, 1 }, { 1, 2, 1 }, { 2, 2, 1 }, { 3, 2, 2 }, { 7, 2, 4 }, { 7, 0, 1 }, { 1100, 0, 3 } };
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct shop shop = { .n = cases[i].n };
		struct basket b = { 0 };
		struct err e = { 0 };
		unsigned requests = 0;
		char *version cleanup(str_freep) = NULL;
		assert_ok(list(&shop, (struct kube_list){ .page = cases[i].page }, &b, &version, &requests, &e), e);
		assert_int_equal(b.n, cases[i].n);
		assert_true(b.in_order);
		assert_int_equal(requests, cases[i].requests);
		assert_string_equal(version, "rv1");
		assert_false(shop.metadata);
	}
}

static void test_selectors_and_metadata(void **state)
{
	(void)state;
	struct shop shop = { .n = 1 };
	struct basket b = { 0 };
	struct err e = { 0 };
	unsigned requests = 0;
	struct kube_list q = { .field_selector = "type=kubernetes.io/tls,a!=b", .label_selector = "x in (y, z)",
			       .metadata_only = true, .page = 9 };
	assert_ok(list(&shop, q, &b, NULL, &requests, &e), e);
	assert_string_equal(shop.first_target, "/api/v1/pods?limit=9&fieldSelector=type%3Dkubernetes.io%2Ftls%2Ca%21%3Db"
					       "&labelSelector=x%20in%20%28y%2C%20z%29");
	assert_true(shop.metadata);
}

static void test_each_may_end_it(void **state)
{
	(void)state;
	struct shop shop = { .n = 10 };
	struct basket b = { .enough = 3 };
	struct err e = { 0 };
	unsigned requests = 0;
	assert_ok(list(&shop, (struct kube_list){ .page = 2 }, &b, NULL, &requests, &e), e);
	assert_int_equal(b.n, 3);
	assert_int_equal(requests, 2);
}

static void test_gone_in_the_middle(void **state)
{
	(void)state;
	struct shop shop = { .n = 7, .gone_at = { 3, 6 } };
	struct basket b = { 0 };
	struct err e = { 0 };
	unsigned requests = 0;
	char *version cleanup(str_freep) = NULL;
	assert_ok(list(&shop, (struct kube_list){ .page = 2 }, &b, &version, &requests, &e), e);
	assert_int_equal(b.restarts, 2);
	assert_int_equal(b.n, 7);
	assert_true(b.in_order || b.restarts); /* order starts anew with each restart */
	assert_int_equal(requests, 3 + 3 + 4);
	assert_string_equal(version, "rv7");
}

static void test_gone_at_the_start(void **state)
{
	(void)state;
	struct shop shop = { .n = 7, .gone_at = { 1 } };
	struct basket b = { 0 };
	struct err e = { 0 };
	unsigned requests = 0;
	assert_false(list(&shop, (struct kube_list){ .page = 2 }, &b, NULL, &requests, &e).ok);
	assert_int_equal(e.kind, ERR_EXPIRED);
	assert_int_equal(b.restarts, 0);
	assert_int_equal(requests, 1);
}

static void always_gone_later(void *context, const struct peer_request *r)
{
	(void)context;
	if (strstr(r->target, "continue="))
		peer_answer(r, 410, "", STATUS("gone"));
	else
		peer_answer(r, 200, "", "{\"kind\":\"PodList\",\"metadata\":{\"continue\":\"1\"},\"items\":[{\"name\":\"0\"}]}");
}

static void test_gone_for_ever(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(always_gone_later, NULL);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct basket b = { 0 };
	struct err e = { 0 };
	assert_false(kube_list_each(k, &(struct kube_list){ .path = "/x" }, collect, start_over, &b, NULL, &e).ok);
	assert_int_equal(e.kind, ERR_EXPIRED);
	assert_int_equal(b.restarts, 5);
	assert_int_equal(peer_requests(peer), 12);
}

/* 40 items of 1 MiB are five times what may come at once. */
static void test_pages_that_are_too_large(void **state)
{
	(void)state;
	struct shop shop = { .n = 40, .item_size = 1 << 20 };
	struct basket b = { 0 };
	struct err e = { 0 };
	unsigned requests = 0;
	assert_ok(list(&shop, (struct kube_list){ .page = 40, .secret = true }, &b, NULL, &requests, &e), e);
	assert_int_equal(b.n, 40);
	assert_true(b.in_order);
	assert_int_equal(shop.largest_limit, 5);
	assert_int_equal(requests, 3 + 8);
}

/* Larger than a page may be, each comes alone. */
static void test_items_larger_than_a_page(void **state)
{
	(void)state;
	struct shop shop = { .n = 2, .item_size = 9 << 20 };
	struct basket b = { 0 };
	struct err e = { 0 };
	unsigned requests = 0;
	assert_ok(list(&shop, (struct kube_list){ .page = 2 }, &b, NULL, &requests, &e), e);
	assert_int_equal(b.n, 2);
	assert_int_equal(requests, 1 + 2);
}

static void test_one_item_that_is_too_large(void **state)
{
	(void)state;
	struct shop shop = { .n = 1, .item_size = 17 << 20 };
	struct basket b = { 0 };
	struct err e = { 0 };
	unsigned requests = 0;
	assert_false(list(&shop, (struct kube_list){ .page = 2 }, &b, NULL, &requests, &e).ok);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_int_equal(requests, 2);
}

static void test_an_answer_that_is_no_list(void **state)
{
	(void)state;
	static const struct {
		const char *body;
		bool good;
	} cases[] = { { "{}", false },
		      { "[]", false },
		      { "{\"kind\":\"Pod\",\"items\":{}}", false },
		      { "{\"kind\":\"Status\",\"status\":\"Success\"}", false },
		      { "{\"kind\":\"PodList\",\"items\":null}", true },
		      { "{\"kind\":\"PartialObjectMetadataList\"}", true },
		      { "{\"items\":[]}", true } };
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct answers a = { .list = { { 200, "", cases[i].body } } };
		struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
		struct kube *k cleanup(kube_freep) = kube_of(peer);
		struct basket b = { 0 };
		struct err e = { 0 };
		assert_int_equal(kube_list_each(k, &(struct kube_list){ .path = "/x" }, collect, NULL, &b, NULL, &e).ok,
				 cases[i].good);
	}
}

/* --- Many patches --------------------------------------------------------------------------------------------------- */

static struct kube_bulk *bulk_of(size_t n)
{
	struct kube_bulk *items = mem_alloc(n * sizeof(*items));
	for (size_t i = 0; i < n; i++) {
		items[i].path = str_printf("/x/%zu", i);
		items[i].patch = json_object();
		json_set_int(items[i].patch, "n", (int64_t)i);
		items[i].kind = KUBE_MERGE_PATCH;
	}
	return items;
}

/* Every item of its kind: 0-3 good, 4 is busy the first time, 5 not there, 6 conflict, 7 reset. */
struct mixed {
	unsigned seen[64];
	bool wrong_body;
};

static void treat_mixed(void *context, const struct peer_request *r)
{
	struct mixed *m = context;
	size_t i = (size_t)strtol(r->target + 3, NULL, 10);
	char *body cleanup(str_freep) = str_printf("{\"n\":%zu}", i);
	m->wrong_body = m->wrong_body || !str_eq(r->body, body);
	m->seen[i]++;
	if (i % 8 == 4 && m->seen[i] == 1)
		peer_answer(r, 429, "", STATUS("slow down"));
	else if (i % 8 == 5)
		peer_answer(r, 404, "", STATUS("not there"));
	else if (i % 8 == 6)
		peer_answer(r, 409, "", STATUS("changed"));
	else if (i % 8 == 7)
		peer_reset(r);
	else
		peer_answer(r, 200, "", "{}");
}

static void test_bulk_outcomes(void **state)
{
	(void)state;
	enum { N = 64 };
	struct mixed m = { 0 };
	struct peer *peer cleanup(peer_stopp) = peer_one(treat_mixed, &m);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct kube_bulk *items = bulk_of(N);
	kube_patch_all(k, items, N, 1000);
	assert_int_equal(peer_requests(peer), N + N / 8);
	assert_false(m.wrong_body);
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(items[i].outcome.ok, i % 8 < 5);
		assert_int_equal(m.seen[i], i % 8 == 4 ? 2 : 1);
		if (i % 8 >= 5)
			assert_int_equal(items[i].error.kind, i % 8 == 5 ? ERR_NOT_FOUND : i % 8 == 6 ? ERR_CONFLICT : ERR_IO);
	}
	assert_string_equal(items[5].error.message, "PATCH /x/5: 404: not there");
	kube_bulk_release(items, N);
}

static void test_bulk_bad_paths(void **state)
{
	(void)state;
	struct answers a = { .list = { { 200, "", "{}" } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct kube_bulk *items = bulk_of(3);
	for (size_t i = 0; i < 3; i += 2) {
		str_freep(&items[i].path);
		items[i].path = str_dup("no path");
	}
	kube_patch_all(k, items, 3, 1000);
	assert_false(items[0].outcome.ok);
	assert_true(items[1].outcome.ok);
	assert_false(items[2].outcome.ok);
	assert_int_equal(items[2].error.kind, ERR_INPUT);
	assert_int_equal(peer_requests(peer), 1);
	kube_bulk_release(items, 3);
	kube_patch_all(k, NULL, 0, 1000);
}

/* It closes in the middle: what is in flight ends, the rest is not begun. */
static void test_bulk_gate(void **state)
{
	(void)state;
	struct answers a = { .list = { { 200, "", "{}" } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct kube_bulk *items = bulk_of(20);
	int writes = 12;
	kube_gate(k, open_gate, &writes);
	kube_patch_all(k, items, 20, 1000);
	unsigned good = 0;
	for (size_t i = 0; i < 20; i++) {
		good += items[i].outcome.ok;
		assert_true(items[i].outcome.ok || items[i].error.kind == ERR_DENIED);
	}
	assert_in_range(good, 1, 12);
	assert_int_equal(peer_requests(peer), good);
	kube_bulk_release(items, 20);
}

static void test_bulk_pace(void **state)
{
	(void)state;
	struct answers a = { .list = { { 200, "", "{}" } } };
	struct peer *peer cleanup(peer_stopp) = peer_one(answer_next, &a);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct kube_bulk *items = bulk_of(50);
	int64_t before = clock_monotonic_ms();
	kube_patch_all(k, items, 50, 100);
	int64_t took = clock_monotonic_ms() - before;
	for (size_t i = 0; i < 50; i++)
		assert_true(items[i].outcome.ok);
	assert_true(took >= 430 && took < 3000); /* 49 intervals of 10 ms, less what may be made up for */
	assert_in_range(peer_connections(peer), 1, 8);
	kube_bulk_release(items, 50);
}

static void busy_for_ever(void *context, const struct peer_request *r)
{
	(void)context;
	peer_answer(r, 429, "", STATUS("never"));
}

static void test_bulk_busy_for_ever(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(busy_for_ever, NULL);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct kube_bulk *items = bulk_of(2);
	kube_patch_all(k, items, 2, 1000);
	for (size_t i = 0; i < 2; i++) {
		assert_false(items[i].outcome.ok);
		assert_int_equal(items[i].error.kind, ERR_BUSY);
	}
	assert_int_equal(peer_requests(peer), 20);
	kube_bulk_release(items, 2);
}

/* Busy with a Retry-After: nothing is started before it is over. */
struct pause {
	int64_t busy_at_ms, next_at_ms;
};

static void note_pause(void *context, const struct peer_request *r)
{
	struct pause *p = context;
	if (r->number == 1)
		p->busy_at_ms = clock_monotonic_ms();
	else if (r->number == 2)
		p->next_at_ms = clock_monotonic_ms();
	peer_answer(r, r->number == 1 ? 429 : 200, r->number == 1 ? "Retry-After: 1\r\n" : "", "{}");
}

static void test_bulk_obeys_retry_after(void **state)
{
	(void)state;
	struct pause p = { 0 };
	struct peer *peer cleanup(peer_stopp) = peer_one(note_pause, &p);
	struct kube *k cleanup(kube_freep) = kube_of(peer);
	struct kube_bulk *items = bulk_of(3);
	kube_patch_all(k, items, 3, 2); /* 500 ms apart: the answer is there before the second would start */
	assert_int_equal(peer_requests(peer), 4);
	assert_true(p.next_at_ms - p.busy_at_ms >= 995);
	for (size_t i = 0; i < 3; i++)
		assert_true(items[i].outcome.ok);
	kube_bulk_release(items, 3);
}

/* --- Credentials ---------------------------------------------------------------------------------------------------- */

static void echo_token(void *context, const struct peer_request *r)
{
	(void)context;
	const char *at = strstr(r->head, "Authorization: Bearer ");
	char *token cleanup(str_freep) = at ? str_ndup(at + 22, strcspn(at + 22, "\r")) : str_dup("");
	char *body cleanup(str_freep) = str_printf("{\"token\":\"%s\"}", token);
	peer_answer(r, 200, "", body);
}

static void expect_token(struct kube *k, const char *expected)
{
	struct json *got cleanup(json_freep) = NULL;
	struct err e = { 0 };
	assert_ok(kube_get(k, "/x", &got, &e), e);
	assert_string_equal(json_get_str(got, "token"), expected);
}

static struct kube *service_account(const struct peer *peer)
{
	struct kube *k = NULL;
	struct err e = { 0 };
	char *server cleanup(str_freep) = peer_url(peer, "/");
	assert_ok(kube_from_service_account(server, folder, &k, &e), e);
	return k;
}

static void test_service_account(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(echo_token, NULL);
	put("ca.crt", ca_one->pem);
	put("token", "first\n");
	put("namespace", "kube-system\n");
	struct kube *k cleanup(kube_freep) = service_account(peer);
	assert_string_equal(kube_namespace(k), "kube-system");
	assert_false(str_ends(kube_server(k), "/"));
	expect_token(k, "first");
	put("token", "second");
	expect_token(k, "second");
	struct kube *copy cleanup(kube_freep) = kube_clone(k);
	expect_token(copy, "second");
	put("token", "third");
	expect_token(copy, "third");
	expect_token(k, "third");
	assert_string_equal(kube_namespace(copy), "kube-system");
	assert_string_equal(kube_identity(k)->bearer_token, "third");
	drop("namespace");
	assert_non_null(kube_ca_pem(k));
	assert_string_equal(kube_namespace(k), "");
}

/* As the kubelet does it: `..data` is a symlink to a folder and is swapped; the path of the token stays. */
static void test_a_projected_volume(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(echo_token, NULL);
	char *old cleanup(str_freep) = in_folder("old"), *new cleanup(str_freep) = in_folder("new");
	char *data cleanup(str_freep) = in_folder("..data"), *token cleanup(str_freep) = in_folder("token");
	struct err e = { 0 };
	assert_int_equal(mkdir(old, 0700) | mkdir(new, 0700), 0);
	put("old/token", "old-token");
	put("new/token", "new-token");
	put("ca.crt", ca_one->pem);
	drop("token");
	assert_int_equal(symlink("old", data) | symlink("..data/token", token), 0);
	struct kube *k cleanup(kube_freep) = service_account(peer);
	expect_token(k, "old-token");
	assert_ok(file_symlink("new", data, &e), e);
	expect_token(k, "new-token");
	drop("token");
	drop("old/token");
	drop("new/token");
	assert_int_equal(rmdir(old) | rmdir(new), 0);
}

/* The CA is swapped on disk under a live client, which must then trust the new server and no longer the old one. */
static void test_ca_swapped_on_disk(void **state)
{
	(void)state;
	struct peer *old cleanup(peer_stopp) = peer_one(echo_token, NULL);
	struct peer *new cleanup(peer_stopp) = peer_start(&(struct peer_options){ .leaf = &leaf_two }, echo_token, NULL);
	struct json *got = NULL;
	struct err e = { 0 };
	put("ca.crt", ca_one->pem);
	put("token", "t");
	struct kube *to_old cleanup(kube_freep) = service_account(old);
	struct kube *to_new cleanup(kube_freep) = service_account(new);
	expect_token(to_old, "t");
	assert_false(kube_get(to_new, "/x", &got, &e).ok);
	put("ca.crt", ca_two->pem);
	expect_token(to_new, "t");
	unsigned before = peer_requests(old);
	assert_false(kube_get(to_old, "/x", &got, &e).ok); /* although its connection was open */
	assert_int_equal(e.kind, ERR_IO);
	assert_int_equal(peer_requests(old), before);
	assert_string_equal(kube_ca_pem(to_old), ca_two->pem);
}

/* Neither a request with what is old, nor a missing file that reads as a missing object. */
static void test_credentials_that_cannot_be_read(void **state)
{
	(void)state;
	struct peer *peer cleanup(peer_stopp) = peer_one(echo_token, NULL);
	static const struct {
		const char *name, *text, *says;
	} cases[] = { { "token", NULL, "/token" }, { "token", "", "/token" }, { "token", " \n", "/token" },
		      { "ca.crt", NULL, "/ca.crt" }, { "ca.crt", "nothing", "CA certificates" },
		      { "ca.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "CA certificates" } };
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct json *got = NULL;
		struct err e = { 0 };
		put("ca.crt", ca_one->pem);
		put("token", "t");
		struct kube *k cleanup(kube_freep) = service_account(peer);
		expect_token(k, "t");
		unsigned before = peer_requests(peer);
		if (cases[i].text)
			put(cases[i].name, cases[i].text);
		else
			drop(cases[i].name);
		struct kube_bulk *items = bulk_of(3);
		kube_patch_all(k, items, 3, 1000);
		for (size_t j = 0; j < 3; j++)
			assert_true(!items[j].outcome.ok && items[j].error.kind == ERR_IO);
		kube_bulk_release(items, 3);
		assert_false(kube_get(k, "/x", &got, &e).ok);
		assert_int_equal(e.kind, ERR_IO);
		assert_non_null(strstr(e.message, cases[i].says));
		assert_int_equal(peer_requests(peer), before);
		put("ca.crt", ca_one->pem);
		put("token", "t2");
		expect_token(k, "t2");
	}
}

/* The token changes on disk while patches are in flight: those that start later carry the new one. */
struct changing {
	unsigned change_at, wrong;
};

static void change_token(void *context, const struct peer_request *r)
{
	struct changing *c = context;
	bool old = peer_has_header(r, "Authorization: Bearer before");
	if (r->number == c->change_at)
		put("token", "after");
	if (old && r->number > c->change_at + 8)
		c->wrong++;
	peer_answer(r, 200, "", "{}");
}

static void test_token_changes_in_bulk(void **state)
{
	(void)state;
	struct changing c = { .change_at = 20 };
	struct peer *peer cleanup(peer_stopp) = peer_one(change_token, &c);
	put("ca.crt", ca_one->pem);
	put("token", "before");
	struct kube *k cleanup(kube_freep) = service_account(peer);
	struct kube_bulk *items = bulk_of(60);
	kube_patch_all(k, items, 60, 5000);
	for (size_t i = 0; i < 60; i++)
		assert_true(items[i].outcome.ok);
	assert_int_equal(peer_requests(peer), 60);
	assert_int_equal(c.wrong, 0);
	assert_string_equal(kube_identity(k)->bearer_token, "after");
	kube_bulk_release(items, 60);
}

static void test_kubeconfig(void **state)
{
	(void)state;
	struct peer_options o = { .leaf = &leaf_one, .client_ca_pem = ca_one->pem };
	struct peer *peer cleanup(peer_stopp) = peer_start(&o, echo_token, NULL);
	struct peer_leaf mine cleanup(peer_leaf_release) = peer_leaf_new(ca_one, "client");
	struct peer_leaf foreign cleanup(peer_leaf_release) = peer_leaf_new(ca_two, "client");
	struct buf text cleanup(buf_release) = BUF_SECRET;
	struct kube *k cleanup(kube_freep) = NULL;
	struct json *got = NULL;
	struct err e = { 0 };
	char *server cleanup(str_freep) = peer_url(peer, ""), *path cleanup(str_freep) = in_folder("kubeconfig");
	char *by_file cleanup(str_freep) = str_printf(
		"current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
		"clusters: [{name: k, cluster: {server: '%s', certificate-authority: ca.crt}}]\n"
		"users: [{name: u, user: {client-certificate: both.pem, client-key: both.pem}}]\n", server);
	char *both cleanup(secret_freep) = str_printf("%s%s", mine.cert_pem, mine.key_pem);
	char *wrong cleanup(secret_freep) = str_printf("%s%s", foreign.cert_pem, foreign.key_pem);
	kubeconfig_write("k", server, "u", ca_one->pem, mine.cert_pem, mine.key_pem, &text);
	put("kubeconfig", buf_str(&text));
	assert_ok(kube_from_kubeconfig(path, &k, &e), e);
	expect_token(k, "");
	put("ca.crt", ca_one->pem);
	put("both.pem", wrong);
	put("kubeconfig", by_file);
	assert_false(kube_get(k, "/x", &got, &e).ok);
	put("both.pem", both); /* as the kubelet replaces kubelet-client-current.pem */
	expect_token(k, "");
}

static void test_what_is_refused_at_the_start(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {
		{ "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
		  "clusters: [{name: k, cluster: {server: 'https://a'}}]\nusers: [{name: u, user: {token: t}}]\n", "no CA certificates" },
		{ "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
		  "clusters: [{name: k, cluster: {server: 'https://a'}}]\nusers: [{name: u, user: {exec: {command: x}}}]\n",
		  "exec is not supported" },
		{ "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n"
		  "clusters: [{name: k, cluster: {server: 'https://a', insecure-skip-tls-verify: true}}]\nusers: [{name: u, user: {token: t}}]\n",
		  "insecure-skip-tls-verify is not supported" },
	};
	char *path cleanup(str_freep) = in_folder("kubeconfig");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct kube *k = NULL;
		struct err e = { 0 };
		put("kubeconfig", cases[i].text);
		assert_false(kube_from_kubeconfig(path, &k, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
		assert_non_null(strstr(e.message, cases[i].says));
		assert_null(k);
	}
	struct kube *k = NULL;
	struct err e = { 0 };
	unsetenv("KUBERNETES_SERVICE_HOST");
	assert_false(kube_in_cluster(&k, &e).ok);
	assert_non_null(strstr(e.message, "KUBERNETES_SERVICE_HOST"));
	assert_false(kube_from_identity("https://a", &(struct http_identity){ .bearer_token = "t" }, &k, &e).ok);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_null(k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_statuses_become_kinds),
		cmocka_unit_test(test_answers_without_a_status),
		cmocka_unit_test(test_messages_hold_nothing_secret),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_busy_then_done),
		cmocka_unit_test(test_busy_for_ever),
		cmocka_unit_test(test_reads_are_repeated),
		cmocka_unit_test(test_reads_end_too),
		cmocka_unit_test(test_writes_are_not_repeated),
		cmocka_unit_test(test_a_gate),
		cmocka_unit_test(test_answers_from_the_past),
		cmocka_unit_test(test_what_was_written_is_no_longer_to_be),
		cmocka_unit_test(test_an_answer_that_is_not_json),
		cmocka_unit_test(test_patches),
		cmocka_unit_test(test_deletes),
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_streams),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_selectors_and_metadata),
		cmocka_unit_test(test_each_may_end_it),
		cmocka_unit_test(test_gone_in_the_middle),
		cmocka_unit_test(test_gone_at_the_start),
		cmocka_unit_test(test_gone_for_ever),
		cmocka_unit_test(test_pages_that_are_too_large),
		cmocka_unit_test(test_items_larger_than_a_page),
		cmocka_unit_test(test_one_item_that_is_too_large),
		cmocka_unit_test(test_an_answer_that_is_no_list),
		cmocka_unit_test(test_bulk_outcomes),
		cmocka_unit_test(test_bulk_bad_paths),
		cmocka_unit_test(test_bulk_gate),
		cmocka_unit_test(test_bulk_pace),
		cmocka_unit_test(test_bulk_busy_for_ever),
		cmocka_unit_test(test_bulk_obeys_retry_after),
		cmocka_unit_test(test_service_account),
		cmocka_unit_test(test_a_projected_volume),
		cmocka_unit_test(test_ca_swapped_on_disk),
		cmocka_unit_test(test_credentials_that_cannot_be_read),
		cmocka_unit_test(test_token_changes_in_bulk),
		cmocka_unit_test(test_kubeconfig),
		cmocka_unit_test(test_what_is_refused_at_the_start),
	};
	return cmocka_run_group_tests(tests, make_world, drop_world);
}
