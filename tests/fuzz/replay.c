/* Runs a fuzz target on seeds, where there is no libFuzzer: each file as it is, then cut and spoiled at its bytes. */
#include "fuzz.h"

#include "file.h"

#include <sanitizer/common_interface_defs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED_MAX ((size_t)1 << 20)
#define PLACES_MAX 20 /* of one seed, spread evenly over it */

static size_t n_inputs;
/* The input under way: what was done to the seed, and where. */
static const char *seed_path, *done = "as it is";
static size_t done_at;

static void name_input(void)
{
	fprintf(stderr, "in %s, %s (byte %zu)\n", seed_path, done, done_at);
}

size_t LLVMFuzzerMutate(uint8_t *data UNUSED, size_t size, size_t max_size UNUSED)
{
	return size;
}

/* In a block of exactly its size, so that reading over its end is caught. */
static void run(const char *bytes, size_t n, const char *what, size_t at)
{
	done = what;
	done_at = at;
	uint8_t *copy = malloc(n ? n : 1);
	if (!copy)
		abort();
	if (n)
		memcpy(copy, bytes, n);
	LLVMFuzzerTestOneInput(copy, n);
	free(copy);
	n_inputs++;
}

static void run_cut_and_spoiled(char *bytes, size_t n)
{
	static const char spoilers[] = { '\0', '\xFF', '"', '\n' };
	size_t step = n / PLACES_MAX + 1;
	for (size_t at = 0; at < n; at += step) {
		char was = bytes[at];
		run(bytes, at, "cut", at);
		bytes[at] = spoilers[at % sizeof spoilers];
		run(bytes, n, "spoiled", at);
		bytes[at] = was;
	}
}

int main(int argc, char **argv)
{
	__sanitizer_set_death_callback(name_input);
	for (int i = 1; i < argc; i++) {
		struct buf seed cleanup(buf_release) = BUF_INIT;
		struct err e = { 0 };
		if (!file_read(argv[i], SEED_MAX, &seed, &e).ok) {
			fprintf(stderr, "%s\n", e.message);
			return 1;
		}
		seed_path = argv[i];
		run(buf_str(&seed), seed.len, "as it is", 0);
		if (seed.len)
			run_cut_and_spoiled(seed.data, seed.len);
	}
	printf("%d seeds, %zu inputs\n", argc - 1, n_inputs);
	return argc > 1 ? 0 : 1;
}
