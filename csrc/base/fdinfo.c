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

/* Compare the link of an fd in /proc with `expected`. 0 if it is that, EINVAL if it is not, or the errno with
 * which the link cannot be read. */
static int
compare_link(int fd, const char *expected)
{
    char path[PATH_SIZE];
    char target[PATH_SIZE];
    path_of(path, false, "fd", fd);
    ssize_t length = readlink(path, target, sizeof(target));
    if (length < 0 && errno == ENOENT) {
        path_of(path, true, "fd", fd);
        length = readlink(path, target, sizeof(target));
    }
    if (length < 0) {
        return errno;
    }
    return length == (ssize_t)strlen(expected) && memcmp(target, expected, strlen(expected)) == 0 ? 0
                                                                                                  : EINVAL;
}

int
fdinfo_is_epoll(int fd)
{
    int error = compare_link(fd, "anon_inode:[eventpoll]");
    /* ENOENT for an open fd: /proc is missing. */
    return error == ENOENT && fcntl(fd, F_GETFD) < 0 ? EBADF : error;
}

int
fdinfo_is_any_eventfd(int fd)
{
    int error = compare_link(fd, "anon_inode:[eventfd]");
    return error == ENOENT && fcntl(fd, F_GETFD) < 0 ? EBADF : error;
}

bool
fdinfo_is_eventfd(int fd, uint64_t count, bool unknown)
{
    static const char label[] = "eventfd-count:";
    char line[256];
    bool counted = false, found = false;
    FILE *file = fdinfo_open(fd);
    if (file == NULL) {
        return unknown;
    }
    while (!counted && fgets(line, sizeof(line), file) != NULL) {
        counted = strncmp(line, label, strlen(label)) == 0;
        found = counted && strtoull(line + strlen(label), NULL, 16) == count;
    }
    fclose(file);
    /* An imitation of /proc may lack the count. */
    return counted ? found : compare_link(fd, "anon_inode:[eventfd]") == 0;
}
