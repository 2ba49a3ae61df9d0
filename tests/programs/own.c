/* A library that a user preloads: it stands in front of some functions itself, and checks that it is
 * called as the rules for calls demand. */
#include "case.h"
#include <stdarg.h>
#include <stdint.h>

static int calls;

/* The stack is at a multiple of 16 behind the saved frame pointer. */
#define ENTER(name) \
    static __typeof__(name) *next; \
    if ((uintptr_t)__builtin_frame_address(0) % 16) abort(); \
    if (!next) next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

/* The same, and counts the call. Those that start programs are not counted: libc has several for one
 * thing, and the observer need not call the same one. */
#define ENTER_COUNTED(name) \
    ENTER(name); \
    calls++

int open(const char *path, int flags, ...) {
    ENTER_COUNTED(open);
    va_list list;
    va_start(list, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;
    va_end(list);
    return next(path, flags, mode);
}

FILE *fopen(const char *path, const char *mode) {
    ENTER_COUNTED(fopen);
    return next(path, mode);
}

char *getenv(const char *name) {
    ENTER_COUNTED(getenv);
    return next(name);
}

int access(const char *path, int mode) {
    ENTER_COUNTED(access);
    return next(path, mode);
}

char *realpath(const char *path, char *to) {
    ENTER_COUNTED(realpath);
    return next(path, to);
}

int renameat(int a, const char *b, int c, const char *d) {
    ENTER_COUNTED(renameat);
    return next(a, b, c, d);
}

int linkat(int a, const char *b, int c, const char *d, int e) {
    ENTER_COUNTED(linkat);
    return next(a, b, c, d, e);
}

void *dlopen(const char *path, int flags) {
    ENTER_COUNTED(dlopen);
    return next(path, flags);
}

int execve(const char *path, char *const *argv, char *const *env) {
    ENTER(execve);
    return next(path, argv, env);
}

int execvpe(const char *path, char *const *argv, char *const *env) {
    ENTER(execvpe);
    return next(path, argv, env);
}

int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                const posix_spawnattr_t *attributes, char *const *argv, char *const *env) {
    ENTER(posix_spawn);
    return next(pid, path, actions, attributes, argv, env);
}

__attribute__((constructor)) static void begin(void) {
    printf("own: LD_PRELOAD=%s\n", getenv("LD_PRELOAD"));
    printf("own: KILN_OBSERVER=%s\n", getenv("KILN_OBSERVER"));
    for (char **variable = environ; *variable; variable++) printf("own: {%s}\n", *variable);
    printf("own: open = %d\n", open("dir/inner", O_RDONLY));
    fflush(stdout);
}

__attribute__((destructor)) static void end(void) {
    printf("own: %d calls\n", calls);
    fflush(stdout);
}
