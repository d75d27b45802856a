/* Without instructions of any one processor: loops that compilers vectorize. An expanded weight is
   its U times its nibble; the activations of a span share a scale. */

enum { X_MOST = 4095, X_SCALES = 1 };

/* Where number i of a span lies. */
static int place(int i) { return i; }

/* One row, padded with zeros to whole spans. */
INLINE void expand_level(const int level, const Row *row, int64_t columns, int16_t *out) {
    for (int64_t w = 0; w < columns / WORD; w++) {
        int32_t code[WORD] = {0};
        for (int p = 0; p < level; p++) {
            uint32_t bits;
            memcpy(&bits, row->planes[p] + w * 4, 4);
            for (int i = 0; i < WORD; i++) code[i] += code[i] + ((bits >> i) & 1);
        }
        const int low = row->nibbles[w] & 15, high = row->nibbles[w] >> 4;
        for (int i = 0; i < WORD; i++)
            out[w * WORD + i] = (int16_t)(moved(code[i], level) * (i < GROUP ? low : high));
    }
    memset(out + columns, 0, (size_t)(padded(columns) - columns) * sizeof *out);
}

/* A span of activations, of which there are n, as integers, and their scale. */
static void round_span(const float *x, int n, int alone, int16_t *out, float *scale) {
    (void)alone;
    const float most = largest_of(x, n), inverse = most > 0 ? X_MOST / most : 0;
    for (int i = 0; i < SPAN; i++) out[i] = i < n ? (int16_t)rintf(x[i] * inverse) : 0;
    *scale = most / X_MOST;
}

/* ROWS rows times n columns; each column of the result starts where y says. */
INLINE void multiply_tile(const int n, int64_t spans, const int16_t *w, const float *w_scales,
                          const int16_t *x, const float *x_scales, float *const *y, int64_t at,
                          int n_rows) {
    for (int c = 0; c < n; c++)
        for (int r = 0; r < n_rows; r++) {
            float sum = 0;
            for (int64_t s = 0; s < spans; s++) {
                const int16_t *a = w + (r * spans + s) * SPAN, *b = x + (c * spans + s) * SPAN;
                int32_t part = 0; /* 256 products of 1905 and 4095 at most */
                for (int i = 0; i < SPAN; i++) part += (int32_t)a[i] * b[i];
                sum += (float)part * (w_scales[r * spans + s] * x_scales[c * spans + s]);
            }
            y[c][at + r] = sum;
        }
}
