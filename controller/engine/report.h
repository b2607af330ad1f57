/* Reporting: the only code that writes the CertificateRotation's status, and its Events. */
#ifndef REPORT_H
#define REPORT_H

#include "client.h"
#include "status.h"

/* Writes the status when it differs from the one in `object`, with resourceVersion as the precondition; Events for what changed.
 * ERR_CONFLICT: the object has changed, the next pass writes. Sets *ret_written. */
result report_status(struct kube *kube, const struct json *object, const struct json *status, const char *component,
		     bool *ret_written, struct err *e) MUST_CHECK;

#endif
