/* Vectors of SSSE3, for x86 without AVX2. Products of bytes are summed in 16 bits as long as they
   fit. */

#include <immintrin.h>

#define PAIRS_OF_HALVES 1 /* scales and pairs are others here */
#include "_products_narrow.h"

enum { VECTORS = 2 };

INLINE Floats to_floats(Ints x) { return (Floats)_mm_cvtepi32_ps((__m128i)x); }

INLINE Floats fused(Floats a, Floats b, Floats c) {
#ifdef __FMA__
    return (Floats)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
#else
    return a * b + c; /* rounded twice, unlike elsewhere */
#endif
}

INLINE Floats halves(Words x) { return halves_by_bits(x); }

/* Bytes `first` and `second` of each lane become the upper ones of halves. */
INLINE __m128i raised(Words x, const int first, const int second) {
    const __m128i lanes = _mm_setr_epi32(0, 0x04000400, 0x08000800, 0x0c000c00);
    const __m128i order = _mm_add_epi8(lanes, _mm_set1_epi32(second << 24 | first << 8));
    return _mm_shuffle_epi8((__m128i)x, _mm_or_si128(order, _mm_set1_epi16(0x80)));
}
INLINE Ints scale_of(Words x, const int byte) {
    return (Ints)_mm_srai_epi16(raised(x, byte, byte), 8);
}
INLINE Ints pair_of(Words x, const int byte, const int up) {
    return (Ints)_mm_srai_epi16(raised(x, byte, byte + 1), 8 - up);
}
INLINE Ints pairs(Ints sums, Ints a, Ints b) {
    return sums + (Ints)_mm_madd_epi16((__m128i)a, (__m128i)b);
}

INLINE Words looked_up(Words x, const int8_t *table) {
    return (Words)_mm_shuffle_epi8(_mm_loadu_si128((const void *)table), (__m128i)x);
}

INLINE void quads(const uint8_t *const *rows, int64_t at, Words *out) {
    __m128i t[4];
    UNROLLED for (int k = 0; k < 4; k++) t[k] = _mm_loadu_si128((const void *)(rows[k] + at));
    const __m128i a = _mm_unpacklo_epi32(t[0], t[1]), b = _mm_unpackhi_epi32(t[0], t[1]),
                  c = _mm_unpacklo_epi32(t[2], t[3]), d = _mm_unpackhi_epi32(t[2], t[3]);
    out[0] = (Words)_mm_unpacklo_epi64(a, c);
    out[1] = (Words)_mm_unpackhi_epi64(a, c);
    out[2] = (Words)_mm_unpacklo_epi64(b, d);
    out[3] = (Words)_mm_unpackhi_epi64(b, d);
}

typedef __m128i Vector;
INLINE Vector loaded(const void *from) { return _mm_loadu_si128(from); }
INLINE Vector alike(int32_t four) { return _mm_set1_epi32(four); }
INLINE Vector plus_halves(Vector a, Vector b) { return _mm_add_epi16(a, b); }
INLINE Vector byte_products(Vector w, Vector x) { return _mm_maddubs_epi16(w, x); }
INLINE Vector signed_products(Vector w, Vector x) {
    return _mm_maddubs_epi16(_mm_abs_epi8(w), _mm_sign_epi8(x, w));
}
INLINE Ints half_products(Vector a, Vector b) { return (Ints)_mm_madd_epi16(a, b); }

#include "_products_halves.h"
