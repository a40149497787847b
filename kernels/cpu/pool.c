/* kernels/cpu/pool.c - Pools of states over sets: age, open, route.
 *
 * Opening is farthest first: of the elements that are there, the one least near to any state alive
 * opens the lowest dead state, until none is farther than tau_new or no state is dead.  One sweep
 * over the elements after each opening updates how near each is and finds the next; its blocks are
 * joined in order, ties go to the lowest place, so the choice does not depend on threads.  Sets
 * side by side or the blocks of one large set are what threads share.
 *
 * Letters: B sets, n elements, s states, D size of a key. */
#include <limits.h>
#include "kernels/cpu/cpu.h"

enum { SWEEP = 512, MOST_SWEEPS = 256 }; /* elements of a block, at least; blocks, at most */

/* ---- age ---- */
static void pool_age(nsm_device *d, const nsmi_pool *c, float *usage, uint8_t *alive, float *kept)
{
    (void)d;
    for (int64_t i = 0; i < c->batch * c->slots; i++) {
        usage[i] *= c->rho;
        bool gone = alive[i] && i % c->slots >= c->learned && usage[i] < c->tau_prune;
        if (gone) usage[i] = alive[i] = 0;
        kept[i] = gone ? 0 : 1;
    }
}

/* ---- open ---- */
static inline float product(const float *a, const float *b, int64_t n)
{
    vf s = vf_set(0);
    VF_EACH(i, lanes, n, s += vf_get(a + i, lanes) * vf_get(b + i, lanes););
    return vf_sum(s);
}

static inline void add_row(float *y, const float *x, int64_t n)
{
    VF_EACH(i, lanes, n, { vf_put(y + i, vf_get(y + i, lanes) + vf_get(x + i, lanes), lanes); });
}

/* near <- max(near, k . key) for elements from .. to; the first of the least. */
static int64_t sweep(const float *k, int64_t size, const float *key, float *near, int64_t from,
                     int64_t to)
{
    int64_t least = from;
    for (int64_t j = from; j < to; j++) {
        float c = key ? product(k + j * size, key, size) : near[j];
        if (c > near[j]) near[j] = c;
        if (near[j] < near[least]) least = j;
    }
    return least;
}

/* The same over a whole set; absent elements are infinitely near. */
static int64_t sweep_set(const float *k, int64_t n, int64_t size, const float *key, float *near,
                         int team)
{
    int64_t step = nsmi_blocks(n, MOST_SWEEPS) > SWEEP ? nsmi_blocks(n, MOST_SWEEPS) : SWEEP,
            blocks = nsmi_blocks(n, step), found[MOST_SWEEPS + 1];
#pragma omp parallel for num_threads(team) schedule(static) if (team > 1)
    for (int64_t b = 0; b < blocks; b++)
        found[b] = sweep(k, size, key, near, b * step, nsmi_block_end(b, step, n));
    int64_t least = blocks ? found[0] : -1;
    for (int64_t b = 1; b < blocks; b++)
        if (near[found[b]] < near[least]) least = found[b];
    return least;
}

/* One set: near [n]; opened [n], owner [s] the element that opened a state. */
static void open_set(const nsmi_pool *c, const float *k, const float *key, const uint8_t *there,
                     uint8_t *alive, float *near, int32_t *opened, int32_t *owner, int team)
{
    int64_t n = c->tokens, least = -1;
    for (int64_t j = 0; j < n; j++) {
        near[j] = there && !there[j] ? INFINITY : -INFINITY;
        opened[j] = -1;
    }
    for (int64_t i = 0; i < c->slots; i++) owner[i] = -1;
    for (int64_t i = 0; i < c->slots; i++)
        if (alive[i]) sweep_set(k, n, c->size, key + i * c->size, near, team);
    least = sweep_set(k, n, c->size, NULL, near, team);
    for (int64_t i = 0; i < c->slots && least >= 0 && near[least] < c->tau_new; i++) {
        if (alive[i]) continue;
        alive[i] = 1;
        owner[i] = (int32_t)least;
        opened[least] = (int32_t)i;
        least = sweep_set(k, n, c->size, k + least * c->size, near, team);
    }
}

static void pool_open(nsm_device *d, const nsmi_pool *c, const float *k, const float *key,
                      uint8_t *alive, float *near, int32_t *opened, int32_t *owner, float *next,
                      float *shut)
{
    int64_t n = c->tokens, s = c->slots, size = c->size;
    int all = nsmi_team(d, c->batch * n * size * s), within = c->batch < all ? all : 1;
#pragma omp parallel for num_threads(within > 1 ? 1 : all) schedule(static) if (within == 1)
    for (int64_t b = 0; b < c->batch; b++) {
        open_set(c, k + b * n * size, key + b * s * size, c->there ? c->there + b * n : NULL,
                 alive + b * s, near + b * n, opened + b * n, owner + b * s, within);
        for (int64_t i = 0; i < s; i++) {
            int64_t at = b * s + i;
            memcpy(next + at * size, key + at * size, (size_t)size * sizeof *next);
            if (owner[at] >= 0) add_row(next + at * size, k + (b * n + owner[at]) * size, size);
            shut[at] = alive[at] ? 0 : -INFINITY;
        }
    }
}

static void pool_open_back(nsm_device *d, const nsmi_pool *c, const int32_t *owner,
                           const float *dnext, float *dk, float *dkey)
{
    (void)d;
    for (int64_t i = 0; i < c->batch * c->slots; i++) {
        const float *from = dnext + i * c->size;
        if (dkey) add_row(dkey + i * c->size, from, c->size);
        if (dk && owner[i] >= 0)
            add_row(dk + (i / c->slots * c->tokens + owner[i]) * c->size, from, c->size);
    }
}

/* ---- route ---- */
/* The next of the largest cosines of living states below `above` (or equal, behind `after`); -1:
 * none is left. */
static int64_t next_largest(int64_t s, const float *cosine, const uint8_t *alive, float above,
                            int64_t after)
{
    int64_t best = -1;
    for (int64_t i = 0; i < s; i++)
        if (alive[i] && (cosine[i] < above || (cosine[i] == above && i > after)) &&
            (best < 0 || cosine[i] > cosine[best]))
            best = i;
    return best;
}

static void route_row(int64_t s, int64_t top, const float *cosine, const uint8_t *alive,
                      float gamma, float null, float *share)
{
    float most = null, sum, above = INFINITY;
    int64_t at = -1, kept = 0;
    memset(share, 0, (size_t)s * sizeof *share);
    while (kept < top && (at = next_largest(s, cosine, alive, above, at)) >= 0) {
        above = cosine[at];
        if (kept++ == 0 && gamma * above > most) most = gamma * above;
        share[at] = 1; /* marked: kept */
    }
    sum = expf(null - most);
    for (int64_t i = 0; i < s; i++)
        if (share[i] != 0) sum += share[i] = expf(gamma * cosine[i] - most);
    for (int64_t i = 0; i < s; i++) share[i] /= sum;
}

static void pool_route(nsm_device *d, const nsmi_pool *c, const float *cosine, const uint8_t *alive,
                       const float *gamma, const float *null, float *share)
{
    int64_t s = c->slots, rows = c->batch * c->tokens, step = nsmi_block_rows(s * c->top);
#pragma omp parallel for num_threads(nsmi_team(d, rows * s * c->top)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(rows, step); b++)
        for (int64_t r = b * step; r < nsmi_block_end(b, step, rows); r++) {
            if (c->there && !c->there[r]) memset(share + r * s, 0, (size_t)s * sizeof *share);
            else
                route_row(s, c->top, cosine + r * s, alive + r / c->tokens * s, *gamma, *null,
                          share + r * s);
        }
}

/* dL_i = P_i (dP_i - h), h = sum P dP, L = gamma cosine; the null share's logit gets -(1 - sum P)
 * h. */
static void pool_route_back(nsm_device *d, const nsmi_pool *c, const float *cosine,
                            const float *gamma, const float *share, const float *dshare,
                            float *dcosine, float *dgamma, float *dnull)
{
    int64_t s = c->slots, rows = c->batch * c->tokens, step = nsmi_partial_rows(rows, s, 2),
            blocks = nsmi_blocks(rows, step);
    float *partial = nsmi_scratch(d); /* [blocks, 2] */
#pragma omp parallel for num_threads(nsmi_team(d, rows * s * 4)) schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        float along = 0, shut = 0;
        for (int64_t r = b * step; r < nsmi_block_end(b, step, rows); r++) {
            const float *p = share + r * s, *dp = dshare + r * s, *x = cosine + r * s;
            float h = product(p, dp, s), mass = 0;
            for (int64_t i = 0; i < s; i++) {
                float dl = p[i] * (dp[i] - h);
                mass += p[i];
                along += p[i] != 0 ? dl * x[i] : 0;
                if (dcosine) dcosine[r * s + i] += *gamma * dl;
            }
            shut -= (1 - mass) * h;
        }
        partial[2 * b] = along;
        partial[2 * b + 1] = shut;
    }
    for (int64_t b = 0; b < blocks; b++) {
        if (dgamma) *dgamma += partial[2 * b];
        if (dnull) *dnull += partial[2 * b + 1];
    }
}

void NSMI_FILL(pool)(nsm_backend *be)
{
    be->pool_age = pool_age;
    be->pool_open = pool_open;
    be->pool_open_back = pool_open_back;
    be->pool_route = pool_route;
    be->pool_route_back = pool_route_back;
}
