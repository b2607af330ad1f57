#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Noreturn void fuzz_die(const char *file, int line, const char *what)
{
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
	abort();
}

/* A copy of exactly n bytes, and the '\0' that C strings need. */
static char *exact(const char *bytes, size_t n)
{
	char *copy = mem_alloc(n + 1);
	if (n)
		memcpy(copy, bytes, n);
	return copy;
}

char *fuzz_part(struct fuzz_input *in, size_t *ret_len)
{
	static const char mark[] = "====\n";
	const size_t mark_len = sizeof mark - 1;
	for (size_t at = 0; at + mark_len <= in->left; at++) {
		if (memcmp(in->at + at, mark, mark_len) != 0 || (at && in->at[at - 1] != '\n'))
			continue;
		char *part = exact(in->at, at);
		*ret_len = at;
		in->at += at + mark_len;
		in->left -= at + mark_len;
		return part;
	}
	char *part = exact(in->at, in->left);
	*ret_len = in->left;
	in->at += in->left;
	in->left = 0;
	return part;
}

int64_t fuzz_number(struct fuzz_input *in)
{
	size_t len = 0;
	char *text cleanup(str_freep) = fuzz_part(in, &len);
	return strtoll(text, NULL, 10);
}

bool fuzz_is_utf8(const char *text, size_t len)
{
	struct buf quoted cleanup(buf_release) = BUF_INIT;
	struct json *j cleanup(json_freep) = NULL;
	struct err e = { 0 };
	buf_add_char(&quoted, '"');
	for (size_t i = 0; i < len; i++)
		buf_add_char(&quoted, (unsigned char)text[i] < ' ' || text[i] == '"' || text[i] == '\\' ? '.' : text[i]);
	buf_add_char(&quoted, '"');
	return json_parse(buf_str(&quoted), quoted.len, &j, &e).ok;
}

void fuzz_check_err(const struct err *e)
{
	MUST(memchr(e->message, '\0', sizeof e->message));
	MUST(e->message[0]);
}

void fuzz_check_json(const struct json *j)
{
	char *text cleanup(str_freep) = json_text(j);
	struct json *again cleanup(json_freep) = NULL;
	struct err e = { 0 };
	MUST(json_parse(text, strlen(text), &again, &e).ok);
	MUST(json_equal(j, again));
}

/* As the schema counts: characters. Not there is fine. */
static bool fits(const struct json *text, size_t most)
{
	size_t n = 0;
	for (const char *p = json_str_or(text, ""); *p; p++)
		n += ((unsigned char)*p & 0xC0) != 0x80;
	return n <= most;
}

static void check_condition(const struct json *c, const struct json *all)
{
	size_t same = 0;
	const char *type = json_get_str(c, "type"), *state = json_get_str(c, "status"), *reason = json_get_str(c, "reason");
	MUST(type && reason && *reason && json_get_str(c, "message") && json_get_str(c, "lastTransitionTime"));
	MUST(str_eq(state, "True") || str_eq(state, "False"));
	MUST(fits(json_get(c, "reason"), 1024) && fits(json_get(c, "message"), 1024)); /* the schema takes 32,768; Events do not */
	json_each(other, all)
		same += str_eq(json_get_str(other, "type"), type);
	MUST(same == 1);
}

void fuzz_check_status(const struct json *status)
{
	MUST(fits(json_get(status, "progressSummary"), 256) && fits(json_get(status, "waitingFor"), 1024));
	MUST(json_len(json_get(status, "conditions")) <= 32 && json_len(json_get(status, "blockers")) <= 100);
	json_each(c, json_get(status, "conditions"))
		check_condition(c, json_get(status, "conditions"));
	json_each(p, json_get(status, "progress")) {
		MUST(fits(json_get(p, "kind"), 63) && json_len(json_get(p, "waitingFor")) <= 10);
		MUST(json_get_int(p, "done", -1) >= 0 && json_get_int(p, "total", -1) >= 0);
		json_each(name, json_get(p, "waitingFor"))
			MUST(fits(name, 512));
	}
	json_each(b, json_get(status, "blockers"))
		MUST(json_get_str(b, "code") && json_get_str(b, "message") && fits(json_get(b, "code"), 63) &&
		     fits(json_get(b, "object"), 1024) && fits(json_get(b, "message"), 4096));
	const struct json *run = json_get(status, "run"), *accepted = json_get(status, "acceptedStragglers");
	MUST(fits(json_get(run, "trigger"), 63) && fits(json_get(run, "id"), 63));
	MUST(json_len(accepted) <= 100);
	json_each(name, accepted)
		MUST(fits(name, 384));
}

void fuzz_authority(const struct cert **ret_ca, const struct key **ret_key)
{
	static struct key *key;
	static struct cert *ca;
	const struct ca_request r = { .common_name = "kubernetes", .unique = "fuzz", .now_ms = FUZZ_NOW_MS,
				      .validity_ms = (int64_t)3650 * 86400000 };
	struct err e = { 0 };
	if (!ca) {
		MUST(key_generate("ECDSA-P256", &key, &e).ok);
		MUST(ca_make(&r, key, &ca, &e).ok);
	}
	*ret_ca = ca;
	*ret_key = key;
}
