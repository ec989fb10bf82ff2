#include "rebuild.h"

#include "flags.h"
#include "syscalls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

/* One registration on its way into the new instance. */
typedef struct {
    int fd;
    uint32_t mask;
    uint64_t word;
    int entries; /* how many the old instance has under the number */
    int nth;     /* which of them it is, where it is known */
    bool known;  /* the old instance has it */
    bool spent;  /* a one-shot that has fired */
    bool owed;   /* its event was given back in a child */
    bool dead;   /* its file is not under this number any more */
} Move;

typedef struct {
    Instance *instance;
    Move *moves; /* by ascending fd; from malloc */
    int count;
    bool orphan;    /* the old instance is the parent's: it is read and left alone */
    bool strangers; /* the old instance has words that cannot be ours */
    bool familiar;  /* it has one that is a registration's of ours */
    bool empty;     /* it has none */
} Plan;

/* What the kernel keeps of the mask of a spent one-shot. */
static const uint32_t private_bits = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;

static int
compare_fd(const void *left, const void *right)
{
    return ((const Move *)left)->fd - ((const Move *)right)->fd;
}

/* A word of ours has its own fd in it and a generation that was given out, here or, since a fork, by
 * the parent, which goes on counting. */
static bool
is_our_word(const Instance *self, const Watched *watched)
{
    enum { PARENT_AHEAD = 1 << 20 };
    uint32_t age = (uint32_t)(watched->word >> 32) - self->first;
    return watched->word == 0 || (interest_word_fd(watched->word) == watched->fd && age >= 1 &&
                                  age <= self->generation - self->first + PARENT_AHEAD);
}

static bool
see_watched(const Watched *watched, void *arg)
{
    Plan *plan = arg;
    Move key = {.fd = watched->fd};
    plan->empty = false;
    plan->strangers |= !is_our_word(plan->instance, watched);
    Move *move = plan->count > 0 ? bsearch(&key, plan->moves, (size_t)plan->count, sizeof(Move), compare_fd)
                                 : NULL;
    if (move != NULL && move->word == watched->word) {
        move->known = true;
        move->nth = move->entries;
        plan->familiar = true;
        /* One that was spent at an earlier rebuild does not look it. */
        move->spent |= !move->owed && (move->mask & EPOLLONESHOT) != 0 &&
                       (watched->events & ~private_bits) == 0;
    }
    if (move != NULL) {
        move->entries++;
    }
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
        plan->moves[plan->count++] = (Move){
            .fd = fd,
            .mask = slot->mask,
            .word = interest_word(fd, slot->generation),
            .spent = slot->disarmed,
            .owed = slot->owed,
        };
    }
    return 0;
}

int
rebuild_whose(Instance *self)
{
    int seen = fdinfo_is_epoll(self->epfd);
    if (seen != 0) {
        return seen == EINVAL || seen == EBADF ? ESTRANGED_FILE : seen;
    }
    if (self->foreign) {
        return 0;
    }
    Plan plan = {.instance = self, .empty = true};
    int error = plan_moves(&plan);
    if (error == 0) {
        error = fdinfo_each(self->epfd, see_watched, &plan);
    }
    free(plan.moves);
    if (error != 0) {
        return error;
    }
    return plan.empty ? EMPTY_EPOLL : plan.strangers && !plan.familiar ? ESTRANGED_FILE : 0;
}

static int
ctl(int epfd, int op, const Move *move)
{
    /* The kernel adds ERR and HUP to whatever is asked for, so a spent one-shot is not quite spent in
     * the new instance: `disarmed` in its registration makes up for that. */
    struct epoll_event event = {
        .events = move->spent ? move->mask & private_bits : move->mask,
        .data.u64 = move->word,
    };
    return epoll_ctl(epfd, op, move->fd, &event) < 0 ? errno : 0;
}

/* Add what is live to the new instance. 0, or the errno of a lack that is not the registration's. */
static int
add_moves(Plan *plan, int epfd)
{
    for (int i = 0; i < plan->count; i++) {
        Move *move = &plan->moves[i];
        if (!move->known && !plan->orphan) {
            continue; /* closed for good, and listed until it is touched */
        }
        int error = ctl(epfd, EPOLL_CTL_ADD, move);
        if (error == ENOMEM || error == ENOSPC) {
            return error;
        }
        move->dead = error != 0;
    }
    return 0;
}

/* Whether the file under a number is another than the one that was registered. What the old instance does not
 * have is one; to add it asks without changing anything, as copies in children learn from the old instance
 * what is spent. What it has may be the entry of a ghost of the same number: kcmp tells, if it may. */
static bool
is_reused(const Instance *self, const Move *move)
{
    struct epoll_event nothing = {0};
    if (epoll_ctl(self->epfd, EPOLL_CTL_ADD, move->fd, &nothing) == 0 || errno != EEXIST) {
        epoll_ctl(self->epfd, EPOLL_CTL_DEL, move->fd, &nothing);
        return true;
    }
    int pid = getpid();
    return move->entries > 1 && sys_kcmp_watched(pid, self->epfd, move->fd, move->nth, pid, move->fd) > 0;
}

/* Take out of the new instance what is another file by now: what was registered is a ghost. */
static void
drop_reused(Plan *plan, int epfd)
{
    for (int i = 0; i < plan->count; i++) {
        Move *move = &plan->moves[i];
        if (move->known && !move->dead && is_reused(plan->instance, move)) {
            ctl(epfd, EPOLL_CTL_DEL, move);
            move->dead = true;
        }
    }
}

/* Put the new instance under the old one's number. 0 or an errno; `epfd` is used up either way. */
static int
take_number(const Instance *self, int epfd)
{
    struct epoll_params params;
    if (ioctl(self->epfd, EPIOCGPARAMS, &params) == 0) {
        ioctl(epfd, EPIOCSPARAMS, &params);
    }
    int flags = fcntl(self->epfd, F_GETFD);
    int error = dup3(epfd, self->epfd, flags >= 0 && (flags & FD_CLOEXEC) == 0 ? 0 : O_CLOEXEC) < 0 ? errno
                                                                                                    : 0;
    close(epfd);
    return error;
}

/* Write down which one-shots are spent: what is moved does not look it any more, and a fork may copy our list
 * at any time from here on. */
static void
mark_spent(Plan *plan)
{
    Instance *self = plan->instance;
    STATE_LOCK(self);
    self->removals++;
    for (int i = 0; i < plan->count; i++) {
        Registration *slot = interest_slot(&self->list, plan->moves[i].fd);
        if (plan->moves[i].spent && !slot->disarmed) {
            slot->disarmed = true;
            slot->disarmed_at = self->removals;
            slot->countdown = 1; /* keeps the short cut away from it */
        }
    }
    STATE_UNLOCK(self);
}

/* The system calls of a rebuild, for use without the GIL. 0 or an errno, and then nothing has changed. */
static int
move_all(Plan *plan)
{
    Instance *self = plan->instance;
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
    if (!plan->orphan) {
        drop_reused(plan, epfd);
    }
    return take_number(self, epfd);
}

/* Bring our list up to what was moved. Fills `lost` with the registrations that were not, the caller's. */
static int
settle(Plan *plan, Registration *lost)
{
    Instance *self = plan->instance;
    int count = 0;
    STATE_LOCK(self);
    for (int i = 0; i < plan->count; i++) {
        const Move *move = &plan->moves[i];
        interest_slot(&self->list, move->fd)->owed = false;
        if (move->dead) {
            lost[count++] = interest_put(&self->list, move->fd, (Registration){0});
        }
    }
    self->dropped += (unsigned)count;
    self->removals++;
    self->suspects = 0;
    STATE_UNLOCK(self);
    return count;
}

void
rebuild_release(Leftover *leftover)
{
    for (int i = 0; i < leftover->count; i++) {
        registration_release(&leftover->lost[i]);
    }
    free(leftover->lost);
    nesting_release(&leftover->nestings);
}

int
rebuild(Instance *self, bool orphan, Leftover *leftover)
{
    Plan plan = {.instance = self, .orphan = orphan};
    int error = plan_moves(&plan);
    leftover->lost = calloc((size_t)plan.count + 1, sizeof(Registration));
    if (error != 0 || leftover->lost == NULL) {
        free(plan.moves);
        return ENOMEM;
    }
    leftover->nestings = nesting_detach(self, orphan);
    error = leftover->nestings.error;
    if (error == 0) {
        Py_BEGIN_ALLOW_THREADS
        error = fdinfo_each(self->epfd, see_watched, &plan);
        Py_END_ALLOW_THREADS
    }
    if (error == 0) {
        mark_spent(&plan);
        Py_BEGIN_ALLOW_THREADS
        fork_hold();
        error = move_all(&plan);
        fork_release();
        Py_END_ALLOW_THREADS
    }
    nesting_attach(self, &leftover->nestings);
    if (error == 0) {
        leftover->count = settle(&plan, leftover->lost);
    }
    free(plan.moves);
    return error;
}
