/* Our own HTTP endpoints by libwebsockets: /healthz, /readyz, /metrics, / (status page), /status.json, /ws (live status).
 * With exec.c the only module that knows its header.
 *
 * Invariants
 * - Plain HTTP/1.1 on one port, one request a connection; GET and HEAD without a body, 8 KiB of headers at most; any Upgrade
 *   but `websocket` on /ws is refused (h2c reaches unchecked code in old libwebsockets); no request changes anything.
 * - Runs in a thread of its own, which sleeps while nobody asks and nothing changes. Texts are handed over as copies; a
 *   render callback is never called from it.
 * - A slow reader delays nobody: each WebSocket client gets the latest status only, one that takes nothing for 20 s is
 *   closed. At most SERVER_MAX_LIVE of them; a page on another site can't be one (its Origin is not our Host).
 */
#ifndef SERVE_H
#define SERVE_H

#include "buf.h"

#define SERVER_MAX_LIVE 32
#define SERVER_MAX_CONNECTIONS 120

struct server;
/* address: an IPv4 or IPv6 address, NULL: all. port 0: any (see server_port). ERR_INPUT: no such address; ERR_CONFLICT: the
 * port is taken; ERR_DENIED, ERR_IO. Ignores SIGPIPE in the whole process, as libwebsockets does. */
result server_start(const char *address, int port, struct server **ret, struct err *e) MUST_CHECK;
int server_port(const struct server *s);
void server_stopp(struct server **s);
/* From any thread. Liveness goes stale by itself: /healthz answers 503 when server_alive was not called for max_age_ms (and
 * before its first call). */
void server_alive(struct server *s, int64_t max_age_ms);
/* /readyz answers 503 until true was said last. */
void server_ready(struct server *s, bool ready);
void server_metrics(struct server *s, const char *text);      /* Prometheus text format 0.0.4, see metrics.h */
/* Served and pushed over /ws when it differs. The page shows a CertificateRotation, or several as `items` of an object; of each
 * it reads metadata.name, spec and status. Strings are shown as text, whatever they hold. */
void server_status(struct server *s, const char *json_text);
#endif
