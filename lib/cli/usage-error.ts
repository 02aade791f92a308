/** Invalid arguments; the message is meant for the user. */
export class UsageError extends Error {}
