/* The end: nothing of ours and nothing old stays on the node. */
#include "file.h"
#include "node.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES_MAX 4096
#define ALPHANUMERIC "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

/* --- Wiping ------------------------------------------------------------------------------------------------------------------------------ */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* Overwritten before it is removed: as good as a file system lets it be. */
static result wipe(const char *path, struct err *e)
{
	static const char zeros[4096];
	int fd cleanup(close_fd) = open(path, O_WRONLY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (fd >= 0 && fstat(fd, &st) == 0) {
		for (off_t left = st.st_size; left > 0; left -= (off_t)sizeof zeros)
			if (write(fd, zeros, left < (off_t)sizeof zeros ? (size_t)left : sizeof zeros) < 0)
				return err_errno(e, "overwriting %s", path);
		if (fsync(fd) != 0)
			return err_errno(e, "overwriting %s", path);
	}
	return file_remove(path, e);
}

static result remove_tree(const char *path, int depth, struct err *e)
{
	struct strs names cleanup(strs_release) = { 0 };
	struct stat st;
	if (lstat(path, &st) != 0)
		return errno == ENOENT ? OK : err_errno(e, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return wipe(path, e);
	if (depth > 16)
		return err_set(e, ERR_INPUT, "%s is too deep", path);
	TRY(file_list(path, NAMES_MAX, &names, e));
	for (size_t i = 0; i < names.n; i++) {
		char *child cleanup(str_freep) = str_printf("%s/%s", path, names.items[i]);
		TRY(remove_tree(child, depth + 1, e));
	}
	return rmdir(path) == 0 ? OK : err_errno(e, "removing %s", path);
}

/* --- What was cut off ---------------------------------------------------------------------------------------------------------------------- */

#define RANDOM_PART 7 /* ".XXXXXX", see file.c; ".wiping" */

/* A temporary file of file_replace's: ".ca.key.a1B2c3". name may be a beginning. */
static bool is_left_of(const char *entry, const char *name, bool beginning)
{
	size_t len = strlen(entry), n = strlen(name);
	bool shaped = entry[0] == '.' && len > RANDOM_PART + 1 && entry[len - RANDOM_PART] == '.' &&
		      strspn(entry + len - RANDOM_PART + 1, ALPHANUMERIC) == RANDOM_PART - 1;
	return shaped && strncmp(entry + 1, name, n) == 0 && (beginning || len == n + RANDOM_PART + 1);
}

static result sweep_folder(const char *folder, const char *name, bool beginning, struct err *e)
{
	struct strs names cleanup(strs_release) = { 0 };
	struct err why;
	if (!file_list(folder, NAMES_MAX, &names, &why).ok) {
		if (why.kind == ERR_NOT_FOUND)
			return OK;
		*e = why;
		return FAILED;
	}
	for (size_t i = 0; i < names.n; i++) {
		char *path cleanup(str_freep) = str_printf("%s/%s", folder, names.items[i]);
		if (is_left_of(names.items[i], name, beginning))
			TRY(wipe(path, e));
	}
	return OK;
}

static result sweep_beside(const char *path, struct err *e)
{
	const char *slash = path ? strrchr(path, '/') : NULL;
	if (!slash)
		return OK;
	char *folder cleanup(str_freep) = str_ndup(path, (size_t)(slash - path));
	return sweep_folder(folder, slash + 1, false, e);
}

result node_sweep(const struct node *n, struct err *e)
{
	const struct layout *l = &n->layout;
	const char *const written[] = { l->ca_crt, l->ca_key, l->own_signer, l->own_root, l->apiserver_crt, l->kubelet_client_crt, l->manager_aside,
					l->manager_conf, l->scheduler_conf, l->admin_conf, l->super_admin_conf, l->kubelet_conf, l->absorbed };
	for (size_t i = 0; i < ARRAY_LEN(written); i++)
		TRY(sweep_beside(written[i], e));
	char *staged cleanup(str_freep) = l->kubelet_client_crt ? str_printf("%s" STAGED, l->kubelet_client_crt) : NULL;
	if (staged) {
		TRY(sweep_beside(staged, e));
		TRY(file_remove(staged, e));
	}
	return sweep_folder(l->kubelet_pki, "kubelet-client-", true, e);
}

/* --- What is old ----------------------------------------------------------------------------------------------------------------------------- */

/* Dated client certificates of the kubelet that O issued (the one in use is from N by then). What can't be read is not known to be
 * new: an error. */
static result list_old_clients(const struct node *n, struct strs *ret, struct err *e)
{
	struct strs names cleanup(strs_release) = { 0 };
	TRY(file_list(n->layout.kubelet_pki, NAMES_MAX, &names, e));
	for (size_t i = 0; i < names.n; i++) {
		struct certs list cleanup(certs_release) = { 0 };
		if (!str_starts(names.items[i], "kubelet-client-") || str_eq(names.items[i], "kubelet-client-current.pem"))
			continue;
		char *path cleanup(str_freep) = str_printf("%s/%s", n->layout.kubelet_pki, names.items[i]);
		TRY(node_certs(path, &list, e));
		if (node_issuer(n, list.items[0]) == HOLDS_OLD)
			strs_add(ret, path);
	}
	return OK;
}

bool node_is_clean(const struct node *n)
{
	struct strs old cleanup(strs_release) = { 0 };
	struct err e;
	if (!n->new_ca || file_exists(n->layout.own_dir) || file_exists(n->layout.run_dir))
		return false;
	return list_old_clients(n, &old, &e).ok && !old.n;
}

/* Everything is in force before its past is removed. */
static result check_done(const struct node *n, struct err *e)
{
	for (size_t f = 0; f < FACET_CLEAN; f++)
		if (!facet_reached(n->report->levels[f], facet_top((enum facet)f)))
			return err_set(e, ERR_CONFLICT, "%s is at %d of %d yet", facet_name((enum facet)f), n->report->levels[f],
				       facet_top((enum facet)f));
	return OK;
}

/* Under a name that the next run sweeps: overwritten by half it would be a certificate that can't be read. */
static result wipe_client(const char *path, struct err *e)
{
	const char *name = strrchr(path, '/') + 1;
	char *aside cleanup(str_freep) = str_printf("%.*s.%s.wiping", (int)(name - path), path, name);
	TRY(file_rename(path, aside, e));
	return wipe(aside, e);
}

result node_clean(struct node *n, struct err *e)
{
	struct strs old cleanup(strs_release) = { 0 };
	TRY(check_done(n, e));
	TRY(list_old_clients(n, &old, e));
	for (size_t i = 0; i < old.n; i++)
		TRY(wipe_client(old.items[i], e));
	TRY(remove_tree(n->layout.own_dir, 0, e));
	n->no_pods = true; /* its memory goes with the folder */
	TRY(remove_tree(n->layout.run_dir, 0, e));
	return node_observe(n, e);
}
