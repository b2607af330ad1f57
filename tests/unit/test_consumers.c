/* LINK: engine consumers rotation kube node */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "consumer.h"
#include "tls_peer.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

static struct peer_ca *old_ca, *new_ca, *third_ca, *server_ca;
static struct peer_leaf leaf;

static int make_world(void **state)
{
	(void)state;
	old_ca = peer_ca_new("old");
	new_ca = peer_ca_new("new");
	third_ca = peer_ca_new("third");
	server_ca = peer_ca_new("server");
	leaf = peer_leaf_new(server_ca, "server");
	return 0;
}

static int drop_world(void **state)
{
	(void)state;
	peer_ca_freep(&old_ca);
	peer_ca_freep(&new_ca);
	peer_ca_freep(&third_ca);
	peer_ca_freep(&server_ca);
	peer_leaf_release(&leaf);
	return 0;
}

/* --- An API server that knows a few paths -------------------------------------------------------------------------------------- */

struct api {
	struct entry {
		const char *path; /* without its query */
		int status;       /* 0: 200 */
		char *body;       /* owned */
	} entries[24];
	size_t n;
	peer_script *script; /* NULL: serve */
	struct peer *peer;
	struct kube *kube;
	struct world world;
	struct node_report reports[4];
	struct settings settings;
	struct observation o;
};

static void serve(void *context, const struct peer_request *r)
{
	struct api *a = context;
	size_t n = strcspn(r->target, "?");
	for (size_t i = 0; i < a->n; i++) {
		const struct entry *entry = &a->entries[i];
		if (strlen(entry->path) != n || strncmp(entry->path, r->target, n) != 0)
			continue;
		peer_answer(r, entry->status ? entry->status : 200, "", entry->body);
		return;
	}
	peer_answer(r, 404, "", "{\"kind\":\"Status\",\"message\":\"not found\"}");
}

static void api_start(struct api *a)
{
	struct err e = { 0 };
	a->peer = peer_start(&(struct peer_options){ .leaf = &leaf }, a->script ? a->script : serve, a);
	char *url cleanup(str_freep) = peer_url(a->peer, "");
	assert_ok(kube_from_identity(url, &(struct http_identity){ .ca_pem = server_ca->pem }, &a->kube, &e), e);
	a->settings = (struct settings){ .namespace = "certrotation", .node_namespace = "certrotation-nodes" };
	a->world.run = (struct run){ .exists = true, .id = str_dup("0123456789ab"), .leg = str_dup("0123456789ab"), .mark = str_dup("0123456789ab"), .authorities = AUTHORITY_BIT(AUTHORITY_KUBERNETES),
				   .of = { [AUTHORITY_KUBERNETES] = { .old_pem = str_dup(old_ca->pem), .new_pem = str_dup(new_ca->pem) } } };
	a->o = (struct observation){ .kube = a->kube, .world = &a->world, .settings = &a->settings, .reports = a->reports };
}

static void api_release(struct api *a)
{
	peer_stopp(&a->peer);
	kube_freep(&a->kube);
	world_release(&a->world);
	for (size_t i = 0; i < a->n; i++)
		str_freep(&a->entries[i].body);
	for (size_t i = 0; i < ARRAY_LEN(a->reports); i++)
		report_release(&a->reports[i].report);
}

/* Before api_start, or between requests. */
static void put(struct api *a, const char *path, int status, char *body_taken)
{
	size_t i = 0;
	while (i < a->n && !str_eq(a->entries[i].path, path))
		i++;
	a->n += i == a->n;
	str_freep(&a->entries[i].body);
	a->entries[i] = (struct entry){ path, status, body_taken };
}

static char *text_of(struct json *taken)
{
	char *text = json_text(taken);
	json_freep(&taken);
	return text;
}

static char *base64_of(const char *text)
{
	struct buf b cleanup(buf_release) = BUF_INIT;
	base64_encode(text, strlen(text), &b);
	return buf_take(&b);
}

static struct json *parsed(const char *text)
{
	struct json *j = NULL;
	struct err e = { 0 };
	assert_ok(json_parse(text, strlen(text), &j, &e), e);
	return j;
}

static char *list_of(struct json *items_taken)
{
	struct json *list = parsed("{\"kind\":\"List\",\"metadata\":{\"resourceVersion\":\"7\"}}");
	json_set(list, "items", items_taken);
	return text_of(list);
}

/* --- cluster-info ---------------------------------------------------------------------------------------------------------------- */

#define SECRETS "/api/v1/namespaces/kube-system/secrets"
#define CLUSTER_INFO "/api/v1/namespaces/kube-public/configmaps/cluster-info"

static void set_base64(struct json *data, const char *name, const char *value)
{
	char *text cleanup(str_freep) = value ? base64_of(value) : NULL;
	json_set_str(data, name, text);
}

static struct json *token(const char *id, const char *secret, const char *signing, const char *expiration)
{
	struct json *object = json_object(), *data = json_ensure_object(object, "data");
	set_base64(data, "token-id", id);
	set_base64(data, "token-secret", secret);
	set_base64(data, "usage-bootstrap-signing", signing);
	set_base64(data, "expiration", expiration);
	return object;
}

static char *tokens(void)
{
	struct json *items = json_array();
	json_add(items, token("joshua", "my voice is my passport", "true", NULL));
	json_add(items, token("abcdef", "0123456789abcdef", "true", "2099-01-01T00:00:00Z"));
	json_add(items, token("expird", "0123456789abcdef", "true", "2020-01-01T00:00:00Z"));
	json_add(items, token("broken", "0123456789abcdef", "true", "some day"));
	json_add(items, token("unused", "0123456789abcdef", "false", NULL));
	json_add(items, token("nosign", "0123456789abcdef", NULL, NULL));
	json_add(items, token("nosecr", NULL, "true", NULL));
	json_add(items, json_object());
	return list_of(items);
}

/* RFC 4648 5 by OpenSSL's plain base64. */
static char *url_safe(const unsigned char *bytes, size_t n)
{
	char *text = mem_alloc(4 * ((n + 2) / 3) + 1);
	(void)EVP_EncodeBlock((unsigned char *)text, bytes, (int)n);
	for (char *p = text; *p; p++)
		*p = *p == '+' ? '-' : *p == '/' ? '_' : *p;
	text[strcspn(text, "=")] = '\0';
	return text;
}

/* RFC 7515 7.1 with the payload left out (appendix F), not by the code under test. */
static char *signature_of(const char *id, const char *secret, const char *payload)
{
	unsigned char mac[32];
	unsigned int n = sizeof(mac);
	char *head cleanup(str_freep) = str_printf("{\"alg\":\"HS256\",\"kid\":\"%s\"}", id);
	char *first cleanup(str_freep) = url_safe((const unsigned char *)head, strlen(head));
	char *second cleanup(str_freep) = url_safe((const unsigned char *)payload, strlen(payload));
	char *input cleanup(str_freep) = str_printf("%s.%s", first, second);
	assert_non_null(HMAC(EVP_sha256(), secret, (int)strlen(secret), (const unsigned char *)input, strlen(input), mac, &n));
	char *last cleanup(str_freep) = url_safe(mac, n);
	return str_printf("%s..%s", first, last);
}

/* The value: Python's hmac and base64. */
static void test_signatures(void **state)
{
	(void)state;
	static const char payload[] = "Hello from the other side. I must have called a thousand times.";
	struct api a cleanup(api_release) = { 0 };
	struct json *got cleanup(json_freep) = json_object();
	struct err e = { 0 };
	put(&a, SECRETS, 0, tokens());
	api_start(&a);
	assert_ok(cluster_info_signatures(a.kube, payload, got, &e), e);
	assert_int_equal(json_len(got), 2);
	assert_string_equal(json_get_str(got, "jws-kubeconfig-joshua"),
			    "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..Wvm4lABG2MTCQNvjZK5AJ7th6Qm1ywTmBDAVJNF7IHM");
	char *expected cleanup(str_freep) = signature_of("abcdef", "0123456789abcdef", payload);
	assert_string_equal(json_get_str(got, "jws-kubeconfig-abcdef"), expected);
}

/* The text as kubeadm writes it. */
static char *cluster_info(const char *ca_pem, const char *signed_text, bool second)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	char *encoded cleanup(str_freep) = base64_of(ca_pem);
	buf_addf(&text, "apiVersion: v1\nclusters:\n- cluster:\n    certificate-authority-data: %s\n    server: https://10.0.0.1:6443\n"
			"  name: \"\"\ncontexts: null\ncurrent-context: \"\"\nkind: Config\nusers: null\n", encoded);
	struct json *map = json_object(), *data = json_ensure_object(map, "data");
	const char *payload = signed_text ? signed_text : buf_str(&text);
	char *one cleanup(str_freep) = signature_of("joshua", "my voice is my passport", payload);
	char *two cleanup(str_freep) = signature_of("abcdef", "0123456789abcdef", payload);
	json_set_str(data, "kubeconfig", buf_str(&text));
	json_set_str(data, "jws-kubeconfig-joshua", one);
	json_set_str(data, "jws-kubeconfig-abcdef", second ? two : NULL);
	json_set_str(data, "jws-kubeconfig-gone00", "of a token that is no more");
	return text_of(map);
}

static void test_cluster_info(void **state)
{
	(void)state;
	char *both cleanup(str_freep) = str_printf("%s%s", old_ca->pem, new_ca->pem);
	const struct { const char *pem, *signed_text; bool second; int is; } cases[] = {
		{ old_ca->pem, NULL, true, CLUSTER_INFO_OLD },
		{ both, NULL, true, CLUSTER_INFO_BOTH },
		{ both, "another text", true, CLUSTER_INFO_UNSIGNED_BOTH },
		{ both, NULL, false, CLUSTER_INFO_UNSIGNED_BOTH },
		{ new_ca->pem, NULL, true, CLUSTER_INFO_NEW },
		{ new_ca->pem, "", true, CLUSTER_INFO_UNSIGNED_NEW },
		{ new_ca->pem, NULL, false, CLUSTER_INFO_UNSIGNED_NEW },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct api a cleanup(api_release) = { 0 };
		struct err e = { 0 };
		put(&a, SECRETS, 0, tokens());
		put(&a, CLUSTER_INFO, 0, cluster_info(cases[i].pem, cases[i].signed_text, cases[i].second));
		api_start(&a);
		assert_ok(consumer_cluster_info.observe(&a.o, &e), e);
		assert_int_equal(a.world.cluster_info, cases[i].is);
	}
}

static void test_cluster_info_absent_or_unreadable(void **state)
{
	(void)state;
	static const struct { int status; const char *body; bool ok; int is; } cases[] = {
		{ 404, "{}", true, CLUSTER_INFO_ABSENT },
		{ 403, "{}", false, CLUSTER_INFO_UNKNOWN },
		{ 0, "{}", false, CLUSTER_INFO_UNKNOWN },
		{ 0, "{\"data\":{\"kubeconfig\":\"\"}}", false, CLUSTER_INFO_UNKNOWN },
		{ 0, "{\"data\":{\"kubeconfig\":\"a: [\"}}", false, CLUSTER_INFO_UNKNOWN },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct api a cleanup(api_release) = { 0 };
		struct err e = { 0 };
		put(&a, SECRETS, 0, tokens());
		put(&a, CLUSTER_INFO, cases[i].status, str_dup(cases[i].body));
		api_start(&a);
		assert_int_equal(consumer_cluster_info.observe(&a.o, &e).ok, cases[i].ok);
		assert_int_equal(a.world.cluster_info, cases[i].is);
	}
}

/* Tokens that can't be listed: it is not known whether the signatures are right. */
static void test_cluster_info_without_tokens(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	put(&a, SECRETS, 403, str_dup("{}"));
	put(&a, CLUSTER_INFO, 0, cluster_info(new_ca->pem, NULL, true));
	api_start(&a);
	assert_false(consumer_cluster_info.observe(&a.o, &e).ok);
	assert_int_equal(a.world.cluster_info, CLUSTER_INFO_UNKNOWN);
}

/* --- Published trust ---------------------------------------------------------------------------------------------------------------- */

static struct json *published(const char *namespace, const char *name, const char *pem, bool secret)
{
	char *encoded cleanup(str_freep) = pem && secret ? base64_of(pem) : NULL;
	struct json *object = json_object(), *meta = json_ensure_object(object, "metadata");
	json_set_str(meta, "namespace", namespace);
	json_set_str(meta, "name", name);
	json_set_str(meta, "resourceVersion", "5");
	json_set_str(json_ensure_object(object, "data"), "ca.crt", secret ? encoded : pem);
	return object;
}

static char *published_list(bool secret)
{
	char *both cleanup(str_freep) = str_printf("%s%s", old_ca->pem, new_ca->pem);
	char *swapped cleanup(str_freep) = str_printf("# by hand\n%s%s", new_ca->pem, old_ca->pem);
	char *more cleanup(str_freep) = str_printf("%s%s", new_ca->pem, third_ca->pem);
	const char *const pems[] = { old_ca->pem, both, swapped, new_ca->pem, more, NULL, "no certificate" };
	struct json *items = json_array();
	for (size_t i = 0; i < ARRAY_LEN(pems); i++) {
		char *namespace cleanup(str_freep) = str_printf("n%zu", i);
		json_add(items, published(namespace, "x", pems[i], secret));
	}
	return list_of(items);
}

static bool note_lag(void *context, const struct laggard *l)
{
	char *path cleanup(str_freep) = laggard_path(l);
	buf_addf(context, "%s@%s ", path, l->resource_version);
	return true;
}

static void assert_names(const struct strs *l, const char *expected)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	for (size_t i = 0; i < l->n; i++)
		buf_addf(&text, "%s ", l->items[i]);
	assert_string_equal(buf_str(&text), expected);
}

static void test_published_trust(void **state)
{
	(void)state;
	for (int secret = 0; secret < 2; secret++) {
		struct api a cleanup(api_release) = { 0 };
		struct err e = { 0 };
		put(&a, secret ? "/api/v1/secrets" : "/api/v1/configmaps", 0, published_list(secret));
		api_start(&a);
		const struct tally *t = secret ? &a.world.token_secrets : &a.world.root_configmaps;
		assert_ok((secret ? consumer_token_secrets : consumer_root_configmaps).observe(&a.o, &e), e);
		assert_true(t->known);
		assert_int_equal(t->total, 7);
		assert_int_equal(t->with_new, 4);
		assert_int_equal(t->only_new, 1);
		assert_names(&t->lag_new, "n0/x n5/x n6/x ");
		assert_names(&t->lag_only, "n0/x n1/x n2/x n4/x n5/x n6/x ");

		struct buf lag cleanup(buf_release) = BUF_INIT;
		assert_ok(published_each_lag(a.kube, &a.world.run, TRUST_BOTH, secret, note_lag, &lag, &e), e);
		const char *kind = secret ? "secrets" : "configmaps";
		char *expected cleanup(str_freep) = str_printf("/api/v1/namespaces/n0/%s/x@5 /api/v1/namespaces/n5/%s/x@5 /api/v1/namespaces/n6/%s/x@5 ",
							       kind, kind, kind);
		assert_string_equal(buf_str(&lag), expected);
	}
}

static void test_published_trust_that_cannot_be_read(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	put(&a, "/api/v1/configmaps", 403, str_dup("{}"));
	api_start(&a);
	assert_false(consumer_root_configmaps.observe(&a.o, &e).ok);
	assert_false(a.world.root_configmaps.known);
}

/* Ten thousand namespaces, page by page. Every fourth has the old authority alone; the list expires once, when half of it is read. */
#define MANY 10000
static bool expired;

static void serve_many(void *context, const struct peer_request *r)
{
	(void)context;
	const char *next = strstr(r->target, "continue="), *limit = strstr(r->target, "limit=");
	long from = next ? strtol(next + strlen("continue="), NULL, 10) : 0, to = from + (limit ? strtol(limit + strlen("limit="), NULL, 10) : MANY);
	if (from >= MANY / 2 && !expired) {
		expired = true;
		peer_answer(r, 410, "", "{\"kind\":\"Status\",\"message\":\"the continue parameter is too old\"}");
		return;
	}
	struct json *list cleanup(json_freep) = parsed("{\"kind\":\"ConfigMapList\",\"metadata\":{\"resourceVersion\":\"7\"}}");
	for (long i = from; i < to && i < MANY; i++) {
		char *namespace cleanup(str_freep) = str_printf("n%ld", i);
		json_add(json_ensure_array(list, "items"), published(namespace, "kube-root-ca.crt", i % 4 ? new_ca->pem : old_ca->pem, false));
	}
	char *more cleanup(str_freep) = str_printf("%ld", to);
	if (to < MANY)
		json_set_str(json_ensure_object(list, "metadata"), "continue", more);
	char *body cleanup(str_freep) = json_text(list);
	peer_answer(r, 200, "", body);
}

static void test_many_namespaces_whose_list_expires(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { .script = serve_many };
	struct err e = { 0 };
	expired = false;
	api_start(&a);
	assert_ok(consumer_root_configmaps.observe(&a.o, &e), e);
	const struct tally *t = &a.world.root_configmaps;
	assert_true(expired && t->known);
	assert_int_equal(t->total, MANY);
	assert_int_equal(t->only_new, MANY - MANY / 4);
	assert_int_equal(t->lag_only.n, WORLD_NAMES_MAX);
	assert_string_equal(t->lag_only.items[0], "n0/kube-root-ca.crt");
	assert_true(peer_requests(a.peer) > 70); /* a page is of 200 */
}

/* --- Leases ---------------------------------------------------------------------------------------------------------------------------- */

#define LEASES "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/"

static void test_leases(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	put(&a, LEASES "kube-controller-manager", 0,
	    str_dup("{\"spec\":{\"holderIdentity\":\"cp-1_x\",\"acquireTime\":\"2026-01-02T03:04:05.250000Z\",\"renewTime\":\"2026-01-02T03:04:06.000000Z\"}}"));
	api_start(&a);
	assert_ok(consumer_leases.observe(&a.o, &e), e);
	assert_true(a.world.controller_manager.known && a.world.controller_manager.exists);
	assert_string_equal(a.world.controller_manager.holder, "cp-1_x");
	assert_int_equal(a.world.controller_manager.acquired_ms, INT64_C(1767323045250));
	assert_int_equal(a.world.controller_manager.renewed_ms, INT64_C(1767323046000));
	assert_true(a.world.scheduler.known);
	assert_false(a.world.scheduler.exists);
	assert_string_equal(a.world.scheduler.holder, "");
}

static void test_leases_that_cannot_be_read(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	put(&a, LEASES "kube-controller-manager", 403, str_dup("{}"));
	api_start(&a);
	assert_false(consumer_leases.observe(&a.o, &e).ok);
	assert_false(a.world.controller_manager.known);
}

/* --- CertificateSigningRequests ------------------------------------------------------------------------------------------------------ */

static struct json *csr(const char *name, const char *signer, const char *conditions, const struct peer_ca *by)
{
	struct json *object = json_object(), *status = json_ensure_object(object, "status");
	json_set_str(json_ensure_object(object, "metadata"), "name", name);
	json_set_str(json_ensure_object(object, "spec"), "signerName", signer);
	json_set(status, "conditions", parsed(conditions));
	if (by) {
		struct peer_leaf l = peer_leaf_new(by, "someone");
		set_base64(status, "certificate", l.cert_pem);
		peer_leaf_release(&l);
	}
	return object;
}

#define CLIENT "kubernetes.io/kube-apiserver-client"
#define APPROVED "[{\"type\":\"Approved\",\"status\":\"True\"}]"

static void test_csrs(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	struct json *items = json_array();
	json_add(items, csr("unsigned", CLIENT, APPROVED, NULL));
	json_add(items, csr("kubelet", CLIENT "-kubelet", APPROVED, NULL));
	json_add(items, csr("pending", CLIENT, "[]", NULL));
	json_add(items, csr("denied", CLIENT, "[{\"type\":\"Denied\",\"status\":\"True\"}]", NULL));
	json_add(items, csr("failed", CLIENT, "[{\"type\":\"Approved\",\"status\":\"True\"},{\"type\":\"Failed\",\"status\":\"True\"}]", NULL));
	json_add(items, csr("elsewhere", "example.org/signer", APPROVED, NULL));
	json_add(items, csr("from-old", CLIENT, APPROVED, old_ca));
	json_add(items, csr("from-new", CLIENT, APPROVED, new_ca));
	json_add(items, csr("kubelet-from-old", CLIENT "-kubelet", APPROVED, old_ca));
	put(&a, "/apis/certificates.k8s.io/v1/certificatesigningrequests", 0, list_of(items));
	api_start(&a);
	assert_ok(consumer_csrs.observe(&a.o, &e), e);
	assert_true(a.world.csrs_known);
	assert_names(&a.world.csrs_unsigned, "unsigned kubelet ");
	assert_int_equal(a.world.csrs_from_old, 1);
}

/* --- Pods -------------------------------------------------------------------------------------------------------------------------------- */

#define STARTED "2026-01-02T03:04:05Z"
#define STARTED_MS INT64_C(1767323045000)

static struct json *pod(const char *uid, const char *name, const char *owner, const char *started, const char *more)
{
	char *text cleanup(str_freep) = str_printf(
		"{\"metadata\":{\"namespace\":\"shop\",\"name\":\"%s\",\"uid\":\"%s-0000-0000-0000-000000000000\"%s},"
		"\"spec\":{\"nodeName\":\"w1\",\"volumes\":[{\"projected\":{\"sources\":[{\"configMap\":{\"name\":\"kube-root-ca.crt\"}}]}}]},"
		"\"status\":{\"phase\":\"Running\",\"containerStatuses\":[{\"containerID\":\"containerd://%s0000\",\"state\":{\"running\":{\"startedAt\":\"%s\"}}}]}%s}",
		name, uid, owner, "cccccccccccc", started, more);
	return parsed(text);
}

#define OWNED(kind, name) ",\"ownerReferences\":[{\"kind\":\"Other\",\"name\":\"no\"},{\"kind\":\"" kind "\",\"name\":\"" name "\",\"controller\":true}]"

/* uid13 of "aaaaaaaa-0000-…" */
static void say_old(struct api *a, const char *uid)
{
	strs_addf(&a->reports[0].report.pods_old, "%s-0000:cccccccccccc", uid);
}

static void start_with_pods(struct api *a, struct json *items)
{
	struct node_state *n;
	put(a, "/api/v1/pods", 0, list_of(items));
	api_start(a);
	n = world_add_node(&a->world);
	n->name = str_dup("w1");
	a->world.nodes_known = true;
	a->reports[0].has = true;
	a->reports[0].report.at_ms = STARTED_MS + 1000;
}

static const struct straggler *straggler_named(const struct world *w, const char *kind, const char *name)
{
	for (size_t i = 0; i < w->n_stragglers; i++)
		if (str_eq(w->stragglers[i].kind, kind) && str_eq(w->stragglers[i].name, name))
			return &w->stragglers[i];
	fail_msg("no straggler %s %s", kind, name);
	return NULL;
}

static void test_stragglers_by_owner(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	struct json *items = json_array();
	json_add(items, pod("aaaaaaa1", "web-1-x", OWNED("ReplicaSet", "web-1"), STARTED, ""));
	json_add(items, pod("aaaaaaa2", "web-2-x", OWNED("ReplicaSet", "web-2"), STARTED, ""));
	json_add(items, pod("aaaaaaa3", "db-0", OWNED("StatefulSet", "db"), STARTED, ""));
	json_add(items, pod("aaaaaaa4", "db-1", OWNED("StatefulSet", "db"), STARTED, ""));
	json_add(items, pod("aaaaaaa5", "lone", "", STARTED, ""));
	json_add(items, pod("aaaaaaa6", "job-x", OWNED("Job", "job"), STARTED, ""));
	json_add(items, pod("aaaaaaa7", "orphan-x", OWNED("ReplicaSet", "orphan"), STARTED, ""));
	json_add(items, pod("aaaaaaa8", "fine", "", STARTED, "")); /* has read N */
	json_add(items, pod("aaaaaaa9", "db2-0", OWNED("StatefulSet", "db2"), STARTED, ""));
	put(&a, "/apis/apps/v1/namespaces/shop/replicasets/web-1", 0, str_dup("{\"metadata\":{\"ownerReferences\":[{\"kind\":\"Deployment\",\"name\":\"web\",\"controller\":true}]}}"));
	put(&a, "/apis/apps/v1/namespaces/shop/replicasets/web-2", 0, str_dup("{\"metadata\":{\"ownerReferences\":[{\"kind\":\"Deployment\",\"name\":\"web\",\"controller\":true}]}}"));
	put(&a, "/apis/apps/v1/namespaces/shop/replicasets/orphan", 0, str_dup("{\"metadata\":{}}"));
	put(&a, "/apis/apps/v1/namespaces/shop/deployments/web", 0, str_dup("{\"metadata\":{\"generation\":2},\"spec\":{\"replicas\":2},\"status\":{}}"));
	put(&a, "/apis/apps/v1/namespaces/shop/statefulsets/db", 0,
	    str_dup("{\"spec\":{\"replicas\":2,\"updateStrategy\":{\"type\":\"OnDelete\"}},\"status\":{}}"));
	start_with_pods(&a, items);
	for (int i = 1; i <= 7; i++) {
		char *uid cleanup(str_freep) = str_printf("aaaaaaa%d", i);
		say_old(&a, uid);
	}
	say_old(&a, "aaaaaaa9");
	strs_add(&a.world.run.accepted, "Pod/shop/lone");
	assert_ok(consumer_pods.observe(&a.o, &e), e);
	assert_true(a.world.pods_known);
	assert_int_equal(a.world.pods_total, 9);
	assert_int_equal(a.world.n_stragglers, 6);
	assert_int_equal(straggler_named(&a.world, "StatefulSet", "db2")->pods, 1);
	const struct straggler *web = straggler_named(&a.world, "Deployment", "web"), *db = straggler_named(&a.world, "StatefulSet", "db");
	assert_int_equal(web->pods, 2);
	assert_true(web->restartable);
	assert_false(web->restarted);
	assert_int_equal(db->pods, 2);
	assert_false(db->restartable); /* OnDelete: a person deletes the pods */
	assert_true(straggler_named(&a.world, "Pod", "lone")->accepted);
	assert_false(straggler_named(&a.world, "Job", "job")->accepted);
	assert_int_equal(straggler_named(&a.world, "ReplicaSet", "orphan")->pods, 1);
	for (size_t i = 0; i < a.world.n_stragglers; i++)
		assert_true(a.world.stragglers[i].reason || str_eq(a.world.stragglers[i].name, "db2")); /* which is gone by now */
}

/* What started after the report was not seen by it. */
static void test_pods_that_were_not_seen(void **state)
{
	(void)state;
	static const struct { const char *started; bool unseen; } cases[] = {
		{ "2026-01-02T03:04:05Z", false }, { "2026-01-02T03:04:06Z", true }, { "2026-01-02T04:04:05Z", true },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct api a cleanup(api_release) = { 0 };
		struct err e = { 0 };
		struct json *items = json_array();
		json_add(items, pod("aaaaaaa1", "one", "", cases[i].started, ""));
		start_with_pods(&a, items);
		assert_ok(consumer_pods.observe(&a.o, &e), e);
		assert_int_equal(a.world.nodes[0].pods_unseen, cases[i].unseen);
		assert_int_equal(a.world.n_stragglers, 0);
	}
}

/* A component that has started since the report, if only to end at once. */
static void test_components_that_started_since_the_report(void **state)
{
	(void)state;
	static const struct { const char *component, *status; bool outdated; } cases[] = {
		{ "kube-controller-manager", "\"state\":{\"running\":{\"startedAt\":\"2026-01-02T03:04:05Z\"}}", false },
		{ "kube-controller-manager", "\"state\":{\"running\":{\"startedAt\":\"2026-01-02T03:04:06Z\"}}", true },
		{ "kube-controller-manager", "\"state\":{\"terminated\":{\"startedAt\":\"2026-01-02T03:04:06Z\"}}", true },
		{ "kube-scheduler", "\"state\":{\"waiting\":{}},\"lastState\":{\"terminated\":{\"startedAt\":\"2026-01-02T03:04:06Z\"}}", true },
		{ "kube-scheduler", "\"state\":{\"waiting\":{}},\"lastState\":{\"terminated\":{\"startedAt\":\"2026-01-02T03:04:05Z\"}}", false },
		{ "etcd", "\"state\":{\"running\":{\"startedAt\":\"2026-01-02T03:04:06Z\"}}", false },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct api a cleanup(api_release) = { 0 };
		struct err e = { 0 };
		struct json *items = json_array();
		char *text cleanup(str_freep) = str_printf(
			"{\"metadata\":{\"namespace\":\"kube-system\",\"name\":\"c\",\"uid\":\"aaaaaaa1-0000-0000-0000-000000000000\",\"labels\":{\"component\":\"%s\"},"
			"\"annotations\":{\"kubernetes.io/config.mirror\":\"x\"}},\"spec\":{\"nodeName\":\"w1\"},"
			"\"status\":{\"phase\":\"Running\",\"containerStatuses\":[{%s}]}}", cases[i].component, cases[i].status);
		json_add(items, parsed(text));
		start_with_pods(&a, items);
		a.world.nodes[0].reported = true;
		a.world.nodes[0].report_at_ms = STARTED_MS + 1000;
		assert_ok(consumer_pods.observe(&a.o, &e), e);
		if (a.world.nodes[0].outdated != cases[i].outdated)
			fail_msg("case %zu: %d", i, a.world.nodes[0].outdated);
	}
}

/* Pods that mount kubeadm's files from the node: whoever has not started since the last of them was written. */
static void test_pods_that_read_files_of_the_node(void **state)
{
	(void)state;
	static const struct { const char *path; int64_t written_ms; bool mirror, dropping, lags; } cases[] = {
		{ "/etc/kubernetes/pki/etcd", STARTED_MS + 1, false, false, true },
		{ "/etc/kubernetes", STARTED_MS + 1, false, false, true },
		{ "/etc/kubernetes/admin.conf", STARTED_MS, false, false, true },   /* the second in which it started: in doubt before */
		{ "/etc/kubernetes/admin.conf", STARTED_MS - 1, false, false, false },
		{ "/etc/kubernetes/admin.conf", 0, false, false, true },            /* not known when */
		{ "/etc/kubernetes.d", STARTED_MS + 1, false, false, false },
		{ "/", STARTED_MS + 1, false, false, false },
		{ "/etc/kubernetes/pki", STARTED_MS + 1, true, false, false },      /* a static Pod: looked at on the node */
		{ "/etc/kubernetes/pki", STARTED_MS + 1, false, true, false },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct api a cleanup(api_release) = { 0 };
		struct err e = { 0 };
		struct json *items = json_array(), *one = pod("aaaaaaa1", "backup", "", STARTED, "");
		struct json *volume = json_object();
		json_set_str(json_ensure_object(volume, "hostPath"), "path", cases[i].path);
		json_set(json_ensure_object(one, "spec"), "volumes", json_array());
		json_add(json_ensure_array(json_ensure_object(one, "spec"), "volumes"), volume);
		if (cases[i].mirror)
			json_set_str(json_ensure_object(json_ensure_object(one, "metadata"), "annotations"), "kubernetes.io/config.mirror", "x");
		json_add(items, one);
		start_with_pods(&a, items);
		a.world.run.dropping = cases[i].dropping;
		a.world.run.authorities = AUTHORITY_BIT(AUTHORITY_ETCD);
		a.reports[0].report.written_ms = cases[i].written_ms;
		assert_ok(consumer_pods.observe(&a.o, &e), e);
		if (a.world.n_stragglers != cases[i].lags)
			fail_msg("case %zu: %zu", i, a.world.n_stragglers);
	}
}

/* Whose pod it is can't be asked: then nothing is known of pods. */
static void test_owners_that_cannot_be_read(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	struct json *items = json_array();
	json_add(items, pod("aaaaaaa1", "web-1-x", OWNED("ReplicaSet", "web-1"), STARTED, ""));
	put(&a, "/apis/apps/v1/namespaces/shop/replicasets/web-1", 403, str_dup("{}"));
	start_with_pods(&a, items);
	say_old(&a, "aaaaaaa1");
	assert_false(consumer_pods.observe(&a.o, &e).ok);
	assert_false(a.world.pods_known);
}

/* --- The run under way ------------------------------------------------------------------------------------------------------------- */

static struct json *authority_secret(const char *authority, const char *role, const char *trigger, const char *lead)
{
	struct json *object = json_object(), *meta = json_ensure_object(object, "metadata");
	struct json *labels = json_ensure_object(meta, "labels"), *notes = json_ensure_object(meta, "annotations");
	char *name cleanup(str_freep) = str_printf("certrotation-%s-%s", authority, trigger);
	json_set_str(meta, "name", name);
	json_set_str(meta, "resourceVersion", "5");
	json_set_str(labels, LABEL_AUTHORITY, authority);
	json_set_str(labels, LABEL_ROLE, role);
	json_set_str(labels, LABEL_RUN, trigger);
	json_set_str(notes, ANNOTATION_TRIGGER, trigger);
	json_set_str(notes, ANNOTATION_LEAD, lead);
	return object;
}

/* The end closes one Secret after the other: Etcd's is closed as `closed` says, the lead's is still open. */
static void look_at_half_an_end(struct api *a, const char *role, const char *trigger, bool back)
{
	struct err e = { 0 };
	struct json *items = json_array(), *lead = authority_secret("Kubernetes", "next", "q4", NULL);
	struct json *notes = json_ensure_object(json_ensure_object(lead, "metadata"), "annotations");
	json_set_str(notes, ANNOTATION_AUTHORITIES, "Kubernetes,Etcd");
	json_set_str(notes, ANNOTATION_ROLLBACK, back ? "2026-01-02T03:04:05Z" : NULL);
	json_add(items, authority_secret("Etcd", role, trigger, "certrotation-Kubernetes-q4"));
	json_add(items, lead);
	put(a, "/api/v1/namespaces/certrotation-nodes/secrets", 0, list_of(items));
	put(a, "/api/v1/namespaces/kube-public/configmaps/kube-root-ca.crt", 0, text_of(published("kube-public", "kube-root-ca.crt", new_ca->pem, false)));
	api_start(a);
	assert_ok(consumer_authority.observe(&a->o, &e), e);
	for (size_t i = 0; i < AUTHORITY_COUNT; i++)
		strs_release(&a->o.recorded[i]);
	strs_release(&a->o.rolled_back);
	str_freep(&a->o.published_pem);
	json_freep(&a->o.authorities);
}

static void test_an_end_that_was_cut_short(void **state)
{
	(void)state;
	static const struct { const char *role, *trigger; bool back, finishing; } cases[] = {
		{ "current", "q4", false, true },
		{ "rolled-back", "q4", true, true },
		{ "next", "q4", false, false },
		{ "current", "q3", false, false }, /* of a run before */
		{ "retired", "q3", true, false },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct api a cleanup(api_release) = { 0 };
		look_at_half_an_end(&a, cases[i].role, cases[i].trigger, cases[i].back);
		assert_true(a.world.run.exists);
		assert_string_equal(a.world.run.secret, "certrotation-Kubernetes-q4");
		assert_int_equal(a.world.run.finishing, cases[i].finishing);
		assert_int_equal(a.world.run.back, cases[i].finishing && cases[i].back); /* without bridges it turns round for its end alone */
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_an_end_that_was_cut_short),
		cmocka_unit_test(test_signatures),
		cmocka_unit_test(test_cluster_info),
		cmocka_unit_test(test_cluster_info_absent_or_unreadable),
		cmocka_unit_test(test_cluster_info_without_tokens),
		cmocka_unit_test(test_published_trust),
		cmocka_unit_test(test_published_trust_that_cannot_be_read),
		cmocka_unit_test(test_many_namespaces_whose_list_expires),
		cmocka_unit_test(test_leases),
		cmocka_unit_test(test_leases_that_cannot_be_read),
		cmocka_unit_test(test_csrs),
		cmocka_unit_test(test_stragglers_by_owner),
		cmocka_unit_test(test_pods_that_were_not_seen),
		cmocka_unit_test(test_components_that_started_since_the_report),
		cmocka_unit_test(test_pods_that_read_files_of_the_node),
		cmocka_unit_test(test_owners_that_cannot_be_read),
	};
	return cmocka_run_group_tests(tests, make_world, drop_world);
}
