/* Watches: they only say that something changed; who wants to know what, reads.
 *
 * Invariants
 * - A watcher thread runs all its watches on connections of their own. It lists (metadata only) to find the resourceVersion, watches
 *   with bookmarks, resumes from the last resourceVersion, lists again after 410, backs off with jitter after errors.
 * - A stalled stream (no byte, bookmarks included, for 90 s beyond the server's timeout) is ended and resumed.
 * - After any gap that could have hidden an event the callback is called once.
 */
#ifndef WATCH_H
#define WATCH_H

#include "client.h"

struct watcher;
struct watch_target {
	const char *path;            /* "/api/v1/pods" */
	const char *field_selector, *label_selector; /* NULL: none */
};
/* Starts a thread. `changed` is called in that thread with the target's index; it must be short (wake somebody). Targets are copied. */
result watcher_start(const struct kube *k, const struct watch_target *targets, size_t n, void (*changed)(void *context, size_t target),
		     void *context, struct watcher **ret, struct err *e) MUST_CHECK;
void watcher_stopp(struct watcher **w); /* ends the thread; cleanup(watcher_stopp) */
struct watch_counters { uint64_t events, relists, errors, reconnects; };
struct watch_counters watcher_counters(const struct watcher *w);
#endif
