/* What a disk holds: a tree of files as it was, what was done to it since, and what of that a power cut may leave.
 *
 * The model is POSIX's, not some file system's:
 * - A file's content, owner, mode and times are safe once it was fsynced; before that a cut leaves what was safe before (a new file:
 *   nothing, mode 0600) or all of it.
 * - A name (made, moved, taken away) is safe once its folder was fsynced; before that each may be lost on its own, in any combination,
 *   as no order is promised. A rename is one step: lost or not, in both folders, as on every file system with a journal. A symlink's
 *   and a folder's content come with their names.
 * Not modelled: torn blocks within one file, disks that lie about fsync.
 */
#ifndef DISK_H
#define DISK_H

#include "calls.h"

struct disk;
struct disk *disk_load(const char *root);         /* all of it safe */
void disk_freep(struct disk **d);
void disk_do(struct disk *d, const struct calls *from, const struct call *c);
size_t disk_unsafe_names(const struct disk *d);   /* steps that a cut may take back */
bool disk_unsafe_content(const struct disk *d);
/* What is there when, of the unsafe names, those with a bit in `kept` have come to be (the first is bit 0), and unsafe content with
 * kept_content. Written to root, which must be there and empty. */
void disk_store(const struct disk *d, unsigned kept, bool kept_content, const char *root);
/* SHA-256 of what disk_store would write, times aside. */
void disk_digest(const struct disk *d, unsigned kept, bool kept_content, char ret_hex[static 65]);

#endif
