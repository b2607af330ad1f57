#include "authority.h"

#include <string.h>

static const struct {
	const char *name, *slug, *common_name;
} AUTHORITIES[AUTHORITY_COUNT] = {
	[AUTHORITY_KUBERNETES] = { "Kubernetes", "kubernetes", "kubernetes" },
	[AUTHORITY_FRONT_PROXY] = { "FrontProxy", "front-proxy", "front-proxy-ca" },
	[AUTHORITY_ETCD] = { "Etcd", "etcd", "etcd-ca" },
};

bool authority_in(authority_set set, enum authority a)
{
	return set & AUTHORITY_BIT(a);
}

enum authority authority_lead(authority_set set)
{
	size_t a = 0;
	while (a < AUTHORITY_COUNT && !authority_in(set, (enum authority)a))
		a++;
	return (enum authority)a;
}

const char *authority_name(enum authority a)
{
	return AUTHORITIES[a].name;
}

enum authority authority_by_name(const char *name)
{
	size_t a = 0;
	while (a < AUTHORITY_COUNT && !str_eq(AUTHORITIES[a].name, name))
		a++;
	return (enum authority)a;
}

const char *authority_slug(enum authority a)
{
	return AUTHORITIES[a].slug;
}

const char *authority_common_name(enum authority a)
{
	return AUTHORITIES[a].common_name;
}
