/**
 * Values kept for objects that live as long as a connection: sockets, HTTP/2 sessions and streams. Never keyed by file
 * descriptor, which the kernel reuses for the next connection.
 */
export class Remembered<Value extends object> {
  readonly #values = new WeakMap<object, Value>()

  /** The value of `key`, if any. Accepts any value as key. */
  of (key: unknown): Value | undefined {
    return this.#values.get(key as object)
  }

  set (key: object, value: Value): void {
    this.#values.set(key, value)
  }

  /** Copies the value of `from` to `key`, if there is one. */
  inherit (key: object, from: unknown): void {
    const value = this.of(from)
    if (value !== undefined) this.set(key, value)
  }
}
