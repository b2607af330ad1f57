/* Single objects of the control plane: Leases, extension-apiserver-authentication, kubeadm-certs, the administrator's kubeconfig. */
#include "consumer.h"

#include <string.h>

/* Not there is an answer; anything else is not. */
static result get_or_absent(struct observation *o, const char *path, struct json **ret, struct err *e)
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

static result extension_auth_observe(struct observation *o, struct err *e)
{
	struct json *map cleanup(json_freep) = NULL;
	struct bundle_content b = { 0 };
	TRY(get_or_absent(o, "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication", &map, e));
	const char *pem = json_str(json_at(map, "data", "client-ca-file", NULL));
	if (pem)
		TRY(bundle_look(&o->world->run, pem, strlen(pem), &b, e));
	o->world->extension_auth_has_old = b.has_old ? SEEN_YES : SEEN_NO;
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

static result admin_kubeconfig_observe(struct observation *o, struct err *e)
{
	char *path cleanup(str_freep) =
		str_printf("/api/v1/namespaces/%s/secrets/%s", o->settings->namespace, ADMIN_KUBECONFIG_SECRET);
	struct json *secret cleanup(json_wipep) = NULL;
	TRY(get_or_absent(o, path, &secret, e));
	bool ours = secret && str_eq(label(secret, LABEL_RUN), o->world->run.id);
	o->world->admin_kubeconfig = ours ? SEEN_YES : SEEN_NO;
	return OK;
}

const struct consumer consumer_leases = { "Leases", READS_IN_RUN, leases_observe };
const struct consumer consumer_extension_auth = { "extension-apiserver-authentication", READS_IN_RUN, extension_auth_observe };
const struct consumer consumer_kubeadm_certs = { "kubeadm-certs", READS_IN_BOTH, kubeadm_certs_observe };
const struct consumer consumer_admin_kubeconfig = { "admin kubeconfig", READS_IN_RUN, admin_kubeconfig_observe };
const struct consumer consumer_kubeadm_config = { "kubeadm-config", READS_ALWAYS, kubeadm_config_observe };
