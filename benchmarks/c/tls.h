/* How load.c sends and receives with -DTLS. It does not verify the server. */

#include <fcntl.h>
#include <openssl/ssl.h>

struct transport {
    SSL *ssl;
};

static struct transport
transport_of(int fd)
{
    static SSL_CTX *context;
    if (context == NULL) {
        context = SSL_CTX_new(TLS_client_method());
    }
    SSL *ssl = context == NULL ? NULL : SSL_new(context);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1 || SSL_connect(ssl) != 1) {
        fprintf(stderr, "load: no TLS\n");
        exit(1);
    }
    /* What makes a socket readable may be no data of the server's, but a ticket. */
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
        perror("fcntl");
        exit(1);
    }
    return (struct transport){ssl};
}

/* Returns whether everything was sent. */
static int
transport_send(const struct transport *self, const char *data, size_t size)
{
    return SSL_write(self->ssl, data, (int)size) == (int)size;
}

/* Returns how much was received, 0 if nothing is there yet, -1 if nothing will come. */
static ssize_t
transport_receive(const struct transport *self, char *data, size_t size)
{
    int n = SSL_read(self->ssl, data, (int)size);
    if (n > 0) {
        return n;
    }
    return SSL_get_error(self->ssl, n) == SSL_ERROR_WANT_READ ? 0 : -1;
}
