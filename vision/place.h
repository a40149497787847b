/* vision/place.h - How elements of a grid are told where they stand. */
#ifndef NSM_PLACE_H
#define NSM_PLACE_H
#include "base/module.h"
#include "base/tape.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    NSM_PLACE_APPENDED, /* two more features: x, y from -1 (left, top) to 1; 0 in a grid of one */
    NSM_PLACE_LEARNED,  /* a parameter of each place is added */
    NSM_PLACE_NONE,
    NSM_PLACES
} nsm_place;

#ifdef __cplusplus
}
#endif
#endif
