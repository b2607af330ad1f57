#include "layout.h"
#include "file.h"
#include "manifest.h"
#include "process.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define ASIDE KUBERNETES_DIR "/.certrotation-kube-controller-manager.yaml"
#define MANAGER KUBERNETES_DIR "/manifests/kube-controller-manager.yaml"
#define CONFIG_MAX ((size_t)1 << 20)

void layout_release(struct layout *l)
{
	char **const texts[] = { &l->root, &l->manifests, &l->kubelet_pki, &l->run_dir, &l->absorbed, &l->own_dir, &l->own_signer,
				 &l->own_root, &l->apiserver_crt, &l->apiserver_key, &l->kubelet_client_crt,
				 &l->kubelet_client_key, &l->api_host, &l->manager_manifest, &l->manager_aside, &l->manager_conf,
				 &l->scheduler_conf, &l->admin_conf, &l->super_admin_conf, &l->kubelet_conf,
				 &l->flag_signing_cert, &l->flag_signing_key, &l->flag_root_ca, &l->proxy_client_crt,
				 &l->proxy_client_key, &l->etcd_client_key, &l->etcd_server };
	for (size_t i = 0; i < ARRAY_LEN(texts); i++)
		str_freep(texts[i]);
	for (size_t i = 0; i < ETCD_LEAF_COUNT; i++)
		str_freep(&l->etcd_leaves[i]);
	for (size_t a = 0; a < AUTHORITY_COUNT; a++) {
		str_freep(&l->of[a].ca_crt);
		str_freep(&l->of[a].ca_key);
	}
	strs_release(&l->others);
	memset(l, 0, sizeof *l);
}

/* The new content is written aside before the manifest is taken away, so whatever is aside may come back. */
result layout_heal(const char *root, struct err *e)
{
	char *aside cleanup(str_freep) = str_printf("%s%s", root, ASIDE);
	char *manifest cleanup(str_freep) = str_printf("%s%s", root, MANAGER);
	if (!file_exists(aside))
		return OK;
	if (file_exists(manifest))
		return file_remove(aside, e);
	return file_rename(aside, manifest, e);
}

/* --- Editing ---------------------------------------------------------------------------------------------------- */

static result edit_flag(const struct yaml *y, struct yaml_edits *edits, const char *name, const char *value, struct err *e)
{
	struct manifest_flag f = manifest_flag(y, name);
	if (!value)
		return OK;
	if (f.count != 1 || f.apart)
		return err_set(e, ERR_INPUT, "kube-controller-manager.yaml has --%s %zu times%s", name, f.count,
			       f.apart ? ", with its value apart" : "");
	char *text cleanup(str_freep) = str_printf("--%s=%s", name, value);
	yaml_edit_scalar(edits, f.node, text);
	return OK;
}

result layout_edit_manager(const char *text, size_t len, const char *signing_cert, const char *signing_key, const char *root_ca,
			   struct buf *ret, struct err *e)
{
	struct yaml *y cleanup(yaml_freep) = NULL;
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	TRY(yaml_parse(text, len, &y, e));
	TRY(edit_flag(y, &edits, "cluster-signing-cert-file", signing_cert, e));
	TRY(edit_flag(y, &edits, "cluster-signing-key-file", signing_key, e));
	TRY(edit_flag(y, &edits, "root-ca-file", root_ca, e));
	return yaml_apply(y, &edits, ret, e);
}

/* --- Learning --------------------------------------------------------------------------------------------------------------- */

static char *rooted(const char *root, char *path_taken)
{
	char *full = path_taken ? str_printf("%s%s", root, path_taken) : NULL;
	str_freep(&path_taken);
	return full;
}

/* A flag that we take care of, while that authority is rotated (AUTHORITY_COUNT: always); only when it names `path`, if that is not NULL. */
struct handled {
	const char *flag, *path;
	enum authority authority;
};

static bool is_handled(const struct layout *l, const struct desired *d, const struct handled *list, size_t n, const char *flag, size_t flag_len, const char *value)
{
	for (size_t i = 0; i < n; i++) {
		if (strlen(list[i].flag) != flag_len || strncmp(list[i].flag, flag, flag_len) != 0)
			continue;
		if (list[i].authority != AUTHORITY_COUNT && !d->of[list[i].authority].wanted)
			return false;
		return !list[i].path || str_eq(list[i].path + strlen(l->root), value);
	}
	return false;
}

/* A flag's value may be a list of files: --tls-sni-cert-key=a.crt,a.key:name */
static void add_others(struct layout *l, const struct manifest *m, const char *flag, size_t flag_len, const char *value)
{
	for (const char *p = value; *p;) {
		size_t n = strcspn(p, ",:");
		if (str_starts(p, KUBERNETES_DIR "/"))
			strs_addf(&l->others, "%s%.*s --%.*s %s", l->root, (int)n, p, (int)flag_len, flag, m->path);
		p += n;
		p += strspn(p, ",:");
	}
}

/* "--flag=value", or what follows a "--flag". */
static void add_item(struct layout *l, const struct manifest *m, const struct desired *d, const struct handled *list, size_t n, const char *before, const char *item)
{
	bool is_flag = str_starts(item, "--");
	const char *flag = is_flag ? item + 2 : before && str_starts(before, "--") ? before + 2 : "";
	size_t len = strcspn(flag, "=");
	const char *value = !is_flag ? item : flag[len] ? flag + len + 1 : "";
	if (!is_handled(l, d, list, n, flag, len, value))
		add_others(l, m, flag, len, value);
}

static void collect_others(struct layout *l, const struct manifest *m, const struct desired *d, const struct handled *list, size_t n)
{
	static const char *const LISTS[] = { "command", "args" };
	const struct yaml_node *containers = yaml_at(yaml_root(m->yaml), "spec", "containers", NULL);
	for (size_t i = 0; i < ARRAY_LEN(LISTS); i++) {
		const char *before = NULL;
		yaml_each(item, yaml_get(containers ? containers->first : NULL, LISTS[i])) {
			if (yaml_str(item))
				add_item(l, m, d, list, n, before, yaml_str(item));
			before = yaml_str(item);
		}
	}
}

/* Files of ours belong to root; a control plane that runs as somebody else (RootlessControlPlane) could not read them. */
static void check_user(const struct manifest *m, struct report *r)
{
	const char *user = yaml_str(yaml_at(yaml_root(m->yaml), "spec", "securityContext", "runAsUser", NULL));
	if (user && !str_eq(user, "0"))
		report_add_blocker(r, "UnsupportedUser", m->path, "it runs as user %s, who could not read files of ours: let it run as root for the run", user);
}

/* What the API server has of the authorities besides the cluster's own; where they are not rotated their flags are anybody's. */
static void learn_proxy(struct layout *l, const struct manifest *m, struct report *r)
{
	l->of[AUTHORITY_FRONT_PROXY].ca_crt = rooted(l->root, manifest_path(m, "requestheader-client-ca-file", r));
	l->proxy_client_crt = rooted(l->root, manifest_path(m, "proxy-client-cert-file", r));
	l->proxy_client_key = rooted(l->root, manifest_path(m, "proxy-client-key-file", r));
}

static void learn_etcd_client(struct layout *l, const struct manifest *m, struct report *r)
{
	char *servers cleanup(str_freep) = manifest_value(m, "etcd-servers"), *etcd cleanup(str_freep) = str_printf("%s/etcd.yaml", l->manifests);
	if (!file_exists(etcd) || !servers || strchr(servers, ',') || !strstr(servers, "127.0.0.1")) {
		report_add_blocker(r, "ExternalEtcd", m->path, "--etcd-servers is %s: only an etcd that kubeadm runs beside the API server can be "
				   "rotated; take Etcd out of spec.authorities, and rotate it where it runs", servers ? servers : "absent");
		return;
	}
	l->of[AUTHORITY_ETCD].ca_crt = rooted(l->root, manifest_path(m, "etcd-cafile", r));
	l->etcd_leaves[ETCD_API_CLIENT] = rooted(l->root, manifest_path(m, "etcd-certfile", r));
	l->etcd_client_key = rooted(l->root, manifest_path(m, "etcd-keyfile", r));
	l->etcd_server = steal(&servers);
}

static result learn_apiserver(struct layout *l, const struct desired *d, struct report *r, struct err *e)
{
	static const struct handled HANDLED[] = {
		{ "client-ca-file", NULL, AUTHORITY_COUNT }, { "tls-cert-file", NULL, AUTHORITY_COUNT },
		{ "tls-private-key-file", NULL, AUTHORITY_COUNT }, { "kubelet-client-certificate", NULL, AUTHORITY_COUNT },
		{ "kubelet-client-key", NULL, AUTHORITY_COUNT }, { "kubelet-certificate-authority", NULL, AUTHORITY_COUNT },
		{ "requestheader-client-ca-file", NULL, AUTHORITY_FRONT_PROXY }, { "proxy-client-cert-file", NULL, AUTHORITY_FRONT_PROXY },
		{ "proxy-client-key-file", NULL, AUTHORITY_FRONT_PROXY }, { "etcd-cafile", NULL, AUTHORITY_ETCD },
		{ "etcd-certfile", NULL, AUTHORITY_ETCD }, { "etcd-keyfile", NULL, AUTHORITY_ETCD } };
	char *path cleanup(str_freep) = str_printf("%s/kube-apiserver.yaml", l->manifests);
	struct manifest m cleanup(manifest_release) = { 0 };
	TRY(manifest_read(path, &m, r, e));
	l->of[AUTHORITY_KUBERNETES].ca_crt = rooted(l->root, manifest_path(&m, "client-ca-file", r));
	l->apiserver_crt = rooted(l->root, manifest_path(&m, "tls-cert-file", r));
	l->apiserver_key = rooted(l->root, manifest_path(&m, "tls-private-key-file", r));
	l->kubelet_client_crt = rooted(l->root, manifest_path(&m, "kubelet-client-certificate", r));
	l->kubelet_client_key = rooted(l->root, manifest_path(&m, "kubelet-client-key", r));
	l->api_host = manifest_host(&m);
	l->api_port = manifest_port(&m, "secure-port", 6443, r);
	if (d->of[AUTHORITY_FRONT_PROXY].wanted)
		learn_proxy(l, &m, r);
	if (d->of[AUTHORITY_ETCD].wanted)
		learn_etcd_client(l, &m, r);
	char *kubelet_ca cleanup(str_freep) = manifest_value(&m, "kubelet-certificate-authority");
	if (kubelet_ca)
		report_add_blocker(r, "UnsupportedFlag", path, "--kubelet-certificate-authority is set, which is read at start only: take it "
				   "away for the run");
	check_user(&m, r);
	collect_others(l, &m, d, HANDLED, ARRAY_LEN(HANDLED));
	return OK;
}

/* The flags point to the authority that is trusted or to ours, else we would not know what to put back, and a file that nobody
 * changes would be left with the old one. */
static void check_manager_flags(const struct layout *l, const char *path, struct report *r)
{
	const char *full = l->of[AUTHORITY_KUBERNETES].ca_crt, *slash = full ? strrchr(full, '/') : NULL;
	if (!slash)
		return;
	int n = (int)(slash - full - (ptrdiff_t)strlen(l->root));
	const char *ca = full + strlen(l->root), *dir = ca;
	char *key cleanup(str_freep) = str_printf("%.*s/ca.key", n, dir);
	char *signer cleanup(str_freep) = str_printf("%.*s/certrotation/signer.pem", n, dir);
	char *root cleanup(str_freep) = str_printf("%.*s/certrotation/root.crt", n, dir);
	const struct { const char *flag, *is, *kubeadm, *own; } flags[] = {
		{ "cluster-signing-cert-file", l->flag_signing_cert, ca, signer },
		{ "cluster-signing-key-file", l->flag_signing_key, key, signer },
		{ "root-ca-file", l->flag_root_ca, ca, root },
	};
	for (size_t i = 0; i < ARRAY_LEN(flags); i++)
		if (flags[i].is && *flags[i].is && !str_eq(flags[i].is, flags[i].kubeadm) && !str_eq(flags[i].is, flags[i].own))
			report_add_blocker(r, "UnsupportedPath", path, "--%s is %s, and nobody would change that file: set it to %s", flags[i].flag,
					   flags[i].is, flags[i].kubeadm);
}

/* kubeadm gives nothing to sign with where the authority's key is elsewhere (controlplane/manifests.go, UsingExternalCA). */
static char *signing_path(const struct manifest *m, const char *name, const struct desired *d, struct report *r)
{
	struct manifest_flag f = manifest_flag(m->yaml, name);
	if (d->bundle && f.count == 1 && !f.apart && f.value && !*f.value)
		return str_dup("");
	return manifest_path(m, name, r);
}

static result learn_manager(struct layout *l, const struct desired *d, struct report *r, struct err *e)
{
	struct manifest m cleanup(manifest_release) = { 0 };
	l->manager_manifest = str_printf("%s%s", l->root, MANAGER);
	l->manager_aside = str_printf("%s%s", l->root, ASIDE);
	TRY(manifest_read(l->manager_manifest, &m, r, e));
	l->flag_signing_cert = signing_path(&m, "cluster-signing-cert-file", d, r);
	l->flag_signing_key = signing_path(&m, "cluster-signing-key-file", d, r);
	l->flag_root_ca = manifest_path(&m, "root-ca-file", r);
	l->manager_conf = rooted(l->root, manifest_path(&m, "kubeconfig", r));
	l->manager_port = manifest_port(&m, "secure-port", 10257, r);
	const struct handled handled[] = {
		{ "cluster-signing-cert-file", NULL, AUTHORITY_COUNT }, { "cluster-signing-key-file", NULL, AUTHORITY_COUNT },
		{ "root-ca-file", NULL, AUTHORITY_COUNT }, { "kubeconfig", NULL, AUTHORITY_COUNT },
		{ "client-ca-file", l->of[AUTHORITY_KUBERNETES].ca_crt, AUTHORITY_COUNT },
		{ "authentication-kubeconfig", l->manager_conf, AUTHORITY_COUNT },
		{ "authorization-kubeconfig", l->manager_conf, AUTHORITY_COUNT },
		{ "requestheader-client-ca-file", l->of[AUTHORITY_FRONT_PROXY].ca_crt, AUTHORITY_FRONT_PROXY } };
	check_manager_flags(l, l->manager_manifest, r);
	check_user(&m, r);
	collect_others(l, &m, d, handled, ARRAY_LEN(handled));
	return OK;
}

static result learn_scheduler(struct layout *l, const struct desired *d, struct report *r, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("%s/kube-scheduler.yaml", l->manifests);
	struct manifest m cleanup(manifest_release) = { 0 };
	TRY(manifest_read(path, &m, r, e));
	l->scheduler_conf = rooted(l->root, manifest_path(&m, "kubeconfig", r));
	l->scheduler_port = manifest_port(&m, "secure-port", 10259, r);
	const struct handled handled[] = {
		{ "kubeconfig", NULL, AUTHORITY_COUNT }, { "client-ca-file", l->of[AUTHORITY_KUBERNETES].ca_crt, AUTHORITY_COUNT },
		{ "authentication-kubeconfig", l->scheduler_conf, AUTHORITY_COUNT },
		{ "authorization-kubeconfig", l->scheduler_conf, AUTHORITY_COUNT },
		{ "requestheader-client-ca-file", l->of[AUTHORITY_FRONT_PROXY].ca_crt, AUTHORITY_FRONT_PROXY } };
	check_user(&m, r);
	collect_others(l, &m, d, handled, ARRAY_LEN(handled));
	return OK;
}

/* One file for clients and peers, the one that the API server has too: else we would not know what to change. */
static void check_etcd_trust(const struct layout *l, const struct manifest *m, const char *flag, struct report *r)
{
	char *path cleanup(str_freep) = rooted(l->root, manifest_path(m, flag, r));
	if (path && !str_eq(path, l->of[AUTHORITY_ETCD].ca_crt))
		report_add_blocker(r, "UnsupportedPath", m->path, "--%s is %s, but the API server's --etcd-cafile is %s: name the same file in both",
				   flag, path, l->of[AUTHORITY_ETCD].ca_crt);
}

static void learn_member(struct layout *l, const struct manifest *m, struct report *r)
{
	const char *ca = l->of[AUTHORITY_ETCD].ca_crt, *slash = ca ? strrchr(ca, '/') : NULL;
	if (!slash) /* a blocker has said why */
		return;
	char *health cleanup(str_freep) = str_printf("%.*s/healthcheck-client.crt", (int)(slash - ca), ca);
	l->etcd_leaves[ETCD_SERVER] = rooted(l->root, manifest_path(m, "cert-file", r));
	l->etcd_leaves[ETCD_PEER] = rooted(l->root, manifest_path(m, "peer-cert-file", r));
	if (file_exists(health))
		l->etcd_leaves[ETCD_HEALTH_CLIENT] = steal(&health);
	check_etcd_trust(l, m, "trusted-ca-file", r);
	check_etcd_trust(l, m, "peer-trusted-ca-file", r);
}

/* An etcd that uses the cluster's authority would lose its clients. */
static result learn_etcd(struct layout *l, const struct desired *d, struct report *r, struct err *e)
{
	static const struct handled HANDLED[] = { { "cert-file", NULL, AUTHORITY_ETCD }, { "key-file", NULL, AUTHORITY_ETCD },
						  { "peer-cert-file", NULL, AUTHORITY_ETCD }, { "peer-key-file", NULL, AUTHORITY_ETCD },
						  { "trusted-ca-file", NULL, AUTHORITY_ETCD },
						  { "peer-trusted-ca-file", NULL, AUTHORITY_ETCD } };
	char *path cleanup(str_freep) = str_printf("%s/etcd.yaml", l->manifests);
	struct manifest m cleanup(manifest_release) = { 0 };
	if (!file_exists(path))
		return OK;
	TRY(manifest_read(path, &m, r, e));
	if (d->of[AUTHORITY_ETCD].wanted)
		learn_member(l, &m, r);
	collect_others(l, &m, d, HANDLED, ARRAY_LEN(HANDLED));
	return OK;
}

/* --- The kubelet: its arguments go before its configuration file -------------------------------------------------------------- */

static char *kubelet_path(const struct layout *l, const struct process_seen *kubelet, const char *flag, const char *otherwise)
{
	const char *value = process_flag(kubelet, flag);
	return str_printf("%s%s", l->root, value ? value : otherwise);
}

static void learn_kubelet_ca(struct layout *l, const char *config, const char *ca, struct report *r)
{
	if (!ca || !manifest_is_under(ca, KUBERNETES_DIR)) {
		report_add_blocker(r, "UnsupportedPath", config, "authentication.x509.clientCAFile is %s: set it to a file under %s",
				   ca ? ca : "absent", KUBERNETES_DIR);
		return;
	}
	char *full = str_printf("%s%s", l->root, ca);
	char **known = &l->of[AUTHORITY_KUBERNETES].ca_crt;
	if (*known && !str_eq(*known, full))
		report_add_blocker(r, "UnsupportedPath", config, "clientCAFile is %s, but the API server's --client-ca-file is %s: name the "
				   "same file in both", full, *known);
	if (*known)
		str_freep(&full);
	else
		*known = full;
}

/* A control plane whose manifests are elsewhere would pass for a worker. */
static void check_manifests(const char *config, const char *path, struct report *r)
{
	static const char ours[] = KUBERNETES_DIR "/manifests";
	bool same = !path || !*path || (str_starts(path, ours) && !path[strlen(ours) + strspn(path + strlen(ours), "/")]);
	if (!same)
		report_add_blocker(r, "UnsupportedPath", config, "staticPodPath is %s: move it to %s", path, ours);
}

/* Off unless given (kubelet/config/v1beta1). A bare --rotate-certificates has no value, and what follows it is another flag. */
static bool rotates(const struct process_seen *kubelet, const char *setting)
{
	for (size_t i = 0; i < kubelet->args.n; i++)
		if (str_eq(kubelet->args.items[i], "--rotate-certificates"))
			return true;
	const char *flag = process_flag(kubelet, "rotate-certificates"), *value = flag ? flag : setting;
	return value && !str_eq(value, "false");
}

static result learn_kubelet(struct layout *l, struct report *r, struct err *e)
{
	struct process_seen kubelet cleanup(process_release) = { 0 };
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct yaml *y cleanup(yaml_freep) = NULL;
	bool running = false;
	if (!*l->root)
		TRY(process_find("kubelet", false, &running, &kubelet, e));
	char *path cleanup(str_freep) = kubelet_path(l, &kubelet, "config", KUBELET_DIR "/config.yaml");
	l->kubelet_conf = kubelet_path(l, &kubelet, "kubeconfig", KUBERNETES_DIR "/kubelet.conf");
	if (!file_read(path, CONFIG_MAX, &text, e).ok || !yaml_parse(buf_str(&text), text.len, &y, e).ok)
		return manifest_blocked(r, path, e);
	const char *ca = process_flag(&kubelet, "client-ca-file"), *port = yaml_str(yaml_get(yaml_root(y), "port"));
	const char *manifests = process_flag(&kubelet, "pod-manifest-path");
	check_manifests(path, manifests ? manifests : yaml_str(yaml_get(yaml_root(y), "staticPodPath")), r);
	learn_kubelet_ca(l, path, ca ? ca : yaml_str(yaml_at(yaml_root(y), "authentication", "x509", "clientCAFile", NULL)), r);
	l->kubelet_rotates = rotates(&kubelet, yaml_str(yaml_get(yaml_root(y), "rotateCertificates")));
	l->kubelet_port = manifest_port_of(port && !str_eq(port, "0") ? port : NULL, 10250, path, r); /* 0 is the default, too */
	if (!manifest_is_under(l->kubelet_conf + strlen(l->root), KUBERNETES_DIR))
		report_add_blocker(r, "UnsupportedPath", l->kubelet_conf, "the kubelet's kubeconfig is not under %s: move it there", KUBERNETES_DIR);
	return OK;
}

/* The kubelet does not look into it. */
static bool is_folder(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Who else reads what we change: a static Pod of somebody's (kube-vip with admin.conf, say) would have to restart too. */
static result learn_strangers(struct layout *l, struct report *r, struct err *e)
{
	static const char *const KNOWN[] = { "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml", "etcd.yaml" };
	struct strs names cleanup(strs_release) = { 0 };
	if (!file_exists(l->manifests))
		return OK;
	TRY(file_list(l->manifests, 200, &names, e));
	for (size_t i = 0; i < names.n; i++) {
		bool known = false;
		for (size_t k = 0; k < ARRAY_LEN(KNOWN); k++)
			known = known || str_eq(names.items[i], KNOWN[k]);
		if (known || str_starts(names.items[i], "."))
			continue;
		char *path cleanup(str_freep) = str_printf("%s/%s", l->manifests, names.items[i]);
		struct buf text cleanup(buf_release) = BUF_INIT;
		if (is_folder(path))
			continue;
		TRY(file_read(path, MANIFEST_MAX, &text, e));
		if (strstr(buf_str(&text), KUBERNETES_DIR))
			report_add_blocker(r, "UnknownUser", path, "this static Pod reads %s and would go on with the old authority: "
					   "take it away, or give it credentials of its own", KUBERNETES_DIR);
	}
	return OK;
}

/* kubeadm's names beside the certificate: "ca.key", "front-proxy-ca.key". */
static char *key_beside(const char *ca_crt)
{
	size_t n = strlen(ca_crt);
	return str_ends(ca_crt, ".crt") ? str_printf("%.*s.key", (int)(n - strlen(".crt")), ca_crt) : str_printf("%s.key", ca_crt);
}

static void learn_names(struct layout *l, const char *run)
{
	const char *ca = l->of[AUTHORITY_KUBERNETES].ca_crt, *slash = ca ? strrchr(ca, '/') : NULL;
	size_t n = slash ? (size_t)(slash - ca) : 0;
	for (size_t a = AUTHORITY_KUBERNETES + 1; a < AUTHORITY_COUNT; a++)
		l->of[a].ca_key = l->of[a].ca_crt ? key_beside(l->of[a].ca_crt) : NULL;
	if (!slash)
		return;
	l->of[AUTHORITY_KUBERNETES].ca_key = str_printf("%.*s/ca.key", (int)n, ca);
	l->own_dir = str_printf("%.*s/certrotation", (int)n, ca);
	l->own_signer = str_printf("%s/signer.pem", l->own_dir);
	l->own_root = str_printf("%s/root.crt", l->own_dir);
	l->run_dir = str_printf("%s" STATE_DIR "/%s", l->root, run);
	l->absorbed = str_printf("%s" STATE_DIR "/absorbed", l->root);
	l->kubelet_pki = str_printf("%s" KUBELET_DIR "/pki", l->root);
	l->admin_conf = str_printf("%s" KUBERNETES_DIR "/admin.conf", l->root);
	l->super_admin_conf = str_printf("%s" KUBERNETES_DIR "/super-admin.conf", l->root);
}

static result learn(struct layout *l, const struct desired *d, struct report *r, struct err *e)
{
	char *apiserver cleanup(str_freep) = str_printf("%s/kube-apiserver.yaml", l->manifests);
	r->control_plane = l->control_plane = file_exists(apiserver);
	if (l->control_plane) {
		TRY(learn_apiserver(l, d, r, e));
		TRY(learn_manager(l, d, r, e));
		TRY(learn_scheduler(l, d, r, e));
		TRY(learn_etcd(l, d, r, e));
	}
	TRY(learn_kubelet(l, r, e));
	TRY(learn_strangers(l, r, e));
	learn_names(l, d->run);
	if (!l->of[AUTHORITY_KUBERNETES].ca_crt)
		return err_set(e, ERR_INPUT, "no certificate authority file is named by the kubelet's configuration");
	return OK;
}

static bool all_known(const char *const *texts, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (!texts[i])
			return false;
	return true;
}

bool layout_is_whole(const struct layout *l, const struct desired *d)
{
	const char *const always[] = { l->of[AUTHORITY_KUBERNETES].ca_crt, l->kubelet_conf };
	const char *const planes[] = { l->apiserver_crt, l->apiserver_key, l->kubelet_client_crt, l->kubelet_client_key, l->manager_conf,
				       l->scheduler_conf, l->flag_signing_cert, l->flag_signing_key, l->flag_root_ca };
	const char *const proxy[] = { l->of[AUTHORITY_FRONT_PROXY].ca_crt, l->proxy_client_crt, l->proxy_client_key };
	const char *const etcd[] = { l->of[AUTHORITY_ETCD].ca_crt, l->etcd_leaves[ETCD_SERVER], l->etcd_leaves[ETCD_PEER],
				     l->etcd_leaves[ETCD_API_CLIENT], l->etcd_client_key, l->etcd_server };
	if (!l->control_plane)
		return all_known(always, ARRAY_LEN(always));
	return all_known(always, ARRAY_LEN(always)) && all_known(planes, ARRAY_LEN(planes)) &&
	       (!d->of[AUTHORITY_FRONT_PROXY].wanted || all_known(proxy, ARRAY_LEN(proxy))) &&
	       (!d->of[AUTHORITY_ETCD].wanted || all_known(etcd, ARRAY_LEN(etcd)));
}

result layout_learn(const char *root, const struct desired *d, struct layout *ret, struct report *r, struct err *e)
{
	struct layout l cleanup(layout_release) = { .root = str_dup(root), .manifests = str_printf("%s" KUBERNETES_DIR "/manifests", root) };
	TRY(learn(&l, d, r, e));
	*ret = l;
	l = (struct layout){ 0 };
	return OK;
}
