/* node_parts.h - What the files of a node task share.
 *
 *   node.c        making and freeing, what others ask of it
 *   node_data.c   from the dataset to graph, features, labels and parts on the device
 *   node_train.c  the model, its loss, an epoch
 *   node_look.c   guesses, scores, predictions, edges
 *   node_trial.c  bytes and seconds of an epoch */
#ifndef TOOLS_NODE_PARTS_H
#define TOOLS_NODE_PARTS_H
#include "base/replay.h"
#include "tools/batches.h"
#include "tools/node.h"

struct node_task {
    task base;
    nsm_ctx *ctx;
    const train_options *options;
    nsm_dataset *ds;
    const nsm_dataset_nodes *nodes;
    const nsm_dataset_split *split;
    nsm_graph *graph;
    nsm_csr *feature_rows;
    nsm_tensor *x;                       /* [n, F] */
    nsm_tensor *label;                   /* int32 [n], or float32 [n, C] */
    nsm_tensor *part[NSM_SPLIT_PARTS];   /* [n]: 1 where a node is in the part */
    nsm_gnn *gnn;
    nsm_tape *tape;
    nsm_replay *replay;                  /* of passes over the whole graph, which */
    nsm_tensor *loss;                    /* leave their loss here */
    int32_t *guess;                      /* host [n] */
    float *scores;                       /* host [n, C] */
    int64_t outputs;
    bool sampled;                        /* trains on batches */
    /* the model is put to the whole graph at once to look at it */
    bool whole;
    batches batches;                     /* with sampled */
    nsm_sampler *sampler;                /* of the training nodes, from the first epoch on */
    int64_t sampled_edges;
    double sampled_seconds;
    node_list look[NSM_SPLIT_PARTS];     /* the nodes that evaluation looks at */
    int32_t *look_own[NSM_SPLIT_PARTS];  /* their lists, where they are not the split's */
    nsm_label_kind labels;               /* what the model tells; the data may have none */
};

extern const char *const node_label_name[]; /* of a nsm_label_kind */

/* ---- node_data.c ---- */
/* Graph, features, labels and parts; the device's part of it only where the whole graph goes
 * there. */
int node_make_data(node_task *n);
/* The nodes of each part that evaluation looks at: all, or eval_nodes of them, evenly drawn. */
int node_make_look(node_task *n);
/* The labels of these nodes, NULL: the first `count`, as the loss wants them; the caller frees
 * them. */
nsm_tensor *node_labels(node_task *n, int64_t count, const int32_t *node);

/* ---- node_train.c ---- */
int node_make_model(node_task *n);
nsm_tensor *node_loss(node_task *n, nsm_tensor *logits, int part);
nsm_tensor *node_batch_loss(node_task *n, nsm_tensor *logits, nsm_tensor *label, int part);
int node_epoch(task *base, int64_t number, epoch_place *at, int (*step)(void *user), void *user);
int node_epoch_sampled(task *base, int64_t number, epoch_place *at, int (*step)(void *user),
                       void *user);

/* ---- node_look.c ---- */
int node_evaluate(task *base, part_score part[3]);
int node_evaluate_sampled(task *base, part_score part[3]);

#endif
