/* Server leaves, kubeconfigs, the scheduler and the controller-manager in place. */
#include "file.h"
#include "kubeconfig.h"
#include "node.h"
#include "remote.h"

#include <string.h>


static int64_t validity_of(const struct node *n, const struct cert *predecessor)
{
	if (n->desired->leaf_validity_ms)
		return n->desired->leaf_validity_ms;
	return cert_not_after_ms(predecessor) - cert_not_before_ms(predecessor);
}

static result reissue(const struct node *n, const struct cert *predecessor, const struct key *new_key, struct cert **ret, struct err *e)
{
	struct key *ca_key cleanup(key_freep) = NULL;
	TRY(node_new_key(n, &ca_key, e));
	return leaf_reissue(predecessor, new_key, n->new_ca, ca_key, clock_now_ms(), validity_of(n, predecessor), ret, e);
}

/* --- Leaves whose key stays: one rename --------------------------------------------------------------------------------------------- */

static bool leaf_presented(struct node *n, const void *context)
{
	const struct certs *wanted = context;
	struct certs shown cleanup(certs_release) = { 0 };
	char *pem cleanup(str_freep) = NULL;
	struct err e;
	if (!remote_available())
		return true;
	return remote_presented(n->layout.api_port, &pem, &e).ok && certs_from_pem(pem, strlen(pem), &shown, &e).ok &&
	       shown.n == wanted->n && cert_equal(shown.items[0], wanted->items[0]);
}

/* The leaf from N that is there already is kept: only X comes or goes. */
static result server_chain(const struct node *n, bool with_bridge, struct certs *ret, struct err *e)
{
	struct certs now cleanup(certs_release) = { 0 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	TRY(node_certs(n->layout.apiserver_crt, &now, e));
	if (node_issuer(n, now.items[0]) == HOLDS_NEW)
		leaf = cert_copy(now.items[0]);
	else
		TRY_CTX(reissue(n, now.items[0], NULL, &leaf, e), e, "%s", n->layout.apiserver_crt);
	certs_add(ret, steal(&leaf));
	if (with_bridge)
		certs_add(ret, cert_copy(n->bridge));
	return OK;
}

result node_server_leaf(struct node *n, struct err *e)
{
	struct certs chain cleanup(certs_release) = { 0 };
	struct buf pem cleanup(buf_release) = BUF_INIT;
	bool bare = n->desired->levels[FACET_SERVER_LEAF] == LEAF_NEW && n->report->levels[FACET_TRUST] == TRUST_NEW;
	if (!bare && !n->bridge)
		return err_set(e, ERR_INPUT, "there is no bridge certificate to present");
	TRY(server_chain(n, !bare, &chain, e));
	certs_to_pem(&chain, &pem);
	TRY(node_replace(n, n->layout.apiserver_crt, &pem, 0644, e));
	TRY(node_wait(n, leaf_presented, &chain, "kube-apiserver to present its new certificate", e));
	return node_observe(n, e);
}

static char *api_url(const struct node *n)
{
	const char *address = n->layout.advertise ? n->layout.advertise : "127.0.0.1";
	bool v6 = strchr(address, ':') != NULL;
	return str_printf("https://%s%s%s:%d", v6 ? "[" : "", address, v6 ? "]" : "", n->layout.api_port);
}

static result absorb(const struct node *n, const struct buf *cert_pem, struct err *e)
{
	struct buf key_pem cleanup(buf_release) = BUF_SECRET, ca_pem cleanup(buf_release) = BUF_INIT;
	char *server cleanup(str_freep) = api_url(n);
	TRY(file_read(n->layout.kubelet_client_key, 65536, &key_pem, e));
	cert_to_pem(n->old_ca, &ca_pem);
	cert_to_pem(n->new_ca, &ca_pem);
	const struct remote_identity id = { server, buf_str(&ca_pem), buf_str(cert_pem), buf_str(&key_pem) };
	return remote_absorb(&id, n->until_ms, e);
}

result node_kubelet_client(struct node *n, struct err *e)
{
	struct certs now cleanup(certs_release) = { 0 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_INIT;
	TRY(node_certs(n->layout.kubelet_client_crt, &now, e));
	TRY_CTX(reissue(n, now.items[0], NULL, &leaf, e), e, "%s", n->layout.kubelet_client_crt);
	cert_to_pem(leaf, &pem);
	TRY(node_replace(n, n->layout.kubelet_client_crt, &pem, 0644, e));
	if (remote_available())
		TRY(absorb(n, &pem, e));
	return node_observe(n, e);
}

/* --- Kubeconfigs: a new key, leaf from N, trust N ------------------------------------------------------------------------------------- */

static result renewed_pair(const struct node *n, const char *cert_pem, struct buf *ret_cert, struct buf *ret_key, struct err *e)
{
	struct cert *predecessor cleanup(cert_freep) = NULL, *leaf cleanup(cert_freep) = NULL;
	struct key *k cleanup(key_freep) = NULL;
	TRY(cert_from_pem(cert_pem, strlen(cert_pem), &predecessor, e));
	char *algorithm cleanup(str_freep) = cert_key_algorithm(predecessor);
	TRY(key_generate(algorithm, &k, e));
	TRY(reissue(n, predecessor, k, &leaf, e));
	cert_to_pem(leaf, ret_cert);
	key_to_pem(k, ret_key);
	return OK;
}

static bool is_new(const struct node *n, const struct kubeconfig *c)
{
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct err e;
	int holds = 0;
	return c->client_cert_pem && c->ca_pem && cert_from_pem(c->client_cert_pem, strlen(c->client_cert_pem), &leaf, &e).ok &&
	       node_issuer(n, leaf) == HOLDS_NEW && node_bundle(n, c->ca_pem, strlen(c->ca_pem), &holds, &e).ok && holds == HOLDS_NEW;
}

static result renew_kubeconfig(struct node *n, const char *path, struct err *e)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct buf text cleanup(buf_release) = BUF_SECRET, next cleanup(buf_release) = BUF_SECRET, key cleanup(buf_release) = BUF_SECRET;
	struct buf cert cleanup(buf_release) = BUF_INIT, ca cleanup(buf_release) = BUF_INIT;
	TRY(file_read(path, MANIFEST_MAX, &text, e));
	TRY_CTX(kubeconfig_load(path, n->layout.root, &c, e), e, "%s", path);
	if (is_new(n, &c))
		return OK;
	if (!c.client_cert_pem || c.client_cert_path)
		return err_set(e, ERR_INPUT, "%s does not embed a client certificate", path);
	TRY_CTX(renewed_pair(n, c.client_cert_pem, &cert, &key, e), e, "%s", path);
	cert_to_pem(n->new_ca, &ca);
	TRY_CTX(kubeconfig_replace(buf_str(&text), text.len, buf_str(&ca), buf_str(&cert), buf_str(&key), &next, e), e, "%s", path);
	return node_replace(n, path, &next, 0600, e);
}

result node_admin(struct node *n, struct err *e)
{
	if (file_exists(n->layout.admin_conf))
		TRY(renew_kubeconfig(n, n->layout.admin_conf, e));
	if (file_exists(n->layout.super_admin_conf))
		TRY(renew_kubeconfig(n, n->layout.super_admin_conf, e));
	return node_observe(n, e);
}

/* --- Restarts in place ------------------------------------------------------------------------------------------------------------------ */

struct restart {
	enum process process;
	struct process_seen before;
	int port;
};

static bool restarted(struct node *n, const void *context)
{
	const struct restart *r = context;
	const struct process_seen *now = &n->processes[r->process];
	long status = 0;
	struct err e;
	if (!node_find_processes(n, &e).ok || !n->running[r->process])
		return false;
	if (now->pid == r->before.pid && now->started_ms - r->before.started_ms < 1000)
		return false;
	return !remote_available() || (remote_answers(r->port, "/healthz", &status, &e).ok && status == 200);
}

/* Younger than what it reads at its start: left alone, for a second restart within ten minutes would make the kubelet wait. */
static bool must_restart(const struct node *n, enum process p, const char *const *files, size_t n_files)
{
	for (size_t i = 0; i < n_files; i++) {
		int64_t written = 0;
		struct err e;
		if (file_mtime(files[i], &written, &e).ok && n->processes[p].started_ms < written)
			return true;
	}
	return false;
}

static result restart_in_place(struct node *n, enum process p, int port, struct err *e)
{
	struct restart r = { .process = p, .port = port };
	if (n->running[p]) {
		r.before = n->processes[p];
		r.before.args = (struct strs){ 0 };
		TRY(process_terminate(&r.before, e));
		strs_add(&n->report->restarted, process_name(p));
	}
	return node_wait(n, restarted, &r, process_name(p), e);
}

static result new_root(struct node *n, struct err *e)
{
	struct buf pem cleanup(buf_release) = BUF_INIT;
	int holds = 0;
	if (!node_wants(n, FACET_ROOT, ROOT_OWN_NEW))
		return OK;
	TRY(node_bundle_file(n, n->layout.own_root, &holds, e));
	if (holds == HOLDS_NEW)
		return OK;
	cert_to_pem(n->new_ca, &pem);
	strs_add(&n->report->changed, n->layout.own_root);
	return file_replace(n->layout.own_root, buf_str(&pem), pem.len, 0644, NULL, e);
}

result node_components(struct node *n, struct err *e)
{
	TRY(new_root(n, e));
	if (n->desired->levels[FACET_COMPONENTS] >= ISSUED_NEW) {
		TRY(renew_kubeconfig(n, n->layout.scheduler_conf, e));
		TRY(renew_kubeconfig(n, n->layout.manager_conf, e));
	}
	const char *const scheduler_reads[] = { n->layout.scheduler_conf };
	const char *const manager_reads[] = { n->layout.manager_conf, n->layout.own_root };
	TRY(node_find_processes(n, e));
	if (must_restart(n, PROCESS_SCHEDULER, scheduler_reads, ARRAY_LEN(scheduler_reads)))
		TRY(restart_in_place(n, PROCESS_SCHEDULER, n->layout.scheduler_port, e));
	if (must_restart(n, PROCESS_CONTROLLER_MANAGER, manager_reads, ARRAY_LEN(manager_reads)))
		TRY(restart_in_place(n, PROCESS_CONTROLLER_MANAGER, n->layout.manager_port, e));
	return node_observe(n, e);
}
