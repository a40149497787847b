/* base/metrics.h - Scores of predictions: host arrays in, double arithmetic, scikit-learn's
 * numbers.
 *
 * What returns a double returns NaN on error.  Errors of all: NSM_EINVAL there is nothing to score,
 * a class is out of range, or the score is not defined (only one class is present; no positive);
 * NSM_ENUMBER a number is not finite, with its place; NSM_ENOMEM.
 * Letters: n samples, C classes; truth and guess hold classes 0 .. C-1. */
#ifndef NSM_METRICS_H
#define NSM_METRICS_H
#include "base/context.h"
#ifdef __cplusplus
extern "C" {
#endif

/* How the scores of classes become one. */
typedef enum {
    NSM_AVERAGE_MACRO,   /* their mean over the classes that are in truth or guess */
    NSM_AVERAGE_MICRO,   /* of the counts added up */
    NSM_AVERAGE_WEIGHTED /* their mean by how often they are in truth */
} nsm_average;

/* ---- classes ---- */
double nsm_accuracy(nsm_ctx *ctx, int64_t n, const int32_t *truth, const int32_t *guess);
/* matrix [C, C]: row truth, column guess. */
int nsm_confusion(nsm_ctx *ctx, int64_t n, const int32_t *truth, const int32_t *guess, int classes,
                  int64_t *matrix);
/* Scores of each class from such a matrix, [C] each; any may be NULL.  0 where they would be
 * 0/0. */
typedef struct { double *precision, *recall, *f1; int64_t *support; } nsm_class_scores;
int nsm_score_classes(nsm_ctx *ctx, int classes, const int64_t *matrix, nsm_class_scores out);
double nsm_f1(nsm_ctx *ctx, nsm_average average, int64_t n, const int32_t *truth,
              const int32_t *guess, int classes);
/* Several labels a sample: truth and guess [n, C], 0 or not.  Macro is over all C. */
double nsm_f1_labels(nsm_ctx *ctx, nsm_average average, int64_t n, int classes,
                     const uint8_t *truth, const uint8_t *guess);

/* ---- scores: higher is more likely; equal scores count as one threshold ---- */
/* Area under the receiver operating characteristic; truth is 0 or not. */
double nsm_roc_auc(nsm_ctx *ctx, int64_t n, const uint8_t *truth, const float *score);
/* The mean over classes of one against the rest; score [n, C].  Every class must be in truth. */
double nsm_roc_auc_classes(nsm_ctx *ctx, int64_t n, int classes, const int32_t *truth,
                           const float *score);
/* The mean over labels, truth [n, C]; with skip, over those with both outcomes (OGB's rule). */
double nsm_roc_auc_labels(nsm_ctx *ctx, int64_t n, int classes, const uint8_t *truth,
                          const float *score, bool skip);
/* Sum over thresholds of (recall - the one before) precision. */
double nsm_average_precision(nsm_ctx *ctx, int64_t n, const uint8_t *truth, const float *score);

/* ---- ranks ---- */
typedef enum {
    /* behind all its equals, so that a constant score earns nothing (label ranking's rule) */
    NSM_TIES_WORST,
    NSM_TIES_MEAN   /* in the middle of them (OGB's rule) */
} nsm_ties;
/* rank[i]: the place, from 1, of candidate truth[i] among score [n, candidates]. */
int nsm_ranks(nsm_ctx *ctx, nsm_ties ties, int64_t n, int64_t candidates, const float *score,
              const int32_t *truth, double *rank);
double nsm_mrr(nsm_ctx *ctx, int64_t n, const double *rank);             /* mean of 1 / rank */
double nsm_hits(nsm_ctx *ctx, int64_t n, const double *rank, int64_t k); /* share of rank <= k */

/* ---- numbers ---- */
double nsm_mae(nsm_ctx *ctx, int64_t n, const float *truth, const float *guess);
double nsm_rmse(nsm_ctx *ctx, int64_t n, const float *truth, const float *guess);

#ifdef __cplusplus
}
#endif
#endif
