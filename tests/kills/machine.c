#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */

#include "machine.h"

#include "file.h"
#include "process.h"
#include "remote.h"
#include "service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define FILE_MAX ((size_t)4 << 20)
#define START_MS (PROCESS_TICK_MS + 5) /* what was written before has to be seen as older */
#define CLIENT "/etc/kubernetes/pki/apiserver-kubelet-client.crt"
#define POD_UID "1a2b3c4d-0001-4002-8003-a0b0c0d0e0f0"
#define POD_CONTAINER "aaaabbbbccccddddeeeeffff0000111122223333444455556666777788889999"

struct machine *machine;
static const struct cert *signer;
static const struct key *signer_key;

void machine_share(void)
{
	machine = mmap(NULL, sizeof *machine, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (machine == MAP_FAILED)
		abort();
}

void machine_signer(const struct cert *ca, const struct key *key)
{
	signer = ca;
	signer_key = key;
}

/* --- The kubelet ---------------------------------------------------------------------------------------------------------------- */

static bool read_of_root(const char *path, struct buf *ret)
{
	struct err e;
	char *full cleanup(str_freep) = str_printf("%s%s", calls->root, path);
	return file_read(full, FILE_MAX, ret, &e).ok;
}

static void digest_of(const char *path, char ret[static 65])
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	ret[0] = '\0';
	if (read_of_root(path, &text))
		sha256_hex(buf_str(&text), text.len, ret);
}

/* The command of a manifest as kubeadm writes it: "    - --flag=value", one a line, after the name. */
static void take_args(struct machine_process *p, const char *name, const char *text)
{
	p->n_args = 0;
	str_copy(p->args[p->n_args++], MACHINE_ARG_SIZE, name);
	for (const char *line = text; *line; line += strcspn(line, "\n") + (line[strcspn(line, "\n")] != '\0')) {
		const char *flag = line + strspn(line, " ");
		if (!str_starts(flag, "- --") || p->n_args == MACHINE_ARGS)
			continue;
		(void)snprintf(p->args[p->n_args++], MACHINE_ARG_SIZE, "%.*s", (int)strcspn(flag + 2, "\n"), flag + 2);
	}
}

static void begin(enum process which, const char *text)
{
	struct machine_process *p = &machine->processes[which];
	calls_sleep(START_MS);
	p->running = true;
	p->pid = ++machine->last_pid;
	p->started_ms = clock_now_ms();
	p->starts++;
	take_args(p, process_name(which), text);
	if (which == PROCESS_APISERVER)
		digest_of(CLIENT, machine->client_seen);
}

static void look_at_manifest(enum process which)
{
	struct machine_process *p = &machine->processes[which];
	struct buf text cleanup(buf_release) = BUF_INIT;
	char *path cleanup(str_freep) = str_printf("/etc/kubernetes/manifests/%s.yaml", process_name(which));
	char digest[65];
	if (!read_of_root(path, &text)) {
		p->running = false;
		return;
	}
	sha256_hex(buf_str(&text), text.len, digest);
	if (p->running && str_eq(p->manifest, digest))
		return;
	str_copy(p->manifest, sizeof p->manifest, digest);
	begin(which, buf_str(&text));
}

void machine_look(void)
{
	if (!machine->processes[PROCESS_KUBELET].running)
		begin(PROCESS_KUBELET, "");
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		if (p != PROCESS_KUBELET)
			look_at_manifest((enum process)p);
}

void machine_boot(void)
{
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		machine->processes[p].running = false;
	machine_look();
}

/* --- In place of /proc --------------------------------------------------------------------------------------------------------------- */

result __wrap_process_find(const char *name, bool in_pod, bool *ret_found, struct process_seen *ret, struct err *e);
bool __wrap_process_alive(const struct process_seen *p);
bool __wrap_process_pod_alive(const char *pod_uid);
result __wrap_process_terminate(const struct process_seen *p, struct err *e);
result __wrap_process_each_container(void (*each)(void *context, const char *pod_uid, const char *container_id, int64_t started_ms),
				     void *context, struct err *e);

static struct machine_process *process_of(pid_t pid)
{
	for (size_t p = 0; p < PROCESS_COUNT; p++)
		if (machine->processes[p].pid == pid && machine->processes[p].running)
			return &machine->processes[p];
	return NULL;
}

result __wrap_process_find(const char *name, bool in_pod UNUSED, bool *ret_found, struct process_seen *ret, struct err *e UNUSED)
{
	size_t which = 0;
	machine_look();
	while (!str_eq(process_name((enum process)which), name))
		which++;
	const struct machine_process *p = &machine->processes[which];
	*ret_found = p->running;
	if (!p->running)
		return OK;
	*ret = (struct process_seen){ .pid = p->pid, .ticks = p->pid, .started_ms = p->started_ms };
	(void)snprintf(ret->pod_uid, sizeof ret->pod_uid, "%d", (int)p->pid);
	for (size_t i = 0; i < p->n_args; i++)
		strs_add(&ret->args, p->args[i]);
	return OK;
}

bool __wrap_process_alive(const struct process_seen *p)
{
	machine_look();
	return process_of(p->pid) != NULL;
}

bool __wrap_process_pod_alive(const char *pod_uid)
{
	return process_of((pid_t)strtol(pod_uid, NULL, 10)) != NULL;
}

result __wrap_process_terminate(const struct process_seen *p, struct err *e UNUSED)
{
	struct machine_process *found = process_of(p->pid);
	if (found)
		found->running = false;
	calls_count(CALL_PROCESS, "terminate");
	return OK;
}

/* One container of somebody's that has been running all the time. */
result __wrap_process_each_container(void (*each)(void *context, const char *pod_uid, const char *container_id, int64_t started_ms),
				     void *context, struct err *e UNUSED)
{
	each(context, POD_UID, POD_CONTAINER, 1000);
	return OK;
}

/* --- In place of systemd ---------------------------------------------------------------------------------------------------------------- */

result service_restart(const char *unit UNUSED, int64_t timeout_ms UNUSED, struct err *e UNUSED)
{
	machine->processes[PROCESS_KUBELET].running = false;
	machine_look();
	calls_count(CALL_PROCESS, "restart the kubelet");
	return OK;
}

/* --- In place of the network ------------------------------------------------------------------------------------------------------------- */

bool remote_available(void)
{
	return true;
}

result remote_answers(const char *host UNUSED, int port UNUSED, const char *path UNUSED, long *ret_status, struct err *e UNUSED)
{
	machine_look();
	*ret_status = 200;
	return OK;
}

/* A kubelet's serving certificate is self-signed, of nobody's here. */
result remote_presented(const char *host UNUSED, int port, char **ret_pem, struct err *e)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	if (port != 6443 || !machine->processes[PROCESS_APISERVER].running || !read_of_root("/etc/kubernetes/pki/apiserver.crt", &text))
		return err_set(e, ERR_IO, "nobody answers");
	*ret_pem = buf_take(&text);
	return OK;
}

result remote_sign_kubelet(const struct remote_identity *id UNUSED, const char *node, const char *csr_pem, bool rsa UNUSED,
			   int64_t until_ms UNUSED, char **ret_cert_pem, struct err *e)
{
	char *name cleanup(str_freep) = str_printf("system:node:%s", node);
	const struct leaf_request q = { .common_name = name, .organization = "system:nodes", .client = true, .now_ms = clock_now_ms(),
					.validity_ms = (int64_t)365 * 86400000 };
	struct cert *leaf cleanup(cert_freep) = NULL;
	struct buf pem cleanup(buf_release) = BUF_INIT;
	TRY(leaf_make_for_csr(&q, csr_pem, signer, signer_key, &leaf, e));
	cert_to_pem(leaf, &pem);
	*ret_cert_pem = buf_take(&pem);
	return OK;
}

result remote_kubelet_looks(const struct remote_identity *id UNUSED, int port UNUSED, int64_t *ret_begun, int64_t *ret_ended,
			    struct err *e UNUSED)
{
	*ret_begun = *ret_ended = ++machine->looks;
	return OK;
}

static int dialer;

struct remote_dialer *remote_dialer_new(const struct remote_identity *id UNUSED)
{
	return (struct remote_dialer *)&dialer;
}

void remote_dialer_freep(struct remote_dialer **d UNUSED)
{
}

result remote_dial(struct remote_dialer *d UNUSED, const char *node UNUSED, bool *ret_good, struct err *e UNUSED)
{
	char now[65];
	digest_of(CLIENT, now);
	*ret_good = str_eq(now, machine->client_seen);
	str_copy(machine->client_seen, sizeof machine->client_seen, now);
	return OK;
}
