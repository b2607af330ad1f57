/* Single objects of the control plane: Leases, extension-apiserver-authentication, kubeadm-certs. */
#include "ca_bundles.h"

#include <string.h>

/* Not there is an answer; anything else is not. */
result get_or_absent(struct observation *o, const char *path, struct json **ret, struct err *e)
{
	struct err missing;
	if (kube_get(o->kube, path, ret, &missing).ok || missing.kind == ERR_NOT_FOUND)
		return OK;
	*e = missing;
	return FAILED;
}

static int64_t time_of(const struct json *text)
{
	struct err e;
	int64_t ms = 0;
	return json_str(text) && time_parse(json_str(text), &ms, &e).ok ? ms : 0;
}

static result read_lease(struct observation *o, const char *name, struct lease_state *ret, struct err *e)
{
	char *path cleanup(str_freep) =
		str_printf("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/%s", name);
	struct json *lease cleanup(json_freep) = NULL;
	TRY(get_or_absent(o, path, &lease, e));
	const struct json *spec = json_get(lease, "spec");
	ret->known = true;
	ret->exists = lease != NULL;
	ret->holder = str_dup(json_str_or(json_get(spec, "holderIdentity"), ""));
	ret->acquired_ms = time_of(json_get(spec, "acquireTime"));
	ret->renewed_ms = time_of(json_get(spec, "renewTime"));
	return OK;
}

static result leases_observe(struct observation *o, struct err *e)
{
	TRY(read_lease(o, "kube-controller-manager", &o->world->controller_manager, e));
	return read_lease(o, "kube-scheduler", &o->world->scheduler, e);
}

static enum seen seen(bool yes)
{
	return yes ? SEEN_YES : SEEN_NO;
}

static result look_at_bundle(const struct json *map, const char *name, const struct run_authority *of, struct bundle_content *ret,
			     struct err *e)
{
	const char *pem = json_str(json_at(map, "data", name, NULL));
	*ret = (struct bundle_content){ 0 };
	if (!pem || !of->new_pem)
		return OK;
	TRY_CTX(bundle_look(of, pem, strlen(pem), ret, e), e, "%s", name);
	return OK;
}

static result extension_auth_observe(struct observation *o, struct err *e)
{
	struct json *map cleanup(json_freep) = NULL;
	struct bundle_content client, proxy;
	struct world *w = o->world;
	TRY(get_or_absent(o, "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", &map, e));
	TRY(look_at_bundle(map, "client-ca-file", &w->run.of[AUTHORITY_KUBERNETES], &client, e));
	TRY(look_at_bundle(map, "requestheader-client-ca-file", &w->run.of[AUTHORITY_FRONT_PROXY], &proxy, e));
	w->extension_auth_has_old = seen(client.has_old);
	w->proxy_auth_has_old = seen(proxy.has_old);
	w->proxy_auth_has_new = seen(proxy.has_new);
	return OK;
}

static bool is_available(const struct json *object)
{
	bool available = false;
	json_each(c, json_at(object, "status", "conditions", NULL))
		available = available || (str_eq(json_get_str(c, "type"), "Available") && str_eq(json_get_str(c, "status"), "True"));
	return available;
}

/* From the time on that they are told so. */
static bool accepts_old_proxy(struct observation *o, const struct json *object)
{
	const char *said = "";
	return o->world->proxy_auth_has_old == SEEN_NO &&
	       ca_bundle_look_for_old_proxy(o, json_get(object, "spec"), &said) != PRESENTS_NEW;
}

/* Those without a service are the API server's own. */
static bool each_api_service(void *context, const struct json *object)
{
	struct observation *o = context;
	struct world *w = o->world;
	const char *name = json_str_or(json_at(object, "metadata", "name", NULL), "?");
	if (json_is_null(json_at(object, "spec", "service", NULL)) || !json_at(object, "spec", "service", NULL))
		return true;
	w->api_services++;
	if (!is_available(object))
		tally_lag(&w->api_services_away, name);
	else if (accepts_old_proxy(o, object))
		tally_lag(&w->api_services_old, name);
	return true;
}

static void drop_api_services(void *context)
{
	struct observation *o = context;
	o->world->api_services = 0;
	strs_release(&o->world->api_services_away);
	strs_release(&o->world->api_services_old);
}

static result api_services_observe(struct observation *o, struct err *e)
{
	const struct kube_list q = { .path = "/apis/apiregistration.k8s.io/v1/apiservices", .page = 200 };
	if (!authority_in(world_authorities(o->world), AUTHORITY_FRONT_PROXY))
		return OK;
	bundle_memory_turn(o->bundles, o->world->run.leg);
	TRY(kube_list_each(o->kube, &q, each_api_service, drop_api_services, o, NULL, e));
	o->world->api_services_known = true;
	return OK;
}

static result kubeadm_certs_observe(struct observation *o, struct err *e)
{
	struct json *secret cleanup(json_wipep) = NULL;
	TRY(get_or_absent(o, "/api/v1/namespaces/kube-system/secrets/kubeadm-certs", &secret, e));
	o->world->kubeadm_certs = secret ? SEEN_YES : SEEN_NO;
	return OK;
}

/* Asked before a run only: who takes it away in the middle of one does not stop it. */
static result kubeadm_config_observe(struct observation *o, struct err *e)
{
	struct json *map cleanup(json_freep) = NULL;
	if (o->world->run.exists)
		return OK;
	TRY(get_or_absent(o, "/api/v1/namespaces/kube-system/configmaps/kubeadm-config", &map, e));
	o->world->kubeadm_config = map ? SEEN_YES : SEEN_NO;
	return OK;
}

const struct consumer consumer_leases = { "Leases", READS_IN_RUN, leases_observe };
const struct consumer consumer_extension_auth = { "extension-apiserver-authentication", READS_IN_RUN, extension_auth_observe };
const struct consumer consumer_api_services = { "APIServices", READS_IN_RUN, api_services_observe };
const struct consumer consumer_kubeadm_certs = { "kubeadm-certs", READS_IN_BOTH, kubeadm_certs_observe };
const struct consumer consumer_kubeadm_config = { "kubeadm-config", READS_ALWAYS, kubeadm_config_observe };
