/* caBundles of webhook configurations, APIServices and CRD conversions, and what is served behind them.
 *
 * Invariants
 * - Only a bundle that holds O, N or both, and nothing else, is ever written. N goes behind the bytes that are there, and the way
 *   back takes just that away again: byte for byte what was there before.
 * - A server counts as N's when every endpoint of its Service that does not terminate was seen to present a chain that ends at N.
 *   That is good for half a minute. What was not reached proves nothing.
 * - Somebody else's write is answered, at growing distances, and named: two that write against each other make no loop.
 */
#ifndef CA_BUNDLES_H
#define CA_BUNDLES_H

#include "consumer.h"

/* One caBundle as it stands in its object. */
struct ca_bundle {
	const char *object;          /* "ValidatingWebhookConfiguration/name" */
	const char *path;            /* of that object in the API */
	const char *part;            /* the webhook's name; NULL: the object has one caBundle only */
	const char *pointer;         /* to the caBundle within the object (RFC 6901) */
	const struct json *metadata; /* the object's */
	const struct json *config;   /* what holds the caBundle, with `service` or `url` beside it */
	const char *pem;
	size_t len;
};
/* Calls `each` for every caBundle in the cluster that is not empty; false ends it. ERR_EXPIRED when a list expired in the middle. */
result ca_bundles_each(struct kube *k, struct bundle_memory *m, bool (*each)(void *context, const struct ca_bundle *b), void *context,
		       struct err *e) MUST_CHECK;

enum bundle_state {
	BUNDLE_FOREIGN, /* neither O nor what O has issued */
	BUNDLE_OLD, BUNDLE_BOTH, BUNDLE_NEW,
	BUNDLE_MIXED,   /* O among others, or among what can't be read */
	BUNDLE_CHAINED, /* not O, but something that O has issued */
};
enum bundle_state ca_bundle_state(const struct run_authority *of, const char *pem, size_t len);
/* The bytes of a bundle at TRUST_BOTH or TRUST_NEW, made from those that are there. */
void ca_bundle_text(const struct run_authority *of, int level, const char *pem, size_t len, struct buf *out);

enum presents {
	PRESENTS_UNSEEN,  /* not looked at yet, or too long ago */
	PRESENTS_NEW,
	PRESENTS_OTHER,
	PRESENTS_NOTHING, /* was not reached */
};
/* What is served behind it; looked at when it is time, as long as this pass has time. *ret_said: what was seen, for people; borrowed. */
enum presents ca_bundle_look(struct observation *o, const struct ca_bundle *b, const char **ret_said);
/* Whether the server of an APIService's spec takes the old front proxy's certificates still: PRESENTS_NEW when no endpoint names its
 * authority among those that it accepts, PRESENTS_OTHER when one does. */
enum presents ca_bundle_look_for_old_proxy(struct observation *o, const struct json *spec, const char **ret_said);
/* Ditto for ca_bundle_look, from memory. */
enum presents ca_bundle_seen(const struct bundle_memory *m, const struct ca_bundle *b, int64_t now_ms);

/* True when a bundle in that state may be moved towards `level` now. */
bool ca_bundle_may_move(const struct bundle_memory *m, const struct ca_bundle *b, enum bundle_state state, int level, int64_t now_ms);
/* To be called for each object that was written. */
void ca_bundle_written(struct bundle_memory *m, const char *object, int level, int64_t now_ms);

/* --- What is remembered from pass to pass; nothing of it decides without its time ---------------------------------------------- */

struct bundle_server {
	char *name;              /* "Service shop/policy, port 443" or "https://host:8443"; after "front proxy at " for that question */
	enum presents what;
	char *said;
	int64_t at_ms;
	int misses;              /* in a row */
};

struct bundle_write {
	char *object;
	int level;               /* TRUST_BOTH, TRUST_NEW */
	int64_t at_ms;
	int reverts;             /* how often somebody else's write was answered */
};

struct bundle_memory {
	char *leg;               /* of the run that the following belongs to */
	struct bundle_server *servers;
	size_t n_servers;
	struct bundle_write *writes;
	size_t n_writes;
	int64_t looked_ms;       /* spent on looks in this pass */
	char crds[65];           /* over names and versions of all CRDs; "": not read */
	struct strs converting;  /* those of them that have a caBundle */
};
/* Forgets what belongs to another run, or to the way there once it goes back. */
void bundle_memory_turn(struct bundle_memory *m, const char *leg);
const struct bundle_write *bundle_memory_write(const struct bundle_memory *m, const char *object);

#endif
