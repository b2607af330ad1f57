/* An authority that a person brings (spec.newAuthority.secretRef): looked at hard before it is used.
 *
 * Invariants
 * - Pure. Everything that would go wrong later is said now: what a bridge, kubeadm and every kind of client need of an authority.
 */
#ifndef CANDIDATE_H
#define CANDIDATE_H

#include "pki.h"

/* It must outlive a rotation by far: leaves do not outlive it. */
#define CANDIDATE_VALID_MS ((int64_t)30 * 86400000)

/* n: the certificates of tls.crt; k: of tls.key; o: the authority that goes, NULL when it is not known yet. ERR_INPUT says what is wrong
 * with it and what to do. */
result candidate_check(const struct certs *n, const struct key *k, const struct cert *o, int64_t now_ms, struct err *e) MUST_CHECK;

#endif
