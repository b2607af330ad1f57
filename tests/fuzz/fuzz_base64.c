/* LINK: kube */
/* base64 and percent-encoding: what was encoded comes back, and what comes back is what was meant. */
#include "fuzz.h"

#include "http.h"
#include "pki.h"

#include <ctype.h>
#include <string.h>

static void check_base64(const char *text, size_t len)
{
	struct buf bytes cleanup(buf_release) = BUF_INIT, again cleanup(buf_release) = BUF_INIT, back cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	if (!base64_decode(text, len, &bytes, &e).ok) {
		MUST(!bytes.len && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return;
	}
	base64_encode(bytes.data, bytes.len, &again);
	MUST(base64_decode(buf_str(&again), again.len, &back, &e).ok);
	MUST(back.len == bytes.len && memcmp(buf_str(&back), buf_str(&bytes), bytes.len) == 0);
}

static void check_encoding(const char *text, size_t len)
{
	struct buf encoded cleanup(buf_release) = BUF_INIT, decoded cleanup(buf_release) = BUF_INIT, url cleanup(buf_release) = BUF_INIT;
	struct err e = { 0 };
	base64_encode(text, len, &encoded);
	base64url_encode(text, len, &url);
	MUST(base64_decode(buf_str(&encoded), encoded.len, &decoded, &e).ok);
	MUST(decoded.len == len && memcmp(buf_str(&decoded), text, len) == 0);
	MUST(!strpbrk(buf_str(&url), "+/=") && url.len <= encoded.len);
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static void check_escape(const char *text)
{
	struct buf out cleanup(buf_release) = BUF_INIT;
	http_escape(text, &out);
	const char *p = buf_str(&out);
	for (; *p; text++) {
		char c = *p++;
		if (c == '%') {
			MUST(hex(p[0]) >= 0 && hex(p[1]) >= 0);
			c = (char)(hex(p[0]) << 4 | hex(p[1]));
			p += 2;
		} else {
			MUST(isalnum((unsigned char)c) || strchr("-._~", c));
		}
		MUST(c == *text);
	}
	MUST(!*text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	size_t len = 0;
	char *text cleanup(str_freep) = fuzz_part(&in, &len);
	check_base64(text, len);
	check_encoding(text, len);
	check_escape(text);
	return 0;
}
