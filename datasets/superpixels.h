/* datasets/superpixels.h - Pictures as graphs of superpixels.
 *
 * SLIC (Achanta et al. 2012, "SLIC superpixels compared to state-of-the-art superpixel methods",
 * TPAMI 34(11)), by VLFeat: connected patches of a like colour, about as large as each other. */
#ifndef NSM_SUPERPIXELS_H
#define NSM_SUPERPIXELS_H
#include "datasets/dataset.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Add to a dataset whose nodes of the target type have pictures:
 *
 *   nodes "superpixel"   about `count` for each picture, fewer where the picture is even; none for
 *                        a node without one.  Features: the mean of each channel, 0..1; the middle,
 *                        row and column, 0..1; its share of the picture; its deviation, over all
 *                        channels
 *   edges "in"           from a superpixel to its picture's node
 *   edges "beside"       between superpixels that touch, both ways
 *
 * compactness: what distance in the picture weighs beside difference of colour (0.1).
 * Errors: NSM_EINVAL no pictures, count or compactness is out of range, the library was built
 * without VLFeat; NSM_ENOMEM, after which the dataset can only be freed. */
int nsm_dataset_superpixels(nsm_dataset *ds, int64_t count, double compactness);

#ifdef __cplusplus
}
#endif
#endif
