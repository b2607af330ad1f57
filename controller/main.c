/* certrotation-controller: subcommands, wiring, signals. */
#include "lease.h"
#include "log.h"
#include "phase.h"
#include "pki.h"
#include "reconcile.h"
#include "serve.h"
#include "walk.h"
#include "watch.h"

#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LEASE_NAME "certrotation-controller"
#define ALIVE_MS 600000 /* a pass over a large or a slow cluster takes its time; a killed leader only starts it again */
#define PASS_APART_MS 50
#define STANDBY_MS 1000
#define AFTER_ERROR_MS 1000

struct options {
	const char *namespace, *node_namespace, *listen, *kubeconfig, *image;
	enum log_format format;
	enum log_level level;
};

/* What the threads share: a bell. */
struct bell {
	pthread_mutex_t mutex;
	pthread_cond_t rung;
	bool ringing;
};
static struct bell bell = { .mutex = PTHREAD_MUTEX_INITIALIZER };
static atomic_bool stopping;

static void bell_ring(void)
{
	pthread_mutex_lock(&bell.mutex);
	bell.ringing = true;
	pthread_cond_signal(&bell.rung);
	pthread_mutex_unlock(&bell.mutex);
}

static void bell_wait(int64_t ms)
{
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (ms % 1000) * 1000000;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&bell.mutex);
	while (!bell.ringing && !stopping && pthread_cond_timedwait(&bell.rung, &bell.mutex, &until) == 0)
		;
	bell.ringing = false;
	pthread_mutex_unlock(&bell.mutex);
}

/* --- Hooks ---------------------------------------------------------------------------------------------------------------- */

struct wiring {
	struct lease *lease;
	struct server *server;
};

static bool may_act(void *context)
{
	const struct wiring *w = context;
	return !stopping && lease_held(w->lease);
}

static void observed(void *context, const char *metrics, const char *status_json)
{
	const struct wiring *w = context;
	server_metrics(w->server, metrics);
	server_status(w->server, status_json);
}

static void changed(void *context UNUSED, size_t target UNUSED)
{
	bell_ring();
}

static void leading(void *context UNUSED, bool now)
{
	log_line(LOG_INFO, now ? "leading" : "not leading", NULL);
	bell_ring();
}

/* Signals are taken by a thread of their own, so that nothing is interrupted. */
static void *wait_for_signal(void *context)
{
	int number = 0;
	sigwait(context, &number);
	stopping = true;
	bell_ring();
	return NULL;
}

/* --- Running ---------------------------------------------------------------------------------------------------------------- */

static void work(struct engine *g, const struct wiring *w)
{
	while (!stopping) {
		int64_t again = STANDBY_MS;
		struct err e = { 0 };
		server_alive(w->server, ALIVE_MS);
		if (lease_held(w->lease) && !engine_pass(g, &again, &e).ok) {
			log_err(LOG_WARN, "the pass ended early", &e);
			again = e.retry_after_ms > AFTER_ERROR_MS ? e.retry_after_ms : AFTER_ERROR_MS;
		}
		server_ready(w->server, true);
		bell_wait(again);
		const struct timespec apart = { .tv_nsec = PASS_APART_MS * 1000000L }; /* several events make one pass */
		nanosleep(&apart, NULL);
	}
}

/* Our own image, from our own Pod, so that it is written down in one place only. */
static result own_image(struct kube *k, const struct options *o, const char *pod, char **ret, struct err *e)
{
	if (o->image && *o->image) {
		*ret = str_dup(o->image);
		return OK;
	}
	char *path cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/pods/%s", o->namespace, pod);
	struct json *object cleanup(json_freep) = NULL;
	TRY(kube_get(k, path, &object, e));
	const char *image = json_get_str(json_first(json_at(object, "spec", "containers", NULL)), "image");
	if (!image)
		return err_set(e, ERR_INPUT, "Pod %s/%s has no image", o->namespace, pod);
	*ret = str_dup(image);
	return OK;
}

static int port_of(const char *listen)
{
	const char *colon = strrchr(listen, ':');
	return (int)strtol(colon ? colon + 1 : listen, NULL, 10);
}

static result start_watcher(const struct kube *k, const struct options *o, struct watcher **ret, struct err *e)
{
	char *jobs cleanup(str_freep) = str_printf("/api/v1/namespaces/%s/pods", o->node_namespace);
	const struct watch_target targets[] = {
		{ "/apis/certrotation.dev/v1alpha1/certificaterotations", NULL, NULL },
		{ jobs, NULL, NULL },
		{ "/api/v1/nodes", NULL, NULL },
	};
	return watcher_start(k, targets, ARRAY_LEN(targets), changed, NULL, ret, e);
}

static result run(const struct options *o, struct err *e)
{
	struct kube *k cleanup(kube_freep) = NULL;
	struct server *server cleanup(server_stopp) = NULL;
	struct lease *lease cleanup(lease_stopp) = NULL;
	struct watcher *watcher cleanup(watcher_stopp) = NULL;
	struct engine *engine cleanup(engine_freep) = NULL;
	char *image cleanup(str_freep) = NULL;
	char host[256] = "", suffix[17];
	gethostname(host, sizeof host - 1);
	const char *pod = getenv("POD_NAME") ? getenv("POD_NAME") : host;
	TRY(o->kubeconfig ? kube_from_kubeconfig(o->kubeconfig, &k, e) : kube_in_cluster(&k, e));
	TRY_CTX(server_start(NULL, port_of(o->listen), &server, e), e, "listening on %s", o->listen);
	server_alive(server, ALIVE_MS);
	TRY_CTX(own_image(k, o, pod, &image, e), e, "finding the image for node Pods");
	/* as client-go's users do: a process that was started again in the same Pod is another candidate */
	random_hex(8, suffix);
	char *identity cleanup(str_freep) = str_printf("%s_%s", pod, suffix);
	TRY(lease_start(k, o->namespace, LEASE_NAME, identity, leading, NULL, &lease, e));
	TRY(start_watcher(k, o, &watcher, e));
	struct wiring w = { lease, server };
	const struct settings s = { o->namespace, o->node_namespace, pod, getenv("NODE_NAME"), image };
	const struct engine_hooks hooks = { may_act, observed, &w };
	engine = engine_new(k, &s, &hooks);
	log_line(LOG_INFO, "started", "version", CERTROTATION_VERSION, "pod", pod, "image", image, NULL);
	work(engine, &w);
	return OK;
}

/* --- Command line --------------------------------------------------------------------------------------------------------------- */

static void usage(FILE *to)
{
	fputs("usage: certrotation-controller run [options]\n"
	      "       certrotation-controller phases      print the phases and steps of a rotation\n"
	      "       certrotation-controller --version\n"
	      "\n"
	      "  --namespace NS        where this program runs and keeps its Lease (certrotation-system)\n"
	      "  --node-namespace NS   where node Pods run and authorities' Secrets are (certrotation-nodes)\n"
	      "  --node-image IMAGE    image of node Pods (default: this Pod's own)\n"
	      "  --listen :PORT        /healthz, /readyz, /metrics, status page (:8080)\n"
	      "  --kubeconfig FILE     from outside of the cluster\n"
	      "  --log-format FORMAT   json (default) or text\n"
	      "  --debug               log more\n", to);
}

static const struct option LONG_OPTIONS[] = {
	{ "namespace", required_argument, NULL, 'n' }, { "node-namespace", required_argument, NULL, 'N' },
	{ "node-image", required_argument, NULL, 'i' }, { "listen", required_argument, NULL, 'l' },
	{ "kubeconfig", required_argument, NULL, 'k' }, { "log-format", required_argument, NULL, 'f' },
	{ "debug", no_argument, NULL, 'd' },           { "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'v' },         { NULL, 0, NULL, 0 },
};

static bool parse(int argc, char **argv, struct options *o)
{
	for (int c = 0; (c = getopt_long(argc, argv, "", LONG_OPTIONS, NULL)) != -1;) {
		if (c == 'n')
			o->namespace = optarg;
		else if (c == 'N')
			o->node_namespace = optarg;
		else if (c == 'i')
			o->image = optarg;
		else if (c == 'l')
			o->listen = optarg;
		else if (c == 'k')
			o->kubeconfig = optarg;
		else if (c == 'f')
			o->format = str_eq(optarg, "text") ? LOG_TEXT : LOG_JSON;
		else if (c == 'd')
			o->level = LOG_DEBUG;
		else
			return false;
	}
	return true;
}

static int run_command(const struct options *o)
{
	static sigset_t signals;
	pthread_t thread;
	pthread_condattr_t clock;
	struct err e = { 0 };
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(&bell.rung, &clock);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	signal(SIGPIPE, SIG_IGN);
	pthread_create(&thread, NULL, wait_for_signal, &signals);
	pthread_detach(thread);
	log_init(o->format, o->level);
	if (run(o, &e).ok)
		return 0;
	log_err(LOG_ERROR, "ended", &e);
	return 1;
}

static int phases_command(void)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	walk_print(&text);
	fputs(buf_str(&text), stdout);
	return 0;
}

int main(int argc, char **argv)
{
	struct options o = { .namespace = "certrotation-system", .node_namespace = "certrotation-nodes", .listen = ":8080",
			     .format = LOG_JSON, .level = LOG_INFO };
	if (argc > 1 && str_eq(argv[1], "--version"))
		return puts(CERTROTATION_VERSION) < 0;
	if (argc > 1 && str_eq(argv[1], "--help")) {
		usage(stdout);
		return 0;
	}
	if (argc < 2 || !parse(argc - 1, argv + 1, &o)) {
		usage(stderr);
		return 2;
	}
	if (str_eq(argv[1], "phases"))
		return phases_command();
	if (str_eq(argv[1], "run"))
		return run_command(&o);
	usage(stderr);
	return 2;
}
