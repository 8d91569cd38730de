// The table of sessions: live while nobody reads in it, searchable, and page by page into the past.

import { badge, byId, h, id, patch, problemBox, setText, time } from './dom.js';
import { count, milliseconds, sessionState, some } from './format.js';

const MOST = 50;

export function createSessions(api, signal) {
  const body = byId('sessions-rows');
  const table = byId('sessions-table');
  const form = byId('session-filter');
  const state = byId('filter-state');
  const guest = byId('filter-guest');
  const pause = byId('sessions-pause');
  const newest = byId('sessions-newest');
  const older = byId('sessions-older');

  let filter = { state: '', guestId: '' };
  let rows = [];
  let nextCursor = null;
  let page = 0;
  let paused = false;
  let pointed = false;
  let loaded = false;
  let failedAt = null;
  let asked = 0; // The newest request wins, whichever is answered last.
  let waiting = new Map(); // Sessions that came since the table was last drawn, by id.
  const arrived = new Set();

  const live = () => page === 0 && !paused;

  /** The window ends between two rows: half a row cannot be read. */
  function fit() {
    const view = table.parentElement;
    view.style.maxHeight = '';
    const room = view.clientHeight;
    if (view.scrollHeight <= room) return;
    const ends = [...body.children].map((tr) => tr.offsetTop + tr.offsetHeight).filter((end) => end <= room);
    if (ends.length > 0) view.style.maxHeight = `${ends.at(-1)}px`;
  }
  const matches = (session) => (!filter.state || session.state === filter.state) && (!filter.guestId || session.guestId === filter.guestId);

  function row(session) {
    const shown = sessionState(session.state);
    const error = session.error?.message ?? session.error?.code;
    return h(
      'tr',
      {
        'data-key': session.sessionId,
        'data-session-id': session.sessionId,
        'data-state': session.state,
        class: arrived.has(session.sessionId) && 'arrived',
      },
      h('td', { class: 'at' }, time(session.admittedAt)),
      h(
        'td',
        { class: 'guest' },
        h('a', { href: `#session=${encodeURIComponent(session.sessionId)}`, title: session.guestId }, session.guestId ?? '–'),
      ),
      h('td', { class: 'what' }, badge(shown.icon, shown.text), error && h('span', { class: 'why', title: error }, error)),
      h('td', { class: 'wide' }, id(session.queueId)),
      h('td', { class: 'wider' }, id(session.conversationId)),
      h('td', { class: 'number wide' }, count(session.attempts)),
      h('td', { class: 'number' }, milliseconds(session.latencyMs)),
    );
  }

  function draw() {
    // The row that has the focus, or gets it back when the panel is closed, is never taken away.
    const focused = body.contains(document.activeElement) ? document.activeElement.closest('tr')?.dataset.sessionId : null;
    const opened = /^#session=(.+)$/.exec(location.hash)?.[1];
    if (rows.length > MOST) {
      const kept = rows.findIndex((session) => session.sessionId === (focused ?? opened));
      rows = kept >= MOST ? [...rows.slice(0, MOST - 1), rows[kept]] : rows.slice(0, MOST);
    }
    patch(body, rows.map(row));
    table.hidden = rows.length === 0;
    fit();
    const empty = byId('sessions-empty');
    empty.hidden = rows.length > 0 || !loaded;
    setText(
      empty,
      filter.state || filter.guestId ? 'No session matches.' : 'No sessions yet. Create one: guestlane create --guest user-1',
    );
    newest.hidden = page === 0;
    older.hidden = !nextCursor;
    drawStatus();
  }

  function drawStatus() {
    const fresh = [...waiting.values()].filter((session) => !rows.some((known) => known.sessionId === session.sessionId)).length;
    const coming = fresh > 0 ? `, ${count(fresh)} new` : '';
    let text = loaded ? 'Live' : '';
    if (page > 0) text = `Older sessions${coming}`;
    else if (paused) text = `Paused${coming}`;
    else if (pointed && fresh > 0) text = `Paused while the pointer is over the table${coming}`;
    setText(byId('sessions-status'), text);
    setText(pause, paused ? 'Continue' : 'Pause');
    pause.setAttribute('aria-pressed', String(paused));
    pause.disabled = page > 0;
  }

  /** Takes in what came. Not while the pointer is on the table: a click would hit another session than the one aimed at. */
  function takeIn() {
    if (failedAt !== null && page === 0 && Date.now() - failedAt > 5000) load(null, { quiet: true });
    if (!loaded || !live() || pointed) {
      drawStatus();
      return;
    }
    if (waiting.size === 0) return;
    const came = waiting;
    waiting = new Map();
    rows = rows.map((session) => came.get(session.sessionId) ?? session);
    const known = new Set(rows.map((session) => session.sessionId));
    const fresh = [...came.values()].filter((session) => !known.has(session.sessionId) && matches(session));
    fresh.sort((a, b) => String(b.admittedAt).localeCompare(String(a.admittedAt)));
    fresh.forEach((session) => arrived.add(session.sessionId));
    rows = [...fresh, ...rows];
    draw();
    for (const known of arrived) if (!rows.some((session) => session.sessionId === known)) arrived.delete(known);
  }

  async function load(cursor, { quiet = false } = {}) {
    asked += 1;
    const mine = asked;
    if (!quiet) table.setAttribute('aria-busy', 'true');
    try {
      const answer = await api.sessions(filter, cursor);
      if (signal.aborted || mine !== asked) return false;
      if (!cursor) waiting = new Map();
      rows = Array.isArray(answer?.sessions) ? answer.sessions : [];
      nextCursor = answer?.nextCursor ?? null;
      loaded = true;
      failedAt = null;
      patch(byId('sessions-problem'), []);
      draw();
      return true;
    } catch (error) {
      if (signal.aborted || mine !== asked) return false;
      failedAt = Date.now();
      if (quiet) return false;
      patch(byId('sessions-problem'), problemBox(error.problem));
      if (page === 0) {
        // Rows of another search would be taken for what was asked.
        rows = [];
        nextCursor = null;
        loaded = false;
        setText(byId('sessions-range'), '');
        draw();
      }
      return false;
    } finally {
      if (mine === asked) table.removeAttribute('aria-busy');
    }
  }

  async function turn(to, cursor) {
    const before = page;
    page = to;
    if (!(await load(cursor))) {
      page = before;
      return;
    }
    setText(byId('sessions-range'), page === 0 ? '' : `Page ${page + 1}: ${some(rows.length, 'session')}`);
    byId('sessions').focus({ preventScroll: true });
    byId('sessions').scrollIntoView();
  }

  async function search() {
    filter = { state: state.value, guestId: guest.value.trim() };
    page = 0;
    paused = false;
    arrived.clear();
    const found = await load();
    const narrowed = filter.state || filter.guestId;
    if (found)
      setText(byId('sessions-range'), narrowed ? `${some(rows.length, 'session')}${nextCursor ? ' or more' : ''} found` : '');
  }

  form.addEventListener(
    'submit',
    (event) => {
      event.preventDefault();
      search();
    },
    { signal },
  );
  state.addEventListener('change', search, { signal });
  byId('filter-clear').addEventListener(
    'click',
    () => {
      state.value = '';
      guest.value = '';
      search();
    },
    { signal },
  );
  pause.addEventListener(
    'click',
    () => {
      paused = !paused;
      drawStatus();
      takeIn();
    },
    { signal },
  );
  older.addEventListener('click', () => turn(page + 1, nextCursor), { signal });
  newest.addEventListener('click', () => turn(0, null), { signal });
  // Only a mouse hovers; a finger leaves no pointer behind.
  body.addEventListener(
    'pointerenter',
    (event) => {
      pointed = event.pointerType === 'mouse';
    },
    { signal },
  );
  body.addEventListener(
    'pointerleave',
    () => {
      pointed = false;
      takeIn();
    },
    { signal },
  );
  body.addEventListener(
    'click',
    (event) => {
      const link = event.target.closest('tr')?.querySelector('a');
      if (!link || event.target.closest('a') || !getSelection().isCollapsed) return;
      // The panel gives the focus back to where it was.
      link.focus();
      link.click();
    },
    { signal },
  );
  const timer = setInterval(takeIn, 1000);
  const resized = new ResizeObserver(fit);
  resized.observe(form);
  signal.addEventListener('abort', () => {
    clearInterval(timer);
    resized.disconnect();
  });

  state.value = '';
  guest.value = '';

  return {
    load,
    /** One session of the stream. Drawn once a second: faster cannot be read. */
    add(session) {
      if (!session?.sessionId) return;
      waiting.delete(session.sessionId);
      waiting.set(session.sessionId, session);
      // While paused for hours this must not grow without end.
      if (waiting.size > 10_000) waiting.delete(waiting.keys().next().value);
    },
    /** Without a stream: ask. */
    refresh() {
      if (live() && !pointed && loaded) load(null, { quiet: true });
    },
    show(name) {
      state.value = name;
      guest.value = '';
      search();
      byId('sessions').scrollIntoView();
      byId('sessions').focus({ preventScroll: true });
    },
  };
}
