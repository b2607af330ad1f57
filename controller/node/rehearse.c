/* What a run will make on this node is made once beforehand, with a throw-away authority: what can't be made is said before anything is
 * touched. Nothing is written. */
#include "node.h"

#include <string.h>

#define TRIAL_VALIDITY_MS ((int64_t)10 * 365 * 86400000)

/* Made once in a run of the program; its key dies with it. */
static result trial_authority(struct node *n, struct err *e)
{
	const struct ca_request q = { .common_name = "kubernetes", .unique = "certrotation-rehearsal", .now_ms = clock_now_ms(),
				      .validity_ms = TRIAL_VALIDITY_MS };
	if (n->trial_ca)
		return OK;
	TRY(key_generate("ECDSA-P256", &n->trial_key, e));
	return ca_make(&q, n->trial_key, &n->trial_ca, e);
}

/* The worker's signer takes these subjects and nothing else (pkg/apis/certificates/helpers.go, ValidateKubeletClientCSR). */
static result signable_kubelet(const struct node *n, const struct cert *leaf, struct err *e)
{
	char *name cleanup(str_freep) = cert_subject_attribute(leaf, "CN"), *group cleanup(str_freep) = cert_subject_attribute(leaf, "O");
	char *wanted cleanup(str_freep) = str_printf("system:node:%s", n->desired->node ? n->desired->node : "");
	struct strs sans cleanup(strs_release) = { 0 };
	bool named = n->desired->node && *n->desired->node;
	cert_sans(leaf, &sans);
	if (sans.n)
		return err_set(e, ERR_INPUT, "a kubelet's certificate has no subjectAltName, this one has %s", sans.items[0]);
	if (!str_eq(group, "system:nodes") || (named && !str_eq(name, wanted)))
		return err_set(e, ERR_INPUT, "a kubelet's certificate is for O=system:nodes, CN=%s", named ? wanted : "system:node:NAME");
	return OK;
}

static result try_leaf(struct node *n, const struct cert *leaf, enum leaf_kind kind, struct err *e)
{
	struct cert *again cleanup(cert_freep) = NULL;
	char *algorithm cleanup(str_freep) = cert_key_algorithm(leaf);
	int64_t span = cert_not_after_ms(leaf) - cert_not_before_ms(leaf), asked = n->desired->leaf_validity_ms;
	if (kind != LEAF_KEEPS_KEY && !key_can_generate(algorithm))
		return err_set(e, ERR_INPUT, "its key is %s, and no new key of that kind can be made", algorithm);
	if (kind == LEAF_OF_KUBELET && !n->layout.control_plane)
		TRY(signable_kubelet(n, leaf, e));
	TRY(trial_authority(n, e));
	return leaf_reissue(leaf, NULL, n->trial_ca, n->trial_key, clock_now_ms(), asked ? asked : span, &again, e);
}

void node_rehearse_leaf(struct node *n, const char *path, const struct cert *leaf, enum leaf_kind kind)
{
	struct err e = { 0 };
	if (!try_leaf(n, leaf, kind, &e).ok)
		report_add_blocker(n->report, "IrreproducibleCertificate", path,
				   "%s. Replace it by one with nothing unusual in it first (kubeadm certs renew)", e.message);
}

static result try_bridges(struct node *n, enum authority a, const struct key *old_key, struct err *e)
{
	struct cert *x cleanup(cert_freep) = NULL, *y cleanup(cert_freep) = NULL;
	TRY(trial_authority(n, e));
	TRY(ca_cross_sign(n->trial_ca, n->of[a].old, old_key, clock_now_ms(), &x, e));
	return ca_cross_sign(n->of[a].old, n->trial_ca, n->trial_key, clock_now_ms(), &y, e);
}

void node_rehearse_bridges(struct node *n, enum authority a, const struct key *old_key)
{
	struct err e = { 0 };
	if (!try_bridges(n, a, old_key, &e).ok)
		report_add_blocker(n->report, "BridgeForbidden", n->layout.of[a].ca_crt,
				   "%s. Without one there is no rotation: sign this authority again with its own key and subject, but without "
				   "that, and give it to every node, kubeconfig and client first", e.message);
}
