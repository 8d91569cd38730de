// One session's life, in a panel beside the page.

import { badge, byId, copyButton, h, icon, id, localHref, patch, problemBox, prose, setText, time } from './dom.js';
import { count, milliseconds, offset, sessionState, unfinished } from './format.js';

const STATUS = { ok: ['ok', 'ok'], retried: ['retried', 'retried'], failed: ['bad', 'failed'], waiting: ['wait', 'waiting'] };

/** `advice(code)`: cause and fix by the code of an error, if the service has told them. `closed`: the panel was closed. */
export function createTimeline(api, signal, { advice, closed }) {
  const dialog = byId('timeline');
  let shown = null;
  let session = null;
  let timer;

  const line = (name, value, whole) => {
    const told = value !== null && value !== undefined && value !== '';
    return h(
      'div',
      { 'data-key': name },
      h('dt', {}, name),
      h('dd', {}, told ? value : '–', told && whole && [' ', copyButton(whole, name.toLowerCase())]),
    );
  };
  const withId = (name, text) => line(name, text && id(text, 40), text);

  function errorBox(error) {
    if (!error) return [];
    const known = advice(error.code) ?? {};
    return problemBox({
      title: error.message ?? error.code,
      type: localHref(error.type ?? known.type),
      cause: error.cause ?? known.cause,
      fix: error.fix ?? known.fix,
      detail: error.message && error.code ? `Code \`${error.code}\`` : '',
    });
  }

  function drawSession(traceId) {
    const words = sessionState(session.state);
    setText(byId('timeline-heading'), `Session of ${session.guestId ?? 'a guest'}`);
    patch(
      byId('timeline-session'),
      h(
        'p',
        { class: 'headline' },
        badge(words.icon, words.text),
        session.latencyMs !== null &&
          session.latencyMs !== undefined &&
          h('span', { class: 'note' }, `in ${milliseconds(session.latencyMs)}`),
      ),
      errorBox(session.error),
      h(
        'dl',
        { class: 'facts' },
        withId('Session', session.sessionId),
        withId('Guest', session.guestId),
        withId('Conversation', session.conversationId),
        withId('Contact', session.contactId),
        withId('Queue', session.queueId),
        withId('Idempotency key', session.idempotencyKey),
        line('Attempts', count(session.attempts)),
        line('Admitted', session.admittedAt && time(session.admittedAt)),
        line('Opened', session.openedAt && time(session.openedAt)),
        traceId && withId('Trace', traceId),
      ),
    );
  }

  function entry(item, index, start) {
    const [shape, words] = STATUS[item.status] ?? ['begun', String(item.status ?? '')];
    const record = Number.isInteger(item.auditIndex) && `audit log ${item.auditLog ?? 1}, record ${count(item.auditIndex)}`;
    const details = [
      item.kind && item.kind !== item.title?.toLowerCase() && h('span', {}, item.kind),
      Number.isFinite(item.milliseconds) && h('span', {}, `took ${milliseconds(item.milliseconds)}`),
      record && h('span', {}, record),
      item.correlationId && h('span', {}, 'correlation ', id(item.correlationId, 24), copyButton(item.correlationId, 'correlation ID')),
      item.eventId && h('span', {}, 'event ', id(item.eventId, 24), copyButton(item.eventId, 'event ID')),
    ];
    return h(
      'li',
      { 'data-key': `${index}`, 'data-status': item.status, 'data-kind': item.kind },
      h('p', { class: 'offset' }, h('span', {}, offset(start, item.at)), time(item.at, 'note')),
      h('span', { class: 'rail', 'aria-hidden': 'true' }, icon(shape)),
      h(
        'div',
        { class: 'entry' },
        h(
          'p',
          { class: 'entry-title' },
          h('strong', {}, item.title ?? item.kind ?? '–'),
          h('span', { class: `badge badge-${shape}` }, words),
        ),
        item.detail && h('p', {}, prose(item.detail)),
        h('p', { class: 'details note' }, details),
      ),
    );
  }

  async function load() {
    clearTimeout(timer);
    const wanted = shown;
    try {
      const answer = await api.timeline(wanted);
      if (signal.aborted || wanted !== shown) return;
      session = answer?.session ?? {};
      const entries = Array.isArray(answer?.entries) ? answer.entries : [];
      const start = entries[0]?.at ?? session.admittedAt;
      patch(byId('timeline-problem'), []);
      drawSession(answer?.traceId);
      patch(
        byId('timeline-entries'),
        entries.map((item, index) => entry(item, index, start)),
      );
      const wait = byId('timeline-wait');
      wait.hidden = entries.length > 0;
      byId('timeline-happened').hidden = entries.length === 0;
      setText(wait, 'No entries are recorded.');
      if (unfinished(session.state) || entries.some((item) => item.status === 'waiting')) timer = setTimeout(load, 3000);
    } catch (error) {
      if (signal.aborted || wanted !== shown) return;
      byId('timeline-wait').hidden = true;
      patch(byId('timeline-problem'), problemBox(error.problem));
      if (error.status === 0) timer = setTimeout(load, 3000);
    }
  }

  function clear() {
    for (const name of ['timeline-problem', 'timeline-session', 'timeline-entries']) patch(byId(name), []);
    setText(byId('timeline-heading'), 'Session');
    const wait = byId('timeline-wait');
    setText(wait, 'Loading…');
    byId('timeline-happened').hidden = true;
    wait.hidden = false;
  }

  function forget() {
    clearTimeout(timer);
    shown = null;
    session = null;
  }

  byId('timeline-close').addEventListener('click', () => dialog.close(), { signal });
  dialog.addEventListener(
    'click',
    (event) => {
      // Only what is beside the panel has the dialog itself as its target.
      if (event.target === dialog) dialog.close();
    },
    { signal },
  );
  dialog.addEventListener(
    'close',
    () => {
      forget();
      closed();
    },
    { signal },
  );
  signal.addEventListener('abort', () => {
    forget();
    dialog.close();
    clear();
  });

  return {
    open(sessionId) {
      if (shown === sessionId && dialog.open) return;
      shown = sessionId;
      clear();
      if (!dialog.open) dialog.showModal();
      byId('timeline-panel').scrollTop = 0;
      load();
    },
    close: () => dialog.close(),
    /** Something happened to a session. */
    changed(sessionId) {
      if (shown !== null && sessionId === shown) load();
    },
  };
}
