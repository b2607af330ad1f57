/* Failpoints of the controller in a test image (make FAILPOINTS=1; rules.mk): it ends before or after one of its writes to the API, its own
 * Lease aside, which is renewed by the clock. point.h says which. The linker's --wrap puts these functions before the product's own, whose
 * code knows nothing of them.
 *
 * The kubelet starts what ends again and again ever later, up to five minutes. So the program is the child of one that starts it anew at
 * once, and its Lease is a short one. */
#include "client.h"
#include "lease.h"
#include "point.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define FOLDER "/run/failpoint"
#define OWN_LEASE "/namespaces/certrotation-system/leases/"

static const struct point POINT = { FOLDER "/failpoint" };

/* --- Started anew ------------------------------------------------------------------------------------------------------------------- */

static volatile pid_t child;

static void pass_on(int number)
{
	(void)kill(child, number);
}

/* Before main: returns in each child alone. */
__attribute__((constructor)) static void start_again(void)
{
	int status = 0;
	if (access(FOLDER, F_OK) != 0)
		return;
	do {
		child = fork();
		if (child == 0)
			return;
		(void)signal(SIGTERM, pass_on);
		(void)signal(SIGINT, pass_on);
		while (waitpid(child, &status, 0) < 0)
			;
	} while (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

result __wrap_lease_start(const struct kube *k, const char *namespace, const char *name, const char *identity,
			  void (*changed)(void *context, bool leading), void *context, struct lease **ret, struct err *e);
result __wrap_lease_start(const struct kube *k, const char *namespace, const char *name, const char *identity,
			  void (*changed)(void *context, bool leading), void *context, struct lease **ret, struct err *e)
{
	static const struct lease_times SHORT = { .duration_s = 5, .renew_deadline_ms = 4000, .retry_ms = 500, .request_ms = 2000 };
	return lease_start_timed(k, namespace, name, identity, &SHORT, changed, context, ret, e);
}

/* --- Writes to the API ---------------------------------------------------------------------------------------------------------------- */

/* 0: not counted. */
static long begin_write(const char *verb, const char *path)
{
	if (strstr(path, OWN_LEASE) || str_ends(path, "/namespaces/certrotation-system/leases"))
		return 0;
	long n = point_next(&POINT);
	if (n)
		(void)dprintf(STDERR_FILENO, "failpoint: write %ld %s %s\n", n, verb, path);
	point_pass(&POINT, n, "before", path);
	return n;
}

static result end_write(long n, const char *path, result r)
{
	point_pass(&POINT, n, "after", path);
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
