/* Answers from the past: an API server that lags behind the others, or its cache behind etcd, shows what was, and a list that lacks what
 * was made since is the most convincing of errors.
 *
 * Invariants
 * - Versions are compared under one key (a path) only: different kinds may be in different stores. Within one they grow (KEP-5504:
 *   resourceVersions are integers that can be compared). What is no number is never of the past.
 * - A past that stays is the present: after a minute without anything newer, as when etcd was restored, it is believed.
 */
#ifndef PAST_H
#define PAST_H

#include "base.h"

#define PAST_BELIEVED_MS 60000

struct past;
struct past *past_new(void) __attribute__((returns_nonnull));
void past_freep(struct past **p);
/* True when the version is older than the newest that was seen under the key. now_ms: monotonic. */
bool past_is(struct past *p, const char *key, const char *version, int64_t now_ms);
/* What was written: from now on what is older is past. */
void past_note(struct past *p, const char *key, const char *version);

#endif
