#include "sockets.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

#define TABLE_MAX ((size_t)32 << 20) /* 150 bytes a connection */
enum { ESTABLISHED = 1, LISTEN = 10 };

/* The hexadecimal number that begins there, or after the next colon. */
static unsigned long number(const char *text, bool after_colon)
{
	const char *at = after_colon ? strchr(text, ':') : text;
	return at ? strtoul(at + after_colon, NULL, 16) : 0;
}

/* Fields: number, local address, remote address, state, length of the two queues. */
void sockets_count(const char *line, int port, struct sockets_seen *count)
{
	enum { LOCAL = 1, STATE = 3, QUEUES = 4, N_FIELDS };
	const char *field[N_FIELDS];
	for (size_t i = 0; i < N_FIELDS; i++) {
		line += strspn(line, " ");
		field[i] = line;
		line += strcspn(line, " ");
	}
	unsigned long state = number(field[STATE], false), queued = number(field[QUEUES], true);
	if (number(field[LOCAL], true) != (unsigned long)port)
		return;
	if (state == LISTEN)
		count->waiting += queued;
	if (state != ESTABLISHED)
		return;
	count->established++;
	count->unread += queued > 0;
}

static result count_in(const char *path, int port, struct sockets_seen *count, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	char *rest = NULL;
	TRY(file_read(path, TABLE_MAX, &text, e));
	if (text.len == 0)
		return err_set(e, ERR_IO, "%s is empty", path);
	for (char *line = strtok_r(text.data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		sockets_count(line, port, count);
	return OK;
}

result sockets_look(int port, struct sockets_seen *ret, struct err *e)
{
	struct sockets_seen count = { 0 };
	TRY(count_in("/proc/net/tcp", port, &count, e));
	TRY(count_in("/proc/net/tcp6", port, &count, e));
	*ret = count;
	return OK;
}
