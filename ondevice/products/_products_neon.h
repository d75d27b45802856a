/* Vectors of ARM's NEON, with and without products of bytes that are summed in 32 bits (dotprod). */

#include <arm_neon.h>

#include "_products_narrow.h"

#ifdef __ARM_FEATURE_DOTPROD
enum { VECTORS = 4 };
#else
enum { VECTORS = 2 }; /* sums of 16 bits take two registers each */
#endif

INLINE Floats to_floats(Ints x) { return (Floats)vcvtq_f32_s32((int32x4_t)x); }
INLINE Floats fused(Floats a, Floats b, Floats c) {
    return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
INLINE Floats halves(Words x) {
    return (Floats)vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32((uint32x4_t)x)));
}

INLINE Words looked_up(Words x, const int8_t *table) {
    return (Words)vqtbl1q_s8(vld1q_s8(table), (uint8x16_t)x);
}

INLINE void quads(const uint8_t *const *rows, int64_t at, Words *out) {
    uint32x4_t t[4];
    UNROLLED for (int k = 0; k < 4; k++) t[k] = vreinterpretq_u32_u8(vld1q_u8(rows[k] + at));
    const uint64x2_t a = vreinterpretq_u64_u32(vtrn1q_u32(t[0], t[1])),
                     b = vreinterpretq_u64_u32(vtrn2q_u32(t[0], t[1])),
                     c = vreinterpretq_u64_u32(vtrn1q_u32(t[2], t[3])),
                     d = vreinterpretq_u64_u32(vtrn2q_u32(t[2], t[3]));
    out[0] = (Words)vtrn1q_u64(a, c);
    out[1] = (Words)vtrn1q_u64(b, d);
    out[2] = (Words)vtrn2q_u64(a, c);
    out[3] = (Words)vtrn2q_u64(b, d);
}

INLINE int8x16_t four_bytes(const int8_t *x) {
    int32_t four;
    memcpy(&four, x, 4);
    return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

#ifdef __ARM_FEATURE_DOTPROD
INLINE void add_dots(const int limit, const int chunks, const int n, const uint8_t *w,
                     const int8_t *x, int64_t x_stride, int32x4_t parts[][VECTORS]) {
    (void)limit;
    UNROLLED for (int i = 0; i < chunks; i++) {
        int8x16_t a[VECTORS];
        UNROLLED for (int v = 0; v < VECTORS; v++)
            a[v] = vreinterpretq_s8_u8(vld1q_u8(w + (i * VECTORS + v) * 16));
        UNROLLED for (int c = 0; c < n; c++) {
            const int8x16_t b = four_bytes(x + c * x_stride + i * 4);
            UNROLLED for (int v = 0; v < VECTORS; v++)
                parts[c][v] = vdotq_s32(parts[c][v], a[v], b);
        }
    }
}
#else
/* Products of so many chunks as fit are summed in 16 bits. */
INLINE void add_dots(const int limit, const int chunks, const int n, const uint8_t *w,
                     const int8_t *x, int64_t x_stride, int32x4_t parts[][VECTORS]) {
    const int step = limit > 0 ? limit : 1;
    UNROLLED for (int first = 0; first < chunks; first += step) {
        int16x8_t low[4][VECTORS], high[4][VECTORS];
        UNROLLED for (int i = 0; i < step; i++)
            UNROLLED for (int c = 0; c < n; c++) {
                const int8x16_t b = four_bytes(x + c * x_stride + (first + i) * 4);
                UNROLLED for (int v = 0; v < VECTORS; v++) {
                    const uint8_t *const of_w = w + ((first + i) * VECTORS + v) * 16;
                    const int8x16_t a = vreinterpretq_s8_u8(vld1q_u8(of_w));
                    low[c][v] = i ? vmlal_s8(low[c][v], vget_low_s8(a), vget_low_s8(b))
                                  : vmull_s8(vget_low_s8(a), vget_low_s8(b));
                    high[c][v] = i ? vmlal_high_s8(high[c][v], a, b) : vmull_high_s8(a, b);
                }
            }
        UNROLLED for (int c = 0; c < n; c++)
            UNROLLED for (int v = 0; v < VECTORS; v++)
                parts[c][v] = vpadalq_s16(parts[c][v], vpaddq_s16(low[c][v], high[c][v]));
    }
}
#endif

INLINE void dots(const int limit, const int chunks, const int n, const uint8_t *w,
                 const int8_t *x, int64_t x_stride, const int32_t *scales,
                 Ints sums[][VECTORS]) {
    int32x4_t parts[4][VECTORS];
    UNROLLED for (int c = 0; c < n; c++)
        UNROLLED for (int v = 0; v < VECTORS; v++)
            parts[c][v] = scales ? vdupq_n_s32(0) : (int32x4_t)sums[c][v];
    add_dots(limit, chunks, n, w, x, x_stride, parts);
    UNROLLED for (int v = 0; v < VECTORS; v++) {
        const Ints factor = scales ? (Ints)vld1q_s32(scales + v * LANES) : ints(1);
        UNROLLED for (int c = 0; c < n; c++)
            sums[c][v] = scales ? sums[c][v] + (Ints)parts[c][v] * factor : (Ints)parts[c][v];
    }
}
