/* tests/test.c - See test.h. */
#include "config.h"
#include <sys/wait.h>
#include <unistd.h>
#include "tests/test.h"

/* Is the backend that NSM_BACKEND asks for without its device here?  Says why.  Looked for in a
 * process of
 * its own: what a GPU's driver sets up does not survive a fork, and every test is one. */
static bool no_device(const char *name)
{
    const char *backend = getenv("NSM_BACKEND");
    int status = 0;
    if (!backend || !*backend || !strcmp(backend, "cpu")) return false;
    pid_t child = fork();
    if (child == 0) {
        nsm_ctx *ctx = nsm_ctx_new(NULL);
        if (nsm_error(ctx) != NSM_EDEVICE) _exit(0);
        printf("%s: skipped, %s\n", name, nsm_error_message(ctx));
        fflush(stdout);
        _exit(1);
    }
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) &&
           WEXITSTATUS(status) == 1;
}

int test_main(const char *name, const TTest *const *tests)
{
#if defined(NSM_EMULATION)
    nsmi_test_backend = &nsmi_emulated; /* NSM_BACKEND=emulated */
#endif
    if (no_device(name)) return 77; /* what automake takes for a skipped test */
    Suite *suite = suite_create(name);
    TCase *all = tcase_create(name);
    tcase_set_timeout(all, 300);
    for (; *tests; tests++) tcase_add_test(all, *tests);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

int test_brutal(void (*run)(nsm_ctx *ctx), nsm_ctx *ctx)
{
    int64_t before = nsm_ctx_memory(ctx).used_bytes;
    for (int k = 1;; k++) {
        ctx->allocations = 0;
        ctx->fail_at = k;
        run(ctx);
        bool through = ctx->allocations < k;
        ctx->fail_at = 0;
        ck_assert_msg(nsm_ctx_memory(ctx).used_bytes == before,
                      "allocation %d failing leaks device memory", k);
        if (through) {
            ck_ok(ctx);
            return k - 1;
        }
        ck_error(ctx, NSM_ENOMEM);
    }
}

const char *test_srcdir(void)
{
    const char *dir = getenv("top_srcdir");
    return dir && *dir ? dir : ".";
}

double test_difference(const float *a, const float *b, int64_t n, double floor)
{
    double worst = 0, top = floor;
    for (int64_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= worst)) worst = d; /* NaN stays */
        if (fabs((double)b[i]) > top) top = fabs((double)b[i]);
    }
    return worst / (top > 0 ? top : 1);
}

void test_random(uint64_t seed, int64_t n, float *x)
{
    uint64_t s = seed * 0x9E3779B97F4A7C15ull + 1;
    for (int64_t i = 0; i < n; i++) {
        s ^= s << 13;
        s ^= s >> 7;
        s ^= s << 17;
        x[i] = (float)(int32_t)(s >> 32) * 0x1p-31f;
    }
}

float *test_weights(nsm_module *m, const char *name)
{
    nsm_tensor *t = nsm_module_find(m, name);
    ck_assert_msg(t != NULL, "no weight %s", name);
    float *x = malloc((size_t)nsm_numel(t) * sizeof *x);
    nsm_tensor_get(t, x);
    return x;
}
