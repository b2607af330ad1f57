#include "sockets.h"
#include "file.h"

#include <stdio.h>
#include <string.h>

#define TABLE_MAX ((size_t)32 << 20) /* 150 bytes a connection */
enum { ESTABLISHED = 1, LISTEN = 10 };

void sockets_count(const char *line, int port, struct sockets_seen *count)
{
	unsigned local = 0, state = 0, unread = 0;
	if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*x:%x", &local, &state, &unread) != 3 || local != (unsigned)port)
		return;
	if (state == LISTEN)
		count->waiting += unread;
	if (state != ESTABLISHED)
		return;
	count->established++;
	count->unread += unread > 0;
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
