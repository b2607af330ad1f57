/* caBundles: the API server is the client of webhooks, aggregated API servers and conversions, and trusts there what the object says. */
#include "ca_bundles.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 50
#define CRDS_PAGE 4        /* a CustomResourceDefinition has up to 1.5 MiB, in many small nodes */
#define CRDS_META_PAGE 50
#define CONVERTING_MAX 1000
#define REWRITE_MS 5000    /* the first answer to somebody else's write; twice that for each one more */
#define REWRITE_MAX_MS 300000
#define REVERTS_MAX 16
#define FOUGHT 3
#define REASON_MAX 900     /* of all webhooks of an object; the schema takes 1024 */

/* --- Every caBundle ----------------------------------------------------------------------------------------------------- */

struct visit {
	bool (*each)(void *context, const struct ca_bundle *b);
	void *context;
	const char *kind, *collection;
	void (*configs)(struct visit *v, const struct json *object);
	struct strs converting;      /* CRDs with a caBundle, as far as seen */
	bool ended, lost;
};

static void visit_release(struct visit *v)
{
	strs_release(&v->converting);
}

static const char *name_of(const struct json *object)
{
	return json_str_or(json_at(object, "metadata", "name", NULL), "");
}

static void visit_config(struct visit *v, const struct json *object, const char *part, const char *pointer, const struct json *config)
{
	const char *encoded = json_get_str(config, "caBundle");
	struct buf pem cleanup(buf_release) = BUF_INIT;
	struct err e;
	if (v->ended || !encoded || !*encoded || !base64_decode(encoded, strlen(encoded), &pem, &e).ok)
		return;
	char *name cleanup(str_freep) = str_printf("%s/%s", v->kind, name_of(object));
	char *path cleanup(str_freep) = str_printf("%s/%s", v->collection, name_of(object));
	const struct ca_bundle b = { .object = name, .path = path, .part = part, .pointer = pointer,
				     .metadata = json_get(object, "metadata"), .config = config, .pem = buf_str(&pem), .len = pem.len };
	v->ended = !v->each(v->context, &b);
}

static void webhooks(struct visit *v, const struct json *object)
{
	size_t i = 0;
	json_each(hook, json_get(object, "webhooks")) {
		char *pointer cleanup(str_freep) = str_printf("/webhooks/%zu/clientConfig/caBundle", i++);
		visit_config(v, object, json_get_str(hook, "name"), pointer, json_get(hook, "clientConfig"));
	}
}

static void api_service(struct visit *v, const struct json *object)
{
	visit_config(v, object, NULL, "/spec/caBundle", json_get(object, "spec"));
}

static void conversion(struct visit *v, const struct json *object)
{
	const struct json *config = json_at(object, "spec", "conversion", "webhook", "clientConfig", NULL);
	if (config && v->converting.n <= CONVERTING_MAX)
		strs_add(&v->converting, name_of(object));
	visit_config(v, object, NULL, "/spec/conversion/webhook/clientConfig/caBundle", config);
}

static bool visit_object(void *context, const struct json *object)
{
	struct visit *v = context;
	v->configs(v, object);
	return !v->ended;
}

static void visit_lost(void *context)
{
	struct visit *v = context;
	v->lost = true;
}

static result visit_all(struct kube *k, struct visit *v, size_t page, struct err *e)
{
	const struct kube_list q = { .path = v->collection, .page = page };
	TRY(kube_list_each(k, &q, visit_object, visit_lost, v, NULL, e));
	return v->lost ? err_set(e, ERR_EXPIRED, "the list of %ss expired in the middle", v->kind) : OK;
}

/* --- CRDs: large, and few of them have a caBundle. While all names and versions are the same, so are those. ---------------------- */

static bool add_version(void *context, const struct json *object)
{
	buf_addf(context, "%s %s\n", json_str_or(json_at(object, "metadata", "uid", NULL), name_of(object)),
		 json_str_or(json_at(object, "metadata", "resourceVersion", NULL), ""));
	return true;
}

static void drop_versions(void *context)
{
	buf_clear(context);
}

static result visit_converting(struct kube *k, struct visit *v, const struct strs *names, struct err *e)
{
	for (size_t i = 0; i < names->n && !v->ended; i++) {
		char *path cleanup(str_freep) = str_printf("%s/%s", v->collection, names->items[i]);
		struct json *crd cleanup(json_freep) = NULL;
		struct err missing;
		if (kube_get(k, path, &crd, &missing).ok) {
			v->configs(v, crd);
		} else if (missing.kind != ERR_NOT_FOUND) {
			*e = missing;
			return FAILED;
		}
	}
	return OK;
}

static result visit_crds(struct kube *k, struct bundle_memory *m, struct visit *v, struct err *e)
{
	const struct kube_list q = { .path = v->collection, .metadata_only = true, .page = CRDS_META_PAGE };
	struct buf versions cleanup(buf_release) = BUF_INIT;
	char digest[65];
	TRY(kube_list_each(k, &q, add_version, drop_versions, &versions, NULL, e));
	sha256_hex(versions.data, versions.len, digest);
	if (str_eq(digest, m->crds))
		return visit_converting(k, v, &m->converting, e);
	m->crds[0] = '\0';
	TRY(visit_all(k, v, CRDS_PAGE, e));
	if (v->ended || versions.overflow || v->converting.n > CONVERTING_MAX)
		return OK;
	strs_release(&m->converting);
	m->converting = v->converting;
	v->converting = (struct strs){ 0 };
	str_copy(m->crds, sizeof m->crds, digest);
	return OK;
}

result ca_bundles_each(struct kube *k, struct bundle_memory *m, bool (*each)(void *context, const struct ca_bundle *b), void *context,
		       struct err *e)
{
	static const struct { const char *kind, *collection; void (*configs)(struct visit *v, const struct json *object); } KINDS[] = {
		{ "ValidatingWebhookConfiguration", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", webhooks },
		{ "MutatingWebhookConfiguration", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations", webhooks },
		{ "APIService", "/apis/apiregistration.k8s.io/v1/apiservices", api_service },
		{ "CustomResourceDefinition", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", conversion },
	};
	struct visit v cleanup(visit_release) = { .each = each, .context = context };
	for (size_t i = 0; i < ARRAY_LEN(KINDS) && !v.ended; i++) {
		v.kind = KINDS[i].kind;
		v.collection = KINDS[i].collection;
		v.configs = KINDS[i].configs;
		TRY(v.configs == conversion ? visit_crds(k, m, &v, e) : visit_all(k, &v, PAGE, e));
	}
	return OK;
}

/* --- What one holds ------------------------------------------------------------------------------------------------------- */

struct trace {
	struct cert *old;
	bool has_old, has_issued;
};

static void trace_release(struct trace *t)
{
	cert_freep(&t->old);
}

static void trace_one(void *context, const struct cert *c)
{
	struct trace *t = context;
	bool is_old = cert_equal(c, t->old);
	t->has_old = t->has_old || is_old;
	t->has_issued = t->has_issued || (!is_old && cert_issued_by(c, t->old));
}

enum bundle_state ca_bundle_state(const struct run_authority *of, const char *pem, size_t len)
{
	struct bundle_content found = { 0 };
	struct trace t cleanup(trace_release) = { 0 };
	struct err e;
	if (bundle_look(of, pem, len, &found, &e).ok && !found.has_other)
		return !found.has_old ? BUNDLE_NEW : found.has_new ? BUNDLE_BOTH : BUNDLE_OLD;
	if (!of->old_pem || !cert_from_pem(of->old_pem, strlen(of->old_pem), &t.old, &e).ok)
		return BUNDLE_FOREIGN;
	certs_scan(pem, trace_one, &t);
	return t.has_old ? BUNDLE_MIXED : t.has_issued ? BUNDLE_CHAINED : BUNDLE_FOREIGN;
}

static bool ends_with(const char *text, size_t len, const char *tail, size_t n)
{
	return len >= n && memcmp(text + len - n, tail, n) == 0;
}

/* N goes behind what is there, without its line break where that ends without one: so the way back knows which it was. */
static void add_behind(const char *pem, size_t len, const struct buf *more, struct buf *out)
{
	bool whole = len && pem[len - 1] == '\n';
	buf_add(out, pem, len);
	if (!whole)
		buf_add_char(out, '\n');
	buf_add(out, more->data, more->len - (whole ? 0 : 1));
}

/* The reverse; false when `more` is not what add_behind has put there. */
static bool take_from_behind(const char *pem, size_t len, const struct buf *more, struct buf *out)
{
	size_t cut = len && pem[len - 1] == '\n' ? more->len : more->len - 1;
	if (!ends_with(pem, len, buf_str(more), cut))
		return false;
	size_t left = len - cut;
	if (cut < more->len && left && pem[left - 1] == '\n')
		left--;
	buf_add(out, pem, left);
	return true;
}

static void cert_of(const char *pem, struct buf *out)
{
	struct cert *c cleanup(cert_freep) = NULL;
	struct err e;
	if (pem && cert_from_pem(pem, strlen(pem), &c, &e).ok)
		cert_to_pem(c, out);
}

void ca_bundle_text(const struct run_authority *of, int level, const char *pem, size_t len, struct buf *out)
{
	struct buf cert cleanup(buf_release) = BUF_INIT, left cleanup(buf_release) = BUF_INIT;
	cert_of(level == TRUST_NEW ? of->old_pem : of->new_pem, &cert);
	if (level == TRUST_BOTH && cert.len)
		add_behind(pem, len, &cert, out);
	else if (cert.len && take_from_behind(pem, len, &cert, &left) && ca_bundle_state(of, buf_str(&left), left.len) == BUNDLE_NEW)
		buf_add(out, left.data, left.len);
	else
		published_text(of, level, out);
}

/* --- Memory -------------------------------------------------------------------------------------------------------------------- */

struct bundle_memory *bundle_memory_new(void)
{
	return mem_alloc(sizeof(struct bundle_memory));
}

static void forget_run(struct bundle_memory *m)
{
	str_freep(&m->leg);
	for (size_t i = 0; i < m->n_servers; i++) {
		str_freep(&m->servers[i].name);
		str_freep(&m->servers[i].said);
	}
	for (size_t i = 0; i < m->n_writes; i++)
		str_freep(&m->writes[i].object);
	free(m->servers);
	free(m->writes);
	m->servers = NULL;
	m->writes = NULL;
	m->n_servers = m->n_writes = 0;
}

void bundle_memory_freep(struct bundle_memory **m)
{
	if (!*m)
		return;
	forget_run(*m);
	strs_release(&(*m)->converting);
	free(*m);
	*m = NULL;
}

void bundle_memory_turn(struct bundle_memory *m, const char *leg)
{
	m->looked_ms = 0;
	if (m->leg && str_eq(m->leg, leg))
		return;
	forget_run(m);
	m->leg = str_dup(leg ? leg : "");
}

static struct bundle_write *write_of(const struct bundle_memory *m, const char *object)
{
	for (size_t i = 0; i < m->n_writes; i++)
		if (str_eq(m->writes[i].object, object))
			return &m->writes[i];
	return NULL;
}

const struct bundle_write *bundle_memory_write(const struct bundle_memory *m, const char *object)
{
	return write_of(m, object);
}

/* An object that was moved to N alone after both is no answer to anybody. */
void ca_bundle_written(struct bundle_memory *m, const char *object, int level, int64_t now_ms)
{
	struct bundle_write *w = write_of(m, object);
	if (!w) {
		m->writes = mem_realloc(m->writes, m->n_writes + 1, sizeof *m->writes);
		w = &m->writes[m->n_writes++];
		*w = (struct bundle_write){ .object = str_dup(object) };
	}
	if (level <= w->level && w->reverts < REVERTS_MAX)
		w->reverts++;
	w->level = level;
	w->at_ms = now_ms;
}

static bool written_back(const struct bundle_write *w, enum bundle_state state)
{
	return w && (state == BUNDLE_OLD || (state == BUNDLE_BOTH && w->level == TRUST_NEW));
}

/* How long until it may be written again. */
static int64_t rest_of(const struct bundle_write *w, enum bundle_state state, int64_t now_ms)
{
	if (!written_back(w, state) || w->at_ms > now_ms)
		return 0;
	int64_t apart = (int64_t)REWRITE_MS << w->reverts;
	int64_t left = w->at_ms + (apart < REWRITE_MAX_MS ? apart : REWRITE_MAX_MS) - now_ms;
	return left > 0 ? left : 0;
}

bool ca_bundle_may_move(const struct bundle_memory *m, const struct ca_bundle *b, enum bundle_state state, int level, int64_t now_ms)
{
	bool behind = level == TRUST_NEW ? state == BUNDLE_BOTH && ca_bundle_seen(m, b, now_ms) == PRESENTS_NEW : state == BUNDLE_OLD;
	return behind && !rest_of(write_of(m, b->object), state, now_ms);
}

/* --- Into the world ------------------------------------------------------------------------------------------------------------- */

struct look {
	struct observation *o;
	const struct run_authority *of;
	char *kept, *listed;     /* the last object that was added to the keepers, to the plan's list */
	bool looks;              /* what is served matters by now */
};

static void look_release(struct look *l)
{
	str_freep(&l->kept);
	str_freep(&l->listed);
}

/* True when the object is not the last one by now. */
static bool is_next(char **last, const char *object)
{
	if (*last && str_eq(*last, object))
		return false;
	str_freep(last);
	*last = str_dup(object);
	return true;
}

static bool is_accepted(const struct world *w, const char *object)
{
	return strs_has(&w->run.accepted, object) || (w->request && strs_has(&w->request->accepted, object));
}

static void add_reason(char **reason, const char *part, const char *why)
{
	if (*reason && strlen(*reason) > REASON_MAX / 2)
		return;
	char *text = str_printf("%s%s%s%s%s%s", *reason ? *reason : "", *reason ? "; " : "", part ? "webhook " : "", part ? part : "",
				part ? ": " : "", why);
	text[str_cut(text, REASON_MAX)] = '\0';
	str_freep(reason);
	*reason = text;
}

/* One for an object, with a reason for each of its webhooks. */
static void keep(struct look *l, const struct ca_bundle *b, const char *why)
{
	struct world *w = l->o->world;
	if (is_accepted(w, b->object))
		return;
	struct bundle_keeper *k = is_next(&l->kept, b->object)                      ? world_add_keeper(w)
				  : w->ca_bundles.keepers_total <= WORLD_LISTED_MAX ? &w->ca_bundles.keepers[w->ca_bundles.n_keepers - 1]
										    : NULL;
	if (!k)
		return;
	if (!k->object)
		k->object = str_dup(b->object);
	add_reason(&k->reason, b->part, why);
}

/* Who else has written the object last. */
static const char *other_writer(const struct ca_bundle *b)
{
	const char *who = NULL, *when = "";
	json_each(m, json_get(b->metadata, "managedFields")) {
		const char *manager = json_get_str(m, "manager"), *time = json_str_or(json_get(m, "time"), "");
		if (!manager || str_eq(manager, "certrotation") || json_get(m, "subresource") || strcmp(time, when) < 0)
			continue;
		who = manager;
		when = time;
	}
	return who ? who : "somebody";
}

static void note_reverted(struct ca_bundles *n, const struct ca_bundle *b, const struct bundle_write *w, int64_t left)
{
	if (n->reverted.n < WORLD_NAMES_MAX)
		strs_addf(&n->reverted, "%s (by %.60s)", b->object, other_writer(b));
	n->again_ms = !n->again_ms || left < n->again_ms ? left : n->again_ms;
	n->fought = n->fought || w->reverts >= FOUGHT;
}

/* False: it is left as somebody else has written it, for it was accepted by name. */
static bool is_waited_for(struct look *l, const struct ca_bundle *b, enum bundle_state state)
{
	const struct bundle_write *w = write_of(l->o->bundles, b->object);
	int64_t left = rest_of(w, state, l->o->world->now_ms);
	if (is_accepted(l->o->world, b->object) && written_back(w, state))
		return false;
	if (left)
		note_reverted(&l->o->world->ca_bundles, b, w, left);
	return true;
}

static void count_old(struct look *l, const struct ca_bundle *b)
{
	struct ca_bundles *n = &l->o->world->ca_bundles;
	tally_lag(&n->tally.lag_new, b->object);
	tally_lag(&n->tally.lag_only, b->object);
	if (!is_waited_for(l, b, BUNDLE_OLD))
		return;
	n->wait_both++;
	n->wait_new++;
	n->to_both += ca_bundle_may_move(l->o->bundles, b, BUNDLE_OLD, TRUST_BOTH, l->o->world->now_ms);
}

static void keep_served(struct look *l, const struct ca_bundle *b, enum presents what, const char *said)
{
	char *why cleanup(str_freep) = str_printf(
		"%s: %s, or accept it by name: its caBundle then keeps both authorities", said,
		what == PRESENTS_NOTHING ? "let the controller see it" : "renew its serving certificate, the new authority signs by now");
	keep(l, b, why);
}

static void count_both(struct look *l, const struct ca_bundle *b)
{
	struct world *w = l->o->world;
	const char *said = "";
	enum presents what = l->looks ? ca_bundle_look(l->o, b, &said) : PRESENTS_UNSEEN;
	tally_lag(&w->ca_bundles.tally.lag_only, b->object);
	if (what != PRESENTS_NEW && is_accepted(w, b->object))
		return;
	if (what == PRESENTS_NEW && !is_waited_for(l, b, BUNDLE_BOTH))
		return;
	w->ca_bundles.wait_new++;
	if (what == PRESENTS_NEW)
		w->ca_bundles.to_new += ca_bundle_may_move(l->o->bundles, b, BUNDLE_BOTH, TRUST_NEW, w->now_ms);
	else if (what == PRESENTS_UNSEEN)
		w->ca_bundles.unlooked++;
	else
		keep_served(l, b, what, said);
}

static void count_moved(struct look *l, const struct ca_bundle *b, enum bundle_state state)
{
	struct tally *t = &l->o->world->ca_bundles.tally;
	t->total++;
	t->with_new += state != BUNDLE_OLD;
	t->only_new += state == BUNDLE_NEW;
	if (state == BUNDLE_OLD)
		count_old(l, b);
	else if (state == BUNDLE_BOTH)
		count_both(l, b);
}

static void list_for_plan(struct look *l, const struct ca_bundle *b)
{
	struct ca_bundles *n = &l->o->world->ca_bundles;
	n->tally.total++;
	if (is_next(&l->listed, b->object) && n->listed_total++ < WORLD_LISTED_MAX)
		strs_add(&n->listed, b->object);
}

static bool each_bundle(void *context, const struct ca_bundle *b)
{
	struct look *l = context;
	enum bundle_state state = ca_bundle_state(l->of, b->pem, b->len);
	if (state == BUNDLE_MIXED)
		keep(l, b, "its caBundle holds the old authority among others, so it is yours to change: put the new one in, and take the old "
			   "one out once its server has a certificate from the new one; or accept it by name, and it stays as it is");
	else if (state == BUNDLE_CHAINED)
		keep(l, b, "its caBundle holds what the old authority has issued: replace it by what its server's next certificate comes from, or "
			   "accept it by name, and it stays as it is");
	else if (state != BUNDLE_FOREIGN && world_is_planned(l->o->world))
		list_for_plan(l, b);
	else if (state != BUNDLE_FOREIGN)
		count_moved(l, b, state);
	return true;
}

/* The owner of a server can't renew its certificate before the new authority signs, and need not be asked before. */
static bool only_new_is_published(const struct world *w)
{
	const struct tally *t = &w->root_configmaps;
	return w->run.exists && t->known && t->only_new == t->total;
}

static result ca_bundles_observe(struct observation *o, struct err *e)
{
	const struct run *run = &o->world->run;
	struct run_authority published = { .old_pem = o->published_pem };
	struct look l cleanup(look_release) = { .o = o, .of = run->exists ? &run->of[AUTHORITY_KUBERNETES] : &published,
						.looks = only_new_is_published(o->world) };
	if (!authority_in(world_authorities(o->world), AUTHORITY_KUBERNETES)) {
		o->world->ca_bundles.tally.known = true; /* they have to do with no other authority */
		return OK;
	}
	if (!l.of->old_pem)
		return run->exists ? OK : err_set(e, ERR_OTHER, "the authority in force is not known");
	bundle_memory_turn(o->bundles, run->leg);
	TRY(ca_bundles_each(o->kube, o->bundles, each_bundle, &l, e));
	o->world->ca_bundles.tally.known = true;
	return OK;
}

const struct consumer consumer_ca_bundles = { "caBundles", READS_IN_BOTH, ca_bundles_observe };
