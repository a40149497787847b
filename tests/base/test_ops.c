/* tests/base/test_ops.c - Every op of the library: gradients, repeatability, threads, memory.
 *
 * A case is a few inputs and a function of them.  For each one:
 *   - the derivative of L = sum of c * y (c random) along random directions v equals g . v, by a
 *     difference quotient of fourth order: (8 (L(h)-L(-h)) - (L(2h)-L(-2h))) / 12h;
 *   - the gradient is the same when inputs and result are dropped before backward, where an input
 *     alone wants one, and a second backward adds as much;
 *   - values and gradients are the same, bit for bit, when repeated and for 1, 2, 3 and 5 threads;
 *   - every allocation fails in turn.
 * nsmi_ops[] is walked: an op without a case fails.
 *
 * Inputs stand on a grid of 0.1, shifted by 0.05 for the even ones, so that no difference quotient
 * steps over a kink: these are at multiples of 0.1, or where two inputs are equal. */
#include "config.h"
#include "tests/test.h"
#include "base/ops.h"

#define DECLARE(name) extern const nsm_op nsmi_op_##name;

enum { INPUTS = 8, SIZES = 1 << 20, DIRECTIONS = 4, BIG = 701, LESS = 67 };
enum { FLOATS = 1, DISTINCT, CONSTANT, INDEX, LABELS, VALUES };

#define N(k) (SIZES + (k)) /* a size that is BIG times as large in the test of threads */

typedef struct {
    int kind;       /* LABELS: INDEX or -1; VALUES: of the sparse matrix; CONSTANT: no gradient */
    int rank;
    int64_t dim[NSM_MAX_RANK];
    double low, high; /* INDEX, LABELS: high is the number of rows or classes */
} spec;

typedef nsm_tensor *(*function)(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m);

typedef struct {
    const char *name;
    const nsm_op *op;
    function y;
    int64_t rows, cols, entries; /* of the sparse matrix, if any */
    spec in[INPUTS];
} test_case;

#define RANK(...) (int)(sizeof((int64_t[]){ __VA_ARGS__ }) / sizeof(int64_t))
#define IN(kind, low, high, ...) { kind, RANK(__VA_ARGS__), { __VA_ARGS__ }, low, high }
#define F(...) IN(FLOATS, -2, 2, __VA_ARGS__)
#define R(...) IN(FLOATS, -1, 1, __VA_ARGS__)
#define LOG(...) IN(FLOATS, -1.5, -0.1, __VA_ARGS__)
#define BETA(...) IN(FLOATS, 0.1, 0.5, __VA_ARGS__)
#define SMALL(...) IN(FLOATS, -0.4, 0.2, __VA_ARGS__)

/* The entries of the running case's sparse matrix with types 0, 1 and 3 of 4. */
static const nsm_typed *typed_matrix;

/* ---- the functions ---- */
#define FUNCTION(name, expression)                                                    \
    static nsm_tensor *name(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)      \
    {                                                                                 \
        (void)m;                                                                      \
        return expression;                                                            \
    }
#define EVERY_UNARY(X) \
    X(relu) \
    X(gelu) X(gelu_tanh) X(silu) X(sigmoid) X(tanh) X(relu6) X(hardswish) X(mish) X(log_sigmoid) \
        X(exp) X(square) X(abs) X(neg) X(sin) X(cos)
#define EVERY_POSITIVE(X) X(log) X(sqrt) X(rsqrt) X(reciprocal)
#define UNARY(name) FUNCTION(y_##name, nsm_##name(t, x[0]))
EVERY_UNARY(UNARY)
EVERY_POSITIVE(UNARY)
FUNCTION(y_leaky_relu, nsm_leaky_relu(t, x[0], 0.3f))
FUNCTION(y_elu, nsm_elu(t, x[0], 1.7f))
FUNCTION(y_quick_gelu, nsm_quick_gelu(t, x[0], 1.702f))
FUNCTION(y_softplus, nsm_softplus(t, x[0], 2.5f, 20))
FUNCTION(y_scale, nsm_scale(t, x[0], -1.5f, 0.5f))
FUNCTION(y_clamp, nsm_clamp(t, x[0], -0.5f, 1.2f))
#define EVERY_BINARY(X) X(add) X(sub) X(mul) X(div) X(maximum) X(minimum) X(mul_silu)
#define BINARY(name) FUNCTION(y_##name, nsm_##name(t, x[0], x[1]))
EVERY_BINARY(BINARY)
FUNCTION(y_twice, nsm_mul(t, nsm_add(t, x[0], x[0]),
                          nsm_sub(t, x[0], nsm_mul(t, x[0], x[0])))) /* one tensor for both */
FUNCTION(y_dropout, nsm_dropout(t, x[0], 0.3f))
FUNCTION(y_dropout_sparse, nsm_linear(t, nsm_dropout(t, x[0], 0.3f), x[1], NULL))
FUNCTION(y_bias, nsm_activate(t, x[0], x[1], NSM_ACT_NONE, 0, 0, 0.4f))
FUNCTION(y_bias_relu, nsm_activate(t, x[0], x[1], NSM_ACT_RELU, 0, 0, 0.4f))
FUNCTION(y_bias_elu, nsm_activate(t, x[0], x[1], NSM_ACT_ELU, 1.3f, 0, 0.4f))
FUNCTION(y_gelu_alone, nsm_activate(t, x[0], NULL, NSM_ACT_GELU, 0, 0, 0))
FUNCTION(y_glu, nsm_glu(t, x[0], -1, NSM_ACT_SIGMOID, 1))
FUNCTION(y_swiglu, nsm_glu(t, x[0], 1, NSM_ACT_SILU, 0))
FUNCTION(y_matmul, nsm_matmul(t, x[0], x[1], false, false))
FUNCTION(y_matmul_ta, nsm_matmul(t, x[0], x[1], true, false))
FUNCTION(y_matmul_tb, nsm_matmul(t, x[0], x[1], false, true))
FUNCTION(y_matmul_ta_tb, nsm_matmul(t, x[0], x[1], true, true))
FUNCTION(y_bmm, nsm_bmm(t, x[0], x[1], false, false))
FUNCTION(y_bmm_ta, nsm_bmm(t, x[0], x[1], true, false))
FUNCTION(y_bmm_tb, nsm_bmm(t, x[0], x[1], false, true))
FUNCTION(y_bmm_ta_tb, nsm_bmm(t, x[0], x[1], true, true))
FUNCTION(y_linear, nsm_linear(t, x[0], x[1], x[2]))
FUNCTION(y_linear2, nsm_linear2(t, x[0], x[1], x[2], x[3], x[4]))
FUNCTION(y_sum, nsm_sum(t, x[0], 1, false))
FUNCTION(y_sum_all, nsm_sum(t, x[0], NSM_ALL, false))
FUNCTION(y_mean, nsm_mean(t, x[0], 0, true))
FUNCTION(y_mean_all, nsm_mean(t, x[0], NSM_ALL, true))
FUNCTION(y_max, nsm_max(t, x[0], 1, false))
FUNCTION(y_max_last, nsm_max(t, x[0], -1, true))
FUNCTION(y_min, nsm_min(t, x[0], NSM_ALL, false))
FUNCTION(y_logsumexp, nsm_logsumexp(t, x[0], 1, false))
FUNCTION(y_softmax, nsm_softmax(t, x[0], -1))
FUNCTION(y_softmax_middle, nsm_softmax(t, x[0], 1))
FUNCTION(y_log_softmax, nsm_log_softmax(t, x[0], -1))
FUNCTION(y_log_softmax_first, nsm_log_softmax(t, x[0], 0))
FUNCTION(y_layer_norm, nsm_layer_norm(t, x[0], x[1], x[2], 2, 1e-5f))
FUNCTION(y_layer_norm_plain, nsm_layer_norm(t, x[0], NULL, NULL, 1, 1e-5f))
FUNCTION(y_rms_norm, nsm_rms_norm(t, x[0], x[1], 1, 1e-5f))
FUNCTION(y_batch_norm,
         nsm_batch_norm(t, x[0], x[1], x[2], &(nsm_batch_stats){ x[3], x[4], 0.1f, 1e-5f, true }))
FUNCTION(y_batch_norm_eval,
         nsm_batch_norm(t, x[0], x[1], x[2], &(nsm_batch_stats){ x[3], x[4], 0.1f, 1e-5f, false }))
FUNCTION(y_batch_norm_plain,
         nsm_batch_norm(t, x[0], NULL, NULL, &(nsm_batch_stats){ .eps = 1e-5f }))
FUNCTION(y_group_norm, nsm_group_norm(t, x[0], x[1], x[2], 3, 1e-5f))
FUNCTION(y_layer_norm_axis, nsm_layer_norm_axis(t, x[0], x[1], x[2], 1, 1e-5f))
FUNCTION(y_normalize, nsm_normalize(t, x[0], 1e-12f))
FUNCTION(y_permute, nsm_permute(t, x[0], (const int[]){ 2, 0, 3, 1 }))
FUNCTION(y_transpose, nsm_transpose(t, x[0]))
FUNCTION(y_concat, nsm_concat(t, x, 3, 1))
static nsm_tensor *y_concat_many(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)
{
    nsm_tensor *all[30];
    (void)m;
    for (int k = 0; k < 30; k++) all[k] = k % 7 ? nsm_scale(t, x[0], (float)k, 0) : x[0];
    return nsm_concat(t, all, 30, -1);
}
FUNCTION(y_slice, nsm_slice(t, x[0], 1, 2, 3))
static nsm_tensor *y_split(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)
{
    nsm_tensor *part[3];
    (void)m;
    nsm_split(t, x[0], -2, 3, (int64_t[]){ 3, 1, 3 }, part);
    return nsm_mul(t, part[0], nsm_add(t, part[2], part[1]));
}
/* a part of which nothing comes back */
static nsm_tensor *y_split_unused(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)
{
    nsm_tensor *part[2];
    (void)m;
    nsm_split(t, x[0], 1, 2, (int64_t[]){ 3, 4 }, part);
    return part[1];
}
FUNCTION(y_gather, nsm_gather(t, x[0], x[1]))
FUNCTION(y_ce, nsm_cross_entropy(t, x[0], x[1], NULL))
FUNCTION(y_ce_full, nsm_cross_entropy(t, x[0], x[1], &(nsm_cross_entropy_config){
                        .label_smoothing = 0.2f, .class_weight = x[2], .row_weight = x[3] }))
FUNCTION(y_ce_sum, nsm_cross_entropy(t, x[0], x[1],
                                     &(nsm_cross_entropy_config){ .reduction = NSM_LOSS_SUM,
                                                                  .class_axis = -1,
                                                                  .ignore = true,
                                                                  .ignore_index = 1 }))
FUNCTION(y_ce_none, nsm_cross_entropy(t, x[0], x[1],
                                      &(nsm_cross_entropy_config){ .reduction = NSM_LOSS_NONE,
                                                                   .class_first = true }))
FUNCTION(y_ce_soft, nsm_cross_entropy(t, x[0], x[1],
                                      &(nsm_cross_entropy_config){ .reduction = NSM_LOSS_BATCHMEAN,
                                                                   .label_smoothing = 0.1f,
                                                                   .class_weight = x[2],
                                                                   .row_weight = x[3] }))
FUNCTION(y_bce, nsm_bce_with_logits(t, x[0], x[1], NULL, NSM_LOSS_MEAN))
FUNCTION(y_bce_weight, nsm_bce_with_logits(t, x[0], x[1], x[2], NSM_LOSS_SUM))
FUNCTION(y_mse, nsm_mse_loss(t, x[0], x[1], NSM_LOSS_MEAN))
FUNCTION(y_l1, nsm_l1_loss(t, x[0], x[1], NSM_LOSS_SUM))
FUNCTION(y_huber, nsm_huber_loss(t, x[0], x[1], 0.8f, NSM_LOSS_NONE))
FUNCTION(y_smooth_l1, nsm_smooth_l1_loss(t, x[0], x[1], 0.6f, NSM_LOSS_BATCHMEAN))
FUNCTION(y_kl, nsm_kl_div(t, x[0], x[1], false, NSM_LOSS_BATCHMEAN))
FUNCTION(y_kl_log, nsm_kl_div(t, x[0], x[1], true, NSM_LOSS_SUM))
FUNCTION(y_distillation, nsm_distillation(t, x[0], x[1], 2.5f, true, NSM_LOSS_BATCHMEAN))
FUNCTION(y_gaussian_kl, nsm_gaussian_kl(t, x[0], x[1], NSM_LOSS_BATCHMEAN))
FUNCTION(y_info_nce, nsm_info_nce(t, x[0], x[1],
                                  &(nsm_info_nce_config){
                                      .symmetric = true, .normalize = true, .scale = x[2] }))
FUNCTION(y_spmm, nsm_spmm(t, m, NULL, false, x[0]))
FUNCTION(y_spmm_weights, nsm_spmm(t, m, x[1], false, x[0]))
FUNCTION(y_spmm_mean, nsm_spmm(t, m, x[1], true, x[0]))
FUNCTION(y_spmm_max, nsm_spmm_max(t, m, x[0]))
FUNCTION(y_typed_sum, nsm_typed_linear(t, typed_matrix, NSM_TYPED_SUM, x[0], x[1]))
FUNCTION(y_typed_mean, nsm_typed_linear(t, typed_matrix, NSM_TYPED_MEAN, x[0], x[1]))
FUNCTION(y_typed_max,
         nsm_typed_linear(t, typed_matrix, NSM_TYPED_GIVEN,
                          nsm_spmm_max(t, typed_matrix ? typed_matrix->group : NULL, x[0]), x[1]))
FUNCTION(y_segment_sum, nsm_segment_sum(t, m, x[0]))
FUNCTION(y_segment_mean, nsm_segment_mean(t, m, x[0]))
FUNCTION(y_segment_max, nsm_segment_max(t, m, x[0]))
FUNCTION(y_segment_min, nsm_segment_min(t, m, x[0]))
FUNCTION(y_segment_softmax, nsm_segment_softmax(t, m, x[0]))
FUNCTION(y_sddmm, nsm_sddmm(t, m, 2, x[0], x[1]))
FUNCTION(y_sparse_linear, nsm_linear(t, x[0], x[1], x[2]))
FUNCTION(y_gat, nsm_gat_attention(t, m, 2, 0.2f, 0, x[0], x[1], x[2], x[3], NULL))
FUNCTION(y_gat_drop, nsm_gat_attention(t, m, 2, 0.2f, 0.4f, x[0], x[1], x[2], NULL, NULL))
FUNCTION(y_gatv2, nsm_gatv2_attention(t, m, 2, 0.2f, 0, x[0], x[1], x[2], x[3], NULL))
FUNCTION(y_gatv2_drop, nsm_gatv2_attention(t, m, 2, 0.2f, 0.4f, x[0], x[1], x[2], NULL, NULL))

FUNCTION(y_attention, nsm_dot_attention(t, x[0], x[1], x[2], NULL))
FUNCTION(y_attention_causal, nsm_dot_attention(t, x[0], x[1], x[2],
                                               &(nsm_dot_attention_config){
                                                   .causal = true, .offset = 2, .scale = 0.7f }))
FUNCTION(y_attention_window,
         nsm_dot_attention(t, x[0], x[0], x[1],
                           &(nsm_dot_attention_config){ .causal = true, .window = 3 }))
FUNCTION(y_attention_bias, nsm_dot_attention(t, x[0], x[1], x[2],
                                             &(nsm_dot_attention_config){
                                                 .bias = x[3], .causal = true, .offset = 3 }))
FUNCTION(y_attention_keys,
         nsm_dot_attention(t, x[0], x[1], x[2],
                           &(nsm_dot_attention_config){
                               .key_length = x[3], .offsets = x[4], .causal = true, .keys = 5 }))
/* All that a recurrent layer gives, in one sum. */
static nsm_tensor *all_of(nsm_tape *t, nsm_tensor *y, nsm_tensor *hn, nsm_tensor *cn)
{
    nsm_tensor *last = cn ? nsm_add(t, nsm_square(t, hn), nsm_scale(t, cn, 0.7f, 0))
                          : nsm_square(t, hn);
    return nsm_add(t, y, nsm_reshape(t, last, 3, (int64_t[]){ last ? last->dim[0] : 0, 1, -1 }));
}
static nsm_tensor *y_lstm(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)
{
    nsm_tensor *hn = NULL, *cn = NULL,
               *y = nsm_lstm(t, x[0], x[1], x[2], x[3], x[4], x[4] != NULL, &hn, &cn);
    (void)m;
    return y ? all_of(t, y, hn, cn) : NULL;
}
static nsm_tensor *y_gru(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)
{
    nsm_tensor *hn = NULL, *y = nsm_gru(t, x[0], x[1], x[2], x[3], x[4], x[4] != NULL, &hn);
    (void)m;
    return y ? all_of(t, y, hn, NULL) : NULL;
}
FUNCTION(y_rotary, nsm_rotary(t, x[0], &(nsm_rotary_config){ .heads = 2, .size = 4, .offset = 70 }))
FUNCTION(y_rotary_part, nsm_rotary(t, x[0],
                                   &(nsm_rotary_config){ .heads = 1,
                                                         .size = 7,
                                                         .pairs = 2,
                                                         .side_by_side = true,
                                                         .base = 30,
                                                         .offsets = x[1] }))
FUNCTION(y_append, nsm_append(t, x[0], x[1], (const int64_t[]){ 2, 0, 4 }))
FUNCTION(y_append_behind, nsm_append(t, x[0], x[1], NULL))
FUNCTION(y_attention_packed,
         nsm_dot_attention_packed(t, x[0], 4, 2, &(nsm_dot_attention_config){ .causal = true }))
FUNCTION(y_conv1d, nsm_conv1d(t, x[0], x[1], x[2], true, x[3], NULL, NULL))
/* All four results of a pool whose slots are all there and all kept: nothing is discrete. */
static nsm_tensor *y_slots(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)
{
    nsm_tensor *out[4];
    (void)m;
    nsm_slots(t,
              &(nsm_slots_config){
                  .slots = 3, .learned = 3, .top = 3, .tau_new = 0.9f, .rho = 0.9f },
              x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7], out);
    for (int i = 0; i < 4; i++) out[i] = nsm_reshape(t, out[i], 1, (const int64_t[]){ -1 });
    return nsm_concat(t, out, 4, 0);
}
static nsm_tensor *y_slots_comm(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)
{
    nsm_tensor *out[4];
    (void)m;
    nsm_slots(t, &(nsm_slots_config){ .slots = 3, .learned = 3, .top = 3, .comm_every = 4 }, x[0],
              x[1], x[2], x[3], NULL, x[5], x[6], x[7], out);
    return nsm_concat(t,
                      (nsm_tensor *[]){ nsm_reshape(t, out[0], 1, (const int64_t[]){ -1 }),
                                        nsm_reshape(t, out[3], 1, (const int64_t[]){ -1 }) },
                      2, 0);
}
FUNCTION(y_window,
         nsm_window_attention(t, x[0], x[1], x[2], x[3], x[4], x[5], x[6], NULL, NULL, NULL))
FUNCTION(y_window_start,
         nsm_window_attention(t, x[0], x[0], x[1], x[2], x[3], NULL, NULL, NULL, NULL, NULL))
FUNCTION(y_clock, nsm_clock(t, x[0], x[1], 2, x[2], 1, NULL))
FUNCTION(y_unit, nsm_clock(t, x[0], NULL, 0, NULL, 0, NULL))
FUNCTION(y_memory_mix, nsm_memory_mix(t, x[0], x[1], x[2], x[3], x[4]))
/* One element opens the one state that is not alive: there is no choice. */
static nsm_tensor *y_pool_open(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)
{
    const uint8_t alive[6] = { 1, 1, 0, 0, 1, 1 };
    (void)m;
    return nsm_pool_open(t, x[0], x[1], nsm_tape_tensor(t, NSM_U8, 2, (int64_t[]){ 2, 3 }, alive),
                         NULL, 1e9f, NULL, NULL);
}
static nsm_tensor *y_pool_route(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)
{
    const uint8_t alive[14] = { 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1 };
    (void)m;
    return nsm_pool_route(t, x[0], x[1], x[2],
                          nsm_tape_tensor(t, NSM_U8, 2, (int64_t[]){ 2, 7 }, alive), NULL, 3);
}
FUNCTION(y_memory_mix_same, nsm_memory_mix(t, x[0], x[1], x[0], x[2], x[3]))
FUNCTION(y_conv1d_plain, nsm_conv1d(t, x[0], x[1], NULL, false, NULL, NULL, NULL))
/* q, k, v and what a recurrence adds to them; the result is o, or the last state. */
#define RECURRENCE(name, ...) \
    FUNCTION(y_##name, nsm_linear_recurrence(t, x[0], x[1], x[2], \
                                             &(nsm_recurrence_config){ __VA_ARGS__ }, NULL))
RECURRENCE(recurrence, .state = x[3])
RECURRENCE(recurrence_decay, .g = x[3], .state = x[4], .scale = 0.6f)
RECURRENCE(recurrence_values, .g = x[3], .decay_values = true, .state = x[4])
RECURRENCE(recurrence_delta, .beta = x[3], .g = x[4], .state = x[5])
RECURRENCE(recurrence_pairs, .a = x[3], .b = x[4], .g = x[5])
RECURRENCE(recurrence_before, .before = true, .g = x[3], .bonus = x[4], .length = x[5])
static nsm_tensor *y_recurrence_state(nsm_tape *t, nsm_tensor *const *x, const nsm_csr *m)
{
    nsm_tensor *state = NULL;
    (void)m;
    nsm_linear_recurrence(t, x[0], x[1], x[2],
                          &(nsm_recurrence_config){ .g = x[3], .beta = x[4], .length = x[5] },
                          &state);
    return state;
}
FUNCTION(y_scan, nsm_selective_scan(t, x[0], x[1], x[2], x[3], x[4], NULL, NULL))
FUNCTION(y_scan_softplus,
         nsm_selective_scan(t, x[0], x[1], x[2], x[3], x[4],
                            &(nsm_scan_config){ .softplus = true, .state = x[5] }, NULL))
FUNCTION(y_scan_gate,
         nsm_selective_scan(t, x[0], x[0], x[1], x[2], x[2],
                            &(nsm_scan_config){
                                .softplus = true, .skip = x[3], .dt_bias = x[4], .z = x[5] },
                            NULL))
FUNCTION(y_wkv, nsm_wkv(t, x[0], x[1], x[2], x[3], x[4], x[5], NULL))

FUNCTION(y_conv2d, nsm_conv2d(t, x[0], x[1], x[2], NULL))
FUNCTION(y_conv2d_strided, nsm_conv2d(t, x[0], x[1], x[2],
                                      &(nsm_conv2d_config){ .stride = { 2, 3 },
                                                            .padding = { 1, 2 },
                                                            .dilation = { 2, 1 },
                                                            .groups = 2 }))
FUNCTION(y_conv2d_line,
         nsm_conv2d(t, x[0], x[1], NULL,
                    &(nsm_conv2d_config){ .stride = { 2 }, .padding = { 3 }, .dilation = { 3 } }))
FUNCTION(y_conv_transpose2d,
         nsm_conv_transpose2d(t, x[0], x[1], x[2],
                              &(nsm_conv2d_config){ .stride = { 2, 3 },
                                                    .padding = { 1, 0 },
                                                    .groups = 2,
                                                    .output_padding = { 1, 2 } }))
FUNCTION(y_max_pool2d, nsm_max_pool2d(t, x[0],
                                      &(nsm_pool2d_config){ .kernel = { 3, 2 },
                                                            .stride = { 2, 2 },
                                                            .padding = { 1, 1 },
                                                            .dilation = { 1, 2 },
                                                            .ceil = true }))
FUNCTION(y_avg_pool2d,
         nsm_avg_pool2d(t, x[0], &(nsm_pool2d_config){ .kernel = { 3, 2 }, .padding = { 1, 1 } }))
FUNCTION(y_avg_pool2d_image, nsm_avg_pool2d(t, x[0],
                                            &(nsm_pool2d_config){ .kernel = { 3, 2 },
                                                                  .stride = { 2, 3 },
                                                                  .padding = { 1, 1 },
                                                                  .ceil = true,
                                                                  .image_only = true }))
FUNCTION(y_adaptive, nsm_adaptive_avg_pool2d(t, x[0], 3, 4))
FUNCTION(y_pad, nsm_pad2d(t, x[0], (const int[]){ 1, 2, -1, 3 }, NSM_PAD_CONSTANT, 0.5f))
FUNCTION(y_pad_reflect, nsm_pad2d(t, x[0], (const int[]){ 2, 1, 3, 0 }, NSM_PAD_REFLECT, 0))
FUNCTION(y_pad_circular, nsm_pad2d(t, x[0], (const int[]){ 5, 1, 3, -1 }, NSM_PAD_CIRCULAR, 0))
FUNCTION(y_nearest, nsm_resize(t, x[0], 7, 3, &(nsm_resize_config){ .mode = NSM_RESIZE_NEAREST }))
FUNCTION(y_bilinear, nsm_resize(t, x[0], 7, 3, &(nsm_resize_config){ .mode = NSM_RESIZE_LINEAR }))
FUNCTION(y_bicubic,
         nsm_resize(t, x[0], 3, 9,
                    &(nsm_resize_config){ .mode = NSM_RESIZE_CUBIC, .align_corners = true }))
FUNCTION(y_pixel_shuffle, nsm_pixel_shuffle(t, x[0], 2))

DECLARE(leaky_relu)
DECLARE(elu)
DECLARE(quick_gelu) DECLARE(softplus) DECLARE(scale) DECLARE(clamp) DECLARE(dropout)
    DECLARE(activate) DECLARE(activate_relu) DECLARE(activate_none) DECLARE(matmul) DECLARE(bmm)
        DECLARE(linear) DECLARE(linear2) DECLARE(sum) DECLARE(mean) DECLARE(max) DECLARE(min)
            DECLARE(logsumexp) DECLARE(softmax) DECLARE(log_softmax) DECLARE(layer_norm)
                DECLARE(rms_norm) DECLARE(batch_norm) DECLARE(permute) DECLARE(concat)
                    DECLARE(slice) DECLARE(split) DECLARE(gather) DECLARE(cross_entropy) DECLARE(spmm)
                        DECLARE(spmm_weights) DECLARE(spmm_max) DECLARE(segment)
                            DECLARE(segment_softmax) DECLARE(sddmm) DECLARE(sparse_linear)
                                DECLARE(gat_attention) DECLARE(gatv2_attention) DECLARE(attention)
                                    DECLARE(rotary) DECLARE(append) DECLARE(rnn) DECLARE(conv1d)
                                        DECLARE(linear_recurrence) DECLARE(selective_scan)
                                            DECLARE(wkv) DECLARE(slots) DECLARE(window)
                                                DECLARE(clock) DECLARE(memory_mix)
                                                    DECLARE(pool_open) DECLARE(pool_route)
                                                        DECLARE(typed_linear)
    DECLARE(conv2d) DECLARE(conv_transpose2d) DECLARE(max_pool2d) DECLARE(resample)
                                                        EVERY_UNARY(DECLARE) EVERY_POSITIVE(DECLARE)
                                                            EVERY_BINARY(DECLARE)

#define CASE(function, op, ...) { #function, &nsmi_op_##op, y_##function, 0, 0, 0, { __VA_ARGS__ } }
#define GRAPH(function, op, ...) \
    { \
#function, &nsmi_op_##op, y_##function, N(7), N(9), N(30), { __VA_ARGS__ } \
    }
#define WIDE_CASE(name) CASE(name, name, IN(FLOATS, -4, 7, N(3), 5, 7)),
#define POSITIVE_CASE(name) CASE(name, name, IN(FLOATS, 0.5, 3, N(3), 5, 7)),
#define BINARY_CASES(name)                                                                  \
    CASE(name, name, F(N(3), 5, 7), IN(FLOATS, 1, 3, N(3), 5, 7)),                          \
    CASE(name, name, F(N(3), 1, 7), IN(FLOATS, 1, 3, 5, 1)),                                \
    CASE(name, name, F(7), IN(FLOATS, 1, 3, N(3), 5, 7)),                                   \
    CASE(name, name, F(2, N(3), 2, 3, 2), IN(FLOATS, 1, 3, 1, N(3), 1, 3, 1)),              \
    CASE(name, name, F(N(13), 7), IN(FLOATS, 1, 3, 1)),

                                                                            static const test_case
    cases[] = {
        EVERY_UNARY(WIDE_CASE) EVERY_POSITIVE(POSITIVE_CASE) WIDE_CASE(leaky_relu) WIDE_CASE(elu)
            WIDE_CASE(quick_gelu) WIDE_CASE(softplus) WIDE_CASE(scale) WIDE_CASE(clamp)
                EVERY_BINARY(BINARY_CASES) CASE(twice, mul, F(N(13), 7)),
        CASE(dropout, dropout, F(N(13), 7)),
        { "dropout_sparse",
          &nsmi_op_dropout,
          y_dropout_sparse,
          N(7),
          9,
          N(30),
          { IN(VALUES, -2, 2, N(30)), F(5, 9) } },
        CASE(bias, activate_none, F(N(13), 7), F(7)),
        CASE(bias_relu, activate_relu, F(N(13), 7), F(7)),
        CASE(bias_elu, activate, F(N(13), 2, 7), F(7)),
        CASE(gelu_alone, activate, F(N(13), 7)),
        CASE(glu, mul, F(N(13), 3, 6)),
        CASE(swiglu, mul_silu, F(N(13), 4, 3)),
        CASE(matmul, matmul, F(N(5), 7), F(7, 3)),
        CASE(matmul_ta, matmul, F(N(7), 5), F(N(7), 3)),
        CASE(matmul_tb, matmul, F(N(5), 7), F(3, 7)),
        CASE(matmul_ta_tb, matmul, F(7, N(5)), F(3, 7)),
        CASE(bmm, bmm, F(N(3), 4, 5), F(N(3), 5, 2)),
        CASE(bmm_ta, bmm, F(N(3), 5, 4), F(N(3), 5, 2)),
        CASE(bmm_tb, bmm, F(N(3), 4, 5), F(N(3), 2, 5)),
        CASE(bmm_ta_tb, bmm, F(N(3), 5, 4), F(N(3), 2, 5)),
        CASE(bmm, bmm, F(N(3), 4, 5), F(5, 2)), /* one matrix for the batch */
        CASE(bmm_ta_tb, bmm, F(5, 4), F(2, 3, 2, 5)),
        CASE(bmm_tb, bmm, F(N(2), 1, 4, 5), F(3, 2, 5)), /* each broadcast along another axis */
        CASE(bmm_ta, bmm, F(2, 3, 5, 4), F(3, 5, 2)),
        CASE(linear, linear, F(N(13), 7), F(5, 7), F(5)),
        CASE(linear, linear, F(2, N(3), 3, 7), F(5, 7), F(5)),
        CASE(linear, linear, F(7), F(5, 7)),
        CASE(linear2, linear2, F(N(13), 7), F(5, 7), F(N(13), 3), F(5, 3), F(5)),
        CASE(sum, sum, F(N(3), 5, 7)),
        CASE(sum_all, sum, F(N(3), 5, 7)),
        CASE(mean, mean, F(N(3), 5, 7)),
        CASE(mean_all, mean, F(N(3), 5, 7)),
        CASE(max, max, IN(DISTINCT, 0, 0, N(3), 5, 7)),
        CASE(max_last, max, IN(DISTINCT, 0, 0, N(3), 37)),
        CASE(min, min, IN(DISTINCT, 0, 0, N(3), 5, 7)),
        CASE(logsumexp, logsumexp, F(N(3), 5, 7)),
        CASE(softmax, softmax, F(N(3), 5, 7)),
        CASE(softmax_middle, softmax, F(N(3), 5, 7)),
        CASE(log_softmax, log_softmax, F(N(3), 5, 37)),
        CASE(log_softmax_first, log_softmax, F(N(3), 5, 7)),
        CASE(layer_norm, layer_norm, F(N(3), 5, 7), F(5, 7), F(5, 7)),
        CASE(layer_norm_plain, layer_norm, F(N(3), 5, 7)),
        CASE(rms_norm, rms_norm, F(N(3), 5, 7), F(7)),
        CASE(batch_norm, batch_norm, F(N(13), 7), F(7), F(7), IN(CONSTANT, -1, 1, 7),
             IN(CONSTANT, 1, 2, 7)),
        CASE(batch_norm, batch_norm, F(N(3), 5, 2, 3), F(5), F(5), IN(CONSTANT, -1, 1, 5),
             IN(CONSTANT, 1, 2, 5)),
        CASE(batch_norm_eval, batch_norm, F(N(3), 5, 7), F(5), F(5), IN(CONSTANT, -1, 1, 5),
             IN(CONSTANT, 1, 2, 5)),
        CASE(batch_norm_plain, batch_norm, F(N(3), 5, 7)),
        CASE(group_norm, layer_norm, F(N(3), 6, 4), F(6), F(6)),
        CASE(layer_norm_axis, layer_norm, F(N(2), 7, 3, 2), F(7), F(7)),
        CASE(normalize, div, F(N(13), 7)),
        CASE(permute, permute, F(N(2), 3, 4, 5)),
        CASE(transpose, permute, F(N(3), 37, 5)),
        CASE(concat, concat, F(N(3), 2, 5), F(N(3), 1, 5), F(N(3), 4, 5)),
        CASE(concat_many, concat, F(N(3), 2)),
        CASE(slice, slice, F(N(3), 7, 5)),
        CASE(split, split, F(N(3), 7, 5)),
        CASE(split_unused, split, F(N(3), 7)),
        CASE(gather, gather, F(N(7), 5), IN(INDEX, 0, N(7), N(4), 3)),
        CASE(gather, gather, F(7, 2, 3), IN(INDEX, 0, 7, N(30))),
        CASE(gather, gather, F(5, 7), IN(INDEX, 0, 5, N(13))),
        CASE(ce, cross_entropy, F(N(13), 7), IN(LABELS, 0, 7, N(13))),
        CASE(ce, cross_entropy, F(N(3), 5, 4), IN(LABELS, 0, 5, N(3), 4)),
        CASE(ce_full, cross_entropy, F(N(13), 7), IN(LABELS, 0, 7, N(13)), IN(CONSTANT, 0.5, 2, 7),
             IN(CONSTANT, 0.5, 2, N(13))),
        CASE(ce_sum, cross_entropy, F(N(3), 4, 5), IN(INDEX, 0, 5, N(3), 4)),
        CASE(ce_none, cross_entropy, F(5, N(13)), IN(LABELS, 0, 5, N(13))),
        CASE(ce_soft, cross_entropy, F(N(3), 5, 4), IN(CONSTANT, 0, 1, N(3), 5, 4),
             IN(CONSTANT, 0.5, 2, 5), IN(CONSTANT, 0.5, 2, N(3), 4)),
        CASE(ce_soft, log_softmax, F(N(3), 5, 4), IN(FLOATS, 0, 1, N(3), 5, 4),
             IN(CONSTANT, 0.5, 2, 5), IN(CONSTANT, 0.5, 2, N(3), 4)),
        CASE(bce, softplus, F(N(13), 7), IN(CONSTANT, 0, 1, N(13), 7)),
        CASE(bce_weight, softplus, F(N(13), 7), IN(CONSTANT, 0, 1, N(13), 7),
             IN(CONSTANT, 0.5, 3, 7)),
        CASE(mse, square, F(N(13), 7), F(N(13), 7)),
        CASE(l1, abs, F(N(13), 7), F(N(13), 7)),
        CASE(huber, clamp, F(N(13), 7), F(N(13), 7)),
        CASE(smooth_l1, clamp, F(N(13), 7), F(N(13), 7)),
        CASE(kl, log, F(N(13), 7), IN(CONSTANT, 0, 1, N(13), 7)),
        CASE(kl_log, exp, F(N(13), 7), F(N(13), 7)),
        CASE(distillation, log_softmax, F(N(13), 7), F(N(13), 7)),
        CASE(gaussian_kl, exp, F(N(13), 7), F(N(13), 7)),
        CASE(info_nce, cross_entropy, F(13, 7), F(13, 7), F(1)),
        GRAPH(spmm, spmm, F(N(9), 5)),
        GRAPH(spmm_weights, spmm_weights, F(N(9), 5), F(N(30))),
        GRAPH(spmm_mean, spmm_weights, F(N(9), 5), F(N(30))),
        GRAPH(spmm_max, spmm_max, IN(DISTINCT, 0, 0, N(9), 5)),
        GRAPH(typed_sum, typed_linear, F(N(9), 5), F(4, 5, 3)),
        GRAPH(typed_mean, typed_linear, F(N(9), 6), F(4, 2, 3, 2)),
        GRAPH(typed_max, typed_linear, IN(DISTINCT, 0, 0, N(9), 5), F(4, 5, 3)),
        GRAPH(segment_sum, segment, F(N(30), 5)),
        GRAPH(segment_mean, segment, F(N(30), 5)),
        GRAPH(segment_max, segment, IN(DISTINCT, 0, 0, N(30), 5)),
        GRAPH(segment_min, segment, IN(DISTINCT, 0, 0, N(30), 5)),
        GRAPH(segment_softmax, segment_softmax, F(N(30), 3)),
        GRAPH(sddmm, sddmm, F(N(7), 6), F(N(9), 6)),
        { "sparse_linear",
          &nsmi_op_sparse_linear,
          y_sparse_linear,
          N(7),
          9,
          N(30),
          { IN(VALUES, -2, 2, N(30)), F(5, 9), F(5) } },
        GRAPH(gat, gat_attention, F(N(9), 6), F(N(9), 2), F(N(7), 2), F(N(30), 2)),
        GRAPH(gat_drop, gat_attention, F(N(9), 6), F(N(9), 2), F(N(7), 2)),
        GRAPH(gatv2, gatv2_attention, F(N(9), 6), F(N(7), 6), F(2, 3), F(N(30), 6)),
        GRAPH(gatv2_drop, gatv2_attention, F(N(9), 6), F(N(7), 6), F(2, 3)),
        CASE(attention, attention, F(N(2), 5, 2, 3), F(N(2), 7, 2, 3), F(N(2), 7, 2, 4)),
        CASE(attention_causal, attention, F(N(2), 5, 4, 3), F(N(2), 7, 2, 3), F(N(2), 7, 2, 4)),
        CASE(attention_window, attention, F(2, 11, 2, 3), F(2, 11, 2, 1)),
        CASE(attention_bias, attention, F(2, 5, 4, 3), F(2, 8, 2, 3), F(2, 8, 2, 4), F(1, 4, 5, 8)),
        CASE(attention_bias, attention, F(2, 5, 4, 3), F(2, 8, 2, 3), F(2, 8, 2, 4), F(2, 1, 1, 8)),
        CASE(attention_keys, attention, F(3, 4, 2, 3), F(3, 6, 1, 3), F(3, 6, 1, 4),
             IN(INDEX, 0, 5, 3), IN(INDEX, 0, 4, 3)),
        CASE(attention_packed, attention, F(N(2), 6, 16)),
        CASE(attention_packed, attention, F(1, N(1), 8)),
        CASE(lstm, rnn, F(N(2), 5, 12), F(12, 3)),
        CASE(lstm, rnn, F(3, 4, 12), F(12, 3), F(3, 3), F(3, 3), IN(INDEX, 0, 5, 3)),
        CASE(gru, rnn, F(N(2), 5, 9), F(9, 3), F(3)),
        CASE(gru, rnn, F(3, 4, 9), F(9, 3), F(3), F(3, 3), IN(INDEX, 0, 5, 3)),
        CASE(rotary, rotary, F(2, N(5), 9)),
        CASE(rotary_part, rotary, F(3, N(2), 11), IN(INDEX, 0, 900, 3)),
        CASE(append, append, F(3, 4, 5), F(3, N(2), 5)),
        CASE(append_behind, append, F(N(2), 0, 5), F(N(2), 3, 5)),
        CASE(slots, slots, IN(FLOATS, -1, 1, N(2), 7, 2, 3), IN(FLOATS, -1, 1, N(2), 7, 2, 3),
             F(N(2), 7, 2, 4), IN(FLOATS, 0.2, 0.8, N(2), 7, 2), IN(FLOATS, 0.3, 0.9, N(2), 7, 2),
             IN(FLOATS, 0.5, 1.5, 4, 2), IN(FLOATS, -1, 1, N(2), 2, 3, 3), F(N(2), 2, 3, 4)),
        CASE(slots_comm, slots, IN(FLOATS, -1, 1, 2, N(5), 1, 3), IN(FLOATS, -1, 1, 2, N(5), 1, 3),
             F(2, N(5), 1, 5), IN(FLOATS, 0.2, 0.8, 2, N(5), 1), IN(CONSTANT, 0, 1, 1),
             IN(FLOATS, 0.2, 0.8, 6, 1), IN(FLOATS, -1, 1, 2, 1, 3, 3), F(2, 1, 3, 5)),
        CASE(window, window, F(2, N(6), 2, 3), F(2, N(6), 2, 3), F(2, N(6), 2, 4),
             IN(FLOATS, 0.2, 1, 2), F(2, 4), F(2, 3, 2, 3), F(2, 3, 2, 4)),
        CASE(window_start, window, F(N(2), 9, 1, 5), F(N(2), 9, 1, 2), IN(FLOATS, 0.2, 1, 1),
             F(1, 70)),
        CASE(clock, clock, F(2, N(5), 2, 7), F(2, N(5), 2), F(2, 3, 2)),
        CASE(unit, clock, F(N(2), 5, 2, 3)),
        CASE(memory_mix, memory_mix, F(2, N(5), 2, 3), F(2, N(5), 2), F(2, N(5), 2, 3),
             F(2, N(5), 6), F(2, 3)),
        CASE(memory_mix_same, memory_mix, F(2, 5, 2, 3), F(2, 5, 2), F(2, 5, 6), F(2, 3)),
        CASE(pool_open, pool_open, F(2, 1, 5), F(2, 3, 5)),
        CASE(pool_route, pool_route, F(2, N(5), 7), IN(FLOATS, 0.5, 1, 1), IN(FLOATS, 0, 1, 1)),
        CASE(conv1d, conv1d, F(2, N(1), 9), F(9, 1, 4), F(9), F(2, 3, 9)),
        CASE(conv1d, conv1d, F(N(2), 6, 21), F(21, 3), F(21), F(N(2), 2, 21)),
        CASE(conv2d, conv2d, R(N(2), 3, 5, 6), R(4, 3, 3, 2), R(4)),
        CASE(conv2d, conv2d, R(2, 9, 4, 3), R(1, 9, 1, 1)),
        CASE(conv2d, conv2d, R(2, 66, 5, 4), R(67, 66, 2, 2), R(67)),
        CASE(conv2d_strided, conv2d, R(N(2), 4, 9, 8), R(6, 2, 3, 4), R(6)),
        CASE(conv2d_strided, conv2d, R(3, 2, 37, 40), R(2, 1, 3, 1)),
        CASE(conv2d_line, conv2d, R(2, 3, N(11)), R(4, 3, 3)),
        CASE(conv_transpose2d, conv_transpose2d, R(N(2), 4, 3, 4), R(4, 3, 3, 2), R(6)),
        CASE(max_pool2d, max_pool2d, IN(DISTINCT, 0, 0, N(1), 2, 6, 7)),
        CASE(avg_pool2d, resample, F(N(1), 2, 6, 7)),
        CASE(avg_pool2d_image, resample, F(2, 1, 6, 7)),
        CASE(adaptive, resample, F(N(1), 2, 7, 5)),
        CASE(pad, resample, F(N(1), 2, 4, 5)),
        CASE(pad_reflect, resample, F(2, 1, 4, 5)),
        CASE(pad_circular, resample, F(2, 1, 4, 5)),
        CASE(nearest, resample, F(2, 1, 5, 4)),
        CASE(bilinear, resample, F(N(1), 2, 5, 4)),
        CASE(bicubic, resample, F(2, 2, 5, 4)),
        CASE(pixel_shuffle, permute, F(N(1), 8, 2, 3)),
        CASE(conv1d_plain, conv1d, F(N(2), 5, 7), F(7, 1)),
        CASE(scan, selective_scan, R(2, N(2), 6), BETA(2, N(2), 6), LOG(6, 3), R(2, N(2), 2, 3),
             R(2, N(2), 2, 3)),
        CASE(scan_softplus, selective_scan, R(2, 70, 19), R(2, 70, 19), LOG(19, 3), R(2, 70, 1, 3),
             R(2, 70, 1, 3), R(2, 19, 3)),
        CASE(scan_softplus, selective_scan, R(N(1), 9, 130), R(N(1), 9, 130), LOG(130, 2),
             R(130, 2), R(130, 2)),
        CASE(scan_gate, selective_scan, R(2, 66, 5), LOG(5, 3), R(5, 3), R(5), R(5), F(2, 66, 5)),
        CASE(wkv, wkv, LOG(5), R(5), F(2, 70, 5), F(2, 70, 5), IN(FLOATS, 0.3, 1, 2, 3, 5),
             IN(INDEX, 0, 71, 2)),
        CASE(wkv, wkv, LOG(21), R(21), F(2, N(2), 21), F(2, N(2), 21),
             IN(FLOATS, 0.3, 1, 2, 3, 21)),
        CASE(recurrence, linear_recurrence, R(N(1), 7, 2, 3), R(N(1), 7, 2, 3), R(N(1), 7, 2, 4),
             R(N(1), 2, 3, 4)),
        CASE(recurrence, linear_recurrence, R(2, N(2), 4, 3), R(2, N(2), 2, 3), R(2, N(2), 1, 2),
             R(2, 4, 3, 2)),
        CASE(recurrence_decay, linear_recurrence, R(1, N(2), 2, 3), R(1, N(2), 2, 3),
             R(1, N(2), 2, 4), LOG(1, N(2), 2), R(1, 2, 3, 4)),
        CASE(recurrence_decay, linear_recurrence, R(2, 90, 1, 3), R(2, 90, 1, 3), R(2, 90, 4, 2),
             LOG(2), R(2, 4, 3, 2)),
        CASE(recurrence_decay, linear_recurrence, R(2, 75, 2, 3), R(2, 75, 2, 3), R(2, 75, 2, 18),
             LOG(2, 75, 1, 3), R(2, 2, 3, 18)),
        CASE(recurrence_decay, linear_recurrence, R(2, N(1), 2, 3), R(2, N(1), 2, 3),
             R(2, N(1), 2, 2), LOG(2, 3), R(2, 2, 3, 2)),
        CASE(recurrence_values, linear_recurrence, R(2, 70, 2, 3), R(2, 70, 1, 3), R(2, 70, 1, 5),
             LOG(2, 70, 1, 5), R(2, 2, 3, 5)),
        CASE(recurrence_values, linear_recurrence, R(1, N(1), 2, 3), R(1, N(1), 2, 3),
             R(1, N(1), 2, 5), LOG(1, N(1), 2, 5), R(1, 2, 3, 5)),
        CASE(recurrence_delta, linear_recurrence, R(2, 68, 2, 3), R(2, 68, 2, 3), R(2, 68, 2, 5),
             BETA(2, 68, 2)),
        CASE(recurrence_delta, linear_recurrence, R(2, N(2), 1, 3), R(2, N(2), 1, 3),
             R(2, N(2), 2, 4), BETA(2, N(2), 2), LOG(2, N(2), 2), R(2, 2, 3, 4)),
        CASE(recurrence_pairs, linear_recurrence, R(1, N(1), 2, 3), R(1, N(1), 2, 3),
             R(1, N(1), 2, 4), SMALL(1, N(1), 2, 3), SMALL(1, N(1), 2, 3), LOG(1, N(1), 2, 3)),
        CASE(recurrence_pairs, linear_recurrence, R(2, 66, 2, 3), R(2, 66, 2, 3), R(2, 66, 2, 4),
             SMALL(2, 66, 2, 3), SMALL(2, 66, 2, 3), LOG(2, 66, 2)),
        CASE(recurrence_before, linear_recurrence, R(2, 70, 2, 3), R(2, 70, 2, 3), R(2, 70, 2, 4),
             LOG(2, 70, 2, 3), R(2, 3), IN(INDEX, 0, 71, 2)),
        CASE(recurrence_before, linear_recurrence, R(2, N(1), 2, 3), R(2, N(1), 2, 3),
             R(2, N(1), 2, 4), LOG(2, N(1), 2), R(2, 3)),
        CASE(recurrence_state, linear_recurrence, R(2, 70, 2, 3), R(2, 70, 2, 3), R(2, 70, 2, 4),
             LOG(2, 70, 2), BETA(2, 70, 2), IN(INDEX, 0, 71, 2)),
    };
enum { CASES = sizeof cases / sizeof *cases };

/* ---- a case made real ---- */
typedef struct {
    const test_case *c;
    nsm_ctx *ctx;
    nsm_tensor *in[INPUTS];
    nsm_csr *csr;
    nsm_typed *typed;
    float *host[INPUTS];     /* the inputs' values, and room for as many */
    float *moved[INPUTS];
    int64_t count[INPUTS];
} setup;

static int64_t size(int64_t k, int64_t big) { return k >= SIZES ? (k - SIZES) * big : k; }

static void *room(int64_t count, size_t bytes)
{
    void *p = calloc((size_t)count + 1, bytes);
    ck_assert_ptr_nonnull(p);
    return p;
}

static nsm_tensor *make_ints(setup *s, const spec *in, const int64_t *dim, int64_t n, float *u,
                             int64_t big)
{
    int32_t *index = room(n, sizeof *index);
    int64_t limit = size((int64_t)in->high, big);
    for (int64_t k = 0; k < n; k++) index[k] = (int32_t)((double)(u[k] + 1) / 2 * (double)limit);
    for (int64_t k = 0; k < n && in->kind == LABELS; k += 5) index[k] = -1;
    nsm_tensor *t = nsm_tensor_from(s->ctx, NSM_I32, in->rank, dim, index);
    free(index);
    return t;
}

static void place(const spec *in, int i, int64_t n, float *u)
{
    if (in->kind == DISTINCT) {
        int64_t *order = room(n, sizeof *order);
        for (int64_t k = 0; k < n; k++) order[k] = k;
        for (int64_t k = n - 1; k > 0; k--) {
            int64_t j = (int64_t)((double)(u[k] + 1) / 2 * (double)(k + 1)), o = order[k];
            order[k] = order[j];
            order[j] = o;
        }
        for (int64_t k = 0; k < n; k++) u[k] = 0.1f * (float)(order[k] - n / 2);
        free(order);
        return;
    }
    for (int64_t k = 0; k < n; k++) {
        double at = in->low + (double)(u[k] + 1) / 2 * (in->high - in->low);
        u[k] = (float)(0.1 * floor(10 * at) + (i % 2 ? 0.1 : 0.05));
    }
}

static void setup_csr(setup *s, int64_t big)
{
    int64_t rows = size(s->c->rows, big), cols = size(s->c->cols, big),
            n = size(s->c->entries, big);
    float *u = room(2 * n, sizeof *u);
    int32_t *at = room(2 * n, sizeof *at);
    test_random(99, 2 * n, u);
    for (int64_t k = 0; k < 2 * n; k++)
        at[k] = (int32_t)((double)(u[k] + 1) / 2 * (double)(k < n ? rows : cols));
    s->csr = nsm_csr_new(s->ctx, rows, cols, n, at, at + n, false);
    if (s->c->op == &nsmi_op_typed_linear) {
        static const int32_t types[] = { 0, 1, 3, 1, 0 };
        int32_t *type = room(n, sizeof *type);
        for (int64_t k = 0; k < n; k++) type[k] = types[k % 5];
        s->typed = nsm_typed_new(s->ctx, 4, rows, cols, n, at, at + n, type, false, true);
        free(type);
    }
    free(u);
    free(at);
}

static void setup_open(setup *s, const test_case *c, nsm_ctx *ctx, int64_t big)
{
    *s = (setup){ .c = c, .ctx = ctx };
    if (c->entries) setup_csr(s, big);
    for (int i = 0; i < INPUTS && c->in[i].kind; i++) {
        const spec *in = &c->in[i];
        int64_t dim[NSM_MAX_RANK], n = 1;
        for (int k = 0; k < in->rank; k++) n *= dim[k] = size(in->dim[k], big);
        float *u = s->host[i] = room(n, sizeof *u);
        s->moved[i] = room(n, sizeof *u);
        s->count[i] = n;
        test_random((uint64_t)i + 7, n, u);
        if (in->kind == INDEX || in->kind == LABELS) {
            s->in[i] = make_ints(s, in, dim, n, u, big);
            continue;
        }
        place(in, i, n, u);
        s->in[i] = in->kind == VALUES ? nsm_tensor_sparse(ctx, s->csr, u)
                                      : nsm_tensor_from(ctx, NSM_F32, in->rank, dim, u);
        if (s->in[i]) s->in[i]->needs_grad = in->kind != CONSTANT;
    }
}

static void setup_close(setup *s)
{
    for (int i = 0; i < INPUTS; i++) {
        nsm_tensor_free(s->in[i]);
        free(s->host[i]);
        free(s->moved[i]);
    }
    nsm_csr_free(s->csr);
    nsm_typed_free(s->typed);
}

/* Every evaluation draws the same dropout. */
static nsm_tensor *apply(setup *s, nsm_tape *t)
{
    nsm_random_set(s->ctx, (nsm_random){ 5, 0 });
    typed_matrix = s->typed;
    return s->c->y(t, s->in, s->csr);
}

static float *cotangent(int64_t n)
{
    float *c = room(n, sizeof *c);
    test_random(1234, n, c);
    return c;
}

/* sum of c * y */
static double value(setup *s)
{
    nsm_tape *t = nsm_tape_new(s->ctx);
    nsm_tensor *y = apply(s, t);
    ck_assert_msg(y != NULL, "%s: %s", s->c->name, nsm_error_message(s->ctx));
    int64_t n = nsm_numel(y);
    float *c = cotangent(n), *host = room(n, sizeof *host);
    double sum = 0;
    nsm_tensor_get(y, host);
    for (int64_t k = 0; k < n; k++) sum += (double)c[k] * (double)host[k];
    free(c);
    free(host);
    nsm_tape_free(t);
    return sum;
}

/* Add to the gradients; with y, a copy of the result, to be freed. */
static void gradients(setup *s, float **y_out, int64_t *n_out)
{
    nsm_tape *t = nsm_tape_new(s->ctx);
    nsm_tensor *y = apply(s, t);
    ck_assert_msg(y != NULL, "%s: %s", s->c->name, nsm_error_message(s->ctx));
    int64_t n = nsm_numel(y);
    float *c = cotangent(n);
    if (y_out) {
        *y_out = room(n, sizeof **y_out);
        *n_out = n;
        nsm_tensor_get(y, *y_out);
    }
    nsm_tape_seed(t, y, c);
    ck_assert_msg(nsm_tape_backward(t, NULL) == NSM_OK, "%s: %s", s->c->name,
                  nsm_error_message(s->ctx));
    nsm_tape_free(t);
    free(c);
}

static void zero_grads(setup *s)
{
    for (int i = 0; i < INPUTS; i++) nsm_tensor_zero_grad(s->in[i]);
}

static bool is_differentiated(const setup *s, int i)
{
    return s->in[i] && s->in[i]->type == NSM_F32 && s->c->in[i].kind != CONSTANT;
}

/* L at x[i] + step * v, v the signs of direction d. */
static double moved(setup *s, int i, const float *v, double step)
{
    for (int64_t k = 0; k < s->count[i]; k++)
        s->moved[i][k] = (float)((double)s->host[i][k] + (v[k] < 0 ? -step : step));
    nsm_tensor_set(s->in[i], s->moved[i]);
    double l = value(s);
    nsm_tensor_set(s->in[i], s->host[i]);
    return l;
}

static void check_directions(setup *s, int i, const float *g)
{
    const double h = 1.0 / 64;
    float *v = room(s->count[i], sizeof *v);
    for (int d = 0; d < DIRECTIONS; d++) {
        double slope = 0, squares = 0;
        test_random((uint64_t)(100 * i + d + 50), s->count[i], v);
        for (int64_t k = 0; k < s->count[i]; k++) {
            slope += (double)(v[k] < 0 ? -g[k] : g[k]);
            squares += (double)g[k] * (double)g[k];
        }
        double have = (8 * (moved(s, i, v, h) - moved(s, i, v, -h)) -
                       (moved(s, i, v, 2 * h) - moved(s, i, v, -2 * h))) /
                      (12 * h);
        ck_assert_msg(fabs(have - slope) <= 2e-3 * sqrt(squares) + 2e-4,
                      "%s: input %d, direction %d: the slope is %g, the gradient says %g (norm %g)",
                      s->c->name, i, d, have, slope, sqrt(squares));
    }
    free(v);
}

/* Alone, and twice. */
static void check_alone(setup *s, int i, const float *g)
{
    float *other = room(s->count[i], sizeof *other);
    for (int k = 0; k < INPUTS; k++)
        if (is_differentiated(s, k)) s->in[k]->needs_grad = k == i;
    zero_grads(s);
    gradients(s, NULL, NULL);
    nsm_tensor_get_grad(s->in[i], other);
    ck_assert_msg(test_difference(other, g, s->count[i], 1e-3) < 1e-5,
                  "%s: the gradient of input %d alone differs", s->c->name, i);
    gradients(s, NULL, NULL);
    nsm_tensor_get_grad(s->in[i], other);
    for (int64_t k = 0; k < s->count[i]; k++) other[k] /= 2;
    ck_assert_msg(test_difference(other, g, s->count[i], 1e-3) < 1e-5,
                  "%s: backward does not add to input %d's gradient", s->c->name, i);
    for (int k = 0; k < INPUTS; k++)
        if (is_differentiated(s, k)) s->in[k]->needs_grad = true;
    zero_grads(s);
    free(other);
}

/* The op's inputs and result are dropped before backward: it reads no more than the op says. */
static void check_dropped(setup *s, float *const *g)
{
    nsm_tape *t = nsm_tape_new(s->ctx);
    nsm_tensor *x[INPUTS];
    for (int i = 0; i < INPUTS; i++) {
        int kind = s->c->in[i].kind;
        x[i] = kind == FLOATS || kind == DISTINCT || kind == CONSTANT ? nsm_scale(t, s->in[i], 1, 0)
                                                                      : s->in[i];
    }
    nsm_random_set(s->ctx, (nsm_random){ 5, 0 });
    nsm_tensor *y = s->c->y(t, x, s->csr);
    float *c = cotangent(nsm_numel(y));
    nsm_tape_seed(t, y, c);
    nsm_tape_drop(t, y);
    for (int i = 0; i < INPUTS; i++) nsm_tape_drop(t, x[i]);
    nsm_tape_backward(t, NULL);
    for (int i = 0; i < INPUTS; i++) {
        if (!g[i]) continue;
        nsm_tensor_get_grad(s->in[i], s->moved[i]);
        ck_assert_msg(test_difference(s->moved[i], g[i], s->count[i], 1e-3) < 1e-6,
                      "%s: the gradient of input %d differs when values are dropped", s->c->name,
                      i);
    }
    zero_grads(s);
    nsm_tape_free(t);
    free(c);
}

/* Forward and backward, whatever becomes of them. */
static void run_once(nsm_ctx *ctx, const test_case *c)
{
    setup s;
    setup_open(&s, c, ctx, 1);
    nsm_tape *t = nsm_tape_new(ctx);
    nsm_tensor *y = apply(&s, t);
    float *dy = y ? cotangent(nsm_numel(y)) : NULL;
    if (y) nsm_tape_seed(t, y, dy);
    nsm_tape_backward(t, NULL);
    nsm_tape_free(t);
    free(dy);
    setup_close(&s);
}

START_TEST(gradient_of_each)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    ck_ok(ctx);
    for (int k = 0; k < CASES; k++) {
        setup s;
        float *g[INPUTS] = { NULL };
        setup_open(&s, &cases[k], ctx, 1);
        gradients(&s, NULL, NULL);
        for (int i = 0; i < INPUTS; i++)
            if (is_differentiated(&s, i))
                nsm_tensor_get_grad(s.in[i], g[i] = room(s.count[i], sizeof *g[i]));
        zero_grads(&s);
        check_dropped(&s, g);
        for (int i = 0; i < INPUTS; i++) {
            if (!g[i]) continue;
            check_directions(&s, i, g[i]);
            check_alone(&s, i, g[i]);
            free(g[i]);
        }
        ck_ok(ctx);
        setup_close(&s);
        ck_assert_msg(nsm_ctx_memory(ctx).used_bytes == 0, "%s: %lld bytes are still in use",
                      cases[k].name, (long long)nsm_ctx_memory(ctx).used_bytes);
    }
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(all_have_cases)
{
    for (int k = 0; nsmi_ops[k]; k++) {
        bool found = nsmi_ops[k]->backward == NULL;
        for (int c = 0; c < CASES && !found; c++) found = cases[c].op == nsmi_ops[k];
        ck_assert_msg(found, "op %d, %s, has no case", k, nsmi_ops[k]->name);
    }
}
END_TEST

/* A GPU has no threads to choose, and emulated little speed: there the same twice, of smaller
 * sizes. */
static bool on_cpu(void)
{
    const char *name = getenv("NSM_BACKEND");
    return !name || !*name || !strcmp(name, "cpu");
}

/* The result and all gradients of a large case, one after the other. */
static float *everything(const test_case *c, const nsm_ctx_config *config, int64_t scale,
                         int64_t *total)
{
    nsm_ctx *ctx = nsm_ctx_new(config);
    setup s;
    float *y;
    int64_t n;
    setup_open(&s, c, ctx, scale);
    gradients(&s, &y, &n);
    for (int i = 0; i < INPUTS; i++) {
        if (!is_differentiated(&s, i)) continue;
        y = realloc(y, (size_t)(n + s.count[i]) * sizeof *y);
        ck_assert_ptr_nonnull(y);
        nsm_tensor_get_grad(s.in[i], y + n);
        n += s.count[i];
    }
    setup_close(&s);
    nsm_ctx_free(ctx);
    *total = n;
    return y;
}

START_TEST(same_for_any_threads)
{
    const int64_t scale = on_cpu() ? BIG : LESS;
    for (int k = 0; k < CASES; k++) {
        int64_t n, same;
        float *want = everything(&cases[k], &(nsm_ctx_config){ .threads = 1 }, scale, &n);
        for (int threads = 1; threads <= (on_cpu() ? 5 : 1); threads += threads == 3 ? 2 : 1) {
            float *have = everything(&cases[k], &(nsm_ctx_config){ .threads = threads }, scale,
                                     &same);
            ck_assert_int_eq(n, same);
            ck_assert_msg(!memcmp(want, have, (size_t)n * sizeof *want),
                          "%s differs with %d threads", cases[k].name, threads);
            free(have);
        }
        free(want);
    }
}
END_TEST

static const test_case *failing;
static void run_failing(nsm_ctx *ctx) { run_once(ctx, failing); }

START_TEST(memory)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (int k = 0; k < CASES; k++) {
        failing = &cases[k];
        ck_assert_int_gt(test_brutal(run_failing, ctx), 0);
    }
    nsm_ctx_free(ctx);
}
END_TEST

/* ---- values, against plain loops ---- */
static nsm_tensor *given(nsm_ctx *ctx, uint64_t seed, int rank, const int64_t *dim)
{
    float host[4096];
    int64_t n = 1;
    for (int k = 0; k < rank; k++) n *= dim[k];
    test_random(seed, n, host);
    return nsm_tensor_from(ctx, NSM_F32, rank, dim, host);
}
#define GIVEN(ctx, seed, ...) given(ctx, seed, RANK(__VA_ARGS__), (const int64_t[]){ __VA_ARGS__ })

static void check_values(const char *what, nsm_tensor *y, const float *want, int64_t n)
{
    float have[4096];
    ck_assert_msg(y != NULL, "%s gives nothing", what);
    ck_assert_int_eq(nsm_numel(y), n);
    nsm_tensor_get(y, have);
    ck_assert_msg(test_difference(have, want, n, 1e-3) < 1e-5, "%s is wrong", what);
}

START_TEST(products)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_tape *t = nsm_tape_new(ctx);
    enum { A = 2, B = 3, M = 4, K = 5, C = 6 };
    for (int flags = 0; flags < 4; flags++) {
        bool ta = flags & 1, tb = flags & 2;
        nsm_tensor *a = ta ? GIVEN(ctx, 1, A, 1, K, M) : GIVEN(ctx, 1, A, 1, M, K);
        nsm_tensor *b = tb ? GIVEN(ctx, 2, B, C, K) : GIVEN(ctx, 2, B, K, C);
        float want[A * B * M * C], av[A * M * K], bv[B * K * C];
        nsm_tensor_get(a, av);
        nsm_tensor_get(b, bv);
        for (int p = 0; p < A * B; p++)
            for (int i = 0; i < M * C; i++) {
                const float *x = av + p / B * M * K, *w = bv + p % B * K * C;
                float sum = 0;
                for (int k = 0; k < K; k++)
                    sum += x[ta ? k * M + i / C : i / C * K + k] *
                           w[tb ? i % C * K + k : k * C + i % C];
                want[p * M * C + i] = sum;
            }
        nsm_tensor *y = nsm_bmm(t, a, b, ta, tb);
        check_values("nsm_bmm", y, want, A * B * M * C);
        ck_assert(y->rank == 4 && y->dim[0] == A && y->dim[1] == B && y->dim[2] == M &&
                  y->dim[3] == C);
        nsm_tensor *one = nsm_reshape(t, nsm_slice(t, a, 0, 0, 1), 2, a->dim + 2),
                   *other = nsm_reshape(t, nsm_slice(t, b, 0, 0, 1), 2, b->dim + 1);
        check_values("nsm_matmul", nsm_matmul(t, one, other, ta, tb), want, M * C);
        nsm_tensor_free(a);
        nsm_tensor_free(b);
    }
    nsm_tape_free(t);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(moves)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_tape *t = nsm_tape_new(ctx);
    enum { A = 2, B = 3, C = 4 };
    nsm_tensor *x = GIVEN(ctx, 1, A, B, C);
    float turned[A * B * C], cut[A * 2 * C], sum[A * C], most[A * C], values[A * B * C];
    nsm_tensor_get(x, values);
    for (int a = 0; a < A; a++)
        for (int c = 0; c < C; c++) {
            sum[a * C + c] = 0;
            most[a * C + c] = -9;
            for (int b = 0; b < B; b++) {
                float v = values[(a * B + b) * C + c];
                turned[(c * A + a) * B + b] = v;
                if (b) cut[(a * 2 + b - 1) * C + c] = v;
                sum[a * C + c] += v;
                if (v > most[a * C + c]) most[a * C + c] = v;
            }
        }
    check_values("nsm_permute", nsm_permute(t, x, (const int[]){ 2, 0, 1 }), turned, A * B * C);
    nsm_tensor *first = nsm_slice(t, x, 1, 0, 1), *rest = nsm_slice(t, x, 1, 1, 2);
    check_values("nsm_slice", rest, cut, A * 2 * C);
    check_values("nsm_concat", nsm_concat(t, (nsm_tensor *[]){ first, rest }, 2, 1), values,
                 A * B * C);
    check_values("nsm_sum", nsm_sum(t, x, 1, false), sum, A * C);
    check_values("nsm_max", nsm_max(t, x, 1, true), most, A * C);
    nsm_tensor *index = nsm_tensor_from(ctx, NSM_I32, 1, (const int64_t[]){ 3 },
                                        (const int32_t[]){ 1, 0, 1 });
    nsm_tensor *rows = nsm_gather(t, x, index);
    ck_assert(rows->rank == 3 && rows->dim[0] == 3 && rows->dim[2] == C);
    float taken[3 * B * C];
    nsm_tensor_get(rows, taken);
    ck_assert_mem_eq(taken, values + B * C, B * C * sizeof(float));
    ck_assert_mem_eq(taken + B * C, values, B * C * sizeof(float));
    x->needs_grad = true;
    /* row 0 is taken once, row 1 twice, the padding never */
    for (int padding = -1; padding < 2; padding++) {
        float g[A * B * C];
        nsm_tape_backward(t, nsm_sum(t, nsm_embedding(t, x, index, padding), NSM_ALL, false));
        nsm_tensor_get_grad(x, g);
        for (int k = 0; k < A * B * C; k++)
            ck_assert_float_eq(g[k], k / (B * C) == padding ? 0 : (float)(k / (B * C) + 1));
        nsm_tensor_zero_grad(x);
    }
    nsm_tensor_free(index);
    nsm_tensor_free(x);
    nsm_tape_free(t);
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(dropouts)
{
    enum { COUNT = 4000 };
    float have[COUNT], want[COUNT], g[COUNT], ones[COUNT];
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_tape *t = nsm_tape_new(ctx);
    nsm_tensor *x = nsm_tensor_new(ctx, NSM_F32, 2, (const int64_t[]){ COUNT / 8, 8 });
    nsm_tensor_fill(x, 2);
    x->needs_grad = true;
    nsm_random state = nsm_random_get(ctx);
    nsm_tensor *y = nsm_dropout(t, x, 0.25f);
    nsm_tensor_get(y, have);
    int kept = 0;
    for (int k = 0; k < COUNT; k++) {
        ones[k] = 1;
        kept += have[k] != 0;
        ck_assert(have[k] == 0 || fabsf(have[k] - 2 / 0.75f) < 1e-6f);
    }
    ck_assert_int_gt(kept, COUNT * 72 / 100);
    ck_assert_int_lt(kept, COUNT * 78 / 100);
    nsm_tape_seed(t, y, ones);
    nsm_tape_backward(t, NULL);
    nsm_tensor_get_grad(x, g);
    for (int k = 0; k < COUNT; k++) ck_assert(fabsf(g[k] - have[k] / 2) < 1e-6f);
    nsm_random_set(ctx, state); /* the fused op draws the same */
    nsm_tensor_get(nsm_activate(t, x, NULL, NSM_ACT_RELU, 0, 0, 0.25f), want);
    ck_assert_mem_eq(have, want, sizeof have);
    nsm_csr *m = nsm_csr_new(ctx, 3, 4, 5, (const int32_t[]){ 0, 0, 1, 2, 2 },
                             (const int32_t[]){ 0, 3, 1, 2, 2 }, false);
    nsm_tensor *s = nsm_tensor_sparse(ctx, m, ones), *dropped = nsm_dropout(t, s, 0.5f);
    ck_assert_ptr_eq(dropped->csr, m);
    ck_assert(dropped->rank == 2 && dropped->dim[0] == 3 && dropped->dim[1] == 4 &&
              nsm_numel(dropped) == 5);
    nsm_tape_inference(t, true);
    ck_assert_ptr_eq(nsm_dropout(t, x, 0.25f), x);
    ck_assert_ptr_eq(nsm_activate(t, x, NULL, NSM_ACT_NONE, 0, 0, 0.25f), x);
    nsm_tensor_free(s);
    nsm_csr_free(m);
    nsm_tensor_free(x);
    nsm_tape_free(t);
    nsm_ctx_free(ctx);
}
END_TEST

/* What nothing else shows: labels that count nowhere, running statistics, rows of zeros, -inf. */
START_TEST(corners)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_tape *t = nsm_tape_new(ctx);
    nsm_tensor *x = GIVEN(ctx, 1, 3, 4);
    x->needs_grad = true;
    float g[12], both[3];
    nsm_tensor *none = nsm_tensor_from(ctx, NSM_I32, 1, (const int64_t[]){ 3 },
                                       (const int32_t[]){ -1, -1, -1 });
    ck_assert(isnan(nsm_tensor_item(nsm_cross_entropy(t, x, none, NULL))));
    ck_assert_float_eq(nsm_tensor_item(nsm_cross_entropy(
                           t, x, none, &(nsm_cross_entropy_config){ .reduction = NSM_LOSS_SUM })),
                       0);
    nsm_tape_reset(t);
    nsm_tensor *mask = nsm_tensor_from(ctx, NSM_F32, 1, (const int64_t[]){ 3 },
                                       (const float[]){ 0, 1, 0 });
    nsm_tensor *label = nsm_tensor_from(ctx, NSM_I32, 1, (const int64_t[]){ 3 },
                                        (const int32_t[]){ 0, 2, 3 });
    nsm_tensor *loss = nsm_cross_entropy(t, x, label,
                                         &(nsm_cross_entropy_config){ .row_weight = mask });
    nsm_tensor_get(nsm_cross_entropy(t, x, label,
                                     &(nsm_cross_entropy_config){ .reduction = NSM_LOSS_NONE }),
                   both);
    ck_assert_float_eq_tol(nsm_tensor_item(loss), both[1], 1e-6f);
    nsm_tape_backward(t, loss);
    nsm_tensor_get_grad(x, g);
    ck_assert(g[0] == 0 && g[11] == 0 && g[6] < 0);
    nsm_tensor_zero_grad(x);
    nsm_tensor_zero(x);
    loss = nsm_sum(t, nsm_normalize(t, x, 1e-12f), NSM_ALL, false);
    nsm_tape_backward(t, loss);
    nsm_tensor_get_grad(x, g);
    for (int k = 0; k < 12; k++) ck_assert(isfinite(g[k]));
    nsm_tensor_fill(x, -INFINITY);
    ck_assert(nsm_tensor_item(nsm_logsumexp(t, x, NSM_ALL, false)) == -INFINITY);
    for (int k = 0; k < 12; k++) g[k] = (float)k;
    nsm_tensor_set(x, g);
    nsm_tensor *mean = nsm_tensor_new(ctx, NSM_F32, 1, (const int64_t[]){ 4 }),
               *var = nsm_tensor_new(ctx, NSM_F32, 1, (const int64_t[]){ 4 });
    nsm_tensor_zero(mean);
    nsm_tensor_fill(var, 1);
    nsm_batch_norm(t, x, NULL, NULL, &(nsm_batch_stats){ mean, var, 0.5f, 1e-5f, true });
    nsm_tensor_get(mean, g);
    nsm_tensor_get(var, g + 4);
    for (int k = 0; k < 4; k++) { /* values k, k+4, k+8: mean k+4, unbiased variance 16 */
        ck_assert_float_eq_tol(g[k], (float)(k + 4) / 2, 1e-5f);
        ck_assert_float_eq_tol(g[4 + k], 8.5f, 1e-4f);
    }
    ck_ok(ctx);
    nsm_tensor *made[] = { x, none, mask, label, mean, var };
    for (int k = 0; k < 6; k++) nsm_tensor_free(made[k]);
    nsm_tape_free(t);
    nsm_ctx_free(ctx);
}
END_TEST

/* ---- errors ---- */
#define WRONG(code, expression)                                    \
    do {                                                           \
        ck_assert_msg((expression) == NULL, "%s", #expression);    \
        ck_error(ctx, code);                                       \
    } while (0)

/* An index that is wrong: a device may tell as late as the next copy to the host. */
#define WRONG_INDEX(expression)                                    \
    do {                                                           \
        float have[256];                                           \
        nsm_tensor *late = (expression);                           \
        ck_assert(!late || ctx->dev.be->check_index);              \
        if (late) nsm_tensor_get(late, have);                      \
        ck_error(ctx, NSM_EINVAL);                                 \
    } while (0)

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    nsm_tape *t = nsm_tape_new(ctx);
    nsm_tensor *a = GIVEN(ctx, 1, 3, 4), *b = GIVEN(ctx, 2, 3, 5), *v = GIVEN(ctx, 3, 4),
               *one = GIVEN(ctx, 4, 1, 4), *cube = GIVEN(ctx, 5, 2, 3, 4);
    nsm_tensor *empty = nsm_tensor_new(ctx, NSM_F32, 2, (const int64_t[]){ 3, 0 });
    nsm_tensor *i = nsm_tensor_from(ctx, NSM_I32, 1, (const int64_t[]){ 3 },
                                    (const int32_t[]){ 0, 4, 1 });
    WRONG(NSM_ESHAPE, nsm_add(t, a, b));
    WRONG(NSM_ESHAPE, nsm_add(t, a, i));
    WRONG(NSM_ESHAPE, nsm_relu(t, i));
    WRONG(NSM_EINVAL, nsm_clamp(t, a, 1, 0));
    WRONG(NSM_EINVAL, nsm_dropout(t, a, 1));
    WRONG(NSM_EINVAL, nsm_dropout(t, a, NAN));
    WRONG(NSM_ESHAPE, nsm_activate(t, b, v, NSM_ACT_RELU, 0, 0, 0));
    WRONG(NSM_EINVAL, nsm_activate(t, a, v, NSM_ACT_RELU, 0, 0, -1));
    WRONG(NSM_ESHAPE, nsm_glu(t, b, -1, NSM_ACT_SIGMOID, 0));
    WRONG(NSM_ESHAPE, nsm_glu(t, a, 2, NSM_ACT_SIGMOID, 0));
    WRONG(NSM_ESHAPE, nsm_matmul(t, a, b, false, false));
    WRONG(NSM_ESHAPE, nsm_matmul(t, a, v, false, false));
    WRONG(NSM_ESHAPE, nsm_bmm(t, a, v, false, false));
    WRONG(NSM_ESHAPE, nsm_bmm(t, cube, a, false, false));
    WRONG(NSM_ESHAPE, nsm_linear(t, a, b, NULL));
    WRONG(NSM_ESHAPE, nsm_linear(t, a, one, v));
    WRONG(NSM_ESHAPE, nsm_linear2(t, a, one, b, one, NULL));
    WRONG(NSM_EINVAL, nsm_sum(t, a, 2, false));
    WRONG(NSM_EINVAL, nsm_sum(t, a, -3, false));
    WRONG(NSM_ESHAPE, nsm_max(t, empty, 1, false));
    WRONG(NSM_ESHAPE, nsm_logsumexp(t, empty, NSM_ALL, false));
    WRONG(NSM_EINVAL, nsm_softmax(t, a, NSM_ALL));
    WRONG(NSM_ESHAPE, nsm_layer_norm(t, b, v, NULL, 1, 1e-5f));
    WRONG(NSM_ESHAPE, nsm_layer_norm(t, a, NULL, NULL, 3, 1e-5f));
    WRONG(NSM_ESHAPE, nsm_rms_norm(t, b, v, 1, 1e-5f));
    WRONG(NSM_EINVAL, nsm_layer_norm_axis(t, v, NULL, NULL, 1, 1e-5f));
    WRONG(NSM_ESHAPE, nsm_group_norm(t, a, NULL, NULL, 3, 1e-5f));
    WRONG(NSM_ESHAPE, nsm_batch_norm(t, v, NULL, NULL, &(nsm_batch_stats){ .eps = 1e-5f }));
    WRONG(NSM_ESHAPE, nsm_batch_norm(t, one, NULL, NULL, &(nsm_batch_stats){ .eps = 1e-5f }));
    WRONG(NSM_ESHAPE, nsm_batch_norm(t, a, NULL, NULL, &(nsm_batch_stats){ .mean = v }));
    WRONG(NSM_EINVAL, nsm_normalize(t, a, 0));
    WRONG(NSM_EINVAL, nsm_permute(t, a, (const int[]){ 0, 0 }));
    WRONG(NSM_EINVAL, nsm_permute(t, a, (const int[]){ 0, 2 }));
    WRONG(NSM_ESHAPE, nsm_transpose(t, v));
    WRONG(NSM_ESHAPE, nsm_concat(t, (nsm_tensor *[]){ a, cube }, 2, 0));
    WRONG(NSM_ESHAPE, nsm_concat(t, (nsm_tensor *[]){ a, b }, 2, 0));
    WRONG(NSM_EINVAL, nsm_concat(t, NULL, 0, 0));
    WRONG(NSM_EINVAL, nsm_slice(t, a, 1, 2, 3));
    WRONG(NSM_EINVAL, nsm_slice(t, a, 1, 5, 0));
    WRONG(NSM_EINVAL, nsm_slice(t, a, 0, -1, 1));
    nsm_tensor *part[5];
    WRONG(NSM_EINVAL, (nsm_split(t, a, 1, 2, (int64_t[]){ 1, 1 }, part), part[1]));
    WRONG(NSM_EINVAL, (nsm_split(t, a, 1, 2, (int64_t[]){ -1, 4 }, part), part[0]));
    WRONG(NSM_EINVAL, (nsm_split(t, a, 1, 5, (int64_t[]){ 1, 1, 1, 0, 0 }, part), part[4]));
    WRONG_INDEX(nsm_gather(t, a, i));
    WRONG(NSM_ESHAPE, nsm_gather(t, a, v));
    WRONG_INDEX(nsm_cross_entropy(t, a, i, NULL));
    WRONG(NSM_ESHAPE, nsm_cross_entropy(t, cube, i, NULL));
    WRONG(NSM_ESHAPE, nsm_cross_entropy(t, a, b, NULL));
    WRONG(NSM_ESHAPE, nsm_cross_entropy(t, b, i, &(nsm_cross_entropy_config){ .class_weight = v }));
    WRONG(NSM_ESHAPE, nsm_cross_entropy(t, b, i, &(nsm_cross_entropy_config){ .row_weight = v }));
    WRONG(NSM_EINVAL,
          nsm_cross_entropy(t, b, i, &(nsm_cross_entropy_config){ .label_smoothing = 2 }));
    WRONG(NSM_EINVAL, nsm_cross_entropy(t, b, i, &(nsm_cross_entropy_config){ .class_axis = 2 }));
    WRONG(NSM_ESHAPE, nsm_mse_loss(t, a, b, NSM_LOSS_MEAN));
    WRONG(NSM_ESHAPE, nsm_bce_with_logits(t, v, v, a, NSM_LOSS_MEAN));
    WRONG(NSM_EINVAL, nsm_huber_loss(t, a, a, 0, NSM_LOSS_MEAN));
    WRONG(NSM_EINVAL, nsm_smooth_l1_loss(t, a, a, -1, NSM_LOSS_MEAN));
    WRONG(NSM_EINVAL, nsm_distillation(t, a, a, 0, true, NSM_LOSS_MEAN));
    ck_assert_ptr_null(nsm_add(t, a, NULL)); /* NULL in, NULL out, and no error of their own */
    ck_assert_ptr_null(nsm_linear(t, NULL, a, NULL));
    ck_assert_ptr_null(nsm_concat(t, (nsm_tensor *[]){ a, NULL }, 2, 0));
    ck_assert_ptr_null(nsm_cross_entropy(t, NULL, i, NULL));
    ck_assert_ptr_null(nsm_group_norm(t, NULL, NULL, NULL, 1, 0));
    ck_assert_ptr_null(nsm_info_nce(t, a, NULL, NULL));
    ck_assert_ptr_null(nsm_relu(NULL, a));
    ck_ok(ctx);
    ck_assert_int_eq(nsm_act_find("gelu_tanh"), NSM_ACT_GELU_TANH);
    ck_assert_int_eq(nsm_act_find("geluu"), -1);
    for (int k = 0; k < NSM_ACTS; k++) ck_assert_int_eq(nsm_act_find(nsm_act_name((nsm_act)k)), k);
    nsm_tensor *made[] = { a, b, v, one, cube, empty, i };
    for (int k = 0; k < 7; k++) nsm_tensor_free(made[k]);
    nsm_tape_free(t);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("ops", (const TTest *const[]){ all_have_cases, gradient_of_each,
                                                    same_for_any_threads, memory, products, moves,
                                                    dropouts, corners, errors, NULL });
}
