/* link.h - Link prediction: a knowledge graph and settings become embeddings, a decoder
 * (graph/link.h) and a task.
 *
 * Every training triple is asked from both ends: (h, r, ?), and (t, r inverse, ?) with relations of
 * their own, by cross entropy over all entities (1-vs-all: Lacroix, Usunier and Obozinski, ICML
 * 2018, arXiv:1806.07297) or, with negatives, over the answer and so many entities drawn for the
 * batch.  With encoder=rgcn the entities' embeddings go through relational convolutions over the
 * training edges first.  With encoder=fused an entity is what the fused model (fusion/fused.h)
 * reads of its text, its picture and its neighbours over the training edges, and a batch's answers
 * are told from each other (link_fused.c).
 *
 * Scores are filtered (Bordes et al., NIPS 2013): other answers that any part knows to be right do
 * not compete.  Ties count as their mean rank. */
#ifndef TOOLS_LINK_H
#define TOOLS_LINK_H
#include <nsm.h>
#include <string.h>
#include "tools/recipe.h"
#include "tools/report.h"
#include "tools/trainer.h"

typedef struct link_task link_task;

/* Do these settings speak of link prediction? */
static inline bool link_wanted(const train_options *o) { return strcmp(o->decoder, "none") != 0; }

/* trained: what the checkpoint says of the model; NULL: a new one.  The dataset and the options
 * must outlive the task.  NULL with the error in ctx. */
link_task *link_task_new(nsm_ctx *ctx, const train_options *options, const nsm_dataset *ds,
                         const trainer_meta *trained);
void link_task_free(link_task *l); /* NULL is allowed */
task *link_task_base(link_task *l);
/* Hits@1, 3 and 10 of validation and test as evaluate() last found them, into a result. */
void link_task_details(const link_task *l, json_t *o);
/* The k best entities of each test question, other right answers left out: links asked 2i for the
 * tail, 2i + 1 for the head of the test part's link i. */
typedef struct {
    int64_t questions, k;
    double *rank;    /* [questions] of the right answer */
    int32_t *entity; /* [questions, k] the best first */
    float *score;    /* [questions, k] */
} link_best;
/* k at most the entities; b is zero before, and to be cleared in any case.  Errors: NSM_EINVAL no
 * test links. */
int link_task_best(link_task *l, int64_t k, link_best *b);
void link_best_clear(link_best *b);
/* triples a second of training; NaN: none was */
double link_task_rate(const link_task *l);

#endif
