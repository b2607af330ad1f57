/* The order of work on a node, and what its parts share. */
#include "file.h"
#include "node.h"

#include <string.h>
#include <time.h>

#define POLL_MS 30
#define PROBE_NAME "certrotation:probe"
#define PROBE_VALIDITY_MS ((int64_t)48 * 3600000)

bool node_wants(const struct node *n, enum facet f, int level)
{
	int wanted = n->desired->levels[f];
	return !n->report->n_blockers && wanted != FACET_UNTOUCHED && wanted >= level && !facet_reached(n->report->levels[f], level);
}

char *node_backup_path(const struct node *n, const char *path)
{
	return str_printf("%s/backup%s", n->layout.run_dir, path + strlen(n->layout.root));
}

result node_back_up(const struct node *n, const char *path, struct err *e)
{
	char *to cleanup(str_freep) = node_backup_path(n, path);
	char *folder cleanup(str_freep) = str_dup(to);
	if (!file_exists(path) || file_exists(to))
		return OK;
	*strrchr(folder, '/') = '\0';
	TRY(file_mkdir(folder, 0700, e));
	return file_backup(path, to, e);
}

static bool holds_already(const char *path, const struct buf *content)
{
	struct buf now cleanup(buf_release) = BUF_SECRET;
	struct err e;
	return file_read(path, content->len, &now, &e).ok && now.len == content->len && memcmp(now.data, content->data, now.len) == 0;
}

result node_write_own(struct node *n, const char *path, const struct buf *content, mode_t mode, struct err *e)
{
	char *folder cleanup(str_freep) = str_dup(path);
	if (holds_already(path, content))
		return OK; /* its time decides who must restart */
	*strrchr(folder, '/') = '\0';
	TRY(file_mkdir(folder, 0700, e));
	TRY_CTX(file_replace(path, buf_str(content), content->len, mode, NULL, e), e, "writing %s", path);
	strs_add(&n->report->changed, path);
	return OK;
}

result node_replace(struct node *n, const char *path, const struct buf *content, mode_t mode_if_new, struct err *e)
{
	if (holds_already(path, content))
		return OK;
	TRY_CTX(node_back_up(n, path, e), e, "keeping a copy of %s", path);
	TRY_CTX(file_replace(path, buf_str(content), content->len, mode_if_new, NULL, e), e, "writing %s", path);
	strs_add(&n->report->changed, path);
	return OK;
}

void node_rest(int64_t ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000 };
	nanosleep(&t, NULL);
}

result node_wait(struct node *n, bool (*holds)(struct node *n, const void *context), const void *context, const char *what,
		 struct err *e)
{
	while (!holds(n, context)) {
		if (clock_monotonic_ms() > n->until_ms)
			return err_set(e, ERR_TIMEOUT, "waited in vain for %s", what);
		node_rest(POLL_MS);
	}
	return OK;
}

/* A certificate without any rights by which the controller sees who still trusts O. */
static result sign_probe(struct node *n, const struct key *k, struct err *e)
{
	struct cert *probe cleanup(cert_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_INIT;
	const struct leaf_request q = { .common_name = PROBE_NAME, .client = true, .now_ms = clock_now_ms(), .validity_ms = PROBE_VALIDITY_MS };
	TRY(leaf_make_for_csr(&q, n->desired->probe_csr_pem, n->of[AUTHORITY_KUBERNETES].old, k, &probe, e));
	cert_to_pem(probe, &pem);
	n->report->probe_pem = buf_take(&pem);
	return OK;
}

result node_sign_bridge(struct node *n, struct err *e)
{
	const struct succession *s = &n->of[n->desired->asked];
	struct key *k cleanup(key_freep) = NULL;
	struct cert *x cleanup(cert_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_INIT;
	TRY(node_old_key(n, n->desired->asked, &k, e));
	TRY_CTX(ca_cross_sign(s->new, s->old, k, clock_now_ms(), &x, e), e, "certifying the new authority by the old one");
	cert_to_pem(x, &pem);
	n->report->bridge_pem = buf_take(&pem);
	return n->desired->probe_csr_pem ? sign_probe(n, k, e) : OK;
}

/* The walk's order, whatever is asked for: each stage leaves everybody able to talk. A signer and a root file, then trust. */
static result converge_trust(struct node *n, struct err *e)
{
	if (node_wants(n, FACET_SIGNER, SIGNER_OWN_OLD) || node_wants(n, FACET_ROOT, ROOT_OWN_BOTH))
		TRY_CTX(node_own_signer(n, e), e, "a signer of its own for the controller-manager");
	if (node_wants(n, FACET_TRUST, TRUST_BOTH))
		TRY_CTX(node_trust(n, AUTHORITY_KUBERNETES, TRUST_BOTH, e), e, "trusting both");
	if (node_wants(n, FACET_PROXY_TRUST, TRUST_BOTH))
		TRY_CTX(node_proxy_trust(n, TRUST_BOTH, e), e, "trusting both front proxies");
	return OK;
}

static result converge_leaves(struct node *n, struct err *e)
{
	if (node_wants(n, FACET_PROXY_CA_KEY, ISSUED_NEW))
		TRY_CTX(node_ca_key(n, AUTHORITY_FRONT_PROXY, e), e, "the front proxy authority's key");
	if (node_wants(n, FACET_PROXY_LEAF, LEAF_BRIDGE))
		TRY_CTX(node_proxy_leaf(n, e), e, "the front proxy's certificate");
	if (node_wants(n, FACET_ETCD_LEAF, LEAF_BRIDGE))
		TRY_CTX(node_etcd_leaves(n, e), e, "etcd's certificates");
	if (node_wants(n, FACET_SERVER_LEAF, LEAF_BRIDGE))
		TRY_CTX(node_server_leaf(n, e), e, "the API server's certificate");
	if (node_wants(n, FACET_CA_KEY, ISSUED_NEW))
		TRY_CTX(node_ca_key(n, AUTHORITY_KUBERNETES, e), e, "the authority's key");
	if (node_wants(n, FACET_SIGNER, SIGNER_OWN_NEW))
		TRY_CTX(node_signer_new(n, e), e, "the signer");
	if (node_wants(n, FACET_ADMIN, ISSUED_NEW))
		TRY_CTX(node_admin(n, false, e), e, "the administrators' kubeconfigs");
	if (node_wants(n, FACET_COMPONENTS, ISSUED_NEW) || node_wants(n, FACET_ROOT, ROOT_OWN_NEW))
		TRY_CTX(node_components(n, false, e), e, "scheduler and controller-manager");
	if (node_wants(n, FACET_KUBELET, ISSUED_NEW))
		TRY_CTX(node_kubelet(n, false, e), e, "the kubelet");
	if (node_wants(n, FACET_KUBELET_CLIENT, ISSUED_NEW))
		TRY_CTX(node_kubelet_client(n, e), e, "the API server's client certificate");
	return OK;
}

static result converge_distrust(struct node *n, struct err *e)
{
	if (node_wants(n, FACET_PROXY_TRUST, TRUST_NEW))
		TRY_CTX(node_proxy_trust(n, TRUST_NEW, e), e, "trusting the new front proxy only");
	if (node_wants(n, FACET_PROXY_LEAF, LEAF_NEW))
		TRY_CTX(node_proxy_leaf(n, e), e, "the front proxy's certificate");
	if (node_wants(n, FACET_TRUST, TRUST_NEW))
		TRY_CTX(node_trust(n, AUTHORITY_KUBERNETES, TRUST_NEW, e), e, "trusting the new authority only");
	if (node_wants(n, FACET_SIGNER, SIGNER_KUBEADM_NEW) || node_wants(n, FACET_ROOT, ROOT_KUBEADM_NEW))
		TRY_CTX(node_kubeadm_flags(n, e), e, "kubeadm's flags");
	if (node_wants(n, FACET_SERVER_LEAF, LEAF_NEW))
		TRY_CTX(node_server_leaf(n, e), e, "the API server's certificate");
	if (node_wants(n, FACET_ETCD_TRUST, TRUST_NEW) || node_wants(n, FACET_ETCD_CA_KEY, ISSUED_NEW))
		TRY_CTX(node_etcd_trust(n, e), e, "etcd and kube-apiserver, trusting etcd's new authority only");
	if (node_wants(n, FACET_ETCD_LEAF, LEAF_NEW))
		TRY_CTX(node_etcd_leaves(n, e), e, "etcd's certificates");
	return OK;
}

/* Without a bridge whoever is to see a new certificate has heard of its authority before: clients first, servers last. */
static result bundle_leaves(struct node *n, struct err *e)
{
	if (node_wants(n, FACET_CA_KEY, ISSUED_NEW))
		TRY_CTX(node_ca_key(n, AUTHORITY_KUBERNETES, e), e, "the authority's key");
	if (node_wants(n, FACET_SIGNER, SIGNER_OWN_NEW))
		TRY_CTX(node_signer_new(n, e), e, "the signer");
	if (node_wants(n, FACET_ADMIN_BOTH, ISSUED_NEW))
		TRY_CTX(node_admin(n, true, e), e, "the administrators' kubeconfigs");
	if (node_wants(n, FACET_COMPONENTS_BOTH, ISSUED_NEW))
		TRY_CTX(node_components(n, true, e), e, "scheduler and controller-manager");
	if (node_wants(n, FACET_KUBELET_BOTH, ISSUED_NEW))
		TRY_CTX(node_kubelet(n, true, e), e, "the kubelet");
	if (node_wants(n, FACET_KUBELET_CLIENT, ISSUED_NEW))
		TRY_CTX(node_kubelet_client(n, e), e, "the API server's client certificate");
	if (node_wants(n, FACET_SERVER_LEAF, LEAF_NEW))
		TRY_CTX(node_server_leaf(n, e), e, "the API server's certificate");
	return OK;
}

/* kubelet.conf after ca.crt: the kubelet's restart for the one brings it the other. */
static result bundle_distrust(struct node *n, struct err *e)
{
	if (node_wants(n, FACET_TRUST, TRUST_NEW))
		TRY_CTX(node_trust(n, AUTHORITY_KUBERNETES, TRUST_NEW, e), e, "trusting the new authority only");
	if (node_wants(n, FACET_ADMIN, ISSUED_NEW))
		TRY_CTX(node_admin(n, false, e), e, "the administrators' kubeconfigs");
	if (node_wants(n, FACET_COMPONENTS, ISSUED_NEW))
		TRY_CTX(node_components(n, false, e), e, "scheduler and controller-manager");
	if (node_wants(n, FACET_SIGNER, SIGNER_KUBEADM_NEW) || node_wants(n, FACET_ROOT, ROOT_KUBEADM_NEW))
		TRY_CTX(node_kubeadm_flags(n, e), e, "kubeadm's flags");
	if (node_wants(n, FACET_KUBELET, ISSUED_NEW))
		TRY_CTX(node_kubelet(n, false, e), e, "the kubelet");
	return OK;
}

static result converge_bundle(struct node *n, struct err *e)
{
	TRY(converge_trust(n, e));
	TRY(bundle_leaves(n, e));
	return bundle_distrust(n, e);
}

static result converge_control_plane(struct node *n, struct err *e)
{
	TRY(converge_trust(n, e));
	TRY(converge_leaves(n, e));
	return converge_distrust(n, e);
}

static result converge_worker(struct node *n, struct err *e)
{
	if (node_wants(n, FACET_TRUST, TRUST_BOTH))
		TRY_CTX(node_trust(n, AUTHORITY_KUBERNETES, TRUST_BOTH, e), e, "trusting both");
	if (node_wants(n, FACET_KUBELET, ISSUED_NEW))
		TRY_CTX(node_kubelet(n, false, e), e, "the kubelet");
	if (node_wants(n, FACET_TRUST, TRUST_NEW))
		TRY_CTX(node_trust(n, AUTHORITY_KUBERNETES, TRUST_NEW, e), e, "trusting the new authority only");
	return OK;
}

result node_converge(struct node *n, struct err *e)
{
	if (n->report->n_blockers)
		return OK; /* they are reported; nothing is touched */
	if (n->desired->certify)
		TRY(node_sign_bridge(n, e));
	if (n->desired->bundle)
		TRY(converge_bundle(n, e)); /* what a worker has not counts as done */
	else
		TRY(n->layout.control_plane ? converge_control_plane(n, e) : converge_worker(n, e));
	if (node_wants(n, FACET_CLEAN, CLEAN_YES))
		TRY_CTX(node_clean(n, e), e, "cleaning up");
	return OK;
}
