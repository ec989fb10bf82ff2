/* Whether the loop reports arriving data to a transport by edges: aio/fdedge.h. */
#include "aio/readers.h"
#include "aio/stream/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

/* After so many reads in a row that have emptied the socket. A connection of a few requests is not worth the
 * system calls. */
enum { EMPTIED_BEFORE_EDGES = 16 };

/* Whether a recv() that returns less than was asked for has emptied the socket: true for TCP without an upper
 * layer such as TLS in the kernel. Of a Unix socket, it returns the data of one message that carries fds. */
static bool
is_emptied_by_short_read(int fd)
{
    int protocol = 0;
    char layer[16] = "";
    socklen_t size = sizeof(protocol), length = sizeof(layer);
    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) < 0 || protocol != IPPROTO_TCP) {
        return false;
    }
    /* Nor up to an urgent byte, if the program has taken that at a signal: then no event tells of it. */
    if (fcntl(fd, F_GETOWN) != 0) {
        return false;
    }
    /* A kernel that does not know the option has no such layers. */
    return getsockopt(fd, IPPROTO_TCP, TCP_ULP, layer, &length) < 0 || length == 0 || layer[0] == '\0';
}

void
stream_note_read(Stream *self, ssize_t count, size_t size, int error)
{
    const AioState *state = self->module->aio;
    bool emptied = count > 0 ? (size_t)count < size : count < 0 && error == EAGAIN;
    if (!emptied || !is_given(self->loop)) {
        self->emptied = 0;
    }
    else if (self->emptied == EMPTIED_BEFORE_EDGES) {
        self->emptied = readers_confirm_edge(state, self->loop, self->fd) ? EMPTIED_BEFORE_EDGES : 0;
    }
    else if (++self->emptied == EMPTIED_BEFORE_EDGES) {
        const FdReader reader = {transport_read_ready, (PyObject *)self};
        bool begun = is_emptied_by_short_read(self->fd) &&
                     readers_begin_edges(state, self->loop, self->fd, &reader);
        self->emptied = begun ? EMPTIED_BEFORE_EDGES : 0;
    }
}
