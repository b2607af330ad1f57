/* Copies of the old authority, of kubeconfigs that trust it and of certificates that it issued, in Secrets and ConfigMaps that no run
 * looks after: they stop working at the drop. Read for a plan, page by page; each value is looked at and forgotten, and what a Secret
 * holds is wiped. Names, keys, subjects and dates stay, nothing else. */
#include "consumer.h"
#include "yaml.h"

#include <string.h>

#define PAGE 50 /* a Secret or ConfigMap has up to 1 MiB */
#define DEPTH_MAX 16

struct look {
	struct observation *o;
	struct cert *old;
	bool secrets;                /* these now, not ConfigMaps */
	bool lost;                   /* what the Secrets held was dropped with the ConfigMaps */
};

static void look_release(struct look *l)
{
	cert_freep(&l->old);
}

/* What one value holds. */
struct value {
	const struct cert *old;
	int holds;
	bool in_kubeconfig;
	char *subject;
	int64_t not_after_ms;
};

static void value_release(struct value *v)
{
	str_freep(&v->subject);
}

static void look_at_cert(void *context, const struct cert *c)
{
	struct value *v = context;
	if (cert_equal(c, v->old)) {
		v->holds |= v->in_kubeconfig ? COPY_KUBECONFIG : COPY_AUTHORITY;
		return;
	}
	if (!cert_issued_by(c, v->old))
		return;
	v->holds |= COPY_CERTIFICATE;
	if (v->subject)
		return;
	v->subject = cert_subject(c);
	v->not_after_ms = cert_not_after_ms(c);
}

/* --- Kubeconfigs ------------------------------------------------------------------------------------------------------- */

static bool carries_certificates(const char *key)
{
	return str_eq(key, "certificate-authority-data") || str_eq(key, "client-certificate-data");
}

/* Every cluster and user of the file, whichever context is the current one. */
static void look_at_node(struct value *v, const struct yaml_node *n, int depth)
{
	yaml_each(child, n) {
		const char *text = yaml_str(child);
		struct buf pem cleanup(buf_release) = BUF_INIT;
		struct err e;
		if (depth < DEPTH_MAX && !text)
			look_at_node(v, child, depth + 1);
		else if (text && carries_certificates(child->key) && base64_decode(text, strlen(text), &pem, &e).ok)
			certs_scan(buf_str(&pem), look_at_cert, v);
	}
}

static bool looks_like_kubeconfig(const char *text)
{
	return strstr(text, "certificate-authority-data") || strstr(text, "client-certificate-data");
}

static void look_at_kubeconfig(struct value *v, const char *text, size_t len)
{
	struct yaml *y cleanup(yaml_freep) = NULL;
	struct err e;
	if (!yaml_parse(text, len, &y, &e).ok) {
		v->holds |= COPY_UNREADABLE;
		return;
	}
	v->in_kubeconfig = true;
	look_at_node(v, yaml_root(y), 0);
}

/* --- Objects ------------------------------------------------------------------------------------------------------------ */

static void note(struct world *w, const struct json *object, bool secret, const char *key, struct value *v)
{
	const struct json *meta = json_get(object, "metadata");
	struct copy *c = world_add_copy(w);
	if (!c)
		return;
	c->kind = str_dup(secret ? "Secret" : "ConfigMap");
	c->namespace = str_dup(json_str_or(json_get(meta, "namespace"), ""));
	c->name = str_dup(json_str_or(json_get(meta, "name"), ""));
	c->key = str_dup(key);
	c->holds = v->holds;
	c->subject = steal(&v->subject);
	c->not_after_ms = v->not_after_ms;
}

static void look_at_value(struct value *v, const char *value, bool secret)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	struct err e;
	if (secret && !base64_decode(value, strlen(value), &text, &e).ok)
		return;
	if (!secret)
		buf_add_str(&text, value);
	certs_scan(buf_str(&text), look_at_cert, v);
	if (looks_like_kubeconfig(buf_str(&text)))
		look_at_kubeconfig(v, buf_str(&text), text.len);
}

void copies_look_at(struct world *w, const struct cert *old, const struct json *object, bool secret)
{
	json_each(item, json_get(object, "data")) {
		struct value v cleanup(value_release) = { .old = old };
		if (json_str(item))
			look_at_value(&v, json_str(item), secret);
		if (v.holds)
			note(w, object, secret, json_name(item), &v);
	}
}

/* What a run writes itself. */
static bool is_looked_after(const struct look *l, const struct json *object)
{
	const struct settings *s = l->o->settings;
	const char *namespace = json_str_or(json_at(object, "metadata", "namespace", NULL), "");
	const char *name = json_str_or(json_at(object, "metadata", "name", NULL), "");
	if (l->secrets)
		return str_eq(namespace, s->node_namespace) || (str_eq(namespace, s->namespace) && str_eq(name, ADMIN_KUBECONFIG_SECRET));
	return str_eq(name, "kube-root-ca.crt") || (str_eq(namespace, "kube-public") && str_eq(name, "cluster-info")) ||
	       (str_eq(namespace, "kube-system") && str_eq(name, "extension-apiserver-authentication"));
}

static bool each_object(void *context, const struct json *object)
{
	struct look *l = context;
	if (!is_looked_after(l, object))
		copies_look_at(l->o->world, l->old, object, l->secrets);
	return true;
}

static void drop(void *context)
{
	struct look *l = context;
	world_drop_copies(l->o->world);
	l->lost = !l->secrets;
}

static result look_at_all(struct look *l, struct err *e)
{
	const struct kube_list secrets = { .path = "/api/v1/secrets", .field_selector = "type!=kubernetes.io/service-account-token",
					   .secret = true, .page = PAGE };
	const struct kube_list configmaps = { .path = "/api/v1/configmaps", .field_selector = "metadata.name!=kube-root-ca.crt",
					      .page = PAGE };
	l->secrets = true;
	TRY(kube_list_each(l->o->kube, &secrets, each_object, drop, l, NULL, e));
	l->secrets = false;
	TRY(kube_list_each(l->o->kube, &configmaps, each_object, drop, l, NULL, e));
	return l->lost ? err_set(e, ERR_EXPIRED, "the list of ConfigMaps expired in the middle: all is read once more") : OK;
}

static result copies_observe(struct observation *o, struct err *e)
{
	struct look l cleanup(look_release) = { .o = o };
	if (!o->published_pem)
		return err_set(e, ERR_OTHER, "the authority in force is not known");
	TRY(cert_from_pem(o->published_pem, strlen(o->published_pem), &l.old, e));
	TRY(look_at_all(&l, e));
	o->world->copies_known = true;
	return OK;
}

const struct consumer consumer_copies = { "Secrets and ConfigMaps", READS_FOR_PLAN, copies_observe };
