#include "buf.h"
#include "gate.h"

#include <stdlib.h>
#include <string.h>
#include <nftables/libnftables.h>

#define TABLE "certrotation"
/* Before the filters of others (priority 0), after the translation of addresses. */
#define PRIORITY "-10"

struct gate {
	struct nft_ctx *nft;
};

void gate_openp(struct gate **g)
{
	if (!*g)
		return;
	(void)nft_run_cmd_from_buffer((*g)->nft, "delete table inet " TABLE);
	nft_ctx_free((*g)->nft);
	free(*g);
	*g = NULL;
}

/* Declared, deleted and declared again: what a killed run has left goes, in the same transaction. */
static char *rules(const char *elements)
{
	return str_printf("table inet " TABLE "\n"
			  "delete table inet " TABLE "\n"
			  "table inet " TABLE " {\n"
			  "set shut { type inet_service; flags timeout; %s }\n"
			  "chain input { type filter hook input priority " PRIORITY "; policy accept;\n"
			  "iifname != \"lo\" tcp dport @shut tcp flags & (syn | ack) == syn drop\n"
			  "}\n"
			  "}\n", elements);
}

static result make(const char *elements, struct gate **ret, struct err *e)
{
	struct gate *g cleanup(gate_openp) = mem_alloc(sizeof *g);
	char *text cleanup(str_freep) = rules(elements);
	g->nft = nft_ctx_new(NFT_CTX_DEFAULT); /* ends the process itself when there is no memory */
	nft_ctx_buffer_error(g->nft);
	if (nft_run_cmd_from_buffer(g->nft, text) != 0) {
		const char *why = nft_ctx_get_error_buffer(g->nft);
		return err_set(e, ERR_OTHER, "new connections can't be held back: %.300s", why && *why ? why : "nftables has failed");
	}
	*ret = steal(&g);
	return OK;
}

result gate_shut(int port, int seconds, struct gate **ret, struct err *e)
{
	char *element cleanup(str_freep) = str_printf("elements = { %d timeout %ds }", port, seconds);
	return make(element, ret, e);
}

result gate_rehearse(struct err *e)
{
	struct gate *g cleanup(gate_openp) = NULL;
	return make("", &g, e);
}
