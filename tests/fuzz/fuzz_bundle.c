/* LINK: node consumers rotation kube */
/* Trust bundles in Pods' volumes, ConfigMaps and on disk: their readers agree on whether O and N are in one. Those that decide what
 * is published or trusted refuse what is broken; the one that looks at Pods' files takes each certificate by itself. */
#include "fuzz.h"

#include "podca.c"

#include "consumer.h"
#include "node.h"

static void check_readers(const struct cert *old_ca, const struct cert *new_ca, const char *text, size_t len)
{
	struct buf old_pem cleanup(buf_release) = BUF_INIT, new_pem cleanup(buf_release) = BUF_INIT;
	struct look l = { .old_ca = old_ca, .new_ca = new_ca };
	struct succession s = { .old = cert_copy(old_ca), .new = cert_copy(new_ca) };
	struct found lenient = { .look = &l };
	struct bundle_content strict = { 0 };
	int holds = 0;
	struct err e = { 0 };
	cert_to_pem(old_ca, &old_pem);
	cert_to_pem(new_ca, &new_pem);
	const struct run_authority run = { .old_pem = old_pem.data, .new_pem = new_pem.data };
	certs_scan(text, look_at_cert, &lenient);
	bool taken = bundle_look(&run, text, len, &strict, &e).ok;
	MUST(node_bundle(&s, text, len, &holds, &e).ok == taken);
	if (taken) {
		MUST(strict.has_old == ((holds & HOLDS_OLD) != 0));
		MUST(strict.has_new == ((holds & HOLDS_NEW) != 0));
		MUST(strict.has_other == ((holds & HOLDS_OTHER) != 0));
		/* a zero byte ends the text for the lenient one */
		if (strlen(text) == len)
			MUST(lenient.old == strict.has_old && lenient.new == strict.has_new);
	} else {
		MUST(!strict.has_old && !strict.has_new && !strict.has_other && !holds);
		fuzz_check_err(&e);
	}
	cert_freep(&s.old);
	cert_freep(&s.new);
}

/* Input: O, "====", N, "====", the bundle. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	size_t old_len = 0, new_len = 0, len = 0;
	char *old_pem cleanup(str_freep) = fuzz_part(&in, &old_len), *new_pem cleanup(str_freep) = fuzz_part(&in, &new_len);
	char *text cleanup(str_freep) = fuzz_part(&in, &len);
	struct cert *old_ca cleanup(cert_freep) = NULL, *new_ca cleanup(cert_freep) = NULL;
	struct err e = { 0 };
	if (cert_from_pem(old_pem, old_len, &old_ca, &e).ok && cert_from_pem(new_pem, new_len, &new_ca, &e).ok &&
	    !cert_equal(old_ca, new_ca))
		check_readers(old_ca, new_ca, text, len);
	return 0;
}
