#include "client.h"

#include "file.h"
#include "kubeconfig.h"
#include "past.h"
#include "pki.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#ifndef CERTROTATION_VERSION
#define CERTROTATION_VERSION "0"
#endif

#define USER_AGENT "certrotation/" CERTROTATION_VERSION /* with "curl/" the server would indent its answers */
#define MANAGER "certrotation"
#define SERVICE_ACCOUNT_FOLDER "/var/run/secrets/kubernetes.io/serviceaccount"
#define IN_FLIGHT 8
#define TRIES 5
#define FIRST_WAIT_MS 100
#define LONGEST_WAIT_MS 10000
#define FILE_MAX ((size_t)4 << 20)
#define PAGE 500
#define PAGE_BYTES ((size_t)8 << 20) /* of several objects: it is in memory two or three times, and a container's is limited */
#define RESTARTS 5
#define ACCEPT_METADATA_LIST "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"

enum origin { ORIGIN_PARTS, ORIGIN_SERVICE_ACCOUNT, ORIGIN_KUBECONFIG };

/* What tells one content of a path from the next; symlinks (`..data`) are followed. */
struct stamp {
	dev_t device;
	ino_t inode;
	off_t size;
	struct timespec modified, changed;
};

struct seen_file {
	char *path;
	struct stamp stamp;
};

/* Everything that is read from files. */
struct credentials {
	char *server, *namespace;
	char *ca_pem, *client_cert_pem, *client_key_pem, *token, *server_name;
	struct seen_file files[5];
	size_t n_files;
};

struct kube {
	enum origin origin;
	char *location; /* the folder or the kubeconfig; NULL: nothing to re-read */
	bool insecure;
	struct credentials have;
	struct http_identity identity; /* borrows from `have` */
	struct http_pool *pool;
	struct past *past;
	int64_t timeout_ms; /* 0: http.h's */
	int tries;          /* 0: TRIES */
	bool (*may_write)(void *context); /* NULL: always */
	void *gate_context;
};

/* --- Files that may change ---------------------------------------------------------------------------------------- */

static struct stamp stamp_of(const char *path)
{
	struct stat s = { 0 };
	if (stat(path, &s) != 0)
		return (struct stamp){ .size = -1 };
	return (struct stamp){ s.st_dev, s.st_ino, s.st_size, s.st_mtim, s.st_ctim };
}

static bool time_equal(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

static bool stamp_equal(const struct stamp *a, const struct stamp *b)
{
	return a->device == b->device && a->inode == b->inode && a->size == b->size &&
	       time_equal(a->modified, b->modified) && time_equal(a->changed, b->changed);
}

/* To be called before the file is read: what changes in between is seen the next time. */
static void credentials_saw(struct credentials *c, const char *path)
{
	if (path)
		c->files[c->n_files++] = (struct seen_file){ str_dup(path), stamp_of(path) };
}

static bool credentials_stale(const struct credentials *c)
{
	for (size_t i = 0; i < c->n_files; i++) {
		struct stamp now = stamp_of(c->files[i].path);
		if (!stamp_equal(&now, &c->files[i].stamp))
			return true;
	}
	return false;
}

static void credentials_release(struct credentials *c)
{
	str_freep(&c->server);
	str_freep(&c->namespace);
	str_freep(&c->ca_pem);
	str_freep(&c->client_cert_pem);
	secret_freep(&c->client_key_pem);
	secret_freep(&c->token);
	str_freep(&c->server_name);
	for (size_t i = 0; i < c->n_files; i++)
		str_freep(&c->files[i].path);
	c->n_files = 0;
}

static char *dup_or_null(const char *s)
{
	return s ? str_dup(s) : NULL;
}

static struct credentials credentials_copy(const struct credentials *from)
{
	struct credentials c = {
		.server = dup_or_null(from->server),
		.namespace = dup_or_null(from->namespace),
		.ca_pem = dup_or_null(from->ca_pem),
		.client_cert_pem = dup_or_null(from->client_cert_pem),
		.client_key_pem = dup_or_null(from->client_key_pem),
		.token = dup_or_null(from->token),
		.server_name = dup_or_null(from->server_name),
		.n_files = from->n_files,
	};
	for (size_t i = 0; i < from->n_files; i++)
		c.files[i] = (struct seen_file){ str_dup(from->files[i].path), from->files[i].stamp };
	return c;
}

/* --- Reading them ------------------------------------------------------------------------------------------------- */

/* libcurl would say no more than that it can't use it. */
static result check_bundle(const char *pem, const char *origin, struct err *e)
{
	struct certs list cleanup(certs_release) = { 0 };
	if (!pem)
		return err_set(e, ERR_INPUT, "%s: no CA certificates to verify the server with", origin);
	TRY_CTX(certs_from_pem(pem, strlen(pem), &list, e), e, "CA certificates of %s", origin);
	return OK;
}

static result read_one(struct credentials *c, const char *folder, const char *name, char **ret, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	char *path cleanup(str_freep) = str_printf("%s/%s", folder, name);
	credentials_saw(c, path);
	TRY(file_read(path, FILE_MAX, &text, e));
	size_t len = strspn(buf_str(&text), " \t\r\n");
	if (len == text.len || strlen(text.data) != text.len)
		return err_set(e, ERR_IO, "%s is empty or not text", path);
	*ret = buf_take(&text);
	return OK;
}

/* Without the line break at its end. */
static result read_line(struct credentials *c, const char *folder, const char *name, char **ret, struct err *e)
{
	TRY(read_one(c, folder, name, ret, e));
	for (size_t n = strlen(*ret); strchr(" \t\r\n", (*ret)[n - 1]); n--)
		(*ret)[n - 1] = '\0';
	return OK;
}

static result load_service_account(const struct kube *k, struct credentials *c, struct err *e)
{
	struct err why = { 0 };
	c->server = str_dup(k->have.server);
	TRY(read_one(c, k->location, "ca.crt", &c->ca_pem, e));
	TRY(read_line(c, k->location, "token", &c->token, e));
	if (!read_line(c, k->location, "namespace", &c->namespace, &why).ok) {
		if (why.kind != ERR_NOT_FOUND)
			return err_set(e, why.kind, "%s", why.message);
		c->namespace = str_dup("");
	}
	return check_bundle(c->ca_pem, k->location, e);
}

static result load_kubeconfig(const struct kube *k, struct credentials *c, struct err *e)
{
	struct kubeconfig paths cleanup(kubeconfig_release) = { 0 }, now cleanup(kubeconfig_release) = { 0 };
	credentials_saw(c, k->location);
	/* Twice: the first tells which files to stamp before they are read. */
	TRY(kubeconfig_load(k->location, "", &paths, e));
	credentials_saw(c, paths.ca_path);
	credentials_saw(c, paths.client_cert_path);
	credentials_saw(c, paths.client_key_path);
	credentials_saw(c, paths.token_path);
	TRY(kubeconfig_load(k->location, "", &now, e));
	if (now.unsupported)
		return err_set(e, ERR_INPUT, "%s: %s is not supported: name a file with a client certificate or a token",
			       k->location, now.unsupported);
	TRY(check_bundle(now.ca_pem, k->location, e));
	c->namespace = str_dup("");
	c->server = steal(&now.server);
	c->ca_pem = steal(&now.ca_pem);
	c->client_cert_pem = steal(&now.client_cert_pem);
	c->client_key_pem = steal(&now.client_key_pem);
	c->token = steal(&now.token);
	c->server_name = steal(&now.tls_server_name);
	return OK;
}

static void adopt(struct kube *k, struct credentials *taken)
{
	credentials_release(&k->have);
	k->have = *taken;
	*taken = (struct credentials){ 0 };
	k->identity = (struct http_identity){
		.ca_pem = k->have.ca_pem,
		.client_cert_pem = k->have.client_cert_pem,
		.client_key_pem = k->have.client_key_pem,
		.bearer_token = k->have.token,
		.insecure = k->insecure,
		.server_name = k->have.server_name,
	};
	http_pool_identity(k->pool, &k->identity);
}

static result load(struct kube *k, struct err *e)
{
	struct credentials fresh cleanup(credentials_release) = { 0 };
	if (k->origin == ORIGIN_SERVICE_ACCOUNT)
		TRY(load_service_account(k, &fresh, e));
	else
		TRY(load_kubeconfig(k, &fresh, e));
	while (fresh.server[0] && str_ends(fresh.server, "/"))
		fresh.server[strlen(fresh.server) - 1] = '\0';
	adopt(k, &fresh);
	return OK;
}

/* Whatever goes wrong here is no answer of the server: a missing file must not read as a missing object. */
static result refresh(struct kube *k, struct err *e)
{
	struct err why = { 0 };
	if (!credentials_stale(&k->have) || load(k, &why).ok)
		return OK;
	return err_set(e, ERR_IO, "reading our credentials again: %s", why.message);
}

/* --- Life cycle --------------------------------------------------------------------------------------------------- */

static struct kube *kube_new(enum origin origin, const char *location)
{
	struct kube *k = mem_alloc(sizeof(*k));
	k->origin = origin;
	k->location = dup_or_null(location);
	k->pool = http_pool_new(IN_FLIGHT, USER_AGENT);
	k->past = past_new();
	return k;
}

void kube_freep(struct kube **k)
{
	if (!*k)
		return;
	http_pool_freep(&(*k)->pool);
	past_freep(&(*k)->past);
	credentials_release(&(*k)->have);
	str_freep(&(*k)->location);
	free(*k);
	*k = NULL;
}

result kube_from_service_account(const char *server, const char *folder, struct kube **ret, struct err *e)
{
	struct kube *k cleanup(kube_freep) = kube_new(ORIGIN_SERVICE_ACCOUNT, folder);
	k->have.server = str_dup(server);
	TRY(load(k, e));
	*ret = steal(&k);
	return OK;
}

result kube_in_cluster(struct kube **ret, struct err *e)
{
	const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");
	if (!host || !*host || !port || !*port)
		return err_set(e, ERR_INPUT,
			       "KUBERNETES_SERVICE_HOST and _PORT are not set: not in a pod? Name a kubeconfig instead");
	bool v6 = strchr(host, ':');
	char *server cleanup(str_freep) = str_printf("https://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);
	return kube_from_service_account(server, SERVICE_ACCOUNT_FOLDER, ret, e);
}

result kube_from_kubeconfig(const char *path, struct kube **ret, struct err *e)
{
	struct kube *k cleanup(kube_freep) = kube_new(ORIGIN_KUBECONFIG, path);
	TRY(load(k, e));
	*ret = steal(&k);
	return OK;
}

result kube_from_identity(const char *server, const struct http_identity *id, struct kube **ret, struct err *e)
{
	struct kube *k cleanup(kube_freep) = kube_new(ORIGIN_PARTS, NULL);
	if (!id->insecure)
		TRY(check_bundle(id->ca_pem, "the given identity", e));
	struct credentials given = {
		.server = str_dup(server),
		.namespace = str_dup(""),
		.ca_pem = dup_or_null(id->ca_pem),
		.client_cert_pem = dup_or_null(id->client_cert_pem),
		.client_key_pem = dup_or_null(id->client_key_pem),
		.token = dup_or_null(id->bearer_token),
		.server_name = dup_or_null(id->server_name),
	};
	k->insecure = id->insecure;
	adopt(k, &given);
	*ret = steal(&k);
	return OK;
}

struct kube *kube_clone(const struct kube *k)
{
	struct kube *copy = kube_new(k->origin, k->location);
	struct credentials same = credentials_copy(&k->have);
	copy->insecure = k->insecure;
	adopt(copy, &same);
	return copy;
}

void kube_limits(struct kube *k, int64_t timeout_ms, int tries)
{
	k->timeout_ms = timeout_ms;
	k->tries = tries;
}

void kube_gate(struct kube *k, bool (*may_write)(void *context), void *context)
{
	k->may_write = may_write;
	k->gate_context = context;
}

const char *kube_server(const struct kube *k)
{
	return k->have.server;
}

const char *kube_namespace(const struct kube *k)
{
	return k->have.namespace;
}

const struct http_identity *kube_identity(struct kube *k)
{
	struct err ignored = { 0 };
	(void)!refresh(k, &ignored).ok;
	return &k->identity;
}

const char *kube_ca_pem(struct kube *k)
{
	return kube_identity(k)->ca_pem;
}

/* --- One call ----------------------------------------------------------------------------------------------------- */

struct call {
	const char *method, *path; /* the path may have a query */
	const char *query;         /* "a=b&c=d", encoded; NULL: none */
	const char *content_type, *accept;
	const struct buf *body;
	bool any_status;           /* the caller judges it */
	bool dated;                /* the answer's resourceVersion says of when it is */
	bool secret;
	size_t max_body;           /* of the answer; 0: as much as http.h takes */
};

static int path_len(const char *path)
{
	return (int)strcspn(path, "?");
}

static bool about_secrets(const char *path)
{
	size_t n = (size_t)path_len(path);
	for (const char *at = strstr(path, "/secrets"); at && at < path + n; at = strstr(at + 1, "/secrets"))
		if (strchr("/?", at[strlen("/secrets")]))
			return true;
	return n >= strlen("/token") && strncmp(path + n - strlen("/token"), "/token", strlen("/token")) == 0;
}

static result check_path(const char *path, struct err *e)
{
	bool good = path && path[0] == '/';
	for (const char *p = path; good && *p; p++)
		good = *p > ' ' && *p < 0x7f && *p != '#';
	return good ? OK : err_set(e, ERR_INPUT, "\"%s\" is no path of the Kubernetes API", path ? path : "");
}

static char *url_of(const struct kube *k, const char *path, const char *query)
{
	const char *join = !query ? "" : strchr(path, '?') ? "&" : "?";
	return str_printf("%s%s%s%s", k->have.server, path, join, query ? query : "");
}

static enum err_kind kind_of_status(long status)
{
	switch (status) {
	case 404:
		return ERR_NOT_FOUND;
	case 409:
		return ERR_CONFLICT;
	case 401:
	case 403:
		return ERR_DENIED;
	case 410:
		return ERR_EXPIRED;
	case 429:
	case 503:
		return ERR_BUSY;
	case 400:
	case 413:
	case 415:
	case 422:
		return ERR_INPUT;
	default:
		return status >= 500 ? ERR_IO : ERR_OTHER;
	}
}

/* These texts speak of names and of rights. Those of others may quote the value that the server did not like. */
static bool text_is_harmless(long status)
{
	enum err_kind kind = kind_of_status(status);
	return kind == ERR_NOT_FOUND || kind == ERR_CONFLICT || kind == ERR_DENIED || kind == ERR_EXPIRED || kind == ERR_BUSY;
}

static void describe_status(const struct json *status, bool with_text, struct buf *out)
{
	const char *message = json_get_str(status, "message");
	if (with_text && message && *message) {
		buf_add_str(out, message);
		return;
	}
	buf_add_str(out, json_str_or(json_get(status, "reason"), "no reason given"));
	json_each(cause, json_at(status, "details", "causes", NULL))
		if (json_get_str(cause, "field"))
			buf_addf(out, ", %s (%s)", json_get_str(cause, "field"),
				 json_str_or(json_get(cause, "reason"), "refused"));
}

/* The first line, as far as it can be printed. */
static void describe_text(const struct buf *body, bool with_text, struct buf *out)
{
	const char *text = buf_str(body);
	size_t n = 0;
	while (n < 200 && text[n] >= ' ' && text[n] < 0x7f)
		n++;
	if (with_text && n && text[0] != '<' && text[0] != '{')
		buf_add(out, text, n);
	else
		buf_addf(out, "no Status in the answer (%zu bytes)", body->len);
}

static void describe(const struct call *c, const struct http_response *r, struct buf *out)
{
	struct json *status cleanup(json_freep) = NULL;
	struct err ignored = { 0 };
	bool with_text = text_is_harmless(r->status) || !about_secrets(c->path);
	if (json_parse(buf_str(&r->body), r->body.len, &status, &ignored).ok && str_eq(json_get_str(status, "kind"), "Status"))
		describe_status(status, with_text, out);
	else
		describe_text(&r->body, with_text, out);
}

static result status_error(const struct kube *k, const struct call *c, const struct http_response *r, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_SECRET;
	describe(c, r, &text);
	if (k->have.token && *k->have.token && strstr(buf_str(&text), k->have.token)) {
		buf_clear(&text);
		buf_add_str(&text, "the answer repeats our token");
	}
	(void)!err_set(e, kind_of_status(r->status), "%s %.*s: %ld: %s", c->method, path_len(c->path), c->path, r->status,
		       buf_str(&text)).ok;
	e->retry_after_ms = e->kind == ERR_BUSY ? r->retry_after_ms : 0;
	return FAILED;
}

static struct http_request request_of(const struct call *c, const char *url)
{
	return (struct http_request){
		.method = c->method,
		.url = url,
		.content_type = c->content_type,
		.accept = c->accept,
		.body = c->body ? buf_str(c->body) : NULL,
		.body_len = c->body ? c->body->len : 0,
		.secret = c->secret || about_secrets(c->path),
		.max_body = c->max_body,
	};
}

static result check_gate(const struct kube *k, const char *method, const char *path, struct err *e)
{
	if (!k->may_write || str_eq(method, "GET") || k->may_write(k->gate_context))
		return OK;
	return err_set(e, ERR_DENIED, "%s %.*s: not sent: writing is no longer this process's", method, path_len(path), path);
}

static result call_once(struct kube *k, const struct call *c, struct http_response *r, struct err *e)
{
	TRY(refresh(k, e));
	TRY(check_gate(k, c->method, c->path, e));
	char *url cleanup(str_freep) = url_of(k, c->path, c->query);
	struct http_request q = request_of(c, url);
	q.timeout_ms = k->timeout_ms;
	TRY(http_do(k->pool, &q, r, e));
	return c->any_status || r->status / 100 == 2 ? OK : status_error(k, c, r, e);
}

/* Between half of ms and one and a half. */
static int64_t jittered(int64_t ms)
{
	uint16_t random = 0;
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = 1 << 15;
	return ms / 2 + ms * random / UINT16_MAX;
}

static void sleep_ms(int64_t ms)
{
	struct timespec left = { .tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000 };
	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
}

/* How long to wait before the next try, -1: none. */
static int64_t wait_before_next(const struct kube *k, const struct call *c, const struct err *e, int tries)
{
	bool read = str_eq(c->method, "GET");
	if (tries >= (k->tries ? k->tries : TRIES) || !(e->kind == ERR_BUSY || (read && e->kind == ERR_IO)))
		return -1;
	int64_t asked = e->kind == ERR_BUSY ? e->retry_after_ms : 0;
	if (asked > LONGEST_WAIT_MS)
		return -1;
	return asked + jittered((int64_t)FIRST_WAIT_MS << (asked ? 0 : tries - 1));
}

static result parse_answer(const struct call *c, const struct http_response *r, struct json **ret, struct err *e)
{
	TRY_CTX(json_parse(buf_str(&r->body), r->body.len, ret, e), e, "%s %.*s: answer", c->method, path_len(c->path),
		c->path);
	return OK;
}

static result check_present(struct kube *k, const struct call *c, const struct json *answer, struct err *e)
{
	const char *version = json_str(json_at(answer, "metadata", "resourceVersion", NULL));
	if (!c->dated || !past_is(k->past, c->path, version, clock_monotonic_ms()))
		return OK;
	return err_set(e, ERR_IO, "%s %.*s: the answer (resourceVersion %s) is older than one that came before", c->method,
		       path_len(c->path), c->path, version);
}

static result read_answer(struct kube *k, const struct call *c, const struct http_response *r, struct json **ret, struct err *e)
{
	struct json *answer cleanup(json_wipep) = NULL;
	TRY(parse_answer(c, r, &answer, e));
	TRY(check_present(k, c, answer, e));
	*ret = steal(&answer);
	return OK;
}

/* What was written must be in what is read next: in the object itself, of whose parts /status is one, and in its list. */
static void note_written(struct kube *k, const struct call *c, const struct http_response *r)
{
	struct json *answer cleanup(json_wipep) = NULL;
	struct err ignored = { 0 };
	char *list cleanup(str_freep) = str_ndup(c->path, (size_t)path_len(c->path)), *object cleanup(str_freep) = NULL;
	if (!json_parse(buf_str(&r->body), r->body.len, &answer, &ignored).ok)
		return;
	const struct json *meta = json_get(answer, "metadata");
	if (str_eq(c->method, "POST")) {
		object = str_printf("%s/%s", list, json_str_or(json_get(meta, "name"), ""));
	} else {
		object = str_ndup(list, strlen(list) - (str_ends(list, "/status") ? strlen("/status") : 0));
		list[strrchr(object, '/') - object] = '\0';
	}
	past_note(k->past, object, json_get_str(meta, "resourceVersion"));
	past_note(k->past, list, json_get_str(meta, "resourceVersion"));
}

/* r is to be released also after a failure. */
static result call_do(struct kube *k, const struct call *c, struct http_response *r, struct json **ret_or_null, struct err *e)
{
	TRY(check_path(c->path, e));
	if (c->body && c->body->overflow)
		return err_set(e, ERR_INPUT, "%s %.*s: the object is too large", c->method, path_len(c->path), c->path);
	for (int tries = 1;; tries++) {
		struct err why = { 0 };
		bool done = call_once(k, c, r, &why).ok;
		if (done && c->body && !str_eq(c->method, "DELETE"))
			note_written(k, c, r);
		if (done && (!ret_or_null || read_answer(k, c, r, ret_or_null, &why).ok))
			return OK;
		int64_t wait_ms = wait_before_next(k, c, &why, tries);
		if (wait_ms < 0) {
			*e = why;
			return FAILED;
		}
		http_response_release(r);
		sleep_ms(wait_ms);
	}
}

static result call_json(struct kube *k, const struct call *c, struct json **ret_or_null, struct err *e)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	return call_do(k, c, &r, ret_or_null, e);
}

/* --- One object --------------------------------------------------------------------------------------------------- */

result kube_get(struct kube *k, const char *path, struct json **ret, struct err *e)
{
	return call_json(k, &(struct call){ .method = "GET", .path = path, .dated = true }, ret, e);
}

static result send_object(struct kube *k, const char *method, const char *path, const struct json *object,
			  struct json **ret_or_null, struct err *e)
{
	struct buf body cleanup(buf_release) = BUF_SECRET;
	json_print(object, &body);
	struct call c = { .method = method, .path = path, .query = "fieldManager=" MANAGER, .body = &body };
	return call_json(k, &c, ret_or_null, e);
}

result kube_create(struct kube *k, const char *path, const struct json *object, struct json **ret_or_null, struct err *e)
{
	return send_object(k, "POST", path, object, ret_or_null, e);
}

result kube_update(struct kube *k, const char *path, const struct json *object, struct json **ret_or_null, struct err *e)
{
	return send_object(k, "PUT", path, object, ret_or_null, e);
}

static struct call patch_call(const char *path, enum kube_patch kind, const struct buf *body)
{
	static const char *const types[] = {
		[KUBE_JSON_PATCH] = "application/json-patch+json",
		[KUBE_MERGE_PATCH] = "application/merge-patch+json",
		[KUBE_STRATEGIC_PATCH] = "application/strategic-merge-patch+json",
		[KUBE_APPLY] = "application/apply-patch+yaml", /* JSON is YAML */
	};
	return (struct call){
		.method = "PATCH",
		.path = path,
		.query = kind == KUBE_APPLY ? "fieldManager=" MANAGER "&force=true" : "fieldManager=" MANAGER,
		.content_type = types[kind],
		.body = body,
	};
}

result kube_patch(struct kube *k, const char *path, enum kube_patch kind, const struct json *patch, struct json **ret_or_null,
		  struct err *e)
{
	struct buf body cleanup(buf_release) = BUF_SECRET;
	json_print(patch, &body);
	struct call c = patch_call(path, kind, &body);
	return call_json(k, &c, ret_or_null, e);
}

result kube_delete(struct kube *k, const char *path, const char *uid, const char *resource_version, struct err *e)
{
	struct json *options cleanup(json_freep) = json_object();
	struct buf body cleanup(buf_release) = BUF_INIT;
	struct err why = { 0 };
	json_set_str(options, "apiVersion", "v1");
	json_set_str(options, "kind", "DeleteOptions");
	json_set_str(options, "propagationPolicy", "Background"); /* the default of Jobs would leave their pods */
	if (uid || resource_version) {
		struct json *preconditions = json_ensure_object(options, "preconditions");
		json_set_str(preconditions, "uid", uid);
		json_set_str(preconditions, "resourceVersion", resource_version);
	}
	json_print(options, &body);
	if (call_json(k, &(struct call){ .method = "DELETE", .path = path, .body = &body }, NULL, &why).ok ||
	    why.kind == ERR_NOT_FOUND)
		return OK;
	*e = why;
	return FAILED;
}

result kube_raw(struct kube *k, const char *path, long *ret_status, struct buf *ret_body, struct err *e)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	TRY(call_do(k, &(struct call){ .method = "GET", .path = path, .accept = "*/*", .any_status = true }, &r, NULL, e));
	*ret_status = r.status;
	*ret_body = r.body;
	r.body = BUF_INIT;
	return OK;
}

result kube_stream(struct kube *k, const char *path, const struct kube_stream *s, struct err *e)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	struct call c = { .method = "GET", .path = path, .accept = s->accept };
	TRY(check_path(path, e));
	TRY(refresh(k, e));
	char *url cleanup(str_freep) = url_of(k, path, NULL);
	struct http_request q = request_of(&c, url);
	q.on_bytes = s->on_bytes;
	q.stop = s->stop;
	q.context = s->context;
	q.timeout_ms = s->timeout_ms;
	q.idle_timeout_ms = s->idle_timeout_ms;
	TRY(http_do(k->pool, &q, &r, e));
	return r.status / 100 == 2 ? OK : status_error(k, &c, &r, e);
}

/* --- Lists -------------------------------------------------------------------------------------------------------- */

static void add_parameter(struct buf *query, const char *name, const char *value)
{
	if (!value || !*value)
		return;
	buf_addf(query, "&%s=", name);
	http_escape(value, query);
}

/* A walk through the pages of one list. */
struct walk {
	struct kube *k;
	const struct kube_list *q;
	size_t limit;
	char *next;     /* the continue token; NULL: from the start */
	char *version;  /* of the list, from its first page */
	int restarts;
	bool ended;     /* by `each` */
};

static void walk_release(struct walk *w)
{
	str_freep(&w->next);
	str_freep(&w->version);
}

static result page_get(const struct walk *w, struct json **ret, bool *ret_too_long, struct err *e)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	struct buf query cleanup(buf_release) = BUF_INIT;
	buf_addf(&query, "limit=%zu", w->limit);
	add_parameter(&query, "fieldSelector", w->q->field_selector);
	add_parameter(&query, "labelSelector", w->q->label_selector);
	add_parameter(&query, "continue", w->next);
	struct call c = {
		.method = "GET",
		.path = w->q->path,
		.query = buf_str(&query),
		.accept = w->q->metadata_only ? ACCEPT_METADATA_LIST : NULL,
		.secret = w->q->secret,
		.dated = !w->next, /* the other pages are of the first one's time */
		.max_body = w->limit > 1 ? PAGE_BYTES : 0,
	};
	result got = call_do(w->k, &c, &r, ret, e);
	*ret_too_long = r.body.overflow;
	return got;
}

/* An answer that is no list must not pass for an empty one. */
static result page_check(const struct walk *w, const struct json *page, struct err *e)
{
	const char *kind = json_get_str(page, "kind");
	const struct json *items = json_get(page, "items");
	if (json_is_array(items) || (kind && str_ends(kind, "List") && (!items || json_is_null(items))))
		return OK;
	return err_set(e, ERR_INPUT, "GET %.*s: the answer is not a list", path_len(w->q->path), w->q->path);
}

static void page_walk(struct walk *w, const struct json *page, bool (*each)(void *context, const struct json *item),
		      void *context)
{
	if (!w->version)
		w->version = str_dup(json_str_or(json_at(page, "metadata", "resourceVersion", NULL), ""));
	json_each(item, json_get(page, "items"))
		if (!each(context, item)) {
			w->ended = true;
			return;
		}
}

static void walk_on(struct walk *w, const struct json *page)
{
	const char *next = json_str(json_at(page, "metadata", "continue", NULL));
	str_freep(&w->next);
	if (next && *next)
		w->next = str_dup(next);
	else
		w->ended = true;
}

/* After a page that did not come: true when the walk can go on. */
static bool walk_recover(struct walk *w, bool too_long, const struct err *why, void (*restart)(void *context), void *context)
{
	if (too_long && w->limit > 1) {
		w->limit /= 2;
		return true;
	}
	if (why->kind != ERR_EXPIRED || !w->next || w->restarts++ >= RESTARTS)
		return false;
	walk_release(w);
	if (restart)
		restart(context);
	return true;
}

result kube_list_each(struct kube *k, const struct kube_list *q, bool (*each)(void *context, const struct json *item),
		      void (*restart)(void *context), void *context, char **ret_resource_version_or_null, struct err *e)
{
	struct walk w cleanup(walk_release) = { .k = k, .q = q, .limit = q->page ? q->page : PAGE };
	while (!w.ended) {
		struct json *page cleanup(json_freep) = NULL;
		struct err why = { 0 };
		bool too_long = false;
		if (page_get(&w, &page, &too_long, &why).ok) {
			TRY(page_check(&w, page, e));
			page_walk(&w, page, each, context);
			if (!w.ended)
				walk_on(&w, page);
		} else if (!walk_recover(&w, too_long, &why, restart, context)) {
			*e = why;
			return FAILED;
		}
	}
	if (ret_resource_version_or_null)
		*ret_resource_version_or_null = steal(&w.version);
	return OK;
}

/* --- Many patches -------------------------------------------------------------------------------------------------- */

#define PER_SECOND 100
#define BULK_TRIES 10
#define SLOWEST_US 1000000
#define CATCH_UP_US 50000 /* how much of a late start may be made up for at once */

/* One patch in flight. */
struct flight {
	struct http_item http; /* first: found again by it */
	struct kube_bulk *item;
	struct call call;
	struct buf body;
	char *url;
};

struct bulk {
	struct kube *k;
	struct kube_bulk *items;
	size_t n, started;
	size_t *again, n_again; /* indices that were BUSY */
	int *tries;
	struct flight flights[IN_FLIGHT];
	size_t n_flights;
	int64_t interval_us, base_us, next_us;
};

static struct flight *flight_free(struct bulk *b)
{
	for (size_t i = 0; i < IN_FLIGHT; i++)
		if (!b->flights[i].item)
			return &b->flights[i];
	return NULL;
}

static void flight_end(struct bulk *b, struct flight *f)
{
	http_response_release(&f->http.response);
	buf_release(&f->body);
	str_freep(&f->url);
	f->item = NULL;
	b->n_flights--;
}

static struct kube_bulk *bulk_take(struct bulk *b)
{
	return &b->items[b->n_again ? b->again[--b->n_again] : b->started++];
}

static void bulk_fail_rest(struct bulk *b, const struct err *why)
{
	while (b->n_again || b->started < b->n) {
		struct kube_bulk *item = bulk_take(b);
		item->outcome = FAILED;
		item->error = *why;
	}
}

/* False: not now. Connections of an old identity are emptied first. */
static bool bulk_identity(struct bulk *b)
{
	struct err why = { 0 };
	if (!credentials_stale(&b->k->have))
		return true;
	if (b->n_flights)
		return false;
	if (refresh(b->k, &why).ok)
		return true;
	bulk_fail_rest(b, &why);
	return false;
}

/* False: nothing more is sent. */
static bool bulk_gate(struct bulk *b)
{
	struct err why = { 0 };
	if (check_gate(b->k, "PATCH", b->items[0].path, &why).ok)
		return true;
	bulk_fail_rest(b, &why);
	return false;
}

static int64_t bulk_wait_ms(const struct bulk *b)
{
	int64_t left_us = b->next_us - clock_monotonic_ms() * 1000;
	return left_us > 0 ? (left_us + 999) / 1000 : 0;
}

/* Items that can't be sent get their outcome here. */
static bool bulk_has_more(struct bulk *b)
{
	while (!b->n_again && b->started < b->n && !check_path(b->items[b->started].path, &b->items[b->started].error).ok)
		b->items[b->started++].outcome = FAILED;
	return b->n_again || b->started < b->n;
}

static void bulk_count_start(struct bulk *b)
{
	int64_t earliest = clock_monotonic_ms() * 1000 - CATCH_UP_US;
	b->next_us = (b->next_us > earliest ? b->next_us : earliest) + b->interval_us;
}

static struct http_item *bulk_start(struct bulk *b, struct flight *f)
{
	struct kube_bulk *item = bulk_take(b);
	b->tries[item - b->items]++;
	f->item = item;
	f->body = BUF_SECRET;
	json_print(item->patch, &f->body);
	f->call = patch_call(item->path, item->kind, &f->body);
	f->url = url_of(b->k, item->path, f->call.query);
	f->http = (struct http_item){ .request = request_of(&f->call, f->url) };
	b->n_flights++;
	bulk_count_start(b);
	return &f->http;
}

static struct http_item *bulk_next(void *context, int64_t *ret_wait_ms)
{
	struct bulk *b = context;
	*ret_wait_ms = -1;
	struct flight *f = flight_free(b);
	if (!f || !bulk_has_more(b) || !bulk_gate(b) || !bulk_identity(b))
		return NULL;
	int64_t wait_ms = bulk_wait_ms(b);
	if (wait_ms > 0) {
		*ret_wait_ms = wait_ms;
		return NULL;
	}
	return bulk_start(b, f);
}

static void bulk_slow_down(struct bulk *b, int64_t asked_ms)
{
	int64_t pause_ms = asked_ms > 0 ? asked_ms : jittered((int64_t)FIRST_WAIT_MS * 5);
	int64_t resume_us = (clock_monotonic_ms() + (pause_ms < LONGEST_WAIT_MS ? pause_ms : LONGEST_WAIT_MS)) * 1000;
	b->next_us = b->next_us > resume_us ? b->next_us : resume_us;
	b->interval_us = b->interval_us * 2 < SLOWEST_US ? b->interval_us * 2 : SLOWEST_US;
}

static void bulk_speed_up(struct bulk *b)
{
	b->interval_us -= (b->interval_us - b->base_us + 15) / 16;
}

static void bulk_done(void *context, struct http_item *http)
{
	struct bulk *b = context;
	struct flight *f = (struct flight *)(void *)http;
	struct kube_bulk *item = f->item;
	size_t index = (size_t)(item - b->items);
	item->outcome = http->outcome;
	item->error = http->error;
	if (http->outcome.ok && http->response.status / 100 != 2)
		item->outcome = status_error(b->k, &f->call, &http->response, &item->error);
	flight_end(b, f);
	if (item->outcome.ok) {
		bulk_speed_up(b);
	} else if (item->error.kind == ERR_BUSY) {
		bulk_slow_down(b, item->error.retry_after_ms);
		if (b->tries[index] < BULK_TRIES)
			b->again[b->n_again++] = index;
	}
}

void kube_patch_all(struct kube *k, struct kube_bulk *items, size_t n, int per_second)
{
	int64_t base_us = 1000000 / (per_second > 0 ? per_second : PER_SECOND);
	struct bulk b = {
		.k = k,
		.items = items,
		.n = n,
		.again = mem_alloc(n * sizeof(*b.again)),
		.tries = mem_alloc(n * sizeof(*b.tries)),
		.interval_us = base_us,
		.base_us = base_us,
		.next_us = clock_monotonic_ms() * 1000,
	};
	http_pump(k->pool, &(struct http_source){ .next = bulk_next, .done = bulk_done, .context = &b });
	free(b.again);
	free(b.tries);
}

void kube_bulk_release(struct kube_bulk *items, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		str_freep(&items[i].path);
		json_freep(&items[i].patch);
	}
	free(items);
}
