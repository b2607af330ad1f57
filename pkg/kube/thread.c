#define _GNU_SOURCE /* pthread_setname_np */

#include "thread.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int start_quiet(void *(*run)(void *context), void *context, pthread_t *ret)
{
	pthread_attr_t attributes;
	sigset_t all, before;
	if (pthread_attr_init(&attributes))
		abort(); /* only without memory */
	int code = pthread_attr_setstacksize(&attributes, THREAD_STACK);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	if (!code)
		code = pthread_create(ret, &attributes, run, context);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	return code;
}

result thread_start(const char *name, void *(*run)(void *context), void *context, pthread_t *ret, struct err *e)
{
	pthread_t thread;
	int code = start_quiet(run, context, &thread);
	if (code)
		return err_set(e, ERR_BUSY, "starting thread %s: %s", name, strerror(code));
	(void)pthread_setname_np(thread, name);
	*ret = thread;
	return OK;
}

void thread_cond_init(pthread_cond_t *cond)
{
	pthread_condattr_t attributes;
	if (pthread_condattr_init(&attributes) || pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) ||
	    pthread_cond_init(cond, &attributes))
		abort(); /* only without memory */
	pthread_condattr_destroy(&attributes);
}

void thread_cond_wait_ms(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(ms / 1000);
	until.tv_nsec += (long)(ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	(void)pthread_cond_timedwait(cond, mutex, &until);
}
