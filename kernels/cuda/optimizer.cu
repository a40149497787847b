/* kernels/cuda/optimizer.cu - One step of every optimizer: the rules of kernels/update.h.
 *
 * Tensors go to the kernel as its arguments, up to SLOTS a launch: nothing is copied before, and a
 * small model's step is one launch.  A block takes CHUNK numbers of one tensor.
 *
 * The norm of all gradients, and whether they are finite, stay with the device: blocks add squares
 * in double, one block adds the blocks' sums in their order and says what update() multiplies with,
 * or that it must not. */
#include "kernels/cuda/cuda.h"
#define NSMI_UPDATE_DEVICE __host__ __device__
#include "kernels/update.h"

#include <float.h>

enum { SLOTS = 20, CHUNK = 4 * BLOCK, GRADIENTS = 100, SQUARES = 4096 };

typedef struct {
    float *w, *s[3];
    const float *g;
    int64_t n, first; /* numbers; its first block */
    nsmi_constants k;
} entry;

typedef struct {
    nsmi_rule rule;
    int count;
    bool momentum;
    const double *verdict;
    entry slot[SLOTS];
} slots;
static_assert(sizeof(slots) <= 4000, "more than a launch takes as arguments");

static __device__ __forceinline__ void update_one(nsmi_rule rule, const entry &e,
                                                  const nsmi_constants *k, bool momentum, int64_t i)
{
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
    nsmi_constants k = e.k;
    if (b.verdict) {
        double scale = b.verdict[1];
        if (scale != scale) return;
        k.g_scale *= (float)scale;
    }
    int64_t first = ((int64_t)blockIdx.x - e.first) * CHUNK;
    for (int64_t i = first + threadIdx.x; i < e.n && i < first + CHUNK; i += BLOCK)
        update_one(b.rule, e, &k, b.momentum, i);
}

static void update(nsm_device *d, const nsmi_step *s, int64_t count, const nsmi_slot *slot)
{
    for (int64_t from = 0; from < count; from += SLOTS) {
        slots b;
        int64_t blocks = 0;
        b.rule = s->rule;
        b.count = (int)least(count - from, SLOTS);
        b.momentum = s->momentum != 0;
        b.verdict = s->verdict;
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

/* ---- the gradients of a step ---- */

typedef struct {
    const float *g;
    int64_t n, first;
    const char *name;
} gradient;
typedef struct {
    int count;
    gradient of[GRADIENTS];
} gradients;
static_assert(sizeof(gradients) <= 4000, "more than a launch takes as arguments");

typedef struct {
    double sum;
    const char *name;
} block_squares;

static __global__ void gradients_kernel(const gradients b, block_squares *to)
{
    int at = 0;
    while (at + 1 < b.count && b.of[at + 1].first <= (int64_t)blockIdx.x) at++;
    const gradient &e = b.of[at];
    int64_t first = ((int64_t)blockIdx.x - e.first) * SQUARES;
    double sum = 0;
    for (int64_t i = first + threadIdx.x; i < e.n && i < first + SQUARES; i += BLOCK)
        sum += (double)e.g[i] * (double)e.g[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) {
        to[blockIdx.x].sum = sum;
        to[blockIdx.x].name = e.name;
    }
}

/* One block.  Squares of finite numbers do not overflow in double: a sum that is not finite has a
 * gradient in it that is not. */
static __global__ void judge_kernel(int64_t blocks, const block_squares *of, nsmi_judgement how,
                                    double *verdict, nsmi_cuda_found *found)
{
    __shared__ int64_t bad[BLOCK];
    double sum = 0;
    bad[threadIdx.x] = blocks;
    for (int64_t i = threadIdx.x; i < blocks; i += BLOCK) {
        sum += of[i].sum;
        if (!(of[i].sum <= DBL_MAX) && i < bad[threadIdx.x]) bad[threadIdx.x] = i;
    }
    sum = block_sum(sum);
    if (threadIdx.x) return;
    double norm = sqrt(sum) * how.scale, by = how.limit / (norm + 1e-6);
    int64_t first = blocks;
    for (int t = 0; t < BLOCK; t++) first = least(first, bad[t]);
    if (how.check && !(norm <= DBL_MAX) && !found->step) {
        found->step = how.step;
        found->name = first < blocks ? of[first].name : NULL;
    }
    verdict[0] = norm;
    verdict[1] = how.limit > 0 && by < 1 ? how.scale * by : how.scale;
    if (how.check && found->step) verdict[1] = (double)not_a_number();
}

static void judge(nsm_device *d, const nsmi_judgement *how, int64_t count, const nsmi_slot *slot,
                  double *verdict)
{
    int64_t blocks = 0, done = 0;
    for (int64_t i = 0; i < count; i++) blocks += ceil_of(slot[i].n, SQUARES);
    block_squares *of = (block_squares *)nsmi_cuda_scratch(d, (size_t)blocks * sizeof *of);
    if (blocks && !of) return;
    for (int64_t from = 0; from < count; from += GRADIENTS) {
        gradients b;
        int64_t own = 0;
        b.count = (int)least(count - from, GRADIENTS);
        for (int i = 0; i < b.count; i++) {
            const nsmi_slot *p = &slot[from + i];
            b.of[i] = { p->g, p->n, own, p->name };
            own += ceil_of(p->n, SQUARES);
        }
        if (own) NSM_LAUNCH(gradients_kernel, (unsigned)own, BLOCK, stream_of(d), b, of + done);
        done += own;
    }
    NSM_LAUNCH(judge_kernel, 1, BLOCK, stream_of(d), blocks, of, *how, verdict, state_of(d)->found);
    launched(d);
    state_of(d)->looks = true;
}

void nsmi_cuda_optimizer(nsm_backend *be)
{
    be->update = update;
    be->judge = judge;
}
