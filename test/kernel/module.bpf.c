// A stand-in for the vtoa kernel module: remembers the TOA option of each accepted connection
// and hands it out through getsockopt(fd, IPPROTO_IP, 1348) and getpeername(fd).

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ptrace.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#define AF_INET 2
#define AF_INET6 10
#define TCP_HEADER_LEN 20
#define TCP_OPTIONS_MAX 40
#define OPTION_EOL 0
#define OPTION_NOP 1
#define OPTNAME_CLIENT 1348 // vtoa's number; it has no public name
#define ANSWER_MAX sizeof(struct sockaddr_in6)

// Written whole by lab.ts before the programs are attached, and whenever the test changes its mind.
struct config {
  __u32 generation;    // of the current start: what an earlier start remembered is forgotten
  __s32 errno_forced;  // 1348 always fails with it, unless 0
  __s32 family_forced; // 1348 answers with this sa_family, unless negative
  __s32 bytes_written; // 1348 writes only so many bytes of its answer, unless negative
};

// What was found on a connection. The scratch space of the walk lives here as well, because
// it belongs to this socket alone (its lock is held), while anything per CPU could be interrupted.
struct connection {
  __u32 generation;
  __u32 family; // 0: no TOA
  __u8 port[2];
  __u8 address[16];
  volatile __u32 options_len;
  volatile __u32 next;
  __u8 options[TCP_OPTIONS_MAX + 24];
};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct config);
} config_map SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct connection);
} connections SEC(".maps");

static __always_inline struct config *current_config(void) {
  __u32 key = 0;
  return bpf_map_lookup_elem(&config_map, &key);
}

static __always_inline struct connection *find_connection(struct bpf_sock *sk) {
  struct config *config = current_config();
  struct connection *connection = sk ? bpf_sk_storage_get(&connections, sk, 0, 0) : 0;
  if (!config || !connection || connection->generation != config->generation || !connection->family)
    return 0;
  return connection;
}

// Takes the address out of one option, if it is one of the two formats that vtoa reads.
static __always_inline int read_toa(struct connection *connection, const __u8 *option) {
  if (option[0] == 254 && option[1] == 8) {
    connection->family = AF_INET;
    __builtin_memcpy(connection->address, option + 4, 4);
  } else if (option[0] == 253 && option[1] == 20) {
    connection->family = AF_INET6;
    __builtin_memcpy(connection->address, option + 4, 16);
  } else {
    return 0;
  }
  __builtin_memcpy(connection->port, option + 2, 2);
  return 1;
}

// Visits every offset in turn and skips to `next`. Because `next` is volatile memory, whose content
// the verifier does not follow, each turn is one state to it; an ordinary loop would be a million.
static __always_inline void walk_options(struct connection *connection) {
  for (__u32 i = 0; i < TCP_OPTIONS_MAX; i++) {
    const __u8 *option = connection->options + i;
    if (i < connection->next)
      continue;
    if (i >= connection->options_len || option[0] == OPTION_EOL)
      return;
    if (option[0] == OPTION_NOP)
      continue;
    if (option[1] < 2 || i + option[1] > connection->options_len)
      return;
    if (read_toa(connection, option))
      return;
    connection->next = i + option[1];
  }
}

SEC("sockops")
int remember_toa(struct bpf_sock_ops *skops) {
  if (skops->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
    return 1;
  struct config *config = current_config();
  if (!config || !skops->sk)
    return 1;
  struct connection *connection =
    bpf_sk_storage_get(&connections, skops->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!connection)
    return 1;
  connection->generation = config->generation;
  connection->family = 0;
  connection->next = 0;
  connection->options_len = 0;

  const __u8 *end = skops->skb_data_end;
  const __u8 *options = skops->skb_data + TCP_HEADER_LEN;
  for (__u32 i = 0; i < TCP_OPTIONS_MAX; i += 4) {
    if (options + i + 4 > end)
      break;
    __builtin_memcpy(connection->options + i, options + i, 4);
    connection->options_len = i + 4;
  }
  walk_options(connection);
  return 1;
}

// The kernel copies optlen bytes of ctx->optval to the caller, and optlen itself. The module leaves
// optlen alone yet writes only its sockaddr, so the rest has to be what the caller has there already
// (of buffers beyond a sockaddr_storage, what follows that is cleared).
static __always_inline void keep_callers_bytes(struct bpf_sockopt *ctx) {
  struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
  __u8 *optval = ctx->optval;
  __u8 bytes[128] = {};
  __u32 len = ctx->optlen;
  if (len > sizeof(bytes))
    len = sizeof(bytes);
  bpf_probe_read_user(bytes, len, (void *)PT_REGS_PARM4_SYSCALL(regs));
  for (__u32 i = 0; i < sizeof(bytes); i++) {
    if (optval + i + 1 > (__u8 *)ctx->optval_end)
      break;
    optval[i] = bytes[i];
  }
}

static __always_inline void answer_client(struct bpf_sockopt *ctx) {
  struct config *config = current_config();
  struct connection *connection = find_connection(ctx->sk);
  union {
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    __u8 bytes[ANSWER_MAX];
  } answer = {};

  if (!config)
    return;
  if (config->errno_forced) {
    ctx->retval = -config->errno_forced;
    return;
  }
  if (!connection) {
    ctx->retval = -ESRCH;
    return;
  }
  __u32 len = connection->family == AF_INET ? sizeof(answer.in) : sizeof(answer.in6);
  if (ctx->optlen < (__s32)len) {
    ctx->retval = -EINVAL;
    return;
  }
  answer.in.sin_family = connection->family;
  __builtin_memcpy(&answer.in.sin_port, connection->port, 2);
  if (connection->family == AF_INET)
    __builtin_memcpy(&answer.in.sin_addr, connection->address, 4);
  else
    __builtin_memcpy(&answer.in6.sin6_addr, connection->address, 16);
  if (config->family_forced >= 0)
    answer.in.sin_family = config->family_forced;
  if (config->bytes_written >= 0 && config->bytes_written < (__s32)len)
    len = config->bytes_written;

  keep_callers_bytes(ctx);
  __u8 *optval = ctx->optval;
  for (__u32 i = 0; i < ANSWER_MAX; i++) {
    if (i >= len || optval + i + 1 > (__u8 *)ctx->optval_end)
      break;
    optval[i] = answer.bytes[i];
  }
  ctx->retval = 0;
}

SEC("cgroup/getsockopt")
int answer_getsockopt(struct bpf_sockopt *ctx) {
  if (ctx->level == IPPROTO_IP && ctx->optname == OPTNAME_CLIENT)
    answer_client(ctx);
  return 1;
}

SEC("cgroup/getpeername4")
int rename_peer4(struct bpf_sock_addr *ctx) {
  struct connection *connection = find_connection(ctx->sk);
  __u32 address;
  __u16 port;
  if (!connection || connection->family != AF_INET)
    return 1;
  __builtin_memcpy(&address, connection->address, 4);
  __builtin_memcpy(&port, connection->port, 2);
  ctx->user_ip4 = address;
  ctx->user_port = port;
  return 1;
}

SEC("cgroup/getpeername6")
int rename_peer6(struct bpf_sock_addr *ctx) {
  struct connection *connection = find_connection(ctx->sk);
  __u32 address[4] = {0, 0, bpf_htonl(0xffff), 0};
  __u16 port;
  if (!connection)
    return 1;
  if (connection->family == AF_INET)
    __builtin_memcpy(&address[3], connection->address, 4);
  else
    __builtin_memcpy(address, connection->address, 16);
  __builtin_memcpy(&port, connection->port, 2);
  ctx->user_ip6[0] = address[0];
  ctx->user_ip6[1] = address[1];
  ctx->user_ip6[2] = address[2];
  ctx->user_ip6[3] = address[3];
  ctx->user_port = port;
  return 1;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
