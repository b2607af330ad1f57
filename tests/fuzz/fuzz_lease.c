/* LINK: kube */
/* A Lease that somebody else wrote: taken only when it may be, and then nothing of it is lost but what a holder writes. lease.c is
 * here as it is, with its requests answered below. */
#include "fuzz.h"

#include "lease.c"

#include <string.h>

#define US "us_4711"

static const struct json *in_api; /* what is read; NULL: not there */
static struct json *written;
static bool was_created;

result kube_get(struct kube *k UNUSED, const char *path UNUSED, struct json **ret, struct err *e)
{
	if (!in_api)
		return err_set(e, ERR_NOT_FOUND, "not there");
	*ret = json_copy(in_api);
	return OK;
}

static result answer(const struct json *object, bool create_it, struct json **ret_or_null)
{
	json_freep(&written);
	written = json_copy(object);
	was_created = create_it;
	if (ret_or_null)
		*ret_or_null = json_copy(object);
	return OK;
}

result kube_create(struct kube *k UNUSED, const char *path UNUSED, const struct json *object, struct json **ret_or_null, struct err *e UNUSED)
{
	return answer(object, true, ret_or_null);
}

result kube_update(struct kube *k UNUSED, const char *path UNUSED, const struct json *object, struct json **ret_or_null, struct err *e UNUSED)
{
	return answer(object, false, ret_or_null);
}

void kube_limits(struct kube *k UNUSED, int64_t timeout_ms, int tries)
{
	MUST(timeout_ms > 0 && tries > 0);
}

struct kube *kube_clone(const struct kube *k UNUSED)
{
	abort();
}

void kube_freep(struct kube **k UNUSED)
{
}

static void changed(void *context UNUSED, bool leading UNUSED)
{
}

static struct json *without_ours(const struct json *object)
{
	static const char *const fields[] = { "acquireTime", "leaseTransitions", "holderIdentity", "leaseDurationSeconds", "renewTime" };
	struct json *rest = json_copy(object), *spec = json_get_mut(rest, "spec");
	for (size_t i = 0; i < ARRAY_LEN(fields); i++)
		json_remove(spec, fields[i]);
	return rest;
}

static void check_written(const struct json *before, const char *holder, int64_t duration_s)
{
	const struct json *spec = json_get(written, "spec");
	int64_t ms = 0;
	struct err e = { 0 };
	fuzz_check_json(written);
	MUST(str_eq(json_get_str(spec, "holderIdentity"), holder));
	MUST(json_get_int(spec, "leaseDurationSeconds", 0) == duration_s);
	MUST(time_parse(json_get_str(spec, "renewTime"), &ms, &e).ok);
	if (!json_is_object(json_get(before, "spec")))
		return;
	struct json *a cleanup(json_freep) = without_ours(before), *b cleanup(json_freep) = without_ours(written);
	MUST(json_equal(a, b));
}

static void try_to_lead(struct lease *l, const struct json *object)
{
	const char *holder = holder_of(object);
	bool anothers = *holder && !str_eq(holder, US);
	int64_t ms = duration_ms(l, json_get(object, "spec"));
	struct err e = { 0 };
	MUST(ms >= 1000 && ms <= 600000);
	MUST(look_and_take(l, &e).ok);
	MUST(lease_held(l) == !anothers && (written != NULL) == !anothers);
	if (anothers)
		return;
	MUST(!was_created);
	check_written(object, US, usual.duration_s);
	in_api = written;
	struct json *ours cleanup(json_freep) = json_copy(written);
	in_api = ours;
	MUST(acquire_or_renew(l, &e).ok && lease_held(l));
	check_written(ours, US, usual.duration_s);
	MUST(give_back_once(l, &e).ok);
	check_written(ours, "", 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static char us[] = US, name[] = "certrotation", path[] = "/p";
	struct json *object cleanup(json_freep) = NULL;
	struct lease l = { .times = usual, .identity = us, .name = name, .folder = path, .path = path, .changed = changed };
	struct err e = { 0 };
	if (!json_parse((const char *)data, size, &object, &e).ok || !json_is_object(object))
		return 0;
	pthread_mutex_init(&l.lock, NULL);
	in_api = object;
	try_to_lead(&l, object);
	pthread_mutex_destroy(&l.lock);
	json_freep(&l.ours);
	json_freep(&l.seen);
	str_freep(&l.holder);
	json_freep(&written);
	return 0;
}
