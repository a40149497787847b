/* fusion/fuse_slots.c - Slot attention (slot_attention.h) as a fuser: slots compete for the
 * elements, the readers look at the slots by a Perceiver's layer.
 *
 * While the tape trains, slots start from noise that is drawn anew for every set; else, and with
 * `fixed`, from one draw that is kept with the parameters, so that equal sets give equal answers.
 *
 * Parameters: in., query; slots., those of slot_attention.h; read., a Perceiver's layer; noise
 * [slots, d], not trained. */
#include "config.h"
#include "fusion/fuser_parts.h"
#include "fusion/slot_attention.h"

typedef struct {
    nsm_fuser base;
    int slots, iterations, heads, widening;
    bool fixed;
    nsmi_fuser_maps maps;
    nsm_tensor *noise;
    nsm_slot_attention *s;
    nsm_perceiver_layer *read;
} slots;

static const nsm_key keys[] = {
    KEY_INT(slots, slots, 16, 1, 65536, "slots"),
    KEY_INT(slots, iterations, 3, 1, 1024, "times that slots compete"),
    KEY_INT(slots, heads, 4, 1, 65536, "heads of reading"),
    KEY_INT(slots, widening, 2, 1, 1024, "inner width of the feed-forwards, times the width"),
    KEY_BOOL(slots, fixed, false, "slots start from the kept noise in training too"),
    KEYS_END
};

static int make(nsm_fuser *f)
{
    slots *s = (slots *)f;
    nsmi_fuser_maps_make(f, &s->maps);
    f->states = f->learned = s->slots;
    s->noise = nsm_module_buffer(&f->module, "noise", 2, (int64_t[]){ s->slots, f->width });
    nsm_init_normal(s->noise, 0, 1);
    s->s = nsm_slot_attention_new(f->module.ctx, &(nsm_slot_attention_config){
                                                     .inputs = f->width,
                                                     .slots = s->slots,
                                                     .width = f->width,
                                                     .hidden = s->widening <= INT32_MAX / f->width
                                                                   ? s->widening * f->width
                                                                   : INT32_MAX,
                                                     .iterations = s->iterations });
    if (s->s) nsm_module_child(&f->module, "slots", nsm_slot_attention_module(s->s));
    s->read = nsmi_fuser_layer(f, "read", true, s->heads, s->widening);
    return nsm_error(f->module.ctx);
}

static void clear(nsm_fuser *f)
{
    nsm_slot_attention_free(((slots *)f)->s);
    nsm_perceiver_layer_free(((slots *)f)->read);
}

/* What each slot took of each element [B, s, n]; *mass [B, 1, s]: of how many. */
static nsm_tensor *took_of(nsm_tape *tape, nsm_tensor *seen, nsm_tensor **mass)
{
    *mass = nsm_sum(tape, seen, 1, true);
    return nsm_transpose(tape, nsm_div(tape, seen, nsm_scale(tape, *mass, 1, 1e-8f)));
}

static nsm_tensor *forward(nsm_tape *tape, nsm_fuser *f, const nsm_fuser_call *c)
{
    slots *s = (slots *)f;
    nsm_tensor *seen = NULL, *read = NULL, *mass;
    bool drawn = nsm_tape_training(tape) && !s->fixed;
    nsm_tensor *z = nsm_slot_attention_apply(tape, s->s, nsmi_fuser_elements(tape, f, &s->maps, c),
                                             drawn ? NULL : nsmi_for_each(tape, s->noise, c->batch),
                                             c->shut, nsmi_if_watched(f, &seen));
    nsm_tensor *y = nsm_perceiver_layer_apply(tape, s->read,
                                              nsmi_fuser_readers(tape, f, &s->maps, c), z,
                                              c->closed, nsmi_if_watched(f, &read));
    nsm_tensor *took = y && f->watched ? took_of(tape, seen, &mass) : NULL;
    if (took) nsmi_fuser_keep_through(tape, f, read, took, mass, NULL);
    return y;
}

const nsm_fuser_type nsmi_fuser_slot_attention = {
    .name = "slot_attention",
    .about = "slot attention: slots compete for elements (arXiv:2006.15055)",
    .bytes = sizeof(slots),
    .keys = keys,
    .make = make,
    .clear = clear,
    .forward = forward,
    .weights = "attention through slots",
    .states = "slots",
    .size = "widening",
};
