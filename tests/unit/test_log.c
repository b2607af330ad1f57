/* log: one line a record, JSON or text; nothing that is said can break out of its line. */
#include "log.h"
#include "buf.h"
#include "json.h"

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int caught = -1, saved = -1;

/* From here on standard error goes into a file. */
static void catch_begin(void)
{
	char path[] = "log.XXXXXX";
	caught = mkstemp(path);
	assert_true(caught >= 0);
	assert_int_equal(unlink(path), 0);
	saved = dup(STDERR_FILENO);
	assert_int_equal(dup2(caught, STDERR_FILENO), STDERR_FILENO);
}

static char *catch_end(void)
{
	assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
	(void)close(saved);
	struct buf b cleanup(buf_release) = BUF_INIT;
	char chunk[4096];
	(void)lseek(caught, 0, SEEK_SET);
	for (ssize_t n; (n = read(caught, chunk, sizeof(chunk))) > 0;)
		buf_add(&b, chunk, (size_t)n);
	(void)close(caught);
	return buf_take(&b);
}

static void test_json_line(void **state)
{
	(void)state;
	log_init(LOG_JSON, LOG_INFO);
	catch_begin();
	log_line(LOG_WARN, "phase begins", "phase", "TrustingBoth", "node", "a\nb\"c", "absent", NULL, "last", "", NULL);
	char *line cleanup(str_freep) = catch_end();
	assert_true(str_ends(line, "}\n"));
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
	struct json *j cleanup(json_freep) = NULL;
	struct err e = { 0 };
	assert_true(json_parse(line, strlen(line), &j, &e).ok);
	assert_string_equal(json_get_str(j, "level"), "warn");
	assert_string_equal(json_get_str(j, "msg"), "phase begins");
	assert_string_equal(json_get_str(j, "phase"), "TrustingBoth");
	assert_string_equal(json_get_str(j, "node"), "a\nb\"c");
	assert_string_equal(json_get_str(j, "last"), "");
	assert_null(json_get(j, "absent"));
	int64_t at = 0;
	assert_true(time_parse(json_get_str(j, "ts"), &at, &e).ok);
	assert_true(at <= clock_now_ms() && at > clock_now_ms() - 60000);
}

static void test_text_line(void **state)
{
	(void)state;
	log_init(LOG_TEXT, LOG_DEBUG);
	catch_begin();
	log_line(LOG_INFO, "restarted", "node", "cp-1", "why", "two words", "sly", "x\n2026 error forged", "eq", "a=b", "empty", "",
		 NULL);
	char *line cleanup(str_freep) = catch_end();
	assert_non_null(strstr(line, "Z info  restarted  node=cp-1  why=\"two words\"  sly=\"x\\n2026 error forged\"  "
				     "eq=\"a=b\"  empty=\"\"\n"));
	assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
}

static void test_levels(void **state)
{
	(void)state;
	log_init(LOG_TEXT, LOG_WARN);
	catch_begin();
	log_line(LOG_DEBUG, "one", NULL);
	log_line(LOG_INFO, "two", NULL);
	log_line(LOG_WARN, "three", NULL);
	log_line(LOG_ERROR, "four", NULL);
	char *lines cleanup(str_freep) = catch_end();
	assert_null(strstr(lines, "one"));
	assert_null(strstr(lines, "two"));
	assert_non_null(strstr(lines, "warn  three\n"));
	assert_non_null(strstr(lines, "error four\n"));
}

static void test_headings_cannot_be_replaced(void **state)
{
	(void)state;
	log_init(LOG_JSON, LOG_INFO);
	catch_begin();
	log_line(LOG_ERROR, "true message", "msg", "forged", "level", "debug", NULL);
	char *line cleanup(str_freep) = catch_end();
	assert_non_null(strstr(line, "\"level\":\"error\",\"msg\":\"true message\"}"));
}

static void test_error(void **state)
{
	(void)state;
	struct err e = { 0 };
	(void)err_set(&e, ERR_IO, "opening \"f\"");
	log_init(LOG_JSON, LOG_INFO);
	catch_begin();
	log_err(LOG_ERROR, "reading the desired state", &e);
	char *line cleanup(str_freep) = catch_end();
	assert_non_null(strstr(line, "\"error\":\"opening \\\"f\\\"\"}"));
}

static void *talk(void *name)
{
	for (int i = 0; i < 200; i++)
		log_line(LOG_INFO, "from a thread", "name", name, NULL);
	return NULL;
}

static void test_threads_do_not_mix(void **state)
{
	(void)state;
	static char names[4][2000];
	pthread_t threads[4];
	log_init(LOG_JSON, LOG_INFO);
	catch_begin();
	for (int i = 0; i < 4; i++) {
		memset(names[i], 'a' + i, sizeof(names[i]) - 1);
		assert_int_equal(pthread_create(&threads[i], NULL, talk, names[i]), 0);
	}
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	char *lines cleanup(str_freep) = catch_end();
	int n = 0;
	for (char *at = lines, *end; (end = strchr(at, '\n')); at = end + 1, n++) {
		struct json *j cleanup(json_freep) = NULL;
		struct err e = { 0 };
		assert_true(json_parse(at, (size_t)(end - at), &j, &e).ok);
		assert_int_equal(strlen(json_get_str(j, "name")), 1999);
	}
	assert_int_equal(n, 800);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_line),
		cmocka_unit_test(test_text_line),
		cmocka_unit_test(test_levels),
		cmocka_unit_test(test_headings_cannot_be_replaced),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_threads_do_not_mix),
	};
	const char *tmp = getenv("TMPDIR");
	if (chdir(tmp ? tmp : "/tmp") != 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
