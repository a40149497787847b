/* base/state.h - States: what a system carries from one call to the next.
 *
 * A state is a list of named tensors, each [B, ...] with a row for every sequence of the batch, and
 * of children (a model's layers).  So making, clearing, measuring, reordering, saving and loading
 * one is the same for every system: nothing of it is written twice.
 *
 * Every state counts the tokens that each row has seen.  A part that grows is [B, room, ...]: of
 * its second axis the first `tokens` places are in use, and room is made by doubling. */
#ifndef NSM_STATE_H
#define NSM_STATE_H
#include "base/tensor.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct nsm_state nsm_state;

typedef struct {
    char *name;
    nsm_tensor *tensor; /* [B, ...]; of a part that grows [B, room, ...] */
    bool grows;
} nsm_state_part;

struct nsm_state {
    nsm_ctx *ctx;
    int64_t batch;     /* B */
    int64_t tokens;    /* seen by the row that has seen most */
    nsm_tensor *seen;  /* int64 [B]: by each row; the part "tokens" */
    nsm_state_part *part;
    int parts;
    struct { char *name; nsm_state *state; } *child;
    int children;
};

/* Make a state without parts but "tokens", all zero.  The caller frees it; children with it. */
nsm_state *nsm_state_new(nsm_ctx *ctx, int64_t batch);
void nsm_state_free(nsm_state *s); /* NULL is allowed */

/* Add a part [B, dim[0], ..., dim[rank-1]], zeros; one that grows is [B, 0, dim[0], ...] at first.
 * Returns its tensor (of one that grows: ask nsm_state_get() anew after nsm_state_reserve()). */
nsm_tensor *nsm_state_add(nsm_state *s, const char *name, nsm_type type, int rank,
                          const int64_t *dim);
nsm_tensor *nsm_state_add_growing(nsm_state *s, const char *name, nsm_type type, int rank,
                                  const int64_t *dim);
/* takes child; NULL: an error stands */
int nsm_state_child(nsm_state *s, const char *name, nsm_state *child);

nsm_tensor *nsm_state_get(const nsm_state *s, const char *name); /* a part of s itself, or NULL */
/* Room for `tokens` tokens in what grows (children left out). */
int nsm_state_reserve(nsm_state *s, int64_t tokens);
/* n more tokens, or length[b] (int32 [B] on the device, NULL: n) of them, were seen (children left
 * out). */
int nsm_state_advance(nsm_state *s, int64_t n, const nsm_tensor *length);

int nsm_state_zero(nsm_state *s);                            /* parts and counts, children too */
int nsm_state_copy(nsm_state *to, const nsm_state *from);    /* of the same make */
/* host [B]: row b becomes what row[b] was */
int nsm_state_reorder(nsm_state *s, const int32_t *row);
/* in use: room that is not, and counts, left out */
int64_t nsm_state_bytes(const nsm_state *s);

/* A file of kind "state": every part under its dotted name.  Loading wants a state of the same
 * make, and changes all of it or, on error, nothing.  Errors: NSM_EIO, NSM_EFORMAT, NSM_ENOMEM. */
int nsm_state_save(const nsm_state *s, const char *path);
int nsm_state_load(nsm_state *s, const char *path);

#ifdef __cplusplus
}
#endif
#endif
