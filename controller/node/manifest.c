#include "manifest.h"
#include "file.h"
#include "layout.h"

#include <stdlib.h>
#include <string.h>

void manifest_release(struct manifest *m)
{
	yaml_freep(&m->yaml);
	buf_release(&m->text);
}

/* The error as a blocker. */
result manifest_blocked(struct report *r, const char *path, struct err *e)
{
	if (e->kind == ERR_NOT_FOUND)
		report_add_blocker(r, "NotKubeadm", path, "it is not there, and only nodes that kubeadm has made can be rotated: put it back");
	else
		report_add_blocker(r, "UnreadableFile", path, "%s: put it in order", e->message);
	return err_wrap(e, "%s", path);
}

result manifest_read(const char *path, struct manifest *ret, struct report *r, struct err *e)
{
	ret->path = path;
	if (!file_read(path, MANIFEST_MAX, &ret->text, e).ok || !yaml_parse(buf_str(&ret->text), ret->text.len, &ret->yaml, e).ok)
		return manifest_blocked(r, path, e);
	return OK;
}

static void flag_seen(struct manifest_flag *f, const struct yaml_node *item, const char *rest)
{
	bool apart = *rest == '\0';
	f->node = item;
	f->value = apart ? yaml_str(item->next) : rest + 1;
	f->apart = f->apart || apart;
	f->count++;
}

struct manifest_flag manifest_flag(const struct yaml *y, const char *name)
{
	static const char *const LISTS[] = { "command", "args" };
	const struct yaml_node *containers = yaml_at(yaml_root(y), "spec", "containers", NULL);
	struct manifest_flag f = { 0 };
	size_t n = strlen(name);
	for (size_t i = 0; i < ARRAY_LEN(LISTS); i++) {
		yaml_each(item, yaml_get(containers ? containers->first : NULL, LISTS[i])) {
			const char *s = yaml_str(item);
			if (s && str_starts(s, "--") && strncmp(s + 2, name, n) == 0 && (s[2 + n] == '=' || s[2 + n] == '\0'))
				flag_seen(&f, item, s + 2 + n);
		}
	}
	return f;
}

char *manifest_value(const struct manifest *m, const char *name)
{
	struct manifest_flag f = manifest_flag(m->yaml, name);
	return f.value ? str_dup(f.value) : NULL;
}

/* In the folder that is mounted here, and not out of it again. */
bool manifest_is_under(const char *path, const char *dir)
{
	return path && str_starts(path, dir) && path[strlen(dir)] == '/' && !strstr(path, "/../") && !str_ends(path, "/..");
}

/* A path flag that we rely on. */
char *manifest_path(const struct manifest *m, const char *name, struct report *r)
{
	struct manifest_flag f = manifest_flag(m->yaml, name);
	char *value = f.value ? str_dup(f.value) : NULL;
	if (f.count != 1)
		report_add_blocker(r, f.count ? "DuplicateFlag" : "MissingFlag", m->path, "--%s %s: give it once", name,
				   f.count ? "is there more than once" : "is absent");
	else if (f.apart)
		report_add_blocker(r, "UnsupportedFlag", m->path, "--%s has its value in an item of its own: write --%s=value", name,
				   name);
	else if (!manifest_is_under(value, KUBERNETES_DIR))
		report_add_blocker(r, "UnsupportedPath", m->path, "--%s points to %s: move the file under %s and name it there", name, value,
				   KUBERNETES_DIR);
	return value;
}

/* text NULL: not given. A port that is none is a blocker. */
int manifest_port_of(const char *text, int otherwise, const char *where, struct report *r)
{
	char *end = NULL;
	long port = text ? strtol(text, &end, 10) : otherwise;
	if (port > 0 && port <= UINT16_MAX && (!end || (end != text && !*end)))
		return (int)port;
	report_add_blocker(r, "UnsupportedPort", where, "\"%s\" is not a port to be asked at", text ? text : "");
	return otherwise;
}

int manifest_port(const struct manifest *m, const char *flag, int otherwise, struct report *r)
{
	char *value cleanup(str_freep) = manifest_value(m, flag);
	return manifest_port_of(value, otherwise, m->path, r);
}

/* Where a server on this node is reached: loopback, unless it listens on one address only. Brackets around IPv6. */
char *manifest_host(const struct manifest *m)
{
	char *bind cleanup(str_freep) = manifest_value(m, "bind-address");
	bool any = !bind || str_eq(bind, "0.0.0.0") || str_eq(bind, "::") || !*bind;
	if (any)
		return str_dup("127.0.0.1");
	return strchr(bind, ':') ? str_printf("[%s]", bind) : str_dup(bind);
}
