#include "core/ctl.h"

#include "base/errors.h"
#include "base/syscalls.h"
#include "base/wakeup.h"
#include "core/always_ready.h"
#include "core/change.h"
#include "core/in_place.h"
#include "core/repair/repair.h"
#include "core/repair/stale.h"

#include <errno.h>
#include <fcntl.h>

/* epoll_ctl, without the GIL, for a change that is installed. If the kernel accepts it, the change is
 * completed and the ctl lock released before the thread waits for the GIL; after an errno, the caller still
 * has the lock. */
static int
change_kernel_and_unlock(Instance *self, int op, int fd, uint32_t mask, uint32_t generation)
{
    struct epoll_event event = {.events = mask, .data.u64 = epoll_data_of(fd, generation)};
    int epfd = self->fds.epfd;
    int error;
    bool concerned;
    Py_BEGIN_ALLOW_THREADS
    error = epoll_ctl(epfd, op, fd, &event) < 0 ? errno : 0;
    concerned = always_ready_is_concerned(self, error);
    if (error == 0 && !concerned) {
        change_complete(self);
        mutex_unlock(&self->locks.ctl);
    }
    Py_END_ALLOW_THREADS
    if (concerned) {
        error = always_ready_settle(self, op, fd, mask, generation, error);
        if (error == 0) {
            change_complete(self);
            mutex_unlock(&self->locks.ctl);
        }
    }
    return error;
}

/* An fd that is not open gets no slot, however large it is. 0, an errno, or -1 for no memory. */
static int
ensure_slot(Instance *self, int fd)
{
    if (interest_slot(&self->list, fd) != NULL) {
        return 0;
    }
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) {
        return EBADF;
    }
    STATE_LOCK(self);
    int status = interest_ensure_slot(&self->list, fd);
    STATE_UNLOCK(self);
    return status;
}

/* Whether a refusal means that the fd no longer refers to the registered file. */
static bool
is_gone(const Instance *self, int error, int fd)
{
    switch (error) {
    case ENOENT:
        return true;
    case EPERM:
        return sys_epoll_ctl_denied(self->fds.epfd) != EPERM;
    case EBADF:
        /* Either the epoll is not open, or the fd: closed, or reused by an fd with O_PATH. */
        return fcntl(self->fds.epfd, F_GETFD) >= 0 || fcntl(fd, F_GETFD) < 0;
    default:
        return false;
    }
}

/* Enter, with the ctl lock. 0, IS_CLOSED, or -1 with an exception. */
static int
begin(Instance *self)
{
    bool locked;
    int status = instance_enter_change(self, &locked);
    status = status != NEEDS_REPAIR ? status : repair_and_enter(self);
    if (status == 0 && !locked) {
        change_lock(self);
    }
    return status;
}

static void
end(Instance *self)
{
    mutex_unlock(&self->locks.ctl);
    instance_leave(self);
}

/* 0, or -1 with the exception for `error`: an errno, or -1 for no memory. `fd` is the fd that the caller
 * gave. */
static int
result_of(int error, int op, const char *action, int epfd, int fd, int64_t mask)
{
    if (error < 0) {
        PyErr_NoMemory();
    }
    else if (error > 0) {
        ctl_error(error, op, action, epfd, fd, mask);
    }
    return error != 0 ? -1 : 0;
}

/* Whether `fd` is this epoll itself: the front, whose fd is not that of the kernel instance. */
static bool
is_itself(const Instance *self, int fd)
{
    return fd == self->fds.front;
}

/* The errno of a change to `fd`, if it is one of this epoll's own; else 0. The front hides the fd of the
 * instance: a file registered under that fd has been closed since, so it is not registered. */
static int
own_fd_error(Instance *self, int fd)
{
    bool hidden = (self->fds.front >= 0 && fd == self->fds.epfd) || always_ready_owns(self, fd);
    return is_itself(self, fd) ? EINVAL : hidden ? ENOENT : 0;
}

/* Install a registration, here and in the kernel. 0, and the ctl lock is released; or an errno, and the
 * earlier registration is back. The caller releases `old`. */
static int
replace(Instance *self, int op, int fd, Registration now, Registration *old)
{
    *old = change_install(self, fd, now);
    int error = change_kernel_and_unlock(self, op, fd, now.mask, now.generation);
    if (error != 0) {
        *old = change_undo(self, fd, *old);
    }
    return error;
}

/* register, with the ctl lock, which is released if this returns 0. */
static int
register_locked(Instance *self, int fd, uint32_t mask, PyObject *data, Registration *old)
{
    int error = is_itself(self, fd) ? EINVAL : always_ready_owns(self, fd) ? EEXIST : ensure_slot(self, fd);
    if (error != 0) {
        return error;
    }
    Registration now = registration_new(change_next_generation(self), mask, Py_NewRef(data));
    error = replace(self, EPOLL_CTL_ADD, fd, now, old);
    if (error == EEXIST && stale_is_entry(self, fd)) {
        change_kernel(self, EPOLL_CTL_DEL, fd, 0, 0);
        registration_release(old);
        now = registration_new(change_next_generation(self), mask, Py_NewRef(data));
        error = replace(self, EPOLL_CTL_ADD, fd, now, old);
    }
    if (error == ELOOP && sys_same_file(fd, instance_public_fd(self))) {
        error = EINVAL; /* a duplicate of itself: EINVAL, as for an epoll without a front */
    }
    return error;
}

int
ctl_register(Instance *self, int fd, uint32_t mask, PyObject *data)
{
    uint32_t kept = wakeup_kept_mask(mask);
    int status = begin(self);
    if (status != 0) {
        return status;
    }
    Registration old = {0};
    int public_fd = instance_public_fd(self);
    int error = register_locked(self, fd, kept, data, &old);
    if (error != 0) {
        mutex_unlock(&self->locks.ctl);
    }
    instance_leave(self);
    registration_release(&old);
    return result_of(error, EPOLL_CTL_ADD, "register", public_fd, fd, mask);
}

/* A change in place with the ctl lock. 0, and the ctl lock is released; or an errno. The caller releases
 * `old`. */
static int
change_in_place(Instance *self, int fd, Registration *present, uint32_t mask, PyObject *data,
                Registration *old)
{
    InPlace change = {.present = present, .mask = mask, .data = data};
    STATE_LOCK(self);
    uint32_t generation = present->generation;
    in_place_install(&change, change_begin(self));
    STATE_UNLOCK(self);
    int error = change_kernel_and_unlock(self, EPOLL_CTL_MOD, fd, mask, generation);
    if (error != 0) {
        STATE_LOCK(self);
        in_place_put_back(&change);
        change_complete(self);
        STATE_UNLOCK(self);
    }
    *old = change.old;
    return error;
}

/* Change a registration that only the kernel may know, because others made it. 0, and the ctl lock is
 * released; -1 or an errno. */
static int
change_unknown(Instance *self, int fd, uint32_t mask, PyObject *data, Registration *old)
{
    int error = ensure_slot(self, fd);
    if (error != 0) {
        return error;
    }
    PyObject *own = data != NULL ? Py_NewRef(data) : PyLong_FromLong(fd);
    if (own == NULL) {
        PyErr_Clear();
        return -1;
    }
    Registration now = registration_new(change_next_generation(self), mask, own);
    return replace(self, EPOLL_CTL_MOD, fd, now, old);
}

/* change_in_place() for an fd that the kernel may have an older entry of: the entry of another file, to which
 * the fd may refer again, closed and opened as a duplicate. The kernel then changes this older entry, and the
 * entry of the registration is stale. So the registration gets new epoll data, which the other entry does not
 * have. */
static int
change_shadowed(Instance *self, int fd, const Registration *present, uint32_t mask, PyObject *data,
                Registration *old)
{
    PyObject *own = Py_NewRef(data != NULL ? data : present->data);
    Registration now = registration_new(change_next_generation(self), mask, own);
    return replace(self, EPOLL_CTL_MOD, fd, now, old);
}

/* modify and rearm, with the ctl lock, which is released if this returns 0. `*asked` is the mask to set;
 * rearm sets it to the present one. */
static int
modify_locked(Instance *self, int fd, bool rearm, uint32_t *asked, PyObject *data, Registration *old)
{
    Registration *present = interest_get(&self->list, fd);
    int error = own_fd_error(self, fd);
    if (error != 0) {
        return error;
    }
    if (present == NULL && rearm) {
        return fcntl(fd, F_GETFD) < 0 ? EBADF : ENOENT;
    }
    if (rearm) {
        *asked = present->mask;
    }
    if (present == NULL) {
        return change_unknown(self, fd, *asked, data, old);
    }
    return present->shadowed ? change_shadowed(self, fd, present, *asked, data, old)
                             : change_in_place(self, fd, present, *asked, data, old);
}

static int
modify(Instance *self, int fd, bool rearm, uint32_t mask, PyObject *data)
{
    uint32_t asked = wakeup_kept_mask(mask);
    if (FREE_THREADED && in_place_modify(self, fd, rearm, asked, data)) {
        return 0;
    }
    int status = begin(self);
    if (status != 0) {
        return status;
    }
    Registration old = {0}, lost = {0};
    int public_fd = instance_public_fd(self);
    bool unknown = rearm && interest_get(&self->list, fd) == NULL;
    int error = modify_locked(self, fd, rearm, &asked, data, &old);
    if (error != 0) {
        if (interest_get(&self->list, fd) != NULL && is_gone(self, error, fd)) {
            lost = change_forget(self, fd);
        }
        mutex_unlock(&self->locks.ctl);
    }
    instance_leave(self);
    registration_release(&old);
    registration_release(&lost);
    int64_t shown = unknown ? NO_MASK : rearm ? asked : mask;
    return result_of(error, EPOLL_CTL_MOD, rearm ? "rearm" : "modify", public_fd, fd, shown);
}

int
ctl_modify(Instance *self, int fd, uint32_t mask, PyObject *data)
{
    return modify(self, fd, false, mask, data);
}

int
ctl_rearm(Instance *self, int fd)
{
    return modify(self, fd, true, 0, NULL);
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
        in_place_exchange_data(present, data, &old);
    }
    STATE_UNLOCK(self);
    end(self);
    registration_release(&old);
    return 0;
}

/* Where `only` is given, a registration with other data is kept. `quiet`: the kernel's refusal is no
 * error. */
static int
unregister(Instance *self, int fd, const PyObject *only, bool quiet)
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
    int public_fd = instance_public_fd(self);
    Registration old = change_remove(self, fd);
    int error = own_fd_error(self, fd);
    if (error == 0) {
        error = change_kernel_and_unlock(self, EPOLL_CTL_DEL, fd, 0, 0);
    }
    if (error != 0) {
        if (old.generation != 0) {
            change_shadow(self, fd);
        }
        change_complete(self);
        mutex_unlock(&self->locks.ctl);
    }
    instance_leave(self);
    registration_release(&old);
    return quiet ? 0 : result_of(error, EPOLL_CTL_DEL, "unregister", public_fd, fd, NO_MASK);
}

int
ctl_unregister(Instance *self, int fd)
{
    return unregister(self, fd, NULL, false);
}

int
ctl_drop(Instance *self, int fd)
{
    return unregister(self, fd, NULL, true);
}

int
ctl_unregister_only(Instance *self, int fd, const PyObject *data)
{
    return unregister(self, fd, data, false);
}
