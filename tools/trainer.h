/* trainer.h - The loop around a training task: epochs, evaluation, the rule that keeps and stops,
 * checkpoints and resume, the log.  A task knows its data and model; it never sees a file. */
#ifndef TOOLS_TRAINER_H
#define TOOLS_TRAINER_H
#include "tools/recipe.h"
#include "tools/run.h"
#include "tools/tool.h"

typedef struct { double loss, score; } part_score; /* NaN where a part is empty */

/* What is done of an epoch: steps, the rows (labelled things) they went over, the sum of the rows'
 * losses. */
typedef struct { int64_t steps, rows; double loss; } epoch_place;

enum { TASK_NOTES = 4 };
enum { TASK_PAUSED = 1 }; /* no error: a step or a signal asked to stop before the end */

typedef struct task task;
struct task {
    nsm_ctx *ctx;
    nsm_module *module;
    const char *metric;       /* "accuracy" */
    bool lower;               /* a lower score is better */
    int64_t steps_per_epoch;
    /* steps that are not to be parted by a stop or a checkpoint (0, 1: none) */
    int64_t together;
    /* What the model has from the data: sizes, and the kind of labels (nsm_label_kind).  Kept in
     * checkpoints. */
    int64_t inputs, outputs, labels;
    char *symbols;            /* of tokens, or a tokenizer (tools/sequence.h), or NULL; kept too */
    /* An epoch of training, from *at on: *at moves before step(user), which is called after every
     * backward pass; what step returns other than NSM_OK ends it and is returned. */
    int (*epoch)(task *t, int64_t epoch, epoch_place *at, int (*step)(void *user), void *user);
    int (*evaluate)(task *t, part_score part[3]); /* train, valid, test; it may be paused */
    /* What an evaluation notes beside the scores, for the log (none): so many numbers. */
    int notes;
    const char *note_name[TASK_NOTES];
    double note[TASK_NOTES];
};

/* Where a run stands; all of it is in the checkpoint. */
typedef struct {
    int64_t epoch;              /* epochs done */
    epoch_place at;             /* and what of the next one */
    double best_score, best_loss; /* of validation, so far */
    int64_t wait;               /* epochs since either was matched */
    int64_t kept_epoch;         /* 0: none yet */
    int64_t stopped;            /* by patience */
    double loss;
    double now[3], kept[3];     /* scores: train, valid, test */
    double now_loss[3], kept_loss[3];
} trainer_state;

typedef struct {
    trainer_state state;
    double seconds, epoch_ms;   /* of this process: training alone, evaluation left out */
    double all_seconds;         /* with those of the processes that it was taken up from */
    char *checkpoint;           /* the final state, to be freed */
    bool interrupted;
} trainer_result;

/* Train it in folder as options say, from the newest checkpoint there with resume. */
int trainer_run(const tool *t, task *what, const train_options *options, const char *folder,
                bool resume, trainer_result *result);

/* The checkpoint's contents beside the weights: for saving, and for reading back in eval, predict,
 * info. */
typedef struct {
    char *config;               /* every setting, as YAML */
    int64_t inputs, outputs, labels;
    char *symbols;              /* "" where the model has none */
    trainer_state state;
} trainer_meta;
/* without a module */
int trainer_read(nsm_ctx *ctx, const char *path, trainer_meta *meta);
/* the weights to evaluate with */
int trainer_load(nsm_ctx *ctx, const char *path, nsm_module *module);
void trainer_meta_clear(trainer_meta *meta);

#endif
