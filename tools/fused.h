/* fused.h - The fused model on a dataset: nodes told by their neighbours, texts and pictures.
 *
 * A step takes so many nodes of the target type with some of what enters each (fanouts' first
 * number); the graph's encoder runs over the whole graph, or with `whole=false` over neighbours
 * that are sampled further (the other numbers, one a layer).  With `show_labels` the classes of
 * training nodes are shown to the encoder, never those that the step asks for; with `reuse` all
 * others show what the model last told of them, a training node what it was told to be while its
 * own class was hidden.  Labels of the test part are looked at for scores alone.
 *
 * With `head` a question is told the node that it is after, or each word its class.  Where labels
 * are of graphs, the things are these, their elements all of their nodes, and the encoder runs over
 * the graphs of a step.
 *
 * With `sides` nothing is told of a thing: one side of it, as its picture, is to be found by the
 * other, as its words (fusion/retrieval.h); the score is the mean reciprocal rank of both ways. */
#ifndef TOOLS_FUSED_H
#define TOOLS_FUSED_H
#include <nsm.h>
#include <string.h>
#include "tools/recipe.h"
#include "tools/report.h"
#include "tools/trainer.h"

typedef struct fused_task fused_task;

/* Do these settings speak of a fused model? */
static inline bool fused_wanted(const train_options *o) 
{
    return *o->fuser && !strcmp(o->decoder, "none"); /* else it encodes what links join */
}

/* trained NULL: a new model, sized by the data.  ds and options must outlive it.  NULL with the
 * error in ctx. */
fused_task *fused_task_new(nsm_ctx *ctx, const train_options *options, const nsm_dataset *ds,
                           const trainer_meta *trained);
void fused_task_free(fused_task *s);
task *fused_task_base(fused_task *s);
const nsm_dataset_split *fused_task_split(const fused_task *s);
/* Probabilities of each class of every target node, or graph [targets, C] on the host. */
int fused_task_predict(fused_task *s, float *out);
/* What the last evaluation found of the test part beside its score: that of each kind of question,
 * precision and recall of words, or how often the right side was among the first. */
void fused_task_details(const fused_task *s, json_t *o);
/* How the accuracy on so many things of the test part, drawn at random, changes without the k
 * elements of each that the fuser names, without k at random, with these alone, without each
 * modality, and without states.  What answers are of, as nodes that are pointed at, stays.  k 0:
 * only what needs no weights of the fuser's.  The caller owns it; NULL: an error. */
json_t *fused_task_explain(fused_task *s, int64_t k, int64_t things);
enum { FUSED_EXPLAINED = 2000 }; /* things that are enough */

#endif
