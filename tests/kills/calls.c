#define _GNU_SOURCE /* mkostemp, MAP_ANONYMOUS */

#include "calls.h"

#include "contract.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct calls *calls;
static bool counting;

static const char *const NAMES[] = { "create", "write", "chmod", "chown", "utimens", "fsync", "rename", "link", "unlink", "symlink", "mkdir",
				     "rmdir", "process" };

const char *call_name(enum call_kind kind)
{
	return NAMES[kind];
}

void calls_share(const char *root)
{
	calls = mmap(NULL, sizeof *calls, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (calls == MAP_FAILED)
		abort();
	str_copy(calls->root, sizeof calls->root, root);
	calls->kill_after = NEVER;
}

static void end_when_due(void)
{
	if ((long)calls->n == calls->kill_after)
		raise(SIGKILL);
}

void calls_begin(long kill_after)
{
	calls->n = calls->n_bytes = 0;
	calls->ahead_ms = 0;
	calls->kill_after = kill_after;
	counting = true;
	end_when_due();
}

/* --- Recording -------------------------------------------------------------------------------------------------------------- */

static bool is_ours(const char *path)
{
	size_t n = calls ? strlen(calls->root) : 0;
	return n && strncmp(path, calls->root, n) == 0 && path[n] == '/';
}

/* A record to be filled in; `done` counts it. */
static struct call *call_new(enum call_kind kind, const char *path)
{
	if (calls->n == CALLS_MAX)
		abort();
	struct call *c = &calls->list[calls->n];
	*c = (struct call){ .kind = kind };
	str_copy(c->path, sizeof c->path, is_ours(path) ? path + strlen(calls->root) : path);
	clock_gettime(CLOCK_REALTIME, &c->time);
	return c;
}

static void done(void)
{
	calls->n++;
	end_when_due();
}

void calls_count(enum call_kind kind, const char *what)
{
	if (!counting)
		return;
	(void)call_new(kind, what);
	done();
}

/* False when the descriptor is of nothing below root. */
static bool path_of(int fd, char ret[static CALL_PATH_SIZE])
{
	char link[40];
	(void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t n = counting ? readlink(link, ret, CALL_PATH_SIZE - 1) : -1;
	if (n < 0)
		return false;
	ret[n] = '\0';
	return is_ours(ret);
}

static void note_fd(enum call_kind kind, int fd)
{
	char path[CALL_PATH_SIZE];
	struct stat st = { 0 };
	if (!path_of(fd, path) || fstat(fd, &st) != 0)
		return;
	struct call *c = call_new(kind, path);
	c->mode = st.st_mode;
	c->uid = st.st_uid;
	c->gid = st.st_gid;
	c->time = st.st_mtim;
	done();
}

static void note(enum call_kind kind, const char *path, const char *to)
{
	struct stat st = { 0 };
	if (!counting || !is_ours(path))
		return;
	struct call *c = call_new(kind, path);
	str_copy(c->to, sizeof c->to, is_ours(to) ? to + strlen(calls->root) : to);
	if (lstat(path, &st) == 0)
		c->mode = st.st_mode;
	c->uid = st.st_uid;
	c->gid = st.st_gid;
	done();
}

/* --- In place of libc's ------------------------------------------------------------------------------------------------------- */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_mkostemp(char *template, int flags);
int __wrap_mkostemp(char *template, int flags);
ssize_t __real_write(int fd, const void *bytes, size_t n);
ssize_t __wrap_write(int fd, const void *bytes, size_t n);
int __real_fchmod(int fd, mode_t mode);
int __wrap_fchmod(int fd, mode_t mode);
int __real_fchown(int fd, uid_t uid, gid_t gid);
int __wrap_fchown(int fd, uid_t uid, gid_t gid);
int __real_futimens(int fd, const struct timespec times[2]);
int __wrap_futimens(int fd, const struct timespec times[2]);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __real_link(const char *from, const char *to);
int __wrap_link(const char *from, const char *to);
int __real_unlink(const char *path);
int __wrap_unlink(const char *path);
int __real_symlink(const char *target, const char *path);
int __wrap_symlink(const char *target, const char *path);
int __real_mkdir(const char *path, mode_t mode);
int __wrap_mkdir(const char *path, mode_t mode);
int __real_rmdir(const char *path);
int __wrap_rmdir(const char *path);
int __real_nanosleep(const struct timespec *t, struct timespec *left);
int __wrap_nanosleep(const struct timespec *t, struct timespec *left);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout);
int64_t __real_clock_monotonic_ms(void);
int64_t __wrap_clock_monotonic_ms(void);

/* Symlinks of a node are absolute; N's key is mounted. */
static char *as_on_the_node(const char *path)
{
	char target[CALL_PATH_SIZE];
	if (calls && str_eq(path, CONTRACT_KEY_DIR "/Kubernetes.key"))
		return str_dup(calls->authority_key);
	ssize_t n = is_ours(path) ? readlink(path, target, sizeof target - 1) : -1;
	if (n <= 0 || target[0] != '/')
		return str_dup(path);
	target[n] = '\0';
	return str_printf("%s%s", calls->root, target);
}

int __wrap_open(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	mode_t mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
	va_end(args);
	char *real cleanup(str_freep) = flags & O_NOFOLLOW ? str_dup(path) : as_on_the_node(path);
	struct stat st;
	bool makes = flags & O_CREAT && lstat(real, &st) != 0;
	int fd = __real_open(real, flags, mode);
	if (fd >= 0 && makes)
		note_fd(CALL_CREATE, fd);
	return fd;
}

int __wrap_mkostemp(char *template, int flags)
{
	int fd = __real_mkostemp(template, flags);
	if (fd >= 0)
		note_fd(CALL_CREATE, fd);
	return fd;
}

ssize_t __wrap_write(int fd, const void *bytes, size_t n)
{
	char path[CALL_PATH_SIZE];
	bool ours = path_of(fd, path);
	off_t at = ours ? lseek(fd, 0, SEEK_CUR) : 0;
	ssize_t written = __real_write(fd, bytes, n);
	if (!ours || written < 0)
		return written;
	struct call *c = call_new(CALL_WRITE, path);
	if (calls->n_bytes + (size_t)written > CALLS_BYTES_MAX)
		abort();
	memcpy(calls->bytes + calls->n_bytes, bytes, (size_t)written);
	c->bytes = calls->n_bytes;
	c->at = (size_t)at;
	c->len = (size_t)written;
	calls->n_bytes += (size_t)written;
	done();
	return written;
}

int __wrap_fchmod(int fd, mode_t mode)
{
	int r = __real_fchmod(fd, mode);
	if (r == 0)
		note_fd(CALL_MODE, fd);
	return r;
}

int __wrap_fchown(int fd, uid_t uid, gid_t gid)
{
	int r = __real_fchown(fd, uid, gid);
	if (r == 0)
		note_fd(CALL_OWNER, fd);
	return r;
}

int __wrap_futimens(int fd, const struct timespec times[2])
{
	int r = __real_futimens(fd, times);
	if (r == 0)
		note_fd(CALL_TIMES, fd);
	return r;
}

/* A killed process loses nothing that it has written, and of power cuts disk.c knows more: no disk is waited for. */
int __wrap_fsync(int fd)
{
	char path[CALL_PATH_SIZE];
	if (!path_of(fd, path))
		return __real_fsync(fd);
	note_fd(CALL_SYNC, fd);
	return 0;
}

int __wrap_rename(const char *from, const char *to)
{
	int r = __real_rename(from, to);
	if (r == 0)
		note(CALL_RENAME, from, to);
	return r;
}

int __wrap_link(const char *from, const char *to)
{
	int r = __real_link(from, to);
	if (r == 0)
		note(CALL_LINK, from, to);
	return r;
}

int __wrap_unlink(const char *path)
{
	int r = __real_unlink(path);
	if (r == 0)
		note(CALL_UNLINK, path, "");
	return r;
}

int __wrap_symlink(const char *target, const char *path)
{
	int r = __real_symlink(target, path);
	if (r == 0)
		note(CALL_SYMLINK, path, target);
	return r;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
	int r = __real_mkdir(path, mode);
	if (r == 0)
		note(CALL_MKDIR, path, "");
	return r;
}

int __wrap_rmdir(const char *path)
{
	int r = __real_rmdir(path);
	if (r == 0)
		note(CALL_RMDIR, path, "");
	return r;
}

/* --- Time ------------------------------------------------------------------------------------------------------------------------- */

int __wrap_nanosleep(const struct timespec *t, struct timespec *left)
{
	const struct timespec moment = { .tv_nsec = 100000 };
	if (!counting)
		return __real_nanosleep(t, left);
	calls->ahead_ms += (int64_t)t->tv_sec * 1000 + t->tv_nsec / 1000000;
	return __real_nanosleep(&moment, left);
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout)
{
	int r = __real_poll(fds, n, counting ? 0 : timeout);
	if (r == 0 && counting && timeout > 0)
		calls->ahead_ms += timeout;
	return r;
}

int64_t __wrap_clock_monotonic_ms(void)
{
	return __real_clock_monotonic_ms() + (counting ? calls->ahead_ms : 0);
}

void calls_sleep(int64_t ms)
{
	const struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (ms % 1000) * 1000000 };
	(void)__real_nanosleep(&t, NULL);
}
