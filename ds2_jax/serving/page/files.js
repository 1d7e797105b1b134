// Files: chosen or dropped, then transcribed one after the other.

import { Card, summary } from "./card.js";
import { announce } from "./messages.js";
import { FileSound } from "./sound.js";

const element = (id) => document.getElementById(id);
/** Problems for which another try would end in the same way. */
const HOPELESS = new Set(["empty", "unreadable_file", "too_large", "too_long", "unreadable"]);

/**
 * Lets the user choose and drop files.
 * @param {import("./server.js").Server} server
 * @param {() => {model: string, keywords: string[]}} choices
 * @param {() => Promise<boolean>} ready whether the server can be used
 */
export function takeFiles(server, choices, ready) {
  const waiting = [];
  let working = false;

  async function work() {
    if (working) return;
    working = true;
    while (waiting.length) await transcribe(server, waiting.shift());
    working = false;
  }

  function put(job) {
    job.card.problem(null);
    job.card.state("Waiting", "busy");
    job.abort = new AbortController();
    Object.assign(job, choices()); // as they are when the file is given
    waiting.push(job);
    work();
  }

  async function take(files) {
    if (!(await ready())) return;
    for (const file of files) {
      const job = { file };
      const remove = () => {
        job.abort.abort();
        if (waiting.includes(job)) waiting.splice(waiting.indexOf(job), 1);
      };
      job.card = new Card(element("cards"), file.name, new FileSound(file), { remove, again: () => put(job) });
      put(job);
    }
  }

  element("choose").addEventListener("click", () => element("files").click());
  element("files").addEventListener("change", (event) => {
    take([...event.target.files]);
    event.target.value = ""; // so that the same file can be chosen again
  });
  acceptDrops(take);
}

async function transcribe(server, { file, card, model, keywords, abort }) {
  const fields = {
    model,
    response_format: "verbose_json",
    "timestamp_granularities[]": ["word", "segment"],
    "keywords[]": keywords,
  };
  const onProgress = (fraction) => {
    if (fraction < 1) card.state(`Uploading, ${Math.floor(100 * fraction)} %`, "busy", fraction);
    else card.state("Recognising", "busy", -1);
  };
  onProgress(0);
  try {
    const transcript = await server.transcribe(file, fields, onProgress, abort.signal);
    card.fill(transcript);
    card.state(summary(transcript), "done");
    announce(`${file.name}: ${summary(transcript)}`);
  } catch (problem) {
    if (problem.kind === "cancelled") return;
    card.state("Not transcribed", "done");
    card.problem(problem, !HOPELESS.has(problem.kind));
  }
}

/** Takes files that are dropped anywhere on the page. */
function acceptDrops(take) {
  const holdsFiles = (event) => event.dataTransfer.types.includes("Files");
  const mark = (on) => element("drop").classList.toggle("over", on);
  document.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault(); // or the browser opens the file instead of the page
    mark(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) mark(false); // the pointer has left the window
  });
  document.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    mark(false);
    take([...event.dataTransfer.files]);
  });
}
