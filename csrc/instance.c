#include "instance.h"

#include "cure.h"
#include "fdinfo.h"
#include "orphan.h"
#include "rebuild.h"

#include <errno.h>
#include <structmember.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

/* Make what threads post and wait for: a lock, acquired until it is posted. It is CPython's own, since the
 * symbols of POSIX semaphores that a new glibc links to are missing from an old one. */
static PyThread_type_lock
new_post(void)
{
    PyThread_type_lock post = PyThread_allocate_lock();
    if (post != NULL) {
        PyThread_acquire_lock(post, NOWAIT_LOCK);
    }
    return post;
}

static void
free_post(PyThread_type_lock post)
{
    if (post != NULL) {
        PyThread_release_lock(post);
        PyThread_free_lock(post);
    }
}

/* 0, or -1 with MemoryError. */
static int
new_locks(Instance *self)
{
    self->drained = new_post();
    bool made = self->drained != NULL;
#ifndef Py_GIL_DISABLED
    self->ctl_free = new_post();
    made = made && self->ctl_free != NULL;
#endif
    if (!made) {
        PyErr_NoMemory();
    }
    return made ? 0 : -1;
}

/* Nobody holds the locks, and nothing is posted. */
static void
reset_locks(Instance *self)
{
    PyThread_acquire_lock(self->drained, NOWAIT_LOCK);
#ifdef Py_GIL_DISABLED
    self->state = (PyMutex){0};
    self->ctl = (PyMutex){0};
#else
    self->ctl_held = false;
    self->ctl_waiting = 0;
    PyThread_acquire_lock(self->ctl_free, NOWAIT_LOCK);
#endif
}

void
instance_reset(Instance *self)
{
    Py_BEGIN_CRITICAL_SECTION(self);
    if (self->forks != fork_count) {
        reset_locks(self);
        self->users = self->waiters = 0;
        self->moving = self->draining = self->haunted = false;
        if (self->standing == OPEN) {
            self->standing = ORPHAN;
        }
        self->forks = fork_count;
    }
    Py_END_CRITICAL_SECTION();
}

/* Remember `self` under its number, for fromfd. */
static int
instance_remember(Instance *self)
{
    PyObject *key = PyLong_FromLong(self->epfd);
    PyObject *reference = PyWeakref_NewRef((PyObject *)self, NULL);
    PyObject *instances = self->module->instances; /* NULL once the module has been cleared */
    int status = key == NULL || reference == NULL ? -1
                 : instances != NULL              ? PyDict_SetItem(instances, key, reference)
                                                  : 0;
    Py_XDECREF(key);
    Py_XDECREF(reference);
    return status;
}

Instance *
instance_new(ModuleState *module, int epfd, bool foreign)
{
    PyTypeObject *type = module_type(module->instance_type);
    Instance *self = type != NULL ? (Instance *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL) {
        if (!foreign) {
            close(epfd);
        }
        return NULL;
    }
    self->module = module_hold(module);
    self->epfd = epfd;
    self->foreign = foreign;
    self->forks = fork_count;
    if (getrandom(&self->first, sizeof(self->first), GRND_NONBLOCK) != sizeof(self->first)) {
        self->first = (uint32_t)(uintptr_t)self;
    }
    /* Far from the generation 0 of a word that is just an fd number, and from the end. */
    self->first = (self->first & 0x3fffffff) | 0x40000000;
    self->generation = self->first;
    if (new_locks(self) < 0 || instance_remember(self) < 0) {
        self->epfd = foreign ? -1 : epfd; /* the caller's again */
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
    if (key != NULL && module->instances != NULL &&
        PyDict_GetItemRef(module->instances, key, &reference) > 0 &&
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
        instance_notice_fork(self);
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
        if (orphan_rebuild(self) < 0) {
            return -1;
        }
    }
}

/* The last user of a closed instance has left: give up the fd and the registrations. */
static int
instance_finish(Instance *self)
{
    int error = 0;
    self->finished = true;
    if (self->epfd >= 0) {
        if (self->woken) {
            /* A duplicate of the fd may live on. */
            epoll_ctl(self->epfd, EPOLL_CTL_DEL, self->module->ready_fd, &(struct epoll_event){0});
        }
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
    cure_ghosts(self);
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
        PyThread_release_lock(self->drained); /* the curer is a user, so `self` is not finished under it */
    }
    if (last) {
        instance_finish(self);
    }
}

#ifndef Py_GIL_DISABLED
void
instance_lock_slowly(Instance *self)
{
    /* When the interpreter ends, a daemon thread may have ended with the lock. */
    if (!Py_IsInitialized()) {
        return;
    }
    self->ctl_waiting++;
    Py_BEGIN_ALLOW_THREADS
    PyThread_acquire_lock(self->ctl_free, WAIT_LOCK);
    Py_END_ALLOW_THREADS
}
#endif

/* By its count the eventfd is known again. */
enum { READY_COUNT = 0x65706f6c };

int
ready_eventfd(void)
{
    return eventfd(READY_COUNT, EFD_CLOEXEC | EFD_NONBLOCK);
}

bool
is_ready_eventfd(int fd)
{
    return fdinfo_may_be_eventfd(fd, READY_COUNT);
}

/* The word 0 is nobody's: generations start far above. 0 or an errno. */
static int
add_mark(const Instance *self)
{
    struct epoll_event mark = {.events = EPOLLIN, .data.u64 = 0};
    return epoll_ctl(self->epfd, EPOLL_CTL_ADD, self->module->ready_fd, &mark) == 0 || errno == EEXIST
               ? 0
               : errno;
}

static bool
add_in_place_of(const Watched *watched, void *arg)
{
    Instance *self = arg;
    epoll_ctl(self->epfd, EPOLL_CTL_DEL, watched->fd, &(struct epoll_event){0});
    return add_mark(self) != 0;
}

int
instance_wake(Instance *self)
{
    ModuleState *module = self->module;
    if (!is_ready_eventfd(module->ready_fd)) {
        int fd = ready_eventfd();
        if (fd < 0) {
            return errno;
        }
        module->ready_fd = fd;
    }
    int error = add_mark(self);
    if (error == ENOSPC && self->standing == CLOSED) {
        /* The user may watch no more files. What this instance gives up anyway makes room. */
        fdinfo_each(self->epfd, add_in_place_of, self);
        error = add_mark(self);
    }
    return error;
}

/* Whether the number is this instance's to close. It is not when somebody has closed it behind our back and
 * another Epoll has got it; in a child, when it cannot be seen to be the one that was inherited: then an fd
 * too many is the lesser evil. */
static bool
has_number(Instance *self, bool inherited)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Instance *holder = instance_find(self->module, self->epfd);
    PyErr_Clear();
    bool other = holder != NULL && holder != self;
    Py_XDECREF(holder);
    PyErr_Restore(type, value, traceback);
    return !other && (!inherited || rebuild_whose(self) == 0);
}

int
instance_close(Instance *self)
{
    instance_notice_fork(self);
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
    if (before == ESTRANGED || !has_number(self, before == ORPHAN)) {
        self->epfd = -1;
    }
    if (idle) {
        return instance_finish(self);
    }
    int error = 0;
    if (waiters > 0) {
        self->woken = true;
        error = instance_wake(self);
    }
    instance_leave(self);
    return error;
}

static int
instance_traverse(Instance *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    if (self->module != NULL) {
        Py_VISIT(self->module->object);
    }
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
    ModuleState *module = self->module;
    PyObject_GC_UnTrack(self);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    instance_close(self);
    if (!self->finished) {
        /* Closed before a fork, in a parent whose waiters were still about to leave. */
        if (!has_number(self, true)) {
            self->epfd = -1;
        }
        instance_finish(self);
    }
    PyMem_Free(self->spare);
    free_post(self->drained);
#ifndef Py_GIL_DISABLED
    free_post(self->ctl_free);
#endif
    type->tp_free(self);
    Py_DECREF(type);
    module_drop(module);
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
