/* LINK: node rotation */
#define _DEFAULT_SOURCE /* usleep */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

/* --- Cgroups ------------------------------------------------------------------------------------------------------------ */

#define UID "1a2b3c4d-0001-4002-8003-a0b0c0d0e0f0"
#define UID_ "1a2b3c4d_0001_4002_8003_a0b0c0d0e0f0"
#define STATIC_UID "0123456789abcdef0123456789abcdef"
#define ID "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999"

static void test_cgroups_of_containers(void **state)
{
	(void)state;
	static const struct { const char *line, *uid; } cases[] = {
		/* v2, systemd: containerd, CRI-O, cri-dockerd; the three classes of quality */
		{ "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_ ".slice/cri-containerd-" ID ".scope", UID },
		{ "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" UID_ ".slice/crio-" ID ".scope\n", UID },
		{ "0::/kubepods.slice/kubepods-pod" UID_ ".slice/docker-" ID ".scope\n", UID },
		/* below it, what an init system inside makes */
		{ "0::/kubepods.slice/kubepods-pod" UID_ ".slice/cri-containerd-" ID ".scope/init.scope\n", UID },
		{ "0::/kubepods.slice/kubepods-pod" UID_ ".slice/crio-" ID ".scope/container\n", UID },
		/* v2, cgroupfs */
		{ "0::/kubepods/burstable/pod" UID "/" ID, UID },
		{ "0::/kubepods/pod" UID "/" ID "\n", UID },
		{ "0::/kubepods/besteffort/pod" UID "/crio-" ID "\n", UID },
		/* v1 */
		{ "12:memory:/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" UID_ ".slice/cri-containerd-" ID ".scope\n", UID },
		{ "4:cpu,cpuacct:/kubepods/burstable/pod" UID "/" ID "\n1:name=systemd:/x\n", UID },
		{ "1:name=systemd:/kubepods/pod" UID "/" ID "\n", UID },
		/* a runtime that is told of systemd's slices and makes plain folders of them: slice:prefix:id */
		{ "11:devices:/system.slice/containerd.service/kubepods-burstable-pod" UID_ ".slice:cri-containerd:" ID "\n", UID },
		/* static Pods */
		{ "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" STATIC_UID ".slice/cri-containerd-" ID ".scope", STATIC_UID },
		{ "0::/kubepods/burstable/pod" STATIC_UID "/" ID "\n", STATIC_UID },
		/* a node in a container: under a cgroupRoot, seen from outside or from another namespace */
		{ "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" UID_
		  ".slice/cri-containerd-" ID ".scope\n", UID },
		{ "0::/docker/" ID "/kubelet/kubepods/burstable/pod" UID "/" ID "\n", UID },
		{ "0::/../../kubepods/burstable/pod" UID "/" ID "\n", UID },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char uid[POD_UID_SIZE], id[CONTAINER_ID_SIZE];
		if (!process_parse_cgroup(cases[i].line, uid, id))
			fail_msg("not a container: %s", cases[i].line);
		assert_string_equal(uid, cases[i].uid);
		assert_string_equal(id, ID);
	}
}

static void test_cgroups_of_none(void **state)
{
	(void)state;
	static const char *const lines[] = {
		"", "\n", "0::/", "0::", "0::/\n", "0::/init.scope\n", "0::/system.slice/kubelet.service\n", "0::/system.slice/podman.service\n",
		"0::/user.slice/user-0.slice/session-1.scope\n", "0::/docker/" ID "\n", "0::/machine.slice/libpod-" ID ".scope\n",
		"0::/machine.slice/machine-libpod_pod_" ID ".slice/libpod-" ID ".scope/container\n",
		"0::/kubepods.slice\n", "0::/kubepods.slice/kubepods-burstable.slice\n", "0::/kubepods/burstable\n",
		"0::/kubepods.slice/kubepods-pod" UID_ ".slice\n", /* the Pod, and no container of it */
		"0::/kubepods/pod" UID "\n", "0::/kubepods/pod" UID "/\n", "0::/kubepods/pod" UID "/tooshort\n",
		"0::/kubepods/pod/" ID "\n", "0::/kubepods/podium/" ID "\n", "0::/system.slice/containerd.service\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		char uid[POD_UID_SIZE], id[CONTAINER_ID_SIZE];
		if (process_parse_cgroup(lines[i], uid, id))
			fail_msg("a container: %s: %s %s", lines[i], uid, id);
	}
}

/* Names of any length stay in their place. */
static void test_cgroups_of_any_length(void **state)
{
	(void)state;
	struct { char uid[POD_UID_SIZE], guard[8]; char id[CONTAINER_ID_SIZE], end[8]; } got;
	for (int n = 1; n < 300; n++) {
		struct buf line cleanup(buf_release) = BUF_INIT;
		buf_add_str(&line, "0::/kubepods/pod");
		for (int i = 0; i < n; i++)
			buf_add_char(&line, 'a');
		buf_add_str(&line, "/" ID);
		memset(&got, 'x', sizeof(got));
		assert_true(process_parse_cgroup(buf_str(&line), got.uid, got.id));
		assert_int_equal(strlen(got.uid), n < POD_UID_SIZE ? n : POD_UID_SIZE - 1);
		assert_string_equal(got.id, ID);
		assert_memory_equal(got.guard, "xxxxxxxx", 8);
		assert_memory_equal(got.end, "xxxxxxxx", 8);
	}
}

/* --- Processes of our own -------------------------------------------------------------------------------------------------- */

/* This program under another name, waiting to be ended. */
static pid_t spawn(const char *const *args)
{
	pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execv("/proc/self/exe", (char *const *)(uintptr_t)args);
		_exit(127);
	}
	assert_true(child > 0);
	return child;
}

static void reap(pid_t child)
{
	int status = 0;
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
}

/* The child has another name only once it has called execv. */
static struct process_seen await_process(const char *name)
{
	struct process_seen p = { 0 };
	struct err e = { 0 };
	bool found = false;
	for (int64_t until = clock_monotonic_ms() + 20000; !found && clock_monotonic_ms() < until;)
		assert_ok(process_find(name, false, &found, &p, &e), e);
	assert_true(found);
	return p;
}

/* Another for each test: one that fails leaves its child behind. */
static char unique_name[64];

static int new_name(void **state)
{
	static int n;
	(void)state;
	(void)snprintf(unique_name, sizeof(unique_name), "certrotation-child-%d-%d", (int)getpid(), ++n);
	return 0;
}

static void test_found_by_its_name(void **state)
{
	(void)state;
	char *path cleanup(str_freep) = str_printf("/usr/bin/%s", unique_name);
	const char *const args[] = { path, "--alpha=1", "--beta", "two", "--alpha-more=3", "", "--last", NULL };
	int64_t before = clock_now_ms();
	pid_t child = spawn(args);
	struct process_seen p cleanup(process_release) = await_process(unique_name);
	assert_int_equal(p.pid, child);
	assert_int_equal(p.args.n, 7);
	assert_string_equal(p.args.items[0], path);
	assert_string_equal(p.args.items[5], "");
	assert_string_equal(p.pod_uid, "");
	assert_string_equal(p.container_id, "");
	assert_string_equal(process_flag(&p, "alpha"), "1");
	assert_string_equal(process_flag(&p, "beta"), "two");
	assert_string_equal(process_flag(&p, "alpha-more"), "3");
	assert_null(process_flag(&p, "alph"));
	assert_null(process_flag(&p, "last"));
	/* rounded down to a tick, and the boot's moment is read again each time */
	assert_in_range(p.started_ms, before - 2 * PROCESS_TICK_MS, clock_now_ms() + PROCESS_TICK_MS);
	reap(child);
}

static void test_not_found(void **state)
{
	(void)state;
	const char *const args[] = { unique_name, NULL };
	pid_t child = spawn(args);
	struct process_seen p cleanup(process_release) = await_process(unique_name), none = { 0 };
	struct err e = { 0 };
	bool found = true;
	assert_ok(process_find(unique_name, true, &found, &none, &e), e); /* it is in no Pod */
	assert_false(found);
	found = true;
	assert_ok(process_find(unique_name + 1, false, &found, &none, &e), e); /* the end of its name is not its name */
	assert_false(found);
	assert_int_equal(none.pid, 0);
	reap(child);
	found = true;
	assert_ok(process_find(unique_name, false, &found, &none, &e), e);
	assert_false(found);
}

/* On any doubt a process is not younger. */
static void test_younger(void **state)
{
	(void)state;
	const char *const args[] = { unique_name, NULL };
	int64_t before = clock_now_ms();
	usleep(4 * PROCESS_TICK_MS * 1000);
	pid_t child = spawn(args);
	struct process_seen p cleanup(process_release) = await_process(unique_name), none = { 0 };
	usleep(2 * PROCESS_TICK_MS * 1000);
	assert_true(process_younger(&p, before));
	assert_false(process_younger(&p, clock_now_ms()));
	assert_false(process_younger(&p, p.started_ms));
	assert_false(process_younger(&p, p.started_ms - PROCESS_TICK_MS));
	assert_true(process_younger(&p, p.started_ms - PROCESS_TICK_MS - 1));
	none.started_ms = INT64_MAX;
	assert_false(process_younger(&none, 0)); /* what does not run has read nothing */
	reap(child);
}

static void test_alive_and_ended(void **state)
{
	(void)state;
	const char *const args[] = { unique_name, NULL };
	int status = 0;
	struct err e = { 0 };
	pid_t child = spawn(args);
	struct process_seen p cleanup(process_release) = await_process(unique_name);
	assert_true(process_alive(&p));
	assert_ok(process_terminate(&p, &e), e);
	siginfo_t info;
	assert_int_equal(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT), 0);
	assert_int_equal(info.si_status, SIGTERM);
	assert_false(process_alive(&p)); /* a zombie does nothing any more */
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_false(process_alive(&p));
	assert_ok(process_terminate(&p, &e), e); /* not there any more */
}

/* The same pid, another start: another process. It is left alone. */
static void test_another_with_the_same_pid(void **state)
{
	(void)state;
	static const int64_t offs[] = { -100000, -1, 1, 100000 };
	const char *const args[] = { unique_name, NULL };
	int status = 0;
	struct err e = { 0 };
	pid_t child = spawn(args);
	struct process_seen p cleanup(process_release) = await_process(unique_name);
	for (size_t i = 0; i < ARRAY_LEN(offs); i++) {
		struct process_seen former = p;
		former.ticks += offs[i];
		assert_false(process_alive(&former));
		assert_ok(process_terminate(&former, &e), e);
	}
	usleep(50000);
	assert_int_equal(waitpid(child, &status, WNOHANG), 0);
	assert_true(process_alive(&p));
	/* The clock was set meanwhile: it is the same one all the same. */
	struct process_seen stepped = p;
	stepped.started_ms -= 3600000;
	assert_true(process_alive(&stepped));
	reap(child);
}

/* --- What can't be read ------------------------------------------------------------------------------------------------------ */

static void never(void *context, const char *uid, const char *id, int64_t started_ms)
{
	(void)uid;
	(void)id;
	(void)started_ms;
	++*(int *)context;
}

/* No more files may be opened than the folder: the processes can't be read, which is not that there are none. */
static void test_unreadable_is_not_none(void **state)
{
	(void)state;
	struct rlimit before, less;
	struct process_seen p = { 0 };
	struct err e = { 0 }, second = { 0 }, third = { 0 };
	bool found = false;
	int n = 0, next = open("/dev/null", O_RDONLY | O_CLOEXEC);
	close(next);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	less = before;
	less.rlim_cur = (rlim_t)next + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
	bool find_ok = process_find("no-such-process", false, &found, &p, &e).ok;
	bool each_ok = process_each_container(never, &n, &second).ok;
	bool alive = process_pod_alive(UID);
	less.rlim_cur = (rlim_t)next;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
	struct process_seen self = { .pid = getpid() };
	bool self_alive = process_alive(&self), self_ended = process_terminate(&self, &third).ok;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	assert_false(find_ok);
	assert_false(each_ok);
	assert_int_equal(n, 0);
	assert_true(alive);      /* can't be told */
	assert_true(self_alive); /* ditto */
	assert_false(self_ended);
}

static void test_no_containers_here(void **state)
{
	(void)state;
	struct err e = { 0 };
	int n = 0;
	assert_ok(process_each_container(never, &n, &e), e);
	assert_false(process_pod_alive("00000000-0000-4000-8000-000000000000"));
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cgroups_of_containers),
		cmocka_unit_test(test_cgroups_of_none),
		cmocka_unit_test(test_cgroups_of_any_length),
		cmocka_unit_test_setup(test_found_by_its_name, new_name),
		cmocka_unit_test_setup(test_not_found, new_name),
		cmocka_unit_test_setup(test_younger, new_name),
		cmocka_unit_test_setup(test_alive_and_ended, new_name),
		cmocka_unit_test_setup(test_another_with_the_same_pid, new_name),
		cmocka_unit_test(test_unreadable_is_not_none),
		cmocka_unit_test(test_no_containers_here),
	};
	if (strstr(argv[0], "certrotation-child-"))
		for (;;)
			pause();
	(void)argc;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
