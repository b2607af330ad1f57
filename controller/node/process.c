#include "process.h"
#include "file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROC_TEXT_MAX ((size_t)256 << 10)

void process_release(struct process_seen *p)
{
	strs_release(&p->args);
	memset(p, 0, sizeof *p);
}

/* --- Cgroups -------------------------------------------------------------------------------------------------------------- */

/* "pod<uid>" with the systemd driver's underscores turned back. */
static void copy_uid(const char *from, size_t n, char ret[static POD_UID_SIZE])
{
	if (n >= POD_UID_SIZE)
		n = POD_UID_SIZE - 1;
	for (size_t i = 0; i < n; i++)
		ret[i] = from[i] == '_' ? '-' : from[i];
	ret[n] = '\0';
}

static size_t hex_length(const char *s)
{
	return strspn(s, "0123456789abcdef");
}

/* "cri-containerd-<id>.scope", "crio-<id>.scope", "docker-<id>.scope" or plain "<id>": the 64 hex digits. */
static bool copy_id(const char *component, char ret[static CONTAINER_ID_SIZE])
{
	for (const char *p = component; *p && !strchr("/\n", *p); p++) {
		size_t n = hex_length(p);
		if (n == 64) {
			memcpy(ret, p, n);
			ret[n] = '\0';
			return true;
		}
		p += n ? n - 1 : 0;
	}
	return false;
}

/* The next component's slash in this line, NULL when there is none. */
static const char *next_slash(const char *from)
{
	const char *p = from + strcspn(from, "/\n");
	return *p == '/' ? p : NULL;
}

bool process_parse_cgroup(const char *line, char ret_uid[static POD_UID_SIZE], char ret_id[static CONTAINER_ID_SIZE])
{
	bool found = false;
	ret_uid[0] = ret_id[0] = '\0';
	for (const char *part = next_slash(line); part; part = next_slash(part + 1)) {
		const char *name = part + 1, *pod = strstr(name, "pod");
		size_t n = strcspn(name, "/\n");
		/* "kubepods-burstable-pod<uid>.slice" has "pod" twice: the last one counts */
		for (const char *next = pod; next && next < name + n; next = strstr(next + 1, "pod"))
			pod = next;
		bool uid_here = pod && pod + 3 < name + n && isxdigit((unsigned char)pod[3]) && (pod == name || pod[-1] == '-');
		size_t uid_len = uid_here ? strcspn(pod + 3, "./\n") : 0;
		if (uid_here)
			copy_uid(pod + 3, uid_len, ret_uid);
		found = found || uid_here;
		/* a runtime that is told of slices but makes plain folders: "…-pod<uid>.slice:cri-containerd:<id>" */
		if (found && copy_id(uid_here ? pod + 3 + uid_len : name, ret_id))
			return true;
	}
	return found && ret_id[0];
}

/* --- One process ---------------------------------------------------------------------------------------------------------- */

static result read_proc(pid_t pid, const char *name, struct buf *out, struct err *e)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	return file_read(path, PROC_TEXT_MAX, out, e);
}

static int64_t clock_us(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* The moment of boot on the node's clock. Being scheduled away between the two readings would move every process' start: the
 * closest pair of a few counts. */
static int64_t boot_ms(void)
{
	int64_t best = 0, apart = INT64_MAX;
	for (int i = 0; i < 5 && apart > 20; i++) {
		int64_t before = clock_us(CLOCK_REALTIME), boot = clock_us(CLOCK_BOOTTIME), after = clock_us(CLOCK_REALTIME);
		if (after - before >= apart || after < before)
			continue;
		apart = after - before;
		best = before - boot;
	}
	return best / 1000;
}

/* Field 22 of /proc/PID/stat (proc(5)), in clock ticks since boot; the name before it may hold anything, so from the last ')'. */
static result start_ticks(pid_t pid, int64_t *ret, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	TRY(read_proc(pid, "stat", &text, e));
	const char *p = strrchr(buf_str(&text), ')');
	for (int field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	if (!p)
		return err_set(e, ERR_INPUT, "/proc/%d/stat can't be read", (int)pid);
	*ret = (int64_t)strtoll(p, NULL, 10);
	return OK;
}

static int64_t ms_of_ticks(int64_t ticks)
{
	return boot_ms() + ticks * 1000 / sysconf(_SC_CLK_TCK);
}

/* True when that is why it could not be read: a process that has ended is not there. */
static bool is_gone(pid_t pid)
{
	return kill(pid, 0) != 0 && errno == ESRCH;
}

/* Reading one of many: *ret_there is false for one that has ended meanwhile. */
static result read_of(pid_t pid, const char *name, struct buf *out, bool *ret_there, struct err *e)
{
	struct err why;
	*ret_there = read_proc(pid, name, out, &why).ok;
	if (*ret_there || is_gone(pid))
		return OK;
	*e = why;
	return FAILED;
}

/* *ret_in_pod: whether it lives in a Pod's container. */
static result read_cgroup(pid_t pid, bool *ret_in_pod, char uid[static POD_UID_SIZE], char id[static CONTAINER_ID_SIZE], struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	bool there = false, in_pod = false;
	TRY(read_of(pid, "cgroup", &text, &there, e));
	for (const char *line = buf_str(&text); line && *line && !in_pod; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		in_pod = process_parse_cgroup(line, uid, id);
	*ret_in_pod = in_pod;
	return OK;
}

/* Kernel threads and the dead have none. */
static result read_args(pid_t pid, struct strs *ret, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	bool there = false;
	TRY(read_of(pid, "cmdline", &text, &there, e));
	for (size_t i = 0; i < text.len; i += strlen(text.data + i) + 1)
		strs_add(ret, text.data + i);
	return OK;
}

/* *ret_there: it has not ended meanwhile. */
static result read_start(pid_t pid, struct process_seen *ret, bool *ret_there, struct err *e)
{
	struct err why;
	*ret_there = start_ticks(pid, &ret->ticks, &why).ok;
	if (*ret_there)
		ret->started_ms = ms_of_ticks(ret->ticks);
	else if (!is_gone(pid))
		return err_set(e, why.kind, "%s", why.message);
	return OK;
}

static bool is_called(const struct strs *args, const char *name)
{
	if (!args->n)
		return false;
	const char *slash = strrchr(args->items[0], '/');
	return str_eq(slash ? slash + 1 : args->items[0], name);
}

static pid_t next_pid(DIR *dir)
{
	for (struct dirent *d; (d = readdir(dir)) != NULL;)
		if (isdigit((unsigned char)d->d_name[0]))
			return (pid_t)strtol(d->d_name, NULL, 10);
	return 0;
}

static void close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* *ret_match: it is called so, and is where it should be. */
static result look_at(pid_t pid, const char *name, bool in_pod, bool *ret_match, struct process_seen *p, struct err *e)
{
	bool is_in_pod = false;
	p->pid = pid;
	*ret_match = false;
	TRY(read_args(pid, &p->args, e));
	if (!is_called(&p->args, name))
		return OK;
	TRY(read_cgroup(pid, &is_in_pod, p->pod_uid, p->container_id, e));
	/* a static Pod's uid is a hash without dashes; others are hosted control planes (vcluster, Kamaji) */
	if (is_in_pod != in_pod || (in_pod && strchr(p->pod_uid, '-')))
		return OK;
	return read_start(pid, p, ret_match, e);
}

result process_find(const char *name, bool in_pod, bool *ret_found, struct process_seen *ret, struct err *e)
{
	DIR *dir cleanup(close_dir) = opendir("/proc");
	if (!dir)
		return err_errno(e, "/proc");
	for (pid_t pid; (pid = next_pid(dir)) != 0;) {
		struct process_seen p cleanup(process_release) = { 0 };
		bool match = false;
		TRY(look_at(pid, name, in_pod, &match, &p, e));
		if (!match)
			continue;
		*ret = p;
		p = (struct process_seen){ 0 };
		*ret_found = true;
		return OK;
	}
	*ret_found = false;
	return OK;
}

bool process_alive(const struct process_seen *p)
{
	int64_t ticks = 0;
	struct err e;
	struct buf text cleanup(buf_release) = BUF_INIT;
	if (!read_proc(p->pid, "stat", &text, &e).ok)
		return !is_gone(p->pid);
	const char *state = strrchr(buf_str(&text), ')');
	if (state && (state[2] == 'Z' || state[2] == 'X'))
		return false;
	return start_ticks(p->pid, &ticks, &e).ok ? ticks == p->ticks : !is_gone(p->pid);
}

/* On any doubt nothing is ended: the pid may be another's. */
static result send_signal(const struct process_seen *p, int signal, struct err *e)
{
	int64_t ticks = 0;
	struct err why;
	if (!start_ticks(p->pid, &ticks, &why).ok)
		return is_gone(p->pid) ? OK : err_set(e, why.kind, "ending process %d: %s", (int)p->pid, why.message);
	if (ticks != p->ticks || kill(p->pid, signal) == 0 || errno == ESRCH)
		return OK;
	return err_errno(e, "ending process %d", (int)p->pid);
}

result process_terminate(const struct process_seen *p, struct err *e)
{
	return send_signal(p, SIGTERM, e);
}

result process_kill(const struct process_seen *p, struct err *e)
{
	return send_signal(p, SIGKILL, e);
}

const char *process_flag(const struct process_seen *p, const char *name)
{
	size_t n = strlen(name);
	for (size_t i = 0; i < p->args.n; i++) {
		const char *a = p->args.items[i];
		if (!str_starts(a, "--") || strncmp(a + 2, name, n) != 0)
			continue;
		if (a[2 + n] == '=')
			return a + 3 + n;
		if (a[2 + n] == '\0' && i + 1 < p->args.n)
			return p->args.items[i + 1];
	}
	return NULL;
}

bool process_younger(const struct process_seen *p, int64_t than_ms)
{
	return p->pid && p->started_ms > than_ms + PROCESS_TICK_MS;
}

struct pod_search {
	const char *uid;
	bool found;
};

static void match_pod(void *context, const char *pod_uid, const char *container_id UNUSED, int64_t started_ms UNUSED)
{
	struct pod_search *s = context;
	s->found = s->found || str_eq(pod_uid, s->uid);
}

bool process_pod_alive(const char *pod_uid)
{
	struct pod_search s = { .uid = pod_uid };
	struct err e;
	return !process_each_container(match_pod, &s, &e).ok || s.found;
}

result process_each_container(void (*each)(void *context, const char *pod_uid, const char *container_id, int64_t started_ms),
			      void *context, struct err *e)
{
	DIR *dir cleanup(close_dir) = opendir("/proc");
	if (!dir)
		return err_errno(e, "/proc");
	for (pid_t pid; (pid = next_pid(dir)) != 0;) {
		struct process_seen p = { 0 };
		bool there = false;
		TRY(read_cgroup(pid, &there, p.pod_uid, p.container_id, e));
		if (there)
			TRY(read_start(pid, &p, &there, e));
		if (there)
			each(context, p.pod_uid, p.container_id, p.started_ms);
	}
	return OK;
}
