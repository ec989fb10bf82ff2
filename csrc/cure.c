#include "cure.h"

#include "rebuild.h"

#include <time.h>

/* A ghost whose number lies idle may have come back under it, as another duplicate of its file. */
static bool
delete_ghost(Instance *self)
{
    int fd = interest_word_fd(self->ghost);
    return interest_get(&self->list, fd) == NULL &&
           epoll_ctl(self->epfd, EPOLL_CTL_DEL, fd, &(struct epoll_event){0}) == 0;
}

typedef struct {
    const Instance *instance;
    bool found;
} Search;

static bool
see_ghost(const Watched *watched, void *arg)
{
    Search *search = arg;
    search->found = watched->word != 0 && interest_find(&search->instance->list, watched->word) == NULL;
    return !search->found;
}

/* Whether the kernel's list has an entry that ours has not, or may have: it cannot be read. The suspicion
 * may be all there was, since a closed file without a duplicate leaves nothing. */
static bool
has_ghosts(Instance *self)
{
    Search search = {.instance = self};
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = fdinfo_each(self->epfd, see_ghost, &search);
    Py_END_ALLOW_THREADS
    return error != 0 || search.found;
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
cure_ghosts(Instance *self)
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
    rebuild_release(&leftover);
}
