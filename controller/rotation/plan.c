#include "plan.h"

#include <stdlib.h>
#include <string.h>

static const char *const NAMES[] = {
	[ACT_CREATE_AUTHORITY] = "CreateAuthority",
	[ACT_STORE_BRIDGE] = "StoreBridge",
	[ACT_LATCH] = "Latch",
	[ACT_DELETE_KUBEADM_CERTS] = "DeleteKubeadmCerts",
	[ACT_NODE] = "ConvergeNode",
	[ACT_RELEASE_LEASE] = "ReleaseLease",
	[ACT_PUBLISH] = "Publish",
	[ACT_CA_BUNDLES] = "MoveCABundles",
	[ACT_CLUSTER_INFO] = "PublishClusterInfo",
	[ACT_ADMIN_KUBECONFIG] = "PublishAdminKubeconfig",
	[ACT_RESTART_WORKLOAD] = "RestartWorkload",
	[ACT_REFRESH_PODS] = "RefreshPods",
	[ACT_PRUNE_EXTENSION_AUTH] = "PruneExtensionAuthentication",
	[ACT_FINISH] = "Finish",
	[ACT_DISMISS] = "DismissNodePods",
};
_Static_assert(ARRAY_LEN(NAMES) == ACT_COUNT, "an action without a name");

const char *action_name(enum action_kind k)
{
	return NAMES[k];
}

struct action *plan_add(struct plan *p, enum action_kind kind, int step)
{
	if (p->n == p->size) {
		p->size = p->size ? 2 * p->size : 8;
		p->actions = mem_realloc(p->actions, p->size, sizeof *p->actions);
	}
	struct action *a = &p->actions[p->n++];
	memset(a, 0, sizeof *a);
	a->kind = kind;
	a->step = step;
	for (size_t f = 0; f < FACET_COUNT; f++)
		a->levels[f] = FACET_UNTOUCHED_LEVEL;
	return a;
}

void plan_look_again(struct plan *p, int64_t after_ms)
{
	if (!p->look_again_ms || after_ms < p->look_again_ms)
		p->look_again_ms = after_ms;
}

void plan_release(struct plan *p)
{
	free(p->actions);
	memset(p, 0, sizeof *p);
}
