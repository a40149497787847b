/* bench/bench_gnn.c - bench_gnn KIND [key=value ...]: one line of JSON, then the kernels.
 * Keys: nodes edges features nonzeros hidden classes heads epochs seed threads kernels order (degree, rcm). */
#include "config.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "bench/gnn.h"

static long value(int argc, char **argv, const char *key, long fallback)
{
    size_t n = strlen(key);
    for (int i = 2; i < argc; i++)
        if (!strncmp(argv[i], key, n) && argv[i][n] == '=') return strtol(argv[i] + n + 1, NULL, 10);
    return fallback;
}

static bool says(int argc, char **argv, const char *word)
{
    for (int i = 2; i < argc; i++)
        if (!strcmp(argv[i], word)) return true;
    return false;
}

int main(int argc, char **argv)
{
    nsm_ctx *ctx = nsm_ctx_new(&(nsm_ctx_config){ .threads = (int)value(argc, argv, "threads", 0) });
    bench_gnn_result r;
    bench_gnn_config c = { .kind = argc > 1 ? argv[1] : "gcn", .nodes = value(argc, argv, "nodes", 0),
                           .edges = value(argc, argv, "edges", 0), .features = (int)value(argc, argv, "features", 0),
                           .nonzeros = (int)value(argc, argv, "nonzeros", 0), .hidden = (int)value(argc, argv, "hidden", 0), .classes = (int)value(argc, argv, "classes", 0),
                           .heads = (int)value(argc, argv, "heads", 0), .epochs = (int)value(argc, argv, "epochs", 0),
                           .seed = (uint64_t)value(argc, argv, "seed", 0), .kernels = value(argc, argv, "kernels", 1) != 0,
                           .ordered = says(argc, argv, "order=degree") || says(argc, argv, "order=rcm"),
                           .order = says(argc, argv, "order=rcm") ? NSM_ORDER_RCM : NSM_ORDER_DEGREE };
    int code = bench_gnn(ctx, &c, &r);
    if (code) {
        fprintf(stderr, "bench_gnn: %s\n", nsm_error_message(ctx));
    } else {
        printf("{\"bench\": \"%s\", \"nodes\": %lld, \"edges\": %lld, \"epoch_ms\": %.2f, \"epoch_ms_min\": %.2f, \"peak_mib\": %lld, "
               "\"threads\": %d}\n", c.kind, (long long)r.nodes, (long long)r.edges, r.epoch_ms, r.epoch_ms_min, (long long)r.peak_mib, r.threads);
        if (r.kernels) printf("triad %.1f GB/s, OpenBLAS %.0f GFLOP/s\n", r.triad_gbs, r.gemm_gflops);
        for (int k = 0; k < r.kernels; k++)
            printf("%-40s %8.2f ms, limit %8.2f ms: %3.0f %%\n", r.kernel[k].name, r.kernel[k].ms, r.kernel[k].limit_ms, 100 * r.kernel[k].share);
    }
    nsm_ctx_free(ctx);
    return code ? EXIT_FAILURE : EXIT_SUCCESS;
}
