/* kernels/cuda/replay.cu - What a stretch of calls asks of the stream, kept as a CUDA graph and
 * asked again by one launch.
 *
 * A graph's arguments stay what they were, but a step that is done again must draw other numbers:
 * while it is recorded, kernels get the address of a word beside their random offset, and every
 * replay writes there by how much the generator has moved on since (functions.h: draws). */
#include "kernels/cuda/cuda.h"
#include <stdlib.h>

typedef struct {
    cudaGraphExec_t all;
    char *constants; /* pinned, read at every launch */
    size_t room, filled;
} recording;

static void forget(nsm_device *d, void *what)
{
    recording *r = (recording *)what;
    if (r->all) nsmi_cuda_ok(d, cudaGraphExecDestroy(r->all));
    if (r->constants) cudaFreeHost(r->constants);
    free(r);
}

static bool record(nsm_device *d, int64_t bytes)
{
    nsmi_cuda_state *s = state_of(d);
    recording *r = (recording *)calloc(1, sizeof *r);
    if (!r) {
        nsmi_cuda_trouble(d, NSM_ENOMEM, "out of memory for %s", "a recording");
        return false;
    }
    r->room = (size_t)bytes;
    if ((bytes && !nsmi_cuda_ok(d, cudaMallocHost((void **)&r->constants, r->room))) ||
        !nsmi_cuda_ok(d, cudaStreamBeginCapture(s->stream, cudaStreamCaptureModeThreadLocal))) {
        forget(d, r);
        return false;
    }
    s->recording = r;
    return true;
}

static void *recorded(nsm_device *d)
{
    nsmi_cuda_state *s = state_of(d);
    recording *r = (recording *)s->recording;
    cudaGraph_t graph = NULL;
    s->recording = NULL;
    if (nsmi_cuda_ok(d, cudaStreamEndCapture(s->stream, &graph)))
        nsmi_cuda_ok(d, cudaGraphInstantiate(&r->all, graph, 0));
    if (graph) cudaGraphDestroy(graph);
    if (!d->trouble) return r;
    forget(d, r);
    return NULL;
}

static void constant(nsm_device *d, size_t bytes, const void *host, void *device)
{
    recording *r = (recording *)state_of(d)->recording;
    int64_t uploads = d->uploads;
    d->constants += (int64_t)bytes;
    if (r && bytes > r->room - r->filled) {
        nsmi_cuda_trouble(d, NSM_EDEVICE, "%s: more constants than before", "a recording");
    } else if (r) {
        char *at = r->constants + r->filled;
        r->filled += bytes;
        memcpy(at, host, bytes);
        nsmi_cuda_ok(d, cudaMemcpyAsync(device, at, bytes, cudaMemcpyHostToDevice, stream_of(d)));
    } else {
        d->be->to_device(d, bytes, host, device);
        d->uploads = uploads;
    }
}

static void replay(nsm_device *d, void *what, uint64_t draws)
{
    nsmi_cuda_state *s = state_of(d);
    if (draws != s->drawn) d->be->to_device(d, sizeof draws, &draws, s->draws);
    s->drawn = draws;
    nsmi_cuda_ok(d, cudaGraphLaunch(((recording *)what)->all, s->stream));
    s->looks = true; /* what was recorded may look at indices */
}

void nsmi_cuda_replay(nsm_backend *be)
{
    be->record = record;
    be->recorded = recorded;
    be->constant = constant;
    be->replay = replay;
    be->forget = forget;
}
