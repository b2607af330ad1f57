/* A growable string of bytes, and the list of strings.
 *
 * Invariants
 * - data[len] is always '\0' once anything was added; data may hold zero bytes too.
 * - A buf never grows over its cap; what would not fit sets `overflow` and is dropped whole, and so is
 *   everything after it until buf_clear: what is there is always a beginning. Check it where input is hostile.
 * - A buf that is `secret` overwrites its memory whenever it moves or is released. Keys and tokens live in nothing else.
 */
#ifndef BUF_H
#define BUF_H

#include "base.h"

#define BUF_CAP_DEFAULT ((size_t)16 << 20)

struct buf {
	char *data;
	size_t len, size, cap;
	bool overflow, secret;
};

/* cap 0 means BUF_CAP_DEFAULT; so a zeroed struct buf is ready to use. */
#define BUF_INIT ((struct buf){ 0 })
#define BUF_SECRET ((struct buf){ .secret = true })

void buf_add(struct buf *b, const void *bytes, size_t n);
void buf_add_str(struct buf *b, const char *s);
void buf_add_char(struct buf *b, char c);
void buf_addf(struct buf *b, const char *format, ...) PRINTF_LIKE(2, 3);
void buf_clear(struct buf *b);              /* empty, memory kept (wiped when secret) */
void buf_consume(struct buf *b, size_t n);  /* drops the first n bytes */
void buf_release(struct buf *b);            /* cleanup(buf_release) */
/* The text, never NULL; valid until the next change. */
const char *buf_str(const struct buf *b);
/* Takes the text out (caller frees, secret_freep where it was secret); b is empty afterwards. */
char *buf_take(struct buf *b);

/* A list of owned strings. A zeroed struct is empty. */
struct strs {
	char **items;
	size_t n, size;
};
void strs_add(struct strs *l, const char *s);
void strs_addf(struct strs *l, const char *format, ...) PRINTF_LIKE(2, 3);
bool strs_has(const struct strs *l, const char *s);
void strs_release(struct strs *l);          /* cleanup(strs_release) */

#endif
