/* One pass: observe, decide, act, report.
 *
 * Invariants
 * - Nothing is kept from pass to pass but what handshakes have shown (probe_memory) and when the status was written last.
 * - A pass that could not read everything begins nothing but what a person has asked for (ACT_LATCH), and says what it could not read.
 * - A pass begins no action once `may_act` says no (the Lease is lost): looked at before every action, and, for a process may be
 *   stopped anywhere, before every request that writes, of whatever there was to do (kube_gate).
 */
#ifndef RECONCILE_H
#define RECONCILE_H

#include "consumer.h"

struct engine;

struct engine_hooks {
	bool (*may_act)(void *context);
	/* The state after a pass, for metrics and the status page; texts are borrowed. */
	void (*observed)(void *context, const char *metrics, const char *status_json);
	void *context;
};

struct engine *engine_new(struct kube *kube_borrowed, const struct settings *settings, const struct engine_hooks *hooks)
	__attribute__((returns_nonnull));
void engine_freep(struct engine **g);
/* *ret_again_ms: when to look again without an event. Errors of single consumers and actions are in status and log, and shorten it. */
result engine_pass(struct engine *g, int64_t *ret_again_ms, struct err *e) MUST_CHECK;

#endif
