#define _DEFAULT_SOURCE /* getrandom */

#include "backoff.h"

#include <sys/random.h>

int64_t backoff_jittered(int64_t ms)
{
	uint16_t random = 0;
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
		random = UINT16_MAX / 2;
	return ms / 2 + ms * random / UINT16_MAX;
}

int64_t backoff_ms(unsigned n, int64_t first_ms, int64_t max_ms)
{
	int64_t ms = first_ms;
	for (unsigned i = 1; i < n && ms < max_ms; i++)
		ms *= 2;
	return n ? backoff_jittered(ms < max_ms ? ms : max_ms) : 0;
}
