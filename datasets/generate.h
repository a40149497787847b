/* datasets/generate.h - Random graphs with known properties, and pictures with questions.
 *
 *   sbm    stochastic block model: classes, homophily, Gaussian features about class means
 *   csbm   contextual SBM of Deshpande et al., NeurIPS 2018: two classes, lambda (edges), mu
 *   (features)
 *   rmat   R-MAT (Chakrabarti et al., SDM 2004) with planted labels and features, in parallel
 *   sort_of_clevr   pictures of coloured shapes with questions about them, and their objects
 *   ba     Barabasi-Albert (igraph)
 *   erdos  Erdos-Renyi G(n, m) (igraph)
 *
 * The same options and seed give the same dataset, for any number of threads. */
#ifndef NSM_GENERATE_H
#define NSM_GENERATE_H
#include "datasets/import.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Make a graph of this kind.  An unknown kind, key or value is an error that names the known
 * ones.  Returns the dataset, which the caller frees, or NULL. */
nsm_dataset *nsm_generate(nsm_ctx *ctx, const char *kind, const nsm_option *option, int options);

/* The kinds, for help texts: number i, or NULL behind the last. */
const nsm_format *nsm_generate_kind(int i);

#ifdef __cplusplus
}
#endif
#endif
