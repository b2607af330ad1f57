#include "past.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>

#define KEYS_MAX 1024

struct newest {
	char *key;
	unsigned long long version;
	int64_t refused_since_ms; /* 0: the last answer was of the present */
};

struct past {
	struct newest *items;
	size_t n;
};

static void forget(struct past *p)
{
	for (size_t i = 0; i < p->n; i++)
		str_freep(&p->items[i].key);
	free(p->items);
	*p = (struct past){ 0 };
}

struct past *past_new(void)
{
	return mem_alloc(sizeof(struct past));
}

void past_freep(struct past **p)
{
	if (*p)
		forget(*p);
	free(*p);
	*p = NULL;
}

static bool number_of(const char *version, unsigned long long *ret)
{
	char *end = NULL;
	if (!version || !isdigit((unsigned char)version[0]))
		return false;
	errno = 0;
	*ret = strtoull(version, &end, 10);
	return !*end && !errno;
}

/* With very many keys it begins anew: this is a safeguard, not a record. */
static struct newest *item_of(struct past *p, const char *key)
{
	for (size_t i = 0; i < p->n; i++)
		if (str_eq(p->items[i].key, key))
			return &p->items[i];
	if (p->n == KEYS_MAX)
		forget(p);
	p->items = mem_realloc(p->items, p->n + 1, sizeof *p->items);
	p->items[p->n] = (struct newest){ .key = str_dup(key) };
	return &p->items[p->n++];
}

bool past_is(struct past *p, const char *key, const char *version, int64_t now_ms)
{
	unsigned long long number = 0;
	if (!number_of(version, &number))
		return false;
	struct newest *seen = item_of(p, key);
	if (number < seen->version) {
		seen->refused_since_ms = seen->refused_since_ms ? seen->refused_since_ms : now_ms;
		if (now_ms - seen->refused_since_ms < PAST_BELIEVED_MS)
			return true;
	}
	seen->version = number;
	seen->refused_since_ms = 0;
	return false;
}

void past_note(struct past *p, const char *key, const char *version)
{
	unsigned long long number = 0;
	if (!number_of(version, &number))
		return;
	struct newest *seen = item_of(p, key);
	if (number > seen->version)
		*seen = (struct newest){ .key = seen->key, .version = number };
}
