/* Files that survive a power cut.
 *
 * Invariants
 * - file_replace never leaves a half-written file under the final name: it writes beside (a dot-name in the same folder,
 *   or in `staging` when given), fsyncs, renames, fsyncs the folder.
 * - What a killed process leaves of its writing beside is known by its name, and goes with file_sweep.
 * - Owner, group and mode of a file that is replaced are kept. A new file gets the mode given, owner of the folder.
 * - A path is followed through symlinks only by file_read; file_replace on a symlink is ERR_INPUT (swap it by
 *   file_symlink instead).
 */
#ifndef FILE_H
#define FILE_H

#include "buf.h"
#include <sys/types.h>

/* Appends the whole regular file to out, or nothing on failure. ERR_NOT_FOUND, ERR_INPUT when longer than max bytes, ERR_IO. */
result file_read(const char *path, size_t max, struct buf *out, struct err *e) MUST_CHECK;
bool file_exists(const char *path); /* false on "not there" only; true on any doubt */

/* Replaces path by the bytes; access lists and SELinux labels are kept too. ERR_INPUT when path is a symlink or no regular
 * file. After ERR_IO the old content is there, or, when only the last fsync failed, the new one. staging: a folder on the same file system for the temporary file, or NULL for the same
 * folder (never NULL for /etc/kubernetes/manifests: the kubelet would run a half file). */
result file_replace(const char *path, const void *bytes, size_t n, mode_t mode_if_new, const char *staging,
		    struct err *e) MUST_CHECK;
result file_rename(const char *from, const char *to, struct err *e) MUST_CHECK; /* with fsync of both folders */
result file_remove(const char *path, struct err *e) MUST_CHECK;                /* not there is fine; fsync of the folder */
/* Ditto, but overwritten, unless it has another name too: as good as a file system lets it be. Killed in the middle, it is whole under
 * its name or not there (file_sweep does the rest). */
result file_wipe(const char *path, struct err *e) MUST_CHECK;
/* Wipes what killed processes have left of their writing beside in that folder; that it is not there is fine. For who knows that
 * nobody is writing there just now: it holds a lock. ERR_INPUT: more than 4,096 names. */
result file_sweep(const char *folder, struct err *e) MUST_CHECK;
result file_rmdir(const char *path, struct err *e) MUST_CHECK; /* an empty one; with fsync of the folder above */
/* Makes or swaps the symlink atomically. ERR_CONFLICT when something else than a symlink has the name. */
result file_symlink(const char *target, const char *path, struct err *e) MUST_CHECK;
/* Makes the folder and its parents, all that are new with this mode. ERR_INPUT when a file is in the way. */
result file_mkdir(const char *path, mode_t mode, struct err *e) MUST_CHECK;
/* Copies bytes, owner, mode and times; never a hard link (inotify on the original would go silent). Refuses to overwrite
 * unless it is the same content (ERR_CONFLICT). The folder must be there. At most BUF_CAP_DEFAULT bytes. */
result file_backup(const char *path, const char *to, struct err *e) MUST_CHECK;

/* Modification time in ms since the epoch; the symlink's target when it is one. */
result file_mtime(const char *path, int64_t *ret_ms, struct err *e) MUST_CHECK;
/* Names in a folder, without "." and "..", sorted. At most max (ERR_INPUT beyond). */
result file_list(const char *path, size_t max, struct strs *ret, struct err *e) MUST_CHECK;

/* An exclusive lock, held until file_unlock or death. ERR_BUSY when another holds it. */
result file_lock(const char *path, int *ret_fd, struct err *e) MUST_CHECK;
void file_unlock(int *fd); /* cleanup(file_unlock); -1 is fine */

#endif
