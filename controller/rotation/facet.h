/* Facets: how far one node has walked, one number per thing that trusts or presents certificates.
 *
 * Invariants
 * - A facet's levels only rise during a rotation. A proof is "level >= L, in force", so it stays true through all later
 *   phases by construction. A rollback is the same walk with O and N exchanged, levels counted from the other end.
 * - A level counts as reached when it is *in force*: the file is so, and the process that reads it at start is younger
 *   than the file, or was seen (handshake, health) to have taken it up.
 * - FACET_UNKNOWN (-1): could not be read, or holds something that is neither O nor N; always with a blocker that names it.
 *   FACET_ABSENT: the node has no such thing (a worker has no signer); counts as any level.
 * - Names and numbers are the contract between controller and node program; they never change meaning.
 */
#ifndef FACET_H
#define FACET_H

#include "authority.h"

enum facet {
	FACET_TRUST,          /* ca.crt: what API server and kubelet accept. The first certificate always matches ca.key */
	FACET_SIGNER,         /* controller-manager's signing pair */
	FACET_ROOT,           /* controller-manager's --root-ca-file, as the running process has read it */
	FACET_CA_KEY,         /* ca.key on control planes; with N, ca.crt is N+O or N */
	FACET_SERVER_LEAF,    /* apiserver.crt, as presented */
	FACET_KUBELET_SERVER, /* kubelet-server-current.pem where the authority issues it; FACET_ABSENT when self-signed */
	FACET_COMPONENTS,     /* scheduler.conf, controller-manager.conf: leaf and trust, processes younger than both */
	FACET_ADMIN,          /* admin.conf, super-admin.conf: leaf and trust */
	FACET_KUBELET,        /* kubelet's client certificate and kubelet.conf's trust, kubelet younger than both */
	FACET_KUBELET_CLIENT, /* apiserver-kubelet-client.crt, absorbed by the API server */
	FACET_PROXY_TRUST,    /* front-proxy-ca.crt: whose word about users the API server takes, as it accepts it */
	FACET_PROXY_CA_KEY,   /* front-proxy-ca.key */
	FACET_PROXY_LEAF,     /* front-proxy-client.crt: what aggregated API servers see */
	FACET_ETCD_CA_KEY,    /* etcd/ca.key */
	FACET_ETCD_TRUST,     /* etcd/ca.crt, as the running etcd and API server have read it: TRUST_OLD or TRUST_NEW */
	FACET_ETCD_LEAF,      /* etcd's server, peer and health check certificates, and the API server's towards it */
	FACET_COMPONENTS_BOTH, /* scheduler.conf, controller-manager.conf: leaf, and trusted, O beside it or not; processes younger */
	FACET_ADMIN_BOTH,     /* admin.conf, super-admin.conf: ditto */
	FACET_KUBELET_BOTH,   /* kubelet's client certificate and kubelet.conf: ditto, kubelet younger */
	FACET_CLEAN,          /* own files gone, manifests as kubeadm wrote them, old key and old kubelet certificates gone */
	FACET_COUNT
};

#define FACET_UNKNOWN (-1)
#define FACET_ABSENT 9

enum { TRUST_OLD, TRUST_BOTH, TRUST_NEW };                              /* FACET_TRUST, FACET_PROXY_TRUST, FACET_ETCD_TRUST */
enum { SIGNER_KUBEADM_OLD, SIGNER_OWN_OLD, SIGNER_OWN_NEW, SIGNER_KUBEADM_NEW }; /* FACET_SIGNER */
enum { ROOT_KUBEADM_OLD, ROOT_OWN_BOTH, ROOT_OWN_NEW, ROOT_KUBEADM_NEW };        /* FACET_ROOT */
enum { LEAF_OLD, LEAF_BRIDGE, LEAF_NEW };                               /* FACET_SERVER_LEAF, FACET_KUBELET_SERVER, FACET_PROXY_LEAF, FACET_ETCD_LEAF */
enum { ISSUED_OLD, ISSUED_NEW };                                        /* *_CA_KEY, COMPONENTS*, ADMIN*, KUBELET*, KUBELET_CLIENT */
enum { CLEAN_NO, CLEAN_YES };                                           /* FACET_CLEAN */

/* "trust", "signer", …: as in the JSON contract and in metrics. */
const char *facet_name(enum facet f);
/* FACET_COUNT when there is no such name. */
enum facet facet_by_name(const char *name);
/* Whose certificates it is about; AUTHORITY_COUNT: everybody's (FACET_CLEAN). Of an authority that is not rotated it is FACET_ABSENT. */
enum authority facet_authority(enum facet f);
/* The highest level of a facet: where a finished rotation stands. */
int facet_top(enum facet f);
/* True when observed is at least wanted; ABSENT is, UNKNOWN is not. */
bool facet_reached(int observed, int wanted);

#endif
