/* kernels/cpu/backend.c - The CPU as a device: memory, and which instruction set's table is used.
 *
 * The tables of all instruction sets are filled once; open() picks the best that this processor
 * has.  The environment's NSM_ISA (generic, avx2, avx512) asks for a lower one.  Memory of 4 MiB
 * and more stands on huge pages where the system gives them. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "kernels/cpu/cpu.h"

enum { BIG = 4 << 20, HUGE_PAGE = 2 << 20, PIECE = 1 << 20 };

#define DECLARE(isa)                                \
    void nsmi_cpu_dense_##isa(nsm_backend *);       \
    void nsmi_cpu_gemm_##isa(nsm_backend *);        \
    void nsmi_cpu_elementwise_##isa(nsm_backend *); \
    void nsmi_cpu_norm_##isa(nsm_backend *);        \
    void nsmi_cpu_loss_##isa(nsm_backend *);        \
    void nsmi_cpu_optimizer_##isa(nsm_backend *);   \
    void nsmi_cpu_sparse_##isa(nsm_backend *);      \
    void nsmi_cpu_attention_##isa(nsm_backend *);   \
    void nsmi_cpu_attend_##isa(nsm_backend *);      \
    void nsmi_cpu_rnn_##isa(nsm_backend *);         \
    void nsmi_cpu_conv1d_##isa(nsm_backend *);      \
    void nsmi_cpu_recurrence_##isa(nsm_backend *);  \
    void nsmi_cpu_slots_##isa(nsm_backend *);       \
    void nsmi_cpu_memory_##isa(nsm_backend *);      \
    void nsmi_cpu_scan_##isa(nsm_backend *);        \
    void nsmi_cpu_pool_##isa(nsm_backend *);        \
    void nsmi_cpu_conv2d_##isa(nsm_backend *);      \
    void nsmi_cpu_image_##isa(nsm_backend *);       \
    static void fill_##isa(nsm_backend *be)         \
    {                                               \
        nsmi_cpu_dense_##isa(be);                   \
        nsmi_cpu_gemm_##isa(be);                    \
        nsmi_cpu_elementwise_##isa(be);             \
        nsmi_cpu_norm_##isa(be);                    \
        nsmi_cpu_loss_##isa(be);                    \
        nsmi_cpu_optimizer_##isa(be);               \
        nsmi_cpu_sparse_##isa(be);                  \
        nsmi_cpu_attention_##isa(be);               \
        nsmi_cpu_attend_##isa(be);                  \
        nsmi_cpu_rnn_##isa(be);                     \
        nsmi_cpu_conv1d_##isa(be);                  \
        nsmi_cpu_recurrence_##isa(be);              \
        nsmi_cpu_slots_##isa(be);                   \
        nsmi_cpu_memory_##isa(be);                  \
        nsmi_cpu_scan_##isa(be);                    \
        nsmi_cpu_pool_##isa(be);                    \
        nsmi_cpu_conv2d_##isa(be);                  \
        nsmi_cpu_image_##isa(be);                   \
    }
DECLARE(generic)
#if defined(NSM_X86_64)
DECLARE(avx2)
DECLARE(avx512)
#endif

static bool has_generic(void) { return true; }
#if defined(NSM_X86_64)
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

/* The instruction sets, best first. */
static const struct {
    const char *name;
    bool (*supported)(void);
    void (*fill)(nsm_backend *be);
} isas[] = {
#if defined(NSM_X86_64)
    { "avx512", has_avx512, fill_avx512 },
    { "avx2", has_avx2, fill_avx2 },
#endif
    { "generic", has_generic, fill_generic },
};
enum { ISAS = sizeof isas / sizeof isas[0] };

static nsm_backend tables[ISAS];
static pthread_once_t filled = PTHREAD_ONCE_INIT;

/* Those that this processor has: what fills a table is compiled for its instruction set too. */
static void fill_tables(void)
{
    for (int i = 0; i < ISAS; i++) {
        if (!isas[i].supported()) continue;
        tables[i] = nsmi_cpu;
        isas[i].fill(&tables[i]);
    }
}

/* Index of the instruction set to use, or -1 and why not. */
static int pick(char *why, size_t why_bytes)
{
    const char *wanted = getenv("NSM_ISA");
    for (int i = 0; i < ISAS; i++) {
        if (wanted && *wanted && strcmp(wanted, isas[i].name)) continue;
        if (isas[i].supported()) return i;
        if (wanted && *wanted) {
            snprintf(why, why_bytes, "NSM_ISA=%s: this processor does not have it", wanted);
            return -1;
        }
    }
    snprintf(why, why_bytes, "NSM_ISA=%s is not known; want generic%s", wanted ? wanted : "",
             ISAS > 1 ? ", avx2 or avx512" : "");
    return -1;
}

static void cpu_close(nsm_device *d)
{
    nsmi_cpu_state *state = d->impl;
    if (!state) return;
    if (state->scratch) munmap(state->scratch, NSMI_SCRATCH * sizeof(float));
    if (state->pack) munmap(state->pack, state->pack_bytes);
    free(state);
    d->impl = NULL;
}

/* Address space; its pages come when they are touched. */
static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static int cpu_open(nsm_device *d, char *why, size_t why_bytes)
{
    pthread_once(&filled, fill_tables);
    int isa = pick(why, why_bytes);
    if (isa < 0) return -1;
    if (d->threads < 1) d->threads = omp_get_num_procs();
    nsmi_cpu_state *state = calloc(1, sizeof *state);
    d->impl = state;
    if (state) {
        state->pack_bytes = (size_t)d->threads * NSMI_PACK * sizeof(float);
        state->scratch = reserve(NSMI_SCRATCH * sizeof(float));
        state->pack = reserve(state->pack_bytes);
    }
    if (!state || !state->scratch || !state->pack) {
        cpu_close(d);
        snprintf(why, why_bytes, "out of memory for the working space of %d threads", d->threads);
        return -1;
    }
    d->be = &tables[isa];
    d->isa = isa;
    d->isa_name = isas[isa].name;
    return 0;
}

static void *cpu_alloc(nsm_device *d, size_t bytes)
{
    (void)d;
    if (bytes > SIZE_MAX - HUGE_PAGE) return NULL;
    size_t unit = bytes >= BIG ? HUGE_PAGE : 64;
    size_t rounded = (bytes + unit - 1) / unit * unit;
    void *p = aligned_alloc(unit, rounded ? rounded : unit);
#if defined(MADV_HUGEPAGE)
    if (p && bytes >= BIG)
        madvise(p, rounded, MADV_HUGEPAGE); /* advice: no harm if it is refused */
#endif
    return p;
}

static void cpu_release(nsm_device *d, void *p, size_t bytes)
{
    (void)d;
    (void)bytes;
    free(p);
}

static void cpu_copy(nsm_device *d, size_t bytes, const void *from, void *to)
{
    int64_t n = (int64_t)bytes, pieces = nsmi_blocks(n, PIECE);
#pragma omp parallel for num_threads(nsmi_team(d, n / 8)) schedule(static)
    for (int64_t i = 0; i < pieces; i++) {
        int64_t at = i * PIECE, end = nsmi_block_end(i, PIECE, n);
        memcpy((char *)to + at, (const char *)from + at, (size_t)(end - at));
    }
}

static void cpu_zero(nsm_device *d, size_t bytes, void *p)
{
    int64_t n = (int64_t)bytes, pieces = nsmi_blocks(n, PIECE);
#pragma omp parallel for num_threads(nsmi_team(d, n / 8)) schedule(static)
    for (int64_t i = 0; i < pieces; i++) {
        int64_t at = i * PIECE, end = nsmi_block_end(i, PIECE, n);
        memset((char *)p + at, 0, (size_t)(end - at));
    }
}

static void cpu_sync(nsm_device *d) { (void)d; }

const nsm_backend nsmi_cpu = {
    .name = "cpu",
    .open = cpu_open,
    .close = cpu_close,
    .alloc = cpu_alloc,
    .release = cpu_release,
    .to_device = cpu_copy,
    .to_host = cpu_copy,
    .copy = cpu_copy,
    .zero = cpu_zero,
    .sync = cpu_sync,
};
