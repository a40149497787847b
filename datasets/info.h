/* datasets/info.h - What a dataset holds, in numbers. */
#ifndef NSM_INFO_H
#define NSM_INFO_H
#include "datasets/dataset.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Of all edges between nodes of the target type taken together; directed edges as stored. */
typedef struct {
    int64_t nodes, edges;       /* of all types */
    int64_t self_loops;
    int64_t duplicates;         /* edges of one type that repeat an earlier (src, dst) */
    /* edges whose reverse does not stand in the same type (0: symmetric) */
    int64_t unpaired;
    int64_t isolated;           /* nodes of the target type that no edge touches */
    int64_t components;         /* weakly connected */
    int64_t largest;            /* nodes of the largest component */
    int64_t degree_min, degree_max; /* edges that enter a node */
    double degree_mean, degree_std, degree_median;
    /* share of the edges whose two labelled ends have one class; NaN: none has */
    double homophily;
    int64_t labelled;
    int64_t classes;            /* 0 unless labels are classes */
    int64_t *class_count;       /* [classes] */
} nsm_dataset_stats;

/* Fill stats; free what it holds with nsm_dataset_stats_clear(). */
int nsm_dataset_info(const nsm_dataset *ds, nsm_dataset_stats *stats);
void nsm_dataset_stats_clear(nsm_dataset_stats *stats);

#ifdef __cplusplus
}
#endif
#endif
