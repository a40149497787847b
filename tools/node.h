/* node.h - Node classification: a dataset and settings become a graph, features, a model and a
 * task.
 *
 * Full batch, or with batch_size sampled neighbours (GraphSAGE's way).  The same object serves
 * training, evaluation and prediction, on the graph that was trained on or on another one with the
 * same features (inductive).  Labels may be classes (cross entropy, accuracy), several at once
 * (binary cross entropy, ROC-AUC) or numbers (squared error, MAE). */
#ifndef TOOLS_NODE_H
#define TOOLS_NODE_H
#include <nsm.h>
#include "tools/recipe.h"
#include "tools/trainer.h"

typedef struct node_task node_task;

/* The dataset that options name, its features in the file where options say so. */
nsm_dataset *node_dataset(nsm_ctx *ctx, const train_options *options);

/* trained: what the checkpoint of the model says of it; NULL for a new one, which takes its sizes
 * and its labels' kind from the data.  The dataset and the options must outlive the task.  NULL
 * with the error in ctx. */
node_task *node_task_new(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds,
                         const trainer_meta *trained);
void node_task_free(node_task *n);
task *node_task_base(node_task *n);

/* Room for rows x columns values of so many bytes, to be freed; NULL with NSM_ENOMEM, also where
 * the product is no size. */
void *node_array(nsm_ctx *ctx, int64_t rows, int64_t columns, size_t bytes);

/* Scores of each class, node by node, to host memory [n, C]: probabilities, or values. */
int node_task_predict(node_task *n, float *out, int32_t *guess); /* guess: NULL, or as below */
/* The likeliest class of each node [n], of a part (what stands at other nodes means nothing) or,
 * with part -1, of all.  It is the task's, until the next look at the model; NULL: an error. */
const int32_t *node_task_guess(node_task *n, int part);
/* The nodes of a part that evaluation looks at: all of it, unless eval_nodes says otherwise. */
typedef struct { int64_t count; const int32_t *node; } node_list;
node_list node_task_part(const node_task *n, int part);
/* Is the model put to the whole graph to look at it?  Else it is put to sampled neighbours. */
bool node_task_whole(const node_task *n);
/* Edges sampled in a second of training so far; NaN: none was. */
double node_task_sampled_rate(const node_task *n);
int64_t node_task_nodes(const node_task *n);
const nsm_dataset_split *node_task_split(const node_task *n);
/* What training works on, owned by the task: graph, features [n, F] (dense or sparse), classes
 * int32 [n]. */
void node_task_data(const node_task *n, const nsm_graph **graph, nsm_tensor **x, nsm_tensor **y);
nsm_label_kind node_task_labels(const node_task *n); /* what the model was made to tell */

/* The edges that the first layer works on, with its attention where the model has it. */
typedef struct {
    int64_t count;
    int32_t *src, *dst;
    float *attention; /* [count], the mean of the heads; NULL: none */
} node_edges;
int node_task_edges(node_task *n, node_edges *e);
void node_edges_clear(node_edges *e);

/* Bytes and seconds of one epoch, measured on a trial (of a part of the graph where it is
 * large). */
typedef struct {
    int64_t parameters, peak_bytes;
    double epoch_seconds;
    double share;
} node_estimate;
int node_task_estimate(nsm_ctx *ctx, const train_options *options, nsm_dataset *ds,
                       node_estimate *out);

#endif
