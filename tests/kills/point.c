#include "point.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "" when there is none. */
static void read_text(const char *path, char *ret, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd >= 0 ? read(fd, ret, size - 1) : 0;
	ret[n > 0 ? n : 0] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	if (fd >= 0)
		(void)close(fd);
}

static void write_line(const char *path, int how, const char *line)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | how, 0600);
	if (fd < 0)
		return;
	(void)dprintf(fd, "%s\n", line);
	(void)close(fd);
}

long point_next(const struct point *p)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	char *count cleanup(str_freep) = str_printf("%s.count", p->where);
	char text[32];
	if (access(p->where, F_OK) != 0)
		return 0;
	pthread_mutex_lock(&lock);
	read_text(count, text, sizeof text);
	long n = strtol(text, NULL, 10) + 1;
	(void)snprintf(text, sizeof text, "%ld", n);
	write_line(count, O_TRUNC, text);
	pthread_mutex_unlock(&lock);
	return n;
}

/* Of TEXT in "K~TEXT:moment"; the text ends where it ends. */
static bool is_of(const char *text, const char *what, const char **ret_end)
{
	size_t n = strcspn(text, ":");
	char *part cleanup(str_freep) = str_ndup(text, n);
	*ret_end = text + n;
	return strstr(what, part);
}

/* Of "K:moment", "K~TEXT:moment" or "O/S/N:moment"; *once is set when it is not the last. */
static bool is_due(const char *point, long n, const char *moment, const char *what, bool *once)
{
	char *end = NULL;
	const char *rest = NULL;
	long k = strtol(point, &end, 10), stride = 0, last = 0;
	*once = *end != '/';
	if (*end == '~')
		return is_of(end + 1, what, &rest) && n >= k && *rest && str_eq(rest + 1, moment);
	if (!*once)
		stride = strtol(end + 1, &end, 10);
	if (*end == '/')
		last = strtol(end + 1, &end, 10);
	if (*end != ':' || !str_eq(end + 1, moment))
		return false;
	return *once ? n == k : stride > 0 && n <= last && n % stride == k % stride;
}

/* In a container the program may be process 1, which its own SIGKILL does not reach. */
static void end(void)
{
	raise(SIGKILL);
	_exit(137);
}

void point_pass(const struct point *p, long n, const char *moment, const char *what)
{
	char point[64];
	bool once = false;
	if (!n)
		return;
	read_text(p->where, point, sizeof point);
	if (!is_due(point, n, moment, what, &once))
		return;
	char *line cleanup(str_freep) = str_printf("%ld %s %s", n, moment, what);
	char *struck cleanup(str_freep) = str_printf("%s.struck", p->where);
	(void)dprintf(STDERR_FILENO, "failpoint: %s\n", line);
	write_line(struck, O_APPEND, line);
	if (!once || unlink(p->where) == 0)
		end();
}
