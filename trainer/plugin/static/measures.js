// The statistics to choose from, and what their values look like: colours, marks and words.

const DECADES = 6; // on either side of the middle of a two-sided scale
export const ABSENT = -1;

export const MEASURES = {
  activation_gradient: {label: 'gradient at each layer’s output (RMS)', dead: 0},
  parameter_gradient: {label: 'gradient of each parameter (RMS)', dead: 0},
  update_ratio: {label: 'update ratio of each parameter', dead: 0, middle: -3},
  activation: {label: 'output of each layer (RMS)', dead: 0},
  zero_fraction: {label: 'fraction of zeros in each output', dead: 1, fraction: true},
};

// Viridis, and ColorBrewer's RdBu from blue to red: both are told apart by the colour-blind.
const SEQUENTIAL = ['440154', '472d7b', '3b528b', '2c728e', '21918c', '28ae80', '5ec962', 'addc30',
  'fde725'];
const TWO_SIDED = ['053061', '2166ac', '4393c3', '92c5de', 'd1e5f0', 'f7f7f7', 'fddbc7', 'f4a582',
  'd6604d', 'b2182b', '67001f'];

const channels = (hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16));

// 256 colours of three channels between the stops.
function table(stops) {
  const colours = stops.map(channels);
  return Array.from({length: 256}, (_, index) => {
    const place = (index / 255) * (colours.length - 1);
    const before = Math.min(Math.floor(place), colours.length - 2);
    return colours[before].map((c, i) => c + (colours[before + 1][i] - c) * (place - before));
  });
}
const TABLES = {sequential: table(SEQUENTIAL), twoSided: table(TWO_SIDED)};

// The scale that all pictures of a view share, so that equal colours are equal values.
export function scaleOf(measure, relative, matrices) {
  const {fraction, middle, dead} = MEASURES[measure];
  if (fraction) return scale(TABLES.sequential, 0, 1, (v) => v, dead, 'sequential');
  const centre = relative ? 0 : middle;
  if (centre !== undefined) {
    return scale(TABLES.twoSided, centre - DECADES, centre + DECADES, Math.log10, dead, 'twoSided');
  }
  let [lowest, highest] = [Infinity, -Infinity];
  for (const {low, high} of matrices) {
    for (const value of low) if (value > 0 && value < lowest) lowest = value;
    for (const value of high) if (value > highest && value < Infinity) highest = value;
  }
  const top = highest > 0 ? Math.ceil(Math.log10(highest)) : 0;
  const bottom = Math.min(top - DECADES, lowest < Infinity ? Math.floor(Math.log10(lowest)) : 0);
  return scale(TABLES.sequential, bottom, top, Math.log10, dead, 'sequential');
}

function scale(colours, bottom, top, place, dead, kind) {
  const part = (value) => Math.max(0, Math.min(1, (place(value) - bottom) / (top - bottom)));
  const pixels = Uint32Array.from(colours, ([red, green, blue]) =>
    (255 << 24 | Math.round(blue) << 16 | Math.round(green) << 8 | Math.round(red)) >>> 0);
  return {
    bottom, top, place, dead, kind,
    colour: (value) => colours[Math.round(part(value) * 255)],
    pixel: (value) => pixels[Math.round(part(value) * 255)],
    ticks: place === Math.log10 ? decades(bottom, top) : [0, 0.25, 0.5, 0.75, 1].map(
        (v) => ({place: v, label: `${v * 100} %`})),
    mark(value) {
      if (value === ABSENT) return 'absent';
      if (!Number.isFinite(value)) return 'bad';
      return value === dead ? 'dead' : null;
    },
    // Of a column of several steps: the value that a reader must not miss.
    telling(low, high) {
      if (kind === 'sequential' || !Number.isFinite(high) || low === high) return high;
      if (low === 0 || low === ABSENT) return high;
      const centre = (bottom + top) / 2;
      return Math.abs(place(low) - centre) > Math.abs(place(high) - centre) ? low : high;
    },
  };
}

function decades(bottom, top) {
  const stride = Math.max(1, Math.ceil((top - bottom) / 8));
  const ticks = [];
  for (let power = bottom; power <= top; power += stride) {
    ticks.push({place: power, label: power === 0 ? '1' : `10${raised(power)}`});
  }
  return ticks;
}

export const raised = (power) =>
  String(power).replace(/./g, (letter) => '⁰¹²³⁴⁵⁶⁷⁸⁹'[letter] ?? '⁻');

// A name inside a sentence: what is written from right to left turns nothing but itself.
const TURNS = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufdff\ufe70-\ufefc]/;
export const apart = (name) => (TURNS.test(name) ? `\u2068${name}\u2069` : name);

export function inWords(value, measure) {
  if (value === null || value === ABSENT) return 'not observed';
  if (typeof value === 'string' || !Number.isFinite(value)) {
    return Number.isNaN(Number(value)) ? 'NaN' : 'infinite';
  }
  if (MEASURES[measure].fraction) return `${+(100 * value).toPrecision(4)} %`;
  return value === 0 ? '0' : value.toPrecision(4).replace(/e\+?/, 'e');
}

// What the picture shows and the two ends of its scale say, for who sees it for the first time.
export function meaning(relative, measure) {
  const ends = relative && measure.endsWith('gradient') ?
    '; blue: it shrinks towards the first layers; red: it grows' :
    relative ? '; blue: smaller than there; red: larger' :
    measure === 'update_ratio' ? '; blue: hardly learns; red: changes more than a thousandth a step' : '';
  return `${MEASURES[measure].label}${relative ? ' over that in the last row' : ''}, ` +
    `from the first layer down, steps of training to the right${ends}`;
}
