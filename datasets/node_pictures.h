/* datasets/node_pictures.h - Pictures that come one by one, to become a column of nodes.  Not
 * installed. */
#ifndef NSM_NODE_PICTURES_H
#define NSM_NODE_PICTURES_H
#include "datasets/picture.h"
#include "datasets/words.h"

/* What the options size=H or HxW and channels=1 or 3 ask for; zeros where they are not given. */
nsm_picture_options nsmi_picture_wanted(const nsmi_options *o);

/* Room for a picture of this size at each node: none is there yet. */
bool nsmi_images_room(nsm_dataset *ds, nsm_dataset_nodes *v, const nsm_picture *like);
/* Copy a picture of that size to node i. */
void nsmi_images_put(nsm_dataset_nodes *v, int64_t i, const nsm_picture *p);
/* All are put: how many there are. */
int64_t nsmi_images_end(nsm_dataset_nodes *v);

/* "folder/name", or name where it begins at the root. */
char *nsmi_picture_path(nsm_ctx *ctx, const char *folder, const char *name);
/* [node->count] the files NAME.png, NAME.jpg, NAME.jpeg of a folder by the node of that name, NULL
 * where a node has none; to be freed by nsmi_picture_paths_free().  A picture of no node, and a
 * second one of the same, are errors. */
char **nsmi_pictures_in(nsm_ctx *ctx, const char *folder, const nsmi_words *node);
void nsmi_picture_paths_free(char **path, int64_t count);
/* Read a picture for each node that has a path; without size= all must be of one size.  Errors: a
 * file that cannot be read whole, another size, not one picture. */
int nsmi_pictures_to_nodes(nsm_dataset *ds, nsm_dataset_nodes *v, char *const *path,
                           const nsmi_options *o);
#endif
