/* LINK: node rotation */
/* A node's report. Whatever is in it, what is written fits into a termination message and is read again; and nothing is lost on
 * the way unless it says so. */
#include "fuzz.h"

#include "contract.h"

#include <string.h>

static bool same_strs(const struct strs *a, const struct strs *b)
{
	bool same = a->n == b->n;
	for (size_t i = 0; same && i < a->n; i++)
		same = str_eq(a->items[i], b->items[i]);
	return same;
}

/* What no limit may take away, and lists that are proof: whole, or said to be cut. */
static void check_kept(const struct report *a, const struct report *b)
{
	MUST(memcmp(a->levels, b->levels, sizeof a->levels) == 0);
	MUST(memcmp(a->started_ms, b->started_ms, sizeof a->started_ms) == 0);
	MUST(a->control_plane == b->control_plane && a->at_ms == b->at_ms);
	MUST((a->n_blockers > 0) == (b->n_blockers > 0));
	MUST(!a->error || b->error);
	MUST(a->pods_total == b->pods_total);
	MUST(!a->pods_cut || b->pods_cut);
	if (!b->pods_cut)
		MUST(same_strs(&a->pods_old, &b->pods_old) && same_strs(&a->pods_stale, &b->pods_stale) &&
		     same_strs(&a->pods_mixed, &b->pods_mixed));
	/* certificates: all of them, or none and an error */
	bool bridge = str_eq(a->bridge_pem, b->bridge_pem), probe = str_eq(a->probe_pem, b->probe_pem), ca = str_eq(a->ca_pem, b->ca_pem);
	MUST((bridge && probe && ca) || (!b->bridge_pem && !b->probe_pem && !b->ca_pem && b->error));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct report r cleanup(report_release) = { 0 }, again cleanup(report_release) = { 0 };
	struct buf text cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	if (!report_from_json((const char *)data, size, &r, &e).ok) {
		MUST(!r.node && !r.n_blockers && !r.changed.n && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return 0;
	}
	for (size_t f = 0; f < FACET_COUNT; f++)
		MUST(r.levels[f] == FACET_UNKNOWN || r.levels[f] == FACET_ABSENT || (r.levels[f] >= 0 && r.levels[f] <= facet_top((enum facet)f)));
	MUST(r.pods_total >= 0);
	report_to_json(&r, &text);
	MUST(text.len && text.len <= CONTRACT_REPORT_MAX);
	MUST(report_from_json(buf_str(&text), text.len, &again, &e).ok);
	check_kept(&r, &again);
	return 0;
}
