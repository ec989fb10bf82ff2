#include "core/repair/rebuild.h"

#include "base/fdinfo.h"
#include "base/flags.h"
#include "base/syscalls.h"
#include "core/always_ready.h"
#include "core/change.h"
#include "core/front.h"
#include "core/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* One registration on its way into the new instance. */
typedef struct {
    int fd;
    int target;              /* the fd of its entry: that of its stand-in, or its own */
    const StandIn *stand_in; /* or NULL */
    uint32_t mask;
    uint64_t epoll_data;
    int entries;        /* how many the old instance has under the fd */
    int nth;            /* which of them it is, where it is known */
    bool known;         /* the old instance has it */
    bool fired;         /* a one-shot that has fired */
    bool rearm_pending; /* its event was given back in a child */
    bool lost_fd;       /* the fd refers to another file, or to none */
} Transfer;

typedef struct {
    Instance *instance;
    Identity identity;
    Evidence evidence;
    Transfer *transfers; /* by ascending fd; from malloc */
    int count;
    bool one_shots; /* there are some */
    bool forked;    /* the old instance is the parent's */
} RebuildPlan;

/* The bits of the mask that the kernel keeps for a fired one-shot. */
static const uint32_t private_bits = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;

static int
compare_fd(const void *left, const void *right)
{
    return ((const Transfer *)left)->fd - ((const Transfer *)right)->fd;
}

static bool
see_old_entry(const KernelEntry *entry, void *arg)
{
    RebuildPlan *plan = arg;
    const Registration *slot = interest_find(&plan->instance->list, entry->data);
    bool stands_in = slot != NULL && slot->always_ready;
    Transfer key = {.fd = stands_in ? epoll_data_fd(entry->data) : entry->fd};
    identity_see(&plan->identity, entry, &plan->evidence);
    Transfer *transfer = bsearch(&key, plan->transfers, (size_t)plan->count, sizeof(Transfer), compare_fd);
    if (transfer == NULL) {
        return true;
    }
    if (transfer->epoll_data == entry->data) {
        transfer->known = true;
        transfer->nth = transfer->entries;
        /* A one-shot that had fired before an earlier rebuild does not look so. */
        bool disarmed = (transfer->mask & EPOLLONESHOT) != 0 && (entry->events & ~private_bits) == 0;
        transfer->fired |= disarmed && !transfer->rearm_pending;
    }
    transfer->entries++;
    return true;
}

/* List the registrations. 0 or ENOMEM. */
static int
plan_transfers(RebuildPlan *plan)
{
    Instance *self = plan->instance;
    plan->transfers = calloc((size_t)self->list.count + 1, sizeof(Transfer));
    if (plan->transfers == NULL) {
        return ENOMEM;
    }
    for (int fd = interest_next(&self->list, 0); fd >= 0; fd = interest_next(&self->list, fd + 1)) {
        const Registration *slot = interest_slot(&self->list, fd);
        int index = slot->always_ready ? stand_in_index(&self->stand_ins, fd) : -1;
        const StandIn *stand_in = index >= 0 ? &self->stand_ins.items[index] : NULL;
        plan->one_shots |= (slot->mask & EPOLLONESHOT) != 0;
        plan->transfers[plan->count++] = (Transfer){
            .fd = fd,
            .target = stand_in != NULL ? stand_in->eventfd : fd,
            .stand_in = stand_in,
            .mask = slot->mask,
            .epoll_data = epoll_data_of(fd, slot->generation),
            .fired = slot->disarmed,
            .rearm_pending = slot->rearm_pending,
        };
    }
    return 0;
}

/* Whether the fds of a forked copy still refer to the same files; then the old list may be read. 0,
 * FD_IS_UNRELATED or an errno. */
static int
check_fds(const RebuildPlan *plan)
{
    if (plan->identity.front_fd >= 0) {
        int status = identity_check(&plan->identity);
        return status == FD_MAY_BE_OURS ? 0 : status;
    }
    int check = fdinfo_is_epoll(plan->identity.epfd);
    return check == EINVAL || check == EBADF ? FD_IS_UNRELATED : check;
}

/* Read the old instance's list, without the GIL. Where it is unknown, only a forked copy goes on, and only if
 * it does not need the list. 0, FD_IS_UNRELATED or an errno. */
static int
read_old_entries(RebuildPlan *plan)
{
    int error = fdinfo_each(plan->identity.epfd, plan->count > 0, see_old_entry, plan);
    if (!plan->forked) {
        return error;
    }
    int status = check_fds(plan);
    if (error == 0) {
        return status == 0 && identity_conclude(&plan->evidence) == FD_IS_UNRELATED ? FD_IS_UNRELATED
                                                                                    : status;
    }
    if (error == ENODATA) {
        return status;
    }
    status = plan->one_shots ? error : identity_check(&plan->identity);
    return status == 0 || status == FD_IS_UNRELATED ? status : error;
}

static int
ctl_new(int epfd, int op, const Transfer *transfer)
{
    /* The kernel adds ERR and HUP to every mask, so a fired one-shot is not quite disarmed in the new
     * instance: `disarmed` in its registration makes up for that. */
    uint32_t mask = transfer->stand_in != NULL ? stand_in_mask(transfer->mask) : transfer->mask;
    struct epoll_event event = {
        .events = transfer->fired ? mask & private_bits : mask,
        .data.u64 = transfer->epoll_data,
    };
    return epoll_ctl(epfd, op, transfer->target, &event) < 0 ? errno : 0;
}

/* Whether the fd refers to a file other than the registered one, as far as the old instance shows. Adding an
 * entry that it has is refused with EEXIST and changes nothing. EEXIST may be about a stale entry of the same
 * fd: then kcmp decides, if allowed. A registration that cannot be probed is kept. */
static bool
is_reused(const Instance *self, const Transfer *transfer)
{
    struct epoll_event nothing = {0};
    if (epoll_ctl(self->fds.epfd, EPOLL_CTL_ADD, transfer->target, &nothing) == 0) {
        epoll_ctl(self->fds.epfd, EPOLL_CTL_DEL, transfer->target, &nothing);
        return true;
    }
    if (errno != EEXIST) {
        return errno == EINVAL || errno == ELOOP; /* an epoll that it does not watch, and cannot */
    }
    int thread = sys_gettid();
    return transfer->entries > 1 && transfer->stand_in == NULL &&
           sys_kcmp_watched(thread, self->fds.epfd, transfer->fd, transfer->nth, thread, transfer->fd) > 0;
}

/* The same for a forked copy, which cannot probe: the old instance is the parent's. EINVAL is taken for the
 * limit on how often an epoll is nested, except where the fd cannot be that of the registered epoll. ELOOP is
 * taken for another epoll, because the kernel accepted the depth of the registered one. */
static bool
is_reused_in_copy(int epfd, const Transfer *transfer, int error)
{
    return error == ELOOP || transfer->fd == epfd || (transfer->mask & EPOLLEXCLUSIVE) != 0;
}

/* Whether an error of EPOLL_CTL_ADD means that the fd no longer refers to the registered file. EINVAL and
 * ELOOP can also be about the registered epoll, nested too often or too deep for one more watcher: until the
 * new instance has replaced the old one, both watch it. */
static bool
means_lost(const RebuildPlan *plan, int epfd, const Transfer *transfer, int error)
{
    switch (error) {
    case EBADF:
    case EPERM:
        return true;
    case EINVAL:
    case ELOOP:
        return plan->forked ? is_reused_in_copy(epfd, transfer, error) : is_reused(plan->instance, transfer);
    default:
        return false;
    }
}

/* Whether a stand-in is still that of the file that its fd refers to. In a child, the file of the eventfd may
 * be another too. */
static bool
stands_in_still(const StandIn *stand_in, bool forked)
{
    return stand_in_is_current(stand_in) && (!forked || stand_in_has_eventfd(stand_in, true));
}

/* Add the live registrations to the new instance. 0, or an errno that is not about one registration. */
static int
add_to_new(RebuildPlan *plan, int epfd)
{
    for (int i = 0; i < plan->count; i++) {
        Transfer *transfer = &plan->transfers[i];
        if (!transfer->known && !plan->forked) {
            continue; /* closed, and kept in our list until it is touched */
        }
        if (transfer->stand_in != NULL && !stands_in_still(transfer->stand_in, plan->forked)) {
            transfer->lost_fd = true;
            continue;
        }
        int error = ctl_new(epfd, EPOLL_CTL_ADD, transfer);
        if (error != 0 && !means_lost(plan, epfd, transfer, error)) {
            return error;
        }
        transfer->lost_fd = error != 0;
    }
    return 0;
}

/* Remove registrations whose fd refers to another file from the new instance: their entries are stale. */
static void
drop_reused(RebuildPlan *plan, int epfd)
{
    for (int i = 0; i < plan->count; i++) {
        Transfer *transfer = &plan->transfers[i];
        if (transfer->known && !transfer->lost_fd && is_reused(plan->instance, transfer)) {
            ctl_new(epfd, EPOLL_CTL_DEL, transfer);
            transfer->lost_fd = true;
        }
    }
}

static void
copy_busy_poll(int from, int to)
{
    struct epoll_params params;
    if (ioctl(from, EPIOCGPARAMS, &params) == 0) {
        ioctl(to, EPIOCSPARAMS, &params);
    }
}

/* Give a forked copy a front of its own. 0 or an errno. */
static int
make_front_for_copy(Instance *self, int epfd)
{
    int front_fd = front_new(self->generations.base, epfd);
    int error = front_fd >= 0 ? front_take_fd(front_fd, self->fds.front) : errno;
    if (error == 0) {
        self->fds.epfd = epfd;
    }
    return error;
}

/* Let the front watch the new instance instead of the old one. At each moment it watches `epfd`: a child that
 * is made without fork handlers identifies the two by that. 0 or an errno. */
static int
switch_front(Instance *self, int old, int epfd)
{
    int error = front_watch(self->fds.front, self->generations.base, epfd);
    if (error == 0) {
        self->fds.epfd = epfd;
        front_unwatch(self->fds.front, old);
    }
    return error;
}

/* Replace the old instance by the new one; `epfd` is used up either way. Without a front, the new one gets
 * the fd of the old one. 0, or an errno and nothing has changed. */
static int
replace_instance(Instance *self, int epfd, bool forked)
{
    int old = self->fds.epfd;
    copy_busy_poll(old, epfd);
    if (self->fds.front < 0) {
        return front_take_fd(epfd, old);
    }
    int error = forked ? make_front_for_copy(self, epfd) : switch_front(self, old, epfd);
    close(error == 0 ? old : epfd);
    return error;
}

/* The system calls of a rebuild, without the GIL. 0, or an errno and nothing has changed. */
static int
build_and_replace(RebuildPlan *plan)
{
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0) {
        return errno;
    }
    int error = sys_epoll_ctl_denied(epfd);
    error = error == 0 ? add_to_new(plan, epfd) : error;
    if (error != 0) {
        close(epfd);
        return error;
    }
    if (!plan->forked) {
        drop_reused(plan, epfd);
    }
    return replace_instance(plan->instance, epfd, plan->forked);
}

/* Mark the one-shots that have fired: their new entries do not show it, and from here on a fork may copy our
 * list at any time. */
static void
mark_disarmed(RebuildPlan *plan)
{
    Instance *self = plan->instance;
    STATE_LOCK(self);
    uint64_t time = change_begin(self);
    for (int i = 0; i < plan->count; i++) {
        Registration *slot = interest_slot(&self->list, plan->transfers[i].fd);
        if (plan->transfers[i].fired && !slot->disarmed) {
            slot->disarmed = true;
            slot->disarmed_at = time;
            slot->countdown = 1; /* keeps the short cut away from it */
        }
    }
    change_complete(self);
    STATE_UNLOCK(self);
}

/* Make our list agree with the new instance. */
static void
apply_transfers(RebuildPlan *plan, LostRegistrations *lost)
{
    Instance *self = plan->instance;
    STATE_LOCK(self);
    uint64_t time = change_begin(self);
    for (int i = 0; i < plan->count; i++) {
        const Transfer *transfer = &plan->transfers[i];
        Registration *slot = interest_slot(&self->list, transfer->fd);
        slot->rearm_pending = false;
        if (transfer->lost_fd) {
            Registration empty = {.changed = time};
            lost->items[lost->count++] = interest_put(&self->list, transfer->fd, empty);
        }
    }
    interest_renew(&self->list);
    self->stats.lost += (unsigned)lost->count;
    change_complete(self);
    self->stale.rebuilt_at = time;
    STATE_UNLOCK(self);
    for (int i = 0; i < plan->count; i++) {
        if (plan->transfers[i].lost_fd && plan->transfers[i].stand_in != NULL) {
            always_ready_drop(self, plan->transfers[i].fd);
        }
    }
}

void
lost_registrations_release(LostRegistrations *lost)
{
    for (int i = 0; i < lost->count; i++) {
        registration_release(&lost->items[i]);
    }
    free(lost->items);
}

int
rebuild(Instance *self, bool forked, LostRegistrations *lost)
{
    RebuildPlan plan = {
        .instance = self,
        .identity = {self->fds.epfd, self->fds.front, &self->list, self->generations.base,
                     self->generations.last},
        .forked = forked,
    };
    int error = plan_transfers(&plan);
    lost->items = calloc((size_t)plan.count + 1, sizeof(Registration));
    if (error != 0 || lost->items == NULL) {
        free(plan.transfers);
        return ENOMEM;
    }
    Py_BEGIN_ALLOW_THREADS
    error = read_old_entries(&plan);
    Py_END_ALLOW_THREADS
    if (error == 0) {
        mark_disarmed(&plan);
        Py_BEGIN_ALLOW_THREADS
        fork_hold();
        error = build_and_replace(&plan);
        fork_release();
        Py_END_ALLOW_THREADS
    }
    if (error == 0) {
        apply_transfers(&plan, lost);
    }
    free(plan.transfers);
    return error;
}
