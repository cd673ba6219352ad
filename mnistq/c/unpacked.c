/* The window at (top, left), one number after the other, so that all outputs read it
   in one go. What follows it in the buffer meets weights of 0. */
static void gather(const layer_t *layer, const uint8_t *x, int32_t top, int32_t left)
{
    code_t *to = window;
    for (int32_t c = 0; c < layer->channels; c++)
        for (int32_t i = 0; i < layer->rows; i++) {
            int32_t row = c * layer->height + top + i;
            const uint8_t *from = x + row * layer->width + left;
            for (int32_t j = 0; j < layer->columns; j++)
                *to++ = *from++;
        }
}

/* The sum of count products, count being a multiple of 64: a compiler makes vector
   instructions of the inner loop. */
static int32_t product(const weight_t *w, int32_t count)
{
    int32_t sum = 0;
    for (int32_t k = 0; k < count; k += 64)
        for (int32_t i = k; i < k + 64; i++)
            sum += w[i] * window[i];
    return sum;
}

/* Sums are pooled before they are requantized: that never changes their order. */
static void run(const layer_t *layer, const uint8_t *x, uint8_t *y)
{
    int32_t size = layer->channels * layer->rows * layer->columns;
    int32_t stride = (size + 63) / 64 * 64, places = layer->out_height * layer->out_width;
    for (int32_t place = 0; place < places; place++) {
        int32_t i = place / layer->out_width, j = place % layer->out_width;
        for (int32_t o = 0; o < layer->outputs; o++)
            best[o] = INT32_MIN;
        for (int32_t p = 0; p < layer->pool_rows; p++)
            for (int32_t r = 0; r < layer->pool_columns; r++) {
                gather(layer, x, i * layer->down + p, j * layer->right + r);
                for (int32_t o = 0; o < layer->outputs; o++) {
                    int32_t sum = product(layer->weights + o * stride, stride);
                    best[o] = sum > best[o] ? sum : best[o];
                }
            }
        for (int32_t o = 0; o < layer->outputs; o++)
            y[o * places + place] = requantize(layer, o, best[o] + layer->bias[o]);
    }
}
