/* fused_look.h - What a fused model did with single things, on the host: to be shown. */
#ifndef TOOLS_FUSED_LOOK_H
#define TOOLS_FUSED_LOOK_H
#include "tools/fused_parts.h"

typedef struct {
    int modality;        /* FUSED_GRAPH, ... */
    int32_t id;          /* a node of all types, a word of the vocabulary, a cell of the grid */
    int32_t relation;    /* of a node: how it is joined to the thing; data.relations: it is it */
    int32_t opened;      /* the state that it opened, -1: none */
    float flow;          /* how much the answer took of it */
} fused_element;

/* One answer.  Letters as in fusion/fuser.h; without weights flow is 0, without states s is. */
typedef struct {
    int64_t node;           /* of the target type */
    int64_t question;       /* its number in the dataset; -1: none was asked */
    int32_t word;           /* whose class was asked; -1: none */
    int32_t truth, best;    /* classes, or of a pointer elements; truth -1: not known */
    int64_t choices;        /* C, or the elements that it could point at */
    float *p;               /* [choices] */
    int64_t count;          /* elements that are there */
    fused_element *element; /* [count] */
    float *took;            /* [s, count] of what a state took, how much came from each */
    float *read, *mass;     /* [s] how much the answer took of each state, elements in it */
} fused_example;

/* States over many things. */
typedef struct {
    int states, learned;     /* s, and how many of them are there from the start */
    int64_t things;
    int64_t *open, *first;   /* [s] things in which it was open, in which it was read most */
    double *mass, *read;     /* [s] sums over the things */
    int64_t *by_open;        /* [s + 1] things with so many open states */
    double used;             /* sum of exp(entropy of what the answer read) */
} fused_usage;

bool fused_usage_make(nsm_ctx *ctx, const nsm_fuser *fuser, fused_usage *u);
void fused_usage_clear(fused_usage *u);
/* Add a batch that the fuser has just been watched at.  NSM_OK or the error. */
int fused_usage_add(fused_task *s, const fused_batch *f, fused_usage *u);
/* Means: open states of a thing, elements in an open one, states that an answer reads. */
void fused_usage_notes(const fused_usage *u, double note[3]);

typedef struct {
    int64_t count, things, right; /* examples; things looked at, right ones of them */
    fused_example *example;
    fused_usage usage;
} fused_view;

/* Look at these nodes of the target type in their order, what is known of their own class hidden;
 * the first so many right answers and so many wrong ones become examples.  Clear v in any case. */
int fused_task_look(fused_task *s, int64_t nodes, const int32_t *node, int64_t right,
                    int64_t wrong, fused_view *v);
void fused_view_clear(fused_view *v);

#endif
