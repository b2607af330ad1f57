/* CertificateSigningRequests: one that is approved and unsigned would be signed by whatever signs next. */
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

static bool by_old(const struct run *run, const char *base64)
{
	struct buf pem cleanup(buf_release) = BUF_INIT;
	struct cert *c cleanup(cert_freep) = NULL, *ca cleanup(cert_freep) = NULL;
	struct err e;
	return run->old_pem && base64_decode(base64, strlen(base64), &pem, &e).ok &&
	       cert_from_pem(buf_str(&pem), pem.len, &c, &e).ok &&
	       cert_from_pem(run->old_pem, strlen(run->old_pem), &ca, &e).ok && cert_issued_by(c, ca);
}

static bool each_csr(void *context, const struct json *csr)
{
	struct world *w = context;
	const char *signer = json_str_or(json_at(csr, "spec", "signerName", NULL), "");
	const char *certificate = json_str(json_at(csr, "status", "certificate", NULL));
	if (!str_starts(signer, "kubernetes.io/") || !approved(csr) || failed_or_denied(csr))
		return true;
	if (!certificate)
		tally_lag(&w->csrs_unsigned, json_str_or(json_at(csr, "metadata", "name", NULL), "?"));
	else if (str_eq(signer, "kubernetes.io/kube-apiserver-client") && by_old(&w->run, certificate))
		w->csrs_from_old++;
	return true;
}

static void drop(void *context)
{
	struct world *w = context;
	strs_release(&w->csrs_unsigned);
	w->csrs_from_old = 0;
}

static result csrs_observe(struct observation *o, struct err *e)
{
	const struct kube_list q = { .path = "/apis/certificates.k8s.io/v1/certificatesigningrequests", .page = 100 };
	TRY(kube_list_each(o->kube, &q, each_csr, drop, o->world, NULL, e));
	o->world->csrs_known = true;
	return OK;
}

const struct consumer consumer_csrs = { "CertificateSigningRequests", true, csrs_observe };
