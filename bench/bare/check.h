/* bench/bare/check.h - As much of libcheck as the tests use, for a machine that has none: every
 * test runs in this process, one after another, and the first assertion that fails ends it. */
#ifndef NSM_BARE_CHECK_H
#define NSM_BARE_CHECK_H
#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

typedef struct { const char *name; void (*run)(int); } TTest;
typedef struct { const char *name; const TTest *test[128]; int tests, failed; } Suite;
typedef Suite TCase;
typedef Suite SRunner;

#if !defined(NSM_BARE_CHECK_HERE)
extern
#endif
jmp_buf nsm_bare_check;

#define START_TEST(test) \
    static void test##_run(int unused_); \
    static const TTest test##_test = { #test, test##_run }, *const test = &test##_test; \
    static void test##_run(int unused_) \
    { \
        (void)unused_;
#define END_TEST }

#define ck_abort_msg(...) \
    (printf("    %s:%d: ", __FILE__, __LINE__), printf(__VA_ARGS__), putchar('\n'), \
     longjmp(nsm_bare_check, 1))
#define ck_assert_msg(ok, ...) do { if (!(ok)) ck_abort_msg(__VA_ARGS__); } while (0)
#define ck_assert(ok) ck_assert_msg(ok, "%s", #ok)
#define ck_assert_int_eq(a, b) ck_assert_msg((a) == (b), "%s is not %s", #a, #b)
#define ck_assert_int_gt(a, b) ck_assert_msg((a) > (b), "%s is not above %s", #a, #b)
#define ck_assert_int_lt(a, b) ck_assert_msg((a) < (b), "%s is not below %s", #a, #b)
#define ck_assert_float_eq(a, b) ck_assert_msg((a) == (b), "%s is not %s", #a, #b)
#define ck_assert_float_eq_tol(a, b, tolerance) \
    ck_assert_msg((a) - (b) <= (tolerance) && (b) - (a) <= (tolerance), "%s is not %s within %s", \
                  #a, #b, #tolerance)
#define ck_assert_mem_eq(a, b, bytes) ck_assert_msg(!memcmp(a, b, bytes), "%s is not %s", #a, #b)
#define ck_assert_str_eq(a, b) ck_assert_msg(!strcmp(a, b), "%s is \"%s\", not \"%s\"", #a, a, b)
#define ck_assert_ptr_nonnull(p) ck_assert_msg((p) != NULL, "%s is NULL", #p)
#define ck_assert_ptr_null(p) ck_assert_msg((p) == NULL, "%s is not NULL", #p)
#define ck_assert_ptr_eq(a, b) ck_assert_msg((a) == (b), "%s is not %s", #a, #b)

/* The runner, as tests/test.c drives it. */
enum { CK_ENV };
static inline Suite *suite_create(const char *name)
{
    static Suite s;
    s = (Suite){ .name = name };
    return &s;
}
static inline TCase *tcase_create(const char *name)
{
    static TCase c;
    c = (TCase){ .name = name };
    return &c;
}
static inline void tcase_set_timeout(TCase *c, double seconds) { (void)c; (void)seconds; }
static inline void tcase_add_test(TCase *c, const TTest *test) { c->test[c->tests++] = test; }
static inline void suite_add_tcase(Suite *s, const TCase *c) { *s = *c; }
static inline SRunner *srunner_create(Suite *s) { return s; }
static inline int srunner_ntests_failed(const SRunner *r) { return r->failed; }
static inline void srunner_free(SRunner *r) { (void)r; }
static inline void srunner_run_all(SRunner *r, int how)
{
    (void)how;
    for (volatile int i = 0; i < r->tests; i++) {
        bool failed = setjmp(nsm_bare_check) != 0;
        if (!failed) r->test[i]->run(0);
        printf("%s %s/%s\n", failed ? "FAIL" : "PASS", r->name, r->test[i]->name);
        fflush(stdout);
        r->failed += failed;
    }
}

#endif
