/* yaml_parse: every node lies in the text, in its parent, in order; names are unique; and yaml_edit_scalar, on each scalar in
 * turn, changes that value and not one byte outside of it. */
#include "fuzz.h"

#include "yaml.h"

#include <string.h>

#define EDITED_MAX 24 /* scalars of one document */

struct tally {
	size_t nodes, scalars, text_len;
};

static void walk(const struct yaml_node *n, bool in_mapping, size_t depth, struct tally *t)
{
	size_t at = n->start;
	MUST(depth < 64);
	MUST(n->start <= n->end && n->end <= t->text_len);
	MUST(in_mapping == (n->key != NULL));
	MUST((n->kind == YAML_SCALAR) == (n->value != NULL));
	MUST(n->kind != YAML_SCALAR || !n->first);
	t->nodes++;
	t->scalars += n->kind == YAML_SCALAR;
	yaml_each(child, n) {
		MUST(child->start >= at && child->end <= n->end);
		MUST(n->kind != YAML_MAPPING || yaml_get(n, child->key) == child);
		at = child->end;
		walk(child, n->kind == YAML_MAPPING, depth + 1, t);
	}
}

/* The i-th scalar in the order of the text. */
static const struct yaml_node *scalar_at(const struct yaml_node *n, size_t *i)
{
	const struct yaml_node *found = NULL;
	if (n->kind == YAML_SCALAR)
		return (*i)-- == 0 ? n : NULL;
	for (const struct yaml_node *c = n->first; c && !found; c = c->next)
		found = scalar_at(c, i);
	return found;
}

/* Equal but for the value of one scalar. */
static void check_same(const struct yaml_node *a, const struct yaml_node *b, const struct yaml_node *changed, const char *value)
{
	MUST(a->kind == b->kind && str_eq(a->key, b->key));
	MUST(str_eq(b->value, a == changed ? value : a->value));
	const struct yaml_node *other = b->first;
	yaml_each(child, a) {
		MUST(other);
		check_same(child, other, changed, value);
		other = other->next;
	}
	MUST(!other);
}

/* A value that is no text for YAML (control characters that it can't hold even escaped do not exist; what is not UTF-8 does). */
static void edit_one(const struct yaml *y, size_t len, const struct yaml_node *scalar, const char *value)
{
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct yaml *again cleanup(yaml_freep) = NULL;
	struct err e = { 0 };
	yaml_edit_scalar(&edits, scalar, value);
	MUST(edits.n == !str_eq(scalar->value, value));
	if (!yaml_apply(y, &edits, &text, &e).ok) {
		MUST(!text.len && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return;
	}
	size_t tail = len - scalar->end;
	MUST(text.len >= scalar->start + tail);
	MUST(memcmp(text.data, yaml_text(y), scalar->start) == 0);
	MUST(memcmp(text.data + text.len - tail, yaml_text(y) + scalar->end, tail) == 0);
	MUST(yaml_parse(text.data, text.len, &again, &e).ok);
	check_same(yaml_root(y), yaml_root(again), scalar, value);
}

static void nothing_changes_nothing(const struct yaml *y, size_t len)
{
	struct yaml_edits none = { 0 };
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	MUST(yaml_apply(y, &none, &text, &e).ok);
	MUST(text.len == len && (!len || memcmp(text.data, yaml_text(y), len) == 0));
}

/* Input: the new value, "====", the document. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	size_t value_len = 0, len = 0;
	char *value cleanup(str_freep) = fuzz_part(&in, &value_len);
	char *text cleanup(str_freep) = fuzz_part(&in, &len);
	struct yaml *y cleanup(yaml_freep) = NULL;
	struct err e = { 0 };
	if (value_len && value[value_len - 1] == '\n')
		value[value_len - 1] = '\0';
	if (!yaml_parse(text, len, &y, &e).ok) {
		MUST(!y && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return 0;
	}
	struct tally t = { .text_len = len };
	walk(yaml_root(y), false, 0, &t);
	nothing_changes_nothing(y, len);
	for (size_t i = 0; i < t.scalars && i < EDITED_MAX; i++) {
		size_t nth = i;
		const struct yaml_node *scalar = scalar_at(yaml_root(y), &nth);
		MUST(scalar);
		edit_one(y, len, scalar, value);
	}
	return 0;
}
