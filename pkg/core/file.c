#define _GNU_SOURCE /* mkostemp, explicit_bzero, flock */

#include "file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* --- Paths and descriptors --------------------------------------------------------------------- */

static void fd_closep(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

static int fd_steal(int *fd)
{
	int taken = *fd;
	*fd = -1;
	return taken;
}

/* The folder that holds path; caller frees. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	if (!slash)
		return str_dup(".");
	return slash == path ? str_dup("/") : str_ndup(path, (size_t)(slash - path));
}

static const char *name_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

/* A rename is on disk when its folder is. */
static result folder_sync(const char *folder, struct err *e)
{
	int fd cleanup(fd_closep) = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, "opening %s", folder);
	if (fsync(fd) != 0 && errno != EINVAL) /* EINVAL: a file system that has nothing to sync */
		return err_errno(e, "syncing %s", folder);
	return OK;
}

static result parent_sync(const char *path, struct err *e)
{
	char *folder cleanup(str_freep) = folder_of(path);
	return folder_sync(folder, e);
}

/* --- Reading ----------------------------------------------------------------------------------- */

static result read_all(int fd, const char *path, size_t max, struct buf *out, struct err *e)
{
	char chunk[8192];
	ssize_t n = 0;
	do {
		n = read(fd, chunk, sizeof(chunk));
		if (n > 0)
			buf_add(out, chunk, (size_t)n);
	} while ((n > 0 && out->len <= max && !out->overflow) || (n < 0 && errno == EINTR));
	int number = errno;
	explicit_bzero(chunk, sizeof(chunk));
	errno = number;
	if (n < 0)
		return err_errno(e, "reading %s", path);
	if (out->len > max || out->overflow)
		return err_set(e, ERR_INPUT, "reading %s: longer than %zu bytes", path, max);
	return OK;
}

result file_read(const char *path, size_t max, struct buf *out, struct err *e)
{
	/* O_NONBLOCK: a FIFO in place of a file must not hold us up. */
	int fd cleanup(fd_closep) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return err_errno(e, "opening %s", path);
	struct stat st = { 0 };
	if (fstat(fd, &st) != 0)
		return err_errno(e, "looking at %s", path);
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_INPUT, "reading %s: not a regular file", path);
	struct buf bytes cleanup(buf_release) = BUF_SECRET;
	bytes.cap = max < SIZE_MAX / 2 ? max + 8192 : max;
	TRY(read_all(fd, path, max, &bytes, e));
	if (out->overflow || bytes.len > (out->cap ? out->cap : BUF_CAP_DEFAULT) - out->len)
		return err_set(e, ERR_INPUT, "reading %s: %zu bytes are too many", path, bytes.len);
	buf_add(out, buf_str(&bytes), bytes.len);
	return OK;
}

bool file_exists(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

result file_mtime(const char *path, int64_t *ret_ms, struct err *e)
{
	struct stat st = { 0 };
	if (stat(path, &st) != 0)
		return err_errno(e, "looking at %s", path);
	*ret_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
	return OK;
}

static void folder_closep(DIR **d)
{
	if (*d)
		(void)closedir(*d);
}

static int compare_strings(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* NULL, errno 0: the end. */
static const char *next_name(DIR *d)
{
	const struct dirent *entry = NULL;
	do {
		errno = 0;
		entry = readdir(d); /* NOLINT(concurrency-mt-unsafe): the stream is ours alone */
	} while (entry && (str_eq(entry->d_name, ".") || str_eq(entry->d_name, "..")));
	return entry ? entry->d_name : NULL;
}

result file_list(const char *path, size_t max, struct strs *ret, struct err *e)
{
	DIR *folder cleanup(folder_closep) = opendir(path);
	if (!folder)
		return err_errno(e, "opening %s", path);
	struct strs names cleanup(strs_release) = { 0 };
	for (const char *name; (name = next_name(folder));) {
		if (names.n == max)
			return err_set(e, ERR_INPUT, "listing %s: more than %zu files", path, max);
		strs_add(&names, name);
	}
	if (errno != 0)
		return err_errno(e, "listing %s", path);
	if (names.n)
		qsort(names.items, names.n, sizeof(*names.items), compare_strings);
	for (size_t i = 0; i < names.n; i++)
		strs_add(ret, names.items[i]);
	return OK;
}

/* --- Writing beside ---------------------------------------------------------------------------- */

/* "." NAME BESIDE_MARK and letters and digits. A killed process leaves such files; file_sweep knows them by that. */
#define BESIDE_MARK ".certrotation-"
#define BESIDE_RANDOM 6
#define BESIDE_RANDOM_NAME 16

static bool is_beside(const char *name)
{
	const size_t mark = strlen(BESIDE_MARK);
	size_t n = strlen(name), random = 0;
	while (random < n && isalnum((unsigned char)name[n - 1 - random]))
		random++;
	return name[0] == '.' && (random == BESIDE_RANDOM || random == BESIDE_RANDOM_NAME) && n > 1 + mark + random &&
	       strncmp(name + n - random - mark, BESIDE_MARK, mark) == 0;
}

/* A file under a name of its own; it disappears with the variable unless it was given its final name. */
struct beside {
	int fd;
	char *path;
};

static void beside_release(struct beside *b)
{
	if (b->path)
		(void)unlink(b->path);
	str_freep(&b->path);
	fd_closep(&b->fd);
}

static result beside_open(const char *folder, const char *name, struct beside *ret, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("%s/.%s" BESIDE_MARK "XXXXXX", folder, name);
	int fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return err_errno(e, "making a temporary file in %s", folder);
	*ret = (struct beside){ .fd = fd, .path = steal(&path) };
	return OK;
}

/* A name for what is not made by mkostemp. Caller frees. */
static char *beside_name(const char *path, uint64_t random)
{
	char *folder cleanup(str_freep) = folder_of(path);
	return str_printf("%s/.%s" BESIDE_MARK "%016llx", folder, name_of(path), (unsigned long long)random);
}

static result random_number(uint64_t *ret, struct err *e)
{
	if (getrandom(ret, sizeof(*ret), 0) != (ssize_t)sizeof(*ret))
		return err_errno(e, "getting random bytes");
	return OK;
}

static result write_all(int fd, const char *bytes, size_t n, struct err *e)
{
	while (n > 0) {
		ssize_t written = write(fd, bytes, n);
		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return err_errno(e, "writing");
		bytes += written;
		n -= (size_t)written;
	}
	return OK;
}

/* What a file looks like from outside. */
struct look {
	uid_t uid;
	gid_t gid;
	mode_t mode;
};

static result look_apply(int fd, const struct look *want, struct err *e)
{
	struct stat st = { 0 };
	if (fstat(fd, &st) != 0)
		return err_errno(e, "looking at the temporary file");
	bool foreign = st.st_uid != want->uid || st.st_gid != want->gid;
	if (foreign && fchown(fd, want->uid, want->gid) != 0)
		return err_errno(e, "setting the owner");
	if (fchmod(fd, want->mode & 07777) != 0) /* after fchown, which takes bits away */
		return err_errno(e, "setting the mode");
	return OK;
}

/* The SELinux label, where the kernel lets us; the access list, or an error. The other extended attributes are about
 * the bytes (security.ima) and must not be copied. */
static result attribute_copy(const char *from, int to, const char *name, bool must, struct err *e)
{
	char value[4096];
	ssize_t n = lgetxattr(from, name, value, sizeof(value));
	if (n < 0 && (errno == ENODATA || errno == ENOTSUP || !must))
		return OK;
	if (n < 0 || (fsetxattr(to, name, value, (size_t)n, 0) != 0 && must))
		return err_errno(e, "keeping %s", name);
	return OK;
}

/* lstat, for what is about to be replaced. *ret_there false: there is nothing. */
static result look_at_target(const char *path, struct look *ret, bool *ret_there, struct err *e)
{
	struct stat st = { 0 };
	if (lstat(path, &st) != 0) {
		if (errno != ENOENT)
			return err_errno(e, "looking at it");
		*ret_there = false;
		return OK;
	}
	if (S_ISLNK(st.st_mode))
		return err_set(e, ERR_INPUT, "it is a symbolic link; its target is what must be replaced");
	if (!S_ISREG(st.st_mode))
		return err_set(e, ERR_INPUT, "it is not a regular file");
	*ret = (struct look){ st.st_uid, st.st_gid, st.st_mode };
	*ret_there = true;
	return OK;
}

/* A new file belongs to whom its folder belongs. */
static result look_of_new(const char *path, mode_t mode, struct look *ret, struct err *e)
{
	char *folder cleanup(str_freep) = folder_of(path);
	struct stat st = { 0 };
	if (stat(folder, &st) != 0)
		return err_errno(e, "looking at %s", folder);
	*ret = (struct look){ st.st_uid, st.st_gid, mode };
	return OK;
}

static result beside_write(struct beside *b, const void *bytes, size_t n, const struct look *look,
			   struct err *e)
{
	TRY(write_all(b->fd, bytes, n, e));
	TRY(look_apply(b->fd, look, e));
	if (fsync(b->fd) != 0)
		return err_errno(e, "syncing");
	return OK;
}

/* The temporary file takes the name, in one step. */
static result beside_rename(struct beside *b, const char *path, struct err *e)
{
	if (rename(b->path, path) != 0)
		return err_errno(e, "renaming %s", b->path);
	str_freep(&b->path);
	return parent_sync(path, e);
}

static result replace(const char *path, const void *bytes, size_t n, mode_t mode_if_new,
		      const char *staging, struct err *e)
{
	bool there = false;
	struct look look = { 0 };
	TRY(look_at_target(path, &look, &there, e));
	if (!there)
		TRY(look_of_new(path, mode_if_new, &look, e));
	char *folder cleanup(str_freep) = staging ? str_dup(staging) : folder_of(path);
	struct beside b cleanup(beside_release) = { .fd = -1 };
	TRY(beside_open(folder, name_of(path), &b, e));
	if (there)
		TRY(attribute_copy(path, b.fd, "security.selinux", false, e));
	TRY(beside_write(&b, bytes, n, &look, e));
	if (there)
		TRY(attribute_copy(path, b.fd, "system.posix_acl_access", true, e));
	TRY(beside_rename(&b, path, e));
	return staging ? folder_sync(staging, e) : OK;
}

result file_replace(const char *path, const void *bytes, size_t n, mode_t mode_if_new,
		    const char *staging, struct err *e)
{
	TRY_CTX(replace(path, bytes, n, mode_if_new, staging, e), e, "replacing %s", path);
	return OK;
}

/* --- Names ------------------------------------------------------------------------------------- */

result file_rename(const char *from, const char *to, struct err *e)
{
	if (rename(from, to) != 0)
		return err_errno(e, "renaming %s to %s", from, to);
	TRY(parent_sync(to, e));
	return parent_sync(from, e);
}

result file_remove(const char *path, struct err *e)
{
	if (unlink(path) != 0) {
		if (errno == ENOENT)
			return OK;
		return err_errno(e, "removing %s", path);
	}
	return parent_sync(path, e);
}

static result overwrite(int fd, off_t n, struct err *e)
{
	static const char zeros[4096];
	for (off_t left = n; left > 0; left -= (off_t)sizeof(zeros))
		TRY(write_all(fd, zeros, left < (off_t)sizeof(zeros) ? (size_t)left : sizeof(zeros), e));
	if (fsync(fd) != 0)
		return err_errno(e, "syncing");
	return OK;
}

/* A copy that was just being named (file_backup) has two names: what the other one shows stays. */
static result wipe_beside(const char *path, struct err *e)
{
	int fd cleanup(fd_closep) = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct stat st = { 0 };
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 1)
		TRY_CTX(overwrite(fd, st.st_size, e), e, "overwriting %s", path);
	return file_remove(path, e);
}

/* Under a name beside first, and that on disk: nobody shall find half of it under its own. */
result file_wipe(const char *path, struct err *e)
{
	uint64_t random = 0;
	TRY_CTX(random_number(&random, e), e, "wiping %s", path);
	char *beside cleanup(str_freep) = beside_name(path, random);
	if (rename(path, beside) != 0)
		return errno == ENOENT ? OK : err_errno(e, "wiping %s", path);
	TRY(parent_sync(path, e));
	return wipe_beside(beside, e);
}

result file_sweep(const char *folder, struct err *e)
{
	struct strs names cleanup(strs_release) = { 0 };
	struct err why = { 0 };
	if (!file_list(folder, 4096, &names, &why).ok)
		return why.kind == ERR_NOT_FOUND ? OK : err_set(e, why.kind, "%s", why.message);
	for (size_t i = 0; i < names.n; i++) {
		char *path cleanup(str_freep) = str_printf("%s/%s", folder, names.items[i]);
		if (is_beside(names.items[i]))
			TRY(wipe_beside(path, e));
	}
	return OK;
}

result file_rmdir(const char *path, struct err *e)
{
	if (rmdir(path) != 0)
		return err_errno(e, "removing the folder %s", path);
	return parent_sync(path, e);
}

/* symlink(2) under a free dot-name in path's folder. */
static result beside_symlink(const char *target, const char *path, struct beside *ret, struct err *e)
{
	char *folder cleanup(str_freep) = folder_of(path);
	for (int i = 0; i < 16; i++) {
		uint64_t random = 0;
		TRY(random_number(&random, e));
		char *name cleanup(str_freep) = beside_name(path, random);
		if (symlink(target, name) == 0) {
			ret->path = steal(&name);
			return OK;
		}
		if (errno != EEXIST)
			return err_errno(e, "making a link in %s", folder);
	}
	return err_set(e, ERR_CONFLICT, "no free name in %s", folder);
}

result file_symlink(const char *target, const char *path, struct err *e)
{
	struct stat st = { 0 };
	if (lstat(path, &st) == 0 && !S_ISLNK(st.st_mode))
		return err_set(e, ERR_CONFLICT, "linking %s: something that is not a link is there", path);
	struct beside b cleanup(beside_release) = { .fd = -1 };
	TRY_CTX(beside_symlink(target, path, &b, e), e, "linking %s", path);
	TRY_CTX(beside_rename(&b, path, e), e, "linking %s", path);
	return OK;
}

/* One level; that it is there already is fine. */
static result folder_make(const char *path, mode_t mode, struct err *e)
{
	if (mkdir(path, mode) == 0) {
		if (chmod(path, mode) != 0) /* whatever the umask */
			return err_errno(e, "setting the mode of %s", path);
		return parent_sync(path, e);
	}
	struct stat st = { 0 };
	int number = errno;
	if (number == EEXIST && stat(path, &st) == 0 && !S_ISDIR(st.st_mode))
		return err_set(e, ERR_INPUT, "making the folder %s: a file is there", path);
	errno = number;
	return number == EEXIST ? OK : err_errno(e, "making the folder %s", path);
}

result file_mkdir(const char *path, mode_t mode, struct err *e)
{
	if (!*path)
		return err_set(e, ERR_INPUT, "making a folder: its name is empty");
	for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		char *parent cleanup(str_freep) = str_ndup(path, (size_t)(slash - path));
		TRY(folder_make(parent, mode, e));
	}
	return folder_make(path, mode, e);
}

/* --- Backups ----------------------------------------------------------------------------------- */

static bool same_bytes(const struct buf *a, const struct buf *b)
{
	return a->len == b->len && memcmp(buf_str(a), buf_str(b), a->len) == 0;
}

/* The name `to` is taken: fine when it is an earlier run of the very same backup. */
static result same_backup(const char *to, const struct buf *bytes, struct err *e)
{
	struct buf there cleanup(buf_release) = BUF_SECRET;
	TRY(file_read(to, BUF_CAP_DEFAULT, &there, e));
	if (!same_bytes(&there, bytes))
		return err_set(e, ERR_CONFLICT, "another backup is there already");
	return OK;
}

static result backup(const char *path, const char *to, struct err *e)
{
	struct buf bytes cleanup(buf_release) = BUF_SECRET;
	TRY(file_read(path, BUF_CAP_DEFAULT, &bytes, e));
	if (file_exists(to))
		return same_backup(to, &bytes, e);
	struct stat st = { 0 };
	if (stat(path, &st) != 0)
		return err_errno(e, "looking at it");
	char *folder cleanup(str_freep) = folder_of(to);
	struct beside b cleanup(beside_release) = { .fd = -1 };
	TRY(beside_open(folder, name_of(to), &b, e));
	const struct timespec times[2] = { st.st_atim, st.st_mtim };
	struct look look = { st.st_uid, st.st_gid, st.st_mode };
	TRY(write_all(b.fd, buf_str(&bytes), bytes.len, e));
	TRY(look_apply(b.fd, &look, e));
	if (futimens(b.fd, times) != 0 || fsync(b.fd) != 0)
		return err_errno(e, "writing");
	/* link(2), unlike rename(2), never overwrites; the temporary name goes with b. */
	if (link(b.path, to) != 0)
		return errno == EEXIST ? same_backup(to, &bytes, e) : err_errno(e, "naming it");
	beside_release(&b);
	return parent_sync(to, e);
}

result file_backup(const char *path, const char *to, struct err *e)
{
	TRY_CTX(backup(path, to, e), e, "backing up %s to %s", path, to);
	return OK;
}

/* --- Locks ------------------------------------------------------------------------------------- */

result file_lock(const char *path, int *ret_fd, struct err *e)
{
	int fd cleanup(fd_closep) = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_errno(e, "opening the lock %s", path);
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		if (errno == EWOULDBLOCK)
			return err_set(e, ERR_BUSY, "another process holds the lock %s", path);
		return err_errno(e, "locking %s", path);
	}
	*ret_fd = fd_steal(&fd);
	return OK;
}

void file_unlock(int *fd)
{
	fd_closep(fd); /* which releases the lock */
}
