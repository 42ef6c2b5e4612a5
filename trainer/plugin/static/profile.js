// One step as a curve over depth: the straight falling line of a vanishing gradient.

import {MEASURES, apart, inWords} from './measures.js';
import {chart, decades, element, text} from './svg.js';

const LINE = 16; // pixels of a line of the legend

// lines: [{name, step, rows, low, high, style}]; the first is the one that `row` is chosen in. A
// folded module stands there with the smallest and the largest value of its layers.
export function profile(parent, lines, measure, row, picked) {
  const known = lines.filter((line) => line && line.rows.length);
  const drawn = chart(parent, known.map((line) => words(line, measure)).join('; '));
  const {svg, plot} = drawn;
  plot.bottom -= LINE * (Math.ceil(known.length / 2) - 1);
  if (!known.length) return;
  const fraction = MEASURES[measure].fraction;
  const place = fraction ? (value) => value : Math.log10;
  const shown = known.flatMap((line) => [...line.low, ...line.high])
      .filter((value) => typeof value === 'number' && (fraction || value > 0)).map(place);
  let [low, high] = [Math.min(...shown), Math.max(...shown)];
  if (!shown.length) [low, high] = [-1, 1];
  if (fraction) [low, high] = [0, 1];
  else if (high - low < 4) [low, high] = [(low + high) / 2 - 2, (low + high) / 2 + 2];
  const y = (value) => plot.bottom - ((value - low) / (high - low)) * (plot.bottom - plot.top - 8);
  if (fraction) {
    for (const part of [0, 0.5, 1]) {
      svg.append(element('line', {x1: plot.left, x2: plot.right, y1: y(part), y2: y(part), class: 'grid'}));
      text(svg, plot.left - 6, y(part) + 4, `${part * 100} %`, {'text-anchor': 'end'});
    }
  } else {
    decades(drawn, low, high, y, true);
  }
  const x = (line, at) => plot.left + 10 +
    (line.rows.length > 1 ? at / (line.rows.length - 1) : 0.5) * (plot.right - plot.left - 20);
  const spot = (line, at, value) => ({at, value, x: x(line, at), bad: typeof value === 'string',
    zero: value === 0 && !fraction});
  for (const line of [...known].reverse()) {
    const [low, high] = [line.low, line.high].map((values) => values.map((value, at) => spot(line, at, value)));
    const apart = high.filter(({at, value}) => value !== line.low[at]);
    for (const points of apart.length ? [low, high] : [high]) {
      svg.append(element('path', {d: path(points, (value) => y(place(value))), class: `line ${line.style}`}));
    }
    for (const {at, x} of apart) {
      const [top, bottom] = [high[at], low[at]].map((point) => height(point));
      svg.append(element('path', {d: `M${x} ${top}V${bottom}`, class: `range ${line.style}`}));
    }
    for (const point of [...low.filter(({at}) => apart.some((other) => other.at === at)), ...high]) dot(line, point);
  }
  function height(point) {
    return point.bad ? plot.top : point.zero || point.value === null ? plot.bottom - 5 : y(place(point.value));
  }
  function dot(line, point) {
    if (point.value === null) return;
    const at = height(point);
    const kind = point.bad ? 'bad' : point.zero ? 'dead' : '';
    const chosen = line === known[0] && line.rows[point.at] === row;
    if (line.rows.length > 80 && !kind && !chosen) return;
    const made = element('circle', {cx: point.x, cy: at, r: chosen ? 6 : 3.5, class: `dot ${line.style} ${kind}`});
    made.append(element('title', {}, `${apart(line.rows[point.at])}: ${inWords(point.value, measure)}`));
    made.addEventListener('click', () => picked(line.rows[point.at]));
    svg.append(made);
    if (kind) text(svg, point.x, at + (point.bad ? 16 : -8), point.bad ? '✕' : '0', {'text-anchor': 'middle', class: kind});
  }
  text(svg, plot.left, plot.bottom + 15, `first: ${apart(ending(known[0].rows[0]))}`);
  text(svg, plot.right, plot.bottom + 15, `last: ${apart(ending(known[0].rows.at(-1)))}`, {'text-anchor': 'end'});
  const room = Math.min(260, (plot.right - plot.left) / 2);
  known.forEach((line, number) => {
    const left = plot.left + (number % 2) * room;
    const down = plot.bottom + 33 + LINE * Math.floor(number / 2);
    svg.append(element('path', {d: `M${left} ${down - 4}h22`, class: `line ${line.style}`}));
    text(svg, left + 27, down, `${apart(ending(line.name, Math.floor((room - 85) / 6)))} step ${line.step}`);
  });
}

// Interrupted where there is no number to draw.
function path(points, y) {
  let drawn = '';
  let pen = 'M';
  for (const {x, value, bad, zero} of points) {
    if (value === null || bad || zero) pen = 'M';
    else {
      drawn += `${pen}${x} ${y(value)}`;
      pen = 'L';
    }
  }
  return drawn;
}

const ending = (name, length = 30) => (name.length > length ? `…${name.slice(-length)}` : name);

function words(line, measure) {
  const [first, last] = [line.low[0], line.low.at(-1)].map((v) => inWords(v, measure));
  const [from, to] = [line.rows[0], line.rows.at(-1)].map(apart);
  return `${apart(line.name)} at step ${line.step}: ${from} ${first}, ${to} ${last}`;
}
