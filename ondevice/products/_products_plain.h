/* Without instructions of any one processor: vectors that compilers know how to take apart. */

#include "_products_narrow.h"

enum { VECTORS = 2 };

INLINE Floats to_floats(Ints x) {
    return (Floats){(float)x[0], (float)x[1], (float)x[2], (float)x[3]};
}
INLINE Floats fused(Floats a, Floats b, Floats c) {
#ifdef __FP_FAST_FMAF
    for (int i = 0; i < LANES; i++) c[i] = fmaf(a[i], b[i], c[i]);
    return c;
#else
    return a * b + c; /* rounded twice, unlike elsewhere */
#endif
}

INLINE Floats halves(Words x) { return halves_by_bits(x); }

INLINE Words looked_up(Words x, const int8_t *table) {
    Words found;
    for (size_t i = 0; i < sizeof x; i++)
        ((int8_t *)&found)[i] = table[((const uint8_t *)&x)[i]];
    return found;
}

INLINE void quads(const uint8_t *const *rows, int64_t at, Words *out) {
    for (int k = 0; k < 4; k++)
        for (int j = 0; j < 4; j++) {
            uint32_t word;
            memcpy(&word, rows[k] + at + 4 * j, 4);
            out[j][k] = word;
        }
}

INLINE void dots(const int limit, const int chunks, const int n, const uint8_t *w,
                 const int8_t *x, int64_t x_stride, const int32_t *scales,
                 Ints sums[][VECTORS]) {
    (void)limit; /* weights are below 128, or signed */
    for (int c = 0; c < n; c++)
        for (int v = 0; v < VECTORS; v++) {
            Ints part = ints(0), factor = ints(1);
            for (int i = 0; i < chunks; i++)
                for (int lane = 0; lane < LANES; lane++)
                    for (int k = 0; k < 4; k++)
                        part[lane] += (int8_t)w[((i * VECTORS + v) * LANES + lane) * 4 + k] *
                                      x[c * x_stride + i * 4 + k];
            if (scales) memcpy(&factor, scales + v * LANES, sizeof factor);
            sums[c][v] += part * factor;
        }
}
