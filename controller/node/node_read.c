#include "file.h"
#include "manifest.h"
#include "node.h"

#include <string.h>

#define PEM_MAX ((size_t)1 << 20)

void node_release(struct node *n)
{
	layout_release(&n->layout);
	for (size_t a = 0; a < AUTHORITY_COUNT; a++) {
		cert_freep(&n->of[a].old);
		cert_freep(&n->of[a].new);
		cert_freep(&n->of[a].bridge);
	}
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

/* What is in force, where nothing says who O is: an inventory. */
static result old_in_force(struct node *n, enum authority a, struct err *e)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct buf pem cleanup(buf_release) = BUF_INIT;
	const char *path = n->layout.of[a].ca_crt;
	if (!path) /* a worker has only one */
		return OK;
	if (!node_certs(path, &list, e).ok) {
		report_add_blocker(n->report, "UnreadableFile", path, "%s: put the authority's certificate back", e->message);
		return FAILED;
	}
	n->of[a].old = cert_copy(list.items[0]);
	if (a != n->desired->asked)
		return OK;
	cert_to_pem(n->of[a].old, &pem);
	n->report->ca_pem = buf_take(&pem);
	return OK;
}

static result know_authority(struct node *n, enum authority a, struct err *e)
{
	const struct desired_authority *d = &n->desired->of[a];
	struct succession *s = &n->of[a];
	if (!d->wanted)
		return OK;
	TRY(cert_or_null(d->old_pem, "old", &s->old, e));
	TRY(cert_or_null(d->new_pem, "new", &s->new, e));
	TRY(cert_or_null(d->bridge_pem, "bridge", &s->bridge, e));
	return s->old ? OK : old_in_force(n, a, e);
}

result node_begin(struct node *n, const char *root, struct err *e)
{
	TRY(layout_learn(root, n->desired, &n->layout, n->report, e));
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		TRY(know_authority(n, (enum authority)a, e));
	return OK;
}

result node_bundle(const struct succession *s, const char *pem, size_t len, int *ret_holds, struct err *e)
{
	struct certs list cleanup(certs_release) = { 0 };
	int holds = 0;
	TRY(certs_from_pem(pem, len, &list, e));
	for (size_t i = 0; i < list.n; i++) {
		bool old = cert_equal(list.items[i], s->old);
		bool new = s->new && cert_equal(list.items[i], s->new);
		holds |= new ? HOLDS_NEW : old ? HOLDS_OLD : HOLDS_OTHER;
	}
	*ret_holds = holds;
	return OK;
}

result node_bundle_file(const struct succession *s, const char *path, int *ret_holds, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	TRY(file_read(path, PEM_MAX, &text, e));
	TRY_CTX(node_bundle(s, buf_str(&text), text.len, ret_holds, e), e, "%s", path);
	return OK;
}

int node_issuer(const struct succession *s, const struct cert *c)
{
	if (s->new && cert_issued_by(c, s->new))
		return HOLDS_NEW;
	return cert_issued_by(c, s->old) ? HOLDS_OLD : HOLDS_OTHER;
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

/* The first of the files that holds ca's key. ERR_NOT_FOUND: none of them does, and each could be read; otherwise why one could not. */
static result matching_key(const struct cert *ca, const char *const *paths, size_t n_paths, const char *whose, struct key **ret,
			   struct err *e)
{
	struct err unread = { .kind = ERR_NOT_FOUND };
	for (size_t i = 0; ca && i < n_paths; i++) {
		struct key *k cleanup(key_freep) = NULL;
		struct err one;
		if (!paths[i])
			continue;
		if (!node_key_file(paths[i], &k, &one).ok) {
			if (one.kind != ERR_NOT_FOUND)
				unread = one;
			continue;
		}
		if (!cert_matches_key(ca, k))
			continue;
		*ret = steal(&k);
		return OK;
	}
	if (unread.kind == ERR_NOT_FOUND)
		return err_set(e, ERR_NOT_FOUND, "%s's private key is not on this node", whose);
	return err_set(e, unread.kind, "%s's private key: %s", whose, unread.message);
}

result node_old_key(const struct node *n, enum authority a, struct key **ret, struct err *e)
{
	const char *path = n->layout.of[a].ca_key;
	char *backup cleanup(str_freep) = node_backup_path(n, path);
	const char *const paths[] = { path, backup };
	return matching_key(n->of[a].old, paths, ARRAY_LEN(paths), "the old authority", ret, e);
}

result node_new_key(const struct node *n, enum authority a, struct key **ret, struct err *e)
{
	const char *path = n->layout.of[a].ca_key;
	char *backup cleanup(str_freep) = node_backup_path(n, path); /* for a run that goes back */
	char *given cleanup(str_freep) = n->new_key_dir ? str_printf("%s/%s.key", n->new_key_dir, authority_name(a)) : NULL;
	const char *const paths[] = { given, path, backup };
	result found = matching_key(n->of[a].new, paths, ARRAY_LEN(paths), "the new authority", ret, e);
	if (!found.ok && e->kind == ERR_NOT_FOUND && n->desired->back)
		return err_set(e, ERR_NOT_FOUND, "the key of the authority that the run goes back to is not on this control plane (one that has "
			       "joined in the middle never had it; else its copy was taken away): copy %s from another control plane to the "
			       "same place, or ca.key from a copy of your own, or delete the node", backup);
	return found;
}

/* The controller-manager was told to sign with nothing before the run: so says its manifest, as it was kept before its first change. */
static bool signed_nothing(const struct node *n)
{
	char *kept cleanup(str_freep) = node_backup_path(n, n->layout.manager_manifest);
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct yaml *y cleanup(yaml_freep) = NULL;
	struct err e;
	const char *path = file_exists(kept) ? kept : n->layout.manager_manifest;
	if (!file_read(path, MANIFEST_MAX, &text, &e).ok || !yaml_parse(buf_str(&text), text.len, &y, &e).ok)
		return false;
	const char *key = manifest_flag(y, "cluster-signing-key-file").value;
	return !key || !*key;
}

bool node_is_external(const struct node *n)
{
	struct key *k cleanup(key_freep) = NULL;
	struct err e;
	if (!n->desired->bundle || !n->layout.control_plane)
		return false;
	result found = n->desired->back ? node_new_key(n, AUTHORITY_KUBERNETES, &k, &e) : node_old_key(n, AUTHORITY_KUBERNETES, &k, &e);
	return !found.ok && e.kind == ERR_NOT_FOUND && (!n->desired->back || signed_nothing(n));
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

static bool same_key(const struct cert *a, const struct cert *b)
{
	char of_a[CERT_FINGERPRINT_SIZE], of_b[CERT_FINGERPRINT_SIZE];
	cert_spki_sha256(a, of_a);
	cert_spki_sha256(b, of_b);
	return str_eq(of_a, of_b);
}

struct cert *node_kept_leaf(const struct node *n, enum authority a, const char *path, const struct cert *now)
{
	char *backup cleanup(str_freep) = node_backup_path(n, path);
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	if (!node_certs(backup, &list, &e).ok || node_issuer(&n->of[a], list.items[0]) != HOLDS_NEW || !same_key(list.items[0], now) ||
	    cert_not_after_ms(list.items[0]) < clock_now_ms() + NODE_KEPT_MARGIN_MS)
		return NULL;
	return cert_copy(list.items[0]);
}
