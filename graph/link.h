/* graph/link.h - Predicting links: scores of triples (head, relation, tail).
 *
 * DistMult: Yang, Yih, He, Gao and Deng, "Embedding Entities and Relations for Learning and
 * Inference in Knowledge Bases", ICLR 2015, arXiv:1412.6575.
 *   score = sum over k of h_k r_k t_k
 * ComplEx: Trouillon, Welbl, Riedel, Gaussier and Bouchard, "Complex Embeddings for Simple Link
 * Prediction", ICML 2016, arXiv:1606.06357.  Vectors are complex, real parts in the first half of
 * the D numbers, imaginary parts in the second:
 *   score = Re sum over k of h_k r_k conj(t_k)                                            eq. 9
 *
 * Both are linear in each end: what is known of a triple makes a query q, and the score of entity
 * e at the missing end is q . e.  So the scores of all entities are one matrix product.
 *
 * Letters: B triples, n entities, D numbers of an entity and of a relation. */
#ifndef NSM_LINK_H
#define NSM_LINK_H
#include "base/ops.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef enum { NSM_LINK_DISTMULT, NSM_LINK_COMPLEX } nsm_link_kind;
/* Which end of a triple is asked for: (h, r, ?) or (?, r, t). */
typedef enum { NSM_LINK_TAIL, NSM_LINK_HEAD } nsm_link_end;

/* The queries of known ends x and relations r, both [B, D] -> [B, D], or NULL.
 * Errors: NSM_ESHAPE x and r are not [B, D], or D is odd with ComplEx; NSM_EINVAL an unknown kind
 * or end; NSM_ENOMEM. */
nsm_tensor *nsm_link_query(nsm_tape *tape, nsm_link_kind kind, nsm_link_end end, nsm_tensor *x,
                           nsm_tensor *r);
/* Scores of all entities [n, D] for queries [B, D] -> [B, n]. */
nsm_tensor *nsm_link_all(nsm_tape *tape, nsm_tensor *query, nsm_tensor *entity);
/* Scores of triples, h, r and t [B, D] -> [B, 1].  Errors as nsm_link_query. */
nsm_tensor *nsm_link_score(nsm_tape *tape, nsm_link_kind kind, nsm_tensor *h, nsm_tensor *r,
                           nsm_tensor *t);

#ifdef __cplusplus
}
#endif
#endif
