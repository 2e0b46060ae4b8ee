// Measures llama.cpp once: loads the model, one prompt, one generation; prints a JSON object.
//
//   node llama.mjs vulkan|cpu MODEL PROMPT GENERATE THREADS
//
// Vulkan chooses its device by GGML_VK_VISIBLE_DEVICES. Times are of the library's calls; generation includes
// its choice of a token, which costs it less than a tenth of a millisecond.
import {getLlama} from "node-llama-cpp";

const [backend, modelPath, ...numbers] = process.argv.slice(2);
const [prompt, generate, threads] = numbers.map(Number);
const seconds = async (work) => {
    const start = performance.now();
    const result = await work();
    return [(performance.now() - start) / 1000, result];
};

const gpu = backend === "cpu" ? false : backend;
const llama = await getLlama({gpu, build: "never", progressLogs: false, logLevel: "error", maxThreads: threads});
const [load, model] = await seconds(() => llama.loadModel({
    modelPath,
    gpuLayers: gpu ? "max" : 0,
    defaultContextFlashAttention: true
}));
const context = await model.createContext({contextSize: prompt + generate + 16, batchSize: 512, threads});
const sequence = context.getSequence();
// Any ids will do; those that both programs could be given.
const ids = Array.from({length: prompt}, (_, index) => (index * 7919 + 1000) % 30000);

const measure = async (prompt, generate) => {
    let pp = null;
    if (prompt > 0) {
        await sequence.clearHistory();
        const [time] = await seconds(() => sequence.evaluateWithoutGeneratingNewTokens(ids.slice(0, prompt)));
        pp = prompt / time;
    }
    let tg = null;
    if (generate > 0) {
        await sequence.clearHistory();
        let start = 0;
        let count = 0;
        for await (const _ of sequence.evaluate([1000], {temperature: 0, yieldEogToken: true})) {
            if (count === 0) start = performance.now();
            if (count === generate) break;
            count++;
        }
        tg = count / ((performance.now() - start) / 1000);
    }
    return {pp, tg};
};
// A first run of each kind compiles and warms up.
await measure(prompt, Math.min(generate, 2));
const {pp, tg} = await measure(prompt, generate);
const vram = gpu ? await llama.getVramState() : {used: 0};
const device = gpu ? (await llama.getGpuDeviceNames()).join(", ") : "CPU";
console.log(JSON.stringify({
    pp, tg, load, device,
    layers: model.gpuLayers,
    rss: process.resourceUsage().maxRSS * 1024,
    deviceMemory: vram.used
}));
process.exit(0);
