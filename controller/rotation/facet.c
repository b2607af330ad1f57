#include "facet.h"

#include <string.h>

static const struct {
	const char *name;
	int top;
	enum authority authority;
} FACETS[FACET_COUNT] = {
	[FACET_TRUST]          = { "trust", TRUST_NEW, AUTHORITY_KUBERNETES },
	[FACET_SIGNER]         = { "signer", SIGNER_KUBEADM_NEW, AUTHORITY_KUBERNETES },
	[FACET_ROOT]           = { "root", ROOT_KUBEADM_NEW, AUTHORITY_KUBERNETES },
	[FACET_CA_KEY]         = { "caKey", ISSUED_NEW, AUTHORITY_KUBERNETES },
	[FACET_SERVER_LEAF]    = { "serverLeaf", LEAF_NEW, AUTHORITY_KUBERNETES },
	[FACET_KUBELET_SERVER] = { "kubeletServer", LEAF_NEW, AUTHORITY_KUBERNETES },
	[FACET_COMPONENTS]     = { "components", ISSUED_NEW, AUTHORITY_KUBERNETES },
	[FACET_ADMIN]          = { "admin", ISSUED_NEW, AUTHORITY_KUBERNETES },
	[FACET_KUBELET]        = { "kubelet", ISSUED_NEW, AUTHORITY_KUBERNETES },
	[FACET_KUBELET_CLIENT] = { "kubeletClient", ISSUED_NEW, AUTHORITY_KUBERNETES },
	[FACET_PROXY_TRUST]    = { "proxyTrust", TRUST_NEW, AUTHORITY_FRONT_PROXY },
	[FACET_PROXY_CA_KEY]   = { "proxyCAKey", ISSUED_NEW, AUTHORITY_FRONT_PROXY },
	[FACET_PROXY_LEAF]     = { "proxyLeaf", LEAF_NEW, AUTHORITY_FRONT_PROXY },
	[FACET_ETCD_CA_KEY]    = { "etcdCAKey", ISSUED_NEW, AUTHORITY_ETCD },
	[FACET_ETCD_TRUST]     = { "etcdTrust", TRUST_NEW, AUTHORITY_ETCD },
	[FACET_ETCD_LEAF]      = { "etcdLeaf", LEAF_NEW, AUTHORITY_ETCD },
	[FACET_COMPONENTS_BOTH] = { "componentsBoth", ISSUED_NEW, AUTHORITY_KUBERNETES },
	[FACET_ADMIN_BOTH]     = { "adminBoth", ISSUED_NEW, AUTHORITY_KUBERNETES },
	[FACET_KUBELET_BOTH]   = { "kubeletBoth", ISSUED_NEW, AUTHORITY_KUBERNETES },
	[FACET_CLEAN]          = { "clean", CLEAN_YES, AUTHORITY_COUNT },
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

enum authority facet_authority(enum facet f)
{
	return FACETS[f].authority;
}

int facet_top(enum facet f)
{
	return FACETS[f].top;
}

bool facet_reached(int observed, int wanted)
{
	return observed == FACET_ABSENT || (observed >= 0 && observed >= wanted);
}
