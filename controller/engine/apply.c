#include "apply.h"

#include <string.h>

#define FINALIZER "certrotation.dev/rotation"
#define REFRESH_EVERY_MS 5000

static result delete_kubeadm_certs(const struct applier *a, struct err *e)
{
	return kube_delete(a->kube, "/api/v1/namespaces/kube-system/secrets/kubeadm-certs", NULL, NULL, e);
}

static void patch_op(struct json *patch, const char *op, const char *path, const char *value)
{
	struct json *j = json_object();
	json_set_str(j, "op", op);
	json_set_str(j, "path", path);
	json_set_str(j, "value", value);
	json_add(patch, j);
}

/* The holder was seen to be dead; should somebody else hold the Lease by now, the test fails and nothing changes. */
static result release_lease(const struct applier *a, const struct action *action, struct err *e)
{
	const bool scheduler = str_eq(action->name, "kube-scheduler");
	const struct lease_state *l = scheduler ? &a->world->scheduler : &a->world->controller_manager;
	char *path cleanup(str_freep) =
		str_printf("/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/%s", action->name);
	struct json *patch cleanup(json_freep) = json_array();
	patch_op(patch, "test", "/spec/holderIdentity", l->holder);
	patch_op(patch, "replace", "/spec/holderIdentity", "");
	return kube_patch(a->kube, path, KUBE_JSON_PATCH, patch, NULL, e);
}

static result restart_workload(const struct applier *a, const struct action *action, struct err *e)
{
	const char *kind = str_eq(action->kind_name, "Deployment")  ? "deployments"
			   : str_eq(action->kind_name, "DaemonSet") ? "daemonsets"
								    : "statefulsets";
	char *path cleanup(str_freep) =
		str_printf("/apis/apps/v1/namespaces/%s/%s/%s", action->namespace, kind, action->name);
	struct json *patch cleanup(json_freep) = json_object();
	struct json *template = json_ensure_object(json_ensure_object(patch, "spec"), "template");
	json_set_str(json_ensure_object(json_ensure_object(template, "metadata"), "annotations"), ANNOTATION_RESTARTED,
		     a->world->run.mark);
	return kube_patch(a->kube, path, KUBE_STRATEGIC_PATCH, patch, NULL, e);
}

struct refresh {
	const struct applier *a;
	const char *value;
	result outcome;
	struct err *e;
};

static bool refresh_pod(void *context, const struct json *pod)
{
	struct refresh *r = context;
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/pods/%s", r->a->settings->namespace,
						   json_str_or(json_at(pod, "metadata", "name", NULL), ""));
	struct json *patch cleanup(json_freep) = json_object();
	if (str_eq(annotation(pod, "certrotation.dev/refreshed"), r->value))
		return true;
	json_set_str(json_ensure_object(json_ensure_object(patch, "metadata"), "annotations"), "certrotation.dev/refreshed",
		     r->value);
	struct err e = { 0 };
	if (!kube_patch(r->a->kube, path, KUBE_MERGE_PATCH, patch, NULL, &e).ok && e.kind != ERR_NOT_FOUND) {
		*r->e = e;
		r->outcome = FAILED;
	}
	return true;
}

/* Any change of a Pod makes the kubelet sync it at once, and its projected volumes with it. */
static result refresh_pods(const struct applier *a, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/pods", a->settings->namespace);
	char *value cleanup(str_freep) = str_printf("%s-%lld", a->world->run.leg ? a->world->run.leg : "",
						    (long long)(a->world->now_ms / REFRESH_EVERY_MS));
	const struct kube_list q = { .path = path, .label_selector = "app.kubernetes.io/name=certrotation", .metadata_only = true };
	struct refresh r = { a, value, OK, e };
	TRY(kube_list_each(a->kube, &q, refresh_pod, NULL, &r, NULL, e));
	return r.outcome;
}

result apply_action(const struct applier *a, const struct action *action, struct err *e)
{
	switch (action->kind) {
	case ACT_CREATE_AUTHORITY:
		return apply_create_authority(a, action, e);
	case ACT_STORE_BRIDGE:
		return apply_store_bridge(a, action, e);
	case ACT_LATCH:
		return apply_latch(a, action, e);
	case ACT_DELETE_KUBEADM_CERTS:
		return delete_kubeadm_certs(a, e);
	case ACT_NODE:
		return apply_job(a, action, e);
	case ACT_RELEASE_LEASE:
		return release_lease(a, action, e);
	case ACT_PUBLISH:
		return apply_publish(a, action, e);
	case ACT_CA_BUNDLES:
		return apply_ca_bundles(a, action, e);
	case ACT_CLUSTER_INFO:
		return apply_cluster_info(a, action, e);
	case ACT_ADMIN_KUBECONFIG:
		return apply_admin_kubeconfig(a, action, e);
	case ACT_RESTART_WORKLOAD:
		return restart_workload(a, action, e);
	case ACT_REFRESH_PODS:
		return refresh_pods(a, e);
	case ACT_PRUNE_EXTENSION_AUTH:
		return apply_prune_extension_auth(a, action, e);
	case ACT_FINISH:
		return apply_finish(a, e);
	case ACT_DISMISS:
		return apply_dismiss(a, e);
	case ACT_COUNT:
		break;
	}
	return err_set(e, ERR_OTHER, "no such action");
}

result apply_finalizer(struct kube *kube, const struct json *object, bool wanted, struct err *e)
{
	const struct json *meta = json_get(object, "metadata");
	struct json *patch cleanup(json_freep) = json_object(), *list = json_array();
	bool has = false;
	json_each(f, json_get(meta, "finalizers")) {
		has = has || str_eq(json_str(f), FINALIZER);
		if (!str_eq(json_str(f), FINALIZER))
			json_add(list, json_copy(f));
	}
	if (wanted)
		json_add_str(list, FINALIZER);
	struct json *changed = json_ensure_object(patch, "metadata");
	json_set(changed, "finalizers", list);
	json_set_str(changed, "resourceVersion", json_get_str(meta, "resourceVersion"));
	if (has == wanted)
		return OK;
	char *path cleanup(str_freep) = str_printf("/apis/certrotation.dev/v1alpha1/certificaterotations/%s",
						   json_str_or(json_get(meta, "name"), ""));
	return kube_patch(kube, path, KUBE_MERGE_PATCH, patch, NULL, e);
}
