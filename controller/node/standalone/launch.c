/* One file that runs the node program on any distribution, for the day when the API server is down.
 *
 * Debian has no static cJSON, so a program with cJSON in it can't be linked statically from Debian's packages. Instead this
 * launcher is static, and carries what the program is made of, each as it is: the dynamic loader, the C library, libcjson,
 * the program. It puts each into memory (memfd_create(2), as container runtimes do with themselves) and starts the loader
 * on them. Nothing of the host's libraries is used, nothing is written to disk. Needs /proc, as the node program does.
 */
#define _GNU_SOURCE /* memfd_create, fexecve */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Made by the Makefile: the loader, the libraries, the program, and an empty one. */
struct part {
	const char *start, *end;
};
extern const struct part parts[];

#define PARTS_MAX 16
#define PATH_SIZE 32
#define ARGUMENTS_FIXED 6

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U /* Linux 6.3; older ones refuse it and need no permission */
#endif

static _Noreturn void die(const char *what)
{
	(void)fprintf(stderr, "certrotation-node: starting: %s: %s\n", what, strerror(errno));
	exit(127);
}

static int part_open(const struct part *p)
{
	int fd = memfd_create("certrotation-node", MFD_EXEC);
	if (fd < 0 && errno == EINVAL)
		fd = memfd_create("certrotation-node", 0);
	if (fd < 0)
		die("memfd_create");
	for (const char *at = p->start; at < p->end;) {
		ssize_t n = write(fd, at, (size_t)(p->end - at));
		if (n < 0 && errno != EINTR)
			die("writing to memory");
		at += n > 0 ? n : 0;
	}
	return fd;
}

int main(int argc, char **argv)
{
	static char paths[PARTS_MAX][PATH_SIZE];
	static char libraries[PARTS_MAX * PATH_SIZE];
	int fds[PARTS_MAX], n = 0;
	size_t len = 0;
	for (; n < PARTS_MAX && parts[n].start; n++) {
		fds[n] = part_open(&parts[n]);
		(void)snprintf(paths[n], PATH_SIZE, "/proc/self/fd/%d", fds[n]);
	}
	for (int i = 1; i < n - 1; i++)
		len += (size_t)snprintf(libraries + len, sizeof(libraries) - len, "%s:", paths[i]);

	char **args = calloc((size_t)argc + ARGUMENTS_FIXED + 1, sizeof(*args));
	if (!args || n < 2)
		die("the parts");
	static char name[] = "certrotation-node", argv0[] = "--argv0", cache[] = "--inhibit-cache",
		    preload[] = "--preload";
	char *fixed[ARGUMENTS_FIXED] = { name, cache, argv0, argc ? argv[0] : name, preload, libraries };
	memcpy(args, fixed, sizeof(fixed));
	args[ARGUMENTS_FIXED] = paths[n - 1];
	for (int i = 1; i < argc; i++)
		args[ARGUMENTS_FIXED + i] = argv[i];
	(void)unsetenv("LD_PRELOAD");
	(void)unsetenv("LD_LIBRARY_PATH");
	(void)fexecve(fds[0], args, environ);
	die("executing the loader from memory");
}
