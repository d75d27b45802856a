/* Vectors of AVX2. Products of bytes are summed in 16 bits as long as they fit. */

#include "_products_x86.h"

#define WIDE_VECTORS

enum { LANES = 8, VECTORS = 2, UNSIGNED_BYTES = 0, PAIRED = 1 };
typedef uint32_t Words __attribute__((vector_size(32)));
typedef int32_t Ints __attribute__((vector_size(32)));
typedef float Floats __attribute__((vector_size(32)));

INLINE Ints ints(int32_t x) { return (Ints)_mm256_set1_epi32(x); }
INLINE Floats floats(float x) { return (Floats)_mm256_set1_ps(x); }
INLINE Floats to_floats(Ints x) { return (Floats)_mm256_cvtepi32_ps((__m256i)x); }
INLINE Floats fused(Floats a, Floats b, Floats c) {
    return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
}
/* Bytes `first` and `second` of each lane become the upper ones of halves. */
INLINE __m256i raised(Words x, const int first, const int second) {
    const int32_t order = second << 24 | first << 8;
    const __m256i lanes = _mm256_setr_epi32(0, 0x04000400, 0x08000800, 0x0c000c00, 0, 0x04000400,
                                            0x08000800, 0x0c000c00);
    const __m256i low = _mm256_set1_epi16(0x80);
    return _mm256_shuffle_epi8(
        (__m256i)x,
        _mm256_or_si256(low, _mm256_add_epi8(lanes, _mm256_set1_epi32(order))));
}
INLINE Ints scale_of(Words x, const int byte) {
    return (Ints)_mm256_srai_epi16(raised(x, byte, byte), 8);
}
INLINE Ints pair_of(Words x, const int byte, const int up) {
    return (Ints)_mm256_srai_epi16(raised(x, byte, byte + 1), 8 - up);
}
INLINE Ints pairs(Ints sums, Ints a, Ints b) {
    return sums + (Ints)_mm256_madd_epi16((__m256i)a, (__m256i)b);
}
INLINE Floats halves(Words x) {
    const __m256i all = (__m256i)x;
    return (Floats)_mm256_cvtph_ps(
        _mm_packus_epi32(_mm256_castsi256_si128(all), _mm256_extracti128_si256(all, 1)));
}

INLINE Ints byte_pairs(Words w, Words x) {
    return (Ints)_mm256_maddubs_epi16((__m256i)w, (__m256i)x);
}
INLINE Words from_rows(const uint8_t *from, int64_t stride, int n) {
    (void)stride;
    return (Words)some_words(from, n);
}
INLINE Words for_rows(const void *from) { return (Words)_mm256_loadu_si256(from); }
INLINE Words nibbles_of(const uint8_t *from, int64_t stride, int n) {
    (void)stride;
    const __m128i bytes = _mm_cvtsi64_si128((long long)some_bytes(from, n)),
                  low = _mm_set1_epi8(15);
    return (Words)_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(
        _mm_and_si128(bytes, low), _mm_and_si128(_mm_srli_epi16(bytes, 4), low)));
}

INLINE Words looked_up(Words x, const int8_t *table) {
    const __m256i all = _mm256_broadcastsi128_si256(_mm_loadu_si128((const void *)table));
    return (Words)_mm256_shuffle_epi8(all, (__m256i)x);
}
INLINE Words gathered(const uint32_t *codebook, Words numbers) {
    return (Words)_mm256_i32gather_epi32((const int *)codebook, (__m256i)numbers, 4);
}
INLINE void gathered_pairs(const uint32_t *codebook, Words numbers, Words *out) {
    out[0] = (Words)_mm256_i32gather_epi32((const int *)codebook, (__m256i)numbers, 8);
    out[1] = (Words)_mm256_i32gather_epi32((const int *)codebook + 1, (__m256i)numbers, 8);
}
INLINE Words spread(Words x, const int byte) {
    const __m256i order = _mm256_add_epi8(
        _mm256_setr_epi32(0, 0x04040404, 0x08080808, 0x0c0c0c0c, 0, 0x04040404, 0x08080808,
                          0x0c0c0c0c), _mm256_set1_epi8((char)byte));
    const __m256i bits = _mm256_and_si256(_mm256_shuffle_epi8((__m256i)x, order),
                                          _mm256_set1_epi32((int)0x80402010u));
    return (Words)_mm256_min_epu8(bits, _mm256_set1_epi8(16));
}

INLINE void quads(const uint8_t *const *rows, int64_t at, Words *out) {
    __m256i t[4];
    UNROLLED for (int k = 0; k < 4; k++)
        t[k] = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const void *)(rows[k] + at))),
            _mm_loadu_si128((const void *)(rows[k + 4] + at)), 1);
    const __m256i a = _mm256_unpacklo_epi32(t[0], t[1]), b = _mm256_unpackhi_epi32(t[0], t[1]),
                  c = _mm256_unpacklo_epi32(t[2], t[3]), d = _mm256_unpackhi_epi32(t[2], t[3]);
    out[0] = (Words)_mm256_unpacklo_epi64(a, c);
    out[1] = (Words)_mm256_unpackhi_epi64(a, c);
    out[2] = (Words)_mm256_unpacklo_epi64(b, d);
    out[3] = (Words)_mm256_unpackhi_epi64(b, d);
}

typedef __m256i Vector;
INLINE Vector loaded(const void *from) { return _mm256_loadu_si256(from); }
INLINE Vector alike(int32_t four) { return _mm256_set1_epi32(four); }
INLINE Vector plus_halves(Vector a, Vector b) { return _mm256_add_epi16(a, b); }
INLINE Vector byte_products(Vector w, Vector x) { return _mm256_maddubs_epi16(w, x); }
INLINE Vector signed_products(Vector w, Vector x) {
    return _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
}
INLINE Ints half_products(Vector a, Vector b) { return (Ints)_mm256_madd_epi16(a, b); }

#include "_products_halves.h"
