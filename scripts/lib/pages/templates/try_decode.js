// A file becomes pixels as in scripts/lib/data/decoding.py. PNG is decoded here, exactly and whatever its bits; what else
// the browser decodes. The reasons why a file is not read are words of the page.
"use strict";
const decoding = (() => {
  const TOO_MANY_PIXELS = 100_000_000, MOST_ELONGATED = 1000;
  const text = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));
  // An error that is shown as the word `name` of the page.
  const refusal = (name, values = {}) => Object.assign(new Error(name), { refusal: name, values });

  // Formats by their first bytes; of those that no page can count on being read, the names.
  const UNREAD = new Set(["TIFF", "HEIC", "JPEG 2000", "PNM"]);  // by most browsers
  function formatOf(bytes) {
    const start = text(bytes, 0, 16), brand = start.slice(4, 8) === "ftyp" ? start.slice(8, 12) : "";
    if (start.startsWith("\xff\xd8\xff")) return "JPEG";
    if (start.startsWith("\x89PNG\r\n\x1a\n")) return "PNG";
    if (/^(II[*+]\0|MM\0[*+])/.test(start)) return "TIFF";
    if (/^(heic|heix|heim|heis|mif1|msf1|hevc)$/.test(brand)) return "HEIC";
    if (start.startsWith("\0\0\0\fjP  ") || start.startsWith("\xff\x4f\xff\x51")) return "JPEG 2000";
    if (/^P[1-6]\s/.test(start)) return "PNM";
    if (start.startsWith("RIFF") && start.slice(8, 12) === "WEBP") return "WebP";
    return start.startsWith("GIF8") || start.startsWith("BM") || brand.startsWith("avi") ? "other" : "";
  }

  function checkSize(width, height) {
    if (width * height > TOO_MANY_PIXELS || Math.max(width, height) > MOST_ELONGATED * Math.min(width, height))
      throw refusal("too_large", { width, height });
  }

  // The number that says how a picture is turned, in the TIFF that EXIF data are; 1 is upright.
  function orientationOf(exif) {
    if (!exif || exif.length < 8) return 1;
    const view = new DataView(exif.buffer, exif.byteOffset, exif.length), little = exif[0] === 0x49;
    try {
      const start = view.getUint32(4, little);
      for (let k = 0; k < view.getUint16(start, little); k++) {
        const entry = start + 2 + 12 * k;
        if (view.getUint16(entry, little) === 0x0112) return view.getUint16(entry + 8, little);
      }
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;  // damaged: Python turns nothing then, either
    }
    return 1;
  }

  function turned(picture, orientation) {
    if (orientation < 2 || orientation > 8) return picture;
    const { width, height, channels, data } = picture, isSwapped = orientation > 4;
    const made = pixels.blank(isSwapped ? height : width, isSwapped ? width : height, channels);
    const [right, bottom] = [width - 1, height - 1];
    const from = { 2: (x, y) => [right - x, y], 3: (x, y) => [right - x, bottom - y], 4: (x, y) => [x, bottom - y],
      5: (x, y) => [y, x], 6: (x, y) => [y, bottom - x], 7: (x, y) => [right - y, bottom - x], 8: (x, y) => [right - y, x] }[orientation];
    for (let y = 0, to = 0; y < made.height; y++)
      for (let x = 0; x < made.width; x++) {
        const [column, row] = from(x, y), at = (row * width + column) * channels;
        for (let channel = 0; channel < channels; channel++) made.data[to++] = data[at + channel];
      }
    return made;
  }

  // -- PNG (https://www.w3.org/TR/png-3/) ------------------------------------------------------------------------------

  const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
    for (let k = 0; k < 8; k++) value = value & 1 ? 0xedb88320 ^ value >>> 1 : value >>> 1;
    return value;
  });
  function crc(bytes) {
    let value = -1;
    for (const byte of bytes) value = TABLE[(value ^ byte) & 255] ^ value >>> 8;
    return ~value >>> 0;
  }

  // The chunks that count, whole; others may be damaged.
  function chunksOf(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), found = { IDAT: [] };
    for (let at = 8; at + 12 <= bytes.length;) {
      const length = view.getUint32(at), kind = text(bytes, at + 4, at + 8), end = at + 8 + length;
      if (end + 4 > bytes.length) break;
      const isNeeded = /^[A-Z]/.test(kind);
      if (isNeeded || kind === "tRNS" || kind === "eXIf") {
        const isWhole = crc(bytes.subarray(at + 4, end)) === view.getUint32(end), body = bytes.subarray(at + 8, end);
        if (!isWhole && isNeeded) throw refusal("damaged");
        if (kind === "IEND") return found;
        if (kind === "IDAT") found.IDAT.push(body);
        else if (isWhole) found[kind] = body;
      }
      at = end + 4;
    }
    throw refusal("damaged");  // it ends before its end
  }

  async function inflated(parts) {
    try {
      return new Uint8Array(await new Response(new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer());
    } catch {
      throw refusal("damaged");
    }
  }

  // Undo the filters of `height` lines from `at` on, in place; return where they end. A loop for each filter: photographs
  // have tens of millions of bytes.
  function unfilter(bytes, at, lineBytes, height, unit) {
    for (let y = 0; y < height; y++) {
      const kind = bytes[at++], end = at + lineBytes, above = lineBytes + 1, first = Math.min(at + unit, end);
      if (kind > 4) throw refusal("damaged");
      if (kind === 1) for (let x = first; x < end; x++) bytes[x] += bytes[x - unit];
      if (kind === 2 && y) for (let x = at; x < end; x++) bytes[x] += bytes[x - above];
      if (kind === 3) {
        for (let x = at; x < first; x++) bytes[x] += y ? bytes[x - above] >> 1 : 0;
        for (let x = first; x < end; x++) bytes[x] += bytes[x - unit] + (y ? bytes[x - above] : 0) >> 1;
      }
      if (kind === 4) {
        for (let x = at; x < first; x++) bytes[x] += y ? bytes[x - above] : 0;
        for (let x = first; x < end; x++) {
          const a = bytes[x - unit], b = y ? bytes[x - above] : 0, c = y ? bytes[x - above - unit] : 0;
          const pa = Math.abs(b - c), pb = Math.abs(a - c), pc = Math.abs(a + b - 2 * c);
          bytes[x] += pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
        }
      }
      at = end;
    }
    return at;
  }

  const INTERLACED = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

  // The samples of all pixels as they are stored, of 1 to 16 bits.
  function samplesOf(bytes, width, height, bits, count, isInterlaced) {
    const samples = new (bits === 16 ? Uint16Array : Uint8Array)(width * height * count), unit = Math.max(1, bits * count >> 3);
    let at = 0;
    for (const [left, top, right, down] of isInterlaced ? INTERLACED : [[0, 0, 1, 1]]) {
      const [columns, rows] = [Math.ceil((width - left) / right), Math.ceil((height - top) / down)];
      if (columns <= 0 || rows <= 0) continue;
      const lineBytes = Math.ceil(columns * count * bits / 8), start = at;
      if (start + rows * (lineBytes + 1) > bytes.length) throw refusal("damaged");
      at = unfilter(bytes, start, lineBytes, rows, unit);
      if (bits === 8 && !isInterlaced) {
        for (let y = 0, from = start + 1; y < rows; y++, from += lineBytes + 1) samples.set(bytes.subarray(from, from + lineBytes), y * lineBytes);
        continue;
      }
      for (let y = 0; y < rows; y++)
        for (let x = 0, from = start + y * (lineBytes + 1) + 1; x < columns; x++)
          for (let k = 0; k < count; k++) {
            const index = x * count + k;
            samples[((top + y * down) * width + left + x * right) * count + k] = bits === 16 ? bytes[from + 2 * index] << 8 | bytes[from + 2 * index + 1]
              : bits === 8 ? bytes[from + index] : bytes[from + (index * bits >> 3)] >> 8 - bits - index * bits % 8 & (1 << bits) - 1;
          }
    }
    return samples;
  }

  async function png(bytes, { bit_depth: depth, background, grey }) {
    const { IHDR, PLTE, tRNS, eXIf, IDAT } = chunksOf(bytes);
    if (IHDR?.length !== 13) throw refusal("damaged");
    const view = new DataView(IHDR.buffer, IHDR.byteOffset, 13), [width, height] = [view.getUint32(0), view.getUint32(4)];
    const [bits, kind, isInterlaced] = [IHDR[8], IHDR[9], IHDR[12] === 1];
    checkSize(width, height);
    const count = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }[kind];
    if (!count || !width || !height || (kind === 3 && !PLTE)) throw refusal("damaged");
    const samples = samplesOf(await inflated(IDAT), width, height, bits, count, isInterlaced);
    const byte = bits === 16 ? value => Math.min(value >> depth - 8, 255) : bits === 8 || kind === 3 ? value => value : value => value * 255 / ((1 << bits) - 1);
    const clear = tRNS && kind !== 3 ? Array.from({ length: tRNS.length >> 1 }, (_, k) => tRNS[2 * k] << 8 | tRNS[2 * k + 1]) : null;
    const hasAlpha = kind === 4 || kind === 6 || Boolean(tRNS), made = pixels.blank(width, height, 4), colours = kind & 2 ? 3 : 1;
    if (bits === 8 && (kind === 2 || kind === 6) && !clear) {
      for (let from = 0, to = 0; from < samples.length; from += count, to += 4) {
        for (let k = 0; k < 3; k++) made.data[to + k] = samples[from + k];
        made.data[to + 3] = count === 4 ? samples[from + 3] : 255;
      }
    } else for (let pixel = 0; pixel < width * height; pixel++) {
      const from = pixel * count, to = pixel * 4;
      let alpha = count === 2 || count === 4 ? byte(samples[from + count - 1]) : 255;
      if (kind === 3) {
        made.data.set(PLTE.subarray(3 * samples[from], 3 * samples[from] + 3), to);
        alpha = tRNS?.[samples[from]] ?? 255;
      } else {
        let isClear = clear !== null;
        for (let k = 0; k < 3; k++) {
          const value = samples[from + (colours === 3 ? k : 0)];
          made.data[to + k] = byte(value);
          if (isClear && value !== clear[colours === 3 ? k : 0]) isClear = false;
        }
        if (isClear) alpha = 0;
      }
      made.data[to + 3] = alpha;
    }
    const sharp = bits === 16 && grey && !hasAlpha && colours === 3;  // OpenCV makes it grey before it has 8 bits
    const flat = sharp ? deepGrey(samples, width, height, byte) : onBackground(made, background, grey, hasAlpha ? GREY_OPENCV : GREY_PNG);
    return turned(flat, orientationOf(eXIf));
  }

  // -- colours ---------------------------------------------------------------------------------------------------------

  // Weights of red, green and blue, what is added, and the bits that are dropped: of OpenCV, Pillow and libpng.
  const GREY_OPENCV = [9798, 19235, 3735, 1 << 14, 15], GREY_PILLOW = [19595, 38470, 7471, 1 << 15, 16];
  const GREY_PNG = [9797, 19234, 3737, 0, 15];
  const greyOf = ([red, green, blue, more, bits], r, g, b) => r * red + g * green + b * blue + more >> bits;

  function deepGrey(samples, width, height, byte) {
    const made = pixels.blank(width, height, 1), [red, green, blue] = GREY_PNG;
    for (let at = 0; at < made.data.length; at++) {
      const sum = samples[3 * at] * red + samples[3 * at + 1] * green + samples[3 * at + 2] * blue;
      made.data[at] = byte(Math.floor((sum + 16384) / 32768));
    }
    return made;
  }

  // Red, green, blue and how much of them shows become three channels, or one, over the background; rounded as Pillow does.
  function onBackground(picture, background, isGrey, weights) {
    const made = pixels.blank(picture.width, picture.height, isGrey ? 1 : 3), { data } = picture;
    const over = (value, below, alpha) => {
      const sum = value * alpha + below * (255 - alpha) + 128;
      return sum + (sum >> 8) >> 8;
    };
    for (let from = 0, to = 0; from < data.length; from += 4) {
      const alpha = data[from + 3];
      if (alpha !== 255) for (let k = 0; k < 3; k++) data[from + k] = over(data[from + k], background[k], alpha);
      if (isGrey) made.data[to++] = greyOf(weights, data[from], data[from + 1], data[from + 2]);
      else {
        made.data[to++] = data[from];
        made.data[to++] = data[from + 1];
        made.data[to++] = data[from + 2];
      }
    }
    return made;
  }

  // -- all other formats -----------------------------------------------------------------------------------------------

  async function byBrowser(file, bytes, format, { background, grey }) {
    // Browsers show what there is of a JPEG that was cut off; Python refuses it.
    if (format === "JPEG" && !hasEnd(bytes)) throw refusal("damaged");
    let bitmap;
    try {
      const imageOrientation = format === "WebP" ? "none" : "from-image";
      bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation });
    } catch {
      throw UNREAD.has(format) ? refusal("format", { format }) : refusal(format ? "damaged" : "foreign");
    }
    checkSize(bitmap.width, bitmap.height);
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    const { width, height, data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
    bitmap.close();
    const flat = onBackground({ width, height, channels: 4, data }, background, grey, format === "JPEG" ? GREY_OPENCV : GREY_PILLOW);
    return format === "WebP" ? turned(flat, orientationOf(exifOfWebp(bytes))) : flat;
  }

  // Chromium does not turn a WebP, Python does.
  function exifOfWebp(bytes) {
    const view = new DataView(bytes.buffer);
    for (let at = 12; at + 8 <= bytes.length;) {
      const length = view.getUint32(at + 4, true), body = bytes.subarray(at + 8, at + 8 + length);
      if (text(bytes, at, at + 4) === "EXIF") return text(body, 0, 4) === "Exif" ? body.subarray(6) : body;
      at += 8 + length + (length & 1);
    }
    return null;
  }

  function hasEnd(bytes) {
    for (let at = bytes.length - 2; at > 1; at--) if (bytes[at] === 0xff && bytes[at + 1] === 0xd9) return true;
    return false;
  }

  // Return a file's picture; an error that has `refusal` says why there is none.
  async function read(file, preprocessing) {
    const bytes = new Uint8Array(await file.arrayBuffer()), format = formatOf(bytes);
    const reading = { ...preprocessing, grey: preprocessing.channel_order === "L" };
    return format === "PNG" ? png(bytes, reading) : byBrowser(file, bytes, format, reading);
  }

  return { read, refusal };
})();
