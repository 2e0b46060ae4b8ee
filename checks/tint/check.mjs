// Compiles kernels by Tint, Chrome's WGSL compiler, without a GPU: Dawn's null back end checks texts, constants and limits
// as every other, and stops short of a driver.
//
// In: a line of JSON a kernel: {"name", "wgsl", "constants"}. Out: one for each that is refused: {"name", "why"}.
import { createInterface } from "node:readline";
import { create, globals } from "webgpu";

Object.assign(globalThis, globals);

// A device keeps every text that it was given: after so many a new one takes over.
const PIECE = 400;

// Kept for the whole run: what it made must not outlive it.
const gpu = create(["backend=null"]);

const kernels = [];
for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim()) kernels.push(JSON.parse(line));
}

async function openDevice() {
  const adapter = await gpu.requestAdapter();
  if (!adapter) throw new Error("Dawn has no null adapter");
  // The limits stay WebGPU's defaults: what every browser grants.
  return adapter.requestDevice({ requiredFeatures: ["subgroups", "shader-f16"] });
}

// What is wrong with a kernel, or null.
async function faultOf(device, { name, wgsl, constants }) {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label: name, code: wgsl });
  const { messages } = await module.getCompilationInfo();
  const errors = messages
    .filter((message) => message.type === "error")
    .map((message) => `${message.lineNum}:${message.linePos}: ${message.message}`);
  if (errors.length === 0) {
    device.createComputePipeline({ label: name, layout: "auto", compute: { module, entryPoint: "main", constants } });
  }
  const error = await device.popErrorScope();
  return errors.length > 0 ? errors.join("\n") : error && error.message;
}

for (let first = 0; first < kernels.length; first += PIECE) {
  const device = await openDevice();
  for (const kernel of kernels.slice(first, first + PIECE)) {
    const why = await faultOf(device, kernel);
    if (why) console.log(JSON.stringify({ name: kernel.name, why }));
  }
  device.destroy();
}
process.exit(0);
