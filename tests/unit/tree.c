#define _XOPEN_SOURCE 700 /* nftw, mkdtemp */

#include "tree.h"

#include "file.h"
#include "pki.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX ((size_t)4 << 20)

static void must(bool good, const char *what)
{
	if (good)
		return;
	(void)fprintf(stderr, "test tree: %s\n", what);
	abort();
}

struct tree tree_new(void)
{
	const char *tmp = getenv("TMPDIR");
	struct tree t = { str_printf("%s/certrotation-tree-XXXXXX", tmp ? tmp : "/tmp") };
	must(mkdtemp(t.root), "mkdtemp");
	return t;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)kind;
	(void)at;
	return remove(path);
}

/* Folders that a test has made unreadable are opened first. */
static int open_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	(void)st;
	(void)at;
	return kind == FTW_DNR || kind == FTW_D ? chmod(path, 0700) : 0;
}

void tree_release(struct tree *t)
{
	if (!t->root)
		return;
	(void)nftw(t->root, open_one, 16, FTW_PHYS);
	must(nftw(t->root, remove_one, 16, FTW_PHYS | FTW_DEPTH) == 0, t->root);
	str_freep(&t->root);
}

char *tree_path(const struct tree *t, const char *path)
{
	return str_printf("%s%s", t->root, path);
}

static void make_folder_of(const char *full)
{
	struct err e = { 0 };
	char *folder cleanup(str_freep) = str_ndup(full, (size_t)(strrchr(full, '/') - full));
	must(file_mkdir(folder, 0755, &e).ok, e.message);
}

void tree_put_mode(const struct tree *t, const char *path, const char *text, mode_t mode)
{
	char *full cleanup(str_freep) = tree_path(t, path);
	make_folder_of(full);
	FILE *f = fopen(full, "w");
	must(f && fputs(text, f) >= 0 && fclose(f) == 0 && chmod(full, mode) == 0, full);
}

void tree_put(const struct tree *t, const char *path, const char *text)
{
	tree_put_mode(t, path, text, 0644);
}

void tree_mkdir(const struct tree *t, const char *path)
{
	struct err e = { 0 };
	char *full cleanup(str_freep) = tree_path(t, path);
	must(file_mkdir(full, 0755, &e).ok, e.message);
}

void tree_link(const struct tree *t, const char *target, const char *path)
{
	char *full cleanup(str_freep) = tree_path(t, path);
	make_folder_of(full);
	(void)unlink(full);
	must(symlink(target, full) == 0, full);
}

char *tree_read(const struct tree *t, const char *path)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	char *full cleanup(str_freep) = tree_path(t, path);
	if (file_read(full, FILE_MAX, &text, &e).ok)
		return buf_take(&text);
	must(e.kind == ERR_NOT_FOUND, e.message);
	return NULL;
}

bool tree_has(const struct tree *t, const char *path)
{
	char *full cleanup(str_freep) = tree_path(t, path);
	struct stat st;
	return lstat(full, &st) == 0;
}

void tree_edit(const struct tree *t, const char *path, const char *from, const char *to)
{
	char *text cleanup(str_freep) = tree_read(t, path);
	const char *at = text ? strstr(text, from) : NULL;
	must(at, from);
	char *next cleanup(str_freep) = str_printf("%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
	tree_put(t, path, next);
}

static struct buf *snapshot; /* nftw has no context */
static size_t prefix;

static int snap_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	char digest[65] = "";
	(void)at;
	if (kind == FTW_F && file_read(path, FILE_MAX, &text, &e).ok)
		sha256_hex(buf_str(&text), text.len, digest);
	buf_addf(snapshot, "%s %o %u:%u", path + prefix, (unsigned)st->st_mode, (unsigned)st->st_uid, (unsigned)st->st_gid);
	if (kind != FTW_D)
		buf_addf(snapshot, " %lld.%09ld %s", (long long)st->st_mtim.tv_sec, st->st_mtim.tv_nsec, digest);
	buf_add_char(snapshot, '\n');
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Folders are read in no order. */
static char *sorted_lines(const char *text)
{
	struct strs lines cleanup(strs_release) = { 0 };
	struct buf out = BUF_INIT;
	for (const char *p = text; *p; p += strcspn(p, "\n") + 1)
		strs_addf(&lines, "%.*s", (int)strcspn(p, "\n"), p);
	if (lines.n)
		qsort(lines.items, lines.n, sizeof(*lines.items), by_text);
	for (size_t i = 0; i < lines.n; i++)
		buf_addf(&out, "%s\n", lines.items[i]);
	return buf_take(&out);
}

char *tree_snapshot(const struct tree *t)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	snapshot = &text;
	prefix = strlen(t->root);
	must(nftw(t->root, snap_one, 16, FTW_PHYS) == 0, t->root);
	return sorted_lines(buf_str(&text));
}

char *fixture_text(const char *name)
{
	const char *source = getenv("TEST_SOURCE");
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	char *path cleanup(str_freep) = str_printf("%s/tests/unit/fixtures/%s", source ? source : ".", name);
	must(file_read(path, FILE_MAX, &text, &e).ok, e.message);
	return buf_take(&text);
}
