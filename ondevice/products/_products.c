/* Products of a matrix of weights, as they lie in a GGUF file, with columns of activations. */

#include "_tiles.h"

/* Where the block of each row of a vector begins; kept in registers. */
#define BLOCKS(at) \
    const uint8_t *from[LANES]; \
    EACH(r, LANES) from[r] = rows[v * LANES + r] + (at)

/* Four times so many bits of a word, a byte each. */
INLINE Words fields_of(Words x, const int bits) {
    const uint32_t mask = (1u << bits) - 1u;
    Words bytes = x & mask;
    EACH(i, 3) bytes |= (x & mask << bits * (i + 1)) << (8 - bits) * (i + 1);
    return bytes;
}
INLINE Words low_nibbles(Words x) { return x & 0x0f0f0f0fu; }
INLINE Words high_nibbles(Words x) { return x >> 4 & 0x0f0f0f0fu; }

/* ---------------------------------------------------------------------------- unpacking */

/* Integer scales of four groups, from `group` on, and what is taken off of each, moved up. */
INLINE void keep_scales(int64_t group, Words scales, Words lows, const int up, int v, Tile *t) {
    EACH(i, 4) KEEP(t->scales[group + i], v, scale_of(scales, i));
    EACH(i, 2) KEEP(t->lows[group / 2 + i], v, pair_of(lows, 2 * i, up));
}

/* Of types with blocks of 32: `bytes` of one, where the nibbles start, and its fields. */
INLINE void unpack_nibbles(const int bytes, const int start, const int fifth, const int has_m,
                           const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * bytes);
            Words head[4], q[4], bits = (Words)ints(0);
            fetch_ahead(LANES * bytes, t);
            quads(from, 0, head);
            quads(from, start, q);
            if (fifth) bits = has_m ? head[1] : head[0] >> 16 | head[1] << 16;
            KEEP(t->d[b], v, halves(head[0] & 0xffffu));
            if (has_m) KEEP(t->m[b], v, halves(head[0] >> 16));
            EACH(j, 4) {
                Words low = low_nibbles(q[j]), high = high_nibbles(q[j]);
                if (fifth) { /* one of four bits to each of four bytes */
                    low |= spread(j % 2 ? bits : bits << 4, j / 2);
                    high |= spread(j % 2 ? bits : bits << 4, 2 + j / 2);
                }
                PUT(b * 8 + j, v, low);
                PUT(b * 8 + 4 + j, v, high);
            }
        }
}

static void unpack_q4_0(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    unpack_nibbles(18, 2, 0, 0, rows, block, n, t);
}
static void unpack_q4_1(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    unpack_nibbles(20, 4, 0, 1, rows, block, n, t);
}
static void unpack_q5_0(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    unpack_nibbles(22, 6, 1, 0, rows, block, n, t);
}
static void unpack_q5_1(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    unpack_nibbles(24, 8, 1, 1, rows, block, n, t);
}

static void unpack_q8_0(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 34);
            Words head[4], q[4];
            quads(from, 0, head);
            KEEP(t->d[b], v, halves(head[0] & 0xffffu));
            EACH(half, 2) {
                fetch_ahead(LANES * 34 / 2, t);
                quads(from, 2 + 16 * half, q);
                EACH(j, 4)
                    PUT(b * 8 + 4 * half + j, v, UNSIGNED_BYTES ? q[j] ^ 0x80808080u : q[j]);
            }
        }
}

/* Of types whose nibbles stand for other numbers: signed bytes, as those of Q8_0. */
static const int8_t iq4_table[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                     1,    13,   25,  38,  53,  69,  89,  113};
static const int8_t mxfp4_table[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

INLINE Words coded(Words nibbles, const int8_t *table) {
    const Words found = looked_up(nibbles, table);
    return UNSIGNED_BYTES ? found ^ 0x80808080u : found;
}

/* 2 to the power of each lane less 128: the bits of a float, below the normal ones, too. */
INLINE Floats powers(Words x) {
    const Words tiny = (Words)(x < 2u), normal = (x - 1u) << 23;
    return (Floats)((((x + 1u) << 21) & tiny) | (normal & ~tiny));
}

INLINE void unpack_coded(const int bytes, const int start, const int8_t *table,
                         const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * bytes);
            Words head[4], q[4];
            fetch_ahead(LANES * bytes, t);
            quads(from, 0, head);
            quads(from, start, q);
            KEEP(t->d[b], v, start == 1 ? powers(head[0] & 0xffu) : halves(head[0] & 0xffffu));
            EACH(j, 4) {
                PUT(b * 8 + j, v, coded(low_nibbles(q[j]), table));
                PUT(b * 8 + 4 + j, v, coded(high_nibbles(q[j]), table));
            }
        }
}

static void unpack_iq4_nl(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    unpack_coded(18, 2, iq4_table, rows, block, n, t);
}
static void unpack_mxfp4(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    unpack_coded(17, 1, mxfp4_table, rows, block, n, t);
}

/* Scales of six bits, of which 32 are taken off, in each byte. */
INLINE Words less_32(Words x) { return ((x | 0x80808080u) - 0x20202020u) ^ 0x80808080u; }

static void unpack_iq4_xs(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 136);
            Words head[4];
            quads(from, 0, head);
            KEEP(t->d[b], v, halves(head[0] & 0xffffu));
            EACH(h, 2) { /* a nibble and two more bits for each of eight groups */
                Words scales = (Words)ints(0);
                EACH(i, 4)
                    scales |= ((head[1] >> (16 * h + 4 * i) & 15u) |
                               (head[0] >> (16 + 8 * h + 2 * i) & 3u) << 4) << 8 * i;
                scales = less_32(scales);
                keep_scales(b * 8 + 4 * h, scales, scales, 7, v, t);
            }
            EACH(g, 8) {
                Words q[4];
                fetch_ahead(LANES * 136 / 8, t);
                quads(from, 8 + 16 * g, q);
                EACH(j, 4) {
                    PUT(b * 64 + 8 * g + j, v, coded(low_nibbles(q[j]), iq4_table));
                    PUT(b * 64 + 8 * g + 4 + j, v, coded(high_nibbles(q[j]), iq4_table));
                }
            }
        }
}

/* Two bits of each weight of a span; `third`: a bit more, from `high`. */
INLINE void put_twos(const int third, const uint8_t *const *from, const int bytes, const int start,
                     Words high[2][4], int v, int64_t b, Tile *t) {
    EACH(half, 2) EACH(h, 2) {
        Words q[4];
        fetch_ahead(LANES * bytes / 4, t);
        quads(from, start + 32 * half + 16 * h, q);
        EACH(p, 4) EACH(j, 4) {
            Words two = q[j] >> 2 * p & 0x03030303u;
            if (third) two |= (high[h][j] >> (4 * half + p) & 0x01010101u) << 2;
            PUT(b * 64 + 32 * half + 8 * p + 4 * h + j, v, two);
        }
    }
}

static void unpack_q2_k(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 84);
            Words words[4];
            quads(from, 68, words);
            KEEP(t->d[b], v, halves(words[3] & 0xffffu));
            KEEP(t->m[b], v, -halves(words[3] >> 16));
            quads(from, 0, words);
            EACH(j, 4)
                keep_scales(b * 16 + 4 * j, low_nibbles(words[j]), high_nibbles(words[j]), 0, v, t);
            put_twos(0, from, 84, 16, 0, v, b, t);
        }
}

/* Weights 0 … 7, of which 4 are taken off. */
static void unpack_q3_k(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 110);
            Words words[4], packed[3], high[2][4];
            quads(from, 94, words); /* up to the end of the block */
            KEEP(t->d[b], v, halves(words[3] >> 16));
            EACH(i, 3) packed[i] = words[i] >> 16 | words[i + 1] << 16;
            EACH(j, 4) {
                const Words low = j < 2 ? low_nibbles(packed[j]) : high_nibbles(packed[j - 2]);
                const Words scales = less_32(low | (packed[2] >> 2 * j & 0x03030303u) << 4);
                keep_scales(b * 16 + 4 * j, scales, scales, 2, v, t);
            }
            EACH(h, 2) quads(from, 16 * h, high[h]);
            put_twos(1, from, 110, 32, high, v, b, t);
        }
}

/* Q4_K and, with a fifth bit, Q5_K: scales and minima of eight groups have six bits each. */
INLINE void unpack_k(const int fifth, const uint8_t *const *rows, int64_t block, int64_t n,
                     Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * (fifth ? 176 : 144));
            Words head[4], bits[2][4], scales[2], lows[2];
            quads(from, 0, head);
            KEEP(t->d[b], v, halves(head[0] & 0xffffu));
            KEEP(t->m[b], v, -halves(head[0] >> 16));
            scales[0] = head[1] & 0x3f3f3f3fu;
            lows[0] = head[2] & 0x3f3f3f3fu;
            scales[1] = low_nibbles(head[3]) | (head[1] >> 6 & 0x03030303u) << 4;
            lows[1] = high_nibbles(head[3]) | (head[2] >> 6 & 0x03030303u) << 4;
            EACH(h, 2) keep_scales(b * 8 + 4 * h, scales[h], lows[h], 0, v, t);
            if (fifth) EACH(h, 2) quads(from, 16 + 16 * h, bits[h]);
            EACH(p, 4) EACH(h, 2) {
                Words q[4];
                fetch_ahead(LANES * (fifth ? 176 : 144) / 8, t);
                quads(from, (fifth ? 48 : 16) + 32 * p + 16 * h, q);
                EACH(j, 4) {
                    Words low = low_nibbles(q[j]), high = high_nibbles(q[j]);
                    if (fifth) {
                        low |= (bits[h][j] >> 2 * p & 0x01010101u) << 4;
                        high |= (bits[h][j] >> (2 * p + 1) & 0x01010101u) << 4;
                    }
                    PUT(b * 64 + 16 * p + 4 * h + j, v, low);
                    PUT(b * 64 + 16 * p + 8 + 4 * h + j, v, high);
                }
            }
        }
}

static void unpack_q4_k(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    unpack_k(0, rows, block, n, t);
}
static void unpack_q5_k(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    unpack_k(1, rows, block, n, t);
}

/* Weights 0 … 63, of which 32 are taken off: 32 * scale times the sum of activations. */
static void unpack_q6_k(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 210);
            Words words[4];
            quads(from, 194, words);
            KEEP(t->d[b], v, halves(words[3] >> 16));
            quads(from, 192, words);
            EACH(j, 4) keep_scales(b * 16 + 4 * j, words[j], words[j], 5, v, t);
            EACH(half, 2) EACH(h, 2) {
                Words high[4], q[4];
                quads(from, 128 + 32 * half + 16 * h, high);
                EACH(p, 2) {
                    fetch_ahead(LANES * 210 / 8, t);
                    quads(from, 64 * half + 32 * p + 16 * h, q);
                    EACH(j, 4) {
                        PUT(b * 64 + 32 * half + 8 * p + 4 * h + j, v,
                            low_nibbles(q[j]) | (high[j] << (4 - 2 * p) & 0x30303030u));
                        PUT(b * 64 + 32 * half + 16 + 8 * p + 4 * h + j, v,
                            high_nibbles(q[j]) | (high[j] >> 2 * p & 0x30303030u));
                    }
                }
            }
        }
}

/* Blocks of 128 with a bit for each weight, which stands for -1 or 1: for 0 or 2, less 1. */
static void unpack_q1_0(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b += 4) {
            BLOCKS((block + b) / 4 * 18);
            Words head[4], q[4];
            fetch_ahead(LANES * 18, t);
            quads(from, 0, head);
            quads(from, 2, q);
            EACH(g, 4) {
                KEEP(t->d[b + g], v, halves(head[0] & 0xffffu));
                EACH(j, 8)
                    PUT((b + g) * 8 + j, v, spread(j % 2 ? q[g] : q[g] << 4, j / 2) >> 3);
            }
        }
}

/* Blocks of 64 with two bits for each weight, of which 1 is taken off. */
static void unpack_q2_0(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b += 2) {
            BLOCKS((block + b) / 2 * 18);
            Words head[4], q[4];
            fetch_ahead(LANES * 18, t);
            quads(from, 0, head);
            quads(from, 2, q);
            EACH(g, 2) {
                KEEP(t->d[b + g], v, halves(head[0] & 0xffffu));
                EACH(j, 8) PUT((b + g) * 8 + j, v, fields_of(q[2 * g + j / 4] >> 8 * (j % 4), 2));
            }
        }
}

/* Spans without scales of groups, of weights of which 1 is taken off. */
INLINE void keep_no_scales(int64_t b, int v, Tile *t) {
    const Words ones = (Words)ints(0x01010101);
    EACH(h, 2) keep_scales(b * 8 + 4 * h, ones, ones, 0, v, t);
}

static void unpack_tq2_0(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 66);
            Words words[4];
            quads(from, 50, words); /* up to the end of the block */
            KEEP(t->d[b], v, halves(words[3] >> 16));
            keep_no_scales(b, v, t);
            put_twos(0, from, 66, 0, 0, v, b, t);
        }
}

/* Of bytes that are fractions of 3^5 digits, the digit of that place: 1, 3, 9, … */
INLINE Words digits(Words x, const uint32_t place) {
    const uint32_t bytes = 0x00ff00ffu;
    const Words even = (x & bytes) * place & bytes, odd = (x >> 8 & bytes) * place & bytes;
    return (even * 3u >> 8 & bytes) | (odd * 3u >> 8 & bytes) << 8;
}

static void unpack_tq1_0(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    static const uint32_t places[] = {1, 3, 9, 27, 81};
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 54);
            Words words[4], q[4];
            quads(from, 38, words); /* up to the end of the block */
            KEEP(t->d[b], v, halves(words[3] >> 16));
            keep_no_scales(b, v, t);
            EACH(h, 3) {
                fetch_ahead(LANES * 54 / 3, t);
                quads(from, 16 * h, q);
                EACH(i, 5) EACH(j, 4) /* the last 16 bytes are a row of digits by themselves */
                    PUT(b * 64 + (h < 2 ? 8 * i + 4 * h : 40 + 4 * i) + j, v,
                        digits(q[j], places[i]));
            }
            EACH(i, 4)
                PUT(b * 64 + 60 + i, v, digits(words[2] >> 16 | words[3] << 16, places[i]));
        }
}

/* Blocks of 64 with a scale of eight bits for each 16 weights: floats with four bits of exponent.
   Of the halves of 32 weights, the scales are in `d` and in `m`. */
static const int8_t nvfp4_table[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                       16, 15, 14, 13, 12, 10, 8,  4};

INLINE Floats small_floats(Words x) { /* half of it, as the table has twice the weights */
    const Words bits = x & 0x7fu, tiny = (Words)(bits < 8u), none = (Words)(x == 0x7fu);
    const Floats least = to_floats((Ints)bits) * floats(0x1p-10f);
    return (Floats)((((Words)least & tiny) | ((bits + 119u * 8u << 20) & ~tiny)) & ~none);
}

static void unpack_nvfp4(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b += 2) {
            BLOCKS((block + b) / 2 * 36);
            Words head[4], q[4];
            quads(from, 0, head);
            EACH(g, 2) {
                fetch_ahead(LANES * 36 / 2, t);
                quads(from, 4 + 16 * g, q);
                KEEP(t->d[b + g], v, small_floats(head[0] >> 16 * g & 0xffu));
                KEEP(t->m[b + g], v, small_floats(head[0] >> (16 * g + 8) & 0xffu));
                EACH(j, 4) {
                    const int64_t chunk = (b + g) * 8 + 4 * (j / 2) + j % 2;
                    PUT(chunk, v, looked_up(low_nibbles(q[j]), nvfp4_table));
                    PUT(chunk + 2, v, looked_up(high_nibbles(q[j]), nvfp4_table));
                }
            }
        }
}

#include "_products_codebooks.h"

/* Floats: a weight of each row after the other. */
INLINE void put_float(Tile *t, int64_t column, int v, Floats value) {
    memcpy(t->w + (column * TILE + v * LANES) * 4, &value, sizeof value);
}

INLINE Floats widened(Words x, const int bytes, const int is_brain) {
    return bytes == 4 ? (Floats)x : is_brain ? (Floats)(x << 16) : halves(x & 0xffffu);
}
/* Floats of so many bytes, n columns from `first` on; 16 bytes of a row at once where there are. */
INLINE void unpack_floats(const int bytes, const int is_brain, const uint8_t *const *rows,
                          int64_t first, int64_t n, Tile *t) {
    const int in_word = 4 / bytes, together = 4 * in_word;
    for (int v = 0; v < VECTORS; v++) {
        BLOCKS(first * bytes);
        int64_t c = 0;
        for (; c + together <= n; c += together) {
            Words q[4];
            quads(from, c * bytes, q);
            EACH(j, 4) EACH(i, in_word)
                put_float(t, c + j * in_word + i, v, widened(q[j] >> 16 * i, bytes, is_brain));
        }
        for (; c < n; c++) {
            Words one = (Words)ints(0);
            for (int r = 0; r < LANES; r++) {
                uint32_t word = 0;
                memcpy(&word, from[r] + c * bytes, (size_t)bytes);
                one[r] = word;
            }
            put_float(t, c, v, widened(one, bytes, is_brain));
        }
    }
}

static void unpack_f32(const uint8_t *const *rows, int64_t first, int64_t n, Tile *t) {
    unpack_floats(4, 0, rows, first, n, t);
}
static void unpack_f16(const uint8_t *const *rows, int64_t first, int64_t n, Tile *t) {
    unpack_floats(2, 0, rows, first, n, t);
}
static void unpack_bf16(const uint8_t *const *rows, int64_t first, int64_t n, Tile *t) {
    unpack_floats(2, 1, rows, first, n, t);
}

/* -------------------------------------------------------------------------- multiplying */

/* Blocks with a scale each: to the sums of n columns adds those of a stretch, from block `at` on
   of the activations. */
INLINE void multiply_blocks(const int limit, const int has_m, const int n, const Tile *t,
                            int64_t at, int64_t blocks, const Columns *x, int64_t first,
                            float *to) {
    const int8_t *q = x->q + first * x->q_stride + at * BLOCK;
    const float *scales = x->scales + first * x->side_stride + at;
    const int32_t *side = x->side + first * x->side_stride + at;
    Floats sums[SOME][VECTORS];
    get_sums(at, n, to, sums);
    for (int64_t b = 0; b < blocks; b++) {
        Ints parts[SOME][VECTORS];
        EACH(c, n) EACH(v, VECTORS)
            parts[c][v] = has_m ? ints(0) : ints(side[c * x->side_stride + b]);
        dots(limit, BLOCK / 4, n, t->w + b * (BLOCK / 4) * CHUNK, q + b * BLOCK, x->q_stride, 0,
             parts);
        EACH(v, VECTORS) {
            const Floats d = kept_floats(t->d[b] + v * LANES);
            EACH(c, n) {
                const Floats scale = d * floats(scales[c * x->side_stride + b]);
                sums[c][v] = fused(to_floats(parts[c][v]), scale, sums[c][v]);
                if (has_m)
                    sums[c][v] = fused(kept_floats(t->m[b] + v * LANES),
                                       floats(as_float(side[c * x->side_stride + b])), sums[c][v]);
            }
        }
    }
    put_sums(n, sums, to);
}

/* Blocks with a scale for each half, of weights moved up by 16. */
INLINE void multiply_halves(const int n, const Tile *t, int64_t at, int64_t blocks,
                            const Columns *x, int64_t first, float *to) {
    const int8_t *q = x->q + first * x->q_stride + at * BLOCK;
    const float *scales = x->scales + first * x->side_stride + at;
    const int32_t *side = x->side + first * x->side_stride + at;
    Floats sums[SOME][VECTORS];
    get_sums(at, n, to, sums);
    for (int64_t b = 0; b < blocks; b++)
        EACH(half, 2) {
            Ints parts[SOME][VECTORS];
            EACH(c, n) EACH(v, VECTORS)
                parts[c][v] = ints(-16 * (int16_t)(side[c * x->side_stride + b] >> 16 * half));
            dots(4, BLOCK / 8, n, t->w + (2 * b + half) * (BLOCK / 8) * CHUNK,
                 q + b * BLOCK + half * (BLOCK / 2), x->q_stride, 0, parts);
            EACH(v, VECTORS) {
                const Floats d = kept_floats((half ? t->m : t->d)[b] + v * LANES);
                EACH(c, n)
                    sums[c][v] = fused(to_floats(parts[c][v]),
                                       d * floats(scales[c * x->side_stride + b]), sums[c][v]);
            }
        }
    put_sums(n, sums, to);
}

/* Spans with a scale, and integer ones of their groups. */
INLINE void multiply_spans(const int limit, const int group, const int n_lows, const int has_m,
                           const int n, const Tile *t, int64_t at, int64_t spans,
                           const Columns *x, int64_t first, float *to) {
    const int8_t *q = x->q + first * x->q_stride + at * SPAN;
    const float *scales = x->scales + first * x->side_stride + at * (SPAN / BLOCK);
    const int32_t *side = x->side + first * x->side_stride + at * (SPAN / BLOCK);
    const int groups = SPAN / group;
    for (int64_t s = 0; s < spans; s++) {
        Ints parts[SOME][VECTORS], lows[SOME][VECTORS];
        EACH(c, n) EACH(v, VECTORS) parts[c][v] = lows[c][v] = ints(0);
        for (int g = 0; g < groups; g++)
            dots(limit, group / 4, n, t->w + (s * (SPAN / 4) + g * (group / 4)) * CHUNK,
                 q + s * SPAN + g * group, x->q_stride, t->scales[s * groups + g], parts);
        for (int p = 0; p < n_lows; p++)
            EACH(v, VECTORS) {
                const Ints low = kept_ints(t->lows[s * n_lows + p] + v * LANES);
                EACH(c, n)
                    lows[c][v] = pairs(lows[c][v], low,
                                       ints(side[c * x->side_stride + s * (SPAN / BLOCK) + p]));
            }
        Floats sums[SOME][VECTORS];
        get_sums(at + s, n, to, sums);
        EACH(v, VECTORS) EACH(c, n) {
            const Floats of_x = floats(scales[c * x->side_stride + s * (SPAN / BLOCK)]);
            const Floats d = kept_floats(t->d[s] + v * LANES) * of_x;
            if (has_m) {
                const Floats m = kept_floats(t->m[s] + v * LANES) * of_x;
                sums[c][v] = fused(to_floats(parts[c][v]), d, sums[c][v]);
                sums[c][v] = fused(to_floats(lows[c][v]), m, sums[c][v]);
            } else sums[c][v] = fused(to_floats(parts[c][v] - lows[c][v]), d, sums[c][v]);
        }
        put_sums(n, sums, to);
    }
}

INLINE void multiply_floats(const int n, const Tile *t, int64_t at, int64_t columns,
                            const Columns *x, int64_t first, float *to) {
    Floats sums[SOME][VECTORS], parts[SOME][VECTORS];
    EACH(c, n) EACH(v, VECTORS) parts[c][v] = floats(0);
    for (int64_t i = 0; i < columns; i++)
        EACH(v, VECTORS) {
            const Floats w = kept_floats((const float *)t->w + i * TILE + v * LANES);
            EACH(c, n)
                parts[c][v] = fused(w, floats(x->x[first + c][at + i]), parts[c][v]);
        }
    get_sums(at, n, to, sums);
    EACH(c, n) EACH(v, VECTORS) sums[c][v] += parts[c][v];
    put_sums(n, sums, to);
}

#define CALL(n) multiply_blocks(8, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q4_0, CALL)
#undef CALL
#define CALL(n) multiply_blocks(8, 1, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q4_1, CALL)
#undef CALL
#define CALL(n) multiply_blocks(4, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q5_0, CALL)
#undef CALL
#define CALL(n) multiply_blocks(4, 1, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q5_1, CALL)
#undef CALL
#define CALL(n) multiply_blocks(SIGNED, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q8_0, CALL)
#undef CALL
#define CALL(n) multiply_spans(4, 16, 8, 1, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q2_k, CALL)
#undef CALL
#define CALL(n) multiply_spans(4, 16, 8, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q3_k, CALL)
#undef CALL
#define CALL(n) multiply_spans(SIGNED, 32, 4 * UNSIGNED_BYTES, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_iq4_xs, CALL)
#undef CALL
#define CALL(n) multiply_spans(8, 32, 4, 1, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q4_k, CALL)
#undef CALL
#define CALL(n) multiply_spans(4, 32, 4, 1, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q5_k, CALL)
#undef CALL
#define CALL(n) multiply_spans(2, 16, 8, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q6_k, CALL)
#undef CALL
#define CALL(n) multiply_halves(n, t, at, blocks, x, first, to)
FOR_SOME(multiply_nvfp4, CALL)
#undef CALL
#define CALL(n) multiply_spans(1, 32, 4, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_iq3, CALL)
#undef CALL
#define CALL(n) multiply_spans(1, 16, 8, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_iq2, CALL)
#undef CALL
#define CALL(n) multiply_spans(4, 32, 4, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_iq1_s, CALL)
#undef CALL
#define CALL(n) multiply_floats(n, t, at, blocks, x, first, to)
FOR_SOME(multiply_floats_, CALL)
#undef CALL

#ifdef WIDE_VECTORS
#include "_products_alone.h"
#define ALONE(most_lanes, type) (LANES <= most_lanes ? alone_##type : 0)
#else
#define ALONE(most_lanes, type) 0
static void alone_start(void) {}
#endif

/* Rows of a tile in a file. */
static int64_t find_rows(const Matrix *m, int64_t row, const uint8_t **rows, Tile *t) {
    const uint8_t *data = m->source;
    for (int r = 0; r < TILE; r++) rows[r] = data + least(row + r, m->end - 1) * m->stride;
    t->next = data + (row + TILE) * m->stride;
    return row + TILE;
}

typedef struct {
    int type;
    Kind kind;
} Type;

#define TYPE(number, block, side, detail, unpack, multiply) \
    TYPE_WITH(0, number, block, side, detail, unpack, multiply)
#define TYPE_WITH(alone, number, block, side, detail, unpack, multiply) \
    {number, {block, side, detail, 0, alone, find_rows, unpack, multiply}}
static const Type types[] = {
    TYPE(0, 1, RAW, 0, unpack_f32, multiply_floats_),
    TYPE_WITH(ALONE(8, f16), 1, 1, RAW, 0, unpack_f16, multiply_floats_),
    TYPE_WITH(ALONE(8, bf16), 30, 1, RAW, 0, unpack_bf16, multiply_floats_),
    TYPE(2, BLOCK, OFFSET, 8, unpack_q4_0, multiply_q4_0),
    TYPE(3, BLOCK, TIMES_SCALE, 0, unpack_q4_1, multiply_q4_1),
    TYPE(6, BLOCK, OFFSET, 16, unpack_q5_0, multiply_q5_0),
    TYPE(7, BLOCK, TIMES_SCALE, 0, unpack_q5_1, multiply_q5_1),
    TYPE(8, BLOCK, OFFSET, UNSIGNED_BYTES * 128, unpack_q8_0, multiply_q8_0),
    TYPE(20, BLOCK, OFFSET, UNSIGNED_BYTES * 128, unpack_iq4_nl, multiply_q8_0),
    TYPE(39, BLOCK, OFFSET, UNSIGNED_BYTES * 128, unpack_mxfp4, multiply_q8_0),
    TYPE(40, BLOCK, GROUPS, 16, unpack_nvfp4, multiply_nvfp4),
    TYPE(41, BLOCK, OFFSET, 1, unpack_q1_0, multiply_q4_0),
    TYPE(42, BLOCK, OFFSET, 1, unpack_q2_0, multiply_q4_0),
    TYPE_WITH(ALONE(8, q2_k), 10, SPAN, GROUPS, 16, unpack_q2_k, multiply_q2_k),
    TYPE_WITH(ALONE(8, q3_k), 11, SPAN, GROUPS, 16, unpack_q3_k, multiply_q3_k),
    TYPE_WITH(ALONE(8, q4_k), 12, SPAN, GROUPS, 32, unpack_q4_k, multiply_q4_k),
    TYPE_WITH(ALONE(8, q5_k), 13, SPAN, GROUPS, 32, unpack_q5_k, multiply_q5_k),
    TYPE_WITH(ALONE(16, q6_k), 14, SPAN, GROUPS, 16, unpack_q6_k, multiply_q6_k),
    TYPE_WITH(ALONE(8, iq4_xs), 23, SPAN, GROUPS, 32, unpack_iq4_xs, multiply_iq4_xs),
    TYPE_WITH(ALONE(8, iq3_s), 21, SPAN, GROUPS, 32, unpack_iq3_s, multiply_iq3),
    TYPE_WITH(ALONE(8, iq3_xxs), 18, SPAN, GROUPS, 32, unpack_iq3_xxs, multiply_iq3),
    TYPE_WITH(ALONE(8, iq2_s), 22, SPAN, GROUPS, 16, unpack_iq2_s, multiply_iq2),
    TYPE_WITH(ALONE(8, iq2_xs), 17, SPAN, GROUPS, 16, unpack_iq2_xs, multiply_iq2),
    TYPE_WITH(ALONE(8, iq2_xxs), 16, SPAN, GROUPS, 32, unpack_iq2_xxs, multiply_iq3),
    TYPE(29, SPAN, GROUPS, 16, unpack_iq1_m, multiply_q3_k),
    TYPE_WITH(ALONE(8, iq1_s), 19, SPAN, GROUPS, 32, unpack_iq1_s, multiply_iq1_s),
    TYPE_WITH(ALONE(8, tq1_0), 34, SPAN, GROUPS, 32, unpack_tq1_0, multiply_iq1_s),
    TYPE_WITH(ALONE(8, tq2_0), 35, SPAN, GROUPS, 32, unpack_tq2_0, multiply_iq1_s),
};
#undef TYPE
#undef TYPE_WITH
#undef ALONE

static const Kind *kind_of(int type) {
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].type == type) return &types[i].kind;
    return 0;
}

/* --------------------------------------------------------------------- nodes of a graph */

static Matrix matrix_of(const void *tensor, int64_t offset) {
    return (Matrix){.kind = kind_of(type_of(tensor)),
                    .source = (const uint8_t *)data_of(tensor) + offset,
                    .columns = n_of(tensor, 0),
                    .end = n_of(tensor, 1),
                    .stride = bytes_of(tensor, 1)};
}

static Matrix matrix_beside(const void *node, const void *weight, int64_t i2, int64_t i3) {
    const void *x = operand_of(node, 1);
    return matrix_of(weight, i2 / (n_of(x, 2) / n_of(weight, 2)) * bytes_of(weight, 2) +
                                 i3 / (n_of(x, 3) / n_of(weight, 3)) * bytes_of(weight, 3));
}

static Matrix matrix_of_expert(const void *node, const void *weight, int64_t number) {
    (void)node;
    return matrix_of(weight, number * bytes_of(weight, 2));
}

/* What ggml calls, on each of its threads. */
void products_node(void *node, int me, int threads, void *products) {
    const void *weight = operand_of(node, 0);
    const Weights weights = {weight, matrix_beside, matrix_of_expert, n_of(weight, 2)};
    compute(products, node, &weights, me, threads);
}

static int32_t mul_mat, mul_mat_id; /* ggml's numbers of these operations */

void products_start(int32_t one, int32_t several) {
    mul_mat = one;
    mul_mat_id = several;
    alone_start();
}

/* Whether weights are of a type that is known, in rows of whole blocks. */
bool products_know(int32_t type, int64_t columns) {
    const Kind *kind = kind_of(type);
    return kind && columns % kind->block == 0;
}

/* Has a node computed with these, if it is a product with a matrix of a known type. It may lie
   elsewhere each time. */
void products_take(void *node, void *products) {
    const int32_t op = *op_of(node);
    if (op != mul_mat && op != mul_mat_id) return;
    const void *weight = operand_of(node, 0), *x = operand_of(node, 1);
    if (products_know(type_of(weight), n_of(weight, 0)) &&
        type_of(x) == 0 && bytes_of(x, 0) == 4 && products_make_room(products, n_of(weight, 0)))
        compute_with(node, products_node, products);
}

