/* What lives on a node besides its files: the kubelet, the static Pods that it runs, and what they answer. Instead of /proc, the network
 * and systemd (the node program is linked without those; see rules.mk).
 *
 * Invariants
 * - The kubelet looks whenever somebody asks for a process, and when a test says so (machine_look): a static Pod whose manifest is gone
 *   ends, one whose manifest is there begins, one whose manifest has another content begins anew. It takes a moment.
 * - The API server presents what is in its files; it takes up a changed client certificate at a dial, which fails.
 * - In memory that parent and child share, so it goes on when a child is killed.
 */
#ifndef MACHINE_H
#define MACHINE_H

#include "calls.h"
#include "contract.h"
#include "pki.h"

#define MACHINE_ARGS 64
#define MACHINE_ARG_SIZE 128

struct machine_process {
	bool running;
	pid_t pid;
	int64_t started_ms;
	char manifest[65];               /* its digest at the start */
	size_t n_args;
	char args[MACHINE_ARGS][MACHINE_ARG_SIZE];
	int starts;
};

struct machine {
	struct machine_process processes[PROCESS_COUNT];
	pid_t last_pid;
	char client_seen[65];            /* the API server's client certificate as it has read it */
	int64_t looks;
};
extern struct machine *machine;

void machine_share(void);
void machine_boot(void);                 /* everything starts anew */
void machine_look(void);
/* Who signs what kubelets of workers ask for. Borrowed. */
void machine_signer(const struct cert *ca, const struct key *key);

#endif
