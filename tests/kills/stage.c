#define _XOPEN_SOURCE 700 /* nftw */

#include "stage.h"

#include "kubeconfig.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define YEAR_MS ((int64_t)365 * 86400000)
#define ALGORITHM "ECDSA-P256"
#define SERVER "https://10.0.0.1:6443"
#define POD_VOLUME "/var/lib/kubelet/pods/1a2b3c4d-0001-4002-8003-a0b0c0d0e0f0/volumes/kubernetes.io~projected/kube-api-access-x1y2z"
#define ROOTED(path) "/root" path

static void must(bool good, const char *what)
{
	if (good)
		return;
	(void)fprintf(stderr, "stage: %s\n", what);
	abort();
}

#define MUST(expr)                                   \
	do {                                         \
		struct err e = { 0 };                \
		must((expr).ok, *e.message ? e.message : #expr); \
	} while (0)

/* --- Authorities ------------------------------------------------------------------------------------------------------------------ */

static struct stage_ca authority_new(const struct tree *t, const char *unique)
{
	struct stage_ca a = { 0 };
	struct buf pem cleanup(buf_release) = BUF_SECRET;
	char *path cleanup(str_freep) = str_printf("/%s.key", unique);
	const struct ca_request q = { .common_name = "kubernetes", .unique = unique, .now_ms = clock_now_ms(), .validity_ms = 10 * YEAR_MS };
	MUST(key_generate(ALGORITHM, &a.key, &e));
	MUST(ca_make(&q, a.key, &a.ca, &e));
	key_to_pem(a.key, &pem);
	tree_put_mode(t, path, buf_str(&pem), 0600);
	a.key_path = tree_path(t, path);
	return a;
}

static void authority_release(struct stage_ca *a)
{
	cert_freep(&a->ca);
	cert_freep(&a->cross);
	key_freep(&a->key);
	str_freep(&a->key_path);
}

static struct cert *issue(const struct stage_ca *a, const char *name, const char *organization, bool server, const struct key *k)
{
	static const char *const dns[] = { "kubernetes", "node-1" };
	struct cert *leaf = NULL;
	const struct leaf_request q = { .common_name = name, .organization = organization, .client = !server, .server = server,
					.dns_names = dns, .n_dns_names = server ? ARRAY_LEN(dns) : 0, .now_ms = clock_now_ms(),
					.validity_ms = YEAR_MS };
	MUST(leaf_make(&q, k, a->ca, a->key, &leaf, &e));
	return leaf;
}

/* --- Files --------------------------------------------------------------------------------------------------------------------------- */

static void put(const struct stage *s, const char *path, const char *text, mode_t mode)
{
	char *full cleanup(str_freep) = str_printf("/root%s", path);
	tree_put_mode(&s->tree, full, text, mode);
}

static void put_pair(const struct stage *s, const char *name, const char *subject, const char *organization, bool server)
{
	struct key *k cleanup(key_freep) = NULL;
	struct buf cert cleanup(buf_release) = BUF_INIT, key cleanup(buf_release) = BUF_INIT;
	char *crt cleanup(str_freep) = str_printf(PKI "/%s.crt", name), *path cleanup(str_freep) = str_printf(PKI "/%s.key", name);
	MUST(key_generate(ALGORITHM, &k, &e));
	struct cert *leaf cleanup(cert_freep) = issue(&s->old, subject, organization, server, k);
	cert_to_pem(leaf, &cert);
	key_to_pem(k, &key);
	put(s, crt, buf_str(&cert), 0644);
	put(s, path, buf_str(&key), 0600);
}

static void put_kubeconfig(const struct stage *s, const char *name, const char *subject, const char *organization)
{
	struct key *k cleanup(key_freep) = NULL;
	struct buf ca cleanup(buf_release) = BUF_INIT, cert cleanup(buf_release) = BUF_INIT, key cleanup(buf_release) = BUF_INIT;
	struct buf text cleanup(buf_release) = BUF_INIT;
	char *path cleanup(str_freep) = str_printf("/etc/kubernetes/%s.conf", name);
	MUST(key_generate(ALGORITHM, &k, &e));
	struct cert *leaf cleanup(cert_freep) = issue(&s->old, subject, organization, false, k);
	cert_to_pem(s->old.ca, &ca);
	cert_to_pem(leaf, &cert);
	key_to_pem(k, &key);
	kubeconfig_write("kubernetes", SERVER, subject, buf_str(&ca), buf_str(&cert), buf_str(&key), &text);
	put(s, path, buf_str(&text), 0600);
}

/* As `kubeadm init` and the kubelet's first rotation leave them. */
static void put_kubelet(const struct stage *s)
{
	static const char dated[] = "/var/lib/kubelet/pki/kubelet-client-2026-01-02-03-04-05.pem";
	struct key *k cleanup(key_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_INIT, ca cleanup(buf_release) = BUF_INIT, ca64 cleanup(buf_release) = BUF_INIT;
	MUST(key_generate(ALGORITHM, &k, &e));
	struct cert *leaf cleanup(cert_freep) = issue(&s->old, "system:node:" NODE, "system:nodes", false, k);
	cert_to_pem(leaf, &pem);
	key_to_pem(k, &pem);
	put(s, dated, buf_str(&pem), 0600);
	tree_link(&s->tree, dated, ROOTED(CURRENT));
	cert_to_pem(s->old.ca, &ca);
	base64_encode(buf_str(&ca), ca.len, &ca64);
	char *text cleanup(str_freep) = str_printf(
		"apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: %s\n    server: " SERVER "\n  name: kubernetes\n"
		"contexts:\n- context:\n    cluster: kubernetes\n    user: system:node:" NODE "\n  name: system:node:" NODE "@kubernetes\n"
		"current-context: system:node:" NODE "@kubernetes\nkind: Config\npreferences: {}\nusers:\n- name: system:node:" NODE "\n"
		"  user:\n    client-certificate: " CURRENT "\n    client-key: " CURRENT "\n", buf_str(&ca64));
	put(s, "/etc/kubernetes/kubelet.conf", text, 0600);
	char *config cleanup(str_freep) = fixture_text("kubelet-config.yaml");
	put(s, "/var/lib/kubelet/config.yaml", config, 0644);
	put(s, POD_VOLUME "/ca.crt", buf_str(&ca), 0644);
}

static void put_control_plane(const struct stage *s)
{
	static const char *const manifests[] = { "etcd.yaml", "kube-apiserver.yaml", "kube-controller-manager.yaml", "kube-scheduler.yaml" };
	struct buf key cleanup(buf_release) = BUF_INIT;
	for (size_t i = 0; i < ARRAY_LEN(manifests); i++) {
		char *text cleanup(str_freep) = fixture_text(manifests[i]), *path cleanup(str_freep) = str_printf(MANIFESTS "/%s", manifests[i]);
		put(s, path, text, 0600);
	}
	key_to_pem(s->old.key, &key);
	put(s, PKI "/ca.key", buf_str(&key), 0600);
	put_pair(s, "apiserver", "kube-apiserver", NULL, true);
	put_pair(s, "apiserver-kubelet-client", "kube-apiserver-kubelet-client", "kubeadm:cluster-admins", false);
	put_kubeconfig(s, "admin", "kubernetes-admin", "kubeadm:cluster-admins");
	put_kubeconfig(s, "super-admin", "kubernetes-super-admin", "system:masters");
	put_kubeconfig(s, "scheduler", "system:kube-scheduler", NULL);
	put_kubeconfig(s, "controller-manager", "system:kube-controller-manager", NULL);
}

struct stage stage_new(bool control_plane)
{
	struct stage s = { .tree = tree_new(), .control_plane = control_plane };
	struct buf ca cleanup(buf_release) = BUF_INIT;
	s.root = tree_path(&s.tree, "/root");
	s.old = authority_new(&s.tree, "old");
	s.new = authority_new(&s.tree, "new");
	MUST(ca_cross_sign(s.new.ca, s.old.ca, s.old.key, clock_now_ms(), &s.new.cross, &e));
	MUST(ca_cross_sign(s.old.ca, s.new.ca, s.new.key, clock_now_ms(), &s.old.cross, &e));
	cert_to_pem(s.old.ca, &ca);
	tree_mkdir(&s.tree, ROOTED(MANIFESTS));
	put(&s, PKI "/ca.crt", buf_str(&ca), 0644);
	put_kubelet(&s);
	if (control_plane)
		put_control_plane(&s);
	return s;
}

void stage_release(struct stage *s)
{
	authority_release(&s->old);
	authority_release(&s->new);
	str_freep(&s->root);
	tree_release(&s->tree);
}

static char *pem_of(const struct cert *c)
{
	struct buf pem = BUF_INIT;
	cert_to_pem(c, &pem);
	return buf_take(&pem);
}

const char *stage_desired(const struct stage *s, const int *levels, bool back, char ret_path[static CALL_PATH_SIZE])
{
	const struct stage_ca *from = back ? &s->new : &s->old, *to = back ? &s->old : &s->new;
	struct desired d cleanup(desired_release) = { .pods = true, .run = str_dup(RUN), .node = str_dup(NODE),
						      .of = { [AUTHORITY_KUBERNETES] = { true, pem_of(from->ca), pem_of(to->ca),
											 pem_of(to->cross) } } };
	for (size_t f = 0; f < FACET_COUNT; f++)
		d.levels[f] = levels[f];
	struct json *j cleanup(json_freep) = desired_to_json(&d);
	char *text cleanup(str_freep) = json_text(j);
	tree_put(&s->tree, "/desired.json", text);
	(void)snprintf(ret_path, CALL_PATH_SIZE, "%s/desired.json", s->tree.root);
	return ret_path;
}

static int remove_one(const char *path, const struct stat *st UNUSED, int kind UNUSED, struct FTW *at)
{
	return at->level ? remove(path) : 0;
}

void stage_clear(const struct stage *s)
{
	must(nftw(s->root, remove_one, 16, FTW_PHYS | FTW_DEPTH) == 0, s->root);
}
