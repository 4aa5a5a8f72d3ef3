/* The yardstick of `bench fanout`: the least that a server in C does to send the same bytes to many clients.

   It answers every WebSocket handshake with the same bytes, then writes the same frames to every client each interval, one
   send() a client; only their timestamps are those of the round. No feed, no encoding, no requests, no slow clients:
   one that does not take its frames whole is cut.

   usage: send_loop MESSAGES_FILE INTERVAL_MS
   MESSAGES_FILE has one message a line. Prints where it listens, on 127.0.0.1 at a free port, and ends when its
   standard input does. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PAYLOAD = 16 << 20, MAX_MESSAGES = 64, MAX_FD = 1 << 16, BACKLOG = 4096, EVENTS = 1024 };

/* The answer to the key that the load generator sends, which is the example of RFC 6455. */
static const char ANSWER[] =
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

static char payload[MAX_PAYLOAD]; /* the frames of one round, joined */
static size_t payload_size;
static char *stamps[MAX_MESSAGES]; /* where their timestamps stand */
static int stamp_count;

static int clients[MAX_FD]; /* the sockets that get the payload */
static int client_count;
static int place[MAX_FD]; /* where in `clients` a socket stands, plus 1; 0 before its handshake */

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static void cut(int fd) {
    if (place[fd]) {
        int last = clients[--client_count];
        clients[place[fd] - 1] = last;
        place[last] = place[fd];
        place[fd] = 0;
    }
    close(fd);
}

static void accept_all(int listener, int epoll) {
    int fd, on = 1, lowat = 16384; /* the options that trio sets */
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (fd >= MAX_FD) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof lowat);
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

/* The first thing a client says is its handshake, which fits one packet; whatever follows is not read into. */
static void listen_to(int fd) {
    char said[65536];
    if (recv(fd, said, sizeof said, 0) <= 0) {
        cut(fd);
    } else if (!place[fd]) {
        if (send(fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL) != (ssize_t)sizeof ANSWER - 1) {
            cut(fd);
            return;
        }
        clients[client_count++] = fd;
        place[fd] = client_count;
    }
}

static void add_frame(const char *text, size_t size) {
    static const char name[] = "\"timestamp\":\"";
    if (payload_size + 10 + size > MAX_PAYLOAD || stamp_count == MAX_MESSAGES) {
        fprintf(stderr, "too many messages\n");
        exit(1);
    }
    char *frame = payload + payload_size;
    *frame++ = (char)0x81;
    int length_bytes = size < 126 ? 0 : size < 65536 ? 2 : 8;
    *frame++ = length_bytes == 0 ? (char)size : length_bytes == 2 ? 126 : 127;
    for (int i = length_bytes - 1; i >= 0; i--) *frame++ = (char)(size >> 8 * i);
    memcpy(frame, text, size);
    char *stamp = memmem(frame, size, name, sizeof name - 1);
    if (stamp) stamps[stamp_count++] = stamp + sizeof name - 1;
    payload_size = frame + size - payload;
}

static void read_messages(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    char *line = NULL;
    size_t room = 0;
    for (ssize_t size; (size = getline(&line, &room, file)) > 0;) add_frame(line, line[size - 1] == '\n' ? size - 1 : size);
    free(line);
    fclose(file);
}

/* Timestamps with microseconds, such as 2026-11-20T16:41:03.123456Z; all have the same length. */
static void stamp_frames(void) {
    struct timespec now;
    struct tm utc;
    char text[64];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t size = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    size += snprintf(text + size, sizeof text - size, ".%06ldZ", now.tv_nsec / 1000);
    for (int i = 0; i < stamp_count; i++) memcpy(stamps[i], text, size);
}

static void send_to_all(void) {
    stamp_frames();
    for (int i = client_count - 1; i >= 0; i--) /* backwards: a cut moves the last client into the gap */
        if (send(clients[i], payload, payload_size, MSG_NOSIGNAL) != (ssize_t)payload_size) cut(clients[i]);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "usage: send_loop MESSAGES_FILE INTERVAL_MS\n");
        return 2;
    }
    read_messages(argv[1]);
    uint64_t interval_ns = strtoull(argv[2], NULL, 10) * 1000000ull;

    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);

    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, BACKLOG)) fail("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);

    int epoll = epoll_create1(0);
    struct epoll_event stdin_event = {.events = EPOLLIN, .data.fd = STDIN_FILENO};
    struct epoll_event listener_event = {.events = EPOLLIN, .data.fd = listener};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &stdin_event)) fail("standard input");
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &listener_event);
    printf("Serving on ws://127.0.0.1:%d/\n", ntohs(address.sin_port));
    fflush(stdout);

    uint64_t due = now_ns() + interval_ns;
    for (;;) {
        struct epoll_event events[EVENTS];
        int64_t wait_ns = (int64_t)(due - now_ns());
        int count = epoll_wait(epoll, events, EVENTS, wait_ns > 0 ? (wait_ns + 999999) / 1000000 : 0);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == STDIN_FILENO) return 0;
            if (fd == listener)
                accept_all(listener, epoll);
            else
                listen_to(fd);
        }
        if (now_ns() >= due) {
            send_to_all();
            do due += interval_ns;
            while (due <= now_ns()); /* a round that took too long skips those it overran */
        }
    }
}
