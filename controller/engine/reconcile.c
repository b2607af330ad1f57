#include "reconcile.h"
#include "apply.h"
#include "forecast.h"
#include "log.h"
#include "report.h"
#include "request.h"
#include "walk.h"

#include <stdlib.h>
#include <string.h>

#define CRS_PATH "/apis/certrotation.dev/v1alpha1/certificaterotations"
#define IDLE_MS 60000
#define RUNNING_MS 2000
#define ERROR_MS 1000
#define AFTER_ACTION_MS 100
#define STATUS_APART_MS 1000
#define CRS_MAX 100

struct engine {
	struct kube *kube;
	struct settings settings;
	struct engine_hooks hooks;
	struct http_pool *probes;
	struct probe_memory *memory;
	struct bundle_memory *bundles;
	int64_t status_written_ms;
	char *last_line; /* of the log, so that a wait is logged once */
	uint64_t passes, actions[ACT_COUNT], action_errors;
};

/* All of one pass. */
struct pass {
	struct engine *g;
	struct json *objects[CRS_MAX]; /* CertificateRotations, oldest first */
	size_t n_objects;
	struct request requests[CRS_MAX];
	char *invalid[CRS_MAX];
	struct world world;
	struct observation o;
	struct position position;
	struct plan plan;
	size_t active;                 /* index, or n_objects */
	struct json *forecast;         /* status.plan of the active request, once it is made */
	char *apply_error;
};

struct engine *engine_new(struct kube *kube, const struct settings *settings, const struct engine_hooks *hooks)
{
	struct engine *g = mem_alloc(sizeof *g);
	g->kube = kube;
	g->settings = *settings;
	g->hooks = *hooks;
	kube_gate(kube, hooks->may_act, hooks->context);
	g->probes = http_pool_new(8, "certrotation-probe");
	g->memory = probe_memory_new();
	g->bundles = bundle_memory_new();
	return g;
}

void engine_freep(struct engine **g)
{
	if (!*g)
		return;
	http_pool_freep(&(*g)->probes);
	probe_memory_freep(&(*g)->memory);
	bundle_memory_freep(&(*g)->bundles);
	str_freep(&(*g)->last_line);
	free(*g);
	*g = NULL;
}

static void pass_release(struct pass *p)
{
	plan_release(&p->plan);
	position_release(&p->position);
	observation_release(&p->o);
	world_release(&p->world);
	for (size_t i = 0; i < p->n_objects; i++) {
		json_freep(&p->objects[i]);
		request_release(&p->requests[i]);
		str_freep(&p->invalid[i]);
	}
	str_freep(&p->apply_error);
	json_freep(&p->forecast);
}

/* --- Which request ------------------------------------------------------------------------------------------------------- */

static bool add_object(void *context, const struct json *object)
{
	struct pass *p = context;
	if (p->n_objects < CRS_MAX)
		p->objects[p->n_objects++] = json_copy(object);
	return true;
}

static void drop_objects(void *context)
{
	struct pass *p = context;
	while (p->n_objects)
		json_freep(&p->objects[--p->n_objects]);
}

static int older_first(const void *a, const void *b)
{
	const struct json *const *x = a, *const *y = b;
	const struct json *mx = json_get(*x, "metadata"), *my = json_get(*y, "metadata");
	int by_time = strcmp(json_str_or(json_get(mx, "creationTimestamp"), ""), json_str_or(json_get(my, "creationTimestamp"), ""));
	return by_time ? by_time : strcmp(json_str_or(json_get(mx, "name"), ""), json_str_or(json_get(my, "name"), ""));
}

static result read_requests(struct pass *p, struct err *e)
{
	const struct kube_list q = { .path = CRS_PATH, .page = CRS_MAX };
	TRY(kube_list_each(p->g->kube, &q, add_object, drop_objects, p, NULL, e));
	qsort(p->objects, p->n_objects, sizeof *p->objects, older_first);
	for (size_t i = 0; i < p->n_objects; i++) {
		struct err invalid;
		if (!request_parse(p->objects[i], &p->requests[i], &invalid).ok)
			p->invalid[i] = str_dup(invalid.message);
	}
	return OK;
}

static const char *object_text(const struct json *object, const char *field)
{
	return json_str_or(json_at(object, "metadata", field, NULL), "");
}

/* The run obeys the copy of the spec on its Secret and its own trigger; the CR may ask for a later one by now. */
static void obey_run(struct pass *p, size_t i)
{
	const struct run *run = &p->world.run;
	struct json *object cleanup(json_freep) = json_copy(p->objects[i]), *copy cleanup(json_freep) = NULL;
	struct request r cleanup(request_release) = { 0 };
	struct err e;
	json_set_str(json_ensure_object(object, "spec"), "trigger", run->trigger);
	bool parsed = request_parse(object, &r, &e).ok && run->spec && json_parse(run->spec, strlen(run->spec), &copy, &e).ok;
	if (!parsed || !request_obey_copy(&r, copy, &e).ok)
		return;
	if (!str_eq(json_str(json_at(p->objects[i], "spec", "trigger", NULL)), run->trigger))
		strs_release(&r.ignored); /* it describes the next run */
	request_release(&p->requests[i]);
	str_freep(&p->invalid[i]);
	p->requests[i] = r;
	r = (struct request){ 0 };
}

static bool asks(const struct pass *p, size_t i, bool plan)
{
	const struct request *r = &p->requests[i];
	return !p->invalid[i] && !r->rollback && r->plan_only == plan && !trigger_recorded(&p->o, r->authorities, r->trigger);
}

/* The plan in a status is the answer itself: while it is there, and answers what is asked, nothing is left to do. */
static const struct json *plan_there(const struct pass *p, size_t i)
{
	const struct json *plan = json_at(p->objects[i], "status", "plan", NULL);
	return forecast_current(plan, &p->requests[i], p->world.authority, p->world.now_ms) ? plan : NULL;
}

/* What to show: the one that was just made, or, while it is made anew, the one before. */
static const struct json *plan_to_show(const struct pass *p, size_t i)
{
	const struct json *plan = json_at(p->objects[i], "status", "plan", NULL);
	if (i == p->active && p->forecast)
		return p->forecast;
	return forecast_answers(plan, &p->requests[i], p->world.authority) ? plan : NULL;
}

static size_t first_that_asks(const struct pass *p)
{
	for (size_t i = 0; i < p->n_objects; i++)
		if (asks(p, i, false))
			return i;
	for (size_t i = 0; i < p->n_objects; i++)
		if (asks(p, i, true) && !plan_there(p, i))
			return i;
	return p->n_objects;
}

static size_t owner_of_run(const struct pass *p)
{
	for (size_t i = 0; i < p->n_objects; i++)
		if (str_eq(object_text(p->objects[i], "name"), p->world.run.owner))
			return i;
	return p->n_objects;
}

static void choose(struct pass *p)
{
	const struct run *run = &p->world.run;
	p->active = run->exists ? owner_of_run(p) : first_that_asks(p);
	if (p->active < p->n_objects && run->exists)
		obey_run(p, p->active);
	if (p->active < p->n_objects && !p->invalid[p->active])
		p->world.request = &p->requests[p->active];
	if (p->world.request)
		p->world.pending = trigger_pending(&p->o, p->world.request->authorities, p->world.request->trigger);
}

/* --- Observe ---------------------------------------------------------------------------------------------------------------- */

static void note_error(struct pass *p, const char *what, const struct err *error)
{
	if (!p->apply_error)
		p->apply_error = str_printf("%s: %s", what, error->message);
	log_line(error->kind == ERR_CONFLICT ? LOG_DEBUG : LOG_WARN, what, "error", error->message, NULL);
}

static bool is_wanted(const struct pass *p, const struct consumer *c)
{
	struct waits ignored cleanup(waits_release) = { 0 };
	bool run = p->world.run.exists;
	bool plan = world_is_planned(&p->world) && forecast_visited(&p->world, &ignored);
	switch (c->reads) {
	case READS_ALWAYS:
		return true;
	case READS_IN_RUN:
		return run;
	case READS_FOR_PLAN:
		return plan;
	case READS_IN_BOTH:
		return run || plan;
	}
	return true;
}

static void observe_rest(struct pass *p)
{
	for (size_t i = 1; i < N_CONSUMERS; i++) {
		struct err e = { 0 };
		if (!is_wanted(p, CONSUMERS[i]))
			continue;
		if (CONSUMERS[i]->observe(&p->o, &e).ok)
			continue;
		note_error(p, CONSUMERS[i]->name, &e);
		p->world.unread = p->world.unread ? p->world.unread : CONSUMERS[i]->name;
	}
}

/* --- Act -------------------------------------------------------------------------------------------------------------------- */

static void log_action(const struct action *a, const struct world *w UNUSED)
{
	const struct step *s = walk_step((size_t)a->step);
	log_line(LOG_INFO, action_name(a->kind), "step", s ? s->name : "", "node", a->node ? a->node->name : "",
		 "name", a->name ? a->name : "", "namespace", a->namespace ? a->namespace : "", NULL);
}

static bool may_act(const struct pass *p)
{
	return p->g->hooks.may_act(p->g->hooks.context);
}

static bool act(struct pass *p)
{
	const struct applier a = { p->g->kube, &p->g->settings, &p->world, p->o.reports, p->g->bundles };
	bool acted = false;
	for (size_t i = 0; i < p->plan.n; i++) {
		const struct action *action = &p->plan.actions[i];
		struct err e = { 0 };
		if (!may_act(p))
			return acted;
		log_action(action, &p->world);
		p->g->actions[action->kind]++;
		acted = true;
		if (apply_action(&a, action, &e).ok)
			continue;
		p->g->action_errors++;
		note_error(p, action_name(action->kind), &e);
	}
	return acted;
}

/* --- Report ------------------------------------------------------------------------------------------------------------------ */

static struct json *closed_run(const struct pass *p, size_t i)
{
	const struct json *run = json_at(p->objects[i], "status", "run", NULL);
	const char *trigger = json_get_str(run, "trigger");
	char now[32];
	if (!trigger || !trigger_ended(&p->o, trigger) || (p->world.run.exists && str_eq(trigger, p->world.run.trigger)))
		return NULL;
	struct json *closed = json_object();
	time_format(p->world.now_ms, now);
	json_set_str(closed, "trigger", trigger);
	json_set_str(closed, "startedAt", json_get_str(run, "startedAt"));
	json_set_str(closed, "completedAt", now);
	json_set_str(closed, "result",
		     strs_has(&p->o.rolled_back, trigger) ? PHASE_NAME_ROLLED_BACK : phase_text(PHASE_COMPLETED)->name);
	return closed;
}

/* That of the request's own run. What could not be read is told as before. */
static const struct json *admin_kubeconfig_of(const struct pass *p, size_t i)
{
	const struct json *before = json_get(p->objects[i], "status");
	const char *trigger = p->requests[i].trigger;
	char id[13];
	if (p->invalid[i])
		return NULL;
	if (p->world.admin_kubeconfig == SEEN_UNKNOWN)
		return str_eq(json_str(json_at(before, "run", "trigger", NULL)), trigger) ? json_get(before, "adminKubeconfig") : NULL;
	run_id(trigger, id);
	return str_eq(id, p->o.admin_run) ? p->o.admin_kubeconfig : NULL;
}

static struct json *status_of(struct pass *p, size_t i, const struct json *closed)
{
	struct request stand_in = { .generation = json_int(json_at(p->objects[i], "metadata", "generation", NULL), 0),
				    .trigger = p->requests[i].trigger };
	struct world nothing = { .now_ms = p->world.now_ms };
	struct status_input in = { .world = &nothing, .request = p->invalid[i] ? &stand_in : &p->requests[i],
				   .previous = json_get(p->objects[i], "status"), .authorities = p->o.authorities,
				   .admin_kubeconfig = admin_kubeconfig_of(p, i), .closed = closed, .apply_error = p->apply_error };
	if (p->invalid[i]) {
		in.standing = STANDING_INVALID;
		in.detail = p->invalid[i];
	} else if (i == p->active) {
		in.plan = plan_to_show(p, i);
		in.standing = !world_is_planned(&p->world) ? STANDING_RUNS : in.plan ? STANDING_PLANNED : STANDING_PLANNING;
		in.world = &p->world;
		in.position = &p->position;
	} else if (trigger_recorded(&p->o, p->requests[i].authorities, p->requests[i].trigger)) {
		in.standing = strs_has(&p->o.rolled_back, p->requests[i].trigger) ? STANDING_ROLLED_BACK : STANDING_DONE;
	} else if (p->requests[i].rollback && !p->requests[i].deleting) {
		in.standing = STANDING_INVALID;
		in.detail = "spec.rollback names a run that has not begun, so it is not begun: take spec.rollback out, or set a new spec.trigger";
	} else if (p->requests[i].plan_only && plan_to_show(p, i)) {
		in.standing = STANDING_PLANNED;
		in.plan = plan_to_show(p, i);
	} else {
		in.standing = STANDING_QUEUED;
		in.detail = p->world.run.exists ? p->world.run.owner
			    : p->active < p->n_objects ? object_text(p->objects[p->active], "name") : "another object";
	}
	return status_make(&in);
}

static bool phase_changes(const struct pass *p, size_t i, const struct json *next)
{
	return !str_eq(json_str(json_at(p->objects[i], "status", "phase", NULL)), json_get_str(next, "phase"));
}

/* At most one write a second, but for a change of phase. */
static void report_all(struct pass *p)
{
	int64_t now = clock_monotonic_ms();
	bool early = p->g->status_written_ms && now - p->g->status_written_ms < STATUS_APART_MS;
	for (size_t i = 0; i < p->n_objects; i++) {
		struct json *closed cleanup(json_freep) = closed_run(p, i);
		struct json *status cleanup(json_freep) = status_of(p, i, closed);
		struct err e = { 0 };
		bool written = false;
		if (early && !phase_changes(p, i, status)) {
			if (status_differs(json_get(p->objects[i], "status"), status))
				plan_look_again(&p->plan, STATUS_APART_MS);
			continue;
		}
		if (!report_status(p->g->kube, p->objects[i], status, p->g->settings.pod_name, &written, &e).ok)
			note_error(p, "writing the status", &e);
		if (written)
			p->g->status_written_ms = now;
	}
}

static void keep_finalizers(struct pass *p)
{
	for (size_t i = 0; i < p->n_objects; i++) {
		struct err e = { 0 };
		bool running = p->world.run.exists && str_eq(object_text(p->objects[i], "name"), p->world.run.owner);
		bool deleting = json_at(p->objects[i], "metadata", "deletionTimestamp", NULL) != NULL;
		if (running == deleting && !(deleting && !running))
			continue;
		if (!apply_finalizer(p->g->kube, p->objects[i], running, &e).ok)
			note_error(p, "the finalizer", &e);
	}
}

static void log_position(struct pass *p)
{
	if (p->world.unread)
		return; /* the error is in the log */
	bool planned = world_is_planned(&p->world);
	const struct step *s = walk_step(p->position.step);
	const char *phase = planned ? "Planning" : phase_text(p->position.phase)->name, *step = planned ? "plan" : s ? s->name : "done";
	char *line = str_printf("%s/%s: %s", phase, step, buf_str(&p->position.waits.message));
	if (!str_eq(line, p->g->last_line))
		log_line(LOG_INFO, "position", "phase", p->world.run.back ? PHASE_NAME_ROLLING_BACK : phase, "step", step,
			 "waitingFor", buf_str(&p->position.waits.message), NULL);
	str_freep(&p->g->last_line);
	p->g->last_line = line;
}

static void metric(struct buf *b, const char *name, const char *type, const char *help)
{
	buf_addf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void position_metrics(const struct pass *p, struct buf *m)
{
	bool walks = p->active < p->n_objects && !world_is_planned(&p->world);
	metric(m, "certrotation_phase", "gauge", "1 for the phase of the run under way.");
	for (size_t i = 0; i < PHASE_COUNT; i++)
		buf_addf(m, "certrotation_phase{phase=\"%s\"} %d\n", phase_text((enum phase)i)->name,
			 walks && p->position.phase == (enum phase)i);
	metric(m, "certrotation_rolling_back", "gauge", "1 while the run goes back.");
	buf_addf(m, "certrotation_rolling_back %d\n", p->active < p->n_objects && p->world.run.back);
	metric(m, "certrotation_step", "gauge", "Steps of the walk that hold.");
	buf_addf(m, "certrotation_step %zu\n", walks ? p->position.step : 0);
	metric(m, "certrotation_stalled", "gauge", "1 when a person is waited for.");
	buf_addf(m, "certrotation_stalled %d\n", p->active < p->n_objects && p->position.waits.stalled);
	metric(m, "certrotation_deadline_exceeded", "gauge", "1 when the run under way is not complete by spec.deadline.");
	buf_addf(m, "certrotation_deadline_exceeded %d\n", walks && status_deadline_passed(&p->world));
}

/* Where the run stands is left out while that is not known. */
static void show(struct pass *p)
{
	struct buf m cleanup(buf_release) = BUF_INIT;
	struct json *status cleanup(json_freep) = p->active < p->n_objects ? status_of(p, p->active, NULL)
						   : p->n_objects	? json_copy(json_get(p->objects[0], "status") ? json_get(p->objects[0], "status") : p->objects[0])
									: json_object();
	char *text cleanup(str_freep) = json_text(status);
	if (!p->world.unread)
		position_metrics(p, &m);
	metric(&m, "certrotation_passes_total", "counter", "Passes of the engine.");
	buf_addf(&m, "certrotation_passes_total %llu\n", (unsigned long long)p->g->passes);
	metric(&m, "certrotation_actions_total", "counter", "Actions begun, by kind.");
	for (size_t i = 0; i < ACT_COUNT; i++)
		buf_addf(&m, "certrotation_actions_total{action=\"%s\"} %llu\n", action_name((enum action_kind)i),
			 (unsigned long long)p->g->actions[i]);
	metric(&m, "certrotation_action_errors_total", "counter", "Actions that failed.");
	buf_addf(&m, "certrotation_action_errors_total %llu\n", (unsigned long long)p->g->action_errors);
	p->g->hooks.observed(p->g->hooks.context, buf_str(&m), text);
}

/* --- The pass ------------------------------------------------------------------------------------------------------------------ */

static int64_t next_look(const struct pass *p, bool acted)
{
	int64_t wait = p->active < p->n_objects ? RUNNING_MS : IDLE_MS;
	if (p->plan.look_again_ms && p->plan.look_again_ms < wait)
		wait = p->plan.look_again_ms;
	if (p->apply_error && ERROR_MS < wait)
		wait = ERROR_MS;
	return acted && AFTER_ACTION_MS < wait && !p->apply_error ? AFTER_ACTION_MS : wait;
}

/* Where the request stands and what comes next. */
static void decide(struct pass *p)
{
	if (!world_is_planned(&p->world)) {
		walk_locate(&p->world, &p->position);
		walk_plan(&p->world, &p->position, &p->plan);
	} else if (forecast_locate(&p->world, &p->position)) {
		p->forecast = forecast_make(&p->world);
		plan_look_again(&p->plan, AFTER_ACTION_MS);
	} else {
		forecast_actions(&p->world, &p->position, &p->plan);
	}
	log_position(p);
}

/* Nobody is served; Pods of a plan that is made, or of a request that was withdrawn, may be left. */
static void rest(struct pass *p)
{
	struct err e = { 0 };
	if (!inspections_observe(&p->o, &e).ok)
		note_error(p, "node Pods that are left", &e);
	else
		forecast_rest(&p->world, &p->plan);
	if (!consumer_admin_kubeconfig.observe(&p->o, &e).ok)
		note_error(p, consumer_admin_kubeconfig.name, &e);
}

static result run_pass(struct pass *p, int64_t *ret_again_ms, struct err *e)
{
	struct engine *g = p->g;
	bool acted = false;
	p->world.now_ms = clock_now_ms();
	p->o = (struct observation){ .kube = g->kube, .probes = g->probes, .memory = g->memory, .bundles = g->bundles,
				     .settings = &g->settings, .world = &p->world };
	TRY_CTX(read_requests(p, e), e, "reading CertificateRotations");
	TRY_CTX(CONSUMERS[0]->observe(&p->o, e), e, "reading the authorities");
	choose(p);
	if (p->active < p->n_objects) {
		observe_rest(p);
		decide(p);
	} else {
		rest(p);
	}
	keep_finalizers(p);
	acted = act(p);
	if (may_act(p))
		report_all(p);
	show(p);
	*ret_again_ms = next_look(p, acted);
	return OK;
}

result engine_pass(struct engine *g, int64_t *ret_again_ms, struct err *e)
{
	struct pass *p = mem_alloc(sizeof *p);
	p->g = g;
	g->passes++;
	result r = run_pass(p, ret_again_ms, e);
	pass_release(p);
	free(p);
	return r;
}
