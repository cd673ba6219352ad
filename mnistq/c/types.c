/* Where there are instructions for sums of 8-bit products, 8 bits; elsewhere 16. */
#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
typedef int8_t weight_t;
typedef uint8_t code_t;
#else
typedef int16_t weight_t;
typedef int16_t code_t;
#endif
