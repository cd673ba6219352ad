/* The largest code of each window. */
static void max_pool(const layer_t *layer, const uint8_t *x, uint8_t *y)
{
    for (int32_t i = 0; i < layer->out_height; i++)
        for (int32_t j = 0; j < layer->out_width; j++)
            for (int32_t c = 0; c < layer->channels; c++) {
                uint8_t best = 0;
                for (int32_t p = 0; p < layer->pool_rows; p++)
                    for (int32_t r = 0; r < layer->pool_columns; r++) {
                        int32_t row = i * layer->down + p, column = j * layer->right + r;
                        uint8_t q = x[(row * layer->width + column) * layer->channels + c];
                        best = q > best ? q : best;
                    }
                *y++ = best;
            }
}
