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
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let at = 0; at < letters.length; at++) bytes[at] = letters.charCodeAt(at);
  return new Float64Array(bytes.buffer); // browsers run on little-endian machines only
}
