/* What the node's files, processes and servers say, as facets. */
#include "file.h"
#include "node.h"
#include "podca.h"

#include <string.h>
#include <sys/stat.h>

static void set(struct node *n, enum facet f, int level)
{
	n->report->levels[f] = level;
}

static void foreign(struct node *n, const char *path, const char *what)
{
	report_add_blocker(n->report, "ForeignAuthority", path, "%s neither the cluster's authority nor the one that this run makes: put the file "
			   "in order first", what);
}

void node_unreadable(const struct node *n, const char *path, const struct err *e)
{
	report_add_blocker(n->report, "UnreadableFile", path, "%s: put the file in order first", e->message);
}

/* client-go looks at its client certificate every five minutes whatever happens (CertCallbackRefreshDuration). */
#define ABSORBED_BY_ITSELF_MS ((int64_t)6 * 60000)

bool node_younger(const struct node *n, enum process p, const char *path)
{
	int64_t written = 0;
	struct err e;
	return n->running[p] && file_mtime(path, &written, &e).ok && process_younger(&n->processes[p], written);
}

#define TRIAL_VALIDITY_MS ((int64_t)3600000)

static int lower(int a, int b)
{
	return a < b ? a : b;
}

/* --- Bundles ---------------------------------------------------------------------------------------------------------------- */

int node_trust_in_file(struct node *n, enum authority a)
{
	const char *path = n->layout.of[a].ca_crt;
	int holds = 0;
	struct err e;
	if (!node_bundle_file(&n->of[a], path, &holds, &e).ok)
		node_unreadable(n, path, &e);
	else if (holds & HOLDS_OTHER)
		foreign(n, path, "holds a certificate that is");
	else
		return holds == HOLDS_OLD ? TRUST_OLD : holds == HOLDS_NEW ? TRUST_NEW : TRUST_BOTH;
	return FACET_UNKNOWN;
}

/* What the cluster had before may be kept elsewhere, when no bridge is wanted. A controller-manager that is told to sign with a key that is
 * not there would not start again. */
static int level_without_key(struct node *n, enum authority a)
{
	const char *path = n->layout.of[a].ca_key, *flag = n->layout.flag_signing_key;
	if (!n->desired->bundle)
		report_add_blocker(n->report, "CAKeyMissing", path,
				   "the certificate authority's key is not on this control plane, and the new one must be certified by "
				   "it: copy it here (mode 0600) from where it is kept, or set spec.strategy to Bundle");
	else if (flag && *flag && str_eq(flag, path + strlen(n->layout.root)))
		report_add_blocker(n->report, "CAKeyMissing", path,
				   "kube-controller-manager is to sign with it and would not start again: copy it here (mode 0600), or set "
				   "--cluster-signing-cert-file= and --cluster-signing-key-file= to nothing, as kubeadm does for an authority "
				   "that is kept elsewhere");
	else
		return n->desired->back ? ISSUED_NEW : ISSUED_OLD;
	return FACET_UNKNOWN;
}

/* kubeadm signs with ca.crt's first certificate: a key that is another's is not in its place yet. When the file can't be read,
 * node_trust_in_file says why. */
static int level_of_new_key(const struct node *n, enum authority a)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	if (!node_certs(n->layout.of[a].ca_crt, &list, &e).ok)
		return FACET_UNKNOWN;
	return cert_equal(list.items[0], n->of[a].new) ? ISSUED_NEW : ISSUED_OLD;
}

int node_key_level(struct node *n, enum authority a)
{
	const struct succession *s = &n->of[a];
	const char *path = n->layout.of[a].ca_key;
	struct key *k cleanup(key_freep) = NULL;
	struct err e;
	if (!file_exists(path))
		return level_without_key(n, a);
	if (!node_key_file(path, &k, &e).ok) {
		node_unreadable(n, path, &e);
		return FACET_UNKNOWN;
	}
	if (s->new && cert_matches_key(s->new, k))
		return level_of_new_key(n, a);
	if (!cert_matches_key(s->old, k)) {
		foreign(n, path, "is the key of");
		return FACET_UNKNOWN;
	}
	if (!s->bridge && !n->desired->bundle && cert_not_after_ms(s->old) >= clock_now_ms())
		node_rehearse_bridges(n, a, k);
	return ISSUED_OLD;
}

/* --- The controller-manager ------------------------------------------------------------------------------------------------- */

static bool flag_is(const struct node *n, const char *flag, const char *path)
{
	const char *value = process_flag(&n->processes[PROCESS_CONTROLLER_MANAGER], flag);
	return value && str_ends(path, value) && strlen(path) == strlen(n->layout.root) + strlen(value);
}

/* Nothing is signed here: neither with O nor with a bundle that ca.crt becomes. On the way back that is what there was. */
static int level_of_no_signer(const struct node *n)
{
	bool alone = n->report->levels[FACET_TRUST] == TRUST_NEW && flag_is(n, "root-ca-file", n->layout.of[AUTHORITY_KUBERNETES].ca_crt);
	if (!n->desired->back)
		return SIGNER_OWN_OLD;
	return alone ? SIGNER_KUBEADM_NEW : SIGNER_OWN_NEW;
}

/* The signing pair is re-read when its file changes (dynamic_cafile_content.go's sibling for pairs), so the file says it all. */
static int signer_level(const struct node *n)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	bool own = flag_is(n, "cluster-signing-cert-file", n->layout.own_signer);
	if (!n->running[PROCESS_CONTROLLER_MANAGER])
		return SIGNER_KUBEADM_OLD;
	if (n->desired->bundle && str_eq(process_flag(&n->processes[PROCESS_CONTROLLER_MANAGER], "cluster-signing-cert-file"), ""))
		return level_of_no_signer(n);
	if (!own)
		return n->report->levels[FACET_TRUST] == TRUST_NEW && n->report->levels[FACET_CA_KEY] == ISSUED_NEW &&
				       n->of[AUTHORITY_KUBERNETES].new && flag_is(n, "cluster-signing-cert-file", n->layout.of[AUTHORITY_KUBERNETES].ca_crt)
			       ? SIGNER_KUBEADM_NEW
			       : SIGNER_KUBEADM_OLD;
	if (!node_certs(n->layout.own_signer, &list, &e).ok) {
		node_unreadable(n, n->layout.own_signer, &e);
		return FACET_UNKNOWN;
	}
	return n->of[AUTHORITY_KUBERNETES].new && cert_equal(list.items[0], n->of[AUTHORITY_KUBERNETES].new) ? SIGNER_OWN_NEW : SIGNER_OWN_OLD;
}

static int root_level(const struct node *n)
{
	int holds = 0;
	struct err e;
	bool own = flag_is(n, "root-ca-file", n->layout.own_root);
	const char *path = own ? n->layout.own_root : n->layout.of[AUTHORITY_KUBERNETES].ca_crt;
	if (!n->running[PROCESS_CONTROLLER_MANAGER] || !node_bundle_file(&n->of[AUTHORITY_KUBERNETES], path, &holds, &e).ok)
		return ROOT_KUBEADM_OLD;
	bool fresh = node_younger(n, PROCESS_CONTROLLER_MANAGER, path);
	if (!own)
		return fresh && holds == HOLDS_NEW ? ROOT_KUBEADM_NEW : ROOT_KUBEADM_OLD;
	if (holds == HOLDS_NEW)
		return fresh ? ROOT_OWN_NEW : ROOT_OWN_BOTH;
	return fresh && holds == (HOLDS_OLD | HOLDS_NEW) ? ROOT_OWN_BOTH : ROOT_KUBEADM_OLD;
}

/* --- Leaves ------------------------------------------------------------------------------------------------------------------- */

static bool check_expiry(struct node *n, const char *path, const struct cert *leaf)
{
	char until[32];
	if (cert_not_after_ms(leaf) >= clock_now_ms())
		return true;
	time_format(cert_not_after_ms(leaf), until);
	report_add_blocker(n->report, "ExpiredCertificate", path, "expired at %s: renew it first (kubeadm certs renew)", until);
	return false;
}

static void check_leaf(struct node *n, enum authority a, const char *path, const struct cert *leaf, enum leaf_kind kind)
{
	int issuer = node_issuer(&n->of[a], leaf);
	if (issuer == HOLDS_OTHER)
		foreign(n, path, "was issued by");
	if (issuer == HOLDS_OLD && check_expiry(n, path, leaf))
		node_rehearse_leaf(n, path, leaf, kind);
}

void node_check_leaf(struct node *n, enum authority a, const char *path, const struct cert *leaf)
{
	check_leaf(n, a, path, leaf, LEAF_KEEPS_KEY);
}

/* A bare leaf from N while O is still trusted, although there is a bridge (kubeadm has renewed it): who trusts only O can't
 * verify it, so it counts as not done. */
int node_leaf_level(const struct node *n, enum authority a, int trust, const struct certs *list)
{
	int issuer = node_issuer(&n->of[a], list->items[0]);
	if (issuer != HOLDS_NEW)
		return issuer == HOLDS_OLD ? LEAF_OLD : FACET_UNKNOWN;
	if (list->n > 1)
		return LEAF_BRIDGE;
	return n->of[a].bridge && trust != TRUST_NEW ? LEAF_OLD : LEAF_NEW;
}

static int leaf_level(const struct node *n, const struct certs *list)
{
	return node_leaf_level(n, AUTHORITY_KUBERNETES, n->report->levels[FACET_TRUST], list);
}

static int presented_level(const struct node *n)
{
	struct certs shown cleanup(certs_release) = { 0 };
	char *pem cleanup(str_freep) = NULL;
	struct err e;
	if (!remote_presented(n->layout.api_host, n->layout.api_port, &pem, &e).ok || !certs_from_pem(pem, strlen(pem), &shown, &e).ok)
		return FACET_UNKNOWN;
	return leaf_level(n, &shown);
}

/* What counts is what is presented; the file must agree, or a restart would bring something else. */
static void observe_server_leaf(struct node *n)
{
	struct certs file cleanup(certs_release) = { 0 };
	struct err e;
	if (!node_certs(n->layout.apiserver_crt, &file, &e).ok) {
		node_unreadable(n, n->layout.apiserver_crt, &e);
		return;
	}
	int level = leaf_level(n, &file);
	node_check_leaf(n, AUTHORITY_KUBERNETES, n->layout.apiserver_crt, file.items[0]);
	if (remote_available())
		level = lower(level, presented_level(n));
	set(n, FACET_SERVER_LEAF, level);
}

static result kubelet_serving(const struct node *n, struct certs *ret, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("%s/kubelet-server-current.pem", n->layout.kubelet_pki), *pem cleanup(str_freep) = NULL;
	if (file_exists(path))
		return node_certs(path, ret, e);
	if (!remote_available())
		return err_set(e, ERR_NOT_FOUND, "not seen");
	TRY(remote_presented("127.0.0.1", n->layout.kubelet_port, &pem, e));
	return certs_from_pem(pem, strlen(pem), ret, e);
}

/* Self-signed, or from an authority that is none of ours: nothing of it changes. */
static void observe_kubelet_server(struct node *n)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	set(n, FACET_KUBELET_SERVER, FACET_ABSENT);
	if (!kubelet_serving(n, &list, &e).ok || node_issuer(&n->of[AUTHORITY_KUBERNETES], list.items[0]) == HOLDS_OTHER)
		return;
	set(n, FACET_KUBELET_SERVER, leaf_level(n, &list));
	if (node_issuer(&n->of[AUTHORITY_KUBERNETES], list.items[0]) == HOLDS_OLD)
		report_add_blocker(n->report, "UnsupportedKubeletServing", "serverTLSBootstrap",
				   "kubelet serving certificates from the cluster's authority are not supported yet: set it to false in "
				   "the kubelet's configuration, and take kubelet-server-current.pem away");
}

/* Taken up: seen and noted, or by an API server that is younger than the file, or after so long that it has looked by itself. */
static bool is_absorbed(const struct node *n, const struct cert *leaf)
{
	struct buf noted cleanup(buf_release) = BUF_INIT;
	char fingerprint[CERT_FINGERPRINT_SIZE];
	int64_t written = 0;
	struct err e;
	cert_fingerprint(leaf, fingerprint);
	if (!remote_available() || node_younger(n, PROCESS_APISERVER, n->layout.kubelet_client_crt))
		return true;
	if (file_read(n->layout.absorbed, 4096, &noted, &e).ok && str_eq(buf_str(&noted), fingerprint))
		return true;
	return file_mtime(n->layout.kubelet_client_crt, &written, &e).ok && clock_now_ms() - written > ABSORBED_BY_ITSELF_MS;
}

static void observe_kubelet_client(struct node *n)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	if (!node_certs(n->layout.kubelet_client_crt, &list, &e).ok) {
		node_unreadable(n, n->layout.kubelet_client_crt, &e);
		return;
	}
	int issuer = node_issuer(&n->of[AUTHORITY_KUBERNETES], list.items[0]);
	node_check_leaf(n, AUTHORITY_KUBERNETES, n->layout.kubelet_client_crt, list.items[0]);
	if (issuer != HOLDS_OTHER)
		set(n, FACET_KUBELET_CLIENT, issuer == HOLDS_NEW && is_absorbed(n, list.items[0]) ? ISSUED_NEW : ISSUED_OLD);
}

/* --- Kubeconfigs -------------------------------------------------------------------------------------------------------------- */

/* What is needed of a kubeconfig, or a blocker. */
static bool read_kubeconfig(struct node *n, const char *path, struct kubeconfig *c, struct cert **leaf, int *holds)
{
	struct err e;
	if (!node_kubeconfig(n, path, c, &e).ok) {
		node_unreadable(n, path, &e);
		return false;
	}
	if (c->unsupported || !c->ca_pem || c->ca_path || !c->client_cert_pem) {
		report_add_blocker(n->report, "UnsupportedKubeconfig", path, "%s: give it an embedded authority and a client certificate, "
				   "as kubeadm does", c->unsupported ? c->unsupported : c->ca_path ? "certificate-authority" : "current context");
		return false;
	}
	if (cert_from_pem(c->client_cert_pem, strlen(c->client_cert_pem), leaf, &e).ok &&
	    node_bundle(&n->of[AUTHORITY_KUBERNETES], c->ca_pem, strlen(c->ca_pem), holds, &e).ok)
		return true;
	node_unreadable(n, path, &e);
	return false;
}

/* Of a kubeconfig: `only` is ISSUED_NEW when the leaf is from N and N alone is trusted, `both` when O may be trusted beside it. */
struct client_level {
	int only, both;
};

static struct client_level lower_client(struct client_level a, struct client_level b)
{
	return (struct client_level){ lower(a.only, b.only), lower(a.both, b.both) };
}

static void set_client(struct node *n, enum facet only, enum facet both, struct client_level level, bool fresh)
{
	set(n, only, level.only == ISSUED_NEW && !fresh ? ISSUED_OLD : level.only);
	set(n, both, level.both == ISSUED_NEW && !fresh ? ISSUED_OLD : level.both);
}

/* A file that is not there counts as anything. */
static struct client_level kubeconfig_level(struct node *n, const char *path, bool may_be_absent, enum leaf_kind kind)
{
	static const struct client_level UNKNOWN = { FACET_UNKNOWN, FACET_UNKNOWN }, NEW = { ISSUED_NEW, ISSUED_NEW };
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	int holds = 0;
	if (may_be_absent && !file_exists(path))
		return NEW;
	if (!read_kubeconfig(n, path, &c, &leaf, &holds))
		return UNKNOWN;
	int issuer = node_issuer(&n->of[AUTHORITY_KUBERNETES], leaf);
	check_leaf(n, AUTHORITY_KUBERNETES, path, leaf, kind);
	if (holds & HOLDS_OTHER)
		foreign(n, path, "trusts what is");
	if (issuer == HOLDS_OTHER || (holds & HOLDS_OTHER))
		return UNKNOWN;
	return (struct client_level){ issuer == HOLDS_NEW && holds == HOLDS_NEW ? ISSUED_NEW : ISSUED_OLD,
				      issuer == HOLDS_NEW && (holds & HOLDS_NEW) ? ISSUED_NEW : ISSUED_OLD };
}

static void observe_components(struct node *n)
{
	struct client_level level = lower_client(kubeconfig_level(n, n->layout.scheduler_conf, false, LEAF_WITH_NEW_KEY),
						 kubeconfig_level(n, n->layout.manager_conf, false, LEAF_WITH_NEW_KEY));
	bool fresh = node_younger(n, PROCESS_SCHEDULER, n->layout.scheduler_conf) &&
		     node_younger(n, PROCESS_CONTROLLER_MANAGER, n->layout.manager_conf);
	set_client(n, FACET_COMPONENTS, FACET_COMPONENTS_BOTH, level, fresh);
}

static void observe_admin(struct node *n)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct err e;
	set_client(n, FACET_ADMIN, FACET_ADMIN_BOTH, lower_client(kubeconfig_level(n, n->layout.admin_conf, true, LEAF_WITH_NEW_KEY),
								  kubeconfig_level(n, n->layout.super_admin_conf, true, LEAF_WITH_NEW_KEY)),
		   true);
	if (node_kubeconfig(n, n->layout.admin_conf, &c, &e).ok && c.client_cert_pem &&
	    cert_from_pem(c.client_cert_pem, strlen(c.client_cert_pem), &leaf, &e).ok)
		n->report->admin_subject = cert_subject(leaf);
}

/* The kubelet's own rotation needs a symlink in its folder (client-go util/certificate/certificate_store.go), and goes by it even when
 * kubelet.conf holds another certificate (certificate_manager.go, getCurrentCertificateOrBootstrap). */
static void check_kubelet_files(struct node *n)
{
	char *path cleanup(str_freep) = node_kubelet_client_path(n), *link cleanup(str_freep) = NULL;
	struct stat st;
	link = str_printf("%s/kubelet-client-current.pem", n->layout.kubelet_pki);
	if (!path && n->layout.kubelet_rotates)
		report_add_blocker(n->report, "UnsupportedKubeconfig", n->layout.kubelet_conf, "it embeds a client certificate, and the kubelet does not use "
				   "that one but the one that it renews (rotateCertificates): set client-certificate and client-key to %s there, and "
				   "restart the kubelet", link + strlen(n->layout.root));
	if (!path)
		return;
	if (!str_eq(path, link))
		report_add_blocker(n->report, "UnsupportedPath", n->layout.kubelet_conf, "client-certificate is %s: set it to %s", path, link);
	else if (lstat(link, &st) == 0 && !S_ISLNK(st.st_mode))
		report_add_blocker(n->report, "UnsupportedPath", link, "it is no symlink, so that the kubelet can't rotate its certificate: make it one to a "
				   "kubelet-client-DATE.pem beside it");
}

/* kubelet.conf is written last (see node_kubelet), so a kubelet that is younger than it has read all. */
static void observe_kubelet(struct node *n)
{
	struct client_level level = kubeconfig_level(n, n->layout.kubelet_conf, false, LEAF_OF_KUBELET);
	bool fresh = node_younger(n, PROCESS_KUBELET, n->layout.kubelet_conf);
	set_client(n, FACET_KUBELET, FACET_KUBELET_BOTH, level, fresh);
	check_kubelet_files(n);
}

/* --- What others read ------------------------------------------------------------------------------------------------------------ */

static bool is_of_old(const struct node *n, const struct cert *c)
{
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		if (n->of[a].old && (cert_equal(c, n->of[a].old) || node_issuer(&n->of[a], c) == HOLDS_OLD))
			return true;
	return false;
}

/* True when the file has to do with an authority that is rotated: O or something that O has issued, as PEM or in a kubeconfig. */
static bool depends_on_old(const struct node *n, const char *path)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	bool found = false;
	if (!node_certs(path, &list, &e).ok &&
	    !(node_kubeconfig(n, path, &c, &e).ok && c.ca_pem && certs_from_pem(c.ca_pem, strlen(c.ca_pem), &list, &e).ok))
		return false;
	for (size_t i = 0; i < list.n; i++)
		found = found || is_of_old(n, list.items[i]);
	return found;
}

/* Other authorities' leaves are not ours to renew, but a cluster in which one has expired is ill already. */
static void check_other(struct node *n, const char *path)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	if (!n->desired->of[n->desired->asked].old_pem && node_certs(path, &list, &e).ok && !cert_is_ca(list.items[0]))
		(void)check_expiry(n, path, list.items[0]);
}

static void observe_others(struct node *n)
{
	for (size_t i = 0; i < n->layout.others.n; i++) {
		const char *text = n->layout.others.items[i];
		char *path cleanup(str_freep) = str_ndup(text, strcspn(text, " "));
		char *what cleanup(str_freep) = str_dup(text + strlen(path) + 1);
		what[strcspn(what, " ")] = '\0';
		check_other(n, path);
		if (depends_on_old(n, path))
			report_add_blocker(n->report, "UnknownFlag", text + strlen(path) + strlen(what) + 2,
					   "%s=%s depends on an authority that is rotated, and that flag is not known here: give it a file "
					   "that does not, or take it away for the run", what, path);
	}
}

static void observe_authority(struct node *n, enum authority a)
{
	char until[32];
	if (!n->of[a].old)
		return;
	time_format(cert_not_after_ms(n->of[a].old), until);
	if (cert_not_after_ms(n->of[a].old) < clock_now_ms())
		report_add_blocker(n->report, "ExpiredCertificate", n->layout.of[a].ca_crt,
				   "the authority itself expired at %s, and what it certifies now is worth nothing: sign it again with its own "
				   "key and subject, and give it to every node, kubeconfig and client first", until);
}

/* The files that somebody else's Pod may have mounted and read: what has started later than all of them has read them as they are. */
static void observe_written(struct node *n)
{
	const struct layout *l = &n->layout;
	const char *const files[] = { l->of[AUTHORITY_KUBERNETES].ca_crt, l->kubelet_conf, l->admin_conf, l->super_admin_conf, l->manager_conf,
				      l->scheduler_conf, l->apiserver_crt, l->kubelet_client_crt, l->of[AUTHORITY_FRONT_PROXY].ca_crt,
				      l->proxy_client_crt, l->of[AUTHORITY_ETCD].ca_crt, l->etcd_leaves[ETCD_SERVER],
				      l->etcd_leaves[ETCD_PEER], l->etcd_leaves[ETCD_API_CLIENT], l->etcd_leaves[ETCD_HEALTH_CLIENT] };
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		int64_t written = 0;
		struct err e;
		if (files[i] && file_mtime(files[i], &written, &e).ok && written > n->report->written_ms)
			n->report->written_ms = written;
	}
}

/* --- All of it ----------------------------------------------------------------------------------------------------------------- */

result node_find_processes(struct node *n, struct err *e)
{
	for (size_t p = 0; p < PROCESS_COUNT; p++) {
		process_release(&n->processes[p]);
		n->running[p] = false;
		if (!n->elsewhere)
			TRY(process_find(process_name((enum process)p), p != PROCESS_KUBELET, &n->running[p], &n->processes[p],
					 e));
		n->report->started_ms[p] = n->running[p] ? n->processes[p].started_ms : 0;
	}
	return OK;
}

/* Of the cluster's own authority, on control planes. */
static void observe_components_of_plane(struct node *n)
{
	set(n, FACET_CA_KEY, node_key_level(n, AUTHORITY_KUBERNETES));
	set(n, FACET_SIGNER, signer_level(n));
	set(n, FACET_ROOT, root_level(n));
	observe_server_leaf(n);
	observe_components(n);
	observe_admin(n);
	observe_kubelet_client(n);
}

static bool is_on_workers(enum facet f)
{
	return f == FACET_TRUST || f == FACET_KUBELET || f == FACET_KUBELET_BOTH || f == FACET_KUBELET_SERVER || f == FACET_CLEAN;
}

/* What is not there, or is not rotated. */
static void observe_absences(struct node *n)
{
	for (size_t f = 0; f < FACET_COUNT; f++) {
		enum authority a = facet_authority((enum facet)f);
		bool rotated = a == AUTHORITY_COUNT || n->desired->of[a].wanted;
		if (!rotated || (!n->layout.control_plane && !is_on_workers((enum facet)f)))
			set(n, (enum facet)f, FACET_ABSENT);
	}
}

/* One that nobody else sees. NULL where O's key is not here, or O has expired. */
static struct cert *trial_leaf(const struct node *n, enum authority a, const char *path, const struct key *k)
{
	struct certs now cleanup(certs_release) = { 0 };
	struct key *ca_key cleanup(key_freep) = NULL;
	struct cert *leaf = NULL;
	struct err e;
	if (!node_certs(path, &now, &e).ok || !node_old_key(n, a, &ca_key, &e).ok)
		return NULL;
	return leaf_reissue(now.items[0], k, n->of[a].old, ca_key, clock_now_ms(), TRIAL_VALIDITY_MS, &leaf, &e).ok ? leaf : NULL;
}

/* A certificate of O's for that key that is refused for nothing but its issuer: the one in place, the one that was (kubeadm may have made
 * another key since), or one for a look. */
static struct cert *old_leaf(const struct node *n, enum authority a, const char *path, const struct key *k)
{
	char *backup cleanup(str_freep) = node_backup_path(n, path);
	const char *const paths[] = { path, backup };
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		struct certs list cleanup(certs_release) = { 0 };
		struct err e;
		if (node_certs(paths[i], &list, &e).ok && node_issuer(&n->of[a], list.items[0]) == HOLDS_OLD &&
		    cert_matches_key(list.items[0], k) && cert_not_after_ms(list.items[0]) >= clock_now_ms())
			return cert_copy(list.items[0]);
	}
	return trial_leaf(n, a, path, k);
}

static bool is_named_no_more(const struct node *n, const struct cert *ca)
{
	struct strs named cleanup(strs_release) = { 0 };
	char *digest cleanup(str_freep) = cert_subject_digest(ca);
	struct err e;
	return remote_client_authorities(n->layout.api_host, n->layout.api_port, &named, &e).ok && !strs_has(&named, digest);
}

bool node_old_is_refused(const struct node *n, enum authority a, const char *crt_path, const char *key_path, ask_trusted ask)
{
	struct key *k cleanup(key_freep) = NULL;
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_INIT, key cleanup(buf_release) = BUF_SECRET;
	bool trusted = true;
	struct err e;
	if (!remote_available())
		return true;
	if (!node_key_file(key_path, &k, &e).ok)
		return false;
	leaf = old_leaf(n, a, crt_path, k);
	if (!leaf)
		return is_named_no_more(n, n->of[a].old);
	cert_to_pem(leaf, &pem);
	key_to_pem(k, &key);
	return ask(n->layout.api_host, n->layout.api_port, buf_str(&pem), buf_str(&key), &trusted, &e).ok && !trusted;
}

static bool old_is_refused(const struct node *n)
{
	const struct layout *l = &n->layout;
	return node_old_is_refused(n, AUTHORITY_KUBERNETES, l->kubelet_client_crt, l->kubelet_client_key, remote_client_trusted);
}

int node_trust_in_force(struct node *n)
{
	int level = node_trust_in_file(n, AUTHORITY_KUBERNETES);
	bool asked = level == TRUST_NEW && n->desired->bundle && n->layout.control_plane;
	return asked && !old_is_refused(n) ? TRUST_BOTH : level;
}

static void observe_kubernetes(struct node *n)
{
	set(n, FACET_TRUST, node_trust_in_force(n));
	if (n->layout.control_plane)
		observe_components_of_plane(n);
	observe_kubelet(n);
	observe_kubelet_server(n);
}

static void observe_authorities(struct node *n)
{
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		if (n->layout.of[a].ca_crt)
			observe_authority(n, (enum authority)a);
	observe_absences(n);
	if (n->of[AUTHORITY_KUBERNETES].old)
		observe_kubernetes(n);
	if (n->layout.control_plane && n->of[AUTHORITY_FRONT_PROXY].old)
		node_observe_front_proxy(n);
	if (n->layout.control_plane && n->of[AUTHORITY_ETCD].old)
		node_observe_etcd(n);
}

static void forget_observation(struct report *r)
{
	struct report kept = { .node = r->node, .run = r->run, .asked = r->asked, .restarted = r->restarted, .changed = r->changed,
			       .bridge_pem = r->bridge_pem, .probe_pem = r->probe_pem, .ca_pem = r->ca_pem };
	r->node = r->run = r->bridge_pem = r->probe_pem = r->ca_pem = NULL;
	r->restarted = r->changed = (struct strs){ 0 };
	report_release(r);
	*r = kept;
	for (size_t f = 0; f < FACET_COUNT; f++)
		r->levels[f] = FACET_UNKNOWN;
}

/* The file of containers that have read that authority; alone: and no other. */
static char *readers_of(const struct node *n, const struct cert *ca, bool alone)
{
	char fingerprint[CERT_FINGERPRINT_SIZE];
	cert_fingerprint(ca, fingerprint);
	return str_printf("%s/read-%s%.16s", n->layout.run_dir, alone ? "alone-" : "", fingerprint);
}

static result observe_pods(struct node *n, struct err *e)
{
	char *dir cleanup(str_freep) = str_printf("%s" KUBELET_DIR, n->layout.root);
	bool clean = n->no_pods || n->desired->levels[FACET_CLEAN] == CLEAN_YES; /* its memory goes with the run's folder */
	if (clean || !n->desired->pods || !n->of[AUTHORITY_KUBERNETES].old)
		return OK;
	if (!n->of[AUTHORITY_KUBERNETES].new)
		return podca_mounters(dir, n->of[AUTHORITY_KUBERNETES].old, n->report, e);
	bool forget = n->desired->forget;
	char *new cleanup(str_freep) = readers_of(n, n->of[AUTHORITY_KUBERNETES].new, forget);
	char *old cleanup(str_freep) = readers_of(n, n->of[AUTHORITY_KUBERNETES].old, false);
	const struct podca_memory memory = { .new = new, .old = old, .forget = forget };
	TRY(file_mkdir(n->layout.run_dir, 0700, e));
	return podca_look(dir, &memory, n->of[AUTHORITY_KUBERNETES].old, n->of[AUTHORITY_KUBERNETES].new, n->report, e);
}

result node_observe(struct node *n, struct err *e)
{
	char *root cleanup(str_freep) = str_dup(n->layout.root ? n->layout.root : "");
	forget_observation(n->report);
	layout_release(&n->layout);
	TRY(layout_learn(root, n->desired, &n->layout, n->report, e));
	TRY(node_find_processes(n, e));
	n->report->at_ms = clock_now_ms();
	if (!layout_is_whole(&n->layout, n->desired))
		return OK; /* a blocker says what is missing, and nothing more is known */
	observe_authorities(n);
	observe_others(n);
	observe_written(n);
	set(n, FACET_CLEAN, node_is_clean(n) ? CLEAN_YES : CLEAN_NO);
	TRY(observe_pods(n, e));
	n->report->at_ms = clock_now_ms();
	return OK;
}
