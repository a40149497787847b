/* kernels/cuda/pool.cu - Pools of states over sets: age, open, route.
 *
 * Opening is farthest first (kernels/cpu/pool.c): each of at most s steps takes the element least
 * near to any living state, ties to the lowest place, and measures all others against its key.  A
 * step of a small set is a block's, and the block goes on to the next; of a large set each block
 * has a part of the elements, a step is a launch, and every block joins what the parts of the step
 * before found, in order.  A warp takes an element, so that its key is read along its length.
 *
 * Letters: B sets, n elements, s states, D size of a key. */
#include "kernels/cuda/rows.h"

/* ---- age ---- */
static __global__ void age_kernel(int64_t n, nsmi_pool c, float *usage, uint8_t *alive, float *kept)
{
    EACH_ITEM(i, n) {
        float left = usage[i] * c.rho;
        bool gone = alive[i] && i % c.slots >= c.learned && left < c.tau_prune;
        usage[i] = gone ? 0 : left;
        if (gone) alive[i] = 0;
        kept[i] = gone ? 0 : 1;
    }
}

static void pool_age(nsm_device *d, const nsmi_pool *c, float *usage, uint8_t *alive, float *kept)
{
    FOR_ITEMS(d, age_kernel, c->batch * c->slots, *c, usage, alive, kept);
}

/* ---- open ---- */
/* An element and how near it is to the nearest state. */
typedef struct { float near; int32_t at; } candidate;

static __device__ __forceinline__ candidate farther(candidate a, candidate b)
{
    bool second = b.near < a.near || (b.near == a.near && b.at < a.at);
    return second ? b : a;
}

/* The farthest of the block's threads' candidates, for each of them. */
static __device__ candidate farthest_of_block(candidate v)
{
    __shared__ candidate part[WARPS];
    for (int o = LANES / 2; o; o /= 2) {
        candidate other = { __shfl_xor_sync(0xffffffffu, v.near, o),
                            __shfl_xor_sync(0xffffffffu, v.at, o) };
        v = farther(v, other);
    }
    __syncthreads();
    if (lane_of() == 0) part[threadIdx.x / LANES] = v;
    __syncthreads();
    v = part[0];
    for (int w = 1; w < WARPS; w++) v = farther(v, part[w]);
    return v;
}

typedef struct {
    nsmi_pool c;
    const float *k, *key;
    const uint8_t *alive; /* as it was at the start */
    float *near;
    int32_t *opened, *owner;
    int32_t *dead;        /* [B, s] the dead states in their order, then -1 */
    candidate *found;     /* [2, B, parts] what a step's parts found, this one's and the last's */
    int64_t parts;        /* of a set */
} opening;

static __global__ void dead_kernel(int64_t n, opening o)
{
    EACH_ITEM(b, n) {
        int64_t s = o.c.slots, count = 0;
        for (int64_t i = 0; i < s; i++) {
            o.owner[b * s + i] = o.dead[b * s + i] = -1;
            if (!o.alive[b * s + i]) o.dead[b * s + count++] = (int32_t)i;
        }
    }
}

/* How near an element is to the nearest state alive at the start; for a whole warp. */
static __device__ float near_at_first(const opening &o, int64_t b, int64_t j)
{
    const float *k = o.k + (b * o.c.tokens + j) * o.c.size;
    float near = minus_infinity();
    for (int64_t i = b * o.c.slots; i < (b + 1) * o.c.slots; i++) {
        float c = o.alive[i] ? dot_warp(k, o.key + i * o.c.size, o.c.size) : near;
        if (c > near) near = c;
    }
    return o.c.there && !o.c.there[b * o.c.tokens + j] ? -minus_infinity() : near;
}

/* One part's share of step t of set b, by a block: t states may have been opened before. */
static __device__ void open_step(const opening &o, int64_t b, int64_t part, int64_t t)
{
    const int64_t n = o.c.tokens, size = ceil_of(n, o.parts), last = least((part + 1) * size, n),
                  sets = o.c.batch * o.parts;
    candidate *now = o.found + t % 2 * sets + b * o.parts;
    const candidate *before = o.found + (t + 1) % 2 * sets + b * o.parts;
    const float *key = NULL;
    candidate v = { -minus_infinity(), INT32_MAX };
    if (t > 0) {
        for (int64_t p = threadIdx.x; p < o.parts; p += BLOCK) v = farther(v, before[p]);
        v = farthest_of_block(v);
        int32_t slot = o.dead[b * o.c.slots + t - 1];
        if (slot < 0 || !(v.near < o.c.tau_new)) {
            if (threadIdx.x == 0) now[part] = before[part];
            return;
        }
        key = o.k + (b * n + v.at) * o.c.size;
        if (part == 0 && threadIdx.x == 0) {
            o.owner[b * o.c.slots + slot] = v.at;
            o.opened[b * n + v.at] = slot;
        }
    }
    v = { -minus_infinity(), INT32_MAX };
    for (int64_t j = part * size + threadIdx.x / LANES; j < last; j += WARPS) {
        float *near = o.near + b * n + j, seen = key ? *near : near_at_first(o, b, j);
        float c = key ? dot_warp(o.k + (b * n + j) * o.c.size, key, o.c.size) : seen;
        if (c > seen) seen = c;
        __syncwarp();
        if (lane_of() == 0) *near = seen;
        if (!key && lane_of() == 0) o.opened[b * n + j] = -1;
        v = farther(v, { seen, (int32_t)j });
    }
    v = farthest_of_block(v);
    if (threadIdx.x == 0) now[part] = v;
}

static __global__ void open_kernel(opening o)
{
    for (int64_t t = 0; t <= o.c.slots; t++) {
        open_step(o, blockIdx.x, 0, t);
        __syncthreads();
    }
}

static __global__ void open_step_kernel(opening o, int64_t t)
{
    open_step(o, blockIdx.x / o.parts, blockIdx.x % o.parts, t);
}

/* The pool as it is then. */
static __global__ void opened_kernel(int64_t n, opening o, uint8_t *alive, float *next, float *shut)
{
    EACH_ITEM(i, n) {
        int64_t at = i / o.c.size, b = at / o.c.slots, owner = o.owner[at];
        next[i] = o.key[i];
        if (owner >= 0) next[i] += o.k[(b * o.c.tokens + owner) * o.c.size + i % o.c.size];
        if (i % o.c.size) continue;
        if (owner >= 0) alive[at] = 1;
        shut[at] = alive[at] ? 0 : minus_infinity();
    }
}

static void pool_open(nsm_device *d, const nsmi_pool *c, const float *k, const float *key,
                      uint8_t *alive, float *near, int32_t *opened, int32_t *owner, float *next,
                      float *shut)
{
    enum { PART = 4096 }; /* elements of a block that has no others beside it */
    opening o = { *c, k, key, alive, near, opened, owner, NULL, NULL, 1 };
    if (c->batch * c->slots == 0) return;
    if (c->tokens > PART)
        o.parts = most(1, least(ceil_of(c->tokens, PART / 8),
                                state_of(d)->multiprocessors * 4 / c->batch));
    int64_t found = 2 * c->batch * o.parts * (int64_t)sizeof *o.found;
    char *room = (char *)nsmi_cuda_scratch(
        d, (size_t)(found + c->batch * c->slots * (int64_t)sizeof *o.dead));
    if (!room) return;
    o.found = (candidate *)room;
    o.dead = (int32_t *)(room + found);
    FOR_ITEMS(d, dead_kernel, c->batch, o);
    if (o.parts == 1) {
        NSM_LAUNCH(open_kernel, (unsigned)c->batch, BLOCK, stream_of(d), o);
    } else {
        for (int64_t t = 0; t <= c->slots; t++)
            NSM_LAUNCH(open_step_kernel, (unsigned)(c->batch * o.parts), BLOCK, stream_of(d), o, t);
    }
    launched(d);
    FOR_ITEMS(d, opened_kernel, c->batch * c->slots * c->size, o, alive, next, shut);
}

/* A column of a set: two states may be one element's, so their sums are one thread's. */
static __global__ void open_back_kernel(int64_t n, nsmi_pool c, const int32_t *owner,
                                        const float *dnext, float *dk, float *dkey)
{
    EACH_ITEM(i, n) {
        int64_t b = i / c.size, col = i % c.size;
        for (int64_t at = b * c.slots; at < (b + 1) * c.slots; at++) {
            float from = dnext[at * c.size + col];
            if (dkey) dkey[at * c.size + col] += from;
            if (dk && owner[at] >= 0) dk[(b * c.tokens + owner[at]) * c.size + col] += from;
        }
    }
}

static void pool_open_back(nsm_device *d, const nsmi_pool *c, const int32_t *owner,
                           const float *dnext, float *dk, float *dkey)
{
    FOR_ITEMS(d, open_back_kernel, c->batch * c->size, *c, owner, dnext, dk, dkey);
}

/* ---- route ---- */
/* The place of the next of the largest cosines of living states below `above` (or equal, behind
 * `after`), for a whole warp; -1: none is left. */
static __device__ int64_t next_largest(int64_t s, const float *cosine, const uint8_t *alive,
                                       float above, int64_t after)
{
    float value = 0;
    int32_t at = -1;
    for (int64_t i = lane_of(); i < s; i += LANES)
        if (alive[i] && (cosine[i] < above || (cosine[i] == above && i > after)) &&
            (at < 0 || cosine[i] > value))
            value = cosine[i], at = (int32_t)i;
    for (int o = LANES / 2; o; o /= 2) {
        float other = __shfl_xor_sync(0xffffffffu, value, o);
        int32_t place = __shfl_xor_sync(0xffffffffu, at, o);
        if (place >= 0 && (at < 0 || other > value || (other == value && place < at)))
            value = other, at = place;
    }
    return at;
}

/* One row: the kept are marked by a share of 1, each by the lane that sums it later. */
static __device__ void route_row(int64_t s, int64_t top, const float *cosine, const uint8_t *alive,
                                 float gamma, float null, float *share)
{
    const unsigned lane = lane_of();
    float highest = null, above = -minus_infinity(), sum = 0;
    int64_t at = -1, kept = 0;
    for (int64_t i = lane; i < s; i += LANES) share[i] = 0;
    while (kept < top && (at = next_largest(s, cosine, alive, above, at)) >= 0) {
        above = cosine[at];
        if (kept++ == 0 && gamma * above > highest) highest = gamma * above;
        if (at % LANES == lane) share[at] = 1;
    }
    for (int64_t i = lane; i < s; i += LANES)
        if (share[i] != 0) sum += share[i] = expf(gamma * cosine[i] - highest);
    sum = warp_sum(sum) + expf(null - highest);
    for (int64_t i = lane; i < s; i += LANES) share[i] /= sum;
}

static __global__ void route_kernel(int64_t rows, nsmi_pool c, const float *cosine,
                                    const uint8_t *alive, const float *gamma, const float *null,
                                    float *share)
{
    int64_t r = group_number<LANES>(), s = c.slots;
    if (r >= rows) return;
    if (c.there && !c.there[r])
        for (int64_t i = lane_of(); i < s; i += LANES) share[r * s + i] = 0;
    else
        route_row(s, c.top, cosine + r * s, alive + r / c.tokens * s, *gamma, *null, share + r * s);
}

static void pool_route(nsm_device *d, const nsmi_pool *c, const float *cosine, const uint8_t *alive,
                       const float *gamma, const float *null, float *share)
{
    int64_t rows = c->batch * c->tokens;
    if (rows == 0) return;
    NSM_LAUNCH(route_kernel, groups_of(rows, LANES), BLOCK, stream_of(d), rows, *c, cosine, alive,
               gamma, null, share);
    launched(d);
}

typedef struct {
    int64_t rows, slots, part, parts; /* rows of a warp; warps */
    const float *cosine, *gamma, *share, *dshare;
    float *dcosine, *partial;         /* [2, parts] */
} route_back_job;

static __global__ void route_back_kernel(route_back_job j)
{
    const int64_t p = group_number<LANES>(), s = j.slots;
    if (p >= j.parts) return;
    float along = 0, shut = 0;
    for (int64_t r = p * j.part; r < least((p + 1) * j.part, j.rows); r++) {
        const float *y = j.share + r * s, *dy = j.dshare + r * s, *x = j.cosine + r * s;
        float h = dot_warp(y, dy, s), mass = 0;
        for (int64_t i = lane_of(); i < s; i += LANES) {
            float dl = y[i] * (dy[i] - h);
            mass += y[i];
            along += y[i] != 0 ? dl * x[i] : 0;
            if (j.dcosine) j.dcosine[r * s + i] += *j.gamma * dl;
        }
        shut -= (1 - warp_sum(mass)) * h;
    }
    along = warp_sum(along);
    if (lane_of()) return;
    j.partial[p] = along;
    j.partial[j.parts + p] = shut;
}

/* Two warps: the sums of what the parts found. */
static __global__ void route_finish_kernel(int64_t parts, const float *partial, float *dgamma,
                                           float *dnull)
{
    int64_t which = group_number<LANES>();
    if (which > 1) return;
    float sum = 0, *to = which ? dnull : dgamma;
    for (int64_t p = lane_of(); p < parts; p += LANES) sum += partial[which * parts + p];
    sum = warp_sum(sum);
    if (to && lane_of() == 0) *to += sum;
}

static void pool_route_back(nsm_device *d, const nsmi_pool *c, const float *cosine,
                            const float *gamma, const float *share, const float *dshare,
                            float *dcosine, float *dgamma, float *dnull)
{
    route_back_job j = { c->batch * c->tokens, c->slots, 0, 0, cosine, gamma, share, dshare,
                         dcosine, NULL };
    if (j.rows == 0) return;
    cut_sum(j.rows, 1, true, &j.part, &j.parts);
    j.partial = scratch_floats(d, 2 * j.parts);
    if (!j.partial) return;
    NSM_LAUNCH(route_back_kernel, groups_of(j.parts, LANES), BLOCK, stream_of(d), j);
    NSM_LAUNCH(route_finish_kernel, 1, BLOCK, stream_of(d), j.parts, j.partial, dgamma, dnull);
    launched(d);
}

NSMI_SHARED void nsmi_cuda_pool(nsm_backend *be)
{
    be->pool_age = pool_age;
    be->pool_open = pool_open;
    be->pool_open_back = pool_open_back;
    be->pool_route = pool_route;
    be->pool_route_back = pool_route_back;
}
