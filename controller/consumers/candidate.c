/* The authority that a person brings, before the run has its own copy. */
#include "candidate.h"
#include "consumer.h"

#include <string.h>

static result decoded(const struct json *secret, const char *name, struct buf *ret, struct err *e)
{
	const char *text = json_str(json_at(secret, "data", name, NULL));
	if (!text)
		return err_set(e, ERR_INPUT, "it has no %s: make it with kubectl create secret tls", name);
	TRY_CTX(base64_decode(text, strlen(text), ret, e), e, "%s", name);
	return OK;
}

result candidate_read(struct kube *kube, const struct settings *settings, const char *name, const struct cert *o, int64_t now_ms,
		      struct cert **ret, struct key **ret_key, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/secrets/%s", settings->node_namespace, name);
	struct json *secret cleanup(json_wipep) = NULL;
	struct buf crt cleanup(buf_release) = BUF_INIT, pem cleanup(buf_release) = BUF_SECRET;
	struct certs list cleanup(certs_release) = { 0 };
	struct key *k cleanup(key_freep) = NULL;
	TRY(kube_get(kube, path, &secret, e));
	TRY(decoded(secret, "tls.crt", &crt, e));
	TRY(decoded(secret, "tls.key", &pem, e));
	TRY_CTX(certs_from_pem(buf_str(&crt), crt.len, &list, e), e, "tls.crt");
	TRY_CTX(key_from_pem(buf_str(&pem), pem.len, &k, e), e, "tls.key");
	TRY(candidate_check(&list, k, o, now_ms, e));
	*ret = cert_copy(list.items[0]);
	*ret_key = steal(&k);
	return OK;
}

/* O, as far as a control plane has reported it. */
static struct cert *old_authority(const struct world *w)
{
	enum authority a = authority_lead(world_authorities(w));
	struct cert *c = NULL;
	struct err e;
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		if (n->control_plane && n->ca_pem && n->asked == a && cert_from_pem(n->ca_pem, strlen(n->ca_pem), &c, &e).ok)
			return c;
	}
	return NULL;
}

static result candidate_observe(struct observation *o, struct err *e)
{
	struct world *w = o->world;
	struct cert *old cleanup(cert_freep) = NULL, *c cleanup(cert_freep) = NULL;
	struct key *k cleanup(key_freep) = NULL;
	if (w->run.exists || !w->request || !w->request->authority_secret)
		return OK;
	old = old_authority(w);
	result read = candidate_read(o->kube, o->settings, w->request->authority_secret, old, w->now_ms, &c, &k, e);
	if (!read.ok && e->kind != ERR_NOT_FOUND && e->kind != ERR_INPUT)
		return read;
	w->candidate_known = true;
	if (!read.ok)
		w->candidate_problem = e->kind == ERR_INPUT ? str_dup(e->message)
							    : str_printf("it is not in the namespace %s: put it there (kubectl create secret tls)",
									 o->settings->node_namespace);
	return OK;
}

const struct consumer consumer_candidate = { "new authority", READS_ALWAYS, candidate_observe };
