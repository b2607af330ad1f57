/* Applying actions: the only code that writes to the cluster (report.h writes status and Events of the CertificateRotation itself).
 *
 * Invariants
 * - Every write is idempotent, has a deterministic name or a precondition (resourceVersion, a JSON patch's `test`), and is
 *   safe on its own: a crash may fall before or after any of them.
 * - N's private key is read from its Secret only for the action that signs with it, and wiped after.
 */
#ifndef APPLY_H
#define APPLY_H

#include "consumer.h"
#include "plan.h"

struct applier {
	struct kube *kube;
	const struct settings *settings;
	const struct world *world;
	const struct node_report *reports; /* same index as world->nodes */
	struct bundle_memory *bundles;
};

/* ERR_CONFLICT means that somebody was first: the next pass will see. */
result apply_action(const struct applier *a, const struct action *action, struct err *e) MUST_CHECK;
/* The finalizer on the CertificateRotation `name`. */
result apply_finalizer(struct kube *kube, const struct json *object, bool wanted, struct err *e) MUST_CHECK;

/* --- Parts of it, by file --------------------------------------------------------------------------------------------- */
result apply_create_authority(const struct applier *a, const struct action *action, struct err *e) MUST_CHECK;
result apply_store_bridge(const struct applier *a, const struct action *action, struct err *e) MUST_CHECK;
result apply_latch(const struct applier *a, const struct action *action, struct err *e) MUST_CHECK;
result apply_admin_kubeconfig(const struct applier *a, const struct action *action, struct err *e) MUST_CHECK;
result apply_finish(const struct applier *a, struct err *e) MUST_CHECK;
/* Takes every node Pod away: what they said is of no use to a later request. */
result apply_dismiss(const struct applier *a, struct err *e) MUST_CHECK;
result apply_job(const struct applier *a, const struct action *action, struct err *e) MUST_CHECK;
result apply_publish(const struct applier *a, const struct action *action, struct err *e) MUST_CHECK;
/* Many at once, paced; what changed since it was looked at is left for the next pass. */
result apply_ca_bundles(const struct applier *a, const struct action *action, struct err *e) MUST_CHECK;
result apply_cluster_info(const struct applier *a, const struct action *action, struct err *e) MUST_CHECK;
result apply_prune_extension_auth(const struct applier *a, const struct action *action, struct err *e) MUST_CHECK;

#endif
