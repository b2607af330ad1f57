#define _DEFAULT_SOURCE /* explicit_bzero */

#include "yaml.h"
#include "yaml_internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define DEPTH_MAX 64
#define NODES_MAX 65536
#define TEXT_MAX ((size_t)4 << 20)

struct yaml {
	char *text;
	size_t len;
	struct yaml_inner *root, *newest;
	size_t n_nodes;
};

static void wipe_string(const char *s)
{
	char *mine = (char *)(uintptr_t)s; /* const to others, ours here */
	secret_freep(&mine);
}

/* A kubeconfig holds keys, so text and values are overwritten. */
void yaml_freep(struct yaml **y)
{
	struct yaml *doc = *y;
	if (!doc)
		return;
	for (struct yaml_inner *n = doc->newest, *older; n; n = older) {
		older = n->older;
		wipe_string(n->node.key);
		wipe_string(n->node.value);
		free(n);
	}
	explicit_bzero(doc->text, doc->len);
	free(doc->text);
	free(doc);
	*y = NULL;
}

/* --- Building the tree from libyaml's events --------------------------------------------------- */

struct frame {
	struct yaml_inner *collection;
	char *key; /* read, and waiting for its value */
	size_t key_start;
};

struct reader {
	yaml_parser_t parser;
	struct yaml *doc;
	struct frame stack[DEPTH_MAX];
	size_t depth, flow_depth, documents;
	/* libyaml's marks count characters; this pair walks along to tell bytes. */
	size_t characters, bytes;
};

/* libyaml has no hook for its memory, but shows its buffers: the text went through them. */
static void reader_release(struct reader *r)
{
	for (size_t i = 0; i < r->depth; i++)
		secret_freep(&r->stack[i].key);
	if (r->parser.buffer.start)
		explicit_bzero(r->parser.buffer.start,
			       (size_t)(r->parser.buffer.end - r->parser.buffer.start));
	if (r->parser.raw_buffer.start)
		explicit_bzero(r->parser.raw_buffer.start,
			       (size_t)(r->parser.raw_buffer.end - r->parser.raw_buffer.start));
	yaml_parser_delete(&r->parser);
}

static void event_release(yaml_event_t *event)
{
	if (event->type == YAML_SCALAR_EVENT && event->data.scalar.value)
		explicit_bzero(event->data.scalar.value, event->data.scalar.length);
	yaml_event_delete(event);
}

static bool is_continuation(char c)
{
	return ((unsigned char)c & 0xC0) == 0x80;
}

static size_t byte_offset(struct reader *r, const yaml_mark_t *mark)
{
	const struct yaml *doc = r->doc;
	for (; r->characters < mark->index && r->bytes < doc->len; r->characters++)
		do
			r->bytes++;
		while (r->bytes < doc->len && is_continuation(doc->text[r->bytes]));
	for (; r->characters > mark->index && r->bytes > 0; r->characters--)
		do
			r->bytes--;
		while (r->bytes > 0 && is_continuation(doc->text[r->bytes]));
	return r->bytes;
}

static result refuse(const yaml_mark_t *mark, const char *what, struct err *e)
{
	return err_set(e, ERR_INPUT, "YAML: line %zu: %s", mark->line + 1, what);
}

/* The core schema's own tags say nothing new; others would change what a value means. */
static bool tag_is_core(const yaml_char_t *tag)
{
	static const char *const core[] = { YAML_NULL_TAG, YAML_BOOL_TAG, YAML_STR_TAG, YAML_INT_TAG,
					    YAML_FLOAT_TAG, YAML_SEQ_TAG, YAML_MAP_TAG };
	for (size_t i = 0; tag && i < ARRAY_LEN(core); i++)
		if (str_eq((const char *)tag, core[i]))
			return true;
	return !tag;
}

static result check_properties(const yaml_event_t *event, struct err *e)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;
	if (event->type == YAML_SCALAR_EVENT) {
		anchor = event->data.scalar.anchor;
		tag = event->data.scalar.tag;
		if (strlen((const char *)event->data.scalar.value) != event->data.scalar.length)
			return refuse(&event->start_mark, "a value holds a zero byte", e);
	} else if (event->type == YAML_SEQUENCE_START_EVENT) {
		anchor = event->data.sequence_start.anchor;
		tag = event->data.sequence_start.tag;
	} else {
		anchor = event->data.mapping_start.anchor;
		tag = event->data.mapping_start.tag;
	}
	if (anchor)
		return refuse(&event->start_mark, "anchors are not supported", e);
	if (!tag_is_core(tag))
		return refuse(&event->start_mark, "this tag is not supported", e);
	return OK;
}

/* A block scalar's range, as libyaml has it, goes on over the line breaks behind it. */
static size_t block_end(const char *text, size_t start, size_t end)
{
	while (end > start && strchr(" \t\r\n", text[end - 1]))
		end--;
	return end;
}

static void fill_scalar(struct reader *r, struct yaml_inner *n, const yaml_event_t *event)
{
	n->node.kind = YAML_SCALAR;
	n->node.value = str_dup((const char *)event->data.scalar.value);
	switch (event->data.scalar.style) {
	case YAML_SINGLE_QUOTED_SCALAR_STYLE:
		n->style = YAML_STYLE_SINGLE;
		break;
	case YAML_DOUBLE_QUOTED_SCALAR_STYLE:
		n->style = YAML_STYLE_DOUBLE;
		break;
	case YAML_LITERAL_SCALAR_STYLE:
	case YAML_FOLDED_SCALAR_STYLE:
		n->style = YAML_STYLE_BLOCK;
		n->node.end = block_end(r->doc->text, n->node.start, n->node.end);
		break;
	case YAML_PLAIN_SCALAR_STYLE:
	case YAML_ANY_SCALAR_STYLE:
	default:
		n->style = YAML_STYLE_PLAIN;
	}
}

static struct yaml_inner *node_new(struct reader *r, const yaml_event_t *event)
{
	struct yaml_inner *n = mem_alloc(sizeof(*n));
	n->older = r->doc->newest;
	r->doc->newest = n;
	r->doc->n_nodes++;
	n->node.start = byte_offset(r, &event->start_mark);
	n->node.end = byte_offset(r, &event->end_mark);
	n->in_flow = r->flow_depth > 0;
	if (event->type == YAML_SCALAR_EVENT) {
		fill_scalar(r, n, event);
	} else if (event->type == YAML_SEQUENCE_START_EVENT) {
		n->node.kind = YAML_SEQUENCE;
		bool flow = event->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE;
		n->style = flow ? YAML_STYLE_FLOW : YAML_STYLE_BLOCK;
	} else {
		n->node.kind = YAML_MAPPING;
		bool flow = event->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE;
		n->style = flow ? YAML_STYLE_FLOW : YAML_STYLE_BLOCK;
	}
	return n;
}

static void append_child(struct frame *f, struct yaml_inner *n)
{
	struct yaml_inner *parent = f->collection;
	n->node.key = f->key;
	n->key_start = f->key_start;
	f->key = NULL;
	if (parent->last)
		parent->last->node.next = &n->node;
	else
		parent->node.first = &n->node;
	parent->last = n;
	parent->n_children++;
}

static result push(struct reader *r, struct yaml_inner *n, const yaml_event_t *event, struct err *e)
{
	if (r->depth == DEPTH_MAX)
		return refuse(&event->start_mark, "nested too deep", e);
	r->stack[r->depth++] = (struct frame){ .collection = n };
	r->flow_depth += n->style == YAML_STYLE_FLOW;
	return OK;
}

/* A scalar or the start of a collection: a name, a member, an item, or the root. */
static result place(struct reader *r, const yaml_event_t *event, struct err *e)
{
	TRY(check_properties(event, e));
	if (r->doc->n_nodes == NODES_MAX)
		return refuse(&event->start_mark, "too many values", e);
	struct frame *f = r->depth ? &r->stack[r->depth - 1] : NULL;
	if (f && f->collection->node.kind == YAML_MAPPING && !f->key) {
		if (event->type != YAML_SCALAR_EVENT)
			return refuse(&event->start_mark, "a name must be a scalar", e);
		f->key = str_dup((const char *)event->data.scalar.value);
		f->key_start = byte_offset(r, &event->start_mark);
		return OK;
	}
	struct yaml_inner *n = node_new(r, event);
	if (f)
		append_child(f, n);
	else
		r->doc->root = n;
	return event->type == YAML_SCALAR_EVENT ? OK : push(r, n, event, e);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* YAML 1.2, 3.2.1.1: names are unique. Readers differ on which of two counts. */
static bool has_duplicates(const struct yaml_inner *mapping)
{
	if (mapping->n_children < 2)
		return false;
	const char **names = mem_alloc(mapping->n_children * sizeof(*names));
	size_t n = 0;
	yaml_each(member, &mapping->node)
		names[n++] = member->key;
	qsort(names, n, sizeof(*names), compare_names);
	bool found = false;
	for (size_t i = 1; i < n && !found; i++)
		found = str_eq(names[i - 1], names[i]);
	free(names);
	return found;
}

/* The end of a collection. libyaml sees the end of a block only at the next token; ours is that of the last child. */
static result pop(struct reader *r, const yaml_event_t *event, struct err *e)
{
	struct yaml_inner *n = r->stack[--r->depth].collection;
	if (n->node.kind == YAML_MAPPING && has_duplicates(n))
		return refuse(&event->start_mark, "the mapping that ends here has a name twice", e);
	if (n->style == YAML_STYLE_FLOW) {
		r->flow_depth--;
		n->node.end = byte_offset(r, &event->end_mark);
	} else if (n->last) {
		n->node.end = n->last->node.end;
	}
	return OK;
}

static result handle(struct reader *r, const yaml_event_t *event, struct err *e)
{
	switch (event->type) {
	case YAML_DOCUMENT_START_EVENT:
		if (r->documents++ > 0)
			return refuse(&event->start_mark, "more than one document", e);
		return OK;
	case YAML_ALIAS_EVENT:
		return refuse(&event->start_mark, "aliases are not supported", e);
	case YAML_SCALAR_EVENT:
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		return place(r, event, e);
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		return pop(r, event, e);
	case YAML_NO_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_STREAM_END_EVENT:
	case YAML_DOCUMENT_END_EVENT:
	default:
		return OK;
	}
}

static result parser_error(const yaml_parser_t *p, struct err *e)
{
	const char *problem = p->problem ? p->problem : "not readable";
	if (p->error == YAML_READER_ERROR)
		return err_set(e, ERR_INPUT, "YAML: at byte %zu: %s", p->problem_offset, problem);
	return err_set(e, ERR_INPUT, "YAML: line %zu: %s", p->problem_mark.line + 1, problem);
}

static result read_events(struct reader *r, struct err *e)
{
	for (bool more = true; more;) {
		yaml_event_t event cleanup(event_release) = { 0 };
		if (!yaml_parser_parse(&r->parser, &event))
			return parser_error(&r->parser, e);
		TRY(handle(r, &event, e));
		more = event.type != YAML_STREAM_END_EVENT;
	}
	if (!r->doc->root)
		return err_set(e, ERR_INPUT, "YAML: the text is empty");
	return OK;
}

result yaml_parse(const char *text, size_t len, struct yaml **ret, struct err *e)
{
	if (len > TEXT_MAX)
		return err_set(e, ERR_INPUT, "YAML: longer than %zu bytes", TEXT_MAX);
	struct yaml *doc cleanup(yaml_freep) = mem_alloc(sizeof(*doc));
	doc->text = mem_alloc(len + 1);
	doc->len = len;
	memcpy(doc->text, text, len);
	struct reader r cleanup(reader_release) = { .doc = doc };
	if (!yaml_parser_initialize(&r.parser))
		return err_set(e, ERR_OTHER, "YAML: libyaml has no memory");
	yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
	r.bytes = str_starts(doc->text, "\xEF\xBB\xBF") ? 3 : 0; /* told the encoding, libyaml skips no mark of it */
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)doc->text + r.bytes,
				     len - r.bytes);
	TRY(read_events(&r, e));
	*ret = steal(&doc);
	return OK;
}

/* --- Looking ----------------------------------------------------------------------------------- */

const struct yaml_node *yaml_root(const struct yaml *y)
{
	return &y->root->node;
}

const char *yaml_text(const struct yaml *y)
{
	return y->text;
}

size_t yaml_text_len(const struct yaml *y)
{
	return y->len;
}

const struct yaml_node *yaml_get(const struct yaml_node *mapping, const char *key)
{
	if (!mapping || mapping->kind != YAML_MAPPING)
		return NULL;
	yaml_each(member, mapping)
		if (str_eq(member->key, key))
			return member;
	return NULL;
}

const struct yaml_node *yaml_at(const struct yaml_node *n, ...)
{
	va_list names;
	va_start(names, n);
	for (const char *name; n && (name = va_arg(names, const char *));)
		n = yaml_get(n, name);
	va_end(names);
	return n;
}

const char *yaml_str(const struct yaml_node *scalar)
{
	return scalar && scalar->kind == YAML_SCALAR ? scalar->value : NULL;
}
