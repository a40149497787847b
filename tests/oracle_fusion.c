/* tests/oracle_fusion.c - Fixtures of fusion: the Neural State Machine over sets. */
#include "config.h"
#include "fusion/set.h"
#include "fusion/set_parts.h"
#include "tests/fixture.h"

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
        char name[8];
        snprintf(name, sizeof name, "x%d", m);
        in[m].x = fixture_input(f, name);
    }
    if (handed) given = given_pool(f, fixture_int(f, "B", 0), c.slots);
    nsm_tensor *y = s ? nsmi_set_run(tape, s, in,
                                     c.query_features ? fixture_input(f, "queries") : NULL,
                                     handed ? &given : NULL, &left, &view)
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

const oracle_kind oracle_fusion[] = { { "nsm_set", "nsm_set", run_set }, { NULL, NULL, NULL } };
