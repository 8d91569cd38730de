// The page as a whole: signing in, staying connected, and handing each overview to the parts.

import { createAudit, createOutbox } from './actions.js';
import { Api, Problem, sleep } from './api.js';
import { createCharts } from './chart.js';
import { announce, byId, copy, h, icon, patch, problemBox, prose, setText, time } from './dom.js';
import { capital, duration, setNow } from './format.js';
import { drawClients, drawErrors, drawFigures, drawKeys } from './panels.js';
import { createSessions } from './sessions.js';
import { assess } from './state.js';
import { createTimeline } from './timeline.js';

const KEY = 'guestlane-api-key';
const POLL = 2000;
const LONGEST_WAIT = 15_000;

let life = null; // Ends with signing out: every listener, timer and request hangs on it.
let route = () => {};

// ---- The key

/** From the address, which forgets it at once. */
function keyFromAddress() {
  const found = /^#key=(.+)$/.exec(location.hash);
  if (!found) return null;
  history.replaceState(null, '', location.pathname + location.search);
  return decoded(found[1]);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

// A browser may forbid storage: then the key lives as long as the page.
const storage = {
  get() {
    try {
      return sessionStorage.getItem(KEY);
    } catch {
      return null;
    }
  },
  set(key) {
    try {
      sessionStorage.setItem(KEY, key);
    } catch {
      /* not kept */
    }
  },
  forget() {
    try {
      sessionStorage.removeItem(KEY);
    } catch {
      /* was not kept */
    }
  },
};

function askForKey(problem) {
  life?.abort();
  life = null;
  storage.forget();
  for (const part of document.querySelectorAll('[data-live]')) part.replaceChildren();
  for (const name of ['dashboard', 'connection', 'rights', 'sign-out']) byId(name).hidden = true;
  delete byId('dashboard').dataset.known;
  byId('sign-in').hidden = false;
  setText(byId('sign-in-submit'), 'Sign in');
  document.title = 'guestlane';
  patch(byId('sign-in-error'), problemBox(problem));
  byId('api-key').setAttribute('aria-invalid', String(Boolean(problem)));
  byId('api-key').focus();
}

function signIn(text) {
  const key = text.trim();
  if (!/^gl_[\x21-\x7e]+$/.test(key)) {
    askForKey({
      title: 'This is not an API key',
      detail: 'An API key begins with gl_ and has no spaces.',
      fix: 'Copy the complete key, or create a new one.',
    });
    return;
  }
  setText(byId('sign-in-submit'), 'Signing in…');
  start(key);
}

/** The key is valid, or the service could not be asked. */
function showDashboard(key) {
  storage.set(key);
  byId('api-key').value = '';
  setText(byId('sign-in-submit'), 'Sign in');
  patch(byId('sign-in-error'), []);
  const asked = !byId('sign-in').hidden;
  byId('sign-in').hidden = true;
  for (const name of ['dashboard', 'connection', 'rights', 'sign-out']) byId(name).hidden = false;
  // The focus was in the form.
  if (asked) byId('state').focus({ preventScroll: true });
}

// ---- The connection

function start(key) {
  life?.abort();
  life = new AbortController();
  const { signal } = life;
  const api = new Api(key, signal);

  let overview = null;
  let status = 'connecting'; // connecting, live, polling (no stream, but answers), lost
  let lastAt = null;
  let retryAt = null;
  let trouble = null; // Why the last question had no answer, or not the one hoped for.
  let told = ''; // What was last said aloud of the state.
  let wake = new AbortController(); // Ends the wait before the next attempt.

  const charts = createCharts(signal);
  const sessions = createSessions(api, signal);
  const outbox = createOutbox(api, signal);
  const audit = createAudit(api, signal);
  const timeline = createTimeline(api, signal, {
    advice: (code) => overview?.problems?.find((problem) => problem.code === code),
    closed: () => {
      if (location.hash.startsWith('#session=')) history.replaceState(null, '', location.pathname + location.search);
      // The row that opened it may be gone, or there was none.
      if (document.activeElement === document.body && !byId('dashboard').hidden) byId('sessions').focus({ preventScroll: true });
    },
  });

  /** The key is refused, now or since some time. */
  const refused = (error) => {
    if (signal.aborted || !(error instanceof Problem) || (error.status !== 401 && error.status !== 403)) return false;
    const fix = 'Create a new key with the scope sessions:read or admin.';
    askForKey({ ...error.problem, fix: error.problem.fix ?? fix });
    return true;
  };

  function setStatus(name) {
    status = name;
    if (name === 'live') retryAt = null;
    drawConnection();
    drawState();
  }

  function drawConnection() {
    const place = byId('connection');
    const seconds = retryAt === null ? 0 : Math.ceil((retryAt - Date.now()) / 1000);
    const wait = seconds > 0 ? ` in ${seconds} s` : '';
    const [shape, text] = {
      connecting: ['begun', 'connecting'],
      live: ['ok', 'live'],
      polling: ['watch', 'reconnecting; updating every 2 s'],
      lost: ['bad', `reconnecting${wait}`],
    }[status];
    place.dataset.status = status;
    patch(place, icon(shape), h('span', {}, text));
  }

  function drawState() {
    const section = byId('state');
    if (!overview || status === 'lost') {
      const waiting = status === 'connecting';
      section.dataset.level = waiting ? 'wait' : 'act';
      patch(byId('state-icon'), waiting ? [] : icon('bad'));
      const since = lastAt && duration((Date.now() - lastAt) / 1000);
      const sentence = trouble?.status ? 'guestlane cannot report its state.' : 'guestlane does not respond.';
      setText(byId('state-sentence'), waiting ? 'Loading…' : sentence);
      patch(
        byId('state-traffic'),
        waiting
          ? ''
          : since
            ? ['The figures below are from ', time(new Date(lastAt).toISOString()), `, ${since} ago. This page reconnects automatically.`]
            : 'This page reconnects automatically.',
      );
      patch(byId('state-things'), waiting ? [] : thing({ kind: 'lost', level: 'act', ...lostThing() }));
      if (!waiting) speak(`lost ${trouble?.status}`, sentence);
      return;
    }
    const found = assess(overview);
    section.dataset.level = found.level;
    patch(byId('state-icon'), icon(found.level));
    setText(byId('state-sentence'), found.sentence);
    setText(byId('state-traffic'), found.traffic && `${found.traffic[0].toUpperCase()}${found.traffic.slice(1)}.`);
    patch(byId('state-things'), found.things.map(thing));
    const acts = found.things.filter((item) => item.level === 'act').length;
    document.title = acts > 0 ? `(${acts}) guestlane` : 'guestlane';
    // Aloud only when it is another state: the numbers change each second.
    speak(found.things.map((item) => item.kind).join(' ') || 'ok', found.sentence);
  }

  function lostThing() {
    if (!trouble?.status) {
      return {
        text: 'The service is not running, or the network is down',
        advice: 'Start it with `guestlane serve`. Sessions that other processes create are not affected.',
      };
    }
    const { title, detail, cause, fix } = trouble.problem;
    return { text: title, advice: [detail, cause, fix].filter(Boolean).map(capital).join('. ') };
  }

  const thing = (item) =>
    h(
      'li',
      { 'data-key': item.kind, 'data-kind': item.kind, 'data-level': item.level },
      icon(item.level),
      h(
        'div',
        {},
        h('p', {}, h('strong', {}, `${item.text[0].toUpperCase()}${item.text.slice(1)}.`), ' ', prose(item.advice)),
        item.href && h('a', { href: item.href }, item.link),
      ),
    );

  function speak(kind, sentence) {
    if (kind === told) return;
    told = kind;
    announce(sentence);
  }

  function draw() {
    if (!overview || document.hidden) return;
    const { scopes = [], surface, version, startedAt } = overview;
    const admin = scopes.includes('admin');
    patch(byId('about'), [surface, version].filter(Boolean).join(' · '), startedAt && [' · since ', time(startedAt)]);
    const rights = byId('rights');
    setText(rights, admin ? 'admin' : 'read only');
    rights.title = `Scopes of this key: ${scopes.join(', ') || 'none'}`;
    drawState();
    drawFigures({ ...overview, sessions: overview.sessions ?? {}, latency: overview.latency ?? {} });
    charts.update(overview.series ?? {});
    drawClients(overview.clients ?? []);
    drawErrors(overview.errors ?? {}, overview.problems ?? []);
    outbox.update(overview.outbox ?? {}, admin);
    drawKeys(overview.keys ?? []);
    audit.update(overview.audit ?? {}, admin);
  }

  function take(fresh) {
    if (!fresh || typeof fresh !== 'object') return;
    overview = withoutNulls(fresh);
    lastAt = Date.now();
    setNow(fresh.now);
    byId('dashboard').dataset.known = '';
    draw();
  }

  function takeEvent(name, value) {
    if (name === 'overview') {
      if (status !== 'live') setStatus('live');
      take(value);
    } else if (name === 'session') {
      sessions.add(value);
      timeline.changed(value?.sessionId);
    }
  }

  async function streamForEver() {
    let wait = 1000;
    while (!signal.aborted) {
      const missed = lastAt !== null;
      let came = false;
      try {
        await api.stream((name, value) => {
          if (signal.aborted) return;
          // The stream does not repeat what happened while it was closed.
          if (!came && missed) sessions.refresh();
          came = true;
          wait = 1000;
          takeEvent(name, value);
        });
      } catch (error) {
        if (signal.aborted || refused(error)) return;
        if (status === 'live') setStatus('polling');
        const asked = (error.problem?.retryAfter ?? 0) * 1000;
        retryAt = Date.now() + Math.max(wait, asked);
        wake = new AbortController();
        await sleep(retryAt - Date.now(), signal, wake.signal);
        wait = Math.min(wait * 2, LONGEST_WAIT);
      }
    }
  }

  /** Only while there is no stream. */
  async function pollForEver() {
    while (!signal.aborted) {
      if (status !== 'live') {
        try {
          const fresh = await api.overview();
          if (signal.aborted) return;
          const back = status === 'lost';
          if (status !== 'live') {
            setStatus('polling');
            take(fresh);
            sessions.refresh();
          }
          if (back) wake.abort();
        } catch (error) {
          if (signal.aborted || refused(error)) return;
          trouble = error;
          if (status !== 'live') setStatus('lost');
          await sleep((error.problem?.retryAfter ?? 0) * 1000, signal);
        }
      }
      await sleep(POLL, signal);
    }
  }

  route = () => {
    const [, name, value] = /^#(session|sessions)=(.+)$/.exec(location.hash) ?? [];
    if (name === 'session') timeline.open(decoded(value));
    else timeline.close();
    if (name === 'sessions') {
      sessions.show(value);
      // So that the same link works again.
      history.replaceState(null, '', location.pathname + location.search);
    }
  };

  document.addEventListener('visibilitychange', draw, { signal });
  const seconds = setInterval(() => {
    if (status !== 'live') {
      drawConnection();
      if (status === 'lost') drawState();
    }
  }, 1000);
  signal.addEventListener('abort', () => {
    clearInterval(seconds);
    route = () => {};
  });

  setStatus('connecting');
  begin();

  async function begin() {
    // One plain call first: it tells at once whether the key is good.
    try {
      const first = await api.overview();
      if (signal.aborted) return;
      showDashboard(key);
      take(first);
    } catch (error) {
      if (signal.aborted || refused(error)) return;
      trouble = error;
      showDashboard(key);
      setStatus('lost');
    }
    streamForEver();
    sleep(POLL, signal).then(pollForEver);
    sessions.load();
    route();
  }
}

/** Parts that are null are as if they were not told: each reader has a default for that. */
function withoutNulls(object) {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== null));
}

// ---- The beginning

byId('sign-in-form').addEventListener('submit', (event) => {
  event.preventDefault();
  signIn(byId('api-key').value);
});
byId('sign-out').addEventListener('click', () => askForKey());
document.addEventListener('click', (event) => {
  const button = event.target.closest?.('button[data-copy]');
  if (button) copy(button);
});
addEventListener('hashchange', () => {
  const given = keyFromAddress();
  if (given) signIn(given);
  else route();
});

const key = keyFromAddress() ?? storage.get();
if (key) signIn(key);
else askForKey();
