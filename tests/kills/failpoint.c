/* Failpoints of a test image (make FAILPOINTS=1; rules.mk): the process ends before or after its k-th write, as by SIGKILL. The linker's
 * --wrap puts these functions before the product's own, whose code knows nothing of them.
 *
 * The controller: writes to the API (its own Lease aside, which is renewed by the clock), told by CERTROTATION_FAILPOINT=write:K:before
 * or :after. The node program: its changes to files and processes, told by the file FAILPOINT_FILE (failpoint_node.c) on the node, "K:before" or "K:after",
 * and counted over all jobs.
 * Fired once: before it ends the process leaves the file CERTROTATION_FAILPOINT_FIRED, or takes FAILPOINT_FILE away. */
#include "client.h"

#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define OWN_LEASE "/namespaces/certrotation-system/leases/"

/* In a container the program may be process 1, which its own SIGKILL does not reach. */
static void end(void)
{
	raise(SIGKILL);
	_exit(137);
}

static void tell(long n, const char *what, const char *path)
{
	(void)dprintf(STDERR_FILENO, "failpoint: write %ld %s %s\n", n, what, path);
}

/* --- The controller: writes to the API --------------------------------------------------------------------------------------------- */

static atomic_long writes;

/* True when it is this write's turn. */
static bool is_due(long n, const char *moment)
{
	const char *point = getenv("CERTROTATION_FAILPOINT"), *fired = getenv("CERTROTATION_FAILPOINT_FIRED");
	char *this cleanup(str_freep) = str_printf("write:%ld:%s", n, moment);
	return point && fired && str_eq(point, this) && access(fired, F_OK) != 0;
}

static void end_when_due(long n, const char *moment, const char *path)
{
	if (!is_due(n, moment))
		return;
	tell(n, moment, path);
	int fd = open(getenv("CERTROTATION_FAILPOINT_FIRED"), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd >= 0)
		end();
}

/* 0: not counted. */
static long begin_write(const char *verb, const char *path)
{
	if (strstr(path, OWN_LEASE) || str_ends(path, "/namespaces/certrotation-system/leases"))
		return 0;
	long n = atomic_fetch_add(&writes, 1) + 1;
	tell(n, verb, path);
	end_when_due(n, "before", path);
	return n;
}

static result end_write(long n, const char *path, result r)
{
	if (n)
		end_when_due(n, "after", path);
	return r;
}

result __real_kube_create(struct kube *k, const char *path, const struct json *object, struct json **ret, struct err *e);
result __wrap_kube_create(struct kube *k, const char *path, const struct json *object, struct json **ret, struct err *e);
result __wrap_kube_create(struct kube *k, const char *path, const struct json *object, struct json **ret, struct err *e)
{
	long n = begin_write("POST", path);
	return end_write(n, path, __real_kube_create(k, path, object, ret, e));
}

result __real_kube_update(struct kube *k, const char *path, const struct json *object, struct json **ret, struct err *e);
result __wrap_kube_update(struct kube *k, const char *path, const struct json *object, struct json **ret, struct err *e);
result __wrap_kube_update(struct kube *k, const char *path, const struct json *object, struct json **ret, struct err *e)
{
	long n = begin_write("PUT", path);
	return end_write(n, path, __real_kube_update(k, path, object, ret, e));
}

result __real_kube_patch(struct kube *k, const char *path, enum kube_patch kind, const struct json *patch, struct json **ret, struct err *e);
result __wrap_kube_patch(struct kube *k, const char *path, enum kube_patch kind, const struct json *patch, struct json **ret, struct err *e);
result __wrap_kube_patch(struct kube *k, const char *path, enum kube_patch kind, const struct json *patch, struct json **ret, struct err *e)
{
	long n = begin_write("PATCH", path);
	return end_write(n, path, __real_kube_patch(k, path, kind, patch, ret, e));
}

result __real_kube_delete(struct kube *k, const char *path, const char *uid, const char *resource_version, struct err *e);
result __wrap_kube_delete(struct kube *k, const char *path, const char *uid, const char *resource_version, struct err *e);
result __wrap_kube_delete(struct kube *k, const char *path, const char *uid, const char *resource_version, struct err *e)
{
	long n = begin_write("DELETE", path);
	return end_write(n, path, __real_kube_delete(k, path, uid, resource_version, e));
}

/* One at a time, so that each is a write. */
void __real_kube_patch_all(struct kube *k, struct kube_bulk *items, size_t n, int per_second);
void __wrap_kube_patch_all(struct kube *k, struct kube_bulk *items, size_t n, int per_second);
void __wrap_kube_patch_all(struct kube *k, struct kube_bulk *items, size_t n, int per_second)
{
	for (size_t i = 0; i < n; i++) {
		long number = begin_write("PATCH", items[i].path);
		__real_kube_patch_all(k, &items[i], 1, per_second);
		(void)!end_write(number, items[i].path, OK).ok;
	}
}
