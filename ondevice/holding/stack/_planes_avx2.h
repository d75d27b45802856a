/* With AVX2. An expanded weight is its U times its nibble; the activations of a word are rounded to
   8 bits and share a scale. Each word has a lane for its sums, so that integers are added up over a
   whole span.

   One column, as in decoding, is multiplied with codes that never leave the registers. More columns
   are multiplied with expanded rows. Both come to the same integers. */

#include <immintrin.h>

enum {
    BYTE = 8,
    X_MOST = 127,
    X_SCALES = 8, /* of a span: one for each word */
    PAIR = 2      /* columns of a tile for whose sums there are registers */
};
#define ONE_COLUMN 1 /* is a case of its own */

/* U of the code 0 with so many planes, and 128. */
#define MIDDLE(level) (1 << (PLANES - (level)))

/* Where number i of a span lies: its bit within a byte gives a pair of registers, the byte, which
   is even or odd, one of them and the lane. */
static int place(int i) { return (i % 8 * 2 + i % 16 / 8) * 16 + i / 16; }

/* A third of the transposition of 8 rows of bits: of two rows that are `by` apart, the upper `by`
   of each 2 * by bits of the one and the lower ones of the other change places. Which rows are zero
   is known when this is compiled. */
INLINE void exchange(__m256i *rows, int *zero, const int by) {
    const __m256i mask = _mm256_set1_epi8(by == 1 ? 0x55 : by == 2 ? 0x33 : 0x0f);
    UNROLLED for (int r = 0; r < BYTE; r++) {
        if (r & by || (zero[r] && zero[r + by])) continue;
        const __m256i low = rows[r], high = rows[r + by];
        if (zero[r]) {
            rows[r] = _mm256_slli_epi16(_mm256_and_si256(high, mask), by);
            rows[r + by] = _mm256_andnot_si256(mask, high);
        } else if (zero[r + by]) {
            rows[r] = _mm256_and_si256(low, mask);
            rows[r + by] = _mm256_and_si256(_mm256_srli_epi16(low, by), mask);
        } else {
            const __m256i changed =
                _mm256_and_si256(_mm256_xor_si256(_mm256_srli_epi16(low, by), high), mask);
            rows[r + by] = _mm256_xor_si256(high, changed);
            rows[r] = _mm256_xor_si256(low, _mm256_slli_epi16(changed, by));
        }
        zero[r] = zero[r + by] = 0;
    }
}

/* The codes of a span, moved up as if they had all planes: that of weight 8 * b + k is byte b of
   rows[k], as it is bit k of byte b of each plane. A span that is not whole has so many words; what
   is beyond is not touched. */
INLINE void codes_of(const int level, const uint8_t *const *planes, int64_t span, const int whole,
                     int words, __m256i *rows) {
    const __m256i some = _mm256_cmpgt_epi32(_mm256_set1_epi32(words),
                                            _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    int zero[BYTE];
    UNROLLED for (int r = 0; r < BYTE; r++) {
        const int p = PLANES - 1 - r;
        zero[r] = p < 0 || p >= level;
        if (zero[r]) rows[r] = _mm256_setzero_si256();
        else if (whole) rows[r] = _mm256_loadu_si256((const void *)(planes[p] + span * WORD));
        else rows[r] = _mm256_maskload_epi32((const void *)(planes[p] + span * WORD), some);
    }
    exchange(rows, zero, 1);
    exchange(rows, zero, 2);
    exchange(rows, zero, 4);
}

/* The nibble of each group of a span, in 16 bits; of groups that are not there, zero. */
INLINE __m256i nibbles_of(const uint8_t *all, int64_t span, const int whole, int words) {
    uint64_t packed = 0;
    if (whole) memcpy(&packed, all + span * BYTE, BYTE);
    else for (int i = 0; i < words; i++) packed |= (uint64_t)all[span * BYTE + i] << 8 * i;
    const __m128i bytes = _mm_cvtsi64_si128((long long)packed), low = _mm_set1_epi8(15);
    return _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(
        _mm_and_si128(bytes, low), _mm_and_si128(_mm_srli_epi16(bytes, 4), low)));
}

INLINE void expand_span(const int level, const Row *row, int64_t span, const int whole, int words,
                        int16_t *out) {
    __m256i rows[BYTE], *to = (__m256i *)(out + span * SPAN);
    codes_of(level, row->planes, span, whole, words, rows);
    const __m256i factors = nibbles_of(row->nibbles, span, whole, words);
    UNROLLED for (int k = 0; k < BYTE; k++) {
        const __m256i u = _mm256_add_epi8(_mm256_add_epi8(rows[k], rows[k]),
                                          _mm256_set1_epi8((char)(MIDDLE(level) - CODES)));
        const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(u, 8), 8);
        to[2 * k] = _mm256_mullo_epi16(even, factors);
        to[2 * k + 1] = _mm256_mullo_epi16(_mm256_srai_epi16(u, 8), factors);
    }
}

/* One row, padded to whole spans; what pads it has a nibble of zero. */
INLINE void expand_level(const int level, const Row *row, int64_t columns, int16_t *out) {
    const int64_t whole = columns / SPAN;
    for (int64_t s = 0; s < whole; s++) expand_span(level, row, s, 1, BYTE, out);
    if (columns % SPAN) expand_span(level, row, whole, 0, columns % SPAN / WORD, out);
}

/* To the sums of a row times a column, one for each lane, adds a span. `x` has the activations as
   bytes, and behind them the sum of each group. */
INLINE __m256 multiply_span(const int level, const Row *row, int64_t span, const int whole,
                            int words, const int16_t *x, const float *x_scales, __m256 sums) {
    const __m256i *of_x = (const __m256i *)(x + span * SPAN);
    __m256i rows[BYTE], parts = _mm256_setzero_si256();
    codes_of(level, row->planes, span, whole, words, rows);
    const __m256i factors = nibbles_of(row->nibbles, span, whole, words);
    UNROLLED for (int k = 0; k < BYTE; k++)
        parts = _mm256_add_epi32(
            parts, _mm256_madd_epi16(_mm256_maddubs_epi16(rows[k], of_x[k]), factors));
    /* U is twice the code, and MIDDLE - 128. */
    const __m256i of_groups = _mm256_madd_epi16(of_x[BYTE], factors);
    parts = _mm256_sub_epi32(
        _mm256_add_epi32(_mm256_slli_epi32(parts, 1), _mm256_slli_epi32(of_groups, PLANES - level)),
        _mm256_slli_epi32(of_groups, PLANES));
    const __m256 scales = _mm256_mul_ps(_mm256_set1_ps(scale_of(row->scales[span])),
                                        _mm256_load_ps(x_scales + span * X_SCALES));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(parts), scales, sums);
}

/* One row times one column. */
INLINE __m256 multiply_row(const int level, const Row *row, int64_t columns, const int16_t *x,
                           const float *x_scales) {
    const int64_t whole = columns / SPAN;
    __m256 sums = _mm256_setzero_ps();
    for (int64_t s = 0; s < whole; s++)
        sums = multiply_span(level, row, s, 1, BYTE, x, x_scales, sums);
    if (columns % SPAN)
        sums = multiply_span(level, row, whole, 0, columns % SPAN / WORD, x, x_scales, sums);
    return sums;
}

/* The sums of the lanes of each row. */
static __m128 summed(const __m256 *rows) {
    const __m256 four = _mm256_hadd_ps(_mm256_hadd_ps(rows[0], rows[1]),
                                       _mm256_hadd_ps(rows[2], rows[3]));
    return _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps(four, 1));
}

/* Rows of one chunk times one column. */
INLINE void multiply_column(const int level, Row row, int64_t n_rows, int64_t columns,
                            const int16_t *x, const float *x_scales, float *y) {
    for (int64_t first = 0; first < n_rows; first += ROWS) {
        const int64_t some = least(n_rows - first, ROWS);
        __m256 sums[ROWS] = {0};
        float of_rows[ROWS];
        for (int r = 0; r < some; r++) {
            sums[r] = multiply_row(level, &row, columns, x, x_scales);
            for (int p = 0; p < level; p++) row.planes[p] += columns / BYTE;
            row.nibbles += columns / WORD;
            row.scales += spans_of(columns);
        }
        _mm_storeu_ps(of_rows, summed(sums));
        memcpy(y + first, of_rows, (size_t)some * sizeof *y);
    }
}

/* A span of activations, of which there are n, as integers, and the scales of its words. They are
   as multiply_span or, if there are more columns than one, as multiply_tile wants them. */
static void round_span(const float *x, int n, int alone, int16_t *out, float *scales) {
    int8_t rounded[SPAN] = {0};
    for (int w = 0; w < SPAN / WORD; w++) {
        const int some = n - w * WORD < WORD ? n - w * WORD : WORD;
        const float most = some > 0 ? largest_of(x + w * WORD, some) : 0;
        const float inverse = most > 0 ? X_MOST / most : 0;
        for (int i = 0; i < some; i++)
            rounded[w * WORD + i] = (int8_t)rintf(x[w * WORD + i] * inverse);
        scales[w] = most / X_MOST;
    }
    int8_t bytes[SPAN];
    const __m128i by_bit = _mm_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15);
    for (int i = 0; i < SPAN / WORD / 2; i++) { /* 8 bytes of 8 bits are transposed */
        __m128i pairs[4], fours[4];
        for (int j = 0; j < 4; j++)
            pairs[j] = _mm_shuffle_epi8(
                _mm_loadu_si128((const void *)(rounded + (4 * i + j) * 16)), by_bit);
        for (int j = 0; j < 2; j++) {
            fours[j] = _mm_unpacklo_epi16(pairs[2 * j], pairs[2 * j + 1]);
            fours[2 + j] = _mm_unpackhi_epi16(pairs[2 * j], pairs[2 * j + 1]);
        }
        for (int j = 0; j < 2; j++) {
            const __m128i first = _mm_unpacklo_epi32(fours[2 * j], fours[2 * j + 1]),
                          second = _mm_unpackhi_epi32(fours[2 * j], fours[2 * j + 1]);
            int8_t *to = bytes + 4 * j * WORD + i * 8;
            _mm_storel_epi64((void *)to, first);
            _mm_storel_epi64((void *)(to + WORD), _mm_srli_si128(first, 8));
            _mm_storel_epi64((void *)(to + 2 * WORD), second);
            _mm_storel_epi64((void *)(to + 3 * WORD), _mm_srli_si128(second, 8));
        }
    }
    if (alone) {
        memcpy(out, bytes, sizeof bytes);
        for (int g = 0; g < SPAN / GROUP; g++) {
            int sum = 0;
            for (int i = 0; i < GROUP; i++) sum += rounded[g * GROUP + i];
            out[SPAN / 2 + g] = (int16_t)sum;
        }
        return;
    }
    for (int k = 0; k < BYTE; k++) {
        const __m256i both = _mm256_loadu_si256((const void *)(bytes + k * WORD));
        __m256i *to = (__m256i *)out + 2 * k;
        to[0] = _mm256_srai_epi16(_mm256_slli_epi16(both, 8), 8);
        to[1] = _mm256_srai_epi16(both, 8);
    }
}

/* ROWS rows times n columns of a tile, at most PAIR. */
INLINE void multiply_pair(const int n, int64_t spans, const int16_t *w, const float *w_scales,
                          const int16_t *x, const float *x_scales, float *const *y, int64_t at,
                          int n_rows) {
    __m256 sums[PAIR][ROWS];
    UNROLLED for (int c = 0; c < n; c++)
        UNROLLED for (int r = 0; r < ROWS; r++) sums[c][r] = _mm256_setzero_ps();
    for (int64_t s = 0; s < spans; s++) {
        const int16_t *a = w + s * SPAN, *b = x + s * SPAN;
        __m256i parts[PAIR][ROWS];
        UNROLLED for (int c = 0; c < n; c++)
            UNROLLED for (int r = 0; r < ROWS; r++) parts[c][r] = _mm256_setzero_si256();
        __asm__ volatile("" : : "r"(sums) : "memory"); /* leaves the registers to the parts */
        for (int i = 0; i < SPAN; i += GROUP) {
            __m256i of_x[PAIR];
            UNROLLED for (int c = 0; c < n; c++)
                of_x[c] = _mm256_load_si256((const void *)(b + c * spans * SPAN + i));
            UNROLLED for (int r = 0; r < ROWS; r++) {
                const __m256i of_w = _mm256_load_si256((const void *)(a + r * spans * SPAN + i));
                UNROLLED for (int c = 0; c < n; c++)
                    parts[c][r] =
                        _mm256_add_epi32(parts[c][r], _mm256_madd_epi16(of_w, of_x[c]));
            }
        }
        UNROLLED for (int r = 0; r < ROWS; r++)
            UNROLLED for (int c = 0; c < n; c++) {
                const __m256 scale =
                    _mm256_mul_ps(_mm256_set1_ps(w_scales[r * spans + s]),
                                  _mm256_load_ps(x_scales + (c * spans + s) * X_SCALES));
                sums[c][r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(parts[c][r]), scale, sums[c][r]);
            }
    }
    UNROLLED for (int c = 0; c < n; c++) {
        float of_rows[ROWS];
        _mm_storeu_ps(of_rows, summed(sums[c]));
        memcpy(y[c] + at, of_rows, (size_t)n_rows * sizeof *of_rows);
    }
}

/* ROWS rows times n columns, which is known when this is compiled; each column of the result starts
   where y says. */
INLINE void multiply_tile(const int n, int64_t spans, const int16_t *w, const float *w_scales,
                          const int16_t *x, const float *x_scales, float *const *y, int64_t at,
                          int n_rows) {
    for (int c = 0; c < n; c += PAIR) {
        const int16_t *of_x = x + c * spans * SPAN;
        const float *of_scales = x_scales + c * spans * X_SCALES;
        if (c + 1 < n) multiply_pair(PAIR, spans, w, w_scales, of_x, of_scales, y + c, at, n_rows);
        else multiply_pair(1, spans, w, w_scales, of_x, of_scales, y + c, at, n_rows);
    }
}
