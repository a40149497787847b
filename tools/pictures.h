/* pictures.h - From results to charts: which numbers go on which chart, and its file's name.
 *   loss.png accuracy.png       from a run's log
 *   confusion.png classes.png   from true and predicted classes
 *   neighbourhood.png           from a dataset and, with attention, a model's weights for its
 *   edges */
#ifndef TOOLS_PICTURES_H
#define TOOLS_PICTURES_H
#include "datasets/dataset.h"
#include "tools/node.h"

/* Curves of every column of folder/log.csv: those whose name has "loss" in it on one chart, those
 * of the other scores on the other, seconds and learning rate on none.  mark: the epoch whose model
 * was kept, -1 none.  title: "gat on cora". */
int picture_curves(nsm_ctx *ctx, const char *folder, const char *title, int64_t mark);

/* n things with these true and predicted classes, -1 unknown (left out). */
int picture_classes(nsm_ctx *ctx, const char *folder, const char *title, int classes,
                    char *const *class_name, int64_t n, const int32_t *truth, const int32_t *guess);

/* The surroundings of a node of the target type. */
typedef struct {
    int64_t node;
    int hops;               /* how far (2) */
    int most;               /* nodes, at most (80) */
    int64_t edges;          /* attention: the edges that it speaks of, src[k] -> dst[k] ... */
    const int32_t *src, *dst;
    const float *attention; /* ... and its value, [edges]; NULL: all edges of the dataset, alike */
    const int32_t *guess;   /* [nodes] predicted classes to colour by; NULL: the labels */
    const char *title, *note; /* NULL: made up */
    uint64_t seed;
} neighbourhood;
int picture_neighbourhood(nsm_ctx *ctx, const char *path, const nsm_dataset *ds,
                          const neighbourhood *h);
/* The same with the edges and the attention of a model's first layer in place of h's. */
int picture_model(nsm_ctx *ctx, const char *path, const nsm_dataset *ds, node_task *n,
                  neighbourhood h);

/* A node that makes a good picture: labelled, its edges neither few nor very many. */
int64_t picture_node(nsm_ctx *ctx, const nsm_dataset *ds, uint64_t seed);

/* The first of several names, cut if long, with spaces for underscores: to be freed.  NULL: out of
 * memory. */
char *picture_name(const char *name);

#endif
