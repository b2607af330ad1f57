/* JSON, by cJSON; the only module that knows cJSON's header.
 *
 * Invariants
 * - Names are compared with case. Trailing bytes after a document are an error. Depth is capped at 64, size by the caller's buf.
 *   What is not UTF-8, holds a zero byte (escaped or not), or names a member twice is refused: readers differ on it.
 * - A `const struct json *` is borrowed from its document and dies with it. Every getter takes NULL for "not there"
 *   and answers NULL, 0 or the default, so that paths can be walked without checks; a *wrong type* counts as not there.
 * - Integers are exact up to 2^53; larger ones must be strings (Kubernetes' own rule for int64 in JSON clients).
 */
#ifndef JSON_H
#define JSON_H

#include "buf.h"

struct json; /* opaque */

/* --- Life cycle ------------------------------------------------------------------------------------------------ */
result json_parse(const char *text, size_t len, struct json **ret, struct err *e) MUST_CHECK; /* ERR_INPUT, with the offset */
void json_freep(struct json **j);            /* cleanup(json_freep) */
/* Says that the document held Secrets: all its memory is overwritten before it is freed. cleanup(json_wipep) */
void json_wipep(struct json **j);
struct json *json_copy(const struct json *j) __attribute__((returns_nonnull));

/* --- Reading --------------------------------------------------------------------------------------------------- */
const struct json *json_get(const struct json *j, const char *name);
/* Walks object names: json_at(j, "metadata", "labels", NULL). */
const struct json *json_at(const struct json *j, ...) __attribute__((sentinel));
const struct json *json_index(const struct json *array, size_t i); /* linear: use json_each in loops */
size_t json_len(const struct json *array_or_object);
const char *json_str(const struct json *j);                       /* NULL when it is not a string */
const char *json_str_or(const struct json *j, const char *otherwise);
int64_t json_int(const struct json *j, int64_t otherwise);
bool json_bool(const struct json *j, bool otherwise);
bool json_is_object(const struct json *j);
bool json_is_array(const struct json *j);
bool json_is_null(const struct json *j);
/* Shorthand: json_get + json_str / json_int / json_bool. */
const char *json_get_str(const struct json *j, const char *name);
int64_t json_get_int(const struct json *j, const char *name, int64_t otherwise);
bool json_get_bool(const struct json *j, const char *name, bool otherwise);
bool json_equal(const struct json *a, const struct json *b);      /* order of names does not matter */
/* Iterates items of arrays and members of objects. */
const struct json *json_first(const struct json *j);
const struct json *json_next(const struct json *item);
const char *json_name(const struct json *member);                 /* the member's name; NULL in arrays */
/* NOLINTBEGIN(bugprone-macro-parentheses): item is declared here */
#define json_each(item, parent) \
	for (const struct json *item = json_first(parent); item; item = json_next(item))
/* NOLINTEND(bugprone-macro-parentheses) */

/* --- Building (names and values are copied; sub-documents are taken over; not UTF-8 becomes U+FFFD) --------------- */
struct json *json_object(void) __attribute__((returns_nonnull));
struct json *json_array(void) __attribute__((returns_nonnull));
struct json *json_string(const char *s) __attribute__((returns_nonnull));
struct json *json_number(int64_t n) __attribute__((returns_nonnull));
struct json *json_boolean(bool b) __attribute__((returns_nonnull));
struct json *json_null(void) __attribute__((returns_nonnull));
void json_set(struct json *object, const char *name, struct json *value_taken); /* replaces */
void json_set_str(struct json *object, const char *name, const char *value);    /* NULL value: nothing is set */
void json_set_int(struct json *object, const char *name, int64_t value);
void json_set_bool(struct json *object, const char *name, bool value);
void json_remove(struct json *object, const char *name);
void json_add(struct json *array, struct json *value_taken);
void json_add_str(struct json *array, const char *value);
/* The member, made as an empty object (array) when it is not there. */
struct json *json_ensure_object(struct json *object, const char *name);
struct json *json_ensure_array(struct json *object, const char *name);
/* Mutable view of a member, NULL when absent. */
struct json *json_get_mut(struct json *object, const char *name);

/* --- Printing -------------------------------------------------------------------------------------------------- */
void json_print(const struct json *j, struct buf *out);         /* compact, appended */
void json_print_pretty(const struct json *j, struct buf *out);  /* for people */
char *json_text(const struct json *j);                          /* compact; caller frees */

#endif
