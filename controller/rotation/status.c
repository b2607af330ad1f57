#include "status.h"
#include "preflight.h"

#include <stdio.h>
#include <string.h>

#define HISTORY_MAX 5
#define BLOCKERS_MAX 100
/* The schema's limits or less: the API server would refuse the whole status for one text that is too long. */
#define TEXT_MAX 1000
#define ITEM_MAX 500
#define ACCEPTED_MAX 100
#define ACCEPTED_NAME_MAX 384
#define WORD_MAX 63

static char *cut(const char *text, size_t most)
{
	return str_ndup(text, str_cut(text, most));
}

/* NULL: nothing. */
static void set_cut(struct json *object, const char *name, const char *text, size_t most)
{
	if (!text)
		return;
	char *part cleanup(str_freep) = cut(text, most);
	json_set_str(object, name, part);
}

static void add_cut(struct json *array, const char *text, size_t most)
{
	char *part cleanup(str_freep) = cut(text, most);
	json_add_str(array, part);
}

/* --- Conditions ------------------------------------------------------------------------------------------------------ */

static const struct json *condition_of(const struct json *status, const char *type)
{
	json_each(c, json_get(status, "conditions"))
		if (str_eq(json_get_str(c, "type"), type))
			return c;
	return NULL;
}

static void add_condition(const struct status_input *in, struct json *status, const char *type, bool value,
			  const char *reason, const char *message)
{
	const char *state = value ? "True" : "False";
	const struct json *before = condition_of(in->previous, type);
	char now[32];
	time_format(in->world->now_ms, now);
	bool same = str_eq(json_get_str(before, "status"), state);
	struct json *c = json_object();
	json_set_str(c, "type", type);
	json_set_str(c, "status", state);
	json_set_int(c, "observedGeneration", in->request->generation);
	json_set_str(c, "lastTransitionTime", same ? json_str_or(json_get(before, "lastTransitionTime"), now) : now);
	json_set_str(c, "reason", reason);
	set_cut(c, "message", message, TEXT_MAX);
	json_add(json_ensure_array(status, "conditions"), c);
}

static void summary_conditions(const struct status_input *in, struct json *status, bool ready, bool stalled,
			       const char *reason, const char *message)
{
	add_condition(in, status, "Ready", ready, reason, message);
	if (!ready && !stalled)
		add_condition(in, status, "Reconciling", true, reason, message);
	if (stalled)
		add_condition(in, status, "Stalled", true, reason, message);
}

/* Whose phases they are: what runs, or, once it is over, what was asked for. */
static authority_set rotated(const struct status_input *in)
{
	authority_set set = world_authorities(in->world);
	return set ? set : in->request->authorities;
}

static enum strategy followed(const struct status_input *in)
{
	return world_authorities(in->world) ? world_strategy(in->world) : in->request->strategy;
}

/* The status before tells of the run that is under way. Of what has not begun there is no run yet, and of what is over there may be none left
 * to tell it from. */
static bool is_of_run(const struct status_input *in)
{
	const char *phase = json_get_str(in->previous, "phase"), *told = json_str(json_at(in->previous, "run", "trigger", NULL));
	if (!in->world->run.exists)
		return !told && str_eq(phase, phase_text(PHASE_PREPARING)->name);
	return phase && str_eq(told, in->world->run.trigger);
}

/* The drop has begun on that proof, which another leader has to gather again: it stays said, as the phase does. */
static bool was_proven(const struct status_input *in, enum phase p)
{
	if (!in->world->run.dropping || p >= PHASE_DROPPING_OLD || !is_of_run(in))
		return false;
	json_each(c, json_get(in->previous, "conditions"))
		if (str_eq(json_get_str(c, "type"), phase_text(p)->condition))
			return str_eq(json_get_str(c, "status"), "True");
	return false;
}

static void phase_condition(const struct status_input *in, enum phase p, struct json *status, const char *message)
{
	struct buf moves cleanup(buf_release) = BUF_INIT;
	const char *condition = phase_text(p)->condition;
	bool done = in->standing == STANDING_DONE || (in->position && in->position->phase_done[p]) || was_proven(in, p);
	bool now = in->position && in->position->phase == p;
	bool any = walk_moves(rotated(in), followed(in), p, &moves);
	if (done && any)
		add_condition(in, status, condition, true, "Proven", buf_str(&moves));
	else if (done)
		add_condition(in, status, condition, true, "NotApplicable", "the authorities that are rotated need no step of it");
	else
		add_condition(in, status, condition, false, now ? "InProgress" : "NotReached", now ? message : "an earlier phase is not finished");
}

static void phase_conditions(const struct status_input *in, struct json *status, const char *message)
{
	bool back = in->standing == STANDING_ROLLED_BACK || in->world->run.back;
	for (size_t p = 0; p < PHASE_COUNT; p++) {
		const struct phase_text *t = phase_text((enum phase)p);
		if (!t->condition)
			continue;
		if (back) {
			add_condition(in, status, t->condition, false, "RolledBack", "the run goes back, or has gone back");
			continue;
		}
		phase_condition(in, (enum phase)p, status, message);
	}
}

/* --- Progress ----------------------------------------------------------------------------------------------------------- */

static void add_progress(struct json *status, const char *kind, size_t done, size_t total, const struct strs *names)
{
	struct json *p = json_object();
	json_set_str(p, "kind", kind);
	json_set_int(p, "done", (int64_t)done);
	json_set_int(p, "total", (int64_t)total);
	for (size_t i = 0; names && i < names->n && i < WORLD_NAMES_MAX; i++)
		add_cut(json_ensure_array(p, "waitingFor"), names->items[i], ITEM_MAX);
	json_add(json_ensure_array(status, "progress"), p);
}

static void facet_progress(const struct world *w, struct json *status, const char *kind, enum facet f, int level)
{
	struct strs names cleanup(strs_release) = { 0 };
	size_t done = 0, total = 0;
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		if (n->levels[f] == FACET_ABSENT)
			continue;
		total++;
		if (n->reported && facet_reached(n->levels[f], level))
			done++;
		else
			tally_lag(&names, n->name);
	}
	add_progress(status, kind, done, total, &names);
}

static void workload_progress(const struct world *w, struct json *status)
{
	struct strs names cleanup(strs_release) = { 0 };
	size_t pods = 0;
	for (size_t i = 0; i < w->n_stragglers; i++) {
		const struct straggler *s = &w->stragglers[i];
		if (s->accepted)
			continue;
		pods += s->pods;
		if (names.n < WORLD_NAMES_MAX)
			strs_addf(&names, "%s/%s/%s", s->kind, s->namespace, s->name);
	}
	add_progress(status, "Pods", w->pods_total > pods ? w->pods_total - pods : 0, w->pods_total, &names);
}

static void other_progress(const struct world *w, struct json *status)
{
	authority_set set = world_authorities(w);
	if (authority_in(set, AUTHORITY_FRONT_PROXY)) {
		facet_progress(w, status, "FrontProxiesTrustingNew", FACET_PROXY_TRUST, TRUST_BOTH);
		facet_progress(w, status, "FrontProxyLeaves", FACET_PROXY_LEAF, LEAF_BRIDGE);
		facet_progress(w, status, "FrontProxiesTrustingOnlyNew", FACET_PROXY_TRUST, TRUST_NEW);
	}
	if (authority_in(set, AUTHORITY_ETCD)) {
		facet_progress(w, status, "EtcdLeaves", FACET_ETCD_LEAF, LEAF_BRIDGE);
		facet_progress(w, status, "EtcdMembersTrustingOnlyNew", FACET_ETCD_TRUST, TRUST_NEW);
	}
}

static void own_progress(const struct world *w, enum phase now, struct json *status)
{
	bool only = now >= PHASE_PUBLISHING_NEW;
	const struct tally *a = &w->root_configmaps, *b = &w->token_secrets;
	facet_progress(w, status, "ServersTrustingNew", FACET_TRUST, TRUST_BOTH);
	add_progress(status, "RootConfigMaps", only ? a->only_new : a->with_new, a->total, only ? &a->lag_only : &a->lag_new);
	add_progress(status, "TokenSecrets", only ? b->only_new : b->with_new, b->total, only ? &b->lag_only : &b->lag_new);
	const struct tally *c = &w->ca_bundles.tally;
	only = now >= PHASE_AWAITING_APPROVAL;
	if (c->total)
		add_progress(status, "CABundles", only ? c->only_new : c->with_new, c->total, only ? &c->lag_only : &c->lag_new);
	facet_progress(w, status, "ServerLeaves", FACET_SERVER_LEAF, LEAF_BRIDGE);
	facet_progress(w, status, "ControlPlaneComponents", FACET_COMPONENTS, ISSUED_NEW);
	facet_progress(w, status, "Kubelets", FACET_KUBELET, ISSUED_NEW);
	if (now >= PHASE_RESTARTING_WORKLOADS)
		workload_progress(w, status);
	facet_progress(w, status, "ServersTrustingOnlyNew", FACET_TRUST, TRUST_NEW);
}

static void progress(const struct world *w, enum phase now, struct json *status)
{
	if (authority_in(world_authorities(w), AUTHORITY_KUBERNETES))
		own_progress(w, now, status);
	other_progress(w, status);
}

/* --- Blockers, stragglers ------------------------------------------------------------------------------------------------- */

static void add_blocker(struct json *status, size_t *count, const char *code, const char *object, const char *message)
{
	if ((*count)++ >= BLOCKERS_MAX)
		return;
	struct json *b = json_object();
	set_cut(b, "code", code, WORD_MAX);
	set_cut(b, "object", object, TEXT_MAX);
	set_cut(b, "message", message, TEXT_MAX);
	json_add(json_ensure_array(status, "blockers"), b);
}

static void node_blockers(const struct node_state *n, struct json *status, size_t *count)
{
	struct buf object cleanup(buf_release) = BUF_INIT;
	if (!n->ready) {
		buf_addf(&object, "Node/%s", n->name);
		add_blocker(status, count, "NodeNotReady", buf_str(&object), "the node is not Ready: repair or delete it");
	}
	if (n->job_problem) {
		buf_clear(&object);
		buf_addf(&object, "Node/%s", n->name);
		add_blocker(status, count, "NodeProgram", buf_str(&object), n->job_problem);
	}
	for (size_t i = 0; i < n->n_blockers; i++) {
		buf_clear(&object);
		buf_addf(&object, "Node/%s:%s", n->name, n->blockers[i].object);
		add_blocker(status, count, n->blockers[i].code, buf_str(&object), n->blockers[i].message);
	}
}

static void cluster_blockers(const struct world *w, struct json *status, size_t *count)
{
	struct obstacles o cleanup(obstacles_release) = { 0 };
	preflight_look(w, &o);
	for (size_t i = 0; i < o.n; i++)
		add_blocker(status, count, o.items[i].code, o.items[i].object, o.items[i].message);
}

static void bundle_blockers(const struct world *w, struct json *status, size_t *count)
{
	const struct ca_bundles *b = &w->ca_bundles;
	for (size_t i = 0; i < b->n_keepers; i++)
		add_blocker(status, count, "Straggler", b->keepers[i].object, b->keepers[i].reason);
	*count += b->keepers_total - b->n_keepers;
}

void status_blockers(const struct world *w, enum phase now, struct json *status)
{
	size_t count = 0;
	cluster_blockers(w, status, &count);
	for (size_t i = 0; i < w->n_nodes; i++)
		node_blockers(&w->nodes[i], status, &count);
	for (size_t i = 0; now >= PHASE_RESTARTING_WORKLOADS && i < w->n_stragglers; i++) {
		const struct straggler *s = &w->stragglers[i];
		struct buf object cleanup(buf_release) = BUF_INIT;
		if (s->accepted)
			continue;
		buf_addf(&object, "%s/%s/%s", s->kind, s->namespace, s->name);
		add_blocker(status, &count, "Straggler", buf_str(&object), s->reason ? s->reason : "not restarted yet");
	}
	if (now >= PHASE_RESTARTING_WORKLOADS)
		bundle_blockers(w, status, &count);
	json_set_int(status, "blockersTotal", (int64_t)count);
}

/* --- The parts ---------------------------------------------------------------------------------------------------------------- */

/* The run that made what is: from the history, which is complete by now. */
static void last_run_part(const struct status_input *in, struct json *status)
{
	if (in->standing != STANDING_DONE && in->standing != STANDING_ROLLED_BACK)
		return;
	json_each(h, json_get(status, "history")) {
		if (!str_eq(json_get_str(h, "trigger"), in->request->trigger))
			continue;
		struct json *r = json_ensure_object(status, "run");
		json_set_str(r, "trigger", in->request->trigger);
		json_set_str(r, "startedAt", json_get_str(h, "startedAt"));
		json_set_str(r, "completedAt", json_get_str(h, "completedAt"));
	}
}

static void run_part(const struct status_input *in, struct json *status)
{
	const struct run *run = &in->world->run;
	if (!run->exists) {
		last_run_part(in, status);
		return;
	}
	char started[32];
	time_format(run->started_ms, started);
	struct json *r = json_ensure_object(status, "run");
	set_cut(r, "trigger", run->trigger, WORD_MAX);
	set_cut(r, "id", run->id, WORD_MAX);
	json_set_str(r, "startedAt", started);
	if (status_deadline_ms(in->world)) {
		time_format(status_deadline_ms(in->world), started);
		json_set_str(r, "deadline", started);
	}
	for (size_t i = 0; i < run->accepted.n && i < ACCEPTED_MAX; i++)
		add_cut(json_ensure_array(status, "acceptedStragglers"), run->accepted.items[i], ACCEPTED_NAME_MAX);
}

/* The last five runs; the one that just ended is added once. */
static void history_part(const struct status_input *in, struct json *status)
{
	const struct json *before = json_get(in->previous, "history");
	struct json *list = json_array();
	const char *closed = json_get_str(in->closed, "trigger");
	bool known = !closed;
	json_each(h, before)
		known = known || str_eq(json_get_str(h, "trigger"), closed);
	size_t drop = json_len(before) + !known > HISTORY_MAX ? json_len(before) + !known - HISTORY_MAX : 0;
	json_each(h, before) {
		if (drop) {
			drop--;
			continue;
		}
		json_add(list, json_copy(h));
	}
	if (!known)
		json_add(list, json_copy(in->closed));
	json_set(status, "history", list);
}

static void names_text(const struct strs *names, struct buf *out)
{
	for (size_t i = 0; i < names->n && i < 3; i++)
		buf_addf(out, "%s%s", i ? ", " : "", names->items[i]);
	if (names->n > 3)
		buf_addf(out, " and %zu more", names->n - 3);
}

static void waiting_message(const struct status_input *in, struct buf *out)
{
	const struct waits *w = &in->position->waits;
	if (in->world->run.back)
		buf_add_str(out, "going back (here \"old\" is what the run has made, \"new\" what the cluster had before): ");
	buf_addf(out, "waiting for %s", buf_str(&w->message));
	if (w->total)
		buf_addf(out, " (%zu/%zu)", w->done, w->total);
	if (w->names.n) {
		buf_add_str(out, ": ");
		names_text(&w->names, out);
	}
	for (size_t i = 0; i < in->world->n_nodes; i++)
		if (in->world->nodes[i].job_problem)
			buf_addf(out, "; node %s: %s", in->world->nodes[i].name, in->world->nodes[i].job_problem);
	if (in->apply_error)
		buf_addf(out, "; last error: %s", in->apply_error);
}

/* Said for as long as it is asked for: a person must know that it will not happen. */
static void refused_rollback(const struct status_input *in, struct json *status)
{
	if (in->request->rollback && in->world->run.dropping)
		add_condition(in, status, "RollbackRefused", true, "DropHasBegun",
			      "the old authority is being dropped and can't come back: the run goes on to its end. To replace the new one, "
			      "set a new spec.trigger afterwards");
}

int64_t status_deadline_ms(const struct world *w)
{
	return w->run.exists && w->request && w->request->deadline_ms ? w->run.started_ms + w->request->deadline_ms : 0;
}

bool status_deadline_passed(const struct world *w)
{
	int64_t deadline = status_deadline_ms(w);
	return deadline && w->now_ms >= deadline;
}

/* Said, and nothing else: a drop that a clock decides is no proof, and a way back that it decides is nobody's wish. */
static void passed_deadline(const struct status_input *in, struct json *status, const char *waiting)
{
	struct buf message cleanup(buf_release) = BUF_INIT;
	char when[32];
	if (!status_deadline_passed(in->world))
		return;
	time_format(status_deadline_ms(in->world), when);
	buf_addf(&message, "the run was to be complete by %s (spec.deadline). It goes on, nothing is dropped or taken back for it: %s", when,
		 waiting);
	add_condition(in, status, "DeadlineExceeded", true, "DeadlineExceeded", buf_str(&message));
}

/* The CRD refuses most of these while status shows the run; the copy on the run's Secret is what holds. */
static void ignored_changes(const struct status_input *in, struct json *status)
{
	const struct strs *fields = &in->request->ignored;
	struct buf message cleanup(buf_release) = BUF_INIT;
	if (!fields->n)
		return;
	for (size_t i = 0; i < fields->n; i++)
		buf_addf(&message, "%s%s", i ? ", " : "", fields->items[i]);
	buf_add_str(&message, " changed while the run is under way, and is ignored: the run goes on as it was begun. Put it back, or set a new "
			   "spec.trigger with it, for the run after this one");
	add_condition(in, status, "ChangeIgnored", true, "RunUnderWay", buf_str(&message));
}

/* What a person can do now, with the command. */
static void next_step(const struct status_input *in, struct json *status)
{
	const struct json *ref = json_get(in->admin_kubeconfig, "secretRef");
	const char *reason = in->position->waits.reason;
	struct buf text cleanup(buf_release) = BUF_INIT;
	bool with_it = authority_in(world_authorities(in->world), AUTHORITY_KUBERNETES);
	if ((with_it && !ref) || in->position->held || !str_eq(reason, "AwaitingApproval"))
		return;
	if (with_it)
		buf_addf(&text, "kubectl get secret -n %s %s -o jsonpath='{.data.value}' | base64 -d >new.kubeconfig && ",
			 json_str_or(json_get(ref, "namespace"), ""), json_str_or(json_get(ref, "name"), ""));
	buf_addf(&text, "kubectl %spatch certrot %s --type merge -p '{\"spec\":{\"approve\":{\"trigger\":\"%s\",\"phase\":\"DroppingOld\"}}}'",
		 with_it ? "--kubeconfig new.kubeconfig " : "", in->request->name, in->request->trigger);
	json_set_str(status, "nextStep", buf_str(&text));
}

/* A node that joins during the drop takes the earlier steps, and that is no way back to where all could be undone. */
static const char *phase_name(const struct status_input *in)
{
	enum phase now = in->position->phase;
	bool drops = in->world->run.dropping && now < PHASE_DROPPING_OLD;
	return in->world->run.back ? PHASE_NAME_ROLLING_BACK : phase_text(drops ? PHASE_DROPPING_OLD : now)->name;
}

static void position_part(const struct status_input *in, struct json *status, const char *message)
{
	const struct position *p = in->position;
	char summary[64];
	json_set_str(status, "phase", phase_name(in));
	snprintf(summary, sizeof summary, "%zu/%zu %s", p->step, walk_length(), walk_step(p->step) ? walk_step(p->step)->name : "done");
	json_set_str(status, "progressSummary", summary);
	phase_conditions(in, status, message);
	progress(in->world, p->phase, status);
}

/* The phase that was told, when it is a later one than where the walk stands now because something is not seen: a node that is down shows
 * nothing, what a node said is lost with its Pod, another leader has asked no server yet, a new pod has not been looked at. What is held does
 * not look either. PHASE_COUNT: none. */
static enum phase hidden_phase(const struct status_input *in)
{
	const struct position *p = in->position;
	if ((!p->held && !p->waits.unknown) || in->world->run.back || !is_of_run(in))
		return PHASE_COUNT;
	for (size_t later = p->phase + 1; later < PHASE_COUNT; later++)
		if (str_eq(json_get_str(in->previous, "phase"), phase_text((enum phase)later)->name))
			return (enum phase)later;
	return PHASE_COUNT;
}

static bool is_of_phase(const char *condition)
{
	for (size_t p = 0; p < PHASE_COUNT; p++)
		if (phase_text((enum phase)p)->condition && str_eq(phase_text((enum phase)p)->condition, condition))
			return true;
	return false;
}

static void kept_position(const struct status_input *in, enum phase told, struct json *status, const char *message)
{
	json_set_str(status, "phase", phase_text(told)->name);
	json_set_str(status, "progressSummary", json_str_or(json_get(in->previous, "progressSummary"), ""));
	json_each(before, json_get(in->previous, "conditions")) {
		if (!is_of_phase(json_get_str(before, "type")))
			continue;
		struct json *c = json_copy(before);
		json_set_int(c, "observedGeneration", in->request->generation);
		if (str_eq(json_get_str(c, "reason"), "InProgress"))
			set_cut(c, "message", message, TEXT_MAX);
		json_add(json_ensure_array(status, "conditions"), c);
	}
	progress(in->world, told, status);
}

static bool sums_up(const char *type)
{
	return str_eq(type, "Ready") || str_eq(type, "Reconciling") || str_eq(type, "Stalled");
}

/* While something is looked at again at the gate, the run goes no further without its approval as before. */
static bool awaits_still(const struct status_input *in, enum phase hidden)
{
	return hidden == PHASE_AWAITING_APPROVAL && !in->position->held && !in->world->run.approved &&
	       str_eq(json_get_str(condition_of(in->previous, "Ready"), "reason"), "AwaitingApproval");
}

/* What is asked of a person, as it was said. */
static void kept_summary(const struct status_input *in, struct json *status)
{
	json_set_str(status, "waitingFor", json_get_str(in->previous, "waitingFor"));
	json_set_str(status, "nextStep", json_get_str(in->previous, "nextStep"));
	json_each(before, json_get(in->previous, "conditions"))
		if (sums_up(json_get_str(before, "type")))
			add_condition(in, status, json_get_str(before, "type"), str_eq(json_get_str(before, "status"), "True"),
				      json_get_str(before, "reason"), json_get_str(before, "message"));
}

static void running_summary(const struct status_input *in, struct json *status, const char *message)
{
	const struct position *p = in->position;
	struct buf names cleanup(buf_release) = BUF_INIT;
	names_text(&p->waits.names, &names);
	set_cut(status, "waitingFor", p->waits.names.n ? buf_str(&names) : buf_str(&p->waits.message), 200);
	summary_conditions(in, status, false, p->waits.stalled, p->waits.reason ? p->waits.reason : "Working", message);
	next_step(in, status);
}

static void running_part(const struct status_input *in, struct json *status)
{
	const struct position *p = in->position;
	enum phase hidden = hidden_phase(in);
	struct buf message cleanup(buf_release) = BUF_INIT;
	waiting_message(in, &message);
	if (awaits_still(in, hidden))
		kept_summary(in, status);
	else
		running_summary(in, status, buf_str(&message));
	refused_rollback(in, status);
	passed_deadline(in, status, buf_str(&message));
	ignored_changes(in, status);
	if (hidden != PHASE_COUNT)
		kept_position(in, hidden, status, buf_str(&message));
	else
		position_part(in, status, buf_str(&message));
	status_blockers(in->world, hidden != PHASE_COUNT ? hidden : p->phase, status);
}

/* Where not everything was read, where the run stands is known from below only: what was said of it stays. */
static bool is_known(const struct status_input *in)
{
	return !is_of_run(in) || !in->world->unread;
}

/* The status before, and what is not known. */
static struct json *unknown_status(const struct status_input *in)
{
	struct json *status = json_copy(in->previous), *conditions = json_array();
	struct buf message cleanup(buf_release) = BUF_INIT, names cleanup(buf_release) = BUF_INIT;
	waiting_message(in, &message);
	names_text(&in->position->waits.names, &names);
	json_set_int(status, "observedGeneration", in->request->generation);
	set_cut(status, "waitingFor", names.len ? buf_str(&names) : buf_str(&in->position->waits.message), 200);
	json_each(before, json_get(in->previous, "conditions")) {
		struct json *c = json_copy(before);
		json_set_int(c, "observedGeneration", in->request->generation);
		if (sums_up(json_get_str(c, "type")))
			set_cut(c, "message", buf_str(&message), TEXT_MAX);
		json_add(conditions, c);
	}
	json_set(status, "conditions", conditions);
	return status;
}

/* --- Plans ---------------------------------------------------------------------------------------------------------------- */

/* No phase: nothing has begun. */
static void planning_part(const struct status_input *in, struct json *status)
{
	const struct position *p = in->position;
	struct buf message cleanup(buf_release) = BUF_INIT, names cleanup(buf_release) = BUF_INIT;
	buf_add_str(&message, "the plan is being made, which changes nothing: ");
	waiting_message(in, &message);
	names_text(&p->waits.names, &names);
	char *cut cleanup(str_freep) = str_ndup(p->waits.names.n ? buf_str(&names) : buf_str(&p->waits.message), 200);
	json_set_str(status, "waitingFor", cut);
	summary_conditions(in, status, false, p->waits.stalled, p->waits.reason ? p->waits.reason : "Planning", buf_str(&message));
	phase_conditions(in, status, buf_str(&message));
	status_blockers(in->world, PHASE_PREPARING, status);
}

static void blocked_message(const struct json *plan, struct buf *out)
{
	size_t told = 0;
	buf_addf(out, "the run would not go on: %lld blockers: ", (long long)json_get_int(plan, "blockersTotal", 0));
	json_each(b, json_get(plan, "blockers"))
		if (told++ < 3)
			buf_addf(out, "%s%s: %s", told > 1 ? "; " : "", json_str_or(json_get(b, "object"), ""),
				 json_str_or(json_get(b, "message"), ""));
	buf_addf(out, ". The plan is made anew every few minutes until nothing blocks");
}

static void planned_part(const struct status_input *in, struct json *status)
{
	struct buf message cleanup(buf_release) = BUF_INIT;
	bool blocked = json_get_int(in->plan, "blockersTotal", 0) > 0;
	if (blocked) {
		blocked_message(in->plan, &message);
		json_set_str(status, "waitingFor", json_get_str(json_first(json_get(in->plan, "blockers")), "object"));
	} else {
		json_set_str(status, "phase", PHASE_NAME_PLANNED);
		buf_addf(&message, "nothing was changed. With spec.mode Apply: %s", json_str_or(json_get(in->plan, "summary"), ""));
	}
	summary_conditions(in, status, !blocked, blocked, blocked ? "Blocked" : "Planned", buf_str(&message));
	phase_conditions(in, status, "");
	if (json_get(in->plan, "blockers"))
		json_set(status, "blockers", json_copy(json_get(in->plan, "blockers")));
	json_set_int(status, "blockersTotal", json_get_int(in->plan, "blockersTotal", 0));
	json_set(status, "plan", json_copy(in->plan));
}

static void resting_part(const struct status_input *in, struct json *status)
{
	const struct json *ref = json_get(in->admin_kubeconfig, "secretRef");
	struct buf message cleanup(buf_release) = BUF_INIT;
	if (in->standing == STANDING_DONE) {
		json_set_str(status, "phase", phase_text(PHASE_COMPLETED)->name);
		buf_addf(&message, "trigger \"%s\" is done: the cluster knows the new certificate authorities only", in->request->trigger);
		if (ref)
			buf_addf(&message, ". The administrator's kubeconfig is in Secret %s/%s", json_str_or(json_get(ref, "namespace"), ""),
				 json_str_or(json_get(ref, "name"), ""));
		summary_conditions(in, status, true, false, "Completed", buf_str(&message));
		phase_conditions(in, status, "");
		return;
	}
	if (in->standing == STANDING_ROLLED_BACK) {
		json_set_str(status, "phase", PHASE_NAME_ROLLED_BACK);
		buf_addf(&message, "the run \"%s\" was taken back: the cluster knows the authority that it had before, only. "
			 "A new spec.trigger asks for another run", in->request->trigger);
		summary_conditions(in, status, false, true, "RolledBack", buf_str(&message));
		phase_conditions(in, status, "");
		return;
	}
	bool invalid = in->standing == STANDING_INVALID;
	const char *then = in->request->plan_only ? "the plan is made" : "this one begins";
	if (invalid)
		buf_add_str(&message, in->detail);
	else
		buf_addf(&message, "waiting for the run of %s to end; then %s", in->detail, then);
	set_cut(status, "waitingFor", in->detail, TEXT_MAX);
	summary_conditions(in, status, false, invalid, invalid ? "Invalid" : "Queued", buf_str(&message));
	phase_conditions(in, status, buf_str(&message));
}

struct json *status_make(const struct status_input *in)
{
	if (in->standing == STANDING_RUNS && !is_known(in))
		return unknown_status(in);
	struct json *status = json_object();
	json_set_int(status, "observedGeneration", in->request->generation);
	if (in->standing == STANDING_RUNS)
		running_part(in, status);
	else if (in->standing == STANDING_PLANNING)
		planning_part(in, status);
	else if (in->standing == STANDING_PLANNED)
		planned_part(in, status);
	else
		resting_part(in, status);
	history_part(in, status);
	run_part(in, status);
	if (in->authorities)
		json_set(status, "authorities", json_copy(in->authorities));
	if (in->admin_kubeconfig)
		json_set(status, "adminKubeconfig", json_copy(in->admin_kubeconfig));
	return status;
}

bool status_differs(const struct json *previous, const struct json *next)
{
	return !json_equal(previous, next);
}

/* --- Events --------------------------------------------------------------------------------------------------------------------- */

static void event(struct status_event *ret, size_t max, size_t *n, bool warning, const char *reason, const char *note)
{
	if (*n >= max)
		return;
	struct status_event *e = &ret[(*n)++];
	e->warning = warning;
	str_copy(e->reason, sizeof e->reason, reason);
	str_copy(e->note, str_cut(note, sizeof e->note - 1) + 1, note);
}

static bool is_true(const struct json *status, const char *type)
{
	return str_eq(json_get_str(condition_of(status, type), "status"), "True");
}

static bool lists_blocker(const struct json *status, const struct json *blocker)
{
	json_each(b, json_get(status, "blockers"))
		if (str_eq(json_get_str(b, "code"), json_get_str(blocker, "code")) &&
		    str_eq(json_get_str(b, "object"), json_get_str(blocker, "object")))
			return true;
	return false;
}

/* One for each blocker that was not told yet. */
static void blocker_events(const struct json *previous, const struct json *next, struct status_event *ret, size_t max, size_t *n)
{
	const char *why = json_get_str(condition_of(previous, "Stalled"), "reason");
	bool told = str_eq(why, "Blocked"), down = str_eq(why, "NodeNotReady");
	json_each(b, json_get(next, "blockers")) {
		char note[sizeof ret->note];
		if (str_eq(json_get_str(b, "code"), "Straggler") || (told && lists_blocker(previous, b)))
			continue;
		if (down && str_eq(json_get_str(b, "code"), "NodeNotReady") && lists_blocker(previous, b))
			continue;
		snprintf(note, sizeof note, "%s: %s", json_str_or(json_get(b, "object"), ""), json_str_or(json_get(b, "message"), ""));
		event(ret, max, n, true, json_str_or(json_get(b, "code"), "Blocked"), note);
	}
}

static void proof_events(const struct json *previous, const struct json *next, struct status_event *ret, size_t max,
			 size_t *n)
{
	for (size_t p = 0; p < PHASE_COUNT; p++) {
		const struct phase_text *t = phase_text((enum phase)p);
		if (!t->condition || is_true(previous, t->condition) || !is_true(next, t->condition))
			continue;
		char note[sizeof ret->note];
		const struct json *c = condition_of(next, t->condition);
		if (!str_eq(json_get_str(c, "reason"), "Proven"))
			continue;
		snprintf(note, sizeof note, "%s is proven: %s", t->name, json_str_or(json_get(c, "message"), ""));
		event(ret, max, n, false, t->condition, note);
	}
}

/* Conditions that are there when something is to be known; told when they come. */
static void warning_events(const struct json *previous, const struct json *next, struct status_event *ret, size_t max, size_t *n)
{
	static const char *const TYPES[] = { "RollbackRefused", "DeadlineExceeded", "ChangeIgnored" };
	for (size_t i = 0; i < ARRAY_LEN(TYPES); i++) {
		const struct json *now = condition_of(next, TYPES[i]);
		if (now && !condition_of(previous, TYPES[i]))
			event(ret, max, n, true, TYPES[i], json_str_or(json_get(now, "message"), ""));
	}
}

static bool has_ended(const struct json *status, const char *trigger)
{
	json_each(h, json_get(status, "history"))
		if (str_eq(json_get_str(h, "trigger"), trigger))
			return true;
	return false;
}

/* The end of a run after which the next one has begun at once, so that no phase tells of it. */
static void end_events(const struct json *previous, const struct json *next, struct status_event *ret, size_t max, size_t *n)
{
	const char *phase = json_get_str(next, "phase"), *now = json_str(json_at(next, "run", "trigger", NULL));
	json_each(h, json_get(next, "history")) {
		const char *trigger = json_get_str(h, "trigger"), *ended = json_get_str(h, "result");
		char note[sizeof ret->note];
		if (!trigger || !ended || has_ended(previous, trigger) || (str_eq(phase, ended) && (!now || str_eq(now, trigger))))
			continue;
		snprintf(note, sizeof note, "the run \"%s\" has ended: %s. The next one begins", trigger, ended);
		event(ret, max, n, false, ended, note);
	}
}

size_t status_events(const struct json *previous, const struct json *next, struct status_event *ret, size_t max)
{
	size_t n = 0;
	end_events(previous, next, ret, max, &n);
	proof_events(previous, next, ret, max, &n);
	const char *before = json_get_str(previous, "phase"), *after = json_get_str(next, "phase");
	const struct json *ready = condition_of(next, "Ready");
	const char *message = json_str_or(json_get(ready, "message"), "");
	if (after && !str_eq(before, after))
		event(ret, max, &n, false, after, message);
	const struct json *stalled = condition_of(next, "Stalled"), *was = condition_of(previous, "Stalled");
	const char *why = json_get_str(stalled, "reason");
	if (str_eq(why, "Blocked"))
		blocker_events(previous, next, ret, max, &n);
	else if (stalled && !str_eq(why, json_get_str(was, "reason")))
		event(ret, max, &n, true, json_str_or(json_get(stalled, "reason"), "Stalled"), message);
	warning_events(previous, next, ret, max, &n);
	return n;
}
