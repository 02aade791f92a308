// SPDX-License-Identifier: MIT
// Gives the processes of one cgroup the vtoa interface: getsockopt(fd, IPPROTO_IP, 1348) returns the client's address
// from the TOA option, and getpeername(2) does so on request.
// Compiled by `npm run bpf` into lib/attach/programs.ts; lib/attach/ loads it without libbpf.

#include <linux/bpf.h>
#include <linux/errno.h>
#include <linux/in.h>

#define SEC(name) __attribute__((section(name), used))
#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define AF_INET 2
#define AF_INET6 10
#define TCP_HEADER_LEN 20
#define TCP_FLAGS 13
#define TCPHDR_SYN 0x02
#define TCP_OPTIONS_MAX 40
#define TCPOPT_EOL 0
#define TCPOPT_NOP 1
#define TOA_GET_CLIENT 1348 // has no public name
#define SOCKADDR_IN_LEN 16
#define SOCKADDR_IN6_LEN 28
#define FORMATS_MAX 8
// Linux before 6.5 fails with EFAULT if a program leaves a larger optlen as it is, whoever made the call.
#define OPTVAL_MAX 4096

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static void *(*const bpf_sk_storage_get)(void *map, void *sk, const void *value, __u64 flags) =
  (void *)BPF_FUNC_sk_storage_get;

// Read by bpf/generate.ts.
struct map {
  __u32 type;
  __u32 key_size;
  __u32 value_size;
  __u32 max_entries;
  __u32 flags;
};

struct claim {
  __u16 family;
  __u16 port;
  __u32 address[4]; // of which IPv4 uses the first
};

struct peer {
  __u32 prefix_length; // in bits, family included
  __u32 family;        // so that ::/0 holds no IPv4 address
  __u32 address[4];
};

// The names of the counters are in lib/attach/status.ts.
enum counter { CLAIMS, NONE, MALFORMED, STRANGERS, UNSTORED, COUNTERS };

struct map claims SEC("maps") = {BPF_MAP_TYPE_SK_STORAGE, sizeof(__u32), sizeof(struct claim), 0, BPF_F_NO_PREALLOC};
struct map counters SEC("maps") = {BPF_MAP_TYPE_PERCPU_ARRAY, sizeof(__u32), sizeof(__u64), COUNTERS, 0};
// The loader makes it as large as the list.
struct map peers SEC("maps") = {BPF_MAP_TYPE_LPM_TRIE, sizeof(struct peer), sizeof(__u32), 1, BPF_F_NO_PREALLOC};

// Written once, then frozen: to the verifier these are constants. Encoded in lib/attach/config.ts.
const volatile struct {
  __u8 any_peer;
  __u8 errno_of_own; // Linux 5.18 and newer: a program chooses the errno
  __u8 unused[2];
  struct {
    __u8 kind; // 0: none
    __u8 length;
    __u8 family;
    __u8 unused;
  } formats[FORMATS_MAX];
} config SEC(".rodata") = {};

ALWAYS_INLINE void count(__u32 counter) {
  __u64 *value = bpf_map_lookup_elem(&counters, &counter);
  if (value)
    *value += 1;
}

ALWAYS_INLINE int is_trusted(struct bpf_sock_ops *ctx) {
  if (config.any_peer)
    return 1;
  struct peer peer = {.prefix_length = 32 + 32, .family = AF_INET};
  if (ctx->family == AF_INET) {
    peer.address[0] = ctx->remote_ip4;
  } else {
    peer.address[0] = ctx->remote_ip6[0];
    peer.address[1] = ctx->remote_ip6[1];
    peer.address[2] = ctx->remote_ip6[2];
    peer.address[3] = ctx->remote_ip6[3];
    if (peer.address[0] == 0 && peer.address[1] == 0 && peer.address[2] == __builtin_bswap32(0xffff)) {
      // IPv4 on a dual-stack socket. Linux accepts no IPv6 packet with such a source.
      peer.address[0] = peer.address[3];
    } else {
      peer.prefix_length = 32 + 128;
      peer.family = AF_INET6;
    }
  }
  return bpf_map_lookup_elem(&peers, &peer) != 0;
}

// Reads the segment that completes the handshake.
SEC("sockops")
int toa_sockops(struct bpf_sock_ops *ctx) {
  if (ctx->op != BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
    return 1;
  struct bpf_sock *sk = ctx->sk;
  const __u8 *tcp = ctx->skb_data;
  const __u8 *end = ctx->skb_data_end;
  if (!sk || tcp + TCP_HEADER_LEN > end)
    return 1;
  // A Fast Open connection is established by its SYN, whose options a client can forge through some balancers.
  if (tcp[TCP_FLAGS] & TCPHDR_SYN) {
    count(NONE);
    return 1;
  }

  const __u8 *options = tcp + TCP_HEADER_LEN;
  __u32 options_len = (tcp[12] >> 4) * 4 - TCP_HEADER_LEN;
  __u64 unknown = ctx->local_port;
  __u64 at = 0;
  __u32 family = 0;
  __u32 malformed = 0;
#pragma clang loop unroll(disable)
  for (__u32 i = 0; i < TCP_OPTIONS_MAX; i++) {
    // Hides the offset from the verifier, which otherwise follows every possible one. bpf_load_hdr_opt() is no way out:
    // for the kinds 253 and 254 it compares the bytes behind the length, here the port, with a magic number.
    at ^= unknown;
    asm volatile("" : "+r"(at));
    at ^= unknown;
    at &= 63;
    const __u8 *option = options + at;
    if (at >= options_len || option + 1 > end || option[0] == TCPOPT_EOL)
      break;
    if (option[0] == TCPOPT_NOP) {
      at++;
      continue;
    }
    if (option + 2 > end || option[1] < 2 || at + option[1] > options_len) {
      malformed = 1;
      break;
    }
#pragma unroll
    for (int j = 0; j < FORMATS_MAX; j++) {
      if (config.formats[j].kind == 0 || config.formats[j].kind != option[0])
        continue;
      if (config.formats[j].length == option[1]) {
        family = config.formats[j].family;
        goto found;
      }
      malformed = 1;
    }
    at += option[1];
  }
  count(malformed ? MALFORMED : NONE);
  return 1;

found:;
  struct claim claim = {.family = family};
  const __u8 *option = options + at;
  if (family == AF_INET) {
    if (option + 8 > end)
      return 1;
    __builtin_memcpy(&claim.port, option + 2, 2);
    __builtin_memcpy(claim.address, option + 4, 4);
  } else {
    if (option + 20 > end)
      return 1;
    __builtin_memcpy(&claim.port, option + 2, 2);
    __builtin_memcpy(claim.address, option + 4, 16);
  }
  if (!is_trusted(ctx))
    count(STRANGERS);
  else
    count(bpf_sk_storage_get(&claims, sk, &claim, BPF_SK_STORAGE_GET_F_CREATE) ? CLAIMS : UNSTORED);
  return 1;
}

// A program that returns 0 makes the call fail with EPERM: before Linux 5.18 there is no other errno.
ALWAYS_INLINE int fail(struct bpf_sockopt *ctx, int error) {
  if (!config.errno_of_own)
    return 0;
  ctx->retval = -error;
  return 1;
}

ALWAYS_INLINE int leave(struct bpf_sockopt *ctx) {
  if (ctx->optlen > OPTVAL_MAX)
    ctx->optlen = 0; // the kernel's own answer stays as it is
  return 1;
}

SEC("cgroup/getsockopt")
int toa_getsockopt(struct bpf_sockopt *ctx) {
  // Where it is 0, a vtoa module or another program has answered.
  if (ctx->optname != TOA_GET_CLIENT || ctx->level != IPPROTO_IP || ctx->retval == 0)
    return leave(ctx);
  struct bpf_sock *sk = ctx->sk;
  if (!sk || sk->protocol != IPPROTO_TCP || (sk->family != AF_INET && sk->family != AF_INET6))
    return leave(ctx);

  struct claim *claim = bpf_sk_storage_get(&claims, sk, 0, 0);
  if (!claim) {
    if (config.errno_of_own && ctx->retval != -ENOPROTOOPT)
      return leave(ctx);
    // ENOPROTOOPT would mean that nobody answers 1348 here, and readers would stop asking for a while.
    return fail(ctx, ESRCH);
  }
  __u8 *optval = ctx->optval;
  const __u8 *end = ctx->optval_end;
  if (claim->family == AF_INET) {
    if (ctx->optlen < SOCKADDR_IN_LEN || optval + SOCKADDR_IN_LEN > end)
      return fail(ctx, EINVAL);
    __builtin_memset(optval, 0, SOCKADDR_IN_LEN);
    __builtin_memcpy(optval + 4, claim->address, 4);
    ctx->optlen = SOCKADDR_IN_LEN;
  } else {
    if (ctx->optlen < SOCKADDR_IN6_LEN || optval + SOCKADDR_IN6_LEN > end)
      return fail(ctx, EINVAL);
    __builtin_memset(optval, 0, SOCKADDR_IN6_LEN);
    __builtin_memcpy(optval + 8, claim->address, 16);
    ctx->optlen = SOCKADDR_IN6_LEN;
  }
  __builtin_memcpy(optval, &claim->family, 2);
  __builtin_memcpy(optval + 2, &claim->port, 2);
  ctx->retval = 0;
  return 1;
}

SEC("cgroup/getpeername4")
int toa_peername4(struct bpf_sock_addr *ctx) {
  struct claim *claim = ctx->sk ? bpf_sk_storage_get(&claims, ctx->sk, 0, 0) : 0;
  // The kernel keeps the length of a sockaddr_in: no room for IPv6.
  if (!claim || claim->family != AF_INET)
    return 1;
  ctx->user_ip4 = claim->address[0];
  ctx->user_port = claim->port;
  return 1;
}

SEC("cgroup/getpeername6")
int toa_peername6(struct bpf_sock_addr *ctx) {
  struct claim *claim = ctx->sk ? bpf_sk_storage_get(&claims, ctx->sk, 0, 0) : 0;
  if (!claim)
    return 1;
  int mapped = claim->family == AF_INET;
  ctx->user_ip6[0] = mapped ? 0 : claim->address[0];
  ctx->user_ip6[1] = mapped ? 0 : claim->address[1];
  ctx->user_ip6[2] = mapped ? __builtin_bswap32(0xffff) : claim->address[2];
  ctx->user_ip6[3] = mapped ? claim->address[0] : claim->address[3];
  ctx->user_port = claim->port;
  return 1;
}
