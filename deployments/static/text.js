// Marked text and code points. JavaScript counts UTF-16 units; the interface counts code points.

const MARK = /\[\[([^[\]]+)\]\]/gu;

/** The code points of a string, one array element each. */
export const codePoints = (text) => Array.from(text);

/** "a [[b]] c" -> {text: "a b c", mentions: [{start, end}]}, white space at a mark's ends left out. */
export function readMarks(source) {
  let text = "";
  let length = 0;
  let from = 0;
  const mentions = [];
  const add = (part) => {
    text += part;
    length += codePoints(part).length;
  };
  for (const match of source.matchAll(MARK)) {
    add(source.slice(from, match.index));
    const lead = match[1].length - match[1].trimStart().length;
    const start = length + lead;
    const end = start + codePoints(match[1].trim()).length;
    if (end > start) mentions.push({ start, end });
    add(match[1]);
    from = match.index + match[0].length;
  }
  add(source.slice(from));
  return { text, mentions };
}

/** Mark what lies between two UTF-16 offsets, or take its marks away: the new piece of source. */
export function toggleMark(selected) {
  if (/^\s*\[\[[^[\]]+\]\]\s*$/u.test(selected)) return selected.replace(/\[\[|\]\]/gu, "");
  const inner = selected.replace(/\[\[|\]\]/gu, "");
  const [, before, word, after] = inner.match(/^(\s*)(.*?)(\s*)$/su);
  return word ? `${before}[[${word}]]${after}` : selected;
}
