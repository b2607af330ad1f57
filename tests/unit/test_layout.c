/* LINK: node kube rotation */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "layout.h"
#include "tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MANIFESTS "/etc/kubernetes/manifests"
#define APISERVER MANIFESTS "/kube-apiserver.yaml"
#define MANAGER MANIFESTS "/kube-controller-manager.yaml"
#define SCHEDULER MANIFESTS "/kube-scheduler.yaml"
#define ETCD MANIFESTS "/etcd.yaml"
#define CONFIG "/var/lib/kubelet/config.yaml"
#define ASIDE "/etc/kubernetes/.certrotation-kube-controller-manager.yaml"

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

static void put_fixture(const struct tree *t, const char *path)
{
	char *text cleanup(str_freep) = fixture_text(str_eq(path, CONFIG) ? "kubelet-config.yaml" : strrchr(path, '/') + 1);
	tree_put(t, path, text);
}

static struct tree control_plane(void)
{
	static const char *const paths[] = { APISERVER, MANAGER, SCHEDULER, ETCD, CONFIG };
	struct tree t = tree_new();
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		put_fixture(&t, paths[i]);
	return t;
}

static struct tree worker(void)
{
	struct tree t = tree_new();
	tree_mkdir(&t, MANIFESTS);
	put_fixture(&t, CONFIG);
	return t;
}

struct learned {
	struct layout layout;
	struct report report;
};

static void learned_release(struct learned *l)
{
	layout_release(&l->layout);
	report_release(&l->report);
}

static const struct desired DESIRED = { .run = (char *)"run-1", .of = { [AUTHORITY_KUBERNETES] = { .wanted = true } } };

static struct learned learn(const struct tree *t)
{
	struct learned l = { 0 };
	struct err e = { 0 };
	assert_ok(layout_learn(t->root, &DESIRED, &l.layout, &l.report, &e), e);
	return l;
}

static void assert_path(const struct tree *t, const char *is, const char *expected)
{
	char *full cleanup(str_freep) = tree_path(t, expected);
	assert_non_null(is);
	assert_string_equal(is, full);
}

/* The only blocker, about a file of the tree. */
static void assert_blocked(const struct tree *t, const struct learned *l, const char *code, const char *object, const char *part)
{
	char *full cleanup(str_freep) = tree_path(t, object);
	if (l->report.n_blockers != 1)
		fail_msg("%zu blockers instead of %s of %s", l->report.n_blockers, code, part);
	const struct blocker *b = &l->report.blockers[0];
	assert_string_equal(b->code, code);
	assert_string_equal(b->object, full);
	if (!strstr(b->message, part))
		fail_msg("\"%s\" does not speak of %s", b->message, part);
}

/* --- As kubeadm makes it ---------------------------------------------------------------------------------------------- */

static void test_a_control_plane(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane();
	struct learned l cleanup(learned_release) = learn(&t);
	const struct { const char *is, *expected; } paths[] = {
		{ l.layout.manifests, MANIFESTS },
		{ l.layout.of[AUTHORITY_KUBERNETES].ca_crt, "/etc/kubernetes/pki/ca.crt" },
		{ l.layout.of[AUTHORITY_KUBERNETES].ca_key, "/etc/kubernetes/pki/ca.key" },
		{ l.layout.own_dir, "/etc/kubernetes/pki/certrotation" },
		{ l.layout.own_signer, "/etc/kubernetes/pki/certrotation/signer.pem" },
		{ l.layout.own_root, "/etc/kubernetes/pki/certrotation/root.crt" },
		{ l.layout.apiserver_crt, "/etc/kubernetes/pki/apiserver.crt" },
		{ l.layout.apiserver_key, "/etc/kubernetes/pki/apiserver.key" },
		{ l.layout.kubelet_client_crt, "/etc/kubernetes/pki/apiserver-kubelet-client.crt" },
		{ l.layout.kubelet_client_key, "/etc/kubernetes/pki/apiserver-kubelet-client.key" },
		{ l.layout.manager_manifest, MANAGER },
		{ l.layout.manager_aside, ASIDE },
		{ l.layout.manager_conf, "/etc/kubernetes/controller-manager.conf" },
		{ l.layout.scheduler_conf, "/etc/kubernetes/scheduler.conf" },
		{ l.layout.admin_conf, "/etc/kubernetes/admin.conf" },
		{ l.layout.super_admin_conf, "/etc/kubernetes/super-admin.conf" },
		{ l.layout.kubelet_conf, "/etc/kubernetes/kubelet.conf" },
		{ l.layout.kubelet_pki, "/var/lib/kubelet/pki" },
		{ l.layout.run_dir, "/var/lib/certrotation/run-1" },
		{ l.layout.absorbed, "/var/lib/certrotation/absorbed" },
	};
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		assert_path(&t, paths[i].is, paths[i].expected);
	assert_true(l.layout.control_plane);
	assert_string_equal(l.layout.flag_signing_cert, "/etc/kubernetes/pki/ca.crt");
	assert_string_equal(l.layout.flag_signing_key, "/etc/kubernetes/pki/ca.key");
	assert_string_equal(l.layout.flag_root_ca, "/etc/kubernetes/pki/ca.crt");
	assert_string_equal(l.layout.api_host, "127.0.0.1");
	assert_int_equal(l.layout.api_port, 6443);
	assert_int_equal(l.layout.manager_port, 10257);
	assert_int_equal(l.layout.scheduler_port, 10259);
	assert_int_equal(l.layout.kubelet_port, 10250);
	assert_int_equal(l.report.n_blockers, 0);
}

/* All files that flags name and that are not ours to change are looked at, by what they hold. */
static void test_the_other_files(void **state)
{
	(void)state;
	static const char *const expected[] = {
		"/etc/kubernetes/pki/etcd/ca.crt --etcd-cafile", "/etc/kubernetes/pki/apiserver-etcd-client.crt --etcd-certfile",
		"/etc/kubernetes/pki/apiserver-etcd-client.key --etcd-keyfile",
		"/etc/kubernetes/pki/front-proxy-client.crt --proxy-client-cert-file",
		"/etc/kubernetes/pki/front-proxy-client.key --proxy-client-key-file",
		"/etc/kubernetes/pki/front-proxy-ca.crt --requestheader-client-ca-file",
		"/etc/kubernetes/pki/sa.pub --service-account-key-file", "/etc/kubernetes/pki/sa.key --service-account-signing-key-file",
		"/etc/kubernetes/pki/front-proxy-ca.crt --requestheader-client-ca-file",
		"/etc/kubernetes/pki/sa.key --service-account-private-key-file",
		"/etc/kubernetes/pki/etcd/server.crt --cert-file", "/etc/kubernetes/pki/etcd/server.key --key-file",
		"/etc/kubernetes/pki/etcd/peer.crt --peer-cert-file", "/etc/kubernetes/pki/etcd/peer.key --peer-key-file",
		"/etc/kubernetes/pki/etcd/ca.crt --peer-trusted-ca-file", "/etc/kubernetes/pki/etcd/ca.crt --trusted-ca-file",
	};
	struct tree t cleanup(tree_release) = control_plane();
	struct learned l cleanup(learned_release) = learn(&t);
	assert_int_equal(l.layout.others.n, ARRAY_LEN(expected));
	for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
		char *full cleanup(str_freep) = tree_path(&t, expected[i]);
		assert_true(str_starts(l.layout.others.items[i], full));
	}
}

static void test_a_worker(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = worker();
	struct learned l cleanup(learned_release) = learn(&t);
	assert_false(l.layout.control_plane);
	assert_path(&t, l.layout.of[AUTHORITY_KUBERNETES].ca_crt, "/etc/kubernetes/pki/ca.crt");
	assert_path(&t, l.layout.kubelet_conf, "/etc/kubernetes/kubelet.conf");
	assert_null(l.layout.apiserver_crt);
	assert_null(l.layout.manager_manifest);
	assert_int_equal(l.report.n_blockers, 0);
	assert_int_equal(l.layout.others.n, 0);
}

/* --- Flags ------------------------------------------------------------------------------------------------------------ */

static const struct needed {
	const char *manifest, *flag, *value;
} needed[] = {
	{ APISERVER, "client-ca-file", "/etc/kubernetes/pki/ca.crt" },
	{ APISERVER, "tls-cert-file", "/etc/kubernetes/pki/apiserver.crt" },
	{ APISERVER, "tls-private-key-file", "/etc/kubernetes/pki/apiserver.key" },
	{ APISERVER, "kubelet-client-certificate", "/etc/kubernetes/pki/apiserver-kubelet-client.crt" },
	{ APISERVER, "kubelet-client-key", "/etc/kubernetes/pki/apiserver-kubelet-client.key" },
	{ MANAGER, "cluster-signing-cert-file", "/etc/kubernetes/pki/ca.crt" },
	{ MANAGER, "cluster-signing-key-file", "/etc/kubernetes/pki/ca.key" },
	{ MANAGER, "root-ca-file", "/etc/kubernetes/pki/ca.crt" },
	{ MANAGER, "kubeconfig", "/etc/kubernetes/controller-manager.conf" },
	{ SCHEDULER, "kubeconfig", "/etc/kubernetes/scheduler.conf" },
};

static char *line_of(const struct needed *n)
{
	return str_printf("    - --%s=%s\n", n->flag, n->value);
}

/* Each of them, written in a manner that can't be followed, is a blocker that names it. */
static void test_needed(const char *code, char *(*instead)(const struct needed *n))
{
	for (size_t i = 0; i < ARRAY_LEN(needed); i++) {
		struct tree t cleanup(tree_release) = control_plane();
		char *line cleanup(str_freep) = line_of(&needed[i]), *other cleanup(str_freep) = instead(&needed[i]);
		tree_edit(&t, needed[i].manifest, line, other);
		struct learned l cleanup(learned_release) = learn(&t);
		char *part cleanup(str_freep) = str_printf("--%s", needed[i].flag);
		bool blocked = false;
		for (size_t b = 0; b < l.report.n_blockers; b++)
			blocked |= str_eq(l.report.blockers[b].code, code) && strstr(l.report.blockers[b].message, part);
		if (!blocked)
			fail_msg("no %s for %s of %s", code, needed[i].flag, needed[i].manifest);
	}
}

static char *nothing(const struct needed *n)
{
	(void)n;
	return str_dup("");
}

static char *twice(const struct needed *n)
{
	return str_printf("    - --%s=%s\n    - --%s=/etc/kubernetes/pki/other.crt\n", n->flag, n->value, n->flag);
}

/* The last one counts (pflag), and it is written in the other form. */
static char *twice_in_two_forms(const struct needed *n)
{
	return str_printf("    - --%s=%s\n    - --%s\n    - /etc/kubernetes/pki/other.crt\n", n->flag, n->value, n->flag);
}

static char *in_two_items(const struct needed *n)
{
	return str_printf("    - --%s\n    - %s\n", n->flag, n->value);
}

static char *elsewhere(const struct needed *n)
{
	return str_printf("    - --%s=/opt/pki/%s\n", n->flag, n->flag);
}

static char *empty(const struct needed *n)
{
	return str_printf("    - --%s=\n", n->flag);
}

static char *near_by(const struct needed *n)
{
	return str_printf("    - --%s=/etc/kubernetes-old/%s\n", n->flag, n->flag);
}

static void test_absent_flags(void **state)
{
	(void)state;
	test_needed("MissingFlag", nothing);
}

static void test_flags_given_twice(void **state)
{
	(void)state;
	test_needed("DuplicateFlag", twice);
	test_needed("DuplicateFlag", twice_in_two_forms);
}

static void test_flags_in_a_form_that_is_not_followed(void **state)
{
	(void)state;
	test_needed("UnsupportedFlag", in_two_items);
}

static void test_flags_that_point_elsewhere(void **state)
{
	(void)state;
	test_needed("UnsupportedPath", elsewhere);
	test_needed("UnsupportedPath", empty);
	test_needed("UnsupportedPath", near_by);
}

/* Flags whose names begin or end alike are others. */
static void test_flags_with_similar_names(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane();
	tree_edit(&t, APISERVER, "    - --client-ca-file=", "    - --client-ca-file-x=/etc/kubernetes/a\n    - --x-client-ca-file=/etc/kubernetes/b\n"
							    "    - --client-ca-file=");
	struct learned l cleanup(learned_release) = learn(&t);
	assert_path(&t, l.layout.of[AUTHORITY_KUBERNETES].ca_crt, "/etc/kubernetes/pki/ca.crt");
	assert_int_equal(l.report.n_blockers, 0);
	assert_true(str_ends(l.layout.others.items[0], "/etc/kubernetes/a --client-ca-file-x") ||
		    strstr(l.layout.others.items[0], "/etc/kubernetes/a --client-ca-file-x "));
}

/* In `args` they count like in `command`. */
static void test_flags_in_args(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane();
	tree_edit(&t, MANAGER, "    - kube-controller-manager\n", "    - kube-controller-manager\n    args:\n");
	struct learned l cleanup(learned_release) = learn(&t);
	assert_int_equal(l.report.n_blockers, 0);
	assert_string_equal(l.layout.flag_root_ca, "/etc/kubernetes/pki/ca.crt");
	tree_edit(&t, MANAGER, "    - kube-controller-manager\n", "    - kube-controller-manager\n    - --root-ca-file=/etc/kubernetes/pki/ca.crt\n");
	struct learned again cleanup(learned_release) = learn(&t);
	assert_blocked(&t, &again, "DuplicateFlag", MANAGER, "--root-ca-file");
}

static void test_another_folder_of_certificates(void **state)
{
	(void)state;
	static const char *const paths[] = { APISERVER, MANAGER, SCHEDULER, ETCD, CONFIG };
	struct tree t cleanup(tree_release) = control_plane();
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		for (char *text cleanup(str_freep) = NULL; (text = (str_freep(&text), tree_read(&t, paths[i]))) && strstr(text, "/etc/kubernetes/pki");)
			tree_edit(&t, paths[i], "/etc/kubernetes/pki", "/etc/kubernetes/certs/x");
	struct learned l cleanup(learned_release) = learn(&t);
	assert_int_equal(l.report.n_blockers, 0);
	assert_path(&t, l.layout.of[AUTHORITY_KUBERNETES].ca_crt, "/etc/kubernetes/certs/x/ca.crt");
	assert_path(&t, l.layout.of[AUTHORITY_KUBERNETES].ca_key, "/etc/kubernetes/certs/x/ca.key");
	assert_path(&t, l.layout.own_signer, "/etc/kubernetes/certs/x/certrotation/signer.pem");
	assert_path(&t, l.layout.apiserver_crt, "/etc/kubernetes/certs/x/apiserver.crt");
}

/* What signs and what is published must be what is trusted, else one of them would be left behind. */
static void test_authorities_in_several_files(void **state)
{
	(void)state;
	static const struct { const char *manifest, *from, *to, *flag; } cases[] = {
		{ MANAGER, "--root-ca-file=/etc/kubernetes/pki/ca.crt", "--root-ca-file=/etc/kubernetes/pki/root.crt", "--root-ca-file" },
		{ MANAGER, "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt", "--cluster-signing-cert-file=/etc/kubernetes/sub.crt",
		  "--cluster-signing-cert-file" },
		{ MANAGER, "--cluster-signing-key-file=/etc/kubernetes/pki/ca.key", "--cluster-signing-key-file=/etc/kubernetes/pki/sub.key",
		  "--cluster-signing-key-file" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct tree t cleanup(tree_release) = control_plane();
		tree_edit(&t, cases[i].manifest, cases[i].from, cases[i].to);
		struct learned l cleanup(learned_release) = learn(&t);
		assert_blocked(&t, &l, "UnsupportedPath", cases[i].manifest, cases[i].flag);
	}
}

/* The API server trusts another file of the same folder than the controller-manager signs with. */
static void test_another_file_of_clients(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane();
	tree_edit(&t, APISERVER, "--client-ca-file=/etc/kubernetes/pki/ca.crt", "--client-ca-file=/etc/kubernetes/pki/clients.crt");
	tree_edit(&t, CONFIG, "/etc/kubernetes/pki/ca.crt", "/etc/kubernetes/pki/clients.crt");
	struct learned l cleanup(learned_release) = learn(&t);
	assert_int_equal(l.report.n_blockers, 2);
	assert_string_equal(l.report.blockers[0].code, "UnsupportedPath");
	assert_non_null(strstr(l.report.blockers[0].message, "--cluster-signing-cert-file"));
	assert_non_null(strstr(l.report.blockers[1].message, "--root-ca-file"));
}

/* In the middle of a run the flags are ours. */
static void test_our_own_flags(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane();
	tree_edit(&t, MANAGER, "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt", "--cluster-signing-cert-file=/etc/kubernetes/pki/certrotation/signer.pem");
	tree_edit(&t, MANAGER, "--cluster-signing-key-file=/etc/kubernetes/pki/ca.key", "--cluster-signing-key-file=/etc/kubernetes/pki/certrotation/signer.pem");
	tree_edit(&t, MANAGER, "--root-ca-file=/etc/kubernetes/pki/ca.crt", "--root-ca-file=/etc/kubernetes/pki/certrotation/root.crt");
	struct learned l cleanup(learned_release) = learn(&t);
	assert_int_equal(l.report.n_blockers, 0);
	assert_string_equal(l.layout.flag_root_ca, "/etc/kubernetes/pki/certrotation/root.crt");
}

static void test_what_is_not_supported(void **state)
{
	(void)state;
	static const struct { const char *manifest, *from, *to, *code, *part; } cases[] = {
		{ APISERVER, "    - --allow-privileged=true\n", "    - --kubelet-certificate-authority=/etc/kubernetes/pki/ca.crt\n", "UnsupportedFlag",
		  "--kubelet-certificate-authority" },
		{ APISERVER, "  securityContext:\n", "  securityContext:\n    runAsUser: 2001\n", "UnsupportedUser", "2001" },
		{ MANAGER, "  securityContext:\n", "  securityContext:\n    runAsUser: 2002\n", "UnsupportedUser", "2002" },
		{ SCHEDULER, "  securityContext:\n", "  securityContext:\n    runAsUser: 2003\n", "UnsupportedUser", "2003" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct tree t cleanup(tree_release) = control_plane();
		tree_edit(&t, cases[i].manifest, cases[i].from, cases[i].to);
		struct learned l cleanup(learned_release) = learn(&t);
		assert_blocked(&t, &l, cases[i].code, cases[i].manifest, cases[i].part);
	}
}

static void test_where_servers_listen(void **state)
{
	(void)state;
	static const struct { const char *flag, *host; } cases[] = {
		{ "--bind-address=0.0.0.0", "127.0.0.1" },   { "--bind-address=::", "127.0.0.1" },
		{ "--bind-address=10.0.0.7", "10.0.0.7" },   { "--bind-address=fd00::7", "[fd00::7]" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct tree t cleanup(tree_release) = control_plane();
		tree_edit(&t, APISERVER, "--allow-privileged=true", cases[i].flag);
		tree_edit(&t, APISERVER, "--secure-port=6443", "--secure-port=16443");
		tree_edit(&t, MANAGER, "--leader-elect=true", "--secure-port=20257");
		tree_edit(&t, SCHEDULER, "--leader-elect=true", "--secure-port=20259");
		struct learned l cleanup(learned_release) = learn(&t);
		assert_string_equal(l.layout.api_host, cases[i].host);
		assert_int_equal(l.layout.api_port, 16443);
		assert_int_equal(l.layout.manager_port, 20257);
		assert_int_equal(l.layout.scheduler_port, 20259);
	}
}

/* A file that a flag names in any way is among the others. */
static void test_files_in_lists_and_items(void **state)
{
	(void)state;
	static const char *const files[] = { "/etc/kubernetes/pki/a.crt", "/etc/kubernetes/pki/a.key", "/etc/kubernetes/authn.yaml" };
	struct tree t cleanup(tree_release) = control_plane();
	tree_edit(&t, APISERVER, "    - --allow-privileged=true\n",
		  "    - --tls-sni-cert-key=/etc/kubernetes/pki/a.crt,/etc/kubernetes/pki/a.key:name\n"
		  "    - --authentication-config\n    - /etc/kubernetes/authn.yaml\n");
	struct learned l cleanup(learned_release) = learn(&t);
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		char *full cleanup(str_freep) = tree_path(&t, files[i]);
		bool found = false;
		for (size_t k = 0; k < l.layout.others.n; k++)
			found |= str_starts(l.layout.others.items[k], full) && l.layout.others.items[k][strlen(full)] == ' ';
		if (!found)
			fail_msg("%s is not among the others", files[i]);
	}
	assert_true(str_ends(l.layout.others.items[2], APISERVER));
}

/* --- Broken ----------------------------------------------------------------------------------------------------------- */

static void test_what_cannot_be_read_is_an_error(void **state)
{
	(void)state;
	static const char *const paths[] = { APISERVER, MANAGER, SCHEDULER, ETCD, CONFIG };
	static const char *const texts[] = { "a: [", "\xff\xfe", "a: 1\na: 2\n" };
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		for (size_t k = 0; k < ARRAY_LEN(texts); k++) {
			struct tree t cleanup(tree_release) = control_plane();
			struct learned l cleanup(learned_release) = { 0 };
			struct err e = { 0 };
			tree_put(&t, paths[i], texts[k]);
			assert_false(layout_learn(t.root, &DESIRED, &l.layout, &l.report, &e).ok);
			assert_int_equal(e.kind, ERR_INPUT);
			assert_non_null(strstr(e.message, paths[i]));
			assert_null(l.layout.root);
		}
}

/* A control plane without one of its manifests is in somebody's hands. */
static void test_a_missing_manifest_is_an_error(void **state)
{
	(void)state;
	static const char *const paths[] = { MANAGER, SCHEDULER, CONFIG };
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		struct tree t cleanup(tree_release) = control_plane();
		struct learned l cleanup(learned_release) = { 0 };
		struct err e = { 0 };
		char *full cleanup(str_freep) = tree_path(&t, paths[i]);
		assert_int_equal(remove(full), 0);
		assert_false(layout_learn(t.root, &DESIRED, &l.layout, &l.report, &e).ok);
		assert_int_equal(e.kind, ERR_NOT_FOUND);
	}
	struct tree t cleanup(tree_release) = control_plane(); /* etcd may be elsewhere */
	char *full cleanup(str_freep) = tree_path(&t, ETCD);
	assert_int_equal(remove(full), 0);
	struct learned l cleanup(learned_release) = learn(&t);
	assert_int_equal(l.report.n_blockers, 0);
}

/* --- The kubelet ------------------------------------------------------------------------------------------------------ */

static void test_kubelet_configurations(void **state)
{
	(void)state;
	static const struct { const char *text, *ca; int port; const char *code; } cases[] = {
		{ "authentication:\n  x509:\n    clientCAFile: /etc/kubernetes/pki/ca.crt\n", "/etc/kubernetes/pki/ca.crt", 10250, NULL },
		{ "authentication:\n  x509: {clientCAFile: \"/etc/kubernetes/ca.pem\"}\nport: 10999\n", "/etc/kubernetes/ca.pem", 10999, NULL },
		{ "authentication: {x509: {clientCAFile: '/etc/kubernetes/pki/ca.crt'}}\nport: 0\n", "/etc/kubernetes/pki/ca.crt", 10250, NULL },
		{ "{\"authentication\":{\"x509\":{\"clientCAFile\":\"/etc/kubernetes/pki/ca.crt\"}},\"port\":1}", "/etc/kubernetes/pki/ca.crt", 1, NULL },
		{ "# by hand\nauthentication:\n  x509:\n    clientCAFile: /etc/kubernetes/pki/ca.crt # ours\nstaticPodPath: /etc/kubernetes/manifests/\n",
		  "/etc/kubernetes/pki/ca.crt", 10250, NULL },
		{ "authentication:\n  x509:\n    clientCAFile: /etc/kubernetes/pki/ca.crt\nstaticPodPath: /srv/manifests\n",
		  "/etc/kubernetes/pki/ca.crt", 10250, "UnsupportedPath" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct tree t cleanup(tree_release) = worker();
		tree_put(&t, CONFIG, cases[i].text);
		struct learned l cleanup(learned_release) = learn(&t);
		assert_path(&t, l.layout.of[AUTHORITY_KUBERNETES].ca_crt, cases[i].ca);
		assert_int_equal(l.layout.kubelet_port, cases[i].port);
		if (cases[i].code)
			assert_blocked(&t, &l, cases[i].code, CONFIG, "/srv/manifests");
		else
			assert_int_equal(l.report.n_blockers, 0);
	}
}

/* Without an authority there is nothing to rotate; one elsewhere can't be followed. */
static void test_kubelets_without_an_authority(void **state)
{
	(void)state;
	static const char *const texts[] = { "port: 10250\n", "authentication:\n  x509: {}\n", "authentication:\n  x509:\n    clientCAFile: \"\"\n",
					     "authentication:\n  x509:\n    clientCAFile: /opt/ca.crt\n",
					     "authentication:\n  x509:\n    clientcafile: /etc/kubernetes/pki/ca.crt\n" };
	for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
		struct tree t cleanup(tree_release) = worker();
		struct learned l cleanup(learned_release) = { 0 };
		struct err e = { 0 };
		tree_put(&t, CONFIG, texts[i]);
		assert_false(layout_learn(t.root, &DESIRED, &l.layout, &l.report, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
		assert_blocked(&t, &l, "UnsupportedPath", CONFIG, "clientCAFile");
	}
}

static void test_a_kubelet_with_another_authority(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane();
	tree_edit(&t, CONFIG, "clientCAFile: /etc/kubernetes/pki/ca.crt", "clientCAFile: /etc/kubernetes/pki/kubelets.crt");
	struct learned l cleanup(learned_release) = learn(&t);
	assert_blocked(&t, &l, "UnsupportedPath", CONFIG, "kubelets.crt");
	assert_path(&t, l.layout.of[AUTHORITY_KUBERNETES].ca_crt, "/etc/kubernetes/pki/ca.crt");
}

/* --- Strangers -------------------------------------------------------------------------------------------------------- */

static void test_static_pods_of_others(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane();
	tree_put(&t, MANIFESTS "/harmless.yaml", "apiVersion: v1\nkind: Pod\n");
	tree_put(&t, MANIFESTS "/.kube-vip.yaml.swp", "/etc/kubernetes/admin.conf"); /* the kubelet passes over it, too */
	tree_put(&t, MANIFESTS "/kept/kube-apiserver.yaml", "/etc/kubernetes/admin.conf"); /* ditto, over folders */
	struct learned l cleanup(learned_release) = learn(&t);
	assert_int_equal(l.report.n_blockers, 0);
	tree_put(&t, MANIFESTS "/kube-vip.yaml", "volumes:\n- hostPath:\n    path: /etc/kubernetes/admin.conf\n");
	struct learned again cleanup(learned_release) = learn(&t);
	assert_blocked(&t, &again, "UnknownUser", MANIFESTS "/kube-vip.yaml", "/etc/kubernetes");
}

/* --- Healing ---------------------------------------------------------------------------------------------------------- */

static void heal(const struct tree *t)
{
	struct err e = { 0 };
	assert_ok(layout_heal(t->root, &e), e);
}

static void test_a_manifest_left_aside(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane();
	char *before cleanup(str_freep) = tree_snapshot(&t);
	heal(&t);
	char *after cleanup(str_freep) = tree_snapshot(&t);
	assert_string_equal(after, before); /* nothing was aside */

	char *manifest cleanup(str_freep) = tree_path(&t, MANAGER), *aside cleanup(str_freep) = tree_path(&t, ASIDE);
	char *text cleanup(str_freep) = tree_read(&t, MANAGER);
	assert_int_equal(rename(manifest, aside), 0);
	heal(&t);
	char *back cleanup(str_freep) = tree_read(&t, MANAGER);
	assert_string_equal(back, text);
	assert_false(tree_has(&t, ASIDE));
	struct learned l cleanup(learned_release) = learn(&t);
	assert_int_equal(l.report.n_blockers, 0);
}

/* Cut before the manifest was taken away: what is aside may be half a file. */
static void test_a_manifest_that_is_in_place(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = control_plane();
	char *before cleanup(str_freep) = tree_snapshot(&t);
	tree_put(&t, ASIDE, "apiVersion: v1\nkind: Po");
	heal(&t);
	heal(&t);
	char *after cleanup(str_freep) = tree_snapshot(&t);
	assert_string_equal(after, before);
}

static void test_healing_a_worker(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = tree_new();
	heal(&t);
	assert_false(tree_has(&t, "/etc"));
}

/* --- Editing ---------------------------------------------------------------------------------------------------------- */

#define SIGNER "/etc/kubernetes/pki/certrotation/signer.pem"
#define ROOT "/etc/kubernetes/pki/certrotation/root.crt"
#define PKI "/etc/kubernetes/pki/"

static char *edited(const char *text, const char *cert, const char *key, const char *root)
{
	struct buf out cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	assert_ok(layout_edit_manager(text, strlen(text), cert, key, root, &out, &e), e);
	return buf_take(&out);
}

static char *replaced(const char *text, const char *from, const char *to)
{
	const char *at = strstr(text, from);
	assert_non_null(at);
	return str_printf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

/* Three values change and not a byte beside them; back, it is what it was. */
static void assert_there_and_back(const char *text)
{
	char *ours cleanup(str_freep) = edited(text, SIGNER, SIGNER, ROOT);
	char *cert cleanup(str_freep) = replaced(text, "cluster-signing-cert-file=" PKI "ca.crt", "cluster-signing-cert-file=" SIGNER);
	char *key cleanup(str_freep) = replaced(cert, "cluster-signing-key-file=" PKI "ca.key", "cluster-signing-key-file=" SIGNER);
	char *root cleanup(str_freep) = replaced(key, "root-ca-file=" PKI "ca.crt", "root-ca-file=" ROOT);
	assert_string_equal(ours, root);
	char *again cleanup(str_freep) = edited(ours, SIGNER, SIGNER, ROOT);
	assert_string_equal(again, ours);
	char *back cleanup(str_freep) = edited(ours, PKI "ca.crt", PKI "ca.key", PKI "ca.crt");
	assert_string_equal(back, text);
}

static void test_kubeadms_manifest_there_and_back(void **state)
{
	(void)state;
	char *text cleanup(str_freep) = fixture_text("kube-controller-manager.yaml");
	assert_there_and_back(text);
}

static void test_manifests_edited_by_hand(void **state)
{
	(void)state;
	static const struct { const char *from, *to; } cases[] = {
		{ "apiVersion: v1\n", "# kept by hand --root-ca-file=/nowhere\n\napiVersion: v1   # the first\n" },
		{ "    - --root-ca-file=/etc/kubernetes/pki/ca.crt\n", "    - \"--root-ca-file=/etc/kubernetes/pki/ca.crt\" # quoted\n" },
		{ "    - --root-ca-file=/etc/kubernetes/pki/ca.crt\n", "    - '--root-ca-file=/etc/kubernetes/pki/ca.crt'\n" },
		{ "    - --root-ca-file=/etc/kubernetes/pki/ca.crt\n", "\n    # with a blank line and a comment\n    -   --root-ca-file=/etc/kubernetes/pki/ca.crt   \n" },
		{ "    - --leader-elect=true\n", "    - --v=4\n    - --feature-gates=A=true,B=false\n    - --leader-elect=true\n" },
		{ "  volumes:\n", "  volumes:\n  - emptyDir: {}\n    name: scratch\n" },
		{ "  - command:\n    - kube-controller-manager\n", "  - image: x\n    command: [kube-controller-manager]\n    args:\n" },
		{ "status: {}\n", "status: {}" },
		{ "status: {}\n", "...\n" },
		{ "apiVersion: v1\n", "---\napiVersion: v1\n" },
	};
	char *text cleanup(str_freep) = fixture_text("kube-controller-manager.yaml");
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *by_hand cleanup(str_freep) = replaced(text, cases[i].from, cases[i].to);
		char *once cleanup(str_freep) = strstr(cases[i].to, "image: x") ? replaced(by_hand, "    image: k8s.example/kube-controller-manager:v1.34.4\n", "") : str_dup(by_hand);
		if (i == 0) { /* the comment names a flag: the first occurrence is not the flag */
			char *ours cleanup(str_freep) = edited(once, NULL, NULL, ROOT);
			char *back cleanup(str_freep) = edited(ours, NULL, NULL, PKI "ca.crt");
			assert_string_equal(back, once);
			assert_non_null(strstr(ours, "# kept by hand --root-ca-file=/nowhere\n"));
			assert_non_null(strstr(ours, "- --root-ca-file=" ROOT "\n"));
			continue;
		}
		assert_there_and_back(once);
	}
}

static void test_one_flag_alone(void **state)
{
	(void)state;
	char *text cleanup(str_freep) = fixture_text("kube-controller-manager.yaml");
	char *same cleanup(str_freep) = edited(text, NULL, NULL, NULL);
	assert_string_equal(same, text);
	char *root cleanup(str_freep) = edited(text, NULL, NULL, ROOT);
	char *expected cleanup(str_freep) = replaced(text, "root-ca-file=" PKI "ca.crt", "root-ca-file=" ROOT);
	assert_string_equal(root, expected);
}

static void test_edits_that_are_refused(void **state)
{
	(void)state;
	static const char *const instead[] = { "", "    - --root-ca-file\n    - /etc/kubernetes/pki/ca.crt\n",
					       "    - --root-ca-file=/etc/kubernetes/pki/ca.crt\n    - --root-ca-file=/etc/kubernetes/pki/ca.crt\n",
					       "    - --root-ca-file=/etc/kubernetes/pki/ca.crt\n    - --root-ca-file\n    - /x\n" };
	char *text cleanup(str_freep) = fixture_text("kube-controller-manager.yaml");
	for (size_t i = 0; i < ARRAY_LEN(instead); i++) {
		struct buf out cleanup(buf_release) = BUF_INIT;
		struct err e = { 0 };
		char *other cleanup(str_freep) = replaced(text, "    - --root-ca-file=/etc/kubernetes/pki/ca.crt\n", instead[i]);
		assert_false(layout_edit_manager(other, strlen(other), NULL, NULL, ROOT, &out, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
		assert_int_equal(out.len, 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_control_plane),
		cmocka_unit_test(test_the_other_files),
		cmocka_unit_test(test_a_worker),
		cmocka_unit_test(test_absent_flags),
		cmocka_unit_test(test_flags_given_twice),
		cmocka_unit_test(test_flags_in_a_form_that_is_not_followed),
		cmocka_unit_test(test_flags_that_point_elsewhere),
		cmocka_unit_test(test_flags_with_similar_names),
		cmocka_unit_test(test_flags_in_args),
		cmocka_unit_test(test_another_folder_of_certificates),
		cmocka_unit_test(test_authorities_in_several_files),
		cmocka_unit_test(test_another_file_of_clients),
		cmocka_unit_test(test_our_own_flags),
		cmocka_unit_test(test_what_is_not_supported),
		cmocka_unit_test(test_where_servers_listen),
		cmocka_unit_test(test_files_in_lists_and_items),
		cmocka_unit_test(test_what_cannot_be_read_is_an_error),
		cmocka_unit_test(test_a_missing_manifest_is_an_error),
		cmocka_unit_test(test_kubelet_configurations),
		cmocka_unit_test(test_kubelets_without_an_authority),
		cmocka_unit_test(test_a_kubelet_with_another_authority),
		cmocka_unit_test(test_static_pods_of_others),
		cmocka_unit_test(test_a_manifest_left_aside),
		cmocka_unit_test(test_a_manifest_that_is_in_place),
		cmocka_unit_test(test_healing_a_worker),
		cmocka_unit_test(test_kubeadms_manifest_there_and_back),
		cmocka_unit_test(test_manifests_edited_by_hand),
		cmocka_unit_test(test_one_flag_alone),
		cmocka_unit_test(test_edits_that_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
