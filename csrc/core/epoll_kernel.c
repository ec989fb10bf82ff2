/* The methods of Epoll that look into its instance: statistics, and how the kernel busy-polls for it. */
#include "base/convert.h"
#include "core/change.h"
#include "core/epoll_methods.h"
#include "core/repair/repair.h"
#include "raw/params.h"

PyObject *
epoll_stats(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    Instance *instance = self->instance;
    STATE_LOCK(instance);
    unsigned long long waits = instance->stats.waits, events = instance->stats.events,
                       stale = instance->stats.stale_events;
    unsigned long long rebuilds = instance->stats.rebuilds, failed = instance->stats.failed_rebuilds,
                       lost = instance->stats.lost;
    STATE_UNLOCK(instance);
    return Py_BuildValue("(KKKKKK)", waits, events, stale, rebuilds, failed, lost);
}

/* Enter, with the ctl lock: until end_call(), the kernel instance keeps its fd. 0, or -1 with an exception.
 */
static int
begin_call(const Epoll *self)
{
    int status = self->closed ? IS_CLOSED : repair_enter(self->instance);
    if (status == 0) {
        change_lock(self->instance);
    }
    else if (status == IS_CLOSED) {
        epoll_raise_closed(self);
    }
    return status == 0 ? 0 : -1;
}

static void
end_call(const Epoll *self)
{
    mutex_unlock(&self->instance->locks.ctl);
    instance_leave(self->instance);
}

PyObject *
epoll_get_params(Epoll *self, PyObject *Py_UNUSED(ignored))
{
    struct epoll_params params;
    if (begin_call(self) < 0) {
        return NULL;
    }
    int epfd = self->instance->fds.epfd;
    int error = params_read(epfd, &params);
    end_call(self);
    return error == 0 ? params_build(&params) : params_error(error, "EPIOCGPARAMS", epfd, &params);
}

PyObject *
epoll_set_params(Epoll *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const Signature signature = {
        "_set_params", 3, 3, {"busy_poll_usecs", "busy_poll_budget", "prefer_busy_poll"}
    };
    PyObject *given[ARGUMENTS];
    struct epoll_params params;
    if (convert_arguments(&signature, args, nargs, kwnames, given) < 0 ||
        params_convert(given, &params) < 0) {
        return NULL;
    }
    if (begin_call(self) < 0) {
        return NULL;
    }
    int epfd = self->instance->fds.epfd;
    int error = params_write(epfd, &params);
    end_call(self);
    return error == 0 ? Py_NewRef(Py_None) : params_error(error, "EPIOCSPARAMS", epfd, &params);
}
