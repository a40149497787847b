/* base/tensor.h - Tensors: row-major, contiguous, on the context's device.
 *
 * At most five dimensions, float32 unless said; transposing copies, reshaping is free.  A float
 * tensor with csr set is a sparse matrix: dim = [rows, cols], data = its nnz values in csr order.
 * What you made with nsm_tensor_new you free; what an op returned belongs to its tape. */
#ifndef NSM_TENSOR_H
#define NSM_TENSOR_H
#include "base/context.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { NSM_MAX_RANK = 5 };

typedef enum { NSM_F32, NSM_BF16, NSM_F16, NSM_I32, NSM_I64, NSM_U8, NSM_F64 } nsm_type;

typedef struct nsm_csr nsm_csr;
typedef struct nsm_typed nsm_typed; /* base/sparse.h, too */
typedef struct nsm_tensor nsm_tensor;

struct nsm_tensor {
    nsm_ctx *ctx;
    int rank;
    nsm_type type;
    bool needs_grad;
    int64_t dim[NSM_MAX_RANK]; /* dims past rank are 1 */
    union {
        void *data;
        float *f32;
        int32_t *i32;
        int64_t *i64;
        uint8_t *u8;
        double *f64; /* only in states and files: no op takes it */
    };
    float *grad;        /* same count as data, or NULL while no gradient has reached it */
    const nsm_csr *csr; /* sparse: where the values stand; not owned, must outlive the tensor */
    nsm_tensor *base;   /* a reshaped view: whose data and gradient these are */
    /* -- the tape's own notes -- */
    void *owner;      /* the tape an op result belongs to, NULL for what the caller made */
    int held;         /* recorded backward passes that still read data */
    unsigned flags;
};

/* Make a tensor, uninitialised (zeros: nsm_tensor_zero).  Returns NULL on error: NSM_EINVAL a
 * negative dim or a rank outside 0..5, NSM_ENOMEM (also when the size overflows). */
nsm_tensor *nsm_tensor_new(nsm_ctx *ctx, nsm_type type, int rank, const int64_t *dim);
/* The same from host memory, copied. */
nsm_tensor *nsm_tensor_from(nsm_ctx *ctx, nsm_type type, int rank, const int64_t *dim,
                            const void *host);
/* A sparse matrix [csr->rows, csr->cols] with these values [csr->nnz], in csr order, copied. */
nsm_tensor *nsm_tensor_sparse(nsm_ctx *ctx, const nsm_csr *csr, const float *host_values);
void nsm_tensor_free(nsm_tensor *t); /* NULL is allowed */

int64_t nsm_numel(const nsm_tensor *t); /* values stored: the product of dims, or nnz if sparse */
size_t nsm_type_bytes(nsm_type type);
const char *nsm_type_name(nsm_type type);

/* Copy all of a tensor, or of its gradient, from or to host memory. */
int nsm_tensor_set(nsm_tensor *t, const void *host);
int nsm_tensor_get(const nsm_tensor *t, void *host);
int nsm_tensor_get_grad(const nsm_tensor *t, float *host); /* zeros while there is none */
int nsm_tensor_zero(nsm_tensor *t);
int nsm_tensor_fill(nsm_tensor *t, float value);
int nsm_tensor_copy(nsm_tensor *to, const nsm_tensor *from); /* same count and type */
void nsm_tensor_zero_grad(nsm_tensor *t);
float nsm_tensor_item(const nsm_tensor *t); /* the value of a one-element tensor; NaN on error */

/* "[2,3]" into buf; returns buf. */
const char *nsm_shape_text(const nsm_tensor *t, char buf[96]);

#ifdef __cplusplus
}
#endif
#endif
