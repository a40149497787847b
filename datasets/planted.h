/* datasets/planted.h - What the generators share.  Not installed.
 * Every random number is Philox at (seed, stream, place): it does not depend on the threads. */
#ifndef NSM_PLANTED_H
#define NSM_PLANTED_H
#include "datasets/internal.h"
#include "kernels/philox.h"

enum { NSMI_STREAM_EDGES = 1, NSMI_STREAM_FEATURES, NSMI_STREAM_MEANS, NSMI_STREAM_CLASSES };

#define NSMI_PLANTED_HELP                                                           \
    "features=0  F Gaussian features about a mean of each class; 0: none\n"         \
    "signal=1  length of the class means, in units of the noise of one feature\n"   \
    "train=0.1  fraction of each class\n"                                           \
    "valid=0.1  fraction of each class\n"                                           \
    "seed=0\n"

nsm_dataset *nsmi_planted_new(nsm_ctx *ctx, const char *kind, int64_t nodes, int64_t classes);
int nsmi_plant(nsm_dataset *ds, const nsmi_options *o);
int nsmi_plant_features(nsm_dataset *ds, int64_t features, double signal, uint64_t seed);
void nsmi_normal_row(uint64_t seed, uint64_t stream, int64_t row, int64_t n, float *out);
uint32_t nsmi_draw(uint64_t seed, uint64_t stream, uint64_t i);
#endif
