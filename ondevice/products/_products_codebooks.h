/* IQ types: four or eight weights are the number of an entry in a codebook; part of _products.c. An
   entry has weights moved up, by 64 or, of IQ1, by 16. A span has a scale, and odd integer ones of
   its groups. */

/* A word is four weights; llama.cpp says which (_codebooks.py). */
uint32_t products_iq2_xxs[2 * 256], products_iq2_xs[2 * 512], products_iq2_s[2 * 1024];
uint32_t products_iq3_xxs[256], products_iq3_s[512];
uint32_t products_iq1[2 * 2048];

/* Odd scales of four groups: twice these and one more. */
INLINE void keep_odd(int64_t group, Words halves_of, const int up, int v, Tile *t) {
    const Words scales = halves_of << 1 | 0x01010101u;
    keep_scales(group, scales, scales, up, v, t);
}

/* Four weights of either sign: a bit for each is the upper half of a byte. */
INLINE Words with_signs(Words sizes, Words signs, const int byte) {
    const Words ones = spread(signs, byte) >> 4;
    return (sizes ^ ((ones << 7) - ones)) + ones; /* they, or 128 less */
}

/* Of four bytes below 128, the eighth bit, so that the number of bits is even. */
INLINE Words with_eighth(Words signs) {
    Words odd_ones = signs ^ signs >> 4;
    odd_ones ^= odd_ones >> 2;
    odd_ones ^= odd_ones >> 1;
    return signs | (odd_ones & 0x01010101u) << 7;
}
/* Four times seven bits of a word, with their eighths. */
INLINE Words sevens(Words x) { return with_eighth(fields_of(x, 7)); }

/* Eight weights of that number; their signs are a byte. */
INLINE void put_eight(const uint32_t *codebook, Words number, Words signs, const int byte,
                      int64_t chunk, int v, Tile *t) {
    Words sizes[2];
    gathered_pairs(codebook, number, sizes);
    PUT(chunk, v, with_signs(sizes[0], signs << 4, byte));
    PUT(chunk + 1, v, with_signs(sizes[1], signs, byte));
}

static void unpack_iq2_xxs(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 66);
            Words q[4];
            quads(from, 0, q);
            KEEP(t->d[b], v, halves(q[0] & 0xffffu) * 0.125f);
            EACH(h, 2) {
                Words scales = (Words)ints(0);
                EACH(p, 2) {
                    fetch_ahead(LANES * 66 / 4, t);
                    quads(from, 2 + 32 * h + 16 * p, q);
                    EACH(g, 2) { /* four numbers; four times seven signs and a scale */
                        const int group = 4 * h + 2 * p + g;
                        const Words of_eight = sevens(q[2 * g + 1]);
                        scales |= q[2 * g + 1] >> 28 << 8 * (2 * p + g);
                        EACH(j, 4)
                            put_eight(products_iq2_xxs, q[2 * g] >> 8 * j & 255u, of_eight, j,
                                      b * 64 + 8 * group + 2 * j, v, t);
                    }
                }
                keep_odd(b * 8 + 4 * h, scales, 6, v, t);
            }
        }
}

static void unpack_iq2_xs(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 74);
            Words words[4];
            quads(from, 0, words);
            KEEP(t->d[b], v, halves(words[0] & 0xffffu) * 0.125f);
            quads(from, 58, words); /* up to the end of the block */
            EACH(h, 4)
                keep_odd(b * 16 + 4 * h, fields_of(words[2 + h / 2] >> 16 * (h % 2), 4), 6, v, t);
            EACH(h, 4) { /* halves: a number of nine bits and seven signs */
                fetch_ahead(LANES * 74 / 4, t);
                quads(from, 2 + 16 * h, words);
                EACH(g, 2) {
                    const Words one = words[2 * g], two = words[2 * g + 1];
                    const Words signs =
                        with_eighth((one >> 9 & 0x7fu) | one >> 25 << 8 |
                                    (two >> 9 & 0x7fu) << 16 | two >> 25 << 24);
                    EACH(j, 4)
                        put_eight(products_iq2_xs, words[2 * g + j / 2] >> 16 * (j % 2) & 511u,
                                  signs, j, b * 64 + 16 * h + 8 * g + 2 * j, v, t);
                }
            }
        }
}

static void unpack_iq2_s(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 82);
            Words words[4], high[2], q[4], signs[4];
            quads(from, 0, words);
            KEEP(t->d[b], v, halves(words[0] & 0xffffu) * 0.125f);
            quads(from, 66, words);
            EACH(h, 4)
                keep_odd(b * 16 + 4 * h, fields_of(words[2 + h / 2] >> 16 * (h % 2), 4), 6, v, t);
            EACH(h, 2) high[h] = words[h]; /* two bits of each of 16 numbers */
            EACH(h, 2) {
                quads(from, 2 + 16 * h, q);
                quads(from, 34 + 16 * h, signs);
                EACH(g, 4) {
                    fetch_ahead(LANES * 82 / 8, t);
                    EACH(j, 4)
                        put_eight(products_iq2_s,
                                  (q[g] >> 8 * j & 255u) | (high[h] >> (8 * g + 2 * j) & 3u) << 8,
                                  signs[g], j, b * 64 + 32 * h + 8 * g + 2 * j, v, t);
                }
            }
        }
}

static void unpack_iq3_xxs(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 98);
            Words words[4], q[4];
            quads(from, 0, q);
            KEEP(t->d[b], v, halves(q[0] & 0xffffu) * 0.25f);
            EACH(h, 2) {
                quads(from, 66 + 16 * h, words); /* of a group: four times seven signs, a scale */
                Words scales = (Words)ints(0);
                EACH(g, 4) {
                    const Words signs = sevens(words[g]);
                    scales |= words[g] >> 28 << 8 * g;
                    fetch_ahead(LANES * 98 / 8, t);
                    if (g % 2 == 0) quads(from, 2 + 32 * h + 8 * g, q);
                    EACH(j, 8) {
                        const Words number = q[g % 2 * 2 + j / 4] >> 8 * (j % 4) & 255u;
                        PUT(b * 64 + 32 * h + 8 * g + j, v,
                            with_signs(gathered(products_iq3_xxs, number),
                                       j % 2 ? signs : signs << 4, j / 2));
                    }
                }
                keep_odd(b * 8 + 4 * h, scales, 6, v, t);
            }
        }
}

static void unpack_iq3_s(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 110);
            Words words[4], high[2], q[4];
            quads(from, 0, q);
            KEEP(t->d[b], v, halves(q[0] & 0xffffu));
            quads(from, 66, words);
            EACH(h, 2) high[h] = words[h]; /* a bit of each of 32 numbers */
            quads(from, 94, words);        /* up to the end of the block */
            EACH(h, 2) keep_odd(b * 8 + 4 * h, fields_of(words[3] >> 16 * h, 4), 6, v, t);
            EACH(h, 2) {
                quads(from, 74 + 16 * h, words); /* signs */
                EACH(g, 4) {
                    fetch_ahead(LANES * 110 / 8, t);
                    if (g % 2 == 0) quads(from, 2 + 32 * h + 8 * g, q);
                    EACH(j, 8) {
                        const Words number = (q[g % 2 * 2 + j / 4] >> 8 * (j % 4) & 255u) |
                                             (high[h] >> (8 * g + j) & 1u) << 8;
                        PUT(b * 64 + 32 * h + 8 * g + j, v,
                            with_signs(gathered(products_iq3_s, number),
                                       j % 2 ? words[g] : words[g] << 4, j / 2));
                    }
                }
            }
        }
}

/* Eight weights of IQ1: each is -8, 0 or 8, and one less if `less` is 1, else one more. */
INLINE void put_eight_1(Words number, Words less, int64_t chunk, int v, Tile *t) {
    const Words step = 0x01010101u - less * 0x02020202u;
    Words sizes[2];
    gathered_pairs(products_iq1, number, sizes);
    PUT(chunk, v, sizes[0] + step);
    PUT(chunk + 1, v, sizes[1] + step);
}

static void unpack_iq1_s(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 50);
            Words high[4], q[4];
            quads(from, 0, q);
            KEEP(t->d[b], v, halves(q[0] & 0xffffu) * 0.125f);
            quads(from, 34, high); /* halves: four times three bits, a scale, a sign */
            EACH(h, 2) {
                quads(from, 2 + 16 * h, q);
                Words scales = (Words)ints(0);
                EACH(g, 4) {
                    const Words more = high[2 * h + g / 2] >> 16 * (g % 2);
                    fetch_ahead(LANES * 50 / 8, t);
                    scales |= (more >> 12 & 7u) << 8 * g;
                    EACH(j, 4)
                        put_eight_1((q[g] >> 8 * j & 255u) | (more >> 3 * j & 7u) << 8,
                                    more >> 15 & 1u, b * 64 + 32 * h + 8 * g + 2 * j, v, t);
                }
                keep_odd(b * 8 + 4 * h, scales, 4, v, t);
            }
        }
}

static void unpack_iq1_m(const uint8_t *const *rows, int64_t block, int64_t n, Tile *t) {
    for (int v = 0; v < VECTORS; v++)
        for (int64_t b = 0; b < n; b++) {
            BLOCKS((block + b) * 56);
            Words high[4], q[4], words[4];
            quads(from, 40, words); /* halves: four times three bits, a nibble of the scale */
            KEEP(t->d[b], v,
                 halves((words[2] >> 12 & 15u) | words[2] >> 28 << 4 |
                        (words[3] >> 12 & 15u) << 8 | words[3] >> 28 << 12) * 0.125f);
            EACH(h, 4)
                keep_odd(b * 16 + 4 * h, fields_of(words[2 + h / 2] >> 16 * (h % 2), 3), 4, v, t);
            quads(from, 32, high); /* of each number three bits and a sign */
            EACH(h, 2) {
                quads(from, 16 * h, q);
                EACH(g, 4) {
                    fetch_ahead(LANES * 56 / 8, t);
                    EACH(j, 4) {
                        const Words more = high[2 * h + g / 2] >> (16 * (g % 2) + 4 * j);
                        put_eight_1((q[g] >> 8 * j & 255u) | (more & 7u) << 8, more >> 3 & 1u,
                                    b * 64 + 32 * h + 8 * g + 2 * j, v, t);
                    }
                }
            }
        }
}
