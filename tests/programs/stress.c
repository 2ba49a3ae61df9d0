/* Many threads and processes that open files at once. The second argument says how many names. */
#include "case.h"
#include <pthread.h>
#include <sys/time.h>

static int count;
static volatile sig_atomic_t signals;

static void open_number(const char *stem, int number) {
    char name[64];
    snprintf(name, sizeof name, "%s%d", stem, number);
    int fd = open(name, O_RDONLY);
    if (fd >= 0) close(fd);
}

/* Each name many times, from all threads. */
static void *few(void *unused) {
    for (int i = 0; i < 4000; i++) open_number("few", i % count);
    return unused;
}

/* Names of each thread's own, twice. */
static void *many(void *thread) {
    char stem[32];
    snprintf(stem, sizeof stem, "many%ld-", (long)thread);
    for (int i = 0; i < 2 * count; i++) open_number(stem, i % count);
    return NULL;
}

static void threads(void *(*run)(void *)) {
    pthread_t all[8];
    for (long i = 0; i < 8; i++) pthread_create(&all[i], NULL, run, (void *)i);
    for (int i = 0; i < 8; i++) pthread_join(all[i], NULL);
}

static void on_alarm(int number) {
    int error = errno;
    signals++;
    open_number("signal", signals % 100);
    getenv("SIGNAL");
    errno = error;
    (void)number;
}

int main(int argc, char **argv) {
    const char *which = argv[1];
    count = atoi(argv[2]);
    CASE("few") threads(few);
    CASE("many") threads(many);
    CASE("forks") {
        for (int i = 0; i < count; i++) {
            if (fork() == 0) {
                open_number("fork", i);
                for (int j = 0; j < 20; j++) open_number("shared", j);
                _exit(0);
            }
        }
        while (wait(NULL) > 0) {}
    }
    CASE("execs") {
        char rest[16];
        open_number("exec", count);
        snprintf(rest, sizeof rest, "%d", count - 1);
        if (count > 0) execl("/proc/self/exe", "stress", which, rest, NULL);
    }
    CASE("signals") {
        struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
        struct itimerval often = {{0, 100}, {0, 100}}, never = {{0, 0}, {0, 0}};
        sigaction(SIGALRM, &action, NULL);
        setitimer(ITIMER_REAL, &often, NULL);
        for (int i = 0; signals < 200; i++) open_number("main", i % count);
        setitimer(ITIMER_REAL, &never, NULL);
    }
    return 0;
}
