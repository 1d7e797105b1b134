// Live speech: the microphone, and the stream to the server.

import { Problem } from "./server.js";
import { isPlaying, Recording } from "./sound.js";

const SILENT_DB = -60; // the left end of the level meter
const SLOW_SECONDS = 3; // sound that may wait for the server before the user is told
const LAST_WORDS_SECONDS = 15;
const START_SECONDS = 5;

const MICROPHONE_KINDS = {
  NotAllowedError: "not_allowed",
  SecurityError: "not_allowed",
  NotFoundError: "no_microphone",
  OverconstrainedError: "no_microphone",
};

/** Lists the microphones; they have no names before the user has allowed one. */
export async function microphones() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  return devices.filter((each) => each.kind === "audioinput" && each.label);
}

/**
 * A live stream.
 *
 * Events: "open" (the microphone), "level" (0 to 1), "partial" ({stable, changing}), "result" ({words, text}, which may
 * be empty), "lag" (seconds of sound that wait, if many), "end" (a problem, or null). A result's words have start and
 * end in seconds from the start of the recording.
 */
export class Live extends EventTarget {
  /** Called in a click, or Safari's audio stays silent. */
  constructor(server) {
    super();
    this.server = server;
    // No rate is asked for: Firefox throws if it is not the microphone's. The server resamples.
    this.context = new AudioContext();
    this.resumed = this.context.resume();
    this.recording = new Recording(this.context.sampleRate);
    this.waiting = []; // blocks that wait for the socket
    this.unanswered = 0; // samples in blocks that the server has not answered
    this.sizes = [];
    this.socket = null;
    this.stopping = false;
    this.deaf = false; // the microphone is closed
    this.ended = false;
  }

  /**
   * Opens microphone and stream.
   * @param {{deviceId: string, model: string, keywords: string[]}} options
   */
  async start({ deviceId, model, keywords }) {
    try {
      await this.#openMicrophone(deviceId);
      if (this.ended) return;
      const socket = await this.server.stream();
      if (this.ended) return socket.close();
      this.socket = socket;
      socket.onmessage = (event) => this.#answer(JSON.parse(event.data));
      socket.onclose = (event) => this.#closed(event);
      const config = { sample_rate: this.recording.rate, model, words: true, keywords };
      socket.send(JSON.stringify({ config }));
      for (const block of this.waiting.splice(0)) this.#send(block);
      if (this.deaf) this.#finish(); // the user stopped it meanwhile
    } catch (error) {
      this.#end(error);
    }
  }

  /** Ends the recording, and the stream after its last words. */
  stop() {
    if (this.stopping) return;
    this.stopping = true;
    this.timeout = setTimeout(() => this.#end(new Problem("lost")), 1000 * (LAST_WORDS_SECONDS + this.#lag()));
    if (this.node) this.node.port.postMessage("stop");
    else this.#end(null);
  }

  async #openMicrophone(deviceId) {
    if (!navigator.mediaDevices) throw new Problem("insecure");
    // The model is to hear what was said, as in a recording, not what a telephone would make of it.
    const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    const audio = { ...plain, channelCount: 1, ...(deviceId && { deviceId: { exact: deviceId } }) };
    this.media = await navigator.mediaDevices.getUserMedia({ audio }).catch((error) => {
      throw new Problem(MICROPHONE_KINDS[error.name] ?? "microphone_busy");
    });
    if (this.ended) return this.#closeTracks();
    this.media.getAudioTracks()[0].onended = () => this.#end(new Problem("unplugged"));
    const tooLate = new Promise((resolve) => setTimeout(resolve, 1000 * START_SECONDS, "too late"));
    if ((await Promise.race([this.resumed, tooLate])) === "too late") throw new Problem("no_output");
    await this.context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    if (this.ended) return;
    this.node = new AudioWorkletNode(this.context, "capture");
    this.node.port.onmessage = (event) => this.#hear(event.data);
    this.context.createMediaStreamSource(this.media).connect(this.node).connect(this.context.destination);
    this.#tell("open");
  }

  /** Takes a block of samples, or null after the last one. */
  #hear(block) {
    if (this.ended) return;
    if (!block) return this.#finish();
    if (isPlaying()) block.fill(0); // or the microphone would hear the word that is played
    this.recording.add(block);
    this.#tell("level", level(block));
    if (this.socket) this.#send(block);
    else this.waiting.push(block);
  }

  #send(block) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.socket.send(block);
    this.sizes.push(block.length);
    this.unanswered += block.length;
    if (this.#lag() > SLOW_SECONDS) this.#tell("lag", this.#lag());
  }

  #finish() {
    this.#closeMicrophone();
    this.socket?.send('{"eof": 1}'); // or `start` sends it
  }

  #lag() {
    return this.unanswered / this.recording.rate;
  }

  #answer(answer) {
    this.unanswered -= this.sizes.shift() ?? 0;
    if ("partial" in answer) {
      const stable = answer.stable ?? "";
      this.#tell("partial", { stable, changing: answer.partial.slice(stable.length) });
      return;
    }
    const words = (answer.result ?? []).map(({ word, start, end, conf }) => ({ word, start, end, confidence: conf }));
    this.#tell("result", { words, text: answer.text });
  }

  async #closed({ code, reason }) {
    if (this.ended) return;
    if (this.stopping && code === 1000) return this.#end(null);
    if (code === 1003) return this.#end(new Problem(reason.includes("keywords") ? "hot_words" : "refused", reason));
    if (code === 1011) return this.#end(new Problem("failed", reason));
    await this.server.models().then(
      () => this.#end(new Problem("lost")),
      (problem) => this.#end(problem.kind === "unreachable" ? new Problem("lost") : problem),
    );
  }

  #closeMicrophone() {
    if (this.deaf) return;
    this.deaf = true;
    this.#closeTracks();
    this.context.close();
    this.#tell("level", 0);
  }

  #closeTracks() {
    for (const track of this.media?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
  }

  #end(problem) {
    if (this.ended) return;
    clearTimeout(this.timeout);
    this.#closeMicrophone();
    this.ended = true;
    this.socket?.close();
    this.#tell("end", problem);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Returns the loudness of a block, 0 to 1. */
function level(block) {
  let sum = 0;
  for (const sample of block) sum += sample * sample;
  const decibels = 10 * Math.log10(sum / block.length / 2 ** 30 + 1e-12);
  return Math.max(0, Math.min(1, 1 - decibels / SILENT_DB));
}
