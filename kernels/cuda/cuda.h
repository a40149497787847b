/* kernels/cuda/cuda.h - What the CUDA files share: the device's state, launches, sums over warps.
 *
 * Written in what CUDA C and C++17 have in common, so that the same files compile with nvcc and,
 * with emulate.h, with a C++ compiler.  One stream a device: kernels, copies and memory are ordered
 * by it (batches that come beside have a second: copy.cu), and nothing but to_host(),
 * sum_squares() and all_finite() makes the host wait; a training step needs of these only the copy
 * of its loss.  What is asked of the stream can be kept and asked again at once: replay.cu.
 *
 * Sums are cut by the shape alone and joined in a fixed order: no float atomics, the same bits
 * run after run, whatever the number of multiprocessors. */
#ifndef NSM_CUDA_H
#define NSM_CUDA_H
#if defined(NSM_EMULATE)
#include "kernels/cuda/emulate.h"
#define NSMI_SHARED static /* emulate.cc includes every file: a program may hold both backends */
#else
#define NSMI_SHARED
#include <cuda_runtime.h>
#define NSM_LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)
#define NSM_LAUNCH_SHARED(kernel, grid, block, bytes, stream, ...) \
    kernel<<<grid, block, bytes, stream>>>(__VA_ARGS__)
#endif
#define NSMI_DEVICE __host__ __device__
#include "kernels/backend.h"
#include "kernels/philox.h"

enum { BLOCK = 256, LANES = 32, WARPS = BLOCK / LANES, DIMS = 5 };

/* Plans of matrix products, by their shapes; kernels/cuda/gemm.cu. */
typedef struct nsmi_cuda_products nsmi_cuda_products;

/* Device memory that grows, and is used in the stream's order. */
typedef struct {
    void *p;
    size_t bytes;
} nsmi_cuda_room;

/* What kernels have found that the host has to hear of. */
typedef struct {
    unsigned long long wrong; /* place << 32 | index, the lowest out of range; all ones: none */
    int64_t step;             /* the optimizer's first whose gradients are not finite; 0: none */
    const char *name;         /* of whose gradient; NULL: of all together */
} nsmi_cuda_found;

/* kernels/cuda/copy.cu */
enum { NSMI_STAGES = 4, NSMI_STAGE_BYTES = 1 << 20 };
typedef struct {
    cudaStream_t stream;
    cudaEvent_t asked, sent[NSMI_SENDS]; /* what was asked before a copy; the copies */
    char *ring;                          /* [NSMI_STAGES, NSMI_STAGE_BYTES], pinned */
    int stage;                           /* the one that is being filled, */
    size_t filled;                       /* this far */
    cudaEvent_t staged[NSMI_STAGES];     /* copies from it; once it has been full: */
    bool busy[NSMI_STAGES];
} nsmi_cuda_copies;

typedef struct {
    cudaStream_t stream;
    int multiprocessors;
    char isa[16];            /* "sm_90" */
    /* one kernel's partial results; a product's operands in bf16 */
    nsmi_cuda_room scratch, rounded;
    nsmi_cuda_copies copies;
    void *recording;                     /* what is recorded now, or NULL: kernels/cuda/replay.cu */
    uint64_t *draws, drawn;              /* on the device, and what was written there last */
    nsmi_cuda_found *found, *found_host; /* on the device, and where it is read */
    bool looks;                          /* something may have been found since it was read */
    char sentence[256];                  /* what d->trouble points to */
    nsmi_cuda_products *products;
} nsmi_cuda_state;

static inline nsmi_cuda_state *state_of(const nsm_device *d) { return (nsmi_cuda_state *)d->impl; }
static inline cudaStream_t stream_of(const nsm_device *d) { return state_of(d)->stream; }

/* Leave trouble with the device unless there is some: base makes the context's error of it. */
NSMI_SHARED void nsmi_cuda_trouble(nsm_device *d, int code, const char *format, const char *text);
/* Look at a call's result, and at whether launches so far were accepted. */
NSMI_SHARED bool nsmi_cuda_ok(nsm_device *d, cudaError_t e);
static inline void launched(nsm_device *d) { nsmi_cuda_ok(d, cudaGetLastError()); }
/* May the host copy or wait now?  Not while it records: trouble. */
NSMI_SHARED bool nsmi_cuda_at_once(nsm_device *d, const char *what);

/* Device memory until the next call for the same room; NULL, and trouble, when memory is out. */
NSMI_SHARED void *nsmi_cuda_grow(nsm_device *d, nsmi_cuda_room *room, size_t bytes);
static inline void *nsmi_cuda_scratch(nsm_device *d, size_t bytes)
{
    return nsmi_cuda_grow(d, &state_of(d)->scratch, bytes);
}
static inline float *scratch_floats(nsm_device *d, int64_t n)
{
    return (float *)nsmi_cuda_scratch(d, (size_t)n * sizeof(float));
}

/* Each fills its part of the table. */
NSMI_SHARED void nsmi_cuda_copy(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_replay(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_gemm(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_elementwise(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_dense(nsm_backend *be);

NSMI_SHARED void nsmi_cuda_norm(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_loss(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_optimizer(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_sparse(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_gather(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_attention(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_attend(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_conv1d(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_recurrence(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_scan(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_rnn(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_memory(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_slots(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_pool(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_conv2d(nsm_backend *be);
NSMI_SHARED void nsmi_cuda_image(nsm_backend *be);

/* y [R, F] = beta y + per row of m the sum (mean) over its entries e of w[place of e] x[at[e]]; at
 * NULL: x[e]; w NULL: 1. */
NSMI_SHARED void nsmi_cuda_sum_rows(nsm_device *d, const nsm_csr_part *m, const int32_t *at,
                                    int64_t f, const float *w, bool mean, const float *x,
                                    float beta, float *y);

NSMI_SHARED bool nsmi_cuda_copies_open(nsm_device *d, char *why, size_t why_bytes);
NSMI_SHARED void nsmi_cuda_copies_close(nsm_device *d);
NSMI_SHARED bool nsmi_cuda_products_open(nsm_device *d, char *why, size_t why_bytes);
NSMI_SHARED void nsmi_cuda_products_close(nsm_device *d);

/* ---- launching over n items ---- */
static inline __host__ __device__ int64_t ceil_of(int64_t n, int64_t size)
{
    return (n + size - 1) / size;
}
static inline __host__ __device__ int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static inline __host__ __device__ int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Blocks for n items, one a thread: enough to fill the device, the rest by strides. */
static inline unsigned blocks_for(const nsm_device *d, int64_t n)
{
    return (unsigned)least(ceil_of(n, BLOCK), (int64_t)state_of(d)->multiprocessors * 32);
}

/* Blocks for n groups of `size` threads. */
static inline unsigned groups_of(int64_t n, int size) { return (unsigned)ceil_of(n * size, BLOCK); }

/* How a sum of n numbers, one for each of `results`, is cut: parts of `part` numbers, each a
 * thread's or a warp's.  From the shape alone. */
static inline void cut_sum(int64_t n, int64_t results, bool warp, int64_t *part, int64_t *parts)
{
    enum { ENOUGH = 1 << 16, MOST_PARTS = 2048, LEAST = 64 };
    int64_t enough = warp ? ENOUGH / LANES : ENOUGH, least_part = warp ? LEAST * LANES : LEAST;
    int64_t wanted = least(least(ceil_of(n, least_part), ceil_of(enough, results)), MOST_PARTS);
    *part = ceil_of(n, most(wanted, 1));
    *parts = n ? ceil_of(n, *part) : 1;
}

/* Run kernel over n items, if there are any. */
#define FOR_ITEMS(d, kernel, n, ...) \
    do { \
        if ((n) > 0) { \
            NSM_LAUNCH(kernel, blocks_for(d, n), BLOCK, stream_of(d), n, __VA_ARGS__); \
            launched(d); \
        } \
    } while (0)

/* In such a kernel: every item of this thread. */
#define EACH_ITEM(i, n) \
    for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < (n); \
         i += (int64_t)gridDim.x * BLOCK)

/* ---- in kernels ---- */
static __device__ __forceinline__ unsigned lane_of(void) { return threadIdx.x % LANES; }

static __device__ __forceinline__ float minus_infinity(void)
{
    return __int_as_float((int)0xff800000u);
}
static __device__ __forceinline__ float not_a_number(void) { return __int_as_float(0x7fc00000); }

static __device__ __forceinline__ float warp_sum(float v)
{
    for (int o = LANES / 2; o; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
    return v;
}

static __device__ __forceinline__ float warp_max(float v)
{
    for (int o = LANES / 2; o; o /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, v, o);
        v = other > v ? other : v;
    }
    return v;
}

/* The warp's sums of v[0..N], N a power of two of at most 32: lane l gets that of l % N.  Each step
 * gives half of the sums away, so it costs N + log(32 / N) shuffles where one after another would
 * cost 5 N. */
template <int N> static __device__ __forceinline__ float warp_sums(float v[N])
{
    const unsigned lane = lane_of();
    for (int half = N / 2; half; half /= 2) {
        const bool upper = lane & (unsigned)half;
        for (int i = 0; i < half; i++) {
            float give = upper ? v[i] : v[i + half], own = upper ? v[i + half] : v[i];
            v[i] = own + __shfl_xor_sync(0xffffffffu, give, half);
        }
    }
    for (int o = N; o < LANES; o *= 2) v[0] += __shfl_xor_sync(0xffffffffu, v[0], o);
    return v[0];
}

/* The group of threads that shares one row: a thread, a warp or a block.  The sum (the largest) of
 * all threads' v, for each of them. */
template <int G, typename Join>
static __device__ __forceinline__ float group_join(float v, Join join)
{
    if constexpr (G > LANES) {
        __shared__ float part[WARPS];
        __syncthreads();
        if (lane_of() == 0) part[threadIdx.x / LANES] = v;
        __syncthreads();
        v = part[0];
        for (int w = 1; w < WARPS; w++) v = join(v, part[w]);
    }
    return v;
}

template <int G> static __device__ __forceinline__ float group_sum(float v)
{
    return group_join<G>(G > 1 ? warp_sum(v) : v, [](float a, float b) { return a + b; });
}

template <int G> static __device__ __forceinline__ float group_max(float v)
{
    return group_join<G>(G > 1 ? warp_max(v) : v, [](float a, float b) { return b > a ? b : a; });
}

/* The group's number, and this thread's place in it. */
template <int G> static __device__ __forceinline__ int64_t group_number(void)
{
    return ((int64_t)blockIdx.x * BLOCK + threadIdx.x) / G;
}
template <int G> static __device__ __forceinline__ int group_place(void)
{
    return (int)(threadIdx.x % G);
}

/* The block's sum, for each of its threads. */
static __device__ __forceinline__ double block_sum(double v)
{
    __shared__ double part[BLOCK];
    __syncthreads();
    part[threadIdx.x] = v;
    __syncthreads();
    for (int o = BLOCK / 2; o; o /= 2) {
        if ((int)threadIdx.x < o) part[threadIdx.x] += part[threadIdx.x + o];
        __syncthreads();
    }
    return part[0];
}

/* Call launch<G>() with the group that suits rows of n numbers: strided rows are a thread's. */
#define WITH_GROUP(strided, n, call) \
    do { \
        if ((strided) || (n) <= 4) { enum { G = 1 }; call; } \
        else if ((n) <= 4096) { enum { G = LANES }; call; } \
        else { enum { G = BLOCK }; call; } \
    } while (0)

/* y = beta y + v, y not read where beta is 0 */
static __device__ __forceinline__ float blend(float beta, float y, float v)
{
    return beta == 0 ? v : beta * y + v;
}
static __device__ __forceinline__ void put(float *y, float beta, float v)
{
    *y = beta == 0 ? v : beta * *y + v;
}

static inline bool aligned(const void *p) { return ((uintptr_t)p & 15) == 0; }

#endif
