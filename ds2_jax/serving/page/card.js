// A transcript on the page: its words, what can be done with them, and how far it is.

import { show } from "./messages.js";
import { Problem } from "./server.js";
import { play } from "./sound.js";
import { bySegment, toSrt, toVtt } from "./subtitles.js";

const SURE = 0.8;
const DOUBTFUL = 0.5;
const FORMATS = {
  txt: { type: "text/plain", write: (transcript) => `${transcript.text}\n` },
  srt: { type: "application/x-subrip", write: toSrt },
  vtt: { type: "text/vtt", write: toVtt },
  json: { type: "application/json", write: (transcript) => `${JSON.stringify(transcript, null, 2)}\n` },
};

/** Writes seconds as 1:02 or 1:02:03. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  const two = (number) => String(number).padStart(2, "0");
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return `${hours ? `${hours}:${two(minutes)}` : minutes}:${two(whole % 60)}`;
}

/** Sums up a transcript in words. */
export function summary({ duration, words }) {
  const found = words.length ? `${words.length} ${words.length === 1 ? "word" : "words"}` : "no speech found";
  return `${clock(duration)}, ${found}`;
}

export class Card {
  /**
   * @param {HTMLElement} place where the card is put, as the first
   * @param {string} name of the recording
   * @param {{play(from: number, to: number, signal: AbortSignal): Promise<void>, close?(): void}} sound
   * @param {{stop?(): void, remove?(): void, again?(): void}} actions what the buttons do, besides
   */
  constructor(place, name, sound, actions) {
    this.element = document.querySelector("#card").content.cloneNode(true).firstElementChild;
    this.name = name;
    this.sound = sound;
    this.transcript = { text: "", duration: 0, words: [], segments: [] };
    this.find("h2 bdi").textContent = name;
    this.text = this.find(".text");
    this.text.setAttribute("aria-label", `Words of ${name}. Arrow keys move, Enter plays a word.`);
    this.text.addEventListener("keydown", (event) => this.#move(event));
    this.text.addEventListener("click", (event) => this.#click(event.target.closest("button")));
    if (!navigator.clipboard) this.find('[data-format="copy"]').remove(); // on http pages, except localhost
    this.find(".remove").addEventListener("click", () => {
      if (this.phase === "live") return actions.stop();
      actions.remove?.();
      this.remove();
    });
    this.find(".again").addEventListener("click", () => actions.again());
    this.find("footer").addEventListener("click", (event) => this.#export(event.target));
    place.prepend(this.element);
  }

  find(selector) {
    return this.element.querySelector(selector);
  }

  remove() {
    const next = this.element.nextElementSibling?.querySelector(".remove");
    const hadFocus = this.element.contains(document.activeElement);
    this.sound.close?.();
    this.element.remove();
    if (hadFocus) (next ?? document.getElementById("choose")).focus();
  }

  /**
   * Shows how far the work is.
   * @param {string} text
   * @param {"live" | "busy" | "done"} phase whether the button stops, cancels or removes
   * @param {number?} fraction of a progress bar; -1 for one without an end
   */
  state(text, phase, fraction = null) {
    this.find(".state").textContent = text;
    const progress = this.find("progress");
    progress.hidden = fraction === null;
    progress.setAttribute("aria-label", `${text}: ${this.name}`);
    if (fraction === -1) progress.removeAttribute("value");
    else progress.value = fraction ?? 0;
    this.phase = phase;
    const button = this.find(".remove");
    button.textContent = { live: "Stop", busy: "Cancel", done: "Remove" }[phase];
    button.setAttribute("aria-label", `${button.textContent} ${this.name}`);
  }

  /** Shows a problem; `again` tells whether a new try may help. */
  problem(problem, again = false) {
    show(this.find(".problem"), problem);
    this.find(".again").hidden = !again;
  }

  /** Shows the segment that goes on. */
  open(stable, changing) {
    const line = this.find(".open");
    line.hidden = !(stable || changing);
    line.querySelector(".stable").textContent = stable;
    line.querySelector(".changing").textContent = changing;
  }

  /** Shows the answer of the server, of the format verbose_json. */
  fill(transcript) {
    const words = bySegment(transcript);
    transcript.segments.forEach((segment, index) => this.#show(segment, words[index]));
    this.transcript = transcript;
  }

  /**
   * Adds a segment.
   * @param {{text: string, start: number, end: number}} segment
   * @param {{word: string, start: number, end: number, confidence: number}[]} words none if it has not ended
   */
  add(segment, words) {
    const { transcript } = this;
    transcript.words.push(...words);
    transcript.segments.push(segment);
    transcript.text = transcript.segments.map((each) => each.text).join(" ");
    this.#show(segment, words);
  }

  #show(segment, words) {
    const row = document.createElement("div");
    row.className = "segment";
    const time = button("time", clock(segment.start), segment);
    time.setAttribute("aria-label", `Play from ${clock(segment.start)}`);
    const line = document.createElement("p");
    line.dir = "auto";
    for (const each of words) line.append(wordButton(each), " ");
    if (!words.length) line.textContent = segment.text;
    row.append(time, line);
    if (!this.text.hasChildNodes()) time.tabIndex = 0;
    this.text.append(row);
    this.find("footer").hidden = false;
    document.getElementById("legend").hidden = false;
  }

  async #click(target) {
    if (!target) return;
    this.#focus(target);
    this.problem(null);
    for (const each of document.querySelectorAll(".playing")) each.classList.remove("playing");
    target.classList.add("playing");
    try {
      await play(this.sound, Number(target.dataset.start), Number(target.dataset.end));
    } catch (error) {
      if (error.name === "AbortError") return; // another word was chosen
      this.problem(error instanceof Problem ? error : new Problem("unplayable"));
    } finally {
      target.classList.remove("playing");
    }
  }

  /** Moves the focus: Tab enters the words at one place, so that it need not pass all of them. */
  #move(event) {
    const row = event.target.closest(".segment");
    const [own, before, after] = [row, row.previousElementSibling, row.nextElementSibling].map(buttons);
    const at = own.indexOf(event.target);
    const isRtl = getComputedStyle(row.querySelector("p")).direction === "rtl";
    const to = {
      [isRtl ? "ArrowLeft" : "ArrowRight"]: own[at + 1] ?? after[0],
      [isRtl ? "ArrowRight" : "ArrowLeft"]: own[at - 1] ?? before.at(-1),
      ArrowDown: after[0],
      ArrowUp: at ? own[0] : before[0],
      Home: buttons(this.text.firstElementChild)[0],
      End: buttons(this.text.lastElementChild).at(-1),
    }[event.key];
    if (!to) return;
    event.preventDefault();
    this.#focus(to);
  }

  #focus(to) {
    for (const each of this.text.querySelectorAll('[tabindex="0"]')) each.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  }

  async #export(target) {
    const { format } = target.dataset;
    if (!format) return;
    if (format === "copy") {
      await navigator.clipboard.writeText(this.transcript.text).then(
        () => (target.textContent = "Copied"),
        () => this.problem(new Problem("no_copy")),
      );
      setTimeout(() => (target.textContent = "Copy"), 1500);
      return;
    }
    const { write, type } = FORMATS[format];
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([write(this.transcript)], { type }));
    link.download = `${this.name.replace(/\.[a-z]\w{1,4}$/i, "")}.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }
}

const buttons = (row) => [...(row?.querySelectorAll("button") ?? [])];

function button(className, text, { start, end }) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = className;
  element.textContent = text;
  element.tabIndex = -1;
  Object.assign(element.dataset, { start, end });
  return element;
}

function wordButton(word) {
  const { confidence } = word;
  const kind = confidence >= SURE ? "word" : confidence >= DOUBTFUL ? "word unsure" : "word doubtful";
  const element = button(kind, word.word, word);
  element.title = `${clock(word.start)}, ${Math.round(100 * confidence)} % sure`;
  return element;
}
