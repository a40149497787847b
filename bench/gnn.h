/* bench/gnn.h - How fast graph networks train, beside what the machine can do.  Not installed. */
#ifndef NSM_BENCH_GNN_H
#define NSM_BENCH_GNN_H
#include "base/replay.h"
#include "graph/gnn.h"

/* Start from zero, set what you need: a field left 0 takes the value in ( ). */
typedef struct {
    const char *kind;        /* "gcn", "gat", "gatv2", "sage"; must be given */
    int64_t nodes, edges;    /* of the random graph (169343, 1166243 before it is made symmetric) */
    int features, hidden;    /* (128), (256: all heads together) */
    int nonzeros;            /* of a row of x, which is then a sparse matrix (dense) */
    int classes, heads;      /* (40), (8) */
    int epochs;              /* measured, after one that is not (5) */
    uint64_t seed;
    bool kernels;            /* measure each kernel against its limit too */
    nsm_order order;         /* of nodes, with `ordered` */
    bool ordered;
    /* a graph of the caller's in place of the random one: all three */
    const nsm_graph *graph;
    nsm_tensor *x;           /* dense or sparse [n, F] */
    nsm_tensor *y;           /* int32 [n] */
} bench_gnn_config;

/* A kernel of the epoch: milliseconds a call, and what its limit would take. */
typedef struct { char name[48]; double ms, limit_ms, share; } bench_kernel;
enum { BENCH_KERNELS = 16 };

typedef struct {
    int64_t nodes, edges;
    double epoch_ms, epoch_ms_min; /* median, least */
    int64_t peak_mib;              /* the process's largest resident size */
    int threads;
    double triad_gbs, gemm_gflops; /* the machine's best in this run */
    bench_kernel kernel[BENCH_KERNELS];
    int kernels;
} bench_gnn_result;

/* Returns NSM_OK or the context's error. */
int bench_gnn(nsm_ctx *ctx, const bench_gnn_config *config, bench_gnn_result *result);

/* The random graph: `edges` pairs, sources by a power law, made symmetric, a loop a node, no
 * repeats. */
nsm_graph *bench_graph(nsm_ctx *ctx, int64_t nodes, int64_t edges, uint64_t seed);

/* ---- limits of the machine, measured ---- */
int bench_rising(const void *a, const void *b); /* of doubles, for qsort() */
int bench_warm(const nsm_replay *r);            /* runs before those that count */
double bench_seconds(void);
double bench_triad_gbs(int threads);                             /* a = b + s c, 12 bytes a place */
/* random rows read and summed, 4 cols bytes each */
double bench_gather_gbs(int threads, int64_t rows, int64_t cols);
/* OpenBLAS's best over a few sizes */
double bench_gemm_gflops(int threads);
int64_t bench_peak_mib(void);

#endif
