// Constants of Linux C headers, with the kernel's names.

// <linux/socket.h>
export const AF_INET = 2
export const AF_INET6 = 10
export const AF_NETLINK = 16
export const AF_PACKET = 17
export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
export const SOCK_CLOEXEC = 0o2000000
export const MSG_PEEK = 0x02
export const MSG_DONTWAIT = 0x40

// <asm-generic/socket.h>
export const SOL_SOCKET = 1
export const SO_ATTACH_FILTER = 26
export const SO_COOKIE = 57

// <linux/in.h>
export const IPPROTO_IP = 0
export const IPPROTO_TCP = 6

// <linux/tcp.h>
export const TCP_INFO = 11
export const TCP_FASTOPEN = 23
export const TCP_SAVE_SYN = 27
export const TCP_SAVED_SYN = 28
/** Bit of `tcpi_options`: the SYN carried data that was accepted (TCP Fast Open). */
export const TCPI_OPT_SYN_DATA = 0x20

// <net/tcp.h>
export const TCPOPT_EOL = 0
export const TCPOPT_NOP = 1
export const TCPHDR_SYN = 0x02

// <net/tcp_states.h>
export const TCP_ESTABLISHED = 1
export const TCP_SYN_RECV = 3
export const TCP_CLOSE_WAIT = 8
export const TCP_LISTEN = 10

// <linux/if_ether.h>
export const ETH_P_ALL = 3

// <linux/netlink.h>, <linux/sock_diag.h>
export const NETLINK_SOCK_DIAG = 4
export const NLMSG_ERROR = 2
export const NLMSG_DONE = 3
export const NLM_F_REQUEST = 1
export const NLM_F_MULTI = 2
export const NLM_F_DUMP = 0x300
export const SOCK_DIAG_BY_FAMILY = 20
