// One rater's way through a study. The server knows where the rater is; this page shows that trial,
// and an answer waits in the browser until the server says that it is on disk.
import { View } from './view.js';

const at = (id) => document.getElementById(id);
const RETRY = [1, 2, 4, 8, 10]; // seconds
const TEXTS = {
  '2afc': ['Which one looks more like the reference?', 'A is closer', 'B is closer'],
  jnd: ['Are these two the same or different?', 'Same', 'Different'],
};
const ANSWERS = { '2afc': ['left', 'right'], jnd: ['same', 'different'] };
const PENDING = `vote ${location.pathname}`;
const SEEN = `seen ${location.pathname}`;

let state = null; // what the server said last
let trial = null; // {position, task} that is shown
let choice = null; // 0 or 1: the first or the second button
let ready = false; // pictures are there and no answer is on its way; see wait()
const clock = { total: 0, since: null }; // seconds during which the trial could be seen
const view = new View(at('panels'), (k) => { at('zoom').value = `${k}×`; });

// -- talking to the server

async function ask(path, options = {}) {
  const response = await fetch(path, { cache: 'no-store', ...options });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(body.error || response.statusText), { status: response.status });
  return body;
}

// Again and again while there is no connection; errors that repeat nothing are thrown.
async function askUntil(path, options) {
  for (let n = 0; ; n += 1) {
    try {
      const body = await ask(path, options);
      tell('');
      return body;
    } catch (error) {
      if (error.status && error.status < 500) throw error;
      tell('No connection. Your answers are safe; trying again.');
      await pause(RETRY[Math.min(n, RETRY.length - 1)]);
    }
  }
}

function pause(seconds) {
  return new Promise((resolve) => {
    const done = () => { window.removeEventListener('online', done); clearTimeout(timer); resolve(); };
    const timer = setTimeout(done, 1000 * seconds);
    window.addEventListener('online', done);
  });
}

function tell(problem) {
  at('problem').textContent = problem;
  at('problem').hidden = !problem;
}

// Sends the vote that waits in the browser, if any; whatever comes back is where the rater is now.
async function sync() {
  const waiting = JSON.parse(localStorage.getItem(PENDING) || 'null');
  if (waiting) {
    try {
      const body = JSON.stringify(waiting.vote);
      const headers = { 'Content-Type': 'application/json' };
      state = await askUntil(`votes/${waiting.position}`, { method: 'PUT', headers, body });
      localStorage.removeItem(PENDING);
      return;
    } catch (error) {
      localStorage.removeItem(PENDING);
      if (error.status !== 409) throw error; // 409: it was recorded before, or in another window
    }
  }
  state = await askUntil('state');
}

// -- showing

const address = (position, side) => `image/${position}/${side}`;

async function show() {
  at('title').textContent = state.title;
  at('bar').max = Math.max(state.total, 1);
  at('bar').value = state.done;
  at('count').textContent = `${state.done} / ${state.total}`;
  at('undo').disabled = state.done === 0;
  trial = state.coming[0] || null;
  at('trial').hidden = !trial;
  at('done').hidden = Boolean(trial);
  document.title = trial ? `${state.done + 1} of ${state.total}: ${state.title}` : state.title;
  at('status').textContent = trial ? `Trial ${state.done + 1} of ${state.total}` : '';
  if (!trial) return;
  wait(true);
  arrange(trial.task);
  pick(null);
  try {
    await draw(trial);
  } catch {
    tell('A picture did not come. Trying again.');
    await pause(2);
    tell('');
    await refresh();
    return;
  }
  wait(false);
  clock.total = 0;
  clock.since = document.hidden ? null : performance.now();
  const next = state.coming[1];
  if (next) for (const side of sides(next.task)) new Image().src = address(next.position, side);
}

const sides = (task) => (task === 'jnd' ? ['left', 'right'] : ['left', 'ref', 'right']);

function arrange(task) {
  const [question, first, second] = TEXTS[task];
  at('question').textContent = question;
  at('first').firstElementChild.textContent = first;
  at('second').firstElementChild.textContent = second;
  at('panels').querySelector('[data-side=ref]').hidden = task === 'jnd';
  at('panels').classList.toggle('two', task === 'jnd');
  const other = { '2afc': ['Reference', 'Reference'], jnd: ['B', 'A'] }[task];
  ['left', 'right'].forEach((side, i) => {
    at('panels').querySelector(`[data-side=${side}] figcaption .other`).textContent = other[i];
  });
}

// Puts the pictures into the page once all of them are decoded, so that none appears before another.
async function draw({ position, task }) {
  const panel = (side, kind) => at('panels').querySelector(`[data-side=${side}] img.${kind}`);
  const slots = sides(task).map((side) => [panel(side, 'own'), side]);
  for (const [side, opposite] of [['left', 'right'], ['right', 'left']]) {
    slots.push([panel(side, 'other'), task === 'jnd' ? opposite : 'ref']);
  }
  const loaded = slots.map(async ([slot, side]) => {
    const image = new Image();
    image.src = address(position, side);
    await image.decode();
    return [slot, image];
  });
  for (const [slot, image] of await Promise.all(loaded)) slot.src = image.src;
  await Promise.all(slots.map(([slot]) => slot.decode()));
  view.reset(state.size);
}

// Nothing can be answered while pictures load or an answer is on its way.
function wait(on) {
  ready = !on;
  at('trial').setAttribute('aria-busy', String(on));
}

function pick(next) {
  choice = next;
  at('first').setAttribute('aria-pressed', String(choice === 0));
  at('second').setAttribute('aria-pressed', String(choice === 1));
  at('confidence').disabled = choice === null;
}

function flip(on) {
  at('panels').classList.toggle('flipped', on);
  at('flip').setAttribute('aria-pressed', String(on));
}

// -- answering

const nonce = () => [...crypto.getRandomValues(new Uint8Array(16))]
  .map((byte) => byte.toString(16).padStart(2, '0')).join('');

function seconds() {
  const running = clock.since === null ? 0 : performance.now() - clock.since;
  return Math.min((clock.total + running) / 1000, 86400);
}

async function send(confidence) {
  if (!ready || choice === null) return;
  wait(true);
  const answer = ANSWERS[trial.task][choice];
  const vote = { answer, confidence, seconds: seconds(), nonce: nonce() };
  localStorage.setItem(PENDING, JSON.stringify({ position: trial.position, vote }));
  const inside = at('answer').contains(document.activeElement);
  const before = state.done;
  await refresh();
  if (inside && trial) at('first').focus();
  if (trial && state.done > before && state.done % state.break_every === 0) rest();
}

async function undo() {
  if (!state || state.done === 0 || !(ready || !trial)) return;
  wait(true);
  try {
    state = await askUntil(`votes/${state.done - 1}`, { method: 'DELETE' });
  } catch (error) {
    if (error.status !== 409) { tell(error.message); wait(false); return; }
  }
  await refresh();
  at('status').textContent = `Taken back. ${at('status').textContent}`;
}

async function refresh() {
  try {
    await sync();
    await show();
  } catch (error) {
    tell(error.status === 404 ? 'This link is not known here.' : `This went wrong: ${error.message}`);
  }
}

function rest() {
  const left = state.total - state.done;
  at('pause-text').textContent = `${state.done} answered, ${left} to go.`;
  at('pause').showModal();
}

// -- keys and buttons

const pressed = (event, action) => { event.preventDefault(); action(); };

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
  const { key } = event;
  if (event.shiftKey && key.startsWith('Arrow')) {
    const move = { ArrowLeft: [32, 0], ArrowRight: [-32, 0], ArrowUp: [0, 32], ArrowDown: [0, -32] };
    pressed(event, () => view.pan(...move[key]));
  } else if (key.toLowerCase() === 'f') flip(true);
  else if (key === '+' || key === '=') view.step(1);
  else if (key === '-') view.step(-1);
  else if (key === '0') view.fit();
  else if (key === '?') at('intro').showModal();
  else if (!event.repeat) onAnswerKey(event);
}

function onAnswerKey(event) {
  const { key } = event;
  const chosen = { ArrowLeft: 0, ArrowRight: 1 }[key];
  if (chosen !== undefined && ready) pressed(event, () => pick(chosen));
  else if (['1', '2', '3'].includes(key)) send(Number(key));
  else if (key === 'Enter' && choice !== null && !goesElsewhere(event.target)) {
    pressed(event, () => send(null));
  } else if (key.toLowerCase() === 'u' || key === 'Backspace') pressed(event, undo);
}

// Enter on a button that is not the chosen one presses that button.
const goesElsewhere = (target) => target.closest('button') && target.getAttribute('aria-pressed') !== 'true';

function listen() {
  document.addEventListener('keydown', onKey);
  document.addEventListener('keyup', (event) => { if (event.key.toLowerCase() === 'f') flip(false); });
  window.addEventListener('blur', () => flip(false));
  at('first').addEventListener('click', () => ready && pick(0));
  at('second').addEventListener('click', () => ready && pick(1));
  at('confidence').addEventListener('click', ({ target }) => {
    const button = target.closest('button');
    if (button) send(button.value ? Number(button.value) : null);
  });
  at('undo').addEventListener('click', undo);
  at('help').addEventListener('click', () => at('intro').showModal());
  at('in').addEventListener('click', () => view.step(1));
  at('out').addEventListener('click', () => view.step(-1));
  at('fit').addEventListener('click', () => view.fit());
  at('flip').addEventListener('pointerdown', () => flip(true));
  for (const end of ['pointerup', 'pointercancel', 'pointerleave']) at('flip').addEventListener(end, () => flip(false));
  at('flip').addEventListener('keydown', (event) => { if (event.key === ' ') pressed(event, () => flip(true)); });
  at('flip').addEventListener('keyup', () => flip(false));
  at('flip').addEventListener('contextmenu', (event) => event.preventDefault());
  document.addEventListener('visibilitychange', () => {
    if (clock.since !== null) clock.total += performance.now() - clock.since;
    clock.since = document.hidden ? null : performance.now();
  });
  at('intro').addEventListener('close', () => localStorage.setItem(SEEN, 'yes'));
}

listen();
await refresh();
if (trial && !localStorage.getItem(SEEN)) at('intro').showModal();
