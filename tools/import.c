/* import.c - nsm import: other people's files into a dataset file. */
#include <stdlib.h>
#include <string.h>
#include "tools/progress.h"
#include "tools/summary.h"

static int run_import(tool *t)
{
    int options;
    double began = progress_now();
    nsm_option *option = pair_options(t, true, &options);
    if (!option) return TOOL_FAILED;
    tool_note(t, "reading %s", t->arg[1]);
    for (int i = 0; nsm_sequences_format(i); i++) {
        if (strcmp(nsm_sequences_format(i)->name, t->arg[0])) continue;
        nsm_sequences *s = nsm_sequences_import(t->ctx, t->arg[0], t->arg[1], option, options);
        free(option);
        return sequences_finish(t, s, t->arg[2], began);
    }
    nsm_dataset *ds = nsm_import(t->ctx, t->arg[0], t->arg[1], option, options);
    free(option);
    return dataset_finish(t, ds, t->arg[2], began);
}

static void more_help(FILE *out)
{
    formats_help(out, "Formats", nsm_import_format);
    formats_help(out, "\nFormats of sequences", nsm_sequences_format);
}

const tool_command import_command = {.name = "import",
                                     .args = "FORMAT SOURCE DEST.h5 [KEY=VALUE...]",
                                     .summary = "Turn other people's files into a dataset.",
                                     .details = "SOURCE is a file or a folder, as the format wants "
                                                "it.  DEST.h5 is written whole or not at all.",
                                     .takes_pairs = true,
                                     .more_help = more_help,
                                     .least = 3,
                                     .most = 3,
                                     .run = run_import};
