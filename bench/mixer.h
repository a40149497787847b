/* bench/mixer.h - How fast a mixer is, forward, forward and backward, and by steps.  Not
 * installed. */
#ifndef NSM_BENCH_MIXER_H
#define NSM_BENCH_MIXER_H
#include "seq/mixer.h"

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    const char *type, *options;  /* of the mixer; type must be given */
    int64_t batch, tokens;       /* (1, 4096) */
    int width;                   /* (256) */
    int runs;                    /* measured, after one that is not (5) */
    bool train;                  /* mean(y^2), backward to x and all weights (forward alone) */
    bool decode;                 /* the time of a step with a state that has seen `tokens` */
} bench_mixer_config;

typedef struct {
    double ms, ms_min;           /* median, least; of a step with decode */
    int64_t peak_mib, state_bytes, parameters;
    int threads;
} bench_mixer_result;

/* Returns NSM_OK or the context's error. */
int bench_mixer(nsm_ctx *ctx, const bench_mixer_config *config, bench_mixer_result *result);
#endif
