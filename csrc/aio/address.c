/*
 * The result of getaddrinfo() for a numeric IPv4 or IPv6 address and a numeric port differs from that for
 * another such address only in these two. So it is called once for each combination of the other arguments,
 * for a loopback address; its rows are kept as a template. Everything else is left to getaddrinfo(): names,
 * octal and shortened addresses, scopes, flags that ask for more.
 */
#include "aio/address.h"

#include "aio/override.h"
#include "aio/schedule.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    long family;
    long type;
    long proto;
    long flags;
    long port; /* or NO_PORT */
} Query;

enum { NO_PORT = -1, LARGEST_PORT = 65535 };

/* An int that fits `most`; -1, without an exception, for anything else. */
static long
small_int(PyObject *object, long most)
{
    int overflow = 0;
    long value = PyLong_Check(object) ? PyLong_AsLongAndOverflow(object, &overflow) : -1;
    return overflow == 0 && value >= 0 && value <= most ? value : -1;
}

/* The decimal digits of a port, without a sign or spaces. */
static long
port_of_text(PyObject *text)
{
    Py_ssize_t length = PyUnicode_GET_LENGTH(text);
    long port = length >= 1 && length <= 5 ? 0 : -1;
    for (Py_ssize_t i = 0; i < length && port >= 0; i++) {
        Py_UCS4 character = PyUnicode_READ_CHAR(text, i);
        port = character >= '0' && character <= '9' ? port * 10 + (long)(character - '0') : -1;
    }
    return port <= LARGEST_PORT ? port : -1;
}

/* False, without an exception, where getaddrinfo() has to be called. */
static bool
read_query(PyObject *const *args, Query *query)
{
    PyObject *port = args[0];
    const long flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV;
    bool numeric = port == Py_None || PyLong_CheckExact(port) || PyUnicode_CheckExact(port);
    query->port = port == Py_None              ? NO_PORT
                  : PyUnicode_CheckExact(port) ? port_of_text(port)
                                               : small_int(port, LARGEST_PORT);
    query->family = small_int(args[1], 255);
    query->type = small_int(args[2], 255);
    query->proto = small_int(args[3], 255);
    query->flags = small_int(args[4], 0xffff);
    return numeric && (query->port >= 0 || port == Py_None) && query->family >= 0 && query->type >= 0 &&
           query->proto >= 0 && query->flags >= 0 && (query->flags & ~flags) == 0;
}

/* The address as getaddrinfo() writes it: a new reference, and the family; NULL, without an exception, for
 * anything but a numeric address of the family asked for. */
static PyObject *
read_address(PyObject *host, long *family)
{
    unsigned char binary[sizeof(struct in6_addr)];
    char text[INET6_ADDRSTRLEN];
    if (!PyUnicode_CheckExact(host) || !PyUnicode_IS_ASCII(host) ||
        PyUnicode_GET_LENGTH(host) >= INET6_ADDRSTRLEN) {
        return NULL;
    }
    const char *given = PyUnicode_DATA(host);
    if (strlen(given) != (size_t)PyUnicode_GET_LENGTH(host)) {
        return NULL;
    }
    if ((*family == AF_UNSPEC || *family == AF_INET) && inet_pton(AF_INET, given, binary) == 1) {
        *family = AF_INET;
        return Py_NewRef(host); /* there is one way to write it */
    }
    if ((*family == AF_UNSPEC || *family == AF_INET6) && inet_pton(AF_INET6, given, binary) == 1 &&
        inet_ntop(AF_INET6, binary, text, sizeof(text)) != NULL) {
        *family = AF_INET6;
        PyObject *address = PyUnicode_FromString(text);
        PyErr_Clear();
        return address;
    }
    return NULL;
}

/* The rows for a loopback address: a new reference, or NULL with an exception. */
static PyObject *
ask(PyObject *getaddrinfo, const Query *query)
{
    PyObject *host = PyUnicode_FromString(query->family == AF_INET ? "127.0.0.1" : "::1");
    PyObject *port = query->port == NO_PORT ? Py_NewRef(Py_None) : PyLong_FromLong(1);
    PyObject *rows = host != NULL && port != NULL
                         ? PyObject_CallFunction(getaddrinfo, "OOllll", host, port, query->family,
                                                 query->type, query->proto, query->flags)
                         : NULL;
    Py_XDECREF(host);
    Py_XDECREF(port);
    return rows;
}

/* The rows for the query, from the dict or asked for: a new reference, or NULL with an exception. */
static PyObject *
find_template(const LoopState *state, const Query *query, uint64_t packed)
{
    PyObject *key = PyLong_FromUnsignedLongLong(packed);
    PyObject *rows = NULL;
    if (key != NULL && PyDict_GetItemRef(state->addresses, key, &rows) == 0) {
        rows = ask(state->globals[GLOBAL_GETADDRINFO].value, query);
        if (rows != NULL && (!PyList_CheckExact(rows) || PyDict_SetItem(state->addresses, key, rows) < 0)) {
            Py_CLEAR(rows);
        }
    }
    Py_XDECREF(key);
    return rows;
}

/* The same; a loop mostly asks for the same as before. */
static PyObject *
template_for(EventLoop *self, const Query *query)
{
    const uint64_t packed = (uint64_t)query->family | (uint64_t)query->type << 8 |
                            (uint64_t)query->proto << 16 | (uint64_t)query->flags << 24 |
                            (uint64_t)(query->port == NO_PORT) << 40;
    PyObject *rows = NULL, *before = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    rows = self->addresses_query == packed ? Py_XNewRef(self->addresses) : NULL;
    Py_END_CRITICAL_SECTION();
    if (rows == NULL && (rows = find_template(&self->state->loop, query, packed)) != NULL) {
        Py_BEGIN_CRITICAL_SECTION(self);
        before = self->addresses;
        self->addresses = Py_NewRef(rows);
        self->addresses_query = packed;
        Py_END_CRITICAL_SECTION();
        Py_XDECREF(before);
    }
    return rows;
}

/* The last item of a row. */
static PyObject *
make_sockaddr(const Query *query, PyObject *address)
{
    const long items[] = {query->port == NO_PORT ? 0 : query->port, 0, 0};
    const Py_ssize_t size = query->family == AF_INET ? 2 : 4;
    PyObject *sockaddr = PyTuple_New(size);
    if (sockaddr == NULL) {
        return NULL;
    }
    PyTuple_SET_ITEM(sockaddr, 0, Py_NewRef(address));
    for (Py_ssize_t i = 1; i < size; i++) {
        PyObject *number = PyLong_FromLong(items[i - 1]);
        if (number == NULL) {
            Py_DECREF(sockaddr);
            return NULL;
        }
        PyTuple_SET_ITEM(sockaddr, i, number);
    }
    return sockaddr;
}

/* A row with another address. No canonical name was asked for: with glibc it is empty, but with musl it is
 * the host as given. */
static PyObject *
make_row(PyObject *row, PyObject *host, PyObject *sockaddr)
{
    enum { CANONICAL_NAME = 3, COLUMNS = 5 };
    bool known = PyTuple_CheckExact(row) && PyTuple_GET_SIZE(row) == COLUMNS;
    PyObject *made = known ? PyTuple_New(COLUMNS) : NULL;
    if (made != NULL) {
        for (Py_ssize_t i = 0; i < COLUMNS - 1; i++) {
            PyObject *item = PyTuple_GET_ITEM(row, i);
            bool named = i == CANONICAL_NAME && PyUnicode_Check(item) && PyUnicode_GET_LENGTH(item) > 0;
            PyTuple_SET_ITEM(made, i, Py_NewRef(named ? host : item));
        }
        PyTuple_SET_ITEM(made, COLUMNS - 1, Py_NewRef(sockaddr));
    }
    return made;
}

/* The rows with another address. */
static PyObject *
fill(PyObject *rows, PyObject *host, PyObject *sockaddr)
{
    Py_ssize_t count = PyList_GET_SIZE(rows);
    PyObject *result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *made = make_row(PyList_GET_ITEM(rows, i), host, sockaddr);
        if (made == NULL) {
            Py_CLEAR(result);
        }
        else {
            PyList_SET_ITEM(result, i, made);
        }
    }
    return result;
}

/* Whether nothing that asyncio's method uses was replaced: then no thread is needed. */
static bool
may_answer(EventLoop *self)
{
    const LoopState *state = &self->state->loop;
    const LoopGlobal *function = &state->globals[GLOBAL_GETADDRINFO];
    PyObject *executor = loop_member(&self->default_executor);
    return schedule_is_plain(self, HOOK(RUN_IN_EXECUTOR)) && loop_global(function) == function->value &&
           loop_member(&self->executor_shutdown_called) == Py_False && executor != NULL &&
           (executor == Py_None || Py_IS_TYPE(executor, state->executor_type));
}

/* The result for a numeric address: a new reference; NULL for anything else, and where a step has failed,
 * which the call of getaddrinfo() itself reports. */
static PyObject *
answer(EventLoop *self, PyObject *host, PyObject *const *rest)
{
    Query query;
    PyObject *address = read_query(rest, &query) ? read_address(host, &query.family) : NULL;
    PyObject *rows = address != NULL ? template_for(self, &query) : NULL;
    PyObject *sockaddr = rows != NULL ? make_sockaddr(&query, address) : NULL;
    PyObject *result = sockaddr != NULL ? fill(rows, host, sockaddr) : NULL;
    Py_XDECREF(sockaddr);
    Py_XDECREF(rows);
    Py_XDECREF(address);
    PyErr_Clear();
    return result;
}

PyObject *
address_find(EventLoop *self, PyObject *const *args, Py_ssize_t nargs)
{
    enum { HOST, PORT, FAMILY, TYPE, PROTO, FLAGS, COUNT };
    if (nargs != COUNT) {
        return PyErr_Format(PyExc_TypeError, "_find_addresses() takes %d arguments", COUNT);
    }
    if (!may_answer(self)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    PyObject *result = answer(self, args[HOST], args + PORT);
    if (result == NULL) {
        Py_RETURN_NONE;
    }
    if (PySys_Audit("socket.getaddrinfo", "OOOOO", args[HOST], args[PORT], args[FAMILY], args[TYPE],
                    args[PROTO]) < 0) {
        Py_CLEAR(result);
    }
    return result;
}
