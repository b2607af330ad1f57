#include "kubeconfig.h"

#include "file.h"
#include "yaml.h"

#include <string.h>

#define FILE_MAX ((size_t)4 << 20)

void kubeconfig_release(struct kubeconfig *c)
{
	str_freep(&c->server);
	str_freep(&c->ca_pem);
	str_freep(&c->ca_path);
	str_freep(&c->client_cert_pem);
	str_freep(&c->client_cert_path);
	secret_freep(&c->client_key_pem);
	str_freep(&c->client_key_path);
	secret_freep(&c->token);
	str_freep(&c->token_path);
	str_freep(&c->tls_server_name);
	str_freep(&c->user);
	str_freep(&c->cluster);
	str_freep(&c->context);
	c->unsupported = NULL;
}

/* --- Finding the current context ---------------------------------------------------------------------------------- */

/* The nodes that count: of the current context. */
struct current {
	const char *context_name, *cluster_name, *user_name;
	const struct yaml_node *cluster, *user;
};

/* Plain, not in quotes. */
static bool is_null(const struct yaml_node *n)
{
	static const char *const nulls[] = { "", "~", "null", "Null", "NULL" };
	for (size_t i = 0; i < ARRAY_LEN(nulls); i++)
		if (str_eq(yaml_str(n), nulls[i]) && n->end - n->start == strlen(nulls[i]))
			return true;
	return false;
}

/* "" means absent, as in clientcmd. */
static const char *text_at(const struct yaml_node *mapping, const char *key)
{
	const struct yaml_node *n = yaml_get(mapping, key);
	const char *s = yaml_str(n);
	return s && *s && !is_null(n) ? s : NULL;
}

/* The entry `name` of contexts, clusters or users, and in it the member `kind`. */
static result find_named(const struct yaml_node *root, const char *list, const char *kind, const char *name,
			 const struct yaml_node **ret, struct err *e)
{
	yaml_each(entry, yaml_get(root, list))
		if (str_eq(yaml_str(yaml_get(entry, "name")), name)) {
			const struct yaml_node *found = yaml_get(entry, kind);
			if (!found || found->kind != YAML_MAPPING)
				return err_set(e, ERR_INPUT, "%s \"%s\" has no %s", list, name, kind);
			*ret = found;
			return OK;
		}
	return err_set(e, ERR_INPUT, "%s has no \"%s\"", list, name);
}

/* cluster-info's form (kubeadm's discovery): one cluster, no contexts, no users. */
static bool lone_cluster(const struct yaml_node *root, struct current *ret)
{
	const struct yaml_node *clusters = yaml_get(root, "clusters"), *users = yaml_get(root, "users");
	const struct yaml_node *entry = clusters ? clusters->first : NULL;
	const struct yaml_node *cluster = yaml_get(entry, "cluster");
	if (!entry || !cluster || cluster->kind != YAML_MAPPING || entry->next || (users && users->first))
		return false;
	*ret = (struct current){ .context_name = "", .cluster_name = "", .user_name = "", .cluster = cluster };
	return true;
}

static result find_current(const struct yaml *y, struct current *ret, struct err *e)
{
	const struct yaml_node *root = yaml_root(y), *context = NULL;
	struct current c = { .context_name = text_at(root, "current-context") };
	if (!c.context_name && lone_cluster(root, ret))
		return OK;
	if (!c.context_name)
		return err_set(e, ERR_INPUT, "current-context is not set");
	TRY(find_named(root, "contexts", "context", c.context_name, &context, e));
	c.cluster_name = text_at(context, "cluster");
	c.user_name = text_at(context, "user");
	if (!c.cluster_name || !c.user_name)
		return err_set(e, ERR_INPUT, "contexts \"%s\" names no %s", c.context_name, c.cluster_name ? "user" : "cluster");
	TRY(find_named(root, "clusters", "cluster", c.cluster_name, &c.cluster, e));
	TRY(find_named(root, "users", "user", c.user_name, &c.user, e));
	*ret = c;
	return OK;
}

/* --- Reading ------------------------------------------------------------------------------------------------------ */

/* Where file references are looked up. */
struct place {
	const char *root;
	const char *folder; /* of the kubeconfig, root not included; NULL when not known */
};

static char *dup_or_null(const char *s)
{
	return s ? str_dup(s) : NULL;
}

static result decode(const char *base64, char **ret, struct err *e)
{
	struct buf bytes cleanup(buf_release) = BUF_SECRET;
	TRY(base64_decode(base64, strlen(base64), &bytes, e));
	if (!bytes.len || strlen(bytes.data) != bytes.len)
		return err_set(e, ERR_INPUT, "empty, or not text");
	*ret = buf_take(&bytes);
	return OK;
}

static result read_reference(const struct place *at, const char *reference, char **ret_path, char **ret_text, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	bool absolute = reference[0] == '/';
	if (!absolute && !at->folder)
		return err_set(e, ERR_INPUT, "\"%s\" is relative, and the file's folder is not known", reference);
	char *path cleanup(str_freep) = str_printf("%s%s%s%s", at->root, absolute ? "" : at->folder, absolute ? "" : "/",
						   reference);
	TRY(file_read(path, FILE_MAX, &text, e));
	if (!text.len || strlen(text.data) != text.len)
		return err_set(e, ERR_INPUT, "%s is empty, or not text", path);
	*ret_text = buf_take(&text);
	*ret_path = steal(&path);
	return OK;
}

/* The value of `name`-data, or of the file that `name` refers to; both is an error in clientcmd's validation too. */
static result read_pem(const struct yaml_node *mapping, const char *name, const struct place *at, char **ret_path,
		       char **ret_text, struct err *e)
{
	char *data_name cleanup(str_freep) = str_printf("%s-data", name);
	const char *data = text_at(mapping, data_name), *reference = text_at(mapping, name);
	if (data && reference)
		return err_set(e, ERR_INPUT, "%s and %s are both given", name, data_name);
	if (data)
		TRY_CTX(decode(data, ret_text, e), e, "%s", data_name);
	if (reference)
		TRY_CTX(read_reference(at, reference, ret_path, ret_text, e), e, "%s", name);
	return OK;
}

/* tokenFile goes before token (clientcmd/v1 AuthInfo). */
static result read_token(const struct yaml_node *user, const struct place *at, struct kubeconfig *c, struct err *e)
{
	const char *reference = text_at(user, "tokenFile");
	if (!reference) {
		c->token = dup_or_null(text_at(user, "token"));
		return OK;
	}
	TRY_CTX(read_reference(at, reference, &c->token_path, &c->token, e), e, "tokenFile");
	for (size_t n = strlen(c->token); n && strchr(" \t\r\n", c->token[n - 1]); n--)
		c->token[n - 1] = '\0';
	return OK;
}

static const char *first_unsupported(const struct current *now)
{
	static const char *const of_user[] = { "exec", "auth-provider", "username", "as", "as-uid", "as-groups",
					       "as-user-extra" };
	for (size_t i = 0; i < ARRAY_LEN(of_user); i++) {
		const struct yaml_node *n = yaml_get(now->user, of_user[i]);
		if (n && (n->first || text_at(now->user, of_user[i])))
			return of_user[i];
	}
	if (str_eq(text_at(now->cluster, "insecure-skip-tls-verify"), "true"))
		return "insecure-skip-tls-verify";
	return text_at(now->cluster, "proxy-url") ? "proxy-url" : NULL;
}

static result read_user(const struct current *now, const struct place *at, struct kubeconfig *c, struct err *e)
{
	TRY(read_pem(now->user, "client-certificate", at, &c->client_cert_path, &c->client_cert_pem, e));
	TRY(read_pem(now->user, "client-key", at, &c->client_key_path, &c->client_key_pem, e));
	if (!c->client_cert_pem != !c->client_key_pem)
		return err_set(e, ERR_INPUT, "client-certificate and client-key: one without the other");
	return read_token(now->user, at, c, e);
}

static result read_current(const struct current *now, const struct place *at, struct kubeconfig *ret, struct err *e)
{
	struct kubeconfig c cleanup(kubeconfig_release) = { .unsupported = first_unsupported(now) };
	c.server = dup_or_null(text_at(now->cluster, "server"));
	if (!c.server)
		return err_set(e, ERR_INPUT, "clusters \"%s\" has no server", now->cluster_name);
	TRY_CTX(read_pem(now->cluster, "certificate-authority", at, &c.ca_path, &c.ca_pem, e), e, "clusters \"%s\"",
		now->cluster_name);
	TRY_CTX(read_user(now, at, &c, e), e, "users \"%s\"", now->user_name);
	c.tls_server_name = dup_or_null(text_at(now->cluster, "tls-server-name"));
	c.context = str_dup(now->context_name);
	c.cluster = str_dup(now->cluster_name);
	c.user = str_dup(now->user_name);
	*ret = c;
	c = (struct kubeconfig){ 0 };
	return OK;
}

static result parse_at(const char *text, size_t len, const struct place *at, struct kubeconfig *ret, struct err *e)
{
	struct yaml *y cleanup(yaml_freep) = NULL;
	struct current now = { 0 };
	TRY(yaml_parse(text, len, &y, e));
	TRY(find_current(y, &now, e));
	return read_current(&now, at, ret, e);
}

result kubeconfig_parse(const char *text, size_t len, const char *root, struct kubeconfig *ret, struct err *e)
{
	TRY_CTX(parse_at(text, len, &(struct place){ .root = root }, ret, e), e, "kubeconfig");
	return OK;
}

result kubeconfig_load(const char *path, const char *root, struct kubeconfig *ret, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	char *full cleanup(str_freep) = str_printf("%s%s", root, path);
	const char *slash = strrchr(path, '/');
	char *folder cleanup(str_freep) = slash ? str_ndup(path, (size_t)(slash - path)) : str_dup(".");
	TRY(file_read(full, FILE_MAX, &text, e));
	TRY_CTX(parse_at(buf_str(&text), text.len, &(struct place){ root, folder }, ret, e), e, "kubeconfig %s", full);
	return OK;
}

/* --- Replacing ---------------------------------------------------------------------------------------------------- */

static result replace_one(struct yaml_edits *edits, const struct yaml_node *mapping, const char *owner, const char *name,
			  const char *pem, struct err *e)
{
	struct buf base64 cleanup(buf_release) = BUF_SECRET;
	if (!pem)
		return OK;
	if (!text_at(mapping, name))
		return err_set(e, ERR_INPUT, "%s: %s is not there to be replaced: not embedded data", owner, name);
	base64_encode(pem, strlen(pem), &base64);
	yaml_edit_scalar(edits, yaml_get(mapping, name), buf_str(&base64));
	return OK;
}

static result collect_edits(const struct yaml *y, struct yaml_edits *edits, const char *ca_pem, const char *client_cert_pem,
			    const char *client_key_pem, struct err *e)
{
	struct current now = { 0 };
	TRY(find_current(y, &now, e));
	TRY(replace_one(edits, now.cluster, now.cluster_name, "certificate-authority-data", ca_pem, e));
	TRY(replace_one(edits, now.user, now.user_name, "client-certificate-data", client_cert_pem, e));
	return replace_one(edits, now.user, now.user_name, "client-key-data", client_key_pem, e);
}

result kubeconfig_replace(const char *text, size_t len, const char *ca_pem, const char *client_cert_pem,
			  const char *client_key_pem, struct buf *ret_secret, struct err *e)
{
	struct yaml *y cleanup(yaml_freep) = NULL;
	struct yaml_edits edits cleanup(yaml_edits_release) = { 0 };
	TRY_CTX(yaml_parse(text, len, &y, e), e, "kubeconfig");
	TRY_CTX(collect_edits(y, &edits, ca_pem, client_cert_pem, client_key_pem, e), e, "kubeconfig");
	return yaml_apply(y, &edits, ret_secret, e);
}

/* --- Writing ------------------------------------------------------------------------------------------------------ */

static void add_line(struct buf *out, const char *key, const char *name)
{
	buf_add_str(out, key);
	yaml_add_string(out, name);
	buf_add_char(out, '\n');
}

static void add_pem(struct buf *out, const char *key, const char *pem)
{
	if (!pem)
		return;
	buf_add_str(out, key);
	base64_encode(pem, strlen(pem), out);
	buf_add_char(out, '\n');
}

/* Order and layout of clientcmd's writer, which kubeadm uses. */
void kubeconfig_write(const char *cluster, const char *server, const char *user, const char *ca_pem, const char *client_cert_pem,
		      const char *client_key_pem, struct buf *out_secret)
{
	char *context cleanup(str_freep) = str_printf("%s@%s", user, cluster);
	buf_add_str(out_secret, "apiVersion: v1\nclusters:\n- cluster:\n");
	add_pem(out_secret, "    certificate-authority-data: ", ca_pem);
	add_line(out_secret, "    server: ", server);
	add_line(out_secret, "  name: ", cluster);
	add_line(out_secret, "contexts:\n- context:\n    cluster: ", cluster);
	add_line(out_secret, "    user: ", user);
	add_line(out_secret, "  name: ", context);
	add_line(out_secret, "current-context: ", context);
	add_line(out_secret, "kind: Config\nusers:\n- name: ", user);
	buf_add_str(out_secret, client_cert_pem || client_key_pem ? "  user:\n" : "  user: {}\n");
	add_pem(out_secret, "    client-certificate-data: ", client_cert_pem);
	add_pem(out_secret, "    client-key-data: ", client_key_pem);
}
