/* The load of `bench fanout` and `bench soak`: thousands of WebSocket clients in one thread, cheap enough to measure a
   server on the same machine. They look at frame headers and timestamps only; a torn frame shows all the same, since
   the next header is not where it must be.

   usage: fleet ADDRESS PORT REQUESTS_FILE
   REQUESTS_FILE has what a client asks for, as masked frames with zero for a mask; its number is written over each
   "#####" in them, so that clients may have stream ids of their own.

   Commands come on standard input, a line each, and each is answered by one line of JSON, or an error ends the program:

       connect COUNT AT_ONCE    shake hands with so many more clients, so many at a time
       slow COUNT               so many more clients that subscribe and never read
       subscribe                send the requests of every client that has not sent them
       receive MS QUIET_MS      read for so long, and on until nothing has come for QUIET_MS; a line more says that it begins
       leave                    cut the slow clients

   Clients are read between commands, too; only what comes during `receive` is counted. A frame's latency is the time from
   its own `timestamp`, which a server takes when it makes the frame, to the return of the recv() that brought its last
   byte, both by the wall clock of this machine. The last client's latency is the largest among the frames that share
   a timestamp.

   After each look at its sockets the fleet rests for PAUSE. Otherwise every frame would find it asleep: the server would
   pay for waking it up, and the fleet for two system calls and a switch a frame. Clients on machines of their own cost a
   server no such thing. A latency is longer by half the pause on average, whatever the server. */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CLIENTS = 1 << 14, MAX_REQUESTS = 1 << 16, BUFFER = 1 << 20, EVENTS = 1024, STDIN = MAX_CLIENTS };

enum { SLOW_BUFFER = 4096, SLOW_SEGMENT = 536 }; /* so that the server's socket is full after some 50 kB, not megabytes */

static const int64_t DAY_US = 86400000000, TIMED_US = 60000000;
static const double CONNECT_TIMEOUT_S = 10;
static const struct timespec PAUSE = {.tv_nsec = 200000};

struct client {
    int fd; /* -1 when the server has left it */
    bool is_open, is_slow, has_subscribed;
    double began;
    uint8_t *rest; /* the beginning of a frame */
    size_t rest_size;
};

static struct client clients[MAX_CLIENTS];
static int client_count, shaking, lost;
static double *shakes; /* seconds of each handshake of the current command */
static int shake_count;
static struct sockaddr_in server;
static char requests[MAX_REQUESTS], handshake[512];
static size_t requests_size;
static uint8_t buffer[BUFFER];
static int epoll;

/* What `receive` counts */
static bool is_counting;
static uint64_t frames, bytes;
enum { BIN_US = 10, BINS = 6000000 }; /* up to a minute */
static uint32_t latencies[BINS];
static uint64_t timed;
enum { ROUNDS = 1 << 18 };
static struct round { int64_t stamp, last; } rounds[ROUNDS]; /* by hash of the stamp; an empty place has the stamp 0 */
static int round_count;
static char today[10]; /* as timestamps have it: 2026-11-20 */

static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(1);
}

static double now_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static int64_t wall_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec * 1000000ll + now.tv_nsec / 1000;
}

static double cpu_s(void) {
    struct timespec spent;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return spent.tv_sec + spent.tv_nsec / 1e9;
}

/* Frames */

static int64_t digits(const uint8_t *text, int count) {
    int64_t value = 0;
    while (count--) value = value * 10 + *text++ - '0';
    return value;
}

static void time_frame(const uint8_t *text, size_t size, int64_t now) {
    static const char name[] = "\"timestamp\":\"";
    const uint8_t *found = memmem(text, size < 512 ? size : 512, name, sizeof name - 1);
    if (!found || found + sizeof name - 1 + 27 > text + size) return;
    found += sizeof name - 1; /* 2026-11-20T16:41:03.123456Z */
    int64_t stamp = ((digits(found + 11, 2) * 60 + digits(found + 14, 2)) * 60 + digits(found + 17, 2)) * 1000000 +
                    digits(found + 20, 6);
    int64_t latency = now % DAY_US - stamp;
    /* Another day's, or long ago: not the time at which it was made, but a recording's, say. */
    if (memcmp(found, today, sizeof today) || latency < 0 || latency >= TIMED_US) return;
    latencies[latency / BIN_US]++;
    timed++;
    stamp++; /* 0 is an empty place */
    uint32_t place = (uint64_t)stamp * 0x9e3779b97f4a7c15ull >> 46;
    while (rounds[place].stamp && rounds[place].stamp != stamp) place = (place + 1) % ROUNDS;
    if (!rounds[place].stamp) {
        if (++round_count > ROUNDS / 2) fail("too many distinct timestamps");
        rounds[place].stamp = stamp;
    }
    if (latency > rounds[place].last) rounds[place].last = latency;
}

static void take_text(const uint8_t *text, size_t size, size_t frame_size, int64_t now) {
    static const char data[] = "{\"type\":\"MarketData\"", error[] = "{\"type\":\"Error\"";
    if (size >= sizeof data - 1 && !memcmp(text, data, sizeof data - 1)) {
        if (!is_counting) return;
        frames++;
        bytes += frame_size;
        time_frame(text, size, now);
    } else if (size >= sizeof error - 1 && !memcmp(text, error, sizeof error - 1)) {
        fail("the server answered %.*s", (int)size, text);
    }
}

static void answer_ping(int fd, const uint8_t *payload, size_t size) {
    uint8_t pong[6 + 125] = {0x8a, 0x80 | size};
    memcpy(pong + 6, payload, size);
    send(fd, pong, 6 + size, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* Takes whole frames. Returns: how many bytes they have. */
static size_t take_frames(struct client *client, const uint8_t *data, size_t size, int64_t now) {
    size_t at = 0;
    while (size - at >= 2) {
        const uint8_t *head = data + at;
        size_t head_size = 2, length = head[1];
        if (length == 126) {
            if (size - at < (head_size = 4)) break;
            length = head[2] << 8 | head[3];
        } else if (length == 127) {
            if (size - at < (head_size = 10)) break;
            for (length = 0, head += 2; head < data + at + 10; head++) length = length << 8 | *head;
            head = data + at;
        }
        bool is_control = head[0] == 0x88 || head[0] == 0x89 || head[0] == 0x8a;
        if ((head[0] != 0x81 && !is_control) || head[1] > (is_control ? 125 : 127) || length > BUFFER - 10)
            fail("bytes %02x %02x where a frame must begin", head[0], head[1]);
        if (size - at < head_size + length) break;
        if (head[0] == 0x81)
            take_text(head + head_size, length, head_size + length, now);
        else if (head[0] == 0x89)
            answer_ping(client->fd, head + head_size, length);
        at += head_size + length;
    }
    return at;
}

/* Clients */

static void cut(struct client *client) {
    close(client->fd);
    client->fd = -1;
    free(client->rest);
    client->rest = NULL;
    client->rest_size = 0;
}

static void subscribe(struct client *client) {
    char text[MAX_REQUESTS], number[6];
    memcpy(text, requests, requests_size);
    snprintf(number, sizeof number, "%05d", (int)(client - clients));
    for (char *place = text; (place = memmem(place, text + requests_size - place, "#####", 5));)
        memcpy(place, number, 5);
    if (send(client->fd, text, requests_size, MSG_NOSIGNAL) != (ssize_t)requests_size) fail("requests: %s", strerror(errno));
    client->has_subscribed = true;
}

static void begin(bool is_slow) {
    if (client_count == MAX_CLIENTS) fail("too many clients");
    struct client *client = &clients[client_count];
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    if (fd < 0) fail("socket: %s", strerror(errno));
    if (is_slow) {
        int size = SLOW_BUFFER, segment = SLOW_SEGMENT;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
        setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct linger reset = {1, 0}; /* thousands of connections in TIME_WAIT would starve the next run of ports */
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    struct timeval patience = {.tv_sec = (time_t)CONNECT_TIMEOUT_S};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    *client = (struct client){.fd = fd, .is_slow = is_slow, .began = now_s()};
    if (connect(fd, (struct sockaddr *)&server, sizeof server)) fail("connect: %s", strerror(errno));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    size_t size = strlen(handshake);
    if (send(fd, handshake, size, MSG_NOSIGNAL) != (ssize_t)size) fail("handshake: %s", strerror(errno));
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = client_count++};
    epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    shaking++;
}

/* Returns: the size of the answer to the handshake, 0 when it is not there as a whole. */
static size_t shake_hands(struct client *client, size_t size) {
    uint8_t *end = memmem(buffer, size, "\r\n\r\n", 4);
    if (!end) return 0;
    static const char switching[] = "HTTP/1.1 101 ";
    if (memcmp(buffer, switching, sizeof switching - 1))
        fail("the handshake was answered %.*s", (int)strcspn((char *)buffer, "\r\n"), buffer);
    client->is_open = true;
    shaking--;
    if (shakes) shakes[shake_count++] = now_s() - client->began;
    if (client->is_slow) {
        epoll_ctl(epoll, EPOLL_CTL_DEL, client->fd, NULL);
        subscribe(client);
    }
    return end + 4 - buffer;
}

static void read_from(struct client *client) {
    size_t kept = client->rest_size, at = 0;
    if (kept) memcpy(buffer, client->rest, kept);
    ssize_t received = recv(client->fd, buffer + kept, BUFFER - kept, 0);
    if (received < 0 && errno == EAGAIN) return;
    if (received <= 0) {
        if (!client->is_open) fail("the server left a client during the handshake");
        cut(client);
        lost++;
        return;
    }
    int64_t now = wall_us();
    size_t size = kept + received;
    if (!client->is_open) at = shake_hands(client, size);
    if (client->is_open && !client->is_slow) at += take_frames(client, buffer + at, size - at, now);
    size_t rest = size - at;
    if (client->is_slow && client->is_open) rest = 0;
    if (rest != kept) client->rest = realloc(client->rest, rest ? rest : 1);
    if (rest) memcpy(client->rest, buffer + at, rest);
    client->rest_size = rest;
}

/* Reads what has come, waiting so long for the first of it. Returns: 1 when anything came, 2 when a command may have. */
static int wait_and_read(int timeout_ms) {
    static struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, timeout_ms), seen = 0;
    for (int i = 0; i < count; i++) {
        if (events[i].data.u32 == STDIN) {
            seen |= 2;
            continue;
        }
        read_from(&clients[events[i].data.u32]);
        seen |= 1;
    }
    if (seen & 1 && !shaking) nanosleep(&PAUSE, NULL);
    return seen;
}

/* Commands */

static int compare(const void *one, const void *other) {
    double difference = *(const double *)one - *(const double *)other;
    return (difference > 0) - (difference < 0);
}

/* The nearest rank of sorted values. */
static double percentile(const double *values, int count, double share) {
    int rank = (int)(share * count + 0.999999);
    return values[rank < 1 ? 0 : rank - 1];
}

static void connect_clients(int count, int at_once, bool is_slow) {
    shakes = calloc(count, sizeof *shakes);
    shake_count = 0;
    double started = now_s();
    for (int left = count; left || shaking;) {
        for (; left && shaking < at_once; left--) begin(is_slow);
        if (!(wait_and_read(100) & 1) && now_s() - clients[client_count - 1].began > CONNECT_TIMEOUT_S)
            fail("%d of %d clients not connected in %g s", left + shaking, count, CONNECT_TIMEOUT_S);
    }
    double seconds = now_s() - started;
    qsort(shakes, shake_count, sizeof *shakes, compare);
    printf("{\"seconds\":%.6f,\"p50_ms\":%.4f,\"p95_ms\":%.4f}\n", seconds, 1e3 * percentile(shakes, shake_count, 0.5),
           1e3 * percentile(shakes, shake_count, 0.95));
    free(shakes);
    shakes = NULL;
}

static double latency_ms(double share) {
    uint64_t rank = (uint64_t)(share * timed + 0.999999), passed = 0;
    for (int bin = 0; bin < BINS; bin++)
        if ((passed += latencies[bin]) >= rank && passed) return (bin + 0.5) * BIN_US / 1e3;
    return 0;
}

static void receive(int duration_ms, int quiet_ms) {
    frames = bytes = timed = round_count = 0;
    memset(latencies, 0, sizeof latencies);
    memset(rounds, 0, sizeof rounds);
    time_t wall = time(NULL);
    char text[sizeof today + 1];
    strftime(text, sizeof text, "%Y-%m-%d", gmtime(&wall));
    memcpy(today, text, sizeof today);
    is_counting = true;
    puts("{}");
    fflush(stdout);
    double started = now_s(), cpu_before = cpu_s(), end = started + duration_ms / 1e3, now;
    while ((now = now_s()) < end) wait_and_read((int)((end - now) * 1e3) + 1);
    /* The end of the next round; twice the duration of a server that is never quiet. */
    wait_and_read(duration_ms);
    while (now_s() < end + duration_ms / 1e3 && wait_and_read(quiet_ms) & 1) continue;
    is_counting = false;
    printf("{\"seconds\":%.6f,\"cpu_s\":%.6f,\"frames\":%lu,\"bytes\":%lu,\"lost\":%d", now_s() - started,
           cpu_s() - cpu_before, (unsigned long)frames, (unsigned long)bytes, lost);
    if (timed) {
        double *last = malloc(round_count * sizeof *last);
        int count = 0;
        for (int i = 0; i < ROUNDS; i++)
            if (rounds[i].stamp) last[count++] = rounds[i].last / 1e3;
        qsort(last, count, sizeof *last, compare);
        printf(",\"p50_ms\":%.3f,\"p99_ms\":%.3f,\"last_p50_ms\":%.3f,\"last_p99_ms\":%.3f", latency_ms(0.5), latency_ms(0.99),
               percentile(last, count, 0.5), percentile(last, count, 0.99));
        free(last);
    }
    puts("}");
}

/* Returns: whether there are more to come. */
static bool obey(void) {
    static char line[256];
    static size_t size;
    ssize_t received = read(STDIN_FILENO, line + size, sizeof line - 1 - size);
    if (received <= 0) return false;
    size += received;
    line[size] = 0;
    char *end = strchr(line, '\n');
    if (!end) return true; /* one command at a time: the caller waits for the answer */
    int first, second;
    if (sscanf(line, "connect %d %d", &first, &second) == 2) {
        connect_clients(first, second, false);
    } else if (sscanf(line, "slow %d", &first) == 1) {
        connect_clients(first, 16, true);
    } else if (!strcmp(line, "subscribe\n")) {
        for (int i = 0; i < client_count; i++)
            if (clients[i].fd >= 0 && !clients[i].has_subscribed) subscribe(&clients[i]);
        puts("{}");
    } else if (sscanf(line, "receive %d %d", &first, &second) == 2) {
        receive(first, second);
    } else if (!strcmp(line, "leave\n")) {
        for (int i = 0; i < client_count; i++)
            if (clients[i].fd >= 0 && clients[i].is_slow) cut(&clients[i]);
        puts("{}");
    } else {
        fail("no such command: %s", line);
    }
    fflush(stdout);
    size = 0;
    return true;
}

int main(int argc, char **argv) {
    if (argc != 4) fail("usage: fleet ADDRESS PORT REQUESTS_FILE");
    server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1) fail("%s is no IPv4 address", argv[1]);
    FILE *file = fopen(argv[3], "rb");
    if (!file) fail("%s: %s", argv[3], strerror(errno));
    requests_size = fread(requests, 1, sizeof requests, file);
    fclose(file);
    snprintf(handshake, sizeof handshake,
             "GET / HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
             /* The key of RFC 6455's example: the yardstick knows no other. */
             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
             argv[1], argv[2]);

    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);

    prctl(PR_SET_TIMERSLACK, 1000); /* ns; by default a short rest takes 50 µs longer */
    epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = STDIN};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event)) fail("standard input: %s", strerror(errno));
    for (;;)
        if (wait_and_read(-1) & 2 && !obey()) break;
    for (int i = 0; i < client_count; i++)
        if (clients[i].fd >= 0) cut(&clients[i]);
}
