// The marks of what no colour can say, the same on the map and in the legend.

const drawn = new Map();

// A pattern for fillRect: `bad` for NaN and infinity, `dead` for zeros throughout.
export function pattern(context, mark) {
  if (!drawn.has(mark)) drawn.set(mark, tile(mark));
  return context.createPattern(drawn.get(mark), 'repeat');
}

function tile(mark) {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 8;
  const context = canvas.getContext('2d');
  context.fillStyle = mark === 'bad' ? '#e6007e' : '#000';
  context.fillRect(0, 0, 8, 8);
  context.strokeStyle = mark === 'bad' ? '#000' : '#fff';
  context.lineWidth = mark === 'bad' ? 1.5 : 1;
  context.beginPath();
  for (const from of [-8, 0, 8]) {
    context.moveTo(from, 8);
    context.lineTo(from + 8, 0);
    if (mark === 'bad') {
      context.moveTo(from, 0);
      context.lineTo(from + 8, 8);
    }
  }
  context.stroke();
  return canvas;
}

// The scale with its marks, drawn into a canvas.
export function legend(canvas, scale, dark) {
  const [width, height, bar] = [480, 34, 220];
  const ratio = window.devicePixelRatio || 1;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  canvas.style.width = `${width}px`;
  const context = canvas.getContext('2d');
  context.scale(ratio, ratio);
  for (let x = 0; x < bar; x++) {
    const place = scale.bottom + (x / bar) * (scale.top - scale.bottom);
    const value = scale.place === Math.log10 ? 10 ** place : place;
    context.fillStyle = `rgb(${scale.colour(value).map(Math.round).join()})`;
    context.fillRect(16 + x, 2, 1.5, 13);
  }
  context.font = '11px Roboto, sans-serif';
  context.fillStyle = dark ? '#ddd' : '#333';
  context.textAlign = 'center';
  for (const tick of scale.ticks) {
    const x = 16 + ((tick.place - scale.bottom) / (scale.top - scale.bottom)) * bar;
    context.fillText(tick.label, x, 29);
  }
  context.textAlign = 'left';
  for (const [x, mark, text] of [[265, 'dead', scale.dead ? 'all zeros' : 'exactly 0'],
    [365, 'bad', 'NaN or infinite']]) {
    context.fillStyle = pattern(context, mark);
    context.fillRect(x, 2, 16, 13);
    context.fillStyle = dark ? '#ddd' : '#333';
    context.fillText(text, x + 20, 13);
  }
}
