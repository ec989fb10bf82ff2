/* The methods of Epoll that return its fds. */
#include "base/errors.h"
#include "core/epoll_methods.h"
#include "core/front.h"
#include "core/repair/repair.h"

#include <errno.h>

PyObject *
epoll_fileno(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    if (self->closed) {
        return epoll_raise_closed(self);
    }
    Instance *instance = self->instance;
    int error = 0;
    int status = repair_enter(instance);
    if (status != 0) {
        return status == IS_CLOSED ? epoll_raise_closed(self) : NULL;
    }
    if (instance->fds.front < 0 && !instance->foreign) {
        error = front_open(instance);
    }
    int fd = instance_public_fd(instance);
    instance_leave(instance);
    const char *cause = error == ELOOP
                            ? " (epolls nest at most 5 deep, and an Epoll in an Epoll counts twice)"
                            : "";
    return error == 0 ? PyLong_FromLong(fd) : os_error(error, "fileno() of epoll fd %d%s", fd, cause);
}

/* The fd for texts: the one that fileno() returns, or would return; no front is made for it. */
PyObject *
epoll_public_fd(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    int status = self->closed ? IS_CLOSED : instance_enter(self->instance);
    if (status == IS_CLOSED) {
        return epoll_raise_closed(self);
    }
    int fd = instance_public_fd(self->instance);
    if (status == 0) {
        instance_leave(self->instance);
    }
    return PyLong_FromLong(fd);
}

/* The kernel instance's own fd. */
PyObject *
epoll_instance_fd(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    int status = self->closed ? IS_CLOSED : repair_enter(self->instance);
    if (status != 0) {
        return epoll_result(self, status);
    }
    int epfd = self->instance->fds.epfd;
    instance_leave(self->instance);
    return PyLong_FromLong(epfd);
}
