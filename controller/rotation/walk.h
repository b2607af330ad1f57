/* The walk: an ordered table of steps, each a predicate on the world and what to do while it does not hold.
 *
 * Invariants
 * - The position of a rotation is the first step whose predicate fails on a fresh observation; its phase is the phase.
 *   Nothing else says where we are (design, section 3).
 * - Predicates are monotone: once true they stay true under every later step's actions. Node steps are so by construction
 *   (facet.h); cluster steps speak only of "has N", "has nothing but N", "has no O". A node that joins in the middle makes an
 *   earlier predicate false, and the walk goes back by itself, for that node only.
 * - Where not everything could be read, the position is a lower bound and nothing is begun.
 * - No step's actions leave a live pair of client and server unable to talk; the simulation checks it after every action.
 * - The table is the documentation: walk_print writes the picture of README.md from it.
 */
#ifndef WALK_H
#define WALK_H

#include "phase.h"
#include "plan.h"

/* What a step waits for: one sentence, and names (the first few). */
struct waits {
	struct buf message;
	struct strs names;
	size_t done, total; /* total 0: not countable */
	bool stalled;       /* goes no further without a person */
	bool unknown;       /* it was not seen, which says nothing of whether it is so */
	const char *reason; /* CamelCase, from a fixed list */
};
void waits_release(struct waits *w);

#define STEP_FACETS_MAX 4
enum scope { SCOPE_CLUSTER, SCOPE_CONTROL_PLANES, SCOPE_NODES };
enum pace {
	PACE_ALL,      /* hot: all nodes at once */
	PACE_ONE,      /* one node at a time */
	PACE_WORKERS,  /* control planes one at a time, then at most maxConcurrentWorkers */
};

struct step {
	enum phase phase;
	authority_set of;    /* whose step it is; passed over unless one of them is rotated. 0: everybody's */
	const char *name;    /* "trust-both" */
	const char *title;   /* for people: "every server accepts old and new" */
	enum scope scope;
	enum pace pace;
	struct { enum facet facet; int level; } facets[STEP_FACETS_MAX];
	size_t n_facets;
	unsigned only;       /* of these strategies, a bit each. 0: of every one */
	bool proof;          /* node steps: a report that was asked for by this step or a later one, and that still counts: no container
			      * of the control plane has started since. (Elsewhere a start can only raise levels: it reads newer files.) */
	/* Cluster steps, and what a node step asks beyond its facets; NULL: nothing. True when it holds. */
	bool (*holds)(const struct world *w, struct waits *ret);
	void (*plan)(const struct world *w, int step, struct plan *ret);
};

size_t walk_length(void);
const struct step *walk_step(size_t i);
/* Index of the step by name; walk_length() when there is none. */
size_t walk_find(const char *name);

struct position {
	size_t step;             /* walk_length(): all hold */
	enum phase phase;
	bool held;               /* nothing new is begun: paused, a node is down, a blocker */
	bool blocked;            /* held by what a person must see to: until then it is looked at again and again */
	struct waits waits;      /* for what */
	bool phase_done[PHASE_COUNT]; /* the phase's steps all hold now */
};
/* Where the world stands. */
void walk_locate(const struct world *w, struct position *ret);
void position_release(struct position *p);
/* What to do next. Empty while held or while everything is under way. */
void walk_plan(const struct world *w, const struct position *p, struct plan *ret);

/* The levels a node must have before `step` may begin on it, and those of the step itself: what a job is asked for. */
void walk_levels(const struct world *w, size_t step, bool control_plane, int ret_levels[static FACET_COUNT]);
/* True when the node has nothing left to do for the step. */
bool walk_node_done(const struct world *w, size_t step, const struct node_state *n);
/* False when it is a step of authorities that are not rotated, or of another strategy. */
bool walk_applies(const struct world *w, const struct step *s);
/* What a phase moves for these authorities by that strategy, for people: its steps' titles, joined. False when there is no step for it. */
bool walk_moves(authority_set set, enum strategy by, enum phase p, struct buf *out);

/* False while a node Pod runs there or its back-off lasts; when to look again goes into ret. */
bool walk_job_may_start(const struct world *w, const struct node_state *n, struct plan *ret);

/* The table and the picture of README.md. */
void walk_print(struct buf *out);

#endif
