/* Results, errors, ownership.
 *
 * Invariants
 * - A fallible function returns `result` (must be used) and takes `struct err *e` last. On failure it has filled e
 *   and has left every `ret_` output untouched; on success it leaves e untouched.
 * - Library code never logs and never exits, with one exception: out of memory ends the process with one static line.
 *   Every input is capped, so a cluster cannot cause it.
 * - Memory is freed by `cleanup(fn)` on the variable that owns it. `const` pointers are borrowed.
 */
#ifndef BASE_H
#define BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define cleanup(fn) __attribute__((cleanup(fn)))
#define UNUSED __attribute__((unused))

/* --- Results ------------------------------------------------------------------------------------------------- */

/* A struct, so that it can be mistaken neither for a boolean nor for an errno. */
typedef struct result {
	bool ok;
} result;

#define OK ((result){ true })
#define FAILED ((result){ false })

/* Leaves the function with FAILED when the expression failed. */
#define TRY(expr)                              \
	do {                                   \
		if (!(expr).ok)                \
			return FAILED;         \
	} while (0)

/* Ditto, after putting a context in front of the message: "reading ca.crt: no such file". */
#define TRY_CTX(expr, e, ...)                          \
	do {                                           \
		if (!(expr).ok)                        \
			return err_wrap(e, __VA_ARGS__); \
	} while (0)

/* What the caller may do about it; everything else is in the message. */
enum err_kind {
	ERR_OTHER,     /* no better word */
	ERR_INPUT,     /* malformed or over a limit: trying again is useless until the input changes */
	ERR_NOT_FOUND, /* the object or file is not there (and that is known, not guessed) */
	ERR_CONFLICT,  /* a precondition did not hold: HTTP 409, or a name already taken */
	ERR_DENIED,    /* HTTP 401, 403; EACCES, EPERM */
	ERR_EXPIRED,   /* HTTP 410: list again */
	ERR_BUSY,      /* HTTP 429, 503: after err.retry_after_ms */
	ERR_IO,        /* connection, file system: try again */
	ERR_TIMEOUT,   /* the bound on a wait ran out; nothing is known */
};

#define ERR_MESSAGE_SIZE 512

struct err {
	enum err_kind kind;
	int64_t retry_after_ms; /* with ERR_BUSY, else 0 */
	char message[ERR_MESSAGE_SIZE];
};

/* Fills e; returns FAILED, so that `return err_set(…)` ends a function. A message over the size is cut. */
result err_set(struct err *e, enum err_kind kind, const char *format, ...) PRINTF_LIKE(3, 4);
/* Ditto from errno: appends ": " and strerror, picks the kind. */
result err_errno(struct err *e, const char *format, ...) PRINTF_LIKE(2, 3);
/* Puts "context: " in front of e's message. Returns FAILED. */
result err_wrap(struct err *e, const char *format, ...) PRINTF_LIKE(2, 3);
/* Lets compilers and analysers see that the answer is FAILED, always. */
#define err_set(...) (__extension__({ (void)(err_set)(__VA_ARGS__); FAILED; }))
#define err_errno(...) (__extension__({ (void)(err_errno)(__VA_ARGS__); FAILED; }))
#define err_wrap(...) (__extension__({ (void)(err_wrap)(__VA_ARGS__); FAILED; }))

/* --- Memory (these end the process when there is none) --------------------------------------------------------- */

void *mem_alloc(size_t size) __attribute__((malloc, alloc_size(1), returns_nonnull));       /* zeroed */
void *mem_realloc(void *p, size_t n, size_t size) __attribute__((alloc_size(2, 3), returns_nonnull));
char *str_dup(const char *s) __attribute__((malloc, returns_nonnull));
char *str_ndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
char *str_printf(const char *format, ...) PRINTF_LIKE(1, 2) __attribute__((malloc, returns_nonnull));

/* cleanup(str_freep): for a `char *` variable; NULL is fine. */
void str_freep(char **s);
/* Overwrites before it frees: for a `char *` that held a key or a token. */
void secret_freep(char **s);
/* Takes the value out of an owning variable, which is NULL afterwards: `return steal(&s);`. */
#define steal(pp)                                  \
	__extension__({                            \
		__typeof__(*(pp)) stolen_ = *(pp); \
		*(pp) = NULL;                      \
		stolen_;                           \
	})

/* --- Strings --------------------------------------------------------------------------------------------------- */

static inline bool str_eq(const char *a, const char *b)
{
	if (!a || !b)
		return a == b;
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
/* How many bytes of s fit into `most` without cutting a character of UTF-8. */
size_t str_cut(const char *s, size_t most);
/* Copies with truncation; dst is always terminated. */
void str_copy(char *dst, size_t dst_size, const char *src);

/* --- Time ------------------------------------------------------------------------------------------------------ */

/* Milliseconds since the epoch (CLOCK_REALTIME); and of a clock that never jumps. Not for the pure core. */
int64_t clock_now_ms(void);
int64_t clock_monotonic_ms(void);
/* RFC 3339 "2026-01-02T03:04:05Z" (fractions and offsets accepted on reading). ERR_INPUT. */
void time_format(int64_t ms, char ret_text[static 32]);
void time_format_micro(int64_t ms, char ret_text[static 40]); /* metav1.MicroTime, for Leases */
result time_parse(const char *text, int64_t *ret_ms, struct err *e) MUST_CHECK;

#endif
