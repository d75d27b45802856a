/* Products of a matrix of weights, as they lie in a GGUF file, with columns of activations.

   A tile of rows is unpacked: four weights of each row after the other, the rows side by side, so
   that a lane of a vector belongs to a row. Activations are rounded to 8 bits, as ggml does: those
   of a block of weights share a scale. The integers of a block are multiplied and summed exactly,
   and its sum is added to the row's in floats, block after block. So what a row and a column come
   to does not depend on how many there are, on threads, or on the width of vectors. */

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "_tensor.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 16") /* so that what they index stays in registers */

#if defined(PRODUCTS_PLAIN)
#include "_products_plain.h"
#elif defined(__AVX512BW__) && defined(__AVX512VNNI__)
#include "_products_avx512.h"
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#include "_products_avx2.h"
#elif defined(__ARM_FEATURE_DOTPROD)
#include "_products_neon.h"
#else
#include "_products_plain.h"
#endif

/* The header above says, of vectors that have LANES lanes of 32 bits:
     Words, Ints, Floats                 the same vector as uint32, int32 and float
     VECTORS                             of a tile of rows
     UNSIGNED_BYTES                      1: `dots` wants weights of 8 bits moved up by 128
     Ints ints(int32_t), Floats floats(float)     in all lanes
     quads(rows, at, out[4])             of LANES rows, the four words that lie there
     dots(limit, chunks, n, w, x, x_stride, scales, sums[n][VECTORS])
                                         adds, for each column, scales * (sums over 4 bytes); a lane
                                         of `scales` is what scale_of makes; weights are below
                                         128 >> (limit / 2), or with limit 1 signed
     Words spread(Words, byte)           the upper half of that byte of each lane, a bit to each of
                                         four bytes, there as 16
     Ints scale_of(Words, byte)          that signed byte of each lane, as `dots` wants it
     Ints pair_of(Words, byte, up)       that signed byte and the next one, as halves, moved up
     Ints pairs(Ints a, Ints b)          products of the two halves, summed
     Floats halves(Words)                float16 in the lower half of each lane
     Words looked_up(Words, const int8_t table[16])       for each byte, what is there
     Floats to_floats(Ints), Floats fused(a, b, c)        a * b + c */

enum {
    TILE = VECTORS * LANES,      /* rows */
    CHUNK = 4 * TILE,            /* bytes: 4 weights of each row */
    SPAN = 256, BLOCK = 32,      /* weights */
    STRETCH = 1024,              /* columns of weights that are unpacked at once */
    FEW = 8,                     /* columns of activations, beside which unpacking counts */
    SOME = 4,                    /* columns of activations whose sums are in registers */
    PASS = 128,                  /* columns of activations that are rounded at once */
    LEAST_APART = 32,            /* columns for each thread, to share out these and not rows */
    SHARES = 4                   /* into which a thread's part is cut, for when one is slower */
};

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* A tile of a stretch. Blocks of 32 have a scale each, and some types a number that is added. A
   span of 256 has a scale, and integer scales of its groups. */
typedef struct {
    uint8_t w[STRETCH * TILE];
    int32_t scales[STRETCH / 16][TILE]; /* of groups, as scale_of makes them */
    int32_t lows[STRETCH / 32][TILE];   /* of two groups: what is taken off, two halves */
    float d[STRETCH / BLOCK][TILE], m[STRETCH / BLOCK][TILE];
    const uint8_t *next; /* of the tile after it, what is to be fetched next */
} Tile;

/* Columns that are rounded; `side` has what a type needs of the sums of a block. */
typedef struct {
    const int8_t *q;
    const float *scales;
    const int32_t *side;
    const float *const *x; /* as they came */
    int64_t q_stride, side_stride;
} Columns;

#define EACH(v, n) UNROLLED for (int v = 0; v < (n); v++)
#define PUT(chunk, v, value) \
    do { \
        const Words put = (Words)(value); \
        memcpy(t->w + (chunk) * CHUNK + (v) * 4 * LANES, &put, sizeof put); \
    } while (0)
#define KEEP(array, v, value) \
    do { \
        __typeof__(value) kept = (value); \
        memcpy((array) + (v) * LANES, &kept, sizeof kept); \
    } while (0)

/* Where the block of each row of a vector begins; kept in registers. */
#define BLOCKS(at) \
    const uint8_t *from[LANES]; \
    EACH(r, LANES) from[r] = rows[v * LANES + r] + (at)

INLINE Words low_nibbles(Words x) { return x & 0x0f0f0f0fu; }
INLINE Words high_nibbles(Words x) { return x >> 4 & 0x0f0f0f0fu; }

/* ---------------------------------------------------------------------------- unpacking */

/* Has some of the next tile fetched, a line after the other: of rows that are read side by side,
   the processor does not see by itself what comes. */
INLINE void fetch_ahead(const int bytes, Tile *t) {
    UNROLLED for (int i = 0; i < bytes; i += 64) __builtin_prefetch(t->next + i, 0, 2);
    t->next += bytes;
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
    return (Floats)((((Words)ints(0x200000) << (x & 1u)) & tiny) | (normal & ~tiny));
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
                EACH(i, 4) KEEP(t->scales[b * 8 + 4 * h + i], v, scale_of(scales, i));
                if (UNSIGNED_BYTES)
                    EACH(i, 2) KEEP(t->lows[b * 4 + 2 * h + i], v, pair_of(scales, 2 * i, 7));
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
            EACH(j, 4) {
                const Words scales = low_nibbles(words[j]), lows = high_nibbles(words[j]);
                EACH(i, 4) KEEP(t->scales[b * 16 + 4 * j + i], v, scale_of(scales, i));
                EACH(i, 2) KEEP(t->lows[b * 8 + 2 * j + i], v, pair_of(lows, 2 * i, 0));
            }
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
                EACH(i, 4) KEEP(t->scales[b * 16 + 4 * j + i], v, scale_of(scales, i));
                EACH(i, 2) KEEP(t->lows[b * 8 + 2 * j + i], v, pair_of(scales, 2 * i, 2));
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
            EACH(h, 2) {
                EACH(i, 4) KEEP(t->scales[b * 8 + 4 * h + i], v, scale_of(scales[h], i));
                EACH(i, 2) KEEP(t->lows[b * 4 + 2 * h + i], v, pair_of(lows[h], 2 * i, 0));
            }
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
            EACH(j, 4) {
                EACH(i, 4) KEEP(t->scales[b * 16 + 4 * j + i], v, scale_of(words[j], i));
                EACH(i, 2) KEEP(t->lows[b * 8 + 2 * j + i], v, pair_of(words[j], 2 * i, 5));
            }
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

/* Floats: a weight of each row after the other. */
INLINE void put_float(Tile *t, int64_t column, int v, Floats value) {
    memcpy(t->w + (column * TILE + v * LANES) * 4, &value, sizeof value);
}

static void unpack_f32(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t c = 0; c < n * BLOCK; c += 4) {
            Words q[4];
            quads(rows + v * LANES, (block * BLOCK + c) * 4, q);
            EACH(j, 4) put_float(t, c + j, v, (Floats)q[j]);
        }
}
static void unpack_f16(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t c = 0; c < n * BLOCK; c += 8) {
            Words q[4];
            quads(rows + v * LANES, (block * BLOCK + c) * 2, q);
            EACH(j, 4) {
                put_float(t, c + 2 * j, v, halves(q[j] & 0xffffu));
                put_float(t, c + 2 * j + 1, v, halves(q[j] >> 16));
            }
        }
}
static void unpack_bf16(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t c = 0; c < n * BLOCK; c += 8) {
            Words q[4];
            quads(rows + v * LANES, (block * BLOCK + c) * 2, q);
            EACH(j, 4) {
                put_float(t, c + 2 * j, v, (Floats)(q[j] << 16));
                put_float(t, c + 2 * j + 1, v, (Floats)(q[j] & 0xffff0000u));
            }
        }
}

/* -------------------------------------------------------------------------- multiplying */

INLINE void get_sums(const int n, const float *from, Floats sums[SOME][VECTORS]) {
    EACH(c, n) EACH(v, VECTORS)
        memcpy(&sums[c][v], from + c * TILE + v * LANES, sizeof sums[c][v]);
}
INLINE void put_sums(const int n, Floats sums[SOME][VECTORS], float *to) {
    EACH(c, n) EACH(v, VECTORS)
        memcpy(to + c * TILE + v * LANES, &sums[c][v], sizeof sums[c][v]);
}
INLINE Floats kept_floats(const float *from) {
    Floats value;
    memcpy(&value, from, sizeof value);
    return value;
}
INLINE Ints kept_ints(const int32_t *from) {
    Ints value;
    memcpy(&value, from, sizeof value);
    return value;
}
INLINE float as_float(int32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Blocks with a scale each: to the sums of n columns adds those of a stretch, from block `at` on
   of the activations. */
INLINE void multiply_blocks(const int limit, const int has_m, const int n, const Tile *t,
                            int64_t at, int64_t blocks, const Columns *x, int64_t first,
                            float *to) {
    const int8_t *q = x->q + first * x->q_stride + at * BLOCK;
    const float *scales = x->scales + first * x->side_stride + at;
    const int32_t *side = x->side + first * x->side_stride + at;
    Floats sums[SOME][VECTORS];
    get_sums(n, to, sums);
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
                    lows[c][v] +=
                        pairs(low, ints(side[c * x->side_stride + s * (SPAN / BLOCK) + p]));
            }
        Floats sums[SOME][VECTORS];
        get_sums(n, to, sums);
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

INLINE void multiply_floats(const int n, const Tile *t, int64_t at, int64_t blocks,
                            const Columns *x, int64_t first, float *to) {
    Floats sums[SOME][VECTORS], parts[SOME][VECTORS];
    EACH(c, n) EACH(v, VECTORS) parts[c][v] = floats(0);
    for (int64_t i = 0; i < blocks * BLOCK; i++)
        EACH(v, VECTORS) {
            const Floats w = kept_floats((const float *)t->w + i * TILE + v * LANES);
            EACH(c, n)
                parts[c][v] = fused(w, floats(x->x[first + c][at * BLOCK + i]), parts[c][v]);
        }
    get_sums(n, to, sums);
    EACH(c, n) EACH(v, VECTORS) sums[c][v] += parts[c][v];
    put_sums(n, sums, to);
}

typedef void Multiply(int n, const Tile *t, int64_t at, int64_t blocks, const Columns *x,
                      int64_t first, float *to);
#define FOR_SOME(name, call) \
    static void name(int n, const Tile *t, int64_t at, int64_t blocks, const Columns *x, \
                     int64_t first, float *to) { \
        switch (n) { \
        case 1: call(1); break; \
        case 2: call(2); break; \
        case 3: call(3); break; \
        default: call(4); \
        } \
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
#define CALL(n) multiply_blocks(1, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q8_0, CALL)
#undef CALL
#define CALL(n) multiply_spans(4, 16, 8, 1, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q2_k, CALL)
#undef CALL
#define CALL(n) multiply_spans(4, 16, 8, 0, n, t, at, blocks, x, first, to)
FOR_SOME(multiply_q3_k, CALL)
#undef CALL
#define CALL(n) multiply_spans(1, 32, 4 * UNSIGNED_BYTES, 0, n, t, at, blocks, x, first, to)
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
#define CALL(n) multiply_floats(n, t, at, blocks, x, first, to)
FOR_SOME(multiply_floats_, CALL)
#undef CALL

/* What is kept of the sums of activations: nothing; -offset times the sum of a block; that sum
   times the scale; or the sums of groups of a span, two in a word. */
enum { RAW, OFFSET, TIMES_SCALE, GROUPS };

typedef struct {
    int type, block, bytes, side, detail; /* detail: the offset, or a group's weights */
    void (*unpack)(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t);
    Multiply *multiply;
} Kind;

static const Kind kinds[] = {
    {0, BLOCK, 4 * BLOCK, RAW, 0, unpack_f32, multiply_floats_},
    {1, BLOCK, 2 * BLOCK, RAW, 0, unpack_f16, multiply_floats_},
    {30, BLOCK, 2 * BLOCK, RAW, 0, unpack_bf16, multiply_floats_},
    {2, BLOCK, 18, OFFSET, 8, unpack_q4_0, multiply_q4_0},
    {3, BLOCK, 20, TIMES_SCALE, 0, unpack_q4_1, multiply_q4_1},
    {6, BLOCK, 22, OFFSET, 16, unpack_q5_0, multiply_q5_0},
    {7, BLOCK, 24, TIMES_SCALE, 0, unpack_q5_1, multiply_q5_1},
    {8, BLOCK, 34, OFFSET, UNSIGNED_BYTES * 128, unpack_q8_0, multiply_q8_0},
    {20, BLOCK, 18, OFFSET, UNSIGNED_BYTES * 128, unpack_iq4_nl, multiply_q8_0},
    {39, BLOCK, 17, OFFSET, UNSIGNED_BYTES * 128, unpack_mxfp4, multiply_q8_0},
    {10, SPAN, 84, GROUPS, 16, unpack_q2_k, multiply_q2_k},
    {11, SPAN, 110, GROUPS, 16, unpack_q3_k, multiply_q3_k},
    {23, SPAN, 136, GROUPS, 32, unpack_iq4_xs, multiply_iq4_xs},
    {12, SPAN, 144, GROUPS, 32, unpack_q4_k, multiply_q4_k},
    {13, SPAN, 176, GROUPS, 32, unpack_q5_k, multiply_q5_k},
    {14, SPAN, 210, GROUPS, 16, unpack_q6_k, multiply_q6_k},
};

static const Kind *kind_of(int type) {
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kinds[i].type == type) return kinds + i;
    return 0;
}

/* n activations as integers; their scale. */
static float round_some(const float *x, int n, int8_t *out) {
    uint32_t most = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, 4);
        bits &= 0x7fffffffu;
        most = bits > most ? bits : most;
    }
    float largest;
    memcpy(&largest, &most, 4);
    const float inverse = largest > 0 ? 127 / largest : 0;
    for (int i = 0; i < n; i++) { /* so that the integer is in the lowest bits */
        const float moved = x[i] * inverse + 12582912.0f;
        int32_t bits;
        memcpy(&bits, &moved, 4);
        out[i] = (int8_t)bits;
    }
    return largest / 127;
}

static int32_t sum_of(const int8_t *q, int n) {
    int32_t sum = 0;
    for (int i = 0; i < n; i++) sum += q[i];
    return sum;
}

static void round_column(const Kind *kind, const float *x, int64_t columns, int8_t *q,
                         float *scales, int32_t *side) {
    for (int64_t i = 0; i < columns; i += kind->block) {
        const int64_t b = i / BLOCK;
        scales[b] = round_some(x + i, kind->block == SPAN ? SPAN : BLOCK, q + i);
        if (kind->side == OFFSET) side[b] = -kind->detail * sum_of(q + i, BLOCK);
        else if (kind->side == TIMES_SCALE) {
            const float sum = (float)sum_of(q + i, BLOCK) * scales[b];
            memcpy(side + b, &sum, 4);
        } else {
            int16_t sums[SPAN / 16];
            for (int g = 0; g < SPAN / kind->detail; g++)
                sums[g] = (int16_t)sum_of(q + i + g * kind->detail, kind->detail);
            memcpy(side + b, sums, (size_t)(SPAN / kind->detail) * 2);
        }
    }
}

/* ------------------------------------------------------------------------------ sharing */

/* What all threads share. */
typedef struct {
    void *room;
    uint8_t *scratch;      /* in it: scratch_bytes(columns) for each thread */
    int64_t columns;       /* for which there is scratch */
    int64_t threads;       /* that there is scratch for; others do nothing */
    _Atomic int64_t next;  /* the first share that no thread has taken */
    _Atomic int64_t done;  /* threads that found none left */
} Products;

typedef struct {
    Tile *tile;
    float *sums; /* [PASS][TILE] */
    int8_t *q;
    float *scales;
    int32_t *side;
    const float *x[PASS];
    float *y[PASS];
} Scratch;

static int64_t lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }

/* Of a thread, a multiple of 64. */
static int64_t scratch_bytes(int64_t columns) {
    return lines(sizeof(Tile)) + lines(PASS * TILE * 4) + lines(PASS * columns) +
           2 * lines(PASS * (columns / BLOCK) * 4);
}

static bool make_room(Products *p, int64_t columns) {
    if (columns <= p->columns) return true;
    void *room = malloc(64 + (size_t)(p->threads * scratch_bytes(columns)));
    if (!room) return false;
    free(p->room);
    p->room = room;
    p->scratch = (uint8_t *)(((uintptr_t)room + 63) & ~(uintptr_t)63);
    p->columns = columns;
    return true;
}

static void scratch_of(const Products *p, int thread, Scratch *s) {
    uint8_t *at = p->scratch + thread * scratch_bytes(p->columns);
    s->tile = (Tile *)at;
    s->sums = (float *)(at += lines(sizeof(Tile)));
    s->q = (int8_t *)(at += lines(PASS * TILE * 4));
    s->scales = (float *)(at += lines(PASS * p->columns));
    s->side = (int32_t *)(at + lines(PASS * (p->columns / BLOCK) * 4));
}

/* A matrix in a file. */
typedef struct {
    const Kind *kind;
    const uint8_t *data;
    int64_t rows, columns, row_bytes;
} Matrix;

static void round_columns(const Matrix *m, Scratch *s, int64_t n) {
    if (m->kind->side == RAW) return;
    for (int64_t c = 0; c < n; c++)
        round_column(m->kind, s->x[c], m->columns, s->q + c * m->columns,
                     s->scales + c * (m->columns / BLOCK), s->side + c * (m->columns / BLOCK));
}

/* These rows times n columns that have been rounded. */
static void multiply_rows(const Matrix *m, const Scratch *s, int64_t begin, int64_t end,
                          int64_t n) {
    const Kind *kind = m->kind;
    const Columns x = {s->q, s->scales, s->side, s->x, m->columns, m->columns / BLOCK};
    const int64_t blocks = m->columns / kind->block;
    /* Of few columns, weights must come fast: less is unpacked at once, so that it overlaps with
       the fetching. Floats are summed in stretches of one length. */
    const int few = kind->side == RAW || n <= FEW;
    const int64_t stretch = (few ? SPAN : STRETCH) / kind->block;
    for (int64_t row = begin; row < end; row += TILE) {
        const uint8_t *rows[TILE];
        const int64_t some = least(end - row, TILE);
        for (int r = 0; r < TILE; r++)
            rows[r] = m->data + least(row + r, end - 1) * m->row_bytes;
        s->tile->next = m->data + (row + TILE) * m->row_bytes;
        memset(s->sums, 0, (size_t)n * TILE * 4);
        for (int64_t at = 0; at < blocks; at += stretch) {
            const int64_t n_blocks = least(blocks - at, stretch);
            kind->unpack(rows, at, n_blocks, s->tile);
            for (int64_t c = 0; c < n; c += SOME)
                kind->multiply((int)least(n - c, SOME), s->tile, at, n_blocks, &x, c,
                               s->sums + c * TILE);
        }
        for (int64_t c = 0; c < n; c++)
            memcpy(s->y[c] + row, s->sums + c * TILE, (size_t)some * 4);
    }
}

/* Rows of which a thread takes so many at a time. */
static int64_t share_of(int64_t rows, int threads) {
    return (rows / (threads * SHARES) / TILE + 1) * TILE;
}

/* The shares of all jobs before this one, and the share that this thread has taken. */
typedef struct {
    int64_t before, mine;
} Place;

/* A thread's part in a matrix times n columns, at most PASS, whose addresses are in `s`. */
static void take_rows(Products *p, const Matrix *m, Scratch *s, int64_t n, Place *place,
                      int threads) {
    const int64_t share = share_of(m->rows, threads), shares = (m->rows + share - 1) / share;
    int rounded = 0;
    for (; place->mine < place->before + shares; place->mine = atomic_fetch_add(&p->next, 1)) {
        if (!rounded++) round_columns(m, s, n);
        const int64_t row = (place->mine - place->before) * share;
        multiply_rows(m, s, row, least(row + share, m->rows), n);
    }
    place->before += shares;
}

/* --------------------------------------------------------------------- nodes of a graph */

static Matrix matrix_of(const void *tensor) {
    const Matrix m = {kind_of(type_of(tensor)), data_of(tensor),
                      n_of(tensor, 1), n_of(tensor, 0), bytes_of(tensor, 1)};
    return m;
}

static void multiply(Products *p, const void *node, Scratch *s, int me, int threads) {
    const void *weight = operand_of(node, 0), *x = operand_of(node, 1);
    const int64_t n = n_of(x, 1), by_columns = n >= LEAST_APART * threads;
    const int64_t first = by_columns ? n * me / threads : 0;
    const int64_t last = by_columns ? n * (me + 1) / threads : n;
    Place place = {0, by_columns ? 0 : atomic_fetch_add(&p->next, 1)};
    for (int64_t of = 0; of < n_of(x, 2) * n_of(x, 3); of++) { /* matrices beside each other */
        const int64_t i2 = of % n_of(x, 2), i3 = of / n_of(x, 2);
        Matrix m = matrix_of(weight);
        m.data += i2 / (n_of(x, 2) / n_of(weight, 2)) * bytes_of(weight, 2) +
                  i3 / (n_of(x, 3) / n_of(weight, 3)) * bytes_of(weight, 3);
        const uint8_t *from = data_of(x) + i2 * bytes_of(x, 2) + i3 * bytes_of(x, 3);
        uint8_t *to = data_of(node) + i2 * bytes_of(node, 2) + i3 * bytes_of(node, 3);
        for (int64_t at = first; at < last; at += PASS) {
            const int64_t some = least(last - at, PASS);
            for (int64_t c = 0; c < some; c++) {
                s->x[c] = (const float *)(from + (at + c) * bytes_of(x, 1));
                s->y[c] = (float *)(to + (at + c) * bytes_of(node, 1));
            }
            if (by_columns) {
                round_columns(&m, s, some);
                multiply_rows(&m, s, 0, m.rows, some);
            } else take_rows(p, &m, s, some, &place, threads);
        }
    }
}

/* Each token has slots, which name the experts that it wants. */
static void multiply_experts(Products *p, const void *node, Scratch *s, int threads) {
    const void *weight = operand_of(node, 0), *x = operand_of(node, 1), *ids = operand_of(node, 2);
    const int64_t n_slots = n_of(ids, 0), n_pairs = n_slots * n_of(ids, 1);
    const int64_t x_slots = n_of(x, 1);
    Place place = {0, atomic_fetch_add(&p->next, 1)};
    for (int64_t expert = 0; expert < n_of(weight, 2); expert++) {
        Matrix m = matrix_of(weight);
        m.data += expert * bytes_of(weight, 2);
        for (int64_t pair = 0, n; pair < n_pairs;) {
            for (n = 0; pair < n_pairs && n < PASS; pair++) {
                const int64_t token = pair / n_slots, slot = pair % n_slots;
                if (*(int32_t *)(data_of(ids) + token * bytes_of(ids, 1) +
                                 slot * bytes_of(ids, 0)) != expert)
                    continue;
                s->x[n] = (const float *)(data_of(x) + token * bytes_of(x, 2) +
                                          slot % x_slots * bytes_of(x, 1));
                s->y[n++] = (float *)(data_of(node) + token * bytes_of(node, 2) +
                                      slot * bytes_of(node, 1));
            }
            if (n) take_rows(p, &m, s, n, &place, threads);
        }
    }
}

/* What ggml calls, on each of its threads. */
void products_node(void *node, int me, int threads, void *products) {
    Products *p = products;
    threads = (int)least(threads, p->threads);
    if (me >= threads) return;
    Scratch s;
    scratch_of(p, me, &s);
    if (operand_of(node, 2)) multiply_experts(p, node, &s, threads);
    else multiply(p, node, &s, me, threads);
    if (atomic_fetch_add(&p->done, 1) + 1 == threads) { /* all wait for all before the next one */
        p->next = 0;
        p->done = 0;
    }
}

static int32_t mul_mat, mul_mat_id; /* ggml's numbers of these operations */

void products_start(int32_t one, int32_t several) {
    mul_mat = one;
    mul_mat_id = several;
}

/* Whether weights are of a type that is known, in rows of whole blocks. */
bool products_know(int32_t type, int64_t columns) {
    const Kind *kind = kind_of(type);
    return kind && columns % kind->block == 0;
}

/* Whether a tensor holds weights: it is not computed, no view, and no input, which has another
   shape in each batch. */
static bool is_weight(const void *tensor) {
    enum { INPUT = 1 };
    return *op_of((void *)tensor) == 0 && !(flags_of(tensor) & INPUT) && !view_of(tensor);
}

/* Has a node computed with these, if it is a product with weights that are known. They may lie
   elsewhere each time. */
void products_take(void *node, void *products) {
    const int32_t op = *op_of(node);
    if (op != mul_mat && op != mul_mat_id) return;
    const void *weight = operand_of(node, 0), *x = operand_of(node, 1);
    if (is_weight(weight) && products_know(type_of(weight), n_of(weight, 0)) &&
        type_of(x) == 0 && bytes_of(x, 0) == 4 && make_room(products, n_of(weight, 0)))
        compute_with(node, products_node, products);
}

Products *products_new(int64_t threads) {
    Products *p = calloc(1, sizeof *p);
    if (p) p->threads = threads;
    return p;
}

void products_free(Products *p) {
    free(p->room);
    free(p);
}
