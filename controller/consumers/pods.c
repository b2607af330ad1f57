/* Pods that mount a cluster CA: who has not read N yet, by owner. What a pod has read is seen on its node (the report); the API says
 * whose pod it is. An annotation or a finished rollout proves nothing. For a plan nobody has read N, so every one counts. */
#include "consumer.h"

#include <stdlib.h>
#include <string.h>

#define UID_PART 13
#define ID_PART 12
#define OWNERS_EXAMINED_MAX 200

struct look {
	struct observation *o;
	struct strs replicasets; /* "namespace/name=deployment", filled as needed */
	bool failed;
	struct err error;
};

static void look_release(struct look *l)
{
	strs_release(&l->replicasets);
}

/* --- One pod --------------------------------------------------------------------------------------------------------- */

static bool projects_ca(const struct json *volume)
{
	json_each(s, json_at(volume, "projected", "sources", NULL))
		if (str_eq(json_str(json_at(s, "configMap", "name", NULL)), "kube-root-ca.crt"))
			return true;
	return str_eq(json_str(json_at(volume, "configMap", "name", NULL)), "kube-root-ca.crt");
}

static bool mounts_ca(const struct json *pod)
{
	json_each(v, json_at(pod, "spec", "volumes", NULL))
		if (projects_ca(v))
			return true;
	return false;
}

/* kubeadm's files on the node: kubeconfigs, etcd's certificates for backups, … */
static bool mounts_node_files(const struct json *pod)
{
	static const char folder[] = "/etc/kubernetes";
	json_each(v, json_at(pod, "spec", "volumes", NULL)) {
		const char *path = json_str(json_at(v, "hostPath", "path", NULL));
		char next = path && str_starts(path, folder) ? path[strlen(folder)] : 'x';
		if (!next || next == '/')
			return true;
	}
	return false;
}

static int64_t time_of(const struct json *text)
{
	struct err e;
	int64_t ms = 0;
	return json_str(text) && time_parse(json_str(text), &ms, &e).ok ? ms : 0;
}

static const char *bare_container_id(const struct json *status)
{
	const char *id = json_get_str(status, "containerID");
	const char *slashes = id ? strstr(id, "://") : NULL;
	return slashes ? slashes + 3 : "";
}

static bool in_list(const struct strs *list, const char *uid, const char *container)
{
	char *key cleanup(str_freep) = container ? str_printf("%.*s:%.*s", UID_PART, uid, ID_PART, container)
						  : str_printf("%.*s", UID_PART, uid);
	return strs_has(list, key);
}

struct pod_look {
	bool old, unseen, running;
};

/* answers: the report is the answer to what is asked of pods now. */
static void look_at_containers(const struct json *list, const char *uid, const struct node_report *slot, bool answers, struct pod_look *ret)
{
	json_each(c, list) {
		const struct json *running = json_at(c, "state", "running", NULL);
		if (!running)
			continue;
		ret->running = true;
		/* startedAt has whole seconds, cut off */
		if (!answers || time_of(json_get(running, "startedAt")) + 999 > slot->report.at_ms)
			ret->unseen = true;
		else if (in_list(&slot->report.pods_old, uid, bare_container_id(c)))
			ret->old = true;
	}
}

/* --- Owners ------------------------------------------------------------------------------------------------------------ */

static const struct json *controller_of(const struct json *object)
{
	json_each(r, json_at(object, "metadata", "ownerReferences", NULL))
		if (json_get_bool(r, "controller", false))
			return r;
	return NULL;
}

/* The Deployment of a ReplicaSet, NULL when it has none. Caller frees. */
static char *deployment_of(struct look *l, const char *namespace, const char *replicaset)
{
	char *prefix cleanup(str_freep) = str_printf("%s/%s=", namespace, replicaset);
	for (size_t i = 0; i < l->replicasets.n; i++)
		if (str_starts(l->replicasets.items[i], prefix))
			return str_dup(l->replicasets.items[i] + strlen(prefix));
	char *path cleanup(str_freep) = str_printf("/apis/apps/v1/namespaces/%s/replicasets/%s", namespace, replicaset);
	struct json *rs cleanup(json_freep) = NULL;
	struct err e;
	if (!kube_get(l->o->kube, path, &rs, &e).ok) {
		l->failed = l->failed || e.kind != ERR_NOT_FOUND;
		l->error = e;
		return NULL;
	}
	const struct json *owner = controller_of(rs);
	const char *name = json_get_str(owner, "name");
	if (!name || !str_eq(json_get_str(owner, "kind"), "Deployment"))
		return NULL;
	strs_addf(&l->replicasets, "%s%s", prefix, name);
	return str_dup(name);
}

static struct straggler *straggler_of(struct world *w, const char *kind, const char *namespace, const char *name)
{
	for (size_t i = w->n_stragglers; i > 0; i--) {
		struct straggler *s = &w->stragglers[i - 1];
		if (str_eq(s->name, name) && str_eq(s->namespace, namespace) && str_eq(s->kind, kind))
			return s;
	}
	struct straggler *s = world_add_straggler(w);
	s->kind = str_dup(kind);
	s->namespace = str_dup(namespace);
	s->name = str_dup(name);
	return s;
}

static bool accepted(const struct world *w, const char *kind, const char *namespace, const char *name)
{
	char *key cleanup(str_freep) = str_printf("%s/%s/%s", kind, namespace, name);
	return strs_has(&w->run.accepted, key) || (w->request && strs_has(&w->request->accepted, key));
}

static void add_straggler(struct look *l, const struct json *pod, const char *why)
{
	const struct json *owner = controller_of(pod);
	const char *namespace = json_str_or(json_at(pod, "metadata", "namespace", NULL), "");
	const char *kind = json_str_or(json_get(owner, "kind"), "Pod");
	const char *name = json_str_or(json_get(owner ? owner : json_get(pod, "metadata"), "name"), "");
	const char *pod_name = json_str_or(json_at(pod, "metadata", "name", NULL), "");
	if (world_is_planned(l->o->world) && l->o->world->n_stragglers >= WORLD_OWNERS_MAX) {
		l->o->world->pods_unlisted++;
		return;
	}
	char *deployment cleanup(str_freep) = str_eq(kind, "ReplicaSet") ? deployment_of(l, namespace, name) : NULL;
	struct straggler *s = straggler_of(l->o->world, deployment ? "Deployment" : kind, namespace,
					   deployment ? deployment : name);
	s->pods++;
	s->accepted = accepted(l->o->world, s->kind, namespace, s->name) || accepted(l->o->world, "Pod", namespace, pod_name);
	if (!s->reason && why)
		s->reason = str_dup(why);
}

/* --- Every pod ----------------------------------------------------------------------------------------------------------- */

static bool is_ours(const struct settings *s, const struct json *pod)
{
	const char *namespace = json_str_or(json_at(pod, "metadata", "namespace", NULL), "");
	return str_eq(namespace, s->node_namespace) ||
	       (str_eq(namespace, s->namespace) && str_eq(label(pod, "app.kubernetes.io/name"), "certrotation"));
}

/* When a container was last started; one that ends again at once has no running state. */
static int64_t last_start(const struct json *container)
{
	int64_t running = time_of(json_at(container, "state", "running", "startedAt", NULL));
	int64_t ended = time_of(json_at(container, "state", "terminated", "startedAt", NULL));
	int64_t before = time_of(json_at(container, "lastState", "terminated", "startedAt", NULL));
	return running ? running : ended > before ? ended : before;
}

/* A control-plane container that started after the report: what it said of that process no longer counts. */
static void look_at_static_pod(struct node_state *n, const struct json *pod)
{
	const char *component = label(pod, "component");
	bool matters = str_eq(component, "kube-controller-manager") || str_eq(component, "kube-scheduler") ||
		       str_eq(component, "kube-apiserver");
	if (!matters || !annotation(pod, "kubernetes.io/config.mirror"))
		return;
	json_each(c, json_at(pod, "status", "containerStatuses", NULL))
		if (n->reported && last_start(c) + 999 > n->report_at_ms)
			n->outdated = true;
}

static void look_at_mixed(struct look *l, struct node_state *n, const struct node_report *slot, const struct json *pod,
			  const char *uid)
{
	struct buf name cleanup(buf_release) = BUF_INIT;
	if (!slot->has || !in_list(&slot->report.pods_mixed, uid, NULL))
		return;
	const struct json *meta = json_get(pod, "metadata");
	if (accepted(l->o->world, "Pod", json_str_or(json_get(meta, "namespace"), ""), json_str_or(json_get(meta, "name"), "")))
		return;
	object_name(pod, &name);
	tally_lag(&n->mixed, buf_str(&name));
}

/* For a plan: one that goes already, and ours, which re-read their CA, need no restart. */
static bool look_ahead(struct look *l, const struct json *pod, bool user)
{
	if (!user || is_ours(l->o->settings, pod) || json_at(pod, "metadata", "deletionTimestamp", NULL))
		return false;
	l->o->world->pods_total++;
	add_straggler(l, pod, NULL);
	return true;
}

/* Whether a container may have read the node's files before the run had written the last of them. */
static bool has_read_before(const struct json *list, const struct node_report *slot)
{
	json_each(c, list) {
		const struct json *running = json_at(c, "state", "running", NULL);
		if (running && (!slot->has || !slot->report.written_ms || time_of(json_get(running, "startedAt")) <= slot->report.written_ms))
			return true;
	}
	return false;
}

/* From the drop on files change once more, and for nobody who has read them since: then it is no longer asked. */
static void look_at_node_files(struct look *l, const struct node_report *slot, const struct json *pod)
{
	const struct run *run = &l->o->world->run;
	if (run->dropping || is_ours(l->o->settings, pod) || annotation(pod, "kubernetes.io/config.mirror") || !mounts_node_files(pod))
		return;
	if (world_is_planned(l->o->world) || has_read_before(json_at(pod, "status", "containerStatuses", NULL), slot))
		add_straggler(l, pod, "it mounts /etc/kubernetes and may have read what was there");
}

/* True when it is named as one that has not read N. */
static bool look_at_workload(struct look *l, struct node_state *n, const struct node_report *slot, const struct json *pod)
{
	const char *uid = json_str_or(json_at(pod, "metadata", "uid", NULL), "");
	struct pod_look seen = { 0 };
	bool answers = slot->has && slot->report.pods_forget == world_pods_forget(l->o->world);
	look_at_containers(json_at(pod, "status", "containerStatuses", NULL), uid, slot, answers, &seen);
	look_at_containers(json_at(pod, "status", "initContainerStatuses", NULL), uid, slot, answers, &seen);
	bool stale = slot->has && in_list(&slot->report.pods_stale, uid, NULL);
	bool known_user = mounts_ca(pod);
	look_at_mixed(l, n, slot, pod, uid);
	if (!seen.running)
		return false;
	if (world_is_planned(l->o->world))
		return look_ahead(l, pod, known_user || stale);
	l->o->world->pods_total += known_user || stale || seen.old;
	if (is_ours(l->o->settings, pod)) {
		n->own_pod_stale = n->own_pod_stale || stale;
		return false;
	}
	if (seen.old || stale) {
		bool going = json_at(pod, "metadata", "deletionTimestamp", NULL) != NULL;
		add_straggler(l, pod, going ? "a pod is terminating" : stale ? "its mounted CA is still the old one" : NULL);
		return true;
	}
	n->pods_unseen = n->pods_unseen || (seen.unseen && known_user);
	return false;
}

static bool each_pod(void *context, const struct json *pod)
{
	struct look *l = context;
	struct node_state *n = world_node(l->o->world, json_str_or(json_at(pod, "spec", "nodeName", NULL), ""));
	const char *phase = json_str_or(json_at(pod, "status", "phase", NULL), "");
	if (!n || str_eq(phase, "Succeeded") || str_eq(phase, "Failed"))
		return true;
	look_at_static_pod(n, pod);
	const struct node_report *slot = &l->o->reports[n - l->o->world->nodes];
	bool own = authority_in(world_authorities(l->o->world), AUTHORITY_KUBERNETES);
	if (!own || !look_at_workload(l, n, slot, pod))
		look_at_node_files(l, slot, pod);
	return true;
}

static void drop_pods(void *context)
{
	struct look *l = context;
	l->failed = true; /* half counted: this pass proves nothing about pods */
	err_set(&l->error, ERR_EXPIRED, "the list of pods expired in the middle");
}

/* --- What a straggler's owner will do about it ------------------------------------------------------------------------- */

static const char *path_kind(const char *kind)
{
	return str_eq(kind, "Deployment")  ? "deployments"
	       : str_eq(kind, "DaemonSet")   ? "daemonsets"
	       : str_eq(kind, "StatefulSet") ? "statefulsets"
					     : NULL;
}

static void set_reason(struct straggler *s, const char *reason)
{
	str_freep(&s->reason);
	s->reason = str_dup(reason);
}

static bool rollout_complete(const struct straggler *s, const struct json *object)
{
	const struct json *status = json_get(object, "status");
	bool daemon = str_eq(s->kind, "DaemonSet");
	int64_t wanted = daemon ? json_get_int(status, "desiredNumberScheduled", 0)
				: json_int(json_at(object, "spec", "replicas", NULL), 1);
	int64_t updated = json_get_int(status, daemon ? "updatedNumberScheduled" : "updatedReplicas", 0);
	int64_t ready = json_get_int(status, daemon ? "numberAvailable" : "availableReplicas", 0);
	int64_t all = daemon ? wanted : json_get_int(status, "replicas", 0);
	return json_get_int(status, "observedGeneration", 0) >= json_int(json_at(object, "metadata", "generation", NULL), 0) &&
	       updated >= wanted && ready >= wanted && all <= wanted;
}

static const char *not_restartable(const struct straggler *s, const struct json *object)
{
	const struct json *spec = json_get(object, "spec");
	const char *field = str_eq(s->kind, "DaemonSet") || str_eq(s->kind, "StatefulSet") ? "updateStrategy" : "strategy";
	if (json_get_bool(spec, "paused", false))
		return "it is paused: resume it, or delete its pods after you have, or accept it by name";
	if (str_eq(json_str(json_at(spec, field, "type", NULL)), "OnDelete"))
		return "its updateStrategy is OnDelete: delete its pods one by one, or accept it by name";
	if (json_int(json_at(spec, field, "rollingUpdate", "partition", NULL), 0) > 0)
		return "its updateStrategy has a partition: delete its old pods, or accept it by name";
	return NULL;
}

static void examine_rollout(struct look *l, struct straggler *s, const struct json *object)
{
	const char *person = not_restartable(s, object);
	const char *mark = json_str(json_at(object, "spec", "template", "metadata", "annotations", ANNOTATION_RESTARTED, NULL));
	s->restarted = l->o->world->run.exists && str_eq(mark, l->o->world->run.mark);
	s->restartable = !person;
	s->system = str_eq(s->kind, "DaemonSet") && str_eq(s->namespace, "kube-system");
	if (person) {
		set_reason(s, person);
	} else if (s->restarted) {
		bool over = rollout_complete(s, object);
		l->o->world->rolling += !over;
		set_reason(s, over ? "its rollout is complete, but old pods are still there" : "its rollout is under way");
	} else {
		set_reason(s, "not restarted yet");
	}
}

static void examine(struct look *l, struct straggler *s)
{
	const char *kind = path_kind(s->kind);
	if (!kind) {
		bool job = str_eq(s->kind, "Job"), bare = str_eq(s->kind, "Pod");
		set_reason(s, job ? "a Job: it runs to its end, or delete it, or accept it by name"
			    : bare ? "a bare pod: delete and make it again, or accept it by name"
				   : "its owner must replace its pods: restart it, or accept it by name");
		return;
	}
	char *path cleanup(str_freep) = str_printf("/apis/apps/v1/namespaces/%s/%s/%s", s->namespace, kind, s->name);
	struct json *object cleanup(json_freep) = NULL;
	struct err e;
	if (kube_get(l->o->kube, path, &object, &e).ok)
		examine_rollout(l, s, object);
	else if (e.kind != ERR_NOT_FOUND) {
		l->failed = true;
		l->error = e;
	}
}

static result pods_observe(struct observation *o, struct err *e)
{
	struct look l cleanup(look_release) = { .o = o };
	const struct kube_list q = { .path = "/api/v1/pods", .page = 200 };
	if (!o->world->nodes_known)
		return err_set(e, ERR_OTHER, "pods are not looked at: the nodes are not known");
	TRY(kube_list_each(o->kube, &q, each_pod, drop_pods, &l, NULL, e));
	size_t most = world_is_planned(o->world) ? WORLD_OWNERS_MAX : OWNERS_EXAMINED_MAX;
	for (size_t i = 0; i < o->world->n_stragglers && i < most; i++)
		examine(&l, &o->world->stragglers[i]);
	if (l.failed) {
		*e = l.error;
		return FAILED;
	}
	o->world->pods_known = true;
	return OK;
}

const struct consumer consumer_pods = { "pods", READS_IN_BOTH, pods_observe };
