/* yaml_edit_add, on each collection in turn: the document has one member (or item) more, in its place, and every other byte
 * stays. */
#include "fuzz.h"

#include "yaml.h"

#include <string.h>

#define COLLECTIONS_MAX 24 /* of one document */

static const struct yaml_node *collection_at(const struct yaml_node *n, size_t *i)
{
	const struct yaml_node *found = NULL;
	if (n->kind == YAML_SCALAR)
		return NULL;
	if ((*i)-- == 0)
		return n;
	for (const struct yaml_node *c = n->first; c && !found; c = c->next)
		found = collection_at(c, i);
	return found;
}

/* b is a with one more child, the last, in `parent`. */
static void check_grown(const struct yaml_node *a, const struct yaml_node *b, const struct yaml_node *parent, const char *key)
{
	MUST(a->kind == b->kind && str_eq(a->key, b->key) && str_eq(a->value, b->value));
	const struct yaml_node *other = b->first;
	yaml_each(child, a) {
		MUST(other);
		check_grown(child, other, parent, key);
		other = other->next;
	}
	MUST((a == parent) == (other != NULL));
	MUST(!other || (str_eq(other->key, key) && !other->next && other->kind == YAML_SCALAR));
}

/* The bytes of a are those of b with one piece more somewhere. */
static void check_one_insert(const char *a, size_t a_len, const char *b, size_t b_len)
{
	size_t front = 0, back = 0;
	MUST(b_len > a_len);
	while (front < a_len && a[front] == b[front])
		front++;
	while (back < a_len - front && a[a_len - 1 - back] == b[b_len - 1 - back])
		back++;
	MUST(front + back == a_len);
}

static void add_to(const struct yaml *y, size_t len, const struct yaml_node *parent, const char *key, const char *value)
{
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct yaml *again cleanup(yaml_freep) = NULL;
	struct err e = { 0 };
	const char *name = parent->kind == YAML_MAPPING ? key : NULL;
	if (!yaml_edit_add(&edits, y, parent, name, value, &e).ok) {
		MUST(edits.n == 0);
		MUST(e.kind == ERR_INPUT || (e.kind == ERR_CONFLICT && yaml_get(parent, name)));
		fuzz_check_err(&e);
		return;
	}
	if (!yaml_apply(y, &edits, &text, &e).ok) {
		MUST(!text.len && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return;
	}
	MUST(yaml_parse(text.data, text.len, &again, &e).ok);
	check_one_insert(yaml_text(y), len, text.data, text.len);
	check_grown(yaml_root(y), yaml_root(again), parent, name);
}

/* Input: the name, "====", the value, "====", the document. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	size_t key_len = 0, value_len = 0, len = 0;
	char *key cleanup(str_freep) = fuzz_part(&in, &key_len);
	char *value cleanup(str_freep) = fuzz_part(&in, &value_len);
	char *text cleanup(str_freep) = fuzz_part(&in, &len);
	struct yaml *y cleanup(yaml_freep) = NULL;
	struct err e = { 0 };
	key[strcspn(key, "\n")] = '\0';
	value[strcspn(value, "\n")] = '\0';
	if (!yaml_parse(text, len, &y, &e).ok)
		return 0;
	for (size_t i = 0; i < COLLECTIONS_MAX; i++) {
		size_t nth = i;
		const struct yaml_node *parent = collection_at(yaml_root(y), &nth);
		if (parent)
			add_to(y, len, parent, key, value);
	}
	return 0;
}
