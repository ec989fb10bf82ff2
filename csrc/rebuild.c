#include "rebuild.h"

#include "errors.h"
#include "fdinfo.h"
#include "flags.h"
#include "nesting.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* One registration on its way into the new instance. */
typedef struct {
    int fd;
    uint32_t mask;
    uint64_t word;
    bool known; /* the old instance has it */
    bool spent; /* a one-shot that has fired */
    bool dead;  /* its file is not under this number any more */
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
        plan->familiar = true;
        /* One that was spent at an earlier rebuild does not look it. */
        move->spent |= (move->mask & EPOLLONESHOT) != 0 && (watched->events & ~private_bits) == 0;
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
        };
    }
    return 0;
}

int
rebuild_whose(Instance *self)
{
    if (!fdinfo_is_epoll(self->epfd)) {
        return ESTRANGED_FILE;
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

/* What the old instance cannot delete under its number is a ghost, and the number another file's. */
static void
find_reused(Plan *plan, int epfd)
{
    for (int i = 0; i < plan->count; i++) {
        Move *move = &plan->moves[i];
        if (move->known && !move->dead && ctl(plan->instance->epfd, EPOLL_CTL_DEL, move) != 0) {
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

/* The system calls of a rebuild, for use without the GIL. 0 or an errno, and then nothing has changed. */
static int
move_all(Plan *plan)
{
    Instance *self = plan->instance;
    int error = fdinfo_each(self->epfd, see_watched, plan);
    if (error != 0) {
        return error;
    }
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    if (epfd < 0) {
        return errno;
    }
    error = add_moves(plan, epfd);
    if (error != 0) {
        close(epfd);
        return error;
    }
    if (!plan->orphan) {
        find_reused(plan, epfd);
    }
    error = take_number(self, epfd);
    for (int i = 0; error != 0 && !plan->orphan && i < plan->count; i++) {
        if (plan->moves[i].known && !plan->moves[i].dead) {
            ctl(self->epfd, EPOLL_CTL_ADD, &plan->moves[i]);
        }
    }
    return error;
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
        if (move->dead) {
            lost[count++] = interest_put(&self->list, move->fd, (Registration){0});
        }
        else if (move->spent && !interest_slot(&self->list, move->fd)->disarmed) {
            Registration *slot = interest_slot(&self->list, move->fd);
            slot->disarmed = true;
            slot->disarmed_at = self->removals + 1;
            slot->countdown = 1; /* keeps the short cut away from it */
        }
    }
    self->dropped += (unsigned)count;
    self->removals++;
    self->suspects = 0;
    STATE_UNLOCK(self);
    return count;
}

/* What a rebuild leaves for when all locks have been let go. */
typedef struct {
    Registration *lost;
    int count;
    Nestings nestings;
} Leftover;

static void
release_leftover(Leftover *leftover)
{
    for (int i = 0; i < leftover->count; i++) {
        registration_release(&leftover->lost[i]);
    }
    free(leftover->lost);
    nesting_release(&leftover->nestings);
}

/* With the ctl lock, and no waiter in the old instance. 0 or an errno. */
static int
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
    if (leftover->nestings.blind) {
        error = EMFILE;
    }
    else {
        Py_BEGIN_ALLOW_THREADS
        error = move_all(&plan);
        Py_END_ALLOW_THREADS
    }
    nesting_attach(self, &leftover->nestings);
    if (error == 0) {
        leftover->count = settle(&plan, leftover->lost);
    }
    free(plan.moves);
    return error;
}

/* A ghost whose number lies idle may have come back under it, as another duplicate of its file. */
static bool
delete_ghost(Instance *self)
{
    int fd = interest_word_fd(self->ghost);
    return interest_get(&self->list, fd) == NULL &&
           epoll_ctl(self->epfd, EPOLL_CTL_DEL, fd, &(struct epoll_event){0}) == 0;
}

static bool
see_ghost(const Watched *watched, void *arg)
{
    Plan *plan = arg;
    plan->strangers = watched->word != 0 && interest_find(&plan->instance->list, watched->word) == NULL;
    return !plan->strangers;
}

/* Whether the kernel's list has an entry that ours has not, or may have: it cannot be read. The suspicion
 * may be all there was, since a closed file without a duplicate leaves nothing. */
static bool
has_ghosts(Instance *self)
{
    Plan plan = {.instance = self};
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = fdinfo_each(self->epfd, see_ghost, &plan);
    Py_END_ALLOW_THREADS
    return error != 0 || plan.strangers;
}

/* Wait, a second at most, until the last waiter has posted. */
static bool
wait_drained(Instance *self, bool woken)
{
    const PY_TIMEOUT_T most = woken ? 1000000 : 0; /* microseconds */
    bool posted;
    Py_BEGIN_ALLOW_THREADS
    posted = PyThread_acquire_lock_timed(self->drained, most, 0) == PY_LOCK_ACQUIRED;
    Py_END_ALLOW_THREADS
    STATE_LOCK(self);
    bool late = !posted && !self->draining; /* it comes, or came just after */
    self->draining = false;
    STATE_UNLOCK(self);
    if (late) {
        PyThread_acquire_lock(self->drained, WAIT_LOCK);
    }
    return posted || late;
}

/* Wake the waiters and wait until they have left. False if they would not. */
static bool
drain(Instance *self)
{
    STATE_LOCK(self);
    self->draining = self->waiters > 0;
    bool waiting = self->draining;
    STATE_UNLOCK(self);
    if (!waiting) {
        return true;
    }
    bool drained = wait_drained(self, instance_wake(self) == 0);
    epoll_ctl(self->epfd, EPOLL_CTL_DEL, self->module->ready_fd, &(struct epoll_event){0});
    STATE_LOCK(self);
    bool closed = self->standing == CLOSED;
    STATE_UNLOCK(self);
    if (closed) {
        instance_wake(self); /* that was close's mark too */
    }
    return drained && !closed;
}

/* Where there is no cure (no fd left for a second instance), a ghost must not cost a whole core. */
static void
nap(void)
{
    Py_BEGIN_ALLOW_THREADS
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    Py_END_ALLOW_THREADS
}

void
rebuild_cure(Instance *self)
{
    Leftover leftover = {0};
    if (instance_enter(self) != 0) {
        PyErr_Clear();
        return;
    }
    instance_lock(self);
    STATE_LOCK(self);
    bool haunted = self->haunted && !self->foreign && self->standing == OPEN;
    self->haunted = false;
    self->moving = haunted;
    STATE_UNLOCK(self);
    if (haunted) {
        bool ghosts = has_ghosts(self);
        bool cured = ghosts && (delete_ghost(self) || (drain(self) && rebuild(self, false, &leftover) == 0));
        if (ghosts && !cured) {
            nap();
        }
        STATE_LOCK(self);
        self->moving = false;
        self->cures += cured;
        self->doubts = 0;
        self->suspects = ghosts ? self->suspects : 0;
        STATE_UNLOCK(self);
    }
    instance_unlock(self);
    instance_leave(self);
    release_leftover(&leftover);
}

static int
refuse_orphan(const Instance *self, int error)
{
    if (error == ESTRANGED_FILE) {
        os_error(EBADF, "fd %d, the epoll that this process inherited through fork, is another file by now",
                 self->epfd);
    }
    else {
        os_error(error, "cannot give epoll fd %d, inherited through fork, an instance of this process",
                 self->epfd);
    }
    return -1;
}

int
rebuild_orphan(Instance *self)
{
    Leftover leftover = {0};
    STATE_LOCK(self);
    Standing standing = self->standing;
    self->users += standing == ORPHAN; /* as enter does; an orphan cannot be entered */
    STATE_UNLOCK(self);
    if (standing != ORPHAN) {
        return standing == ESTRANGED ? refuse_orphan(self, ESTRANGED_FILE) : 0;
    }
    instance_lock(self);
    int error = 0;
    if (self->standing == ORPHAN) {
        error = rebuild_whose(self);
        error = error == EMPTY_EPOLL ? 0 : error;
        if (error == 0 && !self->foreign) {
            error = rebuild(self, true, &leftover);
        }
        STATE_LOCK(self);
        if (self->standing == ORPHAN) {
            self->standing = error == 0 ? OPEN : error == ESTRANGED_FILE ? ESTRANGED : ORPHAN;
        }
        STATE_UNLOCK(self);
    }
    instance_unlock(self);
    instance_leave(self);
    release_leftover(&leftover);
    return error != 0 ? refuse_orphan(self, error) : 0;
}
