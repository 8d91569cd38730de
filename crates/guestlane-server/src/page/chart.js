// Two charts of the last 60 seconds with one cursor: sessions per second as columns, latency as lines.

import { byId, h, patch, s, setAttribute } from './dom.js';
import { count, localTime, milliseconds, utcTime } from './format.js';

const SECONDS = 60;
const HEIGHT = 150;
const MARGIN = { left: 64, right: 40, top: 10, bottom: 20 };

/** Steps of 1, 2 or 5 times a power of ten; of whole numbers where halves make no sense. */
function ticks(most, wholeNumbers, wanted = 4) {
  const rough = Math.max(most, wholeNumbers ? 1 : Number.MIN_VALUE) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  if (wholeNumbers) step = Math.max(1, Math.round(step));
  const values = [];
  for (let index = 0; values.length < 2 || values.at(-1) < most; index += 1) values.push(Number((index * step).toPrecision(6)));
  return values;
}

const numbers = (values) =>
  Array.from({ length: SECONDS }, (_, index) => {
    const value = Array.isArray(values) ? values[values.length - SECONDS + index] : null;
    return typeof value === 'number' && Number.isFinite(value) ? value : null;
  });

const largest = (...lists) => Math.max(0, ...lists.flat().filter((value) => value !== null));

/** Grows at once, shrinks only when there is much too much room: an axis that jumps cannot be read. */
function steady(kept, needed) {
  return needed > kept || needed < kept * 0.4 ? needed : kept;
}

export function createCharts(signal) {
  const cursor = byId('chart-cursor');
  const plots = { rate: byId('chart-rate'), latency: byId('chart-latency') };
  const top = { rate: 0, latency: 0 };
  let width = 0;
  let data = null;
  let chosen = null; // The second under the pointer or the keys; null: the last one.

  const step = () => (width - MARGIN.left - MARGIN.right) / SECONDS;
  const left = (index) => MARGIN.left + index * step();
  const scale = (most) => (value) => HEIGHT - MARGIN.bottom - (value / most) * (HEIGHT - MARGIN.top - MARGIN.bottom);

  function axes(values, y, unit, format) {
    const lines = values.map((value) => [
      s('line', { class: value === 0 ? 'base' : 'grid', x1: MARGIN.left, x2: width - MARGIN.right, y1: y(value), y2: y(value) }),
      s(
        'text',
        { class: 'tick', x: MARGIN.left - 6, y: y(value) + 4, 'text-anchor': 'end' },
        value > 0 && value === values.at(-1) ? `${format(value)}${unit}` : format(value),
      ),
    ]);
    const times = [60, 45, 30, 15, 0].map((ago) =>
      s(
        'text',
        { class: 'tick', x: left(SECONDS - ago), y: HEIGHT - 4, 'text-anchor': ago === 60 ? 'start' : ago === 0 ? 'end' : 'middle' },
        // Beside the next label there may be no room for all of it.
        ago === 0 ? 'now' : ago === 60 ? (step() * 15 > 80 ? '60 s ago' : '60 s') : `${ago}`,
      ),
    );
    return [lines, times];
  }

  const marker = () =>
    chosen === null
      ? null
      : s('line', {
          class: 'marker',
          x1: left(chosen) + step() / 2,
          x2: left(chosen) + step() / 2,
          y1: MARGIN.top,
          y2: HEIGHT - MARGIN.bottom,
        });

  function drawRate() {
    const totals = data.opened.map((opened, index) => (opened ?? 0) + (data.failed[index] ?? 0));
    top.rate = steady(top.rate, largest(totals));
    const values = ticks(top.rate, true, 3);
    const y = scale(values.at(-1));
    const wide = Math.max(1, step() - (step() > 4 ? 1.5 : 0.5));
    const column = (index, from, to, className, fill) =>
      to > from ? s('rect', { class: className, fill, x: left(index), width: wide, y: y(to), height: Math.max(1, y(from) - y(to)) }) : null;
    const columns = data.opened.map((opened, index) => [
      column(index, 0, opened ?? 0, 'opened'),
      column(index, opened ?? 0, totals[index], 'failed'),
      // The stripes tell failed ones where the colour does not.
      column(index, opened ?? 0, totals[index], 'stripes', 'url(#stripes)'),
    ]);
    const stripes = s(
      'defs',
      {},
      s(
        'pattern',
        { id: 'stripes', width: 4, height: 4, patternUnits: 'userSpaceOnUse', patternTransform: 'rotate(45)' },
        s('rect', { class: 'stripe', width: 1.5, height: 4 }),
      ),
    );
    patch(plots.rate, stripes, axes(values, y, '/s', count), s('g', {}, columns), marker());
    const failed = data.failed.reduce((total, value) => total + (value ?? 0), 0);
    setAttribute(
      plots.rate,
      'aria-label',
      `Sessions opened per second in the last minute: ${count(data.opened.at(-1))} in the last second, ` +
        `at least ${count(Math.min(...data.opened.map((value) => value ?? 0)))}, at most ${count(largest(data.opened))}. ${count(failed)} requests failed.`,
    );
  }

  function drawLatency() {
    top.latency = steady(top.latency, largest(data.p50Ms, data.p99Ms));
    const values = ticks(top.latency || 100, false, 3);
    const inSeconds = values.at(-1) >= 5000;
    const y = scale(values.at(-1));
    const place = (value, index) => `${(left(index) + step() / 2).toFixed(1)},${y(value).toFixed(1)}`;
    const line = (list, className) => {
      let path = '';
      list.forEach((value, index) => {
        if (value === null) return;
        const joined = index > 0 && list[index - 1] !== null;
        path += `${joined ? 'L' : 'M'}${place(value, index)}`;
        // A second between two silent ones is a dot.
        if (!joined && (list[index + 1] ?? null) === null) path += 'h.01';
      });
      return path && s('path', { class: className, d: path });
    };
    const latest = (list) => list.findLastIndex((value) => value !== null);
    const named = [
      ['p50', data.p50Ms],
      ['p99', data.p99Ms],
    ]
      .filter(([, list]) => latest(list) > SECONDS - 10)
      .map(([name, list]) => ({ name, at: y(list[latest(list)]) + 4 }));
    // Two names on one line cannot be read.
    if (named.length === 2 && named[0].at - named[1].at < 13) {
      const middle = Math.min((named[0].at + named[1].at) / 2, HEIGHT - MARGIN.bottom - 3);
      named[0].at = middle + 6.5;
      named[1].at = middle - 6.5;
    }
    const names = named.map(({ name, at }) => s('text', { class: `name ${name}`, x: width - MARGIN.right + 6, y: at }, name));
    patch(
      plots.latency,
      axes(values, y, inSeconds ? ' s' : ' ms', (value) => (inSeconds ? String(value / 1000) : count(value))),
      line(data.p99Ms, 'line p99'),
      line(data.p50Ms, 'line p50'),
      names,
      marker(),
    );
    setAttribute(
      plots.latency,
      'aria-label',
      `Latency in the last second: p50 ${milliseconds(data.p50Ms.at(-1))}, p99 ` +
        `${milliseconds(data.p99Ms.at(-1))}. Slowest p99 of the last minute: ${milliseconds(largest(data.p99Ms) || null)}.`,
    );
  }

  const perSecond = (value) => (value === null ? '–' : `${count(value)}/s`);
  const secondAt = (index) => new Date(data.until - (SECONDS - 1 - index) * 1000).toISOString();
  const agoWords = (index) => (index === SECONDS - 1 ? 'now' : `${SECONDS - 1 - index} s ago`);

  function drawReadout() {
    const index = chosen ?? SECONDS - 1;
    const item = (name, value) => h('span', { class: 'item' }, h('span', { class: 'note' }, name), ' ', h('strong', {}, value));
    const at = Number.isFinite(data.until)
      ? h('time', { class: 'note', datetime: secondAt(index), title: utcTime(secondAt(index)) }, localTime(secondAt(index)))
      : null;
    patch(
      byId('chart-readout'),
      h('span', { class: 'item when' }, h('strong', {}, agoWords(index)), ' ', at),
      item('opened', perSecond(data.opened[index])),
      item('errors', perSecond(data.failed[index])),
      item('p50', milliseconds(data.p50Ms[index])),
      item('p99', milliseconds(data.p99Ms[index])),
    );
  }

  function draw() {
    if (!data || width < 50) return;
    for (const plot of Object.values(plots)) {
      setAttribute(plot, 'viewBox', `0 0 ${width} ${HEIGHT}`);
      setAttribute(plot, 'height', String(HEIGHT));
    }
    drawRate();
    drawLatency();
    drawReadout();
  }

  function choose(index) {
    chosen = index === null ? null : Math.min(SECONDS - 1, Math.max(0, index));
    const shown = chosen ?? SECONDS - 1;
    setAttribute(cursor, 'aria-valuenow', String(shown - SECONDS + 1));
    if (data) {
      setAttribute(
        cursor,
        'aria-valuetext',
        `${agoWords(shown)}: ${count(data.opened[shown])} opened, ${count(data.failed[shown])} failed, ` +
          `p50 ${milliseconds(data.p50Ms[shown])}, p99 ${milliseconds(data.p99Ms[shown])}`,
      );
    }
    draw();
  }

  function drawTable() {
    if (!data || !byId('chart-numbers').open) return;
    const rows = data.opened.map((opened, index) =>
      h(
        'tr',
        {},
        h('th', { scope: 'row' }, Number.isFinite(data.until) ? localTime(secondAt(index)) : agoWords(index)),
        [count(opened), count(data.failed[index]), milliseconds(data.p50Ms[index]), milliseconds(data.p99Ms[index])].map((value) =>
          h('td', { class: 'number' }, value),
        ),
      ),
    );
    patch(
      byId('chart-table'),
      h('caption', {}, 'State when this table was opened, newest first'),
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          ['Second', 'Opened', 'Errors', 'p50', 'p99'].map((name, index) => h('th', { scope: 'col', class: index > 0 && 'number' }, name)),
        ),
      ),
      h('tbody', {}, rows.reverse()),
    );
  }

  cursor.addEventListener(
    'pointermove',
    (event) => {
      const box = plots.rate.getBoundingClientRect();
      choose(Math.floor((event.clientX - box.left - MARGIN.left) / step()));
    },
    { signal },
  );
  cursor.addEventListener('pointerleave', () => choose(null), { signal });
  cursor.addEventListener('blur', () => choose(null), { signal });
  cursor.addEventListener(
    'keydown',
    (event) => {
      const at = chosen ?? SECONDS - 1;
      const moves = {
        ArrowLeft: at - 1,
        ArrowDown: at - 1,
        ArrowRight: at + 1,
        ArrowUp: at + 1,
        PageDown: at - 10,
        PageUp: at + 10,
        Home: 0,
        End: SECONDS - 1,
        Escape: null,
      };
      if (!(event.key in moves)) return;
      event.preventDefault();
      choose(moves[event.key]);
    },
    { signal },
  );
  byId('chart-numbers').addEventListener('toggle', drawTable, { signal });

  const observer = new ResizeObserver(() => {
    width = Math.floor(plots.rate.getBoundingClientRect().width);
    draw();
  });
  observer.observe(plots.rate);
  signal.addEventListener('abort', () => observer.disconnect());

  return {
    update(series = {}) {
      data = {
        until: Date.parse(series?.until),
        opened: numbers(series?.opened),
        failed: numbers(series?.failed),
        p50Ms: numbers(series?.p50Ms),
        p99Ms: numbers(series?.p99Ms),
      };
      draw();
    },
  };
}
