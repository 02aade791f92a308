/** What is here used of a WeakMap: objects lead to values, and the map keeps neither alive. */
export interface PrivateMap<Value> {
  get (key: unknown): Value | undefined
  set (key: object, value: Value): void
}

class Given {
  constructor (key: object) {
    return key
  }
}

/**
 * A WeakMap for keys that are made as often as they are looked up: the value stands in a private field that is added to
 * the key. ECMAScript gives such fields a WeakMap's semantics: nobody else sees them, and they go with the key. V8 makes
 * of one a slot of the object; of a WeakMap's young keys it keeps a list, which each collection walks.
 */
export function createPrivateMap<Value extends object> (): PrivateMap<Value> {
  return class Marked extends Given {
    #value: Value

    constructor (key: object, value: Value) {
      super(key)
      this.#value = value
    }

    static get (key: unknown): Value | undefined {
      return typeof key === 'object' && key !== null && #value in key ? key.#value : undefined
    }

    static set (key: object, value: Value): void {
      if (#value in key) key.#value = value
      // eslint-disable-next-line no-new
      else new Marked(key, value)
    }
  }
}
