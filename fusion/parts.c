/* fusion/parts.c - See parts.h. */
#include "config.h"
#include "fusion/parts.h"

enum { NAME_BYTES = 96 };
static const float HIDDEN = -1e30f; /* below every score */

nsm_tensor *nsmi_drawn(nsm_module *m, const char *name, int64_t rows, int64_t cols, float deviation)
{
    nsm_tensor *w = nsm_module_param(m, name, 2, (int64_t[]){ rows, cols });
    if (w) nsm_init_normal(w, 0, deviation);
    return w;
}

nsm_tensor *nsmi_filled(nsm_module *m, const char *name, int64_t count, float value)
{
    nsm_tensor *b = nsm_module_param(m, name, 1, &count);
    if (b) nsm_tensor_fill(b, value);
    return b;
}

nsmi_pair nsmi_linear_new(nsm_module *m, const char *name, int64_t out, int64_t in, bool bias)
{
    char path[NAME_BYTES];
    float bound = 1 / sqrtf((float)in);
    nsmi_pair p = { 0 };
    snprintf(path, sizeof path, "%s.weight", name);
    p.w = nsm_module_param(m, path, 2, (int64_t[]){ out, in });
    nsm_init_uniform(p.w, -bound, bound);
    snprintf(path, sizeof path, "%s.bias", name);
    if (bias) p.b = nsm_module_param(m, path, 1, &out);
    return p;
}

nsmi_pair nsmi_norm_new(nsm_module *m, const char *name, int64_t n)
{
    char path[NAME_BYTES];
    nsmi_pair p = { 0 };
    snprintf(path, sizeof path, "%s.weight", name);
    p.w = nsm_module_param(m, path, 1, &n);
    if (p.w) nsm_tensor_fill(p.w, 1);
    snprintf(path, sizeof path, "%s.bias", name);
    p.b = nsm_module_param(m, path, 1, &n);
    return p;
}

nsm_tensor *nsmi_for_each(nsm_tape *tape, nsm_tensor *x, int64_t batch)
{
    nsm_tensor *every = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ batch, 1, 1 }, NULL);
    if (!every || !x) return NULL;
    nsm_tensor_zero(every);
    return nsm_add(tape, nsm_reshape(tape, x, 3, (int64_t[]){ 1, x->dim[0], x->dim[1] }), every);
}

uint8_t *nsmi_presence(nsm_tape *tape, const nsm_set_input *in, int count, int64_t batch, int64_t n)
{
    bool whole = true;
    for (int m = 0; m < count; m++) whole &= !in[m].x || !in[m].length;
    uint8_t *there = whole ? NULL : nsmi_tape_room(tape, (size_t)(batch * n));
    int32_t *length = whole ? NULL : nsmi_tape_room(tape, (size_t)batch * sizeof *length);
    if (!there || !length) return NULL;
    int64_t at = 0;
    for (int m = 0; m < count; m++) {
        if (!in[m].x) continue;
        int64_t many = in[m].x->dim[1];
        if (in[m].length) nsm_tensor_get(in[m].length, length);
        for (int64_t b = 0; b < batch; b++)
            memset(there + b * n + at, 1,
                   (size_t)nsmi_length(in[m].length ? length : NULL, b, many));
        at += many;
    }
    return there;
}

nsm_tensor *nsmi_shut(nsm_tape *tape, const nsm_set_input *in, int count, int64_t batch, int64_t n)
{
    const uint8_t *there = nsmi_presence(tape, in, count, batch, n);
    float *shut = there ? nsmi_tape_room(tape, (size_t)(batch * n) * sizeof *shut) : NULL;
    for (int64_t i = 0; shut && i < batch * n; i++) shut[i] = there[i] ? 0 : -INFINITY;
    return shut ? nsm_tape_tensor(tape, NSM_F32, 2, (int64_t[]){ batch, n }, shut) : NULL;
}

/* [B, n, H, D] -> [B*H, n, D] */
static nsm_tensor *by_head(nsm_tape *tape, nsm_tensor *x)
{
    static const int order[] = { 0, 2, 1, 3 };
    nsm_tensor *y = nsm_permute(tape, x, order);
    return y ? nsm_reshape(tape, y, 3, (int64_t[]){ y->dim[0] * y->dim[1], y->dim[2], y->dim[3] })
             : NULL;
}

nsm_tensor *nsmi_attention_weights(nsm_tape *tape, nsm_tensor *q, nsm_tensor *k, nsm_tensor *bias,
                                   nsm_tensor *shut)
{
    if (!q || !k) return NULL;
    int64_t dim[4] = { q->dim[0], q->dim[2], q->dim[1], k->dim[1] };
    nsm_tensor *x = nsm_bmm(tape, by_head(tape, q), by_head(tape, k), false, true);
    x = nsm_scale(tape, x, 1 / sqrtf((float)q->dim[3]), 0);
    x = x ? nsm_reshape(tape, x, 4, dim) : NULL;
    if (bias) x = nsm_add(tape, x, bias);
    if (!shut) return nsm_softmax(tape, x, -1);
    shut = nsm_reshape(tape, shut, 4, (int64_t[]){ dim[0], 1, 1, dim[3] });
    /* a row that sees nothing: finite at first, so that there is no NaN, then nothing at all */
    x = nsm_softmax(tape, nsm_add(tape, x, nsm_clamp(tape, shut, HIDDEN, 0)), -1);
    return nsm_mul(tape, x, nsm_exp(tape, shut));
}
