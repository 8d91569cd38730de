// Operates the dashboard and the documentation in a real browser, against a service with live
// traffic. Prints its observations as JSON.
//
// Usage: node dashboard.mjs PACKAGES ADDRESS KEY CHROMIUM [DIRECTORY FOR SCREENSHOTS]

const [, , packages, address, key, executablePath, screenshots] = process.argv;
const { chromium } = await import(`${packages}playwright-core/index.mjs`);
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-component-update', '--disable-sync'] });
const complaints = [];

async function open(path, { scheme = 'light', width = 1280, height = 900 } = {}) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme, serviceWorkers: 'block' });
  const page = await context.newPage();
  page.on('console', (message) => complaints.push(`${path}: ${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => complaints.push(`${path}: ${error.message}`));
  // The page works offline: it must not send a request to another origin.
  page.on('request', (request) => request.url().startsWith(address) || request.url().startsWith('data:') || complaints.push(`${path}: asks ${request.url()}`));
  await page.goto(address + path);
  return page;
}

const look = async (page, name, fullPage = true) => screenshots && page.screenshot({ path: `${screenshots}/${name}.png`, fullPage });
const seen = {};
const wait = { timeout: 20_000 };

// Without an API key, the page shows the sign-in form and no data of the service.
const stranger = await open('/');
await stranger.waitForSelector('#api-key', wait);
seen.strangerSeesDashboard = await stranger.isVisible('#dashboard');
await stranger.fill('#api-key', `${key.slice(0, -1)}${key.endsWith('x') ? 'y' : 'x'}`);
await stranger.keyboard.press('Enter');
await stranger.waitForFunction(() => document.querySelector('#sign-in-error')?.textContent.trim(), null, wait);
seen.wrongKey = (await stranger.textContent('#sign-in-error')).trim();
complaints.splice(0, complaints.length, ...complaints.filter((line) => !line.includes('401'))); // the browser logs every 401

// With an API key, the page shows the traffic.
const page = await open(`/#key=${key}`);
await page.waitForSelector('#connection[data-status=live]', wait);
await page.waitForSelector('#dashboard[data-known]', wait);
seen.keyInAddress = page.url().includes('gl_');
await page.waitForFunction(() => document.querySelectorAll('#chart-rate rect.opened').length > 0, null, wait);
seen.sentence = (await page.textContent('#state-sentence')).trim();
seen.rights = (await page.textContent('#rights')).trim();
seen.quota = (await page.textContent('#clients')).replace(/\s+/g, ' ').trim();
seen.keys = await page.locator('#key-rows tr').count();
await page.waitForSelector('#sessions-rows tr', wait);
await look(page, 'dashboard-light');

// By keyboard alone: go to the first session, open its timeline, and return.
await page.focus('#sessions-rows tr:first-child a');
await page.keyboard.press('Enter');
await page.waitForSelector('dialog#timeline[open] #timeline-entries li', wait);
seen.timeline = await page.locator('#timeline-entries li').evaluateAll((entries) => entries.map((entry) => entry.dataset.kind));
await look(page, 'timeline-light', false);
await page.keyboard.press('Escape');
seen.timelineClosed = !(await page.isVisible('dialog#timeline[open]'));

await page.click('#audit-verify');
await page.waitForFunction(() => document.querySelector('#audit-result')?.textContent.trim(), null, wait);
await page.waitForFunction(() => document.querySelector('#audit-verify')?.getAttribute('aria-busy') !== 'true', null, wait);
seen.audit = (await page.textContent('#audit-result')).replace(/\s+/g, ' ').trim();

const dark = await open(`/#key=${key}`, { scheme: 'dark' });
await dark.waitForSelector('#dashboard[data-known]', wait);
await dark.waitForSelector('#sessions-rows tr', wait);
seen.background = await dark.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
await look(dark, 'dashboard-dark');
const narrow = await open(`/#key=${key}`, { width: 390, height: 844 });
await narrow.waitForSelector('#dashboard[data-known]', wait);
await narrow.waitForFunction(() => document.querySelectorAll('#sessions-rows tr').length > 15, null, { timeout: 60_000 });
await narrow.waitForFunction(() => document.querySelectorAll('#chart-rate text.tick').length > 4, null, wait);
/** Returns unreadable elements: rows that the list cuts off, and labels that overlap. */
const unreadable = (page) =>
  page.evaluate(() => {
    const box = (element) => element.getBoundingClientRect();
    const view = box(document.querySelector('.window'));
    const cut = [...document.querySelectorAll('#sessions-rows tr')].filter((row) => box(row).top < view.bottom - 1 && box(row).bottom > view.bottom + 1);
    const labels = [...document.querySelectorAll('#chart-rate text.tick')].filter((text) => text.textContent.match(/ago|s$|^\d+$|now/));
    const times = labels.map(box).filter((label) => label.top > box(document.querySelector('#chart-rate')).bottom - 25);
    const touching = times.filter((label, index) => index > 0 && label.left < times[index - 1].right + 4);
    return { cut: cut.length, times: times.length, touching: touching.length };
  });
seen.unreadableNarrow = await unreadable(narrow);
seen.unreadableWide = await unreadable(page);
seen.scrollsSideways = await narrow.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
await look(narrow, 'dashboard-narrow');
const narrowDark = await open(`/#key=${key}`, { width: 390, height: 844, scheme: 'dark' });
await narrowDark.waitForSelector('#sessions-rows tr', wait);
await look(narrowDark, 'dashboard-narrow-dark');

const docs = await open('/docs');
await docs.waitForSelector('main section', wait);
seen.operations = await docs.locator('main section').count();
await look(docs, 'docs-light', false);

await browser.close();
console.log(JSON.stringify({ ...seen, complaints }));
process.exit(0);
