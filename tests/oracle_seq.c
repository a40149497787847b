/* tests/oracle_seq.c - Fixtures of sequence systems: attention, GPT-2, Llama, BERT, LSTM, GRU.
 *
 * Whole models are built with the library's backbone (oracle_model.h). */
#include "config.h"
#include "seq/rnn.h"
#include "tests/oracle_model.h"

enum { NAME = MODEL_NAME };

/* ---- scaled dot product attention ---- */
/* [B, H, n, D], as the fixture has it, to [B, n, H, D] or back */
static nsm_tensor *turned(nsm_tape *tape, nsm_tensor *x)
{
    return nsm_permute(tape, x, (const int[]){ 0, 2, 1, 3 });
}

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
    if (strcmp(fixture_text(f, "causal_align", "top_left"), "top_left"))
        fixture_fault(f, "causal_align is not top_left");
    if (masked && biased) fixture_fault(f, "key_mask and attn_bias together");
    nsm_dot_attention_config c = { .scale = (float)fixture_number(f, "scale", 0),
                                   .causal = fixture_bool(f, "is_causal", false) };
    if (masked) c.bias = mask_bias(f, tape);
    if (biased) {
        nsm_tensor *b = fixture_input(f, "bias");
        c.bias = b && b->rank == 3
                     ? nsm_reshape(tape, b, 4, (int64_t[]){ 1, b->dim[0], b->dim[1], b->dim[2] })
                     : b;
    }
    nsm_tensor *y = nsm_dot_attention(tape, turned(tape, fixture_input(f, "q")),
                                      turned(tape, fixture_input(f, "k")),
                                      turned(tape, fixture_input(f, "v")), &c);
    fixture_output(f, tape, "out", turned(tape, y));
    fixture_grads(f, tape, NULL);
    nsm_tape_free(tape);
}

/* ---- caches ---- */
/* A layer's cache as the fixture has it: [B, G, tokens, D]. */
static void compare_cache(model *m, const char *when, const nsm_state *s)
{
    int heads = size(m->f, "n_head", 0)
                    ? size(m->f, "n_head", 1)
                    : size(m->f, "num_key_value_heads", size(m->f, "num_attention_heads", 1));
    static const char *const part[2] = { "key", "value" };
    for (int i = 0; i < m->config.layers; i++)
        for (int k = 0; k < 2; k++) {
            char path[NAME];
            snprintf(path, sizeof path, "outputs/%s_%s_%d", when, part[k], i);
            if (!fixture_has(m->f, path)) continue;
            const nsm_tensor *t = nsm_state_get(s->child[i].state, k ? "v" : "k");
            int64_t n = s->tokens, d = t->dim[2] / heads, rows = t->dim[0];
            float *all = malloc((size_t)nsm_numel(t) * sizeof *all),
                  *x = malloc((size_t)(rows * heads * n * d) * sizeof *x);
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

/* ---- GPT-2: Conv1D weights are [in, out] ---- */
static void bind_gpt2_layer(model *m, const char *before, int i)
{
    static const char *const pairs[][2] = {
        { "ln_1", "layers.%d.norm1" },
        { "attn.c_attn", "layers.%d.mixer.qkv" },
        { "attn.c_proj", "layers.%d.mixer.out" },
        { "ln_2", "layers.%d.norm2" },
        { "mlp.c_fc", "layers.%d.up" },
        { "mlp.c_proj", "layers.%d.down" },
    };
    for (int k = 0; k < 6; k++) {
        char theirs[NAME];
        snprintf(theirs, sizeof theirs, "%s%s", before, pairs[k][0]);
        model_bind_pair(m, theirs, pairs[k][1], i, k % 3 != 0);
    }
}

static void start_gpt2(model *m, fixture *f, bool bare)
{
    char options[64];
    snprintf(options, sizeof options, "heads=%d", size(f, "n_head", 1));
    nsm_backbone_config c = { .mixer = "transformer",
                              .options = options,
                              .width = size(f, "n_embd", 0),
                              .layers = bare ? 1 : size(f, "n_layer", 1),
                              .inner = size(f, "n_inner", 0),
                              .act = model_act(f, "activation_function"),
                              .eps = (float)fixture_number(f, "layer_norm_epsilon", 1e-5),
                              .bare = bare };
    if (!bare) {
        c.vocab = size(f, "vocab_size", 0);
        c.position = NSM_POSITION_LEARNED;
        c.places = size(f, "n_positions", 0);
        c.tied = fixture_bool(f, "tie_word_embeddings", true);
    }
    model_start(m, f, &c);
    if (!m->b || bare) return;
    model_bind(m, "transformer.wte.weight", "embed.weight", 0, false);
    model_bind(m, "transformer.wpe.weight", "position.weight", 0, false);
    for (int i = 0; i < m->config.layers; i++) bind_gpt2_layer(m, "transformer.h.%d.", i);
    model_bind_pair(m, "transformer.ln_f", "norm", 0, false);
    if (!c.tied) model_bind(m, "lm_head.weight", "head.weight", 0, false);
    model_check(m, NULL);
}

static void run_gpt2_block(fixture *f)
{
    model m;
    start_gpt2(&m, f, true);
    if (m.b) bind_gpt2_layer(&m, "", 0);
    if (m.b) model_check(&m, NULL);
    fixture_output(f, m.tape, "hidden_states",
                   nsm_backbone_layers(m.tape, m.b, fixture_input(f, "hidden_states"), NULL, NULL));
    model_grads(&m);
    model_end(&m);
}

static void run_gpt2(fixture *f, bool loss)
{
    model m;
    start_gpt2(&m, f, false);
    model_lm(&m, loss);
    model_end(&m);
}
static void run_gpt2_lm(fixture *f) { run_gpt2(f, false); }
static void run_gpt2_lm_loss(fixture *f) { run_gpt2(f, true); }

static void run_gpt2_decode(fixture *f)
{
    model m;
    start_gpt2(&m, f, false);
    m.look = compare_cache;
    model_decode(&m);
    model_end(&m);
}

/* ---- Llama ---- */
static void bind_llama_layer(model *m, int i, bool attention_bias, bool mlp_bias)
{
    static const char *const part[2] = { "weight", "bias" };
    char a[NAME], b[NAME];
    model_bind(m, "model.layers.%d.input_layernorm.weight", "layers.%d.norm1.weight", i, false);
    model_bind(m, "model.layers.%d.post_attention_layernorm.weight", "layers.%d.norm2.weight", i,
               false);
    for (int k = 0; k < 2; k++) {
        int64_t row = 0;
        for (int q = 0; q < 3 && (k == 0 || attention_bias); q++) {
            snprintf(a, sizeof a, "model.layers.%%d.self_attn.%c_proj.%s", "qkv"[q], part[k]);
            snprintf(b, sizeof b, "layers.%%d.mixer.qkv.%s", part[k]);
            model_bind_at(m, a, b, i, &row, false);
        }
        snprintf(a, sizeof a, "model.layers.%%d.self_attn.o_proj.%s", part[k]);
        snprintf(b, sizeof b, "layers.%%d.mixer.out.%s", part[k]);
        if (k == 0 || attention_bias) model_bind(m, a, b, i, false);
        row = 0;
        for (int q = 0; q < 2 && (k == 0 || mlp_bias); q++) {
            snprintf(a, sizeof a, "model.layers.%%d.mlp.%s_proj.%s", q ? "up" : "gate", part[k]);
            snprintf(b, sizeof b, "layers.%%d.up.%s", part[k]);
            model_bind_at(m, a, b, i, &row, false);
        }
        snprintf(a, sizeof a, "model.layers.%%d.mlp.down_proj.%s", part[k]);
        snprintf(b, sizeof b, "layers.%%d.down.%s", part[k]);
        if (k == 0 || mlp_bias) model_bind(m, a, b, i, false);
    }
}

static void start_llama(model *m, fixture *f)
{
    char options[200];
    int heads = size(f, "num_attention_heads", 1);
    bool attention_bias = fixture_bool(f, "attention_bias", false),
         mlp_bias = fixture_bool(f, "mlp_bias", false);
    snprintf(options, sizeof options,
             "heads=%d kv_heads=%d head_dim=%d rotary=true rotary_base=%.9g bias=%s", heads,
             size(f, "num_key_value_heads", heads),
             size(f, "head_dim", size(f, "hidden_size", 0) / heads),
             fixture_number(f, "rope_theta", 10000), attention_bias ? "true" : "false");
    model_start(m, f,
                &(nsm_backbone_config){ .mixer = "transformer",
                                        .options = options,
                                        .width = size(f, "hidden_size", 0),
                                        .layers = size(f, "num_hidden_layers", 1),
                                        .inner = size(f, "intermediate_size", 0),
                                        .act = model_act(f, "hidden_act"),
                                        .gated = true,
                                        .no_bias = !mlp_bias,
                                        .rms_norm = true,
                                        .eps = (float)fixture_number(f, "rms_norm_eps", 1e-6),
                                        .vocab = size(f, "vocab_size", 0),
                                        .tied = fixture_bool(f, "tie_word_embeddings", false) });
    if (!m->b) return;
    model_bind(m, "model.embed_tokens.weight", "embed.weight", 0, false);
    for (int i = 0; i < m->config.layers; i++) bind_llama_layer(m, i, attention_bias, mlp_bias);
    model_bind(m, "model.norm.weight", "norm.weight", 0, false);
    if (!m->config.tied) model_bind(m, "lm_head.weight", "head.weight", 0, false);
    model_check(m, NULL);
}

static void run_llama(fixture *f, bool loss)
{
    model m;
    start_llama(&m, f);
    model_lm(&m, loss);
    model_end(&m);
}
static void run_llama_lm(fixture *f) { run_llama(f, false); }
static void run_llama_lm_loss(fixture *f) { run_llama(f, true); }

static void run_llama_decode(fixture *f)
{
    model m;
    start_llama(&m, f);
    m.look = compare_cache;
    model_decode(&m);
    model_end(&m);
}

/* ---- BERT ---- */
static void bind_bert_layer(model *m, int i)
{
    static const char *const pairs[][2] = {
        { "attention.output.dense", "mixer.out" },
        { "attention.output.LayerNorm", "norm1" },
        { "intermediate.dense", "up" },
        { "output.dense", "down" },
        { "output.LayerNorm", "norm2" },
    };
    static const char *const qkv[3] = { "query", "key", "value" }, *const part[2] = { "weight",
                                                                                      "bias" };
    char a[NAME], b[NAME];
    for (int k = 0; k < 5; k++) {
        snprintf(a, sizeof a, "encoder.layer.%%d.%s", pairs[k][0]);
        snprintf(b, sizeof b, "layers.%%d.%s", pairs[k][1]);
        for (int p = 0; p < 2; p++) {
            char c[2 * NAME], d[2 * NAME];
            snprintf(c, sizeof c, "%s.%s", a, part[p]);
            snprintf(d, sizeof d, "%s.%s", b, part[p]);
            model_bind(m, c, d, i, false);
        }
    }
    for (int p = 0; p < 2; p++) {
        int64_t row = 0;
        for (int k = 0; k < 3; k++) {
            snprintf(a, sizeof a, "encoder.layer.%%d.attention.self.%s.%s", qkv[k], part[p]);
            snprintf(b, sizeof b, "layers.%%d.mixer.qkv.%s", part[p]);
            model_bind_at(m, a, b, i, &row, false);
        }
    }
}

static void run_bert(fixture *f)
{
    static const char mask[] = "inputs/attention_mask";
    model m;
    char options[64];
    snprintf(options, sizeof options, "heads=%d causal=false", size(f, "num_attention_heads", 1));
    model_start(&m, f,
                &(nsm_backbone_config){ .mixer = "transformer",
                                        .options = options,
                                        .width = size(f, "hidden_size", 0),
                                        .layers = size(f, "num_hidden_layers", 1),
                                        .inner = size(f, "intermediate_size", 0),
                                        .act = model_act(f, "hidden_act"),
                                        .vocab = size(f, "vocab_size", 0),
                                        .position = NSM_POSITION_LEARNED,
                                        .places = size(f, "max_position_embeddings", 0),
                                        .types = size(f, "type_vocab_size", 2),
                                        .post_norm = true,
                                        .embed_norm = true,
                                        .eps = (float)fixture_number(f, "layer_norm_eps", 1e-12),
                                        .tied = true });
    if (m.b) {
        model_bind(&m, "embeddings.word_embeddings.weight", "embed.weight", 0, false);
        model_bind(&m, "embeddings.position_embeddings.weight", "position.weight", 0, false);
        model_bind(&m, "embeddings.token_type_embeddings.weight", "type.weight", 0, false);
        model_bind_pair(&m, "embeddings.LayerNorm", "embed_norm", 0, false);
        for (int i = 0; i < m.config.layers; i++) bind_bert_layer(&m, i);
        model_check(&m, "pooler.");
    }
    nsm_tensor *type = fixture_has(f, "inputs/token_type_ids") ? fixture_index(f, "token_type_ids")
                                                               : NULL;
    nsm_tensor *h = nsm_backbone_hidden(m.tape, m.b, fixture_index(f, "input_ids"), type,
                                        model_lengths(&m, mask), NULL);
    fixture_output(f, m.tape, "last_hidden_state", model_masked(&m, mask, h));
    nsm_tensor *first = nsm_slice(m.tape, h, 1, 0, 1);
    if (first) first = nsm_reshape(m.tape, first, 2, (int64_t[]){ first->dim[0], first->dim[2] });
    fixture_output(f, m.tape, "pooler_output",
                   nsm_tanh(m.tape,
                            nsm_linear(m.tape, first, fixture_weight(f, "pooler.dense.weight"),
                                       fixture_weight(f, "pooler.dense.bias"))));
    model_grads(&m);
    model_end(&m);
}

/* ---- LSTM and GRU ---- */
/* [B, n, C] from [n, B, C] and back, where the fixture has time first. */
static nsm_tensor *batch_first(fixture *f, nsm_tape *tape, nsm_tensor *x)
{
    return fixture_bool(f, "batch_first", false) ? x
                                                 : nsm_permute(tape, x, (const int[]){ 1, 0, 2 });
}

static void run_rnn(fixture *f, bool gru)
{
    nsm_tape *tape = nsm_tape_new(fixture_ctx(f));
    nsm_rnn *r = nsm_rnn_new(fixture_ctx(f),
                             &(nsm_rnn_config){ .gru = gru,
                                                .input = size(f, "input_size", 0),
                                                .hidden = size(f, "hidden_size", 0),
                                                .layers = size(f, "num_layers", 1),
                                                .projection = size(f, "proj_size", 0),
                                                .two_way = fixture_bool(f, "bidirectional", false),
                                                .no_bias = !fixture_bool(f, "bias", true) });
    fixture_load(f, nsm_rnn_module(r));
    nsm_tensor *h0 = fixture_has(f, "inputs/h0") ? fixture_input(f, "h0") : NULL,
               *c0 = fixture_has(f, "inputs/c0") ? fixture_input(f, "c0") : NULL;
    nsm_tensor *hn = NULL, *cn = NULL,
               *y = nsm_rnn_apply(tape, r, batch_first(f, tape, fixture_input(f, "x")), h0, c0,
                                  NULL, &hn, &cn);
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
    nsm_tensor *bih = biased ? fixture_weight(f, "bias_ih") : NULL,
               *bhh = biased ? fixture_weight(f, "bias_hh") : NULL, *inner = NULL;
    nsm_tensor *x = fixture_input(f, "x"), *hn = NULL, *cn = NULL;
    nsm_tensor *gx = nsm_linear(tape, x, fixture_weight(f, "weight_ih"), bih);
    if (biased && !gru) gx = nsm_add(tape, gx, bhh);
    if (biased && gru) {
        nsm_tensor *outer = nsm_slice(tape, bhh, 0, 0, 2 * h),
                   *first = nsm_add(tape, nsm_slice(tape, gx, 1, 0, 2 * h), outer),
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
