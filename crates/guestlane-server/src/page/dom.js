// The few things that make and change elements. All text goes in as text, never as markup.

import { capital, localTime, shorten, utcTime } from './format.js';

const SVG = 'http://www.w3.org/2000/svg';

export const byId = (id) => document.getElementById(id);

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false && child !== ''));
  return element;
}

export const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
export const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);

/**
 * Makes `parent` have these children by changing what is there, so that focus, selection and scroll positions survive numbers that
 * change each second. Children with `data-key` are told apart by it. Listeners are not carried over: they belong on the parent.
 */
export function patch(parent, ...children) {
  const fresh = children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);
  const nodes = fresh.map((child) => (child instanceof Node ? child : document.createTextNode(child)));
  const wanted = new Set(nodes.map(keyOf).filter(Boolean));
  const old = new Map();
  for (const child of [...parent.childNodes]) {
    const key = keyOf(child);
    if (key && wanted.has(key)) old.set(key, child);
    else if (key) child.remove();
  }
  let place = parent.firstChild;
  for (const node of nodes) {
    const known = keyOf(node) ? old.get(keyOf(node)) : place && !keyOf(place) && place.nodeName === node.nodeName ? place : null;
    if (!known) {
      parent.insertBefore(node, place);
    } else {
      sync(known, node);
      if (known === place) place = place.nextSibling;
      else parent.insertBefore(known, place);
    }
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

const keyOf = (node) => (node instanceof Element ? node.getAttribute('data-key') : null);

function sync(old, fresh) {
  if (!(old instanceof Element)) {
    if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
    return;
  }
  for (const { name } of [...old.attributes]) if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of fresh.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  patch(old, [...fresh.childNodes]);
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// Each shape is another one: who sees no colours reads them all the same.
const ICONS = {
  ok: ['circle', { cx: 6, cy: 6, r: 5, class: 'fill' }, 'M3.6 6.2l1.7 1.7 3.2-3.6'],
  bad: ['circle', { cx: 6, cy: 6, r: 5, class: 'fill' }, 'M4.2 4.2l3.6 3.6M7.8 4.2l-3.6 3.6'],
  act: ['path', { d: 'M6 .8l5.4 10H.6z', class: 'fill' }, 'M6 4.4v3M6 8.9v.2'],
  watch: ['path', { d: 'M6 .4l5.6 5.6L6 11.6.4 6z', class: 'fill' }, 'M6 3.4v3M6 8.2v.2'],
  wait: ['rect', { x: 1, y: 1, width: 10, height: 10, rx: 2, class: 'fill' }, 'M4.6 3.8v4.4M7.4 3.8v4.4'],
  retried: ['circle', { cx: 6, cy: 6, r: 5, class: 'ring' }, 'M8.2 4.6A2.6 2.6 0 1 0 8.5 7M8.4 2.9v1.9H6.5'],
  half: ['circle', { cx: 6, cy: 6, r: 4.75, class: 'ring' }, 'M6 3.2a2.8 2.8 0 0 1 0 5.6z'],
  begun: ['circle', { cx: 6, cy: 6, r: 4.75, class: 'ring' }, ''],
};

export function icon(name) {
  const [shape, attributes, mark] = ICONS[name] ?? ICONS.begun;
  return s(
    'svg',
    { class: `icon icon-${name}`, viewBox: '0 0 12 12', 'aria-hidden': 'true' },
    s(shape, attributes),
    mark && s('path', { class: 'mark', d: mark }),
  );
}

export const badge = (name, text) => h('span', { class: `badge badge-${name}` }, icon(name), text);

export function time(text, className) {
  const shown = localTime(text);
  return h('time', { class: className, datetime: text, title: utcTime(text) }, shown);
}

/** An id, shortened in the middle, whole in the title. */
export function id(text, most) {
  if (text === null || text === undefined || text === '') return '–';
  const shown = shorten(text, most);
  return h('span', { class: 'id', title: shown === String(text) ? null : text }, shown);
}

export const copyButton = (text, what) =>
  h('button', { type: 'button', class: 'copy', 'data-copy': text, 'aria-label': `Copy the ${what}` }, 'copy');

export const figure = (name, value, note, level) =>
  h(
    'div',
    { class: 'figure', 'data-level': level, 'data-key': name },
    h('dt', {}, name),
    h('dd', {}, h('span', { class: 'value' }, value), h('span', { class: 'note' }, note ?? '')),
  );

/** A sentence of the service, whose commands are in backticks. */
export const prose = (text) =>
  capital(text)
    .split('`')
    .map((part, index) => (index % 2 === 1 ? h('code', {}, part) : part))
    .filter((part) => part !== '');

/** Only pages of this service are linked to. */
export function localHref(text) {
  return typeof text === 'string' && /^\/(?!\/)[\w\-./]*$/.test(text) ? text : null;
}

/** What went wrong, why, and what to do. */
export function problemBox(problem) {
  if (!problem) return [];
  const page = localHref(problem.type);
  const line = (name, value) => (value ? [h('dt', {}, name), h('dd', {}, prose(value))] : []);
  return h(
    'div',
    { class: 'problem' },
    h(
      'p',
      { class: 'problem-title' },
      icon('bad'),
      h('strong', {}, capital(problem.title ?? 'The request failed')),
      page && h('a', { href: page, target: '_blank', rel: 'noopener' }, 'error description'),
    ),
    problem.detail && h('p', {}, prose(problem.detail)),
    h(
      'dl',
      { class: 'pairs' },
      line('Cause', problem.cause),
      line('What to do', problem.fix),
      problem.retryable &&
        line('Retry', problem.retryAfter ? `Yes, in ${problem.retryAfter} s.` : 'Yes, without changes.'),
      problem.correlationId && [
        h('dt', {}, 'Correlation ID'),
        h('dd', {}, id(problem.correlationId, 40), copyButton(problem.correlationId, 'correlation ID')),
      ],
    ),
  );
}

/** Tells it to those who listen. While a dialog is open, all outside of it is silent. */
export function announce(text) {
  byId(byId('timeline').open ? 'announce-dialog' : 'announce').textContent = text;
}

export async function copy(button) {
  const text = button.dataset.copy;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS there is no clipboard: the old way.
    const area = h('textarea', { class: 'hidden', readonly: true });
    area.value = text;
    button.after(area);
    area.select();
    document.execCommand('copy');
    area.remove();
    button.focus();
  }
  button.textContent = 'done';
  announce('Copied.');
  setTimeout(() => {
    button.textContent = 'copy';
  }, 1500);
}
