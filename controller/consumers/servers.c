/* What servers accept, seen with probe certificates that have no rights: an answer of 403 means that the certificate is trusted,
 * 401 that it is not (measured on 6443 and 10250). What was seen stays good until the node reports again. */
#include "consumer.h"

#include <stdlib.h>
#include <string.h>

#define API_PORT 6443
#define KUBELET_PORT 10250

struct seen_node {
	char *name;
	int64_t report_at_ms;
	int trust;
	bool back;
	enum seen api_new, api_old, kubelet_new, kubelet_old;
};
struct probe_memory {
	struct seen_node *nodes;
	size_t n;
};

struct probe_memory *probe_memory_new(void)
{
	return mem_alloc(sizeof(struct probe_memory));
}

void probe_memory_freep(struct probe_memory **m)
{
	for (size_t i = 0; *m && i < (*m)->n; i++)
		str_freep(&(*m)->nodes[i].name);
	if (*m)
		free((*m)->nodes);
	free(*m);
	*m = NULL;
}

/* Forgets everything about a node whose trust, or what is called old, has changed. */
static struct seen_node *recall(struct probe_memory *m, const struct node_state *n, bool back)
{
	struct seen_node *s = NULL;
	for (size_t i = 0; i < m->n && !s; i++)
		if (str_eq(m->nodes[i].name, n->name))
			s = &m->nodes[i];
	if (!s) {
		m->nodes = mem_realloc(m->nodes, m->n + 1, sizeof *m->nodes);
		s = &m->nodes[m->n++];
		*s = (struct seen_node){ .name = str_dup(n->name), .trust = FACET_UNKNOWN };
	}
	if (s->trust != n->levels[FACET_TRUST] || s->back != back)
		*s = (struct seen_node){ .name = s->name, .trust = n->levels[FACET_TRUST], .back = back };
	return s;
}

static enum seen verdict(long status, bool rejected)
{
	if (status == 401 || rejected)
		return SEEN_NO;
	return status == 403 ? SEEN_YES : SEEN_UNKNOWN;
}

/* A path that the server has and that nobody may read without rights: an unknown one is 404 on a kubelet, before it asks who we are. */
static const char *path_of(int port)
{
	return port == KUBELET_PORT ? "/configz" : "/certrotation-probe";
}

static enum seen probe(struct observation *o, const char *address, int port, const char *certificate)
{
	bool v6 = strchr(address, ':') != NULL;
	char *url cleanup(str_freep) = str_printf("https://%s%s%s:%d%s", v6 ? "[" : "", address, v6 ? "]" : "", port,
					   path_of(port));
	const struct http_identity id = { .client_cert_pem = certificate, .client_key_pem = o->credentials.probe_key, .insecure = true };
	const struct http_request q = { .method = "GET", .url = url, .timeout_ms = 3000, .fresh_connection = true, .max_body = 65536 };
	struct http_response r cleanup(http_response_release) = { 0 };
	struct err e;
	http_pool_identity(o->probes, &id);
	bool answered = http_do(o->probes, &q, &r, &e).ok;
	return answered || r.tls_client_rejected ? verdict(r.status, r.tls_client_rejected) : SEEN_UNKNOWN;
}

/* Only what is not yet as it must become is looked at again. */
static void look(struct observation *o, const char *address, int port, enum seen *accepts_new, enum seen *accepts_old)
{
	if (*accepts_new != SEEN_YES && o->world->run.has_new_probe)
		*accepts_new = probe(o, address, port, o->credentials.probe_new);
	if (*accepts_old != SEEN_NO && o->world->run.has_old_probe)
		*accepts_old = probe(o, address, port, o->credentials.probe_old);
}

static void look_at_node(struct observation *o, struct node_state *n)
{
	struct seen_node *s = recall(o->memory, n, o->world->run.back);
	bool wanted = n->reported && n->address && n->levels[FACET_TRUST] >= TRUST_BOTH;
	if (wanted && n->control_plane)
		look(o, n->address, API_PORT, &s->api_new, &s->api_old);
	if (wanted)
		look(o, n->address, KUBELET_PORT, &s->kubelet_new, &s->kubelet_old);
	n->api_accepts_new = s->api_new;
	n->api_accepts_old = s->api_old;
	n->kubelet_accepts_new = s->kubelet_new;
	n->kubelet_accepts_old = s->kubelet_old;
}

static result servers_observe(struct observation *o, struct err *e UNUSED)
{
	bool either = world_strategy(o->world) == STRATEGY_BUNDLE;
	bool old = o->world->run.has_old_probe, new = o->world->run.has_new_probe;
	if (either ? !old && !new : !old || !new)
		return OK;
	for (size_t i = 0; i < o->world->n_nodes; i++)
		look_at_node(o, &o->world->nodes[i]);
	return OK;
}

const struct consumer consumer_servers = { "servers", READS_IN_RUN, servers_observe };
