#include "core/interest.h"

#include <string.h>

int
interest_ensure_slot(InterestList *list, int fd)
{
    int page = fd / INTEREST_PAGE;
    if (page >= list->page_count) {
        int page_count = Py_MAX(page + 1, list->page_count * 2);
        Registration **pages = PyMem_Calloc((size_t)page_count, sizeof(*pages));
        if (pages == NULL) {
            return -1;
        }
        if (list->page_count > 0) {
            memcpy(pages, list->pages, (size_t)list->page_count * sizeof(*pages));
        }
        PyMem_Free(list->pages);
        list->pages = pages;
        list->page_count = page_count;
    }
    if (list->pages[page] == NULL) {
        list->pages[page] = PyMem_Calloc(INTEREST_PAGE, sizeof(Registration));
    }
    return list->pages[page] != NULL ? 0 : -1;
}

Registration
registration_new(uint32_t generation, uint32_t mask, PyObject *data)
{
    return (Registration){
        .generation = generation,
        .mask = mask,
        .data = data,
        .countdown = 1 << INTEREST_FIRST_CHECK,
        .interval = INTEREST_FIRST_CHECK,
    };
}

int
interest_next(const InterestList *list, int from)
{
    for (int page = from / INTEREST_PAGE, i = from % INTEREST_PAGE; page < list->page_count; page++, i = 0) {
        for (; list->pages[page] != NULL && i < INTEREST_PAGE; i++) {
            if (list->pages[page][i].generation != 0) {
                return page * INTEREST_PAGE + i;
            }
        }
    }
    return -1;
}

void
interest_renew(InterestList *list)
{
    for (int page = 0; page < list->page_count; page++) {
        for (int i = 0; list->pages[page] != NULL && i < INTEREST_PAGE; i++) {
            list->pages[page][i].shadowed = list->pages[page][i].changing = false;
        }
    }
}

void
interest_free(InterestList *list)
{
    InterestList old = *list;
    *list = (InterestList){0};
    for (int page = 0; page < old.page_count; page++) {
        for (int i = 0; old.pages[page] != NULL && i < INTEREST_PAGE; i++) {
            registration_release(&old.pages[page][i]);
        }
        PyMem_Free(old.pages[page]);
    }
    PyMem_Free(old.pages);
}

int
interest_traverse(const InterestList *list, visitproc visit, void *arg)
{
    for (int fd = interest_next(list, 0); fd >= 0; fd = interest_next(list, fd + 1)) {
        Registration *slot = interest_slot(list, fd);
        Py_VISIT(slot->data);
        Py_VISIT(slot->pair);
    }
    return 0;
}
