// Collects the microphone's samples into blocks. Runs in the audio thread of the browser.

const BLOCKS_PER_SECOND = 10;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(sampleRate / BLOCKS_PER_SECOND));
    this.filled = 0;
    this.ended = false;
    this.port.onmessage = () => {
      this.ended = true;
      this.send();
      this.port.postMessage(null);
    };
  }

  send() {
    if (this.filled) this.port.postMessage(this.block.slice(0, this.filled));
    this.filled = 0;
  }

  /** Takes 128 samples of each channel; the output stays silent. */
  process([channels]) {
    const length = channels.length ? channels[0].length : 0;
    for (let index = 0; index < length && !this.ended; index++) {
      let sum = 0;
      for (const channel of channels) sum += channel[index];
      const sample = Math.round((32768 * sum) / channels.length);
      this.block[this.filled++] = Math.max(-32768, Math.min(32767, sample));
      if (this.filled === this.block.length) this.send();
    }
    return !this.ended;
  }
}

registerProcessor("capture", Capture);
