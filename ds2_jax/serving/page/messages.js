// Says what went wrong in words for the user.

const MESSAGES = {
  // the server
  unreachable: "The server cannot be reached. Check that it is running, then try again.",
  stopping: "The server is stopping. Try again when it is back.",
  busy: "The server is busy. Try again in a moment.",
  failed: "The server made an error. Try again; its log has the reason.",
  refused: "The server did not take this.",
  full: "The server has no space left for the file. Try again later.",
  lost: "The connection to the server was lost. Any text so far is kept below.",
  key: "The server needs a key.",
  key_characters: "This key holds characters that a browser cannot send. Ask for another key, of letters and digits.",
  no_model: "The server no longer has this model. Reload the page.",
  hot_words: "The model cannot write one of the hot words. Change it, then try again.",
  // the page
  no_copy: "The browser does not allow copying. Download the text instead.",
  page: "The page made an error. Reload it, then try again.",
  // files
  empty: "The file is empty.",
  unreadable_file: "The browser cannot read this. Choose the file again; folders must be opened first.",
  too_large: ({ max_megabytes: most }) =>
    `The file is too large${most ? `: the server takes up to ${most} MB` : ""}. Send it in parts, or as FLAC or MP3.`,
  too_long: "The recording is too long for this server. Send it in parts.",
  unreadable: "The server finds no sound in this file that it can read. Try WAV, FLAC, MP3 or Ogg.",
  cut_off: "The server ended the upload. It may be busy: try again in a moment.",
  unplayable: "This browser cannot play this file. Its text is not affected.",
  gone: "The sound of this word is no longer kept: only the last 30 minutes are.",
  // the microphone
  insecure: "Browsers allow the microphone only on https pages and on localhost. Open the server at such an address.",
  not_allowed: "The browser does not let this page use the microphone. Allow it beside the address, then try again.",
  no_microphone: "No microphone was found. Connect one, then try again.",
  microphone_busy: "The microphone cannot be opened. Another program may be using it.",
  no_output: "The browser's sound does not start. Connect headphones or a loudspeaker, then try again.", // Firefox
  unplugged: "The microphone was disconnected. Any text so far is kept below.",
};

/** Returns the text of a problem. */
export function explain(problem) {
  if (!problem.kind) console.error(problem);
  const message = MESSAGES[problem.kind ?? "page"];
  return typeof message === "function" ? message(problem.values) : message;
}

/** Problems for which the words of the server tell more. */
const HELPFUL = new Set(["refused", "hot_words", "unreadable", "failed"]);

/** Shows a problem in an element of class `problem`; hides the element if there is none. */
export function show(element, problem) {
  element.hidden = !problem;
  const text = element.querySelector(".problem-text");
  text.textContent = problem ? explain(problem) : "";
  if (problem?.details && HELPFUL.has(problem.kind)) {
    const details = document.createElement("small");
    details.textContent = problem.details;
    text.append(details);
  }
}

/** Lets screen readers read a text. */
export function announce(text) {
  document.getElementById("status").textContent = text;
}
