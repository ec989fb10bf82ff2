#include "aio/heap.h"

/* The time of a timer of asyncio's own class, as plain_time(). Without a lock: asyncio sets `_when` only when
 * it makes the timer. */
static bool
stock_time(const LoopState *state, PyObject *object, double *time)
{
    PyObject *when = Py_IS_TYPE(object, state->stock_timer) ? ((StockTimer *)object)->when : NULL;
    if (when == NULL || !PyFloat_CheckExact(when)) {
        return false;
    }
    *time = PyFloat_AS_DOUBLE(when);
    return !isnan(*time);
}

/* The time of a timer whose `_when` is a float, but not NaN; false for anything else. */
static inline bool
plain_time(const LoopState *state, PyObject *object, double *time)
{
    return is_our_timer(state, object) ? timer_time((Timer *)object, time) : stock_time(state, object, time);
}

/* Whether the first is due before the second: 1 or 0; -1 with an exception. Where it is not a matter of two
 * floats, Python code may run, and change the list. */
static int
is_before(const LoopState *state, PyObject *list, PyObject *first, PyObject *second)
{
    double a, b;
    if (plain_time(state, first, &a) && plain_time(state, second, &b)) {
        return a < b;
    }
    Py_ssize_t size = PyList_GET_SIZE(list);
    Py_INCREF(first);
    Py_INCREF(second);
    int before = PyObject_RichCompareBool(first, second, Py_LT);
    Py_DECREF(first);
    Py_DECREF(second);
    if (before >= 0 && size != PyList_GET_SIZE(list)) {
        PyErr_SetString(PyExc_RuntimeError, "list changed size during iteration");
        return -1;
    }
    return before;
}

/* Note in our timer where it is. */
static void
note_place(const LoopState *state, PyObject *list, Py_ssize_t index)
{
    PyObject *object = PyList_GET_ITEM(list, index);
    if (is_our_timer(state, object)) {
        ((Timer *)object)->index = index;
    }
}

static void
swap(const LoopState *state, PyObject *list, Py_ssize_t a, Py_ssize_t b)
{
    PyObject *object = PyList_GET_ITEM(list, a);
    PyList_SET_ITEM(list, a, PyList_GET_ITEM(list, b));
    PyList_SET_ITEM(list, b, object);
    note_place(state, list, a);
    note_place(state, list, b);
}

/* The timer at an index, if it is one of ours with a plain time; else NULL. */
static inline Timer *
plain_timer(const LoopState *state, PyObject *list, Py_ssize_t index, double *time)
{
    PyObject *object = PyList_GET_ITEM(list, index);
    return is_our_timer(state, object) && timer_time((Timer *)object, time) ? (Timer *)object : NULL;
}

/* Put a timer into a place that is free. */
static inline void
put(PyObject *list, Py_ssize_t index, Timer *timer)
{
    PyList_SET_ITEM(list, index, (PyObject *)timer);
    timer->index = index;
}

/* Move the item at `*index` towards the root, as towards_root(), past plain timers. Whether it has its place:
 * not where another kind of item comes next. */
static bool
rise(const LoopState *state, PyObject *list, Py_ssize_t *index)
{
    Py_ssize_t place = *index;
    double time, other;
    Timer *timer = plain_timer(state, list, place, &time), *parent = timer;
    while (place > 0 && parent != NULL) {
        parent = plain_timer(state, list, (place - 1) / 2, &other);
        if (parent == NULL || !(time < other)) {
            break;
        }
        put(list, place, parent);
        place = (place - 1) / 2;
    }
    if (place != *index) {
        put(list, place, timer);
        *index = place;
    }
    return parent != NULL;
}

/* Move the item at `index` down to a leaf, as towards_leaf(), past plain timers. Its new index. */
static Py_ssize_t
sink(const LoopState *state, PyObject *list, Py_ssize_t index)
{
    PyObject *object = PyList_GET_ITEM(list, index);
    const Py_ssize_t size = PyList_GET_SIZE(list);
    for (Py_ssize_t child; (child = 2 * index + 1) < size; index = child) {
        double left, right;
        Timer *least = plain_timer(state, list, child, &left);
        if (least != NULL && child + 1 < size) {
            Timer *other = plain_timer(state, list, child + 1, &right);
            bool is_right = other == NULL || !(left < right);
            least = is_right ? other : least;
            child += is_right;
        }
        if (least == NULL) {
            break;
        }
        put(list, index, least);
    }
    PyList_SET_ITEM(list, index, object);
    note_place(state, list, index);
    return index;
}

/* heapq's _siftdown: move the item at `index` towards the root as long as it is before its parent. */
static int
towards_root(const LoopState *state, PyObject *list, Py_ssize_t index)
{
    if (rise(state, list, &index)) {
        return 0;
    }
    while (index > 0) {
        Py_ssize_t parent = (index - 1) / 2;
        int before = is_before(state, list, PyList_GET_ITEM(list, index), PyList_GET_ITEM(list, parent));
        if (before <= 0) {
            return before;
        }
        swap(state, list, index, parent);
        index = parent;
    }
    return 0;
}

/* heapq's _siftup: move the item at `index` down to a leaf, then up to its place. */
static int
towards_leaf(const LoopState *state, PyObject *list, Py_ssize_t index)
{
    Py_ssize_t size = PyList_GET_SIZE(list);
    index = sink(state, list, index);
    while (2 * index + 1 < size) {
        Py_ssize_t child = 2 * index + 1;
        if (child + 1 < size) {
            int before = is_before(state, list, PyList_GET_ITEM(list, child),
                                   PyList_GET_ITEM(list, child + 1));
            if (before < 0) {
                return -1;
            }
            child += before == 0;
        }
        swap(state, list, index, child);
        index = child;
    }
    return towards_root(state, list, index);
}

/* Move an item that was appended to its place; another thread may have appended more since. */
static int
place_last(const LoopState *state, PyObject *list, PyObject *timer)
{
    Py_ssize_t index = PyList_GET_SIZE(list) - 1;
    while (index >= 0 && PyList_GET_ITEM(list, index) != timer) {
        index--;
    }
    if (index < 0) {
        return 0;
    }
    note_place(state, list, index);
    return towards_root(state, list, index);
}

int
heap_push(const LoopState *state, PyObject *list, PyObject *timer)
{
    Py_INCREF(list);
    /* It locks the list: up to 3.13, a lock within the same lock takes 35 µs. */
    int status = PyList_Append(list, timer);
    if (status == 0) {
        Py_BEGIN_CRITICAL_SECTION(list);
        status = place_last(state, list, timer);
        Py_END_CRITICAL_SECTION();
    }
    Py_DECREF(list);
    return status;
}

/* Take out the last item: its reference. The list keeps its memory for the next items: PyList_SetSlice()
 * would lock the list again. */
static PyObject *
take_last(PyObject *list)
{
    Py_ssize_t last = PyList_GET_SIZE(list) - 1;
    PyObject *object = PyList_GET_ITEM(list, last);
    Py_SET_SIZE(list, last);
    PyList_SET_ITEM(list, last, NULL);
    return object;
}

/* Whether there is a first timer with a plain time. */
static bool
first_time(const LoopState *state, PyObject *list, double *when)
{
    return PyList_GET_SIZE(list) > 0 && plain_time(state, PyList_GET_ITEM(list, 0), when);
}

bool
heap_first(const LoopState *state, PyObject *list, double *when)
{
    bool found = false;
    Py_BEGIN_CRITICAL_SECTION(list);
    found = first_time(state, list, when);
    Py_END_CRITICAL_SECTION();
    return found;
}

/* Take out the first item of a list that is not empty: a new reference, or NULL with an exception. */
static PyObject *
take_first(const LoopState *state, PyObject *list)
{
    PyObject *first = take_last(list);
    if (PyList_GET_SIZE(list) > 0) {
        PyObject *last = first;
        first = PyList_GET_ITEM(list, 0);
        PyList_SET_ITEM(list, 0, last);
        note_place(state, list, 0);
        if (towards_leaf(state, list, 0) < 0) {
            Py_CLEAR(first);
        }
    }
    return first;
}

int
heap_pop_due(const LoopState *state, PyObject *list, double end, PyObject **timer)
{
    int status = 0;
    double when;
    Py_INCREF(list);
    Py_BEGIN_CRITICAL_SECTION(list);
    if (first_time(state, list, &when) && when < end) {
        *timer = take_first(state, list);
        status = *timer != NULL ? 1 : -1;
    }
    Py_END_CRITICAL_SECTION();
    Py_DECREF(list);
    return status;
}

static int
remove_at(const LoopState *state, PyObject *list, Py_ssize_t index)
{
    PyObject *last = take_last(list);
    if (index == PyList_GET_SIZE(list)) {
        Py_DECREF(last);
        return 1;
    }
    PyObject *removed = PyList_GET_ITEM(list, index);
    PyList_SET_ITEM(list, index, last);
    note_place(state, list, index);
    int status = towards_leaf(state, list, index);
    Py_DECREF(removed);
    return status < 0 ? -1 : 1;
}

int
heap_remove(const LoopState *state, PyObject *list, PyObject *timer)
{
    int status = 0;
    Py_INCREF(list);
    Py_BEGIN_CRITICAL_SECTION(list);
    Py_ssize_t index = ((Timer *)timer)->index;
    if (index >= 0 && index < PyList_GET_SIZE(list) && PyList_GET_ITEM(list, index) == timer) {
        status = remove_at(state, list, index);
    }
    Py_END_CRITICAL_SECTION();
    Py_DECREF(list);
    return status;
}
