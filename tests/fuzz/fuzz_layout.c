/* LINK: node rotation kube */
/* Static Pods' manifests and a kubelet's configuration as somebody left them: what is learnt without a blocker can be relied on; and
 * the controller-manager's three flags change, once, and nothing else. */
#include "fuzz.h"

#include "file.h"
#include "layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A node's root folder, made once and taken away at the end. */
static char folder[] = "/tmp/certrotation-fuzz-layout.XXXXXX";
static const char *const FILES[] = { "/etc/kubernetes/manifests/kube-apiserver.yaml", "/etc/kubernetes/manifests/kube-controller-manager.yaml",
				     "/etc/kubernetes/manifests/kube-scheduler.yaml", "/etc/kubernetes/manifests/etcd.yaml",
				     "/etc/kubernetes/manifests/other.yaml", "/var/lib/kubelet/config.yaml" };
#define MANAGER 1

static void remove_folder(void)
{
	static const char *const dirs[] = { "/etc/kubernetes/manifests", "/etc/kubernetes", "/etc", "/var/lib/kubelet", "/var/lib", "/var", "" };
	for (size_t i = 0; i < ARRAY_LEN(FILES) + ARRAY_LEN(dirs); i++) {
		char *path cleanup(str_freep) =
			str_printf("%s%s", folder, i < ARRAY_LEN(FILES) ? FILES[i] : dirs[i - ARRAY_LEN(FILES)]);
		(void)remove(path);
	}
}

static void make_folder(void)
{
	static const char *const dirs[] = { "/etc/kubernetes/manifests", "/var/lib/kubelet" };
	static bool made;
	struct err e = { 0 };
	if (made)
		return;
	MUST(mkdtemp(folder));
	made = true;
	atexit(remove_folder);
	for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
		char *path cleanup(str_freep) = str_printf("%s%s", folder, dirs[i]);
		MUST(file_mkdir(path, 0700, &e).ok);
	}
}

/* Empty: not there. */
static void put(const char *name, const char *text, size_t len)
{
	char *path cleanup(str_freep) = str_printf("%s%s", folder, name);
	(void)unlink(path);
	if (!len)
		return;
	FILE *f = fopen(path, "w");
	MUST(f && fwrite(text, 1, len, f) == len && fclose(f) == 0);
}

/* In the folder that is mounted where this runs, and nowhere else. */
static void check_path(const char *path)
{
	char *under cleanup(str_freep) = str_printf("%s/etc/kubernetes/", folder);
	MUST(str_starts(path, under));
	MUST(!strstr(path, "/../") && !str_ends(path, "/.."));
}

static void check_port(int port)
{
	MUST(port > 0 && port < 65536);
}

static void check_learnt(const struct layout *l)
{
	check_path(l->of[AUTHORITY_KUBERNETES].ca_crt);
	check_path(l->of[AUTHORITY_KUBERNETES].ca_key);
	check_path(l->kubelet_conf);
	check_port(l->kubelet_port);
	if (!l->control_plane)
		return;
	const char *const paths[] = { l->apiserver_crt, l->apiserver_key, l->kubelet_client_crt, l->kubelet_client_key,
				      l->manager_conf, l->scheduler_conf, l->own_root, l->of[AUTHORITY_FRONT_PROXY].ca_crt, l->proxy_client_crt,
				      l->of[AUTHORITY_ETCD].ca_crt, l->etcd_leaves[ETCD_SERVER], l->etcd_leaves[ETCD_API_CLIENT] };
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		check_path(paths[i]);
	check_port(l->api_port);
	check_port(l->manager_port);
	check_port(l->scheduler_port);
	MUST(l->flag_root_ca && l->flag_signing_cert && l->flag_signing_key && l->api_host);
}

/* All authorities: their flags are read too. */
static void check_learn(void)
{
	const struct desired desired = { .run = (char *)"run", .of = { { .wanted = true }, { .wanted = true }, { .wanted = true } } };
	struct layout l cleanup(layout_release) = { 0 };
	struct report r cleanup(report_release) = { 0 };
	struct err e = { 0 };
	if (!layout_learn(folder, &desired, &l, &r, &e).ok) {
		MUST(!l.root && !l.of[AUTHORITY_KUBERNETES].ca_crt && !l.others.n);
		fuzz_check_err(&e);
		return;
	}
	MUST(l.of[AUTHORITY_KUBERNETES].ca_crt);
	if (!r.n_blockers)
		check_learnt(&l);
	for (size_t i = 0; i < r.n_blockers; i++)
		MUST(*r.blockers[i].code && *r.blockers[i].message);
}

static bool edit(const char *text, size_t len, const char *to, struct buf *ret)
{
	struct err e = { 0 };
	if (layout_edit_manager(text, len, to, to, to, ret, &e).ok)
		return true;
	MUST(!ret->len && e.kind == ERR_INPUT);
	fuzz_check_err(&e);
	return false;
}

static void check_edit(const char *text, size_t len)
{
	struct buf once cleanup(buf_release) = BUF_INIT, twice cleanup(buf_release) = BUF_INIT, same cleanup(buf_release) = BUF_INIT;
	if (edit(text, len, NULL, &same))
		MUST(same.len == len && (!len || memcmp(same.data, text, len) == 0));
	if (!edit(text, len, "/etc/kubernetes/pki/certrotation/signer.pem", &once))
		return;
	MUST(strstr(once.data, "certrotation/signer.pem"));
	MUST(edit(once.data, once.len, "/etc/kubernetes/pki/certrotation/signer.pem", &twice));
	MUST(twice.len == once.len && memcmp(twice.data, once.data, once.len) == 0);
}

/* Input: the files, in the order above. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	make_folder();
	for (size_t i = 0; i < ARRAY_LEN(FILES); i++) {
		size_t len = 0;
		char *text cleanup(str_freep) = fuzz_part(&in, &len);
		put(FILES[i], text, len);
		if (i == MANAGER)
			check_edit(text, len);
	}
	check_learn();
	return 0;
}
