/* The weights of an output. */
typedef weight_t kernel_t;

static const kernel_t *kernel_of(const layer_t *layer, int32_t output, int32_t size)
{
    return layer->weights + output * size;
}
