/* The load: connections that each send requests, await the answers, and send the next.
 *
 *     load PORT CONNECTIONS DEPTH SECONDS REQUEST BEGINNING SIZE
 *
 * A connection has DEPTH requests in flight: it sends them at once, and the next when all the answers are
 * there. An answer has SIZE bytes and begins with BEGINNING.
 *
 * It prints "ready" once it is connected. For each number of milliseconds read from standard input it
 * then loads the server for so long, and prints how many answers came, the nanoseconds they took, and
 * the median and the 99th percentile of the nanoseconds from a request to its answer. It ends with
 * standard input, or after SECONDS.
 *
 * The server must never wait for it: so it owns a core, and spins instead of sleeping. Nor may
 * the server do its work: a poll that does not wait leaves nothing behind for a send to wake, where an
 * epoll would. */

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifdef TLS
#include "tls.h"
#else
#include "plain.h"
#endif

struct connection {
    struct transport transport;
    int64_t asked;
    size_t received;
    char *answers;
};

static int count, depth;
static struct pollfd *polls;
static struct connection *connections;

static const char *beginning;
static char *requests;
static size_t requests_size, answer_size, answers_size;

static void
check(int result, const char *what)
{
    if (result < 0) {
        perror(what);
        exit(1);
    }
}

static void
fail(const char *why)
{
    fprintf(stderr, "load: %s\n", why);
    exit(1);
}

static void *
allocate(size_t items, size_t size)
{
    void *memory = calloc(items, size);
    if (memory == NULL) {
        fail("out of memory");
    }
    return memory;
}

static int64_t
now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

/* Round trips by their nanoseconds, which a row counts in units of 1 << row: so to 0.4 %, or exactly. */
#define COLUMNS 512
#define ROWS 54

static int64_t histogram[ROWS][COLUMNS];

static void
record(int64_t nanoseconds)
{
    int row = 0;
    while (nanoseconds >> row >= COLUMNS) {
        row++;
    }
    histogram[row][nanoseconds >> row]++;
}

/* Returns the time that the given share of the recorded round trips did not exceed. */
static int64_t
percentile(int percent)
{
    int64_t total = 0, seen = 0;
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        total += histogram[i / COLUMNS][i % COLUMNS];
    }
    for (int row = 0; row < ROWS; row++) {
        for (int64_t column = 0; column < COLUMNS; column++) {
            seen += histogram[row][column];
            if (seen * 100 >= total * percent) {
                return (column << row) + ((int64_t)1 << row) / 2;
            }
        }
    }
    return 0;
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
connect_all(int port)
{
    polls = allocate((size_t)count, sizeof *polls);
    connections = allocate((size_t)count, sizeof *connections);
    for (int i = 0; i < count; i++) {
        polls[i] = (struct pollfd){.fd = connect_to(port), .events = POLLIN};
        connections[i].transport = transport_of(polls[i].fd);
        connections[i].answers = allocate((size_t)depth, answer_size);
    }
}

static void
ask(int i, int64_t time)
{
    connections[i].asked = time;
    connections[i].received = 0;
    if (!transport_send(&connections[i].transport, requests, requests_size)) {
        fail("the requests cannot be sent");
    }
}

/* Returns whether all the answers are there. */
static int
hear(int i)
{
    struct connection *conn = &connections[i];
    size_t missing = answers_size - conn->received;
    ssize_t n = transport_receive(&conn->transport, conn->answers + conn->received, missing);
    if (n < 0) {
        fail("the server hung up");
    }
    conn->received += (size_t)n;
    if (conn->received < answers_size) {
        return 0;
    }
    for (size_t at = 0; at < answers_size; at += answer_size) {
        if (memcmp(conn->answers + at, beginning, strlen(beginning)) != 0) {
            fail("not the answer expected");
        }
    }
    return 1;
}

/* Hears every connection that has something to say; returns how many were answered in full. */
static int
sweep(int ask_again)
{
    int answered = 0;
    check(poll(polls, (nfds_t)count, 0), "poll");
    for (int i = 0; i < count; i++) {
        if (polls[i].revents == 0 || !hear(i)) {
            continue;
        }
        int64_t time = now();
        record(time - connections[i].asked);
        answered++;
        if (ask_again) {
            ask(i, time);
        }
    }
    return answered;
}

/* The first answers fill the server and the last drain it: the clock runs in between only. */
static void
burst(int milliseconds)
{
    int64_t answered = 0, start, stop;
    for (int i = 0; i < count; i++) {
        ask(i, now());
    }
    for (int filled = 0; filled < count;) {
        filled += sweep(1);
    }
    memset(histogram, 0, sizeof histogram);
    start = now();
    do {
        answered += sweep(1);
        stop = now();
    } while (stop < start + (int64_t)milliseconds * 1000000 || answered == 0);
    int64_t median = percentile(50), tail = percentile(99);
    for (int drained = 0; drained < count;) {
        drained += sweep(0);
    }
    printf("%" PRId64 " %" PRId64 " %" PRId64 " %" PRId64 "\n", answered * depth, stop - start, median, tail);
    fflush(stdout);
}

int
main(int argc, char **argv)
{
    if (argc != 8) {
        fprintf(stderr, "usage: load PORT CONNECTIONS DEPTH SECONDS REQUEST BEGINNING SIZE\n");
        return 2;
    }
    count = atoi(argv[2]);
    depth = atoi(argv[3]);
    alarm((unsigned)atoi(argv[4]));
    size_t request_size = strlen(argv[5]);
    requests_size = (size_t)depth * request_size;
    requests = allocate((size_t)depth, request_size);
    for (size_t at = 0; at < requests_size; at += request_size) {
        memcpy(requests + at, argv[5], request_size);
    }
    beginning = argv[6];
    answer_size = (size_t)atoi(argv[7]);
    answers_size = (size_t)depth * answer_size;
    connect_all(atoi(argv[1]));
    printf("ready\n");
    fflush(stdout);
    int milliseconds;
    while (scanf("%d", &milliseconds) == 1) {
        burst(milliseconds);
    }
    return 0;
}
