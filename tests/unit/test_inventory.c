/* LINK: node kube rotation */
/* The inventory of a node, on a temporary root: what is refused before anything is touched, with its code, object and advice, and
 * what looks odd and is taken. Every file before and after is compared. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "node.h"
#include "pki_fixture.h"
#include "tree.h"

#define ETC "/etc/kubernetes"
#define MANIFESTS ETC "/manifests"
#define APISERVER MANIFESTS "/kube-apiserver.yaml"
#define MANAGER MANIFESTS "/kube-controller-manager.yaml"
#define SCHEDULER MANIFESTS "/kube-scheduler.yaml"
#define CONFIG "/var/lib/kubelet/config.yaml"
#define KUBELET_PKI "/var/lib/kubelet/pki"
#define NODE "cp-1"

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

/* --- A node as kubeadm leaves it -------------------------------------------------------------------------------------------- */

static const char *const CA[] = { "keyUsage", "critical,digitalSignature,keyEncipherment,keyCertSign", "basicConstraints", "critical,CA:TRUE",
				  "subjectKeyIdentifier", "hash", "subjectAltName", "DNS:kubernetes", NULL };
static const char *const SERVER[] = { "keyUsage", "critical,digitalSignature,keyEncipherment", "extendedKeyUsage", "serverAuth",
				      "basicConstraints", "critical,CA:FALSE", "authorityKeyIdentifier", "keyid",
				      "subjectAltName", "DNS:cp-1,DNS:kubernetes,DNS:kubernetes.default.svc,IP:10.96.0.1,IP:fd00::1", NULL };
static const char *const CLIENT[] = { "keyUsage", "critical,digitalSignature,keyEncipherment", "extendedKeyUsage", "clientAuth",
				      "basicConstraints", "critical,CA:FALSE", "authorityKeyIdentifier", "keyid", NULL };
static const char *const BARE_CA[] = { "basicConstraints", "CA:TRUE", NULL };
static const char *const BARE_CLIENT[] = { "extendedKeyUsage", "clientAuth", NULL };
static const char *const BARE_SERVER[] = { "extendedKeyUsage", "serverAuth", "subjectAltName", "DNS:cp-1", NULL };

struct how {
	const char *ca_algorithm, *leaf_algorithm; /* NULL: ECDSA-P256 */
	const char *const *ca, *const *server, *const *client; /* extensions; NULL: kubeadm's */
	int64_t ca_from_ms, ca_to_ms;              /* relative to now; 0: as usual */
	bool worker;
	const char *pki;                           /* NULL: /etc/kubernetes/pki */
};

struct site {
	struct tree t;
	const struct key *ca_key, *leaf_key;
	struct cert *ca;
	const char *pki;
	const char *const *server, *const *client;
};

static void site_release(struct site *s)
{
	cert_freep(&s->ca);
	tree_release(&s->t);
}

static const char *or(const char *a, const char *b)
{
	return a ? a : b;
}

/* One leaf: its shape, and its end relative to now. */
struct shape {
	const char *group, *name;
	const char *const *extensions;
	int64_t to_ms;
	const struct key *key; /* NULL: the site's */
};

static struct cert *leaf(const struct site *s, const struct shape *h)
{
	int64_t now = clock_now_ms();
	const struct rdn subject[] = { { h->group ? "O" : "CN", V_ASN1_PRINTABLESTRING, or(h->group, h->name), 0 },
				       { h->group ? "CN" : NULL, V_ASN1_PRINTABLESTRING, h->name, 0 }, { NULL, 0, NULL, 0 } };
	return fixture_cert(&(struct crafted){ .subject = subject, .key = h->key ? h->key : s->leaf_key, .issuer = s->ca, .issuer_key = s->ca_key,
					       .extensions = h->extensions, .from_ms = now - 30 * DAY_MS,
					       .to_ms = now + (h->to_ms ? h->to_ms : 300 * DAY_MS) });
}

static char *pem_of(const struct cert *c)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	cert_to_pem(c, &text);
	return buf_take(&text);
}

static char *key_pem_of(const struct key *k)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	key_to_pem(k, &text);
	return buf_take(&text);
}

static char *in_pki(const struct site *s, const char *name)
{
	return str_printf("%s/%s", s->pki, name);
}

static void put_pair(const struct site *s, const char *name, const struct shape *h)
{
	struct cert *c cleanup(cert_freep) = leaf(s, h);
	char *crt cleanup(str_freep) = str_printf("%s/%s.crt", s->pki, name), *key cleanup(str_freep) = str_printf("%s/%s.key", s->pki, name);
	char *pem cleanup(str_freep) = pem_of(c), *key_pem cleanup(str_freep) = key_pem_of(h->key ? h->key : s->leaf_key);
	tree_put(&s->t, crt, pem);
	tree_put_mode(&s->t, key, key_pem, 0600);
}

static void put_kubeconfig(const struct site *s, const char *path, const struct shape *h)
{
	struct cert *c cleanup(cert_freep) = leaf(s, h);
	struct buf text cleanup(buf_release) = BUF_SECRET;
	char *ca cleanup(str_freep) = pem_of(s->ca), *pem cleanup(str_freep) = pem_of(c);
	char *key cleanup(str_freep) = key_pem_of(h->key ? h->key : s->leaf_key);
	kubeconfig_write("kubernetes", "https://172.18.0.9:6443", h->name, ca, pem, key, &text);
	tree_put_mode(&s->t, path, buf_str(&text), 0600);
}

/* A kubeconfig that names the certificate by its link, as kubeadm writes it for kubelets. */
static void put_kubelet(const struct site *s, const struct shape *h)
{
	struct cert *c cleanup(cert_freep) = leaf(s, h);
	struct buf ca_text cleanup(buf_release) = BUF_INIT;
	char *ca cleanup(str_freep) = pem_of(s->ca), *pem cleanup(str_freep) = pem_of(c);
	char *key cleanup(str_freep) = key_pem_of(h->key ? h->key : s->leaf_key), *both cleanup(str_freep) = str_printf("%s%s", pem, key);
	base64_encode(ca, strlen(ca), &ca_text);
	char *text cleanup(str_freep) = str_printf(
		"apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: %s\n    server: https://172.18.0.9:6443\n  name: k\n"
		"contexts:\n- context:\n    cluster: k\n    user: u\n  name: c\ncurrent-context: c\nkind: Config\nusers:\n- name: u\n  user:\n"
		"    client-certificate: " KUBELET_PKI "/kubelet-client-current.pem\n"
		"    client-key: " KUBELET_PKI "/kubelet-client-current.pem\n", buf_str(&ca_text));
	tree_put_mode(&s->t, KUBELET_PKI "/kubelet-client-2026-01-01-00-00-00.pem", both, 0600);
	tree_link(&s->t, "kubelet-client-2026-01-01-00-00-00.pem", KUBELET_PKI "/kubelet-client-current.pem");
	tree_put_mode(&s->t, ETC "/kubelet.conf", text, 0600);
}

static void put_fixture(const struct site *s, const char *path)
{
	char *text cleanup(str_freep) = fixture_text(str_eq(path, CONFIG) ? "kubelet-config.yaml" : strrchr(path, '/') + 1);
	tree_put(&s->t, path, text);
	for (char *now cleanup(str_freep) = NULL; !str_eq(s->pki, ETC "/pki") && (str_freep(&now), now = tree_read(&s->t, path)) && strstr(now, ETC "/pki");)
		tree_edit(&s->t, path, ETC "/pki", s->pki);
}

static void put_control_plane(const struct site *s)
{
	static const char *const manifests[] = { APISERVER, MANAGER, SCHEDULER, MANIFESTS "/etcd.yaml" };
	for (size_t i = 0; i < ARRAY_LEN(manifests); i++)
		put_fixture(s, manifests[i]);
	char *key_path cleanup(str_freep) = in_pki(s, "ca.key"), *key cleanup(str_freep) = key_pem_of(s->ca_key);
	tree_put_mode(&s->t, key_path, key, 0600);
	put_pair(s, "apiserver", &(struct shape){ NULL, "kube-apiserver", s->server, 0, NULL });
	put_pair(s, "apiserver-kubelet-client", &(struct shape){ "kubeadm:cluster-admins", "kube-apiserver-kubelet-client", s->client, 0, NULL });
	put_kubeconfig(s, ETC "/admin.conf", &(struct shape){ "kubeadm:cluster-admins", "kubernetes-admin", s->client, 0, NULL });
	put_kubeconfig(s, ETC "/super-admin.conf", &(struct shape){ "system:masters", "kubernetes-super-admin", s->client, 0, NULL });
	put_kubeconfig(s, ETC "/controller-manager.conf", &(struct shape){ NULL, "system:kube-controller-manager", s->client, 0, NULL });
	put_kubeconfig(s, ETC "/scheduler.conf", &(struct shape){ NULL, "system:kube-scheduler", s->client, 0, NULL });
}

static struct site site_new(const struct how *h)
{
	static const struct rdn subject[] = { { "CN", V_ASN1_PRINTABLESTRING, "kubernetes", 0 }, { NULL, 0, NULL, 0 } };
	struct site s = { .t = tree_new(), .pki = or(h->pki, ETC "/pki"), .server = h->server ? h->server : SERVER,
			  .client = h->client ? h->client : CLIENT };
	int64_t now = clock_now_ms();
	s.ca_key = fixture_key(or(h->ca_algorithm, "ECDSA-P256"), 0);
	s.leaf_key = fixture_key(or(h->leaf_algorithm, "ECDSA-P256"), 1);
	s.ca = fixture_cert(&(struct crafted){ .subject = subject, .key = s.ca_key, .extensions = h->ca ? h->ca : CA,
					       .from_ms = now + (h->ca_from_ms ? h->ca_from_ms : -YEAR_MS),
					       .to_ms = now + (h->ca_to_ms ? h->ca_to_ms : 9 * YEAR_MS) });
	char *ca_path cleanup(str_freep) = in_pki(&s, "ca.crt"), *ca cleanup(str_freep) = pem_of(s.ca);
	tree_put(&s.t, ca_path, ca);
	put_fixture(&s, CONFIG);
	tree_mkdir(&s.t, MANIFESTS);
	put_kubelet(&s, &(struct shape){ "system:nodes", "system:node:" NODE, s.client, 0, NULL });
	if (!h->worker)
		put_control_plane(&s);
	return s;
}

/* --- The inventory ------------------------------------------------------------------------------------------------------------ */

struct seen_site {
	struct desired desired;
	struct report report;
	struct node node;
};

static void seen_site_release(struct seen_site *s)
{
	node_release(&s->node);
	report_release(&s->report);
	desired_release(&s->desired);
}

static void look(const struct site *s, struct seen_site *ret)
{
	struct err e = { 0 };
	*ret = (struct seen_site){ .desired = { .run = str_dup("inventory"), .node = str_dup(NODE),
						  .of = { [AUTHORITY_KUBERNETES] = { .wanted = true } } } };
	for (size_t f = 0; f < FACET_COUNT; f++)
		ret->desired.levels[f] = FACET_UNTOUCHED;
	ret->node.desired = &ret->desired;
	ret->node.report = &ret->report;
	ret->node.elsewhere = true;
	if (node_begin(&ret->node, s->t.root, &e).ok)
		assert_ok(node_observe(&ret->node, &e), e);
	else if (!ret->report.n_blockers)
		fail_msg("no blocker says: %s", e.message);
}

/* Asked for everything, a node that blocks does nothing. */
static void try_to_act(struct seen_site *seen)
{
	const struct ca_request q = { .common_name = "kubernetes", .unique = "n", .now_ms = clock_now_ms(), .validity_ms = YEAR_MS };
	struct err e = { 0 };
	assert_ok(ca_make(&q, fixture_key("ECDSA-P256", 2), &seen->node.of[AUTHORITY_KUBERNETES].new, &e), e);
	for (size_t f = 0; f < FACET_COUNT; f++)
		seen->desired.levels[f] = facet_top((enum facet)f);
	assert_ok(node_converge(&seen->node, &e), e);
	assert_int_equal(seen->report.changed.n + seen->report.restarted.n, 0);
}

static void assert_taken(const struct site *s)
{
	struct seen_site seen cleanup(seen_site_release);
	char *before cleanup(str_freep) = tree_snapshot(&s->t);
	look(s, &seen);
	char *after cleanup(str_freep) = tree_snapshot(&s->t), *ca cleanup(str_freep) = pem_of(s->ca);
	for (size_t i = 0; i < seen.report.n_blockers; i++)
		fail_msg("%s: %s: %s", seen.report.blockers[i].code, seen.report.blockers[i].object, seen.report.blockers[i].message);
	assert_string_equal(seen.report.ca_pem, ca);
	assert_int_equal(seen.report.levels[FACET_TRUST], TRUST_OLD);
	assert_int_equal(seen.report.levels[FACET_KUBELET], ISSUED_OLD);
	assert_string_equal(after, before);
}

/* Refused by that blocker and by no other, about that file; every file is as before, whatever is asked for. */
static void assert_refused(const struct site *s, const char *code, const char *object, const char *part)
{
	struct seen_site seen cleanup(seen_site_release);
	char *before cleanup(str_freep) = tree_snapshot(&s->t), *full cleanup(str_freep) = tree_path(&s->t, object);
	look(s, &seen);
	bool found = false;
	for (size_t i = 0; i < seen.report.n_blockers; i++) {
		const struct blocker *b = &seen.report.blockers[i];
		if (!str_eq(b->code, code) || !str_eq(b->object, full))
			fail_msg("instead of %s of %s: %s: %s: %s", code, object, b->code, b->object, b->message);
		found = found || strstr(b->message, part);
	}
	if (!found)
		fail_msg("no %s of %s speaks of \"%s\"", code, object, part);
	try_to_act(&seen);
	char *after cleanup(str_freep) = tree_snapshot(&s->t);
	assert_string_equal(after, before);
}

static struct site plain(void)
{
	return site_new(&(struct how){ 0 });
}

static void take_away(const struct site *s, const char *path)
{
	char *full cleanup(str_freep) = tree_path(&s->t, path);
	assert_int_equal(remove(full), 0);
}

/* --- What is taken ------------------------------------------------------------------------------------------------------------ */

static void test_nodes_of_many_shapes_are_taken(void **state)
{
	(void)state;
	static const char *const one[] = { "basicConstraints", "critical,CA:TRUE,pathlen:1", "subjectKeyIdentifier", "hash", NULL };
	static const char *const server[] = { "keyUsage", "critical,digitalSignature", "extendedKeyUsage", "serverAuth,clientAuth",
					      "subjectAltName", "critical,DNS:*.example.org,IP:192.0.2.1,URI:spiffe://a/b", NULL };
	static const struct how cases[] = {
		{ 0 },                                                                            /* kubeadm's */
		{ .worker = true },
		{ .ca = BARE_CA, .client = BARE_CLIENT, .server = BARE_SERVER },                 /* no SKI, no AKI, no keyUsage */
		{ .ca = BARE_CA, .client = BARE_CLIENT, .worker = true },
		{ .ca = one },
		{ .server = server },
		{ .ca_algorithm = "RSA-2048", .leaf_algorithm = "RSA-2048" },
		{ .ca_algorithm = "RSA-2048", .leaf_algorithm = "ECDSA-P256" },
		{ .ca_algorithm = "ECDSA-P384", .leaf_algorithm = "RSA-2048" },
		{ .ca_algorithm = "ECDSA-P521", .leaf_algorithm = "ECDSA-P384" },
		{ .pki = ETC "/certs/of/ours" },
		{ .pki = ETC "/certs/of/ours", .worker = true },
		{ .ca_to_ms = 2 * DAY_MS },                                                       /* an authority near its end: the reason to rotate */
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct site s cleanup(site_release) = site_new(&cases[i]);
		assert_taken(&s);
	}
}

static void test_manifests_edited_by_hand_are_taken(void **state)
{
	(void)state;
	struct site s cleanup(site_release) = plain();
	tree_edit(&s.t, APISERVER, "    - --allow-privileged=true\n",
		  "    # ours --client-ca-file=/nowhere\n    - --allow-privileged=true   # kept\n    - --v=2\n    - --audit-log-path=-\n");
	tree_edit(&s.t, APISERVER, "  volumes:\n", "  volumes:\n  - hostPath:\n      path: /srv/audit\n    name: audit\n");
	tree_edit(&s.t, MANAGER, "    - --leader-elect=true\n", "\n    - \"--leader-elect=true\"\n    - '--v=4'\n    - --feature-gates=A=true\n");
	tree_edit(&s.t, SCHEDULER, "apiVersion: v1\n", "# by hand\n---\napiVersion: v1\n");
	assert_taken(&s);
}

/* --- The authority ------------------------------------------------------------------------------------------------------------ */

static void test_keys_that_are_away_or_anothers(void **state)
{
	(void)state;
	struct site s cleanup(site_release) = plain();
	take_away(&s, ETC "/pki/ca.key");
	assert_refused(&s, "CAKeyMissing", ETC "/pki/ca.key", "copy it here");
	char *other cleanup(str_freep) = key_pem_of(s.leaf_key);
	tree_put_mode(&s.t, ETC "/pki/ca.key", other, 0600);
	assert_refused(&s, "ForeignAuthority", ETC "/pki/ca.key", "put the file in order");
	tree_put_mode(&s.t, ETC "/pki/ca.key", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", 0600);
	assert_refused(&s, "UnreadableFile", ETC "/pki/ca.key", "put the file in order");
}

static void test_authorities_out_of_their_time(void **state)
{
	(void)state;
	struct site expired cleanup(site_release) = site_new(&(struct how){ .ca_to_ms = -DAY_MS });
	assert_refused(&expired, "ExpiredCertificate", ETC "/pki/ca.crt", "sign it again");
	struct site worker cleanup(site_release) = site_new(&(struct how){ .ca_to_ms = -DAY_MS, .worker = true });
	assert_refused(&worker, "ExpiredCertificate", ETC "/pki/ca.crt", "sign it again");
	struct site early cleanup(site_release) = site_new(&(struct how){ .ca_from_ms = DAY_MS });
	assert_refused(&early, "BridgeForbidden", ETC "/pki/ca.crt", "is not valid before");
}

/* Judged before the new authority is made, in both directions. */
static void test_authorities_that_forbid_a_bridge(void **state)
{
	(void)state;
	static const struct { const char *algorithm; const char *const extensions[9]; const char *why; } cases[] = {
		{ NULL, { "subjectKeyIdentifier", "hash", "basicConstraints", "critical,CA:TRUE,pathlen:0", NULL }, "path length 0" },
		{ NULL, { "subjectKeyIdentifier", "hash", "basicConstraints", "critical,CA:TRUE", "nameConstraints", "critical,permitted;DNS:example.org", NULL }, "name constraints" },
		{ NULL, { "subjectKeyIdentifier", "hash", "basicConstraints", "critical,CA:TRUE", "nameConstraints", "excluded;DNS:example.org", NULL }, "name constraints" },
		{ NULL, { "subjectKeyIdentifier", "hash", "basicConstraints", "critical,CA:TRUE", "keyUsage", "critical,digitalSignature,cRLSign", NULL }, "not a CA" },
		{ NULL, { "subjectKeyIdentifier", "hash", "basicConstraints", "critical,CA:TRUE", "1.2.3.4", "critical,DER:0500", NULL }, "critical extension" },
		{ "ED25519", { "subjectKeyIdentifier", "hash", "basicConstraints", "critical,CA:TRUE", NULL }, "not supported" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct site s cleanup(site_release) = site_new(&(struct how){ .ca = cases[i].extensions, .ca_algorithm = cases[i].algorithm });
		assert_refused(&s, "BridgeForbidden", ETC "/pki/ca.crt", cases[i].why);
		assert_refused(&s, "BridgeForbidden", ETC "/pki/ca.crt", "sign this authority again");
	}
}

static void test_a_bundle_in_place_of_an_authority(void **state)
{
	(void)state;
	struct site s cleanup(site_release) = plain();
	struct cert *other cleanup(cert_freep) = fixture_kubeadm_ca(fixture_key("ECDSA-P256", 3));
	char *a cleanup(str_freep) = pem_of(s.ca), *b cleanup(str_freep) = pem_of(other), *both cleanup(str_freep) = str_printf("%s%s", a, b);
	tree_put(&s.t, ETC "/pki/ca.crt", both);
	assert_refused(&s, "ForeignAuthority", ETC "/pki/ca.crt", "put the file in order");
}

/* --- Leaves ------------------------------------------------------------------------------------------------------------------- */

/* Every leaf that the run will replace, in some shape. */
static void put_leaf(const struct site *s, size_t which, const struct shape *shape)
{
	struct shape h = *shape;
	static const char *const pairs[] = { "apiserver", "apiserver-kubelet-client" };
	static const char *const configs[] = { ETC "/admin.conf", ETC "/super-admin.conf", ETC "/controller-manager.conf", ETC "/scheduler.conf" };
	if (which < 2)
		put_pair(s, pairs[which], &h);
	else if (which < 6)
		put_kubeconfig(s, configs[which - 2], &h);
	else
		put_kubelet(s, &h);
}
static const char *const LEAVES[] = { ETC "/pki/apiserver.crt", ETC "/pki/apiserver-kubelet-client.crt", ETC "/admin.conf", ETC "/super-admin.conf",
				      ETC "/controller-manager.conf", ETC "/scheduler.conf", ETC "/kubelet.conf" };

static void test_leaves_that_have_expired(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(LEAVES); i++) {
		struct site s cleanup(site_release) = plain();
		put_leaf(&s, i, &(struct shape){ "system:nodes", "system:node:" NODE, CLIENT, -60000, NULL });
		assert_refused(&s, "ExpiredCertificate", LEAVES[i], "kubeadm certs renew");
	}
}

/* Not ours to replace, but no time for a rotation either. */
static void test_a_leaf_of_another_authority_that_has_expired(void **state)
{
	(void)state;
	struct site s cleanup(site_release) = plain();
	struct site other cleanup(site_release) = site_new(&(struct how){ .worker = true });
	other.ca_key = fixture_key("ECDSA-P256", 4);
	cert_freep(&other.ca);
	other.ca = fixture_kubeadm_ca(other.ca_key);
	struct cert *c cleanup(cert_freep) = leaf(&other, &(struct shape){ NULL, "front-proxy-client", CLIENT, 0, NULL });
	char *pem cleanup(str_freep) = pem_of(c);
	tree_put(&s.t, ETC "/pki/front-proxy-client.crt", pem);
	assert_taken(&s);
	struct cert *old cleanup(cert_freep) = leaf(&other, &(struct shape){ NULL, "front-proxy-client", CLIENT, -60000, NULL });
	char *old_pem cleanup(str_freep) = pem_of(old);
	tree_put(&s.t, ETC "/pki/front-proxy-client.crt", old_pem);
	assert_refused(&s, "ExpiredCertificate", ETC "/pki/front-proxy-client.crt", "kubeadm certs renew");
}

static void test_leaves_that_cannot_be_reproduced(void **state)
{
	(void)state;
	static const char *const odd[] = { "extendedKeyUsage", "clientAuth", "1.2.3.4", "critical,DER:0500", NULL };
	static const char *const ca[] = { "basicConstraints", "critical,CA:TRUE", "extendedKeyUsage", "clientAuth", NULL };
	static const char *const broken[] = { "extendedKeyUsage", "DER:0500", NULL };
	static const struct { const char *const *extensions; const char *why; } cases[] = {
		{ odd, "critical extension" }, { ca, "is a CA" }, { broken, "malformed" },
	};
	for (size_t k = 0; k < ARRAY_LEN(cases); k++)
		for (size_t i = 0; i < ARRAY_LEN(LEAVES); i++) {
			struct site s cleanup(site_release) = plain();
			put_leaf(&s, i, &(struct shape){ "system:nodes", "system:node:" NODE, cases[k].extensions, 0, NULL });
			assert_refused(&s, "IrreproducibleCertificate", LEAVES[i], cases[k].why);
		}
}

/* Where the key stays any key will do. */
static void test_keys_of_a_kind_that_is_not_made(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(LEAVES); i++) {
		struct site s cleanup(site_release) = plain();
		put_leaf(&s, i, &(struct shape){ "system:nodes", "system:node:" NODE, CLIENT, 0, fixture_key("ECDSA-P521", 5) });
		if (i < 2)
			assert_taken(&s);
		else
			assert_refused(&s, "IrreproducibleCertificate", LEAVES[i], "ECDSA-P521");
	}
}

/* A worker's certificate is signed by the controller-manager, which has its own mind about names. */
static void test_kubelets_that_the_signer_would_refuse(void **state)
{
	(void)state;
	static const char *const sans[] = { "extendedKeyUsage", "clientAuth", "subjectAltName", "DNS:cp-1", NULL };
	static const struct { struct shape shape; const char *why; } cases[] = {
		{ { "system:nodes", "system:node:" NODE, sans, 0, NULL }, "DNS:cp-1" },
		{ { "system:nodes", "system:node:other", CLIENT, 0, NULL }, "CN=system:node:" NODE },
		{ { "system:masters", "system:node:" NODE, CLIENT, 0, NULL }, "O=system:nodes" },
		{ { NULL, "system:node:" NODE, CLIENT, 0, NULL }, "O=system:nodes" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct site s cleanup(site_release) = site_new(&(struct how){ .worker = true });
		put_kubelet(&s, &cases[i].shape);
		assert_refused(&s, "IrreproducibleCertificate", ETC "/kubelet.conf", cases[i].why);
	}
}

/* The kubelet that rotates its certificate goes by its own link, whatever kubelet.conf embeds. */
static void test_kubelets_that_embed_what_they_do_not_use(void **state)
{
	(void)state;
	static const struct shape shape = { "system:nodes", "system:node:" NODE, CLIENT, 0, NULL };
	for (int worker = 0; worker < 2; worker++) {
		struct site s cleanup(site_release) = site_new(&(struct how){ .worker = worker });
		put_kubeconfig(&s, ETC "/kubelet.conf", &shape);
		assert_refused(&s, "UnsupportedKubeconfig", ETC "/kubelet.conf", "client-key to /var/lib/kubelet/pki/kubelet-client-current.pem");
		take_away(&s, KUBELET_PKI "/kubelet-client-current.pem"); /* its folder may be another */
		assert_refused(&s, "UnsupportedKubeconfig", ETC "/kubelet.conf", "restart the kubelet");
		tree_edit(&s.t, CONFIG, "rotateCertificates: true", "rotateCertificates: false");
		assert_taken(&s);
		tree_edit(&s.t, CONFIG, "rotateCertificates: false\n", "");
		assert_taken(&s);
	}
}

static void test_leaves_of_strangers(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_LEN(LEAVES); i++) {
		struct site s cleanup(site_release) = plain();
		struct site stranger = s;
		stranger.ca_key = fixture_key("ECDSA-P256", 4);
		struct cert *ca cleanup(cert_freep) = fixture_kubeadm_ca(stranger.ca_key);
		put_leaf(&stranger, i, &(struct shape){ "system:nodes", "system:node:" NODE, CLIENT, 0, NULL });
		assert_refused(&s, "ForeignAuthority", LEAVES[i], "put the file in order");
	}
}

/* --- kubeadm's files ---------------------------------------------------------------------------------------------------------- */

static void test_nodes_that_kubeadm_has_not_made(void **state)
{
	(void)state;
	static const char *const paths[] = { MANAGER, SCHEDULER, CONFIG };
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		struct site s cleanup(site_release) = plain();
		struct seen_site seen cleanup(seen_site_release);
		char *full cleanup(str_freep) = tree_path(&s.t, paths[i]);
		take_away(&s, paths[i]);
		char *before cleanup(str_freep) = tree_snapshot(&s.t);
		look(&s, &seen);
		assert_int_equal(seen.report.n_blockers, 1);
		assert_string_equal(seen.report.blockers[0].code, "NotKubeadm");
		assert_string_equal(seen.report.blockers[0].object, full);
		assert_non_null(strstr(seen.report.blockers[0].message, "put it back"));
		assert_true(seen.report.control_plane);
		char *after cleanup(str_freep) = tree_snapshot(&s.t);
		assert_string_equal(after, before);
	}
	struct site s cleanup(site_release) = plain(); /* without that one it passes for a worker: the label tells (test_preflight) */
	struct seen_site seen cleanup(seen_site_release);
	take_away(&s, APISERVER);
	look(&s, &seen);
	assert_false(seen.report.control_plane);
}

static void test_an_authority_that_cannot_be_read(void **state)
{
	(void)state;
	struct site s cleanup(site_release) = plain();
	struct seen_site seen cleanup(seen_site_release);
	char *full cleanup(str_freep) = tree_path(&s.t, ETC "/pki/ca.crt");
	tree_put(&s.t, ETC "/pki/ca.crt", "no certificate");
	look(&s, &seen);
	assert_int_equal(seen.report.n_blockers, 1);
	assert_string_equal(seen.report.blockers[0].code, "UnreadableFile");
	assert_string_equal(seen.report.blockers[0].object, full);
}

/* Whatever flag is missing, the look ends with its name and not with the program. */
static void test_flags_that_cannot_be_followed(void **state)
{
	(void)state;
	static const struct { const char *manifest, *line; } flags[] = {
		{ APISERVER, "    - --tls-cert-file=/etc/kubernetes/pki/apiserver.crt\n" },
		{ APISERVER, "    - --kubelet-client-key=/etc/kubernetes/pki/apiserver-kubelet-client.key\n" },
		{ MANAGER, "    - --cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt\n" },
		{ MANAGER, "    - --cluster-signing-key-file=/etc/kubernetes/pki/ca.key\n" },
		{ MANAGER, "    - --root-ca-file=/etc/kubernetes/pki/ca.crt\n" },
		{ MANAGER, "    - --kubeconfig=/etc/kubernetes/controller-manager.conf\n" },
		{ SCHEDULER, "    - --kubeconfig=/etc/kubernetes/scheduler.conf\n" },
	};
	for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
		struct site s cleanup(site_release) = plain();
		char *twice cleanup(str_freep) = str_printf("%s%s", flags[i].line, flags[i].line);
		char *flag cleanup(str_freep) = str_ndup(flags[i].line + 6, strcspn(flags[i].line + 6, "="));
		tree_edit(&s.t, flags[i].manifest, flags[i].line, "");
		assert_refused(&s, "MissingFlag", flags[i].manifest, flag);
		put_fixture(&s, flags[i].manifest);
		tree_edit(&s.t, flags[i].manifest, flags[i].line, twice);
		assert_refused(&s, "DuplicateFlag", flags[i].manifest, flag);
	}
}

static void test_flags_that_point_elsewhere(void **state)
{
	(void)state;
	static const struct { const char *from, *to, *advice; } cases[] = {
		{ "--root-ca-file=/etc/kubernetes/pki/ca.crt", "--root-ca-file=/etc/kubernetes/root.crt", "set it to /etc/kubernetes/pki/ca.crt" },
		{ "--cluster-signing-cert-file=/etc/kubernetes/pki/ca.crt", "--cluster-signing-cert-file=/etc/kubernetes/pki/sub.crt",
		  "set it to /etc/kubernetes/pki/ca.crt" },
		{ "--cluster-signing-key-file=/etc/kubernetes/pki/ca.key", "--cluster-signing-key-file=/opt/ca.key", "move the file under" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct site s cleanup(site_release) = plain();
		tree_edit(&s.t, MANAGER, cases[i].from, cases[i].to);
		assert_refused(&s, "UnsupportedPath", MANAGER, cases[i].advice);
	}
}

static int release_keys(void **state)
{
	(void)state;
	fixture_keys_release();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nodes_of_many_shapes_are_taken),
		cmocka_unit_test(test_manifests_edited_by_hand_are_taken),
		cmocka_unit_test(test_keys_that_are_away_or_anothers),
		cmocka_unit_test(test_authorities_out_of_their_time),
		cmocka_unit_test(test_authorities_that_forbid_a_bridge),
		cmocka_unit_test(test_a_bundle_in_place_of_an_authority),
		cmocka_unit_test(test_leaves_that_have_expired),
		cmocka_unit_test(test_a_leaf_of_another_authority_that_has_expired),
		cmocka_unit_test(test_leaves_that_cannot_be_reproduced),
		cmocka_unit_test(test_keys_of_a_kind_that_is_not_made),
		cmocka_unit_test(test_kubelets_that_the_signer_would_refuse),
		cmocka_unit_test(test_kubelets_that_embed_what_they_do_not_use),
		cmocka_unit_test(test_leaves_of_strangers),
		cmocka_unit_test(test_nodes_that_kubeadm_has_not_made),
		cmocka_unit_test(test_an_authority_that_cannot_be_read),
		cmocka_unit_test(test_flags_that_cannot_be_followed),
		cmocka_unit_test(test_flags_that_point_elsewhere),
	};
	return cmocka_run_group_tests(tests, NULL, release_keys);
}
