/* What vectors of 16 bytes compute alike on any processor. */

#ifndef PAIRS_OF_HALVES
#define PAIRS_OF_HALVES 0
#endif
enum { LANES = 4, UNSIGNED_BYTES = 0, PAIRED = PAIRS_OF_HALVES };
typedef uint32_t Words __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(16)));

INLINE Ints ints(int32_t x) { return (Ints){x, x, x, x}; }
INLINE Floats floats(float x) { return (Floats){x, x, x, x}; }
INLINE Floats halves_by_bits(Words x) { /* where no instruction does it */
    const Words magnitude = x & 0x7fffu, infinite = (Words)(magnitude > 0x7bffu) & 0x7f800000u;
    const Floats value = (Floats)(magnitude << 13) * floats(0x1p112f);
    return (Floats)((Words)value | infinite | (x & 0x8000u) << 16);
}

#if !PAIRS_OF_HALVES
INLINE Ints scale_of(Words x, const int byte) { return (Ints)(x << (24 - 8 * byte)) >> 24; }
INLINE Ints pair_of(Words x, const int byte, const int up) {
    const Ints first = scale_of(x, byte) << up, second = scale_of(x, byte + 1) << up;
    return (first & 0xffff) | second << 16;
}
INLINE Ints pairs(Ints sums, Ints a, Ints b) {
    return sums + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
}
#endif
INLINE Words gathered(const uint32_t *codebook, Words numbers) {
    Words words;
    for (int i = 0; i < LANES; i++) words[i] = codebook[numbers[i]];
    return words;
}
INLINE void gathered_pairs(const uint32_t *codebook, Words numbers, Words *out) {
    out[0] = gathered(codebook, 2 * numbers);
    out[1] = gathered(codebook + 1, 2 * numbers);
}
INLINE Words spread(Words x, const int byte) {
    return ((x >> (8 * byte + 4) & 15u) * 0x204081u & 0x01010101u) << 4;
}
