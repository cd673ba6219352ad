/* A layer whose outputs read a group of the channels each. */
typedef struct {
    layer_t layer;
    int32_t groups;
} groups_t;

/* The sum of products of a kernel and inner channels of the window from x on. */
static int32_t product_of(const layer_t *layer, const kernel_t *w, const uint8_t *x,
                          int32_t inner)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < layer->rows; i++)
        for (int32_t j = 0; j < layer->columns; j++) {
            const uint8_t *from = x + (i * layer->width + j) * layer->channels;
            for (int32_t c = 0; c < inner; c++)
                sum += *w++ * from[c];
        }
    return sum;
}

static void run_groups(const groups_t *groups, const uint8_t *x, uint8_t *y)
{
    const layer_t *layer = &groups->layer;
    int32_t inner = layer->channels / groups->groups;
    int32_t each = layer->outputs / groups->groups;
    for (int32_t o = 0; o < layer->outputs; o++) {
        const kernel_t *w = kernel_of(layer, o, layer->rows * layer->columns * inner);
        const uint8_t *first = x + o / each * inner;
        uint8_t *to = y + o;
        for (int32_t i = 0; i < layer->out_height; i++)
            for (int32_t j = 0; j < layer->out_width; j++) {
                int32_t best = INT32_MIN;
                for (int32_t p = 0; p < layer->pool_rows; p++)
                    for (int32_t r = 0; r < layer->pool_columns; r++) {
                        int32_t row = i * layer->down + p, column = j * layer->right + r;
                        int32_t place = (row * layer->width + column) * layer->channels;
                        int32_t sum = product_of(layer, w, first + place, inner);
                        best = sum > best ? sum : best;
                    }
                *to = requantize(layer, o, best + layer->bias[o]);
                to += layer->outputs;
            }
    }
}
