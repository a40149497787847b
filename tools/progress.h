/* progress.h - Progress on stderr: a bar on a terminal, plain lines otherwise, nothing with -q;
 * and the signals that end a run: the first SIGINT, SIGTERM or SIGHUP asks for an orderly end
 * (finish the step, write a checkpoint, stop), the second stops at once. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H
#include "tools/tool.h"

typedef struct {
    bool silent, terminal;
    const char *what, *unit; /* "training", "epoch" */
    int64_t from, total;     /* total 0: not known */
    double began, shown, printed;
    int64_t at_shown;
    double rate;             /* of late: an exponential mean */
    bool open;               /* a bar stands on the terminal's line */
} progress;

/* Begin.  from: what was done before, in an earlier run, which no time is counted for. */
void progress_start(progress *p, const tool *t, const char *what, const char *unit, int64_t from,
                    int64_t total);
/* So much is done; cheap to call often.  The text (may be NULL) stands behind the bar: "loss
 * 0.31". */
void progress_step(progress *p, int64_t done, const char *format, ...) NSM_PRINTF(3, 4);
/* True when the next progress_step() will show: for text that costs something to make. */
bool progress_due(const progress *p);
/* The last state stays on the screen. */
void progress_end(progress *p, int64_t done, const char *format, ...) NSM_PRINTF(3, 4);

/* "3:07", "1:02:45" into buf. */
const char *progress_time(double seconds, char buf[32]);
double progress_now(void); /* seconds of a clock that only goes forward */

/* From here on the first signal only sets a flag. */
void stop_install(void);
int stop_signal(void); /* 0, or the signal that asked to stop: the exit code is then 128 + it */

#endif
