#include "request.h"

#include <string.h>

#define HOUR_MS ((int64_t)3600000)
#define VALIDITY_MIN_MS (24 * HOUR_MS)
#define VALIDITY_MAX_MS (876000 * HOUR_MS)
#define DEADLINE_MIN_MS ((int64_t)60000)
#define DEADLINE_MAX_MS (8760 * HOUR_MS)
#define DURATION_MAX_MS (INT64_MAX / 1000000) /* Go counts nanoseconds */
#define TRIGGER_MAX 63
#define ACCEPTED_MAX 100
#define SECRET_NAME_MAX 253
#define SECRET_NAME_CHARACTERS "abcdefghijklmnopqrstuvwxyz0123456789-."

static const char *const ALGORITHMS[] = { "RSA-2048", "RSA-4096", "ECDSA-P256", "ECDSA-P384" };

static int64_t unit_ms(char c)
{
	return c == 'h' ? HOUR_MS : c == 'm' ? 60000 : c == 's' ? 1000 : 0;
}

result duration_parse(const char *text, int64_t *ret_ms, struct err *e)
{
	int64_t total = 0, number = 0;
	bool digits = false;
	for (const char *p = text; *p; p++) {
		if (*p >= '0' && *p <= '9' && number < 100000000) {
			number = 10 * number + (*p - '0');
			digits = true;
			continue;
		}
		if (!digits || !unit_ms(*p) || number * unit_ms(*p) > DURATION_MAX_MS - total)
			return err_set(e, ERR_INPUT, "\"%.40s\" is not a duration like 87600h or 90m", text);
		total += number * unit_ms(*p);
		number = 0;
		digits = false;
	}
	if (digits || !*text)
		return err_set(e, ERR_INPUT, "\"%.40s\" is not a duration like 87600h or 90m", text);
	*ret_ms = total;
	return OK;
}

static bool validity_ok(int64_t ms)
{
	return ms >= VALIDITY_MIN_MS && ms <= VALIDITY_MAX_MS;
}

static result parse_validity(const struct json *parent, const char *field, int64_t otherwise, int64_t *ret, struct err *e)
{
	const char *text = json_get_str(parent, "validityPeriod");
	int64_t ms = otherwise;
	if (text)
		TRY_CTX(duration_parse(text, &ms, e), e, "%s", field);
	if (text && !validity_ok(ms))
		return err_set(e, ERR_INPUT, "%s must be between 24h and 876000h", field);
	*ret = ms;
	return OK;
}

static result parse_deadline(const struct json *spec, struct request *r, struct err *e)
{
	const char *text = json_get_str(spec, "deadline");
	if (!text)
		return OK;
	TRY_CTX(duration_parse(text, &r->deadline_ms, e), e, "spec.deadline");
	if (r->deadline_ms < DEADLINE_MIN_MS || r->deadline_ms > DEADLINE_MAX_MS)
		return err_set(e, ERR_INPUT, "spec.deadline must be between 1m and 8760h");
	return OK;
}

static bool algorithm_ok(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(ALGORITHMS); i++)
		if (str_eq(name, ALGORITHMS[i]))
			return true;
	return false;
}

static result parse_algorithm(const struct json *spec, struct request *r, struct err *e)
{
	const char *given = json_str_or(json_at(spec, "newAuthority", "keyAlgorithm", NULL), ALGORITHMS[0]);
	if (!algorithm_ok(given))
		return err_set(e, ERR_INPUT, "spec.newAuthority.keyAlgorithm must be RSA-2048, RSA-4096, ECDSA-P256 or ECDSA-P384");
	r->key_algorithm = str_dup(given);
	return OK;
}

/* One Secret is one authority. */
static result parse_secret(const struct json *spec, struct request *r, struct err *e)
{
	const struct json *ref = json_at(spec, "newAuthority", "secretRef", NULL);
	const char *name = json_get_str(ref, "name");
	if (!ref)
		return OK;
	if (!name || !*name || strlen(name) > SECRET_NAME_MAX || strspn(name, SECRET_NAME_CHARACTERS) != strlen(name))
		return err_set(e, ERR_INPUT, "spec.newAuthority.secretRef.name must be the name of a Secret");
	if (r->authorities & (r->authorities - 1))
		return err_set(e, ERR_INPUT, "spec.newAuthority.secretRef brings one authority: name one in spec.authorities");
	r->authority_secret = str_dup(name);
	return OK;
}

static bool for_this_trigger(const struct json *part, const struct request *r)
{
	return str_eq(json_get_str(part, "trigger"), r->trigger);
}

static result parse_accepted(const struct json *spec, struct request *r, struct err *e)
{
	const struct json *a = json_get(spec, "acceptStragglers");
	if (!for_this_trigger(a, r))
		return OK;
	if (json_len(json_get(a, "names")) > ACCEPTED_MAX)
		return err_set(e, ERR_INPUT, "spec.acceptStragglers.names may hold 100 names");
	json_each(name, json_get(a, "names"))
		if (json_str(name))
			strs_add(&r->accepted, json_str(name));
	return OK;
}

static void parse_approval(const struct json *spec, struct request *r)
{
	const struct json *approve = json_get(spec, "approve");
	const char *fingerprint = json_get_str(approve, "clientCertificateFingerprint");
	r->approval_manual = str_eq(json_get_str(spec, "approval"), "Manual");
	r->approved_drop = for_this_trigger(approve, r) && str_eq(json_get_str(approve, "phase"), "DroppingOld");
	r->approved_other = approve && !r->approved_drop;
	r->approved_by = fingerprint ? str_dup(fingerprint) : NULL;
}

static result parse_mode(const struct json *spec, struct request *r, struct err *e)
{
	const char *mode = json_str_or(json_get(spec, "mode"), "Apply");
	r->plan_only = str_eq(mode, "Plan");
	if (r->plan_only || str_eq(mode, "Apply"))
		return OK;
	return err_set(e, ERR_INPUT, "spec.mode must be Apply or Plan");
}

static result parse_what(const struct json *spec, struct request *r, struct err *e)
{
	r->strategy = strategy_by_name(json_str_or(json_get(spec, "strategy"), "Bridge"));
	if (r->strategy == STRATEGY_COUNT)
		return err_set(e, ERR_INPUT, "spec.strategy must be Bridge or Bundle");
	json_each(item, json_get(spec, "authorities")) {
		enum authority a = authority_by_name(json_str_or(item, ""));
		if (a == AUTHORITY_COUNT)
			return err_set(e, ERR_INPUT, "spec.authorities may hold Kubernetes, FrontProxy and Etcd");
		r->authorities |= AUTHORITY_BIT(a);
	}
	if (!r->authorities)
		r->authorities = AUTHORITY_BIT(AUTHORITY_KUBERNETES);
	if (r->strategy == STRATEGY_BUNDLE && r->authorities != AUTHORITY_BIT(AUTHORITY_KUBERNETES))
		return err_set(e, ERR_INPUT, "spec.strategy Bundle rotates Kubernetes alone: take the others out of spec.authorities, and rotate "
			       "them in a run of their own with Bridge");
	return OK;
}

static int clamp(int64_t value, int least, int most)
{
	return value < least ? least : value > most ? most : (int)value;
}

static result parse_spec(const struct json *spec, struct request *r, struct err *e)
{
	const char *trigger = json_get_str(spec, "trigger");
	if (!trigger || !*trigger || strlen(trigger) > TRIGGER_MAX)
		return err_set(e, ERR_INPUT, "spec.trigger must be a text of 1 to %d characters", TRIGGER_MAX);
	r->trigger = str_dup(trigger);
	TRY(parse_mode(spec, r, e));
	TRY(parse_what(spec, r, e));
	TRY(parse_algorithm(spec, r, e));
	TRY(parse_secret(spec, r, e));
	TRY(parse_validity(json_get(spec, "newAuthority"), "spec.newAuthority.validityPeriod", 87600 * HOUR_MS,
			   &r->validity_ms, e));
	TRY(parse_validity(json_get(spec, "leaves"), "spec.leaves.validityPeriod", 0, &r->leaf_validity_ms, e));
	TRY(parse_accepted(spec, r, e));
	TRY(parse_deadline(spec, r, e));
	parse_approval(spec, r);
	r->paused = json_get_bool(spec, "paused", false);
	r->rollback = r->deleting || for_this_trigger(json_get(spec, "rollback"), r);
	r->max_workers = clamp(json_int(json_at(spec, "nodes", "maxConcurrentWorkers", NULL), 1), 1, 100);
	r->restart_workloads = !str_eq(json_str(json_at(spec, "workloads", "restart", NULL)), "None");
	r->pods_per_second = clamp(json_int(json_at(spec, "workloads", "podsPerSecond", NULL), 10), 1, 100);
	return OK;
}

result request_parse(const struct json *object, struct request *ret, struct err *e)
{
	struct request r cleanup(request_release) = { 0 };
	const struct json *meta = json_get(object, "metadata");
	r.name = str_dup(json_str_or(json_get(meta, "name"), ""));
	r.uid = str_dup(json_str_or(json_get(meta, "uid"), ""));
	r.generation = json_get_int(meta, "generation", 0);
	r.deleting = json_get(meta, "deletionTimestamp") != NULL;
	TRY(parse_spec(json_get(object, "spec"), &r, e));
	*ret = r;
	r = (struct request){ 0 };
	return OK;
}

struct json *request_spec_copy(const struct request *r)
{
	struct json *j = json_object();
	json_set_int(j, "authorities", r->authorities);
	json_set_str(j, "strategy", strategy_name(r->strategy));
	json_set_str(j, "authoritySecret", r->authority_secret);
	json_set_str(j, "keyAlgorithm", r->key_algorithm);
	json_set_int(j, "validityMs", r->validity_ms);
	json_set_int(j, "leafValidityMs", r->leaf_validity_ms);
	json_set_bool(j, "approvalManual", r->approval_manual);
	return j;
}

enum strategy request_copied_strategy(const struct json *copy)
{
	return strategy_by_name(json_str_or(json_get(copy, "strategy"), "Bridge"));
}

static void note_ignored(struct request *r, bool differs, const char *field)
{
	if (differs)
		strs_add(&r->ignored, field);
}

result request_obey_copy(struct request *r, const struct json *copy, struct err *e)
{
	const char *algorithm = json_get_str(copy, "keyAlgorithm"), *secret = json_get_str(copy, "authoritySecret");
	int64_t authorities = json_get_int(copy, "authorities", r->authorities);
	enum strategy strategy = request_copied_strategy(copy);
	int64_t validity_ms = json_get_int(copy, "validityMs", 0), leaf_validity_ms = json_get_int(copy, "leafValidityMs", -1);
	if (!algorithm)
		return err_set(e, ERR_INPUT, "the run's Secret has no copy of the spec");
	if (!algorithm_ok(algorithm) || !validity_ok(validity_ms) || (leaf_validity_ms && !validity_ok(leaf_validity_ms)) ||
	    authorities <= 0 || authorities >> AUTHORITY_COUNT || strategy == STRATEGY_COUNT)
		return err_set(e, ERR_INPUT, "the copy of the spec on the run's Secret is not one of ours");
	bool manual = json_get_bool(copy, "approvalManual", false);
	strs_release(&r->ignored);
	note_ignored(r, r->plan_only, "spec.mode");
	note_ignored(r, r->authorities != (authority_set)authorities, "spec.authorities");
	note_ignored(r, r->strategy != strategy, "spec.strategy");
	note_ignored(r, secret ? !str_eq(r->authority_secret, secret) : r->authority_secret != NULL, "spec.newAuthority.secretRef");
	note_ignored(r, !str_eq(r->key_algorithm, algorithm), "spec.newAuthority.keyAlgorithm");
	note_ignored(r, r->validity_ms != validity_ms, "spec.newAuthority.validityPeriod");
	note_ignored(r, r->leaf_validity_ms != leaf_validity_ms, "spec.leaves.validityPeriod");
	note_ignored(r, manual && !r->approval_manual, "spec.approval");
	r->authorities = (authority_set)authorities;
	r->strategy = strategy;
	str_freep(&r->authority_secret);
	r->authority_secret = secret ? str_dup(secret) : NULL;
	str_freep(&r->key_algorithm);
	r->key_algorithm = str_dup(algorithm);
	r->plan_only = false; /* a run goes on to its end, whatever is asked for after it */
	r->validity_ms = validity_ms;
	r->leaf_validity_ms = leaf_validity_ms;
	r->approval_manual = r->approval_manual || manual;
	return OK;
}
