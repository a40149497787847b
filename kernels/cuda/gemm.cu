/* kernels/cuda/gemm.cu - Matrix products by cuBLASLt: in float32, in TF32, or of operands rounded
 * to bf16; all sums and results are float32.
 *
 * libcublasLt is loaded when a device is opened, so a machine without it runs the same program on
 * its CPU.  What the library thinks fastest for a shape is asked once and kept: the same algorithm,
 * and so the same bits, every time after.  cuBLASLt counts by columns: a row-major C = A B is its
 * C' = B' A', the same memory.
 *
 * For bf16 each operand is read once and its copy written dense, in rows of a multiple of 8.
 *
 * Where there is no GPU (emulate.h), multiply() is a plain loop behind the same interface, which
 * reads what tensor cores read.
 * Letters: C [m, n] = alpha op(A) [m, k] op(B) [k, n] + beta C, `batch` times. */
#include "kernels/cuda/mma.h"
#include <stdio.h>
#include <stdlib.h>

typedef struct {
    bool ta, tb;
    int64_t batch, m, n, k;
    float alpha, beta;
    const void *a, *b; /* float, or with NSM_PRECISION_BF16 uint16_t */
    float *c;
    int64_t lda, ldb, ldc, sa, sb, sc;
    nsm_precision precision;
} product;

#if defined(NSM_EMULATE)

bool nsmi_cuda_products_open(nsm_device *d, char *why, size_t why_bytes)
{
    (void)d;
    (void)why;
    (void)why_bytes;
    return true;
}

void nsmi_cuda_products_close(nsm_device *d) { (void)d; }

/* Number i of an operand, as a tensor core takes it. */
static __device__ float operand(nsm_precision how, const void *x, int64_t i)
{
    if (how == NSM_PRECISION_BF16) return float_of_bf16(((const uint16_t *)x)[i]);
    float v = ((const float *)x)[i];
    return how == NSM_PRECISION_TF32 ? nearest_tf32(v) : v;
}

/* Sum: double where an operand is not rounded, so that float32 has no order of its own. */
template <typename Sum> static __global__ void product_kernel(int64_t items, product p)
{
    EACH_ITEM(t, items)
    {
        int64_t batch = t / (p.m * p.n), i = t / p.n % p.m, j = t % p.n;
        int64_t a = batch * p.sa, b = batch * p.sb;
        Sum sum = 0;
        for (int64_t l = 0; l < p.k; l++)
            sum += (Sum)operand(p.precision, p.a, a + (p.ta ? l * p.lda + i : i * p.lda + l)) *
                   (Sum)operand(p.precision, p.b, b + (p.tb ? j * p.ldb + l : l * p.ldb + j));
        put(p.c + batch * p.sc + i * p.ldc + j, p.beta, (float)((Sum)p.alpha * sum));
    }
}

static void multiply(nsm_device *d, const product *p)
{
    int64_t items = p->batch * p->m * p->n;
    if (p->precision == NSM_PRECISION_FLOAT32) FOR_ITEMS(d, product_kernel<double>, items, *p);
    else FOR_ITEMS(d, product_kernel<float>, items, *p);
}

#else /* a GPU */

#include <cublasLt.h>
#include <dlfcn.h>

enum { PLANS = 4096, WORKSPACE = 32 << 20 };
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define LIBRARY "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)

/* The functions used, by their names in the library without "cublasLt". */
#define FUNCTIONS(X) \
    X(Create) \
    X(Destroy) \
    X(Matmul) X(MatmulDescCreate) X(MatmulDescDestroy) X(MatmulDescSetAttribute) \
        X(MatrixLayoutCreate) X(MatrixLayoutDestroy) X(MatrixLayoutSetAttribute) \
            X(MatmulPreferenceCreate) X(MatmulPreferenceDestroy) X(MatmulPreferenceSetAttribute) \
                X(MatmulAlgoGetHeuristic)

/* What decides about the algorithm. */
typedef struct {
    int64_t m, n, k, lda, ldb, ldc, batch, sa, sb, sc, flags;
} shape;
typedef struct {
    shape of;
    cublasLtMatmulAlgo_t algo;
    bool known;
} plan;

struct nsmi_cuda_products {
    void *library;
    cublasLtHandle_t handle;
    void *workspace;
#define MEMBER(name) decltype(&cublasLt##name) name;
    FUNCTIONS(MEMBER)
    plan plans[PLANS];
};

void nsmi_cuda_products_close(nsm_device *d)
{
    nsmi_cuda_products *p = state_of(d)->products;
    if (!p) return;
    if (p->workspace) cudaFreeAsync(p->workspace, stream_of(d));
    if (p->handle) p->Destroy(p->handle);
    if (p->library) dlclose(p->library);
    free(p);
    state_of(d)->products = NULL;
}

bool nsmi_cuda_products_open(nsm_device *d, char *why, size_t why_bytes)
{
    nsmi_cuda_products *p = (nsmi_cuda_products *)calloc(1, sizeof *p);
    state_of(d)->products = p;
    if (!p) {
        snprintf(why, why_bytes, "out of memory");
        return false;
    }
    p->library = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (!p->library) {
        snprintf(why, why_bytes, "%.160s", dlerror());
        return false;
    }
    bool all = true;
#define FIND(name) all = all && (*(void **)&p->name = dlsym(p->library, "cublasLt" #name)) != NULL;
    FUNCTIONS(FIND)
    if (!all || p->Create(&p->handle) != CUBLAS_STATUS_SUCCESS ||
        cudaMallocAsync(&p->workspace, WORKSPACE, stream_of(d)) != cudaSuccess) {
        snprintf(why, why_bytes, "%s does not start", LIBRARY);
        return false;
    }
    return true;
}

/* A product as the library sees it: first is our B, second our A. */
typedef struct {
    cublasLtMatmulDesc_t op;
    cublasLtMatrixLayout_t first, second, result;
} described;

static cublasLtMatrixLayout_t layout_of(nsmi_cuda_products *s, cudaDataType type, int64_t rows,
                                        int64_t cols, int64_t ld, int64_t batch, int64_t stride)
{
    cublasLtMatrixLayout_t l = NULL;
    int32_t count = (int32_t)batch;
    if (s->MatrixLayoutCreate(&l, type, (uint64_t)cols, (uint64_t)rows, ld) !=
        CUBLAS_STATUS_SUCCESS)
        return NULL;
    if (batch > 1) {
        s->MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
        s->MatrixLayoutSetAttribute(l, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                    sizeof stride);
    }
    return l;
}

static bool describe(nsmi_cuda_products *s, const product *p, described *q)
{
    cublasOperation_t first = p->tb ? CUBLAS_OP_T : CUBLAS_OP_N,
                      second = p->ta ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasComputeType_t sums = p->precision == NSM_PRECISION_TF32 ? CUBLAS_COMPUTE_32F_FAST_TF32
                                                                  : CUBLAS_COMPUTE_32F;
    cudaDataType type = p->precision == NSM_PRECISION_BF16 ? CUDA_R_16BF : CUDA_R_32F;
    if (s->MatmulDescCreate(&q->op, sums, CUDA_R_32F) != CUBLAS_STATUS_SUCCESS) return false;
    s->MatmulDescSetAttribute(q->op, CUBLASLT_MATMUL_DESC_TRANSA, &first, sizeof first);
    s->MatmulDescSetAttribute(q->op, CUBLASLT_MATMUL_DESC_TRANSB, &second, sizeof second);
    q->first = layout_of(s, type, p->tb ? p->n : p->k, p->tb ? p->k : p->n, p->ldb, p->batch,
                         p->sb);
    q->second = layout_of(s, type, p->ta ? p->k : p->m, p->ta ? p->m : p->k, p->lda, p->batch,
                          p->sa);
    q->result = layout_of(s, CUDA_R_32F, p->m, p->n, p->ldc, p->batch, p->sc);
    return q->first && q->second && q->result;
}

static void forget(nsmi_cuda_products *s, described *q)
{
    if (q->first) s->MatrixLayoutDestroy(q->first);
    if (q->second) s->MatrixLayoutDestroy(q->second);
    if (q->result) s->MatrixLayoutDestroy(q->result);
    if (q->op) s->MatmulDescDestroy(q->op);
}

/* The alignment of a matrix and of those after it, in bytes: at most 256. */
static uint32_t alignment(const void *p, size_t each, int64_t batch, int64_t stride)
{
    uintptr_t bits = (uintptr_t)p | 256 | (batch > 1 ? (uintptr_t)stride * each : 0);
    return (uint32_t)(bits & -bits);
}

/* Of our A, B and C. */
typedef struct {
    uint32_t a, b, c;
} alignments;
static alignments alignments_of(const product *p)
{
    size_t each = p->precision == NSM_PRECISION_BF16 ? sizeof(uint16_t) : sizeof(float);
    return { alignment(p->a, each, p->batch, p->sa), alignment(p->b, each, p->batch, p->sb),
             alignment(p->c, sizeof *p->c, p->batch, p->sc) };
}

static shape shape_of(const product *p)
{
    alignments by = alignments_of(p);
    shape s = { p->m,
                p->n,
                p->k,
                p->lda,
                p->ldb,
                p->ldc,
                p->batch,
                p->batch > 1 ? p->sa : 0,
                p->batch > 1 ? p->sb : 0,
                p->batch > 1 ? p->sc : 0,
                (int64_t)by.a | (int64_t)by.b << 12 | (int64_t)by.c << 24 | (int64_t)p->ta << 36 |
                    (int64_t)p->tb << 37 | (int64_t)(p->beta != 0) << 38 |
                    (int64_t)p->precision << 39 };
    return s;
}

static bool ask(nsmi_cuda_products *s, const product *p, const described *q,
                cublasLtMatmulAlgo_t *algo)
{
    cublasLtMatmulPreference_t prefer = NULL;
    cublasLtMatmulHeuristicResult_t found;
    size_t room = WORKSPACE;
    int count = 0;
    alignments by = alignments_of(p);
    if (s->MatmulPreferenceCreate(&prefer) != CUBLAS_STATUS_SUCCESS) return false;
    s->MatmulPreferenceSetAttribute(prefer, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room,
                                    sizeof room);
    s->MatmulPreferenceSetAttribute(prefer, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &by.b,
                                    sizeof by.b);
    s->MatmulPreferenceSetAttribute(prefer, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &by.a,
                                    sizeof by.a);
    s->MatmulPreferenceSetAttribute(prefer, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &by.c,
                                    sizeof by.c);
    s->MatmulPreferenceSetAttribute(prefer, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &by.c,
                                    sizeof by.c);
    cublasStatus_t status = s->MatmulAlgoGetHeuristic(s->handle, q->op, q->first, q->second,
                                                      q->result, q->result, prefer, 1, &found,
                                                      &count);
    s->MatmulPreferenceDestroy(prefer);
    if (status != CUBLAS_STATUS_SUCCESS || count < 1) return false;
    *algo = found.algo;
    return true;
}

/* The kept plan of a shape; asks where there is none. */
static const cublasLtMatmulAlgo_t *algorithm(nsmi_cuda_products *s, const product *p,
                                             const described *q)
{
    shape of = shape_of(p);
    uint64_t hash = 0;
    const uint64_t *word = (const uint64_t *)&of;
    for (size_t i = 0; i < sizeof of / sizeof *word; i++)
        hash = (hash ^ word[i]) * 0x9E3779B97F4A7C15ull;
    plan *at = &s->plans[(hash >> 40) % PLANS];
    if (at->known && !memcmp(&at->of, &of, sizeof of)) return &at->algo;
    at->of = of;
    at->known = ask(s, p, q, &at->algo);
    return at->known ? &at->algo : NULL;
}

static void multiply(nsm_device *d, const product *p)
{
    nsmi_cuda_products *s = state_of(d)->products;
    described q = { NULL, NULL, NULL, NULL };
    const cublasLtMatmulAlgo_t *algo = describe(s, p, &q) ? algorithm(s, p, &q) : NULL;
    if (!algo || s->Matmul(s->handle, q.op, &p->alpha, p->b, q.first, p->a, q.second, &p->beta,
                           p->c, q.result, p->c, q.result, algo, s->workspace, WORKSPACE,
                           stream_of(d)) != CUBLAS_STATUS_SUCCESS)
        nsmi_cuda_trouble(d, NSM_EDEVICE, "%s refuses a matrix product", LIBRARY);
    forget(s, &q);
}

#endif

/* ---- both ---- */

/* C = beta C: what is left of a product over nothing. */
static __global__ void scale_kernel(int64_t items, product p)
{
    EACH_ITEM(t, items)
    put(p.c + t / (p.m * p.n) * p.sc + t / p.n % p.m * p.ldc + t % p.n, p.beta, 0);
}

/* A batch of matrices of float, and how their copies in bf16 are laid out. */
typedef struct {
    const float *x;
    int64_t batch, rows, cols, ld, stride;
    int64_t to_ld;
} operands;
enum { PACK = 4, ALIGNED_LD = 8 }; /* 16 bytes, which tensor cores like best */

static __global__ void round_kernel(int64_t items, operands o, uint64_t *y)
{
    EACH_ITEM(i, items)
    {
        int64_t quads = o.to_ld / PACK, row = i / quads, col = i % quads * PACK;
        const float *x = o.x + row / o.rows * o.stride + row % o.rows * o.ld;
        uint64_t four = 0;
        for (int k = 0; k < PACK && col + k < o.cols; k++)
            four |= (uint64_t)nearest_bf16(x[col + k]) << 16 * k;
        y[i] = four;
    }
}

static operands operands_of(const void *x, bool turned, int64_t batch, int64_t rows, int64_t cols,
                            int64_t ld, int64_t stride)
{
    operands o = { (const float *)x,
                   stride ? batch : 1,
                   turned ? cols : rows,
                   turned ? rows : cols,
                   ld,
                   stride,
                   0 };
    o.to_ld = ceil_of(o.cols, ALIGNED_LD) * ALIGNED_LD;
    return o;
}
static int64_t numbers_of(const operands *o) { return o->batch * o->rows * o->to_ld; }

/* Make p a product of bf16 copies; false: there is no room for them. */
static bool round_operands(nsm_device *d, product *p)
{
    operands a = operands_of(p->a, p->ta, p->batch, p->m, p->k, p->lda, p->sa),
             b = operands_of(p->b, p->tb, p->batch, p->k, p->n, p->ldb, p->sb);
    size_t bytes = (size_t)(numbers_of(&a) + numbers_of(&b)) * sizeof(uint16_t);
    uint16_t *y = (uint16_t *)nsmi_cuda_grow(d, &state_of(d)->rounded, bytes);
    if (!y) return false;
    FOR_ITEMS(d, round_kernel, numbers_of(&a) / PACK, a, (uint64_t *)y);
    p->a = y;
    p->lda = a.to_ld;
    p->sa = p->sa ? a.rows * a.to_ld : 0;
    y += numbers_of(&a);
    FOR_ITEMS(d, round_kernel, numbers_of(&b) / PACK, b, (uint64_t *)y);
    p->b = y;
    p->ldb = b.to_ld;
    p->sb = p->sb ? b.rows * b.to_ld : 0;
    return true;
}

static void gemm_batch(nsm_device *d, bool ta, bool tb, int64_t batch, int64_t m, int64_t n,
                       int64_t k, float alpha, const float *a, int64_t lda, int64_t sa,
                       const float *b, int64_t ldb, int64_t sb, float beta, float *c, int64_t ldc,
                       int64_t sc)
{
    product p = { ta, tb, batch, m,   n,   k,  alpha, beta, a,
                  b,  c,  lda,   ldb, ldc, sa, sb,    sc,   d->precision };
    if (batch == 0 || m == 0 || n == 0) return;
    if (k == 0) FOR_ITEMS(d, scale_kernel, batch * m * n, p);
    else if (p.precision != NSM_PRECISION_BF16 || round_operands(d, &p)) multiply(d, &p);
}

static void gemm(nsm_device *d, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                 const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                 int64_t ldc)
{
    gemm_batch(d, ta, tb, 1, m, n, k, alpha, a, lda, 0, b, ldb, 0, beta, c, ldc, 0);
}

void nsmi_cuda_gemm(nsm_backend *be)
{
    be->gemm = gemm;
    be->gemm_batch = gemm_batch;
}
