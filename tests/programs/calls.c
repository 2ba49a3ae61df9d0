/* System calls by number, functions of older versions of glibc, and functions that are not followed. */
#include "case.h"
#include <ftw.h>
#include <sched.h>
#include <sys/mount.h>
#include <wordexp.h>
#ifdef __GLIBC__
#include <fts.h>
#endif

static struct stat st;
static char buffer[8192];

static int visit(const char *path, const struct stat *stat, int type) { return 0; }
static int visit_more(const char *path, const struct stat *stat, int type, struct FTW *ftw) {
    return 0;
}

static void numbers(const char *which) {
    int here = AT_FDCWD;
    CASE("openat") SHOW(syscall(SYS_openat, here, "file", O_RDONLY));
    CASE("openat2") {
        unsigned long long how[3] = {O_RDWR, 0, 0};
        SHOW(syscall(SYS_openat2, here, "file", how, sizeof how));
    }
    CASE("openat2 wrongly") {
        unsigned long long how[3] = {O_RDWR, 0, 0};
        SHOW(syscall(SYS_openat2, here, "file", how, 3));
    }
    CASE("openat2 of nothing") SHOW(syscall(SYS_openat2, here, "file", NULL, 24));
    CASE("newfstatat") {
        SHOW(syscall(SYS_newfstatat, here, "link", &st, 0));
        SHOW(syscall(SYS_newfstatat, here, "link", &st, AT_SYMLINK_NOFOLLOW));
    }
    CASE("statx") {
        SHOW(syscall(SYS_statx, here, "link", 0, 0x7ff, buffer));
        SHOW(syscall(SYS_statx, here, "link", AT_SYMLINK_NOFOLLOW, 0x7ff, buffer));
    }
    CASE("faccessat") SHOW(syscall(SYS_faccessat, here, "link", R_OK));
    CASE("faccessat2") SHOW(syscall(SYS_faccessat2, here, "link", R_OK, AT_SYMLINK_NOFOLLOW));
    CASE("readlinkat") SHOW(syscall(SYS_readlinkat, here, "link", buffer, 100));
    CASE("renameat2") SHOW(syscall(SYS_renameat2, here, "file", here, "new", 0));
    CASE("linkat") SHOW(syscall(SYS_linkat, here, "file", here, "new", 0));
    CASE("symlinkat") SHOW(syscall(SYS_symlinkat, "file", here, "new"));
    CASE("mkdirat") SHOW(syscall(SYS_mkdirat, here, "new", 0700));
    CASE("chdir") SHOW(syscall(SYS_chdir, "dir"));
    CASE("unlinkat") SHOW(syscall(SYS_unlinkat, here, "file", 0));
    CASE("fchmodat") SHOW(syscall(SYS_fchmodat, here, "file", 0600));
    CASE("fchownat") SHOW(syscall(SYS_fchownat, here, "file", -1, -1, 0));
    CASE("utimensat") {
        SHOW(syscall(SYS_utimensat, here, "file", NULL, 0));
        SHOW(syscall(SYS_utimensat, open("dir", O_RDONLY), NULL, NULL, 0));
    }
    CASE("mknodat") SHOW(syscall(SYS_mknodat, here, "new", S_IFIFO | 0600, 0));
    CASE("truncate") SHOW(syscall(SYS_truncate, "file", 3));
    CASE("lsetxattr") SHOW(syscall(SYS_lsetxattr, "link", "user.a", "b", 1, 0));
    CASE("changes by descriptor") {
        int file = open("file", O_RDWR);
        SHOW(syscall(SYS_ftruncate, file, 3));
        SHOW(syscall(SYS_fchmod, file, 0600));
        SHOW(syscall(SYS_fchown, file, -1, -1));
        SHOW(syscall(SYS_fchmod, 77, 0600));
    }
    CASE("getdents64") {
        SHOW(syscall(SYS_getdents64, open("dir", O_RDONLY), buffer, sizeof buffer) > 0);
        SHOW(syscall(SYS_getdents64, 77, buffer, sizeof buffer));
    }
    CASE("getcwd") {
        SHOW(syscall(SYS_getcwd, buffer, sizeof buffer) > 0);
        SHOW(syscall(SYS_getcwd, buffer, 2));
    }
    CASE("what is of no interest") {
        SHOW(syscall(SYS_getpid) == getpid());
        SHOW(syscall(SYS_lseek, 77, 0, 0));
        int pipes[2];
        SHOW(syscall(SYS_pipe2, pipes, 0));
        long long at = 0;
        /* Six arguments. */
        SHOW(syscall(SYS_splice, 77, &at, pipes[1], NULL, 16, 0));
        char *memory = (char *)syscall(SYS_mmap, 0, 4096, 3, 2, open("file", O_RDONLY), 0);
        SHOW(memory[0]);
        SHOW(syscall(100000));
    }
    CASE("io_uring_setup") SHOW(syscall(SYS_io_uring_setup, 0, NULL));
    CASE("open_by_handle_at by number") SHOW(syscall(SYS_open_by_handle_at, here, NULL, 0));
    CASE("chroot by number") SHOW(syscall(SYS_chroot, "/nothing"));
    CASE("unshare by number") SHOW(syscall(SYS_unshare, 0));
    CASE("setns by number") SHOW(syscall(SYS_setns, -1, 0));
    CASE("mount by number") SHOW(syscall(SYS_mount, "", "/nothing", "", 0, 0));
    CASE("pivot_root by number") SHOW(syscall(SYS_pivot_root, "/nothing", "/nothing"));
}

#ifndef __GLIBC__
static void of_musl(const char *which) {
    CASE("getdents of musl") SHOW(getdents(open("dir", O_RDONLY), (void *)buffer, 8192) > 0);
}
#endif

#ifdef __x86_64__
static void old_numbers(const char *which) {
    CASE("open") SHOW(syscall(SYS_open, "file", O_RDONLY));
    CASE("creat") SHOW(syscall(SYS_creat, "new", 0600));
    CASE("stat") SHOW(syscall(SYS_stat, "link", &st));
    CASE("lstat") SHOW(syscall(SYS_lstat, "link", &st));
    CASE("access") SHOW(syscall(SYS_access, "nothing", F_OK));
    CASE("readlink") SHOW(syscall(SYS_readlink, "link", buffer, 100));
    CASE("rename") SHOW(syscall(SYS_rename, "file", "new"));
    CASE("renameat") SHOW(syscall(SYS_renameat, AT_FDCWD, "file", AT_FDCWD, "new"));
    CASE("link") SHOW(syscall(SYS_link, "file", "new"));
    CASE("symlink") SHOW(syscall(SYS_symlink, "file", "new"));
    CASE("mkdir") SHOW(syscall(SYS_mkdir, "dir", 0700));
    CASE("unlink") SHOW(syscall(SYS_unlink, "file"));
    CASE("rmdir") SHOW(syscall(SYS_rmdir, "nothing"));
    CASE("chmod") SHOW(syscall(SYS_chmod, "file", 0600));
    CASE("chown") {
        SHOW(syscall(SYS_chown, "file", -1, -1));
        SHOW(syscall(SYS_lchown, "link", -1, -1));
    }
    CASE("utime") {
        SHOW(syscall(SYS_utime, "file", NULL));
        SHOW(syscall(SYS_utimes, "file", NULL));
    }
    CASE("mknod") SHOW(syscall(SYS_mknod, "new", S_IFIFO | 0600, 0));
    CASE("getdents") SHOW(syscall(SYS_getdents, open("dir", O_RDONLY), buffer, 8192) > 0);
}
#endif

#if defined __GLIBC__ && defined __x86_64__
extern int old_xstat(int, const char *, struct stat *);
extern int old_xstat64(int, const char *, struct stat *);
extern int old_lxstat(int, const char *, struct stat *);
extern int old_lxstat64(int, const char *, struct stat *);
extern int old_fxstatat(int, int, const char *, struct stat *, int);
extern int old_fxstatat64(int, int, const char *, struct stat *, int);
extern char *old_secure_getenv(const char *);
extern char *old_realpath(const char *, char *);
__asm__(".symver old_xstat, __xstat@GLIBC_2.2.5");
__asm__(".symver old_xstat64, __xstat64@GLIBC_2.2.5");
__asm__(".symver old_lxstat, __lxstat@GLIBC_2.2.5");
__asm__(".symver old_lxstat64, __lxstat64@GLIBC_2.2.5");
__asm__(".symver old_fxstatat, __fxstatat@GLIBC_2.4");
__asm__(".symver old_fxstatat64, __fxstatat64@GLIBC_2.4");
__asm__(".symver old_secure_getenv, __secure_getenv@GLIBC_2.2.5");
__asm__(".symver old_realpath, realpath@GLIBC_2.2.5");

static void old_functions(const char *which) {
    CASE("__xstat") SHOW(old_xstat(1, "link", &st));
    CASE("__xstat64") SHOW(old_xstat64(1, "link", &st));
    CASE("__lxstat") SHOW(old_lxstat(1, "link", &st));
    CASE("__lxstat64") SHOW(old_lxstat64(1, "nothing", &st));
    CASE("__fxstatat") SHOW(old_fxstatat(1, AT_FDCWD, "link", &st, AT_SYMLINK_NOFOLLOW));
    CASE("__fxstatat64") SHOW(old_fxstatat64(1, AT_FDCWD, "link", &st, 0));
    CASE("__secure_getenv") SHOW_TEXT(old_secure_getenv("HERE"));
    CASE("realpath of an old version") SHOW_POINTER(old_realpath("link", buffer));
}
#endif

static void unseen(const char *which) {
    glob_t found;
    wordexp_t words;
    unsigned handle[64] = {128};
    CASE("system") SHOW(system("cat file; env; exit 3"));
    CASE("popen") {
        FILE *pipe = popen("cat file; env", "r");
        printf("%zu\n", fread(buffer, 1, sizeof buffer, pipe));
        puts(buffer);
        SHOW(pclose(pipe));
    }
    CASE("ftw") SHOW(ftw("dir", visit, 5));
    CASE("nftw") SHOW(nftw("dir", visit_more, 5, FTW_PHYS));
    CASE("glob") SHOW(glob("d*", 0, NULL, &found));
    CASE("wordexp") SHOW(wordexp("d*", &words, WRDE_NOCMD));
    CASE("name_to_handle_at") SHOW(name_to_handle_at(AT_FDCWD, "file", (void *)handle, buffer, 0) >= -1);
    CASE("open_by_handle_at") SHOW(open_by_handle_at(77, (void *)handle, O_RDONLY));
    CASE("chroot") SHOW(chroot("/nothing"));
    CASE("unshare") SHOW(unshare(0));
    CASE("setns") SHOW(setns(-1, 0));
    CASE("mount") SHOW(mount("", "/nothing", "", 0, NULL));
#ifdef __GLIBC__
    struct dirent **entries;
    char *paths[] = {"dir", NULL};
    CASE("ftw64") SHOW(ftw64("dir", (void *)visit, 5));
    CASE("nftw64") SHOW(nftw64("dir", (void *)visit_more, 5, FTW_PHYS));
    CASE("glob64") SHOW(glob64("d*", 0, NULL, (void *)&found));
    CASE("scandirat") SHOW(scandirat(AT_FDCWD, "dir", &entries, NULL, NULL));
    CASE("scandirat64") SHOW(scandirat64(AT_FDCWD, "dir", (void *)&entries, NULL, NULL));
    CASE("fts_open") SHOW_POINTER(fts_open(paths, FTS_PHYSICAL, NULL));
    CASE("fts64_open") SHOW_POINTER(fts64_open(paths, FTS_PHYSICAL, NULL));
#endif
}

int main(int argc, char **argv) {
    const char *which = argv[1];
    numbers(which);
#ifndef __GLIBC__
    of_musl(which);
#endif
#ifdef __x86_64__
    old_numbers(which);
#endif
#if defined __GLIBC__ && defined __x86_64__
    old_functions(which);
#endif
    unseen(which);
    return 0;
}
