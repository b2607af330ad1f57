/* LINK: node */
/* Lines as Linux 6.1 writes them, and this machine's own tables while a listener has what it is
 * asked about. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include "node.h"
#include "sockets.h"

static void test_lines(void **state UNUSED)
{
	static const char *const lines[] = {
		"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid "
		" timeout inode",
		"   0: 0100007F:192B 00000000:0000 0A 00000000:00000003 00:00000000 00000000     0 "
		"       0 30421 1 0000000000000000 100 0 0 10 0",
		"   1: 0100007F:192B 0100007F:D431 01 00000000:00000000 02:000005A1 00000000     0 "
		"       0 30422 2 0000000000000000 20 4 30 10 -1",
		"   2: 0100007F:D431 0100007F:192B 01 00000000:00000011 00:00000000 00000000     0 "
		"       0 30423 1 0000000000000000 20 4 30 10 -1",
		"  13: 0000000000000000FFFF0000040012AC:192B 0000000000000000FFFF0000010012AC:DDE4 "
		"01 00000000:00000205 00:00000000 00000000     0        0 1",
		"  14: 0000000000000000FFFF0000040012AC:192B 0000000000000000FFFF0000010012AC:DDE6 "
		"06 00000000:00000001 03:00000A00 00000000     0        0 0",
		"  15: garbage",
	};
	struct sockets_seen count = { 0 };
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
		sockets_count(lines[i], 6443, &count);
	assert_int_equal(count.waiting, 3);
	assert_int_equal(count.established, 2);
	assert_int_equal(count.unread, 1);
}

static int listener(struct sockaddr_in *ret)
{
	socklen_t size = sizeof *ret;
	int s = socket(AF_INET, SOCK_STREAM, 0);
	*ret = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	assert_int_equal(bind(s, (struct sockaddr *)ret, sizeof *ret), 0);
	assert_int_equal(listen(s, 4), 0);
	assert_int_equal(getsockname(s, (struct sockaddr *)ret, &size), 0);
	return s;
}

static struct sockets_seen look(const struct sockaddr_in *at)
{
	struct sockets_seen seen = { 0 };
	struct err e;
	assert_true(sockets_look(ntohs(at->sin_port), &seen, &e).ok);
	return seen;
}

static void test_a_connection_of_this_machine(void **state UNUSED)
{
	struct sockaddr_in at;
	int server = listener(&at), client = socket(AF_INET, SOCK_STREAM, 0), taken;
	assert_int_equal(connect(client, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(look(&at).waiting, 1);
	taken = accept(server, NULL, NULL);
	assert_int_equal(look(&at).waiting, 0);
	assert_int_equal(look(&at).established, 1);
	assert_int_equal(look(&at).unread, 0);
	assert_int_equal(write(client, "GET", 3), 3);
	assert_int_equal(look(&at).unread, 1);
	(void)close(client);
	(void)close(taken);
	(void)close(server);
	assert_int_equal(look(&at).established, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_a_connection_of_this_machine),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
