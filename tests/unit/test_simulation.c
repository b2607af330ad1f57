/* LINK: rotation */
/* Closed-loop simulation: the walk drives a model of a cluster. Every action boundary × {crash, stale read, doubled action, half-done
 * job, a node or a control plane that joins, a controller-manager that restarts, another leader, a caBundle that is written back, a pause}, and the same
 * again with the run turned round at every action boundary; after every single effect every live pair of client and server must be able
 * to talk. Then mutants of the table, each of which must be caught.
 *
 * The model is absolute: O is what the cluster had before, whatever direction the walk takes. Only what is observed and what a job is
 * asked for is relative, with O and N exchanged on the way back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define WALK_STORAGE static
#include "../../controller/rotation/walk.c"

#define NODES_MAX 5
#define PODS 3
#define HOOKS 2      /* webhooks: the first is renewed as soon as it can be, the second late */
#define LATE 60      /* passes: the walk has come to the drop by then */
#define ANSWERED 40  /* passes: who writes a bundle back, and renews before that is answered or the run has gone back, locks itself out */
#define PASSES_MAX 400
#define O 1
#define N 2
#define K AUTHORITY_BIT(AUTHORITY_KUBERNETES)
#define P AUTHORITY_BIT(AUTHORITY_FRONT_PROXY)
#define E AUTHORITY_BIT(AUTHORITY_ETCD)

/* States that the way forward does not know: the controller-manager's own root file holds O alone; API server leaf O+Y. */
#define ROOT_OWN_O_ALONE 10
#define LEAF_O_BRIDGED 11

#define FORGET 4     /* beside N, of a pod's annotation: to know N alone */

#define PAUSE_PASSES 7 /* long enough for a request to turn round to come in the middle */

enum disturbance { CALM, CRASH, STALE, TWICE, HALF_JOB, JOIN, RESTART_MANAGER, OTHER_LEADER, WRITE_BACK, PAUSE, JOIN_PLANE, DISTURBANCES };

/* The kubeconfigs of a node that a run looks after: who has issued the certificate in it, and whom it trusts. */
enum client { CLIENT_COMPONENTS, CLIENT_ADMIN, CLIENT_KUBELET, CLIENTS };

struct sim_node {
	bool present, control_plane, reported;
	bool raw;               /* joined as a control plane, and not caught up with yet */
	int levels[FACET_COUNT]; /* of the clients' facets only whether there is such a client */
	struct { int leaf, trust; } clients[CLIENTS];
	int kubelet_knows;      /* the CAs in its list of acceptable ones, fixed when it started */
	int root_read;          /* what the running controller-manager has read as its root */
	int report_step;
	enum authority asked;   /* whose certificates the report brought */
	bool report_back;       /* the report was made on the way back */
	bool cleaned_back;
	int64_t manager_started;
};

struct sim {
	int64_t clock;
	size_t n_nodes;
	struct sim_node nodes[NODES_MAX];
	authority_set set;            /* that are rotated */
	enum strategy by;
	authority_set stored, bridged;
	bool run, kubeadm_certs, closed;
	authority_set shut;     /* whose Secrets are closed already, while the lead's is not */
	bool rollback_wanted, turns, back, dropping, paused, manual; /* turns: latched; back: once all bridges are there */
	int admin;                    /* what the administrator's kubeconfig trusts; its certificate is from N; 0: there is none */
	int64_t version;              /* of the run's Secret */
	int extension, proxies;       /* what extension-apiserver-authentication holds: authorities of clients, of front proxies */
	int aggregated;               /* what aggregated servers have read of the latter; theirs comes a moment later */
	int published, cluster_info;  /* sets of O, N */
	int pods[PODS];               /* what each has read at its start; user pods, restarted by annotation */
	int annotated[PODS];          /* O, N: restarted for that leg; FORGET: to know N alone */
	int restarts[PODS];
	struct { int bundle, leaf, patience; } hooks[HOOKS]; /* caBundle; who issued what is served; when its owner renews that */
	int volume;                   /* what mounted volumes hold: follows `published` when refreshed */
	size_t leader;
	int64_t lease_acquired;
	size_t effects;
	char broken[160];
};

static bool careless; /* a mutant: bundles let go whatever is served */

/* --- Who can talk to whom ------------------------------------------------------------------------------------------------- */

static int trust_set(int level)
{
	return level == TRUST_OLD ? O : level == TRUST_BOTH ? O | N : N;
}

static bool accepts_leaf(int trust, int server_leaf)
{
	int usable = server_leaf == LEAF_OLD ? O : server_leaf == LEAF_NEW ? N : O | N;
	return (trust & usable) != 0;
}

static int issuer(int level)
{
	return level == ISSUED_OLD ? O : N;
}

static void require(struct sim *s, bool holds, const char *what, size_t i, size_t k)
{
	if (!holds && !s->broken[0])
		snprintf(s->broken, sizeof s->broken, "%s (%zu, %zu) after %zu effects", what, i, k, s->effects);
}

static bool has(const struct sim *s, enum authority a)
{
	return authority_in(s->set, a);
}

/* etcd's members and API servers among themselves, and what aggregated servers see. */
static void check_others_of(struct sim *s, size_t server)
{
	const int *n = s->nodes[server].levels;
	require(s, accepts_leaf(s->aggregated, n[FACET_PROXY_LEAF]), "an aggregated server refuses the API server", server, 0);
	for (size_t i = 0; i < s->n_nodes; i++)
		if (s->nodes[i].control_plane && !s->nodes[i].raw)
			require(s, accepts_leaf(trust_set(n[FACET_ETCD_TRUST]), s->nodes[i].levels[FACET_ETCD_LEAF]), "etcd refuses a peer", server, i);
}

static bool dropping(const struct sim *s)
{
	for (size_t i = 0; i < s->n_nodes; i++)
		if (s->nodes[i].control_plane && s->nodes[i].levels[FACET_TRUST] == TRUST_NEW)
			return true;
	return false;
}

static void check_clients_of(struct sim *s, size_t server)
{
	const int *api = s->nodes[server].levels;
	int trust = trust_set(api[FACET_TRUST]), leaf = api[FACET_SERVER_LEAF];
	for (size_t i = 0; i < s->n_nodes; i++) {
		const int *n = s->nodes[i].levels;
		for (size_t c = 0; c < CLIENTS; c++) {
			if (c != CLIENT_KUBELET && !s->nodes[i].control_plane)
				continue;
			require(s, trust & s->nodes[i].clients[c].leaf, "API server refuses a client", server, i);
			require(s, accepts_leaf(s->nodes[i].clients[c].trust, leaf), "a client refuses API server", i, server);
		}
		if (s->nodes[i].control_plane && n[FACET_SIGNER] >= SIGNER_OWN_NEW)
			require(s, trust & N, "API server refuses what is signed now", server, i);
		int sees = trust_set(n[FACET_TRUST]), knows = s->nodes[i].kubelet_knows, with = issuer(api[FACET_KUBELET_CLIENT]);
		require(s, sees & with, "kubelet refuses API server's client certificate", i, server);
		require(s, knows & with, "kubelet does not ask for what the API server has", i, server);
	}
	for (size_t i = 0; i < PODS; i++)
		require(s, accepts_leaf(s->pods[i], leaf), "pod refuses API server", i, server);
	require(s, !s->admin || ((trust & N) && accepts_leaf(s->admin, leaf)), "the administrator's kubeconfig does not work", server, 0);
	if (!s->dropping && !dropping(s))
		require(s, (trust & O) && accepts_leaf(O, leaf), "an old user is refused before the drop", server, 0);
	require(s, accepts_leaf(s->published, leaf), "a pod that starts now refuses the API server", server, 0);
	require(s, accepts_leaf(s->cluster_info, leaf), "a node that joins now refuses the API server", server, 0);
}

static void check(struct sim *s)
{
	s->effects++;
	for (size_t i = 0; i < HOOKS; i++)
		require(s, s->hooks[i].bundle & s->hooks[i].leaf, "the API server refuses a webhook", i, 0);
	for (size_t i = 0; i < s->n_nodes; i++) {
		const int *n = s->nodes[i].levels;
		if (!s->nodes[i].control_plane || s->nodes[i].raw)
			continue;
		check_clients_of(s, i);
		check_others_of(s, i);
		require(s, s->by == STRATEGY_BRIDGE || n[FACET_SERVER_LEAF] != LEAF_BRIDGE, "a bridge, where there is none", i, 0);
		require(s, n[FACET_SIGNER] != SIGNER_KUBEADM_OLD || n[FACET_TRUST] == TRUST_OLD, "the signer's file holds two", i, 0);
		require(s, n[FACET_SIGNER] != SIGNER_KUBEADM_NEW || n[FACET_TRUST] == TRUST_NEW, "the signer's file holds two", i, 1);
		require(s, !has(s, AUTHORITY_KUBERNETES) || n[FACET_CLEAN] != CLEAN_YES || n[FACET_SIGNER] == SIGNER_KUBEADM_NEW, "own files gone while in use", i, 0);
	}
}

/* --- The model's own life ----------------------------------------------------------------------------------------------------- */

static int root_of(const struct sim_node *n)
{
	int root = n->levels[FACET_ROOT];
	if (root == ROOT_KUBEADM_OLD)
		return trust_set(n->levels[FACET_TRUST]);
	return root == ROOT_OWN_BOTH ? O | N : root == ROOT_OWN_O_ALONE ? O : N;
}

static void manager_starts(struct sim *s, struct sim_node *n)
{
	n->root_read = root_of(n);
	n->manager_started = ++s->clock;
}

/* The leading controller-manager rewrites what differs from what it has read. */
static void leader_publishes(struct sim *s)
{
	const struct sim_node *n = &s->nodes[s->leader];
	if (s->lease_acquired >= n->manager_started)
		s->published = n->root_read;
	check(s);
}

/* The authority that signs now is the one that comes with a certificate that is asked for now. */
static void owners_renew(struct sim *s)
{
	int signs = s->nodes[s->leader].levels[FACET_SIGNER] >= SIGNER_OWN_NEW ? N : O;
	for (size_t i = 0; i < HOOKS; i++) {
		if (s->hooks[i].leaf == signs)
			s->hooks[i].patience = 0;
		else if (s->hooks[i].patience++ >= (i ? LATE : 0))
			s->hooks[i].leaf = signs;
	}
	check(s);
}

static void life_goes_on(struct sim *s)
{
	s->clock++;
	owners_renew(s);
	if (s->lease_acquired < s->nodes[s->leader].manager_started && s->clock % 3 == 0)
		s->lease_acquired = ++s->clock;
	leader_publishes(s);
	int target = s->back ? O : N;
	for (size_t i = 0; i < PODS; i++) {
		bool late = s->annotated[i] == target && !(s->pods[i] & target);
		if (!late && !(s->annotated[i] == (N | FORGET) && s->pods[i] != N))
			continue;
		s->pods[i] = s->published;
		s->restarts[i]++;
	}
	s->volume = s->published;
	s->aggregated = s->proxies;
	for (size_t i = 0; i < s->n_nodes; i++)
		if (s->nodes[i].control_plane)
			s->extension |= trust_set(s->nodes[i].levels[FACET_TRUST]);
	for (size_t i = 0; i < s->n_nodes; i++)
		if (s->nodes[i].control_plane)
			s->proxies |= trust_set(s->nodes[i].levels[FACET_PROXY_TRUST]);
	check(s);
}

static void add_node(struct sim *s, bool control_plane)
{
	struct sim_node *n = &s->nodes[s->n_nodes++];
	memset(n, 0, sizeof *n);
	n->present = true;
	n->control_plane = control_plane;
	n->report_step = -1;
	for (size_t c = 0; c < CLIENTS; c++)
		n->clients[c].leaf = n->clients[c].trust = O;
	bool begun = (s->cluster_info & N) != 0, only = s->cluster_info == N;
	if (!control_plane) {
		for (size_t f = 0; f < FACET_COUNT; f++)
			n->levels[f] = FACET_ABSENT;
		n->levels[FACET_TRUST] = only ? TRUST_NEW : begun ? TRUST_BOTH : TRUST_OLD; /* kubeadm join writes what cluster-info holds */
		bool signed_new = s->nodes[0].levels[FACET_SIGNER] >= SIGNER_OWN_NEW;
		n->levels[FACET_KUBELET] = n->levels[FACET_KUBELET_BOTH] = 0;
		n->clients[CLIENT_KUBELET].leaf = signed_new ? N : O;
		n->clients[CLIENT_KUBELET].trust = s->cluster_info;
		n->levels[FACET_CLEAN] = only || !(s->set & K) ? CLEAN_YES : CLEAN_NO;
		n->cleaned_back = !begun; /* nothing of the run has been there */
	}
	n->levels[FACET_KUBELET_SERVER] = FACET_ABSENT;
	n->kubelet_knows = trust_set(n->levels[FACET_TRUST]);
	n->root_read = O;
}

static int level_seen(const struct sim *s, const struct sim_node *n, enum facet f, bool back);

/* What kubeadm makes of a pair of files: a bare leaf of who comes first in the one. */
static int leaf_of_copy(int key, int trust)
{
	return key == ISSUED_NEW && trust == TRUST_NEW ? LEAF_NEW : LEAF_OLD;
}

/* kubeadm itself is refused: without a bridge by API servers' old leaves, as it trusts who comes first in ca.crt alone; by an etcd that has
 * got the other authority. */
static bool can_join_as_plane(const struct sim *s, const int *from)
{
	bool whole = leaf_of_copy(from[FACET_CA_KEY], from[FACET_TRUST]) == LEAF_NEW;
	if (s->back || (has(s, AUTHORITY_ETCD) && from[FACET_ETCD_TRUST] == TRUST_NEW))
		return false;
	return s->by == STRATEGY_BRIDGE || from[FACET_CA_KEY] == ISSUED_OLD || whole;
}

/* Nothing of a run is there; the kubelet's certificate aside, which may be old. */
static bool is_born_clean(const struct sim *s, const struct sim_node *n)
{
	for (size_t f = 0; f < FACET_CLEAN; f++)
		if (!facet_reached(level_seen(s, n, (enum facet)f, false), facet_top((enum facet)f)))
			return false;
	return true;
}

/* As `kubeadm join --control-plane` makes it from the authorities' files of the first one. Its servers are on their own until the walk has
 * caught up with it: README says who can't talk to them. */
static void add_plane(struct sim *s)
{
	static const enum facet COPIED[] = { FACET_TRUST, FACET_CA_KEY, FACET_PROXY_TRUST, FACET_PROXY_CA_KEY, FACET_ETCD_TRUST, FACET_ETCD_CA_KEY };
	const int *from = s->nodes[0].levels;
	struct sim_node *n = &s->nodes[s->n_nodes];
	if (!can_join_as_plane(s, from))
		return;
	add_node(s, true);
	for (size_t i = 0; i < ARRAY_LEN(COPIED); i++)
		n->levels[COPIED[i]] = from[COPIED[i]];
	int signs = issuer(from[FACET_CA_KEY]);
	bool whole = leaf_of_copy(from[FACET_CA_KEY], from[FACET_TRUST]) == LEAF_NEW;
	n->levels[FACET_SERVER_LEAF] = leaf_of_copy(from[FACET_CA_KEY], from[FACET_TRUST]);
	n->levels[FACET_PROXY_LEAF] = leaf_of_copy(from[FACET_PROXY_CA_KEY], from[FACET_PROXY_TRUST]);
	n->levels[FACET_KUBELET_CLIENT] = from[FACET_CA_KEY];
	n->levels[FACET_SIGNER] = whole ? SIGNER_KUBEADM_NEW : SIGNER_KUBEADM_OLD;
	n->levels[FACET_ROOT] = whole ? ROOT_KUBEADM_NEW : ROOT_KUBEADM_OLD;
	for (size_t c = 0; c < CLIENTS; c++)
		n->clients[c].leaf = n->clients[c].trust = signs;
	n->clients[CLIENT_KUBELET].leaf = s->nodes[s->leader].levels[FACET_SIGNER] >= SIGNER_OWN_NEW ? N : O;
	n->clients[CLIENT_KUBELET].trust = s->cluster_info;
	n->kubelet_knows = n->root_read = trust_set(from[FACET_TRUST]);
	n->levels[FACET_CLEAN] = is_born_clean(s, n) ? CLEAN_YES : CLEAN_NO;
	n->raw = true;
}

struct shape {
	authority_set set;
	size_t control_planes, workers;
	enum strategy by;
};

static void sim_init(struct sim *s, authority_set set, size_t control_planes, size_t workers)
{
	memset(s, 0, sizeof *s);
	s->set = set;
	s->proxies = s->aggregated = O;
	s->published = s->cluster_info = s->volume = O;
	s->kubeadm_certs = true;
	s->extension = O;
	for (size_t i = 0; i < control_planes + workers; i++)
		add_node(s, i < control_planes);
	for (size_t i = 0; i < PODS; i++)
		s->pods[i] = O;
	for (size_t i = 0; i < HOOKS; i++)
		s->hooks[i].bundle = s->hooks[i].leaf = O;
	s->lease_acquired = s->clock = 1;
}

/* --- Observing ----------------------------------------------------------------------------------------------------------------- */

static enum seen seen(bool yes)
{
	return yes ? SEEN_YES : SEEN_NO;
}

static int exchanged(int set)
{
	return ((set & O) ? N : 0) | ((set & N) ? O : 0);
}

static int leaf_on_the_way_back(int level, bool only_old)
{
	return level == LEAF_O_BRIDGED ? LEAF_BRIDGE : level == LEAF_OLD && only_old ? LEAF_NEW : LEAF_OLD;
}

/* Of a kubeconfig, from either side: target is the one that it must come to. */
static int client_level(const struct sim_node *n, enum client c, bool both, int target)
{
	bool trusts = both ? (n->clients[c].trust & target) != 0 : n->clients[c].trust == target;
	return n->clients[c].leaf == target && trusts ? ISSUED_NEW : ISSUED_OLD;
}

/* CLIENTS: it is about none. */
static enum client client_of(enum facet f, bool *ret_both)
{
	*ret_both = f == FACET_COMPONENTS_BOTH || f == FACET_ADMIN_BOTH || f == FACET_KUBELET_BOTH;
	return f == FACET_COMPONENTS || f == FACET_COMPONENTS_BOTH ? CLIENT_COMPONENTS
	       : f == FACET_ADMIN || f == FACET_ADMIN_BOTH	   ? CLIENT_ADMIN
	       : f == FACET_KUBELET || f == FACET_KUBELET_BOTH	   ? CLIENT_KUBELET
								   : CLIENTS;
}

/* A level as a node program sees it for which N is old and O is new. */
static int level_on_the_way_back(const struct sim_node *n, enum facet f, enum strategy by)
{
	int level = n->levels[f];
	bool only_old = n->levels[FACET_TRUST] == TRUST_OLD;
	if (level == FACET_ABSENT || level == FACET_UNKNOWN)
		return level;
	switch (f) {
	case FACET_TRUST: return TRUST_NEW - level;
	case FACET_PROXY_TRUST: return TRUST_NEW - level;
	case FACET_ETCD_TRUST: return TRUST_NEW - level;
	case FACET_SIGNER: return level == SIGNER_OWN_OLD ? SIGNER_OWN_NEW : level == SIGNER_OWN_NEW ? SIGNER_OWN_OLD
				  : level == SIGNER_KUBEADM_OLD && only_old && n->levels[FACET_CA_KEY] == ISSUED_OLD ? SIGNER_KUBEADM_NEW
														      : SIGNER_KUBEADM_OLD;
	case FACET_ROOT: return level == ROOT_OWN_BOTH ? ROOT_OWN_BOTH : level == ROOT_OWN_O_ALONE ? ROOT_OWN_NEW
				: level == ROOT_KUBEADM_OLD && only_old ? ROOT_KUBEADM_NEW : ROOT_KUBEADM_OLD;
	case FACET_SERVER_LEAF: return leaf_on_the_way_back(level, only_old || by == STRATEGY_BUNDLE);
	case FACET_PROXY_LEAF: return leaf_on_the_way_back(level, n->levels[FACET_PROXY_TRUST] == TRUST_OLD);
	case FACET_ETCD_LEAF: return leaf_on_the_way_back(level, n->levels[FACET_ETCD_TRUST] == TRUST_OLD);
	case FACET_CLEAN: return n->cleaned_back ? CLEAN_YES : CLEAN_NO;
	case FACET_KUBELET_SERVER: return level;
	case FACET_PROXY_CA_KEY:
	case FACET_ETCD_CA_KEY:
	case FACET_CA_KEY:
	case FACET_COMPONENTS:
	case FACET_COMPONENTS_BOTH:
	case FACET_ADMIN:
	case FACET_ADMIN_BOTH:
	case FACET_KUBELET:
	case FACET_KUBELET_BOTH:
	case FACET_KUBELET_CLIENT:
	case FACET_COUNT: break;
	}
	return ISSUED_NEW - level;
}

static int level_seen(const struct sim *s, const struct sim_node *n, enum facet f, bool back)
{
	enum authority a = facet_authority(f);
	bool both = false;
	enum client c = client_of(f, &both);
	if (a != AUTHORITY_COUNT && !has(s, a))
		return FACET_ABSENT;
	if (c != CLIENTS && n->levels[f] != FACET_ABSENT && n->levels[f] != FACET_UNKNOWN)
		return client_level(n, c, both, back ? O : N);
	return back ? level_on_the_way_back(n, f, s->by) : n->levels[f];
}

/* What the node becomes when a job brings the facet to that level. */
static void reach(struct sim_node *n, enum facet f, int level, bool back)
{
	static const int SIGNERS[] = { SIGNER_KUBEADM_NEW, SIGNER_OWN_NEW, SIGNER_OWN_OLD, SIGNER_KUBEADM_OLD };
	static const int ROOTS[] = { ROOT_KUBEADM_NEW, ROOT_OWN_BOTH, ROOT_OWN_O_ALONE, ROOT_KUBEADM_OLD };
	bool both = false;
	enum client c = client_of(f, &both);
	if (c != CLIENTS) {
		n->clients[c].leaf = back ? O : N;
		n->clients[c].trust = both ? O | N : n->clients[c].leaf;
	} else if (!back && f == FACET_SIGNER && n->levels[FACET_CA_KEY] == ISSUED_NEW && level == SIGNER_OWN_OLD)
		n->levels[f] = SIGNER_OWN_NEW; /* O's key has never been there */
	else if (!back)
		n->levels[f] = level;
	else if (f == FACET_SIGNER)
		n->levels[f] = SIGNERS[level];
	else if (f == FACET_ROOT)
		n->levels[f] = ROOTS[level];
	else if (f == FACET_TRUST || f == FACET_PROXY_TRUST || f == FACET_ETCD_TRUST)
		n->levels[f] = TRUST_NEW - level;
	else if (f == FACET_SERVER_LEAF || f == FACET_PROXY_LEAF || f == FACET_ETCD_LEAF)
		n->levels[f] = level == LEAF_BRIDGE ? LEAF_O_BRIDGED : LEAF_OLD;
	else if (f == FACET_CLEAN)
		n->cleaned_back = true;
	else
		n->levels[f] = ISSUED_NEW - level;
}

static void observe_node(const struct sim *s, size_t i, struct world *w)
{
	const struct sim_node *n = &s->nodes[i];
	struct node_state *out = world_add_node(w);
	int trust = trust_set(n->levels[FACET_TRUST]);
	if (s->back)
		trust = exchanged(trust);
	out->name = str_printf("node-%zu", i);
	out->hostname = str_dup(out->name);
	out->control_plane = n->control_plane;
	out->ready = true;
	out->reported = n->reported && n->report_back == s->back;
	out->report_step = n->report_step;
	out->report_at_ms = s->clock;
	out->job_asked_ms = w->now_ms;
	for (size_t f = 0; f < FACET_COUNT; f++)
		out->levels[f] = level_seen(s, n, (enum facet)f, s->back);
	out->controller_manager_started_ms = n->manager_started;
	if (w->run.has_new_probe)
		out->api_accepts_new = out->kubelet_accepts_new = seen(trust & N);
	if (w->run.has_old_probe)
		out->api_accepts_old = out->kubelet_accepts_old = seen(trust & O);
	/* Its memory of who must forget has gone with its files. */
	out->pods_unseen = s->by == STRATEGY_BUNDLE && s->dropping && n->levels[FACET_CLEAN] == CLEAN_YES;
	out->asked = n->asked;
	if (n->control_plane && n->reported)
		out->ca_pem = str_dup("O");
	if (n->control_plane && has(s, n->asked) && authority_in(s->stored, n->asked)) {
		out->bridge_pem = str_dup("X");
		out->probe_pem = str_dup("P");
	}
	if (s->volume != (s->back ? O : N))
		strs_add(&out->mixed, "volume");
}

static void observe_stragglers(const struct sim *s, struct world *w)
{
	for (size_t i = 0; i < PODS && has(s, AUTHORITY_KUBERNETES); i++) {
		bool forget = world_pods_forget(w);
		if (forget ? s->pods[i] == N : s->pods[i] & (s->back ? O : N))
			continue;
		struct straggler *g = world_add_straggler(w);
		g->kind = str_dup("Deployment");
		g->namespace = str_dup("a");
		g->name = str_printf("%zu", i);
		g->pods = 1;
		g->restartable = true;
		g->system = i == 0;
		g->restarted = s->annotated[i] == (forget ? N | FORGET : s->back ? O : N);
	}
}

static void tally_of(struct tally *t, int published)
{
	t->known = true;
	t->total = 1;
	t->with_new = (published & N) != 0;
	t->only_new = published == N;
}

static void observe_bundle(struct ca_bundles *b, int bundle, bool presents_new)
{
	b->tally.total++;
	b->tally.with_new += (bundle & N) != 0;
	b->tally.only_new += bundle == N;
	b->wait_both += bundle == O;
	b->to_both += bundle == O;
	b->wait_new += bundle != N;
	b->to_new += bundle == (O | N) && presents_new;
	b->keepers_total += bundle == (O | N) && !presents_new;
}

static void observe_bundles(const struct sim *s, struct world *w)
{
	w->ca_bundles.tally.known = true;
	for (size_t i = 0; i < HOOKS; i++)
		observe_bundle(&w->ca_bundles, s->back ? exchanged(s->hooks[i].bundle) : s->hooks[i].bundle,
			       s->hooks[i].leaf == (s->back ? O : N));
}

static void observe(const struct sim *s, struct world *w, struct request *r)
{
	int published = s->back ? exchanged(s->published) : s->published, info = s->back ? exchanged(s->cluster_info) : s->cluster_info;
	*r = (struct request){ .trigger = (char *)"t", .max_workers = 1, .restart_workloads = true, .pods_per_second = 10,
			       .rollback = s->rollback_wanted, .paused = s->paused, .approval_manual = s->manual };
	memset(w, 0, sizeof *w);
	w->request = r;
	w->now_ms = s->clock * 100000;
	w->run.exists = s->run && !s->closed;
	w->run.authorities = w->pending = s->set;
	r->strategy = w->run.strategy = s->by;
	for (size_t a = 0; a < AUTHORITY_COUNT; a++) {
		w->run.of[a].secret = authority_in(s->stored & ~s->shut, (enum authority)a) ? str_dup("S") : NULL;
		w->run.of[a].bridge_pem = authority_in(s->bridged & ~s->shut, (enum authority)a) ? str_dup("X") : NULL;
		w->run.of[a].has_key = true;
	}
	w->run.has_old_probe = w->run.has_new_probe = authority_in(s->bridged, AUTHORITY_KUBERNETES);
	if (s->by == STRATEGY_BUNDLE) /* it has none from O */
		*(s->back ? &w->run.has_old_probe : &w->run.has_new_probe) = authority_in(s->stored, AUTHORITY_KUBERNETES);
	w->run.back = s->back;
	w->run.rollback = s->turns;
	w->run.dropping = s->dropping;
	w->run.finishing = s->shut;
	w->nodes_known = w->pods_known = w->csrs_known = true;
	for (size_t i = 0; i < s->n_nodes; i++)
		observe_node(s, i, w);
	tally_of(&w->root_configmaps, published);
	tally_of(&w->token_secrets, published);
	observe_bundles(s, w);
	w->cluster_info = info == O ? CLUSTER_INFO_OLD : info == N ? CLUSTER_INFO_NEW : CLUSTER_INFO_BOTH;
	w->extension_auth_has_old = seen(s->extension & (s->back ? N : O));
	w->proxy_auth_has_old = seen(s->proxies & (s->back ? N : O));
	w->proxy_auth_has_new = seen(s->proxies & (s->back ? O : N));
	w->api_services_known = true;
	w->api_services = 1;
	if (!(s->proxies & (s->back ? N : O)) && s->aggregated & (s->back ? N : O))
		strs_add(&w->api_services_old, "v1.example.org");
	w->kubeadm_config = SEEN_YES;
	w->kubeadm_certs = seen(s->kubeadm_certs);
	w->admin_kubeconfig = seen(s->admin != 0);
	w->admin_has_old = seen(s->admin & O);
	w->controller_manager = (struct lease_state){ .known = true, .exists = true, .holder = str_printf("node-%zu_x", s->leader),
						      .acquired_ms = s->lease_acquired };
	observe_stragglers(s, w);
}

/* --- Acting -------------------------------------------------------------------------------------------------------------------- */

/* The node program's own order. */
static const enum facet ORDERS[STRATEGY_COUNT][FACET_COUNT] = {
	[STRATEGY_BRIDGE] = { FACET_TRUST, FACET_SIGNER, FACET_ROOT, FACET_CA_KEY, FACET_SERVER_LEAF, FACET_KUBELET_SERVER, FACET_COMPONENTS,
			      FACET_ADMIN, FACET_KUBELET, FACET_KUBELET_CLIENT, FACET_PROXY_TRUST, FACET_PROXY_CA_KEY, FACET_PROXY_LEAF,
			      FACET_ETCD_CA_KEY, FACET_ETCD_TRUST, FACET_ETCD_LEAF, FACET_COMPONENTS_BOTH, FACET_ADMIN_BOTH,
			      FACET_KUBELET_BOTH, FACET_CLEAN },
	[STRATEGY_BUNDLE] = { FACET_CA_KEY, FACET_SIGNER, FACET_ADMIN_BOTH, FACET_COMPONENTS_BOTH, FACET_KUBELET_BOTH, FACET_KUBELET_CLIENT,
			      FACET_SERVER_LEAF, FACET_KUBELET_SERVER, FACET_TRUST, FACET_ADMIN, FACET_COMPONENTS, FACET_ROOT, FACET_KUBELET,
			      FACET_PROXY_TRUST, FACET_PROXY_CA_KEY, FACET_PROXY_LEAF, FACET_ETCD_CA_KEY, FACET_ETCD_TRUST,
			      FACET_ETCD_LEAF, FACET_CLEAN },
};

/* `most` facets at most (a job that dies in the middle). */
static void run_job(struct sim *s, size_t i, const struct action *a, bool back, size_t most)
{
	struct sim_node *n = &s->nodes[i];
	for (size_t k = 0; k < FACET_COUNT && most; k++) {
		enum facet f = ORDERS[s->by][k];
		if (a->levels[f] == FACET_UNTOUCHED_LEVEL || facet_reached(level_seen(s, n, f, back), a->levels[f]))
			continue;
		reach(n, f, a->levels[f], back);
		most--;
		if (f == FACET_ROOT || f == FACET_COMPONENTS || f == FACET_COMPONENTS_BOTH)
			manager_starts(s, n);
		if (f == FACET_KUBELET || f == FACET_KUBELET_BOTH)
			n->kubelet_knows = trust_set(n->levels[FACET_TRUST]);
		check(s);
	}
	if (most) {
		n->raw = n->raw && (size_t)a->step < walk_find("kubelet-client");
		n->reported = true;
		n->report_back = back;
		n->report_step = a->step;
		n->asked = a->authority;
	}
}

static size_t index_of(const struct node_state *n)
{
	return (size_t)strtol(n->name + strlen("node-"), NULL, 10);
}

/* With the Secret's version as the precondition. */
static void latch(struct sim *s, const struct sim *seen_state, int bits)
{
	if (seen_state->version != s->version)
		return;
	s->version++;
	s->dropping = s->dropping || (bits & LATCH_DROPPING);
	s->turns = s->turns || (bits & LATCH_ROLLBACK);
	require(s, !s->turns || !s->dropping, "a run that drops goes back", 0, 0);
}

/* With each object's version as the precondition, and N alone only where that is what is served. */
static void move_bundles(struct sim *s, const struct sim *seen_state, int level)
{
	int target = seen_state->back ? O : N;
	for (size_t i = 0; i < HOOKS; i++) {
		int bundle = seen_state->hooks[i].bundle;
		if (s->hooks[i].bundle != bundle)
			continue;
		if (level == TRUST_BOTH && !(bundle & target))
			s->hooks[i].bundle = O | N;
		else if (level == TRUST_NEW && bundle == (O | N) && (careless || seen_state->hooks[i].leaf == target))
			s->hooks[i].bundle = target;
		check(s);
	}
}

/* The others' Secrets, node Pods, and the lead's Secret last: cut short before that. */
static void finish(struct sim *s, bool whole)
{
	for (size_t i = 0; i < s->n_nodes; i++)
		s->nodes[i].reported = false;
	s->shut = s->set & ~AUTHORITY_BIT(authority_lead(s->set));
	s->closed = whole || !s->shut;
}

static void perform(struct sim *s, const struct sim *seen_state, const struct action *a, size_t most)
{
	bool back = seen_state->back;
	int set = trust_set(a->level);
	require(s, !seen_state->paused || a->kind == ACT_LATCH, "a run that is paused begins something", a->kind, 0);
	switch (a->kind) {
	case ACT_CREATE_AUTHORITY:
		s->stored |= AUTHORITY_BIT(a->authority);
		require(s, s->run || a->authority == authority_lead(s->set), "another than the lead comes first", a->authority, 0);
		s->run = true;
		break;
	case ACT_STORE_BRIDGE: s->bridged |= AUTHORITY_BIT(a->authority); break;
	case ACT_LATCH: latch(s, seen_state, a->level); break;
	case ACT_DELETE_KUBEADM_CERTS: s->kubeadm_certs = false; break;
	case ACT_NODE: run_job(s, index_of(a->node), a, back, most); break;
	case ACT_RELEASE_LEASE: s->lease_acquired = ++s->clock; break;
	case ACT_PUBLISH: s->published = back ? exchanged(set) : set; break;
	case ACT_CA_BUNDLES: move_bundles(s, seen_state, a->level); break;
	case ACT_CLUSTER_INFO: s->cluster_info = back ? exchanged(set) : set; break;
	case ACT_ADMIN_KUBECONFIG: s->admin = back ? 0 : set; break;
	case ACT_RESTART_WORKLOAD:
		s->annotated[strtol(a->name, NULL, 10)] = back ? O : s->by == STRATEGY_BUNDLE && seen_state->dropping ? N | FORGET : N;
		break;
	case ACT_REFRESH_PODS: break;
	case ACT_PRUNE_EXTENSION_AUTH: *(a->authority == AUTHORITY_KUBERNETES ? &s->extension : &s->proxies) &= back ? O : N; break;
	case ACT_FINISH: finish(s, most > FACET_COUNT); break;
	case ACT_DISMISS:
	case ACT_COUNT: require(s, false, "no action of the walk", 0, 0); break;
	}
	s->back = s->turns && (s->by == STRATEGY_BUNDLE ? s->stored : s->bridged) == s->set;
	check(s);
}

/* --- Runs ------------------------------------------------------------------------------------------------------------------------ */

struct fault {
	enum disturbance kind;
	size_t at;      /* the how-manieth action */
	size_t rollback_at; /* after so many actions the run is asked back; 0: never */
};

/* What an owner's manifest says of a server whose certificate is still the old one. */
static void write_back(struct sim *s)
{
	for (size_t i = 0; i < HOOKS; i++) {
		if (s->hooks[i].leaf != O)
			continue;
		s->hooks[i].bundle = O;
		if (s->hooks[i].patience > -ANSWERED)
			s->hooks[i].patience -= ANSWERED;
	}
}

static void disturb(struct sim *s, enum disturbance kind)
{
	if (kind == WRITE_BACK)
		write_back(s);

	if (kind == JOIN && s->n_nodes < NODES_MAX)
		add_node(s, false);
	if (kind == JOIN_PLANE && s->n_nodes < NODES_MAX)
		add_plane(s);
	if (kind == RESTART_MANAGER)
		manager_starts(s, &s->nodes[0]);
	if (kind == OTHER_LEADER && s->nodes[1].control_plane)
		s->leader = 1;
	check(s);
}

struct outcome {
	bool converged, back;
	size_t actions;
	char broken[160];
};

static bool at_top(const struct sim *s)
{
	int target = s->back ? O : N;
	for (size_t i = 0; i < s->n_nodes; i++)
		for (size_t f = 0; f < FACET_COUNT; f++)
			if (!facet_reached(level_seen(s, &s->nodes[i], (enum facet)f, s->back), facet_top((enum facet)f)))
				return false;
	if (has(s, AUTHORITY_FRONT_PROXY) && (s->proxies != target || s->aggregated != target))
		return false;
	if (!has(s, AUTHORITY_KUBERNETES))
		return s->closed;
	for (size_t i = 0; i < PODS; i++)
		if (!(s->pods[i] & target) || (s->pods[i] != target && !s->back))
			return false;
	for (size_t i = 0; i < HOOKS; i++)
		if (s->hooks[i].bundle != target || s->hooks[i].leaf != target)
			return false;
	return s->closed && s->published == target && s->cluster_info == target && s->extension == target && s->admin == (s->back ? 0 : N);
}

static size_t step_once(struct sim *s, const struct sim *seen_state, const struct fault *f, size_t done)
{
	struct world w;
	struct request r;
	struct position p;
	struct plan plan = { 0 };
	size_t n = 0;
	observe(seen_state, &w, &r);
	walk_locate(&w, &p);
	walk_plan(&w, &p, &plan);
	for (size_t i = 0; i < plan.n; i++) {
		bool hit = done + n == f->at;
		n++;
		perform(s, seen_state, &plan.actions[i], hit && f->kind == HALF_JOB ? 1 : FACET_COUNT + 1);
		if (hit && f->kind == TWICE)
			perform(s, seen_state, &plan.actions[i], FACET_COUNT + 1);
		if (hit)
			disturb(s, f->kind);
		if (hit && f->kind == CRASH)
			break;
	}
	plan_release(&plan);
	position_release(&p);
	world_release(&w);
	return n;
}

static struct outcome simulate(const struct shape *shape, struct fault f)
{
	struct sim s, before;
	struct outcome out = { 0 };
	size_t paused = 0;
	sim_init(&s, shape->set, shape->control_planes, shape->workers);
	s.by = shape->by;
	before = s;
	for (size_t pass = 0; pass < PASSES_MAX && !s.closed && !s.broken[0]; pass++) {
		struct sim now = s;
		bool stale = f.kind == STALE && out.actions <= f.at + 2 && out.actions >= f.at;
		paused += f.kind == PAUSE && out.actions >= f.at;
		now.paused = s.paused = paused && paused <= PAUSE_PASSES;
		now.rollback_wanted = s.rollback_wanted = f.rollback_at && out.actions >= f.rollback_at;
		out.actions += step_once(&s, stale ? &before : &now, &f, out.actions);
		before = now;
		life_goes_on(&s);
	}
	out.converged = at_top(&s);
	out.back = s.back;
	memcpy(out.broken, s.broken, sizeof out.broken);
	return out;
}

/* Turned round after every action, undisturbed and with each disturbance soon after. */
static size_t failures_of_rollbacks(const struct shape *shape, size_t *ret_runs, size_t *ret_back, char *first, size_t size)
{
	size_t bad = 0;
	struct outcome calm = simulate(shape, (struct fault){ CALM, 0, 0 });
	for (size_t turn = 1; turn <= calm.actions; turn++)
		for (int kind = CALM; kind < JOIN_PLANE; kind++)
			for (size_t after = 0; after < (kind == CALM ? 1 : 25); after += 4) {
				struct fault f = { (enum disturbance)kind, turn + after, turn };
				struct outcome o = simulate(shape, f);
				(*ret_runs)++;
				*ret_back += o.back;
				if (o.converged && !o.broken[0])
					continue;
				if (!bad++)
					snprintf(first, size, "back at %zu, kind %d at %zu: %s", turn, kind, turn + after,
						 o.broken[0] ? o.broken : "did not converge");
			}
	return bad;
}

/* Until there are as many as that. */
static size_t failures_of(const struct shape *shape, size_t enough, size_t *ret_runs, char *first, size_t size)
{
	size_t bad = 0;
	struct outcome calm = simulate(shape, (struct fault){ CALM, 0, 0 });
	for (int kind = CALM; kind < DISTURBANCES; kind++)
		for (size_t at = 0; at <= calm.actions && at < 120 && bad < enough; at++) {
			struct outcome o = simulate(shape, (struct fault){ (enum disturbance)kind, at, 0 });
			(*ret_runs)++;
			if (o.converged && !o.broken[0])
				continue;
			if (!bad++)
				snprintf(first, size, "kind %d at %zu: %s", kind, at, o.broken[0] ? o.broken : "did not converge");
		}
	return bad;
}

static void test_every_run_is_safe_and_converges(void **state)
{
	(void)state;
	static const struct shape SHAPES[] = { { K, 1, 0, STRATEGY_BRIDGE }, { K, 1, 1, STRATEGY_BRIDGE }, { K, 1, 2, STRATEGY_BRIDGE }, { K, 2, 1, STRATEGY_BRIDGE }, { K, 3, 1, STRATEGY_BRIDGE }, { P, 1, 1, STRATEGY_BRIDGE }, { E, 3, 1, STRATEGY_BRIDGE },
					       { P | E, 2, 1, STRATEGY_BRIDGE }, { K | P | E, 1, 1, STRATEGY_BRIDGE }, { K | P | E, 3, 1, STRATEGY_BRIDGE },
					       { K, 1, 0, STRATEGY_BUNDLE }, { K, 1, 1, STRATEGY_BUNDLE }, { K, 1, 2, STRATEGY_BUNDLE },
					       { K, 2, 1, STRATEGY_BUNDLE }, { K, 3, 1, STRATEGY_BUNDLE } };
	size_t runs = 0;
	for (size_t i = 0; i < ARRAY_LEN(SHAPES); i++) {
		char first[256] = "";
		size_t bad = failures_of(&SHAPES[i], SIZE_MAX, &runs, first, sizeof first);
		if (bad)
			print_error("%s, set %u, %zu+%zu nodes: %zu runs failed, the first: %s\n", strategy_name(SHAPES[i].by), SHAPES[i].set, SHAPES[i].control_planes, SHAPES[i].workers, bad, first);
		assert_int_equal(bad, 0);
	}
	print_message("simulation: %zu runs, all safe, all at the same end\n", runs);
	assert_true(runs > 1000);
}

static void test_every_rollback_is_safe_and_converges(void **state)
{
	(void)state;
	static const struct shape SHAPES[] = { { K, 1, 0, STRATEGY_BRIDGE }, { K, 1, 1, STRATEGY_BRIDGE }, { K, 2, 1, STRATEGY_BRIDGE }, { K, 3, 1, STRATEGY_BRIDGE }, { P, 1, 1, STRATEGY_BRIDGE }, { E, 2, 1, STRATEGY_BRIDGE }, { K | P | E, 2, 1, STRATEGY_BRIDGE },
					       { K, 1, 0, STRATEGY_BUNDLE }, { K, 1, 1, STRATEGY_BUNDLE }, { K, 2, 1, STRATEGY_BUNDLE },
					       { K, 3, 1, STRATEGY_BUNDLE } };
	size_t runs = 0, back = 0;
	for (size_t i = 0; i < ARRAY_LEN(SHAPES); i++) {
		char first[256] = "";
		size_t bad = failures_of_rollbacks(&SHAPES[i], &runs, &back, first, sizeof first);
		if (bad)
			print_error("%s, set %u, %zu+%zu nodes: %zu rollbacks failed, the first: %s\n", strategy_name(SHAPES[i].by), SHAPES[i].set, SHAPES[i].control_planes, SHAPES[i].workers, bad, first);
		assert_int_equal(bad, 0);
	}
	print_message("simulation: %zu runs asked back, %zu went back, the others had begun to drop\n", runs, back);
	assert_true(back > runs / 2 && back < runs);
}

/* --- Mutants ---------------------------------------------------------------------------------------------------------------------- */

static bool always(const struct world *w, struct waits *ret)
{
	(void)w;
	(void)ret;
	return true;
}

static bool trusts_both_exactly(const struct world *w, struct waits *ret)
{
	for (size_t i = 0; i < w->n_nodes; i++)
		if (w->nodes[i].levels[FACET_TRUST] != TRUST_BOTH)
			return waits_for(ret, "Mutant", "both exactly");
	return servers_accept_new(w, ret);
}

static bool waits_for_no_server(const struct world *w, struct waits *ret)
{
	return !w->ca_bundles.wait_new || waits_for(ret, "Mutant", "no server");
}

/* It moves what it has not seen. */
static void plan_bundles_blindly(const struct world *w, int step, struct plan *ret)
{
	plan_bundles(w, TRUST_NEW, 1, step, ret);
}

static void move_blindly(void)
{
	STEPS[walk_find("ca-bundles-served")].holds = always;
	STEPS[walk_find("ca-bundles-new")].holds = waits_for_no_server;
	STEPS[walk_find("ca-bundles-new")].plan = plan_bundles_blindly;
	careless = true;
}

static void move(const char *name, const char *before)
{
	size_t from = walk_find(name), to = walk_find(before);
	struct step s = STEPS[from];
	if (from > to)
		memmove(&STEPS[to + 1], &STEPS[to], (from - to) * sizeof s);
	else
		memmove(&STEPS[from], &STEPS[from + 1], (--to - from) * sizeof s);
	STEPS[to] = s;
}

static void forget(const char *name)
{
	struct step *s = &STEPS[walk_find(name)];
	s->scope = SCOPE_CLUSTER;
	s->n_facets = 0;
	s->holds = always;
}

static void mutate(size_t i)
{
	switch (i) {
	case 0: move("trust-both", "own-signer"); break;
	case 1: move("kubelets", "server-leaves"); break;
	case 2: move("kubelet-client", "kubelets"); break;
	case 3: move("signer", "trust-both"); break;
	case 4: move("components", "server-leaves"); break;
	case 5: move("publish-new", "server-leaves"); break;
	case 6: move("distrust", "kubelets"); break;
	case 7: move("bare-leaves", "workloads"); break;
	case 8: move("kubeadm-flags", "distrust"); break;
	case 9: move("clean", "kubeadm-flags"); break;
	case 10: STEPS[walk_find("workloads")].holds = always; break;
	case 11: STEPS[walk_find("trust-both")].holds = trusts_both_exactly; break;
	case 12: forget("server-leaves"); break;
	case 13: forget("cluster-info"); break;
	case 14: forget("extension-auth"); break;
	case 15: forget("kubelets"); break;
	case 16: forget("proxy-trust"); break;
	case 17: forget("proxy-auth"); break;
	case 18: move("etcd-trust", "etcd-leaves"); break;
	case 19: move("etcd-bare-leaves", "etcd-trust"); break;
	case 20: forget("etcd-leaves"); break;
	case 21: forget("ca-bundles-both"); break;
	case 22: move("ca-bundles-both", "kubelets"); break;
	case 23: move_blindly(); break;
	case 24: forget("ca-bundles-new"); break;
	case 25: forget("admin-trust"); break;
	case 26: forget("admin-kubeconfig"); break;
	case 27: move("admin-kubeconfig", "trust-both"); break;
	case 28: STEPS[walk_find("admin-trust")].plan = plan_admin; break;
	/* of Bundle's steps */
	case 29: move("servers", "components-both"); break;
	case 30: move("servers", "workloads"); break;
	case 31: STEPS[walk_find("workloads")].holds = always; break;
	case 32: STEPS[walk_find("server-leaves")].only = 0; break;
	case 33: STEPS[walk_find("components-both")].facets[0].facet = FACET_COMPONENTS; break;
	case 34: STEPS[walk_find("kubelets-both")].facets[0].facet = FACET_KUBELET; break;
	case 35: move("publish-last", "servers"); break;
	case 36: forget("kubelets-new"); break;
	case 37: forget("workloads-new"); break;
	case 38: move("distrust", "kubelets-both"); break;
	case 39: move("first-signer", "own-signer"); break;
	case 40: STEPS[walk_find("servers")].only = STEPS[walk_find("bare-leaves")].only = STEPS[walk_find("server-leaves")].only; break;
	default: break;
	}
}
#define MUTANTS 41
#define BUNDLE_MUTANTS 29 /* from there on */

static void test_mutants_are_caught(void **state)
{
	(void)state;
	struct step kept[ARRAY_LEN(STEPS)];
	memcpy(kept, STEPS, sizeof kept);
	for (size_t i = 0; i < MUTANTS; i++) {
		char first[256] = "";
		size_t runs = 0;
		mutate(i);
		assert_memory_not_equal(STEPS, kept, sizeof kept);
		const struct shape bridge = { K | P | E, 2, 2, STRATEGY_BRIDGE }, bundle = { K, 2, 2, STRATEGY_BUNDLE };
		size_t bad = failures_of(i < BUNDLE_MUTANTS ? &bridge : &bundle, 1, &runs, first, sizeof first);
		memcpy(STEPS, kept, sizeof kept);
		careless = false;
		print_message("mutant %zu: caught by run %zu; %s\n", i, runs, first);
		assert_true(bad > 0);
	}
}

/* Left alone, pods restart as often as the strategy asks for, and no more. */
static void restarts_of(enum strategy by, size_t rollback_at, int ret_restarts[static PODS])
{
	struct sim s;
	const struct fault none = { CALM, 0, 0 };
	size_t actions = 0;
	sim_init(&s, K, 2, 1);
	s.by = by;
	for (size_t pass = 0; pass < PASSES_MAX && !s.closed; pass++) {
		struct sim now = s;
		now.rollback_wanted = s.rollback_wanted = rollback_at && actions >= rollback_at;
		actions += step_once(&s, &now, &none, actions);
		life_goes_on(&s);
	}
	assert_true(at_top(&s));
	memcpy(ret_restarts, s.restarts, sizeof s.restarts);
}

static void test_pods_restart_once_by_bridge_and_twice_by_bundle(void **state)
{
	(void)state;
	int bridge[PODS], bundle[PODS], undone[PODS];
	restarts_of(STRATEGY_BRIDGE, 0, bridge);
	restarts_of(STRATEGY_BUNDLE, 0, bundle);
	restarts_of(STRATEGY_BUNDLE, 1, undone);
	for (size_t i = 0; i < PODS; i++) {
		assert_int_equal(bridge[i], 1);
		assert_int_equal(bundle[i], 2);
		assert_int_equal(undone[i], 0);
	}
}

/* --- Single laws ------------------------------------------------------------------------------------------------------------------ */

static void test_unknown_is_never_proof(void **state)
{
	(void)state;
	struct sim s;
	struct world w;
	struct request r;
	struct position p;
	sim_init(&s, K, 1, 1);
	s.run = true;
	s.stored = s.bridged = K;
	for (size_t i = 0; i < s.n_nodes; i++) {
		s.nodes[i].reported = true;
		for (size_t f = 0; f < FACET_COUNT; f++)
			s.nodes[i].levels[f] = FACET_UNKNOWN;
	}
	s.kubeadm_certs = false;
	observe(&s, &w, &r);
	walk_locate(&w, &p);
	assert_string_equal(walk_step(p.step)->name, "own-signer");
	position_release(&p);
	w.nodes_known = false;
	walk_locate(&w, &p);
	assert_string_equal(walk_step(p.step)->name, "visit");
	position_release(&p);
	world_release(&w);
}

static void add_keeper(struct world *w, const char *object)
{
	*world_add_keeper(w) = (struct bundle_keeper){ str_dup(object), str_dup("renew its certificate") };
}

static void test_a_bundle_that_keeps_the_old_authority_holds_the_drop(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { 0 };
	struct waits waits cleanup(waits_release) = { 0 };
	assert_false(ca_bundles_both(&w, &waits) || ca_bundles_served(&w, &waits) || ca_bundles_new(&w, &waits)); /* unknown */
	w.ca_bundles.tally.known = true;
	assert_true(ca_bundles_both(&w, &waits) && ca_bundles_served(&w, &waits) && ca_bundles_new(&w, &waits));
	w.ca_bundles.unlooked = w.ca_bundles.wait_new = w.ca_bundles.tally.total = 1;
	waits_release(&waits);
	assert_true(ca_bundles_both(&w, &waits));
	assert_false(ca_bundles_served(&w, &waits) || ca_bundles_new(&w, &waits));
	assert_false(waits.stalled);
	w.ca_bundles.unlooked = 0;
	add_keeper(&w, "ValidatingWebhookConfiguration/late");
	waits_release(&waits);
	assert_false(ca_bundles_served(&w, &waits));
	assert_true(waits.stalled);
	assert_string_equal(waits.names.items[0], "ValidatingWebhookConfiguration/late");
	assert_non_null(strstr(buf_str(&waits.message), "late (renew its certificate)"));
	w.run.dropping = true; /* nor in the middle of the drop */
	waits_release(&waits);
	assert_false(ca_bundles_new(&w, &waits));
}

static void test_who_writes_a_bundle_back_is_named(void **state)
{
	(void)state;
	struct world w cleanup(world_release) = { .ca_bundles = { .tally = { .known = true, .total = 2 }, .wait_both = 1, .again_ms = 1700 } };
	struct waits waits cleanup(waits_release) = { 0 };
	struct plan plan cleanup(plan_release) = { 0 };
	strs_add(&w.ca_bundles.reverted, "APIService/v1.a (by flux)");
	assert_false(ca_bundles_both(&w, &waits));
	assert_false(waits.stalled);
	assert_non_null(strstr(buf_str(&waits.message), "APIService/v1.a (by flux)"));
	plan_ca_bundles_both(&w, 0, &plan);
	assert_int_equal(plan.n, 0);
	assert_int_equal(plan.look_again_ms, 1700);
	w.ca_bundles.fought = true;
	waits_release(&waits);
	assert_false(ca_bundles_both(&w, &waits));
	assert_true(waits.stalled);
}

static void test_a_node_down_holds_everything(void **state)
{
	(void)state;
	struct sim s;
	struct world w;
	struct request r;
	struct position p;
	struct plan plan = { 0 };
	sim_init(&s, K, 1, 1);
	observe(&s, &w, &r);
	w.nodes[1].ready = false;
	walk_locate(&w, &p);
	walk_plan(&w, &p, &plan);
	assert_true(p.held);
	assert_string_equal(p.waits.reason, "NodeNotReady");
	assert_string_equal(p.waits.names.items[0], "node-1");
	assert_int_equal(plan.n, 0);
	plan_release(&plan);
	position_release(&p);
	world_release(&w);
}

static void test_one_control_plane_at_a_time(void **state)
{
	(void)state;
	struct sim s;
	struct world w;
	struct request r;
	struct position p;
	struct plan plan = { 0 };
	sim_init(&s, K, 3, 2);
	s.run = true;
	s.stored = s.bridged = K;
	s.kubeadm_certs = false;
	for (size_t i = 0; i < s.n_nodes; i++)
		s.nodes[i].reported = true;
	observe(&s, &w, &r);
	walk_locate(&w, &p);
	assert_string_equal(walk_step(p.step)->name, "own-signer");
	walk_plan(&w, &p, &plan);
	assert_int_equal(plan.n, 1);
	plan_release(&plan);
	w.nodes[0].job_running = true;
	walk_plan(&w, &p, &plan);
	assert_int_equal(plan.n, 0);
	plan_release(&plan);
	position_release(&p);
	world_release(&w);
}

/* --- Approval ----------------------------------------------------------------------------------------------------------------------- */

#define KUBECONFIG "f1"

/* The bits that a pass would latch on a world with that spec.approve. */
static int latched_by(const struct sim *s, const struct request *approve, enum seen rule, struct buf *ret_message)
{
	struct world w;
	struct request r;
	struct position p;
	struct plan plan cleanup(plan_release) = { 0 };
	int bits = 0;
	observe(s, &w, &r);
	r.approved_drop = approve->approved_drop;
	r.approved_other = approve->approved_other;
	r.approved_by = approve->approved_by;
	w.admin_fingerprint = s->admin ? str_dup(KUBECONFIG) : NULL;
	w.approval_rule = rule;
	walk_locate(&w, &p);
	walk_plan(&w, &p, &plan);
	for (size_t i = 0; i < plan.n; i++)
		bits |= plan.actions[i].kind == ACT_LATCH ? plan.actions[i].level : 0;
	buf_add_str(ret_message, buf_str(&p.waits.message));
	position_release(&p);
	world_release(&w);
	return bits;
}

static bool at_step(const struct sim *s, const char *name)
{
	struct world w;
	struct request r;
	struct position p;
	observe(s, &w, &r);
	walk_locate(&w, &p);
	bool there = str_eq(walk_step(p.step) ? walk_step(p.step)->name : "done", name);
	position_release(&p);
	world_release(&w);
	return there;
}

/* A yes that came too early, with whatever it names, is kept by no pass before the kubeconfig is there. */
static void walk_to_approval(struct sim *s, authority_set set)
{
	const struct fault none = { CALM, 0, 0 };
	const struct request early = { .approved_drop = true, .approved_by = (char *)KUBECONFIG };
	sim_init(s, set, 2, 1);
	s->manual = true;
	for (size_t pass = 0; pass < PASSES_MAX && !at_step(s, "approval"); pass++) {
		struct sim now = *s;
		struct buf ignored cleanup(buf_release) = BUF_INIT;
		if (!s->admin && has(s, AUTHORITY_KUBERNETES))
			assert_int_equal(latched_by(s, &early, SEEN_YES, &ignored), 0);
		step_once(s, &now, &none, 0);
		life_goes_on(s);
	}
	assert_true(at_step(s, "approval"));
	assert_false(s->dropping);
}

/* The administrator's kubeconfig goes on working: whoever may change the object may say yes. */
static void test_where_nobody_is_locked_out_any_approval_passes(void **state)
{
	(void)state;
	struct sim s;
	struct buf message cleanup(buf_release) = BUF_INIT;
	walk_to_approval(&s, P | E);
	assert_int_equal(latched_by(&s, &(struct request){ .approved_other = true }, SEEN_UNKNOWN, &message), 0);
	assert_non_null(strstr(buf_str(&message), "your approval: set spec.approve"));
	assert_int_equal(latched_by(&s, &(struct request){ .approved_drop = true }, SEEN_UNKNOWN, &message), LATCH_APPROVED);
}

static void test_only_an_approval_of_whoever_has_the_new_kubeconfig_passes(void **state)
{
	(void)state;
	static const struct {
		bool drop, other;
		const char *by;
		enum seen rule;
		int latched;
		const char *says;
	} CASES[] = {
		{ false, false, NULL, SEEN_YES, 0, "with the administrator's new kubeconfig" },
		{ false, true, NULL, SEEN_YES, 0, "it is for another run or phase" },
		{ false, true, KUBECONFIG, SEEN_YES, 0, "it is for another run or phase" },
		{ true, false, NULL, SEEN_NO, 0, "is not in force" },
		{ true, false, NULL, SEEN_UNKNOWN, 0, "could not be read" },
		{ true, false, "f0", SEEN_YES, 0, "is not that of the new kubeconfig" },
		{ true, false, "", SEEN_YES, 0, "is not that of the new kubeconfig" },
		{ true, false, NULL, SEEN_YES, LATCH_APPROVED, "" },
		{ true, false, KUBECONFIG, SEEN_NO, LATCH_APPROVED, "" },
	};
	struct sim s;
	walk_to_approval(&s, K);
	for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
		struct buf message cleanup(buf_release) = BUF_INIT;
		const struct request approve = { .approved_drop = CASES[i].drop, .approved_other = CASES[i].other, .approved_by = (char *)CASES[i].by };
		int bits = latched_by(&s, &approve, CASES[i].rule, &message);
		if (bits != CASES[i].latched || !strstr(buf_str(&message), CASES[i].says))
			fail_msg("case %zu latches %d and says: %s", i, bits, buf_str(&message));
	}
}

/* Kept while paused, and nothing follows from it until the pause ends. */
static void test_a_pause_outlasts_an_approval(void **state)
{
	(void)state;
	struct sim s;
	struct buf message cleanup(buf_release) = BUF_INIT;
	const struct request yes = { .approved_drop = true };
	walk_to_approval(&s, K);
	s.paused = true;
	assert_int_equal(latched_by(&s, &yes, SEEN_YES, &message), LATCH_APPROVED);
	assert_string_equal(buf_str(&message), "spec.paused to be false");
	s.manual = false; /* as approved as can be */
	assert_int_equal(latched_by(&s, &(struct request){ 0 }, SEEN_YES, &message), 0);
	s.paused = false;
	assert_int_equal(latched_by(&s, &(struct request){ 0 }, SEEN_YES, &message), LATCH_DROPPING);
}

/* --- What others do to nodes while a run waits ------------------------------------------------------------------------------------ */

/* The node that a pass has looked at, and nothing else; NULL when it begins nothing. */
static const char *looked_at(const struct world *w)
{
	struct position p;
	struct plan plan cleanup(plan_release) = { 0 };
	walk_locate(w, &p);
	walk_plan(w, &p, &plan);
	assert_true(plan.n <= 1);
	if (plan.n) {
		assert_int_equal(plan.actions[0].kind, ACT_NODE);
		assert_int_equal(plan.actions[0].step, p.step);
		for (size_t f = 0; f < FACET_COUNT; f++)
			assert_int_equal(plan.actions[0].levels[f], FACET_UNTOUCHED_LEVEL);
	}
	position_release(&p);
	return plan.n ? plan.actions[0].node->name : NULL;
}

static void test_while_it_waits_nodes_are_looked_at_in_turn(void **state)
{
	(void)state;
	struct sim s;
	struct world w;
	struct request r;
	walk_to_approval(&s, K);
	observe(&s, &w, &r);
	assert_null(looked_at(&w));
	w.nodes[2].job_asked_ms -= ROUND_MS;
	w.nodes[1].job_asked_ms -= ROUND_MS + 1;
	assert_string_equal(looked_at(&w), "node-1");
	w.nodes[0].job_running = true;
	assert_null(looked_at(&w));
	w.nodes[0].job_running = false;
	r.paused = true;
	assert_null(looked_at(&w));
	world_release(&w);
}

/* Without waiting for its turn: a manifest that kubeadm has written, say. */
static void test_a_control_plane_where_something_has_started_is_looked_at(void **state)
{
	(void)state;
	struct sim s;
	struct world w;
	struct request r;
	walk_to_approval(&s, K);
	observe(&s, &w, &r);
	w.nodes[1].outdated = true;
	assert_null(looked_at(&w));
	w.nodes[1].job_asked_ms -= BLOCKED_APART_MS;
	assert_string_equal(looked_at(&w), "node-1");
	w.nodes[2].job_running = true;
	assert_string_equal(looked_at(&w), "node-1");
	w.nodes[1].job_running = true;
	assert_null(looked_at(&w));
	world_release(&w);
}

/* `kubeadm certs renew`, say: the walk is at that step again, for that node. */
static void test_what_has_fallen_back_is_done_again(void **state)
{
	(void)state;
	static const struct {
		enum facet facet;
		int level;
		const char *step;
	} CASES[] = {
		{ FACET_TRUST, TRUST_OLD, "trust-both" },          { FACET_SIGNER, SIGNER_KUBEADM_OLD, "own-signer" },
		{ FACET_SERVER_LEAF, LEAF_OLD, "server-leaves" },  { FACET_COMPONENTS, ISSUED_OLD, "components" },
		{ FACET_KUBELET_CLIENT, ISSUED_OLD, "kubelet-client" },
	};
	for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
		struct sim s;
		struct world w;
		struct request r;
		struct position p;
		walk_to_approval(&s, K);
		observe(&s, &w, &r);
		w.nodes[1].levels[CASES[i].facet] = CASES[i].level;
		walk_locate(&w, &p);
		assert_string_equal(walk_step(p.step)->name, CASES[i].step);
		assert_string_equal(p.waits.names.items[0], "node-1");
		position_release(&p);
		world_release(&w);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_run_is_safe_and_converges),
		cmocka_unit_test(test_every_rollback_is_safe_and_converges),
		cmocka_unit_test(test_mutants_are_caught),
		cmocka_unit_test(test_pods_restart_once_by_bridge_and_twice_by_bundle),
		cmocka_unit_test(test_unknown_is_never_proof),
		cmocka_unit_test(test_a_bundle_that_keeps_the_old_authority_holds_the_drop),
		cmocka_unit_test(test_who_writes_a_bundle_back_is_named),
		cmocka_unit_test(test_a_node_down_holds_everything),
		cmocka_unit_test(test_one_control_plane_at_a_time),
		cmocka_unit_test(test_where_nobody_is_locked_out_any_approval_passes),
		cmocka_unit_test(test_only_an_approval_of_whoever_has_the_new_kubeconfig_passes),
		cmocka_unit_test(test_a_pause_outlasts_an_approval),
		cmocka_unit_test(test_while_it_waits_nodes_are_looked_at_in_turn),
		cmocka_unit_test(test_a_control_plane_where_something_has_started_is_looked_at),
		cmocka_unit_test(test_what_has_fallen_back_is_done_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
