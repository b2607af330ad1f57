/* The forecast: what a run would do to this cluster, as status.plan of a request with mode Plan.
 *
 * Invariants
 * - Pure, like the walk: from a `const struct world *`. What restarts and how long it takes follows the walk's own table, so a plan
 *   does not promise another walk than the one that would be gone.
 * - Nothing is ever planned for it but looks at nodes by Pods that can't write (ACT_NODE with `inspect`), and those Pods' end
 *   (ACT_DISMISS).
 * - A plan is made once everything that it rests on is known; what could not be read delays it and is never left out silently.
 *   Lists hold the first WORLD_LISTED_MAX, totals count all.
 * - A plan is not a promise to be obeyed: a run looks for itself. The status is where the plan lives; lost with it, it is made anew.
 */
#ifndef FORECAST_H
#define FORECAST_H

#include "json.h"
#include "walk.h"

/* Measured on Kubernetes 1.34 (kubeadm, nodes that are containers on two idle cores; with eight times as much to do as those can, a
 * run took twice as long as was forecast). */
#define FORECAST_MANAGER_MS 6000   /* a controller-manager, from its manifest taken away until another one leads and publishes */
#define FORECAST_KUBELET_MS 3000   /* a kubelet, until its node is Ready and it serves */
#define FORECAST_WINDOW_MS 10000   /* etcd and the API server of a control plane, from the gate's closing until both are ready */
#define FORECAST_VISIT_MS 2500     /* a node Pod, from its creation until its report is read */
#define FORECAST_ROLLOUT_MS 10000  /* a wave of rollouts of a few pods each, one pod after the other, until the last is ready */
#define FORECAST_POD_MS 10         /* the request that makes a node Pod: they are made one after the other */
#define FORECAST_PATCHES_PER_SECOND 200 /* kube-root-ca.crt and token Secrets (engine/apply_publish.c) */
#define FORECAST_BUNDLES_PER_SECOND 100 /* objects with caBundles (engine/apply_bundles.c) */
/* A plan that something blocks is made anew after so long. */
#define FORECAST_AGAIN_MS ((int64_t)5 * 60000)

/* True when every node that is Ready has reported: from then on the bulk is read. */
bool forecast_visited(const struct world *w, struct waits *ret);
/* True when all is known that a plan rests on. `held`: nothing is begun (spec.paused). */
bool forecast_locate(const struct world *w, struct position *ret);
/* What to do until then. */
void forecast_actions(const struct world *w, const struct position *p, struct plan *ret);
/* When no request is served: away with Pods that nobody waits for. */
void forecast_rest(const struct world *w, struct plan *ret);
/* status.plan. Caller frees. */
struct json *forecast_make(const struct world *w) __attribute__((returns_nonnull));
/* True when `plan`, from a status, is for the request as it is now: same spec, same authority (its fingerprint). */
bool forecast_answers(const struct json *plan, const struct request *r, const char *authority);
/* Ditto, and nothing blocks, or it is not yet time to look again. */
bool forecast_current(const struct json *plan, const struct request *r, const char *authority, int64_t now_ms);

/* How long a step of the walk takes, in milliseconds: for tests. */
int64_t forecast_step_ms(const struct world *w, size_t step);

#endif
