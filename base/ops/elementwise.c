/* base/ops/elementwise.c - Ops on each value: functions of one tensor, of two with broadcasting,
 * dropout, and bias + activation + dropout in one pass.
 *
 * Which values backward reads is said as sparingly as the mathematics allows: relu its result
 * (the next layer keeps that anyway), sums and scaling nothing. */
#include "config.h"
#include "base/ops/common.h"

/* ---- one input: i[0] the function, f[0], f[1] its constants ---- */
static void unary_forward(nsm_node *n)
{
    BE(n)->unary(DEV(n), (nsmi_unary)n->i[0], n->f[0], n->f[1], nsm_numel(n->in[0]), X(0), Y(0));
}

static void unary_back_from(nsm_node *n, const float *x)
{
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx)
        BE(n)->unary_back(DEV(n), (nsmi_unary)n->i[0], n->f[0], n->f[1], nsm_numel(n->in[0]), x,
                          DY(0), beta, dx);
}

static void unary_backward(nsm_node *n) { unary_back_from(n, X(0)); }
static void relu_backward(nsm_node *n) { unary_back_from(n, Y(0)); } /* y > 0 exactly where x > 0 */

static void scale_backward(nsm_node *n)
{
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx)
        BE(n)->axpby(DEV(n), nsm_numel(n->in[0]), n->i[0] == NSMI_NEG ? -1.0f : n->f[0], DY(0),
                     beta, dx);
}

#define UNARY(name, function, backward, reads, constants, ...) \
    const nsm_op nsmi_op_##name = { \
        "nsm_" #name, nsmi_same_shape, unary_forward, backward, 1, reads, false \
    }; \
    nsm_tensor *nsm_##name(nsm_tape *tape, nsm_tensor *x __VA_ARGS__) \
    { \
        return nsm_apply(tape, &nsmi_op_##name, \
                         &(nsm_args){ .in = { x }, .i = { NSMI_##function }, .f = constants }); \
    }
#define NONE { 0 }
#define PAIR(a, b) { a, b }
#define OF_X(name, function) UNARY(name, function, unary_backward, NSM_READS_IN(0), NONE)

UNARY(relu, RELU, relu_backward, NSM_READS_OUT(0), NONE)
UNARY(neg, NEG, scale_backward, NSM_READS_NOTHING, NONE)
UNARY(scale, SCALE, scale_backward, NSM_READS_NOTHING, PAIR(a, b), , float a, float b)
UNARY(leaky_relu, LEAKY_RELU, unary_backward, NSM_READS_IN(0), { slope }, , float slope)
UNARY(elu, ELU, unary_backward, NSM_READS_IN(0), { alpha }, , float alpha)
UNARY(quick_gelu, QUICK_GELU, unary_backward, NSM_READS_IN(0), { alpha }, , float alpha)
UNARY(softplus, SOFTPLUS, unary_backward, NSM_READS_IN(0), PAIR(beta, threshold), , float beta,
      float threshold)
OF_X(gelu, GELU)
OF_X(gelu_tanh, GELU_TANH)
OF_X(silu, SILU)
OF_X(sigmoid, SIGMOID)
OF_X(tanh, TANH)
OF_X(relu6, RELU6)
OF_X(hardswish, HARDSWISH)
OF_X(mish, MISH)
OF_X(log_sigmoid, LOG_SIGMOID)
OF_X(exp, EXP)
OF_X(log, LOG)
OF_X(sqrt, SQRT)
OF_X(rsqrt, RSQRT)
OF_X(square, SQUARE)
OF_X(abs, ABS)
OF_X(reciprocal, RECIPROCAL)
OF_X(sin, SIN)
OF_X(cos, COS)

static void clamp_shape(nsm_node *n)
{
    if (n->f[0] <= n->f[1]) nsmi_same_shape(n);
    else
        nsm_error_set(n->ctx, NSM_EINVAL, "nsm_clamp: low is %g, high is %g", (double)n->f[0],
                      (double)n->f[1]);
}

const nsm_op nsmi_op_clamp = { "nsm_clamp", clamp_shape,     unary_forward, unary_backward,
                               1,           NSM_READS_IN(0), false };
nsm_tensor *nsm_clamp(nsm_tape *tape, nsm_tensor *x, float low, float high)
{
    return nsm_apply(tape, &nsmi_op_clamp,
                     &(nsm_args){ .in = { x }, .i = { NSMI_CLAMP }, .f = { low, high } });
}

nsm_tensor *nsm_detach(nsm_tape *tape, nsm_tensor *x)
{
    nsm_tensor *y = x ? nsm_reshape(tape, x, x->rank, x->dim) : NULL;
    if (y) y->needs_grad = false;
    return y;
}

/* ---- two inputs: i[0] the function ---- */

/* The result's dims and each input's strides over them, neighbours merged where all three allow. */
typedef struct { int64_t dim[5]; nsmi_strides of[2]; } plan;

static plan plan_of(const nsm_node *n)
{
    const nsm_tensor *y = n->out[0];
    plan p = { .dim = { 1, 1, 1, 1, 1 } };
    int64_t run[2] = { 1, 1 };
    int slot = 5;
    for (int k = y->rank - 1; k >= 0; k--) {
        int64_t stride[2];
        if (y->dim[k] == 1) continue;
        for (int i = 0; i < 2; i++) {
            int axis = k - (y->rank - n->in[i]->rank);
            int64_t size = axis >= 0 ? n->in[i]->dim[axis] : 1;
            stride[i] = size == 1 ? 0 : run[i];
            run[i] *= size;
        }
        bool merge = slot < 5;
        for (int i = 0; i < 2 && merge; i++)
            merge = stride[i] == p.of[i].stride[slot] * p.dim[slot];
        if (merge) {
            p.dim[slot] *= y->dim[k];
            continue;
        }
        p.dim[--slot] = y->dim[k];
        for (int i = 0; i < 2; i++) p.of[i].stride[slot] = stride[i];
    }
    return p;
}

static void binary_shape(nsm_node *n)
{
    const nsm_tensor *a = n->in[0], *b = n->in[1];
    int rank = a->rank > b->rank ? a->rank : b->rank;
    int64_t dim[NSM_MAX_RANK];
    if (!nsmi_all_floats(n)) return;
    for (int k = 0; k < rank; k++) {
        int ka = k - (rank - a->rank), kb = k - (rank - b->rank);
        int64_t da = ka < 0 ? 1 : a->dim[ka], db = kb < 0 ? 1 : b->dim[kb];
        if (da != db && da != 1 && db != 1) {
            nsmi_bad_shape(n, "shapes do not broadcast");
            return;
        }
        dim[k] = da == 1 ? db : da;
    }
    nsm_node_out(n, 0, NSM_F32, rank, dim);
}

static void binary_forward(nsm_node *n)
{
    plan p = plan_of(n);
    BE(n)->binary(DEV(n), (nsmi_binary)n->i[0], p.dim, X(0), p.of[0], X(1), p.of[1], Y(0));
}

static bool is_whole(const nsm_node *n, int i)
{
    return nsm_numel(n->in[i]) == nsm_numel(n->out[0]);
}

/* Both inputs' derivatives in one pass: straight to where they belong, or summed there after. */
static void binary_backward(nsm_node *n)
{
    plan p = plan_of(n);
    float beta[2], *dx[2], keep[2] = { 0, 0 }, *to[2] = { NULL, NULL };
    for (int i = 0; i < 2; i++) {
        dx[i] = nsm_node_dx_beta(n, i, &beta[i]);
        if (dx[i] && is_whole(n, i)) to[i] = dx[i], keep[i] = beta[i];
        else if (dx[i]) to[i] = nsmi_floats(n, nsm_numel(n->out[0]));
    }
    if (nsmi_failed(n->ctx)) return;
    BE(n)->binary_back(DEV(n), (nsmi_binary)n->i[0], p.dim, X(0), p.of[0], X(1), p.of[1], DY(0),
                       keep[0], to[0], keep[1], to[1]);
    for (int i = 0; i < 2; i++)
        if (to[i] != dx[i]) BE(n)->sum_to(DEV(n), p.dim, to[i], p.of[i], beta[i], dx[i]);
}

static void add_backward(nsm_node *n)
{
    plan p = plan_of(n);
    for (int i = 0; i < 2; i++) {
        float sign = i == 1 && n->i[0] == NSMI_SUB ? -1.0f : 1.0f, beta,
              *dx = nsm_node_dx_beta(n, i, &beta);
        const float *dy = DY(0);
        if (!dx) continue;
        if (is_whole(n, i)) {
            BE(n)->axpby(DEV(n), nsm_numel(n->out[0]), sign, dy, beta, dx);
        } else if (sign > 0) {
            BE(n)->sum_to(DEV(n), p.dim, dy, p.of[i], beta, dx);
        } else {
            float *sum = nsmi_floats(n, nsm_numel(n->in[i]));
            if (!sum) return;
            BE(n)->sum_to(DEV(n), p.dim, dy, p.of[i], 0, sum);
            BE(n)->axpby(DEV(n), nsm_numel(n->in[i]), sign, sum, beta, dx);
        }
    }
}

#define BINARY(name, function, backward, reads) \
    const nsm_op nsmi_op_##name = { "nsm_" #name, binary_shape, binary_forward, backward, 2, \
                                    reads,        false }; \
    nsm_tensor *nsm_##name(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b) \
    { \
        return nsm_apply(tape, &nsmi_op_##name, \
                         &(nsm_args){ .in = { a, b }, .i = { NSMI_##function } }); \
    }
BINARY(add, ADD, add_backward, NSM_READS_NOTHING)
BINARY(sub, SUB, add_backward, NSM_READS_NOTHING)
BINARY(mul, MUL, binary_backward, NSM_READS_IN(0) | NSM_READS_IN(1))
BINARY(div, DIV, binary_backward, NSM_READS_IN(0) | NSM_READS_IN(1))
BINARY(maximum, MAX, binary_backward, NSM_READS_IN(0) | NSM_READS_IN(1))
BINARY(minimum, MIN, binary_backward, NSM_READS_IN(0) | NSM_READS_IN(1))
BINARY(mul_silu, GATE, binary_backward, NSM_READS_IN(0) | NSM_READS_IN(1))

/* ---- dropout: f[0] = p ---- */
static bool is_probability(nsm_node *n, float p)
{
    if (p >= 0 && p < 1) return true;
    nsm_error_set(n->ctx, NSM_EINVAL, "%s: the probability is %g, want 0 <= p < 1", n->op->name,
                  (double)p);
    return false;
}

static void dropout_shape(nsm_node *n)
{
    nsm_tensor *x = n->in[0], *y;
    if (!is_probability(n, n->f[0])) return;
    if (!x->csr) {
        nsmi_same_shape(n);
    } else if ((y = OUT(n, 0, nsm_numel(x)))) {
        y->csr = x->csr;
        y->rank = x->rank;
        memcpy(y->dim, x->dim, sizeof y->dim);
    }
}

static void dropout_forward(nsm_node *n)
{
    int64_t count = nsm_numel(n->in[0]);
    BE(n)->dropout(DEV(n), n->f[0], nsm_node_random(n, count), count, X(0), 0, Y(0));
}

static void dropout_backward(nsm_node *n)
{
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx) BE(n)->dropout(DEV(n), n->f[0], n->random, nsm_numel(n->in[0]), DY(0), beta, dx);
}

const nsm_op nsmi_op_dropout = {
    "nsm_dropout", dropout_shape, dropout_forward, dropout_backward, 1, NSM_READS_NOTHING, true
};
nsm_tensor *nsm_dropout(nsm_tape *tape, nsm_tensor *x, float p)
{
    if (p == 0 || (tape && !nsm_tape_training(tape))) return x;
    return nsm_apply(tape, &nsmi_op_dropout, &(nsm_args){ .in = { x }, .f = { p } });
}

/* ---- bias, activation, dropout: i[0] the function, f = a, b, p ---- */
static const struct { const char *name; nsmi_unary f; float a, b; } acts[NSM_ACTS] = {
    [NSM_ACT_NONE] = { "none", NSMI_IDENTITY, 0, 0 },
    [NSM_ACT_RELU] = { "relu", NSMI_RELU, 0, 0 },
    [NSM_ACT_LEAKY_RELU] = { "leaky_relu", NSMI_LEAKY_RELU, 0.01f, 0 },
    [NSM_ACT_ELU] = { "elu", NSMI_ELU, 1, 0 },
    [NSM_ACT_GELU] = { "gelu", NSMI_GELU, 0, 0 },
    [NSM_ACT_GELU_TANH] = { "gelu_tanh", NSMI_GELU_TANH, 0, 0 },
    [NSM_ACT_SILU] = { "silu", NSMI_SILU, 0, 0 },
    [NSM_ACT_SIGMOID] = { "sigmoid", NSMI_SIGMOID, 0, 0 },
    [NSM_ACT_TANH] = { "tanh", NSMI_TANH, 0, 0 },
    [NSM_ACT_SOFTPLUS] = { "softplus", NSMI_SOFTPLUS, 1, 20 },
    [NSM_ACT_RELU6] = { "relu6", NSMI_RELU6, 0, 0 },
    [NSM_ACT_HARDSWISH] = { "hardswish", NSMI_HARDSWISH, 0, 0 },
    [NSM_ACT_MISH] = { "mish", NSMI_MISH, 0, 0 },
    [NSM_ACT_QUICK_GELU] = { "quick_gelu", NSMI_QUICK_GELU, 1.702f, 0 },
    [NSM_ACT_LOG_SIGMOID] = { "log_sigmoid", NSMI_LOG_SIGMOID, 0, 0 },
};

const char *nsm_act_name(nsm_act act) { return acts[act].name; }

int nsm_act_find(const char *name)
{
    for (int k = 0; k < NSM_ACTS; k++)
        if (!strcmp(name, acts[k].name)) return k;
    return -1;
}

void nsm_act_constants(nsm_act act, float *a, float *b)
{
    *a = acts[act].a;
    *b = acts[act].b;
}

static int64_t last_dim(const nsm_tensor *x) { return x->rank > 0 ? x->dim[x->rank - 1] : 1; }
static int64_t rows_of(const nsm_tensor *x)
{
    int64_t c = last_dim(x);
    return c > 0 ? nsm_numel(x) / c : 0;
}

static void activate_shape(nsm_node *n)
{
    if (!nsmi_is_vector(n->in[1], last_dim(n->in[0])))
        nsmi_bad_shape(n, "the bias does not fit the last axis");
    else if (is_probability(n, n->f[2])) nsmi_same_shape(n);
}

static void activate_forward(nsm_node *n)
{
    nsm_tensor *x = n->in[0], *bias = n->in[1];
    nsm_random r = n->f[2] > 0 ? nsm_node_random(n, nsm_numel(x)) : n->random;
    BE(n)->bias_act_dropout(DEV(n), (nsmi_unary)n->i[0], n->f[0], n->f[1], n->f[2], r, rows_of(x),
                            last_dim(x), x->f32, bias ? bias->f32 : NULL, Y(0));
}

static void activate_backward(nsm_node *n)
{
    nsm_tensor *x = n->in[0], *bias = n->in[1];
    bool relu = n->i[0] == NSMI_RELU;
    float beta, *dx = nsmi_dx_or_scratch(n, 0, &beta), *dbias = DX(1);
    if (nsmi_failed(n->ctx)) return;
    BE(n)->bias_act_dropout_back(DEV(n), (nsmi_unary)n->i[0], n->f[0], n->f[1], n->f[2], n->random,
                                 rows_of(x), last_dim(x), relu ? NULL : x->f32,
                                 bias ? bias->f32 : NULL, Y(0), DY(0), beta, dx, dbias);
}

/* The same op three times, by what its backward reads: relu is known from its result, and without
 * an activation nothing is needed. */
const nsm_op nsmi_op_activate = { "nsm_activate",
                                  activate_shape,
                                  activate_forward,
                                  activate_backward,
                                  1,
                                  NSM_READS_IN(0) | NSM_READS_IN(1),
                                  false };
const nsm_op nsmi_op_activate_relu = {
    "nsm_activate", activate_shape, activate_forward, activate_backward, 1, NSM_READS_OUT(0), false
};
const nsm_op nsmi_op_activate_none = {
    "nsm_activate", activate_shape, activate_forward, activate_backward, 1, NSM_READS_NOTHING, false
};

nsm_tensor *nsm_activate(nsm_tape *tape, nsm_tensor *x, nsm_tensor *bias, nsm_act act, float a,
                         float b, float p)
{
    if (!nsm_tape_training(tape)) p = 0;
    if (act == NSM_ACT_NONE && !bias && p == 0) return x;
    const nsm_op *op = act == NSM_ACT_NONE   ? &nsmi_op_activate_none
                       : act == NSM_ACT_RELU ? &nsmi_op_activate_relu
                                             : &nsmi_op_activate;
    return nsm_apply(tape, op,
                     &(nsm_args){ .in = { x, bias }, .i = { acts[act].f }, .f = { a, b, p } });
}

nsm_tensor *nsm_glu(nsm_tape *tape, nsm_tensor *x, int axis, nsm_act act, int half)
{
    if (!tape || !x) return NULL;
    int k = axis < 0 ? axis + x->rank : axis;
    if (k < 0 || k >= x->rank || x->dim[k] % 2) {
        char a[96];
        nsm_error_set(x->ctx, NSM_ESHAPE, "nsm_glu: axis %d of %s is not even", axis,
                      nsm_shape_text(x, a));
        return NULL;
    }
    nsm_tensor *part[2];
    int on = half != 0;
    nsm_split(tape, x, k, 2, (int64_t[]){ x->dim[k] / 2, x->dim[k] / 2 }, part);
    if (act == NSM_ACT_SILU) return nsm_mul_silu(tape, part[!on], part[on]);
    part[on] = nsm_activate(tape, part[on], NULL, act, acts[act].a, acts[act].b, 0);
    return nsm_mul(tape, part[0], part[1]);
}
