/* ConfigMap kube-public/cluster-info: what `kubeadm join` discovers. kubeadm checks the JWS of its token's id over the exact text of
 * the kubeconfig (cmd/kubeadm/app/discovery/token, k8s.io/cluster-bootstrap/token/jws), so text and signatures change in one write. */
#include "consumer.h"
#include "kubeconfig.h"

#include <string.h>

#define HEADER_FORMAT "{\"alg\":\"HS256\",\"kid\":\"%s\"}"
#define PREFIX "jws-kubeconfig-"

static char *decoded(const struct json *secret, const char *name, bool private)
{
	const char *text = json_str(json_at(secret, "data", name, NULL));
	struct buf out cleanup(buf_release) = { .secret = private };
	struct err e;
	if (!text || !base64_decode(text, strlen(text), &out, &e).ok || !out.len)
		return NULL;
	return buf_take(&out);
}

/* RFC 7515 appendix F: header..signature, the payload left out. */
static void detached_signature(const char *id, const char *token_secret, const char *payload, struct buf *out)
{
	struct buf header cleanup(buf_release) = BUF_INIT, input cleanup(buf_release) = BUF_INIT;
	buf_addf(&header, HEADER_FORMAT, id);
	base64url_encode(header.data, header.len, &input);
	buf_add(out, input.data, input.len);
	buf_add_char(&input, '.');
	base64url_encode(payload, strlen(payload), &input);
	buf_add_str(out, "..");
	hmac_sha256_base64url(token_secret, strlen(token_secret), input.data, input.len, out);
}

struct signing {
	const char *kubeconfig;
	struct json *ret;
	int64_t now_ms;
};

static bool token_lives(const struct json *secret, int64_t now_ms)
{
	char *expiration cleanup(str_freep) = decoded(secret, "expiration", false);
	int64_t until = 0;
	struct err e;
	return !expiration || (time_parse(expiration, &until, &e).ok && until > now_ms);
}

static bool each_token(void *context, const struct json *secret)
{
	struct signing *s = context;
	char *usage cleanup(str_freep) = decoded(secret, "usage-bootstrap-signing", false);
	char *id cleanup(str_freep) = decoded(secret, "token-id", false);
	char *key cleanup(secret_freep) = decoded(secret, "token-secret", true);
	if (!str_eq(usage, "true") || !id || !key || !token_lives(secret, s->now_ms))
		return true;
	struct buf name cleanup(buf_release) = BUF_INIT, value cleanup(buf_release) = BUF_INIT;
	buf_addf(&name, PREFIX "%s", id);
	detached_signature(id, key, s->kubeconfig, &value);
	json_set_str(s->ret, buf_str(&name), buf_str(&value));
	return true;
}

result cluster_info_signatures(struct kube *kube, const char *kubeconfig, struct json *ret_object, struct err *e)
{
	struct signing s = { kubeconfig, ret_object, clock_now_ms() };
	const struct kube_list q = { .path = "/api/v1/namespaces/kube-system/secrets",
				     .field_selector = "type=bootstrap.kubernetes.io/token", .secret = true };
	return kube_list_each(kube, &q, each_token, NULL, &s, NULL, e);
}

static bool signatures_match(const struct json *data, const struct json *expected)
{
	json_each(s, expected)
		if (!str_eq(json_get_str(data, json_name(s)), json_str(s)))
			return false;
	return true;
}

static result cluster_info_observe(struct observation *o, struct err *e)
{
	struct json *map cleanup(json_freep) = NULL, *expected cleanup(json_freep) = json_object();
	struct kubeconfig config cleanup(kubeconfig_release) = { 0 };
	struct bundle_content b = { 0 };
	struct err missing;
	if (!kube_get(o->kube, "/api/v1/namespaces/kube-public/configmaps/cluster-info", &map, &missing).ok) {
		if (missing.kind == ERR_NOT_FOUND)
			o->world->cluster_info = CLUSTER_INFO_ABSENT;
		*e = missing;
		return missing.kind == ERR_NOT_FOUND ? OK : FAILED;
	}
	const struct json *data = json_get(map, "data");
	const char *text = json_get_str(data, "kubeconfig");
	if (!text)
		return err_set(e, ERR_INPUT, "ConfigMap kube-public/cluster-info has no kubeconfig");
	TRY_CTX(kubeconfig_parse(text, strlen(text), "", &config, e), e, "ConfigMap kube-public/cluster-info");
	if (!config.ca_pem)
		return err_set(e, ERR_INPUT, "ConfigMap kube-public/cluster-info has no CA data");
	TRY(bundle_look(&o->world->run.of[AUTHORITY_KUBERNETES], config.ca_pem, strlen(config.ca_pem), &b, e));
	TRY(cluster_info_signatures(o->kube, text, expected, e));
	bool matched = signatures_match(data, expected);
	if (b.has_new && b.has_old)
		o->world->cluster_info = matched ? CLUSTER_INFO_BOTH : CLUSTER_INFO_UNSIGNED_BOTH;
	else if (b.has_new)
		o->world->cluster_info = matched ? CLUSTER_INFO_NEW : CLUSTER_INFO_UNSIGNED_NEW;
	else
		o->world->cluster_info = CLUSTER_INFO_OLD;
	return OK;
}

const struct consumer consumer_cluster_info = { "cluster-info", READS_IN_RUN, cluster_info_observe };
