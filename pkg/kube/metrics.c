#include "metrics.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void metrics_release(struct metrics *m)
{
	for (size_t i = 0; i < m->n; i++) {
		struct metric_family *f = &m->families[i];
		for (size_t j = 0; j < f->n; j++)
			str_freep(&f->samples[j].labels);
		free(f->samples);
		str_freep(&f->name);
		str_freep(&f->help);
	}
	free(m->families);
	*m = (struct metrics){ 0 };
}

/* --- Text ------------------------------------------------------------------------------------------------------- */

/* [a-zA-Z_][a-zA-Z0-9_]*, for metrics with colons too. */
static void add_name(const char *name, bool colon, struct buf *out)
{
	if (!*name || isdigit((unsigned char)*name))
		buf_add_char(out, '_');
	for (; *name; name++) {
		bool fine = isalnum((unsigned char)*name) || *name == '_' || (colon && *name == ':');
		buf_add_char(out, fine ? *name : '_');
	}
}

/* Length of the UTF-8 character at s (RFC 3629), 0: there is none. */
static size_t character(const unsigned char *s)
{
	static const struct { unsigned char from, to, second_from, second_to; size_t len; } forms[] = {
		{ 0x00, 0x7F, 0, 0, 1 },       { 0xC2, 0xDF, 0x80, 0xBF, 2 }, { 0xE0, 0xE0, 0xA0, 0xBF, 3 },
		{ 0xE1, 0xEC, 0x80, 0xBF, 3 }, { 0xED, 0xED, 0x80, 0x9F, 3 }, { 0xEE, 0xEF, 0x80, 0xBF, 3 },
		{ 0xF0, 0xF0, 0x90, 0xBF, 4 }, { 0xF1, 0xF3, 0x80, 0xBF, 4 }, { 0xF4, 0xF4, 0x80, 0x8F, 4 },
	};
	for (size_t i = 0; i < ARRAY_LEN(forms); i++) {
		if (*s < forms[i].from || *s > forms[i].to)
			continue;
		bool whole = forms[i].len == 1 || (s[1] >= forms[i].second_from && s[1] <= forms[i].second_to);
		for (size_t j = 2; whole && j < forms[i].len; j++)
			whole = (s[j] & 0xC0) == 0x80;
		return whole ? forms[i].len : 0;
	}
	return 0;
}

static void add_text(const char *text, bool quoted, struct buf *out)
{
	const unsigned char *s = (const unsigned char *)text;
	while (*s) {
		size_t len = character(s);
		if (!len)
			buf_add_str(out, "\xEF\xBF\xBD");
		else if (*s == '\n')
			buf_add_str(out, "\\n");
		else if (*s == '\\' || (quoted && *s == '"'))
			buf_addf(out, "\\%c", *s);
		else
			buf_add(out, s, len);
		s += len ? len : 1;
	}
}

/* As short as it can be and still be read back as the same number. */
static void add_number(double value, struct buf *out)
{
	char text[40];
	for (int digits = 15; digits <= 17; digits++) {
		(void)snprintf(text, sizeof(text), "%.*g", digits, value);
		if (!(strtod(text, NULL) < value) && !(strtod(text, NULL) > value))
			break;
	}
	buf_add_str(out, text);
}

static void add_value(double value, struct buf *out)
{
	if (isnan(value))
		buf_add_str(out, "NaN");
	else if (isinf(value))
		buf_add_str(out, value > 0 ? "+Inf" : "-Inf");
	else
		add_number(value, out);
}

static char *labels_text(va_list pairs)
{
	struct buf out = BUF_INIT;
	for (const char *name; (name = va_arg(pairs, const char *));) {
		const char *value = va_arg(pairs, const char *);
		buf_add_char(&out, out.len ? ',' : '{');
		add_name(name, false, &out);
		buf_add_str(&out, "=\"");
		add_text(value ? value : "", true, &out);
		buf_add_char(&out, '"');
	}
	if (out.len)
		buf_add_char(&out, '}');
	return buf_take(&out);
}

/* --- Building --------------------------------------------------------------------------------------------------- */

void metrics_family(struct metrics *m, const char *name, enum metric_kind kind, const char *help)
{
	struct buf clean cleanup(buf_release) = BUF_INIT;
	add_name(name, true, &clean);
	for (m->current = 0; m->current < m->n; m->current++)
		if (str_eq(m->families[m->current].name, buf_str(&clean)))
			return;
	if (m->n == m->size) {
		m->size = m->size ? 2 * m->size : 16;
		m->families = mem_realloc(m->families, m->size, sizeof(*m->families));
	}
	m->families[m->n++] = (struct metric_family){ .name = buf_take(&clean), .help = str_dup(help), .kind = kind };
}

static struct metric_sample *sample_place(struct metric_family *f, const char *labels)
{
	for (size_t i = 0; i < f->n; i++)
		if (str_eq(f->samples[i].labels, labels))
			return &f->samples[i];
	if (f->n == f->size) {
		f->size = f->size ? 2 * f->size : 4;
		f->samples = mem_realloc(f->samples, f->size, sizeof(*f->samples));
	}
	f->samples[f->n] = (struct metric_sample){ .labels = str_dup(labels) };
	return &f->samples[f->n++];
}

void metrics_sample(struct metrics *m, double value, ...)
{
	va_list pairs;
	va_start(pairs, value);
	char *labels cleanup(str_freep) = labels_text(pairs);
	va_end(pairs);
	if (m->current < m->n)
		sample_place(&m->families[m->current], labels)->value = value;
}

void metrics_single(struct metrics *m, const char *name, enum metric_kind kind, const char *help, double value)
{
	metrics_family(m, name, kind, help);
	metrics_sample(m, value, NULL);
}

static void family_print(const struct metric_family *f, struct buf *out)
{
	buf_addf(out, "# HELP %s ", f->name);
	add_text(f->help, false, out);
	buf_addf(out, "\n# TYPE %s %s\n", f->name, f->kind == METRIC_COUNTER ? "counter" : "gauge");
	for (size_t i = 0; i < f->n; i++) {
		buf_addf(out, "%s%s ", f->name, f->samples[i].labels);
		add_value(f->samples[i].value, out);
		buf_add_char(out, '\n');
	}
}

void metrics_print(const struct metrics *m, struct buf *out)
{
	for (size_t i = 0; i < m->n; i++)
		if (m->families[i].n)
			family_print(&m->families[i], out);
}
