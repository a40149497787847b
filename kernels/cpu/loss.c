/* kernels/cpu/loss.c - Cross entropy and its gradient, with PyTorch's semantics.
 *
 * Per row, with class weights w, smoothing e, C classes, p = softmax of the logits x:
 *   index y:      loss = (1 - e) w[y] (-log p[y]) + e / C sum over c of w[c] (-log p[c]), weight
 *   w[y]
 *   probability:  loss = sum over c of w[c] q[c] (-log p[c]), q = (1 - e) prob + e / C,    weight 1
 * both times the row's own weight.  -log p[c] = lse - x[c], so all terms are sums of x, weighted.
 *
 * A lane is a row: W rows are worked on at a time, W classes of each turned into W vectors, so that
 * nothing is summed across lanes and few classes cost no more than they are.  Rows of
 * [outer, C, inner] with inner > 1 stand side by side, their classes `inner` apart: they need no
 * turning. */
#include "kernels/cpu/cpu.h"

/* W rows or fewer; class c of row i is at [i * row_step + c * class_step]. */
typedef struct {
    nsmi_ce o;
    int64_t first, rows, classes, row_step, class_step, at;
    const float *x, *prob;
    const int32_t *y;         /* NULL with probabilities */
    float weight[W], label[W]; /* of each row, 0 where it does not count; of its own class */
} group;

static group group_of(nsmi_ce o, int64_t first, int64_t end, int64_t c, int64_t inner,
                      const float *logits, const int32_t *target, const float *prob)
{
    int64_t room = inner > 1 ? inner - first % inner : W, rows = end - first < W ? end - first : W;
    group g = { .o = o, .first = first, .rows = rows < room ? rows : room, .classes = c };
    g.row_step = inner > 1 ? 1 : c;
    g.class_step = inner;
    g.at = first / inner * c * inner + first % inner;
    g.x = logits + g.at;
    g.prob = prob ? prob + g.at : NULL;
    g.y = prob ? NULL : target + first;
    for (int64_t i = 0; i < g.rows; i++) {
        bool ignored = g.y && g.y[i] == o.ignore_index;
        g.weight[i] = ignored ? 0 : o.row_weight ? o.row_weight[first + i] : 1;
        g.label[i] = ignored || prob ? 0 : o.class_weight ? o.class_weight[g.y[i]] : 1;
    }
    return g;
}

static int64_t classes_left(const group *g, int64_t c)
{
    return g->classes - c < W ? g->classes - c : W;
}

/* t[j]: class c + j of each row, from or to p. */
static inline void load_classes(const group *g, const float *p, int64_t c, vf t[W])
{
    int64_t n = classes_left(g, c);
    if (g->row_step == 1) {
        for (int64_t j = 0; j < n; j++) t[j] = vf_get(p + (c + j) * g->class_step, g->rows);
        return;
    }
    for (int64_t i = 0; i < W; i++)
        t[i] = i < g->rows ? vf_get(p + i * g->row_step + c, n) : (vf){0};
    vf_transpose(t);
}

static inline void store_classes(const group *g, vf t[W], float beta, int64_t c, float *p)
{
    int64_t n = classes_left(g, c);
    if (g->row_step == 1) {
        for (int64_t j = 0; j < n; j++) blend_n(p + (c + j) * g->class_step, beta, t[j], g->rows);
        return;
    }
    for (int64_t j = n; j < W; j++) t[j] = (vf){0};
    vf_transpose(t);
    for (int64_t i = 0; i < g->rows; i++) blend_n(p + i * g->row_step + c, beta, t[i], n);
}

/* In one pass: the sum is of exp(x - top), and shrinks when a larger one comes. */
static vf log_sum_exp(const group *g)
{
    vf top = vf_set(-INFINITY), sum = {0}, none = vf_set(-INFINITY), t[W];
    for (int64_t c = 0; c < g->classes; c += W) {
        int64_t n = classes_left(g, c);
        load_classes(g, g->x, c, t);
        vf next = top;
        for (int64_t j = 0; j < n; j++) next = vf_max(t[j], next);
        vf base = vf_pick(next == none, (vf){0}, next);
        if (c) sum *= vf_exp(top - base);
        for (int64_t j = 0; j < n; j++) sum += vf_exp(t[j] - base);
        top = next;
    }
    return vf_pick(top == none, (vf){0}, top) + vf_log(sum);
}

/* Rows of a block: whole groups. */
static int64_t block_rows(int64_t c) { return (nsmi_block_rows(c) + W - 1) / W * W; }

/* Coefficients of -log p[c + j] but for the label: smoothing, or all of a probability target */
static void spread(const group *g, int64_t c, vf q[W])
{
    float even = g->o.label_smoothing / (float)g->classes, keep = 1 - g->o.label_smoothing;
    if (g->prob) load_classes(g, g->prob, c, q);
    for (int64_t j = 0; j < classes_left(g, c); j++) {
        q[j] = g->prob ? keep * q[j] + even : vf_set(even);
        if (g->o.class_weight) q[j] *= g->o.class_weight[c + j];
    }
}

static bool is_spread(const group *g) { return g->prob || g->o.label_smoothing != 0; }

static vf spread_loss(const group *g, vf lse)
{
    vf sum = {0}, q[W], t[W];
    for (int64_t c = 0; c < g->classes; c += W) {
        spread(g, c, q);
        load_classes(g, g->x, c, t);
        for (int64_t j = 0; j < classes_left(g, c); j++) sum += q[j] * (lse - t[j]);
    }
    return sum;
}

static void group_loss(const group *g, float *loss, float *weight, float *lse)
{
    vf sums = log_sum_exp(g), spreads = is_spread(g) ? spread_loss(g, sums) : (vf){0};
    float keep = 1 - g->o.label_smoothing;
    for (int64_t i = 0; i < g->rows; i++) {
        float w = g->weight[i], one = spreads[i];
        loss[i] = weight[i] = lse[i] = 0;
        if (w == 0) continue;
        lse[i] = sums[i];
        if (g->y)
            one += keep * g->label[i] *
                   (lse[i] - g->x[i * g->row_step + g->y[i] * g->class_step]);
        loss[i] = w * one;
        weight[i] = g->y ? w * g->label[i] : w;
    }
}

static void cross_entropy(nsm_device *d, nsmi_ce o, int64_t outer, int64_t c, int64_t inner,
                          const float *logits, const int32_t *target, const float *prob,
                          float *loss, float *weight, float *lse)
{
    int64_t rows = outer * inner, size = block_rows(c);
#pragma omp parallel for num_threads(nsmi_team(d, rows * c * 4)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(rows, size); b++)
        for (int64_t i = b * size, end = nsmi_block_end(b, size, rows); i < end;) {
            group g = group_of(o, i, end, c, inner, logits, target, prob);
            group_loss(&g, loss + i, weight + i, lse + i);
            i += g.rows;
        }
}

/* dx = slope (all p - coefficients), all their sum. */
static void group_back(const group *g, const float *lse, const float *dloss, float beta, float *dx)
{
    vf w = vf_get(g->weight, g->rows), slope = w * vf_get(dloss, g->rows),
       sums = vf_get(lse, g->rows);
    vf all = (1 - g->o.label_smoothing) * vf_get(g->label, g->rows), t[W], q[W];
    vi skipped = w == 0;
    bool spreads = is_spread(g);
    for (int64_t c = 0; spreads && c < g->classes; c += W) {
        spread(g, c, q);
        for (int64_t j = 0; j < classes_left(g, c); j++) all += q[j];
    }
    for (int64_t c = 0; c < g->classes; c += W) {
        if (spreads) spread(g, c, q);
        load_classes(g, g->x, c, t);
        for (int64_t j = 0; j < classes_left(g, c); j++) {
            t[j] = all * vf_exp(t[j] - sums);
            if (spreads) t[j] -= q[j];
            t[j] = vf_pick(skipped, (vf){0}, slope * t[j]);
        }
        store_classes(g, t, beta, c, dx);
    }
    for (int64_t i = 0; g->y && i < g->rows; i++)
        if (g->weight[i] != 0)
            dx[i * g->row_step + g->y[i] * g->class_step] -=
                slope[i] * (1 - g->o.label_smoothing) * g->label[i];
}

static void cross_entropy_back(nsm_device *d, nsmi_ce o, int64_t outer, int64_t c, int64_t inner,
                               const float *logits, const int32_t *target, const float *prob,
                               const float *lse, const float *dloss, float beta, float *dlogits)
{
    int64_t rows = outer * inner, size = block_rows(c);
#pragma omp parallel for num_threads(nsmi_team(d, rows * c * 4)) schedule(static)
    for (int64_t b = 0; b < nsmi_blocks(rows, size); b++)
        for (int64_t i = b * size, end = nsmi_block_end(b, size, rows); i < end;) {
            group g = group_of(o, i, end, c, inner, logits, target, prob);
            group_back(&g, lse + i, dloss + i, beta, dlogits + g.at);
            i += g.rows;
        }
}

void NSMI_FILL(loss)(nsm_backend *be)
{
    be->cross_entropy = cross_entropy;
    be->cross_entropy_back = cross_entropy_back;
}
