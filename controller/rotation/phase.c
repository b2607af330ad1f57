#include "phase.h"

static const struct phase_text TEXTS[] = {
	[PHASE_PREPARING] = { "Preparing", NULL, "nothing" },
	[PHASE_TRUSTING_BOTH] = { "TrustingBoth", "TrustDistributed", "controller-manager" },
	[PHASE_REISSUING_LEAVES] = { "ReissuingLeaves", "LeavesReissued", "kubelet, scheduler, controller-manager, once each" },
	[PHASE_PUBLISHING_NEW] = { "PublishingNew", "TrustPublished", "nothing" },
	[PHASE_RESTARTING_WORKLOADS] = { "RestartingWorkloads", "WorkloadsRestarted", "pods, once" },
	[PHASE_AWAITING_APPROVAL] = { "AwaitingApproval", NULL, "nothing" },
	[PHASE_DROPPING_OLD] = { "DroppingOld", "OldAuthorityDropped",
				 "controller-manager; for Etcd: etcd and kube-apiserver, once each; with Bundle: scheduler, kubelets and pods "
				 "once more" },
	[PHASE_COMPLETED] = { "Completed", NULL, "" },
};
_Static_assert(ARRAY_LEN(TEXTS) == PHASE_COUNT, "a phase without a text");

const struct phase_text *phase_text(enum phase p)
{
	return &TEXTS[p];
}
