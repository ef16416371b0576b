/** Threads that could not be ended, being blocked in native code: they keep the process from ending, too, unless it is killed. */
let blocked = 0;

export const blockedThreads = (): number => blocked;

export function countBlockedThread(): void {
  blocked += 1;
}
