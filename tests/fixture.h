/* tests/fixture.h - One file of outputs and gradients made by a reference implementation.
 *
 *   attributes   system, case, config (JSON)
 *   /weights/<name> /inputs/<name> /outputs/<name> /cotangents/<output>
 *   /grads/inputs/<name> /grads/weights/<name> /train/...
 *
 * A test builds what the config says, loads the weights, computes, and hands each output to
 * fixture_output(), which compares it and seeds its cotangent; fixture_grads() then walks back and
 * compares every gradient.  A fault of any kind is noted, never fatal; fixture_verdict() sums up.
 *
 * Error of a tensor: max|a-b| / max|b|; where max|b| is below 1e-3 M, M being the largest value of
 * its kind (outputs, or gradients) in the file: max|a-b| / M.  Allowed: config "tolerance",
 * 1e-4. */
#ifndef NSM_FIXTURE_H
#define NSM_FIXTURE_H
#include <jansson.h>
#include "base/internal.h"

typedef struct fixture fixture;

/* Open a file; NULL with a sentence in why.  The context outlives the fixture. */
fixture *fixture_open(nsm_ctx *ctx, const char *path, char why[256]);
void fixture_close(fixture *f);
nsm_ctx *fixture_ctx(const fixture *f);
const char *fixture_system(const fixture *f);
const char *fixture_case(const fixture *f);
const char *fixture_kind(const fixture *f); /* config "kind" */

/* ---- config: a missing key gives the fallback ---- */
json_t *fixture_config(const fixture *f);
double fixture_number(const fixture *f, const char *key, double fallback);
int64_t fixture_int(const fixture *f, const char *key, int64_t fallback);
bool fixture_bool(const fixture *f, const char *key, bool fallback);
const char *fixture_text(const fixture *f, const char *key, const char *fallback);

/* ---- arrays: by path ("inputs/x"); owned by the fixture; NULL and a fault if missing ---- */
bool fixture_has(const fixture *f, const char *path);
/* The next path that starts with group ("weights/") from *at on, which starts at 0; NULL after the
 * last. */
const char *fixture_next(const fixture *f, const char *group, int *at);
/* the rank; -1 if missing */
int fixture_dims(fixture *f, const char *path, int64_t dim[NSM_MAX_RANK]);
float *fixture_floats(fixture *f, const char *path, int64_t *count);
int32_t *fixture_ints(fixture *f, const char *path, int64_t *count);
/* float32; needs a gradient if one is recorded */
nsm_tensor *fixture_input(fixture *f, const char *name);
nsm_tensor *fixture_index(fixture *f, const char *name);     /* int32 */
nsm_tensor *fixture_weight(fixture *f, const char *name);    /* a bare parameter, not in a module */
/* Every /weights array into the module's tensor of that name (dims of 1 ignored); a name without a
 * partner on either side is a fault. */
void fixture_load(fixture *f, nsm_module *m);

/* ---- comparing ---- */
void fixture_output(fixture *f, nsm_tape *tape, const char *name, nsm_tensor *y);
/* host numbers against any path */
void fixture_values(fixture *f, const char *path, const float *have, int64_t count);
/* Backward, then every /grads array that was not compared yet: those of the module's parameters, of
 * inputs and of bare weights. */
void fixture_grads(fixture *f, nsm_tape *tape, nsm_module *m);
/* Every trained tensor against <path>/<name>, after training steps. */
void fixture_module(fixture *f, const char *path, nsm_module *m);
void fixture_fault(fixture *f, const char *format, ...) NSM_PRINTF(2, 3);

/* True when all was compared and agrees; the largest error, and a sentence on the worst. */
bool fixture_verdict(fixture *f, double *error, const char **what);

/* ---- the replayer's tables (tests/oracle.c) ---- */
typedef struct {
    const char *system, *kind;
    void (*run)(fixture *f);
} oracle_kind;

#endif
