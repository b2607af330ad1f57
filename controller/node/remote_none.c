#include "remote.h"

static result none(struct err *e)
{
	return err_set(e, ERR_OTHER, "this build of the node program does not talk over the network");
}

bool remote_available(void)
{
	return false;
}

result remote_answers(const char *host UNUSED, int port UNUSED, const char *path UNUSED, long *ret_status UNUSED, struct err *e)
{
	return none(e);
}

result remote_presented(const char *host UNUSED, int port UNUSED, char **ret_pem UNUSED, struct err *e)
{
	return none(e);
}

result remote_sign_kubelet(const struct remote_identity *id UNUSED, const char *node UNUSED, const char *csr_pem UNUSED,
			   bool rsa UNUSED, int64_t until_ms UNUSED, char **ret_cert_pem UNUSED, struct err *e)
{
	return none(e);
}

result remote_kubelet_looks(const struct remote_identity *id UNUSED, int port UNUSED, int64_t *ret_begun UNUSED,
			    int64_t *ret_ended UNUSED, struct err *e)
{
	return none(e);
}

struct remote_dialer *remote_dialer_new(const struct remote_identity *id UNUSED)
{
	return NULL;
}

void remote_dialer_freep(struct remote_dialer **d UNUSED)
{
}

result remote_dial(struct remote_dialer *d UNUSED, const char *node UNUSED, bool *ret_good UNUSED, struct err *e)
{
	return none(e);
}

result remote_proxy_trusted(const char *host UNUSED, int port UNUSED, const char *cert_pem UNUSED, const char *key_pem UNUSED,
			    bool *ret_trusted UNUSED, struct err *e)
{
	return none(e);
}

result remote_client_trusted(const char *host UNUSED, int port UNUSED, const char *cert_pem UNUSED, const char *key_pem UNUSED,
			     bool *ret_trusted UNUSED, struct err *e)
{
	return none(e);
}

result remote_client_authorities(const char *host UNUSED, int port UNUSED, struct strs *ret UNUSED, struct err *e)
{
	return none(e);
}

result remote_etcd_health(const struct remote_identity *id UNUSED, struct err *e)
{
	return none(e);
}

void remote_etcd_view_release(struct remote_etcd_view *v UNUSED)
{
}

result remote_etcd_look(const struct remote_identity *id UNUSED, struct remote_etcd_view *ret UNUSED, struct err *e)
{
	return none(e);
}

result remote_etcd_hand_over(const struct remote_identity *id UNUSED, const char *to UNUSED, struct err *e)
{
	return none(e);
}

result remote_etcd_calls(const struct remote_identity *id UNUSED, int64_t *ret_begun UNUSED, int64_t *ret_under_way UNUSED,
			 struct err *e)
{
	return none(e);
}
