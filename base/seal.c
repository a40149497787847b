/* base/seal.c - Drafts (temporary, lock, flush, rename) and seals (length and digest in front).
 *
 * Locks are Linux' open-file-description locks: they end with their process however it ends, do
 * not vanish when somebody else in the process closes the same file (as POSIX' own do), and do not
 * collide with the flock() that libhdf5 takes. */
#include "config.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>
#include "base/internal.h"
#include "base/seal.h"

enum { BLOCK = 1 << 20, KIND_AT = 16, LENGTH_AT = 32, DIGEST_AT = 40, SELF_AT = 504 };

static const unsigned char magic[8] = { 0x89, 'N', 'S', 'M', '\r', '\n', 0x1a, '\n' };

struct nsmi_draft {
    char *path, *temporary;
    int fd;
};

/* ---- whole reads and writes ---- */

static bool write_all(int fd, const void *data, size_t bytes, off_t at)
{
    const char *p = data;
    while (bytes > 0) {
        ssize_t n = pwrite(fd, p, bytes, at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n; at += n; bytes -= (size_t)n;
    }
    return true;
}

/* Bytes read, fewer only at the end of the file; -1 on error. */
static ssize_t read_all(int fd, void *data, size_t bytes, off_t at)
{
    char *p = data;
    size_t got = 0;
    while (got < bytes) {
        ssize_t n = pread(fd, p + got, bytes - got, at + (off_t)got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        got += (size_t)n;
    }
    return (ssize_t)got;
}

static void put_le(unsigned char *p, uint64_t value, int bytes)
{
    for (int i = 0; i < bytes; i++) p[i] = (unsigned char)(value >> (8 * i));
}

static uint64_t get_le(const unsigned char *p, int bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)p[i] << (8 * i);
    return value;
}

/* Digest of everything behind the seal, and its length. */
static int digest(nsm_ctx *ctx, int fd, const char *path, unsigned char out[16], uint64_t *length)
{
    XXH3_state_t *state = XXH3_createState();
    void *block = nsmi_malloc(ctx, BLOCK);
    off_t at = NSMI_SEAL_BYTES;
    ssize_t n = 0;
    if (state && block) {
        XXH3_128bits_reset(state);
        while ((n = read_all(fd, block, BLOCK, at)) > 0) {
            XXH3_128bits_update(state, block, (size_t)n);
            at += n;
        }
        if (n < 0) nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno));
        XXH128_canonicalFromHash((XXH128_canonical_t *)out, XXH3_128bits_digest(state));
        *length = (uint64_t)(at - NSMI_SEAL_BYTES);
    } else {
        nsm_error_set(ctx, NSM_ENOMEM, "%s: out of memory", path);
    }
    XXH3_freeState(state);
    free(block);
    return nsm_error(ctx);
}

static void self_digest(const unsigned char *seal, unsigned char out[8])
{
    XXH64_canonicalFromHash((XXH64_canonical_t *)out, XXH3_64bits(seal, SELF_AT));
}

/* ---- drafts ---- */

/* 1: locked, 0: somebody lives who holds it, -1: this file system knows no locks. */
static int lock(int fd)
{
    struct flock whole = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(fd, F_OFD_SETLK, &whole) == 0) return 1;
    return errno == EAGAIN || errno == EACCES ? 0 : -1;
}

/* path = folder (with its slash, "" for here) + name. */
static size_t folder_length(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? (size_t)(slash - path) + 1 : 0;
}

/* Remove temporaries of this path whose writers are dead. */
static void remove_stale(nsm_ctx *ctx, const char *path)
{
    size_t folder = folder_length(path);
    char *dir_name = nsmi_format(ctx, "%.*s", (int)(folder ? folder : 1), folder ? path : ".");
    char *prefix = nsmi_format(ctx, ".%s.draft-", path + folder);
    DIR *dir = dir_name && prefix ? opendir(dir_name) : NULL;
    for (struct dirent *e; dir && (e = readdir(dir));) {
        if (strncmp(e->d_name, prefix, strlen(prefix))) continue;
        int fd = openat(dirfd(dir), e->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) continue;
        if (lock(fd) == 1) unlinkat(dirfd(dir), e->d_name, 0);
        close(fd);
    }
    if (dir) closedir(dir);
    free(dir_name);
    free(prefix);
}

/* Create and lock the temporary.  Somebody may sweep it away between the two: then once more. */
static int create_temporary(nsm_ctx *ctx, nsmi_draft *d)
{
    size_t folder = folder_length(d->path);
    for (int try = 0; try < 1000; try++) {
        free(d->temporary);
        d->temporary = nsmi_format(ctx, "%.*s.%s.draft-%ld-%d", (int)folder, d->path,
                                   d->path + folder, (long)getpid(), try);
        if (!d->temporary) return nsm_error(ctx);
        d->fd = open(d->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (d->fd < 0 && errno == EEXIST) continue;
        if (d->fd < 0) break;
        struct stat st;
        if (lock(d->fd) != 0 && fstat(d->fd, &st) == 0 && st.st_nlink == 1) return NSM_OK;
        close(d->fd);
        d->fd = -1;
    }
    return nsm_error_set(ctx, NSM_EIO, "%s: cannot create a temporary file beside it: %s", d->path,
                         strerror(errno));
}

nsmi_draft *nsmi_draft_new(nsm_ctx *ctx, const char *path)
{
    if (nsmi_failed(ctx)) return NULL;
    struct stat st;
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode)) {
        nsm_error_set(ctx, NSM_EIO, "%s: is not a regular file, so it is not replaced", path);
        return NULL;
    }
    nsmi_draft *d = nsmi_calloc(ctx, 1, sizeof *d);
    if (!d) return NULL;
    d->fd = -1;
    d->path = nsmi_strdup(ctx, path);
    if (d->path) {
        remove_stale(ctx, path);
        create_temporary(ctx, d);
    }
    if (nsmi_failed(ctx)) {
        nsmi_draft_abort(d);
        return NULL;
    }
    return d;
}

const char *nsmi_draft_temporary(const nsmi_draft *d) { return d->temporary; }
int nsmi_draft_fd(const nsmi_draft *d) { return d->fd; }

void nsmi_draft_abort(nsmi_draft *d)
{
    if (!d) return;
    if (d->fd >= 0) {
        unlink(d->temporary);
        close(d->fd);
    }
    free(d->temporary);
    free(d->path);
    free(d);
}

static void write_seal(nsm_ctx *ctx, const nsmi_draft *d, const char *kind)
{
    unsigned char seal[NSMI_SEAL_BYTES] = { 0 };
    uint64_t length = 0;
    if (digest(ctx, d->fd, d->path, seal + DIGEST_AT, &length)) return;
    memcpy(seal, magic, sizeof magic);
    put_le(seal + 8, NSMI_SEAL_VERSION, 4);
    put_le(seal + 12, NSMI_SEAL_BYTES, 4);
    memcpy(seal + KIND_AT, kind, strnlen(kind, NSMI_KIND_BYTES - 1));
    put_le(seal + LENGTH_AT, length, 8);
    self_digest(seal, seal + SELF_AT);
    if (!write_all(d->fd, seal, sizeof seal, 0))
        nsm_error_set(ctx, NSM_EIO, "%s: cannot write: %s", d->path, strerror(errno));
}

/* Some file systems refuse to flush a folder (EINVAL); there rename is all there is. */
static bool flush_folder(nsm_ctx *ctx, const char *path)
{
    size_t folder = folder_length(path);
    char *name = nsmi_format(ctx, "%.*s", (int)(folder ? folder : 1), folder ? path : ".");
    int fd = name ? open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    bool ok = fd < 0 || fsync(fd) == 0 || errno == EINVAL;
    if (fd >= 0) close(fd);
    free(name);
    return ok;
}

int nsmi_draft_commit(nsm_ctx *ctx, nsmi_draft *d, const char *kind)
{
    if (!d) return nsm_error(ctx);
    if (!nsmi_failed(ctx) && kind) write_seal(ctx, d, kind);
    if (!nsmi_failed(ctx) && (fsync(d->fd) || rename(d->temporary, d->path)))
        nsm_error_set(ctx, NSM_EIO, "%s: cannot write: %s", d->path, strerror(errno));
    if (!nsmi_failed(ctx)) {
        if (!flush_folder(ctx, d->path))
            nsm_error_set(ctx, NSM_EIO, "%s: cannot flush its folder: %s", d->path,
                          strerror(errno));
        close(d->fd);
        d->fd = -1; /* the temporary's name is free: nothing to remove */
    }
    nsmi_draft_abort(d);
    return nsm_error(ctx);
}

/* ---- reading seals ---- */

static int open_regular(nsm_ctx *ctx, const char *path, struct stat *st)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* no waiting at a pipe */
    if (fd < 0 || fstat(fd, st)) {
        nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno));
    } else if (!S_ISREG(st->st_mode)) {
        nsm_error_set(ctx, NSM_EIO, "%s: is not a regular file", path);
    } else {
        return fd;
    }
    if (fd >= 0) close(fd);
    return -1;
}

static bool looks_like_hdf5(const unsigned char *p)
{
    return !memcmp(p, "\x89HDF\r\n\x1a\n", 8);
}

/* Read the seal and verify it against its own digest and the file's length. */
static int read_seal(nsm_ctx *ctx, int fd, const char *path, const struct stat *st,
                     unsigned char seal[NSMI_SEAL_BYTES])
{
    unsigned char self[8];
    memset(seal, 0, NSMI_SEAL_BYTES);
    ssize_t got = read_all(fd, seal, NSMI_SEAL_BYTES, 0);
    if (got < 0) return nsm_error_set(ctx, NSM_EIO, "%s: %s", path, strerror(errno));
    if (looks_like_hdf5(seal))
        return nsm_error_set(ctx, NSM_EFORMAT,
                             "%s: is an HDF5 file without nsm's seal (nsm import hdf5 reads it)",
                             path);
    if (memcmp(seal, magic, sizeof magic))
        return nsm_error_set(ctx, NSM_EFORMAT, "%s: is not an nsm file", path);
    if (got < NSMI_SEAL_BYTES)
        return nsm_error_set(ctx, NSM_EFORMAT, "%s: is cut short: %lld bytes", path,
                             (long long)got);
    self_digest(seal, self);
    if (memcmp(self, seal + SELF_AT, sizeof self) || seal[KIND_AT + NSMI_KIND_BYTES - 1])
        return nsm_error_set(ctx, NSM_EFORMAT,
                             "%s: is damaged: its seal does not agree with itself", path);
    if (get_le(seal + 8, 4) != NSMI_SEAL_VERSION || get_le(seal + 12, 4) != NSMI_SEAL_BYTES)
        return nsm_error_set(ctx, NSM_EFORMAT, "%s: has format version %llu, this program reads %d",
                             path, (unsigned long long)get_le(seal + 8, 4), NSMI_SEAL_VERSION);
    uint64_t want = get_le(seal + LENGTH_AT, 8), have = (uint64_t)st->st_size - NSMI_SEAL_BYTES;
    if (want != have)
        return nsm_error_set(ctx, NSM_EFORMAT, "%s: is damaged: %llu bytes long, sealed with %llu",
                             path, (unsigned long long)st->st_size,
                             (unsigned long long)(want + NSMI_SEAL_BYTES));
    return NSM_OK;
}

static int verify(nsm_ctx *ctx, int fd, const char *path, const struct stat *st, const char *kind)
{
    unsigned char seal[NSMI_SEAL_BYTES], found[16];
    uint64_t length = 0;
    if (read_seal(ctx, fd, path, st, seal)) return nsm_error(ctx);
    if (kind && strcmp((const char *)seal + KIND_AT, kind))
        return nsm_error_set(ctx, NSM_EFORMAT, "%s: is a %s, not a %s", path,
                             (const char *)seal + KIND_AT, kind);
    if (digest(ctx, fd, path, found, &length)) return nsm_error(ctx);
    if (length + NSMI_SEAL_BYTES != (uint64_t)st->st_size ||
        memcmp(found, seal + DIGEST_AT, sizeof found))
        return nsm_error_set(ctx, NSM_EFORMAT,
                             "%s: is damaged: its content does not agree with its digest", path);
    return NSM_OK;
}

int nsmi_seal_open(nsm_ctx *ctx, const char *path, const char *kind)
{
    if (nsmi_failed(ctx)) return -1;
    struct stat st;
    int fd = open_regular(ctx, path, &st);
    if (fd < 0) return -1;
    if (verify(ctx, fd, path, &st, kind) == NSM_OK) return fd;
    close(fd);
    return -1;
}

int nsmi_seal_kind(nsm_ctx *ctx, const char *path, char kind[NSMI_KIND_BYTES])
{
    kind[0] = 0;
    if (nsmi_failed(ctx)) return nsm_error(ctx);
    struct stat st;
    unsigned char seal[NSMI_SEAL_BYTES];
    int fd = open_regular(ctx, path, &st);
    if (fd < 0) return nsm_error(ctx);
    if (read_seal(ctx, fd, path, &st, seal) == NSM_OK)
        memcpy(kind, seal + KIND_AT, NSMI_KIND_BYTES);
    close(fd);
    return nsm_error(ctx);
}
