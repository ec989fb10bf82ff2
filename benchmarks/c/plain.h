/* How load.c sends and receives: as it is. */

#include <sys/socket.h>

struct transport {
    int fd;
};

static struct transport
transport_of(int fd)
{
    return (struct transport){fd};
}

/* Returns whether everything was sent. */
static int
transport_send(const struct transport *self, const char *data, size_t size)
{
    return send(self->fd, data, size, 0) == (ssize_t)size;
}

/* Returns how much was received, 0 if nothing is there yet, -1 if nothing will come. */
static ssize_t
transport_receive(const struct transport *self, char *data, size_t size)
{
    ssize_t n = recv(self->fd, data, size, 0);
    return n > 0 ? n : -1;
}
