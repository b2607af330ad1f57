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
/* Any HTTPS answer from 127.0.0.1:port means that the server is up. ERR_IO: it is not. The certificate is not verified. */
result remote_answers(int port, const char *path, long *ret_status, struct err *e) MUST_CHECK;
/* The chain that 127.0.0.1:port presents, leaf first, PEM. Caller frees. */
result remote_presented(int port, char **ret_pem, struct err *e) MUST_CHECK;

struct remote_identity {
	const char *server;                 /* "https://host:6443" */
	const char *ca_pem, *cert_pem, *key_pem;
};
/* A CSR with signer kubernetes.io/kube-apiserver-client-kubelet, made with the kubelet's own credentials (the controller-manager
 * approves it: system:certificates.k8s.io:certificatesigningrequests:selfnodeclient). Waits for the certificate.
 * https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/ ERR_TIMEOUT, ERR_DENIED. */
result remote_sign_kubelet(const struct remote_identity *id, const char *node, const char *csr_pem, int64_t until_ms,
			   char **ret_cert_pem, struct err *e) MUST_CHECK;
/* Makes this node's API server dial every kubelet anew until its changed client certificate was taken up: client-go re-reads the pair
 * at the next handshake and closes its connections at that moment, which fails the request that caused it
 * (client-go transport/cert_rotation.go). id: that very pair. */
result remote_absorb(const struct remote_identity *id, int64_t until_ms, struct err *e) MUST_CHECK;

#endif
