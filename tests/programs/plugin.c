/* What other programs load: its functions open files and read variables. */
#include "case.h"

int plugin(void) {
    SHOW(open("dir/inner", O_RDONLY));
    SHOW_TEXT(getenv("PLUGIN"));
    return 1;
}

int plugin_starts(const char *program) {
    char *argv[] = {"show", NULL};
    pid_t child = -1;
    int result = posix_spawn(&child, program, NULL, NULL, argv, environ);
    show_end(child);
    SHOW(result);
    return 1;
}
