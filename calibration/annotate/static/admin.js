// The organiser's page: progress, agreement and speed, asked for again every few seconds.
const at = (id) => document.getElementById(id);
const EVERY = 5000; // milliseconds

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const share = (value) => (value == null ? '–' : `${Math.round(100 * value)} %`);
const number = (value, unit = '') => (value == null ? '–' : `${value.toFixed(2)}${unit}`);

function tiles({ raters, agreement, undone }) {
  const votes = raters.reduce((sum, rater) => sum + rater.done, 0);
  const asked = raters.reduce((sum, rater) => sum + rater.total, 0);
  const shown = [['answers', `${votes} / ${asked}`], ['taken back', String(undone)]];
  const names = { '2afc': 'which is closer', jnd: 'same or different' };
  for (const [task, found] of Object.entries(agreement)) {
    shown.push([`agreement: ${names[task]}`, share(found.pairwise)]);
    shown.push([`Krippendorff's alpha: ${names[task]}`, number(found.krippendorff_alpha)]);
  }
  return shown.map(([name, value]) => element('div', {}, element('dt', {}, name), element('dd', {}, value)));
}

function copier(rater) {
  const link = new URL(`../../r/${rater.token}/`, location.href).href;
  const button = element('button', { type: 'button', ariaLabel: `Copy the link of ${rater.name}` }, 'Copy');
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(link);
      at('status').textContent = `Link of ${rater.name} copied`;
      button.textContent = 'Copied';
    } catch {
      window.prompt('Copy this link', link); // no clipboard without HTTPS
    }
  });
  return button;
}

function row(rater) {
  const bar = element('progress', { value: rater.done, max: Math.max(rater.total, 1), ariaLabel: `Answered by ${rater.name}` });
  const cells = [
    element('th', { scope: 'row' }, `${rater.name} (${rater.rater})`),
    element('td', {}, copier(rater)),
    element('td', {}, bar, `${rater.done} / ${rater.total}`),
    element('td', {}, number(rater.median_seconds, ' s')),
    element('td', {}, rater.checks ? `${share(rater.checks_passed)} of ${rater.checks}` : '–'),
    element('td', {}, rater.repeats ? `${share(rater.repeats_consistent)} of ${rater.repeats}` : '–'),
    element('td', {}, share(rater.chose_left)),
    element('td', { className: rater.excluded ? 'warn' : '' }, rater.excluded || 'no'),
  ];
  return element('tr', {}, ...cells);
}

async function refresh() {
  try {
    const response = await fetch('progress', { cache: 'no-store' });
    if (!response.ok) throw new Error(response.status === 404 ? 'this link is not known here' : response.statusText);
    const found = await response.json();
    at('title').textContent = document.title = found.title;
    at('tiles').replaceChildren(...tiles(found));
    if (!at('raters').contains(document.activeElement)) at('raters').replaceChildren(...found.raters.map(row));
    at('problem').hidden = true;
  } catch (error) {
    at('problem').textContent = `No news from the server: ${error.message}`;
    at('problem').hidden = false;
  }
}

at('invite').addEventListener('submit', async (event) => {
  event.preventDefault();
  const body = JSON.stringify({ name: at('name').value });
  const response = await fetch('raters', { method: 'POST', headers: { 'Content-Type': 'application/json' }, body });
  const answer = await response.json();
  at('status').textContent = response.ok ? `${answer.name} was added` : answer.error;
  if (response.ok) at('name').value = '';
  else window.alert(answer.error);
  await refresh();
});

await refresh();
setInterval(() => { if (!document.hidden) refresh(); }, EVERY);
