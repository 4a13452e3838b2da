export interface Timing {
  minMs: number;
  maxMs: number;
  firstMs: number;
  connectMs: number;
  aliveMs: number;
  refreshMs: number;
  stopMs: number;
}
export const CLOSE_CODES: Readonly<Record<number, { code: string; text: string }>>;
export const ERRORS: Readonly<Record<string, string>>;
export const REFUSALS: Readonly<Record<number, { retry: "never" | "token" | "later"; text: string }>>;
export const TIMING: Readonly<Timing>;
/** What to do after this close code. */
export function actionOf(number: number): "final" | "fix" | "reconnect";
/** Whether the gateway keeps the slot for a resume after it. */
export function keepsSlot(number: number): boolean;
/** The close code of an `ended.code`, or null. */
export function numberOf(code: string | undefined): number | null;
/** The pause before try `n`, in milliseconds. */
export function pause(n: number, timing?: Timing, random?: () => number): number;
/** When a JWT ends, in milliseconds of Unix time, or null. */
export function expiryOf(token: string): number | null;
