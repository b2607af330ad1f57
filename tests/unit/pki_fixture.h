/* Certificates of any shape for tests, made with OpenSSL directly and not by the module under test. */
#ifndef PKI_FIXTURE_H
#define PKI_FIXTURE_H

#include "pki_internal.h"

#define MINUTE_MS ((int64_t)60 * 1000)
#define DAY_MS    ((int64_t)86400 * 1000)
#define YEAR_MS   ((int64_t)365 * DAY_MS)
#define NOW_MS    INT64_C(1767323045000) /* 2026-01-02T03:04:05Z: the tests' present */

/* A key that stays the same for the whole program; which tells apart several of one algorithm. Borrowed. */
const struct key *fixture_key(const char *algorithm, unsigned which);
void fixture_keys_release(void);

struct rdn {
	const char *name; /* "CN", "O", …; NULL ends */
	int type;         /* V_ASN1_UTF8STRING, V_ASN1_PRINTABLESTRING, … */
	const char *text;
	int set;          /* 0: a new RDN; -1: joins the RDN before */
};

struct crafted {
	const struct rdn *subject; /* NULL: CN=crafted */
	const struct key *key;
	const struct cert *issuer; /* NULL: self-signed */
	const struct key *issuer_key;
	const char *const *extensions; /* pairs of OpenSSL's x509v3_config(5), NULL ends */
	int64_t from_ms, to_ms;        /* 0: NOW - a day, NOW + a year */
	const char *raw_not_before, *raw_not_after; /* a UTCTime of any content */
};

struct cert *fixture_cert(const struct crafted *how);
/* Like kubeadm's of CN=kubernetes. */
struct cert *fixture_kubeadm_ca(const struct key *k);
/* Like the one kubeadm makes for the API server. */
struct cert *fixture_apiserver(const struct key *k, const struct cert *issuer, const struct key *issuer_key);

#endif
