/* Are these fds still the epoll that a process had before a fork? Plain C, for use without the GIL. */
#ifndef PYEPOLL_IDENTITY_H
#define PYEPOLL_IDENTITY_H

#include "base/fdinfo.h"
#include "core/interest.h"

typedef struct {
    int epfd;
    int front_fd; /* -1: none */
    const InterestList *list;
    uint32_t base_generation; /* generations given out are above this one… */
    uint32_t last_generation; /* …and up to this one; since the fork, the parent goes on counting */
} Identity;

/* Results besides 0 (it is ours) and an errno (unknown for now). */
enum {
    FD_IS_UNRELATED = -1,
    FD_MAY_BE_OURS = -2, /* an epoll that watches nothing, as ours may */
};

/* The epoll data of the front's entry for its instance: a generation that no registration gets. */
static inline uint64_t
identity_front_data(uint32_t base_generation)
{
    return epoll_data_of(0, base_generation);
}

/* The evidence in the epoll data of the kernel's entries, collected by identity_see(). */
typedef struct {
    bool any;     /* there is an entry */
    bool ours;    /* one is a registration of ours */
    bool foreign; /* one cannot be ours */
} Evidence;

void identity_see(const Identity *identity, const KernelEntry *entry, Evidence *evidence);
int identity_conclude(const Evidence *evidence);

/* Look at a few entries; where they are inconclusive, at all of them. */
int identity_check(const Identity *identity);

#endif
