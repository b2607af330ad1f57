/* Server leaves, kubeconfigs, the scheduler and the controller-manager in place. */
#include "file.h"
#include "node.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int64_t validity_of(const struct node *n, const struct cert *predecessor)
{
	if (n->desired->leaf_validity_ms)
		return n->desired->leaf_validity_ms;
	return cert_not_after_ms(predecessor) - cert_not_before_ms(predecessor);
}

result node_reissue(const struct node *n, enum authority a, const struct cert *predecessor, const struct key *new_key, struct cert **ret,
		    struct err *e)
{
	struct key *ca_key cleanup(key_freep) = NULL;
	TRY(node_new_key(n, a, &ca_key, e));
	return leaf_reissue(predecessor, new_key, n->of[a].new, ca_key, clock_now_ms(), validity_of(n, predecessor), ret, e);
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
	return remote_presented(n->layout.api_host, n->layout.api_port, &pem, &e).ok && certs_from_pem(pem, strlen(pem), &shown, &e).ok &&
	       shown.n == wanted->n && cert_equal(shown.items[0], wanted->items[0]);
}

/* The leaf from N that is there already is kept. */
static result leaf_from_new(const struct node *n, enum authority a, const char *path, const struct cert *now, struct cert **ret,
			    struct err *e)
{
	*ret = node_issuer(&n->of[a], now) == HOLDS_NEW ? cert_copy(now) : node_kept_leaf(n, a, path, now);
	if (!*ret)
		TRY_CTX(node_reissue(n, a, now, NULL, ret, e), e, "%s", path);
	return OK;
}

/* Only X comes or goes where the leaf is from N already. */
static result chain_of(const struct node *n, enum authority a, const char *path, bool with_bridge, struct certs *ret, struct err *e)
{
	struct certs now cleanup(certs_release) = { 0 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	TRY(node_certs(path, &now, e));
	TRY(leaf_from_new(n, a, path, now.items[0], &leaf, e));
	certs_add(ret, steal(&leaf));
	if (with_bridge)
		certs_add(ret, cert_copy(n->of[a].bridge));
	return OK;
}

result node_write_leaf(struct node *n, enum authority a, const char *path, bool with_bridge, struct err *e)
{
	struct certs chain cleanup(certs_release) = { 0 };
	struct buf pem cleanup(buf_release) = BUF_INIT;
	TRY(chain_of(n, a, path, with_bridge, &chain, e));
	certs_to_pem(&chain, &pem);
	return node_replace(n, path, &pem, 0644, e);
}

result node_server_leaf(struct node *n, struct err *e)
{
	struct certs chain cleanup(certs_release) = { 0 };
	const char *path = n->layout.apiserver_crt;
	/* without a bridge every client has been given N before (strategy Bundle) */
	bool bare = !n->of[AUTHORITY_KUBERNETES].bridge ||
		    (n->desired->levels[FACET_SERVER_LEAF] == LEAF_NEW && n->report->levels[FACET_TRUST] == TRUST_NEW);
	TRY(node_write_leaf(n, AUTHORITY_KUBERNETES, path, !bare, e));
	TRY(node_certs(path, &chain, e));
	TRY(node_wait(n, leaf_presented, &chain, "kube-apiserver to present its new certificate", e));
	return node_observe(n, e);
}

/* --- The API server's client certificate towards kubelets ------------------------------------------------------------------------------- */

struct pair {
	struct buf cert, key, ca;
	char *server;
};

static void pair_release(struct pair *p)
{
	buf_release(&p->cert);
	buf_release(&p->key);
	buf_release(&p->ca);
	str_freep(&p->server);
}

/* The pair as it is now: it may do all that a request to a kubelet needs (kubeadm puts it into a group of administrators). */
static result read_pair(const struct node *n, struct pair *ret, struct err *e)
{
	ret->key.secret = true;
	TRY(file_read(n->layout.kubelet_client_crt, 65536, &ret->cert, e));
	TRY(file_read(n->layout.kubelet_client_key, 65536, &ret->key, e));
	cert_to_pem(n->of[AUTHORITY_KUBERNETES].old, &ret->ca);
	cert_to_pem(n->of[AUTHORITY_KUBERNETES].new, &ret->ca);
	ret->server = str_printf("https://%s:%d", n->layout.api_host, n->layout.api_port);
	return OK;
}

char *node_staged_client(const struct node *n)
{
	return str_printf("%s.certrotation", n->layout.kubelet_client_crt);
}

/* Written beside with owner and mode of the one in place, so that a bare rename remains for the chosen moment. */
static result stage_client(struct node *n, const char *staged, const struct cert *leaf, struct err *e)
{
	struct buf pem cleanup(buf_release) = BUF_INIT;
	cert_to_pem(leaf, &pem);
	TRY(node_back_up(n, n->layout.kubelet_client_crt, e));
	TRY(file_remove(staged, e));
	TRY(file_backup(n->layout.kubelet_client_crt, staged, e));
	return file_replace(staged, buf_str(&pem), pem.len, 0644, NULL, e);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* The rename was made without waiting for the disk. */
static result sync_folder(const char *path, struct err *e)
{
	char *folder cleanup(str_freep) = str_ndup(path, (size_t)(strrchr(path, '/') - path));
	int fd cleanup(close_fd) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) != 0)
		return err_errno(e, "syncing %s", folder);
	return OK;
}

static result switch_client(struct node *n, const struct cert *leaf, struct remote_dialer *d, struct err *e)
{
	char *staged cleanup(str_freep) = node_staged_client(n);
	TRY(stage_client(n, staged, leaf, e));
	if (d)
		node_await_quiet(n, d);
	if (rename(staged, n->layout.kubelet_client_crt) != 0)
		return err_errno(e, "renaming %s", staged);
	strs_add(&n->report->changed, n->layout.kubelet_client_crt);
	return OK;
}

result node_kubelet_client(struct node *n, struct err *e)
{
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct certs now cleanup(certs_release) = { 0 };
	struct buf note cleanup(buf_release) = BUF_INIT;
	struct pair p cleanup(pair_release) = { 0 };
	char fingerprint[CERT_FINGERPRINT_SIZE];
	TRY(read_pair(n, &p, e)); /* of before: the API server accepts both authorities */
	const struct remote_identity id = { p.server, buf_str(&p.ca), buf_str(&p.cert), buf_str(&p.key) };
	struct remote_dialer *d cleanup(remote_dialer_freep) = remote_dialer_new(&id);
	TRY(node_certs(n->layout.kubelet_client_crt, &now, e));
	TRY(leaf_from_new(n, AUTHORITY_KUBERNETES, n->layout.kubelet_client_crt, now.items[0], &leaf, e));
	if (!cert_equal(leaf, now.items[0]))
		TRY(switch_client(n, leaf, d, e));
	if (d)
		TRY(node_absorb(n, d, e));
	TRY(sync_folder(n->layout.kubelet_client_crt, e));
	cert_fingerprint(leaf, fingerprint);
	buf_add_str(&note, fingerprint);
	TRY(file_replace(n->layout.absorbed, buf_str(&note), note.len, 0600, NULL, e));
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
	TRY(node_reissue(n, AUTHORITY_KUBERNETES, predecessor, k, &leaf, e));
	cert_to_pem(leaf, ret_cert);
	key_to_pem(k, ret_key);
	return OK;
}

void node_trusted(const struct node *n, bool both, struct buf *out)
{
	cert_to_pem(n->of[AUTHORITY_KUBERNETES].new, out);
	if (both)
		cert_to_pem(n->of[AUTHORITY_KUBERNETES].old, out);
}

bool node_is_from_new(const struct node *n, const char *cert_pem)
{
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct err e;
	return cert_pem && cert_from_pem(cert_pem, strlen(cert_pem), &leaf, &e).ok && node_issuer(&n->of[AUTHORITY_KUBERNETES], leaf) == HOLDS_NEW;
}

bool node_trusts_new(const struct node *n, const char *ca_pem, bool both)
{
	int holds = 0;
	struct err e;
	return ca_pem && node_bundle(&n->of[AUTHORITY_KUBERNETES], ca_pem, strlen(ca_pem), &holds, &e).ok &&
	       (both ? (holds & HOLDS_NEW) != 0 : holds == HOLDS_NEW);
}

static bool is_new(const struct node *n, const struct kubeconfig *c, bool both)
{
	return node_is_from_new(n, c->client_cert_pem) && node_trusts_new(n, c->ca_pem, both);
}

/* Good for a while yet. */
static bool read_kept(const struct node *n, const char *backup, struct buf *text, struct kubeconfig *c)
{
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct err e;
	return file_read(backup, MANIFEST_MAX, text, &e).ok && node_kubeconfig(n, backup, c, &e).ok && is_new(n, c, false) &&
	       cert_from_pem(c->client_cert_pem, strlen(c->client_cert_pem), &leaf, &e).ok &&
	       cert_not_after_ms(leaf) >= clock_now_ms() + NODE_KEPT_MARGIN_MS;
}

/* With authority, certificate and key of `from`. */
static result with_values_of(const struct buf *text, const struct kubeconfig *from, struct buf *ret, struct err *e)
{
	return kubeconfig_replace(buf_str(text), text->len, from->ca_pem, from->client_cert_pem, from->client_key_pem, ret, e);
}

bool node_kept_kubeconfig(const struct node *n, const char *path, const struct buf *now, struct buf *ret)
{
	char *backup cleanup(str_freep) = node_backup_path(n, path);
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 }, is cleanup(kubeconfig_release) = { 0 };
	struct buf kept cleanup(buf_release) = BUF_SECRET, ours cleanup(buf_release) = BUF_SECRET;
	struct err e;
	if (!read_kept(n, backup, &kept, &c) || !node_kubeconfig(n, path, &is, &e).ok)
		return false;
	if (node_is_from_new(n, is.client_cert_pem) && !str_eq(is.client_cert_pem, c.client_cert_pem))
		return false; /* kubeadm has renewed it already */
	if (!with_values_of(&kept, &is, &ours, &e).ok || ours.len != now->len || memcmp(ours.data, now->data, now->len) != 0)
		return with_values_of(now, &c, ret, &e).ok;
	buf_add(ret, kept.data, kept.len);
	return true;
}

/* The certificate stays, from N as it is. */
static result trust_in_kubeconfig(struct node *n, const char *path, const struct buf *text, bool both, struct err *e)
{
	struct buf next cleanup(buf_release) = BUF_SECRET, ca cleanup(buf_release) = BUF_INIT;
	node_trusted(n, both, &ca);
	TRY_CTX(kubeconfig_replace(buf_str(text), text->len, buf_str(&ca), NULL, NULL, &next, e), e, "%s", path);
	return node_replace(n, path, &next, 0600, e);
}

static result renew_kubeconfig(struct node *n, const char *path, bool both, struct err *e)
{
	struct buf kept cleanup(buf_release) = BUF_SECRET;
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct buf text cleanup(buf_release) = BUF_SECRET, next cleanup(buf_release) = BUF_SECRET, key cleanup(buf_release) = BUF_SECRET;
	struct buf cert cleanup(buf_release) = BUF_INIT, ca cleanup(buf_release) = BUF_INIT;
	TRY(file_read(path, MANIFEST_MAX, &text, e));
	TRY_CTX(node_kubeconfig(n, path, &c, e), e, "%s", path);
	if (is_new(n, &c, both))
		return OK;
	if (node_kept_kubeconfig(n, path, &text, &kept))
		return both ? trust_in_kubeconfig(n, path, &kept, true, e) : node_replace(n, path, &kept, 0600, e);
	if (node_is_from_new(n, c.client_cert_pem))
		return trust_in_kubeconfig(n, path, &text, both, e);
	if (!c.client_cert_pem || c.client_cert_path)
		return err_set(e, ERR_INPUT, "%s does not embed a client certificate", path);
	TRY_CTX(renewed_pair(n, c.client_cert_pem, &cert, &key, e), e, "%s", path);
	node_trusted(n, both, &ca);
	TRY_CTX(kubeconfig_replace(buf_str(&text), text.len, buf_str(&ca), buf_str(&cert), buf_str(&key), &next, e), e, "%s", path);
	return node_replace(n, path, &next, 0600, e);
}

result node_admin(struct node *n, bool both, struct err *e)
{
	if (file_exists(n->layout.admin_conf))
		TRY(renew_kubeconfig(n, n->layout.admin_conf, both, e));
	if (file_exists(n->layout.super_admin_conf))
		TRY(renew_kubeconfig(n, n->layout.super_admin_conf, both, e));
	return node_observe(n, e);
}

/* --- Restarts in place ------------------------------------------------------------------------------------------------------------------ */

/* A process that must start anew, once: a second time within ten minutes the kubelet would wait. */
struct restart {
	enum process process;
	int port;
	const char *const *reads; /* files that it reads at its start */
	size_t n_reads;
	struct process_seen before;
};

static bool restarted(struct node *n, const void *context)
{
	const struct restart *r = context;
	const struct process_seen *now = &n->processes[r->process];
	long status = 0;
	struct err e;
	if (!node_find_processes(n, &e).ok || !n->running[r->process])
		return false;
	if (r->before.pid == now->pid && process_alive(&r->before))
		return false;
	return !remote_available() || (remote_answers("127.0.0.1", r->port, "/healthz", &status, &e).ok && status == 200);
}

static bool must_restart(const struct node *n, const struct restart *r)
{
	for (size_t i = 0; i < r->n_reads; i++)
		if (file_exists(r->reads[i]) && !node_younger(n, r->process, r->reads[i]))
			return true;
	return false;
}

static result terminate(struct node *n, struct restart *r, struct err *e)
{
	if (!n->running[r->process])
		return OK; /* the kubelet is about to start it */
	r->before = n->processes[r->process];
	r->before.args = (struct strs){ 0 };
	strs_add(&n->report->restarted, process_name(r->process));
	return process_terminate(&r->before, e);
}

/* All at once: they do not need each other to start. */
static result restart_in_place(struct node *n, struct restart *list, size_t count, struct err *e)
{
	bool due[PROCESS_COUNT] = { false };
	for (size_t i = 0; i < count; i++)
		due[i] = must_restart(n, &list[i]);
	for (size_t i = 0; i < count; i++)
		if (due[i])
			TRY(terminate(n, &list[i], e));
	for (size_t i = 0; i < count; i++)
		if (due[i])
			TRY_CTX(node_wait(n, restarted, &list[i], "the restarted process to be healthy (its log: /var/log/pods)", e), e, "%s",
				process_name(list[i].process));
	return OK;
}

static result new_root(struct node *n, struct err *e)
{
	struct buf pem cleanup(buf_release) = BUF_INIT;
	if (n->desired->bundle || !node_wants(n, FACET_ROOT, ROOT_OWN_NEW))
		return OK;
	cert_to_pem(n->of[AUTHORITY_KUBERNETES].new, &pem);
	return node_write_own(n, n->layout.own_root, &pem, 0644, e);
}

/* The controller-manager is last, and is left out where it is about to restart with other arguments. */
result node_components(struct node *n, bool both, struct err *e)
{
	bool restarts_later = n->desired->bundle && !both && node_wants(n, FACET_ROOT, ROOT_KUBEADM_NEW);
	TRY(new_root(n, e));
	if (both || n->desired->levels[FACET_COMPONENTS] >= ISSUED_NEW) {
		TRY(renew_kubeconfig(n, n->layout.scheduler_conf, both, e));
		TRY(renew_kubeconfig(n, n->layout.manager_conf, both, e));
	}
	const char *const scheduler_reads[] = { n->layout.scheduler_conf };
	const char *const manager_reads[] = { n->layout.manager_conf, n->layout.own_root };
	struct restart list[] = {
		{ PROCESS_SCHEDULER, n->layout.scheduler_port, scheduler_reads, ARRAY_LEN(scheduler_reads), { 0 } },
		{ PROCESS_CONTROLLER_MANAGER, n->layout.manager_port, manager_reads, ARRAY_LEN(manager_reads), { 0 } },
	};
	TRY(node_find_processes(n, e));
	size_t due = restarts_later ? 1 : ARRAY_LEN(list);
	TRY(restart_in_place(n, list, due, e));
	return node_observe(n, e);
}
