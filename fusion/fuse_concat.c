/* fusion/fuse_concat.c - Late fusion: the mean of each modality's elements, all of them and the
 * reader side by side, a multilayer perceptron.
 *
 *   p_m = mean over the elements of W_m x + b_m, 0 without elements;  y = MLP([p_0 .. p_M-1; q])
 *
 * It cannot tell elements of a set apart: what every other fuser must do better than.
 * Parameters: in., query; mlp.0. [hidden, (M+1) d], mlp.1. [hidden, hidden], ..., the last
 * [d, hidden]. */
#include "config.h"
#include "fusion/fuser_parts.h"

enum { MOST_LAYERS = 16 };

typedef struct {
    nsm_fuser base;
    int layers, hidden;
    nsmi_fuser_maps maps;
    nsmi_pair mlp[MOST_LAYERS];
} concat;

static const nsm_key keys[] = {
    KEY_INT(concat, layers, 2, 1, MOST_LAYERS, "linear maps, gelu between"),
    KEY_INT(concat, hidden, 0, 0, 1 << 20, "units between them (0: 4 times the width)"), KEYS_END
};

static int make(nsm_fuser *f)
{
    concat *c = (concat *)f;
    int64_t d = f->width, hidden = c->hidden ? c->hidden : 4 * d, in = (f->modalities + 1) * d;
    nsmi_fuser_maps_make(f, &c->maps);
    for (int i = 0; i < c->layers; i++) {
        char name[32];
        snprintf(name, sizeof name, "mlp.%d", i);
        c->mlp[i] = nsmi_linear_new(&f->module, name, i == c->layers - 1 ? d : hidden,
                                    i ? hidden : in, true);
    }
    return nsm_error(f->module.ctx);
}

/* The mean of the elements that are there: x [B, n, F] -> [B, 1, d], zeros without any. */
static nsm_tensor *pooled(nsm_tape *tape, nsmi_pair map, const nsm_set_input *in)
{
    int64_t batch = in->x->dim[0], n = in->x->dim[1];
    float *share = nsmi_tape_room(tape, (size_t)(batch * n) * sizeof *share);
    int32_t *length = nsmi_tape_room(tape, (size_t)batch * sizeof *length);
    if (!share || !length || (in->length && nsm_tensor_get(in->length, length))) return NULL;
    for (int64_t b = 0; b < batch; b++) {
        int64_t there = nsmi_length(in->length ? length : NULL, b, n);
        for (int64_t j = 0; j < there; j++) share[b * n + j] = 1 / (float)there;
    }
    nsm_tensor *w = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ batch, 1, n }, share);
    return nsm_bmm(tape, w, nsmi_mapped(tape, map, in->x), false, false);
}

/* The modalities' means side by side, the same for every reader: [B, r, M d]. */
static nsm_tensor *means(nsm_tape *tape, const concat *c, const nsm_fuser_call *call,
                         int64_t readers)
{
    const nsm_fuser *f = &c->base;
    int64_t dim[3] = { call->batch, 1, f->width };
    nsm_tensor *part[NSM_FUSER_MODALITIES], *all, *each;
    for (int m = 0; m < f->modalities; m++) {
        bool given = call->in[m].x != NULL;
        part[m] = given ? pooled(tape, c->maps.in[m], &call->in[m])
                        : nsm_tape_tensor(tape, NSM_F32, 3, dim, NULL);
        if (!given && part[m]) nsm_tensor_zero(part[m]);
    }
    all = nsm_concat(tape, part, f->modalities, 2);
    each = nsm_tape_tensor(tape, NSM_F32, 3, (int64_t[]){ 1, readers, 1 }, NULL);
    if (each) nsm_tensor_zero(each);
    return nsm_add(tape, all, each);
}

static nsm_tensor *forward(nsm_tape *tape, nsm_fuser *f, const nsm_fuser_call *call)
{
    concat *c = (concat *)f;
    nsm_tensor *q = nsmi_fuser_readers(tape, f, &c->maps, call);
    nsm_tensor *all = q ? means(tape, c, call, q->dim[1]) : NULL;
    nsm_tensor *y = nsm_concat(tape, (nsm_tensor *[]){ all, q }, 2, 2);
    for (int i = 0; i < c->layers; i++) y = nsmi_mapped(tape, c->mlp[i], i ? nsm_gelu(tape, y) : y);
    return y;
}

const nsm_fuser_type nsmi_fuser_concat = {
    .name = "concat",
    .about = "late fusion: means of the modalities, side by side, and a perceptron",
    .bytes = sizeof(concat),
    .keys = keys,
    .make = make,
    .forward = forward,
    .size = "hidden",
};
