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

// The maps of all panels under each other, each with its run and verdict, and the legend:
// [{run, verdict, canvas}].
export function picture(panels, legend, colours) {
  const ratio = window.devicePixelRatio || 1;
  const head = 44 * ratio;
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(legend.width, ...panels.map((panel) => panel.canvas.width)) + 16 * ratio;
  canvas.height = legend.height + panels.reduce((sum, panel) => sum + panel.canvas.height + head, 0) + 8 * ratio;
  const context = canvas.getContext('2d');
  context.fillStyle = colours.page;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = colours.text;
  let y = 0;
  for (const panel of panels) {
    context.font = `bold ${13 * ratio}px Roboto, sans-serif`;
    context.fillText(panel.run.slice(0, 300), 8 * ratio, y + 17 * ratio);
    context.font = `${12 * ratio}px Roboto, sans-serif`;
    context.fillText(panel.verdict.slice(0, 300), 8 * ratio, y + 35 * ratio);
    context.drawImage(panel.canvas, 8 * ratio, y + head);
    y += panel.canvas.height + head;
  }
  context.drawImage(legend, 8 * ratio, y);
  return new Promise((resolve) => canvas.toBlob(resolve, 'image/png'));
}

export function save(blob, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
