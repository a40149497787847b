/* tests/oracle.c - Replay fixtures: build the system a file names, run it forward and backward.
 *
 *   oracle FILE.h5...      PASS|FAIL|SKIP system/case error, a line each; then the sums
 *
 * Without arguments it replays those of tests/fixtures.  Each file is opened in a child process
 * with a time limit: a damaged one may crash libhdf5, which is then a FAIL like any other.
 * A new system adds its table to TABLES; SKIP is for systems without one. */
#include "config.h"
#include <glob.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/fixture.h"

#define TABLES(X) \
    X(losses) \
    X(optimizers) X(primitives) X(graph) X(seq) X(linear) X(scan) X(s4) X(rwkv) X(models) \
        X(memory) X(fusion) X(images)
#define DECLARE(name) extern const oracle_kind oracle_##name[];
#define ADDRESS(name) oracle_##name,
TABLES(DECLARE)
static const oracle_kind *const tables[] = { TABLES(ADDRESS) NULL };

enum { SECONDS = 120 };
enum { PASSED = 0, FAILED = 1, SKIPPED = 2 };

static const oracle_kind *look_up(const fixture *f)
{
    for (int t = 0; tables[t]; t++)
        for (const oracle_kind *k = tables[t]; k->system; k++)
            if (!strcmp(k->system, fixture_system(f)) && !strcmp(k->kind, fixture_kind(f)))
                return k;
    return NULL;
}

static int replay(const char *path)
{
    char why[256];
    nsm_ctx *ctx = nsm_ctx_new(NULL);
    fixture *f = fixture_open(ctx, path, why);
    int result = FAILED;
    if (!f) {
        printf("FAIL %s: %s\n", path, why);
        nsm_ctx_free(ctx);
        return FAILED;
    }
    const oracle_kind *k = look_up(f);
    if (!k) {
        printf("SKIP %s/%s kind %s is not built\n", fixture_system(f), fixture_case(f),
               fixture_kind(f));
        result = SKIPPED;
    } else {
        double error;
        const char *what;
        k->run(f);
        bool ok = fixture_verdict(f, &error, &what);
        printf("%s %s/%s %.2e%s%s\n", ok ? "PASS" : "FAIL", fixture_system(f), fixture_case(f),
               error, ok ? "" : " ", ok ? "" : what);
        result = ok ? PASSED : FAILED;
    }
    fixture_close(f);
    nsm_ctx_free(ctx);
    return result;
}

static int in_child(const char *path)
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (child < 0) return FAILED;
    if (child == 0) {
        alarm(SECONDS);
        int result = replay(path);
        exit(fflush(stdout) ? FAILED : result); /* exit, not _exit: the leak check runs */
    }
    if (waitpid(child, &status, 0) < 0) return FAILED;
    if (WIFEXITED(status) && WEXITSTATUS(status) <= SKIPPED) return WEXITSTATUS(status);
    printf("FAIL %s: %s\n", path,
           WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? "out of time"
                                                              : "the reader crashed");
    return FAILED;
}

int main(int argc, char **argv)
{
    int count[3] = { 0 };
    glob_t found = { 0 };
    char pattern[4096];
    const char *dir = getenv("top_srcdir");
    snprintf(pattern, sizeof pattern, "%s/tests/fixtures/*/*.h5", dir && *dir ? dir : ".");
    if (argc == 1) glob(pattern, 0, NULL, &found);
    char **path = argc == 1 ? found.gl_pathv : argv + 1;
    for (size_t i = 0, n = argc == 1 ? found.gl_pathc : (size_t)argc - 1; i < n; i++)
    count[in_child(path[i])]++;
    if (argc == 1) globfree(&found);
    printf("%d passed, %d failed, %d skipped\n", count[PASSED], count[FAILED], count[SKIPPED]);
    return count[FAILED] ? EXIT_FAILURE : EXIT_SUCCESS;
}
