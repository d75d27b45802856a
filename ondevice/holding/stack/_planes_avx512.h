/* With AVX-512 and its instructions for bits. An expanded weight is its U times its nibble; the
   activations of a span share a scale. */

#include <immintrin.h>

enum { X_MOST = 4095, X_SCALES = 1 };

/* Where number i of a span lies: even ones first, as they come out of bytes. */
static int place(int i) { return i / 64 * 64 + i % 2 * 32 + i % 64 / 2; }

static int16_t values[PLANES + 1][CODES]; /* U for each code of each level */

#define FILL_TABLES fill_tables()
static void fill_tables(void) {
    for (int level = 1; level <= PLANES; level++)
        for (int code = 0; code < 1 << level; code++)
            values[level][code] = (int16_t)moved(code, level);
}

INLINE __m512i looked_up(const int level, const __m512i *table, __m512i codes) {
    if (level < 6) return _mm512_permutexvar_epi16(codes, table[0]);
    const __m512i low = _mm512_permutex2var_epi16(table[0], codes, table[1]);
    if (level == 6) return low;
    const __mmask32 upper = _mm512_test_epi16_mask(codes, _mm512_set1_epi16(64));
    const __m512i high = _mm512_permutex2var_epi16(table[2], codes, table[3]);
    return _mm512_mask_mov_epi16(low, upper, high);
}

/* One row, padded with zeros to whole spans. */
INLINE void expand_level(const int level, const Row *row, int64_t columns, int16_t *out) {
    const uint8_t *const *planes = row->planes, *nibbles = row->nibbles;
    const int64_t words = columns / WORD;
    /* Eight bytes of each plane become, transposed, the codes of 64 weights. */
    uint64_t order[8];
    for (int lane = 0; lane < 8; lane++) {
        order[lane] = 0x3f3f3f3f3f3f3f3f; /* a byte that is zero */
        for (int p = 0, at = 8 * (8 - level); p < level; p++, at += 8)
            order[lane] += ((uint64_t)(8 * p + lane) - 0x3f) << at;
    }
    const __m512i lanes = _mm512_loadu_si512(order),
                  ones = _mm512_set1_epi64((long long)0x8040201008040201u);
    __m512i table[CODES / 32];
    for (int i = 0; i < CODES / 32; i++) table[i] = _mm512_loadu_si512(values[level] + 32 * i);
    const __m512i quarter = _mm512_set_epi64(0x3000300030003, 0x3000300030003, 0x2000200020002,
                                             0x2000200020002, 0x1000100010001, 0x1000100010001,
                                             0, 0);
    for (int64_t first = 0; first < words; first += SPAN / WORD) {
        const int n = (int)least(words - first, SPAN / WORD);
        for (int p = 0; p < level; p++) __builtin_prefetch(planes[p] + first * 4 + AHEAD);
        __builtin_prefetch(nibbles + first + AHEAD / 4);
        uint64_t packed = 0;
        if (n == SPAN / WORD) memcpy(&packed, nibbles + first, 8);
        else for (int i = 0; i < n; i++) packed |= (uint64_t)nibbles[first + i] << 8 * i;
        const __m128i bytes = _mm_set1_epi64x((long long)packed), low = _mm_set1_epi8(15);
        const __m128i apart = _mm_unpacklo_epi8(
            _mm_and_si128(bytes, low), _mm_and_si128(_mm_srli_epi16(bytes, 4), low));
        const __m512i all = _mm512_castsi256_si512(_mm256_cvtepu8_epi16(apart));
        for (int i = 0; i < n; i += 2) {
            __m512i bits = _mm512_setzero_si512();
            UNROLLED for (int p = 0; p < level; p++) {
                uint64_t of_plane = 0;
                const uint8_t *from = planes[p] + (first + i) * 4;
                if (i + 1 < n) memcpy(&of_plane, from, 8);
                else memcpy(&of_plane, from, 4);
                bits = _mm512_mask_set1_epi64(bits, (__mmask8)(1 << p), (long long)of_plane);
            }
            const __m512i codes =
                _mm512_gf2p8affine_epi64_epi8(ones, _mm512_permutexvar_epi8(lanes, bits), 0);
            const __m512i nibble = _mm512_permutexvar_epi16(
                _mm512_add_epi16(quarter, _mm512_set1_epi16((short)(2 * i))), all);
            const __m512i even = _mm512_and_si512(codes, _mm512_set1_epi16(CODES - 1)),
                          odd = _mm512_srli_epi16(codes, 8);
            int16_t *to = out + (first + i) * WORD;
            _mm512_storeu_si512(
                to, _mm512_mullo_epi16(looked_up(level, table, even), nibble));
            _mm512_storeu_si512(
                to + 32, _mm512_mullo_epi16(looked_up(level, table, odd), nibble));
        }
    }
    const int64_t filled = (words + words % 2) * WORD;
    memset(out + filled, 0, (size_t)(padded(columns) - filled) * sizeof *out);
}

/* 64 activations, of which there are n, as integers. */
static void round_word(const float *x, int n, float inverse, int16_t *out) {
    __m256i quarters[4];
    for (int q = 0; q < 4; q++) {
        const int left = n - 16 * q;
        const __mmask16 these = left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1 << left) - 1) : 0;
        const __m512 exact = _mm512_mul_ps(_mm512_maskz_loadu_ps(these, x + 16 * q),
                                           _mm512_set1_ps(inverse));
        quarters[q] = _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(exact));
    }
    const __m512i first = _mm512_inserti64x4(_mm512_castsi256_si512(quarters[0]), quarters[1], 1),
                  second = _mm512_inserti64x4(_mm512_castsi256_si512(quarters[2]), quarters[3], 1);
    int16_t order[WORD];
    for (int i = 0; i < WORD; i++) order[i] = (int16_t)(2 * i);
    const __m512i even = _mm512_loadu_si512(order),
                  odd = _mm512_add_epi16(even, _mm512_set1_epi16(1));
    _mm512_storeu_si512(out, _mm512_permutex2var_epi16(first, even, second));
    _mm512_storeu_si512(out + 32, _mm512_permutex2var_epi16(first, odd, second));
}

/* A span of activations, of which there are n, as integers, and their scale. */
static void round_span(const float *x, int n, int alone, int16_t *out, float *scale) {
    (void)alone;
    const float most = largest_of(x, n), inverse = most > 0 ? X_MOST / most : 0;
    for (int i = 0; i < SPAN; i += 64) round_word(x + i, n - i, inverse, out + i);
    *scale = most / X_MOST;
}

/* ROWS rows times n columns, which is known when this is compiled; each column of the result starts
   where y says. */
INLINE void multiply_tile(const int n, int64_t spans, const int16_t *w, const float *w_scales,
                          const int16_t *x, const float *x_scales, float *const *y, int64_t at,
                          int n_rows) {
    __m512 sums[COLUMNS][ROWS];
    UNROLLED for (int c = 0; c < n; c++)
        UNROLLED for (int r = 0; r < ROWS; r++) sums[c][r] = _mm512_setzero_ps();
    for (int64_t s = 0; s < spans; s++) {
        __m512i part[COLUMNS][ROWS];
        UNROLLED for (int c = 0; c < n; c++)
            UNROLLED for (int r = 0; r < ROWS; r++) part[c][r] = _mm512_setzero_si512();
        __asm__ volatile("" : : "r"(sums) : "memory"); /* leaves the registers to the parts */
        for (int i = 0; i < SPAN; i += WORD) {
            __m512i a[ROWS];
            UNROLLED for (int r = 0; r < ROWS; r++)
                a[r] = _mm512_loadu_si512(w + (r * spans + s) * SPAN + i);
            UNROLLED for (int c = 0; c < n; c++) {
                const __m512i b = _mm512_loadu_si512(x + (c * spans + s) * SPAN + i);
                UNROLLED for (int r = 0; r < ROWS; r++)
                    part[c][r] = _mm512_dpwssd_epi32(part[c][r], a[r], b);
            }
        }
        UNROLLED for (int r = 0; r < ROWS; r++) {
            const __m512 of_row = _mm512_set1_ps(w_scales[r * spans + s]);
            UNROLLED for (int c = 0; c < n; c++) {
                const __m512 scale =
                    _mm512_mul_ps(of_row, _mm512_set1_ps(x_scales[c * spans + s]));
                sums[c][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(part[c][r]), scale, sums[c][r]);
            }
        }
    }
    UNROLLED for (int c = 0; c < n; c++) {
        const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(sums[c][0], sums[c][1]),
                                        _mm512_unpackhi_ps(sums[c][0], sums[c][1])),
                     cd = _mm512_add_ps(_mm512_unpacklo_ps(sums[c][2], sums[c][3]),
                                        _mm512_unpackhi_ps(sums[c][2], sums[c][3]));
        const __m512d abd = _mm512_castps_pd(ab), cdd = _mm512_castps_pd(cd);
        const __m512 four = _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(abd, cdd)),
                                          _mm512_castpd_ps(_mm512_unpackhi_pd(abd, cdd)));
        const __m256 two = _mm256_add_ps(_mm512_castps512_ps256(four),
                                         _mm512_extractf32x8_ps(four, 1));
        const __m128 one =
            _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1));
        _mm_mask_storeu_ps(y[c] + at, (__mmask8)((1 << n_rows) - 1), one);
    }
}
