#include "instance.h"

#include "errors.h"
#include "fdinfo.h"
#include "rebuild.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

static void
init_locks(Instance *self)
{
    sem_init(&self->drained, 0, 0);
#ifdef Py_GIL_DISABLED
    self->state = (PyMutex){0};
    self->ctl = (PyMutex){0};
#else
    self->ctl_held = false;
    self->ctl_waiting = 0;
    sem_init(&self->ctl_free, 0, 0);
#endif
}

/* In a child: the locks and marks of threads that it does not have mean nothing. */
static void
reset_after_fork(Instance *self)
{
    init_locks(self);
    self->users = self->waiters = 0;
    self->moving = self->draining = self->haunted = false;
    if (self->standing == OPEN) {
        self->standing = ORPHAN;
    }
    self->forks = fork_count;
}

static bool
is_ours(const Instance *self)
{
    return self->forks == fork_count;
}

static void
notice_fork(Instance *self)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    if (!is_ours(self)) {
        reset_after_fork(self);
    }
    Py_END_CRITICAL_SECTION();
}

/* Remember `self` under its number, for fromfd. */
static int
instance_remember(Instance *self)
{
    PyObject *key = PyLong_FromLong(self->epfd);
    PyObject *reference = PyWeakref_NewRef((PyObject *)self, NULL);
    int status = key != NULL && reference != NULL ? PyDict_SetItem(self->module->instances, key, reference)
                                                  : -1;
    Py_XDECREF(key);
    Py_XDECREF(reference);
    return status;
}

Instance *
instance_new(ModuleState *module, int epfd, bool foreign)
{
    Instance *self = (Instance *)module->instance_type->tp_alloc(module->instance_type, 0);
    if (self == NULL) {
        close(epfd);
        return NULL;
    }
    self->module = module;
    self->epfd = epfd;
    self->foreign = foreign;
    self->forks = fork_count;
    init_locks(self);
    if (getrandom(&self->first, sizeof(self->first), GRND_NONBLOCK) != sizeof(self->first)) {
        self->first = (uint32_t)(uintptr_t)self;
    }
    self->first |= 1u << 30; /* far from the generation 0 of a word that is just an fd number */
    self->generation = self->first;
    if (instance_remember(self) < 0) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

Instance *
instance_find(ModuleState *module, int epfd)
{
    PyObject *key = PyLong_FromLong(epfd);
    PyObject *reference = NULL;
    PyObject *found = NULL;
    if (key != NULL && PyDict_GetItemRef(module->instances, key, &reference) > 0 &&
        PyWeakref_GetRef(reference, &found) > 0) {
        Standing standing = ((Instance *)found)->standing;
        if (standing == CLOSED || standing == ESTRANGED) {
            Py_CLEAR(found);
        }
    }
    Py_XDECREF(reference);
    Py_XDECREF(key);
    return (Instance *)found;
}

int
instance_enter_slowly(Instance *self)
{
    for (;;) {
        if (!is_ours(self)) {
            notice_fork(self);
        }
        STATE_LOCK(self);
        Standing standing = self->standing;
        if (standing == OPEN) {
            self->users++;
            STATE_UNLOCK(self);
            return 0;
        }
        STATE_UNLOCK(self);
        if (standing == CLOSED) {
            return IS_CLOSED;
        }
        if (rebuild_orphan(self) < 0) {
            return -1;
        }
    }
}

/* The last user of a closed instance has left: give up the fd and the registrations. */
static int
instance_finish(Instance *self)
{
    int error = 0;
    if (self->epfd >= 0) {
        error = close(self->epfd) < 0 ? errno : 0;
    }
    STATE_LOCK(self);
    InterestList list = self->list;
    self->list = (InterestList){0};
    STATE_UNLOCK(self);
    interest_free(&list);
    return error;
}

int
instance_enter_wait_slowly(Instance *self, Seen *seen)
{
    int status = instance_enter(self);
    if (status != 0) {
        return status;
    }
    instance_leave(self);
    rebuild_cure(self);
    return instance_enter_wait(self, seen);
}

void
instance_leave_slowly(Instance *self, bool waiter)
{
    STATE_LOCK(self);
    self->waiters -= waiter;
    bool drained = self->draining && self->waiters == 0;
    self->draining = self->draining && !drained;
    bool last = --self->users == 0 && self->standing == CLOSED;
    STATE_UNLOCK(self);
    if (drained) {
        sem_post(&self->drained); /* the curer is a user, so `self` is not finished under it */
    }
    if (last) {
        instance_finish(self);
    }
}

#ifndef Py_GIL_DISABLED
void
instance_lock_slowly(Instance *self)
{
    while (self->ctl_held) {
        self->ctl_waiting++;
        Py_BEGIN_ALLOW_THREADS
        sem_wait(&self->ctl_free);
        Py_END_ALLOW_THREADS
        self->ctl_waiting--;
    }
}
#endif

/* ENOSPC: the user may watch no more files. This instance is about to give its own up, so one of
 * them makes room. */
static int
wake_in_place_of_another(Instance *self, int ready_fd, struct epoll_event *mark)
{
    for (int fd = interest_next(&self->list, 0); fd >= 0; fd = interest_next(&self->list, fd + 1)) {
        if (epoll_ctl(self->epfd, EPOLL_CTL_DEL, fd, mark) == 0) {
            return epoll_ctl(self->epfd, EPOLL_CTL_ADD, ready_fd, mark) == 0 ? 0 : errno;
        }
    }
    return ENOSPC;
}

/* By its count the eventfd is known again. */
enum { READY_COUNT = 0x65706f6c };

int
ready_eventfd(void)
{
    return eventfd(READY_COUNT, EFD_CLOEXEC | EFD_NONBLOCK);
}

int
instance_wake(Instance *self)
{
    ModuleState *module = self->module;
    if (fdinfo_eventfd_count(module->ready_fd) != READY_COUNT) {
        /* Somebody closed every fd, as daemons do, and the number may be another's. */
        int fd = ready_eventfd();
        if (fd < 0) {
            return errno;
        }
        module->ready_fd = fd;
    }
    /* The word 0 is nobody's: generations start far above. */
    struct epoll_event mark = {.events = EPOLLIN, .data.u64 = 0};
    if (epoll_ctl(self->epfd, EPOLL_CTL_ADD, module->ready_fd, &mark) == 0 || errno == EEXIST) {
        return 0;
    }
    if (errno == ENOSPC && self->standing == CLOSED) {
        return wake_in_place_of_another(self, module->ready_fd, &mark);
    }
    return errno;
}

int
instance_close(Instance *self)
{
    if (!is_ours(self)) {
        notice_fork(self);
    }
    STATE_LOCK(self);
    Standing before = self->standing;
    int waiters = self->waiters;
    bool idle = self->users == 0;
    self->standing = CLOSED;
    self->users += before != CLOSED && !idle;
    STATE_UNLOCK(self);
    if (before == CLOSED) {
        return 0;
    }
    if (before == ESTRANGED || (before == ORPHAN && !rebuild_is_still_ours(self))) {
        self->epfd = -1;
    }
    if (idle) {
        return instance_finish(self);
    }
    if (waiters > 0) {
        instance_wake(self);
    }
    instance_leave(self);
    return 0;
}

static int
instance_traverse(Instance *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    return interest_traverse(&self->list, visit, arg);
}

static int
instance_clear(Instance *self)
{
    interest_free(&self->list);
    return 0;
}

static void
instance_dealloc(Instance *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    instance_close(self);
    PyMem_Free(self->spare);
#ifndef Py_GIL_DISABLED
    sem_destroy(&self->ctl_free);
#endif
    sem_destroy(&self->drained);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMemberDef instance_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(Instance, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot instance_slots[] = {
    {Py_tp_members,  instance_members },
    {Py_tp_traverse, instance_traverse},
    {Py_tp_clear,    instance_clear   },
    {Py_tp_dealloc,  instance_dealloc },
    {0,              NULL             },
};

PyType_Spec instance_spec = {
    .name = "pyepoll._epoll.Instance",
    .basicsize = sizeof(Instance),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = instance_slots,
};
