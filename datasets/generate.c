/* datasets/generate.c - The table of generators, and what they share: planted classes, Gaussian
 * features about class means. */
#include "config.h"
#include "datasets/planted.h"

static const nsmi_maker generators[] = {
    { { "sbm", "stochastic block model: blocks of equal size are the classes",
        "nodes=1000  n\n"
        "classes=4  C\n"
        "degree=10  mean degree\n"
        "homophily=0.8  share of the edges that stay inside a class\n" NSMI_PLANTED_HELP },
      nsmi_generate_sbm },
    { { "csbm",
        "contextual SBM (Deshpande et al. 2018): two classes, information in edges and in features",
        "nodes=1000  n\n"
        "degree=10  mean degree d\n"
        "lambda=1  strength of the edges; at most sqrt(degree)\n"
        "mu=1  strength of the features\n"
        "features=100  p\n"
        "seed=0\n" },
      nsmi_generate_csbm },
    { { "rmat", "R-MAT with planted classes: ids are recursive quadrants, then permuted",
        "nodes=100000  n\n"
        "edges=1000000  stored directed edges; even unless directed\n"
        "a=0.57  b=0.19\n"
        "b=0.19  quadrants: a, b, c = b, d = the rest\n"
        "directed=false  false: every edge in both directions\n"
        "classes=16  C\n"
        "homophily=0.5  share of the edges moved into the source's class\n" NSMI_PLANTED_HELP },
      nsmi_generate_rmat },
    { { "sort_of_clevr",
        "pictures of six coloured shapes with questions (Santoro et al. 2017), and their objects",
        "train=9800  pictures, of 20 questions each\n"
        "valid=200\n"
        "test=200\n"
        "size=75  pixels of a side\n"
        "seed=0\n" },
      nsmi_generate_sort_of_clevr },
#ifdef HAVE_IGRAPH
    { { "ba", "Barabasi-Albert, by igraph",
        "nodes=1000  n\n"
        "m=4  edges of each new node\n"
        "power=1  of the degree\n"
        "seed=0\n" },
      nsmi_generate_igraph },
    { { "erdos", "Erdos-Renyi G(n, m), by igraph",
        "nodes=1000  n\n"
        "edges=5000  m\n"
        "directed=false\n"
        "seed=0\n" },
      nsmi_generate_igraph },
#endif
    { { NULL, NULL, NULL }, NULL },
};

const nsm_format *nsm_generate_kind(int i)
{
    int n = (int)(sizeof generators / sizeof *generators) - 1;
    return i >= 0 && i < n ? &generators[i].about : NULL;
}

nsm_dataset *nsm_generate(nsm_ctx *ctx, const char *kind, const nsm_option *option, int options)
{
    return nsmi_make(ctx, generators, "generate", kind, kind, option, options);
}

/* Two normal numbers from two words (Box and Muller). */
static inline void normal_pair(uint32_t a, uint32_t b, float out[2])
{
    float r = sqrtf(-2 * logf(((float)(a >> 8) + 0.5f) * 0x1p-24f)),
          turn = (float)(b >> 8) * (6.2831853f * 0x1p-24f);
    out[0] = r * cosf(turn);
    out[1] = r * sinf(turn);
}

/* Blocks of a row: 64 bits of counter, so rows and streams never meet. */
void nsmi_normal_row(uint64_t seed, uint64_t stream, int64_t row, int64_t n, float *out)
{
    int64_t blocks = (n + 3) / 4;
    for (int64_t k = 0; k < blocks; k++) {
        uint32_t word[4];
        float z[4];
        nsmi_philox(seed, (stream << 56) + (uint64_t)row * (uint64_t)blocks + (uint64_t)k, word);
        normal_pair(word[0], word[1], z);
        normal_pair(word[2], word[3], z + 2);
        for (int64_t i = 4 * k; i < 4 * k + 4 && i < n; i++) out[i] = z[i - 4 * k];
    }
}

uint32_t nsmi_draw(uint64_t seed, uint64_t stream, uint64_t i)
{
    uint32_t word[4];
    nsmi_philox(seed, (stream << 56) + i / 4, word);
    return word[i % 4];
}

/* Rows x = signal * mean[class] / sqrt(F) * ... + noise: the means are standard normal, so that the
 * distance between two of them is signal * sqrt(2) in units of the noise. */
int nsmi_plant_features(nsm_dataset *ds, int64_t features, double signal, uint64_t seed)
{
    nsm_dataset_nodes *v = &ds->node[0];
    const int32_t *cls = ds->label.cls;
    int64_t C = ds->label.columns;
    if (nsmi_failed(ds->ctx) || features == 0) return nsm_error(ds->ctx);
    float *mean = nsm_dataset_array(ds, C * features, sizeof *mean);
    v->dense = nsm_dataset_array(ds, v->count * features, sizeof *v->dense);
    v->features = v->dense ? features : 0;
    if (mean && v->dense) {
        float scale = (float)(signal / sqrt((double)features));
        for (int64_t c = 0; c < C; c++)
            nsmi_normal_row(seed, NSMI_STREAM_MEANS, c, features, mean + c * features);
#pragma omp parallel for schedule(static) num_threads(ds->ctx->dev.threads)
        for (int64_t i = 0; i < v->count; i++) {
            float *x = v->dense + i * features;
            nsmi_normal_row(seed, NSMI_STREAM_FEATURES, i, features, x);
            for (int64_t k = 0; k < features; k++) x[k] += scale * mean[cls[i] * features + k];
        }
    }
    free(mean);
    return nsm_error(ds->ctx);
}

/* The options of NSMI_PLANTED_HELP, and the split. */
int nsmi_plant(nsm_dataset *ds, const nsmi_options *o)
{
    int64_t features = nsmi_option_int(o, "features", 0, 65536, 0);
    double signal = nsmi_option_float(o, "signal", 0, 1e6, 1);
    uint64_t seed = (uint64_t)nsmi_option_int(o, "seed", 0, INT64_MAX, 0);
    nsm_split_config split = { .kind = NSM_SPLIT_STRATIFIED, .seed = seed,
                               .train = nsmi_option_float(o, "train", 1e-9, 1, 0.1),
                               .valid = nsmi_option_float(o, "valid", 1e-9, 1, 0.1) };
    if (nsmi_plant_features(ds, features, signal, seed) == NSM_OK)
        nsm_dataset_split_make(ds, "default", &split);
    return nsm_error(ds->ctx);
}

/* A dataset of n nodes with room for classes. */
nsm_dataset *nsmi_planted_new(nsm_ctx *ctx, const char *kind, int64_t nodes, int64_t classes)
{
    nsm_dataset *ds = nsm_dataset_new(ctx, kind);
    if (!ds || !nsm_dataset_add_nodes(ds, "node", nodes) || !classes) return ds;
    ds->label = (nsm_dataset_labels){ .kind = NSM_LABEL_CLASS, .count = nodes, .columns = classes };
    ds->label.cls = nsm_dataset_array(ds, nodes, sizeof *ds->label.cls);
    return ds;
}
