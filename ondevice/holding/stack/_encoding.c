/* Weights into bit planes: the packing of a stack. */

#include <math.h>

#include "_planes.h"

enum { SPAN = 256, CODES = 1 << PLANES };
enum { LEAST_WELL = 3 }; /* planes from which on every number of them should do well */
static float value[PLANES + 1][CODES]; /* U / 128 with so many planes of a code that has all */

void encoding_start(void) {
    for (int level = 1; level <= PLANES; level++)
        for (int code = 0; code < CODES; code++)
            value[level][code] = (float)moved(code >> (PLANES - level), level) / CODES;
}

/* The code, with all planes, of a weight of `ratio` times its group's scale. */
static int code_of(float ratio) {
    const int code = CODES / 2 + (int)floorf(ratio * (CODES / 2));
    return code < 0 ? 0 : code > CODES - 1 ? CODES - 1 : code;
}

/* Encode rows of floats. `importance` weighs the columns. Adds to errors[level], for each number of
   planes, the weighted squared error that remains with it; errors[0] is the weighted energy. */
void encoding_encode(const float *w, const float *importance, int64_t rows, int64_t columns,
                     uint16_t *scales, uint8_t *nibbles, uint8_t *const *planes, double *errors) {
    const int64_t spans = (columns + SPAN - 1) / SPAN;
    for (int64_t row = 0; row < rows; row++) {
        for (int64_t s = 0; s < spans; s++) {
            const int64_t first = s * SPAN;
            const int groups = (int)((columns - first < SPAN ? columns - first : SPAN) / GROUP);
            const float *from = w + row * columns + first, *weight = importance + first;
            float most = 0, largest[SPAN / GROUP];
            for (int g = 0; g < groups; g++) {
                largest[g] = 0;
                for (int i = 0; i < GROUP; i++)
                    largest[g] = fmaxf(largest[g], fabsf(from[g * GROUP + i]));
                most = fmaxf(most, largest[g]);
            }
            float exact = most * 1.05f / 15; /* groups may be scaled a little beyond their largest */
            uint32_t bits;
            memcpy(&bits, &exact, 4);
            const float unit = scale_of_bits((uint16_t)((bits + 0xffff) >> 16));
            exact = unit / CODES; /* a power of two: exact */
            memcpy(&bits, &exact, 4);
            scales[row * spans + s] = (uint16_t)(bits >> 16);
            for (int g = 0; g < groups; g++) {
                const float *x = from + g * GROUP, *h = weight + g * GROUP;
                const float wanted = unit > 0 ? largest[g] / unit : 0;
                int low = (int)(wanted * 0.7f), high = (int)ceilf(wanted * 1.3f), best = 0;
                low = low < 1 ? 1 : low;
                high = high > 15 ? 15 : high;
                float least = 3e38f;
                for (int nibble = low; nibble <= high && wanted > 0; nibble++) {
                    const float scale = unit * nibble, over = 1 / scale;
                    float error = 0;
                    for (int i = 0; i < GROUP; i++) {
                        const int code = code_of(x[i] * over);
                        for (int level = LEAST_WELL; level <= PLANES; level++) {
                            const float off = x[i] - scale * value[level][code];
                            error += h[i] * (1 << 2 * (level - LEAST_WELL)) * off * off;
                        }
                    }
                    if (error < least) least = error, best = nibble;
                }
                const int64_t at = row * columns + first + g * GROUP;
                uint8_t *nibble = nibbles + at / WORD;
                *nibble = at % WORD ? (uint8_t)(*nibble | best << 4) : (uint8_t)best;
                uint16_t word[PLANES] = {0};
                for (int i = 0; i < GROUP; i++) {
                    const int code = best ? code_of(x[i] / (unit * best)) : CODES / 2;
                    for (int p = 0; p < PLANES; p++)
                        word[p] |= (uint16_t)((code >> (PLANES - 1 - p) & 1) << i);
                    errors[0] += h[i] * x[i] * x[i];
                    for (int level = 1; level <= PLANES; level++) {
                        const float off = x[i] - unit * best * value[level][code];
                        errors[level] += h[i] * off * off;
                    }
                }
                for (int p = 0; p < PLANES; p++) {
                    planes[p][at / 8] = (uint8_t)word[p];
                    planes[p][at / 8 + 1] = (uint8_t)(word[p] >> 8);
                }
            }
        }
    }
}
