/* The kubelet's unit: restarted by systemd. Two ways: D-Bus (service_dbus.c, in a Pod), systemctl (service_systemctl.c, by hand). */
#ifndef SERVICE_H
#define SERVICE_H

#include "base.h"

/* Restarts the unit and waits until systemd says that it is done. ERR_TIMEOUT, ERR_OTHER. */
result service_restart(const char *unit, int64_t timeout_ms, struct err *e) MUST_CHECK;

#endif
