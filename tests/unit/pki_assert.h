/* Assertions on results, and on OpenSSL's error queue, which every function must leave empty. */
#ifndef PKI_ASSERT_H
#define PKI_ASSERT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "pki_fixture.h"

#include <string.h>

static struct err err;

#define assert_queue_empty() assert_int_equal(ERR_peek_error(), 0)

#define assert_ok(expr)                                          \
	do {                                                     \
		if (!(expr).ok)                                  \
			fail_msg("%s: %s", #expr, err.message);  \
		assert_queue_empty();                            \
	} while (0)

#define assert_err(expr, expected_kind, part)                                   \
	do {                                                                    \
		err = (struct err){ .kind = ERR_TIMEOUT };                      \
		if ((expr).ok)                                                  \
			fail_msg("%s succeeded", #expr);                        \
		if (err.kind != (expected_kind) || !strstr(err.message, part))  \
			fail_msg("%s: kind %d, \"%s\"", #expr, (int)err.kind, err.message); \
		assert_queue_empty();                                           \
	} while (0)

#endif
