/* kernels/cuda/backend.cu - A GPU as a device: opening it, memory, copies, and what went wrong.
 *
 * Memory comes from the driver's stream-ordered pool, which keeps what is given back, so neither
 * asking for it nor giving it back waits.  Kernels cannot report: a launch that fails, scratch
 * memory that is out, an entry that is not written yet leave trouble with the device, and base
 * turns that into the context's error.  An index out of range, or a gradient that is not finite, is
 * found on the device and read with the next copy to the host.
 *
 * The runtime library is linked in and looks for the driver itself, libcublasLt is loaded in
 * open(): the same program runs where there is neither. */
#include "kernels/cuda/cuda.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(NSM_EMULATE)
#define TABLE nsmi_emulated
#define NAME "emulated"
#else
#define TABLE nsmi_cuda
#define NAME "cuda"
#endif

void nsmi_cuda_trouble(nsm_device *d, int code, const char *format, const char *text)
{
    nsmi_cuda_state *s = state_of(d);
    if (d->trouble) return;
    snprintf(s->sentence, sizeof s->sentence, format, text);
    d->error = code;
    d->trouble = s->sentence;
}

bool nsmi_cuda_ok(nsm_device *d, cudaError_t e)
{
    if (e == cudaSuccess) return true;
    nsmi_cuda_trouble(d, NSM_EDEVICE, "the GPU reports: %s", cudaGetErrorString(e));
    return false;
}

bool nsmi_cuda_at_once(nsm_device *d, const char *what)
{
    if (state_of(d)->recording)
        nsmi_cuda_trouble(d, NSM_EDEVICE, "%s cannot be part of what is replayed", what);
    return state_of(d)->recording == NULL;
}

void *nsmi_cuda_grow(nsm_device *d, nsmi_cuda_room *room, size_t bytes)
{
    cudaStream_t stream = stream_of(d);
    if (bytes <= room->bytes) return room->p;
    if (!nsmi_cuda_at_once(d, "more room for partial results")) return NULL;
    d->moves++;
    if (room->p) nsmi_cuda_ok(d, cudaFreeAsync(room->p, stream));
    *room = { NULL, 0 };
    if (cudaMallocAsync(&room->p, bytes, stream) != cudaSuccess) {
        cudaGetLastError(); /* it is told below */
        room->p = NULL;
        nsmi_cuda_trouble(d, NSM_ENOMEM, "out of memory for %s results", "partial");
        return NULL;
    }
    room->bytes = bytes;
    return room->p;
}

/* ---- memory and copies ---- */

static void *cuda_alloc(nsm_device *d, size_t bytes)
{
    void *p = NULL;
    if (cudaMallocAsync(&p, bytes ? bytes : 1, stream_of(d)) == cudaSuccess) return p;
    cudaGetLastError(); /* the caller says that memory is out */
    return NULL;
}

static void cuda_release(nsm_device *d, void *p, size_t bytes)
{
    (void)bytes;
    nsmi_cuda_ok(d, cudaFreeAsync(p, stream_of(d)));
}

/* ---- what kernels find ---- */
static const nsmi_cuda_found nothing = { ~0ull, 0, NULL };

static __global__ void check_indices(int64_t n, const int32_t *index, int64_t limit, int64_t also,
                                     unsigned long long *wrong)
{
    EACH_ITEM(i, n)
        if ((index[i] < 0 || index[i] >= limit) && (index[i] != also || also == INT32_MIN))
            atomicMin(wrong, (unsigned long long)i << 32 | (unsigned)index[i]);
}

static void cuda_check_index(nsm_device *d, int64_t n, const int32_t *index, int64_t limit,
                             int64_t also)
{
    FOR_ITEMS(d, check_indices, n, index, limit, also, &state_of(d)->found->wrong);
    state_of(d)->looks = true;
}

/* After the stream has been waited for, with what was found copied along. */
static void tell(nsm_device *d)
{
    nsmi_cuda_state *s = state_of(d);
    const nsmi_cuda_found *f = s->found_host;
    char text[200];
    s->looks = false;
    if (f->wrong == nothing.wrong && !f->step) return;
    if (f->wrong != nothing.wrong) {
        snprintf(text, sizeof text, "%llu is %d, which is out of range", f->wrong >> 32,
                 (int)(unsigned)f->wrong);
        nsmi_cuda_trouble(d, NSM_EINVAL, "an op since the last copy to the host: index %s", text);
    }
    if (f->step) {
        snprintf(text, sizeof text, "the gradient of %.120s is not finite in step %lld",
                 f->name ? f->name : "all tensors", (long long)f->step);
        nsmi_cuda_trouble(d, NSM_ENUMBER, "an optimizer since the last copy to the host: %s", text);
    }
    *s->found_host = nothing;
    nsmi_cuda_ok(d, cudaMemcpyAsync(s->found, s->found_host, sizeof nothing, cudaMemcpyHostToDevice,
                                    s->stream));
}

static void cuda_sync(nsm_device *d)
{
    nsmi_cuda_state *s = state_of(d);
    bool looks = s->looks;
    if (!nsmi_cuda_at_once(d, "waiting for the device")) return;
    if (looks)
        nsmi_cuda_ok(d, cudaMemcpyAsync(s->found_host, s->found, sizeof *s->found,
                                        cudaMemcpyDeviceToHost, s->stream));
    nsmi_cuda_ok(d, cudaStreamSynchronize(s->stream));
    d->waits++;
    if (looks) tell(d);
}

static void cuda_to_host(nsm_device *d, size_t bytes, const void *device, void *host)
{
    if (!nsmi_cuda_at_once(d, "a copy to the host")) return;
    if (bytes)
        nsmi_cuda_ok(d, cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_of(d)));
    cuda_sync(d);
}

static void cuda_copy(nsm_device *d, size_t bytes, const void *from, void *to)
{
    if (bytes)
        nsmi_cuda_ok(d, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream_of(d)));
}

static void cuda_zero(nsm_device *d, size_t bytes, void *p)
{
    if (bytes) nsmi_cuda_ok(d, cudaMemsetAsync(p, 0, bytes, stream_of(d)));
}

/* ---- the table ---- */

/* Stands where a kernel is not written yet.  Whatever the entry's arguments are, the first is the
 * device, and in every calling convention this is built for the caller clears them away. */
static void lacking(nsm_device *d)
{
    nsmi_cuda_trouble(d, NSM_EDEVICE, "the backend %s has no kernel for it", d->be->name);
}

static nsm_backend table;
static pthread_once_t filled = PTHREAD_ONCE_INIT;

static void fill_table(void)
{
    typedef void (*entry)(nsm_device *);
    table = TABLE;
    table.check_index = cuda_check_index;
    table.precisions = true;
    nsmi_cuda_copy(&table);
    nsmi_cuda_replay(&table);
    nsmi_cuda_gemm(&table);
    nsmi_cuda_elementwise(&table);
    nsmi_cuda_dense(&table);
    nsmi_cuda_norm(&table);
    nsmi_cuda_loss(&table);
    nsmi_cuda_optimizer(&table);
    nsmi_cuda_sparse(&table);
    nsmi_cuda_gather(&table);
    nsmi_cuda_attention(&table);
    nsmi_cuda_attend(&table);
    nsmi_cuda_conv1d(&table);
    nsmi_cuda_recurrence(&table);
    nsmi_cuda_scan(&table);
    nsmi_cuda_rnn(&table);
    nsmi_cuda_memory(&table);
    nsmi_cuda_slots(&table);
    nsmi_cuda_pool(&table);
    nsmi_cuda_conv2d(&table);
    nsmi_cuda_image(&table);
    entry *at = (entry *)(void *)&table.gemm, *end = (entry *)(void *)(&table + 1);
    for (; at < end; at++)
        if (!*at) *at = lacking;
}

static bool open_device(nsm_device *d, char *why, size_t why_bytes)
{
    nsmi_cuda_state *s = state_of(d);
    int count = 0, device = 0;
    cudaDeviceProp prop;
    cudaMemPool_t pool;
    uint64_t keep = ~(uint64_t)0;
    cudaError_t e = cudaGetDeviceCount(&count);
    if (e == cudaSuccess && count == 0) {
        snprintf(why, why_bytes, "there is no GPU");
        return false;
    }
    if (e == cudaSuccess) e = cudaGetDevice(&device);
    if (e == cudaSuccess) e = cudaGetDeviceProperties(&prop, device);
    if (e == cudaSuccess && !prop.memoryPoolsSupported) {
        snprintf(why, why_bytes, "%.100s has no stream-ordered memory", prop.name);
        return false;
    }
    if (e == cudaSuccess) e = cudaStreamCreateWithFlags(&s->stream, cudaStreamNonBlocking);
    if (e == cudaSuccess) e = cudaDeviceGetDefaultMemPool(&pool, device);
    if (e == cudaSuccess) e = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep);
    if (e == cudaSuccess) e = cudaMallocAsync((void **)&s->found, sizeof *s->found, s->stream);
    if (e == cudaSuccess) e = cudaMallocHost((void **)&s->found_host, sizeof *s->found_host);
    if (e == cudaSuccess) e = cudaMallocAsync((void **)&s->draws, sizeof *s->draws, s->stream);
    if (e == cudaSuccess) {
        s->drawn = UINT64_MAX;
        *s->found_host = nothing;
        e = cudaMemcpyAsync(s->found, s->found_host, sizeof nothing, cudaMemcpyHostToDevice,
                            s->stream);
    }
    if (e != cudaSuccess) {
        snprintf(why, why_bytes, "no GPU can be used: %s", cudaGetErrorString(e));
        cudaGetLastError();
        return false;
    }
    s->multiprocessors = prop.multiProcessorCount;
    snprintf(s->isa, sizeof s->isa, "sm_%d%d", prop.major, prop.minor);
    return true;
}

static void cuda_close(nsm_device *d)
{
    nsmi_cuda_state *s = state_of(d);
    if (!s) return;
    nsmi_cuda_products_close(d);
    if (s->scratch.p) cudaFreeAsync(s->scratch.p, s->stream);
    if (s->rounded.p) cudaFreeAsync(s->rounded.p, s->stream);
    if (s->found) cudaFreeAsync(s->found, s->stream);
    if (s->draws) cudaFreeAsync(s->draws, s->stream);
    if (s->stream) cudaStreamSynchronize(s->stream);
    nsmi_cuda_copies_close(d);
    if (s->found_host) cudaFreeHost(s->found_host);
    if (s->stream) cudaStreamDestroy(s->stream);
    free(s);
    d->impl = NULL;
}

static int cuda_open(nsm_device *d, char *why, size_t why_bytes)
{
    pthread_once(&filled, fill_table);
    d->impl = calloc(1, sizeof(nsmi_cuda_state));
    if (!d->impl) {
        snprintf(why, why_bytes, "out of memory");
        return -1;
    }
    if (!open_device(d, why, why_bytes) || !nsmi_cuda_copies_open(d, why, why_bytes) ||
        !nsmi_cuda_products_open(d, why, why_bytes)) {
        cuda_close(d);
        return -1;
    }
    d->be = &table;
    d->isa_name = state_of(d)->isa;
    return 0;
}

/* What open() needs; the rest is filled in then. */
extern "C" const nsm_backend TABLE = {
    NAME, cuda_open,    cuda_close, cuda_alloc, cuda_release,
    NULL, cuda_to_host, cuda_copy,  cuda_zero,  cuda_sync,
};
