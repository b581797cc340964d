/* Preloaded into an agent: its calls to the disk fail or wait as rules say (faulty_disk.py).

   The environment's FAULTY_DISK is a directory. A line of its file `rules` is

       CALL ERRNO PATTERN

   where PATTERN is a glob for the whole path, and ERRNO 0 holds the call for as long as the rule
   stands. The file is read at each call. For each call that a rule was for, the file `met` gets a
   line `CALL PATH`. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RULES 8192
#define LINE (PATH_MAX + 64)

static char rules_path[PATH_MAX], met_path[PATH_MAX];

__attribute__((constructor)) static void begin(void)
{
    const char *directory = getenv("FAULTY_DISK");
    if (directory) {
        snprintf(rules_path, sizeof rules_path, "%s/rules", directory);
        snprintf(met_path, sizeof met_path, "%s/met", directory);
    }
}

/* Only plain system calls from here to `fault`: libc's are those that are defined below. */

static void note(const char *call, const char *path)
{
    char line[LINE];
    int size = snprintf(line, sizeof line, "%s %s\n", call, path);
    int file = syscall(SYS_openat, AT_FDCWD, met_path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    syscall(SYS_write, file, line, size);
    syscall(SYS_close, file);
}

/* The errno of the first rule for this call; -1 without one. */
static int rule_for(const char *call, const char *path)
{
    char text[RULES], name[32], pattern[PATH_MAX], *rest = text, *line;
    int number, file = syscall(SYS_openat, AT_FDCWD, rules_path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return -1;
    long size = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    text[size > 0 ? size : 0] = 0;
    while ((line = strsep(&rest, "\n")))
        if (sscanf(line, "%31s %d %4095[^\n]", name, &number, pattern) == 3)
            if (!strcmp(name, call) && !fnmatch(pattern, path, 0))
                return number;
    return -1;
}

/* Whether this call is to fail; errno is set then. Returns when the call is not held any more. */
static int fault(const char *call, const char *path)
{
    int before = errno, number = rule_for(call, path);
    if (number >= 0)
        note(call, path);
    while (number == 0) {
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
        number = rule_for(call, path);
    }
    errno = number > 0 ? number : before;
    return number > 0;
}

static int fault_of(const char *call, int file)
{
    char link[64], path[PATH_MAX];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long size = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = before;
    if (size < 0)
        return 0;
    path[size] = 0;
    return fault(call, path);
}

static int fault_at(const char *call, int directory, const char *name)
{
    char link[64], path[2 * PATH_MAX];
    if (!name || !*name)
        return fault_of(call, directory);
    if (*name == '/' || directory == AT_FDCWD)
        return fault(call, name);
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", directory);
    long size = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    errno = before;
    if (size < 0)
        return 0;
    snprintf(path + size, PATH_MAX, "/%s", name);
    return fault(call, path);
}

/* TYPE NAME PARAMETERS { the fault, or libc's NAME with ARGUMENTS } */
#define CALL(type, name, parameters, arguments, faulty, failed)     \
    type name parameters                                            \
    {                                                               \
        static __typeof__(name) *real;                              \
        if (!real)                                                  \
            real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);     \
        if (faulty)                                                 \
            return failed;                                          \
        return real arguments;                                      \
    }

/* The same with a mode behind the flags where a file may be made. */
#define OPEN(name, parameters, arguments, faulty)                   \
    int name parameters                                             \
    {                                                               \
        static __typeof__(name) *real;                              \
        mode_t mode = 0;                                            \
        if (flags & (O_CREAT | O_TMPFILE)) {                        \
            va_list rest;                                           \
            va_start(rest, flags);                                  \
            mode = va_arg(rest, mode_t);                            \
            va_end(rest);                                           \
        }                                                           \
        if (!real)                                                  \
            real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name);     \
        return faulty ? -1 : real arguments;                        \
    }

#define OPENS(name)                                                                              \
    OPEN(name, (const char *path, int flags, ...), (path, flags, mode), fault("open", path))
#define OPENS_AT(name)                                                                           \
    OPEN(name, (int at, const char *path, int flags, ...), (at, path, flags, mode),              \
         fault_at("open", at, path))
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)
CALL(DIR *, opendir, (const char *path), (path), fault("opendir", path), NULL)
CALL(DIR *, fdopendir, (int file), (file), fault_of("opendir", file), NULL)

#define READDIR(type, name) \
    CALL(struct type *, name, (DIR * directory), (directory), \
         fault_of("readdir", dirfd(directory)), NULL)
READDIR(dirent, readdir)
READDIR(dirent64, readdir64)

CALL(ssize_t, read, (int file, void *to, size_t size), (file, to, size), fault_of("read", file), -1)
CALL(ssize_t, readv, (int file, const struct iovec *to, int parts), (file, to, parts),
     fault_of("read", file), -1)
CALL(ssize_t, pread, (int file, void *to, size_t size, off_t at), (file, to, size, at),
     fault_of("read", file), -1)
CALL(ssize_t, pread64, (int file, void *to, size_t size, off64_t at), (file, to, size, at),
     fault_of("read", file), -1)
CALL(ssize_t, write, (int file, const void *from, size_t size), (file, from, size),
     fault_of("write", file), -1)
CALL(int, fsync, (int file), (file), fault_of("fsync", file), -1)
CALL(int, fdatasync, (int file), (file), fault_of("fdatasync", file), -1)

/* A file is closed even if that fails. */
int close(int file)
{
    int faulty = fault_of("close", file), number = errno, failed = syscall(SYS_close, file);
    if (!faulty)
        return failed;
    errno = number;
    return -1;
}

#define STAT(name, type) \
    CALL(int, name, (const char *path, struct type *to), (path, to), fault("stat", path), -1)
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)
CALL(int, fstat, (int file, struct stat *to), (file, to), fault_of("stat", file), -1)
CALL(int, fstat64, (int file, struct stat64 *to), (file, to), fault_of("stat", file), -1)
CALL(int, fstatat, (int at, const char *path, struct stat *to, int flags), (at, path, to, flags),
     fault_at("stat", at, path), -1)
CALL(int, fstatat64, (int at, const char *path, struct stat64 *to, int flags),
     (at, path, to, flags), fault_at("stat", at, path), -1)
CALL(int, statx, (int at, const char *path, int flags, unsigned mask, struct statx *to),
     (at, path, flags, mask, to), fault_at("stat", at, path), -1)
CALL(int, access, (const char *path, int mode), (path, mode), fault("access", path), -1)
CALL(int, faccessat, (int at, const char *path, int mode, int flags), (at, path, mode, flags),
     fault_at("access", at, path), -1)

/* Links and moves are for a rule about either name. */
CALL(int, link, (const char *from, const char *to), (from, to), fault("link", from) || fault("link", to), -1)
CALL(int, linkat, (int at, const char *from, int to_at, const char *to, int flags),
     (at, from, to_at, to, flags), fault_at("link", at, from), -1)
CALL(int, rename, (const char *from, const char *to), (from, to), fault("rename", from) || fault("rename", to), -1)
CALL(int, renameat, (int at, const char *from, int to_at, const char *to), (at, from, to_at, to),
     fault_at("rename", at, from) || fault_at("rename", to_at, to), -1)
CALL(int, unlink, (const char *path), (path), fault("unlink", path), -1)
CALL(int, unlinkat, (int at, const char *path, int flags), (at, path, flags),
     fault_at("unlink", at, path), -1)
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), fault("mkdir", path), -1)
CALL(int, mkdirat, (int at, const char *path, mode_t mode), (at, path, mode),
     fault_at("mkdir", at, path), -1)
