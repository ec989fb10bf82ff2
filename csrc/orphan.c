#include "orphan.h"

#include "errors.h"
#include "rebuild.h"

#include <errno.h>

static int
refuse_orphan(const Instance *self, int error)
{
    if (error == ESTRANGED_FILE) {
        os_error(EBADF, "fd %d, the epoll that this process inherited through fork, is another file by now",
                 self->epfd);
    }
    else {
        os_error(error, "cannot give epoll fd %d, inherited through fork, an instance of this process%s",
                 self->epfd, error == ENOENT ? " without /proc" : "");
    }
    return -1;
}

int
orphan_rebuild(Instance *self)
{
    Leftover leftover = {0};
    STATE_LOCK(self);
    Standing standing = self->standing;
    self->users += standing == ORPHAN; /* as enter does; an orphan cannot be entered */
    STATE_UNLOCK(self);
    if (standing != ORPHAN) {
        return standing == ESTRANGED ? refuse_orphan(self, ESTRANGED_FILE) : 0;
    }
    instance_lock(self);
    int error = 0;
    if (self->standing == ORPHAN) {
        error = rebuild_whose(self);
        error = error == EMPTY_EPOLL ? 0 : error;
        if (error == 0 && !self->foreign) {
            error = rebuild(self, true, &leftover);
        }
        STATE_LOCK(self);
        if (self->standing == ORPHAN) {
            self->standing = error == 0 ? OPEN : error == ESTRANGED_FILE ? ESTRANGED : ORPHAN;
        }
        STATE_UNLOCK(self);
    }
    instance_unlock(self);
    instance_leave(self);
    rebuild_release(&leftover);
    return error != 0 ? refuse_orphan(self, error) : 0;
}
