/* Waiting after failures: longer each time, never in step with others. */
#ifndef BACKOFF_H
#define BACKOFF_H

#include "base.h"

/* Between half of ms and one and a half, at random. */
int64_t backoff_jittered(int64_t ms);
/* After the n-th failure in a row (from 1): first_ms doubled each time, at most max_ms, jittered; 0 for n = 0. */
int64_t backoff_ms(unsigned n, int64_t first_ms, int64_t max_ms);

#endif
