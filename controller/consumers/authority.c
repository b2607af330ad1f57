/* The authorities' Secrets: the run under way (role `next`), and which triggers are recorded. What the world can't show by
 * itself, which of two CAs is old, stands here. */
#include "consumer.h"

#include <string.h>

#define PROBE_MARGIN_MS ((int64_t)3600000)
#define SUBJECT_MAX 1000 /* the schema's limit or less */

/* Decodes data[name] of a Secret. NULL when absent or broken (a broken value counts as absent, so that nothing rests on it). */
static char *secret_text(const struct json *secret, const char *name, bool private)
{
	const char *text = json_str(json_at(secret, "data", name, NULL));
	struct buf out cleanup(buf_release) = { .secret = private };
	struct err e;
	if (!text || !base64_decode(text, strlen(text), &out, &e).ok || !out.len)
		return NULL;
	return buf_take(&out);
}

static void read_accepted(const struct json *secret, struct strs *ret)
{
	const char *text = annotation(secret, ANNOTATION_ACCEPTED);
	struct json *list cleanup(json_freep) = NULL;
	struct err e;
	if (!text || !json_parse(text, strlen(text), &list, &e).ok)
		return;
	json_each(name, list)
		if (json_str(name))
			strs_add(ret, json_str(name));
}

/* A server refuses an expired probe too, and that would prove nothing. */
static bool probe_lives(const char *pem, int64_t now_ms)
{
	struct err e;
	struct cert *c cleanup(cert_freep) = NULL;
	return pem && cert_from_pem(pem, strlen(pem), &c, &e).ok && cert_not_after_ms(c) > now_ms + PROBE_MARGIN_MS;
}

static void exchange(char **a, char **b)
{
	char *kept = *a;
	*a = *b;
	*b = kept;
}

/* O and N change places, Y stands for X. Not before both bridges are there: until then nothing has been touched. */
static void turn_round(struct observation *o, const struct json *secret)
{
	struct run *run = &o->world->run;
	char *y cleanup(str_freep) = secret_text(secret, "bridge-back.crt", false);
	if (!y || !run->bridge_pem || !run->has_old_probe || !run->has_new_probe)
		return;
	run->back = true;
	exchange(&run->old_pem, &run->new_pem);
	exchange(&run->bridge_pem, &y);
	exchange(&o->credentials.probe_old, &o->credentials.probe_new);
	str_freep(&run->leg);
	run->leg = str_printf("%s-back", run->id);
}

static void read_latches(struct run *run, const struct json *secret)
{
	run->approved = str_eq(annotation(secret, ANNOTATION_APPROVED), "DroppingOld");
	run->dropping = annotation(secret, ANNOTATION_DROPPING) != NULL;
	run->rollback = annotation(secret, ANNOTATION_ROLLBACK) != NULL;
	read_accepted(secret, &run->accepted);
}

static void read_run(struct observation *o, const struct json *secret)
{
	struct run *run = &o->world->run;
	struct err e;
	run_release(run);
	run->exists = true;
	run->version = str_dup(json_str_or(json_at(secret, "metadata", "resourceVersion", NULL), ""));
	run->secret = str_dup(json_str_or(json_at(secret, "metadata", "name", NULL), ""));
	run->id = str_dup(json_str_or(json_at(secret, "metadata", "labels", LABEL_RUN, NULL), ""));
	run->leg = str_dup(run->id);
	run->trigger = str_dup(json_str_or(json_at(secret, "metadata", "annotations", ANNOTATION_TRIGGER, NULL), ""));
	run->owner = str_dup(json_str_or(json_at(secret, "metadata", "annotations", ANNOTATION_OWNER, NULL), ""));
	run->spec = annotation(secret, ANNOTATION_SPEC) ? str_dup(annotation(secret, ANNOTATION_SPEC)) : NULL;
	run->old_pem = secret_text(secret, "old.crt", false);
	run->new_pem = secret_text(secret, "tls.crt", false);
	run->bridge_pem = secret_text(secret, "bridge.crt", false);
	run->has_key = json_at(secret, "data", "tls.key", NULL) != NULL;
	read_latches(run, secret);
	const char *started = annotation(secret, ANNOTATION_STARTED);
	if (!started || !time_parse(started, &run->started_ms, &e).ok)
		run->started_ms = o->world->now_ms;
	credentials_release(&o->credentials);
	o->credentials.probe_key = secret_text(secret, "probe.key", true);
	o->credentials.probe_new = secret_text(secret, "probe-new.crt", false);
	o->credentials.probe_old = secret_text(secret, "probe-old.crt", false);
	run->has_new_probe = o->credentials.probe_key && probe_lives(o->credentials.probe_new, o->world->now_ms);
	run->has_old_probe = o->credentials.probe_key && probe_lives(o->credentials.probe_old, o->world->now_ms);
	if (run->rollback)
		turn_round(o, secret);
}

static bool each_secret(void *context, const struct json *secret)
{
	struct observation *o = context;
	const char *role = label(secret, LABEL_ROLE), *trigger = annotation(secret, ANNOTATION_TRIGGER);
	if (str_eq(role, "next"))
		read_run(o, secret);
	else if (trigger)
		strs_add(&o->recorded, trigger);
	if (trigger && str_eq(role, "rolled-back"))
		strs_add(&o->rolled_back, trigger);
	return true;
}

static void drop_secrets(void *context)
{
	struct observation *o = context;
	run_release(&o->world->run);
	strs_release(&o->recorded);
	strs_release(&o->rolled_back);
}

/* The CA that is published now says by its subject which run made it, whatever became of the Secrets. */
static result read_published(struct observation *o, struct err *e)
{
	struct json *map cleanup(json_freep) = NULL;
	TRY(kube_get(o->kube, "/api/v1/namespaces/kube-public/configmaps/kube-root-ca.crt", &map, e));
	const char *pem = json_str(json_at(map, "data", "ca.crt", NULL));
	struct cert *c cleanup(cert_freep) = NULL;
	if (!pem)
		return err_set(e, ERR_INPUT, "ConfigMap kube-public/kube-root-ca.crt has no ca.crt");
	TRY(cert_from_pem(pem, strlen(pem), &c, e));
	struct buf text cleanup(buf_release) = BUF_INIT;
	cert_to_pem(c, &text);
	str_freep(&o->published_pem);
	o->published_pem = buf_take(&text);
	o->world->authority = mem_alloc(CERT_FINGERPRINT_SIZE);
	cert_fingerprint(c, o->world->authority);
	char *unit cleanup(str_freep) = cert_subject_attribute(c, "OU");
	if (unit && str_starts(unit, AUTHORITY_UNIT))
		str_copy(o->published_run, sizeof o->published_run, unit + strlen(AUTHORITY_UNIT));
	return OK;
}

static void describe(struct json *parent, const char *field, const char *pem)
{
	struct err e;
	struct cert *c cleanup(cert_freep) = NULL;
	char fingerprint[CERT_FINGERPRINT_SIZE], until[32];
	if (!pem || !cert_from_pem(pem, strlen(pem), &c, &e).ok)
		return;
	char *subject cleanup(str_freep) = cert_subject(c);
	char spki[CERT_FINGERPRINT_SIZE], hash[80] = "sha256:";
	cert_fingerprint(c, fingerprint);
	cert_spki_sha256(c, spki);
	str_copy(hash + 7, sizeof hash - 7, spki);
	time_format(cert_not_after_ms(c), until);
	struct json *j = json_ensure_object(parent, field);
	json_set_str(j, "fingerprint", fingerprint);
	subject[str_cut(subject, SUBJECT_MAX)] = '\0';
	json_set_str(j, "subject", subject);
	json_set_str(j, "notAfter", until);
	json_set_str(j, "discoveryTokenCACertHash", hash);
}

static void describe_all(struct observation *o)
{
	const struct run *run = &o->world->run;
	struct json *one = json_object();
	json_set_str(one, "name", AUTHORITY_KUBERNETES);
	describe(one, "current", !run->exists ? o->published_pem : run->back ? run->new_pem : run->old_pem);
	if (run->exists)
		describe(one, "next", run->back ? run->old_pem : run->new_pem);
	json_freep(&o->authorities);
	o->authorities = json_array();
	json_add(o->authorities, one);
}

static result authority_observe(struct observation *o, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/secrets", o->settings->node_namespace);
	const struct kube_list q = { .path = path, .label_selector = LABEL_AUTHORITY "=" AUTHORITY_KUBERNETES, .secret = true };
	TRY(kube_list_each(o->kube, &q, each_secret, drop_secrets, o, NULL, e));
	TRY(read_published(o, e));
	describe_all(o);
	return OK;
}

const struct consumer consumer_authority = { "authority", READS_ALWAYS, authority_observe };
