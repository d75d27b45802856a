/* What vectors of x86 load alike: of the words or bytes that are there, the others are zero. */

#include <immintrin.h>

INLINE __m256i some_words(const uint8_t *from, int n) {
    if (n == 8) return _mm256_loadu_si256((const void *)from);
    const __m256i some =
        _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    return _mm256_maskload_epi32((const void *)from, some);
}
INLINE uint64_t some_bytes(const uint8_t *from, int n) {
    uint64_t bytes = 0;
    if (n == 8) memcpy(&bytes, from, 8);
    else for (int i = 0; i < n; i++) bytes |= (uint64_t)from[i] << 8 * i;
    return bytes;
}
