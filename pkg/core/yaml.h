/* YAML, by libyaml; the only module that knows its header. Reading into a small tree whose scalars know where they stand
 * in the text, so that single values can be changed and every other byte (comments, order, quotes) survives.
 *
 * Invariants
 * - One document; aliases, anchors and tags beyond the core schema are ERR_INPUT; depth at most 64, 65,536 nodes, 4 MiB.
 * - Names are unique in their mapping, and scalars; the text is UTF-8 without zero bytes; else ERR_INPUT.
 * - Nodes are borrowed from their document. A document's memory is overwritten when it is freed.
 */
#ifndef CORE_YAML_H
#define CORE_YAML_H

#include "buf.h"

enum yaml_kind { YAML_SCALAR, YAML_SEQUENCE, YAML_MAPPING };

struct yaml_node {
	enum yaml_kind kind;
	const char *key;                /* as a mapping's member: its name, else NULL */
	const char *value;              /* scalars: the value, unquoted */
	size_t start, end;              /* byte range of the node in the text, quotes included */
	struct yaml_node *first, *next; /* children; siblings */
};

struct yaml; /* a document: owns text and nodes */

result yaml_parse(const char *text, size_t len, struct yaml **ret, struct err *e) MUST_CHECK; /* ERR_INPUT with the line */
void yaml_freep(struct yaml **y);
const struct yaml_node *yaml_root(const struct yaml *y);
const char *yaml_text(const struct yaml *y);

/* Walks mapping names: yaml_at(root, "spec", "containers", NULL). NULL when any is absent. */
const struct yaml_node *yaml_at(const struct yaml_node *n, ...) __attribute__((sentinel));
const struct yaml_node *yaml_get(const struct yaml_node *mapping, const char *key);
const char *yaml_str(const struct yaml_node *scalar); /* NULL when it is not a scalar */
/* NOLINTBEGIN(bugprone-macro-parentheses): item is declared here */
#define yaml_each(item, parent) \
	for (const struct yaml_node *item = (parent) ? (parent)->first : NULL; item; item = item->next)
/* NOLINTEND(bugprone-macro-parentheses) */

/* A change of one scalar: collected, then applied to the text at once. */
struct yaml_edit {
	size_t start, end;
	char *text; /* owned; already quoted as YAML needs it */
	/* What is to be read afterwards: of the scalar, or as a new child (named or not) of the collection. */
	const struct yaml_node *node;
	char *key, *value;
};
struct yaml_edits {
	struct yaml_edit *items;
	size_t n, size;
};
/* The scalar's new value. Quotes that are there stay; a plain value stays plain unless that would change the kind of its
 * meaning (false may become true, but a string gets quotes to become "true"). The same value: no edit. A value that is not UTF-8 is refused
 * by yaml_apply. */
void yaml_edit_scalar(struct yaml_edits *edits, const struct yaml_node *scalar, const char *value);
/* Adds a member `key: value` after the last member of a block mapping; or (key NULL) an item after the last of a block
 * sequence. The value is plain YAML: true is a boolean; nothing is "". ERR_INPUT where the parent is empty, in [] or {}, or no collection;
 * ERR_CONFLICT where the name is there. */
result yaml_edit_add(struct yaml_edits *edits, const struct yaml *y, const struct yaml_node *parent, const char *key,
		     const char *value, struct err *e) MUST_CHECK;
/* The text with all edits (of y's own nodes) applied, appended. It is read again: ERR_INPUT when it would say anything else than
 * y with these changes (odd layout: a name without a colon, say), or when two edits overlap. */
result yaml_apply(const struct yaml *y, const struct yaml_edits *edits, struct buf *ret, struct err *e) MUST_CHECK;
void yaml_edits_release(struct yaml_edits *edits);
/* The string as a scalar for a text of ours, plain where YAML reads it back as that string, else in quotes. Appended. What is
 * not UTF-8 makes the text no YAML. */
void yaml_add_string(struct buf *out, const char *value);

#endif
