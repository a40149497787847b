/* bench/gpu.c - A GPU against the CPU, from base/ and kernels/ alone: what a bare machine with a
 * GPU can build and run (doc/cuda.md has the command; bench/bare stands in for configure, libcheck
 * and OpenBLAS).
 *
 *   gpu [kernels] [ops] [walk] [replay] [time]     all of them without a word
 *
 *   kernels  every entry of the kernel table against plain loops in double (tests/kernels), twice
 *   with the same bits
 *   ops      every op's gradient against difference quotients, repeatability, failing allocations
 *   (tests/base/test_ops.c)
 *   walk     every op's result and gradients on the device against the CPU's, and a hash of two
 *   runs
 *   replay   passes that are recorded and replayed (tests/base/test_replay.c), and what a step
 *   costs so and otherwise
 *   time     the main kernels beside the limits: products and attention beside the fastest product
 *            of their precision, the others' bytes that must move beside the bandwidth of a copy,
 *            all measured here
 *
 * The device is NSM_BACKEND's (cuda).  Exit status: 0 all held, 1 not, 2 wrong usage, 77 no
 * device. */
#define NSM_BARE_CHECK_HERE
#define main ops_main /* the walk uses its table of cases */
#include "tests/base/test_ops.c"
#undef main
#include <time.h>

int kernels_main(void);
int replay_main(void);

static const char *device_name(void)
{
    const char *name = getenv("NSM_BACKEND");
    return name && *name ? name : "cuda";
}

/* ---- walk ---- */
static uint64_t hash_of(uint64_t hash, int64_t n, const float *x)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        hash = (hash ^ bits) * 0x100000001b3ull;
        hash ^= hash >> 29;
    }
    return hash;
}

static int walk(void)
{
    const nsm_ctx_config device = { .backend = device_name() }, cpu = { .backend = "cpu" };
    uint64_t hash[2] = { 1, 1 };
    int failed = 0;
    for (int k = 0; k < CASES; k++) {
        int64_t n, same;
        float *want = everything(&cases[k], &cpu, LESS, &n),
              *first = everything(&cases[k], &device, LESS, &same);
        float *second = everything(&cases[k], &device, LESS, &same);
        double error = test_difference(first, want, n, 1e-3);
        bool good = n == same && error < 2e-4 && !memcmp(first, second, (size_t)n * sizeof *first);
        hash[0] = hash_of(hash[0], n, first);
        hash[1] = hash_of(hash[1], n, second);
        printf("%s walk/%s %s %.2g\n", good ? "PASS" : "FAIL", cases[k].op->name, cases[k].name,
               error);
        failed += !good;
        free(want);
        free(first);
        free(second);
    }
    printf("%s walk: %d cases, %d failed, two runs hash to %016llx and %016llx\n",
           failed ? "FAIL" : "PASS", CASES, failed, (unsigned long long)hash[0],
           (unsigned long long)hash[1]);
    return failed;
}

/* ---- time ---- */
enum { TIMES = 11, ARRAYS = 8 };

typedef struct {
    nsm_device *d;
    const nsm_backend *be;
    float *x[ARRAYS];
    int64_t n;
    bool small;
    nsmi_attention attention; /* what run_attention() and run_attention_back() take */
} timing;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* The median of some runs after two that warm up. */
static double median_of(timing *t, void (*run)(timing *t))
{
    double took[TIMES];
    for (int i = -2; i < TIMES; i++) {
        t->be->sync(t->d);
        double start = seconds();
        run(t);
        t->be->sync(t->d);
        if (i >= 0) took[i] = seconds() - start;
    }
    qsort(took, TIMES, sizeof *took, by_size);
    return took[TIMES / 2];
}

/* Sizes of the work: those of a test where the device is only emulated. */
static int64_t side(const timing *t) { return t->small ? 64 : 4096; }
static int64_t rows_of(const timing *t) { return t->small ? 256 : 1 << 16; }
enum { COLUMNS_OF = 256, WINDOW_OF = 32, HEAD = 64 };

static void run_copy(timing *t)
{
    t->be->copy(t->d, (size_t)(rows_of(t) * COLUMNS_OF) * sizeof(float), t->x[0], t->x[1]);
}
static void run_product(timing *t)
{
    t->be->gemm(t->d, false, false, side(t), side(t), side(t), 1, t->x[0], side(t), t->x[1],
                side(t), 0, t->x[2], side(t));
}
static void run_axpby(timing *t)
{
    t->be->axpby(t->d, rows_of(t) * COLUMNS_OF, 1, t->x[0], 1, t->x[1]);
}
static void run_gelu(timing *t)
{
    t->be->unary(t->d, NSMI_GELU, 0, 0, rows_of(t) * COLUMNS_OF, t->x[0], t->x[1]);
}
static void run_softmax(timing *t)
{
    t->be->softmax(t->d, false, rows_of(t), COLUMNS_OF, 1, t->x[0], t->x[1]);
}
static void run_norm(timing *t)
{
    t->be->row_norm(t->d, false, rows_of(t), COLUMNS_OF, 1e-5f, t->x[0], t->x[3], t->x[3], t->x[1],
                    t->x[2]);
}
static void run_norm_back(timing *t)
{
    t->be->row_norm_back(t->d, false, rows_of(t), COLUMNS_OF, t->x[0], t->x[3], t->x[2], t->x[4], 0,
                         t->x[1], t->x[5], t->x[6]);
}
static void run_update(timing *t)
{
    nsmi_slot s = { .n = rows_of(t) * COLUMNS_OF,
                    .w = t->x[0],
                    .g = t->x[1],
                    .s = { t->x[2], t->x[4], NULL, NULL },
                    .lr = 1e-3f };
    nsmi_step step = {
        .rule = NSMI_ADAMW, .step = 1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .grad_scale = 1
    };
    t->be->update(t->d, &step, 1, &s);
}

/* Sequences of as many numbers: rows of COLUMNS_OF in heads of HEAD. */
static nsmi_recurrence recurrence_of(const timing *t)
{
    int64_t n = t->small ? 128 : 4096, heads = COLUMNS_OF / HEAD;
    return (nsmi_recurrence){ .batch = rows_of(t) / n,
                              .n = n,
                              .heads = heads,
                              .dk = HEAD,
                              .dv = HEAD,
                              .q_heads = heads,
                              .k_heads = heads,
                              .v_heads = heads,
                              .g_heads = heads,
                              .fade = NSMI_FADE_SCALAR,
                              .scale = 0.1f };
}
static void run_recurrence(timing *t)
{
    nsmi_recurrence r = recurrence_of(t);
    nsmi_recurrence_values in = { .q = t->x[0], .k = t->x[1], .v = t->x[2], .g = t->x[7] };
    t->be->recurrence(t->d, &r, &in, t->x[4], t->x[5], NULL);
}
static void run_scan(timing *t)
{
    int64_t n = t->small ? 128 : 4096;
    nsmi_scan s = { .batch = rows_of(t) / n,
                    .n = n,
                    .channels = COLUMNS_OF,
                    .states = 16,
                    .groups = 1,
                    .softplus = true };
    nsmi_scan_values in = { .u = t->x[0], .dt = t->x[1], .a = t->x[7], .b = t->x[2], .c = t->x[3] };
    t->be->scan(t->d, &s, &in, t->x[4], t->x[5], NULL);
}
static void run_window(timing *t)
{
    int64_t n = t->small ? 128 : 4096;
    nsmi_window c = { .batch = rows_of(t) / n,
                      .tokens = n,
                      .heads = COLUMNS_OF / HEAD,
                      .keys = HEAD,
                      .values = HEAD,
                      .window = WINDOW_OF };
    nsmi_window_in in = {
        .q = t->x[0], .k = t->x[1], .v = t->x[2], .gamma = t->x[3], .bias = t->x[3]
    };
    t->be->window(t->d, &c, &in, t->x[5], t->x[4], NULL);
}

/* Sequences of 8192 tokens in heads of `size`, as many as half an array holds. */
static nsmi_attention attention_of(const timing *t, int64_t size, bool causal)
{
    int64_t n = t->small ? 64 : 8192, heads = rows_of(t) * COLUMNS_OF / 2 / n / size,
            row = heads * size;
    return (nsmi_attention){ .batch = 1,
                             .n = n,
                             .m = n,
                             .heads = heads,
                             .groups = heads,
                             .dk = size,
                             .dv = size,
                             .q = { n * row, row, size },
                             .k = { n * row, row, size },
                             .v = { n * row, row, size },
                             .scale = 0.1f,
                             .causal = causal };
}
static void run_attention(timing *t)
{
    t->be->attention(t->d, &t->attention, t->x[0], t->x[1], t->x[2], t->x[4] + t->n / 2, t->x[4],
                     t->x[5]);
}
static void run_attention_back(timing *t)
{
    const int64_t half = t->n / 2;
    t->be->attention_back(t->d, &t->attention, t->x[0], t->x[1], t->x[2], t->x[4], t->x[5], t->x[3],
                          t->x[4] + half, (float[3]){ 0, 0, 0 }, t->x[6], t->x[6] + half,
                          t->x[5] + half, NULL);
}

/* Forward has 2 products of n x m x size a head, backward 5, of which causal wants half; backward's
 * scores are computed twice, which is not counted. */
static void time_attention(timing *t, const char *precision, double product)
{
    for (int k = 0; k < 8; k++) {
        int64_t size = k & 1 ? 128 : 64;
        bool causal = k & 2, back = k & 4;
        const nsmi_attention a = t->attention = attention_of(t, size, causal);
        double work = (back ? 10.0 : 4.0) * (double)(a.heads * a.n * a.m * size) / (causal ? 2 : 1);
        if (back) run_attention(t);
        double rate = work / median_of(t, back ? run_attention_back : run_attention);
        printf("time: attention%-5s of %lld tokens, heads of %3lld, %-6s in %s: %.3g TFLOP/s, "
               "%.1f %% of the product's\n",
               back ? " back" : "", (long long)a.n, (long long)size, causal ? "causal" : "full",
               precision, rate * 1e-12, 100 * rate / product);
    }
}

/* words: numbers that must move, for each of the rows' COLUMNS_OF. */
static const struct { const char *name; void (*run)(timing *t); double words;
} timed[] = {
    { "axpby", run_axpby, 3 },
    { "gelu", run_gelu, 2 },
    { "softmax", run_softmax, 2 },
    { "row_norm", run_norm, 2 },
    { "row_norm_back", run_norm_back, 3 },
    { "adamw", run_update, 7 },
    { "recurrence (scalar decay)", run_recurrence, 4 },
    { "scan (16 states)", run_scan, 3.125 },
    { "window (32 tokens)", run_window, 4 },
};

static bool timing_open(timing *t, nsm_ctx *ctx)
{
    *t = (timing){ .d = &ctx->dev, .be = ctx->dev.be, .small = strcmp(device_name(), "cuda") != 0 };
    t->n = rows_of(t) * COLUMNS_OF > side(t) * side(t) ? rows_of(t) * COLUMNS_OF
                                                       : side(t) * side(t);
    for (int i = 0; i < ARRAYS; i++) {
        t->x[i] = t->be->alloc(t->d, (size_t)t->n * sizeof(float));
        if (!t->x[i]) return false;
        t->be->uniform(t->d, (nsm_random){ 7, (uint64_t)(i * t->n) }, i == 7 ? -0.1f : 0.0f,
                       i == 7 ? 0.0f : 1.0f, t->n, t->x[i]);
    }
    return true;
}

static int time_all(void)
{
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .backend = device_name() });
    timing t;
    if (!timing_open(&t, ctx)) {
        printf("FAIL time: out of device memory\n");
        return 1;
    }
    const double bytes = 4.0 * (double)(rows_of(&t) * COLUMNS_OF),
                 bandwidth = 2 * bytes / median_of(&t, run_copy), edge = (double)side(&t);
    printf("time: %s, a copy moves %.3g GB/s%s\n", ctx->dev.isa_name, bandwidth * 1e-9,
           t.small ? " (emulated: these figures say nothing)" : "");
    for (int p = 0; p < NSM_PRECISION_KINDS; p++) {
        const char *name = nsm_precision_name((nsm_precision)p);
        t.d->precision = (nsm_precision)p;
        double rate = 2 * edge * edge * edge / median_of(&t, run_product);
        printf("time: product of %lld^3 in %s: %.3g TFLOP/s\n", (long long)side(&t), name,
               rate * 1e-12);
        time_attention(&t, name, rate);
    }
    t.d->precision = NSM_PRECISION_FLOAT32;
    for (size_t i = 0; i < sizeof timed / sizeof *timed; i++) {
        double took = median_of(&t, timed[i].run), moved_bytes = timed[i].words * bytes;
        printf("time: %-28s %9.3f ms %8.3g GB/s %5.1f %% of a copy's\n", timed[i].name, took * 1e3,
               moved_bytes / took * 1e-9, 100 * moved_bytes / took / bandwidth);
    }
    for (int i = 0; i < ARRAYS; i++) t.be->release(t.d, t.x[i], (size_t)t.n * sizeof(float));
    int failed = ctx->dev.trouble != NULL;
    if (failed) printf("FAIL time: %s\n", ctx->dev.trouble);
    nsm_ctx_free(ctx);
    return failed;
}

/* ---- the program ---- */
static const struct { const char *name; int (*run)(void); } parts[] = {
    { "kernels", kernels_main }, { "ops", ops_main }, { "walk", walk },
    { "replay", replay_main },   { "time", time_all },
};
enum { PARTS = sizeof parts / sizeof *parts };

static bool is_asked(int count, char **words, const char *name)
{
    bool asked = count == 1;
    for (int i = 1; i < count; i++) asked |= !strcmp(words[i], name);
    return asked;
}

int main(int count, char **words)
{
    for (int i = 1; i < count; i++) {
        bool known = false;
        for (int k = 0; k < PARTS; k++) known |= !strcmp(words[i], parts[k].name);
        if (known) continue;
        fprintf(stderr, "gpu: %s: want any of kernels, ops, walk, replay, time\n", words[i]);
        return 2;
    }
#if defined(NSM_EMULATION)
    nsmi_test_backend = &nsmi_emulated;
#endif
    setenv("NSM_BACKEND", device_name(), 1);
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    int code = nsm_error(ctx), failed = 0;
    printf("gpu: %s\n", code ? nsm_error_message(ctx) : nsm_ctx_isa(ctx));
    nsm_ctx_free(ctx);
    if (code) return 77;
    for (int k = 0; k < PARTS; k++)
        if (is_asked(count, words, parts[k].name)) failed += parts[k].run() != 0;
    printf("%s gpu\n", failed ? "FAIL" : "PASS");
    return failed ? 1 : 0;
}
