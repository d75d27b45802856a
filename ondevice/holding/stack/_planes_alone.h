/* A single column times rows as they lie; part of _planes.c. Each lane of a vector has four bytes of a
   plane, which are a block of a span. So nothing is transposed but bits, and what blocks come to:
   from there on a lane belongs to a row, and floats are added as in a tile. Vectors of 64 bytes have
   two rows. */

enum { TOGETHER = LANES / BYTE /* rows */, SPANS = 64 /* of which integers are kept */ };

/* What a span comes to, or so many words of one, a lane for each block. */
INLINE Ints multiply_span(const int level, int n, const uint8_t *const *planes, int64_t stride,
                          const uint8_t *nibbles, int64_t nibble_stride, const Columns *x,
                          int64_t span) {
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
    Ints found = pairs(ints(0), (Ints)lows, (Ints)for_rows(x->side + span * BYTE));
    UNROLLED for (int k = 0; k < BYTE; k += limit) {
        Halves some = {0};
        UNROLLED for (int i = k; i < k + limit; i++)
            some += (Halves)byte_pairs(rows[i], for_rows(x->q + span * SPAN + i * WORD));
        found = pairs(found, (Ints)some, (Ints)(factors << (PLANES + 1 - level)));
    }
    return found;
}

/* To the sums of LANES rows, adds a span, whose blocks lie there. */
INLINE Floats add_span(const uint8_t *const *rows, int64_t at, Floats d, const float *scales,
                       Floats sums) {
    Floats part = floats(0);
    EACH(half, 2) {
        Words found[4];
        quads(rows, at + 16 * half, found);
        EACH(i, 4) part = fused(to_floats((Ints)found[i]), floats(scales[4 * half + i]), part);
    }
    return fused(part, d, sums);
}

/* At most LANES rows. */
INLINE void multiply_rows_alone(const int level, const Chunk *chunk, int64_t n_rows,
                                const Columns *x, float *y) {
    const int64_t spans = spans_of(chunk->columns), words = chunk->columns / WORD;
    const int64_t plane_bytes = words * 4;
    const uint16_t *scales = (const uint16_t *)chunk->parts[SCALES] + chunk->row * spans;
    Ints found[BYTE][SPANS];
    float d[SPANS][LANES];
    const uint8_t *rows[LANES];
    for (int r = 0; r < LANES; r++) {
        const int64_t row = least(r, n_rows - 1);
        rows[r] = (const uint8_t *)found[row / TOGETHER] + row % TOGETHER * WORD;
    }
    if (n_rows < LANES) memset(d, 0, sizeof d);
    Floats sums = floats(0);
    for (int64_t first = 0; first < spans; first += SPANS) {
        const int64_t n = least(spans - first, SPANS), whole = least(words / BYTE - first, n);
        for (int64_t r = 0; r < n_rows; r += TOGETHER) {
            const int64_t row = chunk->row + r, another = r + 1 < n_rows ? TOGETHER - 1 : 0;
            const uint8_t *nibbles = chunk->parts[NIBBLES] + row * words + first * BYTE;
            const uint8_t *planes[PLANES];
            EACH(p, level)
                planes[p] = chunk->parts[FIRST_PLANE + p] + row * plane_bytes + first * WORD;
            for (int64_t s = 0; s < n; s++) {
                found[r / TOGETHER][s] =
                    s < whole ? multiply_span(level, BYTE, planes, another * plane_bytes, nibbles,
                                              another * words, x, first + s)
                              : multiply_span(level, (int)(words % BYTE), planes,
                                              another * plane_bytes, nibbles, another * words, x,
                                              first + s);
                for (int64_t i = 0; i <= another; i++)
                    d[s][r + i] = scale_of_bits(scales[(r + i) * spans + first + s]);
                EACH(p, level) planes[p] += WORD;
                nibbles += BYTE;
            }
        }
        for (int64_t s = 0; s < n; s++)
            sums = add_span(rows, s * (int64_t)sizeof *found[0], kept_floats(d[s]),
                            x->scales + (first + s) * BYTE, sums);
    }
    memcpy(y, &sums, (size_t)n_rows * 4);
}

#define ALONE(level) \
    static void multiply_alone_##level(const Chunk *chunk, int64_t n_rows, const Columns *x, \
                                       float *y) { \
        Chunk some = *chunk; \
        for (int64_t r = 0; r < n_rows; r += LANES, some.row += LANES) \
            multiply_rows_alone(level, &some, least(n_rows - r, LANES), x, y + r); \
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
