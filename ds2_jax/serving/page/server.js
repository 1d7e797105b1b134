// Talks to the server: its models, files, and live streams.

const KEY = "ds2_jax.key"; // in sessionStorage, which ends with the tab
const HEADER_SAFE = /^[\x21-\x7e]+$/;
const PROTOCOL_SAFE = /^[\w!#$%&'*+.^`|~-]+$/; // what a WebSocket subprotocol may hold (RFC 9110, token)

/** Something that went wrong. `kind` is a key of `messages.js`; `details` is what the server says. */
export class Problem extends Error {
  constructor(kind, details = "", values = {}) {
    super(kind);
    this.kind = kind;
    this.details = details;
    this.values = values;
  }
}

const url = (path) => new URL(path, document.baseURI);

export class Server {
  /** @param {(wrong: boolean) => Promise<string?>} askKey asks the user for a key; null if there is none */
  constructor(askKey) {
    this.askKey = askKey;
    this.key = sessionStorage.getItem(KEY);
    this.asking = null;
    this.limits = null;
  }

  /** Returns the names of the models, and learns the limits. */
  async models() {
    const list = await this.#withKey((key) => this.#get("v1/models", key));
    this.limits ??= await this.#get("page/limits.json", null);
    return list.data.map((each) => each.id);
  }

  /**
   * Transcribes a file.
   * @param {Record<string, string | string[]>} fields of the form, besides the file
   * @param {(fraction: number) => void} onProgress of the upload
   */
  async transcribe(file, fields, onProgress, signal) {
    if (!file.size) throw new Problem("empty");
    if (file.size > this.limits.max_megabytes * 1e6) throw new Problem("too_large", "", this.limits);
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) {
      for (const each of [value].flat()) form.append(name, each);
    }
    form.append("file", file);
    try {
      return await this.#withKey((key) => upload(form, key, onProgress, signal));
    } catch (error) {
      if (!(error instanceof Problem) || error.kind !== "unreachable") throw error;
      await file.slice(0, 1).arrayBuffer().catch(() => {
        throw new Problem("unreadable_file");
      });
      // A server that refuses a file closes the connection, and the browser may not see why.
      await this.models();
      throw new Problem("cut_off");
    }
  }

  /** Opens a WebSocket. Resolves when it is open. */
  async stream() {
    if (this.key && !PROTOCOL_SAFE.test(this.key)) throw new Problem("key_characters");
    const address = url("vosk");
    address.protocol = address.protocol.replace("http", "ws");
    const protocols = this.key ? ["vosk", `openai-insecure-api-key.${this.key}`] : ["vosk"];
    const socket = new WebSocket(address, protocols);
    socket.binaryType = "arraybuffer";
    const opened = await new Promise((resolve) => {
      socket.onopen = () => resolve(true);
      socket.onclose = () => resolve(false);
    });
    if (opened) return socket;
    const { key } = this;
    await this.models(); // a WebSocket does not say why it was refused; this does, unless there are too many
    if (this.key === key) throw new Problem("busy");
    return this.stream();
  }

  async #get(path, key) {
    const headers = key ? { Authorization: `Bearer ${key}` } : {};
    const response = await fetch(url(path), { headers, signal: AbortSignal.timeout(15000) }).catch(() => {
      throw new Problem("unreachable");
    });
    if (!response.ok) throw refusal(response.status, await response.text());
    return response.json();
  }

  /** Calls `request(key)`, and asks for another key as long as the server does not know the key. */
  async #withKey(request) {
    for (;;) {
      const key = this.key;
      try {
        return await request(key);
      } catch (error) {
        if (!(error instanceof Problem) || error.kind !== "key") throw error;
        if (this.key === key) await this.#newKey();
      }
    }
  }

  async #newKey() {
    this.asking ??= this.askKey(this.key !== null).finally(() => {
      this.asking = null;
    });
    const key = await this.asking;
    if (key === null) throw new Problem("key");
    if (!HEADER_SAFE.test(key)) throw new Problem("key_characters");
    this.key = key;
    sessionStorage.setItem(KEY, key);
  }
}

/** Sends a form. XMLHttpRequest tells how much has been sent; `fetch` does not. */
function upload(form, key, onProgress, signal) {
  return new Promise((resolve, reject) => {
    if (signal.aborted) return reject(new Problem("cancelled")); // while the key was asked for
    const request = new XMLHttpRequest();
    request.open("POST", url("v1/audio/transcriptions"));
    if (key) request.setRequestHeader("Authorization", `Bearer ${key}`);
    request.upload.onprogress = (event) => onProgress(event.loaded / event.total);
    request.upload.onload = () => onProgress(1);
    request.onerror = () => reject(new Problem("unreachable"));
    request.onabort = () => reject(new Problem("cancelled"));
    request.onload = () => {
      if (request.status === 200) resolve(JSON.parse(request.responseText));
      else reject(refusal(request.status, request.responseText));
    };
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

const KINDS = { 401: "key", 408: "cut_off", 413: "too_large", 429: "busy", 503: "stopping", 507: "full" };

/** Makes the problem of a response with an error. */
function refusal(status, body) {
  let error = {};
  try {
    error = JSON.parse(body).error ?? {};
  } catch {
    // a proxy in between answers in its own words
  }
  const byCode = { too_long: "too_long", unreadable_audio: "unreadable", model_not_found: "no_model" };
  const kind = byCode[error.code] ?? (error.param === "keywords" ? "hot_words" : KINDS[status]);
  return new Problem(kind ?? (status < 500 ? "refused" : "failed"), error.message ?? `status ${status}`);
}
