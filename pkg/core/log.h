/* Structured log lines on standard error: one JSON object a line {"ts","level","msg",…}, or text for a terminal.
 * Only programs' own layers log (main, engine); library code returns errors. Values are data about objects, never
 * contents of Secrets: there is no function that takes a buffer of unknown origin.
 */
#ifndef LOG_H
#define LOG_H

#include "base.h"

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };
enum log_format { LOG_JSON, LOG_TEXT };

void log_init(enum log_format format, enum log_level least);
/* log_line(LOG_INFO, "phase begins", "phase", "TrustingBoth", "node", name, NULL): pairs of strings, NULL ends. Thread-safe. */
void log_line(enum log_level level, const char *message, ...) __attribute__((sentinel));
void log_err(enum log_level level, const char *message, const struct err *e);

#endif
