/* Processes of the host, by /proc (the Pod has hostPID).
 *
 * Invariants
 * - A process is known by pid and start time together: a pid alone may be another's by now.
 * - Start times are on the node's clock, like file times, with the 10 ms of the kernel's clock tick; so "younger than the file" is an
 *   observation, no guess.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include "buf.h"
#include <sys/types.h>

#define POD_UID_SIZE 64
#define CONTAINER_ID_SIZE 80

struct process_seen {
	pid_t pid;
	int64_t started_ms;
	char pod_uid[POD_UID_SIZE];           /* with dashes or as a static Pod's hash; "" outside of Pods */
	char container_id[CONTAINER_ID_SIZE]; /* "" outside of containers */
	struct strs args;
};
void process_release(struct process_seen *p);

/* The process whose argv[0] is called `name` (its last path component) and, when in_pod, that lives in a Pod. *ret_found false: none. */
result process_find(const char *name, bool in_pod, bool *ret_found, struct process_seen *ret, struct err *e) MUST_CHECK;
/* True while that very process lives. */
bool process_alive(const struct process_seen *p);
/* SIGTERM. Not there any more: OK. */
result process_terminate(const struct process_seen *p, struct err *e) MUST_CHECK;
/* The value of --name=value among the arguments, NULL when absent. */
const char *process_flag(const struct process_seen *p, const char *name);
/* Calls `each` for every process that lives in a Pod's container. */
result process_each_container(void (*each)(void *context, const char *pod_uid, const char *container_id, int64_t started_ms),
			      void *context, struct err *e) MUST_CHECK;

/* Splits a line of /proc/PID/cgroup (v1 or v2, systemd or cgroupfs driver) into Pod uid and container id. False when it names neither. */
bool process_parse_cgroup(const char *line, char ret_uid[static POD_UID_SIZE], char ret_id[static CONTAINER_ID_SIZE]);

#endif
