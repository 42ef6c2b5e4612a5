// Elements and axes of the two small charts.

import {raised} from './measures.js';

export function element(name, attributes = {}, ...children) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const [WIDTH, HEIGHT] = [560, 230];
export const PLOT = {left: 52, right: WIDTH - 12, top: 14, bottom: HEIGHT - 40};

// An empty chart; what it says in words goes into `label`.
export function chart(parent, label) {
  const svg = element('svg', {viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': label});
  parent.replaceChildren(svg);
  return svg;
}

export function text(svg, x, y, words, attributes = {}) {
  svg.append(element('text', {x, y, ...attributes}, words));
}

// Lines and labels at powers of ten; `place` maps an exponent to pixels.
export function decades(svg, lowest, highest, place, vertical) {
  const stride = Math.max(1, Math.ceil((highest - lowest) / (vertical ? 6 : 8)));
  for (let power = Math.ceil(lowest); power <= highest; power += stride) {
    const at = place(power);
    const ends = vertical ? {x1: PLOT.left, x2: PLOT.right, y1: at, y2: at} :
      {x1: at, x2: at, y1: PLOT.top, y2: PLOT.bottom};
    svg.append(element('line', {...ends, class: 'grid'}));
    const [x, y] = vertical ? [PLOT.left - 6, at + 4] : [at, PLOT.bottom + 15];
    text(svg, x, y, `10${raised(power)}`, {'text-anchor': vertical ? 'end' : 'middle'});
  }
}
