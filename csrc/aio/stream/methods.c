/* The methods of SocketTransport, and the making of its type. */
#include "aio/stream/stream.h"

/* The one argument of a method, which may be given by name. Borrowed; NULL with TypeError. */
static inline PyObject *
sole_argument(const char *method, const char *keyword, PyObject *const *args, Py_ssize_t count,
              PyObject *names)
{
    bool named = count == 0 && names != NULL && PyTuple_GET_SIZE(names) == 1 &&
                 PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), keyword) == 0;
    if ((count == 1 && names == NULL) || named) {
        return args[0];
    }
    PyErr_Format(PyExc_TypeError, "%s() takes exactly one argument, %s", method, keyword);
    return NULL;
}

static PyObject *
write_call(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *data = sole_argument("write", "data", args, count, names);
    return data != NULL ? stream_write(self, data) : NULL;
}

static PyObject *
writelines_call(PyObject *self, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    PyObject *list = sole_argument("writelines", "list_of_data", args, count, names);
    return list != NULL ? stream_writelines(self, list) : NULL;
}

static PyObject *
can_write_eof(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(ignored))
{
    Py_RETURN_TRUE;
}

static PyObject *
set_protocol_call(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    Stream *self = (Stream *)object;
    PyObject *protocol = sole_argument("set_protocol", "protocol", args, count, names);
    if (protocol == NULL) {
        return NULL;
    }
    return none_or_error(stream_flush(self) == 0 ? stream_set_protocol_now(self, protocol) : -1);
}

static PyObject *
get_protocol(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *protocol = ((Stream *)self)->protocol;
    return Py_NewRef(protocol != NULL ? protocol : Py_None);
}

static PyObject *
is_closing(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(((Stream *)self)->closing);
}

static PyObject *
is_reading(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(!((Stream *)self)->closing && !((Stream *)self)->paused);
}

static PyObject *
get_write_buffer_size(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Stream *self = (Stream *)object;
    return stream_flush(self) == 0 ? PyLong_FromSsize_t(self->queue.size) : NULL;
}

static PyObject *
flush(PyObject *self, PyObject *Py_UNUSED(ignored))
{
    return none_or_error(stream_flush((Stream *)self));
}

/* For loop.sendfile(): a future that is done when nothing is left to be sent. */
static PyObject *
make_empty_waiter(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Stream *self = (Stream *)object;
    if (is_given(self->empty_waiter)) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return NULL;
    }
    if (stream_flush(self) < 0) {
        return NULL;
    }
    PyObject *waiter = PyObject_CallMethodNoArgs(self->loop != NULL ? self->loop : Py_None,
                                                 stream_name(self, NAME_CREATE_FUTURE));
    if (waiter == NULL) {
        return NULL;
    }
    Py_XSETREF(self->empty_waiter, waiter);
    if (self->queue.count == 0 && stream_set_waiter(self, NULL) < 0) {
        return NULL;
    }
    return Py_NewRef(waiter);
}

static PyObject *
reset_empty_waiter(PyObject *object, PyObject *Py_UNUSED(ignored))
{
    Py_XSETREF(((Stream *)object)->empty_waiter, Py_NewRef(Py_None));
    Py_RETURN_NONE;
}

static PyObject *
refuse_to_copy(PyObject *self, PyObject *Py_UNUSED(protocol))
{
    return PyErr_Format(PyExc_TypeError, "cannot copy or pickle '%s' object",
                        strrchr(Py_TYPE(self)->tp_name, '.') != NULL
                            ? strrchr(Py_TYPE(self)->tp_name, '.') + 1
                            : Py_TYPE(self)->tp_name);
}

PyDoc_STRVAR(write_doc,
"write($self, /, data)\n--\n\n"
"Send data at the end of this turn of the loop, or at once; keep the part that the socket does not\n"
"accept.\n\n"
"data: bytes, bytearray or memoryview; the bytes are sent as they are at this call. Raises TypeError for\n"
"anything else, and RuntimeError after write_eof(), while loop.sendfile() is at work, and in debug mode in\n"
"another thread than the loop's. See asyncio.WriteTransport.write().");
PyDoc_STRVAR(writelines_doc,
"writelines($self, /, list_of_data)\n--\n\n"
"Write each item of an iterable as write() does: all, or none where one of them raises TypeError.");
PyDoc_STRVAR(write_eof_doc,
"write_eof($self, /)\n--\n\n"
"Shut the sending side of the connection when the data written before has been sent.");
PyDoc_STRVAR(can_write_eof_doc, "can_write_eof($self, /)\n--\n\nReturn True.");
PyDoc_STRVAR(close_doc,
"close($self, /)\n--\n\n"
"Stop reading, send the buffered data, then close the socket and call connection_lost(None).");
PyDoc_STRVAR(abort_doc,
"abort($self, /)\n--\n\n"
"Discard what the socket does not accept now, close it and call connection_lost(None).");
PyDoc_STRVAR(set_protocol_doc,
"set_protocol($self, /, protocol)\n--\n\nSend pending data; set the protocol.");
PyDoc_STRVAR(get_protocol_doc, "get_protocol($self, /)\n--\n\nReturn the protocol; None after the loss.");
PyDoc_STRVAR(is_closing_doc, "is_closing($self, /)\n--\n\nReturn whether it is closing or closed.");
PyDoc_STRVAR(is_reading_doc,
"is_reading($self, /)\n--\n\nReturn whether it receives: not paused, not closing.");
PyDoc_STRVAR(pause_reading_doc, "pause_reading($self, /)\n--\n\nReceive nothing until resume_reading().");
PyDoc_STRVAR(resume_reading_doc,
"resume_reading($self, /)\n--\n\n"
"Receive again. The protocol is called in the context of the connection, not in the caller's.");
PyDoc_STRVAR(get_write_buffer_size_doc,
"get_write_buffer_size($self, /)\n--\n\n"
"Send pending data; return how many bytes the socket did not accept.");
PyDoc_STRVAR(get_extra_info_doc,
"get_extra_info($self, /, name, default=None)\n--\n\n"
"Return \"socket\" (a TransportSocket), \"sockname\", \"peername\", or a value of the loop; else default.");
PyDoc_STRVAR(private_doc, "As asyncio's own transport has it, for asyncio's loop.");

#define CALL(function) (PyCFunction)(void (*)(void))(function)

#define FAST_KEYWORDS (METH_FASTCALL | METH_KEYWORDS)
#define VAR_KEYWORDS (METH_VARARGS | METH_KEYWORDS)

static PyMethodDef methods[] = {
    {"write",                 CALL(write_call),            FAST_KEYWORDS, write_doc                },
    {"writelines",            CALL(writelines_call),       FAST_KEYWORDS, writelines_doc           },
    {"write_eof",             stream_write_eof,            METH_NOARGS,   write_eof_doc            },
    {"can_write_eof",         can_write_eof,               METH_NOARGS,   can_write_eof_doc        },
    {"close",                 stream_close,                METH_NOARGS,   close_doc                },
    {"abort",                 stream_abort,                METH_NOARGS,   abort_doc                },
    {"set_protocol",          CALL(set_protocol_call),     FAST_KEYWORDS, set_protocol_doc         },
    {"get_protocol",          get_protocol,                METH_NOARGS,   get_protocol_doc         },
    {"is_closing",            is_closing,                  METH_NOARGS,   is_closing_doc           },
    {"is_reading",            is_reading,                  METH_NOARGS,   is_reading_doc           },
    {"pause_reading",         stream_pause_reading,        METH_NOARGS,   pause_reading_doc        },
    {"resume_reading",        stream_resume_reading,       METH_NOARGS,   resume_reading_doc       },
    {"get_write_buffer_size", get_write_buffer_size,       METH_NOARGS,   get_write_buffer_size_doc},
    {"get_extra_info",        CALL(stream_get_extra_info), VAR_KEYWORDS,  get_extra_info_doc       },
    {"_flush",                flush,                       METH_NOARGS,   private_doc              },
    {"_read_ready",           transport_read_ready,        METH_NOARGS,   private_doc              },
    {"_write_ready",          stream_write_ready,          METH_NOARGS,   private_doc              },
    {"_add_reader",           stream_start_reading,        METH_NOARGS,   private_doc              },
    {"_force_close",          stream_force_close,          METH_O,        private_doc              },
    {"_fatal_error",          stream_fatal_error_method,   METH_VARARGS,  private_doc              },
    {"_call_connection_lost", stream_call_connection_lost, METH_O,        private_doc              },
    {"_make_empty_waiter",    make_empty_waiter,           METH_NOARGS,   private_doc              },
    {"_reset_empty_waiter",   reset_empty_waiter,          METH_NOARGS,   private_doc              },
    {"__reduce_ex__",         refuse_to_copy,              METH_O,        private_doc              },
    {NULL,                    NULL,                        0,             NULL                     },
};

PyDoc_STRVAR(transport_doc,
"SocketTransport(loop, sock, protocol, waiter=None, extra=None, server=None, context=None)\n--\n\n"
"The transport of a stream socket. The loop makes it. See asyncio.Transport.");

static PyType_Slot slots[] = {
    {Py_tp_doc,      (void *)transport_doc},
    {Py_tp_new,      stream_new           },
    {Py_tp_init,     stream_init          },
    {Py_tp_traverse, stream_traverse      },
    {Py_tp_clear,    stream_clear         },
    {Py_tp_finalize, stream_finalize      },
    {Py_tp_dealloc,  stream_dealloc       },
    {Py_tp_repr,     stream_repr          },
    {Py_tp_methods,  methods              },
    {Py_tp_members,  stream_members       },
    {Py_tp_getset,   stream_getset        },
    {0,              NULL                 },
};

static PyType_Spec spec = {
    .name = "pyepoll.aio.SocketTransport",
    .basicsize = sizeof(Stream),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = slots,
};

/* Whether the slots of asyncio's class lie where Stream has its first fields. 0, or -1 with an exception. */
static int
check_base(PyObject *base)
{
    const struct {
        const char *name;
        Py_ssize_t offset;
    } fields[] = {
        {"_extra",           offsetof(Stream, extra)          },
        {"_high_water",      offsetof(Stream, high_water)     },
        {"_loop",            offsetof(Stream, loop)           },
        {"_low_water",       offsetof(Stream, low_water)      },
        {"_protocol_paused", offsetof(Stream, protocol_paused)},
    };
    bool fits = PyType_Check(base) &&
                ((PyTypeObject *)base)->tp_basicsize <= (Py_ssize_t)offsetof(Stream, dict) &&
                ((PyTypeObject *)base)->tp_dictoffset == 0 && ((PyTypeObject *)base)->tp_weaklistoffset == 0;
    for (size_t i = 0; fits && i < sizeof(fields) / sizeof(fields[0]); i++) {
        PyObject *slot = PyObject_GetAttrString(base, fields[i].name);
        fits = slot != NULL && Py_IS_TYPE(slot, &PyMemberDescr_Type) &&
               ((PyMemberDescrObject *)slot)->d_member->offset == fields[i].offset;
        Py_XDECREF(slot);
    }
    if (!fits) {
        PyErr_Format(PyExc_TypeError, "%R is not laid out as pyepoll.aio expects", base);
    }
    return fits ? 0 : -1;
}

static int
set_constants(PyObject *type, PyObject *base_events)
{
    PyObject *modes = PyObject_GetAttrString(base_events, "constants");
    PyObject *enumeration = modes != NULL ? PyObject_GetAttrString(modes, "_SendfileMode") : NULL;
    PyObject *mode = enumeration != NULL ? PyObject_GetAttrString(enumeration, "TRY_NATIVE") : NULL;
    int status = mode != NULL ? PyObject_SetAttrString(type, "_sendfile_compatible", mode) : -1;
    Py_XDECREF(modes);
    Py_XDECREF(enumeration);
    Py_XDECREF(mode);
    return status == 0 ? PyObject_SetAttrString(type, "_start_tls_compatible", Py_True) : -1;
}

PyTypeObject *
stream_make_type(PyObject *module)
{
    PyObject *transports = PyImport_ImportModule("asyncio.transports");
    PyObject *base_events = PyImport_ImportModule("asyncio.base_events");
    PyObject *base = transports != NULL ? PyObject_GetAttrString(transports, "_FlowControlMixin") : NULL;
    PyObject *type = NULL;
    if (base != NULL && base_events != NULL && check_base(base) == 0) {
        type = PyType_FromModuleAndSpec(module, &spec, base);
    }
    if (type != NULL && set_constants(type, base_events) < 0) {
        Py_CLEAR(type);
    }
    Py_XDECREF(base);
    Py_XDECREF(transports);
    Py_XDECREF(base_events);
    return (PyTypeObject *)type;
}
