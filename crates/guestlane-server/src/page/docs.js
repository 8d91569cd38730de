// The documentation, drawn from /openapi.json: works offline, and cannot say anything else than the service does.

import { h, prose } from './dom.js';

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

const paragraphs = (text) => (text ?? '').split('\n\n').filter(Boolean).map((part) => h('p', {}, prose(part)));

/** The schema itself, where it is only named; with the name. */
function resolve(schema, all) {
  const named = schema?.$ref ?? schema?.oneOf?.find((one) => one.$ref)?.$ref ?? schema?.allOf?.find((one) => one.$ref)?.$ref;
  if (!named) return [schema ?? {}, null];
  const name = named.split('/').pop();
  return [all[name] ?? {}, name];
}

function typeOf(schema, all) {
  const [found, name] = resolve(schema, all);
  if (name) return name;
  if (found.enum) return found.enum.join(' | ');
  const types = [found.type].flat().filter((type) => type && type !== 'null');
  if (types.includes('array')) return `${typeOf(found.items, all)}[]`;
  return `${types.join(' | ') || 'any'}${found.format ? ` (${found.format})` : ''}`;
}

function boundsOf(schema) {
  const bounds = [];
  const say = (name, words) => schema?.[name] !== undefined && bounds.push(`${words} ${schema[name]}`);
  say('minLength', 'minimum length');
  say('maxLength', 'maximum length');
  say('minimum', 'from');
  say('maximum', 'to');
  say('maxItems', 'maximum items');
  say('maxProperties', 'maximum fields');
  say('pattern', 'matches');
  return bounds.join(', ');
}

function example(schema, all, depth = 0) {
  const [found] = resolve(schema, all);
  if (found.examples?.length) return found.examples[0];
  if (found.example !== undefined) return found.example;
  if (found.enum) return found.enum[0];
  const type = [found.type].flat().find((one) => one && one !== 'null');
  if (type === 'object' && depth < 4) {
    return Object.fromEntries(Object.entries(found.properties ?? {}).map(([name, inner]) => [name, example(inner, all, depth + 1)]));
  }
  if (type === 'array') return depth < 4 ? [example(found.items, all, depth + 1)] : [];
  return type === 'boolean' ? false : null;
}

function members(schema, all) {
  const [found] = resolve(schema, all);
  const rows = Object.entries(found.properties ?? {}).map(([name, inner]) => {
    const must = found.required?.includes(name) ? '' : ' (optional)';
    const [target] = resolve(inner, all);
    const text = [inner.description ?? target.description, boundsOf(inner)].filter(Boolean).join(' — ');
    return h('tr', {}, h('td', {}, h('code', {}, name)), h('td', {}, typeOf(inner, all) + must), h('td', {}, prose(text)));
  });
  if (rows.length === 0) return null;
  const heading = h('tr', {}, ...['Field', 'Type', 'Description'].map((text) => h('th', { scope: 'col' }, text)));
  return h('table', {}, h('thead', {}, heading), h('tbody', {}, rows));
}

function parameters(operation, all) {
  if (!operation.parameters?.length) return null;
  const rows = operation.parameters.map((parameter) =>
    h('tr', {},
      h('td', {}, h('code', {}, parameter.name)),
      h('td', {}, `${parameter.in}, ${typeOf(parameter.schema, all)}${parameter.required ? '' : ' (optional)'}`),
      h('td', {}, prose([parameter.description, boundsOf(parameter.schema)].filter(Boolean).join(' — ')))));
  const heading = h('tr', {}, ...['Parameter', 'In, type', 'Description'].map((text) => h('th', { scope: 'col' }, text)));
  return h('table', {}, h('thead', {}, heading), h('tbody', {}, rows));
}

/** A request that can be pasted into a terminal. */
function curl(method, path, operation, all) {
  const lines = [`curl -X ${method.toUpperCase()} "${location.origin}${path.replace('{id}', operation.parameters?.find((one) => one.name === 'id')?.example ?? 'ID')}"`];
  if (operation.security?.some((scheme) => scheme.apiKey)) lines.push('-H "Authorization: Bearer $GUESTLANE_API_KEY"');
  const [type, body] = Object.entries(operation.requestBody?.content ?? {})[0] ?? [];
  if (type) {
    const text = typeof body.example === 'string' ? body.example.trim() : JSON.stringify(body.example ?? example(body.schema, all));
    lines.push(`-H "Content-Type: ${type}"`, `-d '${text}'`);
  }
  return lines.join(' \\\n  ');
}

function answers(operation, all) {
  return Object.entries(operation.responses).map(([status, response]) => {
    const [type, content] = Object.entries(response.content ?? {})[0] ?? [];
    const good = status < '400';
    const inside = [
      ...paragraphs(response.description),
      type && h('p', { class: 'note' }, `${type}${content.schema ? `: ${typeOf(content.schema, all)}` : ''}`),
      good && content?.schema && members(content.schema, all),
      good && content?.schema && !content.schema.type && h('pre', { tabindex: 0, 'aria-label': 'Example' }, JSON.stringify(example(content.schema, all), null, 2)),
    ];
    return h('details', {}, h('summary', {}, h('strong', {}, status), ' ', prose(response.description.split(';')[0])), inside);
  });
}

function section(method, path, operation, all) {
  const scopes = operation.security?.flatMap((scheme) => scheme.apiKey ?? []) ?? [];
  const needs = scopes.length ? `Requires an API key with the scope ${scopes.join(', ')}.` : 'Requires no API key.';
  const body = Object.entries(operation.requestBody?.content ?? {})[0];
  return h('section', { id: operation.operationId, 'aria-labelledby': `${operation.operationId}-title` },
    h('h3', { id: `${operation.operationId}-title` }, h('span', { class: 'method' }, method.toUpperCase()), h('span', { class: 'path' }, path)),
    h('p', {}, h('strong', {}, operation.summary ?? '')), paragraphs(operation.description), h('p', { class: 'note' }, needs),
    parameters(operation, all),
    body && h('h4', {}, `Body: ${body[0]}`), body && members(body[1].schema, all),
    h('pre', { tabindex: 0, 'aria-label': 'Example request' }, curl(method, path, operation, all)),
    answers(operation, all));
}

const document_ = await (await fetch('/openapi.json')).json();
const all = document_.components.schemas;
const operations = Object.entries(document_.paths).flatMap(([path, item]) =>
  METHODS.filter((method) => item[method]).map((method) => [method, path, item[method]]));
const contents = document.getElementById('contents');
const content = document.getElementById('content');
content.append(h('h1', {}, `${document_.info.title} ${document_.info.version}`), ...paragraphs(document_.info.description),
  h('p', {}, h('a', { href: '/' }, 'Dashboard'), ' · ', h('a', { href: '/openapi.json' }, 'OpenAPI document')));
for (const tag of document_.tags) {
  const of = operations.filter(([, , operation]) => operation.tags?.includes(tag.name));
  contents.append(h('h2', {}, tag.name === 'crm' ? 'CRM' : tag.name), ...of.map(([, , operation]) => h('a', { href: `#${operation.operationId}` }, operation.summary)));
  content.append(h('h2', {}, tag.description), ...of.map((one) => section(...one, all)));
}
document.getElementById(location.hash.slice(1))?.scrollIntoView();
