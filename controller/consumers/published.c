/* The published trust: kube-root-ca.crt in every namespace, and ca.crt in ServiceAccount token Secrets. The controller-manager owns
 * both and rewrites what differs from its --root-ca-file; so what we write is byte for byte what it would. */
#include "consumer.h"

#include <string.h>

struct count {
	const struct run *run;
	struct tally *tally;
	bool secrets;
	/* or, for patching: */
	int level;
	bool (*each)(void *context, const struct laggard *l);
	void *context;
};

/* The bundle of one object; false when there is none that can be read (which then lags). */
static bool look(const struct count *c, const struct json *object, struct bundle_content *ret)
{
	struct err e;
	const char *text = json_str(json_at(object, "data", "ca.crt", NULL));
	struct buf pem cleanup(buf_release) = BUF_INIT;
	if (!text)
		return false;
	if (!c->secrets)
		return bundle_look(&c->run->of[AUTHORITY_KUBERNETES], text, strlen(text), ret, &e).ok;
	return base64_decode(text, strlen(text), &pem, &e).ok && bundle_look(&c->run->of[AUTHORITY_KUBERNETES], buf_str(&pem), pem.len, ret, &e).ok;
}

static bool count_one(void *context, const struct json *object)
{
	struct count *c = context;
	struct bundle_content b = { 0 };
	struct buf name cleanup(buf_release) = BUF_INIT;
	bool readable = look(c, object, &b);
	bool only = readable && b.has_new && !b.has_old && !b.has_other;
	object_name(object, &name);
	c->tally->total++;
	c->tally->with_new += readable && b.has_new;
	c->tally->only_new += only;
	if (!readable || !b.has_new)
		tally_lag(&c->tally->lag_new, buf_str(&name));
	if (!only)
		tally_lag(&c->tally->lag_only, buf_str(&name));
	return true;
}

static void count_anew(void *context)
{
	struct count *c = context;
	strs_release(&c->tally->lag_new);
	strs_release(&c->tally->lag_only);
	*c->tally = (struct tally){ 0 };
}

static struct kube_list query(bool secrets)
{
	if (secrets)
		return (struct kube_list){ .path = "/api/v1/secrets", .field_selector = "type=kubernetes.io/service-account-token",
					   .secret = true, .page = 200 };
	return (struct kube_list){ .path = "/api/v1/configmaps", .field_selector = "metadata.name=kube-root-ca.crt",
				   .page = 200 };
}

static result count_all(struct observation *o, struct tally *tally, bool secrets, struct err *e)
{
	struct count c = { .run = &o->world->run, .tally = tally, .secrets = secrets };
	const struct kube_list q = query(secrets);
	TRY(kube_list_each(o->kube, &q, count_one, count_anew, &c, NULL, e));
	tally->known = true;
	return OK;
}

static result root_configmaps_observe(struct observation *o, struct err *e)
{
	return count_all(o, &o->world->root_configmaps, false, e);
}

static result token_secrets_observe(struct observation *o, struct err *e)
{
	return count_all(o, &o->world->token_secrets, true, e);
}

const struct consumer consumer_root_configmaps = { "kube-root-ca.crt", READS_IN_BOTH, root_configmaps_observe };
const struct consumer consumer_token_secrets = { "ServiceAccount token Secrets", READS_IN_BOTH, token_secrets_observe };

/* --- For patching ----------------------------------------------------------------------------------------------------- */

char *laggard_path(const struct laggard *l)
{
	return str_printf("/api/v1/namespaces/%s/%s/%s", l->namespace, l->secret ? "secrets" : "configmaps", l->name);
}

static bool lag_one(void *context, const struct json *object)
{
	struct count *c = context;
	struct bundle_content b = { 0 };
	bool readable = look(c, object, &b);
	bool reached = readable && b.has_new && (c->level != TRUST_NEW || (!b.has_old && !b.has_other));
	if (reached)
		return true;
	const struct json *meta = json_get(object, "metadata");
	const struct laggard l = { .namespace = json_str_or(json_get(meta, "namespace"), ""),
				   .name = json_str_or(json_get(meta, "name"), ""),
				   .resource_version = json_str_or(json_get(meta, "resourceVersion"), ""),
				   .secret = c->secrets };
	return c->each(c->context, &l);
}

result published_each_lag(struct kube *kube, const struct run *run, int level, bool secrets,
			  bool (*each)(void *context, const struct laggard *l), void *context, struct err *e)
{
	struct count c = { .run = run, .secrets = secrets, .level = level, .each = each, .context = context };
	const struct kube_list q = query(secrets);
	return kube_list_each(kube, &q, lag_one, NULL, &c, NULL, e);
}
