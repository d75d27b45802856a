/* A single column times rows as they lie, for x86; part of _products.c. To unpack a tile of them
   takes longer than to multiply it. So of types with spans, the integers of a span are summed to a
   vector for each row. Those of eight rows are then added up across lanes: from there on a lane
   belongs to a row, and floats are added as in a tile.

   Of types with blocks of 32, Q8_0 is hardly faster in this way, and those of 4 and 5 bits are
   slower, since lanes are added up eight times as often; IQ1_M is no faster, either. With AVX-512,
   only Q6_K was measured. */

enum { ALONE = 8 /* rows */, SPANS = 64 /* at once */ };

INLINE __m256i all_of(const void *from) { return _mm256_loadu_si256(from); }
INLINE __m128i half_of(const void *from) { return _mm_loadu_si128(from); }
INLINE __m256i bytes_alike(int byte) { return _mm256_set1_epi8((char)byte); }
INLINE uint16_t two_at(const uint8_t *from) {
    uint16_t two;
    memcpy(&two, from, 2);
    return two;
}
INLINE uint32_t four_at(const uint8_t *from) {
    uint32_t four;
    memcpy(&four, from, 4);
    return four;
}
INLINE uint64_t eight_at(const uint8_t *from) {
    uint64_t eight;
    memcpy(&eight, from, 8);
    return eight;
}
INLINE float half_at(const uint8_t *from) { return _cvtsh_ss(two_at(from)); }

/* A span of a row. Of groups of 16, `scales` has those of even groups in the lower lane and those of
   odd ones in the upper; of groups of 32, all in both. */
typedef struct {
    __m256i w[8], signs[8]; /* 1 or -1, of OF_EITHER_SIGN */
    __m256i scales;         /* as halves */
    __m128i lows;           /* bytes: of each group what is taken off, or its scale once more */
    float d, m;
} Row;

INLINE void have_scales(const int group, __m128i bytes, Row *r) {
    r->lows = bytes;
    if (group == 32) r->scales = _mm256_broadcastsi128_si256(_mm_cvtepi8_epi16(bytes));
    else
        r->scales = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(
            bytes, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)));
}
INLINE __m128i sixteen(uint64_t first, uint64_t last) {
    return _mm_set_epi64x((long long)last, (long long)first);
}

/* So many bits, one after the other, to a byte each. */
INLINE uint64_t nibbles_in(uint64_t x) {
    x = (x | x << 16) & 0x0000ffff0000ffffu;
    x = (x | x << 8) & 0x00ff00ff00ff00ffu;
    return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
}
INLINE uint64_t twos_in(uint64_t x) {
    x = (x | x << 24) & 0x000000ff000000ffu;
    x = (x | x << 12) & 0x000f000f000f000fu;
    return (x | x << 6) & 0x0303030303030303u;
}
INLINE uint64_t odd(uint64_t x) { return 2 * x + 0x0101010101010101u; }

/* ------------------------------------------------------------------- types with bits in order */

INLINE __m256i shifted(__m256i x, const int right) {
    return right < 0 ? _mm256_slli_epi16(x, -right) : _mm256_srli_epi16(x, right);
}

INLINE void row_q2_k(const uint8_t *block, Row *r) {
    const __m128i both = half_of(block), low = _mm_set1_epi8(15);
    have_scales(16, _mm_and_si128(both, low), r);
    r->lows = _mm_and_si128(_mm_srli_epi16(both, 4), low);
    r->d = half_at(block + 80);
    r->m = half_at(block + 82);
    EACH(half, 2) {
        const __m256i some = all_of(block + 16 + 32 * half);
        EACH(i, 4)
            r->w[4 * half + i] = _mm256_and_si256(shifted(some, 2 * i), bytes_alike(3));
    }
}

INLINE void row_q3_k(const uint8_t *block, Row *r) {
    const uint64_t low = eight_at(block + 96), high = four_at(block + 104);
    const uint64_t nibbles = 0x0f0f0f0f0f0f0f0fu, twos = 0x0303030303030303u;
    const uint64_t first = (high | high << 30) & twos, last = (high >> 4 | high << 26) & twos;
    const __m128i scales =
        sixteen((low & nibbles) | first << 4, (low >> 4 & nibbles) | last << 4);
    have_scales(16, _mm_sub_epi8(scales, _mm_set1_epi8(32)), r);
    r->d = half_at(block + 108);
    const __m256i bits = all_of(block);
    EACH(half, 2) {
        const __m256i some = all_of(block + 32 + 32 * half);
        EACH(i, 4)
            r->w[4 * half + i] = _mm256_or_si256(
                _mm256_and_si256(shifted(some, 2 * i), bytes_alike(3)),
                _mm256_and_si256(shifted(bits, 4 * half + i - 2), bytes_alike(4)));
    }
}

INLINE void row_k(const int fifth, const uint8_t *block, Row *r) {
    /* Four scales and four minima; above them, bits of four more. */
    const uint64_t first = eight_at(block + 4), nibbles = four_at(block + 12);
    const uint64_t last = (first >> 2 & 0x3030303030303030u) | (nibbles & 0x0f0f0f0fu) |
                          (nibbles >> 4 & 0x0f0f0f0fu) << 32;
    const __m128i both =
        _mm_shuffle_epi32(sixteen(first & 0x3f3f3f3f3f3f3f3fu, last), _MM_SHUFFLE(3, 1, 2, 0));
    have_scales(32, both, r);
    r->lows = _mm_unpackhi_epi64(both, both);
    r->d = half_at(block);
    r->m = half_at(block + 2);
    const __m256i bits = fifth ? all_of(block + 16) : bytes_alike(0);
    EACH(p, 4) {
        const __m256i some = all_of(block + (fifth ? 48 : 16) + 32 * p);
        EACH(i, 2) {
            const int g = 2 * p + i;
            r->w[g] = _mm256_and_si256(shifted(some, 4 * i), bytes_alike(15));
            if (fifth)
                r->w[g] = _mm256_or_si256(
                    r->w[g], _mm256_and_si256(shifted(bits, g - 4), bytes_alike(16)));
        }
    }
}
INLINE void row_q4_k(const uint8_t *block, Row *r) { row_k(0, block, r); }
INLINE void row_q5_k(const uint8_t *block, Row *r) { row_k(1, block, r); }

INLINE void row_q6_k(const uint8_t *block, Row *r) {
    have_scales(16, half_of(block + 192), r);
    r->d = half_at(block + 208);
    EACH(half, 2) {
        const __m256i twos = all_of(block + 128 + 32 * half);
        EACH(i, 4)
            r->w[4 * half + i] = _mm256_or_si256(
                _mm256_and_si256(shifted(all_of(block + 64 * half + i % 2 * 32), i / 2 * 4),
                                 bytes_alike(15)),
                _mm256_and_si256(shifted(twos, 2 * i - 4), bytes_alike(48)));
    }
}

INLINE void row_iq4_xs(const uint8_t *block, Row *r) {
    const uint64_t scales = nibbles_in(four_at(block + 4)) | twos_in(two_at(block + 2)) << 4;
    have_scales(32, _mm_sub_epi8(sixteen(scales, 0), _mm_set1_epi8(32)), r);
    r->d = half_at(block);
    EACH(g, 8) {
        const __m128i some = half_of(block + 8 + 16 * g);
        const __m256i nibbles = _mm256_and_si256(
            _mm256_inserti128_si256(_mm256_castsi128_si256(some), _mm_srli_epi16(some, 4), 1),
            bytes_alike(15));
        r->signs[g] =
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(half_of(iq4_table)), nibbles);
        r->w[g] = _mm256_abs_epi8(r->signs[g]);
    }
}

INLINE void row_tq2_0(const uint8_t *block, Row *r) {
    have_scales(32, _mm_set1_epi8(1), r);
    r->d = half_at(block + 64);
    EACH(half, 2) {
        const __m256i some = all_of(block + 32 * half);
        EACH(i, 4)
            r->w[4 * half + i] = _mm256_and_si256(shifted(some, 2 * i), bytes_alike(3));
    }
}

/* The next digits of bytes that are fractions of 3^5, of which the even and the odd ones are
   halves. */
INLINE __m256i next_digits(__m256i parts[2]) {
    __m256i threes[2];
    EACH(i, 2) {
        threes[i] = _mm256_add_epi16(parts[i], _mm256_slli_epi16(parts[i], 1));
        parts[i] = _mm256_and_si256(threes[i], _mm256_set1_epi16(255));
    }
    const __m256i odd_ones = _mm256_andnot_si256(_mm256_set1_epi16(255), threes[1]);
    return _mm256_or_si256(_mm256_srli_epi16(threes[0], 8), odd_ones);
}
INLINE void digits_of(__m256i bytes, __m256i parts[2]) {
    parts[0] = _mm256_and_si256(bytes, _mm256_set1_epi16(255));
    parts[1] = _mm256_srli_epi16(bytes, 8);
}

INLINE void row_tq1_0(const uint8_t *block, Row *r) {
    have_scales(32, _mm_set1_epi8(1), r);
    r->d = half_at(block + 52);
    __m256i parts[2], found[5];
    digits_of(all_of(block), parts);
    EACH(i, 5) r->w[i] = next_digits(parts);
    /* 16 bytes, and four of which each has four digits only. */
    digits_of(_mm256_inserti128_si256(_mm256_castsi128_si256(half_of(block + 32)),
                                      _mm_cvtsi32_si128((int)four_at(block + 48)), 1), parts);
    EACH(i, 5) found[i] = next_digits(parts);
    EACH(i, 2) r->w[5 + i] = _mm256_permute2x128_si256(found[2 * i], found[2 * i + 1], 0x20);
    const __m256i twos[2] = {_mm256_unpacklo_epi32(found[0], found[1]),
                             _mm256_unpacklo_epi32(found[2], found[3])};
    r->w[7] = _mm256_blend_epi32(found[4], _mm256_unpacklo_epi64(twos[0], twos[1]), 0xf0);
}

/* --------------------------------------------------------------------------- with a codebook */

/* 32 weights of an entry for each eight or four; `number` says which. */
#define ENTRY(book, number) (long long)eight_at((const uint8_t *)(book) + 8 * (number))
#define OF_EIGHT(book, number) \
    _mm256_set_epi64x(ENTRY(book, number(3)), ENTRY(book, number(2)), ENTRY(book, number(1)), \
                      ENTRY(book, number(0)))
#define OF_FOUR(book, number) \
    _mm256_setr_epi32((int)book[number(0)], (int)book[number(1)], (int)book[number(2)], \
                      (int)book[number(3)], (int)book[number(4)], (int)book[number(5)], \
                      (int)book[number(6)], (int)book[number(7)])

/* Of seven bits, the signs of eight weights: an even number of them is negative. */
static uint64_t signs_of_seven[128];

static void alone_start(void) {
    for (int bits = 0; bits < 128; bits++) {
        int is_odd = 0;
        for (int i = 0; i < 7; i++) is_odd ^= bits >> i & 1;
        const int all = bits | is_odd << 7;
        for (int i = 0; i < 8; i++)
            signs_of_seven[bits] |= (uint64_t)(all >> i & 1 ? 255 : 1) << 8 * i;
    }
}

INLINE __m256i signs_of(uint32_t bits) {
    const __m256i each = _mm256_set1_epi64x((long long)0x8040201008040201u);
    const __m256i order = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202,
                                             0x0303030303030303);
    const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), order);
    const __m256i less = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, each), each);
    return _mm256_or_si256(less, bytes_alike(1));
}
INLINE __m256i less_64(__m256i sizes) { return _mm256_sub_epi8(sizes, bytes_alike(64)); }

INLINE void row_iq2_xxs(const uint8_t *block, Row *r) {
    uint64_t scales = 0;
    EACH(g, 8) {
        const uint32_t more = four_at(block + 6 + 8 * g);
        const uint8_t *numbers = block + 2 + 8 * g;
        scales |= (uint64_t)(more >> 28) << 8 * g;
#define NUMBER(j) numbers[j]
#define SIGNS(j) (more >> 7 * (j) & 127u)
        r->w[g] = less_64(OF_EIGHT(products_iq2_xxs, NUMBER));
        r->signs[g] = OF_EIGHT(signs_of_seven, SIGNS);
#undef SIGNS
#undef NUMBER
    }
    have_scales(32, sixteen(odd(scales), 0), r);
    r->d = half_at(block) * 0.125f;
}

INLINE __m128i odd_nibbles(const uint8_t *from) { /* 16 */
    return sixteen(odd(nibbles_in(four_at(from))), odd(nibbles_in(four_at(from + 4))));
}

INLINE void row_iq2_xs(const uint8_t *block, Row *r) {
    EACH(g, 8) {
        const uint64_t some = eight_at(block + 2 + 8 * g);
#define NUMBER(j) (some >> 16 * (j) & 511u)
#define SIGNS(j) (some >> (16 * (j) + 9) & 127u)
        r->w[g] = less_64(OF_EIGHT(products_iq2_xs, NUMBER));
        r->signs[g] = OF_EIGHT(signs_of_seven, SIGNS);
#undef SIGNS
#undef NUMBER
    }
    have_scales(16, odd_nibbles(block + 66), r);
    r->d = half_at(block) * 0.125f;
}

INLINE void row_iq2_s(const uint8_t *block, Row *r) {
    EACH(g, 8) {
        const uint8_t *numbers = block + 2 + 4 * g;
        const uint32_t high = block[66 + g];
#define NUMBER(j) (numbers[j] | (high << (8 - 2 * (j)) & 768u))
        r->w[g] = less_64(OF_EIGHT(products_iq2_s, NUMBER));
        r->signs[g] = signs_of(four_at(block + 34 + 4 * g));
#undef NUMBER
    }
    have_scales(16, odd_nibbles(block + 74), r);
    r->d = half_at(block) * 0.125f;
}

INLINE void row_iq3_xxs(const uint8_t *block, Row *r) {
    uint64_t scales = 0;
    EACH(g, 8) {
        const uint32_t more = four_at(block + 66 + 4 * g);
        const uint8_t *numbers = block + 2 + 8 * g;
        scales |= (uint64_t)(more >> 28) << 8 * g;
#define NUMBER(j) numbers[j]
#define SIGNS(j) (more >> 7 * (j) & 127u)
        r->w[g] = less_64(OF_FOUR(products_iq3_xxs, NUMBER));
        r->signs[g] = OF_EIGHT(signs_of_seven, SIGNS);
#undef SIGNS
#undef NUMBER
    }
    have_scales(32, sixteen(odd(scales), 0), r);
    r->d = half_at(block) * 0.25f;
}

INLINE void row_iq3_s(const uint8_t *block, Row *r) {
    EACH(g, 8) {
        const uint8_t *numbers = block + 2 + 8 * g;
        const uint32_t high = block[66 + g];
#define NUMBER(j) (numbers[j] | (high << (8 - (j)) & 256u))
        r->w[g] = less_64(OF_FOUR(products_iq3_s, NUMBER));
        r->signs[g] = signs_of(four_at(block + 74 + 4 * g));
#undef NUMBER
    }
    have_scales(32, sixteen(odd(nibbles_in(four_at(block + 106))), 0), r);
    r->d = half_at(block);
}

/* One less for each eight weights whose byte is 255, else one more. */
INLINE __m256i with_step(__m256i w, uint32_t less) {
    const __m256i order = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202,
                                             0x0303030303030303);
    const __m256i steps = _mm256_or_si256(_mm256_set1_epi32((int)less), bytes_alike(1));
    return _mm256_add_epi8(w, _mm256_shuffle_epi8(steps, order));
}

INLINE void row_iq1_s(const uint8_t *block, Row *r) {
    uint64_t scales = 0;
    EACH(g, 8) {
        const uint32_t more = two_at(block + 34 + 2 * g);
        const uint8_t *numbers = block + 2 + 4 * g;
        scales |= (uint64_t)(more >> 12 & 7u) << 8 * g;
#define NUMBER(j) (numbers[j] | (more >> 3 * (j) & 7u) << 8)
        r->w[g] = with_step(OF_EIGHT(products_iq1, NUMBER), 0u - (more >> 15));
#undef NUMBER
    }
    have_scales(32, sixteen(odd(scales), 0), r);
    r->d = half_at(block) * 0.125f;
}

/* -------------------------------------------------------------------------------- multiplying */

/* Of eight vectors, the sums across their lanes. */
INLINE __m256i across(const __m256i *v) {
    __m256i fours[2];
    EACH(i, 2)
        fours[i] = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4 * i], v[4 * i + 1]),
                                     _mm256_hadd_epi32(v[4 * i + 2], v[4 * i + 3]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(fours[0], fours[1], 0x20),
                            _mm256_permute2x128_si256(fours[0], fours[1], 0x31));
}
INLINE __m128i folded(__m256i x) {
    return _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
}
INLINE __m256i across_halves(const __m128i *v) { /* of four lanes each */
    __m256i twos[4];
    EACH(i, 4) twos[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(v[i]), v[i + 4], 1);
    return _mm256_hadd_epi32(_mm256_hadd_epi32(twos[0], twos[1]),
                             _mm256_hadd_epi32(twos[2], twos[3]));
}

enum { OWN_LOWS = -1, OF_EITHER_SIGN = 0 }; /* instead of what is taken off of all weights */

/* The weights of a span times activations. */
INLINE __m256i dot_alone(const Row *r, const int off, const int8_t *q) {
    __m256i sums = _mm256_setzero_si256();
    EACH(g, 8) {
        const __m256i x = all_of(q + 32 * g);
        const __m256i products = _mm256_maddubs_epi16(
            r->w[g], off == OF_EITHER_SIGN ? _mm256_sign_epi8(x, r->signs[g]) : x);
        const __m256i scale = _mm256_shuffle_epi8(
            r->scales, _mm256_set1_epi16((short)((2 * g + 1) << 8 | 2 * g)));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(products, scale));
    }
    return sums;
}

/* Sums of activations of each group, times what is taken off of it. */
INLINE __m256i lows_alone(const Row *r, const int group, const int times, const int32_t *side) {
    if (group == 32)
        return _mm256_zextsi128_si256(_mm_madd_epi16(
            _mm_mullo_epi16(_mm_cvtepi8_epi16(r->lows), _mm_set1_epi16(times)), half_of(side)));
    return _mm256_madd_epi16(
        _mm256_mullo_epi16(_mm256_cvtepi8_epi16(r->lows), _mm256_set1_epi16(times)), all_of(side));
}

/* Of some spans of eight rows. */
typedef struct {
    __m256i parts[SPANS][ALONE];
    __m128i lows[SPANS][ALONE];
    float d[SPANS][ALONE], m[SPANS][ALONE];
} Spans;

INLINE void alone(void (*row_of)(const uint8_t *block, Row *r), const int bytes, const int group,
                  const int off, const Matrix *m, int64_t begin, int64_t end, const Columns *x,
                  float *y) {
    const int has_m = off == OWN_LOWS;
    const int64_t spans = m->columns / SPAN;
    Spans some;
    for (int64_t row = begin; row < end; row += ALONE) {
        __m256 sums = _mm256_setzero_ps();
        for (int64_t at = 0; at < spans; at += SPANS) {
            const int64_t n = least(spans - at, SPANS);
            for (int r = 0; r < ALONE; r++) {
                const uint8_t *block =
                    (const uint8_t *)m->source + least(row + r, end - 1) * m->stride + at * bytes;
                for (int64_t s = 0; s < n; s++, block += bytes) {
                    const int8_t *q = x->q + (at + s) * SPAN;
                    const int32_t *side = x->side + (at + s) * (SPAN / BLOCK);
                    Row of_row;
                    for (int i = 0; i < bytes; i += 64) /* of the rows after these */
                        __builtin_prefetch(block + ALONE * m->stride + i, 0, 2);
                    row_of(block, &of_row);
                    const __m256i dot = dot_alone(&of_row, off, q);
                    const __m256i lows = lows_alone(&of_row, group, has_m ? 1 : off, side);
                    some.parts[s][r] = off > 0 ? _mm256_sub_epi32(dot, lows) : dot;
                    some.d[s][r] = of_row.d;
                    if (has_m) {
                        some.lows[s][r] = folded(lows);
                        some.m[s][r] = of_row.m;
                    }
                }
            }
            for (int64_t s = 0; s < n; s++) {
                const __m256 of_x = _mm256_set1_ps(x->scales[(at + s) * (SPAN / BLOCK)]);
                sums = _mm256_fmadd_ps(_mm256_cvtepi32_ps(across(some.parts[s])),
                                       _mm256_mul_ps(_mm256_loadu_ps(some.d[s]), of_x), sums);
                if (has_m)
                    sums = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(across_halves(some.lows[s])),
                                            _mm256_mul_ps(_mm256_loadu_ps(some.m[s]), of_x), sums);
            }
        }
        float of_rows[ALONE];
        _mm256_storeu_ps(of_rows, sums);
        memcpy(y + row, of_rows, (size_t)least(end - row, ALONE) * 4);
    }
}

#define ALONE_AS(type, bytes, group, off) \
    static void alone_##type(const Matrix *m, int64_t begin, int64_t end, const Columns *x, \
                             float *y) { \
        alone(row_##type, bytes, group, off, m, begin, end, x, y); \
    }
ALONE_AS(q2_k, 84, 16, OWN_LOWS)
ALONE_AS(q3_k, 110, 16, 4)
ALONE_AS(q4_k, 144, 32, OWN_LOWS)
ALONE_AS(q5_k, 176, 32, OWN_LOWS)
ALONE_AS(q6_k, 210, 16, 32)
ALONE_AS(iq4_xs, 136, 32, OF_EITHER_SIGN)
ALONE_AS(tq1_0, 54, 32, 1)
ALONE_AS(tq2_0, 66, 32, 1)
ALONE_AS(iq3_s, 110, 32, OF_EITHER_SIGN)
ALONE_AS(iq3_xxs, 98, 32, OF_EITHER_SIGN)
ALONE_AS(iq2_s, 82, 16, OF_EITHER_SIGN)
ALONE_AS(iq2_xs, 74, 16, OF_EITHER_SIGN)
ALONE_AS(iq2_xxs, 66, 32, OF_EITHER_SIGN)
ALONE_AS(iq1_s, 50, 32, 16)
#undef ALONE_AS

/* -------------------------------------------------------------------- floats of two bytes each */

INLINE __m256 eight_floats(const int is_brain, const uint8_t *from) {
    const __m128i halves_of_eight = half_of(from);
    if (!is_brain) return _mm256_cvtph_ps(halves_of_eight);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves_of_eight), 16));
}
INLINE float one_float(const int is_brain, const uint8_t *from) {
    return is_brain ? as_float((int32_t)((uint32_t)two_at(from) << 16)) : half_at(from);
}

/* Of eight rows, eight columns: a vector of each column. */
INLINE void turned(__m256 v[8]) {
    __m256 twos[8], fours[8];
    EACH(i, 4) {
        twos[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        twos[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    EACH(i, 2) EACH(j, 2) {
        fours[4 * i + 2 * j] = _mm256_shuffle_ps(twos[4 * i + j], twos[4 * i + 2 + j], 0x44);
        fours[4 * i + 2 * j + 1] = _mm256_shuffle_ps(twos[4 * i + j], twos[4 * i + 2 + j], 0xee);
    }
    EACH(i, 4) {
        v[i] = _mm256_permute2f128_ps(fours[i], fours[4 + i], 0x20);
        v[4 + i] = _mm256_permute2f128_ps(fours[i], fours[4 + i], 0x31);
    }
}

enum {
    EIGHTS = 2,   /* of rows at once, so that one need not wait for another */
    IN_LINE = 32, /* columns that are fetched together */
};

/* Floats are summed in stretches of a span, as they are in tiles. */
INLINE void alone_floats(const int is_brain, const Matrix *m, int64_t begin, int64_t end,
                         const Columns *x, float *y) {
    const float *of_x = x->x[0];
    for (int64_t row = begin; row < end; row += EIGHTS * ALONE) {
        const uint8_t *rows[EIGHTS][ALONE];
        const uint8_t *next = (const uint8_t *)m->source + (row + EIGHTS * ALONE) * m->stride;
        EACH(e, EIGHTS) EACH(r, ALONE)
            rows[e][r] =
                (const uint8_t *)m->source + least(row + ALONE * e + r, end - 1) * m->stride;
        __m256 sums[EIGHTS], parts[EIGHTS];
        EACH(e, EIGHTS) sums[e] = parts[e] = _mm256_setzero_ps();
        int64_t c = 0;
        for (; c + IN_LINE <= m->columns; c += IN_LINE) {
            EACH(i, EIGHTS * ALONE) __builtin_prefetch(next + 64 * i, 0, 2);
            next += EIGHTS * ALONE * 64;
            EACH(e, EIGHTS) EACH(k, IN_LINE / 8) {
                __m256 v[8];
                EACH(r, 8) v[r] = eight_floats(is_brain, rows[e][r] + 2 * (c + 8 * k));
                turned(v);
                EACH(i, 8)
                    parts[e] = _mm256_fmadd_ps(v[i], _mm256_set1_ps(of_x[c + 8 * k + i]), parts[e]);
            }
            if ((c + IN_LINE) % SPAN == 0 || c + IN_LINE == m->columns)
                EACH(e, EIGHTS) {
                    sums[e] = _mm256_add_ps(sums[e], parts[e]);
                    parts[e] = _mm256_setzero_ps();
                }
        }
        if (c < m->columns)
            EACH(e, EIGHTS) {
                for (int64_t i = c; i < m->columns; i++) {
                    float v[ALONE];
                    for (int r = 0; r < ALONE; r++) v[r] = one_float(is_brain, rows[e][r] + 2 * i);
                    parts[e] =
                        _mm256_fmadd_ps(_mm256_loadu_ps(v), _mm256_set1_ps(of_x[i]), parts[e]);
                }
                sums[e] = _mm256_add_ps(sums[e], parts[e]);
            }
        float of_rows[EIGHTS * ALONE];
        EACH(e, EIGHTS) _mm256_storeu_ps(of_rows + e * ALONE, sums[e]);
        memcpy(y + row, of_rows, (size_t)least(end - row, EIGHTS * ALONE) * 4);
    }
}
static void alone_f16(const Matrix *m, int64_t begin, int64_t end, const Columns *x, float *y) {
    alone_floats(0, m, begin, end, x, y);
}
static void alone_bf16(const Matrix *m, int64_t begin, int64_t end, const Columns *x, float *y) {
    alone_floats(1, m, begin, end, x, y);
}
