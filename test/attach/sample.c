// As the vtoa document asks: a 16-byte struct sockaddr, and a connection as standard input.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(void) {
  struct sockaddr address;
  socklen_t length = sizeof(address);
  char text[INET_ADDRSTRLEN];

  if (getsockopt(0, IPPROTO_IP, 1348, &address, &length) != 0) {
    printf("%s", strerror(errno));
    return 0;
  }
  if (address.sa_family != AF_INET) {
    printf("family %d", address.sa_family);
    return 0;
  }
  const struct sockaddr_in *in = (const struct sockaddr_in *)&address;
  printf("%s %d", inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text)), ntohs(in->sin_port));
  return 0;
}
