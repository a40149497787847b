/* graph/sage.c - See sage.h. */
#include "config.h"
#include "graph/internal.h"
#include "graph/sage.h"

struct nsm_sage {
    nsm_module module;
    nsm_sage_config config;
    nsm_tensor *wl, *bias;      /* [D, F], [D] or NULL */
    nsm_tensor *wr;             /* [D, G] or NULL */
    nsm_tensor *wp, *bp;        /* [F, F], [F] or NULL */
};

static bool config_ok(nsm_ctx *ctx, const nsm_sage_config *c)
{
    if (c->in_channels > 0 && c->dst_channels > 0 && c->out_channels > 0 &&
        (unsigned)c->aggr <= NSM_SAGE_SUM && c->dropout >= 0 && c->dropout < 1)
        return true;
    nsm_error_set(
        ctx, NSM_EINVAL,
        "nsm_sage_new: in_channels is %d, dst_channels %d, out_channels %d, aggr %d, dropout %g; "
        "want sizes > 0, aggr 0..2, dropout in [0,1)",
        c->in_channels, c->dst_channels, c->out_channels, (int)c->aggr, (double)c->dropout);
    return false;
}

/* Uniform in +-1/sqrt(inputs) */
static nsm_tensor *parameter(nsm_sage *s, const char *name, int rank, int64_t out, int64_t in)
{
    float bound = 1 / sqrtf((float)in);
    nsm_tensor *t = nsm_module_param(&s->module, name, rank, (int64_t[]){ out, in });
    nsm_init_uniform(t, -bound, bound);
    return t;
}

nsm_sage *nsm_sage_new(nsm_ctx *ctx, const nsm_sage_config *config)
{
    if (nsmi_failed(ctx)) return NULL;
    nsm_sage_config c = *config;
    if (c.dst_channels == 0) c.dst_channels = c.in_channels;
    if (!config_ok(ctx, &c)) return NULL;
    nsm_sage *s = nsmi_calloc(ctx, 1, sizeof *s);
    if (!s) return NULL;
    s->config = c;
    nsm_module_init(&s->module, ctx);
    if (c.project) {
        s->wp = parameter(s, "lin.weight", 2, c.in_channels, c.in_channels);
        s->bp = parameter(s, "lin.bias", 1, c.in_channels, c.in_channels);
    }
    s->wl = parameter(s, "lin_l.weight", 2, c.out_channels, c.in_channels);
    if (!c.no_bias) s->bias = parameter(s, "lin_l.bias", 1, c.out_channels, c.in_channels);
    if (!c.no_root_weight) s->wr = parameter(s, "lin_r.weight", 2, c.out_channels, c.dst_channels);
    if (!nsmi_failed(ctx)) return s;
    nsm_sage_free(s);
    return NULL;
}

void nsm_sage_free(nsm_sage *s)
{
    if (!s) return;
    nsm_module_clear(&s->module);
    free(s);
}

nsm_module *nsm_sage_module(nsm_sage *s) { return s ? &s->module : NULL; }

static nsm_tensor *aggregate(nsm_tape *tape, const nsm_sage *s, const nsm_graph *g, nsm_tensor *x)
{
    if (s->config.aggr == NSM_SAGE_MAX) return nsm_spmm_max(tape, g->csr, x);
    return nsm_spmm(tape, g->csr, NULL, s->config.aggr == NSM_SAGE_MEAN, x);
}

/* W_l aggr(x) + W_r dst, without bias. */
static nsm_tensor *combine(nsm_tape *tape, const nsm_sage *s, const nsm_graph *g, nsm_tensor *x,
                           nsm_tensor *dst)
{
    const nsm_sage_config *c = &s->config;
    nsm_tensor *y;
    if (c->aggr == NSM_SAGE_MAX || (!x->csr && c->in_channels <= c->out_channels)) {
        nsm_tensor *a = aggregate(tape, s, g, x); /* [n, F] */
        bool together = s->wr && dst && !dst->csr;
        y = together ? nsm_linear2(tape, a, s->wl, dst, s->wr, NULL)
                     : nsm_linear(tape, a, s->wl, NULL);
        nsm_tape_drop(tape, a);
        return s->wr && !together ? nsmi_add_residual(tape, y, dst, s->wr) : y;
    }
    nsm_tensor *h = nsm_linear(tape, x, s->wl, NULL); /* [m, D] */
    y = aggregate(tape, s, g, h);
    nsm_tape_drop(tape, h);
    return s->wr ? nsmi_add_residual(tape, y, dst, s->wr) : y;
}

static bool shapes_ok(const nsm_sage *s, const nsm_graph *g, const nsm_tensor *x,
                      const nsm_tensor *dst)
{
    const nsm_sage_config *c = &s->config;
    if (!dst && !nsmi_graph_covers("nsm_sage_apply", g)) return false;
    if (c->aggr == NSM_SAGE_MAX && !c->project && x->csr) {
        nsm_error_set(
            g->ctx, NSM_ESHAPE,
            "nsm_sage_apply: x is a sparse matrix, which max without project does not take");
        return false;
    }
    return nsmi_want("nsm_sage_apply", "x", x, g->sources, c->in_channels) &&
           (!dst || nsmi_want("nsm_sage_apply", "dst", dst, g->nodes, c->dst_channels));
}

nsm_tensor *nsm_sage_apply(nsm_tape *tape, nsm_sage *s, const nsm_graph *g, nsm_tensor *x,
                           nsm_tensor *dst)
{
    if (!tape || !s || !g || !x || nsmi_failed(s->module.ctx) || !shapes_ok(s, g, x, dst))
        return NULL;
    const nsm_sage_config *c = &s->config;
    nsm_tensor *own = dst ? dst : s->wr ? nsmi_first_rows(tape, x, g->nodes) : NULL;
    nsm_tensor *from = x;
    if (c->project) {
        nsm_tensor *h = nsm_linear(tape, x, s->wp, NULL);
        from = nsmi_finish(tape, h, s->bp, NSM_ACT_RELU, 0, 0, 0);
    }
    nsm_tensor *y = from ? combine(tape, s, g, from, own) : NULL;
    if (from != x) nsm_tape_drop(tape, from);
    if (own != x && own != dst) nsm_tape_drop(tape, own);
    if (!c->normalize) return nsmi_finish(tape, y, s->bias, c->act, c->act_a, c->act_b, c->dropout);
    nsm_tensor *z = nsmi_finish(tape, y, s->bias, NSM_ACT_NONE, 0, 0, 0);
    y = nsm_normalize(tape, z, 1e-12f);
    nsm_tape_drop(tape, z);
    return nsmi_finish(tape, y, NULL, c->act, c->act_a, c->act_b, c->dropout);
}
