/* fusion/fuse_attention.c - Plain attention as fusers, of Perceiver's layers (perceiver.h):
 *
 *   attention   layers of self-attention over all elements side by side, O(n^2 d) each, then the
 *               readers look at the last: early fusion by a Transformer
 *   cross       the readers look at the elements, layer after layer, O(r n d) each
 *
 * Parameters: in., query; layers.0., ..., Perceiver's layers; read., the last of `attention`. */
#include "config.h"
#include "fusion/fuser_parts.h"

typedef struct {
    nsm_fuser base;
    int layers, heads, widening;
    nsmi_fuser_maps maps;
    nsm_perceiver_layer **layer, *read;
} attention;

static const nsm_key keys[] = { KEY_INT(attention, layers, 2, 1, 1024, "layers"),
                                KEY_INT(attention, heads, 4, 1, 65536, "heads of every attention"),
                                KEY_INT(attention, widening, 2, 1, 1024,
                                        "inner width of the feed-forward, times the width"),
                                KEYS_END };

static void make_layers(attention *a, bool cross)
{
    nsm_fuser *f = &a->base;
    char name[32];
    nsmi_fuser_maps_make(f, &a->maps);
    a->layer = nsmi_calloc(f->module.ctx, (size_t)a->layers, sizeof *a->layer);
    for (int i = 0; a->layer && i < a->layers && !nsmi_failed(f->module.ctx); i++) {
        snprintf(name, sizeof name, "layers.%d", i);
        a->layer[i] = nsmi_fuser_layer(f, name, cross, a->heads, a->widening);
    }
}

static int make_cross(nsm_fuser *f)
{
    make_layers((attention *)f, true);
    return nsm_error(f->module.ctx);
}

static int make_attention(nsm_fuser *f)
{
    attention *a = (attention *)f;
    make_layers(a, false);
    a->read = nsmi_fuser_layer(f, "read", true, a->heads, a->widening);
    return nsm_error(f->module.ctx);
}

static void clear(nsm_fuser *f)
{
    attention *a = (attention *)f;
    for (int i = 0; a->layer && i < a->layers; i++) nsm_perceiver_layer_free(a->layer[i]);
    free(a->layer);
    nsm_perceiver_layer_free(a->read);
}

static nsm_tensor *forward_attention(nsm_tape *tape, nsm_fuser *f, const nsm_fuser_call *c)
{
    attention *a = (attention *)f;
    nsm_tensor *x = nsmi_fuser_elements(tape, f, &a->maps, c), *seen = NULL;
    for (int i = 0; i < a->layers; i++)
        x = nsm_perceiver_layer_apply(tape, a->layer[i], x, NULL, c->shut, NULL);
    nsm_tensor *y = nsm_perceiver_layer_apply(tape, a->read,
                                              nsmi_fuser_readers(tape, f, &a->maps, c), x, c->shut,
                                              nsmi_if_watched(f, &seen));
    if (y && f->watched) nsmi_fuser_keep(f, seen);
    return y;
}

/* What is seen is the mean of the layers. */
static nsm_tensor *forward_cross(nsm_tape *tape, nsm_fuser *f, const nsm_fuser_call *c)
{
    attention *a = (attention *)f;
    nsm_tensor *x = nsmi_fuser_elements(tape, f, &a->maps, c), *sum = NULL, *seen = NULL;
    nsm_tensor *y = nsmi_fuser_readers(tape, f, &a->maps, c);
    for (int i = 0; i < a->layers && y; i++) {
        y = nsm_perceiver_layer_apply(tape, a->layer[i], y, x, c->shut, nsmi_if_watched(f, &seen));
        if (f->watched) sum = sum ? nsm_add(tape, sum, seen) : seen;
    }
    if (y && f->watched) nsmi_fuser_keep(f, nsm_scale(tape, sum, 1 / (float)a->layers, 0));
    return y;
}

const nsm_fuser_type nsmi_fuser_attention = {
    .name = "attention",
    .about = "self-attention over all elements side by side (arXiv:1706.03762)",
    .bytes = sizeof(attention),
    .keys = keys,
    .make = make_attention,
    .clear = clear,
    .forward = forward_attention,
    .weights = "attention of the last layer",
    .size = "widening",
};
const nsm_fuser_type nsmi_fuser_cross = {
    .name = "cross",
    .about = "the readers attend to the elements, layer after layer (arXiv:1706.03762)",
    .bytes = sizeof(attention),
    .keys = keys,
    .make = make_cross,
    .clear = clear,
    .forward = forward_cross,
    .weights = "attention",
    .size = "widening",
};
