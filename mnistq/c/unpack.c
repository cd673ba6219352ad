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
