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
  return Number.isFinite(half) ? `${pace}, p50 latency ${milliseconds(half)}` : pace;
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
      'Too old to be retried safely. Check in the organization whether the conversation exists; if not, create the session with a new idempotency key.',
      '#sessions=needs_attention',
      attention === 1 ? 'Show it' : 'Show them',
    );
  }
  const dead = outbox.dead ?? 0;
  if (dead > 0) {
    act(
      'dead',
      some(dead, 'dead letter'),
      'All delivery attempts failed. Correct the webhook endpoint, then replay.',
      '#outbox',
      'Show dead letters',
    );
  }
  const quarantineReason = clients.filter((client) => client.quarantineReason);
  for (const client of quarantineReason) {
    act(
      `left-out-${client.client}`,
      `OAuth client ${client.client} is quarantined: ${client.quarantineReason}`,
      quarantineReason.length === clients.length
        ? 'All clients are quarantined: no session can be created until this is corrected.'
        : 'The other clients send its calls. Correct its secret or roles; it is retried automatically.',
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
      `${some(failed, 'request')} failed in the last minute`,
      'Each error response has the cause. When the cause is corrected, the same idempotency key can be used again.',
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
      `the oldest unfinished session has been waiting for ${duration(sessions.oldestUnfinishedSeconds)}`,
      'Unfinished sessions are completed automatically. If the time grows, check the errors.',
      '#sessions',
      'Show sessions',
    );
  }
  if (outbox.oldestPendingSeconds > 300) {
    watch(
      'pending',
      `the oldest event for the CRM has been pending for ${duration(outbox.oldestPendingSeconds)}`,
      'Delivery is retried automatically. Check whether the webhook endpoint is up.',
      '#outbox',
      'Show outbox',
    );
  }
  for (const client of clients) {
    if (!client.quarantineReason && client.limitPerSecond && client.usedShare >= 0.95) {
      watch(
        `quota-${client.client}`,
        `OAuth client ${client.client} uses ${percent(client.usedShare)} of its rate limit`,
        'Sessions wait for the rate limit, so none is rejected, but they take longer.',
        '#quota',
        'Show rate limit',
      );
    }
  }
  if (audit.behind > 100) {
    watch(
      'audit',
      `the audit log is ${some(audit.behind, 'record')} behind`,
      'It catches up automatically. If it does not, check the disk.',
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
    const need = acts.length === 1 ? '1 problem requires action' : `${acts.length} problems require action`;
    return { level: 'act', sentence: `${need}: ${list(acts)}.`, things: found, traffic: traffic(overview) };
  }
  if (found.length > 0)
    return { level: 'watch', sentence: `No action required. Warnings: ${list(found)}.`, things: found, traffic: traffic(overview) };
  return { level: 'ok', sentence: `Healthy: ${traffic(overview)}.`, things: [], traffic: '' };
}
