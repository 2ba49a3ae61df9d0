/* What other programs start: prints its arguments and its environment, and opens a file. */
#include "case.h"

int main(int argc, char **argv) {
    printf("%d arguments\n", argc);
    for (int i = 0; i < argc; i++) printf("[%s]\n", argv[i]);
    for (char **variable = environ; *variable; variable++) printf("{%s}\n", *variable);
    fflush(stdout);
    return open("file", O_RDONLY) >= 0 ? 7 : 8;
}
