/* base/safetensors.h - Weights in and out as safetensors, the format of published models.
 *
 *   8 bytes         N, little-endian
 *   N bytes         JSON: {"__metadata__": {text: text}, name: {"dtype", "shape", "data_offsets"},
 *   ..}
 *   the rest        the tensors, little-endian, row-major
 *
 * A reader takes what the format allows and nothing else: N at most 100 MB and within the file, no
 * name twice, every size what its shape and type say, offsets that cover the rest without a gap or
 * an overlap.  All of it is checked against the file before memory is asked for.  The format has no
 * digest: damage within the numbers goes unnoticed (a checkpoint notices).
 *
 * Names are free; a module's are dotted, as those of PyTorch's state dicts. */
#ifndef NSM_SAFETENSORS_H
#define NSM_SAFETENSORS_H
#include "base/module.h"
#ifdef __cplusplus
extern "C" {
#endif

enum { NSM_SAFETENSORS_RANK = 8 };

typedef struct nsm_safetensors nsm_safetensors;
typedef struct {
    const char *name;
    /* "F64" "F32" "F16" "BF16" "I64" "I32" "I16" "I8" "U64" "U32" "U16" "U8" "BOOL" */
    const char *dtype;
    int rank;
    int64_t dim[NSM_SAFETENSORS_RANK];
    int64_t count, bytes;
} nsm_safetensors_entry;

/* ---- reading ---- */
/* Open a file, an index of several (model.safetensors.index.json), or a folder that holds
 * model.safetensors or that index.  Returns a reader, or NULL.
 * Errors: NSM_EIO; NSM_EFORMAT with the file and what is wrong; NSM_ENOMEM. */
nsm_safetensors *nsm_safetensors_open(nsm_ctx *ctx, const char *path);
void nsm_safetensors_free(nsm_safetensors *s); /* NULL is allowed */

int64_t nsm_safetensors_count(const nsm_safetensors *s);
/* by name, ascending */
const nsm_safetensors_entry *nsm_safetensors_at(const nsm_safetensors *s, int64_t i);
/* NULL, no error, if none */
const nsm_safetensors_entry *nsm_safetensors_find(const nsm_safetensors *s, const char *name);
/* The file's own strings; of several files the first that has the key.  NULL, no error, if none. */
const char *nsm_safetensors_metadata(const nsm_safetensors *s, const char *key);

/* All numbers of a tensor as float32 (count of them), whatever their type. */
int nsm_safetensors_read(nsm_safetensors *s, const char *name, float *out);
/* Its bytes as they stand in the file, in this machine's byte order. */
int nsm_safetensors_read_bytes(nsm_safetensors *s, const char *name, void *out);

/* ---- writing: whole or not at all ---- */
typedef struct {
    const char *name;
    nsm_type type;
    int rank;
    const int64_t *dim;
    const void *data; /* host */
} nsm_safetensors_array;
typedef struct { const char *key, *value; } nsm_safetensors_text;

/* Arrays are written in this order.  Errors: NSM_EINVAL a name or key comes twice; NSM_EIO;
 * NSM_ENOMEM. */
int nsm_safetensors_write(nsm_ctx *ctx, const char *path, const nsm_safetensors_array *array,
                          int64_t arrays, const nsm_safetensors_text *text, int64_t texts);

/* ---- modules ---- */
/* The file's name for a module's dotted name, into buf or a string that lives as long as the call;
 * NULL: not in files, left as it is. */
typedef const char *(*nsm_name_map)(void *user, const char *dotted, char *buf, size_t buf_bytes);

/* Start from zero, set what you need. */
typedef struct {
    nsm_name_map map;   /* (the same names) */
    void *user;
    bool allow_missing; /* tensors that the file lacks stay as they are (error) */
    bool allow_extra;   /* the file may hold others (error) */
    const nsm_safetensors_text *text; /* saved as metadata */
    int64_t texts;
} nsm_safetensors_options;

/* Fill a module's tensors and buffers, float32 from any type; dims of 1 are ignored.  Everything is
 * checked before anything is changed.  options may be NULL.
 * Errors: those of open; NSM_EFORMAT a tensor is missing, is extra or has another shape, by
 * name. */
int nsm_safetensors_load(nsm_module *m, const char *path, const nsm_safetensors_options *options);
int nsm_safetensors_save(nsm_module *m, const char *path, const nsm_safetensors_options *options);

#ifdef __cplusplus
}
#endif
#endif
