/** Explains in a sentence why a port cannot be used. */
export function explainListen (
  { code, message }: NodeJS.ErrnoException, port: number, host: string | undefined
): string {
  switch (code) {
    case 'EADDRINUSE':
      return `port ${port} is in use: choose another, or stop the program that uses it (ss -ltnp shows which).`
    case 'EACCES':
      return `this user may not listen on port ${port}: choose a port of at least 1024, or run this as root.`
    case 'EADDRNOTAVAIL': return `${host} is not an address of this machine.`
    default: return `cannot listen on port ${port}: ${message}.`
  }
}
