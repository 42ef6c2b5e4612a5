// Elements and axes of the two small charts.

import {raised} from './measures.js';

export function element(name, attributes = {}, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

const [LOWEST, HIGHEST] = [200, 640]; // pixels of a chart

// How high a chart is that begins where this element does: down to the end of the window.
export function room(parent) {
  const top = parent.getBoundingClientRect().top + window.scrollY;
  return Math.max(LOWEST, Math.min(HIGHEST, window.innerHeight - top - 24));
}

// An empty chart and the room in it; what it says in words goes into `label`.
export function chart(parent, label) {
  const [width, height] = [Math.max(200, parent.clientWidth), room(parent)];
  const svg = element('svg', {width, height, role: 'img', 'aria-label': label});
  parent.replaceChildren(svg);
  return {svg, plot: {left: 52, right: width - 12, top: 14, bottom: height - 40}};
}

export function text(svg, x, y, words, attributes = {}) {
  svg.append(element('text', {x, y, ...attributes}, words));
}

// Lines and labels at powers of ten; `place` maps an exponent to pixels.
export function decades({svg, plot}, lowest, highest, place, vertical) {
  const most = vertical ? (plot.bottom - plot.top) / 30 : (plot.right - plot.left) / 50;
  const stride = Math.max(1, Math.ceil((highest - lowest) / most));
  for (let power = Math.ceil(lowest); power <= highest; power += stride) {
    const at = place(power);
    const ends = vertical ? {x1: plot.left, x2: plot.right, y1: at, y2: at} :
      {x1: at, x2: at, y1: plot.top, y2: plot.bottom};
    svg.append(element('line', {...ends, class: 'grid'}));
    const [x, y] = vertical ? [plot.left - 6, at + 4] : [at, plot.bottom + 15];
    text(svg, x, y, `10${raised(power)}`, {'text-anchor': vertical ? 'end' : 'middle'});
  }
}
