/* LINK: engine consumers rotation kube node */
/* The administrator's kubeconfig in its Secret, as it is seen and as it is written; and the rule on who may approve with it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "apply.h"
#include "kubeconfig.h"
#include "tls_peer.h"

#include <stdlib.h>
#include <string.h>

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

#define RUN "0123456789ab"
#define SECRET "/api/v1/namespaces/certrotation/secrets/certrotation-admin-kubeconfig"
#define RUN_SECRET "/api/v1/namespaces/certrotation-nodes/secrets/next"
#define POLICY "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/certrotation-approvals"
#define BINDING "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/certrotation-approvals"

static struct peer_ca *old_ca, *new_ca;
static struct peer_leaf leaf, from_new, from_old;

static int make_world(void **state)
{
	(void)state;
	old_ca = peer_ca_new("old");
	new_ca = peer_ca_new("new");
	leaf = peer_leaf_new(old_ca, "server");
	from_new = peer_leaf_new(new_ca, "kubernetes-admin");
	from_old = peer_leaf_new(old_ca, "kubernetes-admin");
	return 0;
}

static int drop_world(void **state)
{
	(void)state;
	peer_ca_freep(&old_ca);
	peer_ca_freep(&new_ca);
	peer_leaf_release(&leaf);
	peer_leaf_release(&from_new);
	peer_leaf_release(&from_old);
	return 0;
}

/* --- An API server that knows a few paths, and keeps what is written -------------------------------------------------------- */

struct api {
	struct entry {
		const char *path;
		int status; /* 0: 200 */
		char *body;
	} entries[4];
	size_t n;
	char *written; /* the body of the last PATCH or POST */
	struct peer *peer;
	struct kube *kube;
	struct request request;
	struct world world;
	struct settings settings;
	struct observation o;
	struct applier applier;
};

static void serve(void *context, const struct peer_request *r)
{
	struct api *a = context;
	size_t n = strcspn(r->target, "?");
	if (!str_eq(r->method, "GET")) {
		str_freep(&a->written);
		a->written = str_dup(r->body);
		peer_answer(r, 200, "", "{}");
		return;
	}
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
	a->peer = peer_start(&(struct peer_options){ .leaf = &leaf }, serve, a);
	char *url cleanup(str_freep) = peer_url(a->peer, "");
	assert_ok(kube_from_identity(url, &(struct http_identity){ .ca_pem = old_ca->pem }, &a->kube, &e), e);
	a->settings = (struct settings){ .namespace = "certrotation", .node_namespace = "certrotation-nodes" };
	a->request = (struct request){ .key_algorithm = str_dup("ECDSA-P256") };
	a->world.request = &a->request;
	a->world.now_ms = clock_now_ms();
	a->world.run = (struct run){ .exists = true, .id = str_dup(RUN), .authorities = AUTHORITY_BIT(AUTHORITY_KUBERNETES) };
	a->world.run.of[AUTHORITY_KUBERNETES] =
		(struct run_authority){ .secret = str_dup("next"), .old_pem = str_dup(old_ca->pem), .new_pem = str_dup(new_ca->pem) };
	a->o = (struct observation){ .kube = a->kube, .world = &a->world, .settings = &a->settings };
	a->applier = (struct applier){ .kube = a->kube, .settings = &a->settings, .world = &a->world };
}

static void api_release(struct api *a)
{
	peer_stopp(&a->peer);
	kube_freep(&a->kube);
	observation_release(&a->o);
	world_release(&a->world);
	request_release(&a->request);
	for (size_t i = 0; i < a->n; i++)
		str_freep(&a->entries[i].body);
	str_freep(&a->written);
}

static void put(struct api *a, const char *path, int status, char *body_taken)
{
	a->entries[a->n++] = (struct entry){ path, status, body_taken };
}

/* --- Secrets ----------------------------------------------------------------------------------------------------------------------- */

static char *secret_of(const char *run, const char *name, const char *text)
{
	struct buf encoded cleanup(buf_release) = BUF_INIT;
	base64_encode(text, strlen(text), &encoded);
	return str_printf("{\"metadata\":{\"resourceVersion\":\"42\",\"labels\":{\"" LABEL_RUN "\":\"%s\"}},\"data\":{\"%s\":\"%s\"}}", run, name,
			  buf_str(&encoded));
}

static char *kubeconfig_of(const char *run, const char *ca_pem, const char *more_pem, const struct peer_leaf *client)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	char *bundle cleanup(str_freep) = str_printf("%s%s", ca_pem, more_pem);
	kubeconfig_write("kubernetes", "https://example:6443", "kubernetes-admin", bundle, client->cert_pem, client->key_pem, &text);
	return secret_of(run, "value", buf_str(&text));
}

static char *fingerprint_of(const char *pem)
{
	struct cert *c cleanup(cert_freep) = NULL;
	struct err e = { 0 };
	char *text = mem_alloc(CERT_FINGERPRINT_SIZE);
	assert_ok(cert_from_pem(pem, strlen(pem), &c, &e), e);
	cert_fingerprint(c, text);
	return text;
}

/* --- Seen ------------------------------------------------------------------------------------------------------------------------- */

static void test_what_is_in_the_secret(void **state)
{
	(void)state;
	const struct {
		char *body; /* taken */
		bool back;
		enum seen there, has_old;
		bool known; /* its fingerprint */
	} cases[] = {
		{ NULL, false, SEEN_NO, SEEN_UNKNOWN, false },
		{ kubeconfig_of(RUN, old_ca->pem, new_ca->pem, &from_new), false, SEEN_YES, SEEN_YES, true },
		{ kubeconfig_of(RUN, new_ca->pem, "", &from_new), false, SEEN_YES, SEEN_NO, true },
		{ kubeconfig_of(RUN, old_ca->pem, "", &from_new), false, SEEN_NO, SEEN_UNKNOWN, false }, /* useless after the drop */
		{ kubeconfig_of(RUN, old_ca->pem, new_ca->pem, &from_old), false, SEEN_NO, SEEN_UNKNOWN, false }, /* ditto */
		{ kubeconfig_of("ba9876543210", new_ca->pem, "", &from_new), false, SEEN_NO, SEEN_UNKNOWN, false },
		{ secret_of(RUN, "value", "apiVersion: [v1"), false, SEEN_NO, SEEN_UNKNOWN, false },
		{ secret_of(RUN, "other", "x"), false, SEEN_NO, SEEN_UNKNOWN, false },
		{ secret_of(RUN, "value", "apiVersion: [v1"), true, SEEN_YES, SEEN_UNKNOWN, false }, /* must go all the same */
		{ secret_of("ba9876543210", "value", "x"), true, SEEN_NO, SEEN_UNKNOWN, false },
	};
	char *fingerprint cleanup(str_freep) = fingerprint_of(from_new.cert_pem);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct api a cleanup(api_release) = { 0 };
		struct err e = { 0 };
		api_start(&a);
		if (cases[i].body)
			put(&a, SECRET, 0, cases[i].body);
		a.world.run.back = cases[i].back;
		assert_ok(consumer_admin_kubeconfig.observe(&a.o, &e), e);
		if (a.world.admin_kubeconfig != cases[i].there || a.world.admin_has_old != cases[i].has_old)
			fail_msg("case %zu: %d, trusts the old %d", i, a.world.admin_kubeconfig, a.world.admin_has_old);
		assert_int_equal(str_eq(a.world.admin_fingerprint, fingerprint), cases[i].known);
	}
}

static void test_what_cannot_be_read_is_unknown(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	api_start(&a);
	put(&a, SECRET, 403, str_dup("{}"));
	assert_false(consumer_admin_kubeconfig.observe(&a.o, &e).ok);
	assert_int_equal(a.world.admin_kubeconfig, SEEN_UNKNOWN);
	assert_null(a.o.admin_kubeconfig);
}

static void test_what_status_tells_of_it(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	char *client cleanup(str_freep) = fingerprint_of(from_new.cert_pem), *old cleanup(str_freep) = fingerprint_of(old_ca->pem),
	     *new cleanup(str_freep) = fingerprint_of(new_ca->pem);
	api_start(&a);
	put(&a, SECRET, 0, kubeconfig_of(RUN, old_ca->pem, new_ca->pem, &from_new));
	a.world.run.exists = false; /* at rest too */
	assert_ok(consumer_admin_kubeconfig.observe(&a.o, &e), e);
	const struct json *authorities = json_get(a.o.admin_kubeconfig, "authorities");
	assert_string_equal(a.o.admin_run, RUN);
	assert_string_equal(json_str(json_at(a.o.admin_kubeconfig, "secretRef", "name", NULL)), "certrotation-admin-kubeconfig");
	assert_string_equal(json_str(json_at(a.o.admin_kubeconfig, "secretRef", "namespace", NULL)), "certrotation");
	assert_string_equal(json_get_str(a.o.admin_kubeconfig, "clientCertificateFingerprint"), client);
	assert_int_equal(json_len(authorities), 2);
	assert_string_equal(json_str(json_index(authorities, 0)), old);
	assert_string_equal(json_str(json_index(authorities, 1)), new);
}

/* --- Written ---------------------------------------------------------------------------------------------------------------------- */

static void read_written(const struct api *a, struct json **ret_object, struct kubeconfig *ret)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	assert_non_null(a->written);
	assert_ok(json_parse(a->written, strlen(a->written), ret_object, &e), e);
	const char *value = json_str(json_at(*ret_object, "data", "value", NULL));
	assert_string_equal(json_str(json_at(*ret_object, "metadata", "labels", LABEL_RUN, NULL)), RUN);
	assert_ok(base64_decode(value, strlen(value), &text, &e), e);
	assert_ok(kubeconfig_parse(buf_str(&text), text.len, "", ret, &e), e);
}

static void test_the_first_one_trusts_both(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct json *object cleanup(json_freep) = NULL;
	struct kubeconfig written cleanup(kubeconfig_release) = { 0 };
	struct cert *client cleanup(cert_freep) = NULL;
	struct buf key cleanup(buf_release) = BUF_INIT;
	struct bundle_content b = { 0 };
	struct err e = { 0 };
	const struct action act = { .kind = ACT_ADMIN_KUBECONFIG, .level = TRUST_BOTH };
	api_start(&a);
	key_to_pem(new_ca->key, &key);
	put(&a, RUN_SECRET, 0, secret_of(RUN, "tls.key", buf_str(&key)));
	assert_ok(apply_admin_kubeconfig(&a.applier, &act, &e), e);
	read_written(&a, &object, &written);
	assert_ok(bundle_look(&a.world.run.of[AUTHORITY_KUBERNETES], written.ca_pem, strlen(written.ca_pem), &b, &e), e);
	assert_true(b.has_old && b.has_new && !b.has_other);
	assert_ok(cert_from_pem(written.client_cert_pem, strlen(written.client_cert_pem), &client, &e), e);
	assert_true(cert_issued_by(client, new_ca->cert));
}

/* A pass that was answered from the past would make another one, with another key, while the first is in somebody's hands. One that
 * serves nobody is replaced, if it is still the one that was looked at. */
static void test_one_that_serves_is_never_made_again(void **state)
{
	(void)state;
	const struct {
		char *body; /* taken */
		bool made;
	} cases[] = {
		{ kubeconfig_of(RUN, old_ca->pem, new_ca->pem, &from_new), false },
		{ kubeconfig_of(RUN, new_ca->pem, "", &from_new), false },
		{ kubeconfig_of("ba9876543210", old_ca->pem, new_ca->pem, &from_new), true },
		{ kubeconfig_of(RUN, old_ca->pem, new_ca->pem, &from_old), true },
		{ secret_of(RUN, "value", "?"), true },
	};
	struct buf key cleanup(buf_release) = BUF_INIT;
	key_to_pem(new_ca->key, &key);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct api a cleanup(api_release) = { 0 };
		struct json *object cleanup(json_freep) = NULL;
		struct kubeconfig written cleanup(kubeconfig_release) = { 0 };
		struct err e = { 0 };
		const struct action act = { .kind = ACT_ADMIN_KUBECONFIG, .level = TRUST_BOTH };
		api_start(&a);
		put(&a, SECRET, 0, cases[i].body);
		put(&a, RUN_SECRET, 0, secret_of(RUN, "tls.key", buf_str(&key)));
		assert_ok(apply_admin_kubeconfig(&a.applier, &act, &e), e);
		assert_int_equal(a.written != NULL, cases[i].made);
		if (!cases[i].made)
			continue;
		read_written(&a, &object, &written);
		assert_string_equal(json_str(json_at(object, "metadata", "resourceVersion", NULL)), "42");
	}
}

static void test_at_the_end_the_same_trusts_the_new_one_only(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct json *object cleanup(json_freep) = NULL;
	struct kubeconfig written cleanup(kubeconfig_release) = { 0 };
	struct bundle_content b = { 0 };
	struct err e = { 0 };
	const struct action act = { .kind = ACT_ADMIN_KUBECONFIG, .level = TRUST_NEW };
	api_start(&a);
	put(&a, SECRET, 0, kubeconfig_of(RUN, old_ca->pem, new_ca->pem, &from_new));
	assert_ok(apply_admin_kubeconfig(&a.applier, &act, &e), e);
	read_written(&a, &object, &written);
	assert_ok(bundle_look(&a.world.run.of[AUTHORITY_KUBERNETES], written.ca_pem, strlen(written.ca_pem), &b, &e), e);
	assert_true(b.has_new && !b.has_old && !b.has_other);
	assert_string_equal(written.client_cert_pem, from_new.cert_pem);
	assert_string_equal(written.client_key_pem, from_new.key_pem);
	assert_string_equal(written.server, "https://example:6443");
	/* and only over what was read */
	assert_string_equal(json_str(json_at(object, "metadata", "resourceVersion", NULL)), "42");
}

/* --- The rule --------------------------------------------------------------------------------------------------------------------- */

static void test_the_rule_is_looked_for_when_an_approval_rests_on_it(void **state)
{
	(void)state;
	static const struct { bool drop, named, latched, asked; } cases[] = {
		{ false, false, false, false }, { true, true, false, false }, { true, false, true, false }, { true, false, false, true },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct api a cleanup(api_release) = { 0 };
		struct err e = { 0 };
		api_start(&a);
		a.request.approved_drop = cases[i].drop;
		a.request.approved_by = cases[i].named ? str_dup("f") : NULL;
		a.world.run.approved = cases[i].latched;
		assert_ok(consumer_approval_rule.observe(&a.o, &e), e);
		assert_int_equal(peer_requests(a.peer) > 0, cases[i].asked);
		assert_int_equal(a.world.approval_rule, cases[i].asked ? SEEN_NO : SEEN_UNKNOWN);
	}
}

#define A_POLICY "{\"spec\":{\"failurePolicy\":\"Fail\"}}"
#define A_BINDING "{\"spec\":{\"policyName\":\"certrotation-approvals\",\"validationActions\":[\"Deny\"]}}"

static void test_a_rule_that_lets_pass_is_none(void **state)
{
	(void)state;
	static const struct { const char *policy, *binding; enum seen rule; } cases[] = {
		{ A_POLICY, A_BINDING, SEEN_YES },
		{ A_POLICY, NULL, SEEN_NO },
		{ NULL, A_BINDING, SEEN_NO },
		{ "{\"spec\":{\"failurePolicy\":\"Ignore\"}}", A_BINDING, SEEN_NO },
		{ A_POLICY, "{\"spec\":{\"policyName\":\"certrotation-approvals\",\"validationActions\":[\"Audit\",\"Warn\"]}}", SEEN_NO },
		{ A_POLICY, "{\"spec\":{\"policyName\":\"other\",\"validationActions\":[\"Deny\"]}}", SEEN_NO },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct api a cleanup(api_release) = { 0 };
		struct err e = { 0 };
		api_start(&a);
		a.request.approved_drop = true;
		if (cases[i].policy)
			put(&a, POLICY, 0, str_dup(cases[i].policy));
		if (cases[i].binding)
			put(&a, BINDING, 0, str_dup(cases[i].binding));
		assert_ok(consumer_approval_rule.observe(&a.o, &e), e);
		assert_int_equal(a.world.approval_rule, cases[i].rule);
	}
}

static void test_a_rule_that_cannot_be_read_is_unknown(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	api_start(&a);
	a.request.approved_drop = true;
	put(&a, POLICY, 403, str_dup("{}"));
	assert_false(consumer_approval_rule.observe(&a.o, &e).ok);
	assert_int_equal(a.world.approval_rule, SEEN_UNKNOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_in_the_secret),
		cmocka_unit_test(test_what_cannot_be_read_is_unknown),
		cmocka_unit_test(test_what_status_tells_of_it),
		cmocka_unit_test(test_the_first_one_trusts_both),
		cmocka_unit_test(test_one_that_serves_is_never_made_again),
		cmocka_unit_test(test_at_the_end_the_same_trusts_the_new_one_only),
		cmocka_unit_test(test_the_rule_is_looked_for_when_an_approval_rests_on_it),
		cmocka_unit_test(test_a_rule_that_lets_pass_is_none),
		cmocka_unit_test(test_a_rule_that_cannot_be_read_is_unknown),
	};
	return cmocka_run_group_tests(tests, make_world, drop_world);
}
