/* A scripted TLS server in this process: it commits the faults that a real server does not commit on demand.
 *
 * Invariants
 * - It listens on 127.0.0.1 only; its certificates are for `localhost`.
 * - Each connection has a thread of its own; the script is called in it, once a request, and never twice at a time.
 */
#ifndef TLS_PEER_H
#define TLS_PEER_H

#include "buf.h"
#include "pki.h"

/* --- Certificates -------------------------------------------------------------------------------------------------- */

struct peer_ca {
	struct key *key;
	struct cert *cert;
	char *pem;
};
struct peer_ca *peer_ca_new(const char *unique);
void peer_ca_freep(struct peer_ca **ca);
unsigned long peer_ca_hash(const struct peer_ca *ca); /* its file name in a hashed folder, without ".0" */
/* A leaf for server and client use with its key. issuer's certificate is not in it. */
struct peer_leaf {
	char *cert_pem, *key_pem;
};
struct peer_leaf peer_leaf_new(const struct peer_ca *issuer, const char *common_name);
void peer_leaf_release(struct peer_leaf *l);

/* --- The server ---------------------------------------------------------------------------------------------------- */

struct peer;
struct peer_request {
	unsigned number, connection;   /* of all at this peer, from 1 */
	const char *method, *target;   /* "GET", "/api/v1/pods?limit=2" */
	const char *head;              /* the request line and the headers */
	const char *body;
	void *link;                    /* the peer's own */
};
typedef void peer_script(void *context, const struct peer_request *r);

struct peer_options {
	const struct peer_leaf *leaf;
	const char *chain_pem;         /* sent after the leaf; NULL: none */
	const char *client_ca_pem;     /* demands client certificates of these; NULL: none */
	bool tls12;                    /* no TLS 1.3 */
};
struct peer *peer_start(const struct peer_options *o, peer_script *script, void *context);
void peer_stopp(struct peer **p);
int peer_port(const struct peer *p);
char *peer_url(const struct peer *p, const char *path); /* caller frees */
/* These wait for the end of a script that runs: what it wrote can be read afterwards. */
unsigned peer_requests(struct peer *p);
unsigned peer_connections(struct peer *p);
unsigned peer_resumed(struct peer *p);                  /* connections that took up an earlier TLS session */

/* What a script does with a request. */
void peer_send(const struct peer_request *r, const char *bytes, size_t n);  /* one TLS record each */
void peer_send_text(const struct peer_request *r, const char *text);
void peer_answer(const struct peer_request *r, int status, const char *headers, const char *body);
void peer_close(const struct peer_request *r);                              /* in good order, with close_notify */
void peer_cut(const struct peer_request *r);                                /* without it */
void peer_reset(const struct peer_request *r);                              /* TCP RST */
bool peer_has_header(const struct peer_request *r, const char *line);       /* "Name: value", exactly */

#endif
