/* base/tape.h - The tape: define-by-run automatic differentiation.
 *
 * An op computes at once and, if something in it needs a gradient, is recorded.  The recorded
 * order is topological, so nsm_tape_backward() walks it in reverse.  The tape owns every op
 * result; nsm_tape_reset() gives all of it back to the allocator's cache, so that a steady
 * training step allocates nothing.
 *
 * nsm_tape_backward() gives values back as soon as no earlier op can need them: after it only
 * the loss, what nsm_tape_keep() named, and what the caller made still hold their values. */
#ifndef NSM_TAPE_H
#define NSM_TAPE_H
#include "base/tensor.h"
#ifdef __cplusplus
extern "C" {
#endif

enum {
    NSM_OP_INPUTS = 12,
    NSM_OP_OUTPUTS = 4,
    NSM_OP_SAVED = 6,
    NSM_OP_INTS = 10,
    NSM_OP_FLOATS = 8,
    NSM_OP_POINTERS = 4
};

typedef struct nsm_tape nsm_tape;
typedef struct nsm_node nsm_node;

/* An op is one static struct in one file: its name, how the output's shape follows from the
 * inputs (which checks them), forward, and backward, which ADDS to the gradients of the inputs.
 * backward NULL: no gradient passes.  An error is left by nsm_error_set() and stops the op. */
typedef struct {
    const char *name;
    void (*shape)(nsm_node *n); /* check inputs, declare each output with nsm_node_out() */
    void (*forward)(nsm_node *n);
    void (*backward)(nsm_node *n);
    int required;   /* inputs that must be given; those after it may be NULL */
    unsigned reads; /* what backward reads, of NSM_READS_*; 0: everything */
    bool sparse;    /* a sparse tensor may be input 0 (else it is an error) */
} nsm_op;

#define NSM_READS_NOTHING 0x80000000u
#define NSM_READS_IN(i) (1u << (i))         /* the values of input i */
#define NSM_READS_OUT(i) (1u << (16 + (i))) /* the values of output i */

/* What an op works on.  Arguments are copied in; pointers in p must outlive the tape's step. */
typedef struct {
    nsm_tensor *in[NSM_OP_INPUTS];
    int64_t i[NSM_OP_INTS];
    float f[NSM_OP_FLOATS];
    const void *p[NSM_OP_POINTERS];
} nsm_args;

struct nsm_node {
    const nsm_op *op;
    nsm_ctx *ctx;
    nsm_tape *tape;
    nsm_tensor *in[NSM_OP_INPUTS];
    nsm_tensor *out[NSM_OP_OUTPUTS];
    nsm_tensor *saved[NSM_OP_SAVED]; /* what forward keeps for backward, by nsm_node_save() */
    int64_t i[NSM_OP_INTS];
    float f[NSM_OP_FLOATS];
    const void *p[NSM_OP_POINTERS];
    nsm_random random;               /* by nsm_node_random(): backward draws the same numbers */
    bool recorded;                   /* backward will follow: forward must save what it needs */
};

/* Apply an op: y = nsm_apply(tape, &my_op, &(nsm_args){ .in = {x, w}, .f = {0.2f} }).
 * Returns out[0], or NULL if there is an error, earlier or new, or a required input is NULL. */
nsm_tensor *nsm_apply(nsm_tape *tape, const nsm_op *op, const nsm_args *args);
/* The same for several outputs: fills out[0..count). */
int nsm_apply_many(nsm_tape *tape, const nsm_op *op, const nsm_args *args, nsm_tensor **out,
                   int count);

/* -- for the bodies of ops -- */
/* in shape() */
nsm_tensor *nsm_node_out(nsm_node *n, int k, nsm_type type, int rank, const int64_t *dim);
/* lives until backward is done */
nsm_tensor *nsm_node_save(nsm_node *n, int k, nsm_type type, int rank, const int64_t *dim);
/* device memory, given back when this pass of the op ends */
void *nsm_node_scratch(nsm_node *n, size_t bytes);
nsm_random nsm_node_random(nsm_node *n, int64_t draws);
float *nsm_node_dy(nsm_node *n, int k);              /* gradient of output k, NULL if none came */
/* gradient of input i to add to, NULL if it needs none */
float *nsm_node_dx(nsm_node *n, int i);
/* The same without clearing it first: *beta is 0 when this is the first contribution (write,
 * do not add: memory is uninitialised) and 1 when it must be added to. */
float *nsm_node_dx_beta(nsm_node *n, int i, float *beta);

/* ---- the tape ---- */
nsm_tape *nsm_tape_new(nsm_ctx *ctx);
void nsm_tape_free(nsm_tape *tape);
/* Inference: nothing is recorded, dropped values are freed at once, dropout passes through and
 * norms use their running statistics.  A new tape trains. */
void nsm_tape_inference(nsm_tape *tape, bool on);
bool nsm_tape_training(const nsm_tape *tape);
nsm_ctx *nsm_tape_ctx(const nsm_tape *tape);

/* Fill the gradients of everything that needs one: d loss / d (it), added to what is there.
 * loss has one element; or give the cotangent of a tensor of any shape with nsm_tape_seed()
 * first, any number of times, and pass loss NULL.  Returns NSM_OK or the (sticky) error. */
int nsm_tape_backward(nsm_tape *tape, nsm_tensor *loss);
int nsm_tape_seed(nsm_tape *tape, nsm_tensor *y, const float *host_cotangent);
/* keep t's value and gradient through backward */
void nsm_tape_keep(nsm_tape *tape, nsm_tensor *t);
/* The caller is done with t: its memory is given back as soon as no backward reads it. */
void nsm_tape_drop(nsm_tape *tape, nsm_tensor *t);
void nsm_tape_reset(nsm_tape *tape);

/* A tensor of the caller's numbers (copied; NULL: uninitialised) that belongs to the tape, as
 * results do. */
nsm_tensor *nsm_tape_tensor(nsm_tape *tape, nsm_type type, int rank, const int64_t *dim,
                            const void *host);
/* The same of numbers that follow from shapes and settings alone: where the pass is replayed
 * (base/replay.h) they are what they were when it was recorded. */
nsm_tensor *nsm_tape_constant(nsm_tape *tape, nsm_type type, int rank, const int64_t *dim,
                              const void *host);
/* A view of the same values in another shape (one dim may be -1). */
nsm_tensor *nsm_reshape(nsm_tape *tape, nsm_tensor *x, int rank, const int64_t *dim);

#ifdef __cplusplus
}
#endif
#endif
