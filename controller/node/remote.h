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

#endif
