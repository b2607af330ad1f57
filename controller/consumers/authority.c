/* The authorities' Secrets: the run under way (role `next`), and which triggers are recorded. What the world can't show by
 * itself, which of two CAs is old, stands here. */
#include "consumer.h"
#include "request.h"

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

/* Without bridges there is nothing to wait for but N. */
static bool is_whole(const struct run *run)
{
	if (run->strategy == STRATEGY_BUNDLE)
		return run->of[AUTHORITY_KUBERNETES].new_pem && run->of[AUTHORITY_KUBERNETES].old_pem;
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		if (authority_in(run->authorities, (enum authority)a) && (!run->of[a].back_pem || !run->of[a].bridge_pem))
			return false;
	return !authority_in(run->authorities, AUTHORITY_KUBERNETES) || (run->has_old_probe && run->has_new_probe);
}

/* O and N change places, Y stands for X. Not before all bridges are there: until then nothing has been touched. (They go when it ends.) */
static void turn_round(struct observation *o)
{
	struct run *run = &o->world->run;
	if (!run->finishing && !is_whole(run))
		return;
	run->back = true;
	for (size_t a = 0; a < AUTHORITY_COUNT; a++) {
		exchange(&run->of[a].old_pem, &run->of[a].new_pem);
		exchange(&run->of[a].bridge_pem, &run->of[a].back_pem);
	}
	exchange(&o->credentials.probe_old, &o->credentials.probe_new);
	bool had_old = run->has_old_probe;
	run->has_old_probe = run->has_new_probe;
	run->has_new_probe = had_old;
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

static const char *name_of(const struct json *secret)
{
	return json_str_or(json_at(secret, "metadata", "name", NULL), "");
}

/* What every authority of a run has. */
static void read_part(struct run *run, enum authority a, const struct json *secret)
{
	struct run_authority *part = &run->of[a];
	run_authority_release(part);
	part->secret = str_dup(name_of(secret));
	part->run = str_dup(json_str_or(json_at(secret, "metadata", "labels", LABEL_RUN, NULL), ""));
	part->old_pem = secret_text(secret, "old.crt", false);
	part->new_pem = secret_text(secret, "tls.crt", false);
	part->bridge_pem = secret_text(secret, "bridge.crt", false);
	part->back_pem = secret_text(secret, "bridge-back.crt", false);
	part->has_key = json_at(secret, "data", "tls.key", NULL) != NULL;
}

static authority_set read_set(const struct json *secret, enum authority lead)
{
	const char *text = annotation(secret, ANNOTATION_AUTHORITIES);
	authority_set set = AUTHORITY_BIT(lead);
	while (text && *text) {
		char *name cleanup(str_freep) = str_ndup(text, strcspn(text, ","));
		enum authority a = authority_by_name(name);
		set |= a < AUTHORITY_COUNT ? AUTHORITY_BIT(a) : 0;
		text += strlen(name);
		text += *text == ',';
	}
	return set;
}

static void read_probes(struct observation *o, const struct json *secret)
{
	struct run *run = &o->world->run;
	credentials_release(&o->credentials);
	o->credentials.probe_key = secret_text(secret, "probe.key", true);
	o->credentials.probe_new = secret_text(secret, "probe-new.crt", false);
	o->credentials.probe_old = secret_text(secret, "probe-old.crt", false);
	run->has_new_probe = o->credentials.probe_key && probe_lives(o->credentials.probe_new, o->world->now_ms);
	run->has_old_probe = o->credentials.probe_key && probe_lives(o->credentials.probe_old, o->world->now_ms);
}

/* A copy that can't be read is told by request_obey_copy; there was but Bridge before there was this field. */
static enum strategy copied_strategy(const char *spec)
{
	struct json *copy cleanup(json_freep) = NULL;
	struct err e;
	enum strategy s = spec && json_parse(spec, strlen(spec), &copy, &e).ok ? request_copied_strategy(copy) : STRATEGY_BRIDGE;
	return s == STRATEGY_COUNT ? STRATEGY_BRIDGE : s;
}

/* The lead's Secret, as if it were the first. */
static void read_run(struct observation *o, enum authority lead, const struct json *secret)
{
	struct run *run = &o->world->run;
	struct run_authority parts[AUTHORITY_COUNT];
	struct err e;
	memcpy(parts, run->of, sizeof parts);
	memset(run->of, 0, sizeof run->of);
	run_release(run);
	memcpy(run->of, parts, sizeof parts);
	run->exists = true;
	run->authorities = read_set(secret, lead);
	run->version = str_dup(json_str_or(json_at(secret, "metadata", "resourceVersion", NULL), ""));
	run->secret = str_dup(name_of(secret));
	run->id = str_dup(json_str_or(json_at(secret, "metadata", "labels", LABEL_RUN, NULL), ""));
	run->leg = str_dup(run->id);
	run->trigger = str_dup(json_str_or(json_at(secret, "metadata", "annotations", ANNOTATION_TRIGGER, NULL), ""));
	run->owner = str_dup(json_str_or(json_at(secret, "metadata", "annotations", ANNOTATION_OWNER, NULL), ""));
	run->spec = annotation(secret, ANNOTATION_SPEC) ? str_dup(annotation(secret, ANNOTATION_SPEC)) : NULL;
	read_latches(run, secret);
	run->strategy = copied_strategy(run->spec);
	const char *started = annotation(secret, ANNOTATION_STARTED);
	if (!started || !time_parse(started, &run->started_ms, &e).ok)
		run->started_ms = o->world->now_ms;
	if (lead == AUTHORITY_KUBERNETES)
		read_probes(o, secret);
}

static bool each_secret(void *context, const struct json *secret)
{
	struct observation *o = context;
	enum authority a = authority_by_name(label(secret, LABEL_AUTHORITY));
	const char *role = label(secret, LABEL_ROLE), *trigger = annotation(secret, ANNOTATION_TRIGGER);
	if (a == AUTHORITY_COUNT)
		return true;
	if (str_eq(role, "next")) {
		read_part(&o->world->run, a, secret);
		if (!annotation(secret, ANNOTATION_LEAD))
			read_run(o, a, secret);
	} else if (trigger) {
		strs_add(&o->recorded[a], trigger);
	}
	if (trigger && str_eq(role, "rolled-back"))
		strs_add(&o->rolled_back, trigger);
	return true;
}

static void drop_secrets(void *context)
{
	struct observation *o = context;
	run_release(&o->world->run);
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		strs_release(&o->recorded[a]);
	strs_release(&o->rolled_back);
}

/* Only what belongs to this run; what a lead that is gone has left does not. */
static void keep_parts(struct run *run)
{
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		if (!authority_in(run->authorities, (enum authority)a) || !str_eq(run->of[a].run, run->id))
			run_authority_release(&run->of[a]);
}

/* apply_finish closes one Secret after the other, the lead's last. A run begins with none that its trigger has closed before. */
static bool is_finishing(const struct observation *o)
{
	const struct run *run = &o->world->run;
	for (size_t a = 0; run->exists && a < AUTHORITY_COUNT; a++)
		if (authority_in(run->authorities, (enum authority)a) && strs_has(&o->recorded[a], run->trigger))
			return true;
	return false;
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

static void describe_one(struct observation *o, enum authority a)
{
	const struct run *run = &o->world->run;
	const struct run_authority *of = &run->of[a];
	bool rotated = run->exists && of->secret;
	const char *published = a == AUTHORITY_KUBERNETES ? o->published_pem : NULL;
	struct json *one = json_object();
	json_set_str(one, "name", authority_name(a));
	describe(one, "current", !rotated ? published : run->back ? of->new_pem : of->old_pem);
	if (rotated)
		describe(one, "next", run->back ? of->old_pem : of->new_pem);
	json_add(o->authorities, one);
}

/* The cluster's own always, the others while they are rotated: no API shows them. */
static void describe_all(struct observation *o)
{
	json_freep(&o->authorities);
	o->authorities = json_array();
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		if (a == AUTHORITY_KUBERNETES || o->world->run.of[a].secret)
			describe_one(o, (enum authority)a);
}

static result authority_observe(struct observation *o, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/secrets", o->settings->node_namespace);
	const struct kube_list q = { .path = path, .label_selector = LABEL_AUTHORITY, .secret = true };
	TRY(kube_list_each(o->kube, &q, each_secret, drop_secrets, o, NULL, e));
	keep_parts(&o->world->run);
	o->world->run.finishing = is_finishing(o);
	if (o->world->run.rollback)
		turn_round(o);
	if (o->world->run.exists)
		o->world->run.mark = str_printf("%s%s", o->world->run.leg, world_pods_forget(o->world) ? "-only" : "");
	TRY(read_published(o, e));
	describe_all(o);
	return OK;
}

const struct consumer consumer_authority = { "authority", READS_ALWAYS, authority_observe };
