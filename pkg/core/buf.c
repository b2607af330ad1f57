#define _DEFAULT_SOURCE /* explicit_bzero */

#include "buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static size_t cap_of(const struct buf *b)
{
	return b->cap ? b->cap : BUF_CAP_DEFAULT;
}

/* realloc would leave the old bytes behind in the heap. */
static void move_secret(struct buf *b, size_t size)
{
	char *moved = mem_alloc(size);
	if (b->data) {
		memcpy(moved, b->data, b->len);
		explicit_bzero(b->data, b->size);
		free(b->data);
	}
	b->data = moved;
}

/* Room for n more bytes and the '\0'. False, and overflow set, when that is over the cap. */
static bool reserve(struct buf *b, size_t n)
{
	size_t cap = cap_of(b);
	if (b->overflow || n > cap || b->len > cap - n) {
		b->overflow = true;
		return false;
	}
	size_t want = b->len + n + 1;
	if (want <= b->size)
		return true;
	size_t size = b->size < 32 ? 64 : b->size * 2;
	if (size > cap + 1)
		size = cap + 1;
	if (size < want)
		size = want;
	if (b->secret)
		move_secret(b, size);
	else
		b->data = mem_realloc(b->data, size, 1);
	b->size = size;
	return true;
}

void buf_add(struct buf *b, const void *bytes, size_t n)
{
	if (!reserve(b, n))
		return;
	if (n)
		memcpy(b->data + b->len, bytes, n);
	b->len += n;
	b->data[b->len] = '\0';
}

void buf_add_str(struct buf *b, const char *s)
{
	buf_add(b, s, strlen(s));
}

void buf_add_char(struct buf *b, char c)
{
	buf_add(b, &c, 1);
}

void buf_addf(struct buf *b, const char *format, ...)
{
	va_list args, again;
	va_start(args, format);
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n < 0) {
		b->overflow = true;
	} else if (reserve(b, (size_t)n)) {
		(void)vsnprintf(b->data + b->len, (size_t)n + 1, format, again);
		b->len += (size_t)n;
	}
	va_end(again);
}

void buf_clear(struct buf *b)
{
	if (b->secret && b->data)
		explicit_bzero(b->data, b->size);
	if (b->data)
		b->data[0] = '\0';
	b->len = 0;
	b->overflow = false;
}

void buf_consume(struct buf *b, size_t n)
{
	if (n >= b->len) {
		bool overflow = b->overflow;
		buf_clear(b);
		b->overflow = overflow;
		return;
	}
	size_t rest = b->len - n;
	memmove(b->data, b->data + n, rest + 1);
	if (b->secret)
		explicit_bzero(b->data + rest + 1, n);
	b->len = rest;
}

void buf_release(struct buf *b)
{
	if (b->secret && b->data)
		explicit_bzero(b->data, b->size);
	free(b->data);
	*b = (struct buf){ .cap = b->cap, .secret = b->secret };
}

const char *buf_str(const struct buf *b)
{
	return b->data ? b->data : "";
}

char *buf_take(struct buf *b)
{
	char *text = b->data ? b->data : mem_alloc(1);
	*b = (struct buf){ .cap = b->cap, .secret = b->secret };
	return text;
}

/* --- Lists of strings ------------------------------------------------------------------------ */

static void strs_add_taken(struct strs *l, char *taken)
{
	if (l->n == l->size) {
		l->size = l->size ? l->size * 2 : 8;
		l->items = mem_realloc(l->items, l->size, sizeof(*l->items));
	}
	l->items[l->n++] = taken;
}

void strs_add(struct strs *l, const char *s)
{
	strs_add_taken(l, str_dup(s));
}

void strs_addf(struct strs *l, const char *format, ...)
{
	va_list args, again;
	va_start(args, format);
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	size_t size = n < 0 ? 1 : (size_t)n + 1;
	char *text = mem_alloc(size);
	(void)vsnprintf(text, size, format, again);
	va_end(again);
	strs_add_taken(l, text);
}

bool strs_has(const struct strs *l, const char *s)
{
	for (size_t i = 0; i < l->n; i++)
		if (str_eq(l->items[i], s))
			return true;
	return false;
}

void strs_release(struct strs *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->items[i]);
	free(l->items);
	*l = (struct strs){ 0 };
}
