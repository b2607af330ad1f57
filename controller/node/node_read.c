#include "file.h"
#include "node.h"

#include <string.h>

#define PEM_MAX ((size_t)1 << 20)

void node_release(struct node *n)
{
	layout_release(&n->layout);
	cert_freep(&n->old_ca);
	cert_freep(&n->new_ca);
	cert_freep(&n->bridge);
	cert_freep(&n->trial_ca);
	key_freep(&n->trial_key);
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		process_release(&n->processes[p]);
}

static result cert_or_null(const char *pem, const char *name, struct cert **ret, struct err *e)
{
	if (!pem)
		return OK;
	TRY_CTX(cert_from_pem(pem, strlen(pem), ret, e), e, "desired: %s", name);
	return OK;
}

/* Without an `old` the authority in force is: an inventory. */
static result know_authorities(struct node *n, struct err *e)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct buf pem cleanup(buf_release) = BUF_INIT;
	TRY(cert_or_null(n->desired->old_pem, "old", &n->old_ca, e));
	TRY(cert_or_null(n->desired->new_pem, "new", &n->new_ca, e));
	TRY(cert_or_null(n->desired->bridge_pem, "bridge", &n->bridge, e));
	if (n->old_ca)
		return OK;
	if (!node_certs(n->layout.ca_crt, &list, e).ok) {
		report_add_blocker(n->report, "UnreadableFile", n->layout.ca_crt, "%s: put the authority's certificate back", e->message);
		return FAILED;
	}
	n->old_ca = cert_copy(list.items[0]);
	cert_to_pem(n->old_ca, &pem);
	n->report->ca_pem = buf_take(&pem);
	return OK;
}

result node_begin(struct node *n, const char *root, struct err *e)
{
	TRY(layout_learn(root, n->desired->run, &n->layout, n->report, e));
	return know_authorities(n, e);
}

result node_bundle(const struct node *n, const char *pem, size_t len, int *ret_holds, struct err *e)
{
	struct certs list cleanup(certs_release) = { 0 };
	int holds = 0;
	TRY(certs_from_pem(pem, len, &list, e));
	for (size_t i = 0; i < list.n; i++) {
		bool old = cert_equal(list.items[i], n->old_ca);
		bool new = n->new_ca && cert_equal(list.items[i], n->new_ca);
		holds |= new ? HOLDS_NEW : old ? HOLDS_OLD : HOLDS_OTHER;
	}
	*ret_holds = holds;
	return OK;
}

result node_bundle_file(const struct node *n, const char *path, int *ret_holds, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	TRY(file_read(path, PEM_MAX, &text, e));
	TRY_CTX(node_bundle(n, buf_str(&text), text.len, ret_holds, e), e, "%s", path);
	return OK;
}

int node_issuer(const struct node *n, const struct cert *c)
{
	if (n->new_ca && cert_issued_by(c, n->new_ca))
		return HOLDS_NEW;
	return cert_issued_by(c, n->old_ca) ? HOLDS_OLD : HOLDS_OTHER;
}

result node_certs(const char *path, struct certs *ret, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	TRY(file_read(path, PEM_MAX, &text, e));
	TRY_CTX(certs_from_pem(buf_str(&text), text.len, ret, e), e, "%s", path);
	return OK;
}

result node_key_file(const char *path, struct key **ret, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	TRY(file_read(path, PEM_MAX, &text, e));
	TRY_CTX(key_from_pem(buf_str(&text), text.len, ret, e), e, "%s", path);
	return OK;
}

/* The first of the files that holds ca's key. */
static result matching_key(const struct cert *ca, const char *const *paths, size_t n_paths, const char *whose, struct key **ret,
			   struct err *e)
{
	for (size_t i = 0; i < n_paths; i++) {
		struct key *k cleanup(key_freep) = NULL;
		struct err missing;
		if (!ca || !paths[i] || !node_key_file(paths[i], &k, &missing).ok || !cert_matches_key(ca, k))
			continue;
		*ret = steal(&k);
		return OK;
	}
	return err_set(e, ERR_NOT_FOUND, "%s's private key is not on this node", whose);
}

result node_old_key(const struct node *n, struct key **ret, struct err *e)
{
	char *backup cleanup(str_freep) = node_backup_path(n, n->layout.ca_key);
	const char *const paths[] = { n->layout.ca_key, backup };
	return matching_key(n->old_ca, paths, ARRAY_LEN(paths), "the old authority", ret, e);
}

result node_new_key(const struct node *n, struct key **ret, struct err *e)
{
	char *backup cleanup(str_freep) = node_backup_path(n, n->layout.ca_key); /* for a run that goes back */
	const char *const paths[] = { n->new_key_path, n->layout.ca_key, backup };
	return matching_key(n->new_ca, paths, ARRAY_LEN(paths), "the new authority", ret, e);
}

result node_kubeconfig(const struct node *n, const char *path, struct kubeconfig *ret, struct err *e)
{
	return kubeconfig_load(path + strlen(n->layout.root), n->layout.root, ret, e);
}

char *node_kubelet_client_path(const struct node *n)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct err e;
	if (!node_kubeconfig(n, n->layout.kubelet_conf, &c, &e).ok || !c.client_cert_path)
		return NULL;
	return str_dup(c.client_cert_path);
}

struct cert *node_kept_leaf(const struct node *n, const char *path)
{
	char *backup cleanup(str_freep) = node_backup_path(n, path);
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	if (!node_certs(backup, &list, &e).ok || node_issuer(n, list.items[0]) != HOLDS_NEW ||
	    cert_not_after_ms(list.items[0]) < clock_now_ms() + NODE_KEPT_MARGIN_MS)
		return NULL;
	return cert_copy(list.items[0]);
}
