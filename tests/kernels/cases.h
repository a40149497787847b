/* tests/kernels/cases.h - What the cases of the kernel table share: arrays on host and device,
 * results held against references in double, and a digest of every bit that a case computed.
 *
 * A case is a function over a struct kernels: it fills arrays, calls the table, computes the same
 * with plain loops, and hands both to result().  Whoever runs it chooses the device, and compares
 * digests between numbers of threads. */
#ifndef NSM_KERNEL_CASES_H
#define NSM_KERNEL_CASES_H
#include "tests/test.h"

typedef struct {
    nsm_ctx *ctx;
    nsm_device *d;
    const nsm_backend *be;
    bool check;       /* hold results against the references; else only the digest is wanted */
    uint64_t digest;  /* of all results so far */
    uint64_t seed;
    void **host;      /* what the case has allocated: freed at its end */
    void **device;
    int hosts, devices;
} kernels;

typedef struct { int64_t n; float *h, *d; } reals;
typedef struct { int64_t n; int32_t *h, *d; } ints;

/* Arrays of n numbers, the same on both sides.  They live until the case ends. */
reals reals_random(kernels *k, int64_t n, double low, double high);
reals reals_steps(kernels *k, int64_t n, int steps); /* of -1 .. 1, so that many are equal */
reals reals_blank(kernels *k, int64_t n);            /* NaN: for outputs that must be written */
reals reals_copy(kernels *k, reals x);
reals reals_of(kernels *k, int64_t n, const float *x);
ints ints_random(kernels *k, int64_t n, int64_t low, int64_t high); /* low <= x < high */
ints ints_blank(kernels *k, int64_t n);
void reals_up(kernels *k, reals x); /* the host's numbers to the device */
void *host_array(kernels *k, int64_t n, size_t each);
double *wanted(kernels *k, int64_t n);                     /* zeros */
double *wanted_from(kernels *k, reals x, double beta);     /* beta x; zeros with beta 0 */

/* Fetch got, add it to the digest and, with check, compare: no element further from want than
 * tolerance times the largest |want|; each: times its own |want|, with a floor of 2e-6. */
void result(kernels *k, const char *what, reals got, const double *want, double tolerance);
void result_each(kernels *k, const char *what, reals got, const double *want, double tolerance);
void result_ints(kernels *k, const char *what, ints got, const int32_t *want);
void result_digest(kernels *k, reals got);

/* 1/(1-p) where draw i of r keeps a number, 0 where it drops it; 1 without dropout */
double kept(nsm_random r, double p, int64_t i);

/* Run a case on this machine's instruction set (or on the device that NSM_BACKEND names) with 1 and
 * 3 threads, with NSM_KERNELS=all on every instruction set with 1, 2, 3 and 5: digests must be
 * equal. */
void on_every_device(void (*run)(kernels *k));

/* The cases */
void case_products(kernels *k);
void case_batched_products(kernels *k);
void case_rounded_products(kernels *k);
void case_copies(kernels *k);
void case_passes(kernels *k);
void case_sums(kernels *k);
void case_extremes(kernels *k);
void case_turning(kernels *k);
void case_draws(kernels *k);
void case_unary(kernels *k);
void case_binary(kernels *k);
void case_fused(kernels *k);
void case_softmax(kernels *k);
void case_row_norm(kernels *k);
void case_batch_norm(kernels *k);
void case_cross_entropy(kernels *k);
void case_updates(kernels *k);
void case_gather(kernels *k);
void case_gather_add(kernels *k);
void case_scatter_rows(kernels *k);
void case_spmm(kernels *k);
void case_sddmm(kernels *k);
void case_spmm_max(kernels *k);
void case_segments(kernels *k);
void case_segment_softmax(kernels *k);
void case_gat(kernels *k);
void case_gatv2(kernels *k);
void case_attention(kernels *k);
void case_rotate(kernels *k);
void case_rnn(kernels *k);
void case_conv1d(kernels *k);
void case_linear_recurrence(kernels *k);
void case_scan(kernels *k);
void case_wkv(kernels *k);
void case_clock(kernels *k);
void case_window(kernels *k);
void case_memory_mix(kernels *k);
void case_slots(kernels *k);
void case_pool_age(kernels *k);
void case_pool_open(kernels *k);
void case_pool_route(kernels *k);
void case_conv2d(kernels *k);
void case_max_pool2d(kernels *k);
void case_resample(kernels *k);

#endif
