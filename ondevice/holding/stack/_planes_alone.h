/* A single column times rows as they lie; part of _planes.c. Each lane of a vector has four bytes of a
   plane, which are a block of a span, and its own sum. So nothing is transposed but bits. Vectors of
   64 bytes have two rows. */

enum { TOGETHER = LANES / BYTE }; /* rows */

/* To the sums of rows, a lane for each block, adds a span, or so many words of one. */
INLINE Floats add_span(const int level, int n, const uint8_t *const *planes, int64_t stride,
                       const uint8_t *nibbles, int64_t nibble_stride, Floats d, const Columns *x,
                       int64_t span, Floats sums) {
    Words rows[BYTE];
    int zero[BYTE];
    EACH(r, BYTE) {
        const int p = level - 1 - r;
        zero[r] = p < 0;
        rows[r] = zero[r] ? (Words)ints(0) : from_rows(planes[p], stride, n);
    }
    exchange(rows, zero, 1);
    exchange(rows, zero, 2);
    exchange(rows, zero, 4);
    const Halves factors = (Halves)nibbles_of(nibbles, nibble_stride, n);
    const Halves lows = (factors << (PLANES - level)) - (factors << PLANES);
    const int limit = level <= 4 ? 8 : level == 5 ? 4 : level == 6 ? 2 : 1;
    Ints found = pairs((Ints)lows, (Ints)for_rows(x->side + span * BYTE));
    UNROLLED for (int k = 0; k < BYTE; k += limit) {
        Halves some = {0};
        UNROLLED for (int i = k; i < k + limit; i++)
            some += (Halves)byte_pairs(rows[i], for_rows(x->q + span * SPAN + i * WORD));
        found += pairs((Ints)some, (Ints)(factors << (PLANES + 1 - level)));
    }
    const Floats scales = (Floats)for_rows(x->scales + span * BYTE);
    return fused(to_floats(found), d * scales, sums);
}

INLINE void multiply_rows_alone(const int level, const Chunk *chunk, int64_t n_rows,
                                const Columns *x, float *y) {
    const int64_t spans = spans_of(chunk->columns), whole = chunk->columns / SPAN;
    const int64_t words = chunk->columns / WORD, plane_bytes = words * 4;
    const int rest = (int)(words - whole * BYTE);
    for (int64_t r = 0; r < n_rows; r += TOGETHER) {
        const int64_t row = chunk->row + r, another = r + 1 < n_rows ? TOGETHER - 1 : 0;
        const uint16_t *scales = (const uint16_t *)chunk->parts[SCALES] + row * spans;
        const uint8_t *nibbles = chunk->parts[NIBBLES] + row * words;
        const uint8_t *planes[PLANES];
        EACH(p, level) planes[p] = chunk->parts[FIRST_PLANE + p] + row * plane_bytes;
        Floats sums = floats(0);
        for (int64_t s = 0; s < spans; s++) {
            const Floats d = of_rows(scale_of_bits(scales[s]),
                                     scale_of_bits(scales[another * spans + s]));
            sums = s < whole ? add_span(level, BYTE, planes, another * plane_bytes, nibbles,
                                        another * words, d, x, s, sums)
                             : add_span(level, rest, planes, another * plane_bytes, nibbles,
                                        another * words, d, x, s, sums);
            EACH(p, level) planes[p] += WORD;
            nibbles += BYTE;
        }
        for (int i = 0; i <= another; i++) {
            float of[SUMS];
            memcpy(of, (const float *)&sums + i * BYTE, sizeof of);
            y[r + i] = ((of[0] + of[1]) + (of[2] + of[3])) + ((of[4] + of[5]) + (of[6] + of[7]));
        }
    }
}

#define ALONE(level) \
    static void multiply_alone_##level(const Chunk *chunk, int64_t n_rows, const Columns *x, \
                                       float *y) { \
        multiply_rows_alone(level, chunk, n_rows, x, y); \
    }
ALONE(1) ALONE(2) ALONE(3) ALONE(4) ALONE(5) ALONE(6) ALONE(7)
#undef ALONE

static void multiply_alone(const Matrix *m, int64_t begin, int64_t end, const Columns *x,
                           float *y) {
    static void (*const of_levels[])(const Chunk *, int64_t, const Columns *, float *) = {
        multiply_alone_1, multiply_alone_2, multiply_alone_3, multiply_alone_4,
        multiply_alone_5, multiply_alone_6, multiply_alone_7};
    const Planes *planes = m->source;
    for (int64_t row = begin, next; row < end; row = next) {
        const Chunk chunk = chunk_of(planes, m->stride + row);
        next = least(row + chunk.n_rows - chunk.row, end);
        of_levels[planes->levels[(m->stride + row) / planes->chunk_rows] - 1](&chunk, next - row, x,
                                                                               y + row);
    }
}
