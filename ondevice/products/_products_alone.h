/* A single column times rows of Q6_K as they lie, for x86; part of _products.c. To unpack a tile of
   them takes longer than to multiply it. So the integers of a span are summed to a vector for each
   row. Those of eight rows are then added up across lanes: from there on a lane belongs to a row,
   and floats are added as in a tile. */

enum { ALONE = 8 /* rows */, Q6_K = 210 /* bytes of a span */, SPANS = 64 /* at once */ };

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

static void alone_q6_k(const Matrix *m, int64_t begin, int64_t end, const Columns *x, float *y) {
    const int64_t spans = m->columns / SPAN;
    __m256i parts[SPANS][ALONE];
    uint16_t scales[SPANS][ALONE];
    for (int64_t row = begin; row < end; row += ALONE) {
        __m256 sums = _mm256_setzero_ps();
        for (int64_t at = 0; at < spans; at += SPANS) {
            const int64_t n = least(spans - at, SPANS);
            for (int r = 0; r < ALONE; r++) {
                const uint8_t *block =
                    (const uint8_t *)m->source + least(row + r, end - 1) * m->stride + at * Q6_K;
                for (int64_t s = 0; s < n; s++, block += Q6_K) {
                    for (int i = 0; i < Q6_K; i += 64) /* of the rows after these */
                        __builtin_prefetch(block + ALONE * m->stride + i, 0, 2);
                    parts[s][r] = dot_q6_k(block, x->q + (at + s) * SPAN,
                                           x->side + (at + s) * (SPAN / BLOCK));
                    memcpy(&scales[s][r], block + 208, 2);
                }
            }
            for (int64_t s = 0; s < n; s++) {
                const __m256 d = _mm256_mul_ps(
                    _mm256_cvtph_ps(_mm_loadu_si128((const void *)scales[s])),
                    _mm256_set1_ps(x->scales[(at + s) * (SPAN / BLOCK)]));
                sums = _mm256_fmadd_ps(_mm256_cvtepi32_ps(across(parts[s])), d, sums);
            }
        }
        float some[ALONE];
        _mm256_storeu_ps(some, sums);
        memcpy(y + row, some, (size_t)least(end - row, ALONE) * 4);
    }
}
