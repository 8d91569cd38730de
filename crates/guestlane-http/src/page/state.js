// "Is it well? If not, what do I do now?" in plain words. Pure: an overview goes in, words come out.

import { capital, count, duration, milliseconds, percent, rate, secondsSince, some } from './format.js';

const sum = (numbers) => (Array.isArray(numbers) ? numbers.reduce((total, number) => total + (Number(number) || 0), 0) : 0);

const midSentence = (text) => (/^[A-Z][a-z]/.test(text) || /^A /.test(text) ? text[0].toLowerCase() + text.slice(1) : text);

/** Sessions per second, over the last ten: one second by itself jumps too much to be read. */
export function rateNow(series) {
  const opened = Array.isArray(series?.opened) ? series.opened : [];
  return sum(opened.slice(-10)) / 10;
}

export function traffic(overview) {
  const minute = sum(overview.series?.opened);
  if (minute === 0) return 'no sessions in the last minute';
  const perSecond = rateNow(overview.series);
  const pace = perSecond >= 0.5 ? `${rate(Math.round(perSecond * 10) / 10)} sessions/s` : `${some(minute, 'session')} in the last minute`;
  const half = overview.latency?.p50Ms;
  return Number.isFinite(half) ? `${pace}, half of them within ${milliseconds(half)}` : pace;
}

/** What needs somebody (`act`), and what may soon (`watch`). `kind` stays the same while only numbers change. */
export function things(overview) {
  const { sessions = {}, outbox = {}, clients = [], keys = [], problems = [], audit = {}, series = {} } = overview;
  const found = [];
  const act = (kind, text, advice, href, link) => found.push({ level: 'act', kind, text, advice, href, link });
  const watch = (kind, text, advice, href, link) => found.push({ level: 'watch', kind, text, advice, href, link });

  const attention = sessions.needsAttention ?? 0;
  if (attention > 0) {
    act(
      'attention',
      `${some(attention, 'session')} ${attention === 1 ? 'needs' : 'need'} attention`,
      'Too old to be repeated safely. Look in the organization whether the conversation is there; if not, create the session under a new key.',
      '#sessions=needs_attention',
      attention === 1 ? 'Show it' : 'Show them',
    );
  }
  const dead = outbox.dead ?? 0;
  if (dead > 0) {
    act(
      'dead',
      some(dead, 'dead letter'),
      'The CRM did not take it in any of its tries. Mend the receiver, then replay.',
      '#outbox',
      'Show dead letters',
    );
  }
  const leftOut = clients.filter((client) => client.leftOut);
  for (const client of leftOut) {
    act(
      `left-out-${client.client}`,
      `OAuth client ${client.client} is left out: ${client.leftOut}`,
      leftOut.length === clients.length
        ? 'No other client is left: no session can be created until this is mended.'
        : 'Its calls go as the other clients. Mend it; it is tried again by itself.',
      '#quota',
      'Show clients',
    );
  }
  if (keys.length > 0 && !keys.some((key) => key.state === 'active')) {
    act('no-key', 'no signing key is active', 'Guest tokens cannot be signed.', '#keys', 'Show keys');
  }

  const failed = sum(series.failed);
  if (failed > 0) {
    watch(
      'failed',
      `${some(failed, 'request')} got an error in the last minute`,
      'Each was told why. The same idempotency key may be used again once the cause is mended.',
      '#errors',
      'Show errors',
    );
  }
  for (const problem of problems) {
    const ago = secondsSince(problem.lastAt);
    if (ago !== null && ago < 60) {
      watch(
        `problem-${problem.code}`,
        midSentence(problem.title ?? problem.code),
        `${count(problem.count)}×, last ${duration(ago)} ago. ${capital(problem.fix)}`,
        '#errors',
        'Show errors',
      );
    }
  }
  if (sessions.oldestUnfinishedSeconds > 60) {
    watch(
      'unfinished',
      `the oldest unfinished session waits for ${duration(sessions.oldestUnfinishedSeconds)}`,
      'Unfinished sessions are completed by themselves. If the time grows, look at the errors.',
      '#sessions',
      'Show sessions',
    );
  }
  if (outbox.oldestPendingSeconds > 300) {
    watch(
      'pending',
      `the oldest event for the CRM waits for ${duration(outbox.oldestPendingSeconds)}`,
      'It is tried again by itself. Look whether the receiver is up.',
      '#outbox',
      'Show outbox',
    );
  }
  for (const client of clients) {
    if (!client.leftOut && client.limitPerSecond && client.usedShare >= 0.95) {
      watch(
        `quota-${client.client}`,
        `OAuth client ${client.client} uses ${percent(client.usedShare)} of its quota`,
        'Sessions wait for room, so none is refused; they take longer.',
        '#quota',
        'Show quota',
      );
    }
  }
  if (audit.behind > 100) {
    watch(
      'audit',
      `the audit log is ${some(audit.behind, 'record')} behind`,
      'It should catch up by itself. If it does not, look at the disk.',
      '#audit',
      'Show audit log',
    );
  }
  return found;
}

/** The sentence and its level: `ok`, `watch` or `act`. */
export function assess(overview) {
  const found = things(overview);
  const acts = found.filter((thing) => thing.level === 'act');
  const list = (items) => items.map((thing) => thing.text).join('; ');
  if (acts.length > 0) {
    const need = acts.length === 1 ? '1 thing needs you' : `${acts.length} things need you`;
    return { level: 'act', sentence: `${need}: ${list(acts)}.`, things: found, traffic: traffic(overview) };
  }
  if (found.length > 0)
    return { level: 'watch', sentence: `Nothing needs you, but watch: ${list(found)}.`, things: found, traffic: traffic(overview) };
  return { level: 'ok', sentence: `All is well: ${traffic(overview)}.`, things: [], traffic: '' };
}
