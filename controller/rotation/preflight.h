/* What stands in the way of a rotation beyond what each node says of itself: seen by comparing nodes, or in the API alone.
 *
 * Invariants
 * - Pure. What is unknown is no obstacle; what must be known before anything is begun is waited for by the walk.
 * - Every obstacle has a code of a fixed list, names an object, and says what to do.
 */
#ifndef PREFLIGHT_H
#define PREFLIGHT_H

#include "world.h"

/* Clocks of two nodes may differ by so much; certificates are backdated by five minutes (pki.h). */
#define PREFLIGHT_CLOCKS_APART_MS 60000

struct obstacle {
	const char *code;                            /* "NotKubeadm", "ClockSkew", "UpgradeInProgress", … */
	char *object, *message;
	const struct node_state *node, *other;       /* borrowed; whose reports say so, NULL: none's */
};

struct obstacles {
	struct obstacle *items;
	size_t n;
};
void obstacles_release(struct obstacles *o);

void preflight_look(const struct world *w, struct obstacles *ret);
/* "v1.34.4" and the like → 1034; -1 when the text does not begin with a version. Patch levels do not count. */
int preflight_minor(const char *version);

#endif
