/* Which of a program's changes is its last: a file at `where`, that a test leaves there, says so. "K:before" ends the process before its
 * K-th change, once: the file goes. "K~TEXT:after": after the first change from the K-th on that is of something with that text in its name, once.
 * "O/S/N:after" ends it after each of the first N changes whose number leaves O when it is divided by S; N is what makes an end to it when
 * each life gets no further than the one before.
 *
 * Invariants
 * - Numbers go on over all processes, in where.count; each one is written before its change is made, so whatever strikes, numbers move on.
 * - What was struck is in where.struck, a line each, before the process ends. */
#ifndef POINT_H
#define POINT_H

#include "base.h"

struct point {
	const char *where; /* path */
};
/* The number of the change that begins; 0 when no test looks. Thread-safe. */
long point_next(const struct point *p) MUST_CHECK;
/* Ends the process, as by SIGKILL, when change n's turn has come. moment: "before" or "after". what is said of it. */
void point_pass(const struct point *p, long n, const char *moment, const char *what);
#endif
