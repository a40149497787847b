/* datasets/import.c - The table of importers. */
#include "config.h"
#include "datasets/internal.h"

static const nsmi_maker importers[] = {
    { { "ogb", "OGB CSV layout: a folder with raw/ and split/",
        "directed=false  take edge.csv as it stands (else it is made symmetric)\n"
        "inverse=false  typed edges: add rev_<relation> for each\n"
        "features=true  false: do without node features\n"
        "labels=auto  class, multi or value; false: do without\n"
        "splits=true  false: do without\n" },
      nsmi_import_ogb },
    { { "wordnet", "WordNet's database files: the folder of data.noun, data.verb, data.adj, data.adv",
        "features=32768  columns that words are hashed to, a power of two\n"
        "seed=0  of the split \"default\", stratified 10/10/80\n" },
      nsmi_import_wordnet },
    { { NULL, NULL, NULL }, NULL },
};

const nsm_format *nsm_import_format(int i)
{
    int n = (int)(sizeof importers / sizeof *importers) - 1;
    return i >= 0 && i < n ? &importers[i].about : NULL;
}

nsm_dataset *nsm_import(nsm_ctx *ctx, const char *format, const char *source, const nsm_option *option, int options)
{
    return nsmi_make(ctx, importers, "import", format, source, option, options);
}
