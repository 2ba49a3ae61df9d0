/* What the programs of the observer's tests share. A program is told by its first argument which
 * case to run, and prints what calls returned: the same with the observer and without. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <spawn.h>
#include <dlfcn.h>

extern char **environ;

/* Prints a result and the error it came with. */
#define SHOW(expression) \
    do { \
        errno = 0; \
        long result_ = (long)(expression); \
        int error_ = errno; \
        printf("%s = %ld %d\n", #expression, result_, result_ == -1 ? error_ : 0); \
        fflush(stdout); \
    } while (0)

/* The same for a pointer. */
#define SHOW_POINTER(expression) \
    do { \
        errno = 0; \
        const void *result_ = (const void *)(expression); \
        int error_ = errno; \
        printf("%s = %s %d\n", #expression, result_ ? "there" : "null", result_ ? 0 : error_); \
        fflush(stdout); \
    } while (0)

/* The same for a text. */
#define SHOW_TEXT(expression) \
    do { \
        errno = 0; \
        const char *result_ = (expression); \
        printf("%s = %s %d\n", #expression, result_ ? result_ : "null", result_ ? 0 : errno); \
        fflush(stdout); \
    } while (0)

#define CASE(name) if (strcmp(which, name) == 0)

/* Waits for a child, and prints how it ended. */
static inline void show_end(pid_t child) {
    int status = 0;
    printf("waited %d\n", waitpid(child, &status, 0) == child);
    printf("ended %d\n", status);
    fflush(stdout);
}
