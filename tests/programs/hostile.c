/* Names as nobody chooses them, and programs at the edge of what they may have. */
#include "case.h"
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/resource.h>

static char input[1 << 20];

/* Goes through the names in standard input, each with a zero behind it. */
static void each_name(void (*use)(const char *)) {
    size_t len = 0;
    ssize_t got;
    while ((got = read(0, input + len, sizeof input - len)) > 0) len += got;
    for (char *name = input; name < input + len; name += strlen(name) + 1) use(name);
}

static void open_name(const char *name) {
    int fd = open(name, O_RDONLY | O_NONBLOCK);
    printf("%d %d\n", fd, fd < 0 ? errno : 0);
    if (fd >= 0) close(fd);
}

static void get_name(const char *name) { printf("%d\n", getenv(name) != NULL); }

static void names(const char *which) {
    CASE("open names") each_name(open_name);
    CASE("get variables") each_name(get_name);
    CASE("deep directories") {
        char name[201];
        memset(name, 'd', 200);
        name[200] = 0;
        for (int depth = 0; depth < 22; depth++) {
            if (mkdir(name, 0700) || chdir(name)) printf("%d\n", errno);
            if (depth == 10 || depth == 21) SHOW(open("here", O_RDONLY));
        }
    }
}

static void *open_in_thread(void *unused) {
    (void)unused;
    SHOW(open("file", O_RDONLY) >= 0);
    SHOW(access("/nothing", F_OK));
    SHOW_TEXT(getenv("HERE"));
    char *argv[] = {"show", NULL};
    pid_t child = -1;
    int result = posix_spawnp(&child, "show", NULL, NULL, argv, environ);
    show_end(child);
    SHOW(result);
    return NULL;
}

static volatile int blocked_thread;

static void *blocked(void *unused) {
    (void)unused;
    blocked_thread = syscall(SYS_gettid);
    open("fifo", O_RDONLY);
    return NULL;
}

/* Waits until that thread waits in `open`. */
static void wait_for_blocked(void) {
    char name[64], state = 0;
    while (blocked_thread == 0) sched_yield();
    snprintf(name, sizeof name, "/proc/self/task/%d/stat", blocked_thread);
    while (state != 'S') {
        FILE *stat = fopen(name, "r");
        if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1) abort();
        fclose(stat);
    }
}

static void on_signal(int number) {
    (void)number;
    int fd = open("file", O_RDONLY);
    if (fd >= 0) close(fd);
    access("nothing", F_OK);
}

static void run_show(void) {
    char *argv[] = {"show", NULL};
    pid_t child = fork();
    if (child == 0) {
        execvp("show", argv);
        _exit(9);
    }
    show_end(child);
}

static void limits(const char *which) {
    CASE("no memory") {
        struct rlimit limit = {1, 1};
        SHOW(setrlimit(RLIMIT_AS, &limit));
        SHOW(open("file", O_RDONLY));
        SHOW(open("link", O_RDONLY));
        run_show();
    }
    CASE("no memory for long") {
        char name[201];
        memset(name, 'd', 200);
        name[200] = 0;
        for (int depth = 0; depth < 5; depth++) {
            if (mkdir(name, 0700) || chdir(name)) printf("%d\n", errno);
        }
        struct rlimit limit = {1, 1};
        SHOW(setrlimit(RLIMIT_AS, &limit));
        SHOW(open("here", O_RDONLY));
    }
    CASE("no descriptors") {
        struct rlimit limit = {3, 3};
        SHOW(setrlimit(RLIMIT_NOFILE, &limit));
        SHOW(open("file", O_RDONLY));
        SHOW(access("file", F_OK));
        run_show();
    }
    CASE("descriptors closed") {
        SHOW(syscall(436, 3, ~0U, 0));
        SHOW(open("file", O_RDONLY));
        run_show();
    }
    CASE("small stacks") {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        SHOW(pthread_attr_setstacksize(&attributes, 16384));
        pthread_t thread;
        int result = pthread_create(&thread, &attributes, open_in_thread, NULL);
        SHOW(pthread_join(thread, NULL));
        SHOW(result);
    }
    CASE("a signal's stack") {
        stack_t stack = {malloc(16384), 0, 16384};
        struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
        SHOW(sigaltstack(&stack, NULL));
        SHOW(sigaction(SIGUSR1, &action, NULL));
        SHOW(raise(SIGUSR1));
    }
    CASE("a thread that is cancelled") {
        pthread_t thread;
        void *end = NULL;
        SHOW(mkfifo("fifo", 0600));
        SHOW(pthread_create(&thread, NULL, blocked, NULL));
        wait_for_blocked();
        SHOW(pthread_cancel(thread));
        SHOW(pthread_join(thread, &end));
        SHOW(end == PTHREAD_CANCELED);
    }
    CASE("files") {
        SHOW(open("file", O_RDONLY));
        SHOW(open("nothing", O_RDONLY));
        SHOW_TEXT(getenv("HERE"));
        SHOW_TEXT(getenv("LD_PRELOAD"));
        SHOW_TEXT(getenv("KILN_OBSERVER"));
        run_show();
    }
}

int main(int argc, char **argv) {
    const char *which = argv[1];
    names(which);
    limits(which);
    return 0;
}
