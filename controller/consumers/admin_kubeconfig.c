/* The administrator's kubeconfig in its Secret, and the rule on who may approve with it. */
#include "consumer.h"
#include "kubeconfig.h"

#include <string.h>

struct admin {
	bool of_run;           /* of the run under way */
	bool serves, has_old;  /* of it, from N, and trusts N; O too */
	struct kubeconfig config;
	struct cert *leaf;     /* NULL: it can't be read; nothing is known of it then */
	char fingerprint[CERT_FINGERPRINT_SIZE];
};

static void admin_release(struct admin *a)
{
	kubeconfig_release(&a->config);
	cert_freep(&a->leaf);
}

/* False: broken, or without a CA or a client certificate of its own. */
static bool read_kubeconfig(const struct json *secret, struct admin *ret)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	struct kubeconfig *c = &ret->config;
	struct err broken;
	const char *value = json_str_or(json_at(secret, "data", "value", NULL), "");
	return base64_decode(value, strlen(value), &text, &broken).ok && kubeconfig_parse(buf_str(&text), text.len, "", c, &broken).ok &&
	       c->ca_pem && c->client_cert_pem && cert_from_pem(c->client_cert_pem, strlen(c->client_cert_pem), &ret->leaf, &broken).ok;
}

static bool is_from(const struct cert *leaf, const char *ca_pem)
{
	struct cert *ca cleanup(cert_freep) = NULL;
	struct err e;
	return ca_pem && cert_from_pem(ca_pem, strlen(ca_pem), &ca, &e).ok && cert_issued_by(leaf, ca);
}

static void look(const struct run *run, const struct json *secret, struct admin *ret)
{
	const struct run_authority *of = &run->of[AUTHORITY_KUBERNETES];
	struct bundle_content b = { 0 };
	struct err broken;
	ret->of_run = run->exists && str_eq(label(secret, LABEL_RUN), run->id);
	if (!read_kubeconfig(secret, ret))
		return;
	cert_fingerprint(ret->leaf, ret->fingerprint);
	bool readable = bundle_look(of, ret->config.ca_pem, strlen(ret->config.ca_pem), &b, &broken).ok;
	ret->serves = ret->of_run && readable && b.has_new && is_from(ret->leaf, of->new_pem);
	ret->has_old = b.has_old;
}

bool admin_kubeconfig_serves(const struct run *run, const struct json *secret)
{
	struct admin a cleanup(admin_release) = { 0 };
	look(run, secret, &a);
	return a.serves;
}

static void add_authority(void *context, const struct cert *c)
{
	char fingerprint[CERT_FINGERPRINT_SIZE];
	cert_fingerprint(c, fingerprint);
	json_add_str(context, fingerprint);
}

/* Whichever run it is of: at rest it is the last one's. */
static void describe(struct observation *o, const struct json *secret, const struct admin *a)
{
	struct json *part = json_object(), *ref = json_ensure_object(part, "secretRef");
	const char *run = label(secret, LABEL_RUN);
	char until[32];
	time_format(cert_not_after_ms(a->leaf), until);
	json_set_str(ref, "namespace", o->settings->namespace);
	json_set_str(ref, "name", ADMIN_KUBECONFIG_SECRET);
	json_set_str(part, "clientCertificateFingerprint", a->fingerprint);
	json_set_str(part, "notAfter", until);
	certs_scan(a->config.ca_pem, add_authority, json_ensure_array(part, "authorities"));
	o->admin_kubeconfig = part;
	str_copy(o->admin_run, sizeof o->admin_run, run ? run : "");
}

/* One that does not serve is made anew; on the way back whatever is there of the run must go. */
static result admin_kubeconfig_observe(struct observation *o, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/secrets/%s", o->settings->namespace, ADMIN_KUBECONFIG_SECRET);
	struct json *secret cleanup(json_wipep) = NULL;
	struct admin a cleanup(admin_release) = { 0 };
	struct world *w = o->world;
	TRY(get_or_absent(o, path, &secret, e));
	if (secret)
		look(&w->run, secret, &a);
	if (a.leaf)
		describe(o, secret, &a);
	w->admin_kubeconfig = a.serves || (a.of_run && w->run.back) ? SEEN_YES : SEEN_NO;
	if (!a.serves)
		return OK;
	w->admin_fingerprint = str_dup(a.fingerprint);
	w->admin_has_old = a.has_old ? SEEN_YES : SEEN_NO;
	return OK;
}

static bool denies(const struct json *binding)
{
	json_each(action, json_at(binding, "spec", "validationActions", NULL))
		if (str_eq(json_str(action), "Deny"))
			return str_eq(json_str(json_at(binding, "spec", "policyName", NULL)), APPROVAL_RULE);
	return false;
}

/* Asked only where an approval rests on it. */
static result approval_rule_observe(struct observation *o, struct err *e)
{
	static const char PATH[] = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic";
	const struct request *r = o->world->request;
	char *policy_path cleanup(str_freep) = str_printf("%sies/%s", PATH, APPROVAL_RULE);
	char *binding_path cleanup(str_freep) = str_printf("%sybindings/%s", PATH, APPROVAL_RULE);
	struct json *policy cleanup(json_freep) = NULL, *binding cleanup(json_freep) = NULL;
	if (!r || !r->approved_drop || r->approved_by || o->world->run.approved)
		return OK;
	TRY(get_or_absent(o, policy_path, &policy, e));
	TRY(get_or_absent(o, binding_path, &binding, e));
	bool fails = str_eq(json_str(json_at(policy, "spec", "failurePolicy", NULL)), "Fail");
	o->world->approval_rule = policy && fails && denies(binding) ? SEEN_YES : SEEN_NO;
	return OK;
}

const struct consumer consumer_approval_rule = { "ValidatingAdmissionPolicy " APPROVAL_RULE, READS_IN_RUN, approval_rule_observe };
const struct consumer consumer_admin_kubeconfig = { "the administrator's kubeconfig", READS_ALWAYS, admin_kubeconfig_observe };
