#include "base/fdinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATH_SIZE = 64 };

/* A path below /proc of the calling thread. Imitations of /proc may lack `thread-self`. */
static void
path_of(char path[PATH_SIZE], bool by_number, const char *folder, int fd)
{
    if (by_number) {
        snprintf(path, PATH_SIZE, "/proc/self/task/%ld/%s/%d", syscall(SYS_gettid), folder, fd);
    }
    else {
        snprintf(path, PATH_SIZE, "/proc/thread-self/%s/%d", folder, fd);
    }
}

static FILE *
fdinfo_open(int fd)
{
    char path[PATH_SIZE];
    path_of(path, false, "fdinfo", fd);
    FILE *file = fopen(path, "re");
    if (file == NULL && errno == ENOENT) {
        path_of(path, true, "fdinfo", fd);
        file = fopen(path, "re");
    }
    return file;
}

/* "tfd: %8d events: %8x data: %16llx …", the numbers behind their labels. */
static bool
parse(const char *line, KernelEntry *entry)
{
    if (strncmp(line, "tfd:", 4) != 0) {
        return false;
    }
    char *end;
    entry->fd = (int)strtol(line + 4, &end, 10);
    const char *events = strstr(end, "events:");
    const char *data = strstr(end, "data:");
    if (events == NULL || data == NULL) {
        return false;
    }
    entry->events = (uint32_t)strtoul(events + 7, NULL, 16);
    entry->data = strtoull(data + 5, NULL, 16);
    return true;
}

int
fdinfo_each(int epfd, bool expected, bool (*see)(const KernelEntry *, void *), void *arg)
{
    char line[256];
    KernelEntry entry;
    bool more = true, any = false;
    FILE *file = fdinfo_open(epfd);
    if (file == NULL) {
        return errno;
    }
    while (more && fgets(line, sizeof(line), file) != NULL) {
        if (parse(line, &entry)) {
            any = true;
            more = see(&entry, arg);
        }
    }
    int error = ferror(file) ? EIO : !any && expected ? ENODATA : 0;
    fclose(file);
    return error;
}

/* fdinfo_is_epoll() and fdinfo_is_eventfd(): whether the link of `fd` has this text. */
static int
links_to(int fd, const char *text)
{
    char path[PATH_SIZE];
    char target[32];
    path_of(path, false, "fd", fd);
    ssize_t length = readlink(path, target, sizeof(target));
    if (length < 0 && errno == ENOENT) {
        path_of(path, true, "fd", fd);
        length = readlink(path, target, sizeof(target));
    }
    if (length < 0) {
        int error = errno;
        /* ENOENT for an open fd: /proc is missing. */
        return error == ENOENT && fcntl(fd, F_GETFD) < 0 ? EBADF : error;
    }
    return length == (ssize_t)strlen(text) && memcmp(target, text, strlen(text)) == 0 ? 0 : EINVAL;
}

int
fdinfo_is_epoll(int fd)
{
    return links_to(fd, "anon_inode:[eventpoll]");
}

int
fdinfo_is_eventfd(int fd)
{
    return links_to(fd, "anon_inode:[eventfd]");
}

bool
fdinfo_may_be_eventfd(int fd, uint64_t count)
{
    char line[256];
    bool found = false;
    FILE *file = fdinfo_open(fd);
    if (file == NULL) {
        return fcntl(fd, F_GETFD) >= 0;
    }
    while (!found && fgets(line, sizeof(line), file) != NULL) {
        found = strncmp(line, "eventfd-count:", 14) == 0 && strtoull(line + 14, NULL, 16) == count;
    }
    fclose(file);
    return found;
}
