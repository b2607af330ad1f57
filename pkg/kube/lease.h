/* Leader election by a coordination.k8s.io/v1 Lease (the protocol of client-go's leaderelection).
 *
 * Invariants
 * - A Lease is no fence: it only makes two leaders rare. Every write carries its own precondition.
 * - The thread that renews is not the thread that works. lease_held turns false by itself, by the monotonic clock, when a
 *   renewal has not been confirmed for the renew deadline (10 s), before another can take over (15 s).
 * - Another's Lease is judged by how long *we* have seen it unchanged, never by its timestamps (clocks differ).
 */
#ifndef LEASE_H
#define LEASE_H

#include "client.h"

struct lease;
/* Starts a thread that acquires and renews ns/name as `identity`. changed(context, leading) is called in that thread. */
result lease_start(const struct kube *k, const char *namespace, const char *name, const char *identity,
		   void (*changed)(void *context, bool leading), void *context, struct lease **ret, struct err *e) MUST_CHECK;
bool lease_held(const struct lease *l);
/* Gives the Lease back (holderIdentity "") if it is ours, and ends the thread. cleanup(lease_stopp) */
void lease_stopp(struct lease **l);
#endif
