// Runs llama.cpp and engine in turn and prints one table: medians, spreads, ratios. See ../peer.
import {spawn} from "node:child_process";
import {readFileSync} from "node:fs";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";

process.on("uncaughtException", (error) => {
    console.error(`benches/peer: ${error.message}`);
    process.exit(1);
});
const here = dirname(fileURLToPath(import.meta.url));
const options = {device: "vulkan:0", p: "512", n: "128", r: "5", t: null, precision: null, "llama-bench": null, engine: null, json: false};
const positional = [];
const words = process.argv.slice(2);
while (words.length > 0) {
    const word = words.shift();
    const name = word.replace(/^--?/, "");
    if (word === "--json") options.json = true;
    else if (word.startsWith("-") && (name in options || name === "default-engine")) options[name] = words.shift();
    else if (word.startsWith("-")) throw new Error(`unknown option ${word}`);
    else positional.push(word);
}
const [model] = positional;
if (model == null) {
    console.error("which model? benches/peer MODEL.gguf; see the head of benches/peer");
    process.exit(2);
}
const engine = options.engine ?? options["default-engine"];
const cpu = options.device === "cpu";
// Precision classes of engine, each a column. llama.cpp's CPU backend rounds activations to bytes, as int8 does.
const classes = options.precision?.split(",") ?? (cpu ? ["f32", "int8"] : [null]);
const threads = options.t ?? String((await import("node:os")).availableParallelism());

/** Runs a program; answers its output and the most memory that it held, in bytes. */
function run(command, args, env = {}) {
    return new Promise((resolve, reject) => {
        const child = spawn(command, args, {env: {...process.env, ...env}, stdio: ["ignore", "pipe", "pipe"]});
        let out = "", err = "", rss = 0;
        const watch = setInterval(() => {
            try {
                const status = readFileSync(`/proc/${child.pid}/status`, "utf8");
                rss = Math.max(rss, Number(/VmHWM:\s+(\d+)/.exec(status)?.[1] ?? 0) * 1024);
            } catch { /* it has ended, or this is no Linux */ }
        }, 20);
        child.stdout.on("data", (text) => out += text);
        child.stderr.on("data", (text) => err += text);
        child.on("error", reject);
        child.on("close", (code) => {
            clearInterval(watch);
            if (code === 0) resolve({out, rss});
            else reject(new Error(`${command} ended with ${code}: ${err.slice(-2000)}`));
        });
    });
}

async function ours(precision) {
    const {out, rss} = await run(engine, [
        "bench", model, "--device", options.device, "-p", options.p, "-n", options.n, "-r", "1", "-t", threads, "--json",
        ...(precision == null ? [] : ["--precision", precision])
    ]);
    const rows = JSON.parse(out).results;
    const of = (key) => rows.find((row) => row[key] > 0)?.avg_ts ?? null;
    const [first] = rows;
    return {
        pp: of("n_prompt"), tg: of("n_gen"), load: first.load_ns / 1e9, rss,
        deviceMemory: cpu ? 0 : first.device_memory, device: first.device, precision: first.precision
    };
}

async function theirs() {
    // The software driver is hidden from llama.cpp unless it is named.
    const env = cpu ? {} : {GGML_VK_VISIBLE_DEVICES: options.device.split(":")[1] ?? "0"};
    const bench = options["llama-bench"];
    if (bench != null) {
        const args = ["-m", model, "-p", options.p, "-n", options.n, "-r", "1", "-t", threads, "-ngl", cpu ? "0" : "99", "-fa", "1", "-o", "json"];
        const {out, rss} = await run(bench, args, env);
        const rows = JSON.parse(out);
        const of = (key) => rows.find((row) => row[key] > 0)?.avg_ts ?? null;
        return {pp: of("n_prompt"), tg: of("n_gen"), load: null, rss, deviceMemory: null, device: rows[0]?.gpu_info};
    }
    const {out} = await run("node", [join(here, "llama.mjs"), cpu ? "cpu" : "vulkan", model, options.p, options.n, threads], env);
    return JSON.parse(out.trim().split("\n").at(-1));
}

const samples = {llama: [], engine: classes.map(() => [])};
for (let round = 0; round < Number(options.r); round++) {
    const runs = [
        async () => samples.llama.push(await theirs()),
        ...classes.map((precision, index) => async () => samples.engine[index].push(await ours(precision)))
    ];
    // Whoever goes first in a round goes last in the next.
    if (round % 2 === 1) runs.reverse();
    for (const run of runs) await run();
}
/** The median of what is there, the least and the most. */
function statistics(values) {
    const sorted = values.filter((value) => value != null).sort((a, b) => a - b);
    if (sorted.length === 0) return {median: null, least: null, most: null};
    const middle = sorted.length >> 1;
    const median = sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    return {median, least: sorted[0], most: sorted.at(-1)};
}
const rows = [
    [`pp${options.p} tok/s`, "pp", 1, true],
    [`tg${options.n} tok/s`, "tg", 1, true],
    ["load s", "load", 1, false],
    ["peak host MiB", "rss", 2 ** 20, false],
    ["device MiB", "deviceMemory", 2 ** 20, false]
].map(([label, key, unit, higherIsBetter]) => {
    const of = (samples) => statistics(samples.map((sample) => sample[key]));
    const llama = of(samples.llama);
    const engine = samples.engine.map((samples) => {
        const figures = of(samples);
        const [a, b] = [llama.median, figures.median];
        return {...figures, precision: samples[0].precision, ratio: a && b ? (higherIsBetter ? b / a : a / b) : null};
    });
    return {label, key, unit, llama, engine};
});
if (options.json) {
    console.log(JSON.stringify({model, device: options.device, threads, samples, rows}, null, 2));
} else {
    const cell = ({median, least, most}, unit) => median == null ? "-" : median === 0 ? "0" :
        `${(median / unit).toFixed(2)} (${(least / unit).toFixed(2)}-${(most / unit).toFixed(2)})`;
    const [theirs, [ours]] = [samples.llama[0], samples.engine];
    console.log(`${model}`);
    console.log(`on ${ours[0].device}${cpu ? `, ${threads} threads` : ""}; llama.cpp: ${theirs.device}` +
        (theirs.layers == null ? "" : `, ${theirs.layers} layers offloaded`));
    const columns = rows[0].engine.map(({precision}) => ` engine ${precision} | better by |`);
    console.log(`\n| median of ${options.r} (least-most) | llama.cpp |${columns.join("")}`);
    console.log(`|---|---:|${"---:|---:|".repeat(columns.length)}`);
    for (const {label, unit, llama, engine} of rows) {
        const cells = engine.map((figures) => ` ${cell(figures, unit)} | ${figures.ratio == null ? "-" : figures.ratio.toFixed(2) + " x"} |`);
        console.log(`| ${label} | ${cell(llama, unit)} |${cells.join("")}`);
    }
}
