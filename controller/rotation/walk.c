#include "walk.h"
#include "preflight.h"

#include <string.h>

#define BACKOFF_FIRST_MS 2000
#define BACKOFF_MAX_MS 60000
#define LOOK_SOON_MS 150      /* a hot reload is in force 20–80 ms after the file */
#define LOOK_OFTEN_MS 500
#define LOOK_MS 2000
#define BLOCKED_APART_MS 30000 /* looks at a node that blocks, or that others have worked on */
#define INVENTORY_GOOD_MS ((int64_t)10 * 60000) /* before there is a run, what a node has said counts for so long */
#define ROUND_MS ((int64_t)60000) /* while a run waits, what a node has said is looked at again after so long */
#define INSPECT_APART_MS 1500 /* two looks at the same node's pods are at least so far apart */

/* --- Waits ----------------------------------------------------------------------------------------------------- */

void waits_release(struct waits *w)
{
	buf_release(&w->message);
	strs_release(&w->names);
	memset(w, 0, sizeof *w);
}

static void waits_name(struct waits *w, const char *name)
{
	if (w->names.n < WORLD_NAMES_MAX)
		strs_add(&w->names, name);
}

static bool waits_for(struct waits *w, const char *reason, const char *message)
{
	w->reason = reason;
	buf_clear(&w->message);
	buf_add_str(&w->message, message);
	return false;
}

/* --- Predicates on the cluster ---------------------------------------------------------------------------------- */

/* An inventory of long ago, of a request that came to nothing, is no inventory. */
static bool is_visited(const struct world *w, const struct node_state *n)
{
	return n->reported && (w->run.exists || w->now_ms - n->job_asked_ms < INVENTORY_GOOD_MS);
}

static bool all_visited(const struct world *w, struct waits *ret)
{
	ret->total = w->n_nodes;
	for (size_t i = 0; i < w->n_nodes; i++) {
		if (is_visited(w, &w->nodes[i]))
			ret->done++;
		else
			waits_name(ret, w->nodes[i].name);
	}
	if (w->nodes_known && w->n_nodes && ret->done == ret->total)
		return true;
	ret->unknown = true;
	return waits_for(ret, "VisitingNodes", "the node program's first report from every node");
}

/* One that the run rotates and that has not got what `has` asks for; AUTHORITY_COUNT: all have. */
static enum authority first_without(const struct world *w, bool (*has)(const struct world *w, enum authority a))
{
	authority_set set = world_authorities(w);
	size_t a = 0;
	while (a < AUTHORITY_COUNT && (!authority_in(set, (enum authority)a) || has(w, (enum authority)a)))
		a++;
	return (enum authority)a;
}

static bool is_stored(const struct world *w, enum authority a)
{
	return w->run.exists && w->run.of[a].secret;
}

static bool is_certified(const struct world *w, enum authority a)
{
	return w->run.of[a].bridge_pem && (a != AUTHORITY_KUBERNETES || (w->run.has_old_probe && w->run.has_new_probe));
}

static bool waits_for_authority(struct waits *ret, enum authority a, const char *reason, const char *message)
{
	if (a == AUTHORITY_COUNT)
		return true;
	waits_name(ret, authority_name(a));
	return waits_for(ret, reason, message);
}

static bool authority_stored(const struct world *w, struct waits *ret)
{
	return waits_for_authority(ret, first_without(w, is_stored), "CreatingAuthority", "the new certificate authority to be made and stored");
}

static bool bridge_stored(const struct world *w, struct waits *ret)
{
	return waits_for_authority(ret, first_without(w, is_certified), "SigningBridge",
				   "a control plane to certify the new authority by the old one");
}

static bool kubeadm_certs_gone(const struct world *w, struct waits *ret)
{
	return w->kubeadm_certs == SEEN_NO ||
	       waits_for(ret, "DeletingKubeadmCerts",
			 "Secret kube-system/kubeadm-certs to be deleted: with its keys a control plane joins before or after a run");
}

/* The node whose process holds the Lease: holderIdentity is "<hostname>_<uuid>" (client-go's leaderelection as the
 * components use it). NULL when none matches. */
static const struct node_state *lease_node(const struct world *w, const struct lease_state *l)
{
	for (size_t i = 0; l->holder && i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		const char *host = n->hostname ? n->hostname : n->name;
		if (str_starts(l->holder, host) && l->holder[strlen(host)] == '_')
			return n;
	}
	return NULL;
}

/* A holder that took its Lease before its node's process started is dead: same clock, the node's. */
static bool lease_held_by_dead(const struct world *w, const struct lease_state *l, bool scheduler)
{
	const struct node_state *n = lease_node(w, l);
	if (!n || !n->reported || n->outdated)
		return false;
	int64_t started = scheduler ? n->scheduler_started_ms : n->controller_manager_started_ms;
	return started && l->acquired_ms < started;
}

static bool controller_manager_leads(const struct world *w, struct waits *ret)
{
	const struct lease_state *l = &w->controller_manager;
	if (l->known && l->exists && l->holder && *l->holder && !lease_held_by_dead(w, l, false))
		return true;
	return waits_for(ret, "WaitingForLeader", "a restarted kube-controller-manager to lead");
}

static bool published_both(const struct world *w, struct waits *ret);
static bool published_new(const struct world *w, struct waits *ret);

/* Who leads matters until the publishing is done: a stale leader would undo it. Said so that it stays true when a leader changes later. */
static bool leads_or_both_published(const struct world *w, struct waits *ret)
{
	struct waits ignored cleanup(waits_release) = { 0 };
	return published_both(w, &ignored) || controller_manager_leads(w, ret);
}

static bool leads_or_new_published(const struct world *w, struct waits *ret)
{
	struct waits ignored cleanup(waits_release) = { 0 };
	return published_new(w, &ignored) || controller_manager_leads(w, ret);
}

/* What a server makes of an authority is asked with a probe that the authority has issued. Of one whose key is not at hand there is none
 * (strategy Bundle): then the step's facets are all that is known, and they say no more than what was seen to be in force. */
static bool has_probe(const struct world *w, bool of_new)
{
	return world_strategy(w) == STRATEGY_BRIDGE || (of_new ? w->run.has_new_probe : w->run.has_old_probe);
}

static bool servers_accept_new(const struct world *w, struct waits *ret)
{
	bool refused = false;
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		ret->total++;
		if (!has_probe(w, true) || (n->kubelet_accepts_new == SEEN_YES && (!n->control_plane || n->api_accepts_new == SEEN_YES))) {
			ret->done++;
			continue;
		}
		refused = refused || n->kubelet_accepts_new == SEEN_NO || (n->control_plane && n->api_accepts_new == SEEN_NO);
		waits_name(ret, n->name);
	}
	ret->unknown = ret->done < ret->total && !refused;
	return ret->done == ret->total ||
	       waits_for(ret, "WaitingForTrust", "API servers and kubelets to be seen to accept the new authority");
}

static bool servers_refuse_old(const struct world *w, struct waits *ret)
{
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		ret->total++;
		if (!has_probe(w, false) || (n->kubelet_accepts_old == SEEN_NO && (!n->control_plane || n->api_accepts_old == SEEN_NO)))
			ret->done++;
		else
			waits_name(ret, n->name);
	}
	return ret->done == ret->total ||
	       waits_for(ret, "WaitingForDistrust", "API servers and kubelets to be seen to refuse the old authority");
}

static void add_lag(struct waits *ret, const struct strs *names)
{
	for (size_t i = 0; i < names->n; i++)
		waits_name(ret, names->items[i]);
}

static bool published(const struct world *w, bool only, struct waits *ret)
{
	const struct tally *a = &w->root_configmaps, *b = &w->token_secrets;
	bool info = w->cluster_info == CLUSTER_INFO_ABSENT || w->cluster_info == CLUSTER_INFO_BOTH ||
		    w->cluster_info == CLUSTER_INFO_NEW;
	ret->total = a->total + b->total;
	ret->done = only ? a->only_new + b->only_new : a->with_new + b->with_new;
	add_lag(ret, only ? &a->lag_only : &a->lag_new);
	add_lag(ret, only ? &b->lag_only : &b->lag_new);
	if (!info)
		waits_name(ret, "kube-public/cluster-info");
	return a->known && b->known && info && ret->done == ret->total;
}

static bool published_both(const struct world *w, struct waits *ret)
{
	return published(w, false, ret) ||
	       waits_for(ret, "Publishing", "kube-root-ca.crt, token Secrets and cluster-info to carry both authorities");
}

static bool published_new(const struct world *w, struct waits *ret)
{
	return published(w, true, ret) ||
	       waits_for(ret, "Publishing", "kube-root-ca.crt and token Secrets to carry the new authority only");
}

static bool admin_kubeconfig_stored(const struct world *w, struct waits *ret)
{
	if (w->run.back)
		return w->admin_kubeconfig == SEEN_NO ||
		       waits_for(ret, "WithdrawingAdminKubeconfig", "the Secret with the administrator's kubeconfig to be withdrawn");
	return w->admin_kubeconfig == SEEN_YES ||
	       waits_for(ret, "PublishingAdminKubeconfig", "the administrator's new kubeconfig in its Secret");
}

/* On the way back there is none any more. */
static bool admin_trusts_new_only(const struct world *w, struct waits *ret)
{
	return w->run.back || w->admin_has_old == SEEN_NO ||
	       waits_for(ret, "PublishingAdminKubeconfig", "the administrator's kubeconfig to carry the new authority only");
}

/* What a node knew of its pods goes with its own files (FACET_CLEAN), which are asked for once pods have forgotten. */
static bool has_been_looked_at(const struct world *w, const struct node_state *n)
{
	return !n->pods_unseen || (world_pods_forget(w) && facet_reached(n->levels[FACET_CLEAN], CLEAN_YES));
}

static bool pods_looked_at(const struct world *w, struct waits *ret)
{
	bool all = w->pods_known;
	for (size_t i = 0; i < w->n_nodes; i++) {
		if (has_been_looked_at(w, &w->nodes[i]))
			continue;
		waits_name(ret, w->nodes[i].name);
		all = false;
	}
	return all;
}

static void name_straggler(const struct straggler *s, struct waits *ret, struct buf *text)
{
	struct buf name cleanup(buf_release) = BUF_INIT;
	buf_addf(&name, "%s/%s/%s", s->kind, s->namespace, s->name);
	waits_name(ret, buf_str(&name));
	if (text->len > 700)
		return;
	buf_addf(text, "%s%s (%s)", text->len ? "; " : "", buf_str(&name), s->reason ? s->reason : "not restarted yet");
}

static bool workloads_restarted(const struct world *w, struct waits *ret)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	size_t waiting = 0, person = 0, pods = 0;
	for (size_t i = 0; i < w->n_stragglers; i++) {
		const struct straggler *s = &w->stragglers[i];
		if (s->accepted)
			continue;
		waiting++;
		person += !s->restartable;
		pods += s->pods;
		name_straggler(s, ret, &text);
	}
	ret->total = w->pods_total;
	ret->done = w->pods_total > pods ? w->pods_total - pods : 0;
	bool looked = pods_looked_at(w, ret);
	if (!waiting && looked)
		return true;
	ret->unknown = !waiting;
	if (!waiting)
		return waits_for(ret, "LookingAtPods", "a look at the pods' mounted CA on every node");
	ret->stalled = person == waiting && looked;
	waits_for(ret, "WaitingForWorkloads", "pods to have read the new authority: ");
	buf_add(&ret->message, buf_str(&text), text.len);
	return false;
}

/* Where pods must forget, stragglers are those who have not: that all know N has served by then. */
static bool workloads_know_new(const struct world *w, struct waits *ret)
{
	return world_pods_forget(w) || workloads_restarted(w, ret);
}

/* What a run that goes back leaves in pods' memory is an authority whose key is gone. */
static bool workloads_know_only_new(const struct world *w, struct waits *ret)
{
	return w->run.back || workloads_restarted(w, ret);
}

static bool own_volumes_new(const struct world *w, struct waits *ret)
{
	bool all = true;
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		add_lag(ret, &n->mixed);
		if (n->own_pod_stale)
			waits_name(ret, n->name);
		all = all && !n->mixed.n && !n->own_pod_stale;
	}
	return all || waits_for(ret, "RefreshingVolumes", "mounted CA volumes to carry the new authority only");
}

/* Who wrote a caBundle back, when its next write has to wait for that. */
static bool bundles_wait(const struct world *w, struct waits *ret, const char *message)
{
	const struct ca_bundles *b = &w->ca_bundles;
	waits_for(ret, "MovingCABundles", message);
	for (size_t i = 0; i < b->reverted.n; i++)
		buf_addf(&ret->message, "%s%s", i ? ", " : "; written back meanwhile, so the next write waits a while (change it where it comes "
			 "from, or pause that; or accept it by name): ", b->reverted.items[i]);
	ret->stalled = b->fought;
	return false;
}

static bool ca_bundles_both(const struct world *w, struct waits *ret)
{
	const struct ca_bundles *b = &w->ca_bundles;
	add_lag(ret, &b->tally.lag_new);
	ret->total = b->tally.total;
	ret->done = b->tally.total - b->wait_both;
	return (b->tally.known && !b->wait_both) || bundles_wait(w, ret, "caBundles of the old authority to hold both");
}

/* Every process behind a caBundle that was moved presents what the new authority issued, and what is not ours to move is accepted. */
static bool ca_bundles_served(const struct world *w, struct waits *ret)
{
	const struct ca_bundles *b = &w->ca_bundles;
	for (size_t i = 0; i < b->n_keepers; i++)
		waits_name(ret, b->keepers[i].object);
	if (b->tally.known && !b->keepers_total && !b->unlooked)
		return true;
	if (!b->keepers_total)
		return waits_for(ret, "LookingAtServers", "a look at what is served behind caBundles");
	waits_for(ret, "WaitingForServers", "caBundles to do without the old authority: ");
	for (size_t i = 0; i < b->n_keepers && ret->message.len < 700; i++)
		buf_addf(&ret->message, "%s%s (%s)", i ? "; " : "", b->keepers[i].object, b->keepers[i].reason);
	ret->stalled = !b->unlooked;
	return false;
}

static bool ca_bundles_new(const struct world *w, struct waits *ret)
{
	const struct ca_bundles *b = &w->ca_bundles;
	if (!ca_bundles_served(w, ret))
		return false;
	add_lag(ret, &b->tally.lag_only);
	ret->total = b->tally.total;
	ret->done = b->tally.total - b->wait_new;
	return !b->wait_new || bundles_wait(w, ret, "caBundles to hold the new authority only");
}

static bool csrs_signed(const struct world *w, struct waits *ret)
{
	add_lag(ret, &w->csrs_unsigned);
	return (w->csrs_known && !w->csrs_unsigned.n) ||
	       waits_for(ret, "WaitingForCSRs", "approved CertificateSigningRequests to be signed");
}

static bool drop_locks_out(const struct world *w)
{
	return authority_in(world_authorities(w), AUTHORITY_KUBERNETES);
}

/* Why spec.approve as it stands lets nothing pass; NULL: it does, or nobody has set it.
 *
 * Where the cluster's own authority is dropped, whoever gives it must have the new kubeconfig, or is locked out. Two things can show
 * that: APPROVAL_RULE, by which the API server lets spec.approve be set with that kubeconfig's certificate alone; or that the approval
 * names the certificate, which nobody can before it is made. Who has sent a request is written on no object: for the first, admission
 * must be believed, and all that can be looked at is whether the rule is in force. */
static const char *approval_flaw(const struct world *w)
{
	const struct request *r = w->request;
	if (!r || !r->approved_drop)
		return r && r->approved_other ? "it is for another run or phase" : NULL;
	if (!drop_locks_out(w))
		return NULL;
	if (w->admin_kubeconfig != SEEN_YES || !w->admin_fingerprint)
		return "the new kubeconfig is not published yet";
	if (r->approved_by)
		return str_eq(r->approved_by, w->admin_fingerprint) ? NULL
								    : "its clientCertificateFingerprint is not that of the new kubeconfig";
	if (w->approval_rule == SEEN_YES)
		return NULL;
	return w->approval_rule == SEEN_UNKNOWN
		       ? "ValidatingAdmissionPolicy " APPROVAL_RULE " could not be read"
		       : "ValidatingAdmissionPolicy " APPROVAL_RULE " or its binding is not in force, so anybody may have set it: apply "
			 "deploy/ again, or add clientCertificateFingerprint";
}

static bool approved(const struct world *w, struct waits *ret)
{
	const char *flaw = approval_flaw(w);
	if (w->run.dropping || w->run.back)
		return true;
	if (w->run.approved || (w->request && !w->request->approval_manual))
		return waits_for(ret, "Approving", "the drop to be recorded as begun");
	ret->stalled = true;
	waits_for(ret, "AwaitingApproval", "your approval");
	buf_addf(&ret->message, "%s: set spec.approve to {trigger: <this trigger>, phase: DroppingOld}. From there the old authority can't "
				"come back", drop_locks_out(w) ? ", with the administrator's new kubeconfig" : "");
	if (flaw)
		buf_addf(&ret->message, ". spec.approve as it is now does not count: %s", flaw);
	return false;
}

static bool cluster_info_new(const struct world *w, struct waits *ret)
{
	return w->cluster_info == CLUSTER_INFO_ABSENT || w->cluster_info == CLUSTER_INFO_NEW ||
	       waits_for(ret, "Publishing", "kube-public/cluster-info to carry the new authority only");
}

static bool extension_auth_pruned(const struct world *w, struct waits *ret)
{
	return w->extension_auth_has_old == SEEN_NO ||
	       waits_for(ret, "PruningExtensionAuth",
			 "ConfigMap kube-system/extension-apiserver-authentication to be rid of the old authority");
}

/* How many of them are waited for: those that nobody has accepted. */
static size_t wait_for_api_services(const struct world *w, const struct strs *names, struct waits *ret)
{
	size_t n = 0;
	for (size_t i = 0; i < names->n; i++) {
		char *name cleanup(str_freep) = str_printf("APIService/%s", names->items[i]);
		if (strs_has(&w->run.accepted, name))
			continue;
		waits_name(ret, name);
		n++;
	}
	ret->total = w->api_services;
	ret->done = ret->total - (n < ret->total ? n : ret->total);
	return n;
}

/* What an aggregated server accepts shows in its APIService: the API server asks with the front proxy's certificate whether it is there
 * (kube-aggregator's availability controller). */
static bool aggregated_available(const struct world *w, struct waits *ret)
{
	size_t away = wait_for_api_services(w, &w->api_services_away, ret);
	return (w->api_services_known && !away) ||
	       waits_for(ret, "WaitingForAggregatedServers", "APIServices to be Available: those that can't be are accepted by name "
			 "(spec.acceptStragglers) or deleted");
}

/* What it refuses shows in its handshake. */
static bool aggregated_refuse_old(const struct world *w, struct waits *ret)
{
	if (!aggregated_available(w, ret))
		return false;
	return !wait_for_api_services(w, &w->api_services_old, ret) ||
	       waits_for(ret, "WaitingForAggregatedServers", "aggregated servers to refuse the old front proxy, which they read in ConfigMap "
			 "kube-system/extension-apiserver-authentication: restart those that don't, or accept them by name "
			 "(spec.acceptStragglers)");
}

/* Until the drop has begun; then it has served. */
static bool aggregated_or_dropping(const struct world *w, struct waits *ret)
{
	return w->run.dropping || aggregated_available(w, ret);
}

static bool proxy_published(const struct world *w, struct waits *ret)
{
	return w->proxy_auth_has_new == SEEN_YES ||
	       waits_for(ret, "WaitingForTrust",
			 "API servers to publish both front proxies in ConfigMap kube-system/extension-apiserver-authentication");
}

static bool proxy_pruned(const struct world *w, struct waits *ret)
{
	return w->proxy_auth_has_old == SEEN_NO ||
	       waits_for(ret, "PruningExtensionAuth",
			 "ConfigMap kube-system/extension-apiserver-authentication to be rid of the old front proxy");
}

static bool finished(const struct world *w, struct waits *ret)
{
	return !w->run.exists || waits_for(ret, "Finishing", "the run's Secret to be closed and the node Pods to go");
}

/* --- What cluster steps do ---------------------------------------------------------------------------------------- */

static void plan_plain(enum action_kind kind, int step, struct plan *ret)
{
	plan_add(ret, kind, step);
	plan_look_again(ret, LOOK_OFTEN_MS);
}

bool walk_job_may_start(const struct world *w, const struct node_state *n, struct plan *ret)
{
	if (n->job_running)
		return false;
	int64_t wait = BACKOFF_FIRST_MS;
	for (int i = 1; i < n->job_failures && wait < BACKOFF_MAX_MS; i++)
		wait *= 2;
	int64_t left = n->job_failures ? n->job_ended_ms + wait - w->now_ms : 0;
	if (left > 0)
		plan_look_again(ret, left);
	return left <= 0;
}

/* From where on N signs on the node, or shows that it may; to the end where etcd's key is still to be put there (a job of a lone control
 * plane goes from the window to the end). */
static bool needs_key(const struct world *w, const struct node_state *n, const int levels[static FACET_COUNT])
{
	bool has = false, left = levels[FACET_CLEAN] != CLEAN_YES || !facet_reached(n->levels[FACET_ETCD_CA_KEY], levels[FACET_ETCD_CA_KEY]);
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		has = has || w->run.of[a].has_key;
	return has && !w->run.back && left &&
	       (facet_reached(levels[FACET_CA_KEY], ISSUED_NEW) || facet_reached(levels[FACET_SERVER_LEAF], LEAF_BRIDGE) ||
		facet_reached(levels[FACET_PROXY_TRUST], TRUST_BOTH) || facet_reached(levels[FACET_ETCD_LEAF], LEAF_BRIDGE));
}

static struct action *plan_job(const struct world *w, const struct node_state *n, int step, struct plan *ret)
{
	if (!walk_job_may_start(w, n, ret))
		return NULL;
	struct action *a = plan_add(ret, ACT_NODE, step);
	a->node = n;
	a->authority = authority_lead(world_authorities(w));
	walk_levels(w, (size_t)step, n->control_plane, a->levels);
	a->needs_key = n->control_plane && needs_key(w, n, a->levels);
	return a;
}

/* A look for one authority's certificates. */
static void plan_look_for(const struct world *w, enum authority wanted, bool certify, int step, struct plan *ret)
{
	for (size_t i = 0; i < w->n_nodes; i++) {
		if (!w->nodes[i].control_plane)
			continue;
		struct action *a = plan_job(w, &w->nodes[i], 0, ret);
		if (!a)
			return;
		a->step = step;
		a->authority = wanted;
		a->certify = certify;
		return;
	}
}

/* O of the lead came with the visits; the others' are asked for one by one: more would not fit into a report. */
static void plan_authority(const struct world *w, int step, struct plan *ret)
{
	enum authority wanted = first_without(w, is_stored);
	bool brought = !w->run.exists && w->request && w->request->authority_secret;
	if (brought && (!w->candidate_known || w->candidate_problem)) { /* a problem is an obstacle: preflight.c says it */
		plan_look_again(ret, LOOK_MS);
		return;
	}
	for (size_t i = 0; i < w->n_nodes && wanted != AUTHORITY_COUNT; i++) {
		if (!w->nodes[i].control_plane || !w->nodes[i].ca_pem || w->nodes[i].asked != wanted)
			continue;
		plan_add(ret, ACT_CREATE_AUTHORITY, step)->authority = wanted;
		plan_look_again(ret, LOOK_OFTEN_MS);
		return;
	}
	if (wanted != AUTHORITY_COUNT)
		plan_look_for(w, wanted, false, step, ret);
	plan_look_again(ret, LOOK_MS);
}

/* Once there is a run, the first control plane is asked for the lead's X on the way. */
static void plan_visit(const struct world *w, int step, struct plan *ret)
{
	bool wanted = w->run.exists && world_strategy(w) == STRATEGY_BRIDGE && !w->run.of[authority_lead(w->run.authorities)].bridge_pem;
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		struct action *a = is_visited(w, n) ? NULL : plan_job(w, n, step, ret);
		if (a && wanted && n->control_plane) {
			a->certify = true;
			wanted = false;
		}
	}
	plan_look_again(ret, LOOK_MS);
}

static void plan_bridge(const struct world *w, int step, struct plan *ret)
{
	enum authority wanted = first_without(w, is_certified);
	for (size_t i = 0; i < w->n_nodes && wanted != AUTHORITY_COUNT; i++) {
		const struct node_state *n = &w->nodes[i];
		bool whole = n->bridge_pem && (wanted != AUTHORITY_KUBERNETES || n->probe_pem);
		if (!n->control_plane || !whole || n->asked != wanted)
			continue;
		struct action *a = plan_add(ret, ACT_STORE_BRIDGE, step);
		a->node = n;
		a->authority = wanted;
		return;
	}
	if (wanted != AUTHORITY_COUNT)
		plan_look_for(w, wanted, true, step, ret);
}

static void plan_kubeadm_certs(const struct world *w, int step, struct plan *ret)
{
	if (w->kubeadm_certs == SEEN_YES)
		plan_plain(ACT_DELETE_KUBEADM_CERTS, step, ret);
}

static void plan_lease(const struct world *w, const struct lease_state *l, bool scheduler, int step, struct plan *ret)
{
	if (l->known && l->exists && l->holder && *l->holder && lease_held_by_dead(w, l, scheduler))
		plan_add(ret, ACT_RELEASE_LEASE, step)->name =
			scheduler ? "kube-scheduler" : "kube-controller-manager";
}

static void plan_leader(const struct world *w, int step, struct plan *ret)
{
	plan_lease(w, &w->controller_manager, false, step, ret);
	plan_lease(w, &w->scheduler, true, step, ret);
	plan_look_again(ret, LOOK_SOON_MS);
}

static void plan_publish(const struct world *w, bool only, int step, struct plan *ret)
{
	const struct tally *a = &w->root_configmaps, *b = &w->token_secrets;
	size_t lag = a->total + b->total - (only ? a->only_new + b->only_new : a->with_new + b->with_new);
	if (a->known && b->known && lag)
		plan_add(ret, ACT_PUBLISH, step)->level = only ? TRUST_NEW : TRUST_BOTH;
	bool behind = w->cluster_info == CLUSTER_INFO_OLD || w->cluster_info == CLUSTER_INFO_UNSIGNED_BOTH ||
		      w->cluster_info == CLUSTER_INFO_UNSIGNED_NEW;
	if (behind)
		plan_add(ret, ACT_CLUSTER_INFO, step)->level =
			w->cluster_info == CLUSTER_INFO_UNSIGNED_NEW ? TRUST_NEW : TRUST_BOTH;
	plan_look_again(ret, LOOK_OFTEN_MS);
}

static void plan_publish_both(const struct world *w, int step, struct plan *ret)
{
	plan_publish(w, false, step, ret);
}

static void plan_publish_new(const struct world *w, int step, struct plan *ret)
{
	plan_publish(w, true, step, ret);
}

static void plan_bundles(const struct world *w, int level, size_t writable, int step, struct plan *ret)
{
	if (writable)
		plan_add(ret, ACT_CA_BUNDLES, step)->level = level;
	plan_look_again(ret, writable ? LOOK_OFTEN_MS : LOOK_MS);
	if (w->ca_bundles.again_ms)
		plan_look_again(ret, w->ca_bundles.again_ms);
}

static void plan_ca_bundles_both(const struct world *w, int step, struct plan *ret)
{
	plan_bundles(w, TRUST_BOTH, w->ca_bundles.to_both, step, ret);
}

static void plan_ca_bundles_new(const struct world *w, int step, struct plan *ret)
{
	plan_bundles(w, TRUST_NEW, w->ca_bundles.to_new, step, ret);
}

static void plan_admin(const struct world *w, int step, struct plan *ret)
{
	if (w->admin_kubeconfig == (w->run.back ? SEEN_YES : SEEN_NO))
		plan_add(ret, ACT_ADMIN_KUBECONFIG, step)->level = TRUST_BOTH;
	plan_look_again(ret, LOOK_OFTEN_MS);
}

static void plan_admin_new(const struct world *w, int step, struct plan *ret)
{
	if (w->admin_has_old == SEEN_YES)
		plan_add(ret, ACT_ADMIN_KUBECONFIG, step)->level = TRUST_NEW;
	plan_look_again(ret, LOOK_OFTEN_MS);
}

/* A look at the pods of the nodes that need one. While rollouts are under way a look is soon out of date again, so then
 * looks are further apart. */
static void plan_inspect(const struct world *w, int step, struct plan *ret)
{
	int64_t apart = w->rolling ? 4 * INSPECT_APART_MS : INSPECT_APART_MS;
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		if (!n->pods_unseen)
			continue;
		int64_t left = n->job_ended_ms + apart - w->now_ms;
		if (left > 0)
			plan_look_again(ret, left);
		else
			plan_job(w, n, step, ret);
	}
}

static size_t pods_rolling(const struct world *w)
{
	size_t pods = 0;
	for (size_t i = 0; i < w->n_stragglers; i++)
		if (w->stragglers[i].restarted && w->stragglers[i].restartable)
			pods += w->stragglers[i].pods;
	return pods;
}

static bool system_stragglers(const struct world *w)
{
	for (size_t i = 0; i < w->n_stragglers; i++) {
		const struct straggler *s = &w->stragglers[i];
		if (s->system && s->restartable && !s->accepted)
			return true;
	}
	return false;
}

/* CNI and kube-proxy first and alone; then the others, so many that no more than a few seconds' worth of pods are in flight. */
static void plan_workloads(const struct world *w, int step, struct plan *ret)
{
	bool system = system_stragglers(w);
	size_t in_flight = pods_rolling(w);
	size_t budget = w->request ? (size_t)w->request->pods_per_second * 5 : 0;
	for (size_t i = 0; i < w->n_stragglers; i++) {
		const struct straggler *s = &w->stragglers[i];
		bool wanted = s->restartable && !s->restarted && !s->accepted && s->system == system;
		if (!wanted || !w->request || !w->request->restart_workloads)
			continue;
		if (in_flight && in_flight + s->pods > budget)
			continue;
		in_flight += s->pods;
		struct action *a = plan_add(ret, ACT_RESTART_WORKLOAD, step);
		a->kind_name = s->kind;
		a->namespace = s->namespace;
		a->name = s->name;
	}
	plan_inspect(w, step, ret);
	plan_look_again(ret, LOOK_MS);
}

static void plan_own_volumes(const struct world *w, int step, struct plan *ret)
{
	plan_add(ret, ACT_REFRESH_PODS, step);
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		if (!n->mixed.n && !n->own_pod_stale)
			continue;
		int64_t left = n->job_ended_ms + INSPECT_APART_MS - w->now_ms;
		if (left > 0)
			plan_look_again(ret, left);
		else
			plan_job(w, n, step, ret);
	}
}

static void plan_wait(const struct world *w UNUSED, int step UNUSED, struct plan *ret)
{
	plan_look_again(ret, LOOK_MS);
}

/* Recorded before the drop begins, automatic or not: from then on the walk goes forward whatever happens to the CR. */
static void plan_approval(const struct world *w, int step, struct plan *ret)
{
	if (w->run.approved || (w->request && !w->request->approval_manual))
		plan_add(ret, ACT_LATCH, step)->level = LATCH_DROPPING;
	plan_look_again(ret, LOOK_MS);
}

static void plan_cluster_info_new(const struct world *w UNUSED, int step, struct plan *ret)
{
	plan_add(ret, ACT_CLUSTER_INFO, step)->level = TRUST_NEW;
	plan_look_again(ret, LOOK_OFTEN_MS);
}

static void plan_look_soon(const struct world *w UNUSED, int step UNUSED, struct plan *ret)
{
	plan_look_again(ret, LOOK_SOON_MS);
}

static void plan_extension_auth(const struct world *w, int step, struct plan *ret)
{
	if (w->extension_auth_has_old == SEEN_YES)
		plan_add(ret, ACT_PRUNE_EXTENSION_AUTH, step)->authority = AUTHORITY_KUBERNETES;
	plan_look_again(ret, LOOK_OFTEN_MS);
}

static void plan_prune_proxy(const struct world *w, int step, struct plan *ret)
{
	if (w->proxy_auth_has_old == SEEN_YES)
		plan_add(ret, ACT_PRUNE_EXTENSION_AUTH, step)->authority = AUTHORITY_FRONT_PROXY;
	plan_look_again(ret, LOOK_OFTEN_MS);
}

static void plan_finish(const struct world *w UNUSED, int step, struct plan *ret)
{
	plan_add(ret, ACT_FINISH, step);
}

/* --- The table ------------------------------------------------------------------------------------------------------ */

#define FACETS(...) .facets = { __VA_ARGS__ }, .n_facets = sizeof((const int[][2]){ __VA_ARGS__ }) / sizeof(int[2])

/* Whose step it is. */
#define ALL 0u
#define KUBERNETES AUTHORITY_BIT(AUTHORITY_KUBERNETES)
#define PROXY AUTHORITY_BIT(AUTHORITY_FRONT_PROXY)
#define ETCD AUTHORITY_BIT(AUTHORITY_ETCD)

/* By which strategy alone. */
#define BRIDGE .only = STRATEGY_BIT(STRATEGY_BRIDGE)
#define BUNDLE .only = STRATEGY_BIT(STRATEGY_BUNDLE)

#ifndef WALK_STORAGE /* the simulation makes mutants of the table */
#define WALK_STORAGE static const
#endif
WALK_STORAGE struct step STEPS[] = {
	{ PHASE_PREPARING, ALL, "visit", "every node is visited and nothing blocks",
	  .holds = all_visited, .plan = plan_visit },
	{ PHASE_PREPARING, ALL, "authority", "the new authority is stored",
	  .holds = authority_stored, .plan = plan_authority },
	{ PHASE_PREPARING, ALL, "bridge", "the old authority has certified the new one",
	  .holds = bridge_stored, .plan = plan_bridge, BRIDGE },
	{ PHASE_PREPARING, ALL, "kubeadm-certs", "no Secret with old keys for joins",
	  .holds = kubeadm_certs_gone, .plan = plan_kubeadm_certs },

	{ PHASE_TRUSTING_BOTH, PROXY, "proxy-trust", "API servers accept both front proxies, and tell aggregated servers",
	  SCOPE_CONTROL_PLANES, PACE_ALL, FACETS({ FACET_PROXY_TRUST, TRUST_BOTH }), .holds = proxy_published, .plan = plan_look_soon },
	{ PHASE_TRUSTING_BOTH, KUBERNETES, "own-signer", "controller-managers have a signer and a root file of their own",
	  SCOPE_CONTROL_PLANES, PACE_ONE, FACETS({ FACET_SIGNER, SIGNER_OWN_OLD }, { FACET_ROOT, ROOT_OWN_BOTH }) },
	{ PHASE_TRUSTING_BOTH, KUBERNETES, "leader", "a restarted controller-manager leads",
	  .holds = leads_or_both_published, .plan = plan_leader },
	{ PHASE_TRUSTING_BOTH, KUBERNETES, "trust-both", "every server accepts both",
	  SCOPE_NODES, PACE_ALL, FACETS({ FACET_TRUST, TRUST_BOTH }), .holds = servers_accept_new, .plan = plan_look_soon },
	{ PHASE_TRUSTING_BOTH, KUBERNETES, "publish-both", "both authorities are published",
	  .holds = published_both, .plan = plan_publish_both },
	{ PHASE_TRUSTING_BOTH, KUBERNETES, "ca-bundles-both", "caBundles of the old authority hold both",
	  .holds = ca_bundles_both, .plan = plan_ca_bundles_both },

	{ PHASE_REISSUING_LEAVES, PROXY, "proxy-leaf", "API servers show a new certificate, with the bridge, to aggregated servers",
	  SCOPE_CONTROL_PLANES, PACE_ALL, FACETS({ FACET_PROXY_CA_KEY, ISSUED_NEW }, { FACET_PROXY_LEAF, LEAF_BRIDGE }) },
	{ PHASE_REISSUING_LEAVES, PROXY, "aggregated", "aggregated servers accept it",
	  .holds = aggregated_or_dropping, .plan = plan_wait },
	{ PHASE_REISSUING_LEAVES, ETCD, "etcd-leaves", "etcd's members and clients present new leaves with the bridge",
	  SCOPE_CONTROL_PLANES, PACE_ONE, FACETS({ FACET_ETCD_LEAF, LEAF_BRIDGE }) },
	{ PHASE_REISSUING_LEAVES, KUBERNETES, "server-leaves", "servers present new leaves with the bridge",
	  SCOPE_NODES, PACE_ALL, FACETS({ FACET_SERVER_LEAF, LEAF_BRIDGE }, { FACET_KUBELET_SERVER, LEAF_BRIDGE }), BRIDGE },
	{ PHASE_REISSUING_LEAVES, KUBERNETES, "signer", "the new authority signs",
	  SCOPE_CONTROL_PLANES, PACE_ALL, FACETS({ FACET_CA_KEY, ISSUED_NEW }, { FACET_SIGNER, SIGNER_OWN_NEW }), BRIDGE },
	{ PHASE_REISSUING_LEAVES, KUBERNETES, "components", "scheduler, controller-manager and admin kubeconfigs are new",
	  SCOPE_CONTROL_PLANES, PACE_ONE,
	  FACETS({ FACET_COMPONENTS, ISSUED_NEW }, { FACET_ROOT, ROOT_OWN_NEW }, { FACET_ADMIN, ISSUED_NEW }), BRIDGE },
	{ PHASE_REISSUING_LEAVES, KUBERNETES, "leader-again", "a restarted controller-manager leads",
	  .holds = leads_or_new_published, .plan = plan_leader, BRIDGE },
	{ PHASE_REISSUING_LEAVES, KUBERNETES, "kubelets", "kubelets have new certificates and new trust",
	  SCOPE_NODES, PACE_WORKERS, FACETS({ FACET_KUBELET, ISSUED_NEW }), BRIDGE },
	{ PHASE_REISSUING_LEAVES, KUBERNETES, "first-signer", "the new authority signs",
	  SCOPE_CONTROL_PLANES, PACE_ONE, FACETS({ FACET_CA_KEY, ISSUED_NEW }, { FACET_SIGNER, SIGNER_OWN_NEW }), BUNDLE },
	{ PHASE_REISSUING_LEAVES, KUBERNETES, "components-both", "scheduler, controller-manager and admin kubeconfigs are new, and trust both",
	  SCOPE_CONTROL_PLANES, PACE_ONE, FACETS({ FACET_COMPONENTS_BOTH, ISSUED_NEW }, { FACET_ADMIN_BOTH, ISSUED_NEW }), BUNDLE },
	{ PHASE_REISSUING_LEAVES, KUBERNETES, "kubelets-both", "kubelets have new certificates, and trust both",
	  SCOPE_NODES, PACE_WORKERS, FACETS({ FACET_KUBELET_BOTH, ISSUED_NEW }), BUNDLE },
	{ PHASE_REISSUING_LEAVES, KUBERNETES, "kubelet-client", "API servers use a new certificate towards kubelets",
	  SCOPE_CONTROL_PLANES, PACE_ONE, FACETS({ FACET_KUBELET_CLIENT, ISSUED_NEW }) },

	{ PHASE_PUBLISHING_NEW, KUBERNETES, "publish-new", "only the new authority is published",
	  .holds = published_new, .plan = plan_publish_new, BRIDGE },
	{ PHASE_PUBLISHING_NEW, KUBERNETES, "admin-kubeconfig", "the administrator's new kubeconfig is in its Secret",
	  .holds = admin_kubeconfig_stored, .plan = plan_admin },

	{ PHASE_RESTARTING_WORKLOADS, KUBERNETES | ETCD, "workloads", "every pod has read the new authority",
	  .holds = workloads_know_new, .plan = plan_workloads },
	{ PHASE_RESTARTING_WORKLOADS, KUBERNETES, "volumes", "mounted CAs carry the new authority only",
	  .holds = own_volumes_new, .plan = plan_own_volumes, BRIDGE },

	{ PHASE_AWAITING_APPROVAL, KUBERNETES, "csrs", "no approved CSR waits for its certificate",
	  .holds = csrs_signed, .plan = plan_wait },
	{ PHASE_AWAITING_APPROVAL, KUBERNETES, "ca-bundles-served", "webhooks and aggregated APIs serve what the new authority issued",
	  .holds = ca_bundles_served, .plan = plan_wait },
	{ PHASE_AWAITING_APPROVAL, ALL, "approval", "approved",
	  .holds = approved, .plan = plan_approval },

	{ PHASE_DROPPING_OLD, KUBERNETES, "servers", "servers present new leaves, which everybody has been told of",
	  SCOPE_NODES, PACE_ALL, FACETS({ FACET_SERVER_LEAF, LEAF_NEW }, { FACET_KUBELET_SERVER, LEAF_NEW }), BUNDLE },
	{ PHASE_DROPPING_OLD, KUBERNETES, "ca-bundles-new", "caBundles hold the new authority only",
	  .holds = ca_bundles_new, .plan = plan_ca_bundles_new },
	{ PHASE_DROPPING_OLD, KUBERNETES, "cluster-info", "cluster-info carries the new authority only",
	  .holds = cluster_info_new, .plan = plan_cluster_info_new },
	{ PHASE_DROPPING_OLD, ALL, "proof", "every node is seen once more",
	  SCOPE_NODES, PACE_ALL, .proof = true },
	{ PHASE_DROPPING_OLD, KUBERNETES, "distrust", "every server refuses the old authority",
	  SCOPE_NODES, PACE_ALL, FACETS({ FACET_TRUST, TRUST_NEW }), .holds = servers_refuse_old, .plan = plan_look_soon },
	{ PHASE_DROPPING_OLD, KUBERNETES, "bare-leaves", "servers present new leaves without the bridge",
	  SCOPE_NODES, PACE_ALL, FACETS({ FACET_SERVER_LEAF, LEAF_NEW }, { FACET_KUBELET_SERVER, LEAF_NEW }), BRIDGE },
	{ PHASE_DROPPING_OLD, KUBERNETES, "kubeadm-flags", "controller-manager manifests are as kubeadm wrote them",
	  SCOPE_CONTROL_PLANES, PACE_ONE, FACETS({ FACET_SIGNER, SIGNER_KUBEADM_NEW }, { FACET_ROOT, ROOT_KUBEADM_NEW }), BRIDGE },
	{ PHASE_DROPPING_OLD, KUBERNETES, "components-new", "components trust the new authority only, and manifests are as kubeadm writes them",
	  SCOPE_CONTROL_PLANES, PACE_ONE, FACETS({ FACET_COMPONENTS, ISSUED_NEW }, { FACET_ADMIN, ISSUED_NEW },
						 { FACET_SIGNER, SIGNER_KUBEADM_NEW }, { FACET_ROOT, ROOT_KUBEADM_NEW }), BUNDLE },
	{ PHASE_DROPPING_OLD, KUBERNETES, "leader-last", "a restarted controller-manager leads",
	  .holds = controller_manager_leads, .plan = plan_leader },
	{ PHASE_DROPPING_OLD, KUBERNETES, "publish-last", "only the new authority is published",
	  .holds = published_new, .plan = plan_publish_new, BUNDLE },
	{ PHASE_DROPPING_OLD, KUBERNETES, "kubelets-new", "kubelets trust the new authority only",
	  SCOPE_NODES, PACE_WORKERS, FACETS({ FACET_KUBELET, ISSUED_NEW }), BUNDLE },
	{ PHASE_DROPPING_OLD, KUBERNETES, "workloads-new", "every pod has read the new authority alone",
	  .holds = workloads_know_only_new, .plan = plan_workloads, BUNDLE },
	{ PHASE_DROPPING_OLD, KUBERNETES, "volumes-last", "mounted CAs carry the new authority only",
	  .holds = own_volumes_new, .plan = plan_own_volumes, BUNDLE },
	{ PHASE_DROPPING_OLD, KUBERNETES, "extension-auth", "aggregated API servers are told to refuse the old authority",
	  .holds = extension_auth_pruned, .plan = plan_extension_auth },
	{ PHASE_DROPPING_OLD, PROXY, "proxy-distrust", "API servers refuse the old front proxy, and show the bare new leaf",
	  SCOPE_CONTROL_PLANES, PACE_ALL, FACETS({ FACET_PROXY_TRUST, TRUST_NEW }, { FACET_PROXY_LEAF, LEAF_NEW }) },
	{ PHASE_DROPPING_OLD, PROXY, "proxy-auth", "aggregated servers are told to refuse the old front proxy",
	  .holds = proxy_pruned, .plan = plan_prune_proxy },
	{ PHASE_DROPPING_OLD, PROXY, "aggregated-last", "aggregated servers accept the new front proxy alone",
	  .holds = aggregated_refuse_old, .plan = plan_look_soon },
	{ PHASE_DROPPING_OLD, ETCD, "etcd-trust", "each etcd member and its API server have restarted, and refuse the old authority",
	  SCOPE_CONTROL_PLANES, PACE_ONE, FACETS({ FACET_ETCD_CA_KEY, ISSUED_NEW }, { FACET_ETCD_TRUST, TRUST_NEW }) },
	{ PHASE_DROPPING_OLD, ETCD, "etcd-bare-leaves", "etcd's members and clients present new leaves without the bridge",
	  SCOPE_CONTROL_PLANES, PACE_ONE, FACETS({ FACET_ETCD_LEAF, LEAF_NEW }) },
	{ PHASE_DROPPING_OLD, ALL, "clean", "nothing old is left on any node",
	  SCOPE_NODES, PACE_ALL, FACETS({ FACET_CLEAN, CLEAN_YES }) },
	{ PHASE_DROPPING_OLD, KUBERNETES, "admin-trust", "the administrator's kubeconfig carries the new authority only",
	  .holds = admin_trusts_new_only, .plan = plan_admin_new },
	{ PHASE_DROPPING_OLD, ALL, "finish", "the run is closed",
	  .holds = finished, .plan = plan_finish },
};

size_t walk_length(void)
{
	return ARRAY_LEN(STEPS);
}

const struct step *walk_step(size_t i)
{
	return i < ARRAY_LEN(STEPS) ? &STEPS[i] : NULL;
}

size_t walk_find(const char *name)
{
	size_t i = 0;
	while (i < ARRAY_LEN(STEPS) && !str_eq(STEPS[i].name, name))
		i++;
	return i;
}

/* --- Node steps ------------------------------------------------------------------------------------------------------- */

static bool in_scope(const struct step *s, bool control_plane)
{
	return s->scope == SCOPE_NODES || (s->scope == SCOPE_CONTROL_PLANES && control_plane);
}

static bool is_step_of(authority_set set, enum strategy by, const struct step *s)
{
	return (!s->of || (s->of & set)) && (!s->only || (s->only & STRATEGY_BIT(by)));
}

bool walk_applies(const struct world *w, const struct step *s)
{
	return is_step_of(world_authorities(w), world_strategy(w), s);
}

bool walk_moves(authority_set set, enum strategy by, enum phase p, struct buf *out)
{
	bool any = false;
	for (size_t i = 0; i < ARRAY_LEN(STEPS); i++) {
		if (STEPS[i].phase != p || !is_step_of(set, by, &STEPS[i]))
			continue;
		buf_addf(out, "%s%s", any ? "; " : "", STEPS[i].title);
		any = true;
	}
	return any;
}

void walk_levels(const struct world *w, size_t step, bool control_plane, int ret_levels[static FACET_COUNT])
{
	for (size_t f = 0; f < FACET_COUNT; f++)
		ret_levels[f] = FACET_UNTOUCHED_LEVEL;
	for (size_t i = 0; i <= step && i < ARRAY_LEN(STEPS); i++) {
		if (!in_scope(&STEPS[i], control_plane) || !walk_applies(w, &STEPS[i]))
			continue;
		for (size_t k = 0; k < STEPS[i].n_facets; k++)
			ret_levels[STEPS[i].facets[k].facet] = STEPS[i].facets[k].level;
	}
}

/* Once the lead's old authority is refused here, the proof before it has served. */
static bool has_dropped(const struct world *w, const struct node_state *n)
{
	static const enum facet TRUST[AUTHORITY_COUNT] = { FACET_TRUST, FACET_PROXY_TRUST, FACET_ETCD_TRUST };
	enum authority lead = authority_lead(world_authorities(w));
	return lead != AUTHORITY_COUNT && n->levels[TRUST[lead]] == TRUST_NEW;
}

bool walk_node_done(const struct world *w, size_t step, const struct node_state *n)
{
	const struct step *s = &STEPS[step];
	if (!in_scope(s, n->control_plane) || !walk_applies(w, s))
		return true;
	if (!n->reported || (s->proof && !has_dropped(w, n) && (n->outdated || n->report_step < (int)step)))
		return false;
	for (size_t k = 0; k < s->n_facets; k++)
		if (!facet_reached(n->levels[s->facets[k].facet], s->facets[k].level))
			return false;
	return true;
}

static bool nodes_done(const struct world *w, size_t step, struct waits *ret)
{
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		if (!in_scope(&STEPS[step], n->control_plane))
			continue;
		ret->total++;
		if (walk_node_done(w, step, n))
			ret->done++;
		else
			waits_name(ret, n->name);
	}
	if (ret->done == ret->total)
		return w->nodes_known;
	return waits_for(ret, "ConvergingNodes", STEPS[step].title);
}

static bool step_holds(const struct world *w, size_t step, struct waits *ret)
{
	const struct step *s = &STEPS[step];
	if (!walk_applies(w, s))
		return true;
	if (s->scope != SCOPE_CLUSTER && !nodes_done(w, step, ret))
		return false;
	if (!s->holds)
		return true;
	waits_release(ret);
	return s->holds(w, ret);
}

static bool any_job(const struct world *w, bool control_planes_only)
{
	for (size_t i = 0; i < w->n_nodes; i++)
		if (w->nodes[i].job_running && (!control_planes_only || w->nodes[i].control_plane))
			return true;
	return false;
}

static size_t jobs_running(const struct world *w)
{
	size_t n = 0;
	for (size_t i = 0; i < w->n_nodes; i++)
		n += w->nodes[i].job_running;
	return n;
}

/* How many nodes may be begun now. Control planes are done one by one, before any worker. */
static size_t pace_budget(const struct world *w, const struct step *s, bool control_plane_left)
{
	size_t running = jobs_running(w);
	if (s->pace == PACE_ALL)
		return w->n_nodes;
	if (s->pace == PACE_ONE || control_plane_left)
		return running ? 0 : 1;
	size_t most = w->request && w->request->max_workers > 0 ? (size_t)w->request->max_workers : 1;
	if (any_job(w, true) || running >= most)
		return 0;
	return most - running;
}

/* True when a node other than n has something left to do for the step. */
static bool others_left(const struct world *w, size_t step, const struct node_state *n)
{
	for (size_t i = 0; i < w->n_nodes; i++)
		if (&w->nodes[i] != n && !walk_node_done(w, step, &w->nodes[i]))
			return true;
	return false;
}

/* How far one job may go: over steps that only this node has left, with nothing between them that the cluster must show. The node
 * program keeps the walk's order within a job. */
static size_t last_step_of_job(const struct world *w, size_t step, const struct node_state *n)
{
	size_t last = step;
	for (size_t next = step; next < ARRAY_LEN(STEPS); next++) {
		const struct step *s = &STEPS[next];
		if (!walk_applies(w, s))
			continue;
		if (s->scope == SCOPE_CLUSTER || !s->n_facets || others_left(w, next, n))
			return last;
		last = next;
		if (s->holds)
			return last;
	}
	return last;
}

static void plan_nodes(const struct world *w, size_t step, struct plan *ret)
{
	const struct step *s = &STEPS[step];
	bool control_plane_left = false;
	for (size_t i = 0; i < w->n_nodes; i++)
		control_plane_left = control_plane_left ||
				     (w->nodes[i].control_plane && !walk_node_done(w, step, &w->nodes[i]));
	size_t budget = pace_budget(w, s, control_plane_left);
	bool planes_first = s->pace == PACE_WORKERS && control_plane_left;
	for (size_t i = 0; i < w->n_nodes && budget; i++) {
		const struct node_state *n = &w->nodes[i];
		if (walk_node_done(w, step, n) || (planes_first && !n->control_plane))
			continue;
		budget -= plan_job(w, n, (int)last_step_of_job(w, step, n), ret) != NULL;
	}
	plan_look_again(ret, LOOK_MS);
}

/* --- Position ----------------------------------------------------------------------------------------------------------- */

static bool hold(struct position *p, const char *reason, bool stalled)
{
	p->held = true;
	p->waits.reason = reason;
	p->waits.stalled = stalled;
	return true;
}

static void name_blocker(struct position *p, const char *code, const char *node, const char *object, const char *message)
{
	struct buf *text = &p->waits.message;
	waits_name(&p->waits, node ? node : object);
	if (text->len < 600)
		buf_addf(text, "%s%s: %s%s%s%s: %s", text->len ? "; " : "", code, node ? "Node/" : "", node ? node : "", node ? ":" : "",
			 object, message);
}

/* What a node says of itself, and what shows by comparing nodes or in the API alone. */
static bool blocked(const struct world *w, struct position *p)
{
	struct obstacles o cleanup(obstacles_release) = { 0 };
	preflight_look(w, &o);
	for (size_t i = 0; i < o.n; i++)
		name_blocker(p, o.items[i].code, NULL, o.items[i].object, o.items[i].message);
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		for (size_t k = 0; k < n->n_blockers; k++)
			name_blocker(p, n->blockers[k].code, n->name, n->blockers[k].object, n->blockers[k].message);
	}
	p->blocked = p->waits.names.n;
	return p->blocked && hold(p, "Blocked", true);
}

static bool node_down(const struct world *w, struct position *p)
{
	for (size_t i = 0; i < w->n_nodes; i++)
		if (!w->nodes[i].ready)
			waits_name(&p->waits, w->nodes[i].name);
	if (!p->waits.names.n)
		return false;
	buf_add_str(&p->waits.message, "nodes to be Ready");
	return hold(p, "NodeNotReady", true);
}

/* With a part unknown the walk stands at some earlier step, and what that would begin is begun already. And whether this is kubeadm's
 * must be known before any program of ours runs on a node. */
static bool unread(const struct world *w, struct position *p)
{
	bool kubeadm = !w->run.exists && w->kubeadm_config == SEEN_UNKNOWN;
	if (!w->unread && !kubeadm)
		return false;
	p->waits.done = p->waits.total = 0;
	buf_addf(&p->waits.message, "%s to be read", w->unread ? w->unread : "ConfigMap kube-system/kubeadm-config");
	return hold(p, "Reading", false);
}

/* Things that must be right before anything new is begun, in any phase. */
static void locate_hold(const struct world *w, struct position *p)
{
	struct waits before = p->waits;
	memset(&p->waits, 0, sizeof p->waits);
	p->waits.done = before.done;
	p->waits.total = before.total;
	if (w->request && w->request->paused) {
		buf_add_str(&p->waits.message, "spec.paused to be false");
		hold(p, "Paused", false);
	} else if (!unread(w, p) && !blocked(w, p) && !node_down(w, p)) {
		waits_release(&p->waits);
		p->waits = before;
		return;
	}
	waits_release(&before);
}

void walk_locate(const struct world *w, struct position *ret)
{
	memset(ret, 0, sizeof *ret);
	for (size_t i = 0; i < PHASE_COUNT; i++)
		ret->phase_done[i] = true;
	size_t i = 0;
	while (i < ARRAY_LEN(STEPS)) {
		waits_release(&ret->waits);
		if (!step_holds(w, i, &ret->waits))
			break;
		i++;
	}
	if (i == ARRAY_LEN(STEPS))
		waits_release(&ret->waits);
	if (w->run.finishing) /* what is closed can't be looked at any more */
		i = walk_find("finish");
	ret->step = i;
	ret->phase = i < ARRAY_LEN(STEPS) ? STEPS[i].phase : PHASE_COMPLETED;
	for (size_t p = ret->phase; p < PHASE_COUNT && i < ARRAY_LEN(STEPS); p++)
		ret->phase_done[p] = false;
	if (w->run.finishing)
		waits_release(&ret->waits);
	else if (i < ARRAY_LEN(STEPS))
		locate_hold(w, ret);
}

void position_release(struct position *p)
{
	waits_release(&p->waits);
}

static bool accepts_more(const struct world *w)
{
	for (size_t i = 0; i < w->request->accepted.n; i++)
		if (!strs_has(&w->run.accepted, w->request->accepted.items[i]))
			return true;
	return false;
}

/* What the request asks for and the run has not kept yet. */
static void plan_latches(const struct world *w, int step, struct plan *ret)
{
	int bits = 0;
	if (!w->request || !w->run.exists)
		return;
	if (w->request->approved_drop && !w->run.approved && !approval_flaw(w))
		bits |= LATCH_APPROVED;
	if (w->request->rollback && !w->run.rollback && !w->run.dropping)
		bits |= LATCH_ROLLBACK;
	if (bits || accepts_more(w))
		plan_add(ret, ACT_LATCH, step)->level = bits;
}

static bool blocks(const struct node_state *n, const struct obstacles *o)
{
	for (size_t i = 0; i < o->n; i++)
		if (o->items[i].node == n || o->items[i].other == n)
			return true;
	return n->n_blockers;
}

/* A person may have seen to it: the nodes whose reports block are looked at again. Looking is all: nothing is asked for. */
static void plan_blocked(const struct world *w, struct plan *ret)
{
	struct obstacles o cleanup(obstacles_release) = { 0 };
	preflight_look(w, &o);
	for (size_t i = 0; i < w->n_nodes; i++) {
		const struct node_state *n = &w->nodes[i];
		if (n->ready && n->job_asked_ms && blocks(n, &o) && w->now_ms - n->job_asked_ms >= BLOCKED_APART_MS)
			plan_job(w, n, 0, ret);
	}
}

static bool has_job(const struct plan *plan, const struct node_state *n)
{
	for (size_t i = 0; i < plan->n; i++)
		if (plan->actions[i].kind == ACT_NODE && plan->actions[i].node == n)
			return true;
	return false;
}

/* Looking is all: nothing is asked for. What has fallen back shows in the report, and the walk goes back to its step, by name. */
static void plan_look_at(const struct world *w, const struct position *p, const struct node_state *n, int64_t apart, struct plan *ret)
{
	int64_t left = n->job_asked_ms + apart - w->now_ms;
	struct action *a = left > 0 || has_job(ret, n) ? NULL : plan_job(w, n, 0, ret);
	if (left > 0)
		plan_look_again(ret, left);
	if (a)
		a->step = (int)p->step;
}

/* Others work on nodes too (kubeadm, a hand in ca.crt), and a run may wait for days. So a control plane where something has started since it
 * was looked at is looked at again, and, while the walk has nothing else to do, every node in turn, one at a time. From the drop on
 * the proof has served. */
static void plan_round(const struct world *w, const struct position *p, struct plan *ret)
{
	const struct node_state *oldest = NULL;
	if (!w->run.exists || p->phase < PHASE_TRUSTING_BOTH || p->phase >= PHASE_DROPPING_OLD)
		return;
	for (size_t i = 0; i < w->n_nodes; i++)
		if (w->nodes[i].outdated)
			plan_look_at(w, p, &w->nodes[i], BLOCKED_APART_MS, ret);
	for (size_t i = 0; i < w->n_nodes; i++)
		if (!oldest || w->nodes[i].job_asked_ms < oldest->job_asked_ms)
			oldest = &w->nodes[i];
	if (oldest && !ret->n && !any_job(w, false))
		plan_look_at(w, p, oldest, ROUND_MS, ret);
}

void walk_plan(const struct world *w, const struct position *p, struct plan *ret)
{
	plan_latches(w, (int)p->step, ret);
	if (p->step >= ARRAY_LEN(STEPS))
		return;
	if (ret->n) { /* seen in the world first */
		plan_look_again(ret, LOOK_SOON_MS);
		return;
	}
	if (p->held) {
		if (p->blocked)
			plan_blocked(w, ret);
		plan_look_again(ret, LOOK_MS);
		return;
	}
	const struct step *s = &STEPS[p->step];
	struct waits ignored cleanup(waits_release) = { 0 };
	if (s->scope != SCOPE_CLUSTER && !nodes_done(w, p->step, &ignored))
		plan_nodes(w, p->step, ret);
	else if (s->plan)
		s->plan(w, (int)p->step, ret);
	plan_round(w, p, ret);
}

/* --- Documentation -------------------------------------------------------------------------------------------------------- */

static void print_step(const struct step *s, struct buf *out)
{
	buf_addf(out, "    %-18s %s", s->name, s->title);
	for (size_t by = 0; by < STRATEGY_COUNT; by++)
		if (s->only == STRATEGY_BIT(by))
			buf_addf(out, " (%s)", strategy_name((enum strategy)by));
	buf_add_str(out, "\n");
}

void walk_print(struct buf *out)
{
	for (size_t p = 0; p < PHASE_COMPLETED; p++) {
		const struct phase_text *t = phase_text((enum phase)p);
		buf_addf(out, "%s\n    restarts: %s\n", t->name, t->restarts);
		for (size_t i = 0; i < ARRAY_LEN(STEPS); i++)
			if (STEPS[i].phase == (enum phase)p)
				print_step(&STEPS[i], out);
		buf_add_str(out, p + 1 < PHASE_COMPLETED ? "        |\n        v\n" : "        |\n        v\nCompleted\n");
	}
	buf_addf(out, "\nFrom any phase before %s, when it is asked for:\n%s\n    the same steps with old and new exchanged, from where it stands\n"
		 "        |\n        v\n%s\n", phase_text(PHASE_DROPPING_OLD)->name, PHASE_NAME_ROLLING_BACK, PHASE_NAME_ROLLED_BACK);
}
