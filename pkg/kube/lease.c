#include "lease.h"
#include "pki.h"
#include "thread.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define DURATION_S 15
#define RENEW_DEADLINE_MS 10000
#define RETRY_MS 2000

struct lease {
	struct kube *kube;
	char *namespace, *name, *identity;
	void (*changed)(void *context, bool leading);
	void *context;
	pthread_t thread;
	pthread_mutex_t mutex;
	pthread_cond_t woken;
	bool stopping;               /* under the mutex */
	_Atomic int64_t held_until;  /* monotonic ms */
	/* Of another's Lease: what was seen, and since when by our own clock. Only the thread looks at it. */
	char *seen;
	int64_t seen_since;
	bool told;
};

bool lease_held(const struct lease *l)
{
	return clock_monotonic_ms() < atomic_load(&l->held_until);
}

/* --- One try --------------------------------------------------------------------------------------------------------------- */

static char *object_path(const struct lease *l)
{
	return str_printf("/apis/coordination.k8s.io/v1/namespaces/%s/leases/%s", l->namespace, l->name);
}

static void set_spec(struct json *object, const char *holder, bool acquired, int64_t transitions)
{
	struct json *spec = json_ensure_object(object, "spec");
	char now[40];
	time_format_micro(clock_now_ms(), now);
	json_set_str(spec, "holderIdentity", holder);
	json_set_int(spec, "leaseDurationSeconds", DURATION_S);
	json_set_str(spec, "renewTime", now);
	json_set_int(spec, "leaseTransitions", transitions);
	if (acquired)
		json_set_str(spec, "acquireTime", now);
}

static result create(struct lease *l, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("/apis/coordination.k8s.io/v1/namespaces/%s/leases", l->namespace);
	struct json *object cleanup(json_freep) = json_object();
	json_set_str(object, "apiVersion", "coordination.k8s.io/v1");
	json_set_str(object, "kind", "Lease");
	json_set_str(json_ensure_object(object, "metadata"), "name", l->name);
	set_spec(object, l->identity, true, 0);
	return kube_create(l->kube, path, object, NULL, e);
}

/* True when another holds it and may be alive: seen to change within its duration. */
static bool another_lives(struct lease *l, const struct json *spec)
{
	const char *holder = json_str_or(json_get(spec, "holderIdentity"), "");
	char *now cleanup(str_freep) = str_printf("%s %s", holder, json_str_or(json_get(spec, "renewTime"), ""));
	if (!*holder || str_eq(holder, l->identity))
		return false;
	if (!str_eq(now, l->seen)) {
		str_freep(&l->seen);
		l->seen = steal(&now);
		l->seen_since = clock_monotonic_ms();
	}
	return clock_monotonic_ms() - l->seen_since < json_get_int(spec, "leaseDurationSeconds", DURATION_S) * 1000;
}

static result try_lease(struct lease *l, bool *ret_ours, struct err *e)
{
	char *path cleanup(str_freep) = object_path(l);
	struct json *object cleanup(json_freep) = NULL;
	struct err missing = { 0 };
	if (!kube_get(l->kube, path, &object, &missing).ok) {
		if (missing.kind != ERR_NOT_FOUND) {
			*e = missing;
			return FAILED;
		}
		TRY(create(l, e));
		*ret_ours = true;
		return OK;
	}
	const struct json *spec = json_get(object, "spec");
	if (another_lives(l, spec)) {
		*ret_ours = false;
		return OK;
	}
	bool ours = str_eq(json_get_str(spec, "holderIdentity"), l->identity);
	set_spec(object, l->identity, !ours, json_get_int(spec, "leaseTransitions", 0) + !ours);
	TRY(kube_update(l->kube, path, object, NULL, e)); /* resourceVersion is the one that was read */
	*ret_ours = true;
	return OK;
}

/* --- The thread -------------------------------------------------------------------------------------------------------------- */

static void tell(struct lease *l)
{
	bool now = lease_held(l);
	if (now == l->told)
		return;
	l->told = now;
	l->changed(l->context, now);
}

static int64_t jittered(int64_t ms)
{
	char hex[5];
	random_hex(2, hex);
	return ms + (int64_t)strtol(hex, NULL, 16) % (ms / 5);
}

static bool rest(struct lease *l, int64_t ms)
{
	pthread_mutex_lock(&l->mutex);
	if (!l->stopping)
		thread_cond_wait_ms(&l->woken, &l->mutex, ms);
	bool stop = l->stopping;
	pthread_mutex_unlock(&l->mutex);
	return !stop;
}

static void release(struct lease *l)
{
	char *path cleanup(str_freep) = object_path(l);
	struct json *object cleanup(json_freep) = NULL;
	struct err e;
	bool held = lease_held(l);
	atomic_store(&l->held_until, 0);
	if (!held || !kube_get(l->kube, path, &object, &e).ok ||
	    !str_eq(json_str(json_at(object, "spec", "holderIdentity", NULL)), l->identity))
		return;
	set_spec(object, "", false, json_int(json_at(object, "spec", "leaseTransitions", NULL), 0));
	if (!kube_update(l->kube, path, object, NULL, &e).ok)
		return; /* it runs out by itself */
}

static void *renew(void *context)
{
	struct lease *l = context;
	do {
		/* counted from before the request: the server's clock for it began no earlier */
		int64_t began = clock_monotonic_ms();
		bool ours = false;
		struct err e = { 0 };
		if (try_lease(l, &ours, &e).ok)
			atomic_store(&l->held_until, ours ? began + RENEW_DEADLINE_MS : 0);
		tell(l);
	} while (rest(l, jittered(RETRY_MS)));
	release(l);
	return NULL;
}

result lease_start(const struct kube *k, const char *namespace, const char *name, const char *identity,
		   void (*changed)(void *context, bool leading), void *context, struct lease **ret, struct err *e)
{
	struct lease *l = mem_alloc(sizeof *l);
	l->kube = kube_clone(k);
	l->namespace = str_dup(namespace);
	l->name = str_dup(name);
	l->identity = str_dup(identity);
	l->changed = changed;
	l->context = context;
	pthread_mutex_init(&l->mutex, NULL);
	thread_cond_init(&l->woken);
	result started = thread_start("lease", renew, l, &l->thread, e);
	if (!started.ok) {
		l->stopping = true;
		kube_freep(&l->kube);
		str_freep(&l->namespace);
		str_freep(&l->name);
		str_freep(&l->identity);
		free(l);
		return FAILED;
	}
	*ret = l;
	return OK;
}

void lease_stopp(struct lease **lp)
{
	struct lease *l = *lp;
	if (!l)
		return;
	pthread_mutex_lock(&l->mutex);
	l->stopping = true;
	pthread_cond_signal(&l->woken);
	pthread_mutex_unlock(&l->mutex);
	pthread_join(l->thread, NULL);
	pthread_cond_destroy(&l->woken);
	pthread_mutex_destroy(&l->mutex);
	kube_freep(&l->kube);
	str_freep(&l->namespace);
	str_freep(&l->name);
	str_freep(&l->identity);
	str_freep(&l->seen);
	free(l);
	*lp = NULL;
}
