#include "podca.h"
#include "file.h"
#include "process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PODS_MAX 2000
#define DEPTH_MAX 32
#define FILES_MAX 20000                  /* a ConfigMap or Secret holds at most 1 MiB, so do its files and their names */
#define CA_FILE_MAX ((size_t)1 << 20)
#define MEMORY_MAX ((size_t)4 << 20)
#define UID_PART 13
#define ID_PART 12

/* A Pod whose volumes hold a cluster CA: its worst volume counts. */
struct mounted {
	char uid[POD_UID_SIZE];
	bool has_new, has_old; /* every one holds N; some one holds O */
	bool all_old, any_new; /* every one holds O; some one holds N */
	int64_t written_ms;    /* when the last of them got its present content */
};

struct look {
	const struct cert *old_ca, *new_ca;
	struct mounted *items;
	size_t n;
	struct report *report;
	bool forget;                          /* only who has read N alone has read it */
	struct strs remembered, seen;         /* containers that have read N: known before, and now */
	struct strs remembered_old, seen_old; /* that have read O: who asks is a run that goes back, for which O is new */
	struct strs doubtful_old;             /* that may not have read O, by one of their processes */
};

/* --- Volumes -------------------------------------------------------------------------------------------------------------- */

/* AtomicWriter swaps `..data`: its change time is when the content became visible. A plain file's own time otherwise. */
static int64_t written_ms(const char *volume, const char *file)
{
	struct stat st;
	char *data cleanup(str_freep) = str_printf("%s/..data", volume);
	if (lstat(data, &st) != 0 && stat(file, &st) != 0)
		return INT64_MAX;
	return (int64_t)st.st_ctim.tv_sec * 1000 + st.st_ctim.tv_nsec / 1000000;
}

/* What one file holds, certificate by certificate: a bundle of a Pod's own may hold hundreds, and the CA among them. */
struct found {
	const struct look *look;
	bool old, new;
};

static void look_at_cert(void *context, const struct cert *c)
{
	struct found *f = context;
	f->old = f->old || cert_equal(c, f->look->old_ca);
	f->new = f->new || (f->look->new_ca && cert_equal(c, f->look->new_ca));
}

static struct mounted *mounted_of(struct look *l, const char *uid)
{
	for (size_t i = 0; i < l->n; i++)
		if (str_eq(l->items[i].uid, uid))
			return &l->items[i];
	l->items = mem_realloc(l->items, l->n + 1, sizeof *l->items);
	struct mounted *m = &l->items[l->n++];
	*m = (struct mounted){ .has_new = true, .all_old = true };
	str_copy(m->uid, sizeof m->uid, uid);
	return m;
}

/* Gone in the middle (a Pod that ends, an atomic swap) is no error: what took its place is seen next time. Anything else is. */
static result look_at_file(struct look *l, const char *uid, const char *volume, const char *file, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	struct found f = { .look = l };
	struct err broken;
	result r = file_read(file, CA_FILE_MAX, &text, &broken);
	if (!r.ok && broken.kind == ERR_NOT_FOUND)
		return OK;
	if (!r.ok)
		return err_set(e, broken.kind, "%s", broken.message);
	certs_scan(buf_str(&text), look_at_cert, &f);
	if (!f.old && !f.new)
		return OK;
	struct mounted *m = mounted_of(l, uid);
	int64_t when = written_ms(volume, file);
	m->has_new = m->has_new && f.new;
	m->has_old = m->has_old || f.old;
	m->all_old = m->all_old && f.old;
	m->any_new = m->any_new || f.new;
	m->written_ms = when > m->written_ms ? when : m->written_ms;
	return OK;
}

/* The names in a folder; none when it is not there. */
static result names_in(const char *dir, struct strs *ret, struct err *e)
{
	struct err why;
	if (file_list(dir, FILES_MAX, ret, &why).ok || why.kind == ERR_NOT_FOUND)
		return OK;
	return err_set(e, why.kind, "%s", why.message);
}

/* Called for each entry of a folder. */
typedef result (*look_fn)(struct look *l, const char *uid, const char *path, struct err *e);

static result look_at_each(struct look *l, const char *uid, const char *dir, look_fn fn, struct err *e)
{
	struct strs names cleanup(strs_release) = { 0 };
	TRY(names_in(dir, &names, e));
	for (size_t i = 0; i < names.n; i++) {
		char *path cleanup(str_freep) = str_printf("%s/%s", dir, names.items[i]);
		TRY(fn(l, uid, path, e));
	}
	return OK;
}

/* Tokens and AtomicWriter's own entries aside. */
static bool is_aside(const char *name)
{
	return str_starts(name, "..") || str_eq(name, "token");
}

/* Folders inside, too: a volume's items may name a path. */
static result look_at_folder(struct look *l, const char *uid, const char *volume, const char *folder, int depth, struct err *e)
{
	struct strs names cleanup(strs_release) = { 0 };
	if (depth > DEPTH_MAX)
		return err_set(e, ERR_INPUT, "%s is too deep", folder);
	TRY(names_in(folder, &names, e));
	for (size_t i = 0; i < names.n; i++) {
		struct stat st = { 0 };
		char *path cleanup(str_freep) = str_printf("%s/%s", folder, names.items[i]);
		if (is_aside(names.items[i]))
			continue;
		if (stat(path, &st) != 0 && errno != ENOENT)
			return err_errno(e, "%s", path);
		if (S_ISDIR(st.st_mode))
			TRY(look_at_folder(l, uid, volume, path, depth + 1, e));
		if (S_ISREG(st.st_mode) && (size_t)st.st_size <= CA_FILE_MAX)
			TRY(look_at_file(l, uid, volume, path, e));
	}
	return OK;
}

static result look_at_volume(struct look *l, const char *uid, const char *volume, struct err *e)
{
	return look_at_folder(l, uid, volume, volume, 0, e);
}

/* A subPath mount is never refreshed by the kubelet: volume-subpaths/<volume>/<container>/<number>, the number a file or a folder. */
static result look_at_subpath_container(struct look *l, const char *uid, const char *dir, struct err *e)
{
	TRY(look_at_volume(l, uid, dir, e));
	struct strs names cleanup(strs_release) = { 0 };
	TRY(names_in(dir, &names, e));
	for (size_t i = 0; i < names.n; i++) {
		struct stat st;
		char *path cleanup(str_freep) = str_printf("%s/%s", dir, names.items[i]);
		if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
			TRY(look_at_volume(l, uid, path, e));
	}
	return OK;
}

static result look_at_subpath_volume(struct look *l, const char *uid, const char *dir, struct err *e)
{
	return look_at_each(l, uid, dir, look_at_subpath_container, e);
}

static result look_at_pod(struct look *l, const char *pods, const char *uid, struct err *e)
{
	static const char *const PLUGINS[] = { "kubernetes.io~projected", "kubernetes.io~configmap", "kubernetes.io~secret" };
	for (size_t i = 0; i < ARRAY_LEN(PLUGINS); i++) {
		char *dir cleanup(str_freep) = str_printf("%s/%s/volumes/%s", pods, uid, PLUGINS[i]);
		TRY(look_at_each(l, uid, dir, look_at_volume, e));
	}
	char *subpaths cleanup(str_freep) = str_printf("%s/%s/volume-subpaths", pods, uid);
	return look_at_each(l, uid, subpaths, look_at_subpath_volume, e);
}

/* --- Containers ----------------------------------------------------------------------------------------------------------- */

static bool started_after(const struct mounted *m, int64_t started_ms)
{
	return m->written_ms < INT64_MAX - PROCESS_TICK_MS && started_ms > m->written_ms + PROCESS_TICK_MS;
}

static void add_once(struct strs *list, const char *key)
{
	if (!strs_has(list, key))
		strs_add(list, key);
}

static void container_seen(void *context, const char *uid, const char *id, int64_t started_ms)
{
	struct look *l = context;
	const struct mounted *m = NULL;
	for (size_t i = 0; i < l->n && !m; i++)
		if (str_eq(l->items[i].uid, uid))
			m = &l->items[i];
	if (!m)
		return;
	char *key cleanup(str_freep) = str_printf("%.*s:%.*s", UID_PART, uid, ID_PART, id);
	bool has_read = strs_has(&l->remembered, key) || (m->has_new && !(l->forget && m->has_old) && started_after(m, started_ms));
	/* before N is published alone for the first time, nobody who runs beside O alone has read anything else */
	bool has_read_old = strs_has(&l->remembered_old, key) || (m->all_old && (!m->any_new || started_after(m, started_ms)));
	/* several processes live in one container; one that started late says nothing about the first */
	add_once(has_read ? &l->seen : &l->report->pods_old, key);
	add_once(has_read_old ? &l->seen_old : &l->doubtful_old, key);
}

/* A container whose first process is old is old, whatever its later processes are. */
static void drop_contradictions(struct strs *seen, const struct strs *doubtful)
{
	struct strs kept = { 0 };
	for (size_t i = 0; i < seen->n; i++)
		if (!strs_has(doubtful, seen->items[i]))
			strs_add(&kept, seen->items[i]);
	strs_release(seen);
	*seen = kept;
}

static void add_pod_lists(struct look *l)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct mounted *m = &l->items[i];
		if (!m->has_new)
			strs_addf(&l->report->pods_stale, "%.*s", UID_PART, m->uid);
		else if (m->has_old)
			strs_addf(&l->report->pods_mixed, "%.*s", UID_PART, m->uid);
	}
	l->report->pods_total = (int)l->n;
}

/* --- Memory ---------------------------------------------------------------------------------------------------------------- */

static void recall(const char *path, struct strs *ret)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct err e;
	if (!file_read(path, MEMORY_MAX, &text, &e).ok)
		return;
	for (char *p = text.data; p && *p;) {
		char *end = strchr(p, '\n');
		if (!end)
			break;
		*end = '\0';
		strs_add(ret, p);
		p = end + 1;
	}
}

/* Written when it has changed: every look at the node comes here. */
static result remember(const char *path, const struct strs *seen, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT, before cleanup(buf_release) = BUF_INIT;
	struct err none;
	for (size_t i = 0; i < seen->n; i++)
		buf_addf(&text, "%s\n", seen->items[i]);
	if (file_read(path, MEMORY_MAX, &before, &none).ok && str_eq(buf_str(&before), buf_str(&text)))
		return OK;
	return file_replace(path, buf_str(&text), text.len, 0600, NULL, e);
}

static void look_release(struct look *l)
{
	free(l->items);
	strs_release(&l->remembered);
	strs_release(&l->seen);
	strs_release(&l->remembered_old);
	strs_release(&l->seen_old);
	strs_release(&l->doubtful_old);
}

static result look_at_pods(struct look *l, const char *kubelet_dir, struct err *e)
{
	struct strs pods cleanup(strs_release) = { 0 };
	char *dir cleanup(str_freep) = str_printf("%s/pods", kubelet_dir);
	TRY(file_list(dir, PODS_MAX, &pods, e));
	for (size_t i = 0; i < pods.n; i++)
		TRY_CTX(look_at_pod(l, dir, pods.items[i], e), e, "looking for authorities in Pods' volumes");
	return OK;
}

result podca_mounters(const char *kubelet_dir, const struct cert *ca, struct report *r, struct err *e)
{
	struct look l cleanup(look_release) = { .old_ca = ca, .report = r };
	TRY(look_at_pods(&l, kubelet_dir, e));
	add_pod_lists(&l);
	return OK;
}

result podca_look(const char *kubelet_dir, const struct podca_memory *memory, const struct cert *old_ca, const struct cert *new_ca,
		  struct report *r, struct err *e)
{
	struct look l cleanup(look_release) = { .old_ca = old_ca, .new_ca = new_ca, .report = r, .forget = memory->forget };
	r->pods_forget = memory->forget;
	TRY(look_at_pods(&l, kubelet_dir, e));
	recall(memory->new, &l.remembered);
	recall(memory->old, &l.remembered_old);
	TRY(process_each_container(container_seen, &l, e));
	drop_contradictions(&l.seen, &r->pods_old);
	drop_contradictions(&l.seen_old, &l.doubtful_old);
	add_pod_lists(&l);
	TRY(remember(memory->old, &l.seen_old, e));
	return remember(memory->new, &l.seen, e);
}
