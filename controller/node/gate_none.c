#include "gate.h"

result gate_shut(int port UNUSED, int seconds UNUSED, struct gate **ret UNUSED, struct err *e)
{
	return err_set(e, ERR_OTHER, "this build of the node program has no netfilter");
}

result gate_rehearse(struct err *e)
{
	return err_set(e, ERR_OTHER, "this build of the node program has no netfilter");
}

void gate_openp(struct gate **g UNUSED)
{
}
