/* base/typed.c - Building sparse matrices whose entries have types.
 *
 * Three stable counting passes (by column, row, type) sort the coordinates in O(E + T + R + C); a
 * group ends where type or row changes, a piece where the type does or its groups are many. */
#include "config.h"
#include "base/internal.h"

/* The coordinates of one direction. */
typedef struct {
    int64_t types, rows, cols, nnz;
    const int32_t *type, *row, *col;
} coordinates;

/* What a direction is made of, on the host: entries in order, and where groups start. */
typedef struct {
    int32_t *order, *idx, *row, *type; /* [nnz], [nnz], [groups], [groups] */
    int64_t *ptr;                      /* [groups + 1] */
    int64_t groups;
} layout;

static void layout_free(layout *l)
{
    free(l->order);
    free(l->idx);
    free(l->row);
    free(l->type);
    free(l->ptr);
}

static bool sort_entries(nsm_ctx *ctx, const coordinates *c, layout *l)
{
    int64_t most = c->rows > c->cols ? c->rows : c->cols;
    if (c->types > most) most = c->types;
    int64_t *count = nsmi_malloc(ctx, (size_t)(most + 2) * sizeof *count);
    int32_t *other = nsmi_malloc(ctx, (size_t)c->nnz * sizeof *other);
    l->order = nsmi_malloc(ctx, (size_t)c->nnz * sizeof *l->order);
    bool ok = count && other && l->order;
    if (ok) {
        nsmi_counting_sort(c->nnz, c->cols, c->col, NULL, l->order, count);
        nsmi_counting_sort(c->nnz, c->rows, c->row, l->order, other, count);
        nsmi_counting_sort(c->nnz, c->types, c->type, other, l->order, count);
    }
    free(count);
    free(other);
    return ok;
}

static bool make_layout(nsm_ctx *ctx, const coordinates *c, layout *l)
{
    size_t ints = (size_t)c->nnz * sizeof(int32_t);
    if (!sort_entries(ctx, c, l)) return false;
    l->idx = nsmi_malloc(ctx, ints);
    l->row = nsmi_malloc(ctx, ints);
    l->type = nsmi_malloc(ctx, ints);
    l->ptr = nsmi_malloc(ctx, (size_t)(c->nnz + 1) * sizeof *l->ptr);
    if (nsmi_failed(ctx)) return false;
    for (int64_t e = 0; e < c->nnz; e++) {
        int32_t k = l->order[e];
        int64_t g = l->groups;
        l->idx[e] = c->col[k];
        if (g > 0 && l->row[g - 1] == c->row[k] && l->type[g - 1] == c->type[k]) continue;
        l->row[g] = c->row[k];
        l->type[g] = c->type[k];
        l->ptr[l->groups++] = e;
    }
    l->ptr[l->groups] = c->nnz;
    return true;
}

/* Where the piece that begins with group g ends. */
static int64_t piece_end(const layout *l, int64_t g)
{
    int64_t end = g + 1;
    while (end < l->groups && end - g < NSM_TYPED_GROUPS && l->type[end] == l->type[g]) end++;
    return end;
}

static bool fill_pieces(nsm_ctx *ctx, const layout *l, nsm_typed_side *s)
{
    int64_t *ptr = nsmi_malloc(ctx, (NSM_TYPED_GROUPS + 1) * sizeof *ptr), pieces = 0;
    for (int64_t g = 0; g < l->groups; g = piece_end(l, g)) pieces++;
    s->piece = nsmi_calloc(ctx, (size_t)pieces, sizeof *s->piece);
    for (int64_t g = 0, end; !nsmi_failed(ctx) && g < l->groups; g = end) {
        nsm_typed_piece *p = &s->piece[s->pieces++];
        end = piece_end(l, g);
        p->type = l->type[g];
        p->first = g;
        p->entry = l->ptr[g];
        for (int64_t i = g; i <= end; i++) ptr[i - g] = l->ptr[i] - p->entry;
        nsmi_csr_fill_part(ctx, &p->part, end - g, s->cols, ptr, l->idx + p->entry, NULL);
    }
    free(ptr);
    return !nsmi_failed(ctx);
}

/* share: of each entry, in the caller's order; filled from fwd's groups, then read. */
static bool make_side(nsm_ctx *ctx, const coordinates *c, float *share, bool fills,
                      nsm_typed_side *s, nsm_csr **group)
{
    layout l = { 0 };
    float *sorted = nsmi_malloc(ctx, (size_t)c->nnz * sizeof *sorted);
    *s = (nsm_typed_side){ .rows = c->rows, .cols = c->cols, .nnz = c->nnz };
    if (sorted && make_layout(ctx, c, &l) && fill_pieces(ctx, &l, s)) {
        for (int64_t g = 0; fills && g < l.groups; g++)
            for (int64_t e = l.ptr[g]; e < l.ptr[g + 1]; e++)
                share[l.order[e]] = 1.0f / (float)(l.ptr[g + 1] - l.ptr[g]);
        for (int64_t e = 0; e < c->nnz; e++) sorted[e] = share[l.order[e]];
        s->groups = l.groups;
        s->row = nsmi_device_put(ctx, l.row, (size_t)l.groups * sizeof *l.row);
        s->share = nsmi_device_put(ctx, sorted, (size_t)c->nnz * sizeof *sorted);
        if (group) *group = nsm_csr_from_rows(ctx, l.groups, c->cols, l.ptr, l.idx, false);
    }
    free(sorted);
    layout_free(&l);
    return !nsmi_failed(ctx);
}

static bool check(nsm_ctx *ctx, const char *what, int64_t nnz, const int32_t *index, int64_t limit)
{
    for (int64_t k = 0; k < nnz; k++)
        if (index[k] < 0 || index[k] >= limit) {
            nsm_error_set(ctx, NSM_EINVAL, "nsm_typed_new: %s of entry %lld is %d, want 0..%lld",
                          what, (long long)k, index[k], (long long)limit - 1);
            return false;
        }
    return true;
}

nsm_typed *nsm_typed_new(nsm_ctx *ctx, int types, int64_t rows, int64_t cols, int64_t nnz,
                         const int32_t *row, const int32_t *col, const int32_t *type,
                         bool without_transpose, bool with_groups)
{
    if (nsmi_failed(ctx)) return NULL;
    if (types < 0 || rows < 0 || cols < 0 || nnz < 0 || rows > INT32_MAX || cols > INT32_MAX ||
        nnz > INT32_MAX) {
        nsm_error_set(ctx, NSM_EINVAL,
                      "nsm_typed_new: %d types, %lld rows, %lld columns, %lld entries: each must "
                      "be 0..2^31-1",
                      types, (long long)rows, (long long)cols, (long long)nnz);
        return NULL;
    }
    if (!check(ctx, "row", nnz, row, rows) || !check(ctx, "column", nnz, col, cols) ||
        !check(ctx, "type", nnz, type, types))
        return NULL;
    nsm_typed *t = nsmi_calloc(ctx, 1, sizeof *t);
    float *share = nsmi_malloc(ctx, (size_t)nnz * sizeof *share);
    coordinates by_row = { types, rows, cols, nnz, type, row, col },
                by_col = { types, cols, rows, nnz, type, col, row };
    bool ok = t && share;
    if (t) t->ctx = ctx;
    if (ok) {
        t->types = types;
        ok = make_side(ctx, &by_row, share, true, &t->fwd, with_groups ? &t->group : NULL) &&
             (without_transpose || make_side(ctx, &by_col, share, false, &t->bwd, NULL));
    }
    free(share);
    if (ok) return t;
    nsm_typed_free(t);
    return NULL;
}

static void side_free(nsm_ctx *ctx, nsm_typed_side *s)
{
    for (int64_t i = 0; i < s->pieces; i++) nsmi_csr_free_part(ctx, &s->piece[i].part);
    free(s->piece);
    nsmi_device_free(ctx, s->row);
    nsmi_device_free(ctx, s->share);
}

void nsm_typed_free(nsm_typed *t)
{
    if (!t) return;
    side_free(t->ctx, &t->fwd);
    side_free(t->ctx, &t->bwd);
    nsm_csr_free(t->group);
    free(t);
}
