/* kernels/cuda/optimizer.cu - One step of every optimizer: the rules of kernels/update.h.
 *
 * Tensors go to the kernel as its arguments, up to SLOTS a launch: nothing is copied before, and a
 * small model's step is one launch.  A block takes CHUNK numbers of one tensor. */
#include "kernels/cuda/cuda.h"
#define NSMI_UPDATE_DEVICE __host__ __device__
#include "kernels/update.h"

enum { SLOTS = 20, CHUNK = 4 * BLOCK };

typedef struct {
    float *w, *s[3];
    const float *g;
    int64_t n, first; /* numbers; its first block */
    nsmi_constants k;
} entry;

typedef struct { nsmi_rule rule; int count; bool momentum; entry slot[SLOTS]; } slots;
static_assert(sizeof(slots) <= 4000, "more than a launch takes as arguments");

static __device__ __forceinline__ void update_one(nsmi_rule rule, const entry &e, bool momentum,
                                                  int64_t i)
{
    const nsmi_constants *k = &e.k;
    float w = e.w[i], g = e.g[i], s[3] = { 0, 0, 0 };
    for (int j = 0; j < 3; j++)
        if (e.s[j]) s[j] = e.s[j][i];
    switch (rule) {
    case NSMI_SGD: if (momentum) nsmi_sgd_momentum(k, &w, g, &s[0]); else nsmi_sgd(k, &w, g); break;
    case NSMI_ADAM: nsmi_adam(k, &w, g, &s[0], &s[1], k->amsgrad ? &s[2] : NULL); break;
    case NSMI_ADAMW: nsmi_adamw(k, &w, g, &s[0], &s[1], k->amsgrad ? &s[2] : NULL); break;
    case NSMI_RMSPROP: nsmi_rmsprop(k, &w, g, &s[0], &s[1], &s[2]); break;
    case NSMI_ADAGRAD: nsmi_adagrad(k, &w, g, &s[0]); break;
    case NSMI_ADADELTA: nsmi_adadelta(k, &w, g, &s[0], &s[1]); break;
    case NSMI_NADAM: nsmi_nadam(k, &w, g, &s[0], &s[1]); break;
    case NSMI_RADAM: nsmi_radam(k, &w, g, &s[0], &s[1]); break;
    case NSMI_LION: nsmi_lion(k, &w, g, &s[0]); break;
    }
    e.w[i] = w;
    for (int j = 0; j < 3; j++)
        if (e.s[j]) e.s[j][i] = s[j];
}

static __global__ void update_kernel(const slots b)
{
    int at = 0;
    while (at + 1 < b.count && b.slot[at + 1].first <= (int64_t)blockIdx.x) at++;
    const entry &e = b.slot[at];
    int64_t first = ((int64_t)blockIdx.x - e.first) * CHUNK;
    for (int64_t i = first + threadIdx.x; i < e.n && i < first + CHUNK; i += BLOCK)
        update_one(b.rule, e, b.momentum, i);
}

static void update(nsm_device *d, const nsmi_step *s, int64_t count, const nsmi_slot *slot)
{
    for (int64_t from = 0; from < count; from += SLOTS) {
        slots b;
        int64_t blocks = 0;
        b.rule = s->rule;
        b.count = (int)least(count - from, SLOTS);
        b.momentum = s->momentum != 0;
        for (int i = 0; i < b.count; i++) {
            const nsmi_slot *p = &slot[from + i];
            entry *e = &b.slot[i];
            e->w = p->w;
            e->g = p->g;
            e->n = p->n;
            e->first = blocks;
            e->k = nsmi_constants_of(s, p);
            for (int j = 0; j < 3; j++) e->s[j] = p->s[j];
            blocks += ceil_of(p->n, CHUNK);
        }
        if (blocks == 0) continue;
        NSM_LAUNCH(update_kernel, (unsigned)blocks, BLOCK, stream_of(d), b);
        launched(d);
    }
}

void nsmi_cuda_optimizer(nsm_backend *be) { be->update = update; }
