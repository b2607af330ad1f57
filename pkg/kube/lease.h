/* Leader election by a coordination.k8s.io/v1 Lease (the protocol of client-go's tools/leaderelection: fields, order of
 * requests, times: duration 15 s, renew deadline 10 s, a try every 2 s).
 *
 * Invariants
 * - A Lease is no fence: it only makes two leaders rare. Every write carries its own precondition.
 * - The thread that renews is not the thread that works. lease_held turns false by itself, by the monotonic clock, when a
 *   renewal has not been confirmed for the renew deadline (10 s, counted from before it was sent), before another can take
 *   over (15 s, counted from when it was seen).
 * - Another's Lease is judged by how long *we* have seen it unchanged, never by its timestamps (clocks differ); one whose
 *   holderIdentity is empty is taken at once, one with our identity is ours. A leaseDurationSeconds over ten minutes counts
 *   as ten minutes.
 * - What may have been written and lost its answer is found out by reading, never assumed.
 */
#ifndef LEASE_H
#define LEASE_H

#include "client.h"

struct lease;
/* Starts a thread that acquires and renews ns/name as `identity`, which no other process has. changed(context, leading) is
 * called in that thread, first when leading begins; it must be short and must not stop the lease. k is borrowed for the call
 * only. ERR_BUSY. */
result lease_start(const struct kube *k, const char *namespace, const char *name, const char *identity,
		   void (*changed)(void *context, bool leading), void *context, struct lease **ret, struct err *e) MUST_CHECK;
/* The same with other times, for who can't wait so long (tests). renew_deadline_ms is shorter than duration_s, request_ms than
 * renew_deadline_ms. */
struct lease_times {
	int64_t duration_s;        /* written into the Lease; also of another's that names none */
	int64_t renew_deadline_ms;
	int64_t retry_ms;          /* between two tries, a tenth more or less */
	int64_t request_ms;        /* of one request; a quarter at least, half of it for giving back */
};
result lease_start_timed(const struct kube *k, const char *namespace, const char *name, const char *identity,
			 const struct lease_times *times, void (*changed)(void *context, bool leading), void *context,
			 struct lease **ret, struct err *e) MUST_CHECK;
bool lease_held(const struct lease *l);
/* Who holds it as far as was seen, "" for nobody or not known yet; caller frees. */
char *lease_holder(struct lease *l) __attribute__((returns_nonnull));
/* True when the last try failed (which is not: when another leads), with why. */
bool lease_failing(struct lease *l, struct err *ret);
/* Says changed(false) if need be, gives the Lease back (holderIdentity "") if it is or may be ours, and ends the thread: stop
 * work first. At most about ten seconds with a server that does not answer. cleanup(lease_stopp) */
void lease_stopp(struct lease **l);
#endif
