// Subtitles, with the same cues as `transcribe --output-format srt`: see ds2_jax/recognition/cues.py for the rules.
// The server does not tell when letters are spoken, so that the letters of a very long word share its time equally.

const LINE_WIDTH = 42;
const MIN_SECONDS = 1;
const MAX_SECONDS = 7;
const CHARACTERS_PER_SECOND = 17;
const GAP = 0.08;
const SHORTEST_PAUSE = 1;
const LINGER = 1.5;
const LONG_PAUSE = 1;
const GOOD_PAUSE = 0.5;
const SEGMENT_COST = 2;

const INVISIBLE = /[\p{Mn}\p{Me}\p{Cf}]/u;
const WIDE = /[\p{scx=Han}\p{scx=Hiragana}\p{scx=Katakana}\p{scx=Hangul}\uff01-\uff60\uffe0-\uffe6]/u;

/** Writes SubRip. An arrow in the text would end the cue in some players. */
export function toSrt(transcript) {
  const cues = makeCues(transcript);
  return cues
    .map((cue, index) => `${index + 1}\n${span(cue, ",")}\n${cue.lines.join("\n").replaceAll("-->", "-- >")}\n\n`)
    .join("");
}

/** Writes WebVTT. */
export function toVtt(transcript) {
  const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const cues = makeCues(transcript);
  return `WEBVTT\n\n${cues.map((cue) => `${span(cue, ".")}\n${escaped(cue.lines.join("\n"))}\n\n`).join("")}`;
}

function span(cue, mark) {
  return `${timestamp(cue.start, mark)} --> ${timestamp(cue.end, mark)}`;
}

function timestamp(milliseconds, mark) {
  const digits = (number, count) => String(Math.floor(number)).padStart(count, "0");
  const seconds = milliseconds / 1000;
  const parts = [digits(seconds / 3600, 2), digits((seconds / 60) % 60, 2), digits(seconds % 60, 2)];
  return `${parts.join(":")}${mark}${digits(milliseconds % 1000, 3)}`;
}

/** Divides words among segments, both in order. */
export function bySegment({ words, segments }) {
  let next = 0;
  return segments.map(({ end }) => {
    const first = next;
    while (next < words.length && words[next].start < end) next++;
    return words.slice(first, next);
  });
}

/** Divides words into cues {start, end, lines}, with times in milliseconds. */
function makeCues({ words, segments, duration }) {
  const pieces = makePieces(words, segments);
  const bounds = bestBounds(pieces, duration);
  const cues = [];
  for (let index = 0; index + 1 < bounds.length; index++) {
    const shown = pieces.slice(bounds[index], bounds[index + 1]);
    const next = pieces[bounds[index + 1]];
    const end = shownUntil(shown[0].start, shown.at(-1).end, width(shown), next ? next.start : duration, !next);
    const start = Math.max(Math.round(1000 * shown[0].start), cues.at(-1)?.end ?? 0);
    cues.push({ start, end: Math.max(Math.round(1000 * end), start + 1), lines: makeLines(shown) });
  }
  return cues;
}

/** Lists {text, start, end, width, space, pause, endsSegment}: words, and the letters of those too long for a cue. */
function makePieces(words, segments) {
  const lasts = new Set(bySegment({ words, segments }).map((each) => each.at(-1)));
  const parts = words.flatMap((word) => {
    const tooLong = textWidth(word.word) > LINE_WIDTH || word.end - word.start > MAX_SECONDS;
    const texts = tooLong ? word.word.match(/\P{M}?\p{M}*/gu).filter(Boolean) : [word.word];
    const each = (word.end - word.start) / texts.length;
    return texts.map((text, number) => ({
      text,
      start: word.start + number * each,
      end: word.start + (number + 1) * each,
      width: textWidth(text),
      space: number ? 0 : 1,
      endsSegment: lasts.has(word) && number === texts.length - 1,
    }));
  });
  parts.forEach((part, index) => (part.pause = (parts[index + 1]?.start ?? Infinity) - part.end));
  return parts;
}

function textWidth(text) {
  let columns = 0;
  for (const each of text) columns += INVISIBLE.test(each) ? 0 : WIDE.test(each) ? 2 : 1;
  return columns;
}

function width(pieces) {
  return pieces.reduce((sum, piece) => sum + piece.width + piece.space, 0) - pieces[0].space;
}

/** Computes when a cue disappears, in seconds. */
function shownUntil(start, lastEnd, columns, following, isLast) {
  const readable = Math.min(start + columns / CHARACTERS_PER_SECOND, lastEnd + LINGER);
  let end = Math.max(lastEnd, start + MIN_SECONDS, readable);
  if (!isLast) {
    if (following - end < SHORTEST_PAUSE) end = following;
    const withGap = following - GAP;
    if (withGap >= Math.min(start + MIN_SECONDS, lastEnd)) following = withGap;
  }
  return Math.min(end, following, start + MAX_SECONDS);
}

/** Divides the pieces at the lowest cost, from the end to the start; returns each cue's first piece, then the end. */
function bestBounds(pieces, duration) {
  const count = pieces.length;
  const ends = [0];
  for (const piece of pieces) ends.push(ends.at(-1) + piece.width + piece.space);
  const costs = new Array(count + 1).fill(0);
  const nexts = new Array(count + 1).fill(count);
  for (let first = count - 1; first >= 0; first--) {
    const { start, space } = pieces[first];
    const columns = ends[first] + space;
    let [best, inside, secondLine] = [Infinity, 0, null];
    for (let last = first + 1; last <= count; last++) {
      if (secondLine === null && ends[last] - columns > LINE_WIDTH) secondLine = last - 1;
      const tooWide = secondLine !== null && ends[last] - ends[secondLine] - pieces[secondLine].space > LINE_WIDTH;
      const piece = pieces[last - 1];
      if (last > first + 1 && (tooWide || piece.end - start > MAX_SECONDS)) break;
      const following = last < count ? pieces[last].start : duration;
      const end = shownUntil(start, piece.end, ends[last] - columns, following, last === count);
      const cost = inside + cueCost(end - start, ends[last] - columns) + costs[last];
      if (cost < best) [best, nexts[first]] = [cost, last];
      if (piece.pause >= LONG_PAUSE) break;
      inside += piece.endsSegment ? SEGMENT_COST : Math.max(0, piece.pause) / GOOD_PAUSE;
    }
    costs[first] = best;
  }
  const bounds = [0];
  while (bounds.at(-1) < count) bounds.push(nexts[bounds.at(-1)]);
  return bounds;
}

function cueCost(seconds, columns) {
  const tooShort = Math.max(0, MIN_SECONDS - seconds);
  const tooFast = Math.max(0, columns / Math.max(seconds, 0.1) - CHARACTERS_PER_SECOND);
  return 1 + 4 * tooShort + 0.2 * tooFast;
}

/** Divides a cue into one line, or two of about equal length, preferably at a pause. */
function makeLines(pieces) {
  if (width(pieces) <= LINE_WIDTH || pieces.length === 1) return [joined(pieces)];
  let [parting, least] = [1, null];
  for (let index = 1; index < pieces.length; index++) {
    const [top, bottom] = [width(pieces.slice(0, index)), width(pieces.slice(index))];
    const longer = Math.max(top, bottom);
    const pause = Math.max(0, pieces[index - 1].pause) / GOOD_PAUSE;
    const ugliness = [Number(longer > LINE_WIDTH), 1 - pieces[index].space, longer - 12 * Math.min(1, pause), top];
    if (least === null || isLess(ugliness, least)) [parting, least] = [index, ugliness];
  }
  return [joined(pieces.slice(0, parting)), joined(pieces.slice(parting))];
}

function isLess(left, right) {
  const index = left.findIndex((value, position) => value !== right[position]);
  return index >= 0 && left[index] < right[index];
}

function joined(pieces) {
  const text = pieces.map((piece) => " ".repeat(piece.space) + piece.text).join("");
  return text.startsWith(" ") ? text.slice(1) : text;
}
