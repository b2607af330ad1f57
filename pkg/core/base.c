#define _DEFAULT_SOURCE /* explicit_bzero, timegm */

#include "base.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- Errors ---------------------------------------------------------------------------------- */

/* A message that was cut in the middle of a UTF-8 character would spoil the JSON it ends up in. */
static void message_trim(char *message, size_t len)
{
	size_t start = len;
	while (start > 0 && ((unsigned char)message[start - 1] & 0xC0) == 0x80)
		start--;
	if (start == 0 || (unsigned char)message[start - 1] < 0xC0)
		return;
	unsigned char lead = (unsigned char)message[start - 1];
	size_t want = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
	if (len - start < want)
		message[start - 1] = '\0';
}

/* text may quote the message that it replaces, so it is a buffer of its own. */
static void message_replace(struct err *e, const char *text, int printed)
{
	str_copy(e->message, sizeof(e->message), text);
	if (printed >= (int)sizeof(e->message))
		message_trim(e->message, strlen(e->message));
}

result(err_set)(struct err *e, enum err_kind kind, const char *format, ...)
{
	char text[ERR_MESSAGE_SIZE] = "";
	va_list args;
	va_start(args, format);
	int n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	message_replace(e, text, n);
	e->kind = kind;
	e->retry_after_ms = 0;
	return FAILED;
}

static enum err_kind kind_of_errno(int number)
{
	switch (number) {
	case ENOENT:
		return ERR_NOT_FOUND;
	case EEXIST:
	case ENOTEMPTY:
		return ERR_CONFLICT;
	case EACCES:
	case EPERM:
		return ERR_DENIED;
	case EAGAIN:
	case EBUSY:
		return ERR_BUSY;
	case ETIMEDOUT:
		return ERR_TIMEOUT;
	case ENOTDIR:
	case EISDIR:
	case ELOOP:
	case ENAMETOOLONG:
	case EXDEV:
	case EINVAL:
		return ERR_INPUT;
	default:
		return ERR_IO;
	}
}

result(err_errno)(struct err *e, const char *format, ...)
{
	int number = errno;
	char what[ERR_MESSAGE_SIZE] = "";
	va_list args;
	va_start(args, format);
	(void)vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	char why[128] = "";
	if (strerror_r(number, why, sizeof(why)) != 0)
		(void)snprintf(why, sizeof(why), "error %d", number);
	return err_set(e, kind_of_errno(number), "%s: %s", what, why);
}

result(err_wrap)(struct err *e, const char *format, ...)
{
	char context[ERR_MESSAGE_SIZE] = "";
	va_list args;
	va_start(args, format);
	(void)vsnprintf(context, sizeof(context), format, args);
	va_end(args);
	char text[2 * ERR_MESSAGE_SIZE + 4] = "";
	int n = snprintf(text, sizeof(text), "%s: %s", context, e->message);
	message_replace(e, text, n);
	return FAILED;
}

/* --- Memory ---------------------------------------------------------------------------------- */

/* One static line: nothing here may allocate. */
static _Noreturn void die_out_of_memory(void)
{
	static const char line[] = "out of memory\n";
	ssize_t ignored = write(STDERR_FILENO, line, sizeof(line) - 1);
	(void)ignored;
	abort();
}

void *mem_alloc(size_t size)
{
	void *p = calloc(1, size ? size : 1);
	if (!p)
		die_out_of_memory();
	return p;
}

void *mem_realloc(void *p, size_t n, size_t size)
{
	size_t total = 0;
	if (__builtin_mul_overflow(n, size, &total))
		die_out_of_memory();
	void *moved = realloc(p, total ? total : 1);
	if (!moved)
		die_out_of_memory();
	return moved;
}

char *str_ndup(const char *s, size_t n)
{
	size_t len = strnlen(s, n);
	char *copy = mem_alloc(len + 1);
	memcpy(copy, s, len);
	return copy;
}

char *str_dup(const char *s)
{
	return str_ndup(s, strlen(s));
}

char *str_printf(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	va_list again;
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	size_t size = n < 0 ? 1 : (size_t)n + 1;
	char *text = mem_alloc(size);
	(void)vsnprintf(text, size, format, again);
	va_end(again);
	return text;
}

void str_freep(char **s)
{
	free(*s);
	*s = NULL;
}

void secret_freep(char **s)
{
	if (*s)
		explicit_bzero(*s, strlen(*s));
	str_freep(s);
}

/* --- Strings --------------------------------------------------------------------------------- */

bool str_starts(const char *s, const char *prefix)
{
	return s && prefix && strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_ends(const char *s, const char *suffix)
{
	if (!s || !suffix)
		return false;
	size_t len = strlen(s), tail = strlen(suffix);
	return len >= tail && memcmp(s + len - tail, suffix, tail) == 0;
}

size_t str_cut(const char *s, size_t most)
{
	size_t n = strnlen(s, most);
	bool whole = n < most || !s[n];
	while (!whole && n && ((unsigned char)s[n] & 0xC0) == 0x80)
		n--;
	return n;
}

void str_copy(char *dst, size_t dst_size, const char *src)
{
	if (dst_size == 0)
		return;
	size_t len = strnlen(src, dst_size - 1);
	memmove(dst, src, len);
	dst[len] = '\0';
}

/* --- Time ------------------------------------------------------------------------------------ */

static int64_t clock_ms(clockid_t id)
{
	struct timespec ts = { 0 };
	(void)clock_gettime(id, &ts); /* cannot fail for these two clocks */
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t clock_now_ms(void)
{
	return clock_ms(CLOCK_REALTIME);
}

int64_t clock_monotonic_ms(void)
{
	return clock_ms(CLOCK_MONOTONIC);
}

/* RFC 3339 5.6 has four digits for the year. */
#define TIME_FIRST_MS (-62167219200000) /* 0000-01-01T00:00:00Z */
#define TIME_LAST_MS 253402300799999    /* 9999-12-31T23:59:59.999Z */

struct moment {
	struct tm tm;
	int ms;
};

static struct moment moment_of(int64_t ms)
{
	int64_t clamped = ms < TIME_FIRST_MS ? TIME_FIRST_MS : ms > TIME_LAST_MS ? TIME_LAST_MS : ms;
	int64_t rest = clamped % 1000;
	if (rest < 0)
		rest += 1000;
	time_t seconds = (time_t)((clamped - rest) / 1000);
	struct moment m = { .ms = (int)rest };
	(void)gmtime_r(&seconds, &m.tm);
	return m;
}

void time_format(int64_t ms, char ret_text[static 32])
{
	struct moment m = moment_of(ms);
	(void)snprintf(ret_text, 32, "%04u-%02u-%02uT%02u:%02u:%02uZ",
		       (unsigned)(m.tm.tm_year + 1900) % 10000U, (unsigned)(m.tm.tm_mon + 1) % 100U,
		       (unsigned)m.tm.tm_mday % 100U, (unsigned)m.tm.tm_hour % 100U,
		       (unsigned)m.tm.tm_min % 100U, (unsigned)m.tm.tm_sec % 100U);
}

void time_format_micro(int64_t ms, char ret_text[static 40])
{
	char whole[32];
	time_format(ms, whole);
	whole[strlen(whole) - 1] = '\0';
	(void)snprintf(ret_text, 40, "%s.%03u000Z", whole, (unsigned)moment_of(ms).ms % 1000U);
}

/* Takes exactly `digits` decimal digits from *text. */
static bool take_digits(const char **text, int digits, int least, int most, int *ret_value)
{
	int value = 0;
	for (int i = 0; i < digits; i++) {
		char c = (*text)[i];
		if (c < '0' || c > '9')
			return false;
		value = value * 10 + (c - '0');
	}
	if (value < least || value > most)
		return false;
	*text += digits;
	*ret_value = value;
	return true;
}

static bool take_char(const char **text, char c, char or_else)
{
	if (**text == '\0' || (**text != c && **text != or_else))
		return false;
	(*text)++;
	return true;
}

/* "2026-01-02" */
static bool take_date(const char **text, struct tm *tm)
{
	if (!take_digits(text, 4, 0, 9999, &tm->tm_year) || !take_char(text, '-', '-') ||
	    !take_digits(text, 2, 1, 12, &tm->tm_mon) || !take_char(text, '-', '-') ||
	    !take_digits(text, 2, 1, 31, &tm->tm_mday))
		return false;
	tm->tm_year -= 1900;
	tm->tm_mon -= 1;
	return true;
}

/* "03:04:05"; leap seconds are refused, as Go does. */
static bool take_clock(const char **text, struct tm *tm)
{
	return take_digits(text, 2, 0, 23, &tm->tm_hour) && take_char(text, ':', ':') &&
	       take_digits(text, 2, 0, 59, &tm->tm_min) && take_char(text, ':', ':') &&
	       take_digits(text, 2, 0, 59, &tm->tm_sec);
}

/* ".123456": what is finer than a millisecond is cut. */
static bool take_fraction(const char **text, int *ret_ms)
{
	*ret_ms = 0;
	if (!take_char(text, '.', '.'))
		return true;
	int digit = 0, weight = 100, digits = 0;
	for (; take_digits(text, 1, 0, 9, &digit); digits++) {
		*ret_ms += digit * weight;
		weight /= 10;
	}
	return digits > 0;
}

/* "Z", "+01:00" */
static bool take_offset(const char **text, int *ret_minutes)
{
	*ret_minutes = 0;
	if (take_char(text, 'Z', 'z'))
		return true;
	int sign = **text == '-' ? -1 : 1, hours = 0, minutes = 0;
	if (!take_char(text, '+', '-') || !take_digits(text, 2, 0, 23, &hours) ||
	    !take_char(text, ':', ':') || !take_digits(text, 2, 0, 59, &minutes))
		return false;
	*ret_minutes = sign * (hours * 60 + minutes);
	return true;
}

result time_parse(const char *text, int64_t *ret_ms, struct err *e)
{
	struct tm tm = { 0 };
	int ms = 0, offset = 0;
	const char *at = text;
	if (!take_date(&at, &tm) || !take_char(&at, 'T', 't') || !take_clock(&at, &tm) ||
	    !take_fraction(&at, &ms) || !take_offset(&at, &offset) || *at)
		return err_set(e, ERR_INPUT, "\"%.64s\" is not a time like 2026-01-02T03:04:05Z", text);
	int day = tm.tm_mday;
	int64_t seconds = timegm(&tm);
	if (tm.tm_mday != day) /* timegm has turned 30 February into March */
		return err_set(e, ERR_INPUT, "\"%.64s\" names a day that does not exist", text);
	*ret_ms = (seconds - (int64_t)offset * 60) * 1000 + ms;
	return OK;
}
