/* Watches: they only say that something changed; who wants to know what, reads.
 * (Kubernetes API Concepts, "Efficient detection of changes".)
 *
 * Invariants
 * - Each target has a thread and a connection of its own. It asks for a list of one (metadata only) to find the
 *   resourceVersion, watches with bookmarks and a timeoutSeconds of 5 to 10 minutes, resumes from the last resourceVersion
 *   (an opaque string), lists again after 410 or any other ERROR event, backs off with jitter after errors (to 30 s).
 * - A stalled stream is ended and resumed: no byte for 150 s where bookmarks had come (API servers send them every
 *   minute), and in any case 90 s beyond the server's timeout.
 * - After any gap that could have hidden an event the callback is called once; so also when a target's first list is there.
 * - Nothing is retained of the objects but the resourceVersion; a frame is at most 4 MiB.
 */
#ifndef WATCH_H
#define WATCH_H

#include "client.h"

struct watcher;
struct watch_target {
	const char *path;            /* "/api/v1/pods" */
	const char *field_selector, *label_selector; /* NULL: none */
};
/* Starts the threads. `changed` is called in them, also by several at once, with the target's index, once for all events
 * that came together; it must be short (wake somebody) and must not stop the watcher. Targets are copied; k is borrowed
 * for the call only. ERR_BUSY. */
result watcher_start(const struct kube *k, const struct watch_target *targets, size_t n, void (*changed)(void *context, size_t target),
		     void *context, struct watcher **ret, struct err *e) MUST_CHECK;
/* The same with other times, for who can't wait so long (tests). */
struct watch_times {
	int64_t server_timeout_ms; /* to twice that, at random; whole seconds are asked for */
	int64_t grace_ms;          /* beyond it, until we end the watch */
	int64_t silence_ms;        /* where bookmarks had come */
};
result watcher_start_timed(const struct kube *k, const struct watch_target *targets, size_t n, const struct watch_times *times,
			   void (*changed)(void *context, size_t target), void *context, struct watcher **ret,
			   struct err *e) MUST_CHECK;
void watcher_stopp(struct watcher **w); /* ends the threads, within about a second; cleanup(watcher_stopp) */
/* events: changes seen. relists: lists after the first of each target. errors: failed attempts. reconnects: watches after
 * the first of each target. */
struct watch_counters { uint64_t events, relists, errors, reconnects; };
struct watch_counters watcher_counters(const struct watcher *w);
/* True while a target's last attempt failed and nothing was heard since; ret says which and why (of the first such). */
bool watcher_failing(struct watcher *w, struct err *ret);
#endif
