/* fusion/fuser.h - Fusers: the one interface of whatever makes one answer of several sets.
 *
 * A fuser takes M modalities, each a set of elements [B, n_m, F_m], and readers: queries [B, r, Q],
 * or r learned ones.  Each reader gets a vector of what the elements say to it: [B, r, d].  The
 * order of elements does not matter, nor does an element that is absent.
 *
 * A system is a file of fusion/ with a static nsm_fuser_type and a line in fusion/fuser.c's list;
 * nothing else names it.  tests/fusion/test_fusers.c walks the list and says what every fuser must
 * do.  Letters: B sets, M modalities, n elements of all modalities side by side, d width, r
 * readers. */
#ifndef NSM_FUSER_H
#define NSM_FUSER_H
#include "base/module.h"
#include "base/options.h"
#include "base/tape.h"
#include "fusion/set.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { NSM_FUSER_MODALITIES = NSM_SET_MODALITIES };

typedef struct nsm_fuser nsm_fuser;
typedef struct nsm_fuser_type nsm_fuser_type;

/* What a call gives to a system: only modalities that have elements. */
typedef struct {
    const nsm_set_input *in; /* [M], checked; x NULL: this one is missing */
    nsm_tensor *query;       /* [B, r, Q], or the learned ones [B, r, d] */
    nsm_tensor *shut;        /* [B, n]: 0, or -inf for an absent element; NULL: all are there */
    nsm_tensor *closed;      /* [B, s]: 0, or -inf for a state that no reader sees; NULL: none is */
    int64_t batch, elements; /* B, n */
} nsm_fuser_call;

/* What a system is.  The struct that `bytes` measures begins with an nsm_fuser. */
struct nsm_fuser_type {
    const char *name;  /* "perceiver" */
    const char *about; /* one line, with the paper */
    size_t bytes;
    const nsm_key *keys; /* ends in one without a name; NULL: none */
    /* Check the keys' values, which are in place, make the parameters in f->module, set f->states
     * and f->learned.  NSM_OK or the error. */
    int (*make)(nsm_fuser *f);
    void (*clear)(nsm_fuser *f); /* what make took besides parameters; NULL: nothing */
    /* -> [B, r, d].  f->watched: leave in f->seen what each reader took of each element, and with
     * states its parts. */
    nsm_tensor *(*forward)(nsm_tape *tape, nsm_fuser *f, const nsm_fuser_call *call);
    const char *weights; /* what flow() shows is called: "attention"; NULL: it has none */
    const char *states;  /* what its states are called: "latents"; NULL: it has none */
    const char *size;    /* the key on which its parameters depend linearly; NULL: none */
};

struct nsm_fuser {
    nsm_module module;
    const nsm_fuser_type *type;
    int width, modalities, features[NSM_FUSER_MODALITIES];
    int query_features; /* Q; 0: the readers are learned */
    int readers;        /* r of these */
    int states;         /* s between elements and readers, 0: none */
    int learned;        /* of these, there from the start; elements open the others */
    nsm_tensor *query;  /* "query" [r, d]: these */
    bool watched;
    /* of the last call that was watched: [B, r, n], and as nsm_fuser_parts has them */
    nsm_tensor *seen, *took, *read, *mass, *opened;
    uint8_t *closed; /* [closed_sets, s] 1: no reader sees this state; NULL: all are open */
    int64_t closed_sets;
};

/* ---- for whoever uses a fuser ---- */
const nsm_fuser_type *const *nsm_fuser_types(void);     /* every system, NULL last */
const nsm_fuser_type *nsm_fuser_find(const char *name); /* NULL: none of that name */

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    int width;                          /* d, must be given */
    int modalities;                     /* M, at least 1, must be given */
    int features[NSM_FUSER_MODALITIES]; /* F of each, must be given */
    int query_features;                 /* Q (0: learned readers) */
    int readers;                        /* of these (1) */
    const char *options;                /* "slots=16 heads=4", by the type's keys (none) */
} nsm_fuser_config;

/* Make a fuser, weights drawn from ctx's generator, or NULL.  The caller frees it, before ctx.
 * Errors: NSM_EINVAL no such type, no such key, a value out of range, sizes that do not fit;
 * NSM_ENOMEM. */
nsm_fuser *nsm_fuser_new(nsm_ctx *ctx, const char *type, const nsm_fuser_config *config);
void nsm_fuser_free(nsm_fuser *f); /* NULL is allowed */
nsm_module *nsm_fuser_module(nsm_fuser *f);
/* Check one "key" and "value" of a type without making anything.  NSM_OK or NSM_EINVAL. */
int nsm_fuser_check(nsm_ctx *ctx, const nsm_fuser_type *type, const char *key, const char *value);

/* in: one for each modality; without x, or with n_m = 0, it is missing; length int32 [B] says how
 * many of a set's elements are there (n_m).  query [B, r, Q], NULL with learned readers.
 * -> y [B, r, d].  Errors: NSM_ESHAPE; NSM_EINVAL every modality is missing. */
nsm_tensor *nsm_fuser_apply(nsm_tape *tape, nsm_fuser *f, const nsm_set_input *in,
                            nsm_tensor *query);

/* Whence a fuser takes what it tells, by its own weights (type->weights says what they are): of a
 * pool or of slots, what a reader took of a state times what the state took of an element; what
 * states tell each other in between is left out.  Watched, a call leaves them, at some cost; then
 * flow, host [r, n], gets how much each reader of a set took of each of the n elements, those of
 * the modalities side by side that were not missing; a row sums to at most 1, the rest came from no
 * single element.  Errors: NSM_EINVAL a fuser without such weights, or nothing was watched yet;
 * NSM_ESHAPE row, r or n is another. */
int nsm_fuser_watch(nsm_fuser *f, bool on);
int nsm_fuser_flow(nsm_fuser *f, int64_t row, int64_t readers, int64_t elements, float *flow);

/* The parts of flow, of a fuser with states: what each state took of each element, and each reader
 * of each state.  Host arrays of the caller; NULL: this one is not wanted. */
typedef struct {
    float *took;     /* [s, n] a row sums to 1, or to 0 where a state took nothing */
    float *read;     /* [r, s] a row sums to 1; flow = read took */
    float *mass;     /* [s] so many elements; mass[i] took[i,j] of element j went to state i */
    int32_t *opened; /* [n] the state that an element opened, -1: none */
} nsm_fuser_parts;

/* Errors as of flow; NSM_EINVAL a fuser without states. */
int nsm_fuser_look(nsm_fuser *f, int64_t row, int64_t readers, int64_t elements,
                   const nsm_fuser_parts *parts);
/* Close states to the readers, from now on: closed, host [sets, s], copied; sets 1: the same of
 * every set, else calls have so many sets.  NULL: all are open again.  A reader without any state
 * hears nothing.  Errors: NSM_EINVAL a fuser without states; NSM_ENOMEM; NSM_ESHAPE at the call. */
int nsm_fuser_close(nsm_fuser *f, int64_t sets, const uint8_t *closed);

#ifdef __cplusplus
}
#endif
#endif
