/* ca.crt, ca.key, and what the controller-manager signs with and publishes. */
#include "file.h"
#include "node.h"

#include <signal.h>
#include <string.h>

#define MANIFEST_MODE 0600
#define PEM_MAX ((size_t)1 << 20)

/* --- Bundles ------------------------------------------------------------------------------------------------------------------ */

/* The first certificate always matches ca.key: kubeadm signs with the first (pkiutil.TryLoadCertFromDisk). */
static void bundle(const struct succession *s, int level, bool new_first, struct buf *out)
{
	if (new_first)
		cert_to_pem(s->new, out);
	if (level != TRUST_NEW)
		cert_to_pem(s->old, out);
	if (!new_first && level != TRUST_OLD)
		cert_to_pem(s->new, out);
}

static bool same_certs(const struct buf *a, const struct buf *b)
{
	struct certs one cleanup(certs_release) = { 0 }, other cleanup(certs_release) = { 0 };
	struct err e;
	bool same = certs_from_pem(buf_str(a), a->len, &one, &e).ok && certs_from_pem(buf_str(b), b->len, &other, &e).ok && one.n == other.n;
	for (size_t i = 0; same && i < one.n; i++)
		same = cert_equal(one.items[i], other.items[i]);
	return same;
}

/* ca.crt's text. What was there before the run comes back as it was, and not as we would write it. */
static void bundle_text(const struct node *n, enum authority a, int level, bool new_first, struct buf *out)
{
	char *backup cleanup(str_freep) = node_backup_path(n, n->layout.of[a].ca_crt);
	struct buf kept cleanup(buf_release) = BUF_INIT, ours cleanup(buf_release) = BUF_INIT;
	struct err e;
	bundle(&n->of[a], level, new_first, &ours);
	const struct buf *text = file_read(backup, PEM_MAX, &kept, &e).ok && same_certs(&kept, &ours) ? &kept : &ours;
	buf_add(out, text->data, text->len);
}

/* Ditto ca.key's. */
static void key_text(const struct node *n, enum authority a, const struct key *k, struct buf *ret_secret)
{
	char *backup cleanup(str_freep) = node_backup_path(n, n->layout.of[a].ca_key);
	struct buf kept cleanup(buf_release) = BUF_SECRET;
	struct key *before cleanup(key_freep) = NULL;
	struct err e;
	if (file_read(backup, PEM_MAX, &kept, &e).ok && key_from_pem(buf_str(&kept), kept.len, &before, &e).ok &&
	    cert_matches_key(n->of[a].new, before))
		buf_add(ret_secret, kept.data, kept.len);
	else
		key_to_pem(k, ret_secret);
}

static const struct {
	enum facet trust, key;
} FACETS_OF[AUTHORITY_COUNT] = {
	[AUTHORITY_KUBERNETES] = { FACET_TRUST, FACET_CA_KEY },
	[AUTHORITY_FRONT_PROXY] = { FACET_PROXY_TRUST, FACET_PROXY_CA_KEY },
	[AUTHORITY_ETCD] = { FACET_ETCD_TRUST, FACET_ETCD_CA_KEY },
};

/* Whose key is in place, also while ca.crt has another's certificate first. */
static bool has_new_key(const struct node *n, enum authority a)
{
	struct key *k cleanup(key_freep) = NULL;
	struct err e;
	if (!n->layout.control_plane || n->report->levels[FACETS_OF[a].key] == ISSUED_NEW)
		return n->layout.control_plane;
	return n->of[a].new && node_key_file(n->layout.of[a].ca_key, &k, &e).ok && cert_matches_key(n->of[a].new, k);
}

static bool trust_reached(struct node *n, const void *context)
{
	const int *level = context;
	return facet_reached(node_trust_in_force(n), *level);
}

result node_trust(struct node *n, enum authority a, int level, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	bool key_is_new = has_new_key(n, a);
	if (level == TRUST_NEW && n->layout.control_plane && !key_is_new)
		return err_set(e, ERR_CONFLICT, "%s is still the old authority's", n->layout.of[a].ca_key);
	bundle_text(n, a, level, key_is_new || level == TRUST_NEW, &text);
	TRY(node_replace(n, n->layout.of[a].ca_crt, &text, 0644, e));
	if (a == AUTHORITY_KUBERNETES)
		TRY(node_wait(n, trust_reached, &level, "kube-apiserver to take up its --client-ca-file", e));
	return node_observe(n, e);
}

/* ca.crt first: a crash between the two leaves kubeadm unable to sign until the next run, and nobody else affected. */
static result write_authority(struct node *n, enum authority a, int level, const struct key *k, struct err *e)
{
	struct buf pem cleanup(buf_release) = BUF_SECRET, text cleanup(buf_release) = BUF_INIT;
	bundle_text(n, a, level, true, &text);
	TRY(node_replace(n, n->layout.of[a].ca_crt, &text, 0644, e));
	key_text(n, a, k, &pem);
	return node_replace(n, n->layout.of[a].ca_key, &pem, 0600, e);
}

result node_write_authority(struct node *n, enum authority a, int level, struct err *e)
{
	struct key *k cleanup(key_freep) = NULL;
	TRY(node_new_key(n, a, &k, e));
	return write_authority(n, a, level, k, e);
}

/* The key was elsewhere, and stays there. ca.crt first, as above. */
static result take_key_away(struct node *n, enum authority a, int level, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	bundle_text(n, a, level, true, &text);
	TRY(node_replace(n, n->layout.of[a].ca_crt, &text, 0644, e));
	TRY(file_wipe(n->layout.of[a].ca_key, e));
	return node_observe(n, e);
}

result node_ca_key(struct node *n, enum authority a, struct err *e)
{
	struct key *k cleanup(key_freep) = NULL;
	int trust = n->report->levels[FACETS_OF[a].trust];
	bool goes = n->desired->back && node_is_external(n);
	if (!goes)
		TRY(node_new_key(n, a, &k, e));
	if (trust < TRUST_BOTH)
		return err_set(e, ERR_CONFLICT, "%s does not hold the new authority yet", n->layout.of[a].ca_crt);
	if (goes)
		return take_key_away(n, a, trust, e);
	TRY(write_authority(n, a, trust, k, e));
	return node_observe(n, e);
}

/* --- A signer and a root file of the controller-manager's own ------------------------------------------------------------------- */

static result write_signer(struct node *n, const struct cert *ca, const struct key *k, struct err *e)
{
	struct buf pem cleanup(buf_release) = BUF_SECRET;
	cert_to_pem(ca, &pem);
	key_to_pem(k, &pem);
	return node_write_own(n, n->layout.own_signer, &pem, 0600, e);
}

/* Left by this run: then it may be further already. By an abandoned one: then it is written anew. */
static bool is_of_this_run(const struct node *n, const char *path, int needs)
{
	int holds = 0;
	struct err e;
	return node_bundle_file(&n->of[AUTHORITY_KUBERNETES], path, &holds, &e).ok && !(holds & HOLDS_OTHER) && (holds & needs) == needs;
}

/* O; or N on a control plane that has joined since N signs: O's key has never been there, and every server accepts N by then. */
static result signer_in_force(struct node *n, struct err *e)
{
	const struct succession *s = &n->of[AUTHORITY_KUBERNETES];
	struct key *k cleanup(key_freep) = NULL;
	bool is_new = has_new_key(n, AUTHORITY_KUBERNETES);
	TRY(is_new ? node_new_key(n, AUTHORITY_KUBERNETES, &k, e) : node_old_key(n, AUTHORITY_KUBERNETES, &k, e));
	return write_signer(n, is_new ? s->new : s->old, k, e);
}

static result own_files(struct node *n, struct err *e)
{
	struct buf root cleanup(buf_release) = BUF_INIT;
	if (!is_of_this_run(n, n->layout.own_signer, 0) && !node_is_external(n))
		TRY(signer_in_force(n, e));
	if (is_of_this_run(n, n->layout.own_root, HOLDS_NEW))
		return OK;
	bundle(&n->of[AUTHORITY_KUBERNETES], TRUST_BOTH, false, &root);
	return node_write_own(n, n->layout.own_root, &root, 0644, e);
}

/* --- Restarting with other arguments: manifest away and back ------------------------------------------------------------------------ */

/* What the kubelet does between two looks at its containers, once it has seen that a Pod has ended: volumes and cgroups. Every 100 ms. */
#define SETTLE_MS 250
/* As long as all of it usually takes; for when the kubelet's own word can't be had. */
#define LOOK_UNSEEN_MS 1500
#define KUBELET_CLIENT_MAX ((size_t)64 << 10)

static bool manager_gone(struct node *n UNUSED, const void *context)
{
	const struct process_seen *p = context;
	return !process_alive(p) && (!*p->pod_uid || !process_pod_alive(p->pod_uid));
}

struct look {
	struct remote_identity id;
	int64_t ended_wanted;
};

static bool looked_again(struct node *n, const void *context)
{
	const struct look *l = context;
	int64_t begun = 0, ended = 0;
	struct err e;
	return remote_kubelet_looks(&l->id, n->layout.kubelet_port, &begun, &ended, &e).ok && ended >= l->ended_wanted;
}

/* The kubelet lets a static Pod begin when its worker for the one of the same name has ended (pod_workers.go, allowStaticPodStart);
 * asked too early it tries again after 10 s: 14.5 s instead of 4. That worker ends after the first look of the lifecycle event
 * generator that has begun when the old Pod's processes were gone. Looks are counted in the kubelet's metrics; the first one is not
 * counted as begun, so that the next to begin is the one that makes `ended` begun + 2. Being wrong here costs time, nothing else. */
static void await_kubelet_look(struct node *n)
{
	struct buf cert cleanup(buf_release) = BUF_INIT, key cleanup(buf_release) = BUF_SECRET;
	struct look l = { 0 };
	int64_t begun = 0, ended = 0;
	struct err e;
	bool readable = file_read(n->layout.kubelet_client_crt, KUBELET_CLIENT_MAX, &cert, &e).ok &&
			file_read(n->layout.kubelet_client_key, KUBELET_CLIENT_MAX, &key, &e).ok;
	l.id = (struct remote_identity){ .cert_pem = buf_str(&cert), .key_pem = buf_str(&key) };
	if (!readable || !remote_kubelet_looks(&l.id, n->layout.kubelet_port, &begun, &ended, &e).ok) {
		node_rest(LOOK_UNSEEN_MS);
		return;
	}
	l.ended_wanted = begun + 2;
	if (node_wait(n, looked_again, &l, "the kubelet to look at its containers", &e).ok)
		node_rest(SETTLE_MS);
}

static bool manager_back(struct node *n, const void *context)
{
	const struct process_seen *before = context;
	long status = 0;
	struct err e;
	const struct process_seen *now = &n->processes[PROCESS_CONTROLLER_MANAGER];
	if (!node_find_processes(n, &e).ok || !n->running[PROCESS_CONTROLLER_MANAGER])
		return false;
	if (before->pid && now->pid == before->pid && process_alive(before))
		return false;
	return !remote_available() ||
	       (remote_answers("127.0.0.1", n->layout.manager_port, "/healthz", &status, &e).ok && status == 200);
}

static result take_away(struct node *n, const struct process_seen *before, struct err *e)
{
	TRY(file_remove(n->layout.manager_manifest, e));
	if (!before->pid)
		return OK;
	TRY(node_wait(n, manager_gone, before, "kube-controller-manager to end after its manifest was taken away", e));
	await_kubelet_look(n);
	return OK;
}

/* Whatever happens after the manifest was taken away, it is put back: a failed wait comes too late to matter, a signal waits. A
 * power cut is healed by the next run (layout_heal). */
static result away_and_back(struct node *n, const struct process_seen *before, struct err *e)
{
	sigset_t all, kept;
	struct err ignored;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &kept);
	result gone = take_away(n, before, e);
	result back = file_rename(n->layout.manager_aside, n->layout.manager_manifest, gone.ok ? e : &ignored);
	sigprocmask(SIG_SETMASK, &kept, NULL);
	TRY(gone);
	return back;
}

static result manager_manifest(const struct node *n, struct buf *ret, struct err *e)
{
	return file_read(n->layout.manager_manifest, MANIFEST_MAX, ret, e);
}

/* The manifest is right already (an earlier run got so far): the process is, or comes; restarted in place when it is older than the
 * root file that it has read at its start. */
static result restart_as_it_is(struct node *n, struct process_seen *before, const char *root, struct err *e)
{
	if (!n->running[PROCESS_CONTROLLER_MANAGER] || node_younger(n, PROCESS_CONTROLLER_MANAGER, root)) {
		before->pid = 0;
	} else {
		strs_add(&n->report->restarted, process_name(PROCESS_CONTROLLER_MANAGER));
		TRY(process_terminate(before, e));
	}
	return node_wait(n, manager_back, before, "kube-controller-manager to start", e);
}

/* The new content stands beside the manifests folder first, with the manifest's owner and mode, so that a crash at any point finds
 * it. root: what --root-ca-file names in it. */
static result restart_with(struct node *n, const struct buf *text, const char *root, struct err *e)
{
	struct process_seen before = n->processes[PROCESS_CONTROLLER_MANAGER];
	struct buf now cleanup(buf_release) = BUF_INIT;
	before.args = (struct strs){ 0 };
	TRY(manager_manifest(n, &now, e));
	if (now.len == text->len && memcmp(now.data, text->data, now.len) == 0)
		return restart_as_it_is(n, &before, root, e);
	TRY(node_back_up(n, n->layout.manager_manifest, e));
	TRY(file_remove(n->layout.manager_aside, e));
	TRY(file_backup(n->layout.manager_manifest, n->layout.manager_aside, e));
	TRY(file_replace(n->layout.manager_aside, buf_str(text), text->len, MANIFEST_MODE, NULL, e));
	strs_add(&n->report->changed, n->layout.manager_manifest);
	strs_add(&n->report->restarted, process_name(PROCESS_CONTROLLER_MANAGER));
	TRY(away_and_back(n, &before, e));
	return node_wait(n, manager_back, &before, "kube-controller-manager to be back (its log: /var/log/pods)", e);
}

static const char *unrooted(const struct node *n, const char *path)
{
	return path + strlen(n->layout.root);
}

/* signs: with the signer of its own. */
static result own_flags_text(const struct node *n, bool signs, struct buf *ret, struct err *e)
{
	struct buf now cleanup(buf_release) = BUF_INIT;
	const char *signer = signs ? unrooted(n, n->layout.own_signer) : "";
	TRY(manager_manifest(n, &now, e));
	return layout_edit_manager(buf_str(&now), now.len, signer, signer, unrooted(n, n->layout.own_root), ret, e);
}

result node_own_signer(struct node *n, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	TRY(own_files(n, e));
	TRY(own_flags_text(n, is_of_this_run(n, n->layout.own_signer, 0), &text, e));
	TRY(restart_with(n, &text, n->layout.own_root, e));
	return node_observe(n, e);
}

/* Where nothing was signed before, the controller-manager is told to sign now; or, on the way back, to sign nothing again. */
static result tell_signer(struct node *n, bool signs, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	TRY(own_flags_text(n, signs, &text, e));
	TRY(restart_with(n, &text, n->layout.own_root, e));
	return signs ? OK : file_wipe(n->layout.own_signer, e);
}

result node_signer_new(struct node *n, struct err *e)
{
	struct key *k cleanup(key_freep) = NULL;
	bool none = n->desired->back && node_is_external(n);
	if (!none) {
		TRY(node_new_key(n, AUTHORITY_KUBERNETES, &k, e));
		TRY(write_signer(n, n->of[AUTHORITY_KUBERNETES].new, k, e));
	}
	if (n->desired->bundle)
		TRY(tell_signer(n, !none, e));
	return node_observe(n, e);
}

/* kubeadm's own values: those of the manifest that was kept; byte for byte that manifest, when only our flags differ. Where the key was
 * elsewhere it is here now, and so the flags are as for one that is; after the way back they name nothing again. */
static result kubeadm_text(const struct node *n, struct buf *ret, struct err *e)
{
	char *backup cleanup(str_freep) = node_backup_path(n, n->layout.manager_manifest);
	struct buf now cleanup(buf_release) = BUF_INIT;
	struct buf kept cleanup(buf_release) = BUF_INIT, ours cleanup(buf_release) = BUF_INIT;
	const char *signer = unrooted(n, n->layout.own_signer);
	TRY(manager_manifest(n, &now, e));
	if (node_is_external(n) && n->desired->back)
		return layout_edit_manager(buf_str(&now), now.len, "", "", unrooted(n, n->layout.of[AUTHORITY_KUBERNETES].ca_crt), ret, e);
	if (file_exists(backup) && !node_is_external(n)) {
		TRY(file_read(backup, MANIFEST_MAX, &kept, e));
		TRY(layout_edit_manager(buf_str(&kept), kept.len, signer, signer, unrooted(n, n->layout.own_root), &ours, e));
		if (ours.len == now.len && memcmp(ours.data, now.data, now.len) == 0) {
			buf_add(ret, kept.data, kept.len);
			return OK;
		}
	}
	return layout_edit_manager(buf_str(&now), now.len, unrooted(n, n->layout.of[AUTHORITY_KUBERNETES].ca_crt), unrooted(n, n->layout.of[AUTHORITY_KUBERNETES].ca_key),
				   unrooted(n, n->layout.of[AUTHORITY_KUBERNETES].ca_crt), ret, e);
}

result node_kubeadm_flags(struct node *n, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	if (n->report->levels[FACET_TRUST] != TRUST_NEW || n->report->levels[FACET_CA_KEY] != ISSUED_NEW)
		return err_set(e, ERR_CONFLICT, "ca.crt and ca.key are not the new authority's alone yet");
	TRY(kubeadm_text(n, &text, e));
	TRY(restart_with(n, &text, n->layout.of[AUTHORITY_KUBERNETES].ca_crt, e));
	return node_observe(n, e);
}
