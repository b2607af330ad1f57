#define _DEFAULT_SOURCE /* explicit_bzero */

#include "yaml.h"
#include "yaml_internal.h"

#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

/* --- What a plain scalar means ------------------------------------------------------------------ */

enum meaning { MEANS_STRING, MEANS_NULL, MEANS_BOOL, MEANS_NUMBER, MEANS_OTHER };

/* The types of YAML 1.1 (yaml.org/type), for that is what Kubernetes' parser (go-yaml v2) reads; 1.2 has fewer. */
static const struct {
	enum meaning meaning;
	const char *pattern;
} meanings[] = {
	{ MEANS_NULL, "^(~|null|Null|NULL|)$" },
	{ MEANS_BOOL, "^(y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$" },
	{ MEANS_NUMBER, "^[-+]?(0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)$" },
	{ MEANS_NUMBER, "^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\\.[0-9_]*)?$" },
	{ MEANS_NUMBER, "^[-+]?([0-9][0-9_]*)?\\.[0-9_]*([eE][-+]?[0-9]+)?$" },
	{ MEANS_NUMBER, "^[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$" },
	{ MEANS_NUMBER, "^([-+]?\\.(inf|Inf|INF)|\\.(nan|NaN|NAN))$" },
	{ MEANS_OTHER, "^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}([Tt ].*)?$" }, /* a time */
	{ MEANS_OTHER, "^(<<|=)$" },
};

static bool matches(const char *value, const char *pattern)
{
	regex_t expression;
	if (regcomp(&expression, pattern, REG_EXTENDED | REG_NOSUB) != 0)
		return true; /* in doubt it is quoted */
	bool found = regexec(&expression, value, 0, NULL, 0) == 0;
	regfree(&expression);
	return found;
}

static enum meaning meaning_of(const char *value)
{
	for (size_t i = 0; i < ARRAY_LEN(meanings); i++)
		if (matches(value, meanings[i].pattern))
			return meanings[i].meaning;
	return MEANS_STRING;
}

/* --- Writing one scalar: libyaml's emitter knows where plain style is possible -------------------- */

static int append_output(void *context, unsigned char *bytes, size_t n)
{
	struct buf *out = context;
	buf_add(out, bytes, n);
	return 1;
}

static bool emit(yaml_emitter_t *emitter, yaml_event_t *event, int made)
{
	return made && yaml_emitter_emit(emitter, event); /* which takes the event over */
}

static yaml_char_t *chars(const char *s)
{
	return (yaml_char_t *)(uintptr_t)s; /* only read */
}

static bool emit_as_item(yaml_emitter_t *m, const char *value, yaml_scalar_style_t style, bool flow)
{
	yaml_event_t ev;
	yaml_sequence_style_t around = flow ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE;
	return emit(m, &ev, yaml_stream_start_event_initialize(&ev, YAML_UTF8_ENCODING)) &&
	       emit(m, &ev, yaml_document_start_event_initialize(&ev, NULL, NULL, NULL, 1)) &&
	       emit(m, &ev, yaml_sequence_start_event_initialize(&ev, NULL, NULL, 1, around)) &&
	       emit(m, &ev, yaml_scalar_event_initialize(&ev, NULL, NULL, chars(value),
							 (int)strlen(value), 1, 1, style)) &&
	       emit(m, &ev, yaml_sequence_end_event_initialize(&ev)) &&
	       emit(m, &ev, yaml_document_end_event_initialize(&ev, 1)) &&
	       emit(m, &ev, yaml_stream_end_event_initialize(&ev)) && yaml_emitter_flush(m);
}

/* "- value\n" or "[value]\n" without what is around the value. */
static char *unwrap(const struct buf *text, bool flow)
{
	size_t front = flow ? 1 : 2, back = flow ? 2 : 1;
	return text->len < front + back ? NULL : str_ndup(text->data + front, text->len - front - back);
}

static yaml_scalar_style_t style_for_libyaml(enum yaml_style style, const char *value)
{
	static const char *const unicode_breaks[] = { "\xC2\x85", "\xE2\x80\xA8", "\xE2\x80\xA9" };
	for (const unsigned char *c = (const unsigned char *)value; *c; c++)
		if (*c < ' ' || *c == 0x7F) /* line breaks are folded in any other style */
			return YAML_DOUBLE_QUOTED_SCALAR_STYLE;
	for (size_t i = 0; i < ARRAY_LEN(unicode_breaks); i++)
		if (strstr(value, unicode_breaks[i]))
			return YAML_DOUBLE_QUOTED_SCALAR_STYLE;
	switch (style) {
	case YAML_STYLE_SINGLE:
		return YAML_SINGLE_QUOTED_SCALAR_STYLE;
	case YAML_STYLE_DOUBLE:
		return YAML_DOUBLE_QUOTED_SCALAR_STYLE;
	case YAML_STYLE_PLAIN:
	case YAML_STYLE_BLOCK:
	case YAML_STYLE_FLOW:
	default:
		return *value ? YAML_PLAIN_SCALAR_STYLE : YAML_DOUBLE_QUOTED_SCALAR_STYLE;
	}
}

/* A value that can't be written, for it is not UTF-8. No YAML either, so yaml_apply refuses it. */
static const char not_possible[] = "\xFF";

/* Caller frees (secret_freep). The emitter falls back to quotes where plain style is not possible. */
static char *scalar_text(const char *value, enum yaml_style style, bool flow)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	yaml_emitter_t emitter;
	if (!yaml_emitter_initialize(&emitter))
		return str_dup(not_possible);
	yaml_emitter_set_output(&emitter, append_output, &text);
	yaml_emitter_set_width(&emitter, -1); /* never folds */
	yaml_emitter_set_unicode(&emitter, 1);
	bool done = emit_as_item(&emitter, value, style_for_libyaml(style, value), flow);
	if (emitter.buffer.start)
		explicit_bzero(emitter.buffer.start, (size_t)(emitter.buffer.end - emitter.buffer.start));
	yaml_emitter_delete(&emitter);
	char *written = done ? unwrap(&text, flow) : NULL;
	return written ? written : str_dup(not_possible);
}

void yaml_add_string(struct buf *out, const char *value)
{
	enum yaml_style style = meaning_of(value) == MEANS_STRING ? YAML_STYLE_PLAIN : YAML_STYLE_DOUBLE;
	char *text cleanup(secret_freep) = scalar_text(value, style, false);
	buf_add_str(out, text);
}

/* --- Collecting edits --------------------------------------------------------------------------- */

static void edits_add(struct yaml_edits *edits, const struct yaml_edit *edit)
{
	if (edits->n == edits->size) {
		edits->size = edits->size ? edits->size * 2 : 8;
		edits->items = mem_realloc(edits->items, edits->size, sizeof(*edits->items));
	}
	edits->items[edits->n++] = *edit;
}

void yaml_edits_release(struct yaml_edits *edits)
{
	for (size_t i = 0; i < edits->n; i++) {
		secret_freep(&edits->items[i].text);
		str_freep(&edits->items[i].key);
		secret_freep(&edits->items[i].value);
	}
	free(edits->items);
	*edits = (struct yaml_edits){ 0 };
}

/* Quotes that are there stay. A plain value stays plain while it means the same kind of thing: `true` may become
 * `false`, but a string that becomes "true" gets quotes. */
static enum yaml_style style_after(const struct yaml_inner *scalar, const char *value)
{
	if (scalar->style == YAML_STYLE_SINGLE || scalar->style == YAML_STYLE_DOUBLE)
		return scalar->style;
	enum meaning was = scalar->style == YAML_STYLE_PLAIN ? meaning_of(scalar->node.value) : MEANS_STRING;
	enum meaning will = meaning_of(value);
	return will == MEANS_STRING || will == was ? YAML_STYLE_PLAIN : YAML_STYLE_DOUBLE;
}

void yaml_edit_scalar(struct yaml_edits *edits, const struct yaml_node *scalar, const char *value)
{
	const struct yaml_inner *n = yaml_inner_of(scalar);
	if (scalar->kind != YAML_SCALAR || str_eq(scalar->value, value))
		return;
	enum yaml_style style = style_after(n, value);
	char *text cleanup(secret_freep) = scalar_text(value, style, n->in_flow);
	/* `key:` without a value has its place right behind the colon. */
	bool empty = scalar->start == scalar->end;
	edits_add(edits, &(struct yaml_edit){ .start = scalar->start,
					      .end = scalar->end,
					      .text = empty ? str_printf(" %s", text) : steal(&text),
					      .node = scalar,
					      .value = str_dup(value) });
}

/* --- Adding ------------------------------------------------------------------------------------- */

static size_t line_start(const char *text, size_t at)
{
	while (at > 0 && text[at - 1] != '\n')
		at--;
	return at == 0 && str_starts(text, "\xEF\xBB\xBF") ? 3 : at; /* a byte order mark has no column */
}

/* The end of the line without its line break; *ret_break is that, as the file writes it. */
static size_t line_end(const struct yaml *y, size_t at, const char **ret_break)
{
	const char *text = yaml_text(y), *newline = memchr(text + at, '\n', yaml_text_len(y) - at);
	size_t end = newline ? (size_t)(newline - text) : yaml_text_len(y);
	bool crlf = newline && end > at && text[end - 1] == '\r';
	*ret_break = crlf ? "\r\n" : "\n";
	return crlf ? end - 1 : end;
}

/* Blanks as wide as what stands before `at` in its line ("  - " before a name: four). */
static char *indentation(const char *text, size_t at)
{
	size_t from = line_start(text, at), width = 0;
	for (size_t i = from; i < at; i++)
		width += ((unsigned char)text[i] & 0xC0) != 0x80;
	return str_printf("%*s", (int)width, "");
}

/* Where the parent's children begin in their lines: a name, or the dash of an item. */
static result first_column(const struct yaml *y, const struct yaml_node *parent, size_t *ret_at,
			   struct err *e)
{
	const struct yaml_inner *n = yaml_inner_of(parent);
	if (parent->kind == YAML_SCALAR || n->style != YAML_STYLE_BLOCK || !parent->first)
		return err_set(e, ERR_INPUT, "YAML: \"%s\" is not written as an indented list or mapping",
			       parent->key ? parent->key : "");
	size_t at = parent->kind == YAML_MAPPING ? yaml_inner_of(parent->first)->key_start : parent->start;
	if (parent->kind == YAML_SEQUENCE && yaml_text(y)[at] != '-')
		return err_set(e, ERR_INPUT, "YAML: \"%s\" has a tag", parent->key ? parent->key : "");
	*ret_at = at;
	return OK;
}

static result check_key(const struct yaml_node *parent, const char *key, struct err *e)
{
	if ((parent->kind == YAML_MAPPING) != (key != NULL))
		return err_set(e, ERR_INPUT, "YAML: members have names, items have none");
	if (key && yaml_get(parent, key))
		return err_set(e, ERR_CONFLICT, "YAML: there is a \"%s\" already", key);
	return OK;
}

result yaml_edit_add(struct yaml_edits *edits, const struct yaml *y, const struct yaml_node *parent,
		     const char *key, const char *value, struct err *e)
{
	size_t column_at = 0;
	TRY(first_column(y, parent, &column_at, e));
	TRY(check_key(parent, key, e));
	const char *line_break = "\n";
	size_t at = line_end(y, parent->end, &line_break);
	char *indent cleanup(str_freep) = indentation(yaml_text(y), column_at);
	char *text cleanup(secret_freep) = scalar_text(value, YAML_STYLE_PLAIN, false);
	struct yaml_edit edit = { .start = at, .end = at, .node = parent, .value = str_dup(value) };
	if (key) {
		struct buf name cleanup(buf_release) = BUF_INIT;
		yaml_add_string(&name, key);
		edit.key = str_dup(key);
		edit.text = str_printf("%s%s%s: %s", line_break, indent, buf_str(&name), text);
	} else {
		edit.text = str_printf("%s%s- %s", line_break, indent, text);
	}
	edits_add(edits, &edit);
	return OK;
}

/* --- Applying ----------------------------------------------------------------------------------- */

struct ordered {
	const struct yaml_edit *edit;
	size_t index, indent;
};

static size_t indent_of_insert(const struct yaml_edit *edit)
{
	size_t breaks = strspn(edit->text, "\r\n");
	return breaks ? strspn(edit->text + breaks, " ") : 0;
}

/* By position. What is added behind the same line goes from the innermost list outwards, else as it was asked for. */
static int compare_edits(const void *a, const void *b)
{
	const struct ordered *x = a, *y = b;
	if (x->edit->start != y->edit->start)
		return x->edit->start < y->edit->start ? -1 : 1;
	if (x->indent != y->indent)
		return x->indent > y->indent ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

static result splice(const struct yaml *y, const struct ordered *edits, size_t n, struct buf *out,
		     struct err *e)
{
	size_t at = 0, len = yaml_text_len(y);
	for (size_t i = 0; i < n; i++) {
		const struct yaml_edit *edit = edits[i].edit;
		if (edit->start < at || edit->end < edit->start || edit->end > len)
			return err_set(e, ERR_INPUT, "YAML: two changes of one value");
		buf_add(out, yaml_text(y) + at, edit->start - at);
		buf_add_str(out, edit->text);
		at = edit->end;
	}
	buf_add(out, yaml_text(y) + at, len - at);
	return OK;
}

static struct ordered *in_order(const struct yaml_edits *edits)
{
	struct ordered *sorted = mem_alloc((edits->n + 1) * sizeof(*sorted));
	for (size_t i = 0; i < edits->n; i++)
		sorted[i] = (struct ordered){ &edits->items[i], i, indent_of_insert(&edits->items[i]) };
	if (edits->n)
		qsort(sorted, edits->n, sizeof(*sorted), compare_edits);
	return sorted;
}

/* --- Reading again: the text says what was asked for, and nothing else has changed ----------------- */

static const char *wanted_value(const struct yaml_edits *edits, const struct yaml_node *scalar)
{
	for (size_t i = edits->n; i > 0; i--)
		if (edits->items[i - 1].node == scalar)
			return edits->items[i - 1].value;
	return scalar->value;
}

/* What follows the parent's old children: those that were added to it, in order. */
static bool added_as_wanted(const struct yaml_edits *edits, const struct yaml_node *parent,
			    const struct yaml_node *child)
{
	for (size_t i = 0; i < edits->n; i++) {
		const struct yaml_edit *edit = &edits->items[i];
		if (edit->node != parent)
			continue;
		if (!child || child->kind != YAML_SCALAR || !str_eq(child->key, edit->key) ||
		    !str_eq(child->value, edit->value))
			return false;
		child = child->next;
	}
	return !child;
}

/* Recursion is bounded by the depth that yaml_parse allows. */
static bool as_wanted(const struct yaml_edits *edits, const struct yaml_node *before,
		      const struct yaml_node *after)
{
	if (before->kind != after->kind || !str_eq(before->key, after->key))
		return false;
	if (before->kind == YAML_SCALAR)
		return str_eq(after->value, wanted_value(edits, before));
	const struct yaml_node *other = after->first;
	yaml_each(child, before) {
		if (!other || !as_wanted(edits, child, other))
			return false;
		other = other->next;
	}
	return added_as_wanted(edits, before, other);
}

result yaml_apply(const struct yaml *y, const struct yaml_edits *edits, struct buf *ret, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	struct ordered *sorted = in_order(edits);
	result spliced = splice(y, sorted, edits->n, &text, e);
	free(sorted);
	TRY(spliced);
	/* Whatever was asked for, a file that can't be read is not what anybody gets. */
	struct yaml *again cleanup(yaml_freep) = NULL;
	TRY_CTX(yaml_parse(buf_str(&text), text.len, &again, e), e, "after the change");
	if (!as_wanted(edits, yaml_root(y), yaml_root(again)))
		return err_set(e, ERR_INPUT, "YAML: this layout is not understood well enough to change a value in it");
	buf_add(ret, buf_str(&text), text.len);
	return OK;
}
