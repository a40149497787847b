/* sequence_parts.h - Inside a sequence task: what sequence.c drives, and what each kind of data has
 * of its own. */
#ifndef TOOLS_SEQUENCE_PARTS_H
#define TOOLS_SEQUENCE_PARTS_H
#include "base/replay.h"
#include "tools/sequence.h"

typedef struct sequence_kind sequence_kind;

/* One batch on the device. */
enum { SEQUENCE_PARTS = 4, SEQUENCE_SHAPES = 8 };
typedef struct {
    union {
        struct { nsm_tensor *input, *tokens, *target, *more; };
        nsm_tensor *part[SEQUENCE_PARTS];
    };
    int64_t rows, asked;
} sequence_batch;

struct sequence_task {
    task base;
    nsm_ctx *ctx;
    const train_options *options;
    const nsm_sequences *ds;       /* NULL: only the model is wanted */
    const sequence_kind *kind;
    nsm_backbone *model;           /* of kinds that are a backbone: tokens and classes */
    void *own;                     /* of the others: their kind's */
    nsm_state *carried;            /* what the next window takes up; NULL: it begins anew */
    nsm_tape *tape;
    nsm_replay *replay;            /* of training's passes, which read */
    sequence_batch *now;           /* this batch, */
    nsm_tensor *loss;              /* and leave their loss here */
    sequence_batch kept[SEQUENCE_SHAPES]; /* where batches to replay with stand, by shape */
    int64_t batch, length;         /* rows of a step, most tokens of a row */
    bool training;
    nsm_random draws;              /* of this step, for what a kind adds to its rows */
    int32_t *id, *target, *tokens; /* host: a batch's rows as the kind lays them out, [batch,
                                      length]; tokens [batch] */
    int32_t *group;                /* [batch] of each row; of groups where the data has them */
    char *symbols;
    char feed[48];                 /* options of what stands in place of the feed-forward */
    int64_t trained;               /* tokens */
    double seconds;
    struct {
        double right;
        int64_t asked;
    } * by_group;                  /* [groups] of the part that was looked at last */
    double second[3];              /* the kind's second score of each part */
};

/* What was looked at so far: sums of loss and score over what was asked. */
typedef struct { double loss, score, second; int64_t asked; } sequence_sums;

struct sequence_kind {
    const char *metric, *second; /* second: a score beside it, by its name in results; NULL: none */
    bool lower;                    /* a lower score is better */
    /* Tokens of a row, when the data is there or (trained) not. */
    int64_t (*length)(const sequence_task *s);
    int (*make)(sequence_task *s); /* the model, base.module, host room */
    void (*clear)(sequence_task *s);
    /* Rows or windows to draw from; to look at, one after the other (NULL: the same). */
    int64_t (*places)(const sequence_task *s, int part);
    int64_t (*windows)(const sequence_task *s, int part);
    void (*take)(sequence_task *s, int part, int64_t r,
                 int64_t place); /* into row r of the batch */
    void (*upload)(sequence_task *s, sequence_batch *b);
    nsm_tensor *(*output)(sequence_task *s, const sequence_batch *b);
    nsm_tensor *(*loss)(sequence_task *s, const sequence_batch *b, nsm_tensor *y, float smoothing);
    void (*look)(sequence_task *s, const sequence_batch *b, nsm_tensor *y, sequence_sums *sum);
    const char *(*fault)(sequence_task *s,
                         const sequence_batch *b); /* where numbers went wrong; NULL: not known */
};

extern const sequence_kind stream_kind, row_kind, bits_kind, qa_kind, forecast_kind;

/* Cross entropy of logits [targets, classes], and how many of them put the target first, also by
 * group. */
nsm_tensor *sequence_class_loss(sequence_task *s, const sequence_batch *b, nsm_tensor *y,
                                float smoothing);
void sequence_look_right(sequence_task *s, const sequence_batch *b, nsm_tensor *y,
                         sequence_sums *sum);

/* The settings of a backbone, all but its sizes: mixer, layers, feed-forward, norm, dropout. */
nsm_backbone_config sequence_backbone(sequence_task *s); /* points into s */
nsm_position sequence_position(const sequence_task *s);
int64_t sequence_longest(const sequence_task *s); /* row of the data */
bool sequence_room(sequence_task *s, void *pointer, int64_t count,
                   size_t bytes); /* *pointer = room; false: an error */

#endif
