/* Threads of this library's own.
 *
 * Invariants
 * - Small stacks (THREAD_STACK), all signals blocked: signals are the main thread's affair.
 */
#ifndef THREAD_H
#define THREAD_H

#include "base.h"

#include <pthread.h>

#define THREAD_STACK ((size_t)256 << 10)

/* Starts run(context). name: at most 15 characters, shown by ps and gdb. ERR_BUSY when the system has no more threads. */
result thread_start(const char *name, void *(*run)(void *context), void *context, pthread_t *ret, struct err *e) MUST_CHECK;

/* A condition variable whose waits are by the monotonic clock. */
void thread_cond_init(pthread_cond_t *cond);
/* Waits at most ms, with the mutex held. */
void thread_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t ms);

#endif
