/* kernels/backend.h - The one table of arithmetic, and the only way to a device.
 *
 * kernels/cpu and kernels/cuda each fill a struct nsm_backend.  Flat C signatures: the device,
 * sizes, then `const` inputs, then outputs.  Everything returns void and checks nothing: every
 * check is in the op that calls.  All pointers are device memory unless they say host.
 *
 * Rules for every kernel: the result depends on its arguments alone, bit for bit, never on the
 * number of threads nor on how work fell to them; no atomics on floats; "+=" outputs add.
 * Letters: n count, R rows, C columns, E edges, H heads, D per head, F features. */
#ifndef NSM_BACKEND_H
#define NSM_BACKEND_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/sparse.h"

#ifndef NSMI_DEVICE /* what CUDA's kernels call, too, is marked by it */
#define NSMI_DEVICE
#endif

/* y = f(x), and its derivative.  a, b are the function's constants (slope, alpha, beta...). */
#define NSMI_UNARY(X) \
    X(RELU) X(LEAKY_RELU) X(ELU) X(GELU) X(GELU_TANH) X(SILU) X(SIGMOID) X(TANH) X(SOFTPLUS) \
    X(RELU6) X(HARDSWISH) X(MISH) X(QUICK_GELU) X(EXP) X(LOG) X(SQRT) X(RSQRT) X(SQUARE) X(ABS) \
    X(NEG) X(RECIPROCAL) X(SIN) X(COS) X(SCALE) /* a x + b */ X(CLAMP) /* to [a, b] */ \
    X(LOG_SIGMOID) \
    X(IDENTITY)
typedef enum {
#define NSMI_ENUM(name) NSMI_##name,
    NSMI_UNARY(NSMI_ENUM) NSMI_UNARIES
} nsmi_unary;

#define NSMI_BINARY(X) X(ADD) X(SUB) X(MUL) X(DIV) X(MAX) X(MIN) \
    X(GATE) /* a silu(b) */
typedef enum { NSMI_BINARY(NSMI_ENUM) NSMI_BINARIES } nsmi_binary;

typedef enum { NSMI_SUM, NSMI_MEAN, NSMI_MAX_OF, NSMI_MIN_OF } nsmi_reduce;

/* A tensor in an elementwise operation: element strides over five dims, 0 where broadcast. */
typedef struct { int64_t stride[5]; } nsmi_strides;

/* Cross entropy options; label -1..: index, ignored when equal to ignore_index. */
typedef struct {
    float label_smoothing;
    int64_t ignore_index;
    const float *class_weight; /* [C] or NULL */
    const float *row_weight;   /* [R] 0/1 mask or weights, or NULL */
} nsmi_ce;

/* One tensor of an optimizer step: all of a step's go in one call. */
typedef struct {
    const char *name; /* there until the device has been waited for */
    int64_t n;
    float *w;
    const float *g;
    float *s[4];        /* state arrays, as many as the rule has */
    float lr, weight_decay;
} nsmi_slot;

typedef enum {
    NSMI_SGD, NSMI_ADAM, NSMI_ADAMW, NSMI_RMSPROP, NSMI_ADAGRAD, NSMI_ADADELTA, NSMI_NADAM,
    NSMI_RADAM, NSMI_LION
} nsmi_rule;

/* Constants of a step, common to all slots; names as in PyTorch.  The state s[] of each rule:
 * SGD {momentum}; ADAM, ADAMW, RADAM, NADAM {exp_avg, exp_avg_sq, max_exp_avg_sq}; LION {exp_avg};
 * RMSPROP {square_avg, momentum, grad_avg}; ADAGRAD {sum}; ADADELTA {square_avg, acc_delta}. */
typedef struct {
    nsmi_rule rule;
    int64_t step;       /* 1 at the first */
    double beta1, beta2, eps, momentum, dampening, alpha, rho, lr_decay, momentum_decay;
    double mu_product;  /* NADAM: product of mu_1..mu_step */
    bool nesterov, amsgrad, centered, maximize;
    float grad_scale;   /* gradients are multiplied by it first: clipping, accumulation */
    const double *verdict; /* judge()'s, whose scale it is then; NULL: grad_scale is */
} nsmi_step;

/* What to look for in a step's gradients before the update. */
typedef struct {
    int64_t step; /* counted from 1 */
    double scale; /* they are multiplied by it, */
    double limit; /* and all together scaled to at most this norm; 0: to none */
    bool check;   /* where one is not finite, this step and all that are checked after it change
                     * nothing, until the host has heard */
} nsmi_judgement;

/* Scaled dot product attention: H query heads over G heads of keys and values, H a multiple of G;
 * head h reads head h / (H / G).  Query i of row b stands at the place p = i + offset and sees key
 *   j if j < keys,  with causal j <= p,  with window w > 0 j > p - w,  and bias is not -inf.
 * Strides, in elements, are those of batch, token and head; the last axis is dense. */
typedef struct {
    int64_t batch, n, m;       /* B; queries and keys of a row */
    int64_t heads, groups;     /* H, G */
    int64_t dk, dv;            /* size of a key, of a value */
    int64_t q[3], k[3], v[3];
    float scale;
    bool causal;
    int64_t window, offset;
    const int32_t *keys;       /* [B] <= m; NULL: m */
    const int32_t *offsets;    /* [B]; NULL: offset */
    const float *bias;         /* added to the scaled scores; NULL: none */
    int64_t bias_stride[4];    /* of batch, head, query, key; 0 where broadcast */
} nsmi_attention;

/* Floats of scratch that the kernels may use: packed keys and values, partial sums. */
static inline int64_t nsmi_attention_scratch(const nsmi_attention *a, bool back)
{
    int64_t parts = 16 / (a->batch * a->groups) + 1, q = a->batch * a->heads * a->n;
    return back ? q * (1 + parts * (a->dk + 64))
                : a->batch * a->groups * (a->m + 512) * (a->dk + a->dv + 64);
}

/* A linear recurrence over H heads, each with a state S [D, E], D = dk and E = dv at most
 *   NSMI_RECURRENCE_MOST: S_t = w_t * S_{t-1} + k_t v_t'      o_t = scale S_t' q_t, or with
 *   `before` scale (S_{t-1}' q_t + (q_t . u * k_t) v_t)
 * The log decays g = log w, never above 0: none, one number a token, one for each row of S (KEYS:
 * [D]) or for each column (VALUES: [E]).  With beta the delta rule, S_t = w_t * S_{t-1} + beta_t
 * k_t (v_t - (w_t * S_{t-1})' k_t)'; with a and b, S_t = w_t * S_{t-1} + b_t (S_{t-1}' a_t)' + k_t
 * v_t'.  Before only without these; VALUES with none of all. Head h reads head h X / H of an array
 * of X heads. */
typedef enum { NSMI_FADE_NONE, NSMI_FADE_SCALAR, NSMI_FADE_KEYS, NSMI_FADE_VALUES } nsmi_fade;
enum { NSMI_RECURRENCE_MOST = 512, NSMI_CHUNK = 64 };
typedef struct {
    int64_t batch, n, heads, dk, dv;
    int64_t q_heads, k_heads, v_heads, g_heads;
    nsmi_fade fade;
    bool g_constant;        /* the same for all tokens and rows: g [heads(, D or E)] */
    bool before;
    float scale;
    const int32_t *length;  /* [B], NULL: n.  Tokens behind it change nothing; their o is 0 */
} nsmi_recurrence;
typedef struct {
    const float *q, *k;     /* [B, n, heads, D] */
    const float *v;         /* [B, n, heads, E] */
    const float *g;         /* [B, n, heads(, D or E)] */
    const float *beta;      /* [B, n, H], or NULL */
    const float *a, *b;     /* [B, n, H, D], or NULL */
    const float *bonus;     /* u [H, D], or NULL */
    const float *s0;        /* [B, H, D, E]; NULL: 0 */
} nsmi_recurrence_values;
/* += where not NULL; q, k, v, g by token and by H heads; bonus [B, H, D] */
typedef struct {
    float *q, *k, *v, *g, *beta, *a, *b, *bonus, *s0;
} nsmi_recurrence_grads;

/* The selective scan of Mamba (Gu and Dao, arXiv:2312.00752): D channels of N states, at most
 * NSMI_SCAN_MOST, in G groups that share B and C; dt after adding its bias, and softplus if asked:
 *   s_t = exp(dt_t a) s_{t-1} + dt_t B_t u_t      y_t = (s_t . C_t + skip u_t) silu(z_t) */
enum { NSMI_SCAN_MOST = 256 };
typedef struct {
    int64_t batch, n, channels, states, groups;
    bool softplus;
    bool fixed;             /* B and C are the channels' own, [D, N], for all tokens */
    const int32_t *length;  /* [B], NULL: n.  Tokens behind it change nothing; their y is 0 */
} nsmi_scan;
typedef struct {
    const float *u, *dt;    /* [B, n, D] */
    const float *a;         /* [D, N], not above 0 */
    const float *b, *c;     /* [B, n, G, N], or [D, N] */
    const float *skip, *bias; /* [D], or NULL: 0 */
    const float *z;         /* [B, n, D], or NULL: no gate */
    const float *s0;        /* [B, D, N]; NULL: 0 */
} nsmi_scan_values;
/* where not NULL: u, dt, z, s0, and b, c unless fixed, +=; of each row, written: a, skip, bias,
 * fixed b, c: [B, ...] */
typedef struct {
    float *u, *dt, *a, *b, *c, *skip, *bias, *z, *s0;
} nsmi_scan_grads;
/* floats that backward needs: a part for every 128 channels */
static inline int64_t nsmi_scan_scratch(const nsmi_scan *s)
{
    return s->fixed ? 0
                    : s->batch * s->groups * ((s->channels / s->groups + 127) / 128) * s->n * 2 *
                          s->states;
}

enum { NSMI_CONV_TAPS = 32 }; /* most of a conv1d */

/* 2-D convolution, as torch's: y[b, o, i, j] = sum over c, e, f of w[o, c, e, f] x[b, c', i s0 + e
 * d0 - p0, j s1 + f d1 - p1], c' channel c of o's group, x 0 outside; w [O, C/G, kh, kw]. */
typedef struct {
    int64_t batch, channels, height, width; /* B, C, H, W of x */
    int64_t outputs, groups;                /* O; G divides C and O */
    int64_t out_height, out_width;          /* of y */
    int64_t kernel[2], stride[2], padding[2], dilation[2];
} nsmi_conv;
/* What a kernel can do: a row of outputs reads at most NSMI_CONV_ROW padded
 * numbers of a channel. */
enum { NSMI_CONV_WIDTH = 1 << 15, NSMI_CONV_ROW = 1 << 17, NSMI_CONV_KERNEL = 1 << 15 };
static inline bool nsmi_conv_fits(const nsmi_conv *c)
{
    int64_t rows = (c->kernel[0] - 1) * c->dilation[0] + 2 * c->stride[0],
            cols = c->width + 2 * c->padding[1] + (c->kernel[1] - 1) * c->dilation[1] +
                   2 * c->stride[1];
    return c->kernel[0] * c->kernel[1] <= NSMI_CONV_KERNEL && cols <= NSMI_CONV_WIDTH &&
           rows <= NSMI_CONV_ROW / cols;
}

/* Windows of a pooling over planes [P, H, W] -> [P, out H, out W]. */
typedef struct {
    int64_t planes, height, width, out_height, out_width;
    int64_t kernel[2], stride[2], padding[2], dilation[2];
} nsmi_windows;

/* Rows of a sparse matrix: row i has the entries ptr[i]..ptr[i + 1]. */
typedef struct {
    const int32_t *ptr, *index;
    const float *value;
} nsmi_sparse_rows;

/* Tokens of row b that are there: length[b], taken as 0..n; all without lengths. */
NSMI_DEVICE static inline int64_t nsmi_length(const int32_t *length, int64_t b, int64_t n)
{
    if (!length || length[b] > n) return n;
    return length[b] < 0 ? 0 : length[b];
}
/* The slots of the state memory (NSM, seq/memory.c): B x H pools of s slots, each with a key and a
 * value. */
typedef struct {
    int64_t batch, tokens, heads, keys, values; /* B, n, H, sizes dk of a key and dv of a value */
    /* s; the first s0 are never given up; k kept by a routing */
    int64_t slots, learned, top;
    /* tokens between stored values; room for so many of these */
    int64_t chunk, chunks;
    /* tokens between communication of states; 0: none */
    int64_t comm_every;
    float tau_new, beta_min, rho, tau_prune, tau_recycle;
    const int64_t *seen;                        /* [B] tokens before these; NULL: none */
    const int32_t *length;                      /* [B] tokens that are there; NULL: n */
} nsmi_slots;
typedef struct {
    const float *q, *k, *v;    /* [B,n,H,dk], [B,n,H,dk], [B,n,H,dv] */
    const float *beta, *alpha; /* [B,n,H] strength of writing; decay, NULL: 1 */
    /* [4,H] gamma and null of writing, of reading; with comm_every [6,H]: kappa and gamma of it */
    const float *scalar;
    const float *key, *value;  /* [B,H,s,dk], [B,H,s,dv] at the start; NULL: nothing is there */
} nsmi_slots_in;
/* [B,H,s], or NULL: at the start the learned slots are alive, and nobody asks for the end. */
typedef struct { float *usage; uint8_t *alive; int64_t *birth; } nsmi_slots_state;
/* What backward needs. */
typedef struct {
    float *start;    /* [B,H,chunks,s,dv] values where chunks start */
    /* [B,H,chunks+1,s] there and at the end: the token whose key a slot has; -1: it had it before;
     * -2: dead, -3: always was */
    int32_t *owner;
    /* [B,H,n,2k+1] slots kept by writing, by reading, -1 where fewer; the slot opened, or -1 */
    int32_t *kept;
    float *prob;     /* [B,H,n,2k] their probabilities */
} nsmi_slots_saved;
/* What can be seen: [B,H,n,s], and slot (opened, -1: none) and recycled [B,H,n]; as after each
 * token. */
typedef struct {
    float *write, *read, *usage;
    uint8_t *alive, *pruned, *recycled;
    int32_t *slot;
} nsmi_slots_trace;
/* Gradients that come (NULL: none), and where they go: += ; dalpha, dkey, dvalue may be NULL. */
typedef struct {
    const float *o, *mass, *key, *value;
    float *dq, *dk, *dv, *dbeta, *dalpha, *dscalar, *dkey, *dvalue;
} nsmi_slots_grad;

/* Attention over the last w tokens, t itself among them: softmax over j of gamma[h] q_t . k_j +
 * bias[h, t - j]. */
typedef struct {
    int64_t batch, tokens, heads, keys, values; /* B, n, H, dk, dv */
    int64_t window;                             /* w */
    const int64_t *seen;                        /* [B] tokens before these; NULL: none */
} nsmi_window;
typedef struct {
    const float *q, *k, *v;      /* [B,n,H,dk], [B,n,H,dk], [B,n,H,dv] */
    const float *gamma, *bias;   /* [H], [H,w] */
    /* [B,w-1,H,dk], [B,w-1,H,dv]: the tokens before these, oldest first; NULL: none */
    const float *past_k, *past_v;
} nsmi_window_in;
/* Where gradients go: += ; the last two may be NULL. */
typedef struct { float *dq, *dk, *dv, *dgamma, *dbias, *dpast_k, *dpast_v; } nsmi_window_grad;

/* Unit vectors turned by a phase: pairs (m, M + m), m < M = pairs, by phase * pi/2 * 10^(-1.5 m /
 * max(1, M-1)). */
enum { NSMI_CLOCK_PAIRS = 256 };
typedef struct {
    int64_t batch, tokens, heads, size, pairs;
    int64_t row, rows;        /* start is [B,rows,H], this clock's row */
    double *start;            /* phase before the first token, and then as after the last; NULL: */
    const float *start_float; /* the same in float, left as it is; NULL: 0 */
    const int32_t *length;    /* [B] tokens that are there; NULL: n */
} nsmi_clock;

/* y = g m rms(o) w + (1 - g) near, g = sigmoid(gate), rms(o) = o / sqrt(mean(o^2) + 1e-5): o, near,
 * gate [n,H,E], m [n,H], w [H,E]. */
typedef struct { const float *o, *mass, *near, *gate; } nsmi_mix;
/* o, mass, near, gate: = beta (it) + gradient; w +=; any may be NULL. */
typedef struct { float *o, *mass, *near, *gate, *w; float beta[4]; } nsmi_mix_grad;

/* A recurrent layer in one direction: LSTM (Hochreiter and Schmidhuber 1997; gates i, f, g, o) or
 * GRU (Cho et al.,
 * arXiv:1406.1078; gates r, z, n).  Row b has length[b] <= n steps (NULL: n); those behind leave
 * the state as it is, and y 0. */
typedef struct {
    bool gru, reverse;
    int64_t batch, n, hidden;  /* B, n, H */
    const int32_t *length;     /* [B] or NULL */
} nsmi_rnn;

/* Floats of scratch that the kernels may use: the packed weights. */
static inline int64_t nsmi_rnn_scratch(const nsmi_rnn *a)
{
    return 4 * (a->hidden + 64) * (a->hidden + 64) + a->hidden + 64;
}

typedef struct nsm_device nsm_device;
/* Pools of s states over B sets of n elements, keys of size D: `learned` of the states are always
 * there, a routing keeps the `top` nearest.  there [B, n]: 0 where an element is absent; NULL: all
 * are there. */
typedef struct {
    int64_t batch, tokens, slots, size, learned, top;
    float tau_new, rho, tau_prune;
    const uint8_t *there;
} nsmi_pool;

typedef struct nsm_backend nsm_backend;
enum { NSMI_SENDS = 2 }; /* copies that are under way beside each other */

struct nsm_device {
    const nsm_backend *be;
    int error;           /* with trouble: its code */
    /* what a kernel could not do, a sentence; NULL: nothing.  base makes the context's error of
     * it */
    const char *trouble;
    int64_t waits;      /* how often the host has waited for it, */
    int64_t uploads;    /* copied to it, */
    int64_t moves;      /* and how often memory that kernels share has moved */
    int64_t constants;  /* bytes that constant() has copied */
    int threads;        /* CPU: size of the team */
    int isa;            /* CPU: which variant was picked */
    const char *isa_name;
    nsm_precision precision; /* of gemm and gemm_batch, and of what calls them */
    void *impl;         /* CUDA: streams, handles */
};

struct nsm_backend {
    const char *name;
    /* ---- device and memory ---- */
    int (*open)(nsm_device *d, char *why, size_t why_bytes); /* 0, or -1 and a sentence */
    void (*close)(nsm_device *d);
    /* 64-byte aligned at least; NULL: out of memory */
    void *(*alloc)(nsm_device *d, size_t bytes);
    void (*release)(nsm_device *d, void *p, size_t bytes);
    void (*to_device)(nsm_device *d, size_t bytes, const void *host, void *device);
    void (*to_host)(nsm_device *d, size_t bytes, const void *device, void *host); /* waits */
    void (*copy)(nsm_device *d, size_t bytes, const void *from, void *to);
    void (*zero)(nsm_device *d, size_t bytes, void *p);
    void (*sync)(nsm_device *d);
    /* Is every index 0..limit-1, or `also` (INT32_MIN: nothing else)?  What is not is trouble,
     * which the device may notice as late as the next copy to the host.  NULL: memory is the
     * host's, look at it there. */
    void (*check_index)(nsm_device *d, int64_t n, const int32_t *index, int64_t limit,
                        int64_t also);
    /* Host memory to send() from, asked for by any thread; NULL: out of it.  The five entries are
     * NULL where memory is the host's. */
    void *(*host_alloc)(nsm_device *d, size_t bytes);
    void (*host_free)(nsm_device *d, void *p);
    /* A copy to the device beside what is asked of it after this; which: 0..NSMI_SENDS-1. */
    void (*send)(nsm_device *d, int which, size_t bytes, const void *host, void *device);
    void (*arrive)(nsm_device *d, int which); /* what is asked from now on comes after the copy */
    void (*sent)(nsm_device *d, int which);   /* waits: the host may change what it has sent */
    /* What is asked for between record() and recorded() is not done but kept, and done as often as
     * replay() says.  It may neither wait nor copy from or to the host, but for `bytes` that
     * constant() copies: to_device() of numbers that are the same each time.  What it allocates it
     * releases.  `draws` is added to the offsets of its random numbers.  recorded() returns NULL
     * where there is trouble.  The five are NULL where a call costs nothing that it would save. */
    bool (*record)(nsm_device *d, int64_t bytes);
    void (*constant)(nsm_device *d, size_t bytes, const void *host, void *device);
    void *(*recorded)(nsm_device *d);
    void (*replay)(nsm_device *d, void *recorded, uint64_t draws);
    void (*forget)(nsm_device *d, void *recorded);
    bool precisions; /* products obey the device's precision; false: they have float32 alone */

    /* ---- dense ---- */
    /* C = alpha op(A) op(B) + beta C; op(A) [m,k], op(B) [k,n]; beta 0 does not read C. */
    void (*gemm)(nsm_device *d, bool ta, bool tb, int64_t m, int64_t n, int64_t k, float alpha,
                 const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                 int64_t ldc);
    /* The same for `batch` matrices, each sa, sb, sc elements after the last. */
    void (*gemm_batch)(nsm_device *d, bool ta, bool tb, int64_t batch, int64_t m, int64_t n,
                       int64_t k, float alpha, const float *a, int64_t lda, int64_t sa,
                       const float *b, int64_t ldb, int64_t sb, float beta, float *c, int64_t ldc,
                       int64_t sc);
    void (*fill)(nsm_device *d, int64_t n, float value, float *y);
    /* y += a x */
    void (*axpy)(nsm_device *d, int64_t n, float a, const float *x, float *y);
    /* y = a x + b y */
    void (*axpby)(nsm_device *d, int64_t n, float a, const float *x, float b, float *y);
    void (*unary)(nsm_device *d, nsmi_unary f, float a, float b, int64_t n, const float *x,
                  float *y);
    void (*unary_back)(nsm_device *d, nsmi_unary f, float a, float b, int64_t n, const float *x,
                       const float *dy, float beta, float *dx); /* dx = beta dx + f'(x) dy */
    /* y[dim] = f(a, b) with broadcasting; y is dense.  back: partial derivatives times dy, dense
     * [dim]: da = beta_a da + df/da dy, and so db. */
    void (*binary)(nsm_device *d, nsmi_binary f, const int64_t dim[5], const float *a,
                   nsmi_strides as, const float *b, nsmi_strides bs, float *y);
    void (*binary_back)(nsm_device *d, nsmi_binary f, const int64_t dim[5], const float *a,
                        nsmi_strides as, const float *b, nsmi_strides bs, const float *dy,
                        float beta_a, float *da, float beta_b,
                        float *db); /* either may be NULL */
    /* Sum x [dim] over the dims where s is 0, into y with strides s: y = beta y + sum. */
    void (*sum_to)(nsm_device *d, const int64_t dim[5], const float *x, nsmi_strides s, float beta,
                   float *y);
    /* x [outer, n, inner] -> y [outer, inner]; arg (MAX_OF, MIN_OF; may be NULL) the winner's place
     * in n. */
    void (*reduce)(nsm_device *d, nsmi_reduce f, int64_t outer, int64_t n, int64_t inner,
                   const float *x, float *y, int32_t *arg);
    /* dx[outer, arg, inner] += dy [outer, inner]: the gradient of a MAX_OF or MIN_OF. */
    void (*reduce_back)(nsm_device *d, int64_t outer, int64_t n, int64_t inner, const int32_t *arg,
                        const float *dy, float *dx);
    /* NaN never wins; ties: lowest */
    void (*argmax)(nsm_device *d, int64_t rows, int64_t cols, const float *x, int32_t *y);
    /* waits; in double */
    double (*sum_squares)(nsm_device *d, int64_t n, const float *x);
    /* waits */
    bool (*all_finite)(nsm_device *d, int64_t n, const float *x);
    /* y[i0,..,i4] = x[permuted]: dim is x's, perm[k] the x-dim that becomes y's dim k. */
    void (*permute)(nsm_device *d, const int64_t dim[5], const int perm[5], const float *x,
                    float beta, float *y);
    /* rows x cols block from x (ldx) to y (ldy): y = beta y + x.  Slices and concatenations. */
    void (*copy_block)(nsm_device *d, int64_t rows, int64_t cols, const float *x, int64_t ldx,
                       float beta, float *y, int64_t ldy);
    /* y = act(x + bias) and dropout with keep-scale 1/(1-p), one pass; bias [C], p 0: none; y may
     * be x. */
    void (*bias_act_dropout)(nsm_device *d, nsmi_unary f, float a, float b, float p, nsm_random r,
                             int64_t rows, int64_t cols, const float *x, const float *bias,
                             float *y);
    /* dx (written, may be dy) from x as given to forward, or x NULL and y forward's result for
     * RELU; dbias [C] += (may be NULL). */
    void (*bias_act_dropout_back)(nsm_device *d, nsmi_unary f, float a, float b, float p,
                                  nsm_random r, int64_t rows, int64_t cols, const float *x,
                                  const float *bias, const float *y, const float *dy, float beta,
                                  float *dx, float *dbias);
    /* y [C] */
    void (*column_sum)(nsm_device *d, int64_t rows, int64_t cols, const float *x, float beta,
                       float *y);
    /* also its own backward */
    void (*dropout)(nsm_device *d, float p, nsm_random r, int64_t n, const float *x, float beta,
                    float *y);
    void (*uniform)(nsm_device *d, nsm_random r, float low, float high, int64_t n, float *y);
    void (*normal)(nsm_device *d, nsm_random r, float mean, float std, int64_t n, float *y);

    /* ---- softmax, norms: x is [outer, n, inner], over n ---- */
    void (*softmax)(nsm_device *d, bool log, int64_t outer, int64_t n, int64_t inner,
                    const float *x, float *y);
    void (*softmax_back)(nsm_device *d, bool log, int64_t outer, int64_t n, int64_t inner,
                         const float *y, const float *dy, float beta, float *dx);
    /* Rows of C: y = (x - mean) rstd w + b; rms: no mean, no b.  stats [R,2] = mean, rstd.  w, b
     * may be NULL. */
    void (*row_norm)(nsm_device *d, bool rms, int64_t rows, int64_t cols, float eps, const float *x,
                     const float *w, const float *b, float *y, float *stats);
    void (*row_norm_back)(nsm_device *d, bool rms, int64_t rows, int64_t cols, const float *x,
                          const float *w, const float *stats, const float *dy, float beta,
                          float *dx, float *dw, float *db); /* dw, db +=, may be NULL */
    /* x [outer, C, inner], per channel over outer and inner: batch norm.  stats [C,2] = mean, rstd:
     * given (eval) or computed; var [C] the biased variance, written when training. */
    void (*batch_norm)(nsm_device *d, bool training, int64_t outer, int64_t c, int64_t inner,
                       float eps, const float *x, const float *w, const float *b, float *y,
                       float *stats, float *var);
    void (*batch_norm_back)(nsm_device *d, bool training, int64_t outer, int64_t c, int64_t inner,
                            const float *x, const float *w, const float *stats, const float *dy,
                            float beta, float *dx, float *dw, float *db);

    /* ---- rows by index ---- */
    /* y[i] = x[index[i]], x [rows, cols].  A device that finds a wrong index late reads none:
     * NaN. */
    void (*gather)(nsm_device *d, int64_t n, int64_t cols, int64_t rows, const int32_t *index,
                   const float *x, float *y);
    /* y[index[i]] += x[i]; no two of the n indices are the same. */
    void (*scatter_rows)(nsm_device *d, int64_t n, int64_t cols, const int32_t *index,
                         const float *x, float *y);
    /* dx[r] += sum over the entries of row r in by_row (made of index) of dy[pos]: the gather's
     * backward. */
    void (*gather_back)(nsm_device *d, const nsm_csr_part *by_row, int64_t cols, const float *dy,
                        float *dx);
    /* The same from the indices themselves: dx[r] += dy[k] where index[k] is r, in the order of k,
     * but where it is `skip` (-1: nowhere).  NULL: the host has them at hand. */
    void (*gather_add)(nsm_device *d, int64_t n, int64_t cols, int64_t rows, int64_t skip,
                       const int32_t *index, const float *dy, float *dx);

    /* ---- losses ---- */
    /* logits [outer, C, inner], target [outer*inner] index, or prob [outer, C, inner]: loss per row
     * (0 where ignored), weight per row (what a mean divides by; 0 where ignored), lse per row for
     * backward. */
    void (*cross_entropy)(nsm_device *d, nsmi_ce o, int64_t outer, int64_t c, int64_t inner,
                          const float *logits, const int32_t *target, const float *prob,
                          float *loss, float *weight, float *lse);
    void (*cross_entropy_back)(nsm_device *d, nsmi_ce o, int64_t outer, int64_t c, int64_t inner,
                               const float *logits, const int32_t *target, const float *prob,
                               const float *lse, const float *dloss, float beta,
                               float *dlogits); /* dloss [outer*inner] */

    /* ---- optimizers: all tensors of a step in one call ---- */
    /* verdict [2], the device's: the norm of all gradients together, times scale, and what update()
     * is to multiply them with, NaN: it must not.  What is not finite is trouble, told by the
     * slot's name with the next copy to the host.  NULL: memory is the host's, look at it there. */
    void (*judge)(nsm_device *d, const nsmi_judgement *how, int64_t count, const nsmi_slot *slot,
                  double *verdict);
    void (*update)(nsm_device *d, const nsmi_step *s, int64_t count, const nsmi_slot *slot);
    /* y += t (x - y): EMA */
    void (*lerp)(nsm_device *d, int64_t n, float t, const float *x, float *y);

    /* ---- graphs and sparse matrices ---- */
    /* y[r] = beta y[r] + sum over entries e of row r: (w ? w[pos e] : 1) (s ? s[r] : 1) x[idx e]; x
     * [C,F], y [R,F].
     * mean: the sum is divided by the row's entries. */
    void (*spmm)(nsm_device *d, const nsm_csr_part *m, int64_t f, const float *w, bool mean,
                 const float *x, float beta, float *y);
    /* out[pos e, h] = beta out + dot(a[row, h, :], b[idx e, h, :]); a [R,H*D], b [C,H*D], out
     * [E,H]. */
    void (*sddmm)(nsm_device *d, const nsm_csr_part *m, int64_t heads, int64_t dim, const float *a,
                  const float *b, float beta, float *out);
    /* Max of x[idx e] over each row's entries, 0 for an empty row; arg [R,F] the winning source
     * row, -1 if none;
     * ties: first entry.  back walks m's transpose. */
    void (*spmm_max)(nsm_device *d, const nsm_csr_part *m, int64_t f, const float *x, float *y,
                     int32_t *arg);
    /* += */
    void (*spmm_max_back)(nsm_device *d, const nsm_csr_part *bwd, int64_t f, const int32_t *arg,
                          const float *dy, float *dx);
    /* x [E,F] in the order of pos -> y [R,F] per row; MAX_OF/MIN_OF: 0 for an empty row, arg [R,F]
     * the winning entry, -1 if none. */
    void (*segment_reduce)(nsm_device *d, nsmi_reduce f, const nsm_csr_part *m, int64_t cols,
                           const float *x, float *y, int32_t *arg);
    void (*segment_reduce_back)(nsm_device *d, nsmi_reduce f, const nsm_csr_part *m, int64_t cols,
                                const int32_t *arg, const float *dy, float *dx); /* += */
    void (*segment_softmax)(nsm_device *d, const nsm_csr_part *m, int64_t heads, const float *x,
                            float *y);
    void (*segment_softmax_back)(nsm_device *d, const nsm_csr_part *m, int64_t heads,
                                 const float *y, const float *dy, float beta, float *dx);

    /* Fused GAT attention.  Row r = destination, idx = source, entry e.
     *   s = leaky_relu(src[idx,h] + dst[r,h] (+ edge[e,h]), slope);  p = softmax over the row;
     *   y[r,h,:] = sum p drop(e,h) x[idx,h,:]
     * x [C,H*D], src [C,H], dst [R,H], edge [E,H] or NULL, y [R,H*D]; stat [R,2H] = row max, 1/sum.
     * prob [E,H] (may be NULL) is p before dropout.  Dropout p_drop on p, draw e*H+h of r. */
    void (*gat)(nsm_device *d, const nsm_csr_part *m, int64_t heads, int64_t dim, float slope,
                float p_drop, nsm_random r, const float *x, const float *src, const float *dst,
                const float *edge, float *y, float *stat, float *prob);
    /* dx, dsrc, ddst, dedge +=; any may be NULL.  y is forward's result without bias.
     * scratch: E*H floats of device memory. */
    void (*gat_back)(nsm_device *d, const nsm_csr *m, int64_t heads, int64_t dim, float slope,
                     float p_drop, nsm_random r, const float *x, const float *src, const float *dst,
                     const float *edge, const float *y, const float *stat, const float *dy,
                     float *scratch, float *dx, float *dsrc, float *ddst, float *dedge);
    /* GATv2: s = att[h,:] . leaky_relu(l[idx,h,:] + q[r,h,:] (+ edge[e,h,:]));  y = sum p
     * l[idx]. */
    void (*gatv2)(nsm_device *d, const nsm_csr_part *m, int64_t heads, int64_t dim, float slope,
                  float p_drop, nsm_random r, const float *l, const float *q, const float *edge,
                  const float *att, float *y, float *stat, float *prob);
    void (*gatv2_back)(nsm_device *d, const nsm_csr *m, int64_t heads, int64_t dim, float slope,
                       float p_drop, nsm_random r, const float *l, const float *q,
                       const float *edge, const float *att, const float *y, const float *stat,
                       const float *dy, float *scratch, float *dl, float *dq, float *dedge,
                       float *datt);

    /* ---- sequences ---- */
    /* y [B, n, H, dv] dense = softmax over the keys seen of (scale q . k + bias), times v; 0 where
     * a query sees none.  lse [B, H, n]: log of the sum of exponentials, 0 there. */
    void (*attention)(nsm_device *d, const nsmi_attention *a, const float *q, const float *k,
                      const float *v, float *scratch, float *y, float *lse);
    /* dq, dk, dv in the strides of q, k, v: = beta (it) + gradient; any may be NULL.  ds [B, H, n,
     * m] dense: the gradient of the biased scores, 0 where not seen, written; NULL: not wanted. */
    void (*attention_back)(nsm_device *d, const nsmi_attention *a, const float *q, const float *k,
                           const float *v, const float *y, const float *lse, const float *dy,
                           float *scratch, const float beta[3], float *dq, float *dk, float *dv,
                           float *ds);
    /* gx [B, n, G*H]: what the inputs give to the gates, biases in it; w [G*H, H]; bias [H] or
     * NULL: of a GRU's inner W_n h; h0, c0 [B, H] or NULL (0) -> y [B, n, H], hn, cn [B, H].  For
     * backward, or NULL: gates [B, n, 4, H] (of a GRU r, z, n and the inner sum), c [B, n, H] (of
     * an LSTM). */
    void (*rnn)(nsm_device *d, const nsmi_rnn *a, const float *gx, const float *w,
                const float *bias, const float *h0, const float *c0, float *scratch, float *y,
                float *gates, float *c, float *hn, float *cn);
    /* dy [B, n, H]; dhn, dcn [B, H] or NULL (0).  Written: dg [B, n, G*H] of gx, dgh (of a GRU; an
     * LSTM's is dg) of what w gives, h_before [B, n, H] that w is multiplied with (0 behind a row's
     * end), dh0, dc0 [B, H]. */
    void (*rnn_back)(nsm_device *d, const nsmi_rnn *a, const float *w, const float *h0,
                     const float *c0, const float *y, const float *gates, const float *c,
                     const float *dy, const float *dhn, const float *dcn, float *scratch, float *dg,
                     float *dgh, float *h_before, float *dh0, float *dc0);
    /* Rotation by position (Su et al., arXiv:2104.09864): x [B, n, cols], of which the first
     * `heads` runs of `size`
     * columns turn: pair c of `pairs` by the angle sign (t + offset) base^(-c / pairs), its two
     * numbers `pairs` apart, or side by side.  y = beta y + that; the other columns as they are.
     * offsets [B] or NULL as above. */
    void (*rotate)(nsm_device *d, int64_t batch, int64_t n, int64_t cols, int64_t heads,
                   int64_t size, int64_t pairs, bool side_by_side, double base, int64_t offset,
                   const int32_t *offsets, float sign, const float *x, float beta, float *y);

    /* ---- recurrences ---- */
    /* Causal depthwise convolution: y[b,t,ch] = act(bias[ch] + sum over j of w[ch,j]
     * x[b,t-(c-1)+j,ch]), act SiLU or none; x, y [B,n,C], w [C,c], 1 <= c <= NSMI_CONV_TAPS, bias
     * [C] or NULL; rows before the first: tail [B,c-1,C], or NULL: 0. */
    void (*conv1d)(nsm_device *d, bool silu, int64_t batch, int64_t n, int64_t channels,
                   int64_t taps, const float *x, const float *w, const float *bias,
                   const float *tail, float *y);
    /* dx, dw, dbias, dtail +=; any may be NULL. */
    void (*conv1d_back)(nsm_device *d, bool silu, int64_t batch, int64_t n, int64_t channels,
                        int64_t taps, const float *x, const float *w, const float *bias,
                        const float *tail, const float *dy, float *dx, float *dw, float *dbias,
                        float *dtail);
    /* next [B,c-1,C]: the last c-1 of the tail's rows and x's first length[b], taken as 0..n (NULL:
     * n). */
    void (*conv1d_tail)(nsm_device *d, int64_t batch, int64_t n, int64_t channels, int64_t taps,
                        const float *x, const float *tail, const int32_t *length, float *next);
    /* o [B, n, H, E], s1 [B, H, D, E] the state after the last token.  states [B, H, n / NSMI_CHUNK
     * rounded up + 1, D, E]: the states before each chunk of tokens, and the last, for backward;
     * NULL: not kept. */
    void (*recurrence)(nsm_device *d, const nsmi_recurrence *r, const nsmi_recurrence_values *in,
                       float *o, float *s1, float *states);
    /* dout [B, n, H, E]; ds1 [B, H, D, E] or NULL. */
    void (*recurrence_back)(nsm_device *d, const nsmi_recurrence *r,
                            const nsmi_recurrence_values *in, const float *states,
                            const float *dout, const float *ds1, const nsmi_recurrence_grads *to);
    /* y [B, n, D], s1 [B, D, N]; states [B, n / NSMI_CHUNK rounded up, N, D]: those before each
     * chunk, for backward; NULL: not kept. */
    void (*scan)(nsm_device *d, const nsmi_scan *s, const nsmi_scan_values *in, float *y, float *s1,
                 float *states);
    void (*scan_back)(nsm_device *d, const nsmi_scan *s, const nsmi_scan_values *in,
                      const float *states, const float *dout, const float *ds1, float *scratch,
                      const nsmi_scan_grads *to); /* ds1 may be NULL */
    /* RWKV-4's sum, by channel: y_t = (sum over i < t of e^((t-1-i) w + k_i) v_i + e^(u + k_t) v_t)
     * / (the same without v). w (not above 0), u [C], k, v, y [B, n, C]; s0, s1 [B, 3, C] =
     * numerator and denominator divided by e^top, and top; states [B, n / NSMI_CHUNK rounded up, 3,
     * C]: those before each chunk; NULL: not kept. */
    void (*wkv)(nsm_device *d, int64_t batch, int64_t n, int64_t channels, const int32_t *length,
                const float *w, const float *u, const float *k, const float *v, const float *s0,
                float *y, float *s1, float *states);
    /* dw, du [B, C] written; dk, dv, ds0 +=, may be NULL. */
    void (*wkv_back)(nsm_device *d, int64_t batch, int64_t n, int64_t channels,
                     const int32_t *length, const float *w, const float *u, const float *k,
                     const float *v, const float *states, const float *dout, float *dw, float *du,
                     float *dk, float *dv, float *ds0);

    /* ---- the state memory ---- */
    /* o [B,n,H,dv] what a token reads, mass [B,n,H] 1 - null share, 0 behind the length; key,
     * value: the slots at the end. saved, trace: NULL, not wanted.  scratch: slots_room()
     * floats. */
    int64_t (*slots_room)(nsm_device *d, const nsmi_slots *c, bool decay, bool back);
    void (*slots)(nsm_device *d, const nsmi_slots *c, const nsmi_slots_in *in,
                  const nsmi_slots_state *st, float *scratch, float *o, float *mass, float *key,
                  float *value, const nsmi_slots_saved *saved, const nsmi_slots_trace *trace);
    void (*slots_back)(nsm_device *d, const nsmi_slots *c, const nsmi_slots_in *in,
                       const nsmi_slots_saved *saved, float *scratch, const nsmi_slots_grad *g);
    /* y [B,n,H,dv]; lse [B,n,H] log of the sum of exponentials (NULL: not wanted).  scratch:
     * window_room() floats. */
    int64_t (*window_room)(nsm_device *d, const nsmi_window *c, bool back);
    void (*window)(nsm_device *d, const nsmi_window *c, const nsmi_window_in *in, float *scratch,
                   float *y, float *lse);
    void (*window_back)(nsm_device *d, const nsmi_window *c, const nsmi_window_in *in,
                        const float *lse, const float *dy, float *scratch,
                        const nsmi_window_grad *g);
    /* y = x / sqrt(|x|^2 + 1e-6), turned; x, y [B,n,H,D], rate [B,n,H]: phase_t = phase_(t-1) +
     * rate_t, kept in phase [B,n,H]; by [B,n,H] 1 / the root.  Without pairs rate and phase are
     * NULL.  back: scratch [B,n,H]; dx = beta dx + it, drate, dstart [B,rows,H] +=, or NULL. */
    void (*clock)(nsm_device *d, const nsmi_clock *c, const float *x, const float *rate,
                  double *phase, float *by, float *y);
    void (*clock_back)(nsm_device *d, const nsmi_clock *c, const double *phase, const float *by,
                       const float *y, const float *dy, float *scratch, float beta, float *dx,
                       float *drate, float *dstart);
    void (*memory_mix)(nsm_device *d, int64_t tokens, int64_t heads, int64_t size, const float *o,
                       const float *mass, const float *near, const float *gate, const float *w,
                       float *y);
    void (*memory_mix_back)(nsm_device *d, int64_t tokens, int64_t heads, int64_t size,
                            const nsmi_mix *x, const float *w, const float *dy,
                            const nsmi_mix_grad *g);

    /* ---- pools over sets ---- */
    /* usage [B,s] *= rho; states alive of less than tau_prune are given up, kept [B,s] is 0 for
     * them, 1 for others. */
    void (*pool_age)(nsm_device *d, const nsmi_pool *c, float *usage, uint8_t *alive, float *kept);
    /* k [B,n,D], key [B,s,D], alive [B,s] (in and out) -> opened [B,n] the state an element opens,
     * -1 none; owner [B,s] the element that opened a state, -1 none; next [B,s,D] the keys then,
     * key plus that of the owner; shut [B,s] 0 for living states, -inf for others. near [B,n]:
     * scratch. */
    void (*pool_open)(nsm_device *d, const nsmi_pool *c, const float *k, const float *key,
                      uint8_t *alive, float *near, int32_t *opened, int32_t *owner, float *next,
                      float *shut);
    /* +=, may be NULL */
    void (*pool_open_back)(nsm_device *d, const nsmi_pool *c, const int32_t *owner,
                           const float *dnext, float *dk, float *dkey);
    /* share [B,n,s]: softmax of gamma cosine over the kept and a null share's logit, the kept
     * alone; gamma, null [1]. */
    void (*pool_route)(nsm_device *d, const nsmi_pool *c, const float *cosine, const uint8_t *alive,
                       const float *gamma, const float *null, float *share);
    void (*pool_route_back)(nsm_device *d, const nsmi_pool *c, const float *cosine,
                            const float *gamma, const float *share, const float *dshare,
                            float *dcosine, float *dgamma, float *dnull); /* +=, may be NULL */

    /* ---- images ---- */
    /* y = beta y + convolution + bias [O] (may be NULL) */
    void (*conv2d)(nsm_device *d, const nsmi_conv *c, const float *x, const float *w,
                   const float *bias, float beta, float *y);
    /* dx = beta dx + (it): also a transposed convolution's forward */
    void (*conv2d_back_x)(nsm_device *d, const nsmi_conv *c, const float *w, const float *dy,
                          float beta, float *dx);
    void (*conv2d_back_w)(nsm_device *d, const nsmi_conv *c, const float *x, const float *dy,
                          float *dw); /* += */
    /* arg: the winner's place in its plane, -1 where a window holds none; ties: the first; a NaN
     * wins */
    void (*max_pool2d)(nsm_device *d, const nsmi_windows *c, const float *x, float *y,
                       int32_t *arg);
    void (*max_pool2d_back)(nsm_device *d, const nsmi_windows *c, const int32_t *arg,
                            const float *dy, float *dx); /* += */
    /* Planes x [P, H, W] -> y [P, Ho, Wo] = beta y + A x B', A [Ho, H] and B [Wo, W] sparse:
     * average pooling, padding, resampling; its own backward, with A and B transposed. */
    void (*resample)(nsm_device *d, int64_t planes, const int64_t in[2], const int64_t out[2],
                     nsmi_sparse_rows a, nsmi_sparse_rows b, const float *x, float beta, float *y);
};

#ifdef __cplusplus
extern "C" {
#endif
extern const nsm_backend nsmi_cpu;
extern const nsm_backend nsmi_cuda;     /* where CUDA was there to build it */
extern const nsm_backend nsmi_emulated; /* the CUDA kernels as C++ on the host: for tests */
#ifdef __cplusplus
}
#endif

#endif
