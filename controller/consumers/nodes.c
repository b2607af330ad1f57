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

static void take_levels(struct node_state *n, const struct report *r, int64_t now_ms)
{
	for (size_t f = 0; f < FACET_COUNT; f++)
		n->levels[f] = r->levels[f];
	for (size_t i = 0; i < r->n_blockers; i++)
		node_add_blocker(n, r->blockers[i].code, r->blockers[i].object, r->blockers[i].message);
	n->report_at_ms = r->at_ms;
	n->controller_manager_started_ms = r->started_ms[PROCESS_CONTROLLER_MANAGER];
	n->scheduler_started_ms = r->started_ms[PROCESS_SCHEDULER];
	n->bridge_pem = r->bridge_pem ? str_dup(r->bridge_pem) : NULL;
	n->probe_pem = r->probe_pem && now_ms < r->at_ms + PROBE_USE_MS ? str_dup(r->probe_pem) : NULL;
	n->ca_pem = r->ca_pem ? str_dup(r->ca_pem) : NULL;
	n->pods_unseen = r->pods_cut;
}

/* A report counts for this run only: levels are relative to its O and N. */
static void job_finished(struct observation *o, struct node_state *n, struct node_report *slot, const struct json *pod)
{
	const struct json *status = json_first(json_at(pod, "status", "containerStatuses", NULL));
	const struct json *end = json_at(status, "state", "terminated", NULL);
	const char *message = json_get_str(end, "message"), *run = label(pod, LABEL_RUN);
	struct report r = { 0 };
	struct err e = { 0 };
	if (slot->has) /* the list began anew, or two Pods have one number: the first counts */
		return;
	bool failed = !str_eq(json_str(json_at(pod, "status", "phase", NULL)), "Succeeded");
	n->job_ended_ms = time_of(json_get(end, "finishedAt"));
	slot->failures = n->job_failures = failed ? number_of(pod, ANNOTATION_FAILURES) + 1 : 0;
	if (!message || !report_from_json(message, strlen(message), &r, &e).ok) {
		const char *why = json_get_str(end, "reason");
		set_problem(n, "the node program ended without a report", why ? why : json_str(json_at(pod, "status", "reason", NULL)));
		return;
	}
	if (r.error)
		set_problem(n, "the node program", r.error);
	const struct step *step = walk_step(walk_find(json_str_or(json_at(pod, "metadata", "annotations", ANNOTATION_STEP, NULL), "")));
	if (!str_eq(run, o->world->run.exists ? o->world->run.leg : "inventory")) {
		report_release(&r);
		return;
	}
	n->reported = true;
	n->report_step = step ? (int)(walk_find(step->name)) : -1;
	take_levels(n, &r, o->world->now_ms);
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
	if (job_is_over(pod)) {
		if (number == j->newest_finished[i])
			job_finished(j->o, n, &j->o->reports[i], pod);
		return;
	}
	n->job_running = true;
	n->job_started_ms = time_of(json_at(pod, "metadata", "creationTimestamp", NULL));
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

/* Nodes that disagree on the CA in force can't be rotated together. */
static void compare_authorities(struct world *w)
{
	const struct node_state *first = NULL;
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		if (!n->ca_pem)
			continue;
		first = first ? first : n;
		if (!str_eq(first->ca_pem, n->ca_pem) && !w->refusal)
			w->refusal = str_printf("nodes %s and %s have different certificate authorities in ca.crt", first->name,
						n->name);
	}
}

static result nodes_observe(struct observation *o, struct err *e)
{
	const struct kube_list q = { .path = "/api/v1/nodes", .page = NODE_PAGE };
	TRY(kube_list_each(o->kube, &q, each_node, drop_nodes, o, NULL, e));
	o->reports = mem_alloc((o->world->n_nodes + 1) * sizeof *o->reports);
	TRY(read_jobs(o, e));
	compare_authorities(o->world);
	o->world->nodes_known = true;
	return OK;
}

const struct consumer consumer_nodes = { "nodes", false, nodes_observe };
