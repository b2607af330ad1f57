#include "log.h"

#include "buf.h"
#include "json.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

/* Written by log_init before there is a second thread. */
static enum log_format the_format = LOG_JSON;
static enum log_level the_least = LOG_INFO;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *const level_names[] = {
	[LOG_DEBUG] = "debug",
	[LOG_INFO] = "info",
	[LOG_WARN] = "warn",
	[LOG_ERROR] = "error",
};

void log_init(enum log_format format, enum log_level least)
{
	the_format = format;
	the_least = least;
}

/* A line that can't be written is lost: there is nobody left to tell. */
static void write_line(const struct buf *line)
{
	(void)pthread_mutex_lock(&lock);
	for (size_t at = 0; at < line->len;) {
		ssize_t n = write(STDERR_FILENO, line->data + at, line->len - at);
		if (n < 0 && errno != EINTR)
			break;
		at += n > 0 ? (size_t)n : 0;
	}
	(void)pthread_mutex_unlock(&lock);
}

/* Bare where nothing in it could be taken for something else; as a JSON string otherwise. */
static void add_text_value(struct buf *line, const struct json *value)
{
	const char *text = json_str_or(value, "");
	bool bare = *text;
	for (const char *c = text; *c && bare; c++)
		bare = isgraph((unsigned char)*c) && *c != '"' && *c != '=' && *c != '\\';
	if (bare)
		buf_add_str(line, text);
	else
		json_print(value, line);
}

static bool is_heading(const char *name)
{
	return str_eq(name, "ts") || str_eq(name, "level") || str_eq(name, "msg");
}

/* 2026-01-02T03:04:05.678000Z info  phase begins  phase=TrustingBoth */
static void add_text(struct buf *line, const struct json *record)
{
	buf_addf(line, "%s %-5s %s", json_get_str(record, "ts"), json_get_str(record, "level"),
		 json_get_str(record, "msg"));
	json_each(pair, record) {
		if (is_heading(json_name(pair)))
			continue;
		buf_addf(line, "  %s=", json_name(pair));
		add_text_value(line, pair);
	}
}

static struct json *record_new(enum log_level level, const char *message)
{
	char now[40];
	time_format_micro(clock_now_ms(), now);
	struct json *record = json_object();
	json_set_str(record, "ts", now);
	json_set_str(record, "level", level_names[level]);
	json_set_str(record, "msg", message);
	return record;
}

static void record_write(const struct json *record)
{
	struct buf line cleanup(buf_release) = BUF_INIT;
	if (the_format == LOG_JSON)
		json_print(record, &line);
	else
		add_text(&line, record);
	buf_add_char(&line, '\n');
	write_line(&line);
}

void log_line(enum log_level level, const char *message, ...)
{
	if (level < the_least)
		return;
	struct json *record cleanup(json_freep) = record_new(level, message);
	va_list pairs;
	va_start(pairs, message);
	for (const char *name; (name = va_arg(pairs, const char *));) {
		const char *value = va_arg(pairs, const char *);
		if (!is_heading(name))
			json_set_str(record, name, value);
	}
	va_end(pairs);
	record_write(record);
}

void log_err(enum log_level level, const char *message, const struct err *e)
{
	log_line(level, message, "error", e->message, NULL);
}
