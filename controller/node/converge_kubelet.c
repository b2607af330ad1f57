/* The kubelet: its client certificate, its trust, one restart. */
#include "file.h"
#include "node.h"
#include "service.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define KUBELET_UNIT "kubelet.service"
#define SIGN_AGAIN_MS 500       /* doubled each time */
#define SIGN_AGAIN_MAX_MS 8000
#define UNIT_TIMEOUT_MS 60000
#define DATED_MAX 4096

/* --- The certificate ------------------------------------------------------------------------------------------------------------------ */

static result sign_here(const struct node *n, const struct cert *predecessor, const struct key *k, struct cert **ret, struct err *e)
{
	struct key *ca_key cleanup(key_freep) = NULL;
	TRY(node_new_key(n, AUTHORITY_KUBERNETES, &ca_key, e));
	int64_t validity = n->desired->leaf_validity_ms ? n->desired->leaf_validity_ms
							: cert_not_after_ms(predecessor) - cert_not_before_ms(predecessor);
	return leaf_reissue(predecessor, k, n->of[AUTHORITY_KUBERNETES].new, ca_key, clock_now_ms(), validity, ret, e);
}

static result ask_once(const struct node *n, const struct kubeconfig *c, const char *csr, bool rsa, struct cert **ret, struct err *e)
{
	struct buf ca cleanup(buf_release) = BUF_INIT;
	char *pem cleanup(str_freep) = NULL;
	cert_to_pem(n->of[AUTHORITY_KUBERNETES].old, &ca);
	cert_to_pem(n->of[AUTHORITY_KUBERNETES].new, &ca);
	const struct remote_identity id = { c->server, buf_str(&ca), c->client_cert_pem, c->client_key_pem };
	TRY(remote_sign_kubelet(&id, n->desired->node, csr, rsa, n->until_ms, &pem, e));
	return cert_from_pem(pem, strlen(pem), ret, e);
}

/* The signer takes up its new file a moment after it was replaced: one that O still signed is asked for again. */
static result ask_signer(const struct node *n, const struct kubeconfig *c, const struct cert *predecessor, const struct key *k,
			 struct cert **ret, struct err *e)
{
	struct buf csr cleanup(buf_release) = BUF_INIT;
	char *algorithm cleanup(str_freep) = cert_key_algorithm(predecessor);
	TRY(csr_make(predecessor, k, &csr, e));
	for (int64_t apart = SIGN_AGAIN_MS; clock_monotonic_ms() < n->until_ms; apart = apart < SIGN_AGAIN_MAX_MS ? apart * 2 : apart) {
		struct cert *got cleanup(cert_freep) = NULL;
		TRY(ask_once(n, c, buf_str(&csr), str_starts(algorithm, "RSA"), &got, e));
		if (node_issuer(&n->of[AUTHORITY_KUBERNETES], got) == HOLDS_NEW) {
			*ret = steal(&got);
			return OK;
		}
		node_rest(apart);
	}
	return err_set(e, ERR_TIMEOUT, "kube-controller-manager still signs with the old authority");
}

static result new_certificate(const struct node *n, const struct kubeconfig *c, struct buf *ret_cert, struct buf *ret_key, struct err *e)
{
	struct cert *predecessor cleanup(cert_freep) = NULL, *leaf cleanup(cert_freep) = NULL;
	struct key *k cleanup(key_freep) = NULL;
	TRY(cert_from_pem(c->client_cert_pem, strlen(c->client_cert_pem), &predecessor, e));
	char *algorithm cleanup(str_freep) = cert_key_algorithm(predecessor);
	TRY(key_generate(algorithm, &k, e));
	TRY(n->layout.control_plane ? sign_here(n, predecessor, k, &leaf, e) : ask_signer(n, c, predecessor, k, &leaf, e));
	char *was cleanup(str_freep) = cert_subject(predecessor), *is cleanup(str_freep) = cert_subject(leaf);
	if (!str_eq(was, is))
		return err_set(e, ERR_OTHER, "the new certificate is for \"%.100s\" instead of \"%.100s\"", is, was);
	cert_to_pem(leaf, ret_cert);
	key_to_pem(k, ret_key);
	return OK;
}

/* --- The files -------------------------------------------------------------------------------------------------------------------------- */

static result turn_link(struct node *n, const char *link, const char *path, struct err *e)
{
	strs_add(&n->report->changed, link);
	return file_symlink(path + strlen(n->layout.root), link, e);
}

/* As the kubelet's own certificate store does (client-go util/certificate/certificate_store.go): a dated file, then the symlink. */
static result write_dated(struct node *n, const char *link, const struct buf *cert, const struct buf *key, struct err *e)
{
	struct buf pem cleanup(buf_release) = BUF_SECRET;
	time_t now = (time_t)(clock_now_ms() / 1000);
	struct tm parts;
	char date[32];
	gmtime_r(&now, &parts);
	strftime(date, sizeof date, "%Y-%m-%d-%H-%M-%S", &parts);
	char *path cleanup(str_freep) = str_printf("%s/kubelet-client-%s.pem", n->layout.kubelet_pki, date);
	buf_add(&pem, cert->data, cert->len);
	buf_add(&pem, key->data, key->len);
	TRY(file_replace(path, buf_str(&pem), pem.len, 0600, NULL, e));
	return turn_link(n, link, path, e);
}

/* A dated certificate that N issued and that is good for a while yet: of before a run that goes back, or of a job that was cut off
 * before it turned the link. The one that lasts longest; NULL when there is none. Caller frees. */
static char *kept_dated(const struct node *n)
{
	struct strs names cleanup(strs_release) = { 0 };
	struct err e;
	int64_t latest = clock_now_ms() + NODE_KEPT_MARGIN_MS;
	char *found = NULL;
	if (!file_list(n->layout.kubelet_pki, DATED_MAX, &names, &e).ok)
		return NULL;
	for (size_t i = 0; i < names.n; i++) {
		struct certs list cleanup(certs_release) = { 0 };
		struct key *k cleanup(key_freep) = NULL;
		char *path cleanup(str_freep) = str_printf("%s/%s", n->layout.kubelet_pki, names.items[i]);
		bool usable = str_starts(names.items[i], "kubelet-client-2") && node_certs(path, &list, &e).ok &&
			      node_key_file(path, &k, &e).ok && cert_matches_key(list.items[0], k) &&
			      node_issuer(&n->of[AUTHORITY_KUBERNETES], list.items[0]) == HOLDS_NEW;
		if (!usable || cert_not_after_ms(list.items[0]) <= latest)
			continue;
		latest = cert_not_after_ms(list.items[0]);
		str_freep(&found);
		found = steal(&path);
	}
	return found;
}

/* kubelet.conf last: a kubelet younger than it has read everything. So it is written whenever the certificate was. */
static result write_files(struct node *n, bool both, bool *ret_written, struct err *e)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct buf text cleanup(buf_release) = BUF_SECRET, was cleanup(buf_release) = BUF_SECRET, next cleanup(buf_release) = BUF_SECRET;
	struct buf cert cleanup(buf_release) = BUF_INIT, key cleanup(buf_release) = BUF_SECRET, ca cleanup(buf_release) = BUF_INIT;
	const char *path = n->layout.kubelet_conf;
	TRY(file_read(path, MANIFEST_MAX, &text, e));
	TRY_CTX(node_kubeconfig(n, path, &c, e), e, "%s", path);
	bool have = node_is_from_new(n, c.client_cert_pem);
	if (have && node_trusts_new(n, c.ca_pem, both)) {
		*ret_written = false;
		return OK;
	}
	bool comes_back = !have && !c.client_cert_path && node_kept_kubeconfig(n, path, &text, &was);
	const struct buf *from = comes_back ? &was : &text;
	have = have || comes_back;
	char *kept cleanup(str_freep) = !have && c.client_cert_path ? kept_dated(n) : NULL;
	if (!have && !kept)
		TRY(new_certificate(n, &c, &cert, &key, e));
	if (kept)
		TRY(turn_link(n, c.client_cert_path, kept, e));
	else if (!have && c.client_cert_path)
		TRY(write_dated(n, c.client_cert_path, &cert, &key, e));
	bool embed = !have && !c.client_cert_path;
	node_trusted(n, both, &ca);
	TRY_CTX(kubeconfig_replace(buf_str(from), from->len, buf_str(&ca), embed ? buf_str(&cert) : NULL, embed ? buf_str(&key) : NULL,
				   &next, e), e, "%s", path);
	TRY(node_replace(n, path, &next, 0600, e));
	*ret_written = true;
	return OK;
}

/* --- The restart --------------------------------------------------------------------------------------------------------------------------- */

static bool kubelet_back(struct node *n, const void *context)
{
	const int64_t *written = context;
	long status = 0;
	struct err e;
	if (!node_find_processes(n, &e).ok || !n->running[PROCESS_KUBELET] || !process_younger(&n->processes[PROCESS_KUBELET], *written))
		return false;
	return !remote_available() || remote_answers("127.0.0.1", n->layout.kubelet_port, "/healthz", &status, &e).ok;
}

result node_kubelet(struct node *n, bool both, struct err *e)
{
	bool wrote = false;
	int64_t written = 0;
	TRY(write_files(n, both, &wrote, e));
	TRY(file_mtime(n->layout.kubelet_conf, &written, e));
	TRY(node_find_processes(n, e));
	if (!node_younger(n, PROCESS_KUBELET, n->layout.kubelet_conf)) {
		TRY(service_restart(KUBELET_UNIT, UNIT_TIMEOUT_MS, e));
		strs_add(&n->report->restarted, process_name(PROCESS_KUBELET));
		TRY(node_wait(n, kubelet_back, &written, "the kubelet to be back", e));
	}
	return node_observe(n, e);
}
