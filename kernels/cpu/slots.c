/* kernels/cpu/slots.c - The slots of the state memory: open, route, write, read, and back.
 *
 * One thread goes through the tokens of one pool (a row's head) in order.  Of the work on a token
 * only the cosines with all s slots are dense: s dk products for the key and as many for the query,
 * from a transposed copy of the slots' keys, so that lanes are slots.  Writing and reading touch
 * the k slots kept by a routing, lanes being columns of values.  The chunkwise form by matrices (R,
 * Q, a triangular solve) does the same with 2 (s + C) (dk + 2 dv + C) products where this does 2 s
 * dk + 3 k dv; with k of 8 and s of 64 that is a tenth, it needs the discrete part first all the
 * same, and this is one code for a sequence and for one token of it, bit for bit.
 *
 * A slot's key is that of the token that opened it, its owner: no key is copied but into the
 * transposed table, and a gradient of a slot's key goes straight to its owner's.  Backward starts
 * from the values stored at the start of each chunk, writes them forward again while noting every
 * row that is overwritten, and takes that back token by token.
 *
 * Letters: B batch, n tokens, H heads, s slots, k kept by a routing, dk, dv sizes of a key and a
 * value. */
#include <limits.h>
#include "kernels/cpu/cpu.h"

/* owner of a slot without a token; EMPTY: dead from the start */
enum { FROM_START = -1, DEAD = -2, EMPTY = -3 };
static inline bool is_dead(int32_t owner) { return owner <= DEAD; }
enum { FEW = 24 };                   /* up to so many the largest are found one by one */

/* ---- what both directions share ---- */

/* One pool: where its row and head stand. */
typedef struct {
    const nsmi_slots *c;
    const nsmi_slots_in *in;
    int64_t pool, b, h, tokens, seen; /* b H + h; tokens that are there; tokens before them */
    int64_t wide;                     /* s up to whole vectors */
} pool_at;

static pool_at find_pool(const nsmi_slots *c, const nsmi_slots_in *in, int64_t pool)
{
    int64_t b = pool / c->heads;
    return (pool_at){ c,
                      in,
                      pool,
                      b,
                      pool % c->heads,
                      nsmi_length(c->length, b, c->tokens),
                      c->seen ? c->seen[b] : 0,
                      nsmi_blocks(c->slots, W) * W };
}

/* Token t of this pool in an array [B, n, H, size]. */
static inline int64_t at_token(const pool_at *p, int64_t t, int64_t size)
{
    return ((p->b * p->c->tokens + t) * p->c->heads + p->h) * size;
}

/* Where the chunk that starts with token a ends: at most `chunk` tokens, and where states
 * communicate. */
static inline int64_t chunk_end(const pool_at *p, int64_t a)
{
    int64_t end = a + p->c->chunk, every = p->c->comm_every;
    if (every && a + every - (p->seen + a) % every < end) end = a + every - (p->seen + a) % every;
    return end < p->tokens ? end : p->tokens;
}

static inline bool communicates(const pool_at *p, int64_t end)
{
    return p->c->comm_every && end > 0 && (p->seen + end) % p->c->comm_every == 0;
}

static inline const float *key_of(const pool_at *p, int32_t owner, int64_t slot)
{
    if (owner >= 0) return p->in->k + at_token(p, owner, p->c->keys);
    return p->in->key + (p->pool * p->c->slots + slot) * p->c->keys;
}

static inline float dot(const float *a, const float *b, int64_t n)
{
    vf s = vf_set(0);
    VF_EACH(i, lanes, n, s += vf_get(a + i, lanes) * vf_get(b + i, lanes););
    return vf_sum(s);
}

static inline void add_scaled(float *y, float a, const float *x, int64_t n)
{
    VF_EACH(i, lanes, n, vf_put(y + i, vf_get(y + i, lanes) + a * vf_get(x + i, lanes), lanes););
}

/* ---- communication: S_i <- (1 - kappa) S_i + kappa sum_j softmax_j(gamma K_i . K_j) S_j, i and j
 * alive ---- mix [s, s]: the softmax, rows and columns of the dead 0. */
static void comm_weights(const pool_at *p, const int32_t *owner, float *cosine, float *mix)
{
    int64_t s = p->c->slots;
    float gamma = p->in->scalar[5 * p->c->heads + p->h];
    for (int64_t i = 0; i < s; i++) {
        float *row = mix + i * s, top = -INFINITY, sum = 0;
        for (int64_t j = 0; j < s; j++) {
            row[j] = 0;
            if (is_dead(owner[i]) || is_dead(owner[j])) continue;
            cosine[i * s + j] = dot(key_of(p, owner[i], i), key_of(p, owner[j], j), p->c->keys);
            row[j] = gamma * cosine[i * s + j];
            if (row[j] > top) top = row[j];
        }
        for (int64_t j = 0; j < s; j++)
            if (!is_dead(owner[i]) && !is_dead(owner[j])) sum += row[j] = expf(row[j] - top);
        for (int64_t j = 0; j < s; j++) row[j] *= sum > 0 ? 1 / sum : 0;
    }
}

/* next [s, dv] = what the slots hear of each other */
static void comm_heard(int64_t s, int64_t dv, const float *mix, const float *value, float *heard)
{
    memset(heard, 0, (size_t)(s * dv) * sizeof *heard);
    for (int64_t i = 0; i < s; i++)
        for (int64_t j = 0; j < s; j++)
            if (mix[i * s + j] != 0) add_scaled(heard + i * dv, mix[i * s + j], value + j * dv, dv);
}

static void communicate(const pool_at *p, const int32_t *owner, float *scratch, float *value)
{
    int64_t s = p->c->slots, dv = p->c->values;
    float *mix = scratch + s * s, *heard = mix + s * s,
          kappa = p->in->scalar[4 * p->c->heads + p->h];
    comm_weights(p, owner, scratch, mix);
    comm_heard(s, dv, mix, value, heard);
    for (int64_t i = 0; i < s; i++)
        if (!is_dead(owner[i]))
            VF_EACH(e, lanes, dv, {
                float *v = value + i * dv + e;
                vf_put(v,
                       (1 - kappa) * vf_get(v, lanes) + kappa * vf_get(heard + i * dv + e, lanes),
                       lanes);
            });
}

/* ---- routing ---- */

/* What a routing kept: slots by falling cosine, probabilities P, unit address a = P / |P|, mass =
 * sum of P. */
typedef struct {
    int64_t count;
    int32_t *slot;
    float *cosine, *prob, *address; /* [k up to whole vectors] */
    float mass;
} route;

/* The k largest of c [wide], -inf never among them; ties to the lowest place.  c is used up. */
static int64_t keep_few(float *c, int64_t wide, int64_t k, int32_t *slot, float *cosine)
{
    for (int64_t count = 0; count < k; count++) {
        vf most = vf_load(c);
        for (int64_t i = W; i < wide; i += W) most = vf_max(vf_load(c + i), most);
        float best = vf_top(most);
        if (!(best > -INFINITY)) return count;
        int64_t at = 0;
        uint32_t found;
        while (!(found = vi_bits(vf_load(c + at) == best)) && at + W < wide) at += W;
        if (!found) return count;
        int32_t lane = __builtin_ctz(found);
        slot[count] = (int32_t)at + lane;
        cosine[count] = best;
        vf_store(c + at, vf_pick(vi_lanes() == lane, vf_set(-INFINITY), vf_load(c + at)));
    }
    return k;
}

/* Two choices of at most 64 side by side, in registers and without a branch: one waits while the
 * other goes on. */
enum { NARROW = 64 / W };

typedef struct { vf c[NARROW]; } few;

static inline __attribute__((always_inline)) bool take_largest(few *f, const int nv, int32_t *slot,
                                                               float *cosine)
{
    vf best = f->c[0];
    uint64_t found = 0;
#pragma GCC unroll 16
    for (int v = 1; v < nv; v++) best = vf_max(f->c[v], best);
    VF_FOLD(best, vf_max); /* in every lane */
#pragma GCC unroll 16
    for (int v = 0; v < nv; v++) found |= (uint64_t)vi_bits(f->c[v] == best) << (v * W);
    int32_t at = __builtin_ctzll(found | (uint64_t)1 << 63);
    *slot = at;
    *cosine = best[0];
#pragma GCC unroll 16
    for (int v = 0; v < nv; v++)
        f->c[v] = vf_pick(vi_lanes() == at - v * W, vf_set(-INFINITY), f->c[v]);
    return *cosine > -INFINITY;
}

static inline __attribute__((always_inline)) void keep_both(const float *a, const float *b,
                                                            const int nv, int64_t k, route *x,
                                                            route *y)
{
    few f, g;
    for (int v = 0; v < nv; v++) f.c[v] = vf_load(a + v * W);
    for (int v = 0; v < nv; v++) g.c[v] = vf_load(b + v * W);
    x->count = y->count = 0;
    for (int64_t i = 0; i < k; i++) {
        x->count += take_largest(&f, nv, x->slot + i, x->cosine + i);
        y->count += take_largest(&g, nv, y->slot + i, y->cosine + i);
    }
}

/* A number whose order as an integer is that of x. */
static inline vi order(vf x) { return (vi)x ^ (((vi)x >> 31) & INT32_MAX); }

static int64_t count_above(const float *c, int64_t wide, int32_t bound)
{
    vi sum = { 0 };
    for (int64_t i = 0; i < wide; i += W) sum -= order(vf_load(c + i)) > bound;
    int64_t all = 0;
    for (int i = 0; i < W; i++) all += sum[i];
    return all;
}

/* The same for many: by halving, the least bound that no more than k are above; then these, and of
 * those equal to it the first that fit. */
static int64_t keep_many(const float *c, int64_t wide, int64_t k, int32_t *slot, float *cosine)
{
    int64_t low = order(vf_set(-INFINITY))[0], high = low, count = 0;
    if (count_above(c, wide, (int32_t)low) > k) {
        high = INT32_MAX;
        while (high - low > 1) {
            int64_t middle = low + (high - low) / 2;
            *(count_above(c, wide, (int32_t)middle) > k ? &low : &high) = middle;
        }
    }
    int64_t equal = high == low ? 0 : k - count_above(c, wide, (int32_t)high);
    for (int64_t i = 0; i < wide; i++) {
        int64_t o = order(vf_set(c[i]))[0];
        if (o < high || (o == high && equal-- <= 0)) continue;
        slot[count] = (int32_t)i;
        cosine[count++] = c[i];
    }
    return count;
}

/* Softmax over the null share and the cosines kept. */
static inline void soften(route *r, float gamma, float null)
{
    vf most = vf_set(null), sum = vf_set(0), squares = vf_set(0);
    int64_t end = nsmi_blocks(r->count, W) * W;
    for (int64_t i = r->count; i < end; i++) r->cosine[i] = -INFINITY;
    for (int64_t i = 0; i < end; i += W) most = vf_max(gamma * vf_load(r->cosine + i), most);
    float top = vf_top(most);
    for (int64_t i = 0; i < end; i += W) {
        vf e = vf_exp(vf_max(vf_set(-87.0f), gamma * vf_load(r->cosine + i) - top));
        e = vf_first(e, r->count - i < W ? r->count - i : W, vf_set(0));
        vf_store(r->prob + i, e);
        sum += e;
    }
    float total = vf_sum(sum), by = 1 / (total + expf(null - top));
    for (int64_t i = 0; i < end; i += W) {
        vf prob = vf_load(r->prob + i) * by;
        vf_store(r->prob + i, prob);
        squares += prob * prob;
    }
    float unit = 1 / sqrtf(vf_sum(squares) + 1e-12f);
    for (int64_t i = 0; i < end; i += W) vf_store(r->address + i, unit * vf_load(r->prob + i));
    r->mass = total * by;
}

static void keep(float *a, float *b, int64_t wide, int64_t k, route *x, route *y)
{
    if (k <= FEW && wide == 64) {
        keep_both(a, b, NARROW, k, x, y);
    } else if (k <= FEW && wide <= 32) {
        for (int64_t i = wide; i < 32; i++) a[i] = b[i] = -INFINITY;
        keep_both(a, b, NARROW / 2, k, x, y);
    } else if (k <= FEW) {
        x->count = keep_few(a, wide, k, x->slot, x->cosine);
        y->count = keep_few(b, wide, k, y->slot, y->cosine);
    } else {
        x->count = keep_many(a, wide, k, x->slot, x->cosine);
        y->count = keep_many(b, wide, k, y->slot, y->cosine);
    }
}

static inline float *route_rooms(route *r, int64_t k, float *room)
{
    int64_t step = nsmi_blocks(k, W) * W;
    r->slot = (int32_t *)room;
    r->cosine = room + step;
    r->prob = r->cosine + step;
    r->address = r->prob + step;
    return r->address + step;
}
static inline int64_t route_floats(int64_t k) { return 4 * nsmi_blocks(k, W) * W; }

/* ---- forward ---- */
typedef struct {
    pool_at p;
    float *table;                   /* [dk, wide] the slots' keys, transposed */
    /* [wide] usage; cosines with the token's key and query, -inf where dead */
    float *usage, *with_k, *with_q;
    int32_t *alive, *owner;         /* [wide] -1 or 0 */
    float *value;                   /* [s, dv] */
    route write, read;
    float *comm;                    /* scratch of communicate() */
    int32_t opened;
    bool recycled;
} pool;

static int64_t pool_floats(const nsmi_slots *c)
{
    int64_t wide = nsmi_blocks(c->slots, W) * W;
    return (c->keys + 5) * wide + 64 + 2 * route_floats(c->top) +
           (c->comm_every ? 2 * c->slots * c->slots + c->slots * c->values : 0);
}

static void pool_rooms(pool *s, float *room)
{
    int64_t wide = s->p.wide;
    s->table = room;
    s->usage = room + s->p.c->keys * wide;
    s->with_k = s->usage + wide;
    s->with_q = s->with_k + wide + 32; /* keep() fills short rows up */
    s->alive = (int32_t *)(s->with_q + wide + 32);
    s->owner = s->alive + wide;
    room = route_rooms(&s->write, s->p.c->top, (float *)(s->owner + wide));
    s->comm = route_rooms(&s->read, s->p.c->top, room);
}

/* Column `slot` of the table; key NULL: zeros. */
static void set_column(pool *s, int64_t slot, const float *key)
{
    float *to = s->table + slot;
    for (int64_t j = 0; j < s->p.c->keys; j++, to += s->p.wide) *to = key[j];
}

static void pool_begin(pool *s, const nsmi_slots_state *st)
{
    const nsmi_slots *c = s->p.c;
    int64_t first = s->p.pool * c->slots;
    memset(s->table, 0, (size_t)(c->keys * s->p.wide) * sizeof *s->table);
    for (int64_t i = 0; i < s->p.wide; i++) {
        bool alive = i < c->slots && (st->alive ? st->alive[first + i] != 0 : i < c->learned);
        s->alive[i] = alive ? -1 : 0;
        s->owner[i] = alive ? FROM_START : EMPTY;
        s->usage[i] = i < c->slots && st->usage ? st->usage[first + i] : 0;
        if (alive) set_column(s, i, key_of(&s->p, FROM_START, i));
    }
    size_t bytes = (size_t)(c->slots * c->values) * sizeof(float);
    if (s->p.in->value) memcpy(s->value, s->p.in->value + first * c->values, bytes);
    else memset(s->value, 0, bytes);
}

/* nv vectors of slots from i on: their cosines with the token's key and query. */
static inline __attribute__((always_inline)) void cosines_of(pool *s, const float *k,
                                                             const float *q, int64_t i,
                                                             const int nv)
{
    vf a[4], b[4];
    const float *row = s->table + i;
    for (int v = 0; v < nv; v++) a[v] = b[v] = vf_set(0);
    for (int64_t j = 0; j < s->p.c->keys; j++, row += s->p.wide) {
        vf x = vf_set(k[j]), y = vf_set(q[j]);
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            vf key = vf_load(row + v * W);
            a[v] += key * x;
            b[v] += key * y;
        }
    }
    for (int v = 0; v < nv; v++) {
        vf_store(s->with_k + i + v * W, a[v]);
        vf_store(s->with_q + i + v * W, b[v]);
    }
}

static void cosines(pool *s, const float *k, const float *q)
{
    int64_t i = 0;
    for (; i + 4 * W <= s->p.wide; i += 4 * W) cosines_of(s, k, q, i, 4);
    for (; i < s->p.wide; i += W) cosines_of(s, k, q, i, 1);
}

/* Usage fades, the unused die; the largest cosine of a slot alive with the key.  pruned [s] may be
 * NULL. */
static float fade(pool *s, uint8_t *pruned)
{
    const nsmi_slots *c = s->p.c;
    vf best = vf_set(-INFINITY);
    for (int64_t i = 0; i < s->p.wide; i += W) {
        vi alive = vi_load(s->alive + i);
        vf usage = c->rho * vf_load(s->usage + i);
        vi dies = alive & (usage < c->tau_prune) & (vi_lanes() + (int32_t)i >= (int32_t)c->learned);
        alive &= ~dies;
        vf_store(s->usage + i, vf_pick(dies, vf_set(0), usage));
        vi_store(s->alive + i, alive);
        vi_store(s->owner + i, (vi_load(s->owner + i) & ~dies) | (dies & DEAD));
        vf cosine = vf_pick(alive, vf_load(s->with_k + i), vf_set(-INFINITY));
        vf_store(s->with_k + i, cosine);
        vf_store(s->with_q + i, vf_pick(alive, vf_load(s->with_q + i), vf_set(-INFINITY)));
        best = vf_max(cosine, best);
        for (uint32_t left = vi_bits(dies); left; left &= left - 1) {
            int64_t slot = i + __builtin_ctz(left);
            memset(s->value + slot * c->values, 0, (size_t)c->values * sizeof(float));
            if (pruned) pruned[slot] = 1;
        }
    }
    return vf_top(best);
}

/* The usage of slots that may be given up, else infinity; all are alive. */
static inline vf may_go(const pool *s, int64_t i)
{
    vi own = vi_lanes() + (int32_t)i;
    return vf_pick((own >= (int32_t)s->p.c->learned) & (own < (int32_t)s->p.c->slots),
                   vf_load(s->usage + i), vf_set(INFINITY));
}

/* The slot for a novel token: the lowest dead one, else the least used one that may be given up. */
static int64_t choose_slot(pool *s, float beta)
{
    const nsmi_slots *c = s->p.c;
    for (int64_t i = 0; i < c->slots; i += W) {
        uint32_t dead = ~vi_bits(vi_load(s->alive + i)) & ((1u << W) - 1u);
        if (dead) {
            int64_t slot = i + __builtin_ctz(dead);
            if (slot < c->slots) return slot;
        }
    }
    vf least = vf_set(INFINITY);
    for (int64_t i = 0; i < s->p.wide; i += W) least = vf_min(may_go(s, i), least);
    float most = -vf_top(-least);
    for (int64_t i = 0; i < s->p.wide; i += W) {
        uint32_t found = vi_bits(may_go(s, i) == most) * (uint32_t)(most < INFINITY);
        if (!found) continue;
        s->recycled = most < c->tau_recycle * beta;
        return s->recycled ? i + __builtin_ctz(found) : -1;
    }
    return -1;
}

static void open_slot(pool *s, int64_t slot, int64_t t, float beta, const float *k, const float *q)
{
    const nsmi_slots *c = s->p.c;
    s->alive[slot] = -1;
    s->owner[slot] = (int32_t)t;
    s->usage[slot] = beta;
    set_column(s, slot, k);
    s->with_k[slot] = dot(k, k, c->keys);
    s->with_q[slot] = dot(k, q, c->keys);
    memset(s->value + slot * c->values, 0, (size_t)c->values * sizeof(float));
}

/* S <- alpha S + r u^T with u = b (v - alpha S^T r), then o = S^T p. */
static void write_and_read(pool *s, float alpha, float b, const float *v, float *o)
{
    int64_t dv = s->p.c->values;
    if (alpha != 1)
        VF_EACH(i, lanes, s->p.c->slots * dv,
                vf_put(s->value + i, alpha * vf_get(s->value + i, lanes), lanes););
    VF_EACH(e, lanes, dv, {
        vf old = vf_set(0);
        vf sum = vf_set(0);
        float *value = s->value + e;
        for (int64_t i = 0; i < s->write.count; i++)
            old += s->write.address[i] * vf_get(value + s->write.slot[i] * dv, lanes);
        vf u = b * (vf_get(v + e, lanes) - old);
        for (int64_t i = 0; i < s->write.count; i++) {
            float *row = value + s->write.slot[i] * dv;
            vf_put(row, vf_get(row, lanes) + s->write.address[i] * u, lanes);
        }
        for (int64_t i = 0; i < s->read.count; i++)
            sum += s->read.address[i] * vf_get(value + s->read.slot[i] * dv, lanes);
        vf_put(o + e, sum, lanes);
    });
}

/* Only a slot that takes at least half of a routing counts as used: at most one of each. */
static void count_usage(pool *s, const route *r, float by)
{
    for (int64_t i = 0; i < r->count; i++)
        if (r->prob[i] >= 0.5f) s->usage[r->slot[i]] += by * r->prob[i];
}

static void note_route(const nsmi_slots *c, const route *r, int32_t *slot, float *prob)
{
    for (int64_t i = 0; i < c->top; i++) {
        slot[i] = i < r->count ? r->slot[i] : -1;
        prob[i] = i < r->count ? r->prob[i] : 0;
    }
}

static void note_token(const pool *s, const nsmi_slots_saved *saved, int64_t t)
{
    const nsmi_slots *c = s->p.c;
    int64_t at = s->p.pool * c->tokens + t;
    int32_t *slot = saved->kept + at * (2 * c->top + 1);
    float *prob = saved->prob + at * 2 * c->top;
    note_route(c, &s->write, slot, prob);
    note_route(c, &s->read, slot + c->top, prob + c->top);
    slot[2 * c->top] = s->opened;
}

static void note_trace(const pool *s, const nsmi_slots_trace *trace, int64_t t)
{
    const nsmi_slots *c = s->p.c;
    int64_t at = s->p.pool * c->tokens + t, row = at * c->slots;
    trace->slot[at] = s->opened;
    trace->recycled[at] = s->recycled;
    for (int64_t i = 0; i < c->slots; i++) {
        trace->write[row + i] = trace->read[row + i] = 0;
        trace->usage[row + i] = s->usage[i];
        trace->alive[row + i] = s->alive[i] != 0;
    }
    for (int64_t i = 0; i < s->write.count; i++)
        trace->write[row + s->write.slot[i]] = s->write.prob[i];
    for (int64_t i = 0; i < s->read.count; i++)
        trace->read[row + s->read.slot[i]] = s->read.prob[i];
}

static void one_token(pool *s, int64_t t, float *o, float *mass, const nsmi_slots_saved *saved,
                      const nsmi_slots_trace *trace)
{
    const nsmi_slots *c = s->p.c;
    const nsmi_slots_in *in = s->p.in;
    int64_t scalar = at_token(&s->p, t, 1), heads = c->heads, h = s->p.h;
    const float *k = in->k + scalar * c->keys, *q = in->q + scalar * c->keys;
    float beta = in->beta[scalar];
    uint8_t *pruned = trace ? trace->pruned + (s->p.pool * c->tokens + t) * c->slots : NULL;
    if (pruned) memset(pruned, 0, (size_t)c->slots);
    cosines(s, k, q);
    s->opened = -1;
    s->recycled = false;
    if (fade(s, pruned) < c->tau_new && beta >= c->beta_min) {
        s->opened = (int32_t)choose_slot(s, beta);
        if (s->opened >= 0) open_slot(s, s->opened, t, beta, k, q);
    }
    keep(s->with_k, s->with_q, s->p.wide, c->top, &s->write, &s->read);
    soften(&s->write, in->scalar[h], in->scalar[heads + h]);
    soften(&s->read, in->scalar[2 * heads + h], in->scalar[3 * heads + h]);
    write_and_read(s, in->alpha ? in->alpha[scalar] : 1, beta * s->write.mass,
                   in->v + scalar * c->values, o + scalar * c->values);
    mass[scalar] = s->read.mass;
    count_usage(s, &s->write, beta);
    count_usage(s, &s->read, 1);
    if (saved) note_token(s, saved, t);
    if (trace) note_trace(s, trace, t);
}

static void note_chunk(const pool *s, const nsmi_slots_saved *saved, int64_t chunk, bool values)
{
    const nsmi_slots *c = s->p.c;
    size_t values_bytes = (size_t)(c->slots * c->values) * sizeof(float);
    memcpy(saved->owner + (s->p.pool * (c->chunks + 1) + chunk) * c->slots, s->owner,
           (size_t)c->slots * sizeof(int32_t));
    if (values)
        memcpy(saved->start + (s->p.pool * c->chunks + chunk) * c->slots * c->values, s->value,
               values_bytes);
}

/* The pool as the last token leaves it. */
static void pool_end(const pool *s, float *key, const nsmi_slots_state *st)
{
    const nsmi_slots *c = s->p.c;
    for (int64_t i = 0; i < c->slots; i++) {
        int64_t at = s->p.pool * c->slots + i;
        bool dead = is_dead(s->owner[i]);
        if (dead) memset(key + at * c->keys, 0, (size_t)c->keys * sizeof *key);
        else
            memcpy(key + at * c->keys, key_of(&s->p, s->owner[i], i),
                   (size_t)c->keys * sizeof *key);
        if (!st->usage) continue;
        st->usage[at] = s->usage[i];
        st->alive[at] = !dead;
        if (s->owner[i] != FROM_START) st->birth[at] = dead ? -1 : s->p.seen + s->owner[i];
    }
}

static void run_pool(const nsmi_slots *c, const nsmi_slots_in *in, int64_t index, float *room,
                     const nsmi_slots_state *st, float *o, float *mass, float *key, float *value,
                     const nsmi_slots_saved *saved, const nsmi_slots_trace *trace)
{
    pool s = { .p = find_pool(c, in, index), .value = value + index * c->slots * c->values };
    int64_t chunk = 0;
    pool_rooms(&s, room);
    pool_begin(&s, st);
    for (int64_t a = 0, end; a < s.p.tokens; a = end, chunk++) {
        end = chunk_end(&s.p, a);
        if (saved) note_chunk(&s, saved, chunk, true);
        for (int64_t t = a; t < end; t++) one_token(&s, t, o, mass, saved, trace);
        if (communicates(&s.p, end)) communicate(&s.p, s.owner, s.comm, s.value);
    }
    if (saved) note_chunk(&s, saved, chunk, false);
    for (int64_t t = s.p.tokens; t < c->tokens; t++) {
        memset(o + at_token(&s.p, t, c->values), 0, (size_t)c->values * sizeof *o);
        mass[at_token(&s.p, t, 1)] = 0;
    }
    pool_end(&s, key, st);
}

/* ---- backward ---- */
typedef struct {
    pool_at p;
    const nsmi_slots_saved *saved;
    const nsmi_slots_grad *g;
    float *value, *dvalue;  /* [s, dv] */
    float *rows;            /* [C, s or k, dv] what a token's write replaced */
    float *reset;           /* [C, dv] what the slot held that a token opened */
    float *miss, *u;        /* [C, dv] v - e;  [dv] */
    float *address, *daddress, *dcosine; /* [k] */
    /* [k] keys of the slots that a routing kept, and where their gradients go */
    const float **key;
    float **dkey, *nowhere;    /* [dk]: of no one */
    float *drow;            /* [dv] */
    float *comm;
    int32_t *owner, *former; /* [s]; [C] the owner of the slot that a token opened, before */
    int32_t *first;          /* [chunks] the first token of each */
    float dscalar[6];
} back;

static int64_t rows_of(const nsmi_slots *c, bool decay) { return decay ? c->slots : c->top; }

static int64_t back_floats(const nsmi_slots *c, bool decay)
{
    int64_t s = c->slots, dv = nsmi_blocks(c->values, W) * W;
    return 2 * s * dv + c->chunk * (rows_of(c, decay) + 2) * dv + 2 * dv +
           7 * nsmi_blocks(c->top, 16) * 16 + c->keys +
           (c->comm_every ? (2 * s + 1) * s + s * dv : 0) + s + c->chunk + c->chunks;
}

static void back_rooms(back *k, float *room)
{
    const nsmi_slots *c = k->p.c;
    int64_t s = c->slots, dv = nsmi_blocks(c->values, W) * W, top = nsmi_blocks(c->top, 16) * 16;
    k->key = (const float **)room;
    k->dkey = (float **)(room + 2 * top);
    k->address = room + 4 * top;
    k->daddress = k->address + top;
    k->dcosine = k->daddress + top;
    k->value = k->dcosine + top;
    k->dvalue = k->value + s * dv;
    k->rows = k->dvalue + s * dv;
    k->reset = k->rows + c->chunk * rows_of(c, k->p.in->alpha) * dv;
    k->miss = k->reset + c->chunk * dv;
    k->u = k->miss + c->chunk * dv;
    k->drow = k->u + dv;
    k->nowhere = k->drow + dv;
    k->comm = k->nowhere + c->keys;
    k->owner = (int32_t *)(k->comm + (c->comm_every ? (2 * s + 1) * s + s * dv : 0));
    k->former = k->owner + s;
    k->first = k->former + c->chunk;
}

/* A routing as it was noted: the address again from the probabilities. */
typedef struct { const int32_t *slot; const float *prob; int64_t count; float mass, unit; } noted;

static noted recall(const back *k, int64_t t, bool read, float *address)
{
    const nsmi_slots *c = k->p.c;
    int64_t at = k->p.pool * c->tokens + t;
    noted r = { k->saved->kept + at * (2 * c->top + 1) + (read ? c->top : 0),
                k->saved->prob + at * 2 * c->top + (read ? c->top : 0), 0, 0, 0 };
    float squares = 0;
    for (; r.count < c->top && r.slot[r.count] >= 0; r.count++) {
        r.mass += r.prob[r.count];
        squares += r.prob[r.count] * r.prob[r.count];
    }
    r.unit = 1 / sqrtf(squares + 1e-12f);
    for (int64_t i = 0; i < r.count; i++) address[i] = r.prob[i] * r.unit;
    return r;
}

static inline int32_t opened_at(const back *k, int64_t t)
{
    return k->saved
        ->kept[(k->p.pool * k->p.c->tokens + t) * (2 * k->p.c->top + 1) + 2 * k->p.c->top];
}

/* Token t's write once more; what it replaces is kept at place i of the chunk. */
static void write_again(back *k, int64_t t, int64_t i)
{
    const nsmi_slots *c = k->p.c;
    int64_t dv = c->values, scalar = at_token(&k->p, t, 1);
    int32_t slot = opened_at(k, t);
    noted r = recall(k, t, false, k->address);
    float b = k->p.in->beta[scalar] * r.mass, alpha = k->p.in->alpha ? k->p.in->alpha[scalar] : 1;
    float *rows = k->rows + i * rows_of(c, k->p.in->alpha) * dv, *miss = k->miss + i * dv;
    const float *v = k->p.in->v + scalar * dv;
    if (slot >= 0) {
        memcpy(k->reset + i * dv, k->value + slot * dv, (size_t)dv * sizeof(float));
        memset(k->value + slot * dv, 0, (size_t)dv * sizeof(float));
        k->former[i] = k->owner[slot];
        k->owner[slot] = (int32_t)t;
    }
    if (k->p.in->alpha) {
        memcpy(rows, k->value, (size_t)(c->slots * dv) * sizeof(float));
        VF_EACH(e, lanes, c->slots * dv,
                vf_put(k->value + e, alpha * vf_get(k->value + e, lanes), lanes););
    }
    VF_EACH(e, lanes, dv, {
        vf old = vf_set(0);
        for (int64_t j = 0; j < r.count; j++) {
            vf row = vf_get(k->value + r.slot[j] * dv + e, lanes);
            if (!k->p.in->alpha) vf_put(rows + j * dv + e, row, lanes);
            old += k->address[j] * row;
        }
        vf x = vf_get(v + e, lanes) - old;
        vf_put(miss + e, x, lanes);
        x *= b;
        for (int64_t j = 0; j < r.count; j++) {
            float *row = k->value + r.slot[j] * dv + e;
            vf_put(row, vf_get(row, lanes) + k->address[j] * x, lanes);
        }
    });
}

/* Where the gradient of a slot's key goes. */
static inline float *dkey_of(const back *k, int32_t owner, int64_t slot)
{
    if (owner >= 0) return k->g->dk + at_token(&k->p, owner, k->p.c->keys);
    return k->g->dkey ? k->g->dkey + (k->p.pool * k->p.c->slots + slot) * k->p.c->keys : NULL;
}

/* From the gradients of a and m to those of the token's vector z, of the slots' keys, of gamma and
 *   null. dP = unit (da - a (a . da)) + dm,  dL_i = P_i (dP_i - sum of P dP),  dc = gamma dL */
static void route_back(back *k, const noted *r, const float *address, const float *da, float dm,
                       int64_t which, const float *z, float *dz)
{
    const nsmi_slots *c = k->p.c;
    float gamma = k->p.in->scalar[which * c->heads + k->p.h], along = 0, h = 0;
    for (int64_t i = 0; i < r->count; i++) along += address[i] * da[i];
    for (int64_t i = 0; i < r->count; i++)
        h += r->prob[i] * (r->unit * (da[i] - address[i] * along) + dm);
    k->dscalar[which + 1] -= (1 - r->mass) * h;
    for (int64_t i = 0; i < r->count; i++) {
        int32_t slot = r->slot[i], owner = k->owner[slot];
        k->dcosine[i] = r->prob[i] * (r->unit * (da[i] - address[i] * along) + dm - h);
        k->key[i] = key_of(&k->p, owner, slot);
        k->dkey[i] = dkey_of(k, owner, slot);
        if (!k->dkey[i]) k->dkey[i] = k->nowhere;
    }
    vf dgamma = vf_set(0);
    VF_EACH(e, lanes, c->keys, {
        vf x = vf_get(z + e, lanes);
        vf sum = vf_set(0);
        for (int64_t i = 0; i < r->count; i++) {
            sum += k->dcosine[i] * vf_get(k->key[i] + e, lanes);
            vf_put(k->dkey[i] + e, vf_get(k->dkey[i] + e, lanes) + gamma * k->dcosine[i] * x,
                   lanes);
        }
        dgamma += x * sum;
        vf_put(dz + e, vf_get(dz + e, lanes) + gamma * sum, lanes);
    });
    k->dscalar[which] += vf_sum(dgamma);
}

static void read_back(back *k, int64_t t)
{
    const nsmi_slots *c = k->p.c;
    int64_t scalar = at_token(&k->p, t, 1), dv = c->values;
    const float *o = k->g->o ? k->g->o + scalar * dv : NULL;
    noted r = recall(k, t, true, k->address);
    for (int64_t i = 0; i < r.count; i++) {
        k->daddress[i] = o ? dot(k->value + r.slot[i] * dv, o, dv) : 0;
        if (o) add_scaled(k->dvalue + r.slot[i] * dv, k->address[i], o, dv);
    }
    route_back(k, &r, k->address, k->daddress, k->g->mass ? k->g->mass[scalar] : 0, 2,
               k->p.in->q + scalar * c->keys, k->g->dq + scalar * c->keys);
}

/* Values and their gradients before the decay: dS' = alpha dS, and what alpha gets. */
static float decay_back(back *k, float alpha, const float *before)
{
    vf sum = vf_set(0);
    int64_t n = k->p.c->slots * k->p.c->values;
    VF_EACH(i, lanes, n, {
        vf d = vf_get(k->dvalue + i, lanes);
        vf s = vf_get(before + i, lanes);
        sum += d * s;
        vf_put(k->dvalue + i, alpha * d, lanes);
        vf_put(k->value + i, s, lanes);
    });
    return vf_sum(sum);
}

static void write_back(back *k, int64_t t, int64_t i)
{
    const nsmi_slots *c = k->p.c;
    const nsmi_slots_in *in = k->p.in;
    int64_t scalar = at_token(&k->p, t, 1), dv = c->values;
    noted r = recall(k, t, false, k->address);
    const float *rows = k->rows + i * rows_of(c, in->alpha) * dv, *miss = k->miss + i * dv;
    float beta = in->beta[scalar], b = beta * r.mass, alpha = in->alpha ? in->alpha[scalar] : 1,
          *dv_t = k->g->dv + scalar * dv;
    vf db = vf_set(0);
    VF_EACH(e, lanes, dv, {
        vf du = vf_set(0);
        vf x = vf_get(miss + e, lanes);
        for (int64_t j = 0; j < r.count; j++)
            du += k->address[j] * vf_get(k->dvalue + r.slot[j] * dv + e, lanes);
        db += du * x;
        vf_put(dv_t + e, vf_get(dv_t + e, lanes) + b * du, lanes);
        vf_put(k->u + e, b * x, lanes);
        vf_put(k->drow + e, -b * du, lanes);
    });
    for (int64_t j = 0; j < r.count; j++) {
        float *dvalue = k->dvalue + r.slot[j] * dv, *value = k->value + r.slot[j] * dv;
        const float *old = in->alpha ? rows + r.slot[j] * dv : rows + j * dv;
        vf da = vf_set(0);
        VF_EACH(e, lanes, dv, {
            vf d = vf_get(dvalue + e, lanes);
            vf s = vf_get(old + e, lanes);
            vf de = vf_get(k->drow + e, lanes);
            da += d * vf_get(k->u + e, lanes) + alpha * s * de;
            vf_put(dvalue + e, d + k->address[j] * de, lanes);
            vf_put(value + e, s, lanes);
        });
        k->daddress[j] = vf_sum(da);
    }
    float strength = vf_sum(db);
    if (in->alpha) k->g->dalpha[scalar] += decay_back(k, alpha, rows);
    k->g->dbeta[scalar] += strength * r.mass;
    route_back(k, &r, k->address, k->daddress, strength * beta, 0, in->k + scalar * c->keys,
               k->g->dk + scalar * c->keys);
}

static void token_back(back *k, int64_t t, int64_t i)
{
    int64_t dv = k->p.c->values;
    int32_t slot = opened_at(k, t);
    read_back(k, t);
    write_back(k, t, i);
    if (slot < 0) return;
    memset(k->dvalue + slot * dv, 0, (size_t)dv * sizeof(float));
    memcpy(k->value + slot * dv, k->reset + i * dv, (size_t)dv * sizeof(float));
    k->owner[slot] = k->former[i];
}

/* With A the softmax and S, D values and gradients before and after:
 *   dS_j = (1 - kappa) D_j + kappa sum_i A_ij D_i,  dA_ij = kappa D_i . S_j,  dkappa = sum D_i . (A
 *   S - S)_i
 * owner: of the slots alive then. */
static void comm_back(back *k, const int32_t *owner)
{
    const nsmi_slots *c = k->p.c;
    int64_t s = c->slots, dv = c->values, dk = c->keys;
    float *cosine = k->comm, *mix = cosine + s * s, *dmix = mix + s * s, *heard = dmix + s;
    float kappa = k->p.in->scalar[4 * c->heads + k->p.h],
          gamma = k->p.in->scalar[5 * c->heads + k->p.h];
    comm_weights(&k->p, owner, cosine, mix);
    memset(heard, 0, (size_t)(s * dv) * sizeof *heard);
    for (int64_t i = 0; i < s; i++) {
        float along = 0;
        if (is_dead(owner[i])) continue;
        for (int64_t j = 0; j < s; j++) {
            if (is_dead(owner[j])) continue;
            dmix[j] = dot(k->dvalue + i * dv, k->value + j * dv, dv);
            along += mix[i * s + j] * dmix[j];
            add_scaled(heard + j * dv, mix[i * s + j], k->dvalue + i * dv, dv);
        }
        k->dscalar[4] += along - dmix[i];
        for (int64_t j = 0; j < s; j++) {
            if (is_dead(owner[j])) continue;
            float dl = mix[i * s + j] * kappa * (dmix[j] - along), *to_i = dkey_of(k, owner[i], i),
                  *to_j = dkey_of(k, owner[j], j);
            k->dscalar[5] += dl * cosine[i * s + j];
            if (to_i) add_scaled(to_i, gamma * dl, key_of(&k->p, owner[j], j), dk);
            if (to_j) add_scaled(to_j, gamma * dl, key_of(&k->p, owner[i], i), dk);
        }
    }
    for (int64_t i = 0; i < s; i++)
        for (int64_t e = i * dv; e < (i + 1) * dv; e++)
            k->dvalue[e] = is_dead(owner[i]) ? 0 : (1 - kappa) * k->dvalue[e] + kappa * heard[e];
}

/* Gradients of the pool as it was left: those of slots that died are no one's. */
static void back_begin(back *k, int64_t chunks)
{
    const nsmi_slots *c = k->p.c;
    int64_t dv = c->values, first = k->p.pool * c->slots;
    memcpy(k->owner, k->saved->owner + (k->p.pool * (c->chunks + 1) + chunks) * c->slots,
           (size_t)c->slots * sizeof(int32_t));
    for (int64_t i = 0; i < c->slots; i++) {
        float *to = k->dvalue + i * dv;
        if (k->owner[i] == DEAD || !k->g->value) memset(to, 0, (size_t)dv * sizeof *to);
        else memcpy(to, k->g->value + (first + i) * dv, (size_t)dv * sizeof *to);
        float *dkey = k->owner[i] == DEAD || !k->g->key ? NULL : dkey_of(k, k->owner[i], i);
        if (dkey) add_scaled(dkey, 1, k->g->key + (first + i) * c->keys, c->keys);
    }
}

static void chunk_back(back *k, int64_t chunk, int64_t a, int64_t end)
{
    const nsmi_slots *c = k->p.c;
    int64_t s = c->slots, dv = c->values;
    const int32_t *owners = k->saved->owner + (k->p.pool * (c->chunks + 1) + chunk) * s;
    memcpy(k->value, k->saved->start + (k->p.pool * c->chunks + chunk) * s * dv,
           (size_t)(s * dv) * sizeof(float));
    memcpy(k->owner, owners, (size_t)s * sizeof *owners);
    for (int64_t t = a; t < end; t++) write_again(k, t, t - a);
    if (communicates(&k->p, end)) comm_back(k, owners + s);
    for (int64_t t = end - 1; t >= a; t--) token_back(k, t, t - a);
}

static void pool_back(const nsmi_slots *c, const nsmi_slots_in *in, const nsmi_slots_saved *saved,
                      const nsmi_slots_grad *g, int64_t index, float *room, float *dscalar)
{
    back k = { .p = find_pool(c, in, index), .saved = saved, .g = g };
    int64_t chunks = 0;
    back_rooms(&k, room);
    for (int64_t a = 0; a < k.p.tokens; a = chunk_end(&k.p, a)) k.first[chunks++] = (int32_t)a;
    back_begin(&k, chunks);
    for (int64_t i = chunks - 1; i >= 0; i--)
        chunk_back(&k, i, k.first[i], chunk_end(&k.p, k.first[i]));
    if (g->dvalue)
        add_scaled(g->dvalue + index * c->slots * c->values, 1, k.dvalue, c->slots * c->values);
    memcpy(dscalar, k.dscalar, sizeof k.dscalar);
}

/* ---- the table ---- */
static int64_t team_of(const nsm_device *d, const nsmi_slots *c)
{
    int64_t pools = c->batch * c->heads;
    int team = nsmi_team(d, pools * c->tokens * c->slots * (c->keys + c->values) / 8);
    return pools < team ? pools : team;
}

static int64_t slots_room(nsm_device *d, const nsmi_slots *c, bool decay, bool backward)
{
    int64_t pools = c->batch * c->heads, each = backward ? back_floats(c, decay) : pool_floats(c);
    return (backward ? 6 * pools : 0) + 16 + team_of(d, c) * (nsmi_blocks(each, 16) * 16);
}

static void slots(nsm_device *d, const nsmi_slots *c, const nsmi_slots_in *in,
                  const nsmi_slots_state *st, float *scratch, float *o, float *mass, float *key,
                  float *value, const nsmi_slots_saved *saved, const nsmi_slots_trace *trace)
{
    int64_t pools = c->batch * c->heads, each = nsmi_blocks(pool_floats(c), 16) * 16;
#pragma omp parallel for num_threads((int)team_of(d, c)) schedule(dynamic)
    for (int64_t i = 0; i < pools; i++)
        run_pool(c, in, i, scratch + omp_get_thread_num() * each, st, o, mass, key, value, saved,
                 trace);
}

static void slots_back(nsm_device *d, const nsmi_slots *c, const nsmi_slots_in *in,
                       const nsmi_slots_saved *saved, float *scratch, const nsmi_slots_grad *g)
{
    int64_t pools = c->batch * c->heads, each = nsmi_blocks(back_floats(c, in->alpha), 16) * 16;
    float *part = scratch + team_of(d, c) * each; /* [pools, 6] */
#pragma omp parallel for num_threads((int)team_of(d, c)) schedule(dynamic)
    for (int64_t i = 0; i < pools; i++)
        pool_back(c, in, saved, g, i, scratch + omp_get_thread_num() * each, part + 6 * i);
    for (int64_t i = 0; i < pools; i++)
        for (int64_t j = 0; j < (c->comm_every ? 6 : 4); j++)
            g->dscalar[j * c->heads + i % c->heads] += part[6 * i + j];
}

void NSMI_FILL(slots)(nsm_backend *be)
{
    be->slots_room = slots_room;
    be->slots = slots;
    be->slots_back = slots_back;
}
