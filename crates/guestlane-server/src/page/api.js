// Calls to the service, and its stream of events. The key is in the Authorization header and nowhere else.

/** An answer that is not the one hoped for. `status` 0: there was none. */
export class Problem extends Error {
  constructor(status, problem) {
    super(problem.title);
    this.status = status;
    this.problem = problem;
  }
}

const unreachable = () =>
  new Problem(0, {
    title: 'guestlane does not respond',
    cause: 'the service is not running, or the network is down',
    fix: 'start it with `guestlane serve`; this page reconnects automatically',
  });

async function refusal(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // A proxy's page, say: the status must do.
  }
  const title = typeof problem?.title === 'string' ? problem.title : `The service responded ${response.status}`;
  return new Problem(response.status, { ...problem, title });
}

export class Api {
  constructor(key, signal) {
    this.key = key;
    this.signal = signal;
  }

  async #send(path, { method = 'GET', accept = 'application/json', signal } = {}) {
    const headers = { authorization: `Bearer ${this.key}`, accept };
    let response;
    try {
      response = await fetch(path, { method, headers, cache: 'no-store', credentials: 'omit', redirect: 'error', signal });
    } catch {
      throw unreachable();
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }

  /** `patience` in milliseconds; verifying a long log takes its time. */
  async call(path, { method = 'GET', patience = 10_000 } = {}) {
    const response = await this.#send(path, { method, signal: either(this.signal, AbortSignal.timeout(patience)) });
    try {
      return await response.json();
    } catch {
      throw unreachable();
    }
  }

  overview() {
    return this.call('/v1/overview');
  }

  sessions(filter, cursor) {
    return this.call(`/v1/sessions?${query({ ...filter, limit: 50, cursor })}`);
  }

  timeline(id) {
    return this.call(`/v1/sessions/${encodeURIComponent(id)}/timeline`);
  }

  deadLetters(cursor) {
    return this.call(`/v1/outbox?${query({ state: 'dead', limit: 50, cursor })}`);
  }

  replay(id) {
    return this.call(`/v1/outbox/${encodeURIComponent(id)}:replay`, { method: 'POST' });
  }

  verifyAudit() {
    return this.call('/v1/audit:verify', { method: 'POST', patience: 15 * 60_000 });
  }

  /** Reads the stream until it ends, which is always an error. A stream that is silent for `patience` is dead. */
  async stream(onEvent, patience = 10_000) {
    const stop = new AbortController();
    let timer;
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => stop.abort(), patience);
    };
    alive();
    try {
      const response = await this.#send('/v1/events', { accept: 'text/event-stream', signal: either(this.signal, stop.signal) });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      const take = eventParser(onEvent);
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        alive();
        take(value);
      }
    } catch (error) {
      if (error instanceof Problem) throw error;
    } finally {
      clearTimeout(timer);
      stop.abort();
    }
    throw unreachable();
  }
}

function query(parameters) {
  const text = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) if (value !== null && value !== undefined && value !== '') text.set(name, value);
  return text;
}

/** `AbortSignal.any`, also for browsers that are some years old. */
function either(...signals) {
  if (AbortSignal.any) return AbortSignal.any(signals);
  const both = new AbortController();
  for (const signal of signals) {
    if (signal.aborted) both.abort();
    signal.addEventListener('abort', () => both.abort(), { once: true });
  }
  return both.signal;
}

/** Takes a `text/event-stream` in pieces that are cut anywhere. */
function eventParser(onEvent) {
  let rest = '';
  let name = '';
  let data = [];
  const line = (text) => {
    if (text === '') {
      if (data.length > 0) dispatch(name || 'message', data.join('\n'));
      name = '';
      data = [];
      return;
    }
    const colon = text.indexOf(':');
    const field = colon < 0 ? text : text.slice(0, colon);
    const value = colon < 0 ? '' : text.slice(colon + 1).replace(/^ /, '');
    if (field === 'event') name = value;
    if (field === 'data') data.push(value);
  };
  const dispatch = (event, text) => {
    let value;
    try {
      value = JSON.parse(text);
    } catch {
      return; // One bad event is no reason to lose the next ones.
    }
    onEvent(event, value);
  };
  return (piece) => {
    rest += piece;
    // A `\r` at the very end may be half of `\r\n`.
    const held = rest.endsWith('\r') ? '\r' : '';
    const lines = rest.slice(0, rest.length - held.length).split(/\r\n|\n|\r/);
    rest = lines.pop() + held;
    lines.forEach(line);
  };
}

/** A wait that ends early when it is no longer of use. */
export function sleep(milliseconds, ...signals) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    for (const signal of signals) {
      if (signal.aborted) resolve();
      signal.addEventListener(
        'abort',
        () => {
          clearTimeout(timer);
          resolve();
        },
        { once: true },
      );
    }
  });
}
