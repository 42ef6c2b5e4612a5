// The picture of a run: layers from top to bottom, steps from left to right.

import {apart, inWords} from './measures.js';
import {AXIS, LEVEL, paint} from './picture.js';

const TALLEST = 48; // pixels of a row
const LEAST = 3;
const MAP = 0.44; // of the height of the window
const DRAG = 6; // pixels from which a press is no click

// Where a layer is among rows: itself, or the module that it is folded into, or else the first of
// its own layers. -1 where there is none of them.
export function placeOf(row, names) {
  const place = row ? names.findIndex((name) => row === name || row.startsWith(`${name}.`)) : -1;
  return place < 0 && row ? names.findIndex((name) => name.startsWith(`${row}.`)) : place;
}

export class Heatmap {
  // `picked(row, step)` is told of a click or an arrow key, `zoomed(first, last)` of a drag,
  // `turned(module)` of one that is to be folded or unfolded.
  constructor(parent, {picked, zoomed, turned}) {
    Object.assign(this, {picked, zoomed, turned, pressed: null, dragged: null});
    this.map = document.createElement('canvas');
    this.cursor = document.createElement('canvas');
    this.said = document.createElement('div');
    this.said.className = 'said';
    this.frame = document.createElement('div');
    this.frame.className = 'map';
    this.frame.tabIndex = 0;
    this.frame.setAttribute('role', 'img');
    this.frame.append(this.map, this.cursor);
    this.live = document.createElement('div');
    this.live.className = 'unseen';
    this.live.setAttribute('aria-live', 'polite');
    parent.append(this.frame, this.said, this.live);
    this.frame.addEventListener('pointermove', (event) => this.move(event));
    this.frame.addEventListener('pointerdown', (event) => this.press(event));
    this.frame.addEventListener('pointerup', (event) => this.release(event));
    this.frame.addEventListener('pointercancel', () => { this.pressed = this.dragged = null; this.point(); });
    this.frame.addEventListener('pointerleave', () => { this.hover = null; this.tell(); });
    this.frame.addEventListener('keydown', (event) => this.key(event));
  }

  // view: {matrix, rows (numbers of the shown ones), measure, scale, axis, findings, row, step}
  show(view) {
    this.view = view;
    this.frame.setAttribute('aria-label', view.summary);
    const ratio = window.devicePixelRatio || 1;
    const width = this.frame.clientWidth;
    if (!width) return; // the tab is not the one in front
    const tall = Math.max(LEAST, Math.min(TALLEST, Math.floor((MAP * window.innerHeight - AXIS) / (view.rows.length || 1))));
    Object.assign(this, {width, tall, ratio, height: tall * view.rows.length});
    for (const canvas of [this.map, this.cursor]) {
      canvas.width = width * ratio;
      canvas.height = (this.height + AXIS) * ratio;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${this.height + AXIS}px`;
    }
    const colour = getComputedStyle(this.frame).color;
    Object.assign(this, paint(this.map, view, {width, tall, ratio, colour}));
    this.point();
  }

  at(event) {
    const box = this.map.getBoundingClientRect();
    const [x, y] = [event.clientX - box.left, event.clientY - box.top];
    const column = this.edges.findLastIndex((edge) => edge <= x);
    const line = Math.floor(y / this.tall);
    const {matrix, rows} = this.view;
    const on = line >= 0 && line < rows.length;
    const inside = on && column >= 0 && column < matrix.first.length;
    const module = on && x < this.left ? this.module(matrix.rows[rows[line]], Math.floor(x / LEVEL) + 1) : null;
    return {x, column, line, inside, module};
  }

  // What a click beside the map at this depth would turn: the module whose bar is there, or else
  // the one that the row is, or is in. Null where there is none.
  module(row, depth) {
    const path = row.split('.').slice(0, -1);
    if (depth <= this.levels) return depth <= path.length ? path.slice(0, depth).join('.') : null;
    return this.view.matrix.modules.includes(row) ? row : path.join('.') || null;
  }

  // The main button, and not on the scroll bar; a drag may end anywhere.
  press(event) {
    const {left} = this.frame.getBoundingClientRect();
    if (event.button || event.clientX - left >= this.frame.clientWidth) return;
    this.pressed = this.at(event).x;
    this.frame.setPointerCapture(event.pointerId);
  }

  move(event) {
    const place = this.at(event);
    this.hover = place.inside || place.module ? place : null;
    this.frame.style.cursor = place.module ? 'pointer' : '';
    this.dragged = this.pressed === null ? null : place.x;
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      if (this.dragged === null) this.tell();
      else this.point();
    });
  }

  release(event) {
    if (event.button) return;
    const place = this.at(event);
    const from = this.pressed;
    this.pressed = this.dragged = null;
    if (from === null) return;
    this.point();
    if (Math.abs(place.x - from) < DRAG) {
      if (place.inside) this.pick(place.column, place.line);
      else if (place.module) this.turned(place.module);
      return;
    }
    const {first, last} = this.view.matrix;
    const [low, high] = [Math.min(from, place.x), Math.max(from, place.x)];
    const start = Math.max(0, this.edges.findLastIndex((edge) => edge <= low));
    const end = Math.min(first.length, this.edges.findLastIndex((edge) => edge <= high) + 1) - 1;
    this.zoomed(first[start], last[Math.max(start, end)]);
  }

  pick(column, line) {
    const {matrix, rows} = this.view;
    this.live.textContent = this.words(column, line).join('');
    this.picked(matrix.rows[rows[line]], matrix.last[column]);
  }

  key(event) {
    const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (this.empty() || event.ctrlKey || event.metaKey || event.altKey) return; // the browser's own
    const {matrix, rows} = this.view;
    const {column, line} = this.chosen();
    const row = matrix.rows[rows[Math.max(line, 0)]];
    if (event.key === '+' && matrix.modules.includes(row)) this.turned(row);
    if (event.key === '-' && row?.includes('.')) this.turned(row.split('.').slice(0, -1).join('.'));
    if (!move) return;
    event.preventDefault();
    this.pick(Math.max(0, Math.min(matrix.first.length - 1, column + move[0])),
        Math.max(0, Math.min(rows.length - 1, Math.max(line, 0) + move[1])));
    this.reveal();
  }

  // Scrolls to the chosen row.
  reveal() {
    const {line} = this.chosen();
    const {frame, tall} = this;
    const [top, bottom] = [line * tall, (line + 1) * tall + AXIS];
    if (line >= 0) frame.scrollTop = Math.max(bottom - frame.clientHeight, Math.min(top, frame.scrollTop));
    frame.scrollIntoView({block: 'nearest'});
  }

  chosen() {
    const {matrix, rows, row, step} = this.view;
    const column = step === null ? matrix.first.length - 1 :
      Math.max(0, matrix.first.findLastIndex((first) => first <= step));
    return {column, line: placeOf(row, rows.map((number) => matrix.rows[number]))};
  }

  // Why there is nothing to see; null where there is something.
  empty() {
    const {matrix, rows} = this.view;
    if (rows.length && matrix.first.length) return null;
    if (!matrix.observed) return 'nothing of this was recorded, or nothing yet';
    return matrix.rows.length ? 'no row has this in its name' : 'no step in this zoom: Esc shows all';
  }

  // A cell: the name of its row, which may be cut, and the rest.
  words(column, line) {
    const {matrix, rows, measure} = this.view;
    const place = column * matrix.rows.length + rows[line];
    const [first, last] = [matrix.first[column], matrix.last[column]];
    const [low, high] = [matrix.low[place], matrix.high[place]].map((v) => inWords(v, measure));
    const when = first === last ? `step ${first}` : `steps ${first} to ${last}`;
    return [apart(matrix.rows[rows[line]]), `, ${when}: ${low === high ? low : `${low} to ${high}`}`];
  }

  // The cursor, the chosen layer and the chosen step, on a canvas of their own.
  point() {
    const context = this.cursor.getContext('2d');
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    context.clearRect(0, 0, this.width, this.height + AXIS);
    if (this.empty()) return this.tell();
    const {column, line} = this.chosen();
    const box = (x, y, width, height, colour) => {
      for (const [style, thick] of [['#000', 3], [colour, 1.5]]) {
        context.strokeStyle = style;
        context.lineWidth = thick;
        context.strokeRect(x, y, width, height);
      }
    };
    const wide = Math.max(2, this.edges[column + 1] - this.edges[column]);
    box(this.edges[column], 0.5, wide, this.height - 1, '#fff');
    if (line >= 0) box(this.left, line * this.tall, this.width - this.left - 1, this.tall, '#fff');
    if (this.dragged !== null) {
      context.fillStyle = 'rgba(128,128,128,.45)';
      context.fillRect(this.pressed, 0, this.dragged - this.pressed, this.height);
    }
    this.tell();
  }

  // In words what is under the pointer, or else what is chosen.
  tell() {
    const {column, line} = this.chosen();
    const {hover} = this;
    const words = [this.empty() ?? (hover?.module ?
      `click to ${this.view.matrix.modules.includes(hover.module) ? 'unfold' : 'fold'} ${apart(hover.module)}` :
      hover ? this.words(hover.column, hover.line) :
      line >= 0 ? this.words(column, line) :
      'the box is around the chosen step; click a layer at a step; drag to zoom; click a name to fold its module')].flat();
    if (this.said.textContent === words.join('')) return;
    this.said.replaceChildren(...words.map((part) => {
      const made = document.createElement('span');
      made.textContent = part;
      return made;
    }));
  }
}
