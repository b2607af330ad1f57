/* yaml: single values change and every other byte stays; what has two readings is refused. */
#include "yaml.h"
#include "file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* In a block of exactly its length: reading over its end is caught. */
static result parse_exact(const char *text, size_t len, struct yaml **ret, struct err *e)
{
	char *copy = malloc(len ? len : 1);
	assert_non_null(copy);
	memcpy(copy, text, len);
	result r = yaml_parse(copy, len, ret, e);
	free(copy);
	return r;
}

static struct yaml *parse(const char *text)
{
	struct yaml *y = NULL;
	struct err e = { 0 };
	if (!parse_exact(text, strlen(text), &y, &e).ok)
		fail_msg("%s: %.300s", e.message, text);
	return y;
}

static void assert_refused_bytes(const char *text, size_t len)
{
	struct yaml *y = NULL;
	struct err e = { 0 };
	if (parse_exact(text, len, &y, &e).ok)
		fail_msg("taken: %.300s", text);
	assert_null(y);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_true(str_starts(e.message, "YAML: "));
}

static void assert_refused(const char *text)
{
	assert_refused_bytes(text, strlen(text));
}

static char *fixture(const char *name)
{
	const char *source = getenv("TEST_SOURCE");
	char *path cleanup(str_freep) =
		str_printf("%s/tests/unit/fixtures/%s", source ? source : ".", name);
	struct buf b cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	if (!file_read(path, 1 << 20, &b, &e).ok)
		fail_msg("%s", e.message);
	return buf_take(&b);
}

static const struct yaml_node *item(const struct yaml_node *list, size_t i)
{
	assert_non_null(list);
	const struct yaml_node *n = list->first;
	while (n && i-- > 0)
		n = n->next;
	return n;
}

static const struct yaml_node *command_of(const struct yaml *y)
{
	return yaml_get(item(yaml_at(yaml_root(y), "spec", "containers", NULL), 0), "command");
}

/* The range of each scalar, parsed alone, has the scalar's value: offsets are bytes, and quotes are inside. */
static void assert_ranges(const struct yaml *y, const struct yaml_node *n)
{
	assert_true(n->start <= n->end && n->end <= strlen(yaml_text(y)));
	yaml_each(child, n) {
		assert_true(child->start >= n->start && child->end <= n->end);
		if (child->next)
			assert_true(child->end <= child->next->start);
		assert_ranges(y, child);
	}
	if (n->kind != YAML_SCALAR || n->start == n->end || strchr("|>", yaml_text(y)[n->start]))
		return;
	char *alone cleanup(str_freep) = str_ndup(yaml_text(y) + n->start, n->end - n->start);
	struct yaml *again cleanup(yaml_freep) = parse(alone);
	assert_string_equal(yaml_str(yaml_root(again)), n->value);
}

/* --- Reading --------------------------------------------------------------------------------- */

static void test_reading_manifests(void **state)
{
	(void)state;
	static const char *const names[] = { "kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd" };
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *file cleanup(str_freep) = str_printf("%s.yaml", names[i]);
		char *text cleanup(str_freep) = fixture(file);
		struct yaml *y cleanup(yaml_freep) = parse(text);
		assert_string_equal(yaml_text(y), text);
		assert_string_equal(yaml_str(yaml_at(yaml_root(y), "metadata", "name", NULL)),
				    str_eq(names[i], "etcd") ? "etcd" : names[i]);
		assert_string_equal(yaml_str(item(command_of(y), 0)), names[i]);
		assert_ranges(y, yaml_root(y));
		yaml_each(flag, command_of(y))
			assert_true(flag->end > flag->start && text[flag->end] == '\n');
	}
}

static const char odd[] =
	"# über den Text\n"
	"---\n"
	"a:   1   # eins\n"
	"\"b\":\n"
	"      - x # ä\n"
	"      -   'it''s'\n"
	"      - \"\\u00e4 \\\"q\\\"\"\n"
	"\xC3\xA4\xE2\x82\xAC: {k: v, l: [1, \"2\", 'drei'], \xF0\x9F\x94\x91: \xC3\xBC}  # flow\n"
	"c:\n"
	"- 1\n"
	"-\n"
	"  - nested\n"
	"- - n: 2\n"
	"    m:\n"
	"d: |\n"
	"  one\n"
	"  two\n"
	"\n"
	"e: >-\n"
	"  folded\n"
	"  line\n"
	"f: plain\n"
	"  over two lines\n"
	"\"true\": no\n"
	"g: ~\n"
	"h:\n"
	"...\n";

static void test_reading_any_style(void **state)
{
	(void)state;
	struct yaml *y cleanup(yaml_freep) = parse(odd);
	const struct yaml_node *root = yaml_root(y);
	assert_ranges(y, root);
	assert_string_equal(yaml_str(yaml_get(root, "a")), "1");
	assert_string_equal(yaml_str(item(yaml_get(root, "b"), 1)), "it's");
	assert_string_equal(yaml_str(item(yaml_get(root, "b"), 2)), "\xC3\xA4 \"q\"");
	const struct yaml_node *flow = yaml_get(root, "\xC3\xA4\xE2\x82\xAC");
	assert_int_equal(odd[flow->start], '{');
	assert_int_equal(odd[flow->end - 1], '}');
	assert_string_equal(yaml_str(yaml_get(flow, "\xF0\x9F\x94\x91")), "\xC3\xBC");
	assert_string_equal(yaml_str(item(yaml_get(flow, "l"), 2)), "drei");
	assert_string_equal(yaml_str(item(item(yaml_get(root, "c"), 1), 0)), "nested");
	assert_string_equal(yaml_str(yaml_get(item(item(yaml_get(root, "c"), 2), 0), "m")), "");
	const struct yaml_node *block = yaml_get(root, "d");
	assert_string_equal(block->value, "one\ntwo\n");
	assert_memory_equal(odd + block->end - 3, "two\n", 4); /* the line break is not in the range */
	assert_string_equal(yaml_str(yaml_get(root, "e")), "folded line");
	assert_string_equal(yaml_str(yaml_get(root, "f")), "plain over two lines");
	assert_string_equal(yaml_str(yaml_get(root, "true")), "no");
	assert_string_equal(yaml_str(yaml_get(root, "h")), "");
}

static void test_not_there(void **state)
{
	(void)state;
	struct yaml *y cleanup(yaml_freep) = parse("a: {b: [c]}\n");
	const struct yaml_node *root = yaml_root(y);
	assert_null(yaml_get(root, "A"));
	assert_null(yaml_get(NULL, "a"));
	assert_null(yaml_at(NULL, "a", NULL));
	assert_null(yaml_at(root, "a", "b", "c", NULL));
	assert_null(yaml_at(root, "x", "y", NULL));
	assert_ptr_equal(yaml_at(root, NULL), root);
	assert_null(yaml_str(root));
	assert_null(yaml_str(NULL));
	int children = 0;
	const struct yaml_node *none = NULL;
	yaml_each(child, none)
		children += child != NULL;
	assert_int_equal(children, 0);
	struct yaml *nothing = NULL;
	yaml_freep(&nothing);
}

static void test_line_breaks_and_marks(void **state)
{
	(void)state;
	struct yaml *crlf cleanup(yaml_freep) = parse("a: \xC3\xA4\r\nb:\r\n  - x\r\n  - y\r\n");
	assert_ranges(crlf, yaml_root(crlf));
	assert_string_equal(yaml_str(item(yaml_get(yaml_root(crlf), "b"), 1)), "y");
	struct yaml *bom cleanup(yaml_freep) = parse("\xEF\xBB\xBF"
						     "a: x\nb: y\n");
	assert_ranges(bom, yaml_root(bom));
	assert_string_equal(yaml_str(yaml_get(yaml_root(bom), "b")), "y");
	struct yaml *open cleanup(yaml_freep) = parse("a: x");
	assert_ranges(open, yaml_root(open));
}

/* --- Hostile input --------------------------------------------------------------------------- */

static void test_what_is_refused(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"", "\n", "# only a comment\n", "---\n---\n", "a: 1\n---\nb: 2\n", "a: &x 1\n", "a: *x\n",
		"a: &x 1\nb: *x\n", "&x [1]\n", "&x {a: 1}\n", "a: !mine 1\n", "a: !!binary QQ==\n", "a: !!set {b}\n",
		"!<tag:example.org,2000:x> a\n", "[a, b]: 1\n", "? {a: 1}\n: 2\n", "a: 1\na: 2\n", "{a: 1, a: 2}\n",
		"x:\n- b: 1\n  c: 2\n  b: 1\n", "a: 1\n\"a\": 2\n", "a: \"x\\0y\"\n", "a: \"open\n", "a: 'open\n",
		"a: [1\n", "a: {b\n", "a: b: c\n", "\tindented: by tab\n", "a:\n\t- b\n", "a: 1\n  b: 2\n", "- a\nb: 1\n",
		"a: @x\n", "a: `x\n", "a: \"\\q\"\n", "a: \x01\n", "\x80\n", "a: \xC3\n", "a: \xED\xA0\x80\n", "%YAML 3.0\n--- a\n",
		"a: |x\n  b\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_refused(cases[i]);
	assert_refused_bytes("a: b\0c\n", 7);
	assert_refused_bytes("a: b\n\0", 6);
	assert_refused_bytes("a\0: b\n", 6);
	assert_refused_bytes("\xFF\xFE"
			     "a\0:\0 \0b\0",
			     10); /* UTF-16 */
}

static void test_core_tags_are_fine(void **state)
{
	(void)state;
	struct yaml *y cleanup(yaml_freep) = parse("a: !!str 1\nb: !!map {c: !!int 2}\nd: !!seq [!!bool true]\n");
	assert_string_equal(yaml_str(yaml_get(yaml_root(y), "a")), "1");
	assert_string_equal(yaml_str(yaml_at(yaml_root(y), "b", "c", NULL)), "2");
}

static void test_errors_name_the_line_and_quote_nothing(void **state)
{
	(void)state;
	static const char *const cases[] = {
		"a: 1\nb: hunter2: x\n",
		"a: 1\nb: &hunter2 x\n",
		"a: 1\nb: !hunter2 x\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct yaml *y = NULL;
		struct err e = { 0 };
		assert_false(parse_exact(cases[i], strlen(cases[i]), &y, &e).ok);
		assert_true(str_starts(e.message, "YAML: line 2: "));
		assert_null(strstr(e.message, "hunter2"));
	}
}

static void assert_depth(const char *open, const char *close, size_t depth, bool fine)
{
	struct buf b cleanup(buf_release) = BUF_INIT;
	for (size_t i = 0; i < depth; i++)
		buf_add_str(&b, open);
	buf_add_str(&b, "x");
	for (size_t i = 0; i < depth; i++)
		buf_add_str(&b, close);
	if (!fine) {
		assert_refused_bytes(b.data, b.len);
		return;
	}
	struct yaml *y cleanup(yaml_freep) = parse(b.data);
	assert_ranges(y, yaml_root(y));
}

static void test_depth(void **state)
{
	(void)state;
	assert_depth("[", "]", 64, true);
	assert_depth("[", "]", 65, false);
	assert_depth("{a: ", "}", 64, true);
	assert_depth("{a: ", "}", 65, false);
	assert_depth("- ", "", 64, true);
	assert_depth("- ", "", 65, false);
	assert_depth("[", "", 100000, false);
	assert_depth("- ", "", 100000, false);
	assert_depth("{a: ", "", 100000, false);
	assert_depth("? ", "", 100000, false);
}

static void test_size(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT;
	for (int i = 0; i < 65535; i++)
		buf_add_str(&b, "- x\n");
	struct yaml *y cleanup(yaml_freep) = parse(b.data); /* with the list itself 65,536 */
	assert_non_null(y);
	buf_add_str(&b, "- x\n");
	assert_refused_bytes(b.data, b.len);
	struct buf large cleanup(buf_release) = BUF_INIT;
	buf_add_str(&large, "a: ");
	char *filler cleanup(str_freep) = mem_alloc((4 << 20) + 1);
	memset(filler, 'x', 4 << 20);
	buf_add(&large, filler, (4 << 20) - 3);
	struct yaml *most cleanup(yaml_freep) = parse(large.data);
	assert_non_null(most);
	buf_add_char(&large, 'x');
	assert_refused_bytes(large.data, large.len);
}

/* A cut document is an error or a shorter document; never a crash, never a range beyond the text. */
static void test_every_truncation(void **state)
{
	(void)state;
	char *manifest cleanup(str_freep) = fixture("kube-controller-manager.yaml");
	const char *const texts[] = { odd, manifest };
	for (size_t t = 0; t < ARRAY_LEN(texts); t++) {
		size_t len = strlen(texts[t]), taken = 0;
		for (size_t n = 0; n < len; n++) {
			struct yaml *y cleanup(yaml_freep) = NULL;
			struct err e = { 0 };
			if (parse_exact(texts[t], n, &y, &e).ok) {
				assert_ranges(y, yaml_root(y));
				taken++;
			} else {
				assert_int_equal(e.kind, ERR_INPUT);
			}
		}
		assert_true(taken > 0 && taken < len);
	}
	/* In brackets no cut goes unnoticed. */
	static const char flow[] = "{a: [1, \"two\", 'three'], b: {c: d}}";
	for (size_t n = 0; n < strlen(flow); n++)
		assert_refused_bytes(flow, n);
}

static void test_every_byte_changed(void **state)
{
	(void)state;
	static const unsigned char others[] = { 0,   '"', '\'', '{', '}', '[',	']',  ',',  ':',  '-',	'#',
						'|', '>', '&',	'*', '!', '\t', '\n', '\\', 0x80, 0xC3, 0xFF };
	char *text cleanup(str_freep) = str_dup(odd);
	size_t len = strlen(odd), taken = 0;
	for (size_t at = 0; at < len; at++) {
		for (size_t i = 0; i < sizeof(others); i++) {
			text[at] = (char)others[i];
			struct yaml *y cleanup(yaml_freep) = NULL;
			struct err e = { 0 };
			if (parse_exact(text, len, &y, &e).ok)
				taken++;
			else
				assert_int_equal(e.kind, ERR_INPUT);
		}
		text[at] = odd[at];
	}
	assert_true(taken > 500);
}

/* --- Changing -------------------------------------------------------------------------------- */

static char *apply(const struct yaml *y, const struct yaml_edits *edits)
{
	struct buf b cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	if (!yaml_apply(y, edits, &b, &e).ok)
		fail_msg("%s", e.message);
	return buf_take(&b);
}

/* How long the two texts agree from the front, and from the back. */
static void assert_changed_only(const char *before, const char *after, size_t start, size_t end)
{
	assert_memory_equal(before, after, start);
	size_t tail = strlen(before) - end;
	assert_true(strlen(after) >= start + tail);
	assert_string_equal(before + end, after + strlen(after) - tail);
}

/* One value changed and changed back. */
static void assert_there_and_back(const struct yaml *y, const struct yaml_node *n, const char *value)
{
	const char *text = yaml_text(y);
	struct yaml_edits there cleanup(yaml_edits_release) = { 0 }, back cleanup(yaml_edits_release) = { 0 };
	yaml_edit_scalar(&there, n, value);
	char *changed cleanup(str_freep) = apply(y, &there);
	assert_changed_only(text, changed, n->start, n->end);
	struct yaml *z cleanup(yaml_freep) = parse(changed);
	const struct yaml_node *a = yaml_root(y), *b = yaml_root(z);
	while (a != NULL && a->start != n->start) { /* the same path in both */
		const struct yaml_node *x = a->first, *w = b->first;
		for (; x && x->end < n->end; x = x->next)
			w = w->next;
		a = x;
		b = w;
	}
	while (b->first)
		b = b->first;
	assert_string_equal(yaml_str(b), value);
	yaml_edit_scalar(&back, b, n->value);
	char *restored cleanup(str_freep) = apply(z, &back);
	assert_string_equal(restored, text);
}

static void test_every_flag_there_and_back(void **state)
{
	(void)state;
	static const char *const files[] = { "kube-apiserver.yaml", "kube-controller-manager.yaml",
					     "kube-scheduler.yaml", "etcd.yaml" };
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		char *text cleanup(str_freep) = fixture(files[i]);
		struct yaml *y cleanup(yaml_freep) = parse(text);
		size_t flags = 0;
		yaml_each(flag, command_of(y)) {
			if (flag->value[0] != '-')
				continue;
			char *longer cleanup(str_freep) = str_printf("%s/certrotation/other.pem", flag->value);
			assert_there_and_back(y, flag, longer);
			assert_there_and_back(y, flag, "--x");
			flags++;
		}
		assert_true(flags > 3);
	}
}

/* What people make of a manifest: comments, quotes, indentation, Windows' line ends. */
static const char edited_by_hand[] =
	"# managed by the platform team, call us\r\n"
	"apiVersion: v1\n"
	"kind:   Pod     # not a Deployment\n"
	"metadata: {name: kube-controller-manager, namespace: 'kube-system'}\n"
	"spec:\n"
	"   containers:\n"
	"      -   command:\n"
	"            - kube-controller-manager\n"
	"\n"
	"            # the CA\n"
	"            - \"--client-ca-file=/etc/kubernetes/pki/ca.crt\"   # double\n"
	"            -    '--root-ca-file=/etc/kubernetes/pki/ca.crt'\n"
	"            - --cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt#not-a-comment # a comment\n"
	"            - --cluster-name=\xC3\xBC\xE2\x82\xAC\t\n"
	"            - \"--controllers=*,bootstrapsigner\"\n"
	"          args: [--v=2, \"--x=a, b\", '--y']\n"
	"          image: k8s.example/kube-controller-manager:v1.34.4\n"
	"   hostNetwork:    true\n"
	"   priority: 2000001000\n"
	"   # the end, no line break";

static void test_hand_edited_there_and_back(void **state)
{
	(void)state;
	struct yaml *y cleanup(yaml_freep) = parse(edited_by_hand);
	assert_ranges(y, yaml_root(y));
	const struct yaml_node *command = command_of(y);
	yaml_each(flag, command) {
		assert_there_and_back(y, flag, "--root-ca-file=/etc/kubernetes/pki/certrotation/root.crt");
		assert_there_and_back(y, flag, "--name=\xC3\xA4 it's \"quoted\"");
	}
	const struct yaml_node *container = item(yaml_at(yaml_root(y), "spec", "containers", NULL), 0);
	yaml_each(arg, yaml_get(container, "args"))
		assert_there_and_back(y, arg, "--z=1");
	assert_there_and_back(y, yaml_at(yaml_root(y), "metadata", "name", NULL), "other");
	assert_there_and_back(y, yaml_at(yaml_root(y), "spec", "hostNetwork", NULL), "false");
	assert_there_and_back(y, yaml_at(yaml_root(y), "spec", "priority", NULL), "7");
}

static void test_many_edits_at_once(void **state)
{
	(void)state;
	char *text cleanup(str_freep) = fixture("kube-controller-manager.yaml");
	struct yaml *y cleanup(yaml_freep) = parse(text);
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 }, back cleanup(yaml_edits_release) = { 0 };
	size_t n = 0;
	/* The last first: the order of asking does not matter. */
	const struct yaml_node *flags[64];
	yaml_each(flag, command_of(y))
		flags[n++] = flag;
	for (size_t i = n; i-- > 1;) {
		char *value cleanup(str_freep) = str_printf("%s%zu", flags[i]->value, i);
		yaml_edit_scalar(&edits, flags[i], value);
	}
	assert_int_equal(edits.n, n - 1);
	char *changed cleanup(str_freep) = apply(y, &edits);
	struct yaml *z cleanup(yaml_freep) = parse(changed);
	for (size_t i = 1; i < n; i++) {
		char *value cleanup(str_freep) = str_printf("%s%zu", flags[i]->value, i);
		assert_string_equal(yaml_str(item(command_of(z), i)), value);
		yaml_edit_scalar(&back, item(command_of(z), i), flags[i]->value);
	}
	char *restored cleanup(str_freep) = apply(z, &back);
	assert_string_equal(restored, text);
}

/* The text of `k`'s value after it was changed from what stands there. */
static void assert_edit(const char *before, const char *value, const char *want)
{
	struct yaml *y cleanup(yaml_freep) = parse(before);
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	yaml_edit_scalar(&edits, yaml_get(yaml_root(y), "k"), value);
	char *after cleanup(str_freep) = apply(y, &edits);
	assert_string_equal(after, want);
	struct yaml *z cleanup(yaml_freep) = parse(after);
	assert_string_equal(yaml_str(yaml_get(yaml_root(z), "k")), value);
}

static void test_quotes_only_where_needed(void **state)
{
	(void)state;
	assert_edit("k: a\n", "b", "k: b\n");
	assert_edit("k: a\n", "a", "k: a\n");
	assert_edit("k: 'a'\n", "it's", "k: 'it''s'\n");
	assert_edit("k: \"a\"\n", "q\"\\", "k: \"q\\\"\\\\\"\n");
	assert_edit("k: a # c\n", "x # y", "k: 'x # y' # c\n");
	assert_edit("k: a\n", "x: y", "k: 'x: y'\n");
	assert_edit("k: a\n", "- x", "k: '- x'\n");
	assert_edit("k: a\n", "[x]", "k: '[x]'\n");
	assert_edit("k: a\n", "*x", "k: '*x'\n");
	assert_edit("k: a\n", " x ", "k: ' x '\n");
	assert_edit("k: a\n", "x,y", "k: x,y\n");
	assert_edit("{k: a}\n", "x,y", "{k: 'x,y'}\n");
	assert_edit("{k: a}\n", "xy", "{k: xy}\n");
	assert_edit("k: a\n", "two\nlines", "k: \"two\\nlines\"\n");
	assert_edit("k: a\n", "tab\there", "k: \"tab\\there\"\n");
	assert_edit("k: a\n", "\xC3\xA4\xE2\x82\xAC", "k: \xC3\xA4\xE2\x82\xAC\n");
	assert_edit("k: a\n", "\xF0\x9F\x94\x91", "k: \"\\U0001F511\"\n"); /* libyaml writes no others */
	assert_edit("k: ~\n", "", "k: \"\"\n");
	assert_edit("k: 'a'\n", "", "k: ''\n");
	assert_edit("k:\n", "x", "k: x\n");
	assert_edit("k: # c\n", "x", "k: x # c\n");
	assert_edit("k: |\n  one\n  two\nl: 1\n", "three", "k: three\nl: 1\n");
	assert_edit("k: >\n  one\n\n\nl: 1\n", "a: b", "k: 'a: b'\n\n\nl: 1\n");
	assert_edit("k: one\n  two\nl: 1\n", "three", "k: three\nl: 1\n");
	assert_edit("k: 10.0.0.1\n", "10.0.0.2", "k: 10.0.0.2\n");
	assert_edit("k: 1h\n", "8760h0m0s", "k: 8760h0m0s\n");
}

/* A string that would be read as something else gets quotes; a boolean stays one. */
static void test_meaning_is_kept(void **state)
{
	(void)state;
	static const char *const others[] = {
		"true", "False", "yes", "NO", "on", "Off", "y", "n", "~", "null", "NULL", "", "1", "-1", "+7", "0x1F", "0o17",
		"017", "1_000", "1.5", ".5", "5.", "1e3", "1.5e-3", "-.inf", ".NaN", "190:20:30", "0b101", "2026-01-02",
		"2026-01-02T03:04:05Z", "<<", "=",
	};
	for (size_t i = 0; i < ARRAY_LEN(others); i++) {
		char *want cleanup(str_freep) = str_printf("k: \"%s\"\n", others[i]);
		assert_edit("k: text\n", others[i], want);
	}
	static const char *const strings[] = { "truely", "1h", "1.2.3", "v1", "0x", "e3", "1e", "a1", "-", "--x",
					       "1.5.", "10.96.0.0/16", "2026", "nullx", "0xg", "a:b", "https://x:6443" };
	for (size_t i = 0; i < ARRAY_LEN(strings); i++) {
		struct yaml *y cleanup(yaml_freep) = parse("k: text\n");
		struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
		yaml_edit_scalar(&edits, yaml_get(yaml_root(y), "k"), strings[i]);
		bool number = str_eq(strings[i], "2026"), dash = str_eq(strings[i], "-");
		assert_int_equal(edits.items[0].text[0] == '"', number);
		assert_int_equal(edits.items[0].text[0] == '\'', dash);
	}
	assert_edit("k: true\n", "false", "k: false\n");
	assert_edit("k: false # c\n", "true", "k: true # c\n");
	assert_edit("k: 10248\n", "0", "k: 0\n");
	assert_edit("k: 10\n", "true", "k: \"true\"\n");
	assert_edit("k: true\n", "1", "k: \"1\"\n");
	assert_edit("k: true\n", "text", "k: text\n");
	assert_edit("k: \"true\"\n", "false", "k: \"false\"\n");
	assert_edit("k: 'true'\n", "false", "k: 'false'\n");
	assert_edit("k:\n", "~", "k: ~\n");
	assert_edit("k:\n", "true", "k: \"true\"\n");
}

static void test_edits_that_clash(void **state)
{
	(void)state;
	struct yaml *y cleanup(yaml_freep) = parse("a: 1\nb: x\n");
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	yaml_edit_scalar(&edits, yaml_get(yaml_root(y), "b"), "y");
	yaml_edit_scalar(&edits, yaml_get(yaml_root(y), "b"), "z");
	struct buf out cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	buf_add_str(&out, "kept");
	assert_false(yaml_apply(y, &edits, &out, &e).ok);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_string_equal(out.data, "kept");
	struct yaml_edits none cleanup(yaml_edits_release) = { 0 };
	yaml_edit_scalar(&none, yaml_root(y), "not a scalar");
	assert_int_equal(none.n, 0);
	char *same cleanup(str_freep) = apply(y, &none);
	assert_string_equal(same, yaml_text(y));
}

static void test_values_that_are_not_utf8(void **state)
{
	(void)state;
	struct yaml *y cleanup(yaml_freep) = parse("a: x\n");
	for (int adding = 0; adding < 2; adding++) {
		struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
		struct buf out cleanup(buf_release) = BUF_INIT;
		struct err e = { 0 };
		if (adding)
			assert_true(yaml_edit_add(&edits, y, yaml_root(y), "b", "M\xFCnchen", &e).ok);
		else
			yaml_edit_scalar(&edits, yaml_get(yaml_root(y), "a"), "M\xFCnchen");
		assert_false(yaml_apply(y, &edits, &out, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
		assert_int_equal(out.len, 0);
	}
}

static void test_range_outside_the_text(void **state)
{
	(void)state;
	struct yaml *y cleanup(yaml_freep) = parse("a: 1\n");
	struct yaml_edit wrong[] = { { .start = 3, .end = 99, .text = (char *)(uintptr_t) "x" },
				     { .start = 4, .end = 3, .text = (char *)(uintptr_t) "x" } };
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct yaml_edits edits = { &wrong[i], 1, 1 };
		struct buf out cleanup(buf_release) = BUF_INIT;
		struct err e = { 0 };
		assert_false(yaml_apply(y, &edits, &out, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
	}
}

/* --- Adding ---------------------------------------------------------------------------------- */

static void add(struct yaml_edits *edits, const struct yaml *y, const struct yaml_node *parent, const char *key,
		const char *value)
{
	struct err e = { 0 };
	if (!yaml_edit_add(edits, y, parent, key, value, &e).ok)
		fail_msg("%s", e.message);
}

/* Adds to the node at `path` (NULL: the root). */
static void assert_add(const char *before, const char *path, const char *key, const char *value, const char *want)
{
	struct yaml *y cleanup(yaml_freep) = parse(before);
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	add(&edits, y, path ? yaml_get(yaml_root(y), path) : yaml_root(y), key, value);
	char *after cleanup(str_freep) = apply(y, &edits);
	assert_string_equal(after, want);
}

static void test_adding(void **state)
{
	(void)state;
	assert_add("a: 1\n", NULL, "b", "2", "a: 1\nb: 2\n");
	assert_add("a: 1", NULL, "b", "x", "a: 1\nb: x");
	assert_add("a: 1 # c\n# d\n", NULL, "b", "x", "a: 1 # c\nb: x\n# d\n");
	assert_add("a: 1\r\n", NULL, "b", "x", "a: 1\r\nb: x\r\n");
	assert_add("a:\n- x\n- y\nb: 1\n", "a", NULL, "z", "a:\n- x\n- y\n- z\nb: 1\n");
	assert_add("a:\n    -   x\nb: 1\n", "a", NULL, "z", "a:\n    -   x\n    - z\nb: 1\n");
	assert_add("a:\n   k: 1\n   l:\n   - x\nb: 1\n", "a", "m", "v", "a:\n   k: 1\n   l:\n   - x\n   m: v\nb: 1\n");
	assert_add("a:\n  k: |\n    text\n\nb: 1\n", "a", "m", "v", "a:\n  k: |\n    text\n  m: v\n\nb: 1\n");
	assert_add("a:\n  k:\nb: 1\n", "a", "m", "v", "a:\n  k:\n  m: v\nb: 1\n");
	assert_add("- - x\n", NULL, NULL, "y", "- - x\n- y\n");
	assert_add("a: 1\n", NULL, "on", "true", "a: 1\n\"on\": true\n"); /* the value is plain YAML */
	assert_add("a: 1\n", NULL, "b", "x: y", "a: 1\nb: 'x: y'\n");
	assert_add("a: 1\n", NULL, "b: c", "", "a: 1\n'b: c': \"\"\n");
	struct yaml *y cleanup(yaml_freep) = parse("- k: 1\n  l: 2\n- m: 3\n");
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	add(&edits, y, item(yaml_root(y), 0), "o", "v");
	char *after cleanup(str_freep) = apply(y, &edits);
	assert_string_equal(after, "- k: 1\n  l: 2\n  o: v\n- m: 3\n");
}

static void test_adding_to_real_files(void **state)
{
	(void)state;
	char *manifest cleanup(str_freep) = fixture("kube-controller-manager.yaml");
	char *config cleanup(str_freep) = fixture("kubelet-config.yaml");
	struct yaml *m cleanup(yaml_freep) = parse(manifest), *c cleanup(yaml_freep) = parse(config);
	struct yaml_edits flag cleanup(yaml_edits_release) = { 0 }, field cleanup(yaml_edits_release) = { 0 };
	add(&flag, m, command_of(m), NULL, "--cluster-signing-duration=87600h");
	char *with_flag cleanup(str_freep) = apply(m, &flag);
	assert_non_null(strstr(with_flag, "    - --enable-hostpath-provisioner=true\n"
					  "    - --cluster-signing-duration=87600h\n"
					  "    image: "));
	add(&field, c, yaml_root(c), "serverTLSBootstrap", "true");
	yaml_edit_scalar(&field, yaml_get(yaml_root(c), "rotateCertificates"), "false");
	add(&field, c, yaml_at(yaml_root(c), "authentication", "x509", NULL), "extra", "1");
	char *with_field cleanup(str_freep) = apply(c, &field);
	assert_true(str_ends(with_field, "volumeStatsAggPeriod: 0s\nserverTLSBootstrap: true\n"));
	assert_non_null(strstr(with_field, "\nrotateCertificates: false\n"));
	assert_non_null(strstr(with_field, "\n    clientCAFile: /etc/kubernetes/pki/ca.crt\n    extra: 1\nauthorization:"));
}

static void test_adding_in_several_places(void **state)
{
	(void)state;
	/* All three lists end on the same line; asked for from outside to inside, and two for one list. */
	struct yaml *y cleanup(yaml_freep) = parse("a:\n  b:\n    - x\n");
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	add(&edits, y, yaml_root(y), "c", "1");
	add(&edits, y, yaml_root(y), "d", "2");
	add(&edits, y, yaml_get(yaml_root(y), "a"), "e", "3");
	add(&edits, y, yaml_at(yaml_root(y), "a", "b", NULL), NULL, "y");
	yaml_edit_scalar(&edits, item(yaml_at(yaml_root(y), "a", "b", NULL), 0), "z");
	char *after cleanup(str_freep) = apply(y, &edits);
	assert_string_equal(after, "a:\n  b:\n    - z\n    - y\n  e: 3\nc: 1\nd: 2\n");
}

static void assert_no_add(const char *text, const char *path, const char *key, enum err_kind kind)
{
	struct yaml *y cleanup(yaml_freep) = parse(text);
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	struct err e = { 0 };
	const struct yaml_node *parent = path ? yaml_get(yaml_root(y), path) : yaml_root(y);
	assert_false(yaml_edit_add(&edits, y, parent, key, "v", &e).ok);
	assert_int_equal(e.kind, kind);
	assert_int_equal(edits.n, 0);
}

static void test_what_cannot_be_added(void **state)
{
	(void)state;
	assert_no_add("a: 1\n", NULL, "a", ERR_CONFLICT);
	assert_no_add("a: 1\n", NULL, NULL, ERR_INPUT);
	assert_no_add("- x\n", NULL, "k", ERR_INPUT);
	assert_no_add("a: {b: 1}\n", "a", "c", ERR_INPUT);
	assert_no_add("a: [1]\n", "a", NULL, ERR_INPUT);
	assert_no_add("a: []\n", "a", NULL, ERR_INPUT);
	assert_no_add("a: {}\n", "a", "c", ERR_INPUT);
	assert_no_add("a: text\n", "a", "c", ERR_INPUT);
	assert_no_add("a:\n", "a", "c", ERR_INPUT);
	assert_no_add("a: !!seq\n- x\n", "a", NULL, ERR_INPUT);
}

/* What comes out would be YAML, but say something else than was asked for: nothing comes out. */
static void test_layouts_that_mislead(void **state)
{
	(void)state;
	struct yaml *y cleanup(yaml_freep) = parse("{a: 1, b}\n"); /* `b "x"` is one name more, not a value */
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	struct buf out cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	yaml_edit_scalar(&edits, yaml_get(yaml_root(y), "b"), "x");
	assert_false(yaml_apply(y, &edits, &out, &e).ok);
	assert_int_equal(e.kind, ERR_INPUT);
	assert_int_equal(out.len, 0);
}

static void test_adding_behind_a_byte_order_mark(void **state)
{
	(void)state;
	assert_add("\xEF\xBB\xBF" "a:\n", NULL, "b", "x", "\xEF\xBB\xBF" "a:\nb: x\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reading_manifests),
		cmocka_unit_test(test_reading_any_style),
		cmocka_unit_test(test_not_there),
		cmocka_unit_test(test_line_breaks_and_marks),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_core_tags_are_fine),
		cmocka_unit_test(test_errors_name_the_line_and_quote_nothing),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_size),
		cmocka_unit_test(test_every_truncation),
		cmocka_unit_test(test_every_byte_changed),
		cmocka_unit_test(test_every_flag_there_and_back),
		cmocka_unit_test(test_hand_edited_there_and_back),
		cmocka_unit_test(test_many_edits_at_once),
		cmocka_unit_test(test_quotes_only_where_needed),
		cmocka_unit_test(test_meaning_is_kept),
		cmocka_unit_test(test_edits_that_clash),
		cmocka_unit_test(test_values_that_are_not_utf8),
		cmocka_unit_test(test_range_outside_the_text),
		cmocka_unit_test(test_adding),
		cmocka_unit_test(test_adding_to_real_files),
		cmocka_unit_test(test_adding_in_several_places),
		cmocka_unit_test(test_what_cannot_be_added),
		cmocka_unit_test(test_layouts_that_mislead),
		cmocka_unit_test(test_adding_behind_a_byte_order_mark),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
