// What stands on the map: the cells, the names, the steps and the findings.

import {pattern} from './marks.js';

export const AXIS = 20; // pixels below the map
export const LEVEL = 8; // pixels of a level of modules, left of the names
const DEEPEST = 4;
const LEVELS = {critical: '#e6007e', warning: '#ff9800', info: '#1e88e5'};
const LETTERS = 11; // pixels from one name to the next, at least
const FONT = `${LETTERS}px Roboto, sans-serif`;

// Draws a view (see Heatmap.show); where its columns begin and how wide what is left of them is, in
// pixels, and how many levels of modules are shown there.
export function paint(canvas, view, {width, tall, ratio, colour}) {
  const {matrix, rows} = view;
  const context = canvas.getContext('2d');
  context.scale(ratio, ratio);
  context.font = FONT;
  const named = rows.slice(0, 2000).map((row) => context.measureText(label(matrix, row).slice(-60)).width);
  const levels = Math.min(DEEPEST, Math.max(0, ...rows.map((row) => matrix.rows[row].split('.').length - 1)));
  const left = levels * LEVEL + Math.min(Math.ceil(Math.max(0, ...named)) + 12, 200, width / 3);
  const edges = places(matrix, view.axis).map((x) => left + x * (width - left - 1));
  const height = tall * rows.length;
  const sheet = {context, width, height, tall, left, levels, edges, colour, taken: []};
  if (rows.length && matrix.first.length) {
    cells(sheet, view);
    names(sheet, view);
    modules(sheet, view);
    steps(sheet, view);
    view.findings.forEach((finding, number) => {
      if (!finding.resolved || finding.level !== 'info') outline(sheet, view, finding, number);
    });
  }
  return {left, levels, edges};
}

function cells({context, height, tall, edges}, {matrix, rows, scale}) {
  const columns = matrix.first.length;
  const small = new OffscreenCanvas(columns, rows.length);
  const image = new ImageData(columns, rows.length);
  const pixels = new Uint32Array(image.data.buffer);
  const marked = [];
  rows.forEach((row, line) => {
    let run = null;
    for (let column = 0; column < columns; column++) {
      const place = column * matrix.rows.length + row;
      const value = scale.telling(matrix.low[place], matrix.high[place]);
      const mark = scale.mark(value);
      if (!mark) pixels[line * columns + column] = scale.pixel(value);
      if (run && run.mark === mark) run.end = column + 1;
      else {
        run = mark && {mark, line, start: column, end: column + 1};
        if (run && mark !== 'absent') marked.push(run);
      }
    }
  });
  small.getContext('2d').putImageData(image, 0, 0);
  context.imageSmoothingEnabled = false;
  for (let column = 0; column < columns; column++) {
    const [from, to] = [edges[column], edges[column + 1]].map(Math.round);
    const width = Math.max(1, to - from);
    context.drawImage(small, column, 0, 1, rows.length, from, 0, width, height);
  }
  for (const {mark, line, start, end} of marked) {
    const [from, to] = [edges[start], edges[end]].map(Math.round);
    context.fillStyle = pattern(context, mark);
    context.fillRect(from, line * tall, Math.max(1, to - from), tall);
  }
}

// A bar along the rows of each module, the outermost on the left.
function modules({context, tall, levels, colour}, {matrix, rows}) {
  const paths = rows.map((row) => matrix.rows[row].split('.').slice(0, -1));
  context.fillStyle = colour;
  context.globalAlpha = 0.45;
  for (let depth = 1; depth <= levels; depth++) {
    let start = 0;
    const module = paths.map((path) => (path.length < depth ? null : path.slice(0, depth).join('.')));
    for (let line = 1; line <= module.length; line++) {
      if (line < module.length && module[line] === module[start]) continue;
      if (module[start] !== null) context.fillRect((depth - 1) * LEVEL + 2, start * tall + 1, 3, Math.max(1, (line - start) * tall - 2));
      start = line;
    }
  }
  context.globalAlpha = 1;
}

// The name of a row; that of a folded module says so.
const label = ({rows, modules}, row) => (modules.includes(rows[row]) ? `${rows[row]} +` : rows[row]);

function names({context, tall, left, levels, colour}, {matrix, rows}) {
  let free = 0;
  context.fillStyle = colour;
  context.textAlign = 'right';
  context.textBaseline = 'middle';
  rows.forEach((row, line) => {
    const y = Math.max(LETTERS / 2, (line + 0.5) * tall);
    if (y - LETTERS / 2 < free) return;
    free = y + LETTERS / 2;
    const name = shortened(context, label(matrix, row), left - levels * LEVEL - 8);
    context.fillText(name, left - 6, y);
  });
}

// As many steps as have room, each below the column that it begins.
function steps({context, width, height, left, edges}, {matrix}) {
  context.textAlign = 'center';
  let free = left;
  matrix.first.forEach((step, column) => {
    const text = step.toLocaleString('en');
    const [x, half] = [edges[column], context.measureText(text).width / 2];
    const place = Math.max(left + half, Math.min(x, width - half));
    if (place - half < free || x > width - 2) return;
    context.fillRect(x, height, 1, 4);
    context.fillText(text, place, height + 12);
    free = place + half + 48;
  });
}

// A frame around the rows and steps of a finding; a dashed line where one of the whole model begins.
function outline({context, width, height, tall, left, edges, taken}, {rows, matrix}, finding, number) {
  const lines = rows.map((row, line) => (finding.isAt(matrix.rows[row]) ? line : -1))
      .filter((line) => line >= 0);
  const [from, to] = span(matrix, edges, ...finding.steps);
  if (!lines.length || to <= from) return;
  const [top, bottom] = [lines[0] * tall, (lines.at(-1) + 1) * tall];
  const whole = finding.where === null;
  context.setLineDash(whole ? [5, 4] : []);
  for (const [colour, thick] of [['#fff', 5], ['#000', 4], [LEVELS[finding.level], 2.5]]) {
    context.strokeStyle = colour;
    context.lineWidth = thick;
    context.beginPath();
    if (whole) {
      context.moveTo(from, 0);
      context.lineTo(from, height);
    } else {
      context.rect(from + 1, top + 1, Math.max(2, to - from - 2), bottom - top - 2);
    }
    context.stroke();
  }
  context.setLineDash([]);
  let x = Math.max(left + 11, Math.min(from + 12, width - 12));
  const y = Math.max(11, Math.min(top + 11, height - 11));
  while (x < width - 34 && taken.some((other) => Math.hypot(other.x - x, other.y - y) < 21)) x += 4;
  taken.push({x, y});
  context.beginPath();
  context.arc(x, y, 10, 0, 7);
  context.fillStyle = LEVELS[finding.level];
  context.fill();
  context.strokeStyle = '#fff';
  context.lineWidth = 1.5;
  context.stroke();
  context.fillStyle = finding.level === 'warning' ? '#000' : '#fff';
  context.font = `bold ${FONT}`;
  context.fillText(String(number + 1), x, y + 0.5);
}

// From where to where the columns of these steps go.
function span(matrix, edges, first, last) {
  let from = matrix.last.findIndex((step) => step >= first);
  const to = matrix.first.findLastIndex((step) => step <= last);
  if (from < 0 && to < 0) return [0, 0];
  if (from < 0) from = matrix.first.length - 1;
  return [edges[from], edges[Math.max(to, Math.min(from, to + 1)) + 1]];
}

// Where the columns begin, and where the last ends, from 0 to 1.
function places({first, last}, axis) {
  const count = first.length;
  if (!count) return [0];
  if (axis === 'even') return Array.from({length: count + 1}, (_, column) => column / count);
  const gap = count > 1 ? last[count - 1] - last[count - 2] : 1;
  const place = axis === 'log' ? (step) => Math.log1p(step - first[0]) : (step) => step - first[0];
  const end = place(last[count - 1] + gap);
  return [...first, last[count - 1] + gap].map((step) => place(step) / end);
}

function shortened(context, name, room) {
  if (context.measureText(name.slice(0, 200)).width <= room && name.length <= 200) return name;
  let kept = Math.min(name.length, 60);
  while (kept > 1 && context.measureText(`…${name.slice(-kept)}`).width > room) kept--;
  return `…${name.slice(-kept)}`;
}
