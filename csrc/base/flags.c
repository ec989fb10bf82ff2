#include "base/flags.h"

#include <stdio.h>

/* The one table: from here into the module, into Event, and into the texts of errors. */
static const struct {
    const char *name;
    uint32_t value;
    bool event; /* a bit that a registration may ask for */
} table[] = {
    {"EPOLLIN",          EPOLLIN,          true },
    {"EPOLLPRI",         EPOLLPRI,         true },
    {"EPOLLOUT",         EPOLLOUT,         true },
    {"EPOLLERR",         EPOLLERR,         true },
    {"EPOLLHUP",         EPOLLHUP,         true },
    {"EPOLLRDNORM",      EPOLLRDNORM,      true },
    {"EPOLLRDBAND",      EPOLLRDBAND,      true },
    {"EPOLLWRNORM",      EPOLLWRNORM,      true },
    {"EPOLLWRBAND",      EPOLLWRBAND,      true },
    {"EPOLLMSG",         EPOLLMSG,         true },
    {"EPOLLRDHUP",       EPOLLRDHUP,       true },
    {"EPOLLEXCLUSIVE",   EPOLLEXCLUSIVE,   true },
    {"EPOLLWAKEUP",      EPOLLWAKEUP,      true },
    {"EPOLLONESHOT",     EPOLLONESHOT,     true },
    {"EPOLLET",          EPOLLET,          true },
    {"EPOLLNVAL",        EPOLLNVAL,        false},
    {"EPOLL_URING_WAKE", EPOLL_URING_WAKE, false},
    {"EPOLL_CLOEXEC",    EPOLL_CLOEXEC,    false},
    {"EPOLL_CTL_ADD",    EPOLL_CTL_ADD,    false},
    {"EPOLL_CTL_DEL",    EPOLL_CTL_DEL,    false},
    {"EPOLL_CTL_MOD",    EPOLL_CTL_MOD,    false},
    {"EPOLL_IOC_TYPE",   EPOLL_IOC_TYPE,   false},
    {"EPIOCSPARAMS",     EPIOCSPARAMS,     false},
    {"EPIOCGPARAMS",     EPIOCGPARAMS,     false},
};
enum { TABLE = sizeof(table) / sizeof(table[0]) };

const uint32_t flags_known = EPOLLIN | EPOLLPRI | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLRDNORM | EPOLLRDBAND |
                             EPOLLWRNORM | EPOLLWRBAND | EPOLLMSG | EPOLLRDHUP | EPOLLEXCLUSIVE |
                             EPOLLWAKEUP | EPOLLONESHOT | EPOLLET;

void
flags_text(uint32_t mask, char text[FLAGS_TEXT])
{
    int length = 0;
    text[0] = '\0';
    for (int i = 0; i < TABLE; i++) {
        if (table[i].event && (mask & table[i].value) != 0) {
            const char *name = table[i].name + sizeof("EPOLL") - 1;
            length += snprintf(text + length, (size_t)(FLAGS_TEXT - length), "%s%s", length > 0 ? "|" : "",
                               name);
            mask &= ~table[i].value;
        }
    }
    if (mask != 0 || length == 0) {
        snprintf(text + length, (size_t)(FLAGS_TEXT - length), mask != 0 ? "%s0x%x" : "%s%u",
                 length > 0 ? "|" : "", mask);
    }
}

int
flags_add_constants(PyObject *module)
{
    for (int i = 0; i < TABLE; i++) {
        PyObject *value = PyLong_FromUnsignedLong(table[i].value);
        int status = value != NULL ? PyModule_AddObjectRef(module, table[i].name, value) : -1;
        Py_XDECREF(value);
        if (status < 0) {
            return -1;
        }
    }
    return 0;
}
