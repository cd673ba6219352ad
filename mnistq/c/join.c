/* Writes a tensor's channels to their place among all, on the grid of all. */
typedef struct {
    int32_t pixels, channels;                 /* of what it reads */
    int32_t first, every;                     /* its place, and the channels of all */
    int32_t in_zero, zero, low, high;         /* zero points; limits of what it writes */
    int32_t m0, shift;                        /* the multiplier */
} join_t;

static void join(const join_t *part, const uint8_t *x, uint8_t *y)
{
    for (int32_t n = 0; n < part->pixels; n++)
        for (int32_t c = 0; c < part->channels; c++) {
            int32_t q = multiply(*x++ - part->in_zero, part->m0, part->shift);
            int32_t place = n * part->every + part->first + c;
            y[place] = code(q, part->zero, part->low, part->high);
        }
}
