#include "core/identity.h"

#include "base/syscalls.h"

#include <errno.h>

void
identity_see(const Identity *identity, const KernelEntry *entry, Evidence *evidence)
{
    enum { PARENT_AHEAD = 1 << 20 };
    const Registration *slot = interest_find(identity->list, entry->data);
    uint32_t age = epoll_data_generation(entry->data) - identity->base_generation;
    uint32_t oldest = identity->last_generation - identity->base_generation + PARENT_AHEAD;
    bool possible = age >= 1 && age <= oldest; /* under another fd: perhaps a stand-in of the parent's */
    evidence->any = true;
    evidence->ours |= slot != NULL && (slot->always_ready || epoll_data_fd(entry->data) == entry->fd);
    evidence->foreign |= entry->data != 0 && !possible;
}

int
identity_conclude(const Evidence *evidence)
{
    if (!evidence->any) {
        return FD_MAY_BE_OURS;
    }
    return evidence->foreign && !evidence->ours ? FD_IS_UNRELATED : 0;
}

/* Whether the file that `epfd` watches under the fd `fd` is the file that `fd` refers to in this thread. 0,
 * FD_IS_UNRELATED, or the errno where that is unknown. */
static int
watches(int epfd, int fd)
{
    int thread = sys_gettid();
    long order = sys_kcmp_watched(thread, epfd, fd, 0, thread, fd);
    if (order >= 0) {
        return order == 0 ? 0 : FD_IS_UNRELATED;
    }
    return errno == ENOENT || errno == EBADF || errno == EINVAL ? FD_IS_UNRELATED : errno;
}

typedef struct {
    const Identity *identity;
    Evidence evidence;
} IdentitySearch;

static bool
see_front_entry(const KernelEntry *entry, void *arg)
{
    IdentitySearch *search = arg;
    search->evidence.any = true;
    search->evidence.ours |= entry->data == identity_front_data(search->identity->base_generation);
    search->evidence.foreign = !search->evidence.ours;
    return !search->evidence.ours;
}

static bool
see_identity_entry(const KernelEntry *entry, void *arg)
{
    IdentitySearch *search = arg;
    identity_see(search->identity, entry, &search->evidence);
    return !search->evidence.ours;
}

/* Compare the entries of an epoll with ours. */
static int
check_entries(const Identity *identity, int fd, bool (*see)(const KernelEntry *, void *))
{
    int status = fdinfo_is_epoll(fd);
    if (status != 0) {
        return status == EINVAL || status == EBADF ? FD_IS_UNRELATED : status;
    }
    IdentitySearch search = {.identity = identity};
    int error = fdinfo_each(fd, false, see, &search);
    return error != 0 ? error : identity_conclude(&search.evidence);
}

static int
check_instance(const Identity *identity)
{
    enum { CHECKED_FDS = 8 };
    int fd = interest_next(identity->list, 0);
    for (int looks = 0; fd >= 0 && looks < CHECKED_FDS; looks++, fd = interest_next(identity->list, fd + 1)) {
        if (watches(identity->epfd, fd) == 0) {
            return 0;
        }
    }
    return check_entries(identity, identity->epfd, see_identity_entry);
}

/* A front that watches the instance, and nothing else under this fd, identifies both. Not if the parent has
 * rebuilt since the fork: the front is shared with the parent, and watches the parent's new instance, with
 * the same epoll data. Then each has to be identified by itself. */
int
identity_check(const Identity *identity)
{
    int front = 0;
    if (identity->front_fd >= 0) {
        if (watches(identity->front_fd, identity->epfd) == 0) {
            return 0;
        }
        front = check_entries(identity, identity->front_fd, see_front_entry);
    }
    if (front != 0 && front != FD_MAY_BE_OURS) {
        return front;
    }
    int instance = check_instance(identity);
    return instance != 0 ? instance : front;
}
