/* The sum of two tensors: each term is brought to a common scale of 20 more bits. */
typedef struct {
    int32_t size;                             /* of each tensor */
    int32_t zeros[2];                         /* zero points of the terms */
    int32_t zero, low, high;                  /* codes it writes: zero point, limits */
    int32_t m0[3], shift[3];                  /* multipliers of the terms and the sum */
} add_t;

static void add(const add_t *sum, const uint8_t *a, const uint8_t *b, uint8_t *y)
{
    for (int32_t n = 0; n < sum->size; n++) {
        int32_t one = (a[n] - sum->zeros[0]) * (1 << 20);
        int32_t other = (b[n] - sum->zeros[1]) * (1 << 20);
        int32_t q = multiply(one, sum->m0[0], sum->shift[0]);
        q += multiply(other, sum->m0[1], sum->shift[1]);
        q = multiply(q, sum->m0[2], sum->shift[2]);
        y[n] = code(q, sum->zero, sum->low, sum->high);
    }
}
