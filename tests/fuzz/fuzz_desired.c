/* LINK: node rotation */
/* What the node program is asked for: refused, or within its limits and the same after the way there and back. */
#include "fuzz.h"

#include "contract.h"

#include <string.h>

static void check_limits(const struct desired *d)
{
	for (size_t f = 0; f < FACET_COUNT; f++) {
		MUST(d->levels[f] == FACET_UNTOUCHED || (d->levels[f] >= 0 && d->levels[f] <= facet_top((enum facet)f)));
		MUST(d->levels[f] == FACET_UNTOUCHED || d->run);
	}
	MUST(d->deadline_ms >= 0 && d->leaf_validity_ms >= 0);
	if (!d->run)
		return;
	/* becomes a folder's name */
	MUST(*d->run && strlen(d->run) <= 63 && !strpbrk(d->run, "/. "));
}

static void check_same(const struct desired *a, const struct desired *b)
{
	MUST(str_eq(a->run, b->run) && a->asked == b->asked && str_eq(a->node, b->node));
	for (size_t i = 0; i < AUTHORITY_COUNT; i++) {
		const struct desired_authority *x = &a->of[i], *y = &b->of[i];
		MUST(x->wanted == y->wanted && str_eq(x->old_pem, y->old_pem) && str_eq(x->new_pem, y->new_pem));
		MUST(str_eq(x->bridge_pem, y->bridge_pem));
	}
	MUST(a->certify == b->certify && a->of[a->asked].wanted);
	MUST(str_eq(a->probe_csr_pem, b->probe_csr_pem));
	MUST(memcmp(a->levels, b->levels, sizeof a->levels) == 0);
	MUST(a->leaf_validity_ms == b->leaf_validity_ms && a->deadline_ms == b->deadline_ms && a->pods == b->pods);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct desired d cleanup(desired_release) = { 0 }, again cleanup(desired_release) = { 0 };
	struct err e = { 0 };
	if (!desired_from_json((const char *)data, size, &d, &e).ok) {
		MUST(!d.run && !d.node && !d.of[AUTHORITY_KUBERNETES].old_pem && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return 0;
	}
	check_limits(&d);
	struct json *j cleanup(json_freep) = desired_to_json(&d);
	char *text cleanup(str_freep) = json_text(j);
	MUST(desired_from_json(text, strlen(text), &again, &e).ok);
	check_same(&d, &again);
	return 0;
}
