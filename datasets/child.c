/* datasets/child.c - Parsers that may crash or hang on a damaged file run in a child process.
 *
 * The child has limits on memory and processor time and an alarm for the rest.  It leaves its
 * dataset in a temporary sealed file, which the parent verifies and loads, or a sentence in a
 * pipe.  It starts no threads: a forked process has none but its own. */
#include "config.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "datasets/internal.h"

enum { SECONDS = 20, SECONDS_PER_MIB = 2 };

typedef struct {
    int32_t code;
    char message[500];
} verdict;

/* What a file may cost: 64 times its size and a gigabyte, on top of what the parent has mapped. */
static void limit_memory(int64_t source_bytes)
{
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (f) {
        if (fscanf(f, "%ld", &pages) != 1) pages = 0;
        fclose(f);
    }
    if (!pages) return;
    rlim_t bytes = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + ((rlim_t)1 << 30) +
                   64 * (rlim_t)source_bytes;
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    if (limit.rlim_max == RLIM_INFINITY || bytes < limit.rlim_max) limit.rlim_cur = bytes;
    setrlimit(RLIMIT_AS, &limit);
}

static void set_limits(const char *source)
{
    static const int deadly[] = { SIGSEGV, SIGBUS,  SIGFPE, SIGILL,  SIGABRT,
                                  SIGALRM, SIGXCPU, SIGINT, SIGTERM, SIGPIPE };
    struct stat st;
    int64_t bytes = stat(source, &st) == 0 ? st.st_size : 0;
    unsigned seconds = SECONDS + (unsigned)(bytes >> 20) * SECONDS_PER_MIB;
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) signal(deadly[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0, 0 });
    setrlimit(RLIMIT_CPU, &(struct rlimit){ seconds, seconds });
    alarm(seconds);
    limit_memory(bytes);
}

static _Noreturn void run_child(int out, const char *source, const nsmi_options *o,
                                const char *path,
                                nsm_dataset *(*make)(nsm_ctx *ctx, const char *source,
                                                     const nsmi_options *o))
{
    verdict v = { 0 };
    /* third parties may print: not into the parent's results */
    int null = open("/dev/null", O_WRONLY);
    set_limits(source);
    setlocale(LC_ALL, "C");
    bool silent = null >= 0 && dup2(null, 1) == 1 && dup2(null, 2) == 2;
    o->ctx->dev.threads = 1;
    nsm_dataset *ds = silent ? make(o->ctx, source, o) : NULL;
    if (ds) nsm_dataset_save(ds, path);
    if (!silent) nsm_error_set(o->ctx, NSM_EIO, "/dev/null: %s", strerror(errno));
    v.code = nsm_error(o->ctx);
    snprintf(v.message, sizeof v.message, "%s", nsm_error_message(o->ctx));
    ssize_t n = write(out, &v, sizeof v);
    _exit(n == sizeof v ? 0 : 1);
}

/* What the child said, or how it died. */
static int hear(nsm_ctx *ctx, int in, pid_t child, const char *source)
{
    verdict v = { 0 };
    size_t got = 0;
    int status = 0;
    while (got < sizeof v) {
        ssize_t n = read(in, (char *)&v + got, sizeof v - got);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        got += (size_t)n;
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) { }
    if (got == sizeof v && v.code) {
        v.message[sizeof v.message - 1] = 0;
        return nsm_error_set(ctx, v.code, "%s", v.message);
    }
    if (got == sizeof v) return NSM_OK;
    if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGALRM || WTERMSIG(status) == SIGXCPU))
        return nsm_error_set(ctx, NSM_EFORMAT, "%s: reading it took too long: the file is damaged",
                             source);
    return nsm_error_set(ctx, NSM_EFORMAT,
                         "%s: its parser failed (%s): the file is damaged, or too large", source,
                         WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : "it stopped");
}

static int run_and_hear(const char *source, const nsmi_options *o, const char *path,
                        nsm_dataset *(*make)(nsm_ctx *ctx, const char *source,
                                             const nsmi_options *o))
{
    int ends[2];
    if (pipe(ends)) return nsm_error_set(o->ctx, NSM_EIO, "pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        run_child(ends[1], source, o, path, make);
    }
    close(ends[1]);
    if (child < 0) nsm_error_set(o->ctx, NSM_ENOMEM, "fork: %s", strerror(errno));
    else hear(o->ctx, ends[0], child, source);
    close(ends[0]);
    return nsm_error(o->ctx);
}

/* Remove the dataset, and the draft that a child which died may have left. */
static void empty_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) unlinkat(dirfd(dir), e->d_name, 0);
    if (dir) closedir(dir);
}

nsm_dataset *nsmi_in_child(nsm_ctx *ctx, const char *source, const nsmi_options *o,
                           nsm_dataset *(*make)(nsm_ctx *ctx, const char *source,
                                                const nsmi_options *o))
{
    if (nsmi_failed(ctx)) return NULL;
    const char *tmp = getenv("TMPDIR");
    char *folder = nsmi_format(ctx, "%s/nsm-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (folder && !mkdtemp(folder)) {
        nsm_error_set(ctx, NSM_EIO, "%s: %s", folder, strerror(errno));
        free(folder);
        return NULL;
    }
    char *path = folder ? nsmi_format(ctx, "%s/dataset.h5", folder) : NULL;
    nsm_dataset *ds = NULL;
    if (path && run_and_hear(source, o, path, make) == NSM_OK)
        ds = nsm_dataset_load(ctx, path, NULL);
    if (folder) empty_folder(folder);
    if (folder) rmdir(folder);
    free(path);
    free(folder);
    return ds;
}
