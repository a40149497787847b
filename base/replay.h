/* base/replay.h - A pass that asks the same of the device every time, asked again at once.
 *
 * On a GPU a small step costs what its launches cost.  Where shapes are steady a pass - forward,
 * loss, backward - is recorded once as a CUDA graph; from then on a run is one launch, and the
 * function is not called any more.  Results are those of calling it, bit for bit, dropout included.
 *
 *     int pass(void *user)               // inputs and loss are tensors of the caller's
 *     {
 *         nsm_tensor *l = nsm_cross_entropy(tape, nsm_gcn_apply(...), label, NULL);
 *         nsm_tape_backward(tape, l);
 *         nsm_tensor_copy(loss, l);
 *         nsm_tape_reset(tape);
 *         return nsm_error(ctx);
 *     }
 *     nsm_replay_run(replay, 0, pass, user);
 *     nsm_optimizer_step(optimizer, lr);
 *
 * What a pass must keep to: what differs from run to run stands in tensors that the caller made,
 * and fills by nsm_tensor_set() before; results are copied into such tensors; nothing is remembered
 * on the host.  The pass may draw random numbers and leave gradients in the module's parameters.
 *
 * The first runs of a shape call the pass, and it is watched.  One that copies from or to the host,
 * or that goes on asking for memory, is called every time: nsm_replay_why() says so.  On the CPU,
 * or with NSM_REPLAY=0 in the environment, a pass is called every time. */
#ifndef NSM_REPLAY_H
#define NSM_REPLAY_H
#include "base/module.h"
#ifdef __cplusplus
extern "C" {
#endif

typedef struct nsm_replay nsm_replay;

/* For passes over this module, which must outlive it.  NULL: the error stands. */
nsm_replay *nsm_replay_new(nsm_module *module);
void nsm_replay_free(nsm_replay *r);

/* Run a pass, by recording or calling it.  shape: a number of the caller's that is another one
 * where a shape, or a setting of the module, is; recordings of eight are kept.  Returns NSM_OK or
 * what the pass or the device reported. */
int nsm_replay_run(nsm_replay *r, int64_t shape, int (*pass)(void *user), void *user);

int64_t nsm_replay_count(const nsm_replay *r);  /* runs that did not call the pass */
const char *nsm_replay_why(const nsm_replay *r); /* why all of them do; "": nothing is against it */

#ifdef __cplusplus
}
#endif
#endif
