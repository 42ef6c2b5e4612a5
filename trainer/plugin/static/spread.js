// How the values of one gradient spread over time: steps from left to right, sizes upwards.

import {FORMATS, edge} from './histogram.js';
import {raised} from './measures.js';

const [LEFT, BOTTOM, TALL] = [52, 22, 190];
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
  canvas.width = width * ratio;
  canvas.height = (TALL + BOTTOM) * ratio;
  const context = canvas.getContext('2d');
  context.scale(ratio, ratio);
  const style = getComputedStyle(parent);
  const [bar, text, line] = ['--one', '--text', '--line'].map((name) => style.getPropertyValue(name));
  const wide = (width - LEFT - 2) / steps.length;
  const y = (place) => TALL - ((place - low) / (high - low)) * (TALL - 8);
  context.fillStyle = bar;
  counts.forEach(([bins, numbers], column) => bins.forEach((bin, at) => {
    context.globalAlpha = FAINTEST + (1 - FAINTEST) * Math.sqrt(numbers[at] / Math.max(...numbers));
    const [top, bottom] = [y(edge(bin + 1)), y(edge(bin))];
    context.fillRect(LEFT + column * wide, top, Math.max(1, wide - 0.3), Math.max(1, bottom - top));
  }));
  context.globalAlpha = 1;
  context.font = '11px Roboto, sans-serif';
  context.textAlign = 'right';
  const stride = Math.max(1, Math.ceil((high - low) / 7));
  for (let power = low; power <= high; power += stride) {
    context.fillStyle = line;
    context.fillRect(LEFT, y(power), width - LEFT, 0.5);
    context.fillStyle = text;
    context.fillText(`10${raised(power)}`, LEFT - 5, y(power) + 4);
  }
  context.textAlign = 'left';
  for (const [format, limit] of FORMATS) {
    if (limit < low || limit > high) continue;
    context.fillStyle = '#e6007e';
    context.fillRect(LEFT, y(limit), width - LEFT, 1);
    context.fillText(`${format}: 0 below`, LEFT + 4, y(limit) + 12);
  }
  context.fillStyle = text;
  context.fillText(`step ${steps[0]}`, LEFT, TALL + 16);
  context.textAlign = 'right';
  if (steps.length > 1) context.fillText(`step ${steps.at(-1)}`, width - 2, TALL + 16);
  const chosen = Math.max(0, steps.findLastIndex((one) => one <= step));
  context.strokeStyle = text;
  context.lineWidth = 1.5;
  context.strokeRect(LEFT + chosen * wide, 4, Math.max(3, wide), TALL - 4);
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
