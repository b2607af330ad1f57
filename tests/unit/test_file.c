/* file: what is replaced keeps its owner, mode and access list, and is never half there; what fails leaves nothing behind. */
#define _GNU_SOURCE /* unshare, mount, inotify */

#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>

/* Each test has an empty folder; paths are relative to it. */
static int enter(void **state)
{
	const char *tmp = getenv("TMPDIR");
	char *folder = str_printf("%s/file.XXXXXX", tmp ? tmp : "/tmp");
	*state = folder;
	(void)umask(022);
	return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave(void **state)
{
	char *folder = *state;
	int status = chdir("/") == 0 ? 0 : -1;
	pid_t pid = fork();
	if (pid == 0) {
		(void)execl("/bin/rm", "rm", "-rf", folder, (char *)NULL);
		_exit(1);
	}
	(void)waitpid(pid, NULL, 0);
	free(folder);
	return status;
}

#define check(expr)                                              \
	do {                                                     \
		struct err e = { 0 };                            \
		if (!(expr).ok)                                  \
			fail_msg("%s: %s", #expr, e.message);    \
	} while (0)

#define refuse(expr, want)                                               \
	do {                                                             \
		struct err e = { 0 };                                    \
		if ((expr).ok)                                           \
			fail_msg("%s succeeded", #expr);                 \
		if (e.kind != (want))                                    \
			fail_msg("%s: kind %d: %s", #expr, e.kind, e.message); \
	} while (0)

static void put(const char *path, const char *text, mode_t mode)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	assert_int_equal(fchmod(fd, mode), 0);
	assert_int_equal(close(fd), 0);
}

static void assert_content(const char *path, const char *want)
{
	struct buf b cleanup(buf_release) = BUF_INIT;
	check(file_read(path, 1 << 20, &b, &e));
	assert_string_equal(buf_str(&b), want);
}

/* The folder holds these names and no other: no temporary file is left. */
static void assert_names(const char *folder, const char *want)
{
	struct strs names cleanup(strs_release) = { 0 };
	check(file_list(folder, 1000, &names, &e));
	struct buf b cleanup(buf_release) = BUF_INIT;
	for (size_t i = 0; i < names.n; i++)
		buf_addf(&b, "%s%s", i ? " " : "", names.items[i]);
	assert_string_equal(buf_str(&b), want);
}

static struct stat look(const char *path)
{
	struct stat st = { 0 };
	assert_int_equal(lstat(path, &st), 0);
	return st;
}

static bool is_root(void)
{
	return geteuid() == 0;
}

/* --- Reading --------------------------------------------------------------------------------- */

static void test_read(void **state)
{
	(void)state;
	put("f", "12345", 0600);
	struct buf b cleanup(buf_release) = BUF_INIT;
	buf_add_str(&b, "> ");
	check(file_read("f", 5, &b, &e)); /* exactly the limit */
	assert_string_equal(b.data, "> 12345");
	refuse(file_read("f", 4, &b, &e), ERR_INPUT);
	refuse(file_read("absent", 100, &b, &e), ERR_NOT_FOUND);
	refuse(file_read(".", 100, &b, &e), ERR_INPUT);
	assert_string_equal(b.data, "> 12345"); /* failures add nothing */
	assert_int_equal(symlink("f", "link"), 0);
	assert_int_equal(symlink("nowhere", "dangling"), 0);
	check(file_read("link", SIZE_MAX, &b, &e));
	refuse(file_read("dangling", 5, &b, &e), ERR_NOT_FOUND);
	assert_string_equal(b.data, "> 1234512345");
}

static void test_read_large_and_binary(void **state)
{
	(void)state;
	struct buf b cleanup(buf_release) = BUF_INIT, back cleanup(buf_release) = BUF_SECRET;
	for (int i = 0; i < 300000; i++)
		buf_add_char(&b, (char)(i * 7));
	check(file_replace("f", b.data, b.len, 0600, NULL, &e));
	check(file_read("f", 300000, &back, &e));
	assert_int_equal(back.len, b.len);
	assert_memory_equal(back.data, b.data, b.len);
	refuse(file_read("f", 299999, &back, &e), ERR_INPUT);
	struct buf small cleanup(buf_release) = BUF_INIT;
	small.cap = 1000;
	refuse(file_read("f", 300000, &small, &e), ERR_INPUT);
	assert_int_equal(small.len, 0);
	assert_false(small.overflow);
}

static void test_read_does_not_hang(void **state)
{
	(void)state;
	assert_int_equal(mkfifo("fifo", 0600), 0);
	struct buf b cleanup(buf_release) = BUF_INIT;
	refuse(file_read("fifo", 100, &b, &e), ERR_INPUT);
	struct buf endless cleanup(buf_release) = BUF_INIT;
	refuse(file_read("/dev/zero", 100, &endless, &e), ERR_INPUT);
	/* Its size is said to be 0. */
	struct buf status cleanup(buf_release) = BUF_INIT;
	check(file_read("/proc/self/status", 65536, &status, &e));
	assert_non_null(strstr(buf_str(&status), "Pid:"));
}

static void test_exists(void **state)
{
	(void)state;
	put("f", "", 0600);
	assert_int_equal(symlink("nowhere", "dangling"), 0);
	assert_true(file_exists("f"));
	assert_true(file_exists("."));
	assert_true(file_exists("dangling")); /* the name is taken */
	assert_false(file_exists("absent"));
	assert_false(file_exists("f/below"));
	char *too_long cleanup(str_freep) = mem_alloc(PATH_MAX + 2);
	memset(too_long, 'x', PATH_MAX + 1);
	assert_true(file_exists(too_long)); /* in doubt */
}

static void test_list(void **state)
{
	(void)state;
	put("b", "", 0600);
	put(".hidden", "", 0600);
	put("a", "", 0600);
	assert_int_equal(mkdir("c", 0700), 0);
	assert_names(".", ".hidden a b c");
	assert_names("c", "");
	struct strs names cleanup(strs_release) = { 0 };
	check(file_list(".", 4, &names, &e));
	refuse(file_list(".", 3, &names, &e), ERR_INPUT);
	refuse(file_list("absent", 10, &names, &e), ERR_NOT_FOUND);
	refuse(file_list("a", 10, &names, &e), ERR_INPUT);
	assert_int_equal(names.n, 4);
}

static void test_mtime(void **state)
{
	(void)state;
	put("f", "", 0600);
	const struct timespec times[2] = { { 1, 0 }, { 1767323045, 678999999 } };
	assert_int_equal(utimensat(AT_FDCWD, "f", times, 0), 0);
	assert_int_equal(symlink("f", "link"), 0);
	int64_t ms = 0;
	check(file_mtime("link", &ms, &e));
	assert_int_equal(ms, 1767323045678);
	ms = 5;
	refuse(file_mtime("absent", &ms, &e), ERR_NOT_FOUND);
	assert_int_equal(ms, 5);
}

/* --- Replacing ------------------------------------------------------------------------------- */

static void test_replace_makes_a_file(void **state)
{
	(void)state;
	(void)umask(077); /* does not matter */
	check(file_replace("new", "abc", 3, 0644, NULL, &e));
	assert_content("new", "abc");
	assert_int_equal(look("new").st_mode & 07777, 0644);
	check(file_replace("empty", "", 0, 0600, NULL, &e));
	assert_content("empty", "");
	assert_names(".", "empty new");
}

static void test_replace_keeps_mode(void **state)
{
	(void)state;
	static const mode_t modes[] = { 0600, 0644, 0400, 0640, 0777, 0, 04755 };
	for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
		put("f", "old", modes[i]);
		check(file_replace("f", "new!", 4, 0666, NULL, &e));
		assert_int_equal(look("f").st_mode & 07777, modes[i]);
		assert_int_equal(chmod("f", 0600), 0);
		assert_content("f", "new!");
		assert_int_equal(unlink("f"), 0);
	}
	assert_names(".", "");
}

static void test_replace_keeps_owner(void **state)
{
	(void)state;
	if (!is_root())
		skip();
	put("f", "old", 0640);
	assert_int_equal(chown("f", 1234, 5678), 0);
	check(file_replace("f", "new", 3, 0600, NULL, &e));
	assert_int_equal(look("f").st_uid, 1234);
	assert_int_equal(look("f").st_gid, 5678);
	assert_int_equal(look("f").st_mode & 07777, 0640);
	/* A new file belongs to whom its folder belongs, wherever it was written first. */
	assert_int_equal(mkdir("folder", 0755), 0);
	assert_int_equal(mkdir("staging", 0700), 0);
	assert_int_equal(chown("folder", 4321, 8765), 0);
	check(file_replace("folder/f", "x", 1, 0600, "staging", &e));
	assert_int_equal(look("folder/f").st_uid, 4321);
	assert_int_equal(look("folder/f").st_gid, 8765);
}

static void test_replace_keeps_access_list(void **state)
{
	(void)state;
	/* user::rw-, user:1234:r--, group::---, mask::r--, other::---, as the kernel stores it */
	static const unsigned char acl[] = {
		2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xD2, 4, 0, 0, 4, 0,
		0, 0, 255, 255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
	};
	put("f", "old", 0640);
	if (setxattr("f", "system.posix_acl_access", acl, sizeof(acl), 0) != 0)
		skip(); /* this file system has none */
	check(file_replace("f", "new", 3, 0600, NULL, &e));
	unsigned char kept[256];
	ssize_t n = getxattr("f", "system.posix_acl_access", kept, sizeof(kept));
	assert_int_equal(n, sizeof(acl));
	assert_memory_equal(kept, acl, sizeof(acl));
	assert_content("f", "new");
}

static void test_replace_refuses_symlinks(void **state)
{
	(void)state;
	put("target", "old", 0600);
	assert_int_equal(symlink("target", "link"), 0);
	assert_int_equal(symlink("nowhere", "dangling"), 0);
	assert_int_equal(mkdir("folder", 0700), 0);
	assert_int_equal(mkfifo("fifo", 0600), 0);
	refuse(file_replace("link", "new", 3, 0600, NULL, &e), ERR_INPUT);
	refuse(file_replace("dangling", "new", 3, 0600, NULL, &e), ERR_INPUT);
	refuse(file_replace("folder", "new", 3, 0600, NULL, &e), ERR_INPUT);
	refuse(file_replace("fifo", "new", 3, 0600, NULL, &e), ERR_INPUT);
	refuse(file_replace("absent/f", "new", 3, 0600, NULL, &e), ERR_NOT_FOUND);
	refuse(file_replace("target/f", "new", 3, 0600, NULL, &e), ERR_INPUT);
	struct err e = { 0 };
	assert_false(file_replace("link", "new", 3, 0600, NULL, &e).ok);
	assert_non_null(strstr(e.message, "symbolic link")); /* says what to do, not just what it is not */
	assert_content("target", "old");
	assert_true(S_ISLNK(look("link").st_mode));
	assert_names(".", "dangling fifo folder link target");
}

/* What others see in the final folder while a file is replaced: with staging, nothing but the final name. */
static void test_staging_keeps_the_folder_clean(void **state)
{
	(void)state;
	assert_int_equal(mkdir("manifests", 0755), 0);
	assert_int_equal(mkdir("staging", 0700), 0);
	put("manifests/pod.yaml", "old", 0600);
	int watch = inotify_init1(IN_NONBLOCK);
	assert_true(watch >= 0);
	assert_true(inotify_add_watch(watch, "manifests", IN_ALL_EVENTS) >= 0);
	check(file_replace("manifests/pod.yaml", "new", 3, 0600, "staging", &e));
	check(file_replace("manifests/other.yaml", "new", 3, 0600, "staging", &e));
	_Alignas(struct inotify_event) char events[8192];
	ssize_t n = read(watch, events, sizeof(events));
	assert_true(n > 0);
	int moved = 0;
	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *ev = (const struct inotify_event *)(const void *)(events + at);
		if (ev->len) {
			assert_true(str_ends(ev->name, ".yaml"));
			assert_true(ev->name[0] != '.');
		}
		moved += (ev->mask & IN_MOVED_TO) != 0;
		at += (ssize_t)(sizeof(*ev) + ev->len);
	}
	assert_int_equal(moved, 2);
	assert_int_equal(close(watch), 0);
	assert_names("staging", "");
	assert_names("manifests", "other.yaml pod.yaml");
}

static volatile bool reading;

/* Reads as fast as it can; everything it sees must be one whole version. */
static void *read_on(void *context)
{
	size_t *reads = context;
	while (reading) {
		struct buf b cleanup(buf_release) = BUF_INIT;
		struct err e = { 0 };
		if (!file_read("f", 1 << 20, &b, &e).ok || b.len != 100000 ||
		    memchr(b.data, b.data[0] == 'a' ? 'b' : 'a', b.len))
			return (void *)"half a file was seen";
		(*reads)++;
	}
	return NULL;
}

static void test_readers_see_whole_files(void **state)
{
	(void)state;
	char *a cleanup(str_freep) = mem_alloc(100001), *b cleanup(str_freep) = mem_alloc(100001);
	memset(a, 'a', 100000);
	memset(b, 'b', 100000);
	check(file_replace("f", a, 100000, 0600, NULL, &e));
	size_t reads = 0;
	pthread_t reader;
	reading = true;
	assert_int_equal(pthread_create(&reader, NULL, read_on, &reads), 0);
	for (int i = 0; i < 200; i++)
		check(file_replace("f", i % 2 ? a : b, 100000, 0600, NULL, &e));
	reading = false;
	void *complaint = NULL;
	assert_int_equal(pthread_join(reader, &complaint), 0);
	assert_null(complaint);
	assert_true(reads > 0);
}

/* --- Failures -------------------------------------------------------------------------------- */

/* In a child with its own limits or mounts; 0 when all is as it should be, 77 when it can't be tried here. */
static void in_child(int (*f)(void))
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(f());
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* The old content is all there, under the old name, and nothing else is. */
static bool untouched(const char *folder, const char *path, const char *content)
{
	struct err e = { 0 };
	struct buf b cleanup(buf_release) = BUF_INIT;
	struct strs names cleanup(strs_release) = { 0 };
	return file_read(path, 1 << 20, &b, &e).ok && str_eq(buf_str(&b), content) &&
	       file_list(folder, 10, &names, &e).ok && names.n == 1;
}

static int replace_over_the_limit(void)
{
	(void)signal(SIGXFSZ, SIG_IGN);
	static const struct rlimit limit = { 1000, 1000 };
	char bytes[4000] = "x";
	struct err e = { 0 };
	if (setrlimit(RLIMIT_FSIZE, &limit) != 0)
		return 77;
	if (file_replace("d/f", bytes, sizeof(bytes), 0600, NULL, &e).ok)
		return 1;
	if (e.kind != ERR_IO || !str_starts(e.message, "replacing d/f: "))
		return 2;
	return untouched("d", "d/f", "old") ? 0 : 3;
}

static void test_write_that_fails_in_the_middle(void **state)
{
	(void)state;
	assert_int_equal(mkdir("d", 0700), 0);
	put("d/f", "old", 0600);
	in_child(replace_over_the_limit);
}

static int replace_on_a_full_disk(void)
{
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("tiny", "d", "tmpfs", 0, "size=64k") != 0)
		return 77;
	struct err e = { 0 };
	static char bytes[100000];
	if (!file_replace("d/f", "old", 3, 0600, NULL, &e).ok)
		return 1;
	if (file_replace("d/f", bytes, sizeof(bytes), 0600, NULL, &e).ok || e.kind != ERR_IO)
		return 2;
	if (!strstr(e.message, "No space left"))
		return 3;
	if (!untouched("d", "d/f", "old"))
		return 4;
	/* Another disk is no place for the temporary file. */
	if (file_replace("d/f", "new", 3, 0600, ".", &e).ok || e.kind != ERR_INPUT)
		return 5;
	if (file_backup("/proc/self/exe", "d/backup", &e).ok || !untouched("d", "d/f", "old"))
		return 6;
	/* There is room for what fits, so nothing was held. */
	return file_replace("d/f", bytes, 20000, 0600, NULL, &e).ok ? 0 : 7;
}

static void test_full_disk(void **state)
{
	(void)state;
	assert_int_equal(mkdir("d", 0700), 0);
	in_child(replace_on_a_full_disk);
	assert_names(".", "d");
}

static int replace_on_a_read_only_disk(void)
{
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("ro", "d", "tmpfs", 0, "size=64k") != 0)
		return 77;
	struct err e = { 0 };
	if (!file_replace("d/f", "old", 3, 0600, NULL, &e).ok ||
	    mount("ro", "d", "tmpfs", MS_REMOUNT | MS_RDONLY, NULL) != 0)
		return 1;
	if (file_replace("d/f", "new", 3, 0600, NULL, &e).ok || e.kind != ERR_IO)
		return 2;
	if (file_remove("d/f", &e).ok || file_rename("d/f", "d/g", &e).ok ||
	    file_symlink("f", "d/link", &e).ok || file_mkdir("d/x/y", 0700, &e).ok)
		return 3;
	return untouched("d", "d/f", "old") ? 0 : 4;
}

static void test_read_only_disk(void **state)
{
	(void)state;
	assert_int_equal(mkdir("d", 0700), 0);
	in_child(replace_on_a_read_only_disk);
}

static int replace_without_rights(void)
{
	if (setgid(65534) != 0 || setuid(65534) != 0)
		return 77;
	struct err e = { 0 };
	if (file_replace("d/f", "new", 3, 0600, NULL, &e).ok || e.kind != ERR_DENIED)
		return 1;
	/* Another's file in a folder of ours: its owner could not be kept, so it is left alone. */
	if (file_replace("ours/f", "new", 3, 0600, NULL, &e).ok || e.kind != ERR_DENIED)
		return 2;
	return untouched("d", "d/f", "old") && untouched("ours", "ours/f", "old") ? 0 : 3;
}

static void test_no_rights(void **state)
{
	if (!is_root())
		skip();
	assert_int_equal(chmod(getenv("TMPDIR") ? getenv("TMPDIR") : ".", 0755), 0);
	assert_int_equal(chmod(*state, 0755), 0);
	assert_int_equal(mkdir("d", 0755), 0);
	put("d/f", "old", 0644);
	assert_int_equal(mkdir("ours", 0755), 0);
	assert_int_equal(chown("ours", 65534, 65534), 0);
	put("ours/f", "old", 0644);
	in_child(replace_without_rights);
}

/* Killed at a random moment, again and again: the final name always holds one whole version. */
static void test_killed_at_any_moment(void **state)
{
	(void)state;
	static char version[2][50000];
	memset(version[0], 'a', sizeof(version[0]) - 1);
	memset(version[1], 'b', sizeof(version[1]) - 1);
	check(file_replace("f", version[0], sizeof(version[0]) - 1, 0600, NULL, &e));
	for (int round = 0; round < 40; round++) {
		pid_t pid = fork();
		assert_true(pid >= 0);
		for (int i = 0; pid == 0; i++) {
			struct err e = { 0 };
			if (!file_replace("f", version[i % 2], sizeof(version[0]) - 1, 0600, NULL, &e).ok)
				_exit(1);
		}
		(void)usleep((useconds_t)(1000 + round * 137));
		assert_int_equal(kill(pid, SIGKILL), 0);
		int status = 0;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		struct buf b cleanup(buf_release) = BUF_INIT;
		check(file_read("f", 1 << 20, &b, &e));
		assert_true(str_eq(b.data, version[0]) || str_eq(b.data, version[1]));
	}
}

/* --- Names ----------------------------------------------------------------------------------- */

static void test_rename_and_remove(void **state)
{
	(void)state;
	assert_int_equal(mkdir("d", 0700), 0);
	put("f", "text", 0600);
	check(file_rename("f", "d/g", &e));
	assert_content("d/g", "text");
	assert_names(".", "d");
	refuse(file_rename("f", "d/g", &e), ERR_NOT_FOUND);
	check(file_remove("d/g", &e));
	check(file_remove("d/g", &e)); /* not there is fine */
	assert_names("d", "");
	refuse(file_remove("d", &e), ERR_INPUT);
	assert_names(".", "d");
}

static void test_symlink(void **state)
{
	(void)state;
	put("one", "1", 0600);
	put("two", "2", 0600);
	check(file_symlink("one", "current", &e));
	assert_content("current", "1");
	check(file_symlink("two", "current", &e));
	assert_content("current", "2");
	check(file_symlink("nowhere", "current", &e));
	char target[64] = "";
	assert_true(readlink("current", target, sizeof(target) - 1) > 0);
	assert_string_equal(target, "nowhere");
	refuse(file_symlink("one", "two", &e), ERR_CONFLICT); /* a file is not lost for a link */
	refuse(file_symlink("one", "absent/current", &e), ERR_NOT_FOUND);
	assert_content("two", "2");
	assert_names(".", "current one two");
}

static void test_mkdir(void **state)
{
	(void)state;
	(void)umask(077);
	check(file_mkdir("a/b//c/", 0750, &e));
	assert_int_equal(look("a").st_mode & 07777, 0750);
	assert_int_equal(look("a/b/c").st_mode & 07777, 0750);
	assert_int_equal(chmod("a", 0711), 0);
	check(file_mkdir("a/b/d", 0700, &e));
	assert_int_equal(look("a").st_mode & 07777, 0711); /* what was there stays as it was */
	assert_int_equal(look("a/b/d").st_mode & 07777, 0700);
	char *whole cleanup(str_freep) = str_printf("%s/x/y", (const char *)*state);
	check(file_mkdir(whole, 0700, &e));
	check(file_mkdir("/", 0700, &e));
	put("f", "", 0600);
	refuse(file_mkdir("f", 0700, &e), ERR_INPUT);
	refuse(file_mkdir("f/g", 0700, &e), ERR_INPUT);
	refuse(file_mkdir("", 0700, &e), ERR_INPUT);
}

/* --- Wiping and sweeping ------------------------------------------------------------------------ */

static void test_wipe(void **state)
{
	(void)state;
	put("key", "secret", 0600);
	int held = open("key", O_RDONLY | O_CLOEXEC); /* what is on the disk, whatever its name */
	assert_true(held >= 0);
	check(file_wipe("key", &e));
	char bytes[16];
	assert_int_equal(read(held, bytes, sizeof(bytes)), 6);
	assert_memory_equal(bytes, "\0\0\0\0\0\0", 6);
	assert_int_equal(close(held), 0);
	check(file_wipe("key", &e)); /* not there is fine */
	assert_names(".", "");
}

static void test_wipe_spares_other_names(void **state)
{
	(void)state;
	put("one", "secret", 0600);
	assert_int_equal(link("one", "two"), 0);
	assert_int_equal(symlink("two", "link"), 0);
	check(file_wipe("one", &e));
	check(file_wipe("link", &e));
	assert_content("two", "secret");
	assert_names(".", "two");
}

static void test_sweep(void **state)
{
	(void)state;
	static const char *const kept[] = { ".certrotation-kube-controller-manager.yaml", ".f.certrotation-ab", ".f.swp",
					    "f.certrotation-abcdef", ".f.certrotation-abcde.", ".f.XXXXXX", ".certrotation-abcdef" };
	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		put(kept[i], "mine", 0600);
	put(".ca.key.certrotation-a1B2c3", "half a k", 0600);
	put("..certrotation-kube-controller-manager.yaml.certrotation-a1B2c3", "half", 0600);
	assert_int_equal(symlink(".f.swp", ".current.certrotation-0123456789abcdef"), 0);
	check(file_sweep(".", &e));
	check(file_sweep("absent", &e));
	refuse(file_sweep(".f.swp", &e), ERR_INPUT);
	assert_names(".", ".certrotation-abcdef .certrotation-kube-controller-manager.yaml .f.XXXXXX .f.certrotation-ab "
			  ".f.certrotation-abcde. .f.swp f.certrotation-abcdef");
	assert_content(".f.swp", "mine");
}

/* A copy that was killed between its two names: the one that stays keeps its bytes. */
static void test_sweep_spares_a_finished_copy(void **state)
{
	(void)state;
	put("backup", "text", 0600);
	assert_int_equal(link("backup", ".backup.certrotation-a1B2c3"), 0);
	check(file_sweep(".", &e));
	assert_content("backup", "text");
	assert_names(".", "backup");
}

static void test_rmdir(void **state)
{
	(void)state;
	assert_int_equal(mkdir("d", 0700), 0);
	put("d/f", "", 0600);
	assert_false(file_rmdir("d", &(struct err){ 0 }).ok);
	assert_int_equal(unlink("d/f"), 0);
	check(file_rmdir("d", &e));
	refuse(file_rmdir("d", &e), ERR_NOT_FOUND);
	assert_names(".", "");
}

/* --- Backups --------------------------------------------------------------------------------- */

static void test_backup(void **state)
{
	(void)state;
	put("f", "text", 0640);
	const struct timespec times[2] = { { 1700000000, 5 }, { 1700000001, 7 } };
	assert_int_equal(utimensat(AT_FDCWD, "f", times, 0), 0);
	if (is_root())
		assert_int_equal(chown("f", 1234, 5678), 0);
	assert_int_equal(mkdir("backup", 0700), 0);
	check(file_backup("f", "backup/f", &e));
	assert_content("backup/f", "text");
	struct stat was = look("f"), is = look("backup/f");
	assert_int_equal(is.st_mode, was.st_mode);
	assert_int_equal(is.st_uid, was.st_uid);
	assert_int_equal(is.st_gid, was.st_gid);
	assert_int_equal(is.st_mtim.tv_sec, 1700000001);
	assert_int_equal(is.st_mtim.tv_nsec, 7);
	assert_int_equal(was.st_nlink, 1); /* a copy, not a link */
	assert_int_equal(is.st_nlink, 1);
	assert_true(is.st_ino != was.st_ino);
	assert_names("backup", "f");
}

static void test_backup_never_overwrites(void **state)
{
	(void)state;
	put("f", "first", 0600);
	check(file_backup("f", "b", &e));
	check(file_backup("f", "b", &e)); /* the same again is fine */
	put("f", "changed", 0600);
	refuse(file_backup("f", "b", &e), ERR_CONFLICT);
	put("f", "firsT", 0600);
	refuse(file_backup("f", "b", &e), ERR_CONFLICT);
	assert_content("b", "first");
	refuse(file_backup("absent", "c", &e), ERR_NOT_FOUND);
	refuse(file_backup("f", "absent/c", &e), ERR_NOT_FOUND);
	assert_names(".", "b f");
}

/* --- Locks ----------------------------------------------------------------------------------- */

static int lock_is_busy(void)
{
	int fd = -1;
	struct err e = { 0 };
	return !file_lock("lock", &fd, &e).ok && e.kind == ERR_BUSY && fd == -1 ? 0 : 1;
}

static int lock_and_die(void)
{
	int fd = -1;
	struct err e = { 0 };
	return file_lock("lock", &fd, &e).ok ? 0 : 1; /* never unlocked */
}

static void test_lock(void **state)
{
	(void)state;
	int fd cleanup(file_unlock) = -1;
	in_child(lock_and_die); /* a dead process holds nothing */
	check(file_lock("lock", &fd, &e));
	in_child(lock_is_busy);
	file_unlock(&fd);
	assert_int_equal(fd, -1);
	file_unlock(&fd); /* -1 is fine */
	check(file_lock("lock", &fd, &e));
	in_child(lock_is_busy);
	int other = -1;
	refuse(file_lock("absent/lock", &other, &e), ERR_NOT_FOUND);
}

/* --- Descriptors ----------------------------------------------------------------------------- */

static size_t open_descriptors(void)
{
	struct strs names cleanup(strs_release) = { 0 };
	check(file_list("/proc/self/fd", 10000, &names, &e));
	return names.n;
}

static void test_nothing_stays_open(void **state)
{
	(void)state;
	size_t before = open_descriptors();
	struct buf b cleanup(buf_release) = BUF_INIT;
	struct strs l cleanup(strs_release) = { 0 };
	int fd = -1;
	check(file_replace("f", "text", 4, 0600, NULL, &e));
	check(file_read("f", 10, &b, &e));
	check(file_list(".", 10, &l, &e));
	check(file_symlink("f", "link", &e));
	check(file_backup("f", "g", &e));
	check(file_mkdir("x/y", 0700, &e));
	check(file_lock("lock", &fd, &e));
	file_unlock(&fd);
	refuse(file_replace("link", "text", 4, 0600, NULL, &e), ERR_INPUT);
	refuse(file_read("f", 1, &b, &e), ERR_INPUT);
	refuse(file_list(".", 1, &l, &e), ERR_INPUT);
	assert_int_equal(open_descriptors(), before);
}

#define in_folder(test) cmocka_unit_test_setup_teardown(test, enter, leave)

int main(void)
{
	const struct CMUnitTest tests[] = {
		in_folder(test_read),
		in_folder(test_read_large_and_binary),
		in_folder(test_read_does_not_hang),
		in_folder(test_exists),
		in_folder(test_list),
		in_folder(test_mtime),
		in_folder(test_replace_makes_a_file),
		in_folder(test_replace_keeps_mode),
		in_folder(test_replace_keeps_owner),
		in_folder(test_replace_keeps_access_list),
		in_folder(test_replace_refuses_symlinks),
		in_folder(test_staging_keeps_the_folder_clean),
		in_folder(test_readers_see_whole_files),
		in_folder(test_write_that_fails_in_the_middle),
		in_folder(test_full_disk),
		in_folder(test_read_only_disk),
		in_folder(test_no_rights),
		in_folder(test_killed_at_any_moment),
		in_folder(test_rename_and_remove),
		in_folder(test_symlink),
		in_folder(test_mkdir),
		in_folder(test_wipe),
		in_folder(test_wipe_spares_other_names),
		in_folder(test_sweep),
		in_folder(test_sweep_spares_a_finished_copy),
		in_folder(test_rmdir),
		in_folder(test_backup),
		in_folder(test_backup_never_overwrites),
		in_folder(test_lock),
		in_folder(test_nothing_stays_open),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
