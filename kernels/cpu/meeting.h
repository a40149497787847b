/* kernels/cpu/meeting.h - Threads of a team that wait for one another many thousand times in one
 * call: the steps of a recurrence, each a few microseconds.
 *
 * OpenMP's barrier costs as much as such a step, and where other programs want the cores it waits
 * for a thread that has none without giving up its own.
 */
#ifndef NSMI_CPU_MEETING_H
#define NSMI_CPU_MEETING_H

#include <sched.h>
#include <stdatomic.h>

#if defined(__x86_64__)
#define NSMI_PAUSE() __builtin_ia32_pause()
#else
#define NSMI_PAUSE() ((void)0)
#endif

typedef struct { atomic_int here, round; } nsmi_meeting; /* zeros at the start */

/* Returns once all `team` threads have come; what they wrote before is then seen. */
static inline void nsmi_meet(nsmi_meeting *m, int team)
{
    enum { PATIENCE = 4096 }; /* looks before the core is offered to others: some 50 us */
    int round = atomic_load_explicit(&m->round, memory_order_relaxed);
    if (atomic_fetch_add_explicit(&m->here, 1, memory_order_acq_rel) == team - 1) {
        atomic_store_explicit(&m->here, 0, memory_order_relaxed);
        atomic_store_explicit(&m->round, round + 1, memory_order_release);
        return;
    }
    for (int looks = 0; atomic_load_explicit(&m->round, memory_order_acquire) == round; looks++)
        if (looks < PATIENCE) NSMI_PAUSE();
        else sched_yield();
}

#endif
