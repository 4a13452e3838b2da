import type { UsherSession } from "./usher.js";

export interface TicketOptions {
  /** Origins that get the ticket; default: the gateway's. */
  origins?: string[];
  /** As `?ticket=` instead of the header `Authorization`. */
  query?: boolean;
}

interface ShakaRequest { uris: string[]; headers: Record<string, string> }
type ShakaFilter = (type: never, request: ShakaRequest) => void;
/** As much of Shaka Player as is used. */
export interface ShakaPlayer {
  getNetworkingEngine(): {
    registerRequestFilter(filter: ShakaFilter): void;
    unregisterRequestFilter(filter: ShakaFilter): void;
  } | null;
}

/** Settings for hls.js: `new Hls({...hlsTickets(session)})`. */
export function hlsTickets(session: UsherSession, options?: TicketOptions): {
  xhrSetup(request: XMLHttpRequest, url: string): void;
  fetchSetup(context: { url: string }, init?: RequestInit): Request;
};
/** Puts a filter on Shaka Player; the answer undoes it. */
export function shakaTickets(session: UsherSession, player: ShakaPlayer, options?: TicketOptions): () => void;
/** `fetch` with the ticket on it. */
export function ticketFetch(session: UsherSession, options?: TicketOptions): typeof fetch;
