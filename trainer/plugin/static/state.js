// What is looked at, kept in the address of the page so that a view can be sent to a colleague.

const KEY = 'view';
const START = {run: '', other: '', statistic: 'activation_gradient', relative: true, axis: 'even',
  filter: '', row: '', fold: '0', turned: [], step: null, beside: null, first: null, last: null};

// TensorBoard's own address where it can be reached, the frame's otherwise.
function page() {
  try {
    return window.parent.location.hash === undefined ? window : window.parent;
  } catch {
    return window;
  }
}

export function load() {
  const part = page().location.hash.slice(1).split('&').find((p) => p.startsWith(`${KEY}=`));
  const said = new URLSearchParams(part ? decodeURIComponent(part.slice(KEY.length + 1)) : '');
  const state = {...START, turned: said.getAll('turned')};
  for (const [name, value] of said) {
    if (!(name in START) || name === 'turned') continue;
    if (['step', 'beside', 'first', 'last'].includes(name)) {
      state[name] = /^-?\d{1,15}$/.test(value) ? Number(value) : null;
    } else state[name] = name === 'relative' ? value === 'true' : value;
  }
  return state;
}

export function save(state) {
  const said = new URLSearchParams();
  for (const [name, start] of Object.entries(START)) {
    for (const value of [state[name]].flat()) {
      if (value !== start && value !== null) said.append(name, String(value));
    }
  }
  const text = encodeURIComponent(said);
  const tab = page() === window ? '' : 'gradients&';
  const target = page();
  target.history.replaceState(target.history.state, '', `#${tab}${KEY}=${text}`);
}
