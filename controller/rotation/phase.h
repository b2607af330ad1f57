/* The phases of a rotation, as users see them (design: computed from the world at every pass, never read back).
 *
 * Invariants
 * - The order of the enum is the order of the walk. Until PHASE_DROPPING_OLD everything old keeps working.
 */
#ifndef PHASE_H
#define PHASE_H

#include "base.h"

enum phase {
	PHASE_PREPARING,
	PHASE_TRUSTING_BOTH,
	PHASE_REISSUING_LEAVES,
	PHASE_PUBLISHING_NEW,
	PHASE_RESTARTING_WORKLOADS,
	PHASE_AWAITING_APPROVAL,
	PHASE_DROPPING_OLD,
	PHASE_COMPLETED,
	PHASE_COUNT
};

struct phase_text {
	const char *name;      /* "TrustingBoth": status, Events, metrics and logs say this */
	const char *condition; /* "TrustDistributed": True once the phase's proof holds; NULL: it has none */
	const char *restarts;  /* what it restarts, for people */
};
const struct phase_text *phase_text(enum phase p);

/* What users see instead of a phase while a run goes back, and after it has. */
#define PHASE_NAME_ROLLING_BACK "RollingBack"
#define PHASE_NAME_ROLLED_BACK "RolledBack"
/* What they see when a plan was asked for and is there. */
#define PHASE_NAME_PLANNED "Planned"

#endif
