/* Prometheus text exposition, format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats, "Text-based format").
 *
 * Invariants
 * - No global state: the caller builds one, prints it, releases it.
 * - Valid whatever the input: HELP and TYPE once a family, a family's samples together, no series twice (the last value
 *   counts); label values and help are escaped; what is not UTF-8 becomes U+FFFD; a name has other characters than allowed
 *   replaced by '_'.
 */
#ifndef METRICS_H
#define METRICS_H

#include "buf.h"

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE };

struct metric_sample {
	char *labels; /* "{a=\"b\"}" or "" */
	double value;
};
struct metric_family {
	char *name, *help;
	enum metric_kind kind;
	struct metric_sample *samples;
	size_t n, size;
};
/* A zeroed struct is empty. */
struct metrics {
	struct metric_family *families;
	size_t n, size;
	size_t current;
};
void metrics_release(struct metrics *m); /* cleanup(metrics_release) */

/* Samples that follow belong to this family. Named again, it goes on; kind and help are those of the first time. By
 * convention a counter ends in _total, a unit is in the name (_seconds), the unit is the base unit. */
void metrics_family(struct metrics *m, const char *name, enum metric_kind kind, const char *help);
/* One sample of the current family (without one: nothing). Pairs of label and value, NULL ends:
 * metrics_sample(&m, 3, "phase", "TrustingBoth", NULL). Labels of one sample have different names. */
void metrics_sample(struct metrics *m, double value, ...) __attribute__((sentinel));
/* A family with a single sample without labels. */
void metrics_single(struct metrics *m, const char *name, enum metric_kind kind, const char *help, double value);
/* Families in the order of their first naming, samples too. Families without a sample are left out. Appended. */
void metrics_print(const struct metrics *m, struct buf *out);

#endif
