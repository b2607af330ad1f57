/* CertificateSigningRequests: one that is approved and unsigned would be signed by whatever signs next; what the old authority has
 * signed for others than kubelets is refused from the drop on. */
#include "consumer.h"

#include <string.h>

static bool approved(const struct json *csr)
{
	json_each(c, json_at(csr, "status", "conditions", NULL))
		if (str_eq(json_get_str(c, "type"), "Approved") && !str_eq(json_get_str(c, "status"), "False"))
			return true;
	return false;
}

static bool failed_or_denied(const struct json *csr)
{
	json_each(c, json_at(csr, "status", "conditions", NULL))
		if (str_eq(json_get_str(c, "type"), "Failed") || str_eq(json_get_str(c, "type"), "Denied"))
			return true;
	return false;
}

struct look {
	struct world *world;
	struct cert *old;             /* the authority that goes; NULL: not known */
};

static void look_release(struct look *l)
{
	cert_freep(&l->old);
}

static bool by_old(const struct look *l, const char *base64, struct cert **ret)
{
	struct buf pem cleanup(buf_release) = BUF_INIT;
	struct cert *c cleanup(cert_freep) = NULL;
	struct err e;
	if (!l->old || !base64_decode(base64, strlen(base64), &pem, &e).ok || !cert_from_pem(buf_str(&pem), pem.len, &c, &e).ok ||
	    !cert_issued_by(c, l->old))
		return false;
	*ret = steal(&c);
	return true;
}

/* Kubelets' own are replaced by a run. */
static bool is_kubelets(const char *signer)
{
	return str_eq(signer, "kubernetes.io/kube-apiserver-client-kubelet") || str_eq(signer, "kubernetes.io/kubelet-serving");
}

static void issued(struct look *l, const struct json *csr, const char *certificate)
{
	struct cert *c cleanup(cert_freep) = NULL;
	if (!by_old(l, certificate, &c))
		return;
	l->world->csrs_from_old++;
	struct issued *i = world_is_planned(l->world) && cert_not_after_ms(c) > l->world->now_ms ? world_add_issued(l->world) : NULL;
	if (!i)
		return;
	i->request = str_dup(json_str_or(json_at(csr, "metadata", "name", NULL), "?"));
	i->subject = cert_subject(c);
	i->not_after_ms = cert_not_after_ms(c);
}

static bool each_csr(void *context, const struct json *csr)
{
	struct look *l = context;
	struct world *w = l->world;
	const char *signer = json_str_or(json_at(csr, "spec", "signerName", NULL), "");
	const char *certificate = json_str(json_at(csr, "status", "certificate", NULL));
	if (!str_starts(signer, "kubernetes.io/") || !approved(csr) || failed_or_denied(csr))
		return true;
	if (!certificate)
		tally_lag(&w->csrs_unsigned, json_str_or(json_at(csr, "metadata", "name", NULL), "?"));
	else if (!is_kubelets(signer))
		issued(l, csr, certificate);
	return true;
}

static void drop(void *context)
{
	struct look *l = context;
	strs_release(&l->world->csrs_unsigned);
	l->world->csrs_from_old = 0;
	world_drop_issued(l->world);
}

static result csrs_observe(struct observation *o, struct err *e)
{
	const struct kube_list q = { .path = "/apis/certificates.k8s.io/v1/certificatesigningrequests", .page = 100 };
	const char *old = o->world->run.exists ? o->world->run.of[AUTHORITY_KUBERNETES].old_pem : o->published_pem;
	struct look l cleanup(look_release) = { .world = o->world };
	if (old)
		TRY_CTX(cert_from_pem(old, strlen(old), &l.old, e), e, "the old authority");
	TRY(kube_list_each(o->kube, &q, each_csr, drop, &l, NULL, e));
	o->world->csrs_known = true;
	return OK;
}

const struct consumer consumer_csrs = { "CertificateSigningRequests", READS_IN_BOTH, csrs_observe };
