/* nsm.h - The whole public interface of libnsm; the only header a user includes.
 * What is declared here is the contract; what is not is private.  No third party's header is
 * needed (conversions from and to igraph's types are in <nsm-igraph.h>). */
#ifndef NSM_H
#define NSM_H
#include "base/context.h"
#include "base/tensor.h"
#include "base/sparse.h"
#include "base/tape.h"
#include "base/module.h"
#include "base/ops.h"
#include "base/optimizer.h"
#include "base/schedule.h"
#include "base/metrics.h"
#include "base/checkpoint.h"
#include "base/safetensors.h"
#include "base/state.h"
#include "seq/mixer.h"
#include "seq/backbone.h"
#include "graph/graph.h"
#include "graph/attention.h"
#include "graph/gcn.h"
#include "graph/gat.h"
#include "graph/gatv2.h"
#include "graph/sage.h"
#include "graph/gnn.h"
#include "graph/sampler.h"
#include "graph/pool.h"
#include "datasets/dataset.h"
#include "datasets/import.h"
#include "datasets/generate.h"
#include "datasets/sequences.h"
#include "datasets/info.h"
#endif
