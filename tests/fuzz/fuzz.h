/* What fuzz targets share.
 *
 * Invariants
 * - A target is LLVMFuzzerTestOneInput (libFuzzer's name): any bytes are a valid input, the same bytes do the same, and nothing
 *   of one input is left for the next. It ends the process when a property of the product does not hold.
 * - Seeds are text that people can read. Where a target needs several texts, a line "====" parts them.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include "buf.h"
#include "json.h"
#include "pki.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* libFuzzer's; where there is none it leaves the bytes as they are. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* A property. */
#define MUST(condition)                                          \
	do {                                                     \
		if (!(condition))                                \
			fuzz_die(__FILE__, __LINE__, #condition); \
	} while (0)
_Noreturn void fuzz_die(const char *file, int line, const char *what);

struct fuzz_input {
	const char *at;
	size_t left;
};
/* Up to the next line "====", which is taken too; "" at the end. In a block of exactly its length and a '\0', so that reading
 * over its end is caught; *ret_len does not count the '\0'. Caller frees. */
char *fuzz_part(struct fuzz_input *in, size_t *ret_len) __attribute__((returns_nonnull));
/* The next part as a number, 0 when it is none. */
int64_t fuzz_number(struct fuzz_input *in);

/* What err_set promises: a message that ends, in UTF-8 if it was made of such. */
void fuzz_check_err(const struct err *e);
/* The document again from its own text; must be equal. */
void fuzz_check_json(const struct json *j);
/* A CertificateRotation's status keeps the schema's limits (crd/certificaterotation.yaml), history and authorities aside. */
void fuzz_check_status(const struct json *status);
bool fuzz_is_utf8(const char *text, size_t len);

#define FUZZ_NOW_MS ((int64_t)1767225600000) /* 2026-01-01 */
/* An authority of ours, made by the first call: no key is kept in the tree. Borrowed. */
void fuzz_authority(const struct cert **ret_ca, const struct key **ret_key);

#endif
