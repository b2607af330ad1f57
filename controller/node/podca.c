#include "podca.h"
#include "file.h"
#include "process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define PODS_MAX 2000
#define FILES_MAX 256
#define CA_FILE_MAX ((size_t)256 << 10)
#define MEMORY_MAX ((size_t)4 << 20)
#define UID_PART 13
#define ID_PART 12

/* A Pod's volume with a cluster CA. */
struct mounted {
	char uid[POD_UID_SIZE];
	bool has_new, more;    /* more: something beside N */
	int64_t written_ms;    /* when the volume got its present content */
};

struct look {
	const struct cert *old_ca, *new_ca;
	struct mounted *items;
	size_t n;
	struct report *report;
	struct strs remembered, seen;
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

static bool holds(const struct certs *list, const struct cert *c)
{
	for (size_t i = 0; c && i < list->n; i++)
		if (cert_equal(list->items[i], c))
			return true;
	return false;
}

static struct mounted *mounted_of(struct look *l, const char *uid)
{
	for (size_t i = 0; i < l->n; i++)
		if (str_eq(l->items[i].uid, uid))
			return &l->items[i];
	l->items = mem_realloc(l->items, l->n + 1, sizeof *l->items);
	struct mounted *m = &l->items[l->n++];
	*m = (struct mounted){ .has_new = true };
	str_copy(m->uid, sizeof m->uid, uid);
	return m;
}

/* Only files that hold O or N are of interest; a Pod's worst volume counts. */
static void look_at_file(struct look *l, const char *uid, const char *volume, const char *file)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	if (!file_read(file, CA_FILE_MAX, &text, &e).ok || !strstr(buf_str(&text), "-----BEGIN CERTIFICATE-----") ||
	    !certs_from_pem(buf_str(&text), text.len, &list, &e).ok)
		return;
	bool old = holds(&list, l->old_ca), new = holds(&list, l->new_ca);
	if (!old && !new)
		return;
	struct mounted *m = mounted_of(l, uid);
	int64_t when = written_ms(volume, file);
	m->has_new = m->has_new && new;
	m->more = m->more || list.n > 1 || old;
	m->written_ms = when > m->written_ms ? when : m->written_ms;
}

static void look_at_volume(struct look *l, const char *uid, const char *volume)
{
	struct strs names cleanup(strs_release) = { 0 };
	struct err e;
	if (!file_list(volume, FILES_MAX, &names, &e).ok)
		return;
	for (size_t i = 0; i < names.n; i++) {
		struct stat st;
		char *file cleanup(str_freep) = str_printf("%s/%s", volume, names.items[i]);
		bool hidden = str_starts(names.items[i], "..") || str_eq(names.items[i], "token");
		if (!hidden && stat(file, &st) == 0 && S_ISREG(st.st_mode) && (size_t)st.st_size <= CA_FILE_MAX)
			look_at_file(l, uid, volume, file);
	}
}

static void look_at_volumes(struct look *l, const char *pod_dir, const char *uid, const char *plugin)
{
	struct strs names cleanup(strs_release) = { 0 };
	struct err e;
	char *dir cleanup(str_freep) = str_printf("%s/volumes/%s", pod_dir, plugin);
	if (!file_list(dir, FILES_MAX, &names, &e).ok)
		return;
	for (size_t i = 0; i < names.n; i++) {
		char *volume cleanup(str_freep) = str_printf("%s/%s", dir, names.items[i]);
		look_at_volume(l, uid, volume);
	}
}

/* A subPath mount is a copy that the kubelet never refreshes: volume-subpaths/<volume>/<container>/<n>. */
static void look_at_subpaths(struct look *l, const char *pod_dir, const char *uid)
{
	struct strs volumes cleanup(strs_release) = { 0 };
	struct err e;
	char *dir cleanup(str_freep) = str_printf("%s/volume-subpaths", pod_dir);
	if (!file_list(dir, FILES_MAX, &volumes, &e).ok)
		return;
	for (size_t i = 0; i < volumes.n; i++) {
		struct strs containers cleanup(strs_release) = { 0 };
		char *volume cleanup(str_freep) = str_printf("%s/%s", dir, volumes.items[i]);
		if (!file_list(volume, FILES_MAX, &containers, &e).ok)
			continue;
		for (size_t k = 0; k < containers.n; k++) {
			char *container cleanup(str_freep) = str_printf("%s/%s", volume, containers.items[k]);
			look_at_volume(l, uid, container);
		}
	}
}

static void look_at_pod(struct look *l, const char *pods, const char *uid)
{
	static const char *const PLUGINS[] = { "kubernetes.io~projected", "kubernetes.io~configmap", "kubernetes.io~secret" };
	char *dir cleanup(str_freep) = str_printf("%s/%s", pods, uid);
	for (size_t i = 0; i < ARRAY_LEN(PLUGINS); i++)
		look_at_volumes(l, dir, uid, PLUGINS[i]);
	look_at_subpaths(l, dir, uid);
}

/* --- Containers ----------------------------------------------------------------------------------------------------------- */

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
	bool known = strs_has(&l->remembered, key);
	bool has_read = known || (m->has_new && started_ms >= m->written_ms);
	if (has_read && !strs_has(&l->seen, key))
		strs_add(&l->seen, key);
	/* several processes live in one container; one that started late says nothing about the first */
	if (!has_read && !strs_has(&l->report->pods_old, key))
		strs_add(&l->report->pods_old, key);
}

/* A container whose first process is old is old, whatever its later processes are. */
static void drop_contradictions(struct look *l)
{
	struct strs kept = { 0 };
	for (size_t i = 0; i < l->seen.n; i++)
		if (!strs_has(&l->report->pods_old, l->seen.items[i]))
			strs_add(&kept, l->seen.items[i]);
	strs_release(&l->seen);
	l->seen = kept;
}

static void add_pod_lists(struct look *l)
{
	for (size_t i = 0; i < l->n; i++) {
		const struct mounted *m = &l->items[i];
		if (!m->has_new)
			strs_addf(&l->report->pods_stale, "%.*s", UID_PART, m->uid);
		else if (m->more)
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

static result remember(const char *path, const struct strs *seen, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	for (size_t i = 0; i < seen->n; i++)
		buf_addf(&text, "%s\n", seen->items[i]);
	return file_replace(path, buf_str(&text), text.len, 0600, NULL, e);
}

static void look_release(struct look *l)
{
	free(l->items);
	strs_release(&l->remembered);
	strs_release(&l->seen);
}

result podca_look(const char *kubelet_dir, const char *memory, const struct cert *old_ca, const struct cert *new_ca, struct report *r,
		  struct err *e)
{
	struct look l cleanup(look_release) = { .old_ca = old_ca, .new_ca = new_ca, .report = r };
	struct strs pods cleanup(strs_release) = { 0 };
	char *dir cleanup(str_freep) = str_printf("%s/pods", kubelet_dir);
	TRY(file_list(dir, PODS_MAX, &pods, e));
	for (size_t i = 0; i < pods.n; i++)
		look_at_pod(&l, dir, pods.items[i]);
	recall(memory, &l.remembered);
	TRY(process_each_container(container_seen, &l, e));
	drop_contradictions(&l);
	add_pod_lists(&l);
	return remember(memory, &l.seen, e);
}
