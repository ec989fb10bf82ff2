#include "core/instance.h"

#include "base/fdinfo.h"
#include "base/monotonic.h"
#include "core/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <structmember.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

void
instance_reset(Instance *self)
{
    STATE_LOCK(self);
    if (self->lifecycle.epoch != fork_epoch()) {
        self->users.entered = self->users.waiting = 0;
        self->users.changing = 0;
        self->fds.changing = self->drain.active = self->stale.found = false;
        self->stale.retry_at = 0;
        if (self->lifecycle.state == OPEN) {
            self->lifecycle.state = FORKED_COPY;
        }
        self->lifecycle.epoch = fork_epoch();
    }
    STATE_UNLOCK(self);
}

/* Register `self` under its public fd, for fromfd. */
static int
instance_add_to_module(Instance *self)
{
    PyObject *key = PyLong_FromLong(self->fds.epfd);
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
    PyTypeObject *type = module_type(module->types.instance);
    Instance *self = type != NULL ? (Instance *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL) {
        if (!foreign) {
            close(epfd);
        }
        return NULL;
    }
    self->module = module_hold(module);
    self->fds.epfd = epfd;
    self->fds.front = -1;
    self->foreign = foreign;
    self->lifecycle.epoch = fork_epoch();
    if (getrandom(&self->generations.base, sizeof(self->generations.base), GRND_NONBLOCK) !=
        sizeof(self->generations.base)) {
        self->generations.base = (uint32_t)(uintptr_t)self;
    }
    /* Far from the generation 0 of data that are just an fd, and from the end. */
    self->generations.base = (self->generations.base & 0x3fffffff) | 0x40000000;
    self->generations.last = self->generations.base;
    if (instance_add_to_module(self) < 0) {
        self->fds.epfd = foreign ? -1 : epfd; /* not ours to close */
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

Instance *
instance_find(ModuleState *module, int fd)
{
    PyObject *key = PyLong_FromLong(fd);
    PyObject *reference = NULL;
    PyObject *found = NULL;
    if (key != NULL && module->instances != NULL &&
        PyDict_GetItemRef(module->instances, key, &reference) > 0 &&
        PyWeakref_GetRef(reference, &found) > 0) {
        LifecycleState state = ((Instance *)found)->lifecycle.state;
        if (state == CLOSED || state == UNRELATED_FD) {
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
    instance_notice_fork(self);
    STATE_LOCK(self);
    LifecycleState state = self->lifecycle.state;
    self->users.entered += state == OPEN;
    STATE_UNLOCK(self);
    return state == OPEN ? 0 : state == CLOSED ? IS_CLOSED : NEEDS_REPAIR;
}

bool
instance_repair_is_due(const Instance *self)
{
    return self->stale.found && monotonic_now() >= self->stale.retry_at;
}

int
instance_enter_wait_slowly(Instance *self, WaitSnapshot *snapshot)
{
    instance_notice_fork(self);
    STATE_LOCK(self);
    LifecycleState state = self->lifecycle.state;
    bool enters = state == OPEN && !self->fds.changing && !instance_repair_is_due(self);
    if (enters) {
        instance_begin_wait(self, snapshot);
    }
    STATE_UNLOCK(self);
    return enters ? 0 : state == CLOSED ? IS_CLOSED : NEEDS_REPAIR;
}

/* The last user of a closed instance has left: close the fds and free the registrations. The kernel may have
 * to wait for its epoll lock, so the GIL is released. */
static int
instance_finish(Instance *self)
{
    int error = 0;
    int epfd = self->fds.epfd, front_fd = self->fds.front;
    self->lifecycle.finished = true;
    stand_in_close_all(&self->stand_ins, epfd);
    Py_BEGIN_ALLOW_THREADS
    if (self->lifecycle.wakes_added && epfd >= 0) {
        /* A duplicate of the fd may keep the kernel instance. */
        instance_unwake(self, epfd);
    }
    if (front_fd >= 0 && close(front_fd) < 0) {
        error = errno;
    }
    if (epfd >= 0 && close(epfd) < 0) {
        error = errno;
    }
    Py_END_ALLOW_THREADS
    STATE_LOCK(self);
    InterestList list = self->list;
    self->list = (InterestList){0};
    STATE_UNLOCK(self);
    interest_free(&list);
    return error;
}

void
instance_leave_slowly(Instance *self, bool waiter)
{
    STATE_LOCK(self);
    self->users.waiting -= waiter;
    bool drained = self->drain.active && self->users.waiting == 0;
    self->drain.active = self->drain.active && !drained;
    if (drained) {
        self->drain.done = 1; /* a rebuild is a user, so `self` is not finished under it */
    }
    bool last = --self->users.entered == 0 && self->lifecycle.state == CLOSED;
    STATE_UNLOCK(self);
    if (drained) {
        futex_wake_all(&self->drain.done);
    }
    if (last) {
        instance_finish(self);
    }
}

/* The always-ready eventfd is recognized by its count. */
enum { READY_COUNT = 0x65706f6c };

int
always_ready_eventfd(void)
{
    return eventfd(READY_COUNT, EFD_CLOEXEC | EFD_NONBLOCK);
}

bool
is_always_ready_eventfd(int fd)
{
    return fdinfo_is_eventfd(fd, READY_COUNT, fcntl(fd, F_GETFD) >= 0);
}

/* The epoll data 0 belong to no registration: generations start far above. 0 or an errno. */
static int
add_always_ready(int always_ready_fd, int epfd)
{
    struct epoll_event target = {.events = EPOLLIN, .data.u64 = 0};
    return epoll_ctl(epfd, EPOLL_CTL_ADD, always_ready_fd, &target) == 0 || errno == EEXIST ? 0 : errno;
}

typedef struct {
    int always_ready_fd;
    int epfd;
} WakeTarget;

static bool
add_in_place_of_entry(const KernelEntry *entry, void *arg)
{
    const WakeTarget *target = arg;
    epoll_ctl(target->epfd, EPOLL_CTL_DEL, entry->fd, &(struct epoll_event){0});
    return add_always_ready(target->always_ready_fd, target->epfd) != 0;
}

/* instance_wake() without the GIL. */
static int
add_always_ready_or_make_room(Instance *self, int epfd, bool closed)
{
    ModuleState *module = self->module;
    int always_ready_fd = module->always_ready_fd;
    if (!is_always_ready_eventfd(always_ready_fd)) {
        always_ready_fd = always_ready_eventfd();
        if (always_ready_fd < 0) {
            return errno;
        }
        module->always_ready_fd = always_ready_fd;
    }
    int error = add_always_ready(always_ready_fd, epfd);
    if (error == ENOSPC && closed) {
        /* The limit of this user's watches is reached. A closed instance removes its own, which makes
         * room. */
        WakeTarget target = {always_ready_fd, epfd};
        fdinfo_each(epfd, false, add_in_place_of_entry, &target);
        error = add_always_ready(always_ready_fd, epfd);
    }
    return error;
}

int
instance_wake(Instance *self, int epfd)
{
    int error;
    STATE_LOCK(self);
    bool closed = self->lifecycle.state == CLOSED;
    STATE_UNLOCK(self);
    Py_BEGIN_ALLOW_THREADS
    error = add_always_ready_or_make_room(self, epfd, closed);
    Py_END_ALLOW_THREADS
    return error;
}

void
instance_unwake(Instance *self, int epfd)
{
    epoll_ctl(epfd, EPOLL_CTL_DEL, self->module->always_ready_fd, &(struct epoll_event){0});
}

bool
instance_begin_fd_change(Instance *self)
{
    STATE_LOCK(self);
    bool open = self->lifecycle.state == OPEN;
    self->fds.changing = open;
    STATE_UNLOCK(self);
    return open;
}

void
instance_end_fd_change(Instance *self)
{
    STATE_LOCK(self);
    self->fds.changing = false;
    int epfd = self->fds.epfd;
    bool wakes = self->lifecycle.state == CLOSED && self->users.waiting > 0;
    self->lifecycle.wakes_added |= wakes;
    STATE_UNLOCK(self);
    if (wakes) {
        instance_wake(self, epfd);
    }
}

/* Do not close the public fd if another Epoll of this interpreter has it: then it was closed behind our back
 * and reused. */
static void
keep_taken_fd_open(Instance *self)
{
    PyObject *error = PyErr_GetRaisedException();
    Instance *holder = instance_find(self->module, instance_public_fd(self));
    PyErr_Clear();
    if (holder != NULL && holder != self) {
        *(self->fds.front >= 0 ? &self->fds.front : &self->fds.epfd) = -1;
    }
    Py_XDECREF(holder);
    PyErr_SetRaisedException(error);
}

/* Do not close fds that are not this instance's. In a child that never used its copy the fds are closed only
 * if they can be identified as the inherited ones: one fd left open is the lesser evil. */
static void
keep_unowned_fds_open(Instance *self, LifecycleState before)
{
    int status = before == UNRELATED_FD ? FD_IS_UNRELATED : 0;
    if (before == FORKED_COPY) {
        const Identity identity = {self->fds.epfd, self->fds.front, &self->list, self->generations.base,
                                   self->generations.last};
        Py_BEGIN_ALLOW_THREADS
        status = identity_check(&identity);
        Py_END_ALLOW_THREADS
    }
    if (before == FORKED_COPY || status != 0) {
        stand_in_close_all(&self->stand_ins, -1); /* the list of the kernel instance is the parent's */
    }
    if (status != 0) {
        self->fds.epfd = self->fds.front = -1;
    }
    else {
        keep_taken_fd_open(self);
    }
}

int
instance_close(Instance *self)
{
    instance_notice_fork(self);
    bool copy = instance_hold_copy(self);
    STATE_LOCK(self);
    LifecycleState before = self->lifecycle.state;
    bool wakes = self->users.waiting > 0 && !self->fds.changing;
    int epfd = self->fds.epfd;
    self->lifecycle.state = CLOSED;
    self->users.entered += before != CLOSED; /* until the end of this call */
    self->lifecycle.wakes_added |= wakes;
    STATE_UNLOCK(self);
    instance_release_copy(self, copy);
    if (before == CLOSED) {
        return 0;
    }
    keep_unowned_fds_open(self, before);
    int error = wakes ? instance_wake(self, epfd) : 0;
    STATE_LOCK(self);
    bool last = --self->users.entered == 0;
    STATE_UNLOCK(self);
    return last ? instance_finish(self) : error;
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
    if (!self->lifecycle.finished) {
        /* Closed before a fork in a parent that had waiters at that moment. */
        keep_unowned_fds_open(self, FORKED_COPY);
        instance_finish(self);
    }
    PyMem_Free(self->batches.spare);
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
