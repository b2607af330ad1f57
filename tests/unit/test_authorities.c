/* LINK: node kube rotation */
/* The front proxy's and etcd's authorities on a control plane: files, who restarts in which order, and who is asked before. Processes,
 * etcd, the API server and the gate are stood for by what is in memory here (linked without process.c and the remote_*.c files). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "file.h"
#include "gate.h"
#include "node.h"
#include "service.h"
#include "sockets.h"
#include "pki_fixture.h"
#include "tree.h"

#define PKI "/etc/kubernetes/pki/"
#define KEYS "/run/certrotation/authority"
#define RUN_DIR "/var/lib/certrotation/run-1"
#define FIRST_URL "https://127.0.0.1:2379"
#define OTHER_URL "https://172.18.0.8:2379"

#define assert_ok(expr, e)                                      \
	do {                                                    \
		if (!(expr).ok)                                 \
			fail_msg("%s: %s", #expr, (e).message); \
	} while (0)

/* --- What the node program sees of the machine ------------------------------------------------------------------------------------ */

static struct machine {
	struct { pid_t pid; int64_t started_ms; } process[PROCESS_COUNT];
	int starts;
	const struct tree *tree;
	struct buf log;       /* what was done to whom, in order */
	const char *leader;   /* the member's id; "1" is this one */
	bool alone;           /* one member only */
	const char *ill;      /* a member's URL that is not healthy */
	bool no_gate;
	int under_way;        /* calls in etcd that are not answered yet */
	unsigned unread;      /* then, looks at which a request on its connection is not read yet */
	unsigned waiting;     /* looks at which a connection is not accepted yet */
	char *proxies;        /* front proxies that the API server has taken up; NULL: what the file holds */
} machine;

static void note(const char *what, const char *who)
{
	buf_addf(&machine.log, "%s%s %s", machine.log.len ? "; " : "", what, who);
}

static void start(enum process p)
{
	node_rest(PROCESS_TICK_MS + 10); /* more than a tick after what was written */
	machine.process[p].pid = 1000 + ++machine.starts;
	machine.process[p].started_ms = clock_now_ms();
}

static enum process process_of(pid_t pid)
{
	size_t p = 0;
	while (p < PROCESS_COUNT && machine.process[p].pid != pid)
		p++;
	return (enum process)p;
}

void process_release(struct process_seen *p)
{
	strs_release(&p->args);
	*p = (struct process_seen){ 0 };
}

result process_find(const char *name, bool in_pod UNUSED, bool *ret_found, struct process_seen *ret, struct err *e UNUSED)
{
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		if (str_eq(process_name((enum process)p), name))
			*ret = (struct process_seen){ .pid = machine.process[p].pid, .started_ms = machine.process[p].started_ms };
	*ret_found = ret->pid != 0;
	return OK;
}

bool process_younger(const struct process_seen *p, int64_t than_ms)
{
	return p->pid && p->started_ms > than_ms + PROCESS_TICK_MS;
}

bool process_pod_alive(const char *pod_uid UNUSED)
{
	return false;
}

bool process_alive(const struct process_seen *p)
{
	return process_of(p->pid) < PROCESS_COUNT;
}

/* etcd ends at once, and both are there again; the API server holds on. */
result process_terminate(const struct process_seen *p, struct err *e UNUSED)
{
	enum process which = process_of(p->pid);
	assert_true(which == PROCESS_ETCD || which == PROCESS_APISERVER);
	assert_int_equal(machine.waiting, 0);
	note("TERM", process_name(which));
	if (which != PROCESS_ETCD)
		return OK;
	start(PROCESS_ETCD);
	start(PROCESS_APISERVER); /* its container was started anew before, and could not go on without etcd */
	return OK;
}

result process_kill(const struct process_seen *p, struct err *e UNUSED)
{
	enum process which = process_of(p->pid);
	assert_int_equal(which, PROCESS_APISERVER);
	assert_int_equal(machine.under_way, 0);
	assert_int_equal(machine.unread, 0);
	note("KILL", process_name(which));
	machine.process[which].pid = 0;
	return OK;
}

const char *process_flag(const struct process_seen *p UNUSED, const char *name UNUSED)
{
	return NULL;
}

result process_each_container(void (*each)(void *context, const char *pod_uid, const char *container_id, int64_t started_ms) UNUSED,
			      void *context UNUSED, struct err *e UNUSED)
{
	return OK;
}

result service_restart(const char *unit, int64_t timeout_ms UNUSED, struct err *e UNUSED)
{
	fail_msg("%s is restarted", unit);
	return OK;
}

result gate_shut(int port, int seconds, struct gate **ret, struct err *e)
{
	char text[32];
	if (machine.no_gate)
		return err_set(e, ERR_OTHER, "no netfilter here");
	assert_true(seconds > 10 && seconds < 120);
	(void)snprintf(text, sizeof text, "%d", port);
	note("shut", text);
	*ret = (struct gate *)&machine;
	return OK;
}

/* Requests under way are seen on their connections after etcd has answered them. */
result sockets_look(int port UNUSED, struct sockets_seen *ret, struct err *e UNUSED)
{
	*ret = (struct sockets_seen){ .established = 3, .unread = !machine.under_way && machine.unread ? machine.unread-- : 0,
				      .waiting = machine.waiting ? machine.waiting-- : 0 };
	return OK;
}

result gate_rehearse(struct err *e)
{
	return machine.no_gate ? err_set(e, ERR_OTHER, "no netfilter here") : OK;
}

void gate_openp(struct gate **g)
{
	if (*g)
		note("open", "it");
	*g = NULL;
}

bool remote_available(void)
{
	return true;
}

result remote_answers(const char *host, int port, const char *path, long *ret_status, struct err *e UNUSED)
{
	assert_string_equal(host, "127.0.0.1");
	assert_int_equal(port, 6443);
	assert_string_equal(path, "/readyz");
	*ret_status = 200;
	return OK;
}

result remote_presented(const char *host UNUSED, int port UNUSED, char **ret_pem UNUSED, struct err *e)
{
	return err_set(e, ERR_IO, "nobody asks");
}

result remote_sign_kubelet(const struct remote_identity *id UNUSED, const char *node UNUSED, const char *csr_pem UNUSED, bool rsa UNUSED,
			   int64_t until_ms UNUSED, char **ret_cert_pem UNUSED, struct err *e)
{
	return err_set(e, ERR_IO, "nobody asks");
}

result remote_kubelet_looks(const struct remote_identity *id UNUSED, int port UNUSED, int64_t *ret_begun UNUSED, int64_t *ret_ended UNUSED,
			    struct err *e)
{
	return err_set(e, ERR_IO, "nobody asks");
}

struct remote_dialer *remote_dialer_new(const struct remote_identity *id UNUSED)
{
	return NULL;
}

void remote_dialer_freep(struct remote_dialer **d UNUSED)
{
}

result remote_dial(struct remote_dialer *d UNUSED, const char *node UNUSED, bool *ret_good UNUSED, struct err *e)
{
	return err_set(e, ERR_IO, "nobody asks");
}

/* As the API server does: whoever is in the file that it has read. */
result remote_proxy_trusted(const char *host UNUSED, int port, const char *cert_pem, const char *key_pem, bool *ret_trusted, struct err *e)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct key *k cleanup(key_freep) = NULL;
	char *now cleanup(str_freep) = machine.proxies ? str_dup(machine.proxies) : tree_read(machine.tree, PKI "front-proxy-ca.crt");
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

/* As the API server does: whoever is in the file that it has read. */
result remote_client_authorities(const char *host UNUSED, int port UNUSED, struct strs *ret, struct err *e)
{
	struct certs list cleanup(certs_release) = { 0 };
	char *now cleanup(str_freep) = machine.proxies ? str_dup(machine.proxies) : tree_read(machine.tree, PKI "front-proxy-ca.crt");
	TRY(certs_from_pem(now, strlen(now), &list, e));
	for (size_t i = 0; i < list.n; i++) {
		char *digest cleanup(str_freep) = cert_subject_digest(list.items[i]);
		strs_add(ret, digest);
	}
	return OK;
}

result remote_client_trusted(const char *host UNUSED, int port UNUSED, const char *cert_pem UNUSED, const char *key_pem UNUSED,
			     bool *ret_trusted UNUSED, struct err *e)
{
	return err_set(e, ERR_IO, "nobody asks");
}

result remote_etcd_health(const struct remote_identity *id, struct err *e)
{
	return str_eq(id->server, machine.ill) ? err_set(e, ERR_IO, "%s is not healthy", id->server) : OK;
}

void remote_etcd_view_release(struct remote_etcd_view *v)
{
	str_freep(&v->member);
	str_freep(&v->leader);
	strs_release(&v->ids);
	strs_release(&v->urls);
}

result remote_etcd_look(const struct remote_identity *id, struct remote_etcd_view *ret, struct err *e UNUSED)
{
	assert_string_equal(id->server, FIRST_URL);
	*ret = (struct remote_etcd_view){ .member = str_dup("1"), .leader = str_dup(machine.leader) };
	strs_add(&ret->ids, "1");
	strs_add(&ret->urls, FIRST_URL);
	if (machine.alone)
		return OK;
	strs_add(&ret->ids, "2");
	strs_add(&ret->urls, OTHER_URL);
	return OK;
}

result remote_etcd_hand_over(const struct remote_identity *id UNUSED, const char *to, struct err *e UNUSED)
{
	note("lead", to);
	machine.leader = "2";
	return OK;
}

result remote_etcd_calls(const struct remote_identity *id UNUSED, int64_t *ret_begun, int64_t *ret_under_way, struct err *e UNUSED)
{
	*ret_begun = 7;
	*ret_under_way = machine.under_way ? machine.under_way-- : 0;
	return OK;
}

/* --- A control plane ---------------------------------------------------------------------------------------------------------------- */

static const enum authority ROTATED[] = { AUTHORITY_FRONT_PROXY, AUTHORITY_ETCD };
static const struct { const char *base; enum authority of; bool server; } LEAVES[] = {
	{ PKI "front-proxy-client", AUTHORITY_FRONT_PROXY, false },
	{ PKI "etcd/server", AUTHORITY_ETCD, true },
	{ PKI "etcd/peer", AUTHORITY_ETCD, true },
	{ PKI "etcd/healthcheck-client", AUTHORITY_ETCD, false },
	{ PKI "apiserver-etcd-client", AUTHORITY_ETCD, false },
};
static struct { struct cert *old, *new, *bridge, *back; struct key *old_key, *new_key; } cas[AUTHORITY_COUNT];

static void make_authority(enum authority a)
{
	struct err e = { 0 };
	const int64_t now = clock_now_ms();
	struct ca_request q = { .common_name = authority_common_name(a), .unique = "old", .now_ms = now, .validity_ms = 100 * DAY_MS };
	assert_ok(key_generate("ECDSA-P256", &cas[a].old_key, &e), e);
	assert_ok(key_generate("ECDSA-P256", &cas[a].new_key, &e), e);
	assert_ok(ca_make(&q, cas[a].old_key, &cas[a].old, &e), e);
	q.unique = "new";
	assert_ok(ca_make(&q, cas[a].new_key, &cas[a].new, &e), e);
	assert_ok(ca_cross_sign(cas[a].new, cas[a].old, cas[a].old_key, now, &cas[a].bridge, &e), e);
	assert_ok(ca_cross_sign(cas[a].old, cas[a].new, cas[a].new_key, now, &cas[a].back, &e), e);
}

static int make_authorities(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(ROTATED); i++)
		make_authority(ROTATED[i]);
	return 0;
}

static int drop_authorities(void **state UNUSED)
{
	for (size_t a = 0; a < AUTHORITY_COUNT; a++) {
		cert_freep(&cas[a].old);
		cert_freep(&cas[a].new);
		cert_freep(&cas[a].bridge);
		cert_freep(&cas[a].back);
		key_freep(&cas[a].old_key);
		key_freep(&cas[a].new_key);
	}
	buf_release(&machine.log);
	return 0;
}

static void put_cert(const struct tree *t, const char *path, const struct cert *c)
{
	struct buf pem cleanup(buf_release) = BUF_INIT;
	cert_to_pem(c, &pem);
	tree_put(t, path, buf_str(&pem));
}

static void put_key(const struct tree *t, const char *path, const struct key *k)
{
	struct buf pem cleanup(buf_release) = BUF_SECRET;
	key_to_pem(k, &pem);
	tree_put_mode(t, path, buf_str(&pem), 0600);
}

/* With a key of its own. from_new: as kubeadm renews it once N's key is there. */
static void put_leaf(const struct tree *t, size_t which, bool from_new)
{
	struct err e = { 0 };
	struct key *k cleanup(key_freep) = NULL;
	struct cert *c cleanup(cert_freep) = NULL;
	static const char *const NAMES[] = { "localhost" };
	enum authority a = LEAVES[which].of;
	bool server = LEAVES[which].server;
	char *crt cleanup(str_freep) = str_printf("%s.crt", LEAVES[which].base), *key cleanup(str_freep) = str_printf("%s.key", LEAVES[which].base);
	const struct leaf_request q = { .common_name = "front-proxy-client", .client = true, .server = server, .dns_names = NAMES,
					.n_dns_names = server, .now_ms = clock_now_ms(), .validity_ms = 10 * DAY_MS };
	assert_ok(key_generate("ECDSA-P256", &k, &e), e);
	assert_ok(leaf_make(&q, k, from_new ? cas[a].new : cas[a].old, from_new ? cas[a].new_key : cas[a].old_key, &c, &e), e);
	put_cert(t, crt, c);
	put_key(t, key, k);
}

static struct tree control_plane(void)
{
	static const char *const NAMES[] = { "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml", "etcd.yaml" };
	struct tree t = tree_new();
	char *config cleanup(str_freep) = fixture_text("kubelet-config.yaml");
	for (size_t i = 0; i < ARRAY_LEN(NAMES); i++) {
		char *path cleanup(str_freep) = str_printf("/etc/kubernetes/manifests/%s", NAMES[i]), *text cleanup(str_freep) = fixture_text(NAMES[i]);
		tree_put(&t, path, text);
	}
	tree_put(&t, "/var/lib/kubelet/config.yaml", config);
	put_cert(&t, PKI "front-proxy-ca.crt", cas[AUTHORITY_FRONT_PROXY].old);
	put_key(&t, PKI "front-proxy-ca.key", cas[AUTHORITY_FRONT_PROXY].old_key);
	put_cert(&t, PKI "etcd/ca.crt", cas[AUTHORITY_ETCD].old);
	put_key(&t, PKI "etcd/ca.key", cas[AUTHORITY_ETCD].old_key);
	put_key(&t, KEYS "/FrontProxy.key", cas[AUTHORITY_FRONT_PROXY].new_key);
	put_key(&t, KEYS "/Etcd.key", cas[AUTHORITY_ETCD].new_key);
	for (size_t i = 0; i < ARRAY_LEN(LEAVES); i++)
		put_leaf(&t, i, false);
	return t;
}

static void boot(const struct tree *t)
{
	buf_release(&machine.log);
	machine = (struct machine){ .tree = t, .leader = "2" };
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		start((enum process)p);
}

/* --- The node program ------------------------------------------------------------------------------------------------------------------ */

struct run {
	struct desired desired;
	struct report report;
	struct node node;
	char *keys;
};

static void run_release(struct run *r)
{
	node_release(&r->node);
	report_release(&r->report);
	desired_release(&r->desired);
	str_freep(&r->keys);
}

/* r stays where it is: pointers into it are kept. */
static void begin(const struct tree *t, bool back, struct run *r)
{
	struct err e = { 0 };
	memset(r, 0, sizeof *r);
	for (size_t f = 0; f < FACET_COUNT; f++)
		r->desired.levels[f] = FACET_UNTOUCHED;
	r->desired.run = str_dup("run-1");
	r->desired.asked = AUTHORITY_ETCD;
	r->keys = tree_path(t, back ? "/nowhere" : KEYS);
	r->node = (struct node){ .desired = &r->desired, .report = &r->report, .new_key_dir = r->keys,
				 .until_ms = clock_monotonic_ms() + 3000 };
	r->node.layout.root = str_dup(t->root);
	for (size_t i = 0; i < ARRAY_LEN(ROTATED); i++) {
		enum authority a = ROTATED[i];
		r->desired.of[a].wanted = true;
		r->node.of[a] = (struct succession){ cert_copy(back ? cas[a].new : cas[a].old), cert_copy(back ? cas[a].old : cas[a].new),
						     cert_copy(back ? cas[a].back : cas[a].bridge) };
	}
	assert_ok(node_observe(&r->node, &e), e);
	for (size_t i = 0; i < r->report.n_blockers; i++)
		fail_msg("%s %s: %s", r->report.blockers[i].code, r->report.blockers[i].object, r->report.blockers[i].message);
}

struct wish {
	enum facet facet;
	int level;
};

/* One job: towards those levels, and seen to be there. */
static void converge(const struct tree *t, bool back, const struct wish *wishes, size_t n)
{
	struct run r cleanup(run_release);
	struct err e = { 0 };
	begin(t, back, &r);
	for (size_t i = 0; i < n; i++)
		r.desired.levels[wishes[i].facet] = wishes[i].level;
	assert_ok(node_converge(&r.node, &e), e);
	for (size_t i = 0; i < n; i++)
		if (!facet_reached(r.report.levels[wishes[i].facet], wishes[i].level))
			fail_msg("%s is at %d", facet_name(wishes[i].facet), r.report.levels[wishes[i].facet]);
}
#define CONVERGE(t, back, ...) converge(t, back, (const struct wish[]){ __VA_ARGS__ }, sizeof((const struct wish[]){ __VA_ARGS__ }) / sizeof(struct wish))

#define BRIDGED { FACET_PROXY_TRUST, TRUST_BOTH }, { FACET_PROXY_CA_KEY, ISSUED_NEW }, { FACET_PROXY_LEAF, LEAF_BRIDGE }, { FACET_ETCD_LEAF, LEAF_BRIDGE }
#define DROPPED { FACET_PROXY_TRUST, TRUST_NEW }, { FACET_PROXY_LEAF, LEAF_NEW }, { FACET_ETCD_CA_KEY, ISSUED_NEW }, { FACET_ETCD_TRUST, TRUST_NEW }

static struct certs certs_at(const struct tree *t, const char *path)
{
	struct certs list = { 0 };
	struct err e = { 0 };
	char *text cleanup(str_freep) = tree_read(t, path);
	assert_non_null(text);
	assert_ok(certs_from_pem(text, strlen(text), &list, &e), e);
	return list;
}

static void assert_key_is(const struct tree *t, const char *path, const struct cert *ca)
{
	struct err e = { 0 };
	struct key *k cleanup(key_freep) = NULL;
	char *text cleanup(secret_freep) = tree_read(t, path);
	assert_ok(key_from_pem(text, strlen(text), &k, &e), e);
	assert_true(cert_matches_key(ca, k));
}

/* second NULL: there is only one. */
static void assert_bundle(const struct tree *t, const char *path, const struct cert *first, const struct cert *second)
{
	struct certs list cleanup(certs_release) = certs_at(t, path);
	assert_int_equal(list.n, second ? 2 : 1);
	assert_true(cert_equal(list.items[0], first));
	assert_true(!second || cert_equal(list.items[1], second));
}

/* Issued by that authority, for the key that is there, with that bridge after it. */
static void assert_leaves(const struct tree *t, enum authority a, const struct cert *issuer, const struct cert *bridge)
{
	for (size_t i = 0; i < ARRAY_LEN(LEAVES); i++) {
		char *crt cleanup(str_freep) = str_printf("%s.crt", LEAVES[i].base), *key cleanup(str_freep) = str_printf("%s.key", LEAVES[i].base);
		struct certs list cleanup(certs_release) = certs_at(t, crt);
		if (LEAVES[i].of != a)
			continue;
		assert_true(cert_issued_by(list.items[0], issuer));
		assert_key_is(t, key, list.items[0]);
		assert_int_equal(list.n, bridge ? 2 : 1);
		assert_true(!bridge || cert_equal(list.items[1], bridge));
	}
}

static void assert_log(const char *expected)
{
	assert_string_equal(buf_str(&machine.log), expected);
}

/* --- Forward --------------------------------------------------------------------------------------------------------------------------- */

static void test_everything_but_the_drop_restarts_nothing(void **state UNUSED)
{
	struct tree t cleanup(tree_release) = control_plane();
	boot(&t);
	CONVERGE(&t, false, { FACET_PROXY_TRUST, TRUST_BOTH });
	assert_bundle(&t, PKI "front-proxy-ca.crt", cas[AUTHORITY_FRONT_PROXY].old, cas[AUTHORITY_FRONT_PROXY].new);
	assert_leaves(&t, AUTHORITY_FRONT_PROXY, cas[AUTHORITY_FRONT_PROXY].old, NULL);
	CONVERGE(&t, false, BRIDGED);
	assert_bundle(&t, PKI "front-proxy-ca.crt", cas[AUTHORITY_FRONT_PROXY].new, cas[AUTHORITY_FRONT_PROXY].old);
	assert_key_is(&t, PKI "front-proxy-ca.key", cas[AUTHORITY_FRONT_PROXY].new);
	assert_leaves(&t, AUTHORITY_FRONT_PROXY, cas[AUTHORITY_FRONT_PROXY].new, cas[AUTHORITY_FRONT_PROXY].bridge);
	assert_leaves(&t, AUTHORITY_ETCD, cas[AUTHORITY_ETCD].new, cas[AUTHORITY_ETCD].bridge);
	assert_bundle(&t, PKI "etcd/ca.crt", cas[AUTHORITY_ETCD].old, NULL);
	assert_key_is(&t, PKI "etcd/ca.key", cas[AUTHORITY_ETCD].old);
	assert_log("");
}

static void test_the_window(void **state UNUSED)
{
	struct tree t cleanup(tree_release) = control_plane();
	boot(&t);
	CONVERGE(&t, false, BRIDGED);
	machine.leader = "1";
	machine.under_way = 3;
	machine.unread = 3;
	machine.waiting = 2;
	CONVERGE(&t, false, DROPPED, { FACET_ETCD_LEAF, LEAF_BRIDGE });
	assert_log("lead 2; shut 6443; TERM kube-apiserver; KILL kube-apiserver; TERM etcd; open it");
	assert_bundle(&t, PKI "etcd/ca.crt", cas[AUTHORITY_ETCD].new, NULL);
	assert_key_is(&t, PKI "etcd/ca.key", cas[AUTHORITY_ETCD].new);
	assert_leaves(&t, AUTHORITY_ETCD, cas[AUTHORITY_ETCD].new, cas[AUTHORITY_ETCD].bridge);
	assert_bundle(&t, PKI "front-proxy-ca.crt", cas[AUTHORITY_FRONT_PROXY].new, NULL);
	assert_leaves(&t, AUTHORITY_FRONT_PROXY, cas[AUTHORITY_FRONT_PROXY].new, NULL);
	buf_clear(&machine.log);
	CONVERGE(&t, false, DROPPED, { FACET_ETCD_LEAF, LEAF_NEW }, { FACET_CLEAN, CLEAN_YES });
	assert_log("");
	assert_leaves(&t, AUTHORITY_ETCD, cas[AUTHORITY_ETCD].new, NULL);
	assert_false(tree_has(&t, RUN_DIR));
}

static void test_the_only_member_stays_leader(void **state UNUSED)
{
	struct tree t cleanup(tree_release) = control_plane();
	boot(&t);
	CONVERGE(&t, false, BRIDGED);
	machine.alone = true;
	machine.leader = "1";
	CONVERGE(&t, false, DROPPED);
	assert_log("shut 6443; TERM kube-apiserver; KILL kube-apiserver; TERM etcd; open it");
}

/* Killed after the files were written: what runs has not read them, so it is done again; what has is let alone. */
static void test_a_window_that_was_cut_short(void **state UNUSED)
{
	struct tree t cleanup(tree_release) = control_plane();
	boot(&t);
	CONVERGE(&t, false, BRIDGED);
	put_cert(&t, PKI "etcd/ca.crt", cas[AUTHORITY_ETCD].new);
	CONVERGE(&t, false, DROPPED);
	assert_log("shut 6443; TERM kube-apiserver; KILL kube-apiserver; TERM etcd; open it");
	assert_key_is(&t, PKI "etcd/ca.key", cas[AUTHORITY_ETCD].new);
	buf_clear(&machine.log);
	put_key(&t, PKI "etcd/ca.key", cas[AUTHORITY_ETCD].old_key);
	CONVERGE(&t, false, DROPPED);
	assert_log("");
	assert_key_is(&t, PKI "etcd/ca.key", cas[AUTHORITY_ETCD].new);
}

/* --- What is refused --------------------------------------------------------------------------------------------------------------------- */

static void assert_window_refused(const struct tree *t, const char *why)
{
	struct run r cleanup(run_release);
	struct err e = { 0 };
	begin(t, false, &r);
	r.node.until_ms = clock_monotonic_ms() + 300;
	char *before cleanup(str_freep) = tree_snapshot(t);
	assert_false(node_etcd_trust(&r.node, &e).ok);
	if (!strstr(e.message, why))
		fail_msg("\"%s\" does not say \"%s\"", e.message, why);
	char *after cleanup(str_freep) = tree_snapshot(t);
	assert_string_equal(before, after);
	assert_log("");
}

static void test_no_window_while_something_is_wrong(void **state UNUSED)
{
	struct tree t cleanup(tree_release) = control_plane();
	boot(&t);
	CONVERGE(&t, false, BRIDGED);
	machine.ill = OTHER_URL;
	assert_window_refused(&t, OTHER_URL);
	machine.ill = FIRST_URL;
	assert_window_refused(&t, FIRST_URL);
	machine.ill = NULL;
	machine.no_gate = true;
	assert_window_refused(&t, "no netfilter here");
	machine.no_gate = false;
	char *key cleanup(secret_freep) = tree_read(&t, KEYS "/Etcd.key");
	char *path cleanup(str_freep) = tree_path(&t, KEYS "/Etcd.key");
	tree_put_mode(&t, KEYS "/Etcd.key", "none", 0600);
	assert_window_refused(&t, KEYS "/Etcd.key: ");
	assert_int_equal(unlink(path), 0);
	assert_window_refused(&t, "private key is not on this node");
	tree_put_mode(&t, KEYS "/Etcd.key", key, 0600);
	machine.process[PROCESS_ETCD].pid = 0;
	assert_window_refused(&t, "not running");
}

/* The file is written, but the API server goes on with what it has read. */
static void test_trust_that_is_not_taken_up(void **state UNUSED)
{
	struct tree t cleanup(tree_release) = control_plane();
	struct run r cleanup(run_release);
	struct err e = { 0 };
	boot(&t);
	char *old cleanup(str_freep) = tree_read(&t, PKI "front-proxy-ca.crt");
	machine.proxies = old;
	begin(&t, false, &r);
	r.desired.levels[FACET_PROXY_TRUST] = TRUST_BOTH;
	r.node.until_ms = clock_monotonic_ms() + 300;
	assert_false(node_converge(&r.node, &e).ok);
	assert_int_equal(e.kind, ERR_TIMEOUT);
	assert_non_null(strstr(e.message, "requestheader-client-ca-file"));
	assert_int_equal(r.report.levels[FACET_PROXY_TRUST], TRUST_OLD);
}

/* kubeadm has renewed the leaf for another key: what was kept is for none that is here. O's key may have been elsewhere, too. */
static void test_a_drop_after_a_new_key(void **state UNUSED)
{
	for (int elsewhere = 0; elsewhere < 2; elsewhere++) {
		struct tree t cleanup(tree_release) = control_plane();
		char *kept cleanup(str_freep) = tree_path(&t, RUN_DIR "/backup" PKI "front-proxy-ca.key");
		boot(&t);
		CONVERGE(&t, false, BRIDGED);
		put_leaf(&t, 0, true);
		assert_true(!elsewhere || unlink(kept) == 0);
		CONVERGE(&t, false, BRIDGED);
		CONVERGE(&t, false, DROPPED);
		assert_leaves(&t, AUTHORITY_FRONT_PROXY, cas[AUTHORITY_FRONT_PROXY].new, NULL);
	}
}

/* An API server that still takes O is not passed over, whatever there is to show it. */
static void test_a_drop_that_is_not_taken_up(void **state UNUSED)
{
	enum { KEPT, RENEWED, NOTHING, UNREADABLE, CASES };
	for (int c = 0; c < CASES; c++) {
		struct tree t cleanup(tree_release) = control_plane();
		struct run r cleanup(run_release);
		struct err e = { 0 };
		char *kept cleanup(str_freep) = tree_path(&t, RUN_DIR "/backup" PKI "front-proxy-client.crt");
		char *key cleanup(str_freep) = tree_path(&t, RUN_DIR "/backup" PKI "front-proxy-ca.key");
		boot(&t);
		CONVERGE(&t, false, BRIDGED);
		char *both cleanup(str_freep) = tree_read(&t, PKI "front-proxy-ca.crt");
		machine.proxies = both;
		if (c == RENEWED)
			put_leaf(&t, 0, true);
		assert_true(c < NOTHING || unlink(key) == 0);
		assert_true(c != NOTHING || unlink(kept) == 0);
		if (c == UNREADABLE)
			tree_put(&t, RUN_DIR "/backup" PKI "front-proxy-client.crt", "none");
		begin(&t, false, &r);
		r.desired.levels[FACET_PROXY_TRUST] = TRUST_NEW;
		r.node.until_ms = clock_monotonic_ms() + 300;
		assert_false(node_converge(&r.node, &e).ok);
		assert_int_equal(e.kind, ERR_TIMEOUT);
		assert_int_equal(r.report.levels[FACET_PROXY_TRUST], TRUST_BOTH);
	}
}

static const struct blocker *blocker_of(const struct report *r, const char *code)
{
	for (size_t i = 0; i < r->n_blockers; i++)
		if (str_eq(r->blockers[i].code, code))
			return &r->blockers[i];
	return NULL;
}

/* Before anything is touched, while that can still be refused. */
static void test_the_window_is_rehearsed(void **state UNUSED)
{
	static const struct { const char *ill; bool no_gate, gate; const char *code, *part; } CASES[] = {
		{ NULL, false, true, NULL, NULL },
		{ OTHER_URL, false, true, "EtcdUnhealthy", OTHER_URL },
		{ NULL, true, true, "GateImpossible", "no netfilter here" },
		{ NULL, true, false, NULL, NULL }, /* by a Pod that may only look */
	};
	struct tree t cleanup(tree_release) = control_plane();
	boot(&t);
	for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
		struct run r cleanup(run_release);
		struct err e = { 0 };
		begin(&t, false, &r);
		machine.ill = CASES[i].ill;
		machine.no_gate = CASES[i].no_gate;
		r.desired.gate = CASES[i].gate;
		cert_freep(&r.node.of[AUTHORITY_ETCD].bridge);
		assert_ok(node_observe(&r.node, &e), e);
		assert_int_equal(r.report.n_blockers, CASES[i].code != NULL);
		const struct blocker *b = CASES[i].code ? blocker_of(&r.report, CASES[i].code) : NULL;
		assert_true(!CASES[i].code || (b && strstr(b->message, CASES[i].part)));
		assert_log("");
		machine.ill = NULL;
	}
}

static void test_an_external_etcd(void **state UNUSED)
{
	static const char *const SERVERS[] = { "https://10.0.0.7:2379", "https://127.0.0.1:2379,https://10.0.0.7:2379" };
	for (size_t i = 0; i < ARRAY_LEN(SERVERS); i++)
		for (int wanted = 0; wanted < 2; wanted++) {
			struct tree t cleanup(tree_release) = control_plane();
			struct layout l cleanup(layout_release) = { 0 };
			struct report r cleanup(report_release) = { 0 };
			struct err e = { 0 };
			const struct desired d = { .run = (char *)"r", .of = { [AUTHORITY_FRONT_PROXY] = { .wanted = true },
									       [AUTHORITY_ETCD] = { .wanted = wanted } } };
			tree_edit(&t, "/etc/kubernetes/manifests/kube-apiserver.yaml", FIRST_URL, SERVERS[i]);
			assert_ok(layout_learn(t.root, &d, &l, &r, &e), e);
			assert_true((blocker_of(&r, "ExternalEtcd") != NULL) == wanted);
			assert_true(layout_is_whole(&l, &d) == !wanted);
		}
}

static void test_etcd_that_trusts_another_file(void **state UNUSED)
{
	struct tree t cleanup(tree_release) = control_plane();
	struct layout l cleanup(layout_release) = { 0 };
	struct report r cleanup(report_release) = { 0 };
	struct err e = { 0 };
	const struct desired d = { .run = (char *)"r", .of = { [AUTHORITY_ETCD] = { .wanted = true } } };
	tree_edit(&t, "/etc/kubernetes/manifests/etcd.yaml", "--peer-trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt",
		  "--peer-trusted-ca-file=/etc/kubernetes/pki/etcd/peers.crt");
	assert_ok(layout_learn(t.root, &d, &l, &r, &e), e);
	const struct blocker *b = blocker_of(&r, "UnsupportedPath");
	assert_non_null(b);
	assert_non_null(strstr(b->message, "--peer-trusted-ca-file"));
}

/* --- Back -------------------------------------------------------------------------------------------------------------------------------- */

static void test_back_to_the_very_files(void **state UNUSED)
{
	static const char *const FILES[] = { PKI "front-proxy-ca.crt", PKI "front-proxy-ca.key", PKI "front-proxy-client.crt", PKI "etcd/ca.crt",
					     PKI "etcd/ca.key", PKI "etcd/server.crt", PKI "etcd/peer.crt", PKI "etcd/healthcheck-client.crt",
					     PKI "apiserver-etcd-client.crt" };
	struct tree t cleanup(tree_release) = control_plane();
	char *before[ARRAY_LEN(FILES)];
	boot(&t);
	for (size_t i = 0; i < ARRAY_LEN(FILES); i++)
		before[i] = tree_read(&t, FILES[i]);
	CONVERGE(&t, false, BRIDGED);
	CONVERGE(&t, true, BRIDGED);
	assert_leaves(&t, AUTHORITY_ETCD, cas[AUTHORITY_ETCD].old, cas[AUTHORITY_ETCD].back);
	CONVERGE(&t, true, DROPPED, { FACET_ETCD_LEAF, LEAF_NEW }, { FACET_CLEAN, CLEAN_YES });
	assert_log(""); /* nobody had been given the new etcd authority yet */
	for (size_t i = 0; i < ARRAY_LEN(FILES); i++) {
		char *after cleanup(secret_freep) = tree_read(&t, FILES[i]);
		if (!str_eq(after, before[i]))
			fail_msg("%s is not what it was", FILES[i]);
		secret_freep(&before[i]);
	}
	assert_false(tree_has(&t, RUN_DIR));
}

/* kubeadm has renewed everything in the middle, each for a key of its own: what was kept is for none of them. */
static void test_back_to_other_keys(void **state UNUSED)
{
	struct tree t cleanup(tree_release) = control_plane();
	boot(&t);
	CONVERGE(&t, false, BRIDGED);
	for (size_t i = 0; i < ARRAY_LEN(LEAVES); i++)
		put_leaf(&t, i, true);
	CONVERGE(&t, true, BRIDGED);
	assert_leaves(&t, AUTHORITY_FRONT_PROXY, cas[AUTHORITY_FRONT_PROXY].old, cas[AUTHORITY_FRONT_PROXY].back);
	assert_leaves(&t, AUTHORITY_ETCD, cas[AUTHORITY_ETCD].old, cas[AUTHORITY_ETCD].back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_everything_but_the_drop_restarts_nothing),
		cmocka_unit_test(test_the_window),
		cmocka_unit_test(test_the_only_member_stays_leader),
		cmocka_unit_test(test_a_window_that_was_cut_short),
		cmocka_unit_test(test_no_window_while_something_is_wrong),
		cmocka_unit_test(test_trust_that_is_not_taken_up),
		cmocka_unit_test(test_a_drop_after_a_new_key),
		cmocka_unit_test(test_a_drop_that_is_not_taken_up),
		cmocka_unit_test(test_the_window_is_rehearsed),
		cmocka_unit_test(test_an_external_etcd),
		cmocka_unit_test(test_etcd_that_trusts_another_file),
		cmocka_unit_test(test_back_to_the_very_files),
		cmocka_unit_test(test_back_to_other_keys),
	};
	return cmocka_run_group_tests(tests, make_authorities, drop_authorities);
}
