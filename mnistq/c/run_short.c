/* The codes of an output's pooled sums: one multiplier for all, thus vectors again. */
static void finish(const layer_t *layer, int32_t output, uint8_t *y)
{
    int32_t count = 0;
    for (int32_t i = 0; i < layer->out_height; i++)
        for (int32_t j = 0; j < layer->out_width; j++) {
            int32_t place = i * layer->down * layer->width + j * layer->right;
            const int32_t *from = sums + place * layer->channels;
            int32_t largest = INT32_MIN;
            for (int32_t p = 0; p < layer->pool_rows; p++)
                for (int32_t r = 0; r < layer->pool_columns; r++) {
                    int32_t sum = from[(p * layer->width + r) * layer->channels];
                    largest = sum > largest ? sum : largest;
                }
            best[count++] = largest + layer->bias[output];
        }
    for (int32_t n = 0; n < count; n++)
        codes[n] = requantize(layer, output, best[n]);
    for (int32_t n = 0; n < count; n++)
        y[n * layer->outputs + output] = codes[n];
}

/* A layer whose windows have fewer than 64 numbers: here it is the count that stand
   side by side in a vector. It computes 64 at a time, as if rows had no end; those
   that reach over one are never looked at. */
static void run_short(const layer_t *layer, const uint8_t *x, uint8_t *y)
{
    int32_t length = layer->columns * layer->channels;
    int32_t step = layer->width * layer->channels;
    int32_t used = (layer->height - layer->rows) * step + step - length + 1;
    const weight_t *kernel = layer->weights;
    for (int32_t k = 0; k < layer->height * step; k++)
        wide[k] = x[k];
    for (int32_t o = 0; o < layer->outputs; o++, kernel += layer->rows * length) {
        for (int32_t place = 0; place < used; place += 64) {
            int32_t acc[64] = {0};
            for (int32_t i = 0; i < layer->rows; i++)
                for (int32_t k = 0; k < length; k++) {
                    int32_t w = kernel[i * length + k];
                    const int32_t *from = wide + place + i * step + k;
                    for (int32_t n = 0; n < 64; n++)
                        acc[n] += w * from[n];
                }
            for (int32_t n = 0; n < 64; n++)
                sums[place + n] = acc[n];
        }
        finish(layer, o, y);
    }
}
