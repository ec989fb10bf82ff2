#include "aio/sockaddr.h"

#include <arpa/inet.h>

/* As inet_ntop(), which formats with printf: that costs several times as much. Returns the length. */
static int
write_v4(const unsigned char *bytes, char *text)
{
    int length = 0;
    for (int i = 0; i < 4; i++) {
        unsigned char byte = bytes[i];
        if (byte >= 100) {
            text[length++] = (char)('0' + byte / 100);
        }
        if (byte >= 10) {
            text[length++] = (char)('0' + byte / 10 % 10);
        }
        text[length++] = (char)('0' + byte % 10);
        text[length++] = '.';
    }
    return length - 1;
}

static PyObject *
v4_to_python(const SockAddr *address)
{
    char text[INET_ADDRSTRLEN];
    int length = write_v4((const unsigned char *)&address->v4.sin_addr, text);
    PyObject *host = PyUnicode_DecodeASCII(text, length, NULL);
    PyObject *port = host != NULL ? PyLong_FromLong(ntohs(address->v4.sin_port)) : NULL;
    PyObject *pair = port != NULL ? PyTuple_Pack(2, host, port) : NULL;
    Py_XDECREF(port);
    Py_XDECREF(host);
    return pair;
}

PyObject *
sockaddr_to_python(const SockAddr *address)
{
    char host[INET6_ADDRSTRLEN];
    if (address->length == 0) {
        Py_RETURN_NONE;
    }
    if (address->any.sa_family == AF_INET) {
        return v4_to_python(address);
    }
    if (inet_ntop(AF_INET6, &address->v6.sin6_addr, host, sizeof(host)) == NULL) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return Py_BuildValue("siII", host, ntohs(address->v6.sin6_port), ntohl(address->v6.sin6_flowinfo),
                         address->v6.sin6_scope_id);
}

/* Read an int from 0 to `max`; false for anything else. */
static bool
read_number(PyObject *object, unsigned long max, unsigned long *number)
{
    if (!PyLong_CheckExact(object)) {
        return false;
    }
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    *number = (unsigned long)value;
    return overflow == 0 && value >= 0 && (unsigned long long)value <= max;
}

/* Read a numeric host; false for a name, and for a text with a null in it, which is no address. */
static bool
read_host(PyObject *object, int family, void *host)
{
    if (!PyUnicode_CheckExact(object) || !PyUnicode_IS_ASCII(object)) {
        return false;
    }
    const char *text = (const char *)PyUnicode_1BYTE_DATA(object);
    return strlen(text) == (size_t)PyUnicode_GET_LENGTH(object) && inet_pton(family, text, host) == 1;
}

static bool
read_v6(PyObject *object, SockAddr *address)
{
    Py_ssize_t size = PyTuple_GET_SIZE(object);
    unsigned long port, flowinfo = 0, scope = 0;
    if (size < 2 || size > 4 || !read_host(PyTuple_GET_ITEM(object, 0), AF_INET6, &address->v6.sin6_addr) ||
        !read_number(PyTuple_GET_ITEM(object, 1), 0xFFFF, &port) ||
        (size > 2 && !read_number(PyTuple_GET_ITEM(object, 2), 0xFFFFF, &flowinfo)) ||
        (size > 3 && !read_number(PyTuple_GET_ITEM(object, 3), 0xFFFFFFFF, &scope))) {
        return false;
    }
    address->v6.sin6_family = AF_INET6;
    address->v6.sin6_port = htons((uint16_t)port);
    address->v6.sin6_flowinfo = htonl((uint32_t)flowinfo);
    address->v6.sin6_scope_id = (uint32_t)scope;
    address->length = sizeof(address->v6);
    return true;
}

bool
sockaddr_from_python(PyObject *object, int family, SockAddr *address)
{
    unsigned long port;
    if (!PyTuple_CheckExact(object)) {
        return false;
    }
    memset(address, 0, sizeof(*address));
    if (family == AF_INET6) {
        return read_v6(object, address);
    }
    if (PyTuple_GET_SIZE(object) != 2 ||
        !read_host(PyTuple_GET_ITEM(object, 0), AF_INET, &address->v4.sin_addr) ||
        !read_number(PyTuple_GET_ITEM(object, 1), 0xFFFF, &port)) {
        return false;
    }
    address->v4.sin_family = AF_INET;
    address->v4.sin_port = htons((uint16_t)port);
    address->length = sizeof(address->v4);
    return true;
}
