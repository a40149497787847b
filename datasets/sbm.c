/* datasets/sbm.c - Stochastic block models, and the contextual one of Deshpande, Montanari, Mossel,
 * Sen, "Contextual stochastic block models", NeurIPS 2018.
 *
 * Pairs u < v inside a block or between two are edges with one probability p each.  They are
 * numbered 0 .. pairs-1 and visited by geometric jumps (Batagelj and Brandes 2005): O(E), exactly
 * G(n, p). */
#include "config.h"
#include "datasets/planted.h"

/* The place in the generator that comes next, and the list of edges. */
typedef struct {
    nsm_ctx *ctx;
    uint64_t seed, next;
    int64_t count, room;
    int32_t (*pair)[2];
} drawing;

/* In (0, 1], of 53 bits. */
static double uniform(drawing *d)
{
    uint64_t high = nsmi_draw(d->seed, NSMI_STREAM_EDGES, d->next),
             low = nsmi_draw(d->seed, NSMI_STREAM_EDGES, d->next + 1);
    d->next += 2;
    return ((double)((high << 32 | low) >> 11) + 1) * 0x1p-53;
}

static void add(drawing *d, int64_t u, int64_t v)
{
    if (!nsmi_grow(d->ctx, &d->pair, d->count, &d->room, sizeof *d->pair)) return;
    d->pair[d->count][0] = (int32_t)u;
    d->pair[d->count++][1] = (int32_t)v;
}

/* Each of `pairs` with probability p: calls back through place(k) -> (u, v). */
static void block(drawing *d, int64_t first_u, int64_t first_v, int64_t rows, int64_t cols,
                  double p)
{
    bool same = first_u == first_v;
    int64_t pairs = same ? rows * (rows - 1) / 2 : rows * cols;
    double step = p < 1 ? log1p(-p) : 0;
    if (p <= 0) return;
    for (int64_t k = -1; !nsmi_failed(d->ctx);) {
        double jump = p < 1 ? floor(log(uniform(d)) / step) : 0;
        if (jump >= (double)(pairs - k)) return;
        k += 1 + (int64_t)jump;
        if (k >= pairs) return;
        if (!same) {
            add(d, first_u + k / cols, first_v + k % cols);
            continue;
        }
        int64_t v = (int64_t)((1 + sqrt(1 + 8 * (double)k)) / 2); /* v (v - 1) / 2 <= k */
        while (v * (v - 1) / 2 > k) v--;
        while (v * (v + 1) / 2 <= k) v++;
        add(d, first_u + k - v * (v - 1) / 2, first_u + v);
    }
}

static void set_edges(nsm_dataset *ds, drawing *d)
{
    nsm_dataset_edges *e = nsmi_failed(d->ctx) ? NULL
                                               : nsm_dataset_add_edges(ds, "edge", 0, 0, d->count);
    for (int64_t k = 0; e && k < d->count; k++) {
        e->src[k] = d->pair[k][0];
        e->dst[k] = d->pair[k][1];
    }
    free(d->pair);
    if (e) nsmi_edges_symmetric(ds, 0);
}

/* Class c has the nodes [n c / C, n (c + 1) / C). */
static int64_t first_of(int64_t n, int64_t C, int64_t c) { return (int64_t)((__int128)n * c / C); }

static void draw_blocks(nsm_dataset *ds, uint64_t seed, double p_in, double p_out)
{
    int64_t n = ds->node[0].count, C = ds->label.columns;
    drawing d = { .ctx = ds->ctx, .seed = seed };
    for (int64_t a = 0; a < C && !nsmi_failed(ds->ctx); a++) {
        int64_t u = first_of(n, C, a), rows = first_of(n, C, a + 1) - u;
        for (int64_t i = u; i < u + rows; i++) ds->label.cls[i] = (int32_t)a;
        block(&d, u, u, rows, rows, p_in);
        for (int64_t b = a + 1; b < C; b++) {
            int64_t v = first_of(n, C, b);
            block(&d, u, v, rows, first_of(n, C, b + 1) - v, p_out);
        }
    }
    set_edges(ds, &d);
}

static bool probability_ok(const nsmi_options *o, double p_in, double p_out)
{
    if (p_in >= 0 && p_in <= 1 && p_out >= 0 && p_out <= 1) return true;
    nsm_error_set(
        o->ctx, NSM_EINVAL,
        "%s: these options ask for edges with probability %g inside a class and %g between", o->who,
        p_in, p_out);
    return false;
}

nsm_dataset *nsmi_generate_sbm(nsm_ctx *ctx, const char *kind, const nsmi_options *o)
{
    int64_t n = nsmi_option_int(o, "nodes", 1, INT32_MAX, 1000);
    int64_t C = nsmi_option_int(o, "classes", 1, n < 65536 ? n : 65536, n < 4 ? n : 4);
    double degree = nsmi_option_float(o, "degree", 0, 1e9, 10),
           h = nsmi_option_float(o, "homophily", 0, 1, 0.8);
    uint64_t seed = (uint64_t)nsmi_option_int(o, "seed", 0, INT64_MAX, 0);
    double inside = (double)n / (double)C - 1, outside = (double)n - 1 - inside;
    double p_in = inside > 0 ? (C > 1 ? h : 1) * degree / inside : 0,
           p_out = outside > 0 ? (1 - h) * degree / outside : 0;
    if (nsmi_failed(ctx) || !probability_ok(o, p_in, p_out)) return NULL;
    nsm_dataset *ds = nsmi_planted_new(ctx, kind, n, C);
    if (ds && !nsmi_failed(ctx)) {
        draw_blocks(ds, seed, p_in, p_out);
        nsmi_plant(ds, o);
    }
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}

/* Features b_i = sqrt(mu / n) v_i u + z_i / sqrt(p), u ~ N(0, I / p), z_i ~ N(0, I); v_i = -1,
 * 1. */
static void csbm_features(nsm_dataset *ds, int64_t p, double mu, uint64_t seed)
{
    nsm_dataset_nodes *v = &ds->node[0];
    float *u = nsm_dataset_array(ds, p, sizeof *u), root = (float)(1 / sqrt((double)p));
    v->dense = nsm_dataset_array(ds, v->count * p, sizeof *v->dense);
    v->features = v->dense ? p : 0;
    if (u && v->dense) {
        float pull = (float)sqrt(mu / (double)v->count);
        nsmi_normal_row(seed, NSMI_STREAM_MEANS, 0, p, u);
        #pragma omp parallel for schedule(static) num_threads(ds->ctx->dev.threads)
        for (int64_t i = 0; i < v->count; i++) {
            float *x = v->dense + i * p, sign = ds->label.cls[i] ? pull : -pull;
            nsmi_normal_row(seed, NSMI_STREAM_FEATURES, i, p, x);
            for (int64_t k = 0; k < p; k++) x[k] = (sign * u[k] + x[k]) * root;
        }
    }
    free(u);
}

/* An edge with probability (d + lambda sqrt(d)) / n inside a class, (d - lambda sqrt(d)) / n
 * between. */
nsm_dataset *nsmi_generate_csbm(nsm_ctx *ctx, const char *kind, const nsmi_options *o)
{
    int64_t n = nsmi_option_int(o, "nodes", 2, INT32_MAX, 1000),
            p = nsmi_option_int(o, "features", 1, 65536, 100);
    double d = nsmi_option_float(o, "degree", 0, 1e9, 10),
           lambda = nsmi_option_float(o, "lambda", -1e9, 1e9, 1);
    double mu = nsmi_option_float(o, "mu", 0, 1e12, 1);
    uint64_t seed = (uint64_t)nsmi_option_int(o, "seed", 0, INT64_MAX, 0);
    double p_in = (d + lambda * sqrt(d)) / (double)n, p_out = (d - lambda * sqrt(d)) / (double)n;
    if (nsmi_failed(ctx) || !probability_ok(o, p_in, p_out)) return NULL;
    nsm_dataset *ds = nsmi_planted_new(ctx, kind, n, 2);
    if (ds && !nsmi_failed(ctx)) {
        draw_blocks(ds, seed, p_in, p_out);
        csbm_features(ds, p, mu, seed);
        nsm_dataset_split_make(ds, "default",
                               &(nsm_split_config){ .kind = NSM_SPLIT_STRATIFIED, .seed = seed });
    }
    if (!nsmi_failed(ctx)) return ds;
    nsm_dataset_free(ds);
    return NULL;
}
