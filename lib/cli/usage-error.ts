/** What was written cannot be understood; the message is the sentence to print. */
export class UsageError extends Error {}
