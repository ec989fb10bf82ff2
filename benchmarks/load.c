/* The load: connections that each send a message, await its echo, and send the next.
 *
 *     load PORT CONNECTIONS SECONDS
 *
 * It prints "ready" once it is connected. For each number of milliseconds read from standard input it
 * then loads the server for so long, and prints the round trips made and the nanoseconds they took.
 * It ends with standard input, or after SECONDS.
 *
 * It must never be what the server waits for: so it owns a core, spins instead of sleeping, and
 * visits the connections in turn instead of asking an epoll which are ready. */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_SIZE 64

static char message[MESSAGE_SIZE];

static void
check(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static int64_t
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int
connect_to(int port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
        .sin_port = htons((uint16_t)port),
    };
    int one = 1;
    int conn = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(conn, "socket");
    check(connect(conn, (struct sockaddr *)&address, sizeof address), "connect");
    check(setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one), "TCP_NODELAY");
    return conn;
}

static void
ask(int conn)
{
    if (send(conn, message, MESSAGE_SIZE, 0) != MESSAGE_SIZE) {
        perror("send");
        exit(1);
    }
}

static void
await_echo(int conn)
{
    char echo[MESSAGE_SIZE];
    size_t size = 0;
    while (size < MESSAGE_SIZE) {
        ssize_t n = recv(conn, echo + size, MESSAGE_SIZE - size, MSG_DONTWAIT);
        if (n > 0) {
            size += (size_t)n;
        }
        else if (n == 0 || errno != EAGAIN) {
            fprintf(stderr, "load: the server hung up\n");
            exit(1);
        }
    }
    if (memcmp(echo, message, MESSAGE_SIZE) != 0) {
        fprintf(stderr, "load: the echo differs\n");
        exit(1);
    }
}

static void
pass(const int *conns, int count)
{
    for (int i = 0; i < count; i++) {
        await_echo(conns[i]);
        ask(conns[i]);
    }
}

/* The first pass fills the server and the last echoes drain it: the clock runs in between only. */
static void
burst(const int *conns, int count, int milliseconds)
{
    int64_t trips = 0;
    for (int i = 0; i < count; i++) {
        ask(conns[i]);
    }
    pass(conns, count);
    int64_t start = now(), end = start + (int64_t)milliseconds * 1000000, stop;
    do {
        pass(conns, count);
        trips += count;
        stop = now();
    } while (stop < end);
    for (int i = 0; i < count; i++) {
        await_echo(conns[i]);
    }
    printf("%" PRId64 " %" PRId64 "\n", trips, stop - start);
    fflush(stdout);
}

int
main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: load PORT CONNECTIONS SECONDS\n");
        return 2;
    }
    int count = atoi(argv[2]);
    alarm((unsigned)atoi(argv[3]));
    memset(message, 'x', sizeof message);
    int *conns = calloc((size_t)count, sizeof *conns);
    if (conns == NULL) {
        perror("calloc");
        return 1;
    }
    for (int i = 0; i < count; i++) {
        conns[i] = connect_to(atoi(argv[1]));
    }
    printf("ready\n");
    fflush(stdout);
    int milliseconds;
    while (scanf("%d", &milliseconds) == 1) {
        burst(conns, count, milliseconds);
    }
    free(conns);
    return 0;
}
