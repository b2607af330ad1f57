#include "service.h"

#include <string.h>
#include <systemd/sd-bus.h>

struct job {
	const char *path;
	bool done;
	char outcome[32];
};

/* org.freedesktop.systemd1.Manager.JobRemoved(u id, o job, s unit, s result) */
static int job_removed(sd_bus_message *m, void *context, sd_bus_error *error UNUSED)
{
	struct job *j = context;
	uint32_t id = 0;
	const char *path = NULL, *unit = NULL, *outcome = NULL;
	if (sd_bus_message_read(m, "uoss", &id, &path, &unit, &outcome) < 0 || !str_eq(path, j->path))
		return 0;
	str_copy(j->outcome, sizeof j->outcome, outcome);
	j->done = true;
	return 0;
}

#define SYSTEMD "org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"

static result start_restart(sd_bus *bus, const char *unit, sd_bus_message **ret, struct err *e)
{
	sd_bus_error error cleanup(sd_bus_error_free) = SD_BUS_ERROR_NULL;
	int r = sd_bus_call_method(bus, SYSTEMD, "Subscribe", &error, NULL, "");
	if (r >= 0)
		r = sd_bus_call_method(bus, SYSTEMD, "RestartUnit", &error, ret, "ss", unit, "replace");
	if (r >= 0)
		return OK;
	return err_set(e, ERR_OTHER, "systemd would not restart %s: %s", unit, error.message ? error.message : strerror(-r));
}

static result wait_for_job(sd_bus *bus, struct job *j, int64_t timeout_ms, const char *unit, struct err *e)
{
	int64_t until = clock_monotonic_ms() + timeout_ms;
	while (!j->done) {
		int64_t left = until - clock_monotonic_ms();
		int r = sd_bus_process(bus, NULL);
		if (r < 0)
			return err_set(e, ERR_IO, "D-Bus: %s", strerror(-r));
		if (left <= 0)
			return err_set(e, ERR_TIMEOUT, "systemd has not restarted %s in %lld s", unit, (long long)timeout_ms / 1000);
		if (r == 0)
			sd_bus_wait(bus, (uint64_t)left * 1000);
	}
	if (str_eq(j->outcome, "done"))
		return OK;
	return err_set(e, ERR_OTHER, "restarting %s ended as \"%s\": see journalctl -u %s", unit, j->outcome, unit);
}

result service_restart(const char *unit, int64_t timeout_ms, struct err *e)
{
	sd_bus *bus cleanup(sd_bus_flush_close_unrefp) = NULL;
	sd_bus_message *reply cleanup(sd_bus_message_unrefp) = NULL;
	struct job j = { 0 };
	int r = sd_bus_open_system(&bus);
	if (r < 0)
		return err_set(e, ERR_IO, "the system's D-Bus can't be reached: %s", strerror(-r));
	r = sd_bus_match_signal(bus, NULL, SYSTEMD, "JobRemoved", job_removed, &j);
	if (r < 0)
		return err_set(e, ERR_IO, "D-Bus: %s", strerror(-r));
	TRY(start_restart(bus, unit, &reply, e));
	if (sd_bus_message_read(reply, "o", &j.path) < 0)
		return err_set(e, ERR_IO, "systemd's answer can't be read");
	return wait_for_job(bus, &j, timeout_ms, unit, e);
}
