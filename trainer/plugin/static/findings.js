// What is wrong, in words: the verdict of a run and the list of its findings.

import {apart} from './measures.js';
import {renew} from './renew.js';

const SIGNS = {critical: '✕', warning: '▲', info: 'i', ok: '✓'};
const ORDER = ['critical', 'warning', 'info'];

// Each verdict for who reads it for the first time.
const PLAIN = {vanishing: 'The gradient vanishes', exploding: 'The gradient explodes',
  signal_collapse: 'The signal collapses', signal_blow_up: 'The signal blows up',
  non_finite: 'NaN or infinity', dead_units: 'A dead layer', saturated: 'Saturated layers',
  underflow: 'Gradients underflow', starved_update: 'The weights do not move',
  learning_rate_too_high: 'The learning rate is too high', diverging: 'The loss diverges',
  constant_output: 'Every sample gets the same answer',
  accumulating_gradients: 'Gradients of former steps are added',
  unused_parameter: 'Parameters without a gradient', stalled: 'The loss stands still',
  oscillating: 'The loss goes up and down', loss_spike: 'The loss jumped'};

const named = (words, {where}) => (where ? words.replaceAll(where, () => apart(where)) : words);
const owner = (name) => name.split('.').slice(0, -1).join('.') || 'model';

// The findings as the list and the map number them: what goes on first, then by their level.
export function ordered(findings) {
  const rank = (finding) => ORDER.indexOf(finding.level) + (finding.resolved ? 10 : 0);
  return [...findings].sort((a, b) => rank(a) - rank(b)).map((finding) => ({
    ...finding,
    headline: named(finding.headline, finding), cause: named(finding.cause, finding),
    isAt: (row) => finding.where === null || row === finding.where || owner(row) === finding.where ||
      row === owner(finding.where) || row.startsWith(`${finding.where}.`) ||
      finding.where.startsWith(`${row}.`),
  }));
}

export function verdict(parent, tree, findings) {
  const worst = findings.find((finding) => !finding.resolved);
  const level = worst ? worst.level : tree.pending || !tree.has_fallen ? 'info' : 'ok';
  parent.className = `verdict ${level}`;
  const [made, head] = ['div', 'strong'].map((tag) => document.createElement(tag));
  head.textContent = worst ? PLAIN[worst.verdict] ?? worst.verdict : tree.pending ? 'looking for what is wrong …' :
    !tree.records ? 'no step was looked at' : tree.has_fallen ? 'nothing is wrong' :
    findings.length ? 'what was found is over, but the loss has not fallen' : 'nothing was found, but the loss has not fallen';
  const words = worst ? ` – ${worst.headline}: ${worst.cause}` : tree.pending ? '' : ` (${tree.records} steps looked at)`;
  made.append(sign(level), ' ', head, words);
  renew(parent, made);
}

// `more`: how many there are that are over and not listed.
export function list(parent, findings, more, go) {
  const items = findings.map((finding, number) => {
    const item = document.createElement('li');
    item.className = `${finding.level}${finding.resolved ? ' resolved' : ''}`;
    const button = document.createElement('button');
    button.type = 'button';
    button.append(sign(finding.level, String(number + 1)), finding.headline);
    button.onclick = () => go(finding);
    item.append(button, paragraph('why', finding.cause), paragraph('do', finding.remedy));
    if (finding.overrides) item.append(paragraph('try', finding.overrides, 'code'));
    const seen = Object.entries(finding.evidence).map(([name, value]) =>
      `${name} ${typeof value === 'number' ? value.toPrecision(3) : value}`);
    if (seen.length) item.append(paragraph('seen', seen.join(', ')));
    return item;
  });
  if (more) {
    const rest = document.createElement('li');
    rest.textContent = `and ${more.toLocaleString('en')} more that are over: findings.jsonl in the run’s folder has all`;
    items.push(rest);
  }
  parent.replaceChildren(...items);
}

function sign(level, words) {
  const made = document.createElement('b');
  made.className = `sign ${level}`;
  made.textContent = words ?? SIGNS[level];
  return made;
}

function paragraph(name, words, kind = 'span') {
  const made = document.createElement('p');
  const label = document.createElement('i');
  label.textContent = name;
  const said = document.createElement(kind);
  said.textContent = words;
  made.append(label, said);
  return made;
}
