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
    int64_t batch, elements; /* B, n */
} nsm_fuser_call;

/* What a system is.  The struct that `bytes` measures begins with an nsm_fuser. */
struct nsm_fuser_type {
    const char *name;  /* "perceiver" */
    const char *about; /* one line, with the paper */
    size_t bytes;
    const nsm_key *keys; /* ends in one without a name; NULL: none */
    /* Check the keys' values, which are in place, and make the parameters in f->module.  NSM_OK or
     * the error. */
    int (*make)(nsm_fuser *f);
    void (*clear)(nsm_fuser *f); /* what make took besides parameters; NULL: nothing */
    /* -> [B, r, d].  f->watched: leave in f->seen what each reader took of each element. */
    nsm_tensor *(*forward)(nsm_tape *tape, nsm_fuser *f, const nsm_fuser_call *call);
    const char *weights; /* what flow() shows is called: "attention"; NULL: it has none */
};

struct nsm_fuser {
    nsm_module module;
    const nsm_fuser_type *type;
    int width, modalities, features[NSM_FUSER_MODALITIES];
    int query_features; /* Q; 0: the readers are learned */
    int readers;        /* r of these */
    nsm_tensor *query;  /* "query" [r, d]: these */
    bool watched;
    nsm_tensor *seen; /* [B, r, n] of the last call that was watched */
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

#ifdef __cplusplus
}
#endif
#endif
