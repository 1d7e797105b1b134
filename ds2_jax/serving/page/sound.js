// Sound that can be played from one time to another: recorded live, or a file.

import { Problem } from "./server.js";

const KEPT_SECONDS = 30 * 60;
const MARGIN = 0.06; // seconds played before and after a word, because its times are not exact

/** What was said live: the last half an hour of it, in memory. */
export class Recording {
  /** @param {number} rate Hz */
  constructor(rate) {
    this.rate = rate;
    this.blocks = [];
    this.start = 0; // of the first block, in samples
    this.length = 0; // samples in all blocks
  }

  /** Seconds since the start. */
  get seconds() {
    return (this.start + this.length) / this.rate;
  }

  /** @param {Int16Array} block */
  add(block) {
    this.blocks.push(block);
    this.length += block.length;
    while (this.length - this.blocks[0].length >= KEPT_SECONDS * this.rate) {
      const [first] = this.blocks.splice(0, 1);
      this.start += first.length;
      this.length -= first.length;
    }
  }

  /** Returns the samples between two times in seconds, with full scale 1; none if they are no longer kept. */
  samples(from, to) {
    const first = Math.max(0, Math.round(from * this.rate));
    const last = Math.min(this.start + this.length, Math.round(to * this.rate));
    if (first < this.start || last <= first) return new Float32Array(0);
    const samples = new Float32Array(last - first);
    let position = this.start;
    for (const block of this.blocks) {
      const begin = Math.max(first, position);
      const end = Math.min(last, position + block.length);
      for (let index = begin; index < end; index++) samples[index - first] = block[index - position] / 32768;
      position += block.length;
    }
    return samples;
  }

  /** Plays from one time to another, in seconds. Resolves at the end. */
  async play(from, to, signal) {
    const samples = this.samples(from, to);
    if (!samples.length) throw new Problem("gone");
    const context = new AudioContext();
    try {
      await context.resume();
      const buffer = context.createBuffer(1, samples.length, this.rate);
      buffer.copyToChannel(samples, 0);
      const source = new AudioBufferSourceNode(context, { buffer });
      source.connect(context.destination);
      const ended = new Promise((resolve) => {
        source.onended = resolve;
        signal.addEventListener("abort", resolve);
      });
      source.start();
      await ended;
    } finally {
      await context.close();
    }
  }
}

/** A file that the user chose. */
export class FileSound {
  /** @param {File} file */
  constructor(file) {
    this.file = file;
    this.audio = null;
  }

  /** Plays from one time to another, in seconds. Resolves at the end. */
  async play(from, to, signal) {
    this.audio ??= new Audio(URL.createObjectURL(this.file));
    this.audio.currentTime = from;
    try {
      await this.audio.play();
      while (!signal.aborted && !this.audio.ended && this.audio.currentTime < to) {
        await new Promise((resolve) => setTimeout(resolve, 15));
      }
    } finally {
      this.audio.pause();
    }
  }

  /** Frees the file. */
  close() {
    this.audio?.pause();
    if (this.audio) URL.revokeObjectURL(this.audio.src);
  }
}

let current = null;

/** Returns whether something is played. */
export const isPlaying = () => current !== null;

/** Plays a part of a sound, with a margin, and ends what was played before. Times in seconds. */
export async function play(sound, from, to) {
  current?.abort();
  const own = new AbortController();
  current = own;
  try {
    await sound.play(Math.max(0, from - MARGIN), to + MARGIN, own.signal);
  } finally {
    if (current === own) current = null;
  }
}
