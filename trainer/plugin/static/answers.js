// What the backend answers: every question of the page is asked here.

const base = new URL('.', import.meta.url);

export async function ask(route, query = {}) {
  const url = new URL(route, base);
  for (const [name, value] of Object.entries(query)) {
    if (value !== null && value !== undefined) url.searchParams.set(name, value);
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

// Columns × rows: `low[column * rows.length + row]`; see Columns in grid.py.
export async function matrix(query) {
  const answer = await ask('matrix', query);
  answer.low = numbers(answer.low);
  answer.high = answer.high === null ? answer.low : numbers(answer.high);
  return answer;
}

function numbers(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Float64Array.from({length: bytes.length / 8}, (_, i) => view.getFloat64(8 * i, true));
}
