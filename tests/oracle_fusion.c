/* tests/oracle_fusion.c - Fixtures of fusion: the Neural State Machine over sets, Perceiver and
 * Perceiver IO, slot attention. */
#include "config.h"
#include "fusion/perceiver.h"
#include "fusion/set.h"
#include "fusion/set_parts.h"
#include "fusion/slot_attention.h"
#include "tests/oracle_parts.h"

static nsm_set_config config_of(fixture *f)
{
    nsm_set_config c = { .width = (int)fixture_int(f, "d", 0),
                         .slots = (int)fixture_int(f, "s", 0),
                         .learned = (int)fixture_int(f, "s0", 0),
                         .top = (int)fixture_int(f, "topk", 0),
                         .heads = (int)fixture_int(f, "heads", 0),
                         .rounds = (int)fixture_int(f, "rounds", 0),
                         .tau_new = (float)fixture_number(f, "tau_new", 0),
                         .rho = (float)fixture_number(f, "rho", 0),
                         .tau_prune = (float)fixture_number(f, "tau_prune", 0) };
    json_t *dims = json_object_get(fixture_config(f), "dims");
    c.modalities = (int)json_array_size(dims);
    for (int m = 0; m < c.modalities && m < NSM_SET_MODALITIES; m++)
        c.features[m] = (int)json_integer_value(json_array_get(dims, (size_t)m));
    if (fixture_has(f, "inputs/queries")) c.query_features = (int)fixture_int(f, "d_query", 0);
    return c;
}

/* The pool of an earlier call; owns alive and usage. */
static nsmi_pool_parts given_pool(fixture *f, int64_t batch, int64_t slots)
{
    nsm_ctx *ctx = fixture_ctx(f);
    int64_t count = 0, dim[2] = { batch, slots };
    const int32_t *alive = fixture_ints(f, "inputs/pool_alive", &count);
    nsmi_pool_parts p = { fixture_input(f, "pool_K"), fixture_input(f, "pool_S"),
                          nsm_tensor_new(ctx, NSM_U8, 2, dim),
                          nsm_tensor_new(ctx, NSM_F32, 2, dim) };
    for (int64_t i = 0; alive && i < count && i < batch * slots; i++)
        p.alive->u8[i] = alive[i] != 0;
    nsm_tensor_copy(p.usage, fixture_input(f, "pool_usage"));
    return p;
}

static void check(fixture *f, const char *path, const nsm_tensor *t)
{
    int64_t n = t ? nsm_numel(t) : 0;
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = t->type == NSM_F32 ? t->f32[i] : t->type == NSM_U8 ? t->u8[i] : (float)t->i32[i];
    fixture_values(f, path, x, n);
    free(x);
}

static void run_set(fixture *f)
{
    nsm_ctx *ctx = fixture_ctx(f);
    nsm_set_config c = config_of(f);
    nsm_set *s = nsm_set_new(ctx, &c);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_set_input in[NSM_SET_MODALITIES] = { 0 };
    nsm_set_view view = { 0 };
    nsmi_pool_parts given = { 0 }, left = { 0 };
    bool handed = fixture_has(f, "inputs/pool_K");
    if (s) fixture_load(f, nsm_set_module(s));
    for (int m = 0; s && m < c.modalities; m++) {
        char name[16];
        snprintf(name, sizeof name, "x%d", m);
        in[m].x = fixture_input(f, name);
    }
    if (handed) given = given_pool(f, fixture_int(f, "B", 0), c.slots);
    nsm_tensor *y = s ? nsmi_set_run(tape, s, in,
                                     c.query_features ? fixture_input(f, "queries") : NULL,
                                     handed ? &given : NULL, NULL, &left, &view)
                      : NULL;
    if (nsm_error(ctx)) fixture_fault(f, "%s", nsm_error_message(ctx));
    check(f, "outputs/opened", view.opened);
    check(f, "outputs/route", view.route);
    check(f, "outputs/mass", view.mass);
    check(f, "outputs/read", view.read);
    check(f, "outputs/pool_alive", left.alive);
    check(f, "outputs/pool_usage", left.usage);
    fixture_output(f, tape, "y", y);
    fixture_output(f, tape, "pool_K", left.key);
    fixture_output(f, tape, "pool_S", left.value);
    if (s) fixture_grads(f, tape, nsm_set_module(s));
    nsm_tape_free(tape);
    nsm_tensor_free(given.alive);
    nsm_tensor_free(given.usage);
    nsm_set_free(s);
}

/* ---- Perceiver ---- */
/* A mask of 1 and 0 over elements [B, n] as what is added to scores; NULL without one. */
static nsm_tensor *shut_of(fixture *f, nsm_tape *tape)
{
    int64_t count = 0, dim[NSM_MAX_RANK];
    if (!has_input(f, "mask")) return NULL;
    const int32_t *mask = fixture_ints(f, "inputs/mask", &count);
    if (!mask || fixture_dims(f, "inputs/mask", dim) != 2) {
        fixture_fault(f, "inputs/mask is not [B,n]");
        return NULL;
    }
    float *shut = malloc((size_t)(count + 1) * sizeof *shut);
    for (int64_t i = 0; i < count; i++) shut[i] = mask[i] ? 0 : -INFINITY;
    nsm_tensor *t = nsm_tape_tensor(tape, NSM_F32, 2, dim, shut);
    free(shut);
    return t;
}

static void run_perceiver_layer(fixture *f)
{
    nsm_ctx *ctx = fixture_ctx(f);
    bool cross = fixture_bool(f, "is_cross_attention", false);
    nsm_perceiver_layer_config c = {
        .width = size(f, "d_latents", 0),
        .context = cross ? size(f, "d_model", 0) : 0,
        .heads = size(f, cross ? "num_cross_attention_heads" : "num_self_attention_heads", 0),
        .qk_channels = size(f, "qk_channels", 0),
        .v_channels = size(f, "v_channels", 0),
        .widening = size(f, cross ? "cross_attention_widening_factor"
                                  : "self_attention_widening_factor", 0),
        .no_residual = !fixture_bool(f, "use_query_residual", true),
        .eps = number(f, "norm_eps", 1e-5)
    };
    want_text(f, "gelu", "erf");
    nsm_perceiver_layer *l = nsm_perceiver_layer_new(ctx, &c);
    nsm_tape *tape = nsm_tape_new(ctx);
    if (l) fixture_load(f, nsm_perceiver_layer_module(l));
    nsm_tensor *y = nsm_perceiver_layer_apply(tape, l, fixture_input(f, "latents"),
                                              cross ? fixture_input(f, "inputs") : NULL,
                                              shut_of(f, tape), NULL);
    if (nsm_error(ctx)) fixture_fault(f, "%s", nsm_error_message(ctx));
    fixture_output(f, tape, "out", y);
    if (l) fixture_grads(f, tape, nsm_perceiver_layer_module(l));
    nsm_tape_free(tape);
    nsm_perceiver_layer_free(l);
}

static nsm_perceiver_config perceiver_of(fixture *f, bool decoder)
{
    nsm_perceiver_config c = { .inputs = size(f, "d_model", 0),
                               .latents = size(f, "num_latents", 0),
                               .width = size(f, "d_latents", 0),
                               .layers = size(f, "num_self_attends_per_block", 0),
                               .blocks = size(f, "num_blocks", 0),
                               .self_heads = size(f, "num_self_attention_heads", 0),
                               .cross_heads = size(f, "num_cross_attention_heads", 0),
                               .qk_channels = size(f, "qk_channels", 0),
                               .v_channels = size(f, "v_channels", 0),
                               .self_widening = size(f, "self_attention_widening_factor", 0),
                               .cross_widening = size(f, "cross_attention_widening_factor", 0),
                               .eps = number(f, "norm_eps", 1e-5) };
    want_text(f, "gelu", "erf");
    if (!decoder) return c;
    c.query = size(f, "num_channels", 0);
    c.queries = size(f, "output_len", 0);
    c.decoder_heads = size(f, "decoder_num_heads", 0);
    c.decoder_qk_channels = size(f, "decoder_qk_channels", 0);
    c.decoder_v_channels = size(f, "decoder_v_channels", 0);
    c.decoder_widening = size(f, "decoder_widening_factor", 0);
    c.decoder_residual = fixture_bool(f, "decoder_use_query_residual", true);
    c.outputs = size(f, "output_num_channels", 0);
    return c;
}

static void run_perceiver(fixture *f, bool decoder)
{
    nsm_ctx *ctx = fixture_ctx(f);
    nsm_perceiver_config c = perceiver_of(f, decoder);
    nsm_perceiver *p = nsm_perceiver_new(ctx, &c);
    nsm_tape *tape = nsm_tape_new(ctx);
    if (p) fixture_load(f, nsm_perceiver_module(p));
    nsm_tensor *z = nsm_perceiver_encode(tape, p, fixture_input(f, "inputs"), shut_of(f, tape),
                                         NULL);
    nsm_tensor *y = decoder ? nsm_perceiver_decode(tape, p, z, NULL, NULL, NULL) : NULL;
    if (nsm_error(ctx)) fixture_fault(f, "%s", nsm_error_message(ctx));
    fixture_output(f, tape, decoder ? "latents" : "last_hidden_state", z);
    if (decoder) fixture_output(f, tape, "logits", y);
    if (p) fixture_grads(f, tape, nsm_perceiver_module(p));
    nsm_tape_free(tape);
    nsm_perceiver_free(p);
}
static void run_perceiver_model(fixture *f) { run_perceiver(f, false); }
static void run_perceiver_io(fixture *f) { run_perceiver(f, true); }

/* ---- slot attention ---- */
static void run_slot_attention(fixture *f)
{
    nsm_ctx *ctx = fixture_ctx(f);
    nsm_slot_attention_config c = { .inputs = size(f, "input_dim", 0),
                                    .slots = size(f, "num_slots", 0),
                                    .width = size(f, "slot_dim", 0),
                                    .hidden = size(f, "mlp_hidden", 0),
                                    .iterations = size(f, "iterations", 0),
                                    .eps = number(f, "eps", 1e-8),
                                    .norm_eps = number(f, "norm_eps", 1e-5) };
    nsm_slot_attention *s = nsm_slot_attention_new(ctx, &c);
    nsm_tape *tape = nsm_tape_new(ctx);
    nsm_tensor *seen = NULL;
    if (s) fixture_load(f, nsm_slot_attention_module(s));
    nsm_tensor *y = nsm_slot_attention_apply(tape, s, fixture_input(f, "x"),
                                             fixture_input(f, "noise"), shut_of(f, tape), &seen);
    if (nsm_error(ctx)) fixture_fault(f, "%s", nsm_error_message(ctx));
    fixture_output(f, tape, "slots", y);
    fixture_output(f, tape, "attn", seen);
    if (s) fixture_grads(f, tape, nsm_slot_attention_module(s));
    nsm_tape_free(tape);
    nsm_slot_attention_free(s);
}

const oracle_kind oracle_fusion[] = { { "nsm_set", "nsm_set", run_set },
                                      { "perceiver", "perceiver_layer", run_perceiver_layer },
                                      { "perceiver", "perceiver_model", run_perceiver_model },
                                      { "perceiver", "perceiver_io", run_perceiver_io },
                                      { "slot_attention", "slot_attention", run_slot_attention },
                                      { NULL, NULL, NULL } };
