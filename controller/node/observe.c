/* What the node's files, processes and servers say, as facets. */
#include "file.h"
#include "kubeconfig.h"
#include "node.h"
#include "podca.h"
#include "remote.h"

#include <string.h>

static void set(struct node *n, enum facet f, int level)
{
	n->report->levels[f] = level;
}

static void foreign(struct node *n, const char *path, const char *what)
{
	report_add_blocker(n->report, "ForeignAuthority", path, "%s neither the old nor the new authority: a person must look", what);
}

/* True when the process reads the file at its start and has started after it was written. */
static bool younger(const struct node *n, enum process p, const char *path)
{
	int64_t written = 0;
	struct err e;
	return n->running[p] && file_mtime(path, &written, &e).ok && n->processes[p].started_ms >= written;
}

/* --- Bundles ---------------------------------------------------------------------------------------------------------------- */

static void observe_trust(struct node *n)
{
	int holds = 0;
	struct err e;
	if (!node_bundle_file(n, n->layout.ca_crt, &holds, &e).ok)
		report_add_blocker(n->report, "UnreadableFile", n->layout.ca_crt, "%s", e.message);
	else if (holds & HOLDS_OTHER)
		foreign(n, n->layout.ca_crt, "holds a certificate that is");
	else
		set(n, FACET_TRUST, holds == HOLDS_OLD ? TRUST_OLD : holds == HOLDS_NEW ? TRUST_NEW : TRUST_BOTH);
}

static void observe_ca_key(struct node *n)
{
	struct key *k cleanup(key_freep) = NULL;
	struct err e;
	if (!file_exists(n->layout.ca_key)) {
		report_add_blocker(n->report, "CAKeyMissing", n->layout.ca_key,
				   "the certificate authority's key is not on this control plane (external CA): strategy Bridge needs it");
		return;
	}
	if (!node_key_file(n->layout.ca_key, &k, &e).ok)
		report_add_blocker(n->report, "UnreadableFile", n->layout.ca_key, "%s", e.message);
	else if (n->new_ca && cert_matches_key(n->new_ca, k))
		set(n, FACET_CA_KEY, ISSUED_NEW);
	else if (cert_matches_key(n->old_ca, k))
		set(n, FACET_CA_KEY, ISSUED_OLD);
	else
		foreign(n, n->layout.ca_key, "is the key of");
}

/* --- The controller-manager ------------------------------------------------------------------------------------------------- */

static bool flag_is(const struct node *n, const char *flag, const char *path)
{
	const char *value = process_flag(&n->processes[PROCESS_CONTROLLER_MANAGER], flag);
	return value && str_ends(path, value) && strlen(path) == strlen(n->layout.root) + strlen(value);
}

/* The signing pair is re-read when its file changes (dynamic_cafile_content.go's sibling for pairs), so the file says it all. */
static int signer_level(const struct node *n)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	bool own = flag_is(n, "cluster-signing-cert-file", n->layout.own_signer);
	if (!n->running[PROCESS_CONTROLLER_MANAGER])
		return SIGNER_KUBEADM_OLD;
	if (!own)
		return n->report->levels[FACET_TRUST] == TRUST_NEW && n->report->levels[FACET_CA_KEY] == ISSUED_NEW &&
				       n->new_ca && flag_is(n, "cluster-signing-cert-file", n->layout.ca_crt)
			       ? SIGNER_KUBEADM_NEW
			       : SIGNER_KUBEADM_OLD;
	if (!node_certs(n->layout.own_signer, &list, &e).ok)
		return FACET_UNKNOWN;
	return n->new_ca && cert_equal(list.items[0], n->new_ca) ? SIGNER_OWN_NEW : SIGNER_OWN_OLD;
}

static int root_level(const struct node *n)
{
	int holds = 0;
	struct err e;
	bool own = flag_is(n, "root-ca-file", n->layout.own_root);
	const char *path = own ? n->layout.own_root : n->layout.ca_crt;
	if (!n->running[PROCESS_CONTROLLER_MANAGER] || !node_bundle_file(n, path, &holds, &e).ok)
		return ROOT_KUBEADM_OLD;
	bool fresh = younger(n, PROCESS_CONTROLLER_MANAGER, path);
	if (!own)
		return fresh && holds == HOLDS_NEW ? ROOT_KUBEADM_NEW : ROOT_KUBEADM_OLD;
	if (holds == HOLDS_NEW)
		return fresh ? ROOT_OWN_NEW : ROOT_OWN_BOTH;
	return fresh && holds == (HOLDS_OLD | HOLDS_NEW) ? ROOT_OWN_BOTH : ROOT_KUBEADM_OLD;
}

/* --- Leaves ------------------------------------------------------------------------------------------------------------------- */

static void check_leaf(struct node *n, const char *path, const struct cert *leaf, int issuer)
{
	char until[32];
	if (issuer == HOLDS_OTHER)
		foreign(n, path, "was issued by");
	if (issuer == HOLDS_OLD && cert_not_after_ms(leaf) < clock_now_ms()) {
		time_format(cert_not_after_ms(leaf), until);
		report_add_blocker(n->report, "ExpiredCertificate", path, "expired at %s: renew it first (kubeadm certs renew)", until);
	}
}

static int leaf_level(const struct node *n, const struct certs *list)
{
	int issuer = node_issuer(n, list->items[0]);
	if (issuer != HOLDS_NEW)
		return issuer == HOLDS_OLD ? LEAF_OLD : FACET_UNKNOWN;
	return list->n > 1 ? LEAF_BRIDGE : LEAF_NEW;
}

/* What counts is what is presented; the file must agree, or a restart would bring something else. */
static void observe_server_leaf(struct node *n)
{
	struct certs file cleanup(certs_release) = { 0 }, shown cleanup(certs_release) = { 0 };
	char *pem cleanup(str_freep) = NULL;
	struct err e;
	if (!node_certs(n->layout.apiserver_crt, &file, &e).ok) {
		report_add_blocker(n->report, "UnreadableFile", n->layout.apiserver_crt, "%s", e.message);
		return;
	}
	int level = leaf_level(n, &file);
	check_leaf(n, n->layout.apiserver_crt, file.items[0], node_issuer(n, file.items[0]));
	if (remote_available()) {
		bool seen = remote_presented(n->layout.api_port, &pem, &e).ok && certs_from_pem(pem, strlen(pem), &shown, &e).ok;
		int presented = seen ? leaf_level(n, &shown) : FACET_UNKNOWN;
		level = presented < level ? presented : level;
	}
	set(n, FACET_SERVER_LEAF, level);
}

static void observe_kubelet_server(struct node *n)
{
	char *path cleanup(str_freep) = str_printf("%s/kubelet-server-current.pem", n->layout.kubelet_pki);
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	set(n, FACET_KUBELET_SERVER, FACET_ABSENT);
	if (!file_exists(path) || !node_certs(path, &list, &e).ok)
		return;
	int issuer = node_issuer(n, list.items[0]);
	if (issuer == HOLDS_OTHER)
		return;
	set(n, FACET_KUBELET_SERVER, leaf_level(n, &list));
	if (issuer == HOLDS_OLD)
		report_add_blocker(n->report, "UnsupportedKubeletServing", path,
				   "serverTLSBootstrap: kubelet serving certificates from the cluster's authority are not supported yet");
}

static void observe_kubelet_client(struct node *n)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	if (!node_certs(n->layout.kubelet_client_crt, &list, &e).ok) {
		report_add_blocker(n->report, "UnreadableFile", n->layout.kubelet_client_crt, "%s", e.message);
		return;
	}
	int issuer = node_issuer(n, list.items[0]);
	check_leaf(n, n->layout.kubelet_client_crt, list.items[0], issuer);
	if (issuer != HOLDS_OTHER)
		set(n, FACET_KUBELET_CLIENT, issuer == HOLDS_NEW ? ISSUED_NEW : ISSUED_OLD);
}

/* --- Kubeconfigs -------------------------------------------------------------------------------------------------------------- */

/* ISSUED_NEW when the leaf is from N and the trust holds N; a file that is not there counts as anything. */
static int kubeconfig_level(struct node *n, const char *path, bool may_be_absent)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct err e;
	int holds = 0;
	if (may_be_absent && !file_exists(path))
		return ISSUED_NEW;
	if (!kubeconfig_load(path, n->layout.root, &c, &e).ok || !c.ca_pem || !c.client_cert_pem ||
	    !cert_from_pem(c.client_cert_pem, strlen(c.client_cert_pem), &leaf, &e).ok ||
	    !node_bundle(n, c.ca_pem, strlen(c.ca_pem), &holds, &e).ok) {
		report_add_blocker(n->report, "UnreadableFile", path, "it must be a kubeconfig with a CA and a client certificate");
		return FACET_UNKNOWN;
	}
	int issuer = node_issuer(n, leaf);
	check_leaf(n, path, leaf, issuer);
	if (issuer == HOLDS_OTHER)
		return FACET_UNKNOWN;
	return issuer == HOLDS_NEW && (holds & HOLDS_NEW) ? ISSUED_NEW : ISSUED_OLD;
}

static int lower(int a, int b)
{
	return a < b ? a : b;
}

static void observe_components(struct node *n)
{
	int level = lower(kubeconfig_level(n, n->layout.scheduler_conf, false), kubeconfig_level(n, n->layout.manager_conf, false));
	bool fresh = younger(n, PROCESS_SCHEDULER, n->layout.scheduler_conf) &&
		     younger(n, PROCESS_CONTROLLER_MANAGER, n->layout.manager_conf);
	set(n, FACET_COMPONENTS, level == ISSUED_NEW && !fresh ? ISSUED_OLD : level);
}

static void observe_admin(struct node *n)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct err e;
	set(n, FACET_ADMIN, lower(kubeconfig_level(n, n->layout.admin_conf, true), kubeconfig_level(n, n->layout.super_admin_conf, true)));
	if (kubeconfig_load(n->layout.admin_conf, n->layout.root, &c, &e).ok && c.client_cert_pem &&
	    cert_from_pem(c.client_cert_pem, strlen(c.client_cert_pem), &leaf, &e).ok)
		n->report->admin_subject = cert_subject(leaf);
}

/* kubelet.conf is written last (see node_kubelet), so a kubelet that is younger than it has read all. */
static void observe_kubelet(struct node *n)
{
	int level = kubeconfig_level(n, n->layout.kubelet_conf, false);
	bool fresh = younger(n, PROCESS_KUBELET, n->layout.kubelet_conf);
	set(n, FACET_KUBELET, level == ISSUED_NEW && !fresh ? ISSUED_OLD : level);
}

/* --- All of it ----------------------------------------------------------------------------------------------------------------- */

result node_find_processes(struct node *n, struct err *e)
{
	for (size_t p = 0; p < PROCESS_COUNT; p++) {
		process_release(&n->processes[p]);
		TRY(process_find(process_name((enum process)p), p != PROCESS_KUBELET, &n->running[p], &n->processes[p], e));
		n->report->started_ms[p] = n->running[p] ? n->processes[p].started_ms : 0;
	}
	return OK;
}

static void observe_control_plane(struct node *n)
{
	static const enum facet ONLY_THERE[] = { FACET_SIGNER, FACET_ROOT, FACET_CA_KEY, FACET_SERVER_LEAF, FACET_COMPONENTS, FACET_ADMIN,
						 FACET_KUBELET_CLIENT };
	if (!n->layout.control_plane) {
		for (size_t i = 0; i < ARRAY_LEN(ONLY_THERE); i++)
			set(n, ONLY_THERE[i], FACET_ABSENT);
		return;
	}
	observe_ca_key(n);
	set(n, FACET_SIGNER, signer_level(n));
	set(n, FACET_ROOT, root_level(n));
	observe_server_leaf(n);
	observe_components(n);
	observe_admin(n);
	observe_kubelet_client(n);
}

static void forget_observation(struct report *r)
{
	struct report kept = { .node = r->node, .run = r->run, .restarted = r->restarted, .changed = r->changed,
			       .bridge_pem = r->bridge_pem, .probe_pem = r->probe_pem, .ca_pem = r->ca_pem };
	r->node = r->run = r->bridge_pem = r->probe_pem = r->ca_pem = NULL;
	r->restarted = r->changed = (struct strs){ 0 };
	report_release(r);
	*r = kept;
	for (size_t f = 0; f < FACET_COUNT; f++)
		r->levels[f] = FACET_UNKNOWN;
}

static result observe_pods(struct node *n, struct err *e)
{
	char *dir cleanup(str_freep) = str_printf("%s" KUBELET_DIR, n->layout.root);
	char *memory cleanup(str_freep) = str_printf("%s/read", n->layout.run_dir);
	if (n->no_pods || !n->desired->pods || !n->new_ca || !file_exists(n->layout.run_dir))
		return OK;
	return podca_look(dir, memory, n->old_ca, n->new_ca, n->report, e);
}

result node_observe(struct node *n, struct err *e)
{
	char *run cleanup(str_freep) = str_dup(n->desired->run), *root cleanup(str_freep) = str_dup(n->layout.root ? n->layout.root : "");
	forget_observation(n->report);
	layout_release(&n->layout);
	TRY(layout_learn(root, run, &n->layout, n->report, e));
	TRY(node_find_processes(n, e));
	n->report->control_plane = n->layout.control_plane;
	observe_trust(n);
	observe_control_plane(n);
	observe_kubelet(n);
	observe_kubelet_server(n);
	set(n, FACET_CLEAN, node_is_clean(n) ? CLEAN_YES : CLEAN_NO);
	TRY(observe_pods(n, e));
	n->report->at_ms = clock_now_ms();
	return OK;
}
