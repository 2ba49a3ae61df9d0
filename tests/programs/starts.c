/* One way of starting a program, or of loading an object, each. The second argument is the path of
 * the program `show`, which is also found by its bare name. */
#include "case.h"
#ifdef __x86_64__
#include <sched.h>
extern void clone_lands(void);
__asm__("clone_lands: mov $60, %eax; mov $33, %edi; syscall");
#endif

static char *argv_of[] = {"zero", "one", "two", NULL};
static char *other[] = {"A=1", "LD_PRELOAD=", "B=2", NULL};
static char *empty[] = {NULL};

static void lists(const char *which, const char *show) {
    char *a = "a";
    CASE("execl 1") SHOW(execl(show, "0", NULL));
    CASE("execl 3") SHOW(execl(show, "zero", "one", "two", NULL));
    CASE("execl 5") SHOW(execl(show, "0", "1", "2", "3", a, NULL));
    CASE("execl 9") SHOW(execl(show, "0", "1", "2", "3", "4", "5", "6", "7", a, NULL));
    CASE("execlp 1") SHOW(execlp("show", "0", NULL));
    CASE("execlp 3") SHOW(execlp("show", "zero", "one", "two", NULL));
    CASE("execlp 5") SHOW(execlp("show", "0", "1", "2", "3", a, NULL));
    CASE("execlp 9") SHOW(execlp("show", "0", "1", "2", "3", "4", "5", "6", "7", a, NULL));
    CASE("execle 1") SHOW(execle(show, "0", NULL, other));
    CASE("execle 3") SHOW(execle(show, "zero", "one", "two", NULL, other));
    CASE("execle 5") SHOW(execle(show, "0", "1", "2", "3", a, NULL, other));
    CASE("execle 9") SHOW(execle(show, "0", "1", "2", "3", "4", "5", "6", "7", a, NULL, empty));
    CASE("execl absent") SHOW(execl("/nothing", "0", "1", "2", "3", "4", "5", "6", NULL));
    CASE("execlp absent") SHOW(execlp("nothing", "0", NULL));
    CASE("execle absent") SHOW(execle("/nothing", "0", NULL, other));
}

static void vectors(const char *which, const char *show) {
    CASE("execv") SHOW(execv(show, argv_of));
    CASE("execvp") SHOW(execvp("show", argv_of));
    CASE("execve") SHOW(execve(show, argv_of, other));
    CASE("execve without an environment") SHOW(execve(show, argv_of, NULL));
    CASE("execvpe") SHOW(execvpe("show", argv_of, other));
    CASE("execve a directory") SHOW(execve("dir", argv_of, other));
    CASE("execve no program") SHOW(execve("file", argv_of, other));
    CASE("execvp an empty name") SHOW(execvp("", argv_of));
    CASE("fexecve") SHOW(fexecve(open(show, O_RDONLY), argv_of, other));
#ifdef __GLIBC__
    CASE("execveat") SHOW(execveat(AT_FDCWD, show, argv_of, other, 0));
#endif
    CASE("execveat by number") SHOW(syscall(SYS_execveat, AT_FDCWD, show, argv_of, other, 0));
    CASE("execve by number") SHOW(syscall(SYS_execve, show, argv_of, other));
    CASE("fork and exec") {
        pid_t child = fork();
        if (child == 0) execv(show, argv_of);
        show_end(child);
    }
    CASE("vfork and exec") {
        pid_t child = vfork();
        if (child == 0) {
            execve(show, argv_of, other);
            _exit(9);
        }
        show_end(child);
    }
    CASE("vfork and execl") {
        pid_t child = vfork();
        if (child == 0) {
            execl(show, "0", "1", "2", "3", "4", "5", "6", "7", NULL);
            _exit(9);
        }
        show_end(child);
    }
    CASE("exec after an absent one") {
        execv("/nothing", argv_of);
        execv(show, argv_of);
    }
}

static void spawns(const char *which, const char *show) {
    pid_t child = -5;
    CASE("posix_spawn") {
        int result = posix_spawn(&child, show, NULL, NULL, argv_of, other);
        show_end(child);
        SHOW(result);
    }
    CASE("posix_spawn without a place") {
        int result = posix_spawn(NULL, show, NULL, NULL, argv_of, environ);
        SHOW(wait(NULL) > 0);
        SHOW(result);
    }
    CASE("posix_spawnp") {
        int result = posix_spawnp(&child, "show", NULL, NULL, argv_of, environ);
        show_end(child);
        SHOW(result);
    }
    CASE("posix_spawn absent") {
        SHOW(posix_spawn(&child, "/nothing", NULL, NULL, argv_of, environ));
        SHOW(child);
    }
    CASE("posix_spawn with actions") {
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        SHOW(posix_spawn_file_actions_addopen(&actions, 0, "link", O_RDONLY, 0));
        SHOW(posix_spawn_file_actions_addopen(&actions, 5, "new", O_WRONLY | O_CREAT | O_TRUNC, 0600));
        int result = posix_spawn(&child, show, &actions, NULL, argv_of, environ);
        show_end(child);
        SHOW(result);
        SHOW(access("new", F_OK));
    }
}

/* Programs whose starter gives them a lead of its own, as the variables tell. */
static void leads(const char *which, const char *show) {
    if (!strstr(which, "with a lead")) return;
    char *own[] = {"A=1", getenv("LEAD"), "B=2", getenv("LEAD_PRELOAD"), NULL};
    pid_t child;
    CASE("execve with a lead") SHOW(execve(show, argv_of, own));
    CASE("execvpe with a lead") SHOW(execvpe("show", argv_of, own));
    CASE("execve by number with a lead") SHOW(syscall(SYS_execve, show, argv_of, own));
    CASE("execv with a lead") {
        putenv(own[1]);
        putenv(own[3]);
        SHOW(execv(show, argv_of));
    }
    CASE("posix_spawn with a lead") {
        int result = posix_spawn(&child, show, NULL, NULL, argv_of, own);
        show_end(child);
        SHOW(result);
    }
}

static void copies(const char *which) {
    CASE("clone by number") {
        pid_t child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (child == 0) _exit(open("file", O_RDONLY) >= 0 ? 5 : 6);
        show_end(child);
    }
#ifdef __x86_64__
    CASE("clone onto another stack") {
        static long stack[4096] __attribute__((aligned(16)));
        /* The child returns to what lies on its stack. */
        stack[4000] = (long)clone_lands;
        pid_t child = syscall(SYS_clone, CLONE_VM | SIGCHLD, &stack[4000], 0, 0, 0);
        show_end(child);
    }
#endif
}

static void loads(const char *which, const char *show, const char *plugin) {
    int (*function)(const char *);
    CASE("dlopen") {
        void *object = dlopen(plugin, RTLD_NOW);
        SHOW_POINTER(object);
        open("link", O_RDONLY);
        function = dlsym(object, "plugin");
        SHOW(function(show));
    }
    CASE("dlopen beside the program") {
        void *object = dlopen("plugin.so", RTLD_NOW);
        SHOW_POINTER(object);
    }
    CASE("dlopen absent") {
        SHOW_POINTER(dlopen("./nothing.so", RTLD_NOW));
        SHOW_TEXT(dlerror());
    }
    CASE("a plugin that starts a program") {
        function = dlsym(dlopen(plugin, RTLD_NOW), "plugin_starts");
        SHOW(function(show));
    }
#ifdef __GLIBC__
    CASE("dlmopen") SHOW_POINTER(dlmopen(LM_ID_NEWLM, plugin, RTLD_NOW));
#endif
}

int main(int argc, char **argv) {
    const char *which = argv[1], *show = argv[2], *plugin = argv[3];
    lists(which, show);
    vectors(which, show);
    spawns(which, show);
    leads(which, show);
    copies(which);
    loads(which, show, plugin);
    return 0;
}
