/* LINK: engine consumers rotation kube node */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "apply.h"
#include "tls_peer.h"

#include <string.h>

/* An API server with one object, which notes what it was asked. */
struct api {
	struct peer_ca *ca;
	struct peer_leaf leaf;
	struct peer *peer;
	struct kube *kube;
	const char *body; /* NULL: 404 */
	struct buf asked;
	struct world world;
	struct settings settings;
};

static void serve(void *context, const struct peer_request *r)
{
	struct api *a = context;
	buf_addf(&a->asked, "%s ", r->method);
	peer_answer(r, a->body ? 200 : 404, "", a->body ? a->body : "{\"kind\":\"Status\",\"message\":\"not found\"}");
}

static void api_start(struct api *a, const char *body)
{
	struct err e = { 0 };
	*a = (struct api){ .ca = peer_ca_new("one"), .body = body };
	a->leaf = peer_leaf_new(a->ca, "server");
	a->peer = peer_start(&(struct peer_options){ .leaf = &a->leaf }, serve, a);
	char *url cleanup(str_freep) = peer_url(a->peer, "");
	assert_true(kube_from_identity(url, &(struct http_identity){ .ca_pem = a->ca->pem }, &a->kube, &e).ok);
	a->settings = (struct settings){ .namespace = "ours", .node_namespace = "nodes" };
	a->world.run = (struct run){ .exists = true, .id = str_dup("0123456789ab"), .secret = str_dup("s") };
	a->world.run.of[AUTHORITY_KUBERNETES].secret = str_dup("s");
}

static void api_release(struct api *a)
{
	peer_stopp(&a->peer);
	kube_freep(&a->kube);
	peer_ca_freep(&a->ca);
	peer_leaf_release(&a->leaf);
	world_release(&a->world);
	buf_release(&a->asked);
}

/* What is asked of the API server, and whether the action succeeds. */
static void admin_kubeconfig_asks(const char *body, const char *asked, bool good)
{
	struct api a cleanup(api_release);
	struct err e = { 0 };
	api_start(&a, body);
	const struct applier applier = { .kube = a.kube, .settings = &a.settings, .world = &a.world };
	assert_int_equal(apply_admin_kubeconfig(&applier, &e).ok, good);
	assert_string_equal(buf_str(&a.asked), asked);
}

/* A pass that was answered from the past would make another one, with another key, while the first is in somebody's hands. */
static void test_a_kubeconfig_that_is_handed_out_stays(void **state)
{
	(void)state;
	admin_kubeconfig_asks("{\"metadata\":{\"labels\":{\"certrotation.dev/run\":\"0123456789ab\"}}}", "GET ", true);
	/* of an earlier run, or none: it goes on, to the authority's key, which is not there */
	admin_kubeconfig_asks("{\"metadata\":{\"labels\":{\"certrotation.dev/run\":\"ba9876543210\"}}}", "GET GET ", false);
	admin_kubeconfig_asks(NULL, "GET GET ", false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_kubeconfig_that_is_handed_out_stays),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
