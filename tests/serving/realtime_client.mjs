// The Realtime classes of the npm package `openai`, behind a proxy with TLS, which they ask for.
import fs from "node:fs";
import net from "node:net";
import tls from "node:tls";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";
import { OpenAIRealtimeWebSocket } from "openai/realtime/websocket";

const [kind, port, model] = process.argv.slice(2);
const secrets = { cert: fs.readFileSync("certificate.pem"), key: fs.readFileSync("key.pem") };
const proxy = tls.createServer(secrets, (outside) => {
  const inside = net.connect(Number(port), "127.0.0.1");
  outside.pipe(inside).pipe(outside);
  outside.on("error", () => inside.destroy());
});
await new Promise((resolve) => proxy.listen(0, resolve));
const client = new OpenAI({ baseURL: `https://localhost:${proxy.address().port}/v1`, apiKey: "none" });
const Realtime = kind === "ws" ? OpenAIRealtimeWS : OpenAIRealtimeWebSocket;
const realtime = new Realtime({ model }, client);
const samples = fs.readFileSync("talk.wav").subarray(44);
realtime.on("session.created", () => {
  realtime.send({ type: "session.update", session: { type: "transcription", audio: { input: { turn_detection: null } } } });
  for (let start = 0; start < samples.length; start += 4800) {
    const audio = samples.subarray(start, start + 4800).toString("base64");
    realtime.send({ type: "input_audio_buffer.append", audio });
  }
  realtime.send({ type: "input_audio_buffer.commit" });
});
realtime.on("error", (error) => {
  throw error;
});
realtime.on("conversation.item.input_audio_transcription.completed", (event) => {
  console.log(event.transcript);
  realtime.close();
  proxy.close();
});
