/* tests/kernels/cases.c - See cases.h. */
#include "config.h"
#include "kernels/philox.h"
#include "tests/kernels/cases.h"

enum { GUARD = 16 }; /* numbers behind each device array that nothing may write */
static const float guard_value = 12345.0f;

void *host_array(kernels *k, int64_t n, size_t each)
{
    void *p = calloc((size_t)n + 1, each);
    void **more = realloc(k->host, (size_t)(k->hosts + 1) * sizeof *more);
    ck_assert(p && more);
    k->host = more;
    return k->host[k->hosts++] = p;
}

/* Room for n numbers of four bytes on the device, and a guard behind them. */
static void *device_array(kernels *k, int64_t n)
{
    float guard[GUARD];
    float *p = k->be->alloc(k->d, (size_t)(n + GUARD) * sizeof *p);
    void **more = realloc(k->device, (size_t)(k->devices + 1) * sizeof *more);
    ck_assert(p && more);
    for (int i = 0; i < GUARD; i++) guard[i] = guard_value;
    k->be->to_device(k->d, sizeof guard, guard, p + n);
    k->device = more;
    return k->device[k->devices++] = p;
}

static void check_guard(kernels *k, const char *what, const void *array, int64_t n)
{
    float guard[GUARD];
    k->be->to_host(k->d, sizeof guard, (const float *)array + n, guard);
    for (int i = 0; i < GUARD; i++)
        ck_assert_msg(guard[i] == guard_value, "%s: writes past its end", what);
}

static reals reals_new(kernels *k, int64_t n)
{
    return (reals){ n, host_array(k, n, sizeof(float)), device_array(k, n) };
}

void reals_up(kernels *k, reals x)
{
    k->be->to_device(k->d, (size_t)x.n * sizeof *x.h, x.h, x.d);
}

reals reals_random(kernels *k, int64_t n, double low, double high)
{
    reals x = reals_new(k, n);
    test_random(++k->seed, n, x.h);
    for (int64_t i = 0; i < n; i++)
        x.h[i] = (float)(low + (high - low) * 0.5 * (1 + (double)x.h[i]));
    reals_up(k, x);
    return x;
}

reals reals_steps(kernels *k, int64_t n, int steps)
{
    reals x = reals_random(k, n, -1, 1);
    for (int64_t i = 0; i < n; i++) x.h[i] = floorf(x.h[i] * (float)steps) / (float)steps;
    reals_up(k, x);
    return x;
}

reals reals_blank(kernels *k, int64_t n)
{
    reals x = reals_new(k, n);
    for (int64_t i = 0; i < n; i++) x.h[i] = NAN;
    reals_up(k, x);
    return x;
}

reals reals_of(kernels *k, int64_t n, const float *from)
{
    reals x = reals_new(k, n);
    for (int64_t i = 0; i < n; i++) x.h[i] = from[i];
    reals_up(k, x);
    return x;
}

reals reals_copy(kernels *k, reals x) { return reals_of(k, x.n, x.h); }

ints ints_random(kernels *k, int64_t n, int64_t low, int64_t high)
{
    reals x = reals_random(k, n, 0, 1);
    ints y = { n, host_array(k, n, sizeof(int32_t)), device_array(k, n) };
    for (int64_t i = 0; i < n; i++) {
        int64_t at = (int64_t)((double)x.h[i] * (double)(high - low));
        y.h[i] = (int32_t)(low + (at < high - low ? at : high - low - 1));
    }
    k->be->to_device(k->d, (size_t)n * sizeof *y.h, y.h, y.d);
    return y;
}

ints ints_blank(kernels *k, int64_t n)
{
    ints y = { n, host_array(k, n, sizeof(int32_t)), device_array(k, n) };
    for (int64_t i = 0; i < n; i++) y.h[i] = -77;
    k->be->to_device(k->d, (size_t)n * sizeof *y.h, y.h, y.d);
    return y;
}

double *wanted(kernels *k, int64_t n) { return host_array(k, n, sizeof(double)); }

double *wanted_from(kernels *k, reals x, double beta)
{
    double *w = wanted(k, x.n);
    for (int64_t i = 0; beta != 0 && i < x.n; i++) w[i] = beta * (double)x.h[i];
    return w;
}

static void digest(kernels *k, const void *data, int64_t n)
{
    const uint32_t *word = data;
    for (int64_t i = 0; i < n; i++) {
        k->digest = (k->digest ^ word[i]) * 0x100000001b3ull;
        k->digest ^= k->digest >> 29;
    }
}

void result_digest(kernels *k, reals got)
{
    k->be->to_host(k->d, (size_t)got.n * sizeof *got.h, got.d, got.h);
    digest(k, got.h, got.n);
    check_guard(k, "digest", got.d, got.n);
}

static bool near(double got, double want, double allowed)
{
    if (isnan(want)) return isnan(got);
    if (isinf(want)) return got == want;
    return fabs(got - want) <= allowed;
}

static void compare(kernels *k, const char *what, reals got, const double *want, double tolerance,
                    bool each)
{
    double top = 0;
    float *before = host_array(k, got.n, sizeof *before);
    memcpy(before, got.h, (size_t)got.n * sizeof *before);
    result_digest(k, got);
    check_guard(k, what, got.d, got.n);
    for (int64_t i = 0; !each && i < got.n; i++)
        if (fabs(want[i]) > top && !isinf(want[i])) top = fabs(want[i]);
    /* an assertion a number would write a file each */
    for (int64_t i = 0; k->check && !k->d->trouble && i < got.n; i++) {
        double allowed = each ? tolerance * fabs(want[i]) + 2e-6 : tolerance * top + 1e-30;
        if (near((double)got.h[i], want[i], allowed)) continue;
        ck_abort_msg("%s (%s): [%lld] of %lld is %.9g, want %.9g", what, k->d->isa_name,
                     (long long)i, (long long)got.n, (double)got.h[i], want[i]);
    }
    memcpy(got.h, before, (size_t)got.n * sizeof *before); /* the case's input, for what follows */
}

void result(kernels *k, const char *what, reals got, const double *want, double tolerance)
{
    compare(k, what, got, want, tolerance, false);
}

void result_each(kernels *k, const char *what, reals got, const double *want, double tolerance)
{
    compare(k, what, got, want, tolerance, true);
}

void result_ints(kernels *k, const char *what, ints got, const int32_t *want)
{
    k->be->to_host(k->d, (size_t)got.n * sizeof *got.h, got.d, got.h);
    digest(k, got.h, got.n);
    check_guard(k, what, got.d, got.n);
    for (int64_t i = 0; k->check && !k->d->trouble && i < got.n; i++)
        if (got.h[i] != want[i])
            ck_abort_msg("%s (%s): [%lld] is %d, want %d", what, k->d->isa_name, (long long)i,
                         got.h[i], want[i]);
}

double kept(nsm_random r, double p, int64_t i)
{
    if (p == 0) return 1;
    float u = nsmi_philox_uniform(r.seed, r.offset, (uint64_t)i);
    return u >= (float)p ? 1 / (1 - (double)(float)p) : 0;
}

static uint64_t digest_of(nsm_ctx *ctx, bool check, void (*run)(kernels *k))
{
    kernels k = { .ctx = ctx, .d = &ctx->dev, .be = ctx->dev.be, .check = check, .digest = 1 };
    run(&k);
    nsmi_device_trouble(ctx, "a case");
    ck_ok(ctx);
    for (int i = 0; i < k.hosts; i++) free(k.host[i]);
    for (int i = 0; i < k.devices; i++) k.be->release(k.d, k.device[i], 0);
    free(k.host);
    free(k.device);
    return k.digest;
}

/* NSM_KERNELS=all: every instruction set and number of threads, minutes; else what is picked here
 * with one thread and with three. */
static bool thorough(void)
{
    const char *text = getenv("NSM_KERNELS");
    return text && !strcmp(text, "all");
}

/* Does this machine have it? */
static bool on_this_device(const char *isa, void (*run)(kernels *k))
{
    static const int threads[] = { 1, 3, 2, 5 };
    uint64_t first = 0;
    for (size_t i = 0; i < (thorough() ? 4 : 2); i++) {
        nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .threads = threads[i] });
        if (nsm_error(ctx) == NSM_EDEVICE) {
            nsm_ctx_free(ctx);
            return false;
        }
        ck_ok(ctx);
        uint64_t now = digest_of(ctx, i == 0, run);
        if (i == 0) first = now;
        ck_assert_msg(now == first, "%s: %d threads compute other bits than one", isa, threads[i]);
        nsm_ctx_free(ctx);
    }
    return true;
}

void on_every_device(void (*run)(kernels *k))
{
    static const char *const isas[] = { "generic", "avx2", "avx512" };
    const char *backend = getenv("NSM_BACKEND");
    if (backend && *backend && strcmp(backend, "cpu")) {
        on_this_device(backend, run);
        return;
    }
    if (!thorough()) {
        ck_assert(on_this_device("picked here", run));
        return;
    }
    for (size_t i = 0; i < sizeof isas / sizeof *isas; i++) {
        setenv("NSM_ISA", isas[i], 1);
        bool there = on_this_device(isas[i], run);
        ck_assert_msg(there || i > 0, "plain C must run everywhere");
    }
    unsetenv("NSM_ISA");
}
