/* LINK: node kube rotation */
#define _GNU_SOURCE /* MAP_ANONYMOUS, renameat */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "file.h"
#include "node.h"
#include "service.h"
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PKI "/etc/kubernetes/pki/"
#define OWN PKI "certrotation"
#define MANAGER "/etc/kubernetes/manifests/kube-controller-manager.yaml"
#define ASIDE "/etc/kubernetes/.certrotation-kube-controller-manager.yaml"
#define KUBELET_PKI "/var/lib/kubelet/pki"
#define KEYS "/run/certrotation/authority"
#define NEW_KEY KEYS "/Kubernetes.key"
#define RUN_DIR "/var/lib/certrotation/run-1"
#define DAY_MS ((int64_t)24 * 3600 * 1000)

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

/* --- A power cut: the n-th change of the file system does not happen any more --------------------------------------------------- */

#define CUT 42
static long cut_at; /* 0: never */

static void may_be_cut(void)
{
	if (cut_at && --cut_at == 0)
		_exit(CUT);
}

int rename(const char *from, const char *to)
{
	may_be_cut();
	return renameat(AT_FDCWD, from, AT_FDCWD, to);
}

int unlink(const char *path)
{
	may_be_cut();
	return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
	may_be_cut();
	return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int link(const char *from, const char *to)
{
	may_be_cut();
	return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

/* Between writing and naming a file. Nothing here lives longer than the machine does. */
int fsync(int fd)
{
	(void)fd;
	may_be_cut();
	return 0;
}

/* --- The node's processes: instead of /proc and the network, in memory that a child shares (linked without process.c) ------------- */

struct running {
	pid_t pid;
	int64_t ticks, started_ms;
	char flags[8192]; /* of the controller-manager: its manifest as it started */
};
static struct machine {
	struct running process[PROCESS_COUNT];
	int starts;
	bool silent; /* the API server presents what it always did */
	bool spoils; /* somebody spoils ca.crt when the controller-manager starts anew */
} *machine;
static const struct tree *machine_tree;
static const struct cert *signer_cert;
static const struct key *signer_key;

static void start_process(struct running *p)
{
	usleep(30000); /* more than a tick after what was written */
	p->pid = 1000 + ++machine->starts;
	p->ticks = machine->starts;
	p->started_ms = clock_now_ms();
}

/* The kubelet: a Pod whose manifest is gone ends, one that is there runs as the manifest says. */
static void sync_manager(void)
{
	struct running *p = &machine->process[PROCESS_CONTROLLER_MANAGER];
	char *text cleanup(str_freep) = tree_read(machine_tree, MANAGER);
	if (!text) {
		p->pid = 0;
		return;
	}
	if (p->pid && str_eq(p->flags, text))
		return;
	str_copy(p->flags, sizeof(p->flags), text);
	start_process(p);
	if (machine->spoils)
		tree_put(machine_tree, PKI "ca.crt", "half a file");
}

static enum process process_named(const char *name)
{
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		if (str_eq(process_name((enum process)p), name))
			return (enum process)p;
	fail_msg("no process %s", name);
	return PROCESS_COUNT;
}

void process_release(struct process_seen *p)
{
	strs_release(&p->args);
	*p = (struct process_seen){ 0 };
}

result process_find(const char *name, bool in_pod, bool *ret_found, struct process_seen *ret, struct err *e)
{
	enum process which = process_named(name);
	const struct running *r = &machine->process[which];
	(void)e;
	assert_int_equal(in_pod, which != PROCESS_KUBELET);
	sync_manager();
	*ret_found = r->pid != 0;
	if (!r->pid)
		return OK;
	*ret = (struct process_seen){ .pid = r->pid, .ticks = r->ticks, .started_ms = r->started_ms };
	for (const char *p = strstr(r->flags, "    - --"); p; p = strstr(p + 1, "    - --"))
		strs_addf(&ret->args, "%.*s", (int)strcspn(p + 6, "\n"), p + 6);
	return OK;
}

bool process_younger(const struct process_seen *p, int64_t than_ms)
{
	return p->pid && p->started_ms > than_ms + PROCESS_TICK_MS;
}

bool process_pod_alive(const char *pod_uid)
{
	(void)pod_uid;
	return false;
}

bool process_alive(const struct process_seen *p)
{
	sync_manager();
	for (size_t i = 0; i < PROCESS_COUNT; i++)
		if (machine->process[i].pid == p->pid && machine->process[i].ticks == p->ticks)
			return true;
	return false;
}

result process_kill(const struct process_seen *p, struct err *e)
{
	return process_terminate(p, e);
}

result process_terminate(const struct process_seen *p, struct err *e)
{
	(void)e;
	for (size_t i = 0; i < PROCESS_COUNT; i++)
		if (machine->process[i].pid == p->pid)
			start_process(&machine->process[i]); /* the kubelet restarts it in place */
	return OK;
}

const char *process_flag(const struct process_seen *p, const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; i < p->args.n; i++)
		if (strncmp(p->args.items[i] + 2, name, n) == 0 && p->args.items[i][2 + n] == '=')
			return p->args.items[i] + 3 + n;
	return NULL;
}

result process_each_container(void (*each)(void *context, const char *pod_uid, const char *container_id, int64_t started_ms),
			      void *context, struct err *e)
{
	(void)each;
	(void)context;
	(void)e;
	return OK;
}

result service_restart(const char *unit, int64_t timeout_ms, struct err *e)
{
	(void)timeout_ms;
	(void)e;
	assert_string_equal(unit, "kubelet.service");
	start_process(&machine->process[PROCESS_KUBELET]);
	return OK;
}

bool remote_available(void)
{
	return true;
}

result remote_answers(const char *host, int port, const char *path, long *ret_status, struct err *e)
{
	(void)host;
	(void)port;
	(void)path;
	(void)e;
	*ret_status = 200;
	return OK;
}

/* The API server takes its certificate up at once; the kubelet's is its own. */
result remote_presented(const char *host, int port, char **ret_pem, struct err *e)
{
	(void)host;
	if (port != 6443 || machine->silent)
		return err_set(e, ERR_IO, "as told");
	*ret_pem = tree_read(machine_tree, PKI "apiserver.crt");
	return OK;
}

result remote_sign_kubelet(const struct remote_identity *id, const char *node, const char *csr_pem, bool rsa, int64_t until_ms,
			   char **ret_cert_pem, struct err *e)
{
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_INIT;
	char *name cleanup(str_freep) = str_printf("system:node:%s", node);
	struct leaf_request q = { .common_name = name, .organization = "system:nodes", .client = true, .now_ms = clock_now_ms(),
				  .validity_ms = DAY_MS / 4 };
	(void)until_ms;
	assert_false(rsa);
	assert_non_null(id->cert_pem);
	TRY(leaf_make_for_csr(&q, csr_pem, signer_cert, signer_key, &leaf, e));
	cert_to_pem(leaf, &pem);
	*ret_cert_pem = buf_take(&pem);
	return OK;
}

result remote_kubelet_looks(const struct remote_identity *id, int port, int64_t *ret_begun, int64_t *ret_ended, struct err *e)
{
	static int64_t looks;
	(void)id;
	(void)port;
	(void)e;
	*ret_begun = looks++;
	*ret_ended = *ret_begun + 2;
	return OK;
}

/* As the API server does: whoever is in the file. */
result remote_client_trusted(const char *host, int port, const char *cert_pem, const char *key_pem, bool *ret_trusted, struct err *e)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct key *k cleanup(key_freep) = NULL;
	char *now cleanup(str_freep) = tree_read(machine_tree, PKI "ca.crt");
	(void)host;
	assert_int_equal(port, 6443);
	TRY(certs_from_pem(now, strlen(now), &list, e));
	TRY(cert_from_pem(cert_pem, strlen(cert_pem), &leaf, e));
	TRY(key_from_pem(key_pem, strlen(key_pem), &k, e));
	if (!cert_matches_key(leaf, k))
		return err_set(e, ERR_IO, "the key is another's"); /* curl does not even ask */
	*ret_trusted = false;
	for (size_t i = 0; i < list.n; i++)
		*ret_trusted = *ret_trusted || cert_issued_by(leaf, list.items[i]);
	return OK;
}

/* As the API server does: whoever is in the file. */
result remote_client_authorities(const char *host UNUSED, int port UNUSED, struct strs *ret, struct err *e)
{
	struct certs list cleanup(certs_release) = { 0 };
	char *now cleanup(str_freep) = tree_read(machine_tree, PKI "ca.crt");
	TRY(certs_from_pem(now, strlen(now), &list, e));
	for (size_t i = 0; i < list.n; i++) {
		char *digest cleanup(str_freep) = cert_subject_digest(list.items[i]);
		strs_add(ret, digest);
	}
	return OK;
}

result remote_proxy_trusted(const char *host, int port, const char *cert_pem, const char *key_pem, bool *ret_trusted, struct err *e)
{
	return remote_client_trusted(host, port, cert_pem, key_pem, ret_trusted, e);
}

struct remote_dialer *remote_dialer_new(const struct remote_identity *id)
{
	(void)id;
	return NULL;
}

void remote_dialer_freep(struct remote_dialer **d)
{
	(void)d;
}

result remote_dial(struct remote_dialer *d, const char *node, bool *ret_good, struct err *e)
{
	(void)d;
	(void)node;
	(void)ret_good;
	(void)e;
	return FAILED;
}

/* --- A node as kubeadm has made it ---------------------------------------------------------------------------------------------------- */

struct test_ca {
	struct key *key;
	struct cert *cert;
};
static struct test_ca old_ca, new_ca, third_ca;
static struct cert *bridge;

static struct test_ca authority_new(const char *unique)
{
	struct err e = { 0 };
	struct test_ca a = { 0 };
	struct ca_request r = { .common_name = "kubernetes", .unique = unique, .now_ms = clock_now_ms(), .validity_ms = 30 * DAY_MS };
	assert_ok(key_generate("ECDSA-P256", &a.key, &e), e);
	assert_ok(ca_make(&r, a.key, &a.cert, &e), e);
	return a;
}

static void authority_release(struct test_ca *a)
{
	key_freep(&a->key);
	cert_freep(&a->cert);
}

static int make_world(void **state)
{
	struct err e = { 0 };
	(void)state;
	old_ca = authority_new("old");
	new_ca = authority_new("new");
	third_ca = authority_new("third");
	assert_ok(ca_cross_sign(new_ca.cert, old_ca.cert, old_ca.key, clock_now_ms(), &bridge, &e), e);
	machine = mmap(NULL, sizeof(*machine), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	signer_cert = new_ca.cert;
	signer_key = new_ca.key;
	return machine == MAP_FAILED;
}

static int drop_world(void **state)
{
	(void)state;
	authority_release(&old_ca);
	authority_release(&new_ca);
	authority_release(&third_ca);
	cert_freep(&bridge);
	return munmap(machine, sizeof(*machine));
}

static char *pem_of(const struct cert *c)
{
	struct buf b cleanup(buf_release) = BUF_INIT;
	cert_to_pem(c, &b);
	return buf_take(&b);
}

static char *key_pem_of(const struct key *k)
{
	struct buf b cleanup(buf_release) = BUF_SECRET;
	key_to_pem(k, &b);
	return buf_take(&b);
}

struct pair {
	char *cert, *key;
};

static void pair_release(struct pair *p)
{
	str_freep(&p->cert);
	secret_freep(&p->key);
}

static struct pair issue(const struct test_ca *by, const char *name, const char *group, bool server)
{
	static const char *const names[] = { "kubernetes", "kubernetes.default" };
	struct err e = { 0 };
	struct key *k cleanup(key_freep) = NULL;
	struct cert *c cleanup(cert_freep) = NULL;
	struct leaf_request r = { .common_name = name, .organization = group, .client = !server, .server = server, .dns_names = names,
				  .n_dns_names = server ? 2 : 0, .now_ms = clock_now_ms(), .validity_ms = 10 * DAY_MS };
	assert_ok(key_generate("ECDSA-P256", &k, &e), e);
	assert_ok(leaf_make(&r, k, by->cert, by->key, &c, &e), e);
	return (struct pair){ pem_of(c), key_pem_of(k) };
}

static void put_kubeconfig(const struct tree *t, const char *path, const char *user, const char *group)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	struct pair p cleanup(pair_release) = issue(&old_ca, user, group, false);
	char *ca cleanup(str_freep) = pem_of(old_ca.cert);
	buf_add_str(&text, "# kept\n");
	kubeconfig_write("kubernetes", "https://172.18.0.9:6443", user, ca, p.cert, p.key, &text);
	tree_put_mode(t, path, buf_str(&text), 0600);
}

static void put_pair(const struct tree *t, const char *base, const struct pair *p)
{
	char *crt cleanup(str_freep) = str_printf("%s.crt", base), *key cleanup(str_freep) = str_printf("%s.key", base);
	tree_put(t, crt, p->cert);
	tree_put_mode(t, key, p->key, 0600);
}

static void put_old_clients(const struct tree *t)
{
	struct pair old cleanup(pair_release) = issue(&old_ca, "system:node:n", "system:nodes", false);
	struct pair foreign cleanup(pair_release) = issue(&third_ca, "system:node:n", "system:nodes", false);
	tree_put_mode(t, KUBELET_PKI "/kubelet-client-2025-01-01-00-00-00.pem", old.cert, 0600);
	tree_put_mode(t, KUBELET_PKI "/kubelet-client-2024-01-01-00-00-00.pem", foreign.cert, 0600);
	tree_put(t, KUBELET_PKI "/kubelet.crt", foreign.cert);
}

static void put_manifests(const struct tree *t)
{
	static const char *const names[] = { "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml", "etcd.yaml" };
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *path cleanup(str_freep) = str_printf("/etc/kubernetes/manifests/%s", names[i]), *text cleanup(str_freep) = fixture_text(names[i]);
		tree_put_mode(t, path, text, 0600);
	}
}

static struct tree worker_tree(void)
{
	struct tree t = tree_new();
	char *ca cleanup(str_freep) = pem_of(old_ca.cert), *config cleanup(str_freep) = fixture_text("kubelet-config.yaml");
	tree_put(&t, PKI "ca.crt", ca);
	tree_put(&t, "/var/lib/kubelet/config.yaml", config);
	tree_edit(&t, "/var/lib/kubelet/config.yaml", "rotateCertificates: true", "rotateCertificates: false"); /* it embeds its certificate */
	tree_mkdir(&t, "/etc/kubernetes/manifests");
	put_kubeconfig(&t, "/etc/kubernetes/kubelet.conf", "system:node:n", "system:nodes");
	put_old_clients(&t);
	return t;
}

static struct tree control_plane_tree(void)
{
	struct tree t = worker_tree();
	struct pair server cleanup(pair_release) = issue(&old_ca, "kube-apiserver", NULL, true);
	struct pair client cleanup(pair_release) = issue(&old_ca, "kube-apiserver-kubelet-client", "system:masters", false);
	struct pair aggregator cleanup(pair_release) = issue(&third_ca, "front-proxy-client", NULL, false);
	char *key cleanup(secret_freep) = key_pem_of(old_ca.key), *new_key cleanup(secret_freep) = key_pem_of(new_ca.key);
	put_manifests(&t);
	tree_put_mode(&t, PKI "ca.key", key, 0640); /* by hand: it stays so */
	put_pair(&t, PKI "apiserver", &server);
	put_pair(&t, PKI "apiserver-kubelet-client", &client);
	put_pair(&t, PKI "front-proxy-client", &aggregator);
	put_kubeconfig(&t, "/etc/kubernetes/admin.conf", "kubernetes-admin", "kubeadm:cluster-admins");
	put_kubeconfig(&t, "/etc/kubernetes/super-admin.conf", "kubernetes-super-admin", "system:masters");
	put_kubeconfig(&t, "/etc/kubernetes/controller-manager.conf", "system:kube-controller-manager", NULL);
	put_kubeconfig(&t, "/etc/kubernetes/scheduler.conf", "system:kube-scheduler", NULL);
	tree_put_mode(&t, NEW_KEY, new_key, 0400);
	return t;
}

static void boot(const struct tree *t)
{
	memset(machine, 0, sizeof(*machine));
	machine_tree = t;
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		if (p != PROCESS_CONTROLLER_MANAGER)
			start_process(&machine->process[p]);
	sync_manager();
}

/* --- One run of the node program --------------------------------------------------------------------------------------------------------- */

struct run {
	struct desired desired;
	struct report report;
	struct node node;
	char *new_key;
};

static void run_release(struct run *r)
{
	node_release(&r->node);
	report_release(&r->report);
	desired_release(&r->desired);
	str_freep(&r->new_key);
}

/* Bundle: without a bridge; on the way back O and N are exchanged. */
static struct {
	bool bundle, back;
} kind;

static void set_kind(struct run *r)
{
	struct succession *s = &r->node.of[AUTHORITY_KUBERNETES];
	r->desired.bundle = kind.bundle;
	r->desired.back = kind.back;
	if (kind.bundle)
		cert_freep(&s->bridge);
	if (kind.back) {
		struct cert *old = s->old;
		s->old = s->new;
		s->new = old;
	}
}

static result begin(const struct tree *t, struct run *r, struct err *e)
{
	*r = (struct run){ 0 };
	for (size_t f = 0; f < FACET_COUNT; f++)
		r->desired.levels[f] = FACET_UNTOUCHED;
	r->desired.run = str_dup("run-1");
	r->desired.node = str_dup("n");
	r->desired.of[AUTHORITY_KUBERNETES].wanted = true;
	r->new_key = tree_path(t, KEYS);
	r->node = (struct node){ .desired = &r->desired, .report = &r->report, .new_key_dir = r->new_key, .of = { [AUTHORITY_KUBERNETES] = {
					 cert_copy(old_ca.cert), cert_copy(new_ca.cert), cert_copy(bridge) } }, .until_ms = clock_monotonic_ms() + 20000 };
	r->node.layout.root = str_dup(t->root);
	set_kind(r);
	TRY(layout_heal(t->root, e));
	TRY(node_observe(&r->node, e));
	TRY(node_sweep(&r->node, e));
	return node_observe(&r->node, e);
}

static struct run run_at(const struct tree *t)
{
	struct run r;
	struct err e = { 0 };
	assert_ok(begin(t, &r, &e), e);
	r.node.desired = NULL;
	return r;
}

/* The pointers into r itself, for it was copied. */
static struct run *settle(struct run *r)
{
	r->node.desired = &r->desired;
	r->node.report = &r->report;
	return r;
}

static void assert_no_blockers(const struct run *r)
{
	if (r->report.n_blockers)
		fail_msg("%s %s: %s", r->report.blockers[0].code, r->report.blockers[0].object, r->report.blockers[0].message);
}

/* --- What must be true of the files, whenever ------------------------------------------------------------------------------------------------ */

static struct certs certs_at(const struct tree *t, const char *path)
{
	struct certs list = { 0 };
	struct err e = { 0 };
	char *text cleanup(str_freep) = tree_read(t, path);
	assert_non_null(text);
	assert_ok(certs_from_pem(text, strlen(text), &list, &e), e);
	return list;
}

static struct key *key_at(const struct tree *t, const char *path)
{
	struct key *k = NULL;
	struct err e = { 0 };
	char *text cleanup(secret_freep) = tree_read(t, path);
	assert_non_null(text);
	assert_ok(key_from_pem(text, strlen(text), &k, &e), e);
	return k;
}

static void assert_pair(const struct tree *t, const char *base)
{
	char *crt cleanup(str_freep) = str_printf("%s.crt", base), *key cleanup(str_freep) = str_printf("%s.key", base);
	struct certs list cleanup(certs_release) = certs_at(t, crt);
	struct key *k cleanup(key_freep) = key_at(t, key);
	assert_true(cert_matches_key(list.items[0], k));
}

static void assert_kubeconfig(const struct tree *t, const char *path)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct key *k cleanup(key_freep) = NULL;
	struct err e = { 0 };
	assert_ok(kubeconfig_load(path, t->root, &c, &e), e);
	assert_ok(cert_from_pem(c.client_cert_pem, strlen(c.client_cert_pem), &leaf, &e), e);
	assert_ok(key_from_pem(c.client_key_pem, strlen(c.client_key_pem), &k, &e), e);
	assert_true(cert_matches_key(leaf, k));
}

/* Nobody is left with half a file, at any moment. */
static void assert_whole(const struct tree *t)
{
	static const char *const configs[] = { "/etc/kubernetes/admin.conf", "/etc/kubernetes/super-admin.conf", "/etc/kubernetes/kubelet.conf",
					       "/etc/kubernetes/scheduler.conf", "/etc/kubernetes/controller-manager.conf" };
	struct certs trust cleanup(certs_release) = certs_at(t, PKI "ca.crt");
	struct key *k cleanup(key_freep) = kind.bundle && !tree_has(t, PKI "ca.key") ? NULL : key_at(t, PKI "ca.key");
	assert_true(!k || cert_matches_key(old_ca.cert, k) || cert_matches_key(new_ca.cert, k));
	assert_pair(t, PKI "apiserver");
	assert_pair(t, PKI "apiserver-kubelet-client");
	for (size_t i = 0; i < ARRAY_LEN(configs); i++)
		assert_kubeconfig(t, configs[i]);
	assert_true(tree_has(t, MANAGER) || tree_has(t, ASIDE));
}

/* "path mode owner" of all that is neither ours nor dated. */
static char *looks_of(const struct tree *t)
{
	struct buf out = BUF_INIT;
	char *all cleanup(str_freep) = tree_snapshot(t);
	for (char *line = all; *line;) {
		char *end = strchr(line, '\n');
		*end = '\0';
		bool passes = strstr(line, "kubelet-client-20") || str_starts(line, "/var/lib/certrotation") || str_starts(line, OWN);
		char *third = strchr(strchr(line, ' ') + 1, ' ') + 1;
		if (!passes && *line == '/')
			buf_addf(&out, "%.*s\n", (int)(third - line + (ptrdiff_t)strcspn(third, " ")), line);
		line = end + 1;
	}
	return buf_take(&out);
}

static void assert_same_text(const char *is, const char *expected)
{
	size_t n = 0;
	while (is[n] && is[n] == expected[n])
		n++;
	if (is[n] || expected[n])
		fail_msg("\"%.120s\" instead of \"%.120s\"", is + n, expected + n);
}

static void assert_file_is(const struct tree *t, const char *path, const char *expected)
{
	char *text cleanup(str_freep) = tree_read(t, path);
	assert_non_null(text);
	assert_same_text(text, expected);
}

/* As after a rotation: everything from N, nothing of ours, the manifest as kubeadm wrote it. */
static void assert_rotated(const struct tree *t, bool control_plane)
{
	char *ca cleanup(str_freep) = pem_of(new_ca.cert), *manifest cleanup(str_freep) = fixture_text("kube-controller-manager.yaml");
	char *paths cleanup(str_freep) = tree_snapshot(t);
	assert_file_is(t, PKI "ca.crt", ca);
	assert_false(tree_has(t, OWN));
	assert_false(tree_has(t, RUN_DIR));
	assert_false(tree_has(t, KUBELET_PKI "/kubelet-client-2025-01-01-00-00-00.pem"));
	assert_true(tree_has(t, KUBELET_PKI "/kubelet-client-2024-01-01-00-00-00.pem")); /* not O's: not ours to take */
	if (strstr(paths, "/."))
		fail_msg("something is left: %.100s", strstr(paths, "/."));
	if (!control_plane)
		return;
	struct certs server cleanup(certs_release) = certs_at(t, PKI "apiserver.crt");
	struct key *k cleanup(key_freep) = key_at(t, PKI "ca.key");
	assert_true(cert_matches_key(new_ca.cert, k));
	assert_int_equal(server.n, 1);
	assert_true(cert_issued_by(server.items[0], new_ca.cert));
	assert_file_is(t, MANAGER, manifest);
	assert_whole(t);
	assert_false(tree_has(t, ASIDE));
	assert_false(tree_has(t, PKI "apiserver-kubelet-client.crt.certrotation"));
}

/* --- The whole way, stage by stage ---------------------------------------------------------------------------------------------------------- */

static const struct stage {
	enum facet facet;
	int level;
} stages[] = {
	{ FACET_SIGNER, SIGNER_OWN_OLD }, { FACET_ROOT, ROOT_OWN_BOTH },     { FACET_TRUST, TRUST_BOTH },      { FACET_SERVER_LEAF, LEAF_BRIDGE },
	{ FACET_CA_KEY, ISSUED_NEW },     { FACET_SIGNER, SIGNER_OWN_NEW },  { FACET_ADMIN, ISSUED_NEW },      { FACET_ROOT, ROOT_OWN_NEW },
	{ FACET_COMPONENTS, ISSUED_NEW }, { FACET_KUBELET, ISSUED_NEW },     { FACET_KUBELET_CLIENT, ISSUED_NEW }, { FACET_TRUST, TRUST_NEW },
	{ FACET_SIGNER, SIGNER_KUBEADM_NEW }, { FACET_ROOT, ROOT_KUBEADM_NEW }, { FACET_SERVER_LEAF, LEAF_NEW }, { FACET_CLEAN, CLEAN_YES },
};

static void converge_to(const struct tree *t, const int *levels, struct run *r)
{
	struct err e = { 0 };
	*r = run_at(t);
	memcpy(settle(r)->desired.levels, levels, sizeof(r->desired.levels));
	assert_no_blockers(r);
	assert_ok(node_converge(&r->node, &e), e);
	assert_ok(node_observe(&r->node, &e), e);
	assert_no_blockers(r);
}

static void assert_ca_matches_its_key(const struct tree *t)
{
	struct certs trust cleanup(certs_release) = certs_at(t, PKI "ca.crt");
	struct key *k cleanup(key_freep) = key_at(t, PKI "ca.key");
	assert_true(cert_matches_key(trust.items[0], k));
}

static void assert_bundle(const struct tree *t, const char *path, const struct cert *first, const struct cert *second)
{
	struct certs list cleanup(certs_release) = certs_at(t, path);
	assert_int_equal(list.n, second ? 2 : 1);
	assert_true(cert_equal(list.items[0], first));
	assert_true(!second || cert_equal(list.items[1], second));
}

static void assert_stage(const struct tree *t, const struct stage *s)
{
	if (s->facet == FACET_TRUST && s->level == TRUST_BOTH)
		assert_bundle(t, PKI "ca.crt", old_ca.cert, new_ca.cert);
	if (s->facet == FACET_ROOT && s->level == ROOT_OWN_BOTH)
		assert_bundle(t, OWN "/root.crt", old_ca.cert, new_ca.cert);
	if (s->facet == FACET_ROOT && s->level == ROOT_OWN_NEW)
		assert_bundle(t, OWN "/root.crt", new_ca.cert, NULL);
	if (s->facet == FACET_CA_KEY)
		assert_bundle(t, PKI "ca.crt", new_ca.cert, old_ca.cert);
	if (s->facet == FACET_SIGNER && (s->level == SIGNER_OWN_OLD || s->level == SIGNER_OWN_NEW)) {
		struct key *k cleanup(key_freep) = key_at(t, OWN "/signer.pem"); /* exactly one certificate, and its key */
		assert_bundle(t, OWN "/signer.pem", s->level == SIGNER_OWN_OLD ? old_ca.cert : new_ca.cert, NULL);
		assert_true(cert_matches_key(s->level == SIGNER_OWN_OLD ? old_ca.cert : new_ca.cert, k));
	}
	if (s->facet == FACET_SERVER_LEAF && s->level == LEAF_BRIDGE) {
		struct certs list cleanup(certs_release) = certs_at(t, PKI "apiserver.crt");
		assert_int_equal(list.n, 2);
		assert_true(cert_equal(list.items[1], bridge));
		assert_true(cert_issued_by(list.items[0], new_ca.cert));
	}
}

/* After each stage the level is in force, and doing it again changes nothing and restarts nothing. */
static void test_stage_by_stage(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	int levels[FACET_COUNT];
	char *looks cleanup(str_freep) = looks_of(&t);
	boot(&t);
	for (size_t f = 0; f < FACET_COUNT; f++)
		levels[f] = FACET_UNTOUCHED;
	for (size_t i = 0; i < ARRAY_LEN(stages); i++) {
		struct run once cleanup(run_release), again cleanup(run_release);
		levels[stages[i].facet] = stages[i].level;
		converge_to(&t, levels, &once);
		if (!facet_reached(once.report.levels[stages[i].facet], stages[i].level))
			fail_msg("%s is at %d instead of %d", facet_name(stages[i].facet), once.report.levels[stages[i].facet], stages[i].level);
		assert_whole(&t);
		assert_ca_matches_its_key(&t);
		assert_stage(&t, &stages[i]);
		char *before cleanup(str_freep) = tree_snapshot(&t);
		int starts = machine->starts;
		converge_to(&t, levels, &again);
		char *after cleanup(str_freep) = tree_snapshot(&t);
		assert_same_text(after, before);
		assert_int_equal(again.report.changed.n, 0);
		assert_int_equal(again.report.restarted.n, 0);
		assert_int_equal(machine->starts, starts);
	}
	assert_rotated(&t, true);
	char *looks_now cleanup(str_freep) = looks_of(&t);
	assert_same_text(looks_now, looks);
}

static const int all_the_way[FACET_COUNT] = {
	[FACET_TRUST] = TRUST_NEW,	     [FACET_SIGNER] = SIGNER_KUBEADM_NEW, [FACET_ROOT] = ROOT_KUBEADM_NEW, [FACET_CA_KEY] = ISSUED_NEW,
	[FACET_SERVER_LEAF] = LEAF_NEW,	     [FACET_KUBELET_SERVER] = LEAF_NEW,	  [FACET_COMPONENTS] = ISSUED_NEW, [FACET_ADMIN] = ISSUED_NEW,
	[FACET_KUBELET] = ISSUED_NEW,	     [FACET_KUBELET_CLIENT] = ISSUED_NEW, [FACET_CLEAN] = CLEAN_YES,
};

static void test_a_worker(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = worker_tree();
	struct run once cleanup(run_release), again cleanup(run_release);
	char *looks cleanup(str_freep) = looks_of(&t);
	boot(&t);
	converge_to(&t, all_the_way, &once);
	assert_rotated(&t, false);
	assert_kubeconfig(&t, "/etc/kubernetes/kubelet.conf");
	assert_int_equal(once.report.restarted.n, 1);
	char *before cleanup(str_freep) = tree_snapshot(&t);
	converge_to(&t, all_the_way, &again);
	char *after cleanup(str_freep) = tree_snapshot(&t), *looks_now cleanup(str_freep) = looks_of(&t);
	assert_same_text(after, before);
	assert_same_text(looks_now, looks);
	assert_int_equal(again.report.restarted.n, 0);
}

/* --- Without a bridge ----------------------------------------------------------------------------------------------------------------------- */

static const struct stage bundle_stages[] = {
	{ FACET_SIGNER, SIGNER_OWN_OLD },     { FACET_ROOT, ROOT_OWN_BOTH },	    { FACET_TRUST, TRUST_BOTH },
	{ FACET_CA_KEY, ISSUED_NEW },	      { FACET_SIGNER, SIGNER_OWN_NEW },	    { FACET_ADMIN_BOTH, ISSUED_NEW },
	{ FACET_COMPONENTS_BOTH, ISSUED_NEW }, { FACET_KUBELET_BOTH, ISSUED_NEW },  { FACET_KUBELET_CLIENT, ISSUED_NEW },
	{ FACET_SERVER_LEAF, LEAF_NEW },      { FACET_TRUST, TRUST_NEW },	    { FACET_ADMIN, ISSUED_NEW },
	{ FACET_COMPONENTS, ISSUED_NEW },     { FACET_SIGNER, SIGNER_KUBEADM_NEW }, { FACET_ROOT, ROOT_KUBEADM_NEW },
	{ FACET_KUBELET, ISSUED_NEW },	      { FACET_CLEAN, CLEAN_YES },
};
#define BEFORE_SERVERS 9 /* stages after which a run can be taken back */

/* As kubeadm makes it where the authority's key is elsewhere. */
static struct tree external_tree(void)
{
	struct tree t = control_plane_tree();
	char *key cleanup(str_freep) = tree_path(&t, PKI "ca.key");
	assert_int_equal(remove(key), 0);
	tree_edit(&t, MANAGER, "--cluster-signing-cert-file=" PKI "ca.crt", "--cluster-signing-cert-file=");
	tree_edit(&t, MANAGER, "--cluster-signing-key-file=" PKI "ca.key", "--cluster-signing-key-file=");
	return t;
}

static bool trusts(const struct tree *t, const char *path, const struct cert *ca)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct certs list cleanup(certs_release) = { 0 };
	struct err e = { 0 };
	bool found = false;
	assert_ok(kubeconfig_load(path, t->root, &c, &e), e);
	assert_ok(certs_from_pem(c.ca_pem, strlen(c.ca_pem), &list, &e), e);
	for (size_t i = 0; i < list.n; i++)
		found = found || cert_equal(list.items[i], ca);
	return found;
}

/* Who is a client here knows what the server presents, at any moment. */
static void assert_clients_know_the_server(const struct tree *t)
{
	static const char *const clients[] = { "admin.conf", "super-admin.conf", "kubelet.conf", "scheduler.conf", "controller-manager.conf" };
	struct certs server cleanup(certs_release) = certs_at(t, PKI "apiserver.crt");
	const struct cert *by = cert_issued_by(server.items[0], new_ca.cert) ? new_ca.cert : old_ca.cert;
	assert_int_equal(server.n, 1);
	for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
		char *path cleanup(str_freep) = str_printf("/etc/kubernetes/%s", clients[i]);
		if (!trusts(t, path, by))
			fail_msg("%s does not trust what the API server presents", clients[i]);
	}
}

static void walk_bundle(const struct tree *t, size_t stages_to_go)
{
	int levels[FACET_COUNT];
	for (size_t f = 0; f < FACET_COUNT; f++)
		levels[f] = FACET_UNTOUCHED;
	for (size_t i = 0; i < stages_to_go; i++) {
		const struct stage *s = &bundle_stages[i];
		struct run once cleanup(run_release), again cleanup(run_release);
		levels[s->facet] = s->level;
		converge_to(t, levels, &once);
		if (!facet_reached(once.report.levels[s->facet], s->level))
			fail_msg("stage %zu: %s is at %d instead of %d", i, facet_name(s->facet), once.report.levels[s->facet], s->level);
		assert_whole(t);
		assert_clients_know_the_server(t);
		converge_to(t, levels, &again);
		assert_int_equal(again.report.changed.n, 0);
		assert_int_equal(again.report.restarted.n, 0);
	}
}

/* The end is the same, whether O's key was here or not: N's is, and the controller-manager signs with it. */
static void test_the_way_without_a_bridge(void **state)
{
	(void)state;
	for (int external = 0; external < 2; external++) {
		struct tree t cleanup(tree_release) = external ? external_tree() : control_plane_tree();
		kind.bundle = true;
		boot(&t);
		walk_bundle(&t, ARRAY_LEN(bundle_stages));
		assert_rotated(&t, true);
		memset(&kind, 0, sizeof kind);
	}
}

/* kubeadm has renewed the API server's client certificate for another key: the drop is seen all the same. */
static void test_a_drop_after_a_new_key(void **state)
{
	(void)state;
	for (int external = 0; external < 2; external++) {
		struct tree t cleanup(tree_release) = external ? external_tree() : control_plane_tree();
		struct pair client cleanup(pair_release) = issue(&new_ca, "kube-apiserver-kubelet-client", "system:masters", false);
		kind.bundle = true;
		boot(&t);
		walk_bundle(&t, BEFORE_SERVERS);
		put_pair(&t, PKI "apiserver-kubelet-client", &client);
		walk_bundle(&t, ARRAY_LEN(bundle_stages));
		memset(&kind, 0, sizeof kind);
		assert_rotated(&t, true);
	}
}

/* "path digest" of every file but what the program keeps for itself. */
static char *holds_of(const struct tree *t)
{
	struct buf out = BUF_INIT;
	char *all cleanup(str_freep) = tree_snapshot(t);
	for (char *line = all; *line;) {
		char *end = strchr(line, '\n');
		*end = '\0';
		if (!str_starts(line, "/var/lib/certrotation"))
			buf_addf(&out, "%.*s%s\n", (int)strcspn(line, " "), line, strrchr(line, ' '));
		line = end + 1;
	}
	return buf_take(&out);
}

/* Before servers switch everything comes back byte for byte, though nothing can be signed with O's key. */
static void test_the_way_back_without_a_bridge(void **state)
{
	(void)state;
	static const struct {
		bool external;
		size_t stages_gone;
	} TURNS[] = { { true, 3 }, { true, 4 }, { true, BEFORE_SERVERS }, { false, BEFORE_SERVERS } };
	for (size_t i = 0; i < ARRAY_LEN(TURNS); i++) {
		struct tree t cleanup(tree_release) = TURNS[i].external ? external_tree() : control_plane_tree();
		char *before cleanup(str_freep) = holds_of(&t), *looks cleanup(str_freep) = looks_of(&t);
		kind.bundle = true;
		boot(&t);
		walk_bundle(&t, TURNS[i].stages_gone);
		kind.back = true;
		walk_bundle(&t, ARRAY_LEN(bundle_stages));
		memset(&kind, 0, sizeof kind);
		char *after cleanup(str_freep) = holds_of(&t), *looks_now cleanup(str_freep) = looks_of(&t);
		assert_same_text(after, before);
		assert_same_text(looks_now, looks);
	}
}

/* A key in another form than ours, and words of a person's beside the certificate: they come back, too. */
static void test_the_way_back_to_files_of_another_form(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	char *ca cleanup(str_freep) = pem_of(old_ca.cert), *key cleanup(secret_freep) = key_pem_of(old_ca.key);
	char *worded cleanup(str_freep) = str_printf("# of ours, 2019\n%s\n", ca);
	char *with_parameters cleanup(secret_freep) =
		str_printf("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n%s", key);
	tree_put(&t, PKI "ca.crt", worded);
	tree_put_mode(&t, PKI "ca.key", with_parameters, 0640);
	char *before cleanup(str_freep) = holds_of(&t);
	kind.bundle = true;
	boot(&t);
	walk_bundle(&t, BEFORE_SERVERS);
	kind.back = true;
	walk_bundle(&t, ARRAY_LEN(bundle_stages));
	memset(&kind, 0, sizeof kind);
	char *after cleanup(str_freep) = holds_of(&t);
	assert_same_text(after, before);
}

/* A copy of O's key that can't be read, or is gone, is no key that was elsewhere: an error, and the only key that there is stays. */
static void test_a_kept_key_that_is_damaged_on_the_way_back(void **state)
{
	(void)state;
	static const struct { const char *kept; enum err_kind kind; } CASES[] = { { "half a key", ERR_INPUT }, { NULL, ERR_NOT_FOUND } };
	for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
		struct tree t cleanup(tree_release) = control_plane_tree();
		struct err e = { 0 };
		char *copy cleanup(str_freep) = tree_path(&t, RUN_DIR "/backup" PKI "ca.key");
		kind.bundle = true;
		boot(&t);
		walk_bundle(&t, BEFORE_SERVERS);
		kind.back = true;
		if (CASES[i].kept)
			tree_put_mode(&t, RUN_DIR "/backup" PKI "ca.key", CASES[i].kept, 0600);
		else
			assert_int_equal(remove(copy), 0);
		char *before cleanup(str_freep) = tree_snapshot(&t);
		struct run r cleanup(run_release) = run_at(&t);
		bool acted = node_ca_key(&settle(&r)->node, AUTHORITY_KUBERNETES, &e).ok || node_signer_new(&r.node, &e).ok;
		memset(&kind, 0, sizeof kind);
		assert_false(acted);
		assert_int_equal(e.kind, CASES[i].kind);
		assert_non_null(strstr(e.message, RUN_DIR "/backup" PKI "ca.key"));
		char *after cleanup(str_freep) = tree_snapshot(&t);
		assert_same_text(after, before);
	}
}

/* A person's edit in the middle survives: only certificates and keys go back. The kubelet's are embedded here, too. */
static void test_kubeconfigs_edited_on_the_way_back(void **state)
{
	(void)state;
	static const char *const names[] = { "admin.conf", "super-admin.conf", "kubelet.conf", "scheduler.conf", "controller-manager.conf" };
	struct tree t cleanup(tree_release) = control_plane_tree();
	char *was[ARRAY_LEN(names)];
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *path cleanup(str_freep) = str_printf("/etc/kubernetes/%s", names[i]);
		was[i] = tree_read(&t, path);
	}
	kind.bundle = true;
	boot(&t);
	walk_bundle(&t, BEFORE_SERVERS);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *path cleanup(str_freep) = str_printf("/etc/kubernetes/%s", names[i]);
		tree_edit(&t, path, "https://172.18.0.9:6443", "https://10.0.0.1:443");
	}
	kind.back = true;
	walk_bundle(&t, ARRAY_LEN(bundle_stages));
	memset(&kind, 0, sizeof kind);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *path cleanup(str_freep) = str_printf("/etc/kubernetes/%s", names[i]);
		const char *at = strstr(was[i], "https://172.18.0.9:6443");
		char *expected cleanup(secret_freep) = str_printf("%.*shttps://10.0.0.1:443%s", (int)(at - was[i]), was[i],
								  at + strlen("https://172.18.0.9:6443"));
		assert_file_is(&t, path, expected);
		secret_freep(&was[i]);
	}
}

/* It would not start again, and a way back would end there. */
static void test_a_manager_that_signs_with_a_key_that_is_elsewhere(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	char *key cleanup(str_freep) = tree_path(&t, PKI "ca.key");
	assert_int_equal(remove(key), 0);
	boot(&t);
	for (int bundle = 0; bundle < 2; bundle++) {
		kind.bundle = bundle;
		struct run r cleanup(run_release) = run_at(&t);
		assert_int_equal(r.report.n_blockers, 1);
		assert_string_equal(r.report.blockers[0].code, "CAKeyMissing");
		assert_non_null(strstr(r.report.blockers[0].message, bundle ? "would not start again" : "spec.strategy to Bundle"));
	}
	kind.bundle = false;
}

/* --- Cut off ------------------------------------------------------------------------------------------------------------------------------------ */

/* In a child: as far as it gets. */
static int converge_child(const struct tree *t, const int *levels, long at)
{
	int status = 0;
	pid_t child = fork();
	if (child == 0) {
		struct run r;
		struct err e = { 0 };
		if (!begin(t, &r, &e).ok)
			_exit(1);
		memcpy(r.desired.levels, levels, sizeof(r.desired.levels));
		cut_at = at;
		bool done = node_converge(&r.node, &e).ok;
		(void)fprintf(stderr, "%s%s", done ? "" : e.message, done ? "" : "\n");
		_exit(done ? 0 : 1);
	}
	assert_true(child > 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* The machine goes down again and again, each time before the n-th change of its files: all is whole then, and in the end
 * it is as if nothing had happened. Of n there are several, so that about every change is once the one that is cut off. */
static void test_cut_off_again_and_again(void **state)
{
	(void)state;
	static const long apart[] = { 11, 17 };
	for (size_t i = 0; i < ARRAY_LEN(apart); i++) {
		struct tree t cleanup(tree_release) = control_plane_tree();
		int runs = 0;
		boot(&t);
		for (int status = CUT; status == CUT; runs++) {
			status = converge_child(&t, all_the_way, apart[i]);
			if (status != CUT && status != 0)
				fail_msg("cut after %ld changes, run %d: it failed by itself", apart[i], runs);
			assert_whole(&t);
			assert_true(runs < 100);
		}
		assert_true(runs > 5);
		assert_rotated(&t, true);
	}
}

/* In the middle of all that takes the manifest away and brings it back. */
static void test_cut_off_around_the_manifest(void **state)
{
	(void)state;
	int levels[FACET_COUNT], status = CUT;
	for (size_t f = 0; f < FACET_COUNT; f++)
		levels[f] = FACET_UNTOUCHED;
	levels[FACET_SIGNER] = SIGNER_OWN_OLD;
	levels[FACET_ROOT] = ROOT_OWN_BOTH;
	long at = 1;
	for (; status == CUT; at++) {
		struct tree t cleanup(tree_release) = control_plane_tree();
		struct run r cleanup(run_release);
		boot(&t);
		status = converge_child(&t, levels, at);
		assert_true(status == 0 || status == CUT);
		assert_whole(&t);
		converge_to(&t, levels, &r);
		assert_false(tree_has(&t, ASIDE));
		assert_int_equal(r.report.levels[FACET_ROOT], ROOT_OWN_BOTH);
		assert_true(machine->process[PROCESS_CONTROLLER_MANAGER].pid);
	}
	assert_true(at > 15);
}

/* Half a file under a temporary name is of no interest to anybody, and goes. Others' files stay. */
static void test_what_is_left_beside(void **state)
{
	(void)state;
	static const char *const left[] = { PKI ".ca.key.certrotation-a1B2c3", PKI ".ca.crt.certrotation-ZZZZZZ",
					    PKI ".apiserver.crt.certrotation-000000", OWN "/.signer.pem.certrotation-abcdef",
					    "/etc/kubernetes/.admin.conf.certrotation-abcdef",
					    "/etc/kubernetes/..certrotation-kube-controller-manager.yaml.certrotation-abcdef",
					    "/etc/kubernetes/.kubelet.conf.certrotation-abcdef",
					    KUBELET_PKI "/.kubelet-client-2026-01-01-00-00-00.pem.certrotation-abcdef",
					    KUBELET_PKI "/.kubelet-client-current.pem.certrotation-0123456789abcdef",
					    PKI "apiserver-kubelet-client.crt.certrotation",
					    PKI ".apiserver-kubelet-client.crt.certrotation.certrotation-abcdef" };
	static const char *const kept[] = { PKI ".ca.key.swp", PKI ".ca.key.certrotation-a1B2c3d", PKI ".ca.key.certrotation-a1B2c",
					    PKI "ca.key.certrotation-a1B2c3", PKI ".ca.key.certrotation-a1-2c3", PKI ".sa.key.a1B2c3", PKI ".ca.key",
					    KUBELET_PKI "/.kubelet.crt.a1B2c3" };
	struct tree t cleanup(tree_release) = control_plane_tree();
	for (size_t i = 0; i < ARRAY_LEN(left); i++)
		tree_put(&t, left[i], "-----BEGIN EC PRIVATE KEY-----\nMHcC");
	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		tree_put(&t, kept[i], "kept");
	boot(&t);
	struct run r cleanup(run_release) = run_at(&t);
	settle(&r);
	for (size_t i = 0; i < ARRAY_LEN(left); i++)
		if (tree_has(&t, left[i]))
			fail_msg("%s is left", left[i]);
	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		assert_file_is(&t, kept[i], "kept");
}

/* --- What is refused ---------------------------------------------------------------------------------------------------------------------------- */

typedef result (*action)(struct node *n, struct err *e);

static result trust_new(struct node *n, struct err *e)
{
	return node_trust(n, AUTHORITY_KUBERNETES, TRUST_NEW, e);
}

static result admin(struct node *n, struct err *e)
{
	return node_admin(n, false, e);
}

static result ca_key(struct node *n, struct err *e)
{
	return node_ca_key(n, AUTHORITY_KUBERNETES, e);
}

/* Each before its time: an error, and not a byte is changed. */
static void test_not_before_its_time(void **state)
{
	(void)state;
	static const struct { action act; enum err_kind kind; } cases[] = {
		{ trust_new, ERR_CONFLICT }, { ca_key, ERR_CONFLICT }, { node_kubeadm_flags, ERR_CONFLICT }, { node_clean, ERR_CONFLICT },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct tree t cleanup(tree_release) = control_plane_tree();
		struct err e = { 0 };
		boot(&t);
		struct run r cleanup(run_release) = run_at(&t);
		char *before cleanup(str_freep) = tree_snapshot(&t);
		assert_false(cases[i].act(&settle(&r)->node, &e).ok);
		assert_int_equal(e.kind, cases[i].kind);
		char *after cleanup(str_freep) = tree_snapshot(&t);
		assert_same_text(after, before);
	}
}

/* N's key is not mounted, or it is another's. */
static void test_without_the_new_key(void **state)
{
	(void)state;
	static const action acts[] = { node_server_leaf, node_signer_new, admin, ca_key };
	char *wrong cleanup(secret_freep) = key_pem_of(third_ca.key);
	for (size_t i = 0; i < 2 * ARRAY_LEN(acts); i++) {
		struct tree t cleanup(tree_release) = control_plane_tree();
		struct err e = { 0 };
		boot(&t);
		if (i % 2)
			tree_put_mode(&t, NEW_KEY, wrong, 0600);
		struct run r cleanup(run_release) = run_at(&t);
		if (!(i % 2))
			settle(&r)->node.new_key_dir = "/nowhere";
		char *before cleanup(str_freep) = tree_snapshot(&t);
		assert_false(acts[i / 2](&settle(&r)->node, &e).ok);
		assert_int_equal(e.kind, ERR_NOT_FOUND);
		char *after cleanup(str_freep) = tree_snapshot(&t);
		assert_same_text(after, before);
	}
}

static void test_blocked_nothing_is_touched(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	struct err e = { 0 };
	tree_edit(&t, MANAGER, "    - --root-ca-file=/etc/kubernetes/pki/ca.crt\n", "");
	boot(&t);
	struct run r cleanup(run_release) = run_at(&t);
	memcpy(settle(&r)->desired.levels, all_the_way, sizeof(all_the_way));
	char *before cleanup(str_freep) = tree_snapshot(&t);
	assert_true(r.report.n_blockers > 0);
	assert_ok(node_converge(&r.node, &e), e);
	char *after cleanup(str_freep) = tree_snapshot(&t);
	assert_same_text(after, before);
}

/* What begins to block in the middle stops what would come next. */
static void test_blocked_in_the_middle(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	struct err e = { 0 };
	boot(&t);
	struct run r cleanup(run_release) = run_at(&t);
	memcpy(settle(&r)->desired.levels, all_the_way, sizeof(all_the_way));
	assert_no_blockers(&r);
	machine->spoils = true;
	assert_ok(node_converge(&r.node, &e), e);
	assert_true(r.report.n_blockers > 0);
	assert_string_equal(r.report.blockers[0].code, "UnreadableFile");
	assert_file_is(&t, PKI "ca.crt", "half a file");
}

/* Somebody who reads the file more often than once a second: no moment is quiet, and the deadline holds all the same. */
static void test_no_quiet_moment_before_the_deadline(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	boot(&t);
	struct run r cleanup(run_release) = run_at(&t);
	settle(&r)->node.until_ms = clock_monotonic_ms() + 200;
	r.node.layout.kubelet_port = 1; /* nobody's */
	pid_t reader = fork();
	for (int64_t end = clock_monotonic_ms() + 20000; reader == 0; usleep(100000)) {
		char *text cleanup(str_freep) = tree_read(&t, PKI "apiserver-kubelet-client.crt");
		if (clock_monotonic_ms() > end)
			_exit(0);
	}
	assert_true(reader > 0);
	node_await_quiet(&r.node, NULL);
	int status = 0;
	assert_int_equal(waitpid(reader, &status, WNOHANG), 0); /* it reads on */
	assert_int_equal(kill(reader, SIGKILL), 0);
	assert_int_equal(waitpid(reader, &status, 0), reader);
}

/* An API server that does not take its new certificate up is waited for, and named. */
static void test_not_taken_up(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	struct err e = { 0 };
	boot(&t);
	machine->silent = true;
	struct run r cleanup(run_release) = run_at(&t);
	settle(&r)->node.until_ms = clock_monotonic_ms() + 300;
	assert_false(node_server_leaf(&r.node, &e).ok);
	assert_int_equal(e.kind, ERR_TIMEOUT);
	assert_non_null(strstr(e.message, "kube-apiserver"));
}

static result trust_both(struct node *n, struct err *e)
{
	return node_trust(n, AUTHORITY_KUBERNETES, TRUST_BOTH, e);
}

/* Also when nobody looks first whether it must be done: the same files, with the same times, by which restarts are judged. */
static void test_an_action_done_twice(void **state)
{
	(void)state;
	static const action acts[] = { node_own_signer, trust_both, node_server_leaf, ca_key, node_signer_new, admin };
	struct tree t cleanup(tree_release) = control_plane_tree();
	struct err e = { 0 };
	boot(&t);
	struct run r cleanup(run_release) = run_at(&t);
	settle(&r);
	for (size_t i = 0; i < ARRAY_LEN(acts); i++) {
		assert_ok(acts[i](&r.node, &e), e);
		char *before cleanup(str_freep) = tree_snapshot(&t);
		int starts = machine->starts;
		assert_ok(acts[i](&r.node, &e), e);
		char *after cleanup(str_freep) = tree_snapshot(&t);
		assert_same_text(after, before);
		assert_int_equal(machine->starts, starts);
	}
}

/* --- Other ways ----------------------------------------------------------------------------------------------------------------------------------- */

/* kubeadm has renewed the leaf in the middle: the same leaf, with X behind it again. */
static void test_a_leaf_that_kubeadm_renewed(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	struct err e = { 0 };
	struct pair renewed cleanup(pair_release) = issue(&new_ca, "kube-apiserver", NULL, true);
	put_pair(&t, PKI "apiserver", &renewed);
	boot(&t);
	struct run r cleanup(run_release) = run_at(&t);
	assert_int_equal(settle(&r)->report.levels[FACET_SERVER_LEAF], LEAF_OLD);
	assert_ok(node_server_leaf(&r.node, &e), e);
	assert_int_equal(r.report.levels[FACET_SERVER_LEAF], LEAF_BRIDGE);
	char *x cleanup(str_freep) = pem_of(bridge), *both cleanup(str_freep) = str_printf("%s%s", renewed.cert, x);
	assert_file_is(&t, PKI "apiserver.crt", both);
}

/* kubeadm has renewed the leaf for another key, and the run goes back: the leaf that was kept is not for that key. */
static void test_back_to_another_key(void **state)
{
	(void)state;
	static const struct { action act; const char *base; bool server; } CASES[] = {
		{ node_server_leaf, PKI "apiserver", true },
		{ node_kubelet_client, PKI "apiserver-kubelet-client", false },
	};
	for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
		struct tree t cleanup(tree_release) = control_plane_tree();
		struct pair renewed cleanup(pair_release) = issue(&new_ca, "renewed", NULL, CASES[i].server);
		char *crt cleanup(str_freep) = str_printf("%s.crt", CASES[i].base);
		struct err e = { 0 };
		boot(&t);
		struct run forth cleanup(run_release) = run_at(&t);
		assert_ok(CASES[i].act(&settle(&forth)->node, &e), e);
		put_pair(&t, CASES[i].base, &renewed);
		kind.back = true;
		struct run back cleanup(run_release) = run_at(&t);
		kind.back = false;
		assert_ok(CASES[i].act(&settle(&back)->node, &e), e);
		struct certs now cleanup(certs_release) = certs_at(&t, crt);
		assert_true(cert_issued_by(now.items[0], old_ca.cert));
		assert_pair(&t, CASES[i].base);
	}
}

static void test_without_a_bridge_leaves_are_bare(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	struct err e = { 0 };
	boot(&t);
	struct run r cleanup(run_release) = run_at(&t);
	cert_freep(&settle(&r)->node.of[AUTHORITY_KUBERNETES].bridge);
	assert_ok(node_server_leaf(&r.node, &e), e);
	struct certs list cleanup(certs_release) = certs_at(&t, PKI "apiserver.crt");
	assert_int_equal(list.n, 1);
	assert_true(cert_issued_by(list.items[0], new_ca.cert));
	assert_int_equal(r.report.levels[FACET_SERVER_LEAF], LEAF_NEW);
}

/* What an abandoned run has left does not count. */
static void test_a_signer_of_another_run(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	struct err e = { 0 };
	char *cert cleanup(str_freep) = pem_of(third_ca.cert), *key cleanup(secret_freep) = key_pem_of(third_ca.key);
	char *both cleanup(secret_freep) = str_printf("%s%s", cert, key);
	tree_put_mode(&t, OWN "/signer.pem", both, 0600);
	tree_put(&t, OWN "/root.crt", cert);
	boot(&t);
	struct run r cleanup(run_release) = run_at(&t);
	assert_ok(node_own_signer(&settle(&r)->node, &e), e);
	assert_bundle(&t, OWN "/signer.pem", old_ca.cert, NULL);
	assert_bundle(&t, OWN "/root.crt", old_ca.cert, new_ca.cert);
}

/* As `kubeadm join --control-plane` leaves a node when it was given ca.crt and ca.key as they are once N signs. */
static struct tree joined_tree(void)
{
	struct tree t = control_plane_tree();
	static const char *const confs[] = { "admin", "super-admin", "controller-manager", "scheduler" };
	struct pair server cleanup(pair_release) = issue(&new_ca, "kube-apiserver", NULL, true);
	struct pair client cleanup(pair_release) = issue(&new_ca, "kube-apiserver-kubelet-client", "system:masters", false);
	char *old cleanup(str_freep) = pem_of(old_ca.cert), *new cleanup(str_freep) = pem_of(new_ca.cert);
	char *both cleanup(str_freep) = str_printf("%s%s", new, old), *key cleanup(secret_freep) = key_pem_of(new_ca.key);
	tree_put(&t, PKI "ca.crt", both);
	tree_put_mode(&t, PKI "ca.key", key, 0600);
	put_pair(&t, PKI "apiserver", &server);
	put_pair(&t, PKI "apiserver-kubelet-client", &client);
	for (size_t i = 0; i < ARRAY_LEN(confs); i++) {
		struct pair p cleanup(pair_release) = issue(&new_ca, confs[i], NULL, false);
		char *path cleanup(str_freep) = str_printf("/etc/kubernetes/%s.conf", confs[i]);
		struct buf text cleanup(buf_release) = BUF_SECRET;
		kubeconfig_write("kubernetes", "https://172.18.0.9:6443", confs[i], new, p.cert, p.key, &text);
		tree_put_mode(&t, path, buf_str(&text), 0600);
	}
	return t;
}

/* O's key has never been there, and is not missed: the controller-manager signs with N from its first signer on. */
static void test_a_control_plane_that_joins_once_n_signs(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = joined_tree();
	struct run signer cleanup(run_release), leaf cleanup(run_release), last cleanup(run_release);
	int levels[FACET_COUNT];
	for (size_t f = 0; f < FACET_COUNT; f++)
		levels[f] = FACET_UNTOUCHED;
	levels[FACET_SIGNER] = SIGNER_OWN_OLD;
	levels[FACET_ROOT] = ROOT_OWN_BOTH;
	boot(&t);
	converge_to(&t, levels, &signer);
	assert_bundle(&t, OWN "/signer.pem", new_ca.cert, NULL);
	assert_bundle(&t, OWN "/root.crt", old_ca.cert, new_ca.cert);
	assert_int_equal(signer.report.levels[FACET_SIGNER], SIGNER_OWN_NEW);
	assert_int_equal(signer.report.levels[FACET_SERVER_LEAF], LEAF_OLD); /* bare: who trusts O alone can't verify it */
	levels[FACET_SERVER_LEAF] = LEAF_BRIDGE;
	converge_to(&t, levels, &leaf);
	struct certs server cleanup(certs_release) = certs_at(&t, PKI "apiserver.crt");
	assert_int_equal(server.n, 2);
	assert_true(cert_equal(server.items[1], bridge));
	converge_to(&t, all_the_way, &last);
	assert_rotated(&t, true);
}

/* Given ca.crt in the other order: kubeadm would sign with the first certificate, and the key is the second one's. */
static void test_a_control_plane_that_joins_with_the_order_wrong(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = joined_tree();
	struct run signer cleanup(run_release), key cleanup(run_release);
	int levels[FACET_COUNT];
	char *old cleanup(str_freep) = pem_of(old_ca.cert), *new cleanup(str_freep) = pem_of(new_ca.cert);
	char *both cleanup(str_freep) = str_printf("%s%s", old, new);
	tree_put(&t, PKI "ca.crt", both);
	for (size_t f = 0; f < FACET_COUNT; f++)
		levels[f] = FACET_UNTOUCHED;
	levels[FACET_SIGNER] = SIGNER_OWN_OLD;
	levels[FACET_ROOT] = ROOT_OWN_BOTH;
	levels[FACET_TRUST] = TRUST_BOTH;
	boot(&t);
	converge_to(&t, levels, &signer);
	assert_bundle(&t, OWN "/signer.pem", new_ca.cert, NULL);
	assert_int_equal(signer.report.levels[FACET_CA_KEY], ISSUED_OLD);
	levels[FACET_CA_KEY] = ISSUED_NEW;
	converge_to(&t, levels, &key);
	assert_bundle(&t, PKI "ca.crt", new_ca.cert, old_ca.cert);
	assert_int_equal(key.report.levels[FACET_CA_KEY], ISSUED_NEW);
}

/* The way back needs O's key there: it says so, and goes on once it was copied. */
static void test_a_control_plane_that_joined_on_the_way_back(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = joined_tree();
	struct err e = { 0 };
	char *given cleanup(str_freep) = tree_path(&t, NEW_KEY), *key cleanup(secret_freep) = key_pem_of(old_ca.key);
	assert_int_equal(remove(given), 0);
	boot(&t);
	kind.back = true;
	struct run r cleanup(run_release) = run_at(&t);
	assert_false(ca_key(&settle(&r)->node, &e).ok);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
	assert_non_null(strstr(e.message, RUN_DIR "/backup" PKI "ca.key from another control plane"));
	tree_put_mode(&t, RUN_DIR "/backup" PKI "ca.key", key, 0600);
	assert_ok(ca_key(&r.node, &e), e);
	kind.back = false;
	assert_int_equal(r.report.levels[FACET_CA_KEY], ISSUED_NEW);
}

/* A person's edit in the middle survives: only the three flags go back. */
static void test_a_manifest_edited_in_the_middle(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	struct run first cleanup(run_release), last cleanup(run_release);
	int levels[FACET_COUNT];
	char *text cleanup(str_freep) = fixture_text("kube-controller-manager.yaml");
	for (size_t f = 0; f < FACET_COUNT; f++)
		levels[f] = FACET_UNTOUCHED;
	levels[FACET_SIGNER] = SIGNER_OWN_OLD;
	levels[FACET_ROOT] = ROOT_OWN_BOTH;
	boot(&t);
	converge_to(&t, levels, &first);
	tree_edit(&t, MANAGER, "    - --leader-elect=true\n", "    - --leader-elect=true # by hand\n    - --v=4\n");
	converge_to(&t, all_the_way, &last);
	const char *at = strstr(text, "    - --leader-elect=true\n");
	char *expected cleanup(str_freep) = str_printf("%.*s    - --leader-elect=true # by hand\n    - --v=4\n%s", (int)(at - text), text,
						       at + strlen("    - --leader-elect=true\n"));
	assert_file_is(&t, MANAGER, expected);
}

static void test_without_administrators_kubeconfigs(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane_tree();
	struct err e = { 0 };
	char *admin cleanup(str_freep) = tree_path(&t, "/etc/kubernetes/admin.conf"), *super cleanup(str_freep) = tree_path(&t, "/etc/kubernetes/super-admin.conf");
	assert_int_equal(remove(admin) | remove(super), 0);
	boot(&t);
	struct run r cleanup(run_release) = run_at(&t);
	assert_ok(node_admin(&settle(&r)->node, false, &e), e);
	assert_int_equal(r.report.levels[FACET_ADMIN], ISSUED_NEW);
	assert_false(tree_has(&t, "/etc/kubernetes/admin.conf"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stage_by_stage),
		cmocka_unit_test(test_a_worker),
		cmocka_unit_test(test_what_is_left_beside),
		cmocka_unit_test(test_not_before_its_time),
		cmocka_unit_test(test_without_the_new_key),
		cmocka_unit_test(test_blocked_nothing_is_touched),
		cmocka_unit_test(test_blocked_in_the_middle),
		cmocka_unit_test(test_no_quiet_moment_before_the_deadline),
		cmocka_unit_test(test_not_taken_up),
		cmocka_unit_test(test_an_action_done_twice),
		cmocka_unit_test(test_a_leaf_that_kubeadm_renewed),
		cmocka_unit_test(test_back_to_another_key),
		cmocka_unit_test(test_without_a_bridge_leaves_are_bare),
		cmocka_unit_test(test_a_signer_of_another_run),
		cmocka_unit_test(test_a_manifest_edited_in_the_middle),
		cmocka_unit_test(test_a_control_plane_that_joins_once_n_signs),
		cmocka_unit_test(test_a_control_plane_that_joins_with_the_order_wrong),
		cmocka_unit_test(test_a_control_plane_that_joined_on_the_way_back),
		cmocka_unit_test(test_without_administrators_kubeconfigs),
		cmocka_unit_test(test_the_way_without_a_bridge),
		cmocka_unit_test(test_a_drop_after_a_new_key),
		cmocka_unit_test(test_the_way_back_without_a_bridge),
		cmocka_unit_test(test_the_way_back_to_files_of_another_form),
		cmocka_unit_test(test_a_kept_key_that_is_damaged_on_the_way_back),
		cmocka_unit_test(test_kubeconfigs_edited_on_the_way_back),
		cmocka_unit_test(test_a_manager_that_signs_with_a_key_that_is_elsewhere),
		cmocka_unit_test(test_cut_off_again_and_again),
		cmocka_unit_test(test_cut_off_around_the_manifest),
	};
	return cmocka_run_group_tests(tests, make_world, drop_world);
}
