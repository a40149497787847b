/* kernels/cuda/attention.cu - Attention over a graph's edges: GAT and GATv2, fused.
 *
 * Forward walks the destinations once: a thread takes a row's V columns of one head, and a softmax
 * that goes on from entry to entry (Milakov and Gimelshein, arXiv:1805.02867), so no thread waits
 * for another and nothing of E x H x D is written; the exponentials are computed again by the D / V
 * threads of a head, which costs less than sharing them.  GATv2's scores, a dot product each, come
 * first.
 *
 * Backward keeps one number an entry and head: the probability (negative where it was dropped),
 * then the gradient of the score.  dx walks the sources, the scores' gradients every entry, and
 * what is summed over rows walks rows: no atomics anywhere.
 *
 * Letters: R rows (destinations), E entries, H heads, D per head; j source, r row, e entry; p
 * probability, z what goes into the leaky relu. */
#include "kernels/cuda/functions.h"
#include "kernels/cuda/rows.h"

/* What all passes need. */
typedef struct {
    int64_t heads, dim;
    nsm_csr_part m;
    float slope, p_drop, keep; /* keep: 1/(1 - p_drop) */
    draws random;
    const float *x;            /* what is summed: GAT's x, GATv2's l */
    const float *src, *dst;    /* GATv2: dst is q */
    const float *edge, *att;
    const float *score;        /* [E, H], GATv2's; NULL: GAT's, computed where it is needed */
} graph;

static __device__ __forceinline__ float leaky(float z, float slope)
{
    return z > 0 ? z : z * slope;
}
static __device__ __forceinline__ float leaky_slope(float z, float slope)
{
    return z > 0 ? 1 : slope;
}

/* GAT's z of entry e (in forward's order), of source j and row r. */
static __device__ __forceinline__ float gat_z(const graph &g, int64_t j, int64_t r, int64_t e,
                                              int64_t h)
{
    float z = g.src[j * g.heads + h] + g.dst[r * g.heads + h];
    return g.edge ? z + g.edge[e * g.heads + h] : z;
}

static __device__ __forceinline__ float edge_score(const graph &g, int64_t j, int64_t r, int64_t e,
                                                   int64_t h)
{
    return g.score ? g.score[e * g.heads + h] : leaky(gat_z(g, j, r, e, h), g.slope);
}

/* 1/(1-p) where entry e's head h is kept, 0 where it is dropped; 1 without dropout */
static __device__ __forceinline__ float drop_of(const graph &g, int64_t e, int64_t h)
{
    return g.p_drop > 0 ? kept_by(g.random, e * g.heads + h, g.p_drop, g.keep) : 1;
}

/* p by what forward left in stat [R, 2 H] */
static __device__ __forceinline__ float prob_of(const graph &g, const float *stat, int64_t r,
                                                int64_t h, float score)
{
    return expf(score - stat[2 * r * g.heads + h]) * stat[(2 * r + 1) * g.heads + h];
}

/* ---- forward ---- */

template <int V> struct attend_job {
    struct acc { float top, sum, v[V]; };
    int64_t vecs; /* H D / V */
    graph g;
    float *y, *stat;

    __device__ void raise(acc &a, float top) const
    {
        float scale = expf(a.top - top);
        a.sum *= scale;
        for (int k = 0; k < V; k++) a.v[k] *= scale;
        a.top = top;
    }
    /* N entries at once: fetched together, the sums raised at most once */
    template <int N>
    __device__ void take(int64_t row, int64_t e, int64_t h, const float *x, acc &a) const
    {
        float s[N], v[N][V], top = a.top;
        for (int i = 0; i < N; i++) {
            int64_t j = g.m.idx[e + i];
            s[i] = edge_score(g, j, row, e + i, h);
            get<V>(x + j * vecs * V, v[i]);
        }
        for (int i = 0; i < N; i++) top = s[i] > top ? s[i] : top;
        if (top > a.top) raise(a, top);
        for (int i = 0; i < N; i++) {
            float p = expf(s[i] - a.top), by = p * drop_of(g, e + i, h);
            a.sum += p;
            for (int k = 0; k < V; k++) a.v[k] += by * v[i][k];
        }
    }
    __device__ void span(int64_t row, int64_t lo, int64_t hi, int64_t vec, acc &a) const
    {
        int64_t h = vec * V / g.dim, e = lo;
        a.top = minus_infinity();
        a.sum = 0;
        for (int k = 0; k < V; k++) a.v[k] = 0;
        for (; e + 4 <= hi; e += 4) take<4>(row, e, h, g.x + vec * V, a);
        for (; e < hi; e++) take<1>(row, e, h, g.x + vec * V, a);
    }
    __device__ void join(acc &a, const acc &next) const
    {
        acc other = next;
        float top = other.top > a.top ? other.top : a.top;
        raise(a, top);
        raise(other, top);
        a.sum += other.sum;
        for (int k = 0; k < V; k++) a.v[k] += other.v[k];
    }
    __device__ void done(int64_t row, int64_t vec, acc &a) const
    {
        bool empty = g.m.ptr[row] == g.m.ptr[row + 1];
        float share = empty ? 0 : 1 / a.sum;
        for (int k = 0; k < V; k++) a.v[k] *= share;
        set<V>(y + (row * vecs + vec) * V, 0, a.v);
        if (vec * V % g.dim) return; /* a head's first columns leave its moments */
        int64_t h = vec * V / g.dim;
        stat[2 * row * g.heads + h] = empty ? 0 : a.top;
        stat[(2 * row + 1) * g.heads + h] = share;
    }
};

struct prob_job {
    int64_t heads;
    graph g;
    const float *stat;
    float *prob;
    bool sign; /* negative where it was dropped */

    __device__ void entry(int64_t row, int64_t e, int64_t h) const
    {
        float p = prob_of(g, stat, row, h, edge_score(g, g.m.idx[e], row, e, h));
        prob[e * heads + h] = sign && drop_of(g, e, h) == 0 ? -p : p;
    }
};

static inline bool by_fours(const graph &g, const void *other)
{
    return g.dim % 4 == 0 && aligned(g.x) && aligned(other);
}

static void attend(nsm_device *d, const graph &g, float *y, float *stat, float *prob)
{
    int64_t width = g.heads * g.dim;
    if (by_fours(g, y)) {
        attend_job<4> j = { width / 4, g, y, stat };
        walk(d, &g.m, j, NULL);
    } else {
        attend_job<1> j = { width, g, y, stat };
        walk(d, &g.m, j, NULL);
    }
    prob_job p = { g.heads, g, stat, prob, false };
    if (prob) each(d, &g.m, p);
}

static graph graph_of(const nsm_device *d, const nsm_csr_part *m, int64_t heads, int64_t dim,
                      float slope, float p_drop, nsm_random r, const float *x, const float *src,
                      const float *dst, const float *edge, const float *att)
{
    float keep = 1 / (1 - p_drop);
    graph g = { heads, dim, *m,  slope, p_drop, keep, draws_of(d, r),
                x,     src, dst, edge,  att,    NULL };
    return g;
}

static void gat(nsm_device *d, const nsm_csr_part *m, int64_t heads, int64_t dim, float slope,
                float p_drop, nsm_random r, const float *x, const float *src, const float *dst,
                const float *edge, float *y, float *stat, float *prob)
{
    attend(d, graph_of(d, m, heads, dim, slope, p_drop, r, x, src, dst, edge, NULL), y, stat, prob);
}

/* GATv2's scores: att . leaky(l[j] + q[r] + edge[e]) */
struct score_job {
    int64_t heads;
    graph g;
    float *out; /* [E, H] */

    __device__ float term(int64_t row, int64_t e, int64_t h, int64_t i) const
    {
        int64_t at = h * g.dim + i, width = heads * g.dim;
        float z = g.x[g.m.idx[e] * width + at] + g.dst[row * width + at];
        if (g.edge) z += g.edge[e * width + at];
        return g.att[at] * leaky(z, g.slope);
    }
    __device__ void entry(int64_t row, int64_t e, int64_t h) const
    {
        float s = 0;
        for (int64_t i = 0; i < g.dim; i++) s += term(row, e, h, i);
        out[e * heads + h] = s;
    }
    __device__ void entry_warp(int64_t row, int64_t e, int64_t h) const
    {
        float s = 0;
        for (int64_t i = lane_of(); i < g.dim; i += LANES) s += term(row, e, h, i);
        s = warp_sum(s);
        if (lane_of() == 0) out[e * heads + h] = s;
    }
};

static void scores(nsm_device *d, const graph &g, float *out)
{
    score_job j = { g.heads, g, out };
    if (g.dim < LONG_DOT) each(d, &g.m, j);
    else each_together(d, &g.m, j);
}

/* Memory of a call's own, beside the scratch that walks use; NULL, and trouble, when it is out. */
static float *own_floats(nsm_device *d, int64_t n)
{
    float *p = (float *)d->be->alloc(d, (size_t)(n ? n : 1) * sizeof *p);
    if (!p) nsmi_cuda_trouble(d, NSM_ENOMEM, "out of memory for %s", "attention over a graph");
    return p;
}

static void gatv2(nsm_device *d, const nsm_csr_part *m, int64_t heads, int64_t dim, float slope,
                  float p_drop, nsm_random r, const float *l, const float *q, const float *edge,
                  const float *att, float *y, float *stat, float *prob)
{
    graph g = graph_of(d, m, heads, dim, slope, p_drop, r, l, NULL, q, edge, att);
    float *score = prob ? prob : own_floats(d, m->nnz * heads);
    if (!score) return;
    scores(d, g, score);
    g.score = score;
    attend(d, g, y, stat, prob);
    if (!prob) d->be->release(d, score, 0);
}

/* ---- backward, what both share ---- */

/* delta [R, H] = <y, dy> of each head */
static __global__ void delta_kernel(int64_t n, int64_t dim, const float *y, const float *dy,
                                    float *delta)
{
    EACH_ITEM(i, n) delta[i] = dot_of(y + i * dim, dy + i * dim, dim);
}

/* By source j: dx[j] += the sum over its entries of p drop dy[r], for GAT. */
template <int V> struct source_job {
    struct acc { float v[V]; };
    int64_t vecs;
    graph g; /* m: the transpose */
    const float *prob, *dy;
    float *dx;

    __device__ void span(int64_t, int64_t lo, int64_t hi, int64_t vec, acc &a) const
    {
        int64_t h = vec * V / g.dim;
        for (int k = 0; k < V; k++) a.v[k] = 0;
        for (int64_t e = lo; e < hi; e++) {
            float p = prob[g.m.pos[e] * g.heads + h], v[V];
            get<V>(dy + (g.m.idx[e] * vecs + vec) * V, v);
            for (int k = 0; k < V; k++) a.v[k] += p > 0 ? p * g.keep * v[k] : 0;
        }
    }
    __device__ void join(acc &a, const acc &next) const
    {
        for (int k = 0; k < V; k++) a.v[k] += next.v[k];
    }
    __device__ void done(int64_t row, int64_t vec, acc &a) const
    {
        set<V>(dx + (row * vecs + vec) * V, 1, a.v);
    }
};

/* Every entry's ds = p (drop <dy[r], x[j]> - delta), from p in `prob`; GAT: dz, its sums come
 * after;
 * GATv2: p drop stays in prob. */
struct score_back_job {
    int64_t heads;
    graph g;
    const float *dy, *delta;
    float *prob, *out, *dedge;

    __device__ void finish(int64_t row, int64_t e, int64_t h, float dot) const
    {
        int64_t at = e * heads + h;
        float signed_p = prob[at], p = fabsf(signed_p), by = signed_p > 0 ? g.keep : 0;
        float ds = p * (by * dot - delta[row * heads + h]);
        if (g.att) {
            prob[at] = p * by;
            out[at] = ds;
            return;
        }
        float dz = ds * leaky_slope(gat_z(g, g.m.idx[e], row, e, h), g.slope);
        out[at] = dz;
        if (dedge) dedge[at] += dz;
    }
    __device__ const float *left(int64_t row, int64_t h) const
    {
        return dy + (row * heads + h) * g.dim;
    }
    __device__ const float *right(int64_t e, int64_t h) const
    {
        return g.x + (g.m.idx[e] * heads + h) * g.dim;
    }
    __device__ void entry(int64_t row, int64_t e, int64_t h) const
    {
        finish(row, e, h, dot_of(left(row, h), right(e, h), g.dim));
    }
    __device__ void entry_warp(int64_t row, int64_t e, int64_t h) const
    {
        float dot = dot_warp(left(row, h), right(e, h), g.dim);
        if (lane_of() == 0) finish(row, e, h, dot);
    }
};

static void scores_back(nsm_device *d, const graph &g, const float *y, const float *dy,
                        float *delta, float *prob, float *out, float *dedge)
{
    score_back_job j = { g.heads, g, dy, delta, prob, out, dedge };
    FOR_ITEMS(d, delta_kernel, g.m.rows * g.heads, g.dim, y, dy, delta);
    if (g.dim < LONG_DOT) each(d, &g.m, j);
    else each_together(d, &g.m, j);
}

/* ---- GAT ---- */

static void gat_back(nsm_device *d, const nsm_csr *m, int64_t heads, int64_t dim, float slope,
                     float p_drop, nsm_random r, const float *x, const float *src, const float *dst,
                     const float *edge, const float *y, const float *stat, const float *dy,
                     float *scratch, float *dx, float *dsrc, float *ddst, float *dedge)
{
    graph g = graph_of(d, &m->fwd, heads, dim, slope, p_drop, r, x, src, dst, edge, NULL), back = g;
    back.m = m->bwd;
    if (!dx && !dsrc && !ddst && !dedge) return;
    prob_job p = { heads, g, stat, scratch, true };
    each(d, &m->fwd, p);
    if (dx && dim % 4 == 0 && aligned(dy) && aligned(dx)) {
        source_job<4> j = { heads * dim / 4, back, scratch, dy, dx };
        walk(d, &m->bwd, j, NULL);
    } else if (dx) {
        source_job<1> j = { heads * dim, back, scratch, dy, dx };
        walk(d, &m->bwd, j, NULL);
    }
    if (!dsrc && !ddst && !dedge) return;
    float *delta = own_floats(d, m->rows * heads);
    if (!delta) return;
    scores_back(d, g, y, dy, delta, scratch, scratch, dedge);
    if (ddst) nsmi_cuda_sum_rows(d, &m->fwd, NULL, heads, NULL, false, scratch, 1, ddst);
    if (dsrc) nsmi_cuda_sum_rows(d, &m->bwd, m->bwd.pos, heads, NULL, false, scratch, 1, dsrc);
    d->be->release(d, delta, 0);
}

/* ---- GATv2 ---- */

/* z of V columns at `at` */
template <int V>
static __device__ __forceinline__ void v2_z(const graph &g, int64_t j, int64_t r, int64_t e,
                                            int64_t at, float z[V])
{
    int64_t width = g.heads * g.dim;
    float q[V];
    get<V>(g.x + j * width + at, z);
    get<V>(g.dst + r * width + at, q);
    for (int k = 0; k < V; k++) z[k] += q[k];
    if (!g.edge) return;
    get<V>(g.edge + e * width + at, q);
    for (int k = 0; k < V; k++) z[k] += q[k];
}

/* By destination: dz into dq and dedge, ds leaky(z) into the row's part of datt. */
template <int V> struct v2_row_job {
    struct acc { float dq[V], datt[V]; };
    int64_t vecs;
    graph g;
    const float *ds;
    float *dq, *datt, *dedge; /* datt [R, H D] */

    __device__ void span(int64_t row, int64_t lo, int64_t hi, int64_t vec, acc &a) const
    {
        int64_t at = vec * V, h = at / g.dim;
        float att[V];
        get<V>(g.att + at, att);
        for (int k = 0; k < V; k++) a.dq[k] = a.datt[k] = 0;
        for (int64_t e = lo; e < hi; e++) {
            float z[V], dz[V], s = ds[e * g.heads + h];
            v2_z<V>(g, g.m.idx[e], row, e, at, z);
            for (int k = 0; k < V; k++) {
                float by = s * leaky_slope(z[k], g.slope);
                dz[k] = by * att[k];
                a.dq[k] += dz[k];
                a.datt[k] += by * z[k];
            }
            if (dedge) set<V>(dedge + e * vecs * V + at, 1, dz);
        }
    }
    __device__ void join(acc &a, const acc &next) const
    {
        for (int k = 0; k < V; k++) {
            a.dq[k] += next.dq[k];
            a.datt[k] += next.datt[k];
        }
    }
    __device__ void done(int64_t row, int64_t vec, acc &a) const
    {
        if (dq) set<V>(dq + (row * vecs + vec) * V, 1, a.dq);
        if (datt) set<V>(datt + (row * vecs + vec) * V, 0, a.datt);
    }
};

/* By source: dl[j] += the sum of p drop dy[r] + dz. */
template <int V> struct v2_source_job {
    struct acc { float v[V]; };
    int64_t vecs;
    graph g; /* m: the transpose */
    const float *prob, *ds, *dy;
    float *dl;

    __device__ void span(int64_t row, int64_t lo, int64_t hi, int64_t vec, acc &a) const
    {
        int64_t at = vec * V, h = at / g.dim;
        float att[V];
        get<V>(g.att + at, att);
        for (int k = 0; k < V; k++) a.v[k] = 0;
        for (int64_t i = lo; i < hi; i++) {
            int64_t e = g.m.pos[i], r = g.m.idx[i];
            float z[V], v[V], p = prob[e * g.heads + h], s = ds[e * g.heads + h];
            v2_z<V>(g, row, r, e, at, z);
            get<V>(dy + r * vecs * V + at, v);
            for (int k = 0; k < V; k++)
                a.v[k] += p * v[k] + s * leaky_slope(z[k], g.slope) * att[k];
        }
    }
    __device__ void join(acc &a, const acc &next) const
    {
        for (int k = 0; k < V; k++) a.v[k] += next.v[k];
    }
    __device__ void done(int64_t row, int64_t vec, acc &a) const
    {
        set<V>(dl + (row * vecs + vec) * V, 1, a.v);
    }
};

template <int V>
static void v2_walks(nsm_device *d, const nsm_csr *m, const graph &g, const float *prob,
                     const float *ds, const float *dy, float *dl, float *dq, float *dedge,
                     float *datt_rows)
{
    int64_t vecs = g.heads * g.dim / V;
    graph back = g;
    back.m = m->bwd;
    v2_row_job<V> by_row = { vecs, g, ds, dq, datt_rows, dedge };
    if (dq || dedge || datt_rows) walk(d, &m->fwd, by_row, NULL);
    v2_source_job<V> by_source = { vecs, back, prob, ds, dy, dl };
    if (dl) walk(d, &m->bwd, by_source, NULL);
}

static void gatv2_back(nsm_device *d, const nsm_csr *m, int64_t heads, int64_t dim, float slope,
                       float p_drop, nsm_random r, const float *l, const float *q,
                       const float *edge, const float *att, const float *y, const float *stat,
                       const float *dy, float *scratch, float *dl, float *dq, float *dedge,
                       float *datt)
{
    graph g = graph_of(d, &m->fwd, heads, dim, slope, p_drop, r, l, NULL, q, edge, att);
    int64_t width = heads * dim, n = m->nnz * heads;
    float *prob = own_floats(d, n), *delta = prob ? own_floats(d, m->rows * heads) : NULL;
    /* every row's part of datt */
    float *datt_rows = delta && datt ? own_floats(d, m->rows * width) : NULL;
    if (delta && (datt_rows || !datt)) {
        scores(d, g, scratch);
        g.score = scratch;
        prob_job p = { heads, g, stat, prob, true };
        each(d, &m->fwd, p);
        scores_back(d, g, y, dy, delta, prob, scratch, NULL);
        bool fours = by_fours(g, dy) && aligned(q) && aligned(att) && (!edge || aligned(edge)) &&
                     (!dl || aligned(dl)) && (!dq || aligned(dq)) && (!dedge || aligned(dedge));
        if (fours) v2_walks<4>(d, m, g, prob, scratch, dy, dl, dq, dedge, datt_rows);
        else v2_walks<1>(d, m, g, prob, scratch, dy, dl, dq, dedge, datt_rows);
        if (datt && m->rows) d->be->column_sum(d, m->rows, width, datt_rows, 1, datt);
    }
    if (prob) d->be->release(d, prob, 0);
    if (delta) d->be->release(d, delta, 0);
    if (datt_rows) d->be->release(d, datt_rows, 0);
}

void nsmi_cuda_attention(nsm_backend *be)
{
    be->gat = gat;
    be->gat_back = gat_back;
    be->gatv2 = gatv2;
    be->gatv2_back = gatv2_back;
}
