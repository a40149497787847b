/* base/ops/image.c - Ops on images [B, C, H, W]: convolution and its transpose, pooling, padding,
 * resampling.
 *
 * Average pooling, padding and resampling are all linear along each axis: one op with a sparse
 * matrix for each of the two, whose backward is the same with the matrices transposed. */
#include "config.h"
#include "base/ops/common.h"

static const nsm_conv2d_config plain = { { 0 }, { 0 }, { 0 }, 0, { 0 } };

static bool is_image(const nsm_tensor *x) { return x->rank == 4 && nsm_numel(x) > 0; }

/* ---- conv2d, conv_transpose2d: in = x, w, bias; i = {stride, padding, dilation, groups, output
 * padding} ---- */
enum { CX, CW, CBIAS };

/* Axis a of one image: how many places of a kernel fit; 0: none, or a number is out of range. */
static int64_t places(int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                      int64_t dilation)
{
    int64_t reach;
    bool ok = kernel > 0 && stride > 0 && padding >= 0 && dilation > 0 && stride <= INT32_MAX &&
              padding <= INT32_MAX && nsmi_mul(kernel - 1, dilation, &reach) &&
              reach < size + 2 * padding;
    return ok ? (size + 2 * padding - reach - 1) / stride + 1 : 0;
}

/* The kernels' shape of it: of the convolution that turns `big` [.., channels, H, W] into `small`.
 * Sizes of the output are filled in; false: something does not fit. */
static bool conv_plan(const nsm_node *n, bool transposed, nsmi_conv *c)
{
    const nsm_tensor *x = n->in[CX], *w = n->in[CW];
    if (!is_image(x) || w->rank != 4 || nsm_numel(w) == 0 || n->i[6] < 1) return false;
    *c = (nsmi_conv){ .batch = x->dim[0], .groups = n->i[6] };
    for (int a = 0; a < 2; a++) {
        c->kernel[a] = w->dim[2 + a];
        c->stride[a] = n->i[a];
        c->padding[a] = n->i[2 + a];
        c->dilation[a] = n->i[4 + a];
    }
    c->outputs = w->dim[0];
    c->channels = w->dim[1] * c->groups;
    if (c->outputs % c->groups || x->dim[1] != (transposed ? c->outputs : c->channels))
        return false;
    int64_t *big[2] = { &c->height, &c->width }, *small[2] = { &c->out_height, &c->out_width };
    for (int a = 0; a < 2; a++) {
        int64_t size = x->dim[2 + a], s = c->stride[a], reach = (c->kernel[a] - 1) * c->dilation[a];
        if (places(size + reach, c->kernel[a], s, c->padding[a], c->dilation[a]) < 1) return false;
        *small[a] = transposed ? size
                               : places(size, c->kernel[a], s, c->padding[a], c->dilation[a]);
        *big[a] = transposed ? (size - 1) * s - 2 * c->padding[a] + reach + n->i[7 + a] + 1 : size;
        if (*small[a] < 1 || *big[a] < 1 || n->i[7 + a] < 0 ||
            (n->i[7 + a] > 0 && n->i[7 + a] >= s && n->i[7 + a] >= c->dilation[a]))
            return false;
    }
    return true;
}

static void conv_shape(nsm_node *n, bool transposed)
{
    nsmi_conv c;
    const nsm_tensor *bias = n->in[CBIAS];
    if (!nsmi_all_floats(n)) return;
    if (!conv_plan(n, transposed, &c) || !nsmi_is_vector(bias, c.outputs)) {
        nsmi_bad_shape(n, transposed ? "want x [B,C,H,W], w [C,O/G,kh,kw], positive sizes, output "
                                       "padding below the stride or the dilation"
                                     : "want x [B,C,H,W], w [O,C/G,kh,kw], bias [O], a kernel that "
                                       "fits into the padded image");
        return;
    }
    if (!nsmi_conv_fits(&c)) {
        nsm_error_set(n->ctx, NSM_EINVAL,
                      "%s: a kernel of %lld x %lld over images %lld wide is beyond what is built",
                      n->op->name, (long long)c.kernel[0], (long long)c.kernel[1],
                      (long long)c.width);
        return;
    }
    if (transposed) OUT(n, 0, c.batch, c.channels, c.height, c.width);
    else OUT(n, 0, c.batch, c.outputs, c.out_height, c.out_width);
}

static void conv2d_shape(nsm_node *n) { conv_shape(n, false); }
static void conv_transpose2d_shape(nsm_node *n) { conv_shape(n, true); }

static void conv2d_forward(nsm_node *n)
{
    nsmi_conv c;
    conv_plan(n, false, &c);
    BE(n)->conv2d(DEV(n), &c, X(CX), X(CW), n->in[CBIAS] ? X(CBIAS) : NULL, 0, Y(0));
}

static void conv2d_backward(nsm_node *n)
{
    nsmi_conv c;
    float beta, bias_beta, *dx = nsm_node_dx_beta(n, CX, &beta), *dw = DX(CW),
                           *dbias = n->in[CBIAS] ? nsm_node_dx_beta(n, CBIAS, &bias_beta) : NULL;
    if (nsmi_failed(n->ctx) || !DY(0)) return;
    conv_plan(n, false, &c);
    if (dx) BE(n)->conv2d_back_x(DEV(n), &c, X(CW), DY(0), beta, dx);
    if (dw) BE(n)->conv2d_back_w(DEV(n), &c, X(CX), DY(0), dw);
    const int64_t dim[5] = { 1, 1, c.batch, c.outputs, c.out_height * c.out_width };
    if (dbias)
        BE(n)->sum_to(DEV(n), dim, DY(0), (nsmi_strides){ { 0, 0, 0, 1, 0 } }, bias_beta, dbias);
}

static void conv_transpose2d_forward(nsm_node *n)
{
    nsmi_conv c;
    conv_plan(n, true, &c);
    BE(n)->conv2d_back_x(DEV(n), &c, X(CW), X(CX), 0, Y(0));
}

static void conv_transpose2d_backward(nsm_node *n)
{
    nsmi_conv c;
    float beta, *dx = nsm_node_dx_beta(n, CX, &beta), *dw = DX(CW);
    if (nsmi_failed(n->ctx) || !DY(0)) return;
    conv_plan(n, true, &c);
    if (dx) BE(n)->conv2d(DEV(n), &c, DY(0), X(CW), NULL, beta, dx);
    if (dw) BE(n)->conv2d_back_w(DEV(n), &c, DY(0), X(CX), dw);
}

const nsm_op nsmi_op_conv2d = { "nsm_conv2d",
                                conv2d_shape,
                                conv2d_forward,
                                conv2d_backward,
                                2,
                                NSM_READS_IN(CX) | NSM_READS_IN(CW),
                                false };
const nsm_op nsmi_op_conv_transpose2d = { "nsm_conv_transpose2d",
                                          conv_transpose2d_shape,
                                          conv_transpose2d_forward,
                                          conv_transpose2d_backward,
                                          2,
                                          NSM_READS_IN(CX) | NSM_READS_IN(CW),
                                          false };

static int64_t or_one(int n) { return n ? n : 1; }

static nsm_tensor *convolve(nsm_tape *tape, const nsm_op *op, nsm_tensor *x, nsm_tensor *w,
                            nsm_tensor *bias, const nsm_conv2d_config *c)
{
    return nsm_apply(tape, op,
                     &(nsm_args){ .in = { x, w, bias },
                                  .i = { or_one(c->stride[0]), or_one(c->stride[1]), c->padding[0],
                                         c->padding[1], or_one(c->dilation[0]),
                                         or_one(c->dilation[1]), or_one(c->groups),
                                         c->output_padding[0], c->output_padding[1] } });
}

/* x [B, C, L] as images of one row, or of one column where a row would be too long. */
static nsm_tensor *convolve_line(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias,
                                 const nsm_conv2d_config *c)
{
    int at = x->dim[2] > NSMI_CONV_WIDTH / 2 ? 0 : 1;
    int64_t dim[4] = { x->dim[0], x->dim[1], 1, 1 }, kernel[4] = { w->dim[0], w->dim[1], 1, 1 };
    nsm_conv2d_config line = { .groups = c->groups };
    dim[2 + at] = x->dim[2];
    kernel[2 + at] = w->dim[2];
    line.stride[at] = c->stride[0];
    line.padding[at] = c->padding[0];
    line.dilation[at] = c->dilation[0];
    nsm_tensor *y = convolve(tape, &nsmi_op_conv2d, nsm_reshape(tape, x, 4, dim),
                             nsm_reshape(tape, w, 4, kernel), bias, &line);
    return y ? nsm_reshape(tape, y, 3, (const int64_t[]){ y->dim[0], y->dim[1], -1 }) : NULL;
}

nsm_tensor *nsm_conv2d(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias,
                       const nsm_conv2d_config *config)
{
    if (!tape || !x || !w) return NULL;
    const nsm_conv2d_config *c = config ? config : &plain;
    bool line = x->rank == 3 && w->rank == 3 && nsm_numel(x) > 0;
    return line ? convolve_line(tape, x, w, bias, c)
                : convolve(tape, &nsmi_op_conv2d, x, w, bias, c);
}

nsm_tensor *nsm_conv_transpose2d(nsm_tape *tape, nsm_tensor *x, nsm_tensor *w, nsm_tensor *bias,
                                 const nsm_conv2d_config *config)
{
    nsm_tensor *y = convolve(tape, &nsmi_op_conv_transpose2d, x, w, NULL, config ? config : &plain);
    if (!y || !bias) return y;
    if (!nsmi_is_vector(bias, y->dim[1])) {
        nsm_error_set(y->ctx, NSM_ESHAPE, "nsm_conv_transpose2d: want bias [%lld]",
                      (long long)y->dim[1]);
        return NULL;
    }
    return nsm_add(tape, y, nsm_reshape(tape, bias, 3, (const int64_t[]){ -1, 1, 1 }));
}

/* ---- max_pool2d: i = {kernel, stride, padding, dilation, ceil} ---- */

/* torch's count of windows: with ceil also one that begins in the image and ends behind it */
static int64_t windows(int64_t size, const int64_t *i, int a, bool ceil)
{
    int64_t stride = i[2 + a], padding = i[4 + a], reach;
    if (i[a] < 1 || stride < 1 || i[6 + a] < 1 || padding < 0 ||
        !nsmi_mul(i[a] - 1, i[6 + a], &reach) || 2 * padding > reach + 1 ||
        reach >= size + 2 * padding)
        return 0;
    int64_t count = (size + 2 * padding - reach - 1 + (ceil ? stride - 1 : 0)) / stride + 1;
    return ceil && (count - 1) * stride >= size + padding ? count - 1 : count;
}

static bool pool_plan(const nsm_node *n, nsmi_windows *c)
{
    const nsm_tensor *x = n->in[0];
    if (!is_image(x) || x->dim[2] > INT32_MAX / x->dim[3]) return false;
    *c = (nsmi_windows){ .planes = x->dim[0] * x->dim[1],
                         .height = x->dim[2],
                         .width = x->dim[3],
                         .out_height = windows(x->dim[2], n->i, 0, n->i[8]),
                         .out_width = windows(x->dim[3], n->i, 1, n->i[8]) };
    for (int a = 0; a < 2; a++) {
        c->kernel[a] = n->i[a];
        c->stride[a] = n->i[2 + a];
        c->padding[a] = n->i[4 + a];
        c->dilation[a] = n->i[6 + a];
    }
    return c->out_height > 0 && c->out_width > 0;
}

static const char bad_windows[] = "want x [B,C,H,W], windows that fit into the padded image, "
                                  "padding at most half of them";

static void max_pool2d_shape(nsm_node *n)
{
    nsmi_windows c;
    if (!nsmi_all_floats(n)) return;
    if (!pool_plan(n, &c)) {
        nsmi_bad_shape(n, bad_windows);
        return;
    }
    OUT(n, 0, n->in[0]->dim[0], n->in[0]->dim[1], c.out_height, c.out_width);
    nsm_node_save(n, 0, NSM_I32, 3, (const int64_t[]){ c.planes, c.out_height, c.out_width });
}

static void max_pool2d_forward(nsm_node *n)
{
    nsmi_windows c;
    pool_plan(n, &c);
    BE(n)->max_pool2d(DEV(n), &c, X(0), Y(0), n->saved[0]->i32);
}

static void max_pool2d_backward(nsm_node *n)
{
    nsmi_windows c;
    float *dx = DX(0);
    pool_plan(n, &c);
    if (dx && DY(0)) BE(n)->max_pool2d_back(DEV(n), &c, n->saved[0]->i32, DY(0), dx);
}

const nsm_op nsmi_op_max_pool2d = { "nsm_max_pool2d",
                                    max_pool2d_shape,
                                    max_pool2d_forward,
                                    max_pool2d_backward,
                                    1,
                                    NSM_READS_NOTHING,
                                    false };

/* ---- resample: y = A x B' ----
 * i = {kind, then of each axis kind's numbers}: WINDOWS as max_pool2d's 1..8, ceil and count in
 * i[0]; MEAN output sizes; PAD what is added before and behind, and the nsm_pad_mode; SCALE output
 * sizes, the nsm_resize_mode, align_corners; f[0] is SCALE's a. */
enum { WINDOWS, MEAN, PAD, SCALE, CEIL = 16, PADDING_COUNTS = 32 };

/* One matrix [out, in], row after row: first counted (index NULL), then written. */
typedef struct {
    int64_t in, out, entries;
    int32_t *ptr, *index;
    float *value;
} matrix;

static void add_entry(matrix *m, int64_t column, double value)
{
    if (m->index) {
        m->index[m->entries] = (int32_t)column;
        m->value[m->entries] = (float)value;
    }
    m->entries++;
}

static void add_mean(matrix *m, int64_t first, int64_t end, int64_t divisor)
{
    for (int64_t k = first; k < end; k++) add_entry(m, k, 1.0 / (double)divisor);
}

static int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

static void window_row(matrix *m, const nsm_node *n, int a, int64_t i)
{
    int64_t padding = n->i[5 + a], start = i * n->i[3 + a] - padding,
            end = at_most(start + n->i[1 + a], m->in + padding), first = at_least(start, 0),
            last = at_most(end, m->in);
    add_mean(m, first, last, n->i[0] & PADDING_COUNTS ? end - start : last - first);
}

static void pad_row(matrix *m, const nsm_node *n, int a, int64_t i)
{
    int64_t at = i - n->i[1 + 2 * a], last = m->in - 1, mode = n->i[5];
    if (mode == NSM_PAD_CONSTANT && (at < 0 || at > last)) return;
    if (mode == NSM_PAD_REFLECT) at = at < 0 ? -at : at > last ? 2 * last - at : at;
    if (mode == NSM_PAD_REPLICATE) at = at < 0 ? 0 : at_most(at, last);
    if (mode == NSM_PAD_CIRCULAR) at = (at + m->in) % m->in;
    add_entry(m, at, 1);
}

static void cubic_row(matrix *m, double a, double source)
{
    double low = floor(source), t = source - low;
    const double w[4] = { ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a,
                          ((a + 2) * t - (a + 3)) * t * t + 1,
                          ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1,
                          ((a * (2 - t) - 5 * a) * (2 - t) + 8 * a) * (2 - t) - 4 * a };
    for (int k = 0; k < 4; k++)
        add_entry(m, at_most(at_least((int64_t)low - 1 + k, 0), m->in - 1), w[k]);
}

static void scale_row(matrix *m, const nsm_node *n, int64_t i)
{
    if (n->i[3] == NSM_RESIZE_NEAREST) {
        add_entry(m, i * m->in / m->out, 1);
        return;
    }
    double source = n->i[4] ? m->out > 1 ? (double)(i * (m->in - 1)) / (double)(m->out - 1) : 0
                            : ((double)i + 0.5) * (double)m->in / (double)m->out - 0.5;
    if (n->i[3] == NSM_RESIZE_CUBIC) {
        cubic_row(m, (double)n->f[0], source);
        return;
    }
    source = fmax(source, 0);
    int64_t low = at_most((int64_t)source, m->in - 1);
    add_entry(m, low, 1 - (source - (double)low));
    add_entry(m, at_most(low + 1, m->in - 1), source - (double)low);
}

static void fill_matrix(matrix *m, const nsm_node *n, int a)
{
    m->entries = 0;
    for (int64_t i = 0; i < m->out; i++) {
        if (m->ptr) m->ptr[i] = (int32_t)m->entries;
        switch (n->i[0] & 15) {
        case WINDOWS: window_row(m, n, a, i); break;
        case MEAN: {
            int64_t first = i * m->in / m->out, end = ((i + 1) * m->in + m->out - 1) / m->out;
            add_mean(m, first, end, end - first);
            break;
        }
        case PAD: pad_row(m, n, a, i); break;
        default: scale_row(m, n, i);
        }
    }
    if (m->ptr) m->ptr[m->out] = (int32_t)m->entries;
}

/* t = m transposed; entries of a row stay in m's order */
static void transpose(const matrix *m, matrix *t)
{
    for (int64_t k = 0; k <= t->out; k++) t->ptr[k] = 0;
    for (int64_t e = 0; e < m->entries; e++) t->ptr[m->index[e] + 1]++;
    for (int64_t k = 0; k < t->out; k++) t->ptr[k + 1] += t->ptr[k];
    for (int64_t i = 0; i < m->out; i++)
        for (int64_t e = m->ptr[i]; e < m->ptr[i + 1]; e++) {
            int32_t at = t->ptr[m->index[e]]++;
            t->index[at] = (int32_t)i;
            t->value[at] = m->value[e];
        }
    for (int64_t k = t->out; k > 0; k--) t->ptr[k] = t->ptr[k - 1];
    t->ptr[0] = 0;
}

/* Sizes of y; false: a number is out of range. */
static bool resampled_size(const nsm_node *n, int a, int64_t in, int64_t *out)
{
    const int64_t *i = n->i;
    const int64_t window[8] = { i[1], i[2], i[3], i[4], i[5], i[6], 1, 1 };
    int64_t before = i[1 + 2 * a], behind = i[2 + 2 * a], most = at_least(before, behind);
    switch (i[0] & 15) {
    case WINDOWS: *out = windows(in, window, a, i[0] & CEIL); break;
    case PAD:
        *out = in + before + behind;
        if ((i[5] == NSM_PAD_REFLECT && most >= in) || (i[5] == NSM_PAD_CIRCULAR && most > in))
            return false;
        break;
    default: *out = i[1 + a];
    }
    return *out > 0 && *out <= INT32_MAX / 8 && in <= INT32_MAX / 8;
}

/* The matrices in saved memory: of axis 0, its transpose, of axis 1, its transpose. */
static void saved_rows(const nsm_node *n, const int32_t *ints, const float *floats,
                       nsmi_sparse_rows r[4])
{
    for (int k = 0; k < 4; k++) {
        int64_t in = n->in[0]->dim[2 + k / 2], out = n->out[0]->dim[2 + k / 2];
        r[k].ptr = ints;
        r[k].index = ints + (k % 2 ? in : out) + 1;
        r[k].value = floats;
        ints = r[k].index + n->i[8 + k / 2];
        floats += n->i[8 + k / 2];
    }
}

/* Both matrices and their transposes, made on the host, to the device. */
static void save_matrices(nsm_node *n, matrix m[2])
{
    int64_t ints = 2 * (m[0].entries + m[1].entries + m[0].in + m[0].out + m[1].in + m[1].out) + 8,
            floats = 2 * (m[0].entries + m[1].entries);
    nsm_tensor *index = nsm_node_save(n, 0, NSM_I32, 1, &ints),
               *value = nsm_node_save(n, 1, NSM_F32, 1, &floats);
    int32_t *host = nsmi_malloc(n->ctx, (size_t)ints * sizeof *host);
    float *numbers = nsmi_malloc(n->ctx, (size_t)floats * sizeof *numbers);
    nsmi_sparse_rows r[4];
    if (host && numbers && index && index->data && value && value->data) {
        saved_rows(n, host, numbers, r);
        for (int a = 0; a < 2; a++) {
            matrix t = { m[a].out, m[a].in, 0, NULL, NULL, NULL };
            matrix *both[2] = { &m[a], &t };
            for (int k = 0; k < 2; k++) {
                both[k]->ptr = (int32_t *)r[2 * a + k].ptr;
                both[k]->index = (int32_t *)r[2 * a + k].index;
                both[k]->value = (float *)r[2 * a + k].value;
            }
            fill_matrix(&m[a], n, a);
            transpose(&m[a], &t);
        }
        nsmi_constant(n->ctx, (size_t)ints * sizeof *host, host, index->data);
        nsmi_constant(n->ctx, (size_t)floats * sizeof *numbers, numbers, value->data);
    }
    free(numbers);
    free(host);
}

static void resample_shape(nsm_node *n)
{
    const nsm_tensor *x = n->in[0];
    matrix m[2] = { { 0 }, { 0 } };
    bool ok = nsmi_all_floats(n) && is_image(x);
    if (nsmi_failed(n->ctx)) return;
    for (int a = 0; ok && a < 2; a++) {
        m[a].in = x->dim[2 + a];
        ok = resampled_size(n, a, m[a].in, &m[a].out);
        if ((n->i[0] & 15) == WINDOWS) ok = ok && m[a].out <= INT32_MAX / 8 / n->i[1 + a];
        if (ok) fill_matrix(&m[a], n, a);
        n->i[8 + a] = m[a].entries;
    }
    if (!ok) {
        nsmi_bad_shape(n,
                       (n->i[0] & 15) == WINDOWS
                           ? bad_windows
                           : "want x [B,C,H,W], sizes above 0, reflected padding below the size");
        return;
    }
    OUT(n, 0, x->dim[0], x->dim[1], m[0].out, m[1].out);
    if (!nsmi_failed(n->ctx)) save_matrices(n, m);
}

static void resample(const nsm_node *n, bool back, const float *from, float beta, float *to)
{
    const int64_t *in = n->in[0]->dim, *out = n->out[0]->dim;
    nsmi_sparse_rows r[4];
    saved_rows(n, n->saved[0]->i32, n->saved[1]->f32, r);
    BE(n)->resample(DEV(n), in[0] * in[1], (back ? out : in) + 2, (back ? in : out) + 2, r[back],
                    r[2 + back], from, beta, to);
}

static void resample_forward(nsm_node *n) { resample(n, false, X(0), 0, Y(0)); }

static void resample_backward(nsm_node *n)
{
    float beta, *dx = nsm_node_dx_beta(n, 0, &beta);
    if (dx && DY(0)) resample(n, true, DY(0), beta, dx);
}

const nsm_op nsmi_op_resample = {
    "nsm_resample", resample_shape, resample_forward, resample_backward, 1, NSM_READS_NOTHING, false
};

/* ---- what is made of them ---- */

nsm_tensor *nsm_max_pool2d(nsm_tape *tape, nsm_tensor *x, const nsm_pool2d_config *c)
{
    const int *k = c->kernel, *s = c->stride;
    return nsm_apply(tape, &nsmi_op_max_pool2d,
                     &(nsm_args){ .in = { x },
                                  .i = { k[0], k[1], s[0] ? s[0] : k[0], s[1] ? s[1] : k[1],
                                         c->padding[0], c->padding[1], or_one(c->dilation[0]),
                                         or_one(c->dilation[1]), c->ceil } });
}

nsm_tensor *nsm_avg_pool2d(nsm_tape *tape, nsm_tensor *x, const nsm_pool2d_config *c)
{
    const int *k = c->kernel, *s = c->stride;
    int kind = WINDOWS | (c->ceil ? CEIL : 0) | (c->image_only ? 0 : PADDING_COUNTS);
    if (or_one(c->dilation[0]) != 1 || or_one(c->dilation[1]) != 1) {
        nsm_error_set(nsm_tape_ctx(tape), NSM_EINVAL, "nsm_avg_pool2d: dilation is %d, %d",
                      c->dilation[0], c->dilation[1]);
        return NULL;
    }
    return nsm_apply(tape, &nsmi_op_resample,
                     &(nsm_args){ .in = { x },
                                  .i = { kind, k[0], k[1], s[0] ? s[0] : k[0], s[1] ? s[1] : k[1],
                                         c->padding[0], c->padding[1] } });
}

nsm_tensor *nsm_adaptive_avg_pool2d(nsm_tape *tape, nsm_tensor *x, int64_t height, int64_t width)
{
    return nsm_apply(tape, &nsmi_op_resample,
                     &(nsm_args){ .in = { x }, .i = { MEAN, height, width } });
}

nsm_tensor *nsm_pad2d(nsm_tape *tape, nsm_tensor *x, const int pad[4], nsm_pad_mode mode,
                      float value)
{
    nsm_args a = { .in = { x }, .i = { PAD, pad[2], pad[3], pad[0], pad[1], mode } };
    if (mode != NSM_PAD_CONSTANT || value == 0) return nsm_apply(tape, &nsmi_op_resample, &a);
    a.in[0] = nsm_scale(tape, x, 1, -value); /* what is added is 0, and then value */
    return nsm_scale(tape, nsm_apply(tape, &nsmi_op_resample, &a), 1, value);
}

nsm_tensor *nsm_resize(nsm_tape *tape, nsm_tensor *x, int64_t height, int64_t width,
                       const nsm_resize_config *c)
{
    return nsm_apply(tape, &nsmi_op_resample,
                     &(nsm_args){ .in = { x },
                                  .i = { SCALE, height, width, c->mode, c->align_corners },
                                  .f = { c->a != 0 ? c->a : -0.75f } });
}

nsm_tensor *nsm_pixel_shuffle(nsm_tape *tape, nsm_tensor *x, int r)
{
    if (!tape || !x) return NULL;
    if (!is_image(x) || r < 1 || x->dim[1] % ((int64_t)r * r)) {
        nsm_error_set(x->ctx, NSM_ESHAPE,
                      "nsm_pixel_shuffle: want x [B,C*r*r,H,W], r is %d, the rank %d", r, x->rank);
        return NULL;
    }
    const int64_t *d = x->dim, c = d[1] / r / r;
    nsm_tensor *y = nsm_reshape(tape, x, 5, (const int64_t[]){ d[0] * c, r, r, d[2], d[3] });
    y = nsm_permute(tape, y, (const int[]){ 0, 3, 1, 4, 2 });
    return nsm_reshape(tape, y, 4, (const int64_t[]){ d[0], c, d[2] * r, d[3] * r });
}
