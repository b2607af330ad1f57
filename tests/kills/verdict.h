/* What must be true of a node's files: at any moment, and at the end. */
#ifndef VERDICT_H
#define VERDICT_H

#include "stage.h"

/* True when whatever starts now finds what it needs: every certificate, key and kubeconfig whole, each leaf with its key, ca.crt's first
 * certificate ca.key's, the manifests' folder with manifests only and each of them whole, the controller-manager's there or aside, the
 * kubelet's link on a whole file. Else *ret says what is not so. caller frees.
 * key_gap: ca.crt may be ahead of ca.key (node_ca_key says why). */
bool verdict_whole(const struct stage *s, bool key_gap, char **ret);
/* Every file, one a line: owner, mode, and its bytes' digest; where the bytes are new each time, who issued what for whom, whether the
 * key matches, and the rest. Dates in the names of the kubelet's certificates are left out. Caller frees. */
char *verdict_describe(const struct stage *s);
/* The lines of one that the other does not have, for messages. Caller frees. */
char *verdict_difference(const char *is, const char *expected);
void verdict_forget(void); /* what is kept from one call to the next, of one stage */

#endif
