/* fusion/fuse_perceiver.c - Perceiver IO (perceiver.h) as a fuser: latents look at all elements,
 * the readers at the latents.
 *
 * Parameters: in., query; perceiver., those of perceiver.h. */
#include "config.h"
#include "fusion/fuser_parts.h"

typedef struct {
    nsm_fuser base;
    int latents, layers, blocks, heads, widening;
    nsmi_fuser_maps maps;
    nsm_perceiver *p;
} perceiver;

static const nsm_key keys[] = {
    KEY_INT(perceiver, latents, 16, 1, 65536, "latents"),
    KEY_INT(perceiver, layers, 2, 1, 1024, "layers of self-attention among them"),
    KEY_INT(perceiver, blocks, 1, 1, 1024, "times that these layers are applied"),
    KEY_INT(perceiver, heads, 4, 1, 65536, "heads of every attention"),
    KEY_INT(perceiver, widening, 2, 1, 1024, "inner width of the feed-forward, times the width"),
    KEYS_END
};

static int make(nsm_fuser *f)
{
    perceiver *p = (perceiver *)f;
    nsmi_fuser_maps_make(f, &p->maps);
    f->states = f->learned = p->latents;
    p->p = nsm_perceiver_new(f->module.ctx,
                             &(nsm_perceiver_config){ .inputs = f->width,
                                                      .latents = p->latents,
                                                      .width = f->width,
                                                      .layers = p->layers,
                                                      .blocks = p->blocks,
                                                      .self_heads = p->heads,
                                                      .cross_heads = p->heads,
                                                      .self_widening = p->widening,
                                                      .cross_widening = p->widening,
                                                      .query = f->width,
                                                      .decoder_heads = p->heads,
                                                      .decoder_widening = p->widening,
                                                      .decoder_residual = true });
    if (p->p) nsm_module_child(&f->module, "perceiver", nsm_perceiver_module(p->p));
    return nsm_error(f->module.ctx);
}

static void clear(nsm_fuser *f) { nsm_perceiver_free(((perceiver *)f)->p); }

static nsm_tensor *forward(nsm_tape *tape, nsm_fuser *f, const nsm_fuser_call *c)
{
    perceiver *p = (perceiver *)f;
    nsm_tensor *took = NULL, *read = NULL;
    nsm_tensor *z = nsm_perceiver_encode(tape, p->p, nsmi_fuser_elements(tape, f, &p->maps, c),
                                         c->shut, nsmi_if_watched(f, &took));
    nsm_tensor *y = nsm_perceiver_decode(tape, p->p, z, nsmi_fuser_readers(tape, f, &p->maps, c),
                                         c->closed, nsmi_if_watched(f, &read));
    if (y && f->watched) nsmi_fuser_keep_through(tape, f, read, took, NULL, NULL);
    return y;
}

const nsm_fuser_type nsmi_fuser_perceiver = {
    .name = "perceiver",
    .about = "Perceiver IO: latents look at all elements (arXiv:2107.14795)",
    .bytes = sizeof(perceiver),
    .keys = keys,
    .make = make,
    .clear = clear,
    .forward = forward,
    .weights = "attention through latents",
    .states = "latents",
    .size = "widening",
};
