/* Vectors of AVX-512, whose products of bytes are summed in 32 bits (VNNI). */

#include "_products_x86.h"

#define WIDE_VECTORS

enum { LANES = 16, VECTORS = 2, UNSIGNED_BYTES = 1, PAIRED = 0 };
typedef uint32_t Words __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef float Floats __attribute__((vector_size(64)));

INLINE Ints ints(int32_t x) { return (Ints)_mm512_set1_epi32(x); }
INLINE Floats floats(float x) { return (Floats)_mm512_set1_ps(x); }
INLINE Floats to_floats(Ints x) { return (Floats)_mm512_cvtepi32_ps((__m512i)x); }
INLINE Floats fused(Floats a, Floats b, Floats c) {
    return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
}
INLINE Ints scale_of(Words x, const int byte) { return (Ints)(x << (24 - 8 * byte)) >> 24; }
INLINE Ints pair_of(Words x, const int byte, const int up) {
    const Ints first = scale_of(x, byte) << up, second = scale_of(x, byte + 1) << up;
    return (first & 0xffff) | second << 16;
}
INLINE Ints pairs(Ints sums, Ints a, Ints b) {
    return (Ints)_mm512_dpwssd_epi32((__m512i)sums, (__m512i)a, (__m512i)b);
}
INLINE Floats halves(Words x) {
    return (Floats)_mm512_cvtph_ps(_mm512_cvtepi32_epi16((__m512i)x));
}

INLINE Ints byte_pairs(Words w, Words x) {
    return (Ints)_mm512_maddubs_epi16((__m512i)w, (__m512i)x);
}
INLINE Words from_rows(const uint8_t *from, int64_t stride, int n) {
    return (Words)_mm512_inserti64x4(_mm512_castsi256_si512(some_words(from, n)),
                                     some_words(from + stride, n), 1);
}
INLINE Words for_rows(const void *from) {
    return (Words)_mm512_broadcast_i64x4(_mm256_loadu_si256(from));
}
INLINE Words nibbles_of(const uint8_t *from, int64_t stride, int n) {
    const __m128i bytes = _mm_set_epi64x((long long)some_bytes(from + stride, n),
                                         (long long)some_bytes(from, n));
    const __m128i mask = _mm_set1_epi8(15), low = _mm_and_si128(bytes, mask),
                  high = _mm_and_si128(_mm_srli_epi16(bytes, 4), mask);
    return (Words)_mm512_cvtepu8_epi16(
        _mm256_set_m128i(_mm_unpackhi_epi8(low, high), _mm_unpacklo_epi8(low, high)));
}

INLINE Words looked_up(Words x, const int8_t *table) {
    const __m512i all = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)table));
    return (Words)_mm512_shuffle_epi8(all, (__m512i)x);
}
INLINE Words gathered(const uint32_t *codebook, Words numbers) {
    return (Words)_mm512_i32gather_epi32((__m512i)numbers, codebook, 4);
}
INLINE void gathered_pairs(const uint32_t *codebook, Words numbers, Words *out) {
    const __m512i all = (__m512i)numbers, even = _mm512_setr_epi32(
        0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i a = _mm512_i32gather_epi64(_mm512_castsi512_si256(all), codebook, 8),
                  b = _mm512_i32gather_epi64(_mm512_extracti64x4_epi64(all, 1), codebook, 8);
    out[0] = (Words)_mm512_permutex2var_epi32(a, even, b);
    out[1] = (Words)_mm512_permutex2var_epi32(a, _mm512_or_si512(even, _mm512_set1_epi32(1)), b);
}
INLINE Words spread(Words x, const int byte) {
    const __m512i order = _mm512_add_epi8(
        _mm512_broadcast_i32x4(_mm_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c)),
        _mm512_set1_epi8((char)byte));
    const __m512i bits = _mm512_and_si512(_mm512_shuffle_epi8((__m512i)x, order),
                                          _mm512_set1_epi32((int)0x80402010u));
    return (Words)_mm512_min_epu8(bits, _mm512_set1_epi8(16));
}

INLINE void quads(const uint8_t *const *rows, int64_t at, Words *out) {
    __m512i t[4];
    UNROLLED for (int k = 0; k < 4; k++) {
        t[k] = _mm512_castsi128_si512(_mm_loadu_si128((const void *)(rows[k] + at)));
        t[k] = _mm512_inserti32x4(t[k], _mm_loadu_si128((const void *)(rows[k + 4] + at)), 1);
        t[k] = _mm512_inserti32x4(t[k], _mm_loadu_si128((const void *)(rows[k + 8] + at)), 2);
        t[k] = _mm512_inserti32x4(t[k], _mm_loadu_si128((const void *)(rows[k + 12] + at)), 3);
    }
    const __m512i a = _mm512_unpacklo_epi32(t[0], t[1]), b = _mm512_unpackhi_epi32(t[0], t[1]),
                  c = _mm512_unpacklo_epi32(t[2], t[3]), d = _mm512_unpackhi_epi32(t[2], t[3]);
    out[0] = (Words)_mm512_unpacklo_epi64(a, c);
    out[1] = (Words)_mm512_unpackhi_epi64(a, c);
    out[2] = (Words)_mm512_unpacklo_epi64(b, d);
    out[3] = (Words)_mm512_unpackhi_epi64(b, d);
}

INLINE void dots(const int limit, const int chunks, const int n, const uint8_t *w,
                 const int8_t *x, int64_t x_stride, const int32_t *scales,
                 Ints sums[][VECTORS]) {
    /* Of so many chunks, sums fit into halves, which are multiplied with scales faster than words. */
    const int fit = limit / 2, halved = 2 * fit >= chunks, step = halved ? fit : chunks;
    UNROLLED for (int first = 0; first < chunks; first += step) {
        __m512i parts[4][VECTORS];
        UNROLLED for (int c = 0; c < n; c++)
            UNROLLED for (int v = 0; v < VECTORS; v++)
                parts[c][v] = scales ? _mm512_setzero_si512() : (__m512i)sums[c][v];
        UNROLLED for (int i = 0; i < step; i++) {
            __m512i a[VECTORS];
            UNROLLED for (int v = 0; v < VECTORS; v++)
                a[v] = _mm512_loadu_si512(w + ((first + i) * VECTORS + v) * 64);
            UNROLLED for (int c = 0; c < n; c++) {
                int32_t four;
                memcpy(&four, x + c * x_stride + (first + i) * 4, 4);
                const __m512i b = _mm512_set1_epi32(four);
                UNROLLED for (int v = 0; v < VECTORS; v++)
                    parts[c][v] = limit == MOVED ? _mm512_dpbusd_epi32(parts[c][v], b, a[v])
                                                 : _mm512_dpbusd_epi32(parts[c][v], a[v], b);
            }
        }
        UNROLLED for (int v = 0; v < VECTORS; v++) {
            const Ints factor = scales ? (Ints)_mm512_loadu_si512(scales + v * LANES) : ints(1);
            UNROLLED for (int c = 0; c < n; c++) {
                const Ints part = (Ints)parts[c][v];
                sums[c][v] = !scales  ? part
                             : halved ? pairs(sums[c][v], part, factor & 0xffff)
                                      : sums[c][v] + part * factor;
            }
        }
    }
}
