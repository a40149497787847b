/* kernels/cuda/copy.cu - Copies to the device that do not hold up the host.
 *
 * The driver reads only pinned memory at its own pace; from other memory it makes the caller wait.
 * So to_device() first lays the bytes in a ring of pinned stages, and the stream reads them there
 * when it comes to it: the host waits only where the ring is full of copies yet to be made.
 *
 * What is in pinned memory already (batches that a thread prepared) goes by a second stream, beside
 * the kernels of the first: it begins when what was asked of the device before is done, because the
 * memory it writes may have served that, and the first stream waits for it where it is told to. */
#include "kernels/cuda/cuda.h"
#include <stdio.h>

static void next_stage(nsm_device *d)
{
    nsmi_cuda_copies *c = &state_of(d)->copies;
    nsmi_cuda_ok(d, cudaEventRecord(c->staged[c->stage], stream_of(d)));
    c->busy[c->stage] = true;
    c->stage = (c->stage + 1) % NSMI_STAGES;
    if (c->busy[c->stage]) nsmi_cuda_ok(d, cudaEventSynchronize(c->staged[c->stage]));
    c->filled = 0;
}

static void to_device(nsm_device *d, size_t bytes, const void *host, void *device)
{
    nsmi_cuda_copies *c = &state_of(d)->copies;
    if (!nsmi_cuda_at_once(d, "a copy from the host")) return;
    d->uploads++;
    for (size_t done = 0, part; done < bytes; done += part) {
        if (c->filled >= NSMI_STAGE_BYTES) next_stage(d);
        part = bytes - done < NSMI_STAGE_BYTES - c->filled ? bytes - done
                                                           : NSMI_STAGE_BYTES - c->filled;
        char *at = c->ring + (size_t)c->stage * NSMI_STAGE_BYTES + c->filled;
        memcpy(at, (const char *)host + done, part);
        nsmi_cuda_ok(d, cudaMemcpyAsync((char *)device + done, at, part, cudaMemcpyHostToDevice,
                                        stream_of(d)));
        c->filled += (part + 63) & ~(size_t)63;
    }
}

static void *host_alloc(nsm_device *d, size_t bytes)
{
    void *p = NULL;
    (void)d;
    if (cudaMallocHost(&p, bytes) == cudaSuccess) return p;
    cudaGetLastError(); /* the caller says that memory is out */
    return NULL;
}

static void host_free(nsm_device *d, void *p)
{
    (void)d;
    if (p) cudaFreeHost(p);
}

static void send(nsm_device *d, int which, size_t bytes, const void *host, void *device)
{
    nsmi_cuda_copies *c = &state_of(d)->copies;
    if (!nsmi_cuda_at_once(d, "a batch that is sent")) return;
    d->uploads++;
    nsmi_cuda_ok(d, cudaEventRecord(c->asked, stream_of(d)));
    nsmi_cuda_ok(d, cudaStreamWaitEvent(c->stream, c->asked, 0));
    nsmi_cuda_ok(d, cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, c->stream));
    nsmi_cuda_ok(d, cudaEventRecord(c->sent[which], c->stream));
}

static void arrive(nsm_device *d, int which)
{
    nsmi_cuda_ok(d, cudaStreamWaitEvent(stream_of(d), state_of(d)->copies.sent[which], 0));
}

static void sent(nsm_device *d, int which)
{
    nsmi_cuda_ok(d, cudaEventSynchronize(state_of(d)->copies.sent[which]));
}

bool nsmi_cuda_copies_open(nsm_device *d, char *why, size_t why_bytes)
{
    nsmi_cuda_copies *c = &state_of(d)->copies;
    cudaError_t e = cudaMallocHost((void **)&c->ring, (size_t)NSMI_STAGES * NSMI_STAGE_BYTES);
    if (e == cudaSuccess) e = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    cudaEvent_t *event[1 + NSMI_STAGES + NSMI_SENDS] = { &c->asked };
    for (int i = 0; i < NSMI_STAGES; i++) event[1 + i] = &c->staged[i];
    for (int i = 0; i < NSMI_SENDS; i++) event[1 + NSMI_STAGES + i] = &c->sent[i];
    for (cudaEvent_t *one : event)
        if (e == cudaSuccess) e = cudaEventCreateWithFlags(one, cudaEventDisableTiming);
    if (e == cudaSuccess) return true;
    snprintf(why, why_bytes, "no memory for copies: %s", cudaGetErrorString(e));
    cudaGetLastError();
    return false;
}

/* After the device's stream has been waited for. */
void nsmi_cuda_copies_close(nsm_device *d)
{
    nsmi_cuda_copies *c = &state_of(d)->copies;
    if (c->stream) cudaStreamSynchronize(c->stream);
    if (c->stream) cudaStreamDestroy(c->stream);
    if (c->asked) cudaEventDestroy(c->asked);
    for (cudaEvent_t e : c->staged)
        if (e) cudaEventDestroy(e);
    for (cudaEvent_t e : c->sent)
        if (e) cudaEventDestroy(e);
    if (c->ring) cudaFreeHost(c->ring);
}

void nsmi_cuda_copy(nsm_backend *be)
{
    be->to_device = to_device;
    be->host_alloc = host_alloc;
    be->host_free = host_free;
    be->send = send;
    be->arrive = arrive;
    be->sent = sent;
}
