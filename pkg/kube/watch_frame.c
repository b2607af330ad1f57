#include "watch_frame.h"

#include <string.h>

void frames_release(struct frames *f)
{
	buf_release(&f->rest);
}

static result check_len(size_t len, struct err *e)
{
	return len <= FRAME_MAX ? OK : err_set(e, ERR_INPUT, "a watch event of more than %zu bytes", FRAME_MAX);
}

/* The line that ends here: in the bytes alone, or begun earlier. */
static result take_line(struct frames *f, const char *bytes, size_t n,
			result (*each)(void *context, const char *frame, size_t len, struct err *e), void *context,
			struct err *e)
{
	TRY(check_len(f->rest.len + n, e));
	if (f->rest.len + n == 0)
		return OK;
	if (!f->rest.len)
		return each(context, bytes, n, e);
	buf_add(&f->rest, bytes, n);
	result taken = each(context, f->rest.data, f->rest.len, e);
	buf_release(&f->rest); /* not kept at the size of the largest */
	return taken;
}

result frames_feed(struct frames *f, const char *bytes, size_t n,
		   result (*each)(void *context, const char *frame, size_t len, struct err *e), void *context,
		   struct err *e)
{
	for (const char *end; n && (end = memchr(bytes, '\n', n));) {
		size_t len = (size_t)(end - bytes);
		TRY(take_line(f, bytes, len, each, context, e));
		bytes += len + 1;
		n -= len + 1;
	}
	TRY(check_len(f->rest.len + n, e));
	buf_add(&f->rest, bytes, n);
	return OK;
}

static result error_frame(const struct json *status, struct err *e)
{
	int64_t code = json_get_int(status, "code", 0);
	enum err_kind kind = code == 410 ? ERR_EXPIRED : code == 429 || code == 503 ? ERR_BUSY : ERR_IO;
	return err_set(e, kind, "the server ended the watch: %lld %s", (long long)code,
		       json_str_or(json_get(status, "message"), ""));
}

result frame_read(const char *frame, size_t len, enum frame_kind *ret_kind, char **ret_version, struct err *e)
{
	struct json *event cleanup(json_freep) = NULL;
	TRY_CTX(json_parse(frame, len, &event, e), e, "watch event");
	const char *type = json_get_str(event, "type"), *version;
	if (!type)
		return err_set(e, ERR_INPUT, "watch event without a type");
	if (str_eq(type, "ERROR"))
		return error_frame(json_get(event, "object"), e);
	version = json_str(json_at(event, "object", "metadata", "resourceVersion", NULL));
	*ret_version = version && *version ? str_dup(version) : NULL;
	if (str_eq(type, "ADDED") || str_eq(type, "MODIFIED") || str_eq(type, "DELETED"))
		*ret_kind = FRAME_CHANGE;
	else
		*ret_kind = str_eq(type, "BOOKMARK") ? FRAME_BOOKMARK : FRAME_OTHER;
	return OK;
}
