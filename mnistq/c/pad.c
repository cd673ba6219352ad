/* Adds rows and columns of the zero point on each side. */
typedef struct {
    int32_t channels, height, width;          /* of what it reads */
    int32_t rows, columns, zero;              /* that it adds, and their code */
} pad_t;

static void pad(const pad_t *pad, const uint8_t *x, uint8_t *y)
{
    for (int32_t i = -pad->rows; i < pad->height + pad->rows; i++)
        for (int32_t j = -pad->columns; j < pad->width + pad->columns; j++) {
            int inside = i >= 0 && i < pad->height && j >= 0 && j < pad->width;
            for (int32_t c = 0; c < pad->channels; c++)
                *y++ = inside ? *x++ : (uint8_t)pad->zero;
        }
}
