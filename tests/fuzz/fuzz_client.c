/* LINK: kube */
/* The client with a server that lies: statuses, bodies, pages. http.c's functions are here, without a network. An answer is an
 * object or an error, never both; a list is whole or an error; and no error repeats our token. */
#include "fuzz.h"

#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN "tkn-0123456789abcdef"
#define ANSWERS_MAX 40

/* --- The server ---------------------------------------------------------------------------------------------------------- */

static struct fuzz_input answers;
static size_t n_answered;

struct http_pool {
	int unused;
};

struct http_pool *http_pool_new(size_t max_connections UNUSED, const char *user_agent UNUSED)
{
	return mem_alloc(sizeof(struct http_pool));
}

void http_pool_freep(struct http_pool **p)
{
	free(*p);
	*p = NULL;
}

void http_pool_identity(struct http_pool *p UNUSED, const struct http_identity *id UNUSED)
{
}

void http_response_release(struct http_response *r)
{
	buf_release(&r->body);
	*r = (struct http_response){ 0 };
}

void http_escape(const char *text, struct buf *out)
{
	for (; *text; text++)
		buf_addf(out, "%%%02X", (unsigned)(unsigned char)*text);
}

void http_pump(struct http_pool *p UNUSED, const struct http_source *source UNUSED)
{
}

/* Each answer: a line "status retry-after-ms", then the body. 0: the connection broke; -1: too long. */
result http_do(struct http_pool *p UNUSED, const struct http_request *q, struct http_response *ret, struct err *e)
{
	size_t len = 0;
	MUST(str_starts(q->url, "https://server/") && !strpbrk(q->url, " \r\n"));
	if (!answers.left || n_answered++ >= ANSWERS_MAX)
		return err_set(e, ERR_IO, "nobody answers");
	char *text cleanup(str_freep) = fuzz_part(&answers, &len), *end = NULL;
	ret->status = strtol(text, &end, 10) % 1000;
	ret->retry_after_ms = llabs(strtoll(end, &end, 10) % 1000000);
	const char *body = memchr(text, '\n', len);
	body = body ? body + 1 : text + len;
	ret->body.secret = q->secret;
	if (q->on_bytes && ret->status / 100 == 2)
		q->on_bytes(q->context, body, len - (size_t)(body - text));
	else
		buf_add(&ret->body, body, len - (size_t)(body - text));
	ret->body.overflow = ret->status < 0;
	if (ret->status > 0)
		return OK;
	return err_set(e, ret->status ? ERR_INPUT : ERR_IO, "broken");
}

/* --- Calls ----------------------------------------------------------------------------------------------------------------- */

static void check_failure(const struct err *e)
{
	fuzz_check_err(e);
	MUST(!strstr(e->message, TOKEN));
	MUST(e->kind == ERR_BUSY || !e->retry_after_ms);
}

static void get(struct kube *k, const char *path)
{
	struct json *object cleanup(json_wipep) = NULL;
	struct err e = { 0 };
	if (kube_get(k, path, &object, &e).ok)
		MUST(object);
	else
		MUST(!object);
	if (!object)
		check_failure(&e);
}

static void write_one(struct kube *k)
{
	struct json *sent cleanup(json_freep) = json_object(), *answer cleanup(json_freep) = NULL;
	struct err e = { 0 };
	json_set_str(sent, "kind", "ConfigMap");
	if (!kube_patch(k, "/api/v1/namespaces/a/configmaps/b", KUBE_APPLY, sent, &answer, &e).ok) {
		MUST(!answer);
		check_failure(&e);
	}
	if (!kube_delete(k, "/api/v1/namespaces/a/secrets/b", "uid", "7", &e).ok) {
		MUST(e.kind != ERR_NOT_FOUND);
		check_failure(&e);
	}
}

static bool take(void *context, const char *bytes UNUSED, size_t n)
{
	size_t *total = context;
	*total += n;
	return n != 7;
}

static void stream(struct kube *k)
{
	struct buf body cleanup(buf_release) = BUF_INIT;
	size_t total = 0;
	long status = 0;
	struct err e = { 0 };
	const struct kube_stream s = { .on_bytes = take, .context = &total };
	if (!kube_stream(k, "/api/v1/pods?watch=true", &s, &e).ok)
		check_failure(&e);
	if (!kube_raw(k, "/readyz", &status, &body, &e).ok)
		check_failure(&e);
}

struct items {
	size_t n, stop_at;
};

static bool each(void *context, const struct json *item)
{
	struct items *s = context;
	MUST(item);
	return ++s->n != s->stop_at;
}

static void restart(void *context)
{
	struct items *s = context;
	s->n = 0;
}

static void list(struct kube *k, size_t stop_at)
{
	struct items s = { .stop_at = stop_at };
	char untouched[] = "untouched", *version = untouched;
	struct err e = { 0 };
	const struct kube_list q = { .path = "/api/v1/pods", .label_selector = "a=b", .page = 4 };
	if (!kube_list_each(k, &q, each, restart, &s, &version, &e).ok) {
		MUST(version == untouched);
		check_failure(&e);
		return;
	}
	MUST(version != untouched && version);
	free(version);
}

/* Input: answers, parted by "====", in the order of the calls below. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct cert *ca = NULL;
	const struct key *unused = NULL;
	struct buf pem cleanup(buf_release) = BUF_INIT;
	fuzz_authority(&ca, &unused);
	cert_to_pem(ca, &pem);
	const struct http_identity id = { .ca_pem = buf_str(&pem), .bearer_token = TOKEN };
	struct kube *k cleanup(kube_freep) = NULL;
	struct err e = { 0 };
	MUST(kube_from_identity("https://server", &id, &k, &e).ok);
	kube_limits(k, 0, 1);
	answers = (struct fuzz_input){ (const char *)data, size };
	n_answered = 0;
	list(k, 0);
	get(k, "/api/v1/nodes/a");
	get(k, "/api/v1/namespaces/a/secrets/b");
	write_one(k);
	stream(k);
	list(k, 3);
	return 0;
}
