/* One call of each function that removes or changes what it names, and of those that read files and
 * variables inside libc. */
#include "case.h"
#include <grp.h>
#include <locale.h>
#include <pwd.h>
#include <time.h>

static char buffer[8192];
static const time_t moment = 86400;
static struct tm then;

static void changing(const char *which) {
    CASE("unlink") SHOW(unlink("file"));
    CASE("unlink absent") SHOW(unlink("nothing"));
    CASE("unlinkat") SHOW(unlinkat(AT_FDCWD, "file", 0));
    CASE("rmdir") SHOW(rmdir("nothing"));
    CASE("remove") SHOW(remove("link"));
    CASE("truncate") SHOW(truncate("file", 0));
    CASE("truncate64") SHOW(truncate64("nothing", 0));
    CASE("chmod") SHOW(chmod("file", 0600));
    CASE("fchmodat") SHOW(fchmodat(AT_FDCWD, "file", 0600, 0));
}

static void clock_time(const char *which) {
    CASE("localtime") SHOW(localtime(&moment)->tm_hour);
    CASE("localtime_r") SHOW_POINTER(localtime_r(&moment, &then));
    CASE("mktime") SHOW(mktime(&then));
    CASE("timelocal") SHOW(timelocal(&then));
    CASE("tzset") {
        tzset();
        SHOW(daylight);
    }
    CASE("ctime") SHOW_TEXT(ctime(&moment));
    CASE("ctime_r") SHOW_TEXT(ctime_r(&moment, buffer));
    CASE("strftime") SHOW(strftime(buffer, sizeof buffer, "%H", &then));
    CASE("strftime_l") {
        locale_t own = newlocale(LC_ALL_MASK, "C", NULL);
        SHOW(strftime_l(buffer, sizeof buffer, "%H", &then, own));
    }
}

static void people(const char *which) {
    struct passwd user, *found;
    struct group group, *group_found;
    CASE("getpwnam") SHOW_POINTER(getpwnam("root"));
    CASE("getpwuid") SHOW_POINTER(getpwuid(0));
    CASE("getpwnam_r") SHOW(getpwnam_r("root", &user, buffer, sizeof buffer, &found));
    CASE("getpwuid_r") SHOW(getpwuid_r(0, &user, buffer, sizeof buffer, &found));
    CASE("getgrnam") SHOW_POINTER(getgrnam("root"));
    CASE("getgrgid") SHOW_POINTER(getgrgid(0));
    CASE("getgrnam_r") SHOW(getgrnam_r("root", &group, buffer, sizeof buffer, &group_found));
    CASE("getgrgid_r") SHOW(getgrgid_r(0, &group, buffer, sizeof buffer, &group_found));
}

int main(int argc, char **argv) {
    const char *which = argc > 1 ? argv[1] : "";
    changing(which);
    clock_time(which);
    people(which);
    CASE("setlocale") SHOW_POINTER(setlocale(LC_ALL, ""));
    CASE("setlocale told") SHOW_POINTER(setlocale(LC_ALL, "C"));
    CASE("newlocale") SHOW_POINTER(newlocale(LC_ALL_MASK, "", NULL));
    return 0;
}
