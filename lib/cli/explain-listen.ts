/** Why a port cannot be listened on, in a sentence. */
export function explainListen (
  { code, message }: NodeJS.ErrnoException, port: number, host: string | undefined
): string {
  switch (code) {
    case 'EADDRINUSE':
      return `port ${port} is taken: choose another, or end the program that has it (ss -ltnp shows which).`
    case 'EACCES':
      return `port ${port} takes a right that this user does not have: choose one from 1024 on, or run it as root.`
    case 'EADDRNOTAVAIL': return `${host} is not an address of this machine.`
    default: return `cannot listen on port ${port}: ${message}.`
  }
}
