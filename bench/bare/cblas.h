/* bench/bare/cblas.h - The one function of CBLAS that the CPU's kernels call, for a machine that
 * has none.  The CPU is what the GPU is held to there, not what it races. */
#ifndef NSM_BARE_CBLAS_H
#define NSM_BARE_CBLAS_H
#include <stdint.h>

typedef int64_t blasint;
enum { CblasRowMajor, CblasNoTrans, CblasTrans };

static inline void cblas_sgemm(int order, int ta, int tb, int64_t m, int64_t n, int64_t k,
                               float alpha, const float *a, int64_t lda, const float *b,
                               int64_t ldb, float beta, float *c, int64_t ldc)
{
    (void)order;
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t l = 0; l < k; l++)
                sum += (double)(ta == CblasTrans ? a[l * lda + i] : a[i * lda + l]) *
                       (double)(tb == CblasTrans ? b[j * ldb + l] : b[l * ldb + j]);
            c[i * ldc + j] = (float)((double)alpha * sum) + (beta == 0 ? 0 : beta * c[i * ldc + j]);
        }
}

#endif
