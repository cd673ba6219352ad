/* Unpacks the weights of an output, of so many bits each. They are stored with
   2**(bits - 1) added; a single bit stands for -1 or +1. */
static void unpack(const layer_t *layer, int32_t output, int32_t size)
{
    int32_t bits = layer->bits, half = 1 << (bits - 1);
    uint32_t place = (uint32_t)(output * size) * (uint32_t)bits;
    for (int32_t i = 0; i < size; i++, place += (uint32_t)bits) {
        const uint8_t *byte = layer->weights + place / 8;
        int32_t code = (byte[0] | byte[1] << 8) >> place % 8 & (2 * half - 1);
        kernel[i] = (int8_t)(bits == 1 ? 2 * code - 1 : code - half);
    }
}

/* The sum of products of an unpacked kernel and the window at (top, left). */
static int32_t window(const layer_t *layer, const uint8_t *x, int32_t top, int32_t left)
{
    const int8_t *w = kernel;
    int32_t sum = 0;
    for (int32_t c = 0; c < layer->channels; c++)
        for (int32_t i = 0; i < layer->rows; i++) {
            int32_t row = c * layer->height + top + i;
            const uint8_t *from = x + row * layer->width + left;
            for (int32_t j = 0; j < layer->columns; j++)
                sum += *w++ * *from++;
        }
    return sum;
}

/* Sums are pooled before they are requantized: that never changes their order. */
static void run(const layer_t *layer, const uint8_t *x, uint8_t *y)
{
    int32_t size = layer->channels * layer->rows * layer->columns;
    for (int32_t o = 0; o < layer->outputs; o++) {
        unpack(layer, o, size);
        for (int32_t i = 0; i < layer->out_height; i++)
            for (int32_t j = 0; j < layer->out_width; j++) {
                int32_t best = INT32_MIN;
                for (int32_t p = 0; p < layer->pool_rows; p++)
                    for (int32_t r = 0; r < layer->pool_columns; r++) {
                        int32_t top = i * layer->down + p;
                        int32_t sum = window(layer, x, top, j * layer->right + r);
                        best = sum > best ? sum : best;
                    }
                *y++ = requantize(layer, o, best + layer->bias[o]);
            }
    }
}
