/* seq/mixer.h - Mixers: the one interface of all sequence systems.
 *
 * A mixer maps a sequence x [B, n, d] to y [B, n, d]: attention, a recurrence, a scan, a memory.
 * It is used in three ways that give the same numbers, to rounding:
 *
 *   forward over whole sequences                          training, scoring
 *   forward over piece after piece with a carried state   long sequences, prompts
 *   step, one token [B, d] at a time, with that state     decoding
 *
 * A system is a file of seq/ with a static nsm_mixer_type and a line in seq/list.c; nothing else
 * names it.  Tests, bench, training and comparison walk the list (tests/seq/test_mixers.c says what
 * every mixer must do).  Letters: B batch, n tokens, d width, H heads. */
#ifndef NSM_MIXER_H
#define NSM_MIXER_H
#include "base/module.h"
#include "base/options.h"
#include "base/state.h"
#include "base/tape.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct nsm_mixer nsm_mixer;
typedef struct nsm_mixer_type nsm_mixer_type;

/* A key of a mixer's configuration; one that is `live` may be changed in a mixer that is trained:
 * nsm_mixer_set(). */
typedef nsm_key nsm_mixer_key;

/* What a system is.  The struct that `bytes` measures begins with an nsm_mixer. */
struct nsm_mixer_type {
    const char *name;            /* "transformer" */
    const char *about;           /* one line, with the paper */
    size_t bytes;
    const nsm_mixer_key *keys;   /* ends in one without a name; NULL: none */
    /* Check the keys' values, which are in place, and make the parameters in m->module.  NSM_OK or
     * the error. */
    int (*make)(nsm_mixer *m);
    void (*clear)(nsm_mixer *m); /* what make took besides parameters; NULL: nothing */
    /* x [B, n, d] -> [B, n, d].  length: int32 [B] or NULL, see nsm_mixer_forward().  s: NULL, or
     * the state to begin from, whose parts are left as after the last token. */
    nsm_tensor *(*forward)(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                           nsm_state *s);
    /* x [B, d] -> [B, d]; NULL: forward over one token. */
    nsm_tensor *(*step)(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_state *s);
    /* Add the parts of a state, which start as zeros; NULL: a mixer that cannot be carried on. */
    int (*state)(nsm_mixer *m, nsm_state *s);
    /* Write what does not start as zeros; NULL: nothing. */
    int (*start)(nsm_mixer *m, nsm_state *s);
    /* keys that size its state, what matters most first: "expand_k expand_v"; NULL: none does */
    const char *sizes;
    /* what flow() shows is called: "attention"; NULL: there is nothing of the kind */
    const char *weights;
    int (*watch)(nsm_mixer *m, bool on);
    int (*flow)(nsm_mixer *m, int64_t row, int64_t n, float *flow);
};

struct nsm_mixer {
    nsm_module module;
    const nsm_mixer_type *type;
    int width;                   /* d */
    int layer, layers;           /* which of how many in its model: 0, 1 alone */
    /* that of its model's first layer, which has run before it; alone: itself */
    nsm_mixer *first;
    bool two_way;                /* set by make: a token sees later ones, so there are no steps */
    bool unordered;              /* set by make: it sees a set, so the model needs positions */
};

/* ---- for whoever uses a mixer ---- */
/* every system that can stand for another, NULL last */
const nsm_mixer_type *const *nsm_mixer_types(void);
/* and the others: RWKV's channel mixing, v1's time mixing; NULL: none of that name */
const nsm_mixer_type *nsm_mixer_find(const char *name);

typedef struct {
    int width;             /* d, must be > 0 */
    const char *options;   /* "heads=4 rotary=true", by the type's keys (NULL: none) */
    int layer, layers;     /* (0 of 1) */
    nsm_mixer *first;      /* layer 0's, of the same type (itself) */
} nsm_mixer_config;

/* Make a mixer, weights drawn from ctx's generator.  The caller frees it, before ctx.
 * Errors: NSM_EINVAL no such type, no such key, a value out of range, sizes that do not fit;
 * NSM_ENOMEM. */
nsm_mixer *nsm_mixer_new(nsm_ctx *ctx, const char *type, const nsm_mixer_config *config);
void nsm_mixer_free(nsm_mixer *m); /* NULL is allowed */
nsm_module *nsm_mixer_module(nsm_mixer *m);
/* Change keys of a mixer, "tau_new=0.8": those that no parameter's shape depends on.  A state that
 * was made before keeps its sizes.  Errors: NSM_EINVAL, nothing is changed. */
int nsm_mixer_set(nsm_mixer *m, const char *options);
/* Check one "key" and "value" of a type without making anything.  NSM_OK or NSM_EINVAL. */
int nsm_mixer_check(nsm_ctx *ctx, const nsm_mixer_type *type, const char *key, const char *value);

/* x [B, n, d] -> y [B, n, d].
 * length (may be NULL): int32 [B], 0 <= length[b] <= n.  Only the first length[b] tokens of row b
 * are
 * there: those before are computed as if the row ended with them, and the state is left as after
 * them. y behind them is finite and means nothing.
 * s (may be NULL): a state of this mixer; it is read and then left as after these tokens.  While
 * the tape trains, gradients stop at its old values: training over segments.
 * Errors: NSM_ESHAPE; NSM_EINVAL a state with a two-way mixer, or one that cannot be carried. */
nsm_tensor *nsm_mixer_forward(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_tensor *length,
                              nsm_state *s);
/* x [B, d] -> [B, d] */
nsm_tensor *nsm_mixer_step(nsm_tape *tape, nsm_mixer *m, nsm_tensor *x, nsm_state *s);

/* A state at its start.  The caller frees it, before ctx. */
nsm_state *nsm_mixer_state(nsm_mixer *m, int64_t batch);
int nsm_mixer_restart(nsm_mixer *m, nsm_state *s);

/* Whence a mixer takes what it tells, by its own weights (type->weights says what they are).
 * Watched, a forward leaves them, at some cost; then flow, host [n, n], gets how much token t of a
 * row took from each token of those n, the mean of the heads; a row of flow sums to at most 1, the
 * rest came from no single token.
 * Errors: NSM_EINVAL a mixer without such weights, or nothing was watched yet; NSM_ESHAPE row or n
 * is another. */
int nsm_mixer_watch(nsm_mixer *m, bool on);
int nsm_mixer_flow(nsm_mixer *m, int64_t row, int64_t n, float *flow);

#ifdef __cplusplus
}
#endif
#endif
