/* tests/base/test_schedule.c - Schedules: landmarks that the formulas promise, and what is refused.
 * The tables of torch and transformers are replayed by tests/oracle. */
#include "config.h"
#include "tests/test.h"
#include "base/schedule.h"

#define near(have, want) ck_assert_double_eq_tol(have, want, 1e-12)

START_TEST(landmarks)
{
    static const int64_t marks[] = { 10, 20 };
    nsm_schedule constant = { .lr = 2 };
    nsm_schedule step = { NSM_SCHEDULE_STEP, .lr = 1, .step_size = 3, .gamma = 0.5 };
    nsm_schedule multi = { NSM_SCHEDULE_MULTISTEP, .lr = 1, .milestone = marks, .milestones = 2 };
    nsm_schedule line = { NSM_SCHEDULE_LINEAR, .lr = 4, .steps = 10 };
    nsm_schedule wave = { NSM_SCHEDULE_COSINE, .lr = 1, .steps = 10, .lr_end = 0.5 };
    near(nsm_schedule_rate(&constant, 1000000), 2);
    near(nsm_schedule_rate(&step, 2), 1);
    near(nsm_schedule_rate(&step, 3), 0.5);
    near(nsm_schedule_rate(&multi, 9), 1);
    near(nsm_schedule_rate(&multi, 10), 0.1);
    near(nsm_schedule_rate(&multi, 20), 0.01);
    near(nsm_schedule_rate(&line, 0), 4);
    near(nsm_schedule_rate(&line, 5), 2);
    near(nsm_schedule_rate(&line, 50), 0);
    near(nsm_schedule_rate(&wave, 0), 1);
    near(nsm_schedule_rate(&wave, 5), 0.75);
    near(nsm_schedule_rate(&wave, 10), 0.5);
    near(nsm_schedule_rate(&wave, 20), 1);
}
END_TEST

START_TEST(warmup)
{
    for (int kind = NSM_SCHEDULE_WARMUP_CONSTANT; kind <= NSM_SCHEDULE_WARMUP_POLYNOMIAL; kind++) {
        nsm_schedule s = { (nsm_schedule_kind)kind, .lr = 3, .warmup = 4, .steps = 12 };
        near(nsm_schedule_rate(&s, 0), 0);
        near(nsm_schedule_rate(&s, 1), 0.75);
        near(nsm_schedule_rate(&s, 4), 3);
        s.warmup = 0;
        near(nsm_schedule_rate(&s, 0), 3);
    }
}
END_TEST

START_TEST(restarts)
{
    nsm_schedule s = { NSM_SCHEDULE_COSINE_RESTARTS, .lr = 1, .steps = 4, .period_factor = 3 };
    near(nsm_schedule_rate(&s, 0), 1);
    near(nsm_schedule_rate(&s, 2), 0.5);
    near(nsm_schedule_rate(&s, 4), 1);
    near(nsm_schedule_rate(&s, 10), 0.5);
    near(nsm_schedule_rate(&s, 16), 1);
    s.period_factor = 0;
    near(nsm_schedule_rate(&s, 4000000000LL), 1);
}
END_TEST

START_TEST(one_cycle)
{
    nsm_schedule s = { NSM_SCHEDULE_ONE_CYCLE, .lr = 1, .steps = 11,
                       .pct_start = 0.5454545454545454, .linear_anneal = true };
    near(nsm_schedule_rate(&s, 0), 0.04);
    near(nsm_schedule_rate(&s, 5), 1);
    near(nsm_schedule_rate(&s, 10), 0.04 / 10000);
    near(nsm_schedule_rate(&s, 100), 0.04 / 10000);
    s.pct_start = -1; /* no way up */
    near(nsm_schedule_rate(&s, 10), 0.04 / 10000);
    ck_assert_double_gt(nsm_schedule_rate(&s, 0), 0.8);
}
END_TEST

START_TEST(always_finite)
{
    static const int64_t at[] = { INT64_MIN, -1, 0, 1, 7, 8, 9, 1000, 1LL << 40, INT64_MAX };
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    for (int kind = 0; kind < NSM_SCHEDULE_KINDS; kind++)
        for (int warm = 0; warm < 20; warm += 8) {
            nsm_schedule s = { (nsm_schedule_kind)kind, .lr = 1,        .steps = 8,
                               .warmup = warm,          .step_size = 1, .period_factor = 2,
                               .three_phase = warm > 0 };
            ck_assert_int_eq(nsm_schedule_check(ctx, &s), NSM_OK);
            for (size_t i = 0; i < sizeof at / sizeof *at; i++)
                ck_assert_msg(isfinite(nsm_schedule_rate(&s, at[i])), "%s at %lld",
                              nsm_schedule_name(s.kind), (long long)at[i]);
        }
    nsm_ctx_free(ctx);
}
END_TEST

START_TEST(errors)
{
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    const nsm_schedule bad[] = {
        { (nsm_schedule_kind)99, .lr = 1 },
        { .lr = -1 },
        { .lr = NAN },
        { NSM_SCHEDULE_STEP, .lr = 1 },
        { NSM_SCHEDULE_COSINE, .lr = 1 },
        { NSM_SCHEDULE_ONE_CYCLE, .lr = 1, .steps = -3 },
        { NSM_SCHEDULE_WARMUP_CONSTANT, .lr = 1, .warmup = -1 },
        { NSM_SCHEDULE_MULTISTEP, .lr = 1, .milestones = 2 },
        { NSM_SCHEDULE_ONE_CYCLE, .lr = 1, .steps = 3, .pct_start = 2 },
        { NSM_SCHEDULE_WARMUP_INVERSE_SQRT, .lr = 1, .timescale = -2 },
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        nsm_schedule_check(ctx, &bad[i]);
        ck_error(ctx, NSM_EINVAL);
    }
    ck_assert_int_eq(nsm_schedule_find("warmup_cosine"), NSM_SCHEDULE_WARMUP_COSINE);
    ck_assert_int_eq(nsm_schedule_find("warmup_cosin"), -1);
    nsm_ctx_free(ctx);
}
END_TEST

int main(void)
{
    return test_main("schedule", (const TTest *const[]){ landmarks, warmup, restarts, one_cycle,
                                                         always_finite, errors, NULL });
}
