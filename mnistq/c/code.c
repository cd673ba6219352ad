/* The code of a number on a grid, between two limits. */
static uint8_t code(int32_t q, int32_t zero, int32_t low, int32_t high)
{
    q = q < low - zero ? low - zero : q > high - zero ? high - zero : q;
    return (uint8_t)(q + zero);
}
