/* The front proxy's authority: whose word about users API servers and aggregated servers take, and the certificate that the API server
 * shows to aggregated servers. Files that are re-read when they change; nothing restarts.
 * https://kubernetes.io/docs/tasks/extend-kubernetes/configure-aggregation-layer/ */
#include "file.h"
#include "node.h"

#include <string.h>

#define PAIR_MAX ((size_t)64 << 10)

static const struct succession *authorities(const struct node *n)
{
	return &n->of[AUTHORITY_FRONT_PROXY];
}

/* --- Observing --------------------------------------------------------------------------------------------------------------------- */

/* A leaf of N's, for a look: the one in place, or one that nobody else sees. NULL when N's key is not here. */
static struct cert *new_leaf(const struct node *n, const struct cert *now)
{
	struct cert *leaf = NULL;
	struct err e;
	if (node_issuer(authorities(n), now) == HOLDS_NEW)
		return cert_copy(now);
	return authorities(n)->new && node_reissue(n, AUTHORITY_FRONT_PROXY, now, NULL, &leaf, &e).ok ? leaf : NULL;
}

/* What could not be asked is not known to be in force. */
static bool is_trusted(const struct node *n, const struct cert *leaf)
{
	struct buf pem cleanup(buf_release) = BUF_INIT, key cleanup(buf_release) = BUF_SECRET;
	bool trusted = false;
	struct err e;
	if (!leaf || !remote_available())
		return true;
	cert_to_pem(leaf, &pem);
	return file_read(n->layout.proxy_client_key, PAIR_MAX, &key, &e).ok &&
	       remote_proxy_trusted(n->layout.api_host, n->layout.api_port, buf_str(&pem), buf_str(&key), &trusted, &e).ok && trusted;
}

static bool old_is_refused(const struct node *n)
{
	const struct layout *l = &n->layout;
	return node_old_is_refused(n, AUTHORITY_FRONT_PROXY, l->proxy_client_crt, l->proxy_client_key, remote_proxy_trusted);
}

/* The file's level, as far as the API server shows that it has taken it up. */
static int trust_in_force(const struct node *n, int level, const struct cert *now)
{
	struct cert *new cleanup(cert_freep) = level != TRUST_OLD ? new_leaf(n, now) : NULL;
	if (level != TRUST_OLD && !is_trusted(n, new))
		return TRUST_OLD;
	return level == TRUST_NEW && !old_is_refused(n) ? TRUST_BOTH : level;
}

void node_observe_front_proxy(struct node *n)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	int *levels = n->report->levels;
	int file = node_trust_in_file(n, AUTHORITY_FRONT_PROXY);
	levels[FACET_PROXY_CA_KEY] = node_key_level(n, AUTHORITY_FRONT_PROXY);
	levels[FACET_PROXY_TRUST] = file;
	if (!node_certs(n->layout.proxy_client_crt, &list, &e).ok) {
		node_unreadable(n, n->layout.proxy_client_crt, &e);
		return;
	}
	node_check_leaf(n, AUTHORITY_FRONT_PROXY, n->layout.proxy_client_crt, list.items[0]);
	levels[FACET_PROXY_LEAF] = node_leaf_level(n, AUTHORITY_FRONT_PROXY, file, &list);
	if (file != FACET_UNKNOWN && levels[FACET_PROXY_LEAF] != FACET_UNKNOWN)
		levels[FACET_PROXY_TRUST] = trust_in_force(n, file, list.items[0]);
}

/* --- Acting -------------------------------------------------------------------------------------------------------------------------- */

static bool trust_reached(struct node *n, const void *context)
{
	const int *level = context;
	node_observe_front_proxy(n);
	return facet_reached(n->report->levels[FACET_PROXY_TRUST], *level);
}

result node_proxy_trust(struct node *n, int level, struct err *e)
{
	TRY(node_trust(n, AUTHORITY_FRONT_PROXY, level, e));
	TRY(node_wait(n, trust_reached, &level, "kube-apiserver to take up its --requestheader-client-ca-file", e));
	return node_observe(n, e);
}

result node_proxy_leaf(struct node *n, struct err *e)
{
	bool bare = n->desired->levels[FACET_PROXY_LEAF] == LEAF_NEW && n->report->levels[FACET_PROXY_TRUST] == TRUST_NEW;
	TRY(node_write_leaf(n, AUTHORITY_FRONT_PROXY, n->layout.proxy_client_crt, !bare, e));
	return node_observe(n, e);
}
