/* kubeconfig files (client.authentication: clientcmd/v1), read through yaml.h, and rewritten with single values changed.
 * Fields: certificate-authority(-data), client-certificate(-data), client-key(-data), token, server, of the current context.
 * No network here; used by node and controller alike.
 */
#ifndef KUBECONFIG_H
#define KUBECONFIG_H

#include "pki.h"

struct kubeconfig {
	char *server;
	char *ca_pem;            /* data, or the file's content; NULL when there is none */
	char *ca_path;           /* when by file */
	char *client_cert_pem, *client_cert_path;
	char *client_key_pem, *client_key_path; /* secret */
	char *token, *token_path; /* secret; the path when by file */
	char *tls_server_name;   /* the name to verify instead of the server's; NULL: the server's */
	char *user, *cluster, *context;
	/* The first thing that the file asks for and a client of ours does not do (exec and auth-provider plugins, passwords,
	 * impersonation, proxy-url, insecure-skip-tls-verify): the field's name; NULL when there is none. */
	const char *unsupported;
};
void kubeconfig_release(struct kubeconfig *c);
/* Without a current context, one cluster and no users: that cluster (the form of ConfigMap kube-public/cluster-info).
 * root: prefix for file references ("" normally; "/host" in a Pod). ERR_INPUT with the field: no current context, no user or
 * cluster of that name, data that is not base64, data and file both given, half a client certificate, a relative file reference
 * (kubeconfig_load knows the folder). A referenced file that can't be read is an error, never "none". */
result kubeconfig_parse(const char *text, size_t len, const char *root, struct kubeconfig *ret, struct err *e) MUST_CHECK;
/* Reads the file root + path; relative references are relative to its folder, as in clientcmd. */
result kubeconfig_load(const char *path, const char *root, struct kubeconfig *ret, struct err *e) MUST_CHECK;
/* The text with the current context's data replaced (each may be NULL: left alone). Everything else survives byte for byte.
 * ERR_INPUT when a value to be replaced is not embedded data. */
result kubeconfig_replace(const char *text, size_t len, const char *ca_pem, const char *client_cert_pem,
			  const char *client_key_pem, struct buf *ret_secret, struct err *e) MUST_CHECK;
/* A whole new kubeconfig, as kubeadm writes it. */
void kubeconfig_write(const char *cluster, const char *server, const char *user, const char *ca_pem, const char *client_cert_pem,
		      const char *client_key_pem, struct buf *out_secret);
#endif
