#include "fdinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static FILE *
fdinfo_open(int fd)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    return fopen(path, "re");
}

/* "tfd: %8d events: %8x data: %16llx …", the numbers behind their labels. */
static bool
parse(const char *line, Watched *watched)
{
    if (strncmp(line, "tfd:", 4) != 0) {
        return false;
    }
    char *end;
    watched->fd = (int)strtol(line + 4, &end, 10);
    const char *events = strstr(end, "events:");
    const char *data = strstr(end, "data:");
    if (events == NULL || data == NULL) {
        return false;
    }
    watched->events = (uint32_t)strtoul(events + 7, NULL, 16);
    watched->word = strtoull(data + 5, NULL, 16);
    return true;
}

int
fdinfo_each(int epfd, bool (*see)(const Watched *, void *), void *arg)
{
    char line[256];
    Watched watched;
    bool more = true;
    FILE *file = fdinfo_open(epfd);
    if (file == NULL) {
        return errno;
    }
    while (more && fgets(line, sizeof(line), file) != NULL) {
        more = !parse(line, &watched) || see(&watched, arg);
    }
    int error = ferror(file) ? EIO : 0;
    fclose(file);
    return error;
}

int
fdinfo_is_epoll(int fd)
{
    static const char epoll[] = "anon_inode:[eventpoll]";
    char path[64];
    char target[sizeof(epoll)];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof(target));
    if (length < 0) {
        int error = errno;
        /* ENOENT of an open fd: there is no /proc. */
        return error == ENOENT && fcntl(fd, F_GETFD) < 0 ? EBADF : error;
    }
    return length == (ssize_t)strlen(epoll) && memcmp(target, epoll, strlen(epoll)) == 0 ? 0 : EINVAL;
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

int
fdinfo_table_size(void)
{
    char line[256];
    int size = -1;
    FILE *file = fopen("/proc/self/status", "re");
    if (file == NULL) {
        return -1;
    }
    while (size < 0 && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "FDSize:", 7) == 0) {
            size = (int)strtol(line + 7, NULL, 10);
        }
    }
    fclose(file);
    errno = size < 0 ? EIO : 0;
    return size;
}
