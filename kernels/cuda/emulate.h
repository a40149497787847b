/* kernels/cuda/emulate.h - As much of CUDA as the kernels here use, in C++ on the host.
 *
 * The .cu files compile unchanged against this header with any C++17 compiler, so their kernels run
 * where there is no GPU: for tests, not for speed.  A launch runs its blocks one after another in
 * a shuffled order; the threads of a block are fibres (emulate.cc), run in a shuffled order, each
 * until it waits for others.  Threads that wait for different things - two barriers, a barrier and
 * a shuffle, a shuffle that some lane never reaches - end the program with a message.
 *
 * A copy from pinned memory is made late: when its stream is asked for something else, or its event
 * is waited for.  Device memory is a range of addresses that only kernels and copies may touch: the
 * host that reads it faults, as with a GPU, and a kernel given a host pointer ends the program.
 *
 * While a stream is captured nothing runs; launches, fills and copies within the device become a
 * graph with the arguments they had, and what else is asked of the stream ends the program. */
#ifndef NSM_CUDA_EMULATE_H
#define NSM_CUDA_EMULATE_H
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <new>
#include <tuple>
#include <type_traits>

#define NSM_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static /* blocks run one after another */
#define __align__(n) alignas(n)

struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) int4 { int x, y, z, w; };
static inline float4 make_float4(float x, float y, float z, float w)
{
    return float4{ x, y, z, w };
}

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};
struct uint3 { unsigned x, y, z; };

/* Where the running thread stands. */
struct nsm_emulated_thread { uint3 thread, block, block_dim, grid_dim; };
extern nsm_emulated_thread nsm_emulated_now;
#define threadIdx (nsm_emulated_now.thread)
#define blockIdx (nsm_emulated_now.block)
#define blockDim (nsm_emulated_now.block_dim)
#define gridDim (nsm_emulated_now.grid_dim)

/* ---- waiting for others ---- */
void nsm_emulated_barrier(const char *file, int line);
/* Deposit `mine` and wait for every lane of mask; returns the 32 lanes' deposits. */
const uint64_t *nsm_emulated_exchange(unsigned mask, uint64_t mine, const char *file, int line);
unsigned nsm_emulated_lane(void);

#define __syncthreads() nsm_emulated_barrier(__FILE__, __LINE__)
[[noreturn]] void nsm_emulated_fail(const char *what);

/* A copy of 16 bytes (from NULL: of zeros) that is made when its thread waits for its copies. */
void nsm_emulated_copy_late(void *to, const void *from);
void nsm_emulated_copies_wait(void);

template <class T> static inline uint64_t nsm_emulated_pack(T v)
{
    static_assert(sizeof v <= sizeof(uint64_t) && std::is_trivially_copyable<T>::value, "a number");
    uint64_t bits = 0;
    memcpy(&bits, &v, sizeof v);
    return bits;
}

template <class T>
static inline T nsm_emulated_shuffle(unsigned mask, T v, unsigned from, const char *file, int line)
{
    const uint64_t *lanes = nsm_emulated_exchange(mask, nsm_emulated_pack(v), file, line);
    memcpy((void *)&v, &lanes[from & 31], sizeof v);
    return v;
}
#define __shfl_sync(mask, v, lane) \
    nsm_emulated_shuffle(mask, v, (unsigned)(lane), __FILE__, __LINE__)
#define __shfl_xor_sync(mask, v, bits) \
    nsm_emulated_shuffle(mask, v, nsm_emulated_lane() ^ (unsigned)(bits), __FILE__, __LINE__)
/* Past the last lane a thread gets its own value back. */
#define __shfl_down_sync(mask, v, by) \
    nsm_emulated_shuffle(mask, v, \
                         nsm_emulated_lane() + (unsigned)(by) < 32 \
                             ? nsm_emulated_lane() + (unsigned)(by) \
                             : nsm_emulated_lane(), \
                         __FILE__, __LINE__)

static inline unsigned nsm_emulated_ballot(unsigned mask, bool yes, const char *file, int line)
{
    const uint64_t *lanes = nsm_emulated_exchange(mask, yes, file, line);
    unsigned votes = 0;
    for (unsigned i = 0; i < 32; i++)
        if (mask >> i & 1 && lanes[i]) votes |= 1u << i;
    return votes;
}
#define __ballot_sync(mask, yes) nsm_emulated_ballot(mask, yes, __FILE__, __LINE__)
#define __any_sync(mask, yes) (__ballot_sync(mask, yes) != 0)
#define __all_sync(mask, yes) (__ballot_sync(mask, yes) == (mask))
#define __syncwarp(...) ((void)nsm_emulated_exchange(0xffffffffu, 0, __FILE__, __LINE__))

/* ---- small things ---- */
template <class T> static inline T __ldg(const T *p) { return *p; }
static inline int min(int a, int b) { return a < b ? a : b; }
static inline int max(int a, int b) { return a > b ? a : b; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline float rsqrtf(float x) { return 1 / sqrtf(x); }
static inline void sincosf_pair(float x, float *s, float *c) { *s = sinf(x), *c = cosf(x); }
static inline float __int_as_float(int bits) { float x; memcpy(&x, &bits, sizeof x); return x; }
static inline int __float_as_int(float x) { int bits; memcpy(&bits, &x, sizeof bits); return bits; }
static inline int atomicMax(int *p, int v) { int old = *p; if (v > old) *p = v; return old; }
static inline int atomicAdd(int *p, int v) { int old = *p; *p += v; return old; }
static inline unsigned atomicAdd(unsigned *p, unsigned v)
{
    unsigned old = *p;
    *p += v;
    return old;
}
static inline unsigned long long atomicMin(unsigned long long *p, unsigned long long v)
{
    unsigned long long old = *p;
    if (v < old) *p = v;
    return old;
}

/* ---- launching ---- */
typedef struct nsm_emulated_stream *cudaStream_t;
/* shared: bytes of shared memory that the launch asks for. */
void nsm_emulated_run(cudaStream_t stream, dim3 grid, dim3 block, size_t shared,
                      void (*thread)(const void *what), const void *what);
void nsm_emulated_argument(const void *p, const char *kernel);

template <class T> static inline void nsm_emulated_check(const char *kernel, const T &v)
{
    if constexpr (std::is_pointer<T>::value) nsm_emulated_argument((const void *)v, kernel);
    (void)kernel;
    (void)v;
}

/* Has the stream's work to go into a graph? */
bool nsm_emulated_capturing(cudaStream_t stream);

/* Work that was captured, by malloc(); what it needs lies behind it. */
struct nsm_emulated_work {
    void (*run)(const nsm_emulated_work *w);
    nsm_emulated_work *next;
};
void nsm_emulated_add(cudaStream_t stream, nsm_emulated_work *w);

template <class Run> static inline void nsm_emulated_keep(cudaStream_t stream, const Run &run)
{
    static_assert(std::is_trivially_destructible<Run>::value, "free() is all that is called");
    struct work { nsm_emulated_work base; Run run; };
    void *room = aligned_alloc(64, (sizeof(work) + 63) / 64 * 64);
    auto call = [](const nsm_emulated_work *w) { ((const work *)w)->run(); };
    nsm_emulated_add(stream, room ? &(new (room) work{ { call, nullptr }, run })->base : nullptr);
}

template <class Thread>
static inline void nsm_emulated_launch(cudaStream_t stream, dim3 grid, dim3 block, size_t shared,
                                       const Thread &thread)
{
    auto call = [](const void *job) { (*(const Thread *)job)(); };
    if (nsm_emulated_capturing(stream))
        nsm_emulated_keep(
            stream, [=] { nsm_emulated_run(stream, grid, block, shared, call, &thread); });
    else nsm_emulated_run(stream, grid, block, shared, call, &thread);
}

template <class... A> static inline void nsm_emulated_check_all(const char *kernel, const A &...v)
{
    (nsm_emulated_check(kernel, v), ...);
}

#define NSM_LAUNCH(kernel, grid, block, stream, ...) \
    NSM_LAUNCH_SHARED(kernel, grid, block, 0, stream, __VA_ARGS__)

/* With shared memory of a size that the launch says: filled with NaN for each block. */
enum { NSM_EMULATED_SHARED = 99 << 10 };
extern char nsm_emulated_shared[NSM_EMULATED_SHARED];
#define NSM_LAUNCH_SHARED(kernel, grid, block, bytes, stream, ...) \
    do { \
        nsm_emulated_check_all(#kernel, __VA_ARGS__); \
        auto nsm_given = std::make_tuple(__VA_ARGS__); \
        nsm_emulated_launch(stream, grid, block, bytes, [=] { \
            std::apply([&](const auto &...nsm_each) { kernel(nsm_each...); }, nsm_given); \
        }); \
    } while (0)

/* ---- the runtime's calls ---- */
typedef int cudaError_t;
typedef struct nsm_emulated_event *cudaEvent_t;
typedef struct nsm_emulated_pool *cudaMemPool_t;
typedef struct nsm_emulated_graph *cudaGraph_t, *cudaGraphExec_t;
enum { cudaSuccess, cudaErrorMemoryAllocation = 2, cudaErrorInvalidValue = 1 };
enum cudaMemcpyKind {
    cudaMemcpyHostToDevice = 1,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice
};
enum { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaMemPoolAttrReleaseThreshold = 4 };
struct cudaDeviceProp {
    char name[64];
    int major, minor, multiProcessorCount, memoryPoolsSupported;
};

cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t stream);
cudaError_t cudaFreeAsync(void *p, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaMallocHost(void **p, size_t bytes);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
enum { cudaStreamCaptureModeThreadLocal = 1 };
cudaError_t cudaStreamBeginCapture(cudaStream_t s, int mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *all, cudaGraph_t graph, unsigned long long flags);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphLaunch(cudaGraphExec_t all, cudaStream_t s);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t all);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
static inline cudaError_t cudaGetDeviceCount(int *n) { *n = 1; return cudaSuccess; }
static inline cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
static inline cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *pool, int)
{
    *pool = nullptr;
    return cudaSuccess;
}
static inline cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, int, void *)
{
    return cudaSuccess;
}
template <class F> static inline cudaError_t cudaFuncSetAttribute(F, int, size_t bytes)
{
    return bytes <= NSM_EMULATED_SHARED ? cudaSuccess : cudaErrorInvalidValue;
}
static inline cudaError_t cudaGetLastError(void) { return cudaSuccess; }
static inline const char *cudaGetErrorString(cudaError_t e)
{
    return e == cudaErrorMemoryAllocation ? "out of memory" : "an error";
}

#endif
