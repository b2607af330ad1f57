/* LINK: consumers rotation kube node */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "consumer.h"
#include "tls_peer.h"

#define SECRET_WORD "c2VjcmV0LXdvcmQ"

static struct peer_ca *old_ca, *other_ca;

static int make_authorities(void **state)
{
	(void)state;
	old_ca = peer_ca_new("kubernetes");
	other_ca = peer_ca_new("kubernetes"); /* the same name, another key */
	return 0;
}

static int drop_authorities(void **state)
{
	(void)state;
	peer_ca_freep(&old_ca);
	peer_ca_freep(&other_ca);
	return 0;
}

static char *base64(const char *text)
{
	struct buf out cleanup(buf_release) = BUF_INIT;
	base64_encode(text, strlen(text), &out);
	return buf_take(&out);
}

static char *client_of(const struct peer_ca *ca)
{
	struct key *k cleanup(key_freep) = NULL;
	struct cert *c cleanup(cert_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_INIT;
	struct err e;
	const struct leaf_request r = { .common_name = "bob", .client = true, .now_ms = clock_now_ms(), .validity_ms = 3600000 };
	assert_true(key_generate("ECDSA-P256", &k, &e).ok);
	assert_true(leaf_make(&r, k, ca->cert, ca->key, &c, &e).ok);
	cert_to_pem(c, &pem);
	return buf_take(&pem);
}

/* Two contexts; the authority that matters is not the current one's. */
static char *kubeconfig(const char *first, const char *second, const char *client)
{
	char *a cleanup(str_freep) = base64(first), *b cleanup(str_freep) = base64(second), *c cleanup(str_freep) = base64(client);
	return str_printf("apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- {name: a, context: {cluster: a, user: u}}\n"
			  "clusters:\n- {name: a, cluster: {server: \"https://a\", certificate-authority-data: %s}}\n"
			  "- name: b\n  cluster:\n    certificate-authority-data: %s\n    server: https://b\n"
			  "users:\n- name: u\n  user:\n    client-certificate-data: %s\n    client-key-data: " SECRET_WORD "\n", a, b, c);
}

static void look(struct world *w, bool secret, const char *value)
{
	struct json *object cleanup(json_wipep) = json_object(), *meta = json_ensure_object(object, "metadata"),
		    *data = json_ensure_object(object, "data");
	char *encoded cleanup(str_freep) = base64(value);
	json_set_str(meta, "namespace", "team");
	json_set_str(meta, "name", "thing");
	json_set_str(data, "nothing", secret ? "bm90aGluZw==" : "nothing");
	json_set_str(data, "value", secret ? encoded : value);
	copies_look_at(w, old_ca->cert, object, secret);
}

/* What is found in the value: COPY_* bits, and the first subject. */
static void finds(const char *value, int holds, const char *subject)
{
	for (int secret = 0; secret < 2; secret++) {
		struct world w cleanup(world_release) = { 0 };
		look(&w, secret, value);
		assert_int_equal(w.copies_total, holds ? 1 : 0);
		if (!holds)
			continue;
		assert_int_equal(w.copies[0].holds, holds);
		assert_string_equal(w.copies[0].kind, secret ? "Secret" : "ConfigMap");
		assert_string_equal(w.copies[0].namespace, "team");
		assert_string_equal(w.copies[0].name, "thing");
		assert_string_equal(w.copies[0].key, "value");
		assert_true(str_eq(w.copies[0].subject, subject));
		assert_int_equal(w.copies[0].not_after_ms > 0, subject != NULL);
	}
}

static void test_what_has_to_do_with_the_authority(void **state)
{
	(void)state;
	char *mine cleanup(str_freep) = client_of(old_ca), *theirs cleanup(str_freep) = client_of(other_ca);
	char *bundle cleanup(str_freep) = str_printf("# roots\n%s%s", other_ca->pem, old_ca->pem);
	char *pair cleanup(str_freep) = str_printf("%s%s", mine, old_ca->pem);
	finds(old_ca->pem, COPY_AUTHORITY, NULL);
	finds(bundle, COPY_AUTHORITY, NULL);
	finds(mine, COPY_CERTIFICATE, "CN=bob");
	finds(pair, COPY_AUTHORITY | COPY_CERTIFICATE, "CN=bob");
	finds(other_ca->pem, 0, NULL);
	finds(theirs, 0, NULL);
	finds("", 0, NULL);
	finds("-----BEGIN CERTIFICATE-----\nbroken\n", 0, NULL);
}

static void test_kubeconfigs_in_all_their_contexts(void **state)
{
	(void)state;
	char *mine cleanup(str_freep) = client_of(old_ca), *theirs cleanup(str_freep) = client_of(other_ca);
	char *trusts cleanup(str_freep) = kubeconfig(other_ca->pem, old_ca->pem, theirs);
	char *comes cleanup(str_freep) = kubeconfig(other_ca->pem, other_ca->pem, mine);
	char *both cleanup(str_freep) = kubeconfig(old_ca->pem, other_ca->pem, mine);
	char *neither cleanup(str_freep) = kubeconfig(other_ca->pem, other_ca->pem, theirs);
	finds(trusts, COPY_KUBECONFIG, NULL);
	finds(comes, COPY_CERTIFICATE, "CN=bob");
	finds(both, COPY_KUBECONFIG | COPY_CERTIFICATE, "CN=bob");
	finds(neither, 0, NULL);
	finds("clusters: [{cluster: {certificate-authority-data: !!binary \"", COPY_UNREADABLE, NULL); /* never silently "none" */
}

static void test_nothing_private_stays(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	char *mine cleanup(str_freep) = client_of(old_ca), *text cleanup(str_freep) = kubeconfig(old_ca->pem, old_ca->pem, mine);
	look(&w, true, text);
	const struct copy *c = &w.copies[0];
	const char *const kept[] = { c->kind, c->namespace, c->name, c->key, c->subject };
	for (size_t i = 0; i < ARRAY_LEN(kept); i++) {
		assert_null(strstr(kept[i], SECRET_WORD));
		assert_true(strlen(kept[i]) < 30);
	}
}

static void test_a_kubeconfig_in_json(void **state)
{
	(void)state;
	char *ca cleanup(str_freep) = base64(old_ca->pem);
	char *text cleanup(str_freep) = str_printf("{\"clusters\":[{\"cluster\":{\"certificate-authority-data\":\"%s\"}}]}", ca);
	finds(text, COPY_KUBECONFIG, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_has_to_do_with_the_authority),
		cmocka_unit_test(test_kubeconfigs_in_all_their_contexts),
		cmocka_unit_test(test_nothing_private_stays),
		cmocka_unit_test(test_a_kubeconfig_in_json),
	};
	return cmocka_run_group_tests(tests, make_authorities, drop_authorities);
}
