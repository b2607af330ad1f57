/* LINK: kube */
/* kubeconfig files by any hand: read whole or not at all; what is replaced is read again and nothing else has changed; and what we
 * write for any names is read again as meant. */
#include "fuzz.h"

#include "kubeconfig.h"

#include <string.h>

#define NOWHERE "/nonexistent" /* file references lead there */

static void check_read(const struct kubeconfig *c)
{
	MUST(c->server && *c->server && c->context && c->cluster && c->user);
	MUST(!c->client_cert_pem == !c->client_key_pem);
	MUST(!c->ca_path && !c->client_cert_path && !c->client_key_path && !c->token_path);
	MUST(!c->ca_pem || *c->ca_pem);
	MUST(!c->token || *c->token);
}

static void check_same(const struct kubeconfig *a, const struct kubeconfig *b)
{
	MUST(str_eq(a->server, b->server) && str_eq(a->context, b->context) && str_eq(a->cluster, b->cluster) && str_eq(a->user, b->user));
	MUST(str_eq(a->token, b->token) && str_eq(a->tls_server_name, b->tls_server_name) && str_eq(a->unsupported, b->unsupported));
}

static void check_replace(const char *text, size_t len, const struct kubeconfig *before)
{
	struct kubeconfig after cleanup(kubeconfig_release) = { 0 };
	struct buf changed cleanup(buf_release) = BUF_SECRET;
	struct err e = { 0 };
	const char *cert = before->client_cert_pem ? "new cert\n" : NULL, *key = before->client_cert_pem ? "new key\n" : NULL;
	if (!kubeconfig_replace(text, len, "new CA\n", cert, key, &changed, &e).ok) {
		MUST(!changed.len && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return;
	}
	MUST(kubeconfig_parse(changed.data, changed.len, NOWHERE, &after, &e).ok);
	check_same(before, &after);
	MUST(str_eq(after.ca_pem, "new CA\n") && str_eq(after.client_cert_pem, cert) && str_eq(after.client_key_pem, key));
}

static void check_replace_nothing(const char *text, size_t len)
{
	struct buf same cleanup(buf_release) = BUF_SECRET;
	struct err e = { 0 };
	MUST(kubeconfig_replace(text, len, NULL, NULL, NULL, &same, &e).ok);
	MUST(same.len == len && memcmp(same.data, text, len) == 0);
}

static void check_write(const char *cluster, const char *server, const char *user)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct buf text cleanup(buf_release) = BUF_SECRET;
	struct err e = { 0 };
	bool readable = fuzz_is_utf8(cluster, strlen(cluster)) && fuzz_is_utf8(server, strlen(server)) && fuzz_is_utf8(user, strlen(user));
	kubeconfig_write(cluster, server, user, "CA\n", "cert\n", "key\n", &text);
	if (!kubeconfig_parse(text.data, text.len, NOWHERE, &c, &e).ok) {
		/* names that YAML has no way to tell from none are nobody's */
		MUST(!*cluster || !*server || !*user || !readable);
		return;
	}
	MUST(!readable || (str_eq(c.cluster, cluster) && str_eq(c.server, server) && str_eq(c.user, user)));
	MUST(str_eq(c.ca_pem, "CA\n") && str_eq(c.client_cert_pem, "cert\n") && str_eq(c.client_key_pem, "key\n"));
	MUST(!c.unsupported && !c.token);
}

static char *line_part(struct fuzz_input *in)
{
	size_t len = 0;
	char *text = fuzz_part(in, &len);
	if (len && text[len - 1] == '\n')
		text[len - 1] = '\0';
	return text;
}

/* Input: the file, "====", and for writing: cluster, server, user. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	size_t len = 0;
	char *text cleanup(str_freep) = fuzz_part(&in, &len), *cluster cleanup(str_freep) = line_part(&in);
	char *server cleanup(str_freep) = line_part(&in), *user cleanup(str_freep) = line_part(&in);
	struct kubeconfig c cleanup(kubeconfig_release) = { 0 };
	struct err e = { 0 };
	check_write(cluster, server, user);
	if (!kubeconfig_parse(text, len, NOWHERE, &c, &e).ok) {
		MUST(!c.server && !c.token && !c.client_key_pem && !c.ca_pem);
		fuzz_check_err(&e);
		return 0;
	}
	check_read(&c);
	check_replace(text, len, &c);
	check_replace_nothing(text, len);
	return 0;
}
