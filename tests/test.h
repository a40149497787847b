/* tests/test.h - What the unit tests share: libcheck, the error check, failing allocations. */
#ifndef NSM_TEST_H
#define NSM_TEST_H
#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/internal.h"

/* Run these tests, each in a process of its own; the program's exit status. */
int test_main(const char *name, const TTest *const *tests);

/* The context carries this error; clear it. */
#define ck_error(ctx, code)                                                                     \
    do {                                                                                        \
        ck_assert_msg(nsm_error(ctx) == (code), "want %s, have %s: %s", nsm_error_name(code),   \
                      nsm_error_name(nsm_error(ctx)), nsm_error_message(ctx));                  \
        nsm_error_clear(ctx);                                                                   \
    } while (0)
#define ck_ok(ctx) ck_assert_msg(nsm_error(ctx) == NSM_OK, "%s", nsm_error_message(ctx))

/* Let the 1st, 2nd, ... allocation of run() fail until it gets through: every failure must leave
 * NSM_ENOMEM and no device memory in use that was not before.  Returns how many failed. */
int test_brutal(void (*run)(nsm_ctx *ctx), nsm_ctx *ctx);

/* The numbers of a module's tensor, to be freed; a failure if there is none of that name. */
float *test_weights(nsm_module *m, const char *name);

/* The source folder, for fixtures: from the environment's top_srcdir, else "." */
const char *test_srcdir(void);

/* max |a-b| / max(max|b|, floor); NaN where either has one. */
double test_difference(const float *a, const float *b, int64_t n, double floor);

/* Numbers for tests: uniform in [-1, 1), from a small generator of the test's own. */
void test_random(uint64_t seed, int64_t n, float *x);

#endif
