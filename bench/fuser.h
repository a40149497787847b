/* bench/fuser.h - How the time and memory of a fuser grow with the elements it joins.  Not
 * installed. */
#ifndef NSM_BENCH_FUSER_H
#define NSM_BENCH_FUSER_H
#include "fusion/fuser.h"

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    const char *type, *options;  /* of the fuser; type must be given */
    int64_t elements, readers;   /* n of one modality, of the fuser's width (16384); (1) */
    int width;                   /* (64) */
    int runs;                    /* measured, after one that is not (3) */
    bool train;                  /* mean(y^2), backward to x and all weights (forward alone) */
} bench_fuser_config;

typedef struct {
    double ms, ms_min;           /* median, least */
    int64_t tensor_bytes;        /* most that tensors took */
    int64_t parameters;
} bench_fuser_result;

/* Returns NSM_OK or the context's error. */
int bench_fuser(nsm_ctx *ctx, const bench_fuser_config *config, bench_fuser_result *result);
#endif
