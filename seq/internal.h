/* seq/internal.h - What the sequence systems share.  Not installed. */
#ifndef NSM_SEQ_INTERNAL_H
#define NSM_SEQ_INTERNAL_H
#include "base/internal.h"
#include "base/ops.h"
#include "seq/mixer.h"

/* A parameter of a mixer: uniform in +-1/sqrt(inputs), as torch.nn.Linear has it; filled with
 * `value`. */
nsm_tensor *nsmi_mixer_linear(nsm_mixer *m, const char *name, int64_t out, int64_t in);
nsm_tensor *nsmi_mixer_fill(nsm_mixer *m, const char *name, int rank, const int64_t *dim,
                            float value);

/* A part of a state as an op's input: while the tape trains a copy, since the part will be written
 * before backward reads it; else the part itself. */
nsm_tensor *nsmi_state_read(nsm_tape *tape, const nsm_state *s, const char *name);
/* Leave y's values (a result of this tape) in the part. */
int nsmi_state_write(nsm_state *s, const char *name, const nsm_tensor *y);

/* The errors of a flow(): nothing was watched, or something of another shape. */
int nsmi_flow_unseen(nsm_mixer *m, bool seen, int64_t row, int64_t n);

/* Split the last axis: [.., heads * size] -> [.., heads, size], and back. */
nsm_tensor *nsmi_split_heads(nsm_tape *tape, nsm_tensor *x, int64_t heads);
nsm_tensor *nsmi_join_last(nsm_tape *tape, nsm_tensor *x);

/* One step of a GRU (seq/rnn.h): x [N, I], h [N, H] -> [N, H].  ih [3H, I], hh [3H, H], bih, bhh
 * [3H]. */
typedef struct { nsm_tensor *ih, *hh, *bih, *bhh; } nsmi_gru;
nsm_tensor *nsmi_gru_cell(nsm_tape *tape, const nsmi_gru *w, nsm_tensor *x, nsm_tensor *h);

/* Toeplitz matrices: of x [H, 2 T c] T rows, each c places further to the right than the one above,
 * [H, T, (2 T - 1) c].  Rows that are so much shorter, read from a text of repeated x, shift by
 * themselves. */
nsm_tensor *nsmi_shifted(nsm_tape *tape, nsm_tensor *x, int64_t rows);

#endif
