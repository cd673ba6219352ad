/* One layer: a convolution of every output with stride 1, then max pooling. A fully
   connected layer is one whose kernel is as large as what it reads. Tensors lie in
   memory as [height][width][channels], kernels too: so a row of a window is one piece. */
typedef struct {
    int32_t channels, height, width;          /* of what it reads */
    int32_t outputs, rows, columns;           /* outputs, and size of a kernel */
    int32_t out_height, out_width;            /* of what it writes, after pooling */
    int32_t pool_rows, pool_columns;          /* 1 and 1: no pooling */
    int32_t down, right;                      /* from one pooling window to the next */
    int32_t zero, low, high;                  /* codes it writes: zero point, limits */
    int32_t bits;                             /* of a weight */
    const weight_t *weights;                  /* of one output after the other */
    const int32_t *bias;                      /* with the input's zero point folded in */
    const int32_t *m0;                        /* the multipliers, and */
    const int8_t *shift;                      /* their shifts */
} layer_t;

/* floor(x / 2**n): C does not say what >> does to a negative number. */
static int64_t shift_right(int64_t x, int n)
{
    return x >= 0 ? x >> n : ~(~x >> n);
}

/* acc * m0 / 2**31 / 2**shift in gemmlowp's two roundings: the first one's ties go up,
   those of the second away from zero. */
static int32_t multiply(int32_t acc, int32_t m0, int shift)
{
    int64_t x = acc;
    if (shift < 0) {  /* a multiplier of 1 or more */
        x *= (int64_t)1 << -shift;
        x = x > INT32_MAX ? INT32_MAX : x < INT32_MIN ? INT32_MIN : x;
    }
    x = shift_right(x * m0 + (1 << 30), 31);
    if (shift > 0)
        x = shift_right(x + ((int64_t)1 << (shift - 1)) - (x < 0), shift);
    return (int32_t)x;
}

/* The code of an accumulator. It is clamped before the zero point is added, so that
   nothing can overflow. */
static uint8_t requantize(const layer_t *layer, int32_t output, int32_t acc)
{
    int32_t low = layer->low - layer->zero, high = layer->high - layer->zero;
    int32_t q = multiply(acc, layer->m0[output], layer->shift[output]);
    q = q < low ? low : q > high ? high : q;
    return (uint8_t)(q + layer->zero);
}
