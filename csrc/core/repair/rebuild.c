#include "core/repair/rebuild.h"

#include "base/fdinfo.h"
#include "base/syscalls.h"
#include "core/change.h"
#include "core/front.h"
#include "core/identity.h"
#include "flags.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* One registration on its way into the new instance. */
typedef struct {
    int fd;
    uint32_t mask;
    uint64_t epoll_data;
    int entries; /* how many the old instance has under the fd */
    int nth;     /* which of them it is, where it is known */
    bool known;  /* the old instance has it */
    bool fired;  /* a one-shot that has */
    bool owed;   /* its event was given back in a child */
    bool dead;   /* its file is not under this fd any more */
} Move;

typedef struct {
    Instance *instance;
    Identity identity;
    Evidence evidence;
    Move *moves; /* by ascending fd; from malloc */
    int count;
    bool one_shots; /* there are some */
    bool forked;    /* the old instance is the parent's */
} Plan;

/* What the kernel keeps of the mask of a fired one-shot. */
static const uint32_t private_bits = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;

static int
compare_fd(const void *left, const void *right)
{
    return ((const Move *)left)->fd - ((const Move *)right)->fd;
}

static bool
see_move(const KernelEntry *entry, void *arg)
{
    Plan *plan = arg;
    Move key = {.fd = entry->fd};
    identity_see(&plan->identity, entry, &plan->evidence);
    Move *move = bsearch(&key, plan->moves, (size_t)plan->count, sizeof(Move), compare_fd);
    if (move == NULL) {
        return true;
    }
    if (move->epoll_data == entry->data) {
        move->known = true;
        move->nth = move->entries;
        /* One that had fired before an earlier rebuild does not look it. */
        bool disarmed = (move->mask & EPOLLONESHOT) != 0 && (entry->events & ~private_bits) == 0;
        move->fired |= disarmed && !move->owed;
    }
    move->entries++;
    return true;
}

/* Write down what is registered. 0 or ENOMEM. */
static int
plan_moves(Plan *plan)
{
    Instance *self = plan->instance;
    plan->moves = calloc((size_t)self->list.count + 1, sizeof(Move));
    if (plan->moves == NULL) {
        return ENOMEM;
    }
    for (int fd = interest_next(&self->list, 0); fd >= 0; fd = interest_next(&self->list, fd + 1)) {
        const Registration *slot = interest_slot(&self->list, fd);
        plan->one_shots |= (slot->mask & EPOLLONESHOT) != 0;
        plan->moves[plan->count++] = (Move){
            .fd = fd,
            .mask = slot->mask,
            .epoll_data = epoll_data_of(fd, slot->generation),
            .fired = slot->disarmed,
            .owed = slot->owed,
        };
    }
    return 0;
}

/* Whether a forked copy's fds are what they were; then its list may be read. 0, FD_IS_UNRELATED or an errno.
 */
static int
check_fds(const Plan *plan)
{
    if (plan->identity.front_fd >= 0) {
        int status = identity_check(&plan->identity);
        return status == FD_MAY_BE_OURS ? 0 : status;
    }
    int seen = fdinfo_is_epoll(plan->identity.epfd);
    return seen == EINVAL || seen == EBADF ? FD_IS_UNRELATED : seen;
}

/* Read the old instance's list, without the GIL. Where it is unknown, only a forked copy goes on that has
 * nothing to learn from it. 0, FD_IS_UNRELATED or an errno. */
static int
read_kernel(Plan *plan)
{
    int error = fdinfo_each(plan->identity.epfd, plan->count > 0, see_move, plan);
    if (!plan->forked) {
        return error;
    }
    int status = check_fds(plan);
    if (error == 0) {
        return status == 0 && identity_verdict(&plan->evidence) == FD_IS_UNRELATED ? FD_IS_UNRELATED : status;
    }
    if (error == ENODATA) {
        return status;
    }
    status = plan->one_shots ? error : identity_check(&plan->identity);
    return status == 0 || status == FD_IS_UNRELATED ? status : error;
}

static int
tell_new(int epfd, int op, const Move *move)
{
    /* The kernel adds ERR and HUP to whatever is asked for, so a fired one-shot is not quite disarmed in the
     * new instance: `disarmed` in its registration makes up for that. */
    struct epoll_event event = {
        .events = move->fired ? move->mask & private_bits : move->mask,
        .data.u64 = move->epoll_data,
    };
    return epoll_ctl(epfd, op, move->fd, &event) < 0 ? errno : 0;
}

/* Whether the file under an fd is another than the registered one, as far as the old instance tells. To add
 * what it has is refused with EEXIST, and changes nothing. It may have a stale entry of the same fd: kcmp
 * tells, if it may. What cannot be probed is kept. */
static bool
is_reused(const Instance *self, const Move *move)
{
    struct epoll_event nothing = {0};
    if (epoll_ctl(self->epfd, EPOLL_CTL_ADD, move->fd, &nothing) == 0) {
        epoll_ctl(self->epfd, EPOLL_CTL_DEL, move->fd, &nothing);
        return true;
    }
    if (errno != EEXIST) {
        return errno == EINVAL || errno == ELOOP; /* an epoll that it does not watch, and cannot */
    }
    int thread = sys_gettid();
    return move->entries > 1 &&
           sys_kcmp_watched(thread, self->epfd, move->fd, move->nth, thread, move->fd) > 0;
}

/* The same for a forked copy, which cannot probe: the old instance is the parent's. A nested epoll can be
 * nested too often by now (EINVAL). It is never too deep (ELOOP), for its depth was accepted once: this is
 * another epoll. */
static bool
is_reused_in_copy(int epfd, const Move *move, int error)
{
    return error == ELOOP || move->fd == epfd || (move->mask & EPOLLEXCLUSIVE) != 0;
}

/* Whether an error of EPOLL_CTL_ADD means that the fd is not the registered file any more. EINVAL and ELOOP
 * can also mean that the registered epoll is nested too often or too deep for one watcher more: until the
 * new instance has taken the old one's place, there are two. */
static bool
means_dead(const Plan *plan, int epfd, const Move *move, int error)
{
    switch (error) {
    case EBADF:
    case EPERM:
        return true;
    case EINVAL:
    case ELOOP:
        return plan->forked ? is_reused_in_copy(epfd, move, error) : is_reused(plan->instance, move);
    default:
        return false;
    }
}

/* Add what is live to the new instance. 0, or an errno that does not speak of the registration. */
static int
add_moves(Plan *plan, int epfd)
{
    for (int i = 0; i < plan->count; i++) {
        Move *move = &plan->moves[i];
        if (!move->known && !plan->forked) {
            continue; /* closed, and kept in our list until it is touched */
        }
        int error = tell_new(epfd, EPOLL_CTL_ADD, move);
        if (error != 0 && !means_dead(plan, epfd, move, error)) {
            return error;
        }
        move->dead = error != 0;
    }
    return 0;
}

/* Take out of the new instance what is another file by now: what was registered is stale. */
static void
drop_reused(Plan *plan, int epfd)
{
    for (int i = 0; i < plan->count; i++) {
        Move *move = &plan->moves[i];
        if (move->known && !move->dead && is_reused(plan->instance, move)) {
            tell_new(epfd, EPOLL_CTL_DEL, move);
            move->dead = true;
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

/* Let the front of a forked copy be one of its own. 0 or an errno. */
static int
fork_front(Instance *self, int epfd)
{
    int front_fd = front_new(self->first, epfd);
    int error = front_fd >= 0 ? front_take_fd(front_fd, self->front_fd) : errno;
    if (error == 0) {
        self->epfd = epfd;
    }
    return error;
}

/* Let the front watch the new instance instead of the old one. At each moment it watches `epfd`, by which a
 * child that is made without fork handlers recognises the two. 0 or an errno. */
static int
move_front(Instance *self, int old, int epfd)
{
    int error = front_watch(self->front_fd, self->first, epfd);
    if (error == 0) {
        self->epfd = epfd;
        front_unwatch(self->front_fd, old);
    }
    return error;
}

/* Put the new instance in the old one's place; `epfd` is used up either way. Without a front, it gets the old
 * one's fd. 0, or an errno and nothing has changed. */
static int
take_place(Instance *self, int epfd, bool forked)
{
    int old = self->epfd;
    copy_busy_poll(old, epfd);
    if (self->front_fd < 0) {
        return front_take_fd(epfd, old);
    }
    int error = forked ? fork_front(self, epfd) : move_front(self, old, epfd);
    close(error == 0 ? old : epfd);
    return error;
}

/* The system calls of a rebuild, without the GIL. 0, or an errno and nothing has changed. */
static int
move_all(Plan *plan)
{
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0) {
        return errno;
    }
    int error = sys_epoll_ctl_denied(epfd);
    error = error == 0 ? add_moves(plan, epfd) : error;
    if (error != 0) {
        close(epfd);
        return error;
    }
    if (!plan->forked) {
        drop_reused(plan, epfd);
    }
    return take_place(plan->instance, epfd, plan->forked);
}

/* Write down which one-shots have fired: what is moved does not look it any more, and a fork may copy our
 * list at any time from here on. */
static void
mark_disarmed(Plan *plan)
{
    Instance *self = plan->instance;
    STATE_LOCK(self);
    uint64_t time = change_begin(self);
    for (int i = 0; i < plan->count; i++) {
        Registration *slot = interest_slot(&self->list, plan->moves[i].fd);
        if (plan->moves[i].fired && !slot->disarmed) {
            slot->disarmed = true;
            slot->disarmed_at = time;
            slot->countdown = 1; /* keeps the short cut away from it */
        }
    }
    change_complete(self);
    STATE_UNLOCK(self);
}

/* Bring our list up to what was moved. */
static void
settle(Plan *plan, Lost *lost)
{
    Instance *self = plan->instance;
    STATE_LOCK(self);
    uint64_t time = change_begin(self);
    for (int i = 0; i < plan->count; i++) {
        const Move *move = &plan->moves[i];
        Registration *slot = interest_slot(&self->list, move->fd);
        slot->owed = false;
        if (move->dead) {
            Registration empty = {.changed = time};
            lost->items[lost->count++] = interest_put(&self->list, move->fd, empty);
        }
    }
    interest_unshadow(&self->list);
    self->lost += (unsigned)lost->count;
    change_complete(self);
    self->stale.rebuilt_at = time;
    STATE_UNLOCK(self);
}

void
lost_release(Lost *lost)
{
    for (int i = 0; i < lost->count; i++) {
        registration_release(&lost->items[i]);
    }
    free(lost->items);
}

int
rebuild(Instance *self, bool forked, Lost *lost)
{
    Plan plan = {
        .instance = self,
        .identity = {self->epfd, self->front_fd, &self->list, self->first, self->generation},
        .forked = forked,
    };
    int error = plan_moves(&plan);
    lost->items = calloc((size_t)plan.count + 1, sizeof(Registration));
    if (error != 0 || lost->items == NULL) {
        free(plan.moves);
        return ENOMEM;
    }
    Py_BEGIN_ALLOW_THREADS
    error = read_kernel(&plan);
    Py_END_ALLOW_THREADS
    if (error == 0) {
        mark_disarmed(&plan);
        Py_BEGIN_ALLOW_THREADS
        fork_hold();
        error = move_all(&plan);
        fork_release();
        Py_END_ALLOW_THREADS
    }
    if (error == 0) {
        settle(&plan, lost);
    }
    free(plan.moves);
    return error;
}
