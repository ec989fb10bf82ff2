#include "stale.h"

#include "ctl.h"

#include <errno.h>
#include <fcntl.h>

/* So many stale events without a certain verdict are as good as one. */
enum { MOST_DOUBTS = 8 };

/* An event that was fetched before its registration went is late, and comes no more. One that was
 * fetched when no removal was under way or done since comes from a ghost, or from what somebody else put
 * into the kernel's list. */
static void
count_stale(Instance *self, const Seen *seen, uint64_t word)
{
    STATE_LOCK(self);
    self->stale++;
    self->ghost = word;
    self->doubts += self->suspects > 0;
    self->haunted |= self->removals == seen->removals || self->doubts >= MOST_DOUBTS;
    STATE_UNLOCK(self);
}

bool
stale_judge(Instance *self, const Seen *seen, uint64_t word)
{
    bool live = false;
    if (word == 0) {
        return false; /* what woke the waiters */
    }
    int status = instance_enter(self);
    if (status == 0) {
        instance_lock(self);
        live = interest_find(&self->list, word) != NULL;
        if (!live) {
            count_stale(self, seen, word);
        }
        instance_unlock(self);
        instance_leave(self);
    }
    else if (status < 0) {
        PyErr_Clear();
    }
    return live;
}

bool
stale_check_open(Instance *self, uint64_t word)
{
    if (fcntl(interest_word_fd(word), F_GETFD) >= 0 || errno != EBADF) {
        return true;
    }
    int status = instance_enter(self);
    if (status != 0) {
        PyErr_Clear();
        return true;
    }
    instance_lock(self);
    Registration lost = ctl_forget(self, word);
    bool open = lost.generation == 0;
    STATE_LOCK(self);
    if (!open) {
        self->stale++;
        self->dropped++;
        self->ghost = word;
        self->haunted = true;
    }
    STATE_UNLOCK(self);
    instance_unlock(self);
    instance_leave(self);
    registration_release(&lost);
    return open;
}
