/* Node Pods: one per step and node, named by a number, so that two leaders who want the same make the same. */
#include "apply.h"
#include "walk.h"

#include <stdio.h>
#include <string.h>

#define JOB_DEADLINE_MS 120000
#define JOB_DEADLINE_POD_SECONDS 180

static struct json *mount(const char *name, const char *path, bool read_only)
{
	struct json *m = json_object();
	json_set_str(m, "name", name);
	json_set_str(m, "mountPath", path);
	if (read_only)
		json_set_bool(m, "readOnly", true);
	return m;
}

static void add_host_volume(struct json *volumes, const char *name, const char *path, const char *type)
{
	struct json *v = json_object(), *h = json_ensure_object(v, "hostPath");
	json_set_str(v, "name", name);
	json_set_str(h, "path", path);
	json_set_str(h, "type", type);
	json_add(volumes, v);
}

/* For a look only, with what is mounted inside of it: there the kernel itself refuses to write, where it can (since Linux 5.12). */
static void add_host_view(struct json *volumes, struct json *mounts, const char *name, const char *path)
{
	add_host_volume(volumes, name, path, "Directory");
	struct json *m = mount(name, path, true);
	json_set_str(m, "recursiveReadOnly", "IfPossible");
	json_add(mounts, m);
}

static void add_host_path(struct json *volumes, struct json *mounts, const char *name, const char *path, const char *type)
{
	add_host_volume(volumes, name, path, type);
	/* the kubelet mounts pods' volumes after this Pod has started: they must become visible in it */
	struct json *m = mount(name, path, false);
	json_set_str(m, "mountPropagation", "HostToContainer");
	json_add(mounts, m);
}

/* N's keys, each under its authority's name. */
static void add_keys(const struct applier *a, struct json *volumes, struct json *mounts)
{
	struct json *v = json_object(), *projected = json_ensure_object(v, "projected"), *sources = json_ensure_array(projected, "sources");
	json_set_str(v, "name", "authority");
	json_set_int(projected, "defaultMode", 0400);
	for (size_t i = 0; i < AUTHORITY_COUNT; i++) {
		const struct run_authority *of = &a->world->run.of[i];
		if (!of->has_key)
			continue;
		struct json *source = json_object(), *s = json_ensure_object(source, "secret"), *item = json_object();
		char *name cleanup(str_freep) = str_printf("%s.key", authority_name((enum authority)i));
		json_set_str(s, "name", of->secret);
		json_set_str(item, "key", "tls.key");
		json_set_str(item, "path", name);
		json_add(json_ensure_array(s, "items"), item);
		json_add(sources, source);
	}
	json_add(volumes, v);
	json_add(mounts, mount("authority", CONTRACT_KEY_DIR, true));
}

static void add_volumes(const struct applier *a, const struct action *action, struct json *spec, struct json *container)
{
	struct json *volumes = json_ensure_array(spec, "volumes"), *mounts = json_ensure_array(container, "volumeMounts");
	if (action->inspect) {
		add_host_view(volumes, mounts, "kubernetes", "/etc/kubernetes");
		add_host_view(volumes, mounts, "kubelet", "/var/lib/kubelet");
		return;
	}
	add_host_path(volumes, mounts, "kubernetes", "/etc/kubernetes", "Directory");
	add_host_path(volumes, mounts, "kubelet", "/var/lib/kubelet", "Directory");
	add_host_path(volumes, mounts, "state", "/var/lib/certrotation", "DirectoryOrCreate");
	add_host_path(volumes, mounts, "dbus", "/run/dbus", "");
	if (action->needs_key)
		add_keys(a, volumes, mounts);
}

/* NET_ADMIN where a window is tried (before there is a bridge), or may be needed: etcd's trust is asked for and not reached. */
static bool needs_gate(const struct applier *a, const struct action *action)
{
	int wanted = action->levels[FACET_ETCD_TRUST];
	bool rotated = authority_in(world_authorities(a->world), AUTHORITY_ETCD) && action->node->control_plane && !action->inspect;
	if (rotated && !a->world->run.of[AUTHORITY_ETCD].bridge_pem)
		return true;
	return rotated && wanted != FACET_UNTOUCHED_LEVEL && !facet_reached(action->node->levels[FACET_ETCD_TRUST], wanted);
}

/* SYS_PTRACE: to see the flags of a process that has rights which this one has not. */
static void add_security(const struct applier *a, struct json *container, const struct action *action)
{
	static const char *const ACTING[] = { "DAC_OVERRIDE", "CHOWN", "FOWNER", "KILL", "SYS_PTRACE" };
	static const char *const LOOKING[] = { "DAC_READ_SEARCH", "SYS_PTRACE" };
	const char *const *capabilities = action->inspect ? LOOKING : ACTING;
	size_t n = action->inspect ? ARRAY_LEN(LOOKING) : ARRAY_LEN(ACTING);
	struct json *s = json_ensure_object(container, "securityContext");
	struct json *caps = json_ensure_object(s, "capabilities");
	json_set_int(s, "runAsUser", 0);
	json_set_bool(s, "allowPrivilegeEscalation", false);
	json_set_bool(s, "readOnlyRootFilesystem", true);
	json_add_str(json_ensure_array(caps, "drop"), "ALL");
	for (size_t i = 0; i < n; i++)
		json_add_str(json_ensure_array(caps, "add"), capabilities[i]);
	if (needs_gate(a, action))
		json_add_str(json_ensure_array(caps, "add"), "NET_ADMIN");
	json_set_str(json_ensure_object(s, "seLinuxOptions"), "type", "spc_t");
	json_set_str(json_ensure_object(s, "appArmorProfile"), "type", "Unconfined");
	json_set_str(json_ensure_object(s, "seccompProfile"), "type", "RuntimeDefault");
}

/* --- What it is asked for --------------------------------------------------------------------------------------------------- */

static result probe_csr(const struct applier *a, char **ret, struct err *e)
{
	char *path cleanup(str_freep) =
		str_printf("/api/v1/namespaces/%s/secrets/%s", a->settings->node_namespace, a->world->run.secret);
	struct json *s cleanup(json_wipep) = NULL;
	struct key *k cleanup(key_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_SECRET, csr cleanup(buf_release) = BUF_INIT;
	TRY(kube_get(a->kube, path, &s, e));
	const char *text = json_str_or(json_at(s, "data", "probe.key", NULL), "");
	TRY(base64_decode(text, strlen(text), &pem, e));
	TRY(key_from_pem(buf_str(&pem), pem.len, &k, e));
	TRY(csr_make_subject("certrotation:probe", NULL, k, &csr, e));
	*ret = buf_take(&csr);
	return OK;
}

static char *copy_or_null(const char *s)
{
	return s ? str_dup(s) : NULL;
}

static result make_desired(const struct applier *a, const struct action *action, struct desired *ret, struct err *e)
{
	const struct run *run = &a->world->run;
	struct desired d cleanup(desired_release) = { .deadline_ms = JOB_DEADLINE_MS, .pods = run->exists || action->inspect };
	d.run = str_dup(run->exists ? run->id : "inventory");
	d.node = str_dup(action->node->name);
	d.asked = action->authority;
	for (size_t i = 0; i < AUTHORITY_COUNT; i++) {
		d.of[i].wanted = authority_in(world_authorities(a->world), (enum authority)i);
		d.of[i].old_pem = copy_or_null(run->of[i].old_pem);
		d.of[i].new_pem = copy_or_null(run->of[i].new_pem);
		d.of[i].bridge_pem = copy_or_null(run->of[i].bridge_pem);
	}
	d.certify = action->certify;
	d.gate = needs_gate(a, action);
	d.bundle = world_strategy(a->world) == STRATEGY_BUNDLE;
	d.back = run->back;
	d.forget = world_pods_forget(a->world);
	d.leaf_validity_ms = a->world->request ? a->world->request->leaf_validity_ms : 0;
	for (size_t f = 0; f < FACET_COUNT; f++)
		d.levels[f] = action->levels[f] == FACET_UNTOUCHED_LEVEL ? FACET_UNTOUCHED : action->levels[f];
	if (action->certify && action->authority == AUTHORITY_KUBERNETES)
		TRY_CTX(probe_csr(a, &d.probe_csr_pem, e), e, "Secret %s", run->secret);
	*ret = d;
	d = (struct desired){ 0 };
	return OK;
}

/* --- The Pod ------------------------------------------------------------------------------------------------------------------ */

static char *pod_name(const char *node, int number)
{
	char hex[65];
	sha256_hex(node, strlen(node), hex);
	return str_printf("certrotation-node-%.8s-%d", hex, number);
}

/* inspect: what the node is, without a change of it (node/main.c); its report goes where converge's does. */
static void add_command(struct json *container, bool inspect)
{
	static const char *const LOOK[] = { "inspect", "--json", "--report", CONTRACT_TERMINATION_PATH };
	static const char *const WORK[] = { "converge" };
	struct json *args = json_ensure_array(container, "args");
	json_add_str(json_ensure_array(container, "command"), "/usr/bin/certrotation-node");
	for (size_t i = 0; i < (inspect ? ARRAY_LEN(LOOK) : ARRAY_LEN(WORK)); i++)
		json_add_str(args, inspect ? LOOK[i] : WORK[i]);
}

static struct json *container_object(const struct applier *a, const struct action *action, const char *desired_text)
{
	struct json *c = json_object(), *env = json_object(), *resources = json_ensure_object(c, "resources");
	json_set_str(c, "name", "node");
	json_set_str(c, "image", a->settings->image);
	json_set_str(c, "imagePullPolicy", "IfNotPresent");
	add_command(c, action->inspect);
	json_set_str(env, "name", CONTRACT_ENV);
	json_set_str(env, "value", desired_text);
	json_add(json_ensure_array(c, "env"), env);
	json_set_str(json_ensure_object(resources, "requests"), "cpu", "10m");
	json_set_str(json_ensure_object(resources, "requests"), "memory", "16Mi");
	json_set_str(json_ensure_object(resources, "limits"), "memory", "128Mi");
	json_set_str(c, "terminationMessagePolicy", "File");
	return c;
}

static void set_metadata(const struct applier *a, const struct action *action, struct json *pod, int number, int failures)
{
	struct json *meta = json_ensure_object(pod, "metadata");
	struct json *labels = json_ensure_object(meta, "labels"), *notes = json_ensure_object(meta, "annotations");
	char *name cleanup(str_freep) = pod_name(action->node->name, number), *counts cleanup(str_freep) = jobs_label(a->world);
	char text[16];
	json_set_str(meta, "name", name);
	json_set_str(labels, LABEL_JOB, "true");
	json_set_str(labels, LABEL_RUN, counts);
	json_set_str(labels, "app.kubernetes.io/name", "certrotation-node");
	json_set_str(labels, "sidecar.istio.io/inject", "false");
	json_set_str(notes, "sidecar.istio.io/inject", "false");
	json_set_str(notes, "linkerd.io/inject", "disabled");
	json_set_str(notes, ANNOTATION_STEP, walk_step((size_t)action->step)->name);
	snprintf(text, sizeof text, "%d", number);
	json_set_str(notes, ANNOTATION_NUMBER, text);
	snprintf(text, sizeof text, "%d", failures);
	json_set_str(notes, ANNOTATION_FAILURES, text);
}

static struct json *pod_object(const struct applier *a, const struct action *action, const char *desired_text, int number,
			       int failures)
{
	struct json *pod = json_object(), *spec = json_ensure_object(pod, "spec"), *everything = json_object();
	struct json *container = container_object(a, action, desired_text);
	json_set_str(pod, "apiVersion", "v1");
	json_set_str(pod, "kind", "Pod");
	set_metadata(a, action, pod, number, failures);
	json_set_str(spec, "nodeName", action->node->name);
	json_set_str(spec, "restartPolicy", "Never");
	json_set_str(spec, "priorityClassName", "system-node-critical");
	json_set_str(spec, "serviceAccountName", "certrotation-node");
	json_set_bool(spec, "automountServiceAccountToken", false);
	json_set_bool(spec, "enableServiceLinks", false);
	json_set_bool(spec, "hostNetwork", true);
	json_set_bool(spec, "hostPID", true);
	json_set_int(spec, "activeDeadlineSeconds", JOB_DEADLINE_POD_SECONDS);
	json_set_int(spec, "terminationGracePeriodSeconds", 5);
	json_set_str(everything, "operator", "Exists");
	json_add(json_ensure_array(spec, "tolerations"), everything);
	add_volumes(a, action, spec, container);
	add_security(a, container, action);
	json_add(json_ensure_array(spec, "containers"), container);
	return pod;
}

/* The report before the last is of no more use. Best effort: the end of the run removes what is left. */
static void drop_older(const struct applier *a, const char *node, int number)
{
	struct err e;
	if (number < 1)
		return;
	char *name cleanup(str_freep) = pod_name(node, number);
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/pods/%s", a->settings->node_namespace, name);
	if (!kube_delete(a->kube, path, NULL, NULL, &e).ok)
		return;
}

result apply_job(const struct applier *a, const struct action *action, struct err *e)
{
	const struct node_report *slot = &a->reports[action->node - a->world->nodes];
	struct desired d cleanup(desired_release) = { 0 };
	int number = slot->number + 1;
	TRY(make_desired(a, action, &d, e));
	struct json *j cleanup(json_freep) = desired_to_json(&d);
	char *text cleanup(str_freep) = json_text(j);
	struct json *pod cleanup(json_freep) = pod_object(a, action, text, number, slot->failures);
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/pods", a->settings->node_namespace);
	TRY_CTX(kube_create(a->kube, path, pod, NULL, e), e, "starting the node program on %s", action->node->name);
	drop_older(a, action->node->name, number - 2);
	return OK;
}
