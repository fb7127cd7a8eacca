// What Python does to the pixels of a picture before the model gets them (scripts/lib/runs/onnx_model.py), bit for bit.
// A picture is {width, height, channels, data}: bytes, row by row, red first; one channel where it is grey.
"use strict";
const pixels = (() => {
  const blank = (width, height, channels) =>
    ({ width, height, channels, data: new Uint8ClampedArray(width * height * channels) });
  const brightness = ([red, green, blue]) => (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
  const clamp = (value, most) => Math.min(Math.max(value, 0), most);
  // Python's round: halves go to the even number; a clamped array rounds in the same way.
  function round(value) {
    const below = Math.floor(value);
    return value - below === 0.5 ? below + (below & 1) : Math.round(value);
  }

  // -- Pillow (src/libImaging/Resample.c) -------------------------------------------------------------------------------

  const sinc = x => x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
  const PILLOW = {
    box: [0.5, x => x > -0.5 && x <= 0.5 ? 1 : 0],
    bilinear: [1, x => Math.max(0, 1 - Math.abs(x))],
    hamming: [1, x => Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(x * Math.PI))],
    bicubic: [2, x => {
      const [a, d] = [-0.5, Math.abs(x)];
      return d < 1 ? ((a + 2) * d - (a + 3)) * d * d + 1 : d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    }],
    lanczos: [3, x => x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0],
  };
  const BITS = 22;  // of the fraction of a weight

  // For each of `to` new pixels: the first of `from` old ones that it is made of, and their weights as whole numbers.
  function weights(from, to, [radius, filter]) {
    const scale = from / to, stretch = Math.max(scale, 1), support = radius * stretch;
    return Array.from({ length: to }, (_, index) => {
      const centre = (index + 0.5) * scale;
      const first = Math.max(0, Math.trunc(centre - support + 0.5));
      const end = Math.min(from, Math.trunc(centre + support + 0.5));
      const values = [];
      for (let x = first; x < end; x++) values.push(filter((x - centre + 0.5) * (1 / stretch)));
      const sum = values.reduce((a, b) => a + b, 0);
      return { first, values: values.map(value => {
        const share = (sum ? value / sum : value) * 2 ** BITS;
        return Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
      }) };
    });
  }

  // One direction: `count` lines of `steps` each; a pixel's neighbour is `stride` further on, a line `next`.
  function pass(from, to, table, lines, [stride, next], [newStride, newNext], channels) {
    for (let line = 0; line < lines; line++) {
      for (let index = 0; index < table.length; index++) {
        const { first, values } = table[index];
        for (let channel = 0; channel < channels; channel++) {
          let sum = 2 ** (BITS - 1), at = line * next + first * stride + channel;
          for (let k = 0; k < values.length; k++, at += stride) sum += from[at] * values[k];
          to[line * newNext + index * newStride + channel] = Math.floor(sum / 2 ** BITS);
        }
      }
    }
  }

  // As Pillow 12: first the columns, then the rows (13 begins with the rows of tall pictures). Each direction rounds.
  function pillow(picture, width, height, name) {
    if (width === picture.width && height === picture.height) return picture;
    const channels = picture.channels;
    if (name === "nearest") {
      // Adding up what each step is, as Pillow does, and not a multiple of it.
      const positions = (from, to) => {
        let at = 0.5 * from / to;
        return Array.from({ length: to }, () => { const now = Math.floor(at); at += from / to; return now; });
      };
      return picked(picture, positions(picture.width, width), positions(picture.height, height));
    }
    const across = from => {
      if (width === from.width) return from;
      const made = blank(width, from.height, channels), table = weights(from.width, width, PILLOW[name]);
      pass(from.data, made.data, table, from.height, [channels, from.width * channels], [channels, width * channels], channels);
      return made;
    };
    const down = from => {
      if (height === from.height) return from;
      const made = blank(from.width, height, channels), table = weights(from.height, height, PILLOW[name]), line = from.width * channels;
      pass(from.data, made.data, table, from.width, [line, channels], [line, channels], channels);
      return made;
    };
    return down(across(picture));
  }

  function picked(picture, columns, rows) {
    const { channels, data } = picture, made = blank(columns.length, rows.length, channels);
    let at = 0;
    for (const row of rows)
      for (const column of columns)
        for (let channel = 0; channel < channels; channel++)
          made.data[at++] = data[(row * picture.width + column) * channels + channel];
    return made;
  }

  // -- OpenCV (modules/imgproc/src/resize.cpp) ---------------------------------------------------------------------------

  const f32 = Math.fround;
  const UNIT = 2048;  // weights of bilinear are whole numbers of 1/2048
  const step = (from, to) => 1 / (to / from);  // from / to, rounded as OpenCV does

  // For each of `to` new pixels: the two old ones that it is made of, and their weights. inArea: as INTER_AREA enlarges.
  function pairs(from, to, inArea, isRow) {
    return Array.from({ length: to }, (_, index) => {
      const exact = inArea ? index * step(from, to) : f32((index + 0.5) * step(from, to) - 0.5);
      let at = Math.floor(exact), share = inArea ? Math.max(0, f32(index + 1 - (at + 1) * (to / from))) : f32(exact - at);
      share -= Math.floor(share);
      if (!isRow && at < 0) [at, share] = [0, 0];
      if (!isRow && at >= from - 1) [at, share] = [from - 1, 0];
      return { at: [at, at + 1].map(value => clamp(value, from - 1)),
        shares: [f32(1 - share), share].map(value => round(f32(value * UNIT))) };
    });
  }

  // The same of bicubic: four old pixels. OpenCV leaves it to Intel's library, which computes in floating point.
  function quadruples(from, to) {
    const a = -0.75, outer = y => ((a * y - 5 * a) * y + 8 * a) * y - 4 * a, inner = y => ((a + 2) * y - (a + 3)) * y * y + 1;
    return Array.from({ length: to }, (_, index) => {
      const exact = (index + 0.5) * step(from, to) - 0.5, at = Math.floor(exact), x = exact - at;
      return { at: [-1, 0, 1, 2].map(k => clamp(at + k, from - 1)), shares: [outer(x + 1), inner(x), inner(1 - x), outer(2 - x)].map(f32) };
    });
  }

  function interpolated(picture, width, height, columns, rows, isCubic) {
    const { channels, data } = picture, made = blank(width, height, channels);
    const kept = new Map();  // old rows, made narrower
    const narrow = row => {
      if (!kept.has(row)) {
        const line = new (isCubic ? Float32Array : Int32Array)(width * channels);
        const start = row * picture.width * channels;
        columns.forEach(({ at, shares }, x) => {
          for (let channel = 0; channel < channels; channel++)
            for (let k = 0; k < at.length; k++)
              line[x * channels + channel] += f32(data[start + at[k] * channels + channel] * shares[k]);
        });
        kept.set(row, line);
      }
      return kept.get(row);
    };
    rows.forEach(({ at, shares }, y) => {
      const lines = at.map(narrow);
      for (const row of kept.keys()) if (!at.includes(row)) kept.delete(row);
      const out = made.data.subarray(y * width * channels, (y + 1) * width * channels);
      for (let x = 0; x < out.length; x++)
        out[x] = isCubic ? lines.reduce((sum, line, k) => f32(sum + f32(line[x] * shares[k])), 0)  // a clamped array rounds
          : (((shares[0] * (lines[0][x] >> 4)) >> 16) + ((shares[1] * (lines[1][x] >> 4)) >> 16) + 2) >> 2;
    });
    return made;
  }

  // Whole blocks of old pixels become one.
  function blocks(picture, width, height) {
    const { channels, data } = picture, made = blank(width, height, channels);
    const across = picture.width / width, down = picture.height / height, share = f32(1 / (across * down));
    for (let y = 0, to = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        for (let channel = 0; channel < channels; channel++, to++) {
          let sum = 0;
          for (let j = 0; j < down; j++)
            for (let i = 0; i < across; i++)
              sum += data[((y * down + j) * picture.width + x * across + i) * channels + channel];
          made.data[to] = across === 2 && down === 2 ? (sum + 2) >> 2 : f32(sum * share);
        }
    return made;
  }

  // The old pixels under each new one, with the share of it that each covers.
  function cover(from, to) {
    const scale = step(from, to);
    return Array.from({ length: to }, (_, index) => {
      const start = index * scale, end = start + scale, size = Math.min(scale, from - start);
      const first = Math.ceil(start), last = Math.min(Math.floor(end), from - 1), covered = [];
      const begin = Math.min(first, last);
      if (begin - start > 1e-3) covered.push([begin - 1, f32((begin - start) / size)]);
      for (let at = begin; at < last; at++) covered.push([at, f32(1 / size)]);
      if (end - last > 1e-3) covered.push([last, f32(Math.min(Math.min(end - last, 1), size) / size)]);
      return covered;
    });
  }

  function areas(picture, width, height) {
    const { channels, data } = picture, made = blank(width, height, channels);
    const columns = cover(picture.width, width), rows = cover(picture.height, height);
    const line = new Float32Array(width * channels), sum = new Float32Array(width * channels);
    rows.forEach((covered, y) => {
      sum.fill(0);
      for (const [row, share] of covered) {
        line.fill(0);
        columns.forEach((parts, x) => {
          for (const [column, part] of parts)
            for (let channel = 0; channel < channels; channel++)
              line[x * channels + channel] += f32(data[(row * picture.width + column) * channels + channel] * part);
        });
        for (let x = 0; x < sum.length; x++) sum[x] += f32(line[x] * share);
      }
      made.data.set(sum, y * width * channels);
    });
    return made;
  }

  function opencv(picture, width, height, name) {
    const across = picture.width / width, down = picture.height / height;
    if (width === picture.width && height === picture.height) return picture;
    if (name === "nearest") {
      const positions = (from, to) =>
        Array.from({ length: to }, (_, index) => Math.min(Math.floor(index * step(from, to)), from - 1));
      return picked(picture, positions(picture.width, width), positions(picture.height, height));
    }
    if (name === "bicubic")
      return interpolated(picture, width, height, quadruples(picture.width, width), quadruples(picture.height, height), true);
    const inArea = name === "area";
    if (inArea ? across < 1 || down < 1 : across !== 2 || down !== 2)
      return interpolated(picture, width, height, pairs(picture.width, width, inArea, false),
        pairs(picture.height, height, inArea, true), false);
    return Number.isInteger(across) && Number.isInteger(down) ? blocks(picture, width, height) : areas(picture, width, height);
  }

  // -- the steps -------------------------------------------------------------------------------------------------------

  const STEPS = {
    resize(picture, step) {
      const shorter = step.shorter_side, least = Math.min(picture.width, picture.height);
      const [width, height] = shorter ? [picture.width, picture.height].map(side => Math.floor(side * shorter / least))
        : [step.width, step.height];
      return (step.library === "pillow" ? pillow : opencv)(picture, width, height, step.interpolation);
    },
    crop(picture, step) {
      const square = step.share && step.share * Math.min(picture.width, picture.height);
      const [width, height] = [square || step.width, square || step.height];
      const [left, top] = [Math.max(0, round((picture.width - width) / 2)), Math.max(0, round((picture.height - height) / 2))];
      const range = (first, count, all) => Array.from({ length: Math.min(first + count, all) - first }, (_, k) => first + k);
      return picked(picture, range(left, Math.trunc(width), picture.width), range(top, Math.trunc(height), picture.height));
    },
    pad(picture, step) {
      const { channels } = picture, longer = Math.max(picture.width, picture.height), side = step.pixels;
      const [width, height] = [picture.width, picture.height].map(length => Math.max(1, Math.floor(length * side / longer)));
      const small = pillow(picture, width, height, step.interpolation), made = blank(side, side, channels);
      const colour = channels === 1 ? [brightness(step.background)] : step.background;
      for (let at = 0; at < made.data.length; at++) made.data[at] = colour[at % channels];
      const [left, top] = [Math.floor((side - width) / 2), Math.floor((side - height) / 2)];
      for (let row = 0; row < height; row++)
        made.data.set(small.data.subarray(row * width * channels, (row + 1) * width * channels), ((top + row) * side + left) * channels);
      return made;
    },
  };

  // The picture after all steps, as bytes: what the model sees.
  const prepare = (picture, steps) => steps.reduce((now, step) => STEPS[step.step](now, step), picture);

  // What the model takes: normalised numbers, channel after channel; or bytes, where it normalises itself.
  function tensor(picture, { mean, std, channel_order: order, normalisation }) {
    const { channels, data } = picture, area = picture.width * picture.height;
    const from = channel => order === "BGR" ? channels - 1 - channel : channel;
    if (normalisation === "inside") return Uint8Array.from(data, (_, at) => data[at - at % channels + from(at % channels)]);
    const values = new Float32Array(data.length);
    for (let channel = 0; channel < channels; channel++) {
      const factor = 1 / std[channel];
      for (let at = 0; at < area; at++) values[channel * area + at] = (data[at * channels + from(channel)] - mean[channel]) * factor;
    }
    return values;
  }

  return { blank, brightness, prepare, tensor };
})();
