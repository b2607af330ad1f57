/* Pods' mounted CAs: who has read N. The controller asks for this before it drops O (design, section 4).
 *
 * Invariants
 * - A container has read N when it started after its volumes held N: both times are this node's. (One that re-reads its file
 *   without a restart is not known from here.)
 * - What can't be read is an error, what is gone is gone: never "no volume".
 * - The kubelet rewrites a whole volume when it refreshes a token, so a container that was seen to have read N is remembered by Pod
 *   uid and container id (a fact that can't change). Losing that memory errs on the safe side.
 */
#ifndef PODCA_H
#define PODCA_H

#include "contract.h"
#include "pki.h"

/* Fills r's pods_* fields. kubelet_dir: "/var/lib/kubelet"; memory: the file of remembered containers. */
result podca_look(const char *kubelet_dir, const char *memory, const struct cert *old_ca, const struct cert *new_ca, struct report *r,
		  struct err *e) MUST_CHECK;

#endif
