#include "report.h"
#include "pki.h"

#include <string.h>

#define EVENTS_MAX 8

static struct json *event_object(const struct json *object, const struct status_event *ev, const char *component)
{
	const struct json *meta = json_get(object, "metadata");
	struct json *j = json_object(), *m = json_ensure_object(j, "metadata"), *ref = json_ensure_object(j, "involvedObject");
	char suffix[17], now[32];
	random_hex(8, suffix);
	time_format(clock_now_ms(), now);
	char *name cleanup(str_freep) = str_printf("%s.%s", json_str_or(json_get(meta, "name"), ""), suffix);
	json_set_str(j, "apiVersion", "v1");
	json_set_str(j, "kind", "Event");
	json_set_str(m, "name", name);
	json_set_str(m, "namespace", "default");
	json_set_str(ref, "apiVersion", "certrotation.dev/v1alpha1");
	json_set_str(ref, "kind", "CertificateRotation");
	json_set_str(ref, "name", json_get_str(meta, "name"));
	json_set_str(ref, "uid", json_get_str(meta, "uid"));
	json_set_str(j, "type", ev->warning ? "Warning" : "Normal");
	json_set_str(j, "reason", ev->reason);
	json_set_str(j, "message", ev->note);
	json_set_str(j, "firstTimestamp", now);
	json_set_str(j, "lastTimestamp", now);
	json_set_int(j, "count", 1);
	json_set_str(json_ensure_object(j, "source"), "component", "certrotation");
	json_set_str(j, "reportingComponent", "certrotation.dev/controller");
	json_set_str(j, "reportingInstance", component);
	return j;
}

/* Events are a courtesy: one that can't be written is not tried again, and does not hold anything up. */
static void write_events(struct kube *kube, const struct json *object, const struct json *status, const char *component)
{
	struct status_event events[EVENTS_MAX];
	struct err e;
	size_t n = status_events(json_get(object, "status"), status, events, EVENTS_MAX);
	for (size_t i = 0; i < n; i++) {
		struct json *ev cleanup(json_freep) = event_object(object, &events[i], component);
		if (!kube_create(kube, "/api/v1/namespaces/default/events", ev, NULL, &e).ok)
			return;
	}
}

result report_status(struct kube *kube, const struct json *object, const struct json *status, const char *component,
		     bool *ret_written, struct err *e)
{
	if (!status_differs(json_get(object, "status"), status)) {
		*ret_written = false;
		return OK;
	}
	struct json *next cleanup(json_freep) = json_copy(object);
	json_set(next, "status", json_copy(status));
	char *path cleanup(str_freep) = str_printf("/apis/certrotation.dev/v1alpha1/certificaterotations/%s/status",
						   json_str_or(json_at(object, "metadata", "name", NULL), ""));
	TRY(kube_update(kube, path, next, NULL, e));
	write_events(kube, object, status, component);
	*ret_written = true;
	return OK;
}
