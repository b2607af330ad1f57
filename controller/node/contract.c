#include "contract.h"

#include <ctype.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN_ID_MAX 63
#define NODE_NAME_MAX 253 /* a DNS subdomain */
#define WORD_MAX 63       /* a blocker's code, a process' name */
#define DEADLINE_MAX_MS ((int64_t)3600 * 1000)

static const char *const PROCESSES[PROCESS_COUNT] = {
	[PROCESS_KUBELET] = "kubelet",
	[PROCESS_APISERVER] = "kube-apiserver",
	[PROCESS_CONTROLLER_MANAGER] = "kube-controller-manager",
	[PROCESS_SCHEDULER] = "kube-scheduler",
	[PROCESS_ETCD] = "etcd",
};

const char *process_name(enum process p)
{
	return PROCESSES[p];
}

static char *dup_member(const struct json *j, const char *name)
{
	const char *s = json_get_str(j, name);
	return s ? str_dup(s) : NULL;
}

/* --- Desired --------------------------------------------------------------------------------------------------- */

void desired_release(struct desired *d)
{
	str_freep(&d->run);
	str_freep(&d->node);
	for (size_t a = 0; a < AUTHORITY_COUNT; a++) {
		str_freep(&d->of[a].old_pem);
		str_freep(&d->of[a].new_pem);
		str_freep(&d->of[a].bridge_pem);
	}
	str_freep(&d->probe_csr_pem);
	memset(d, 0, sizeof *d);
}

/* The run's id becomes a folder's name: a DNS label, so it can't walk anywhere. */
static bool run_id_ok(const char *run)
{
	size_t n = strlen(run);
	for (size_t i = 0; i < n; i++) {
		bool letter = islower((unsigned char)run[i]) || isdigit((unsigned char)run[i]);
		if (!letter && (run[i] != '-' || i == 0))
			return false;
	}
	return n > 0 && n <= RUN_ID_MAX;
}

static result level_from_json(const struct json *item, int levels[static FACET_COUNT], struct err *e)
{
	enum facet f = facet_by_name(json_name(item));
	if (f >= FACET_COUNT)
		return err_set(e, ERR_INPUT, "levels: unknown facet \"%s\": is this program as new as the controller?",
			       json_name(item));
	int64_t level = json_int(item, -1);
	if (level < 0 || level > facet_top(f))
		return err_set(e, ERR_INPUT, "levels.%s: must be 0 to %d", facet_name(f), facet_top(f));
	levels[f] = (int)level;
	return OK;
}

static bool has_pair(const struct desired *d, enum authority a)
{
	return d->run && d->of[a].wanted && d->of[a].old_pem && d->of[a].new_pem;
}

/* What is everybody's needs one whole authority. */
static bool may_have_level(const struct desired *d, enum facet f)
{
	if (facet_authority(f) != AUTHORITY_COUNT)
		return has_pair(d, facet_authority(f));
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		if (d->of[a].wanted && !has_pair(d, (enum authority)a))
			return false;
	return d->run != NULL;
}

static result desired_check(const struct desired *d, struct err *e)
{
	if (d->run && !run_id_ok(d->run))
		return err_set(e, ERR_INPUT, "run: must be a DNS label of at most %d characters", RUN_ID_MAX);
	if (!d->of[d->asked].wanted)
		return err_set(e, ERR_INPUT, "authority: \"%s\" is not among `authorities`", authority_name(d->asked));
	if (d->deadline_ms < 0 || d->deadline_ms > DEADLINE_MAX_MS)
		return err_set(e, ERR_INPUT, "deadlineMs: must be 0 to %lld", (long long)DEADLINE_MAX_MS);
	if (d->leaf_validity_ms < 0)
		return err_set(e, ERR_INPUT, "leafValidityMs: must not be negative");
	for (size_t f = 0; f < FACET_COUNT; f++)
		if (d->levels[f] != FACET_UNTOUCHED && !may_have_level(d, (enum facet)f))
			return err_set(e, ERR_INPUT, "levels.%s: needs `run`, and its authority's `old` and `new` too",
				       facet_name((enum facet)f));
	if (d->certify && !has_pair(d, d->asked))
		return err_set(e, ERR_INPUT, "certify: needs `run`, and its authority's `old` and `new` too");
	if (d->probe_csr_pem && (!d->certify || d->asked != AUTHORITY_KUBERNETES))
		return err_set(e, ERR_INPUT, "probeCSR: goes with `certify`, and with the authority Kubernetes only");
	return OK;
}

static result authority_from_json(const struct json *item, struct desired *d, struct err *e)
{
	enum authority a = authority_by_name(json_name(item));
	if (a == AUTHORITY_COUNT)
		return err_set(e, ERR_INPUT, "authorities: \"%.40s\" is not known: is this program as new as the controller?", json_name(item));
	if (d->of[a].wanted || !json_is_object(item))
		return err_set(e, ERR_INPUT, "authorities.%s: must be an object, and there once", authority_name(a));
	d->of[a] = (struct desired_authority){ true, dup_member(item, "old"), dup_member(item, "new"), dup_member(item, "bridge") };
	return OK;
}

/* By hand none may be named: then it is the cluster's own. */
static result authorities_from_json(const struct json *j, struct desired *d, struct err *e)
{
	const char *asked = json_str_or(json_get(j, "authority"), authority_name(AUTHORITY_KUBERNETES));
	json_each(item, json_get(j, "authorities"))
		TRY(authority_from_json(item, d, e));
	if (!json_len(json_get(j, "authorities")))
		d->of[AUTHORITY_KUBERNETES].wanted = true;
	d->asked = authority_by_name(asked);
	if (d->asked == AUTHORITY_COUNT)
		return err_set(e, ERR_INPUT, "authority: \"%.40s\" is not known here", asked);
	return OK;
}

result desired_from_json(const char *text, size_t len, struct desired *ret, struct err *e)
{
	cleanup(json_freep) struct json *j = NULL;
	TRY_CTX(json_parse(text, len, &j, e), e, "desired state");
	if (!json_is_object(j))
		return err_set(e, ERR_INPUT, "desired state: not a JSON object");
	if (json_get_int(j, "version", 0) != CONTRACT_VERSION)
		return err_set(e, ERR_INPUT, "desired state: version must be %d", CONTRACT_VERSION);
	cleanup(desired_release) struct desired d = { 0 };
	d.run = dup_member(j, "run");
	d.node = dup_member(j, "node");
	TRY_CTX(authorities_from_json(j, &d, e), e, "desired state");
	d.certify = json_get_bool(j, "certify", false);
	d.probe_csr_pem = dup_member(j, "probeCSR");
	d.leaf_validity_ms = json_get_int(j, "leafValidityMs", 0);
	d.deadline_ms = json_get_int(j, "deadlineMs", 0);
	d.pods = json_get_bool(j, "pods", false);
	d.gate = json_get_bool(j, "gate", false);
	d.forget = json_get_bool(j, "forget", false);
	d.bundle = json_get_bool(j, "bundle", false);
	d.back = json_get_bool(j, "back", false);
	for (size_t f = 0; f < FACET_COUNT; f++)
		d.levels[f] = FACET_UNTOUCHED;
	json_each(item, json_get(j, "levels"))
		TRY_CTX(level_from_json(item, d.levels, e), e, "desired state");
	TRY_CTX(desired_check(&d, e), e, "desired state");
	*ret = d;
	memset(&d, 0, sizeof d);
	return OK;
}

static void add_authority(struct json *j, enum authority a, const struct desired_authority *of)
{
	if (!of->wanted)
		return;
	struct json *item = json_ensure_object(json_ensure_object(j, "authorities"), authority_name(a));
	json_set_str(item, "old", of->old_pem);
	json_set_str(item, "new", of->new_pem);
	json_set_str(item, "bridge", of->bridge_pem);
}

struct json *desired_to_json(const struct desired *d)
{
	struct json *j = json_object();
	json_set_int(j, "version", CONTRACT_VERSION);
	json_set_str(j, "run", d->run);
	json_set_str(j, "node", d->node);
	json_set_str(j, "authority", authority_name(d->asked));
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		add_authority(j, (enum authority)a, &d->of[a]);
	if (d->certify)
		json_set_bool(j, "certify", true);
	json_set_str(j, "probeCSR", d->probe_csr_pem);
	struct json *levels = json_ensure_object(j, "levels");
	for (size_t f = 0; f < FACET_COUNT; f++)
		if (d->levels[f] != FACET_UNTOUCHED)
			json_set_int(levels, facet_name((enum facet)f), d->levels[f]);
	if (d->leaf_validity_ms)
		json_set_int(j, "leafValidityMs", d->leaf_validity_ms);
	if (d->deadline_ms)
		json_set_int(j, "deadlineMs", d->deadline_ms);
	if (d->pods)
		json_set_bool(j, "pods", true);
	if (d->gate)
		json_set_bool(j, "gate", true);
	if (d->forget)
		json_set_bool(j, "forget", true);
	if (d->bundle)
		json_set_bool(j, "bundle", true);
	if (d->back)
		json_set_bool(j, "back", true);
	return j;
}

/* --- Report: reading ---------------------------------------------------------------------------------------------- */

static void blockers_release(struct report *r)
{
	for (size_t i = 0; i < r->n_blockers; i++) {
		str_freep(&r->blockers[i].code);
		str_freep(&r->blockers[i].object);
		str_freep(&r->blockers[i].message);
	}
	free(r->blockers);
}

void report_release(struct report *r)
{
	str_freep(&r->node);
	str_freep(&r->run);
	strs_release(&r->restarted);
	strs_release(&r->changed);
	str_freep(&r->ca_pem);
	str_freep(&r->admin_subject);
	str_freep(&r->bridge_pem);
	str_freep(&r->probe_pem);
	strs_release(&r->pods_old);
	strs_release(&r->pods_stale);
	strs_release(&r->pods_mixed);
	blockers_release(r);
	str_freep(&r->error);
	memset(r, 0, sizeof *r);
}

void report_add_blocker(struct report *r, const char *code, const char *object, const char *format, ...)
{
	char message[ERR_MESSAGE_SIZE];
	va_list args;
	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	for (size_t i = 0; i < r->n_blockers; i++)
		if (str_eq(r->blockers[i].code, code) && str_eq(r->blockers[i].object, object) &&
		    str_eq(r->blockers[i].message, message))
			return;
	r->blockers = mem_realloc(r->blockers, r->n_blockers + 1, sizeof *r->blockers);
	r->blockers[r->n_blockers++] = (struct blocker){ str_dup(code), str_dup(object), str_dup(message) };
}

/* Lists of pods are one string with blanks between: a termination message is small. */
static void split(const char *text, struct strs *ret)
{
	while (text && *text) {
		size_t n = strcspn(text, " ");
		if (n) {
			cleanup(str_freep) char *word = str_ndup(text, n);
			strs_add(ret, word);
		}
		text += n;
		text += strspn(text, " ");
	}
}

static void strs_from_json(const struct json *array, struct strs *ret)
{
	json_each(item, array)
		if (json_str(item))
			strs_add(ret, json_str(item));
}

static void pods_from_json(const struct json *pods, struct report *r)
{
	int64_t total = json_get_int(pods, "total", 0);
	r->pods_total = total < 0 ? 0 : total > INT_MAX ? INT_MAX : (int)total;
	split(json_get_str(pods, "old"), &r->pods_old);
	split(json_get_str(pods, "stale"), &r->pods_stale);
	split(json_get_str(pods, "mixed"), &r->pods_mixed);
	r->pods_forget = json_get_bool(pods, "forget", false);
	r->pods_cut = json_get_bool(pods, "cut", false);
}

static void levels_from_json(const struct json *levels, struct report *r)
{
	for (size_t f = 0; f < FACET_COUNT; f++) {
		int64_t level = json_get_int(levels, facet_name((enum facet)f), FACET_UNKNOWN);
		bool known = level >= 0 && (level <= facet_top((enum facet)f) || level == FACET_ABSENT);
		r->levels[f] = known ? (int)level : FACET_UNKNOWN;
	}
}

static void blockers_from_json(const struct json *array, struct report *r)
{
	json_each(item, array)
		report_add_blocker(r, json_str_or(json_get(item, "code"), ""),
				   json_str_or(json_get(item, "object"), ""), "%s",
				   json_str_or(json_get(item, "message"), ""));
}

result report_from_json(const char *text, size_t len, struct report *ret, struct err *e)
{
	cleanup(json_freep) struct json *j = NULL;
	TRY_CTX(json_parse(text, len, &j, e), e, "node report");
	if (!json_is_object(j) || json_get_int(j, "version", 0) != CONTRACT_VERSION)
		return err_set(e, ERR_INPUT, "node report: not a report of version %d", CONTRACT_VERSION);
	if (!json_is_object(json_get(j, "levels")))
		return err_set(e, ERR_INPUT, "node report: no levels");
	cleanup(report_release) struct report r = { 0 };
	r.node = dup_member(j, "node");
	r.run = dup_member(j, "run");
	r.control_plane = json_get_bool(j, "controlPlane", false);
	r.at_ms = json_get_int(j, "at", 0);
	levels_from_json(json_get(j, "levels"), &r);
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		r.started_ms[p] = json_get_int(json_get(j, "started"), PROCESSES[p], 0);
	r.written_ms = json_get_int(j, "written", 0);
	strs_from_json(json_get(j, "restarted"), &r.restarted);
	strs_from_json(json_get(j, "changed"), &r.changed);
	r.asked = authority_by_name(json_str_or(json_get(j, "authority"), ""));
	if (r.asked == AUTHORITY_COUNT)
		return err_set(e, ERR_INPUT, "node report: its authority is not known");
	r.ca_pem = dup_member(j, "ca");
	r.admin_subject = dup_member(j, "adminSubject");
	r.bridge_pem = dup_member(j, "bridge");
	r.probe_pem = dup_member(j, "probe");
	pods_from_json(json_get(j, "pods"), &r);
	blockers_from_json(json_get(j, "blockers"), &r);
	r.error = dup_member(j, "error");
	*ret = r;
	memset(&r, 0, sizeof r);
	return OK;
}

/* --- Report: writing ----------------------------------------------------------------------------------------------- */

/* How much of each list goes in. Tried in order until the text fits; the last one always does, certificates aside. */
struct limits {
	size_t changed, pods, blockers, message;
	bool certificates;
};
static const struct limits LIMITS[] = {
	{ 30, 1000, 20, 500, true }, { 8, 1000, 8, 300, true }, { 0, 60, 8, 200, true },
	{ 0, 30, 5, 160, true },     { 0, 10, 3, 120, true },   { 0, 0, 1, 80, true },
	{ 0, 0, 1, 80, false },
};

/* At most so many bytes as they stand in the report, escapes included; between characters of UTF-8, never inside one. */
static struct json *cut_string(const char *text, size_t most)
{
	for (size_t n = str_cut(text, most);;) {
		cleanup(str_freep) char *part = str_ndup(text, n);
		cleanup(json_freep) struct json *j = json_string(part);
		cleanup(str_freep) char *printed = json_text(j);
		size_t len = strlen(printed) - strlen("\"\"");
		if (len <= most)
			return steal(&j);
		n = str_cut(text, n * most / len);
	}
}

static void set_cut(struct json *j, const char *name, const char *text, size_t most)
{
	if (text)
		json_set(j, name, cut_string(text, most));
}

static void add_strs(struct json *object, const char *name, const struct strs *l, size_t most, size_t each)
{
	if (!l->n || !most)
		return;
	struct json *array = json_ensure_array(object, name);
	for (size_t i = 0; i < l->n && i < most; i++)
		json_add(array, cut_string(l->items[i], each));
}

static void add_joined(struct json *object, const char *name, const struct strs *l, size_t most)
{
	cleanup(buf_release) struct buf text = BUF_INIT;
	for (size_t i = 0; i < l->n && i < most; i++)
		buf_addf(&text, "%s%s", i ? " " : "", l->items[i]);
	if (text.len)
		json_set_str(object, name, buf_str(&text));
}

static void add_pods(struct json *j, const struct report *r, const struct limits *most)
{
	if (!r->pods_total && !r->pods_forget && !r->pods_cut && !r->pods_old.n && !r->pods_stale.n && !r->pods_mixed.n)
		return;
	struct json *pods = json_ensure_object(j, "pods");
	json_set_int(pods, "total", r->pods_total);
	add_joined(pods, "old", &r->pods_old, most->pods);
	add_joined(pods, "stale", &r->pods_stale, most->pods);
	add_joined(pods, "mixed", &r->pods_mixed, most->pods);
	if (r->pods_forget)
		json_set_bool(pods, "forget", true);
	if (r->pods_cut || r->pods_old.n > most->pods || r->pods_stale.n > most->pods || r->pods_mixed.n > most->pods)
		json_set_bool(pods, "cut", true);
}

static void add_blocker(struct json *array, const struct blocker *b, size_t message)
{
	struct json *item = json_object();
	set_cut(item, "code", b->code, WORD_MAX);
	set_cut(item, "object", b->object, message);
	set_cut(item, "message", b->message, message);
	json_add(array, item);
}

static void add_blockers(struct json *j, const struct report *r, const struct limits *most)
{
	if (!r->n_blockers)
		return;
	struct json *array = json_ensure_array(j, "blockers");
	for (size_t i = 0; i < r->n_blockers && i < most->blockers; i++)
		add_blocker(array, &r->blockers[i], most->message);
	if (r->n_blockers <= most->blockers)
		return;
	char text[96];
	snprintf(text, sizeof text, "%zu more: run `certrotation-node inspect` on the node",
		 r->n_blockers - most->blockers);
	add_blocker(array, &(struct blocker){ (char[]){ "More" }, (char[]){ "" }, text }, sizeof text);
}

static void add_numbers(struct json *j, const struct report *r)
{
	struct json *levels = json_ensure_object(j, "levels");
	for (size_t f = 0; f < FACET_COUNT; f++)
		json_set_int(levels, facet_name((enum facet)f), r->levels[f]);
	struct json *started = json_ensure_object(j, "started");
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		if (r->started_ms[p])
			json_set_int(started, PROCESSES[p], r->started_ms[p]);
}

static struct json *report_json(const struct report *r, const struct limits *most)
{
	struct json *j = json_object();
	json_set_int(j, "version", CONTRACT_VERSION);
	set_cut(j, "node", r->node, NODE_NAME_MAX);
	set_cut(j, "run", r->run, RUN_ID_MAX);
	json_set_bool(j, "controlPlane", r->control_plane);
	json_set_int(j, "at", r->at_ms);
	add_numbers(j, r);
	if (r->written_ms)
		json_set_int(j, "written", r->written_ms);
	add_strs(j, "restarted", &r->restarted, PROCESS_COUNT, WORD_MAX);
	add_strs(j, "changed", &r->changed, most->changed, CONTRACT_REPORT_MAX);
	set_cut(j, "adminSubject", r->admin_subject, 300);
	json_set_str(j, "authority", authority_name(r->asked));
	if (most->certificates) {
		json_set_str(j, "ca", r->ca_pem);
		json_set_str(j, "bridge", r->bridge_pem);
		json_set_str(j, "probe", r->probe_pem);
	} else if (!r->error) {
		json_set_str(j, "error", "the certificates asked for do not fit into a report");
	}
	add_pods(j, r, most);
	add_blockers(j, r, most);
	set_cut(j, "error", r->error, most->message);
	return j;
}

void report_to_json(const struct report *r, struct buf *out)
{
	for (size_t i = 0; i < ARRAY_LEN(LIMITS); i++) {
		cleanup(json_freep) struct json *j = report_json(r, &LIMITS[i]);
		cleanup(str_freep) char *text = json_text(j);
		if (strlen(text) > CONTRACT_REPORT_MAX && i + 1 < ARRAY_LEN(LIMITS))
			continue;
		buf_add_str(out, text);
		return;
	}
}
