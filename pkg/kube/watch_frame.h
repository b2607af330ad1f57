/* The inside of a watch stream: one JSON object {"type", "object"} a line (API Concepts; metav1.WatchEvent). Pure.
 *
 * Invariants
 * - Lines may be cut anywhere by what carries them. A frame is at most FRAME_MAX bytes without its newline.
 */
#ifndef WATCH_FRAME_H
#define WATCH_FRAME_H

#include "json.h"

#define FRAME_MAX ((size_t)4 << 20)

/* What came of a frame that is not whole yet. A zeroed struct is ready; frames_release frees it. */
struct frames {
	struct buf rest;
};
void frames_release(struct frames *f);
/* Calls `each` with every frame that these bytes complete, in order; empty lines are passed over. FAILED as soon as `each`
 * is, or ERR_INPUT: a frame over FRAME_MAX. After that the stream can't be gone on with. */
result frames_feed(struct frames *f, const char *bytes, size_t n,
		   result (*each)(void *context, const char *frame, size_t len, struct err *e), void *context,
		   struct err *e) MUST_CHECK;

enum frame_kind {
	FRAME_CHANGE,   /* ADDED, MODIFIED, DELETED */
	FRAME_BOOKMARK,
	FRAME_OTHER,    /* a type that is not known: passed over */
};
/* What a frame says. ret_version: metadata.resourceVersion of its object, NULL where there is none; caller frees. An ERROR
 * frame is an error with its Status's message: ERR_EXPIRED for 410, ERR_BUSY for 429 and 503, else ERR_IO. ERR_INPUT: not
 * JSON, no type. */
result frame_read(const char *frame, size_t len, enum frame_kind *ret_kind, char **ret_version, struct err *e) MUST_CHECK;

#endif
