/* recv() and send() of a socket that do not wait, and say so without an exception. */
#ifndef PYEPOLL_SOCKOP_H
#define PYEPOLL_SOCKOP_H

#include "base/compat.h"

#include <errno.h>
#include <stdbool.h>

#define SOCKOP_RECEIVE_DOC                                                                                   \
    "_try_recv($module, sock, size, /)\n--\n\n"                                                              \
    "Receive at most size bytes from a socket.socket; None where there are none yet."

#define SOCKOP_RECEIVE_INTO_DOC                                                                              \
    "_try_recv_into($module, sock, buffer, /)\n--\n\n"                                                       \
    "Receive into a buffer, and return how many bytes; None where there are none yet."

#define SOCKOP_SEND_DOC                                                                                      \
    "_try_send($module, sock, data, /)\n--\n\n"                                                              \
    "Send data, and return how many bytes were accepted: 0 where there is no room."

/* Whether a system call that failed so is to be tried later. */
static inline bool
would_block(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/* The result of a system call that failed with this errno: None if it is to be tried later; else NULL, with
 * an OSError. */
PyObject *sockop_failure(int error);

PyObject *sockop_receive(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *sockop_receive_into(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *sockop_send(PyObject *module, PyObject *const *args, Py_ssize_t nargs);

#endif
