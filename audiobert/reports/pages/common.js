const MASK = "[MASK]";
const byId = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// The sentence as text and elements: nothing of the data is ever read as HTML.
function marked(sentence, spans) {
  const lower = sentence.toLowerCase();
  const places = [{ start: sentence.indexOf(MASK), length: MASK.length, tag: "span", className: "mask" }];
  for (const span of spans) {
    if (span) places.push({ start: lower.indexOf(span.toLowerCase()), length: span.length, tag: "mark", className: "" });
  }
  const parts = [];
  let end = 0;
  for (const { start, length, tag, className } of places.sort((a, b) => a.start - b.start)) {
    if (start < end) continue;
    parts.push(sentence.slice(end, start), make(tag, { className, textContent: sentence.slice(start, start + length) }));
    end = start + length;
  }
  return [...parts, sentence.slice(end)];
}
