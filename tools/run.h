/* run.h - A run's folder: what a training run leaves, and goes on from.
 *
 *   config.yaml            every setting, resolved
 *   log.csv                a row an epoch (or some steps); the first column is the epoch
 *   events.out.tfevents.nsm  the same for TensorBoard
 *   checkpoint-120.h5      the newest ones, by step (an epoch, or with batch_size a batch); the
 *   last is the final state (base/checkpoint.h)
 *   best.h5                the state that validation liked best
 *   loss.png ...           charts
 *
 * Only one process at a time may write in a folder: it is locked.  Errors are left in the
 * context. */
#ifndef TOOLS_RUN_H
#define TOOLS_RUN_H
#include <nsm.h>
#include "tools/settings.h"

typedef struct run run;

/* Open the folder, made if missing (with its parents), and lock it.  Without resume, what an
 * earlier run left there (the names above but for charts) is removed. */
run *run_open(nsm_ctx *ctx, const char *folder, bool resume);
int run_close(run *r); /* NULL is allowed */

const char *run_folder(const run *r);
/* "folder/name", owned by the run until it is closed; NULL when memory is out. */
const char *run_path(run *r, const char *name);

int run_config(run *r, const setting *fields, const void *options); /* write config.yaml */

/* Start the log, columns given; rows and events after `epoch` are cut off: -1 starts anew. */
int run_log_open(run *r, int columns, const char *const *column, int64_t epoch);
/* One row, value[0] the epoch; NaN leaves a field empty.  Also goes to the events. */
int run_log(run *r, const double *value);
int run_log_flush(run *r);

/* ---- a log read back, for charts ---- */
typedef struct {
    int columns;
    int64_t rows;
    char **name;   /* [columns] */
    double *value; /* [columns, rows]: column by column; NaN where empty */
} run_table;
int run_table_read(nsm_ctx *ctx, run_table *t, const char *path);
void run_table_free(run_table *t);
const double *run_table_column(const run_table *t, const char *name); /* NULL: none */

/* Write a whole file so that it is there complete or not at all (temporary, flush, rename). */
int make_folder(nsm_ctx *ctx, const char *folder); /* with its parents; there already is well */
int write_file(nsm_ctx *ctx, const char *path, const void *data, size_t bytes);

#endif
