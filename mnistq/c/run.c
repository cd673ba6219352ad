/* The windows that one pooled pixel is made of, each with its numbers in one row, so
   that all outputs read them in one go. What follows a window meets weights of 0. */
static void gather(const layer_t *layer, const uint8_t *x, int32_t row, int32_t column)
{
    int32_t length = layer->columns * layer->channels;
    int32_t stride = (layer->rows * length + 63) / 64 * 64;
    for (int32_t p = 0; p < layer->pool_rows; p++)
        for (int32_t r = 0; r < layer->pool_columns; r++) {
            code_t *to = windows + (p * layer->pool_columns + r) * stride;
            int32_t top = row * layer->down + p, left = column * layer->right + r;
            for (int32_t i = 0; i < layer->rows; i++) {
                int32_t place = (top + i) * layer->width + left;
                const uint8_t *from = x + place * layer->channels;
                for (int32_t k = 0; k < length; k++)
                    *to++ = from[k];
            }
        }
}

/* The sum of so many times 64 products: a compiler makes vector instructions of it. */
static int32_t product(const weight_t *w, const code_t *window, int32_t blocks)
{
    int32_t sum = 0;
    for (int32_t k = 0; k < 64 * blocks; k++)
        sum += w[k] * window[k];
    return sum;
}

/* Sums are pooled before they are requantized: that never changes their order. */
static void run(const layer_t *layer, const uint8_t *x, uint8_t *y)
{
    int32_t size = layer->rows * layer->columns * layer->channels;
    int32_t blocks = (size + 63) / 64, count = layer->pool_rows * layer->pool_columns;
    for (int32_t i = 0; i < layer->out_height; i++)
        for (int32_t j = 0; j < layer->out_width; j++) {
            gather(layer, x, i, j);
            const weight_t *w = layer->weights;
            for (int32_t o = 0; o < layer->outputs; o++, w += 64 * blocks) {
                int32_t best = INT32_MIN;
                for (int32_t n = 0; n < count; n++) {
                    int32_t sum = product(w, windows + n * 64 * blocks, blocks);
                    best = sum > best ? sum : best;
                }
                *y++ = requantize(layer, o, best + layer->bias[o]);
            }
        }
}
