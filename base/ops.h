/* base/ops.h - Every differentiable op.
 *
 * All take the tape first and return a tensor that belongs to it (do not free it), or NULL: when
 * an error stands already, when a required tensor is NULL, or when they leave an error themselves:
 * NSM_ESHAPE shapes or types do not agree, NSM_EINVAL a number or option is out of range,
 * NSM_ENOMEM.  So a chain of ops reads like its formula and the caller checks once.
 * Tensors are float32 unless said.  An axis below 0 counts from the last (-1).  A name in [ ] is a
 * size; "..." is any number of leading dims. */
#ifndef NSM_OPS_H
#define NSM_OPS_H
#include "base/tape.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { NSM_ALL = -100 }; /* as an axis: over everything, to one number */

/* ---- one input, elementwise: y has x's shape ---- */
nsm_tensor *nsm_relu(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_leaky_relu(nsm_tape *tape, nsm_tensor *x, float slope);  /* slope x below 0 */
/* alpha (exp(x) - 1) below 0 */
nsm_tensor *nsm_elu(nsm_tape *tape, nsm_tensor *x, float alpha);
nsm_tensor *nsm_gelu(nsm_tape *tape, nsm_tensor *x);                     /* x Phi(x), by erf */
/* its tanh approximation */
nsm_tensor *nsm_gelu_tanh(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_silu(nsm_tape *tape, nsm_tensor *x);                     /* x sigmoid(x) */
nsm_tensor *nsm_sigmoid(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_tanh(nsm_tape *tape, nsm_tensor *x);
/* log(1 + exp(beta x)) / beta; x where beta x > threshold */
nsm_tensor *nsm_softplus(nsm_tape *tape, nsm_tensor *x, float beta, float threshold);
nsm_tensor *nsm_relu6(nsm_tape *tape, nsm_tensor *x);                    /* min(max(x, 0), 6) */
nsm_tensor *nsm_hardswish(nsm_tape *tape, nsm_tensor *x);                /* x relu6(x + 3) / 6 */
nsm_tensor *nsm_mish(nsm_tape *tape, nsm_tensor *x);                     /* x tanh(softplus(x)) */
/* x sigmoid(alpha x), alpha 1.702 */
nsm_tensor *nsm_quick_gelu(nsm_tape *tape, nsm_tensor *x, float alpha);
nsm_tensor *nsm_log_sigmoid(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_exp(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_log(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_sqrt(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_rsqrt(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_square(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_abs(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_neg(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_reciprocal(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_sin(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_cos(nsm_tape *tape, nsm_tensor *x);
nsm_tensor *nsm_scale(nsm_tape *tape, nsm_tensor *x, float a, float b);       /* a x + b */
/* NSM_EINVAL: low > high */
nsm_tensor *nsm_clamp(nsm_tape *tape, nsm_tensor *x, float low, float high);

/* The same values, through which no gradient passes. */
nsm_tensor *nsm_detach(nsm_tape *tape, nsm_tensor *x);

/* ---- two inputs, elementwise, with NumPy's broadcasting both ways ---- */
nsm_tensor *nsm_add(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b);
nsm_tensor *nsm_sub(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b);
nsm_tensor *nsm_mul(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b);
nsm_tensor *nsm_div(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b);
/* equal: half the gradient to each */
nsm_tensor *nsm_maximum(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b);
nsm_tensor *nsm_minimum(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b);
nsm_tensor *nsm_mul_silu(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b); /* a b sigmoid(b) */

/* Zero each value with probability p, 0 <= p < 1, and multiply the others by 1/(1-p) (Srivastava
 * et al., JMLR 2014).  Returns x itself when p is 0 or the tape is in inference mode.  A sparse
 * matrix stays one: its stored values are dropped.  No mask is kept. */
nsm_tensor *nsm_dropout(nsm_tape *tape, nsm_tensor *x, float p);

/* ---- activations by name, and fused ---- */
typedef enum {
    NSM_ACT_NONE, NSM_ACT_RELU, NSM_ACT_LEAKY_RELU, NSM_ACT_ELU, NSM_ACT_GELU, NSM_ACT_GELU_TANH,
    NSM_ACT_SILU,
    NSM_ACT_SIGMOID, NSM_ACT_TANH, NSM_ACT_SOFTPLUS, NSM_ACT_RELU6, NSM_ACT_HARDSWISH, NSM_ACT_MISH,
    NSM_ACT_QUICK_GELU, NSM_ACT_LOG_SIGMOID, NSM_ACTS
} nsm_act;
const char *nsm_act_name(nsm_act act);      /* "leaky_relu"; "none" */
int nsm_act_find(const char *name);         /* the nsm_act of that name, -1 if there is none */
/* The constants an activation has when nobody says otherwise: leaky_relu 0.01, elu 1, softplus 1
 * and 20, quick_gelu 1.702, the others 0. */
void nsm_act_constants(nsm_act act, float *a, float *b);

/* y = dropout(act(x + bias), p) in one pass; x [..., C], bias [C] or NULL.  a, b are the
 * activation's constants in the order of the functions above (slope; alpha; beta, threshold).
 * Dropout acts while the tape trains. */
nsm_tensor *nsm_activate(nsm_tape *tape, nsm_tensor *x, nsm_tensor *bias, nsm_act act, float a,
                         float b, float p);

/* The two halves u, v of an axis (whose size is even): act(u) v with half 0, u act(v) with half 1,
 * the activation's usual constants.  GLU: sigmoid, 1 (Dauphin et al., arXiv:1612.08083); GEGLU,
 * SwiGLU (Shazeer, arXiv:2002.05202): gelu, silu. */
nsm_tensor *nsm_glu(nsm_tape *tape, nsm_tensor *x, int axis, nsm_act act, int half);

/* ---- products ---- */
/* op(a) op(b), where op transposes if told so: a [m,k] or [k,m], b [k,n] or [n,k] -> [m,n]. */
nsm_tensor *nsm_matmul(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b, bool transpose_a,
                       bool transpose_b);
/* The same for the last two axes; those before them are broadcast. */
nsm_tensor *nsm_bmm(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b, bool transpose_a,
                    bool transpose_b);
/* y = x w^T + bias: x [..., in], w [out, in], bias [out] or NULL -> [..., out].  x may be a sparse
 * matrix. */
nsm_tensor *nsm_linear(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias);
/* y = x1 w1^T + x2 w2^T + bias, into one output. */
nsm_tensor *nsm_linear2(nsm_tape *tape, nsm_tensor *x1, nsm_tensor *w1, nsm_tensor *x2,
                        nsm_tensor *w2, nsm_tensor *bias);

/* ---- reductions: over an axis, or NSM_ALL; with keep the axis stays, of size 1 ---- */
nsm_tensor *nsm_sum(nsm_tape *tape, nsm_tensor *x, int axis, bool keep);
nsm_tensor *nsm_mean(nsm_tape *tape, nsm_tensor *x, int axis, bool keep);
/* the gradient goes to the first winner; NSM_ESHAPE: nothing to choose from */
nsm_tensor *nsm_max(nsm_tape *tape, nsm_tensor *x, int axis, bool keep);
nsm_tensor *nsm_min(nsm_tape *tape, nsm_tensor *x, int axis, bool keep);
nsm_tensor *nsm_logsumexp(nsm_tape *tape, nsm_tensor *x, int axis, bool keep);
nsm_tensor *nsm_softmax(nsm_tape *tape, nsm_tensor *x, int axis);
nsm_tensor *nsm_log_softmax(nsm_tape *tape, nsm_tensor *x, int axis);

/* ---- norms ---- */
/* Over the last `axes` axes together: (x - mean) / sqrt(var + eps) w + b with the biased variance
 * (Ba et al., arXiv:1607.06450).  w and b have the shape of these axes, or are NULL. */
nsm_tensor *nsm_layer_norm(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *b, int axes,
                           float eps);
/* x / sqrt(mean(x^2) + eps) w (Zhang and Sennrich, arXiv:1910.07467). */
nsm_tensor *nsm_rms_norm(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, int axes, float eps);
/* Layer norm over one axis, at each place: axis 1 for images [N, C, H, W].  w, b [its size] or
 * NULL. */
nsm_tensor *nsm_layer_norm_axis(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *b,
                                int axis, float eps);
/* Layer norm of each of `groups` runs of channels of [N, C, ...] with all space (Wu and He,
 * arXiv:1803.08494), then w, b [C] or NULL by channel. */
nsm_tensor *nsm_group_norm(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *b, int groups,
                           float eps);

/* Batch norm over all axes but axis 1 (Ioffe and Szegedy, arXiv:1502.03167), x [N,C], [N,C,L] or
 * [N,C,H,W]; w, b [C] or NULL.  training: by the biased variance of the batch, and the running
 * statistics move towards the batch's by `momentum` (their variance is the unbiased one).  Else by
 * the running statistics.  mean, var [C] hold these; both NULL: always by the batch's.
 * Layers pass nsm_tape_training(tape).  Errors: NSM_ESHAPE also when training on one value a
 * channel. */
typedef struct {
    nsm_tensor *mean, *var;
    float momentum, eps;
    bool training;
} nsm_batch_stats;
nsm_tensor *nsm_batch_norm(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *b,
                           const nsm_batch_stats *stats);

/* Rows (last axis) to unit length: x / max(|x|_2, eps), eps at least 1e-18. */
nsm_tensor *nsm_normalize(nsm_tape *tape, nsm_tensor *x, float eps);

/* ---- shape ---- */
/* y's axis k is x's axis perm[k]; perm has x's rank entries. */
nsm_tensor *nsm_permute(nsm_tape *tape, nsm_tensor *x, const int *perm);
nsm_tensor *nsm_transpose(nsm_tape *tape, nsm_tensor *x); /* swap the last two axes */
nsm_tensor *nsm_concat(nsm_tape *tape, nsm_tensor *const *x, int count, int axis);
nsm_tensor *nsm_slice(nsm_tape *tape, nsm_tensor *x, int axis, int64_t start, int64_t length);
/* The axis cut into `count` parts, 1 to 4, whose sizes must sum to its own: part[0..count), all
 * NULL after an error.  Cheaper than a slice for each where all of them are used. */
int nsm_split(nsm_tape *tape, nsm_tensor *x, int axis, int count, const int64_t *size,
              nsm_tensor **part);
/* y[i...] = x[index[i...]]: x [R, ...], index int32 of any shape -> [index dims, x's dims after the
 * first].  Errors: NSM_EINVAL an index is out of range. */
nsm_tensor *nsm_gather(nsm_tape *tape, nsm_tensor *x, nsm_tensor *index);
/* The same from a table of embeddings; row `padding` (below 0: none) gets no gradient. */
nsm_tensor *nsm_embedding(nsm_tape *tape, nsm_tensor *table, nsm_tensor *ids, int64_t padding);

/* ---- images [B, C, H, W]; of two numbers the first is for rows (H), the second for columns
 * ---- */
/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int stride[2];         /* (1) */
    int padding[2];        /* zeros on all sides (0) */
    int dilation[2];       /* (1) */
    int groups;            /* divides C and O (1) */
    int output_padding[2]; /* of the transposed: rows and columns more than the fewest (0) */
} nsm_conv2d_config;
/* y[b,o,i,j] = bias[o] + sum over c, e, f of w[o,c,e,f] x[b, c', i s0 + e d0 - p0, j s1 + f d1 -
 * p1], c' channel c of o's group: w [O, C/G, kh, kw], bias [O] or NULL.  Also x [B, C, L], w [O,
 * C/G, k] -> [B, O, L'], with the first of two numbers.  config may be NULL.
 * NSM_EINVAL also: a row of outputs reads more than 131072 padded numbers of a channel. */
nsm_tensor *nsm_conv2d(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias,
                       const nsm_conv2d_config *config);
/* The gradient of that with respect to its x: x [B, C, H, W], w [C, O/G, kh, kw] -> [B, O, H', W'],
 * H' = (H - 1) s - 2 p + d (kh - 1) + output_padding + 1. */
nsm_tensor *nsm_conv_transpose2d(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias,
                                 const nsm_conv2d_config *config);

typedef struct {
    int kernel[2];   /* must be given */
    int stride[2];   /* (kernel) */
    int padding[2];  /* at most half of the kernel (0) */
    int dilation[2]; /* of max_pool2d (1) */
    bool ceil;       /* windows that reach behind the padded image, too */
    bool image_only; /* the mean is over what is in the image (and padding) */
} nsm_pool2d_config;
/* The largest of each window; the gradient goes to the first. */
nsm_tensor *nsm_max_pool2d(nsm_tape *tape, nsm_tensor *x, const nsm_pool2d_config *config);
nsm_tensor *nsm_avg_pool2d(nsm_tape *tape, nsm_tensor *x, const nsm_pool2d_config *config);
/* Means over rows floor(i H / height) .. ceil((i + 1) H / height), columns likewise. */
nsm_tensor *nsm_adaptive_avg_pool2d(nsm_tape *tape, nsm_tensor *x, int64_t height, int64_t width);

typedef enum {
    NSM_PAD_CONSTANT,
    NSM_PAD_REFLECT,
    NSM_PAD_REPLICATE,
    NSM_PAD_CIRCULAR
} nsm_pad_mode;
/* pad: left, right, top, bottom; below 0 it cuts off.  value: of NSM_PAD_CONSTANT. */
nsm_tensor *nsm_pad2d(nsm_tape *tape, nsm_tensor *x, const int pad[4], nsm_pad_mode mode,
                      float value);

typedef enum { NSM_RESIZE_NEAREST, NSM_RESIZE_LINEAR, NSM_RESIZE_CUBIC } nsm_resize_mode;
typedef struct {
    nsm_resize_mode mode;
    bool align_corners; /* row i is from i (H-1)/(height-1) ((i + 1/2) H/height - 1/2) */
    float a;            /* of NSM_RESIZE_CUBIC (-0.75) */
} nsm_resize_config;
/* Another size by interpolation, without smoothing.  Nearest: row floor(i H / height). */
nsm_tensor *nsm_resize(nsm_tape *tape, nsm_tensor *x, int64_t height, int64_t width,
                       const nsm_resize_config *config);
/* [B, C r^2, H, W] -> [B, C, r H, r W] (Shi et al., arXiv:1609.05158). */
nsm_tensor *nsm_pixel_shuffle(nsm_tape *tape, nsm_tensor *x, int r);

/* ---- graphs and sparse matrices: csr has R rows (destinations), C columns (sources), E entries,
 * and must outlive the tape's step.  Values of entries stand in csr order.  NSM_EINVAL: csr was
 * made without its transpose and a gradient is wanted. ---- */
/* y[r] = sum over the entries e of row r of w[e] x[column of e]; w [E] or NULL (1); mean: divided
 * by the number of entries, a row without any gives 0.  x [C, F] -> [R, F]. */
nsm_tensor *nsm_spmm(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *w, bool mean, nsm_tensor *x);
/* The largest of x[column of e] by feature; 0 for a row without entries; the gradient goes to the
 * first winner. */
nsm_tensor *nsm_spmm_max(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x);
/* Over the entries of each row: x [E, F] -> [R, F]; a row without entries gives 0. */
nsm_tensor *nsm_segment_sum(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x);
nsm_tensor *nsm_segment_mean(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x);
nsm_tensor *nsm_segment_max(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x);
nsm_tensor *nsm_segment_min(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x);
/* [E, H] -> [E, H] */
nsm_tensor *nsm_segment_softmax(nsm_tape *tape, const nsm_csr *csr, nsm_tensor *x);
/* y[e, h] = a[row of e, h, :] . b[column of e, h, :]; a [R, H*D], b [C, H*D] -> [E, H]. */
nsm_tensor *nsm_sddmm(nsm_tape *tape, const nsm_csr *csr, int heads, nsm_tensor *a, nsm_tensor *b);
/* nsm_linear of a sparse matrix x [R, C]: w [O, C], bias [O] or NULL -> [R, O]. */
nsm_tensor *nsm_sparse_linear(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias);
/* y[r] = sum over types t of aggr{x[column] : entries of type t in row r} w[t]: x [C, F] and w
 * [T, F, O], or [T, K, F/K, O/K] for matrices of K blocks on their diagonals -> [R, O].  GIVEN: x
 * [groups, F] holds the aggregates themselves, as nsm_spmm_max(typed->group) gives the largest. */
typedef enum { NSM_TYPED_SUM, NSM_TYPED_MEAN, NSM_TYPED_GIVEN } nsm_typed_aggr;
nsm_tensor *nsm_typed_linear(nsm_tape *tape, const nsm_typed *typed, nsm_typed_aggr aggr,
                             nsm_tensor *x, nsm_tensor *w);
/* Attention over the entries of each row, fused: nothing of size E*H*D is made.
 *   gat:   s = leaky_relu(src[column,h] + dst[row,h] + edge[e,h])      x [C, H*D], src [C,H], dst
 *   [R,H], edge [E,H] or NULL
 *   gatv2: s = att[h] . leaky_relu(l[column,h] + q[row,h] + edge[e,h]) l = x [C, H*D], q [R, H*D],
 *   att [H,D], edge [E, H*D] or NULL
 *   y[row,h] = sum over e of softmax(s) x[column,h] -> [R, H*D]
 * dst and q may have more than R rows: the first R count.  drop: dropout on the softmax while the
 * tape trains.  prob (may be NULL) gets the softmax [E, H], through which no gradient passes. */
nsm_tensor *nsm_gat_attention(nsm_tape *tape, const nsm_csr *csr, int heads, float slope,
                              float drop, nsm_tensor *x, nsm_tensor *src, nsm_tensor *dst,
                              nsm_tensor *edge, nsm_tensor **prob);
nsm_tensor *nsm_gatv2_attention(nsm_tape *tape, const nsm_csr *csr, int heads, float slope,
                                float drop, nsm_tensor *l, nsm_tensor *q, nsm_tensor *att,
                                nsm_tensor *edge, nsm_tensor **prob);

/* ---- sequences ---- */
/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    float scale;              /* of the scores (1/sqrt(D)) */
    bool causal;              /* query i sees keys j <= i + offset */
    int64_t window;           /* ... and only j > i + offset - window (all before) */
    int64_t offset;           /* how many keys came before the first query */
    int64_t keys;             /* of k's and v's second axis so many are in use (all) */
    nsm_tensor *key_length;   /* int32 [B]: keys of each row (all) */
    nsm_tensor *offsets;      /* int32 [B]: by row, in place of offset */
    /* [B|1, H|1, n|1, m|1] added to the scaled scores; -inf hides a key */
    nsm_tensor *bias;
} nsm_dot_attention_config;
/* softmax(scale q k^T + bias) v over the keys that a query sees; 0 where it sees none.  q
 * [B,n,H,D], k [B,m,G,D], v [B,m,G,E], H a multiple of G: head h reads keys and values h / (H/G) ->
 * [B,n,H,E].  No n x m matrix is made, unless bias needs a gradient (Dao et al., arXiv:2205.14135).
 * config may be NULL. */
nsm_tensor *nsm_dot_attention(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v,
                              const nsm_dot_attention_config *config);
/* The same with q, k and v side by side: [B, n, (H + 2 G) D] -> [B, n, H D]. */
nsm_tensor *nsm_dot_attention_packed(nsm_tape *tape, nsm_tensor *qkv, int heads, int groups,
                                     const nsm_dot_attention_config *config);

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int heads, size;          /* the first heads runs of size columns turn; both must be given */
    int pairs;                /* of a head (size / 2) */
    bool side_by_side;        /* pair c is columns 2c, 2c + 1 (c and c + pairs) */
    float base;               /* (10000) */
    int64_t offset;           /* place of the first token */
    nsm_tensor *offsets;      /* int32 [B]: by row, in place of offset */
} nsm_rotary_config;
/* Turn pair c of token t by the angle (t + offset) base^(-c/pairs) (Su et al., arXiv:2104.09864); x
 * [B, n, C]. */
nsm_tensor *nsm_rotary(nsm_tape *tape, nsm_tensor *x, const nsm_rotary_config *config);
/* Sequences put together: row b of old [B, m, C] with x [B, n, C] put in at place at[b] (host [B],
 * 0..m; NULL: behind) -> [B, m + n, C]. */
nsm_tensor *nsm_append(nsm_tape *tape, nsm_tensor *old, nsm_tensor *x, const int64_t *at);

/* ---- recurrences ---- */
/* Causal depthwise convolution: y[b,t,ch] = act(bias[ch] + sum over j of w[ch,j]
 * x[b,t-(c-1)+j,ch]), act SiLU or none; x [B,n,C], w [C,c] or [C,1,c], c at most 32, bias [C] or
 * NULL.  tail [B,c-1,C] holds the rows before the first (NULL: zeros); *next_tail (may be NULL)
 * gets those before the next: the last of the first length[b] of n rows (length int32 [B] or NULL),
 * through which no gradient passes. */
nsm_tensor *nsm_conv1d(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias, bool silu,
                       nsm_tensor *tail, nsm_tensor *length, nsm_tensor **next_tail);

/* A linear recurrence over H heads with a state S [D, E] each:
 *   S_t = w_t * S_{t-1} + k_t v_t'      o_t = scale S_t' q_t
 * q, k [B,n,X,D], v [B,n,X,E] -> o [B,n,H,E]; D, E at most 512.  H is the largest X; each X divides
 * it, and head h reads head h X / H.  Start from zero, set what you need: a field left 0 takes the
 * value in ( ). */
typedef struct {
    float scale;             /* (1/sqrt(D)) */
    /* log w <= 0: [B,n,X], [B,n,X,D] for each row of S, or [X], [X,D] the same for all tokens (w =
     * 1) */
    nsm_tensor *g;
    bool decay_values;       /* g's last axis is E: for each column of S (each row) */
    /* [B,n,H]: the delta rule, v_t becomes beta_t (v_t - (w_t * S_{t-1})' k_t) (no) */
    nsm_tensor *beta;
    nsm_tensor *a, *b;       /* [B,n,H,D]: S_t gains b_t (S_{t-1}' a_t)' (no) */
    /* o_t = scale (S_{t-1}' q_t + (q_t . bonus * k_t) v_t) (after the token) */
    bool before;
    nsm_tensor *bonus;       /* [H,D], with before (0) */
    nsm_tensor *state;       /* [B,H,D,E] to begin from (0) */
    nsm_tensor *length;      /* int32 [B]: tokens of each row; those behind change nothing (n) */
} nsm_recurrence_config;
/* Chunk by chunk, in products of matrices, O(n H D E); *state (may be NULL) gets the state after
 * the last token, through which gradients pass.  config may be NULL. */
nsm_tensor *nsm_linear_recurrence(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v,
                                  const nsm_recurrence_config *config, nsm_tensor **state);
/* Recurrent layers, one direction over whole sequences.  gx [B, n, G*H] is what the inputs give to
 * the gates, x W_ih^T and all biases (but a GRU's inner one); w = W_hh [G*H, H]; h0, c0 [B, H] or
 * NULL (0); length int32 [B] or NULL: steps behind it leave the state, and y is 0 there; reverse:
 * from the last step to the first.  hn, cn (may be NULL): the last states. LSTM, gates i, f, g, o:
 * c' = f c + i g, y = o tanh(c').  GRU, gates r, z, n: y = (1 - z) n + z h,
 * n = tanh(gx_n + r (W_n h + bias)), bias [H] or NULL.  -> y [B, n, H] */
nsm_tensor *nsm_lstm(nsm_tape *tape, nsm_tensor *gx, nsm_tensor *w, nsm_tensor *h0, nsm_tensor *c0,
                     nsm_tensor *length, bool reverse, nsm_tensor **hn, nsm_tensor **cn);
nsm_tensor *nsm_gru(nsm_tape *tape, nsm_tensor *gx, nsm_tensor *w, nsm_tensor *bias, nsm_tensor *h0,
                    nsm_tensor *length, bool reverse, nsm_tensor **hn);
/* ---- the state memory (seq/memory.h) ---- */
/* What can be seen of the slots, as after each token: float32 [B,H,n,s] the shares that writing and
 * reading give to each slot and their usage; uint8 [B,H,n,s] alive, pruned; uint8 [B,H,n] recycled;
 * int32 [B,H,n] the slot opened, -1 none. */
typedef struct {
    nsm_tensor *write, *read, *usage, *alive, *pruned, *recycled, *slot;
} nsm_slots_trace;

typedef struct {
    /* s; the first of them that are never given up; k that a routing keeps: all >= 1 but learned */
    int slots, learned, top;
    int comm_every;              /* tokens between communication of states (0: never) */
    float tau_new, beta_min, rho, tau_prune, tau_recycle;
    nsm_tensor *usage, *alive,
        *birth; /* [B,H,s] float32, uint8, int64: carried, read and left as after the last token
                                        * (all NULL: the learned slots are alive, nothing else) */
    nsm_tensor *seen;            /* int64 [B]: tokens before these (0) */
    nsm_tensor *length;          /* int32 [B]: tokens that are there (n) */
    const nsm_slots_trace *trace; /* (not wanted) */
} nsm_slots_config;

/* Pools of s slots, one for each row and head: each token opens a slot if it is new, is written to
 * the slots nearest to its key by the delta rule, and reads those nearest to its query.  q, k
 * [B,n,H,dk], v [B,n,H,dv]; beta [B,n,H] the strength of writing, alpha [B,n,H] the decay (NULL:
 * 1); scalar [4,H]: gamma and null share's logit of writing, then of reading, with comm_every
 * [6,H]: then kappa and gamma of communication; key [B,H,s,dk], value [B,H,s,dv] at the start
 * (NULL: zeros).
 * out: o [B,n,H,dv]; mass [B,n,H], 1 - the null share of reading; key and value as the last token
 * leaves them. No gradient passes through what is discrete: opening, giving up, which slots are
 * kept.  Returns NSM_OK or the error. */
int nsm_slots(nsm_tape *tape, const nsm_slots_config *config, nsm_tensor *q, nsm_tensor *k,
              nsm_tensor *v, nsm_tensor *beta, nsm_tensor *alpha, nsm_tensor *scalar,
              nsm_tensor *key, nsm_tensor *value, nsm_tensor *out[4]);

/* Attention of each token over the last w, itself among them: softmax over j of gamma[h] q_t . k_j
 * + bias[h, t - j]. q, k [B,n,H,D], v [B,n,H,E], gamma [H], bias [H,w] -> [B,n,H,E].  past_k
 * [B,w-1,H,D], past_v [B,w-1,H,E]: the tokens before these, oldest first, of which the last seen[b]
 * (int64 [B]; NULL: all) are there; NULL: none.  next (may be NULL) gets the past_k and past_v of
 * the tokens behind the first length[b] (int32 [B]; NULL: n), without a gradient. */
nsm_tensor *nsm_window_attention(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *v,
                                 nsm_tensor *gamma, nsm_tensor *bias, nsm_tensor *past_k,
                                 nsm_tensor *past_v, nsm_tensor *seen, nsm_tensor *length,
                                 nsm_tensor *next[2]);

/* x / sqrt(|x|^2 + 1e-6) over the last axis of x [B,n,H,D]; then each pair (m, M + m), m < M =
 * pairs, is turned by phase * pi/2 * 10^(-1.5 m / max(1, M - 1)), phase_t = phase_(t-1) +
 * rate[b,t,h].  rate may be NULL without pairs. start (may be NULL: 0) [B,rows,H], of which `row`
 * is this clock's: in float64 a state's, left as after the last token that is there (length int32
 * [B], NULL: all), or float32, which gets a gradient. */
nsm_tensor *nsm_clock(nsm_tape *tape, nsm_tensor *x, nsm_tensor *rate, int pairs, nsm_tensor *start,
                      int row, nsm_tensor *length);

/* y = g m rms(o) w + (1 - g) near, g = sigmoid(gate): o, near [B,n,H,E], m [B,n,H], gate [B,n,H*E],
 * w [H,E] -> [B,n,H*E]; rms(o) = o / sqrt(mean(o^2) + 1e-5) over a head. */
nsm_tensor *nsm_memory_mix(nsm_tape *tape, nsm_tensor *o, nsm_tensor *m, nsm_tensor *near,
                           nsm_tensor *gate, nsm_tensor *w);

/* ---- pools of states over sets (fusion/set.h) ---- */
/* Elements with keys k [B,n,D] of which the farthest from every state open the lowest states that
 * are not alive, as long as their largest product with a living state's key is below tau_new: the
 * keys [B,s,D] then (a state that is not alive has a key of zeros).  alive uint8 [B,s] is read and
 * left as it is then; there uint8 [B,n] (NULL: all): 0 where an element is absent; opened int32
 * [B,n] (may be NULL) gets the state an element opened, -1 none; shut [B,s] (may be NULL): 0 for
 * living states, -inf for others.  Gradients pass to the keys that were taken; none through the
 * choice. */
nsm_tensor *nsm_pool_open(nsm_tape *tape, nsm_tensor *k, nsm_tensor *key, nsm_tensor *alive,
                          nsm_tensor *there, float tau_new, nsm_tensor *opened, nsm_tensor **shut);
/* cosine [B,n,s] -> shares [B,n,s]: softmax over null [1] and gamma [1] times the `top` largest of
 * living states; all others 0, and all of an absent element.  1 - their sum is the null share.  No
 * gradient passes through what is kept. */
nsm_tensor *nsm_pool_route(nsm_tape *tape, nsm_tensor *cosine, nsm_tensor *gamma, nsm_tensor *null,
                           nsm_tensor *alive, nsm_tensor *there, int top);

/* The selective scan (Gu and Dao, arXiv:2312.00752), by channel with N states:
 *   s_t = exp(d_t a) s_{t-1} + d_t b_t u_t     y_t = (s_t . c_t + skip u_t) silu(z_t)     d = dt +
 *   dt_bias, or softplus of it
 * u, dt [B,n,D], a [D,N] (not above 0, N at most 256), b, c both [B,n,G,N], G a divisor of D, or
 * both [D,N] -> y [B,n,D]. */
typedef struct {
    nsm_tensor *skip, *dt_bias; /* [D] (0) */
    nsm_tensor *z;              /* [B,n,D] (no gate) */
    bool softplus;
    nsm_tensor *state;          /* [B,D,N] to begin from (0) */
    nsm_tensor *length;         /* int32 [B]: tokens of each row; those behind change nothing (n) */
} nsm_scan_config;
nsm_tensor *nsm_selective_scan(nsm_tape *tape, nsm_tensor *u, nsm_tensor *dt, nsm_tensor *a,
                               nsm_tensor *b, nsm_tensor *c, const nsm_scan_config *config,
                               nsm_tensor **state);

/* RWKV-4's sum (Peng et al., arXiv:2305.13048), by channel, with a running maximum: w (not above
 *   0), u [C], k, v [B,n,C] -> y_t = (sum over i < t of e^((t-1-i) w + k_i) v_i + e^(u + k_t) v_t)
 *   / (the same without v)
 * state [B,3,C]: numerator and denominator divided by e^top, and top (at the start 0, 0, -1e38).
 * *next (may be NULL) gets the state after the last token, through which no gradient passes. */
nsm_tensor *nsm_wkv(nsm_tape *tape, nsm_tensor *w, nsm_tensor *u, nsm_tensor *k, nsm_tensor *v,
                    nsm_tensor *state, nsm_tensor *length, nsm_tensor **next);

/* ---- losses ---- */
typedef enum {
    NSM_LOSS_MEAN,      /* over every value, or by weight in cross entropy */
    NSM_LOSS_SUM,
    NSM_LOSS_NONE,      /* not reduced */
    NSM_LOSS_BATCHMEAN  /* sum / size of the first axis */
} nsm_reduction;

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    /* mean divides by the sum of weights of the rows that count; NaN if none does (mean) */
    nsm_reduction reduction;
    int class_axis;            /* (1; 0 with logits of rank 1, and with class_first) */
    bool class_first;          /* the classes are axis 0 */
    float label_smoothing;     /* e: (1-e) nll + e mean over classes of -log p (0) */
    bool ignore;               /* ignore_index is given (rows of target -1 count nowhere) */
    int64_t ignore_index;      /* rows of this target count nowhere */
    nsm_tensor *class_weight;  /* [C] (1) */
    nsm_tensor *row_weight;    /* a weight, or a mask of 0 and 1, for each row (1) */
} nsm_cross_entropy_config;

/* -log softmax(logits)[target] by row.  logits: any rank, target: int32 of logits' shape without
 * the class axis, or float32 of logits' shape: probabilities.  No gradient passes to the weights.
 * config may be NULL.  Errors: NSM_EINVAL a target is no class. */
nsm_tensor *nsm_cross_entropy(nsm_tape *tape, nsm_tensor *logits, nsm_tensor *target,
                              const nsm_cross_entropy_config *config);

/* -(p t log s(x) + (1-t) log(1 - s(x))), s the sigmoid; target has x's shape, pos_weight p
 * (broadcast against it) or NULL.  No gradient passes to target and pos_weight. */
nsm_tensor *nsm_bce_with_logits(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target,
                                nsm_tensor *pos_weight, nsm_reduction r);
nsm_tensor *nsm_mse_loss(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, nsm_reduction r);
nsm_tensor *nsm_l1_loss(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, nsm_reduction r);
/* d^2 / (2 beta) where |d| < beta, else |d| - beta / 2; beta 0 is l1. */
nsm_tensor *nsm_smooth_l1_loss(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, float beta,
                               nsm_reduction r);
/* d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2); delta > 0. */
nsm_tensor *nsm_huber_loss(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, float delta,
                           nsm_reduction r);
/* t (log t - x), x log probabilities; with log_target the target is log t, and gradient passes to
 * it. */
nsm_tensor *nsm_kl_div(nsm_tape *tape, nsm_tensor *x, nsm_tensor *target, bool log_target,
                       nsm_reduction r);
/* KL(softmax(teacher/T) || softmax(student/T)) over the last axis, times T^2 with `scaled`
 * (Hinton et al., arXiv:1503.02531); T > 0. */
nsm_tensor *nsm_distillation(nsm_tape *tape, nsm_tensor *student, nsm_tensor *teacher,
                             float temperature, bool scaled, nsm_reduction r);
/* KL(N(mu, exp(logvar)) || N(0, 1)) = (mu^2 + exp(logvar) - 1 - logvar) / 2 (Kingma and Welling,
 * arXiv:1312.6114). */
nsm_tensor *nsm_gaussian_kl(nsm_tape *tape, nsm_tensor *mu, nsm_tensor *logvar, nsm_reduction r);

/* Contrastive: cross entropy of a b^T to the diagonal; a, b [N, D] (van den Oord et al.,
 * arXiv:1807.03748). */
typedef struct {
    bool symmetric;      /* the mean of rows' and columns' (rows') */
    bool normalize;      /* rows to unit length first (no) */
    float eps;           /* of normalize (1e-12) */
    nsm_tensor *scale;   /* one number s: logits times exp(s) (none) */
    nsm_reduction reduction;
} nsm_info_nce_config;
nsm_tensor *nsm_info_nce(nsm_tape *tape, nsm_tensor *a, nsm_tensor *b,
                         const nsm_info_nce_config *config);

#ifdef __cplusplus
}
#endif
#endif
