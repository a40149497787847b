/* tests/kernels/cases_pool.c - Pools of states over sets: given up, opened farthest first, routed,
 * against loops in double.  Letters as in kernels/backend.h: B sets, n elements, s states, D. */
#include "config.h"
#include "tests/kernels/cases.h"

typedef struct {
    int64_t batch, n, s, size, learned, top;
    bool absent;
    double tau_new;
} pool_shape;

static const pool_shape pool_shapes[] = {
    { 1, 1, 1, 1, 1, 1, false, 0.9 },
    { 3, 20, 6, 8, 1, 2, true, 0.7 },
    { 2, 9, 40, 33, 3, 40, true, 0.9 },  /* more states than elements */
    { 2, 700, 16, 64, 2, 5, false, 0.2 },
    { 1, 9000, 5, 12, 1, 2, true, 0.95 }, /* a large set: in parts */
};
enum { POOL_SHAPES = sizeof pool_shapes / sizeof *pool_shapes };

/* Bytes, four to a number; its first `n` are as `say` has them. */
static ints flags(kernels *k, int64_t n, bool (*say)(int64_t i, const pool_shape *s),
                  const pool_shape *s)
{
    ints f = ints_random(k, (n + 3) / 4, 0, 1);
    for (int64_t i = 0; i < n; i++) ((uint8_t *)f.h)[i] = say(i, s);
    k->be->to_device(k->d, (size_t)f.n * sizeof *f.h, f.h, f.d);
    return f;
}

static bool is_alive(int64_t i, const pool_shape *s)
{
    return i % s->s < s->learned || i % 5 == 3;
}
static bool is_there(int64_t i, const pool_shape *s)
{
    (void)s;
    return i % 4 != 1;
}

static nsmi_pool pool_of(kernels *k, const pool_shape *s, ints *there)
{
    *there = flags(k, s->batch * s->n, is_there, s);
    return (nsmi_pool){ s->batch,   s->n,   s->s, s->size, s->learned, s->top, (float)s->tau_new,
                        0.5f,       0.1f,   s->absent ? (uint8_t *)there->d : NULL };
}

/* Rows of unit length. */
static reals directions(kernels *k, int64_t rows, int64_t size)
{
    reals x = reals_random(k, rows * size, -1, 1);
    for (int64_t r = 0; r < rows; r++) {
        double sum = 1e-9;
        for (int64_t e = 0; e < size; e++) sum += (double)x.h[r * size + e] * x.h[r * size + e];
        for (int64_t e = 0; e < size; e++) x.h[r * size + e] /= (float)sqrt(sum);
    }
    reals_up(k, x);
    return x;
}

void case_pool_age(kernels *k)
{
    for (int i = 0; i < POOL_SHAPES; i++) {
        const pool_shape *s = &pool_shapes[i];
        int64_t all = s->batch * s->s;
        ints there, alive = flags(k, all, is_alive, s);
        nsmi_pool c = pool_of(k, s, &there);
        reals usage = reals_random(k, all, 0, 0.4), kept = reals_blank(k, all);
        double *want = wanted_from(k, usage, 0.5), *stays = wanted(k, all);
        int32_t *living = host_array(k, alive.n, sizeof *living);
        memcpy(living, alive.h, (size_t)alive.n * sizeof *living);
        for (int64_t j = 0; j < all; j++) {
            bool gone = ((uint8_t *)living)[j] && j % s->s >= s->learned && want[j] < (double)0.1f;
            if (gone) want[j] = ((uint8_t *)living)[j] = 0;
            stays[j] = !gone;
        }
        k->be->pool_age(k->d, &c, usage.d, (uint8_t *)alive.d, kept.d);
        result(k, "pool_age: usage", usage, want, 1e-6);
        result(k, "pool_age: kept", kept, stays, 0);
        result_ints(k, "pool_age: alive", alive, living);
    }
}

typedef struct {
    int32_t *opened, *owner, *alive;
    double *next, *shut;
} opened_pool;

/* One set as the rule stands: again and again the element that is least near to any state. */
static void plain_open(const pool_shape *s, int64_t b, const reals *k, const uint8_t *there,
                       opened_pool *w)
{
    uint8_t *alive = (uint8_t *)w->alive + b * s->s;
    for (int64_t i = 0; i < s->s; i++) {
        double farthest = INFINITY;
        int64_t at = -1;
        if (alive[i]) continue;
        for (int64_t j = b * s->n; j < (b + 1) * s->n; j++) {
            double near = -INFINITY;
            for (int64_t r = 0; r < s->s; r++) {
                const double *state = w->next + (b * s->s + r) * s->size;
                double c = 0;
                if (!alive[r]) continue;
                for (int64_t e = 0; e < s->size; e++)
                    c += (double)k->h[j * s->size + e] * state[e];
                if (c > near) near = c;
            }
            if ((!there || there[j]) && near < farthest) farthest = near, at = j;
        }
        if (at < 0 || !(farthest < s->tau_new)) return;
        alive[i] = 1;
        w->owner[b * s->s + i] = (int32_t)(at - b * s->n);
        w->opened[at] = (int32_t)i;
        for (int64_t e = 0; e < s->size; e++)
            w->next[(b * s->s + i) * s->size + e] += (double)k->h[at * s->size + e];
    }
}

void case_pool_open(kernels *k)
{
    for (int i = 0; i < POOL_SHAPES; i++) {
        const pool_shape *s = &pool_shapes[i];
        int64_t rows = s->batch * s->n, all = s->batch * s->s;
        ints there, alive = flags(k, all, is_alive, s);
        nsmi_pool c = pool_of(k, s, &there);
        reals x = directions(k, rows, s->size), key = directions(k, all, s->size);
        for (int64_t j = 0; j < key.n; j++)
            if (!((uint8_t *)alive.h)[j / s->size]) key.h[j] = 0; /* as a dead state's is */
        reals_up(k, key);
        reals near = reals_blank(k, rows), next = reals_blank(k, key.n), shut = reals_blank(k, all);
        ints opened = ints_blank(k, rows), owner = ints_blank(k, all);
        opened_pool w = { host_array(k, rows, 4), host_array(k, all, 4), host_array(k, alive.n, 4),
                          wanted_from(k, key, 1), wanted(k, all) };
        memcpy(w.alive, alive.h, (size_t)alive.n * sizeof *w.alive);
        memset(w.opened, -1, (size_t)rows * sizeof *w.opened);
        memset(w.owner, -1, (size_t)all * sizeof *w.owner);
        for (int64_t b = 0; b < s->batch; b++)
            plain_open(s, b, &x, s->absent ? (uint8_t *)there.h : NULL, &w);
        for (int64_t j = 0; j < all; j++) w.shut[j] = ((uint8_t *)w.alive)[j] ? 0 : -INFINITY;
        k->be->pool_open(k->d, &c, x.d, key.d, (uint8_t *)alive.d, near.d, opened.d, owner.d,
                         next.d, shut.d);
        result_ints(k, "pool_open: opened", opened, w.opened);
        result_ints(k, "pool_open: owner", owner, w.owner);
        result_ints(k, "pool_open: alive", alive, w.alive);
        result(k, "pool_open: next", next, w.next, 0);
        result(k, "pool_open: shut", shut, w.shut, 0);

        reals dnext = reals_random(k, key.n, -1, 1), dx = reals_random(k, x.n, -1, 1),
              dkey = reals_random(k, key.n, -1, 1);
        double *back = wanted_from(k, dx, 1), *back_key = wanted_from(k, dkey, 1);
        for (int64_t j = 0; j < key.n; j++) {
            int64_t at = j / s->size, from = w.owner[at];
            back_key[j] += (double)dnext.h[j];
            if (from >= 0)
                back[(at / s->s * s->n + from) * s->size + j % s->size] += (double)dnext.h[j];
        }
        k->be->pool_open_back(k->d, &c, owner.d, dnext.d, dx.d, dkey.d);
        result(k, "pool_open_back: k", dx, back, 1e-6);
        result(k, "pool_open_back: key", dkey, back_key, 1e-6);
    }
}

/* The shares of one element: softmax over the `top` nearest living states and the null's logit. */
static void plain_route(const pool_shape *s, const float *x, const uint8_t *alive, double gamma,
                        double null, double *share)
{
    double sum = exp(null);
    for (int64_t i = 0; i < s->s; i++) {
        int64_t before = 0;
        for (int64_t j = 0; j < s->s; j++)
            before += alive[j] && (x[j] > x[i] || (x[j] == x[i] && j < i));
        share[i] = alive[i] && before < s->top ? exp(gamma * (double)x[i]) : 0;
        sum += share[i];
    }
    for (int64_t i = 0; i < s->s; i++) share[i] /= sum;
}

typedef struct {
    double gamma, null, *dcosine, dgamma, dnull;
} route_back;

static void plain_route_back(const pool_shape *s, int64_t row, const reals *x, const double *share,
                             const reals *dshare, route_back *g)
{
    double h = 0, mass = 0;
    for (int64_t i = row * s->s; i < (row + 1) * s->s; i++) {
        h += share[i] * (double)dshare->h[i];
        mass += share[i];
    }
    for (int64_t i = row * s->s; i < (row + 1) * s->s; i++) {
        double dl = share[i] * ((double)dshare->h[i] - h);
        g->dcosine[i] += g->gamma * dl;
        g->dgamma += dl * (double)x->h[i];
    }
    g->dnull -= (1 - mass) * h;
}

void case_pool_route(kernels *k)
{
    for (int i = 0; i < POOL_SHAPES; i++) {
        const pool_shape *s = &pool_shapes[i];
        int64_t rows = s->batch * s->n, all = rows * s->s;
        ints there, alive = flags(k, s->batch * s->s, is_alive, s);
        nsmi_pool c = pool_of(k, s, &there);
        reals x = reals_steps(k, all, 40), gamma = reals_random(k, 1, 2, 5), /* many are equal */
              null = reals_random(k, 1, -1, 1), share = reals_blank(k, all),
              dshare = reals_random(k, all, -1, 1), dx = reals_random(k, all, -1, 1),
              dgamma = reals_random(k, 1, -1, 1), dnull = reals_random(k, 1, -1, 1);
        double *want = wanted(k, all);
        route_back g = { (double)gamma.h[0], (double)null.h[0], wanted_from(k, dx, 1),
                         (double)dgamma.h[0], (double)dnull.h[0] };
        for (int64_t r = 0; r < rows; r++) {
            if (s->absent && !((uint8_t *)there.h)[r]) continue;
            plain_route(s, x.h + r * s->s, (uint8_t *)alive.h + r / s->n * s->s, g.gamma, g.null,
                        want + r * s->s);
            plain_route_back(s, r, &x, want, &dshare, &g);
        }
        k->be->pool_route(k->d, &c, x.d, (uint8_t *)alive.d, gamma.d, null.d, share.d);
        result(k, "pool_route", share, want, 2e-6);
        k->be->pool_route_back(k->d, &c, x.d, gamma.d, share.d, dshare.d, dx.d, dgamma.d, dnull.d);
        result(k, "pool_route_back: cosine", dx, g.dcosine, 5e-6);
        result(k, "pool_route_back: gamma", dgamma, &g.dgamma, 2e-5);
        result(k, "pool_route_back: null", dnull, &g.dnull, 2e-5);
    }
}
