/* One call of each function that reaches others, over the network or a socket of this machine. */
#include "case.h"
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un name_of(const char *path) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strcpy(name.sun_path, path);
    return name;
}

static struct sockaddr_in port(int number) {
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(number)};
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return name;
}

#define NAME(of) (struct sockaddr *)&(of), sizeof(of)

static int inet(int kind) { return socket(AF_INET, kind, 0); }
static int unix_socket(int kind) { return socket(AF_UNIX, kind, 0); }

static char buffer[8192];

static void sockets(const char *which) {
    struct sockaddr_un nothing = name_of("/nothing"), here = name_of("socket");
    struct sockaddr_un abstract = {.sun_family = AF_UNIX, .sun_path = "\0kiln-nobody"};
    struct sockaddr_in closed = port(1), any = port(0), nowhere = {.sin_family = AF_UNSPEC};
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(1)};
    six.sin6_addr = in6addr_loopback;
    socklen_t abstract_len = offsetof(struct sockaddr_un, sun_path) + 12;
    struct iovec text = {"text", 4};
    struct msghdr message = {.msg_iov = &text, .msg_iovlen = 1};
    struct msghdr addressed = {&closed, sizeof closed, &text, 1};
    struct mmsghdr messages[2] = {{addressed}, {{&nothing, sizeof nothing, &text, 1}}};
    int pair[2];

    CASE("connect") SHOW(connect(inet(SOCK_STREAM), NAME(closed)));
    CASE("connect by another version") SHOW(connect(socket(AF_INET6, SOCK_STREAM, 0), NAME(six)) <= 0);
    CASE("connect at once") SHOW(connect(inet(SOCK_STREAM | SOCK_NONBLOCK), NAME(closed)) <= 0);
    CASE("connect to a socket") SHOW(connect(unix_socket(SOCK_STREAM), NAME(nothing)));
    CASE("connect to a socket here") SHOW(connect(unix_socket(SOCK_STREAM), NAME(here)));
    CASE("connect to an abstract socket")
        SHOW(connect(unix_socket(SOCK_STREAM), (struct sockaddr *)&abstract, abstract_len));
    CASE("connect to nowhere") SHOW(connect(inet(SOCK_DGRAM), NAME(nowhere)));
    CASE("connect to another family") {
        struct sockaddr other = {.sa_family = AF_NETLINK};
        SHOW(connect(socket(AF_NETLINK, SOCK_RAW, 0), (struct sockaddr *)&other, 12));
    }
    CASE("what the system refuses to read") {
        SHOW(connect(inet(SOCK_STREAM), (void *)1, 16));
        SHOW(connect(77, (void *)1, 16));
        SHOW(connect(inet(SOCK_STREAM), NULL, 0));
        SHOW(connect(inet(SOCK_STREAM), NAME(closed) * 100));
        SHOW(bind(77, (void *)1, 16));
        SHOW(sendto(77, "a", 1, 0, (void *)1, 16));
        SHOW(sendmsg(77, (void *)1, 0));
        SHOW(sendmmsg(77, (void *)1, 3, 0));
        SHOW(listen(77, 1));
        SHOW(syscall(SYS_connect, 77, 1, 16));
        SHOW(syscall(SYS_sendmsg, 77, 1, 0));
    }
    CASE("bind") SHOW(bind(inet(SOCK_STREAM), NAME(any)));
    CASE("bind a socket") SHOW(bind(unix_socket(SOCK_STREAM), NAME(here)));
    CASE("listen") SHOW(listen(inet(SOCK_STREAM), 1));
    CASE("sendto") SHOW(sendto(inet(SOCK_DGRAM), "text", 4, 0, NAME(closed)));
    CASE("sendto a socket") SHOW(sendto(unix_socket(SOCK_DGRAM), "text", 4, 0, NAME(nothing)));
    CASE("sendmsg") SHOW(sendmsg(inet(SOCK_DGRAM), &addressed, 0));
    CASE("sendmmsg") SHOW(sendmmsg(inet(SOCK_DGRAM), messages, 1, 0));
    CASE("a pair") {
        SHOW(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
        SHOW(send(pair[0], "text", 4, 0));
        SHOW(sendto(pair[0], "text", 4, 0, NULL, 0));
        SHOW(sendmsg(pair[0], &message, 0));
        SHOW(recv(pair[1], buffer, 12, MSG_WAITALL));
        SHOW(pipe(pair));
        SHOW(write(pair[1], "text", 4));
    }
    CASE("by number") {
        SHOW(syscall(SYS_connect, inet(SOCK_DGRAM), NAME(closed)));
        SHOW(syscall(SYS_bind, unix_socket(SOCK_STREAM), NAME(here)));
        SHOW(syscall(SYS_sendto, unix_socket(SOCK_DGRAM), "text", 4, 0, NAME(nothing)));
    }
}

static void names(const char *which) {
    struct addrinfo *found, hints = {.ai_flags = AI_NUMERICHOST};
    struct hostent host, *at;
    int error;
    CASE("getaddrinfo") {
        SHOW(getaddrinfo("127.0.0.1", "80", &hints, &found));
        SHOW(ntohs(((struct sockaddr_in *)found->ai_addr)->sin_port));
    }
    CASE("getaddrinfo of no name") SHOW(getaddrinfo(NULL, "80", NULL, &found));
    CASE("gethostbyname") SHOW_POINTER(gethostbyname("127.0.0.1"));
    CASE("gethostbyname2") SHOW_POINTER(gethostbyname2("127.0.0.1", AF_INET));
    CASE("gethostbyname_r") {
        SHOW(gethostbyname_r("127.0.0.1", &host, buffer, sizeof buffer, &at, &error));
        SHOW_TEXT(at->h_name);
    }
    CASE("gethostbyname2_r") {
        SHOW(gethostbyname2_r("127.0.0.1", AF_INET, &host, buffer, sizeof buffer, &at, &error));
        SHOW_TEXT(at->h_name);
    }
}

int main(int argc, char **argv) {
    sockets(argv[1]);
    names(argv[1]);
    return 0;
}
