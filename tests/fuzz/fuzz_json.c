/* json_parse: what it takes it can print and read again, the same; what it refuses leaves nothing behind. */
#include "fuzz.h"

#include <string.h>

#define DEPTH_MAX 64

/* Everything a reader may ask of a node, on every node. */
static size_t walk(const struct json *j, size_t depth)
{
	size_t n = 1, len = 0;
	MUST(depth <= DEPTH_MAX);
	MUST(json_equal(j, j));
	int64_t number = json_int(j, INT64_MIN);
	MUST(number == INT64_MIN || (number >= -((int64_t)1 << 53) && number <= (int64_t)1 << 53));
	MUST(!json_str(j) || fuzz_is_utf8(json_str(j), strlen(json_str(j))));
	json_each(item, j) {
		n += walk(item, depth + 1);
		len++;
		MUST(json_is_array(j) ? !json_name(item) : json_get(j, json_name(item)) == item);
	}
	MUST(len == json_len(j));
	MUST(!len || json_is_array(j) || json_is_object(j));
	return n;
}

static void check_copy(const struct json *j)
{
	struct json *copy cleanup(json_wipep) = json_copy(j);
	MUST(json_equal(j, copy) && json_equal(copy, j));
	json_set_str(copy, "name", "value\xFF");
	json_add_str(copy, "item");
	json_remove(json_ensure_object(copy, "inner"), "nothing");
	MUST(!json_is_object(copy) || str_eq(json_get_str(copy, "name"), "value\xEF\xBF\xBD"));
	if (json_is_object(copy) || json_is_array(copy))
		fuzz_check_json(copy);
}

static void check_pretty(const struct json *j)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct json *again cleanup(json_freep) = NULL;
	struct err e = { 0 };
	json_print_pretty(j, &text);
	MUST(json_parse(buf_str(&text), text.len, &again, &e).ok);
	MUST(json_equal(j, again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json *j cleanup(json_freep) = NULL;
	struct err e = { 0 };
	if (!json_parse((const char *)data, size, &j, &e).ok) {
		MUST(!j && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return 0;
	}
	MUST(j && !e.message[0]);
	walk(j, 0);
	fuzz_check_json(j);
	check_pretty(j);
	check_copy(j);
	return 0;
}
