#include "preflight.h"

#include <stdlib.h>
#include <string.h>

#define LABEL "node-role.kubernetes.io/control-plane"

void obstacles_release(struct obstacles *o)
{
	for (size_t i = 0; i < o->n; i++) {
		str_freep(&o->items[i].object);
		str_freep(&o->items[i].message);
	}
	free(o->items);
	*o = (struct obstacles){ 0 };
}

/* About a node, or, without one, about the object. */
static struct obstacle *add(struct obstacles *o, const char *code, const char *object, const struct node_state *node, char *message_taken)
{
	o->items = mem_realloc(o->items, o->n + 1, sizeof *o->items);
	struct obstacle *x = &o->items[o->n++];
	*x = (struct obstacle){ .code = code, .node = node, .message = message_taken };
	x->object = node ? str_printf("Node/%s", node->name) : str_dup(object);
	return x;
}

/* --- kubeadm -------------------------------------------------------------------------------------------------------- */

static void look_at_kubeadm(const struct world *w, struct obstacles *ret)
{
	bool labelled = false;
	for (size_t i = 0; i < w->n_nodes; i++)
		labelled = labelled || w->nodes[i].control_plane;
	if (w->kubeadm_config == SEEN_NO)
		add(ret, "NotKubeadm", "ConfigMap/kube-system/kubeadm-config", NULL,
		    str_dup("it is not there, and only clusters made by kubeadm can be rotated. If this is one, write it again: "
			    "kubeadm init phase upload-config kubeadm"));
	if (!labelled)
		add(ret, "NotKubeadm", "Nodes", NULL,
		    str_dup("none has the label " LABEL ", and only clusters made by kubeadm can be rotated. If this is one, put it "
			    "back: kubectl label node NAME " LABEL "="));
}

/* A node that passes for a worker, or for a control plane, would be left out of half of the steps. */
static void look_at_role(const struct node_state *n, struct obstacles *ret)
{
	if (n->manifests == SEEN_YES && !n->control_plane)
		add(ret, "ControlPlaneLabel", NULL, n,
		    str_printf("it runs a kube-apiserver from /etc/kubernetes/manifests, but is not labelled as a control plane: "
			       "kubectl label node %s " LABEL "=", n->name));
	if (n->manifests == SEEN_NO && n->control_plane)
		add(ret, "NotKubeadm", NULL, n,
		    str_printf("it is labelled as a control plane, but has no /etc/kubernetes/manifests/kube-apiserver.yaml: put the "
			       "manifest back, or take the label away: kubectl label node %s " LABEL "-", n->name));
}

/* --- Authorities ---------------------------------------------------------------------------------------------------- */

/* Nodes that disagree on the CA in force can't be rotated together. */
static void look_at_authorities(const struct world *w, struct obstacles *ret)
{
	const struct node_state *first = NULL;
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		if (!n->ca_pem)
			continue;
		if (n->ca_of_trigger && !w->run.exists)
			add(ret, "TriggerUsed", NULL, n, str_printf("its %s authority was made for this very spec.trigger: set a new one to have it "
								    "replaced again", authority_name(n->asked)));
		first = first && first->asked == n->asked ? first : n;
		if (str_eq(first->ca_pem, n->ca_pem))
			continue;
		struct obstacle *x = add(ret, "DifferentAuthorities", NULL, n,
					 str_printf("its ca.crt is not that of node %s: give every node the same ca.crt", first->name));
		x->other = first;
	}
}

/* Brought by a person, and of no use. */
static void look_at_candidate(const struct world *w, struct obstacles *ret)
{
	if (w->run.exists || !w->request || !w->request->authority_secret || !w->candidate_problem)
		return;
	char *object cleanup(str_freep) = str_printf("Secret/%s", w->request->authority_secret);
	add(ret, "AuthorityUnusable", object, NULL, str_dup(w->candidate_problem));
}

/* --- Clocks --------------------------------------------------------------------------------------------------------- */

static void clocks_apart(struct obstacles *ret, const struct node_state *n, const struct node_state *other, const char *how, int64_t ms)
{
	struct obstacle *x = add(ret, "ClockSkew", NULL, n,
				 str_printf("its clock is %s node %s's by at least %lld s, so that certificates would not be valid yet, "
					    "or no longer: set both nodes' clocks by the same source (NTP)", how, other->name,
					    (long long)(ms / 1000)));
	x->other = other;
}

/* The one that is proven to be most ahead, and the one that is proven to be most behind: all others are between. */
static void look_at_clocks(const struct world *w, struct obstacles *ret)
{
	const struct node_state *ahead = NULL, *behind = NULL;
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		if (!n->clock_known)
			continue;
		if (!ahead || n->clock_least_ms > ahead->clock_least_ms)
			ahead = n;
		if (!behind || n->clock_most_ms < behind->clock_most_ms)
			behind = n;
	}
	if (!ahead || ahead->clock_least_ms - behind->clock_most_ms <= PREFLIGHT_CLOCKS_APART_MS)
		return;
	int64_t apart = ahead->clock_least_ms - behind->clock_most_ms;
	clocks_apart(ret, ahead, behind, "ahead of", apart);
	clocks_apart(ret, behind, ahead, "behind", apart);
}

/* --- Versions ------------------------------------------------------------------------------------------------------- */

int preflight_minor(const char *version)
{
	char *end = NULL;
	if (!version || *version != 'v' || version[1] < '0' || version[1] > '9')
		return -1;
	long major = strtol(version + 1, &end, 10);
	if (*end != '.' || end[1] < '0' || end[1] > '9')
		return -1;
	long minor = strtol(end + 1, NULL, 10);
	return major < 0 || major > 999 || minor < 0 || minor > 999 ? -1 : (int)(major * 1000 + minor);
}

/* A component of a control plane with a version, to compare all others with: an API server where one is known. */
struct base {
	const struct node_state *node;
	enum component component;
	int minor;
};

static struct base find_base(const struct world *w)
{
	static const enum component ORDER[] = { COMPONENT_APISERVER, COMPONENT_CONTROLLER_MANAGER, COMPONENT_SCHEDULER, COMPONENT_KUBELET };
	for (size_t k = 0; k < ARRAY_LEN(ORDER); k++)
		for (size_t i = 0; i < w->n_nodes; i++) {
			int minor = preflight_minor(w->nodes[i].versions[ORDER[k]]);
			if (w->nodes[i].control_plane && minor >= 0)
				return (struct base){ &w->nodes[i], ORDER[k], minor };
		}
	return (struct base){ .minor = -1 };
}

/* kubeadm upgrades one control plane after the other, and its kubelet last: anything that differs is an upgrade that is not over. */
static bool upgrades(const struct node_state *n, const struct base *b, struct obstacles *ret)
{
	for (size_t k = 0; k < COMPONENT_COUNT; k++) {
		int minor = preflight_minor(n->versions[k]);
		if (minor < 0 || minor == b->minor)
			continue;
		struct obstacle *x = add(ret, "UpgradeInProgress", NULL, n,
					 str_printf("its %s is %s, but %s of node %s is %s: finish the upgrade of every control plane "
						    "first (kubeadm upgrade, then the kubelet)", component_name((enum component)k),
						    n->versions[k], component_name(b->component), b->node->name,
						    b->node->versions[b->component]));
		x->other = b->node;
		return true;
	}
	return false;
}

static void look_at_versions(const struct world *w, struct obstacles *ret)
{
	const struct base b = find_base(w);
	for (size_t i = 0; i < w->n_nodes && b.minor >= 0; i++) {
		const struct node_state *n = &w->nodes[i];
		if (n->control_plane && upgrades(n, &b, ret))
			continue;
		if (preflight_minor(n->versions[COMPONENT_KUBELET]) > b.minor)
			add(ret, "KubeletTooNew", NULL, n,
			    str_printf("its kubelet is %s, newer than %s %s of node %s: upgrade the control planes first, or install an "
				       "older kubelet", n->versions[COMPONENT_KUBELET], component_name(b.component),
				       b.node->versions[b.component], b.node->name));
	}
}

/* --- All of it ------------------------------------------------------------------------------------------------------ */

void preflight_look(const struct world *w, struct obstacles *ret)
{
	if (!w->nodes_known)
		return;
	if (!w->run.exists)
		look_at_kubeadm(w, ret);
	for (size_t i = 0; i < w->n_nodes; i++)
		look_at_role(&w->nodes[i], ret);
	look_at_authorities(w, ret);
	look_at_candidate(w, ret);
	look_at_clocks(w, ret);
	look_at_versions(w, ret);
}
