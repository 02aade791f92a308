// A client that stamps TOA, as a balancer would: every connection made from the cgroup
// carries the options of the configuration on the segments of its choice.

#include <linux/bpf.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define TCPHDR_SYN 0x02
#define OPTIONS_MAX 4
#define OPTION_LEN_MAX 40

// Both sets of bits are known to stamp.ts.
enum { ON_SYN = 1, ON_ACK = 2, ON_DATA = 4 };
enum { WRITE_PORT = 1, WRITE_ADDRESS_V4 = 2, WRITE_ADDRESS_V6 = 4, WRITE_NUMBER_V4 = 8, WRITE_NUMBER_V6 = 16 };

struct stamp {
  __u32 on;
  __u32 derive;      // which fields of the first option are made from the local port or the connection's number
  __u32 options_len; // of all together
  __u32 options_count;
  __u8 options[OPTIONS_MAX][OPTION_LEN_MAX];
};

// A copy, so that a connection keeps what was set when it was made.
struct connection {
  struct stamp stamp;
  __u32 past_handshake;
};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct stamp);
} stamp_map SEC(".maps");

// Counts on, whatever stamp is set.
struct numbers {
  struct bpf_spin_lock lock;
  __u32 next;
};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct numbers);
} number_map SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_SK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct connection);
} connections SEC(".maps");

static __always_inline __u32 next_number(void) {
  __u32 key = 0;
  __u32 number;
  struct numbers *numbers = bpf_map_lookup_elem(&number_map, &key);
  if (!numbers)
    return 0;
  bpf_spin_lock(&numbers->lock);
  number = numbers->next++;
  bpf_spin_unlock(&numbers->lock);
  return number;
}

static __always_inline void write_number(__u8 *option, __u8 *end_of_address) {
  __u32 number = bpf_htonl(next_number());
  __builtin_memcpy(option + 2, (__u8 *)&number + 2, 2);
  __builtin_memcpy(end_of_address - 3, (__u8 *)&number + 1, 3);
}

static __always_inline void start_connection(struct bpf_sock_ops *skops) {
  __u32 key = 0;
  struct stamp *stamp = bpf_map_lookup_elem(&stamp_map, &key);
  if (!stamp || !stamp->on || !skops->sk)
    return;
  struct connection *connection =
    bpf_sk_storage_get(&connections, skops->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
  if (!connection)
    return;
  connection->stamp = *stamp;

  __u8 *option = connection->stamp.options[0];
  __u16 port = bpf_htons(skops->local_port);
  if (stamp->derive & WRITE_PORT)
    __builtin_memcpy(option + 2, &port, 2);
  if (stamp->derive & WRITE_ADDRESS_V4)
    __builtin_memcpy(option + 6, &port, 2);
  if (stamp->derive & WRITE_ADDRESS_V6)
    __builtin_memcpy(option + 18, &port, 2);
  if (stamp->derive & WRITE_NUMBER_V4)
    write_number(option, option + 8);
  if (stamp->derive & WRITE_NUMBER_V6)
    write_number(option, option + 20);
  bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

// Asked once for each segment, and in between for the segment size alone. No room, no stamp.
static __always_inline void reserve(struct bpf_sock_ops *skops, struct connection *connection) {
  __u32 segment = connection->past_handshake ? ON_DATA : ON_ACK;
  if (skops->args[0] != BPF_WRITE_HDR_TCP_CURRENT_MSS) {
    if (skops->skb_tcp_flags & TCPHDR_SYN)
      segment = ON_SYN;
    else
      connection->past_handshake = 1;
  }
  if (connection->stamp.on & segment)
    bpf_reserve_hdr_opt(skops, connection->stamp.options_len, 0);
}

static __always_inline void write(struct bpf_sock_ops *skops, struct connection *connection) {
  for (__u32 i = 0; i < OPTIONS_MAX; i++)
    if (i < connection->stamp.options_count)
      bpf_store_hdr_opt(skops, connection->stamp.options[i], OPTION_LEN_MAX, 0);
}

SEC("sockops")
int stamp_toa(struct bpf_sock_ops *skops) {
  struct connection *connection;
  if (skops->op == BPF_SOCK_OPS_TCP_CONNECT_CB) {
    start_connection(skops);
    return 1;
  }
  if (skops->op != BPF_SOCK_OPS_HDR_OPT_LEN_CB && skops->op != BPF_SOCK_OPS_WRITE_HDR_OPT_CB)
    return 1;
  connection = skops->sk ? bpf_sk_storage_get(&connections, skops->sk, 0, 0) : 0;
  if (!connection)
    return 1;
  if (skops->op == BPF_SOCK_OPS_HDR_OPT_LEN_CB)
    reserve(skops, connection);
  else
    write(skops, connection);
  return 1;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
