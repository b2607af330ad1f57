#include "phase.h"

static const struct phase_text TEXTS[] = {
	[PHASE_PREPARING] = { "Preparing", NULL,
		"every node visited, new authority and bridge made and stored", "nothing" },
	[PHASE_TRUSTING_BOTH] = { "TrustingBoth", "TrustDistributed",
		"controller-manager on a signer of its own; every server accepts old and new; both published",
		"controller-manager" },
	[PHASE_REISSUING_LEAVES] = { "ReissuingLeaves", "LeavesReissued",
		"server leaves with the bridge, signer, kubeconfigs, kubelets, apiserver-kubelet-client",
		"kubelet, scheduler, controller-manager, once each" },
	[PHASE_PUBLISHING_NEW] = { "PublishingNew", "TrustPublished",
		"kube-root-ca.crt and token Secrets carry the new authority only; new admin kubeconfig", "nothing" },
	[PHASE_RESTARTING_WORKLOADS] = { "RestartingWorkloads", "WorkloadsRestarted",
		"every pod that talks to the API is seen to have read the new authority", "pods, once" },
	[PHASE_AWAITING_APPROVAL] = { "AwaitingApproval", NULL,
		"proof that nothing depends on the old authority; your approval where it is manual", "nothing" },
	[PHASE_DROPPING_OLD] = { "DroppingOld", "OldAuthorityDropped",
		"old authority leaves every server, file and Secret; manifests as kubeadm wrote them", "controller-manager" },
	[PHASE_COMPLETED] = { "Completed", NULL, "", "" },
};
_Static_assert(ARRAY_LEN(TEXTS) == PHASE_COUNT, "a phase without a text");

const struct phase_text *phase_text(enum phase p)
{
	return &TEXTS[p];
}
