// Numbers, times and ids as people read them. Nothing here touches the document.

const NONE = '–';
const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clockTime = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });
const dayAndTime = new Intl.DateTimeFormat('en-GB', {
  day: 'numeric',
  month: 'short',
  hour: '2-digit',
  minute: '2-digit',
  hourCycle: 'h23',
});

const known = (value) => typeof value === 'number' && Number.isFinite(value);

/** Ages are told by the service's clock: the browser's may be wrong by minutes. */
let skew = 0;

export function setNow(text) {
  const at = Date.parse(text);
  if (Number.isFinite(at)) skew = at - Date.now();
}

export const now = () => Date.now() + skew;

export const count = (value) => (known(value) ? whole.format(value) : NONE);

/** `1 session`, `2 sessions`. */
export const some = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** As a sentence begins, unless it begins with a name. */
export const capital = (text) => (/^(?!guestlane\b)[a-z]+[ ,:]/.test(text ?? '') ? text[0].toUpperCase() + text.slice(1) : (text ?? ''));

export const percent = (share) => (known(share) ? `${whole.format(share * 100)} %` : NONE);

/** A rate or a limit: a decimal only where it tells something. */
export function rate(value) {
  if (!known(value)) return NONE;
  return value >= 10 || Number.isInteger(value) ? whole.format(value) : tenth.format(value);
}

export function milliseconds(value) {
  if (!known(value)) return NONE;
  if (value >= 60_000) return duration(value / 1000);
  if (value >= 1000) return `${tenth.format(value / 1000)} s`;
  return `${value < 10 ? tenth.format(value) : whole.format(value)} ms`;
}

export function duration(seconds) {
  if (!known(seconds)) return NONE;
  const value = Math.max(0, seconds);
  if (value < 99.5) return `${whole.format(value)} s`;
  if (value < 99.5 * 60) return `${whole.format(value / 60)} min`;
  if (value < 48 * 3600) return `${whole.format(value / 3600)} h`;
  return `${whole.format(value / 86_400)} days`;
}

/** How long after the beginning: `+23 ms`. */
export function offset(from, to) {
  const difference = Date.parse(to) - Date.parse(from);
  if (!Number.isFinite(difference)) return '';
  const sign = difference < 0 ? '−' : '+';
  return sign + (difference === 0 ? '0 ms' : milliseconds(Math.abs(difference)).replace('.0 ms', ' ms'));
}

export function secondsSince(text) {
  const at = Date.parse(text);
  return Number.isFinite(at) ? (now() - at) / 1000 : null;
}

/** Local time; of another day with its date. */
export function localTime(text) {
  const at = new Date(text ?? NaN);
  if (Number.isNaN(at.getTime())) return NONE;
  const today = at.toDateString() === new Date(now()).toDateString();
  return (today ? clockTime : dayAndTime).format(at);
}

export function utcTime(text) {
  const at = new Date(text ?? NaN);
  return Number.isNaN(at.getTime()) ? '' : `${at.toISOString().replace('T', ' ').replace('Z', '')} UTC`;
}

/** Shortens in the middle: ids differ at both ends. */
export function shorten(text, most = 15) {
  const value = String(text ?? '');
  if (value.length <= most) return value;
  const head = Math.ceil((most - 1) / 2);
  return `${value.slice(0, head)}…${value.slice(value.length - (most - 1 - head))}`;
}

const STATES = {
  admitted: ['admitted', 'begun'],
  contact_ready: ['contact ready', 'half'],
  message_sent: ['message sent', 'half'],
  conversation_found: ['conversation found', 'half'],
  open: ['open', 'ok'],
  failed: ['failed', 'bad'],
  parked: ['parked', 'wait'],
  needs_attention: ['needs attention', 'act'],
};

/** A session's state: its words and its icon. */
export function sessionState(name) {
  const [text, icon] = STATES[name] ?? [String(name ?? NONE).replaceAll('_', ' '), 'begun'];
  return { text, icon };
}

const UNFINISHED = ['admitted', 'contact_ready', 'message_sent', 'conversation_found', 'parked'];

export const unfinished = (name) => UNFINISHED.includes(name);
