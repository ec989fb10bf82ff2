/* The floor: the cost in C of a wait and the walk over its events. Loaded with ctypes. */

#include <stdint.h>
#include <sys/epoll.h>

#define CAPACITY 1024

/* Waits `waits` times and reads the data and the mask of each event. Returns how many events came
 * out, or -1 for an error. The sum goes out through `sum`, so that the reads must be made. */
int64_t
floor_wait(int epfd, int64_t waits, uint64_t *sum)
{
    struct epoll_event events[CAPACITY];
    int64_t seen = 0;
    for (int64_t i = 0; i < waits; i++) {
        int n = epoll_wait(epfd, events, CAPACITY, 0);
        if (n < 0) {
            return -1;
        }
        for (int k = 0; k < n; k++) {
            *sum += events[k].data.u64 ^ events[k].events;
        }
        seen += n;
    }
    return seen;
}
