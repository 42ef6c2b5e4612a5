// Makes what is inside an element like what is inside another one. What is the same in both stays,
// and with it the focus, selected text and an open list.
export function renew(old, made) {
  const here = [...old.childNodes];
  const wanted = [...made.childNodes];
  wanted.forEach((node, at) => {
    const other = here[at];
    if (!other) old.append(node);
    else if (other.nodeName !== node.nodeName) other.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) {
      if (other.data !== node.data) other.data = node.data;
    } else {
      for (const {name, value} of node.attributes) {
        if (other.getAttribute(name) !== value) other.setAttribute(name, value);
      }
      for (const {name} of [...other.attributes]) {
        if (!node.hasAttribute(name)) other.removeAttribute(name);
      }
      other.onclick = node.onclick;
      renew(other, node);
    }
  });
  for (const node of here.slice(wanted.length)) node.remove();
}
