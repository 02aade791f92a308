// A stand-in for the kernel modules that read TOA: remembers the option of each accepted connection and hands
// the client's address out as the module that it plays does, through getsockopt(fd, IPPROTO_IP, ...) and getpeername(fd).

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
#define VTOA_SO_GET_VS 1345
#define HYBRID_VTOA_SO_GET_VS 1347
#define TOA_SO_GET_LOOKUP 4096 // of DPVS
#define STORAGE_LEN 128 // sizeof(struct sockaddr_storage)
#define ANSWER_MAX sizeof(struct sockaddr_in6)
#define FORM(kind, length) ((kind) << 8 | (length))

// Both sets are known to lab.ts. Huawei's module has no rename_peer6, so that on IPv6 sockets it does nothing.
enum { VTOA, DPVS, UCLOUD, HUAWEI };
enum { ANSWER_1345 = 1, ANSWER_1347_V4 = 2, ANSWER_1347_V6 = 4 };

// Written whole by lab.ts before the programs are attached, and whenever the test changes its mind.
struct config {
  __u32 generation;    // of the current start: what an earlier start remembered is forgotten
  __s32 errno_forced;  // 1348 always fails with it, unless 0
  __s32 family_forced; // 1348 answers with this sa_family, unless negative
  __s32 bytes_written; // 1348 writes only so many bytes of its answer, unless negative
  __u32 module;
  __u32 virtual_server; // what vtoa answers of it
  __u32 name_port;      // the port that getpeername gives of every IPv4 client, as if another program rewrote it; unless 0
};

// What was found on a connection. The scratch space of the walk lives here as well, because
// it belongs to this socket alone (its lock is held), while anything per CPU could be interrupted.
struct connection {
  __u32 generation;
  __u32 form;   // kind and length of the option
  __u32 family; // of the client; 0: none
  __u8 port[2];
  __u8 address[16];
  __u32 vip_family; // of the virtual server; 0: none
  __u32 vid;
  __u8 vport[2];
  __u8 vip[16];
  volatile __u32 options_len;
  volatile __u32 next;
  __u8 options[2 * TCP_OPTIONS_MAX];
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
  if (!config || !connection || connection->generation != config->generation)
    return 0;
  return connection;
}

static __always_inline void read_client(struct connection *connection, const __u8 *option, __u32 family) {
  connection->family = family;
  __builtin_memcpy(connection->port, option + 2, 2);
  __builtin_memcpy(connection->address, option + 4, 16); // of which IPv4 uses the first 4
}

// Option 250, port and address of the virtual server, also stands right behind an IPv4 client.
static __always_inline void read_vip(struct connection *connection, const __u8 *option) {
  connection->vip_family = AF_INET;
  __builtin_memcpy(connection->vport, option + 2, 2);
  __builtin_memcpy(connection->vip, option + 4, 4);
}

static __always_inline int read_vtoa(struct connection *connection, const __u8 *option, const __u8 *behind, __u32 form) {
  switch (form) {
  case FORM(254, 8):
    read_client(connection, option, AF_INET);
    if (behind && behind[0] == 250 && behind[1] == 8)
      read_vip(connection, behind);
    return 1;
  case FORM(253, 20):
    read_client(connection, option, AF_INET6);
    return 1;
  case FORM(252, 20): // client's port and address, VPC id as the balancer's host writes it, VIP, its port, padding
    read_client(connection, option, AF_INET);
    connection->vip_family = AF_INET;
    __builtin_memcpy(&connection->vid, option + 8, 4);
    __builtin_memcpy(connection->vip, option + 12, 4);
    __builtin_memcpy(connection->vport, option + 16, 2);
    return 1;
  case FORM(250, 8):
    read_vip(connection, option);
    return 1;
  case FORM(249, 40): // client's port and address, VPC id in 3 bytes, padding, VIP
    read_client(connection, option, AF_INET6);
    connection->vip_family = AF_INET6;
    connection->vid = option[20] << 16 | option[21] << 8 | option[22];
    __builtin_memcpy(connection->vip, option + 24, 16);
    return 1;
  }
  return 0;
}

// Takes what one option says, if it is of a form that the module reads.
static __always_inline int read_toa(struct connection *connection, const __u8 *option, const __u8 *behind, __u32 module) {
  __u32 form = FORM(option[0], option[1]);
  connection->form = form;
  if (module == VTOA)
    return read_vtoa(connection, option, behind, form);
  if (form == FORM(254, 8) || (module == UCLOUD && (form == FORM(200, 8) || form == FORM(253, 8)))) {
    read_client(connection, option, AF_INET);
    return 1;
  }
  if (module == DPVS && form == FORM(254, 20)) {
    read_client(connection, option, AF_INET6);
    return 1;
  }
  return 0;
}

// Visits every offset in turn and skips to `next`. Because `next` is volatile memory, whose content
// the verifier does not follow, each turn is one state to it; an ordinary loop would be a million.
static __always_inline void walk_options(struct connection *connection, __u32 module) {
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
    if (read_toa(connection, option, i + 16 <= connection->options_len ? option + 8 : 0, module))
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
  connection->vip_family = 0;
  connection->vid = 0;
  __builtin_memset(connection->vport, 0, sizeof(connection->vport));
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
  walk_options(connection, config->module);
  return 1;
}

// The kernel copies optlen bytes of ctx->optval to the caller, and optlen itself. The module leaves
// optlen alone yet writes only its sockaddr, so the rest has to be what the caller has there already
// (of buffers beyond a sockaddr_storage, what follows that is cleared).
static __always_inline void keep_callers_bytes(struct bpf_sockopt *ctx) {
  struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
  void *callers = (void *)PT_REGS_PARM4_SYSCALL(regs);
  __u8 *optval = ctx->optval;
  if (ctx->optlen == STORAGE_LEN && optval + STORAGE_LEN <= (__u8 *)ctx->optval_end) {
    bpf_probe_read_user(optval, STORAGE_LEN, callers);
    return;
  }
  __u8 bytes[STORAGE_LEN] = {};
  __u32 len = ctx->optlen;
  if (len > sizeof(bytes))
    len = sizeof(bytes);
  bpf_probe_read_user(bytes, len, callers);
  for (__u32 i = 0; i < sizeof(bytes); i++) {
    if (optval + i + 1 > (__u8 *)ctx->optval_end)
      break;
    optval[i] = bytes[i];
  }
}

// What a module writes into the caller's buffer.
struct answer {
  __u32 len;
  union {
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct {
      __u32 vid;
      __u8 vip[4];
      __u8 vport[2];
      __u8 padding[2];
    } vs;
    struct {
      __u32 vid;
      __u8 vip[16];
      __u16 family;
      __u8 vport[2];
    } hybrid_vs;
    struct {
      __u8 address[16];
      __u8 port[2];
      __u16 padding;
    } nat64;
    __u8 bytes[ANSWER_MAX];
  };
};

static __always_inline int answer_client(struct answer *answer, struct config *config, struct connection *connection, __s32 optlen) {
  if (config->errno_forced)
    return config->errno_forced;
  if (!connection || !connection->family)
    return ESRCH;
  answer->len = connection->family == AF_INET ? sizeof(answer->in) : sizeof(answer->in6);
  if (optlen < (__s32)answer->len)
    return EINVAL;
  answer->in.sin_family = connection->family;
  __builtin_memcpy(&answer->in.sin_port, connection->port, 2);
  if (connection->family == AF_INET)
    __builtin_memcpy(&answer->in.sin_addr, connection->address, 4);
  else
    __builtin_memcpy(&answer->in6.sin6_addr, connection->address, 16);
  if (config->family_forced >= 0)
    answer->in.sin_family = config->family_forced;
  if (config->bytes_written >= 0 && config->bytes_written < (__s32)answer->len)
    answer->len = config->bytes_written;
  return 0;
}

static __always_inline int answer_vs(struct answer *answer, struct connection *connection, __s32 optlen) {
  answer->len = sizeof(answer->vs);
  if (optlen < (__s32)answer->len)
    return EINVAL;
  if (!connection || connection->vip_family != AF_INET)
    return ESRCH;
  answer->vs.vid = connection->vid;
  __builtin_memcpy(answer->vs.vip, connection->vip, 4);
  __builtin_memcpy(answer->vs.vport, connection->vport, 2);
  return 0;
}

static __always_inline int answer_hybrid_vs(struct answer *answer, struct config *config, struct connection *connection, __s32 optlen) {
  answer->len = sizeof(answer->hybrid_vs);
  if (optlen < (__s32)answer->len)
    return EINVAL;
  if (!connection || !connection->vip_family)
    return ESRCH;
  if (!(config->virtual_server & (connection->vip_family == AF_INET ? ANSWER_1347_V4 : ANSWER_1347_V6)))
    return ESRCH;
  answer->hybrid_vs.vid = connection->vid;
  answer->hybrid_vs.family = connection->vip_family;
  if (connection->vip_family == AF_INET)
    __builtin_memcpy(answer->hybrid_vs.vip, connection->vip, 4);
  else
    __builtin_memcpy(answer->hybrid_vs.vip, connection->vip, 16);
  __builtin_memcpy(answer->hybrid_vs.vport, connection->vport, 2);
  return 0;
}

// The padding of DPVS's struct comes from its stack as it is.
static __always_inline int answer_nat64(struct answer *answer, struct connection *connection, struct bpf_sock *sk, __s32 optlen) {
  answer->len = sizeof(answer->nat64);
  if (optlen < (__s32)answer->len || !connection || !connection->family)
    return EINVAL;
  if (connection->family != AF_INET6 || sk->family != AF_INET)
    return EFAULT;
  __builtin_memcpy(answer->nat64.address, connection->address, 16);
  __builtin_memcpy(answer->nat64.port, connection->port, 2);
  answer->nat64.padding = bpf_get_prandom_u32() | 1;
  return 0;
}

SEC("cgroup/getsockopt")
int answer_getsockopt(struct bpf_sockopt *ctx) {
  struct config *config = current_config();
  struct connection *connection = find_connection(ctx->sk);
  struct bpf_sock *sk = ctx->sk;
  struct answer answer = {};
  int error;

  if (ctx->level != IPPROTO_IP || !config || !sk)
    return 1;
  if (config->module == VTOA && ctx->optname == OPTNAME_CLIENT)
    error = answer_client(&answer, config, connection, ctx->optlen);
  else if (config->module == VTOA && ctx->optname == VTOA_SO_GET_VS && config->virtual_server & ANSWER_1345)
    error = answer_vs(&answer, connection, ctx->optlen);
  else if (config->module == VTOA && ctx->optname == HYBRID_VTOA_SO_GET_VS && config->virtual_server & ~ANSWER_1345)
    error = answer_hybrid_vs(&answer, config, connection, ctx->optlen);
  else if (config->module == DPVS && ctx->optname == TOA_SO_GET_LOOKUP)
    error = answer_nat64(&answer, connection, sk, ctx->optlen);
  else
    return 1;
  ctx->retval = -error;
  if (error)
    return 1;

  keep_callers_bytes(ctx);
  __u8 *optval = ctx->optval;
  __u8 *end = ctx->optval_end;
  // At once where that can be, for benchmarks: a module would do no more.
  if (answer.len == sizeof(answer.in) && optval + sizeof(answer.in) <= end) {
    __builtin_memcpy(optval, answer.bytes, sizeof(answer.in));
  } else if (answer.len == sizeof(answer.in6) && optval + sizeof(answer.in6) <= end) {
    __builtin_memcpy(optval, answer.bytes, sizeof(answer.in6));
  } else {
    for (__u32 i = 0; i < ANSWER_MAX; i++) {
      if (i >= answer.len || optval + i + 1 > end)
        break;
      optval[i] = answer.bytes[i];
    }
  }
  // vtoa leaves it alone
  if (config->module == DPVS)
    ctx->optlen = answer.len;
  return 1;
}

SEC("cgroup/getpeername4")
int rename_peer4(struct bpf_sock_addr *ctx) {
  struct connection *connection = find_connection(ctx->sk);
  __u32 address;
  __u16 port;
  // Of an AF_INET socket vtoa answers 249 with AF_INET6, which cannot be played: here the kernel keeps the family.
  if (!connection || connection->family != AF_INET)
    return 1;
  __builtin_memcpy(&address, connection->address, 4);
  __builtin_memcpy(&port, connection->port, 2);
  struct config *config = current_config();
  if (config && config->name_port)
    port = bpf_htons(config->name_port);
  ctx->user_ip4 = address;
  ctx->user_port = port;
  return 1;
}

SEC("cgroup/getpeername6")
int rename_peer6(struct bpf_sock_addr *ctx) {
  struct connection *connection = find_connection(ctx->sk);
  __u32 address[4] = {0, 0, bpf_htonl(0xffff), 0};
  __u16 port;
  // vtoa reads 252 on IPv4 sockets alone.
  if (!connection || !connection->family || connection->form == FORM(252, 20))
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
