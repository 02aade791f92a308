#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

// What lib/libc.ts does for one call, n times over: clear the buffer, call, keep the errno. Nanoseconds for all.

static struct sockaddr_storage answer;
static socklen_t optlen;
static volatile int reason;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e9 + time.tv_nsec;
}

double loop_getpeername(int fd, int n) {
  double start = now();
  for (int i = 0; i < n; i++) {
    memset(&answer, 0, sizeof(answer));
    optlen = sizeof(answer);
    reason = getpeername(fd, (struct sockaddr *)&answer, &optlen) == 0 ? 0 : errno;
  }
  return now() - start;
}

double loop_getsockopt(int fd, int optname, int n) {
  double start = now();
  for (int i = 0; i < n; i++) {
    memset(&answer, 0, sizeof(answer));
    optlen = sizeof(answer);
    reason = getsockopt(fd, IPPROTO_IP, optname, &answer, &optlen) == 0 ? 0 : errno;
  }
  return now() - start;
}

// For attach: sockets that belong to the cgroup which the process is in at that moment.

int listen_on_loopback(void) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(fd, 16) != 0)
    return -1;
  return fd;
}

static int connect_to(int listener, int *client) {
  struct sockaddr_in address;
  socklen_t length = sizeof(address);
  getsockname(listener, (struct sockaddr *)&address, &length);
  *client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(*client, (struct sockaddr *)&address, sizeof(address)) != 0)
    return -1;
  return accept(listener, 0, 0);
}

// The server's end; the client's stays open.
int connection_of(int listener) {
  int client;
  return connect_to(listener, &client);
}

// A connection, both ends, n times over. Reset, so that no port waits.
double loop_connections(int listener, int n) {
  struct linger at_once = {.l_onoff = 1};
  int client;
  double start = now();
  for (int i = 0; i < n; i++) {
    int server = connect_to(listener, &client);
    if (server < 0)
      return -1;
    setsockopt(client, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(client);
    close(server);
  }
  return now() - start;
}
