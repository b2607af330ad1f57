#include "service.h"

#include <errno.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

result service_restart(const char *unit, int64_t timeout_ms, struct err *e)
{
	char *argv[] = { (char *)"systemctl", (char *)"restart", (char *)unit, NULL };
	pid_t pid = 0;
	int status = 0, r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (r) {
		errno = r;
		return err_errno(e, "systemctl restart %s", unit);
	}
	int64_t until = clock_monotonic_ms() + timeout_ms;
	while (waitpid(pid, &status, WNOHANG) == 0) {
		const struct timespec apart = { .tv_nsec = 50000000 };
		if (clock_monotonic_ms() > until)
			return err_set(e, ERR_TIMEOUT, "systemctl restart %s has not ended in %lld s", unit, (long long)timeout_ms / 1000);
		nanosleep(&apart, NULL);
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return OK;
	return err_set(e, ERR_OTHER, "systemctl restart %s failed: see journalctl -u %s", unit, unit);
}
