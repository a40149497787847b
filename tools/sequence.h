/* sequence.h - Sequences: a dataset and settings become a model around a mixer, and a task.
 *
 * A stream is learned by windows of `context` tokens drawn at random, each token to be told from
 * those
 * before it: bits per token.  Rows with targets (recall, classes) by rows drawn at random:
 * accuracy. Series by windows drawn at random: squared error.  Each kind is a file, tools/task_*.c,
 * behind tools/sequence_parts.h. */
#ifndef TOOLS_SEQUENCE_H
#define TOOLS_SEQUENCE_H
#include <nsm.h>
#include "tools/recipe.h"
#include "tools/report.h"
#include "tools/trainer.h"

typedef struct sequence_task sequence_task;

/* Do these settings speak of a sequence model? */
static inline bool sequence_wanted(const train_options *o) { return *o->mixer != 0; }

/* ds NULL: only the model, for trained (decoding).  trained NULL: a new model, sized by the data.
 * The dataset and the options must outlive the task.  NULL with the error in ctx. */
sequence_task *sequence_task_new(nsm_ctx *ctx, const train_options *options,
                                 const nsm_sequences *ds, const trainer_meta *trained);
void sequence_task_free(sequence_task *s);
task *sequence_task_base(sequence_task *s);
nsm_backbone *sequence_task_model(sequence_task *s); /* NULL: it is none (forecasts, questions) */
/* What evaluate() found of the test part beside its score, into a result: the score of each group,
 * ... */
void sequence_task_details(const sequence_task *s, json_t *o);
/* nsm_mixer_set() in every layer; NULL: nothing */
int sequence_task_set(sequence_task *s, const char *keys);
/* tokens trained on in a second; NaN: none was */
double sequence_task_rate(const sequence_task *s);

/* The alphabet of a stream as one text, as checkpoints keep it (a tokenizer is kept as its JSON),
 * and back: an array to be freed as one of vocab strings; NULL: none, or an error in ctx. */
char *symbols_join(nsm_ctx *ctx, char *const *symbol, int64_t vocab);
char **symbols_split(nsm_ctx *ctx, const char *text, int64_t vocab);
void symbols_free(char **symbol, int64_t vocab);

#endif
