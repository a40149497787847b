/* fusion/fuser_parts.h - What fusers share: maps into the width, readers, what was seen.  Not
 * installed. */
#ifndef NSM_FUSER_PARTS_H
#define NSM_FUSER_PARTS_H
#include "fusion/fuser.h"
#include "fusion/parts.h"
#include "fusion/perceiver.h"

/* The input maps of a fuser that does not bring its own: in.0.weight [d, F0], ..., and in.0.bias
 * [d], drawn, which tells the modalities apart: the modality's embedding; in.query. for queries
 * that are given. */
typedef struct {
    nsmi_pair in[NSM_FUSER_MODALITIES], query;
} nsmi_fuser_maps;
void nsmi_fuser_maps_make(nsm_fuser *f, nsmi_fuser_maps *maps);
/* The elements of all modalities side by side [B, n, d]; the readers [B, r, d]. */
nsm_tensor *nsmi_fuser_elements(nsm_tape *tape, const nsm_fuser *f, const nsmi_fuser_maps *maps,
                                const nsm_fuser_call *call);
nsm_tensor *nsmi_fuser_readers(nsm_tape *tape, const nsm_fuser *f, const nsmi_fuser_maps *maps,
                               const nsm_fuser_call *call);

/* A Perceiver's layer of the fuser's width as the module's child `name`: cross or self-attention of
 * `heads` heads. */
nsm_perceiver_layer *nsmi_fuser_layer(nsm_fuser *f, const char *name, bool cross, int heads,
                                      int widening);

/* Where forward() wants what a reader saw: NULL unless watched. */
static inline nsm_tensor **nsmi_if_watched(const nsm_fuser *f, nsm_tensor **to)
{
    return f->watched ? to : NULL;
}
/* Keep shares [B, r, n]; through: of states [B, r, s] times what states took of elements [B, s, n],
 * with their mass, B s numbers (NULL: 1 where a state took something), and what opened them, int32
 * [B, n] (NULL: they were there). */
void nsmi_fuser_keep(nsm_fuser *f, const nsm_tensor *shares);
void nsmi_fuser_keep_through(nsm_tape *tape, nsm_fuser *f, nsm_tensor *read, nsm_tensor *took,
                             nsm_tensor *mass, nsm_tensor *opened);

#endif
