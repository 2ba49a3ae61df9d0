/* One call of each function that opens, looks at, lists or makes files. */
#include "case.h"
#include <ftw.h>
#include <sys/time.h>

static struct stat st;
#ifdef __GLIBC__
static struct statx stx;
#endif
static char buffer[8192];
static char name[64];

static char *template(const char *text) { return strcpy(name, text); }

/* Flags that the compiler does not know, so that the checking variants are called. */
static int flags(int bits) {
    volatile int unknown = bits;
    return unknown;
}

static int all(const struct dirent *entry) { return entry != NULL; }

static void opening(const char *which) {
    CASE("open") SHOW(open("file", O_RDONLY));
    CASE("open absent") SHOW(open("nothing", O_RDONLY));
    CASE("open below a file") SHOW(open("file/inner", O_RDONLY));
    CASE("open absolute") SHOW(open("/dev/null", O_RDONLY));
    CASE("open new") {
        umask(0);
        SHOW(open("new", O_WRONLY | O_CREAT | O_TRUNC, 0640));
        SHOW(fstat(3, &st));
        SHOW(st.st_mode);
    }
    CASE("open exclusive") SHOW(open("new", O_RDWR | O_CREAT | O_EXCL, 0600));
    CASE("open what exists") SHOW(open("file", O_RDWR | O_CREAT | O_EXCL, 0600));
    CASE("open for appending") SHOW(open("file", O_WRONLY | O_APPEND));
    CASE("open for appending what is new") SHOW(open("new", O_WRONLY | O_APPEND | O_CREAT | O_EXCL, 0600));
    CASE("open for reading and appending") SHOW(open("file", O_RDWR | O_APPEND));
    CASE("open for reading with the flag of appending") SHOW(open("file", O_RDONLY | O_APPEND));
    CASE("fopen ax") SHOW_POINTER(fopen("new", "ax"));
    CASE("open for both") SHOW(open("file", O_RDWR));
    CASE("open for writing what is absent") SHOW(open("nothing", O_WRONLY));
    CASE("open without a name") SHOW(open(".", O_TMPFILE | O_RDWR, 0600) >= -1);
    CASE("open a directory") SHOW(open("dir", O_RDONLY | O_DIRECTORY));
    CASE("open64") SHOW(open64("file", O_RDONLY));
    CASE("openat") SHOW(openat(AT_FDCWD, "file", O_RDONLY));
    CASE("openat a directory") {
        SHOW(open("dir", O_RDONLY | O_DIRECTORY));
        SHOW(openat(3, "inner", O_RDONLY));
    }
    CASE("openat absolute") SHOW(openat(-7, "/dev/null", O_RDONLY));
    CASE("openat of nothing") SHOW(openat(-7, "inner", O_RDONLY));
    CASE("openat64") SHOW(openat64(AT_FDCWD, "file", O_RDONLY));
    CASE("creat") SHOW(creat("new", 0600));
    CASE("creat64") SHOW(creat64("file", 0600));
    CASE("checked open") SHOW(open("file", flags(O_RDONLY)));
    CASE("checked open64") SHOW(open64("file", flags(O_RDONLY)));
    CASE("checked openat") SHOW(openat(AT_FDCWD, "file", flags(O_RDONLY)));
    CASE("checked openat64") SHOW(openat64(AT_FDCWD, "file", flags(O_RDONLY)));
    CASE("fopen r") SHOW_POINTER(fopen("file", "r"));
    CASE("fopen absent") SHOW_POINTER(fopen("nothing", "re"));
    CASE("fopen r+") SHOW_POINTER(fopen("file", "r+"));
    CASE("fopen w") SHOW_POINTER(fopen("new", "w"));
    CASE("fopen w+") SHOW_POINTER(fopen("new", "w+"));
    CASE("fopen wx") SHOW_POINTER(fopen("file", "wx"));
    CASE("fopen a") SHOW_POINTER(fopen("file", "a"));
    CASE("fopen a+") SHOW_POINTER(fopen("file", "a+"));
    CASE("fopen with a set of characters") SHOW_POINTER(fopen("file", "r,ccs=UTF-8"));
    CASE("fopen wrongly") SHOW_POINTER(fopen("file", "q"));
    CASE("fopen64") SHOW_POINTER(fopen64("file", "r"));
    CASE("freopen") SHOW_POINTER(freopen("file", "r", stdin));
    CASE("freopen64") SHOW_POINTER(freopen64("file", "r", stdin));
    CASE("freopen the same") SHOW_POINTER(freopen(NULL, "r", stdin));
    CASE("after chdir") {
        SHOW(chdir("dir"));
        SHOW(open("inner", O_RDONLY));
        SHOW(open("../file", O_RDONLY));
    }
    CASE("after fchdir") {
        SHOW(open("dir", O_RDONLY | O_DIRECTORY));
        SHOW(fchdir(3));
        SHOW(open("inner", O_RDONLY));
    }
    CASE("through a link") SHOW(open("dirlink/inner", O_RDONLY));
    CASE("what the system refuses to read") {
        SHOW(open((char *)1, O_RDONLY));
        SHOW(openat(AT_FDCWD, (char *)8, O_RDONLY));
        SHOW(stat((char *)1, &st));
        SHOW(access((char *)1, F_OK));
        SHOW(readlink((char *)1, buffer, 9));
        SHOW(rename((char *)1, (char *)2));
        SHOW(mkdir((char *)1, 0700));
        SHOW(syscall(SYS_openat, AT_FDCWD, 1, 0));
        SHOW(syscall(SYS_getcwd, 1, 4096));
        SHOW(execve((char *)1, environ, environ));
        SHOW(syscall(SYS_execve, 1, 0, 0));
        SHOW(posix_spawn(NULL, (char *)1, NULL, NULL, environ, environ));
    }
    CASE("no path at all") {
        const char *volatile none = NULL;
        SHOW(open(none, O_RDONLY));
        SHOW(openat(AT_FDCWD, none, O_RDONLY));
        SHOW_POINTER(fopen(none, "r"));
        SHOW(access(none, F_OK));
        SHOW(readlink(none, buffer, 9));
        SHOW_POINTER(realpath(none, NULL));
        SHOW(mkdir(none, 0700));
        SHOW(syscall(SYS_openat, AT_FDCWD, NULL, 0));
        SHOW(execve(none, environ, environ));
        SHOW_POINTER(dlopen(NULL, RTLD_NOW));
    }
    CASE("errors stay") {
        errno = 77;
        int fd = open("file", O_RDONLY);
        printf("%d %d\n", fd, errno);
        getenv("X");
        printf("%d\n", errno);
        access("dir", F_OK);
        printf("%d\n", errno);
    }
}

static void looking(const char *which) {
    CASE("stat") SHOW(stat("link", &st));
    CASE("stat absent") SHOW(stat("nothing", &st));
    CASE("stat64") SHOW(stat64("file", (struct stat64 *)&st));
    CASE("lstat") SHOW(lstat("link", &st));
    CASE("lstat64") SHOW(lstat64("link", (struct stat64 *)&st));
    CASE("fstatat") SHOW(fstatat(AT_FDCWD, "link", &st, 0));
    CASE("fstatat a link") SHOW(fstatat(AT_FDCWD, "link", &st, AT_SYMLINK_NOFOLLOW));
    CASE("fstatat a descriptor") {
        SHOW(open("file", O_RDONLY));
        SHOW(fstatat(3, "", &st, AT_EMPTY_PATH));
    }
    CASE("fstatat64") SHOW(fstatat64(AT_FDCWD, "file", (struct stat64 *)&st, 0));
#ifdef __GLIBC__
    CASE("statx") SHOW(statx(AT_FDCWD, "link", 0, STATX_SIZE, &stx));
    CASE("statx a link") SHOW(statx(AT_FDCWD, "link", AT_SYMLINK_NOFOLLOW, STATX_SIZE, &stx));
    CASE("canonicalize_file_name") SHOW_POINTER(canonicalize_file_name("link"));
    CASE("renameat2") SHOW(renameat2(AT_FDCWD, "file", AT_FDCWD, "new", RENAME_NOREPLACE));
#endif
    CASE("access") SHOW(access("file", R_OK));
    CASE("access absent") SHOW(access("nothing", F_OK));
    CASE("eaccess") SHOW(eaccess("file", R_OK));
    CASE("euidaccess") SHOW(euidaccess("file", R_OK));
    CASE("faccessat") SHOW(faccessat(AT_FDCWD, "link", R_OK, 0));
    CASE("faccessat a link") SHOW(faccessat(AT_FDCWD, "link", F_OK, AT_SYMLINK_NOFOLLOW));
    CASE("chdir") SHOW(chdir("dirlink"));
    CASE("chdir absent") SHOW(chdir("nothing"));
    CASE("opendir") SHOW_POINTER(opendir("dir"));
    CASE("opendir absent") SHOW_POINTER(opendir("nothing"));
    CASE("fdopendir") SHOW_POINTER(fdopendir(open("dir", O_RDONLY | O_DIRECTORY)));
    CASE("fdopendir a file") SHOW_POINTER(fdopendir(open("file", O_RDONLY)));
    struct dirent **entries;
    CASE("scandir") SHOW(scandir("dir", &entries, all, NULL));
    CASE("scandir64")
        SHOW(scandir64("dir", (struct dirent64 ***)&entries, NULL, NULL));
    CASE("getdents64") SHOW(getdents64(open("dir", O_RDONLY), buffer, sizeof buffer) > 0);
    CASE("readlink") {
        SHOW(readlink("link", buffer, sizeof buffer));
        SHOW(readlink("file", buffer, sizeof buffer));
    }
    CASE("readlinkat") SHOW(readlinkat(AT_FDCWD, "link", buffer, sizeof buffer));
    CASE("checked readlink") SHOW(readlink("link", buffer, (size_t)flags(100)));
    CASE("checked readlinkat") SHOW(readlinkat(AT_FDCWD, "link", buffer, (size_t)flags(100)));
    CASE("realpath") SHOW_POINTER(realpath("link", buffer));
    CASE("realpath with its own memory") SHOW_POINTER(realpath("link", NULL));
    CASE("realpath absent") SHOW_POINTER(realpath("nothing", NULL));
    CASE("getcwd") SHOW_POINTER(getcwd(buffer, sizeof buffer));
    CASE("getcwd with its own memory") SHOW_POINTER(getcwd(NULL, 0));
    CASE("getcwd too small") SHOW_POINTER(getcwd(buffer, 2));
    CASE("checked getcwd") SHOW_POINTER(getcwd(buffer, (size_t)flags(4096)));
    CASE("get_current_dir_name") SHOW_POINTER(get_current_dir_name());
    CASE("getenv") {
        SHOW_TEXT(getenv("HERE"));
        SHOW_TEXT(getenv("NOT_HERE"));
        SHOW_TEXT(getenv(""));
        SHOW_TEXT(getenv("HERE=x"));
    }
    CASE("secure_getenv") SHOW_TEXT(secure_getenv("HERE"));
}

static void making(const char *which) {
    CASE("rename") SHOW(rename("file", "new"));
    CASE("rename absent") SHOW(rename("nothing", "new"));
    CASE("renameat") SHOW(renameat(AT_FDCWD, "file", AT_FDCWD, "new"));
    CASE("link") SHOW(link("file", "new"));
    CASE("link to what exists") SHOW(link("file", "link"));
    CASE("linkat") SHOW(linkat(AT_FDCWD, "link", AT_FDCWD, "new", AT_SYMLINK_FOLLOW));
    CASE("symlink") SHOW(symlink("file", "new"));
    CASE("symlinkat") SHOW(symlinkat("file", AT_FDCWD, "new"));
    CASE("mkdir") SHOW(mkdir("new", 0700));
    CASE("mkdir what exists") SHOW(mkdir("dir", 0700));
    CASE("mkdirat") SHOW(mkdirat(open("dir", O_PATH), "new", 0700));
    CASE("mkdtemp") SHOW_POINTER(mkdtemp(template("t.XXXXXX")));
    CASE("mkstemp") SHOW(mkstemp(template("t.XXXXXX")));
    CASE("mkstemp64") SHOW(mkstemp64(template("t.XXXXXX")));
    CASE("mkostemp") SHOW(mkostemp(template("t.XXXXXX"), O_CLOEXEC));
    CASE("mkostemp64") SHOW(mkostemp64(template("t.XXXXXX"), O_CLOEXEC));
    CASE("mkstemps") SHOW(mkstemps(template("t.XXXXXX.x"), 2));
    CASE("mkstemps64") SHOW(mkstemps64(template("t.XXXXXX.x"), 2));
    CASE("mkostemps") SHOW(mkostemps(template("t.XXXXXX.x"), 2, O_CLOEXEC));
    CASE("mkostemps64") SHOW(mkostemps64(template("t.XXXXXX.x"), 2, O_CLOEXEC));
    CASE("mkstemp wrongly") SHOW(mkstemp(template("t")));
}

int main(int argc, char **argv) {
    const char *which = argc > 1 ? argv[1] : "";
    opening(which);
    looking(which);
    making(which);
    return 0;
}
