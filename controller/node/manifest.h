/* Static Pods' manifests, and the flags in them. What can't be followed is a blocker, never a guess. */
#ifndef MANIFEST_H
#define MANIFEST_H

#include "contract.h"
#include "yaml.h"

struct manifest {
	struct buf text;
	struct yaml *yaml;
	const char *path; /* borrowed */
};
void manifest_release(struct manifest *m);
/* Also when it fails, with a blocker that says why. */
result manifest_read(const char *path, struct manifest *ret, struct report *r, struct err *e) MUST_CHECK;
/* The error as a blocker; fails. */
result manifest_blocked(struct report *r, const char *path, struct err *e);

/* How a flag is given in the first container's command or args; the last one counts (pflag). */
struct manifest_flag {
	const struct yaml_node *node;
	const char *value;
	size_t count;
	bool apart; /* some one has its value in an item of its own: it is seen, but kubeadm writes none so, and none is edited */
};
struct manifest_flag manifest_flag(const struct yaml *y, const char *name);
/* NULL when it is absent. Caller frees. */
char *manifest_value(const struct manifest *m, const char *name);
/* A path flag that we rely on; a blocker when it is not there once, or not under /etc/kubernetes. NULL when absent. Caller frees. */
char *manifest_path(const struct manifest *m, const char *name, struct report *r);
/* In that folder, and not out of it again. */
bool manifest_is_under(const char *path, const char *dir);
/* text NULL: not given. A port that is none is a blocker. */
int manifest_port_of(const char *text, int otherwise, const char *where, struct report *r);
int manifest_port(const struct manifest *m, const char *flag, int otherwise, struct report *r);
/* Where a server on this node is reached: loopback, unless it listens on one address only. Brackets around IPv6. Caller frees. */
char *manifest_host(const struct manifest *m);

#endif
