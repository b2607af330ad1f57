/* LINK: kube */
/* The watch stream: however the bytes are cut by what carries them, the frames are the same; and a frame says one thing. */
#include "fuzz.h"

#include "watch_frame.h"

#include <stdlib.h>
#include <string.h>

struct seen {
	struct buf text; /* all frames, each with its length */
	size_t n, stop_at;
};

static result note(void *context, const char *frame, size_t len, struct err *e)
{
	struct seen *s = context;
	MUST(len && !memchr(frame, '\n', len));
	buf_addf(&s->text, "%zu:", len);
	buf_add(&s->text, frame, len);
	return ++s->n == s->stop_at ? err_set(e, ERR_OTHER, "enough") : OK;
}

/* In pieces of the given size, each in a block of its own. */
static bool feed(const char *bytes, size_t n, size_t piece, struct seen *s)
{
	struct frames f = { 0 };
	struct err e = { 0 };
	bool ok = true;
	for (size_t at = 0; ok && at < n; at += piece) {
		size_t len = n - at < piece ? n - at : piece;
		char *alone = mem_alloc(len);
		memcpy(alone, bytes + at, len);
		ok = frames_feed(&f, alone, len, note, s, &e).ok;
		free(alone);
	}
	frames_release(&f);
	MUST(ok || e.kind == ERR_OTHER);
	return ok;
}

static void check_pieces(const char *bytes, size_t n, size_t stop_at)
{
	static const size_t pieces[] = { 1, 2, 7, 64 };
	struct seen whole = { .stop_at = stop_at };
	bool ok = feed(bytes, n, n ? n : 1, &whole);
	for (size_t i = 0; i < ARRAY_LEN(pieces); i++) {
		struct seen cut = { .stop_at = stop_at };
		MUST(feed(bytes, n, pieces[i], &cut) == ok);
		MUST(cut.n == whole.n && cut.text.len == whole.text.len);
		MUST(memcmp(buf_str(&cut.text), buf_str(&whole.text), cut.text.len) == 0);
		buf_release(&cut.text);
	}
	buf_release(&whole.text);
}

static void check_frame(const char *frame, size_t len)
{
	enum frame_kind kind = FRAME_OTHER;
	char untouched[] = "untouched", *version = untouched;
	struct err e = { 0 };
	if (!frame_read(frame, len, &kind, &version, &e).ok) {
		MUST(version == untouched);
		MUST(e.kind == ERR_INPUT || e.kind == ERR_EXPIRED || e.kind == ERR_BUSY || e.kind == ERR_IO);
		fuzz_check_err(&e);
		return;
	}
	MUST(version != untouched && (!version || *version));
	free(version);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *bytes = (const char *)data;
	check_pieces(bytes, size, 0);
	check_pieces(bytes, size, 2);
	for (size_t at = 0; at < size;) {
		const char *end = memchr(bytes + at, '\n', size - at);
		size_t len = end ? (size_t)(end - bytes) - at : size - at;
		check_frame(bytes + at, len);
		at += len + 1;
	}
	return 0;
}
