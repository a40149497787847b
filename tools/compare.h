/* compare.h - What the files of nsm compare share.
 *
 *   compare.c          the command: what is asked for, and the order of the work
 *   compare_match.c    sizes, so that states or parameters are equal
 *   compare_jobs.c     jobs: a folder each, a process each, taken up where they stopped
 *   compare_work.c     one job's work: training, or timing
 *   compare_explain.c  one job's work: what an answer rests on
 *   compare_scaling.c  another job's work: time against length, with a table of its own
 *   compare_table.c    results of all jobs as one table, charts and a page
 *
 * A comparison's folder:
 *   data.h5                       the task, where it is made
 *   runs/MODEL/lr-0.003/          a trial of a learning rate: a run's folder, job.json, result.json
 *   runs/MODEL/seed-0/            a run
 *   runs/MODEL/seed-0/explain/    what its answers rest on
 *   runs/MODEL/speed/             times by length
 *   table.txt table.csv cost.png state.png index.html
 * job.json says all that a job is; result.json appears whole when it is done, and says it again. */
#ifndef TOOLS_COMPARE_H
#define TOOLS_COMPARE_H
#include <jansson.h>
#include "datasets/dataset.h"
#include "datasets/sequences.h"
#include "tools/recipe.h"
#include "tools/tool.h"

enum { COMPARE_PATH = 4096 };

/* What is asked for beside the training's settings. */
typedef struct {
    setting_list lrs, lengths, state;
    int64_t params, explain, explain_k, segment;
    double trial, grow, limit;
    char *recipe;
} compare_settings;
extern const setting compare_fields[];

typedef enum { MATCH_NONE, MATCH_PARAMS = 1, MATCH_STATE = 2 } compare_match; /* or both together */

/* A row of the table. */
typedef struct {
    char label[256]; /* "nsm", "gla:heads=2", "nsm@16384" with several state sizes */
    char folder[COMPARE_PATH];
    const nsm_mixer_type *type;   /* one of both */
    const nsm_fuser_type *fuser;
    train_options o; /* mixer or fuser and sizes in place */
    int64_t parameters;
    int64_t state_bytes,
        token_bytes; /* of a sequence, all layers; token_bytes: what it grows by with every token */
    char note[256];  /* what could not be matched; "" */
    double lr;       /* the chosen one; NaN: not yet */
} contender;

typedef struct {
    tool *t;
    nsm_ctx *ctx;
    char out[COMPARE_PATH / 4], data[COMPARE_PATH / 2], digest[33]; /* digest: of the data's file */
    const char *task;
    compare_settings s;
    compare_match match;
    int64_t seeds, steps, jobs;
    bool scaling; /* time against length is asked for, not scores: there is no data */
    bool fused;   /* fusers are compared, on things that several modalities tell of */
    train_options base;
    nsm_sequences *ds;
    nsm_dataset *things;  /* fused: in its place */
    int64_t epoch_steps;  /* fused: steps of an epoch */
    contender *model;
    int models;
} comparison;

static inline const char *compare_system(const contender *m)
{
    return m->fuser ? m->fuser->name : m->type->name;
}
/* its own keys, as settings have them */
static inline const char *compare_options(const contender *m)
{
    return m->fuser ? m->o.fuser_options : m->o.mixer_options;
}

/* ---- compare_match.c ---- */
/* Fill parameters, state and sizes of every row, matched as asked.  Returns NSM_OK or the error. */
int compare_sizes(comparison *c);

/* ---- compare_jobs.c ---- */
/* The job of a row: kind "train", "explain" or "speed"; lr and seed of training, steps all of it.
 */
json_t *compare_job(const comparison *c, const contender *m, const char *kind, double lr,
                    uint64_t seed, int64_t steps);
/* folder/result.json's result; NULL: not there yet, or an error (another job's result). */
json_t *compare_result(nsm_ctx *ctx, const char *folder, const json_t *job);
void compare_trial_folder(const contender *m, double lr, char path[COMPARE_PATH]);
void compare_seed_folder(const contender *m, uint64_t seed, char path[COMPARE_PATH]);
void compare_explain_folder(const contender *m, uint64_t seed, char path[COMPARE_PATH]);
void compare_speed_folder(const contender *m, char path[COMPARE_PATH]);
/* Do what is not yet done.  Returns the exit code. */
int compare_run(comparison *c);
json_t *compare_trial_job(const comparison *c, const contender *m, double lr);
json_t *compare_seed_job(const comparison *c, const contender *m, uint64_t seed);

/* ---- compare_work.c, compare_explain.c ---- */
/* Do the job of this folder, in this process.  Returns the exit code. */
int compare_work(tool *t, const char *folder);
/* What answers rest on, into result. */
int compare_explain(nsm_ctx *ctx, const train_options *o, const nsm_sequences *ds, const char *run,
                    const json_t *job, json_t *result);

/* ---- compare_table.c ---- */
/* The table as it stands, printed and in files.  Returns the exit code. */
int compare_report(comparison *c);
void compare_put(comparison *c, const char *name,
                 const char *text); /* a file of the folder; NULL: out of memory */

/* ---- compare_scaling.c ---- */
json_t *compare_scaling_job(const comparison *c, const contender *m,
                            bool train); /* training, or telling */
void compare_scaling_folder(const contender *m, bool train, char path[COMPARE_PATH]);
int compare_scaling(nsm_ctx *ctx, const train_options *o, const json_t *job, json_t *result);
int compare_scaling_report(comparison *c);

#endif
