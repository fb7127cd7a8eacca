// The exported model in the browser: unpacked, opened by onnxruntime-web, checked against what Python computed with it.
"use strict";
const model = (() => {
  const { preprocessing, shape, certainty, check } = report.data;
  const TOLERANCE = 1e-3, MOST_OTHERS = 1e-4;  // of a number; the share of numbers that may be farther away
  let session = null;

  async function unpack(text) {
    const characters = atob(text), bytes = new Uint8Array(characters.length);
    for (let at = 0; at < bytes.length; at++) bytes[at] = characters.charCodeAt(at);
    return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer());
  }

  // What an element of the page holds; it is taken out, since it takes tens of megabytes.
  function take(id) {
    const element = document.getElementById(id), text = element.textContent.trim();
    element.remove();
    return unpack(text);
  }

  async function open() {
    const program = URL.createObjectURL(new Blob([await take("wasm")], { type: "application/wasm" }));
    // One thread, in this page: more would need a server that sends special headers.
    Object.assign(ort.env.wasm, { numThreads: 1, proxy: false, simd: true, wasmPaths: { "ort-wasm-simd.wasm": program } });
    session = await ort.InferenceSession.create(await take("model"), { executionProviders: ["wasm"] });
    URL.revokeObjectURL(program);
  }

  // Of tensors of one picture each, side by side: probabilities and, where the model has them, similarities.
  async function run(values, count = 1) {
    const type = preprocessing.normalisation === "inside" ? "uint8" : "float32";
    const outputs = await session.run({ images: new ort.Tensor(type, values, [count, ...shape]) });
    return { probabilities: Array.from(outputs.probabilities.data), similarities: outputs.similarities && Array.from(outputs.similarities.data) };
  }

  // What the model sees of a file, and what it takes.
  async function prepare(file) {
    const picture = pixels.prepare(await decoding.read(file, preprocessing), preprocessing.steps);
    const values = pixels.tensor(picture, preprocessing);
    if (values.length !== shape.reduce((a, b) => a * b)) throw decoding.refusal("other_shape", { width: picture.width, height: picture.height });
    return { picture, values };
  }

  const order = numbers => numbers.map((_, index) => index).sort((a, b) => numbers[b] - numbers[a]);

  async function answer(file) {
    const { picture, values } = await prepare(file), { probabilities, similarities } = await run(values);
    if (!probabilities.every(Number.isFinite)) throw decoding.refusal("no_numbers");
    const nearest = similarities ? order(similarities).slice(0, 5).map(index => ({ index, distance: Math.max(0, 1 - similarities[index]) })) : [];
    return { picture, values, probabilities, best: order(probabilities), nearest, distance: nearest[0]?.distance ?? null };
  }

  // Why an answer is unsure, as scripts/lib/runs/certainty.py has it.
  function reasons({ probabilities, best, distance }, accuracy) {
    if (!certainty) return [];
    const step = certainty.steps.find(([reached]) => reached >= accuracy);
    const isLow = !step || probabilities[best[0]] < step[1];
    const isFar = certainty.far !== null && distance !== null && distance > certainty.far;
    return [...(isLow ? ["not_confident"] : []), ...(isFar ? ["far"] : [])];
  }

  // How far this browser is from Python for the picture that the page brings along; `holds` says whether that is rounding.
  async function verify() {
    const bytes = Uint8Array.from(atob(check.picture), character => character.charCodeAt(0));
    const [found, buffer] = [await answer(new Blob([bytes])), await unpack(check.tensor)];
    const expected = preprocessing.normalisation === "inside" ? buffer : new Float32Array(buffer.buffer);
    const others = expected.reduce((count, value, at) => count + !(Math.abs(value - found.values[at]) <= TOLERANCE), 0);
    const apart = (a, b) => Math.max(...a.map((value, at) => Math.abs(value - b[at])));
    const probability = apart(check.probabilities, found.probabilities);
    const distance = check.distance === null ? 0 : Math.abs(check.distance - found.distance);
    return { others, probability, distance, holds: others <= MOST_OTHERS * expected.length && probability <= TOLERANCE && distance <= TOLERANCE };
  }

  // A moment in which the page draws and answers. A timer would do, but browsers slow timers of hidden tabs down.
  const pause = () => new Promise(resolve => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });

  // How much the probability of a class falls when a square of the picture is covered by the mean colour: numbers in rows.
  async function cover(values, label, cells, progress) {
    const isInside = preprocessing.normalisation === "inside";
    const [channels, height, width] = isInside ? [shape[2], shape[0], shape[1]] : shape;
    const before = (await run(values)).probabilities[label], drops = [], half = Math.max(height, width) / cells;
    for (let row = 0; row < cells; row++) {
      for (let column = 0; column < cells; column++) {
        const covered = values.slice(), [y, x] = [(row + 0.5) * height / cells, (column + 0.5) * width / cells];
        for (let j = Math.max(0, Math.floor(y - half)); j < Math.min(height, y + half); j++)
          for (let i = Math.max(0, Math.floor(x - half)); i < Math.min(width, x + half); i++)
            for (let channel = 0; channel < channels; channel++)
              if (isInside) covered[(j * width + i) * channels + channel] = preprocessing.mean[channel];
              else covered[(channel * height + j) * width + i] = 0;
        drops.push(before - (await run(covered)).probabilities[label]);
      }
      progress((row + 1) / cells);
      await pause();
    }
    return drops;
  }

  return { answer, cover, open, pause, prepare, reasons, run, verify };
})();
