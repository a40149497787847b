/* generate.c - nsm generate: random graphs with known properties. */
#include "datasets/generate.h"
#include <stdlib.h>
#include "tools/progress.h"
#include "tools/summary.h"

static int run_generate(tool *t)
{
    int options;
    double began = progress_now();
    nsm_option *option = pair_options(t, true, &options);
    if (!option) return TOOL_FAILED;
    nsm_dataset *ds = nsm_generate(t->ctx, t->arg[0], option, options);
    free(option);
    return dataset_finish(t, ds, t->arg[1], began);
}

static void more_help(FILE *out) { formats_help(out, "Kinds", nsm_generate_kind); }

const tool_command generate_command = {.name = "generate",
                                       .args = "KIND DEST.h5 [KEY=VALUE...]",
                                       .summary = "Make a dataset: a random graph.",
                                       .details = "The same keys and seed give the same file.",
                                       .takes_pairs = true,
                                       .more_help = more_help,
                                       .least = 2,
                                       .most = 2,
                                       .run = run_generate};
