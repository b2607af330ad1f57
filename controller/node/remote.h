/* What the node program does over the network. Two ways: by libcurl (remote_curl.c, in a Pod), not at all (remote_none.c, by hand
 * on a node without an API: what needs it says so).
 *
 * Invariants
 * - Only the node's own servers on loopback and the API server that kubelet.conf names are talked to.
 */
#ifndef REMOTE_H
#define REMOTE_H

#include "buf.h"

bool remote_available(void);
/* Any HTTPS answer means that the server is up. ERR_IO: it is not. The certificate is not verified. host: "127.0.0.1". */
result remote_answers(const char *host, int port, const char *path, long *ret_status, struct err *e) MUST_CHECK;
/* The chain that host:port presents, leaf first, PEM. Caller frees. */
result remote_presented(const char *host, int port, char **ret_pem, struct err *e) MUST_CHECK;

struct remote_identity {
	const char *server;                 /* "https://host:6443" */
	const char *ca_pem, *cert_pem, *key_pem;
};
/* rsa: the key is RSA. A CSR with signer kubernetes.io/kube-apiserver-client-kubelet, made with the kubelet's own credentials (the controller-manager
 * approves it: system:certificates.k8s.io:certificatesigningrequests:selfnodeclient). Waits for the certificate.
 * https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/ ERR_TIMEOUT, ERR_DENIED. */
result remote_sign_kubelet(const struct remote_identity *id, const char *node, const char *csr_pem, bool rsa, int64_t until_ms,
			   char **ret_cert_pem, struct err *e) MUST_CHECK;
/* How often the kubelet's lifecycle event generator has begun and has ended to look at its containers (kubelet_pleg_relist_* of
 * /metrics; the first look is not counted as begun). port: the kubelet's. ERR_IO, ERR_DENIED, ERR_INPUT when it has no such metric. */
result remote_kubelet_looks(const struct remote_identity *id, int port, int64_t *ret_begun, int64_t *ret_ended,
			    struct err *e) MUST_CHECK;
/* Requests that make one API server dial a kubelet anew, over a connection of ours that stays open. */
struct remote_dialer;
/* NULL where there is no network. */
struct remote_dialer *remote_dialer_new(const struct remote_identity *id);
void remote_dialer_freep(struct remote_dialer **d);
/* *ret_good: the kubelet of `node` was reached. Fails only when the API server itself can't be asked. */
result remote_dial(struct remote_dialer *d, const char *node, bool *ret_good, struct err *e) MUST_CHECK;

/* --- The front proxy (remote_front_proxy.c) ------------------------------------------------------------------------------------ */
/* Whether the API server takes this certificate's word about who asks: a user without any rights is named, so that 403 means yes,
 * 401 no (apiserver authentication/request/headerrequest). ERR_IO when it can't be asked. */
result remote_proxy_trusted(const char *host, int port, const char *cert_pem, const char *key_pem, bool *ret_trusted,
			    struct err *e) MUST_CHECK;

/* Whether the API server takes this client certificate. ERR_IO when it can't be asked. */
result remote_client_trusted(const char *host, int port, const char *cert_pem, const char *key_pem, bool *ret_trusted,
			     struct err *e) MUST_CHECK;

/* The subjects (cert_subject_digest) of those whose certificates the API server asks clients for, as it verifies them at this moment
 * (apiserver server/dynamiccertificates: GetConfigForClient). ERR_IO when it can't be asked, or names none. */
result remote_client_authorities(const char *host, int port, struct strs *ret, struct err *e) MUST_CHECK;

/* --- etcd (remote_etcd.c), by its JSON gateway: https://etcd.io/docs/v3.6/dev-guide/api_grpc_gateway/ ---------------------------- */
/* id.server: "https://127.0.0.1:2379". The member's own health is asked for: a linearizable read, so there is a quorum. */
result remote_etcd_health(const struct remote_identity *id, struct err *e) MUST_CHECK;
struct remote_etcd_view {
	char *member, *leader;  /* ids */
	struct strs ids, urls;  /* of the voting members: the id, the first client URL */
	size_t learners;
};
void remote_etcd_view_release(struct remote_etcd_view *v);
result remote_etcd_look(const struct remote_identity *id, struct remote_etcd_view *ret, struct err *e) MUST_CHECK;
/* The leader, which must be asked, hands its place over to that member. */
result remote_etcd_hand_over(const struct remote_identity *id, const char *to, struct err *e) MUST_CHECK;
/* Calls that the member was ever asked for, and those it has not answered yet (streams, i.e. watches and Leases, aside). */
result remote_etcd_calls(const struct remote_identity *id, int64_t *ret_begun, int64_t *ret_under_way, struct err *e) MUST_CHECK;

#endif
