// With --require: this process runs on macOS, as far as anybody asks.
Object.defineProperty(process, 'platform', { value: 'darwin' })
