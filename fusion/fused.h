/* fusion/fused.h - One model of things that several modalities tell of.
 *
 * A thing is a node of a graph.  What is known of it are elements: its node and its neighbours in
 * the graph, the words of its text, the patches of its picture.  A fuser joins them
 * (fusion/fuser.h: the state pool of the NSM, or what it is compared with), readers ask it, a head
 * answers:
 *
 *   h    = gnn(x0),  x0 = W_x x + W_l shown         every node: its features, the class that is
 *   shown
 *   G_i  = h[e] + relation[r of e]                  e: the thing's node and its neighbours
 *   T_i  = layers(word[w])                          w: the words of its text, in their order
 *   P_i  = encoder(picture): a stem of convolutions, or patches
 *   q_ij = reader + h[thing] or W_q question        one reader that is learned, or the questions
 *   z    = fuser(G, T, P; q);  z = last(z + W_2 gelu(W_1 norm(z) + b_1) + b_2)
 *
 * and the head answers, of each reader
 *
 *   classes   y = W z + b
 *   pointer   y_j = (W z + b) . (W_k G_j) / sqrt(d): which element of the graph it is (Vinyals,
 *             Fortunato and Jaitly, "Pointer Networks", NIPS 2015, arXiv:1506.03134, eq. 3 with a
 *             product in place of the tanh); -inf where none is
 *   tokens    y = W z + b, where the readers are the words: q_it = T_t + reader + h[thing]
 *
 * Letters: B things, N nodes that the graph's encoder sees, m elements, T words, d width, C
 * classes.
 * Parameters: feature.weight [d, F], shown.weight [d, C], gnn., relation.weight [R + 1, d] (the
 * last is the node itself), word.weight [V, d], text.layers.0. ..., picture., reader.weight [1, d],
 * question.weight [d, Q], question.bias, fuser., norm., up.weight [4d, d], up.bias, down., last.,
 * head.weight [C, d], head.bias; of a pointer head.weight [d, d], head.bias, key.weight [d, d]. */
#ifndef NSM_FUSED_H
#define NSM_FUSED_H
#include "fusion/fuser.h"
#include "graph/gnn.h"
#include "seq/backbone.h"
#include "vision/image.h"
#include "vision/patch.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef enum { NSM_FUSED_CLASSES, NSM_FUSED_POINTER, NSM_FUSED_TOKENS } nsm_fused_head;

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int width;                 /* d, must be given */
    int outputs;               /* C; 0: no head, nsm_fused_read() alone; a pointer has none */
    nsm_fused_head head;       /* (classes) a pointer wants a graph; tokens a text, no questions */
    const char *fuser;         /* ("nsm") */
    const char *fuser_options; /* "slots=16 rounds=1" (none) */
    float dropout;           /* of every modality's elements and before the head (0) */
    /* the graph */
    bool graph;
    int features;       /* F of a node (0: none) */
    int shown;          /* classes that may be shown at nodes (0: none) */
    int relations;      /* R, types of its edges; must be > 0 with a graph */
    const char *gnn;    /* ("rgcn"); "none": nodes are encoded by x0 alone */
    int gnn_layers;     /* (2) */
    int bases;          /* of rgcn (0: every relation has weights of its own) */
    nsm_sage_aggr aggr; /* of rgcn, sage: how they gather neighbours (mean) */
    /* A thing is a set of nodes, as a small graph is: none of its elements is its own, and the
     * reader knows none (its own node is the first). */
    bool sets;
    /* the text */
    int vocab;               /* V (0: no text) */
    const char *mixer;       /* over its words ("nsm"); "none": a bag of words */
    const char *mixer_options;
    int text_layers;         /* (1) */
    /* the picture */
    nsm_image_config image;  /* a stem of convolutions (channels 0: none) */
    nsm_patch_config patch;  /* or patches (channels 0: none); features 0: d */
    /* questions */
    int question_features;   /* Q (0: one reader, learned) */
} nsm_fused_config;

typedef struct nsm_fused nsm_fused;

/* Make a model, or NULL.  The caller frees it, before ctx.  Errors: NSM_EINVAL no modality, those
 * of its parts; NSM_ENOMEM. */
nsm_fused *nsm_fused_new(nsm_ctx *ctx, const nsm_fused_config *config);
void nsm_fused_free(nsm_fused *f); /* NULL is allowed */
nsm_module *nsm_fused_module(nsm_fused *f);
const nsm_fused_config *nsm_fused_settings(const nsm_fused *f); /* with every default filled in */

/* Every node's embedding.  x: [N, F], sparse or dense, or NULL without features; shown [N, C], a
 * class as one-hot, a guess as probabilities, zeros where none is shown, or NULL.
 * graph: over all nodes; or block, one a layer: sampled ones, whose first has N sources.
 * -> [N, d], or [the last block's nodes, d].  Errors: NSM_ESHAPE, those of nsm_gnn_apply(). */
nsm_tensor *nsm_fused_nodes(nsm_tape *tape, nsm_fused *f, const nsm_graph *graph,
                            nsm_graph *const *block, nsm_tensor *x, nsm_tensor *shown);

/* What is known of B things.  A modality that is left NULL is missing: the model has it not, or is
 * to do without it; one at least is there. */
typedef struct {
    nsm_tensor *nodes;    /* h, from nsm_fused_nodes() */
    nsm_tensor *element;  /* int32 [B, m] rows of h, the thing's own first, but of sets */
    nsm_tensor *relation; /* int32 [B, m] how each is joined to the thing, R for its own */
    nsm_tensor *elements; /* int32 [B] how many there are, at least 1 */
    nsm_tensor *word;     /* int32 [B, T] */
    nsm_tensor *words;    /* int32 [B] */
    nsm_tensor *picture;  /* [B, c, h, w] */
    /* int32 [B] elements that are there: all of a picture's, or 0; or NULL */
    nsm_tensor *pictures;
    nsm_tensor *question;    /* [B, readers, Q] */
} nsm_fused_input;

/* What the readers say of the things, before the head: z [B, readers, d], the readers being the
 * questions, the words, or one.  Errors: NSM_ESHAPE; NSM_EINVAL an index is out of range, or what
 * is given is not what the model takes. */
nsm_tensor *nsm_fused_read(nsm_tape *tape, nsm_fused *f, const nsm_fused_input *in);
/* z, thinned, through the head -> logits [B, readers, C], of a pointer [B, readers, m].  Errors:
 * those of nsm_fused_read(); NSM_EINVAL the model has no outputs. */
nsm_tensor *nsm_fused_apply(nsm_tape *tape, nsm_fused *f, const nsm_fused_input *in);
/* The fuser, to watch it: its elements are the graph's, the text's, the picture's, as they are
 * given, a picture's row after row of its grid. */
nsm_fuser *nsm_fused_fuser(nsm_fused *f);
void nsm_fused_picture_grid(const nsm_fused *f, int64_t *height, int64_t *width);

#ifdef __cplusplus
}
#endif
#endif
