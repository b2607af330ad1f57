/* The node program, killed between any two of its changes to files and processes, and the node's power cut there: it comes to the same
 * end when it runs again, restarts nothing twice, leaves nothing half-written, and at that very moment whatever starts finds whole files.
 *
 * The program is controller/node as it is, main.c included; calls.c sees its system calls, machine.c stands for processes and network.
 * "After call k" is "before call k + 1" too: in between the program changes nothing, and the kubelet acts before the program runs again.
 *
 *   KILLS_VERBOSE=1   every case's call */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "disk.h"
#include "verdict.h"
#include "walk.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOBS_MAX 32

int node_main(int argc, char **argv); /* controller/node/main.c's */

/* --- Jobs --------------------------------------------------------------------------------------------------------------------------- */

struct job {
	size_t step;
	bool back;
	int levels[FACET_COUNT];
};

static void describe_job(const struct job *j, char ret[static 64])
{
	(void)snprintf(ret, 64, "%s%s", walk_step(j->step)->name, j->back ? " on the way back" : "");
}

static const struct world ROTATED = { .pending = AUTHORITY_BIT(AUTHORITY_KUBERNETES) };

/* The visit and all node steps of that authority, or those before the drop. */
static size_t jobs_of(bool control_plane, bool back, bool drop, struct job ret[static JOBS_MAX])
{
	size_t n = 0;
	for (size_t i = 0; i < walk_length(); i++) {
		const struct step *s = walk_step(i);
		if ((!s->n_facets && i) || !walk_applies(&ROTATED, s) || (!control_plane && s->scope == SCOPE_CONTROL_PLANES) || (!drop && s->phase >= PHASE_DROPPING_OLD))
			continue;
		ret[n] = (struct job){ .step = i, .back = back };
		walk_levels(&ROTATED, i, control_plane, ret[n].levels);
		n++;
	}
	return n;
}

static bool needs_key(const struct job *j)
{
	return !j->back && facet_reached(j->levels[FACET_SERVER_LEAF], LEAF_BRIDGE) && j->levels[FACET_CLEAN] != CLEAN_YES;
}

static char *log_path(const struct stage *s)
{
	return str_printf("%s/log", s->tree.root);
}

static void in_child(const struct stage *s, const struct job *j, long kill_after)
{
	char desired[CALL_PATH_SIZE], *log = log_path(s), *report = str_printf("%s/report.json", s->tree.root);
	char *argv[] = { (char *)"certrotation-node", (char *)"converge", (char *)"--root", s->root, (char *)"--desired", desired,
			 (char *)"--report", report, NULL };
	stage_desired(s, j->levels, j->back, desired);
	int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(99);
	str_copy(calls->authority_key, sizeof calls->authority_key, needs_key(j) ? s->new.key_path : "");
	machine_signer(j->back ? s->old.ca : s->new.ca, j->back ? s->old.key : s->new.key);
	calls_begin(kill_after);
	_exit(node_main(ARRAY_LEN(argv) - 1, argv));
}

/* What waitpid says. The kubelet goes on. */
static int run(const struct stage *s, const struct job *j, long kill_after)
{
	int status = 0;
	char *report cleanup(str_freep) = str_printf("%s/report.json", s->tree.root);
	(void)unlink(report);
	(void)fflush(NULL);
	pid_t pid = fork();
	if (pid == 0)
		in_child(s, j, kill_after);
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	machine_look();
	return status;
}

/* To its end: nothing is wrong, and all that was asked for is reported. */
static void run_whole(const struct stage *s, const struct job *j, const char *when)
{
	char name[64];
	struct report r cleanup(report_release) = { 0 };
	struct err e = { 0 };
	int status = run(s, j, NEVER);
	char *text cleanup(str_freep) = tree_read(&s->tree, "/report.json"), *log cleanup(str_freep) = tree_read(&s->tree, "/log");
	describe_job(j, name);
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !text || !report_from_json(text, strlen(text), &r, &e).ok)
		fail_msg("%s, %s: status %d, report %s, log %s", name, when, status, text ? text : "none", log ? log : "none");
	for (size_t f = 0; f < FACET_COUNT; f++)
		if (j->levels[f] != FACET_UNTOUCHED && !facet_reached(r.levels[f], j->levels[f]))
			fail_msg("%s, %s: %s is at %d: %s", name, when, facet_name((enum facet)f), r.levels[f], text);
}

/* --- States --------------------------------------------------------------------------------------------------------------------------- */

struct state {
	struct disk *disk;
	struct machine machine;
};

static struct state state_now(const struct stage *s)
{
	return (struct state){ disk_load(s->root), *machine };
}

static void state_release(struct state *st)
{
	disk_freep(&st->disk);
}

static void restore(const struct stage *s, const struct state *st)
{
	stage_clear(s);
	disk_store(st->disk, 0, false, s->root);
	*machine = st->machine;
}

static void assert_same(const struct stage *s, const char *expected, const char *name, const char *when)
{
	char *is cleanup(str_freep) = verdict_describe(s);
	if (str_eq(is, expected))
		return;
	char *difference cleanup(str_freep) = verdict_difference(is, expected);
	fail_msg("%s, %s: the end is another:%s", name, when, difference);
}

/* The lines that do not begin so. Caller frees. */
static char *without(const char *text, const char *beginning)
{
	struct buf out = BUF_INIT;
	for (const char *p = text; *p; p += strcspn(p, "\n") + 1)
		if (!str_starts(p, beginning))
			buf_add(&out, p, strcspn(p, "\n") + 1);
	return buf_take(&out);
}

/* Without the note on which client certificate the running API server has taken up: one that has started since needs none. */
static void assert_same_but_note(const struct stage *s, const char *expected, const char *name, const char *when)
{
	char *path cleanup(str_freep) = str_printf("%s/var/lib/certrotation/absorbed", s->root);
	char *rest cleanup(str_freep) = without(expected, "/var/lib/certrotation/absorbed");
	(void)unlink(path);
	assert_same(s, rest, name, when);
}

static void assert_whole(const struct stage *s, const struct job *j, const char *name, const char *when)
{
	char *what cleanup(str_freep) = NULL;
	bool gap = str_eq(walk_step(j->step)->name, "signer");
	if (!verdict_whole(s, gap, &what))
		fail_msg("%s, %s: %s", name, when, what);
}

static void assert_starts(const struct machine *expected, const char *name, const char *when)
{
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		if (machine->processes[p].starts != expected->processes[p].starts)
			fail_msg("%s, %s: %s has started %d times instead of %d", name, when, process_name((enum process)p),
				 machine->processes[p].starts, expected->processes[p].starts);
}

/* --- One job, undisturbed ---------------------------------------------------------------------------------------------------------------- */

struct calm {
	struct state before;
	struct machine machine; /* afterwards */
	struct calls *calls;
	char *end;
	char name[64];
};

static void calm_release(struct calm *c)
{
	state_release(&c->before);
	free(c->calls);
	str_freep(&c->end);
}

static struct calm calm_run(const struct stage *s, const struct job *j)
{
	struct calm c = { .before = state_now(s) };
	describe_job(j, c.name);
	run_whole(s, j, "undisturbed");
	c.machine = *machine;
	c.calls = mem_alloc(sizeof *c.calls);
	memcpy(c.calls, calls, sizeof *c.calls);
	c.end = verdict_describe(s);
	assert_whole(s, j, c.name, "undisturbed");
	run_whole(s, j, "again"); /* changes nothing */
	assert_same(s, c.end, c.name, "again");
	assert_starts(&c.machine, c.name, "again");
	return c;
}

static char *moment(const struct calm *c, size_t k)
{
	const struct call *last = k ? &c->calls->list[k - 1] : NULL;
	return str_printf("after call %zu of %zu%s%s%s%s", k, c->calls->n, last ? " (" : "", last ? call_name(last->kind) : "",
			  last ? " " : "", last ? last->path : "");
}

static void say(const struct calm *c, const char *when)
{
	if (getenv("KILLS_VERBOSE"))
		print_message("%s, %s\n", c->name, when);
}

/* --- Kills -------------------------------------------------------------------------------------------------------------------------------- */

static void kill_at(const struct stage *s, const struct job *j, const struct calm *c, size_t k, const char *when)
{
	say(c, when);
	restore(s, &c->before);
	int status = run(s, j, (long)k);
	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
		fail_msg("%s, %s: it was not killed: status %d", c->name, when, status);
	assert_whole(s, j, c->name, when);
}

static size_t kill_everywhere(const struct stage *s, const struct job *j, const struct calm *c)
{
	size_t cases = 0;
	for (size_t k = 0; k <= c->calls->n; k++) {
		char *when cleanup(str_freep) = moment(c, k);
		if (k && c->calls->list[k - 1].kind == CALL_SYNC)
			continue; /* files and processes are as they were before it */
		cases++;
		kill_at(s, j, c, k, when);
		run_whole(s, j, when);
		assert_same(s, c->end, c->name, when);
		assert_starts(&c->machine, c->name, when);
	}
	return cases;
}

/* --- Power cuts ----------------------------------------------------------------------------------------------------------------------------- */

struct cuts {
	struct strs seen; /* digests of what was left already */
	size_t n;
};

static void cut(const struct stage *s, const struct job *j, const struct calm *c, const struct disk *d, unsigned kept, bool kept_content,
		struct cuts *cuts, const char *when)
{
	char digest[65];
	disk_digest(d, kept, kept_content, digest);
	if (strs_has(&cuts->seen, digest))
		return;
	strs_add(&cuts->seen, digest);
	cuts->n++;
	stage_clear(s);
	disk_store(d, kept, kept_content, s->root);
	char *state cleanup(str_freep) = str_printf("power cut %s, of the unsafe names those in %x came to be, unsafe content is %s", when, kept,
						    kept_content ? "there" : "lost");
	say(c, state);
	assert_whole(s, j, c->name, state);
	machine_boot();
	run_whole(s, j, state);
	assert_same_but_note(s, c->end, c->name, state);
}

/* What is reported as done stays done. (The visit makes a lock, which nobody misses.) */
static void assert_safe(const struct job *j, const struct calm *c, const struct disk *d)
{
	char all[65], least[65];
	disk_digest(d, ~0U, true, all);
	disk_digest(d, 0, false, least);
	if (walk_step(j->step)->n_facets && !str_eq(all, least))
		fail_msg("%s: a power cut after its end takes back what it has reported", c->name);
}

static size_t cut_everywhere(const struct stage *s, const struct job *j, const struct calm *c)
{
	struct cuts cuts = { 0 };
	struct state before cleanup(state_release) = { 0 };
	restore(s, &c->before);
	before = state_now(s);
	for (size_t k = 0; k <= c->calls->n; k++) {
		char *when cleanup(str_freep) = moment(c, k);
		if (k)
			disk_do(before.disk, c->calls, &c->calls->list[k - 1]);
		size_t unsafe = disk_unsafe_names(before.disk);
		assert_true(unsafe < 12);
		for (unsigned kept = 0; kept < 1U << unsafe; kept++) {
			cut(s, j, c, before.disk, kept, true, &cuts, when);
			if (disk_unsafe_content(before.disk))
				cut(s, j, c, before.disk, kept, false, &cuts, when);
		}
	}
	assert_safe(j, c, before.disk);
	strs_release(&cuts.seen);
	return cuts.n;
}

/* --- All of a walk ---------------------------------------------------------------------------------------------------------------------------- */

typedef size_t (*disturb_fn)(const struct stage *s, const struct job *j, const struct calm *c);

static struct stage begin_stage(bool control_plane)
{
	struct stage s = stage_new(control_plane);
	verdict_forget();
	if (!calls) {
		calls_share(s.root);
		machine_share();
	}
	str_copy(calls->root, sizeof calls->root, s.root);
	*machine = (struct machine){ .last_pid = 1000 };
	machine_boot();
	return s;
}

static size_t walk(const struct stage *s, const struct job *jobs, size_t n, disturb_fn disturb)
{
	size_t cases = 0;
	for (size_t i = 0; i < n; i++) {
		struct calm c cleanup(calm_release) = calm_run(s, &jobs[i]);
		struct state after cleanup(state_release) = state_now(s);
		if (!disturb)
			continue;
		size_t here = disturb(s, &jobs[i], &c);
		print_message("  %-36s %4zu calls %5zu cases\n", c.name, c.calls->n, here);
		cases += here;
		restore(s, &after);
	}
	return cases;
}

static void there(bool control_plane, disturb_fn disturb, const char *what)
{
	struct stage s cleanup(stage_release) = begin_stage(control_plane);
	struct job jobs[JOBS_MAX];
	size_t n = jobs_of(control_plane, false, true, jobs), cases = walk(&s, jobs, n, disturb);
	print_message("%s, %s: %zu cases\n", what, control_plane ? "control plane" : "worker", cases);
	assert_true(cases > n);
}

static void back(bool control_plane, disturb_fn disturb, const char *what)
{
	struct stage s cleanup(stage_release) = begin_stage(control_plane);
	struct job jobs[JOBS_MAX];
	(void)walk(&s, jobs, jobs_of(control_plane, false, false, jobs), NULL);
	size_t n = jobs_of(control_plane, true, true, jobs), cases = walk(&s, jobs, n, disturb);
	print_message("%s, on the way back, %s: %zu cases\n", what, control_plane ? "control plane" : "worker", cases);
	assert_true(cases > n);
}

/* --- Killed, and then somebody wants the old authority back ---------------------------------------------------------------------------------- */

#define STRIDE 7 /* of this one a sample: each case is a whole walk */

static size_t kill_then_back(const struct stage *s, const struct job *j, const struct calm *c, const char *start)
{
	struct job jobs[JOBS_MAX];
	size_t cases = 0, n = jobs_of(s->control_plane, true, true, jobs);
	for (size_t k = 0; k <= c->calls->n; k += STRIDE) {
		char *moment_of cleanup(str_freep) = moment(c, k), *when cleanup(str_freep) = str_printf("%s, then back", moment_of);
		kill_at(s, j, c, k, when);
		for (size_t i = 0; i < n; i++)
			run_whole(s, &jobs[i], when);
		assert_same_but_note(s, start, c->name, when);
		cases++;
	}
	return cases;
}

static void killed_then_back(bool control_plane)
{
	struct stage s cleanup(stage_release) = begin_stage(control_plane);
	struct job jobs[JOBS_MAX];
	size_t cases = 0, n = jobs_of(control_plane, false, false, jobs);
	run_whole(&s, &jobs[0], "first");
	char *visited cleanup(str_freep) = verdict_describe(&s), *start cleanup(str_freep) = without(visited, "/var/lib/certrotation/" RUN);
	for (size_t i = 1; i < n; i++) {
		struct calm c cleanup(calm_release) = calm_run(&s, &jobs[i]);
		struct state after cleanup(state_release) = state_now(&s);
		cases += kill_then_back(&s, &jobs[i], &c, start);
		restore(&s, &after);
	}
	print_message("killed, then back, %s: %zu cases\n", control_plane ? "control plane" : "worker", cases);
	assert_true(cases > n);
}

static void test_killed_then_back_on_a_control_plane(void **state)
{
	(void)state;
	killed_then_back(true);
}

static void test_killed_then_back_on_a_worker(void **state)
{
	(void)state;
	killed_then_back(false);
}

static void test_killed_on_a_control_plane(void **state)
{
	(void)state;
	there(true, kill_everywhere, "killed");
}

static void test_killed_on_a_worker(void **state)
{
	(void)state;
	there(false, kill_everywhere, "killed");
}

static void test_killed_on_a_control_plane_on_the_way_back(void **state)
{
	(void)state;
	back(true, kill_everywhere, "killed");
}

static void test_killed_on_a_worker_on_the_way_back(void **state)
{
	(void)state;
	back(false, kill_everywhere, "killed");
}

static void test_power_cut_of_a_control_plane(void **state)
{
	(void)state;
	there(true, cut_everywhere, "power cut");
}

static void test_power_cut_of_a_worker(void **state)
{
	(void)state;
	there(false, cut_everywhere, "power cut");
}

static void test_power_cut_of_a_control_plane_on_the_way_back(void **state)
{
	(void)state;
	back(true, cut_everywhere, "power cut");
}

static void test_power_cut_of_a_worker_on_the_way_back(void **state)
{
	(void)state;
	back(false, cut_everywhere, "power cut");
}

static int forget(void **state)
{
	(void)state;
	verdict_forget();
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_on_a_worker),
		cmocka_unit_test(test_killed_on_a_worker_on_the_way_back),
		cmocka_unit_test(test_killed_on_a_control_plane),
		cmocka_unit_test(test_killed_on_a_control_plane_on_the_way_back),
		cmocka_unit_test(test_killed_then_back_on_a_worker),
		cmocka_unit_test(test_killed_then_back_on_a_control_plane),
		cmocka_unit_test(test_power_cut_of_a_worker),
		cmocka_unit_test(test_power_cut_of_a_worker_on_the_way_back),
		cmocka_unit_test(test_power_cut_of_a_control_plane),
		cmocka_unit_test(test_power_cut_of_a_control_plane_on_the_way_back),
	};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, forget);
}
