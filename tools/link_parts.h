/* link_parts.h - What the files of link prediction share.
 *
 *   link.c        questions, embeddings and convolutions, training, scores
 *   link_fused.c  entities as the fused model reads them */
#ifndef TOOLS_LINK_PARTS_H
#define TOOLS_LINK_PARTS_H
#include "base/internal.h"
#include "kernels/philox.h"
#include "tools/link.h"
#include "tools/node.h"

/* A question: which entity stands behind `relation` (inverse ones count from R) of `from`? */
typedef struct {
    int32_t from, relation, answer;
} link_question;

/* Questions in order; those of one kind, the same `from` and `relation`, stand side by side. */
typedef struct {
    link_question *q;
    int64_t count;
} link_known;

enum { LINK_HITS = 3 };
typedef struct link_fused link_fused;

struct link_task {
    task base;
    nsm_ctx *ctx;
    const train_options *options;
    const nsm_dataset *ds;
    int64_t entities, relations, width; /* n, 2R, D */
    nsm_link_kind kind;
    nsm_module module;
    nsm_tensor *entity, *relation; /* [n, D], or NULL with a fused model alone; [2R, D] */
    nsm_gnn *encoder;              /* or NULL */
    nsm_graph *graph;              /* of the training edges, for the encoder */
    link_fused *fused;             /* or NULL */
    nsm_tape *tape;
    link_question *part[NSM_SPLIT_PARTS]; /* [2 links], both ways */
    int64_t count[NSM_SPLIT_PARTS];
    link_known known, learned; /* of all parts; of the training part */
    int32_t *order;  /* [count of train] of the running epoch */
    int32_t *column; /* [3 rows] a batch's from, relation, answer */
    float *score;    /* [rows looked at, n] */
    double *rank;    /* [most questions of a part] */
    double hits[NSM_SPLIT_PARTS][LINK_HITS];
    uint8_t *met;    /* [n] 1: some training triple names it */
    double unmet;    /* MRR of the test questions of which an end is not met; NaN: there are none */
    int64_t unmet_asked;
    link_best *best; /* what an evaluation of the test part leaves; NULL: nothing */
    int64_t trained;
    double seconds;
};

/* The order of questions, for qsort() and bsearch(). */
int link_compare(const void *x, const void *y);
/* The first question of known that is of this kind, or where it would stand. */
int64_t link_first_known(const link_known *known, link_question q);
/* Entities to tell the answers from, drawn by the seed and the step. */
void link_draw(const link_task *l, int64_t step, int64_t count, int32_t *node);

/* ---- link_fused.c ---- */
/* Errors: NSM_EINVAL what the settings ask for is not there. */
link_fused *link_fused_new(link_task *l);
void link_fused_free(link_fused *f); /* NULL is allowed */
nsm_module *link_fused_module(link_fused *f);
/* The entities of a batch, E: both ends of its questions, and `negatives` drawn ones.  place[e] is
 * then the row of entity e, until link_fused_end().  -> embeddings [E, D] on l->tape, rows of
 * length 1, or NULL. */
nsm_tensor *link_fused_batch(link_task *l, int64_t rows, const link_question *q,
                             const int32_t *order, int64_t step);
const int32_t *link_fused_place(const link_fused *f);
/* [rows, E] to add to the scores: other right answers that training knows do not compete. */
nsm_tensor *link_fused_mask(link_task *l, int64_t rows, const link_question *q,
                            const int32_t *order);
void link_fused_end(link_task *l); /* resets l->tape */
/* Queries [B, D] to those of scores: rows of length 1, times the temperature's inverse. */
nsm_tensor *link_fused_sharpen(link_task *l, nsm_tensor *query);
/* Every entity's embedding [n, D], made anew; it lives until the next call.  NULL: an error, or
 * none where a signal asked to stop. */
nsm_tensor *link_fused_table(link_task *l);

#endif
