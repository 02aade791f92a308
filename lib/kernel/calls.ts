// System calls as lib/kernel/libc.ts provides them.

/** The most bytes that one peek() returns. */
export const PEEK_MAX = 4096

/**
 * System calls with shared buffers, which the next call overwrites. Unless noted, calls return 0 or the errno. They
 * never throw.
 */
export interface Libc {
  /**
   * The bytes that the last call returned, 128 bytes. The part that is decoded is cleared before each call, so that a
   * short result does not show the previous one.
   */
  readonly bytes: Uint8Array
  /** The same bytes as a view, to read whole words. */
  readonly sockaddr: DataView
  /** `sa_family` of these bytes, in host byte order. */
  family (): number
  /** getsockopt(2) with a buffer of 128 bytes. */
  getsockopt (fd: number, level: number, optname: number): number
  /** The SYN that readSavedSyn() read last. */
  readonly savedSyn: Uint8Array
  /**
   * tcp(7) TCP_SAVED_SYN, which can be read only once. Returns the number of bytes in `savedSyn`; 0 if there is none.
   */
  readSavedSyn (fd: number): number
  /** setsockopt(2) with an int. */
  setsockopt (fd: number, level: number, optname: number, value: number): number
  /** getpeername(2) with a buffer of 128 bytes. */
  getpeername (fd: number): number
  /** getsockname(2) with a buffer of 128 bytes. */
  getsockname (fd: number): number
  /** The bytes that peek() found last. */
  readonly peeked: Uint8Array
  /**
   * recv(2) with MSG_PEEK. Returns the number of bytes in `peeked`, 0 at the end of the stream, or a negative errno;
   * EAGAIN: no data yet.
   */
  peek (fd: number): number
  /** recv(2): discards `length` bytes that peek() found. Returns their number, or a negative errno. */
  drop (fd: number, length: number): number
  /**
   * Calls `probe` with a new TCP socket and closes it afterwards. If no socket can be created, `probe` is not called.
   */
  withSocket (probe: (fd: number) => void): void
  /** Opens a non-blocking netlink socket for sock_diag(7), or returns the errno. */
  openDiag (): Diag | number
}

export interface Diag {
  /** Holds the request to send, then the received messages. */
  readonly buffer: Uint8Array
  /** Sends the first `length` bytes of the buffer. */
  send (length: number): number
  /** Returns the number of bytes received into the buffer, or a negative errno; EAGAIN: nothing to receive. */
  receive (): number
  close (): void
}

/** A packet(7) socket. */
export interface Capture {
  /** The last packet, from its IP header on. */
  readonly packet: Uint8Array
  /** Returns the number of bytes received into `packet`; 0: nothing to receive. */
  receive (): number
  close (): void
}

/** The address of `bytes` is stored at `offset`. `bytes` may contain pointers too. */
export type Pointer = readonly [offset: number, bytes: Uint8Array, pointers?: ReadonlyArray<Pointer>]

/** System calls of `attach`. They return the call's result or a negative errno. They never throw. */
export interface Bpf {
  /** bpf(2) with a union bpf_attr and the memory that it points to; the kernel may write to both. */
  bpf (command: number, attr: Uint8Array, pointers?: ReadonlyArray<Pointer>): number
  /** flock(2); blocks while another process holds the lock. */
  flock (fd: number, operation: number): number
  /** setrlimit(2) RLIMIT_MEMLOCK to RLIM_INFINITY: before Linux 5.11, eBPF memory counts as locked memory. */
  unlimitLockedMemory (): number
}
