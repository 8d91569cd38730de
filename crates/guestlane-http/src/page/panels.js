// What an overview says, part by part; and the two things one can do here: replay an event, verify the audit log.

import { badge, byId, copyButton, figure, h, id, localHref, patch, problemBox, s, setText, time } from './dom.js';
import { count, duration, milliseconds, percent, rate, secondsSince, some } from './format.js';
import { rateNow } from './state.js';

export function drawFigures({ sessions = {}, latency = {}, series = {} }) {
  const link = (number, state) => (number > 0 ? h('a', { href: `#sessions=${state}` }, count(number)) : count(number));
  const of = latency.count > 0 ? `of ${some(latency.count, 'session')} in 5 min` : 'no session in 5 min';
  const oldest = sessions.oldestUnfinishedSeconds;
  patch(byId('figures'),
    figure('Opened now', `${rate(Math.round(rateNow(series) * 10) / 10)}/s`, 'mean of 10 s'),
    figure('Half within', milliseconds(latency.p50Ms), of),
    figure('90 of 100 within', milliseconds(latency.p90Ms)),
    figure('99 of 100 within', milliseconds(latency.p99Ms)),
    figure('Open', count(sessions.open), 'in all'),
    figure('Unfinished', count(sessions.unfinished), Number.isFinite(oldest) ? `oldest ${duration(oldest)}` : ''),
    figure('Failed', link(sessions.failed, 'failed'), 'in all'),
    figure('Need attention', link(sessions.needsAttention, 'needs_attention'), sessions.needsAttention > 0 ? 'a person must look' : '', sessions.needsAttention > 0 ? 'act' : null));
}

function headroom(client) {
  if (!client.limitPerSecond) return 'no quota set';
  const left = Math.max(0, client.limitPerSecond * (1 - (client.usedShare ?? 0)));
  if (client.usedShare >= 0.95) return 'no room left: sessions wait';
  const words = client.usedShare >= 0.8 ? 'little room' : client.usedShare >= 0.5 ? 'enough room' : 'plenty of room';
  return `${words}: ${rate(left)} calls/s more`;
}

export function drawClients(clients) {
  if (clients.length === 0) {
    patch(byId('clients'), h('li', { class: 'empty' }, 'No OAuth client is set.'));
    return;
  }
  patch(byId('clients'), clients.map((client) => {
    const limited = Number.isFinite(client.limitPerSecond) && client.limitPerSecond > 0;
    const share = limited ? Math.min(1, Math.max(0, client.usedShare ?? 0)) : 0;
    const level = client.leftOut ? 'act' : share >= 0.95 ? 'watch' : 'ok';
    const calls = limited ? `${rate(client.callsPerSecond)} of ${rate(client.limitPerSecond)} calls/s` : `${rate(client.callsPerSecond)} calls/s`;
    const bar = s('svg', { class: 'gauge', viewBox: '0 0 100 6', preserveAspectRatio: 'none', 'aria-hidden': 'true' },
      s('rect', { class: 'room', width: 100, height: 6 }), s('rect', { class: `used used-${level}`, width: share * 100, height: 6 }));
    const words = client.leftOut ? badge('act', `left out: ${client.leftOut}`) : level === 'watch' ? badge('watch', headroom(client)) : h('span', { class: 'note' }, headroom(client));
    return h('li', { 'data-key': `client-${client.client}`, 'data-client': client.client },
      h('p', { class: 'spread' }, h('strong', {}, `Client ${client.client}`), h('span', { class: 'tabular' }, calls)),
      limited && h('div', { role: 'meter', 'aria-label': `Quota used by client ${client.client}`, 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': Math.round(share * 100), 'aria-valuetext': `${percent(share)}, ${calls}` }, bar),
      h('p', { class: 'spread' }, words, h('span', { class: 'note tabular' }, `${limited ? `${percent(share)} used · ` : ''}429: ${count(client.throttled)}`)));
  }));
}

const CATEGORIES = [
  ['tokenValidation', 'Token validation', 'Guest tokens that did not verify, or that the platform refused', 'Set the clocks of the machines. Look below at Signing keys whether a key was revoked; if no clock is wrong, do not trust the tokens.'],
  ['rateLimit', 'Rate limit', 'The platform answered 429: more calls than it allows', 'Nothing is lost: they are waited for. If it stays, set GUESTLANE_QUOTA to what the platform allows, or ask Genesys for more.'],
  ['auth', 'Authentication', 'Sign-ins that failed, 401 and 403', 'Run guestlane doctor: it names the client, and the permission or secret to mend.'],
  ['network', 'Network', 'No answers, broken answers, and 5xx of the platform', 'Nothing is lost: sessions are completed by themselves. If it stays, look at the platform’s status page and at this network.'],
];

export function drawErrors(errors, problems) {
  const known = CATEGORIES.reduce((total, [key]) => total + (errors[key] ?? 0), 0);
  const row = ([key, name, cause, fix]) => h('tr', { 'data-key': key, 'data-category': key },
    h('th', { scope: 'row' }, name), h('td', { class: 'number', 'data-label': 'Count' }, count(errors[key])),
    h('td', { 'data-label': 'Cause' }, cause), h('td', { 'data-label': 'What to do' }, fix));
  const other = (errors.total ?? 0) - known;
  patch(byId('error-categories'), CATEGORIES.map(row), other > 0 && h('tr', { 'data-key': 'other', 'data-category': 'other' },
    h('th', { scope: 'row' }, 'Other'), h('td', { class: 'number', 'data-label': 'Count' }, count(other)),
    h('td', { 'data-label': 'Cause' }, 'None of these'), h('td', { 'data-label': 'What to do' }, 'See below.')));
  patch(byId('error-summary'), `${some(errors.total, 'error')} in all. Token validation rate: `, h('strong', { class: 'tabular', id: 'token-validation-rate' }, errors.tokenValidationRate ?? '–'), ' of them.');

  patch(byId('problems'), problems.map((problem) => {
    const page = localHref(problem.type);
    const title = problem.title ?? problem.code ?? '–';
    return h('tr', { 'data-key': problem.code ?? title, 'data-problem': problem.code },
      h('th', { scope: 'row' }, page ? h('a', { href: page }, title) : title),
      h('td', { class: 'number', 'data-label': 'Count' }, count(problem.count)), h('td', { 'data-label': 'Last' }, time(problem.lastAt)),
      h('td', { 'data-label': 'Cause' }, problem.cause ?? '–'), h('td', { 'data-label': 'What to do' }, problem.fix ?? '–'));
  }));
  byId('problems-table').hidden = problems.length === 0;
  byId('problems-empty').hidden = problems.length > 0;
}

const KEY_STATES = {
  active: ['ok', 'signs'],
  next: ['begun', 'will sign'],
  retiring: ['half', 'retiring: signs no more, its tokens still verify'],
  retired: ['begun', 'retired'],
  revoked: ['bad', 'revoked: its tokens do not verify'],
};

export function drawKeys(keys) {
  patch(byId('key-rows'), keys.map((key) => {
    const [shape, words] = KEY_STATES[key.state] ?? ['begun', key.state];
    const since = key.activeFrom ?? key.createdAt;
    const seconds = secondsSince(since);
    const told = key.state === 'active' ? `signs since ${duration(seconds)}` : seconds < 0 ? `signs in ${duration(-seconds)}` : null;
    return h('tr', { 'data-key': key.kid, 'data-kid': key.kid },
      h('th', { scope: 'row', class: 'id' }, key.kid ?? '–'), h('td', {}, badge(shape, words)),
      h('td', {}, told && [told, ', '], time(since, 'note')), h('td', { class: 'number' }, duration(key.ageSeconds)));
  }));
  byId('keys-table').hidden = keys.length === 0;
  byId('keys-empty').hidden = keys.length > 0;
}

/** The outbox, with its dead letters and their Replay buttons. */
export function createOutbox(api, signal) {
  let dead = null;
  let letters = [];
  let nextCursor = null;
  let may = false;
  const under = new Map(); // What became of a replay, by event: 'busy' or 'done'.

  function draw() {
    patch(byId('dead-letters'), letters.map((letter) => {
      const became = under.get(letter.id);
      return h('tr', { 'data-key': letter.id, 'data-event-id': letter.id },
        h('th', { scope: 'row' }, id(letter.id, 18)), h('td', { 'data-label': 'Written' }, time(letter.createdAt)),
        h('td', { 'data-label': 'Session' }, letter.sessionId ? h('a', { href: `#session=${encodeURIComponent(letter.sessionId)}` }, id(letter.sessionId)) : '–'),
        h('td', { class: 'number', 'data-label': 'Receiver' }, count(letter.receiver)), h('td', { class: 'number', 'data-label': 'Tries' }, count(letter.tries)),
        h('td', { class: 'long', 'data-label': 'Last error' }, letter.lastError ?? '–'),
        h('td', { class: 'action' }, h('button', {
          type: 'button', 'data-replay': letter.id, disabled: !may, 'aria-describedby': may ? null : 'replay-explanation',
          'aria-label': `Replay event ${letter.id}`, 'aria-disabled': became ? 'true' : null, 'aria-busy': became === 'busy' ? 'true' : null,
        }, became === 'busy' ? 'Replaying…' : became === 'done' ? 'Queued' : 'Replay')));
    }));
    byId('dead-table').hidden = letters.length === 0;
    byId('dead-empty').hidden = letters.length > 0 || dead === null;
    byId('dead-more').hidden = !nextCursor;
    byId('replay-explanation').hidden = may || letters.length === 0;
  }

  async function load(cursor = null) {
    try {
      const answer = await api.deadLetters(cursor);
      if (signal.aborted) return;
      const events = Array.isArray(answer?.events) ? answer.events : [];
      // What was just replayed may still be listed by a second's delay; what had the focus does not vanish under it.
      const focused = document.activeElement?.dataset?.replay;
      const kept = cursor ? letters : letters.filter((letter) => letter.id === focused && under.has(letter.id) && !events.some((event) => event.id === letter.id));
      letters = [...kept, ...events];
      nextCursor = answer?.nextCursor ?? null;
      for (const known of under.keys()) if (events.some((event) => event.id === known) && under.get(known) === 'done') under.delete(known);
      patch(byId('outbox-problem'), []);
    } catch (error) {
      if (signal.aborted) return;
      dead = undefined; // Asked again with the next overview.
      if (error.status !== 0) patch(byId('outbox-problem'), problemBox(error.problem));
    }
    draw();
  }

  async function replay(event) {
    under.set(event, 'busy');
    draw();
    try {
      const answer = await api.replay(event);
      under.set(event, 'done');
      patch(byId('outbox-problem'), []);
      patch(byId('outbox-result'), h('p', { class: 'result' }, badge('ok', `${some(answer?.events ?? 1, 'event')} will be sent again, under the same id.`)));
    } catch (error) {
      if (signal.aborted) return;
      under.delete(event);
      patch(byId('outbox-result'), []);
      patch(byId('outbox-problem'), problemBox(error.problem));
    }
    draw();
  }

  byId('dead-letters').addEventListener('click', (event) => {
    const button = event.target.closest('button[data-replay]');
    if (button && !button.disabled && button.getAttribute('aria-disabled') !== 'true') replay(button.dataset.replay);
  }, { signal });
  byId('dead-more').addEventListener('click', () => load(nextCursor), { signal });

  return {
    update(outbox, admin) {
      const changed = may !== admin;
      may = admin;
      const oldest = outbox.oldestPendingSeconds;
      patch(byId('outbox-figures'),
        figure('Pending', count(outbox.pending), Number.isFinite(oldest) ? `oldest ${duration(oldest)}` : 'nothing waits', oldest > 300 ? 'watch' : null),
        figure('Dead letters', count(outbox.dead), outbox.dead > 0 ? 'all tries used up' : '', outbox.dead > 0 ? 'act' : null),
        figure('Receivers', count(outbox.receivers), outbox.receivers === 0 ? 'no CRM is told' : ''));
      if ((outbox.dead ?? 0) !== dead) {
        dead = outbox.dead ?? 0;
        load();
      } else if (changed) {
        draw();
      }
    },
  };
}

/** The audit log, and the button that verifies it. */
export function createAudit(api, signal) {
  const button = byId('audit-verify');
  let busy = false;
  let may = false;

  function draw() {
    button.disabled = !may;
    // Not `disabled` while it works: the focus would be lost.
    button.setAttribute('aria-disabled', String(!may || busy));
    button.toggleAttribute('aria-busy', busy);
    if (busy) button.setAttribute('aria-busy', 'true');
    if (may) button.removeAttribute('aria-describedby');
    else button.setAttribute('aria-describedby', 'audit-explanation');
    setText(button, busy ? 'Verifying…' : 'Verify audit log');
    byId('audit-explanation').hidden = may;
  }

  async function verify() {
    if (busy || !may) return;
    busy = true;
    draw();
    patch(byId('audit-result'), h('p', { class: 'note' }, 'Reading every record again…'));
    try {
      const answer = await api.verifyAudit();
      if (signal.aborted) return;
      const logs = Array.isArray(answer?.logs) ? answer.logs : [];
      const records = logs.reduce((total, log) => total + (log.size ?? 0), 0);
      const words = answer?.verified === true
        ? badge('ok', `Verified: ${some(records, 'record')} in ${some(logs.length, 'log')}, as they were written. It took ${milliseconds(answer.milliseconds)}.`)
        : badge('bad', 'Not verified: the log is not as it was written.');
      patch(byId('audit-result'), h('p', { class: 'result' }, words, ' ', time(new Date().toISOString(), 'note')),
        h('ul', { class: 'logs note' }, logs.map((log) => h('li', {}, `Log ${count(log.log)}: ${some(log.size, 'record')}, root `, id(log.root, 24), log.root && copyButton(log.root, `root of log ${log.log}`), log.origin && ` · ${log.origin}`))));
    } catch (error) {
      if (signal.aborted) return;
      patch(byId('audit-result'), problemBox(error.problem));
    } finally {
      busy = false;
      if (!signal.aborted) draw();
    }
  }

  button.addEventListener('click', verify, { signal });

  return {
    update(audit, admin) {
      may = admin;
      const behind = audit.behind ?? 0;
      const since = secondsSince(audit.checkpointAt);
      patch(byId('audit-figures'),
        figure('Records', count(audit.size)),
        figure('Behind', count(audit.behind), behind > 0 ? 'still to be written to the file' : 'all is in the file', behind > 100 ? 'watch' : null),
        figure('Checkpoint', audit.checkpointAt ? time(audit.checkpointAt) : '–', since === null ? '' : `signed ${duration(since)} ago`));
      draw();
    },
  };
}
