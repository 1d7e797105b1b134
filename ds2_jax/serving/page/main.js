// The page: its models, its key, and what its parts share.

import { takeFiles } from "./files.js";
import { show } from "./messages.js";
import { Server } from "./server.js";
import { takeSpeech } from "./speak.js";

const element = (id) => document.getElementById(id);
const server = new Server(askKey);

/** Returns what the user chose: the model and the hot words. */
function choices() {
  const words = element("hot-words").value.split(",");
  return { model: element("model").value, keywords: words.map((each) => each.trim()).filter(Boolean) };
}

/** Learns the models and limits; returns whether the server can be used. */
async function connect() {
  try {
    const names = await server.models();
    const chosen = element("model").value;
    element("model").replaceChildren(...names.map((name) => new Option(name, name, false, name === chosen)));
    element("model-field").hidden = names.length < 2;
    const { max_megabytes: megabytes, max_seconds: seconds } = server.limits;
    element("limits").textContent = `Up to ${megabytes} MB and ${duration(seconds)} each.`;
    show(element("notice"), null);
    return true;
  } catch (problem) {
    show(element("notice"), problem);
    return false;
  }
}

function duration(seconds) {
  const [unit, size] = seconds >= 7200 ? ["hours", 3600] : seconds >= 120 ? ["minutes", 60] : ["seconds", 1];
  return `${Number((seconds / size).toFixed(1))} ${unit}`;
}

/** Asks for a key; null if the user gives none. */
function askKey(wrong) {
  const dialog = element("key-dialog");
  element("key-wrong").hidden = !wrong;
  element("key-wrong").textContent = wrong ? "The server does not know this key." : "";
  element("key").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.onclose = () => resolve(dialog.returnValue || null);
    dialog.querySelector("form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close(element("key").value.trim());
    };
    element("key-cancel").onclick = () => dialog.close();
  });
}

/** Returns whether the page knows a model, after another try if it does not. */
const ready = async () => element("model").value !== "" || connect();

element("notice-again").addEventListener("click", connect);
takeSpeech(server, choices, ready);
takeFiles(server, choices, ready);
connect();
