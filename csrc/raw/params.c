#include "raw/params.h"

#include "base/convert.h"
#include "base/errors.h"

#include <errno.h>

int
params_read(int epfd, struct epoll_params *params)
{
    *params = (struct epoll_params){0};
    return ioctl(epfd, EPIOCGPARAMS, params) < 0 ? errno : 0;
}

int
params_write(int epfd, const struct epoll_params *params)
{
    return ioctl(epfd, EPIOCSPARAMS, params) < 0 ? errno : 0;
}

int
params_convert(PyObject *const given[3], struct epoll_params *params)
{
    uint64_t usecs, budget;
    if (convert_epoll_data(given[0], &usecs) < 0 || convert_epoll_data(given[1], &budget) < 0) {
        return -1;
    }
    int prefer = PyObject_IsTrue(given[2]);
    if (prefer < 0) {
        return -1;
    }
    if (usecs > UINT32_MAX || budget > UINT16_MAX) {
        PyErr_SetString(PyExc_OverflowError, "busy_poll_usecs has 32 bits and busy_poll_budget has 16");
        return -1;
    }
    *params = (struct epoll_params){
        .busy_poll_usecs = (uint32_t)usecs,
        .busy_poll_budget = (uint16_t)budget,
        .prefer_busy_poll = (uint8_t)prefer,
    };
    return 0;
}

PyObject *
params_build(const struct epoll_params *params)
{
    return Py_BuildValue("(kiN)", (unsigned long)params->busy_poll_usecs, (int)params->busy_poll_budget,
                         PyBool_FromLong(params->prefer_busy_poll));
}

/* An epoll had no ioctl before 6.9, and none that works without CONFIG_NET_RX_BUSY_POLL. */
PyObject *
params_error(int error, const char *name, int epfd, const struct epoll_params *params)
{
    bool above = params->busy_poll_budget > 64;
    const char *cause = error == ENOTTY           ? " (needs Linux 6.9, and fd must be an epoll)"
                        : error == EOPNOTSUPP     ? " (this kernel is built without busy polling)"
                        : error == EPERM && above ? " (a budget above 64 packets needs CAP_NET_ADMIN)"
                                                  : "";
    return os_error(error, "%s(epfd %d)%s", name, epfd, cause);
}
