/* kernels/cuda/slots_back.cu - Gradients of the state memory's slots: of values, from the end of
 * each chunk back; of routes, a warp a token; of keys, a warp 32 columns (slots.cu). */
#include "kernels/cuda/slots.h"

/* ---- values ---- */
typedef struct {
    pools_of k;
    nsmi_slots_grad g;
    /* warps of a pool's values; slots noted by a write; dot products of a token */
    int64_t wide, rows, parts;
    float *value, *dvalue, *heard; /* [B, H, s, dv] */
    float *old;                  /* [pools, C, rows, dv] what a token's write replaced */
    float *reset, *miss;         /* [pools, C, dv] what the slot held that a token opened; v - e */
    /* [pools, n, wide, parts]: of reading, of writing [k] each, of its strength, of the decay */
    float *part;
    float *comm_part;            /* [pools, chunks, wide, s, s] */
    float *dmix;                 /* [pools, chunks, s, s] gradients of the logits */
    /* [pools, n, 2 k] gradients of what gamma multiplies: the cosines' without it */
    float *dcosine;
    /* [pools, n, 2] of the null shares; [pools, chunks, 2] of kappa and its gamma; [pools, key
     * warps, 2] of the gammas */
    float *scalars;
    float *comm_scalars, *gammas;
} slots_backing;

/* Token t's write once more; what it replaces is kept at place i of the chunk. */
static __device__ void write_again(const slots_backing &f, int64_t pool, int64_t t, int64_t i,
                                   int64_t e, const column &v)
{
    const pools_of &k = f.k;
    const int64_t at = token_at(k, pool, t, 1), dv = k.c.values, place = pool * k.c.chunk + i;
    const int32_t opened = opened_at(k, pool, t);
    const noted w = recall(k, pool, t, false);
    column kept = { f.old + place * f.rows * dv + e, dv };
    float old = 0;
    if (opened >= 0) {
        f.reset[place * dv + e] = slot_of(v, opened);
        slot_of(v, opened) = 0;
    }
    for (int64_t j = 0; k.in.alpha && j < k.c.slots; j++) {
        slot_of(kept, j) = slot_of(v, j);
        slot_of(v, j) *= k.in.alpha[at];
    }
    for (int j = 0; j < w.count; j++) {
        float row = slot_of(v, w.slot[j]);
        if (!k.in.alpha) slot_of(kept, j) = row;
        old += w.unit * w.prob[j] * row;
    }
    float x = k.in.v[at * dv + e] - old;
    f.miss[place * dv + e] = x;
    x *= k.in.beta[at] * w.mass;
    for (int j = 0; j < w.count; j++) slot_of(v, w.slot[j]) += w.unit * w.prob[j] * x;
}

/* A whole warp calls it; `mine`: this lane has a column. */
static __device__ void value_token_back(const slots_backing &f, int64_t pool, int64_t tile,
                                        int64_t t, int64_t i, int64_t e, bool mine, const column &v,
                                        const column &dv)
{
    const pools_of &k = f.k;
    const int64_t at = token_at(k, pool, t, 1), size = k.c.values, place = pool * k.c.chunk + i;
    const int32_t opened = opened_at(k, pool, t);
    const noted r = recall(k, pool, t, true), w = recall(k, pool, t, false);
    float *part = f.part + ((pool * k.c.tokens + t) * f.wide + tile) * f.parts;
    column kept = { f.old + place * f.rows * size + e, size };
    const float o = mine && f.g.o ? f.g.o[at * size + e] : 0,
                miss = mine ? f.miss[place * size + e] : 0;
    const float alpha = k.in.alpha ? k.in.alpha[at] : 1, b = k.in.beta[at] * w.mass;
    for (int j = 0; j < r.count; j++) {
        float sum = warp_sum(mine ? slot_of(v, r.slot[j]) * o : 0);
        if (lane_of() == 0) part[j] = sum;
        if (mine) slot_of(dv, r.slot[j]) += r.unit * r.prob[j] * o;
    }
    float du = 0;
    for (int j = 0; mine && j < w.count; j++) du += w.unit * w.prob[j] * slot_of(dv, w.slot[j]);
    float strength = warp_sum(du * miss), de = -b * du;
    if (mine) f.g.dv[at * size + e] += b * du;
    for (int j = 0; j < w.count; j++) {
        float da = 0;
        if (mine) {
            float d = slot_of(dv, w.slot[j]), s = slot_of(kept, k.in.alpha ? w.slot[j] : j);
            da = d * b * miss + alpha * s * de;
            slot_of(dv, w.slot[j]) = d + w.unit * w.prob[j] * de;
            slot_of(v, w.slot[j]) = s;
        }
        da = warp_sum(da);
        if (lane_of() == 0) part[k.c.top + j] = da;
    }
    float decay = 0;
    for (int64_t j = 0; k.in.alpha && mine && j < k.c.slots; j++) {
        float d = slot_of(dv, j), s = slot_of(kept, j);
        decay += d * s;
        slot_of(dv, j) = alpha * d;
        slot_of(v, j) = s;
    }
    decay = warp_sum(decay);
    if (lane_of() == 0) {
        part[2 * k.c.top] = strength;
        part[2 * k.c.top + 1] = decay;
    }
    if (opened < 0 || !mine) return;
    slot_of(dv, opened) = 0;
    slot_of(v, opened) = f.reset[place * size + e];
}

/* dS_j = (1 - kappa) D_j + kappa sum_i A_ij D_i; D_i . S_j of these columns for the rest. */
static __device__ void comm_values_back(const slots_backing &f, int64_t pool, int64_t tile,
                                        int64_t chunk, int64_t e, bool mine, const column &v,
                                        const column &dv)
{
    const pools_of &k = f.k;
    const int64_t s = k.c.slots, at = pool * k.c.chunks + chunk;
    const int32_t *owner = owners_at(k, pool, chunk + 1);
    float *part = f.comm_part + (at * f.wide + tile) * s * s;
    for (int64_t i = 0; i < s; i++)
        for (int64_t j0 = 0; j0 < s; j0 += LANES) {
            float along[LANES];
            for (int j = 0; j < LANES; j++)
                along[j] = mine && j0 + j < s ? slot_of(dv, i) * slot_of(v, j0 + j) : 0;
            float sum = warp_sums<LANES>(along);
            if (j0 + lane_of() < s) part[i * s + j0 + lane_of()] = sum;
        }
    if (!mine) return;
    column heard = { f.heard + pool * s * k.c.values + e, k.c.values };
    hear(s, k.mix + at * s * s, true, dv, heard);
    talk(k, pool, owner, heard, dv);
    for (int64_t i = 0; i < s; i++)
        if (owner[i] <= DIED) slot_of(dv, i) = 0;
}

enum { HELD_BACK = 96 };

/* A warp 32 columns of a pool. */
static __global__ void values_back_kernel(slots_backing f)
{
    __shared__ float held[2][HELD_BACK][LANES];
    const pools_of &k = f.k;
    const int64_t pool = blockIdx.x / f.wide, tile = blockIdx.x % f.wide,
                  e = tile * LANES + threadIdx.x, s = k.c.slots, dv = k.c.values;
    const int64_t chunks = chunks_of(k, pool);
    const bool mine = e < dv;
    column v = { f.value + pool * s * dv + e, dv }, d = { f.dvalue + pool * s * dv + e, dv };
    if (s <= HELD_BACK)
        v = column{ &held[0][0][threadIdx.x], LANES },
        d = column{ &held[1][0][threadIdx.x], LANES };
    for (int64_t i = 0; mine && i < s; i++)
        slot_of(d, i) = owners_at(k, pool, chunks)[i] == DIED || !f.g.value
                            ? 0
                            : f.g.value[(pool * s + i) * dv + e];
    for (int64_t c = chunks - 1; c >= 0; c--) {
        const int64_t a = chunk_first(k, pool, c), end = chunk_first(k, pool, c + 1);
        for (int64_t i = 0; mine && i < s; i++)
            slot_of(v, i) = k.saved.start[((pool * k.c.chunks + c) * s + i) * dv + e];
        for (int64_t t = a; mine && t < end; t++) write_again(f, pool, t, t - a, e, v);
        if (communicates(k, pool, end)) comm_values_back(f, pool, tile, c, e, mine, v, d);
        for (int64_t t = end - 1; t >= a; t--)
            value_token_back(f, pool, tile, t, t - a, e, mine, v, d);
    }
    for (int64_t i = 0; mine && f.g.dvalue && i < s; i++)
        f.g.dvalue[(pool * s + i) * dv + e] += slot_of(d, i);
}

/* ---- routes ---- */

/* From the gradients of a = P / |P| and m = sum P to those of the logits, and of the null share.
 *   dP = unit (da - a (a . da)) + dm,  dL_i = P_i (dP_i - sum of P dP) */
static __device__ float route_back(const noted &r, const float *da, float dm, float *dcosine)
{
    float along = 0, h = 0;
    for (int i = 0; i < r.count; i++) along += r.unit * r.prob[i] * da[i];
    for (int i = 0; i < r.count; i++)
        h += r.prob[i] * (r.unit * (da[i] - r.unit * r.prob[i] * along) + dm);
    for (int i = 0; i < r.count; i++)
        dcosine[i] = r.prob[i] * (r.unit * (da[i] - r.unit * r.prob[i] * along) + dm - h);
    return -(1 - r.mass) * h;
}

/* A thread a token: first the warps' parts, joined in the place of the first. */
static __global__ void routes_back_kernel(int64_t items, slots_backing f)
{
    EACH_ITEM(i, items) {
        const pools_of &k = f.k;
        const int64_t pool = i / k.c.tokens, t = i % k.c.tokens, at = token_at(k, pool, t, 1),
                      top = k.c.top;
        float *part = f.part + i * f.wide * f.parts, *null = f.scalars + i * 2;
        null[0] = null[1] = 0;
        if (t >= tokens_of(k, pool)) continue;
        const noted r = recall(k, pool, t, true), w = recall(k, pool, t, false);
        for (int64_t j = 0; j < f.parts; j++) {
            if (j < top ? j >= r.count : j < 2 * top && j - top >= w.count) continue;
            for (int64_t x = 1; x < f.wide; x++) part[j] += part[x * f.parts + j];
        }
        null[1] = route_back(r, part, f.g.mass ? f.g.mass[at] : 0, f.dcosine + i * 2 * top + top);
        null[0] = route_back(w, part + top, part[2 * top] * k.in.beta[at], f.dcosine + i * 2 * top);
        f.g.dbeta[at] += part[2 * top] * w.mass;
        if (k.in.alpha) f.g.dalpha[at] += part[2 * top + 1];
    }
}

/* dA_ij = kappa D_i . S_j, dkappa = sum D_i . (A S - S)_i: a block a chunk's end, a warp a row. */
static __global__ void comm_back_kernel(slots_backing f)
{
    __shared__ float sums[2][WARPS];
    const pools_of &k = f.k;
    const int64_t pool = blockIdx.x / k.c.chunks, chunk = blockIdx.x % k.c.chunks, s = k.c.slots,
                  warp = threadIdx.x / LANES;
    float *out = f.comm_scalars + blockIdx.x * 2, dkappa = 0, dgamma = 0;
    if (threadIdx.x < 2) out[threadIdx.x] = 0;
    if (chunk >= chunks_of(k, pool) || !communicates(k, pool, chunk_first(k, pool, chunk + 1)))
        return;
    const int32_t *owner = owners_at(k, pool, chunk + 1);
    const float kappa = k.in.scalar[4 * k.c.heads + pool % k.c.heads],
                gamma = k.in.scalar[5 * k.c.heads + pool % k.c.heads];
    for (int64_t i = warp; i < s; i += WARPS) {
        const int64_t row = (blockIdx.x * s + i) * s;
        float along = 0, self = 0;
        for (int64_t j = lane_of(); j < s; j += LANES) {
            float d = 0;
            for (int64_t x = 0; x < f.wide; x++)
                d += f.comm_part[(blockIdx.x * f.wide + x) * s * s + i * s + j];
            f.dmix[row + j] = d;
            along += k.mix[row + j] * d;
            if (j == i) self = d;
        }
        along = warp_sum(along);
        self = warp_sum(self);
        if (owner[i] > DIED) dkappa += along - self;
        for (int64_t j = lane_of(); j < s; j += LANES) {
            float dl = k.mix[row + j] * kappa * (f.dmix[row + j] - along);
            dgamma += dl * k.cosine[row + j];
            f.dmix[row + j] = gamma * dl;
        }
    }
    dgamma = warp_sum(dgamma);
    if (lane_of() == 0) sums[0][warp] = dkappa, sums[1][warp] = dgamma;
    __syncthreads();
    if (threadIdx.x >= 2) return;
    float sum = 0;
    for (int w = 0; w < WARPS; w++) sum += sums[threadIdx.x][w];
    out[threadIdx.x] = sum;
}

/* ---- keys ---- */

/* Forward over the tokens: dz += gamma times the sum of dc_i times the keys of the slots kept; what
 * the gammas get of these columns. */
static __device__ void keys_forward(const slots_backing &f, int64_t pool, int64_t e, bool mine,
                                    const float gamma[2], const column &key, float dgamma[2])
{
    const pools_of &k = f.k;
    const int64_t size = k.c.keys;
    dgamma[0] = dgamma[1] = 0;
    for (int64_t i = 0; mine && i < k.c.slots; i++)
        slot_of(key, i) = owners_at(k, pool, 0)[i] == NO_TOKEN
                              ? k.in.key[(pool * k.c.slots + i) * size + e]
                              : 0;
    for (int64_t t = 0; mine && t < tokens_of(k, pool); t++) {
        const int64_t at = token_at(k, pool, t, size) + e;
        const int32_t *slot = kept_of(k, pool, t), opened = slot[2 * k.c.top];
        const float *dc = f.dcosine + (pool * k.c.tokens + t) * 2 * k.c.top;
        float sum[2] = { 0, 0 };
        if (opened >= 0) slot_of(key, opened) = k.in.k[at];
        for (int which = 0; which < 2; which++)
            for (int64_t i = which * k.c.top; i < (which + 1) * k.c.top && slot[i] >= 0; i++)
                sum[which] += dc[i] * slot_of(key, slot[i]);
        f.g.dk[at] += gamma[0] * sum[0];
        f.g.dq[at] += gamma[1] * sum[1];
        dgamma[0] += sum[0] * k.in.k[at];
        dgamma[1] += sum[1] * k.in.q[at];
    }
}

/* Where states communicated their keys get (L + L') K; the keys as the chunk left them. */
static __device__ void comm_keys_back(const slots_backing &f, int64_t pool, int64_t chunk,
                                      int64_t e, const column &key, const column &sum)
{
    const pools_of &k = f.k;
    const int64_t s = k.c.slots;
    const int32_t *owner = owners_at(k, pool, chunk + 1);
    const float *l = f.dmix + (pool * k.c.chunks + chunk) * s * s;
    for (int64_t i = 0; i < s; i++)
        slot_of(key, i) = owner[i] > DIED ? key_of(k, pool, owner[i], i)[e] : 0;
    for (int64_t i = 0; i < s; i++) {
        float more = 0;
        for (int64_t j = 0; owner[i] > DIED && j < s; j++)
            if (owner[j] > DIED) more += (l[i * s + j] + l[j * s + i]) * slot_of(key, j);
        slot_of(sum, i) += more;
    }
}

/* Back over the tokens: what they give a slot's key is summed until the token that opened it. */
static __device__ void keys_backward(const slots_backing &f, int64_t pool, int64_t e,
                                     const float gamma[2], const column &key, const column &sum)
{
    const pools_of &k = f.k;
    const int64_t size = k.c.keys, chunks = chunks_of(k, pool);
    const int32_t *last = owners_at(k, pool, chunks);
    for (int64_t i = 0; i < k.c.slots; i++)
        slot_of(sum, i) = f.g.key && last[i] != DIED ? f.g.key[(pool * k.c.slots + i) * size + e]
                                                     : 0;
    for (int64_t c = chunks - 1; c >= 0; c--) {
        const int64_t end = chunk_first(k, pool, c + 1);
        if (communicates(k, pool, end)) comm_keys_back(f, pool, c, e, key, sum);
        for (int64_t t = end - 1; t >= chunk_first(k, pool, c); t--) {
            const int64_t at = token_at(k, pool, t, size) + e;
            const int32_t *slot = kept_of(k, pool, t), opened = slot[2 * k.c.top];
            const float *dc = f.dcosine + (pool * k.c.tokens + t) * 2 * k.c.top;
            for (int which = 0; which < 2; which++) {
                const float z = gamma[which] * (which ? k.in.q[at] : k.in.k[at]);
                for (int64_t i = which * k.c.top; i < (which + 1) * k.c.top && slot[i] >= 0; i++)
                    slot_of(sum, slot[i]) += dc[i] * z;
            }
            if (opened < 0) continue;
            f.g.dk[at] += slot_of(sum, opened);
            slot_of(sum, opened) = 0;
        }
    }
    for (int64_t i = 0; f.g.dkey && i < k.c.slots; i++)
        f.g.dkey[(pool * k.c.slots + i) * size + e] += slot_of(sum, i);
}

/* A warp 32 columns of a pool's keys; room [B, H, s, 2, dk] where there are too many slots. */
static __global__ void keys_back_kernel(slots_backing f, float *room)
{
    __shared__ float held[2][HELD_BACK][LANES];
    const pools_of &k = f.k;
    const int64_t wide = ceil_of(k.c.keys, LANES), pool = blockIdx.x / wide,
                  e = blockIdx.x % wide * LANES + threadIdx.x;
    const bool mine = e < k.c.keys;
    column key = { room + pool * 2 * k.c.slots * k.c.keys + e, k.c.keys },
           sum = { key.at + k.c.slots * k.c.keys, k.c.keys };
    if (k.c.slots <= HELD_BACK)
        key = column{ &held[0][0][threadIdx.x], LANES },
        sum = column{ &held[1][0][threadIdx.x], LANES };
    const float gamma[2] = { k.in.scalar[pool % k.c.heads],
                             k.in.scalar[2 * k.c.heads + pool % k.c.heads] };
    float dgamma[2];
    keys_forward(f, pool, e, mine, gamma, key, dgamma);
    if (mine) keys_backward(f, pool, e, gamma, key, sum);
    for (int which = 0; which < 2; which++) {
        float all = warp_sum(dgamma[which]);
        if (lane_of() == 0) f.gammas[blockIdx.x * 2 + which] = all;
    }
}

/* ---- the scalars: [4|6, H] += the sums over the tokens of a head's pools, a block a pool and then
 * the rows of the batch ---- */
static __device__ float sum_of(const float *x, int64_t n, int64_t step)
{
    float sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += BLOCK) sum += x[i * step];
    return group_sum<BLOCK>(sum);
}

static __global__ void scalars_kernel(slots_backing f, float *part) /* part [pools, 6] */
{
    const pools_of &k = f.k;
    const int64_t pool = blockIdx.x, wide = ceil_of(k.c.keys, LANES);
    float sum[6];
    for (int which = 0; which < 2; which++) {
        sum[2 * which] = sum_of(f.gammas + pool * wide * 2 + which, wide, 2);
        sum[2 * which + 1] = sum_of(f.scalars + pool * k.c.tokens * 2 + which, k.c.tokens, 2);
        sum[4 + which] = k.c.comm_every
                             ? sum_of(f.comm_scalars + pool * k.c.chunks * 2 + which, k.c.chunks, 2)
                             : 0;
    }
    for (int i = 0; i < 6; i++)
        if (threadIdx.x == 0) part[pool * 6 + i] = sum[i];
}

static __global__ void scalars_join_kernel(int64_t items, slots_backing f, const float *part)
{
    EACH_ITEM(i, items) {
        int64_t j = i / f.k.c.heads, h = i % f.k.c.heads;
        float sum = 0;
        for (int64_t b = 0; b < f.k.c.batch; b++) sum += part[(b * f.k.c.heads + h) * 6 + j];
        f.g.dscalar[i] += sum;
    }
}

typedef struct { float *key_room, *scalars; } last_rooms;

static last_rooms backing_rooms_of(slots_backing *f, bool decay, rooms *r)
{
    const nsmi_slots *c = &f->k.c;
    const int64_t pools = c->batch * c->heads, s = c->slots, dv = c->values,
                  pairs = c->comm_every ? pools * c->chunks * s * s : 0;
    last_rooms l;
    pools_rooms(&f->k, r);
    f->wide = ceil_of(dv, LANES);
    f->rows = decay ? s : c->top;
    f->parts = 2 * c->top + 2;
    f->value = room_for(r, pools * s * dv);
    f->dvalue = room_for(r, pools * s * dv);
    f->heard = room_for(r, c->comm_every ? pools * s * dv : 0);
    f->old = room_for(r, pools * c->chunk * f->rows * dv);
    f->reset = room_for(r, pools * c->chunk * dv);
    f->miss = room_for(r, pools * c->chunk * dv);
    f->part = room_for(r, pools * c->tokens * f->wide * f->parts);
    f->comm_part = room_for(r, pairs * f->wide);
    f->dmix = room_for(r, pairs);
    f->dcosine = room_for(r, pools * c->tokens * 2 * c->top);
    f->scalars = room_for(r, pools * c->tokens * 2);
    f->comm_scalars = room_for(r, pools * c->chunks * 2);
    f->gammas = room_for(r, pools * ceil_of(c->keys, LANES) * 2);
    l.key_room = room_for(r, s > HELD_BACK ? pools * 2 * s * c->keys : 0);
    l.scalars = room_for(r, pools * 6);
    return l;
}

int64_t nsmi_slots_back_room(const nsmi_slots *c, bool decay)
{
    rooms r = { NULL, 0 };
    slots_backing f = {};
    f.k.c = *c;
    backing_rooms_of(&f, decay, &r);
    return r.used;
}

static void slots_back(nsm_device *d, const nsmi_slots *c, const nsmi_slots_in *in,
                       const nsmi_slots_saved *saved, float *scratch, const nsmi_slots_grad *g)
{
    const int64_t pools = c->batch * c->heads;
    slots_backing f = {};
    rooms r = { scratch, 0 };
    if (pools == 0) return;
    f.k = pools_of{ *c, *in, *saved, NULL, NULL, NULL };
    f.g = *g;
    last_rooms l = backing_rooms_of(&f, in->alpha != NULL, &r);
    nsmi_slots_chunks(d, &f.k);
    nsmi_slots_mix(d, &f.k);
    NSM_LAUNCH(values_back_kernel, (unsigned)(pools * f.wide), LANES, stream_of(d), f);
    FOR_ITEMS(d, routes_back_kernel, pools * c->tokens, f);
    if (c->comm_every)
        NSM_LAUNCH(comm_back_kernel, (unsigned)(pools * c->chunks), BLOCK, stream_of(d), f);
    NSM_LAUNCH(keys_back_kernel, (unsigned)(pools * ceil_of(c->keys, LANES)), LANES, stream_of(d),
               f, l.key_room);
    NSM_LAUNCH(scalars_kernel, (unsigned)pools, BLOCK, stream_of(d), f, l.scalars);
    FOR_ITEMS(d, scalars_join_kernel, (c->comm_every ? 6 : 4) * c->heads, f, l.scalars);
    launched(d);
}

void nsmi_cuda_slots_back(nsm_backend *be) { be->slots_back = slots_back; }
