/* One call of each function that changes times, owners and the like of what it names, or makes what is no
 * file. Cases whose names begin with f open a file first. */
#include "case.h"
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <utime.h>

static void touching(const char *which) {
    CASE("utimensat") SHOW(utimensat(AT_FDCWD, "file", NULL, 0));
    CASE("utimensat absent") SHOW(utimensat(AT_FDCWD, "nothing", NULL, 0));
    CASE("utime") SHOW(utime("file", NULL));
    CASE("utimes") SHOW(utimes("file", NULL));
    CASE("lutimes") SHOW(lutimes("link", NULL));
    CASE("futimesat") SHOW(futimesat(AT_FDCWD, "file", NULL));
    CASE("chown") SHOW(chown("file", -1, -1));
    CASE("lchown") SHOW(lchown("link", -1, -1));
    CASE("fchownat") SHOW(fchownat(AT_FDCWD, "file", -1, -1, 0));
    CASE("fchownat a descriptor") SHOW(fchownat(open("dir", O_RDONLY), "", -1, -1, AT_EMPTY_PATH));
    CASE("setxattr") SHOW(setxattr("nothing", "user.a", "b", 1, 0));
    CASE("lsetxattr") SHOW(lsetxattr("nothing", "user.a", "b", 1, 0));
    CASE("mknod") SHOW(mknod("new", S_IFIFO | 0600, 0));
    CASE("mknodat") SHOW(mknodat(AT_FDCWD, "new", S_IFIFO | 0600, 0));
    CASE("mkfifo") SHOW(mkfifo("new", 0600));
    CASE("mkfifo what exists") SHOW(mkfifo("file", 0600));
    CASE("mkfifoat") SHOW(mkfifoat(AT_FDCWD, "new", 0600));
    int file = which[0] == 'f' ? open("file", O_RDWR) : -1;
    CASE("fchmod") SHOW(fchmod(file, 0600));
    CASE("fchown") SHOW(fchown(file, -1, -1));
    CASE("futimens") SHOW(futimens(file, NULL));
    CASE("futimes") SHOW(futimes(file, NULL));
    CASE("ftruncate") SHOW(ftruncate(file, 3));
    CASE("ftruncate64") SHOW(ftruncate64(file, 3));
    CASE("fchmod of nothing") SHOW(fchmod(77, 0600));
    CASE("ftruncate without a name") SHOW(ftruncate(memfd_create("memory", 0), 4096));
}

#if defined __GLIBC__ && defined __x86_64__
extern int old_xmknod(int, const char *, mode_t, dev_t *);
extern int old_xmknodat(int, int, const char *, mode_t, dev_t *);
__asm__(".symver old_xmknod, __xmknod@GLIBC_2.2.5");
__asm__(".symver old_xmknodat, __xmknodat@GLIBC_2.4");

static void old_functions(const char *which) {
    dev_t none = 0;
    CASE("__xmknod") SHOW(old_xmknod(0, "new", S_IFIFO | 0600, &none));
    CASE("__xmknodat") SHOW(old_xmknodat(0, AT_FDCWD, "new", S_IFIFO | 0600, &none));
}
#endif

int main(int argc, char **argv) {
    touching(argv[1]);
#if defined __GLIBC__ && defined __x86_64__
    old_functions(argv[1]);
#endif
    return 0;
}
