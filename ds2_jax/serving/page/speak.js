// The button, the microphones and the level meter: speech that becomes text while it comes.

import { Card, clock, summary } from "./card.js";
import { Live, microphones } from "./live.js";
import { announce, show } from "./messages.js";

const element = (id) => document.getElementById(id);
const SILENCE_SECONDS = 4; // without any level, after which the user is told
const NEAR_PIXELS = 160; // about four lines

/**
 * Lets the user speak.
 * @param {import("./server.js").Server} server
 * @param {() => {model: string, keywords: string[]}} choices
 * @param {() => Promise<boolean>} ready whether the server can be used
 */
export function takeSpeech(server, choices, ready) {
  let live = null;

  function stop() {
    look("stopping");
    live.stop();
  }

  async function start() {
    show(element("speak-problem"), null);
    const own = new Live(server); // in the click itself
    live = own;
    look("starting");
    const card = new Card(element("cards"), `Live, ${now()}`, own.recording, { stop });
    card.state("Starting", "live");
    follow(own, card);
    own.addEventListener("end", ({ detail: problem }) => {
      live = null;
      look("idle");
      show(element("speak-problem"), problem);
      if (!card.transcript.text && (problem || !own.recording.seconds)) card.remove();
    });
    if (await ready()) await own.start({ deviceId: element("device").value, ...choices() });
    else own.stop();
  }

  element("record").addEventListener("click", () => (live ? stop() : start()));
  navigator.mediaDevices?.addEventListener("devicechange", listDevices);
  listDevices();
}

const LOOKS = {
  idle: ["Speak", "The words come while you speak."],
  starting: ["Starting", "Allow the microphone if the browser asks."],
  listening: ["Stop", "Listening"],
  stopping: ["Finishing", "The last words are coming."],
};
const NO_SOUND = "No sound comes from the microphone. Is it muted?";

function look(state) {
  const [label, hint] = LOOKS[state];
  const button = element("record");
  button.dataset.state = state;
  button.disabled = state === "stopping";
  element("record-label").textContent = label;
  element("record-hint").textContent = hint;
}

/** Shows what a stream tells, on the page and on its card. */
function follow(live, card) {
  let heard = performance.now();
  live.addEventListener("open", () => {
    heard = performance.now();
    look("listening");
    listDevices();
    card.element.scrollIntoView({ block: "nearest" });
  });
  live.addEventListener("level", ({ detail: level }) => {
    if (level) heard = performance.now();
    showLevel(level);
    card.state(clock(live.recording.seconds), "live");
    if (element("record").dataset.state !== "listening") return;
    const isSilent = performance.now() - heard > 1000 * SILENCE_SECONDS;
    element("record-hint").textContent = isSilent ? NO_SOUND : LOOKS.listening[1];
  });
  live.addEventListener("lag", ({ detail: seconds }) => {
    card.state(`${clock(live.recording.seconds)}, the server is ${Math.round(seconds)} s behind`, "live");
  });
  let open = "";
  const show = (stable, changing) => {
    open = stable + changing;
    card.open(stable, changing);
    keepInView(card.element);
  };
  live.addEventListener("partial", ({ detail: { stable, changing } }) => show(stable, changing));
  live.addEventListener("result", ({ detail: { words, text } }) => {
    show("", "");
    if (!words.length) return;
    card.add({ text, start: words[0].start, end: words.at(-1).end }, words);
    announce(text);
  });
  live.addEventListener("end", () => {
    const { seconds } = live.recording;
    const before = card.transcript.words.at(-1)?.end ?? 0;
    if (open) card.add({ text: open, start: before, end: seconds }, []); // the connection was lost before its end
    card.open("", "");
    card.transcript.duration = seconds;
    card.state(summary(card.transcript), "done");
    announce(summary(card.transcript));
  });
}

/** Scrolls as the text grows, unless the user has scrolled away from its end. */
function keepInView(card) {
  const below = card.getBoundingClientRect().bottom - window.innerHeight;
  if (below > 0 && below < NEAR_PIXELS) window.scrollBy(0, below + 16);
}

function now() {
  return new Date().toLocaleTimeString([], { timeStyle: "short" });
}

function showLevel(level) {
  const meter = element("level");
  meter.style.setProperty("--level", level);
  element("record").style.setProperty("--level", level);
  meter.setAttribute("aria-valuenow", Math.round(100 * level));
}

async function listDevices() {
  const devices = await microphones();
  const chosen = element("device").value;
  const options = devices.map(({ label, deviceId }) => new Option(label, deviceId, false, deviceId === chosen));
  element("device").replaceChildren(...options);
  element("device-field").hidden = devices.length < 2;
}
