#include "watch.h"
#include "pki.h"
#include "thread.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define FRAME_MAX ((size_t)4 << 20)
#define ACCEPT "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
#define SERVER_TIMEOUT_S 300
#define SILENCE_MS 90000         /* bookmarks come once a minute */
#define BACKOFF_FIRST_MS 200
#define BACKOFF_MAX_MS 10000

/* One target, one thread. */
struct stream {
	struct watcher *watcher;
	struct kube *kube;
	size_t index;
	char *path, *field_selector, *label_selector;
	pthread_t thread;
	char *resource_version;  /* NULL: list first */
	struct buf frame;
	int64_t backoff_ms;
};

struct watcher {
	struct stream *streams;
	size_t n;
	void (*changed)(void *context, size_t target);
	void *context;
	pthread_mutex_t mutex;
	pthread_cond_t woken;
	atomic_bool stopping;
	_Atomic uint64_t events, relists, errors, reconnects;
};

/* --- Frames ------------------------------------------------------------------------------------------------------------------ */

static void forget_version(struct stream *s)
{
	str_freep(&s->resource_version);
}

/* One watch event. False ends the stream. */
static bool take_event(struct stream *s, const char *line, size_t len)
{
	struct json *event cleanup(json_freep) = NULL;
	struct err e;
	if (!json_parse(line, len, &event, &e).ok) {
		s->watcher->errors++;
		return false;
	}
	const char *type = json_str_or(json_get(event, "type"), "");
	const char *version = json_str(json_at(event, "object", "metadata", "resourceVersion", NULL));
	if (str_eq(type, "ERROR")) {
		s->watcher->errors++;
		forget_version(s); /* 410 most of the time; a list is right after any */
		return false;
	}
	if (version) {
		forget_version(s);
		s->resource_version = str_dup(version);
	}
	s->backoff_ms = BACKOFF_FIRST_MS;
	if (str_eq(type, "ADDED") || str_eq(type, "MODIFIED") || str_eq(type, "DELETED")) {
		s->watcher->events++;
		s->watcher->changed(s->watcher->context, s->index);
	}
	return true;
}

static bool on_bytes(void *context, const char *bytes, size_t n)
{
	struct stream *s = context;
	buf_add(&s->frame, bytes, n);
	if (s->frame.overflow) {
		s->watcher->errors++;
		forget_version(s);
		return false;
	}
	for (const char *end; s->frame.len && (end = memchr(s->frame.data, '\n', s->frame.len)) != NULL;) {
		size_t len = (size_t)(end - s->frame.data);
		if (len && !take_event(s, s->frame.data, len))
			return false;
		buf_consume(&s->frame, len + 1);
	}
	return true;
}

/* --- The thread ---------------------------------------------------------------------------------------------------------------- */

static bool is_stopping(void *context)
{
	const struct stream *s = context;
	return atomic_load(&s->watcher->stopping);
}

static bool first_only(void *context UNUSED, const struct json *item UNUSED)
{
	return false;
}

/* Only the resourceVersion is wanted: a page of one. */
static result list(struct stream *s, struct err *e)
{
	const struct kube_list q = { .path = s->path, .field_selector = s->field_selector, .label_selector = s->label_selector,
				     .metadata_only = true, .page = 1 };
	char *version = NULL;
	TRY(kube_list_each(s->kube, &q, first_only, NULL, NULL, &version, e));
	if (!version)
		return err_set(e, ERR_INPUT, "the list of %s has no resourceVersion", s->path);
	forget_version(s);
	s->resource_version = version;
	s->watcher->relists++;
	s->watcher->changed(s->watcher->context, s->index);
	return OK;
}

static void add_selector(struct buf *path, const char *name, const char *selector)
{
	if (!selector)
		return;
	buf_addf(path, "&%s=", name);
	for (const char *p = selector; *p; p++) {
		bool plain = strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~", *p) != NULL;
		plain ? buf_add_char(path, *p) : buf_addf(path, "%%%02X", (unsigned)(unsigned char)*p);
	}
}

static result watch(struct stream *s, struct err *e)
{
	struct buf path cleanup(buf_release) = BUF_INIT;
	char hex[5];
	random_hex(2, hex);
	unsigned seconds = SERVER_TIMEOUT_S + (unsigned)strtoul(hex, NULL, 16) % SERVER_TIMEOUT_S;
	buf_addf(&path, "%s?watch=true&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=%s", s->path, seconds,
		 s->resource_version);
	add_selector(&path, "fieldSelector", s->field_selector);
	add_selector(&path, "labelSelector", s->label_selector);
	const struct kube_stream q = { .on_bytes = on_bytes, .stop = is_stopping, .context = s, .accept = ACCEPT,
				       .timeout_ms = (int64_t)(seconds + 30) * 1000, .idle_timeout_ms = SILENCE_MS };
	buf_clear(&s->frame);
	s->watcher->reconnects++;
	return kube_stream(s->kube, buf_str(&path), &q, e);
}

static void rest(struct stream *s)
{
	struct watcher *w = s->watcher;
	pthread_mutex_lock(&w->mutex);
	if (!w->stopping)
		thread_cond_wait_ms(&w->woken, &w->mutex, s->backoff_ms);
	pthread_mutex_unlock(&w->mutex);
	s->backoff_ms = s->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : s->backoff_ms * 2;
}

static void *run_stream(void *context)
{
	struct stream *s = context;
	while (!is_stopping(s)) {
		struct err e = { 0 };
		result done = s->resource_version ? OK : list(s, &e);
		if (done.ok)
			done = watch(s, &e);
		if (done.ok || is_stopping(s))
			continue;
		s->watcher->errors++;
		if (e.kind == ERR_EXPIRED || e.kind == ERR_INPUT || e.kind == ERR_NOT_FOUND)
			forget_version(s);
		rest(s);
	}
	return NULL;
}

/* --- Life cycle ------------------------------------------------------------------------------------------------------------------ */

static char *copy_or_null(const char *s)
{
	return s ? str_dup(s) : NULL;
}

static void stream_init(struct watcher *w, size_t i, const struct kube *k, const struct watch_target *t)
{
	w->streams[i] = (struct stream){ .watcher = w, .kube = kube_clone(k), .index = i, .path = str_dup(t->path),
					 .field_selector = copy_or_null(t->field_selector),
					 .label_selector = copy_or_null(t->label_selector),
					 .frame = { .cap = FRAME_MAX }, .backoff_ms = BACKOFF_FIRST_MS };
}

static void stream_release(struct stream *s)
{
	kube_freep(&s->kube);
	str_freep(&s->path);
	str_freep(&s->field_selector);
	str_freep(&s->label_selector);
	str_freep(&s->resource_version);
	buf_release(&s->frame);
}

result watcher_start(const struct kube *k, const struct watch_target *targets, size_t n, void (*changed)(void *context, size_t target),
		     void *context, struct watcher **ret, struct err *e)
{
	struct watcher *w = mem_alloc(sizeof *w);
	w->streams = mem_alloc(n * sizeof *w->streams);
	w->changed = changed;
	w->context = context;
	pthread_mutex_init(&w->mutex, NULL);
	thread_cond_init(&w->woken);
	for (size_t i = 0; i < n; i++) {
		stream_init(w, i, k, &targets[i]);
		if (!thread_start("watch", run_stream, &w->streams[i], &w->streams[i].thread, e).ok) {
			stream_release(&w->streams[i]);
			watcher_stopp(&w);
			return FAILED;
		}
		w->n++;
	}
	*ret = w;
	return OK;
}

void watcher_stopp(struct watcher **wp)
{
	struct watcher *w = *wp;
	if (!w)
		return;
	pthread_mutex_lock(&w->mutex);
	w->stopping = true;
	pthread_cond_broadcast(&w->woken);
	pthread_mutex_unlock(&w->mutex);
	for (size_t i = 0; i < w->n; i++) {
		pthread_join(w->streams[i].thread, NULL);
		stream_release(&w->streams[i]);
	}
	pthread_cond_destroy(&w->woken);
	pthread_mutex_destroy(&w->mutex);
	free(w->streams);
	free(w);
	*wp = NULL;
}

struct watch_counters watcher_counters(const struct watcher *w)
{
	return (struct watch_counters){ .events = w->events, .relists = w->relists, .errors = w->errors,
					.reconnects = w->reconnects };
}
