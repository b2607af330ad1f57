/* Nodes, the jobs (our Pods) on them, and their last reports. */
#include "consumer.h"
#include "walk.h"

#include <stdlib.h>
#include <string.h>

#define PROBE_USE_MS ((int64_t)3600000) /* a probe certificate is stored soon after it was reported, or made anew */
#define NUMBER_MAX 1000000000
#define NODE_PAGE 50 /* a Node carries its images: tens of KiB each */

static const char *node_address(const struct json *node)
{
	json_each(a, json_at(node, "status", "addresses", NULL))
		if (str_eq(json_get_str(a, "type"), "InternalIP"))
			return json_get_str(a, "address");
	return NULL;
}

static bool node_ready(const struct json *node)
{
	json_each(c, json_at(node, "status", "conditions", NULL))
		if (str_eq(json_get_str(c, "type"), "Ready"))
			return str_eq(json_get_str(c, "status"), "True");
	return false;
}

static bool each_node(void *context, const struct json *node)
{
	struct observation *o = context;
	struct node_state *n = world_add_node(o->world);
	const char *address = node_address(node), *hostname = label(node, "kubernetes.io/hostname");
	n->name = str_dup(json_str_or(json_at(node, "metadata", "name", NULL), ""));
	n->address = address ? str_dup(address) : NULL;
	n->hostname = hostname ? str_dup(hostname) : NULL;
	n->control_plane = label(node, "node-role.kubernetes.io/control-plane") != NULL;
	n->ready = node_ready(node);
	const char *kubelet = json_str(json_at(node, "status", "nodeInfo", "kubeletVersion", NULL));
	n->versions[COMPONENT_KUBELET] = kubelet ? str_dup(kubelet) : NULL;
	return true;
}

static void drop_nodes(void *context)
{
	struct observation *o = context;
	struct world empty = { .n_nodes = o->world->n_nodes, .nodes = o->world->nodes };
	world_release(&empty);
	o->world->nodes = NULL;
	o->world->n_nodes = 0;
}

/* --- What runs on control planes --------------------------------------------------------------------------------------- */

/* The tag of "registry/path:tag@sha256:…"; NULL when there is none. Caller frees. */
static char *image_tag(const char *image)
{
	const char *slash = image ? strrchr(image, '/') : NULL, *name = slash ? slash + 1 : image;
	const char *colon = name ? strchr(name, ':') : NULL, *at = name ? strchr(name, '@') : NULL;
	if (!colon || (at && at < colon))
		return NULL;
	return str_ndup(colon + 1, strcspn(colon + 1, "@"));
}

static bool each_component(void *context, const struct json *pod)
{
	struct observation *o = context;
	struct node_state *n = world_node(o->world, json_str_or(json_at(pod, "spec", "nodeName", NULL), ""));
	const char *image = json_get_str(json_first(json_at(pod, "spec", "containers", NULL)), "image");
	if (!n || !annotation(pod, "kubernetes.io/config.mirror"))
		return true;
	for (size_t c = 0; c < COMPONENT_KUBELET; c++) {
		if (!str_eq(label(pod, "component"), component_name((enum component)c)))
			continue;
		str_freep(&n->versions[c]);
		n->versions[c] = image_tag(image);
	}
	return true;
}

/* kubeadm's labels; what has lost them is unknown. */
static result read_components(struct observation *o, struct err *e)
{
	const struct kube_list q = { .path = "/api/v1/namespaces/kube-system/pods", .label_selector = "tier=control-plane", .page = 200 };
	return kube_list_each(o->kube, &q, each_component, NULL, o, NULL, e);
}

/* --- Jobs ------------------------------------------------------------------------------------------------------------ */

static int64_t time_of(const struct json *text)
{
	struct err e;
	int64_t ms = 0;
	return json_str(text) && time_parse(json_str(text), &ms, &e).ok ? ms : 0;
}

static int number_of(const struct json *pod, const char *name)
{
	const char *text = annotation(pod, name);
	long number = text ? strtol(text, NULL, 10) : 0;
	return number < 0 ? 0 : number > NUMBER_MAX ? NUMBER_MAX : (int)number;
}

static void set_problem(struct node_state *n, const char *reason, const char *message)
{
	str_freep(&n->job_problem);
	n->job_problem = str_printf("%s%s%s", reason, message ? ": " : "", message ? message : "");
}

static void job_waiting(struct node_state *n, const struct json *pod)
{
	const struct json *status = json_first(json_at(pod, "status", "containerStatuses", NULL));
	const struct json *waiting = json_at(status, "state", "waiting", NULL);
	const char *reason = json_get_str(waiting, "reason");
	if (reason && !str_eq(reason, "ContainerCreating") && !str_eq(reason, "PodInitializing"))
		set_problem(n, reason, json_get_str(waiting, "message"));
}

/* An authority's subject says which trigger it was made for. */
static bool is_of_trigger(const char *ca_pem, const struct request *q)
{
	struct cert *c cleanup(cert_freep) = NULL;
	struct err e;
	char id[13];
	if (!ca_pem || !q || !q->trigger || !cert_from_pem(ca_pem, strlen(ca_pem), &c, &e).ok)
		return false;
	char *unit cleanup(str_freep) = cert_subject_attribute(c, "OU");
	run_id(q->trigger, id);
	return unit && str_starts(unit, AUTHORITY_UNIT) && str_eq(unit + strlen(AUTHORITY_UNIT), id);
}

static void take_levels(struct node_state *n, const struct report *r, int64_t now_ms)
{
	for (size_t f = 0; f < FACET_COUNT; f++)
		n->levels[f] = r->levels[f];
	for (size_t i = 0; i < r->n_blockers; i++)
		node_add_blocker(n, r->blockers[i].code, r->blockers[i].object, r->blockers[i].message);
	n->report_at_ms = r->at_ms;
	n->controller_manager_started_ms = r->started_ms[PROCESS_CONTROLLER_MANAGER];
	n->scheduler_started_ms = r->started_ms[PROCESS_SCHEDULER];
	n->asked = r->asked;
	n->bridge_pem = r->bridge_pem ? str_dup(r->bridge_pem) : NULL;
	n->probe_pem = r->probe_pem && now_ms < r->at_ms + PROBE_USE_MS ? str_dup(r->probe_pem) : NULL;
	n->ca_pem = r->ca_pem ? str_dup(r->ca_pem) : NULL;
	n->pods_unseen = r->pods_cut;
	n->manifests = r->error ? SEEN_UNKNOWN : r->control_plane ? SEEN_YES : SEEN_NO;
}

/* The report was made (node's clock) after its Pod was (the API server's clock, whole seconds), and before the kubelet wrote the Pod's
 * last status (ditto). So far each of the two bounds proves something, however long either took. */
static void compare_clocks(struct node_state *n, const struct json *pod, const struct report *r)
{
	int64_t written = 0;
	json_each(f, json_at(pod, "metadata", "managedFields", NULL))
		if (str_eq(json_get_str(f, "manager"), "kubelet") && str_eq(json_get_str(f, "subresource"), "status"))
			written = time_of(json_get(f, "time"));
	n->clock_known = written && n->job_asked_ms && r->at_ms;
	n->clock_least_ms = r->at_ms - written - 999;
	n->clock_most_ms = r->at_ms - n->job_asked_ms;
}

/* A report counts for this run only: levels are relative to its O and N. */
static void job_finished(struct observation *o, struct node_state *n, struct node_report *slot, const struct json *pod)
{
	char *counts cleanup(str_freep) = jobs_label(o->world);
	const struct json *status = json_first(json_at(pod, "status", "containerStatuses", NULL));
	const struct json *end = json_at(status, "state", "terminated", NULL);
	const char *message = json_get_str(end, "message"), *run = label(pod, LABEL_RUN);
	struct report r = { 0 };
	struct err e = { 0 };
	if (slot->has) /* the list began anew, or two Pods have one number: the first counts */
		return;
	bool failed = !str_eq(json_str(json_at(pod, "status", "phase", NULL)), "Succeeded");
	n->job_ended_ms = time_of(json_get(end, "finishedAt"));
	n->job_asked_ms = time_of(json_at(pod, "metadata", "creationTimestamp", NULL));
	slot->failures = n->job_failures = failed ? number_of(pod, ANNOTATION_FAILURES) + 1 : 0;
	if (!message || !report_from_json(message, strlen(message), &r, &e).ok) {
		const char *why = json_get_str(end, "reason");
		set_problem(n, "the node program ended without a report", why ? why : json_str(json_at(pod, "status", "reason", NULL)));
		return;
	}
	if (r.error)
		set_problem(n, "the node program", r.error);
	compare_clocks(n, pod, &r);
	const struct step *step = walk_step(walk_find(json_str_or(json_at(pod, "metadata", "annotations", ANNOTATION_STEP, NULL), "")));
	if (!str_eq(run, counts)) {
		report_release(&r);
		return;
	}
	n->reported = !r.error || o->world->run.exists; /* an inventory is whole, or none */
	n->report_step = step ? (int)(walk_find(step->name)) : -1;
	take_levels(n, &r, o->world->now_ms);
	n->ca_of_trigger = is_of_trigger(n->ca_pem, o->world->request);
	slot->report = r;
	slot->has = true;
}

struct jobs {
	struct observation *o;
	int *newest_finished; /* numbers, by node index */
	int *newest_running;
};

static bool job_is_over(const struct json *pod)
{
	const char *phase = json_str(json_at(pod, "status", "phase", NULL));
	return str_eq(phase, "Succeeded") || str_eq(phase, "Failed");
}

static bool each_job_number(void *context, const struct json *pod)
{
	struct jobs *j = context;
	struct node_state *n = world_node(j->o->world, json_str_or(json_at(pod, "spec", "nodeName", NULL), ""));
	if (!n)
		return true;
	size_t i = (size_t)(n - j->o->world->nodes);
	int number = number_of(pod, ANNOTATION_NUMBER);
	int *newest = job_is_over(pod) ? &j->newest_finished[i] : &j->newest_running[i];
	*newest = number > *newest ? number : *newest;
	return true;
}

static void one_job(struct jobs *j, size_t i, const struct json *pod)
{
	struct node_state *n = &j->o->world->nodes[i];
	int number = number_of(pod, ANNOTATION_NUMBER);
	if (job_is_over(pod) && number <= j->newest_finished[i]) {
		if (number == j->newest_finished[i])
			job_finished(j->o, n, &j->o->reports[i], pod);
		return;
	}
	n->job_running = true; /* or it ended between the two readings: the next pass hears what it says */
	n->job_asked_ms = time_of(json_at(pod, "metadata", "creationTimestamp", NULL));
	job_waiting(n, pod);
}

static bool each_job(void *context, const struct json *pod)
{
	struct jobs *j = context;
	struct node_state *n = world_node(j->o->world, json_str_or(json_at(pod, "spec", "nodeName", NULL), ""));
	if (n)
		one_job(j, (size_t)(n - j->o->world->nodes), pod);
	return true;
}

/* Two readings of a short list: the numbers first, so that only the newest finished job of a node is parsed. */
static result read_jobs(struct observation *o, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/pods", o->settings->node_namespace);
	const struct kube_list q = { .path = path, .label_selector = LABEL_JOB "=true", .page = 200 };
	size_t n = o->world->n_nodes ? o->world->n_nodes : 1;
	struct jobs j = { .o = o, .newest_finished = mem_alloc(n * sizeof(int)), .newest_running = mem_alloc(n * sizeof(int)) };
	result r = kube_list_each(o->kube, &q, each_job_number, NULL, &j, NULL, e);
	if (r.ok)
		r = kube_list_each(o->kube, &q, each_job, NULL, &j, NULL, e);
	for (size_t i = 0; r.ok && i < o->world->n_nodes; i++)
		o->reports[i].number = j.newest_finished[i] > j.newest_running[i] ? j.newest_finished[i] : j.newest_running[i];
	free(j.newest_finished);
	free(j.newest_running);
	return r;
}

static bool each_left(void *context, const struct json *pod)
{
	struct observation *o = context;
	o->world->inspections += json_at(pod, "metadata", "deletionTimestamp", NULL) == NULL;
	return true;
}

result inspections_observe(struct observation *o, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/pods", o->settings->node_namespace);
	const struct kube_list q = { .path = path, .label_selector = LABEL_JOB "=true", .metadata_only = true, .page = 200 };
	return kube_list_each(o->kube, &q, each_left, NULL, o, NULL, e);
}

static result nodes_observe(struct observation *o, struct err *e)
{
	const struct kube_list q = { .path = "/api/v1/nodes", .page = NODE_PAGE };
	TRY(kube_list_each(o->kube, &q, each_node, drop_nodes, o, NULL, e));
	o->reports = mem_alloc((o->world->n_nodes + 1) * sizeof *o->reports);
	TRY(read_components(o, e));
	TRY(read_jobs(o, e));
	o->world->nodes_known = true;
	return OK;
}

const struct consumer consumer_nodes = { "nodes", READS_ALWAYS, nodes_observe };
