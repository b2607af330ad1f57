/* System calls that change files, seen one by one: the linker's --wrap puts these in place of libc's (rules.mk). The product's code
 * is as it is released.
 *
 * Invariants
 * - Counted is what changes the tree under `root`, and what ends or restarts a process (machine.c says so by calls_count). What fails
 *   is not counted.
 * - The record is in memory that parent and child share, so it outlives a child that was killed.
 * - Right after the call number `kill_after` the process gets SIGKILL: what is between it and the next one is not on any disk.
 * - Clocks that waits look at run ahead by what would have been slept.
 */
#ifndef CALLS_H
#define CALLS_H

#include "buf.h"

#include <sys/types.h>
#include <time.h>

#define CALLS_MAX 4096
#define CALLS_BYTES_MAX ((size_t)8 << 20)
#define CALL_PATH_SIZE 240
#define NEVER (-1)

enum call_kind {
	CALL_CREATE, CALL_WRITE, CALL_MODE, CALL_OWNER, CALL_TIMES, CALL_SYNC, CALL_RENAME, CALL_LINK, CALL_UNLINK, CALL_SYMLINK, CALL_MKDIR,
	CALL_RMDIR, CALL_PROCESS /* no file: a process was ended or restarted */
};

struct call {
	enum call_kind kind;
	char path[CALL_PATH_SIZE]; /* without root */
	char to[CALL_PATH_SIZE];   /* renames and links: the new name; symlinks: what it says */
	mode_t mode;
	uid_t uid;
	gid_t gid;
	size_t at, len, bytes;     /* writes: where in the file, how much, where in `bytes` below */
	struct timespec time;      /* the file's, afterwards */
};

struct calls {
	char root[CALL_PATH_SIZE];
	char authority_key[CALL_PATH_SIZE]; /* what is found in CONTRACT_KEY_DIR for Kubernetes; "": nothing */
	long kill_after;                    /* NEVER, 0: before the first one */
	size_t n;
	struct call list[CALLS_MAX];
	size_t n_bytes;
	char bytes[CALLS_BYTES_MAX];
	int64_t ahead_ms;
};
extern struct calls *calls;

void calls_share(const char *root);       /* makes it */
void calls_begin(long kill_after);        /* forgets the record, and counts what this process does from now on */
void calls_count(enum call_kind kind, const char *what);
void calls_sleep(int64_t ms);             /* really */
const char *call_name(enum call_kind kind);

#endif
