/* A folder that stands for a node's root, with the files that a test wants.
 *
 * Invariants
 * - It is under $TMPDIR and goes with tree_release, whatever is in it.
 * - What can't be written ends the program: nothing can be said without it.
 */
#ifndef TREE_H
#define TREE_H

#include "buf.h"

#include <sys/types.h>

struct tree {
	char *root;
};
struct tree tree_new(void);
void tree_release(struct tree *t);                                   /* cleanup(tree_release) */
char *tree_path(const struct tree *t, const char *path);             /* root + path; caller frees */
void tree_put(const struct tree *t, const char *path, const char *text); /* with its folders, mode 0644 */
void tree_put_mode(const struct tree *t, const char *path, const char *text, mode_t mode);
void tree_mkdir(const struct tree *t, const char *path);
void tree_link(const struct tree *t, const char *target, const char *path);
char *tree_read(const struct tree *t, const char *path);             /* NULL: not there; caller frees */
bool tree_has(const struct tree *t, const char *path);
/* The first `from` in the file becomes `to`; it must be there. */
void tree_edit(const struct tree *t, const char *path, const char *from, const char *to);
/* Every path with mode, size, times and content's digest, one a line: equal when nothing was changed or written anew. */
char *tree_snapshot(const struct tree *t);
/* A file of tests/unit/fixtures; caller frees. */
char *fixture_text(const char *name);

#endif
