/* certrotation-node: on a node, as a Pod or by hand. */
#include "file.h"
#include "log.h"
#include "node.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 120000
#define DESIRED_MAX ((size_t)256 << 10)
#define LOCK STATE_DIR "/lock"

struct options {
	const char *root, *desired_file, *report_file; /* report_file "-": standard output; NULL: as the command has it */
	bool json;
};

static result read_desired(const struct options *o, struct desired *ret, struct err *e)
{
	const char *text = getenv(CONTRACT_ENV);
	struct buf file cleanup(buf_release) = BUF_INIT;
	if (o->desired_file) {
		TRY(file_read(o->desired_file, DESIRED_MAX, &file, e));
		text = buf_str(&file);
	}
	if (!text)
		return err_set(e, ERR_INPUT, "%s is not set: give --desired FILE", CONTRACT_ENV);
	return desired_from_json(text, strlen(text), ret, e);
}

static result run(struct node *n, const struct options *o, bool act, struct err *e)
{
	struct err unseen;
	TRY(layout_heal(o->root, e));
	if (!node_begin(n, o->root, e).ok)
		return n->report->n_blockers ? OK : FAILED; /* what a blocker says is no failure of this program */
	TRY(node_sweep(n, e));
	TRY(node_observe(n, e));
	if (!act)
		return OK;
	result done = node_converge(n, e);
	result seen = node_observe(n, done.ok ? e : &unseen);
	return done.ok ? seen : done;
}

/* --- Commands --------------------------------------------------------------------------------------------------------------------------- */

static int write_report(const struct options *o, const struct report *r)
{
	struct buf text cleanup(buf_release) = BUF_INIT;
	report_to_json(r, &text);
	if (str_eq(o->report_file, "-"))
		return puts(buf_str(&text)) < 0 || r->error ? 1 : 0;
	FILE *f = fopen(o->report_file, "w");
	if (!f) {
		log_line(LOG_ERROR, "the report can't be written", "file", o->report_file, NULL);
		return 1;
	}
	fputs(buf_str(&text), f);
	fclose(f);
	return r->error ? 1 : 0;
}

static void log_work(const struct report *r)
{
	for (size_t i = 0; i < r->changed.n; i++)
		log_line(LOG_INFO, "changed", "file", r->changed.items[i], NULL);
	for (size_t i = 0; i < r->restarted.n; i++)
		log_line(LOG_INFO, "restarted", "process", r->restarted.items[i], NULL);
	if (r->error)
		log_line(LOG_ERROR, "not all the way", "error", r->error, NULL);
}

static int converge_command(const struct options *o)
{
	struct desired d cleanup(desired_release) = { 0 };
	struct report r cleanup(report_release) = { 0 };
	struct node n cleanup(node_release) = { .desired = &d, .report = &r, .new_key_dir = CONTRACT_KEY_DIR };
	int lock cleanup(file_unlock) = -1;
	char *state cleanup(str_freep) = str_printf("%s" STATE_DIR, o->root), *path cleanup(str_freep) = str_printf("%s" LOCK, o->root);
	struct err e = { 0 };
	for (size_t f = 0; f < FACET_COUNT; f++)
		r.levels[f] = FACET_UNKNOWN;
	result done = read_desired(o, &d, &e);
	if (!d.run)
		d.run = str_dup("inventory");
	r.node = str_dup(d.node ? d.node : "");
	r.run = str_dup(d.run ? d.run : "");
	r.asked = d.asked;
	n.until_ms = clock_monotonic_ms() + (d.deadline_ms ? d.deadline_ms : DEADLINE_MS);
	if (done.ok)
		done = file_mkdir(state, 0700, &e);
	if (done.ok)
		done = file_lock(path, &lock, &e);
	if (done.ok)
		done = run(&n, o, true, &e);
	if (!done.ok)
		r.error = str_dup(e.message);
	if (!r.at_ms)
		r.at_ms = clock_now_ms();
	log_work(&r);
	return write_report(o, &r);
}

static void print_certificate(const char *path, const struct cert *c)
{
	char until[32], *subject cleanup(str_freep) = cert_subject(c), *issuer cleanup(str_freep) = cert_issuer_name(c);
	int64_t days = (cert_not_after_ms(c) - clock_now_ms()) / 86400000;
	time_format(cert_not_after_ms(c), until);
	printf("%-52s %s  %5lldd  %-44.44s  %.44s\n", path, until, (long long)days, subject, issuer);
}

static void print_file(const char *path)
{
	struct certs list cleanup(certs_release) = { 0 };
	struct err e;
	if (!path || !file_exists(path))
		return;
	if (!node_certs(path, &list, &e).ok) {
		printf("%-52s %s\n", path, e.message);
		return;
	}
	for (size_t i = 0; i < list.n; i++)
		print_certificate(i ? "  and" : path, list.items[i]);
}

static void print_levels(const struct node *n)
{
	for (size_t f = 0; f < FACET_COUNT; f++) {
		int is = n->report->levels[f], wanted = n->desired->levels[f];
		printf("%-16s %s%d", facet_name((enum facet)f), is == FACET_ABSENT ? "absent " : "", is);
		if (wanted != FACET_UNTOUCHED)
			printf("  wanted %d%s", wanted, facet_reached(is, wanted) ? "" : "  (would change)");
		putchar('\n');
	}
}

static void print_node(const struct node *n)
{
	const struct layout *l = &n->layout;
	const char *const files[] = { l->of[AUTHORITY_KUBERNETES].ca_crt, l->apiserver_crt, l->kubelet_client_crt, l->own_signer, l->own_root,
				      l->of[AUTHORITY_FRONT_PROXY].ca_crt, l->proxy_client_crt, l->of[AUTHORITY_ETCD].ca_crt,
				      l->etcd_leaves[ETCD_SERVER], l->etcd_leaves[ETCD_PEER], l->etcd_leaves[ETCD_API_CLIENT] };
	char *client cleanup(str_freep) = node_kubelet_client_path(n);
	printf("%s\n", l->control_plane ? "control plane" : "worker");
	for (size_t i = 0; i < ARRAY_LEN(files); i++)
		print_file(files[i]);
	print_file(client);
	print_levels(n);
	for (size_t p = 0; p < PROCESS_COUNT; p++) {
		char started[32];
		time_format(n->report->started_ms[p], started);
		if (n->report->started_ms[p])
			printf("%-26s since %s\n", process_name((enum process)p), started);
	}
	for (size_t i = 0; i < n->report->n_blockers; i++)
		printf("BLOCKER %s %s: %s\n", n->report->blockers[i].code, n->report->blockers[i].object, n->report->blockers[i].message);
}

static result inspect(struct node *n, const struct options *o, struct err *e)
{
	if (!node_begin(n, o->root, e).ok)
		return n->report->n_blockers ? OK : FAILED; /* what a blocker says is no failure of this program */
	return node_observe(n, e);
}

static result inspected_state(const struct options *o, struct desired *d, struct err *e)
{
	for (size_t f = 0; f < FACET_COUNT; f++)
		d->levels[f] = FACET_UNTOUCHED;
	if (o->desired_file || getenv(CONTRACT_ENV))
		TRY(read_desired(o, d, e));
	else
		d->of[AUTHORITY_KUBERNETES].wanted = true;
	if (!d->run)
		d->run = str_dup("inspect");
	d->pods = d->pods && !d->of[AUTHORITY_KUBERNETES].new_pem; /* who has read N is remembered in a file, and this is to change nothing */
	return OK;
}

static int inspect_command(const struct options *o)
{
	struct desired d cleanup(desired_release) = { 0 };
	struct report r cleanup(report_release) = { 0 };
	struct node n cleanup(node_release) = { .desired = &d, .report = &r, .new_key_dir = CONTRACT_KEY_DIR, .elsewhere = o->root && *o->root };
	struct err e = { 0 };
	if (!inspected_state(o, &d, &e).ok) {
		fprintf(stderr, "certrotation-node: %s\n", e.message);
		return 2;
	}
	r.node = str_dup(d.node ? d.node : "");
	r.run = str_dup(d.run);
	r.asked = d.asked;
	result done = inspect(&n, o, &e);
	if (!done.ok) {
		fprintf(stderr, "certrotation-node: %s\n", e.message);
		r.error = str_dup(e.message);
	}
	if (o->json)
		return write_report(o, &r);
	if (done.ok)
		print_node(&n);
	return done.ok ? 0 : 1;
}

static void usage(FILE *to)
{
	fputs("usage: certrotation-node inspect [--json [--report FILE]] [--desired FILE] [--root DIR]\n"
	      "           what is on this node, and what a run would change; changes nothing\n"
	      "       certrotation-node converge [--desired FILE] [--report FILE] [--root DIR]\n"
	      "           bring this node to what $" CONTRACT_ENV " (or FILE) asks for\n"
	      "       certrotation-node --version | --help\n", to);
}

static const struct option LONG_OPTIONS[] = {
	{ "root", required_argument, NULL, 'r' },    { "desired", required_argument, NULL, 'd' },
	{ "report", required_argument, NULL, 'o' },  { "json", no_argument, NULL, 'j' },
	{ NULL, 0, NULL, 0 },
};

static bool parse(int argc, char **argv, struct options *o)
{
	for (int c = 0; (c = getopt_long(argc, argv, "", LONG_OPTIONS, NULL)) != -1;) {
		if (c == 'r')
			o->root = optarg;
		else if (c == 'd')
			o->desired_file = optarg;
		else if (c == 'o')
			o->report_file = optarg;
		else if (c == 'j')
			o->json = true;
		else
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	struct options o = { .root = "" };
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
	signal(SIGPIPE, SIG_IGN);
	log_init(LOG_JSON, LOG_INFO);
	bool looks = str_eq(argv[1], "inspect");
	if (!o.report_file)
		o.report_file = looks ? "-" : CONTRACT_TERMINATION_PATH;
	if (looks)
		return inspect_command(&o);
	if (str_eq(argv[1], "converge"))
		return converge_command(&o);
	usage(stderr);
	return 2;
}
