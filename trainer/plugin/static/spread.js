// How the values of one gradient spread over time: steps from left to right, sizes upwards.

import {FORMATS, edge} from './histogram.js';
import {raised} from './measures.js';
import {room} from './svg.js';

const [LEFT, BOTTOM] = [52, 22];
const FAINTEST = 0.12; // of a bin that holds a single value

// Draws the answer; `picked(step)` is told of a click or an arrow key. `step` is marked.
export function spread(parent, answer, step, picked) {
  const {steps, counts, count} = answer;
  if (!steps.length) return parent.replaceChildren();
  const used = counts.flatMap(([bins]) => bins);
  const low = Math.floor(used.length ? edge(used.reduce((a, b) => Math.min(a, b))) : -8);
  const high = Math.max(low + 4, Math.ceil(used.length ? edge(used.reduce((a, b) => Math.max(a, b)) + 1) : -4));
  const canvas = parent.querySelector('canvas') ?? made(parent);
  const ratio = window.devicePixelRatio || 1;
  const width = Math.max(200, parent.clientWidth);
  const tall = room(parent) - BOTTOM;
  canvas.width = width * ratio;
  canvas.height = (tall + BOTTOM) * ratio;
  const context = canvas.getContext('2d');
  context.scale(ratio, ratio);
  const style = getComputedStyle(parent);
  const [bar, text, line, mark, card] = ['--one', '--text', '--line', '--limit', '--card'].map((name) => style.getPropertyValue(name));
  const wide = (width - LEFT - 2) / steps.length;
  const y = (place) => tall - ((place - low) / (high - low)) * (tall - 8);
  context.fillStyle = bar;
  counts.forEach(([bins, numbers], column) => bins.forEach((bin, at) => {
    context.globalAlpha = FAINTEST + (1 - FAINTEST) * Math.sqrt(numbers[at] / Math.max(...numbers));
    const [top, bottom] = [y(edge(bin + 1)), y(edge(bin))];
    context.fillRect(LEFT + column * wide, top, Math.max(1, wide - 0.3), Math.max(1, bottom - top));
  }));
  context.globalAlpha = 1;
  context.font = '11px Roboto, sans-serif';
  context.textAlign = 'right';
  const stride = Math.max(1, Math.ceil((high - low) / (tall / 30)));
  for (let power = low; power <= high; power += stride) {
    context.fillStyle = line;
    context.fillRect(LEFT, y(power), width - LEFT, 0.5);
    context.fillStyle = text;
    context.fillText(`10${raised(power)}`, LEFT - 5, y(power) + 4);
  }
  context.textAlign = 'left';
  for (const [format, limit] of FORMATS) {
    if (limit < low || limit > high) continue;
    const label = [`${format}: 0 below`, LEFT + 4, y(limit) + 12];
    context.fillStyle = mark;
    context.fillRect(LEFT, y(limit), width - LEFT, 1);
    context.strokeStyle = card;
    context.lineWidth = 4;
    context.strokeText(...label);
    context.fillText(...label);
  }
  context.fillStyle = text;
  if (!used.length) context.fillText('no finite value above zero', LEFT + 8, tall / 2);
  context.fillText(`step ${steps[0]}`, LEFT, tall + 16);
  context.textAlign = 'right';
  if (steps.length > 1) context.fillText(`step ${steps.at(-1)}`, width - 2, tall + 16);
  const chosen = Math.max(0, steps.findLastIndex((one) => one <= step));
  context.strokeStyle = text;
  context.lineWidth = 1.5;
  context.strokeRect(LEFT + chosen * wide, 4, Math.max(3, wide), tall - 4);
  canvas.setAttribute('aria-label', `sizes of ${count[chosen]} values at ${steps.length} steps from ` +
    `${steps[0]} to ${steps.at(-1)}; chosen is step ${steps[chosen]}; arrow keys choose another`);
  const choose = (column) => picked(steps[Math.max(0, Math.min(steps.length - 1, column))]);
  canvas.onclick = (event) => choose(Math.floor((event.offsetX - LEFT) / wide));
  canvas.onkeydown = (event) => {
    const move = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!move) return;
    event.preventDefault();
    choose(chosen + move);
  };
}

function made(parent) {
  const canvas = document.createElement('canvas');
  canvas.tabIndex = 0;
  canvas.setAttribute('role', 'img');
  parent.replaceChildren(canvas);
  return canvas;
}
