/* LINK: node rotation */
#define _DEFAULT_SOURCE /* usleep */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs the four above */
#include <cmocka.h>

#include "podca.h"
#include "process.h"
#include "tls_peer.h"
#include "tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define KUBELET "/var/lib/kubelet"
#define PODS KUBELET "/pods/"
#define MEMORY "/var/lib/certrotation/run-1/read"
#define MEMORY_OF_OLD "/var/lib/certrotation/run-1/read-old"
#define UID "1a2b3c4d-0001-4002-8003-a0b0c0d0e0f0"
#define UID13 "1a2b3c4d-0001"
#define OTHER_UID "99999999-0001-4002-8003-a0b0c0d0e0f0"
#define ID "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999"
#define KEY UID13 ":aaaabbbbcccc"
#define OTHER_ID "ffffbbbbccccddddeeeeffff0000111122223333444455556666777788889999"

static struct peer_ca *old_ca, *new_ca, *third_ca;

#define assert_ok(expr, e)                                            \
	do {                                                          \
		if (!(expr).ok)                                       \
			fail_msg("%s: %s", #expr, (e).message);       \
	} while (0)

/* --- Containers: instead of /proc, what the test says (this program is linked without process.c) ----------------------------- */

static struct container {
	const char *uid, *id;
	int64_t started_ms;
} containers[8];
static size_t n_containers;
static bool containers_unreadable;

result process_each_container(void (*each)(void *context, const char *pod_uid, const char *container_id, int64_t started_ms),
			      void *context, struct err *e)
{
	if (containers_unreadable)
		return err_set(e, ERR_IO, "as told");
	for (size_t i = 0; i < n_containers; i++)
		each(context, containers[i].uid, containers[i].id, containers[i].started_ms);
	return OK;
}

static void container(const char *uid, const char *id, int64_t started_ms)
{
	containers[n_containers++] = (struct container){ uid, id, started_ms };
}

static int no_containers(void **state)
{
	(void)state;
	n_containers = 0;
	containers_unreadable = false;
	return 0;
}

#define LATER (clock_now_ms() + 60000)
#define EARLIER (clock_now_ms() - 60000)

static int make_authorities(void **state)
{
	(void)state;
	old_ca = peer_ca_new("old");
	new_ca = peer_ca_new("new");
	third_ca = peer_ca_new("third");
	return 0;
}

static int drop_authorities(void **state)
{
	(void)state;
	peer_ca_freep(&old_ca);
	peer_ca_freep(&new_ca);
	peer_ca_freep(&third_ca);
	return 0;
}

/* --- Volumes ------------------------------------------------------------------------------------------------------------------ */

/* As the kubelet's AtomicWriter leaves it: a dated folder, `..data` to it, and the names through `..data`. */
static void put_volume(const struct tree *t, const char *volume, const char *file, const char *text)
{
	static int generation;
	char *dated cleanup(str_freep) = str_printf("..2026_%d", ++generation), *top cleanup(str_freep) = str_ndup(file, strcspn(file, "/"));
	char *path cleanup(str_freep) = str_printf("%s/%s/%s", volume, dated, file), *data cleanup(str_freep) = str_printf("%s/..data", volume);
	char *name cleanup(str_freep) = str_printf("%s/%s", volume, top), *target cleanup(str_freep) = str_printf("..data/%s", top);
	char *token cleanup(str_freep) = str_printf("%s/%s/token", volume, dated);
	tree_put(t, path, text);
	tree_put(t, token, "ey.not.pem");
	tree_link(t, dated, data);
	tree_link(t, target, name);
}

#define VOLUME(uid, plugin, name) PODS uid "/volumes/kubernetes.io~" plugin "/" name
#define ACCESS VOLUME(UID, "projected", "kube-api-access-x1y2z")

static char *both(void)
{
	return str_printf("%s%s", old_ca->pem, new_ca->pem);
}

static int64_t swapped_ms(const struct tree *t, const char *volume)
{
	struct stat st;
	char *data cleanup(str_freep) = str_printf("%s%s/..data", t->root, volume);
	assert_int_equal(lstat(data, &st), 0);
	return (int64_t)st.st_ctim.tv_sec * 1000 + st.st_ctim.tv_nsec / 1000000;
}

static struct tree node_tree(void)
{
	struct tree t = tree_new();
	tree_mkdir(&t, PODS);
	tree_mkdir(&t, "/var/lib/certrotation/run-1");
	return t;
}

static result look(const struct tree *t, struct report *r, struct err *e)
{
	char *dir cleanup(str_freep) = tree_path(t, KUBELET), *new cleanup(str_freep) = tree_path(t, MEMORY),
	     *old cleanup(str_freep) = tree_path(t, MEMORY_OF_OLD);
	const struct podca_memory memory = { .new = new, .old = old };
	report_release(r);
	*r = (struct report){ 0 };
	return podca_look(dir, &memory, old_ca->cert, new_ca->cert, r, e);
}

static void assert_list(const struct strs *l, const char *name, const char *expected)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	for (size_t i = 0; i < l->n; i++)
		buf_addf(&text, "%s%s", i ? " " : "", l->items[i]);
	if (!str_eq(buf_str(&text), expected))
		fail_msg("%s: \"%s\" instead of \"%s\"", name, buf_str(&text), expected);
}

static void assert_seen(const struct tree *t, int total, const char *old, const char *stale, const char *mixed)
{
	struct report r cleanup(report_release) = { 0 };
	struct err e = { 0 };
	assert_ok(look(t, &r, &e), e);
	assert_int_equal(r.pods_total, total);
	assert_list(&r.pods_old, "old", old);
	assert_list(&r.pods_stale, "stale", stale);
	assert_list(&r.pods_mixed, "mixed", mixed);
}

/* For a plan: there is no N yet, and nothing may be written. */
static void test_who_mounts_it_before_a_run(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = tree_new();
	struct report r cleanup(report_release) = { 0 };
	struct err e = { 0 };
	char *bundle cleanup(str_freep) = str_printf("%s%s", third_ca->pem, old_ca->pem), *dir cleanup(str_freep) = tree_path(&t, KUBELET);
	tree_mkdir(&t, PODS);
	put_volume(&t, ACCESS, "ca.crt", old_ca->pem);
	put_volume(&t, VOLUME(OTHER_UID, "secret", "own-bundle"), "bundle.pem", bundle);
	put_volume(&t, VOLUME("77777777-0001-4002-8003-a0b0c0d0e0f0", "secret", "stranger"), "ca.crt", third_ca->pem);
	char *before cleanup(str_freep) = tree_snapshot(&t);
	assert_ok(podca_mounters(dir, old_ca->cert, &r, &e), e);
	assert_int_equal(r.pods_total, 2);
	assert_int_equal(r.pods_stale.n, 2);
	assert_true(strs_has(&r.pods_stale, UID13) && strs_has(&r.pods_stale, "99999999-0001"));
	char *after cleanup(str_freep) = tree_snapshot(&t);
	assert_string_equal(before, after);
}

static void test_volumes_and_ages(void **state)
{
	(void)state;
	char *two cleanup(str_freep) = both();
	const struct { const char *text; bool later; int total; const char *old, *stale, *mixed; } cases[] = {
		{ old_ca->pem, false, 1, KEY, UID13, "" },
		{ old_ca->pem, true, 1, KEY, UID13, "" }, /* however young: N is not there */
		{ two, false, 1, KEY, "", UID13 },
		{ two, true, 1, "", "", UID13 },
		{ new_ca->pem, false, 1, KEY, "", "" },
		{ new_ca->pem, true, 1, "", "", "" },
		{ third_ca->pem, false, 0, "", "", "" }, /* not of this cluster's authority */
		{ "no certificate", false, 0, "", "", "" },
		{ "", false, 0, "", "", "" },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct tree t cleanup(tree_release) = node_tree();
		put_volume(&t, ACCESS, "ca.crt", cases[i].text);
		no_containers(NULL);
		container(UID, ID, cases[i].later ? LATER : EARLIER);
		container(OTHER_UID, OTHER_ID, EARLIER); /* without a volume: nobody's business */
		assert_seen(&t, cases[i].total, cases[i].old, cases[i].stale, cases[i].mixed);
	}
}

/* Times come in ticks: just after is too close to tell. */
static void test_on_doubt_it_has_not_read(void **state)
{
	(void)state;
	static const struct { int64_t after; bool read; } cases[] = {
		{ -1, false }, { 0, false }, { 1, false }, { PROCESS_TICK_MS, false }, { PROCESS_TICK_MS + 1, true },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct tree t cleanup(tree_release) = node_tree();
		put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
		no_containers(NULL);
		container(UID, ID, swapped_ms(&t, ACCESS) + cases[i].after);
		assert_seen(&t, 1, cases[i].read ? "" : KEY, "", "");
	}
}

static void test_every_kind_of_volume(void **state)
{
	(void)state;
	static const char *const volumes[] = {
		ACCESS, VOLUME(UID, "configmap", "root-ca"), VOLUME(UID, "secret", "default-token"),
	};
	static const char *const files[] = { "ca.crt", "anything.pem", "deep/er/ca.crt" };
	for (size_t i = 0; i < ARRAY_LEN(volumes); i++)
		for (size_t k = 0; k < ARRAY_LEN(files); k++) {
			struct tree t cleanup(tree_release) = node_tree();
			put_volume(&t, volumes[i], files[k], old_ca->pem);
			no_containers(NULL);
			container(UID, ID, LATER);
			assert_seen(&t, 1, KEY, UID13, "");
			put_volume(&t, volumes[i], files[k], new_ca->pem);
			assert_seen(&t, 1, "", "", "");
		}
}

/* Kept by the kubelet as it was when the container started: files and folders. */
static void test_subpaths(void **state)
{
	(void)state;
	static const char *const files[] = { "/volume-subpaths/kube-root-ca/main/0", "/volume-subpaths/kube-root-ca/main/1/ca.crt",
					     "/volume-subpaths/kube-root-ca/main/2/deep/ca.crt" };
	for (size_t i = 0; i < ARRAY_LEN(files); i++) {
		struct tree t cleanup(tree_release) = node_tree();
		char *path cleanup(str_freep) = str_printf(PODS UID "%s", files[i]);
		put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
		tree_put(&t, path, old_ca->pem);
		no_containers(NULL);
		container(UID, ID, LATER);
		assert_seen(&t, 1, KEY, UID13, "");
		tree_put(&t, path, new_ca->pem);
		assert_seen(&t, 1, "", "", "");
		container(UID, OTHER_ID, EARLIER);
		assert_seen(&t, 1, UID13 ":ffffbbbbcccc", "", "");
	}
}

/* The worst volume counts, and the latest. */
static void test_several_volumes(void **state)
{
	(void)state;
	char *two cleanup(str_freep) = both();
	struct tree t cleanup(tree_release) = node_tree();
	container(UID, ID, LATER);
	put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
	put_volume(&t, VOLUME(UID, "configmap", "a"), "ca.crt", two);
	put_volume(&t, VOLUME(UID, "secret", "z"), "ca.crt", old_ca->pem);
	put_volume(&t, VOLUME(OTHER_UID, "projected", "x"), "ca.crt", new_ca->pem);
	assert_seen(&t, 2, KEY, UID13, "");
	put_volume(&t, VOLUME(UID, "secret", "z"), "ca.crt", new_ca->pem);
	put_volume(&t, ACCESS, "ca.crt", old_ca->pem); /* the first that is looked at, or the last: all the same */
	assert_seen(&t, 2, KEY, UID13, "");
	put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
	assert_seen(&t, 2, "", "", UID13);
	container(UID, OTHER_ID, swapped_ms(&t, VOLUME(UID, "configmap", "a")) + PROCESS_TICK_MS);
	usleep(2000 * PROCESS_TICK_MS);
	put_volume(&t, VOLUME(UID, "configmap", "a"), "ca.crt", new_ca->pem);
	assert_seen(&t, 2, UID13 ":ffffbbbbcccc", "", "");
}

/* A bundle of a Pod's own: hundreds of others, some of them broken, and the authority somewhere among them. */
static void test_a_bundle_with_the_authority_in_it(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = node_tree();
	struct buf text cleanup(buf_release) = BUF_INIT;
	for (int i = 0; i < 150; i++)
		buf_addf(&text, "# %d\n%s%s", i, third_ca->pem, i % 50 ? "" : "-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n");
	buf_add_str(&text, old_ca->pem);
	buf_add_str(&text, third_ca->pem);
	put_volume(&t, VOLUME(UID, "configmap", "bundle"), "ca-bundle.crt", buf_str(&text));
	container(UID, ID, LATER);
	assert_seen(&t, 1, KEY, UID13, "");
}

static void test_files_that_are_no_certificates(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = node_tree();
	struct buf large cleanup(buf_release) = BUF_INIT;
	put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
	tree_put(&t, PODS UID "/volumes/kubernetes.io~projected/kube-api-access-x1y2z/half", "-----BEGIN CERTIFICATE-----\nMIIB");
	while (large.len < ((size_t)1 << 20) + 10)
		buf_add_str(&large, "0123456789abcdef");
	tree_put(&t, PODS UID "/volumes/kubernetes.io~projected/kube-api-access-x1y2z/large", buf_str(&large));
	tree_put(&t, PODS UID "/volumes/kubernetes.io~empty-dir/cache/ca.crt", old_ca->pem); /* its own, not the kubelet's */
	tree_link(&t, "..data/gone", PODS UID "/volumes/kubernetes.io~projected/kube-api-access-x1y2z/gone");
	container(UID, ID, LATER);
	assert_seen(&t, 1, "", "", "");
}

/* --- Several processes ---------------------------------------------------------------------------------------------------------- */

/* One that started late in an old container says nothing about the first. */
static void test_a_late_process_of_an_old_container(void **state)
{
	(void)state;
	for (int late_first = 0; late_first < 2; late_first++) {
		struct tree t cleanup(tree_release) = node_tree();
		put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
		no_containers(NULL);
		container(UID, ID, late_first ? LATER : EARLIER);
		container(UID, ID, late_first ? EARLIER : LATER);
		assert_seen(&t, 1, KEY, "", "");
		assert_seen(&t, 1, KEY, "", ""); /* and nothing else was remembered */
		char *memory cleanup(str_freep) = tree_read(&t, MEMORY);
		assert_string_equal(memory, "");
	}
}

/* --- Memory --------------------------------------------------------------------------------------------------------------------- */

/* The token's refresh writes the volume anew; who has read N before has read N. */
static void test_remembered_after_a_refresh(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = node_tree();
	put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
	container(UID, ID, swapped_ms(&t, ACCESS) + 1000);
	assert_seen(&t, 1, "", "", "");
	char *memory cleanup(str_freep) = tree_read(&t, MEMORY);
	assert_string_equal(memory, KEY "\n");
	no_containers(NULL);
	container(UID, ID, EARLIER); /* as seen from a volume that is written now */
	container(UID, OTHER_ID, EARLIER);
	put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
	assert_seen(&t, 1, UID13 ":ffffbbbbcccc", "", "");
	no_containers(NULL); /* gone: forgotten */
	assert_seen(&t, 1, "", "", "");
	char *none cleanup(str_freep) = tree_read(&t, MEMORY);
	assert_string_equal(none, "");
}

/* The run goes back: what was old is new, and the memories change places. */
static void assert_seen_on_the_way_back(const struct tree *t, const char *old)
{
	char *dir cleanup(str_freep) = tree_path(t, KUBELET), *of_old cleanup(str_freep) = tree_path(t, MEMORY_OF_OLD),
	     *of_new cleanup(str_freep) = tree_path(t, MEMORY);
	const struct podca_memory memory = { .new = of_old, .old = of_new };
	struct report r cleanup(report_release) = { 0 };
	struct err e = { 0 };
	assert_true(podca_look(dir, &memory, new_ca->cert, old_ca->cert, &r, &e).ok);
	assert_int_equal(r.pods_old.n, *old ? 1 : 0);
	if (*old)
		assert_string_equal(r.pods_old.items[0], old);
}

/* Who ran before the run began has read O, whenever its volume was written; so has who started beside both. */
static void test_the_way_back_needs_no_restart_of_who_has_read_the_old_one(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = node_tree();
	char *both cleanup(str_freep) = str_printf("%s%s", old_ca->pem, new_ca->pem);
	put_volume(&t, ACCESS, "ca.crt", old_ca->pem);
	container(UID, ID, EARLIER);
	assert_seen(&t, 1, KEY, UID13, "");
	put_volume(&t, ACCESS, "ca.crt", both);
	container(UID, OTHER_ID, LATER);
	assert_seen(&t, 1, KEY, "", UID13);
	put_volume(&t, ACCESS, "ca.crt", old_ca->pem);
	no_containers(NULL);
	container(UID, ID, EARLIER);
	container(UID, OTHER_ID, EARLIER);
	assert_seen_on_the_way_back(&t, "");
}

static void test_the_way_back_names_who_has_read_the_other_alone(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = node_tree();
	char *both cleanup(str_freep) = str_printf("%s%s", new_ca->pem, old_ca->pem);
	put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
	container(UID, ID, LATER);
	assert_seen(&t, 1, "", "", "");
	put_volume(&t, ACCESS, "ca.crt", both);
	no_containers(NULL);
	container(UID, ID, EARLIER);
	assert_seen_on_the_way_back(&t, KEY);
	assert_seen_on_the_way_back(&t, KEY); /* looking does not make it so */
}

/* Whatever becomes of the memory: nobody has read N who is not in it whole. */
static void test_memory_lost_or_broken(void **state)
{
	(void)state;
	static const struct { const char *text; bool known; } cases[] = {
		{ NULL, false }, { "", false }, { KEY "\n", true }, { "x\n" KEY "\ny\n", true },
		{ KEY, false }, /* cut off: no one knows what it was */
		{ "1a2b3c4d-0001:aaaabbbbccc\n", false }, { "1a2b3c4d-0001:aaaabbbbccccd\n", false }, { " " KEY "\n", false },
		{ "\xff\xfe\n\n\n", false },
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct tree t cleanup(tree_release) = node_tree();
		put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
		no_containers(NULL);
		container(UID, ID, EARLIER);
		if (cases[i].text)
			tree_put(&t, MEMORY, cases[i].text);
		assert_seen(&t, 1, cases[i].known ? "" : KEY, "", "");
	}
}

static void test_memory_cut_anywhere(void **state)
{
	(void)state;
	static const char whole[] = UID13 ":000000000000\n" KEY "\n";
	for (size_t n = 0; n <= strlen(whole); n++) {
		struct tree t cleanup(tree_release) = node_tree();
		char *text cleanup(str_freep) = str_ndup(whole, n);
		put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
		no_containers(NULL);
		container(UID, ID, EARLIER);
		tree_put(&t, MEMORY, text);
		assert_seen(&t, 1, n == strlen(whole) ? "" : KEY, "", "");
	}
}

/* What can't be kept is told: the next look would know less. */
static void test_memory_that_cannot_be_kept(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = node_tree();
	struct report r cleanup(report_release) = { 0 };
	struct err e = { 0 };
	put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
	container(UID, ID, LATER);
	tree_mkdir(&t, MEMORY);
	assert_false(look(&t, &r, &e).ok);
}

/* --- What can't be read ------------------------------------------------------------------------------------------------------------ */

static void test_no_pods(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = node_tree();
	assert_seen(&t, 0, "", "", "");
	tree_mkdir(&t, PODS UID); /* without volumes */
	assert_seen(&t, 0, "", "", "");
}

static void test_unreadable_is_not_none(void **state)
{
	(void)state;
	static const char *const paths[] = {
		PODS UID "/volumes/kubernetes.io~projected", PODS UID "/volumes/kubernetes.io~configmap", PODS UID "/volumes/kubernetes.io~secret",
		ACCESS, VOLUME(UID, "secret", "a"), ACCESS "/ca.crt", ACCESS "/deep/ca.crt",
		PODS UID "/volume-subpaths", PODS UID "/volume-subpaths/a", PODS UID "/volume-subpaths/a/main", PODS UID "/volume-subpaths/a/main/0",
		PODS UID "/volumes", PODS UID,
	};
	for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
		struct tree t cleanup(tree_release) = node_tree();
		struct report r cleanup(report_release) = { 0 };
		struct err e = { 0 };
		tree_link(&t, strrchr(paths[i], '/') + 1, paths[i]); /* to itself: ELOOP for everybody, root included */
		if (look(&t, &r, &e).ok)
			fail_msg("%s passed for empty", paths[i]);
		assert_non_null(strstr(e.message, UID));
	}
}

static void test_no_folder_of_pods_is_an_error(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = tree_new();
	struct report r cleanup(report_release) = { 0 };
	struct err e = { 0 };
	assert_false(look(&t, &r, &e).ok);
	assert_int_equal(e.kind, ERR_NOT_FOUND);
}

static void test_unreadable_containers_are_an_error(void **state)
{
	(void)state;
	struct tree t cleanup(tree_release) = node_tree();
	struct report r cleanup(report_release) = { 0 };
	struct err e = { 0 };
	put_volume(&t, ACCESS, "ca.crt", new_ca->pem);
	tree_put(&t, MEMORY, KEY "\n");
	containers_unreadable = true;
	assert_false(look(&t, &r, &e).ok);
	char *memory cleanup(str_freep) = tree_read(&t, MEMORY);
	assert_string_equal(memory, KEY "\n"); /* nothing is forgotten by a look that failed */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_volumes_and_ages, no_containers),
		cmocka_unit_test(test_who_mounts_it_before_a_run),
		cmocka_unit_test_setup(test_on_doubt_it_has_not_read, no_containers),
		cmocka_unit_test_setup(test_every_kind_of_volume, no_containers),
		cmocka_unit_test_setup(test_subpaths, no_containers),
		cmocka_unit_test_setup(test_several_volumes, no_containers),
		cmocka_unit_test_setup(test_a_bundle_with_the_authority_in_it, no_containers),
		cmocka_unit_test_setup(test_files_that_are_no_certificates, no_containers),
		cmocka_unit_test_setup(test_a_late_process_of_an_old_container, no_containers),
		cmocka_unit_test_setup(test_remembered_after_a_refresh, no_containers),
		cmocka_unit_test_setup(test_the_way_back_needs_no_restart_of_who_has_read_the_old_one, no_containers),
		cmocka_unit_test_setup(test_the_way_back_names_who_has_read_the_other_alone, no_containers),
		cmocka_unit_test_setup(test_memory_lost_or_broken, no_containers),
		cmocka_unit_test_setup(test_memory_cut_anywhere, no_containers),
		cmocka_unit_test_setup(test_memory_that_cannot_be_kept, no_containers),
		cmocka_unit_test_setup(test_no_pods, no_containers),
		cmocka_unit_test_setup(test_unreadable_is_not_none, no_containers),
		cmocka_unit_test_setup(test_no_folder_of_pods_is_an_error, no_containers),
		cmocka_unit_test_setup(test_unreadable_containers_are_an_error, no_containers),
	};
	return cmocka_run_group_tests(tests, make_authorities, drop_authorities);
}
