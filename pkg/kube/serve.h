/* Our own HTTP endpoints by libwebsockets: /healthz, /readyz, /metrics, / (status page), /status.json, /ws (live status).
 * The only module that knows its header; the loop is libuv's where needed.
 *
 * Invariants
 * - Plain HTTP/1.1 on one port; any Upgrade but `websocket` on /ws is refused (h2c reaches unchecked code in old
 *   libwebsockets); requests over 8 KiB are refused; no request changes anything.
 * - Runs in a thread of its own. Texts are handed over as copies; a render callback is never called from it.
 */
#ifndef SERVE_H
#define SERVE_H

#include "buf.h"

struct server;
/* addr NULL: all. port 0: any (see server_port). */
result server_start(const char *address, int port, struct server **ret, struct err *e) MUST_CHECK;
int server_port(const struct server *s);
void server_stopp(struct server **s);
/* From any thread. Liveness goes stale by itself: /healthz answers 503 when server_alive was not called for max_age_ms. */
void server_alive(struct server *s, int64_t max_age_ms);
void server_ready(struct server *s, bool ready);
void server_metrics(struct server *s, const char *text);      /* Prometheus text format */
void server_status(struct server *s, const char *json_text);  /* served and pushed over /ws when it differs */
#endif
