// Runs what mq.export_js wrote: a network of integers, in integers only. A file of it
// calls mnistq.add(name, network); mnistq.run(mnistq.nets[name], codes) computes it.

globalThis.mnistq = (() => {
  const MAX = 2 ** 31 - 1, MIN = -(2 ** 31); // the ends of int32
  const nets = {};

  // A number of JavaScript is a float64 and holds whole numbers up to 2**53 exactly: a
  // product of two int32 is too large, so one factor is taken apart into 16 bits each.

  function highMultiply(a, b) { // (a * b + 2**30) >> 31, saturated to int32
    const upper = (a >> 16) * b; // below 2**47, as all that follows
    const lower = (a & 0xffff) * b + 2 ** 30;
    const high = Math.floor((upper + Math.floor(lower / 2 ** 16)) / 2 ** 15);
    return Math.min(high, MAX);
  }

  function roundingShift(x, shift) { // x / 2**shift, ties away from 0
    const size = Math.floor((Math.abs(x) + Math.floor(2 ** shift / 2)) / 2 ** shift);
    return x < 0 ? -size : size;
  }

  function multiply(acc, m0, shift) { // acc * m0 * 2**-31 * 2**-shift, two roundings
    const left = 2 ** Math.max(-shift, 0);
    const shifted = Math.max(MIN, Math.min(acc * left, MAX));
    return roundingShift(highMultiply(shifted, m0), Math.max(shift, 0));
  }

  function unpack(bytes, bits, count) { // the first code has the lowest bits
    const codes = new Int32Array(count);
    for (let i = 0; i < count; i++) {
      const at = i * bits, pair = bytes[at >> 3] | ((bytes[(at >> 3) + 1] ?? 0) << 8);
      const code = (pair >> (at & 7)) & (2 ** bits - 1);
      codes[i] = bits === 1 ? 2 * code - 1 : code - 2 ** (bits - 1);
    }
    return codes;
  }

  function add(name, net) { // net: as export_js describes it
    const bytes = Uint8Array.from(atob(net.data), (c) => c.charCodeAt(0));
    let at = 0;
    const take = (count, Kind) => {
      const part = bytes.slice(at, (at += count * Kind.BYTES_PER_ELEMENT));
      return new Kind(part.buffer);
    };
    net.pixelToCode = take(256, Uint8Array);
    for (const step of net.steps) {
      if (step.kind !== "layer") continue;
      const count = step.out * step.shape[0] * step.kernel[0] * step.kernel[1];
      const packed = take(Math.ceil((count * step.bits) / 8), Uint8Array);
      step.weight = unpack(packed, step.bits, count);
      for (const table of ["bias", "m0"]) step[table] = take(step.out, Int32Array);
      step.shift = take(step.out, Int8Array);
    }
    net.bytes = bytes.length;
    nets[name] = net;
  }

  function pooled(values, [h, w], [rows, columns, down, right]) { // the largest of each
    const height = Math.floor((h - rows) / down) + 1;
    const width = Math.floor((w - columns) / right) + 1;
    const result = new Int32Array(height * width).fill(MIN);
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        for (let r = 0; r < rows; r++)
          for (let c = 0; c < columns; c++) {
            const value = values[(y * down + r) * w + x * right + c];
            result[y * width + x] = Math.max(result[y * width + x], value);
          }
    return result;
  }

  function windowPlaces({ shape: [depth, h, w], kernel: [kh, kw] }) {
    const places = []; // of the inputs that one output adds up, from its corner on
    for (let d = 0; d < depth; d++)
      for (let y = 0; y < kh; y++)
        for (let x = 0; x < kw; x++) places.push((d * h + y) * w + x);
    return Int32Array.from(places);
  }

  function accumulators(step, inputs, places, channel) { // of one output, int32
    const [, h, w] = step.shape, size = places.length, first = channel * size;
    const height = h - step.kernel[0] + 1, width = w - step.kernel[1] + 1;
    const { weight } = step, result = new Int32Array(height * width);
    for (let at = 0; at < result.length; at++) {
      const start = Math.floor(at / width) * w + (at % width);
      let sum = step.bias[channel];
      for (let i = 0; i < size; i++)
        sum = (sum + Math.imul(weight[first + i], inputs[start + places[i]])) | 0;
      result[at] = sum;
    }
    return pooled(result, [height, width], step.pool);
  }

  const kinds = {
    layer(step, codes) {
      const inputs = Int32Array.from(codes, (code) => code - step.inZero);
      const places = windowPlaces(step);
      const maps = Array.from({ length: step.out }, (_, channel) =>
        Uint8Array.from(accumulators(step, inputs, places, channel), (acc) => {
          const q = multiply(acc, step.m0[channel], step.shift[channel]) + step.zero;
          return Math.max(step.low, Math.min(q, step.high));
        }));
      return Uint8Array.from(maps.flatMap((map) => [...map]));
    },
    max_pool(step, codes) {
      const [depth, h, w] = step.shape;
      const maps = Array.from({ length: depth }, (_, channel) =>
        pooled(codes.subarray(channel * h * w, (channel + 1) * h * w), [h, w], step.pool));
      return Uint8Array.from(maps.flatMap((map) => [...map]));
    },
  };

  function run(net, codes) { // the codes after each step; the last are the scores
    return net.steps.map((step) => (codes = kinds[step.kind](step, codes)));
  }

  return { nets, add, run, multiply, highMultiply, roundingShift, unpack };
})();
