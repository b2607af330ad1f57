/* LINK: kube */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "client.h"
#include "lease.h"
#include "tls_peer.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define FOLDER "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
#define LEASE FOLDER "/certrotation"

static const struct lease_times quick = { .duration_s = 2, .renew_deadline_ms = 1200, .retry_ms = 200, .request_ms = 800 };

static struct peer_ca *ca;
static struct peer_leaf leaf;

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

static void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL);
}

#define AWAIT_MS 20000
/* The condition comes about; how long that takes is the machine's affair. */
#define await(condition)                                                         \
	do {                                                                     \
		int64_t until_ = clock_monotonic_ms() + AWAIT_MS;                \
		while (!(condition) && clock_monotonic_ms() < until_)            \
			pause_ms(2);                                             \
		if (!(condition))                                                \
			fail_msg("never came about: %s", #condition);            \
	} while (0)

static int make_certificates(void **state)
{
	(void)state;
	ca = peer_ca_new("one");
	leaf = peer_leaf_new(ca, "server");
	return 0;
}

static int drop_certificates(void **state)
{
	(void)state;
	peer_ca_freep(&ca);
	peer_leaf_release(&leaf);
	return 0;
}

/* What `changed` was told. */
struct hearer {
	atomic_int gained, lost;
	atomic_bool leading;
};

static void hear(void *context, bool leading)
{
	struct hearer *h = context;
	atomic_fetch_add(leading ? &h->gained : &h->lost, 1);
	atomic_store(&h->leading, leading);
}

/* --- A server with one Lease, and a way to it that fails as told ---------------------------------------------------- */

struct store {
	pthread_mutex_t lock;
	struct json *lease;       /* NULL: there is none */
	int version;
	int64_t shown_ms;         /* when a reader saw this version first; 0: not yet */
	bool renewed_by_reading;  /* as if another renewed it all the time */
};

enum fault { NO_FAULT, STATUS, NO_ANSWER, LOST_ANSWER, RESET, SLOW_ANSWER, NO_JSON };

struct front {
	struct store *store;
	struct peer *peer;
	_Atomic enum fault fault;
	atomic_int status;             /* with STATUS */
	atomic_bool writes_only;       /* reads work */
	atomic_int reads, creates, updates; /* requests, answered or not */
	_Atomic int64_t written_ms;    /* arrival of the last write that was committed */
	_Atomic int64_t looked_on_ms;  /* how long what that write replaced had been seen */
	struct json *last_written;     /* under the store's lock */
	bool told_before_release;
	const struct hearer *hearer;
};

static const char *holder_in(const struct json *lease)
{
	return json_str_or(json_at(lease, "spec", "holderIdentity", NULL), "");
}

/* With the lock held. */
static void store_put(struct store *s, struct json *lease_taken)
{
	char version[16];
	(void)snprintf(version, sizeof(version), "%d", ++s->version);
	json_set_str(json_ensure_object(lease_taken, "metadata"), "resourceVersion", version);
	json_freep(&s->lease);
	s->lease = lease_taken;
	s->shown_ms = 0;
}

static void store_release(struct store *s)
{
	json_freep(&s->lease);
	pthread_mutex_destroy(&s->lock);
}

static struct store store_new(void)
{
	return (struct store){ .lock = PTHREAD_MUTEX_INITIALIZER };
}

/* Another's hand, beside the server. */
static void store_set(struct store *s, const char *text)
{
	struct err e = { 0 };
	struct json *lease = NULL;
	assert_ok(json_parse(text, strlen(text), &lease, &e), e);
	pthread_mutex_lock(&s->lock);
	store_put(s, lease);
	pthread_mutex_unlock(&s->lock);
}

static struct json *store_get(struct store *s)
{
	pthread_mutex_lock(&s->lock);
	struct json *lease = s->lease ? json_copy(s->lease) : json_null();
	pthread_mutex_unlock(&s->lock);
	return lease;
}

static bool held_by(struct store *s, const char *holder)
{
	struct json *lease cleanup(json_freep) = store_get(s);
	return str_eq(holder_in(lease), holder);
}

static const char others_lease[] =
	"{\"apiVersion\":\"coordination.k8s.io/v1\",\"kind\":\"Lease\",\"metadata\":{\"name\":\"certrotation\",\"labels\":{\"a\":\"b\"}},"
	"\"spec\":{\"holderIdentity\":\"another\",\"leaseDurationSeconds\":2,\"leaseTransitions\":4,\"strategy\":\"kept\","
	"\"acquireTime\":\"1999-01-01T00:00:00.000000Z\",\"renewTime\":\"1999-01-01T00:00:00.000000Z\"}}";

static char *answer_read(struct store *s, int *ret_status)
{
	if (!s->lease) {
		*ret_status = 404;
		return str_dup("{}");
	}
	if (s->renewed_by_reading) {
		struct json *renewed = json_copy(s->lease);
		json_set_int(json_ensure_object(renewed, "spec"), "renewed", s->version);
		store_put(s, renewed);
	}
	if (!s->shown_ms)
		s->shown_ms = clock_monotonic_ms();
	return json_text(s->lease);
}

static char *answer_write(struct front *f, const struct peer_request *r, int *ret_status)
{
	struct store *s = f->store;
	struct json *lease = NULL;
	struct err e = { 0 };
	bool create = str_eq(r->method, "POST");
	assert_ok(json_parse(r->body, strlen(r->body), &lease, &e), e);
	const char *expected = s->lease ? json_str(json_at(s->lease, "metadata", "resourceVersion", NULL)) : NULL;
	if (!create && !s->lease)
		*ret_status = 404;
	else if (create ? s->lease != NULL : !str_eq(expected, json_str(json_at(lease, "metadata", "resourceVersion", NULL))))
		*ret_status = 409;
	json_freep(&f->last_written);
	f->last_written = json_copy(lease);
	if (*ret_status != 200) {
		json_freep(&lease);
		return str_dup("{}");
	}
	if (f->hearer && !*holder_in(lease))
		f->told_before_release = !atomic_load(&f->hearer->leading);
	int64_t now = clock_monotonic_ms();
	atomic_store(&f->looked_on_ms, s->shown_ms ? now - s->shown_ms : 0);
	atomic_store(&f->written_ms, now);
	store_put(s, lease);
	return json_text(lease);
}

static void answer(struct front *f, const struct peer_request *r, enum fault fault)
{
	int status = 200;
	pthread_mutex_lock(&f->store->lock);
	char *text cleanup(str_freep) = str_eq(r->method, "GET") ? answer_read(f->store, &status) : answer_write(f, r, &status);
	pthread_mutex_unlock(&f->store->lock);
	if (fault == LOST_ANSWER) {
		peer_cut(r);
		return;
	}
	if (fault == SLOW_ANSWER)
		pause_ms(quick.request_ms * 3 / 4);
	peer_answer(r, status, "", text);
}

static void serve(void *context, const struct peer_request *r)
{
	struct front *f = context;
	bool reading = str_eq(r->method, "GET");
	enum fault fault = reading && atomic_load(&f->writes_only) ? NO_FAULT : atomic_load(&f->fault);
	atomic_fetch_add(reading ? &f->reads : str_eq(r->method, "POST") ? &f->creates : &f->updates, 1);
	if (!str_eq(r->target, str_eq(r->method, "POST") ? FOLDER "?fieldManager=certrotation"
							  : reading ? LEASE : LEASE "?fieldManager=certrotation")) {
		peer_answer(r, 400, "", "{\"kind\":\"Status\",\"message\":\"not the path of the Lease\"}");
		return;
	}
	switch (fault) {
	case STATUS:
		peer_answer(r, atomic_load(&f->status), "", "{\"kind\":\"Status\",\"message\":\"as told\"}");
		return;
	case NO_ANSWER:
		return;
	case RESET:
		peer_reset(r);
		return;
	case NO_JSON:
		peer_answer(r, 200, "", "{\"spec\":");
		return;
	case NO_FAULT:
	case LOST_ANSWER:
	case SLOW_ANSWER:
		answer(f, r, fault);
		return;
	}
}

static void front_start(struct front *f, struct store *s)
{
	f->store = s;
	f->peer = peer_start(&(struct peer_options){ .leaf = &leaf }, serve, f);
}

static void front_release(struct front *f)
{
	peer_stopp(&f->peer);
	json_freep(&f->last_written);
}

static int writes(struct front *f)
{
	return atomic_load(&f->creates) + atomic_load(&f->updates);
}

static struct lease *start_at(const char *url, const char *identity, struct hearer *h)
{
	struct kube *k cleanup(kube_freep) = NULL;
	struct lease *l = NULL;
	struct err e = { 0 };
	assert_ok(kube_from_identity(url, &(struct http_identity){ .ca_pem = ca->pem }, &k, &e), e);
	assert_ok(lease_start_timed(k, "kube-system", "certrotation", identity, &quick, hear, h, &l, &e), e);
	return l;
}

static struct lease *start(const struct front *f, const char *identity, struct hearer *h)
{
	char *url cleanup(str_freep) = peer_url(f->peer, "");
	return start_at(url, identity, h);
}

/* All that a test needs. */
struct world {
	struct store store;
	struct front front;
	struct hearer hearer;
	struct lease *lease;
};

/* text: the Lease that is there, NULL: none. */
static void world_start(struct world *w, const char *text)
{
	w->store = store_new();
	if (text)
		store_set(&w->store, text);
	w->front.hearer = &w->hearer;
	front_start(&w->front, &w->store);
	w->lease = start(&w->front, "me", &w->hearer);
}

static void await_leading(struct world *w)
{
	await(lease_held(w->lease) && atomic_load(&w->hearer.leading));
}

static void world_release(struct world *w)
{
	lease_stopp(&w->lease);
	front_release(&w->front);
	store_release(&w->store);
}

/* --- Acquiring ------------------------------------------------------------------------------------------------------- */

static void assert_spec_str(const struct json *lease, const char *name, const char *expected)
{
	assert_string_equal(json_str_or(json_at(lease, "spec", name, NULL), "(none)"), expected);
}

static int64_t spec_time(const struct json *lease, const char *name)
{
	int64_t ms = 0;
	struct err e = { 0 };
	assert_ok(time_parse(json_str_or(json_at(lease, "spec", name, NULL), ""), &ms, &e), e);
	return ms;
}

static void test_an_absent_lease_is_made(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	int64_t before = clock_now_ms();
	world_start(&w, NULL);
	await_leading(&w);
	assert_int_equal(w.front.creates, 1);
	assert_int_equal(w.hearer.gained, 1);
	struct json *lease cleanup(json_freep) = store_get(&w.store);
	assert_spec_str(lease, "holderIdentity", "me");
	assert_string_equal(json_get_str(lease, "apiVersion"), "coordination.k8s.io/v1");
	assert_string_equal(json_get_str(lease, "kind"), "Lease");
	assert_string_equal(json_str(json_at(lease, "metadata", "name", NULL)), "certrotation");
	assert_int_equal(json_int(json_at(lease, "spec", "leaseDurationSeconds", NULL), 0), 2);
	assert_int_equal(json_int(json_at(lease, "spec", "leaseTransitions", NULL), -1), 0);
	assert_in_range(spec_time(lease, "acquireTime"), before, clock_now_ms());
	char *holder cleanup(str_freep) = lease_holder(w.lease);
	assert_string_equal(holder, "me");
	struct err why = { 0 };
	assert_false(lease_failing(w.lease, &why));
}

/* Timestamps are of another clock and say nothing; it counts how long we saw it so. */
static void test_another_is_given_its_time(void **state)
{
	(void)state;
	static const char *const times[] = { "1999-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z", "", "yesterday" };
	for (size_t i = 0; i < ARRAY_LEN(times); i++) {
		int seconds = i ? 2 : 3;
		char *text cleanup(str_freep) =
			str_printf("{\"metadata\":{\"name\":\"certrotation\"},\"spec\":{\"holderIdentity\":\"another\","
				   "\"leaseDurationSeconds\":%d,\"renewTime\":\"%s\"}}", seconds, times[i]);
		struct world w cleanup(world_release) = { 0 };
		world_start(&w, text);
		await_leading(&w);
		assert_true(w.front.looked_on_ms >= seconds * 1000);
		assert_int_equal(w.front.updates, 1);
	}
}

/* Without a duration, or with one that is none, it is given ours. */
static void test_another_without_a_duration(void **state)
{
	(void)state;
	static const char *const durations[] = { "", ",\"leaseDurationSeconds\":0", ",\"leaseDurationSeconds\":-5",
						 ",\"leaseDurationSeconds\":\"1\"" };
	for (size_t i = 0; i < ARRAY_LEN(durations); i++) {
		char *text cleanup(str_freep) = str_printf("{\"spec\":{\"holderIdentity\":\"another\"%s}}", durations[i]);
		struct world w cleanup(world_release) = { 0 };
		world_start(&w, text);
		await_leading(&w);
		assert_true(w.front.looked_on_ms >= 1000 * quick.duration_s);
	}
}

static void test_another_that_renews_keeps_it(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	world_start(&w, others_lease);
	pthread_mutex_lock(&w.store.lock);
	w.store.renewed_by_reading = true;
	pthread_mutex_unlock(&w.store.lock);
	int64_t since = clock_monotonic_ms();
	await(clock_monotonic_ms() - since > 2000 * quick.duration_s); /* twice as long as it would need */
	assert_true(atomic_load(&w.front.reads) >= 4);
	assert_int_equal(writes(&w.front), 0);
	assert_false(lease_held(w.lease));
	char *holder cleanup(str_freep) = lease_holder(w.lease);
	assert_string_equal(holder, "another");
	struct err why = { 0 };
	assert_false(lease_failing(w.lease, &why)); /* that another leads is no failure */
	pthread_mutex_lock(&w.store.lock);
	w.store.renewed_by_reading = false;
	pthread_mutex_unlock(&w.store.lock);
	await_leading(&w);
	assert_true(w.front.looked_on_ms >= 1000 * quick.duration_s);
	assert_int_equal(w.hearer.gained, 1);
	assert_int_equal(w.hearer.lost, 0);
}

/* What a holder does not write stays as it was. */
static void test_a_take_over_is_counted(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	int64_t before = clock_now_ms();
	world_start(&w, others_lease);
	await_leading(&w);
	struct json *lease cleanup(json_freep) = store_get(&w.store);
	assert_spec_str(lease, "holderIdentity", "me");
	assert_spec_str(lease, "strategy", "kept");
	assert_string_equal(json_str(json_at(lease, "metadata", "labels", "a", NULL)), "b");
	assert_int_equal(json_int(json_at(lease, "spec", "leaseTransitions", NULL), 0), 5);
	assert_true(spec_time(lease, "acquireTime") >= before);
}

static void test_a_lease_given_back_is_taken_at_once(void **state)
{
	(void)state;
	static const char *const texts[] = { "{\"spec\":{\"holderIdentity\":\"\",\"leaseDurationSeconds\":600}}",
					     "{\"spec\":{\"leaseDurationSeconds\":600}}", "{}" };
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct world w cleanup(world_release) = { 0 };
		world_start(&w, texts[i]);
		await_leading(&w);
		assert_int_equal(w.front.reads, 1);
	}
}

/* Whose name it carries has been here before: no transition. */
static void test_our_own_is_gone_on_with(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	world_start(&w, "{\"spec\":{\"holderIdentity\":\"me\",\"leaseDurationSeconds\":600,\"leaseTransitions\":4,"
			"\"acquireTime\":\"1999-01-01T00:00:00.000000Z\"}}");
	await_leading(&w);
	struct json *lease cleanup(json_freep) = store_get(&w.store);
	assert_int_equal(json_int(json_at(lease, "spec", "leaseTransitions", NULL), 0), 4);
	assert_spec_str(lease, "acquireTime", "1999-01-01T00:00:00.000000Z");
	assert_int_equal(w.front.reads, 1);
}

/* --- Renewing -------------------------------------------------------------------------------------------------------- */

static void test_a_renewal_is_one_write(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	world_start(&w, NULL);
	await_leading(&w);
	struct json *first cleanup(json_freep) = store_get(&w.store);
	await(atomic_load(&w.front.updates) >= 10);
	assert_true(lease_held(w.lease));
	struct json *lease cleanup(json_freep) = store_get(&w.store);
	assert_true(spec_time(lease, "renewTime") > spec_time(first, "renewTime"));
	assert_int_equal(spec_time(lease, "acquireTime"), spec_time(first, "acquireTime"));
	assert_int_equal(json_int(json_at(lease, "spec", "leaseTransitions", NULL), -1), 0);
	assert_int_equal(w.front.reads, 1);
	assert_int_equal(w.front.creates, 1);
	assert_int_equal(w.hearer.gained, 1);
	assert_int_equal(w.hearer.lost, 0);
	assert_int_equal(peer_connections(w.front.peer), 1);
}

/* Somebody labels it while we hold it: read again, the label stays, and so does the lead. */
static void test_a_conflict_is_looked_at(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	world_start(&w, NULL);
	await_leading(&w);
	for (int i = 0; i < 3; i++) {
		struct json *labelled cleanup(json_freep) = store_get(&w.store);
		json_set_int(json_ensure_object(labelled, "metadata"), "touched", i + 1);
		pthread_mutex_lock(&w.store.lock);
		store_put(&w.store, json_copy(labelled));
		pthread_mutex_unlock(&w.store.lock);
		int updates = atomic_load(&w.front.updates);
		await(atomic_load(&w.front.updates) >= updates + 4);
	}
	struct json *lease cleanup(json_freep) = store_get(&w.store);
	assert_int_equal(json_int(json_at(lease, "metadata", "touched", NULL), 0), 3);
	assert_spec_str(lease, "holderIdentity", "me");
	assert_int_equal(json_int(json_at(lease, "spec", "leaseTransitions", NULL), -1), 0);
	assert_int_equal(w.hearer.lost, 0);
	assert_in_range(w.front.reads, 2, 4);
}

static void test_a_lease_deleted_is_made_anew(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	world_start(&w, NULL);
	await_leading(&w);
	pthread_mutex_lock(&w.store.lock);
	json_freep(&w.store.lease);
	pthread_mutex_unlock(&w.store.lock);
	await(held_by(&w.store, "me"));
	await_leading(&w);
	assert_int_equal(w.front.creates, 2);
	assert_int_equal(w.hearer.lost, 0);
}

/* The write was committed, its answer was not heard: reading tells. */
static void test_a_lost_answer_is_found_out(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	w.front.fault = LOST_ANSWER;
	w.front.writes_only = true;
	world_start(&w, NULL);
	await(held_by(&w.store, "me"));
	await(atomic_load(&w.front.updates) >= 1);
	assert_false(lease_held(w.lease));
	struct err why = { 0 };
	await(lease_failing(w.lease, &why));
	assert_int_equal(why.kind, ERR_IO);
	atomic_store(&w.front.fault, NO_FAULT);
	await_leading(&w);
	struct json *lease cleanup(json_freep) = store_get(&w.store);
	assert_int_equal(json_int(json_at(lease, "spec", "leaseTransitions", NULL), -1), 0);
	assert_int_equal(w.front.creates, 1);
	await(!lease_failing(w.lease, &why));
}

/* --- Losing ---------------------------------------------------------------------------------------------------------- */

static void test_lost_to_another(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	world_start(&w, NULL);
	await_leading(&w);
	store_set(&w.store, others_lease);
	await(!lease_held(w.lease));
	await(atomic_load(&w.hearer.lost) == 1);
	char *holder cleanup(str_freep) = lease_holder(w.lease);
	assert_string_equal(holder, "another");
	struct json *lease cleanup(json_freep) = store_get(&w.store);
	assert_spec_str(lease, "holderIdentity", "another");
	assert_int_equal(json_int(json_at(lease, "spec", "leaseTransitions", NULL), 0), 4);
	await_leading(&w); /* it never renews */
	assert_true(w.front.looked_on_ms >= 1000 * quick.duration_s);
}

/* Samples lease_held until it was seen false. It is never true once the deadline has passed since a renewal arrived. */
static void sample_until_lost(struct world *w)
{
	int64_t until = clock_monotonic_ms() + AWAIT_MS;
	for (bool held = true; held && clock_monotonic_ms() < until;) {
		int64_t written = atomic_load(&w->front.written_ms), before = clock_monotonic_ms();
		held = lease_held(w->lease);
		if (held && atomic_load(&w->front.written_ms) == written)
			assert_true(before < written + quick.renew_deadline_ms);
	}
	assert_false(lease_held(w->lease));
}

static void test_lost_by_the_deadline(void **state)
{
	(void)state;
	static const enum fault faults[] = { NO_ANSWER, RESET, STATUS, NO_JSON };
	for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
		struct world w cleanup(world_release) = { 0 };
		world_start(&w, NULL);
		await_leading(&w);
		atomic_store(&w.front.status, 500);
		atomic_store(&w.front.fault, faults[i]);
		sample_until_lost(&w);
		await(atomic_load(&w.hearer.lost) == 1);
		struct err why = { 0 };
		await(lease_failing(w.lease, &why));
		assert_true(held_by(&w.store, "me")); /* nobody wrote it: known by the clock alone */
		atomic_store(&w.front.fault, NO_FAULT);
		await_leading(&w);
		assert_int_equal(w.hearer.gained, 2);
	}
}

/* Each renewal's answer comes late. The deadline counts from when it was sent, for so does the other's patience. */
static void test_the_deadline_counts_from_the_request(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	world_start(&w, NULL);
	await_leading(&w);
	int updates = atomic_load(&w.front.updates);
	atomic_store(&w.front.fault, SLOW_ANSWER);
	await(atomic_load(&w.front.updates) >= updates + 3);
	(void)peer_requests(w.front.peer); /* the answer is out */
	await(lease_held(w.lease));
	atomic_store(&w.front.fault, NO_ANSWER);
	sample_until_lost(&w);
}

/* --- Errors ---------------------------------------------------------------------------------------------------------- */

static void test_errors_are_told_and_do_not_lead(void **state)
{
	(void)state;
	static const struct {
		enum fault fault;
		int status;
		enum err_kind kind;
	} cases[] = {
		{ STATUS, 500, ERR_IO },	 { STATUS, 409, ERR_CONFLICT }, { STATUS, 429, ERR_BUSY },  { STATUS, 503, ERR_BUSY },
		{ STATUS, 403, ERR_DENIED },	 { STATUS, 422, ERR_INPUT },	{ NO_ANSWER, 0, ERR_TIMEOUT }, { RESET, 0, ERR_IO },
		{ NO_JSON, 0, ERR_INPUT },
	};
	for (size_t i = 0; i < 2 * ARRAY_LEN(cases); i++) {
		struct world w cleanup(world_release) = { 0 };
		struct err why = { 0 };
		w.front.fault = cases[i / 2].fault;
		w.front.status = cases[i / 2].status;
		w.front.writes_only = i % 2;
		world_start(&w, NULL);
		await(lease_failing(w.lease, &why));
		assert_int_equal(why.kind, cases[i / 2].kind);
		assert_false(lease_held(w.lease));
		assert_int_equal(w.hearer.gained, 0);
		atomic_store(&w.front.fault, NO_FAULT);
		await_leading(&w);
		await(!lease_failing(w.lease, &why));
	}
}

/* Ten seconds of errors are some fifty tries at this pace, and not thousands. */
static void test_errors_are_not_hurried(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	w.front.fault = STATUS;
	w.front.status = 409;
	world_start(&w, NULL);
	await(atomic_load(&w.front.reads) >= 1);
	int64_t since = clock_monotonic_ms();
	int before = atomic_load(&w.front.reads);
	await(clock_monotonic_ms() - since > 1000);
	int tries = atomic_load(&w.front.reads) - before;
	assert_in_range(tries, 1, 3 * (1000 * 10 / 9 / quick.retry_ms + 2));
}

/* --- Stopping -------------------------------------------------------------------------------------------------------- */

static void test_stopping_gives_it_back(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	world_start(&w, NULL);
	await_leading(&w);
	lease_stopp(&w.lease);
	assert_null(w.lease);
	assert_int_equal(w.hearer.lost, 1);
	assert_true(w.front.told_before_release);
	struct json *lease cleanup(json_freep) = store_get(&w.store);
	assert_spec_str(lease, "holderIdentity", "");
	assert_int_equal(json_int(json_at(lease, "spec", "leaseDurationSeconds", NULL), 0), 1);
	w.lease = start(&w.front, "next", &w.hearer);
	int reads = atomic_load(&w.front.reads);
	await_leading(&w);
	assert_in_range(w.front.reads, reads, reads + 1); /* at once */
	lease = (json_freep(&lease), store_get(&w.store));
	assert_int_equal(json_int(json_at(lease, "spec", "leaseTransitions", NULL), 0), 1);
}

static void test_stopping_beside_another_writes_nothing(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	world_start(&w, others_lease);
	await(atomic_load(&w.front.reads) >= 1);
	lease_stopp(&w.lease);
	assert_int_equal(writes(&w.front), 0);
	assert_int_equal(w.hearer.gained + w.hearer.lost, 0);
	assert_true(held_by(&w.store, "another"));
}

/* Between the last renewal and the stop another took it: its name stays. */
static void test_stopping_takes_nothing_from_another(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	world_start(&w, NULL);
	await_leading(&w);
	int updates = atomic_load(&w.front.updates);
	await(atomic_load(&w.front.updates) > updates); /* and now it rests */
	store_set(&w.store, others_lease);
	lease_stopp(&w.lease);
	assert_true(held_by(&w.store, "another"));
	assert_int_equal(w.hearer.lost, 1);
}

/* The write that acquired it lost its answer, so it was never led by; it is given back all the same. */
static void test_stopping_gives_back_what_may_be_ours(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	w.front.fault = LOST_ANSWER;
	w.front.writes_only = true;
	world_start(&w, NULL);
	await(held_by(&w.store, "me"));
	lease_stopp(&w.lease);
	assert_true(held_by(&w.store, ""));
	assert_int_equal(w.hearer.gained, 0);
}

static void test_stopping_without_a_server_ends(void **state)
{
	(void)state;
	static const enum fault faults[] = { NO_ANSWER, RESET, STATUS };
	for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
		struct world w cleanup(world_release) = { 0 };
		world_start(&w, NULL);
		await_leading(&w);
		atomic_store(&w.front.status, 503);
		atomic_store(&w.front.fault, faults[i]);
		int64_t since = clock_monotonic_ms();
		lease_stopp(&w.lease);
		assert_true(clock_monotonic_ms() - since < 5 * quick.request_ms);
		assert_int_equal(w.hearer.lost, 1);
	}
}

/* --- A process that stands still ------------------------------------------------------------------------------------- */

struct sample {
	int64_t before, after;
	bool held;
};

/* The child: leads, and says all the time whether it believes so. */
static void lead_and_tell(int in, int out)
{
	char url[128] = "";
	struct hearer h = { 0 };
	if (read(in, url, sizeof(url) - 1) <= 0)
		_exit(1);
	struct lease *l = start_at(url, "me", &h);
	for (;;) {
		struct sample s = { .before = clock_monotonic_ms() };
		s.held = lease_held(l);
		s.after = clock_monotonic_ms();
		if (write(out, &s, sizeof(s)) != (ssize_t)sizeof(s))
			_exit(0);
		pause_ms(1);
	}
}

static struct sample next_sample(int in)
{
	struct sample s = { 0 };
	assert_int_equal(read(in, &s, sizeof(s)), sizeof(s));
	return s;
}

/* Stopped for longer than the Lease lasts, another takes it; gone on, the process never believes that it still leads, not
 * even before its thread that renews has run. */
static void test_a_frozen_process_does_not_lead(void **state)
{
	(void)state;
	int to_child[2], from_child[2], status = 0;
	struct store store cleanup(store_release) = store_new();
	struct front front cleanup(front_release) = { 0 };
	assert_int_equal(pipe(to_child) | pipe(from_child), 0);
	pid_t child = fork();
	if (child == 0)
		lead_and_tell(to_child[0], from_child[1]);
	assert_true(child > 0);
	front_start(&front, &store);
	char *url cleanup(str_freep) = peer_url(front.peer, "");
	assert_int_equal(write(to_child[1], url, strlen(url)), (ssize_t)strlen(url));
	await(next_sample(from_child[0]).held);
	kill(child, SIGSTOP);
	assert_int_equal(waitpid(child, &status, WUNTRACED), child);
	assert_true(WIFSTOPPED(status));
	int64_t stopped = clock_monotonic_ms();
	await(clock_monotonic_ms() - stopped > 1000 * quick.duration_s);
	store_set(&store, others_lease);
	int64_t gone_on = clock_monotonic_ms();
	kill(child, SIGCONT);
	int seen = 0;
	for (struct sample s = { 0 }; s.before < gone_on + 500;) {
		s = next_sample(from_child[0]);
		seen += s.before >= gone_on;
		assert_false(s.held && s.before >= gone_on);
	}
	assert_true(seen > 20);
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
	close(to_child[0]);
	close(to_child[1]);
	close(from_child[0]);
	close(from_child[1]);
}

/* --- Two of them ----------------------------------------------------------------------------------------------------- */

/* Each has its own way to the server, which fails in every manner; at no moment both lead, and each gets its turn. */
static void test_never_two(void **state)
{
	(void)state;
	static const enum fault faults[] = { NO_ANSWER, LOST_ANSWER, RESET, STATUS, SLOW_ANSWER, NO_JSON };
	struct store store cleanup(store_release) = store_new();
	struct front fronts[2] = { 0 };
	struct hearer hearers[2] = { 0 };
	struct lease *leases[2];
	for (int i = 0; i < 2; i++) {
		front_start(&fronts[i], &store);
		fronts[i].status = 500;
		leases[i] = start(&fronts[i], i ? "b" : "a", &hearers[i]);
	}
	await(lease_held(leases[0]) || lease_held(leases[1]));
	int turns = 0;
	for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
		int leader = lease_held(leases[0]) ? 0 : 1;
		bool ends_it = faults[i] != SLOW_ANSWER;
		int64_t until = clock_monotonic_ms() + (ends_it ? AWAIT_MS : 1500);
		atomic_store(&fronts[leader].fault, faults[i]);
		while (clock_monotonic_ms() < until && !(ends_it && lease_held(leases[!leader]))) {
			bool first = lease_held(leases[0]), other = lease_held(leases[1]), again = lease_held(leases[0]);
			assert_false(first && other && again);
		}
		turns += lease_held(leases[!leader]);
		atomic_store(&fronts[leader].fault, NO_FAULT);
		await(lease_held(leases[0]) || lease_held(leases[1]));
	}
	assert_int_equal(turns, ARRAY_LEN(faults) - 1);
	for (int i = 0; i < 2; i++) {
		lease_stopp(&leases[i]);
		front_release(&fronts[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_frozen_process_does_not_lead), /* forks: before there are threads */
		cmocka_unit_test(test_an_absent_lease_is_made),
		cmocka_unit_test(test_another_is_given_its_time),
		cmocka_unit_test(test_another_without_a_duration),
		cmocka_unit_test(test_another_that_renews_keeps_it),
		cmocka_unit_test(test_a_take_over_is_counted),
		cmocka_unit_test(test_a_lease_given_back_is_taken_at_once),
		cmocka_unit_test(test_our_own_is_gone_on_with),
		cmocka_unit_test(test_a_renewal_is_one_write),
		cmocka_unit_test(test_a_conflict_is_looked_at),
		cmocka_unit_test(test_a_lease_deleted_is_made_anew),
		cmocka_unit_test(test_a_lost_answer_is_found_out),
		cmocka_unit_test(test_lost_to_another),
		cmocka_unit_test(test_lost_by_the_deadline),
		cmocka_unit_test(test_the_deadline_counts_from_the_request),
		cmocka_unit_test(test_errors_are_told_and_do_not_lead),
		cmocka_unit_test(test_errors_are_not_hurried),
		cmocka_unit_test(test_stopping_gives_it_back),
		cmocka_unit_test(test_stopping_beside_another_writes_nothing),
		cmocka_unit_test(test_stopping_takes_nothing_from_another),
		cmocka_unit_test(test_stopping_gives_back_what_may_be_ours),
		cmocka_unit_test(test_stopping_without_a_server_ends),
		cmocka_unit_test(test_never_two),
	};
	return cmocka_run_group_tests(tests, make_certificates, drop_certificates);
}
