/* LINK: rotation */
/* status_make with a previous status that somebody made up: the same world gives the same status, a whole one, in its limits. */
#include "fuzz.h"

#include "request.h"
#include "status.h"

#include <string.h>

#define NOW_MS ((int64_t)1767225600000)
#define EVENTS_MAX 8

struct texts {
	struct json *previous, *authorities, *closed;
	struct request request;
};

static void texts_release(struct texts *t)
{
	json_freep(&t->previous);
	json_freep(&t->authorities);
	json_freep(&t->closed);
	request_release(&t->request);
}

static struct json *part_as_json(struct fuzz_input *in)
{
	size_t len = 0;
	char *text cleanup(str_freep) = fuzz_part(in, &len);
	struct json *j = NULL;
	struct err e = { 0 };
	return json_parse(text, len, &j, &e).ok ? j : NULL;
}

static void check_conditions(const struct json *status, int64_t generation)
{
	size_t ready = 0;
	json_each(c, json_get(status, "conditions")) {
		MUST(json_get_int(c, "observedGeneration", -1) == generation);
		ready += str_eq(json_get_str(c, "type"), "Ready");
	}
	MUST(ready == 1);
}

static void check_events(const struct json *previous, const struct json *next)
{
	struct status_event events[EVENTS_MAX];
	memset(events, 'x', sizeof events);
	for (size_t max = 0; max <= EVENTS_MAX; max++) {
		size_t n = status_events(previous, next, events, max);
		MUST(n <= max);
		for (size_t i = 0; i < n; i++)
			MUST(memchr(events[i].reason, '\0', sizeof events[i].reason) && memchr(events[i].note, '\0', sizeof events[i].note));
	}
	MUST(status_events(next, next, events, EVENTS_MAX) == 0);
}

static void check_status(struct status_input in)
{
	struct json *first cleanup(json_freep) = status_make(&in), *second cleanup(json_freep) = status_make(&in), *third cleanup(json_freep) = NULL;
	MUST(!status_differs(first, second));
	fuzz_check_json(first);
	fuzz_check_status(first);
	check_conditions(first, in.request->generation);
	MUST(json_len(json_get(first, "history")) <= 5);
	check_events(in.previous, first);
	/* written, and read by the next pass: nothing to write again */
	in.previous = first;
	third = status_make(&in);
	MUST(!status_differs(first, third));
}

static void run_with(struct texts *t, const char *detail, const char *error)
{
	struct world w = { .now_ms = NOW_MS, .request = &t->request, .nodes_known = true };
	struct position p = { 0 };
	struct node_state *n = world_add_node(&w);
	n->name = str_dup("node");
	n->job_problem = str_dup(detail);
	node_add_blocker(n, detail, detail, detail);
	w.run.exists = true;
	w.run.id = str_dup("r");
	w.run.trigger = str_dup(t->request.trigger);
	w.run.started_ms = NOW_MS;
	walk_locate(&w, &p);
	const struct status_input in = { .world = &w, .position = &p, .request = &t->request, .standing = STANDING_RUNS,
					 .apply_error = error, .previous = t->previous, .authorities = t->authorities, .closed = t->closed };
	check_status(in);
	position_release(&p);
	world_release(&w);
}

static void rest_with(struct texts *t, enum standing standing, const char *detail)
{
	struct world w = { .now_ms = NOW_MS, .request = &t->request };
	const struct status_input in = { .world = &w, .request = &t->request, .standing = standing, .detail = detail,
					 .previous = t->previous, .authorities = t->authorities, .closed = t->closed };
	check_status(in);
	world_release(&w);
}

/* Input, in parts: the previous status, the authorities, the run that ended, a trigger, a detail. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	struct texts t cleanup(texts_release) = { 0 };
	size_t len = 0;
	t.previous = part_as_json(&in);
	t.authorities = part_as_json(&in);
	t.closed = part_as_json(&in);
	t.request.trigger = fuzz_part(&in, &len);
	t.request.trigger[strcspn(t.request.trigger, "\n")] = '\0';
	t.request.trigger[str_cut(t.request.trigger, 63)] = '\0'; /* as request_parse lets through */
	t.request.generation = (int64_t)(size % 7);
	char *detail cleanup(str_freep) = fuzz_part(&in, &len);
	run_with(&t, detail, NULL);
	run_with(&t, detail, detail);
	rest_with(&t, STANDING_DONE, NULL);
	rest_with(&t, STANDING_QUEUED, detail);
	rest_with(&t, STANDING_INVALID, detail);
	return 0;
}
