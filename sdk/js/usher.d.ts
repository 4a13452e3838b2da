/** What every close code means, by its number. */
export { CLOSE_CODES, ERRORS, REFUSALS, TIMING } from "./rules.js";
import type { Timing } from "./rules.js";

export type State = "idle" | "connecting" | "waiting" | "playing" | "ended";
export type PlayState = "playing" | "paused" | "buffering" | "background";
/** What to do when no slot is free: `reject` ends, `ask` lets the person choose, `wait` stands in line, `oldest` takes over. */
export type OnLimit = "reject" | "ask" | "wait" | "oldest";

export interface Options {
  /** The gateway: `https://host` or `wss://host`, with a base path at will. */
  url: string;
  /** What plays. */
  content: string;
  /** Which installation plays; keep it for good. Two tabs need two. Without one each start is a device of its own. */
  device?: string;
  /** Its name for people, shown to the account's other players. */
  deviceName?: string;
  /** `tv`, `phone`, `web`, .. */
  deviceClass?: string;
  /**
   * Gives an access token. `start`: for a connection; `refresh`: a minute before the one in use ends; `rejected`: the
   * gateway did not take the last one, so give another.
   */
  getToken(asked: { reason: "start" | "refresh" | "rejected" }): Promise<string> | string;
  /** Default `reject`. */
  onLimit?: OnLimit;
  /** `resume` of a session on another device that goes on here, as on a cast receiver; with the same `device`. */
  resume?: string;
  /** Id of the last message that was seen: newer ones are sent again. */
  since?: number;
  /** Where there is none of its own, as in Node before 22. */
  WebSocket?: new (url: string, protocols: string[]) => unknown;
  /** Other times than `TIMING`, for tests. */
  timing?: Partial<Timing>;
  /** Numbers from 0 to below 1, for tests. */
  random?: () => number;
}

export interface Slots { used: number; limit: number }
export interface Device { device: string; device_name: string | null }
export interface Ticket { token: string; expires_at: string }

export interface Holder extends Device {
  session: string;
  device_class: string | null;
  content: string;
  started_at: string;
  state: PlayState;
}

export interface Granted {
  session: string;
  slots: Slots;
  heartbeat_ms: number;
  lease_ms: number;
  resume: string;
  resumed: boolean;
  /** Granted while nobody could judge: it may end with `stream_limit_reached` later. */
  provisional: boolean;
  ticket: Ticket | null;
  server_time: string;
}

export interface Denied {
  code: "stream_limit_reached" | "takeover_refused" | string;
  /** The rule that refused: `account`, or the operator's name for another. */
  rule: string;
  slots: Slots;
  holders: Holder[];
  /** What may be chosen: offer nothing else. */
  may: ("takeover" | "wait")[];
}

export interface Ended {
  /** Of the table of close codes, or of a refusal such as `unauthorized`. */
  code: string;
  /** The close code; null when no socket ever opened. */
  number: number | null;
  /** Who took the slot over. */
  by?: Device;
  /** At the limit, as in `Denied`. */
  rule?: string;
  slots?: Slots;
  holders?: Holder[];
  may?: ("takeover" | "wait")[];
  /** `takeover_refused`, when the other person said no. */
  reason?: string;
  /** HTTP status of a refusal. */
  status?: number;
  /** For logs. */
  detail?: string;
}

export interface Message {
  id: number;
  from: string;
  to: string;
  content: { type: string; [field: string]: unknown };
  sent_at: string;
}

export interface OutgoingMessage {
  /** An account, or `room:<content>`. */
  to: string;
  content: { type: string; [field: string]: unknown };
  client_id?: string;
  id?: string | number;
}

export interface ErrorDetail { code: string; detail?: string; id?: string | number; status?: number; holders?: Holder[] }

export interface SessionEvents {
  /** The state has changed. */
  state: CustomEvent<{ state: State }>;
  /** The slot is ours, also after a reconnect. */
  granted: CustomEvent<Granted>;
  /** No slot is free, and who holds them. */
  denied: CustomEvent<Denied>;
  /** In the line; again whenever the place changes. */
  waiting: CustomEvent<{ position: number }>;
  /** The next ticket. */
  ticket: CustomEvent<Ticket>;
  /** Somebody asks for this slot. Silence means yes. */
  takeoverrequest: CustomEvent<{ by: Device; answer_within_ms: number }>;
  /** Another player of the account came or went. */
  slots: CustomEvent<Slots>;
  /** No connection for so long that the slot is gone: play nothing. It goes on trying. */
  lost: CustomEvent<Record<string, never>>;
  /** It is over and nothing is tried any more. */
  ended: CustomEvent<Ended>;
  message: CustomEvent<Message>;
  /** Something did not work and the session goes on, or is tried again. */
  error: CustomEvent<ErrorDetail>;
}

export class UsherSession extends EventTarget {
  /** @throws TypeError for options that are missing or wrong. */
  constructor(options: Options);
  readonly state: State;
  /** Id of the session, or null. */
  readonly id: string | null;
  readonly content: string;
  readonly slots: Slots | null;
  /** The newest ticket; null without a slot. */
  readonly ticket: Ticket | null;
  /** The refusal to choose upon, or null. */
  readonly denied: Denied | null;
  /** Whether the slot is ours as far as this player can know. Play only then. */
  readonly holdsSlot: boolean;
  /** The secret that moves this session to another player. Keep it like a password. */
  readonly resume: string | null;
  /** The gateway's origin for requests. */
  readonly origin: string;
  /** Asks for a slot; also after an end. */
  start(): this;
  /** Gives the slot back; resolves when it has ended. */
  stop(): Promise<void>;
  /** After `denied`, with `onLimit: "ask"`: takes this holder's slot over. False when that is no choice now. */
  takeover(holder: Holder | string): boolean;
  /** After `denied`, with `onLimit: "ask"`: stands in the line. */
  wait(): boolean;
  /** Something else plays from now on, in the same slot. When an `error` comes the old content stays. */
  switch(content: string): void;
  /** Answers `takeoverrequest`. */
  answer(allow: boolean): boolean;
  /** Sends a message. False when there is no connection for it. */
  send(message: OutgoingMessage): boolean;
  /** How it plays and where; a changed state is told at once. `attach` does this. */
  report(playing: { state?: PlayState; positionMs?: number; now?: boolean }): void;
  /** Binds a media element to the slot; the answer undoes it. */
  attach(video: HTMLMediaElement): () => void;
  addEventListener<K extends keyof SessionEvents>(type: K, listener: (event: SessionEvents[K]) => void,
    options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null,
    options?: boolean | AddEventListenerOptions): void;
}
