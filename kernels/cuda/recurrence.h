/* kernels/cuda/recurrence.h - What the two directions of the chunked recurrences share: passes over
 * chunks (recurrence.cu says what each does), and what stands in scratch memory between them. */
#ifndef NSM_CUDA_RECURRENCE_H
#define NSM_CUDA_RECURRENCE_H
#include "kernels/cuda/chunk.h"

/* ---- carry ---- */
typedef struct {
    sequences s;
    bool back, by_value;
    int64_t dk, dv, slabs;     /* slabs: a state's rows are shared out among so many blocks */
    heads_view l[2], r[2];     /* S' = P S + l[0]' r[0] + l[1]' W; p NULL: without */
    heads_view x, y;           /* W = x S + y, where l[1] is */
    const float *all;          /* [B, H, chunks, D or E]: P */
    const float *start;        /* [B, H, D, E]; NULL: 0 */
    float *w;                  /* [B, n, H, E] */
    /* [B, H, chunks + 1, D, E]: S before each chunk, and last; back: behind each, and first */
    float *states;
    float *end;                /* [B, H, D, E], or NULL */
    bool adds;                 /* end += */
} carrying;

/* ---- read: out = beta out + base S + A value, or A' value; A the scores of x and y ---- */
typedef struct {
    sequences s;
    int64_t dk, dv;
    heads_view x, y;          /* [D] */
    decay_view w;
    bool by_value, early, strict, turned;
    const float *bonus;       /* [H, D] or NULL: the score of a token with itself */
    heads_view base;          /* [D]; p NULL: none */
    const float *states;      /* [B, H, chunks + 1, D, E] */
    int64_t behind;           /* S is the chunk's of these, or the next */
    heads_view value;         /* [E] */
    float beta;
    float *out;               /* [B, n, H, E] */
} reading;

typedef union { scores_room scores; square other; } second_room;

static __device__ state_view state_of_chunk(const float *states, const sequences &s,
                                            const chunk_place &p, int64_t behind, int64_t dk,
                                            int64_t dv)
{
    state_view v = { states + (p.head * (s.chunks + 1) + p.c + behind) * dk * dv, (int)dk,
                     (int)dv };
    return v;
}

/* Row `row` of head h of an array of so many heads. */
static __device__ const float *step_row(const sequences &s, const float *p, int64_t row, int64_t h,
                                        int64_t heads, int64_t size)
{
    return p + (row * heads + h * heads / s.heads) * size;
}

/* ---- what both directions make in scratch memory ---- */
typedef struct {
    nsmi_recurrence r;
    nsmi_recurrence_values in;
    sequences s;
    decay_view w;
    /* q with scale; of the delta rule a is in scratch memory, v with beta */
    heads_view q, k, v, a, b;
    bool pairs, solves, by_value;
    /* faded; v_out where decays are the values' */
    float *q_in, *k_out, *a_in, *b_out, *v_out, *all;
    float *t, *x, *y;               /* T; X^; Y^, which becomes W */
    float *base;
    int64_t used;
} recurrence_work;

static inline float *take_floats(recurrence_work *w, int64_t n)
{
    float *p = w->base ? w->base + w->used : NULL;
    w->used += ceil_of(n, 64) * 64;
    return p;
}

static inline heads_view view_of(const float *p, int64_t heads, int64_t size, float scale)
{
    heads_view v = { p, heads, size, scale };
    return v;
}

static inline heads_view own_view(const recurrence_work *w, const float *p, int64_t size)
{
    return view_of(p, w->r.heads, size, 1);
}

/* What the keys write: v, or W. */
static inline heads_view written_by_keys(const recurrence_work *w)
{
    return w->solves && !w->pairs ? own_view(w, w->y, w->r.dv) : w->v;
}

/* out = beta out + A value, or A' value, of a read that has nothing to do with a state; A the
 * scores of x and y.  early: strictly before. */
static inline reading read_of_scores(const recurrence_work *w, heads_view x, heads_view y,
                                     bool early, bool turned, heads_view value, float beta,
                                     float *out)
{
    reading k = { w->s,  w->r.dk, w->r.dv, x,    y, w->w,  false, early, early,
                  turned, NULL,   {},      NULL, 0, value, beta,  out };
    return k;
}

/* ---- kernels/cuda/recurrence.cu ---- */
NSMI_SHARED void nsmi_recurrence_carry(nsm_device *d, carrying k);
NSMI_SHARED void nsmi_recurrence_read(nsm_device *d, const reading &k);
/* out = T x, or T' x; x and out [B, n, H, size] */
NSMI_SHARED void nsmi_recurrence_solve(nsm_device *d, const sequences &s, const float *t,
                                       bool turned, heads_view x, float *out);
/* Where everything stands from base on; NULL: w->used says how much that is. */
NSMI_SHARED void nsmi_recurrence_rooms(recurrence_work *w, const nsmi_recurrence *r,
                                       const nsmi_recurrence_values *in, float *base);
/* What stands before the chunks: everything in scratch memory but what backward adds. */
NSMI_SHARED void nsmi_recurrence_prepare(nsm_device *d, const recurrence_work *w, const float *dout,
                                         float *dout_in);
NSMI_SHARED void nsmi_recurrence_read_out(nsm_device *d, const recurrence_work *w,
                                          const float *states, float *o);
/* kernels/cuda/recurrence_back.cu */
NSMI_SHARED void nsmi_cuda_recurrence_back(nsm_backend *be);

#endif
