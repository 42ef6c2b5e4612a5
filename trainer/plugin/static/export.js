// What is seen, as files: a table of the numbers and a picture.

// A line for each row and column of steps, of all panels: [{run, matrix, rows}].
export function csv(panels) {
  const lines = ['run,row,first_step,last_step,smallest,largest'];
  for (const {run, matrix, rows} of panels) {
    for (const row of rows) {
      for (let column = 0; column < matrix.first.length; column++) {
        const place = column * matrix.rows.length + row;
        lines.push([quoted(run), quoted(matrix.rows[row]), matrix.first[column], matrix.last[column],
          number(matrix.low[place]), number(matrix.high[place])].join());
      }
    }
  }
  return new Blob([lines.join('\n'), '\n'], {type: 'text/csv'});
}

// A text that a spreadsheet would take for a formula is marked as a text.
const quoted = (text) => `"${text.replace(/^[=+\-@\t\r]/, "'$&").replaceAll('"', '""')}"`;
const number = (value) => (value === -1 ? '' : String(value)); // nothing was observed

// The maps of all panels under each other, each with its run and verdict, and the legend with what
// it means: [{run, verdict, canvas}].
export function picture(panels, legend, meaning, colours) {
  const ratio = window.devicePixelRatio || 1;
  const [edge, line] = [8 * ratio, 17 * ratio];
  const [bold, plain] = [`bold ${13 * ratio}px Roboto, sans-serif`, `${12 * ratio}px Roboto, sans-serif`];
  const canvas = document.createElement('canvas');
  const context = canvas.getContext('2d');
  const width = Math.max(legend.width, ...panels.map((panel) => panel.canvas.width));
  const parts = panels.flatMap(({run, verdict, canvas: map}) => [
    ...wrapped(context, bold, run, width, 1), ...wrapped(context, plain, verdict, width, 3), map]);
  parts.push(legend, ...wrapped(context, plain, meaning, width, 3));
  canvas.width = width + 2 * edge;
  canvas.height = 2 * edge + parts.reduce((sum, part) => sum + (part.text ? line : part.height), 0);
  context.fillStyle = colours.page;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = colours.text;
  context.textBaseline = 'top';
  let y = edge;
  for (const part of parts) {
    if (part.text) {
      context.font = part.font;
      context.fillText(part.text, edge, y);
    } else context.drawImage(part, edge, y);
    y += part.text ? line : part.height;
  }
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
}

// A text in lines of this width, at most so many: [{text, font}].
function wrapped(context, font, text, width, most) {
  context.font = font;
  const lines = [];
  let rest = text.slice(0, 1000);
  while (rest && lines.length < most) {
    const mark = lines.length === most - 1 ? '…' : '';
    let end = rest.length;
    if (context.measureText(rest).width > width) {
      while (end > 1 && context.measureText(rest.slice(0, end) + mark).width > width) end--;
      const space = rest.lastIndexOf(' ', end);
      if (space > 0) end = space; // else it is one long name
    }
    lines.push({font, text: rest.slice(0, end) + (end < rest.length ? mark : '')});
    rest = rest.slice(end).trimStart();
  }
  return lines;
}

export function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
