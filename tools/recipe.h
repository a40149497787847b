/* recipe.h - What a training run is told: its settings, and the recipes that fill them by name.
 *
 * A recipe is a table row: a name, what it is, and the settings that its paper gives, as YAML.  A
 * configuration file may begin from one ("recipe: gat"), and key=value overrides both. */
#ifndef TOOLS_RECIPE_H
#define TOOLS_RECIPE_H
#include "tools/settings.h"

typedef struct {
    char *recipe, *data, *split;
    /* the graph and its features */
    bool symmetric, row_normalize;
    /* the model */
    char *model, *activation, *norm, *aggr, *jump;
    int64_t hidden, layers, heads, out_heads;
    double dropout, attn_dropout;
    bool residual;
    /* relations: the types of edges */
    bool inverse;
    int64_t bases, blocks;
    /* links */
    char *decoder, *encoder;
    bool own;
    int64_t negatives;
    double penalty, spread;
    /* training */
    char *optimizer, *decay_only, *schedule, *keep;
    double lr, weight_decay, gamma, label_smoothing, clip, ema;
    int64_t epochs, warmup, step_size, patience, eval_every, seeds, checkpoint_every,
        checkpoint_steps, keep_last;
    /* sampled neighbours */
    int64_t batch_size, whole_mib, eval_nodes;
    setting_list fanouts;
    bool in_file;
    bool charts;
    /* sequences: a mixer's name makes it a sequence model */
    char *mixer, *mixer_options, *position, *ff, *pool;
    int64_t width, inner, context, segments, steps, eval_rows, lookback, horizon, patch, stride,
        sentences, words, hops;
    double noise;
    bool tied, rms_norm;
    /* things that several modalities tell of: a fuser's name makes it a fused model */
    char *fuser, *fuser_options, *modalities, *sides, *head, *text_mixer, *text_options, *picture,
        *stem_norm;
    int64_t filters, stem_layers;
    bool node_features, show_labels, reuse, whole;
} train_options;

extern const setting train_fields[];

typedef struct { const char *name, *summary, *yaml; } recipe;
extern const recipe recipes[]; /* NULL name last */
const recipe *recipe_find(const char *name);

nsm_sage_aggr recipe_aggr(const train_options *options); /* as `aggr` names it */

/* Fill options from defaults, then the recipe or YAML file that `source` names, then pairs.
 * Leaves the error in ctx: NSM_EINVAL, NSM_EIO. */
int recipe_settings(nsm_ctx *ctx, const char *source, int pairs, char *const *pair,
                    train_options *options);

#endif
