/* A gate before a port of this node: while it is shut, connections from elsewhere wait (in TCP, which asks again) and are not refused.
 * Two ways: by nftables (gate_nft.c, in a Pod with NET_ADMIN), not at all (gate_none.c, by hand).
 *
 * Invariants
 * - It opens by itself: the port is an element of a set with a time-out, so that a killed program leaves nothing shut.
 * - Connections from this node itself (by loopback) and those that are established pass.
 */
#ifndef GATE_H
#define GATE_H

#include "base.h"

struct gate;
/* Shuts it for at most so many seconds. ERR_OTHER says why it can't: then nothing is shut. */
result gate_shut(int port, int seconds, struct gate **ret, struct err *e) MUST_CHECK;
/* Makes all of it but the port in the set, and takes it away again: whether this kernel can. ERR_OTHER. */
result gate_rehearse(struct err *e) MUST_CHECK;
/* Opens it, and takes away what was made for it. cleanup(gate_openp) */
void gate_openp(struct gate **g);

#endif
