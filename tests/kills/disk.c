#define _XOPEN_SOURCE 700 /* nftw */

#include "disk.h"

#include "file.h"
#include "pki.h"

#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX ((size_t)4 << 20)
#define NOTHING ((size_t)-1)
#define ROOT 0

struct content {
	struct buf bytes;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	struct timespec time;
};

/* A file, folder or symlink, whatever its names are. */
struct thing {
	mode_t type;
	struct content now, safe;
	bool unsafe;
};

/* A name that was made, or taken away (thing NOTHING). */
struct naming {
	size_t folder, thing, step;
	char *name;
};

struct disk {
	struct thing *things;
	size_t n_things;
	struct naming *namings;
	size_t n_namings;
	bool *step_safe;
	size_t n_steps;
};

static void must(bool good, const char *what)
{
	if (good)
		return;
	(void)fprintf(stderr, "model of a disk: %s\n", what);
	abort();
}

/* --- Things and names ---------------------------------------------------------------------------------------------------------- */

static size_t thing_new(struct disk *d, mode_t mode)
{
	d->things = mem_realloc(d->things, d->n_things + 1, sizeof *d->things);
	d->things[d->n_things] = (struct thing){ .type = mode & S_IFMT };
	d->things[d->n_things].now.mode = d->things[d->n_things].safe.mode = mode;
	return d->n_things++;
}

static size_t step_new(struct disk *d, bool safe)
{
	d->step_safe = mem_realloc(d->step_safe, d->n_steps + 1, sizeof *d->step_safe);
	d->step_safe[d->n_steps] = safe;
	return d->n_steps++;
}

static void name_put(struct disk *d, size_t folder, const char *name, size_t thing, size_t step)
{
	d->namings = mem_realloc(d->namings, d->n_namings + 1, sizeof *d->namings);
	d->namings[d->n_namings++] = (struct naming){ folder, thing, step, str_dup(name) };
}

/* Bit of a step among those that are not safe. */
static bool step_kept(const struct disk *d, size_t step, unsigned kept)
{
	size_t bit = 0;
	for (size_t i = 0; i < step; i++)
		bit += !d->step_safe[i];
	return d->step_safe[step] || (bit < 8 * sizeof kept && (kept >> bit & 1));
}

static size_t lookup(const struct disk *d, size_t folder, const char *name, unsigned kept)
{
	size_t found = NOTHING;
	for (size_t i = 0; i < d->n_namings; i++)
		if (d->namings[i].folder == folder && str_eq(d->namings[i].name, name) && step_kept(d, d->namings[i].step, kept))
			found = d->namings[i].thing;
	return found;
}

#define ALL (~0U)

/* As the running system sees it. ret_name: the last component. */
static size_t folder_of(const struct disk *d, const char *path, char ret_name[static CALL_PATH_SIZE])
{
	size_t at = ROOT;
	const char *p = path + strspn(path, "/");
	for (;;) {
		size_t n = strcspn(p, "/");
		(void)snprintf(ret_name, CALL_PATH_SIZE, "%.*s", (int)n, p);
		const char *next = p + n + strspn(p + n, "/");
		if (!*next)
			return at;
		at = lookup(d, at, ret_name, ALL);
		must(at != NOTHING, path);
		p = next;
	}
}

static size_t find(const struct disk *d, const char *path)
{
	char name[CALL_PATH_SIZE];
	size_t folder = folder_of(d, path, name);
	return *name ? lookup(d, folder, name, ALL) : folder;
}

static void name_path(struct disk *d, const char *path, size_t thing, size_t step)
{
	char name[CALL_PATH_SIZE];
	size_t folder = folder_of(d, path, name);
	name_put(d, folder, name, thing, step);
}

/* --- Loading -------------------------------------------------------------------------------------------------------------------- */

static void content_set(struct content *to, const struct content *from)
{
	buf_clear(&to->bytes);
	buf_add(&to->bytes, buf_str(&from->bytes), from->bytes.len);
	to->mode = from->mode;
	to->uid = from->uid;
	to->gid = from->gid;
	to->time = from->time;
}

static struct disk *loading; /* nftw has no context */
static size_t prefix;

static int load_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	struct err e = { 0 };
	char target[CALL_PATH_SIZE] = "";
	(void)at;
	size_t thing = at->level ? thing_new(loading, st->st_mode) : ROOT;
	struct content *now = &loading->things[thing].now;
	*now = (struct content){ .mode = st->st_mode, .uid = st->st_uid, .gid = st->st_gid, .time = st->st_mtim };
	if (kind == FTW_F)
		must(file_read(path, FILE_MAX, &now->bytes, &e).ok, e.message);
	if (kind == FTW_SL)
		must(readlink(path, target, sizeof target - 1) > 0, path);
	buf_add_str(&now->bytes, target);
	content_set(&loading->things[thing].safe, now);
	if (at->level)
		name_path(loading, path + prefix, thing, 0);
	return 0;
}

struct disk *disk_load(const char *root)
{
	loading = mem_alloc(sizeof *loading);
	prefix = strlen(root);
	(void)step_new(loading, true);
	(void)thing_new(loading, S_IFDIR | 0755);
	must(nftw(root, load_one, 16, FTW_PHYS) == 0, root);
	return steal(&loading);
}

void disk_freep(struct disk **d)
{
	if (!*d)
		return;
	for (size_t i = 0; i < (*d)->n_things; i++) {
		buf_release(&(*d)->things[i].now.bytes);
		buf_release(&(*d)->things[i].safe.bytes);
	}
	for (size_t i = 0; i < (*d)->n_namings; i++)
		str_freep(&(*d)->namings[i].name);
	free((*d)->things);
	free((*d)->namings);
	free((*d)->step_safe);
	free(*d);
	*d = NULL;
}

/* --- What is done to it ----------------------------------------------------------------------------------------------------------- */

static void do_write(struct disk *d, const struct calls *from, const struct call *c)
{
	size_t thing = find(d, c->path);
	must(thing != NOTHING, c->path);
	struct thing *t = &d->things[thing];
	struct buf next = BUF_INIT;
	size_t before = c->at < t->now.bytes.len ? c->at : t->now.bytes.len, end = c->at + c->len;
	buf_add(&next, buf_str(&t->now.bytes), before);
	buf_add(&next, from->bytes + c->bytes, c->len);
	if (end < t->now.bytes.len)
		buf_add(&next, t->now.bytes.data + end, t->now.bytes.len - end);
	buf_release(&t->now.bytes);
	t->now.bytes = next;
	t->now.time = c->time;
	t->unsafe = true;
}

static void do_look(struct disk *d, const struct call *c)
{
	size_t thing = find(d, c->path);
	must(thing != NOTHING, c->path);
	struct thing *t = &d->things[thing];
	t->now.mode = c->mode;
	t->now.uid = c->uid;
	t->now.gid = c->gid;
	t->now.time = c->time;
	t->unsafe = true;
}

/* A step of two names is safe with either folder. */
static void do_sync(struct disk *d, const struct call *c)
{
	size_t thing = find(d, c->path);
	must(thing != NOTHING, c->path);
	for (size_t i = 0; i < d->n_namings; i++)
		if (d->namings[i].folder == thing)
			d->step_safe[d->namings[i].step] = true;
	content_set(&d->things[thing].safe, &d->things[thing].now);
	d->things[thing].unsafe = false;
}

static void do_make(struct disk *d, const struct call *c)
{
	size_t thing = thing_new(d, c->mode);
	struct thing *t = &d->things[thing];
	t->now.uid = t->safe.uid = c->uid;
	t->now.gid = t->safe.gid = c->gid;
	t->now.time = t->safe.time = c->time;
	if (c->kind == CALL_SYMLINK) {
		buf_add_str(&t->now.bytes, c->to);
		content_set(&t->safe, &t->now);
	}
	name_path(d, c->path, thing, step_new(d, false));
}

void disk_do(struct disk *d, const struct calls *from, const struct call *c)
{
	size_t step = 0;
	switch (c->kind) {
	case CALL_CREATE:
	case CALL_SYMLINK:
	case CALL_MKDIR:
		do_make(d, c);
		break;
	case CALL_WRITE:
		do_write(d, from, c);
		break;
	case CALL_MODE:
	case CALL_OWNER:
	case CALL_TIMES:
		do_look(d, c);
		break;
	case CALL_SYNC:
		do_sync(d, c);
		break;
	case CALL_RENAME:
	case CALL_LINK:
		step = step_new(d, false);
		name_path(d, c->to, find(d, c->path), step);
		if (c->kind == CALL_RENAME)
			name_path(d, c->path, NOTHING, step);
		break;
	case CALL_UNLINK:
	case CALL_RMDIR:
		name_path(d, c->path, NOTHING, step_new(d, false));
		break;
	case CALL_PROCESS:
		break;
	}
}

size_t disk_unsafe_names(const struct disk *d)
{
	size_t n = 0;
	for (size_t i = 0; i < d->n_steps; i++)
		n += !d->step_safe[i];
	return n;
}

bool disk_unsafe_content(const struct disk *d)
{
	bool any = false;
	for (size_t i = 0; i < d->n_things; i++)
		any = any || d->things[i].unsafe;
	return any;
}

/* --- What is left ------------------------------------------------------------------------------------------------------------------- */

struct visit {
	const struct disk *disk;
	unsigned kept;
	bool kept_content;
	void (*each)(void *context, const char *path, mode_t type, const struct content *c);
	void *context;
};

static bool named_before(const struct disk *d, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (d->namings[k].folder == d->namings[i].folder && str_eq(d->namings[k].name, d->namings[i].name))
			return true;
	return false;
}

static void visit_folder(const struct visit *v, size_t folder, const char *path, int depth)
{
	const struct disk *d = v->disk;
	must(depth < 16, path);
	for (size_t i = 0; i < d->n_namings; i++) {
		if (d->namings[i].folder != folder || named_before(d, i))
			continue;
		size_t thing = lookup(d, folder, d->namings[i].name, v->kept);
		if (thing == NOTHING)
			continue;
		const struct thing *t = &d->things[thing];
		char *child cleanup(str_freep) = str_printf("%s/%s", path, d->namings[i].name);
		v->each(v->context, child, t->type, t->unsafe && v->kept_content ? &t->now : &t->safe);
		if (t->type == S_IFDIR)
			visit_folder(v, thing, child, depth + 1);
	}
}

static void store_one(void *context, const char *path, mode_t type, const struct content *c)
{
	char *full cleanup(str_freep) = str_printf("%s%s", (const char *)context, path);
	const struct timespec times[2] = { c->time, c->time };
	if (type == S_IFDIR) {
		must(mkdir(full, c->mode & 07777) == 0 && chmod(full, c->mode & 07777) == 0, full);
		return;
	}
	if (type == S_IFLNK) {
		must(symlink(buf_str(&c->bytes), full) == 0, full);
		return;
	}
	int fd = open(full, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	must(fd >= 0 && write(fd, buf_str(&c->bytes), c->bytes.len) == (ssize_t)c->bytes.len, full);
	must(fchown(fd, c->uid, c->gid) == 0 && fchmod(fd, c->mode & 07777) == 0 && futimens(fd, times) == 0, full);
	(void)close(fd);
}

void disk_store(const struct disk *d, unsigned kept, bool kept_content, const char *root)
{
	char *copy cleanup(str_freep) = str_dup(root);
	const struct visit v = { d, kept, kept_content, store_one, copy };
	visit_folder(&v, ROOT, "", 0);
}

static void digest_one(void *context, const char *path, mode_t type, const struct content *c)
{
	struct strs *lines = context;
	char hex[65];
	sha256_hex(buf_str(&c->bytes), c->bytes.len, hex);
	strs_addf(lines, "%s %o %u:%u %s\n", path, (unsigned)(type | (c->mode & 07777)), (unsigned)c->uid, (unsigned)c->gid, hex);
}

void disk_digest(const struct disk *d, unsigned kept, bool kept_content, char ret_hex[static 65])
{
	struct strs lines cleanup(strs_release) = { 0 };
	struct buf text cleanup(buf_release) = BUF_INIT;
	const struct visit v = { d, kept, kept_content, digest_one, &lines };
	visit_folder(&v, ROOT, "", 0);
	for (size_t i = 0; i < lines.n; i++)
		buf_add_str(&text, lines.items[i]);
	sha256_hex(buf_str(&text), text.len, ret_hex);
}
