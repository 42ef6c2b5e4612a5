// What the backend answers: every question of the page is asked here.

const base = new URL('.', import.meta.url);

async function answer(route, query) {
  const url = new URL(route, base);
  for (const [name, value] of Object.entries(query)) {
    for (const one of [value].flat()) if (one !== null && one !== undefined) url.searchParams.append(name, one);
  }
  const response = await fetch(url);
  if (!response.ok) throw new Error(await response.text());
  return response;
}

export const ask = async (route, query = {}) => (await answer(route, query)).json();

// Columns × rows: `low[column * rows.length + row]`, see Columns in grid.py; `high` is the same
// array where no steps share a column. The bytes are described in questions.py.
export async function matrix(query) {
  const buffer = await (await answer('matrix', query)).arrayBuffer();
  const end = 8 + Number(new DataView(buffer).getBigUint64(0, true));
  const about = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, end - 8)));
  const cells = about.rows.length * about.first.length;
  about.low = new Float64Array(buffer, end, cells); // browsers run on little-endian machines only
  about.high = buffer.byteLength > end + 8 * cells ? new Float64Array(buffer, end + 8 * cells, cells) : about.low;
  return about;
}
