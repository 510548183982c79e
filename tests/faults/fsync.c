/* Preloaded into the guard: fsync, fdatasync and writes to files opened with O_DSYNC fail with EIO while the file named by
   FAULT_FSYNC exists. Beside it is recorded that one failed, and that a file opened with O_DSYNC (a front) was written. If the guard syncs the same open file again after a failure, instead of opening it anew, that is
   recorded beside it: the kernel may have dropped the unwritten pages, and the second call would succeed nevertheless. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static unsigned char failed[65536];

static void note(const char *what) {
    char path[4096];
    const char *at = getenv("FAULT_FSYNC");
    if (!at) return;
    snprintf(path, sizeof path, "%s.%s", at, what);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd < 0) return;
    if (write(fd, "x", 1) < 0) {}
    close(fd);
}

static int synced(int fd, int (*real)(int)) {
    const char *at = getenv("FAULT_FSYNC");
    if (fd >= 0 && fd < 65536 && failed[fd]) note("again");
    if (at && access(at, F_OK) == 0) {
        if (fd >= 0 && fd < 65536) failed[fd] = 1;
        note("failed");
        errno = EIO;
        return -1;
    }
    return real(fd);
}

int fsync(int fd) { return synced(fd, (int (*)(int))dlsym(RTLD_NEXT, "fsync")); }
int fdatasync(int fd) { return synced(fd, (int (*)(int))dlsym(RTLD_NEXT, "fdatasync")); }

static ssize_t written(int fd, const void *data, size_t size, off_t at) {
    ssize_t (*real)(int, const void *, size_t, off_t) = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !(flags & O_DSYNC)) return real(fd, data, size, at);
    note("front");
    const char *fault = getenv("FAULT_FSYNC");
    if (fd < 65536 && failed[fd]) note("again");
    if (fault && access(fault, F_OK) == 0) {
        if (fd < 65536) failed[fd] = 1;
        note("failed");
        errno = EIO;
        return -1;
    }
    return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return written(fd, data, size, at); }

int close(int fd) {
    if (fd >= 0 && fd < 65536) failed[fd] = 0;
    return ((int (*)(int))dlsym(RTLD_NEXT, "close"))(fd);
}
