/* ca.crt, ca.key, and what the controller-manager signs with and publishes. */
#include "file.h"
#include "node.h"
#include "remote.h"

#include <string.h>

#define MANIFEST_MODE 0600

/* --- Bundles ------------------------------------------------------------------------------------------------------------------ */

/* The first certificate always matches ca.key: kubeadm signs with the first (pkiutil.TryLoadCertFromDisk). */
static void bundle(const struct node *n, int level, bool new_first, struct buf *out)
{
	if (new_first)
		cert_to_pem(n->new_ca, out);
	if (level != TRUST_NEW)
		cert_to_pem(n->old_ca, out);
	if (!new_first && level != TRUST_OLD)
		cert_to_pem(n->new_ca, out);
}

result node_trust(struct node *n, int level, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	bool key_is_new = n->layout.control_plane && n->report->levels[FACET_CA_KEY] == ISSUED_NEW;
	if (level == TRUST_NEW && n->layout.control_plane && !key_is_new)
		return err_set(e, ERR_CONFLICT, "ca.key is still the old authority's");
	bundle(n, level, key_is_new || level == TRUST_NEW, &text);
	TRY(node_replace(n, n->layout.ca_crt, &text, 0644, e));
	return node_observe(n, e);
}

/* ca.crt first: a crash between the two leaves kubeadm unable to sign until the next run, and nobody else affected. */
result node_ca_key(struct node *n, struct err *e)
{
	struct key *k cleanup(key_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_SECRET, text cleanup(buf_release) = BUF_INIT;
	TRY(node_new_key(n, &k, e));
	if (n->report->levels[FACET_TRUST] < TRUST_BOTH)
		return err_set(e, ERR_CONFLICT, "ca.crt does not hold the new authority yet");
	bundle(n, n->report->levels[FACET_TRUST], true, &text);
	TRY(node_replace(n, n->layout.ca_crt, &text, 0644, e));
	key_to_pem(k, &pem);
	TRY(node_replace(n, n->layout.ca_key, &pem, 0600, e));
	return node_observe(n, e);
}

/* --- A signer and a root file of the controller-manager's own ------------------------------------------------------------------- */

static result write_signer(struct node *n, const struct cert *ca, const struct key *k, struct err *e)
{
	struct buf pem cleanup(buf_release) = BUF_SECRET;
	cert_to_pem(ca, &pem);
	key_to_pem(k, &pem);
	TRY(file_mkdir(n->layout.own_dir, 0700, e));
	return file_replace(n->layout.own_signer, buf_str(&pem), pem.len, 0600, NULL, e);
}

static result write_root(struct node *n, int level, struct err *e)
{
	struct buf pem cleanup(buf_release) = BUF_INIT;
	int holds = 0;
	struct err unreadable;
	bundle(n, level, level == TRUST_NEW, &pem);
	int wanted = level == TRUST_NEW ? HOLDS_NEW : HOLDS_NEW | HOLDS_OLD;
	if (file_exists(n->layout.own_root) && node_bundle_file(n, n->layout.own_root, &holds, &unreadable).ok && holds == wanted)
		return OK; /* its time decides whether the process must restart */
	TRY(file_mkdir(n->layout.own_dir, 0700, e));
	return file_replace(n->layout.own_root, buf_str(&pem), pem.len, 0644, NULL, e);
}

result node_signer_new(struct node *n, struct err *e)
{
	struct key *k cleanup(key_freep) = NULL;
	TRY(node_new_key(n, &k, e));
	TRY(write_signer(n, n->new_ca, k, e));
	strs_add(&n->report->changed, n->layout.own_signer);
	return node_observe(n, e);
}

/* --- Restarting with other arguments: manifest away and back ------------------------------------------------------------------------ */

static bool manager_gone(struct node *n UNUSED, const void *context)
{
	return !process_alive(context);
}

/* The kubelet removes the Pod's folder once its worker for that Pod has ended; before that, the same Pod's return would have to
 * wait for its back-off (measured: 14.5 s instead of 5.4 s). */
static bool pod_folder_gone(struct node *n, const void *context)
{
	const struct process_seen *p = context;
	char *folder cleanup(str_freep) = str_printf("%s" KUBELET_DIR "/pods/%s", n->layout.root, p->pod_uid);
	return !file_exists(folder);
}

static bool manager_back(struct node *n, const void *context)
{
	const struct process_seen *before = context;
	long status = 0;
	struct err e;
	const struct process_seen *now = &n->processes[PROCESS_CONTROLLER_MANAGER];
	if (!node_find_processes(n, &e).ok || !n->running[PROCESS_CONTROLLER_MANAGER])
		return false;
	if (before->pid && now->pid == before->pid && now->started_ms == before->started_ms)
		return false;
	return !remote_available() || (remote_answers(n->layout.manager_port, "/healthz", &status, &e).ok && status == 200);
}

static result take_away(struct node *n, const struct process_seen *before, struct err *e)
{
	TRY(file_remove(n->layout.manager_manifest, e));
	if (!before->pid)
		return OK;
	TRY(node_wait(n, manager_gone, before, "kube-controller-manager to end after its manifest was taken away", e));
	return node_wait(n, pod_folder_gone, before, "the kubelet to clean up kube-controller-manager's Pod", e);
}

/* Whatever happens after the manifest was taken away, it is put back. */
static result away_and_back(struct node *n, struct err *e)
{
	struct process_seen before = n->processes[PROCESS_CONTROLLER_MANAGER];
	before.args = (struct strs){ 0 };
	struct err ignored;
	result gone = take_away(n, &before, e);
	TRY(file_rename(n->layout.manager_aside, n->layout.manager_manifest, gone.ok ? e : &ignored));
	TRY(gone);
	strs_add(&n->report->restarted, process_name(PROCESS_CONTROLLER_MANAGER));
	return node_wait(n, manager_back, &before, "kube-controller-manager to be back", e);
}

/* Content beside the manifests folder first (owner and mode as the manifest's), so that a crash at any point finds it. */
static result restart_with(struct node *n, const struct buf *text, struct err *e)
{
	char *backup cleanup(str_freep) = node_backup_path(n, n->layout.manager_manifest);
	char *folder cleanup(str_freep) = str_dup(backup);
	*strrchr(folder, '/') = '\0';
	TRY(file_mkdir(folder, 0700, e));
	if (!file_exists(backup))
		TRY(file_backup(n->layout.manager_manifest, backup, e));
	TRY(file_backup(n->layout.manager_manifest, n->layout.manager_aside, e));
	TRY(file_replace(n->layout.manager_aside, buf_str(text), text->len, MANIFEST_MODE, NULL, e));
	strs_add(&n->report->changed, n->layout.manager_manifest);
	return away_and_back(n, e);
}

static const char *unrooted(const struct node *n, const char *path)
{
	return path + strlen(n->layout.root);
}

static result own_flags_text(const struct node *n, struct buf *ret, struct err *e)
{
	struct buf now cleanup(buf_release) = BUF_INIT;
	const char *signer = unrooted(n, n->layout.own_signer);
	TRY(file_read(n->layout.manager_manifest, MANIFEST_MAX, &now, e));
	return layout_edit_manager(buf_str(&now), now.len, signer, signer, unrooted(n, n->layout.own_root), ret, e);
}

result node_own_signer(struct node *n, struct err *e)
{
	struct key *k cleanup(key_freep) = NULL;
	struct buf text cleanup(buf_release) = BUF_INIT;
	if (!file_exists(n->layout.own_signer)) {
		TRY(node_old_key(n, &k, e));
		TRY(write_signer(n, n->old_ca, k, e));
	}
	if (!file_exists(n->layout.own_root))
		TRY(write_root(n, TRUST_BOTH, e));
	TRY(own_flags_text(n, &text, e));
	TRY(restart_with(n, &text, e));
	return node_observe(n, e);
}

/* kubeadm's own values: those of the manifest that was kept; byte for byte that manifest, when only our flags differ. */
static result kubeadm_text(const struct node *n, struct buf *ret, struct err *e)
{
	char *backup cleanup(str_freep) = node_backup_path(n, n->layout.manager_manifest);
	struct buf now cleanup(buf_release) = BUF_INIT;
	struct buf kept cleanup(buf_release) = BUF_INIT, ours cleanup(buf_release) = BUF_INIT;
	const char *signer = unrooted(n, n->layout.own_signer);
	TRY(file_read(n->layout.manager_manifest, MANIFEST_MAX, &now, e));
	if (file_exists(backup)) {
		TRY(file_read(backup, MANIFEST_MAX, &kept, e));
		TRY(layout_edit_manager(buf_str(&kept), kept.len, signer, signer, unrooted(n, n->layout.own_root), &ours, e));
		if (ours.len == now.len && memcmp(ours.data, now.data, now.len) == 0) {
			buf_add(ret, kept.data, kept.len);
			return OK;
		}
	}
	return layout_edit_manager(buf_str(&now), now.len, unrooted(n, n->layout.ca_crt), unrooted(n, n->layout.ca_key),
				   unrooted(n, n->layout.ca_crt), ret, e);
}

result node_kubeadm_flags(struct node *n, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	if (n->report->levels[FACET_TRUST] != TRUST_NEW || n->report->levels[FACET_CA_KEY] != ISSUED_NEW)
		return err_set(e, ERR_CONFLICT, "ca.crt and ca.key are not the new authority's alone yet");
	TRY(kubeadm_text(n, &text, e));
	TRY(restart_with(n, &text, e));
	return node_observe(n, e);
}
