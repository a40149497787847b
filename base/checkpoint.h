/* base/checkpoint.h - Checkpoints: everything a run needs to go on, bit for bit, in one sealed
 * file.
 *
 * A file of kind "checkpoint", version 1, inside:
 *
 *   weights/<dotted name>              every tensor and buffer of the module
 *   optimizer                          attributes kind, steps; counts [trained tensors]
 *   optimizer/state/<dotted name>.<state>
 *   ema/<dotted name>                  averages of the trained tensors
 *   random                             attributes seed, offset
 *   run                                the caller's own: numbers and short words are attributes,
 *                                      texts and arrays stand as arrays, by their names
 *
 * No path, host, time, duration or thread count is in it: equal runs give equal bytes.  It is
 * written beside its place and renamed, so a killed program leaves the old file or the new one. */
#ifndef NSM_CHECKPOINT_H
#define NSM_CHECKPOINT_H
#include "base/module.h"
#include "base/optimizer.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    NSM_FIELD_INT,    /* value: int64_t * */
    NSM_FIELD_DOUBLE, /* double *; NaN and infinities are kept */
    /* char **, of malloc() or NULL (saved as ""); loading frees and replaces it */
    NSM_FIELD_TEXT,
    NSM_FIELD_INTS,   /* int64_t **, count of them; likewise */
    NSM_FIELD_FLOATS  /* float **, count of them; likewise */
} nsm_field_type;

/* Something of the caller's.  One table serves saving and loading. */
typedef struct {
    const char *name; /* of letters, digits and . _ - only */
    nsm_field_type type;
    void *value;
    int64_t *count;   /* of INTS and FLOATS */
    bool optional;    /* loading: keep the value where the file has none (error) */
} nsm_field;

/* What to save, or to fill.  NULL: not saved; loading: not looked at. */
typedef struct {
    nsm_module *module;
    nsm_optimizer *optimizer;
    nsm_ema *ema;
    nsm_random *random;
    const nsm_field *field;
    int fields;
} nsm_checkpoint;

/* Errors: NSM_EIO; NSM_EINVAL averages are swapped in, gradients are accumulated but not yet
 * applied, a name is not allowed; NSM_ENOMEM. */
int nsm_checkpoint_save(nsm_ctx *ctx, const char *path, const nsm_checkpoint *contents);

/* Fill contents from a file, all of it or, on error, nothing.
 * Errors: NSM_EIO, NSM_ENOMEM; NSM_EFORMAT the file is damaged or not a checkpoint; something is
 * missing, is there without a place in the module, or is not of the wanted type or shape, by
 * name. */
int nsm_checkpoint_load(nsm_ctx *ctx, const char *path, const nsm_checkpoint *contents);

/* ---- the checkpoints of a run: <folder>/checkpoint-<step>.h5 ---- */
/* Save, then remove all but the newest `keep` (0: 2, the least there may be) and those of later
 * steps, which a run that was begun anew or from further back has left behind. */
int nsm_checkpoint_rotate(nsm_ctx *ctx, const char *folder, int64_t step, int keep,
                          const nsm_checkpoint *contents);

/* The path, to be freed, of the newest whole checkpoint, damaged ones passed over; NULL without an
 * error if there are none at all.  step may be NULL.  Errors: NSM_EFORMAT all are damaged;
 * NSM_EIO. */
char *nsm_checkpoint_newest(nsm_ctx *ctx, const char *folder, int64_t *step);

#ifdef __cplusplus
}
#endif
#endif
