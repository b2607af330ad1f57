/* LINK: node rotation kube */
/* What whoever listens on the kubelet's port says of its metrics, and conditions of a CertificateSigningRequest. */
#include "fuzz.h"

#include "remote_curl.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	size_t len = 0, csr_len = 0;
	char *text cleanup(str_freep) = fuzz_part(&in, &len), *csr_text cleanup(str_freep) = fuzz_part(&in, &csr_len);
	struct json *csr cleanup(json_freep) = NULL;
	struct err e = { 0 };
	int64_t value = -7;
	if (metric(text, "some_count", &value))
		MUST(value >= 0 && value <= (int64_t)1 << 53);
	else
		MUST(value == -7);
	if (json_parse(csr_text, csr_len, &csr, &e).ok && !refused(csr, "name", &e).ok) {
		MUST(e.kind == ERR_DENIED);
		fuzz_check_err(&e);
	}
	return 0;
}
