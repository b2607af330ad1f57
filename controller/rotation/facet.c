#include "facet.h"

#include <string.h>

static const struct {
	const char *name;
	int top;
} FACETS[FACET_COUNT] = {
	[FACET_TRUST]          = { "trust", TRUST_NEW },
	[FACET_SIGNER]         = { "signer", SIGNER_KUBEADM_NEW },
	[FACET_ROOT]           = { "root", ROOT_KUBEADM_NEW },
	[FACET_CA_KEY]         = { "caKey", ISSUED_NEW },
	[FACET_SERVER_LEAF]    = { "serverLeaf", LEAF_NEW },
	[FACET_KUBELET_SERVER] = { "kubeletServer", LEAF_NEW },
	[FACET_COMPONENTS]     = { "components", ISSUED_NEW },
	[FACET_ADMIN]          = { "admin", ISSUED_NEW },
	[FACET_KUBELET]        = { "kubelet", ISSUED_NEW },
	[FACET_KUBELET_CLIENT] = { "kubeletClient", ISSUED_NEW },
	[FACET_CLEAN]          = { "clean", CLEAN_YES },
};

const char *facet_name(enum facet f)
{
	return FACETS[f].name;
}

enum facet facet_by_name(const char *name)
{
	size_t f = 0;
	while (f < FACET_COUNT && !str_eq(FACETS[f].name, name))
		f++;
	return (enum facet)f;
}

int facet_top(enum facet f)
{
	return FACETS[f].top;
}

bool facet_reached(int observed, int wanted)
{
	return observed == FACET_ABSENT || (observed >= 0 && observed >= wanted);
}
