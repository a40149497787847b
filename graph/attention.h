/* graph/attention.h - What an attention layer looked at, for charts. */
#ifndef NSM_ATTENTION_H
#define NSM_ATTENTION_H
#include "graph/graph.h"
#ifdef __cplusplus
extern "C" {
#endif

/* Given to a layer's apply, which fills it: the softmax over the edges that enter each node, before
 * dropout.  It belongs to the tape and the graph. */
typedef struct {
    const nsm_csr *csr; /* the edges it is over, self loops as the layer treats them */
    nsm_tensor *prob;   /* [csr->nnz, H] in csr order */
} nsm_attention;

/* Copy to the host: src, dst [csr->nnz] and prob [csr->nnz, H]. */
int nsm_attention_get(const nsm_attention *attention, int32_t *src, int32_t *dst, float *prob);

#ifdef __cplusplus
}
#endif
#endif
