/* LINK: node rotation */
/* /proc/PID/cgroup: a container may name its own groups. A uid and an id fit, end, and are of one line. */
#include "fuzz.h"

#include "process.h"

#include <string.h>

static void check_result(bool found, const char *uid, const char *id)
{
	MUST(memchr(uid, '\0', POD_UID_SIZE) && memchr(id, '\0', CONTAINER_ID_SIZE));
	MUST(!strpbrk(uid, "/\n_.") && !strpbrk(id, "/\n"));
	if (!found)
		return;
	MUST(*uid && strlen(id) == 64 && strspn(id, "0123456789abcdef") == 64);
}

static void check_line(const char *line)
{
	char uid[POD_UID_SIZE], id[CONTAINER_ID_SIZE], uid_alone[POD_UID_SIZE], id_alone[CONTAINER_ID_SIZE];
	char *alone cleanup(str_freep) = str_ndup(line, strcspn(line, "\n"));
	memset(uid, 'x', sizeof uid);
	memset(id, 'x', sizeof id);
	bool found = process_parse_cgroup(line, uid, id);
	check_result(found, uid, id);
	/* the lines that follow it in the file are no part of it */
	MUST(process_parse_cgroup(alone, uid_alone, id_alone) == found);
	MUST(!found || (str_eq(uid, uid_alone) && str_eq(id, id_alone)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	size_t len = 0;
	char *text cleanup(str_freep) = fuzz_part(&in, &len);
	for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		check_line(line);
	return 0;
}
