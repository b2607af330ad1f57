#include "lease.h"

#include "backoff.h"
#include "thread.h"

#include <stdatomic.h>
#include <stdlib.h>

#define LONGEST_DURATION_S 600
#define ROUNDS 3 /* of reading and writing, when others write in between */

static const struct lease_times usual = { .duration_s = 15, .renew_deadline_ms = 10000, .retry_ms = 2000, .request_ms = 4000 };

struct lease {
	struct lease_times times;
	struct kube *kube;
	char *identity, *name, *folder, *path;
	void (*changed)(void *context, bool leading);
	void *context;
	pthread_t thread;
	_Atomic int64_t held_until_ms; /* monotonic; 0: not held */
	/* Its thread's alone. */
	struct json *ours;             /* as our last write left it; NULL: read first */
	struct json *seen;             /* the spec seen last, of another's */
	int64_t seen_since_ms;         /* monotonic; unchanged since */
	bool told;                     /* what `changed` was told last */
	bool may_be_ours;              /* a write was sent, and nothing seen since that says otherwise */
	pthread_mutex_t lock;          /* of what follows */
	pthread_cond_t woken;
	bool stopping, failed;
	struct err why;
	char *holder;
};

bool lease_held(const struct lease *l)
{
	return clock_monotonic_ms() < atomic_load(&l->held_until_ms);
}

static void tell(struct lease *l)
{
	bool leading = lease_held(l);
	if (leading == l->told)
		return;
	l->told = leading;
	l->changed(l->context, leading);
}

static void note_holder(struct lease *l, const char *holder)
{
	pthread_mutex_lock(&l->lock);
	if (!str_eq(l->holder, holder)) {
		str_freep(&l->holder);
		l->holder = str_dup(holder);
	}
	pthread_mutex_unlock(&l->lock);
}

static void note_outcome(struct lease *l, result outcome, const struct err *why)
{
	pthread_mutex_lock(&l->lock);
	l->failed = !outcome.ok;
	if (!outcome.ok)
		l->why = *why;
	pthread_mutex_unlock(&l->lock);
}

/* --- The object ------------------------------------------------------------------------------------------------- */

static const char *holder_of(const struct json *object)
{
	return json_str_or(json_at(object, "spec", "holderIdentity", NULL), "");
}

/* What a holder writes. Everything else in the object stays: others' labels, strategy, preferredHolder. */
static void fill(struct json *object, const char *holder, int64_t duration_s, bool acquired)
{
	struct json *spec = json_ensure_object(object, "spec");
	char now[40];
	time_format_micro(clock_now_ms(), now);
	if (acquired) {
		bool first = !json_get(spec, "leaseTransitions");
		json_set_str(spec, "acquireTime", now);
		json_set_int(spec, "leaseTransitions", first ? 0 : json_get_int(spec, "leaseTransitions", 0) + 1);
	}
	json_set_str(spec, "holderIdentity", holder);
	json_set_int(spec, "leaseDurationSeconds", duration_s);
	json_set_str(spec, "renewTime", now);
}

static int64_t duration_ms(const struct lease *l, const struct json *spec)
{
	int64_t s = json_get_int(spec, "leaseDurationSeconds", 0);
	s = s > 0 ? s : l->times.duration_s;
	return 1000 * (s < LONGEST_DURATION_S ? s : LONGEST_DURATION_S);
}

/* True when another holds it and may be alive. */
static bool another_lives(struct lease *l, const struct json *object)
{
	const struct json *spec = json_get(object, "spec");
	const char *holder = holder_of(object);
	if (!*holder || str_eq(holder, l->identity))
		return false;
	if (!l->seen || !json_equal(l->seen, spec)) {
		json_freep(&l->seen);
		l->seen = json_copy(spec);
		l->seen_since_ms = clock_monotonic_ms();
	}
	return clock_monotonic_ms() - l->seen_since_ms < duration_ms(l, spec);
}

/* --- Requests --------------------------------------------------------------------------------------------------- */

/* Before each request. While leading, an answer that comes after the deadline is of no use. */
static void limit_request(struct lease *l)
{
	tell(l);
	int64_t left = atomic_load(&l->held_until_ms) - clock_monotonic_ms();
	int64_t longest = l->times.request_ms, shortest = longest / 4;
	int64_t ms = left > 0 && left < longest ? left : longest;
	kube_limits(l->kube, ms < shortest ? shortest : ms, 1);
}

static void not_ours(struct lease *l)
{
	json_freep(&l->ours);
	atomic_store(&l->held_until_ms, 0);
}

/* Writes the object as ours: PUT under its resourceVersion, or POST. */
static result write_ours(struct lease *l, const struct json *object, bool create, struct err *e)
{
	struct json *answer = NULL;
	limit_request(l);
	int64_t sent_ms = clock_monotonic_ms();
	l->may_be_ours = true;
	if (create)
		TRY(kube_create(l->kube, l->folder, object, &answer, e));
	else
		TRY(kube_update(l->kube, l->path, object, &answer, e));
	json_freep(&l->ours);
	l->ours = answer;
	atomic_store(&l->held_until_ms, sent_ms + l->times.renew_deadline_ms);
	note_holder(l, l->identity);
	return OK;
}

static result create(struct lease *l, struct err *e)
{
	struct json *object cleanup(json_freep) = json_object();
	json_set_str(object, "apiVersion", "coordination.k8s.io/v1");
	json_set_str(object, "kind", "Lease");
	json_set_str(json_ensure_object(object, "metadata"), "name", l->name);
	fill(object, l->identity, l->times.duration_s, true);
	return write_ours(l, object, true, e);
}

/* Reads it, and takes it or goes on with it when that is right. OK also when another has it. ERR_CONFLICT: it changed in
 * between, look again. */
static result look_and_take(struct lease *l, struct err *e)
{
	struct json *object cleanup(json_freep) = NULL;
	struct err why = { 0 };
	limit_request(l);
	if (!kube_get(l->kube, l->path, &object, &why).ok) {
		if (why.kind == ERR_NOT_FOUND)
			return create(l, e);
		*e = why;
		return FAILED;
	}
	note_holder(l, holder_of(object));
	if (another_lives(l, object)) {
		l->may_be_ours = false;
		not_ours(l);
		return OK;
	}
	fill(object, l->identity, l->times.duration_s, !str_eq(holder_of(object), l->identity));
	return write_ours(l, object, false, e);
}

static result renew_known(struct lease *l, struct err *e)
{
	struct json *object cleanup(json_freep) = steal(&l->ours); /* whatever the outcome: no longer the newest */
	fill(object, l->identity, l->times.duration_s, false);
	return write_ours(l, object, false, e);
}

static result acquire_or_renew(struct lease *l, struct err *e)
{
	struct err why = { 0 };
	result done = l->ours ? renew_known(l, &why) : look_and_take(l, &why);
	for (int i = 1; i < ROUNDS && !done.ok && (why.kind == ERR_CONFLICT || why.kind == ERR_NOT_FOUND); i++)
		done = look_and_take(l, &why);
	if (!done.ok)
		*e = why;
	return done;
}

/* --- Giving back ------------------------------------------------------------------------------------------------ */

static result give_back_once(struct lease *l, struct err *e)
{
	struct json *object cleanup(json_freep) = NULL;
	TRY(kube_get(l->kube, l->path, &object, e));
	if (!str_eq(holder_of(object), l->identity))
		return OK;
	fill(object, "", 1, false);
	return kube_update(l->kube, l->path, object, NULL, e);
}

/* What fails here runs out by itself. */
static void give_back(struct lease *l)
{
	struct err why = { 0 };
	not_ours(l);
	tell(l);
	if (!l->may_be_ours)
		return;
	kube_limits(l->kube, l->times.request_ms / 2, 1);
	if (!give_back_once(l, &why).ok && why.kind == ERR_CONFLICT)
		(void)!give_back_once(l, &why).ok;
}

/* --- The thread ------------------------------------------------------------------------------------------------- */

/* False when it is to end. Wakes when the Lease is lost, to say so. */
static bool rest(struct lease *l)
{
	int64_t jitter = l->times.retry_ms / 5;
	int64_t until = clock_monotonic_ms() + l->times.retry_ms + backoff_jittered(jitter) - jitter / 2;
	pthread_mutex_lock(&l->lock);
	for (int64_t left; !l->stopping && (left = until - clock_monotonic_ms()) > 0;) {
		int64_t held = atomic_load(&l->held_until_ms) - clock_monotonic_ms();
		bool lost_before = l->told && held < left;
		if (lost_before && held <= 0)
			break;
		thread_cond_wait_ms(&l->woken, &l->lock, lost_before ? held : left);
	}
	bool stopping = l->stopping;
	pthread_mutex_unlock(&l->lock);
	return !stopping;
}

static void *run(void *context)
{
	struct lease *l = context;
	do {
		struct err why = { 0 };
		note_outcome(l, acquire_or_renew(l, &why), &why);
		tell(l);
	} while (rest(l));
	give_back(l);
	return NULL;
}

/* --- Life cycle ------------------------------------------------------------------------------------------------- */

static void lease_free(struct lease *l)
{
	kube_freep(&l->kube);
	str_freep(&l->identity);
	str_freep(&l->name);
	str_freep(&l->folder);
	str_freep(&l->path);
	str_freep(&l->holder);
	json_freep(&l->ours);
	json_freep(&l->seen);
	pthread_cond_destroy(&l->woken);
	pthread_mutex_destroy(&l->lock);
	free(l);
}

result lease_start_timed(const struct kube *k, const char *namespace, const char *name, const char *identity,
			 const struct lease_times *times, void (*changed)(void *context, bool leading), void *context,
			 struct lease **ret, struct err *e)
{
	struct lease *l = mem_alloc(sizeof(*l));
	l->times = *times;
	l->kube = kube_clone(k);
	l->identity = str_dup(identity);
	l->name = str_dup(name);
	l->folder = str_printf("/apis/coordination.k8s.io/v1/namespaces/%s/leases", namespace);
	l->path = str_printf("%s/%s", l->folder, name);
	l->holder = str_dup("");
	l->changed = changed;
	l->context = context;
	pthread_mutex_init(&l->lock, NULL);
	thread_cond_init(&l->woken);
	if (!thread_start("lease", run, l, &l->thread, e).ok) {
		lease_free(l);
		return FAILED;
	}
	*ret = l;
	return OK;
}

result lease_start(const struct kube *k, const char *namespace, const char *name, const char *identity,
		   void (*changed)(void *context, bool leading), void *context, struct lease **ret, struct err *e)
{
	return lease_start_timed(k, namespace, name, identity, &usual, changed, context, ret, e);
}

void lease_stopp(struct lease **l)
{
	if (!*l)
		return;
	pthread_mutex_lock(&(*l)->lock);
	(*l)->stopping = true;
	pthread_cond_broadcast(&(*l)->woken);
	pthread_mutex_unlock(&(*l)->lock);
	pthread_join((*l)->thread, NULL);
	lease_free(*l);
	*l = NULL;
}

char *lease_holder(struct lease *l)
{
	pthread_mutex_lock(&l->lock);
	char *holder = str_dup(l->holder);
	pthread_mutex_unlock(&l->lock);
	return holder;
}

bool lease_failing(struct lease *l, struct err *ret)
{
	pthread_mutex_lock(&l->lock);
	bool failing = l->failed;
	if (failing)
		*ret = l->why;
	pthread_mutex_unlock(&l->lock);
	return failing;
}
