/* Digests, random bytes and base64 of the pki module. */
#include "pki_internal.h"

#include <openssl/rand.h>
#include <openssl/sha.h>

static const char hex_digits[] = "0123456789abcdef";

static void to_hex(const unsigned char *bytes, size_t n, char *ret_hex)
{
	for (size_t i = 0; i < n; i++) {
		ret_hex[2 * i] = hex_digits[bytes[i] >> 4];
		ret_hex[2 * i + 1] = hex_digits[bytes[i] & 15];
	}
	ret_hex[2 * n] = '\0';
}

void sha256_hex(const void *bytes, size_t n, char ret_hex[static 65])
{
	unsigned char digest[SHA256_DIGEST_LENGTH];
	pki_must(EVP_Q_digest(NULL, "SHA256", NULL, bytes, n, digest, NULL) == 1);
	to_hex(digest, sizeof(digest), ret_hex);
}

void random_hex(size_t n_bytes, char *ret_hex)
{
	unsigned char chunk[32];
	for (size_t done = 0; done < n_bytes; done += sizeof(chunk)) {
		size_t n = n_bytes - done < sizeof(chunk) ? n_bytes - done : sizeof(chunk);
		pki_must(RAND_bytes(chunk, (int)n) == 1);
		to_hex(chunk, n, ret_hex + 2 * done);
	}
	ret_hex[2 * n_bytes] = '\0';
	OPENSSL_cleanse(chunk, sizeof(chunk));
}

void hmac_sha256_base64url(const void *key, size_t key_len, const void *bytes, size_t n, struct buf *out)
{
	unsigned char mac[SHA256_DIGEST_LENGTH];
	pki_must(EVP_Q_mac(NULL, "HMAC", NULL, "SHA256", NULL, key_len ? key : "", key_len, n ? bytes : "", n,
			   mac, sizeof(mac), NULL) != NULL);
	base64url_encode(mac, sizeof(mac), out);
}

/* --- Base64 ---------------------------------------------------------------------------------------------------- */

#define CHUNK_BYTES 48
#define CHUNK_CHARS 64

/* One chunk of text, without its padding and in the alphabet of RFC 4648 section 5. */
static size_t to_url_alphabet(char *text, size_t len)
{
	while (len && text[len - 1] == '=')
		len--;
	for (size_t i = 0; i < len; i++) {
		if (text[i] == '+')
			text[i] = '-';
		else if (text[i] == '/')
			text[i] = '_';
	}
	return len;
}

/* Chunk by chunk through the stack, so that a key leaves no copy behind. */
static void encode(const unsigned char *bytes, size_t n, bool url, struct buf *out)
{
	char text[CHUNK_CHARS + 1];
	while (n) {
		size_t take = n < CHUNK_BYTES ? n : CHUNK_BYTES;
		size_t len = (size_t)EVP_EncodeBlock((unsigned char *)text, bytes, (int)take);
		buf_add(out, text, url ? to_url_alphabet(text, len) : len);
		bytes += take;
		n -= take;
	}
	OPENSSL_cleanse(text, sizeof(text));
}

void base64_encode(const void *bytes, size_t n, struct buf *out)
{
	encode(bytes, n, false, out);
}

void base64url_encode(const void *bytes, size_t n, struct buf *out)
{
	encode(bytes, n, true, out);
}

/* EVP_DecodeBlock takes "=" for a zero anywhere and skips blanks, EVP_DecodeUpdate stops at "-" without a word: so the
 * characters are checked here, and OpenSSL gets whole clean groups of four. */
struct decoder {
	unsigned char text[CHUNK_CHARS];
	size_t len, pads;
	struct buf bytes;
};

static void decoder_release(struct decoder *d)
{
	OPENSSL_cleanse(d->text, sizeof(d->text));
	buf_release(&d->bytes);
}

static result decoder_flush(struct decoder *d, struct err *e)
{
	unsigned char bytes[CHUNK_BYTES];
	if (!d->len)
		return OK;
	int n = EVP_DecodeBlock(bytes, d->text, (int)d->len);
	if (n < (int)d->pads)
		return pki_err(e, ERR_INPUT, "broken base64");
	buf_add(&d->bytes, bytes, (size_t)n - d->pads);
	OPENSSL_cleanse(bytes, sizeof(bytes));
	d->len = 0;
	if (d->bytes.overflow)
		return err_set(e, ERR_INPUT, "base64 of more than %zu bytes", BUF_CAP_DEFAULT);
	return OK;
}

static bool is_base64(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Padding is "=" or "==" and fills the last group of four. */
static bool fits(const struct decoder *d, char c)
{
	if (c == '=')
		return d->len % 4 >= 2;
	return !d->pads && is_base64(c);
}

static result decoder_add(struct decoder *d, char c, struct err *e)
{
	if (d->len == CHUNK_CHARS)
		TRY(decoder_flush(d, e));
	if (!fits(d, c))
		return err_set(e, ERR_INPUT, "broken base64: unexpected character");
	d->text[d->len++] = (unsigned char)c;
	d->pads += c == '=';
	return OK;
}

result base64_decode(const char *text, size_t len, struct buf *out, struct err *e)
{
	cleanup(decoder_release) struct decoder d = { .bytes = BUF_SECRET };
	for (size_t i = 0; i < len; i++) {
		if (!is_blank(text[i]))
			TRY(decoder_add(&d, text[i], e));
	}
	if (d.len % 4)
		return err_set(e, ERR_INPUT, "broken base64: it ends in the middle");
	TRY(decoder_flush(&d, e));
	buf_add(out, buf_str(&d.bytes), d.bytes.len);
	return OK;
}
