/* tests/oracle_memory.c - Fixtures of the state memory: the layer, with gradients into and out of
 * its state, and the language model around it. */
#include "config.h"
#include "seq/backbone.h"
#include "seq/memory.h"
#include "seq/memory_parts.h"
#include "tests/fixture.h"

enum { NAME = 96, OPTIONS = 512 };

/* ---- the layer ---- */
typedef struct {
    fixture *f;
    nsm_tape *tape;
    nsm_mixer *m;
    nsmi_memory_parts in;
    nsmi_memory_results out;
    nsm_tensor *made[4]; /* alive, birth, usage, seen */
    int64_t batch, n, heads, slots, window, conv;
} layer;

static void options_of(fixture *f, char text[OPTIONS])
{
    static const char *const ints[] = { "s",     "s0",         "topk", "window", "conv",
                                        "clock", "comm_every", "dk",   "dv" };
    static const char *const reals[] = { "tau_new", "beta_min", "rho", "tau_prune", "tau_recycle" };
    int at = snprintf(text, OPTIONS, "heads=%d decay=%s", (int)fixture_int(f, "H", 0),
                      fixture_int(f, "decay", 0) ? "true" : "false");
    for (int i = 0; i < 9; i++)
        at += snprintf(text + at, (size_t)(OPTIONS - at), " %s=%d", ints[i],
                       (int)fixture_int(f, ints[i], -9));
    for (int i = 0; i < 5; i++)
        at += snprintf(text + at, (size_t)(OPTIONS - at), " %s=%.9g", reals[i],
                       fixture_number(f, reals[i], -9));
}

static nsm_tensor *turned(nsm_tape *tape, nsm_tensor *x)
{
    return nsm_permute(tape, x, (const int[]){ 0, 2, 1, 3 });
}
static nsm_tensor *first_two(nsm_tape *tape, nsm_tensor *x)
{
    return nsm_permute(tape, x, (const int[]){ 1, 0, 2 });
}

/* What is discrete in the state: from the file, or of an empty pool. */
static void start_slots(layer *l, bool given)
{
    int64_t dim[3] = { l->batch, l->heads, l->slots }, count = l->batch * l->heads * l->slots,
            n = count, learned = fixture_int(l->f, "s0", 0);
    int64_t t0 = fixture_int(l->f, "t0", 0);
    const int32_t *alive = given ? fixture_ints(l->f, "inputs/state_alive", &n) : NULL,
                  *birth = given ? fixture_ints(l->f, "inputs/state_birth", &n) : NULL;
    if (given && (!alive || !birth || n != count)) return;
    nsm_ctx *ctx = fixture_ctx(l->f);
    for (int i = 0; i < 3; i++)
        l->made[i] = nsm_tensor_new(ctx, i == 0 ? NSM_U8 : i == 1 ? NSM_I64 : NSM_F32, 3, dim);
    l->made[3] = nsm_tensor_new(ctx, NSM_I64, 1, dim);
    for (int64_t i = 0; i < count; i++) {
        l->made[0]->u8[i] = given ? alive[i] != 0 : i % l->slots < learned;
        l->made[1]->i64[i] = given ? birth[i] : -1;
        l->made[2]->f32[i] = 0;
    }
    if (given) nsm_tensor_copy(l->made[2], fixture_input(l->f, "state_usage"));
    for (int64_t b = 0; b < l->batch; b++) l->made[3]->i64[b] = t0;
    l->in.alive = l->made[0];
    l->in.birth = l->made[1];
    l->in.usage = l->made[2];
    l->in.seen = l->made[3];
}

static void start_state(layer *l)
{
    static const char *const tails[3] = { "state_tail_q", "state_tail_k", "state_tail_v" };
    bool given = fixture_int(l->f, "t0", 0) > 0;
    start_slots(l, given);
    if (!given) return;
    l->in.key = fixture_input(l->f, "state_K");
    l->in.value = fixture_input(l->f, "state_S");
    for (int i = 0; i < 3; i++) l->in.tail[i] = fixture_input(l->f, tails[i]);
    l->in.past_k = turned(l->tape, fixture_input(l->f, "state_win_k"));
    l->in.past_v = turned(l->tape, fixture_input(l->f, "state_win_v"));
    if (fixture_int(l->f, "clock", 0))
        l->in.phase = first_two(l->tape, fixture_input(l->f, "state_phase"));
}

/* ---- what it leaves, with gradients ---- */
static nsm_tensor *zeros(layer *l, int64_t rows, int64_t cols)
{
    nsm_tensor *t = nsm_tape_tensor(l->tape, NSM_F32, 3, (int64_t[]){ l->batch, rows, cols }, NULL);
    if (t) nsm_tensor_zero(t);
    return t;
}

/* The last rows of past (or zeros) and x, both [B, .., cols]. */
static nsm_tensor *last_rows(layer *l, nsm_tensor *past, nsm_tensor *x, int64_t rows)
{
    if (!x) return NULL;
    int64_t cols = nsm_numel(x) / l->batch / l->n;
    nsm_tensor *old = past ? nsm_reshape(l->tape, past, 3, (int64_t[]){ l->batch, rows, cols })
                           : zeros(l, rows, cols);
    nsm_tensor *all = nsm_append(l->tape, old,
                                 nsm_reshape(l->tape, x, 3, (int64_t[]){ l->batch, l->n, cols }),
                                 NULL);
    return nsm_slice(l->tape, all, 1, l->n, rows);
}

/* The same without a gradient, as a state gets it. */
static void check_carried(layer *l, const char *name, const nsm_tensor *with,
                          const nsm_tensor *carried)
{
    if (!with || !carried || nsm_numel(with) != nsm_numel(carried) ||
        memcmp(with->f32, carried->f32, (size_t)nsm_numel(with) * sizeof(float)))
        fixture_fault(l->f, "%s: what the state gets differs", name);
}

/* Dead slots: by steps they are what they were, in the form by chunks 0, which shows in the
 * gradients. */
static nsm_tensor *living(layer *l, nsm_tensor *x)
{
    if (!x || strcmp(fixture_text(l->f, "form", "step"), "chunk")) return x;
    int64_t count = l->batch * l->heads * l->slots;
    float *alive = malloc((size_t)count * sizeof *alive);
    for (int64_t i = 0; i < count; i++) alive[i] = l->in.alive->u8[i];
    nsm_tensor *mask = nsm_tape_tensor(l->tape, NSM_F32, 4,
                                       (int64_t[]){ l->batch, l->heads, l->slots, 1 }, alive);
    free(alive);
    return nsm_mul(l->tape, x, mask);
}

static void end_state(layer *l)
{
    static const char *const tails[3] = { "state_tail_q", "state_tail_k", "state_tail_v" };
    fixture_output(l->f, l->tape, "state_K", living(l, l->out.key));
    fixture_output(l->f, l->tape, "state_S", living(l, l->out.value));
    for (int i = 0; i < 3; i++) {
        nsm_tensor *rows = last_rows(l, l->in.tail[i], l->out.map[i], l->conv - 1);
        check_carried(l, tails[i], rows, l->out.tail[i]);
        fixture_output(l->f, l->tape, tails[i], rows);
    }
    nsm_tensor *kv[2] = { l->out.k, l->out.v }, *past[2] = { l->in.past_k, l->in.past_v };
    for (int i = 0; i < 2; i++) {
        nsm_tensor *rows = last_rows(l, past[i], kv[i], l->window - 1);
        check_carried(l, "window", rows, l->out.past[i]);
        if (rows)
            rows = nsm_reshape(l->tape, rows, 4,
                               (int64_t[]){ l->batch, l->window - 1, l->heads, -1 });
        fixture_output(l->f, l->tape, i ? "state_win_v" : "state_win_k", turned(l->tape, rows));
    }
    if (!fixture_has(l->f, "outputs/state_phase")) return;
    if (!fixture_int(l->f, "clock", 0)) {
        fixture_output(l->f, l->tape, "state_phase", zeros(l, 2, l->heads));
        return;
    }
    nsm_tensor *phase = nsm_concat(l->tape,
                                   (nsm_tensor *[]){ nsm_sum(l->tape, l->out.rate[0], 1, true),
                                                     nsm_sum(l->tape, l->out.rate[1], 1, true) },
                                   2, 1);
    if (l->in.phase) phase = nsm_add(l->tape, phase, l->in.phase);
    fixture_output(l->f, l->tape, "state_phase", first_two(l->tape, phase));
}

/* ---- what can be seen, and what is discrete ---- */
static void check_tensor(fixture *f, const char *path, const nsm_tensor *t)
{
    if (!fixture_has(f, path)) return;
    int64_t n = t ? nsm_numel(t) : 0;
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = t->type == NSM_F32   ? t->f32[i]
               : t->type == NSM_U8  ? t->u8[i]
               : t->type == NSM_I32 ? (float)t->i32[i]
                                    : (float)t->i64[i];
    fixture_values(f, path, x, n);
    free(x);
}

static void check_seen(layer *l)
{
    const nsm_memory_view *v = nsm_memory_seen(l->m);
    const nsm_slots_trace none = { 0 }, *t = v ? &v->slots : &none;
    const struct { const char *path; const nsm_tensor *have;
    } all[] = {
        { "outputs/state_alive", l->in.alive },    { "outputs/state_birth", l->in.birth },
        { "outputs/state_usage", l->in.usage },    { "outputs/trace_Pw", t->write },
        { "outputs/trace_Pr", t->read },           { "outputs/trace_usage", t->usage },
        { "outputs/trace_alive", t->alive },       { "outputs/trace_pruned", t->pruned },
        { "outputs/trace_recycled", t->recycled }, { "outputs/trace_slot", t->slot },
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        check_tensor(l->f, all[i].path, all[i].have);
}

static void run_layer(fixture *f)
{
    char options[OPTIONS];
    layer l = { .f = f,
                .tape = nsm_tape_new(fixture_ctx(f)),
                .batch = fixture_int(f, "B", 0),
                .n = fixture_int(f, "n", 0),
                .heads = fixture_int(f, "H", 0),
                .slots = fixture_int(f, "s", 0),
                .window = fixture_int(f, "window", 0),
                .conv = fixture_int(f, "conv", 0) };
    options_of(f, options);
    l.m = nsm_mixer_new(fixture_ctx(f), "nsm",
                        &(nsm_mixer_config){ .width = (int)fixture_int(f, "d", 0),
                                             .options = options });
    nsm_tensor *x = fixture_input(f, "x");
    if (l.m && x && (x->dim[0] != l.batch || x->dim[1] != l.n))
        fixture_fault(f, "inputs/x is not [B, n, d]");
    else if (l.m && x) {
        fixture_load(f, nsm_mixer_module(l.m));
        nsm_memory_watch(l.m, true);
        start_state(&l);
        if (!nsmi_memory_run(l.tape, l.m, x, NULL, &l.in, &l.out)) {
            fixture_output(f, l.tape, "y", l.out.y);
            end_state(&l);
            check_seen(&l);
        }
        fixture_grads(f, l.tape, nsm_mixer_module(l.m));
    }
    for (int i = 0; i < 4; i++) nsm_tensor_free(l.made[i]);
    nsm_tape_free(l.tape);
    nsm_mixer_free(l.m);
}

/* ---- the model ---- */
/* What the fixture calls a parameter of the backbone. */
static void name_of(const char *ours, char theirs[NAME])
{
    static const struct { const char *ours, *theirs; bool bare;
    } parts[] = {
        { ".norm1.weight", "norm1", true },
        { ".norm2.weight", "norm2", true },
        { ".up", "fc1", false },
        { ".down", "fc2", false },
        { ".mixer", "mix", false },
    };
    int at, used = 0;
    snprintf(theirs, NAME, "%s",
             !strcmp(ours, "embed.weight")  ? "embed"
             : !strcmp(ours, "norm.weight") ? "norm_f"
                                            : ours);
    if (sscanf(ours, "layers.%d%n", &at, &used) != 1) return;
    for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++) {
        size_t n = strlen(parts[k].ours);
        if (!strncmp(ours + used, parts[k].ours, n))
            snprintf(theirs, NAME, "%s.%d%.64s", parts[k].theirs, at,
                     parts[k].bare ? "" : ours + used + n);
    }
}

typedef struct { fixture *f; bool grads; int64_t numbers; } binding;

static int bind_one(void *user, const char *name, nsm_tensor *t, bool buffer)
{
    binding *b = user;
    char theirs[NAME], path[NAME + 16];
    int64_t n;
    (void)buffer;
    name_of(name, theirs);
    if (b->grads) {
        float *g = malloc((size_t)nsm_numel(t) * sizeof *g);
        snprintf(path, sizeof path, "grads/weights/%s", theirs);
        nsm_tensor_get_grad(t, g);
        if (fixture_has(b->f, path)) fixture_values(b->f, path, g, nsm_numel(t));
        free(g);
        return 0;
    }
    snprintf(path, sizeof path, "weights/%s", theirs);
    const float *x = fixture_floats(b->f, path, &n);
    if (!x || n != nsm_numel(t)) fixture_fault(b->f, "%s does not fit %s", path, name);
    else nsm_tensor_set(t, x);
    b->numbers += n;
    return 0;
}

static void load_model(fixture *f, nsm_backbone *b)
{
    binding all = { f, false, 0 };
    int at = 0;
    int64_t there = 0, n;
    nsm_module_walk(nsm_backbone_module(b), bind_one, &all);
    for (const char *path; (path = fixture_next(f, "weights/", &at));)
        there += fixture_floats(f, path, &n) ? n : 0;
    if (there != all.numbers)
        fixture_fault(f, "the fixture has %lld weights, the model %lld", (long long)there,
                      (long long)all.numbers);
}

static void run_model(fixture *f)
{
    char options[OPTIONS];
    nsm_ctx *ctx = fixture_ctx(f);
    nsm_tape *tape = nsm_tape_new(ctx);
    int width = (int)fixture_int(f, "d", 0), layers = (int)fixture_int(f, "layers", 0);
    options_of(f, options);
    if (strcmp(fixture_text(f, "norm", ""), "rms_norm") ||
        strcmp(fixture_text(f, "activation", ""), "gelu"))
        fixture_fault(f, "another norm or activation");
    nsm_backbone *b = nsm_backbone_new(
        ctx, &(nsm_backbone_config){ .mixer = "nsm",
                                     .options = options,
                                     .width = width,
                                     .layers = layers,
                                     .vocab = (int)fixture_int(f, "vocab", 0),
                                     .inner = width * (int)fixture_int(f, "mult", 0),
                                     .rms_norm = true,
                                     .eps = (float)fixture_number(f, "norm_eps", 0),
                                     .act = strcmp(fixture_text(f, "approximate", "none"), "tanh")
                                                ? NSM_ACT_GELU
                                                : NSM_ACT_GELU_TANH,
                                     .head_bias = fixture_bool(f, "head_bias", true) });
    nsm_state *s = b ? nsm_backbone_state(b, fixture_int(f, "B", 0)) : NULL;
    if (s) {
        load_model(f, b);
        nsm_backbone_restart(b, s);
        fixture_output(f, tape, "logits",
                       nsm_backbone_apply(tape, b, fixture_index(f, "ids"), NULL, s));
        for (int i = 0; i < layers && i < s->children; i++) {
            char path[NAME];
            snprintf(path, sizeof path, "outputs/alive_%d", i);
            check_tensor(f, path, nsm_state_get(s->child[i].state, "alive"));
        }
        nsm_tape_backward(tape, NULL);
        nsm_module_walk(nsm_backbone_module(b), bind_one, &(binding){ f, true, 0 });
    }
    nsm_state_free(s);
    nsm_tape_free(tape);
    nsm_backbone_free(b);
}

extern const oracle_kind oracle_memory[];
const oracle_kind oracle_memory[] = {
    { "nsm_seq", "nsm_seq", run_layer },
    { "nsm_model", "nsm_model", run_model },
    { NULL, NULL, NULL },
};
