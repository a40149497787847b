/* generate.c - nsm generate: random graphs with known properties, and tasks of sequences. */
#include "datasets/generate.h"
#include <stdlib.h>
#include <string.h>
#include "tools/progress.h"
#include "tools/summary.h"

static int run_generate(tool *t)
{
    int options;
    double began = progress_now();
    nsm_option *option = pair_options(t, true, &options);
    if (!option) return TOOL_FAILED;
    for (int i = 0; nsm_sequences_task(i); i++) {
        if (strcmp(nsm_sequences_task(i)->name, t->arg[0])) continue;
        nsm_sequences *s = nsm_sequences_generate(t->ctx, t->arg[0], option, options);
        free(option);
        return sequences_finish(t, s, t->arg[1], began);
    }
    nsm_dataset *ds = nsm_generate(t->ctx, t->arg[0], option, options);
    free(option);
    return dataset_finish(t, ds, t->arg[1], began);
}

static void more_help(FILE *out)
{
    formats_help(out, "Kinds", nsm_generate_kind);
    formats_help(out, "\nTasks", nsm_sequences_task);
}

const tool_command generate_command = {
    .name = "generate",
    .args = "KIND DEST.h5 [KEY=VALUE...]",
    .summary = "Make a dataset: a random graph, or a task of sequences.",
    .details = "The same keys and seed give the same file.",
    .takes_pairs = true,
    .more_help = more_help,
    .least = 2,
    .most = 2,
    .run = run_generate
};
