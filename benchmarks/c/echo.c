/* The echo server that the Python ones in servers.py are compared with: the same calls, in C.
 *
 * Prints the port it listens on, then serves until it is killed, for as many seconds as its argument
 * says at the most. */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define CAPACITY 1024
#define MESSAGE_MAX 4096

static void
check(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static int
listen_on_loopback(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    check(listener, "socket");
    check(setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), "TCP_NODELAY");
    check(bind(listener, (struct sockaddr *)&address, size), "bind");
    check(listen(listener, SOMAXCONN), "listen");
    check(getsockname(listener, (struct sockaddr *)&address, &size), "getsockname");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    return listener;
}

static void
add(int epfd, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    check(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
}

/* At most 16 messages of 64 bytes are in flight on a socket: a send to the same socket always has room. */
static void
echo(int epfd, int conn)
{
    char message[MESSAGE_MAX];
    ssize_t size = recv(conn, message, sizeof message, 0);
    if (size > 0) {
        check((int)send(conn, message, (size_t)size, 0), "send");
    }
    else {
        check(epoll_ctl(epfd, EPOLL_CTL_DEL, conn, NULL), "epoll_ctl");
        close(conn);
    }
}

int
main(int argc, char **argv)
{
    struct epoll_event events[CAPACITY];
    alarm(argc > 1 ? (unsigned)atoi(argv[1]) : 60);
    int listener = listen_on_loopback();
    int epfd = epoll_create1(EPOLL_CLOEXEC);
    check(epfd, "epoll_create1");
    add(epfd, listener);
    for (;;) {
        int n = epoll_wait(epfd, events, CAPACITY, -1);
        check(n, "epoll_wait");
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener) {
                int conn = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                check(conn, "accept4");
                add(epfd, conn);
            }
            else {
                echo(epfd, events[i].data.fd);
            }
        }
    }
}
