/* Failpoints of the node program in a test image, as failpoint.c's: its changes to files and processes. And a clock of its own, for
 * nodes of a test cluster have one clock. */
#include "file.h"
#include "point.h"
#include "process.h"
#include "service.h"

#include <stdio.h>

static const struct point POINT = { "/var/lib/certrotation/failpoint" };

static long begin_change(const char *what)
{
	long n = point_next(&POINT);
	point_pass(&POINT, n, "before", what);
	return n;
}

static result end_change(long n, const char *what, result r)
{
	point_pass(&POINT, n, "after", what);
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

/* So many milliseconds is the node's clock ahead, as a test leaves them in a file. */
int64_t __real_clock_now_ms(void);
int64_t __wrap_clock_now_ms(void);
int64_t __wrap_clock_now_ms(void)
{
	long long ahead = 0;
	FILE *f = fopen("/var/lib/certrotation/clock", "re");
	if (f && fscanf(f, "%lld", &ahead) != 1)
		ahead = 0;
	if (f)
		(void)fclose(f);
	return __real_clock_now_ms() + ahead;
}
