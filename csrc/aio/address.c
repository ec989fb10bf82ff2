/*
 * The result of getaddrinfo() for a numeric IPv4 or IPv6 address and a numeric port differs from that for
 * another such address only in these two. So it is called once for each combination of the other arguments,
 * for a loopback address; its rows are kept as a template. Everything else is left to getaddrinfo(): names,
 * octal and shortened addresses, scopes, flags that ask for more.
 */
#include "aio/address.h"

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
template_for(PyObject *templates, PyObject *getaddrinfo, const Query *query)
{
    uint64_t packed = (uint64_t)query->family | (uint64_t)query->type << 8 | (uint64_t)query->proto << 16 |
                      (uint64_t)query->flags << 24 | (uint64_t)(query->port == NO_PORT) << 40;
    PyObject *key = PyLong_FromUnsignedLongLong(packed);
    PyObject *rows = NULL;
    if (key != NULL && PyDict_GetItemRef(templates, key, &rows) == 0) {
        rows = ask(getaddrinfo, query);
        if (rows != NULL && (!PyList_CheckExact(rows) || PyDict_SetItem(templates, key, rows) < 0)) {
            Py_CLEAR(rows);
        }
    }
    Py_XDECREF(key);
    return rows;
}

/* The last item of a row. */
static PyObject *
make_sockaddr(const Query *query, PyObject *address)
{
    PyObject *port = PyLong_FromLong(query->port == NO_PORT ? 0 : query->port);
    PyObject *zero = port != NULL ? PyLong_FromLong(0) : NULL;
    PyObject *sockaddr = zero == NULL               ? NULL
                         : query->family == AF_INET ? PyTuple_Pack(2, address, port)
                                                    : PyTuple_Pack(4, address, port, zero, zero);
    Py_XDECREF(zero);
    Py_XDECREF(port);
    return sockaddr;
}

/* The rows with another address. */
static PyObject *
fill(PyObject *rows, PyObject *sockaddr)
{
    enum { FAMILY, TYPE, PROTO, NAME, COLUMNS = 5 };
    Py_ssize_t count = PyList_GET_SIZE(rows);
    PyObject *result = PyList_New(count);
    for (Py_ssize_t i = 0; result != NULL && i < count; i++) {
        PyObject *row = PyList_GET_ITEM(rows, i);
        PyObject *made = PyTuple_CheckExact(row) && PyTuple_GET_SIZE(row) == COLUMNS
                             ? PyTuple_Pack(COLUMNS, PyTuple_GET_ITEM(row, FAMILY),
                                            PyTuple_GET_ITEM(row, TYPE), PyTuple_GET_ITEM(row, PROTO),
                                            PyTuple_GET_ITEM(row, NAME), sockaddr)
                             : NULL;
        if (made == NULL) {
            Py_CLEAR(result);
        }
        else {
            PyList_SET_ITEM(result, i, made);
        }
    }
    return result;
}

PyObject *
address_find(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t nargs)
{
    enum { TEMPLATES, GETADDRINFO, HOST, PORT, FAMILY, TYPE, PROTO, FLAGS, COUNT };
    Query query;
    if (nargs != COUNT || !PyDict_CheckExact(args[TEMPLATES])) {
        PyErr_SetString(PyExc_TypeError, "_find_addresses() takes a dict and seven more arguments");
        return NULL;
    }
    PyObject *address = read_query(args + PORT, &query) ? read_address(args[HOST], &query.family) : NULL;
    if (address == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *rows = template_for(args[TEMPLATES], args[GETADDRINFO], &query);
    PyObject *sockaddr = rows != NULL ? make_sockaddr(&query, address) : NULL;
    PyObject *result = sockaddr != NULL ? fill(rows, sockaddr) : NULL;
    Py_XDECREF(sockaddr);
    Py_XDECREF(rows);
    Py_DECREF(address);
    if (result == NULL) {
        PyErr_Clear(); /* the call itself reports the error */
        Py_RETURN_NONE;
    }
    if (PySys_Audit("socket.getaddrinfo", "OOOOO", args[HOST], args[PORT], args[FAMILY], args[TYPE],
                    args[PROTO]) < 0) {
        Py_CLEAR(result);
    }
    return result;
}
