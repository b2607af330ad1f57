#define _DEFAULT_SOURCE /* explicit_bzero */

#include "json.h"

#include <cjson/cJSON.h>
#include <ctype.h>
#include <inttypes.h>
#include <malloc.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64
#define INTEGER_MAX 9007199254740992.0 /* 2^53 */

/* --- Memory ---------------------------------------------------------------------------------- */

/* Whatever cJSON lets go of may have been a key or a token: strings of a document, of half a document, and the
 * buffers it outgrew while printing. So all of it is overwritten, at the cost of one memset. */
static void wipe_and_free(void *p)
{
	if (p)
		explicit_bzero(p, malloc_usable_size(p));
	free(p);
}

__attribute__((constructor)) static void hooks_install(void)
{
	cJSON_Hooks hooks = { .malloc_fn = mem_alloc, .free_fn = wipe_and_free };
	cJSON_InitHooks(&hooks);
}

static const cJSON *in(const struct json *j)
{
	return (const cJSON *)(const void *)j;
}

static cJSON *in_mut(struct json *j)
{
	return (cJSON *)(void *)j;
}

static const struct json *out(const cJSON *c)
{
	return (const struct json *)(const void *)c;
}

static struct json *out_mut(cJSON *c)
{
	return (struct json *)(void *)c;
}

void json_freep(struct json **j)
{
	cJSON_Delete(in_mut(*j));
	*j = NULL;
}

void json_wipep(struct json **j)
{
	json_freep(j); /* wipe_and_free does it */
}

struct json *json_copy(const struct json *j)
{
	cJSON *copy = cJSON_Duplicate(in(j), true);
	return copy ? out_mut(copy) : json_null();
}

/* --- Numbers --------------------------------------------------------------------------------- */

static bool is_integer(double d)
{
	return d >= -9.2e18 && d <= 9.2e18 && !(d < (double)(int64_t)d) && !(d > (double)(int64_t)d);
}

/* cJSON prints 15 digits and takes them for enough when they are nearly so: 9007199254740991 loses its last digit, and
 * 10^15 becomes 1e+15, which is no int64 for Go. Such a number is given its text here; it stays a number for json_int. */
static void number_keep(cJSON *c)
{
	double d = c->valuedouble;
	char text[32];
	(void)snprintf(text, sizeof(text), "%1.15g", d);
	double back = strtod(text, NULL);
	bool exact = !(back < d) && !(back > d);
	if (exact && !(is_integer(d) && strchr(text, 'e')))
		return;
	if (is_integer(d))
		(void)snprintf(text, sizeof(text), "%" PRId64, (int64_t)d);
	else if (!exact)
		(void)snprintf(text, sizeof(text), "%1.17g", d);
	c->type = cJSON_Raw;
	c->valuestring = str_dup(text);
}

static bool is_number(const cJSON *c)
{
	return cJSON_IsNumber(c) || cJSON_IsRaw(c);
}

/* --- Parsing: what cJSON lets through and RFC 8259 does not ------------------------------------ */

/* Length of the UTF-8 character at s (RFC 3629), 0 when it is none. */
static size_t utf8_len(const unsigned char *s, size_t left)
{
	if (s[0] < 0x80)
		return 1;
	size_t len = s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : 2;
	if (s[0] < 0xC2 || s[0] > 0xF4 || len > left)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((s[i] & 0xC0) != 0x80)
			return 0;
	bool overlong = (s[0] == 0xE0 && s[1] < 0xA0) || (s[0] == 0xF0 && s[1] < 0x90);
	bool surrogate = s[0] == 0xED && s[1] > 0x9F;
	bool too_large = s[0] == 0xF4 && s[1] > 0x8F;
	return overlong || surrogate || too_large ? 0 : len;
}

/* "\u" and four hexadecimal digits, not all zero. cJSON takes "\u00zz" for a zero byte, and a zero byte, however it is
 * written, would end the C string early: "admin\u0000x" must not read as "admin". */
static bool is_sound_escape(const char *text, size_t at, size_t len)
{
	if (at + 1 >= len || text[at + 1] != 'u')
		return true; /* the other escapes are cJSON's business */
	bool zero = true;
	for (size_t i = at + 2; i < at + 6; i++) {
		if (i >= len || !isxdigit((unsigned char)text[i]))
			return false;
		zero = zero && text[i] == '0';
	}
	return !zero;
}

static result check_text(const char *text, size_t len, struct err *e)
{
	const unsigned char *bytes = (const unsigned char *)text;
	for (size_t at = 0; at < len;) {
		size_t n = utf8_len(bytes + at, len - at);
		if (n == 0)
			return err_set(e, ERR_INPUT, "JSON: not UTF-8 at byte %zu", at);
		if (bytes[at] < 0x20 && bytes[at] != '\t' && bytes[at] != '\n' && bytes[at] != '\r')
			return err_set(e, ERR_INPUT, "JSON: control character at byte %zu", at);
		if (text[at] == '\\' && !is_sound_escape(text, at, len))
			return err_set(e, ERR_INPUT, "JSON: broken escape or zero byte in a string at byte %zu", at);
		at += text[at] == '\\' && at + 1 < len && bytes[at + 1] < 0x80 ? 2 : n;
	}
	return OK;
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Two members of one name: readers differ on which one counts, so it is none. */
static bool has_duplicates(const cJSON *object)
{
	size_t n = (size_t)cJSON_GetArraySize(object), i = 0;
	if (n < 2)
		return false;
	const char **names = mem_alloc(n * sizeof(*names));
	for (const cJSON *m = object->child; m; m = m->next)
		names[i++] = m->string;
	qsort(names, n, sizeof(*names), compare_names);
	bool found = false;
	for (i = 1; i < n && !found; i++)
		found = str_eq(names[i - 1], names[i]);
	free(names);
	return found;
}

/* Recursion is bounded by DEPTH_MAX. */
static result check_tree(cJSON *c, int depth, struct err *e)
{
	if (depth > DEPTH_MAX)
		return err_set(e, ERR_INPUT, "JSON: nested deeper than %d", DEPTH_MAX);
	if (cJSON_IsNumber(c) && !isfinite(c->valuedouble))
		return err_set(e, ERR_INPUT, "JSON: a number is too large");
	if (cJSON_IsObject(c) && has_duplicates(c))
		return err_set(e, ERR_INPUT, "JSON: an object names a member twice");
	if (cJSON_IsNumber(c))
		number_keep(c);
	for (cJSON *child = c->child; child; child = child->next)
		TRY(check_tree(child, depth + 1, e));
	return OK;
}

static bool only_blanks(const char *from, const char *to)
{
	for (; from < to; from++)
		if (!strchr(" \t\r\n", *from))
			return false;
	return true;
}

result json_parse(const char *text, size_t len, struct json **ret, struct err *e)
{
	if (only_blanks(text, text + len))
		return err_set(e, ERR_INPUT, "JSON: the text is empty");
	TRY(check_text(text, len, e));
	const char *end = text;
	struct json *parsed cleanup(json_freep) =
		out_mut(cJSON_ParseWithLengthOpts(text, len, &end, false));
	size_t at = end ? (size_t)(end - text) : 0;
	if (!parsed)
		return err_set(e, ERR_INPUT, "JSON: syntax error at byte %zu of %zu", at, len);
	if (!only_blanks(text + at, text + len))
		return err_set(e, ERR_INPUT, "JSON: more text after the document, at byte %zu", at);
	TRY(check_tree(in_mut(parsed), 0, e));
	*ret = steal(&parsed);
	return OK;
}

/* --- Reading --------------------------------------------------------------------------------- */

const struct json *json_get(const struct json *j, const char *name)
{
	return json_is_object(j) ? out(cJSON_GetObjectItemCaseSensitive(in(j), name)) : NULL;
}

const struct json *json_at(const struct json *j, ...)
{
	va_list names;
	va_start(names, j);
	for (const char *name; j && (name = va_arg(names, const char *));)
		j = json_get(j, name);
	va_end(names);
	return j;
}

const struct json *json_index(const struct json *array, size_t i)
{
	const struct json *item = json_is_array(array) ? json_first(array) : NULL;
	while (item && i-- > 0)
		item = json_next(item);
	return item;
}

size_t json_len(const struct json *array_or_object)
{
	size_t n = 0;
	json_each(item, array_or_object)
		n++;
	return n;
}

const char *json_str(const struct json *j)
{
	return cJSON_IsString(in(j)) ? in(j)->valuestring : NULL;
}

const char *json_str_or(const struct json *j, const char *otherwise)
{
	const char *s = json_str(j);
	return s ? s : otherwise;
}

int64_t json_int(const struct json *j, int64_t otherwise)
{
	if (!is_number(in(j)))
		return otherwise;
	double d = in(j)->valuedouble;
	bool exact = is_integer(d) && d >= -INTEGER_MAX && d <= INTEGER_MAX;
	return exact ? (int64_t)d : otherwise;
}

bool json_bool(const struct json *j, bool otherwise)
{
	return cJSON_IsBool(in(j)) ? cJSON_IsTrue(in(j)) : otherwise;
}

bool json_is_object(const struct json *j)
{
	return cJSON_IsObject(in(j));
}

bool json_is_array(const struct json *j)
{
	return cJSON_IsArray(in(j));
}

bool json_is_null(const struct json *j)
{
	return cJSON_IsNull(in(j));
}

const char *json_get_str(const struct json *j, const char *name)
{
	return json_str(json_get(j, name));
}

int64_t json_get_int(const struct json *j, const char *name, int64_t otherwise)
{
	return json_int(json_get(j, name), otherwise);
}

bool json_get_bool(const struct json *j, const char *name, bool otherwise)
{
	return json_bool(json_get(j, name), otherwise);
}

const struct json *json_first(const struct json *j)
{
	return json_is_array(j) || json_is_object(j) ? out(in(j)->child) : NULL;
}

const struct json *json_next(const struct json *item)
{
	return item ? out(in(item)->next) : NULL;
}

const char *json_name(const struct json *member)
{
	return member ? in(member)->string : NULL;
}

static bool equal_arrays(const struct json *a, const struct json *b)
{
	const struct json *other = json_first(b);
	json_each(item, a) {
		if (!other || !json_equal(item, other))
			return false;
		other = json_next(other);
	}
	return !other;
}

/* Mostly both have the same order: the neighbour is looked at before the whole object is searched. */
static bool equal_objects(const struct json *a, const struct json *b)
{
	if (json_len(a) != json_len(b))
		return false;
	const struct json *hint = json_first(b);
	json_each(member, a) {
		const char *name = json_name(member);
		const struct json *other = str_eq(json_name(hint), name) ? hint : json_get(b, name);
		if (!other || !json_equal(member, other))
			return false;
		hint = json_next(other);
	}
	return true;
}

/* Not cJSON_Compare: that compares each object in both directions, which doubles the work with every level. */
bool json_equal(const struct json *a, const struct json *b)
{
	if (!a || !b)
		return a == b;
	if ((in(a)->type & 0xFF) != (in(b)->type & 0xFF))
		return false;
	if (json_is_object(a))
		return equal_objects(a, b);
	if (json_is_array(a))
		return equal_arrays(a, b);
	return cJSON_Compare(in(a), in(b), true);
}

/* --- Building -------------------------------------------------------------------------------- */

struct json *json_object(void)
{
	return out_mut(cJSON_CreateObject());
}

struct json *json_array(void)
{
	return out_mut(cJSON_CreateArray());
}

/* U+FFFD for what is not UTF-8 (a subject in Latin-1, say): one such byte would spoil the whole document. */
static void add_as_utf8(struct buf *text, const char *s)
{
	const unsigned char *bytes = (const unsigned char *)s;
	for (size_t at = 0, len = strlen(s); at < len;) {
		size_t n = utf8_len(bytes + at, len - at);
		if (n)
			buf_add(text, s + at, n);
		else
			buf_add_str(text, "\xEF\xBF\xBD");
		at += n ? n : 1;
	}
}

static bool is_utf8(const char *s)
{
	const unsigned char *bytes = (const unsigned char *)s;
	size_t n = 1;
	for (size_t at = 0, len = strlen(s); n && at < len; at += n)
		n = utf8_len(bytes + at, len - at);
	return n != 0;
}

struct json *json_string(const char *s)
{
	if (is_utf8(s))
		return out_mut(cJSON_CreateString(s));
	struct buf text cleanup(buf_release) = BUF_SECRET;
	text.cap = 4 * strlen(s);
	add_as_utf8(&text, s);
	return out_mut(cJSON_CreateString(buf_str(&text)));
}

struct json *json_number(int64_t n)
{
	cJSON *c = cJSON_CreateNumber((double)n);
	number_keep(c);
	return out_mut(c);
}

struct json *json_boolean(bool b)
{
	return out_mut(cJSON_CreateBool(b));
}

struct json *json_null(void)
{
	return out_mut(cJSON_CreateNull());
}

void json_set(struct json *object, const char *name, struct json *value_taken)
{
	if (!json_is_object(object)) {
		json_freep(&value_taken);
		return;
	}
	if (json_get(object, name))
		cJSON_ReplaceItemInObjectCaseSensitive(in_mut(object), name, in_mut(value_taken));
	else
		cJSON_AddItemToObject(in_mut(object), name, in_mut(value_taken));
}

void json_set_str(struct json *object, const char *name, const char *value)
{
	if (value)
		json_set(object, name, json_string(value));
}

void json_set_int(struct json *object, const char *name, int64_t value)
{
	json_set(object, name, json_number(value));
}

void json_set_bool(struct json *object, const char *name, bool value)
{
	json_set(object, name, json_boolean(value));
}

void json_remove(struct json *object, const char *name)
{
	if (json_is_object(object))
		cJSON_DeleteItemFromObjectCaseSensitive(in_mut(object), name);
}

void json_add(struct json *array, struct json *value_taken)
{
	if (json_is_array(array))
		cJSON_AddItemToArray(in_mut(array), in_mut(value_taken));
	else
		json_freep(&value_taken);
}

void json_add_str(struct json *array, const char *value)
{
	json_add(array, json_string(value));
}

struct json *json_get_mut(struct json *object, const char *name)
{
	if (!json_is_object(object))
		return NULL;
	return out_mut(cJSON_GetObjectItemCaseSensitive(in_mut(object), name));
}

struct json *json_ensure_object(struct json *object, const char *name)
{
	if (!json_is_object(json_get(object, name)))
		json_set(object, name, json_object());
	return json_get_mut(object, name);
}

struct json *json_ensure_array(struct json *object, const char *name)
{
	if (!json_is_array(json_get(object, name)))
		json_set(object, name, json_array());
	return json_get_mut(object, name);
}

/* --- Printing -------------------------------------------------------------------------------- */

static void print(const struct json *j, bool pretty, struct buf *to)
{
	char *text = j ? cJSON_PrintBuffered(in(j), 1024, pretty) : NULL;
	buf_add_str(to, text ? text : "null");
	cJSON_free(text);
}

void json_print(const struct json *j, struct buf *out)
{
	print(j, false, out);
}

void json_print_pretty(const struct json *j, struct buf *out)
{
	print(j, true, out);
}

char *json_text(const struct json *j)
{
	struct buf text cleanup(buf_release) = BUF_SECRET; /* for it moves while it grows */
	text.cap = (size_t)1 << 30;
	json_print(j, &text);
	return buf_take(&text);
}
