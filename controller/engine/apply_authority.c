/* The authority's Secret: made before first use, closed at the end. */
#include "apply.h"
#include "kubeconfig.h"
#include "log.h"
#include "request.h"

#include <string.h>

#define HOUR_MS ((int64_t)3600000)
#define PROBE_NAME "certrotation:probe"
#define PROBE_VALIDITY_MS (HOUR_MS * 24 * 90)
#define ADMIN_VALIDITY_MS (8760 * HOUR_MS)

static char *secret_path(const struct applier *a, const char *name)
{
	return str_printf("/api/v1/namespaces/%s/secrets/%s", a->settings->node_namespace, name);
}

static void set_data(struct json *data, const char *name, const char *text)
{
	struct buf encoded cleanup(buf_release) = BUF_SECRET;
	base64_encode(text, strlen(text), &encoded);
	json_set_str(data, name, buf_str(&encoded));
}

/* --- Making ------------------------------------------------------------------------------------------------------------- */

/* O: what the control planes have in force. preflight.c has refused nodes that disagree. */
static const char *old_authority(const struct world *w, enum authority a)
{
	for (size_t i = 0; i < w->n_nodes; i++)
		if (w->nodes[i].control_plane && w->nodes[i].ca_pem && w->nodes[i].asked == a)
			return w->nodes[i].ca_pem;
	return NULL;
}

struct made {
	struct key *key, *probe_key;
	struct cert *cert, *probe, *bridge_back; /* bridge_back: Y, O's key certified by N, for a rollback */
};

static void made_release(struct made *m)
{
	key_freep(&m->key);
	key_freep(&m->probe_key);
	cert_freep(&m->cert);
	cert_freep(&m->probe);
	cert_freep(&m->bridge_back);
}

static result make_probe(const struct made *m, int64_t now_ms, struct key **ret_key, struct cert **ret, struct err *e)
{
	const struct leaf_request probe = { .common_name = PROBE_NAME, .client = true, .now_ms = now_ms, .validity_ms = PROBE_VALIDITY_MS };
	TRY(key_generate("ECDSA-P256", ret_key, e));
	return leaf_make(&probe, *ret_key, m->cert, m->key, ret, e);
}

/* N: made here, or brought. */
static result obtain(const struct applier *a, enum authority authority, const char *id, const struct cert *old, struct made *ret,
		     struct err *e)
{
	const struct request *r = a->world->request;
	char *unique cleanup(str_freep) = str_printf(AUTHORITY_UNIT "%s", id);
	const struct ca_request ca = { .common_name = authority_common_name(authority), .unique = unique, .now_ms = a->world->now_ms,
				       .validity_ms = r->validity_ms };
	if (r->authority_secret) {
		TRY_CTX(candidate_read(a->kube, a->settings, r->authority_secret, old, a->world->now_ms, &ret->cert, &ret->key, e), e,
			"Secret %s", r->authority_secret);
		return OK;
	}
	TRY(key_generate(r->key_algorithm, &ret->key, e));
	return ca_make(&ca, ret->key, &ret->cert, e);
}

static result make(const struct applier *a, enum authority authority, const char *id, const char *old_pem, struct made *ret, struct err *e)
{
	const int64_t now = a->world->now_ms;
	struct cert *old cleanup(cert_freep) = NULL;
	TRY(cert_from_pem(old_pem, strlen(old_pem), &old, e));
	TRY(obtain(a, authority, id, old, ret, e));
	if (world_strategy(a->world) == STRATEGY_BRIDGE)
		TRY_CTX(ca_cross_sign(old, ret->cert, ret->key, now, &ret->bridge_back, e), e, "certifying the old authority by the new one");
	return authority == AUTHORITY_KUBERNETES ? make_probe(ret, now, &ret->probe_key, &ret->probe, e) : OK;
}

static void set_cert(struct json *data, const char *name, const struct cert *c)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	cert_to_pem(c, &text);
	set_data(data, name, buf_str(&text));
}

static void set_key(struct json *data, const char *name, const struct key *k)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	key_to_pem(k, &text);
	set_data(data, name, buf_str(&text));
}

static void add_pems(struct json *data, const struct made *m, const char *old_pem)
{
	set_cert(data, "tls.crt", m->cert);
	set_key(data, "tls.key", m->key);
	set_data(data, "old.crt", old_pem);
	if (m->bridge_back)
		set_cert(data, "bridge-back.crt", m->bridge_back);
	if (!m->probe)
		return;
	set_key(data, "probe.key", m->probe_key);
	set_cert(data, "probe-new.crt", m->probe);
}

static void note_authorities(struct json *notes, authority_set set)
{
	struct buf names cleanup(buf_release) = BUF_INIT;
	for (size_t a = 0; a < AUTHORITY_COUNT; a++)
		if (authority_in(set, (enum authority)a))
			buf_addf(&names, "%s%s", names.len ? "," : "", authority_name((enum authority)a));
	json_set_str(notes, ANNOTATION_AUTHORITIES, buf_str(&names));
}

/* The lead's says everything about the run. */
static void describe_run(const struct applier *a, struct json *notes)
{
	const struct request *r = a->world->request;
	struct json *spec cleanup(json_freep) = request_spec_copy(r);
	char *spec_text cleanup(str_freep) = json_text(spec);
	char started[32];
	time_format(a->world->now_ms, started);
	json_set_str(notes, ANNOTATION_OWNER, r->name);
	json_set_str(notes, ANNOTATION_SPEC, spec_text);
	json_set_str(notes, ANNOTATION_STARTED, started);
	note_authorities(notes, a->world->pending);
}

static struct json *secret_object(const struct applier *a, enum authority authority, const char *id, const char *name)
{
	const struct run *run = &a->world->run;
	struct json *s = json_object(), *meta = json_ensure_object(s, "metadata");
	struct json *labels = json_ensure_object(meta, "labels"), *notes = json_ensure_object(meta, "annotations");
	json_set_str(s, "apiVersion", "v1");
	json_set_str(s, "kind", "Secret");
	json_set_str(meta, "name", name);
	json_set_str(labels, LABEL_AUTHORITY, authority_name(authority));
	json_set_str(labels, LABEL_ROLE, "next");
	json_set_str(labels, LABEL_RUN, id);
	json_set_str(notes, ANNOTATION_TRIGGER, run->exists ? run->trigger : a->world->request->trigger);
	if (run->exists)
		json_set_str(notes, ANNOTATION_LEAD, run->secret);
	else
		describe_run(a, notes);
	return s;
}

/* The lead first: without it the others are nobody's. */
result apply_create_authority(const struct applier *a, const struct action *action, struct err *e)
{
	const struct run *run = &a->world->run;
	const char *old_pem = old_authority(a->world, action->authority);
	struct made m cleanup(made_release) = { 0 };
	char id[13];
	if (!a->world->request || !old_pem)
		return err_set(e, ERR_OTHER, "no control plane has reported its %s authority", authority_name(action->authority));
	run_id(run->exists ? run->trigger : a->world->request->trigger, id);
	TRY_CTX(make(a, action->authority, id, old_pem, &m, e), e, "making the new %s authority",
		authority_name(action->authority));
	char *name cleanup(str_freep) = str_printf("certrotation-%s-%s", authority_slug(action->authority), id);
	char *path cleanup(str_freep) = secret_path(a, "");
	path[strlen(path) - 1] = '\0';
	struct json *s cleanup(json_wipep) = secret_object(a, action->authority, id, name);
	add_pems(json_ensure_object(s, "data"), &m, old_pem);
	return kube_create(a->kube, path, s, NULL, e);
}

static result patch_secret(const struct applier *a, const char *name, const struct json *patch, struct err *e)
{
	char *path cleanup(str_freep) = secret_path(a, name);
	return kube_patch(a->kube, path, KUBE_MERGE_PATCH, patch, NULL, e);
}

/* An X that is stored already stays: leaves that carry it are out there. */
result apply_store_bridge(const struct applier *a, const struct action *action, struct err *e)
{
	struct json *patch cleanup(json_freep) = json_object(), *data = json_ensure_object(patch, "data");
	const struct run_authority *of = &a->world->run.of[action->authority];
	if (!of->bridge_pem)
		set_data(data, "bridge.crt", action->node->bridge_pem);
	if (action->node->probe_pem)
		set_data(data, "probe-old.crt", action->node->probe_pem);
	return patch_secret(a, of->secret, patch, e);
}

static void latch_accepted(const struct applier *a, struct json *notes)
{
	struct json *names cleanup(json_freep) = json_array();
	const struct strs *latched = &a->world->run.accepted;
	for (size_t i = 0; i < latched->n; i++)
		json_add_str(names, latched->items[i]);
	for (size_t i = 0; a->world->request && i < a->world->request->accepted.n; i++)
		if (!strs_has(latched, a->world->request->accepted.items[i]))
			json_add_str(names, a->world->request->accepted.items[i]);
	char *text cleanup(str_freep) = json_text(names);
	json_set_str(notes, ANNOTATION_ACCEPTED, text);
}

/* On the Secret as this pass has read it, or not at all. */
result apply_latch(const struct applier *a, const struct action *action, struct err *e)
{
	static const struct { int bit; const char *name; } TIMES[] = {
		{ LATCH_DROPPING, ANNOTATION_DROPPING },
		{ LATCH_ROLLBACK, ANNOTATION_ROLLBACK },
	};
	struct json *patch cleanup(json_freep) = json_object(), *meta = json_ensure_object(patch, "metadata");
	struct json *notes = json_ensure_object(meta, "annotations");
	char now[32];
	time_format(a->world->now_ms, now);
	json_set_str(meta, "resourceVersion", a->world->run.version);
	latch_accepted(a, notes);
	if (action->level & LATCH_APPROVED)
		json_set_str(notes, ANNOTATION_APPROVED, "DroppingOld");
	for (size_t i = 0; i < ARRAY_LEN(TIMES); i++)
		if (action->level & TIMES[i].bit)
			json_set_str(notes, TIMES[i].name, now);
	return patch_secret(a, a->world->run.secret, patch, e);
}

/* --- The administrator's kubeconfig ---------------------------------------------------------------------------------------- */

static result read_pair(const struct applier *a, struct cert **ret_cert, struct key **ret_key, struct err *e)
{
	const struct run_authority *of = &a->world->run.of[AUTHORITY_KUBERNETES];
	char *path cleanup(str_freep) = secret_path(a, of->secret);
	struct json *s cleanup(json_wipep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_SECRET;
	TRY(kube_get(a->kube, path, &s, e));
	const char *text = json_str(json_at(s, "data", "tls.key", NULL));
	if (!text)
		return err_set(e, ERR_INPUT, "Secret %s has lost its tls.key", of->secret);
	TRY(base64_decode(text, strlen(text), &pem, e));
	TRY(cert_from_pem(of->new_pem, strlen(of->new_pem), ret_cert, e));
	return key_from_pem(buf_str(&pem), pem.len, ret_key, e);
}

static result cluster_server(const struct applier *a, char **ret, struct err *e)
{
	struct json *map cleanup(json_freep) = NULL;
	struct kubeconfig config cleanup(kubeconfig_release) = { 0 };
	struct err missing;
	if (kube_get(a->kube, "/api/v1/namespaces/kube-public/configmaps/cluster-info", &map, &missing).ok) {
		const char *text = json_str_or(json_at(map, "data", "kubeconfig", NULL), "");
		TRY(kubeconfig_parse(text, strlen(text), "", &config, e));
	} else if (missing.kind != ERR_NOT_FOUND) {
		*e = missing;
		return FAILED;
	}
	*ret = str_dup(config.server ? config.server : kube_server(a->kube));
	return OK;
}

static result admin_text(const struct applier *a, struct buf *ret_secret, struct err *e)
{
	struct cert *ca cleanup(cert_freep) = NULL, *leaf cleanup(cert_freep) = NULL;
	struct key *ca_key cleanup(key_freep) = NULL, *key cleanup(key_freep) = NULL;
	struct buf key_pem cleanup(buf_release) = BUF_SECRET, leaf_pem cleanup(buf_release) = BUF_INIT,
		   both_pem cleanup(buf_release) = BUF_INIT;
	char *server cleanup(str_freep) = NULL;
	const struct leaf_request q = { .common_name = "kubernetes-admin", .organization = "kubeadm:cluster-admins", .client = true,
					.now_ms = a->world->now_ms, .validity_ms = ADMIN_VALIDITY_MS };
	TRY(read_pair(a, &ca, &ca_key, e));
	TRY(cluster_server(a, &server, e));
	TRY(key_generate(a->world->request ? a->world->request->key_algorithm : "RSA-2048", &key, e));
	TRY(leaf_make(&q, key, ca, ca_key, &leaf, e));
	cert_to_pem(leaf, &leaf_pem);
	published_text(&a->world->run.of[AUTHORITY_KUBERNETES], TRUST_BOTH, &both_pem);
	key_to_pem(key, &key_pem);
	kubeconfig_write("kubernetes", server, "kubernetes-admin", buf_str(&both_pem), buf_str(&leaf_pem), buf_str(&key_pem), ret_secret);
	return OK;
}

static char *admin_secret_path(const struct applier *a)
{
	return str_printf("/api/v1/namespaces/%s/secrets/%s", a->settings->namespace, ADMIN_KUBECONFIG_SECRET);
}

/* Over the one that was read, and no other; NULL: none was there. */
static result put_admin_secret(const struct applier *a, const char *text, const struct json *before, struct err *e)
{
	char *path cleanup(str_freep) = admin_secret_path(a);
	char *all cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/secrets", a->settings->namespace);
	struct json *s cleanup(json_wipep) = json_object(), *meta = json_ensure_object(s, "metadata");
	json_set_str(s, "apiVersion", "v1");
	json_set_str(s, "kind", "Secret");
	json_set_str(meta, "name", ADMIN_KUBECONFIG_SECRET);
	json_set_str(meta, "resourceVersion", json_str(json_at(before, "metadata", "resourceVersion", NULL)));
	json_set_str(json_ensure_object(meta, "labels"), LABEL_RUN, a->world->run.id);
	set_data(json_ensure_object(s, "data"), "value", text);
	return before ? kube_patch(a->kube, path, KUBE_APPLY, s, NULL, e) : kube_create(a->kube, all, s, NULL, e);
}

/* The same client certificate and key: whoever has taken it already has nothing to do but to trust less. */
static result take_old_out(const struct applier *a, struct err *e)
{
	char *path cleanup(str_freep) = admin_secret_path(a);
	struct json *secret cleanup(json_wipep) = NULL;
	struct buf before cleanup(buf_release) = BUF_SECRET, after cleanup(buf_release) = BUF_SECRET,
		   new_pem cleanup(buf_release) = BUF_INIT;
	TRY(kube_get(a->kube, path, &secret, e));
	const char *value = json_str_or(json_at(secret, "data", "value", NULL), "");
	TRY(base64_decode(value, strlen(value), &before, e));
	published_text(&a->world->run.of[AUTHORITY_KUBERNETES], TRUST_NEW, &new_pem);
	TRY(kubeconfig_replace(buf_str(&before), before.len, buf_str(&new_pem), NULL, NULL, &after, e));
	return put_admin_secret(a, buf_str(&after), secret, e);
}

/* One that is there for this run, and whole, may be in somebody's hands and stays. */
static result make_first(const struct applier *a, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	char *path cleanup(str_freep) = admin_secret_path(a);
	struct json *there cleanup(json_wipep) = NULL;
	struct err missing;
	if (!kube_get(a->kube, path, &there, &missing).ok && missing.kind != ERR_NOT_FOUND) {
		*e = missing;
		return FAILED;
	}
	if (there && admin_kubeconfig_serves(&a->world->run, there))
		return OK;
	TRY(admin_text(a, &text, e));
	return put_admin_secret(a, buf_str(&text), there, e);
}

/* On the way back what it holds will be refused: it goes. */
result apply_admin_kubeconfig(const struct applier *a, const struct action *action, struct err *e)
{
	char *path cleanup(str_freep) = admin_secret_path(a);
	if (a->world->run.back)
		return kube_delete(a->kube, path, NULL, NULL, e);
	if (action->level == TRUST_NEW) {
		TRY_CTX(take_old_out(a, e), e, "taking the old authority out of the administrator's kubeconfig");
		return OK;
	}
	TRY_CTX(make_first(a, e), e, "making the administrator's kubeconfig");
	return OK;
}

/* --- The end --------------------------------------------------------------------------------------------------------------- */

/* A write for each object of a list. One that fails keeps no other from its own, and is what comes of all. */
struct each_write {
	const struct applier *a;
	result outcome;
	struct err *e;
};

static bool each_wrote(struct each_write *w, result r, const struct err *e)
{
	if (!r.ok) {
		*w->e = *e;
		w->outcome = FAILED;
	}
	return true;
}

static bool delete_pod(void *context, const struct json *pod)
{
	struct each_write *w = context;
	struct err e = { 0 };
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/pods/%s", w->a->settings->node_namespace,
						   json_str_or(json_at(pod, "metadata", "name", NULL), ""));
	result gone = kube_delete(w->a->kube, path, json_str(json_at(pod, "metadata", "uid", NULL)), NULL, &e);
	return each_wrote(w, e.kind == ERR_NOT_FOUND || e.kind == ERR_CONFLICT ? OK : gone, &e);
}

/* Those of the authorities that the run has replaced, and not what it has closed itself before it was cut short; their triggers stay on
 * record. */
static bool retire(void *context, const struct json *secret)
{
	struct each_write *w = context;
	const struct run *run = &w->a->world->run;
	struct err e = { 0 };
	struct json *patch cleanup(json_freep) = json_object();
	enum authority of = authority_by_name(label(secret, LABEL_AUTHORITY));
	if (of == AUTHORITY_COUNT || !authority_in(run->authorities, of) || str_eq(label(secret, LABEL_RUN), run->id))
		return true;
	json_set(json_ensure_object(patch, "data"), "tls.crt", json_null());
	json_set_str(json_ensure_object(json_ensure_object(patch, "metadata"), "labels"), LABEL_ROLE, "retired");
	return each_wrote(w, patch_secret(w->a, json_str_or(json_at(secret, "metadata", "name", NULL), ""), patch, &e), &e);
}

static result retire_all(const struct applier *a, struct err *e)
{
	char *secrets cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/secrets", a->settings->node_namespace);
	const struct kube_list current = { .path = secrets, .metadata_only = true, .label_selector = LABEL_AUTHORITY "," LABEL_ROLE "=current" };
	struct each_write w = { a, OK, e };
	TRY(kube_list_each(a->kube, &current, retire, NULL, &w, NULL, e));
	return w.outcome;
}

static result close_secret(const struct applier *a, const char *name, struct err *e)
{
	struct json *patch cleanup(json_freep) = json_object(), *meta = json_ensure_object(patch, "metadata");
	struct json *data = json_ensure_object(patch, "data");
	/* private keys first of all, and everything that O issued or is */
	static const char *const PASSING[] = { "tls.key", "probe.key", "probe-new.crt", "probe-old.crt", "old.crt", "bridge.crt",
					       "bridge-back.crt" };
	char now[32];
	time_format(a->world->now_ms, now);
	for (size_t i = 0; i < ARRAY_LEN(PASSING); i++)
		json_set(data, PASSING[i], json_null());
	if (a->world->run.back)
		json_set(data, "tls.crt", json_null());
	json_set_str(json_ensure_object(meta, "labels"), LABEL_ROLE, a->world->run.back ? "rolled-back" : "current");
	json_set_str(json_ensure_object(meta, "annotations"), ANNOTATION_COMPLETED, now);
	return patch_secret(a, name, patch, e);
}

result apply_dismiss(const struct applier *a, struct err *e)
{
	char *pods cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/pods", a->settings->node_namespace);
	const struct kube_list jobs = { .path = pods, .label_selector = LABEL_JOB "=true", .metadata_only = true };
	struct each_write w = { a, OK, e };
	TRY(kube_list_each(a->kube, &jobs, delete_pod, NULL, &w, NULL, e));
	return w.outcome;
}

/* The role of the lead's Secret is the last write: until then the walk comes back here, from the first one that is closed on in any case
 * (run.finishing). Node Pods, with what nodes have said, go as late as can be: without it every node is asked once more. One that can't be
 * taken away now goes when no run is under way (forecast_rest). */
result apply_finish(const struct applier *a, struct err *e)
{
	const struct run *run = &a->world->run;
	struct err left;
	if (!run->back)
		TRY(retire_all(a, e));
	for (size_t i = 0; i < AUTHORITY_COUNT; i++)
		if (run->of[i].secret && !str_eq(run->of[i].secret, run->secret))
			TRY(close_secret(a, run->of[i].secret, e));
	if (!apply_dismiss(a, &left).ok)
		log_line(LOG_DEBUG, "node Pods are left", "error", left.message, NULL);
	return close_secret(a, run->secret, e);
}
