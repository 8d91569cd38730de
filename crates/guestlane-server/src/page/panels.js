// What an overview says, part by part. The two parts with something to do are in actions.js.

import { badge, byId, figure, h, localHref, patch, prose, s, time } from './dom.js';
import { count, duration, milliseconds, percent, rate, secondsSince, some } from './format.js';
import { rateNow } from './state.js';

export function drawFigures({ sessions = {}, latency = {}, series = {} }) {
  const link = (number, state) => (number > 0 ? h('a', { href: `#sessions=${state}` }, count(number)) : count(number));
  const of = latency.count > 0 ? `of ${count(latency.count)} in 5 min` : 'none in 5 min';
  const oldest = sessions.oldestUnfinishedSeconds;
  patch(
    byId('figures'),
    figure('Opened', `${rate(Math.round(rateNow(series) * 10) / 10)}/s`, 'mean of the last 10 s'),
    figure('p50 latency', milliseconds(latency.p50Ms), of),
    figure('p90 latency', milliseconds(latency.p90Ms)),
    figure('p99 latency', milliseconds(latency.p99Ms)),
    figure('Open', count(sessions.open), 'since the process started'),
    figure('Unfinished', count(sessions.unfinished), Number.isFinite(oldest) ? `oldest ${duration(oldest)}` : ''),
    figure('Failed', link(sessions.failed, 'failed'), 'total'),
    figure(
      'Need attention',
      link(sessions.needsAttention, 'needs_attention'),
      sessions.needsAttention > 0 ? 'action required' : '',
      sessions.needsAttention > 0 ? 'act' : null,
    ),
  );
}

function headroom(client) {
  if (!client.limitPerSecond) return 'no rate limit set';
  const left = Math.max(0, client.limitPerSecond * (1 - (client.usedShare ?? 0)));
  if (client.usedShare >= 0.95) return 'rate limit reached; sessions wait';
  const words = client.usedShare >= 0.8 ? 'low headroom' : client.usedShare >= 0.5 ? 'medium headroom' : 'high headroom';
  return `${words}: ${rate(left)} calls/s left`;
}

export function drawClients(clients) {
  if (clients.length === 0) {
    patch(byId('clients'), h('li', { class: 'empty' }, 'No OAuth client is configured.'));
    return;
  }
  patch(
    byId('clients'),
    clients.map((client) => {
      const limited = Number.isFinite(client.limitPerSecond) && client.limitPerSecond > 0;
      const share = limited ? Math.min(1, Math.max(0, client.usedShare ?? 0)) : 0;
      const level = client.quarantineReason ? 'act' : share >= 0.95 ? 'watch' : 'ok';
      const calls = limited
        ? `${rate(client.callsPerSecond)} of ${rate(client.limitPerSecond)} calls/s`
        : `${rate(client.callsPerSecond)} calls/s`;
      const bar = s(
        'svg',
        { class: 'gauge', viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
        s('rect', { class: 'room', width: 100, height: 6 }),
        s('rect', { class: `used used-${level}`, width: share * 100, height: 6 }),
      );
      const words = client.quarantineReason
        ? badge('act', `quarantined: ${client.quarantineReason}`)
        : level === 'watch'
          ? badge('watch', headroom(client))
          : h('span', { class: 'note' }, headroom(client));
      return h(
        'li',
        { 'data-key': `client-${client.client}`, 'data-client': client.client },
        h('p', { class: 'spread' }, h('strong', {}, `Client ${client.client}`), h('span', { class: 'tabular' }, calls)),
        limited &&
          h(
            'div',
            {
              role: 'meter',
              'aria-label': `Rate limit used by client ${client.client}`,
              'aria-valuemin': 0,
              'aria-valuemax': 100,
              'aria-valuenow': Math.round(share * 100),
              'aria-valuetext': `${percent(share)}, ${calls}`,
            },
            bar,
          ),
        h(
          'p',
          { class: 'spread' },
          words,
          h('span', { class: 'note tabular' }, `${limited ? `${percent(share)} used · ` : ''}429: ${count(client.throttled)}`),
        ),
      );
    }),
  );
}

const CATEGORIES = [
  [
    'tokenValidation',
    'Token validation',
    'Guest tokens that failed verification or were rejected by the platform',
    'Set the clocks of the machines. Look below at Signing keys whether a key was revoked; if no clock is wrong, do not trust the tokens.',
  ],
  [
    'rateLimit',
    'Rate limit',
    'The platform responded 429: its rate limit was exceeded',
    'No session is lost; the calls are retried. If the errors persist, set `GUESTLANE_PLATFORM_RATE_LIMIT` to the limit of the platform, or request a higher limit from Genesys.',
  ],
  [
    'auth',
    'Authentication',
    'Failed access token requests, and responses 401 and 403',
    'Run `guestlane doctor`: it names the client, and the permission or secret to correct.',
  ],
  [
    'network',
    'Network',
    'Missing or invalid responses, and 5xx of the platform',
    'No session is lost; sessions are completed automatically. If the errors persist, check the platform’s status page and the network.',
  ],
];

export function drawErrors(errors, problems) {
  const known = CATEGORIES.reduce((total, [key]) => total + (errors[key] ?? 0), 0);
  const row = ([key, name, cause, fix]) =>
    h(
      'tr',
      { 'data-key': key, 'data-category': key },
      h('th', { scope: 'row' }, name),
      h('td', { class: 'number', 'data-label': 'Count' }, count(errors[key])),
      h('td', { 'data-label': 'Cause' }, h('span', {}, prose(cause))),
      h('td', { 'data-label': 'What to do' }, h('span', {}, prose(fix))),
    );
  const other = (errors.total ?? 0) - known;
  patch(
    byId('error-categories'),
    CATEGORIES.map(row),
    other > 0 &&
      h(
        'tr',
        { 'data-key': 'other', 'data-category': 'other' },
        h('th', { scope: 'row' }, 'Other'),
        h('td', { class: 'number', 'data-label': 'Count' }, count(other)),
        h('td', { 'data-label': 'Cause' }, 'None of the above'),
        h('td', { 'data-label': 'What to do' }, 'See the recent errors below.'),
      ),
  );
  patch(
    byId('error-summary'),
    `${some(errors.total, 'attempt')} failed in total, including retried calls. Share of token validation errors: `,
    h('strong', { class: 'tabular', id: 'token-validation-rate' }, errors.tokenValidationRate ?? '–'),
    '.',
  );

  patch(
    byId('problems'),
    problems.map((problem) => {
      const page = localHref(problem.type);
      const title = problem.title ?? problem.code ?? '–';
      return h(
        'tr',
        { 'data-key': problem.code ?? title, 'data-problem': problem.code },
        h('th', { scope: 'row' }, page ? h('a', { href: page }, title) : title),
        h('td', { class: 'number', 'data-label': 'Count' }, count(problem.count)),
        h('td', { 'data-label': 'Last' }, time(problem.lastAt)),
        h('td', { 'data-label': 'Cause' }, h('span', {}, prose(problem.cause ?? '–'))),
        h('td', { 'data-label': 'What to do' }, h('span', {}, prose(problem.fix ?? '–'))),
      );
    }),
  );
  byId('problems-table').hidden = problems.length === 0;
  byId('problems-empty').hidden = problems.length > 0;
}

const KEY_STATES = {
  active: ['ok', 'active: signs tokens'],
  next: ['begun', 'next: will sign tokens'],
  retiring: ['half', 'retiring: signs no new tokens, existing tokens verify'],
  retired: ['begun', 'retired'],
  revoked: ['bad', 'revoked: its tokens are rejected'],
};

export function drawKeys(keys) {
  patch(
    byId('key-rows'),
    keys.map((key) => {
      const [shape, words] = KEY_STATES[key.state] ?? ['begun', key.state];
      const since = key.activeFrom ?? key.createdAt;
      const seconds = secondsSince(since);
      const told = key.state === 'active' ? `signs since ${duration(seconds)}` : seconds < 0 ? `signs in ${duration(-seconds)}` : null;
      return h(
        'tr',
        { 'data-key': key.kid, 'data-kid': key.kid },
        h('th', { scope: 'row', class: 'id' }, key.kid ?? '–'),
        h('td', { 'data-label': 'State' }, badge(shape, words)),
        h('td', { 'data-label': 'Since' }, h('span', {}, told && [told, ', '], time(since, 'note'))),
        h('td', { class: 'number', 'data-label': 'Age' }, duration(key.ageSeconds)),
      );
    }),
  );
  byId('keys-table').hidden = keys.length === 0;
  byId('keys-empty').hidden = keys.length > 0;
}
