/* What yaml.c (reading) and yaml_edit.c (changing) share. A public node is always the first member of an inner one. */
#ifndef YAML_INTERNAL_H
#define YAML_INTERNAL_H

#include "yaml.h"

enum yaml_style {
	YAML_STYLE_PLAIN,
	YAML_STYLE_SINGLE, /* 'quoted' */
	YAML_STYLE_DOUBLE, /* "quoted" */
	YAML_STYLE_BLOCK,  /* | or >; and collections that go by indentation */
	YAML_STYLE_FLOW,   /* collections in [] or {} */
};

struct yaml_inner {
	struct yaml_node node;
	enum yaml_style style;
	bool in_flow;             /* stands somewhere inside [] or {} */
	size_t key_start;         /* as a mapping's member: where its name begins */
	size_t n_children;
	struct yaml_inner *last;  /* child */
	struct yaml_inner *older; /* all nodes of a document, to free them */
};

static inline const struct yaml_inner *yaml_inner_of(const struct yaml_node *n)
{
	return (const struct yaml_inner *)(const void *)n;
}

size_t yaml_text_len(const struct yaml *y);

#endif
