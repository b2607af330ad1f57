/* LINK: kube */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "file.h"
#include "kubeconfig.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Not certificates: kubeconfig.c does not look inside. */
#define CA "-----BEGIN CERTIFICATE-----\nca\n-----END CERTIFICATE-----\n"
#define CERT "-----BEGIN CERTIFICATE-----\ncert\n-----END CERTIFICATE-----\n"
#define KEY "-----BEGIN EC PRIVATE KEY-----\nkey\n-----END EC PRIVATE KEY-----\n"
#define CA_64 "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCmNhCi0tLS0tRU5EIENFUlRJRklDQVRFLS0tLS0K"
#define CERT_64 "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCmNlcnQKLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo="
#define KEY_64 "LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0tCmtleQotLS0tLUVORCBFQyBQUklWQVRFIEtFWS0tLS0tCg=="

/* As kubeadm 1.34 writes admin.conf. */
static const char admin_conf[] =
	"apiVersion: v1\n"
	"clusters:\n"
	"- cluster:\n"
	"    certificate-authority-data: " CA_64 "\n"
	"    server: https://10.0.0.1:6443\n"
	"  name: kubernetes\n"
	"contexts:\n"
	"- context:\n"
	"    cluster: kubernetes\n"
	"    user: kubernetes-admin\n"
	"  name: kubernetes-admin@kubernetes\n"
	"current-context: kubernetes-admin@kubernetes\n"
	"kind: Config\n"
	"users:\n"
	"- name: kubernetes-admin\n"
	"  user:\n"
	"    client-certificate-data: " CERT_64 "\n"
	"    client-key-data: " KEY_64 "\n";

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

static result parse(const char *text, struct kubeconfig *ret, struct err *e)
{
	return kubeconfig_parse(text, strlen(text), "", ret, e);
}

/* A kubeconfig whose cluster and user are the given lines (indented by four). */
static char *with(const char *cluster, const char *user)
{
	return str_printf("current-context: c\ncontexts:\n- name: other\n  context: {cluster: x, user: y}\n- name: c\n"
			  "  context: {cluster: k, user: u, namespace: n}\n"
			  "clusters:\n- name: x\n  cluster: {server: \"https://wrong\"}\n- name: k\n  cluster:\n"
			  "    server: https://right\n%s"
			  "users:\n- name: y\n  user: {token: wrong}\n- name: u\n  user:\n    extensions: []\n%s",
			  cluster, user);
}

static void test_admin_conf(void **state)
{
	(void)state;
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct err e = { 0 };
	assert_ok(parse(admin_conf, &c, &e), e);
	assert_string_equal(c.server, "https://10.0.0.1:6443");
	assert_string_equal(c.ca_pem, CA);
	assert_string_equal(c.client_cert_pem, CERT);
	assert_string_equal(c.client_key_pem, KEY);
	assert_string_equal(c.user, "kubernetes-admin");
	assert_string_equal(c.cluster, "kubernetes");
	assert_string_equal(c.context, "kubernetes-admin@kubernetes");
	assert_null(c.ca_path);
	assert_null(c.token);
	assert_null(c.tls_server_name);
	assert_null(c.unsupported);
}

static void test_the_current_context_counts(void **state)
{
	(void)state;
	char *text cleanup(str_freep) = with("    tls-server-name: kubernetes\n", "    token: t0ken\n    client-key: \"\"\n");
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct err e = { 0 };
	assert_ok(parse(text, &c, &e), e);
	assert_string_equal(c.server, "https://right");
	assert_string_equal(c.token, "t0ken");
	assert_string_equal(c.tls_server_name, "kubernetes");
	assert_string_equal(c.cluster, "k");
	assert_string_equal(c.user, "u");
	assert_null(c.ca_pem);
	assert_null(c.client_cert_pem);
}

static void test_cluster_info(void **state)
{
	(void)state;
	static const char text[] = "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: " CA_64 "\n"
				   "    server: https://cp:6443\n  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\n"
				   "preferences: {}\nusers: null\n";
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct err e = { 0 };
	assert_ok(parse(text, &c, &e), e);
	assert_string_equal(c.server, "https://cp:6443");
	assert_string_equal(c.ca_pem, CA);
	assert_string_equal(c.cluster, "");
}

static void test_what_our_client_does_not_do(void **state)
{
	(void)state;
	static const struct {
		const char *cluster, *user, *field;
	} cases[] = {
		{ "", "    exec: {command: aws}\n", "exec" },
		{ "", "    auth-provider:\n      name: oidc\n", "auth-provider" },
		{ "", "    username: a\n    password: b\n", "username" },
		{ "", "    as: someone\n", "as" },
		{ "", "    as-groups: [a]\n", "as-groups" },
		{ "    insecure-skip-tls-verify: true\n", "", "insecure-skip-tls-verify" },
		{ "    insecure-skip-tls-verify: false\n", "", NULL },
		{ "    proxy-url: http://p\n", "", "proxy-url" },
		{ "", "    exec: null\n    as: \"\"\n    as-uid: ~\n    username:\n", NULL },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *text cleanup(str_freep) = with(cases[i].cluster, cases[i].user);
		struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
		struct err e = { 0 };
		assert_ok(parse(text, &c, &e), e);
		if (!str_eq(c.unsupported, cases[i].field))
			fail_msg("case %zu: %s", i, c.unsupported ? c.unsupported : "nothing");
	}
}

static void test_broken_input_names_the_field(void **state)
{
	(void)state;
	static const struct {
		const char *cluster, *user, *text, *says;
	} cases[] = {
		{ NULL, NULL, "", "kubeconfig: YAML" },
		{ NULL, NULL, "{}", "current-context" },
		{ NULL, NULL, "[]", "current-context" },
		{ NULL, NULL, "just text", "current-context" },
		{ NULL, NULL, "a: [", "line" },
		{ NULL, NULL, "current-context: c", "contexts has no \"c\"" },
		{ NULL, NULL, "current-context: c\ncontexts: [{name: c}]", "contexts \"c\" has no context" },
		{ NULL, NULL, "current-context: c\ncontexts: [{name: c, context: {user: u}}]", "names no cluster" },
		{ NULL, NULL, "current-context: c\ncontexts: [{name: c, context: {cluster: u}}]", "names no user" },
		{ NULL, NULL, "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]", "clusters has no \"k\"" },
		{ NULL, NULL,
		  "current-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\nclusters: [{name: k, cluster: {a: b}}]",
		  "users has no \"u\"" },
		{ "    certificate-authority-data: \"!\"\n", "", NULL, "clusters \"k\": certificate-authority-data" },
		{ "    certificate-authority-data: QQBB\n", "", NULL, "not text" },
		{ "    certificate-authority-data: QUJD\n    certificate-authority: /a\n", "", NULL, "both" },
		{ "    certificate-authority: relative.crt\n", "", NULL, "relative" },
		{ "    certificate-authority: /nowhere/ca.crt\n", "", NULL, "/nowhere/ca.crt" },
		{ "", "    client-certificate-data: QUJD\n", NULL, "users \"u\": client-certificate and client-key" },
		{ "", "    client-key-data: QUJD\n", NULL, "users \"u\": client-certificate and client-key" },
		{ "", "    client-key-data: QUJD=\n    client-certificate-data: QUJD\n", NULL, "client-key-data" },
		{ "", "    tokenFile: /nowhere/token\n", NULL, "users \"u\": tokenFile: opening /nowhere/token" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *text cleanup(str_freep) = cases[i].text ? str_dup(cases[i].text) : with(cases[i].cluster, cases[i].user);
		struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
		struct err e = { 0 };
		if (parse(text, &c, &e).ok || !strstr(e.message, cases[i].says))
			fail_msg("case %zu: \"%s\" is not in \"%s\"", i, cases[i].says, e.message);
		assert_true(e.kind == ERR_INPUT || e.kind == ERR_NOT_FOUND);
		assert_null(c.server);
	}
}

/* --- Files ---------------------------------------------------------------------------------------------------------- */

static char folder[] = "/tmp/certrotation-kubeconfig-XXXXXX";

static int make_folder(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static void put(const char *name, const char *text)
{
	struct err e = { 0 };
	char *path cleanup(str_freep) = str_printf("%s/%s", folder, name);
	assert_ok(file_replace(path, text, strlen(text), 0600, NULL, &e), e);
}

static int drop_folder(void **state)
{
	static const char *const names[] = { "sub/kubelet.conf", "sub/ca.crt", "both.pem", "token" };
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char *path cleanup(str_freep) = str_printf("%s/%s", folder, names[i]);
		(void)unlink(path);
	}
	char *sub cleanup(str_freep) = str_printf("%s/sub", folder);
	return rmdir(sub) | rmdir(folder);
}

/* References are relative to the kubeconfig's folder, and absolute ones are looked up under `root`. */
static void test_references(void **state)
{
	(void)state;
	char *sub cleanup(str_freep) = str_printf("%s/sub", folder);
	assert_int_equal(mkdir(sub, 0700), 0);
	char *text cleanup(str_freep) = with("    certificate-authority: ca.crt\n",
					     "    client-certificate: /both.pem\n    client-key: ../both.pem\n    tokenFile: /token\n"
					     "    token: ignored\n");
	put("sub/kubelet.conf", text);
	put("sub/ca.crt", CA);
	put("both.pem", CERT KEY);
	put("token", "t0ken\n");
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct err e = { 0 };
	assert_ok(kubeconfig_load("/sub/kubelet.conf", folder, &c, &e), e);
	assert_string_equal(c.ca_pem, CA);
	assert_string_equal(c.client_cert_pem, CERT KEY);
	assert_string_equal(c.client_key_pem, CERT KEY);
	assert_string_equal(c.token, "t0ken");
	assert_true(str_ends(c.ca_path, "/sub/ca.crt") && str_starts(c.ca_path, folder));
	assert_true(str_ends(c.client_cert_path, "/both.pem"));
	assert_true(str_ends(c.client_key_path, "/sub/../both.pem"));
	assert_true(str_ends(c.token_path, "/token"));
}

static void test_a_missing_file(void **state)
{
	(void)state;
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct err e = { 0 };
	assert_false(kubeconfig_load("/nothing.conf", folder, &c, &e).ok);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
	assert_non_null(strstr(e.message, "/nothing.conf"));
}

/* --- Replacing and writing ------------------------------------------------------------------------------------------ */

static void replace_in(const char *text, const char *ca, const char *cert, const char *key, const char *expected)
{
	struct buf out cleanup(buf_release) = BUF_SECRET;
	struct err e = { 0 };
	assert_ok(kubeconfig_replace(text, strlen(text), ca, cert, key, &out, &e), e);
	assert_string_equal(buf_str(&out), expected);
}

/* Comments, order, quotes and foreign entries stay as they are. */
static void test_replace(void **state)
{
	(void)state;
	static const char before[] =
		"# mine\nkind:   Config\ncurrent-context: 'c'\n"
		"users:\n- user: {client-key-data: S0VZ, client-certificate-data: \"Q0VSVA==\"}   # flow\n  name: u\n"
		"- name: other\n  user: {client-key-data: b3RoZXI=}\n"
		"clusters:\n  -   name: k\n      cluster:\n        certificate-authority-data: >-\n          Q0E=\n"
		"        server: https://s\ncontexts: [{name: c, context: {user: u, cluster: k}}]\n";
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct buf out cleanup(buf_release) = BUF_SECRET;
	struct err e = { 0 };
	assert_ok(kubeconfig_replace(before, strlen(before), CA, CERT, KEY, &out, &e), e);
	assert_ok(parse(buf_str(&out), &c, &e), e);
	assert_string_equal(c.ca_pem, CA);
	assert_string_equal(c.client_cert_pem, CERT);
	assert_string_equal(c.client_key_pem, KEY);
	assert_true(str_starts(buf_str(&out), "# mine\nkind:   Config\ncurrent-context: 'c'\nusers:\n- user: {client-key-data: "));
	assert_non_null(strstr(buf_str(&out), "}   # flow\n  name: u\n- name: other\n  user: {client-key-data: b3RoZXI=}\n"));
	replace_in(before, NULL, NULL, NULL, before);
	replace_in(admin_conf, CA, CERT, KEY, admin_conf);
}

static void test_replace_only_what_is_embedded(void **state)
{
	(void)state;
	char *text cleanup(str_freep) = with("    certificate-authority: /etc/kubernetes/pki/ca.crt\n",
					     "    client-certificate-data: QUJD\n    client-key-data: \"\"\n");
	const char *const given[][3] = { { CA, NULL, NULL }, { NULL, NULL, KEY } };
	const char *const says[] = { "certificate-authority-data", "client-key-data" };
	for (size_t i = 0; i < ARRAY_LEN(given); i++) {
		struct buf out cleanup(buf_release) = BUF_SECRET;
		struct err e = { 0 };
		assert_false(kubeconfig_replace(text, strlen(text), given[i][0], given[i][1], given[i][2], &out, &e).ok);
		assert_int_equal(e.kind, ERR_INPUT);
		assert_non_null(strstr(e.message, says[i]));
		assert_int_equal(out.len, 0);
	}
}

static void test_write(void **state)
{
	(void)state;
	struct buf out cleanup(buf_release) = BUF_SECRET;
	kubeconfig_write("kubernetes", "https://10.0.0.1:6443", "kubernetes-admin", CA, CERT, KEY, &out);
	assert_string_equal(buf_str(&out), admin_conf);
}

/* Whatever the names are, they come back as they were. */
static void test_written_names_come_back(void **state)
{
	(void)state;
	static const char *const names[] = { "system:node:a.b", "true", "null", "123", "a b", "a: b", "it's", "\"q\"", "-", "a:", "#x",
					     "~", "no", "x#y", "\xc3\xa9", "0x1f", "1e3", "@a", "ends ", "a\nb" };
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		struct buf out cleanup(buf_release) = BUF_SECRET;
		struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
		struct err e = { 0 };
		kubeconfig_write(names[i], "https://[::1]:6443", names[i], CA, NULL, NULL, &out);
		assert_ok(parse(buf_str(&out), &c, &e), e);
		assert_string_equal(c.cluster, names[i]);
		assert_string_equal(c.user, names[i]);
		assert_string_equal(c.server, "https://[::1]:6443");
		assert_null(c.client_key_pem);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_admin_conf),
		cmocka_unit_test(test_the_current_context_counts),
		cmocka_unit_test(test_cluster_info),
		cmocka_unit_test(test_what_our_client_does_not_do),
		cmocka_unit_test(test_broken_input_names_the_field),
		cmocka_unit_test(test_references),
		cmocka_unit_test(test_a_missing_file),
		cmocka_unit_test(test_replace),
		cmocka_unit_test(test_replace_only_what_is_embedded),
		cmocka_unit_test(test_write),
		cmocka_unit_test(test_written_names_come_back),
	};
	return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
