/* Products of bytes that are summed in 16 bits as long as they fit, for AVX2 and SSSE3, which say:
     Vector loaded(from), alike(word)
     Vector byte_products(w, x), signed_products(w, x)    two summed to a half, of unsigned or signed
                                                          bytes w
     Vector plus_halves(a, b); Ints half_products(a, b)   sums, and products of which two are summed */

INLINE void dots(const int limit, const int chunks, const int n, const uint8_t *w,
                 const int8_t *x, int64_t x_stride, const int32_t *scales,
                 Ints sums[][VECTORS]) {
    Vector factors[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++)
        factors[v] = scales ? loaded(scales + v * LANES) : alike(0x10001);
    const int step = limit > 0 ? limit : 1;
    UNROLLED for (int first = 0; first < chunks; first += step) {
        Vector parts[4][VECTORS];
        UNROLLED for (int i = 0; i < step; i++) {
            const uint8_t *const of_w = w + (first + i) * VECTORS * sizeof(Vector);
            Vector a[VECTORS];
            UNROLLED for (int v = 0; v < VECTORS; v++)
                a[v] = loaded(of_w + v * sizeof(Vector));
            UNROLLED for (int c = 0; c < n; c++) {
                int32_t four;
                memcpy(&four, x + c * x_stride + (first + i) * 4, 4);
                const Vector b = alike(four);
                UNROLLED for (int v = 0; v < VECTORS; v++) {
                    const Vector some =
                        limit == SIGNED ? signed_products(a[v], b) : byte_products(a[v], b);
                    parts[c][v] = i ? plus_halves(parts[c][v], some) : some;
                }
            }
            /* One chunk after the other: the compiler would spill products of later ones. */
            if (step > 1)
                UNROLLED for (int c = 0; c < n; c++)
                    UNROLLED for (int v = 0; v < VECTORS; v++)
                        __asm__ volatile("" : "+x"(parts[c][v]));
        }
        UNROLLED for (int c = 0; c < n; c++)
            UNROLLED for (int v = 0; v < VECTORS; v++)
                sums[c][v] += half_products(parts[c][v], factors[v]);
    }
}
