/* A single column times rows of Q4_K, Q5_K and Q6_K as they lie, for x86; part of _products.c. To
   unpack a tile of them takes longer than to multiply it. So the integers of a span are summed to a
   vector for each row. Those of eight rows are then added up across lanes: from there on a lane
   belongs to a row, and floats are added as in a tile. */

enum { ALONE = 8 /* rows */, SPANS = 64 /* at once */ };

/* Of some spans of eight rows: sums of products, those of what is taken off, scales of both. */
typedef struct {
    __m256i parts[SPANS][ALONE];
    __m128i lows[SPANS][ALONE];
    uint16_t d[SPANS][ALONE], m[SPANS][ALONE];
} Spans;

INLINE __m256i all_of(const void *from) { return _mm256_loadu_si256(from); }

/* The weights of a span times activations, which are summed in `side`, too. */
INLINE __m256i dot_q6_k(const uint8_t *block, const int8_t *q, const int32_t *side) {
    const __m128i scales = _mm_loadu_si128((const void *)(block + 192));
    /* As halves: those of even groups, and of odd ones, which are the upper lane of 32 weights. */
    const __m256i apart = _mm256_cvtepi8_epi16(_mm_shuffle_epi8(
        scales, _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15)));
    const __m256i low = _mm256_set1_epi8(15), high = _mm256_set1_epi8(48);
    const __m256i of_x = _mm256_madd_epi16(_mm256_cvtepi8_epi16(scales), all_of(side));
    __m256i sums = _mm256_sub_epi32(_mm256_setzero_si256(), _mm256_slli_epi32(of_x, 5));
    EACH(half, 2) {
        const __m256i twos = all_of(block + 128 + 32 * half);
        EACH(i, 4) { /* 32 weights */
            const __m256i fours = all_of(block + 64 * half + i % 2 * 32);
            const __m256i w = _mm256_or_si256(
                _mm256_and_si256(i < 2 ? fours : _mm256_srli_epi16(fours, 4), low),
                _mm256_and_si256(i < 2 ? _mm256_slli_epi16(twos, 4 - 2 * i)
                                       : _mm256_srli_epi16(twos, 2 * i - 4), high));
            const __m256i products = _mm256_maddubs_epi16(w, all_of(q + 128 * half + 32 * i));
            const int byte = 8 * half + 2 * i;
            const __m256i scale = _mm256_shuffle_epi8(
                apart, _mm256_set1_epi16((short)((byte + 1) << 8 | byte)));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(products, scale));
        }
    }
    return sums;
}

/* Of eight vectors, the sums across their lanes. */
INLINE __m256i across(const __m256i *v) {
    __m256i fours[2];
    EACH(i, 2)
        fours[i] = _mm256_hadd_epi32(_mm256_hadd_epi32(v[4 * i], v[4 * i + 1]),
                                     _mm256_hadd_epi32(v[4 * i + 2], v[4 * i + 3]));
    return _mm256_add_epi32(_mm256_permute2x128_si256(fours[0], fours[1], 0x20),
                            _mm256_permute2x128_si256(fours[0], fours[1], 0x31));
}

/* The same for Q4_K and, with a fifth bit, Q5_K; what is taken off goes into `lows`. */
INLINE __m256i dot_k(const int fifth, const uint8_t *block, const int8_t *q, const int32_t *side,
                     __m128i *lows) {
    uint64_t first, second;
    uint32_t nibbles;
    memcpy(&first, block + 4, 8); /* four scales, four minima; above them, bits of four more */
    memcpy(&nibbles, block + 12, 4);
    second = (first >> 2 & 0x3030303030303030u) | (nibbles & 0x0f0f0f0fu) |
             (uint64_t)(nibbles >> 4 & 0x0f0f0f0fu) << 32;
    first &= 0x3f3f3f3f3f3f3f3fu;
    const __m256i both =
        _mm256_cvtepu8_epi16(_mm_set_epi64x((long long)second, (long long)first));
    const __m256i scales = _mm256_permute4x64_epi64(both, 0x88); /* in both lanes */
    *lows = _mm_madd_epi16(_mm256_castsi256_si128(_mm256_permute4x64_epi64(both, 0xdd)),
                           _mm_loadu_si128((const void *)side));
    const __m256i low = _mm256_set1_epi8(15), bit = _mm256_set1_epi8(16);
    const __m256i fifths = fifth ? all_of(block + 16) : low;
    __m256i sums = _mm256_setzero_si256();
    EACH(p, 4) { /* 64 weights */
        const __m256i some = all_of(block + (fifth ? 48 : 16) + 32 * p);
        EACH(i, 2) {
            const int g = 2 * p + i;
            __m256i w = _mm256_and_si256(i ? _mm256_srli_epi16(some, 4) : some, low);
            if (fifth)
                w = _mm256_or_si256(w, _mm256_and_si256(g < 4 ? _mm256_slli_epi16(fifths, 4 - g)
                                                              : _mm256_srli_epi16(fifths, g - 4),
                                                        bit));
            const __m256i products = _mm256_maddubs_epi16(w, all_of(q + 32 * g));
            const __m256i scale = _mm256_shuffle_epi8(
                scales, _mm256_set1_epi16((short)((2 * g + 1) << 8 | 2 * g)));
            sums = _mm256_add_epi32(sums, _mm256_madd_epi16(products, scale));
        }
    }
    return sums;
}

/* The same of four lanes, of which each vector has two, four rows apart. */
INLINE __m256i across_lows(const __m128i *v) {
    __m256i twos[4];
    EACH(i, 4) twos[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(v[i]), v[i + 4], 1);
    return _mm256_hadd_epi32(_mm256_hadd_epi32(twos[0], twos[1]),
                             _mm256_hadd_epi32(twos[2], twos[3]));
}

INLINE __m256 halves_times(const uint16_t *from, __m256 x) {
    return _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128((const void *)from)), x);
}

/* With so many bits for each weight. */
INLINE void alone_k(const int bits, const Matrix *m, int64_t begin, int64_t end, const Columns *x,
                    float *y) {
    const int bytes = bits == 4 ? 144 : bits == 5 ? 176 : 210; /* of a span */
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
                    for (int i = 0; i < bytes; i += 64) /* of the rows after these */
                        __builtin_prefetch(block + ALONE * m->stride + i, 0, 2);
                    some.parts[s][r] = bits == 6 ? dot_q6_k(block, q, side)
                                                 : dot_k(bits == 5, block, q, side,
                                                         &some.lows[s][r]);
                    memcpy(&some.d[s][r], block + (bits == 6 ? 208 : 0), 2);
                    if (bits != 6) memcpy(&some.m[s][r], block + 2, 2);
                }
            }
            for (int64_t s = 0; s < n; s++) {
                const __m256 of_x = _mm256_set1_ps(x->scales[(at + s) * (SPAN / BLOCK)]);
                sums = _mm256_fmadd_ps(_mm256_cvtepi32_ps(across(some.parts[s])),
                                       halves_times(some.d[s], of_x), sums);
                if (bits != 6)
                    sums = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(across_lows(some.lows[s])),
                                            halves_times(some.m[s], of_x), sums);
            }
        }
        float of_rows[ALONE];
        _mm256_storeu_ps(of_rows, sums);
        memcpy(y + row, of_rows, (size_t)least(end - row, ALONE) * 4);
    }
}

static void alone_q4_k(const Matrix *m, int64_t begin, int64_t end, const Columns *x, float *y) {
    alone_k(4, m, begin, end, x, y);
}
static void alone_q5_k(const Matrix *m, int64_t begin, int64_t end, const Columns *x, float *y) {
    alone_k(5, m, begin, end, x, y);
}
static void alone_q6_k(const Matrix *m, int64_t begin, int64_t end, const Columns *x, float *y) {
    alone_k(6, m, begin, end, x, y);
}
