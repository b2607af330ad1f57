/* The authorities of a kubeadm cluster. Each is succeeded by one of its own: O, N and the bridge between them.
 *
 * Invariants
 * - Names and numbers are part of the API and of the contract between controller and node program; they never change meaning.
 * - The lowest number among those that a run rotates is its lead: its Secret holds what the run has latched.
 */
#ifndef AUTHORITY_H
#define AUTHORITY_H

#include "base.h"

enum authority { AUTHORITY_KUBERNETES, AUTHORITY_FRONT_PROXY, AUTHORITY_ETCD, AUTHORITY_COUNT };

/* A set of them: one bit each. */
typedef unsigned authority_set;
#define AUTHORITY_BIT(a) (1u << (a))
bool authority_in(authority_set set, enum authority a);
/* AUTHORITY_COUNT when the set is empty. */
enum authority authority_lead(authority_set set);

/* "Kubernetes", "FrontProxy", "Etcd": as in spec.authorities. */
const char *authority_name(enum authority a);
/* AUTHORITY_COUNT when there is none of that name; NULL is none. */
enum authority authority_by_name(const char *name);
/* "kubernetes", "front-proxy", "etcd": in names of objects. */
const char *authority_slug(enum authority a);
/* The subject that kubeadm gives it (cmd/kubeadm/app/phases/certs/certlist.go). */
const char *authority_common_name(enum authority a);

#endif
