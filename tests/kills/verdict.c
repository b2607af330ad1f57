#define _XOPEN_SOURCE 700 /* nftw */

#include "verdict.h"

#include "file.h"
#include "kubeconfig.h"
#include "layout.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX ((size_t)4 << 20)
#define OWN_SIGNER PKI "/certrotation/signer.pem"
#define OWN_ROOT PKI "/certrotation/root.crt"

static bool says(char **ret, const char *what, const char *path)
{
	str_freep(ret);
	*ret = str_printf("%s: %s", path, what);
	return false;
}

static bool read_file(const struct stage *s, const char *path, struct buf *ret)
{
	char *full cleanup(str_freep) = str_printf("%s%s", s->root, path);
	struct err e;
	return file_read(full, FILE_MAX, ret, &e).ok;
}

static bool is_there(const struct stage *s, const char *path)
{
	char *full cleanup(str_freep) = str_printf("%s%s", s->root, path);
	return file_exists(full);
}

/* --- What was found out about texts before: most files are the same from case to case ------------------------------------------------ */

static struct known {
	char digest[65];
	char *says;
} *known;
static size_t n_known;

/* NULL: nothing is known of it yet. */
static const char *recall(const char digest[static 65])
{
	for (size_t i = 0; i < n_known; i++)
		if (str_eq(known[i].digest, digest))
			return known[i].says;
	return NULL;
}

static const char *learn(const char digest[static 65], const char *says)
{
	known = mem_realloc(known, n_known + 1, sizeof *known);
	str_copy(known[n_known].digest, sizeof known[n_known].digest, digest);
	known[n_known].says = str_dup(says);
	return known[n_known++].says;
}

void verdict_forget(void)
{
	for (size_t i = 0; i < n_known; i++)
		str_freep(&known[i].says);
	free(known);
	known = NULL;
	n_known = 0;
}

/* --- Pairs -------------------------------------------------------------------------------------------------------------------------- */

static bool pems_match(const struct buf *cert, const struct buf *key)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct key *k cleanup(key_freep) = NULL;
	struct err e;
	return certs_from_pem(buf_str(cert), cert->len, &list, &e).ok && key_from_pem(buf_str(key), key->len, &k, &e).ok &&
	       cert_matches_key(list.items[0], k);
}

static bool texts_match(const struct buf *cert, const struct buf *key)
{
	struct buf both cleanup(buf_release) = BUF_INIT;
	char digest[65];
	buf_addf(&both, "pair %s and %s", buf_str(cert), buf_str(key));
	sha256_hex(buf_str(&both), both.len, digest);
	const char *says = recall(digest);
	if (!says)
		says = learn(digest, pems_match(cert, key) ? "yes" : "no");
	return str_eq(says, "yes");
}

static bool pair_whole(const struct stage *s, const char *cert_path, const char *key_path, char **ret)
{
	struct buf cert cleanup(buf_release) = BUF_INIT, key cleanup(buf_release) = BUF_INIT;
	if (!read_file(s, cert_path, &cert) || !read_file(s, key_path, &key))
		return says(ret, "can't be read", cert_path);
	return texts_match(&cert, &key) || says(ret, "is no certificate of its key", cert_path);
}

static bool authority_whole(const struct stage *s, bool key_gap, char **ret)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	if (!read_file(s, PKI "/ca.crt", &text) || !certs_from_pem(buf_str(&text), text.len, &list, &e).ok)
		return says(ret, "holds no certificates", PKI "/ca.crt");
	if (s->control_plane && !key_gap)
		return pair_whole(s, PKI "/ca.crt", PKI "/ca.key", ret);
	return !s->control_plane || pair_whole(s, PKI "/ca.crt", PKI "/ca.key", ret) || list.n == 2;
}

static bool kubeconfig_whole(const struct stage *s, const char *path, char **ret)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct certs cas cleanup(certs_release) = { 0 };
	struct err e = { 0 };
	if (!kubeconfig_load(path, s->root, &c, &e).ok)
		return says(ret, e.message, path);
	if (!c.ca_pem || !certs_from_pem(c.ca_pem, strlen(c.ca_pem), &cas, &e).ok || !c.client_cert_pem || !c.client_key_pem)
		return says(ret, "is not complete", path);
	struct buf cert cleanup(buf_release) = BUF_INIT, key cleanup(buf_release) = BUF_SECRET;
	buf_add_str(&cert, c.client_cert_pem);
	buf_add_str(&key, c.client_key_pem);
	return texts_match(&cert, &key) || says(ret, "holds a certificate of another key", path);
}

static bool kubelet_whole(const struct stage *s, char **ret)
{
	char *link cleanup(str_freep) = str_printf("%s" CURRENT, s->root);
	struct stat st;
	if (lstat(link, &st) != 0 || !S_ISLNK(st.st_mode))
		return says(ret, "is no symlink", CURRENT);
	return pair_whole(s, CURRENT, CURRENT, ret) && kubeconfig_whole(s, "/etc/kubernetes/kubelet.conf", ret);
}

/* --- Manifests ------------------------------------------------------------------------------------------------------------------------- */

/* Byte for byte kubeadm's, or that with our three flags, which then name what is there and whole. */
static bool manager_whole(const struct stage *s, const char *path, char **ret)
{
	char *kubeadm cleanup(str_freep) = fixture_text("kube-controller-manager.yaml");
	struct buf is cleanup(buf_release) = BUF_INIT, ours cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	if (!read_file(s, path, &is))
		return says(ret, "can't be read", path);
	if (str_eq(buf_str(&is), kubeadm))
		return true;
	if (!layout_edit_manager(kubeadm, strlen(kubeadm), OWN_SIGNER, OWN_SIGNER, OWN_ROOT, &ours, &e).ok)
		return says(ret, e.message, path);
	if (!str_eq(buf_str(&is), buf_str(&ours)))
		return says(ret, "is neither kubeadm's nor ours", path);
	return pair_whole(s, OWN_SIGNER, OWN_SIGNER, ret) && (is_there(s, OWN_ROOT) || says(ret, "is not there", OWN_ROOT));
}

static bool same_as_fixture(const struct stage *s, const char *name, char **ret)
{
	char *path cleanup(str_freep) = str_printf(MANIFESTS "/%s", name), *kubeadm cleanup(str_freep) = fixture_text(name);
	struct buf is cleanup(buf_release) = BUF_INIT;
	return (read_file(s, path, &is) && str_eq(buf_str(&is), kubeadm)) || says(ret, "is not as kubeadm wrote it", path);
}

static bool manifests_whole(const struct stage *s, char **ret)
{
	static const char *const others[] = { "etcd.yaml", "kube-apiserver.yaml", "kube-scheduler.yaml" };
	char *folder cleanup(str_freep) = str_printf("%s" MANIFESTS, s->root);
	struct strs names cleanup(strs_release) = { 0 };
	struct err e;
	bool manager = is_there(s, MANAGER);
	if (!file_list(folder, 100, &names, &e).ok || names.n != (s->control_plane ? ARRAY_LEN(others) + manager : 0))
		return says(ret, "holds something that is no manifest", MANIFESTS);
	for (size_t i = 0; s->control_plane && i < ARRAY_LEN(others); i++)
		if (!same_as_fixture(s, others[i], ret))
			return false;
	return !s->control_plane || manager_whole(s, manager ? MANAGER : ASIDE, ret);
}

bool verdict_whole(const struct stage *s, bool key_gap, char **ret)
{
	static const char *const kubeconfigs[] = { "admin", "super-admin", "scheduler", "controller-manager" };
	if (!authority_whole(s, key_gap, ret) || !kubelet_whole(s, ret) || !manifests_whole(s, ret))
		return false;
	if (!s->control_plane)
		return true;
	for (size_t i = 0; i < ARRAY_LEN(kubeconfigs); i++) {
		char *path cleanup(str_freep) = str_printf("/etc/kubernetes/%s.conf", kubeconfigs[i]);
		if (!kubeconfig_whole(s, path, ret))
			return false;
	}
	return pair_whole(s, PKI "/apiserver.crt", PKI "/apiserver.key", ret) &&
	       pair_whole(s, PKI "/apiserver-kubelet-client.crt", PKI "/apiserver-kubelet-client.key", ret);
}

/* --- Description --------------------------------------------------------------------------------------------------------------------------- */

static const char *who(const struct stage *s, const struct cert *c)
{
	return cert_equal(c, s->old.ca)		? "OLD"
	       : cert_equal(c, s->new.ca)	? "NEW"
	       : cert_equal(c, s->new.cross)	? "NEW-BY-OLD"
	       : cert_equal(c, s->old.cross)	? "OLD-BY-NEW"
	       : cert_issued_by(c, s->old.ca)	? "by-old"
	       : cert_issued_by(c, s->new.ca)	? "by-new"
						: "by-nobody";
}

static void describe_certs(const struct stage *s, const struct certs *list, const struct key *k, struct buf *out)
{
	for (size_t i = 0; i < list->n; i++) {
		char *subject cleanup(str_freep) = cert_subject(list->items[i]);
		buf_addf(out, " [%s %s]", who(s, list->items[i]), subject);
	}
	if (k)
		buf_addf(out, " key %s", cert_matches_key(list->items[0], k) ? "matches" : "of another");
}

static void look_at_pem(const struct stage *s, const char *text, struct buf *out)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct key *k cleanup(key_freep) = NULL;
	struct err e;
	if (!certs_from_pem(text, strlen(text), &list, &e).ok)
		buf_add_str(out, " BROKEN");
	else
		describe_certs(s, &list, key_from_pem(text, strlen(text), &k, &e).ok ? k : NULL, out);
}

static void describe_pem(const struct stage *s, const char *text, struct buf *out)
{
	struct buf fresh cleanup(buf_release) = BUF_INIT;
	char digest[65];
	sha256_hex(text, strlen(text), digest);
	const char *says = recall(digest);
	if (!says) {
		look_at_pem(s, text, &fresh);
		says = learn(digest, buf_str(&fresh));
	}
	buf_add_str(out, says);
}

/* The text without what is embedded. */
static void digest_without_embedded(const char *text, struct buf *out)
{
	struct buf rest cleanup(buf_release) = BUF_INIT;
	char hex[65];
	for (const char *p = text; *p;) {
		size_t n = strcspn(p, "\n"), key = strcspn(p, ":");
		char *line cleanup(str_freep) = str_ndup(p, n);
		buf_add(&rest, p, strstr(line, "-data: ") ? key : n);
		buf_add_char(&rest, '\n');
		p += n + (p[n] != '\0');
	}
	sha256_hex(buf_str(&rest), rest.len, hex);
	buf_addf(out, " rest %.12s", hex);
}

static void describe_kubeconfig(const struct stage *s, const char *path, const char *text, struct buf *out)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct err e;
	if (!kubeconfig_load(path, s->root, &c, &e).ok || !c.ca_pem || !c.client_cert_pem || !c.client_key_pem) {
		buf_add_str(out, " BROKEN");
		return;
	}
	char *both cleanup(str_freep) = str_printf("%s%s", c.client_cert_pem, c.client_key_pem);
	describe_pem(s, c.ca_pem, out);
	describe_pem(s, both, out);
	digest_without_embedded(text, out);
}

static void describe_absorbed(const struct stage *s, const char *text, struct buf *out)
{
	struct buf pem cleanup(buf_release) = BUF_INIT;
	struct cert *c cleanup(cert_freep) = NULL;
	char fingerprint[CERT_FINGERPRINT_SIZE] = "";
	struct err e;
	if (read_file(s, PKI "/apiserver-kubelet-client.crt", &pem) && cert_from_pem(buf_str(&pem), pem.len, &c, &e).ok)
		cert_fingerprint(c, fingerprint);
	buf_addf(out, " %s", str_eq(text, fingerprint) ? "of the client certificate" : "of another");
}

static void describe_content(const struct stage *s, const char *path, struct buf *out)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	char hex[65];
	if (!read_file(s, path, &text))
		buf_add_str(out, " UNREADABLE");
	else if (str_ends(path, ".conf"))
		describe_kubeconfig(s, path, buf_str(&text), out);
	else if (str_ends(path, "/absorbed"))
		describe_absorbed(s, buf_str(&text), out);
	else if (strstr(buf_str(&text), "BEGIN CERTIFICATE"))
		describe_pem(s, buf_str(&text), out);
	else {
		sha256_hex(buf_str(&text), text.len, hex);
		buf_addf(out, " %.12s", hex);
	}
}

/* "kubelet-client-2026-…" without the date. */
static void add_name(const char *path, struct buf *out)
{
	const char *dated = strstr(path, "kubelet-client-2");
	if (dated && !str_starts(dated, "kubelet-client-2026-01-02"))
		buf_addf(out, "%.*skubelet-client-DATE.pem", (int)(dated - path), path);
	else
		buf_add_str(out, path);
}

static const struct stage *describing; /* nftw has no context */
static struct strs *lines;

static int describe_one(const char *full, const struct stat *st, int kind, struct FTW *at)
{
	struct buf line cleanup(buf_release) = BUF_INIT;
	const char *path = full + strlen(describing->root);
	char target[CALL_PATH_SIZE] = "";
	if (!at->level)
		return 0;
	add_name(path, &line);
	buf_addf(&line, " %o %u:%u", (unsigned)st->st_mode, (unsigned)st->st_uid, (unsigned)st->st_gid);
	if (kind == FTW_SL && readlink(full, target, sizeof target - 1) > 0) {
		buf_add_str(&line, " -> ");
		add_name(target, &line);
	} else if (kind == FTW_F) {
		describe_content(describing, path, &line);
	}
	strs_add(lines, buf_str(&line));
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

char *verdict_describe(const struct stage *s)
{
	struct strs all cleanup(strs_release) = { 0 };
	struct buf out = BUF_INIT;
	describing = s;
	lines = &all;
	if (nftw(s->root, describe_one, 16, FTW_PHYS) != 0)
		abort();
	qsort(all.items, all.n, sizeof *all.items, by_text);
	for (size_t i = 0; i < all.n; i++)
		buf_addf(&out, "%s\n", all.items[i]);
	return buf_take(&out);
}

static void add_missing(const char *from, const char *in, const char *mark, struct buf *out)
{
	for (const char *p = from; *p; p += strcspn(p, "\n") + 1) {
		char *line cleanup(str_freep) = str_ndup(p, strcspn(p, "\n") + 1);
		const char *found = strstr(in, line);
		if (!found || (found != in && found[-1] != '\n'))
			buf_addf(out, "\n  %s %.*s", mark, (int)strcspn(line, "\n"), line);
	}
}

char *verdict_difference(const char *is, const char *expected)
{
	struct buf out = BUF_INIT;
	add_missing(is, expected, "is", &out);
	add_missing(expected, is, "should be", &out);
	return buf_take(&out);
}
