// mq.prepare_digit for a web page: see mnistq/drawing.py, line by line the same.

globalThis.prepareDigit = (() => {
  const BOX = 20, FINE = 4 * BOX, NARROW = 1.5, WIDE = 4.3, USUAL = 2.3, TIE = 1e-6;

  const picture = (h, w) => ({ h, w, ink: new Float64Array(h * w) });

  function roundHalfEven(x) { // as Python does
    const down = Math.floor(x), rest = x - down;
    return rest === 0.5 ? down + (down % 2) : Math.round(x);
  }

  function padded({ h, w, ink }, by) {
    const result = picture(h + 2 * by, w + 2 * by);
    for (let y = 0; y < h; y++)
      result.ink.set(ink.subarray(y * w, (y + 1) * w), (y + by) * result.w + by);
    return result;
  }

  function cutOut({ h, w, ink }) {
    let [top, bottom, left, right] = [h, 0, w, 0];
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++)
        if (ink[y * w + x]) {
          [top, bottom] = [Math.min(top, y), Math.max(bottom, y + 1)];
          [left, right] = [Math.min(left, x), Math.max(right, x + 1)];
        }
    const result = picture(bottom - top, right - left);
    for (let y = top; y < bottom; y++)
      result.ink.set(ink.subarray(y * w + left, y * w + right), (y - top) * result.w);
    return result;
  }

  function scaleRows({ h, w, ink }, m) { // to m rows, each a mean
    const result = picture(m, w);
    for (let j = 0; j < m; j++) {
      const [start, end] = [(j * h) / m, ((j + 1) * h) / m];
      for (let i = Math.floor(start); i < Math.min(end, h); i++) {
        const share = ((Math.min(end, i + 1) - Math.max(start, i)) * m) / h;
        for (let x = 0; x < w; x++) result.ink[j * w + x] += share * ink[i * w + x];
      }
    }
    return result;
  }

  function transposed({ h, w, ink }) {
    const result = picture(w, h);
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++) result.ink[x * h + y] = ink[y * w + x];
    return result;
  }

  function scaled(image, side) {
    const longer = Math.max(image.h, image.w);
    const size = (n) => Math.max(1, roundHalfEven((side * n) / longer));
    const rows = scaleRows(image, size(image.h));
    return transposed(scaleRows(transposed(rows), size(image.w)));
  }

  function windowMeans(image, size) {
    const result = picture(image.h - size + 1, image.w - size + 1);
    for (let y = 0; y < result.h; y++)
      for (let x = 0; x < result.w; x++) {
        let sum = 0;
        for (let r = 0; r < size; r++)
          for (let c = 0; c < size; c++) sum += image.ink[(y + r) * image.w + x + c];
        result.ink[y * result.w + x] = sum / size ** 2;
      }
    return result;
  }

  const sum = (values) => values.reduce((a, b) => a + b, 0);

  function strokeWidth(image) {
    const { h, w, ink } = padded(image, 1);
    let slope = 0;
    for (let y = 0; y + 1 < h; y++)
      for (let x = 0; x + 1 < w; x++) {
        const [a, b] = [ink[y * w + x], ink[y * w + x + 1]];
        const [c, d] = [ink[(y + 1) * w + x], ink[(y + 1) * w + x + 1]];
        slope += Math.sqrt((c - a + d - b) ** 2 + (b - a + d - c) ** 2);
      }
    return (4 * sum(ink)) / slope;
  }

  function thickened(image, radius) {
    const { h, w } = image, r = Math.ceil(radius), wide = padded(image, r);
    const result = { h, w, ink: image.ink.slice() };
    for (let y = 0; y <= 2 * r; y++)
      for (let x = 0; x <= 2 * r; x++) {
        const share = Math.min(radius + 0.5 - Math.sqrt((y - r) ** 2 + (x - r) ** 2), 1);
        if (share <= 0) continue;
        for (let i = 0; i < h; i++)
          for (let j = 0; j < w; j++) {
            const value = share * wide.ink[(y + i) * wide.w + x + j];
            if (value > result.ink[i * w + j]) result.ink[i * w + j] = value;
          }
      }
    return result;
  }

  const inverse = ({ h, w, ink }) => ({ h, w, ink: ink.map((value) => 1 - value) });

  function withUsualStrokes(image) {
    const size = FINE / BOX;
    const width = strokeWidth(windowMeans(padded(image, size), size)) / size;
    if (NARROW <= width && width <= WIDE) return image;
    const radius = ((USUAL - width) * FINE) / (BOX - USUAL) / 2;
    image = padded(image, Math.ceil(Math.abs(radius)));
    return radius > 0 ? thickened(image, radius)
      : inverse(thickened(inverse(image), -radius));
  }

  return (bytes, width) => { // ink 0 to 255, row by row -> 28 x 28 of the same
    const result = new Uint8Array(28 * 28);
    if (bytes.every((value) => value === 0)) return result;
    const ink = Float64Array.from(bytes, (value) => value / 255);
    const image = { h: bytes.length / width, w: width, ink };
    const fine = withUsualStrokes(scaled(cutOut(image), FINE));
    const small = scaled(cutOut(fine), BOX), { h, w } = small, mass = sum(small.ink);
    const place = (n, index) => { // so that the centre of mass comes to the middle
      const middle = sum(small.ink.map((value, i) => value * index(i))) / mass;
      return Math.min(Math.max(Math.round(14 - middle + TIE), 0), 28 - n);
    };
    const top = place(h, (i) => Math.floor(i / w)), left = place(w, (i) => i % w);
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++)
        result[(top + y) * 28 + left + x] = Math.round(255 * small.ink[y * w + x] + TIE);
    return result;
  };
})();
