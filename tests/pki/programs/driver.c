/* Makes certificates with the pki module, for the Go test beside it to judge.
 *
 *   pki-driver authority DIR ALGORITHM UNIQUE   ca.crt, ca.key
 *   pki-driver leaves DIR                       server.crt, server.key, client.crt, client.key, issued by ca
 *   pki-driver rotate DIR ALGORITHM UNIQUE      from ca, server and client: new-ca.crt, new-ca.key, x.crt, y.crt,
 *                                               new-server.crt, new-client.crt, again-server.crt, server.csr
 *   pki-driver look FILE…                       what the module says about each certificate, a line "name value" each
 */
#include "pki.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define YEAR_MS ((int64_t)365 * 86400 * 1000)

struct folder {
	const char *path;
	int64_t now_ms;
};

static result read_path(const char *path, struct buf *out, struct err *e)
{
	char chunk[4096];
	size_t n = 0;
	FILE *f = fopen(path, "r");
	if (!f)
		return err_errno(e, "%s", path);
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		buf_add(out, chunk, n);
	bool good = !ferror(f);
	(void)fclose(f);
	return good ? OK : err_set(e, ERR_IO, "reading %s", path);
}

static result read_file(const struct folder *d, const char *name, struct buf *out, struct err *e)
{
	cleanup(str_freep) char *path = str_printf("%s/%s", d->path, name);
	return read_path(path, out, e);
}

static result write_file(const struct folder *d, const char *name, const struct buf *b, struct err *e)
{
	cleanup(str_freep) char *path = str_printf("%s/%s", d->path, name);
	FILE *f = fopen(path, "w");
	if (!f)
		return err_errno(e, "%s", path);
	bool good = fwrite(b->data, 1, b->len, f) == b->len;
	return fclose(f) == 0 && good ? OK : err_set(e, ERR_IO, "writing %s", path);
}

static result read_cert(const struct folder *d, const char *name, struct cert **ret, struct err *e)
{
	cleanup(buf_release) struct buf pem = BUF_INIT;
	TRY(read_file(d, name, &pem, e));
	TRY_CTX(cert_from_pem(pem.data, pem.len, ret, e), e, "%s", name);
	return OK;
}

static result read_key(const struct folder *d, const char *name, struct key **ret, struct err *e)
{
	cleanup(buf_release) struct buf pem = BUF_SECRET;
	TRY(read_file(d, name, &pem, e));
	TRY_CTX(key_from_pem(pem.data, pem.len, ret, e), e, "%s", name);
	return OK;
}

static result write_cert(const struct folder *d, const char *name, const struct cert *c, struct err *e)
{
	cleanup(buf_release) struct buf pem = BUF_INIT;
	cert_to_pem(c, &pem);
	return write_file(d, name, &pem, e);
}

static result write_key(const struct folder *d, const char *name, const struct key *k, struct err *e)
{
	cleanup(buf_release) struct buf pem = BUF_SECRET;
	key_to_pem(k, &pem);
	return write_file(d, name, &pem, e);
}

static result make_authority(const struct folder *d, const char *algorithm, const char *unique, const char *prefix,
			     struct cert **ret, struct key **ret_key, struct err *e)
{
	cleanup(str_freep) char *cert_name = str_printf("%sca.crt", prefix);
	cleanup(str_freep) char *key_name = str_printf("%sca.key", prefix);
	struct ca_request r = { "kubernetes", unique, d->now_ms, 10 * YEAR_MS };
	TRY(key_generate(algorithm, ret_key, e));
	TRY(ca_make(&r, *ret_key, ret, e));
	TRY(write_cert(d, cert_name, *ret, e));
	return write_key(d, key_name, *ret_key, e);
}

static result authority(const struct folder *d, const char *algorithm, const char *unique, struct err *e)
{
	cleanup(cert_freep) struct cert *c = NULL;
	cleanup(key_freep) struct key *k = NULL;
	return make_authority(d, algorithm, unique, "", &c, &k, e);
}

static result make_leaf(const struct folder *d, const struct leaf_request *r, const char *name, const char *algorithm,
			struct err *e)
{
	cleanup(cert_freep) struct cert *ca = NULL, *c = NULL;
	cleanup(key_freep) struct key *ca_key = NULL, *k = NULL;
	cleanup(str_freep) char *cert_name = str_printf("%s.crt", name);
	cleanup(str_freep) char *key_name = str_printf("%s.key", name);
	TRY(read_cert(d, "ca.crt", &ca, e));
	TRY(read_key(d, "ca.key", &ca_key, e));
	TRY(key_generate(algorithm, &k, e));
	TRY(leaf_make(r, k, ca, ca_key, &c, e));
	TRY(write_cert(d, cert_name, c, e));
	return write_key(d, key_name, k, e);
}

static result leaves(const struct folder *d, struct err *e)
{
	static const char *const names[] = { "cp-1", "localhost" };
	const struct leaf_request server = { .common_name = "kube-apiserver", .server = true, .dns_names = names,
					     .n_dns_names = 2, .now_ms = d->now_ms, .validity_ms = YEAR_MS };
	const struct leaf_request client = { .common_name = "kubernetes-admin",
					     .organization = "kubeadm:cluster-admins", .client = true,
					     .now_ms = d->now_ms, .validity_ms = YEAR_MS };
	TRY(make_leaf(d, &server, "server", "RSA-2048", e));
	return make_leaf(d, &client, "client", "ECDSA-P256", e);
}

struct authority_pair {
	struct cert *o, *n;
	struct key *o_key, *n_key;
};

static void pair_release(struct authority_pair *p)
{
	cert_freep(&p->o);
	cert_freep(&p->n);
	key_freep(&p->o_key);
	key_freep(&p->n_key);
}

static result bridges(const struct folder *d, const struct authority_pair *p, struct err *e)
{
	cleanup(cert_freep) struct cert *x = NULL, *y = NULL;
	TRY(ca_cross_sign(p->n, p->o, p->o_key, d->now_ms, &x, e));
	TRY(ca_cross_sign(p->o, p->n, p->n_key, d->now_ms, &y, e));
	TRY(write_cert(d, "x.crt", x, e));
	return write_cert(d, "y.crt", y, e);
}

static result reissue(const struct folder *d, const char *from, const char *to, const struct cert *issuer,
		      const struct key *issuer_key, struct err *e)
{
	cleanup(cert_freep) struct cert *old = NULL, *c = NULL;
	TRY(read_cert(d, from, &old, e));
	TRY_CTX(leaf_reissue(old, NULL, issuer, issuer_key, d->now_ms, YEAR_MS, &c, e), e, "%s", from);
	return write_cert(d, to, c, e);
}

static result request(const struct folder *d, struct err *e)
{
	cleanup(cert_freep) struct cert *c = NULL;
	cleanup(key_freep) struct key *k = NULL;
	cleanup(buf_release) struct buf pem = BUF_INIT;
	TRY(read_cert(d, "server.crt", &c, e));
	TRY(read_key(d, "server.key", &k, e));
	TRY(csr_make(c, k, &pem, e));
	return write_file(d, "server.csr", &pem, e);
}

static result rotate(const struct folder *d, const char *algorithm, const char *unique, struct err *e)
{
	cleanup(pair_release) struct authority_pair p = { 0 };
	TRY(read_cert(d, "ca.crt", &p.o, e));
	TRY(read_key(d, "ca.key", &p.o_key, e));
	TRY(make_authority(d, algorithm, unique, "new-", &p.n, &p.n_key, e));
	TRY(bridges(d, &p, e));
	TRY(reissue(d, "server.crt", "new-server.crt", p.n, p.n_key, e));
	TRY(reissue(d, "client.crt", "new-client.crt", p.n, p.n_key, e));
	TRY(reissue(d, "server.crt", "again-server.crt", p.o, p.o_key, e));
	return request(d, e);
}

static void print_names(const struct cert *c)
{
	cleanup(str_freep) char *subject = cert_subject(c);
	cleanup(str_freep) char *issuer = cert_issuer_name(c);
	cleanup(str_freep) char *common_name = cert_subject_attribute(c, "CN");
	cleanup(str_freep) char *organization = cert_subject_attribute(c, "O");
	cleanup(strs_release) struct strs sans = { 0 };
	(void)printf("subject %s\nissuer %s\nCN %s\nO %s\n", subject, issuer, common_name ? common_name : "",
		     organization ? organization : "");
	cert_sans(c, &sans);
	for (size_t i = 0; i < sans.n; i++)
		(void)printf("san %s\n", sans.items[i]);
}

static void print_cert(const struct cert *c)
{
	char fingerprint[CERT_FINGERPRINT_SIZE], spki[CERT_FINGERPRINT_SIZE], from[32], to[32];
	cleanup(str_freep) char *serial = cert_serial_hex(c);
	cleanup(str_freep) char *algorithm = cert_key_algorithm(c);
	cert_fingerprint(c, fingerprint);
	cert_spki_sha256(c, spki);
	time_format(cert_not_before_ms(c), from);
	time_format(cert_not_after_ms(c), to);
	(void)printf("fingerprint %s\nspki %s\nserial %s\nalgorithm %s\nfrom %s\nto %s\n", fingerprint, spki, serial,
		     algorithm, from, to);
	(void)printf("ca %d\nski %d\naki %d\npathlen %ld\n", cert_is_ca(c), cert_has_ski(c), cert_has_aki(c),
		     cert_path_length(c));
	print_names(c);
	(void)printf("end\n");
}

static result look(const char *path, struct err *e)
{
	cleanup(buf_release) struct buf pem = BUF_INIT;
	cleanup(certs_release) struct certs list = { 0 };
	TRY(read_path(path, &pem, e));
	TRY(certs_from_pem(pem.data, pem.len, &list, e));
	for (size_t i = 0; i < list.n; i++)
		print_cert(list.items[i]);
	return OK;
}

static result look_at(int n, char **paths, struct err *e)
{
	for (int i = 0; i < n; i++)
		TRY(look(paths[i], e));
	return OK;
}

static result run(int argc, char **argv, struct err *e)
{
	const char *verb = argc > 2 ? argv[1] : "";
	const struct folder d = { .path = argc > 2 ? argv[2] : "", .now_ms = clock_now_ms() };
	if (str_eq(verb, "authority") && argc == 5)
		return authority(&d, argv[3], argv[4], e);
	if (str_eq(verb, "leaves") && argc == 3)
		return leaves(&d, e);
	if (str_eq(verb, "rotate") && argc == 5)
		return rotate(&d, argv[3], argv[4], e);
	if (str_eq(verb, "look"))
		return look_at(argc - 2, argv + 2, e);
	return err_set(e, ERR_INPUT, "usage: pki-driver authority|leaves|rotate|look PATH [ALGORITHM UNIQUE]");
}

int main(int argc, char **argv)
{
	struct err e = { 0 };
	if (run(argc, argv, &e).ok)
		return EXIT_SUCCESS;
	(void)fprintf(stderr, "pki-driver: %s\n", e.message);
	return EXIT_FAILURE;
}
