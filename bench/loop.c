#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

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
