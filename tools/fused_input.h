/* fused_input.h - What the fused model takes of a dataset's things, laid out on a tape: what every
 * task that has such a model shares. */
#ifndef TOOLS_FUSED_INPUT_H
#define TOOLS_FUSED_INPUT_H
#include "fusion/fused.h"
#include "tools/fused_data.h"

enum { FUSED_GRAPH, FUSED_TEXT, FUSED_PICTURE, FUSED_MODALITIES };
extern const char *const fused_modality_name[FUSED_MODALITIES]; /* "graph", ... */
/* The modalities in a list, "text,graph" before end, a bit each; 0: one is none, or stands
 * twice. */
unsigned fused_modalities_of(const char *s, const char *end);
/* Those wanted, or where that is 0 those of `modalities`, or all that the target type has, a bit
 * each; 0: an error, as that the dataset has not what is asked for. */
unsigned fused_modalities(const train_options *options, const nsm_dataset *ds, unsigned wanted);
/* The encoder that `picture` names, into the model's configuration. */
void fused_picture_config(const train_options *options, const nsm_dataset *ds,
                          nsm_fused_config *config);

/* Zeroed room on a tape for host arrays, given back with its step. */
void *fused_room(nsm_tape *tape, int64_t rows, int64_t cols, size_t bytes);
/* A host array as a tensor [rows, cols], or [rows] with cols 0; x NULL: NULL. */
nsm_tensor *fused_upload(nsm_tape *tape, nsm_type type, int64_t rows, int64_t cols, const void *x);

/* What is taken away from what the model sees: 1 for an element of thing i that is gone, from
 * row + i * stride on; row NULL: nothing is. */
typedef struct {
    const uint8_t *row;
    int64_t stride;
} fused_gone;
/* Close the gaps in thing i's `count` elements in both arrays (b may be NULL), of which the first
 * ones stay; how many are left. */
int32_t fused_close_gaps(fused_gone gone, int64_t i, int32_t count, int first, int32_t *a,
                         int32_t *b);

/* Words, at most `limit` of a thing, and pictures of n things, which are numbers within their type,
 * into what the model takes; how many places of each thing. */
int64_t fused_take_words(nsm_tape *tape, const nsm_dataset_text *t, int64_t limit, int64_t n,
                         const int32_t *thing, fused_gone gone, nsm_fused_input *in);
int64_t fused_take_pictures(nsm_tape *tape, const nsm_fused *model, const nsm_dataset_images *p,
                            int64_t n, const int32_t *thing, fused_gone gone, nsm_fused_input *in);

#endif
