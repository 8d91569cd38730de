// The two things one can do here: replay an event for the CRM, verify the audit log.

import { badge, byId, copyButton, figure, h, id, patch, problemBox, setText, time } from './dom.js';
import { count, duration, milliseconds, some } from './format.js';

/** The outbox, with its dead letters and their Replay buttons. */
export function createOutbox(api, signal) {
  let dead = null;
  let letters = [];
  let nextCursor = null;
  let may = false;
  let holding = false; // A replayed letter is still shown, because the focus is on it.
  const under = new Map(); // What became of a replay, by event: 'busy' or 'done'.

  function draw() {
    patch(
      byId('dead-letters'),
      letters.map((letter) => {
        const became = under.get(letter.id);
        return h(
          'tr',
          { 'data-key': letter.id, 'data-event-id': letter.id },
          h('th', { scope: 'row' }, id(letter.id, 18)),
          h('td', { 'data-label': 'Created' }, time(letter.createdAt)),
          h(
            'td',
            { 'data-label': 'Session' },
            letter.sessionId ? h('a', { href: `#session=${encodeURIComponent(letter.sessionId)}` }, id(letter.sessionId)) : '–',
          ),
          h('td', { class: 'number', 'data-label': 'Endpoint' }, count(letter.endpoint)),
          h('td', { class: 'number', 'data-label': 'Attempts' }, count(letter.attempts)),
          h('td', { class: 'long', 'data-label': 'Last error' }, letter.lastError ?? '–'),
          h(
            'td',
            { class: 'action' },
            h(
              'button',
              {
                type: 'button',
                'data-replay': letter.id,
                disabled: !may,
                'aria-describedby': may ? null : 'replay-explanation',
                'aria-label': `Replay event ${letter.id}`,
                'aria-disabled': became ? 'true' : null,
                'aria-busy': became === 'busy' ? 'true' : null,
              },
              became === 'busy' ? 'Replaying…' : became === 'done' ? 'Queued' : 'Replay',
            ),
          ),
        );
      }),
    );
    byId('dead-table').hidden = letters.length === 0;
    byId('dead-empty').hidden = letters.length > 0 || typeof dead !== 'number';
    byId('dead-letters').addEventListener(
      'focusout',
      () => {
        if (holding) load();
      },
      { signal },
    );
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
      const kept = cursor
        ? letters
        : letters.filter((letter) => letter.id === focused && under.has(letter.id) && !events.some((event) => event.id === letter.id));
      holding = kept.length > 0;
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
      patch(
        byId('outbox-result'),
        h('p', { class: 'result' }, badge('ok', `${some(answer?.events ?? 1, 'event')} will be sent again with the same ID.`)),
      );
    } catch (error) {
      if (signal.aborted) return;
      under.delete(event);
      patch(byId('outbox-result'), []);
      patch(byId('outbox-problem'), problemBox(error.problem));
    }
    draw();
  }

  byId('dead-letters').addEventListener(
    'click',
    (event) => {
      const button = event.target.closest('button[data-replay]');
      if (button && !button.disabled && button.getAttribute('aria-disabled') !== 'true') replay(button.dataset.replay);
    },
    { signal },
  );
  byId('dead-letters').addEventListener(
    'focusout',
    () => {
      if (holding) load();
    },
    { signal },
  );
  byId('dead-more').addEventListener('click', () => load(nextCursor), { signal });

  return {
    update(outbox, admin) {
      const changed = may !== admin;
      may = admin;
      const oldest = outbox.oldestPendingSeconds;
      patch(
        byId('outbox-figures'),
        figure(
          'Pending',
          count(outbox.pending),
          Number.isFinite(oldest) ? `oldest ${duration(oldest)}` : outbox.pending === 0 ? 'no pending events' : '',
          oldest > 300 ? 'watch' : null,
        ),
        figure('Dead letters', count(outbox.dead), outbox.dead > 0 ? 'all attempts failed' : '', outbox.dead > 0 ? 'act' : null),
        figure('Endpoints', count(outbox.endpoints), outbox.endpoints === 0 ? 'no endpoint configured' : ''),
      );
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
    button.setAttribute('aria-busy', String(busy));
    if (may) button.removeAttribute('aria-describedby');
    else button.setAttribute('aria-describedby', 'audit-explanation');
    setText(button, busy ? 'Verifying…' : 'Verify audit log');
    byId('audit-explanation').hidden = may;
  }

  async function verify() {
    if (busy || !may) return;
    busy = true;
    draw();
    patch(byId('audit-result'), h('p', { class: 'note' }, 'Verifying all records…'));
    try {
      const answer = await api.verifyAudit();
      if (signal.aborted) return;
      const logs = Array.isArray(answer?.logs) ? answer.logs : [];
      const records = logs.reduce((total, log) => total + (log.size ?? 0), 0);
      const words =
        answer?.verified === true
          ? badge(
              'ok',
              `Verified: ${some(records, 'record')} in ${some(logs.length, 'log')}, as they were written. Verified in ${milliseconds(answer.milliseconds)}.`,
            )
          : badge('bad', 'Verification failed: the log was changed.');
      patch(
        byId('audit-result'),
        h('p', { class: 'result' }, words, ' ', time(new Date().toISOString(), 'note')),
        h(
          'ul',
          { class: 'logs note' },
          logs.map((log) =>
            h(
              'li',
              {},
              `Log ${count(log.log)}: ${some(log.size, 'record')}, root `,
              id(log.root, 24),
              log.root && copyButton(log.root, `root of log ${log.log}`),
              log.origin && ` · ${log.origin}`,
            ),
          ),
        ),
      );
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
      patch(
        byId('audit-figures'),
        figure('Records', count(audit.size)),
        figure(
          'Behind',
          count(audit.behind),
          behind > 0 ? 'not yet in the file' : audit.behind === 0 ? 'file is complete' : '',
          behind > 100 ? 'watch' : null,
        ),
      );
      draw();
    },
  };
}
