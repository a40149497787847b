/* base/seal.h - Drafts: files that appear whole or not at all; seals: files that say when they are
 * damaged.  Internal, not installed.
 *
 * A draft is written under a temporary name in the folder of its path and renamed at the end.
 * While its writer lives the temporary is locked; what a dead writer left is removed by the next
 * draft of the same path.
 *
 * A seal is the first 512 bytes of a file, numbers little-endian:
 *     0  magic "\x89NSM\r\n\x1a\n"      8  version, 4 bytes     12  512, 4 bytes
 *    16  kind, 16 bytes, zero-padded   32  length of all that follows the seal, 8 bytes
 *    40  XXH3-128 of all that follows, canonical (big-endian), 16 bytes
 *    56  zeros                        504  XXH3-64 of the 504 bytes before, canonical */
#ifndef NSM_SEAL_H
#define NSM_SEAL_H
#include "base/context.h"

enum { NSMI_SEAL_BYTES = 512, NSMI_SEAL_VERSION = 1, NSMI_KIND_BYTES = 16 };

typedef struct nsmi_draft nsmi_draft;

/* Make the temporary file, empty.  path may exist if it is a regular file. */
nsmi_draft *nsmi_draft_new(nsm_ctx *ctx, const char *path);
const char *nsmi_draft_temporary(const nsmi_draft *d); /* write here */
int nsmi_draft_fd(const nsmi_draft *d);                /* ... or here */
/* Seal (unless kind is NULL: then the file needs no room for one), flush, rename, flush the folder.
 * With an error in ctx: remove the temporary.  Frees d.  Returns the code that stands. */
int nsmi_draft_commit(nsm_ctx *ctx, nsmi_draft *d, const char *kind);
void nsmi_draft_abort(nsmi_draft *d); /* remove the temporary; NULL is allowed */

/* Open a sealed file for reading, verified in full.  kind NULL: any.  Returns a descriptor, or -1
 * with an error that says what is wrong, and what the file is if it is of another kind. */
int nsmi_seal_open(nsm_ctx *ctx, const char *path, const char *kind);
/* The kind that the seal of a file names; only the seal is verified. */
int nsmi_seal_kind(nsm_ctx *ctx, const char *path, char kind[NSMI_KIND_BYTES]);
#endif
