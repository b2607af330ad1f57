/* What the CertificateRotation's status and Events say: computed from the world, never read back to decide anything.
 *
 * Invariants
 * - Pure. The same world gives the same status but for the transition times, which come from the previous status.
 * - Conditions follow kstatus: Ready always; Reconciling and Stalled only when True; one per phase, always present.
 *   observedGeneration is in the status and in every condition.
 * - What is not seen takes nothing back that was said: what could not be read, a node that is down or has to be asked again, a server that
 *   another leader has not asked yet, a pod that was not looked at, and all of it while the run is held. The phase and what is proven stay
 *   until it is known. Once the drop has begun what was proven before it stays, whoever leads.
 * - Events are the difference of two statuses: none for no change.
 */
#ifndef STATUS_H
#define STATUS_H

#include "json.h"
#include "walk.h"

/* Why this request is not (yet) the one that the walk serves. */
enum standing {
	STANDING_RUNS,      /* the walk serves it, or may begin to */
	STANDING_QUEUED,    /* another run is under way */
	STANDING_DONE,      /* its trigger is recorded */
	STANDING_ROLLED_BACK, /* ditto, and its run was taken back */
	STANDING_INVALID,   /* it can't be served as it stands */
	STANDING_PLANNING,  /* mode Plan: being made; position says what it waits for */
	STANDING_PLANNED,   /* mode Plan: `plan` is what was asked for */
};

struct status_input {
	const struct world *world;
	const struct position *position;   /* with STANDING_RUNS and STANDING_PLANNING */
	const struct json *plan;           /* with STANDING_PLANNED: status.plan (forecast.h); borrowed */
	const struct request *request;
	enum standing standing;
	const char *detail;                /* STANDING_QUEUED: the run that goes first; STANDING_INVALID: what is wrong */
	const char *apply_error;           /* the last action that failed in this pass, NULL: none */
	const struct json *previous;       /* the status in the API, NULL: none */
	const struct json *authorities;    /* status.authorities, made by whoever can read certificates; borrowed */
	const struct json *admin_kubeconfig; /* status.adminKubeconfig, ditto; NULL: this request's run has published none */
	const struct json *closed;         /* the run that ended: {trigger,startedAt,completedAt}; NULL: none */
};

/* When the run is to be complete by spec.deadline; 0: no run, or no deadline. */
int64_t status_deadline_ms(const struct world *w);
bool status_deadline_passed(const struct world *w);
/* The status object. Caller frees. */
struct json *status_make(const struct status_input *in) __attribute__((returns_nonnull));
/* "blockers" and "blockersTotal" of a status or a plan: what holds the run up in that phase. */
void status_blockers(const struct world *w, enum phase now, struct json *status);
/* True when they differ in anything a reader would notice. */
bool status_differs(const struct json *previous, const struct json *next);

struct status_event {
	bool warning;
	char reason[64];
	char note[1024];
};
/* At most max Events for the step from previous (NULL: none) to next. Returns how many. */
size_t status_events(const struct json *previous, const struct json *next, struct status_event *ret, size_t max);

#endif
