/* The API server's changed client certificate towards kubelets: when, and taken up by whom.
 *
 * client-go reads the pair again at a handshake, when it has not done so for a second (transport.go, cachingCertificateLoader); if
 * it differs, all connections of that transport are closed, the one in the middle of that handshake included (cert_rotation.go).
 * So somebody's request fails. It shall be ours: we make it right after the rename. And nobody else's shall be under way: we choose
 * the moment of the rename. The file's readers are seen by inotify, the API server's connections to kubelets in /proc/net/tcp.
 */
#define _GNU_SOURCE /* inotify_init1 */

#include "file.h"
#include "node.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#define KEPT_MS 1000        /* how long client-go keeps what it has read */
#define QUIET_MAX_MS 12000  /* how long we look for a quiet moment */
#define LONG_LIVED_MS 2500  /* a connection that is so old is idle, or a session that will be cut whenever this is done */
#define SAMPLE_MS 5
#define DIAL_APART_MS 10
#define TCP_TEXT_MAX ((size_t)8 << 20)

/* --- Connections to kubelets ---------------------------------------------------------------------------------------------------- */

struct connection {
	char ends[80];       /* "local remote" as the kernel prints them */
	int64_t first_ms, last_ms;
};

struct connections {
	struct connection *items;
	size_t n;
};

static void connections_release(struct connections *c)
{
	free(c->items);
}

static void note(struct connections *c, const char *ends, int64_t now)
{
	for (size_t i = 0; i < c->n; i++) {
		if (str_eq(c->items[i].ends, ends)) {
			c->items[i].last_ms = now;
			return;
		}
	}
	c->items = mem_realloc(c->items, c->n + 1, sizeof *c->items);
	struct connection *new = &c->items[c->n++];
	*new = (struct connection){ .first_ms = now, .last_ms = now };
	str_copy(new->ends, sizeof new->ends, ends);
}

/* A line of /proc/net/tcp (proc(5)): "sl local_address rem_address st …", ports in hex; st 01 is established, 02 being made. */
static void note_line(struct connections *c, const char *line, unsigned int port, int64_t now)
{
	char local[40], remote[40], state[8], ends[80];
	if (sscanf(line, " %*[0-9]: %39s %39s %7s", local, remote, state) != 3 || (!str_eq(state, "01") && !str_eq(state, "02")))
		return;
	const char *colon = strrchr(remote, ':');
	if (!colon || strtoul(colon + 1, NULL, 16) != port)
		return;
	snprintf(ends, sizeof ends, "%.38s %.38s", local, remote);
	note(c, ends, now);
}

static void drop_gone(struct connections *c, int64_t now)
{
	size_t kept = 0;
	for (size_t i = 0; i < c->n; i++)
		if (c->items[i].last_ms == now)
			c->items[kept++] = c->items[i];
	c->n = kept;
}

static bool sample(struct connections *c, int port)
{
	static const char *const FILES[] = { "/proc/net/tcp", "/proc/net/tcp6" };
	int64_t now = clock_monotonic_ms();
	for (size_t i = 0; i < ARRAY_LEN(FILES); i++) {
		struct buf text cleanup(buf_release) = BUF_INIT;
		struct err e;
		if (!file_read(FILES[i], TCP_TEXT_MAX, &text, &e).ok)
			continue;
		for (const char *p = buf_str(&text); p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
			note_line(c, p, (unsigned int)port, now);
	}
	drop_gone(c, now);
	for (size_t i = 0; i < c->n; i++)
		if (now - c->items[i].first_ms < LONG_LIVED_MS)
			return false;
	return true;
}

/* --- Readers of the file -------------------------------------------------------------------------------------------------------------- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

static int watch(const char *path)
{
	int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd < 0 || inotify_add_watch(fd, path, IN_OPEN) >= 0)
		return fd;
	close(fd);
	return -1;
}

/* True when somebody has opened the file since the last call. Waits for it up to wait_ms. */
static bool opened(int fd, int wait_ms)
{
	char events[4096];
	struct pollfd p = { .fd = fd, .events = POLLIN };
	bool any = false;
	if (poll(&p, 1, wait_ms) <= 0)
		return false;
	while (read(fd, events, sizeof events) > 0)
		any = true;
	return any;
}

/* --- The moment ---------------------------------------------------------------------------------------------------------------------------- */

/* One round: the file is read (by a handshake of ours if by nobody else's), and kept for a second. Then it is due: quiet until somebody
 * makes the next handshake, or not. Who reads it more often than that puts it off, but not beyond `until`. */
static bool quiet_round(struct node *n, struct remote_dialer *d, int fd, int64_t until, struct connections *c)
{
	bool ignored = false;
	struct err e;
	(void)!remote_dial(d, n->desired->node, &ignored, &e).ok;
	int64_t due = clock_monotonic_ms() + KEPT_MS;
	(void)opened(fd, 0); /* what was before */
	while (clock_monotonic_ms() < until) {
		bool quiet = sample(c, n->layout.kubelet_port);
		int64_t now = clock_monotonic_ms();
		if (opened(fd, SAMPLE_MS)) {
			if (now >= due)
				return false; /* a handshake of somebody's: it is kept for another second */
			due = clock_monotonic_ms() + KEPT_MS;
		} else if (quiet && now >= due) {
			return true;
		} else if (now > due + KEPT_MS) {
			return false;
		}
	}
	return false;
}

void node_await_quiet(struct node *n, struct remote_dialer *d)
{
	int fd cleanup(close_fd) = watch(n->layout.kubelet_client_crt);
	struct connections c cleanup(connections_release) = { 0 };
	int64_t longest = clock_monotonic_ms() + QUIET_MAX_MS, until = longest < n->until_ms ? longest : n->until_ms;
	if (fd < 0)
		return;
	while (clock_monotonic_ms() < until)
		if (quiet_round(n, d, fd, until, &c))
			return;
}

/* Until a dial has failed and one after it has not, or none has failed for longer than the old pair is kept: then an API server that
 * has no connections yet has read it (the first one to be read closes nothing). */
result node_absorb(struct node *n, struct remote_dialer *d, struct err *e)
{
	bool failed = false;
	int64_t began = clock_monotonic_ms();
	for (;;) {
		bool good = false;
		TRY(remote_dial(d, n->desired->node, &good, e));
		int64_t now = clock_monotonic_ms();
		if (good && (failed || now - began > KEPT_MS + KEPT_MS / 2))
			return OK;
		if (now > n->until_ms)
			return err_set(e, ERR_TIMEOUT, "the API server can't reach the kubelet of %s with its new certificate", n->desired->node);
		failed = failed || !good;
		node_rest(DIAL_APART_MS);
	}
}
