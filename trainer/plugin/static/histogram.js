// How large the values of one gradient are: exact counts, two bins an octave.

import {chart, decades, element, text} from './svg.js';

// Below half of the smallest number above zero a value is rounded to zero.
export const FORMATS = [['float16', Math.log10(2) * -25], ['bfloat16', Math.log10(2) * -134]];

export function histogram(parent, answer) {
  if (!answer || answer.step === null) {
    const words = document.createElement('p');
    words.textContent = 'No histogram of this row was recorded: choose a gradient, and a step at ' +
      'a multiple of monitor.histogram_every_steps.';
    parent.replaceChildren(words);
    return;
  }
  const {bins, counts, zeros, nans, infinities, count, step} = answer;
  const drawn = chart(parent, `${count} values at step ${step}, ${zeros} of them zero, ${nans} NaN, ` +
    `${infinities} infinite; RMS ${answer.rms}`);
  const {svg, plot} = drawn;
  const low = Math.min(...bins.map(edge), -8);
  const high = Math.max(...bins.map((bin) => edge(bin + 1)), low + 4);
  const x = (place) => plot.left + ((place - low) / (high - low)) * (plot.right - plot.left);
  const most = Math.max(...counts, 1);
  const tall = (number) => (number / most) * (plot.bottom - plot.top - 10);
  decades(drawn, low, high, x, false);
  bins.forEach((bin, at) => {
    const [from, to] = [x(edge(bin)), x(edge(bin + 1))];
    const bar = element('rect', {x: from, width: Math.max(1, to - from - 0.5),
      y: plot.bottom - tall(counts[at]), height: tall(counts[at]), class: 'bar'});
    bar.append(element('title', {}, `${counts[at]} of ${count} values from ` +
      `${(10 ** edge(bin)).toPrecision(3)} to ${(10 ** edge(bin + 1)).toPrecision(3)}`));
    svg.append(bar);
  });
  for (const [format, limit] of FORMATS) {
    if (limit < low || limit > high) continue;
    svg.append(element('line', {x1: x(limit), x2: x(limit), y1: plot.top, y2: plot.bottom, class: 'limit'}));
    text(svg, x(limit) + 4, plot.top + 8, `${format}: 0 to the left`, {class: 'limit'});
  }
  if (!bins.length) {
    text(svg, (plot.left + plot.right) / 2, (plot.top + plot.bottom) / 2,
        nans + infinities ? 'no finite value above zero' : 'all values are zero', {'text-anchor': 'middle', class: 'told'});
  }
  const lost = bins.reduce((sum, bin, at) => sum + (edge(bin + 1) <= FORMATS[0][1] ? counts[at] : 0), 0);
  const parts = [`${count.toLocaleString('en')} value${count === 1 ? '' : 's'}` +
    (answer.tensors > 1 ? ` of ${answer.tensors} tensors` : '')];
  if (zeros) parts.push(`${zeros.toLocaleString('en')} zero`);
  if (nans + infinities) parts.push(`${(nans + infinities).toLocaleString('en')} NaN or infinite`);
  if (lost) parts.push(`${+(100 * lost / count).toPrecision(3)} % would be zero in float16`);
  text(svg, plot.left, plot.bottom + 33, parts.join(', '));
  text(svg, plot.right, plot.bottom + 33, '|gradient|', {'text-anchor': 'end'});
}

// log10 of the lower edge of a bin: an exponent and one bit of the mantissa.
export function edge(bin) {
  if (bin < 2) return Math.log10(2) * (bin ? -127 : -149);
  return Math.log10(2) * ((bin >> 1) - 127) + Math.log10(1 + (bin & 1) / 2);
}
