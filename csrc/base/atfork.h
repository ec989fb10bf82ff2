/* Notice forks: every fork changes the number of the process. An object that has kept another number is a
 * forked copy. Cheaper than getpid(), and not misled by a reused process id. */
#ifndef PYEPOLL_ATFORK_H
#define PYEPOLL_ATFORK_H

/* The number of this process, above 0. The page that holds it is wiped by the kernel in every child
 * (MADV_WIPEONFORK, Linux 4.14), so a child that was made without fork handlers, by _Fork() or a raw clone(),
 * is noticed too. */
extern unsigned *fork_page;
unsigned fork_renew_epoch(void);

static inline unsigned
fork_epoch(void)
{
    unsigned epoch = *fork_page;
    return epoch != 0 ? epoch : fork_renew_epoch();
}

/* Begin to notice forks; once in a process, however many interpreters import the module. 0, or an errno. */
int fork_watch_start(void);

/* Hold off forks for a moment: a child sees all of the changes made meanwhile, or none. Only without the GIL,
 * which the forking thread holds: plain C alone may run. */
void fork_hold(void);
void fork_release(void);

/* Memory that is zero at first, and again in every child, like the page of the number. */
enum { FORK_WIPED_SIZE = 1024 };
void *fork_wiped_memory(void);

/* Call `before` in the parent before each fork, and `in_child` in the child; only one such pair. Plain C: the
 * forking thread may have any lock but that of fork_hold(), which is held for `before`. */
void fork_call(void (*before)(void), void (*in_child)(void));

/* Make an fd that a child closes at once, because the thread that would close it does not exist there. `make`
 * returns the fd, or -1 and errno. Also -1 where there are too many. Without the GIL. */
int fork_private_fd(int (*make)(int), int arg);
void fork_close_private_fd(int fd);

#endif
