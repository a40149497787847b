/* datasets/foreign.c - HDF5 files from elsewhere, in the layout of doc/format.md but without a
 * seal. libhdf5 can crash or hang on damaged metadata: they are parsed in a child. */
#include "config.h"
#include "datasets/internal.h"

static nsm_dataset *read_foreign(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    (void)o;
    nsmi_h5 *h = nsmi_h5_open_foreign(ctx, source);
    nsm_dataset *ds = nsmi_dataset_read(ctx, h, NULL);
    nsmi_h5_close(h);
    return ds;
}

nsm_dataset *nsmi_import_hdf5(nsm_ctx *ctx, const char *source, const nsmi_options *o)
{
    return nsmi_in_child(ctx, source, o, read_foreign);
}
