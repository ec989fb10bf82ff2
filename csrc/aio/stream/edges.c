/* Whether the loop reports arriving data to a transport by edges: aio/fdedge.h. */
#include "aio/readers.h"
#include "aio/stream/stream.h"

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
    /* A kernel that does not know the option has no such layers. */
    return getsockopt(fd, IPPROTO_TCP, TCP_ULP, layer, &length) < 0 || length == 0 || layer[0] == '\0';
}

int
stream_note_read(Stream *self, bool short_read)
{
    const AioState *state = self->module->aio;
    if (!short_read) {
        bool maybe = self->emptied == EMPTIED_BEFORE_EDGES;
        self->emptied = 0;
        return maybe && is_given(self->loop) ? readers_end_edges(state, self->loop, self->fd) : 0;
    }
    if (self->emptied == EMPTIED_BEFORE_EDGES || ++self->emptied < EMPTIED_BEFORE_EDGES ||
        !is_given(self->loop) || !is_emptied_by_short_read(self->fd)) {
        return 0;
    }
    const FdReader reader = {transport_read_ready, (PyObject *)self};
    return readers_begin_edges(state, self->loop, self->fd, &reader);
}
