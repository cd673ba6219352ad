/* The sum of products of an unpacked kernel and the window at (top, left). */
static int32_t product(const layer_t *layer, const uint8_t *x, int32_t top, int32_t left)
{
    int32_t length = layer->columns * layer->channels, sum = 0;
    const int8_t *w = kernel;
    for (int32_t i = 0; i < layer->rows; i++) {
        const uint8_t *from = x + ((top + i) * layer->width + left) * layer->channels;
        for (int32_t k = 0; k < length; k++)
            sum += *w++ * *from++;
    }
    return sum;
}

/* Sums are pooled before they are requantized: that never changes their order. */
static void run_packed(const layer_t *layer, const uint8_t *x, uint8_t *y)
{
    int32_t size = layer->rows * layer->columns * layer->channels;
    for (int32_t o = 0; o < layer->outputs; o++) {
        uint8_t *to = y + o;
        unpack(layer, o, size);
        for (int32_t i = 0; i < layer->out_height; i++)
            for (int32_t j = 0; j < layer->out_width; j++) {
                int32_t top = i * layer->down, left = j * layer->right, best = INT32_MIN;
                for (int32_t p = 0; p < layer->pool_rows; p++)
                    for (int32_t r = 0; r < layer->pool_columns; r++) {
                        int32_t sum = product(layer, x, top + p, left + r);
                        best = sum > best ? sum : best;
                    }
                *to = requantize(layer, o, best + layer->bias[o]);
                to += layer->outputs;
            }
    }
}
