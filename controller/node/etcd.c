/* etcd's authority. Leaves are read at every handshake, so they change at any time; trusted authorities are read at start, by etcd and by
 * the API server (--etcd-cafile), so both of a node restart once, together, behind a gate: clients wait, and are not refused.
 *
 * Invariants
 * - Until every member and every API server presents N with the bridge, nobody trusts N alone.
 * - No window opens unless every other member is healthy and this one does not lead.
 * - A window that was cut short at any point is done again by the next run, and opens by itself meanwhile (gate.h).
 */
#include "file.h"
#include "gate.h"
#include "node.h"
#include "sockets.h"

#include <string.h>

#define PAIR_MAX ((size_t)64 << 10)
#define GATE_SECONDS 40
#define DRAIN_MS 5000  /* requests in flight are over in milliseconds; who takes longer than this is cut off */
#define ACCEPT_MS 2000
#define APART_MS 50
#define QUIET_TIMES 4  /* a request takes as long as one takes just now, or a few times that */
#define QUIET_MIN_MS 300
#define QUIET_MAX_MS 2000

static const struct succession *authorities(const struct node *n)
{
	return &n->of[AUTHORITY_ETCD];
}

/* --- Observing --------------------------------------------------------------------------------------------------------------------- */

static int lower(int a, int b)
{
	return a < b ? a : b;
}

static int leaves_level(struct node *n, int trust)
{
	int level = LEAF_NEW;
	for (size_t i = 0; i < ETCD_LEAF_COUNT; i++) {
		const char *path = n->layout.etcd_leaves[i];
		struct certs list cleanup(certs_release) = { 0 };
		struct err e;
		if (!path)
			continue;
		if (!node_certs(path, &list, &e).ok) {
			node_unreadable(n, path, &e);
			return FACET_UNKNOWN;
		}
		node_check_leaf(n, AUTHORITY_ETCD, path, list.items[0]);
		level = lower(level, node_leaf_level(n, AUTHORITY_ETCD, trust, &list));
	}
	return level;
}

/* In force when both have started since. */
static bool has_read(const struct node *n)
{
	const char *path = n->layout.of[AUTHORITY_ETCD].ca_crt;
	return node_younger(n, PROCESS_ETCD, path) && node_younger(n, PROCESS_APISERVER, path);
}

void node_observe_etcd(struct node *n)
{
	int *levels = n->report->levels;
	int file = node_trust_in_file(n, AUTHORITY_ETCD);
	levels[FACET_ETCD_CA_KEY] = node_key_level(n, AUTHORITY_ETCD);
	levels[FACET_ETCD_LEAF] = leaves_level(n, file);
	levels[FACET_ETCD_TRUST] = file == TRUST_NEW && !has_read(n) ? TRUST_OLD : file;
	if (!authorities(n)->bridge && levels[FACET_ETCD_LEAF] != FACET_UNKNOWN)
		node_rehearse_window(n);
}

/* --- Talking to it ------------------------------------------------------------------------------------------------------------------- */

struct caller {
	struct buf cert, key, ca;
	struct remote_identity id;
};

static void caller_release(struct caller *c)
{
	buf_release(&c->cert);
	buf_release(&c->key);
	buf_release(&c->ca);
}

/* As the API server does: with its certificate, over loopback. Servers of O and N are believed. */
static result call_as_apiserver(const struct node *n, struct caller *ret, struct err *e)
{
	ret->key.secret = true;
	TRY(file_read(n->layout.etcd_leaves[ETCD_API_CLIENT], PAIR_MAX, &ret->cert, e));
	TRY(file_read(n->layout.etcd_client_key, PAIR_MAX, &ret->key, e));
	cert_to_pem(authorities(n)->old, &ret->ca);
	if (authorities(n)->new)
		cert_to_pem(authorities(n)->new, &ret->ca);
	ret->id = (struct remote_identity){ n->layout.etcd_server, buf_str(&ret->ca), buf_str(&ret->cert), buf_str(&ret->key) };
	return OK;
}

static bool is_healthy(struct node *n UNUSED, const void *context)
{
	const struct caller *c = context;
	struct err e;
	return remote_etcd_health(&c->id, &e).ok;
}

/* --- Rehearsing ----------------------------------------------------------------------------------------------------------------------- */

static result check_members(const struct caller *c, const struct remote_etcd_view *v, struct err *e)
{
	if (v->learners)
		return err_set(e, ERR_CONFLICT, "an etcd member is a learner yet: nothing restarts until it votes or is gone");
	for (size_t i = 0; i < v->ids.n; i++) {
		struct remote_identity id = c->id;
		id.server = v->urls.items[i];
		if (!*id.server)
			return err_set(e, ERR_CONFLICT, "an etcd member was added and has not started: nothing restarts until it has, or is gone");
		TRY_CTX(remote_etcd_health(&id, e), e, "nothing restarts while an etcd member is ill");
	}
	return OK;
}

static result rehearse_window(const struct node *n, struct err *e)
{
	struct caller c cleanup(caller_release) = { 0 };
	struct remote_etcd_view v cleanup(remote_etcd_view_release) = { 0 };
	TRY(call_as_apiserver(n, &c, e));
	TRY(remote_etcd_look(&c.id, &v, e));
	return check_members(&c, &v, e);
}

/* What a window needs is seen before anything is touched: past the drop there is no way back. A Pod that only looks can't try the gate. */
void node_rehearse_window(struct node *n)
{
	struct err e = { 0 };
	if (!remote_available())
		return;
	if (!rehearse_window(n, &e).ok)
		report_add_blocker(n->report, "EtcdUnhealthy", n->layout.etcd_server, "%s: put etcd in order", e.message);
	if (n->desired->gate && !gate_rehearse(&e).ok)
		report_add_blocker(n->report, "GateImpossible", "nftables", "%s, and etcd's authority can't be rotated without refusing clients: give "
				   "this node's kernel nf_tables, or take Etcd out of spec.authorities", e.message);
}

/* --- Leaves ---------------------------------------------------------------------------------------------------------------------------- */

static result write_leaves(struct node *n, bool with_bridge, struct err *e)
{
	for (size_t i = 0; i < ETCD_LEAF_COUNT; i++)
		if (n->layout.etcd_leaves[i])
			TRY(node_write_leaf(n, AUTHORITY_ETCD, n->layout.etcd_leaves[i], with_bridge, e));
	return OK;
}

/* What was written is seen to work: a new handshake with the new leaves on both sides, and an answer that took a quorum. */
result node_etcd_leaves(struct node *n, struct err *e)
{
	struct caller c cleanup(caller_release) = { 0 };
	bool bare = n->desired->levels[FACET_ETCD_LEAF] == LEAF_NEW && n->report->levels[FACET_ETCD_TRUST] == TRUST_NEW;
	TRY(write_leaves(n, !bare, e));
	TRY(call_as_apiserver(n, &c, e));
	if (remote_available())
		TRY(node_wait(n, is_healthy, &c, "etcd to answer with its new certificates", e));
	return node_observe(n, e);
}

/* --- The window -------------------------------------------------------------------------------------------------------------------------- */

static bool leads_no_more(struct node *n UNUSED, const void *context)
{
	const struct caller *c = context;
	struct remote_etcd_view v cleanup(remote_etcd_view_release) = { 0 };
	struct err e;
	return remote_etcd_look(&c->id, &v, &e).ok && !str_eq(v.leader, v.member);
}

/* Another member leads, where there is one. */
static result make_ready(struct node *n, const struct caller *c, struct err *e)
{
	struct remote_etcd_view v cleanup(remote_etcd_view_release) = { 0 };
	TRY(remote_etcd_look(&c->id, &v, e));
	TRY(check_members(c, &v, e));
	if (!str_eq(v.leader, v.member) || v.ids.n < 2)
		return OK;
	size_t other = str_eq(v.ids.items[0], v.member) ? 1 : 0;
	TRY_CTX(remote_etcd_hand_over(&c->id, v.ids.items[other], e), e, "handing etcd's leadership over");
	return node_wait(n, leads_no_more, c, "another etcd member to lead", e);
}

/* How long nothing may be seen to move before nothing does. */
static int64_t quiet_enough(const struct node *n)
{
	int64_t before = clock_monotonic_ms(), took;
	long status = 0;
	struct err e;
	if (!remote_answers(n->layout.api_host, n->layout.api_port, "/readyz", &status, &e).ok)
		return QUIET_MAX_MS;
	took = QUIET_TIMES * (clock_monotonic_ms() - before);
	return took < QUIET_MIN_MS ? QUIET_MIN_MS : took > QUIET_MAX_MS ? QUIET_MAX_MS : took;
}

struct traffic {
	int64_t begun, under_way; /* calls of etcd */
	struct sockets_seen sockets;
};

static result look_at_traffic(const struct node *n, const struct caller *c, struct traffic *ret, struct err *e)
{
	TRY(remote_etcd_calls(&c->id, &ret->begun, &ret->under_way, e));
	return sockets_look(n->layout.api_port, &ret->sockets, e);
}

/* A request that ends closes its connection, when the server has been asked to end. */
static bool has_moved(const struct traffic *before, const struct traffic *now)
{
	return now->under_way || now->begun != before->begun || now->sockets.unread || now->sockets.established != before->sockets.established;
}

/* Nothing is under way in the API server, nor was for so long: neither in etcd, where its requests end, nor on its connections. */
static void await_drained(const struct node *n, const struct caller *c, int64_t quiet_ms)
{
	const struct process_seen *apiserver = &n->processes[PROCESS_APISERVER];
	int64_t now = clock_monotonic_ms(), until = now + DRAIN_MS, moved = now;
	struct traffic before = { .begun = -1 }, seen = { 0 };
	struct err e;
	while (process_alive(apiserver) && now < until && now - moved < quiet_ms) {
		node_rest(APART_MS);
		now = clock_monotonic_ms();
		if (!look_at_traffic(n, c, &seen, &e).ok || has_moved(&before, &seen))
			moved = now;
		before = seen;
	}
}

/* Connections that its listener has not accepted yet are reset when it closes. */
static void await_accepted(const struct node *n)
{
	int64_t until = clock_monotonic_ms() + ACCEPT_MS;
	struct sockets_seen seen = { .waiting = 1 };
	struct err e;
	while (clock_monotonic_ms() < until && (!sockets_look(n->layout.api_port, &seen, &e).ok || seen.waiting))
		node_rest(APART_MS);
}

/* It goes on listening to no one, and holds open watches for up to a minute: their clients come back, elsewhere or here. */
static result end_apiserver(struct node *n, const struct caller *c, int64_t quiet_ms, struct err *e)
{
	const struct process_seen *p = &n->processes[PROCESS_APISERVER];
	strs_add(&n->report->restarted, process_name(PROCESS_APISERVER));
	await_accepted(n);
	TRY(process_terminate(p, e));
	await_drained(n, c, quiet_ms);
	return process_kill(p, e);
}

static result end_etcd(struct node *n, struct err *e)
{
	strs_add(&n->report->restarted, process_name(PROCESS_ETCD));
	return process_terminate(&n->processes[PROCESS_ETCD], e);
}

static bool both_back(struct node *n, const void *context)
{
	const struct caller *c = context;
	long status = 0;
	struct err e;
	return node_find_processes(n, &e).ok && has_read(n) && remote_etcd_health(&c->id, &e).ok &&
	       remote_answers(n->layout.api_host, n->layout.api_port, "/readyz", &status, &e).ok && status == 200;
}

/* etcd gets its word before the API server's end: without clients it stops in about a second. */
static result restart_both(struct node *n, const struct caller *c, struct err *e)
{
	struct gate *g cleanup(gate_openp) = NULL;
	int64_t quiet_ms = quiet_enough(n);
	TRY(gate_shut(n->layout.api_port, GATE_SECONDS, &g, e));
	TRY(end_apiserver(n, c, quiet_ms, e));
	TRY(node_write_authority(n, AUTHORITY_ETCD, TRUST_NEW, e));
	TRY(end_etcd(n, e));
	return node_wait(n, both_back, c, "etcd and kube-apiserver to be back (their logs: /var/log/pods)", e);
}

result node_etcd_trust(struct node *n, struct err *e)
{
	struct caller c cleanup(caller_release) = { 0 };
	struct key *k cleanup(key_freep) = NULL;
	TRY(node_new_key(n, AUTHORITY_ETCD, &k, e)); /* before anybody is ended for it */
	TRY(call_as_apiserver(n, &c, e));
	TRY(make_ready(n, &c, e));
	TRY(node_find_processes(n, e));
	if (!n->running[PROCESS_APISERVER] || !n->running[PROCESS_ETCD])
		return err_set(e, ERR_CONFLICT, "etcd or kube-apiserver is not running here");
	if (node_trust_in_file(n, AUTHORITY_ETCD) != TRUST_NEW || !has_read(n))
		TRY(restart_both(n, &c, e));
	TRY(node_write_authority(n, AUTHORITY_ETCD, TRUST_NEW, e));
	return node_observe(n, e);
}
