/* The end: nothing of ours and nothing old stays on the node. And the beginning: nothing half-done does. */
#include "file.h"
#include "node.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define NAMES_MAX 4096
#define DEPTH_MAX 16

/* --- Wiping ------------------------------------------------------------------------------------------------------------------------------ */

static result remove_tree(const char *path, int depth, struct err *e)
{
	struct strs names cleanup(strs_release) = { 0 };
	struct stat st;
	if (lstat(path, &st) != 0)
		return errno == ENOENT ? OK : err_errno(e, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return file_wipe(path, e);
	if (depth > DEPTH_MAX)
		return err_set(e, ERR_INPUT, "%s is too deep", path);
	TRY(file_list(path, NAMES_MAX, &names, e));
	for (size_t i = 0; i < names.n; i++) {
		char *child cleanup(str_freep) = str_printf("%s/%s", path, names.items[i]);
		TRY(remove_tree(child, depth + 1, e));
	}
	return file_rmdir(path, e);
}

/* --- What a killed run has left ------------------------------------------------------------------------------------------------------------ */

static result sweep_beside(const char *path, struct err *e)
{
	char *folder cleanup(str_freep) = path ? str_ndup(path, (size_t)(strrchr(path, '/') - path)) : NULL;
	return folder ? file_sweep(folder, e) : OK;
}

static result sweep_tree(const char *path, int depth, struct err *e)
{
	struct strs names cleanup(strs_release) = { 0 };
	struct stat st;
	if (lstat(path, &st) != 0)
		return errno == ENOENT ? OK : err_errno(e, "%s", path);
	if (!S_ISDIR(st.st_mode))
		return OK;
	if (depth > DEPTH_MAX)
		return err_set(e, ERR_INPUT, "%s is too deep", path);
	TRY(file_sweep(path, e));
	TRY(file_list(path, NAMES_MAX, &names, e));
	for (size_t i = 0; i < names.n; i++) {
		char *child cleanup(str_freep) = str_printf("%s/%s", path, names.items[i]);
		TRY(sweep_tree(child, depth + 1, e));
	}
	return OK;
}

result node_sweep(const struct node *n, struct err *e)
{
	const struct layout *l = &n->layout;
	const char *const beside[] = { l->of[AUTHORITY_KUBERNETES].ca_crt, l->own_signer, l->apiserver_crt, l->kubelet_client_crt, l->manager_conf, l->scheduler_conf,
				       l->admin_conf, l->kubelet_conf, l->absorbed, l->of[AUTHORITY_FRONT_PROXY].ca_crt,
				       l->proxy_client_crt, l->of[AUTHORITY_ETCD].ca_crt, l->etcd_leaves[ETCD_API_CLIENT] };
	for (size_t i = 0; i < ARRAY_LEN(beside); i++)
		TRY(sweep_beside(beside[i], e));
	TRY(file_sweep(l->kubelet_pki, e));
	if (l->kubelet_client_crt) {
		char *staged cleanup(str_freep) = node_staged_client(n);
		TRY(file_remove(staged, e));
	}
	return sweep_tree(l->run_dir, 0, e);
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
		if (node_issuer(&n->of[AUTHORITY_KUBERNETES], list.items[0]) == HOLDS_OLD)
			strs_add(ret, path);
	}
	return OK;
}

bool node_is_clean(const struct node *n)
{
	struct strs old cleanup(strs_release) = { 0 };
	struct err e;
	bool begun = false;
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		begun = begun || n->of[a].new;
	if (!begun || file_exists(n->layout.own_dir) || file_exists(n->layout.run_dir))
		return false;
	return !n->of[AUTHORITY_KUBERNETES].new || (list_old_clients(n, &old, &e).ok && !old.n);
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

result node_clean(struct node *n, struct err *e)
{
	struct strs old cleanup(strs_release) = { 0 };
	TRY(check_done(n, e));
	if (n->of[AUTHORITY_KUBERNETES].new)
		TRY(list_old_clients(n, &old, e));
	for (size_t i = 0; i < old.n; i++)
		TRY(file_wipe(old.items[i], e));
	TRY(remove_tree(n->layout.own_dir, 0, e));
	n->no_pods = true; /* its memory goes with the folder */
	TRY(remove_tree(n->layout.run_dir, 0, e));
	return node_observe(n, e);
}
