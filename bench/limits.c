/* bench/limits.c - What the machine can do: the denominators of every share. */
#include "config.h"
#include <cblas.h>
#include <omp.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>
#include "bench/gnn.h"

double bench_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int64_t bench_peak_mib(void)
{
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    return use.ru_maxrss / 1024;
}

enum { REPEATS = 5 };

double bench_triad_gbs(int threads)
{
    enum { N = 1 << 23 };
    float *a = malloc(N * sizeof *a), *b = malloc(N * sizeof *b), *c = malloc(N * sizeof *c);
    double best = 0;
    for (int r = 0; a && b && c && r <= REPEATS; r++) { /* the first makes the pages */
        double start = bench_seconds();
#pragma omp parallel for num_threads(threads) schedule(static)
        for (int i = 0; i < N; i++) {
            if (r == 0) b[i] = c[i] = 1;
            a[i] = b[i] + 3 * c[i];
        }
        double gbs = 12.0 * N / (bench_seconds() - start) * 1e-9;
        if (r > 0 && gbs > best) best = gbs;
    }
    free(a);
    free(b);
    free(c);
    return best;
}

/* One thread's share: rows by a linear congruence, summed so that nothing but reading counts. */
static float read_rows(const float *x, const int32_t *index, int64_t n, int64_t cols)
{
    enum { AHEAD = 12 };
    float sum = 0;
    for (int64_t i = 0; i < n; i++) {
        const float *row = x + index[i] * cols;
        if (i + AHEAD < n)
            for (int64_t k = 0; k < cols; k += 16)
                __builtin_prefetch(x + index[i + AHEAD] * cols + k);
        float s[16] = { 0 };
        int64_t k = 0;
        for (; k + 16 <= cols; k += 16)
            for (int l = 0; l < 16; l++) s[l] += row[k + l];
        for (; k < cols; k++) sum += row[k];
        for (int l = 0; l < 16; l++) sum += s[l];
    }
    return sum;
}

double bench_gather_gbs(int threads, int64_t rows, int64_t cols)
{
    int64_t n = 1 << 19;
    float *x = malloc((size_t)(rows * cols) * sizeof *x), sum = 0;
    int32_t *index = malloc((size_t)n * sizeof *index);
    double best = 0;
    uint64_t state = 1;
    for (int64_t i = 0; x && i < rows * cols; i++) x[i] = 1;
    for (int64_t i = 0; index && i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        index[i] = (int32_t)((state >> 33) % (uint64_t)rows);
    }
    for (int r = 0; x && index && r < REPEATS; r++) {
        double start = bench_seconds();
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : sum)
        for (int t = 0; t < threads; t++)
            sum += read_rows(x, index + t * n / threads, n / threads, cols);
        double gbs = 4.0 * (double)(n * cols) / (bench_seconds() - start) * 1e-9;
        if (gbs > best) best = gbs;
    }
    free(x);
    free(index);
    return sum > 0 ? best : 0;
}

double bench_gemm_gflops(int threads)
{
    static const int sizes[] = { 512, 1024, 1536 };
    double best = 0;
    int before = openblas_get_num_threads();
    openblas_set_num_threads(threads);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int n = sizes[i];
        float *a = calloc((size_t)n * (size_t)n, sizeof *a),
              *c = calloc((size_t)n * (size_t)n, sizeof *c);
        for (int r = 0; a && c && r < REPEATS; r++) {
            double start = bench_seconds();
            cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, n, n, n, 1, a, n, a, n, 0, c, n);
            double gflops = 2.0 * n * n * n / (bench_seconds() - start) * 1e-9;
            if (r > 0 && gflops > best) best = gflops;
        }
        free(a);
        free(c);
    }
    openblas_set_num_threads(before);
    return best;
}
