/* Pods' mounted CAs: who has read N. The controller asks for this before it drops O (design, section 4).
 *
 * Invariants
 * - A container has read N when it started after its volumes held N: both times are this node's. (One that re-reads its file
 *   without a restart is not known from here.)
 * - What can't be read is an error, what is gone is gone: never "no volume".
 * - The kubelet rewrites a whole volume when it refreshes a token, so a container that was seen to have read N is remembered by Pod
 *   uid and container id (a fact that can't change). Losing that memory errs on the safe side.
 * - Who runs beside volumes that hold O and not N has read O: N is this run's own, and is published alone only later. That is noted
 *   from the first look on, so that on the way back only those restart who have read N alone.
 */
#ifndef PODCA_H
#define PODCA_H

#include "contract.h"
#include "pki.h"

/* Files of remembered containers: who has read N, who has read O. A run that goes back gives them the other way round. */
struct podca_memory {
	const char *new, *old;
	bool forget; /* who has read N, and N alone; `new` is a file of its own then */
};

/* Fills r's pods_* fields. kubelet_dir: "/var/lib/kubelet". */
result podca_look(const char *kubelet_dir, const struct podca_memory *memory, const struct cert *old_ca, const struct cert *new_ca,
		  struct report *r, struct err *e) MUST_CHECK;
/* Before there is an N, for a plan: whose volumes hold `ca`, as r's pods_total and pods_stale. Changes nothing on the node. */
result podca_mounters(const char *kubelet_dir, const struct cert *ca, struct report *r, struct err *e) MUST_CHECK;

#endif
