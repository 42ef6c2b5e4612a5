// The page: its controls, and what is asked and drawn when one of them or a run changes.

import {ask, matrix} from './answers.js';
import {list, ordered, verdict} from './findings.js';
import {csv, picture, save as download} from './export.js';
import {Heatmap, placeOf} from './heatmap.js';
import {histogram} from './histogram.js';
import {legend} from './marks.js';
import {MEASURES, apart, meaning, scaleOf} from './measures.js';
import {profile} from './profile.js';
import {renew} from './renew.js';
import {spread} from './spread.js';
import {load, save} from './state.js';

const EVERY_MS = 3000; // between two looks at whether a run has grown
const PATIENCE_MS = 150; // until a picture is shown without its findings
const WHOLE = {first: null, last: null, step: null}; // all steps, the newest chosen
const PAGE = `
  <header>
    <label>run <select id="run"></select></label>
    <label>beside it <select id="other"></select></label>
    <label>colour <select id="statistic"></select></label>
    <label><input type="checkbox" id="relative">relative to the last row</label>
    <label>steps <select id="axis">
      <option value="even">one by one</option><option>linear</option><option value="log">log</option>
    </select></label>
    <label>rows <input id="filter" type="search" placeholder="part of a name"></label>
    <label>fold <select id="fold">
      <option value="0">no module</option><option value="1">at the 1st dot</option>
      <option value="2">at the 2nd dot</option><option value="3">at the 3rd dot</option>
    </select></label>
    <button id="whole" type="button" hidden>all steps (Esc)</button>
    <button id="play" type="button" title="space bar">▶ play</button>
    <button id="pin" type="button" title="key p">compare depth with this step</button>
    <button id="png" type="button">PNG</button>
    <button id="csv" type="button">CSV</button>
  </header>
  <p id="note" role="status"></p>
  <main>
    <div id="maps"></div>
    <div class="below"><canvas id="legend"></canvas><span id="meaning"></span></div>
    <div class="charts">
      <figure><figcaption id="profile-title"></figcaption><div id="profile"></div></figure>
      <figure><figcaption id="histogram-title"></figcaption><div id="histogram"></div></figure>
      <figure><figcaption id="spread-title"></figcaption><div id="spread"></div></figure>
    </div>
  </main>
  <aside><h2>What is wrong</h2><div id="findings"></div></aside>`;

const find = (id) => document.getElementById(id);
let state;
let panels = [];
let listed = [];
let asked = 0;
let failed = false; // whether what is seen is not what was asked for last
let playing = null;

export async function render() {
  const style = document.createElement('link');
  style.rel = 'stylesheet';
  style.href = new URL('style.css', import.meta.url);
  const ready = new Promise((resolve) => { style.onload = style.onerror = resolve; });
  document.head.append(style);
  document.body.innerHTML = PAGE; // no name of a run or a layer is in it
  follow_theme();
  state = load();
  for (const [id, {label}] of Object.entries(MEASURES)) find('statistic').append(new Option(label, id));
  if (!(state.statistic in MEASURES)) state.statistic = Object.keys(MEASURES)[0];
  for (const id of ['run', 'other', 'statistic', 'relative', 'axis', 'fold']) {
    find(id).addEventListener('change', ({target}) => change({
      [id]: target.type === 'checkbox' ? target.checked : target.value,
      ...(id === 'fold' ? {turned: []} : {}),
      ...(id === 'run' ? {...WHOLE, beside: null} : {})})); // the steps of another run are others
  }
  find('filter').addEventListener('input', ({target}) => change({filter: target.value}, draw));
  find('whole').addEventListener('click', () => change(WHOLE));
  find('play').addEventListener('click', play);
  find('pin').addEventListener('click', pin);
  find('csv').addEventListener('click', () => download(csv(panels), 'gradients.csv'));
  find('png').addEventListener('click', async () => {
    const style = getComputedStyle(document.documentElement);
    const [page, text] = ['--page', '--text'].map((name) => style.getPropertyValue(name));
    const seen = panels.map(({run, verdict: said, heatmap}) =>
      ({run, verdict: said.textContent, canvas: heatmap.map}));
    download(await picture(seen, find('legend'), find('meaning').textContent, {page, text}), 'gradients.png');
  });
  document.addEventListener('keydown', (event) => {
    const {target, key} = event;
    if (event.ctrlKey || event.metaKey || event.altKey || target.closest('input, select')) return;
    if (key === 'Escape') change(WHOLE);
    if (key === 'p') pin();
    if (key === ' ' && (target === document.body || target.closest('.map'))) { event.preventDefault(); play(); }
  });
  new ResizeObserver(() => draw()).observe(find('maps'));
  await ready;
  await look();
  setInterval(() => document.hidden || look(), EVERY_MS);
}

const newest = () => Math.max(0, ...panels.map(({matrix: {steps}}) => steps?.[1] ?? 0));

// What is chosen with this step. With the newest of all it is always the newest: a run that grows is
// followed.
const chosen = (step) => (state.first === null && step >= newest() ? null : step);

// Asks which runs there are, and for the numbers of those that are shown when they have grown.
async function look() {
  try {
    const runs = await ask('runs');
    const changed = JSON.stringify(runs) !== JSON.stringify(listed);
    listed = runs;
    if (!changed && !failed) return;
    const names = runs.map(({run}) => run);
    const latest = Math.max(...runs.map(({version}) => version));
    state.run ||= runs.find(({version}) => version === latest)?.run ?? '';
    choices(find('run'), [...new Set([...names, state.run])], state.run);
    choices(find('other'), [...new Set(['', ...names, state.other])], state.other);
    await refresh();
  } catch (error) {
    failed = true;
    note(`TensorBoard does not answer: ${error.message}`);
  }
}

function choices(select, names, chosen) {
  const made = document.createElement('select');
  made.append(...names.map((name) => new Option(name || 'nothing', name)));
  renew(select, made);
  select.value = chosen;
}

function change(changes, then = refresh) {
  Object.assign(state, changes);
  save(state);
  return then();
}

const asks_relative = () => state.relative && !MEASURES[state.statistic].fraction;
const relative = () => asks_relative() && panels.some(({matrix: columns}) => columns.relative);

const folding = () => ({fold: state.fold, turned: state.turned});

async function refresh() {
  const mine = ++asked;
  const names = [state.run, state.other].filter((name) => listed.some(({run}) => run === name));
  if (!names.length) {
    return note(listed.length ? `${apart(state.run)}: TensorBoard has no records of this run, or none yet.` :
      'No run has records yet.');
  }
  const width = Math.max(100, Math.min(4000, find('maps').clientWidth - 100));
  try {
    const matrices = await Promise.all(names.map((run) => matrix({run, statistic: state.statistic,
      relative: asks_relative(), width, axis: state.axis, ...folding(),
      first: state.first, last: state.last})));
    const waiting = Promise.all(names.map((run) => ask('findings', {run})));
    waiting.catch(() => {}); // told below
    const show = (trees) => {
      arrange(names.map((run, number) => ({run, matrix: matrices[number], tree: trees[number]})));
      draw();
      if (!performance.getEntriesByName('first picture').length) performance.mark('first picture');
    };
    const soon = await Promise.race([waiting, new Promise((done) => setTimeout(done, PATIENCE_MS))]);
    if (mine !== asked) return; // something newer was asked for meanwhile
    if (!soon) { // of a large run that was just opened: the picture first
      show(names.map((run) => panels.find((shown) => shown.run === run)?.tree ?? {findings: [], pending: true}));
    }
    const trees = await waiting;
    if (mine !== asked) return;
    failed = false;
    show(trees);
    note(matrices.flatMap(({notes}, number) => notes.map((text) => `${apart(names[number])}: ${text}`)).join(' · '));
  } catch (error) {
    if (mine !== asked) return;
    failed = true;
    note(error.message);
  }
}

// As many panels as there are runs; those that are there already stay, so that nothing flickers.
function arrange(answers) {
  while (panels.length > answers.length) panels.pop().section.remove();
  while (panels.length < answers.length) panels.push(panel());
  answers.forEach((answer, number) => {
    const findings = ordered(answer.tree.findings);
    Object.assign(panels[number], answer, {findings});
    panels[number].title.textContent = answer.run;
    verdict(panels[number].verdict, answer.tree, findings);
  });
  const made = document.createElement('div');
  made.append(...panels.map(({run, findings, tree}) => {
    const [part, title, items] = ['section', 'h3', 'ol'].map((tag) => document.createElement(tag));
    title.textContent = run;
    if (findings.length) list(items, findings, tree.more, (finding) => go(run, finding));
    else items.textContent = 'nothing';
    part.append(...(panels.length > 1 ? [title] : []), items);
    return part;
  }));
  renew(find('findings'), made);
}

function panel() {
  const [section, title, said] = ['section', 'h2', 'div'].map((tag) => document.createElement(tag));
  section.append(title, said);
  find('maps').append(section);
  const heatmap = new Heatmap(section, {picked: (row, step) => change({row, step: chosen(step)}, draw),
    zoomed: (first, last) => change({first, last}), turned});
  return {section, title, verdict: said, heatmap};
}

// Folds a module or unfolds it, whatever the others are.
function turned(module) {
  const others = state.turned.filter((name) => name !== module);
  change({turned: others.length < state.turned.length ? others : [...others, module], row: module});
}

// To the place and the first step of a finding; a zoom that does not show it ends.
async function go(run, finding) {
  const {matrix: {rows}} = panels.find((shown) => shown.run === run);
  const row = rows.find((name) => finding.where !== null && finding.isAt(name)) ?? state.row;
  const [step] = finding.steps;
  const hidden = state.first !== null && (step < state.first || step > state.last);
  await change({row, step, filter: '', ...(hidden ? {first: null, last: null} : {})}, hidden ? refresh : draw);
  for (const {heatmap} of panels) heatmap.reveal();
}

function draw() {
  for (const id of ['run', 'other', 'statistic', 'axis', 'filter', 'fold']) find(id).value = state[id];
  for (const id of ['run', 'other']) find(id).title = state[id]; // it may be longer than its list
  find('relative').checked = asks_relative();
  find('relative').disabled = Boolean(MEASURES[state.statistic].fraction);
  find('whole').hidden = state.first === null;
  if (!panels.length) return;
  const scale = scaleOf(state.statistic, relative(), panels.map(({matrix: m}) => m));
  const wanted = state.filter.toLowerCase();
  for (const shown of panels) {
    const {heatmap, matrix: columns, findings, run, verdict: said} = shown;
    const rows = shown.rows = columns.rows.map((name, number) => (name.toLowerCase().includes(wanted) ? number : -1))
        .filter((number) => number >= 0);
    heatmap.show({matrix: columns, rows, scale, findings, measure: state.statistic, axis: state.axis,
      row: state.row, step: state.step,
      summary: `${apart(run)}: ${MEASURES[state.statistic].label}, ${rows.length} rows, ` +
        `${columns.observed} steps; ${said.textContent}. Arrow keys move the chosen cell.`});
  }
  legend(find('legend'), scale, document.documentElement.dataset.theme === 'dark');
  find('meaning').textContent = meaning(relative(), state.statistic);
  details();
}

// The histograms over time, asked for once as long as the run does not grow.
let held = {key: null, answer: null};
function spread_of(query) {
  const key = JSON.stringify([query, listed]);
  if (held.key !== key) held = {key, answer: ask('histograms', query)};
  return held.answer;
}

let detailed = 0;
async function details() {
  const mine = ++detailed;
  const query = {statistic: state.statistic, relative: asks_relative(), ...folding()};
  const step = state.step ?? newest();
  const {run, matrix: {rows}} = panels[0];
  const row = rows[placeOf(state.row, rows)] ?? rows[0] ?? state.row;
  const at = (shown, when) => ask('profile', {run: shown.run, step: when, ...query});
  try {
    const [counts, over_time, now, before] = await Promise.all([
      ask('histogram', {run, statistic: state.statistic, row, step}),
      spread_of({run, statistic: state.statistic, row}),
      Promise.all(panels.map((shown) => at(shown, step))),
      Promise.all(panels.map((shown) => at(shown, state.beside ?? shown.matrix.steps?.[0] ?? 0))),
    ]);
    if (mine !== detailed) return;
    const lines = now.map((line, number) => ({...line, name: panels[number].run, style: ['one', 'two'][number]}));
    const earlier = before.map((line, number) => ({...line, style: ['faint', 'faint two'][number],
      name: state.beside === null ? 'start:' : 'compared:'}));
    find('spread').parentElement.hidden = !over_time.steps.length;
    profile(find('profile'), [...lines, ...earlier], state.statistic, row, (name) => change({row: name}, draw));
    find('profile-title').textContent =
      `Over depth at step ${lines[0].step ?? '–'}${relative() ? ', relative to the last row' : ''}`;
    histogram(find('histogram'), counts);
    find('spread-title').textContent = over_time.steps.length ? `The same over time, at ${over_time.steps.length} steps` : '';
    spread(find('spread'), over_time, step, (picked) => change({step: chosen(picked)}, draw));
    find('histogram-title').textContent = counts.step === null ? `Histogram of ${apart(row)}` :
      `Gradient of ${apart(row)}, values at step ${counts.step}`;
  } catch (error) {
    held.key = null;
    if (mine !== detailed) return;
    failed = true;
    note(error.message);
  }
}

// Keeps the chosen step as the one that the profile is compared with; again: the start of the run.
function pin() {
  if (!panels.length) return;
  const step = state.step ?? newest();
  change({beside: state.beside === step ? null : step}, draw);
}

// Takes the chosen step through all columns, some eight a second.
function play() {
  if (playing) {
    clearInterval(playing);
    playing = null;
  } else if (panels.length) {
    const {last} = panels[0].matrix;
    let column = state.step === null ? -1 : last.findIndex((step) => step >= state.step);
    if (column >= last.length - 1) column = -1;
    playing = setInterval(() => {
      if (++column >= last.length) return play();
      change({step: chosen(last[column])}, draw);
    }, 120);
  }
  find('play').textContent = playing ? '⏸ stop' : '▶ play';
}

function note(words) {
  if (find('note').textContent !== words) find('note').textContent = words;
}

function follow_theme() {
  const system = matchMedia('(prefers-color-scheme: dark)');
  const apply = () => {
    let dark = system.matches;
    try {
      if (window.parent !== window) dark = window.parent.document.body.classList.contains('dark-mode');
    } catch { /* embedded elsewhere */ }
    document.documentElement.dataset.theme = dark ? 'dark' : 'light';
    if (panels.length) draw();
  };
  apply();
  system.addEventListener('change', apply);
  try {
    new MutationObserver(apply).observe(window.parent.document.body, {attributeFilter: ['class']});
  } catch { /* embedded elsewhere */ }
}
