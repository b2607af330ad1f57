/* LINK: engine consumers rotation kube node */
/* caBundles: what they hold, what is written into them, what is served behind them, and what of that the world says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "apply.h"
#include "ca_bundles.h"
#include "tls_peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VALIDATING "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
#define MUTATING "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
#define API_SERVICES "/apis/apiregistration.k8s.io/v1/apiservices"
#define CRDS "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

static struct peer_ca *old_ca, *new_ca, *third_ca, *server_ca;
static struct peer_leaf leaf, by_old, by_new;

static int make_authorities(void **state)
{
	(void)state;
	old_ca = peer_ca_new("old");
	new_ca = peer_ca_new("new");
	third_ca = peer_ca_new("third");
	server_ca = peer_ca_new("server");
	leaf = peer_leaf_new(server_ca, "server");
	by_old = peer_leaf_new(old_ca, "hook");
	by_new = peer_leaf_new(new_ca, "hook");
	return 0;
}

static int drop_authorities(void **state)
{
	(void)state;
	peer_ca_freep(&old_ca);
	peer_ca_freep(&new_ca);
	peer_ca_freep(&third_ca);
	peer_ca_freep(&server_ca);
	peer_leaf_release(&leaf);
	peer_leaf_release(&by_old);
	peer_leaf_release(&by_new);
	return 0;
}

/* --- An API server that keeps what is patched, and servers behind its Services ------------------------------------------------------ */

struct object {
	const char *collection, *name;
	struct json *json;       /* owned */
	int version;
};

struct api {
	struct object objects[12];
	size_t n;
	struct json *fixed;      /* path → answer */
	size_t patches, full_crds;
	bool race;               /* an object changes right after it was listed */
	int fail;                /* answer to every list of APIServices, 0: none */
	struct peer *peer;
	struct http_pool *probes;
	struct kube *kube;
	struct request request;
	struct world world;
	struct settings settings;
	struct observation o;
	struct applier applier;
};

static void stamp(struct object *o)
{
	struct json *meta = json_ensure_object(o->json, "metadata");
	char *version cleanup(str_freep) = str_printf("%d", o->version);
	json_set_str(meta, "name", o->name);
	json_set_str(meta, "uid", o->name);
	json_set_str(meta, "resourceVersion", version);
}

static struct json *bare(const struct json *object)
{
	struct json *j = json_object();
	json_set(j, "metadata", json_copy(json_get(object, "metadata")));
	return j;
}

static void answer_list(struct api *a, const struct peer_request *r, const char *collection)
{
	bool metadata = strstr(r->head, "PartialObjectMetadata") != NULL;
	struct json *list cleanup(json_freep) = json_object(), *items = json_array();
	json_set_str(json_ensure_object(list, "metadata"), "resourceVersion", "7");
	for (size_t i = 0; i < a->n; i++) {
		if (!str_eq(a->objects[i].collection, collection))
			continue;
		stamp(&a->objects[i]);
		json_add(items, metadata ? bare(a->objects[i].json) : json_copy(a->objects[i].json));
		a->objects[i].version += a->race;
	}
	json_set(list, "items", items);
	a->full_crds += !metadata && str_eq(collection, CRDS);
	char *text cleanup(str_freep) = json_text(list);
	peer_answer(r, 200, "", text);
}

static struct json *parsed(const char *text)
{
	struct json *j = NULL;
	struct err e = { 0 };
	assert_ok(json_parse(text, strlen(text), &j, &e), e);
	return j;
}

/* The member that a JSON pointer's parent leads to. */
static struct json *parent_of(struct json *at, const char *pointer, char *ret_last)
{
	char word[64];
	for (const char *p = pointer + 1;; p += strcspn(p, "/") + 1) {
		size_t n = strcspn(p, "/");
		str_copy(word, n + 1 < sizeof word ? n + 1 : sizeof word, p);
		if (!p[n])
			break;
		at = json_is_array(at) ? (struct json *)(uintptr_t)json_index(at, (size_t)strtol(word, NULL, 10)) : json_get_mut(at, word);
	}
	str_copy(ret_last, 64, word);
	return at;
}

static void answer_patch(struct api *a, const struct peer_request *r, struct object *o)
{
	struct json *patch cleanup(json_freep) = parsed(r->body);
	const char *precondition = json_get_str(json_first(patch), "value");
	char *version cleanup(str_freep) = str_printf("%d", o->version);
	char last[64];
	assert_string_equal(json_get_str(json_first(patch), "path"), "/metadata/resourceVersion");
	if (!str_eq(precondition, version)) {
		peer_answer(r, 409, "", "{\"kind\":\"Status\",\"message\":\"the object has been modified\"}");
		return;
	}
	json_each(op, patch) {
		assert_string_equal(json_get_str(op, "op"), "replace");
		struct json *parent = parent_of(o->json, json_get_str(op, "path"), last);
		assert_non_null(json_get(parent, last));
		json_set_str(parent, last, json_get_str(op, "value"));
	}
	o->version++;
	a->patches++;
	peer_answer(r, 200, "", "{}");
}

static struct object *object_at(struct api *a, const char *path, size_t n)
{
	for (size_t i = 0; i < a->n; i++) {
		char *own cleanup(str_freep) = str_printf("%s/%s", a->objects[i].collection, a->objects[i].name);
		if (strlen(own) == n && strncmp(own, path, n) == 0)
			return &a->objects[i];
	}
	return NULL;
}

static void serve(void *context, const struct peer_request *r)
{
	struct api *a = context;
	static const char *const COLLECTIONS[] = { VALIDATING, MUTATING, API_SERVICES, CRDS };
	char *path cleanup(str_freep) = str_ndup(r->target, strcspn(r->target, "?"));
	struct object *o = object_at(a, path, strlen(path));
	if (a->fail && str_eq(path, API_SERVICES)) {
		peer_answer(r, a->fail, "", "{}");
		return;
	}
	for (size_t i = 0; i < ARRAY_LEN(COLLECTIONS); i++)
		if (str_eq(path, COLLECTIONS[i])) {
			answer_list(a, r, COLLECTIONS[i]);
			return;
		}
	if (o && str_eq(r->method, "PATCH")) {
		answer_patch(a, r, o);
		return;
	}
	if (o)
		stamp(o);
	const struct json *answer = o ? o->json : json_get(a->fixed, path);
	char *text cleanup(str_freep) = answer ? json_text(answer) : str_dup("{\"kind\":\"Status\",\"message\":\"not found\"}");
	peer_answer(r, answer ? 200 : 404, "", text);
}

static void api_start(struct api *a)
{
	struct err e = { 0 };
	a->peer = peer_start(&(struct peer_options){ .leaf = &leaf }, serve, a);
	char *url cleanup(str_freep) = peer_url(a->peer, "");
	assert_ok(kube_from_identity(url, &(struct http_identity){ .ca_pem = server_ca->pem }, &a->kube, &e), e);
	a->settings = (struct settings){ .namespace = "certrotation", .node_namespace = "certrotation-nodes" };
	a->probes = http_pool_new(8, "test");
	a->fixed = json_object();
	a->world = (struct world){ .now_ms = clock_now_ms(), .request = &a->request };
	a->world.run = (struct run){ .exists = true, .authorities = AUTHORITY_BIT(AUTHORITY_KUBERNETES), .leg = str_dup("0123456789ab") };
	a->world.run.of[AUTHORITY_KUBERNETES] = (struct run_authority){ .old_pem = str_dup(old_ca->pem), .new_pem = str_dup(new_ca->pem) };
	a->o = (struct observation){ .kube = a->kube, .probes = a->probes, .bundles = bundle_memory_new(), .world = &a->world, .settings = &a->settings };
	a->applier = (struct applier){ a->kube, &a->settings, &a->world, NULL, a->o.bundles };
}

static void api_release(struct api *a)
{
	peer_stopp(&a->peer);
	kube_freep(&a->kube);
	http_pool_freep(&a->probes);
	bundle_memory_freep(&a->o.bundles);
	world_release(&a->world);
	request_release(&a->request);
	json_freep(&a->fixed);
	for (size_t i = 0; i < a->n; i++)
		json_freep(&a->objects[i].json);
}

/* --- Objects --------------------------------------------------------------------------------------------------------------------------- */

static char *base64_of(const char *text)
{
	struct buf b cleanup(buf_release) = BUF_INIT;
	base64_encode(text, strlen(text), &b);
	return buf_take(&b);
}

static struct json *config(const char *pem, const char *server)
{
	struct json *j = json_object();
	char *encoded cleanup(str_freep) = base64_of(pem);
	json_set_str(j, "caBundle", encoded);
	if (str_starts(server, "https:")) {
		json_set_str(j, "url", server);
		return j;
	}
	struct json *service = json_ensure_object(j, "service");
	json_set_str(service, "namespace", "shop");
	json_set_str(service, "name", server);
	return j;
}

static struct object *add_object(struct api *a, const char *collection, const char *name, struct json *taken)
{
	struct object *o = &a->objects[a->n++];
	*o = (struct object){ collection, name, taken, 1 };
	return o;
}

static void add_webhook(struct object *o, const char *name, const char *pem, const char *server)
{
	struct json *hook = json_object();
	json_set_str(hook, "name", name);
	json_set(hook, "clientConfig", config(pem, server));
	json_add(json_ensure_array(o->json, "webhooks"), hook);
}

static void add_hook(struct api *a, const char *name, const char *pem, const char *server)
{
	add_webhook(add_object(a, VALIDATING, name, json_object()), "a.example.org", pem, server);
}

static void add_api_service(struct api *a, const char *name, const char *pem, const char *server)
{
	struct json *j = json_object();
	json_set(j, "spec", config(pem, server));
	add_object(a, API_SERVICES, name, j);
}

static void add_crd(struct api *a, const char *name, const char *pem, const char *server)
{
	struct json *j = json_object(), *conversion = json_ensure_object(json_ensure_object(j, "spec"), "conversion");
	json_set_str(conversion, "strategy", pem ? "Webhook" : "None");
	if (pem)
		json_set(json_ensure_object(conversion, "webhook"), "clientConfig", config(pem, server));
	add_object(a, CRDS, name, j);
}

/* What the object's caBundle holds now. Caller frees. */
static char *held(const struct api *a, const char *name, size_t webhook)
{
	struct buf pem cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	for (size_t i = 0; i < a->n; i++) {
		const struct json *j = a->objects[i].json;
		if (!str_eq(a->objects[i].name, name))
			continue;
		const char *text = json_str(json_at(json_index(json_get(j, "webhooks"), webhook), "clientConfig", "caBundle", NULL));
		text = text ? text : json_str(json_at(j, "spec", "caBundle", NULL));
		text = text ? text : json_str(json_at(j, "spec", "conversion", "webhook", "clientConfig", "caBundle", NULL));
		assert_ok(base64_decode(text, strlen(text), &pem, &e), e);
	}
	return buf_take(&pem);
}

static void assert_held(const struct api *a, const char *name, size_t webhook, const char *one, const char *two)
{
	char *is cleanup(str_freep) = held(a, name, webhook), *wanted cleanup(str_freep) = str_printf("%s%s", one, two);
	assert_string_equal(is, wanted);
}

/* --- A server behind a Service ------------------------------------------------------------------------------------------------------------- */

static void say_nothing(void *context, const struct peer_request *r)
{
	(void)context;
	peer_answer(r, 404, "", "no");
}

struct back {
	struct peer *peer;
};

static void back_release(struct back *b)
{
	peer_stopp(&b->peer);
}

static struct back back_start(const struct peer_leaf *l, const char *client_ca)
{
	return (struct back){ peer_start(&(struct peer_options){ .leaf = l, .client_ca_pem = client_ca }, say_nothing, NULL) };
}

/* The Service and its endpoints: ports of 127.0.0.1, a slice each, the last one terminating when `going`. */
static void serve_service(struct api *a, const char *name, const int *ports, size_t n, bool going)
{
	char *service cleanup(str_freep) = str_printf("/api/v1/namespaces/shop/services/%s", name);
	const char *slices = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices";
	struct json *list = json_object(), *items = json_array();
	json_set(a->fixed, service, parsed("{\"spec\":{\"type\":\"ClusterIP\",\"ipFamilies\":[\"IPv4\"],\"ports\":[{\"name\":\"no\",\"port\":80},"
					   "{\"name\":\"web\",\"port\":443}]}}"));
	for (size_t i = 0; i < n; i++) {
		char *text cleanup(str_freep) = str_printf(
			"{\"addressType\":\"IPv4\",\"ports\":[{\"name\":\"no\",\"port\":1},{\"name\":\"web\",\"port\":%d}],"
			"\"endpoints\":[{\"addresses\":[\"127.0.0.1\"],\"conditions\":{\"ready\":%s,\"terminating\":%s}}]}",
			ports[i], i ? "false" : "true", going && i + 1 == n ? "true" : "false");
		json_add(items, parsed(text));
	}
	json_add(items, parsed("{\"addressType\":\"IPv6\",\"ports\":[{\"name\":\"web\",\"port\":1}],\"endpoints\":[{\"addresses\":[\"::1\"]}]}"));
	json_set_str(json_ensure_object(list, "metadata"), "resourceVersion", "7");
	json_set(list, "items", items);
	json_set(a->fixed, slices, list);
}

/* --- A pass ---------------------------------------------------------------------------------------------------------------------------------- */

static void clear(struct world *w)
{
	struct ca_bundles *b = &w->ca_bundles;
	strs_release(&b->tally.lag_new);
	strs_release(&b->tally.lag_only);
	strs_release(&b->reverted);
	strs_release(&b->listed);
	for (size_t i = 0; i < b->n_keepers; i++) {
		str_freep(&b->keepers[i].object);
		str_freep(&b->keepers[i].reason);
	}
	free(b->keepers);
	*b = (struct ca_bundles){ 0 };
}

/* As from PublishingNew on, when `published`. */
static const struct ca_bundles *observe(struct api *a, bool published)
{
	struct err e = { 0 };
	clear(&a->world);
	a->world.root_configmaps = (struct tally){ .known = true, .total = 1, .with_new = 1, .only_new = published };
	assert_ok(consumer_ca_bundles.observe(&a->o, &e), e);
	return &a->world.ca_bundles;
}

static void move(struct api *a, int level)
{
	struct err e = { 0 };
	const struct action action = { .kind = ACT_CA_BUNDLES, .level = level };
	assert_ok(apply_ca_bundles(&a->applier, &action, &e), e);
}

static const char *reason_of(const struct ca_bundles *b, const char *object)
{
	for (size_t i = 0; i < b->n_keepers; i++)
		if (str_eq(b->keepers[i].object, object))
			return b->keepers[i].reason;
	fail_msg("%s is not named", object);
	return "";
}

/* --- What one holds ----------------------------------------------------------------------------------------------------------------------------- */

static void test_states(void **state)
{
	(void)state;
	const struct run_authority of = { .old_pem = old_ca->pem, .new_pem = new_ca->pem };
	const struct { const char *parts[3]; int is; } cases[] = {
		{ { old_ca->pem }, BUNDLE_OLD },
		{ { "# ours\n", old_ca->pem, "\n\n" }, BUNDLE_OLD },
		{ { old_ca->pem, new_ca->pem }, BUNDLE_BOTH },
		{ { new_ca->pem, old_ca->pem }, BUNDLE_BOTH },
		{ { new_ca->pem }, BUNDLE_NEW },
		{ { third_ca->pem }, BUNDLE_FOREIGN },
		{ { "no certificate" }, BUNDLE_FOREIGN },
		{ { new_ca->pem, third_ca->pem }, BUNDLE_FOREIGN },
		{ { old_ca->pem, third_ca->pem }, BUNDLE_MIXED },
		{ { new_ca->pem, third_ca->pem, old_ca->pem }, BUNDLE_MIXED },
		{ { old_ca->pem, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n" }, BUNDLE_MIXED },
		{ { by_old.cert_pem }, BUNDLE_CHAINED },
		{ { third_ca->pem, by_old.cert_pem }, BUNDLE_CHAINED },
		{ { by_new.cert_pem }, BUNDLE_FOREIGN },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char *pem cleanup(str_freep) = str_printf("%s%s%s", cases[i].parts[0], cases[i].parts[1] ? cases[i].parts[1] : "",
							  cases[i].parts[2] ? cases[i].parts[2] : "");
		assert_int_equal(ca_bundle_state(&of, pem, strlen(pem)), cases[i].is);
	}
}

/* There and back: the bytes that were there. There alone: N's. */
static void test_texts(void **state)
{
	(void)state;
	const struct run_authority there = { .old_pem = old_ca->pem, .new_pem = new_ca->pem }, back = { .old_pem = new_ca->pem, .new_pem = old_ca->pem };
	char *bare_pem cleanup(str_freep) = str_ndup(old_ca->pem, strlen(old_ca->pem) - 1);
	char *noted cleanup(str_freep) = str_printf("# kept by hand\n\n%s\n \n", old_ca->pem);
	char *noted_bare cleanup(str_freep) = str_printf("%s\n# the end", old_ca->pem);
	char *crlf cleanup(str_freep) = str_printf("%s\r\n", bare_pem);
	const char *const originals[] = { old_ca->pem, bare_pem, noted, noted_bare, crlf };
	for (size_t i = 0; i < ARRAY_LEN(originals); i++) {
		struct buf both cleanup(buf_release) = BUF_INIT, again cleanup(buf_release) = BUF_INIT, alone cleanup(buf_release) = BUF_INIT;
		ca_bundle_text(&there, TRUST_BOTH, originals[i], strlen(originals[i]), &both);
		assert_int_equal(ca_bundle_state(&there, buf_str(&both), both.len), BUNDLE_BOTH);
		assert_true(str_starts(buf_str(&both), originals[i]));
		ca_bundle_text(&back, TRUST_NEW, buf_str(&both), both.len, &again);
		assert_string_equal(buf_str(&again), originals[i]);
		ca_bundle_text(&there, TRUST_NEW, buf_str(&both), both.len, &alone);
		assert_string_equal(buf_str(&alone), new_ca->pem);
	}
	/* what somebody has put together otherwise */
	char *swapped cleanup(str_freep) = str_printf("%s%s", new_ca->pem, old_ca->pem);
	struct buf alone cleanup(buf_release) = BUF_INIT, again cleanup(buf_release) = BUF_INIT;
	ca_bundle_text(&there, TRUST_NEW, swapped, strlen(swapped), &alone);
	assert_string_equal(buf_str(&alone), new_ca->pem);
	ca_bundle_text(&back, TRUST_NEW, swapped, strlen(swapped), &again);
	assert_string_equal(buf_str(&again), old_ca->pem);
}

/* --- From O to both ---------------------------------------------------------------------------------------------------------------------------------- */

static void test_every_kind_is_moved(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	char *mixed cleanup(str_freep) = str_printf("%s%s", old_ca->pem, third_ca->pem);
	api_start(&a);
	add_hook(&a, "policy", old_ca->pem, "policy");
	struct object *several = add_object(&a, MUTATING, "several", json_object());
	add_webhook(several, "first.example.org", third_ca->pem, "policy");
	add_webhook(several, "second.example.org", old_ca->pem, "policy");
	add_webhook(several, "third.example.org", old_ca->pem, "https://10.0.0.1:8443/a?b");
	add_webhook(several, "fourth.example.org", mixed, "policy");
	add_api_service(&a, "v1.example.org", old_ca->pem, "api");
	add_object(&a, API_SERVICES, "v1.", parsed("{\"spec\":{\"group\":\"\",\"version\":\"v1\"}}"));
	add_crd(&a, "things.example.org", old_ca->pem, "api");
	add_crd(&a, "plain.example.org", NULL, NULL);
	add_hook(&a, "stranger", third_ca->pem, "policy");
	const struct ca_bundles *b = observe(&a, false);
	assert_true(b->tally.known);
	assert_int_equal(b->tally.total, 5);
	assert_int_equal(b->tally.with_new + b->tally.only_new, 0);
	assert_int_equal(b->wait_both, 5);
	assert_int_equal(b->to_both, 5);
	assert_int_equal(b->to_new + b->unlooked, 0);
	assert_int_equal(b->keepers_total, 1);
	assert_non_null(strstr(reason_of(b, "MutatingWebhookConfiguration/several"), "webhook fourth.example.org: its caBundle holds the old"));
	assert_true(strs_has(&b->tally.lag_new, "CustomResourceDefinition/things.example.org"));
	move(&a, TRUST_BOTH);
	assert_int_equal(a.patches, 4); /* one for an object */
	assert_held(&a, "policy", 0, old_ca->pem, new_ca->pem);
	assert_held(&a, "several", 0, third_ca->pem, "");
	assert_held(&a, "several", 1, old_ca->pem, new_ca->pem);
	assert_held(&a, "several", 2, old_ca->pem, new_ca->pem);
	assert_held(&a, "several", 3, mixed, "");
	assert_held(&a, "v1.example.org", 0, old_ca->pem, new_ca->pem);
	assert_held(&a, "things.example.org", 0, old_ca->pem, new_ca->pem);
	assert_held(&a, "stranger", 0, third_ca->pem, "");
	b = observe(&a, false);
	assert_int_equal(b->tally.with_new, 5);
	assert_int_equal(b->wait_both + b->to_both, 0);
	assert_int_equal(b->wait_new, 5);
	assert_int_equal(b->unlooked, 5); /* nobody can renew before N signs */
	move(&a, TRUST_BOTH);
	assert_int_equal(a.patches, 4);
}

static void test_what_cannot_be_read_is_unknown(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	api_start(&a);
	a.fail = 403;
	assert_false(consumer_ca_bundles.observe(&a.o, &e).ok);
	assert_false(a.world.ca_bundles.tally.known);
}

static void test_other_authorities_have_none(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	api_start(&a);
	add_hook(&a, "policy", old_ca->pem, "policy");
	a.world.run.authorities = AUTHORITY_BIT(AUTHORITY_FRONT_PROXY);
	const struct ca_bundles *b = observe(&a, false);
	assert_true(b->tally.known);
	assert_int_equal(b->tally.total, 0);
	a.world.run.authorities |= AUTHORITY_BIT(AUTHORITY_KUBERNETES);
	str_freep(&a.world.run.of[AUTHORITY_KUBERNETES].old_pem); /* not stored yet */
	assert_false(observe(&a, false)->tally.known);
}

/* CRDs are large: all of them are read only when one has changed. */
static void test_crds_are_read_when_they_change(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	api_start(&a);
	add_crd(&a, "things.example.org", old_ca->pem, "api");
	add_crd(&a, "plain.example.org", NULL, NULL);
	assert_int_equal(observe(&a, false)->tally.total, 1);
	assert_int_equal(a.full_crds, 1);
	assert_int_equal(observe(&a, false)->tally.total, 1);
	assert_int_equal(a.full_crds, 1);
	move(&a, TRUST_BOTH);
	assert_int_equal(observe(&a, false)->tally.with_new, 1);
	assert_int_equal(a.full_crds, 2);
	add_crd(&a, "more.example.org", old_ca->pem, "api");
	assert_int_equal(observe(&a, false)->wait_both, 1);
	assert_int_equal(a.full_crds, 3);
}

/* --- From both to N ------------------------------------------------------------------------------------------------------------------------------------ */

static void test_a_bundle_waits_for_its_server(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct back old cleanup(back_release) = back_start(&by_old, NULL), new cleanup(back_release) = back_start(&by_new, NULL);
	int ports[] = { peer_port(new.peer), peer_port(old.peer) };
	char *both cleanup(str_freep) = str_printf("%s%s", old_ca->pem, new_ca->pem);
	api_start(&a);
	add_hook(&a, "policy", both, "policy");
	serve_service(&a, "policy", ports, 2, false);
	const struct ca_bundles *b = observe(&a, true);
	assert_int_equal(b->to_new + b->unlooked, 0);
	assert_int_equal(b->wait_new, 1);
	const char *reason = reason_of(b, "ValidatingWebhookConfiguration/policy");
	char *where cleanup(str_freep) = str_printf("127.0.0.1:%d presents a certificate from the old authority", ports[1]);
	assert_non_null(strstr(reason, "webhook a.example.org: "));
	assert_non_null(strstr(reason, where)); /* one of two is enough */
	assert_non_null(strstr(reason, "renew its serving certificate"));
	move(&a, TRUST_NEW);
	assert_int_equal(a.patches, 0);

	serve_service(&a, "policy", ports, 2, true); /* the old one goes */
	b = observe(&a, true);
	assert_int_equal(b->keepers_total, 1);       /* as it was seen: it is not looked at all the time */
	a.world.now_ms += 10000;
	b = observe(&a, true);
	assert_int_equal(b->keepers_total, 0);
	assert_int_equal(b->to_new, 1);
	move(&a, TRUST_NEW);
	assert_held(&a, "policy", 0, new_ca->pem, "");
	b = observe(&a, true);
	assert_int_equal(b->tally.only_new, 1);
	assert_int_equal(b->wait_new, 0);
}

static void test_what_was_seen_long_ago_is_no_proof(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct back new cleanup(back_release) = back_start(&by_new, NULL);
	int port = peer_port(new.peer);
	char *both cleanup(str_freep) = str_printf("%s%s", old_ca->pem, new_ca->pem);
	api_start(&a);
	add_hook(&a, "policy", both, "policy");
	serve_service(&a, "policy", &port, 1, false);
	assert_int_equal(observe(&a, true)->to_new, 1);
	a.world.now_ms += 31000;
	assert_int_equal(observe(&a, false)->unlooked, 1);
	move(&a, TRUST_NEW);
	assert_int_equal(a.patches, 0);
	free(steal(&a.world.run.leg));
	a.world.run.leg = str_dup("0123456789ab-back"); /* nor for the way back, where N is another one */
	a.world.now_ms -= 31000;
	assert_int_equal(observe(&a, false)->unlooked, 1);
}

/* Those whose handshake names the old authority among the ones that clients may come from. */
static size_t accept_old_proxy(struct api *a)
{
	struct err e = { 0 };
	strs_release(&a->world.api_services_old);
	strs_release(&a->world.api_services_away);
	a->world.api_services = 0;
	assert_ok(consumer_api_services.observe(&a->o, &e), e);
	assert_true(a->world.api_services_known);
	assert_int_equal(a->world.api_services, 1);
	assert_int_equal(a->world.api_services_away.n, 0);
	return a->world.api_services_old.n;
}

static void test_aggregated_servers_are_asked_whom_they_accept(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct back late cleanup(back_release) = back_start(&by_new, old_ca->pem), told cleanup(back_release) = back_start(&by_new, new_ca->pem);
	int ports[] = { peer_port(told.peer), peer_port(late.peer) };
	api_start(&a);
	a.world.run.authorities = AUTHORITY_BIT(AUTHORITY_FRONT_PROXY);
	a.world.run.of[AUTHORITY_FRONT_PROXY] = (struct run_authority){ .old_pem = str_dup(old_ca->pem), .new_pem = str_dup(new_ca->pem) };
	add_api_service(&a, "v1.example.org", third_ca->pem, "api");
	json_set(a.objects[0].json, "status", parsed("{\"conditions\":[{\"type\":\"Available\",\"status\":\"True\"}]}"));
	serve_service(&a, "api", ports, 2, false);
	a.world.proxy_auth_has_old = SEEN_YES;
	assert_int_equal(accept_old_proxy(&a), 0);   /* nobody has told them yet, and nobody asks them */
	assert_int_equal(peer_connections(late.peer), 0);
	a.world.proxy_auth_has_old = SEEN_NO;
	assert_int_equal(accept_old_proxy(&a), 1);   /* one of two is enough */
	assert_string_equal(a.world.api_services_old.items[0], "v1.example.org");
	serve_service(&a, "api", ports, 2, true);
	assert_int_equal(accept_old_proxy(&a), 1);   /* as it was seen just now */
	a.world.now_ms += 1000;
	assert_int_equal(accept_old_proxy(&a), 0);
	a.world.now_ms += 1000;
	serve_service(&a, "api", NULL, 0, false);
	assert_int_equal(accept_old_proxy(&a), 1);   /* not reached is not asked */
}

static const struct ca_bundles *look_at(struct api *a, const char *pem, const char *server)
{
	a->n = 0;
	add_hook(a, "policy", pem, server);
	const struct ca_bundles *b = observe(a, true);
	json_freep(&a->objects[0].json);
	a->n = 0;
	a->world.now_ms += 1000000;
	return b;
}

static void test_what_is_not_seen_is_named(void **state)
{
	(void)state;
	static const char HOOK[] = "ValidatingWebhookConfiguration/policy";
	struct api a cleanup(api_release) = { 0 };
	struct back gone = back_start(&by_new, NULL), strict cleanup(back_release) = back_start(&by_new, third_ca->pem);
	struct back foreign cleanup(back_release) = back_start(&leaf, NULL);
	int dead = peer_port(gone.peer), stranger = peer_port(foreign.peer);
	char *both cleanup(str_freep) = str_printf("%s%s", old_ca->pem, new_ca->pem);
	char *url cleanup(str_freep) = str_printf("https://localhost:%d/path?a=b", peer_port(strict.peer));
	char *dead_url cleanup(str_freep) = str_printf("https://127.0.0.1:%d", dead);
	back_release(&gone);
	api_start(&a);
	assert_non_null(strstr(reason_of(look_at(&a, both, "policy"), HOOK), "Service shop/policy, port 443"));
	serve_service(&a, "policy", NULL, 0, false);
	assert_non_null(strstr(reason_of(look_at(&a, both, "policy"), HOOK), "has no endpoint"));
	serve_service(&a, "policy", &dead, 1, false);
	assert_non_null(strstr(reason_of(look_at(&a, both, "policy"), HOOK), "was not reached"));
	assert_non_null(strstr(reason_of(look_at(&a, both, dead_url), HOOK), "let the controller see it"));
	serve_service(&a, "policy", &stranger, 1, false);
	assert_non_null(strstr(reason_of(look_at(&a, both, "policy"), HOOK), "does not vouch for"));
	const struct ca_bundles *b = look_at(&a, both, url); /* it wants a certificate of ours: it has shown its own before */
	assert_int_equal(b->keepers_total, 0);
	assert_int_equal(b->to_new, 1);
}

static void test_an_accepted_one_keeps_both(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	char *both cleanup(str_freep) = str_printf("%s%s", old_ca->pem, new_ca->pem), *mixed cleanup(str_freep) = str_printf("%s%s", old_ca->pem, third_ca->pem);
	api_start(&a);
	add_hook(&a, "late", both, "late");
	add_hook(&a, "mixed", mixed, "late");
	add_hook(&a, "chained", by_old.cert_pem, "late");
	assert_int_equal(observe(&a, true)->keepers_total, 3);
	strs_add(&a.world.run.accepted, "ValidatingWebhookConfiguration/late");
	strs_add(&a.request.accepted, "ValidatingWebhookConfiguration/mixed");
	const struct ca_bundles *b = observe(&a, true);
	assert_int_equal(b->keepers_total, 1);
	assert_non_null(strstr(reason_of(b, "ValidatingWebhookConfiguration/chained"), "has issued"));
	assert_int_equal(b->wait_both + b->wait_new + b->unlooked, 0);
	move(&a, TRUST_NEW);
	assert_int_equal(a.patches, 0);
}

/* --- Two that write ------------------------------------------------------------------------------------------------------------------------------------- */

static void write_back(struct api *a, const char *pem, const char *manager)
{
	json_freep(&a->objects[0].json);
	char *fields cleanup(str_freep) = str_printf("{\"metadata\":{\"managedFields\":[{\"manager\":\"early\",\"time\":\"2026-01-01T00:00:00Z\"},"
						     "{\"manager\":\"%s\",\"time\":\"2026-01-02T00:00:00Z\"},{\"manager\":\"certrotation\",\"time\":\"2026-01-03T00:00:00Z\"},"
						     "{\"manager\":\"status\",\"subresource\":\"status\",\"time\":\"2026-01-04T00:00:00Z\"}]}}", manager);
	a->objects[0].json = parsed(fields);
	a->objects[0].version++;
	add_webhook(&a->objects[0], "a.example.org", pem, "policy");
}

static void test_two_that_write_make_no_loop(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	api_start(&a);
	add_hook(&a, "policy", old_ca->pem, "policy");
	size_t writes = 0, passes = 0;
	observe(&a, false);
	move(&a, TRUST_BOTH);
	assert_int_equal(a.patches, 1);
	/* somebody who always writes back at once, for an hour of passes two seconds apart */
	for (int64_t begun = a.world.now_ms; a.world.now_ms < begun + 3600000; a.world.now_ms += 2000) {
		write_back(&a, old_ca->pem, "injector");
		const struct ca_bundles *b = observe(&a, false);
		assert_int_equal(b->wait_both, 1);
		if (b->to_both) {
			assert_int_equal(b->reverted.n, 0);
			writes++;
			move(&a, TRUST_BOTH);
		} else {
			assert_string_equal(b->reverted.items[0], "ValidatingWebhookConfiguration/policy (by injector)");
			assert_in_range(b->again_ms, 1, 300000);
			assert_int_equal(b->fought, writes >= 3);
		}
		passes++;
	}
	assert_int_equal(a.patches, 1 + writes);
	assert_in_range(writes, 12, 24);
	assert_int_equal(passes, 1800);
	strs_add(&a.world.run.accepted, "ValidatingWebhookConfiguration/policy");
	write_back(&a, old_ca->pem, "injector");
	assert_int_equal(observe(&a, false)->wait_both, 0); /* left as its owner wants it */
}

static void test_a_bundle_that_was_written_back_once_is_moved_at_once(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	api_start(&a);
	add_hook(&a, "policy", old_ca->pem, "policy");
	observe(&a, false);
	move(&a, TRUST_BOTH);
	a.world.now_ms += 10000;
	write_back(&a, old_ca->pem, "kubectl-client-side-apply");
	assert_int_equal(observe(&a, false)->to_both, 1);
	move(&a, TRUST_BOTH);
	assert_held(&a, "policy", 0, old_ca->pem, new_ca->pem);
	assert_int_equal(a.patches, 2);
}

/* Somebody writes between our list and our patch. Who was first wins; the next pass looks. */
static void test_a_write_has_a_precondition(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	api_start(&a);
	add_hook(&a, "policy", old_ca->pem, "policy");
	observe(&a, false);
	a.race = true;
	move(&a, TRUST_BOTH);
	assert_int_equal(a.patches, 0);
	assert_held(&a, "policy", 0, old_ca->pem, "");
	a.race = false;
	assert_int_equal(observe(&a, false)->to_both, 1); /* that was no write of ours, so nothing was written back */
	move(&a, TRUST_BOTH);
	assert_int_equal(a.patches, 1);
}

/* --- A plan --------------------------------------------------------------------------------------------------------------------------------------------------- */

static void test_a_plan_lists_and_looks_at_nobody(void **state)
{
	(void)state;
	struct api a cleanup(api_release) = { 0 };
	struct err e = { 0 };
	char *mixed cleanup(str_freep) = str_printf("%s%s", old_ca->pem, third_ca->pem);
	api_start(&a);
	run_release(&a.world.run);
	a.request.plan_only = true;
	a.world.pending = AUTHORITY_BIT(AUTHORITY_KUBERNETES);
	a.o.published_pem = old_ca->pem;
	struct object *several = add_object(&a, MUTATING, "several", json_object());
	add_webhook(several, "first.example.org", old_ca->pem, "policy");
	add_webhook(several, "second.example.org", old_ca->pem, "policy");
	add_api_service(&a, "v1.example.org", old_ca->pem, "api");
	add_hook(&a, "mixed", mixed, "policy");
	add_hook(&a, "chained", by_old.cert_pem, "policy");
	add_hook(&a, "stranger", third_ca->pem, "policy");
	assert_ok(consumer_ca_bundles.observe(&a.o, &e), e);
	const struct ca_bundles *b = &a.world.ca_bundles;
	assert_int_equal(b->listed_total, 2);
	assert_string_equal(b->listed.items[0], "MutatingWebhookConfiguration/several");
	assert_string_equal(b->listed.items[1], "APIService/v1.example.org");
	assert_int_equal(b->keepers_total, 2);
	assert_int_equal(a.o.bundles->n_servers, 0);
	a.o.published_pem = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_texts),
		cmocka_unit_test(test_every_kind_is_moved),
		cmocka_unit_test(test_what_cannot_be_read_is_unknown),
		cmocka_unit_test(test_other_authorities_have_none),
		cmocka_unit_test(test_crds_are_read_when_they_change),
		cmocka_unit_test(test_a_bundle_waits_for_its_server),
		cmocka_unit_test(test_what_was_seen_long_ago_is_no_proof),
		cmocka_unit_test(test_aggregated_servers_are_asked_whom_they_accept),
		cmocka_unit_test(test_what_is_not_seen_is_named),
		cmocka_unit_test(test_an_accepted_one_keeps_both),
		cmocka_unit_test(test_two_that_write_make_no_loop),
		cmocka_unit_test(test_a_bundle_that_was_written_back_once_is_moved_at_once),
		cmocka_unit_test(test_a_write_has_a_precondition),
		cmocka_unit_test(test_a_plan_lists_and_looks_at_nobody),
	};
	return cmocka_run_group_tests(tests, make_authorities, drop_authorities);
}
