/* Stands between the program and the kernel, for the files of one database alone: makes calls fail or wait as a test
 * says, and keeps a log of what was done to the files, from which a power cut is made. Loaded by LD_PRELOAD.
 *
 * SHIM_DATABASE  the database's path, absolute and without links; its -wal and the like begin with it
 * SHIM_CONTROL   a file that holds a struct control; the test writes to it while the program runs
 * SHIM_LOG       where the log goes; without it there is none
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* In the order of `Word` in harness/shim.rs. Zero: as ever. */
struct control {
    _Atomic int32_t files;        /* which files fail: 1 the database, 2 its -wal, 4 the others; 0 all */
    _Atomic int32_t write_errno;  /* what writes and truncations fail with */
    _Atomic int32_t sync_errno;   /* what syncs fail with */
    _Atomic int32_t open_errno;   /* what opening for writing fails with */
    _Atomic int32_t hang_syncs;   /* syncs wait until this is zero again */
    _Atomic int32_t size_limit;   /* RLIMIT_FSIZE in bytes, which the kernel enforces */
    _Atomic int32_t clock_back_s; /* seconds that the wall clock is behind */
    _Atomic int32_t failed;       /* told to the test: calls that failed so */
    _Atomic int32_t hanging;      /* told to the test: syncs that wait now */
};

static struct control nothing;
static struct control *control = &nothing;
static const char *database;
static size_t database_length;
static char directory[PATH_MAX];
static int log_fd = -1;
/* Held over a call and its line in the log, so that the log has the order in which things happened. */
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

/* What a descriptor stands for: the path's end after the database's, so that "" is the database; or the directory.
 * NULL for every other file. */
static const char *known[4096];
static const char DIRECTORY[] = "/";

__attribute__((constructor)) static void begin(void) {
    database = getenv("SHIM_DATABASE");
    const char *path = getenv("SHIM_CONTROL"), *log = getenv("SHIM_LOG");
    if (database == NULL || path == NULL) return;
    database_length = strlen(database);
    strncpy(directory, database, sizeof directory - 1);
    *strrchr(directory, '/') = '\0';
    int fd = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    void *shared = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (shared == MAP_FAILED) abort();
    control = shared;
    if (log == NULL) return;
    log_fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) abort();
}

static const char *name_in(const char *path) {
    if (database == NULL) return NULL;
    if (strcmp(path, directory) == 0) return DIRECTORY;
    if (strncmp(path, database, database_length) != 0) return NULL;
    const char *name = path + database_length;
    return *name == '\0' || *name == '-' ? name : NULL;
}

static const char *name_of(int fd) {
    return fd >= 0 && fd < (int)(sizeof known / sizeof *known) ? known[fd] : NULL;
}

/* One line of the log; harness/shim.rs reads it. The memory of -shm is not for the disk. */
static void note(char kind, const char *name, uint64_t place, const void *data, uint64_t length) {
    if (log_fd < 0 || strcmp(name, "-shm") == 0) return;
    struct { uint32_t kind, name_length; uint64_t place, length; } head = {kind, strlen(name), place, length};
    struct iovec parts[] = {{&head, sizeof head}, {(void *)name, head.name_length}, {(void *)data, length}};
    size_t whole = sizeof head + head.name_length + length;
    if (syscall(SYS_writev, log_fd, parts, 3) != (long)whole) abort();
}

/* Whether this call fails by the test's will; errno says with what. */
static int fails(const char *name, const _Atomic int32_t *error) {
    int32_t file = *name == '\0' ? 1 : strcmp(name, "-wal") == 0 ? 2 : 4;
    if (*error == 0 || (control->files != 0 && (control->files & file) == 0)) return 0;
    control->failed++;
    errno = *error;
    return 1;
}

static void follow_size_limit(void) {
    static int32_t in_force;
    if (control->size_limit == in_force) return;
    in_force = control->size_limit;
    struct rlimit limit;
    getrlimit(RLIMIT_FSIZE, &limit);
    limit.rlim_cur = in_force == 0 ? limit.rlim_max : (rlim_t)in_force;
    setrlimit(RLIMIT_FSIZE, &limit);
}

static int open_known(int at, const char *path, int flags, mode_t mode) {
    const char *name = name_in(path);
    if (name == NULL) return syscall(SYS_openat, at, path, flags, mode);
    if ((flags & O_ACCMODE) != O_RDONLY && fails(name, &control->open_errno)) return -1;
    pthread_mutex_lock(&order);
    int made = (flags & O_CREAT) != 0 && syscall(SYS_faccessat, at, path, F_OK) != 0;
    int fd = syscall(SYS_openat, at, path, flags, mode);
    if (fd >= 0 && made) note('c', name, 0, NULL, 0);
    if (fd >= 0 && fd < (int)(sizeof known / sizeof *known)) known[fd] = name == DIRECTORY ? name : strdup(name);
    pthread_mutex_unlock(&order);
    return fd;
}

static mode_t mode_of(int flags, va_list more) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
}

int open(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_known(AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = mode_of(flags, more);
    va_end(more);
    return open_known(AT_FDCWD, path, flags, mode);
}

int close(int fd) {
    if (name_of(fd) != NULL) known[fd] = NULL;
    return syscall(SYS_close, fd);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t place) {
    const char *name = name_of(fd);
    if (name == NULL) return syscall(SYS_pwrite64, fd, data, length, place);
    if (fails(name, &control->write_errno)) return -1;
    pthread_mutex_lock(&order);
    follow_size_limit();
    ssize_t written = syscall(SYS_pwrite64, fd, data, length, place);
    if (written < 0) control->failed++;
    if (written > 0) note('w', name, place, data, written);
    pthread_mutex_unlock(&order);
    return written;
}

int ftruncate64(int fd, off64_t length) {
    const char *name = name_of(fd);
    if (name == NULL) return syscall(SYS_ftruncate, fd, length);
    if (fails(name, &control->write_errno)) return -1;
    pthread_mutex_lock(&order);
    int failed = syscall(SYS_ftruncate, fd, length);
    if (!failed) note('t', name, length, NULL, 0);
    pthread_mutex_unlock(&order);
    return failed;
}

static int sync_known(long call, int fd) {
    const char *name = name_of(fd);
    if (name == NULL) return syscall(call, fd);
    if (control->hang_syncs) {
        control->hanging++;
        while (control->hang_syncs) nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        control->hanging--;
    }
    if (fails(name, &control->sync_errno)) return -1;
    pthread_mutex_lock(&order);
    int failed = syscall(call, fd);
    if (!failed) note('s', name, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    return failed;
}

int fsync(int fd) { return sync_known(SYS_fsync, fd); }

int fdatasync(int fd) { return sync_known(SYS_fdatasync, fd); }

int unlink(const char *path) {
    const char *name = name_in(path);
    if (name == NULL) return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_lock(&order);
    int failed = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (!failed) note('u', name, 0, NULL, 0);
    pthread_mutex_unlock(&order);
    return failed;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec -= control->clock_back_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed) now->tv_sec -= control->clock_back_s;
    return failed;
}
