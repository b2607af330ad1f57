/* LINK: rotation */
/* A CertificateRotation by anybody's hand: either refused, with nothing left behind, or within its limits; and the copy that a
 * run obeys gives back what was copied. */
#include "fuzz.h"

#include "request.h"

#include <string.h>

static void check_limits(const struct request *r)
{
	static const char *const algorithms[] = { "RSA-2048", "RSA-4096", "ECDSA-P256", "ECDSA-P384" };
	const int64_t day = 86400000, century = (int64_t)876000 * 3600000;
	bool known = false;
	for (size_t i = 0; i < ARRAY_LEN(algorithms); i++)
		known = known || str_eq(r->key_algorithm, algorithms[i]);
	MUST(known);
	MUST(r->trigger && *r->trigger && strlen(r->trigger) <= 63);
	MUST(r->validity_ms >= day && r->validity_ms <= century);
	MUST(!r->leaf_validity_ms || (r->leaf_validity_ms >= day && r->leaf_validity_ms <= century));
	MUST(r->accepted.n <= 100);
	MUST(r->max_workers >= 1 && r->max_workers <= 100);
	MUST(r->pods_per_second >= 1 && r->pods_per_second <= 100);
	MUST(!r->deadline_ms || (r->deadline_ms >= 60000 && r->deadline_ms <= 8760 * day / 24));
	MUST(!r->approved_drop || !r->approved_other);
	MUST(r->name && r->uid);
}

static void check_copy(struct request *r)
{
	struct json *copy cleanup(json_freep) = request_spec_copy(r);
	struct json *again cleanup(json_freep) = NULL;
	struct err e = { 0 };
	fuzz_check_json(copy);
	MUST(request_obey_copy(r, copy, &e).ok);
	again = request_spec_copy(r);
	MUST(json_equal(copy, again));
	check_limits(r);
}

/* A copy that somebody has changed in the run's Secret. */
static void check_foreign_copy(struct request *r, const struct json *copy)
{
	struct err e = { 0 };
	bool manual = r->approval_manual;
	char *algorithm cleanup(str_freep) = str_dup(r->key_algorithm);
	int64_t validity = r->validity_ms;
	if (!request_obey_copy(r, copy, &e).ok) {
		fuzz_check_err(&e);
		MUST(str_eq(r->key_algorithm, algorithm) && r->validity_ms == validity);
	} else {
		check_limits(r);
	}
	MUST(r->approval_manual || !manual);
}

/* Input: the object, "====", a copy of a spec. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	size_t len = 0, copy_len = 0;
	char *text cleanup(str_freep) = fuzz_part(&in, &len), *copy_text cleanup(str_freep) = fuzz_part(&in, &copy_len);
	struct json *object cleanup(json_freep) = NULL, *copy cleanup(json_freep) = NULL;
	struct request r cleanup(request_release) = { 0 };
	struct err e = { 0 };
	if (!json_parse(text, len, &object, &e).ok)
		return 0;
	if (!request_parse(object, &r, &e).ok) {
		MUST(!r.trigger && !r.name && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return 0;
	}
	check_limits(&r);
	check_copy(&r);
	if (json_parse(copy_text, copy_len, &copy, &e).ok)
		check_foreign_copy(&r, copy);
	return 0;
}
