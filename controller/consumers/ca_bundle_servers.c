/* What is served behind a caBundle: one handshake with each endpoint of its Service, under the name that the API server asks for
 * (apiserver/pkg/util/webhook/client.go, kube-aggregator's handler_proxy.go). One endpoint that was not renewed would fail every few calls,
 * so a look through the Service's own address, which reaches any one of them, would prove nothing. */
#include "ca_bundles.h"

#include <stdlib.h>
#include <string.h>

#define GOOD_MS 30000       /* what was seen counts for so long */
#define APART_MS 10000      /* two looks at a server are so far apart; twice that for each one that did not reach it */
#define APART_MAX_MS 160000
#define PROXY_APART_MS 1000 /* what is told to aggregated servers is with them in a moment */
#define MISSES_MAX 4
#define TIMEOUT_MS 2000
#define PASS_MS 3000        /* no look is begun after so long in one pass */
#define AT_ONCE 8
#define SERVERS_MAX 1000    /* that are remembered; what there is beyond is not looked at */
#define HTTPS 443
#define SAID_MAX 300

/* --- Names --------------------------------------------------------------------------------------------------------------- */

/* "https://host:8443/path?a" without what follows the address. */
static char *without_path(const char *url)
{
	if (!str_starts(url, "https://"))
		return NULL;
	return str_ndup(url, strlen("https://") + strcspn(url + strlen("https://"), "/?#"));
}

/* NULL: the object names no server. Caller frees. */
static char *server_name(const struct json *config)
{
	const struct json *service = json_get(config, "service");
	const char *url = json_get_str(config, "url");
	if (service)
		return str_printf("Service %s/%s, port %lld", json_str_or(json_get(service, "namespace"), ""),
				  json_str_or(json_get(service, "name"), ""), (long long)json_get_int(service, "port", HTTPS));
	return url ? without_path(url) : NULL;
}

/* --- One look -------------------------------------------------------------------------------------------------------------- */

struct sight {
	struct observation *o;
	bool (*judge)(struct sight *s, const char *where, const struct http_response *seen); /* false: no more are looked at */
	struct cert *old;
	struct certs new;
	enum presents what;
	struct buf said;
};

static void sight_release(struct sight *s)
{
	cert_freep(&s->old);
	certs_release(&s->new);
	buf_release(&s->said);
}

static bool see(struct sight *s, enum presents what, const char *where, const char *message)
{
	s->what = what;
	buf_clear(&s->said);
	buf_addf(&s->said, "%s %s", where, message);
	return what == PRESENTS_NEW;
}

static bool presents_new(struct sight *s, const char *where, const struct http_response *seen)
{
	struct certs chain cleanup(certs_release) = { 0 };
	struct err e;
	if (!certs_from_pem(seen->peer_chain_pem, strlen(seen->peer_chain_pem), &chain, &e).ok)
		return see(s, PRESENTS_OTHER, where, "presents a certificate that can't be read");
	if (cert_verify(chain.items[0], &chain, &s->new, "server", s->o->world->now_ms, &e).ok)
		return see(s, PRESENTS_NEW, where, "presents a certificate from the new authority");
	if (s->old && cert_issued_by(chain.items[0], s->old))
		return see(s, PRESENTS_OTHER, where, "presents a certificate from the old authority");
	char *message cleanup(str_freep) = str_printf("presents a certificate that the new authority does not vouch for (%s)", e.message);
	return see(s, PRESENTS_OTHER, where, message);
}

/* Whom a server takes certificates of stands in its handshake. One that names nobody takes none that way. */
static bool refuses_old(struct sight *s, const char *where, const struct http_response *seen)
{
	if (!s->old)
		return see(s, PRESENTS_NOTHING, where, "can't be judged: the old front proxy's authority is not known");
	char *old cleanup(str_freep) = cert_subject_digest(s->old);
	if (strs_has(&seen->client_authorities, old))
		return see(s, PRESENTS_OTHER, where, "accepts the old front proxy's authority still");
	return see(s, PRESENTS_NEW, where, "does not name the old front proxy's authority among those that it accepts");
}

static bool judge_item(struct sight *s, const char *where, const struct http_item *item)
{
	if (item->response.peer_chain_pem)
		return s->judge(s, where, &item->response);
	char *message cleanup(str_freep) = str_printf("was not reached (%s)", item->outcome.ok ? "no certificate" : item->error.message);
	return see(s, PRESENTS_NOTHING, where, message);
}

/* At most AT_ONCE of them. False with the first that is not N's. */
static bool handshakes(struct sight *s, char *const *addresses, size_t n)
{
	struct http_item items[AT_ONCE] = { 0 };
	char *urls[AT_ONCE];
	bool all = true;
	for (size_t i = 0; i < n; i++) {
		urls[i] = str_printf("https://%s/", addresses[i]);
		items[i].request = (struct http_request){ .method = "GET", .url = urls[i], .timeout_ms = TIMEOUT_MS,
							  .want_peer_chain = true, .max_body = 65536 };
	}
	http_do_all(s->o->probes, items, n, NULL);
	for (size_t i = 0; i < n; i++) {
		all = all && judge_item(s, addresses[i], &items[i]);
		http_response_release(&items[i].response);
		str_freep(&urls[i]);
	}
	return all;
}

/* host_name: what the handshake asks for; NULL: the address' own. */
static void look_at_all(struct sight *s, const struct strs *addresses, const char *host_name)
{
	const struct http_identity anybody = { .insecure = true, .server_name = host_name };
	http_pool_identity(s->o->probes, &anybody);
	for (size_t i = 0; i < addresses->n; i += AT_ONCE)
		if (!handshakes(s, addresses->items + i, addresses->n - i < AT_ONCE ? addresses->n - i : AT_ONCE))
			return;
}

/* --- Services ------------------------------------------------------------------------------------------------------------------ */

struct endpoints {
	const char *port_name, *family; /* family NULL: any */
	struct strs addresses;
	bool lost;
};

static void endpoints_release(struct endpoints *p)
{
	strs_release(&p->addresses);
}

static void add_endpoint(struct endpoints *p, const struct json *endpoint, int64_t port)
{
	const char *address = json_str(json_first(json_get(endpoint, "addresses")));
	if (!address || json_get_bool(json_get(endpoint, "conditions"), "terminating", false))
		return;
	bool v6 = strchr(address, ':') != NULL;
	strs_addf(&p->addresses, "%s%s%s:%lld", v6 ? "[" : "", address, v6 ? "]" : "", (long long)port);
}

static bool each_slice(void *context, const struct json *slice)
{
	struct endpoints *p = context;
	if (p->family && !str_eq(json_get_str(slice, "addressType"), p->family))
		return true;
	json_each(port, json_get(slice, "ports")) {
		if (!str_eq(json_str_or(json_get(port, "name"), ""), p->port_name) || !json_get(port, "port"))
			continue;
		json_each(endpoint, json_get(slice, "endpoints"))
			add_endpoint(p, endpoint, json_get_int(port, "port", 0));
	}
	return true;
}

static void drop_slices(void *context)
{
	struct endpoints *p = context;
	strs_release(&p->addresses);
}

static const struct json *port_of(const struct json *service, int64_t number)
{
	json_each(port, json_at(service, "spec", "ports", NULL))
		if (json_get_int(port, "port", 0) == number)
			return port;
	return NULL;
}

static result find_endpoints(struct observation *o, const struct json *service, const char *namespace, const char *name,
			     struct endpoints *ret, struct err *e)
{
	char *path cleanup(str_freep) = str_printf("/apis/discovery.k8s.io/v1/namespaces/%s/endpointslices", namespace);
	char *selector cleanup(str_freep) = str_printf("kubernetes.io/service-name=%s", name);
	const struct kube_list q = { .path = path, .label_selector = selector };
	ret->family = json_str(json_first(json_at(service, "spec", "ipFamilies", NULL)));
	TRY(kube_list_each(o->kube, &q, each_slice, drop_slices, ret, NULL, e));
	return ret->addresses.n ? OK : err_set(e, ERR_NOT_FOUND, "has no endpoint");
}

/* Where a connection to the Service's port ends. */
static result resolve(struct observation *o, const struct json *reference, struct endpoints *ret, struct err *e)
{
	const char *namespace = json_str_or(json_get(reference, "namespace"), ""), *name = json_str_or(json_get(reference, "name"), "");
	int64_t number = json_get_int(reference, "port", HTTPS);
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/services/%s", namespace, name);
	struct json *service cleanup(json_freep) = NULL;
	TRY(kube_get(o->kube, path, &service, e));
	const char *elsewhere = json_str(json_at(service, "spec", "externalName", NULL));
	if (str_eq(json_str(json_at(service, "spec", "type", NULL)), "ExternalName") && elsewhere) {
		strs_addf(&ret->addresses, "%s:%lld", elsewhere, (long long)number);
		return OK;
	}
	const struct json *port = port_of(service, number);
	if (!port)
		return err_set(e, ERR_NOT_FOUND, "has no such port");
	char *port_name cleanup(str_freep) = str_dup(json_str_or(json_get(port, "name"), ""));
	ret->port_name = port_name;
	result r = find_endpoints(o, service, namespace, name, ret, e);
	ret->port_name = ret->family = NULL;
	return r;
}

static void look_at_service(struct sight *s, const struct json *reference, const char *server)
{
	struct endpoints p cleanup(endpoints_release) = { 0 };
	struct err e = { 0 };
	char *host_name cleanup(str_freep) = str_printf("%s.%s.svc", json_str_or(json_get(reference, "name"), ""),
							json_str_or(json_get(reference, "namespace"), ""));
	if (resolve(s->o, reference, &p, &e).ok)
		look_at_all(s, &p.addresses, host_name);
	else
		see(s, PRESENTS_NOTHING, server, e.message);
}

static void look(struct sight *s, const struct json *config, const char *server)
{
	struct strs address cleanup(strs_release) = { 0 };
	if (json_get(config, "service")) {
		look_at_service(s, json_get(config, "service"), server);
		return;
	}
	strs_add(&address, server + strlen("https://"));
	look_at_all(s, &address, NULL);
}

/* --- Questions --------------------------------------------------------------------------------------------------------------------- */

/* What a server is asked, and how often. */
struct question {
	enum authority of;
	bool (*judge)(struct sight *s, const char *where, const struct http_response *seen);
	const char *server, *known_as; /* its name, and its name in memory */
	int64_t apart_ms;
};

/* --- Memory ----------------------------------------------------------------------------------------------------------------------- */

static struct bundle_server *server_of(const struct bundle_memory *m, const char *name)
{
	for (size_t i = 0; name && i < m->n_servers; i++)
		if (str_eq(m->servers[i].name, name))
			return &m->servers[i];
	return NULL;
}

static struct bundle_server *remember(struct bundle_memory *m, const char *name)
{
	if (m->n_servers == SERVERS_MAX)
		return NULL;
	m->servers = mem_realloc(m->servers, m->n_servers + 1, sizeof *m->servers);
	struct bundle_server *s = &m->servers[m->n_servers++];
	*s = (struct bundle_server){ .name = str_dup(name) };
	return s;
}

static bool is_due(const struct bundle_server *s, int64_t apart_ms, int64_t now_ms)
{
	int64_t apart = apart_ms << s->misses;
	return !s->at_ms || now_ms < s->at_ms || now_ms - s->at_ms >= (apart < APART_MAX_MS ? apart : APART_MAX_MS);
}

static void note_sight(const struct sight *s, struct bundle_server *server)
{
	server->what = s->what;
	server->at_ms = s->o->world->now_ms;
	server->misses = s->what != PRESENTS_NOTHING ? 0 : server->misses < MISSES_MAX ? server->misses + 1 : MISSES_MAX;
	str_freep(&server->said);
	server->said = str_ndup(buf_str(&s->said), str_cut(buf_str(&s->said), SAID_MAX));
}

static void look_again(struct observation *o, struct bundle_server *server, const struct json *config, const struct question *q)
{
	struct sight s cleanup(sight_release) = { .o = o, .judge = q->judge };
	const struct run_authority *of = &o->world->run.of[q->of];
	struct cert *new = NULL;
	struct err e;
	int64_t begun = clock_monotonic_ms();
	if (!of->new_pem || !cert_from_pem(of->new_pem, strlen(of->new_pem), &new, &e).ok)
		return;
	certs_add(&s.new, new);
	if (of->old_pem && !cert_from_pem(of->old_pem, strlen(of->old_pem), &s.old, &e).ok)
		return;
	look(&s, config, q->server);
	note_sight(&s, server);
	o->bundles->looked_ms += clock_monotonic_ms() - begun;
}

/* A sight of N ages; what was seen to be in the way stands until the next look. */
static enum presents counts(const struct bundle_server *s, int64_t now_ms)
{
	if (!s || !s->at_ms || now_ms < s->at_ms || (s->what == PRESENTS_NEW && now_ms - s->at_ms > GOOD_MS))
		return PRESENTS_UNSEEN;
	return s->what;
}

enum presents ca_bundle_seen(const struct bundle_memory *m, const struct ca_bundle *b, int64_t now_ms)
{
	char *name cleanup(str_freep) = server_name(b->config);
	return counts(server_of(m, name), now_ms);
}

static enum presents ask(struct observation *o, const struct json *config, const struct question *q, const char **ret_said)
{
	struct bundle_server *s = server_of(o->bundles, q->known_as);
	if (!s)
		s = remember(o->bundles, q->known_as);
	if (!s) {
		*ret_said = "more servers than can be looked at";
		return PRESENTS_NOTHING;
	}
	if (o->probes && is_due(s, q->apart_ms, o->world->now_ms) && o->bundles->looked_ms < PASS_MS)
		look_again(o, s, config, q);
	*ret_said = s->said ? s->said : "";
	return counts(s, o->world->now_ms);
}

enum presents ca_bundle_look(struct observation *o, const struct ca_bundle *b, const char **ret_said)
{
	char *name cleanup(str_freep) = server_name(b->config);
	const struct question q = { AUTHORITY_KUBERNETES, presents_new, name, name, APART_MS };
	if (name)
		return ask(o, b->config, &q, ret_said);
	*ret_said = "it names no server";
	return PRESENTS_NOTHING;
}

enum presents ca_bundle_look_for_old_proxy(struct observation *o, const struct json *spec, const char **ret_said)
{
	char *name cleanup(str_freep) = server_name(spec);
	char *known_as cleanup(str_freep) = str_printf("front proxy at %s", name ? name : "");
	const struct question q = { AUTHORITY_FRONT_PROXY, refuses_old, name, known_as, PROXY_APART_MS };
	if (name)
		return ask(o, spec, &q, ret_said);
	*ret_said = "it names no server";
	return PRESENTS_NOTHING;
}
