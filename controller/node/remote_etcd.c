#include "http.h"
#include "json.h"
#include "remote.h"

#include <stdlib.h>
#include <string.h>

#define AGENT "certrotation-node/" CERTROTATION_VERSION
#define TIMEOUT_MS 5000
#define METRICS_MAX ((size_t)4 << 20)
#define CALLS_MAX 9007199254740992.0 /* 2^53: what a double counts exactly */

static result ask(const struct remote_identity *id, const struct http_request *what, const char *path, struct http_response *ret,
		  struct err *e)
{
	struct http_pool *pool cleanup(http_pool_freep) = http_pool_new(1, AGENT);
	const struct http_identity who = { .ca_pem = id->ca_pem, .client_cert_pem = id->cert_pem, .client_key_pem = id->key_pem };
	char *url cleanup(str_freep) = str_printf("%s%s", id->server, path);
	struct http_request q = *what;
	q.url = url;
	q.timeout_ms = TIMEOUT_MS;
	q.fresh_connection = true;
	http_pool_identity(pool, &who);
	TRY(http_do(pool, &q, ret, e));
	if (ret->status != 200)
		return err_set(e, ERR_IO, "%s answers %ld: %.200s", url, ret->status, buf_str(&ret->body));
	return OK;
}

/* body NULL: a GET. */
static result ask_json(const struct remote_identity *id, const char *path, const char *body, struct json **ret, struct err *e)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	const struct http_request get = { .method = "GET" };
	const struct http_request post = { .method = "POST", .content_type = "application/json", .body = body,
					   .body_len = body ? strlen(body) : 0 };
	TRY(ask(id, body ? &post : &get, path, &r, e));
	return json_parse(buf_str(&r.body), r.body.len, ret, e);
}

result remote_etcd_health(const struct remote_identity *id, struct err *e)
{
	struct json *j cleanup(json_freep) = NULL;
	TRY(ask_json(id, "/health", NULL, &j, e));
	if (!str_eq(json_get_str(j, "health"), "true"))
		return err_set(e, ERR_IO, "%s is not healthy: %s", id->server, json_str_or(json_get(j, "reason"), ""));
	return OK;
}

/* --- Members ------------------------------------------------------------------------------------------------------------------ */

void remote_etcd_view_release(struct remote_etcd_view *v)
{
	str_freep(&v->member);
	str_freep(&v->leader);
	strs_release(&v->ids);
	strs_release(&v->urls);
	v->learners = 0;
}

/* One that has been added and has not started yet has no client URL. */
static void add_member(struct remote_etcd_view *v, const struct json *member)
{
	if (json_get_bool(member, "isLearner", false)) {
		v->learners++;
		return;
	}
	strs_add(&v->ids, json_str_or(json_get(member, "ID"), ""));
	strs_add(&v->urls, json_str_or(json_first(json_get(member, "clientURLs")), ""));
}

result remote_etcd_look(const struct remote_identity *id, struct remote_etcd_view *ret, struct err *e)
{
	struct json *status cleanup(json_freep) = NULL, *list cleanup(json_freep) = NULL;
	struct remote_etcd_view v cleanup(remote_etcd_view_release) = { 0 };
	TRY(ask_json(id, "/v3/maintenance/status", "{}", &status, e));
	TRY(ask_json(id, "/v3/cluster/member/list", "{}", &list, e));
	v.member = str_dup(json_str_or(json_at(status, "header", "member_id", NULL), ""));
	v.leader = str_dup(json_str_or(json_get(status, "leader"), ""));
	json_each(member, json_get(list, "members"))
		add_member(&v, member);
	if (!*v.member || !*v.leader || !strs_has(&v.ids, v.member))
		return err_set(e, ERR_IO, "%s does not say which members there are and who leads", id->server);
	*ret = v;
	v = (struct remote_etcd_view){ 0 };
	return OK;
}

result remote_etcd_hand_over(const struct remote_identity *id, const char *to, struct err *e)
{
	struct json *answer cleanup(json_freep) = NULL, *q cleanup(json_freep) = json_object();
	json_set_str(q, "targetID", to);
	char *body cleanup(str_freep) = json_text(q);
	return ask_json(id, "/v3/maintenance/transfer-leadership", body, &answer, e);
}

/* --- Calls -------------------------------------------------------------------------------------------------------------------- */

/* The sum of a counter over its series of unary calls: "name{…,grpc_type=\"unary\"} value". False when there is none. */
static bool sum_unary(const char *text, const char *name, int64_t *ret)
{
	size_t n = strlen(name);
	bool found = false;
	*ret = 0;
	for (const char *p = text; p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL) {
		const char *labels = p + n, *end = labels;
		if (strncmp(p, name, n) != 0 || *labels != '{')
			continue;
		end = labels + strcspn(labels, "}\n");
		const char *unary = strstr(labels, "grpc_type=\"unary\"");
		if (*end != '}' || !unary || unary > end)
			continue;
		double value = strtod(end + 1, NULL);
		if (!(value >= 0 && value <= CALLS_MAX))
			return false;
		*ret += (int64_t)value;
		found = true;
	}
	return found;
}

result remote_etcd_calls(const struct remote_identity *id, int64_t *ret_begun, int64_t *ret_under_way, struct err *e)
{
	struct http_response r cleanup(http_response_release) = { 0 };
	const struct http_request q = { .method = "GET", .accept = "text/plain", .max_body = METRICS_MAX };
	int64_t begun = 0, ended = 0;
	TRY(ask(id, &q, "/metrics", &r, e));
	if (!sum_unary(buf_str(&r.body), "grpc_server_started_total", &begun) ||
	    !sum_unary(buf_str(&r.body), "grpc_server_handled_total", &ended))
		return err_set(e, ERR_INPUT, "%s does not say how many calls are under way", id->server);
	*ret_begun = begun;
	*ret_under_way = begun > ended ? begun - ended : 0;
	return OK;
}
