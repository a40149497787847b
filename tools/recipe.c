/* recipe.c - The settings of a training run, and the recipes.
 *
 * gcn   Kipf and Welling, ICLR 2017, section 5.2: 16 hidden units, dropout 0.5 on both inputs,
 *       weight decay on the first layer only, 200 epochs, the last one counts.
 * gat   Velickovic et al., ICLR 2018, section 3.3: 8 heads of 8, dropout 0.6 on inputs and
 *       attention, decay on all, patience 100; the epoch whose validation loss and accuracy were
 *       both the best so far counts.
 * sage  Hamilton et al., NeurIPS 2017: mean of the neighbours beside the node itself; full batch.
 * rgcn  Schlichtkrull et al., ESWC 2018, section 5.1: 16 hidden units, 50 epochs of Adam at 0.01;
 *       features take the place of the paper's one-hot nodes, bases= of its tuned number.
 * lm     any sequence mixer told the next token; recall: targets within sequences; forecast:
 *        PatchTST (Nie et al., ICLR 2023) around any mixer; classify: classes of rows; qa:
 *        sentences as tokens, repeated layers.
 * fused  graph, text and questions in one pool of states (fusion/fused.h).
 * retrieve  that model finds a thing's picture by its words and the other way: CLIP (Radford et
 *       al., ICML 2021) with one pool for both sides (fusion/retrieval.h).
 * pairs  links between what that model reads of two things: in-batch answers (SimKGC, ACL 2022),
 *       ComplEx.
 * clevr, fashion  that model on pictures, with questions and with classes.
 * graphs  that model on sets of small graphs.  Nodes that are alike are one state's; dropout would
 *       tell them apart in training alone, and neighbours are summed, for their number tells (Xu et
 *       al., ICLR 2019).
 * wordnet  the default job: that model on typed pointers, glosses and the classes of training
 *       synsets. */
#include "config.h"
#include <stddef.h>
#include <string.h>
#include "tools/nearest.h"
#include "tools/recipe.h"

#define FIELD(name, type, fallback, help, choices, range) \
    { #name, SETTING_##type, offsetof(train_options, name), fallback, help, choices, range }
#define TEXT(name, fallback, help) FIELD(name, STRING, fallback, help, NULL, NULL)
#define FLAG(name, fallback, help) FIELD(name, BOOL, fallback, help, NULL, NULL)
#define LIST(name, fallback, help) FIELD(name, LIST, fallback, help, NULL, NULL)
#define CHOICE(name, fallback, choices, help) FIELD(name, CHOICE, fallback, help, choices, NULL)
#define INT(name, fallback, range, help) FIELD(name, INT, fallback, help, NULL, range)
#define REAL(name, fallback, range, help) FIELD(name, REAL, fallback, help, NULL, range)

const setting train_fields[] = {
    TEXT(recipe, "", "the recipe these settings began from"),
    TEXT(data, "", "the dataset file"),
    TEXT(split, "", "which split of the dataset (default: \"default\", else the first)"),
    FLAG(symmetric, "false", "use every edge in both directions, repeated ones once"),
    FLAG(row_normalize, "false", "divide each node's features by their sum"),
    CHOICE(model, "gcn", "gcn|gat|gatv2|sage|rgcn", "which layers"),
    INT(hidden, "64", ">=1", "features of a hidden layer (of each head, with attention)"),
    INT(layers, "2", "1..64", "layers"),
    INT(heads, "8", "1..1024", "attention heads"),
    INT(out_heads, "1", "1..1024", "attention heads of the last layer, averaged"),
    REAL(dropout, "0.5", "0..0.99", "on the input of every layer"),
    REAL(attn_dropout, "0", "0..0.99", "on attention weights"),
    TEXT(activation, "relu", "between layers: relu, elu, gelu, silu, ..."),
    CHOICE(norm, "none", "none|batch|layer", "normalisation between layers"),
    FLAG(residual, "false", "add each layer's input to its output"),
    CHOICE(jump, "none", "none|concat|max",
           "let the output see every layer's result (jumping knowledge)"),
    CHOICE(aggr, "mean", "mean|max|sum",
           "how GraphSAGE and RGCN gather neighbours, in fused models too"),
    FLAG(inverse, "false",
         "rgcn, fused: every type of edges turned around too, as a type of its own"),
    INT(bases, "0", "0..100000",
        "rgcn, fused: bases that the relations' weights are combined from; 0: weights of their "
        "own"),
    INT(blocks, "0", "0..100000", "rgcn: blocks that the relations' weights consist of; 0: whole"),
    CHOICE(decoder, "none", "none|distmult|complex", "links: how a triple is scored"),
    CHOICE(encoder, "none", "none|rgcn|fused|sage|gat|gatv2|gcn",
           "links: rgcn: `layers` relational convolutions over the training edges; fused: "
           "neighbours, text and picture by `fuser`; a fused model: its layers over the graph"),
    FLAG(own, "false", "links, encoder=fused: an entity keeps an embedding of its own, too"),
    INT(negatives, "0", "0..10000000",
        "links: tell the answer from so many entities drawn for each batch; 0: from all"),
    REAL(penalty, "0", ">=0", "links: weight of the embeddings' cubes (N3)"),
    REAL(spread, "0.1", ">0", "links: deviation of the embeddings at the start"),
    TEXT(optimizer, "adam", "sgd, adam, adamw, rmsprop, adagrad, adadelta, nadam, radam, lion"),
    REAL(lr, "0.01", ">0", "learning rate"),
    REAL(weight_decay, "0.0005", ">=0", "weight decay"),
    TEXT(decay_only, "", "decay only the weights of this pattern (\"conv1.*\")"),
    CHOICE(schedule, "constant", "constant|step|exponential|linear|cosine|inverse_sqrt|one_cycle",
           "of the learning rate, by step"),
    INT(warmup, "0", ">=0", "steps in which the learning rate rises from 0"),
    REAL(gamma, "0.1", ">0", "factor of the schedules step and exponential"),
    INT(step_size, "50", ">=1", "steps from one factor to the next"),
    REAL(clip, "0", ">=0", "largest norm of all gradients together, 0: no limit"),
    REAL(ema, "0", "0..1", "decay of a moving average of the weights to evaluate with, 0: none"),
    REAL(label_smoothing, "0", "0..0.99", "share of the target spread over all classes"),
    INT(epochs, "200", ">=1", "epochs, at most"),
    INT(patience, "0", ">=0",
        "stop after so many epochs in which neither validation score nor loss was matched; 0: "
        "never"),
    CHOICE(keep, "last", "last|best|both",
           "whose test score counts: the last epoch, the first of the best validation score, or "
           "the last at which score and loss were both the best so far"),
    INT(eval_every, "1", ">=1", "epochs from one evaluation to the next"),
    INT(batch_size, "0", "0..1000000",
        "labelled nodes a step, their neighbours sampled (not gcn); 0: the whole graph"),
    LIST(fanouts, "15,10", "neighbours sampled by each layer, from the last layer down; -1: all"),
    FLAG(in_file, "false",
         "with batch_size: dense features stay in the file, batches read their rows"),
    INT(whole_mib, "2048", ">=0",
        "with batch_size: evaluate and predict on the whole graph, exactly, if that takes at most "
        "so many MiB; else on sampled neighbours, with the same fanouts, the same ones every time"),
    INT(eval_nodes, "0", ">=0",
        "with sampled evaluation: look at so many nodes of each part, evenly drawn, always the "
        "same; 0: all"),
    INT(seeds, "1", "1..1000", "train so many times, with --seed and the seeds after it"),
    INT(checkpoint_every, "50", ">=0",
        "epochs from one checkpoint to the next, 0: only at the end"),
    INT(checkpoint_steps, "0", ">=0",
        "also steps from one checkpoint to the next, within an epoch of sampled batches too; 0: "
        "none"),
    INT(keep_last, "2", ">=2", "checkpoints to keep"),
    FLAG(charts, "true", "draw PNG charts at the end"),
    TEXT(mixer, "",
         "sequences: which system mixes tokens: transformer, lstm, gru, ...; its own keys may "
         "stand beside it"),
    TEXT(mixer_options, "", "sequences: the mixer's keys, as \"heads=4 window=64\""),
    INT(width, "128", "1..65536", "sequences: width of the model"),
    INT(inner, "0", "0..1000000", "sequences: width of the feed-forward; 0: 4 times the width"),
    CHOICE(ff, "gelu", "gelu|swiglu|none|rwkv",
           "sequences: the feed-forward; rwkv: the channel mixing of the mixer's version, 4 if it "
           "is no RWKV"),
    CHOICE(position, "auto", "auto|none|learned|sinusoidal",
           "sequences: positions; auto: learned where the mixer sees no order"),
    FLAG(rms_norm, "false", "sequences: RMSNorm in place of LayerNorm"),
    FLAG(tied, "true", "sequences: the head shares the embedding's weights"),
    INT(context, "128", "1..1000000", "sequences: tokens of a window of a stream"),
    INT(segments, "1", "1..1000000",
        "sequences: windows of a stream that follow each other, each taking up the state the last "
        "one left, in training (gradients stay within a window) and in evaluation (there to the "
        "end); 1: every window begins anew"),
    INT(steps, "0", ">=0", "sequences: steps of an epoch; 0: as many as go over the data once"),
    INT(eval_rows, "0", ">=0", "sequences: rows or windows of each part to evaluate on; 0: all"),
    CHOICE(pool, "mean", "mean|last|first", "classes of rows: which token the class is told from"),
    INT(lookback, "336", "1..1000000", "series: steps to see"),
    INT(horizon, "96", "1..1000000", "series: steps to tell"),
    INT(patch, "16", "1..1000000", "series: steps of a token; pictures: pixels of a patch's side"),
    INT(stride, "8", "1..1000000", "series: steps from one token to the next"),
    INT(sentences, "0", "0..1000000",
        "stories: read sentence by sentence, so many at most, the last ones; 0: word by word"),
    INT(words, "16", "1..10000", "stories: most words of a sentence"),
    INT(hops, "1", "1..1000", "stories: how often the layers are applied, with the same weights"),
    REAL(noise, "0", "0..0.9",
         "stories: while training, chance of a gap in time before a sentence"),
    TEXT(fuser, "",
         "fused: what joins the modalities: nsm, perceiver, slot_attention, attention, cross, "
         "concat"),
    TEXT(fuser_options, "", "fused: the fuser's keys, as \"slots=16 rounds=1\""),
    TEXT(modalities, "", "fused: of graph,text,picture those to use; all that the data has"),
    TEXT(sides, "",
         "fused: learn to find each side of a thing by the other, as picture/text or "
         "picture/text,graph; \"\": learn classes, or answers"),
    CHOICE(head, "class", "class|pointer|token",
           "fused: what is told: classes, or answers to questions; which node of the graph a "
           "question is after; a class of each word"),
    TEXT(text_mixer, "nsm", "fused: the mixer over a text's words; none: a bag of words"),
    TEXT(text_options, "", "fused: its keys, as \"heads=4 s=16\""),
    CHOICE(picture, "stem", "stem|patch",
           "fused: a picture's encoder: a stem of convolutions, or patches of `patch` pixels"),
    INT(filters, "24", "1..65536", "fused: of each of the stem's layers"),
    INT(stem_layers, "4", "1..8", "fused: the stem's, each halving the picture"),
    CHOICE(stem_norm, "batch", "batch|layer|group|none", "fused: norm of each of the stem's layers"),
    FLAG(node_features, "true", "fused: the graph's encoder sees the nodes' features"),
    FLAG(show_labels, "false",
         "fused: the encoder sees classes of training nodes, but never those it is asked for"),
    FLAG(reuse, "false",
         "fused, with show_labels: at other nodes it sees what was last told of them"),
    FLAG(whole, "true", "fused: the encoder runs over the whole graph; false: over sampled "
                        "neighbours, fanouts has one number more for each layer"),
    { NULL, SETTING_BOOL, 0, NULL, NULL, NULL, NULL },
};

const recipe recipes[] = {
    { "gcn", "graph convolution, the settings of Kipf and Welling 2017",
      "model: gcn\nhidden: 16\nrow_normalize: true\ndecay_only: conv1.*\n" },
    { "gat", "graph attention, the settings of Velickovic et al. 2018",
      "model: gat\nhidden: 8\nheads: 8\ndropout: 0.6\nattn_dropout: 0.6\nactivation: elu\n"
      "row_normalize: true\nlr: 0.005\nepochs: 1000\npatience: 100\nkeep: both\n" },
    { "sage", "GraphSAGE with the mean of all neighbours, Hamilton et al. 2017",
      "model: sage\nhidden: 64\nrow_normalize: true\n" },
    { "rgcn", "relational graph convolution over types of edges, Schlichtkrull et al. 2018",
      "model: rgcn\nhidden: 16\ninverse: true\nrow_normalize: true\nepochs: 50\n" },
    { "fused", "things that graph, text and pictures tell of, in one pool of states",
      "fuser: nsm\nencoder: rgcn\nbases: 8\nwidth: 64\nwords: 32\nfanouts: 8\n"
      "batch_size: 1024\ndropout: 0.2\noptimizer: adamw\nlr: 0.003\nweight_decay: 0.01\n"
      "clip: 1\nschedule: cosine\nwarmup: 50\nepochs: 20\nkeep: best\n" },
    { "clevr", "Sort-of-CLEVR: questions about pictures of six shapes, by one pool of states",
      "fuser: nsm\nfuser_options: spread=0.01\nmodalities: picture\nwidth: 128\nfilters: 32\n"
      "stem_norm: group\nencoder: rgcn\nlayers: 1\nwhole: false\nfanouts: 6,6\nbatch_size: 16\n"
      "dropout: 0\noptimizer: adamw\nlr: 0.0007\nweight_decay: 0.01\nclip: 1\nschedule: cosine\n"
      "warmup: 200\nepochs: 40\neval_every: 2\nkeep: best\n" },
    { "fashion", "Fashion-MNIST: classes of pictures, by one pool of states",
      "fuser: nsm\nfuser_options: slots=17 topk=1\nmodalities: picture\nwidth: 64\nfilters: 96\n"
      "stem_layers: 3\nencoder: rgcn\nbases: 8\nwhole: false\nfanouts: 64,8,8\nbatch_size: 64\n"
      "dropout: 0.1\noptimizer: adamw\nlr: 0.002\nweight_decay: 0.05\nclip: 1\n"
      "schedule: cosine\nwarmup: 300\nepochs: 10\neval_every: 5\nkeep: best\n" },
    { "graphs", "classes of small graphs, all nodes of each in one pool of states",
      "fuser: nsm\nencoder: rgcn\nlayers: 4\naggr: sum\nwidth: 64\nbatch_size: 16\ndropout: 0\n"
      "optimizer: adamw\nlr: 0.001\nweight_decay: 0.01\nclip: 1\nschedule: cosine\nwarmup: 50\n"
      "epochs: 120\neval_every: 5\nkeep: last\n" },
    { "retrieve", "pictures by their words and the other way, both sides in one pool of states",
      "sides: picture/text\nfuser: nsm\nfuser_options: slots=8\nencoder: rgcn\nbases: 8\n"
      "width: 128\nwords: 32\nfanouts: 8\nstem_layers: 3\nfilters: 48\nbatch_size: 128\n"
      "dropout: 0.1\noptimizer: adamw\nlr: 0.002\nweight_decay: 0.05\nclip: 1\n"
      "schedule: cosine\nwarmup: 50\nepochs: 30\neval_every: 5\nkeep: best\n" },
    { "link", "links of a knowledge graph: embeddings, DistMult or ComplEx, or an encoder",
      "decoder: distmult\nhidden: 128\ndropout: 0.3\nweight_decay: 0\nlr: 0.003\n"
      "batch_size: 512\nepochs: 60\neval_every: 5\nkeep: best\ninverse: true\n" },
    { "pairs", "links between things that text, pictures and known links tell of, unmet ones too",
      "decoder: complex\nencoder: fused\nfuser: nsm\nfuser_options: slots=4\n"
      "text_mixer: none\nwords: 32\nfanouts: 8\nhidden: 64\nbatch_size: 1024\ndropout: 0.1\n"
      "optimizer: adamw\nlr: 0.003\nweight_decay: 0.01\nclip: 1\nschedule: cosine\n"
      "warmup: 100\nepochs: 6\neval_every: 2\nkeep: best\ninverse: true\n" },
    { "wordnet", "the default job: WordNet's synsets by gloss, pointers and classes nearby",
      "fuser: nsm\nencoder: rgcn\nbases: 8\nwidth: 64\nwords: 24\nfanouts: 8\nbatch_size: 3000\n"
      "dropout: 0.2\nshow_labels: true\nreuse: true\nlr: 0.01\nweight_decay: 0.00001\n"
      "clip: 1\nschedule: cosine\nwarmup: 5\nepochs: 20\neval_every: 4\nkeep: best\n" },
    { "lm", "tokens from those before them, by any mixer",
      "mixer: transformer\nlayers: 4\ndropout: 0\noptimizer: adamw\nlr: 0.002\n"
      "weight_decay: 0.01\nclip: 1\nschedule: cosine\nwarmup: 100\nbatch_size: 16\nsteps: 100\n"
      "epochs: 20\nkeep: best\ncheckpoint_every: 5\n" },
    { "recall", "targets within sequences (recall, copying), by any mixer",
      "mixer: transformer\nlayers: 2\nwidth: 64\ndropout: 0\ntied: false\noptimizer: adamw\n"
      "lr: 0.003\nweight_decay: 0.01\nclip: 1\nschedule: cosine\nwarmup: 50\nbatch_size: 32\n"
      "steps: 100\nepochs: 8\nkeep: last\n" },
    { "forecast", "series: the next steps of each column, patch by patch, by any mixer",
      "mixer: transformer\nlayers: 2\nwidth: 32\ninner: 64\ndropout: 0.3\noptimizer: adamw\n"
      "lr: 0.001\nweight_decay: 0.01\nclip: 1\nschedule: cosine\nwarmup: 50\nbatch_size: 32\n"
      "steps: 100\nepochs: 10\nkeep: best\n" },
    { "classify", "classes of whole sequences, by any mixer",
      "mixer: transformer\nlayers: 2\nwidth: 64\ndropout: 0.1\ntied: false\noptimizer: adamw\n"
      "lr: 0.002\nweight_decay: 0.01\nclip: 1\nschedule: cosine\nwarmup: 100\nbatch_size: 32\n"
      "epochs: 10\nkeep: best\n" },
    { "qa", "questions about stories, a sentence a token, by any mixer",
      "mixer: transformer\nlayers: 1\nwidth: 64\ninner: 128\nhops: 4\nsentences: 64\n"
      "noise: 0.1\ndropout: 0.15\noptimizer: adamw\nlr: 0.002\nweight_decay: 0.05\nclip: 1\n"
      "schedule: cosine\nwarmup: 500\nbatch_size: 32\nepochs: 64\neval_every: 4\nkeep: best\n" },
    { NULL, NULL, NULL },
};

const recipe *recipe_find(const char *name)
{
    for (const recipe *r = recipes; r->name; r++)
        if (!strcmp(r->name, name)) return r;
    return NULL;
}

nsm_sage_aggr recipe_aggr(const train_options *o)
{
    return *o->aggr == 's' ? NSM_SAGE_SUM : !strcmp(o->aggr, "max") ? NSM_SAGE_MAX : NSM_SAGE_MEAN;
}

static int unknown(nsm_ctx *ctx, const char *source)
{
    nearest n = { 0 };
    for (const recipe *r = recipes; r->name; r++) nearest_try(&n, source, r->name);
    return nsm_error_set(ctx, NSM_EINVAL,
                         "%s is neither a recipe nor a YAML file; the nearest recipe is \"%s\"",
                         source, n.name);
}

static int unknown_mixer(nsm_ctx *ctx, const char *name)
{
    nearest n = { 0 };
    for (const nsm_mixer_type *const *t = nsm_mixer_types(); *t; t++)
        nearest_try(&n, name, (*t)->name);
    return nsm_error_set(ctx, NSM_EINVAL, "mixer=%s is not known; the nearest is \"%s\"", name,
                         n.name);
}

static int apply_recipe(nsm_ctx *ctx, const recipe *r, train_options *options)
{
    int code = settings_parse(ctx, train_fields, options, r->yaml, strlen(r->yaml), r->name, false);
    return code ? code : settings_set(ctx, train_fields, options, "recipe", r->name, "the recipe");
}

/* The mixer's own keys go into its options (the last one given counts), all others are settings. */
static int all_pairs(nsm_ctx *ctx, train_options *options, int pairs, char *const *pair)
{
    for (int i = 0; i < pairs; i++)
        if (!strncmp(pair[i], "mixer=", 6))
            settings_set(ctx, train_fields, options, "mixer", pair[i] + 6, "command line");
    const nsm_mixer_type *type = *options->mixer ? nsm_mixer_find(options->mixer) : NULL;
    if (*options->mixer && !type) return unknown_mixer(ctx, options->mixer);
    for (int i = 0; i < pairs && !nsm_error(ctx); i++) {
        char key[64], text[4096];
        size_t n = strcspn(pair[i], "=");
        bool own = false;
        snprintf(key, sizeof key, "%.*s", (int)n, pair[i]);
        for (const nsm_mixer_key *k = type ? type->keys : NULL; k && k->name; k++)
            own |= !strcmp(k->name, key);
        if (!own) {
            settings_pairs(ctx, train_fields, options, 1, pair + i);
            continue;
        }
        if (nsm_mixer_check(ctx, type, key, pair[i] + n + (pair[i][n] == '='))) break;
        snprintf(text, sizeof text, "%s%s%s", options->mixer_options,
                 *options->mixer_options ? " " : "", pair[i]);
        settings_set(ctx, train_fields, options, "mixer_options", text, "command line");
    }
    return nsm_error(ctx);
}

int recipe_settings(nsm_ctx *ctx, const char *source, int pairs, char *const *pair,
                    train_options *options)
{
    const recipe *r = recipe_find(source);
    size_t n = strlen(source);
    bool file = n > 5 &&
                (!strcmp(source + n - 5, ".yaml") || (n > 4 && !strcmp(source + n - 4, ".yml")));
    if (!r && !file) return unknown(ctx, source);
    if (settings_init(ctx, train_fields, options)) return nsm_error(ctx);
    if (file) {
        /* twice: once to learn which recipe it begins from, then over that recipe */
        if (settings_read(ctx, train_fields, options, source)) return nsm_error(ctx);
        if (*options->recipe && !(r = recipe_find(options->recipe)))
            return unknown(ctx, options->recipe);
        settings_clear(train_fields, options);
        if (settings_init(ctx, train_fields, options)) return nsm_error(ctx);
    }
    if (r && apply_recipe(ctx, r, options)) return nsm_error(ctx);
    if (file && settings_read(ctx, train_fields, options, source)) return nsm_error(ctx);
    return all_pairs(ctx, options, pairs, pair);
}
