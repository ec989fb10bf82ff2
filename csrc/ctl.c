#include "ctl.h"

#include "errors.h"
#include "fdinfo.h"
#include "syscalls.h"

#include <errno.h>
#include <fcntl.h>

/* epoll_ctl without the GIL. 0 or an errno. */
static int
kernel_ctl(const Instance *self, int op, int fd, uint32_t mask, uint32_t generation)
{
    struct epoll_event event = {.events = mask, .data.u64 = interest_word(fd, generation)};
    int epfd = self->epfd;
    int error;
    Py_BEGIN_ALLOW_THREADS
    error = epoll_ctl(epfd, op, fd, &event) < 0 ? errno : 0;
    Py_END_ALLOW_THREADS
    return error;
}

/* A number that is not open gets no slot, however large it is. 0, an errno, or -1 for no memory. */
static int
reserve(Instance *self, int fd)
{
    if (interest_slot(&self->list, fd) != NULL) {
        return 0;
    }
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
        return EBADF;
    }
    STATE_LOCK(self);
    int status = interest_reserve(&self->list, fd);
    STATE_UNLOCK(self);
    return status;
}

static uint32_t
next_generation(Instance *self)
{
    self->generation++;
    return self->generation != 0 ? self->generation : ++self->generation;
}

/* Put `now` in the place of `fd` before the kernel hears of it. What was there is the caller's. */
static Registration
install(Instance *self, int fd, Registration now)
{
    STATE_LOCK(self);
    now.changed = ++self->changes;
    Registration before = interest_put(&self->list, fd, now);
    STATE_UNLOCK(self);
    return before;
}

/* The kernel refused: put `before` back and return what stood in its place, the caller's again. */
static Registration
undo(Instance *self, int fd, Registration before)
{
    STATE_LOCK(self);
    Registration refused = interest_put(&self->list, fd, before);
    STATE_UNLOCK(self);
    return refused;
}

/* Empty the slot of `fd`. What was there is the caller's. */
static Registration
removed(Instance *self, int fd)
{
    Registration before = {0};
    STATE_LOCK(self);
    self->removals++;
    if (interest_slot(&self->list, fd) != NULL) {
        before = interest_put(&self->list, fd, (Registration){0});
    }
    STATE_UNLOCK(self);
    return before;
}

/* A removal has ended, or begins; what may have left a ghost makes a suspect. */
static void
removal_ended(Instance *self, bool suspect)
{
    STATE_LOCK(self);
    self->removals++;
    self->suspects += suspect;
    STATE_UNLOCK(self);
}

/* Whether a refusal means that the registered file is not the one under this number any more. */
static bool
is_gone(const Instance *self, int error, int fd)
{
    switch (error) {
    case ENOENT:
        return true;
    case EPERM:
        return sys_epoll_ctl_denied(self->epfd) != EPERM;
    case EBADF:
        /* It is the epoll that is not open, or it is the fd: closed, or reused by one with O_PATH. */
        return fcntl(self->epfd, F_GETFD) >= 0 || fcntl(fd, F_GETFD) < 0;
    default:
        return false;
    }
}

static int
begin(Instance *self)
{
    int status = instance_enter(self);
    if (status == 0) {
        instance_lock(self);
    }
    return status;
}

static void
end(Instance *self)
{
    instance_unlock(self);
    instance_leave(self);
}

static int
fail(int error, int op, const char *action, int epfd, int fd, uint32_t mask)
{
    if (error < 0) {
        PyErr_NoMemory();
    }
    else {
        ctl_error(error, op, action, epfd, fd, mask);
    }
    return -1;
}

typedef struct {
    uint64_t word;
    uint32_t events;
} Kept;

static bool
find_kept(const Watched *watched, void *arg)
{
    Kept *kept = arg;
    if (watched->word == kept->word) {
        kept->events = watched->events;
    }
    return watched->word != kept->word;
}

/* The kernel drops WAKEUP in silence where the caller may not keep the system awake. Its own list tells,
 * and ours is to say the same. */
static void
see_wakeup(Instance *self, int fd, Registration *present)
{
    Kept kept = {.word = interest_word(fd, present->generation), .events = EPOLLWAKEUP};
    fdinfo_each(self->epfd, find_kept, &kept);
    STATE_LOCK(self);
    present->mask &= kept.events | ~(uint32_t)EPOLLWAKEUP;
    STATE_UNLOCK(self);
}

/* Put a registration that the kernel is to be told of by `op` in the place of `fd`, and take it back if
 * the kernel refuses. 0 or an errno; in `old` what the caller is to release. */
static int
replace(Instance *self, int op, int fd, Registration now, Registration *old)
{
    *old = install(self, fd, now);
    int error = kernel_ctl(self, op, fd, now.mask, now.generation);
    if (error != 0) {
        *old = undo(self, fd, *old);
    }
    else if ((now.mask & EPOLLWAKEUP) != 0) {
        see_wakeup(self, fd, interest_slot(&self->list, fd));
    }
    return error;
}

int
ctl_register(Instance *self, int fd, uint32_t mask, PyObject *data)
{
    int status = begin(self);
    if (status != 0) {
        return status;
    }
    Registration old = {0};
    int epfd = self->epfd;
    int error = reserve(self, fd);
    if (error == 0) {
        Registration now = registration_new(next_generation(self), mask, Py_NewRef(data));
        error = replace(self, EPOLL_CTL_ADD, fd, now, &old);
        if (error == 0 && old.generation != 0) {
            /* The kernel knew nothing under this number: the file registered before was closed. */
            removal_ended(self, true);
        }
    }
    end(self);
    registration_release(&old);
    return error != 0 ? fail(error, EPOLL_CTL_ADD, "register", epfd, fd, mask) : 0;
}

/* Give a registration other data; in `old` what it had. With the state lock. */
static void
exchange_data(Registration *present, PyObject *data, Registration *old)
{
    old->data = present->data;
    old->pair = present->pair;
    present->data = Py_NewRef(data);
    present->pair = NULL;
    present->reported = 0;
}

/* Change a registration in its place, and back if the kernel refuses. `data` may be NULL: it stays. 0 or
 * an errno; in `old` what the caller is to release. */
static int
change(Instance *self, int fd, Registration *present, uint32_t mask, PyObject *data, Registration *old)
{
    STATE_LOCK(self);
    uint32_t generation = present->generation;
    uint32_t mask_before = present->mask;
    bool disarmed_before = present->disarmed;
    uint32_t changed_before = present->changed;
    present->mask = mask;
    present->disarmed = false;
    present->changed = ++self->changes;
    if (data != NULL) {
        exchange_data(present, data, old);
    }
    STATE_UNLOCK(self);
    int error = kernel_ctl(self, EPOLL_CTL_MOD, fd, mask, generation);
    if (error != 0) {
        STATE_LOCK(self);
        present->mask = mask_before;
        present->disarmed = disarmed_before;
        present->changed = changed_before;
        if (data != NULL) {
            PyObject *refused = present->data;
            present->data = old->data;
            old->data = refused;
            /* The pair with the refused data goes too: the next event makes another. */
            PyObject *pair = present->pair;
            present->pair = old->pair;
            present->reported = 0;
            old->pair = pair;
        }
        STATE_UNLOCK(self);
    }
    else if ((mask & EPOLLWAKEUP) != 0) {
        see_wakeup(self, fd, present);
    }
    return error;
}

/* A registration that the kernel may know though we do not, because others made it. 0, -1 or an errno. */
static int
modify_unknown(Instance *self, int fd, uint32_t mask, PyObject *data, Registration *old)
{
    int error = reserve(self, fd);
    if (error != 0) {
        return error;
    }
    PyObject *own = data != NULL ? Py_NewRef(data) : PyLong_FromLong(fd);
    if (own == NULL) {
        PyErr_Clear();
        return -1;
    }
    return replace(self, EPOLL_CTL_MOD, fd, registration_new(next_generation(self), mask, own), old);
}

/* change(), while there may be ghosts. One of them may be what the kernel changes: the entry of another file
 * that had the number before and has it again, closed and opened as a duplicate. What was registered is then
 * a ghost itself, so from here on the registration has a word that the other entry has not. */
static int
change_anew(Instance *self, int fd, const Registration *present, uint32_t mask, PyObject *data,
            Registration *old)
{
    PyObject *own = Py_NewRef(data != NULL ? data : present->data);
    removal_ended(self, false); /* what was fetched until now is late */
    int error = replace(self, EPOLL_CTL_MOD, fd, registration_new(next_generation(self), mask, own), old);
    removal_ended(self, error == 0);
    return error;
}

/* modify and rearm. `mask` is NULL for the one that the registration has, `data` for the data it has. */
static int
modify(Instance *self, const char *action, int fd, const uint32_t *mask, PyObject *data)
{
    int status = begin(self);
    if (status != 0) {
        return status;
    }
    Registration old = {0}, lost = {0};
    int epfd = self->epfd;
    int error;
    Registration *present = interest_get(&self->list, fd);
    uint32_t asked = mask != NULL ? *mask : present != NULL ? present->mask : 0;
    if (present != NULL) {
        error = self->suspects > 0 ? change_anew(self, fd, present, asked, data, &old)
                                   : change(self, fd, present, asked, data, &old);
        if (is_gone(self, error, fd)) {
            lost = removed(self, fd);
            removal_ended(self, true);
        }
    }
    else if (mask == NULL) {
        error = fcntl(fd, F_GETFD) < 0 ? EBADF : ENOENT;
    }
    else {
        error = modify_unknown(self, fd, asked, data, &old);
    }
    end(self);
    registration_release(&old);
    registration_release(&lost);
    return error != 0 ? fail(error, EPOLL_CTL_MOD, action, epfd, fd, asked) : 0;
}

int
ctl_modify(Instance *self, int fd, uint32_t mask, PyObject *data)
{
    return modify(self, "modify", fd, &mask, data);
}

int
ctl_replace_data(Instance *self, int fd, PyObject *data)
{
    int status = begin(self);
    if (status != 0) {
        return status;
    }
    Registration old = {0};
    STATE_LOCK(self);
    Registration *present = interest_get(&self->list, fd);
    if (present != NULL) {
        exchange_data(present, data, &old);
    }
    STATE_UNLOCK(self);
    end(self);
    registration_release(&old);
    return 0;
}

int
ctl_rearm(Instance *self, int fd)
{
    return modify(self, "rearm", fd, NULL, NULL);
}

/* Where `only` is given, a registration with other data stays. */
static int
unregister(Instance *self, int fd, const PyObject *only)
{
    int status = begin(self);
    if (status != 0) {
        return status;
    }
    const Registration *present = interest_get(&self->list, fd);
    if (only != NULL && (present == NULL || present->data != only)) {
        end(self);
        return 0;
    }
    int epfd = self->epfd;
    Registration old = removed(self, fd);
    int error = kernel_ctl(self, EPOLL_CTL_DEL, fd, 0, 0);
    removal_ended(self, error != 0 && old.generation != 0);
    end(self);
    registration_release(&old);
    return error != 0 ? fail(error, EPOLL_CTL_DEL, "unregister", epfd, fd, 0) : 0;
}

int
ctl_unregister(Instance *self, int fd)
{
    return unregister(self, fd, NULL);
}

int
ctl_unregister_only(Instance *self, int fd, const PyObject *data)
{
    return unregister(self, fd, data);
}

Registration
ctl_forget(Instance *self, uint64_t word)
{
    int fd = interest_word_fd(word);
    Registration lost = {0};
    if (interest_find(&self->list, word) != NULL && fcntl(fd, F_GETFD) < 0) {
        lost = removed(self, fd);
        removal_ended(self, true);
    }
    return lost;
}

/* Tell the kernel of a registration once more. An exclusive one cannot be modified, but it can be made
 * anew under the same word; false if that failed half-way. */
static bool
tell_again(Instance *self, int fd, uint32_t mask, uint32_t generation)
{
    if ((mask & EPOLLEXCLUSIVE) == 0) {
        kernel_ctl(self, EPOLL_CTL_MOD, fd, mask, generation);
        return true;
    }
    return kernel_ctl(self, EPOLL_CTL_DEL, fd, 0, 0) != 0 ||
           kernel_ctl(self, EPOLL_CTL_ADD, fd, mask, generation) == 0;
}

/* The registration that is to report again an event which was fetched at `seen`, or NULL. What a cure took
 * for spent is not, if it was fetched before. With the state lock. */
static Registration *
to_report_again(Instance *self, uint64_t word, const Seen *seen)
{
    Registration *present = interest_find(&self->list, word);
    if (present == NULL || (int32_t)(present->changed - seen->changes) > 0 ||
        interest_is_spent(present, seen->removals) || (present->mask & (EPOLLET | EPOLLONESHOT)) == 0) {
        return NULL;
    }
    present->disarmed = false;
    return present;
}

/* The mask to tell the kernel for such an event; 0 if there is none. */
static uint32_t
mask_to_tell(Instance *self, uint64_t word, const Seen *seen)
{
    STATE_LOCK(self);
    const Registration *present = to_report_again(self, word, seen);
    uint32_t mask = present != NULL ? present->mask : 0;
    STATE_UNLOCK(self);
    return mask;
}

/* A fork's copy has no instance yet that could be told: it arms what it owes when it gets one, so an unused
 * copy costs no system call. False where it is no such copy. */
static bool
owe(Instance *self, uint64_t word, const Seen *seen)
{
    instance_notice_fork(self);
    STATE_LOCK(self);
    bool orphan = self->standing == ORPHAN;
    Registration *present = orphan ? to_report_again(self, word, seen) : NULL;
    if (present != NULL) {
        present->owed = true;
    }
    STATE_UNLOCK(self);
    return orphan;
}

void
ctl_report_again(Instance *self, uint64_t word, const Seen *seen)
{
    Registration lost = {0};
    if (owe(self, word, seen)) {
        return;
    }
    STATE_LOCK(self);
    bool open = self->standing == OPEN;
    STATE_UNLOCK(self);
    if (!open || begin(self) != 0) {
        return; /* no exception: an open one can only have been closed meanwhile */
    }
    int fd = interest_word_fd(word);
    uint32_t mask = mask_to_tell(self, word, seen);
    if (mask != 0 && !tell_again(self, fd, mask, (uint32_t)(word >> 32))) {
        lost = removed(self, fd);
        removal_ended(self, false);
        self->dropped++;
    }
    end(self);
    registration_release(&lost);
}
