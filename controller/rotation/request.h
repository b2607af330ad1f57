/* Reading a CertificateRotation: the API server's admission has checked it against the schema, but nothing here relies on it. */
#ifndef REQUEST_H
#define REQUEST_H

#include "json.h"
#include "world.h"

/* ERR_INPUT names the field and what is allowed. */
result request_parse(const struct json *object, struct request *ret, struct err *e) MUST_CHECK;
/* Go's duration syntax, as far as CRDs use it: "8760h", "90m", "1h30m". Milliseconds. ERR_INPUT. */
result duration_parse(const char *text, int64_t *ret_ms, struct err *e) MUST_CHECK;
/* The part of the spec that a run obeys to its end, whatever happens to the CR: kept on the run's Secret. Caller frees. */
struct json *request_spec_copy(const struct request *r) __attribute__((returns_nonnull));
/* The strategy in such a copy; one that names none is of before there were two: Bridge. STRATEGY_COUNT: not one of ours. */
enum strategy request_copied_strategy(const struct json *copy);
/* Overrides the fields of a request by such a copy, and keeps in `ignored` which they were. ERR_INPUT: none, or not as
 * request_spec_copy makes it; r is as it was. */
result request_obey_copy(struct request *r, const struct json *copy, struct err *e) MUST_CHECK;

#endif
