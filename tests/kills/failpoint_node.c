/* See failpoint.c. */
#include "file.h"
#include "process.h"
#include "service.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAILPOINT_FILE "/var/lib/certrotation/failpoint"
#define FAILPOINT_COUNT "/var/lib/certrotation/failpoint.count"

static void end(void)
{
	raise(SIGKILL);
	_exit(137);
}

static void read_text(const char *path, char *ret, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, ret, size - 1) : 0;
	ret[n > 0 ? n : 0] = '\0';
	if (fd >= 0)
		(void)close(fd);
}

/* Only where a test has left the file: counts on, over all jobs. */
static long next(void)
{
	char text[32];
	if (access(FAILPOINT_FILE, F_OK) != 0)
		return 0;
	read_text(FAILPOINT_COUNT, text, sizeof text);
	long n = strtol(text, NULL, 10) + 1;
	int fd = open(FAILPOINT_COUNT, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd >= 0) {
		(void)dprintf(fd, "%ld\n", n);
		(void)close(fd);
	}
	return n;
}

static void end_when_due(long n, const char *moment, const char *what)
{
	char point[64], this[64];
	if (!n)
		return;
	read_text(FAILPOINT_FILE, point, sizeof point);
	point[strcspn(point, "\n")] = '\0';
	(void)snprintf(this, sizeof this, "%ld:%s", n, moment);
	if (!str_eq(point, this))
		return;
	(void)dprintf(STDERR_FILENO, "failpoint: %s change %ld: %s\n", moment, n, what);
	if (unlink(FAILPOINT_FILE) == 0)
		end();
}

static long begin_change(const char *what)
{
	long n = next();
	end_when_due(n, "before", what);
	return n;
}

static result end_change(long n, const char *what, result r)
{
	end_when_due(n, "after", what);
	return r;
}

/* name, parameters, arguments, what to say */
#define FAILPOINT(name, parameters, arguments, what)                          \
	result __real_##name parameters;                                      \
	result __wrap_##name parameters;                                      \
	result __wrap_##name parameters                                       \
	{                                                                     \
		long n_ = begin_change(what);                                 \
		return end_change(n_, what, __real_##name arguments);         \
	}

FAILPOINT(file_replace, (const char *path, const void *bytes, size_t n, mode_t mode, const char *staging, struct err *e),
	  (path, bytes, n, mode, staging, e), path)
FAILPOINT(file_rename, (const char *from, const char *to, struct err *e), (from, to, e), to)
FAILPOINT(file_remove, (const char *path, struct err *e), (path, e), path)
FAILPOINT(file_wipe, (const char *path, struct err *e), (path, e), path)
FAILPOINT(file_rmdir, (const char *path, struct err *e), (path, e), path)
FAILPOINT(file_symlink, (const char *target, const char *path, struct err *e), (target, path, e), path)
FAILPOINT(file_mkdir, (const char *path, mode_t mode, struct err *e), (path, mode, e), path)
FAILPOINT(file_backup, (const char *path, const char *to, struct err *e), (path, to, e), to)
FAILPOINT(process_terminate, (const struct process_seen *p, struct err *e), (p, e), "SIGTERM")
FAILPOINT(service_restart, (const char *unit, int64_t timeout_ms, struct err *e), (unit, timeout_ms, e), unit)
