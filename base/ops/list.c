/* base/ops/list.c - Every op of the library.  tests/base/test_ops.c walks the list and fails if an
 * op has no gradient case; the tests of other backends walk it against the CPU. */
#include "config.h"
#include "base/internal.h"

#define OPS(X) \
    X(relu) X(leaky_relu) X(elu) X(gelu) X(gelu_tanh) X(silu) X(sigmoid) X(tanh) X(softplus) \
    X(relu6) X(hardswish) X(mish) X(quick_gelu) X(log_sigmoid) X(exp) X(log) X(sqrt) X(rsqrt) \
    X(square) X(abs) X(neg) X(reciprocal) X(sin) X(cos) X(scale) X(clamp) X(add) X(sub) X(mul) \
    X(div) X(maximum) X(minimum) X(mul_silu) X(dropout) X(activate) X(activate_relu) \
    X(activate_none) X(matmul) X(bmm) X(linear) X(linear2) X(sum) X(mean) X(max) X(min) X(logsumexp) X(softmax) \
    X(log_softmax) X(layer_norm) X(rms_norm) X(batch_norm) X(permute) X(concat) X(slice) X(split) \
    X(gather) X(cross_entropy) X(iota) X(spmm) X(spmm_weights) X(spmm_max) X(segment) X(segment_softmax) \
    X(sddmm) X(sparse_linear) X(gat_attention) X(gatv2_attention) X(attention) X(rotary) X(append) \
    X(rnn) X(conv1d) X(linear_recurrence) X(selective_scan) X(wkv) X(slots) X(window) X(clock) \
    X(memory_mix) X(pool_open) X(pool_route) X(typed_linear) X(conv2d) X(conv_transpose2d) \
    X(max_pool2d) X(resample)

#define DECLARE(name) extern const nsm_op nsmi_op_##name;
#define ADDRESS(name) &nsmi_op_##name,
OPS(DECLARE)
const nsm_op *const nsmi_ops[] = { OPS(ADDRESS) NULL };
