/* Products with matrices in bit planes, as they lie in a stack, and rows of them.

   docs/design/stack-format.md says what the bytes mean. In short: a weight is scale * nibble * U,
   where each plane p that is loaded moves U by 64 >> p, up where its bit is 1 and down where it is 0.
   So one more plane halves the step of every weight, and nothing else changes.

   Planes become tiles, which are shared out and multiplied as those of all other weights. Bits of 8
   planes and of 8 weights change places, which leaves weights in another order: activations are put
   into the same. Of 32 weights, the sum of nibble * U * activation is exact. */

#include "_planes.h"
#include "_tiles.h"

enum { SCALES, NIBBLES, FIRST_PLANE, PARTS = FIRST_PLANE + PLANES }; /* of a chunk */
enum { BYTE = 8 }; /* bits */
typedef int16_t Halves __attribute__((vector_size(sizeof(Words))));

/* Where the bytes of a matrix are: some rows after the others are a chunk, which has its scales
   (bfloat16, one for 256 weights of a row), its nibbles (one for 16 weights, the lower one first)
   and its planes (strings of bits, the first weight in the lowest one), each row after row. */
typedef struct {
    int64_t rows, columns;       /* columns: a multiple of 32 */
    int64_t chunk_rows;          /* rows of a chunk; the last may have fewer */
    const uint8_t *const *parts; /* [chunks][PARTS] */
    const int32_t *levels;       /* [chunks]: planes that are loaded */
    Products *products;
} Planes;

static int64_t spans_of(int64_t columns) { return (columns + SPAN - 1) / SPAN; }

/* ---------------------------------------------------------------------------- unpacking */

/* A chunk, and the first of its rows that are in a tile. */
typedef struct {
    const uint8_t *const *parts;
    int64_t n_rows, row, columns;
} Chunk;

static Chunk chunk_of(const Planes *p, int64_t row) {
    const int64_t number = row / p->chunk_rows, first = number * p->chunk_rows;
    return (Chunk){p->parts + number * PARTS, least(p->rows - first, p->chunk_rows), row - first,
                   p->columns};
}

/* Where the rows lie in the first plane. A tile ends with its chunk, and so has one number of
   planes. */
static int64_t find_rows(const Matrix *m, int64_t row, const uint8_t **rows, Tile *t) {
    const Planes *planes = m->source;
    const Chunk chunk = chunk_of(planes, m->stride + row);
    const int64_t n_bytes = chunk.columns / BYTE;
    for (int r = 0; r < TILE; r++)
        rows[r] = chunk.parts[FIRST_PLANE] + least(chunk.row + r, chunk.n_rows - 1) * n_bytes;
    t->source = planes;
    t->row = m->stride + row;
    t->level = planes->levels[t->row / planes->chunk_rows];
    t->next = chunk.parts[FIRST_PLANE] + (chunk.row + TILE) * n_bytes;
    return row + least(chunk.n_rows - chunk.row, TILE);
}

/* A third of the transposition of 8 rows of bits: of two rows that are `by` apart, the upper `by`
   of each 2 * by bits of the one and the lower ones of the other change places. Which rows are zero
   is known when this is compiled. */
INLINE void exchange(Words *rows, int *zero, const int by) {
    const uint32_t mask = by == 1 ? 0x55555555u : by == 2 ? 0x33333333u : 0x0f0f0f0fu;
    EACH(r, BYTE) {
        if (r & by || (zero[r] && zero[r + by])) continue;
        const Words low = rows[r], high = rows[r + by];
        if (zero[r]) {
            rows[r] = (high & mask) << by;
            rows[r + by] = high & ~mask;
        } else if (zero[r + by]) {
            rows[r] = low & mask;
            rows[r + by] = (low >> by) & mask;
        } else {
            const Words changed = ((low >> by) ^ high) & mask;
            rows[r + by] = high ^ changed;
            rows[r] = low ^ (changed << by);
        }
        zero[r] = zero[r + by] = 0;
    }
}

/* The words of each plane become the chunks of a block. PAIRED: byte j of chunk k is the code of
   weight 8 * j + k. Else a chunk has weights of one group, which have a bit below those of their
   code, at the place of the next plane: U. */
INLINE void put_block(const int level, Words planes[PLANES][4], const int word, int64_t block,
                      int v, Tile *t) {
    Words rows[BYTE];
    int zero[BYTE];
    EACH(r, BYTE) {
        const int p = PAIRED ? level - 1 - r : BYTE - 1 - r;
        zero[r] = p < 0 || p >= level;
        rows[r] = zero[r] ? (Words)ints(0) : planes[p][word];
    }
    if (!PAIRED) rows[BYTE - 1] = ~rows[BYTE - 1];
    exchange(rows, zero, 1);
    exchange(rows, zero, 2);
    exchange(rows, zero, 4);
    if (PAIRED) {
        EACH(k, BYTE) PUT(block * BYTE + k, v, rows[k]);
        return;
    }
    const uint32_t below = 0x01010101u * (0x80u >> level);
    EACH(k, BYTE / 2) {
        const Words a = rows[2 * k], b = rows[2 * k + 1];
        PUT(block * BYTE + k, v, (a & 0xffffu) | b << 16 | below);
        PUT(block * BYTE + 4 + k, v, a >> 16 | (b & 0xffff0000u) | below);
    }
}

/* The nibbles of a block's two groups: as floats, or as factors of what codes come to, and what is
   added: U is (2 * code + 1 - 2^level) * 2^(PLANES - level). */
INLINE void put_nibbles(const int level, Words both, int64_t block, int v, Tile *t) {
    if (PAIRED) {
        const Halves pair = (Halves)((both & 15u) | (both & 0xf0u) << 12);
        KEEP(t->scales[block], v, (Ints)(pair << (PLANES + 1 - level)));
        KEEP(t->lows[block], v, (Ints)((pair << (PLANES - level)) - (pair << PLANES)));
        return;
    }
    KEEP(t->scales[2 * block], v, to_floats((Ints)(both & 15u)));
    KEEP(t->scales[2 * block + 1], v, to_floats((Ints)(both >> 4 & 15u)));
}

/* Not PAIRED: what the first sum of a block begins with. With UNSIGNED_BYTES, activations are moved
   up by 128, and what that adds to both sums is taken off. All of it are multiples of 128, so floats
   hold it exactly. */
INLINE void put_begin(int64_t block, Tile *t) {
    static const int8_t moved_by[GROUP] = {-128, -128, -128, -128, -128, -128, -128, -128,
                                           -128, -128, -128, -128, -128, -128, -128, -128};
    Floats less[VECTORS];
    EACH(g, 2) {
        Ints sums[1][VECTORS];
        EACH(v, VECTORS) sums[0][v] = (Ints)floats(WHOLE);
        if (UNSIGNED_BYTES)
            dots(MOVED, BYTE / 2, 1, t->w + (2 * block + g) * (BYTE / 2) * CHUNK, moved_by, 0, 0,
                 sums);
        EACH(v, VECTORS) {
            const Floats nibble = kept_floats((const float *)t->scales[2 * block + g] + v * LANES);
            less[v] = g ? fused((Floats)sums[0][v] - floats(WHOLE), nibble, less[v])
                        : (Floats)sums[0][v] * nibble;
        }
    }
    EACH(v, VECTORS) KEEP(t->m[block], v, -less[v]);
}

/* Where the blocks of the rows of a vector lie, from some block on. 16 bytes are read at once. */
typedef struct {
    const uint8_t *rows[LANES], *nibbles[LANES]; /* in the first plane */
    int64_t planes[PLANES];                      /* how far they are from the first one */
    const uint8_t *next, *next_nibbles;          /* of the next tile, what is to be fetched next */
} Source;

INLINE void unpack_blocks(const int level, Source *s, int64_t n, int v, Tile *t) {
    for (int64_t b = 0; b < n; b += 16) {
        Words nibbles[4];
        quads(s->nibbles, b, nibbles);
        EACH(i, 4) {
            if (b + 4 * i >= n) break;
            Words words[PLANES][4];
            EACH(p, level) {
                UNROLLED for (int at = 0; at < LANES * 16; at += 64)
                    __builtin_prefetch(s->next + s->planes[p] + at, 0, 2);
                quads(s->rows, s->planes[p] + (b + 4 * i) * (WORD / BYTE), words[p]);
            }
            __builtin_prefetch(s->next_nibbles, 0, 2);
            s->next += LANES * 16;
            s->next_nibbles += LANES * 4;
            EACH(j, 4) {
                put_block(level, words, j, b + 4 * i + j, v, t);
                put_nibbles(level, nibbles[i] >> 8 * j & 0xffu, b + 4 * i + j, v, t);
            }
        }
    }
}

INLINE void unpack_level(const int level, const uint8_t *const *rows, int64_t block, int64_t n,
                         Tile *t) {
    enum { MOST = STRETCH / BYTE + 16 }; /* bytes of a copy */
    const Planes *planes = t->source;
    const Chunk chunk = chunk_of(planes, t->row);
    const int64_t spans = spans_of(chunk.columns), blocks = chunk.columns / WORD;
    for (int v = 0; v < VECTORS; v++) {
        const int64_t first = chunk.row + v * LANES;
        Source s = {.next = t->next, .next_nibbles = chunk.parts[NIBBLES] +
                                                     (t->next - chunk.parts[FIRST_PLANE]) / 4};
        uint8_t copies[LANES][PLANES + 1][MOST];
        EACH(p, level) s.planes[p] = chunk.parts[FIRST_PLANE + p] - chunk.parts[FIRST_PLANE];
        for (int r = 0; r < LANES; r++) {
            const int64_t row = least(first + r, chunk.n_rows - 1);
            const uint16_t *scales = (const uint16_t *)chunk.parts[SCALES] + row * spans;
            s.rows[r] = rows[v * LANES + r] + block * (WORD / BYTE);
            s.nibbles[r] = chunk.parts[NIBBLES] + row * blocks + block;
            for (int64_t b = 0; b < n; b += BYTE)
                t->d[b / BYTE][v * LANES + r] = scale_of_bits(scales[(block + b) / BYTE]);
        }
        /* Behind the last rows, nothing may be read. */
        if ((chunk.n_rows - first - LANES) * blocks < 16 && blocks - block < n + 16) {
            for (int r = 0; r < LANES; r++) {
                EACH(p, level) memcpy(copies[r][p], s.rows[r] + s.planes[p], (size_t)n * 4);
                memcpy(copies[r][PLANES], s.nibbles[r], (size_t)n);
                s.rows[r] = copies[r][0];
                s.nibbles[r] = copies[r][PLANES];
            }
            EACH(p, level) s.planes[p] = p * MOST;
        }
        unpack_blocks(level, &s, n, v, t);
        t->next = s.next;
    }
    if (!PAIRED)
        for (int64_t b = 0; b < n; b++) put_begin(b, t);
}

#define UNPACK(level) \
    static void unpack_##level(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) { \
        unpack_level(level, rows, block, n, t); \
    }
UNPACK(1) UNPACK(2) UNPACK(3) UNPACK(4) UNPACK(5) UNPACK(6) UNPACK(7)
#undef UNPACK

static void unpack_planes(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    static void (*const of_levels[])(const uint8_t *const *, int64_t, int64_t, Tile *) = {
        unpack_1, unpack_2, unpack_3, unpack_4, unpack_5, unpack_6, unpack_7};
    of_levels[t->level - 1](rows, block, n, t);
}

/* -------------------------------------------------------------------------- multiplying */

/* What block b of a stretch comes to, up to 2 * 15 * 16 * 127 * 127, which floats hold exactly. `q`
   and `side` are those of the block. */
INLINE void multiply_block(const int limit, const int n, const Tile *t, int64_t b,
                           const Columns *x, const int8_t *q, const int32_t *side,
                           Floats found[SOME][VECTORS]) {
    const uint8_t *w = t->w + b * BYTE * CHUNK;
    Ints parts[SOME][VECTORS];
    if (PAIRED) {
        EACH(c, n) EACH(v, VECTORS)
            parts[c][v] = pairs(ints(0), kept_ints(t->lows[b] + v * LANES),
                                ints(side[c * x->side_stride]));
        dots(limit, BYTE, n, w, q, x->q_stride, t->scales[b], parts);
        EACH(c, n) EACH(v, VECTORS) found[c][v] = to_floats(parts[c][v]);
        return;
    }
    EACH(g, 2) {
        EACH(c, n) EACH(v, VECTORS) parts[c][v] = (Ints)floats(WHOLE);
        dots(MOVED, BYTE / 2, n, w + g * (BYTE / 2) * CHUNK, q + g * GROUP, x->q_stride, 0, parts);
        EACH(v, VECTORS) {
            const Floats nibble = kept_floats((const float *)t->scales[2 * b + g] + v * LANES);
            const Floats less = kept_floats(t->m[b] + v * LANES);
            EACH(c, n)
                found[c][v] = g ? fused((Floats)parts[c][v] - floats(WHOLE), nibble, found[c][v])
                                : fused((Floats)parts[c][v], nibble, less);
        }
    }
}

/* Blocks of 32 activations have a scale each, which the sum of a span has in it before that of the
   weights is multiplied. */
INLINE void multiply_planes(const int limit, const int n, const Tile *t, int64_t at,
                            int64_t blocks, const Columns *x, int64_t first, float *to) {
    const int8_t *q = x->q + first * x->q_stride + at * BLOCK;
    const float *scales = x->scales + first * x->side_stride + at;
    const int32_t *side = x->side + first * x->side_stride + at;
    for (int64_t span = 0; span < spans_of(blocks * BLOCK); span++) {
        Floats parts[SOME][VECTORS], sums[SOME][VECTORS];
        EACH(c, n) EACH(v, VECTORS) parts[c][v] = floats(0);
        for (int64_t b = span * BYTE; b < least((span + 1) * BYTE, blocks); b++) {
            Floats found[SOME][VECTORS];
            multiply_block(limit, n, t, b, x, q + b * BLOCK, side + b, found);
            EACH(c, n) EACH(v, VECTORS)
                parts[c][v] =
                    fused(found[c][v], floats(scales[c * x->side_stride + b]), parts[c][v]);
        }
        get_sums(at + span, n, to, sums);
        EACH(v, VECTORS) {
            const Floats d = kept_floats(t->d[span] + v * LANES);
            EACH(c, n) sums[c][v] = fused(parts[c][v], d, sums[c][v]);
        }
        put_sums(n, sums, to);
    }
}

#define CALL(n) multiply_planes(8, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_4, CALL)
#undef CALL
#define CALL(n) multiply_planes(4, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_5, CALL)
#undef CALL
#define CALL(n) multiply_planes(2, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_6, CALL)
#undef CALL
#define CALL(n) multiply_planes(1, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_7, CALL)
#undef CALL

/* Where bytes are summed in 16 bits, it depends on the number of planes for how long. */
static void multiply_level(int n, const Tile *t, int64_t at, int64_t blocks, const Columns *x,
                           int64_t first, float *to) {
    Multiply *const way = !PAIRED || t->level <= 4 ? multiply_4
                          : t->level == 5          ? multiply_5
                          : t->level == 6          ? multiply_6
                                                   : multiply_7;
    way(n, t, at, blocks, x, first, to);
}

/* ------------------------------------------------------------------------- one column */

#ifdef WIDE_VECTORS
#include "_planes_alone.h"
#else
static void (*const multiply_alone)(const Matrix *, int64_t, int64_t, const Columns *, float *) = 0;
#endif

/* Each of four bytes in a half of its own. */
INLINE uint64_t apart(const int8_t *bytes) {
    uint32_t four;
    memcpy(&four, bytes, 4);
    const uint64_t twos = (four | (uint64_t)four << 16) & 0x0000ffff0000ffffu;
    return (twos | twos << 8) & 0x00ff00ff00ff00ffu;
}
/* Of n bytes, those of the first half and those of the second in turn. */
INLINE void mix(int8_t *x, const int n) {
    int8_t from[SPAN];
    memcpy(from, x, (size_t)n);
    for (int i = 0; i < n / 2; i += 4) {
        const uint64_t both = apart(from + i) | apart(from + n / 2 + i) << 8;
        memcpy(x + 2 * i, &both, 8);
    }
}
/* And back. */
INLINE void part(int8_t *x, const int n) {
    int8_t from[SPAN];
    memcpy(from, x, (size_t)n);
    for (int i = 0; i < n / 2; i++) {
        x[i] = from[2 * i];
        x[n / 2 + i] = from[2 * i + 1];
    }
}

/* Puts activations where the weights are with which they are multiplied. */
static void arrange(int8_t *q, float *scales, int32_t *side, int64_t columns, int64_t n) {
    const int64_t words = columns / WORD;
    if (n > 1 || !multiply_alone) {
        for (int8_t *block = q; block < q + columns; block += WORD)
            EACH(i, 2) mix(PAIRED ? block : block + i * GROUP, PAIRED ? WORD : GROUP);
        if (UNSIGNED_BYTES)
            for (int64_t i = 0; i < columns; i++) q[i] ^= -128;
        return;
    }
    for (int64_t w = words; w % BYTE; w++) {
        memset(q + w * WORD, 0, WORD);
        scales[w] = 0;
        side[w] = 0;
    }
    for (int8_t *span = q; span < q + columns; span += SPAN) EACH(i, 3) part(span, SPAN);
}

static const Kind in_planes = {
    .block = BLOCK,
    .side = GROUPS,
    .detail = GROUP,
    .arrange = arrange,
    .multiply_alone = multiply_alone,
    .find = find_rows,
    .unpack = unpack_planes,
    .multiply = multiply_level,
};

/* --------------------------------------------------------------------- nodes of a graph */

/* Rows of a matrix, and those of them that are to be computed. */
typedef struct {
    const Planes *planes;
    int64_t begin, end;
} Wanted;

static Matrix matrix_beside(const void *node, const void *source, int64_t i2, int64_t i3) {
    const Wanted *wanted = source;
    return (Matrix){&in_planes, wanted->planes, wanted->planes->columns, wanted->begin,
                    wanted->end};
}

/* The rows of one expert lie after those of the other. */
static Matrix matrix_of_expert(const void *node, const void *source, int64_t number) {
    const Wanted *wanted = source;
    const int64_t rows = n_of(node, 0), origin = number * rows;
    return (Matrix){.kind = &in_planes,
                    .source = wanted->planes,
                    .columns = wanted->planes->columns,
                    .begin = wanted->begin > origin ? wanted->begin - origin : 0,
                    .end = least(wanted->end - origin, rows),
                    .stride = origin};
}

/* Some rows of what a MUL_MAT node comes to, or one of MUL_MAT_ID, which has a third operand. */
void planes_multiply(void *node, int me, int threads, void *matrix, int64_t begin, int64_t end) {
    const Planes *planes = matrix;
    const Wanted wanted = {planes, begin, end};
    const Weights weights = {&wanted, matrix_beside, matrix_of_expert,
                             planes->rows / n_of(node, 0)};
    compute(planes->products, node, &weights, me, threads);
}

/* What ggml calls, on each of its threads, for such a node that was made a CUSTOM one. */
void planes_multiply_node(void *node, int me, int threads, void *matrix) {
    planes_multiply(node, me, threads, matrix, 0, ((const Planes *)matrix)->rows);
}

/* A row as floats. */
static void look_up(const Planes *planes, int64_t number, float *y) {
    const Chunk chunk = chunk_of(planes, number);
    const int level = planes->levels[number / planes->chunk_rows];
    const uint16_t *scales =
        (const uint16_t *)chunk.parts[SCALES] + chunk.row * spans_of(chunk.columns);
    const uint8_t *nibbles = chunk.parts[NIBBLES] + chunk.row * (chunk.columns / WORD);
    for (int64_t w = 0; w < chunk.columns / WORD; w++) {
        const float scale = scale_of_bits(scales[w * WORD / SPAN]);
        const float low = scale * (nibbles[w] & 15), high = scale * (nibbles[w] >> 4);
        int32_t codes[WORD] = {0};
        for (int p = 0; p < level; p++) {
            uint32_t bits;
            memcpy(&bits, chunk.parts[FIRST_PLANE + p] + (chunk.row * chunk.columns / WORD + w) * 4,
                   4);
            for (int i = 0; i < WORD; i++) codes[i] += codes[i] + (bits >> i & 1);
        }
        for (int i = 0; i < WORD; i++)
            y[w * WORD + i] = (i < GROUP ? low : high) * (float)moved(codes[i], level);
    }
}

/* What ggml calls for a GET_ROWS node. */
void planes_rows_node(void *node, int me, int threads, void *matrix) {
    const void *numbers = operand_of(node, 1);
    for (int64_t i = me; i < n_of(numbers, 0); i += threads)
        look_up(matrix, ((const int32_t *)data_of(numbers))[i],
                (float *)((char *)data_of(node) + i * bytes_of(node, 1)));
}

/* ------------------------------------------------------------------------- checksums */

/* FNV-1a in 32 lanes of 32-bit words, the lanes then hashed the same way: a change of a single
   word always changes it. Zeros fill the last word. */
uint32_t planes_checksum(const uint8_t *bytes, int64_t n_bytes) {
    enum { LANES = 32 };
    uint32_t lanes[LANES], sum = 2166136261u;
    for (int i = 0; i < LANES; i++) lanes[i] = 2166136261u;
    const int64_t words = n_bytes / 4;
    int64_t at = 0, used = 0;
    for (; at + LANES <= words; at += LANES) {
        uint32_t some[LANES];
        memcpy(some, bytes + at * 4, sizeof some);
        for (int i = 0; i < LANES; i++) lanes[i] = (lanes[i] ^ some[i]) * 16777619u;
    }
    for (; at * 4 < n_bytes; at++, used++) {
        uint32_t one = 0;
        memcpy(&one, bytes + at * 4, (size_t)(n_bytes - at * 4 < 4 ? n_bytes - at * 4 : 4));
        lanes[used] = (lanes[used] ^ one) * 16777619u;
    }
    for (int i = 0; i < LANES; i++) sum = (sum ^ lanes[i]) * 16777619u;
    return sum;
}
