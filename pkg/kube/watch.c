#include "watch.h"

#include "backoff.h"
#include "thread.h"
#include "watch_frame.h"

#include <stdatomic.h>
#include <stdlib.h>

#define ACCEPT_OBJECT "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
#define ACCEPT_LIST "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
#define LIST_TIMEOUT_MS 30000
#define FIRST_WAIT_MS 200
#define LONGEST_WAIT_MS 30000
#define LONGEST_ASKED_WAIT_MS 60000 /* by Retry-After */
#define FAILURES_TO_LIST 5
#define HASTY_MS 1000

static const struct watch_times usual = { .server_timeout_ms = 300000, .grace_ms = 90000, .silence_ms = 150000 };

/* One target. All but `failed` and `why` is its thread's alone. */
struct stream {
	struct watcher *watcher;
	size_t index;
	struct kube *kube;
	char *path, *selectors;     /* "/api/v1/pods", "&fieldSelector=…" encoded */
	pthread_t thread;
	char *version;              /* NULL: list first */
	unsigned lists, watches;
	unsigned failures;          /* attempts in a row of which nothing came */
	unsigned hasty;             /* ditto that were over at once, whatever came */
	struct frames frames;
	struct buf list;
	bool bookmarks, news;       /* in this stream: one came; among these bytes: a change */
	int64_t last_byte_ms;
	result read;                /* of the frames of this stream, and why not */
	struct err read_error;
	bool failed;                /* under the watcher's lock */
	struct err why;
};

struct watcher {
	struct watch_times times;
	struct stream *streams;
	size_t n;
	void (*changed)(void *context, size_t target);
	void *context;
	pthread_mutex_t lock;
	pthread_cond_t woken;
	atomic_bool stopping;
	_Atomic uint64_t events, relists, errors, reconnects;
};

/* --- State of a target ------------------------------------------------------------------------------------------ */

static bool stopping(void *context)
{
	const struct stream *s = context;
	return atomic_load(&s->watcher->stopping);
}

static void set_version(struct stream *s, char *taken)
{
	str_freep(&s->version);
	s->version = taken;
}

static void works(struct stream *s)
{
	pthread_mutex_lock(&s->watcher->lock);
	s->failed = false;
	pthread_mutex_unlock(&s->watcher->lock);
}

static void fails(struct stream *s, const struct err *why)
{
	atomic_fetch_add(&s->watcher->errors, 1);
	pthread_mutex_lock(&s->watcher->lock);
	s->failed = true;
	s->why = *why;
	pthread_mutex_unlock(&s->watcher->lock);
}

static void tell(struct stream *s)
{
	s->watcher->changed(s->watcher->context, s->index);
}

/* --- List ------------------------------------------------------------------------------------------------------- */

static bool on_list_bytes(void *context, const char *bytes, size_t n)
{
	struct stream *s = context;
	buf_add(&s->list, bytes, n);
	return !s->list.overflow;
}

static result read_list(const struct stream *s, char **ret_version, struct err *e)
{
	struct json *list cleanup(json_freep) = NULL;
	if (s->list.overflow)
		return err_set(e, ERR_INPUT, "GET %s: a list of one is larger than %zu bytes", s->path, FRAME_MAX);
	TRY_CTX(json_parse(buf_str(&s->list), s->list.len, &list, e), e, "GET %s", s->path);
	const char *version = json_str(json_at(list, "metadata", "resourceVersion", NULL));
	if (!version || !*version)
		return err_set(e, ERR_INPUT, "GET %s: the list has no resourceVersion", s->path);
	*ret_version = str_dup(version);
	return OK;
}

/* Only its resourceVersion is wanted: one item is enough. As a stream, for that can be stopped. */
static result list(struct stream *s, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("%s?limit=1%s", s->path, s->selectors), *version = NULL;
	struct kube_stream q = { .on_bytes = on_list_bytes, .stop = stopping, .context = s, .accept = ACCEPT_LIST,
				 .timeout_ms = LIST_TIMEOUT_MS };
	s->list = (struct buf){ .cap = FRAME_MAX };
	result done = kube_stream(s->kube, path, &q, e);
	if (done.ok)
		done = read_list(s, &version, e);
	buf_release(&s->list);
	if (!done.ok)
		return FAILED;
	set_version(s, version);
	atomic_fetch_add(&s->watcher->relists, s->lists++ ? 1 : 0);
	works(s);
	tell(s); /* whatever changed before is in what is read from now on */
	return OK;
}

/* --- Watch ------------------------------------------------------------------------------------------------------ */

static result on_frame(void *context, const char *frame, size_t len, struct err *e)
{
	struct stream *s = context;
	enum frame_kind kind;
	char *version = NULL;
	TRY(frame_read(frame, len, &kind, &version, e));
	if (version)
		set_version(s, version);
	s->bookmarks |= kind == FRAME_BOOKMARK;
	if (kind == FRAME_CHANGE) {
		atomic_fetch_add(&s->watcher->events, 1);
		s->news = true;
	}
	s->failures = 0;
	works(s);
	return OK;
}

static bool on_watch_bytes(void *context, const char *bytes, size_t n)
{
	struct stream *s = context;
	s->last_byte_ms = clock_monotonic_ms();
	s->news = false;
	s->read = frames_feed(&s->frames, bytes, n, on_frame, s, &s->read_error);
	if (s->news)
		tell(s);
	return s->read.ok;
}

static bool silent(const struct stream *s)
{
	return s->bookmarks && clock_monotonic_ms() - s->last_byte_ms > s->watcher->times.silence_ms;
}

static bool stop_watch(void *context)
{
	return stopping(context) || silent(context);
}

/* OK when the server ended it in good order. */
static result watch(struct stream *s, struct err *e)
{
	struct buf path cleanup(buf_release) = BUF_INIT;
	const struct watch_times *times = &s->watcher->times;
	int64_t ms = times->server_timeout_ms / 2 + backoff_jittered(times->server_timeout_ms);
	buf_addf(&path, "%s?watch=true&allowWatchBookmarks=true&timeoutSeconds=%lld&resourceVersion=", s->path,
		 (long long)(ms / 1000));
	http_escape(s->version, &path);
	buf_add_str(&path, s->selectors);
	struct kube_stream q = { .on_bytes = on_watch_bytes, .stop = stop_watch, .context = s, .accept = ACCEPT_OBJECT,
				 .timeout_ms = ms + times->grace_ms };
	s->bookmarks = false;
	s->read = OK;
	atomic_fetch_add(&s->watcher->reconnects, s->watches++ ? 1 : 0);
	result done = kube_stream(s->kube, buf_str(&path), &q, e);
	frames_release(&s->frames);
	if (s->read.ok)
		return done;
	set_version(s, NULL);
	*e = s->read_error;
	return FAILED;
}

/* --- The thread ------------------------------------------------------------------------------------------------- */

/* True when the resourceVersion can be resumed from: the stream broke, what came until then is known. Not for ever: it may
 * be one of a past that a restored etcd no longer has. */
static bool resumable(const struct stream *s, const struct err *why)
{
	bool broken = why->kind == ERR_IO || why->kind == ERR_TIMEOUT || why->kind == ERR_BUSY || why->kind == ERR_DENIED;
	return broken && s->failures < FAILURES_TO_LIST;
}

static void rest(struct stream *s, int64_t ms)
{
	struct watcher *w = s->watcher;
	int64_t until = clock_monotonic_ms() + ms;
	pthread_mutex_lock(&w->lock);
	for (int64_t left = ms; left > 0 && !stopping(s); left = until - clock_monotonic_ms())
		thread_cond_wait_ms(&w->woken, &w->lock, left);
	pthread_mutex_unlock(&w->lock);
}

/* The first failure in a row costs no time: servers end watches, and forget old versions, in good order. A server that says
 * something each time before it ends is not hurried either. */
static int64_t wait_after(struct stream *s, int64_t lasted_ms, const struct err *why)
{
	s->hasty = lasted_ms < HASTY_MS ? s->hasty : 0;
	int64_t ms = backoff_ms(s->failures > s->hasty ? s->failures : s->hasty, FIRST_WAIT_MS, LONGEST_WAIT_MS);
	int64_t asked = why->retry_after_ms < LONGEST_ASKED_WAIT_MS ? why->retry_after_ms : LONGEST_ASKED_WAIT_MS;
	s->failures++;
	s->hasty++;
	return ms < asked ? asked : ms;
}

static result attempt(struct stream *s, struct err *e)
{
	if (!s->version)
		TRY(list(s, e));
	return watch(s, e);
}

static void *run(void *context)
{
	struct stream *s = context;
	while (!stopping(s)) {
		struct err why = { 0 };
		int64_t begun_ms = clock_monotonic_ms();
		bool ended = attempt(s, &why).ok;
		if (stopping(s))
			break;
		if (!ended) {
			fails(s, &why);
			if (!resumable(s, &why))
				set_version(s, NULL);
		}
		rest(s, wait_after(s, clock_monotonic_ms() - begun_ms, &why));
	}
	return NULL;
}

/* --- Life cycle ------------------------------------------------------------------------------------------------- */

static void add_selector(struct buf *out, const char *name, const char *selector)
{
	if (!selector || !*selector)
		return;
	buf_addf(out, "&%s=", name);
	http_escape(selector, out);
}

static void stream_init(struct watcher *w, size_t i, const struct kube *k, const struct watch_target *t)
{
	struct buf selectors = BUF_INIT;
	add_selector(&selectors, "fieldSelector", t->field_selector);
	add_selector(&selectors, "labelSelector", t->label_selector);
	w->streams[i] = (struct stream){
		.watcher = w,
		.index = i,
		.kube = kube_clone(k),
		.path = str_dup(t->path),
		.selectors = buf_take(&selectors),
	};
}

static void stream_release(struct stream *s)
{
	kube_freep(&s->kube);
	str_freep(&s->path);
	str_freep(&s->selectors);
	str_freep(&s->version);
}

static result start_all(struct watcher *w, size_t n, struct err *e)
{
	for (; w->n < n; w->n++)
		TRY(thread_start("watch", run, &w->streams[w->n], &w->streams[w->n].thread, e));
	return OK;
}

result watcher_start_timed(const struct kube *k, const struct watch_target *targets, size_t n, const struct watch_times *times,
			   void (*changed)(void *context, size_t target), void *context, struct watcher **ret, struct err *e)
{
	struct watcher *w = mem_alloc(sizeof(*w));
	w->times = *times;
	w->streams = mem_alloc(n * sizeof(*w->streams));
	w->changed = changed;
	w->context = context;
	pthread_mutex_init(&w->lock, NULL);
	thread_cond_init(&w->woken);
	for (size_t i = 0; i < n; i++) /* all before the first thread: a client is cloned while nobody uses it */
		stream_init(w, i, k, &targets[i]);
	result started = start_all(w, n, e);
	if (!started.ok) {
		for (size_t i = w->n; i < n; i++)
			stream_release(&w->streams[i]);
		watcher_stopp(&w);
		return FAILED;
	}
	*ret = w;
	return OK;
}

result watcher_start(const struct kube *k, const struct watch_target *targets, size_t n, void (*changed)(void *context, size_t target),
		     void *context, struct watcher **ret, struct err *e)
{
	return watcher_start_timed(k, targets, n, &usual, changed, context, ret, e);
}

void watcher_stopp(struct watcher **w)
{
	struct watcher *old = *w;
	if (!old)
		return;
	pthread_mutex_lock(&old->lock);
	atomic_store(&old->stopping, true);
	pthread_cond_broadcast(&old->woken);
	pthread_mutex_unlock(&old->lock);
	for (size_t i = 0; i < old->n; i++) {
		pthread_join(old->streams[i].thread, NULL);
		stream_release(&old->streams[i]);
	}
	pthread_cond_destroy(&old->woken);
	pthread_mutex_destroy(&old->lock);
	free(old->streams);
	free(old);
	*w = NULL;
}

struct watch_counters watcher_counters(const struct watcher *w)
{
	return (struct watch_counters){
		.events = atomic_load(&w->events),
		.relists = atomic_load(&w->relists),
		.errors = atomic_load(&w->errors),
		.reconnects = atomic_load(&w->reconnects),
	};
}

bool watcher_failing(struct watcher *w, struct err *ret)
{
	bool failing = false;
	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < w->n && !failing; i++) {
		failing = w->streams[i].failed;
		if (failing)
			*ret = w->streams[i].why;
	}
	pthread_mutex_unlock(&w->lock);
	return failing;
}
