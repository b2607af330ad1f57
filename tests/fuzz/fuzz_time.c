/* LINK: rotation */
/* Times and durations: none outside of what can be written back, none that depends on what follows it. */
#include "fuzz.h"

#include "request.h"

#include <string.h>

static void check_time(const char *text)
{
	int64_t ms = INT64_MIN, again = 0;
	char whole[32], micro[40];
	struct err e = { 0 };
	if (!time_parse(text, &ms, &e).ok) {
		MUST(ms == INT64_MIN && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return;
	}
	time_format(ms, whole);
	time_format_micro(ms, micro);
	MUST(strlen(whole) == strlen("2026-01-02T03:04:05Z") && strlen(micro) == strlen("2026-01-02T03:04:05.000000Z"));
	MUST(time_parse(micro, &again, &e).ok);
	/* an offset may lead out of the years that four digits can tell */
	MUST(again == ms || again == -62167219200000 || again == 253402300799999);
}

static void check_duration(const char *text)
{
	int64_t ms = INT64_MIN;
	struct err e = { 0 };
	if (!duration_parse(text, &ms, &e).ok) {
		MUST(ms == INT64_MIN && e.kind == ERR_INPUT);
		fuzz_check_err(&e);
		return;
	}
	MUST(ms >= 0 && ms % 1000 == 0);
	char *again cleanup(str_freep) = str_printf("%llds", (long long)(ms / 1000));
	int64_t same = 0;
	MUST(!duration_parse(again, &same, &e).ok || same == ms);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = { (const char *)data, size };
	size_t len = 0;
	char *text cleanup(str_freep) = fuzz_part(&in, &len);
	text[strcspn(text, "\n")] = '\0';
	check_time(text);
	check_duration(text);
	return 0;
}
