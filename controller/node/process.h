/* Processes of the host, by /proc (the Pod has hostPID).
 *
 * Invariants
 * - A process is known by pid and start time together: a pid alone may be another's by now. That time is compared in ticks
 *   since boot, which stay when somebody sets the clock.
 * - A process that is gone in the middle was not there; one that can't be read is an error, never "none".
 * - Start times are on the node's clock, like file times, in the kernel's clock ticks, rounded down; file times may lag by one
 *   too. So "younger than the file" leaves PROCESS_TICK_MS between them: on doubt a process is not younger.
 */
#ifndef PROCESS_H
#define PROCESS_H

#include "buf.h"
#include <sys/types.h>

#define PROCESS_TICK_MS 20
#define POD_UID_SIZE 64
#define CONTAINER_ID_SIZE 80

struct process_seen {
	pid_t pid;
	int64_t ticks;                        /* of the kernel, from boot to its start: with the pid, which process it is */
	int64_t started_ms;
	char pod_uid[POD_UID_SIZE];           /* with dashes or as a static Pod's hash; "" outside of Pods */
	char container_id[CONTAINER_ID_SIZE]; /* "" outside of containers */
	struct strs args;
};
void process_release(struct process_seen *p);

/* The process whose argv[0] is called `name` (its last path component): in_pod, one of a static Pod's; else one outside of Pods.
 * *ret_found false: none. */
result process_find(const char *name, bool in_pod, bool *ret_found, struct process_seen *ret, struct err *e) MUST_CHECK;
/* True when it runs and has started after that time: it has read what was written then. */
bool process_younger(const struct process_seen *p, int64_t than_ms);
/* True while any process of that Pod, its sandbox included, lives (or when that can't be told). */
bool process_pod_alive(const char *pod_uid);
/* True while that very process lives (or when that can't be told). */
bool process_alive(const struct process_seen *p);
/* SIGTERM. Not there any more: OK. An error when that can't be told. */
result process_terminate(const struct process_seen *p, struct err *e) MUST_CHECK;
/* SIGKILL, for one that was asked to end and holds on. As process_terminate. */
result process_kill(const struct process_seen *p, struct err *e) MUST_CHECK;
/* The value of "--name=value" or "--name value" among the arguments, NULL when absent. */
const char *process_flag(const struct process_seen *p, const char *name);
/* Calls `each` for every process that lives in a Pod's container. */
result process_each_container(void (*each)(void *context, const char *pod_uid, const char *container_id, int64_t started_ms),
			      void *context, struct err *e) MUST_CHECK;

/* Splits a line of /proc/PID/cgroup (v1 or v2, systemd or cgroupfs driver) into Pod uid and container id. False when it names neither. */
bool process_parse_cgroup(const char *line, char ret_uid[static POD_UID_SIZE], char ret_id[static CONTAINER_ID_SIZE]);

#endif
