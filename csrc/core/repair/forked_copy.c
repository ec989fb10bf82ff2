#include "core/repair/forked_copy.h"

#include "base/errors.h"
#include "base/fdinfo.h"
#include "base/signal_watch.h"
#include "core/change.h"
#include "core/identity.h"
#include "core/repair/rebuild.h"

#include <errno.h>

static int adopt(Instance *self, int depth);

static int
refuse_copy(const Instance *self, int error)
{
    int fd = instance_public_fd(self);
    if (error == FD_IS_UNRELATED) {
        os_error(EBADF,
                 "fd %d, the epoll that this process inherited through fork, now refers to another file", fd);
    }
    else {
        os_error(error, "cannot give epoll fd %d, inherited through fork, an instance of this process%s", fd,
                 error == ENOENT   ? " without /proc"
                 : error == EINVAL ? ": too many epolls watch its nested epolls or their files"
                 : error == ELOOP  ? ": its epolls are nested too deep"
                                   : "");
    }
    return -1;
}

/* Whether `self` watches the forked copy `inner`. */
static bool
watches_copy(Instance *self, Instance *inner)
{
    instance_notice_fork(inner);
    STATE_LOCK(inner);
    bool copy = inner->lifecycle.state == FORKED_COPY && inner->fds.front >= 0;
    STATE_UNLOCK(inner);
    STATE_LOCK(self);
    bool watched = copy && interest_get(&self->list, inner->fds.front) != NULL;
    STATE_UNLOCK(self);
    return watched;
}

/* Adopt the copies that `self` watches. Where that fails, `self` goes on watching the parent's front. */
static int
adopt_watched(Instance *self, int depth)
{
    enum { KERNEL_DEPTH = 5 }; /* epolls nest no deeper, and fds may have been reused in a circle */
    PyObject *instances = self->module->instances; /* NULL once the module has been cleared */
    PyObject *references = instances != NULL && depth < KERNEL_DEPTH ? PyDict_Values(instances)
                                                                     : PyList_New(0);
    if (references == NULL) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(references); i++) {
        PyObject *inner;
        if (PyWeakref_GetRef(PyList_GET_ITEM(references, i), &inner) > 0) {
            if (inner != (PyObject *)self && watches_copy(self, (Instance *)inner) &&
                adopt((Instance *)inner, depth + 1) < 0) {
                PyErr_Clear();
            }
            Py_DECREF(inner);
        }
    }
    Py_DECREF(references);
    return 0;
}

/* With the ctl lock. 0, FD_IS_UNRELATED or an errno. */
static int
adopt_locked(Instance *self, LostRegistrations *lost)
{
    int error;
    if (self->foreign) {
        int epfd = self->fds.epfd;
        Py_BEGIN_ALLOW_THREADS
        error = fdinfo_is_epoll(epfd);
        Py_END_ALLOW_THREADS
        error = error == EINVAL || error == EBADF ? FD_IS_UNRELATED : error;
    }
    else {
        /* Before the new instance watches them: it would go on watching the parent's eventfds. */
        Py_BEGIN_ALLOW_THREADS
        signal_watch_renew_all();
        Py_END_ALLOW_THREADS
        error = rebuild(self, true, lost);
    }
    STATE_LOCK(self);
    if (self->lifecycle.state == FORKED_COPY) {
        self->lifecycle.state = error == 0 ? OPEN : error == FD_IS_UNRELATED ? UNRELATED_FD : FORKED_COPY;
    }
    STATE_UNLOCK(self);
    return error;
}

static int
adopt(Instance *self, int depth)
{
    LostRegistrations lost = {0};
    int error = 0;
    if (adopt_watched(self, depth) < 0) {
        return -1;
    }
    STATE_LOCK(self);
    LifecycleState state = self->lifecycle.state;
    self->users.entered += state == FORKED_COPY; /* as enter does, which refuses copies */
    STATE_UNLOCK(self);
    if (state != FORKED_COPY) {
        return state == UNRELATED_FD ? refuse_copy(self, FD_IS_UNRELATED) : 0;
    }
    change_lock(self);
    STATE_LOCK(self);
    bool copy = self->lifecycle.state == FORKED_COPY; /* still: another thread may have been first */
    STATE_UNLOCK(self);
    if (copy) {
        error = adopt_locked(self, &lost);
    }
    mutex_unlock(&self->locks.ctl);
    instance_leave(self);
    lost_registrations_release(&lost);
    return error != 0 ? refuse_copy(self, error) : 0;
}

int
forked_copy_adopt(Instance *self)
{
    return adopt(self, 0);
}
