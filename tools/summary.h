/* summary.h - Datasets as result objects, shared by import, generate, split and info. */
#ifndef TOOLS_SUMMARY_H
#define TOOLS_SUMMARY_H
#include "datasets/dataset.h"
#include "datasets/import.h"
#include "tools/report.h"

/* Name, sizes and splits; NULL when memory is out. */
json_t *dataset_summary(const nsm_dataset *ds, const char *path);
json_t *split_summary(const nsm_dataset *ds); /* [{name, train, valid, test}] */

/* The command line's key=value as pairs for a reader or generator; --seed becomes seed=N unless it
 * is given.  The caller frees the array (one free()).  NULL: out of memory, reported. */
nsm_option *pair_options(const tool *t, bool with_seed, int *count);

/* --help's list of formats or kinds. */
void formats_help(FILE *out, const char *title, const nsm_format *(*at)(int i));

/* Write the dataset and report it: how import, generate and split end.  Returns the exit code. */
int dataset_finish(const tool *t, nsm_dataset *ds, const char *path, double began);

/* The same for sequences. */
json_t *sequences_summary(const nsm_sequences *s, const char *path);
int sequences_finish(const tool *t, nsm_sequences *s, const char *path, double began);

#endif
