/* base/ops/norm.c - Reductions over an axis, softmax, and norms.
 *
 * Layer and RMS norm see x as [rows, cols] and keep mean and 1/deviation of each row; batch norm
 * sees it as [outer, C, inner] and keeps them of each channel.  Group norm and the norm
 * over another axis are compositions. */
#include "config.h"
#include "base/ops/common.h"

/* ---- reductions: i = {axis, keep} ---- */
static void reduce_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0];
    int64_t dim[NSM_MAX_RANK];
    int rank = 0;
    if (!nsmi_resolve_axis(n, 0, true) || !nsmi_all_floats(n)) return;
    for (int k = 0; k < x->rank; k++) {
        bool gone = n->i[0] == NSM_ALL || n->i[0] == k;
        if (!gone || n->i[1]) dim[rank++] = gone ? 1 : x->dim[k];
    }
    nsm_node_out(n, 0, NSM_F32, rank, dim);
}

static void choose_shape(nsm_node *n)
{
    reduce_shape(n);
    if (!nsmi_failed(n->ctx) && nsmi_around(n->in[0], n->i[0]).n == 0)
        nsmi_bad_shape(n, "nothing to choose from");
}

static void reduce_with(nsm_node *n, nsmi_reduce f, int32_t *arg)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    BE(n)->reduce(DEV(n), f, v.outer, v.n, v.inner, X(0), Y(0), arg);
}

/* to [outer, n, inner] = f(a, b), each dense or [outer, inner] broadcast over n. */
static void combine(nsm_node *n, nsmi_view v, nsmi_binary f, const float *a, bool spread_a,
                    const float *b, bool spread_b, float *to)
{
    const int64_t dim[5] = { 1, 1, v.outer, v.n, v.inner };
    const nsmi_strides dense = { { 0, 0, v.n * v.inner, v.inner, 1 } },
                       spread = { { 0, 0, v.inner, 0, 1 } };
    BE(n)->binary(DEV(n), f, dim, a, spread_a ? spread : dense, b, spread_b ? spread : dense, to);
}

static void sum_forward(nsm_node *n) { reduce_with(n, NSMI_SUM, NULL); }
static void mean_forward(nsm_node *n) { reduce_with(n, NSMI_MEAN, NULL); }

static void sum_backward(nsm_node *n)
{
    float *dx = DX(0);
    if (dx) combine(n, nsmi_around(n->in[0], n->i[0]), NSMI_ADD, dx, false, DY(0), true, dx);
}

static void mean_backward(nsm_node *n)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    float *share = nsmi_floats(n, nsm_numel(n->out[0])), *dx = DX(0);
    if (!dx || !share) return;
    BE(n)->axpby(DEV(n), nsm_numel(n->out[0]), 1.0f / (float)v.n, DY(0), 0, share);
    combine(n, v, NSMI_ADD, dx, false, share, true, dx);
}

static void choose_forward(nsm_node *n, nsmi_reduce f)
{
    nsm_tensor *arg = nsm_node_save(n, 0, NSM_I32, n->out[0]->rank, n->out[0]->dim);
    if (!nsmi_failed(n->ctx)) reduce_with(n, f, arg->i32);
}

static void max_forward(nsm_node *n) { choose_forward(n, NSMI_MAX_OF); }
static void min_forward(nsm_node *n) { choose_forward(n, NSMI_MIN_OF); }

static void choose_backward(nsm_node *n)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    float *dx = DX(0);
    if (dx) BE(n)->reduce_back(DEV(n), v.outer, v.n, v.inner, n->saved[0]->i32, DY(0), dx);
}

/* log sum exp(x - m) + m with m the largest; a row of -inf gives -inf. */
static void logsumexp_forward(nsm_node *n)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    int64_t many = nsm_numel(n->in[0]), few = nsm_numel(n->out[0]);
    float *most = nsmi_floats(n, few), *e = nsmi_floats(n, many);
    if (!most || !e) return;
    BE(n)->reduce(DEV(n), NSMI_MAX_OF, v.outer, v.n, v.inner, X(0), most, NULL);
    BE(n)->unary(DEV(n), NSMI_CLAMP, -FLT_MAX, FLT_MAX, few, most, most);
    combine(n, v, NSMI_SUB, X(0), false, most, true, e);
    BE(n)->unary(DEV(n), NSMI_EXP, 0, 0, many, e, e);
    BE(n)->reduce(DEV(n), NSMI_SUM, v.outer, v.n, v.inner, e, Y(0), NULL);
    BE(n)->unary(DEV(n), NSMI_LOG, 0, 0, few, Y(0), Y(0));
    BE(n)->axpy(DEV(n), few, 1, most, Y(0));
}

static void logsumexp_backward(nsm_node *n)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    int64_t many = nsm_numel(n->in[0]);
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta), *p = nsmi_floats(n, many);
    if (!dx || !p) return;
    combine(n, v, NSMI_SUB, X(0), false, Y(0), true, p);
    BE(n)->unary(DEV(n), NSMI_EXP, 0, 0, many, p, p);
    combine(n, v, NSMI_MUL, p, false, DY(0), true, p);
    BE(n)->axpby(DEV(n), many, 1, p, beta, dx);
}

#define REDUCTION(name, shape, backward, reads) \
    const nsm_op nsmi_op_##name = { \
        "nsm_" #name, shape, name##_forward, backward, 1, reads, false \
    }; \
    nsm_tensor *nsm_##name(nsm_tape *tape, nsm_tensor *x, int axis, bool keep) \
    { \
        return nsm_apply(tape, &nsmi_op_##name, &(nsm_args){ .in = { x }, .i = { axis, keep } }); \
    }
REDUCTION(sum, reduce_shape, sum_backward, NSM_READS_NOTHING)
REDUCTION(mean, reduce_shape, mean_backward, NSM_READS_NOTHING)
REDUCTION(max, choose_shape, choose_backward, NSM_READS_NOTHING)
REDUCTION(min, choose_shape, choose_backward, NSM_READS_NOTHING)
REDUCTION(logsumexp, choose_shape, logsumexp_backward, NSM_READS_IN(0) | NSM_READS_OUT(0))

/* ---- softmax: i = {axis, log} ---- */
static void softmax_shape(nsm_node *n)
{
    if (nsmi_resolve_axis(n, 0, false)) nsmi_same_shape(n);
}

static void softmax_forward(nsm_node *n)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    BE(n)->softmax(DEV(n), n->i[1] != 0, v.outer, v.n, v.inner, X(0), Y(0));
}

static void softmax_backward(nsm_node *n)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx) BE(n)->softmax_back(DEV(n), n->i[1] != 0, v.outer, v.n, v.inner, Y(0), DY(0), beta, dx);
}

const nsm_op nsmi_op_softmax = {
    "nsm_softmax", softmax_shape, softmax_forward, softmax_backward, 1, NSM_READS_OUT(0), false
};
nsm_tensor *nsm_softmax(nsm_tape *tape, nsm_tensor *x, int axis)
{
    return nsm_apply(tape, &nsmi_op_softmax, &(nsm_args){ .in = { x }, .i = { axis, false } });
}

const nsm_op nsmi_op_log_softmax = {
    "nsm_log_softmax", softmax_shape, softmax_forward, softmax_backward, 1, NSM_READS_OUT(0), false
};
nsm_tensor *nsm_log_softmax(nsm_tape *tape, nsm_tensor *x, int axis)
{
    return nsm_apply(tape, &nsmi_op_log_softmax, &(nsm_args){ .in = { x }, .i = { axis, true } });
}

/* ---- layer norm, RMS norm: in = x, w, b; i = {axes, rms}; f[0] = eps ---- */
static int64_t normed_of(const nsm_node *n)
{
    const nsm_tensor *x = n->in[0];
    int64_t cols = 1;
    for (int k = x->rank - (int)n->i[0]; k < x->rank; k++) cols *= x->dim[k];
    return cols;
}

static bool has_last_axes(const nsm_node *n, const nsm_tensor *w)
{
    const nsm_tensor *x = n->in[0];
    if (!w) return true;
    bool ok = w->rank == n->i[0];
    for (int k = 0; ok && k < w->rank; k++) ok = w->dim[k] == x->dim[x->rank - w->rank + k];
    return ok;
}

static void row_norm_shape(nsm_node *n)
{
    if (n->i[0] < 1 || n->i[0] > n->in[0]->rank)
        nsmi_bad_shape(n, "there are fewer axes than are to be normed");
    else if (!has_last_axes(n, n->in[1]) || !has_last_axes(n, n->in[2]))
        nsmi_bad_shape(n, "weight or bias does not fit the last axes");
    else nsmi_same_shape(n);
}

static void row_norm_forward(nsm_node *n)
{
    int64_t cols = normed_of(n), rows = cols ? nsm_numel(n->in[0]) / cols : 0;
    nsm_tensor *stats = SAVE(n, 0, rows, 2), *w = n->in[1], *b = n->in[2];
    if (nsmi_failed(n->ctx)) return;
    BE(n)->row_norm(DEV(n), n->i[1] != 0, rows, cols, n->f[0], X(0), w ? w->f32 : NULL,
                    b ? b->f32 : NULL, Y(0), stats->f32);
}

static void row_norm_backward(nsm_node *n)
{
    int64_t cols = normed_of(n), rows = cols ? nsm_numel(n->in[0]) / cols : 0;
    float beta, *dx = nsmi_dx_or_scratch(n, 0, &beta), *dw = DX(1), *db = DX(2);
    if (nsmi_failed(n->ctx)) return;
    BE(n)->row_norm_back(DEV(n), n->i[1] != 0, rows, cols, X(0), n->in[1] ? X(1) : NULL,
                         n->saved[0]->f32, DY(0), beta, dx, dw, db);
}

const nsm_op nsmi_op_layer_norm = { "nsm_layer_norm",
                                    row_norm_shape,
                                    row_norm_forward,
                                    row_norm_backward,
                                    1,
                                    NSM_READS_IN(0) | NSM_READS_IN(1),
                                    false };
nsm_tensor *nsm_layer_norm(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *b, int axes,
                           float eps)
{
    return nsm_apply(tape, &nsmi_op_layer_norm,
                     &(nsm_args){ .in = { x, w, b }, .i = { axes, false }, .f = { eps } });
}

const nsm_op nsmi_op_rms_norm = { "nsm_rms_norm",
                                  row_norm_shape,
                                  row_norm_forward,
                                  row_norm_backward,
                                  1,
                                  NSM_READS_IN(0) | NSM_READS_IN(1),
                                  false };
nsm_tensor *nsm_rms_norm(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, int axes, float eps)
{
    return nsm_apply(tape, &nsmi_op_rms_norm,
                     &(nsm_args){ .in = { x, w }, .i = { axes, true }, .f = { eps } });
}

nsm_tensor *nsm_layer_norm_axis(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *b,
                                int axis, float eps)
{
    int there[NSM_MAX_RANK] = { 0 }, back[NSM_MAX_RANK] = { 0 };
    if (!tape || !x) return NULL;
    int last = x->rank - 1, from = axis < 0 ? axis + x->rank : axis;
    if (from < 0 || from > last) {
        nsm_error_set(x->ctx, NSM_EINVAL, "nsm_layer_norm_axis: axis is %d, the rank %d", axis,
                      x->rank);
        return NULL;
    }
    if (from == last) return nsm_layer_norm(tape, x, w, b, 1, eps);
    for (int k = 0; k <= last; k++) {
        there[k] = k < from ? k : k < last ? k + 1 : from;
        back[there[k]] = k;
    }
    return nsm_permute(tape, nsm_layer_norm(tape, nsm_permute(tape, x, there), w, b, 1, eps), back);
}

nsm_tensor *nsm_group_norm(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *b, int groups,
                           float eps)
{
    if (!tape || !x) return NULL;
    int64_t c = x->rank >= 2 ? x->dim[1] : 0;
    if (c == 0 || groups < 1 || c % groups || !nsmi_is_vector(w, c) || !nsmi_is_vector(b, c)) {
        char a[96];
        nsm_error_set(x->ctx, NSM_ESHAPE,
                      "nsm_group_norm: %s in %d groups, or weight and bias do not fit",
                      nsm_shape_text(x, a), groups);
        return NULL;
    }
    const int64_t runs = x->dim[0] * groups, by_channel[2] = { c, 1 };
    nsm_tensor *y = nsm_reshape(tape, x, 2,
                                (const int64_t[]){ runs, runs ? nsm_numel(x) / runs : 0 });
    y = nsm_layer_norm(tape, y, NULL, NULL, 1, eps);
    y = nsm_reshape(tape, y, 3,
                    (const int64_t[]){ x->dim[0], c,
                                       x->dim[0] ? nsm_numel(x) / (x->dim[0] * c) : 0 });
    if (w) y = nsm_mul(tape, y, nsm_reshape(tape, w, 2, by_channel));
    if (b) y = nsm_add(tape, y, nsm_reshape(tape, b, 2, by_channel));
    return nsm_reshape(tape, y, x->rank, x->dim);
}

/* ---- batch norm: in = x, w, b, running mean, running var; i[0] training; f = momentum, eps
 * ---- */
static nsmi_view channels_of(const nsm_tensor *x) { return nsmi_around(x, 1); }

static void batch_norm_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0];
    bool ok = x->rank >= 2 && !n->in[3] == !n->in[4];
    for (int i = 1; i < 5 && ok; i++) ok = nsmi_is_vector(n->in[i], x->dim[1]);
    if (!ok)
        nsmi_bad_shape(n, "want x [N, C, ...], and weight, bias, both or none of mean and var [C]");
    else if (n->i[0] && channels_of(x).outer * channels_of(x).inner < 2)
        nsmi_bad_shape(n, "training takes more than one value a channel");
    else nsmi_same_shape(n);
}

/* stats [C, 2] = mean, 1 / sqrt(var + eps), from the running ones. */
static void running_stats(nsm_node *n, int64_t c, float *rstd, float *stats)
{
    BE(n)->unary(DEV(n), NSMI_SCALE, 1, n->f[1], c, X(4), rstd);
    BE(n)->unary(DEV(n), NSMI_RSQRT, 0, 0, c, rstd, rstd);
    BE(n)->copy_block(DEV(n), c, 1, X(3), 1, 0, stats, 2);
    BE(n)->copy_block(DEV(n), c, 1, rstd, 1, 0, stats + 1, 2);
}

/* The running statistics move towards the batch's, whose variance is made unbiased. */
static void move_running(nsm_node *n, nsmi_view v, const float *stats, float *var)
{
    float count = (float)(v.outer * v.inner), *mean = nsmi_floats(n, v.n);
    if (!mean) return;
    BE(n)->axpby(DEV(n), v.n, count / (count - 1), var, 0, var);
    BE(n)->copy_block(DEV(n), v.n, 1, stats, 2, 0, mean, 1);
    BE(n)->lerp(DEV(n), v.n, n->f[0], mean, X(3));
    BE(n)->lerp(DEV(n), v.n, n->f[0], var, X(4));
}

static void batch_norm_forward(nsm_node *n)
{
    nsmi_view v = channels_of(n->in[0]);
    nsm_tensor *stats = SAVE(n, 0, v.n, 2), *w = n->in[1], *b = n->in[2];
    float *var = nsmi_floats(n, v.n);
    bool training = n->i[0] != 0;
    if (nsmi_failed(n->ctx)) return;
    if (!training) running_stats(n, v.n, var, stats->f32);
    BE(n)->batch_norm(DEV(n), training, v.outer, v.n, v.inner, n->f[1], X(0), w ? w->f32 : NULL,
                      b ? b->f32 : NULL, Y(0), stats->f32, var);
    if (training && n->in[3]) move_running(n, v, stats->f32, var);
}

static void batch_norm_backward(nsm_node *n)
{
    nsmi_view v = channels_of(n->in[0]);
    float beta, *dx = nsmi_dx_or_scratch(n, 0, &beta), *dw = DX(1), *db = DX(2);
    if (nsmi_failed(n->ctx)) return;
    BE(n)->batch_norm_back(DEV(n), n->i[0] != 0, v.outer, v.n, v.inner, X(0),
                           n->in[1] ? X(1) : NULL, n->saved[0]->f32, DY(0), beta, dx, dw, db);
}

const nsm_op nsmi_op_batch_norm = { "nsm_batch_norm",
                                    batch_norm_shape,
                                    batch_norm_forward,
                                    batch_norm_backward,
                                    1,
                                    NSM_READS_IN(0) | NSM_READS_IN(1),
                                    false };
nsm_tensor *nsm_batch_norm(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *b,
                           const nsm_batch_stats *s)
{
    return nsm_apply(tape, &nsmi_op_batch_norm, &(nsm_args){ .in = { x, w, b, s->mean, s->var },
                     .i = { s->training || !s->mean }, .f = { s->momentum, s->eps } });
}

/* By the square of the length, at least eps^2: so a row of zeros has a gradient, too. */
nsm_tensor *nsm_normalize(nsm_tape *tape, nsm_tensor *x, float eps)
{
    if (!tape || !x) return NULL;
    if (!(eps >= 1e-18f)) {
        nsm_error_set(x->ctx, NSM_EINVAL, "nsm_normalize: eps is %g, want at least 1e-18",
                      (double)eps);
        return NULL;
    }
    nsm_tensor *length = nsm_sqrt(tape,
                                  nsm_clamp(tape, nsm_sum(tape, nsm_square(tape, x), -1, true),
                                            eps * eps, INFINITY));
    return nsm_div(tape, x, length);
}
