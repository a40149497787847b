/* model.h - A trained model read back: a checkpoint, its settings, a dataset and the weights in
 * place. Shared by eval, predict, export and info. */
#ifndef TOOLS_MODEL_H
#define TOOLS_MODEL_H
#include "datasets/dataset.h"
#include "tools/fused.h"
#include "tools/link.h"
#include "tools/node.h"
#include "tools/tool.h"

typedef struct {
    char *path;            /* of the checkpoint itself */
    trainer_meta meta;
    train_options options;
    nsm_dataset *ds;       /* NULL after model_read() */
    node_task *task;
    fused_task *fused;     /* in its place where several modalities are fused, */
    link_task *link;       /* or where links are predicted */
} model;

/* Read settings and scores.  `from` is a checkpoint, or a run's folder: its best.h5, else its
 * newest checkpoint.  False: the error is in the context.  Close m in any case. */
bool model_read(tool *t, const char *from, model *m);
/* The same with the dataset (--data, else the one that was trained on), and the weights.  --split
 * names another split than the one trained with. */
bool model_open(tool *t, const char *from, model *m);
/* Is the open model one of nodes?  Else an error says that `what` is for these. */
bool model_of_nodes(tool *t, const model *m, const char *what);
void model_close(model *m);

/* The weights as they stand in the checkpoint. */
typedef struct {
    int64_t count, parameters;
    struct model_weight {
        char *name;
        int type, rank;
        int64_t dim[NSM_MAX_RANK];
        void *data;
    } * weight;
} model_weights;
bool model_weights_read(nsm_ctx *ctx, const char *path, bool with_data, model_weights *w);
void model_weights_clear(model_weights *w);

/* The options of commands that open a model: rows for their tables. */
#define MODEL_OPTIONS                                                                  \
    {"data", 'd', "FILE", "the dataset (the one that the model was trained on)"},      \
    {"split", 0, "NAME", "the split of the dataset (the one that was trained with)"}

#endif
