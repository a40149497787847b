/* base/ops/loss.c - Losses.
 *
 * Cross entropy is one op around the kernel that goes over the logits once; the others are
 * compositions.  What a loss takes as given (targets, weights) is detached. */
#include "config.h"
#include "base/ops/common.h"

/* ---- cross entropy: in = logits, target, class weight, row weight; i = {axis, reduction, ignore};
 * f[0] smoothing ---- */
static bool is_soft(const nsm_node *n) { return n->in[1]->type == NSM_F32; }

/* The logits' dims without the class axis; returns the rank. */
static int row_dims(const nsm_tensor *logits, int64_t axis, int64_t dim[NSM_MAX_RANK])
{
    int rank = 0;
    for (int k = 0; k < logits->rank; k++)
        if (k != axis) dim[rank++] = logits->dim[k];
    return rank;
}

static bool has_dims(const nsm_tensor *t, int rank, const int64_t *dim)
{
    bool ok = t->rank == rank;
    for (int k = 0; ok && k < rank; k++) ok = t->dim[k] == dim[k];
    return ok;
}

static void cross_entropy_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0], *target = n->in[1], *row_weight = n->in[3];
    int64_t dim[NSM_MAX_RANK];
    if (!nsmi_resolve_axis(n, 0, false)) return;
    int rank = row_dims(x, n->i[0], dim);
    nsmi_view v = nsmi_around(x, n->i[0]);
    bool fits = is_soft(n) ? has_dims(target, x->rank, x->dim)
                           : target->type == NSM_I32 && has_dims(target, rank, dim);
    if (x->type != NSM_F32 || !fits)
        nsmi_bad_shape(n, "want float32 logits, and int32 targets without the class axis or "
                          "float32 ones with it");
    else if (!nsmi_is_vector(n->in[2], v.n) ||
             (row_weight && nsm_numel(row_weight) != v.outer * v.inner) ||
             (n->in[2] && n->in[2]->type != NSM_F32) || (row_weight && row_weight->type != NSM_F32))
        nsmi_bad_shape(n, "the weights of classes or of rows do not fit");
    else if (!(n->f[0] >= 0 && n->f[0] <= 1))
        nsm_error_set(n->ctx, NSM_EINVAL, "nsm_cross_entropy: label smoothing is %g, want 0..1",
                      (double)n->f[0]);
    else
        nsm_node_out(n, 0, NSM_F32, n->i[1] == NSM_LOSS_NONE ? rank : 0, dim);
}

static bool check_targets(nsm_node *n, int64_t classes)
{
    return is_soft(n) || nsmi_check_index(n, "target", n->in[1], classes, n->i[2]);
}

static nsmi_ce options_of(const nsm_node *n)
{
    return (nsmi_ce){ n->f[0], n->i[2], n->in[2] ? n->in[2]->f32 : NULL,
                      n->in[3] ? n->in[3]->f32 : NULL };
}

static const int64_t one_number[5] = { 1, 1, 1, 1, 1 };

/* The size of the first axis of what is not reduced. */
static float batch_of(const nsm_node *n)
{
    int64_t dim[NSM_MAX_RANK];
    return row_dims(n->in[0], n->i[0], dim) > 0 ? (float)dim[0] : 1.0f;
}

static void cross_entropy_forward(nsm_node *n)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    int64_t rows = v.outer * v.inner;
    nsm_tensor *lse = SAVE(n, 0, rows), *total = SAVE(n, 1, 1);
    float *weight = nsmi_floats(n, rows),
          *loss = n->i[1] == NSM_LOSS_NONE ? Y(0) : nsmi_floats(n, rows);
    if (nsmi_failed(n->ctx) || !check_targets(n, v.n)) return;
    BE(n)->cross_entropy(DEV(n), options_of(n), v.outer, v.n, v.inner, X(0),
                         is_soft(n) ? NULL : n->in[1]->i32, is_soft(n) ? X(1) : NULL, loss, weight,
                         lse->f32);
    if (n->i[1] == NSM_LOSS_NONE) return;
    BE(n)->reduce(DEV(n), NSMI_SUM, 1, rows, 1, loss, Y(0), NULL);
    if (n->i[1] == NSM_LOSS_BATCHMEAN) BE(n)->axpby(DEV(n), 1, 1 / batch_of(n), Y(0), 0, Y(0));
    if (n->i[1] != NSM_LOSS_MEAN) return;
    BE(n)->reduce(DEV(n), NSMI_SUM, 1, rows, 1, weight, total->f32, NULL);
    BE(n)->binary(DEV(n), NSMI_DIV, one_number, Y(0), (nsmi_strides){ { 0 } }, total->f32,
                  (nsmi_strides){ { 0 } }, Y(0));
}

/* The gradient of each row's loss, [rows]. */
static const float *row_gradients(nsm_node *n, int64_t rows)
{
    const nsmi_strides none = { { 0 } }, dense = { { 0, 0, 0, 0, 1 } };
    if (n->i[1] == NSM_LOSS_NONE) return DY(0);
    float *g = nsmi_floats(n, rows), *each = nsmi_floats(n, 1);
    if (!g || !each) return NULL;
    if (n->i[1] == NSM_LOSS_MEAN)
        BE(n)->binary(DEV(n), NSMI_DIV, one_number, DY(0), none, n->saved[1]->f32, none, each);
    else BE(n)->axpby(DEV(n), 1, n->i[1] == NSM_LOSS_SUM ? 1 : 1 / batch_of(n), DY(0), 0, each);
    BE(n)->zero(DEV(n), (size_t)rows * sizeof(float), g);
    BE(n)->binary(DEV(n), NSMI_ADD, (const int64_t[]){ 1, 1, 1, 1, rows }, g, dense, each, none, g);
    return g;
}

static void cross_entropy_backward(nsm_node *n)
{
    nsmi_view v = nsmi_around(n->in[0], n->i[0]);
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    const float *g = dx ? row_gradients(n, v.outer * v.inner) : NULL;
    if (!g) return;
    BE(n)->cross_entropy_back(DEV(n), options_of(n), v.outer, v.n, v.inner, X(0),
                              is_soft(n) ? NULL : n->in[1]->i32, is_soft(n) ? X(1) : NULL,
                              n->saved[0]->f32, g, beta, dx);
}

const nsm_op nsmi_op_cross_entropy = { "nsm_cross_entropy",
                                       cross_entropy_shape,
                                       cross_entropy_forward,
                                       cross_entropy_backward,
                                       2,
                                       NSM_READS_IN(0) | NSM_READS_IN(1) | NSM_READS_IN(2) |
                                           NSM_READS_IN(3),
                                       false };

/* ---- compositions ---- */
static nsm_tensor *reduced(nsm_tape *tape, nsm_tensor *loss, nsm_reduction r)
{
    if (!loss || r == NSM_LOSS_NONE) return loss;
    if (r == NSM_LOSS_MEAN) return nsm_mean(tape, loss, NSM_ALL, false);
    nsm_tensor *sum = nsm_sum(tape, loss, NSM_ALL, false);
    return r == NSM_LOSS_SUM ? sum : nsm_scale(tape, sum, 1 / (float)loss->dim[0], 0);
}

/* Are both there, and of the same shape? */
static bool agree(nsm_tape *tape, const char *who, const nsm_tensor *x, const nsm_tensor *target)
{
    char a[96], b[96];
    if (!tape || !x || !target) return false;
    if (has_dims(target, x->rank, x->dim)) return true;
    nsm_error_set(x->ctx, NSM_ESHAPE, "%s: the target is %s, the input %s", who,
                  nsm_shape_text(target, a), nsm_shape_text(x, b));
    return false;
}

/* With probabilities that want a gradient themselves: -sum over classes of w q log p. */
static nsm_tensor *soft_cross_entropy(nsm_tape *tape, nsm_tensor *logits, nsm_tensor *target,
                                      const nsm_cross_entropy_config *c, int axis)
{
    if (!agree(tape, "nsm_cross_entropy", logits, target)) return NULL;
    nsm_tensor *logp = nsm_log_softmax(tape, logits, axis); /* which checks the axis */
    if (!logp) return NULL;
    if (axis < 0) axis += logits->rank;
    int64_t classes = logits->dim[axis], by_class[NSM_MAX_RANK] = { classes, 1, 1, 1, 1 };
    nsm_tensor *q = target, *count = NULL;
    if (c->label_smoothing != 0)
        q = nsm_scale(tape, q, 1 - c->label_smoothing, c->label_smoothing / (float)classes);
    if (c->class_weight)
        q = nsm_mul(tape, q,
                    nsm_detach(tape,
                               nsm_reshape(tape, c->class_weight, logits->rank - axis, by_class)));
    nsm_tensor *loss = nsm_neg(tape, nsm_sum(tape, nsm_mul(tape, q, logp), axis, false));
    if (loss && c->row_weight) {
        count = nsm_detach(tape, nsm_reshape(tape, c->row_weight, loss->rank, loss->dim));
        loss = nsm_mul(tape, loss, count);
    }
    if (!count || c->reduction != NSM_LOSS_MEAN) return reduced(tape, loss, c->reduction);
    return nsm_div(tape, nsm_sum(tape, loss, NSM_ALL, false), nsm_sum(tape, count, NSM_ALL, false));
}

nsm_tensor *nsm_cross_entropy(nsm_tape *tape, nsm_tensor *logits, nsm_tensor *target,
                              const nsm_cross_entropy_config *config)
{
    nsm_cross_entropy_config c = config ? *config : (nsm_cross_entropy_config){ 0 };
    if (!tape || !logits || !target) return NULL;
    int axis = c.class_first ? 0 : c.class_axis ? c.class_axis : logits->rank == 1 ? 0 : 1;
    if (target->type == NSM_F32 && target->needs_grad)
        return soft_cross_entropy(tape, logits, target, &c, axis);
    return nsm_apply(tape, &nsmi_op_cross_entropy,
                     &(nsm_args){ .in = { logits, target, c.class_weight, c.row_weight },
                                  .i = { axis, c.reduction, c.ignore ? c.ignore_index : -1 },
                                  .f = { c.label_smoothing } });
}

/* (1-t) x + (1 + (p-1) t) softplus(-x): no exp of a large number, no log of a small one. */
nsm_tensor *nsm_bce_with_logits(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target,
                                nsm_tensor *pos_weight, nsm_reduction r)
{
    if (!agree(tape, "nsm_bce_with_logits", x, target)) return NULL;
    nsm_tensor *t = nsm_detach(tape, target), *soft = nsm_softplus(tape, nsm_neg(tape, x), 1, 20);
    if (pos_weight) {
        nsm_tensor *extra = nsm_mul(tape, t, nsm_scale(tape, nsm_detach(tape, pos_weight), 1, -1));
        if (!agree(tape, "nsm_bce_with_logits with pos_weight", x, extra)) return NULL;
        soft = nsm_mul(tape, nsm_scale(tape, extra, 1, 1), soft);
    }
    return reduced(tape, nsm_add(tape, nsm_mul(tape, nsm_scale(tape, t, -1, 1), x), soft), r);
}

nsm_tensor *nsm_mse_loss(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, nsm_reduction r)
{
    if (!agree(tape, "nsm_mse_loss", x, target)) return NULL;
    return reduced(tape, nsm_square(tape, nsm_sub(tape, x, target)), r);
}

nsm_tensor *nsm_l1_loss(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, nsm_reduction r)
{
    if (!agree(tape, "nsm_l1_loss", x, target)) return NULL;
    return reduced(tape, nsm_abs(tape, nsm_sub(tape, x, target)), r);
}

/* With m = min(|d|, limit), the Huber loss is m (|d| - m / 2). */
static nsm_tensor *huber(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, float limit)
{
    nsm_tensor *size = nsm_abs(tape, nsm_sub(tape, x, target)),
               *m = nsm_clamp(tape, size, 0, limit);
    return nsm_mul(tape, m, nsm_sub(tape, size, nsm_scale(tape, m, 0.5f, 0)));
}

nsm_tensor *nsm_huber_loss(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, float delta,
                           nsm_reduction r)
{
    if (!agree(tape, "nsm_huber_loss", x, target)) return NULL;
    if (delta > 0) return reduced(tape, huber(tape, x, target, delta), r);
    nsm_error_set(x->ctx, NSM_EINVAL, "nsm_huber_loss: delta is %g, want more than 0",
                  (double)delta);
    return NULL;
}

nsm_tensor *nsm_smooth_l1_loss(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, float beta,
                               nsm_reduction r)
{
    if (!agree(tape, "nsm_smooth_l1_loss", x, target)) return NULL;
    if (beta == 0) return nsm_l1_loss(tape, x, target, r);
    if (beta > 0)
        return reduced(tape, nsm_scale(tape, huber(tape, x, target, beta), 1 / beta, 0), r);
    nsm_error_set(x->ctx, NSM_EINVAL, "nsm_smooth_l1_loss: beta is %g, want 0 or more",
                  (double)beta);
    return NULL;
}

nsm_tensor *nsm_kl_div(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, bool log_target,
                       nsm_reduction r)
{
    if (!agree(tape, "nsm_kl_div", x, target)) return NULL;
    nsm_tensor *t = log_target ? nsm_exp(tape, target) : nsm_detach(tape, target);
    /* t log t is 0 at 0 */
    nsm_tensor *logt = log_target ? target : nsm_log(tape, nsm_clamp(tape, t, FLT_MIN, INFINITY));
    return reduced(tape, nsm_mul(tape, t, nsm_sub(tape, logt, x)), r);
}

nsm_tensor *nsm_distillation(nsm_tape *tape, nsm_tensor *student, nsm_tensor *teacher,
                             float temperature, bool scaled, nsm_reduction r)
{
    if (!agree(tape, "nsm_distillation", student, teacher)) return NULL;
    if (!(temperature > 0)) {
        nsm_error_set(student->ctx, NSM_EINVAL,
                      "nsm_distillation: the temperature is %g, want more than 0",
                      (double)temperature);
        return NULL;
    }
    nsm_tensor *s = nsm_log_softmax(tape, nsm_scale(tape, student, 1 / temperature, 0), -1);
    nsm_tensor *t = nsm_log_softmax(tape, nsm_scale(tape, teacher, 1 / temperature, 0), -1);
    nsm_tensor *loss = nsm_kl_div(tape, s, t, true, r);
    return scaled ? nsm_scale(tape, loss, temperature * temperature, 0) : loss;
}

nsm_tensor *nsm_gaussian_kl(nsm_tape *tape, nsm_tensor *mu, nsm_tensor *logvar, nsm_reduction r)
{
    if (!agree(tape, "nsm_gaussian_kl", mu, logvar)) return NULL;
    nsm_tensor *grown = nsm_sub(tape, nsm_exp(tape, logvar), logvar);
    return reduced(tape, nsm_scale(tape, nsm_add(tape, nsm_square(tape, mu), grown), 0.5f, -0.5f),
                   r);
}

/* 0, 1, 2, ...: the classes of the diagonal. */
static void iota_shape(nsm_node *n) { nsm_node_out(n, 0, NSM_I32, 1, n->i); }
static void iota_forward(nsm_node *n)
{
    int32_t *host = nsmi_malloc(n->ctx, (size_t)n->i[0] * sizeof *host);
    for (int64_t k = 0; host && k < n->i[0]; k++) host[k] = (int32_t)k;
    if (host) nsmi_constant(n->ctx, (size_t)n->i[0] * sizeof *host, host, n->out[0]->i32);
    free(host);
}
const nsm_op nsmi_op_iota = { "nsm_iota", iota_shape,        iota_forward, NULL,
                              0,          NSM_READS_NOTHING, false };

nsm_tensor *nsm_info_nce(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b,
                         const nsm_info_nce_config *config)
{
    nsm_info_nce_config c = config ? *config : (nsm_info_nce_config){ 0 };
    if (!agree(tape, "nsm_info_nce", a, b)) return NULL;
    if (c.normalize) {
        a = nsm_normalize(tape, a, c.eps > 0 ? c.eps : 1e-12f);
        b = nsm_normalize(tape, b, c.eps > 0 ? c.eps : 1e-12f);
    }
    nsm_tensor *logits = nsm_matmul(tape, a, b, false, true);
    if (c.scale) logits = nsm_mul(tape, logits, nsm_exp(tape, c.scale));
    nsm_tensor *target = nsm_apply(tape, &nsmi_op_iota,
                                   &(nsm_args){ .i = { logits ? logits->dim[0] : 0 } });
    nsm_tensor *rows = nsm_cross_entropy(tape, logits, target,
                                         &(nsm_cross_entropy_config){ .reduction = c.reduction });
    if (!c.symmetric) return rows;
    nsm_tensor *columns = nsm_cross_entropy(tape, logits, target,
                                            &(nsm_cross_entropy_config){ .reduction = c.reduction,
                                                                         .class_first = true });
    return nsm_scale(tape, nsm_add(tape, rows, columns), 0.5f, 0);
}
