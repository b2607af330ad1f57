#include "consumer.h"

#include <stdlib.h>
#include <string.h>

const struct consumer *const CONSUMERS[] = {
	&consumer_authority,    &consumer_nodes,   &consumer_root_configmaps, &consumer_token_secrets,
	&consumer_cluster_info, &consumer_pods,    &consumer_leases,          &consumer_extension_auth,
	&consumer_kubeadm_config, &consumer_kubeadm_certs, &consumer_admin_kubeconfig, &consumer_csrs,  &consumer_copies,
	&consumer_api_services, &consumer_candidate, &consumer_approval_rule, &consumer_servers, &consumer_ca_bundles,
};
const size_t N_CONSUMERS = ARRAY_LEN(CONSUMERS);

void credentials_release(struct credentials *c)
{
	secret_freep(&c->probe_key);
	str_freep(&c->probe_new);
	str_freep(&c->probe_old);
}

void observation_release(struct observation *o)
{
	for (size_t i = 0; o->world && o->reports && i < o->world->n_nodes; i++)
		if (o->reports[i].has)
			report_release(&o->reports[i].report);
	free(o->reports);
	o->reports = NULL;
	credentials_release(&o->credentials);
	str_freep(&o->published_pem);
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		strs_release(&o->recorded[a]);
	strs_release(&o->rolled_back);
	json_freep(&o->authorities);
	json_freep(&o->admin_kubeconfig);
}

bool world_is_planned(const struct world *w)
{
	return w->request && w->request->plan_only && !w->run.exists;
}

/* A plan's reports count for one generation of one object: what was seen for another question is no answer. */
char *jobs_label(const struct world *w)
{
	if (w->run.exists)
		return str_dup(w->run.leg);
	if (!world_is_planned(w))
		return str_dup("inventory");
	return str_printf("plan-%.8s-%lld", w->request->uid ? w->request->uid : "", (long long)w->request->generation);
}

/* "Kubernetes/": a run of it alone had that id before there were others. */
void run_id(const char *trigger, char ret_id[static 13])
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	char hex[65];
	buf_addf(&text, "%s/%s", authority_name(AUTHORITY_KUBERNETES), trigger);
	sha256_hex(text.data, text.len, hex);
	str_copy(ret_id, 13, hex);
}

authority_set trigger_pending(const struct observation *o, authority_set set, const char *trigger)
{
	authority_set pending = 0;
	char id[13];
	run_id(trigger, id);
	for (size_t a = 0; a < AUTHORITY_COUNT; a++) {
		bool published = a == AUTHORITY_KUBERNETES && !o->world->run.exists && str_eq(o->published_run, id);
		if (authority_in(set, (enum authority)a) && !published && !strs_has(&o->recorded[a], trigger))
			pending |= AUTHORITY_BIT(a);
	}
	return pending;
}

bool trigger_recorded(const struct observation *o, authority_set set, const char *trigger)
{
	return !trigger_pending(o, set, trigger);
}

bool trigger_ended(const struct observation *o, const char *trigger)
{
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		if (!trigger_pending(o, AUTHORITY_BIT(a), trigger))
			return true;
	return false;
}

static void add_cert(const char *pem, struct buf *out)
{
	struct err e;
	struct cert *c cleanup(cert_freep) = NULL;
	if (pem && cert_from_pem(pem, strlen(pem), &c, &e).ok)
		cert_to_pem(c, out);
}

void published_text(const struct run_authority *of, int level, struct buf *out)
{
	if (level != TRUST_NEW)
		add_cert(of->old_pem, out);
	if (level != TRUST_OLD)
		add_cert(of->new_pem, out);
}

static bool is_cert(const char *pem, const struct cert *c)
{
	struct err e;
	struct cert *known cleanup(cert_freep) = NULL;
	return pem && cert_from_pem(pem, strlen(pem), &known, &e).ok && cert_equal(known, c);
}

/* Most objects hold one of the texts that we or the controller-manager write: compared as bytes before anything is parsed. */
static bool known_text(const struct run_authority *of, const char *pem, size_t len, struct bundle_content *ret)
{
	for (int level = TRUST_OLD; level <= TRUST_NEW; level++) {
		struct buf text cleanup(buf_release) = BUF_INIT;
		published_text(of, level, &text);
		if (text.len != len || memcmp(buf_str(&text), pem, len) != 0)
			continue;
		*ret = (struct bundle_content){ .has_old = level != TRUST_NEW, .has_new = level != TRUST_OLD };
		return true;
	}
	return false;
}

result bundle_look(const struct run_authority *of, const char *pem, size_t len, struct bundle_content *ret, struct err *e)
{
	if (known_text(of, pem, len, ret))
		return OK;
	struct certs list cleanup(certs_release) = { 0 };
	TRY(certs_from_pem(pem, len, &list, e));
	struct bundle_content found = { 0 };
	for (size_t i = 0; i < list.n; i++) {
		bool old = is_cert(of->old_pem, list.items[i]), new = is_cert(of->new_pem, list.items[i]);
		found.has_old = found.has_old || old;
		found.has_new = found.has_new || new;
		found.has_other = found.has_other || (!old && !new);
	}
	*ret = found;
	return OK;
}

const char *annotation(const struct json *object, const char *name)
{
	return json_str(json_at(object, "metadata", "annotations", name, NULL));
}

const char *label(const struct json *object, const char *name)
{
	return json_str(json_at(object, "metadata", "labels", name, NULL));
}

void object_name(const struct json *object, struct buf *out)
{
	const struct json *meta = json_get(object, "metadata");
	const char *namespace = json_get_str(meta, "namespace");
	buf_addf(out, "%s%s%s", namespace ? namespace : "", namespace ? "/" : "",
		 json_str_or(json_get(meta, "name"), "?"));
}
