/* tests/oracle_seq.c - Fixtures of sequence systems: attention, GPT-2, Llama, BERT, LSTM, GRU.
 *
 * Whole models are built with the library's backbone; `bound` says which of its numbers are which of
 * the fixture's: rows of a tensor, turned where the source stores [in, out]. */
#include "config.h"
#include "base/ops.h"
#include "seq/backbone.h"
#include "seq/rnn.h"
#include "tests/fixture.h"

static int size(fixture *f, const char *key, int64_t fallback) { return (int)fixture_int(f, key, fallback); }

/* ---- scaled dot product attention ---- */
/* [B, H, n, D], as the fixture has it, to [B, n, H, D] or back */
static nsm_tensor *turned(nsm_tape *tape, nsm_tensor *x) { return nsm_permute(tape, x, (const int[]){ 0, 2, 1, 3 }); }

/* The mask as a bias [B, 1, 1, m] of 0 and -inf. */
static nsm_tensor *mask_bias(fixture *f, nsm_tape *tape)
{
    int64_t n, dim[NSM_MAX_RANK];
    const int32_t *mask = fixture_ints(f, "inputs/key_mask", &n);
    float *bias = mask ? malloc((size_t)n * sizeof *bias + 1) : NULL;
    if (!bias || fixture_dims(f, "inputs/key_mask", dim) != 2) {
        free(bias);
        return NULL;
    }
    for (int64_t i = 0; i < n; i++) bias[i] = mask[i] ? 0 : -INFINITY;
    nsm_tensor *t = nsm_tape_tensor(tape, NSM_F32, 4, (int64_t[]){ dim[0], 1, 1, dim[1] }, bias);
    free(bias);
    return t;
}

static void run_sdpa(fixture *f)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    bool masked = fixture_bool(f, "key_mask", false), biased = fixture_bool(f, "attn_bias", false);
    if (strcmp(fixture_text(f, "causal_align", "top_left"), "top_left")) fixture_fault(f, "causal_align is not top_left");
    if (masked && biased) fixture_fault(f, "key_mask and attn_bias together");
    nsm_dot_attention_config c = { .scale = (float)fixture_number(f, "scale", 0), .causal = fixture_bool(f, "is_causal", false) };
    if (masked) c.bias = mask_bias(f, tape);
    if (biased) {
        nsm_tensor *b = fixture_input(f, "bias");
        c.bias = b && b->rank == 3 ? nsm_reshape(tape, b, 4, (int64_t[]){ 1, b->dim[0], b->dim[1], b->dim[2] }) : b;
    }
    nsm_tensor *y = nsm_dot_attention(tape, turned(tape, fixture_input(f, "q")), turned(tape, fixture_input(f, "k")),
                                      turned(tape, fixture_input(f, "v")), &c);
    fixture_output(f, tape, "out", turned(tape, y));
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

/* ---- whole models ---- */
enum { BOUND = 512, NAME = 160 };
typedef struct {
    fixture *f;
    nsm_tape *tape;
    nsm_backbone *b;
    nsm_backbone_config config;
    struct { char theirs[NAME], ours[NAME]; int64_t row, rows; bool turned; } bound[BOUND];
    int count;
    int64_t numbers;  /* of ours that are bound */
} model;

/* Put x [rows, cols], or x turned, into ours; or take it out of ours. */
static void move(float *ours, float *theirs, int64_t rows, int64_t cols, bool turn, bool out)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++) {
            float *a = ours + r * cols + c, *b = theirs + (turn ? c * rows + r : r * cols + c);
            if (out) *b = *a;
            else *a = *b;
        }
}

static int64_t columns_of(const nsm_tensor *t) { return t->rank > 1 ? t->dim[1] : 1; }

/* The fixture's weight `theirs` is rows from `row` on of the model's `ours`.  *row moves behind it. */
static void bind_rows(model *m, const char *theirs, const char *ours, int64_t *row, bool turn)
{
    char path[NAME + 8];
    int64_t n;
    snprintf(path, sizeof path, "weights/%s", theirs);
    nsm_tensor *t = nsm_module_find(nsm_backbone_module(m->b), ours);
    float *x = fixture_floats(m->f, path, &n);
    if (!t || !x || m->count == BOUND || n % columns_of(t) || *row + n / columns_of(t) > t->dim[0]) {
        fixture_fault(m->f, "%s does not fit %s", theirs, ours);
        return;
    }
    int64_t cols = columns_of(t), rows = n / cols;
    float *all = malloc((size_t)nsm_numel(t) * sizeof *all);
    nsm_tensor_get(t, all);
    move(all + *row * cols, x, rows, cols, turn, false);
    nsm_tensor_set(t, all);
    free(all);
    snprintf(m->bound[m->count].theirs, NAME, "%s", theirs);
    snprintf(m->bound[m->count].ours, NAME, "%s", ours);
    m->bound[m->count].row = *row;
    m->bound[m->count].rows = rows;
    m->bound[m->count++].turned = turn;
    m->numbers += n;
    *row += rows;
}

/* The same for layer i: %d in both names. */
static void bind_one(model *m, const char *theirs, const char *ours, int i, int64_t *row, bool turn)
{
    char a[NAME], b[NAME];
    snprintf(a, sizeof a, theirs, i);
    snprintf(b, sizeof b, ours, i);
    bind_rows(m, a, b, row, turn);
}

static void bind(model *m, const char *theirs, const char *ours, int i, bool turn)
{
    int64_t row = 0;
    bind_one(m, theirs, ours, i, &row, turn);
}

/* Weight and bias. */
static void bind_pair(model *m, const char *theirs, const char *ours, int i, bool turn)
{
    static const char *const part[2] = { "weight", "bias" };
    char a[NAME], b[NAME];
    for (int k = 0; k < 2; k++) {
        snprintf(a, sizeof a, "%s.%s", theirs, part[k]);
        snprintf(b, sizeof b, "%s.%s", ours, part[k]);
        bind(m, a, b, i, turn && k == 0);
    }
}

/* Nothing on either side may be left without a partner; `apart` begins names that are not the backbone's. */
static void check_bound(model *m, const char *apart)
{
    int at = 0;
    if (m->numbers != nsm_module_count(nsm_backbone_module(m->b)))
        fixture_fault(m->f, "the model has %lld numbers, %lld were given", (long long)nsm_module_count(nsm_backbone_module(m->b)), (long long)m->numbers);
    for (const char *path; (path = fixture_next(m->f, "weights/", &at));) {
        bool found = apart && !strncmp(path + 8, apart, strlen(apart));
        for (int k = 0; k < m->count; k++) found |= !strcmp(m->bound[k].theirs, path + 8);
        if (!found) fixture_fault(m->f, "%s is not in the model", path);
    }
}

static void compare_grads(model *m)
{
    nsm_tape_backward(m->tape, NULL);
    for (int k = 0; k < m->count; k++) {
        char path[NAME + 16];
        nsm_tensor *t = nsm_module_find(nsm_backbone_module(m->b), m->bound[k].ours);
        snprintf(path, sizeof path, "grads/weights/%s", m->bound[k].theirs);
        if (!fixture_has(m->f, path)) continue;
        int64_t cols = columns_of(t), n = m->bound[k].rows * cols;
        float *all = malloc((size_t)nsm_numel(t) * sizeof *all), *x = malloc((size_t)n * sizeof *x);
        nsm_tensor_get_grad(t, all);
        move(all + m->bound[k].row * cols, x, m->bound[k].rows, cols, m->bound[k].turned, true);
        fixture_values(m->f, path, x, n);
        free(all);
        free(x);
    }
    fixture_grads(m->f, m->tape, NULL); /* what is not the backbone's */
}

static nsm_act act_of(fixture *f, const char *key)
{
    static const struct { const char *name; nsm_act act; } acts[] = {
        { "gelu", NSM_ACT_GELU }, { "gelu_new", NSM_ACT_GELU_TANH }, { "gelu_pytorch_tanh", NSM_ACT_GELU_TANH }, { "silu", NSM_ACT_SILU },
        { "swish", NSM_ACT_SILU }, { "relu", NSM_ACT_RELU }, { "tanh", NSM_ACT_TANH }, { "quick_gelu", NSM_ACT_QUICK_GELU },
    };
    const char *name = fixture_text(f, key, "");
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++)
        if (!strcmp(acts[i].name, name)) return acts[i].act;
    fixture_fault(f, "the activation %s is not known", name);
    return NSM_ACT_GELU;
}

static void model_start(model *m, fixture *f, const char *options, nsm_backbone_config c)
{
    c.mixer = "transformer";
    c.options = options;
    *m = (model){ .f = f, .tape = nsm_tape_new(fixture_ctx(f)), .b = nsm_backbone_new(fixture_ctx(f), &c) };
    if (m->b) m->config = *nsm_backbone_settings(m->b);
}

static void model_end(model *m)
{
    nsm_tape_free(m->tape);
    nsm_backbone_free(m->b);
}

/* The lengths that a mask of 1s, then 0s, says; NULL without a mask. */
static nsm_tensor *lengths_of(model *m, const char *path)
{
    int64_t n, dim[NSM_MAX_RANK];
    int32_t length[256] = { 0 };
    if (!fixture_has(m->f, path)) return NULL;
    const int32_t *mask = fixture_ints(m->f, path, &n);
    if (!mask || fixture_dims(m->f, path, dim) != 2 || dim[0] > 256) return NULL;
    for (int64_t i = 0; i < n; i++) {
        if (mask[i] && i % dim[1] != length[i / dim[1]]) fixture_fault(m->f, "%s has 1s behind 0s", path);
        length[i / dim[1]] += mask[i] != 0;
    }
    return nsm_tape_tensor(m->tape, NSM_I32, 1, dim, length);
}

/* y [B, n, C] times the mask. */
static nsm_tensor *masked(model *m, const char *path, nsm_tensor *y)
{
    int64_t n, dim[NSM_MAX_RANK];
    if (!fixture_has(m->f, path) || !y) return y;
    const int32_t *mask = fixture_ints(m->f, path, &n);
    fixture_dims(m->f, path, dim);
    float *x = malloc((size_t)n * sizeof *x + 1);
    for (int64_t i = 0; mask && i < n; i++) x[i] = (float)mask[i];
    y = nsm_mul(m->tape, y, nsm_tape_tensor(m->tape, NSM_F32, 3, (int64_t[]){ dim[0], dim[1], 1 }, x));
    free(x);
    return y;
}

/* The mean next-token loss; label -100 counts nowhere. */
static nsm_tensor *shifted_loss(model *m, nsm_tensor *logits)
{
    nsm_tensor *labels = fixture_index(m->f, "labels");
    if (!logits || !labels) return NULL;
    int64_t rows = labels->dim[0], n = labels->dim[1];
    int32_t *x = malloc((size_t)(rows * n) * sizeof *x), *to = malloc((size_t)(rows * n) * sizeof *to);
    nsm_tensor_get(labels, x);
    for (int64_t i = 0; i < rows * (n - 1); i++) to[i] = x[i / (n - 1) * n + i % (n - 1) + 1];
    nsm_tensor *target = nsm_tape_tensor(m->tape, NSM_I32, 1, (int64_t[]){ rows * (n - 1) }, to);
    free(x);
    free(to);
    nsm_tensor *y = nsm_reshape(m->tape, nsm_slice(m->tape, logits, 1, 0, n - 1), 2, (int64_t[]){ rows * (n - 1), logits->dim[2] });
    return nsm_cross_entropy(m->tape, y, target, &(nsm_cross_entropy_config){ .ignore = true, .ignore_index = -100 });
}

/* Ids [B, n] of the input from .. to. */
static nsm_tensor *piece(model *m, const int32_t *ids, int64_t rows, int64_t n, int64_t from, int64_t to)
{
    int32_t *x = malloc((size_t)(rows * (to - from)) * sizeof *x + 1);
    for (int64_t i = 0; i < rows * (to - from); i++) x[i] = ids[i / (to - from) * n + from + i % (to - from)];
    nsm_tensor *t = nsm_tape_tensor(m->tape, NSM_I32, 2, (int64_t[]){ rows, to - from }, x);
    free(x);
    return t;
}

/* A layer's cache as the fixture has it: [B, G, tokens, D]. */
static void compare_cache(model *m, const char *when, const nsm_state *s, int heads)
{
    static const char *const part[2] = { "key", "value" };
    for (int i = 0; i < m->config.layers; i++)
        for (int k = 0; k < 2; k++) {
            char path[NAME];
            snprintf(path, sizeof path, "outputs/%s_%s_%d", when, part[k], i);
            if (!fixture_has(m->f, path)) continue;
            const nsm_tensor *t = nsm_state_get(s->child[i].state, k ? "v" : "k");
            int64_t n = s->tokens, d = t->dim[2] / heads, rows = t->dim[0];
            float *all = malloc((size_t)nsm_numel(t) * sizeof *all), *x = malloc((size_t)(rows * heads * n * d) * sizeof *x);
            nsm_tensor_get(t, all);
            for (int64_t j = 0; j < rows * heads * n * d; j++) {
                int64_t e = j % d, at = j / d % n, h = j / d / n % heads, b = j / d / n / heads;
                x[j] = all[(b * t->dim[1] + at) * t->dim[2] + h * d + e];
            }
            fixture_values(m->f, path, x, rows * heads * n * d);
            free(all);
            free(x);
        }
}

/* Prefill, then steps with the carried state. */
static void decode(model *m, int heads)
{
    int64_t n, dim[NSM_MAX_RANK], prefill = fixture_int(m->f, "prefill_len", 0), steps = fixture_int(m->f, "steps", 0);
    const int32_t *ids = fixture_ints(m->f, "inputs/input_ids", &n);
    nsm_tape_inference(m->tape, true);
    if (!ids || !m->b || fixture_dims(m->f, "inputs/input_ids", dim) != 2 || prefill < 1 || prefill + steps > dim[1]) {
        fixture_fault(m->f, "%lld and %lld tokens are not those of input_ids", (long long)prefill, (long long)steps);
        return;
    }
    int64_t vocab = m->config.outputs, rows = dim[0];
    nsm_state *s = nsm_backbone_state(m->b, rows);
    float *all = calloc((size_t)(rows * steps * vocab) + 1, sizeof *all), *one = calloc((size_t)(rows * vocab) + 1, sizeof *one);
    nsm_backbone_apply(m->tape, m->b, piece(m, ids, rows, dim[1], 0, prefill), NULL, s);
    compare_cache(m, "prefill", s, heads);
    for (int64_t t = 0; t < steps; t++) {
        nsm_tensor *id = nsm_reshape(m->tape, piece(m, ids, rows, dim[1], prefill + t, prefill + t + 1), 1, &rows);
        nsm_tensor *y = nsm_backbone_step(m->tape, m->b, id, s);
        if (y) nsm_tensor_get(y, one);
        for (int64_t b = 0; b < rows; b++) memcpy(all + (b * steps + t) * vocab, one + b * vocab, (size_t)vocab * sizeof *one);
    }
    fixture_values(m->f, "outputs/step_logits", all, rows * steps * vocab);
    compare_cache(m, "final", s, heads);
    nsm_state_free(s);
    free(all);
    free(one);
}

/* Logits, or the loss, and every gradient. */
static void language_model(model *m, bool loss)
{
    static const char mask[] = "inputs/attention_mask";
    nsm_tensor *y = nsm_backbone_apply(m->tape, m->b, fixture_index(m->f, "input_ids"), lengths_of(m, mask), NULL);
    if (loss) fixture_output(m->f, m->tape, "loss", shifted_loss(m, y));
    else fixture_output(m->f, m->tape, "logits", masked(m, mask, y));
    compare_grads(m);
}

/* ---- GPT-2: Conv1D weights are [in, out] ---- */
static void bind_gpt2_layer(model *m, const char *before, int i)
{
    static const char *const pairs[][2] = {
        { "ln_1", "layers.%d.norm1" }, { "attn.c_attn", "layers.%d.mixer.qkv" }, { "attn.c_proj", "layers.%d.mixer.out" },
        { "ln_2", "layers.%d.norm2" }, { "mlp.c_fc", "layers.%d.up" }, { "mlp.c_proj", "layers.%d.down" },
    };
    for (int k = 0; k < 6; k++) {
        char theirs[NAME];
        snprintf(theirs, sizeof theirs, "%s%s", before, pairs[k][0]);
        bind_pair(m, theirs, pairs[k][1], i, k % 3 != 0);
    }
}

static void start_gpt2(model *m, fixture *f, bool bare)
{
    char options[64];
    snprintf(options, sizeof options, "heads=%d", size(f, "n_head", 1));
    nsm_backbone_config c = {
        .width = size(f, "n_embd", 0), .layers = bare ? 1 : size(f, "n_layer", 1), .inner = size(f, "n_inner", 0),
        .act = act_of(f, "activation_function"), .eps = (float)fixture_number(f, "layer_norm_epsilon", 1e-5), .bare = bare };
    if (!bare) {
        c.vocab = size(f, "vocab_size", 0);
        c.position = NSM_POSITION_LEARNED;
        c.places = size(f, "n_positions", 0);
        c.tied = fixture_bool(f, "tie_word_embeddings", true);
    }
    model_start(m, f, options, c);
    if (!m->b || bare) return;
    bind(m, "transformer.wte.weight", "embed.weight", 0, false);
    bind(m, "transformer.wpe.weight", "position.weight", 0, false);
    for (int i = 0; i < m->config.layers; i++) bind_gpt2_layer(m, "transformer.h.%d.", i);
    bind_pair(m, "transformer.ln_f", "norm", 0, false);
    if (!c.tied) bind(m, "lm_head.weight", "head.weight", 0, false);
    check_bound(m, NULL);
}

static void run_gpt2_block(fixture *f)
{
    model m;
    start_gpt2(&m, f, true);
    if (m.b) bind_gpt2_layer(&m, "", 0);
    if (m.b) check_bound(&m, NULL);
    fixture_output(f, m.tape, "hidden_states", nsm_backbone_layers(m.tape, m.b, fixture_input(f, "hidden_states"), NULL, NULL));
    compare_grads(&m);
    model_end(&m);
}

static void run_gpt2(fixture *f, bool loss)
{
    model m;
    start_gpt2(&m, f, false);
    language_model(&m, loss);
    model_end(&m);
}
static void run_gpt2_lm(fixture *f) { run_gpt2(f, false); }
static void run_gpt2_lm_loss(fixture *f) { run_gpt2(f, true); }

static void run_gpt2_decode(fixture *f)
{
    model m;
    start_gpt2(&m, f, false);
    decode(&m, size(f, "n_head", 1));
    model_end(&m);
}

/* ---- Llama ---- */
static void bind_llama_layer(model *m, int i, bool attention_bias, bool mlp_bias)
{
    static const char *const part[2] = { "weight", "bias" };
    char a[NAME], b[NAME];
    bind(m, "model.layers.%d.input_layernorm.weight", "layers.%d.norm1.weight", i, false);
    bind(m, "model.layers.%d.post_attention_layernorm.weight", "layers.%d.norm2.weight", i, false);
    for (int k = 0; k < 2; k++) {
        int64_t row = 0;
        for (int q = 0; q < 3 && (k == 0 || attention_bias); q++) {
            snprintf(a, sizeof a, "model.layers.%%d.self_attn.%c_proj.%s", "qkv"[q], part[k]);
            snprintf(b, sizeof b, "layers.%%d.mixer.qkv.%s", part[k]);
            bind_one(m, a, b, i, &row, false);
        }
        snprintf(a, sizeof a, "model.layers.%%d.self_attn.o_proj.%s", part[k]);
        snprintf(b, sizeof b, "layers.%%d.mixer.out.%s", part[k]);
        if (k == 0 || attention_bias) bind(m, a, b, i, false);
        row = 0;
        for (int q = 0; q < 2 && (k == 0 || mlp_bias); q++) {
            snprintf(a, sizeof a, "model.layers.%%d.mlp.%s_proj.%s", q ? "up" : "gate", part[k]);
            snprintf(b, sizeof b, "layers.%%d.up.%s", part[k]);
            bind_one(m, a, b, i, &row, false);
        }
        snprintf(a, sizeof a, "model.layers.%%d.mlp.down_proj.%s", part[k]);
        snprintf(b, sizeof b, "layers.%%d.down.%s", part[k]);
        if (k == 0 || mlp_bias) bind(m, a, b, i, false);
    }
}

static void start_llama(model *m, fixture *f)
{
    char options[200];
    int heads = size(f, "num_attention_heads", 1);
    bool attention_bias = fixture_bool(f, "attention_bias", false), mlp_bias = fixture_bool(f, "mlp_bias", false);
    snprintf(options, sizeof options, "heads=%d kv_heads=%d head_dim=%d rotary=true rotary_base=%.9g bias=%s", heads,
             size(f, "num_key_value_heads", heads), size(f, "head_dim", size(f, "hidden_size", 0) / heads),
             fixture_number(f, "rope_theta", 10000), attention_bias ? "true" : "false");
    model_start(m, f, options, (nsm_backbone_config){
        .width = size(f, "hidden_size", 0), .layers = size(f, "num_hidden_layers", 1), .inner = size(f, "intermediate_size", 0),
        .act = act_of(f, "hidden_act"), .gated = true, .no_bias = !mlp_bias, .rms_norm = true,
        .eps = (float)fixture_number(f, "rms_norm_eps", 1e-6), .vocab = size(f, "vocab_size", 0),
        .tied = fixture_bool(f, "tie_word_embeddings", false) });
    if (!m->b) return;
    bind(m, "model.embed_tokens.weight", "embed.weight", 0, false);
    for (int i = 0; i < m->config.layers; i++) bind_llama_layer(m, i, attention_bias, mlp_bias);
    bind(m, "model.norm.weight", "norm.weight", 0, false);
    if (!m->config.tied) bind(m, "lm_head.weight", "head.weight", 0, false);
    check_bound(m, NULL);
}

static void run_llama(fixture *f, bool loss)
{
    model m;
    start_llama(&m, f);
    language_model(&m, loss);
    model_end(&m);
}
static void run_llama_lm(fixture *f) { run_llama(f, false); }
static void run_llama_lm_loss(fixture *f) { run_llama(f, true); }

static void run_llama_decode(fixture *f)
{
    model m;
    start_llama(&m, f);
    decode(&m, size(f, "num_key_value_heads", size(f, "num_attention_heads", 1)));
    model_end(&m);
}

/* ---- BERT ---- */
static void bind_bert_layer(model *m, int i)
{
    static const char *const pairs[][2] = {
        { "attention.output.dense", "mixer.out" }, { "attention.output.LayerNorm", "norm1" }, { "intermediate.dense", "up" },
        { "output.dense", "down" }, { "output.LayerNorm", "norm2" },
    };
    static const char *const qkv[3] = { "query", "key", "value" }, *const part[2] = { "weight", "bias" };
    char a[NAME], b[NAME];
    for (int k = 0; k < 5; k++) {
        snprintf(a, sizeof a, "encoder.layer.%%d.%s", pairs[k][0]);
        snprintf(b, sizeof b, "layers.%%d.%s", pairs[k][1]);
        for (int p = 0; p < 2; p++) {
            char c[2 * NAME], d[2 * NAME];
            snprintf(c, sizeof c, "%s.%s", a, part[p]);
            snprintf(d, sizeof d, "%s.%s", b, part[p]);
            bind(m, c, d, i, false);
        }
    }
    for (int p = 0; p < 2; p++) {
        int64_t row = 0;
        for (int k = 0; k < 3; k++) {
            snprintf(a, sizeof a, "encoder.layer.%%d.attention.self.%s.%s", qkv[k], part[p]);
            snprintf(b, sizeof b, "layers.%%d.mixer.qkv.%s", part[p]);
            bind_one(m, a, b, i, &row, false);
        }
    }
}

static void run_bert(fixture *f)
{
    static const char mask[] = "inputs/attention_mask";
    model m;
    char options[64];
    snprintf(options, sizeof options, "heads=%d causal=false", size(f, "num_attention_heads", 1));
    model_start(&m, f, options, (nsm_backbone_config){
        .width = size(f, "hidden_size", 0), .layers = size(f, "num_hidden_layers", 1), .inner = size(f, "intermediate_size", 0),
        .act = act_of(f, "hidden_act"), .vocab = size(f, "vocab_size", 0), .position = NSM_POSITION_LEARNED,
        .places = size(f, "max_position_embeddings", 0), .types = size(f, "type_vocab_size", 2), .post_norm = true, .embed_norm = true,
        .eps = (float)fixture_number(f, "layer_norm_eps", 1e-12), .tied = true });
    if (m.b) {
        bind(&m, "embeddings.word_embeddings.weight", "embed.weight", 0, false);
        bind(&m, "embeddings.position_embeddings.weight", "position.weight", 0, false);
        bind(&m, "embeddings.token_type_embeddings.weight", "type.weight", 0, false);
        bind_pair(&m, "embeddings.LayerNorm", "embed_norm", 0, false);
        for (int i = 0; i < m.config.layers; i++) bind_bert_layer(&m, i);
        check_bound(&m, "pooler.");
    }
    nsm_tensor *type = fixture_has(f, "inputs/token_type_ids") ? fixture_index(f, "token_type_ids") : NULL;
    nsm_tensor *h = nsm_backbone_hidden(m.tape, m.b, fixture_index(f, "input_ids"), type, lengths_of(&m, mask), NULL);
    fixture_output(f, m.tape, "last_hidden_state", masked(&m, mask, h));
    nsm_tensor *first = nsm_slice(m.tape, h, 1, 0, 1);
    if (first) first = nsm_reshape(m.tape, first, 2, (int64_t[]){ first->dim[0], first->dim[2] });
    fixture_output(f, m.tape, "pooler_output",
                   nsm_tanh(m.tape, nsm_linear(m.tape, first, fixture_weight(f, "pooler.dense.weight"), fixture_weight(f, "pooler.dense.bias"))));
    compare_grads(&m);
    model_end(&m);
}

/* ---- LSTM and GRU ---- */
/* [B, n, C] from [n, B, C] and back, where the fixture has time first. */
static nsm_tensor *batch_first(fixture *f, nsm_tape *tape, nsm_tensor *x)
{
    return fixture_bool(f, "batch_first", false) ? x : nsm_permute(tape, x, (const int[]){ 1, 0, 2 });
}

static void run_rnn(fixture *f, bool gru)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_rnn *r = nsm_rnn_new(fixture_ctx(f), &(nsm_rnn_config){
        .gru = gru, .input = size(f, "input_size", 0), .hidden = size(f, "hidden_size", 0), .layers = size(f, "num_layers", 1),
        .projection = size(f, "proj_size", 0), .two_way = fixture_bool(f, "bidirectional", false), .no_bias = !fixture_bool(f, "bias", true) });
    fixture_load(f, nsm_rnn_module(r));
    nsm_tensor *h0 = fixture_has(f, "inputs/h0") ? fixture_input(f, "h0") : NULL, *c0 = fixture_has(f, "inputs/c0") ? fixture_input(f, "c0") : NULL;
    nsm_tensor *hn = NULL, *cn = NULL, *y = nsm_rnn_apply(tape, r, batch_first(f, tape, fixture_input(f, "x")), h0, c0, NULL, &hn, &cn);
    fixture_output(f, tape, "y", batch_first(f, tape, y));
    fixture_output(f, tape, "hn", hn);
    if (!gru) fixture_output(f, tape, "cn", cn);
    fixture_grads(f, tape, nsm_rnn_module(r));
    nsm_tape_free(tape);
    nsm_rnn_free(r);
}
static void run_lstm(fixture *f) { run_rnn(f, false); }
static void run_gru(fixture *f) { run_rnn(f, true); }

/* One step: a sequence of length 1, its parameters named without a layer. */
static void run_cell(fixture *f, bool gru)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    bool biased = fixture_bool(f, "bias", true);
    int64_t h = size(f, "hidden_size", 0);
    nsm_tensor *bih = biased ? fixture_weight(f, "bias_ih") : NULL, *bhh = biased ? fixture_weight(f, "bias_hh") : NULL, *inner = NULL;
    nsm_tensor *x = fixture_input(f, "x"), *hn = NULL, *cn = NULL;
    nsm_tensor *gx = nsm_linear(tape, x, fixture_weight(f, "weight_ih"), bih);
    if (biased && !gru) gx = nsm_add(tape, gx, bhh);
    if (biased && gru) {
        nsm_tensor *outer = nsm_slice(tape, bhh, 0, 0, 2 * h), *first = nsm_add(tape, nsm_slice(tape, gx, 1, 0, 2 * h), outer),
                   *part[2] = { first, nsm_slice(tape, gx, 1, 2 * h, h) };
        gx = nsm_concat(tape, part, 2, 1);
        inner = nsm_slice(tape, bhh, 0, 2 * h, h);
    }
    if (gx) gx = nsm_reshape(tape, gx, 3, (int64_t[]){ x->dim[0], 1, -1 });
    nsm_tensor *w = fixture_weight(f, "weight_hh"), *h0 = fixture_input(f, "h");
    if (gru) nsm_gru(tape, gx, w, inner, h0, NULL, false, &hn);
    else nsm_lstm(tape, gx, w, h0, fixture_input(f, "c"), NULL, false, &hn, &cn);
    fixture_output(f, tape, "h", hn);
    if (!gru) fixture_output(f, tape, "c", cn);
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}
static void run_lstm_cell(fixture *f) { run_cell(f, false); }
static void run_gru_cell(fixture *f) { run_cell(f, true); }

extern const oracle_kind oracle_seq[];
const oracle_kind oracle_seq[] = {
    { "transformer", "sdpa", run_sdpa },
    { "transformer", "gpt2_block", run_gpt2_block },
    { "transformer", "gpt2_lm", run_gpt2_lm },
    { "transformer", "gpt2_lm_loss", run_gpt2_lm_loss },
    { "transformer", "gpt2_decode", run_gpt2_decode },
    { "transformer", "llama_lm", run_llama_lm },
    { "transformer", "llama_lm_loss", run_llama_lm_loss },
    { "transformer", "llama_decode", run_llama_decode },
    { "transformer", "bert", run_bert },
    { "rnn", "lstm", run_lstm },
    { "rnn", "gru", run_gru },
    { "rnn", "lstm_cell", run_lstm_cell },
    { "rnn", "gru_cell", run_gru_cell },
    { NULL, NULL, NULL },
};
