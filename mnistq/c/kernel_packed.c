/* The weights of an output, unpacked. */
typedef int8_t kernel_t;

static const kernel_t *kernel_of(const layer_t *layer, int32_t output, int32_t size)
{
    unpack(layer, output, size);
    return kernel;
}
