/* TCP connections of a port of this node, by /proc/net (the Pod has hostNetwork).
 *
 * Invariants
 * - What can't be read is an error, never "none".
 */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "base.h"

struct sockets_seen {
	size_t established; /* connections that the server has */
	size_t unread;      /* of these, with something that the server has not read */
	size_t waiting;     /* connections that the server has not accepted yet */
};

/* The server's side of what is connected to that port, by IPv4 and IPv6. */
result sockets_look(int port, struct sockets_seen *ret, struct err *e) MUST_CHECK;
/* Adds one line of /proc/net/tcp or tcp6 to the count (proc_net_tcp.txt of the kernel's documentation); its heading adds nothing.
 * Of a listening socket the receive queue is the number of connections that wait to be accepted. */
void sockets_count(const char *line, int port, struct sockets_seen *count);

#endif
