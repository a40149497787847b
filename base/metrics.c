/* base/metrics.c - Scores of predictions.
 *
 * Curves are walked over the samples sorted by falling score, a run of equal scores at a time; the
 * area is a sum of trapezoids, average precision a sum of steps (no interpolation), so both are
 * what scikit-learn computes.  Sorting is O(n log n), the rest one pass. */
#include "config.h"
#include "base/internal.h"
#include "base/metrics.h"

static int some(nsm_ctx *ctx, const char *who, int64_t n)
{
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    return n > 0 ? NSM_OK : nsm_error_set(ctx, NSM_EINVAL, "%s: there is nothing to score", who);
}

static int in_range(nsm_ctx *ctx, const char *who, const char *what, int64_t n, const int32_t *x,
                    int64_t classes)
{
    for (int64_t i = 0; i < n; i++)
        if (x[i] < 0 || x[i] >= classes)
            return nsm_error_set(ctx, NSM_EINVAL, "%s: %s %lld is %d, want 0..%lld", who, what,
                                 (long long)i, x[i], (long long)classes - 1);
    return NSM_OK;
}

static int all_finite(nsm_ctx *ctx, const char *who, const char *what, int64_t n, const float *x)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return nsm_error_set(ctx, NSM_ENUMBER, "%s: %s %lld is %g", who, what, (long long)i,
                                 (double)x[i]);
    return NSM_OK;
}

/* ---- classes ---- */

double nsm_accuracy(nsm_ctx *ctx, int64_t n, const int32_t *truth, const int32_t *guess)
{
    int64_t right = 0;
    if (some(ctx, "nsm_accuracy", n)) return NAN;
    for (int64_t i = 0; i < n; i++) right += truth[i] == guess[i];
    return (double)right / (double)n;
}

int nsm_confusion(nsm_ctx *ctx, int64_t n, const int32_t *truth, const int32_t *guess, int classes,
                  int64_t *matrix)
{
    if (some(ctx, "nsm_confusion", n) ||
        in_range(ctx, "nsm_confusion", "truth", n, truth, classes) ||
        in_range(ctx, "nsm_confusion", "guess", n, guess, classes))
        return nsm_error(ctx);
    memset(matrix, 0, (size_t)classes * (size_t)classes * sizeof *matrix);
    for (int64_t i = 0; i < n; i++) matrix[(int64_t)truth[i] * classes + guess[i]]++;
    return NSM_OK;
}

/* Of a class or label: hits, how often it is true, how often it is guessed. */
typedef struct { int64_t hit, truth, guess; } tally;

static double ratio(double a, double b) { return b > 0 ? a / b : 0; }
static double f1_of(tally t) { return ratio(2 * (double)t.hit, (double)(t.truth + t.guess)); }

int nsm_score_classes(nsm_ctx *ctx, int classes, const int64_t *matrix, nsm_class_scores out)
{
    if (some(ctx, "nsm_score_classes", classes)) return nsm_error(ctx);
    for (int c = 0; c < classes; c++) {
        tally t = { .hit = matrix[(int64_t)c * classes + c] };
        for (int k = 0; k < classes; k++) {
            t.truth += matrix[(int64_t)c * classes + k];
            t.guess += matrix[(int64_t)k * classes + c];
        }
        if (out.precision) out.precision[c] = ratio((double)t.hit, (double)t.guess);
        if (out.recall) out.recall[c] = ratio((double)t.hit, (double)t.truth);
        if (out.f1) out.f1[c] = f1_of(t);
        if (out.support) out.support[c] = t.truth;
    }
    return NSM_OK;
}

/* all: classes that occur nowhere count too, as 0. */
static double average_f1(nsm_average average, int classes, const tally *t, bool all)
{
    tally sum = { 0 };
    double f1 = 0, weighted = 0;
    int64_t present = 0;
    for (int c = 0; c < classes; c++) {
        sum.hit += t[c].hit;
        sum.truth += t[c].truth;
        sum.guess += t[c].guess;
        present += all || t[c].truth + t[c].guess > 0;
        f1 += f1_of(t[c]);
        weighted += f1_of(t[c]) * (double)t[c].truth;
    }
    if (average == NSM_AVERAGE_MICRO) return f1_of(sum);
    return average == NSM_AVERAGE_WEIGHTED ? ratio(weighted, (double)sum.truth)
                                           : ratio(f1, (double)present);
}

double nsm_f1(nsm_ctx *ctx, nsm_average average, int64_t n, const int32_t *truth,
              const int32_t *guess, int classes)
{
    if (some(ctx, "nsm_f1", n) || in_range(ctx, "nsm_f1", "truth", n, truth, classes) ||
        in_range(ctx, "nsm_f1", "guess", n, guess, classes))
        return NAN;
    tally *t = nsmi_calloc(ctx, (size_t)classes, sizeof *t);
    if (!t) return NAN;
    for (int64_t i = 0; i < n; i++) {
        t[truth[i]].truth++;
        t[guess[i]].guess++;
        t[truth[i]].hit += truth[i] == guess[i];
    }
    double f1 = average_f1(average, classes, t, false);
    free(t);
    return f1;
}

double nsm_f1_labels(nsm_ctx *ctx, nsm_average average, int64_t n, int classes,
                     const uint8_t *truth, const uint8_t *guess)
{
    if (some(ctx, "nsm_f1_labels", n) || some(ctx, "nsm_f1_labels", classes)) return NAN;
    tally *t = nsmi_calloc(ctx, (size_t)classes, sizeof *t);
    if (!t) return NAN;
    for (int64_t i = 0; i < n; i++)
        for (int c = 0; c < classes; c++) {
            bool is = truth[i * classes + c], says = guess[i * classes + c];
            t[c].truth += is;
            t[c].guess += says;
            t[c].hit += is && says;
        }
    double f1 = average_f1(average, classes, t, true);
    free(t);
    return f1;
}

/* ---- scores ---- */

typedef struct { float score; bool positive; } scored;

static int falling(const void *a, const void *b)
{
    float x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return (x < y) - (x > y);
}

/* The sums over a sorted curve; nonzero area is in units of positives x negatives. */
typedef struct { int64_t positives, negatives; double area, precision; } curve;

static curve walk_curve(int64_t n, scored *s)
{
    curve c = { 0 };
    int64_t hits = 0, misses = 0;
    qsort(s, (size_t)n, sizeof *s, falling);
    for (int64_t i = 0; i < n;) {
        int64_t new_hits = 0, new_misses = 0;
        float level = s[i].score;
        for (; i < n && s[i].score == level; i++) {
            new_hits += s[i].positive;
            new_misses += !s[i].positive;
        }
        c.area += (double)new_misses * ((double)hits + (double)new_hits / 2);
        hits += new_hits;
        misses += new_misses;
        c.precision += (double)new_hits * (double)hits / (double)(hits + misses);
    }
    c.positives = hits;
    c.negatives = misses;
    return c;
}

static int one_class(nsm_ctx *ctx, const char *who, const curve *c)
{
    return nsm_error_set(
        ctx, NSM_EINVAL,
        "%s: only one class is present (%lld positives, %lld negatives): the score is not defined",
        who, (long long)c->positives, (long long)c->negatives);
}

static double area_of(const curve *c)
{ return c->area / ((double)c->positives * (double)c->negatives); }

/* The curve of truth and score as they are; false on error. */
static bool curve_of(nsm_ctx *ctx, const char *who, int64_t n, const uint8_t *truth,
                     const float *score, curve *c)
{
    if (some(ctx, who, n) || all_finite(ctx, who, "score", n, score)) return false;
    scored *s = nsmi_malloc(ctx, (size_t)n * sizeof *s);
    if (!s) return false;
    for (int64_t i = 0; i < n; i++) s[i] = (scored){ score[i], truth[i] != 0 };
    *c = walk_curve(n, s);
    free(s);
    if (!c->positives || !c->negatives) one_class(ctx, who, c);
    return !nsmi_failed(ctx);
}

double nsm_roc_auc(nsm_ctx *ctx, int64_t n, const uint8_t *truth, const float *score)
{
    curve c;
    return curve_of(ctx, "nsm_roc_auc", n, truth, score, &c) ? area_of(&c) : NAN;
}

double nsm_average_precision(nsm_ctx *ctx, int64_t n, const uint8_t *truth, const float *score)
{
    curve c;
    return curve_of(ctx, "nsm_average_precision", n, truth, score, &c)
               ? c.precision / (double)c.positives
               : NAN;
}

double nsm_roc_auc_classes(nsm_ctx *ctx, int64_t n, int classes, const int32_t *truth,
                           const float *score)
{
    const char *who = "nsm_roc_auc_classes";
    double sum = 0;
    if (some(ctx, who, n) || some(ctx, who, classes) ||
        in_range(ctx, who, "truth", n, truth, classes) ||
        all_finite(ctx, who, "score", n * classes, score))
        return NAN;
    scored *s = nsmi_malloc(ctx, (size_t)n * sizeof *s);
    if (!s) return NAN;
    for (int k = 0; k < classes && !nsmi_failed(ctx); k++) {
        for (int64_t i = 0; i < n; i++) s[i] = (scored){ score[i * classes + k], truth[i] == k };
        curve c = walk_curve(n, s);
        if (!c.positives || !c.negatives)
            nsm_error_set(ctx, NSM_EINVAL, "%s: %s is of class %d: the score is not defined", who,
                          c.positives ? "every sample" : "no sample", k);
        else sum += area_of(&c);
    }
    free(s);
    return nsmi_failed(ctx) ? NAN : sum / classes;
}

double nsm_roc_auc_labels(nsm_ctx *ctx, int64_t n, int classes, const uint8_t *truth,
                          const float *score, bool skip)
{
    const char *who = "nsm_roc_auc_labels";
    double sum = 0;
    int counted = 0;
    if (some(ctx, who, n) || some(ctx, who, classes) ||
        all_finite(ctx, who, "score", n * classes, score))
        return NAN;
    scored *s = nsmi_malloc(ctx, (size_t)n * sizeof *s);
    if (!s) return NAN;
    for (int k = 0; k < classes && !nsmi_failed(ctx); k++) {
        for (int64_t i = 0; i < n; i++)
            s[i] = (scored){ score[i * classes + k], truth[i * classes + k] != 0 };
        curve c = walk_curve(n, s);
        bool defined = c.positives && c.negatives;
        if (!defined && !skip)
            nsm_error_set(ctx, NSM_EINVAL,
                          "%s: label %d has one outcome only: the score is not defined", who, k);
        if (defined) sum += area_of(&c);
        counted += defined;
    }
    free(s);
    if (!counted)
        nsm_error_set(ctx, NSM_EINVAL, "%s: no label has both outcomes: the score is not defined",
                      who);
    return nsmi_failed(ctx) ? NAN : sum / counted;
}

/* ---- ranks ---- */

int nsm_ranks(nsm_ctx *ctx, nsm_ties ties, int64_t n, int64_t candidates, const float *score,
              const int32_t *truth, double *rank)
{
    if (some(ctx, "nsm_ranks", n) || some(ctx, "nsm_ranks", candidates) ||
        in_range(ctx, "nsm_ranks", "truth", n, truth, candidates) ||
        all_finite(ctx, "nsm_ranks", "score", n * candidates, score))
        return nsm_error(ctx);
    for (int64_t i = 0; i < n; i++) {
        const float *row = score + i * candidates;
        int64_t above = 0, equal = -1;
        for (int64_t k = 0; k < candidates; k++) {
            above += row[k] > row[truth[i]];
            equal += row[k] == row[truth[i]];
        }
        rank[i] = 1 + (double)above + (ties == NSM_TIES_MEAN ? (double)equal / 2 : (double)equal);
    }
    return NSM_OK;
}

static int ranks_ok(nsm_ctx *ctx, const char *who, int64_t n, const double *rank)
{
    if (some(ctx, who, n)) return nsm_error(ctx);
    for (int64_t i = 0; i < n; i++)
        if (!(rank[i] >= 1))
            return nsm_error_set(ctx, NSM_ENUMBER, "%s: rank %lld is %g", who, (long long)i,
                                 rank[i]);
    return NSM_OK;
}

double nsm_mrr(nsm_ctx *ctx, int64_t n, const double *rank)
{
    double sum = 0;
    if (ranks_ok(ctx, "nsm_mrr", n, rank)) return NAN;
    for (int64_t i = 0; i < n; i++) sum += 1 / rank[i];
    return sum / (double)n;
}

double nsm_hits(nsm_ctx *ctx, int64_t n, const double *rank, int64_t k)
{
    int64_t hits = 0;
    if (ranks_ok(ctx, "nsm_hits", n, rank)) return NAN;
    for (int64_t i = 0; i < n; i++) hits += rank[i] <= (double)k;
    return (double)hits / (double)n;
}

/* ---- numbers ---- */

static bool numbers_ok(nsm_ctx *ctx, const char *who, int64_t n, const float *truth,
                       const float *guess)
{
    return !some(ctx, who, n) && !all_finite(ctx, who, "truth", n, truth) &&
           !all_finite(ctx, who, "guess", n, guess);
}

double nsm_mae(nsm_ctx *ctx, int64_t n, const float *truth, const float *guess)
{
    double sum = 0;
    if (!numbers_ok(ctx, "nsm_mae", n, truth, guess)) return NAN;
    for (int64_t i = 0; i < n; i++) sum += fabs((double)truth[i] - (double)guess[i]);
    return sum / (double)n;
}

double nsm_rmse(nsm_ctx *ctx, int64_t n, const float *truth, const float *guess)
{
    double sum = 0;
    if (!numbers_ok(ctx, "nsm_rmse", n, truth, guess)) return NAN;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)truth[i] - (double)guess[i];
        sum += d * d;
    }
    return sqrt(sum / (double)n);
}
